"""`chatkit-async bulk status`: a summary of a run, from its journal."""

import codecs
import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import click

from chatkit_async.cli._journal import KIND_OF, Header, History, State, read_journal
from chatkit_async.cli._line_file import LineFileError
from chatkit_async.cli._options import json_option
from chatkit_async.cli._output import (
    counted,
    note,
    printable_lines,
    reason,
    without_secrets,
    write,
    write_json,
)
from chatkit_async.cli._rows import named_separator, separator_of

MAX_LISTED_FAILURES = 10


class Failure(NamedTuple):
    """The failure of a row. Rows fail alike if only line and message differ."""

    first_line: int
    message: str
    kind: str
    type: str | None
    status_code: int | None
    field: str | None


class Report:
    """A summary of a journal.

    Attributes:
        header: The run.
        failures: The failure of each row that has one, by the row's index.
        first_line: The line of the input that its first row begins on.
    """

    header: Header

    def __init__(self, path: Path) -> None:
        """Read a journal, which a run may be writing.

        Raises:
            LineFileError: it cannot be read, or is not a journal.
        """
        self.failures: dict[int, Failure] = {}
        self.first_line = 0
        self._history = History()
        self._done = "created"
        try:
            with path.open("rb") as file:
                for _, record, state in read_journal(file, path, self._history):
                    self._take(record, state)
        except OSError as error:
            raise LineFileError(f"cannot read {path}: {reason(error)}") from None
        except (KeyError, TypeError, ValueError, AttributeError):
            raise LineFileError(f"{path} is damaged") from None
        if not hasattr(self, "header"):
            raise LineFileError(f"{path} is empty")

    def _take(self, record: dict[str, Any], state: State | None) -> None:
        if state is None:
            self.header = Header.decode(record)
            return
        self.first_line = self.first_line or record["line"]
        if state in {State.DONE, State.EXPIRED}:
            self._done = record["kind"]
            self.failures.pop(record["index"], None)
            return
        error: dict[str, Any] = record.get("error") or {}
        self.failures[record["index"]] = Failure(
            record["line"],
            without_secrets(error.get("message") or "the run ended before the outcome was known"),
            KIND_OF[state],
            error.get("type"),
            error.get("status_code"),
            next((path for path, _ in error.get("problems", ())), None),
        )

    def data(self) -> dict[str, Any]:
        """Return the summary as JSON."""
        states = self._history.counts()
        kinds = Counter({self._done: states[State.DONE] + states[State.EXPIRED]})
        kinds.update(failure.kind for failure in self.failures.values())
        groups = Counter(failure[2:] for failure in self.failures.values())
        first = {failure[2:]: failure for failure in reversed(self.failures.values())}
        return {
            "command": self.header.command,
            "input": self.header.input,
            "base_url": self.header.base_url,
            "rows": len(self._history),
            "kinds": dict(kinds),
            "still_valid": states[State.DONE] if self._done == "created" else None,
            "attempts": self._history.attempts,
            "failures": [
                {"rows": rows, **first[group]._asdict()} for group, rows in groups.most_common()
            ],
        }

    def text(self) -> Iterator[str]:
        """Yield the summary for people, line by line."""
        data = self.data()
        kinds = ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind, n in data["kinds"].items())
        yield f"{data['command']} {data['input']}, against {data['base_url']}"
        yield f"{counted(data['rows'], 'row')}: {kinds}. {counted(data['attempts'], 'attempt')}."
        if data["still_valid"] is not None:
            yield f"{counted(data['still_valid'], 'session')} still valid."
        for failure in data["failures"][:MAX_LISTED_FAILURES]:
            rows = f"{counted(failure['rows'], 'row')} {failure['kind'].replace('_', ' ')}"
            yield f"{rows}, the first on line {failure['first_line']}: {failure['message']}"
        if more := len(data["failures"][MAX_LISTED_FAILURES:]):
            yield f"{counted(more, 'other failure')}: --json lists all."

    def rejected_rows(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the rows to correct as the input has them, with the reason. CSV has its header."""
        rejected = (each for each in self.failures.values() if each.kind == "rejected")
        wanted = {failure.first_line: failure.message for failure in rejected}
        separator, has_header = "", self.header.command == "bulk create"
        numbered = enumerate((line.rstrip("\n") for line in lines), 1)
        for number, row in numbered:
            is_head = has_header and number < self.first_line and row.strip(',;\t "')
            if not is_head and number not in wanted:
                continue
            while (is_head or separator) and row.count('"') % 2 and (more := next(numbered, None)):
                row += f"\n{more[1]}"  # noqa: PLW2901 - a row of CSV goes on within quotes
            if is_head:
                named = "" if separator else named_separator(row.encode())
                separator = separator or named or separator_of(row.encode())
                has_header = bool(named)
                yield row if named else f"{row}{separator}reason"
            elif separator:
                cell = StringIO()
                csv.writer(cell, delimiter=separator, lineterminator="").writerow([wanted[number]])
                yield f"{row}{separator}{cell.getvalue()}"
            else:
                yield json.dumps({"row": row, "reason": wanted[number]})


@click.command(short_help="Show what came of a run, from its journal.")
@click.argument("journal", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--failed",
    type=click.Path(path_type=Path),
    metavar="ROWS",
    help="Write the rejected rows to a new file: the input's columns and the reason.",
)
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path),
    metavar="INPUT",
    help="The input of the run, for --failed. Default: as the journal names it.",
)
@json_option
def status(*, journal: Path, failed: Path | None, source: Path | None, as_json: bool) -> None:
    """Show what came of the rows of a run, why rows failed, and how many sessions are valid.

    FILE is the journal: what -o named. The run may still be going on.

    \b
      chatkit-async bulk status out.jsonl --failed rejected.csv
    """  # noqa: D301 - click wants the character itself
    report = Report(journal)
    if as_json:
        write_json(report.data())
    else:
        for line in report.text():
            write(printable_lines(line) + "\n")
    if failed is not None:
        _write_rejected(report, source or Path(report.header.input), failed)


def _write_rejected(report: Report, source: Path, target: Path) -> None:
    try:
        with source.open("rb") as file:
            is_utf_16 = file.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
        encoding = "utf-16" if is_utf_16 else "utf-8-sig"
        with (
            source.open(encoding=encoding, errors="replace") as lines,
            # With a mark at its beginning, without which Excel takes it for another encoding.
            target.open("x", encoding="utf-8-sig") as file,
        ):
            file.writelines(f"{row}\n" for row in report.rejected_rows(lines))
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    note(f"{target} has the rejected rows. Correct them in {source}.")
