"""A client at work against a server that lets 25 requests a second through."""

from __future__ import annotations

import asyncio

import pytest
import virtual

from chatkit_async import AsyncChatKit
from chatkit_async.emulator import Emulator, TokenBucket

pytestmark = pytest.mark.unmeasured

LIMIT = TokenBucket(rate=25, burst=25, retry_after=1)


async def test_creates_at_once_over_real_sockets():
    async with (
        Emulator(rate_limit=LIMIT) as emulator,
        AsyncChatKit(api_key=emulator.api_key, base_url=emulator.base_url) as client,
    ):
        created, errors = await virtual.in_flight(client, 50, at_once=50)

        assert errors == []
        assert created == len(emulator.sessions) == 50
        assert emulator.requests.total <= 90


def at_work(number, at_once, seed, latency, limit=LIMIT):
    """Create sessions on virtual time: how many were created, the requests, the seconds."""

    async def main():
        async with (
            virtual.emulator(rate_limit=limit, latency=latency) as emulator,
            virtual.client(emulator, seed) as client,
        ):
            created, _ = await virtual.in_flight(client, number, at_once)
            return created, emulator.requests.total, asyncio.get_running_loop().time()

    return virtual.run(main())


@pytest.mark.sweep(every=9)
@pytest.mark.parametrize("latency", [0.001, 0.02, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_creates_at_once(seed, latency):
    created, requests, _ = at_work(100, 100, seed, latency)

    assert created == 100
    assert requests <= 180


@pytest.mark.sweep(every=0)  # the tests of bulk runs are as many as the suite has time for
@pytest.mark.parametrize(
    ("number", "seed", "latency"),
    [(300, 0, 0.001), (1000, 0, 0.001), (1000, 1, 0.02), (1000, 2, 0.1)],
)
def test_many_creates_with_a_hundred_in_flight(number, seed, latency):
    created, requests, seconds = at_work(number, 100, seed, latency)

    assert created == number
    assert requests <= created + 150
    assert created >= 0.9 * (25 + 25 * seconds)
