"""ChatKit: the blocking client. It runs the coroutines of AsyncChatKit on an anyio portal's loop."""

import ssl as tls
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, wraps
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, Unpack

from chatkit_async._portal import Crossing
from chatkit_async._transport import Transport
from chatkit_async.client import AsyncChatKit, Beta, BetaChatKit
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
    hidden,
)
from chatkit_async.sessions import AsyncSessions, AsyncSessionsWithRawResponse

__all__ = ["ChatKit", "Sessions", "SessionsWithRawResponse"]

P = ParamSpec("P")
T = TypeVar("T")


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
        base_url: Where the API is, https. Default: `OPENAI_BASE_URL`, else
            `https://api.openai.com/v1`.
        timeout: Seconds for a whole call: every attempt, every wait. None: no limit.
        attempt_timeout: Seconds for each attempt. None: no limit.
        connect_timeout: Seconds to open a connection, TLS included. None: no limit.
        max_retries: Attempts after the first, at least 0.
        retry_policy: How long to wait between attempts, where the API does not say.
        max_connections: Connections open at a time, at least 1.
        default_headers: Headers for every request.
        proxy: URL of an HTTP proxy. Default: `HTTPS_PROXY` and its like, looked up once;
            `NO_PROXY` is respected, and this machine is never reached by a proxy.
        ssl: TLS settings. Default: the CAs that Python's `ssl` trusts.
        allow_http: Whether plain http is allowed to hosts other than this machine.
        on_attempt: Called with an `Attempt` after each attempt. What it raises ends the call, and
            is raised as it is.

    Raises:
        ConfigurationError: with every problem of the settings. A key is never echoed.
    """

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
        default_headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl: tls.SSLContext | None = None,
        allow_http: bool = False,
        on_attempt: Callable[[Attempt], object] | None = None,
    ) -> None:
        given: ClientOptions = {
            "api_key": api_key,
            "organization": organization,
            "project": project,
            "base_url": base_url,
            "timeout": timeout,
            "attempt_timeout": attempt_timeout,
            "connect_timeout": connect_timeout,
            "max_retries": max_retries,
            "retry_policy": retry_policy,
            "default_headers": default_headers,
            "proxy": proxy,
            "ssl": ssl,
            "allow_http": allow_http,
            "on_attempt": on_attempt,
        }
        given = hidden(given)  # before anything can raise: see there
        del api_key, base_url, default_headers, organization, project, proxy
        client = _Client(**given, max_connections=max_connections)
        crossing = Crossing(
            client.hand_over(), f"{type(self).__name__}(base_url={client.base_url!r})"
        )
        self._set_up(client, crossing, owns_crossing=True)

    def _set_up(self, client: "_Client", crossing: Crossing, *, owns_crossing: bool) -> None:
        self._client = client
        self._base_url = client.base_url
        self._crossing = crossing
        self._owns_crossing = owns_crossing
        self.sessions: Sessions = Sessions(client.sessions, crossing)

    @property
    def beta(self) -> Beta["Sessions"]:
        """The path of the OpenAI SDKs: `client.beta.chatkit.sessions` is `client.sessions`."""
        return Beta(BetaChatKit(self.sessions))

    def with_options(self, **options: Unpack[ClientOptions]) -> Self:
        """Return a client with other settings, on the same connections.

        Closing it closes nothing; it ends with this one. It is paced together with this one when
        the API pushes back, unless it has another key, organization, project or base URL.

        Args:
            **options: What differs: see `ClientOptions`.

        Raises:
            ConfigurationError: with every problem of the settings.
        """
        options = hidden(options)  # before anything can raise: see there
        other = object.__new__(type(self))
        other._set_up(self._client.with_options(**options), self._crossing, owns_crossing=False)
        return other

    def close(self) -> None:
        """Close every connection. Calls in flight end with `ClientClosedError`."""
        if self._owns_crossing:
            self._crossing.close()

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
        raise TypeError(
            f"{type(self).__name__} holds connections and cannot be pickled: make one per process"
        )


class Sessions:
    """Creates and cancels ChatKit sessions: `client.sessions`.

    API documentation: https://platform.openai.com/docs/api-reference/chatkit/sessions
    """

    def __init__(self, sessions: AsyncSessions, crossing: Crossing) -> None:
        self._sessions = sessions
        self._crossing = crossing

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
        again: the API has no way to tell. Such a session lapses within its `expires_after`.

        Args:
            user: Your own id of the end user, not blank. Sessions of one user share their threads.
            workflow: The workflow to run: its id, a mapping, or `ChatSessionWorkflowParam`.
            chatkit_configuration: What the chat offers: a mapping, or
                `ChatSessionChatKitConfigurationParam`.
            expires_after: When the session ends: whole seconds, 1 to 600, a timedelta, a mapping,
                or `ChatSessionExpiresAfterParam`. The API's default: 600.
            rate_limits: What the end user may send: requests per minute, at least 1, a mapping,
                or `ChatSessionRateLimitsParam`. The API's default: 10.
            **options: What differs for this call from the client: see `RequestOptions`.

        Raises:
            ParameterError: the arguments cannot be right; nothing was sent.
            APIStatusError: the API refused: see its subclasses.
            APIConnectionError: no reply came; `APITimeoutError`: not in time.
            APIResponseError: the reply was of no use.
            ClientClosedError: the client was closed.

        API documentation: Create ChatKit session, `POST /chatkit/sessions`.
        """
        options = hidden(options)  # before anything can raise: see there
        return self._crossing.run(
            self._sessions.create(
                user=user,
                workflow=workflow,
                chatkit_configuration=chatkit_configuration,
                expires_after=expires_after,
                rate_limits=rate_limits,
                **options,
            )
        )

    def cancel(self, session_id: str, **options: Unpack[RequestOptions]) -> ChatSession:
        """Cancel a session: its client secret opens no new requests.

        Args:
            session_id: The session's id, `cksess_...`.
            **options: What differs for this call from the client: see `RequestOptions`.

        Returns:
            The session as it is now.

        Raises:
            ParameterError: the id cannot be right; nothing was sent.
            NotFoundError: there is no such session for this key's project.
            APIStatusError: the API refused: see its subclasses.
            APIConnectionError: no reply came; `APITimeoutError`: not in time.
            APIResponseError: the reply was of no use.
            ClientClosedError: the client was closed.

        API documentation: Cancel chat session, `POST /chatkit/sessions/{session_id}/cancel`.
        """
        options = hidden(options)  # before anything can raise: see there
        return self._crossing.run(self._sessions.cancel(session_id, **options))

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
        options = hidden(options)  # before anything can raise: see there
        return self._crossing.enter(
            self._sessions.open(
                user=user,
                workflow=workflow,
                chatkit_configuration=chatkit_configuration,
                expires_after=expires_after,
                rate_limits=rate_limits,
                **options,
            )
        )

    @cached_property
    def with_raw_response(self) -> "SessionsWithRawResponse":
        """The same methods, returning the reply as it came: see `APIResponse`."""
        return SessionsWithRawResponse(self._sessions.with_raw_response, self._crossing)


class SessionsWithRawResponse:
    """The methods of `Sessions`, returning an `APIResponse`: `client.sessions.with_raw_response`.

    Attributes:
        create: As `Sessions.create`.
        cancel: As `Sessions.cancel`.
    """

    def __init__(self, sessions: AsyncSessionsWithRawResponse, crossing: Crossing) -> None:
        self.create: Final = _blocking(sessions.create, crossing)
        self.cancel: Final = _blocking(sessions.cancel, crossing)


def _blocking(method: Callable[P, Coroutine[Any, Any, T]], crossing: Crossing) -> Callable[P, T]:
    """Give a method that is a coroutine function its blocking form: its own parameters."""

    @wraps(method)
    def blocking(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            work = method(*args, **kwargs)
        finally:
            del kwargs  # headers may be credentials, and what is raised holds this frame
        return crossing.run(work)

    return blocking


class _Client(AsyncChatKit):
    """The client behind a blocking one."""

    @property
    def base_url(self) -> str:
        return self._base_url

    def hand_over(self) -> Transport:
        """Give the connections away: whoever has them closes them, and warns."""
        self._owns_transport = False
        return self._transport
