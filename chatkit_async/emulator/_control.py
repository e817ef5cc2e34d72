"""The control interface: the emulator's state, read and set in JSON under `/_emulator/`.

It can do what the `Emulator` can do, with the same names. Its requests are in no ledger, meet no
fault and no limit, and draw nothing from the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar
from urllib.parse import unquote

from aiohttp import web
from attrs import frozen

from chatkit_async.emulator._access import check_content_type
from chatkit_async.emulator._credentials import masked_text
from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._fields import Fields
from chatkit_async.emulator._forms import (
    clock_form,
    latency_form,
    rate_limit_form,
    record_form,
    scripted_fault_form,
    session_form,
    thread_form,
)
from chatkit_async.emulator._json import JSON, parse_json, to_json
from chatkit_async.emulator._readers import (
    move_clock,
    read_deleted_cursor,
    read_fault,
    read_latency,
    read_rate_limit,
)
from chatkit_async.emulator._replies import error_body
from chatkit_async.emulator._request import read_body

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from chatkit_async.emulator._state import State

_Item = TypeVar("_Item")

PREFIX: Final = "/_emulator"

_DEFAULT_LIMIT = 100  # sessions, threads or requests in a reply
_HEADERS = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    # No page gets it, with any element: see _access.
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def refusal(error: ApiError) -> web.Response:
    """Return the reply for an error."""
    body = error_body(error.status, error.message, param=error.param, code=error.code)
    return web.Response(status=error.status, body=body, headers={**_HEADERS, **error.headers})


@frozen(kw_only=True)
class _Asked:
    """A request to a resource: the last part of its path, its query, its body."""

    name: str
    query: Mapping[str, str]
    fields: Fields


if TYPE_CHECKING:
    _Handler: TypeAlias = Callable[[_Asked], Mapping[str, JSON]]


class Control:
    """The answers to requests under `/_emulator/`."""

    def __init__(
        self, state: State, serving: Callable[[], Mapping[str, JSON]], *, max_body: int
    ) -> None:
        self._state = state
        self._serving = serving
        self._max_body = max_body
        self._resources: Mapping[str, Mapping[str, _Handler]] = {
            "state": {"GET": self._overview},
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
        """Answer a request in the serving loop, between two requests to the API."""
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
            resources = ", ".join(f"{PREFIX}/{each}" for each in self._resources)
            raise ApiError(404, f"{masked_text(path)} not found. Resources: {resources}.")
        if request.method not in methods:
            allowed = ", ".join(methods)
            message = f"{request.method} is not allowed for {masked_text(path)}. Use {allowed}."
            raise ApiError(405, message, code="method_not_supported", headers={"Allow": allowed})
        known = _QUERIES.get(f"{request.method} {resource}", ()) if not name else ()
        return methods[request.method], unquote(name), known

    def _overview(self, asked: _Asked) -> Mapping[str, JSON]:
        state = self._state
        return {
            **self._serving(),
            "clock": clock_form(state.clock),
            "sessions": {
                "total": len(state.sessions),
                **Counter(session.status for session in state.sessions.values()),
            },
            "threads": {"total": len(state.threads)},
            "requests": {"total": state.requests.total, "kept": len(state.requests)},
            **self._settings(asked),
            **self._faults(asked),
        }

    def _sessions(self, asked: _Asked) -> Mapping[str, JSON]:
        return _listed("sessions", session_form, self._state.sessions.values(), asked.query)

    def _session(self, asked: _Asked) -> Mapping[str, JSON]:
        return session_form(_found("Session", asked.name, self._state.sessions.get(asked.name)))

    def _threads(self, asked: _Asked) -> Mapping[str, JSON]:
        return _listed("threads", thread_form, self._state.threads.all(), asked.query)

    def _add_thread(self, asked: _Asked) -> Mapping[str, JSON]:
        return thread_form(self._state.threads.create(asked.fields))

    def _thread(self, asked: _Asked) -> Mapping[str, JSON]:
        return thread_form(_found("Thread", asked.name, self._state.threads.get(asked.name)))

    def _delete_thread(self, asked: _Asked) -> Mapping[str, JSON]:
        thread = self._thread(asked)
        self._state.threads.delete(asked.name)
        return thread

    def _requests(self, asked: _Asked) -> Mapping[str, JSON]:
        after = _whole(asked.query, "after", 0)
        later = [record for record in self._state.requests if record.number > after]
        listed = _listed("requests", record_form, later, asked.query)
        return {**listed, "total": self._state.requests.total}

    def _clear_requests(self, asked: _Asked) -> Mapping[str, JSON]:
        self._state.requests.clear()
        return self._requests(asked)

    def _request(self, asked: _Asked) -> Mapping[str, JSON]:
        numbered = {str(record.number): record for record in self._state.requests}
        return record_form(_found("Request", asked.name, numbered.get(asked.name)))

    def _clock(self, _asked: _Asked) -> Mapping[str, JSON]:
        return clock_form(self._state.clock)

    def _move_clock(self, asked: _Asked) -> Mapping[str, JSON]:
        move_clock(asked.fields, self._state.clock)
        return self._clock(asked)

    def _faults(self, _asked: _Asked) -> Mapping[str, JSON]:
        return {"faults": [scripted_fault_form(line) for line in self._state.faults.lines()]}

    def _add_fault(self, asked: _Asked) -> Mapping[str, JSON]:
        return scripted_fault_form(self._state.faults.add(read_fault(asked.fields)))

    def _clear_faults(self, asked: _Asked) -> Mapping[str, JSON]:
        self._state.faults.clear()
        return self._faults(asked)

    def _fault(self, asked: _Asked) -> Mapping[str, JSON]:
        numbered = {str(line.number): line for line in self._state.faults.lines()}
        return scripted_fault_form(_found("Fault", asked.name, numbered.get(asked.name)))

    def _clear_fault(self, asked: _Asked) -> Mapping[str, JSON]:
        fault = self._fault(asked)
        self._state.faults.clear(int(asked.name))
        return fault

    def _settings(self, _asked: _Asked) -> Mapping[str, JSON]:
        settings = self._state.settings
        return {
            "rate_limit": rate_limit_form(settings.rate_limit),
            "latency": latency_form(settings.latency),
            "off_schema": settings.off_schema,
            "retired": settings.retired,
            "deleted_cursor": settings.deleted_cursor,
        }

    def _set(self, asked: _Asked) -> Mapping[str, JSON]:
        fields = asked.fields
        wanted: dict[str, object] = {
            name: read(fields, name) for name, read in _SETTINGS.items() if name in fields
        }
        fields.refuse_unread()
        for name, value in wanted.items():  # all of them, or none
            setattr(self._state.settings, name, value)
        return self._settings(asked)

    def _reset(self, asked: _Asked) -> Mapping[str, JSON]:
        seed = asked.fields.whole("seed") if "seed" in asked.fields else None
        asked.fields.refuse_unread()
        self._state.reset(seed)
        return self._overview(asked)


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


_NOT_ATTRIBUTES = ("after", "limit")


async def _fields(request: web.BaseRequest, max_body: int) -> Fields:
    if request.method not in ("POST", "PATCH"):
        return Fields({})
    check_content_type(request.headers)
    return Fields.of_body(parse_json(await read_body(request, max_body) or b"{}"))


def _refuse_unknown_query(query: Mapping[str, str], known: Collection[str]) -> None:
    unknown = [name for name in query if name not in known]
    if unknown:
        message = f"Unknown query parameter: {', '.join(map(repr, unknown))}."
        raise ApiError(400, message, param=unknown[0], code="unknown_parameter")


def _listed(
    name: str, form: Callable[[_Item], JSON], items: Iterable[_Item], query: Mapping[str, str]
) -> Mapping[str, JSON]:
    """Return the latest items whose attributes are as in the query."""
    wanted = {each: value for each, value in query.items() if each not in _NOT_ATTRIBUTES}
    fitting = [
        item
        for item in items
        if all(getattr(item, each) == value for each, value in wanted.items())
    ]
    first = max(0, len(fitting) - _whole(query, "limit", _DEFAULT_LIMIT))
    return {"total": len(fitting), name: [form(item) for item in fitting[first:]]}


def _found(kind: str, name: str, item: _Item | None) -> _Item:
    if item is None:
        raise ApiError(404, f"{kind} '{masked_text(name)}' not found.")
    return item


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    fields = Fields({**query})
    return fields.within(name, fields.get(name, Fields.numeral, default), 0)
