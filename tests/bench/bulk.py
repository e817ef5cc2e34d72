"""Many rows: `create_many`, and what people write instead of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import peers
from meter import Measured, Meter, resident
from run import client_of, loop_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

CreateAll: TypeAlias = "Callable[[int], Awaitable[int]]"
"""Creates so many, and says how many it has created."""


def rows(number: int) -> Iterator[dict[str, object]]:
    """What is to be created."""
    # The load server answers everybody with a session of this user.
    return ({"user": peers.USER, "workflow": peers.WORKFLOW} for _ in range(number))


@asynccontextmanager
async def create_many(base_url: str, at_once: int) -> AsyncGenerator[CreateAll]:
    """Us."""
    from chatkit_async import AsyncChatKit

    async with AsyncChatKit(api_key=peers.API_KEY, base_url=base_url) as client:

        async def create_all(number: int) -> int:
            created = 0
            async with client.sessions.create_many(rows(number), concurrency=at_once) as run:
                async for outcome in run:
                    created += outcome.kind == "created"
            return created

        yield create_all


@asynccontextmanager
async def workers(base_url: str, at_once: int) -> AsyncGenerator[CreateAll]:
    """The fastest hand-written loop: so many workers, each taking the next row, on bare aiohttp."""
    async with peers.typed(base_url) as create:

        async def create_all(number: int) -> int:
            left = rows(number)
            created = 0

            async def work() -> None:
                nonlocal created
                for row in left:
                    await create(row["user"])
                    created += 1

            await asyncio.gather(*(work() for _ in range(at_once)))
            return created

        yield create_all


@asynccontextmanager
async def gathered(base_url: str, at_once: int) -> AsyncGenerator[CreateAll]:
    """The OpenAI SDK, gathered behind a semaphore."""
    async with peers.openai(base_url) as create:

        async def create_all(number: int) -> int:
            semaphore = asyncio.Semaphore(at_once)

            async def one(row: dict[str, object]) -> str:
                async with semaphore:
                    return await create(row["user"])

            return len(await asyncio.gather(*(one(row) for row in rows(number))))

        yield create_all


ASYNC: dict[str, Callable[[str, int], AbstractAsyncContextManager[CreateAll]]] = {
    "chatkit_async": create_many,
    "aiohttp, leanest, typed": workers,
    "openai": gathered,
}


def bulk(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    """Create sessions from rows, so many at a time."""
    if peer == "chatkit_async, blocking":
        return _blocking(base_url, requests, at_once)
    if peer == "chatkit_async, command line":
        return _command_line(base_url, requests, at_once)
    with loop_of(peer) as runner:
        return runner.run(_bulk(client_of(peer), base_url, requests, at_once))


async def _bulk(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    async with ASYNC[peer](base_url, at_once) as create_all:
        await create_all(min(at_once * 4, requests))
        with Meter(base_url) as meter:
            meter.requests = _all(await create_all(requests), requests)
        return meter.measured


def _blocking(base_url: str, requests: int, at_once: int) -> Measured:
    from chatkit_async import ChatKit

    with ChatKit(api_key=peers.API_KEY, base_url=base_url) as client:

        def create_all(number: int) -> int:
            with client.sessions.create_many(rows(number), concurrency=at_once) as run:
                return sum(outcome.kind == "created" for outcome in run)

        create_all(min(at_once * 4, requests))
        with Meter(base_url) as meter:
            meter.requests = _all(create_all(requests), requests)
        return meter.measured


def _command_line(base_url: str, requests: int, at_once: int) -> Measured:
    """Our command line, with its journal. What it takes to start, a run of one row tells."""
    with tempfile.TemporaryDirectory() as folder, Meter(base_url) as meter:
        started = _command(Path(folder), base_url, 1, at_once)
        done = _command(Path(folder), base_url, requests, at_once)
        meter.requests = requests + 1
    return replace(
        meter.measured,
        requests=requests - 1,
        wall=max(done.wall - started.wall, 1e-9),
        cpu=max(done.cpu - started.cpu, 1e-9) / requests,
    )


def _command(folder: Path, base_url: str, requests: int, at_once: int) -> Measured:
    source, journal = folder / f"{requests}.jsonl", folder / f"{requests}.journal"
    with source.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(requests))
    command = [sys.executable, "-P", "-m", "chatkit_async", "bulk", "create", source]
    options = ["--output", journal, "--concurrency", str(at_once)]
    environment = os.environ | {"OPENAI_API_KEY": peers.API_KEY, "OPENAI_BASE_URL": base_url}
    before, wall = os.times(), time.perf_counter()
    subprocess.run(
        [*command, *options], env=environment, check=True, stderr=subprocess.DEVNULL, timeout=300
    )
    after, wall = os.times(), time.perf_counter() - wall
    cpu = after.children_user - before.children_user
    cpu += after.children_system - before.children_system
    with journal.open(encoding="utf-8") as file:
        _all(sum('"created"' in line for line in file), requests)
    return Measured(requests=requests, cpu=cpu, wall=wall)


def _all(created: int, requests: int) -> int:
    if created != requests:
        raise AssertionError(f"{created} of {requests} were created")
    return created


# Growth -------------------------------------------------------------------------------------------

SETTLED = 10_000
"""Rows after which a run has what it needs."""


def growth(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    """Create sessions from rows: the memory is what the process grows by after it has settled."""
    with loop_of(peer) as runner:
        return runner.run(_growth(base_url, requests, at_once))


async def _growth(base_url: str, requests: int, at_once: int) -> Measured:
    from chatkit_async import AsyncChatKit

    settled = min(SETTLED, requests // 2)
    before = most = done = 0
    async with AsyncChatKit(api_key=peers.API_KEY, base_url=base_url) as client:
        with Meter(base_url) as meter:
            async with client.sessions.create_many(rows(requests), concurrency=at_once) as run:
                async for _ in run:
                    done += 1
                    if done == settled:
                        before = most = resident()
                    elif done > settled and (done % 1000 == 0 or done == requests):
                        most = max(most, resident())
            meter.requests = _all(run.summary.created, requests)
    return replace(meter.measured, memory=most - before)
