"""The journal of a bulk run: its output file, from which the run can be resumed after any end.

Each line is a record. First comes a header, which says what the run is. Then each row has an
intent, written before its request is sent, and an outcome, written as soon as it is known. There
are three cases for a row: an outcome says what came of it; no record says that nothing was sent; an
intent alone says that its request may have been sent, and the row is unknown.
"""

import json
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import attrs
import click

from chatkit_async import __version__
from chatkit_async.bulk import Kind, Outcome
from chatkit_async.cli._line_file import LineFile, LineFileError
from chatkit_async.cli._output import session_data
from chatkit_async.cli._rows import Row, Values
from chatkit_async.errors import APIError, APIStatusError, ChatKitError, ParameterError

FORMAT = 1
"""The version of the schema, which docs/reference/journal.md describes."""

_HEADER_START = b'{"record": "header"'

# Refusals of the key or of the rate, which are not a row's fault: a resumed run sends it again.
NOT_OF_THE_ROW = (401, 403, 410, 429)


class State(IntEnum):
    """The state of a row by its last record."""

    SENT = 0
    """An intent without an outcome: the run ended before it was written."""
    DONE = 1
    """Created, or cancelled."""
    EXPIRED = 2
    """Created, and over by now."""
    REJECTED = 3
    UNKNOWN = 4
    OPEN = 5
    """Not attempted, or refused for what was not the row's fault."""


KIND_OF: Mapping[State, Kind] = {
    State.SENT: "unknown",
    State.REJECTED: "rejected",
    State.UNKNOWN: "unknown",
    State.OPEN: "not_attempted",
}
"""The kind of outcome that each state counts as, except for the states that are done."""


class History:
    """The state of each row of a journal, in nine bytes a row.

    Attributes:
        attempts: The number of attempts for all rows.
    """

    def __init__(self) -> None:
        self.attempts = 0
        self._fingerprints = array("Q")
        self._states = bytearray()

    def __len__(self) -> int:
        return len(self._states)

    def set(self, index: int, fingerprint: int, state: State) -> None:
        """Set the state of a row. Its first record comes in the order of the rows.

        Raises:
            ValueError: earlier rows are missing.
        """
        if index == len(self):
            self._fingerprints.append(fingerprint)
            self._states.append(state)
        elif 0 <= index < len(self):
            self._fingerprints[index] = fingerprint
            self._states[index] = state
        else:
            raise ValueError("the rows before it are missing")

    def state(self, index: int) -> State | None:
        """Return the state of a row. None: the journal has no record of it."""
        return State(self._states[index]) if index < len(self) else None

    def is_of(self, row: Row[object]) -> bool:
        """Return True if a row is the same as in the journal."""
        return self._fingerprints[row.index] == row.fingerprint

    def counts(self) -> Counter[State]:
        """Return the number of rows in each state."""
        return Counter({State(state): number for state, number in Counter(self._states).items()})


@attrs.frozen(kw_only=True)
class Header:
    """The description of a run, which must match to resume it.

    Attributes:
        command: `bulk create` or `bulk cancel`.
        base_url: The base URL of the API.
        input: The name of the input.
        defaults: The fingerprint of the fields that all rows share.
    """

    command: str
    base_url: str
    input: str
    defaults: int | None

    def encode(self) -> bytes:
        """Return the header as a line."""
        return _line(
            {
                "record": "header",
                "format": FORMAT,
                "command": self.command,
                "version": __version__,
                "base_url": self.base_url,
                "input": self.input,
                "defaults": None if self.defaults is None else _hex(self.defaults),
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )

    @classmethod
    def decode(cls, record: Mapping[str, object]) -> Self:
        """Read a header.

        Raises:
            ValueError: the record is not a header, or has another format.
        """
        if record["record"] != "header":
            raise ValueError("it does not begin with a header")
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']}, and this release knows {FORMAT}")
        defaults = record["defaults"]
        return cls(
            command=str(record["command"]),
            base_url=str(record["base_url"]),
            input=str(record["input"]),
            defaults=None if defaults is None else int(str(defaults), 16),
        )


class Journal(LineFile):
    """An open journal.

    Attributes:
        history: The state of each row when it was opened.
        header: Its first record.
    """

    def __init__(
        self, path: Path, header: Header, *, resume: bool, show_secret: bool = True
    ) -> None:
        """Open a journal.

        Args:
            path: The file.
            header: The description of this run.
            resume: True if it may exist already, and continues.
            show_secret: True if client secrets are written.

        Raises:
            click.UsageError: it exists already, or is of another run.
            LineFileError: it cannot be opened, is not a journal, or is in use.
        """
        self.history = History()
        self.header = header
        self._show_secret = show_secret
        super().__init__(path, resume=resume)

    def intent(self, row: Row[object]) -> None:
        """Note that a row is about to be sent.

        Raises:
            LineFileError: it cannot be written: do not send the row.
        """
        self.append(
            b'{"record": "intent", "index": %d, "line": %d, "fingerprint": "%016x"}\n'
            % (row.index, row.line, row.fingerprint)
        )

    def outcome(self, row: Row[object], outcome: Outcome[object, Any]) -> None:
        """Note what became of a row.

        Raises:
            LineFileError: it cannot be written.
        """
        self.append(_line(outcome_record(row, outcome, show_secret=self._show_secret)))

    # Opening --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.append(self.header.encode())

    def _load(self, file: BinaryIO) -> int:
        """Read the records, and return the size of the complete ones."""
        header, end = self.header, 0
        for line, record, _ in read_journal(file, self._path, self.history):
            if not end:
                self.header = Header.decode(record)
            end += len(line)
        if end:
            self._check(header)
        return end

    def _check(self, header: Header) -> None:
        if self.header.command != header.command:
            raise click.UsageError(
                f"{self._path} is the journal of `{self.header.command}`: choose another file."
            )
        if self.header.base_url != header.base_url:
            raise click.UsageError(
                f"{self._path} is of a run against {self.header.base_url}, and the base URL is now "
                f"{header.base_url}: pass --base-url {self.header.base_url}."
            )
        if self.header.defaults is not None and header.defaults is None:
            raise click.UsageError(
                f"{self._path} is of a run whose options or --defaults set fields of all rows: pass "
                "them again."
            )


def read_journal(
    file: BinaryIO, path: Path, history: History
) -> Iterator[tuple[bytes, dict[str, object], State | None]]:
    """Yield each line with its record and its row's state, and fill the history.

    A torn line at the end is left out.

    Raises:
        LineFileError: it is not a journal, or it is damaged.
    """
    now = time.time()
    for number, line in enumerate(file, 1):
        record = _decoded(line)
        try:
            if record is None:
                # Only the last line can be torn; of the first one enough has to be there.
                if line.endswith(b"\n"):
                    raise ValueError("the line is not a JSON object")  # noqa: TRY301 - see below
                if number == 1 and not line.startswith(_HEADER_START[: len(line)]):
                    raise ValueError("it does not begin with a header")  # noqa: TRY301
                return
            if number == 1:
                Header.decode(record)
            state = None if number == 1 else _take(history, record, now)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise LineFileError(
                f"{path} is not a journal that can be resumed: line {number}: {_said(error)}. "
                "Nothing was changed."
            ) from None
        yield line, record, state


# Records ------------------------------------------------------------------------------------------


def outcome_record(
    row: Row[object], outcome: Outcome[object, Any], *, show_secret: bool
) -> dict[str, object]:
    """Return the record of an outcome."""
    record: dict[str, object] = {
        "record": "outcome",
        "index": row.index,
        "line": row.line,
        "fingerprint": _hex(row.fingerprint),
        "kind": outcome.kind,
    }
    match row.value:
        case str():
            record["session_id"] = row.value
        case values:
            record["user"] = cast("Values", values).get("user")
    if outcome.session is not None:
        record["session"] = session_data(outcome.session, show_secret=show_secret)
    if outcome.error is not None:
        record["error"] = error_record(outcome.error)
    return record | {
        "attempts": outcome.attempts,
        "lost": outcome.lost,
        "elapsed": round(outcome.elapsed, 3),
        "at": round(time.time(), 3),
    }


def error_record(error: ChatKitError) -> dict[str, object]:
    """Return an error as JSON."""
    message = error.message if isinstance(error, APIError) else str(error)
    record: dict[str, object] = {"type": type(error).__name__, "message": message}
    if isinstance(error, ParameterError):
        record["problems"] = error.problems
    if isinstance(error, APIError):
        record["request_id"] = error.request_id
    if isinstance(error, APIStatusError):
        record["status_code"] = error.status_code
        record["code"] = error.code
    return record


def _take(history: History, record: Mapping[str, object], now: float) -> State:
    """Take a record into the history, and return its row's state.

    Raises:
        ValueError, KeyError, TypeError, OverflowError: it is not a record of a row.
    """
    index = record["index"]
    if type(index) is not int:
        raise ValueError("its index is not a whole number")
    fingerprint = int(cast("str", record["fingerprint"]), 16)
    match record["record"]:
        case "intent":
            state = State.SENT
        case "outcome":
            state = _state(record, now)
            if type(attempts := record.get("attempts")) is int:
                history.attempts += attempts
        case _:
            raise ValueError("it is neither an intent nor an outcome")
    history.set(index, fingerprint, state)
    return state


def _state(record: Mapping[str, object], now: float) -> State:
    match record["kind"]:
        case "created":
            end = _member(record.get("session"), "expires_at")
            return State.EXPIRED if isinstance(end, int | float) and end <= now else State.DONE
        case "cancelled":
            return State.DONE
        case "rejected":
            status = _member(record.get("error"), "status_code")
            return State.OPEN if status in NOT_OF_THE_ROW else State.REJECTED
        case "unknown":
            return State.UNKNOWN
        case "not_attempted":
            return State.OPEN
        case _:
            raise ValueError("it is of an unknown kind")


def _member(value: object, name: str) -> object:
    return cast("Values", value).get(name) if isinstance(value, dict) else None


def _decoded(line: bytes) -> dict[str, object] | None:
    try:
        record: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", record) if isinstance(record, dict) else None


def _line(record: Mapping[str, object]) -> bytes:
    return _encoded(record).encode() + b"\n"


_encoded = json.JSONEncoder(check_circular=False).encode


def _hex(fingerprint: int) -> str:
    return f"{fingerprint:016x}"


def _said(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
