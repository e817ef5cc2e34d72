"""Bulk runs of the blocking client: rows are read here, worked on over there, and none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import os
import signal
import threading
from collections import Counter

import pytest

from chatkit_async import (
    AuthenticationError,
    BlockingBulkRun,
    BulkRun,
    ChatKit,
    ClientClosedError,
    ParameterError,
    _fanout,
)
from chatkit_async._fanout import Fanout
from chatkit_async.emulator import Emulator

WORKFLOW = {"workflow": "wf_123"}


@pytest.fixture
def emulator():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def client(emulator):
    with ChatKit(api_key=emulator.api_key, base_url=emulator.base_url) as client:
        yield client


@pytest.fixture
def create_many(client):
    """Create sessions for users, with a workflow."""

    def create_many(users, **options):
        return client.sessions.create_many(users, **{"defaults": WORKFLOW, **options})

    return create_many


def users(count):
    return [f"user_{number}" for number in range(count)]


def kinds(outcomes):
    return Counter(outcome.kind for outcome in outcomes)


def held(emulator):
    return Counter(session.user for session in emulator.sessions.values())


def test_both_runs_have_the_same_names():
    def names(cls):
        return {name for name in dir(cls) if not name.startswith("_")}

    assert names(BlockingBulkRun) == names(BulkRun)
    for name in ("summary", "stop", "results"):
        mine, theirs = getattr(BlockingBulkRun, name), getattr(BulkRun, name)
        assert inspect.getdoc(mine).splitlines()[0] == inspect.getdoc(theirs).splitlines()[0]


# Rows and outcomes


@pytest.mark.unmeasured
@pytest.mark.parametrize("concurrency", [1, 64])
def test_each_row_has_one_outcome_and_each_user_one_session(create_many, emulator, concurrency):
    with create_many(users(80), concurrency=concurrency) as run:
        outcomes = list(run)
    assert sorted(outcome.index for outcome in outcomes) == list(range(80))
    assert all(outcome.row == f"user_{outcome.index}" for outcome in outcomes)
    assert all(outcome.result().user == outcome.row for outcome in outcomes)
    assert held(emulator) == Counter(users(80))
    assert (run.summary.read, run.summary.created, run.summary.in_flight) == (80, 80, 0)


def test_run_in_a_forked_process_says_so(create_many, monkeypatch):
    run = create_many(users(9), concurrency=1)
    next(run)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 0)
        with pytest.raises(RuntimeError, match="forked"):
            list(run)
        run.__exit__(None, None, None)  # as of a block that the child leaves
    list(run)
    assert run.summary.created == 9


def test_outcomes_come_in_the_order_of_their_rows_when_asked_to(create_many):
    outcomes = create_many(users(50), concurrency=8, ordered=True).results()
    assert [outcome.row for outcome in outcomes] == users(50)


def test_sessions_are_cancelled_likewise(client, create_many, emulator):
    sessions = [outcome.result() for outcome in create_many(users(5)).results()]
    outcomes = client.sessions.cancel_many([sessions[0], *(s.id for s in sessions[1:]), " "])
    assert kinds(outcomes.results()) == {"cancelled": 5, "rejected": 1}
    assert {session.status for session in emulator.sessions.values()} == {"cancelled"}


def test_it_can_be_iterated_without_the_block(create_many):
    run = create_many(users(10))
    assert len(list(run)) == 10
    assert list(run) == []
    assert run.summary.created == 10
    assert repr(run).startswith("<BlockingBulkRun: BulkSummary(created=10, ")


def test_rows_are_read_in_the_thread_that_iterates_and_not_far_ahead(create_many):
    read, threads = [], set()

    def rows():
        for user in users(50):
            threads.add(threading.get_ident())
            read.append(user)
            yield user

    with create_many(rows(), concurrency=2) as run:
        assert read == []
        for taken, _ in enumerate(run, start=1):
            assert len(read) <= taken + 2 * 2 + len(run._outcomes)
    assert len(read) == 50
    assert threads == {threading.get_ident()}


def test_rows_of_an_asynchronous_iterable_are_read_in_the_clients_thread(create_many, emulator):
    threads = set()

    async def rows():
        for user in users(10):
            threads.add(threading.get_ident())
            await asyncio.sleep(0)
            yield user

    assert kinds(create_many(rows()).results()) == {"created": 10}
    assert threading.get_ident() not in threads
    assert held(emulator) == Counter(users(10))


def test_a_slow_input_does_not_hold_its_first_rows_back(create_many, emulator, monkeypatch):
    # As slow as can be: after each row, the time for reading is over.
    monkeypatch.setattr(_fanout, "READ_SLICE", -1)

    def rows():
        for number, user in enumerate(users(10)):
            # The outcome of the row before the last one is there, or on its way.
            if number > 1:
                emulator.wait_until(lambda at=number: len(emulator.sessions) >= at - 1)
            yield user

    assert kinds(create_many(rows(), concurrency=8).results()) == {"created": 10}


# What ends a run


def test_bad_arguments_are_told_before_a_row_is_read(client):
    def rows():
        pytest.fail("a row was read")
        yield

    with pytest.raises(ParameterError) as caught:
        client.sessions.create_many(rows(), concurrency=0, rate=-1)
    assert [path for path, _ in caught.value.problems] == ["concurrency", "rate"]
    with pytest.raises(ParameterError, match="rows"):
        client.sessions.create_many("user_123")
    with pytest.raises(ParameterError, match="session_ids"):
        client.sessions.cancel_many(5)


def test_what_reading_raises_is_raised_when_the_rows_before_it_have_outcomes(create_many):
    def rows():
        yield from users(20)
        raise LookupError("the file ends here")

    outcomes = []
    with pytest.raises(LookupError, match="the file ends here"), create_many(rows()) as run:
        outcomes.extend(run)
    assert kinds(outcomes) == {"created": 20}
    assert list(run) == []

    run = create_many(rows())
    with pytest.raises(LookupError, match="the file ends here"):
        run.results()
    assert kinds(run) == {"created": 20}


def test_what_cannot_be_iterated_is_raised(create_many):
    class Broken:
        def __iter__(self):
            raise LookupError("not today")

    with pytest.raises(LookupError, match="not today"):
        create_many(Broken()).results()


def test_stopping_from_another_thread(create_many, emulator):
    answer_only(emulator, "user_0")
    with create_many(users(40), concurrency=2) as run:
        next(run)
        stopping = threading.Thread(target=run.stop)
        stopping.start()
        stopping.join()
        assert run.summary.in_flight == 2
        emulator.clear_faults()


def test_stopping_finishes_what_is_under_way_and_reads_no_more(create_many, emulator):
    with create_many(iter(users(1000)), concurrency=4) as run:
        first = next(run)
        run.stop()
        outcomes = [first, *run]
    run.stop()
    assert 1 <= len(outcomes) <= 1 + 3 * 2 * 4
    assert kinds(outcomes).keys() <= {"created", "not_attempted"}
    assert kinds(outcomes)["created"] == len(emulator.sessions)
    assert run.summary.read == len(outcomes)


def accounted(outcomes, run, emulator):
    """Each row that was read has one outcome, and each session one that may have lost it."""
    assert sorted(outcome.index for outcome in outcomes) == list(range(run.summary.read))
    created = Counter(outcome.row for outcome in outcomes if outcome.kind == "created")
    orphans = held(emulator) - created
    assert created <= held(emulator)
    assert orphans <= Counter({outcome.row: outcome.lost for outcome in outcomes})
    return kinds(outcomes)


def answer_only(emulator, user):
    for other in users(40):
        if other != user:
            emulator.fail(user=other, delay=float("inf"))


def test_leaving_early_ends_what_is_under_way_and_keeps_every_outcome(create_many, emulator):
    answer_only(emulator, "user_3")
    with create_many(users(40), concurrency=8) as run:
        first = next(run)
    assert first.row == "user_3"
    rest = accounted([first, *run], run, emulator)
    assert rest["created"] == 1
    assert rest["unknown"] >= 1
    assert rest["unknown"] + rest["not_attempted"] == run.summary.read - 1


def test_ctrl_c_while_it_waits_leaves_an_outcome_for_each_row(create_many, emulator):
    answer_only(emulator, "nobody")

    def interrupt():
        emulator.wait_until(lambda: len(emulator.requests) >= 4)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), create_many(users(40), concurrency=4) as run:
        list(run)
    thread.join()
    assert accounted(list(run), run, emulator)["unknown"] == 4


def test_ctrl_c_between_reading_and_handing_over_loses_no_row(create_many, emulator):
    def rows():
        yield from users(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), create_many(rows()) as run:
        list(run)
    assert accounted(list(run), run, emulator) == {"not_attempted": 3}


def no_end(fanout):
    """Stands for the end of a fan-out that is cancelled before its first step."""


def one_by_one(run, outcomes):
    with run:
        for outcome in run:
            outcomes.append(outcome)  # what was taken before the interrupt counts


def at_once(run, outcomes):
    outcomes += run.results()


@pytest.mark.unmeasured
@pytest.mark.sweep(every=3)
@pytest.mark.parametrize("take", [one_by_one, at_once])
@pytest.mark.parametrize("crossing", [*itertools.product(range(12), ["before", "after"])], ids=str)
def test_ctrl_c_at_any_crossing_loses_nothing(create_many, emulator, monkeypatch, crossing, take):
    def rows():
        for user in users(12):
            read.append(user)
            yield user

    def interrupted(method, *args):
        crossings.append(method)
        if len(crossings) != steps + 1:
            return cross(method, *args)
        if when == "after":
            cross(method, *args)
        raise KeyboardInterrupt

    steps, when = crossing
    read, crossings, outcomes = [], [], []
    run = create_many(rows(), concurrency=2)
    cross = run._loop_thread.run
    monkeypatch.setattr(run._loop_thread, "run", interrupted)
    with contextlib.suppress(KeyboardInterrupt):
        take(run, outcomes)
    outcomes += run
    assert [outcome.row for outcome in sorted(outcomes, key=lambda o: o.index)] == read
    accounted(outcomes, run, emulator)


def test_what_would_hit_every_row_stops_it_and_says_why(create_many, emulator):
    emulator.fail(status=401, times=None)
    run = create_many(users(500), concurrency=2)
    outcomes = run.results()
    assert isinstance(run.summary.stopped_by, AuthenticationError)
    assert 1 <= kinds(outcomes)["rejected"] <= 2
    assert len(outcomes) < 20


def test_a_closed_client_ends_it(client, create_many):
    run = create_many(users(5))
    client.close()
    with pytest.raises(ClientClosedError):
        run.results()
    assert run.summary.read == 0


@pytest.mark.parametrize("end", [Fanout._end, no_end], ids=["ended", "not ended"])
def test_a_client_that_is_closed_under_it_loses_no_outcome(
    client, create_many, emulator, monkeypatch, end
):
    monkeypatch.setattr(Fanout, "_end", end)  # the loop may end first
    with create_many(iter(users(1000)), concurrency=4) as run:
        outcomes = [next(run)]
        emulator.wait_until(lambda: len(emulator.requests) >= 4)
        client.close()
    outcomes += run
    accounted(outcomes, run, emulator)
    assert isinstance(run.summary.stopped_by, ClientClosedError)
    run.stop()


def test_a_client_that_is_closed_after_the_last_row_stopped_nothing(
    client, create_many, monkeypatch
):
    monkeypatch.setattr(_fanout, "READ_SLICE", 60)  # all are read at once
    run = create_many(users(5))
    first = next(run)
    while run.summary.created < 5:
        pass
    client.close()
    assert kinds([first, *run]) == {"created": 5}
    assert run.summary.stopped_by is None


def test_a_client_that_is_closed_under_rows_that_are_read_over_there(client, create_many, emulator):
    async def rows():
        for user in users(1000):
            yield user

    run = create_many(rows(), concurrency=4)
    outcomes = [next(run)]
    client.close()
    accounted([*outcomes, *run], run, emulator)
    assert isinstance(run.summary.stopped_by, ClientClosedError)


@pytest.mark.parametrize("end", [Fanout._end, no_end], ids=["ended", "not ended"])
def test_a_client_that_is_closed_before_a_failed_reading_is_raised_stops_the_run(
    client, create_many, emulator, monkeypatch, end
):
    def rows():
        yield from users(5)
        raise LookupError("the file ends here")

    monkeypatch.setattr(_fanout, "READ_SLICE", 60)  # all are read at once
    monkeypatch.setattr(Fanout, "_end", end)
    run = create_many(rows())
    outcomes = [next(run)]
    client.close()
    accounted([*outcomes, *run], run, emulator)
    assert isinstance(run.summary.stopped_by, ClientClosedError)


def test_another_client_that_is_closed_is_the_callers_affair(create_many):
    def rows():
        yield from users(5)
        raise ClientClosedError

    run = create_many(rows())
    with pytest.raises(ClientClosedError):
        run.results()
    assert kinds(run) == {"created": 5}
    assert run.summary.stopped_by is None


def test_a_run_runs_once(create_many):
    run = create_many(users(2))
    run.results()
    with pytest.raises(RuntimeError, match="once"):
        run.results()
