"""Rows of a bulk run, from CSV, JSON lines or ids, each with its line and its problems.

Sans-IO: bytes go in, in pieces of any size, and rows come out. `read` brings the bytes.
"""

import csv
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Generic, Protocol, TypeAlias, TypeVar, cast

import attrs
import click

from chatkit_async._protocol import cancel_session, create_session
from chatkit_async.cli._output import counted, without_secrets
from chatkit_async.errors import ParameterError, Problem
from chatkit_async.options import described

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

Values: TypeAlias = dict[str, object]
Cell: TypeAlias = Callable[[str], object]

CHUNK = 64 * 1024
"""Bytes that are read at a time."""

LONGEST_RECORD = 1024 * 1024
"""Bytes of CSV after which a quotation mark counts as one that was never closed."""

_BOM = b"\xef\xbb\xbf"  # what Excel writes first
_SHOWN = 80  # characters of a value, in a problem


class InputError(click.ClickException):
    """The input cannot be read any further."""


@attrs.frozen
class Row(Generic[V_co]):
    """A row of the input.

    Attributes:
        index: Its position among the rows, from 0.
        line: The line of the input that it begins on, from 1.
        value: What a call is made of, as far as it could be read.
        fingerprint: 64 bits that tell whether it is still the same row.
        problems: What is wrong with it: such a row is never sent.
    """

    index: int
    line: int
    value: V_co
    fingerprint: int
    problems: tuple[Problem, ...]


class Decoder(Protocol[V_co]):
    """Makes values of lines."""

    def take(self, line: bytes, number: int) -> "Decoded[V_co] | None":
        """Take the next line; returns what ends with it."""

    def end(self) -> None:
        """Raise InputError if the input cannot end here."""


@attrs.frozen
class Decoded(Generic[V_co]):
    """A row without its place."""

    line: int
    value: V_co
    fingerprint: int
    problems: tuple[Problem, ...] = ()


class Rows(Generic[V]):
    """Turns the bytes of an input into rows, as they come.

    Attributes:
        read: How many bytes of the input became rows.
        index: How many rows were given.
    """

    def __init__(self, decoder: Decoder[V]) -> None:
        self.read = 0
        self.index = 0
        self._decoder = decoder
        self._rest = b""
        self._line = 0

    def feed(self, data: bytes) -> Iterator[Row[V]]:
        """Take the next bytes; yields the rows that end in them."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.read += len(line) + 1
            yield from self._taken(line)

    def end(self) -> Iterator[Row[V]]:
        """Yield the row that ends with the input, without a newline.

        Raises:
            InputError: the input ends within a row.
        """
        rest, self._rest = self._rest, b""
        self.read += len(rest)
        yield from self._taken(rest)
        self._decoder.end()

    def _taken(self, line: bytes) -> Iterator[Row[V]]:
        self._line += 1
        if self._line == 1:
            line = line.removeprefix(_BOM)
        decoded = self._decoder.take(line.removesuffix(b"\r"), self._line)
        if decoded is not None:
            index, self.index = self.index, self.index + 1
            yield Row(index, decoded.line, decoded.value, decoded.fingerprint, decoded.problems)


def fingerprint_of(value: object) -> int:
    """64 bits of a JSON value, whatever the order of its keys."""
    return int.from_bytes(blake2b(_canonical(value).encode(), digest_size=8).digest(), "big")


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class Stream(Protocol):
    """A file of bytes, a pipe, or standard input."""

    def read1(self, size: int, /) -> bytes:
        """Read what there is, up to a size; nothing at the end."""
        ...


def read(stream: Stream) -> bytes:
    """Read the next bytes; none at the end.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return stream.read1(CHUNK)
    except OSError as error:
        raise InputError(f"cannot read the input: {error.strerror or error}") from None


# Parameters of sessions ---------------------------------------------------------------------------


def _bool(text: str) -> bool:
    match text.strip().lower():
        case "true":
            return True
        case "false":
            return False
        case _:
            raise ValueError(f"should be true or false, is {_shown(text)}")


def _int(text: str) -> int:
    digits = text.strip()
    if not (digits.removeprefix("-").isdecimal() and digits.isascii()) or len(digits) > _SHOWN:
        raise ValueError(f"should be a whole number, is {_shown(text)}")
    return int(digits)


def _json(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    match value:
        case bool() | int() | float():
            return value
        case _:
            raise ValueError(f"should be a number, true or false, is {_shown(text)}")


def _shown(text: str) -> str:
    text = without_secrets(text)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


_SHORT = {
    "workflow": "id",
    "expires_after": "seconds",
    "rate_limits": "max_requests_per_1_minute",
}
"""What a field that is given as one value stands for."""

_VARIABLES = "workflow.state_variables."

COLUMNS: Mapping[str, Cell] = {
    "user": str,
    "workflow.id": str,
    "workflow.version": str,
    "workflow.tracing.enabled": _bool,
    "chatkit_configuration.automatic_thread_titling.enabled": _bool,
    "chatkit_configuration.file_upload.enabled": _bool,
    "chatkit_configuration.file_upload.max_file_size": _int,
    "chatkit_configuration.file_upload.max_files": _int,
    "chatkit_configuration.history.enabled": _bool,
    "chatkit_configuration.history.recent_threads": _int,
    "expires_after.seconds": _int,
    "expires_after.anchor": str,
    "rate_limits.max_requests_per_1_minute": _int,
}
"""The columns of CSV, beside those of state variables, and how a cell is read."""


class JsonDecoder:
    """JSON lines: an object of `create`'s arguments on each, or just a user's id."""

    def __init__(self, defaults: Values) -> None:
        self._defaults = defaults

    def take(self, line: bytes, number: int) -> Decoded[Values] | None:
        """Take the next line."""
        if not line.strip():
            return None
        try:
            value: object = json.loads(line.decode())
            if isinstance(value, str):
                value = {"user": value}
            if isinstance(value, dict):
                return _decoded(number, cast("Values", value), self._defaults)
            said = f"should be an object, or a user's id as a string, is {described(value)}"
        except UnicodeDecodeError:
            said = "is not UTF-8"
        except json.JSONDecodeError as error:
            said = f"is not JSON: {error.msg}, at character {error.pos + 1}"
            if number == 1:
                said += ". Of CSV say --format csv"
        except ValueError as error:  # a number of thousands of digits
            said = f"is not JSON: {error}"
        except RecursionError:
            said = "is JSON that is nested too deeply"
        return _unreadable(number, line, said)

    def end(self) -> None:
        """Any line can be the last."""


class CsvDecoder:
    """CSV: a header of field names, dotted, and a row on each line, or over several in quotes."""

    def __init__(self, defaults: Values) -> None:
        self._defaults = defaults
        self._columns: dict[tuple[str, ...], Cell] | None = None
        self._delimiter = ","
        self._open: list[bytes] = []  # the lines so far of a row that goes on
        self._begun = 0
        self._size = 0

    def take(self, line: bytes, number: int) -> Decoded[Values] | None:
        """Take the next line.

        Raises:
            InputError: the header is wrong, or a quotation mark is not closed.
        """
        # A row is whole when its quotation marks are even in number.
        closes = bool(self._open) == bool(line.count(b'"') % 2)
        if not self._open:
            self._begun, self._size = number, 0
        if self._open or not closes:
            self._open.append(line)
            self._size += len(line)
            if self._size > LONGEST_RECORD:
                self.end()
            if not closes:
                return None
            line = b"\n".join(self._open)
            self._open = []
        if not line.strip():
            return None
        if self._columns is None:
            self._columns = self._header(line)
            return None
        return self._row(self._columns, line)

    def end(self) -> None:
        """Raise InputError if a quotation mark is open, or there was no header."""
        if self._open:
            raise InputError(f"line {self._begun}: a quotation mark is never closed")
        if self._columns is None:
            raise InputError("the input is empty: the first line of CSV names its columns")

    def _header(self, line: bytes) -> dict[tuple[str, ...], Cell]:
        # No name has one of these in it, so the header says which it is.
        self._delimiter = next((mark for mark in ",;\t" if mark.encode() in line), ",")
        try:
            names = self._cells(line)
        except ValueError as error:
            raise InputError(f"line {self._begun}, the header of the CSV, {error}") from None
        columns: dict[tuple[str, ...], Cell] = {}
        problems: list[str] = []
        for name in names:
            path, cell, problem = _column(name.strip())
            if path in columns:
                problem = "is there twice"
            columns[path] = cell
            if problem is not None:
                problems.append(f"\n  column {_shown(name)} {problem}")
        if problems:
            raise InputError(f"line {self._begun} is no header:{''.join(problems)}")
        return columns

    def _cells(self, row: bytes) -> list[str]:
        try:
            lines = [f"{line}\n" for line in row.decode().split("\n")]
            rows = list(csv.reader(lines, strict=True, delimiter=self._delimiter))
        except UnicodeDecodeError:
            raise ValueError("is not UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"is not CSV: {error}") from None
        if len(rows) != 1:
            raise ValueError("has a quotation mark in a cell that is not in quotation marks")
        return rows[0]

    def _row(self, columns: Mapping[tuple[str, ...], Cell], line: bytes) -> Decoded[Values]:
        try:
            cells = self._cells(line)
        except ValueError as error:
            return _unreadable(self._begun, line, str(error))
        if len(cells) != len(columns):
            said = f"has {counted(len(cells), 'cell')}, and the header {len(columns)}"
            return _unreadable(self._begun, line, said)
        values: Values = {}
        problems: list[Problem] = []
        for (path, read), cell in zip(columns.items(), cells, strict=True):
            if not cell:
                continue  # an empty cell is a field that is not given
            value: object = cell
            try:
                value = read(cell)
            except ValueError as error:
                problems.append((".".join(path), str(error)))
            part = values
            for step in path[:-1]:
                part = cast("Values", part.setdefault(step, {}))
            part[path[-1]] = value
        return _decoded(self._begun, values, self._defaults, problems)


def _decoded(
    line: int, values: Values, defaults: Values, problems: Sequence[Problem] = ()
) -> Decoded[Values]:
    merged = with_defaults(values, defaults)
    return Decoded(line, merged, fingerprint_of(merged), tuple(problems))


def _unreadable(line: int, content: bytes, said: str) -> Decoded[Values]:
    return Decoded(line, {}, fingerprint_of(content.decode("latin-1")), (("row", said),))


def _column(name: str) -> tuple[tuple[str, ...], Cell, str | None]:
    """The path of a column's field, how its cells are read, and what is wrong with its name."""
    whole = f"workflow.{name}" if name.startswith("state_variables.") else name
    if whole.startswith(_VARIABLES):
        variable = whole.removeprefix(_VARIABLES)
        path = ("workflow", "state_variables", variable.removesuffix(":"))
        problem = None if path[-1] else "should name a variable after its last dot"
        return path, _json if variable.endswith(":") else str, problem
    whole = f"{name}.{_SHORT[name]}" if name in _SHORT else name
    if whole in COLUMNS:
        return tuple(whole.split(".")), COLUMNS[whole], None
    known = [*COLUMNS, *_SHORT, f"{_VARIABLES}NAME"]
    guess = "".join(f", did you mean {one!r}?" for one in get_close_matches(name, known, 1))
    return (name,), str, f"is no field of a session{guess}"


def with_defaults(values: Values, defaults: Values) -> Values:
    """A row's values over the defaults, object by object."""
    merged = dict(defaults)
    for key, value in values.items():
        whole: object = value
        if key in _SHORT and value is not None and not isinstance(value, dict):
            whole = {_SHORT[key]: value}
        merged[key] = _merged(merged.get(key), whole)
    return merged


def _merged(default: object, value: object) -> object:
    if not (isinstance(default, dict) and isinstance(value, dict)):
        return value
    merged = dict(cast("Values", default))
    for key, member in cast("Values", value).items():
        merged[key] = _merged(merged.get(key), member)
    return merged


def read_defaults(path: Path) -> Values:
    """Read the fields that all rows share, from JSON or, if its name says so, TOML.

    Raises:
        click.UsageError: it cannot be read, or its fields are wrong.
    """
    said = f"the defaults in {path}"
    try:
        content = path.read_bytes()
        text = content.removeprefix(_BOM).decode()
        value: object = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise click.UsageError(f"cannot read {said}: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise click.UsageError(f"{said} are no {kind}: {error}.") from None
    if not isinstance(value, dict):
        raise click.UsageError(f"{said} should be an object, are {described(value)}.")
    defaults = with_defaults(cast("Values", value), {})
    # A row may bring what they lack, and nothing else can make them right.
    problems = problems_of_create(
        with_defaults(defaults, {"user": "any", "workflow": {"id": "any"}})
    )
    if problems:
        lines = "".join(f"\n  {path}: {sentence}" for path, sentence in problems)
        raise click.UsageError(f"{said} are wrong:{lines}")
    return defaults


def problems_of_create(values: Values) -> tuple[Problem, ...]:
    """What keeps a session from being created of these values."""
    return _problems(lambda: create_session(values, {}))


# Ids of sessions ----------------------------------------------------------------------------------


_IN_NO_ID = re.compile(r"[,;/\s]")
_NOT_FOR_CANCEL = "is this the input of `bulk create`? Give the output file of that run instead"


class IdDecoder:
    """Ids of sessions: bare or in JSON, one to a line, or the journal of a run that created them."""

    def take(self, line: bytes, number: int) -> Decoded[str] | None:
        """Take the next line.

        Raises:
            InputError: the first line names columns, as that of `bulk create`'s input does.
        """
        text = line.decode("utf-8", "replace").strip()
        if not text:
            return None
        if number == 1 and _names_columns(text):
            raise InputError(f"line 1 names columns: {_NOT_FOR_CANCEL}")
        if text[0] not in '{"':
            wrong = _IN_NO_ID.search(text) is not None
            problems = (("id", f"is no session id: {_NOT_FOR_CANCEL}"),) if wrong else ()
            return Decoded(number, text, fingerprint_of(text), problems)
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError):  # such as the torn end of a journal
            said = "is neither JSON nor a session's id"
            return Decoded(number, "", fingerprint_of(text), (("row", said),))
        if isinstance(value, dict):
            return self._of_object(cast("Values", value), number)
        return Decoded(number, cast("str", value), fingerprint_of(value))

    def end(self) -> None:
        """Any line can be the last."""

    def _of_object(self, value: Values, number: int) -> Decoded[str] | None:
        holder = value
        if "record" in value:
            if value.get("kind") != "created":
                return None
            session = value.get("session")
            holder = cast("Values", session) if isinstance(session, dict) else {}
        session_id = holder.get("id")
        if isinstance(session_id, str):
            return Decoded(number, session_id, fingerprint_of(session_id))
        problem = ("id", "is missing: there is nothing to cancel by")
        return Decoded(number, "", fingerprint_of(None), (problem,))


def _names_columns(text: str) -> bool:
    names = re.split("[,;\t]", text.replace('"', ""))
    return all(_column(name.strip())[2] is None for name in names)


def problems_of_cancel(session_id: str) -> tuple[Problem, ...]:
    """What keeps a session from being cancelled by this id."""
    return _problems(lambda: cancel_session(session_id, {}))


def _problems(build: Callable[[], object]) -> tuple[Problem, ...]:
    try:
        build()
    except ParameterError as error:
        return error.problems
    return ()
