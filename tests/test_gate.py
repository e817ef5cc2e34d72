"""The gate's properties, in a model of callers and a server that needs neither loop nor socket."""

from __future__ import annotations

import heapq
from itertools import count, pairwise
from math import inf
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatkit_async._gate import RateGate

A_LITTLE = 1e-6


class Model:
    """Callers at a gate, in front of a server.

    Attributes:
        sent: Of each attempt the time, its call's start, and whether it was paced.
        heard: Of each push-back the time, and the wait it asked for.
    """

    def __init__(self, server, latency=0.01, attempts=inf, seed=0):
        self.gate = RateGate()
        self.now = 0.0
        self.sent = []
        self.heard = []
        self.waiting = {}
        self.finished = 0
        self._server = server
        self._latency = latency
        self._attempts = attempts
        self._random = Random(seed)
        self._events = []
        self._numbers = count()

    def play(self, starts, until=inf):
        """Start calls at these times, and go on until all have ended, or until a time."""
        for start in starts:
            self._at(start, self._arrive, start, 1)
        while self._events and self._events[0][0] <= until:
            self.now, _, happen, arguments = heapq.heappop(self._events)
            happen(*arguments)

    def _at(self, when, happen, *arguments):
        heapq.heappush(self._events, (when, next(self._numbers), happen, arguments))

    def _arrive(self, started, attempt):
        if self.gate.is_free:
            self._send(started, attempt, paced=False)
            return
        here = []
        ticket = self.gate.enter(started, lambda: self._at(self.now, self._ask, *here))
        here += ticket, started, attempt
        self.waiting[ticket] = started
        self._ask(*here)

    def _ask(self, ticket, started, attempt):
        if ticket not in self.waiting:
            return  # a timer, and woken since
        wait = self.gate.admit(ticket, self.now)
        if wait:
            if wait < inf:
                self._at(self.now + wait, self._ask, ticket, started, attempt)
            return
        paced = not self.gate.is_free
        if paced:
            assert started == min(self.waiting.values()), "overtook an earlier call"
        del self.waiting[ticket]
        self.gate.leave(ticket)
        self._send(started, attempt, paced=paced)

    def _send(self, started, attempt, *, paced):
        self.sent.append((self.now, started, paced))
        refused = self._server(self.now)
        self._at(self.now + self._latency, self._hear, started, attempt, self.now, refused)

    def _hear(self, started, attempt, sent, refused):
        if not refused:
            self.gate.accepted(self.now, sent)
            self.finished += 1
            return
        self.heard.append((self.now, refused))
        wait = refused * (1 + 0.1 * self._random.random())
        self.gate.push_back(self.now, sent, wait)
        if attempt < self._attempts:
            self._at(self.now + wait, self._arrive, started, attempt + 1)


def bucket(rate, burst, retry_after=None):
    """A server with a token bucket: returns the wait it asks for, or None."""
    tokens, at = float(burst), 0.0

    def server(now):
        nonlocal tokens, at
        tokens, at = min(burst, tokens + (now - at) * rate), now
        if tokens >= 1 - A_LITTLE:
            tokens -= 1
            return None
        return retry_after or (1 - tokens) / rate

    return server


def window(limit, length):
    """A server with fixed windows."""
    began, counted = -inf, 0

    def server(now):
        nonlocal began, counted
        if now - began >= length - A_LITTLE:
            began, counted = now, 0
        counted += 1
        return None if counted <= limit else began + length - now

    return server


SERVERS = st.one_of(
    st.builds(
        bucket,
        rate=st.floats(0.2, 100),
        burst=st.integers(1, 50),
        retry_after=st.none() | st.floats(0.1, 100),
    ),
    st.builds(window, limit=st.integers(1, 50), length=st.floats(0.5, 100)),
)
STARTS = st.lists(st.floats(0, 20, width=32), min_size=2, max_size=60)
MODELS = st.builds(
    Model, SERVERS, latency=st.floats(0.001, 2), attempts=st.integers(1, 5), seed=st.integers(0, 9)
)


@given(model=MODELS, starts=STARTS)
def test_no_wait_is_cut_short(model, starts):
    model.play(starts)

    for heard, wait in model.heard:
        ends = heard + min(wait, RateGate.MAX_WAIT)
        assert not [sent for sent, _, _ in model.sent if heard < sent < ends - A_LITTLE]


@given(model=MODELS, starts=STARTS)
def test_no_two_attempts_go_in_one_instant_while_paced(model, starts):
    model.play(starts)

    paced = [sent for sent, _, paced in model.sent if paced]
    assert all(earlier < later for earlier, later in pairwise(paced))


@given(model=MODELS, starts=STARTS)
def test_whoever_waits_gets_a_turn_and_the_earliest_call_first(model, starts):
    model.play(starts)  # which checks each turn

    assert not model.waiting


@settings(max_examples=50)
@given(
    starts=STARTS,
    latency=st.floats(0.001, 2),
    refused=st.floats(0.1, 10_000),
    accepted=st.integers(0, 20),
)
@example(starts=[0.0] * 4, latency=1.0, refused=10_000.0, accepted=1)
def test_a_server_that_refuses_everything_hears_a_probe_a_minute(
    starts, latency, refused, accepted
):
    left = [None] * accepted
    model = Model(lambda now: left.pop() if left else refused, latency, attempts=1)

    model.play(starts)

    times = [sent for sent, _, _ in model.sent]
    assert len(times) == len(starts)
    # A call that has not started yet keeps nobody waiting.
    gaps = [later - max(earlier, *starts) for earlier, later in pairwise(times)]
    assert max([0.0, *gaps]) <= RateGate.MAX_WAIT * 1.1 + latency + A_LITTLE


@given(
    heard=st.lists(st.floats(0, 100), max_size=5),
    now=st.floats(100, 200),
    wait=st.floats(0.001, 10_000),
)
def test_no_pace_is_slower_than_a_probe_a_minute(heard, now, wait):
    gate = RateGate()
    for each in sorted(heard):
        gate.accepted(now=each, sent=each)
    gate.push_back(now, sent=now, wait=wait)
    first, second = gate.enter(now, lambda: None), gate.enter(now, lambda: None)
    opens = now + gate.admit(first, now)

    assert gate.admit(first, opens + A_LITTLE) == 0
    gate.leave(first)
    assert gate.admit(second, opens) <= RateGate.MAX_WAIT + A_LITTLE


@pytest.mark.parametrize("wait", [0.0, 1e-9, 1e-6, 0.0009])
def test_a_push_back_closes_the_gate_for_a_millisecond_at_least(wait):
    gate = RateGate()

    gate.push_back(now=100, sent=99, wait=wait)

    assert gate.opens_in(100) == pytest.approx(0.001)
    assert gate._rate <= 1000


@pytest.mark.parametrize("wait", [1, 59, 60, 61, 3600, 1e9])
def test_one_reply_closes_the_gate_for_a_minute_at_most(wait):
    gate = RateGate()

    gate.push_back(now=100, sent=99, wait=wait)

    assert gate.opens_in(100) == min(wait, 60)


def test_the_gate_is_free_until_the_server_pushes_back():
    gate = RateGate()

    gate.accepted(now=1, sent=0)
    assert gate.is_free
    gate.push_back(now=2, sent=1, wait=1)
    assert not gate.is_free


@settings(max_examples=50)
@given(rate=st.floats(1, 50), pause=st.floats(RateGate.QUIET + 0.1, 1000))
def test_the_gate_is_free_again_when_nobody_had_to_wait_for_a_while(rate, pause):
    model = Model(bucket(rate, burst=2))
    model.play([0.0] * 10)
    assert not model.gate.is_free

    quiet = max(sent for sent, _, _ in model.sent) + 1 / rate + 1 + pause
    model.play([quiet])

    assert model.gate.is_free


def test_the_gate_is_free_again_under_demand_that_fits():
    model = Model(bucket(10, burst=5))

    model.play([*[0.0] * 30, *[30 + i / 4 for i in range(100)]])

    assert model.gate.is_free
    assert model.finished == 130


@pytest.mark.parametrize("wait", [5, 15, 60, 3600])
def test_who_waits_long_is_no_sign_that_demand_fits(wait):
    # With a wait longer than the quiet it takes to be free, the queue must not go as one.
    refusals = [wait] * 10
    model = Model(lambda now: refusals.pop() if refusals else None, attempts=1)

    model.play([*[0.0] * 10, *[1.0] * 50])

    later = [sent for sent, _, _ in model.sent if sent > 1]
    assert len(later) == 50
    assert len(set(later)) == 50


def test_echoes_lower_nothing():
    gate, other = RateGate(), RateGate()
    for each in (gate, other):
        for i in range(10):
            each.accepted(now=i / 10, sent=i / 10)
        each.push_back(now=1.0, sent=0.9, wait=1)
    for i in range(20):  # sent before the push-back was heard
        gate.push_back(now=1.0, sent=0.9 + i / 1000, wait=1)

    assert gate._rate == other._rate
    assert gate.opens_in(1.0) == other.opens_in(1.0)


def test_an_echo_can_keep_the_gate_closed_for_longer():
    gate = RateGate()
    gate.push_back(now=1, sent=0.9, wait=1)

    gate.push_back(now=1.5, sent=0.95, wait=3)

    assert gate.opens_in(1.5) == 3


def test_a_burst_is_no_rate():
    gate = RateGate()
    for _ in range(25):
        gate.accepted(now=10.0, sent=9.9)

    gate.push_back(now=10.0, sent=9.9, wait=0.04)

    assert gate._rate == pytest.approx(25)


def test_so_many_acceptances_are_remembered_and_no_more():
    gate = RateGate()
    for _ in range(2 * RateGate.MAX_REMEMBERED):
        gate.accepted(now=10.0, sent=9.9)

    gate.push_back(now=10.0, sent=9.9, wait=0.04)

    assert gate._rate == pytest.approx(RateGate.MAX_REMEMBERED)


def test_the_rate_is_the_best_that_was_seen_until_the_end_of_the_wait():
    gate = RateGate()
    for tenth in range(20):
        gate.accepted(now=tenth / 10, sent=tenth / 10)

    gate.push_back(now=2.0, sent=1.9, wait=1)

    assert gate._rate == pytest.approx(20 / 3)


def test_one_attempt_per_wait_is_what_a_short_wait_allows():
    gate = RateGate()

    gate.push_back(now=1, sent=0, wait=0.1)

    assert gate._rate == pytest.approx(10)


def test_a_server_that_accepts_nothing_is_asked_once_in_the_longest_wait():
    gate = RateGate()
    gate.push_back(now=0, sent=0, wait=1)

    gate.push_back(now=1000, sent=999, wait=3600)

    assert gate._rate == pytest.approx(1 / RateGate.MAX_WAIT)


def test_what_was_accepted_before_a_push_back_and_is_heard_of_after_it_counts_for_its_time():
    gate = RateGate()
    gate.push_back(now=10, sent=9, wait=4)
    rate = gate._rate

    gate.accepted(now=10.5, sent=9.5)

    assert gate._rate == pytest.approx(rate + 1 / 4)


def test_what_was_sent_in_the_instant_of_a_push_back_counts_as_sent_before():
    gate = RateGate()
    gate.push_back(now=10, sent=9, wait=4)
    rate = gate._rate

    gate.push_back(now=11, sent=10, wait=1)
    assert gate._rate == rate
    gate.accepted(now=11, sent=10)
    assert gate._rate == pytest.approx(rate + 1 / 4)


@pytest.mark.parametrize(("late", "wait"), [(0.0, 1.0), (0.3, 0.7), (0.5, 0.5), (0.8, 0.5)])
def test_half_an_interval_of_a_late_timer_is_made_up_for(late, wait):
    gate = RateGate()
    gate.push_back(now=0, sent=0, wait=1)  # one a second
    first, second = gate.enter(0.1, list), gate.enter(0.2, list)

    assert gate.admit(first, now=1 + late) == 0
    gate.leave(first)

    assert gate.admit(second, now=1 + late) == pytest.approx(wait)


def test_a_forked_child_forgets_who_waited_and_who_held_the_lock():
    gate = RateGate()
    gate.push_back(now=0, sent=0, wait=1)
    gate.enter(0.1, list)
    gate._lock.acquire()

    gate.after_fork()

    assert gate.admit(gate.enter(0.2, list), now=1) == 0


@pytest.mark.parametrize("accepted", [0, 3])
def test_a_push_back_never_raises_the_pace_whatever_short_wait_it_asks_for(accepted):
    gate = RateGate()
    gate.push_back(now=1, sent=0, wait=0.5)
    rate = gate._rate
    for _ in range(accepted):
        gate.accepted(now=2, sent=1.9)

    gate.push_back(now=2, sent=1.9, wait=0.001)

    assert gate._rate == pytest.approx(rate + accepted * RateGate.RATE_GROWTH)


def test_a_pace_that_was_too_fast_falls_to_what_was_accepted_at_it():
    gate = RateGate()
    gate.push_back(now=1, sent=0, wait=0.1)  # ten a second
    for second in range(2, 5):
        gate.accepted(now=second, sent=second)

    gate.push_back(now=5, sent=4.9, wait=1)

    assert gate._rate == pytest.approx(3 / 4)


def test_a_pace_measured_anew_lets_nobody_go_before_who_was_told_to_wait_longer():
    gate = RateGate()
    gate.push_back(now=0, sent=0, wait=1)
    gate.push_back(now=10, sent=9, wait=30)
    first, second = gate.enter(0.1, lambda: None), gate.enter(0.2, lambda: None)
    assert gate.admit(first, now=40) == 0
    gate.leave(first)
    assert gate.admit(second, now=40) == 30

    gate.push_back(now=41, sent=40, wait=1)

    assert gate.admit(second, now=70) == 0
    assert not gate.is_free


def test_successes_raise_the_rate():
    gate = RateGate()
    gate.push_back(now=1, sent=0, wait=1)
    rate = gate._rate

    gate.accepted(now=3, sent=2)

    assert gate._rate == rate + RateGate.RATE_GROWTH


def test_whoever_leaves_the_head_of_the_queue_wakes_the_next():
    gate = RateGate()
    gate.push_back(now=1, sent=0, wait=1)
    woken = []
    tickets = [gate.enter(0.1 * i, lambda i=i: woken.append(i)) for i in range(3)]

    gate.leave(tickets[1])
    assert woken == []
    gate.leave(tickets[0])
    assert woken == [2]
    gate.leave(tickets[2])
    assert woken == [2]


def test_once_the_gate_is_free_all_who_stand_there_go():
    gate = RateGate()
    gate.push_back(now=1, sent=0, wait=1)
    woken = []
    first = gate.enter(50.0, list)
    second = gate.enter(60.0, lambda: woken.append("second"))

    assert gate.admit(first, 100.0) == 0
    assert gate.is_free
    assert woken == ["second"]
    assert gate.admit(second, 100.0) == 0


@pytest.mark.parametrize("latency", [0.001, 0.02, 0.1])
def test_a_burst_of_four_times_the_limit_costs_little_more_than_it_must(latency):
    model = Model(bucket(25, burst=25, retry_after=1), latency, attempts=3)

    model.play([0.0] * 100)

    assert model.finished == 100
    assert len(model.sent) <= 180


@pytest.mark.unmeasured
@pytest.mark.parametrize("latency", [0.001, 0.02, 0.1])
def test_calls_in_one_go_after_another_use_the_rate(latency):
    model = Model(bucket(25, burst=25, retry_after=1), latency, attempts=3)

    model.play([i / 1000 for i in range(1000)])

    assert model.finished >= 990


def test_a_client_that_asked_for_little_is_not_held_to_the_little_it_got():
    gate = RateGate()
    gate.accepted(now=0, sent=0)  # one session in a minute, since one was asked for

    gate.push_back(now=40, sent=40, wait=30)
    first, second = gate.enter(41, lambda: None), gate.enter(42, lambda: None)

    assert gate.admit(first, now=70) == 0
    gate.leave(first)
    assert gate.admit(second, now=70) == pytest.approx(1)
