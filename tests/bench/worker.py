"""One client in a process of its own, so that none pays for what another imported or left behind.

Run as a script it reads tasks from standard input, one JSON object a line, answers each with a
line, and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import bulk
import crowd
import listing
import peers
import server
from meter import Measured, Meter
from run import check, client_of, loop_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

LONGEST_TASK = 1800.0
"""Seconds after which a task is given up."""


def in_flight(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    """Create sessions from coroutines, so many at a time."""
    with loop_of(peer) as runner:
        return runner.run(_in_flight(client_of(peer), base_url, requests, at_once))


async def _in_flight(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    async with peers.ASYNC[peer](base_url) as create:

        async def fill(requests: int, latencies: list[float]) -> None:
            left = iter(range(requests))

            async def one_after_the_other() -> None:
                for _ in left:
                    started = time.perf_counter()
                    await create()
                    latencies.append(time.perf_counter() - started)

            await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))

        check(await create())
        await fill(min(at_once * 4, requests), [])
        with Meter(base_url) as meter:
            await fill(requests, meter.latencies)
        return meter.measured


def threads(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    """Create sessions from threads that share a client, so many at a time."""
    with peers.BLOCKING[peer](base_url) as create:

        def fill(requests: int, latencies: list[float]) -> None:
            left = iter(range(requests))

            def one_after_the_other() -> None:
                for _ in left:
                    started = time.perf_counter()
                    create()
                    latencies.append(time.perf_counter() - started)

            if at_once == 1:
                one_after_the_other()
                return
            running = [threading.Thread(target=one_after_the_other) for _ in range(at_once)]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()

        check(create())
        fill(min(at_once * 4, requests), [])
        with Meter(base_url) as meter:
            fill(requests, meter.latencies)
        return meter.measured


def decode(peer: str, requests: int, **_: object) -> Measured:
    """Decode a reply, so often."""
    content = json.dumps(server.SESSION, indent=2).encode()
    once = peers.DECODING[peer](content)
    check(once())
    wall, cpu = time.perf_counter(), time.process_time()
    for _number in range(requests):
        once()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Measured(requests=requests, cpu=cpu / requests, wall=wall)


TASKS: dict[str, Callable[..., Measured]] = {
    "in_flight": in_flight,
    "threads": threads,
    "decode": decode,
    "crowd": crowd.crowd,
    "held": crowd.held,
    "bulk": bulk.bulk,
    "growth": bulk.growth,
    "listing": listing.listing,
    "listing_blocking": listing.listing_blocking,
    "held_items": listing.held_items,
    "delete": listing.delete,
}


class Worker:
    """A process that measures one peer, for the length of a `with` block."""

    def __init__(self, peer: str, environment: Mapping[str, str]) -> None:
        self._peer = peer
        self._environment = environment

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__), self._peer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        self.pid = self._process.pid
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def measure(self, task: str, **arguments: Any) -> Measured:
        """Do a task; see `TASKS`.

        Raises:
            RuntimeError: the process failed, or took too long.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], LONGEST_TASK)
        answer = self._process.stdout.readline() if ready else ""
        if not answer:
            how = "took too long" if not ready else f"ended with {self._process.wait(30)}"
            raise RuntimeError(f"{self._peer} {how} at {task} {arguments}")
        return Measured(**json.loads(answer))


def clean_environment() -> dict[str, str]:
    """The environment without what would change a client's ways or hide this folder's modules."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy")
        and not name.startswith("OPENAI_")
        and name not in {"PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE"}
    }


def main() -> None:
    """Do the tasks on standard input."""
    peer = sys.argv[1]
    for line in sys.stdin:
        arguments = json.loads(line)
        measured = TASKS[arguments.pop("task")](peer=peer, **arguments)
        print(json.dumps(asdict(measured)), flush=True)


if __name__ == "__main__":
    main()
