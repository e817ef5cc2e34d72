from __future__ import annotations

import math
import statistics
from random import Random

import pytest

from chatkit_async.emulator import Emulator, Exponential, LogNormal, Uniform
from chatkit_async.emulator._latency import draw


def drawn(latency, number=5000):
    random = Random(0)
    return [draw(latency, random) for _ in range(number)]


def test_a_number_is_always_that():
    assert set(drawn(0.05)) == {0.05}


def test_uniform_stays_within_its_limits_and_fills_them():
    seconds = drawn(Uniform(0.1, 0.3))

    assert 0.1 <= min(seconds) < 0.101
    assert 0.299 < max(seconds) <= 0.3
    assert statistics.mean(seconds) == pytest.approx(0.2, rel=0.02)


def test_exponential_has_its_mean_and_a_long_tail():
    seconds = drawn(Exponential(0.1))

    assert min(seconds) >= 0
    assert statistics.mean(seconds) == pytest.approx(0.1, rel=0.05)
    assert statistics.median(seconds) == pytest.approx(0.1 * math.log(2), rel=0.05)
    assert max(seconds) > 0.5


def test_lognormal_has_its_median_and_a_long_tail():
    seconds = drawn(LogNormal(0.1, 0.5))

    assert min(seconds) > 0
    assert statistics.median(seconds) == pytest.approx(0.1, rel=0.05)
    assert statistics.quantiles(seconds, n=100)[98] == pytest.approx(0.32, rel=0.1)


def test_a_function_of_a_random_draws_too():
    assert drawn(lambda random: random.choice([1, 2]), 4) == [2, 2, 1, 2]


def test_nothing_finer_than_a_microsecond_is_drawn():
    assert all(seconds == round(seconds, 6) for seconds in drawn(Exponential(1e-5)))


@pytest.mark.parametrize("latency", [-1, math.nan])
def test_seconds_that_cannot_be_are_refused(latency):
    with pytest.raises(ValueError, match="latency must be a number of 0 or more"):
        Emulator(latency=latency)
    emulator = Emulator()
    with pytest.raises(ValueError, match="latency must be a number of 0 or more"):
        emulator.latency = latency


@pytest.mark.parametrize(
    ("distribution", "arguments"),
    [
        (Uniform, (-1, 1)),
        (Uniform, (2, 1)),
        (Uniform, (0, math.inf)),
        (Exponential, (-1,)),
        (LogNormal, (math.nan,)),
        (LogNormal, (1, -1)),
        (LogNormal, (1, 10.1)),
    ],
)
def test_a_distribution_that_cannot_be_is_refused(distribution, arguments):
    with pytest.raises(ValueError, match=r"low|high|mean|median|sigma"):
        distribution(*arguments)
