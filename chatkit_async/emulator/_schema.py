"""The published schema's rules for what a create request holds, and its defaults."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NoReturn, TypeAlias, TypeVar

from attrs import frozen

from chatkit_async.emulator._errors import ApiError

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
StateVariable: TypeAlias = str | int | float | bool

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

MAX_STATE_VARIABLES = 64
MAX_STATE_VARIABLE_KEY = 64
MAX_STATE_VARIABLE_TEXT = 10 * 1024 * 1024


@frozen(kw_only=True)
class CreateParameters:
    """What a create request asked for, its defaults filled in."""

    user: str
    workflow: str
    workflow_version: str | None
    state_variables: Mapping[str, StateVariable] | None
    tracing: bool
    expires_in: int
    max_requests_per_1_minute: int
    automatic_thread_titling: bool
    file_upload: bool
    max_file_size: int
    max_files: int
    history: bool
    recent_threads: int | None


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def parse_json(body: bytes) -> JSON | bytes:
    """Return the JSON value in a body, or the body as it is when it is none."""
    try:
        # Decoded here, because json.loads() would guess at UTF-16 and UTF-32 as well.
        value: JSON = _decode(body.decode())
    except (ValueError, RecursionError):
        return body
    return value


def read_create(body: JSON | bytes) -> tuple[CreateParameters, tuple[str, ...]]:
    """Check a create request.

    Returns:
        The parameters, and the paths of the fields that the schema does not know.

    Raises:
        ApiError: 400 for the first field that breaks the schema, named as `param`.
    """
    if isinstance(body, bytes):
        raise ApiError(400, "The request's body is not valid JSON.")
    if not isinstance(body, dict):
        raise ApiError(400, f"The request's body must be a JSON object, not {_KINDS[type(body)]}.")
    top = _Fields(body, "")
    workflow = top.required_section("workflow")
    tracing = workflow.section("tracing")
    expiry = top.section("expires_after")
    limits = top.section("rate_limits")
    chatkit = top.section("chatkit_configuration")
    titling = chatkit.section("automatic_thread_titling")
    upload = chatkit.section("file_upload")
    history = chatkit.section("history")

    parameters = CreateParameters(
        workflow=workflow.text("id"),
        workflow_version=workflow.optional_text("version"),
        state_variables=workflow.state_variables("state_variables"),
        tracing=tracing.flag("enabled", default=True),
        user=top.text("user", min_length=1),
        expires_in=_expires_in(expiry) if "expires_after" in body else 600,
        max_requests_per_1_minute=limits.optional_count("max_requests_per_1_minute", default=10),
        automatic_thread_titling=titling.flag("enabled", default=True),
        file_upload=upload.flag("enabled", default=False),
        max_file_size=upload.optional_count("max_file_size", default=512, maximum=512),
        max_files=upload.optional_count("max_files", default=10),
        history=history.flag("enabled", default=True),
        recent_threads=history.optional_count("recent_threads", default=None),
    )
    sections = (top, workflow, tracing, expiry, limits, chatkit, titling, upload, history)
    return parameters, tuple(path for section in sections for path in section.unread())


def _expires_in(expiry: _Fields) -> int:
    anchor = expiry.text("anchor")
    if anchor != "created_at":
        expiry.refuse("anchor", "expected 'created_at'", "invalid_value")
    return expiry.count("seconds", maximum=600)


class _Fields:
    """One object of the request: read field by field, so that what is left is unknown."""

    def __init__(self, fields: dict[str, JSON], path: str) -> None:
        self._fields = fields
        self._path = path
        self._unread = dict.fromkeys(fields)

    def unread(self) -> list[str]:
        return [self._path_of(name) for name in self._unread]

    def refuse(self, name: str, reason: str, code: str) -> NoReturn:
        path = self._path_of(name)
        raise ApiError(400, f"Invalid '{path}': {reason}.", param=path, code=code)

    def require(self, name: str) -> None:
        if name not in self._fields:
            path = self._path_of(name)
            message = f"Missing required parameter: '{path}'."
            raise ApiError(400, message, param=path, code="missing_required_parameter")

    def section(self, name: str) -> _Fields:
        if name not in self._fields:
            return _ABSENT
        value = self._take(name)
        if not isinstance(value, dict):
            self._refuse_type(name, "an object", value)
        return _Fields(value, self._path_of(name))

    def required_section(self, name: str) -> _Fields:
        self.require(name)
        return self.section(name)

    def text(self, name: str, *, min_length: int = 0) -> str:
        self.require(name)
        value = self._take(name)
        if not isinstance(value, str):
            self._refuse_type(name, "a string", value)
        if len(value) < min_length:
            reason = f"expected a length of at least {min_length}"
            self.refuse(name, reason, "string_below_min_length")
        return value

    def optional_text(self, name: str) -> str | None:
        return self.text(name) if name in self._fields else None

    def flag(self, name: str, *, default: bool) -> bool:
        if name not in self._fields:
            return default
        value = self._take(name)
        if not isinstance(value, bool):
            self._refuse_type(name, "a boolean", value)
        return value

    def count(self, name: str, *, maximum: int | None = None) -> int:
        self.require(name)
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int):
            self._refuse_type(name, "an integer", value)
        if value < 1:
            self.refuse(name, "expected at least 1", "integer_below_min_value")
        if maximum is not None and value > maximum:
            self.refuse(name, f"expected at most {maximum}", "integer_above_max_value")
        return value

    def optional_count(
        self, name: str, *, default: _Default, maximum: int | None = None
    ) -> int | _Default:
        return self.count(name, maximum=maximum) if name in self._fields else default

    def state_variables(self, name: str) -> Mapping[str, StateVariable] | None:
        if name not in self._fields:
            return None
        value = self._take(name)
        if not isinstance(value, dict):
            self._refuse_type(name, "an object", value)
        if len(value) > MAX_STATE_VARIABLES:
            reason = f"expected at most {MAX_STATE_VARIABLES} state variables"
            self.refuse(name, reason, "object_above_max_properties")
        if any(len(key) > MAX_STATE_VARIABLE_KEY for key in value):
            reason = f"expected names of at most {MAX_STATE_VARIABLE_KEY} characters"
            self.refuse(name, reason, "string_above_max_length")
        variables = _Fields(value, self._path_of(name))
        return {key: variables.state_variable(key) for key in value}

    def state_variable(self, key: str) -> StateVariable:
        value = self._take(key)
        if not isinstance(value, str | int | float):  # a bool is an int
            self._refuse_type(key, "a string, an integer, a boolean or a number", value)
        if isinstance(value, str) and len(value) > MAX_STATE_VARIABLE_TEXT:
            reason = f"expected at most {MAX_STATE_VARIABLE_TEXT} characters"
            self.refuse(key, reason, "string_above_max_length")
        if isinstance(value, float) and not math.isfinite(value):  # 1e999 is JSON, and infinite
            self.refuse(key, "expected a finite number", "invalid_value")
        return value

    def _take(self, name: str) -> JSON:
        del self._unread[name]
        return self._fields[name]

    def _path_of(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _refuse_type(self, name: str, expected: str, value: JSON) -> NoReturn:
        path = self._path_of(name)
        message = f"Invalid type for '{path}': expected {expected}, not {_KINDS[type(value)]}."
        raise ApiError(400, message, param=path, code="invalid_type")


_ABSENT = _Fields({}, "")
