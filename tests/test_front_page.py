"""The README's comparison with `openai` says what was measured."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path
from unittest import mock

import async_solipsism
import openai
import pytest
import virtual

from chatkit_async import APITimeoutError, ChatKit
from chatkit_async.emulator import Emulator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def table(text):
    """The rows of all tables on a page: the first cell, and the others."""
    rows = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| "))
    return {first: others for first, *others in rows}


CLAIMS = table(README)
PUSH_BACK = (ROOT / "docs/explanation/push-back.md").read_text("utf-8")
MEASURED = table((ROOT / "docs/explanation/benchmarks.md").read_text("utf-8"))
CPU = "create, 50 in flight, IP: CPU, to openai"
RATE = "create, 500 in flight, a reply takes 50 ms: creates/s, to openai"
START = "a client made, ChatKit touched: CPU, to openai"
START_MEMORY = "a client made, ChatKit touched: memory, to openai"


@pytest.mark.parametrize(
    ("row", "figures", "shown"),
    [
        ("CPU time of a `create` call, 50 at a time (less is better)", [CPU], "{:.2f}"),
        (
            "`create` calls per second, 500 at a time, a reply takes 50 ms (more is better)",
            [RATE],
            "{:.0f}",
        ),
        (
            "import and first client: CPU time, memory (less is better)",
            [START, START_MEMORY],
            "{:.2f}, {:.2f}",
        ),
    ],
)
def test_ratio_is_the_stored_one(row, figures, shown):
    ratios = [float(MEASURED[figure][0]) for figure in figures]

    ours, theirs, command = CLAIMS[row]

    assert ours == shown.format(*ratios)
    assert set(theirs.split(", ")) == {"1"}
    assert command.startswith("`nox -s bench -- --only ")


def test_first_screen_rounds_the_ratios():
    words = {"a ninth": 1 / 9, "a fifth": 1 / 5, "half": 1 / 2}
    ratios = [float(MEASURED[figure][0]) for figure in (CPU, START, START_MEMORY)]

    assert list(words.values()) == pytest.approx(ratios, rel=0.15)
    assert "A `create` call takes about a ninth of the CPU time." in README
    assert "takes about a fifth of the CPU time and half the memory" in README


def test_creates_behind_a_limit_are_the_stored_ones():
    ours, theirs, _ = CLAIMS["100 `create` calls at once, the API accepts 25 per second"]

    for claim, measured in ((ours, "with the gate"), (theirs, "`openai`")):
        found = re.findall(rf"^\| {measured} \| (\d+) \| (\d+) \|", PUSH_BACK, re.MULTILINE)
        assert claim == "{} created with {} requests".format(*found[0])


def test_timeout_is_the_whole_calls():
    ours, theirs, _ = CLAIMS["`timeout=30`, and the API does not answer"]

    async def ours_waits():
        async with silent() as emulator, virtual.client(emulator, timeout=30) as client:
            with pytest.raises(APITimeoutError):
                await client.sessions.create(user="ada", workflow="wf_123")
            return asyncio.get_running_loop().time()

    async def theirs_waits():
        async with (
            silent() as emulator,
            openai.AsyncOpenAI(
                api_key=emulator.api_key, base_url=emulator.base_url, timeout=30
            ) as client,
        ):
            with pytest.raises(openai.APITimeoutError):
                await client.beta.chatkit.sessions.create(user="ada", workflow={"id": "wf_123"})
            return asyncio.get_running_loop().time()

    def silent():
        emulator = virtual.emulator()
        emulator.fail(delay=math.inf, times=None)
        return emulator

    with (
        # Ticks whose sums are exact: a timer that fires a hair too early would do so for ever.
        mock.patch.object(async_solipsism.EventLoop, "time", exact_time),
        # The system, which is asked about idle connections, knows nothing of a socket in memory.
        mock.patch("httpcore2._backends.anyio.is_socket_readable", return_value=False),
        mock.patch("random.random", return_value=0.5),
    ):
        assert ours == f"error after {virtual.run(ours_waits()):.0f} s"
        assert theirs == f"error after {virtual.run(theirs_waits()):.0f} s"


def exact_time(loop, time=async_solipsism.EventLoop.time):
    """The loop's time in ticks of 2**-20 seconds."""
    return round(time(loop) * 2**20) / 2**20


@pytest.mark.unmeasured
def test_printed_session_hides_the_secret():
    with Emulator() as emulator:
        options = {"api_key": emulator.api_key, "base_url": emulator.base_url}
        with ChatKit(**options) as client:
            ours = client.sessions.create(user="ada", workflow="wf_123")
        with openai.OpenAI(**options) as client:
            theirs = client.beta.chatkit.sessions.create(user="ada", workflow={"id": "wf_123"})

    assert CLAIMS["`print(session)`, or a log line with it"][:2] == [
        "hides the client secret",
        "shows the client secret",
    ]
    assert ours.client_secret not in str(ours)
    assert theirs.client_secret in str(theirs)
