"""AsyncChatKit: a client's arguments, `with_options`, and its lifetime."""

import ssl as tls
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, Unpack, cast

import aiohttp
import attrs

from chatkit_async._attempts import Attempts
from chatkit_async._fork import start_over_in_child
from chatkit_async._protocol import Call
from chatkit_async._settings import Settings
from chatkit_async._transport import Transport, not_picklable, running_loop, session_problems
from chatkit_async.models._base import ReplyObject
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
    refuse_unknown,
    traceback_safe_options,
)
from chatkit_async.sessions import APIResponse, AsyncSessions

if TYPE_CHECKING:
    from chatkit_async.threads import AsyncThreads

__all__ = ["AsyncChatKit", "Beta", "BetaChatKit"]

T = TypeVar("T", bound=ReplyObject)
S_co = TypeVar("S_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)

RATE_LIMITED_TOGETHER = frozenset({"api_key", "organization", "project", "base_url"})
"""The options that say whose rate limit counts."""


class Resources(Protocol[S_co, T_co]):
    """The resources of a client."""

    @property
    def sessions(self) -> S_co: ...
    @property
    def threads(self) -> T_co: ...


@attrs.frozen
class BetaChatKit(Generic[S_co, T_co]):
    """The resources of `client.chatkit` and `client.beta.chatkit`, as in the OpenAI SDKs."""

    _client: Resources[S_co, T_co] = attrs.field(repr=False)

    @property
    def sessions(self) -> S_co:
        """As `client.sessions`."""
        return self._client.sessions

    @property
    def threads(self) -> T_co:
        """As `client.threads`."""
        return self._client.threads


@attrs.frozen
class Beta(Generic[S_co, T_co]):
    """The path `client.beta` of the OpenAI SDKs.

    Attributes:
        chatkit: As `client.chatkit`.
    """

    chatkit: BetaChatKit[S_co, T_co]


class Derived(Generic[T_co]):
    """An attribute that is made of its client when it is read.

    On the class it is made of the class: that is the spec of `mock.create_autospec`.
    """

    def __init__(self, make: Callable[[Any], T_co]) -> None:
        self._make = make

    def __get__(self, client: object | None, owner: type) -> T_co:
        return self._make(owner if client is None else client)


class MadeOnce(Derived[T_co]):
    """A derived attribute that is made when it is first read, and kept."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, client: object | None, owner: type) -> T_co:
        made = super().__get__(client, owner)
        if client is not None:
            vars(client)[self._name] = made
        return made


def _threads(client: "AsyncChatKit | type[AsyncChatKit]") -> "AsyncThreads":
    from chatkit_async.threads import AsyncThreads  # noqa: PLC0415 - the import takes time

    if isinstance(client, type):
        return cast("AsyncThreads", AsyncThreads)
    return client._make_threads(AsyncThreads)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


class AsyncChatKit:
    """The client: creates and cancels ChatKit sessions.

    Make one for the life of your application; it may be used from several tasks, and from the
    event loops of several threads, each on connections of its own. Close it, or use
    `async with`.

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
        max_connections: Connections open at a time, per event loop, at least 1.
        verify_replies: Refuse a reply whose user or session is not the one in the request. False:
            for a gateway that rewrites user ids.
        default_headers: Headers for every request.
        proxy: URL of an HTTP proxy. Default: `HTTPS_PROXY` and its like, looked up once;
            `NO_PROXY` is respected, and this machine is never reached by a proxy.
        ssl: TLS settings. Default: the CAs that Python's `ssl` trusts.
        allow_http: True to allow plain http to hosts other than this machine.
        on_attempt: Called with an `Attempt` after each attempt. What it raises ends the call, and
            is raised as it is.
        http_session: A session of yours to send through: it serves the loop it was made in, keeps
            its own cookies and connector, and is never closed. Its connections may be reused with
            unread data on them: `verify_replies` alone protects its users from each other's
            secrets.

    Raises:
        ConfigurationError: with every problem of the settings. A key is never echoed.
    """

    # `mock.create_autospec` looks for attributes on the class alone: there, its spec is a class too.
    sessions: AsyncSessions = cast("AsyncSessions", AsyncSessions)
    threads: MadeOnce["AsyncThreads"] = MadeOnce(_threads)
    chatkit: Derived["BetaChatKit[AsyncSessions, AsyncThreads]"] = Derived(BetaChatKit)
    beta: Derived["Beta[AsyncSessions, AsyncThreads]"] = Derived(lambda c: Beta(BetaChatKit(c)))

    # Of a client that could not be made.
    _owns_transport = False
    _base_url = ""

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
        http_session: aiohttp.ClientSession | None = None,
    ) -> None:
        given = client_options(locals())
        del api_key, base_url, default_headers, organization, project, proxy
        settings = Settings.resolve(
            given,
            max_connections=max_connections,
            problems=[] if http_session is None else session_problems(http_session),
        )
        transport = Transport(max_connections=max_connections, http_session=http_session)
        self._set_up(given, Attempts(settings, transport))
        self._owns_transport = True

    def _set_up(self, given: ClientOptions, attempts: Attempts) -> None:
        settings = attempts.settings
        # The environment is read once: with_options() takes what it said from here.
        self._given: ClientOptions = {
            **given,
            "api_key": settings.api_key,
            "organization": settings.organization or "",
            "project": settings.project or "",
            "base_url": settings.base_url,
        }
        self._attempts = attempts
        self._base_url = attempts.base_url
        self.sessions = AsyncSessions(self._call, self._call_raw, attempts)
        start_over_in_child(attempts.transport, attempts.gate)

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
        refuse_unknown(options, ClientOptions)
        given: ClientOptions = {**self._given, **options}
        settings = Settings.resolve(given)
        if options.keys().isdisjoint({"base_url", "proxy"}):
            settings = attrs.evolve(settings, proxy=self._attempts.settings.proxy)
        other = object.__new__(type(self))
        same_limit = RATE_LIMITED_TOGETHER.isdisjoint(options)
        other._set_up(given, self._attempts.with_settings(settings, same_limit=same_limit))
        return other

    # Lifetime

    async def close(self) -> None:
        """Close every connection. Calls in flight end with `ClientClosedError`."""
        if self._owns_transport:
            await self._attempts.transport.close()

    async def __aenter__(self) -> Self:
        running_loop()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if self._owns_transport and self._attempts.transport.is_open:
            warnings.warn(f"unclosed client {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._base_url!r})"

    def __reduce__(self) -> str:
        raise not_picklable(type(self))

    # Calls

    def _make_threads(self, make: "type[AsyncThreads]") -> "AsyncThreads":
        return make(self._call, self._call_raw, self._attempts)

    async def _call(self, call: Call[T], options: RequestOptions) -> T:
        return (await self._attempts.call(call, options)).result

    async def _call_raw(self, call: Call[T], options: RequestOptions) -> APIResponse[T]:
        done = await self._attempts.call(call, options)
        return APIResponse(
            status_code=done.reply.status,
            headers=done.reply.headers,
            content=done.reply.content,
            attempts=done.attempts,
            elapsed=done.elapsed,
            result=done.result,
        )
