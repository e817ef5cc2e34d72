"""Running a command's coroutine."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from chatkit_async.cli._running import ENDING_SIGNALS, run


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
            await asyncio.Event().wait()
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
        await asyncio.Event().wait()

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
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run(interrupted())


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_signal_cancels_unless_it_is_handled(number):
    numbers, told = [], asyncio.Event()

    def first_time(number):
        numbers.append(number)
        told.set()
        return len(numbers) == 1

    async def signalled_twice():
        signal.raise_signal(number)
        await told.wait()
        signal.raise_signal(number)
        await asyncio.Event().wait()

    previous = signal.getsignal(number)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as raised:
        run(signalled_twice(), on_interrupt=first_time)
    assert getattr(raised.value, "code", 130) == 128 + number
    assert numbers == [number, number]
    assert signal.getsignal(number) is previous


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
        await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        run(cancelled())


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_ignored_signal_stays_ignored(number):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(asyncio.sleep(0, 5))))
    thread.start()
    thread.join()
    previous = signal.signal(number, signal.SIG_IGN)
    try:
        results.append(run(asyncio.sleep(0, 6)))
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, previous)
    assert results == [5, 6]
