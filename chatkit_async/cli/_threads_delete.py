"""`chatkit-async threads delete`: erase conversations, and record what was erased."""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import attrs
import click

from chatkit_async import __version__
from chatkit_async._exit_codes import PARTIAL
from chatkit_async._fanout import Fanout
from chatkit_async.bulk import Outcome
from chatkit_async.cli._export_file import PAGE_SIZE, Ids, counts_of, read_parts
from chatkit_async.cli._job import Again, Job, Source
from chatkit_async.cli._journal import History, error_record
from chatkit_async.cli._line_file import LineFile, LineFileError
from chatkit_async.cli._options import base_url_option, debug_option, timeout_option
from chatkit_async.cli._output import counted, note, without_secrets
from chatkit_async.cli._rows import IdDecoder, Row
from chatkit_async.cli._running import run
from chatkit_async.cli._selection import (
    Selection,
    date_option,
    described,
    project,
    selection_options,
)
from chatkit_async.cli._transcript import when
from chatkit_async.client import AsyncChatKit
from chatkit_async.errors import NotFoundError
from chatkit_async.models.threads import ChatKitThread
from chatkit_async.options import OMITTED, Attempt
from chatkit_async.secret import printable

SESSION_LIFETIME = 600.0
"""Seconds after which a session has expired, at the latest."""

POLL_INTERVAL = 15.0
"""Seconds between two requests for threads that appeared."""

CONCURRENCY = 16
MAX_SHOWN = 10
MAX_RETRIES = 5

_DAYS = re.compile(r"(\d+)d")


@attrs.frozen(kw_only=True)
class Found:
    """A thread that was found for deletion.

    Attributes:
        kind: `listed`, and only this is deleted; `changed`: it has newer items than the export;
            `gone`: it does not exist; `active`: it was not idle for long enough.
    """

    kind: str
    thread_id: str
    thread: ChatKitThread | None = None
    counts: Counter[str] = attrs.field(factory=Counter[str])

    @property
    def user(self) -> str:
        """The user of the thread."""
        return getattr(self.thread, "user", None) or "(unknown)"


class Record(LineFile):
    """The record of a deletion: what was found and deleted, and when.

    As a sink of a `Job`, it has no history: what a run that was killed has deleted is not found
    by the next one. That one adds to the file.
    """

    def __init__(self, path: Path) -> None:
        self.history = History()
        self._begun = Ids()  # the threads that earlier runs began to delete
        self._thread_id: ContextVar[str] = ContextVar("thread_id")  # of a worker of the run
        self._request_ids: dict[str, list[str | None]] = {}
        super().__init__(path, resume=True)

    def note(self, record: str, **fields: object) -> None:
        """Write a line."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.append(json.dumps({"record": record, **fields, "at": at}).encode() + b"\n")

    def note_attempt(self, attempt: Attempt) -> None:
        """Note the request id of an attempt, which a worker makes for the row that it has."""
        if attempt.method == "DELETE":
            self._request_ids[self._thread_id.get()].append(attempt.request_id)

    def intent(self, row: Row[object]) -> None:
        """Note that a thread is about to be deleted, in the worker that will do so."""
        thread_id = str(row.value)
        self.note("intent", thread_id=thread_id)
        self._thread_id.set(thread_id)
        self._request_ids[thread_id] = []

    def outcome(self, row: Row[object], outcome: Outcome[object, Any]) -> None:
        """Note what became of a thread."""
        fields: dict[str, object] = {"request_ids": self._request_ids.pop(str(row.value), [])}
        if outcome.error is not None:
            fields["error"] = error_record(outcome.error)
        self.note(outcome.kind, thread_id=row.value, attempts=outcome.attempts, **fields)

    def lacks(self, thread_id: str) -> bool:
        """Return True if no earlier run began to delete a thread."""
        return self._begun.add(thread_id)

    def _load(self, file: BinaryIO) -> int:
        end = 0
        for number, line in enumerate(file, 1):
            if not line.startswith(b'{"record": ') and line.endswith(b"\n"):
                raise LineFileError(f"{self._path} is not a record of deletions: line {number}.")
            if line.startswith(b'{"record": "intent"') and line.endswith(b"\n"):
                self._begun.add(json.loads(line)["thread_id"])
            end += len(line) if line.endswith(b"\n") else 0
        return end

    def _begin(self) -> None:
        pass


@attrs.frozen(kw_only=True)
class Deletion:
    """A deletion: it finds the threads, deletes them, and looks for new ones."""

    selection: Selection
    export: Path | None
    idle_for: int | None
    record: Record
    timeout: float
    wait: bool
    started: float = attrs.field(factory=time.time)

    def client(self) -> AsyncChatKit:
        """Return a client for one event loop."""
        return AsyncChatKit(
            timeout=self.timeout, max_retries=MAX_RETRIES, on_attempt=self.record.note_attempt
        )

    # Before ---------------------------------------------------------------------------------------

    async def survey(self) -> list[Found]:
        """Return the threads that were asked for, with what is lost with each."""
        async with self.client() as client:
            fanout = Fanout(
                lambda _, wanted: self._look_at(client, *wanted),
                lambda _, wanted: Found(kind="active", thread_id=str(wanted[0])),  # never taken
                self._wanted(client),
                concurrency=CONCURRENCY,
                ordered=True,
            )
            fanout.start()
            found: list[Found] = []
            try:
                while await fanout.ready():
                    found += fanout.take()
            finally:
                await fanout.close()
        return found

    async def _wanted(
        self, client: AsyncChatKit
    ) -> AsyncIterator[tuple[ChatKitThread | str, str | None]]:
        """Return threads or ids, and for an export the id of the newest item of each."""
        if self.export is not None:
            with self.export.open("rb") as file:
                for part, _ in read_parts(file, self.export):
                    if not part.has_more:
                        newest = getattr(part.items[-1], "id", None) if part.items else None
                        yield part.thread.id, newest or ""
        elif self.selection.ids is not None:
            for thread_id in self.selection.each_id():
                yield thread_id, None
        else:
            for user in self.selection.each_user():
                async for thread in client.threads.list(
                    user=OMITTED if user is None else user, limit=PAGE_SIZE
                ):
                    if self.selection.fits(thread):
                        yield thread, None

    async def _look_at(
        self, client: AsyncChatKit, wanted: ChatKitThread | str, exported: str | None
    ) -> Found:
        """Look at the items of a thread, the newest first."""
        thread_id = wanted if isinstance(wanted, str) else wanted.id
        try:
            thread = wanted
            if isinstance(thread, str):
                thread = await client.threads.retrieve(thread)
            counts, newest = Counter[str](), None
            async for item in client.threads.list_items(thread_id, limit=PAGE_SIZE):
                newest = newest or item
                counts += counts_of([item])
        except NotFoundError:
            return Found(kind="gone", thread_id=thread_id)
        last = newest or thread
        kind = "listed"
        if exported is not None and (getattr(newest, "id", None) or "") != exported:
            kind = "changed"
        elif self.idle_for is not None and last.created_at > self.started - self.idle_for:
            kind = "active"
        return Found(kind=kind, thread_id=thread_id, thread=thread, counts=counts)

    # The deletion ---------------------------------------------------------------------------------

    def delete(self, ids: Sequence[str]) -> int:
        """Delete threads, and return the exit code."""
        rows = BytesIO("".join(f"{json.dumps(one)}\n" for one in ids).encode())
        job = Job(
            Source(IdDecoder(), rows, None),
            self.record,
            "deleted",
            again=Again(),
            limit=None,
            noun="thread",
        )
        client = self.client()
        try:
            run(
                job.work(
                    client,
                    lambda threads: client.threads.delete_many(threads, concurrency=CONCURRENCY),
                ),
                on_interrupt=job.interrupt,
            )
        finally:
            note(job.summary())
        return job.exit_code

    def finish(self, code: int) -> int:
        """Delete what appeared meanwhile until no user has a thread, and return the exit code.

        Args:
            code: The exit code of the deletion. If it is not 0, what is left is only counted.
        """
        end = self.started + SESSION_LIFETIME if self.wait and not code else 0.0
        if end:
            note(f"Looking for what sessions still write, until {_time(end)}. Ctrl-C ends it.")
        while True:
            left, empty = run(self._left())
            if left and code:
                note(f"Not deleted: {counted(len(left), 'thread')}.")
                return code
            if left:
                note(f"Appeared meanwhile: {counted(len(left), 'thread')}.")
                for thread in left:
                    self.record.note("appeared", thread_id=thread.id)
                code = self.delete([thread.id for thread in left])
            elif (rest := end - time.time()) > 0:
                run(asyncio.sleep(min(rest, POLL_INTERVAL)))
            else:
                break
        for user, request_id in empty.items():
            self.record.note("empty", user=user, has_more=False, request_id=request_id)
            note(f"The list of {user} is empty (request id {request_id}).")
        if not self.wait:
            note(
                f"A session created before {_time(self.started)} can still write until "
                f"{_time(self.started + SESSION_LIFETIME)}. Run the command again after that."
            )
        return code

    async def _left(self) -> tuple[list[ChatKitThread], dict[str | None, str | None]]:
        """Return the threads that the users have, and the request ids of lists that are empty."""
        left: list[ChatKitThread] = []
        empty: dict[str | None, str | None] = {}
        async with self.client() as client:
            for user in self.selection.each_user():
                reply = await client.threads.with_raw_response.list(
                    user=user or "", limit=PAGE_SIZE
                )
                page = reply.parse()
                if not page.data and not page.has_more:
                    empty[user] = reply.request_id
                left += [thread async for thread in page]
        return left, empty


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _days(_context: click.Context, _parameter: click.Parameter, given: str | None) -> int | None:
    """Return the seconds of a number of days such as `30d`."""
    if given is None:
        return None
    if (found := _DAYS.fullmatch(given)) is None:
        raise click.BadParameter(f"must be a number of days such as 30d, got {given!r}.")
    return int(found[1]) * 86_400


@click.command("delete", short_help="Erase conversations, and record what was erased.")
@selection_options
@click.option(
    "--from",
    "export",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="EXPORT",
    help="The threads of an export, unless they have newer items.",
)
@click.option("--all-users", is_flag=True, help="The threads of all users of the project.")
@click.option(
    "--idle-for",
    callback=_days,
    metavar="30d",
    help="Only threads whose newest item is that many days old.",
)
@date_option("--created-before", "until", "Only threads created before this date, in UTC.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "-o",
    "--record",
    "record",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write down what was found and deleted, and when.",
)
@click.option(
    "--no-wait",
    is_flag=True,
    help="With --user or --users: do not wait for sessions that can still write.",
)
@timeout_option("Limit of each request, every attempt and wait included.")
@base_url_option
@debug_option
@click.pass_context
def delete(
    context: click.Context,
    /,
    *,
    export: Path | None,
    all_users: bool,
    idle_for: int | None,
    yes: bool,
    record: Path | None,
    no_wait: bool,
    timeout: float,
    **selected: Any,
) -> None:
    """Delete threads with their items and attachments. This cannot be undone.

    It shows what it found and asks first. With --user or --users, it also deletes threads that
    appear meanwhile, until earlier sessions have expired, and ends with an empty list.

    \b
      chatkit-async threads delete --user ada --yes --no-wait
    """  # noqa: D301 - click wants the character itself
    selection = Selection(**selected)
    given = [selection.user, selection.users, selection.ids, export, all_users or None]
    if given.count(None) != len(given) - 1:
        raise click.UsageError("Choose one of --user, --users, --ids, --from and --all-users.")
    selection.check()
    where = project()
    with ExitStack() as stack:
        path = record or Path(stack.enter_context(TemporaryDirectory())) / "record"
        deletion = Deletion(
            selection=selection,
            export=export,
            idle_for=idle_for,
            record=stack.enter_context(Record(path)),
            timeout=timeout,
            wait=not no_wait,
        )
        found = run(deletion.survey())
        listed = [one for one in found if one.kind == "listed"]
        for line in _described(found, where):
            note(without_secrets(line))
        if listed and not yes:
            _confirm()
        deletion.record.note("run", version=__version__, **where)
        for one in (one for one in found if one.kind != "active"):
            deletion.record.note(one.kind, thread_id=one.thread_id, user=one.user, **one.counts)
        code = deletion.delete([one.thread_id for one in listed]) if listed else 0
        if selection.users_alone and idle_for is None and code in {0, PARTIAL}:
            code = deletion.finish(code)
        lacking = any(
            one.kind == "changed" or (one.kind == "gone" and deletion.record.lacks(one.thread_id))
            for one in found
        )
    context.exit(code or (PARTIAL if lacking else 0))


def _confirm() -> None:
    """Ask for the deletion.

    Raises:
        click.UsageError: there is no terminal to ask on.
        click.Abort: the answer is no.
    """
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        raise click.UsageError("There is no terminal to ask on: use --yes to delete these threads.")
    click.confirm("Delete these threads? This cannot be undone.", abort=True, err=True)


def _described(found: Sequence[Found], where: dict[str, str]) -> Iterator[str]:
    """Return what would be deleted, and where, for people."""
    yield f"In {described(where)}:"
    listed = [one for one in found if one.kind == "listed"]
    counts = sum((one.counts for one in listed), Counter[str]())
    users = Counter(one.user for one in listed)
    yield (
        f"{counted(len(listed), 'thread')} of {counted(len(users), 'user')}, with "
        f"{counted(counts['items'], 'item')} and {counted(counts['attachments'], 'attachment')}."
    )
    yield from (f"  {user}: {counted(n, 'thread')}" for user, n in users.most_common(MAX_SHOWN))
    for one in listed[:MAX_SHOWN]:
        title = getattr(one.thread, "title", None) or "(no title)"
        yield printable(f"  {one.thread_id}  {one.thread and when(one.thread)}  {title}")
    kinds = Counter(one.kind for one in found)
    for kind, what in (
        ("changed", "have items that are newer than the export: export again"),
        ("active", "were not idle for long enough"),
        ("gone", "do not exist"),
    ):
        if kinds[kind]:
            yield f"{counted(kinds[kind], 'thread')} left out, because they {what}."
