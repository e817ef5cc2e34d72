"""What the emulator holds, as JSON for its control interface, and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import attrs
from multidict import CIMultiDict, CIMultiDictProxy

from chatkit_async.emulator._credentials import masked_headers, masked_json
from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._faults import Fault, ScriptedFault
from chatkit_async.emulator._fields import JSON, Fields
from chatkit_async.emulator._latency import Exponential, Latency, LogNormal, Uniform
from chatkit_async.emulator._limits import FixedWindow, RateLimit, TokenBucket
from chatkit_async.emulator._replies import thread_resource
from chatkit_async.emulator._threads import DELETED_CURSORS, DeletedCursor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chatkit_async.emulator._clock import Clock
    from chatkit_async.emulator._ledger import Record
    from chatkit_async.emulator._state import Session
    from chatkit_async.emulator._threads import Thread

_Built = TypeVar("_Built", bound=attrs.AttrsInstance)
_Choice = TypeVar("_Choice")

_FOR_EVER = "inf"  # JSON has no infinity
_UNSAID = attrs.asdict(Fault(status=200), recurse=False) | {"status": None}

# What is shown ----------------------------------------------------------------------------------


def clock_form(clock: Clock) -> dict[str, JSON]:
    """Return what time it is."""
    return {"now": clock.now(), "frozen": clock.frozen}


def thread_form(thread: Thread) -> dict[str, JSON]:
    """Return a thread and how many items it has."""
    return {**thread_resource(thread), "items": len(thread.rows)}


def session_form(session: Session) -> dict[str, JSON]:
    """Return a session, with every credential in it masked."""
    form: dict[str, JSON] = {
        "id": session.id,
        "client_secret": session.client_secret,
        "status": session.status,
        "created_at": session.created_at,
        "expires_at": session.expires_at,
        "cancelled_at": session.cancelled_at,
        "organization": session.organization,
        "project": session.project,
        "parameters": attrs.asdict(session.parameters),
    }
    return {name: masked_json(value) for name, value in form.items()}


def record_form(record: Record) -> dict[str, JSON]:
    """Return a request, with every credential in it masked."""
    body = record.body
    try:
        body = None if isinstance(body, bytes) else masked_json(body)
    except RecursionError:
        body = "nested too deeply to be shown"
    return {
        "number": record.number,
        "connection": record.connection,
        "received_at": record.received_at,
        "method": record.method,
        "path": record.path,
        "query": record.query,
        "headers": masked_json(dict(record.headers)),
        "request_id": record.request_id,
        "operation": record.operation,
        "session_id": record.session_id,
        "thread_id": record.thread_id,
        "user": record.user,
        "body": body,
        "body_size": record.body_size,
        "unknown_fields": list(record.unknown_fields),
        "fault": None if record.fault is None else fault_form(record.fault),
        "status": record.status,
        "outcome": record.outcome,
    }


def scripted_fault_form(line: ScriptedFault) -> dict[str, JSON]:
    """Return a fault that is still to come, its number and how many requests have met it."""
    return {"number": line.number, "met": line.met, **fault_form(line.fault)}


def fault_form(fault: Fault) -> dict[str, JSON]:
    """Return what a fault says; but for `times`, what it leaves to the defaults is left out."""
    form: dict[str, JSON] = {}
    for name, value in attrs.asdict(fault, recurse=False).items():
        match value:
            case _ if value == _UNSAID[name] and name != "times":
                continue
            case bytes():
                form[name] = value.decode(errors="replace")
            case float() if math.isinf(value):
                form[name] = _FOR_EVER
            case _ if name in {"headers", "with_headers"}:
                form[name] = dict(masked_headers(CIMultiDictProxy(CIMultiDict(value))))
            case _:
                form[name] = value
    return form


def rate_limit_form(limit: RateLimit | None) -> JSON:
    """Return a rate limit, or null."""
    return None if limit is None else {"kind": _name(limit, _LIMITS), **attrs.asdict(limit)}


def latency_form(latency: Latency) -> JSON:
    """Return seconds, or what draws them."""
    if isinstance(latency, Uniform | Exponential | LogNormal):
        return {"distribution": _name(latency, _DISTRIBUTIONS), **attrs.asdict(latency)}
    if callable(latency):
        return {"distribution": "custom"}
    return _FOR_EVER if math.isinf(latency) else latency


def _name(value: object, kinds: Mapping[str, type]) -> str:
    return next(name for name, kind in kinds.items() if type(value) is kind)


# What is read -----------------------------------------------------------------------------------


def read_fault(fields: Fields) -> Fault:
    """Read a fault; as in Python, one that does not say `times` is for one request.

    Raises:
        ApiError: 400, for what is none.
    """
    fault = _build(Fault, fields)
    return fault if "times" in fields else attrs.evolve(fault, times=1)


def read_rate_limit(fields: Fields, name: str) -> RateLimit | None:
    """Read a rate limit, or null.

    Raises:
        ApiError: 400, for what is none.
    """
    if fields.is_null(name):
        return None
    limit = fields.required_section(name)
    return _build(_choose(limit, "kind", _LIMITS), limit)


def read_latency(fields: Fields, name: str) -> Latency:
    """Read seconds, or the name of a distribution and its numbers.

    Raises:
        ApiError: 400, for what is neither.
    """
    if not isinstance(fields.take(name), dict):
        seconds = _seconds(fields, name)
        if seconds < 0:
            fields.refuse(name, "expected 0 or more", "invalid_value")
        return seconds
    latency = fields.required_section(name)
    return _build(_choose(latency, "distribution", _DISTRIBUTIONS), latency)


def read_deleted_cursor(fields: Fields, name: str) -> DeletedCursor:
    """Read what happens to a cursor that was deleted.

    Raises:
        ApiError: 400, for what is none.
    """
    return _choose(fields, name, {each: each for each in DELETED_CURSORS})


def move_clock(fields: Fields, clock: Clock) -> None:
    """Set a clock to `now`, `advance` it, and let it be `frozen` or run.

    Raises:
        ApiError: 400, for what cannot be. The clock is left as it is.
    """
    frozen = fields.flag("frozen", default=clock.frozen)
    now = fields.number("now") if "now" in fields else None
    by = fields.number("advance") if "advance" in fields else 0.0
    if by < 0:
        fields.refuse("advance", "expected 0 or more; 'now' goes backwards", "invalid_value")
    # float(): ints would not be infinite
    if math.isinf(float(clock.now() if now is None else now) + by):
        fields.refuse("advance", "expected a time that numbers can tell", "invalid_value")
    fields.refuse_unread()
    if frozen:
        clock.freeze()
    else:
        clock.resume()
    if now is not None:
        clock.set(now)
    clock.advance(by)


def _choose(fields: Fields, name: str, choices: Mapping[str, _Choice]) -> _Choice:
    chosen = fields.text(name)
    if chosen not in choices:
        fields.refuse(name, f"expected {' or '.join(map(repr, choices))}", "invalid_value")
    return choices[chosen]


def _build(kind: type[_Built], fields: Fields) -> _Built:
    given = {
        field.name: _READERS[field.name](fields, field.name)
        for field in attrs.fields(kind)
        if field.name in fields or field.default is attrs.NOTHING
    }
    fields.refuse_unread()
    try:
        return kind(**given)
    except ValueError as error:
        # Behind its sentence, attrs adds what it checked.
        raise ApiError(400, f"{error.args[0]}.", code="invalid_value") from None


def _seconds(fields: Fields, name: str) -> float:
    return math.inf if fields.take(name) == _FOR_EVER else fields.number(name)


def _times(fields: Fields, name: str) -> int | None:
    return None if fields.is_null(name) else fields.count(name)


def _retry_after(fields: Fields, name: str) -> object:
    if fields.take(name) in (None, "exact"):
        return fields.take(name)
    return fields.number(name)


def _body(fields: Fields, name: str) -> object:
    body = fields.take(name)
    if not isinstance(body, str | dict | list):
        fields.refuse_type(name, "a string, an object or an array", body)
    return body


_LIMITS: Mapping[str, type[TokenBucket | FixedWindow]] = {
    "token_bucket": TokenBucket,
    "fixed_window": FixedWindow,
}
_DISTRIBUTIONS: Mapping[str, type[Uniform | Exponential | LogNormal]] = {
    "uniform": Uniform,
    "exponential": Exponential,
    "lognormal": LogNormal,
}
_READERS: Mapping[str, Callable[[Fields, str], object]] = {
    # of faults
    "operation": Fields.text,
    "path": Fields.text,
    "user": Fields.text,
    "with_body": Fields.mapping,
    "with_headers": Fields.texts,
    "times": _times,
    "every": Fields.count,
    "status": Fields.count,
    "code": Fields.text,
    "headers": Fields.texts,
    "body": _body,
    "content_type": Fields.text,
    "delay": _seconds,
    "drip": _seconds,
    "drop": Fields.text,
    "cut": Fields.flag,
    "off_schema": Fields.flag,
    "page": Fields.text,
    "after": Fields.flag,
    "chance": Fields.number,
    # of rate limits
    "rate": Fields.number,
    "burst": Fields.count,
    "limit": Fields.count,
    "window": Fields.number,
    "retry_after": _retry_after,
    "per_key": Fields.flag,
    # of latencies
    "low": Fields.number,
    "high": Fields.number,
    "mean": Fields.number,
    "median": Fields.number,
    "sigma": Fields.number,
}
