"""How long the emulator takes to answer, by chance from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import TypeAlias

from attrs import field, frozen
from attrs.validators import ge, le, lt

__all__ = ["Exponential", "Latency", "LogNormal", "Uniform"]

Latency: TypeAlias = float | Callable[[Random], float]

_SECONDS = [ge(0.0), lt(math.inf)]


@frozen
class Uniform:
    """Between two limits in seconds, each time as likely as the other."""

    low: float = field(validator=_SECONDS)
    high: float = field(validator=_SECONDS)

    def __attrs_post_init__(self) -> None:
        """Refuse limits the wrong way round."""
        if self.low > self.high:
            message = f"low={self.low!r} is above high={self.high!r}"
            raise ValueError(message)

    def __call__(self, random: Random) -> float:
        """Draw seconds."""
        return random.uniform(self.low, self.high)


@frozen
class Exponential:
    """Mostly short and at times several times the mean, in seconds: a server that has a queue."""

    mean: float = field(validator=_SECONDS)

    def __call__(self, random: Random) -> float:
        """Draw seconds."""
        return -self.mean * math.log(1 - random.random())


@frozen
class LogNormal:
    """Around a median in seconds, with a long tail: what calls over the internet look like.

    Of a hundred, one takes longer than the median times `exp(2.33 * sigma)`: 3.2 times for 0.5.
    `sigma` is 0 to 10.
    """

    median: float = field(validator=_SECONDS)
    sigma: float = field(default=0.5, validator=[ge(0.0), le(10.0)])

    def __call__(self, random: Random) -> float:
        """Draw seconds."""
        return self.median * random.lognormvariate(0, self.sigma)


def check_latency(latency: Latency) -> Latency:
    """Return it, unless it is a number that cannot be seconds."""
    if not callable(latency) and not latency >= 0:
        message = f"latency={latency!r}: expected seconds, 0 or more, or a distribution"
        raise ValueError(message)
    return latency


def draw(latency: Latency, random: Random) -> float:
    """Return seconds, to the microsecond: finer than that no loop's timers are."""
    return round(latency(random), 6) if callable(latency) else latency
