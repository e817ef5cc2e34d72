"""The methods of the API: create and cancel. They are given what makes a call, and know no client."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
)
from contextlib import asynccontextmanager
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, Unpack, cast

import attrs
from multidict import CIMultiDict, CIMultiDictProxy

from chatkit_async._attempts import Attempts
from chatkit_async._cancellation import run_to_end
from chatkit_async._protocol import Call, cancel_session, create_session, warn_of_latest
from chatkit_async.bulk import (
    CONCURRENCY,
    MAX_FAILURES,
    MAX_WAIT,
    BulkRun,
    CancelRowT,
    CreateRowT,
    cancellation,
    checked_defaults,
    creation,
)
from chatkit_async.models import (
    ChatKitConfigurationLike,
    ChatSession,
    ExpiresAfterLike,
    RateLimitsLike,
    WorkflowLike,
)
from chatkit_async.models._base import ReplyObject
from chatkit_async.options import RequestOptions, traceback_safe_options
from chatkit_async.secret import printable

__all__ = ["APIResponse", "AsyncSessions", "AsyncSessionsWithRawResponse"]

P = ParamSpec("P")
T = TypeVar("T", bound=ReplyObject)
F = TypeVar("F", bound=Callable[..., object])
ResultT = TypeVar("ResultT")

CANCEL_ON_EXIT = 10.0
"""Seconds that leaving `open()` waits at most for the session to be cancelled."""


def _printable_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    if all(map(str.isprintable, headers.values())):
        return headers
    return CIMultiDictProxy(
        CIMultiDict((name, printable(value)) for name, value in headers.items())
    )


@attrs.frozen(kw_only=True)
class APIResponse(Generic[ResultT]):
    r"""A reply as it came, beside what was read from it.

    Attributes:
        status_code: The HTTP status.
        headers: The reply's headers; names are case-insensitive. A value that cannot be printed
            has escapes such as `\x1b`.
        content: The body, in bytes. It holds the client secret.
        attempts: The number of attempts of the call.
        elapsed: Seconds from the start of the call to its reply, waits included.
    """

    status_code: int
    headers: Mapping[str, str] = attrs.field(repr=False, converter=_printable_headers)
    content: bytes = attrs.field(repr=False)
    attempts: int
    elapsed: float
    _result: ResultT = attrs.field(repr=False, alias="result")

    @property
    def request_id(self) -> str | None:
        """The API's id for the request (`x-request-id`)."""
        return self.headers.get("x-request-id")

    def parse(self) -> ResultT:
        """Return what the method itself would have returned."""
        return self._result


class Caller(Protocol):
    """Makes a call: the attempts, the waits, the errors."""

    async def __call__(self, call: Call[T], options: RequestOptions, /) -> T: ...


class RawCaller(Protocol):
    """Makes a call, and returns the reply as it came."""

    async def __call__(self, call: Call[T], options: RequestOptions, /) -> APIResponse[T]: ...


_KEYWORDS_ONLY = (
    "create() takes keyword arguments only. Write create(user=..., workflow=...), "
    "or create(**params) if params is a mapping."
)


def keywords_only(create: F) -> F:
    """Refuse a positional mapping, as SDKs of other languages take it, and show the right call.

    The arguments may hold credentials, which must not be among the locals of a traceback's frames:
    `given` hands them over.
    """

    @wraps(create)
    def blocking(self: object, *args: object, **kwargs: object) -> object:
        if args:
            del kwargs
            raise TypeError(_KEYWORDS_ONLY)
        given = [kwargs]
        del kwargs
        return create(self, **given.pop())

    @wraps(create)
    async def asynchronous(self: object, *args: object, **kwargs: object) -> object:
        if args:
            del kwargs
            raise TypeError(_KEYWORDS_ONLY)
        given = [kwargs]
        del kwargs
        return await cast("Awaitable[object]", create(self, **given.pop()))

    return cast("F", asynchronous if iscoroutinefunction(create) else blocking)


class AsyncSessions:
    """Creates and cancels ChatKit sessions: `client.sessions`.

    Attributes:
        with_raw_response: The same methods, returning the reply as it came: see `APIResponse`.

    API documentation: https://platform.openai.com/docs/api-reference/chatkit/sessions
    """

    with_raw_response: "AsyncSessionsWithRawResponse"

    def __init__(self, call: Caller, call_raw: RawCaller, attempts: Attempts) -> None:
        self._call = call
        self._attempts = attempts
        self.with_raw_response = AsyncSessionsWithRawResponse(call_raw)

    @keywords_only
    async def create(
        self,
        *,
        user: str,
        workflow: WorkflowLike,
        chatkit_configuration: ChatKitConfigurationLike | None = None,
        expires_after: ExpiresAfterLike | None = None,
        rate_limits: RateLimitsLike | None = None,
        **options: Unpack[RequestOptions],
    ) -> ChatSession:
        """Create a session. Its `client_secret` is what the browser needs.

        A create whose reply was lost may have made a session that nobody holds, and is tried
        again: the API has no way to tell. Such a session expires after its `expires_after`.

        Args:
            user: Your own id of the end user, not blank. Sessions of one user share their threads.
            workflow: The workflow to run: its id, a mapping, or `ChatSessionWorkflowParam`.
            chatkit_configuration: The features of the chat: a mapping, or
                `ChatSessionChatKitConfigurationParam`.
            expires_after: When the session ends: whole seconds, 1 to 600, a timedelta, a mapping,
                or `ChatSessionExpiresAfterParam`. The API's default: 600.
            rate_limits: The limit of the end user: requests per minute, at least 1, a mapping,
                or `ChatSessionRateLimitsParam`. The API's default: 10.
            **options: Options of this call that differ from the client's: see `RequestOptions`.

        Raises:
            ParameterError: the arguments are invalid. Nothing was sent.
            APIStatusError: the API refused: see its subclasses.
            APIConnectionError: no reply came; `APITimeoutError`: not in time.
            APIResponseError: the reply was of no use.
            ClientClosedError: the client was closed.

        API documentation: Create ChatKit session, `POST /chatkit/sessions`.
        """
        options = traceback_safe_options(options)
        warn_of_latest(workflow)
        given = {
            "user": user,
            "workflow": workflow,
            "chatkit_configuration": chatkit_configuration,
            "expires_after": expires_after,
            "rate_limits": rate_limits,
        }
        return await self._call(create_session(given, options), options)

    async def cancel(self, session_id: str, **options: Unpack[RequestOptions]) -> ChatSession:
        """Cancel a session: its client secret opens no new requests.

        Args:
            session_id: The session's id, `cksess_...`.
            **options: Options of this call that differ from the client's: see `RequestOptions`.

        Returns:
            The session as it is now.

        Raises:
            ParameterError: the id is invalid. Nothing was sent.
            NotFoundError: the session was not found in the project of this key.
            APIStatusError: the API refused: see its subclasses.
            APIConnectionError: no reply came; `APITimeoutError`: not in time.
            APIResponseError: the reply was of no use.
            ClientClosedError: the client was closed.

        API documentation: Cancel chat session, `POST /chatkit/sessions/{session_id}/cancel`.
        """
        options = traceback_safe_options(options)
        return await self._call(cancel_session(session_id, options), options)

    @asynccontextmanager
    async def open(
        self,
        *,
        user: str,
        workflow: WorkflowLike,
        chatkit_configuration: ChatKitConfigurationLike | None = None,
        expires_after: ExpiresAfterLike | None = None,
        rate_limits: RateLimitsLike | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncGenerator[ChatSession]:
        """Create a session for the length of an `async with` block, and cancel it on the way out.

        It is cancelled also when the block raises, or its task is cancelled; leaving waits for
        that, at most 10 seconds. What then fails is raised, or, when the block itself raised,
        noted on that exception.

        Args:
            user: As in `create`.
            workflow: As in `create`.
            chatkit_configuration: As in `create`.
            expires_after: As in `create`.
            rate_limits: As in `create`.
            **options: As in `create`; `extra_headers` go with the cancellation too.

        Raises:
            MissingFieldError: on leaving: the reply had no id to cancel by.
            ChatKitError: what `create` and `cancel` raise.
        """
        options = traceback_safe_options(options)
        session = await self.create(
            user=user,
            workflow=workflow,
            chatkit_configuration=chatkit_configuration,
            expires_after=expires_after,
            rate_limits=rate_limits,
            **options,
        )
        headers = options.get("extra_headers")
        try:
            yield session
        except BaseException as error:
            await run_to_end(self._cancel_noting(session, headers, error))
            raise
        await run_to_end(self._cancel_on_exit(session, headers))

    async def _cancel_on_exit(
        self, session: ChatSession, headers: Mapping[str, str] | None
    ) -> None:
        await self.cancel(session.id, timeout=CANCEL_ON_EXIT, extra_headers=headers)

    async def _cancel_noting(
        self, session: ChatSession, headers: Mapping[str, str] | None, error: BaseException
    ) -> None:
        try:
            await self._cancel_on_exit(session, headers)
        except Exception as failure:  # noqa: BLE001 - the block's own exception counts for more
            error.add_note(f"the session was not cancelled, and expires on its own: {failure}")

    def create_many(
        self,
        rows: Iterable[CreateRowT] | AsyncIterable[CreateRowT],
        *,
        concurrency: int = CONCURRENCY,
        ordered: bool = False,
        rate: float | None = None,
        max_wait: float | None = MAX_WAIT,
        max_failures: int | None = MAX_FAILURES,
        defaults: Mapping[str, object] | None = None,
        **options: Unpack[RequestOptions],
    ) -> BulkRun[CreateRowT, ChatSession]:
        """Create a session for each row, and give the outcome of each: see `BulkRun`.

        Use each session as it comes: its secret lives 600 seconds at most. Nothing is sent before
        the run is entered or iterated.

        Args:
            rows: An iterable, or an asynchronous one, of `SessionCreateParams`, mappings with the
                keys of `create`'s arguments, or bare user ids. It is read in the event loop, one
                row at a time, at most twice `concurrency` ahead of the outcomes that were taken.
                An invalid row is `rejected`, and the run goes on.
            concurrency: The number of rows in flight at a time, at least 1, at most the client's
                `max_connections`.
            ordered: True for outcomes in the order of their rows, False for outcomes as they finish.
            rate: Rows started per second, more than 0. None: no limit except the API's own.
            max_wait: Seconds that a row waits for the rate gate, after the API pushed back, while
                the API takes up no request of the run; then the run stops. None: no limit. These
                waits count against no row's `timeout` or `max_retries`.
            max_failures: Rows in a row that fail in the same way before any succeeds; then the run
                stops. The same way is 404, 400 with the same message, or a status from 500 up.
                None: no limit.
            defaults: The fields of rows that do not set them, under the keys of `create`'s
                arguments.
            **options: Options of these calls that differ from the client's: see `RequestOptions`.
                Its limits are those of each row.

        Raises:
            ParameterError: an argument other than `rows` is invalid. Nothing was read.

        API documentation: Create ChatKit session, `POST /chatkit/sessions`.
        """
        options = traceback_safe_options(options)
        return BulkRun(
            self._attempts,
            creation(checked_defaults(defaults), options),
            rows,
            name="rows",
            done="created",
            options=options,
            concurrency=concurrency,
            ordered=ordered,
            rate=rate,
            max_wait=max_wait,
            max_failures=max_failures,
        )

    def cancel_many(
        self,
        session_ids: Iterable[CancelRowT] | AsyncIterable[CancelRowT],
        *,
        concurrency: int = CONCURRENCY,
        ordered: bool = False,
        rate: float | None = None,
        max_wait: float | None = MAX_WAIT,
        max_failures: int | None = MAX_FAILURES,
        **options: Unpack[RequestOptions],
    ) -> BulkRun[CancelRowT, ChatSession]:
        """Cancel sessions, and give the outcome of each: see `BulkRun`.

        Args:
            session_ids: An iterable, or an asynchronous one, of ids, `cksess_...`, or sessions.
            concurrency: As in `create_many`.
            ordered: As in `create_many`.
            rate: As in `create_many`.
            max_wait: As in `create_many`.
            max_failures: As in `create_many`, but for 404: each row has a session of its own.
            **options: As in `create_many`.

        Raises:
            ParameterError: an argument other than `session_ids` is invalid. Nothing was read.

        API documentation: Cancel chat session, `POST /chatkit/sessions/{session_id}/cancel`.
        """
        options = traceback_safe_options(options)
        return BulkRun(
            self._attempts,
            cancellation(options),
            session_ids,
            name="session_ids",
            done="cancelled",
            options=options,
            concurrency=concurrency,
            ordered=ordered,
            rate=rate,
            max_wait=max_wait,
            max_failures=max_failures,
        )


def _raw(
    method: Callable[Concatenate[AsyncSessions, P], Coroutine[Any, Any, ChatSession]],
) -> "Callable[Concatenate[AsyncSessionsWithRawResponse, P], Coroutine[Any, Any, APIResponse[ChatSession]]]":
    """Give a method over a raw call its true type: its own parameters, and the raw reply."""
    raw: Any = method
    return raw  # type: ignore[no-any-return]


class AsyncSessionsWithRawResponse:
    """The methods of `AsyncSessions`, each returning an `APIResponse`.

    They are `client.sessions.with_raw_response`.

    Attributes:
        create: As `AsyncSessions.create`.
        cancel: As `AsyncSessions.cancel`.
    """

    def __init__(self, call_raw: RawCaller) -> None:
        # The methods return what this returns.
        self._call = call_raw

    create: Final = _raw(AsyncSessions.create)
    cancel: Final = _raw(AsyncSessions.cancel)


# `mock.create_autospec` looks for attributes on the class alone: there, its spec is a class too.
AsyncSessions.with_raw_response = cast("AsyncSessionsWithRawResponse", AsyncSessionsWithRawResponse)
