"""Rows of a bulk run, from CSV, JSON lines or ids, each with its line and its problems.

Sans-IO: bytes go in, in pieces of any size, and rows come out. `read` brings the bytes.
"""

import codecs
import csv
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Generic, Protocol, TypeAlias, TypeVar, cast

import attrs
import click

from chatkit_async._checks import described, text_problem
from chatkit_async._codec import SHORT_FORMS, create_params, merged
from chatkit_async._exit_codes import USAGE
from chatkit_async._protocol import cancel_session
from chatkit_async.cli._output import counted, reason, without_secrets
from chatkit_async.errors import ParameterError, Problem
from chatkit_async.models import StateVariable

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

Values: TypeAlias = dict[str, object]
Cell: TypeAlias = Callable[[str], object]
Columns: TypeAlias = dict[tuple[str, ...], tuple[int, Cell]]  # by the path of their field

CHUNK = 64 * 1024
"""Bytes that are read at a time."""

LONGEST_ROW = 64 * 1024 * 1024
"""Bytes of a row, at most. A quotation mark that is open then counts as never closed."""

SAVE_AS = "save the file as CSV UTF-8 in the spreadsheet, and use that"

_BOM = b"\xef\xbb\xbf"  # what Excel writes first
_SHOWN = 80  # characters of a value, in a problem
_NOT_UTF_8 = f"is not UTF-8: {SAVE_AS}"
_MAX_ALIKE = 1000  # rows that are remembered to be good, and characters of each
_MAX_LISTED = 20  # columns, in an error
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls


class InputError(click.ClickException):
    """The input cannot be read any further.

    Attributes:
        remedy: Options with which it could.
    """

    exit_code = USAGE

    def __init__(self, message: str, *remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@attrs.define
class Row(Generic[V_co]):
    """A row of the input.

    Attributes:
        line: The line of the input that it begins on, from 1.
        value: The arguments of a call, as far as they could be read.
        problems: The reasons why the row cannot be sent.
        raw: The text of a row that could not be read.
        index: Its position among the rows, from 0.
    """

    line: int
    value: V_co
    problems: tuple[Problem, ...] = ()
    raw: str | None = None
    index: int = 0

    @cached_property
    def fingerprint(self) -> int:
        """64 bits that identify the content of the row."""
        return fingerprint_of(self.value if self.raw is None else self.raw)


class Decoder(Protocol[V_co]):
    """Makes values of lines."""

    def take(self, line: bytes, number: int) -> Row[V_co] | None:
        """Take the next line, and return the row that ends with it."""

    def end(self) -> None:
        """Raise InputError if the input cannot end here."""


class Rows(Generic[V]):
    """Turns the bytes of an input into rows, as they come: UTF-8, or UTF-16 that says so.

    Lines end with a line feed, a carriage return, or both.

    Attributes:
        read: The approximate number of bytes of the input that became rows.
        index: The number of rows so far.
    """

    def __init__(self, decoder: Decoder[V]) -> None:
        self.read = 0
        self.index = 0
        self._fed = 0
        self._decoder = decoder
        self._first: bytes | None = b""  # until they tell the encoding
        self._utf_16: codecs.IncrementalDecoder | None = None
        self._after_return = False
        self._pieces: list[bytes] = []  # of a line: joined once, or a long one takes for ever
        self._size = 0
        self._line = 0

    def feed(self, data: bytes) -> Iterator[Row[V]]:
        """Take the next bytes, and yield the rows that end in them.

        Raises:
            InputError: the input is not text that can be read.
        """
        self._fed += len(data)
        text = self._decoded(data)
        *lines, rest = text.split(b"\n")
        growth = len(data) / len(text) if text else 1.0
        if lines:
            lines[0] = b"".join([*self._pieces, lines[0]])
            self._pieces, self._size = [], 0
        self._pieces.append(rest)
        self._size += len(rest)
        if self._size > LONGEST_ROW:
            raise InputError(f"line {self._line + 1} is longer than {LONGEST_ROW:,} bytes")
        for line in lines:
            self.read += round((len(line) + 1) * growth)
            yield from self._taken(line)

    def end(self) -> Iterator[Row[V]]:
        """Yield the row that ends with the input, without a newline.

        Raises:
            InputError: the input ends within a row.
        """
        line = b"".join([*self._pieces, self._decoded(b"", final=True)])
        self._pieces = []
        self.read = self._fed
        yield from self._taken(line)
        self._decoder.end()

    def _decoded(self, data: bytes, *, final: bool = False) -> bytes:
        """Return the next bytes in UTF-8, with a line feed at the end of each line."""
        if self._first is not None:
            data = self._first + data
            if len(data) < len(codecs.BOM_UTF16) and not final:
                self._first = data
                return b""
            self._first = None
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                self._utf_16 = codecs.getincrementaldecoder("utf-16")()
        if self._utf_16 is not None:
            try:
                data = self._utf_16.decode(data, final).encode()
            except UnicodeDecodeError:
                said = "the input begins as UTF-16, but is not valid UTF-16"
                raise InputError(f"{said}: {SAVE_AS}") from None
        if data:
            begins = 1 if self._after_return and data.startswith(b"\n") else 0
            self._after_return = data.endswith(b"\r")
            data = data[begins:].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _taken(self, line: bytes) -> Iterator[Row[V]]:
        self._line += 1
        if self._line == 1:
            line = line.removeprefix(_BOM)
            if line.startswith(_WORKBOOKS):
                raise InputError(f"the input is a workbook: {SAVE_AS}")
        row = self._decoder.take(line, self._line)
        if row is not None:
            row.index, self.index = self.index, self.index + 1
            yield row


def fingerprint_of(value: object) -> int:
    """Return 64 bits that identify a JSON value, whatever the order of its keys."""
    return int.from_bytes(blake2b(_canonical(value).encode(), digest_size=8).digest(), "big")


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class Stream(Protocol):
    """A file of bytes, a pipe, or standard input."""

    def read1(self, size: int, /) -> bytes:
        """Read what there is, up to a size. Return nothing at the end."""
        ...


def read(stream: Stream) -> bytes:
    """Read the next bytes. Return none at the end.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return stream.read1(CHUNK)
    except OSError as error:
        raise InputError(f"cannot read the input: {reason(error)}") from None


# Parameters of sessions ---------------------------------------------------------------------------


def _bool(text: str) -> bool:
    match text.strip().lower():
        case "true":
            return True
        case "false":
            return False
        case _:
            raise ValueError(f"must be true or false, got {_shown(text)}")


def _int(text: str) -> int:
    digits = text.strip()
    if not (digits.removeprefix("-").isdecimal() and digits.isascii()) or len(digits) > _SHOWN:
        raise ValueError(f"must be a whole number, got {_shown(text)}")
    return int(digits)


def number_or_bool(text: str) -> StateVariable:
    """Read a state variable that is not text from JSON."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, bool | int | float):
        return value
    raise ValueError(f"must be a number, true or false, got {_shown(text)}")


def _shown(text: str) -> str:
    return repr(_cut(text))


def _cut(text: str) -> str:
    text = without_secrets(text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


_VARIABLE = re.compile(
    r"(?:workflow\.)?state_variables\.(?P<name>.*[^:])(?P<json>:?)", re.IGNORECASE | re.DOTALL
)

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

FIELDS = [
    *(path.removesuffix(f".{SHORT_FORMS.get(path.partition('.')[0])}") for path in COLUMNS),
    "state_variables.NAME",
]
"""The columns of CSV, as people write them."""


class JsonDecoder:
    """JSON lines: an object of `create`'s arguments on each, or just a user's id."""

    def __init__(self, defaults: Values) -> None:
        self._defaults = defaults

    def take(self, line: bytes, number: int) -> Row[Values] | None:
        """Take the next line.

        Raises:
            InputError: the input is an array.
        """
        if not line.strip():
            return None
        if number == 1 and line.lstrip().startswith(b"["):
            raise InputError(
                "line 1 begins a JSON array: write an object on each line, as `jq -c '.[]'` does"
            )
        try:
            value: object = json.loads(line.decode())
            if isinstance(value, str):
                value = {"user": value}
            if isinstance(value, dict):
                return Row(number, with_defaults(cast("Values", value), self._defaults))
            said = f"must be an object, or a user's id as a string, got {described(value)}"
        except UnicodeDecodeError:
            said = _NOT_UTF_8
        except json.JSONDecodeError as error:
            said = f"is not JSON: {error.msg}, at character {error.pos + 1}"
            if number == 1:
                said += ". For CSV, use --format csv"
        except ValueError as error:  # a number of thousands of digits
            said = f"is not JSON: {error}"
        except RecursionError:
            said = "is JSON that is nested too deeply"
        return _unreadable(number, line, said)

    def end(self) -> None:
        """Any line can be the last."""


_SEPARATOR = re.compile(rb'"?sep=([\t!#-/:-@\[-`{-~])"?', re.IGNORECASE)


def named_separator(line: bytes) -> str:
    """Return the separator that Excel's own first line names. Empty: it is another line."""
    found = _SEPARATOR.fullmatch(line)
    return found[1].decode() if found else ""


def separator_of(header: bytes) -> str:
    """Return the separator that a header has most of outside quotes."""
    bare = re.sub(rb'"[^"]*"', b"", header)
    return max(",;\t", key=lambda mark: bare.count(mark.encode()))


class CsvDecoder:
    """CSV: a header of field names, dotted, and a row on each line, or over several in quotes."""

    def __init__(
        self,
        defaults: Values,
        *,
        renamed: Mapping[str, str | None] | None = None,
        ignore_unknown: bool = False,
    ) -> None:
        csv.field_size_limit(LONGEST_ROW)
        self._defaults = defaults
        self._renamed = renamed or {}  # None: the column is left out
        self._ignore_unknown = ignore_unknown
        self._columns: Columns | None = None
        self._nameless: list[int] = []
        self._width = 0
        self._delimiter = ""
        self._open: list[bytes] = []  # the lines so far of a row that goes on
        self._begun = 0
        self._size = 0

    def take(self, line: bytes, number: int) -> Row[Values] | None:
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
            if self._size > LONGEST_ROW:
                self.end()
            if not closes:
                return None
            line = b"\n".join(self._open)
            self._open = []
        if not line.strip():
            return None
        if self._columns is not None:
            return self._row(self._columns, line)
        if not self._delimiter and (named := named_separator(line)):
            self._delimiter = named
        elif names := self._names(line):
            self._columns = self._header(names)
        return None

    def end(self) -> None:
        """Raise InputError if a quotation mark is open, or there was no header."""
        if self._open:
            raise InputError(f"line {self._begun}: a quotation mark is never closed")
        if self._columns is None:
            raise InputError("the input is empty: the first line of CSV names its columns")

    def _names(self, line: bytes) -> list[str]:
        if not self._delimiter:
            self._delimiter = separator_of(line)
        try:
            names = [name.strip() for name in self._cells(line)]
        except ValueError as error:
            raise InputError(f"line {self._begun}, the header of the CSV, {error}") from None
        while names and not names[-1]:
            names.pop()
        return names

    def _header(self, names: list[str]) -> Columns:
        there = set(map(_folded, names))
        renamed = {_folded(name): field for name, field in self._renamed.items()}
        free = [field for field in FIELDS[:-1] if field not in {*there, *renamed.values()}]
        columns: Columns = {}
        remedy: list[str] = []
        problems = [
            f"no column {_shown(name)}, which an option names"
            for name in self._renamed
            if _folded(name) not in there
        ]
        for number, name in enumerate(names):
            field = renamed.get(_folded(name), name)
            path, cell = (field and _column(field)) or ((), str)
            if not name:
                self._nameless.append(number)
            elif path in columns:
                both = f"{_shown(names[columns[path][0]])} and {_shown(name)}"
                problems.append(f"columns {both} are both {'.'.join(path)}")
            elif path:
                columns[path] = number, cell
            elif field and not (field is name and self._ignore_unknown):
                said, *options = _guessed(name, field, free)
                problems.append(said)
                remedy += options
            if len(problems) > _MAX_LISTED:
                break
        if problems:
            found = _listed([_cut(name) for name in names[: _MAX_LISTED + 1]])
            raise InputError(
                f"line {self._begun}: {_listed(problems, '; ')}\n"
                f"Columns found: {found}\nValid columns: {', '.join(FIELDS)}\n"
                'Rename a column with --map "COLUMN=FIELD". Leave one out with --ignore-column '
                "COLUMN, or all unknown ones with --ignore-unknown-columns.",
                *(remedy if columns or "--map" in remedy else ()),
            )
        self._width = len(names)
        return columns

    def _cells(self, row: bytes) -> list[str]:
        try:
            text = row.decode()
            if "\0" in text:
                raise ValueError(_NOT_UTF_8)
            if '"' not in text:
                return text.split(self._delimiter)
            return next(csv.reader([text], strict=True, delimiter=self._delimiter))
        except UnicodeDecodeError:
            raise ValueError(_NOT_UTF_8) from None
        except csv.Error:
            raise ValueError(
                "has a quotation mark within a cell: enclose the cell in quotation marks, and "
                "write each within it twice"
            ) from None

    def _row(self, columns: Columns, line: bytes) -> Row[Values] | None:
        try:
            cells = self._cells(line)
        except ValueError as error:
            return _unreadable(self._begun, line, str(error))
        if not any(map(str.strip, cells)):
            return None  # as a spreadsheet writes below the last row
        if len(cells) < self._width or any(map(str.strip, cells[self._width :])):
            said = f"has {counted(len(cells), 'cell')}, but the header has {self._width}"
            return _unreadable(self._begun, line, said)
        if any(cells[number].strip() for number in self._nameless):
            return _unreadable(self._begun, line, "has a value in a column without a name")
        values: Values = {}
        problems: list[Problem] = []
        for path, (number, read) in columns.items():
            cell = cells[number]
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
        if self._defaults:
            values = with_defaults(values, self._defaults)
        return Row(self._begun, values, tuple(problems))


def _unreadable(line: int, content: bytes, said: str) -> Row[Values]:
    return Row(line, {}, (("row", said),), content.decode("latin-1"))


def _guessed(name: str, field: str, free: list[str]) -> tuple[str, ...]:
    """Return the problem of an unknown field, and options that help. Take the guess from `free`."""
    said = f"unknown column {_shown(field)}"
    for guess in get_close_matches(_folded(field), free, 1):
        free.remove(guess)
        return f"{said}, did you mean {guess!r}?", "--map", f"{name}={guess}"
    return said, "--ignore-column", name


def _folded(name: str) -> str:
    return name.strip().casefold()


def _listed(texts: Sequence[str], separator: str = ", ") -> str:
    listed = separator.join(texts[:_MAX_LISTED])
    return f"{listed} and more" if len(texts) > _MAX_LISTED else listed


def _column(name: str) -> tuple[tuple[str, ...], Cell] | None:
    """Return the path of a column's field and the reader of its cells. None: unknown field."""
    if variable := _VARIABLE.fullmatch(name.strip()):
        path = ("workflow", "state_variables", variable["name"])
        return path, number_or_bool if variable["json"] else str
    whole = _folded(name)
    whole = f"{whole}.{SHORT_FORMS[whole]}" if whole in SHORT_FORMS else whole
    return (tuple(whole.split(".")), COLUMNS[whole]) if whole in COLUMNS else None


def with_defaults(values: Values, defaults: Values) -> Values:
    """Return a row's values over the defaults, merged object by object."""
    whole: Values = {
        name: {SHORT_FORMS[name]: value}
        if name in SHORT_FORMS and value is not None and not isinstance(value, dict)
        else value
        for name, value in values.items()
    }
    return merged(defaults, whole)


def read_defaults(
    path: Path | None, fields: Values, state_variables: Mapping[str, object] | None
) -> Values:
    """Return the fields that all rows share: options over a file of JSON or TOML.

    Raises:
        click.UsageError: it cannot be read, or a field is wrong.
    """
    defaults = {} if path is None else with_defaults(_read_object(path), {})
    given = {name: value for name, value in fields.items() if value is not None}
    defaults = with_defaults(given, defaults)
    if state_variables:
        defaults = with_defaults({"workflow": {"state_variables": state_variables}}, defaults)
    # A row may bring what they lack, and nothing else can make them right.
    problems = problems_of_create(
        with_defaults(defaults, {"user": "any", "workflow": {"id": "any"}})
    )
    if problems:
        lines = "".join(f"\n  {path}: {sentence}" for path, sentence in problems)
        of_file = "" if path is None else f" and of the defaults in {path}"
        raise click.UsageError(f"the fields of the options{of_file} are wrong:{lines}")
    return defaults


def _read_object(path: Path) -> Values:
    said = f"the defaults in {path}"
    try:
        content = path.read_bytes()
        text = content.removeprefix(_BOM).decode()
        value: object = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise click.UsageError(f"cannot read {said}: {reason(error)}.") from None
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise click.UsageError(f"{said} are not {kind}: {error}.") from None
    if not isinstance(value, dict):
        raise click.UsageError(f"{said} must be an object, got {described(value)}.")
    return cast("Values", value)


def problems_of_create(values: Values) -> tuple[Problem, ...]:
    """Return the problems of the values of a session to create."""
    # Most rows of a sheet are alike but for their users, so that one check can serve for many.
    alike = "" if text_problem(values.get("user")) else repr({**values, "user": ""})
    if alike in _good:
        return ()
    problems = _problems(lambda: create_params(values))
    if not problems and len(alike) < _MAX_ALIKE and len(_good) < _MAX_ALIKE:
        _good.add(alike)
    return problems


_good: set[str] = set()


# Ids of sessions ----------------------------------------------------------------------------------


_IN_NO_ID = re.compile(r"[,;/\s]")
_NOT_FOR_CANCEL = "is this the input of `bulk create`? Give the output file of that run instead"


class IdDecoder:
    """Ids of sessions: bare or in JSON, one to a line, or the journal of a run that created them."""

    def take(self, line: bytes, number: int) -> Row[str] | None:
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
            problems = (("id", f"is not a session id: {_NOT_FOR_CANCEL}"),) if wrong else ()
            return Row(number, text, problems)
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError):  # such as the torn end of a journal
            return Row(number, "", (("row", "is neither JSON nor a session's id"),), text)
        if isinstance(value, dict):
            return self._of_object(cast("Values", value), number)
        return Row(number, cast("str", value))

    def end(self) -> None:
        """Any line can be the last."""

    def _of_object(self, value: Values, number: int) -> Row[str] | None:
        holder = value
        if "record" in value:
            if value.get("kind") != "created":
                return None
            session = value.get("session")
            holder = cast("Values", session) if isinstance(session, dict) else {}
        session_id = holder.get("id")
        if isinstance(session_id, str):
            return Row(number, session_id)
        return Row(number, "", (("id", "is missing, so nothing can be cancelled"),))


def _names_columns(text: str) -> bool:
    names = re.split("[,;\t]", text.replace('"', ""))
    return all(_column(name) is not None for name in names)


def problems_of_cancel(session_id: str) -> tuple[Problem, ...]:
    """Return the problems of the id of a session to cancel."""
    return _problems(lambda: cancel_session(session_id, {}))


def _problems(build: Callable[[], object]) -> tuple[Problem, ...]:
    try:
        build()
    except ParameterError as error:
        return error.problems
    return ()
