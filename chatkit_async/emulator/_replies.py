"""What the emulator answers: sessions and errors, in the shapes the API gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import field, frozen

from chatkit_async.emulator._state import Session

if TYPE_CHECKING:
    from chatkit_async.emulator._errors import ApiError

Operation: TypeAlias = Literal["create", "cancel"]

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@frozen(kw_only=True)
class Reply:
    """A reply before it is sent; `session` is the one it tells of."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(factory=dict[str, str])
    session: Session | None = None


def to_json(content: object) -> bytes:
    """Encode as the API does: compact, ASCII, no NaN."""
    return _encode(content).encode()


def error_body(status: int, message: str, *, param: str | None, code: str | None) -> bytes:
    """Return an error in the API's shape."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = "requests"
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = "server_error"
    else:
        kind = "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return to_json({"error": error})


def refusal(error: ApiError) -> Reply:
    """Return the reply that an error becomes."""
    body = error_body(error.status, error.message, param=error.param, code=error.code)
    return Reply(status=error.status, body=body, headers=error.headers)


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
    """Return a session as the documentation's last example of each method shows it.

    Those examples fit the published schema neither in what they lack (a create without an `id`,
    no configuration, no tracing) nor in what they add (`scope`, `ttl_seconds`, `cancelled_at`).
    What the session knows is its own; the rest is made up.
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
