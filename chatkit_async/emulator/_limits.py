"""Rate limits: the number of requests that are let through, and the headers that say so."""

from __future__ import annotations

import math
from typing import Literal, Protocol, TypeAlias

from attrs import Factory, field, frozen

from chatkit_async.emulator._checks import MAX_SECONDS, number

__all__ = ["FixedWindow", "RateLimit", "RetryAfter", "TokenBucket"]

RetryAfter: TypeAlias = float | Literal["exact"] | None

_MEASURE = number(1e-9, 1e9)  # beyond these bounds a wait could be infinite
_REQUESTS = number(1, 10**9, whole=True)
_SLACK = 2e-6  # seconds; Unix time as a float is no finer, and a client that waited as asked is let through
_MAX_KEYS = 10_000  # with a counter of their own; anybody can make up another


def _check_retry_after(_limit: object, _attribute: object, value: object) -> None:
    if value in (None, "exact") or (isinstance(value, int | float) and 0 < value <= MAX_SECONDS):
        return
    message = f"retry_after must be seconds above 0, 'exact' or None, got {value!r}"
    raise ValueError(message)


def _of_a_second(rate: object) -> int:
    # The rate is checked later only.
    return math.ceil(rate) if isinstance(rate, int | float) and 0 < rate < math.inf else 1


@frozen(kw_only=True)
class TokenBucket:
    """A limit that refills evenly: a number of requests a second, and some at once after a pause.

    Args:
        rate: Requests a second, 1e-9 to 1e9.
        burst: Requests at once, 1 to 1e9; by default as many as in a second.
        retry_after: The wait that a 429 asks for: seconds; `exact` for the time until there is a
            token; None for no header.
        per_key: Count each API key separately.

    Raises:
        ValueError: A number is out of range.
    """

    rate: float = field(validator=_MEASURE)
    burst: int = field(
        default=Factory(lambda self: _of_a_second(self.rate), takes_self=True),
        validator=_REQUESTS,
    )
    retry_after: RetryAfter = field(default="exact", validator=_check_retry_after)
    per_key: bool = False

    def counter(self) -> Counter:
        """Return a full bucket."""
        return _Bucket(self)


@frozen(kw_only=True)
class FixedWindow:
    """A limit that starts again all at once: a number of requests in each window of time.

    A window begins with the first request after the last one's end.

    Args:
        limit: Requests in a window, 1 to 1e9.
        window: Its length in seconds, 1e-9 to 1e9.
        retry_after: The wait that a 429 asks for: seconds; `exact` for the rest of the window;
            None for no header.
        per_key: Count each API key separately.

    Raises:
        ValueError: A number is out of range.
    """

    limit: int = field(validator=_REQUESTS)
    window: float = field(default=60.0, validator=_MEASURE)
    retry_after: RetryAfter = field(default="exact", validator=_check_retry_after)
    per_key: bool = False

    def counter(self) -> Counter:
        """Return a counter before its first window."""
        return _Window(self)


RateLimit: TypeAlias = TokenBucket | FixedWindow


@frozen(kw_only=True)
class Count:
    """The state of a limit after a request."""

    limit: int
    remaining: int
    reset: float
    """Seconds until the limit is unused again."""
    wait: float = 0.0
    """Seconds until a request is let through; 0 if this one was."""

    def headers(self, retry_after: RetryAfter) -> dict[str, str]:
        """Return the headers of the reply."""
        headers = {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": duration(self.reset),
        }
        if self.wait and retry_after is not None:
            seconds = self.wait if isinstance(retry_after, str) else retry_after
            headers["Retry-After"] = str(math.ceil(seconds - _SLACK))
            if seconds != int(seconds):  # Retry-After has whole seconds only
                headers["retry-after-ms"] = str(_milliseconds(seconds))
        return headers


class Counter(Protocol):
    """Counts the requests of one key, or of all."""

    def count(self, now: float) -> Count:
        """Count a request, unless it is refused."""
        ...


class _Bucket:
    def __init__(self, limit: TokenBucket) -> None:
        self._rate = limit.rate
        self._burst = limit.burst
        self._tokens = float(limit.burst)
        self._at: float | None = None
        self._slack = min(0.5, self._rate * _SLACK)

    def count(self, now: float) -> Count:
        if self._at is not None:  # the clock may have been set back: then nothing flows
            flowed = max(0.0, now - self._at) * self._rate
            self._tokens = min(self._burst, self._tokens + flowed)
        self._at = now
        wait = 0.0
        if self._tokens >= 1 - self._slack:
            self._tokens -= 1
        else:
            wait = (1 - self._tokens) / self._rate
        return Count(
            limit=self._burst,
            remaining=max(0, math.floor(self._tokens + self._slack)),
            reset=(self._burst - self._tokens) / self._rate,
            wait=wait,
        )


class _Window:
    def __init__(self, limit: FixedWindow) -> None:
        self._limit = limit.limit
        self._window = limit.window
        self._began = -math.inf
        self._counted = 0

    def count(self, now: float) -> Count:
        # A window does not outlast a clock that was set back.
        if not 0 <= now - self._began < self._window - _SLACK:
            self._began, self._counted = now, 0
        left = self._began + self._window - now
        refused = self._counted == self._limit
        self._counted += not refused
        return Count(
            limit=self._limit,
            remaining=self._limit - self._counted,
            reset=left,
            wait=left if refused else 0.0,
        )


class Limiter:
    """A limit in use: one counter for all requests, or one for each key."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self._counters: dict[str, Counter] = {}

    def count(self, key: str, now: float) -> tuple[Count, dict[str, str]]:
        """Count a request. Return the state of the limit, and the headers for the reply."""
        whose = key if self.limit.per_key else ""
        if whose not in self._counters:
            if len(self._counters) == _MAX_KEYS:
                del self._counters[next(iter(self._counters))]
            self._counters[whose] = self.limit.counter()
        count = self._counters[whose].count(now)
        return count, count.headers(self.limit.retry_after)


def duration(seconds: float) -> str:
    """Write seconds as the API does in its headers: `120ms`, `1s`, `8.64s`, `6m0s`, `1h0m0s`."""
    milliseconds = _milliseconds(seconds)
    if 0 < milliseconds < 1000:  # noqa: PLR2004
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{milliseconds / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _milliseconds(seconds: float) -> int:
    return math.ceil((seconds - _SLACK) * 1000)
