"""What is measured, and which figures are made of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker import Measured

US, BASE, AIOHTTP, OPENAI, FLOOR = "chatkit_async", "base", "aiohttp", "openai", "floor"
CROSSED = "floor, crossed"
"""Who takes part: see `peers`; `base` is us as we were, in another checkout."""

PACE = {US: 1e-4, BASE: 1e-4, AIOHTTP: 1e-4, OPENAI: 1e-3, FLOOR: 2e-5, CROSSED: 1e-4}
"""Seconds that a create takes each of them, roughly: how many go into a round."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Something that every peer does in every round.

    Attributes:
        name: What it is, in the report.
        part: Of which part of the benchmark.
        task: How the worker does it: see `worker.TASKS`.
        at_once: Requests in flight.
        peers: Who does it.
        host: Of the load server: loopback by its address or by its name.
        path: Below which path: see `server`.
        seconds: How long it takes each of them, more or less.
        one_core: Whether client and load server are kept on one core, the same for every peer.
            Else a create by two threads takes half as long on a machine that is busy, where they
            share a core, as on an idle one, where each wakes a core from its sleep: in a virtual
            machine, 25 us and cold caches each time. The clients differ by less.
    """

    name: str
    part: str
    task: str
    at_once: int
    peers: tuple[str, ...]
    host: str = "127.0.0.1"
    path: str = "plain"
    seconds: float = 0.5
    one_core: bool = False


ON_IP = Scenario(
    name="create, 50 in flight, IP",
    part="create",
    task="in_flight",
    at_once=50,
    peers=(US, BASE, AIOHTTP, OPENAI, FLOOR),
)
ON_HOST = Scenario(
    name="create, 50 in flight, host name and cookies",
    part="create",
    task="in_flight",
    at_once=50,
    peers=(US, BASE, AIOHTTP, OPENAI),
    host="localhost",
    path="cookies",
)
ONE = Scenario(
    name="create, one at a time, one core",
    part="sync",
    task="in_flight",
    at_once=1,
    peers=(US, BASE, FLOOR),
    seconds=0.3,
    one_core=True,
)
BLOCKING_ONE = Scenario(
    name="blocking create, one at a time, one core",
    part="sync",
    task="threads",
    at_once=1,
    peers=(US, BASE, OPENAI, CROSSED),
    seconds=0.3,
    one_core=True,
)
ONE_ANYWHERE = replace(ONE, name="create, one at a time, any core", one_core=False)
BLOCKING_ONE_ANYWHERE = replace(
    BLOCKING_ONE, name="blocking create, one at a time, any core", one_core=False
)
BLOCKING_MANY = Scenario(
    name="blocking create, 50 threads",
    part="sync",
    task="threads",
    at_once=50,
    peers=(US, BASE, OPENAI),
)

SCENARIOS = [
    ON_IP,
    ON_HOST,
    ONE,
    BLOCKING_ONE,
    ONE_ANYWHERE,
    BLOCKING_ONE_ANYWHERE,
    BLOCKING_MANY,
]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A figure to make: what we took of something, divided by what another did in that round.

    Attributes:
        aim: What it is to be at most; with `at_least`, at least. None: it is for the record.
    """

    scenario: Scenario
    peer: str
    value: Callable[[Measured], float]
    unit: str
    aim: float | None = None
    at_least: bool = False

    @property
    def name(self) -> str:
        return f"{self.scenario.name}: {self.unit}, to {self.peer}"


def cpu(scenario: Scenario, peer: str, aim: float | None = None) -> Comparison:
    """Compare the CPU time of each create."""
    return Comparison(scenario=scenario, peer=peer, value=attrgetter("cpu"), unit="CPU", aim=aim)


def p50(scenario: Scenario, peer: str, aim: float | None = None) -> Comparison:
    """Compare the median of the creates' durations."""
    return Comparison(scenario=scenario, peer=peer, value=attrgetter("p50"), unit="p50", aim=aim)


def rate(scenario: Scenario, peer: str, aim: float | None = None) -> Comparison:
    """Compare the creates a second: more is better."""
    return Comparison(
        scenario=scenario,
        peer=peer,
        value=attrgetter("rate"),
        unit="creates/s",
        aim=aim,
        at_least=True,
    )


COMPARISONS = [
    cpu(ON_IP, AIOHTTP, 1.10),
    cpu(ON_IP, OPENAI, 0.10),
    cpu(ON_IP, FLOOR),
    cpu(ON_IP, BASE),
    cpu(ON_HOST, AIOHTTP),
    cpu(ON_HOST, OPENAI, 0.10),
    cpu(ON_HOST, BASE),
    p50(BLOCKING_ONE, OPENAI, 0.30),
    p50(BLOCKING_ONE, BASE),
    p50(BLOCKING_ONE_ANYWHERE, OPENAI),
    rate(BLOCKING_MANY, OPENAI, 5),
    rate(BLOCKING_MANY, BASE),
]


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """A figure to make: the microseconds that blocking on a loop's thread adds to a create.

    Attributes:
        blocking: The scenario, and who does it.
        own: The same on a loop of one's own.
        aim: What it is to be at most. None: it is for the record.
    """

    blocking: tuple[Scenario, str]
    own: tuple[Scenario, str]
    aim: float | None = None

    @property
    def name(self) -> str:
        scenario, peer = self.blocking
        return f"{scenario.name}: p50, {peer} above async"


CROSSINGS = [
    Crossing(blocking=(BLOCKING_ONE, US), own=(ONE, US), aim=100),
    Crossing(blocking=(BLOCKING_ONE, CROSSED), own=(ONE, FLOOR)),
    Crossing(blocking=(BLOCKING_ONE_ANYWHERE, US), own=(ONE_ANYWHERE, US)),
    Crossing(blocking=(BLOCKING_ONE_ANYWHERE, CROSSED), own=(ONE_ANYWHERE, FLOOR)),
]

PARTS_OF_US = "aiohttp + attrs + cattrs"

IMPORTS = {
    US: "chatkit_async",
    BASE: "chatkit_async",
    PARTS_OF_US: "aiohttp, attrs, cattrs",
    OPENAI: "openai",
}
IMPORT_AIMS = {BASE: None, PARTS_OF_US: 1.15, OPENAI: None}
