"""Latencies: seconds between a request and its reply, fixed or drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import TypeAlias

from attrs import field, frozen

from chatkit_async.emulator._checks import MAX_SECONDS, number

__all__ = ["Exponential", "Latency", "LogNormal", "Uniform"]

Latency: TypeAlias = float | Callable[[Random], float]

_SECONDS = number(0, MAX_SECONDS)


@frozen
class Uniform:
    """A latency between two limits in seconds, each as likely as any other."""

    low: float = field(validator=_SECONDS)
    high: float = field(validator=_SECONDS)

    def __attrs_post_init__(self) -> None:
        """Check that the limits are in order."""
        if self.low > self.high:
            message = f"low must not be larger than high, got {self.low!r} and {self.high!r}"
            raise ValueError(message)

    def __call__(self, random: Random) -> float:
        """Draw seconds."""
        return random.uniform(self.low, self.high)


@frozen
class Exponential:
    """A mostly short latency, at times several times its mean: a server with a queue."""

    mean: float = field(validator=_SECONDS)

    def __call__(self, random: Random) -> float:
        """Draw seconds."""
        return -self.mean * math.log(1 - random.random())


@frozen
class LogNormal:
    """A latency around a median, with a long tail: calls over the internet.

    One in a hundred takes longer than the median times `exp(2.33 * sigma)`: 3.2 times for 0.5.
    `sigma` is 0 to 10.
    """

    median: float = field(validator=_SECONDS)
    sigma: float = field(default=0.5, validator=number(0, 10))

    def __call__(self, random: Random) -> float:
        """Draw seconds."""
        return self.median * random.lognormvariate(0, self.sigma)


def draw(latency: Latency, random: Random) -> float:
    """Return seconds, rounded to the microsecond: timers of event loops are no finer."""
    return round(latency(random), 6) if callable(latency) else latency
