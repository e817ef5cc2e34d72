"""ChatKit: the blocking client, which runs AsyncChatKit's coroutines on a loop of its own."""

import ssl as tls
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    ParamSpec,
    Self,
    Unpack,
    cast,
)

from chatkit_async._loop_thread import LoopThread
from chatkit_async._protocol import warn_of_latest
from chatkit_async._transport import Transport, not_picklable
from chatkit_async.bulk import (
    CONCURRENCY,
    MAX_FAILURES,
    MAX_WAIT,
    CancelRowT,
    CreateRowT,
)
from chatkit_async.client import AsyncChatKit, Beta, BetaChatKit, Derived, MadeOnce
from chatkit_async.models import (
    ChatKitConfigurationLike,
    ChatSession,
    ExpiresAfterLike,
    RateLimitsLike,
    WorkflowLike,
)
from chatkit_async.options import (
    ATTEMPT_TIMEOUT,
    CONNECT_TIMEOUT,
    MAX_CONNECTIONS,
    MAX_RETRIES,
    TIMEOUT,
    ApiKeyProvider,
    Attempt,
    ClientOptions,
    RequestOptions,
    RetryPolicy,
    client_options,
    traceback_safe_options,
)
from chatkit_async.sessions import (
    APIResponse,
    AsyncSessions,
    AsyncSessionsWithRawResponse,
    keywords_only,
)
from chatkit_async.sync_bulk import BlockingBulkRun

if TYPE_CHECKING:
    from chatkit_async.sync_threads import Threads

__all__ = ["ChatKit", "Sessions", "SessionsWithRawResponse"]

P = ParamSpec("P")


def _threads(client: "ChatKit | type[ChatKit]") -> "Threads":
    from chatkit_async.sync_threads import Threads  # noqa: PLC0415 - the import takes time

    if isinstance(client, type):
        return cast("Threads", Threads)
    return client._make_threads(Threads)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


class ChatKit:
    """The blocking client: creates and cancels ChatKit sessions.

    Make one for the life of your program; every thread may use it. Close it, or use `with`. It
    works in a notebook, under a running event loop, and in a forked process, which opens
    connections of its own. Ctrl-C ends the call that waits, and leaves the client usable.

    Calls run on one thread of the client's own, and so do `api_key` and `on_attempt`: they should
    not block, and cannot use this client.

    Args:
        api_key: The API key, or a callable that returns it or an awaitable of it: called for each
            attempt, and once more after a 401. Default: `OPENAI_API_KEY`.
        organization: Sent as `OpenAI-Organization`. Default: `OPENAI_ORG_ID`.
        project: Sent as `OpenAI-Project`. Default: `OPENAI_PROJECT_ID`.
        base_url: The URL of the API, https. Default: `OPENAI_BASE_URL`, else
            `https://api.openai.com/v1`.
        timeout: Seconds for a whole call: every attempt, every wait. None: no limit.
        attempt_timeout: Seconds for each attempt. None: no limit.
        connect_timeout: Seconds to look the host name up, and again to open a connection, TLS
            included. None: no limit.
        max_retries: Attempts after the first, at least 0.
        retry_policy: The waits between attempts, if the API does not say.
        max_connections: Connections open at a time, at least 1.
        verify_replies: Refuse a reply whose user or session is not the one in the request. False:
            for a gateway that rewrites user ids.
        default_headers: Headers for every request.
        proxy: URL of an HTTP proxy. Default: `HTTPS_PROXY` and its like, looked up once;
            `NO_PROXY` is respected, and this machine is never reached by a proxy.
        ssl: TLS settings. Default: the CAs that Python's `ssl` trusts.
        allow_http: True to allow plain http to hosts other than this machine.
        on_attempt: Called with an `Attempt` after each attempt. What it raises ends the call, and
            is raised as it is.

    Raises:
        ConfigurationError: with every problem of the settings. A key is never echoed.
    """

    # See `AsyncChatKit`.
    sessions: "Sessions"
    threads: MadeOnce["Threads"] = MadeOnce(_threads)
    chatkit: Derived["BetaChatKit[Sessions, Threads]"] = Derived(BetaChatKit)
    beta: Derived["Beta[Sessions, Threads]"] = Derived(lambda c: Beta(BetaChatKit(c)))

    _base_url = ""  # of a client that could not be made

    def __init__(
        self,
        *,
        api_key: str | ApiKeyProvider | None = None,
        organization: str | None = None,
        project: str | None = None,
        base_url: str | None = None,
        timeout: float | None = TIMEOUT,
        attempt_timeout: float | None = ATTEMPT_TIMEOUT,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        max_retries: int = MAX_RETRIES,
        retry_policy: RetryPolicy | None = None,
        max_connections: int = MAX_CONNECTIONS,
        verify_replies: bool = True,
        default_headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl: tls.SSLContext | None = None,
        allow_http: bool = False,
        on_attempt: Callable[[Attempt], object] | None = None,
    ) -> None:
        given = client_options(locals())
        del api_key, base_url, default_headers, organization, project, proxy
        client = _Client(**given, max_connections=max_connections)
        name = f"{type(self).__name__}(base_url={client.base_url!r})"
        self._set_up(client, LoopThread(client.hand_over(), name), owns_loop_thread=True)

    def _set_up(
        self, client: "_Client", loop_thread: LoopThread, *, owns_loop_thread: bool
    ) -> None:
        self._client = client
        self._base_url = client.base_url
        self._loop_thread = loop_thread
        self._owns_loop_thread = owns_loop_thread
        self.sessions = Sessions(client.sessions, loop_thread)

    def with_options(self, **options: Unpack[ClientOptions]) -> Self:
        """Return a client with other settings, on the same connections.

        Closing it closes nothing; it ends with this one. It is paced together with this one when
        the API pushes back, unless it has another key, organization, project or base URL.

        Args:
            **options: The options that differ: see `ClientOptions`.

        Raises:
            ConfigurationError: with every problem of the settings.
        """
        options = traceback_safe_options(options)
        client = self._client.with_options(**options)
        other = object.__new__(type(self))
        other._set_up(client, self._loop_thread, owns_loop_thread=False)
        return other

    def _make_threads(self, make: "type[Threads]") -> "Threads":
        return make(self._client.threads, self._loop_thread)

    def close(self) -> None:
        """Close every connection. Calls in flight end with `ClientClosedError`."""
        if self._owns_loop_thread:
            self._loop_thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._base_url!r})"

    def __reduce__(self) -> str:
        raise not_picklable(type(self))


class Sessions:
    """Creates and cancels ChatKit sessions: `client.sessions`.

    Attributes:
        with_raw_response: The same methods, returning the reply as it came: see `APIResponse`.

    API documentation: https://platform.openai.com/docs/api-reference/chatkit/sessions
    """

    with_raw_response: "SessionsWithRawResponse"

    def __init__(self, sessions: AsyncSessions, loop_thread: LoopThread) -> None:
        self._sessions = sessions
        self._loop_thread = loop_thread
        self.with_raw_response = SessionsWithRawResponse(sessions.with_raw_response, loop_thread)

    @keywords_only
    def create(
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
        return self._loop_thread.run(
            self._sessions.create,
            user=user,
            workflow=workflow,
            chatkit_configuration=chatkit_configuration,
            expires_after=expires_after,
            rate_limits=rate_limits,
            **options,
        )

    def cancel(self, session_id: str, **options: Unpack[RequestOptions]) -> ChatSession:
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
        return self._loop_thread.run(self._sessions.cancel, session_id, **options)

    def open(
        self,
        *,
        user: str,
        workflow: WorkflowLike,
        chatkit_configuration: ChatKitConfigurationLike | None = None,
        expires_after: ExpiresAfterLike | None = None,
        rate_limits: RateLimitsLike | None = None,
        **options: Unpack[RequestOptions],
    ) -> AbstractContextManager[ChatSession]:
        """Create a session for the length of a `with` block, and cancel it on the way out.

        It is cancelled also when the block raises, or is interrupted by Ctrl-C; leaving waits for
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
        warn_of_latest(workflow)
        session = self._sessions.open(
            user=user,
            workflow=workflow,
            chatkit_configuration=chatkit_configuration,
            expires_after=expires_after,
            rate_limits=rate_limits,
            **options,
        )
        return self._loop_thread.enter(session)

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
    ) -> "BlockingBulkRun[CreateRowT, ChatSession]":
        """Create a session for each row, and give the outcome of each: see `BlockingBulkRun`.

        Use each session as it comes: its secret lives 600 seconds at most. Nothing is sent before
        the run is entered or iterated.

        Args:
            rows: An iterable, or an asynchronous one, of `SessionCreateParams`, mappings with the
                keys of `create`'s arguments, or bare user ids. It is read in this thread, a few
                rows at a time, at most twice `concurrency` ahead of the outcomes that were taken.
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
        run = self._sessions.create_many(
            rows,
            concurrency=concurrency,
            ordered=ordered,
            rate=rate,
            max_wait=max_wait,
            max_failures=max_failures,
            defaults=defaults,
            **options,
        )
        return BlockingBulkRun(run, self._loop_thread)

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
    ) -> "BlockingBulkRun[CancelRowT, ChatSession]":
        """Cancel sessions, and give the outcome of each: see `BlockingBulkRun`.

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
        run = self._sessions.cancel_many(
            session_ids,
            concurrency=concurrency,
            ordered=ordered,
            rate=rate,
            max_wait=max_wait,
            max_failures=max_failures,
            **options,
        )
        return BlockingBulkRun(run, self._loop_thread)


def _blocking(
    method: Callable[
        Concatenate[AsyncSessionsWithRawResponse, P], Coroutine[Any, Any, APIResponse[ChatSession]]
    ],
) -> "Callable[Concatenate[SessionsWithRawResponse, P], APIResponse[ChatSession]]":
    """Give a method that is a coroutine function its blocking form: its own parameters."""

    @wraps(method)
    def blocking(
        self: "SessionsWithRawResponse", /, *args: P.args, **kwargs: P.kwargs
    ) -> APIResponse[ChatSession]:
        warn_of_latest(kwargs.get("workflow"))
        try:
            return self._run(method, self._sessions, *args, **kwargs)  # pyright: ignore[reportPrivateUsage]
        finally:
            del kwargs  # headers may be credentials, and what is raised holds this frame

    return blocking


class SessionsWithRawResponse:
    """The methods of `Sessions`, each returning an `APIResponse`.

    They are `client.sessions.with_raw_response`.

    Attributes:
        create: As `Sessions.create`.
        cancel: As `Sessions.cancel`.
    """

    def __init__(self, sessions: AsyncSessionsWithRawResponse, loop_thread: LoopThread) -> None:
        self._sessions = sessions
        self._run = loop_thread.run

    create: Final = _blocking(AsyncSessionsWithRawResponse.create)
    cancel: Final = _blocking(AsyncSessionsWithRawResponse.cancel)


# The specs of `mock.create_autospec`: see `AsyncChatKit`.
Sessions.with_raw_response = cast("SessionsWithRawResponse", SessionsWithRawResponse)
ChatKit.sessions = cast("Sessions", Sessions)


class _Client(AsyncChatKit):
    """The client behind a blocking one."""

    @property
    def base_url(self) -> str:
        return self._base_url

    def hand_over(self) -> Transport:
        """Hand the connections over: the loop thread closes them, and warns if nobody did."""
        self._owns_transport = False
        return self._attempts.transport

    def __reduce__(self) -> str:
        raise not_picklable(ChatKit)  # the one that users know


def parts_of(client: ChatKit) -> tuple[AsyncChatKit, LoopThread]:
    """Return the client behind a blocking one, and the thread that runs its coroutines.

    It is a function, so that no user of a client meets it.
    """
    return client._client, client._loop_thread  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
