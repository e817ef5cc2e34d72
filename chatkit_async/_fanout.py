"""Bounded fan-out: many items through one coroutine function. It knows nothing of ChatKit."""

import asyncio
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from math import inf
from typing import Generic, Self, TypeVar, cast

from chatkit_async._cancellation import run_to_end

__all__ = ["Fanout", "Feed"]

T = TypeVar("T")
R = TypeVar("R")

LATE = 0.05
"""Seconds of starts that were late and are made up for: timers are late by a millisecond or so, and
a rate of thousands per second would suffer."""


class Feed(Generic[T]):
    """Items that are handed over in chunks, where nobody can be awaited for them: by a thread.

    It is given to a fan-out as its items. Its methods are called in the fan-out's loop.
    """

    def __init__(self) -> None:
        self._waiting: deque[T] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self._failure: BaseException | None = None
        self._refuse: Callable[[T], None] | None = None

    def __len__(self) -> int:
        """How many items were handed over and not read yet."""
        return len(self._waiting)

    @property
    def ended(self) -> bool:
        """Whether there will be no more: none are left, or none are wanted."""
        return self._ended or self._refuse is not None

    def give(self, items: Iterable[T]) -> None:
        """Hand items over. Those that come after the fan-out was stopped are never started."""
        for item in items:
            if self._refuse is None:
                self._waiting.append(item)
            else:
                self._refuse(item)
        self._changed.set()

    def end(self, failure: BaseException | None = None) -> None:
        """Say that there are no more, or what reading them raised."""
        self._ended = True
        self._failure = failure
        self._changed.set()

    def close(self, refuse: Callable[[T], None]) -> None:
        """Hand back what is not read, and all that is still given.

        Raises:
            BaseException: what the feed was ended by, which may not have been raised yet.
        """
        self._refuse = refuse
        while self._waiting:
            refuse(self._waiting.popleft())
        if self._failure is not None:
            raise self._failure

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


class _BargingLock:
    """A lock that whoever comes while it is free has at once, past those that wait for it.

    `asyncio.Lock` is fair: once a queue has formed behind an item that was slow to come, each
    worker joins its end, and one item is read in each round of the loop.
    """

    def __init__(self) -> None:
        self._is_held = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        while self._is_held:
            woken = asyncio.get_running_loop().create_future()
            self._waiting.append(woken)
            try:
                await woken
            except asyncio.CancelledError:
                if not self._is_held:
                    self._wake()  # this one was woken, and does not come
                raise
        self._is_held = True

    async def __aexit__(self, *_: object) -> None:
        self._is_held = False
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            woken = self._waiting.popleft()
            if not woken.done():  # else it was cancelled
                woken.set_result(None)
                return


class Fanout(Generic[T, R]):
    """Passes items through a coroutine function, and gives the results as they are taken.

    A fixed number of workers share the items. One at a time reads the next item, when there is room
    for its result and its start is due: at most `window` items, twice the concurrency, are read and
    their results not taken. So a consumer that stops stops the workers, and memory does not grow.

    Every item that was read has one result: what `work` returns, or, if it was never started, what
    `skip` returns.

    Args:
        work: Called with an item's number, from 0, and the item. It returns a result whatever
            happens: also when it is cancelled. What it raises ends the fan-out, without a result.
        skip: Makes the result of an item that was read and never started.
        items: Read as there is room. An asynchronous iterable is never asked for two at once. An
            iterator that had to be made of it is closed at the end.
        concurrency: How many items are worked on at a time, at least 1.
        ordered: Whether results come in the order of their items, rather than as they finish.
        rate: Starts per second, more than 0; a start that was late is made up for, up to 0.05 s of
            them. None: no limit.
        now: A clock, in seconds.
        sleep: Waits for seconds.
    """

    def __init__(
        self,
        work: Callable[[int, T], Awaitable[R]],
        skip: Callable[[int, T], R],
        items: Iterable[T] | AsyncIterable[T],
        *,
        concurrency: int,
        ordered: bool = False,
        rate: float | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._work = work
        self._skip = skip
        self._items = items
        self._concurrency = concurrency
        self.window: int = 2 * concurrency
        self._ordered = ordered
        self._interval = 0.0 if rate is None else 1 / rate
        self._now = now
        self._sleep = sleep

        self._is_async = isinstance(items, AsyncIterable)
        self._opened: Iterator[T] | AsyncIterator[T] | None = None
        self._reading = _BargingLock()  # one worker at a time reads
        self._room = asyncio.Event()
        self._slot = -inf  # when the next start is due
        self._read = 0
        self._taken = 0
        self._early: dict[int, R] = {}  # in order: results whose turn has not come
        self._next_index = 0  # in order: whose turn it is
        self._results: deque[R] = deque()
        self._news = asyncio.Event()

        # Not sets: what happens to them happens in the same order each time.
        self._workers: dict[asyncio.Task[None], None] = {}
        self._idle: dict[asyncio.Task[None], None] = {}  # those that have no item
        self._closing: asyncio.Task[None] | None = None  # closes the items
        self._is_closing = False  # it has taken its first step
        self._started = False
        self._stopped = False
        self._over = asyncio.Event()
        self._failure: BaseException | None = None
        self.ended_at: float | None = None
        """When the last item was done with; None: not yet."""

    @property
    def read(self) -> int:
        """How many items were read."""
        return self._read

    @property
    def is_started(self) -> bool:
        """Whether it was started, or closed before."""
        return self._started

    @property
    def wanted(self) -> int:
        """How many more items a feed should be given now."""
        if not isinstance(self._items, Feed) or self._items.ended or self._stopped:
            return 0
        return max(0, self.window - (self._read - self._taken) - len(self._items))

    # For the consumer

    def feed(self) -> Feed[T]:
        """Take the items from a feed instead: of a fan-out that was not started."""
        feed = self._items = Feed[T]()
        self._is_async = True
        return feed

    def start(self) -> None:
        """Start the workers."""
        self._started = True
        for _ in range(self._concurrency):
            worker = asyncio.create_task(self._worker())
            self._workers[worker] = None
            worker.add_done_callback(self._worker_ended)

    async def ready(self) -> bool:
        """Wait for results; False: all of them were taken.

        Raises:
            BaseException: all of them were taken, and the items, or `work`, raised this.
        """
        while not self._results:
            if self._over.is_set():
                self.raise_failure()
                return False
            self._news.clear()
            await self._news.wait()
        return True

    def take(self, most: int | None = None) -> list[R]:
        """Take the results that there are."""
        results = self._results
        if most is None or most >= len(results):
            taken = list(results)
            results.clear()
        else:
            taken = [results.popleft() for _ in range(most)]
        self._taken += len(taken)
        self._room.set()
        return taken

    def take_one(self) -> R | None:
        """Take a result, if there is one."""
        if not self._results:
            return None
        self._taken += 1
        self._room.set()
        return self._results.popleft()

    def stop(self, failure: BaseException | None = None) -> None:
        """Read no more items; those that are being worked on are finished.

        Args:
            failure: What is to be raised when all results were taken, if nothing is yet.
        """
        if self._failure is None and not self._over.is_set():
            self._failure = failure
        if self._stopped:
            return
        self._stopped = True
        for worker in self._idle:
            if worker is not asyncio.current_task():
                worker.cancel()

    async def close(self) -> None:
        """Stop, cancel what is being worked on, and wait for its end.

        A cancellation meanwhile takes effect afterwards.
        """
        self.stop()
        if not self._started:
            self._started = True
            self._end()
        for worker in self._workers:
            worker.cancel()
        if not self._over.is_set():
            await run_to_end(self._over.wait(), on_cancel=self._hurry)

    def refuse_rest(self) -> None:
        """Make results of the items that a feed still has, without work on them."""
        if isinstance(self._items, Feed):
            self._items.close(self._refuse)

    def raise_failure(self) -> None:
        """Raise what ended the fan-out, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure

    # The workers

    async def _worker(self) -> None:
        worker = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            while True:
                self._idle[worker] = None
                async with self._reading:
                    found = await self._read_next(worker)
                del self._idle[worker]
                if found is None:
                    return
                self._put(found[0], await self._work(*found))
        except asyncio.CancelledError as error:
            if not self._stopped:
                self.stop(error)
        except BaseException as error:  # noqa: BLE001 - raised to the consumer
            self.stop(error)

    async def _read_next(self, worker: "asyncio.Task[None]") -> tuple[int, T] | None:
        """Read an item when there is room for its result and its start is due; None: no more."""
        while self._read - self._taken >= self.window and not self._stopped:
            self._room.clear()
            await self._room.wait()
        if self._stopped or worker.cancelling():
            return None
        if self._interval and (wait := self._slot - self._now()) > 0:
            await self._sleep(wait)
        if self._opened is None:
            self._open()
        try:
            if self._is_async:
                item = await anext(cast("AsyncIterator[T]", self._opened))
            else:
                item = next(cast("Iterator[T]", self._opened))
        except (StopIteration, StopAsyncIteration):
            self.stop()
            return None
        index = self._read
        self._read += 1
        if self._stopped:  # by the items themselves
            self._put(index, self._skip(index, item))
            return None
        if self._interval:
            self._slot = max(self._slot, self._now() - LATE) + self._interval
        return index, item

    def _open(self) -> None:
        items = self._items
        self._slot = self._now()
        if self._is_async:
            self._opened = aiter(cast("AsyncIterable[T]", items))
        else:
            self._opened = iter(cast("Iterable[T]", items))

    def _put(self, index: int, result: R) -> None:
        if not self._ordered:
            self._results.append(result)
        else:
            self._early[index] = result
            while self._next_index in self._early:
                self._results.append(self._early.pop(self._next_index))
                self._next_index += 1
        self._news.set()

    def _refuse(self, item: T) -> None:
        index = self._read
        self._read += 1
        self._put(index, self._skip(index, item))

    # The end

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.pop(worker)
        self._idle.pop(worker, None)
        if worker.cancelling() and not self._stopped:  # by somebody else, who ends the loop, say
            self.stop(asyncio.CancelledError())
        if not self._workers:
            self._end()

    def _end(self) -> None:
        """End the fan-out once no worker is left.

        There are two steps. Items of a feed that were never started get their results, and an
        iterator that was made here is closed. The second takes a task where the iterator is
        asynchronous, and whatever becomes of that task, the fan-out is over when it is done.
        """
        closing: asyncio.Task[None] | None = None
        try:
            self.refuse_rest()
            if self._opened is not self._items:
                opened = cast("object", self._opened)
                if isinstance(opened, AsyncGenerator):
                    items = cast("AsyncGenerator[T]", opened)
                    closing = self._closing = asyncio.create_task(self._close_items(items))
                elif isinstance(opened, Generator):
                    opened.close()
        except BaseException as error:  # noqa: BLE001 - raised to the consumer
            self._failure = self._failure or error
        if closing is None:
            self._conclude()
        else:
            closing.add_done_callback(self._conclude)

    async def _close_items(self, opened: AsyncGenerator[T]) -> None:
        self._is_closing = True
        try:
            await opened.aclose()
        except BaseException as error:  # noqa: BLE001 - raised to the consumer
            self._failure = self._failure or error

    def _hurry(self) -> None:
        """Cancel the end of the items, which takes long; it has begun, or else it never would."""
        if self._closing is not None and self._is_closing:
            self._closing.cancel()

    def _conclude(self, _: object = None) -> None:
        self.ended_at = self._now()
        self._over.set()
        self._news.set()
