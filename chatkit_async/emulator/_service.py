"""The API without its sockets: a request goes in, a reply comes out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote

from attrs import evolve

from chatkit_async.emulator._access import check_content_type
from chatkit_async.emulator._credentials import looks_real, masked_key
from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._limits import Limiter, RateLimit, duration
from chatkit_async.emulator._replies import (
    UNAUTHORIZED_HEADERS,
    Operation,
    Reply,
    Shape,
    deleted_body,
    page_body,
    refusal,
    reply_with,
    session_body,
    thread_body,
    thread_resource,
)
from chatkit_async.emulator._schema import query_fields, read_create, read_page_query
from chatkit_async.emulator._state import SessionStore
from chatkit_async.emulator._threads import DeletedCursor, ThreadStore

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from multidict import CIMultiDictProxy

    from chatkit_async.emulator._clock import Clock
    from chatkit_async.emulator._ledger import Record
    from chatkit_async.emulator._threads import Thread

_BETA = "chatkit_beta=v1"
_METHODS: Mapping[Operation, tuple[str, ...]] = {
    "create": ("POST",),
    "cancel": ("POST",),
    "list_threads": ("GET",),
    "retrieve_thread": ("GET", "DELETE"),
    "delete_thread": ("GET", "DELETE"),
    "list_items": ("GET",),
}


def route(method: str, path: str) -> tuple[Operation | None, str | None]:
    """Return the operation of a request by its path as it was sent, and the id in the path.

    The path is split before it is decoded, once, so that an escaped slash stays in its segment.
    """
    match path.split("/"):
        case ["", "v1", "chatkit", "sessions"]:
            return "create", None
        case ["", "v1", "chatkit", "sessions", session_id, "cancel"]:
            return "cancel", unquote(session_id)
        case ["", "v1", "chatkit", "threads"]:
            return "list_threads", None
        case ["", "v1", "chatkit", "threads", thread_id] if thread_id:
            operation: Operation = "delete_thread" if method == "DELETE" else "retrieve_thread"
            return operation, unquote(thread_id)
        case ["", "v1", "chatkit", "threads", thread_id, "items"]:
            return "list_items", unquote(thread_id)
        case _:
            return None, None


class Service:
    """The rules of the API over its sessions and threads."""

    def __init__(
        self,
        *,
        clock: Clock,
        seed: int,
        api_keys: Collection[str] | None,
        workflows: Collection[str] | None,
        allow_real_keys: bool,
        rate_limit: RateLimit | None,
        off_schema: bool,
        retired: bool,
        deleted_cursor: DeletedCursor,
    ) -> None:
        self.sessions = SessionStore(clock, seed)
        self.threads = ThreadStore(clock, seed)
        self.limiter = None if rate_limit is None else Limiter(rate_limit)
        self.off_schema = off_schema
        self.retired = retired
        self.deleted_cursor: DeletedCursor = deleted_cursor
        self._clock = clock
        self._allow_real_keys = allow_real_keys
        self._api_keys = None if api_keys is None else frozenset(api_keys)
        self._workflows = None if workflows is None else frozenset(workflows)

    def user_of(self, record: Record) -> str | None:
        """Return the user that a request is about, as far as it says."""
        if record.session_id is not None:
            session = self.sessions.get(record.session_id)
            return None if session is None else session.user
        if record.thread_id is not None:
            thread = self.threads.get(record.thread_id)
            return None if thread is None else thread.user
        if record.operation == "list_threads":
            user = query_fields(record.query).get("user")
            return user if isinstance(user, str) else None
        user = record.body.get("user") if isinstance(record.body, dict) else None
        return user if isinstance(user, str) else None

    def answer(
        self, record: Record, headers: CIMultiDictProxy[str], problem: ApiError | None = None
    ) -> Reply:
        """Do what a request asks for, and note in its record what came to light.

        Args:
            record: The request.
            headers: Its headers as they came; the record's own are masked.
            problem: Why its body could not be read.
        """
        told: dict[str, str] = {}  # about the rate limit, in whatever reply to a request it counts
        try:
            self._find(record)
            self._count(self._authenticate(headers), told)
            self._check_beta(headers)
            if problem is not None:
                raise problem
            reply = self._do(record, headers)
        except ApiError as error:
            reply = refusal(error)
        return evolve(reply, headers={**reply.headers, **told}) if told else reply

    def _find(self, record: Record) -> None:
        if record.operation is None:
            raise ApiError(404, f"Invalid URL ({record.method} {record.path})")
        methods = _METHODS[record.operation]
        if record.method not in methods:
            message = f"Invalid method for URL ({record.method} {record.path})"
            raise ApiError(405, message, headers={"Allow": ", ".join(methods)})

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

    def _count(self, key: str, told: dict[str, str]) -> None:
        if self.limiter is None:
            return
        count, headers = self.limiter.count(key, self._clock.now())
        told.update(headers)
        if count.wait:
            message = (
                f"Rate limit reached for requests: Limit {count.limit}. "
                f"Please try again in {duration(count.wait)}."
            )
            raise ApiError(429, message, code="rate_limit_exceeded")

    def _check_beta(self, headers: CIMultiDictProxy[str]) -> None:
        beta = ",".join(headers.getall("OpenAI-Beta", []))
        if _BETA not in [feature.strip() for feature in beta.split(",")]:
            message = f"The ChatKit API is in beta: send the header 'OpenAI-Beta: {_BETA}'."
            raise ApiError(400, message, code="invalid_beta")

    def _do(self, record: Record, headers: CIMultiDictProxy[str]) -> Reply:
        if record.session_id is not None:
            return self._cancel(record.session_id)
        if record.operation == "create":
            return self._create(record, headers)
        if record.thread_id is None:
            return self._list_threads(record)
        thread = self.threads.get(record.thread_id)
        if thread is None:
            raise ApiError(404, f"Thread with id '{record.thread_id}' not found.")
        if record.operation == "list_items":
            return self._list_items(record, thread)
        if record.operation == "delete_thread":
            return self._delete_thread(thread)
        return reply_with(partial(thread_body, thread), self._shape)

    def _create(self, record: Record, headers: CIMultiDictProxy[str]) -> Reply:
        if self.retired:
            message = (
                "Sessions can no longer be created, because hosted workflows have been retired."
            )
            raise ApiError(410, message, code="service_retired")
        check_content_type(headers)
        parameters, record.unknown_fields = read_create(record.body)
        if self._workflows is not None and parameters.workflow not in self._workflows:
            raise ApiError(404, f"Workflow with id '{parameters.workflow}' not found.")
        session = self.sessions.create(
            parameters,
            organization=headers.get("OpenAI-Organization"),
            project=headers.get("OpenAI-Project"),
            size=record.body_size,
        )
        record.session_id = session.id
        return reply_with(partial(session_body, "create", session), self._shape)

    def _cancel(self, session_id: str) -> Reply:
        session = self.sessions.get(session_id)
        if session is None:
            # Quoted as the service does it, unlike a workflow.
            raise ApiError(404, f"Chatkit Session with id \u2018{session_id}\u2019 not found.")
        self.sessions.cancel(session)
        return reply_with(partial(session_body, "cancel", session), self._shape)

    def _list_threads(self, record: Record) -> Reply:
        asked, record.unknown_fields = read_page_query(record.query, by_user=True)
        threads, has_more = self.threads.page(
            asked, self.deleted_cursor, lambda thread: asked.user in (None, thread.user)
        )
        rows = list(map(thread_resource, threads))
        body = partial(page_body, rows, has_more=has_more, after=asked.after)
        return reply_with(body, self._shape)

    def _list_items(self, record: Record, thread: Thread) -> Reply:
        asked, record.unknown_fields = read_page_query(record.query, by_user=False)
        rows, has_more = thread.rows.page(asked, self.deleted_cursor)
        body = partial(page_body, rows, has_more=has_more, after=asked.after)
        return reply_with(body, self._shape)

    def _delete_thread(self, thread: Thread) -> Reply:
        self.threads.delete(thread.id)
        return reply_with(partial(deleted_body, thread), self._shape)

    @property
    def _shape(self) -> Shape:
        return "off_schema" if self.off_schema else None


def _unauthorized(message: str, *, code: str = "invalid_api_key") -> ApiError:
    return ApiError(401, message, code=code, headers=UNAUTHORIZED_HEADERS)
