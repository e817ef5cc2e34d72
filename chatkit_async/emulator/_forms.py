"""JSON forms of what an emulator holds, for its controls."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs
from multidict import CIMultiDict, CIMultiDictProxy

from chatkit_async.emulator._credentials import masked_headers, masked_json
from chatkit_async.emulator._faults import Fault
from chatkit_async.emulator._latency import Exponential, LogNormal, Uniform
from chatkit_async.emulator._readers import DISTRIBUTIONS, FOR_EVER, LIMITS
from chatkit_async.emulator._replies import thread_resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chatkit_async.emulator._clock import Clock
    from chatkit_async.emulator._json import JSON
    from chatkit_async.emulator._latency import Latency
    from chatkit_async.emulator._ledger import Record
    from chatkit_async.emulator._limits import RateLimit
    from chatkit_async.emulator._script import ScriptedFault
    from chatkit_async.emulator._sessions import Session
    from chatkit_async.emulator._threads import Thread


def clock_form(clock: Clock) -> dict[str, JSON]:
    """Return the time."""
    return {"now": clock.now(), "frozen": clock.frozen}


def thread_form(thread: Thread) -> dict[str, JSON]:
    """Return a thread, and the number of its items."""
    return {**thread_resource(thread), "items": len(thread.rows)}


def session_form(session: Session) -> dict[str, JSON]:
    """Return a session, with credentials masked."""
    form = _fields(session) | {
        "status": session.status,
        "parameters": attrs.asdict(session.parameters),
    }
    return {name: masked_json(value) for name, value in form.items() if name != "_clock"}


def record_form(record: Record) -> dict[str, JSON]:
    """Return a request, with credentials masked."""
    body = record.body
    form = _fields(record) | {
        "headers": masked_json(dict(record.headers)),
        "body": None if isinstance(body, bytes) else masked_json(body),
        "fault": None if record.fault is None else fault_form(record.fault),
    }
    return {name: value for name, value in form.items() if name != "content"}


def scripted_fault_form(line: ScriptedFault) -> dict[str, JSON]:
    """Return a scripted fault, its number and the number of requests that have met it."""
    return {"number": line.number, "met": line.met, **fault_form(line.fault)}


def fault_form(fault: Fault) -> dict[str, JSON]:
    """Return `times` and the other fields of a fault that differ from their defaults."""
    form: dict[str, JSON] = {}
    for name, value in _fields(fault).items():
        match value:
            case _ if value == _UNSAID[name] and name != "times":
                continue
            case bytes():
                form[name] = value.decode(errors="replace")
            case float() if math.isinf(value):
                form[name] = FOR_EVER
            case _ if name in {"headers", "with_headers"}:
                form[name] = dict(masked_headers(CIMultiDictProxy(CIMultiDict(value))))
            case _:
                form[name] = value
    return form


def rate_limit_form(limit: RateLimit | None) -> JSON:
    """Return a rate limit, or null."""
    return None if limit is None else {"kind": _name(limit, LIMITS), **attrs.asdict(limit)}


def latency_form(latency: Latency) -> JSON:
    """Return seconds, or a distribution."""
    if isinstance(latency, Uniform | Exponential | LogNormal):
        return {"distribution": _name(latency, DISTRIBUTIONS), **attrs.asdict(latency)}
    if callable(latency):
        return {"distribution": "custom"}
    return FOR_EVER if math.isinf(latency) else latency


def _fields(held: attrs.AttrsInstance) -> dict[str, Any]:
    return attrs.asdict(held, recurse=False)


_UNSAID = _fields(Fault(status=200)) | {"status": None}


def _name(value: object, kinds: Mapping[str, type]) -> str:
    return next(name for name, kind in kinds.items() if type(value) is kind)
