"""Ways to cancel a task at any turn of its loop, and a loop that notices a busy wait."""

from __future__ import annotations

import asyncio
from itertools import count

import anyio
import async_solipsism


class CountingLoop(async_solipsism.EventLoop):
    """A loop on virtual time that fails after many turns: time stands still while a task spins."""

    LIMIT = 20_000
    turns = 0

    def _run_once(self):
        self.turns += 1
        assert self.turns % self.LIMIT, "the loop spins"
        super()._run_once()


def cancel(again=()):
    """Cancel a task, and again after each number of turns in `again`."""

    async def way(work, turns):
        task = asyncio.create_task(work())
        await _turn(turns)
        found = not task.done()
        task.cancel()
        for more in again:
            await _turn(more)
            task.cancel()
        await asyncio.wait([task])
        return found

    return way


async def cancel_each_turn(work, turns):
    """Cancel a task in every turn until it has ended, as an impatient supervisor does."""
    task = asyncio.create_task(work())
    await _turn(turns)
    found = not task.done()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    return found


async def cancel_a_scope(work, turns):
    """Cancel a scope of anyio, which cancels its tasks again in every turn."""
    scope = anyio.CancelScope()

    async def scoped():
        with scope:
            await work()
            await asyncio.sleep(0)

    task = asyncio.create_task(scoped())
    await _turn(turns)
    found = not task.done()
    scope.cancel()
    await task  # the scope keeps the cancellation to itself
    return found


async def cancel_a_group(work, turns):
    """Cancel a task group of anyio, as Starlette does when a browser leaves a streaming response."""
    ended = False

    async def child():
        nonlocal ended
        try:
            await work()
        finally:
            ended = True

    async with anyio.create_task_group() as group:
        group.start_soon(child)
        await _turn(turns)
        found = not ended
        group.cancel_scope.cancel()
    return found


async def time_out(work, turns):
    """Let two nested time limits end at once."""
    limits = []

    async def limited():
        async with asyncio.timeout(None) as outer, asyncio.timeout(None) as inner:
            limits.extend((outer, inner))
            await work()

    task = asyncio.create_task(limited())
    await _turn(turns)
    found = not task.done()
    now = asyncio.get_running_loop().time()
    for limit in limits if found else ():
        limit.reschedule(now)
    await asyncio.wait([task])
    assert type(task.exception()) in {TimeoutError, type(None)}
    return found


WAYS = {
    "once": cancel(),
    "twice at once": cancel((0,)),
    "twice": cancel((1,)),
    "thrice": cancel((2, 1)),
    "each turn": cancel_each_turn,
    "scope": cancel_a_scope,
    "group": cancel_a_group,
    "timeouts": time_out,
}


async def _turn(turns):
    for _ in range(turns):
        await asyncio.sleep(0)


async def sweep(way, make, step=1):
    """Cancel work at every turn until it ends before it is cancelled.

    Args:
        way: A value of `WAYS`.
        make: Called for each run. It returns two coroutine functions: the work, and a check of what
            the work left behind.
        step: Turns between one run's cancellation and the next run's.
    """
    for turns in count(step=step):
        work, check = make()
        found = await way(work, turns)
        await check()
        if not found:
            return
