"""A story drawn from a seed: callers, a client and an emulator, and what must hold at its end.

Client and emulator are the real ones, in one process on virtual time. All that happens follows from
the seed: what the emulator limits and how it fails, the client's settings, when each call starts,
how long it may take, whether it is given up on, and whether the client is closed under it.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from itertools import pairwise
from math import inf
from random import Random

import attrs
import virtual

from chatkit_async import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    AsyncChatKit,
    ChatKitError,
    ClientClosedError,
)
from chatkit_async._gate import RateGate
from chatkit_async._retry import RetryBudget, is_push_back
from chatkit_async.emulator import (
    Emulator,
    Exponential,
    Fault,
    FixedWindow,
    LogNormal,
    TokenBucket,
    Uniform,
)
from chatkit_async.options import Attempt

A_LITTLE = 1e-4
"""Seconds: the loop's time is in microseconds, and a wait at the gate is a millisecond at least."""


class BrokenError(AssertionError):
    """Something does not hold."""


def hold(holds: object, sentence: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise BrokenError(sentence)


# What is drawn ------------------------------------------------------------------------------------


@attrs.define
class Caller:
    """A call to be made, and what became of it."""

    number: int
    start: float
    does: str
    timeout: float | None
    max_retries: int
    given_up_after: float | None
    started: float = inf
    ended: float = inf
    created: str | None = None
    error: BaseException | None = None
    attempts: list[tuple[float, Attempt]] = attrs.field(factory=list)

    @property
    def user(self) -> str:
        return f"user_{self.number}"


@attrs.define
class Plan:
    """What a seed stands for."""

    server: dict
    later: list[tuple[float, dict]]
    client: dict
    callers: list[Caller]
    closed_at: float | None


def draw(seed: int) -> Plan:
    """Draw a story's plan."""
    random = Random(seed)
    number = random.choice([1, 2, 3, 5, 8, 8, 13, 25])
    spread = random.choice([0, 0, 1, 10, 60])
    later = random.choice([0, 0, 0, 1, 2])
    return Plan(
        server=_server(random, seed),
        later=[(random.uniform(0, spread + 5), _server(random, seed)) for _ in range(later)],
        client={
            "timeout": random.choice([60.0, 60.0, 10.0, 1.0]),
            "attempt_timeout": random.choice([20.0, 5.0, 1.0]),
            "max_retries": random.choice([2, 2, 0, 1, 5]),
            "max_connections": random.choice([1000, 1000, 3, 1]),
        },
        callers=[_caller(random, each, spread) for each in range(number)],
        closed_at=random.uniform(0, spread + 3) if random.random() < 0.1 else None,
    )


def _caller(random: Random, number: int, spread: float) -> Caller:
    return Caller(
        number=number,
        start=round(random.uniform(0, spread), 3),
        does=random.choice(["create"] * 6 + ["create and cancel", "open"]),
        timeout=random.choice([60.0, 60.0, 60.0, 5.0, 0.5, 300.0]),
        max_retries=random.choice([2, 2, 2, 0, 8]),
        given_up_after=round(random.uniform(0, 5), 3) if random.random() < 0.1 else None,
    )


def _server(random: Random, seed: int) -> dict:
    retry_after = random.choice(["exact", "exact", 1, 5, 30, 600, None])
    limit = random.choice(
        [
            None,
            None,
            TokenBucket(
                rate=random.choice([0.5, 2, 10, 25]),
                burst=random.choice([1, 2, 5, 25]),
                retry_after=retry_after,
            ),
            FixedWindow(
                limit=random.choice([1, 3, 10]),
                window=random.choice([1.0, 10.0, 60.0]),
                retry_after=retry_after,
            ),
        ]
    )
    latency = random.choice(
        [0.0, 0.0, 0.02, Uniform(0.01, 0.5), Exponential(0.1), LogNormal(0.1, 1.0)]
    )
    kinds = random.sample(range(len(FAULTS)), random.choice([0, 0, 1, 2, 4]))
    chance = random.choice([0.05, 0.2, 0.5])
    return {
        "rate_limit": limit,
        "latency": latency,
        "faults": [
            attrs.evolve(FAULTS[kind], chance=random.choice([chance, chance, chance, 1.0]))
            for kind in kinds
        ],
        "seed": seed,
    }


FAULTS = [
    Fault(status=500),
    Fault(status=503),
    Fault(status=503, headers={"Retry-After": "2"}),
    Fault(status=503, headers={"Retry-After": "120"}),
    Fault(status=429),
    Fault(status=429, headers={"retry-after-ms": "300"}),
    Fault(status=429, headers={"Retry-After": "20"}),
    Fault(status=408),
    Fault(status=409),
    Fault(status=400),
    Fault(status=500, headers={"x-should-retry": "false"}),
    Fault(status=500, after=True),
    Fault(drop="close"),
    Fault(drop="close", after=True),
    Fault(drop="reset"),
    Fault(cut=True),
    Fault(off_schema=True),
    Fault(body="<html>", content_type="text/html"),
    Fault(delay=3),
    Fault(delay=inf),
]

# What happens -------------------------------------------------------------------------------------

_caller_now: ContextVar[Caller] = ContextVar("_caller_now")


class Gate(RateGate):
    """A gate that watches itself."""

    def __init__(self) -> None:
        super().__init__()
        self._opens = 0.0
        self._went = -inf
        self._kept = set()

    def admit(self, ticket, now):
        paced = not self.is_free
        wait = super().admit(ticket, now)
        if paced and wait == 0 and not self.is_free:
            hold(now > self._went, f"two attempts in one instant while paced, at {now}")
            hold(now >= self._opens - A_LITTLE, f"let through at {now}, closed to {self._opens}")
            hold(ticket == min(self._waiting), f"overtook an earlier call at {now}")
            self._went = now
        hold(wait or not (paced and self.is_free and ticket in self._kept), "freed by who waited")
        if wait:
            self._kept.add(ticket)
        return wait

    def push_back(self, now, sent, wait):
        super().push_back(now, sent, wait)
        hold(self.opens_in(now) <= self.MAX_WAIT * 1.1 + A_LITTLE, f"closed for long, at {now}")
        hold(self._rate * self.MAX_WAIT >= 1 - A_LITTLE, f"slower than a probe a minute, at {now}")
        self._opens = max(self._opens, now + min(wait, self.MAX_WAIT))


@attrs.define
class World:
    """A story under way."""

    plan: Plan
    emulator: Emulator
    gate: Gate
    client: AsyncChatKit = attrs.field(init=False)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def note(self, attempt: Attempt) -> None:
        """Take note of an attempt: it is made in its caller's task."""
        caller = _caller_now.get()
        caller.attempts.append((self.now(), attempt))
        error = attempt.error
        if error is not None and is_push_back(error) and error.retry_after is not None:
            opens = self.gate.opens_in(self.now())
            least = min(error.retry_after, RateGate.MAX_WAIT)
            hold(opens >= least - A_LITTLE, f"{caller.user}: the gate opens in {opens}: too soon")

    async def call(self, caller: Caller) -> None:
        """Do what a caller does."""
        await asyncio.sleep(caller.start)
        _caller_now.set(caller)
        caller.started = self.now()
        try:
            await self._do(caller)
        except (ChatKitError, asyncio.CancelledError) as error:
            caller.error = error
        caller.ended = self.now()

    async def _do(self, caller: Caller) -> None:
        sessions = self.client.sessions
        params = {"user": caller.user, "workflow": "wf_123"}
        options = {"timeout": caller.timeout, "max_retries": caller.max_retries}
        if caller.does == "open":
            async with sessions.open(**params, **options) as session:
                caller.created = getattr(session, "id", None)
                await asyncio.sleep(1)
            return
        session = await sessions.create(**params, **options)
        caller.created = getattr(session, "id", None)
        if caller.does == "create and cancel" and caller.created is not None:
            await sessions.cancel(caller.created, **options)

    async def given_up(self, caller: Caller, task: asyncio.Task) -> None:
        await asyncio.sleep(caller.start + caller.given_up_after)
        task.cancel()

    async def change(self, at: float, server: dict) -> None:
        """Let the server be another."""
        await asyncio.sleep(at)
        self.emulator.rate_limit = server["rate_limit"]
        self.emulator.latency = server["latency"]
        self.emulator.clear_faults()
        for fault in server["faults"]:
            self.emulator._state.faults.add(fault)

    async def close(self, at: float) -> None:
        await asyncio.sleep(at)
        await self.client.close()


def play(seed: int) -> str:
    """Play a seed's story, and return what happened, a line for each request and call.

    Raises:
        BrokenError: something does not hold.
    """
    return virtual.run(_play(draw(seed)))


async def _play(plan: Plan) -> str:
    loop = asyncio.get_running_loop()
    complaints = []
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    gate = Gate()
    async with virtual.emulator(**plan.server) as emulator:
        world = World(plan, emulator, gate)
        async with virtual.client(emulator, on_attempt=world.note, **plan.client) as client:
            client._attempts.gate = gate
            world.client = client
            await _live(world)
        _nothing_is_open(world)
        await asyncio.wait_for(emulator.until(lambda: not emulator.connections), 1)
    await asyncio.sleep(0)
    hold(asyncio.all_tasks() == {asyncio.current_task()}, f"tasks: {asyncio.all_tasks()}")
    timers = [timer for timer in loop._scheduled if not timer.cancelled()]
    hold(not timers, f"timers: {timers}")
    hold(not complaints, f"the loop complained: {complaints}")
    _calls_end_well(world)
    _ledger_and_client_agree(world)
    _budget_is_kept(world)
    return _told(world)


async def _live(world: World) -> None:
    plan = world.plan
    tasks = {caller.number: asyncio.create_task(world.call(caller)) for caller in plan.callers}
    events = [
        world.given_up(caller, tasks[caller.number])
        for caller in plan.callers
        if caller.given_up_after is not None
    ]
    events += [world.change(at, server) for at, server in plan.later]
    if plan.closed_at is not None:
        events.append(world.close(plan.closed_at))
    around = [asyncio.create_task(event) for event in events]
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    for task in around:
        task.cancel()
    await asyncio.gather(*around, return_exceptions=True)
    for task in tasks.values():
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


# What must hold -----------------------------------------------------------------------------------


def _nothing_is_open(world: World) -> None:
    client = world.client
    hold(not client._attempts.transport.timers(), "an attempt's timer is left")
    hold(not client._attempts.transport.is_open, "a session is left")
    hold(not world.gate._waiting, "somebody stands at the gate")


def _calls_end_well(world: World) -> None:
    plan = world.plan
    for caller in plan.callers:
        who, error = caller.user, caller.error
        if isinstance(error, asyncio.CancelledError):
            hold(caller.given_up_after is not None, f"{who} was cancelled by nobody")
        if isinstance(error, ClientClosedError):
            hold(plan.closed_at is not None, f"{who} says that the client is closed")
        if caller.started == inf:  # given up before it started
            continue
        longest = {"create": 1, "create and cancel": 2, "open": 1}[caller.does] * caller.timeout
        if caller.does == "open":
            longest += 1 + 10
        took = caller.ended - caller.started
        hold(took <= longest + A_LITTLE, f"{who} took {took}, of {longest}")
        if isinstance(error, asyncio.CancelledError) and caller.does != "open":
            late = caller.ended - caller.start - caller.given_up_after
            hold(late <= A_LITTLE, f"{who} ended {late} after it was given up")
        if isinstance(error, APIError) and caller.does != "open":
            hold(error.elapsed <= caller.timeout + A_LITTLE, f"{who} says {error.elapsed}")
        _attempts_follow_the_rules(caller)


def _attempts_follow_the_rules(caller: Caller) -> None:
    for (ended, attempt), (next_ended, following) in pairwise(caller.attempts):
        if following.number == 1:  # of the next call
            continue
        hold(following.number == attempt.number + 1, f"{caller.user} miscounted")
        hold(attempt.next_wait is not None, f"{caller.user} went again without saying so")
        pause = next_ended - following.elapsed - ended
        hold(pause >= attempt.next_wait - A_LITTLE, f"{caller.user} cut a wait short: {pause}")
        asked = getattr(attempt.error, "retry_after", None) or 0
        hold(pause >= asked - A_LITTLE, f"{caller.user} waited {pause} where {asked} was asked")
    most = max((attempt.number for _, attempt in caller.attempts), default=0)
    # Leaving `open` cancels with the client's own number of retries.
    hold(caller.does == "open" or most <= 1 + caller.max_retries, f"{caller.user}: {most} attempts")


def _ledger_and_client_agree(world: World) -> None:
    records = {record.request_id: record for record in world.emulator.requests}
    requests: dict[str, list] = {caller.user: [] for caller in world.plan.callers}
    for record in records.values():
        hold(record.outcome != "pending", f"{record} is not over")
        if record.operation == "create" and isinstance(record.body, dict):
            requests[record.body["user"]].append(record)
    known = set()
    for caller in world.plan.callers:
        for _, attempt in caller.attempts:
            if attempt.request_id is not None:
                hold(attempt.request_id in records, f"{caller.user}: an unknown reply")
                hold(attempt.request_id not in known, f"{caller.user}: a reply heard twice")
                known.add(attempt.request_id)
                status = records[attempt.request_id].status
                hold(attempt.status_code == status, f"{caller.user}: status {status}")
        _creates_are_accounted_for(caller, requests[caller.user])
    made = {session.user for session in world.emulator.sessions.values()}
    hold(made <= set(requests), "a session for nobody")
    held = [caller.created for caller in world.plan.callers if caller.created]
    hold(len(set(held)) == len(held), "two callers hold one session")
    hold(set(held) <= set(world.emulator.sessions), "a session that was never made")


def _creates_are_accounted_for(caller: Caller, records: list) -> None:
    made = [record for record in records if record.session_id is not None]
    orphans = [record for record in made if record.session_id != caller.created]
    if caller.created is not None:
        hold(len(orphans) == len(made) - 1, f"{caller.user} holds what it did not create")
    creates = [attempt for _, attempt in caller.attempts if attempt.route.endswith("sessions")]
    # A reply is lost by a fault, or because nobody waits for it any more. Off the schema, a
    # session comes without its id.
    unexplained = [
        record
        for record in orphans
        if record.outcome == "sent"
        and not (record.fault is not None and (record.fault.after or record.fault.off_schema))
    ]
    timeouts = [attempt for attempt in creates if isinstance(attempt.error, APITimeoutError)]
    ended_early = isinstance(caller.error, asyncio.CancelledError | ClientClosedError)
    hold(
        len(unexplained) <= len(timeouts) + ended_early,
        f"{caller.user}: lost without a reason: {', '.join(map(str, unexplained))}",
    )
    # Attempts and requests are the same, but for connections that were replaced (a drop on one
    # that was used before looks like one), and what was cut off before it was sent or noted.
    replaced = [record for record in records if record.outcome == "dropped"]
    hold(
        len(records) <= len(creates) + len(replaced) + ended_early,
        f"{caller.user}: {len(records)} requests in {len(creates)} attempts",
    )
    unsent = [a for a in creates if isinstance(a.error, APIConnectionError)]
    hold(
        len(creates) <= len(records) + len(unsent),
        f"{caller.user}: {len(creates)} attempts in {len(records)} requests",
    )


def _budget_is_kept(world: World) -> None:
    attempts = [attempt for caller in world.plan.callers for _, attempt in caller.attempts]
    retries = [a for a in attempts if a.next_wait is not None and not is_push_back(a.error)]
    successes = [a for a in attempts if a.error is None]
    most = RetryBudget.CAPACITY + RetryBudget.TOKENS_PER_SUCCESS * len(successes)
    hold(len(retries) <= most, f"{len(retries)} retries for {len(successes)} successes")


def _told(world: World) -> str:
    lines = [(record.received_at, f"request {record}") for record in world.emulator.requests]
    for caller in world.plan.callers:
        outcome = "fine" if caller.error is None else type(caller.error).__name__
        lines.append((caller.ended, f"{caller.user} {caller.does}: {outcome}"))
        lines += [
            (at, f"{caller.user} attempt {each.number} {each.status_code} {each.next_wait}")
            for at, each in caller.attempts
        ]
    return "\n".join(f"{at:12.6f} {line}" for at, line in sorted(lines))
