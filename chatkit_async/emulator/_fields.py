"""A JSON object, read field by field: what is missing, of another type, or left over."""

from __future__ import annotations

import json
from sys import float_info
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

from chatkit_async.emulator._errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

_Default = TypeVar("_Default", int, None)

_KINDS: Mapping[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def to_json(content: object) -> bytes:
    """Encode as the API does: compact, ASCII, no NaN."""
    return _encode(content).encode()


def parse_json(body: bytes) -> JSON | bytes:
    """Return the JSON value in a body, or the body as it is when it is none."""
    try:
        # Decoded here, because json.loads() would guess at UTF-16 and UTF-32 as well.
        value: JSON = _decode(body.decode())
    except (ValueError, RecursionError):
        return body
    return value


class Fields:
    """One object of a request: read field by field, so that what is left is unknown.

    Every method that reads a field raises ApiError, 400, for what is not as it asks.
    """

    def __init__(self, fields: dict[str, JSON], path: str = "") -> None:
        self._fields = fields
        self._path = path
        self._unread = dict.fromkeys(fields)

    @classmethod
    def of_body(cls, body: JSON | bytes) -> Fields:
        """Return the object that a request's body is."""
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
        """Return the paths of the fields that nobody asked for."""
        return [self._path_of(name) for name in self._unread]

    def refuse_unread(self) -> None:
        """Refuse the fields that nobody asked for, because a misspelt one would have no effect."""
        unknown = self.unread()
        if unknown:
            message = f"Unknown: {', '.join(map(repr, unknown))}."
            raise ApiError(400, message, param=unknown[0], code="unknown_parameter")

    def refuse(self, name: str, reason: str, code: str) -> NoReturn:
        """Say what is wrong with a field's value."""
        path = self._path_of(name)
        raise ApiError(400, f"Invalid '{path}': {reason}.", param=path, code=code)

    def refuse_type(self, name: str, expected: str, value: JSON) -> NoReturn:
        """Say of what type a field should have been."""
        path = self._path_of(name)
        message = f"Invalid type for '{path}': expected {expected}, not {_KINDS[type(value)]}."
        raise ApiError(400, message, param=path, code="invalid_type")

    def take(self, name: str) -> JSON:
        """Return a field's value, which must be there."""
        if name not in self._fields:
            path = self._path_of(name)
            message = f"Missing required parameter: '{path}'."
            raise ApiError(400, message, param=path, code="missing_required_parameter")
        self._unread.pop(name, None)
        return self._fields[name]

    def is_null(self, name: str) -> bool:
        """Whether a field is there and null."""
        return name in self._fields and self.take(name) is None

    def section(self, name: str) -> Fields:
        """Return an object, as empty when it is not there."""
        return self.required_section(name) if name in self._fields else _ABSENT

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

    def optional_text(
        self, name: str, *, min_length: int = 0, max_length: int | None = None
    ) -> str | None:
        """Return a string; None when it is not there."""
        if name not in self._fields:
            return None
        return self.text(name, min_length=min_length, max_length=max_length)

    def optional_whole(self, name: str, default: int) -> int:
        """Return an integer, or the default when it is not there."""
        return self.whole(name) if name in self._fields else default

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean."""
        if name not in self._fields:
            return default
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
        value = self.whole(name)
        if value < 1:
            self.refuse(name, "expected at least 1", "integer_below_min_value")
        if maximum is not None and value > maximum:
            self.refuse(name, f"expected at most {maximum}", "integer_above_max_value")
        return value

    def optional_count(
        self, name: str, *, default: _Default, maximum: int | None = None
    ) -> int | _Default:
        """Return an integer of at least 1, or the default when it is not there."""
        return self.count(name, maximum=maximum) if name in self._fields else default

    def number(self, name: str) -> float:
        """Return a finite number."""
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse_type(name, "a number", value)
        # 1e999 is JSON, and infinite; an int can be larger than any float.
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
