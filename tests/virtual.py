"""Client and emulator in one process, in memory, on time that passes only when nothing else can."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import asynccontextmanager
from random import Random
from unittest import mock

import aiohappyeyeballs
import async_solipsism

from chatkit_async import AsyncChatKit
from chatkit_async._attempts import Seam
from chatkit_async.emulator import Clock, Emulator


def run(main, loop_factory=async_solipsism.EventLoop):
    """Run a coroutine on a loop of its own, whose time is virtual."""
    start_connection = async_solipsism.aiohappyeyeballs_start_connection
    with (
        mock.patch.object(aiohappyeyeballs, "start_connection", start_connection),
        asyncio.Runner(loop_factory=loop_factory) as runner,
        warnings.catch_warnings(),
    ):
        # What is due in less than a microsecond is due now: the loop runs it, time need not move.
        warnings.simplefilter("ignore", async_solipsism.ResolutionWarning)
        return runner.run(main)


def emulator(**options):
    """An emulator that lives by the running loop's time."""
    return Emulator(clock=Clock(asyncio.get_running_loop().time), ledger_size=100_000, **options)


@asynccontextmanager
async def client(emulator, seed=0, **options):
    """A client of an emulator that lives by the running loop's time; its luck is a seed's."""
    async with AsyncChatKit(
        api_key=emulator.api_key, base_url=emulator.base_url, **options
    ) as client:
        client._attempts.seam = Seam(now=_now, random=Random(seed).random)
        yield client


def _now():
    """The loop's time in whole ticks of about a microsecond, whose sums and differences are exact.

    A timer may fire a hair before its time; where a wait of 1e-15 is left then, the next timer
    would again, for ever.
    """
    return round(asyncio.get_running_loop().time() * 2**20) / 2**20


async def in_flight(client, number, at_once):
    """Create so many sessions, so many at a time; return how many were, and the errors."""
    left = iter(range(number))
    errors = []

    async def one_after_the_other():
        for each in left:
            try:
                await client.sessions.create(user=f"user_{each}", workflow="wf_123")
            except Exception as error:
                errors.append(error)

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return number - len(errors), errors
