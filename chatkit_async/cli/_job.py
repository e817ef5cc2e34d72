"""A job: sends the rows of an input, and keeps a journal of intents and outcomes.

A row is written to the journal before its request is sent, and its outcome as soon as it is known.
A signal ends the job: no more rows are read, and the rows in flight finish.
"""

import asyncio
import os
import signal
import stat
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, Generic, Protocol, TypeVar, cast

import attrs
import click

from chatkit_async._exit_codes import AUTHENTICATION, PARTIAL, after_signal
from chatkit_async.bulk import BulkRun, Kind, Outcome, SuccessKind
from chatkit_async.cli._failures import exit_code
from chatkit_async.cli._journal import KIND_OF, NOT_OF_THE_ROW, History, State, outcome_record
from chatkit_async.cli._output import counted, note, without_secrets, write, write_json
from chatkit_async.cli._progress import Progress, duration
from chatkit_async.cli._rows import Decoder, InputError, Row, Rows, Stream, read
from chatkit_async.client import AsyncChatKit
from chatkit_async.errors import ChatKitError, ParameterError

V = TypeVar("V")

SYNC_INTERVAL = 1.0
"""Seconds between two flushes of the journal to disk."""

UNDO_TIMEOUT = 10.0
"""Seconds within which sessions are cancelled whose outcomes could not be written."""

ROWS_PER_TURN = 1000
"""Rows that are skipped in a row before other tasks get a turn."""

MAX_SHOWN_FAILURES = 5
"""Failures that are shown as they happen."""


@attrs.frozen(kw_only=True)
class Again:
    """The rows of an earlier run to send again, besides those that were never sent."""

    unknown: bool = False
    rejected: bool = False
    expired: bool = False

    def includes(self, state: State) -> bool:
        """Return True if a row in this state is sent again."""
        return (
            state is State.OPEN
            or (self.unknown and state in {State.SENT, State.UNKNOWN})
            or (self.rejected and state is State.REJECTED)
            or (self.expired and state is State.EXPIRED)
        )


class Sink(Protocol):
    """A receiver of outcomes: the journal, or stdout."""

    @property
    def history(self) -> History:
        """The state of each row after earlier runs."""
        ...

    def intent(self, row: Row[object]) -> None:
        """Write that a row is about to be sent."""
        ...

    def outcome(self, row: Row[object], outcome: Outcome[object, Any]) -> None:
        """Write the outcome of a row."""
        ...

    def sync(self) -> None:
        """Flush to disk what was written."""
        ...


class Printed:
    """Outcomes on stdout, from which no run can be resumed."""

    def __init__(self, *, show_secret: bool) -> None:
        write("")  # fails if stdout is closed, before anything is sent
        self.history = History()
        self._show_secret = show_secret
        self._failure: Exception | None = None

    def intent(self, row: Row[object]) -> None:
        """Print nothing."""

    def outcome(self, row: Row[object], outcome: Outcome[object, Any]) -> None:
        """Print the outcome of a row."""
        if self._failure is not None:
            raise self._failure  # after a pipe was closed, what is written goes nowhere
        try:
            write_json(outcome_record(row, outcome, show_secret=self._show_secret))
        except (click.ClickException, click.exceptions.Exit) as error:
            self._failure = error
            raise

    def sync(self) -> None:
        """Each line is flushed as it is printed."""


class Source(Generic[V]):
    """The input, and the rows that were read from it."""

    def __init__(self, decoder: Decoder[V], stream: Stream, status: os.stat_result | None) -> None:
        self.rows = Rows(decoder)
        self.stream = stream
        self.waits = status is None or not stat.S_ISREG(status.st_mode)
        self._size = 0 if self.waits or status is None else status.st_size

    @property
    def total(self) -> int | None:
        """An estimate of the number of rows, from those read so far. None: it is not a file."""
        rows = self.rows
        return rows.index * max(self._size, rows.read) // rows.read if self._size else None

    def lines(self) -> int:
        """Return the number of lines of a file, about that of its rows. 0: it is not a file."""
        if self.waits:
            return 0
        number = sum(data.count(b"\n") for data in iter(lambda: read(self.stream), b""))
        cast("BinaryIO", self.stream).seek(0)
        return number

    def all(self) -> Iterator[Row[V]]:
        """Read all rows."""
        while data := read(self.stream):
            yield from self.rows.feed(data)
        yield from self.rows.end()

    async def read(self) -> bytes:
        """Read the next bytes, in a thread if that may take long."""
        return await asyncio.to_thread(read, self.stream) if self.waits else read(self.stream)


class Interruptible:
    """Work that the first signal ends after what is in flight, and a second Ctrl-C at once.

    Attributes:
        interrupted_by: The signal that ended the work early.
    """

    def __init__(self, progress: Progress) -> None:
        self.interrupted_by: signal.Signals | None = None
        self._progress = progress
        self._stop: Callable[[], None] | None = None  # None: the work has not started

    def interrupt(self, number: signal.Signals) -> bool:
        """Let what is in flight finish. Return False if the work is to be cancelled.

        Only Ctrl-C cancels work that is ending: a shell and `timeout` send their signals twice.
        """
        if self._stop is None:
            return False
        if self.interrupted_by is not None:
            return number is not signal.SIGINT
        self.interrupted_by = number
        self._say(
            f"Interrupted by {number.name}: finishing the {self._progress.noun} in flight. "
            "Press Ctrl-C to stop now."
        )
        self._stop()
        return True

    def _say(self, text: str) -> None:
        self._progress.clear()
        note(without_secrets(text))


class Job(Interruptible, Generic[V]):
    """A run: it takes rows from the source to the API, and their outcomes to the sink.

    Attributes:
        totals: The number of rows by outcome, those of earlier runs included.
        stopped_by: The error that stopped the run, because it would fail every row.
    """

    def __init__(
        self,
        source: Source[V],
        sink: Sink,
        done: SuccessKind,
        *,
        again: Again,
        limit: int | None,
        noun: str = "row",
        quiet: bool = False,
    ) -> None:
        # In the order in which the summary shows them.
        kinds: tuple[Kind, ...] = (done, "rejected", "unknown", "not_attempted")
        self.totals: Counter[str] = Counter(dict.fromkeys(kinds, 0))
        super().__init__(
            Progress(self.totals, self._total, self._under_way, noun=f"{noun}s", quiet=quiet)
        )
        self._noun = noun
        self.stopped_by: ChatKitError | None = None
        self.expired = 0
        self._done: Kind = done
        for state, number in sink.history.counts().items():
            self.totals[self._kind(state)] += number
        self._source = source
        self._sink = sink
        self._again = again
        self._limit = limit
        self._sent = 0
        self._at_end = False
        self._pending: dict[int, Row[V]] = {}
        self._unwritten: list[tuple[Row[V], Outcome[V, Any]]] = []
        self._failure: Exception | None = None
        self._run: BulkRun[Any, Any] | None = None

    async def work(
        self, client: AsyncChatKit, start: Callable[[AsyncIterator[V]], BulkRun[Any, Any]]
    ) -> None:
        """Go through the rows.

        Raises:
            InputError: the input cannot be read, or differs from that of the earlier run.
            click.ClickException, click.exceptions.Exit: an outcome could not be written.
        """
        async with client:
            self._run = bulk_run = start(self._rows())
            self._stop = bulk_run.stop
            try:
                async with beside(self._progress.show(), flushed(self._sink.sync)):
                    try:
                        async with bulk_run:
                            await self._take_all(bulk_run)
                    finally:
                        # Left early: by a second Ctrl-C, or an error of the input.
                        await self._take_all(bulk_run)
            finally:
                self.stopped_by = bulk_run.summary.stopped_by
                await self._undo(client)
        if self._failure is not None:
            raise self._failure

    def summary(self) -> str:
        """Return the outcomes in a line."""
        kinds = ", ".join(
            f"{number:,} {kind.replace('_', ' ')}" for kind, number in self.totals.items() if number
        )
        rows = counted(self.totals.total(), self._noun)
        if not self._at_end:
            rows = f"The first {rows.removeprefix('1 ')}"
        said = f"{rows}: {kinds}." if kinds else f"No {self._noun}s."
        if self._run is not None and (now := self._run.summary).attempts:
            # Of a row that was not attempted, no attempt got as far as to send anything.
            to_connect = (+self._progress.kinds).keys() == {"not_attempted"}
            earlier = self._sink.history.attempts
            attempts = f"{counted(earlier + now.attempts, 'attempt')}"
            attempts += " to connect" if to_connect else ""
            attempts += f", {now.attempts:,} of them in this run," if earlier else ""
            said += f" {attempts} in {duration(now.elapsed)}."
        if self.stopped_by is not None:
            said += f"\nStopped: {without_secrets(str(self.stopped_by))}"
        return said

    @property
    def exit_code(self) -> int:
        """The exit code for the outcomes of all rows."""
        if self.interrupted_by is not None:
            return after_signal(self.interrupted_by)
        if self.stopped_by is not None and exit_code(self.stopped_by) == AUTHENTICATION:
            return AUTHENTICATION
        return 0 if (+self.totals).keys() <= {self._done} else PARTIAL

    @property
    def unfinished(self) -> bool:
        """True if a run that resumes this one has rows to send, as far as this one knows."""
        return (
            self.interrupted_by is not None
            or self.stopped_by is not None
            or (self._sent == self._limit and not self._at_end)
            or self.totals["not_attempted"] > 0
        )

    @property
    def rejected(self) -> int:
        """The number of rows to correct. 0: the run ended early for another reason."""
        # An error that --resume sends rows again after rejected some as well.
        status = getattr(self.stopped_by, "status_code", None)
        sent_again = self.stopped_by is not None and (status is None or status in NOT_OF_THE_ROW)
        return 0 if self.interrupted_by or sent_again else self.totals["rejected"]

    # Rows -----------------------------------------------------------------------------------------

    async def _rows(self) -> AsyncIterator[V]:
        """Yield the rows to send, each after its intent was written."""
        source = self._source
        while not self._at_end:
            if self._sent == self._limit and source.waits:
                return  # not waiting for a row that may never come
            data = await source.read()
            for row in source.rows.feed(data) if data else source.rows.end():
                if self._sent == self._limit or self._failure is not None:
                    return
                if self._is_to_send(row):
                    self._sink.intent(row)
                    self._pending[self._sent] = row
                    self._sent += 1
                    yield row.value
                elif not row.index % ROWS_PER_TURN:
                    await asyncio.sleep(0)  # there may be a million more: Ctrl-C is heard still
            self._at_end = not data
        known = len(self._sink.history)
        if source.rows.index < known:
            raise InputError(
                f"the input has {source.rows.index:,} rows, and the journal {known:,}: it is another"
            )

    def _is_to_send(self, row: Row[V]) -> bool:
        """Return True if a row is to be sent, or write its outcome."""
        state = self._sink.history.state(row.index)
        if state is not None:
            sends = self._again.includes(state)
            # A row that was refused has to be corrected before it is sent again.
            if not (self._sink.history.is_of(row) or (sends and state is State.REJECTED)):
                raise InputError(
                    f"row {row.index + 1:,}, on line {row.line:,}, is not what it was when the "
                    "journal was written: resume with the same input, options and defaults"
                )
            self.totals[self._kind(state)] -= 1
            if not sends:
                self._leave(row, state)
                return False
        if row.problems:
            self._note(row, _unsent(row, "rejected", ParameterError(row.problems)))
            return False
        return True

    def _leave(self, row: Row[V], state: State) -> None:
        """Skip a row. If an earlier run sent it, its outcome is unknown from now on."""
        if state is State.SENT:
            error = ChatKitError("an earlier run ended before it knew the outcome")
            self._note(row, _unsent(row, "unknown", error, attempts=1))
            return
        self.totals[self._kind(state)] += 1
        self.expired += state is State.EXPIRED

    # Outcomes -------------------------------------------------------------------------------------

    async def _take_all(self, bulk_run: BulkRun[Any, Any]) -> None:
        outcome: Outcome[V, Any]
        async for outcome in bulk_run:
            self._note(self._pending.pop(outcome.index), outcome)

    def _note(self, row: Row[V], outcome: Outcome[V, Any]) -> None:
        self.totals[outcome.kind] += 1
        self._progress.kinds[outcome.kind] += 1
        if outcome.error is not None and outcome.kind != "not_attempted":
            self._show(row, outcome)
        try:
            self._sink.outcome(row, outcome)
        except (click.ClickException, click.exceptions.Exit) as error:
            self._unwritten.append((row, outcome))
            self._failure = self._failure or error
            cast("BulkRun[Any, Any]", self._run).stop()

    def _kind(self, state: State) -> Kind:
        return KIND_OF.get(state, self._done)

    def _show(self, row: Row[V], outcome: Outcome[V, Any]) -> None:
        """Show why a row failed, for the first few."""
        failed = self._progress.kinds["rejected"] + self._progress.kinds["unknown"]
        if failed <= MAX_SHOWN_FAILURES:
            which = f"line {row.line}" if self._noun == "row" else f"{self._noun} {row.value}"
            self._say(f"{which}: {outcome.kind}: {outcome.error}")
        elif failed == MAX_SHOWN_FAILURES + 1:
            self._say("There are more like these: see the outcomes.")

    def _total(self) -> tuple[int, bool] | None:
        """Return the number of rows that the run comes to, and True if it is exact."""
        known = self._source.rows.index if self._at_end else self._source.total
        if self._limit is None:
            return None if known is None else (known, self._at_end)
        limited = self.totals.total() + len(self._pending) + self._limit - self._sent
        return (limited, True) if known is None or limited < known else (known, self._at_end)

    def _under_way(self) -> tuple[int, int]:
        summary = cast("BulkRun[Any, Any]", self._run).summary
        return summary.in_flight, summary.waiting

    async def _undo(self, client: AsyncChatKit) -> None:
        """Try again to write each outcome that was not written, or else cancel its session.

        Nobody would hold the session's secret. To a resumed run the row was sent, and has no
        outcome.
        """
        sessions: dict[str, int] = {}
        for row, outcome in self._unwritten:
            try:
                self._sink.outcome(row, outcome)
            except (click.ClickException, click.exceptions.Exit):
                session_id = getattr(outcome.session, "id", None)
                if outcome.kind == "created" and session_id is not None:
                    sessions[session_id] = row.line
                else:
                    self._say(f"line {row.line}: {outcome.kind}, but this could not be written.")
        if not sessions:
            return
        cancelled = client.sessions.cancel_many(
            list(sessions), max_wait=UNDO_TIMEOUT, max_failures=None, timeout=UNDO_TIMEOUT
        )
        for undone in await cancelled.results():
            self.totals["created"] -= 1
            self.totals["unknown" if undone.session is None else "cancelled"] += 1
            said = f"NOT cancelled: {undone.error}" if undone.session is None else "cancelled"
            self._say(
                f"line {sessions[undone.row]}: {undone.row} was created, but could not be "
                f"written, and was {said}"
            )


def _unsent(row: Row[V], kind: Kind, error: ChatKitError, *, attempts: int = 0) -> Outcome[V, Any]:
    """Return the outcome of a row that this run did not send."""
    return Outcome(
        index=row.index,
        row=row.value,
        kind=kind,
        value=None,
        error=error,
        attempts=attempts,
        lost=attempts,
        elapsed=0.0,
    )


async def flushed(sync: Callable[[], None]) -> None:
    """Flush to disk from time to time, in a thread: a disk can take its time."""
    while True:
        await asyncio.sleep(SYNC_INTERVAL)
        await asyncio.to_thread(sync)


@asynccontextmanager
async def beside(*works: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Run coroutines in the background of the block."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
