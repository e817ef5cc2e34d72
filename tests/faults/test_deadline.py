"""No call outlives its `timeout`, whatever the server does; on virtual time, so to the second."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from unittest import mock

import aiohappyeyeballs
import pytest
import virtual
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE
from servers import HANG, http, replying, serve

from chatkit_async import APIError, APITimeoutError, AsyncChatKit, ChatKit, RateLimitError

pytestmark = pytest.mark.unmeasured

NOISE = 1e-3
"""Seconds: virtual time passes in steps, and each is a little late."""

CREATE = {"user": "user_123", "workflow": "wf_123"}
ALWAYS = {"times": None}

HOSTILE = {
    "never replies": {"delay": float("inf")},
    "replies late": {"delay": 6.9},
    "replies later than any limit": {"delay": 3600.0},
    "dribbles its body": {"drip": 1.0},
    "dribbles faster than an attempt may take": {"drip": 0.001},
    "fails late": {"delay": 2.5, "status": 500},
    "fails at once": {"status": 503},
    "asks to wait": {"status": 429, "headers": {"Retry-After": "2"}},
    "asks to wait for long": {"status": 503, "headers": {"Retry-After": "59"}},
    "asks to wait for a little": {"status": 429, "headers": {"retry-after-ms": "50"}},
    "asks to wait, late": {"delay": 2.0, "status": 429, "headers": {"Retry-After": "3"}},
    "closes": {"drop": "close"},
    "closes late": {"delay": 1.5, "drop": "close"},
    "cuts its body": {"cut": True},
    "redirects": {"status": 307, "headers": {"Location": "/"}},
}


async def measured(client, **options):
    """The error that a call ended with, if any, and the seconds it took."""
    now = asyncio.get_running_loop().time
    started = now()
    error = None
    try:
        await client.sessions.create(**CREATE, **options)
    except APIError as failed:
        error = failed
    return error, now() - started


@pytest.mark.sweep(every=5)
@pytest.mark.parametrize("max_retries", [0, 2, 100])
@pytest.mark.parametrize("attempt_timeout", [None, 3.0])
@pytest.mark.parametrize("timeout", [0.2, 60.0])
@pytest.mark.parametrize("fault", HOSTILE.values(), ids=HOSTILE)
def test_no_call_outlives_its_timeout(fault, timeout, attempt_timeout, max_retries):
    options = {
        "timeout": timeout,
        "attempt_timeout": attempt_timeout,
        "max_retries": max_retries,
    }

    async def main():
        async with virtual.emulator() as emulator, virtual.client(emulator, **options) as client:
            emulator.fail(**ALWAYS, **fault)
            error, elapsed = await measured(client)
            if error is not None:
                # What it says of itself is true.
                assert error.elapsed == pytest.approx(elapsed, abs=NOISE)
                assert error.attempts <= max_retries + 1
            return elapsed

    assert virtual.run(main()) <= timeout + NOISE


seconds = st.floats(0.001, 100)
behaviours = st.fixed_dictionaries(
    {"delay": seconds},
    optional={
        "status": st.sampled_from([307, 400, 408, 409, 429, 500, 503]),
        "headers": st.fixed_dictionaries(
            {}, optional={"Retry-After": seconds.map(str), "x-should-retry": st.just("true")}
        ),
    },
) | st.sampled_from(
    [{"status": 500}, {"drop": "close"}, {"delay": float("inf")}, {"drip": 0.5}, {"cut": True}]
)


limits = st.fixed_dictionaries(
    {
        "timeout": seconds,
        "attempt_timeout": st.none() | seconds,
        "max_retries": st.integers(0, 10),
    }
)


@given(
    faults=st.lists(behaviours, max_size=8),
    calls=st.integers(1, 5),
    options=limits,
    seed=st.integers(0, 100),
)
def test_no_call_outlives_its_timeout_in_any_company(faults, calls, options, seed):
    async def main():
        async with (
            virtual.emulator() as emulator,
            virtual.client(emulator, seed, **options) as client,
        ):
            for fault in faults:
                emulator.fail(times=2, **fault)
            return await asyncio.gather(*(measured(client) for _ in range(calls)))

    assert max(elapsed for _, elapsed in virtual.run(main())) <= options["timeout"] + NOISE


def test_no_call_waits_at_the_gate_for_longer_than_its_timeout():
    async def main():
        async with (
            virtual.emulator() as emulator,
            virtual.client(emulator, timeout=5.0, max_retries=100) as client,
        ):
            emulator.fail(**ALWAYS, status=429, headers={"Retry-After": "1"})
            return await asyncio.gather(*(measured(client) for _ in range(50)))

    ends = virtual.run(main())
    assert max(elapsed for _, elapsed in ends) <= 5.0 + NOISE
    assert {type(error) for error, _ in ends} == {RateLimitError}


@pytest.mark.parametrize(
    ("asked", "fits"),
    [("59", False), ("4", False), ("2.5", True)],
    ids=["long", "more than is left", "what is left"],
)
def test_a_wait_that_cannot_fit_ends_the_call_at_once(asked, fits):
    async def main():
        async with (
            virtual.emulator() as emulator,
            virtual.client(emulator, timeout=5.0) as client,
        ):
            emulator.fail(**ALWAYS, status=429, delay=1.0, headers={"Retry-After": asked})
            return await measured(client)

    error, elapsed = virtual.run(main())
    assert isinstance(error, RateLimitError)
    assert error.attempts == 1 + fits
    if fits:
        assert 1 + 2.5 + 1 <= elapsed + NOISE < 5.0
    else:
        assert elapsed == pytest.approx(1.0, abs=NOISE)


def test_a_backoff_that_cannot_fit_ends_the_call_at_once():
    async def main():
        async with (
            virtual.emulator() as emulator,
            virtual.client(emulator, seed=1, timeout=0.01) as client,
        ):
            emulator.fail(**ALWAYS, status=500)
            return await measured(client)

    error, elapsed = virtual.run(main())
    assert (error.status_code, error.attempts) == (500, 1)
    assert elapsed < NOISE


# What is no server's doing


async def for_ever(*_args, **_kwargs):
    await asyncio.get_running_loop().create_future()


def test_a_connection_that_never_opens_is_bound():
    async def main():
        options = {"connect_timeout": None, "attempt_timeout": None, "timeout": 4.0}
        async with virtual.emulator() as emulator, virtual.client(emulator, **options) as client:
            with mock.patch.object(aiohappyeyeballs, "start_connection", for_ever):
                return await measured(client)

    error, elapsed = virtual.run(main())
    assert (type(error), error.limit) == (APITimeoutError, "timeout")
    assert elapsed == pytest.approx(4.0, abs=NOISE)


@pytest.mark.parametrize(
    ("limit", "ends_by"), [(None, "timeout"), (60.0, "timeout"), (1.0, "connect_timeout")]
)
def test_a_name_that_is_looked_up_for_ever_is_bound(monkeypatch, limit, ends_by):
    async def main():
        async with AsyncChatKit(
            api_key="sk-1",
            base_url="https://slow.example/v1",
            timeout=4.0,
            connect_timeout=limit,
            max_retries=0,
        ) as client:
            client._attempts.seam = virtual.Seam(now=asyncio.get_running_loop().time)
            return await measured(client)

    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(PATIENCE))
    error, elapsed = virtual.run(main())
    answer.set()
    assert (type(error), error.limit) == (APITimeoutError, ends_by)
    assert elapsed <= 4.0 + NOISE


def test_a_key_that_never_comes_is_bound():
    async def main():
        async with virtual.emulator() as emulator, virtual.client(emulator, timeout=4.0) as client:
            slow = client.with_options(api_key=for_ever)
            slow._attempts.seam = client._attempts.seam
            return await measured(slow)

    error, elapsed = virtual.run(main())
    assert isinstance(error, APITimeoutError)
    assert elapsed == pytest.approx(4.0, abs=NOISE)


# In real time


@pytest.mark.parametrize("limit", ["timeout", "attempt_timeout"])
async def test_a_call_is_bound_in_real_time(limit):
    async with serve(replying(HANG)) as server:
        client = AsyncChatKit(api_key="sk-1", base_url=server.base_url, max_retries=0)
        async with client, asyncio.timeout(PATIENCE):
            error, _ = await measured(client, **{limit: 0.05})

    assert (type(error), error.limit) == (APITimeoutError, limit)


def test_a_blocking_call_is_bound_in_real_time(grounds):
    started = time.monotonic()
    with (
        grounds.serving(replying(HANG)) as server,
        ChatKit(api_key="sk-1", base_url=server.base_url) as client,
        pytest.raises(APITimeoutError) as caught,
    ):
        client.sessions.create(**CREATE, timeout=0.2)

    assert time.monotonic() - started >= 0.2
    assert caught.value.limit == "timeout"


async def test_a_call_of_no_limit_has_none():
    async with serve(replying(http())) as server, asyncio.timeout(PATIENCE):
        options = {"timeout": None, "attempt_timeout": None, "connect_timeout": None}
        async with AsyncChatKit(api_key="sk-1", base_url=server.base_url, **options) as client:
            error, _ = await measured(client)

    assert error is None
