"""A JSON object, read field by field: what is missing, has another type, or is left over."""

from __future__ import annotations

import re
from sys import float_info
from typing import TYPE_CHECKING, NoReturn, TypeVar

from chatkit_async.emulator._errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from chatkit_async.emulator._json import JSON

_NUMERAL = re.compile(r"-?\d{1,18}", re.ASCII)

_Value = TypeVar("_Value")
_Default = TypeVar("_Default")

_KINDS: Mapping[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


class Fields:
    """An object whose fields are read one by one. Those that are left over are unknown.

    Every method that reads a field raises ApiError, 400, if the value does not fit.
    """

    def __init__(self, fields: dict[str, JSON], path: str = "") -> None:
        self._fields = fields
        self._path = path
        self._unread = dict.fromkeys(fields)

    @classmethod
    def of_body(cls, body: JSON | bytes) -> Fields:
        """Return the fields of a request's body.

        Raises:
            ApiError: 400, if the body is not a JSON object.
        """
        if isinstance(body, bytes):
            raise ApiError(400, "The request's body is not valid JSON.")
        if not isinstance(body, dict):
            kind = _KINDS[type(body)]
            raise ApiError(400, f"The request's body must be a JSON object, not {kind}.")
        return cls(body)

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def unread(self) -> list[str]:
        """Return the paths of the fields that were not read."""
        return [self._path_of(name) for name in self._unread]

    def refuse_unread(self) -> None:
        """Refuse fields that were not read, because a misspelt one would have no effect."""
        unknown = self.unread()
        if unknown:
            message = f"Unknown: {', '.join(map(repr, unknown))}."
            raise ApiError(400, message, param=unknown[0], code="unknown_parameter")

    def refuse(self, name: str, reason: str, code: str) -> NoReturn:
        """Refuse the value of a field."""
        path = self._path_of(name)
        raise ApiError(400, f"Invalid '{path}': {reason}.", param=path, code=code)

    def refuse_type(self, name: str, expected: str, value: JSON) -> NoReturn:
        """Refuse the type of a field."""
        path = self._path_of(name)
        message = f"Invalid type for '{path}': expected {expected}, not {_KINDS[type(value)]}."
        raise ApiError(400, message, param=path, code="invalid_type")

    def take(self, name: str) -> JSON:
        """Return the value of a required field."""
        if name not in self._fields:
            path = self._path_of(name)
            message = f"Missing required parameter: '{path}'."
            raise ApiError(400, message, param=path, code="missing_required_parameter")
        self._unread.pop(name, None)
        return self._fields[name]

    def get(
        self, name: str, read: Callable[[Fields, str], _Value], default: _Default
    ) -> _Value | _Default:
        """Return what a reader returns, or the default if the field is absent."""
        return read(self, name) if name in self._fields else default

    def is_null(self, name: str) -> bool:
        """Return True if a field is null."""
        return name in self._fields and self.take(name) is None

    def section(self, name: str) -> Fields:
        """Return an object, which is empty if the field is absent."""
        return self.get(name, Fields.required_section, _ABSENT)

    def required_section(self, name: str) -> Fields:
        """Return an object."""
        return Fields(self.mapping(name), self._path_of(name))

    def mapping(self, name: str) -> dict[str, JSON]:
        """Return an object as it is."""
        value = self.take(name)
        if not isinstance(value, dict):
            self.refuse_type(name, "an object", value)
        return value

    def text(self, name: str, *, min_length: int = 0, max_length: int | None = None) -> str:
        """Return a string."""
        value = self.take(name)
        if not isinstance(value, str):
            self.refuse_type(name, "a string", value)
        if len(value) < min_length:
            reason = f"expected a length of at least {min_length}"
            self.refuse(name, reason, "string_below_min_length")
        if max_length is not None and len(value) > max_length:
            reason = f"expected a length of at most {max_length}"
            self.refuse(name, reason, "string_above_max_length")
        return value

    def name(self, name: str) -> str:
        """Return a string that is not empty."""
        return self.text(name, min_length=1)

    def flag(self, name: str) -> bool:
        """Return a boolean."""
        value = self.take(name)
        if not isinstance(value, bool):
            self.refuse_type(name, "a boolean", value)
        return value

    def whole(self, name: str) -> int:
        """Return an integer."""
        value = self.take(name)
        if isinstance(value, float) and value.is_integer():  # to a schema, 5.0 is an integer
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse_type(name, "an integer", value)
        return value

    def count(self, name: str, *, maximum: int | None = None) -> int:
        """Return an integer of at least 1."""
        return self.within(name, self.whole(name), 1, maximum)

    def numeral(self, name: str) -> int:
        """Return an integer that is written as a string, as in a query."""
        text = self.text(name)
        if _NUMERAL.fullmatch(text) is None:
            self.refuse(name, "expected an integer", "invalid_type")
        return int(text)

    def within(self, name: str, value: int, minimum: int, maximum: int | None = None) -> int:
        """Return the value of a field, which has to be within bounds."""
        if value < minimum:
            self.refuse(name, f"expected at least {minimum}", "integer_below_min_value")
        if maximum is not None and value > maximum:
            self.refuse(name, f"expected at most {maximum}", "integer_above_max_value")
        return value

    def number(self, name: str) -> float:
        """Return a finite number."""
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse_type(name, "a number", value)
        # An int can be larger than any float.
        if not -float_info.max <= value <= float_info.max:
            self.refuse(name, "expected a finite number", "invalid_value")
        return value

    def texts(self, name: str) -> dict[str, str]:
        """Return an object of strings."""
        section = self.required_section(name)
        return {each: section.text(each) for each in section}

    def _path_of(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


_ABSENT = Fields({})
