"""Bounded fan-out: many items through one coroutine function. It knows nothing of ChatKit.

The fan-out. A fixed number of workers share the items. A worker that is free polls the `Source` for
an item, works on it, adds the result to a queue, and polls again. If it gets no item, it waits at
the source. The consumer takes results from the queue, and each result taken makes room for another
item to be read. So a consumer that pauses stops the reading, and memory does not grow.

The hand-over. Items come to a source in one of three ways. A worker reads a synchronous iterable
itself, at the moment it polls. An asynchronous iterable is awaited by one free worker, and when
that worker has its item, it wakes another to await the next. For a blocking run, the thread that
iterates reads the rows and appends them to the source's queue; the event loop learns of them when
that thread next calls it. The end of the items is the last entry of the queue, so it comes after
them, and so does an error from the iterator in that thread: the items before it are worked on.

The end. Three things stop a fan-out: the end of the items, `stop`, and an error. Then no more items
are read, the workers that have no item in hand are cancelled, and the others finish their item.
`close` cancels those too. When all workers have ended, items that were read and never started get
the result of `skip`, an iterator that was made in the loop is closed, and the fan-out is over. If it
failed, the error is raised once all results were taken.
"""

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
from itertools import islice, repeat
from typing import Generic, TypeVar, cast

from chatkit_async._cancellation import run_to_end

__all__ = ["Fanout", "Source"]

T = TypeVar("T")
R = TypeVar("R")

LATE_START_GRACE = 0.05
"""Seconds of late starts that are made up for: timers are late by a millisecond or so, which would
slow down a rate of thousands per second."""

READ_SLICE = 0.01
"""Seconds that a blocking caller reads for at a time: a slow input must not hold its first items
back."""


class End:
    """The last entry of a source: no more items come.

    Attributes:
        failure: The error from the iterator. None: the items ended.
    """

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure


class Source(Generic[T]):
    """The items of a fan-out, numbered from 0 as they are handed to its workers.

    All but `fill` runs in the fan-out's event loop.

    Args:
        items: The items. An asynchronous iterable is never asked for two at once.
        window: The number of items that may be read before their results are taken.
    """

    def __init__(self, items: Iterable[T] | AsyncIterable[T], window: int) -> None:
        self.is_async: bool = isinstance(items, AsyncIterable)
        self.is_filled: bool = False
        """True if another thread reads the items, with `fill`."""
        self.read: int = 0
        """Number of items that were handed to a worker, or to `rest`."""
        self._items = items
        self._window = window
        self._taken = 0
        self._opened: Iterator[T] | AsyncIterator[T] | None = None
        self._filling: Iterator[T | End] | None = None
        self._waiting = deque[T | End]()
        self._parked = deque[asyncio.Future[None]]()  # of workers that wait for an item
        self._is_awaited = False  # by a worker, for the next item of an asynchronous iterable

    @property
    def room(self) -> int:
        """Number of items that may be read now."""
        return self._window - (self.read - self._taken) - len(self._waiting)

    @property
    def end(self) -> End | None:
        """The end of the items, if it was read."""
        if not self._waiting:
            return None
        try:
            last = self._waiting[-1]
        except IndexError:  # the loop took the last item at this moment
            return None
        return last if isinstance(last, End) else None

    # For workers

    def poll(self) -> tuple[int, T] | None:
        """Return the next item with its number, if there is one now.

        Raises:
            BaseException: The error from the iterator.
        """
        if self._waiting:
            item = self._waiting[0]
            if isinstance(item, End):
                return None
            self._waiting.popleft()
        elif self.is_async or self.is_filled or self.read - self._taken >= self._window:
            return None
        else:
            if self._opened is None:
                self._opened = iter(cast("Iterable[T]", self._items))
            try:
                item = next(cast("Iterator[T]", self._opened))
            except StopIteration:
                self._waiting.append(End())
                return None
        return self._number(item)

    async def next(self) -> tuple[int, T] | None:
        """Return the next item with its number, when it comes. None: no more items come.

        Raises:
            BaseException: The error from the iterator.
        """
        while (found := self.poll()) is None:
            # Not `end`: another thread may have appended items and the end since the poll.
            if self._waiting and isinstance(self._waiting[0], End):
                return None
            if self.is_async and not self._is_awaited and self.room > 0:
                return await self._next_async()
            parked = asyncio.get_running_loop().create_future()
            self._parked.append(parked)
            await parked
        return found

    async def _next_async(self) -> tuple[int, T] | None:
        self._is_awaited = True
        try:
            if self._opened is None:
                self._opened = aiter(cast("AsyncIterable[T]", self._items))
            return self._number(await anext(cast("AsyncIterator[T]", self._opened)))
        except StopAsyncIteration:
            self._waiting.append(End())
            return None
        finally:
            self._is_awaited = False
            if self._parked:
                self.wake(1)

    def _number(self, item: T) -> tuple[int, T]:
        index = self.read
        self.read = index + 1
        return index, item

    # For those who bring items, or make room for them

    def fill(self, most: int) -> None:
        """Read items in a blocking caller's thread, for a while. `wake` tells the workers.

        A signal handler may raise between any two bytecodes. So each item goes from the iterable to
        the queue in one step, and so does the end.
        """
        until = time.monotonic() + READ_SLICE
        try:
            if self._filling is None:
                opened = iter(cast("Iterable[T]", self._items))
                self._filling = map(next, repeat(opened), repeat(End()))
            for _ in range(most):
                self._waiting.extend(islice(self._filling, 1))
                if self.end is not None or time.monotonic() > until:
                    return
        except Exception as error:  # noqa: BLE001 - raised when the items before it have results
            self._waiting.append(End(error))

    def note_taken(self, count: int) -> None:
        """Make room: so many results were taken."""
        self._taken += count
        self.wake(count)

    def wake(self, count: int | None = None) -> None:
        """Have waiting workers poll again: so many, or one for each item that came."""
        left = len(self._waiting) if count is None else count
        while left and self._parked:
            parked = self._parked.popleft()
            if not parked.done():  # else its worker was cancelled
                parked.set_result(None)
                left -= 1

    # For the end

    def rest(self) -> Iterator[tuple[int, T]]:
        """Hand out the items that no worker took."""
        while self._waiting and not isinstance(item := self._waiting[0], End):
            self._waiting.popleft()
            yield self._number(item)

    def close(self) -> AsyncGenerator[T] | None:
        """Close the iterator, if it was made here. Return it if closing it has to be awaited."""
        opened = cast("object", self._opened)
        if opened is not self._items:
            if isinstance(opened, AsyncGenerator):
                return cast("AsyncGenerator[T]", opened)
            if isinstance(opened, Generator):
                opened.close()
        return None


class Fanout(Generic[T, R]):
    """A fan-out: it passes items through a coroutine function, and hands out the results.

    At most `window` items, twice the concurrency, are read whose results have not been taken.

    Every item that was read has one result: what `work` returns, or, if it was never started, what
    `skip` returns.

    Args:
        work: Called with an item's number, from 0, and the item. It returns a result whatever
            happens: also when it is cancelled. What it raises ends the fan-out, without a result.
        skip: Makes the result of an item that was read and never started.
        items: Read as there is room. An asynchronous iterable is never asked for two at once. An
            iterator that had to be made of it is closed at the end.
        concurrency: The number of items in progress at a time, at least 1.
        ordered: True if results come in the order of their items, not as they finish.
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
        self._concurrency = concurrency
        self.window: int = 2 * concurrency
        self.source: Source[T] = Source(items, self.window)
        self._ordered = ordered
        self._interval = 0.0 if rate is None else 1 / rate
        self._now = now
        self._sleep = sleep

        self._turn = asyncio.Lock()  # with a rate: one worker at a time waits for its start
        self._next_start = 0.0
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
        self._end_noted = False  # with the error from the iterator in another thread
        self._failure: BaseException | None = None
        self.ended_at: float | None = None
        """The time when the last item was done. None: not yet."""

    @property
    def read(self) -> int:
        """Number of items that were read and have a result or a worker."""
        return self.source.read

    @property
    def is_started(self) -> bool:
        """True if it was started, or closed before."""
        return self._started

    @property
    def wanted(self) -> int:
        """Number of items that another thread should read now."""
        is_filled = self.source.is_filled and not self._stopped and self.source.end is None
        return max(0, self.source.room) if is_filled else 0

    # For the consumer

    def start(self) -> None:
        """Start the workers."""
        self._started = True
        self._next_start = self._now()
        for _ in range(self._concurrency):
            worker = asyncio.create_task(self._share_work())
            self._workers[worker] = None
            worker.add_done_callback(self._worker_ended)

    async def ready(self) -> bool:
        """Wait for results. Return False if all of them were taken.

        Raises:
            BaseException: The error that ended the fan-out, once all results were taken.
        """
        while True:
            if self._over.is_set():
                self.refuse_rest()
            if self._results:
                return True
            if self._over.is_set():
                self.raise_failure()
                return False
            self._news.clear()
            await self._news.wait()

    def take(self, most: int | None = None) -> list[R]:
        """Take the results that there are."""
        results = self._results
        if most is None or most >= len(results):
            taken = list(results)
            results.clear()
        else:
            taken = [results.popleft() for _ in range(most)]
        self.source.note_taken(len(taken))
        return taken

    def take_one(self) -> R | None:
        """Take a result, if there is one."""
        if not self._results:
            return None
        self.source.note_taken(1)
        return self._results.popleft()

    def stop(self, failure: BaseException | None = None) -> None:
        """Read no more items. Those that are being worked on are finished.

        Args:
            failure: The error to raise when all results were taken, unless there is one already.
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
        self.refuse_rest()

    def refuse_rest(self) -> None:
        """Make results of the items that were read and never started, without work on them.

        Another thread may have read them, and the end, after the fan-out was over.
        """
        for index, item in self.source.rest():
            self._put(index, self._skip(index, item))
        if not self._end_noted and (end := self.source.end) is not None:
            self._end_noted = True
            self._failure = self._failure or end.failure

    def raise_failure(self) -> None:
        """Raise the error that ended the fan-out, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure

    # The workers

    async def _share_work(self) -> None:
        """Work on one item after another: a worker."""
        worker = cast("asyncio.Task[None]", asyncio.current_task())
        poll, work = self.source.poll, self._work
        try:
            while not self._must_end(worker):
                found = None if self._interval else poll()
                if found is None and (found := await self._wait_for_item(worker)) is None:
                    self.stop()
                    return
                index, item = found
                if self._stopped:  # by the items themselves
                    self._put(index, self._skip(index, item))
                else:
                    self._put(index, await work(index, item))
        except asyncio.CancelledError as error:
            if not self._stopped:
                self.stop(error)
        except BaseException as error:  # noqa: BLE001 - raised to the consumer
            self.stop(error)

    def _must_end(self, worker: "asyncio.Task[None]") -> bool:
        return self._stopped or worker.cancelling() > 0

    async def _wait_for_item(self, worker: "asyncio.Task[None]") -> tuple[int, T] | None:
        """Return the next item when it comes and its start is due. None: no more items come."""
        self._idle[worker] = None
        try:
            if not self._interval:
                return await self.source.next()
            async with self._turn:
                if (wait := self._next_start - self._now()) > 0:
                    await self._sleep(wait)
                found = await self.source.next()
                earliest = self._now() - LATE_START_GRACE
                self._next_start = max(self._next_start, earliest) + self._interval
                return found
        finally:
            del self._idle[worker]

    def _put(self, index: int, result: R) -> None:
        if not self._ordered:
            self._results.append(result)
        else:
            self._early[index] = result
            while self._next_index in self._early:
                self._results.append(self._early.pop(self._next_index))
                self._next_index += 1
        self._news.set()

    # The end

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.pop(worker)
        if worker.cancelling() and not self._stopped:  # by somebody else, who ends the loop, say
            self.stop(asyncio.CancelledError())
        if not self._workers:
            self._end()

    def _end(self) -> None:
        """End the fan-out, once no worker is left.

        To close an asynchronous iterator takes another task. Whatever becomes of that task, the
        fan-out is over when it is done.
        """
        left: AsyncGenerator[T] | None = None
        try:
            self.refuse_rest()
            left = self.source.close()
        except BaseException as error:  # noqa: BLE001 - raised to the consumer
            self._failure = self._failure or error
        if left is None:
            self._conclude()
        else:
            self._closing = asyncio.create_task(self._close_items(left))
            self._closing.add_done_callback(self._conclude)

    async def _close_items(self, opened: AsyncGenerator[T]) -> None:
        self._is_closing = True
        try:
            await opened.aclose()
        except BaseException as error:  # noqa: BLE001 - raised to the consumer
            self._failure = self._failure or error

    def _hurry(self) -> None:
        """Cancel the closing of the items, which takes long, once it has begun."""
        if self._closing is not None and self._is_closing:
            self._closing.cancel()

    def _conclude(self, _: object = None) -> None:
        self.ended_at = self._now()
        self._over.set()
        self._news.set()
