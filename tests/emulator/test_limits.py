from __future__ import annotations

import math

import aiohttp
import pytest

from chatkit_async.emulator import Emulator, FixedWindow, TokenBucket, _limits
from chatkit_async.emulator._limits import Limiter, duration


@pytest.fixture
def ask(http, wanted):
    """Ask for a session: returns the reply's status and headers."""

    async def ask(**headers):
        async with http.post("chatkit/sessions", json=wanted, headers=headers) as response:
            return response.status, response.headers

    return ask


async def test_without_a_limit_nothing_is_said_of_one(ask, emulator):
    _, headers = await ask()

    assert emulator.rate_limit is None
    assert not [name for name in headers if name.lower().startswith(("x-ratelimit", "retry"))]


async def test_a_bucket_gives_its_burst_at_once_and_then_refuses(ask, emulator):
    emulator.rate_limit = TokenBucket(rate=2, burst=3)

    assert [(await ask())[0] for _ in range(5)] == [200, 200, 200, 429, 429]
    assert len(emulator.sessions) == 3


async def test_a_bucket_refills_at_its_rate_up_to_its_burst(ask, emulator, clock):
    emulator.rate_limit = TokenBucket(rate=2, burst=3)
    for _ in range(3):
        await ask()

    clock.advance(0.49)
    assert (await ask())[0] == 429
    clock.advance(0.01)
    assert (await ask())[0] == 200
    assert (await ask())[0] == 429
    clock.advance(3600)
    assert [(await ask())[0] for _ in range(4)] == [200, 200, 200, 429]


async def test_each_reply_says_where_it_left_a_bucket(ask, emulator):
    emulator.rate_limit = TokenBucket(rate=2, burst=2)

    _, first = await ask()
    _, second = await ask()
    status, third = await ask()

    names = [f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset")]
    assert [first[name] for name in names] == ["2", "1", "500ms"]
    assert [second[name] for name in names] == ["2", "0", "1s"]
    assert "Retry-After" not in second
    assert status == 429
    assert [third[name] for name in names] == ["2", "0", "1s"]


async def test_a_refusal_is_in_the_apis_shape(create, emulator):
    emulator.rate_limit = TokenBucket(rate=2, burst=1)
    await create()

    assert await create() == (
        429,
        {
            "error": {
                "message": "Rate limit reached for requests: Limit 1. Please try again in 500ms.",
                "type": "requests",
                "param": None,
                "code": "rate_limit_exceeded",
            }
        },
    )


@pytest.mark.parametrize(
    ("retry_after", "seconds", "milliseconds"),
    [
        ("exact", "1", "500"),
        (1, "1", None),
        (2.0, "2", None),
        (1.5, "2", "1500"),
        (None, None, None),
    ],
)
async def test_a_refusal_asks_to_wait_as_it_was_told(
    ask, emulator, retry_after, seconds, milliseconds
):
    emulator.rate_limit = TokenBucket(rate=2, burst=1, retry_after=retry_after)
    await ask()

    _, headers = await ask()

    assert headers.get("Retry-After") == seconds
    assert headers.get("retry-after-ms") == milliseconds


@pytest.mark.parametrize("rate", [0.3, 3, 7, 25, 1000 / 3])
async def test_who_waits_exactly_as_long_as_told_is_let_through(ask, emulator, clock, rate):
    emulator.rate_limit = TokenBucket(rate=rate, burst=1)
    await ask()
    for _ in range(5):
        status, headers = await ask()
        assert status == 429
        told = headers.get("retry-after-ms")
        clock.advance(float(headers["Retry-After"]) if told is None else float(told) / 1000)
        assert (await ask())[0] == 200


async def test_a_window_lets_its_limit_through_and_starts_anew_all_at_once(ask, emulator, clock):
    emulator.rate_limit = FixedWindow(limit=2, window=10)

    assert (await ask())[0] == 200
    clock.advance(7)
    assert (await ask())[0] == 200
    status, refused = await ask()
    clock.advance(2.9)
    assert (await ask())[0] == 429
    clock.advance(0.1)
    restarted, headers = await ask()

    assert status == 429
    assert refused["Retry-After"] == "3"
    assert refused["x-ratelimit-limit-requests"] == "2"
    assert refused["x-ratelimit-remaining-requests"] == "0"
    assert refused["x-ratelimit-reset-requests"] == "3s"
    assert restarted == 200
    assert headers["x-ratelimit-remaining-requests"] == "1"
    assert headers["x-ratelimit-reset-requests"] == "10s"


async def test_a_window_is_a_minute_long_unless_it_is_told(ask, emulator):
    emulator.rate_limit = FixedWindow(limit=1, retry_after=None)
    await ask()

    _, headers = await ask()

    assert headers["x-ratelimit-reset-requests"] == "1m0s"
    assert "Retry-After" not in headers


@pytest.mark.parametrize("limit", [TokenBucket(rate=1), FixedWindow(limit=1)])
async def test_a_clock_that_is_set_back_breaks_no_limit(ask, emulator, clock, limit):
    emulator.rate_limit = limit
    await ask()

    clock.set(clock.now() - 1000)
    await ask()

    assert (await ask())[0] == 429


@pytest.mark.parametrize("limit", [TokenBucket(rate=1e-9), FixedWindow(limit=1, window=1e9)])
async def test_the_slowest_limit_tells_how_long_to_wait(ask, emulator, limit):
    emulator.rate_limit = limit
    await ask()

    status, headers = await ask()
    assert (status, headers["Retry-After"]) == (429, "1000000000")


async def test_all_keys_and_both_operations_count_together(ask, cancel, emulator):
    emulator.rate_limit = TokenBucket(rate=1, burst=2)

    await ask(Authorization="Bearer one")
    assert (await cancel("cksess_unknown"))[0] == 404
    assert (await ask(Authorization="Bearer other"))[0] == 429


async def test_keys_count_apart_if_the_limit_says_so(ask, emulator):
    emulator.rate_limit = TokenBucket(rate=1, per_key=True)

    assert (await ask(Authorization="Bearer one"))[0] == 200
    assert (await ask(Authorization="Bearer other"))[0] == 200
    assert (await ask(Authorization="Bearer one"))[0] == 429


async def test_a_request_without_a_key_or_a_place_counts_nowhere(ask, http, emulator):
    emulator.rate_limit = TokenBucket(rate=1)

    assert (await ask(Authorization="none"))[0] == 401
    async with http.get("models") as response:
        assert response.status == 404
        assert "x-ratelimit-limit-requests" not in response.headers
    assert (await ask())[0] == 200


async def test_a_limit_is_set_anew_and_starts_unused(ask, emulator):
    emulator.rate_limit = TokenBucket(rate=1)
    await ask()
    emulator.rate_limit = limit = TokenBucket(rate=1)

    assert emulator.rate_limit is limit
    assert (await ask())[0] == 200
    emulator.rate_limit = None
    assert (await ask())[0] == 200


async def test_a_limit_is_given_at_the_start(clock, headers, wanted):
    limit = FixedWindow(limit=1)
    async with (
        Emulator(clock=clock, rate_limit=limit) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
    ):
        statuses = []
        for _ in range(2):
            async with http.post("chatkit/sessions", json=wanted) as response:
                statuses.append(response.status)

    assert statuses == [200, 429]


async def test_a_scripted_error_counts_nowhere_and_a_late_one_does(ask, emulator):
    emulator.rate_limit = TokenBucket(rate=1, burst=2)
    emulator.fail(status=500)
    emulator.fail(status=500, after=True)

    _, early = await ask()
    _, late = await ask()

    assert "x-ratelimit-remaining-requests" not in early
    assert late["x-ratelimit-remaining-requests"] == "1"


def test_a_bucket_holds_what_a_second_brings_unless_it_is_told():
    assert TokenBucket(rate=25).burst == 25
    assert TokenBucket(rate=0.1).burst == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0},
        {"rate": 9e-10},
        {"rate": 1.1e9},
        {"rate": math.inf},
        {"rate": math.nan},
        {"rate": 1, "burst": 0},
        {"rate": 1, "burst": 10**9 + 1},
        {"rate": 1, "retry_after": 0},
        {"rate": 1, "retry_after": math.inf},
        {"rate": 1, "retry_after": "1"},
    ],
)
def test_a_bucket_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=r"rate|burst|retry_after"):
        TokenBucket(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": 10**9 + 1},
        {"limit": 1, "window": 0},
        {"limit": 1, "window": 1.1e9},
    ],
)
def test_a_window_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=r"limit|window"):
        FixedWindow(**wrong)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0004, "1ms"),
        (0.12, "120ms"),
        (1, "1s"),
        (8.64, "8.64s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (86_399.5, "23h59m59.5s"),
    ],
)
def test_a_duration_is_written_as_the_api_does(seconds, text):
    assert duration(seconds) == text


def test_the_keys_that_were_counted_first_are_forgotten(monkeypatch):
    monkeypatch.setattr(_limits, "_MAX_KEYS", 3)
    limiter = Limiter(TokenBucket(rate=1, per_key=True))

    waits = [limiter.count(key, 0.0)[0].wait > 0 for key in "abcabcdbcda"]
    assert waits == [False] * 3 + [True] * 3 + [False] + [True] * 3 + [False]
