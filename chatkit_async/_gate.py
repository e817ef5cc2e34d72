"""Sans-IO: the rate gate, which paces the attempts of a client while the API limits its rate."""

import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from itertools import count
from math import inf

import attrs


@attrs.frozen(order=True)
class Ticket:
    """A place in the queue at the gate. The call that started first is admitted first."""

    started: float
    number: int
    wake: Callable[[], None] = attrs.field(eq=False, order=False)


class RateGate:
    """The gate that a client's attempts pass, open until the API rate limits them.

    There are three states:

    - Free. Attempts pass without asking. Recent acceptances are remembered.
    - Closed. A push-back (429, or 503 with a wait) closes the gate for the wait that it asks for,
      at most `MAX_WAIT`, and sets the rate to what the server was seen to accept until then.
    - Paced. After the wait, attempts pass one at a time, in the order in which their calls started,
      spaced at that rate. Each acceptance raises the rate a little. The next push-back closes the
      gate again and measures the rate anew. A reply to an attempt that was sent before the last
      push-back says nothing about the new rate, so it lowers nothing.

    The gate is free again when no attempt has had to wait for `QUIET` seconds.

    The gate has no clock: `now`, `sent` and `started` are readings of the caller's clock, in
    seconds. The loops of several threads may share one gate.
    """

    MAX_WAIT = 60.0
    """Seconds for which one reply closes the gate at most. Then a single attempt probes."""

    MIN_WAIT = 0.001
    """Seconds for which a push-back closes the gate at least: clocks may not resolve less."""

    RATE_GROWTH = 0.02
    """Attempts per second by which each acceptance raises the rate."""

    MIN_FIRST_RATE = 1.0
    """Attempts per second to start with, at least, when the gate was free."""

    MIN_MEASURED_SPAN = 1.0
    """Seconds over which the rate is measured, at least, when the gate was free."""

    MAX_REMEMBERED = 1000
    """Acceptances that are kept to measure the rate."""

    QUIET = 10.0
    """Seconds without a waiting attempt after which the gate is free again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rate: float | None = None  # attempts per second; None: free
        self._closed_until = -inf
        self._next_slot = -inf
        self._pushed_back = -inf  # when the last push-back that counted arrived
        self._waited = -inf  # until when an attempt last had to wait
        self._waiting: list[Ticket] = []
        self._numbers = count()
        # The times of acceptances since the last push-back.
        self._accepted: deque[float] = deque(maxlen=self.MAX_REMEMBERED)
        self._measured = 1.0  # seconds over which the rate was measured

    @property
    def is_free(self) -> bool:
        """True if attempts pass without asking."""
        return self._rate is None

    def after_fork(self) -> None:
        """Forget the parent's waiting attempts and its lock, in a forked child."""
        self._lock = threading.Lock()
        self._waiting.clear()

    # Admission

    def enter(self, started: float, wake: Callable[[], None]) -> Ticket:
        """Join the queue. `wake` is called, from any thread, when asking `admit` again is useful."""
        with self._lock:
            ticket = Ticket(started, next(self._numbers), wake)
            insort(self._waiting, ticket)
        return ticket

    def admit(self, ticket: Ticket, now: float) -> float:
        """Return 0.0 to admit the attempt, else seconds until it asks again (inf: until woken)."""
        with self._lock:
            if self._rate is None:
                return 0.0
            if self._waiting[0] is not ticket:
                self._waited = max(self._waited, now)
                return inf
            slot = max(self._next_slot, self._closed_until)
            if now < slot:
                self._waited = slot
                return max(slot - now, self.MIN_WAIT)
            if now - self._waited > self.QUIET:
                self._set_free()
                return 0.0
            # Make up for a timer that fired late, by up to half an interval.
            interval = 1 / self._rate
            self._next_slot = max(slot, now - interval / 2) + interval
            return 0.0

    def leave(self, ticket: Ticket) -> None:
        """Leave the queue, admitted or not, and wake the next in line."""
        with self._lock:
            place = bisect_left(self._waiting, ticket)
            del self._waiting[place]
            following = self._waiting[0] if place == 0 and self._waiting else None
        if following is not None:
            following.wake()

    def opens_in(self, now: float) -> float:
        """Return the seconds until an attempt can pass. 0.0 or less means now."""
        return self._closed_until - now

    # Replies

    def accepted(self, now: float, sent: float) -> None:
        """Record that the server accepted an attempt."""
        with self._lock:
            if self._rate is None:
                self._accepted.append(now)
            elif sent > self._pushed_back:
                self._accepted.append(now)
                self._rate += self.RATE_GROWTH
            else:
                # It belongs to the span over which the rate was measured, but was not counted there.
                self._rate += 1 / self._measured

    def push_back(self, now: float, sent: float, wait: float) -> None:
        """Record a push-back, and the seconds that it asks to wait, jitter included."""
        with self._lock:
            wait = min(max(wait, self.MIN_WAIT), self.MAX_WAIT)
            self._closed_until = max(self._closed_until, now + wait)
            if sent <= self._pushed_back:
                return  # the rate was already lowered for this burst
            self._rate, self._measured = self._measure(now, wait)
            self._accepted.clear()
            self._pushed_back = now
            # Never earlier than the next in line was told, because it sleeps until then.
            self._next_slot = self._waited = max(self._next_slot, self._closed_until)

    def _measure(self, now: float, wait: float) -> tuple[float, float]:
        """Return the rate that the server was seen to accept, and the span in seconds.

        The rate is at least one attempt per wait, which the server itself allows.
        """
        recent = [at for at in self._accepted if at > now - self.MAX_WAIT]
        spans = [now + wait - start for start in recent]
        if self._rate is not None:
            # Count everything accepted at the current pace. That pace was too fast, so the result
            # never exceeds it, even if a short wait suggests more.
            measured = spans[0] if spans else wait
            rate = min(max(len(spans), 1) / measured, self._rate)
            return max(rate, 1 / self.MAX_WAIT), measured
        # Take the span, from any remembered acceptance to the end of the wait, with the most
        # acceptances per second. A burst is not a rate, hence the minimum span. Few acceptances may
        # only mean few requests, hence the minimum rate: the next push-back corrects it.
        spans = [max(span, self.MIN_MEASURED_SPAN) for span in spans]
        rates = (((len(spans) - place) / span, span) for place, span in enumerate(spans))
        rate, measured = max(rates, default=(0.0, wait))
        return max(rate, 1 / wait, self.MIN_FIRST_RATE), measured

    def _set_free(self) -> None:
        self._rate = None
        for ticket in self._waiting[1:]:
            ticket.wake()
