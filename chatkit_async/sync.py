"""ChatKit: the blocking client. It runs the coroutines of AsyncChatKit on an anyio portal's loop."""

import asyncio
import atexit
import os
import ssl as tls
import warnings
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, suppress
from functools import cached_property, wraps
from threading import Lock, Thread, get_ident, main_thread
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    ParamSpec,
    Self,
    TypeAlias,
    TypeVar,
    Unpack,
    cast,
)

from chatkit_async._transport import Transport
from chatkit_async.client import AsyncChatKit, Beta, BetaChatKit
from chatkit_async.errors import ChatKitError, ClientClosedError
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

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

__all__ = ["ChatKit", "Sessions", "SessionsWithRawResponse"]

P = ParamSpec("P")
T = TypeVar("T")

CANCEL_PATIENCE = 2.0
"""Seconds that a caller who gives up waits at most for its call to end on the loop."""

EXIT_PATIENCE = 0.5
"""Seconds that the end of the process waits at most for a client that was not closed."""

SLICE = 0.1 if os.name == "nt" else 1.0
"""Seconds of a wait at a time, after which Python looks for a Ctrl-C.

Windows does not interrupt a lock for it. Elsewhere a signal does, unless it came just before the
wait, or was no signal: `_thread.interrupt_main`, as debuggers and editors use it.
"""


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
        crossing = _Crossing(
            client.hand_over(), f"{type(self).__name__}(base_url={client.base_url!r})"
        )
        self._set_up(client, crossing, owns_crossing=True)

    def _set_up(self, client: "_Client", crossing: "_Crossing", *, owns_crossing: bool) -> None:
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

    def __init__(self, sessions: AsyncSessions, crossing: "_Crossing") -> None:
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

    def __init__(self, sessions: AsyncSessionsWithRawResponse, crossing: "_Crossing") -> None:
        self.create: Final = _blocking(sessions.create, crossing)
        self.cancel: Final = _blocking(sessions.cancel, crossing)


def _blocking(method: Callable[P, Coroutine[Any, Any, T]], crossing: "_Crossing") -> Callable[P, T]:
    """Give a method that is a coroutine function its blocking form: its own parameters."""

    @wraps(method)
    def blocking(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            work = method(*args, **kwargs)
        finally:
            del kwargs  # headers may be credentials, and what is raised holds this frame
        return crossing.run(work)

    return blocking


# Crossing over ------------------------------------------------------------------------------------


_Started: TypeAlias = "Future[tuple[asyncio.AbstractEventLoop, BlockingPortal]]"


class _Client(AsyncChatKit):
    """The client behind a blocking one."""

    @property
    def base_url(self) -> str:
        return self._base_url

    def hand_over(self) -> Transport:
        """Give the connections away: whoever has them closes them, and warns."""
        self._owns_transport = False
        return self._transport


class _OwnLoopError(ChatKitError, RuntimeError):
    """A call was made in the very thread that would have to serve it."""


class _Crossing:
    """The way from a caller's thread to the loop, shared by a client and those made from it.

    When the last of them is gone, so is this. It has a portal for each process: in a forked child
    the parent's has no thread, and its sockets are still the parent's, so it is left alone.
    """

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._name = name
        self._portals: dict[int, _Portal] = {}
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop; return what it returns, raise what it raises."""
        return self._portal().run(work)

    @contextmanager
    def enter(self, context: AbstractAsyncContextManager[T]) -> Generator[T]:
        """Enter and leave an asynchronous context manager, one that swallows nothing."""
        value = self.run(context.__aenter__())
        try:
            yield value
        except BaseException as error:
            self.run(context.__aexit__(type(error), error, error.__traceback__))
            raise
        else:
            self.run(context.__aexit__(None, None, None))

    def close(self) -> None:
        """End the portal of this process, and wait for its thread."""
        self._portal().close()
        self._closed = True  # in processes yet to be forked, too

    def _portal(self) -> "_Portal":
        # Not under a lock: in a forked child, a thread that is no more could be holding it.
        pid = os.getpid()
        return self._portals.get(pid) or self._portals.setdefault(
            pid, _Portal(self._transport, self._name, closed=self._closed)
        )

    def __del__(self) -> None:
        if (portal := self._portals.get(os.getpid())) is not None:
            portal.drop()


class _Portal:
    """An anyio portal on a thread of this process, started on first use.

    Not by `start_blocking_portal`: its context manager joins the thread when it is finalized, and
    so hangs at exit, in a forked child, and when the garbage collector runs in that very thread.
    """

    def __init__(self, transport: Transport, name: str, *, closed: bool) -> None:
        # Not the client: `atexit` and the thread hold this, and a dropped client has to be noticed.
        self._transport = transport
        self._name = name
        self._pid = os.getpid()
        self._lock = Lock()
        self._started: _Started | None = None
        self._thread: Thread | None = None
        self._serving: set[int] = (
            set()
        )  # the ids of its threads: a start that was interrupted leaves one to end
        self._calls: set[_Call[Any]] = set()
        self._closed = closed

    # For callers

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """See `_Crossing.run`."""
        call = _Call(work)
        try:
            self._send(call)
            call.wait()
        except BaseException:  # such as Ctrl-C, or what a signal handler raises
            call.give_up()
            raise
        finally:
            self._calls.discard(call)
        error, call.error = call.error, None
        if error is None:
            return cast("T", call.result)
        try:
            if self._closed and isinstance(error, asyncio.CancelledError):
                raise ClientClosedError
            raise error
        finally:
            del error  # its traceback holds this frame

    def _send(self, call: "_Call[Any]") -> None:
        self._refuse_own_thread()
        loop, _ = (self._started or self._start()).result()
        if self._closed:
            raise ClientClosedError
        call.loop = loop
        self._calls.add(call)
        try:
            # The call runs in a copy of this thread's context: tracing depends on it.
            loop.call_soon_threadsafe(self._begin, call)
        except RuntimeError:  # the loop was closed just now
            call.drop()

    def _refuse_own_thread(self) -> None:
        if get_ident() in self._serving:
            raise _OwnLoopError(
                "this client was used in the thread that serves it, by a key callable or "
                "on_attempt: it would wait for itself for ever; use another client there"
            )

    def _start(self) -> "_Started":
        with self._lock:
            if self._closed:
                raise ClientClosedError
            if self._started is not None:
                return self._started
            started: _Started = Future()
            thread = Thread(target=self._serve, args=[started], name="chatkit-async", daemon=True)
            try:
                thread.start()
            except BaseException:  # such as Ctrl-C: it may run all the same
                if not started.cancel():
                    started.add_done_callback(_end_loop)
                raise
            self._started, self._thread = started, thread
            atexit.register(self._at_exit)
        return started

    # On its thread

    def _serve(self, started: "_Started") -> None:
        if not started.set_running_or_notify_cancel():
            return
        try:
            import anyio  # noqa: PLC0415 - 30 ms that only programs that block have to pay

            anyio.run(self._until_stopped, started)
        except BaseException as error:
            if not started.done():
                with self._lock:
                    self._started = None  # the next call tries anew
                started.set_exception(error)
            # As the interpreter ends, asyncio cannot start the thread that ends its executor.
            elif main_thread().is_alive():
                raise
        finally:
            self._serving.discard(get_ident())  # another thread may get it
            ended = started.result()[0] if started.exception() is None else None
            for call in [call for call in tuple(self._calls) if call.loop is ended]:
                call.drop()

    async def _until_stopped(self, started: "_Started") -> None:
        from anyio.from_thread import BlockingPortal  # noqa: PLC0415 - as above

        async with BlockingPortal() as portal:
            self._serving.add(get_ident())
            started.set_result((asyncio.get_running_loop(), portal))
            await portal.sleep_until_stopped()
            if self._closed:  # else a start was interrupted, and another thread may serve
                await self._transport.close()

    def _begin(self, call: "_Call[Any]") -> None:
        if self._closed:
            call.drop()
        else:
            call.begin()

    # Its end

    def close(self) -> None:
        """End the calls and the loop, and wait for the thread."""
        self._refuse_own_thread()
        with self._lock:
            self._end()
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(SLICE)

    def drop(self) -> None:
        """End the loop without waiting: the garbage collector may run in its thread."""
        if self._started is not None and not self._closed:
            self._end()
            warnings.warn(f"unclosed client {self._name}", ResourceWarning, stacklevel=3)

    def _at_exit(self) -> None:
        if self._pid == os.getpid() and self._thread is not None:
            self._end()
            self._thread.join(EXIT_PATIENCE)
            warnings.warn(f"unclosed client {self._name}", ResourceWarning, stacklevel=1)

    def _end(self) -> None:
        self._closed = True
        atexit.unregister(self._at_exit)
        if self._started is not None:
            self._started.add_done_callback(_end_loop)


class _Call(Generic[T]):
    """A coroutine that a caller in another thread waits for."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        # Released once. A concurrent.futures.Future takes 8 µs a call more.
        self._under_way = Lock()
        self._under_way.acquire()

    # For its caller

    def wait(self) -> None:
        """Wait for the call to end."""
        while not self._under_way.acquire(timeout=SLICE):
            pass

    def give_up(self) -> None:
        """Cancel the call, and wait a little for it to end: its connection is free then."""
        if self.loop is None:
            self.drop()  # it was never sent
            return
        with suppress(RuntimeError):  # the loop was closed just now
            self.loop.call_soon_threadsafe(self._cancel)
            self._under_way.acquire(timeout=CANCEL_PATIENCE)

    # On the loop

    def begin(self) -> None:
        self._task = asyncio.create_task(self._run())

    def drop(self) -> None:
        """End the call if it has not begun."""
        self._work.close()
        self._end(asyncio.CancelledError())

    async def _run(self) -> None:
        try:
            self.result = await self._work
        except BaseException as error:  # noqa: BLE001 - its caller's; SystemExit would end the loop
            self._end(error)
        else:
            self._end(None)

    def _cancel(self) -> None:
        if self._task is None:
            self.drop()
        else:
            # Next time round: a task that is cancelled before its first step never takes it.
            asyncio.get_running_loop().call_soon(self._task.cancel)

    def _end(self, error: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            self.error = error
            self._under_way.release()


def _end_loop(started: "_Started") -> None:
    if not started.exception():
        loop, portal = started.result()
        with suppress(RuntimeError):  # it has stopped already
            loop.call_soon_threadsafe(lambda: loop.create_task(portal.stop()))
