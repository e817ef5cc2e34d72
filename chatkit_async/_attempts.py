"""The loop of attempts that makes one call: gate, deadline, key, retry, report."""

import asyncio
import inspect
import logging
import platform
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from http import HTTPStatus
from math import inf
from typing import Generic, NamedTuple, TypeVar, cast

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from chatkit_async import __version__, _protocol, _retry
from chatkit_async._gate import RateGate
from chatkit_async._protocol import Call, Reply
from chatkit_async._retry import RetryBudget, Verdict
from chatkit_async._settings import Settings, key_problem
from chatkit_async._transport import Link, Progress, Transport, running_loop
from chatkit_async.errors import (
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    RateLimitError,
)
from chatkit_async.models._base import ReplyObject
from chatkit_async.options import Attempt, RequestOptions, traceback_safe
from chatkit_async.secret import Secret, clean_text

T = TypeVar("T", bound=ReplyObject)

_logger = logging.getLogger("chatkit_async")

CLOCK_RESOLUTION = 0.001
"""Seconds that a clock may not resolve. With less than this left, a call's time is up."""

MAX_CAUSE = 300
"""Characters of a lower layer's message that an error keeps. Part of it may be the server's."""

USER_AGENT = (
    f"chatkit-async/{__version__} Python/{platform.python_version()} aiohttp/{aiohttp.__version__}"
)


@attrs.frozen
class Seam:
    """The source of a client's time, sleep and randomness, which tests can replace."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    random: Callable[[], float] = random.random


class Completed(NamedTuple, Generic[T]):
    """A call that succeeded.

    Attributes:
        result: The model read from the reply.
        reply: The reply of the last attempt.
        attempts: The number of attempts made.
        elapsed: Seconds from the start of the call to the reply, waits included.
    """

    result: T
    reply: Reply
    attempts: int
    elapsed: float


class Limits:
    """The limits of one call: the time it may take, and its retries.

    Times are readings of the client's clock, in seconds.

    Attributes:
        started: When the call started.
        deadline: When the whole call has to end. None means no limit.
        attempt_timeout: Seconds for each attempt. None means no limit.
        max_retries: Attempts after the first.
        gate_limit: The limit that bounds a wait at the rate gate, as an error names it.
    """

    __slots__ = ("attempt_timeout", "deadline", "max_retries", "started")

    gate_limit = "this call's timeout"

    def __init__(self, settings: Settings, options: RequestOptions, started: float) -> None:
        timeout = options.get("timeout", settings.timeout)
        self.started: float = started
        self.deadline: float | None = None if timeout is None else started + timeout
        self.attempt_timeout: float | None = options.get(
            "attempt_timeout", settings.attempt_timeout
        )
        self.max_retries: int = options.get("max_retries", settings.max_retries)

    def time_left(self, now: float) -> float | None:
        """Return the seconds until the deadline. None means no limit."""
        return None if self.deadline is None else self.deadline - now

    def gate_deadline(self, attempts: int) -> float | None:  # noqa: ARG002 - a bulk row's needs it
        """Return when a wait at the gate has to end, after that many attempts."""
        return self.deadline

    def waiting_at_gate(self, timer: asyncio.Timeout) -> AbstractContextManager[object]:  # noqa: ARG002 - likewise
        """Bound one wait at the gate, which `timer` ends."""
        return nullcontext()

    def note_gate_passed(self, waited: float) -> None:
        """Note that the gate admitted an attempt after so many seconds."""

    def note_gate_timeout(self) -> None:
        """Note that the wait at the gate took as long as it may."""

    def note_answer(self, now: float) -> None:
        """Note that the API answered, with anything but a push-back."""

    def next_wait(
        self,
        error: APIError,
        attempts: int,
        now: float,
        decide: Callable[[APIError, int, int | None, float | None], Verdict],
    ) -> Verdict:
        """Decide about a retry. `decide` takes the retries made, their limit and the time left."""
        return decide(error, attempts - 1, self.max_retries, self.time_left(now))

    def waits_at_gate_alone(self, error: APIError, elapsed: float) -> bool:  # noqa: ARG002 - likewise
        """Return True if the wait at the gate replaces the pause before the retry."""
        return False


class Attempts:
    """Makes the attempts of a client's calls.

    A call passes through here once, and through the loop in `make` once per attempt:

    1. While the rate gate is not free, the attempt waits for its turn.
    2. The attempt sends the request and reads the reply, within `attempt_timeout` and what is left
       of the deadline. If the key comes from a callable, a 401 gets one more request with a new key.
    3. The gate and the retry budget hear of the result.
    4. After a failure, `_retry.next_wait` returns the wait before the next attempt, or the reason
       why no attempt follows. `on_attempt` and the log receive either.

    The caller gives the `Limits` of the call, and a `Progress` that shows what was sent and
    answered, also when the call fails or is cancelled.
    """

    def __init__(
        self,
        settings: Settings,
        transport: Transport,
        *,
        seam: Seam | None = None,
        gate: RateGate | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        self.settings = settings
        self.transport = transport
        self.seam: Seam = seam or Seam()
        self.gate: RateGate = gate or RateGate()
        self.budget: RetryBudget = budget or RetryBudget()
        self.base_url: str = str(URL(settings.base_url))
        self._link = Link(settings.connect_timeout, settings.proxy, settings.ssl)
        self._headers = _static_headers(settings)

    def with_settings(self, settings: Settings, *, same_limit: bool) -> "Attempts":
        """Return the same with other settings, behind the same gate if the same limit counts."""
        return Attempts(
            settings,
            self.transport,
            seam=self.seam,
            gate=self.gate if same_limit else None,
            budget=self.budget if same_limit else None,
        )

    async def call(self, call: Call[T], options: RequestOptions) -> Completed[T]:
        """Make a plain call within the limits of its options."""
        return await self.make(call, Limits(self.settings, options, self.seam.now()), Progress())

    async def make(self, call: Call[T], limits: Limits, progress: Progress) -> Completed[T]:
        """Make attempts until one succeeds or no other may follow.

        Raises:
            APIError: the last attempt failed, or its turn at the gate did not come in time.
            ClientClosedError: the client is closed.
        """
        now, gate = self.seam.now, self.gate
        error: APIError | None = None
        while True:
            if self.transport.closed:
                raise ClientClosedError
            if not gate.is_free:
                await self._pass_gate(limits, progress, error)
            progress.attempts += 1
            begun = now()
            try:
                result, reply = await self._attempt(call, limits, progress, begun)
            except APIError as failed:
                error = failed
            else:
                ended = now()
                gate.accepted(ended, begun)
                self.budget.put_back()
                progress.note_success(result)
                limits.note_answer(ended)
                self._report(call, progress.attempts, ended - begun, reply=reply)
                return Completed(result, reply, progress.attempts, ended - limits.started)
            # What is raised below is raised outside of the block above, and so without a context.
            ended = now()
            error.attempts, error.elapsed = progress.attempts, ended - limits.started
            progress.note_failure(error)
            verdict = self._verdict(error, limits, progress, begun, ended)
            self._report(call, progress.attempts, ended - begun, error=error, verdict=verdict)
            if verdict.wait is None:
                try:
                    raise error
                finally:
                    del error  # its traceback holds this frame
            if not limits.waits_at_gate_alone(error, ended - begun):
                await self._pause(self.seam.sleep(verdict.wait))

    def _verdict(
        self, error: APIError, limits: Limits, progress: Progress, begun: float, ended: float
    ) -> Verdict:
        """Tell the gate of a failed attempt, and decide whether another follows."""
        if isinstance(error, APIStatusError) and not _retry.is_push_back(error):
            limits.note_answer(ended)
        verdict = limits.next_wait(error, progress.attempts, ended, self._decide)
        if not isinstance(error, APIStatusError):
            return verdict
        if _retry.is_push_back(error):
            asked = verdict.wait or error.retry_after or self.settings.retry_policy.initial_backoff
            self.gate.push_back(ended, begun, asked)
        elif error.status_code != HTTPStatus.TOO_MANY_REQUESTS:
            self.gate.accepted(ended, begun)
        return verdict

    def _decide(
        self, error: APIError, retries_made: int, max_retries: int | None, time_left: float | None
    ) -> Verdict:
        return _retry.next_wait(
            error,
            retries_made=retries_made,
            max_retries=max_retries,
            time_left=time_left,
            policy=self.settings.retry_policy,
            budget=self.budget,
            random=self.seam.random,
        )

    async def _attempt(
        self, call: Call[T], limits: Limits, progress: Progress, begun: float
    ) -> tuple[T, Reply]:
        """Send a call once, and once more if a callable has another key than the one rejected.

        Raises:
            APIError: the attempt failed.
            ClientClosedError: the client is closed.
        """
        transport, attempt_timeout = self.transport, limits.attempt_timeout
        time_left = limits.time_left(begun)
        whole = time_left is not None and (attempt_timeout is None or time_left < attempt_timeout)
        keys: list[Secret] = []
        timers = transport.timers()
        timer = timers.start(time_left if whole else attempt_timeout)
        try:
            async with timer:
                reply = await self._send_with_key(call, keys, progress)
        except APIError as error:
            failure = error
        except TimeoutError:
            if not timer.expired():
                raise  # somebody else's: the key's
            failure = _timed_out(self.base_url, attempt_timeout, whole=whole)
        else:
            return self._read(call, reply, [*keys, *self._link.login], progress), reply
        finally:
            timers.stop(timer)
        if transport.closed:
            raise ClientClosedError
        if failure.cause is not None:
            # Masked before it is cut: nobody recognises half a key.
            failure.cause = clean_text(failure.cause, [*keys, *self._link.login])[:MAX_CAUSE]
        try:
            raise failure
        finally:
            del failure

    def _read(self, call: Call[T], reply: Reply, secrets: list[Secret], progress: Progress) -> T:
        """Read a reply, and close the idle connections if it was not the reply to this request.

        A load balancer sends a 408 when a connection has been idle for too long. If it crosses the
        next request, the reply to that request may still come, and must not be read as a later one.
        """
        try:
            return _protocol.read(
                call,
                reply,
                secrets,
                verify=self.settings.verify_replies,
                after_loss=progress.lost > 1,
            )
        except APIResponseError as error:
            if error.kind == "mismatched":
                self.transport.close_idle_connections()
            raise
        except APIStatusError as error:
            if error.status_code == HTTPStatus.REQUEST_TIMEOUT:
                self.transport.close_idle_connections()
            raise

    async def _send_with_key(self, call: Call[T], keys: list[Secret], progress: Progress) -> Reply:
        """Send a request, and once more if its key was replaced. Adds to `keys` what it sends."""
        keys.append(await self._key())
        reply = await self._send(call, keys[0], progress)
        if reply.status == HTTPStatus.UNAUTHORIZED and callable(self.settings.api_key):
            keys.append(await self._key())
            if keys[1] != keys[0]:
                progress.answered += 1
                reply = await self._send(call, keys[1], progress)
        return reply

    async def _send(self, call: Call[T], key: Secret, progress: Progress) -> Reply:
        headers = self._headers
        if call.headers or callable(self.settings.api_key):
            headers = headers.copy()
            headers.setdefault("Authorization", Secret(f"Bearer {key}"))
            headers.update(call.headers)
        try:
            return await self.transport.send(
                call.method,
                URL(self.base_url + call.path, encoded=True),
                headers=headers,
                body=call.body,
                link=self._link,
                progress=progress,
            )
        except asyncio.CancelledError as error:
            # The frames below hold what was read of the reply, and the client secret in it.
            error.__traceback__ = None
            raise

    async def _key(self) -> Secret:
        """Return the key for an attempt.

        Raises:
            ConfigurationError: a callable returned an invalid key.
        """
        provider = self.settings.api_key
        if not callable(provider):
            return provider
        given: object = provider()
        # No frame is to hold it as a plain str when something raises.
        given = traceback_safe(await given if inspect.isawaitable(given) else given)
        if (problem := key_problem(given)) is not None:
            raise ConfigurationError([("api_key", f"the key from the callable {problem}")])
        return Secret(cast("Secret", given).strip())

    async def _pass_gate(self, limits: Limits, progress: Progress, last: APIError | None) -> None:
        """Wait for a call's turn at the rate gate.

        Raises:
            APIError: its turn does not come before the limit of this wait: the last error, if there
                is one.
            ClientClosedError: the client was closed meanwhile.
        """
        gate, now = self.gate, self.seam.now
        loop = running_loop()
        reached = now()
        woken = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # a loop that was closed under its tasks
                loop.call_soon_threadsafe(woken.set)

        ticket = gate.enter(limits.started, wake)
        try:
            while True:
                limit = limits.gate_deadline(progress.attempts)
                asked = now()
                time_left = inf if limit is None else limit - asked
                if time_left < CLOCK_RESOLUTION:
                    break  # even an open gate: a server that asks for short waits opens it at once
                wait = gate.admit(ticket, asked)
                if wait == 0:
                    limits.note_gate_passed(asked - reached)
                    return
                its_turn = wait < inf
                earliest = max(gate.opens_in(asked), wait if its_turn else 0.0)
                if earliest >= time_left - CLOCK_RESOLUTION:
                    break
                if its_turn:
                    await self._pause(self.seam.sleep(wait), limits=limits)
                else:
                    most = None if limit is None else time_left
                    await self._pause(woken.wait(), most, limits=limits)
                    woken.clear()
        finally:
            gate.leave(ticket)
        limits.note_gate_timeout()
        failure = last or _held_back(max(0.0, gate.opens_in(now())), limits.gate_limit)
        failure.attempts, failure.elapsed = progress.attempts, now() - limits.started
        try:
            raise failure
        finally:
            del failure, last

    async def _pause(
        self, wait: Awaitable[object], seconds: float | None = None, *, limits: Limits | None = None
    ) -> None:
        """Wait for something, at most so many seconds, or until the client is closed.

        `limits` are given by a wait at the gate, which they may end.

        Raises:
            ClientClosedError: the client was closed meanwhile.
        """
        # A client that is closed already has nothing else that would end this wait early.
        timers = self.transport.timers()
        timer = timers.start(0 if self.transport.closed else seconds)
        try:
            with limits.waiting_at_gate(timer) if limits else nullcontext():
                async with timer:
                    await wait
        except TimeoutError:
            if not timer.expired():
                raise
        finally:
            timers.stop(timer)
        if self.transport.closed:
            raise ClientClosedError

    def _report(
        self,
        call: Call[T],
        number: int,
        elapsed: float,
        *,
        reply: Reply | None = None,
        error: APIError | None = None,
        verdict: Verdict | None = None,
    ) -> None:
        """Tell the log and `on_attempt` about an attempt."""
        on_attempt = self.settings.on_attempt
        debug = _logger.isEnabledFor(logging.DEBUG)
        if on_attempt is None and not debug:
            return
        if reply is None:
            request_id = None if error is None else error.request_id
        else:
            key = self.settings.api_key
            keys = [key] if isinstance(key, str) else []
            request_id = reply.clean_request_id([*keys, *self._link.login])
        attempt = Attempt(
            method=call.method,
            route=call.route,
            number=number,
            status_code=reply.status if reply else getattr(error, "status_code", None),
            request_id=request_id,
            elapsed=elapsed,
            error=error,
            next_wait=verdict.wait if verdict else None,
            not_retried=verdict.reason if verdict else None,
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
                _what_follows(attempt),
            )
        if on_attempt is not None:
            on_attempt(attempt)


def _static_headers(settings: Settings) -> CIMultiDict[str]:
    """Return the headers of every request of a client. Credentials are masked in their repr."""
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


def _what_follows(attempt: Attempt) -> str:
    """Return what a log line says about the next attempt."""
    if attempt.next_wait is not None:
        return f", next attempt in {attempt.next_wait:.3f} s"
    return "" if attempt.not_retried is None else f", not retried: {attempt.not_retried}"


def _held_back(seconds: float, limit: str) -> RateLimitError:
    return RateLimitError(
        "Rate limited (429): the request was not sent, because the client is backing off for "
        f"another {seconds:.1f} s and {limit} ends before that.",
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
