"""The emulator's ledger: what was requested, and what became of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias, overload

from attrs import define, field, setters
from attrs.converters import optional

from chatkit_async.emulator._credentials import masked_text
from chatkit_async.emulator._faults import Fault
from chatkit_async.emulator._fields import JSON, parse_json
from chatkit_async.emulator._replies import Operation

__all__ = ["Ledger", "Record", "RecordOutcome"]

MAX_KEPT_BODY = 64 * 1024
"""Bytes of a body, and characters of a user, that are kept."""

MAX_KEPT_PATHS = 100
"""Paths of unknown fields that are kept."""

MAX_KEPT_PATH = 1000
"""Characters of such a path that are kept."""

RecordOutcome: TypeAlias = Literal["pending", "sent", "cut", "dropped", "client_gone"]


@define(kw_only=True, eq=False, on_setattr=setters.NO_OP)  # else every setting costs
class Record:
    """One request, and what became of it.

    Of API keys and client secrets, in its headers, path and query, it keeps no more than what tells
    them apart. `str()` of a record is a line for a log: no header, no body, no query.
    """

    number: int = 0
    """1 for the emulator's first request."""
    connection: int
    """Which connection it came on; 1 is the first. Equal numbers mean keep-alive at work."""
    received_at: float
    """Unix seconds, by the emulator's clock."""
    method: str
    path: str = field(converter=masked_text)
    """As it came over the wire: still percent-encoded, without the query."""
    query: str
    """As it came over the wire; empty if there is none."""
    headers: Mapping[str, str] = field(repr=False)
    """Case-insensitive; of an API key no more than its last four characters are left."""
    request_id: str
    """The reply's `x-request-id`."""
    operation: Operation | None
    """What the path stands for; None if nothing."""
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
    """Paths of the body's first 100 fields that the schema does not know, such as
    `workflow.colour`."""
    fault: Fault | None = None
    """The fault this request met."""
    status: int | None = None
    """The status answered; None as long as there is none."""
    outcome: RecordOutcome = "pending"
    """What became of the reply.

    `sent`: all of it. `cut` and `dropped`: a fault saw to it. `client_gone`: the client closed the
    connection before it had the reply. `pending`: the request is still being answered.
    """
    _value: JSON | bytes | None = field(default=None, init=False, repr=False)

    @property
    def body(self) -> JSON | bytes:
        """The JSON value; bytes if it is none, or nothing, or larger than 64 KiB.

        It is decoded anew each time: as a value it takes thirty times the memory.
        """
        if self._value is not None:
            return self._value
        return parse_json(self.content) if self.body_size == len(self.content) else self.content

    def receive(self, body: bytes) -> None:
        """Take the body in, all of it until `shrink`."""
        self.content = body
        self.body_size = len(body)
        self._value = parse_json(body)

    def shrink(self) -> None:
        """Keep of the request what a ledger of many can hold."""
        self._value = None
        self.query = masked_text(self.query)
        self.content = self.content[:MAX_KEPT_BODY]
        self.user = self.user and self.user[:MAX_KEPT_BODY]
        self.unknown_fields = tuple(
            path[:MAX_KEPT_PATH] for path in self.unknown_fields[:MAX_KEPT_PATHS]
        )

    def __str__(self) -> str:
        """Return a line for a log."""
        status = "-" if self.status is None else self.status
        outcome = "" if self.outcome == "sent" else f" ({self.outcome.replace('_', ' ')})"
        return f"{self.method} {self.path} {status}{outcome} {self.request_id}"


class Ledger(Sequence[Record]):
    """The latest requests, oldest first, in the order they arrived. Safe between threads."""

    def __init__(self, size: int) -> None:
        self._records: deque[Record] = deque(maxlen=size)
        self._lock = threading.Lock()
        self._total = 0

    def __repr__(self) -> str:
        """Show how many there are."""
        return f"<{len(self)} requests of {self.total}>"

    @property
    def total(self) -> int:
        """How many requests there have been, also those forgotten since."""
        return self._total

    def __len__(self) -> int:
        """Return how many requests are kept."""
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, index: int | slice) -> Record | tuple[Record, ...]:
        """Return a request, or several."""
        return self._snapshot()[index]

    def __iter__(self) -> Iterator[Record]:
        """Go through the requests there are now."""
        return iter(self._snapshot())

    def clear(self) -> None:
        """Forget the requests so far; `total` goes on counting."""
        with self._lock:
            self._records.clear()

    def reset(self) -> None:
        """Be as new: the next request is the first."""
        with self._lock:
            self._records.clear()
            self._total = 0

    def append(self, record: Record) -> None:
        """Take a request in, and number it."""
        with self._lock:
            self._total += 1
            record.number = self._total
            self._records.append(record)

    def _snapshot(self) -> tuple[Record, ...]:
        with self._lock:
            return tuple(self._records)
