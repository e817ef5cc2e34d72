"""Sans-IO: whether and when to try again, the retry budget, the rate gate."""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from itertools import count
from math import inf
from threading import Lock
from typing import TypeGuard

import attrs

from chatkit_async.errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
)
from chatkit_async.options import RetryPolicy

_TRANSIENT_STATUSES = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_MANY_REQUESTS,
}


def next_wait(
    error: APIError,
    *,
    retries_made: int,
    max_retries: int,
    time_left: float | None,
    policy: RetryPolicy,
    budget: "RetryBudget",
    random: Callable[[], float],
) -> float | None:
    """Seconds until the next attempt; None: there is none.

    Args:
        error: How the last attempt failed.
        retries_made: Attempts after the first, so far.
        max_retries: How many of them there may be.
        time_left: Seconds left of the whole call; None: no limit.
        policy: How long to wait where the server does not say.
        budget: What the client may spend on retries.
        random: Draws evenly from 0 to 1.
    """
    if retries_made >= max_retries or not is_transient(error):
        return None
    asked = error.retry_after if isinstance(error, APIStatusError) else None
    if asked is None:
        doubled = 2.0 ** min(retries_made, 1000)  # a float ends at 2.0**1024
        ceiling = min(policy.max_backoff, policy.initial_backoff * doubled)
        wait = random() * ceiling
    else:
        # The server's wait is a minimum; the jitter on top keeps clients from coming back as one.
        wait = asked * (1 + 0.1 * random())
    if time_left is not None and wait >= time_left:
        return None  # sleeping towards certain failure helps nobody
    if not is_push_back(error) and not budget.draw():
        error.add_note("not tried again: too many attempts of this client fail")
        return None
    return wait


def is_push_back(error: APIError) -> TypeGuard[APIStatusError]:
    """Whether the server asks for fewer requests, rather than fails."""
    match error:
        case APIStatusError(status_code=HTTPStatus.TOO_MANY_REQUESTS):
            return not is_out_of_quota(error)
        case APIStatusError(status_code=HTTPStatus.SERVICE_UNAVAILABLE):
            return error.retry_after is not None
        case _:
            return False


def is_transient(error: APIError) -> bool:
    """Whether another attempt may fare better."""
    match error:
        case APIStatusError():
            return _is_transient_status(error)
        case APIConnectionError(kind=kind):
            return kind != "certificate"
        case APIResponseError(kind=kind):
            return kind == "truncated"
        case _:
            return False


def _is_transient_status(error: APIStatusError) -> bool:
    match error.headers.get("x-should-retry", "").strip().lower():
        case "true":
            return True
        case "false":
            return False
        case _:
            pass
    if is_out_of_quota(error):
        return False
    return (
        error.status_code in _TRANSIENT_STATUSES
        or error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


def is_out_of_quota(error: APIStatusError) -> bool:
    """Whether the project's quota is used up."""
    return "insufficient_quota" in {error.code, error.type}


# The retry budget ---------------------------------------------------------------------------------


class RetryBudget:
    """What a client may spend on retries, so that it does not multiply an outage by three.

    A token bucket: a retry takes a token, a success puts a part of one back. Retries after a 429
    take none: they wait for their turn at the gate.
    """

    CAPACITY = 20.0
    """Retries that may be made before any success."""

    PER_SUCCESS = 0.2
    """Tokens that a success puts back: in the long run, at most one retry for five successes."""

    def __init__(self) -> None:
        self._tokens = self.CAPACITY

    def draw(self) -> bool:
        """Take a token; False: there is none."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def put_back(self) -> None:
        """Note a success."""
        if self._tokens < self.CAPACITY:
            self._tokens = min(self.CAPACITY, self._tokens + self.PER_SUCCESS)


# The rate gate ------------------------------------------------------------------------------------


@attrs.frozen(order=True)
class Ticket:
    """A call's place in the queue at the gate: the call that started first goes first."""

    started: float
    number: int
    wake: Callable[[], None] = attrs.field(eq=False, order=False)


class RateGate:
    """Paces the attempts of a client after the server pushed back; free until then.

    After a push-back the gate is closed for the wait the server asked for. Then it lets attempts
    through one at a time, in order of their calls' start, at the rate that the server was seen to
    accept before; the rate grows with every success, and is measured anew at the next push-back.
    When no attempt had to wait for a while, the gate is free again.

    It knows no clock: `now`, `sent` and `started` are readings of one, in seconds. It may be used
    from the loops of several threads.
    """

    LONGEST = 60.0
    """Seconds that one reply closes the gate at most; then a probe goes."""

    GROWTH = 0.02
    """Attempts per second that a success adds to the rate."""

    FIRST = 1.0
    """Attempts per second that are tried at least after a push-back that found the gate free."""

    AT_LEAST = 1.0
    """Seconds over which a rate is measured at least while the gate is free."""

    MEMORY = 1000
    """Acceptances that are remembered to measure the rate by."""

    QUIET = 10.0
    """Seconds without a waiting attempt after which the gate is free again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rate: float | None = None  # attempts per second; None: free
        self._closed_until = -inf
        self._next_slot = -inf
        self._pushed_back = -inf  # when the last push-back that counted was heard
        self._waited = -inf  # until when an attempt last had to wait
        self._waiting: list[Ticket] = []
        self._numbers = count()
        self._accepted: deque[float] = deque(maxlen=self.MEMORY)  # when, since the last push-back
        self._measured = 1.0  # seconds that the rate was measured over

    @property
    def is_free(self) -> bool:
        """Whether attempts go through without asking."""
        return self._rate is None

    def after_fork(self) -> None:
        """In a forked child, forget the parent's attempts: nobody here waits, or holds the lock."""
        self._lock = Lock()
        self._waiting.clear()

    # Attempts that want to go

    def enter(self, started: float, wake: Callable[[], None]) -> Ticket:
        """Queue up. `wake` is called, from any thread, when it is worth asking `admit` again."""
        with self._lock:
            ticket = Ticket(started, next(self._numbers), wake)
            insort(self._waiting, ticket)
        return ticket

    def admit(self, ticket: Ticket, now: float) -> float:
        """Ask to go: 0.0: go. Else the seconds until asking again; infinite: wait to be woken."""
        with self._lock:
            if self._rate is None:
                return 0.0
            if self._waiting[0] is not ticket:
                self._waited = max(self._waited, now)
                return inf
            slot = max(self._next_slot, self._closed_until)
            if now < slot:
                self._waited = slot
                return max(slot - now, 0.001)  # a clock may not tell less apart
            if now - self._waited > self.QUIET:
                self._set_free()
                return 0.0
            # A timer that was late by less than half an interval is made up for.
            interval = 1 / self._rate
            self._next_slot = max(slot, now - interval / 2) + interval
            return 0.0

    def leave(self, ticket: Ticket) -> None:
        """Leave the queue, admitted or not."""
        with self._lock:
            place = bisect_left(self._waiting, ticket)
            del self._waiting[place]
            following = self._waiting[0] if place == 0 and self._waiting else None
        if following is not None:
            following.wake()

    def opens_in(self, now: float) -> float:
        """Seconds until any attempt can go; 0.0 or less: now."""
        return self._closed_until - now

    # What became of them

    def accepted(self, now: float, sent: float) -> None:
        """Note that the server accepted an attempt."""
        with self._lock:
            if self._rate is None:
                self._accepted.append(now)
            elif sent > self._pushed_back:
                self._accepted.append(now)
                self._rate += self.GROWTH
            else:
                # Accepted in the time that the rate was measured over, and heard of only now.
                self._rate += 1 / self._measured

    def push_back(self, now: float, sent: float, wait: float) -> None:
        """Note that the server refused an attempt, and the seconds to wait, jitter included."""
        with self._lock:
            wait = min(wait, self.LONGEST)
            self._closed_until = max(self._closed_until, now + wait)
            if sent <= self._pushed_back:
                return  # an echo: the rate was lowered for this already
            self._rate, self._measured = self._measure(now, wait)
            self._accepted.clear()
            self._pushed_back = now
            # Not earlier than the next in line was told: it sleeps until then.
            self._next_slot = self._waited = max(self._next_slot, self._closed_until)

    def _measure(self, now: float, wait: float) -> tuple[float, float]:
        """The rate that the server was seen to accept, and the seconds it was seen for.

        One attempt per wait is what the server itself allows.
        """
        recent = [heard for heard in self._accepted if heard > now - self.LONGEST]
        spans = [now + wait - start for start in recent]
        if self._rate is not None:
            # All that was accepted at this pace. It was too fast, whatever a short wait suggests.
            measured = spans[0] if spans else wait
            rate = min(max(len(spans), 1) / measured, self._rate)
            return max(rate, 1 / self.LONGEST), measured
        # Of all the spans from a remembered acceptance to the end of the wait, the one that held
        # the most acceptances per second: but a burst, at once, is no rate. Where few were asked
        # for, few were accepted, and the server may well allow more; the next push-back will tell.
        spans = [max(span, self.AT_LEAST) for span in spans]
        rates = (((len(spans) - place) / span, span) for place, span in enumerate(spans))
        rate, measured = max(rates, default=(0.0, wait))
        return max(rate, 1 / wait, self.FIRST), measured

    def _set_free(self) -> None:
        self._rate = None
        for ticket in self._waiting[1:]:
            ticket.wake()
