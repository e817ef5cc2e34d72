"""The ledger of an emulator: its latest requests, and their outcomes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, overload

from attrs import define, field, setters
from attrs.converters import optional

from chatkit_async.emulator._credentials import masked_headers, masked_text
from chatkit_async.emulator._faults import Fault
from chatkit_async.emulator._json import JSON, parse_json
from chatkit_async.emulator._routes import Operation

if TYPE_CHECKING:
    from chatkit_async.emulator._replies import Reply
    from chatkit_async.emulator._request import Request

__all__ = ["Ledger", "Record", "RecordOutcome"]

MAX_KEPT_BODY = 64 * 1024
"""Bytes of a body, and characters of a user, that are kept."""

MAX_KEPT_PATHS = 100
"""Paths of unknown fields that are kept."""

MAX_KEPT_PATH = 1000
"""Characters of such a path that are kept."""

RecordOutcome: TypeAlias = Literal["pending", "sent", "cut", "dropped", "client_gone"]


@define(kw_only=True, eq=False, on_setattr=setters.NO_OP)  # a hook would slow every assignment
class Record:
    """One request, and its outcome.

    API keys and client secrets in its headers, path and query are masked. `str()` of a record is a
    line for a log, without headers, body and query.
    """

    number: int = 0
    """1 for the emulator's first request."""
    connection: int
    """The number of the connection, from 1. Requests on one connection show keep-alive at work."""
    received_at: float
    """Unix seconds, by the emulator's clock."""
    method: str
    path: str = field(converter=masked_text)
    """As sent: still percent-encoded, without the query."""
    query: str = field(converter=masked_text)
    """As sent, without the question mark. Empty if the request had no query."""
    headers: Mapping[str, str] = field(repr=False)
    """Case-insensitive; of an API key only the last four characters are left."""
    request_id: str
    """The reply's `x-request-id`."""
    operation: Operation | None
    """The operation of the path; None for an unknown path."""
    session_id: str | None = field(default=None, converter=optional(masked_text))
    """The session that was created, or asked to be cancelled."""
    thread_id: str | None = field(default=None, converter=optional(masked_text))
    """The thread that was retrieved or deleted, or whose items were listed."""
    user: str | None = None
    """The user of the session or thread, or the one whose threads were listed; None if unknown."""
    content: bytes = field(default=b"", repr=False)
    """The first 64 KiB of the body, decompressed; empty if the body was refused."""
    body_size: int = 0
    """Bytes of the whole body, decompressed."""
    unknown_fields: tuple[str, ...] = ()
    """Paths of the first 100 fields that the schema does not have, such as `workflow.colour`."""
    fault: Fault | None = None
    """The fault that the request met."""
    status: int | None = None
    """The status of the reply. None before the reply."""
    outcome: RecordOutcome = "pending"
    """The outcome of the reply.

    `sent`: it was sent whole. `cut` and `dropped`: by a fault. `client_gone`: the client closed the
    connection before it had the reply. `pending`: the request is still in progress.
    """

    @property
    def body(self) -> JSON | bytes:
        """The JSON value of the body. Bytes: it is not JSON, empty, or larger than 64 KiB.

        It is decoded each time, because the value takes thirty times the memory of its bytes.
        """
        return parse_json(self.content) if self.body_size == len(self.content) else self.content

    def __str__(self) -> str:
        """Return a line for a log."""
        status = "-" if self.status is None else self.status
        outcome = "" if self.outcome == "sent" else f" ({self.outcome.replace('_', ' ')})"
        return f"{self.method} {self.path} {status}{outcome} {self.request_id}"


def record_of(request: Request, reply: Reply, user: str | None, fault: Fault | None) -> Record:
    """Return the excerpt that a ledger keeps of what was received and what is answered."""
    return Record(
        connection=request.connection,
        received_at=request.received_at,
        method=request.method,
        path=request.path,
        query=request.query,
        headers=masked_headers(request.headers),
        request_id=request.id,
        operation=request.operation,
        session_id=reply.session_id or request.session_id,
        thread_id=request.thread_id,
        user=user and user[:MAX_KEPT_BODY],
        content=request.content[:MAX_KEPT_BODY],
        body_size=len(request.content),
        unknown_fields=tuple(
            path[:MAX_KEPT_PATH] for path in reply.unknown_fields[:MAX_KEPT_PATHS]
        ),
        fault=fault,
    )


class Ledger(Sequence[Record]):
    """The latest requests, oldest first, in the order they arrived. Safe between threads."""

    def __init__(self, size: int) -> None:
        self._records: deque[Record] = deque(maxlen=size)
        self._lock = threading.Lock()
        self._total = 0

    def __repr__(self) -> str:
        """Show the number of requests."""
        return f"<{len(self)} requests of {self.total}>"

    @property
    def total(self) -> int:
        """The number of requests so far, including those that are no longer kept."""
        return self._total

    def __len__(self) -> int:
        """Return the number of requests that are kept."""
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, index: int | slice) -> Record | tuple[Record, ...]:
        """Return a request, or several."""
        return self._snapshot()[index]

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the present requests."""
        return iter(self._snapshot())

    def clear(self) -> None:
        """Forget the requests so far, but keep their `total`."""
        with self._lock:
            self._records.clear()

    def reset(self) -> None:
        """Start again: the next request is the first."""
        with self._lock:
            self._records.clear()
            self._total = 0

    def append(self, record: Record) -> None:
        """Number a request, and keep it."""
        with self._lock:
            self._total += 1
            record.number = self._total
            self._records.append(record)

    def _snapshot(self) -> tuple[Record, ...]:
        with self._lock:
            return tuple(self._records)
