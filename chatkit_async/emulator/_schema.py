"""The published schema's rules for what a create request holds, and its defaults."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import parse_qsl

from attrs import frozen

from chatkit_async.emulator._fields import JSON, Fields

StateVariable: TypeAlias = str | int | float | bool

MAX_STATE_VARIABLES = 64
MAX_STATE_VARIABLE_KEY = 64
MAX_STATE_VARIABLE_TEXT = 10 * 1024 * 1024
MAX_PAGE_SIZE = 100
MAX_USER_FILTER = 512

_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)


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


@frozen(kw_only=True)
class PageQuery:
    """Which page of a list was asked for, the defaults filled in."""

    limit: int
    ascending: bool
    after: str | None
    before: str | None
    user: str | None = None


def query_fields(query: str) -> dict[str, JSON]:
    """Return the parameters of a query; of those that are repeated, the last."""
    return {**dict(parse_qsl(query, keep_blank_values=True))}


def read_page_query(query: str, *, by_user: bool) -> tuple[PageQuery, tuple[str, ...]]:
    """Check the query of a request for a page.

    Args:
        query: The query.
        by_user: True if `user` is one that the list knows.

    Returns:
        The parameters, and the names of those that the schema does not know.

    Raises:
        ApiError: 400 for the first parameter that breaks the schema, named as `param`.
    """
    fields = Fields(query_fields(query))
    order = fields.text("order") if "order" in fields else "desc"
    if order not in ("asc", "desc"):
        fields.refuse("order", "expected 'asc' or 'desc'", "invalid_value")
    page = PageQuery(
        limit=_limit(fields),
        ascending=order == "asc",
        after=fields.optional_text("after"),
        before=fields.optional_text("before"),
        user=(
            fields.optional_text("user", min_length=1, max_length=MAX_USER_FILTER)
            if by_user
            else None
        ),
    )
    return page, tuple(fields.unread())


def _limit(fields: Fields) -> int:
    text = fields.text("limit") if "limit" in fields else "20"
    if _INTEGER.fullmatch(text) is None:
        fields.refuse("limit", "expected an integer", "invalid_type")
    limit = int(text)
    if limit < 0:
        fields.refuse("limit", "expected at least 0", "integer_below_min_value")
    if limit > MAX_PAGE_SIZE:
        fields.refuse("limit", f"expected at most {MAX_PAGE_SIZE}", "integer_above_max_value")
    return limit


def read_create(body: JSON | bytes) -> tuple[CreateParameters, tuple[str, ...]]:
    """Check a create request.

    Returns:
        The parameters, and the paths of the fields that the schema does not know.

    Raises:
        ApiError: 400 for the first field that breaks the schema, named as `param`.
    """
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
        workflow_version=workflow.optional_text("version"),
        state_variables=_state_variables(workflow) if "state_variables" in workflow else None,
        tracing=tracing.flag("enabled", default=True),
        user=top.text("user", min_length=1),
        expires_in=_expires_in(expiry) if "expires_after" in top else 600,
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


def _expires_in(expiry: Fields) -> int:
    anchor = expiry.text("anchor")
    if anchor != "created_at":
        expiry.refuse("anchor", "expected 'created_at'", "invalid_value")
    return expiry.count("seconds", maximum=600)


def _state_variables(workflow: Fields) -> Mapping[str, StateVariable]:
    variables = workflow.required_section("state_variables")
    keys = list(variables)
    if len(keys) > MAX_STATE_VARIABLES:
        reason = f"expected at most {MAX_STATE_VARIABLES} state variables"
        workflow.refuse("state_variables", reason, "object_above_max_properties")
    if any(len(key) > MAX_STATE_VARIABLE_KEY for key in keys):
        reason = f"expected names of at most {MAX_STATE_VARIABLE_KEY} characters"
        workflow.refuse("state_variables", reason, "string_above_max_length")
    return {key: _state_variable(variables, key) for key in keys}


def _state_variable(variables: Fields, key: str) -> StateVariable:
    value = variables.take(key)
    if not isinstance(value, str | int | float):  # a bool is an int
        variables.refuse_type(key, "a string, an integer, a boolean or a number", value)
    if isinstance(value, str) and len(value) > MAX_STATE_VARIABLE_TEXT:
        reason = f"expected at most {MAX_STATE_VARIABLE_TEXT} characters"
        variables.refuse(key, reason, "string_above_max_length")
    if isinstance(value, float) and not math.isfinite(value):  # 1e999 is JSON, and infinite
        variables.refuse(key, "expected a finite number", "invalid_value")
    return value
