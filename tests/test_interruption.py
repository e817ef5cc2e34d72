"""Blocking callers that an exception interrupts at any bytecode of theirs.

A signal handler may raise anywhere in the main thread. Here a trace function does it instead, at
the n-th bytecode that a caller executes in the modules below, for one n after the other, while
other threads use the same client. No other call hangs, and no thread is left.

`SWEEP_STRIDE=1` tries every bytecode, as `nox -s soak` does; by default it is one in many.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
import threading

import pytest
from patience import PATIENCE

from chatkit_async import (
    ChatKit,
    ChatKitError,
    ClientClosedError,
    _fanout,
    _loop_thread,
    pages,
    sync,
    sync_bulk,
    web,
)
from chatkit_async.emulator import Emulator, _changes, _emulator, _server
from chatkit_async.web import BlockingClientSecretEndpoint

STRIDE = int(os.environ.get("SWEEP_STRIDE", "31"))
WANTED = {"user": "user_123", "workflow": "wf_123"}
SWEPT = {
    module.__file__
    for module in (_fanout, _loop_thread, pages, sync, sync_bulk, web, _changes, _emulator, _server)
}

pytestmark = [
    pytest.mark.unmeasured,
    pytest.mark.sweep(every=1),
    pytest.mark.skipif(
        sys.version_info[:2] == (3, 12),
        reason="Python 3.12 can crash when bytecodes are traced in code that other threads run",
    ),
]


class InterruptError(BaseException):
    """What the signal handler of a program raises."""


class Sweep:
    """The bytecodes to interrupt an action at: each later than the one before, until its end."""

    def __init__(self, stride=STRIDE):
        self._at = 0
        self._stride = stride
        self._is_over = False

    def __iter__(self):
        while not self._is_over:
            yield self.interrupt
            self._at += self._stride

    def interrupt(self, action):
        """Run a function, and interrupt it at a bytecode."""
        steps = itertools.count()

        def trace(frame, event, arg):
            if frame.f_code.co_filename not in SWEPT:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode" and next(steps) == self._at:
                sys.settrace(None)
                raise InterruptError
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            action()
        except InterruptError:
            return
        finally:
            sys.settrace(before)
        self._is_over = True


class Using(threading.Thread):
    """Another thread that goes on using something until it is told to stop."""

    def __init__(self, use):
        super().__init__(daemon=True)
        self._use = use
        self._leave = threading.Event()
        self.failure = None
        self.start()

    def run(self):
        try:
            while not self._leave.is_set():
                self._use()
        except Exception as failure:
            self.failure = failure

    def stop(self):
        self._leave.set()
        self.join(PATIENCE)
        assert not self.is_alive(), "a call hangs"
        return self.failure


def in_time(call):
    """Call a function in another thread, and return what it returns."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "a call hangs"
    [result] = results
    return result


def threads_end():
    """Wait for the threads of clients to end."""
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "chatkit-async":
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread is left"


@pytest.fixture(scope="module")
def emulator():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def connect(emulator):
    def connect():
        return ChatKit(api_key=emulator.api_key, base_url=emulator.base_url)

    return connect


def create(client):
    return client.sessions.create(**WANTED).status


def test_interrupted_call_harms_no_other(connect):
    with connect() as client:
        assert create(client) == "active"
        others = [Using(lambda: create(client)) for _ in range(2)]
        for interrupt in Sweep():
            interrupt(lambda: create(client))
        assert [other.stop() for other in others] == [None, None]
        assert in_time(lambda: create(client)) == "active"
        assert not client._loop_thread._waiting
        assert not client._loop_thread._begun
    threads_end()


def test_interrupted_first_call_harms_no_other(connect):
    for interrupt in Sweep():
        with connect() as client:
            other = Using(lambda client=client: create(client))
            interrupt(lambda client=client: create(client))
            assert in_time(lambda client=client: create(client)) == "active"
            assert other.stop() is None
        threads_end()


def close(client):
    client.close()


def leave(client):
    with client:
        pass


@pytest.mark.parametrize("end", [close, leave])
@pytest.mark.filterwarnings("ignore:unclosed client:ResourceWarning")
def test_interrupted_close_leaves_no_thread(connect, end):
    for interrupt, is_used in zip(Sweep(), itertools.cycle([True, False]), strict=False):
        client = connect()
        other = Using(lambda client=client: create(client))
        if is_used:
            create(client)
        interrupt(lambda client=client: end(client))
        assert isinstance(other.stop(), ClientClosedError | None)
        del client, other
        threads_end()


def test_interrupted_caller_leaves_its_session_cancelled(connect, emulator):
    def hold():
        with client.sessions.open(**WANTED) as session:
            entered.append(session.id)

    with connect() as client:
        for interrupt in Sweep():
            entered = []
            interrupt(hold)
            for session_id in entered:
                emulator.wait_until(
                    lambda at=session_id: emulator.sessions[at].status == "cancelled"
                )


def test_interrupted_bulk_run_gives_an_outcome_for_each_row(connect):
    def take():
        with run:
            outcomes.extend(run)

    with connect() as client:
        for interrupt in Sweep():
            outcomes = []
            run = client.sessions.create_many(["ada", "bob", "eve"], defaults=WANTED)
            interrupt(take)
            outcomes += in_time(lambda run=run: list(run))
            indexes = {outcome.index for outcome in outcomes}
            assert len(indexes) == len(outcomes) >= run.summary.read - 1  # it may have one in hand
        assert {outcome.row for outcome in outcomes} == {"ada", "bob", "eve"}


def test_interrupted_list_loses_no_item(connect, emulator):
    ids = [emulator.add_thread(user="lists").id for _ in range(5)]

    def take():
        found.extend(each.id for each in items)

    with connect() as client:
        listed = client.threads.list(user="lists", order="asc", limit=2)
        for interrupt in Sweep():
            items, found = iter(listed), []
            interrupt(take)
            try:
                take()
            except ChatKitError as error:
                again = client.threads.list(user="lists", order="asc", after=error.cursor)
                found += [each.id for each in again]
            assert len(set(ids) - set(found)) <= 1  # the one that was in hand
            assert sorted(found) == sorted(set(found))
        assert found == ids


@pytest.mark.parametrize("is_cached", [False, True])
def test_interrupted_request_for_a_secret_harms_no_other(connect, is_cached):
    with connect() as client:
        for interrupt in Sweep():
            endpoint = BlockingClientSecretEndpoint(client, workflow="wf_123")

            def ask(endpoint=endpoint):
                return endpoint.handle(user="ada").status

            other = Using(ask)
            if is_cached:
                ask()
            interrupt(ask)
            assert in_time(ask) == 200
            assert other.stop() is None


def test_interrupted_emulator_leaves_no_thread():
    def serve():
        with emulator:
            assert emulator.connections == 0

    threads = {*threading.enumerate()}
    for interrupt in Sweep(stride=min(STRIDE, 5)):
        emulator = Emulator()
        interrupt(serve)
        emulator.__exit__()  # the first bytecodes of __exit__ may be those that were interrupted
        assert {*threading.enumerate()} <= threads


def test_interrupted_wait_leaves_the_emulator_serving(connect, emulator):
    with connect() as client:
        for interrupt in Sweep(stride=min(STRIDE, 5)):
            interrupt(lambda: emulator.wait_until(lambda: True))
            assert in_time(lambda: create(client)) == "active"
