"""Readers of what users write: faults, limits, latencies and times in JSON, faults as text.

Each raises an ApiError with status 400 for a wrong value.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import attrs

from chatkit_async.emulator._credentials import masked_text
from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._faults import Fault
from chatkit_async.emulator._fields import Fields
from chatkit_async.emulator._latency import Exponential, Latency, LogNormal, Uniform
from chatkit_async.emulator._limits import FixedWindow, RateLimit, TokenBucket
from chatkit_async.emulator._threads import DELETED_CURSORS, DeletedCursor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chatkit_async.emulator._clock import Clock
    from chatkit_async.emulator._json import JSON

_Built = TypeVar("_Built", bound=attrs.AttrsInstance)
_Choice = TypeVar("_Choice")

FOR_EVER = "inf"
"""Infinite seconds, which JSON has no number for."""


def read_fault(fields: Fields) -> Fault:
    """Read a fault. As in Python, it is for one request unless it has `times`."""
    fault = _build(Fault, fields)
    return fault if "times" in fields else attrs.evolve(fault, times=1)


def parse_fault(text: str) -> Fault:
    """Read a fault such as `status=503; retry-after=1` or `drop=close; after`."""
    headers: dict[str, JSON] = {}
    fields: dict[str, JSON] = {"headers": headers}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, equals, value = (each.strip() for each in part.partition("="))
        reader = _PARTS.get(name)
        if name in _HEADERS and equals:
            headers[name] = value
        elif reader is None or (reader is Fields.flag) == bool(equals):
            parts = (
                f"{each}=..." if _PARTS.get(each) is not Fields.flag else each
                for each in [*_PARTS, *_HEADERS]
            )
            raise ApiError(
                400, f"{masked_text(part)!r} is not a part of a fault. Parts: {', '.join(parts)}."
            )
        else:
            fields[name.replace("-", "_")] = _value(reader, value)
    return _build(Fault, Fields(fields))


def read_rate_limit(fields: Fields, name: str) -> RateLimit | None:
    """Read a rate limit, or null."""
    if fields.is_null(name):
        return None
    limit = fields.required_section(name)
    return _build(_choose(limit, "kind", LIMITS), limit)


def read_latency(fields: Fields, name: str) -> Latency:
    """Read seconds, or the name of a distribution and its numbers."""
    if not isinstance(fields.take(name), dict):
        seconds = _seconds(fields, name)
        if seconds < 0:
            fields.refuse(name, "expected 0 or more", "invalid_value")
        return seconds
    latency = fields.required_section(name)
    return _build(_choose(latency, "distribution", DISTRIBUTIONS), latency)


def read_deleted_cursor(fields: Fields, name: str) -> DeletedCursor:
    """Read how a list treats a deleted cursor."""
    return _choose(fields, name, {each: each for each in DELETED_CURSORS})


def move_clock(fields: Fields, clock: Clock) -> None:
    """Set a clock to `now`, `advance` it, and let it be `frozen` or run."""
    frozen = fields.get("frozen", Fields.flag, clock.frozen)
    now = fields.number("now") if "now" in fields else None
    by = fields.number("advance") if "advance" in fields else 0.0
    if by < 0:
        fields.refuse("advance", "expected 0 or more; 'now' goes backwards", "invalid_value")
    # float(), because the sum of two ints is never infinite.
    if math.isinf(float(clock.now() if now is None else now) + by):
        fields.refuse("advance", "expected a time that is a finite number", "invalid_value")
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
        field.name: _READERS[field.type](fields, field.name)
        for field in attrs.fields(kind)
        if field.name in fields or field.default is attrs.NOTHING
    }
    fields.refuse_unread()
    try:
        return kind(**given)
    except ValueError as error:
        # An error of attrs has more arguments than its sentence.
        raise ApiError(400, f"{error.args[0]}.", code="invalid_value") from None


def _seconds(fields: Fields, name: str) -> float:
    return math.inf if fields.take(name) == FOR_EVER else fields.number(name)


def _count_or_null(fields: Fields, name: str) -> int | None:
    return None if fields.is_null(name) else fields.count(name)


def _retry_after(fields: Fields, name: str) -> object:
    if fields.take(name) in (None, "exact"):
        return fields.take(name)
    return fields.number(name)


def _value(reader: object, text: str) -> JSON:
    if reader is Fields.flag:
        return True
    if reader in (Fields.text, _body):
        return text
    for kind in (int, float):
        with suppress(ValueError):
            number = kind(text)
            return FOR_EVER if number == math.inf else number
    return text


def _body(fields: Fields, name: str) -> object:
    body = fields.take(name)
    if not isinstance(body, str | dict | list):
        fields.refuse_type(name, "a string, an object or an array", body)
    return body


LIMITS: Mapping[str, type[TokenBucket | FixedWindow]] = {
    "token_bucket": TokenBucket,
    "fixed_window": FixedWindow,
}
DISTRIBUTIONS: Mapping[str, type[Uniform | Exponential | LogNormal]] = {
    "uniform": Uniform,
    "exponential": Exponential,
    "lognormal": LogNormal,
}
# By the type of the field that is read.
_READERS: Mapping[object, Callable[[Fields, str], object]] = {
    "bool": Fields.flag,
    "int": Fields.count,
    "int | None": _count_or_null,
    "float": _seconds,
    "str | None": Fields.text,
    "Operation | None": Fields.text,
    "Drop | None": Fields.text,
    "PageFault | None": Fields.text,
    "Body | None": _body,
    "Mapping[str, str]": Fields.texts,
    "Mapping[str, JSON]": Fields.mapping,
    "RetryAfter": _retry_after,
}
# A fault as text: its flags, numbers and texts, and headers of the reply.
_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")
_PARTS = {
    field.name.replace("_", "-"): _READERS[field.type]
    for field in attrs.fields(Fault)
    if not str(field.type).startswith("Mapping")
}
