"""The API without its sockets: takes a request, and returns a reply."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve

from chatkit_async.emulator._access import check_content_type
from chatkit_async.emulator._credentials import looks_real, masked_key, masked_text
from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._limits import duration
from chatkit_async.emulator._replies import (
    UNAUTHORIZED_HEADERS,
    Reply,
    Shape,
    deleted_body,
    page_body,
    refusal,
    session_body,
    thread_body,
    thread_resource,
)
from chatkit_async.emulator._routes import METHODS
from chatkit_async.emulator._schema import query_fields, read_create, read_page_query

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from multidict import CIMultiDictProxy

    from chatkit_async.emulator._request import Request
    from chatkit_async.emulator._sessions import Session
    from chatkit_async.emulator._state import State
    from chatkit_async.emulator._threads import Thread

_BETA = "chatkit_beta=v1"


class Service:
    """The rules of the API over the sessions and threads of an emulator."""

    def __init__(
        self,
        state: State,
        *,
        api_keys: Collection[str] | None,
        workflows: Collection[str] | None,
        allow_real_keys: bool,
    ) -> None:
        self._state = state
        self._api_keys = None if api_keys is None else frozenset(api_keys)
        self._workflows = None if workflows is None else frozenset(workflows)
        self._allow_real_keys = allow_real_keys

    def user_of(self, request: Request) -> str | None:
        """Return the user that a request is about, if it is known."""
        owned: Session | Thread | None
        if request.session_id is not None:
            owned = self._state.sessions.get(request.session_id)
            return None if owned is None else owned.user
        if request.thread_id is not None:
            owned = self._state.threads.get(request.thread_id)
            return None if owned is None else owned.user
        if request.operation == "list_threads":
            user = query_fields(request.query).get("user")
        else:
            user = request.value.get("user") if isinstance(request.value, dict) else None
        return user if isinstance(user, str) else None

    def answer(self, request: Request) -> Reply:
        """Do what a request asks for, and return the reply."""
        limit_headers: dict[str, str] = {}  # in every reply to a request that counts
        try:
            _check_method(request)
            self._count(self._authenticate(request.headers), limit_headers)
            _check_beta(request.headers)
            if request.problem is not None:
                raise request.problem
            reply = self._do(request)
        except ApiError as error:
            reply = refusal(error)
        if not limit_headers:
            return reply
        return evolve(reply, headers={**reply.headers, **limit_headers})

    def _authenticate(self, headers: CIMultiDictProxy[str]) -> str:
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            message = "No API key: send it as 'Authorization: Bearer YOUR_KEY'."
            raise _unauthorized(message)
        if not self._allow_real_keys and looks_real(key):
            message = (
                "This looks like a real API key, which an emulator should never be sent: "
                "use a made-up one, or allow real keys where the emulator is started."
            )
            raise _unauthorized(message, code="real_api_key")
        if self._api_keys is not None and key not in self._api_keys:
            message = (
                f"Incorrect API key provided: {masked_key(key)}. You can find your API key at "
                "https://platform.openai.com/account/api-keys."
            )
            raise _unauthorized(message)
        return key

    def _count(self, key: str, limit_headers: dict[str, str]) -> None:
        limiter = self._state.settings.limiter
        if limiter is None:
            return
        count, headers = limiter.count(key, self._state.clock.now())
        limit_headers.update(headers)
        if count.wait:
            message = (
                f"Rate limit reached for requests: Limit {count.limit}. "
                f"Please try again in {duration(count.wait)}."
            )
            raise ApiError(429, message, code="rate_limit_exceeded")

    def _do(self, request: Request) -> Reply:
        if request.session_id is not None:
            return self._cancel(request.session_id)
        if request.operation == "create":
            return self._create(request)
        if request.thread_id is None:
            return self._list_threads(request)
        thread = self._state.threads.get(request.thread_id)
        if thread is None:
            raise ApiError(404, f"Thread with id '{masked_text(request.thread_id)}' not found.")
        if request.operation == "list_items":
            return self._list_items(request, thread)
        if request.operation == "delete_thread":
            self._state.threads.delete(thread.id)
            return self._reply(partial(deleted_body, thread))
        return self._reply(partial(thread_body, thread))

    def _create(self, request: Request) -> Reply:
        if self._state.settings.retired:
            message = (
                "Sessions can no longer be created, because hosted workflows have been retired."
            )
            raise ApiError(410, message, code="service_retired")
        check_content_type(request.headers)
        parameters, unknown_fields = read_create(request.value)
        if self._workflows is not None and parameters.workflow not in self._workflows:
            raise ApiError(404, f"Workflow with id '{parameters.workflow}' not found.")
        session = self._state.sessions.create(
            parameters,
            organization=request.headers.get("OpenAI-Organization"),
            project=request.headers.get("OpenAI-Project"),
            size=len(request.content),
        )
        reply = self._reply(partial(session_body, "create", session), unknown_fields)
        return evolve(reply, session_id=session.id)

    def _cancel(self, session_id: str) -> Reply:
        session = self._state.sessions.get(session_id)
        if session is None:
            # In the service's quotation marks, unlike a workflow.
            shown = masked_text(session_id)
            raise ApiError(404, f"Chatkit Session with id \u2018{shown}\u2019 not found.")
        self._state.sessions.cancel(session)
        return self._reply(partial(session_body, "cancel", session))

    def _list_threads(self, request: Request) -> Reply:
        asked, unknown = read_page_query(request.query, by_user=True)
        threads, has_more = self._state.threads.page(
            asked, self._state.settings.deleted_cursor, lambda each: asked.user in (None, each.user)
        )
        rows = list(map(thread_resource, threads))
        return self._reply(partial(page_body, rows, has_more=has_more, after=asked.after), unknown)

    def _list_items(self, request: Request, thread: Thread) -> Reply:
        asked, unknown = read_page_query(request.query, by_user=False)
        rows, has_more = thread.rows.page(asked, self._state.settings.deleted_cursor)
        return self._reply(partial(page_body, rows, has_more=has_more, after=asked.after), unknown)

    def _reply(
        self, shaped: Callable[[Shape], bytes], unknown_fields: tuple[str, ...] = ()
    ) -> Reply:
        shape: Shape = "off_schema" if self._state.settings.off_schema else None
        return Reply(body=shaped(shape), shaped=shaped, unknown_fields=unknown_fields)


def _check_method(request: Request) -> None:
    if request.operation is None:
        raise ApiError(404, f"Invalid URL ({request.method} {request.path})")
    methods = METHODS[request.operation]
    if request.method not in methods:
        message = f"Invalid method for URL ({request.method} {request.path})"
        raise ApiError(405, message, headers={"Allow": ", ".join(methods)})


def _check_beta(headers: CIMultiDictProxy[str]) -> None:
    beta = ",".join(headers.getall("OpenAI-Beta", []))
    if _BETA not in [feature.strip() for feature in beta.split(",")]:
        message = f"The ChatKit API is in beta: send the header 'OpenAI-Beta: {_BETA}'."
        raise ApiError(400, message, code="invalid_beta")


def _unauthorized(message: str, *, code: str = "invalid_api_key") -> ApiError:
    return ApiError(401, message, code=code, headers=UNAUTHORIZED_HEADERS)
