"""What is measured, and which figures are made of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from report import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from meter import Measured

# Who takes part: see `peers` and, for many rows, `bulk`.

US, AIOHTTP, LEANEST, TYPED = (
    "chatkit_async",
    "aiohttp",
    "aiohttp, leanest",
    "aiohttp, leanest, typed",
)
HTTPX2, OPENAI, OPENAI_AIOHTTP = "httpx2", "openai", "openai, aiohttp"
FLOOR, CROSSED = "floor", "floor, crossed"
US_UVLOOP, AIOHTTP_UVLOOP, FLOOR_UVLOOP = (
    "chatkit_async, uvloop",
    "aiohttp, uvloop",
    "floor, uvloop",
)
US_ORJSON, US_MSGSPEC = "chatkit_async, orjson", "chatkit_async, msgspec"
US_BLOCKING, US_COMMAND = "chatkit_async, blocking", "chatkit_async, command line"
PARTS_OF_US = "aiohttp + attrs + cattrs"
BASE = "base"
"""Us as we were, in another checkout."""

NEEDS = {
    HTTPX2: "httpx2",
    OPENAI: "openai",
    OPENAI_AIOHTTP: "openai",
    US_ORJSON: "orjson",
    US_MSGSPEC: "msgspec",
    US_UVLOOP: "uvloop",
    AIOHTTP_UVLOOP: "uvloop",
    FLOOR_UVLOOP: "uvloop",
}
"""What has to be installed for them to take part."""

PACE = {
    HTTPX2: 5e-4,
    OPENAI: 1e-3,
    OPENAI_AIOHTTP: 7e-4,
    FLOOR: 2e-5,
    FLOOR_UVLOOP: 2e-5,
}
USUAL_PACE = 1e-4
"""Seconds that a create takes each of them, roughly: how many go into a round."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Something that every peer does in every round.

    Attributes:
        name: What it is, in the report.
        part: Of which part of the benchmark.
        task: How the worker does it: see `worker.TASKS`; `import` needs no worker.
        at_once: Requests in flight.
        peers: Who does it.
        host: Of the load server: loopback by its address or by its name.
        path: Below which path: see `server`.
        seconds: How long it takes each of them, more or less.
        requests: How many there are, where it matters.
        fresh: Whether each does it in a process that has done nothing before.
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
    seconds: float = 0.3
    requests: int | None = None
    fresh: bool = False
    one_core: bool = False


# Imports, and a client that is ready: code for a fresh interpreter

IMPORT = Scenario(
    name="import the client",
    part="import",
    task="import",
    at_once=1,
    peers=(US, BASE, PARTS_OF_US, OPENAI),
)
READY = replace(IMPORT, name="a client made, ChatKit touched", peers=(US, BASE, OPENAI))
CODE = {
    # The package alone imports nothing: its names are there when they are asked for.
    (IMPORT, US): "from chatkit_async import AsyncChatKit",
    (IMPORT, PARTS_OF_US): "import aiohttp, attrs, cattrs",
    (IMPORT, OPENAI): "import openai",
    (READY, US): "import chatkit_async; c = chatkit_async.AsyncChatKit(api_key='k'); c.sessions",
    (READY, OPENAI): "import openai; c = openai.AsyncOpenAI(api_key='k'); c.beta.chatkit.sessions",
}

DECODE = Scenario(
    name="decode a session",
    part="decode",
    task="decode",
    at_once=1,
    peers=(US, BASE, OPENAI),
    seconds=0.3,
)

# Creates

IP_1 = Scenario(
    name="create, 1 in flight, IP",
    part="create",
    task="in_flight",
    at_once=1,
    peers=(US, BASE, AIOHTTP),
)
ON_IP = Scenario(
    name="create, 50 in flight, IP",
    part="create",
    task="in_flight",
    at_once=50,
    peers=(
        US,
        BASE,
        AIOHTTP,
        TYPED,
        LEANEST,
        HTTPX2,
        OPENAI,
        OPENAI_AIOHTTP,
        FLOOR,
        US_UVLOOP,
        AIOHTTP_UVLOOP,
        FLOOR_UVLOOP,
    ),
)
IP_500 = Scenario(
    name="create, 500 in flight, IP",
    part="create",
    task="in_flight",
    at_once=500,
    peers=(US, BASE, AIOHTTP, TYPED, OPENAI),
    seconds=0.5,
)
OTHER_JSON = replace(
    ON_IP,
    name="create, 50 in flight, another JSON library",
    peers=(US, US_ORJSON, US_MSGSPEC),
    seconds=0.5,
)
HOST_1 = replace(
    IP_1, name="create, 1 in flight, host name and cookies", host="localhost", path="cookies"
)
ON_HOST = replace(
    HOST_1,
    name="create, 50 in flight, host name and cookies",
    at_once=50,
    peers=(US, BASE, AIOHTTP, OPENAI),
)
HOST_500 = replace(HOST_1, name="create, 500 in flight, host name and cookies", at_once=500)

# Against servers that take their time

SLOW = Scenario(
    name="create, 500 in flight, a reply takes 50 ms",
    part="slow",
    task="in_flight",
    at_once=500,
    peers=(US, BASE, OPENAI),
    path="after-50",
    seconds=0.6,
)
IDEAL = 500 / 0.050
"""Creates a second, if nothing but the server took time."""

CROWD = Scenario(
    name="10,000 at once, a reply takes 1 s",
    part="slow",
    task="crowd",
    at_once=10_000,
    requests=10_000,
    peers=(US, BASE, OPENAI),
    path="after-1000",
    fresh=True,
)
HELD = replace(CROWD, name="10,000 in flight", task="held", path="held", peers=(US, BASE, AIOHTTP))

# Blocking

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
    seconds=0.5,
)

# Many rows

BULK_8 = Scenario(
    name="rows, 8 in flight",
    part="bulk",
    task="bulk",
    at_once=8,
    peers=(US, BASE, TYPED),
    seconds=0.5,
)
BULK_64 = replace(
    BULK_8,
    name="rows, 64 in flight",
    at_once=64,
    peers=(US, BASE, TYPED, OPENAI, US_BLOCKING, US_COMMAND),
)
BULK_512 = replace(BULK_8, name="rows, 512 in flight", at_once=512, peers=(US, BASE, TYPED, OPENAI))
GROWTH = replace(
    BULK_64,
    name="rows, 64 in flight, after the first 10,000",
    part="growth",
    task="growth",
    peers=(US, BASE),
    requests=30_000,
    fresh=True,
)

# Conversations

LIST = Scenario(
    name="items, 100 on a page",
    part="list",
    task="listing",
    at_once=1,
    peers=(US, OPENAI),
    requests=10_000,
)
BLOCKING_LIST = replace(LIST, name="blocking items, 100 on a page", task="listing_blocking")
HELD_ITEMS = replace(
    LIST, name="items that are kept", task="held_items", requests=20_000, fresh=True
)
DELETE = Scenario(
    name="threads deleted, 64 in flight",
    part="list",
    task="delete",
    at_once=64,
    peers=(US, OPENAI),
    seconds=0.5,
)

SCENARIOS = [
    IMPORT,
    READY,
    DECODE,
    IP_1,
    ON_IP,
    IP_500,
    OTHER_JSON,
    HOST_1,
    ON_HOST,
    HOST_500,
    SLOW,
    CROWD,
    HELD,
    ONE,
    BLOCKING_ONE,
    ONE_ANYWHERE,
    BLOCKING_ONE_ANYWHERE,
    BLOCKING_MANY,
    BULK_8,
    BULK_64,
    BULK_512,
    GROWTH,
    LIST,
    BLOCKING_LIST,
    HELD_ITEMS,
    DELETE,
]
PARTS = tuple(dict.fromkeys(scenario.part for scenario in SCENARIOS))

# Figures

Found: TypeAlias = "Mapping[Scenario, Mapping[str, Sequence[Measured]]]"
Side: TypeAlias = "tuple[Scenario, str]"
Value: TypeAlias = "Callable[[Measured], float]"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A figure to make: what one took of something, against what another did in the same round.

    Attributes:
        them: Who to compare with, or a number to.
        unit: Of the difference. None: it is a ratio.
        aim: What it is to be at most; with `at_least`, at least. None: it is for the record.
    """

    name: str
    value: Value
    us: Side
    them: Side | float
    unit: str = ""
    aim: float | None = None
    at_least: bool = False

    def figure(self, found: Found) -> Figure | None:
        """The figure; None: one of the sides was not measured."""
        ours = [self.value(each) for each in self._rounds(found, self.us)]
        if isinstance(self.them, tuple):
            theirs = [self.value(each) for each in self._rounds(found, self.them)]
        else:
            theirs = [self.them] * len(ours)
        if not ours or not theirs:
            return None
        rounds = zip(ours, theirs, strict=True)
        return Figure(
            name=self.name,
            values=[us - them if self.unit else us / them for us, them in rounds],
            unit=self.unit,
            aim=self.aim,
            at_least=self.at_least,
        )

    @staticmethod
    def _rounds(found: Found, side: Side) -> Sequence[Measured]:
        scenario, peer = side
        return found.get(scenario, {}).get(peer, [])


def cpu(scenario: Scenario, peer: str, aim: float | None = None, us: str = US) -> Comparison:
    """Compare the CPU time of each create."""
    return _ratio((scenario, us), peer, "CPU", lambda each: each.cpu, aim)


def p50(scenario: Scenario, peer: str, aim: float | None = None) -> Comparison:
    """Compare the median of the creates' durations."""
    return _ratio((scenario, US), peer, "p50", lambda each: each.p50, aim)


def p99(scenario: Scenario, peer: str, aim: float | None = None) -> Comparison:
    """Compare what one create in a hundred takes longer than."""
    return _ratio((scenario, US), peer, "p99", lambda each: each.p99, aim)


def memory(scenario: Scenario, peer: str, aim: float | None = None) -> Comparison:
    """Compare what a process has in memory."""
    return _ratio((scenario, US), peer, "memory", lambda each: each.memory, aim)


def wall(scenario: Scenario, peer: str, aim: float | None = None) -> Comparison:
    """Compare the time from the first request to the last reply."""
    return _ratio((scenario, US), peer, "time", lambda each: each.wall, aim)


def rate(scenario: Scenario, peer: str, aim: float | None = None, us: str = US) -> Comparison:
    """Compare the requests, rows or items a second: more is better."""
    things = "items/s" if scenario.task.startswith("listing") else "creates/s"
    if scenario.task == "delete":
        things = "rows/s"
    compared = _ratio((scenario, us), peer, things, lambda each: each.rate, aim)
    return replace(compared, at_least=True)


def _ratio(us: Side, peer: str, what: str, value: Value, aim: float | None) -> Comparison:
    scenario, ours = us
    who = "" if ours == US else ours.removeprefix(f"{US}, ") + " "
    return Comparison(
        name=f"{scenario.name}: {who}{what}, to {peer}",
        value=value,
        us=us,
        them=(scenario, peer),
        aim=aim,
    )


def crossing(blocking: Side, own: Side, aim: float | None = None) -> Comparison:
    """Compare what blocking on a loop's thread adds to a create on a loop of one's own."""
    scenario, peer = blocking
    return Comparison(
        name=f"{scenario.name}: p50, {peer} above async",
        value=lambda each: each.p50 * 1e6,
        us=blocking,
        them=own,
        unit=" us",
        aim=aim,
    )


COMPARISONS = [
    cpu(IMPORT, BASE),
    cpu(IMPORT, PARTS_OF_US, 1.15),
    cpu(IMPORT, OPENAI, 0.45),
    cpu(READY, OPENAI, 0.25),
    memory(READY, OPENAI, 0.5),
    cpu(DECODE, OPENAI, 1 / 8),
    cpu(DECODE, BASE),
    cpu(IP_1, AIOHTTP, 1.10),
    cpu(ON_IP, AIOHTTP, 1.10),
    cpu(IP_500, AIOHTTP, 1.10),
    cpu(HOST_1, AIOHTTP, 0.70),
    cpu(ON_HOST, AIOHTTP, 0.70),
    cpu(HOST_500, AIOHTTP, 0.70),
    cpu(ON_IP, AIOHTTP, 0.90, US_UVLOOP),
    cpu(ON_IP, AIOHTTP_UVLOOP, us=US_UVLOOP),
    cpu(ON_IP, TYPED, 1.15),
    cpu(IP_500, TYPED, 1.15),
    cpu(ON_IP, LEANEST),
    cpu(ON_IP, HTTPX2),
    cpu(ON_IP, OPENAI),
    cpu(ON_HOST, OPENAI),
    cpu(ON_IP, FLOOR),
    cpu(OTHER_JSON, US, us=US_ORJSON),
    cpu(OTHER_JSON, US, us=US_MSGSPEC),
    cpu(ON_IP, BASE),
    cpu(ON_HOST, BASE),
    rate(ON_IP, OPENAI, 10),
    rate(IP_500, OPENAI, 13),
    rate(ON_IP, OPENAI_AIOHTTP, 6.5),
    p99(ON_IP, OPENAI, 0.15),
    rate(SLOW, OPENAI, 10),
    Comparison(
        name=f"{SLOW.name}: creates/s, to the ideal {IDEAL:,.0f}",
        value=lambda each: each.rate,
        us=(SLOW, US),
        them=IDEAL,
        aim=0.70,
        at_least=True,
    ),
    wall(CROWD, OPENAI, 0.25),
    Comparison(
        name=f"{HELD.name}: memory of each, above aiohttp",
        value=lambda each: each.memory / 1000,
        us=(HELD, US),
        them=(HELD, AIOHTTP),
        unit=" kB",
        aim=4,
    ),
    p50(BLOCKING_ONE, OPENAI, 0.30),
    p50(BLOCKING_ONE, BASE),
    p50(BLOCKING_ONE_ANYWHERE, OPENAI),
    rate(BLOCKING_MANY, OPENAI, 5),
    rate(BLOCKING_MANY, BASE),
    crossing((BLOCKING_ONE, US), (ONE, US), 100),
    crossing((BLOCKING_ONE, CROSSED), (ONE, FLOOR)),
    crossing((BLOCKING_ONE_ANYWHERE, US), (ONE_ANYWHERE, US)),
    crossing((BLOCKING_ONE_ANYWHERE, CROSSED), (ONE_ANYWHERE, FLOOR)),
    rate(BULK_8, TYPED, 0.90),
    rate(BULK_64, TYPED, 0.90),
    rate(BULK_512, TYPED, 0.90),
    rate(BULK_64, OPENAI, 8),
    rate(BULK_512, OPENAI, 12),
    rate(BULK_64, US, 0.85, US_BLOCKING),
    rate(BULK_64, US, 0.75, US_COMMAND),
    Comparison(
        name=f"{GROWTH.name}: growth of the process",
        value=lambda each: each.memory / 1e6,
        us=(GROWTH, US),
        them=0.0,
        unit=" MB",
        aim=5,
    ),
    rate(LIST, OPENAI, 8),
    rate(BLOCKING_LIST, OPENAI, 6),
    cpu(LIST, OPENAI),
    cpu(BLOCKING_LIST, OPENAI),
    memory(HELD_ITEMS, OPENAI),
    rate(DELETE, OPENAI),
]
