"""The dry run: the problems and the oddities of all rows, in groups and in bounded memory."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Generic, TypeVar, cast

from chatkit_async.cli._output import counted
from chatkit_async.cli._rows import Row, Values
from chatkit_async.errors import Problem

V = TypeVar("V")

MAX_GROUPS = 10
"""Groups of problems, and of warnings, that are counted separately and shown."""

MAX_COMPARED = 1_500_000
"""Different users, or ids, among which repeated ones are found."""

SECRET_SECONDS = 600
"""Seconds until a client secret expires, unless its row says otherwise."""

_SLOTS = 1 << 21  # more than MAX_COMPARED: there is always a free one
_DETAIL = re.compile(r"'(?:[^'\\]|\\.)*'|\d+")  # differs between the rows of a group
_SHORTENED = re.compile(r"\d+(?:[.,]\d+)?E[+-]\d+")
_FORMULA = re.compile(r"#(?:N/A|REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!)")

_REPEATED = ("appears more than once", "each of these rows is sent")
_SPACES = ("has spaces around it", "remove them if they are not part of it")
_NUMBER = ("is a number that a spreadsheet shortened", "format the column as text, export again")
_ERROR = ("is an error value of a spreadsheet", "correct the formula, export again")


class _Groups:
    """The first groups of rows by what is said of them, each as a line."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, str, str]] = {}
        self._rows: Counter[str] = Counter()

    def add(self, path: str, said: str, fix: str, line: int) -> None:
        key = f"{path}: {_DETAIL.sub('', said)}"
        if key not in self._first and len(self._first) >= MAX_GROUPS:
            key = ""
        self._first.setdefault(key, (line, f"{path}: {said}", fix))
        self._rows[key] += 1

    def __iter__(self) -> Iterator[str]:
        for key, (line, said, fix) in self._first.items():
            rows = self._rows[key]
            where = f"{counted(rows, 'row')}, first on line {line}" if rows > 1 else f"line {line}"
            yield (
                f"{said}: {where}{'; ' if fix else ''}{fix}"
                if key
                else f"and {rows:,} more of other kinds"
            )


class _Compared:
    """Texts that were there before, as 64 bits of each in a table of a fixed size."""

    def __init__(self) -> None:
        self._table = memoryview(bytearray(8 * _SLOTS)).cast("Q")
        self._number = 0

    def has(self, text: str) -> bool:
        """Return True if a text was there before. Otherwise remember it, if there is room."""
        key = hash(text) % 2**64 or 1  # 0 is a free slot
        slot = key % _SLOTS
        while (found := self._table[slot]) and found != key:
            slot = (slot + 1) % _SLOTS
        if not found and self._number < MAX_COMPARED:
            self._table[slot] = key
            self._number += 1
        return bool(found)


class Report(Generic[V]):
    """The findings of a dry run: the number of rows, and the wrong and odd ones in groups.

    Attributes:
        lifetime: Seconds after which the first client secret expires.
    """

    def __init__(
        self,
        problems_of: Callable[[V], tuple[Problem, ...]],
        subject: str,
        fixes: Mapping[Problem, str],
    ) -> None:
        self.rows = self.wrong = 0
        self.lifetime = inf
        self.problems, self.warnings = _Groups(), _Groups()
        self._problems_of, self._fixes = problems_of, fixes
        self._subject = subject
        self._compared = _Compared()

    def add(self, row: Row[V]) -> None:
        """Check a row."""
        self.rows += 1
        problems = dict(row.problems)
        if "row" not in problems:  # else there is nothing to check
            problems = {**dict(self._problems_of(row.value)), **problems}
        self.wrong += bool(problems)
        for problem in problems.items():
            self.problems.add(*problem, self._fixes.get(problem, ""), row.line)
        value: object = row.value
        values = cast("Values", value) if isinstance(value, dict) else {self._subject: value}
        self.lifetime = min(self.lifetime, lifetime_of(values))
        for path, text in _texts(values):
            if path == self._subject and self._compared.has(text):
                self.warnings.add(path, *_REPEATED, row.line)
            if text != text.strip():
                self.warnings.add(path, *_SPACES, row.line)
            elif text[:1].isdecimal() and _SHORTENED.fullmatch(text):
                self.warnings.add(path, *_NUMBER, row.line)
            elif text[:1] == "#" and _FORMULA.fullmatch(text):
                self.warnings.add(path, *_ERROR, row.line)


def _texts(values: Values, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, str):
            yield prefix + name, value
        elif isinstance(value, dict):
            yield from _texts(cast("Values", value), f"{prefix}{name}.")


def lifetime_of(values: Values) -> float:
    """Return the seconds after which a client secret of a row expires."""
    expiry = values.get("expires_after")
    seconds = cast("Values", expiry).get("seconds") if isinstance(expiry, dict) else None
    return seconds if isinstance(seconds, int) else SECRET_SECONDS
