"""The API's operations, and the paths that they are found at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

Operation: TypeAlias = Literal[
    "create", "cancel", "list_threads", "retrieve_thread", "delete_thread", "list_items"
]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

METHODS: Mapping[Operation, tuple[str, ...]] = {
    "create": ("POST",),
    "cancel": ("POST",),
    "list_threads": ("GET",),
    "retrieve_thread": ("GET", "DELETE"),
    "delete_thread": ("GET", "DELETE"),
    "list_items": ("GET",),
}
"""The methods that the path of an operation allows."""


def route(method: str, path: str) -> tuple[Operation | None, str | None]:
    """Return the operation that a path stands for, and the id in the path.

    The path is split before it is decoded, once, so that an escaped slash stays in its segment.
    """
    match path.split("/"):
        case ["", "v1", "chatkit", "sessions"]:
            return "create", None
        case ["", "v1", "chatkit", "sessions", session_id, "cancel"]:
            return "cancel", unquote(session_id)
        case ["", "v1", "chatkit", "threads"]:
            return "list_threads", None
        case ["", "v1", "chatkit", "threads", thread_id] if thread_id:
            operation: Operation = "delete_thread" if method == "DELETE" else "retrieve_thread"
            return operation, unquote(thread_id)
        case ["", "v1", "chatkit", "threads", thread_id, "items"]:
            return "list_items", unquote(thread_id)
        case _:
            return None, None
