"""The fan-out, on virtual time: what it reads, when it starts it, and that nothing gets lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from functools import wraps
from itertools import cycle, pairwise
from math import inf
from random import Random

import attrs
import cancelling
import pytest
import virtual
from hypothesis import given
from hypothesis import strategies as st

from chatkit_async import _fanout
from chatkit_async._fanout import LATE_START_GRACE, End, Fanout


@pytest.fixture(autouse=True, scope="module")
def fill_takes_no_time():
    """Let a busy machine read all that is wanted: the slice is of this machine's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fanout, "READ_SLICE", inf)
        yield


def on_virtual_time(test):
    """Run a coroutine test on a loop whose time is virtual."""

    @wraps(test)
    def run(*args, **kwargs):
        async def main():
            await test(*args, **kwargs)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        virtual.run(main())

    return run


def now():
    return asyncio.get_running_loop().time()


class Work:
    """Takes the seconds that an item says, and keeps count."""

    def __init__(self, seconds=lambda item: 1.0):
        self.seconds = seconds
        self.in_flight = 0
        self.most = 0
        self.started = []

    async def __call__(self, index, item):
        self.started.append(now())
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(self.seconds(item))
        except asyncio.CancelledError:
            return index, "cancelled"
        finally:
            self.in_flight -= 1
        return index, "done"


def skip(index, item):
    return index, "skipped"


def fan_out(items, work=None, skip=skip, **options):
    options = {"concurrency": 3} | options
    return Fanout(work or Work(), skip, items, now=now, **options)


async def take_into(results, fanout):
    while await fanout.ready():
        results.append(fanout.take_one())


async def taken(fanout):
    """Everything a fan-out gives from here to its end."""
    results = []
    await take_into(results, fanout)
    return results


async def run(items, work=None, **options):
    fanout = fan_out(items, work, **options)
    fanout.start()
    return await taken(fanout)


async def numbers(count, pause=0.0):
    for number in range(count):
        await asyncio.sleep(pause)
        yield number


class Opened:
    """An iterable that notes whether the iterator that was made of it was closed."""

    def __init__(self, items):
        self.items = items
        self.closed = False

    def __iter__(self):
        try:
            yield from self.items
        finally:
            self.closed = True


class OpenedAsync(Opened):
    __iter__ = None

    async def __aiter__(self):
        try:
            for item in self.items:
                await asyncio.sleep(1)
                yield item
        finally:
            await asyncio.sleep(1)
            self.closed = True


class ReadError(Exception):
    """What reading raises."""


def failing(items):
    yield from items
    raise ReadError


# Results


@on_virtual_time
async def test_results_come_as_they_finish():
    results = await run([3, 1, 2], Work(float))

    assert [index for index, _ in results] == [1, 2, 0]


@on_virtual_time
async def test_results_come_in_order_when_asked_to():
    results = await run([9, 1, 2, 8, 1, 7], Work(float), ordered=True)

    assert [index for index, _ in results] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("ordered", [False, True])
@on_virtual_time
async def test_results_can_be_taken_in_chunks(ordered):
    fanout = fan_out(range(6), ordered=ordered)
    fanout.start()
    chunks = []
    while await fanout.ready():
        await asyncio.sleep(0.5)  # three at a time take a second
        chunks.append(len(fanout.take(2)) + len(fanout.take()))

    assert chunks == [3, 3]
    assert fanout.take() == []
    assert fanout.take_one() is None


# Bounds


@pytest.mark.parametrize("source", [range, numbers], ids=["iterable", "async iterable"])
@on_virtual_time
async def test_as_many_are_worked_on_as_may_be_and_no_more(source):
    work = Work()

    await run(source(10), work, concurrency=4)

    assert work.most == 4
    assert work.started == [0] * 4 + [1] * 4 + [2] * 2


@pytest.mark.parametrize("ordered", [False, True])
@on_virtual_time
async def test_a_consumer_that_pauses_stops_the_reading(ordered):
    fanout = fan_out(range(1000), ordered=ordered)
    fanout.start()
    await asyncio.sleep(100)
    assert fanout.read == fanout.window == 6

    fanout.take_one()
    await asyncio.sleep(100)
    assert fanout.read == 7

    fanout.take(3)
    await asyncio.sleep(100)
    assert fanout.read == 10
    await fanout.close()


@pytest.mark.unmeasured
@pytest.mark.parametrize("ordered", [False, True])
def test_what_is_held_does_not_grow_with_the_items(ordered):
    random = Random(1)
    most = 0

    async def main():
        nonlocal most

        async def work(index, item):
            for _ in range(random.randrange(3)):
                await asyncio.sleep(0)
            return index

        fanout = Fanout(work, skip, iter(range(2_000)), concurrency=32, ordered=ordered)
        fanout.start()
        count = 0
        while await fanout.ready():
            held = len(fanout._results) + len(fanout._early)
            most = max(most, held, fanout.read - count, len(asyncio.all_tasks()))
            count += len(fanout.take(random.randrange(1, 64)))
        assert count == fanout.read == 2_000

    asyncio.run(main())

    assert most <= 64


# What is read


@on_virtual_time
async def test_an_async_iterable_is_never_asked_for_two_at_once():
    class Source:
        asked = False
        left = 20

        def __aiter__(self):
            return self

        async def __anext__(self):
            assert not self.asked
            self.asked = True
            await asyncio.sleep(0.1)
            self.asked = False
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return self.left

    assert len(await run(Source(), concurrency=8)) == 20


@on_virtual_time
async def test_a_pause_of_the_items_leaves_no_queue_behind_it():
    async def items():
        for item in range(300):
            if item == 50:
                await asyncio.sleep(1)
            yield item

    async def work(index, item):
        in_flight.append(None)
        for _ in range(3):
            await asyncio.sleep(0)
        under_way.append(len(in_flight))
        in_flight.pop()

    in_flight, under_way = [], []
    fanout = fan_out(items(), work, concurrency=16)
    fanout.start()
    while await fanout.ready():
        fanout.take()
    # Fair turns would have the items read one by one from there on, and three of them under way.
    assert under_way[-100:-16] == [16] * 84


@pytest.mark.parametrize("kind", [Opened, OpenedAsync])
@pytest.mark.parametrize("end", ["the end", "stop", "close", "close while it is read"])
@on_virtual_time
async def test_an_iterator_that_was_made_here_is_closed_here(kind, end):
    items = kind(range(20))
    fanout = fan_out(items, Work(lambda item: 5))
    fanout.start()

    if end == "close while it is read":
        await asyncio.sleep(1.5)
        await fanout.close()
    elif end != "the end":
        await fanout.ready()
        await fanout.close() if end == "close" else fanout.stop()
    await taken(fanout)

    assert items.closed


@on_virtual_time
async def test_an_iterator_that_was_given_is_left_open():
    def numbered():
        yield from range(20)

    here, there = numbered(), numbers(20)
    for items in here, there:
        fanout = fan_out(items)
        fanout.start()
        await asyncio.sleep(10)  # all that there is room for
        await fanout.close()

    assert next(here) == 6
    assert await anext(there) == 6
    await there.aclose()


@on_virtual_time
async def test_what_reading_raises_comes_after_the_results_of_what_was_read():
    fanout = fan_out(failing(range(5)))
    fanout.start()
    results = []

    with pytest.raises(ReadError) as caught:
        await take_into(results, fanout)

    assert sorted(results) == [(each, "done") for each in range(5)]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert not await fanout.ready()  # it is raised once


@on_virtual_time
async def test_what_an_async_iterable_raises_is_raised_too():
    async def items():
        yield 1
        await asyncio.sleep(5)
        raise ReadError

    fanout = fan_out(items())
    fanout.start()

    assert await fanout.ready()
    assert fanout.take() == [(0, "done")]
    with pytest.raises(ReadError):
        await fanout.ready()


@on_virtual_time
async def test_what_opening_the_items_raises_is_raised():
    class Broken:
        def __iter__(self):
            raise ReadError

    with pytest.raises(ReadError):
        await run(Broken())


@pytest.mark.parametrize("source", ["iterable", "async iterable"])
@on_virtual_time
async def test_what_closing_the_items_raises_is_raised(source):
    class Broken:
        def __iter__(self):
            try:
                yield from range(100)
            finally:
                raise ReadError

    class BrokenAsync:
        async def __aiter__(self):
            try:
                for each in range(100):
                    yield each
            finally:
                raise ReadError

    fanout = fan_out(Broken() if source == "iterable" else BrokenAsync())
    fanout.start()
    await fanout.ready()
    fanout.stop()

    with pytest.raises(ReadError):
        await taken(fanout)


@on_virtual_time
async def test_a_cancellation_that_the_items_raise_by_themselves_is_raised():
    async def items():
        yield 1
        raise asyncio.CancelledError

    fanout = fan_out(items())
    fanout.start()

    assert await fanout.ready()
    assert fanout.take() == [(0, "done")]
    with pytest.raises(asyncio.CancelledError):
        await fanout.ready()


# Stopping


@pytest.mark.parametrize("ordered", [False, True])
@on_virtual_time
async def test_stopping_finishes_what_is_under_way_and_reads_no_more(ordered):
    fanout = fan_out(range(1000), Work(lambda item: 2), ordered=ordered)
    fanout.start()
    await asyncio.sleep(3)

    fanout.stop()
    fanout.stop()
    assert fanout.ended_at is None
    results = await taken(fanout)

    assert sorted(results) == [(each, "done") for each in range(6)]
    assert fanout.read == 6
    assert now() == fanout.ended_at == 4


@on_virtual_time
async def test_stopping_does_not_wait_for_items_that_do_not_come():
    fanout = fan_out(numbers(10, pause=1000))
    fanout.start()
    await asyncio.sleep(1)

    fanout.stop()

    assert await taken(fanout) == []
    assert now() == 1


@pytest.mark.parametrize("rate", [None, 4])
@pytest.mark.parametrize("ordered", [False, True])
@on_virtual_time
async def test_an_item_that_the_items_stopped_at_is_skipped(ordered, rate):
    def items():
        yield "first"
        fanout.stop()
        yield "second"

    fanout = fan_out(
        items(),
        skip=lambda index, item: (index, f"skipped {item}"),
        ordered=ordered,
        rate=rate,
    )
    fanout.start()

    assert sorted(await taken(fanout)) == [(0, "done"), (1, "skipped second")]


@on_virtual_time
async def test_of_what_it_is_stopped_for_the_first_is_raised():
    fanout = fan_out(range(1000))
    fanout.start()

    fanout.stop(ReadError())
    fanout.stop(OSError())

    with pytest.raises(ReadError):
        await taken(fanout)


@on_virtual_time
async def test_what_it_is_stopped_for_after_its_end_is_not_raised():
    fanout = fan_out([])
    fanout.start()
    await taken(fanout)

    fanout.stop(ReadError())

    assert not await fanout.ready()


@on_virtual_time
async def test_stopped_before_it_starts_it_reads_nothing():
    items = iter(range(10))
    fanout = fan_out(items)
    fanout.stop()
    fanout.start()

    assert await taken(fanout) == []
    assert next(items) == 0


@on_virtual_time
async def test_closing_cancels_what_is_under_way_and_its_results_are_there():
    fanout = fan_out(range(1000))
    fanout.start()
    await asyncio.sleep(1.5)

    await fanout.close()

    assert now() == 1.5
    results = sorted(await taken(fanout))
    assert results == [(each, "done" if each < 3 else "cancelled") for each in range(6)]


@on_virtual_time
async def test_closing_twice_or_at_the_end_or_before_the_start_does_nothing():
    fanout = fan_out(range(3))
    fanout.start()
    await taken(fanout)
    await fanout.close()
    await fanout.close()
    unstarted = fan_out(range(3))
    assert not unstarted.is_started
    await unstarted.close()

    assert await taken(unstarted) == []
    assert unstarted.is_started  # it cannot be any more


@on_virtual_time
async def test_closing_lasts_until_everything_has_ended_although_it_is_cancelled():
    class Slow(OpenedAsync):
        async def __aiter__(self):
            try:
                yield 1
                await asyncio.sleep(100)
            finally:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(100)
                self.closed = True

    async def stubborn(index, item):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(100)
        await asyncio.sleep(3)
        return index

    items = Slow([])
    fanout = fan_out(items, stubborn)
    fanout.start()
    await asyncio.sleep(1)
    closing = asyncio.create_task(fanout.close())
    await asyncio.sleep(1)
    closing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await closing

    assert items.closed
    assert now() == 101  # the items' own end takes what it takes
    assert await taken(fanout) == [0]


@on_virtual_time
async def test_a_second_cancellation_reaches_items_whose_end_takes_long():
    class Endless(Opened):
        __iter__ = None

        async def __aiter__(self):
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(10_000)

    fanout = fan_out(Endless([]), Work(lambda item: 100), concurrency=1)
    fanout.start()
    await asyncio.sleep(1)
    closing = asyncio.create_task(fanout.close())
    await asyncio.sleep(1)
    closing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await closing
    assert now() == 2
    assert fanout.take() == [(0, "cancelled")]


@on_virtual_time
async def test_what_work_raises_ends_the_fan_out():
    async def work(index, item):
        await asyncio.sleep(item)
        if item == 2:
            raise ReadError
        return index

    fanout = fan_out([1, 2, 3, 4, 5], work)
    fanout.start()
    results = []

    with pytest.raises(ReadError):
        await take_into(results, fanout)

    assert results == [0, 2, 3]


@pytest.mark.parametrize("swallowed", [False, True])
@on_virtual_time
async def test_workers_that_somebody_else_cancels_end_the_fan_out(swallowed):
    async def work(index, item):
        await asyncio.sleep(10)

    me = asyncio.current_task()
    fanout = fan_out(range(100), Work(lambda item: 10) if swallowed else work)
    fanout.start()
    await asyncio.sleep(1)
    for task in asyncio.all_tasks() - {me}:
        task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await taken(fanout)


@on_virtual_time
async def test_workers_that_somebody_else_cancels_before_their_first_step_end_it_too():
    me = asyncio.current_task()
    fanout = fan_out(range(100))
    fanout.start()
    for task in asyncio.all_tasks() - {me}:
        task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await fanout.ready()


# Rate


@on_virtual_time
async def test_starts_are_as_far_apart_as_the_rate_says():
    work = Work()

    await run(range(10), work, concurrency=8, rate=4)

    assert work.started == pytest.approx([each / 4 for each in range(10)], abs=1e-5)


@on_virtual_time
async def test_a_start_that_was_late_is_made_up_for_a_little():
    work = Work(lambda item: 0.001)

    async def late(seconds):
        await asyncio.sleep(seconds + 0.004)

    fanout = Fanout(work, skip, range(500), concurrency=8, rate=1000, now=now, sleep=late)
    fanout.start()
    await taken(fanout)

    assert now() == pytest.approx(0.5, abs=0.01)


@on_virtual_time
async def test_after_a_pause_of_the_items_there_is_no_burst():
    work = Work()

    async def items():
        yield 0
        await asyncio.sleep(100)
        for each in range(20):
            yield each

    await run(items(), work, concurrency=20, rate=10)

    _, *others = work.started
    assert all(
        sum(start <= each < start + span for each in others) <= 10 * (span + LATE_START_GRACE) + 1
        for start in others
        for span in (0.1, 0.5, 1.0)
    )


@on_virtual_time
async def test_stopping_does_not_wait_for_a_start_that_is_due_later():
    fanout = fan_out(range(10), rate=0.001)
    fanout.start()
    await asyncio.sleep(5)

    fanout.stop()

    assert await taken(fanout) == [(0, "done")]
    assert now() == 5


# Items that another thread reads


def fill(fanout, most=None):
    """Read what is wanted, as a blocking caller does."""
    if most := most or fanout.wanted:
        fanout.source.fill(most)
        fanout.source.wake()


def filled(items, *args, **options):
    fanout = fan_out(items, *args, **options)
    fanout.source.is_filled = True
    return fanout


@on_virtual_time
async def test_source_is_filled_as_far_as_there_is_room():
    items = iter(range(20))
    fanout = filled(items)
    fanout.start()
    results = []
    while fanout.wanted:
        fill(fanout)
        assert not fanout.wanted
        await fanout.ready()
        assert fanout.read - len(results) <= fanout.window
        results += fanout.take()
    results += await taken(fanout)

    assert sorted(results) == [(each, "done") for each in range(20)]


@on_virtual_time
async def test_filled_source_is_waited_for():
    fanout = filled([1])
    fanout.start()
    await asyncio.sleep(5)
    fill(fanout)

    assert await taken(fanout) == [(0, "done")]
    assert now() == 6


@on_virtual_time
async def test_failed_fill_is_raised_after_the_results():
    fanout = filled(failing([1, 2]))
    fanout.start()
    fill(fanout)

    assert await fanout.ready()
    await asyncio.sleep(1)
    assert len(fanout.take()) == 2
    with pytest.raises(ReadError):
        await fanout.ready()


@on_virtual_time
async def test_failed_fill_after_the_end_is_raised():
    fanout = filled(failing([1]))
    fanout.start()
    fanout.stop()
    assert not await fanout.ready()
    fill(fanout, 2)  # on its way when it ended

    assert await fanout.ready()
    assert fanout.take() == [(0, "skipped")]
    with pytest.raises(ReadError):
        await fanout.ready()
    assert not await fanout.ready()


@pytest.mark.parametrize("started", [False, True])
@on_virtual_time
async def test_filled_items_that_never_start_are_skipped(started):
    fanout = filled(range(8))
    if started:
        fanout.start()
    fill(fanout, 6)
    await asyncio.sleep(0.5)
    fanout.stop()
    assert fanout.wanted == 0
    fill(fanout, 1)  # on its way when it was stopped
    await fanout.close()
    fill(fanout, 1)  # and when it had ended

    kinds = [kind for _, kind in sorted(await taken(fanout))]
    assert kinds == (["cancelled"] * 3 if started else ["skipped"] * 3) + ["skipped"] * 5
    assert fanout.read == 8


@on_virtual_time
async def test_closing_again_skips_what_was_filled_since():
    fanout = filled(range(3))
    await fanout.close()
    fill(fanout, 2)
    await fanout.close()

    assert fanout.take() == [(0, "skipped"), (1, "skipped")]


@on_virtual_time
async def test_end_is_not_found_while_the_last_item_is_taken():
    class Taken(deque):
        """A queue that the loop empties after another thread saw an item in it."""

        def __getitem__(self, index):
            self.clear()
            return super().__getitem__(index)

    fanout = filled([1])
    fanout.source._waiting = Taken([0])

    assert fanout.source.end is None
    await fanout.close()


@pytest.mark.parametrize("polls", [1, 2, 3, 4])
@on_virtual_time
async def test_items_filled_right_after_a_poll_are_worked_on(polls):
    fanout = filled([1, 2])
    poll, left = fanout.source.poll, iter(range(polls))

    def poll_before_the_fill():
        found = poll()
        if next(left, None) == polls - 1:
            fanout.source.fill(3)  # by another thread, before the loop looks again
        return found

    fanout.source.poll = poll_before_the_fill
    fanout.start()
    await asyncio.sleep(0)
    fanout.source.wake()

    assert sorted(await taken(fanout)) == [(0, "done"), (1, "done")]


@on_virtual_time
async def test_fill_reads_the_end_once():
    fanout = filled([1])
    for _ in range(3):
        fanout.source.fill(5)
    assert fanout.wanted == 0
    assert [type(each) for each in fanout.source._waiting] == [int, *[End] * 3]
    await fanout.close()

    assert fanout.take() == [(0, "skipped")]


# Whatever happens


@attrs.define
class Story:
    """Items, a consumer, and what comes in between."""

    source: str
    seconds: list  # that each item takes
    fails_at: int | None
    pause: float  # before each item, if they are asynchronous
    concurrency: int
    ordered: bool
    rate: float | None
    pauses: list  # of the consumer, over and over
    chunk: int | None
    stops_at: float | None
    leaves_at: float | None
    cancelled_at: float | None

    read: int = 0
    failed: bool = False
    results: list = attrs.field(factory=list)
    raised: list = attrs.field(factory=list)
    work: Work = attrs.field(factory=lambda: Work(float))
    fanout: Fanout = None

    def items(self):
        for number, each in enumerate(self.seconds):
            if number == self.fails_at:
                self.failed = True
                raise ReadError
            self.read += 1
            yield each

    async def async_items(self):
        for each in self.items():
            await asyncio.sleep(self.pause)
            yield each

    async def consume(self):
        fanout = self.fanout
        fanout.start()
        try:
            fill(fanout)
            for pause in cycle(self.pauses):
                if not await fanout.ready():
                    return
                assert fanout.read - len(self.results) <= fanout.window
                self.results += fanout.take(self.chunk)
                await asyncio.sleep(pause)
                fill(fanout)
                if self.leaves_at is not None and now() >= self.leaves_at:
                    return
        finally:
            await fanout.close()

    async def play(self):
        items = self.async_items() if self.source == "async" else self.items()
        self.fanout = fan_out(
            items, self.work, concurrency=self.concurrency, ordered=self.ordered, rate=self.rate
        )
        self.fanout.source.is_filled = self.source == "filled"
        consuming = asyncio.create_task(self.consume())
        happenings = (self.stops_at, self.fanout.stop), (self.cancelled_at, consuming.cancel)
        loop = asyncio.get_running_loop()
        timers = [loop.call_at(at, happens) for at, happens in happenings if at is not None]
        await asyncio.wait([consuming])
        for timer in timers:
            timer.cancel()
        if not consuming.cancelled() and (error := consuming.exception()) is not None:
            self.raised.append(error)
        try:
            await take_into(self.results, self.fanout)
        except ReadError as error:
            self.raised.append(error)
        if self.source == "async":
            await items.aclose()
        self.check()

    def check(self):
        undisturbed = self.stops_at is self.leaves_at is self.cancelled_at is None
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert self.work.most <= self.concurrency
        assert sorted(index for index, _ in self.results) == list(range(self.fanout.read))
        assert not self.ordered or self.results == sorted(self.results)
        assert all(type(error) is ReadError for error in self.raised)
        if self.source != "async" or undisturbed:  # it may be cancelled with an item in hand
            assert self.fanout.read == self.read
            assert len(self.raised) == self.failed
        if undisturbed:
            assert self.failed or self.read == len(self.seconds)
            assert {kind for _, kind in self.results} <= {"done"}
        if self.rate is not None:
            apart = (later - start for start, later in pairwise(self.work.started))
            assert all(each >= 1 / self.rate - LATE_START_GRACE - 1e-5 for each in apart)


seconds = st.sampled_from([0, 0, 1, 2, 7])
moments = st.none() | st.integers(0, 20)


@given(
    st.builds(
        Story,
        source=st.sampled_from(["iterable", "async", "filled"]),
        seconds=st.lists(seconds, max_size=30),
        fails_at=st.none() | st.integers(0, 30),
        pause=st.sampled_from([0, 0, 1, 3]),
        concurrency=st.integers(1, 6),
        ordered=st.booleans(),
        rate=st.sampled_from([None, None, 0.5, 4]),
        pauses=st.lists(st.sampled_from([0, 0, 0, 1, 5]), min_size=1, max_size=8),
        chunk=st.sampled_from([1, 2, None]),
        stops_at=moments,
        leaves_at=moments,
        cancelled_at=moments,
    )
)
def test_every_item_read_has_one_result_and_the_bounds_hold(story):
    virtual.run(story.play())


class Interrupted:
    """A fan-out whose consumer is cancelled, and all that it was given and gave."""

    def __init__(self, source, *, ordered):
        self.taken = []
        self.results = []
        self.closed = True
        items = self.async_iterable() if source == "async_iterable" else self.iterable()
        self.is_filled = source == "filled"
        self.fanout = fan_out(items, self.work, ordered=ordered)
        self.fanout.source.is_filled = self.is_filled

    def iterable(self):
        """Items whose iterator the fan-out makes, and therefore closes."""

        class Items:
            def __iter__(_):  # noqa: N805 - self is the story
                self.closed = False
                try:
                    for each in range(20):
                        self.taken.append(each)
                        yield each
                finally:
                    self.closed = True

        return Items()

    def async_iterable(self):
        class Items:
            async def __aiter__(_):  # noqa: N805 - self is the story
                self.closed = False
                try:
                    for each in range(20):
                        await asyncio.sleep(0)
                        self.taken.append(each)
                        yield each
                finally:
                    self.closed = True
                    await asyncio.sleep(0)

        return Items()

    async def work(self, index, item):
        try:
            for _ in range(1 + item % 3):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            return index, "cancelled"
        return index, "done"

    async def consume(self):
        self.fanout.start()
        try:
            fill(self.fanout)
            while await self.fanout.ready():
                self.results.append(self.fanout.take_one())
                await asyncio.sleep(0)
                fill(self.fanout)
        finally:
            await self.fanout.close()

    async def check(self):
        if not self.fanout.is_started:  # it was cancelled before its first step
            return
        self.results += self.fanout.take()
        assert self.fanout.ended_at is not None
        assert [index for index, _ in sorted(self.results)] == self.taken
        assert self.fanout.read == len(self.taken)
        assert self.closed or self.is_filled  # it belongs to the other thread
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.sweep(every=5)
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("source", ["iterable", "async_iterable", "filled"])
@pytest.mark.parametrize("way", cancelling.WAYS)
def test_a_consumer_may_be_cancelled_at_any_turn(source, ordered, way):
    def interrupted():
        each = Interrupted(source, ordered=ordered)
        return each.consume, each.check

    with asyncio.Runner(loop_factory=cancelling.CountingLoop) as runner:
        runner.run(cancelling.sweep(cancelling.WAYS[way], interrupted))
