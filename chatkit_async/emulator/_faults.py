"""Faults: what shall go wrong, and for which requests: scripted, by chance, or as they ask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from random import Random
from typing import Literal, TypeAlias

from attrs import field, frozen
from attrs.validators import ge, in_, instance_of, le, optional

from chatkit_async.emulator._replies import Operation, Reply, error_body, off_schema, to_json

__all__ = ["Body", "Drop", "Fault"]

Body: TypeAlias = bytes | str | Mapping[str, object] | list[object]
Drop: TypeAlias = Literal["close", "reset"]

_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


@frozen(kw_only=True)
class Fault:
    """What goes wrong with a request; `Emulator.fail` says what each field means."""

    operation: Operation | None = field(default=None, validator=in_((None, "create", "cancel")))
    status: int | None = field(
        default=None, validator=optional([instance_of(int), ge(200), le(599)])
    )
    code: str | None = None
    headers: Mapping[str, str] = field(factory=dict[str, str])
    body: Body | None = field(default=None, repr=False)
    content_type: str | None = None
    delay: float = field(default=0.0, validator=ge(0))
    drip: float = field(default=0.0, validator=ge(0))
    drop: Drop | None = field(default=None, validator=in_((None, "close", "reset")))
    cut: bool = False
    off_schema: bool = False
    after: bool = False
    chance: float = field(default=1.0, validator=[ge(0), le(1)])

    def __attrs_post_init__(self) -> None:
        """Refuse a fault that would do nothing, or not all that it says."""
        changes_reply = (
            self.status is not None
            or self.body is not None
            or self.content_type is not None
            or bool(self.headers or self.drip or self.cut or self.off_schema)
        )
        if self.drop is not None and changes_reply:
            message = "a dropped connection has no reply: drop goes with delay and after only"
            raise ValueError(message)
        if self.code is not None and (self._error_status is None or self.body is not None):
            message = "code is an error's: it goes with a status of 300 or more and no body"
            raise ValueError(message)
        if self.off_schema and (self._error_status is not None or self.body is not None):
            message = "off_schema is how a session is told: it goes with no error and no body"
            raise ValueError(message)
        if not (changes_reply or self.drop is not None or self.delay):
            message = "a fault must do something: give a status, a delay, drop, cut, ..."
            raise ValueError(message)

    @property
    def spares_service(self) -> bool:
        """Whether the request never gets as far as the service."""
        return not self.after and (
            self.drop is not None or self.body is not None or self._error_status is not None
        )

    def bend(self, reply: Reply, operation: Operation | None) -> Reply:
        """Return what the client gets instead of the service's reply."""
        body = reply.body
        if self.body is not None:
            body = _encode(self.body)
        elif self._error_status is not None:
            code = self.code or _CODES.get(self._error_status)
            message = f"The emulator was told to answer {self._error_status}."
            body = error_body(self._error_status, message, param=None, code=code)
        elif self.off_schema and reply.session is not None and operation is not None:
            body = off_schema(operation, reply.session)
        headers = {**reply.headers, **self.headers}
        if self.content_type is not None:
            headers["Content-Type"] = self.content_type
        return Reply(
            status=self.status or (200 if self.body is not None else reply.status),
            body=body,
            headers=headers,
        )

    @property
    def _error_status(self) -> int | None:
        """The status, unless it is a success; a redirect has no effect either."""
        return self.status if self.status is not None and self.status >= 300 else None  # noqa: PLR2004


class FaultScript:
    """The faults still to come, taken in the order they were added. Safe between threads."""

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(f"faults {seed}")  # noqa: S311 - repeatable on purpose
        self._lines: list[_Line] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault, times: int | None) -> None:
        """Let a fault meet the next requests it fits: so many, or all if `times` is None."""
        if times is not None and times < 1:
            message = f"times={times!r}: expected 1 or more, or None for ever"
            raise ValueError(message)
        with self._lock:
            self._lines.append(_Line(fault, times))

    def take(self, operation: Operation | None, asked: str | None = None) -> Fault | None:
        """Return the fault for a request that has come in, if there is one.

        A request that asks for a fault meets that one, and none of the script's.

        Raises:
            ValueError: What it asks for is no fault.
        """
        if asked is not None:
            fault = parse_fault(asked)
            return fault if self._meets(fault, operation) else None
        if not self._lines:  # the usual case, without the lock
            return None
        with self._lock:
            for line in self._lines:
                if self._meets(line.fault, operation):
                    if line.times is not None:
                        line.times -= 1
                        if not line.times:
                            self._lines.remove(line)
                    return line.fault
        return None

    def _meets(self, fault: Fault, operation: Operation | None) -> bool:
        if fault.operation not in (None, operation):
            return False
        # Nothing is drawn for what is certain: to script it leaves the luck of the rest as it is.
        return fault.chance == 1 or self._random.random() < fault.chance

    def clear(self) -> None:
        """Forget every fault that is still to come."""
        with self._lock:
            self._lines.clear()


class _Line:
    def __init__(self, fault: Fault, times: int | None) -> None:
        self.fault = fault
        self.times = times


def _encode(body: Body) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else to_json(body)


# Faults as text --------------------------------------------------------------------------------


def parse_fault(text: str) -> Fault:
    """Read a fault such as `status=503; retry-after=1` or `drop=close; after`.

    Raises:
        ValueError: It is none; the message says why.
    """
    given: dict[str, object] = {}
    headers: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, equals, value = (each.strip() for each in part.partition("="))
        if name in _HEADERS and equals:
            headers[name] = value
        elif name in _VALUES and equals:
            given[name.replace("-", "_")] = _value(name, value)
        elif name in _FLAGS and not equals:
            given[name.replace("-", "_")] = True
        else:
            known = ", ".join([*(f"{name}=..." for name in [*_VALUES, *_HEADERS]), *_FLAGS])
            message = f"{part!r} is no part of a fault; there are: {known}"
            raise ValueError(message)
    return Fault(**given, headers=headers)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - Fault checks them


def _value(name: str, text: str) -> object:
    try:
        return _VALUES[name](text)
    except ValueError:
        message = f"{name}={text!r} is no number"
        raise ValueError(message) from None


_VALUES: Mapping[str, Callable[[str], object]] = {
    "operation": str,
    "status": int,
    "code": str,
    "body": str,
    "content-type": str,
    "delay": float,
    "drip": float,
    "drop": str,
    "chance": float,
}
_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")
_FLAGS = ("cut", "off-schema", "after")
