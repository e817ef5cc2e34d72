"""`chatkit-async bulk`: create and cancel many sessions, with a journal to resume by."""

import os
import shlex
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs
import click

from chatkit_async._exit_codes import USAGE
from chatkit_async._settings import Settings
from chatkit_async.bulk import CONCURRENCY, MAX_FAILURES, BulkRun, SuccessKind
from chatkit_async.cli._check import Report, lifetime_of
from chatkit_async.cli._job import Again, Job, Printed, Sink, Source
from chatkit_async.cli._journal import Header, Journal
from chatkit_async.cli._line_file import lock
from chatkit_async.cli._options import (
    base_url_option,
    command_with,
    debug_option,
    secret_option,
    state_variable_option,
    timeout_option,
)
from chatkit_async.cli._output import counted, note, reason, without_secrets
from chatkit_async.cli._progress import duration
from chatkit_async.cli._rows import (
    CsvDecoder,
    Decoder,
    IdDecoder,
    InputError,
    JsonDecoder,
    Stream,
    Values,
    fingerprint_of,
    problems_of_cancel,
    problems_of_create,
    read_defaults,
)
from chatkit_async.cli._running import run
from chatkit_async.cli._status import status
from chatkit_async.client import AsyncChatKit
from chatkit_async.errors import Problem
from chatkit_async.models import StateVariable
from chatkit_async.options import MAX_CONNECTIONS

V = TypeVar("V")
F = TypeVar("F", bound=Callable[..., Any])

_CSV = {".csv", ".xlsx", ".xls", ".ods"}  # of which a workbook is refused by its first bytes
_JSON_LINES = {".jsonl", ".ndjson", ".json"}


@click.group(short_help="Create or cancel many sessions from a file.")
def bulk() -> None:
    """Create or cancel many sessions from a file. A journal lets you resume a run."""


bulk.add_command(status)


def _run_options(command: F) -> F:
    """Add the options that both commands have."""
    options: tuple[Callable[[Any], Any], ...] = (
        click.option(
            "-o",
            "--output",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Write outcomes to this journal, for --resume. Default: -, stdout.",
        ),
        click.option("--resume", is_flag=True, help="Continue the run of FILE."),
        click.option(
            "--retry-unknown",
            is_flag=True,
            help="With --resume: also send rows with an unknown outcome.",
        ),
        click.option(
            "--retry-rejected",
            is_flag=True,
            help="With --resume: also send rejected rows, as they are now.",
        ),
        click.option("--dry-run", is_flag=True, help="Check every row, and send nothing."),
        click.option(
            "--concurrency",
            type=click.IntRange(1, 10_000),
            default=CONCURRENCY,
            show_default=True,
            metavar="N",
            help="Maximum number of requests in flight.",
        ),
        click.option(
            "--rate",
            type=float,
            metavar="N",
            help="Maximum number of rows started per second. Default: no limit.",
        ),
        click.option(
            "--max-failures",
            type=click.IntRange(0),
            default=MAX_FAILURES,
            show_default=True,
            metavar="N",
            help="Stop if the first N rows fail in the same way. 0: never.",
        ),
        click.option("--limit", type=click.IntRange(1), metavar="N", help="Send at most N rows."),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            help="Show no progress, and no summary if every row succeeds.",
        ),
        timeout_option("Time limit of each row, without waits for the rate limit."),
        base_url_option,
        debug_option,
    )
    for option in reversed(options):
        command = cast("F", option(command))
    return command


def _renamed(
    _context: click.Context, _parameter: click.Parameter, given: Sequence[str]
) -> dict[str, str]:
    renamed = {name: field for name, _, field in (text.rpartition("=") for text in given)}
    for name, field in renamed.items():
        if not (name.strip() and field.strip()):
            raise click.BadParameter(f"must be COLUMN=FIELD, got {name or field!r}.")
    return renamed


def _unless_stdout(output: Path | None) -> Path | None:
    return None if output == Path("-") else output


@attrs.frozen(kw_only=True)
class Options:
    """The options of both commands."""

    output: Path | None = attrs.field(converter=_unless_stdout)
    resume: bool
    retry_unknown: bool
    retry_rejected: bool
    dry_run: bool
    concurrency: int
    rate: float | None
    max_failures: int
    limit: int | None
    timeout: float
    quiet: bool
    no_output: bool = False
    renew_expired: bool = False
    show_secret: bool = False

    def __attrs_post_init__(self) -> None:
        if self.resume and self.output is None:
            raise click.UsageError("--resume needs --output FILE: the journal of the run.")
        if not self.resume and (self.retry_unknown or self.retry_rejected or self.renew_expired):
            raise click.UsageError(
                "--retry-unknown, --retry-rejected and --renew-expired go with --resume."
            )
        # Not click's own range, which lets NaN through; and here, before there is a journal.
        if self.rate is not None and not 0 < self.rate < inf:
            raise click.UsageError(f"--rate must be greater than 0 and finite, got {self.rate}.")

    def bounds(self) -> dict[str, Any]:
        """Return the bounds of the run, as its method takes them."""
        return {
            "concurrency": self.concurrency,
            "rate": self.rate,
            "max_failures": self.max_failures or None,
        }


_FIXES: Mapping[Problem, str] = {
    ("user", "is required"): 'add a column, or rename one: --map "COLUMN=user"',
    ("workflow", "is required"): "pass --workflow or add a column",
}
"""Advice on problems of rows, beside what the problem says itself."""

_SOURCE = click.argument(
    "source",
    metavar="INPUT",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
)


@bulk.command("create", short_help="Create a session for each row of a file.")
@_SOURCE
@click.option(
    "--format",
    "input_format",
    type=click.Choice(["csv", "jsonl"]),
    help="How INPUT is written. Default: as its name says; of stdin: jsonl.",
)
@click.option(
    "--map",
    "renamed",
    multiple=True,
    metavar="COLUMN=FIELD",
    callback=_renamed,
    help="Read a column of CSV as a field. Repeatable.",
)
@click.option(
    "--ignore-column",
    "ignored",
    multiple=True,
    metavar="COLUMN",
    help="Leave out a column of CSV. Repeatable.",
)
@click.option(
    "--ignore-unknown-columns",
    "ignore_unknown",
    is_flag=True,
    help="Leave out unknown columns of CSV.",
)
@click.option("--workflow", metavar="ID", help="The workflow of rows that have none.")
@click.option(
    "--expires-after",
    type=click.IntRange(1),
    metavar="SECONDS",
    help="How long sessions live, 1 to 600, where a row does not say.",
)
@click.option(
    "--max-requests-per-minute",
    "rate_limits",
    type=click.IntRange(1),
    metavar="N",
    help="The rate limit of sessions, where a row does not say.",
)
@state_variable_option
@click.option(
    "--defaults",
    "defaults_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="JSON or TOML: fields for rows and options that do not say otherwise.",
)
@click.option("--renew-expired", is_flag=True, help="With --resume: also replace expired sessions.")
@click.option(
    "--no-output", is_flag=True, help="Do not ask if -o FILE is missing, and all secrets are lost."
)
@secret_option
@_run_options
@click.pass_context
def create(
    context: click.Context,
    /,
    *,
    source: Path,
    input_format: str | None,
    renamed: dict[str, str],
    ignored: tuple[str, ...],
    ignore_unknown: bool,
    state_variables: dict[str, StateVariable] | None,
    defaults_path: Path | None,
    **options: Any,
) -> None:
    """Create a session for each row of INPUT: CSV, JSON lines, or - for stdin.

    Each outcome is a line of JSON in FILE, which only you can read: it holds the client secrets.
    After any end, the same command with --resume continues the run.

    \b
      chatkit-async bulk create users.csv --workflow wf_123 -o out.jsonl
    """  # noqa: D301 - click wants the character itself
    fields = {name: options.pop(name) for name in ("workflow", "expires_after", "rate_limits")}
    given = Options(**options)
    defaults = read_defaults(defaults_path, fields, state_variables)
    is_csv = _is_csv(source, input_format)
    if not is_csv and (renamed or ignored or ignore_unknown):
        raise click.UsageError("--map, --ignore-column and --ignore-unknown-columns are for CSV.")
    decoder: Decoder[Values] = JsonDecoder(defaults)
    if is_csv:
        columns = {**renamed, **dict.fromkeys(ignored)}
        decoder = CsvDecoder(defaults, renamed=columns, ignore_unknown=ignore_unknown)
    with _opened(source) as (stream, status):
        rows = Source(decoder, stream, status)
        if given.dry_run:
            report = Report(problems_of_create, "user", _FIXES)
            context.exit(_check(rows, report, given))
        if options["output"] is None and not (given.no_output or given.show_secret):
            _confirm_no_output()
        header = Header(
            command="bulk create",
            base_url=Settings.resolve({}).base_url,
            input=str(source),
            defaults=fingerprint_of(defaults) if defaults else None,
        )
        context.exit(
            _carry_out(
                given,
                header,
                rows,
                "created",
                lambda client, values: client.sessions.create_many(values, **given.bounds()),
                lifetime=lifetime_of(defaults),
            )
        )


@bulk.command("cancel", short_help="Cancel sessions, or all that a run created.")
@_SOURCE
@_run_options
@click.pass_context
def cancel(context: click.Context, /, *, source: Path, **options: Any) -> None:
    """Cancel the sessions of INPUT: the journal of `bulk create`, or ids, one to a line.

    An id can be the "id" of a JSON object too; - is stdin. With -o FILE the run can be resumed.

    \b
      chatkit-async bulk cancel out.jsonl -o cancelled.jsonl
    """  # noqa: D301 - click wants the character itself
    given = Options(**options)
    with _opened(source, journal=True) as (stream, status):
        rows = Source(IdDecoder(), stream, status)
        if given.dry_run:
            report = Report(problems_of_cancel, "id", {})
            context.exit(_check(rows, report, given))
        header = Header(
            command="bulk cancel",
            base_url=Settings.resolve({}).base_url,
            input=str(source),
            defaults=None,
        )
        context.exit(
            _carry_out(
                given,
                header,
                rows,
                "cancelled",
                lambda client, ids: client.sessions.cancel_many(ids, **given.bounds()),
            )
        )


def _confirm_no_output() -> None:
    """Ask, on a terminal, if a run may go on whose secrets are kept nowhere."""
    if all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        click.confirm(
            "Without -o FILE all client secrets are lost, and the run cannot be resumed.\n"
            "Create the sessions anyway?",
            abort=True,
            err=True,
        )


def _is_csv(source: Path, given: str | None) -> bool:
    suffix = source.suffix.lower()
    if given is None and source.name != "-" and suffix not in _CSV | _JSON_LINES:
        raise click.UsageError(
            f"the format of {source} is unknown: use --format csv or --format jsonl. Users' ids, one "
            "on each line, are CSV with a first line `user`."
        )
    return given == "csv" if given else suffix in _CSV


@contextmanager
def _opened(
    source: Path, *, journal: bool = False
) -> Generator[tuple[Stream, os.stat_result | None]]:
    """Open the input, which may be a journal: one that is being written is not read."""
    with ExitStack() as stack:
        # A program can be started without stdin.
        stream = cast("Stream | None", getattr(sys.stdin, "buffer", None))
        status = None
        if source.name != "-":
            stream = file = stack.enter_context(_file(source))
            status = os.fstat(file.fileno())
            if journal:
                _refuse_if_locked(file, source)
        if stream is None:
            raise InputError("there is no standard input")
        try:
            yield stream, status
        except InputError as error:
            if not error.remedy:
                raise
            advice = without_secrets(command_with(*error.remedy))
            raise InputError(f"{error.message}\nTry: {advice}") from None


def _file(source: Path) -> BufferedReader:
    try:
        return source.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {source}: {reason(error)}") from None


def _refuse_if_locked(file: BufferedReader, source: Path) -> None:
    try:
        lock(file.fileno(), shared=True)
    except BlockingIOError:
        raise InputError(f"{source} is being written by a run: wait for its end") from None
    except OSError:
        pass  # where no file can be locked, no run can write one


def _check(source: Source[V], report: Report[V], given: Options) -> int:
    """Report the problems of all rows, and return the exit code."""
    try:
        with _each_warning_once():
            for row in islice(source.all(), given.limit):
                report.add(row)
    finally:
        for text in report.problems:
            note(without_secrets(text))
        for text in report.warnings:
            note(without_secrets(f"Warning: {text}"))
    if given.rate is not None:
        _warn_of_expiry(report.rows, given.rate, report.lifetime)
    note(f"{counted(report.rows, 'row')}, {report.wrong:,} of them wrong. Nothing was sent.")
    if report.wrong:
        return USAGE
    params = click.get_current_context().params
    output = () if params["output"] else ("-o", f"{params['source'].stem}.out.jsonl")
    if params["source"].name != "-":
        note(without_secrets(f"To send: {command_with(*output, without={'--dry-run'})}"))
    return 0


def _warn_of_expiry(rows: int, rate: float, lifetime: float) -> None:
    """Say that the first secrets expire before a run ends, if they do."""
    if rows / rate > lifetime:
        note(
            f"Warning: {counted(rows, 'row')} at {rate * 60:,g} per minute take "
            f"{duration(rows / rate)}, and client secrets expire after {duration(lifetime)}. "
            "Use each one as it arrives: -o - --show-secret | PROGRAM"
        )


def _advise(job: Job[V], journal: Path) -> None:
    """Print what is left to do, and the command for each."""
    see_why = shlex.join(["chatkit-async", "bulk", "status", str(journal)])
    for left, what, flags in (
        (job.unfinished, "To continue this run:", ()),
        (
            job.totals["unknown"],
            "with an unknown outcome. To send these rows again:",
            ("--retry-unknown",),
        ),
        (
            job.rejected,
            f"rejected. To see why:\n  {see_why}\nAfter correcting the input:",
            ("--retry-rejected",),
        ),
        (
            job.expired,
            "with an expired session. To create new sessions:",
            ("--renew-expired",),
        ),
    ):
        if left:
            number = f"{counted(left, 'row')} " if flags else ""
            command = without_secrets(
                command_with("--resume", *flags, without=("--resume", *flags))
            )
            note(f"{number}{what}\n  {command}")


def _carry_out(
    given: Options,
    header: Header,
    rows: Source[V],
    done: SuccessKind,
    start: Callable[[AsyncChatKit, AsyncIterator[V]], BulkRun[Any, Any]],
    *,
    lifetime: float = inf,
) -> int:
    """Carry out a run, and return the exit code."""
    with ExitStack() as stack:
        stack.enter_context(_each_warning_once())
        # First, because it refuses wrong settings before the journal is created.
        client = AsyncChatKit(
            timeout=given.timeout, max_connections=max(MAX_CONNECTIONS, given.concurrency)
        )
        sink: Sink = Printed(show_secret=given.show_secret)
        if given.output is not None:
            sink = stack.enter_context(
                Journal(
                    given.output,
                    header,
                    resume=given.resume,
                    show_secret=done == "created",
                )
            )
        again = Again(
            unknown=given.retry_unknown, rejected=given.retry_rejected, expired=given.renew_expired
        )
        if given.rate is not None and lifetime < inf:
            left = rows.lines() - len(sink.history)
            _warn_of_expiry(min(left, given.limit or left), given.rate, lifetime)
        job = Job(rows, sink, done, again=again, limit=given.limit, quiet=given.quiet)
        try:
            run(
                job.work(client, lambda values: start(client, values)),
                on_interrupt=job.interrupt,
            )
        finally:
            if job.exit_code or not given.quiet:
                note(job.summary())
            if given.output is not None:
                _advise(job, given.output)
    return job.exit_code


@contextmanager
def _each_warning_once() -> Generator[None]:
    """Show a warning once, and not again for every row."""
    shown: set[str] = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_once(message: Warning | str, *where: Any, **how: Any) -> None:
            if str(message) not in shown:
                shown.add(str(message))
                show(message, *where, **how)

        warnings.showwarning = show_once
        yield
