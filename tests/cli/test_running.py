"""Running a command's coroutine."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from chatkit_async.cli._running import run


def test_it_returns_what_the_coroutine_returns():
    assert run(asyncio.sleep(0, 5)) == 5


def test_what_the_coroutine_raises_is_raised_and_the_loop_closed():
    loops = []

    async def broken():
        loops.append(asyncio.get_running_loop())
        raise LookupError

    with pytest.raises(LookupError):
        run(broken())
    assert loops[0].is_closed()


def test_tasks_that_are_left_are_cancelled():
    ended = []

    async def left():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def work():
        task = asyncio.create_task(left())
        await asyncio.sleep(0)
        return task

    assert run(work()).cancelled()
    assert ended == [True]


def test_a_thread_is_not_waited_for():
    released = threading.Event()

    async def work():
        asyncio.get_running_loop().run_in_executor(None, released.wait)

    run(work())
    assert not released.is_set()
    released.set()


def test_ctrl_c_closes_generators_and_the_loop():
    loops, closed = [], []

    async def held():
        try:
            yield
        finally:
            closed.append(True)

    async def interrupted():
        loops.append(asyncio.get_running_loop())
        generator = held()
        await anext(generator)
        loops.append(generator)
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        run(interrupted())
    assert closed == [True]
    assert loops[0].is_closed()


def test_ctrl_c_wakes_a_loop_that_sleeps():
    # Another thread gets the signal: nothing ends the main thread's wait but a wake-up.
    def interrupt():
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    async def interrupted():
        asyncio.get_running_loop().call_soon(threading.Timer(0.05, interrupt).start)
        await asyncio.sleep(3600)

    with pytest.raises(KeyboardInterrupt):
        run(interrupted())


def test_whoever_sees_to_ctrl_c_keeps_the_work_going():
    interrupts, told = [], asyncio.Event()

    def first_time():
        interrupts.append(True)
        told.set()
        return len(interrupts) == 1

    async def interrupted_twice():
        signal.raise_signal(signal.SIGINT)
        await told.wait()
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(3600)

    with pytest.raises(KeyboardInterrupt):
        run(interrupted_twice(), on_interrupt=first_time)
    assert interrupts == [True, True]


def test_ctrl_c_before_the_first_step_leaves_nothing_behind(monkeypatch):
    started = []

    async def work():
        started.append(True)

    monkeypatch.setattr(asyncio.Runner, "run", lambda _runner, wrapped: _interrupt(wrapped))
    with pytest.raises(KeyboardInterrupt):
        run(work())
    assert not started


def _interrupt(wrapped):
    wrapped.close()
    raise KeyboardInterrupt


def test_a_cancellation_that_is_not_ctrl_c_stays_one():
    async def cancelled():
        asyncio.current_task().cancel()
        await asyncio.sleep(3600)

    with pytest.raises(asyncio.CancelledError):
        run(cancelled())


def test_in_a_thread_and_where_ctrl_c_is_ignored_it_runs_all_the_same():
    results = []
    thread = threading.Thread(target=lambda: results.append(run(asyncio.sleep(0, 5))))
    thread.start()
    thread.join()
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        results.append(run(asyncio.sleep(0, 6)))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)
    assert results == [5, 6]
