"""Client and emulator in one process, on a loop whose time passes only when nothing else can."""

from __future__ import annotations

import asyncio

import aiohappyeyeballs
import aiohttp
import async_solipsism
import pytest

from chatkit_async.emulator import Clock, Emulator, TokenBucket, Uniform


@pytest.fixture
def run(monkeypatch, headers):
    """Run `scenario(emulator, http)` on virtual time."""
    monkeypatch.setattr(
        aiohappyeyeballs, "start_connection", async_solipsism.aiohappyeyeballs_start_connection
    )

    def run(scenario):
        async def main():
            clock = Clock(asyncio.get_running_loop().time)
            async with (
                Emulator(clock=clock) as emulator,
                aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
            ):
                return await scenario(emulator, http)

        with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
            return runner.run(main())

    return run


def test_an_hour_of_delay_passes_at_once_and_to_the_second(run, wanted):
    async def scenario(emulator, http):
        emulator.fail(delay=3600)
        start = asyncio.get_running_loop().time()
        timeout = aiohttp.ClientTimeout(total=None)
        async with http.post("chatkit/sessions", json=wanted, timeout=timeout) as response:
            elapsed = asyncio.get_running_loop().time() - start
            return response.status, elapsed, response.headers["openai-processing-ms"]

    assert run(scenario) == (200, pytest.approx(3600), "3600000")


def test_a_body_drips_byte_by_byte(run, wanted):
    async def scenario(emulator, http):
        emulator.fail(body=b"12345", drip=60)
        start = asyncio.get_running_loop().time()
        timeout = aiohttp.ClientTimeout(total=None)
        async with http.post("chatkit/sessions", json=wanted, timeout=timeout) as response:
            assert await response.read() == b"12345"
        return asyncio.get_running_loop().time() - start

    assert run(scenario) == pytest.approx(300)


def test_sessions_expire_as_virtual_time_passes(run, wanted):
    async def scenario(emulator, http):
        async with http.post("chatkit/sessions", json=wanted):
            pass
        [session] = emulator.sessions.values()
        before = session.status
        await asyncio.sleep(600)
        return before, session.status

    assert run(scenario) == ("active", "expired")


@pytest.mark.parametrize("drop", ["close", "reset"])
def test_connections_are_dropped(run, wanted, drop):
    async def scenario(emulator, http):
        emulator.fail(drop=drop)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await http.post("chatkit/sessions", json=wanted)
        return emulator.requests[-1].outcome

    assert run(scenario) == "dropped"


def test_a_client_that_gives_up_is_noted(run, wanted):
    async def scenario(emulator, http):
        emulator.fail(delay=3600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await http.post("chatkit/sessions", json=wanted)
        await emulator.until(lambda: emulator.requests[-1].outcome != "pending")
        return emulator.requests[-1].outcome, asyncio.get_running_loop().time()

    assert run(scenario) == ("client_gone", pytest.approx(5))


def test_stopping_takes_no_time_whatever_is_pending(run, wanted):
    async def scenario(emulator, http):
        emulator.fail(delay=3600)
        creating = asyncio.ensure_future(http.post("chatkit/sessions", json=wanted))
        await emulator.until(lambda: emulator.requests.total == 1)
        start = asyncio.get_running_loop().time()
        await emulator.__aexit__(None, None, None)
        elapsed = asyncio.get_running_loop().time() - start
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await creating
        return elapsed

    assert run(scenario) == 0


def test_every_reply_takes_its_latency_the_same_for_a_seed(run, wanted):
    async def scenario(emulator, http):
        emulator.latency = Uniform(1, 5)
        took = []
        for _ in range(5):
            start = asyncio.get_running_loop().time()
            async with http.post("chatkit/sessions", json=wanted):
                took.append(asyncio.get_running_loop().time() - start)
        return took

    first = run(scenario)

    assert all(1 <= seconds <= 5 for seconds in first)
    assert len(set(first)) == 5
    assert run(scenario) == pytest.approx(first)


def test_a_delay_comes_on_top_of_the_latency(run, wanted):
    async def scenario(emulator, http):
        emulator.latency = 2
        assert emulator.latency == 2
        emulator.fail(delay=3)
        start = asyncio.get_running_loop().time()
        async with http.post("chatkit/sessions", json=wanted):
            return asyncio.get_running_loop().time() - start

    assert run(scenario) == pytest.approx(5)


def test_a_bucket_refills_as_virtual_time_passes(run, wanted):
    async def scenario(emulator, http):
        emulator.rate_limit = TokenBucket(rate=0.01)
        statuses = []
        for pause in (0, 99, 1):
            await asyncio.sleep(pause)
            async with http.post("chatkit/sessions", json=wanted) as response:
                statuses.append(response.status)
        return statuses

    assert run(scenario) == [200, 429, 200]
