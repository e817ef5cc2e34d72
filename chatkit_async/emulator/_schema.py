"""The published schema's rules and defaults for a create request and for a page of a list.

The first field that breaks a rule raises ApiError, 400, with its name as `param`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl

from attrs import frozen

from chatkit_async.emulator._fields import Fields

if TYPE_CHECKING:
    from chatkit_async.emulator._json import JSON

StateVariable: TypeAlias = str | int | float | bool

MAX_STATE_VARIABLES = 64
MAX_STATE_VARIABLE_KEY = 64
MAX_STATE_VARIABLE_TEXT = 10 * 1024 * 1024
MAX_PAGE_SIZE = 100
MAX_USER_FILTER = 512


@frozen(kw_only=True)
class CreateParameters:
    """The parameters of a create request, with defaults filled in."""

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


@frozen(kw_only=True)
class PageQuery:
    """The parameters of a page request, with defaults filled in."""

    limit: int
    ascending: bool
    after: str | None
    before: str | None
    user: str | None = None


def query_fields(query: str) -> dict[str, JSON]:
    """Return the parameters of a query. The last value of a repeated one counts."""
    return {**dict(parse_qsl(query, keep_blank_values=True))}


def read_page_query(query: str, *, by_user: bool) -> tuple[PageQuery, tuple[str, ...]]:
    """Return the parameters of a page request, and the names of unknown ones.

    `by_user` is True if the list has the parameter `user`.
    """
    fields = Fields(query_fields(query))
    order = fields.get("order", Fields.text, "desc")
    if order not in ("asc", "desc"):
        fields.refuse("order", "expected 'asc' or 'desc'", "invalid_value")
    page = PageQuery(
        limit=fields.within("limit", fields.get("limit", Fields.numeral, 20), 0, MAX_PAGE_SIZE),
        ascending=order == "asc",
        after=fields.get("after", Fields.text, None),
        before=fields.get("before", Fields.text, None),
        user=fields.get("user", _user_filter, None) if by_user else None,
    )
    return page, tuple(fields.unread())


def read_create(body: JSON | bytes) -> tuple[CreateParameters, tuple[str, ...]]:
    """Return the parameters of a create request, and the paths of unknown fields."""
    top = Fields.of_body(body)
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
        workflow_version=workflow.get("version", Fields.text, None),
        state_variables=workflow.get("state_variables", _state_variables, None),
        tracing=tracing.get("enabled", Fields.flag, default=True),
        user=top.name("user"),
        expires_in=_expires_in(expiry) if "expires_after" in top else 600,
        max_requests_per_1_minute=limits.get("max_requests_per_1_minute", Fields.count, 10),
        automatic_thread_titling=titling.get("enabled", Fields.flag, default=True),
        file_upload=upload.get("enabled", Fields.flag, default=False),
        max_file_size=upload.get("max_file_size", _max_file_size, 512),
        max_files=upload.get("max_files", Fields.count, 10),
        history=history.get("enabled", Fields.flag, default=True),
        recent_threads=history.get("recent_threads", Fields.count, None),
    )
    sections = (top, workflow, tracing, expiry, limits, chatkit, titling, upload, history)
    return parameters, tuple(path for section in sections for path in section.unread())


def _user_filter(fields: Fields, name: str) -> str:
    return fields.text(name, min_length=1, max_length=MAX_USER_FILTER)


def _max_file_size(fields: Fields, name: str) -> int:
    return fields.count(name, maximum=512)


def _expires_in(expiry: Fields) -> int:
    anchor = expiry.text("anchor")
    if anchor != "created_at":
        expiry.refuse("anchor", "expected 'created_at'", "invalid_value")
    return expiry.count("seconds", maximum=600)


def _state_variables(workflow: Fields, name: str) -> Mapping[str, StateVariable]:
    variables = workflow.required_section(name)
    keys = list(variables)
    if len(keys) > MAX_STATE_VARIABLES:
        reason = f"expected at most {MAX_STATE_VARIABLES} state variables"
        workflow.refuse(name, reason, "object_above_max_properties")
    if any(len(key) > MAX_STATE_VARIABLE_KEY for key in keys):
        reason = f"expected names of at most {MAX_STATE_VARIABLE_KEY} characters"
        workflow.refuse(name, reason, "string_above_max_length")
    return {key: _state_variable(variables, key) for key in keys}


def _state_variable(variables: Fields, key: str) -> StateVariable:
    value = variables.take(key)
    if not isinstance(value, str | int | float):  # a bool is an int
        variables.refuse_type(key, "a string, an integer, a boolean or a number", value)
    if isinstance(value, str) and len(value) > MAX_STATE_VARIABLE_TEXT:
        reason = f"expected at most {MAX_STATE_VARIABLE_TEXT} characters"
        variables.refuse(key, reason, "string_above_max_length")
    return value
