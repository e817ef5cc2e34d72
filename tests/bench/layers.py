"""Where the CPU of a create goes, layer by layer.

Each rung calls into the client one layer further up, 50 in flight on the load server; what it takes
more than the rung below is that layer's cost. The calls are private ones: a rung that breaks when
the inside changes is to follow the change.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

import report
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from peers import API_KEY, USER, WORKFLOW
from server import Server
from yarl import URL

from chatkit_async import AsyncChatKit, ChatSession, Secret, _codec, _protocol
from chatkit_async._attempts import Limits
from chatkit_async._transport import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AT_ONCE = 50
REQUESTS = 2000
"""In each round, at a scale of 1."""


class Ladder:
    """A client, and what each of its layers does for a create."""

    def __init__(self, client: AsyncChatKit, lean: ClientSession, base_url: str) -> None:
        self._client = client
        self._lean = lean
        self._call = _protocol.create_session({"user": USER, "workflow": WORKFLOW}, {})
        self._url = URL(base_url + self._call.path, encoded=True)
        self._timeout = ClientTimeout(total=None, sock_connect=5)
        self._key = Secret(API_KEY)

    async def leanest(self) -> bytes:
        response = await self._lean.post(
            self._url,
            data=self._call.body,
            headers=self._client._attempts._headers,
            timeout=self._timeout,
        )
        return await response.read()

    async def send(self) -> object:
        return await self._client._attempts._send(self._call, self._key, Progress())

    async def attempt(self) -> object:
        attempts = self._client._attempts
        now = attempts.seam.now()
        limits = Limits(attempts.settings, {}, now)
        return await attempts._attempt(self._call, limits, Progress(), now)

    async def attempts(self) -> object:
        return await self._client._call(self._call, {})

    async def create(self) -> object:
        return await self._client.sessions.create(user=USER, workflow=WORKFLOW)

    @property
    def rungs(self) -> dict[str, Callable[[], Awaitable[object]]]:
        return {
            "aiohttp at its leanest": self.leanest,
            "+ transport": self.send,
            "+ an attempt: its limits, its reply read": self.attempt,
            "+ the loop of attempts": self.attempts,
            "+ create: parameters to a call": self.create,
        }

    def parts(self, content: bytes) -> dict[str, Callable[[], object]]:
        """What is done without a socket, by itself."""
        reply = _protocol.Reply(status=200, headers={}, content=content)
        data: Any = _codec.loads(content)
        given = {"user": USER, "workflow": WORKFLOW}
        params = _codec.create_params(given)
        return {
            "alone: parameters checked": lambda: _codec.create_params(given),
            "alone: parameters encoded": lambda: _codec.encode(params, {}),
            "alone: parameters to a call": lambda: _protocol.create_session(given, {}),
            "alone: JSON decoded": lambda: _codec.loads(content),
            "alone: JSON to a ChatSession": lambda: _codec.from_dict(ChatSession, data),
            "alone: a reply to a ChatSession": lambda: _protocol.read(self._call, reply, ()),
        }


async def _climb(rounds: int, requests: int, base_url: str) -> dict[str, list[float]]:
    async with (
        AsyncChatKit(api_key=API_KEY, base_url=base_url) as client,
        ClientSession(connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar()) as lean,
    ):
        ladder = Ladder(client, lean, base_url)
        rungs, parts = ladder.rungs, ladder.parts(await ladder.leanest())
        taken: dict[str, list[float]] = {name: [] for name in (*rungs, *parts)}
        for number in range(rounds + 1):
            for name, step in rungs.items():
                seconds = await _cpu(step, requests)
                if number:  # the first opened the connections
                    taken[name].append(seconds)
            for name, work in parts.items():
                started = time.process_time()
                for _ in range(requests):
                    work()
                taken[name].append((time.process_time() - started) / requests)
    return taken


async def _cpu(step: Callable[[], Awaitable[object]], requests: int) -> float:
    left = iter(range(requests))

    async def one_after_the_other() -> None:
        for _ in left:
            await step()

    started = time.process_time()
    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return (time.process_time() - started) / requests


def main(rounds: int, scale: float) -> None:
    """Print what each layer costs."""
    requests = max(int(REQUESTS * scale), AT_ONCE)
    with Server() as server:
        taken = asyncio.run(_climb(rounds, requests, f"http://127.0.0.1:{server.port}/plain/v1"))
    medians = {name: statistics.median(seconds) * 1e6 for name, seconds in taken.items()}
    rows = [["layer", "CPU, us", "adds, us", "to the leanest", ""]]
    lowest = below = next(iter(medians.values()))
    for name, median in medians.items():
        adds = f"{median - below:.1f}" if name.startswith("+") else ""
        rows.append([name, f"{median:.1f}", adds, f"{median / lowest:.3f}", ""])
        below = median
    print("\n".join(report.table(rows)))
