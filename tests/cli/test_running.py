"""Running a command's coroutine."""

from __future__ import annotations

import asyncio

import pytest

from chatkit_async.cli._running import run


async def test_it_needs_a_thread_without_a_loop():
    async def nothing():
        """Nothing."""

    work = nothing()
    with pytest.raises(RuntimeError, match="running event loop"):
        run(work)
    work.close()


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
