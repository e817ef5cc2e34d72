"""Ten thousand at once against a slow server: how long it takes, and how much they hold."""

from __future__ import annotations

import asyncio
import gc
import time

import peers
import server
from meter import Measured, Meter, resident
from run import check


def crowd(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    """Create sessions all at once, on a client that has done nothing yet."""
    server.raise_open_files()
    return asyncio.run(_crowd(peer, base_url, max(requests, at_once)))


async def _crowd(peer: str, base_url: str, requests: int) -> Measured:
    async with _open(peer, base_url, requests) as create:

        async def one(latencies: list[float]) -> None:
            started = time.perf_counter()
            secret = await create()
            latencies.append(time.perf_counter() - started)
            check(secret)

        with Meter(base_url) as meter:
            await asyncio.gather(*(one(meter.latencies) for _ in range(requests)))
        return meter.measured


def held(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    """Likewise, with no reply until all of them wait: the memory is what each of them holds."""
    server.raise_open_files()
    return asyncio.run(_held(peer, base_url, max(requests, at_once)))


async def _held(peer: str, base_url: str, requests: int) -> Measured:
    async with _open(peer, base_url, requests) as create:
        await asyncio.to_thread(server.stats, base_url)  # starts the thread
        gc.collect()
        before = resident()
        cpu, wall = time.process_time(), time.perf_counter()
        tasks = [asyncio.ensure_future(create()) for _ in range(requests)]
        while (await asyncio.to_thread(server.stats, base_url)).held < requests:
            await asyncio.sleep(0.05)
            for task in tasks:
                if task.done():
                    task.result()
                    raise AssertionError("the server replied to what it was to hold")
        gc.collect()
        memory = (resident() - before) / requests
        await asyncio.to_thread(server.stats, base_url, "/release")
        for secret in await asyncio.gather(*tasks):
            check(secret)
        return Measured(
            requests=requests,
            cpu=(time.process_time() - cpu) / requests,
            wall=time.perf_counter() - wall,
            memory=memory,
        )


def _open(peer: str, base_url: str, connections: int):
    """A client that may open a connection for each; `openai` keeps to its own limit, 1,000."""
    if peer in {"chatkit_async", "aiohttp"}:
        return peers.ASYNC[peer](base_url, connections)
    return peers.ASYNC[peer](base_url)
