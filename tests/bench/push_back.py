"""What a rate limit costs: us, us without the gate, and the OpenAI SDK.

`nox -s push_back` measures on virtual time, prints the tables of `docs/explanation/push-back.md` and
draws its plots; `nox -s push_back -- --real` measures over real sockets, in real time.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import time
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import mock

import attrs
import virtual

from chatkit_async import AsyncChatKit
from chatkit_async._gate import RateGate
from chatkit_async.client import Seam
from chatkit_async.emulator import Emulator, FixedWindow, LogNormal, TokenBucket

DOCS = Path(__file__).parents[2] / "docs" / "explanation"
LIMIT = TokenBucket(rate=25, burst=25, retry_after=1)
LATENCY = LogNormal(0.03, 0.3)

LIMITS = {
    "25/s, burst 25, `Retry-After: 1`": LIMIT,
    "25/s, burst 25, exact wait": TokenBucket(rate=25, burst=25),
    "25/s, burst 25, no `Retry-After`": TokenBucket(rate=25, burst=25, retry_after=None),
    "25/s, one token, exact wait": TokenBucket(rate=25, burst=1),
    "25/s, one token, `Retry-After: 1`": TokenBucket(rate=25, burst=1, retry_after=1),
    "25 in windows of 1 s": FixedWindow(limit=25, window=1),
    "250 in windows of 10 s": FixedWindow(limit=250, window=10),
}


class NoGate(RateGate):
    """Always free."""

    def push_back(self, now, sent, wait):
        """Hear nothing."""


@asynccontextmanager
async def with_gate(emulator, retries=2):
    """Us."""
    async with AsyncChatKit(
        api_key=emulator.api_key, base_url=emulator.base_url, max_retries=retries
    ) as client:
        client._attempts.seam = Seam(now=asyncio.get_running_loop().time)  # virtual, or real
        yield client.sessions.create


@asynccontextmanager
async def without_gate(emulator, retries=2):
    """Us, each call for itself."""
    async with AsyncChatKit(
        api_key=emulator.api_key, base_url=emulator.base_url, max_retries=retries
    ) as client:
        client._attempts.seam = Seam(now=asyncio.get_running_loop().time)
        client._gate = NoGate()
        yield client.sessions.create


@asynccontextmanager
async def openai(emulator, retries=2):
    """The OpenAI SDK."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(
        api_key=emulator.api_key, base_url=emulator.base_url, max_retries=retries
    ) as client:

        async def create(user, workflow):
            return await client.beta.chatkit.sessions.create(user=user, workflow={"id": workflow})

        yield create


CLIENTS = {
    "with the gate": (with_gate, 2),
    "without it": (without_gate, 2),
    "without it, 8 retries": (without_gate, 8),
    "`openai`": (openai, 2),
    "`openai`, 8 retries": (openai, 8),
}


@attrs.frozen
class Found:
    """What became of a run."""

    wanted: int
    created: int
    seconds: float
    requests: list[tuple[float, int]]

    def row(self, limit):
        """Cells of a table: created, requests per success, share of the rate."""
        capacity = _capacity(limit, self.seconds)
        return (
            f"{self.created / self.wanted:.0%}",
            f"{len(self.requests) / self.created:.2f}",
            f"{self.created / capacity:.0%}",
        )


def _capacity(limit, seconds):
    """What could have been let through."""
    if isinstance(limit, TokenBucket):
        return limit.burst + limit.rate * seconds
    return limit.limit * math.ceil(seconds / limit.window)


async def measure(client, emulator, number, at_once, now):
    """Create so many sessions, so many at a time."""
    make, retries = client
    left = iter(range(number))
    created = 0
    started = now()
    last = 0.0
    async with make(emulator, retries) as create:

        async def one_after_the_other():
            nonlocal created, last
            for each in left:
                try:
                    await create(user=f"user_{each}", workflow="wf_123")
                except Exception as error:
                    if getattr(error, "status_code", 0) != 429:
                        raise
                else:
                    created += 1
                last = now() - started

        await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    requests = [(record.received_at, record.status) for record in emulator.requests]
    first = requests[0][0]
    return Found(number, created, last, [(at - first, status) for at, status in requests])


def simulated(client, limit, number, at_once):
    """Measure on virtual time."""
    random.seed(1)  # which every client draws its jitter from

    async def main():
        async with virtual.emulator(rate_limit=limit, latency=LATENCY) as emulator:
            loop = asyncio.get_running_loop()
            return await measure(client, emulator, number, at_once, loop.time)

    # The OpenAI SDK's HTTP client asks the system whether an idle connection was closed, and the
    # system knows nothing of a socket in memory.
    with mock.patch("httpcore2._backends.anyio.is_socket_readable", return_value=False):
        return virtual.run(main())


def real(client, limit, number, at_once):
    """Measure over real sockets."""

    async def main():
        with Emulator(rate_limit=limit, ledger_size=100_000) as emulator:
            return await measure(client, emulator, number, at_once, time.monotonic)

    return asyncio.run(main())


def table(by_client):
    """Print a table: clients down, what became of them across."""
    print("| | created | requests | a success | seconds |\n|---|---|---|---|---|")
    for name, found in by_client.items():
        a_success = len(found.requests) / found.created
        print(
            f"| {name} | {found.created} | {len(found.requests)} | "
            f"{a_success:.2f} | {found.seconds:.1f} |"
        )
    print(flush=True)


def weak_spots():
    """Print a table: kinds of limits down, clients across."""
    print("| limit | " + " | ".join(CLIENTS) + " |\n|---|" + "---|" * len(CLIENTS))
    for name, limit in LIMITS.items():
        cells = [" · ".join(simulated(c, limit, 1000, 100).row(limit)) for c in CLIENTS.values()]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def plot(name, by_client, width, until):
    """Draw what was let through and refused over time, a panel for each client."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.rcParams["font.size"] = 9
    figure, panels = plt.subplots(
        len(by_client), sharex=True, sharey=True, figsize=(7, 1.3 * len(by_client) + 0.6)
    )
    edges = [place * width for place in range(int(until / width) + 1)]
    for panel, (client, found) in zip(panels, by_client.items(), strict=True):
        through = [at for at, status in found.requests if status == 200]
        refused = [at for at, status in found.requests if status == 429]
        panel.hist(
            [through, refused],
            edges,
            stacked=True,
            histtype="stepfilled",
            color=["#3b7dd8", "#d9534f"],
            label=["let through", "refused with 429"],
        )
        created = f"{found.created} of {found.wanted} created"
        title = f"{client.replace('`', '')}: {created}, {len(found.requests)} requests"
        panel.set_title(title, loc="left", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, loc="upper right")
    panels[-1].set_xlabel("seconds")
    figure.supylabel(f"requests in {width:g} s", fontsize=9)
    figure.tight_layout()
    figure.savefig(DOCS / name, dpi=120, metadata={"Software": None})  # which has a version


def main():
    """Measure."""
    parser = argparse.ArgumentParser(prog="push_back", description=__doc__)
    parser.add_argument("--real", action="store_true", help="over real sockets, in real time")
    options = parser.parse_args()
    run = real if options.real else simulated
    at_once = {name: run(client, LIMIT, 100, 100) for name, client in CLIENTS.items()}
    print("100 at once:\n")
    table(at_once)
    in_flight = {name: run(client, LIMIT, 1000, 100) for name, client in CLIENTS.items()}
    print("1,000, with 100 in flight:\n")
    table(in_flight)
    if not options.real:
        print("1,000, with 100 in flight: created, requests a success, share of the rate used:\n")
        weak_spots()
        shown = ["with the gate", "without it, 8 retries", "`openai`, 8 retries"]
        plot("push-back-burst.png", {name: at_once[name] for name in shown}, 0.1, 5)
        plot("push-back-in-flight.png", {name: in_flight[name] for name in shown}, 0.25, 45)


if __name__ == "__main__":
    main()
