"""The control interface: the emulator's state, read and set in JSON under `/_emulator/`.

It has nothing that the `Emulator` has not, and says it with the same words. What is asked here is
in no ledger, meets no fault and no limit, and draws nothing from the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar
from urllib.parse import unquote

from aiohttp import web
from attrs import frozen

from chatkit_async.emulator._access import check_content_type
from chatkit_async.emulator._arrival import read_body
from chatkit_async.emulator._credentials import without_secret
from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._fields import JSON, Fields, parse_json, to_json
from chatkit_async.emulator._forms import (
    clock_form,
    latency_form,
    move_clock,
    rate_limit_form,
    read_deleted_cursor,
    read_fault,
    read_latency,
    read_rate_limit,
    record_form,
    scripted_fault_form,
    session_form,
    thread_form,
)
from chatkit_async.emulator._replies import error_body

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from chatkit_async.emulator._emulator import Emulator
    from chatkit_async.emulator._faults import FaultScript
    from chatkit_async.emulator._threads import ThreadStore

_Item = TypeVar("_Item")

PREFIX: Final = "/_emulator"

_SHOWN_AT_ONCE = 100
_DIGITS = 18  # of a number in a query: more than there are of anything
_HEADERS = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    # No page gets it, by whatever element: see _access.
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def refusal(error: ApiError) -> web.Response:
    """Return the reply that says no."""
    body = error_body(error.status, error.message, param=error.param, code=error.code)
    return web.Response(status=error.status, body=body, headers={**_HEADERS, **error.headers})


@frozen(kw_only=True)
class _Asked:
    """What a request to a resource says: the last part of its path, its query, its body."""

    name: str
    query: Mapping[str, str]
    fields: Fields


if TYPE_CHECKING:
    _Handler: TypeAlias = Callable[[_Asked], Mapping[str, JSON]]


class Control:
    """Answers what is asked under `/_emulator/`, by way of the emulator's Python interface."""

    def __init__(
        self, emulator: Emulator, faults: FaultScript, threads: ThreadStore, max_body: int
    ) -> None:
        self._emulator = emulator
        self._max_body = max_body
        self._script = faults
        self._store = threads
        self._resources: Mapping[str, Mapping[str, _Handler]] = {
            "state": {"GET": self._state},
            "sessions": {"GET": self._sessions},
            "sessions/*": {"GET": self._session},
            "threads": {"GET": self._threads, "POST": self._add_thread},
            "threads/*": {"GET": self._thread, "DELETE": self._delete_thread},
            "requests": {"GET": self._requests, "DELETE": self._clear_requests},
            "requests/*": {"GET": self._request},
            "clock": {"GET": self._clock, "PATCH": self._move_clock},
            "faults": {
                "GET": self._faults,
                "POST": self._add_fault,
                "DELETE": self._clear_faults,
            },
            "faults/*": {"GET": self._fault, "DELETE": self._clear_fault},
            "settings": {"GET": self._settings, "PATCH": self._set},
            "reset": {"POST": self._reset},
        }

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Do what is asked, in the loop that serves: between two requests to the API."""
        try:
            handler, name, known = self._find(request)
            query = dict(request.query)
            _refuse_unknown_query(query, known)
            fields = await _fields(request, self._max_body)
            content = handler(_Asked(name=name, query=query, fields=fields))
        except ApiError as error:
            return refusal(error)
        return web.Response(body=to_json(content), headers=_HEADERS)

    def _find(self, request: web.BaseRequest) -> tuple[_Handler, str, Collection[str]]:
        path = request.raw_path.partition("?")[0]
        resource, _, name = path.removeprefix(PREFIX).strip("/").partition("/")
        methods = self._resources.get(f"{resource}/*" if name else resource)
        if methods is None:
            there_are = ", ".join(f"{PREFIX}/{each}" for each in self._resources)
            raise ApiError(404, f"There is no {path}. There are: {there_are}.")
        if request.method not in methods:
            allowed = ", ".join(methods)
            message = f"Not allowed to {request.method} {path} (use {allowed})"
            raise ApiError(405, message, code="method_not_supported", headers={"Allow": allowed})
        known = _QUERIES.get(f"{request.method} {resource}", ()) if not name else ()
        return methods[request.method], unquote(name), known

    def _state(self, asked: _Asked) -> Mapping[str, JSON]:
        emulator = self._emulator
        return {
            "base_url": emulator.base_url,
            "clock": clock_form(emulator.clock),
            "sessions": {
                "total": len(emulator.sessions),
                **Counter(session.status for session in emulator.sessions.values()),
            },
            "threads": {"total": len(emulator.threads)},
            "requests": {"total": emulator.requests.total, "kept": len(emulator.requests)},
            "connections": emulator.connections,
            **self._settings(asked),
            **self._faults(asked),
        }

    def _sessions(self, asked: _Asked) -> Mapping[str, JSON]:
        query = asked.query
        fitting = [
            session
            for session in self._emulator.sessions.values()
            if query.get("user") in (None, session.user)
            and query.get("status") in (None, session.status)
        ]
        return {
            "total": len(fitting),
            "sessions": [session_form(session) for session in _latest(fitting, query)],
        }

    def _session(self, asked: _Asked) -> Mapping[str, JSON]:
        session = self._emulator.sessions.get(asked.name)
        if session is None:
            raise ApiError(404, f"There is no session '{without_secret(asked.name)}'.")
        return session_form(session)

    def _threads(self, asked: _Asked) -> Mapping[str, JSON]:
        query = asked.query
        fitting = [
            thread for thread in self._store.all() if query.get("user") in (None, thread.user)
        ]
        return {
            "total": len(fitting),
            "threads": [thread_form(thread) for thread in _latest(fitting, query)],
        }

    def _add_thread(self, asked: _Asked) -> Mapping[str, JSON]:
        return thread_form(self._store.create(asked.fields))

    def _thread(self, asked: _Asked) -> Mapping[str, JSON]:
        thread = self._store.get(asked.name)
        if thread is None:
            raise ApiError(404, f"There is no thread '{without_secret(asked.name)}'.")
        return thread_form(thread)

    def _delete_thread(self, asked: _Asked) -> Mapping[str, JSON]:
        thread = self._thread(asked)
        self._store.delete(asked.name)
        return thread

    def _requests(self, asked: _Asked) -> Mapping[str, JSON]:
        query = asked.query
        after = _whole(query, "after", 0)
        fitting = [
            record
            for record in self._emulator.requests
            if record.number > after
            and query.get("operation") in (None, record.operation)
            and query.get("user") in (None, record.user)
        ]
        return {
            "total": self._emulator.requests.total,
            "requests": [record_form(record) for record in _latest(fitting, query)],
        }

    def _clear_requests(self, asked: _Asked) -> Mapping[str, JSON]:
        self._emulator.requests.clear()
        return self._requests(asked)

    def _request(self, asked: _Asked) -> Mapping[str, JSON]:
        for record in self._emulator.requests:
            if str(record.number) == asked.name:
                return record_form(record)
        raise ApiError(404, f"There is no request '{asked.name}', or not any more.")

    def _clock(self, _asked: _Asked) -> Mapping[str, JSON]:
        return clock_form(self._emulator.clock)

    def _move_clock(self, asked: _Asked) -> Mapping[str, JSON]:
        move_clock(asked.fields, self._emulator.clock)
        return self._clock(asked)

    def _faults(self, _asked: _Asked) -> Mapping[str, JSON]:
        return {"faults": [scripted_fault_form(line) for line in self._script.lines()]}

    def _add_fault(self, asked: _Asked) -> Mapping[str, JSON]:
        return scripted_fault_form(self._script.add(read_fault(asked.fields)))

    def _clear_faults(self, asked: _Asked) -> Mapping[str, JSON]:
        self._emulator.clear_faults()
        return self._faults(asked)

    def _fault(self, asked: _Asked) -> Mapping[str, JSON]:
        for line in self._script.lines():
            if str(line.number) == asked.name:
                return scripted_fault_form(line)
        raise ApiError(404, f"There is no fault '{asked.name}', or not any more.")

    def _clear_fault(self, asked: _Asked) -> Mapping[str, JSON]:
        fault = self._fault(asked)
        self._script.clear(int(asked.name))
        return fault

    def _settings(self, _asked: _Asked) -> Mapping[str, JSON]:
        emulator = self._emulator
        return {
            "rate_limit": rate_limit_form(emulator.rate_limit),
            "latency": latency_form(emulator.latency),
            "off_schema": emulator.off_schema,
            "retired": emulator.retired,
            "deleted_cursor": emulator.deleted_cursor,
        }

    def _set(self, asked: _Asked) -> Mapping[str, JSON]:
        fields, emulator = asked.fields, self._emulator
        wanted: dict[str, object] = {
            name: read(fields, name) for name, read in _SETTINGS.items() if name in fields
        }
        fields.refuse_unread()
        for name, value in wanted.items():  # all of them, or none
            setattr(emulator, name, value)
        return self._settings(asked)

    def _reset(self, asked: _Asked) -> Mapping[str, JSON]:
        seed = asked.fields.whole("seed") if "seed" in asked.fields else None
        asked.fields.refuse_unread()
        self._emulator.reset(seed=seed)
        return self._state(asked)


_SETTINGS: Mapping[str, Callable[[Fields, str], object]] = {
    "rate_limit": read_rate_limit,
    "latency": read_latency,
    "off_schema": Fields.flag,
    "retired": Fields.flag,
    "deleted_cursor": read_deleted_cursor,
}


_QUERIES: Mapping[str, Collection[str]] = {
    "GET sessions": ("user", "status", "limit"),
    "GET threads": ("user", "limit"),
    "GET requests": ("operation", "user", "after", "limit"),
}


async def _fields(request: web.BaseRequest, max_body: int) -> Fields:
    if request.method not in ("POST", "PATCH"):
        return Fields({})
    check_content_type(request.headers)
    return Fields.of_body(parse_json(await read_body(request, max_body) or b"{}"))


def _refuse_unknown_query(query: Mapping[str, str], known: Collection[str]) -> None:
    unknown = [name for name in query if name not in known]
    if unknown:
        message = f"Unknown in the query: {', '.join(map(repr, unknown))}."
        raise ApiError(400, message, param=unknown[0], code="unknown_parameter")


def _latest(fitting: list[_Item], query: Mapping[str, str]) -> list[_Item]:
    return fitting[max(0, len(fitting) - _whole(query, "limit", _SHOWN_AT_ONCE)) :]


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        message = f"Invalid '{name}': expected a whole number, 0 or more."
        raise ApiError(400, message, param=name, code="invalid_value")
    return int(text)
