from __future__ import annotations

import math
import time
from datetime import timedelta

import pytest

from chatkit_async.emulator import Clock


class Ticks:
    """A source of time that moves only when told to."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def ticks():
    return Ticks()


@pytest.fixture
def clock(ticks):
    return Clock(ticks)


def test_an_unmoved_clock_tells_real_time():
    before = time.time()

    assert before <= Clock().now() <= time.time()


def test_an_unmoved_clock_follows_a_replaced_time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert clock.now() == Clock().now() == 5.0

    clock.advance(10)
    monkeypatch.setattr(time, "time", lambda: 7.0)
    assert clock.now() == 17.0

    monkeypatch.undo()
    assert clock.now() > 1_000_000


def test_an_unmoved_clock_tells_the_time_of_its_source(clock, ticks):
    ticks.seconds = 250.0

    assert clock.now() == 250.0


def test_a_clock_that_was_set_runs_on_from_there(clock, ticks):
    clock.set(5000.0)
    ticks.seconds += 1.5

    assert clock.now() == 5001.5


def test_set_goes_backwards_too(clock):
    clock.set(20.0)

    assert clock.now() == 20.0


def test_advance_adds_seconds_to_the_time_that_runs(clock, ticks):
    clock.advance(600)
    ticks.seconds += 1

    assert clock.now() == 701.0


def test_advance_takes_a_timedelta(clock):
    clock.advance(timedelta(minutes=2))

    assert clock.now() == 220.0


def test_a_frozen_clock_stands_still(clock, ticks):
    clock.freeze()
    ticks.seconds += 60

    assert clock.frozen
    assert clock.now() == 100.0


def test_a_frozen_clock_can_be_moved_and_stays_frozen(clock, ticks):
    clock.freeze()
    clock.set(1000.0)
    clock.advance(5)
    ticks.seconds += 60

    assert clock.now() == 1005.0


def test_a_resumed_clock_runs_on_from_where_it_stood(clock, ticks):
    clock.freeze()
    ticks.seconds += 60
    clock.resume()
    ticks.seconds += 1

    assert not clock.frozen
    assert clock.now() == 101.0


def test_resuming_a_clock_that_runs_changes_nothing(clock, ticks):
    clock.advance(10)
    clock.resume()
    ticks.seconds += 1

    assert clock.now() == 111.0


@pytest.mark.parametrize("to", [math.nan, math.inf, -math.inf])
def test_set_refuses_what_is_no_time(clock, to):
    with pytest.raises(ValueError, match="must be set to finite Unix seconds"):
        clock.set(to)


@pytest.mark.parametrize("by", [-1, math.nan, math.inf, timedelta(seconds=-1)])
def test_advance_refuses_what_is_not_forwards(clock, by):
    with pytest.raises(ValueError, match=r"must advance by 0 seconds .* set\(\) goes backwards"):
        clock.advance(by)


def test_advance_refuses_what_no_number_can_tell(clock):
    clock.set(1.7e308)

    with pytest.raises(ValueError, match="must advance by 0 seconds"):
        clock.advance(1.7e308)

    assert clock.now() == 1.7e308


def test_its_repr_tells_the_time(clock):
    assert repr(clock) == "<Clock 100.000>"
    clock.freeze()
    assert repr(clock) == "<Clock 100.000 frozen>"


def test_a_clock_goes_back_to_how_it_stood(clock):
    clock.freeze()
    clock.set(1_800_000_000)
    before = clock.snapshot()
    clock.advance(100)
    clock.resume()

    clock.restore(before)

    assert clock.frozen
    assert clock.now() == 1_800_000_000


def test_a_clock_goes_back_to_running_as_if_never_moved():
    clock = Clock(lambda: 50.0)
    clock.advance(5)
    before = clock.snapshot()
    clock.freeze()
    clock.set(0)

    clock.restore(before)

    assert not clock.frozen
    assert clock.now() == 55
