"""Bulk runs of the blocking client."""

import os
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self

from chatkit_async._loop_thread import LoopThread
from chatkit_async._transport import not_picklable
from chatkit_async.bulk import BulkRun, BulkSummary, Outcome, ResultT, RowT, parts_of_run
from chatkit_async.errors import ClientClosedError

__all__ = ["BlockingBulkRun"]

P = ParamSpec("P")


class BlockingBulkRun(Generic[RowT, ResultT]):
    """A run over rows: use it with `with`, and iterate over its outcomes, in one thread.

    Every row that was read has exactly one outcome. Leaving the block before the end cancels the
    requests in flight, and waits for their end. The outcomes that nobody took are still there to
    iterate over. Without the block a run that is not iterated to its end goes on in the background.

    A failure that would hit every row stops the run: 401, 403, 410, no quota left, an
    invalid key, a closed client, no connection since the row started, a rate gate that stayed
    shut for `max_wait`, or `max_failures` rows that failed in the same way before any succeeded. It
    is not raised: `summary.stopped_by` has it.

    An error from the row iterator, or from a callable of yours, is raised unchanged, after the
    outcomes of all rows that were read.

    Rows are read in the thread that iterates, before it waits for outcomes: an input that keeps it
    waiting keeps the outcomes waiting too. An asynchronous iterable is read in the client's thread.
    """

    def __init__(self, run: BulkRun[RowT, ResultT], loop_thread: LoopThread) -> None:
        self._run = run
        self._loop_thread = loop_thread
        self._fanout, self._start_once, self._stop_by = parts_of_run(run)
        self._source = self._fanout.source
        self._source.is_filled = not self._source.is_async
        self._pid = os.getpid()
        self._wanted = 0
        self._over = False
        # Filled in one thread and emptied in the other: Ctrl-C between the two loses nothing.
        self._outcomes: deque[Outcome[RowT, ResultT]] = deque()

    @property
    def summary(self) -> BulkSummary:
        """The progress of the run so far."""
        if not self._over:
            with suppress(ClientClosedError):
                return self._loop_thread.run(self._get_summary)
        return self._run.summary

    def stop(self) -> None:
        """Read no more rows, and finish those in flight.

        The iteration goes on to their outcomes, and ends. A row that waits for the rate gate and
        has sent nothing yet is `not_attempted`. May be called in any thread.
        """
        if not self._over:
            self._on_loop(self._stop)

    def results(self) -> list[Outcome[RowT, ResultT]]:
        """Go through all rows, and return the outcomes: of a run that was not entered.

        Raises:
            BaseException: an error from the row iterator, or a callable of yours. The outcomes are
                still there to iterate over, also after Ctrl-C.
        """
        with self:
            while not self._over:
                self._go_on()
        outcomes, self._outcomes = self._outcomes, deque()
        return list(outcomes)

    def __enter__(self) -> Self:
        self._loop_thread.run(self._run.__aenter__)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if os.getpid() == self._pid:  # a forked child leaves its parent's run alone
            self._on_loop(self._leave, exc_type, exc, traceback)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome[RowT, ResultT]:
        while not self._outcomes:
            if self._over:
                raise StopIteration
            self._go_on()
        outcome = self._outcomes[0]
        # No call from here on: a signal handler, which may raise, runs after calls.
        del self._outcomes[0]
        return outcome

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._run.summary}>"

    def __reduce__(self) -> str:
        raise not_picklable(type(self))

    def _go_on(self) -> None:
        """Read rows, if any are wanted, and wait for outcomes, or for more to be wanted."""
        if os.getpid() != self._pid:
            raise RuntimeError("a bulk run cannot continue in a forked process: make another one")
        wanted, self._wanted = self._wanted, 0
        if wanted:
            self._source.fill(wanted)
        self._on_loop(self._advance)

    def _on_loop(
        self, method: Callable[P, Coroutine[Any, Any, None]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Run something on the loop. If the client was closed, the loop has ended, and the run with it."""
        try:
            self._loop_thread.run(method, *args, **kwargs)
        except ClientClosedError as error:
            if not self._loop_thread.has_ended() or not self._run.summary.read:
                raise
            end = self._source.end
            if end is None or end.failure is not None:  # there may be more rows
                self._stop_by(error.with_traceback(None))
            # The workers came to their end with the loop: what they had has its outcome.
            self._fanout.refuse_rest()
            self._take()
            self._over = True

    # On the loop

    async def _advance(self) -> None:
        self._start_once()
        self._source.wake()
        if not self._fanout.wanted:
            await self._fanout.ready()
        any_taken = self._take()
        self._wanted = self._fanout.wanted
        self._over = not any_taken and not self._wanted

    def _take(self) -> bool:
        taken = self._fanout.take()
        self._outcomes += taken
        return bool(taken)

    async def _leave(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._run.__aexit__(exc_type, exc, traceback)
        finally:
            self._take()
            self._over = True

    async def _stop(self) -> None:
        self._run.stop()

    async def _get_summary(self) -> BulkSummary:
        return self._run.summary
