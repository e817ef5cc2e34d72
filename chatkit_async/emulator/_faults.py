"""Faults: what shall go wrong, and for which requests: scripted, by chance, or as they ask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from random import Random
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from attrs import define, field, frozen
from attrs.validators import ge, in_, instance_of, le, optional

from chatkit_async.emulator._fields import JSON, parse_json, to_json
from chatkit_async.emulator._replies import (
    OPERATIONS,
    PAGE_FAULTS,
    SERVER_ERROR_MESSAGE,
    UNAUTHORIZED_HEADERS,
    Operation,
    PageFault,
    Reply,
    error_body,
)

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from chatkit_async.emulator._ledger import Record

__all__ = ["Body", "Drop", "Fault"]

Body: TypeAlias = bytes | str | Mapping[str, object] | list[object]
Drop: TypeAlias = Literal["close", "reset"]

_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
_BODILESS = (204, 304)
_FRAMING = ("content-length", "transfer-encoding")


def _names(headers: Mapping[str, str]) -> str:
    return repr(list(headers))  # their values may be keys


def _check_times(_fault: object, _attribute: object, times: int | None) -> None:
    if times is not None and times < 1:
        message = f"times={times!r}: expected 1 or more, or None for ever"
        raise ValueError(message)


def _check_body(_fault: object, _attribute: object, body: Body | None) -> None:
    try:
        _encode(body or "")
    except (TypeError, ValueError, RecursionError) as error:
        message = f"body cannot be sent: {error}"
        raise ValueError(message) from None


@frozen(kw_only=True)
class Fault:
    """What goes wrong with a request; `Emulator.fail` says what each field means."""

    operation: Operation | None = field(default=None, validator=in_((None, *OPERATIONS)))
    path: str | None = None
    user: str | None = None
    with_body: Mapping[str, JSON] = field(factory=dict[str, JSON])
    with_headers: Mapping[str, str] = field(factory=dict[str, str], repr=_names)
    times: int | None = field(default=None, validator=_check_times)
    every: int = field(default=1, validator=[instance_of(int), ge(1)])
    status: int | None = field(
        default=None, validator=optional([instance_of(int), ge(200), le(599)])
    )
    code: str | None = None
    headers: Mapping[str, str] = field(factory=dict[str, str])
    body: Body | None = field(default=None, repr=False, validator=_check_body)
    content_type: str | None = None
    delay: float = field(default=0.0, validator=ge(0))
    drip: float = field(default=0.0, validator=ge(0))
    drop: Drop | None = field(default=None, validator=in_((None, "close", "reset")))
    cut: bool = False
    off_schema: bool = False
    page: PageFault | None = field(default=None, validator=in_((None, *PAGE_FAULTS)))
    after: bool = False
    chance: float = field(default=1.0, validator=[ge(0), le(1)])

    def __attrs_post_init__(self) -> None:
        """Refuse a fault that would do nothing, or not all that it says."""
        changes_reply = (
            self.status is not None
            or self.body is not None
            or self.content_type is not None
            or bool(self.headers or self.drip or self.cut or self.off_schema or self.page)
        )
        if self.drop is not None and changes_reply:
            message = "a dropped connection has no reply: drop goes with delay and after only"
            raise ValueError(message)
        if self.code is not None and (self._error_status is None or self.body is not None):
            message = "code is an error's: it goes with a status of 300 or more and no body"
            raise ValueError(message)
        replaced = self._error_status is not None or self.body is not None
        if self.off_schema and replaced:
            message = "off_schema is how a session is told: it goes with no error and no body"
            raise ValueError(message)
        if self.page is not None and (replaced or self.off_schema):
            message = "page changes a page of a list: it goes with no error, body or off_schema"
            raise ValueError(message)
        if not (changes_reply or self.drop is not None or self.delay):
            message = "a fault must do something: give a status, a delay, drop, cut or another"
            raise ValueError(message)
        if self.status in _BODILESS and (self.body or self.code or self.cut or self.drip):
            message = f"a {self.status} has no body: it goes with no body, code, cut or drip"
            raise ValueError(message)
        headers = [*self.headers.items(), ("Content-Type", self.content_type or "")]
        for name, text in cast("list[tuple[object, object]]", headers):
            if not all(isinstance(part, str) and part.isprintable() for part in (name, text)):
                # Its value is not shown: it may be a key.
                message = f"header {name!r}: expected printable text"
                raise ValueError(message)
            if str(name).lower() in _FRAMING:
                message = f"header {name!r} follows from the body; to promise more, set cut"
                raise ValueError(message)

    @property
    def spares_service(self) -> bool:
        """Whether the request never gets as far as the service."""
        return not self.after and (
            self.drop is not None or self.body is not None or self._error_status is not None
        )

    def fits(self, record: Record, headers: CIMultiDictProxy[str]) -> bool:
        """Whether the fault is for such a request; its headers are as they came."""
        return (
            self.operation in (None, record.operation)
            and self.user in (None, record.user)
            and (self.path is None or fnmatchcase(record.path, self.path))
            and all(_equal(_at(record.body, path), v) for path, v in self.with_body.items())
            and all(value in headers.getall(name, ()) for name, value in self.with_headers.items())
        )

    def bend(self, reply: Reply) -> Reply:
        """Return what the client gets instead of the service's reply."""
        body = reply.body
        usual: Mapping[str, str] = {}
        if self.body is not None:
            body = _encode(self.body)
        elif self._error_status is not None:
            code = self.code or _CODES.get(self._error_status)
            told = f"The emulator was told to answer {self._error_status}."
            message = SERVER_ERROR_MESSAGE if self._error_status == 500 else told  # noqa: PLR2004
            body = error_body(self._error_status, message, param=None, code=code)
            if self._error_status == 401:  # noqa: PLR2004
                usual = UNAUTHORIZED_HEADERS
        elif reply.shaped is not None and (self.off_schema or self.page is not None):
            body = reply.shaped("off_schema" if self.off_schema else self.page)
        headers = {**reply.headers, **usual, **self.headers}
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


_ABSENT = object()


def _at(body: JSON | bytes, path: str) -> object:
    value: object = body
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def _equal(value: object, expected: JSON) -> bool:
    return type(value) is type(expected) and value == expected  # True is no 1


@define(eq=False)
class ScriptedFault:
    """A fault that waits for its requests."""

    number: int
    fault: Fault
    fitting: int = 0
    """How many requests it was for, of which it meets every n-th."""
    met: int = 0
    """How many requests have met it."""


class FaultScript:
    """The faults still to come, tried in the order they were added. Safe between threads."""

    def __init__(self, seed: int, faults: Iterable[Fault]) -> None:
        self._lock = threading.Lock()
        self.reset(seed, faults)

    def reset(self, seed: int, faults: Iterable[Fault]) -> None:
        """Be as new, with a seed and what is to come from the start."""
        with self._lock:
            self._random = Random(f"faults {seed}")  # noqa: S311 - repeatable on purpose
            self._lines = [ScriptedFault(*each) for each in enumerate(faults, 1)]
            self._added = len(self._lines)

    def lines(self) -> tuple[ScriptedFault, ...]:
        """Return what is still to come."""
        with self._lock:
            return tuple(self._lines)

    def add(self, fault: Fault) -> ScriptedFault:
        """Let a fault meet the next requests it fits: as many as it says."""
        with self._lock:
            self._added += 1
            line = ScriptedFault(self._added, fault)
            self._lines.append(line)
            return line

    def take(
        self, record: Record, headers: CIMultiDictProxy[str], asked: str | None
    ) -> Fault | None:
        """Return the fault for a request that has come in, if there is one.

        A request that asks for a fault meets that one, and none of the script's.

        Raises:
            ValueError: What it asks for is no fault.
        """
        if asked is not None:
            fault = parse_fault(asked)
            if fault.times is not None or fault.every != 1:
                message = "times and every count requests: they are for a script"
                raise ValueError(message)
            return fault if fault.fits(record, headers) and self._strikes(fault) else None
        if not self._lines:  # the usual case, without the lock
            return None
        taken: Fault | None = None
        with self._lock:
            for line in self._lines.copy():
                fault = line.fault
                if not fault.fits(record, headers):
                    continue
                line.fitting += 1  # also where another comes first
                if taken is None and line.fitting % fault.every == 0 and self._strikes(fault):
                    taken = fault
                    line.met += 1
                    if line.met == fault.times:
                        self._lines.remove(line)
        return taken

    def _strikes(self, fault: Fault) -> bool:
        # Nothing is drawn for what is certain: to script it leaves the luck of the rest as it is.
        return fault.chance == 1 or self._random.random() < fault.chance

    def clear(self, number: int | None = None) -> None:
        """Forget every fault that is still to come, or one."""
        with self._lock:
            self._lines = [line for line in self._lines if number not in (None, line.number)]


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
    with_body: dict[str, JSON] = {}
    with_headers: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, equals, value = (each.strip() for each in part.partition("="))
        if name in _HEADERS and equals:
            headers[name] = value
        elif name.startswith(_WITH_BODY) and equals:
            with_body[name.removeprefix(_WITH_BODY)] = _json_or_text(value)
        elif name.startswith(_WITH_HEADER) and equals:
            with_headers[name.removeprefix(_WITH_HEADER)] = value
        elif name in _VALUES and equals:
            given[name.replace("-", "_")] = _value(name, value)
        elif name in _FLAGS and not equals:
            given[name.replace("-", "_")] = True
        else:
            values = [*_VALUES, *_HEADERS, f"{_WITH_BODY}FIELD", f"{_WITH_HEADER}NAME"]
            known = ", ".join([*(f"{name}=..." for name in values), *_FLAGS])
            message = f"{part!r} is no part of a fault; there are: {known}"
            raise ValueError(message)
    return Fault(
        **given,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - Fault checks them
        headers=headers,
        with_body=with_body,
        with_headers=with_headers,
    )


def _json_or_text(text: str) -> JSON:
    value = parse_json(text.encode())
    return text if isinstance(value, bytes) else value


def _value(name: str, text: str) -> object:
    try:
        return _VALUES[name](text)
    except ValueError:
        message = f"{name}={text!r} is no number"
        raise ValueError(message) from None


_VALUES: Mapping[str, Callable[[str], object]] = {
    "operation": str,
    "path": str,
    "user": str,
    "times": int,
    "every": int,
    "status": int,
    "code": str,
    "body": str,
    "content-type": str,
    "delay": float,
    "drip": float,
    "drop": str,
    "page": str,
    "chance": float,
}
_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")
_WITH_BODY, _WITH_HEADER = "with-body.", "with-header."
_FLAGS = ("cut", "off-schema", "after")
