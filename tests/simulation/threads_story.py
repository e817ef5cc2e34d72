"""Lists of threads drawn from a seed, read while threads are added and deleted.

Client and emulator are the real ones, in one process on virtual time. All that happens follows from
the seed: the threads, what the emulator limits, how it fails and what it does with a cursor that was
deleted, who reads, and who deletes meanwhile.
"""

from __future__ import annotations

import asyncio
from random import Random

import attrs
import virtual
from simulation import story
from simulation.story import hold

from chatkit_async import AsyncChatKit, ChatKitError
from chatkit_async.emulator import Emulator, Fault, Record

MAX_THREADS = 30
RESTARTS = 40

FAULTS = [fault for fault in story.FAULTS if not fault.off_schema]
FAULTS += [Fault(page="no_last_id"), Fault(drop="reset", after=True), Fault(status=502, after=True)]


@attrs.frozen
class Plan:
    """The story of a seed."""

    server: dict
    client: dict
    threads: int
    deleted_cursor: str
    readers: list[Reader]
    others: float  # the chance that another client deletes a thread, for each one and each step
    added: list[float]  # when threads are added


@attrs.define
class Reader:
    """A loop over a list, and what it found.

    Attributes:
        deletes: `no`, `each` thread in the loop, or `many` by a run over the list.
        leaves_after: How many threads it takes at a time. It then goes on from there, or starts
            again if it deletes.
    """

    start: float
    options: dict
    deletes: str
    leaves_after: int | None
    pause: float
    found: list[str] = attrs.field(factory=list)


def draw(seed: int) -> Plan:
    """Draw a story's plan."""
    random = Random(f"threads {seed}")
    server = story._server(random, seed)
    chance = random.choice([0.02, 0.1, 0.3])
    server["faults"] = [
        attrs.evolve(fault, chance=chance)
        for fault in random.sample(FAULTS, random.choice([0, 0, 1, 2, 4]))
    ]
    spread = random.choice([0, 1, 10])
    return Plan(
        server=server,
        client={"timeout": random.choice([60.0, 10.0]), "max_retries": random.choice([2, 0, 5])},
        threads=random.choice([0, 1, 5, 12, MAX_THREADS]),
        deleted_cursor=random.choice(["error", "ignore", "accept"]),
        readers=[
            Reader(
                start=random.uniform(0, spread),
                options={
                    "limit": random.choice([1, 2, 3, 7, 100]),
                    "order": random.choice(["asc", "desc"]),
                },
                deletes=random.choice(["no", "no", "each", "many"]),
                leaves_after=random.choice([None, None, 1, 4]),
                pause=random.choice([0, 0, 0.1]),
            )
            for _ in range(random.choice([1, 1, 2, 3]))
        ],
        others=random.choice([0, 0.02, 0.1, 0.3]),
        added=[random.uniform(0, spread) for _ in range(random.choice([0, 0, 1, 5]))],
    )


@attrs.define
class World:
    """A story in progress."""

    plan: Plan
    random: Random
    emulator: Emulator
    client: AsyncChatKit
    confirmed: set[str] = attrs.field(factory=set)
    told: list[str] = attrs.field(factory=list)

    async def read(self, reader: Reader) -> None:
        """Read a list to its end, in several goes if it is left or fails."""
        await asyncio.sleep(reader.start)
        before, gone_before = set(self.emulator.threads), set(self.confirmed)
        after = None
        for _ in range(RESTARTS):
            error = await (self._delete_many if reader.deletes == "many" else self._sweep)(
                reader, after
            )
            self.told.append(f"{reader.options} {reader.deletes} {len(reader.found)} {error!r:.60}")
            if error is None:
                break
            # A place in the list is of no use once its thread may have been deleted.
            is_stable = {each.deletes for each in self.plan.readers} == {"no"}
            after = error.cursor if is_stable and not self.plan.others else None
            if after is None:
                before, gone_before = set(self.emulator.threads), set(self.confirmed)
                reader.found.clear()
        else:
            return
        throughout = before & set(self.emulator.threads)
        hold(throughout <= set(reader.found), f"not listed: {throughout - set(reader.found)}")
        hold(len(reader.found) == len(set(reader.found)), "listed twice")
        hold(not gone_before & set(reader.found), "listed after its deletion was confirmed")

    async def _sweep(self, reader: Reader, after: str | None) -> ChatKitError | None:
        items = aiter(self.client.threads.list(after=after, **reader.options))
        begun = len(self.emulator.requests)
        for_now = reader.leaves_after
        try:
            async for thread in items:
                reader.found.append(thread.id)
                hold(items.cursor == thread.id, "the cursor is another thread's")
                if reader.deletes == "each":
                    await self._delete(thread.id)
                self.meddle()
                await asyncio.sleep(reader.pause)
                if for_now is not None and (for_now := for_now - 1) == 0:
                    error = ChatKitError("left")
                    error.cursor = items.cursor
                    return error
        except ChatKitError as error:
            hold(error.cursor == (reader.found[-1] if reader.found else after), "another cursor")
            if getattr(error, "param", None) == "after" and len(self.plan.readers) == 1:
                firsts = [each for each in self._listings(begun) if "after=" not in each.query]
                hold(len(firsts) > 1, "a refused cursor did not start the list again")
            return error
        return None

    async def _delete(self, thread_id: str) -> None:
        try:
            gone = await self.client.threads.delete(thread_id)
        except ChatKitError:
            return
        hold(gone.deleted and thread_id not in self.emulator.threads, "deleted, but there")
        self.confirmed.add(thread_id)

    async def _delete_many(self, reader: Reader, after: str | None) -> ChatKitError | None:
        listed = self.client.threads.list(after=after, **reader.options)
        run = self.client.threads.delete_many(listed, concurrency=self.random.choice([1, 3, 64]))
        failed = None
        try:
            async with run:
                async for outcome in run:
                    self._note(reader, outcome)
                    self.meddle()
                    await asyncio.sleep(reader.pause)
        except ChatKitError as error:
            failed = error
        async for outcome in run:
            self._note(reader, outcome)
        summary = run.summary
        ended = summary.deleted + summary.rejected + summary.unknown + summary.not_attempted
        hold(summary.read == ended, "an outcome is missing")
        return failed or summary.stopped_by

    def _note(self, reader: Reader, outcome) -> None:
        thread_id = outcome.row.id
        reader.found.append(thread_id)
        if outcome.kind == "deleted":
            hold(outcome.result().deleted, "deleted without a confirmation")
            hold(thread_id not in self.emulator.threads, "deleted, but there")
            self.confirmed.add(thread_id)

    def _listings(self, begun: int) -> list[Record]:
        """The requests for pages since then."""
        return [each for each in self.emulator.requests[begun:] if each.operation == "list_threads"]

    def meddle(self) -> None:
        """Delete threads, as another client would."""
        for thread_id in list(self.emulator.threads):
            if self.random.random() < self.plan.others:
                self.emulator.delete_thread(thread_id)
                self.confirmed.add(thread_id)

    async def add(self, at: float) -> None:
        """Add a thread."""
        await asyncio.sleep(at)
        self.emulator.add_thread(user="ada")


def play(seed: int) -> str:
    """Play a seed's story, and return what happened: a line for each go of a reader.

    Raises:
        BrokenError: something does not hold.
    """
    return virtual.run(_play(draw(seed), seed))


async def _play(plan: Plan, seed: int) -> str:
    async with virtual.emulator(deleted_cursor=plan.deleted_cursor, **plan.server) as emulator:
        for number in range(plan.threads):
            emulator.add_thread(user="ada", created_at=number // 3)
        async with virtual.client(emulator, **plan.client) as client:
            world = World(plan, Random(seed), emulator, client)
            async with asyncio.TaskGroup() as group:
                for reader in plan.readers:
                    group.create_task(world.read(reader))
                for at in plan.added:
                    group.create_task(world.add(at))
    requests = [f"{record.received_at:.6f} {record}" for record in emulator.requests]
    return "\n".join([*requests, *world.told])
