"""The journal of a bulk run: its output file, from which the run can be resumed after any end.

Each line is a record. First comes a header, which says what the run is. Then each row has an
intent, written before its request is sent, and an outcome, written as soon as it is known. A
record is one write to a file that is open for appending, so a process that is killed at any point
leaves whole records and at most one torn line at the end, which the next run removes. There are
three cases for a row: an outcome says what came of it; no record says that nothing was sent; an
intent alone says that its request may have been sent, and the row is unknown. `sync` flushes the
file to disk every second, for power cuts. The file is locked while it is open. A deleted or
changed file is noticed at the next record, and ends the run.
"""

import json
import os
import stat
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any, Self, cast

import attrs
import click

from chatkit_async import __version__
from chatkit_async.bulk import Kind, Outcome
from chatkit_async.cli._output import note, session_data
from chatkit_async.cli._rows import Row, Values
from chatkit_async.errors import APIError, APIStatusError, ChatKitError, ParameterError

FORMAT = 1
"""The version of the schema, which docs/reference/journal.md describes."""

_HEADER_START = b'{"record": "header"'
_OWNER_ONLY = 0o600
_GROUP_AND_OTHERS = 0o077

# Refusals of the key or of the rate, which are not a row's fault: a resumed run sends it again.
NOT_OF_THE_ROW = (401, 403, 410, 429)


class JournalError(click.ClickException):
    """The journal cannot be used, or not written any further."""


class State(IntEnum):
    """What a journal says of a row."""

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
"""What a row's state counts as, if it is not done."""


class History:
    """What a journal says of each row, in nine bytes a row.

    Attributes:
        attempts: How many attempts all rows took.
    """

    def __init__(self) -> None:
        self.attempts = 0
        self._fingerprints = array("Q")
        self._states = bytearray()

    def __len__(self) -> int:
        return len(self._states)

    def set(self, index: int, fingerprint: int, state: State) -> None:
        """Note a record; rows are met in their order first, and later again in any.

        Raises:
            ValueError: this is not their order.
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
        """The state of a row; None: the journal does not know it."""
        return State(self._states[index]) if index < len(self) else None

    def is_of(self, row: Row[object]) -> bool:
        """Whether a row that the journal knows is still the same."""
        return self._fingerprints[row.index] == row.fingerprint

    def counts(self) -> Counter[State]:
        """How many rows are in each state."""
        return Counter({State(state): number for state, number in Counter(self._states).items()})


@attrs.frozen(kw_only=True)
class Header:
    """What a run is; it can only be resumed as the same.

    Attributes:
        command: `bulk create` or `bulk cancel`.
        base_url: Where the sessions are.
        input: The name of the input.
        defaults: The fingerprint of the fields that all rows share.
    """

    command: str
    base_url: str
    input: str
    defaults: int | None

    def encode(self) -> bytes:
        """The header as a line."""
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
            ValueError: it is none, or of another format.
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


class Journal:
    """An open journal, locked against other processes.

    Attributes:
        history: What it said of each row when it was opened.
        header: How it began.
    """

    def __init__(
        self, path: Path, header: Header, *, resume: bool, show_secret: bool = True
    ) -> None:
        """Open a journal.

        Args:
            path: The file.
            header: What this run is.
            resume: Whether it may be there already, and goes on.
            show_secret: Whether client secrets are written.

        Raises:
            click.UsageError: it is there already, or of another run.
            JournalError: it cannot be opened, is none, or is in use.
        """
        self.history = History()
        self.header = header
        self._path = path
        self._show_secret = show_secret
        self._failure: str | None = None
        self._syncing = threading.Lock()
        self._size = 0
        self._descriptor = self._open(resume=resume)
        try:
            self._prepare(header, resume=resume)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def intent(self, row: Row[object]) -> None:
        """Note that a row is about to be sent.

        Raises:
            JournalError: it cannot be written: do not send the row.
        """
        self._append(
            b'{"record": "intent", "index": %d, "line": %d, "fingerprint": "%016x"}\n'
            % (row.index, row.line, row.fingerprint)
        )

    def outcome(self, row: Row[object], outcome: Outcome[object, Any]) -> None:
        """Note what became of a row.

        Raises:
            JournalError: it cannot be written.
        """
        self._append(_line(outcome_record(row, outcome, show_secret=self._show_secret)))

    def sync(self) -> None:
        """Flush to disk what was written, in any thread; the next record tells of a failure."""
        with self._syncing:
            if self._descriptor < 0:
                return
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._failure = _reason(error)

    def close(self) -> None:
        """Flush it to disk, and let others have it.

        Raises:
            JournalError: it was not written whole.
        """
        self.sync()
        self._failure = self._failure or self._damage()
        with self._syncing:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._failure is not None:
            raise self._error(self._failure)

    # Opening --------------------------------------------------------------------------------------

    def _open(self, *, resume: bool) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        try:
            return os.open(self._path, flags if resume else flags | os.O_EXCL, _OWNER_ONLY)
        except FileExistsError:
            raise click.UsageError(
                f"{self._path} is there already: --resume continues the run that it is of; "
                "for a new run name another file."
            ) from None
        except OSError as error:
            raise JournalError(f"cannot open {self._path}: {_reason(error)}") from None

    def _prepare(self, header: Header, *, resume: bool) -> None:
        try:
            lock(self._descriptor)
            status = os.fstat(self._descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise JournalError(f"{self._path} is no regular file, which a journal has to be")
            # Root could open it. Its owner could then read the client secrets written to it.
            if resume and os.name == "posix" and status.st_uid != os.geteuid():
                raise JournalError(
                    f"{self._path} belongs to another user. Resume it as that user, or choose "
                    "another file."
                )
            self._load(header)
            # Not before: a file that is no journal is left as it is, its mode included.
            if os.name == "posix" and status.st_mode & _GROUP_AND_OTHERS:
                os.fchmod(self._descriptor, _OWNER_ONLY)
                note(f"Warning: others could read {self._path}; now only you can.")
        except BlockingIOError:
            raise JournalError(f"{self._path} is in use by another run") from None
        except OSError as error:
            raise JournalError(f"cannot use {self._path}: {_reason(error)}") from None
        if not self._size:
            self._append(header.encode())
            self.sync()
            _sync_directory(self._path.parent)

    def _load(self, header: Header) -> None:
        """Read what is there, and mend its end; nothing is changed of a file that is no journal."""
        end, tail = 0, b""
        now = time.time()
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            for number, line in enumerate(file, 1):
                record = _decoded(line)
                if record is None and not line.endswith(b"\n"):
                    # Only the last line can be torn; of the first one enough has to be there.
                    if number == 1 and not line.startswith(_HEADER_START[: len(line)]):
                        raise self._no_journal(number, "it does not begin with a header")
                    break
                try:
                    if record is None:
                        raise ValueError("the line is no JSON object")  # noqa: TRY301 - told of below
                    if number == 1:
                        self.header = Header.decode(record)
                    else:
                        _take(self.history, record, now)
                except (ValueError, KeyError, TypeError, OverflowError) as error:
                    raise self._no_journal(number, _said(error)) from None
                end += len(line)
                tail = line
        if end:
            self._check(header)
        os.ftruncate(self._descriptor, end)
        self._size = end
        if tail and not tail.endswith(b"\n"):  # all of the record was written but its end
            self._append(b"\n")

    def _check(self, header: Header) -> None:
        if self.header.command != header.command:
            raise click.UsageError(
                f"{self._path} is the journal of `{self.header.command}`: name another file."
            )
        if self.header.base_url != header.base_url:
            raise click.UsageError(
                f"{self._path} is of a run against {self.header.base_url}, and the base URL is now "
                f"{header.base_url}: set OPENAI_BASE_URL to what it was."
            )
        if self.header.defaults is not None and header.defaults is None:
            raise click.UsageError(
                f"{self._path} is of a run that was begun with --defaults: give them again."
            )

    def _no_journal(self, number: int, said: str) -> JournalError:
        return JournalError(
            f"{self._path} is no journal that can be resumed: line {number}: {said}. "
            "Nothing was changed."
        )

    # Writing --------------------------------------------------------------------------------------

    def _append(self, line: bytes) -> None:
        self._failure = self._failure or self._damage()
        if self._failure is not None:
            raise self._error(self._failure)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            self._take_back()
            raise self._error(_reason(error)) from None
        self._size += len(line)

    def _damage(self) -> str | None:
        """Return what another program did to the file; None: nothing."""
        status = os.fstat(self._descriptor)
        if not status.st_nlink:
            return "it was deleted during the run"
        if status.st_size != self._size:
            return "it was changed by another program during the run"
        return None

    def _take_back(self) -> None:
        """Remove a half-written line, after which nothing could be read."""
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            self._failure = _reason(error)

    def _error(self, reason: str) -> JournalError:
        return JournalError(f"cannot write {self._path}: {reason}")


def lock(descriptor: int, *, shared: bool = False) -> None:
    """Lock a file for as long as it is open, without waiting.

    Raises:
        BlockingIOError: another process has it locked.
        OSError: it cannot be locked.
    """
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - Windows has no other

        # One byte, far behind what is written: others may read what is before it.
        os.lseek(descriptor, 0x7FFFFFFE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from None
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl  # noqa: PLC0415 - see above

        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _sync_directory(directory: Path) -> None:
    """Flush the file's name to disk, where the system has a way to."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Records ------------------------------------------------------------------------------------------


def outcome_record(
    row: Row[object], outcome: Outcome[object, Any], *, show_secret: bool
) -> dict[str, object]:
    """The record of an outcome."""
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
        record["error"] = _error_record(outcome.error)
    return record | {
        "attempts": outcome.attempts,
        "lost": outcome.lost,
        "elapsed": round(outcome.elapsed, 3),
        "at": round(time.time(), 3),
    }


def _error_record(error: ChatKitError) -> dict[str, object]:
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


def _take(history: History, record: Mapping[str, object], now: float) -> None:
    """Note a record.

    Raises:
        ValueError, KeyError, TypeError, OverflowError: it is none.
    """
    index = record["index"]
    if type(index) is not int:
        raise ValueError("its index is no whole number")
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


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _said(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
