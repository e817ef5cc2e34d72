"""Clean-up under cancellation: it ends, it does not spin, and the cancellation is not lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import anyio
import cancelling
import pytest
import virtual
from patience import PATIENCE

from chatkit_async._cancellation import run_to_end

PORT = 8000  # of a loop's own network

every_way = pytest.mark.parametrize("way", cancelling.WAYS)


class WorkError(Exception):
    """An error of the work."""


def play(main):
    """Run a coroutine on a loop that notices a busy wait."""
    with asyncio.Runner(loop_factory=cancelling.CountingLoop) as runner:
        return runner.run(main)


async def failing():
    await asyncio.sleep(1)
    raise WorkError


def test_run_to_end_raises_what_the_work_raises():
    with pytest.raises(WorkError):
        play(run_to_end(failing()))


@every_way
def test_run_to_end_ends_the_work_first(way):
    def clean_up():
        ended = []

        async def steps():
            for _ in range(5):
                await asyncio.sleep(0)
            ended.append(True)

        async def check():
            assert ended in ([True], [])
            assert asyncio.all_tasks() == {asyncio.current_task()}
            begun.append(bool(ended))

        async def work():
            await run_to_end(steps())

        return work, check

    begun = []
    play(cancelling.sweep(cancelling.WAYS[way], clean_up))

    # Cancelled before its first step, a task runs nothing.
    assert begun.count(False) <= 1
    assert begun[-1]


def test_run_to_end_raises_the_last_cancellation():
    async def main():
        task = asyncio.create_task(run_to_end(failing()))
        await asyncio.sleep(0)
        for message in ("first", "second"):
            task.cancel(message)
            await asyncio.sleep(0)
            assert not task.done()
        with pytest.raises(asyncio.CancelledError, match="second") as caught:
            await task
        assert isinstance(caught.value.__cause__, WorkError)

    play(main())


def test_run_to_end_tells_of_each_cancellation():
    async def main():
        told = []
        task = asyncio.create_task(run_to_end(asyncio.sleep(1), on_cancel=lambda: told.append(1)))
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        return len(told)

    assert play(main()) == 3


def test_run_to_end_ends_with_its_loop():
    async def main():
        before = asyncio.all_tasks()
        task = asyncio.create_task(run_to_end(asyncio.sleep(1000)))
        await asyncio.sleep(0)
        for each in asyncio.all_tasks() - before:
            each.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return asyncio.get_running_loop().time()

    assert play(main()) == 0


def test_run_to_end_in_a_cancelled_scope_takes_few_turns():
    async def main():
        with anyio.move_on_after(1) as scope:
            await run_to_end(asyncio.sleep(1000))
        assert scope.cancelled_caught or scope.cancel_called
        return asyncio.get_running_loop().turns, asyncio.get_running_loop().time()

    turns, time = play(main())

    assert time == 1000
    assert turns < 30


@pytest.mark.unmeasured
def test_run_to_end_needs_no_anyio():
    program = (
        "import asyncio, sys\n"
        "from chatkit_async._cancellation import run_to_end\n"
        "asyncio.run(run_to_end(asyncio.sleep(0)))\n"
        "sys.exit('anyio' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)


# Clients and emulators


@every_way
def test_leaving_a_client_and_an_emulator_closes_both(way):
    def block():
        clients = []

        async def work():
            # If the last emulator still listened, this one could not.
            emulator = virtual.emulator(port=PORT)
            async with emulator, virtual.client(emulator) as client:
                clients.append(client)
                await client.sessions.create(user="user_123", workflow="wf_123")

        async def check():
            assert not any(client._attempts.transport._opened for client in clients)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        return work, check

    async def main():
        await cancelling.sweep(cancelling.WAYS[way], block)

    virtual.run(main(), loop_factory=cancelling.CountingLoop)
