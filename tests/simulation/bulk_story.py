"""A bulk run drawn from a seed, and what must hold at its end: each row accounted for.

Client and emulator are the real ones, in one process on virtual time. All that happens follows from
the seed: the rows and how they come, what the emulator limits and how it fails, how the consumer
takes the outcomes, and whether it stops, leaves or is cancelled, or the client is closed under it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import attrs
import virtual
from simulation import story
from simulation.story import A_LITTLE, hold

from chatkit_async import BulkRun, ClientClosedError, Outcome, RateLimitError, SessionCreateParams
from chatkit_async.emulator import Emulator, Fault

MAX_ROWS = 40

# The API's own 500 is an answer: no. One that made a session all the same is nobody's to know.
FAULTS = [fault for fault in story.FAULTS if not (fault.status == 500 and fault.after)]
FAULTS += [
    Fault(status=502, after=True),
    Fault(status=504, after=True),
    Fault(drop="reset", after=True),
    Fault(status=401),
    Fault(status=403),
    Fault(status=429, code="insufficient_quota"),
]


class InputError(Exception):
    """What reading the rows raises."""


class CallableError(Exception):
    """What somebody's `on_attempt` raises."""


@attrs.frozen
class Plan:
    """What a seed stands for."""

    server: dict
    client: dict
    bad_rows: set[int]
    rows: int
    input_fails_at: int | None
    input_pause: float | None  # None: not asynchronous
    run: dict
    consumer: list[float]  # what it pauses for after each outcome, over and over
    stops_at: float | None
    leaves_after: int | None
    cancelled_at: float | None
    closed_at: float | None
    raises_at: float | None


def draw(seed: int) -> Plan:
    """Draw a run's plan."""
    random = Random(f"bulk {seed}")
    rows = random.choice([0, 1, 3, 8, 15, 25, MAX_ROWS])

    def at(chance, most):
        return round(random.uniform(0, most), 3) if random.random() < chance else None

    server = story._server(random, seed)
    chance = random.choice([0.05, 0.2, 0.5])
    server["faults"] = [
        attrs.evolve(fault, chance=random.choice([chance, chance, chance, 1.0]))
        for fault in random.sample(FAULTS, random.choice([0, 0, 1, 2, 4]))
    ]
    # For ever is for ever, where the server never lets anything through.
    longest = 300.0 if any(each.chance == 1.0 for each in server["faults"]) else None
    return Plan(
        server=server,
        client={
            "timeout": random.choice([60.0, 60.0, 10.0, 1.0]),
            "attempt_timeout": random.choice([20.0, 5.0, 1.0]),
            "max_retries": random.choice([2, 2, 0, 1, 5]),
        },
        bad_rows=set(random.sample(range(MAX_ROWS), random.choice([0, 0, 3]))),
        rows=rows,
        input_fails_at=random.randrange(rows + 1) if random.random() < 0.1 else None,
        input_pause=random.choice([None, None, 0.0, 0.1, 3.0]),
        run={
            "concurrency": random.choice([1, 2, 4, 8, 16]),
            "ordered": random.random() < 0.5,
            "rate": random.choice([None, None, None, 2.0, 50.0]),
            "max_wait": random.choice([300.0, 300.0, longest, 20.0, 1.0]),
        },
        consumer=random.choices([0.0, 0.0, 0.0, 0.5, 5.0], k=5),
        stops_at=at(0.2, 10),
        leaves_after=random.randrange(rows + 1) if random.random() < 0.15 else None,
        cancelled_at=at(0.2, 10),
        closed_at=at(0.05, 5),
        raises_at=at(0.05, 5),
    )


def user(index: int) -> str:
    """Whose row it is."""
    return f"user_{index}"


@attrs.define
class World:
    """A run under way."""

    plan: Plan
    emulator: Emulator
    run: BulkRun = None
    read: int = 0
    input_failed: bool = False
    callable_failed: bool = False
    outcomes: list[Outcome] = attrs.field(factory=list)
    raised: BaseException | None = None

    def row(self, index: int) -> object:
        """A row, in one of its forms; some cannot be right."""
        if index in self.plan.bad_rows:
            return [None, {"user": ""}, {"user": user(index), "workflow": {"id": 1}}][index % 3]
        whole = {"user": user(index), "workflow": "wf_123"}
        return [user(index), whole, SessionCreateParams(**whole)][index % 3]

    def rows(self):
        for index in range(self.plan.rows):
            if index == self.plan.input_fails_at:
                self.input_failed = True
                raise InputError
            self.read += 1
            yield self.row(index)

    async def rows_in_time(self):
        for row in self.rows():
            await asyncio.sleep(self.plan.input_pause)
            yield row

    def note(self, _) -> None:
        """Be told of an attempt, and raise now and then."""
        at = self.plan.raises_at
        if at is not None and asyncio.get_running_loop().time() >= at:
            self.callable_failed = True
            raise CallableError

    async def consume(self) -> None:
        """Go through the outcomes, as the plan says."""
        plan = self.plan
        async with self.run as run:
            async for outcome in run:
                self.outcomes.append(outcome)
                self.check_summary()
                if len(self.outcomes) == plan.leaves_after:
                    break
                await asyncio.sleep(plan.consumer[len(self.outcomes) % len(plan.consumer)])

    async def take_the_rest(self) -> None:
        """Take the outcomes that nobody took: whoever left finds them."""
        try:
            async for outcome in self.run:
                self.outcomes.append(outcome)
        except (InputError, CallableError) as error:
            hold(self.raised is None, f"{error!r}, and {self.raised!r} before")
            self.raised = error

    def check_summary(self) -> None:
        summary = self.run.summary
        kinds = summary.created + summary.rejected + summary.unknown + summary.not_attempted
        hold(summary.read == kinds + summary.in_flight, f"does not add up: {summary}")
        hold(kinds >= len(self.outcomes), "an outcome is not counted")
        ahead = summary.read - len(self.outcomes)
        hold(ahead <= 2 * self.plan.run["concurrency"], f"{ahead} rows ahead")


def play(seed: int) -> str:
    """Play a seed's run, and return what became of each row.

    Raises:
        BrokenError: something does not hold.
    """
    return virtual.run(_play(draw(seed)))


async def _play(plan: Plan) -> str:
    loop = asyncio.get_running_loop()
    complaints = []
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    async with virtual.emulator(**plan.server) as emulator:
        world = World(plan, emulator)
        async with virtual.client(emulator, on_attempt=world.note, **plan.client) as client:
            rows = world.rows() if plan.input_pause is None else world.rows_in_time()
            world.run = client.sessions.create_many(
                rows, defaults={"workflow": "wf_123"}, **plan.run
            )
            await _live(world, client)
            await world.take_the_rest()
            hold(not client._attempts.transport.timers(), "an attempt's timer is left")
            hold(not client._attempts.gate._waiting, "somebody stands at the gate")
            hold(not world.run._patience.timers, "a wait is left")
            if plan.input_pause is not None:
                await rows.aclose()
        answered = lambda: all(record.outcome != "pending" for record in emulator.requests)  # noqa: E731
        await asyncio.wait_for(emulator.until(answered), 1)
    await asyncio.sleep(0)
    hold(asyncio.all_tasks() == {asyncio.current_task()}, f"tasks: {asyncio.all_tasks()}")
    timers = [timer for timer in loop._scheduled if not timer.cancelled()]
    hold(not timers, f"timers: {timers}")
    hold(not complaints, f"the loop complained: {complaints}")
    _every_row_has_one_outcome(world)
    _it_ends_with_what_was_raised(world)
    for outcome in world.outcomes:
        _outcome_makes_sense(world, outcome)
        _ledger_agrees(world, outcome)
    return _told(world)


async def _live(world: World, client) -> None:
    plan, loop = world.plan, asyncio.get_running_loop()
    consuming = asyncio.create_task(world.consume())
    events = [(plan.stops_at, world.run.stop), (plan.cancelled_at, consuming.cancel)]
    timers = [loop.call_at(at, happens) for at, happens in events if at is not None]
    closing = asyncio.create_task(_close(client, plan.closed_at))
    await asyncio.wait([consuming])
    closing.cancel()
    await asyncio.wait([closing])
    for timer in timers:
        timer.cancel()
    world.raised = None if consuming.cancelled() else consuming.exception()


async def _close(client, at: float | None) -> None:
    if at is not None:
        await asyncio.sleep(at)
        await client.close()


# What must hold -----------------------------------------------------------------------------------


def _every_row_has_one_outcome(world: World) -> None:
    indices = [outcome.index for outcome in world.outcomes]
    hold(sorted(indices) == list(range(len(indices))), f"not one each: {indices}")
    if world.plan.run["ordered"]:
        hold(indices == sorted(indices), f"out of order: {indices}")
    summary = world.run.summary
    hold(summary.read == len(indices), f"{summary.read} read, {len(indices)} outcomes")
    hold(summary.in_flight == summary.waiting == 0, f"not at its end: {summary}")
    kinds = Counter(outcome.kind for outcome in world.outcomes)
    told = attrs.asdict(summary)
    hold(all(told[kind] == count for kind, count in kinds.items()), f"{summary}, {kinds}")
    hold(summary.attempts == sum(each.attempts for each in world.outcomes), "attempts")
    hold(summary.lost == sum(each.lost for each in world.outcomes), "lost")
    if world.plan.input_pause is None:  # else a row may be on its way when the run ends
        hold(world.read == summary.read, f"{world.read} rows left the input")
    plan = world.plan
    disturbed = (
        summary.stopped_by or world.input_failed or world.callable_failed or plan.leaves_after
    )
    if not disturbed and plan.stops_at is plan.cancelled_at is plan.leaves_after is None:
        hold(len(indices) == plan.rows, f"{len(indices)} of {plan.rows} rows")
        hold(not kinds["not_attempted"], "given up for no reason")


def _it_ends_with_what_was_raised(world: World) -> None:
    expected = (InputError,) * world.input_failed + (CallableError,) * world.callable_failed
    hold(isinstance(world.raised, (*expected, type(None))), f"raised {world.raised!r}")
    if world.callable_failed and world.plan.cancelled_at is None:
        hold(world.raised is not None, "what a callable raised got lost")


def _outcome_makes_sense(world: World, outcome: Outcome) -> None:
    who, summary = user(outcome.index), world.run.summary
    hold((outcome.session is None) == (outcome.error is not None), f"{who}: neither or both")
    hold((outcome.kind == "created") == (outcome.error is None), f"{who}: {outcome}")
    hold(outcome.row == world.row(outcome.index), f"{who} got another's row")
    if outcome.index in world.plan.bad_rows:
        hold(outcome.kind in {"rejected", "not_attempted"}, f"{who} cannot be right")
        hold(not outcome.attempts, f"{who} was sent")
    match outcome.kind:
        case "unknown":
            hold(outcome.lost, f"{who}: what is unknown?")
        case "rejected":
            hold(not outcome.lost, f"{who}: who knows?")
        case "not_attempted":
            hold(not outcome.lost, f"{who} was sent")
    if isinstance(outcome.error, ClientClosedError):
        hold(world.plan.closed_at is not None, f"{who} says that the client is closed")
    if isinstance(summary.stopped_by, RateLimitError) and summary.stopped_by.code is None:
        hold(world.plan.run["max_wait"] is not None, "stood still for ever, and stopped")


def _ledger_agrees(world: World, outcome: Outcome) -> None:
    who = user(outcome.index)
    records = [
        record
        for record in world.emulator.requests
        if isinstance(record.body, dict) and record.body.get("user") == who
    ]
    made = {each.id for each in world.emulator.sessions.values() if each.user == who}
    if outcome.session is not None:
        held = getattr(outcome.session, "id", None)  # off the schema, it comes without
        hold(held in made if held else made, f"{who} holds what was never made")
    orphans = len(made) - (outcome.kind == "created")
    hold(orphans <= outcome.lost, f"{who}: {orphans} orphans, {outcome.lost} lost")
    if outcome.kind == "not_attempted":
        hold(not records, f"{who} was sent: {', '.join(map(str, records))}")
    hold(
        len(records) <= outcome.attempts + outcome.lost,
        f"{who}: {len(records)} requests, {outcome}",
    )
    pushed_back = [
        record
        for record in records
        if record.status == 429
        or (record.status == 503 and record.fault is not None and record.fault.headers)
    ]
    hold(
        outcome.attempts - len(pushed_back) <= 1 + world.plan.client["max_retries"],
        f"{who}: more retries than allowed: {outcome}",
    )
    limit = world.plan.client["timeout"]
    if not pushed_back and outcome.kind != "not_attempted":
        waited = world.emulator.rate_limit is not None or any(
            fault.status in {429, 503} for fault in world.plan.server["faults"]
        )
        hold(waited or outcome.elapsed <= limit + A_LITTLE, f"{who} took {outcome.elapsed}")


def _told(world: World) -> str:
    lines = [
        f"{each.index:3} {each.kind} {each.attempts} {each.lost} {each.elapsed:.6f} "
        f"{type(each.error).__name__}"
        for each in world.outcomes
    ]
    return "\n".join([*lines, repr(world.raised), str(world.run.summary)])
