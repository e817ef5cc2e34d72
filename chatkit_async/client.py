"""AsyncChatKit: a client's settings and lifetime, and the loop of attempts that is a call."""

import asyncio
import inspect
import logging
import os
import platform
import random
import ssl as tls
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from math import inf
from types import TracebackType
from typing import Generic, Self, TypeVar, Unpack, cast
from weakref import WeakSet

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from chatkit_async import __version__, _protocol, _retry
from chatkit_async._gate import RateGate
from chatkit_async._protocol import Call, Reply
from chatkit_async._retry import RetryBudget
from chatkit_async._transport import Link, Tally, Transport
from chatkit_async.bulk import BulkClient, Patience, RowState
from chatkit_async.errors import (
    APIError,
    APIStatusError,
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    RateLimitError,
)
from chatkit_async.models import ChatSession
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
    Settings,
    hidden,
    hide,
    key_problem,
    refuse_unknown,
)
from chatkit_async.secret import Secret, mask_text
from chatkit_async.sessions import APIResponse, AsyncSessions

__all__ = ["AsyncChatKit", "Beta", "BetaChatKit"]

T = TypeVar("T", bound=ChatSession)
S_co = TypeVar("S_co", covariant=True)

_logger = logging.getLogger("chatkit_async")

RESOLUTION = 0.001
"""Seconds that a clock may not tell apart: with less left, a call's time is up."""

RATE_LIMITED_TOGETHER = frozenset({"api_key", "organization", "project", "base_url"})
"""The options that say whose rate limit counts."""

MAX_CAUSE = 300
"""Characters of what a lower layer said that are kept on an error: some of it is the server's."""

USER_AGENT = (
    f"chatkit-async/{__version__} Python/{platform.python_version()} aiohttp/{aiohttp.__version__}"
)


@attrs.frozen
class Seam:
    """Where a client takes time, sleep and randomness from, for tests to put their own under it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    random: Callable[[], float] = random.random


@attrs.frozen
class BetaChatKit(Generic[S_co]):
    """`client.beta.chatkit`: where the OpenAI SDKs have `sessions`."""

    sessions: S_co


@attrs.frozen
class Beta(Generic[S_co]):
    """`client.beta`: where the OpenAI SDKs have `chatkit`."""

    chatkit: BetaChatKit[S_co]


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
        base_url: Where the API is, https. Default: `OPENAI_BASE_URL`, else
            `https://api.openai.com/v1`.
        timeout: Seconds for a whole call: every attempt, every wait. None: no limit.
        attempt_timeout: Seconds for each attempt. None: no limit.
        connect_timeout: Seconds to open a connection, TLS included. None: no limit.
        max_retries: Attempts after the first, at least 0.
        retry_policy: How long to wait between attempts, where the API does not say.
        max_connections: Connections open at a time, per event loop, at least 1.
        default_headers: Headers for every request.
        proxy: URL of an HTTP proxy. Default: `HTTPS_PROXY` and its like, looked up once;
            `NO_PROXY` is respected, and this machine is never reached by a proxy.
        ssl: TLS settings. Default: the CAs that Python's `ssl` trusts.
        allow_http: Whether plain http is allowed to hosts other than this machine.
        on_attempt: Called with an `Attempt` after each attempt. What it raises ends the call, and
            is raised as it is.
        http_session: A session of yours to send through: it serves the loop it was made in, keeps
            its own cookies and connector, and is never closed.

    Raises:
        ConfigurationError: with every problem of the settings. A key is never echoed.
    """

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
        default_headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl: tls.SSLContext | None = None,
        allow_http: bool = False,
        on_attempt: Callable[[Attempt], object] | None = None,
        http_session: aiohttp.ClientSession | None = None,
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
        settings = Settings.resolve(given, max_connections=max_connections)
        transport = Transport(max_connections=max_connections, http_session=http_session)
        self._set_up(
            given=given,
            settings=settings,
            transport=transport,
            seam=Seam(),
            gate=RateGate(),
            budget=RetryBudget(),
        )
        self._owns_transport = True

    def _set_up(
        self,
        *,
        given: ClientOptions,
        settings: Settings,
        transport: Transport,
        seam: Seam,
        gate: RateGate,
        budget: RetryBudget,
    ) -> None:
        self._settings = settings
        # What the environment said is said once: with_options() does not ask again.
        self._given: ClientOptions = {
            **given,
            "api_key": settings.api_key,
            "organization": settings.organization or "",
            "project": settings.project or "",
            "base_url": settings.base_url,
        }
        self._transport = transport
        self._seam = seam
        self._gate = gate
        self._budget = budget
        self._base_url = str(URL(settings.base_url))
        self._link = Link(settings.connect_timeout, settings.proxy, settings.ssl)
        self._headers = _static_headers(settings)
        self.sessions: AsyncSessions = AsyncSessions(self._call, self._call_raw, self._bulk_client)
        _parts.update((transport, gate))

    @property
    def beta(self) -> Beta[AsyncSessions]:
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
        refuse_unknown(options, ClientOptions)
        given: ClientOptions = {**self._given, **options}
        settings = Settings.resolve(given)
        if options.keys().isdisjoint({"base_url", "proxy"}):
            settings = attrs.evolve(settings, proxy=self._settings.proxy)
        other = object.__new__(type(self))
        gate, budget = self._gate, self._budget
        if not RATE_LIMITED_TOGETHER.isdisjoint(options):
            gate, budget = RateGate(), RetryBudget()
        other._set_up(
            given=given,
            settings=settings,
            transport=self._transport,
            seam=self._seam,
            gate=gate,
            budget=budget,
        )
        return other

    # Lifetime

    async def close(self) -> None:
        """Close every connection. Calls in flight end with `ClientClosedError`."""
        if self._owns_transport:
            await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if self._owns_transport and self._transport.is_open:
            warnings.warn(f"unclosed client {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._base_url!r})"

    def __reduce__(self) -> str:
        raise TypeError(
            f"{type(self).__name__} holds connections and cannot be pickled: make one per process"
        )

    # Calls

    async def _call(self, call: Call[T], options: RequestOptions) -> T:
        result, _, _, _ = await self._attempts(call, options)
        return result

    async def _call_raw(self, call: Call[T], options: RequestOptions) -> APIResponse[T]:
        result, reply, attempts, elapsed = await self._attempts(call, options)
        return APIResponse(
            status_code=reply.status,
            headers=reply.headers,
            content=reply.content,
            attempts=attempts,
            elapsed=elapsed,
            result=result,
        )

    def _bulk_client(self) -> BulkClient:
        """What a bulk run needs of this client."""
        return BulkClient(
            self._attempts, self._transport.capacity, now=self._seam.now, sleep=self._seam.sleep
        )

    async def _attempts(
        self, call: Call[T], options: RequestOptions, row: RowState | None = None
    ) -> tuple[T, Reply, int, float]:
        """Make attempts until one succeeds or none may follow.

        For a `row` of a bulk run it is noted how far it has come. When the API pushes back, such a
        call goes to the rate gate again, and neither that attempt nor the wait counts against its
        limits.

        Returns:
            The result, the reply it was read from, the attempts made, and the seconds spent.
        """
        settings, now, gate = self._settings, self._seam.now, self._gate
        tally = Tally() if row is None else row.tally
        timeout = options.get("timeout", settings.timeout)
        attempt_timeout = options.get("attempt_timeout", settings.attempt_timeout)
        max_retries = options.get("max_retries", settings.max_retries)
        started = now()
        deadline = None if timeout is None else started + timeout
        number = 0
        error: APIError | None = None
        while True:
            if self._transport.closed:
                raise ClientClosedError
            if not gate.is_free:
                deadline = await self._pass_gate(started, deadline, number, error, row)
            number += 1
            if row is not None:
                row.attempts = number
            begun = now()
            try:
                result, reply = await self._attempt(
                    call, attempt_timeout, None if deadline is None else deadline - begun, tally
                )
            except APIError as failed:
                error = failed
            else:
                ended = now()
                gate.accepted(ended, begun)
                self._budget.put_back()
                if row is not None:
                    row.note_success(result, ended)
                self._report(call, number, ended - begun, reply=reply)
                return result, reply, number, ended - started
            # What is raised below is raised outside of the block above, and so without a context.
            ended = now()
            error.attempts, error.elapsed = number, ended - started
            wait = self._wait_after(
                error,
                number=number,
                begun=begun,
                ended=ended,
                deadline=deadline,
                max_retries=max_retries,
                row=row,
            )
            self._report(call, number, ended - begun, error=error, next_wait=wait)
            if wait is None:
                try:
                    raise error
                finally:
                    del error  # its traceback holds this frame
            if row is not None and _retry.is_push_back(error):
                deadline = _later(deadline, ended - begun)  # and waits at the gate
            else:
                await self._pause(self._seam.sleep(wait))

    def _wait_after(
        self,
        error: APIError,
        *,
        number: int,
        begun: float,
        ended: float,
        deadline: float | None,
        max_retries: int,
        row: RowState | None,
    ) -> float | None:
        """Tell the gate of a failed attempt; return the seconds until the next; None: none."""
        policy, gate = self._settings.retry_policy, self._gate
        pushed_back = _retry.is_push_back(error)
        excused = 0
        if row is not None:
            row.note_failure(error, ended, pushed_back=pushed_back)
            excused = row.pushed_back
        spares_limits = row is not None and pushed_back
        wait = _retry.next_wait(
            error,
            retries_made=excused - 1 if spares_limits else number - 1 - excused,
            max_retries=excused if spares_limits else max_retries,
            time_left=None if spares_limits or deadline is None else deadline - ended,
            policy=policy,
            budget=self._budget,
            random=self._seam.random,
        )
        if pushed_back:
            asked = wait or getattr(error, "retry_after", None) or policy.initial_backoff
            gate.push_back(ended, begun, asked)
        elif (
            isinstance(error, APIStatusError) and error.status_code != HTTPStatus.TOO_MANY_REQUESTS
        ):
            gate.accepted(ended, begun)
        return wait

    async def _attempt(
        self,
        call: Call[T],
        attempt_timeout: float | None,
        time_left: float | None,
        tally: Tally,
    ) -> tuple[T, Reply]:
        """Send a call once, and read the reply.

        Raises:
            APIError: it failed.
            ClientClosedError: the client is closed.
        """
        whole = time_left is not None and (attempt_timeout is None or time_left < attempt_timeout)
        transport = self._transport
        keys: list[Secret] = []
        timers = transport.timers()
        timer = timers.start(time_left if whole else attempt_timeout)
        try:
            async with timer:
                reply = await self._exchange(call, keys, tally)
        except APIError as error:
            failure = error
        except TimeoutError:
            if not timer.expired():
                raise  # somebody else's: the key's
            failure = _timed_out(self._base_url, attempt_timeout, whole=whole)
        else:
            return _protocol.read(call, reply, [*keys, *self._link.login]), reply
        finally:
            timers.stop(timer)
        if transport.closed:
            raise ClientClosedError
        if failure.cause is not None:
            # Masked before it is cut: nobody recognises half a key.
            failure.cause = mask_text(failure.cause, [*keys, *self._link.login])[:MAX_CAUSE]
        try:
            raise failure
        finally:
            del failure

    async def _exchange(self, call: Call[T], keys: list[Secret], tally: Tally) -> Reply:
        """Send a call, and once more if a callable has another key than the one rejected.

        `keys` is given each key that was sent.
        """
        keys.append(await self._key())
        reply = await self._send(call, keys[-1], tally)
        if reply.status == HTTPStatus.UNAUTHORIZED and callable(self._settings.api_key):
            keys.append(await self._key())
            if keys[-1] != keys[0]:
                tally.answered += 1
                reply = await self._send(call, keys[-1], tally)
        return reply

    async def _send(self, call: Call[T], key: Secret, tally: Tally) -> Reply:
        headers = self._headers
        if call.headers or callable(self._settings.api_key):
            headers = headers.copy()
            headers.setdefault("Authorization", Secret(f"Bearer {key}"))
            headers.update(call.headers)
        url = URL(self._base_url + call.path, encoded=True)
        try:
            return await self._transport.send(
                call.method,
                url,
                headers=headers,
                body=call.body,
                link=self._link,
                tally=tally,
            )
        except asyncio.CancelledError as error:
            # Its own frames hold what was read of the reply, and the client secret in it.
            error.__traceback__ = None
            raise

    async def _key(self) -> Secret:
        """The key for an attempt, from wherever it comes.

        Raises:
            ConfigurationError: the callable's key cannot be right.
        """
        provider = self._settings.api_key
        if not callable(provider):
            return provider
        given: object = provider()
        # No frame is to hold it as a plain str when something raises.
        given = hide(await given if inspect.isawaitable(given) else given)
        if (problem := key_problem(given)) is not None:
            raise ConfigurationError([("api_key", f"the key that the callable gave {problem}")])
        return Secret(cast("Secret", given).strip())

    async def _pass_gate(
        self,
        started: float,
        deadline: float | None,
        attempts: int,
        last: APIError | None,
        row: RowState | None,
    ) -> float | None:
        """Wait for a call's turn, after the API pushed back.

        Returns:
            The deadline. A row's is later by the wait.

        Raises:
            APIError: the turn does not come before the deadline, or before a row's run has lost
                patience: the last error, if there is one.
            RunEndedError: the row's run has ended.
            ClientClosedError: the client was closed meanwhile.
        """
        patience = None if row is None else row.patience
        gate, now = self._gate, self._seam.now
        loop = asyncio.get_running_loop()
        reached = now()
        limit = deadline
        woken = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # a loop that was closed under its tasks
                loop.call_soon_threadsafe(woken.set)

        ticket = gate.enter(started, wake)
        try:
            while True:
                if patience is not None:
                    limit = patience.deadline(started, attempts=attempts)
                asked = now()
                wait = gate.admit(ticket, asked)
                if wait == 0:
                    return deadline if row is None else _later(deadline, asked - reached)
                time_left = inf if limit is None else limit - asked
                its_turn = wait < inf
                earliest = max(gate.opens_in(asked), wait if its_turn else 0.0)
                if earliest >= time_left - RESOLUTION:
                    break
                if its_turn:
                    await self._pause(self._seam.sleep(wait), patience=patience)
                else:
                    most = None if limit is None else time_left
                    await self._pause(woken.wait(), most, patience=patience)
                    woken.clear()
        finally:
            gate.leave(ticket)
        if patience is not None:
            patience.ran_out = True
        failure = last or _kept_back(max(0.0, gate.opens_in(now())), of_a_run=patience is not None)
        failure.attempts, failure.elapsed = attempts, now() - started
        try:
            raise failure
        finally:
            del failure, last

    async def _pause(
        self,
        wait: Awaitable[object],
        limit: float | None = None,
        *,
        patience: Patience | None = None,
    ) -> None:
        """Wait for something, up to a limit in seconds, or until the client or a run is closed.

        Raises:
            ClientClosedError: the client was closed meanwhile.
        """
        # Closed already: then nothing else would end this wait early.
        timers = self._transport.timers()
        timer = timers.start(0 if self._transport.closed else limit)
        if patience is not None:
            patience.timers[timer] = None
        try:
            async with timer:
                await wait
        except TimeoutError:
            if not timer.expired():
                raise
        finally:
            timers.stop(timer)
            if patience is not None:
                del patience.timers[timer]
        if self._transport.closed:
            raise ClientClosedError

    def _report(
        self,
        call: Call[T],
        number: int,
        elapsed: float,
        *,
        reply: Reply | None = None,
        error: APIError | None = None,
        next_wait: float | None = None,
    ) -> None:
        """Tell the log and `on_attempt` of an attempt."""
        on_attempt = self._settings.on_attempt
        debug = _logger.isEnabledFor(logging.DEBUG)
        if on_attempt is None and not debug:
            return
        request_id = reply.request_id if reply else getattr(error, "request_id", None)
        if request_id is not None:
            key = self._settings.api_key
            request_id = mask_text(request_id, [key] if isinstance(key, str) else [])
        attempt = Attempt(
            method=call.method,
            route=call.route,
            number=number,
            status_code=reply.status if reply else getattr(error, "status_code", None),
            request_id=request_id,
            elapsed=elapsed,
            error=error,
            next_wait=next_wait,
        )
        if debug:
            _logger.debug(
                "%s %s: %s, request id %s, attempt %d, %.3f s%s",
                attempt.method,
                attempt.route,
                attempt.status_code or getattr(error, "kind", "failed"),
                attempt.request_id,
                number,
                elapsed,
                "" if next_wait is None else f", next in {next_wait:.3f} s",
            )
        if on_attempt is not None:
            on_attempt(attempt)


_parts = WeakSet[Transport | RateGate]()
"""What clients have that a forked child needs anew."""


def _after_fork() -> None:
    for part in tuple(_parts):
        part.after_fork()


with suppress(AttributeError):  # Windows does not fork
    os.register_at_fork(after_in_child=_after_fork)


def _static_headers(settings: Settings) -> CIMultiDict[str]:
    """What every request of a client carries; credentials are masked in a repr of it."""
    name, value = _protocol.BETA_HEADER
    headers = CIMultiDict(
        {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            name: value,
        }
    )
    if settings.organization is not None:
        headers["OpenAI-Organization"] = settings.organization
    if settings.project is not None:
        headers["OpenAI-Project"] = settings.project
    if isinstance(settings.api_key, str):
        headers["Authorization"] = Secret(f"Bearer {settings.api_key}")
    headers.update(settings.default_headers)
    return headers


def _later(deadline: float | None, seconds: float) -> float | None:
    return None if deadline is None else deadline + seconds


def _kept_back(seconds: float, *, of_a_run: bool) -> RateLimitError:
    end = "max_wait of its run" if of_a_run else "its timeout"
    return RateLimitError(
        "not sent: the API pushed back (429), and this call's turn does not come before "
        f"{end} ends; the rate gate opens in {seconds:.1f} s",
        status_code=HTTPStatus.TOO_MANY_REQUESTS,
        retry_after=seconds or None,
    )


def _timed_out(base_url: str, attempt_timeout: float | None, *, whole: bool) -> APITimeoutError:
    host = URL(base_url).host
    if whole:
        return APITimeoutError(f"no reply from {host} within timeout, the limit of the whole call")
    return APITimeoutError(
        f"no reply from {host} within attempt_timeout={attempt_timeout} s", limit="attempt_timeout"
    )
