"""Replies: sessions, threads, pages and errors in the API's format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from attrs import field, frozen

from chatkit_async.emulator._json import JSON, to_json

if TYPE_CHECKING:
    from chatkit_async.emulator._errors import ApiError
    from chatkit_async.emulator._routes import Operation
    from chatkit_async.emulator._sessions import Session
    from chatkit_async.emulator._threads import Thread

PageFault: TypeAlias = Literal["empty", "stuck", "no_last_id", "short_types", "unknown_types"]
PAGE_FAULTS: tuple[PageFault, ...] = get_args(PageFault)
Shape: TypeAlias = PageFault | Literal["off_schema"] | None
"""The way a reply departs from the published schema; None if it does not."""

_UNDOCUMENTED = ("created_at", "thread_id", "status", "user", "inference_options", "annotations")

UNAUTHORIZED_HEADERS: Mapping[str, str] = {"WWW-Authenticate": 'Bearer realm="OpenAI API"'}
SERVER_ERROR_MESSAGE = "The server had an error while processing your request. Sorry about that!"


@frozen(kw_only=True)
class Reply:
    """A reply before it is sent."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(factory=dict[str, str])
    shaped: Callable[[Shape], bytes] | None = None
    """A function that returns the body in another shape."""
    session_id: str | None = None
    """The session that was created."""
    unknown_fields: tuple[str, ...] = ()
    """The fields or parameters of the request that the schema does not have."""


def error_body(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> bytes:
    """Return an error in the API's format."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = "requests"
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = "server_error"
    else:
        kind = "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return to_json({"error": error})


def refusal(error: ApiError) -> Reply:
    """Return the reply for an error."""
    body = error_body(error.status, error.message, param=error.param, code=error.code)
    return Reply(status=error.status, body=body, headers=error.headers)


def session_body(operation: Operation, session: Session, shape: Shape) -> bytes:
    """Return a session in a shape."""
    return off_schema(operation, session) if shape == "off_schema" else resource(session)


def resource(session: Session) -> bytes:
    """Return a session as the published schema's ChatSessionResource."""
    wanted = session.parameters
    return to_json(
        {
            "id": session.id,
            "object": "chatkit.session",
            "expires_at": session.expires_at,
            "client_secret": session.client_secret,
            "workflow": {
                "id": wanted.workflow,
                "version": wanted.workflow_version,
                "state_variables": wanted.state_variables,
                "tracing": {"enabled": wanted.tracing},
            },
            "user": wanted.user,
            "rate_limits": {"max_requests_per_1_minute": wanted.max_requests_per_1_minute},
            "max_requests_per_1_minute": wanted.max_requests_per_1_minute,
            "status": session.status,
            "chatkit_configuration": {
                "automatic_thread_titling": {"enabled": wanted.automatic_thread_titling},
                "file_upload": {
                    "enabled": wanted.file_upload,
                    "max_file_size": wanted.max_file_size,
                    "max_files": wanted.max_files,
                },
                "history": {"enabled": wanted.history, "recent_threads": wanted.recent_threads},
            },
        }
    )


def off_schema(operation: Operation, session: Session) -> bytes:
    """Return a session as in the documentation's last example of each method.

    Those examples lack fields of the published schema (a create without an `id`, no configuration,
    no tracing) and have others (`scope`, `ttl_seconds`, `cancelled_at`). Values that a session does
    not have are made up.
    """
    wanted = session.parameters
    workflow = {"id": wanted.workflow, "version": wanted.workflow_version}
    if operation == "create":
        return to_json(
            {
                "client_secret": session.client_secret,
                "expires_at": session.expires_at,
                "workflow": workflow,
                "scope": {"project": session.project, "environment": "emulator"},
                "max_requests_per_1_minute": wanted.max_requests_per_1_minute,
                "max_requests_per_session": 500,
                "status": session.status,
            }
        )
    return to_json(
        {
            "id": session.id,
            "object": "chatkit.session",
            "workflow": workflow,
            "scope": {"customer_id": wanted.user},
            "max_requests_per_1_minute": wanted.max_requests_per_1_minute,
            "ttl_seconds": wanted.expires_in,
            "status": session.status,
            "cancelled_at": session.cancelled_at,
        }
    )


def thread_resource(thread: Thread) -> dict[str, JSON]:
    """Return a thread as the published schema's ThreadResource."""
    return {
        "id": thread.id,
        "object": "chatkit.thread",
        "created_at": thread.created_at,
        "title": thread.title,
        "status": {**thread.status},
        "user": thread.user,
    }


def thread_body(thread: Thread, shape: Shape) -> bytes:
    """Return a thread in a shape. Off its schema it has items, as in the documentation."""
    if shape != "off_schema":
        return to_json(thread_resource(thread))
    embedded: JSON = {"data": [{**item} for item in thread.items], "has_more": False}
    return to_json(_documented({**thread_resource(thread), "items": embedded}))


def deleted_body(thread: Thread, _shape: Shape) -> bytes:
    """Return the reply to a delete."""
    return to_json({"id": thread.id, "object": "chatkit.thread.deleted", "deleted": True})


def page_body(
    rows: Sequence[Mapping[str, JSON]], shape: Shape, *, has_more: bool, after: str | None
) -> bytes:
    """Return a page of a list in a shape. A stuck one repeats the cursor `after`."""
    page: dict[str, JSON] = {
        "object": "list",
        "data": [{**row} for row in rows],
        "first_id": rows[0]["id"] if rows else None,
        "last_id": rows[-1]["id"] if rows else None,
        "has_more": has_more,
    }
    match shape:
        case "empty":
            page |= {"data": [], "first_id": None, "last_id": None, "has_more": True}
        case "stuck":
            page |= {"has_more": True, "last_id": page["last_id"] if after is None else after}
        case "no_last_id":
            del page["last_id"]
        case "short_types":
            page["data"] = [_with_short_type(row) for row in rows]
        case "unknown_types":
            page["data"] = [row | {"type": "chatkit.unknown"} for row in map(dict, rows)]
        case "off_schema":
            page["data"] = _documented(page["data"])
            del page["first_id"], page["last_id"]
        case _:
            pass
    return to_json(page)


def _with_short_type(row: Mapping[str, JSON]) -> dict[str, JSON]:
    if "type" not in row:  # a thread
        return {**row}
    return {**row, "type": str(row["type"]).removeprefix("chatkit.")}


def _documented(value: JSON) -> JSON:
    """Return a thread or an item with the fields of the documentation's examples."""
    if isinstance(value, list):
        return [_documented(each) for each in value]
    if not isinstance(value, dict):
        return value
    shown = {name: _documented(v) for name, v in value.items() if name not in _UNDOCUMENTED}
    return _with_short_type(shown)
