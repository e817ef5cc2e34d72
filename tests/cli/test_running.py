"""Running a command's coroutine."""

from __future__ import annotations

import asyncio
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
        asyncio.get_running_loop().call_soon(_interrupt)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        run(interrupted())
    assert closed == [True]
    assert loops[0].is_closed()


def _interrupt():
    import signal

    signal.raise_signal(signal.SIGINT)
