"""What is taken of a task, and how."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import server

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a task took. 0.0: that was not looked at.

    Attributes:
        requests: How many were made.
        cpu: Seconds of this process, each request.
        wall: Seconds from the first request to the last reply.
        p50: Seconds, the median of the requests' durations.
        p99: Likewise: one in a hundred took longer.
        server_cpu: Seconds of the load server, each request.
        memory: Bytes; of what, the task says.
    """

    requests: int
    cpu: float
    wall: float
    p50: float = 0.0
    p99: float = 0.0
    server_cpu: float = 0.0
    memory: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.wall


class Meter:
    """Measures the length of a `with` block.

    Attributes:
        latencies: Takes the requests' durations;
        requests: or, where nobody looks at them, their number.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    def __enter__(self) -> Self:
        self.latencies: list[float] = []
        self.requests = 0
        self._server = server.stats(self._base_url)
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            return
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        spent = server.stats(self._base_url)
        requests = len(self.latencies) or self.requests
        self.measured = Measured(
            requests=requests,
            cpu=cpu / requests,
            wall=wall,
            p50=percentile(self.latencies, 50),
            p99=percentile(self.latencies, 99),
            server_cpu=(spent.cpu - self._server.cpu) / (spent.served - self._server.served),
        )


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent are not above; 0.0 of none."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


CAN_TELL_MEMORY = Path("/proc/self/statm").exists()
