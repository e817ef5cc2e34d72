"""Checks of what users give, and how a value is described in an error."""

import re
from collections.abc import Mapping
from operator import index
from sys import float_info
from typing import SupportsIndex, cast

import attrs

from chatkit_async.errors import Problem

__all__ = [
    "HEADER_NAME",
    "NOT_UTF8",
    "PRINTABLE_BITS",
    "Checks",
    "Withheld",
    "described",
    "is_header_value",
    "is_utf8",
    "mapping_advice",
    "text_problem",
    "whole_number_problem",
]

HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# These frame the message: a request with a wrong one hangs, or is smuggled into another.
_FRAMING = {"content-length", "transfer-encoding", "connection", "upgrade"}

PRINTABLE_BITS = 2048
"""Bits of the largest int that Python prints, whatever its limit is set to."""

READABLE_BITS = 64
"""Bits of the largest int that a person can read."""

NOT_UTF8 = "has text that UTF-8 cannot encode (a lone surrogate)"
NO_HEADER_VALUE = "has a control character, or is not ASCII"


@attrs.frozen
class Withheld:
    """The type of a value of a wrong type, in place of the value, which may be a credential."""

    kind: type[object]


def described(value: object) -> str:
    """Describe a value in an error. Text is not shown: it may be private, or secret."""
    if isinstance(value, int) and value.bit_length() > READABLE_BITS:
        return "a very large number"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    return (value.kind if isinstance(value, Withheld) else type(value)).__name__


def mapping_advice(value: object) -> str:
    """Return advice on how to make a mapping of an object, to end a sentence with."""
    for name, call in _MAKES_MAPPING.items():
        if hasattr(type(value), name):
            return f": pass {call} instead"
    return ""


_MAKES_MAPPING = {
    "model_dump": "its model_dump()",  # pydantic
    "__dataclass_fields__": "dataclasses.asdict() of it",
    "_asdict": "its _asdict()",  # a namedtuple
}
"""Calls that make a mapping of an object, by an attribute of its class."""


def is_utf8(text: str) -> bool:
    """Return True if UTF-8 can encode a text: it has no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_header_value(text: str) -> bool:
    """Return True if a header can carry a text as it is."""
    return text.isascii() and (text.isprintable() or text.replace("\t", "").isprintable())


def text_problem(value: object) -> str | None:
    """Return the problem of a value that must be text which is not blank."""
    if not isinstance(value, str):
        return f"must be a string, got {described(value)}"
    if not value.strip():
        return f"must not be {'blank' if value else 'empty'}"
    return None if is_utf8(value) else NOT_UTF8


def whole_number_problem(value: object, *, least: int) -> str | None:
    """Return the problem of a value that must be a whole number, at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | SupportsIndex):
        return f"must be a whole number, got {described(value)}"
    return None if index(value) >= least else f"must be at least {least}, got {described(value)}"


def _number(value: object) -> float | None:
    """Return a number in the range of a float. None: it is a bool, NaN, infinite or no number."""
    if isinstance(value, bool) or not isinstance(value, float | int | SupportsIndex):
        return None
    number = value if isinstance(value, float) else index(value)
    return number if -float_info.max <= number <= float_info.max else None


class Checks(list[Problem]):
    """The problems found so far. Each method checks one kind of value."""

    def note(self, name: str, problem: str | None) -> None:
        """Add a problem, if there is one."""
        if problem is not None:
            self.append((name, problem))

    def string(self, name: str, value: object) -> str | None:
        """Check a string, and return it stripped. None: it is of another type."""
        if isinstance(value, str):
            return value.strip()
        self.append((name, f"must be a string, got {described(value)}"))
        return None

    def seconds(
        self, name: str, value: object, *, optional: bool = False, zero: bool = False
    ) -> None:
        """Check a duration: more than 0 seconds, or 0 too. Optional: None means no limit."""
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, float | int | SupportsIndex):
            also = " or None" if optional else ""
            self.append((name, f"must be seconds{also}, got {described(value)}"))
        elif (number := _number(value)) is None or number < 0 or (number == 0 and not zero):
            least = "0 or more" if zero else "more than 0"
            hint = "; None means no limit" if optional else ""
            wrong = f"must be {least} seconds and finite, got {described(value)}{hint}"
            self.append((name, wrong))

    def rate(self, name: str, value: object) -> None:
        """Check a rate of more than 0 starts per second, or None."""
        if value is not None and (_number(value) or 0) <= 0:
            wrong = f"must be starts per second, more than 0, or None, got {described(value)}"
            self.append((name, wrong))

    def whole(self, name: str, value: object, *, least: int) -> None:
        """Check a whole number."""
        self.note(name, whole_number_problem(value, least=least))

    def text(self, name: str, value: object) -> None:
        """Check text that must not be blank."""
        self.note(name, text_problem(value))

    def headers(self, name: str, value: object) -> None:
        """Check the names and values of headers."""
        if not isinstance(value, Mapping):
            self.append((name, f"must be a mapping, got {described(value)}"))
            return
        for key, text in cast("Mapping[object, object]", value).items():
            where = f"{name}[{key!a}]"
            if not isinstance(key, str) or not HEADER_NAME.fullmatch(key):
                self.append((where, "is not a header's name"))
            elif key.lower() in _FRAMING:
                self.append((where, "belongs to the connection: leave it out"))
            elif not isinstance(text, str):
                self.append((where, f"must be a string, got {described(text)}"))
            elif not is_header_value(text):
                self.append((where, NO_HEADER_VALUE))

    def query(self, name: str, value: object) -> None:
        """Check the names and values of query parameters."""
        if not isinstance(value, Mapping):
            self.append((name, f"must be a mapping, got {described(value)}"))
            return
        for key, item in cast("Mapping[object, object]", value).items():
            where = f"{name}[{key!a}]"
            if not isinstance(key, str):
                self.append((where, f"must have a string as its name, got {described(key)}"))
            elif not is_utf8(key + item if isinstance(item, str) else key):
                self.append((where, NOT_UTF8))
            elif not isinstance(item, str) and _number(item) is None:
                self.append((where, f"must be a string or a number, got {described(item)}"))

    def instance(self, name: str, value: object, wanted: type[object]) -> None:
        """Check an object of a class, or None."""
        if value is not None and not isinstance(value, wanted):
            advice = mapping_advice(value) if wanted is Mapping else ""
            wrong = f"must be a {wanted.__name__}, got {described(value)}{advice}"
            self.append((name, wrong))
