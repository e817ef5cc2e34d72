"""Bulk runs: one call for each of many rows, and the outcome of each."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from math import inf
from types import TracebackType
from typing import Generic, Literal, Self, TypeAlias, TypeVar, cast

import attrs

from chatkit_async._attempts import Attempts, Limits
from chatkit_async._checks import Checks, described, mapping_advice, whole_number_problem
from chatkit_async._codec import create_params
from chatkit_async._failures import is_no_connection
from chatkit_async._fanout import Fanout
from chatkit_async._protocol import (
    Call,
    calling_line,
    cancel_session,
    create_session,
    has_latest_version,
    option_problems,
    warn_of_latest_at,
)
from chatkit_async._retry import Verdict, is_out_of_quota, is_push_back
from chatkit_async._settings import Settings
from chatkit_async._transport import Progress, not_picklable, running_loop
from chatkit_async.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AuthenticationError,
    ChatKitError,
    ClientClosedError,
    ConfigurationError,
    ParameterError,
    PermissionDeniedError,
    RateLimitError,
)
from chatkit_async.models import ChatSession, SessionCreateParams
from chatkit_async.models._base import ReplyObject, fields_of
from chatkit_async.options import RequestOptions

__all__ = ["BulkRun", "BulkSummary", "Outcome"]

SuccessKind: TypeAlias = Literal["created", "cancelled", "deleted"]
Kind: TypeAlias = SuccessKind | Literal["rejected", "unknown", "not_attempted"]

CreateRow: TypeAlias = SessionCreateParams | Mapping[str, object] | str
"""A session to create: its parameters, a mapping with the same keys, or a user's id alone."""

CancelRow: TypeAlias = ChatSession | str
"""A session to cancel, or its id."""

RowT = TypeVar("RowT")
CreateRowT = TypeVar("CreateRowT", bound=CreateRow)
CancelRowT = TypeVar("CancelRowT", bound=CancelRow)
RowT_co = TypeVar("RowT_co", covariant=True)
T = TypeVar("T")
ResultT = TypeVar("ResultT", bound=ReplyObject)
ResultT_co = TypeVar("ResultT_co", bound=ReplyObject, covariant=True)


@attrs.frozen(kw_only=True, eq=False)
class Outcome(Generic[RowT_co, ResultT_co]):
    """The outcome of one row of a bulk run.

    Attributes:
        index: The row's place in the input, from 0.
        row: The row as it was given. It is not in the repr.
        kind: `created`, `cancelled` or `deleted`: the call succeeded. `rejected`: the row, or the
            request, was refused; nothing was created, cancelled or deleted. `unknown`: a request
            was sent, its answer never came, and no later attempt succeeded. `not_attempted`:
            nothing was sent for it: the run ended before, or there was no connection.
        value: The result of the call: the session, or the confirmation of a deletion. None: the
            call did not succeed.
        error: Why it did not succeed. None: it did.
        attempts: The number of attempts.
        lost: The number of requests whose answer never came. Each may have created a session
            that nobody holds; it expires on its own.
        elapsed: Seconds from the row's start to its end, waits included.
    """

    index: int
    row: RowT_co = attrs.field(repr=False)
    kind: Kind
    value: ResultT_co | None
    error: ChatKitError | None
    attempts: int
    lost: int
    elapsed: float

    @property
    def session(self) -> ChatSession | None:
        """The session that was created or cancelled: `value`. None: the outcome has no session."""
        return self.value if isinstance(self.value, ChatSession) else None

    def result(self) -> ResultT_co:
        """Return `value`.

        Raises:
            ChatKitError: the call did not succeed. It is `error`.
        """
        if self.value is not None:
            return self.value
        error = self.error or ChatKitError("this outcome holds neither a value nor an error")
        # Without the traceback of the last time it was raised, and what was handled then: rows that
        # were not attempted share an error.
        error.__context__ = None
        raise error.with_traceback(None)


@attrs.frozen(kw_only=True)
class BulkSummary:
    """Progress of a bulk run. `read` is always the sum of all outcome counts and `in_flight`.

    Attributes:
        created: Rows whose session was created.
        cancelled: Rows whose session was cancelled.
        deleted: Rows whose thread was deleted.
        rejected: Rows that were refused.
        unknown: Rows whose request was sent, and its answer never came.
        not_attempted: Rows for which nothing was sent.
        read: Rows that were read.
        in_flight: Rows that were read and have no outcome yet.
        waiting: Those of them that wait for the rate gate, after the API pushed back.
        attempts: Attempts of all rows that have an outcome.
        lost: Requests of theirs whose answer never came.
        elapsed: Seconds since the run's start, up to its end.
        stopped_by: What stopped the run before the end of its rows, as it would have hit every
            row; None: nothing.
    """

    created: int = 0
    cancelled: int = 0
    deleted: int = 0
    rejected: int = 0
    unknown: int = 0
    not_attempted: int = 0
    read: int = 0
    in_flight: int = 0
    waiting: int = 0
    attempts: int = 0
    lost: int = 0
    elapsed: float = 0.0
    stopped_by: ChatKitError | None = None


CONCURRENCY = 64
"""Rows in flight at a time, by default."""

MAX_WAIT = 300.0
"""Seconds that a row waits at the rate gate without progress of its run, by default."""

MAX_FAILURES = 50
"""Rows that fail in the same way before any succeeds and stop their run, by default."""

# The limits of a row ------------------------------------------------------------------------------


class RunEndedError(Exception):
    """A row's turn at the rate gate will not come, because its run has ended."""


class Patience:
    """The bound of the waits at the rate gate in a run: `max_wait` seconds without progress.

    An answer to one row is progress for all. The end of the run ends every wait.

    Attributes:
        timers: The timers of the waits in progress.
        ran_out: True once a row has waited for as long as it may.
    """

    def __init__(self, max_wait: float | None) -> None:
        self.timers: dict[asyncio.Timeout, None] = {}  # in order
        self.ran_out: bool = False
        self._max_wait = max_wait
        self._progress = -inf
        self._over = False
        self._over_for_new = False

    def note_progress(self, now: float) -> None:
        """Note that the API answered, with anything but a push-back."""
        self._progress = now

    def deadline(self, started: float, *, attempts: int) -> float | None:
        """Return when the wait of a row that started then ends without progress. None: never.

        Raises:
            RunEndedError: the run has ended, for a row that has made so many attempts.
        """
        if self._over or (self._over_for_new and not attempts):
            raise RunEndedError
        return None if self._max_wait is None else max(self._progress, started) + self._max_wait

    def end(self, *, for_new: bool = False) -> None:
        """End the waits of every row, or only of those that have made no attempt yet."""
        self._over_for_new = True
        self._over = self._over or not for_new
        for timer in self.timers:
            with suppress(RuntimeError):  # it has ended on its own
                timer.reschedule(asyncio.get_running_loop().time())


class RowLimits(Limits):
    """The limits of a row's call.

    A push-back is not the row's fault: it uses up no retry, and neither that attempt nor the wait
    at the gate counts against the row's `timeout`. The run's patience bounds the wait instead.

    Attributes:
        error: The error of the last attempt that failed.
    """

    __slots__ = ("_patience", "_push_backs", "error")

    gate_limit = "max_wait of its run"
    deadline: float | None

    def __init__(
        self, patience: Patience, settings: Settings, options: RequestOptions, started: float
    ) -> None:
        super().__init__(settings, options, started)
        self.error: APIError | None = None
        self._patience = patience
        self._push_backs = 0

    def gate_deadline(self, attempts: int) -> float | None:
        return self._patience.deadline(self.started, attempts=attempts)

    @contextmanager
    def waiting_at_gate(self, timer: asyncio.Timeout) -> Generator[None]:
        self._patience.timers[timer] = None
        try:
            yield
        finally:
            del self._patience.timers[timer]

    def note_gate_passed(self, waited: float) -> None:
        self._extend(waited)

    def note_gate_timeout(self) -> None:
        self._patience.ran_out = True

    def note_answer(self, now: float) -> None:
        self._patience.note_progress(now)

    def next_wait(
        self,
        error: APIError,
        attempts: int,
        now: float,
        decide: Callable[[APIError, int, int | None, float | None], Verdict],
    ) -> Verdict:
        self.error = error
        if is_push_back(error):
            self._push_backs += 1
            return decide(error, self._push_backs - 1, None, None)
        return super().next_wait(error, attempts - self._push_backs, now, decide)

    def waits_at_gate_alone(self, error: APIError, elapsed: float) -> bool:
        if pushed_back := is_push_back(error):
            self._extend(elapsed)
        return pushed_back

    def _extend(self, seconds: float) -> None:
        if self.deadline is not None:
            self.deadline += seconds


class AlikeFailures:
    """Counts the rows that the API refuses in the same way before any succeeds.

    One row's failure may be its own. When the first rows all fail alike, so will the rest: they
    share a workflow that is not found, a field that is refused, or a server that is broken.
    """

    def __init__(self, limit: int | None, *, done: SuccessKind) -> None:
        self.count: int = 0
        self._limit = limit
        self._done = done
        self._way: object = None

    def note_success(self) -> None:
        """Count no more: the rows do not share a failure."""
        self._limit = None

    def note_failure(self, error: APIStatusError) -> bool:
        """Return True if as many rows in a row as the limit says have failed like this."""
        way = self._way_of(error)
        self.count = self.count + 1 if way == self._way else 1
        self._way = way
        return way is not None and self._limit is not None and self.count >= self._limit

    def _way_of(self, error: APIStatusError) -> object:
        """Return what two failures that are alike share. None: each is its row's own."""
        match error.status_code:
            case HTTPStatus.BAD_REQUEST:
                return error.status_code, error.message
            case HTTPStatus.NOT_FOUND if self._done == "created":
                return error.status_code  # to cancel, each row names a session of its own
            case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return HTTPStatus.INTERNAL_SERVER_ERROR
            case _:
                return None


# A run --------------------------------------------------------------------------------------------


class BulkRun(Generic[RowT, ResultT]):
    """A run over rows: use it with `async with`, and iterate over its outcomes.

    Every row that was read has exactly one outcome. Leaving the block before the end cancels the
    requests in flight, and waits for their end. The outcomes that nobody took are still there to
    iterate over. Without the block a run that is not iterated to its end goes on in the background.

    A failure that would hit every row stops the run: 401, 403, 410, no quota left, an
    invalid key, a closed client, no connection since the row started, a rate gate that stayed
    shut for `max_wait`, or `max_failures` rows that failed in the same way before any succeeded. It
    is not raised: `summary.stopped_by` has it.

    An error from the row iterator, or from a callable of yours, is raised unchanged, after the
    outcomes of all rows that were read.
    """

    def __init__(
        self,
        attempts: Attempts,
        build: Callable[[RowT], Call[ResultT]],
        rows: Iterable[RowT] | AsyncIterable[RowT],
        *,
        name: str,
        done: SuccessKind,
        options: RequestOptions,
        concurrency: int,
        ordered: bool,
        rate: float | None,
        max_wait: float | None,
        max_failures: int | None,
    ) -> None:
        _refuse_bad_arguments(
            name,
            rows,
            options,
            concurrency=concurrency,
            rate=rate,
            max_wait=max_wait,
            max_failures=max_failures,
            capacity=attempts.transport.capacity,
        )
        self._calls = attempts
        self._build = build
        self._done: SuccessKind = done
        self._options = options
        self._patience = Patience(max_wait)
        self._alike = AlikeFailures(max_failures, done=done)
        self._fanout = Fanout(
            self._work,
            self._skip,
            rows,
            concurrency=concurrency,
            ordered=ordered,
            rate=rate,
            now=attempts.seam.now,
            sleep=attempts.seam.sleep,
        )
        self._counts: dict[Kind, int] = dict.fromkeys(
            ("created", "cancelled", "deleted", "rejected", "unknown", "not_attempted"), 0
        )
        self._attempts = 0
        self._lost = 0
        self._started: float | None = None
        self._last_reply = -inf
        self._stopped_by: ChatKitError | None = None
        self._held = deque[Outcome[RowT, ResultT]]()  # by `results`, until it has all of them

    @property
    def summary(self) -> BulkSummary:
        """The progress of the run so far."""
        read, ended = self._fanout.read, self._fanout.ended_at
        elapsed = 0.0
        if self._started is not None:
            elapsed = (self._calls.seam.now() if ended is None else ended) - self._started
        return BulkSummary(
            **self._counts,
            read=read,
            in_flight=read - sum(self._counts.values()),
            waiting=len(self._patience.timers),
            attempts=self._attempts,
            lost=self._lost,
            elapsed=elapsed,
            stopped_by=self._stopped_by,
        )

    def stop(self) -> None:
        """Read no more rows, and finish those in flight.

        The iteration goes on to their outcomes, and ends. A row that waits for the rate gate and
        has sent nothing yet is `not_attempted`. Called in the event loop of the run.
        """
        self._fanout.stop()
        self._patience.end(for_new=True)

    async def results(self) -> list[Outcome[RowT, ResultT]]:
        """Go through all rows, and return the outcomes: of a run that was not entered.

        Raises:
            BaseException: an error from the row iterator, or a callable of yours. The outcomes are
                still there to iterate over, also when this is cancelled.
        """
        async with self:
            while await self._fanout.ready():
                self._held += self._fanout.take()
        outcomes = list(self._held)
        self._held.clear()
        return outcomes

    async def __aenter__(self) -> Self:
        if self._fanout.is_started:
            raise RuntimeError("a bulk run runs once: make another one")
        self._start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._patience.end()
        await self._fanout.close()
        if exc_type is None:
            self._fanout.raise_failure()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[RowT, ResultT]:
        self._start_once()
        if self._held:
            return self._held.popleft()
        while (outcome := self._fanout.take_one()) is None:
            if not await self._fanout.ready():
                raise StopAsyncIteration
        return outcome

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary}>"

    def __reduce__(self) -> str:
        raise not_picklable(type(self))

    def _parts(
        self,
    ) -> tuple[
        Fanout[RowT, Outcome[RowT, ResultT]], Callable[[], None], Callable[[ChatKitError], None]
    ]:
        return self._fanout, self._start_once, self._stop_by

    def _start_once(self) -> None:
        if not self._fanout.is_started:
            self._start()

    def _start(self) -> None:
        running_loop()
        self._started = self._calls.seam.now()
        self._fanout.start()

    # One row

    async def _work(self, index: int, row: RowT) -> Outcome[RowT, ResultT]:
        progress, started = Progress(), self._calls.seam.now()
        limits = RowLimits(self._patience, self._calls.settings, self._options, started)
        error: ChatKitError | None = None
        try:
            await self._calls.make(self._build(row), limits, progress)
            self._check_result(progress)
        except ChatKitError as failure:
            error = failure
        except RunEndedError:
            pass
        except asyncio.CancelledError as failure:
            if not cast("asyncio.Task[object]", asyncio.current_task()).cancelling():
                self._end_with(failure)  # a callable of theirs raised it
        except BaseException as failure:  # noqa: BLE001 - raised to whoever iterates
            self._end_with(failure)
        if error is None and progress.result is None and not progress.in_flight:
            error = limits.error
        ended = self._calls.seam.now()
        if progress.answered:
            self._last_reply = ended
        if progress.result is not None:
            self._alike.note_success()
        elif error is not None:
            self._stop_if_rows_share(error, started)
        return self._conclude(index, row, progress, error, ended - started)

    def _check_result(self, progress: Progress) -> None:
        """Check that a deletion was confirmed: a reply of success may say that it did not happen.

        Raises:
            APIError: it was not. The result is dropped.
        """
        if self._done == "deleted" and getattr(progress.result, "deleted", None) is not True:
            progress.result = None
            raise APIError("the API did not confirm the deletion", attempts=progress.attempts)

    def _skip(self, index: int, row: RowT) -> Outcome[RowT, ResultT]:
        return self._conclude(index, row, Progress(), None, 0.0)

    def _conclude(
        self, index: int, row: RowT, progress: Progress, error: ChatKitError | None, elapsed: float
    ) -> Outcome[RowT, ResultT]:
        """Make the outcome of a row, and count it."""
        kind: Kind
        if progress.result is not None:
            kind, error = self._done, None
        elif progress.lost:
            kind = "unknown"
            error = self._unanswered(progress, elapsed) if error is None else _after_a_loss(error)
        else:
            sent = progress.answered or isinstance(error, ParameterError)
            kind = "rejected" if sent else "not_attempted"
            error = error or self._not_attempted()
        if error is not None:
            # Its frames hold the request; they are nobody's to keep, a million times.
            error.__traceback__ = None
        self._counts[kind] += 1
        self._attempts += progress.attempts
        self._lost += progress.lost
        return Outcome(
            index=index,
            row=row,
            kind=kind,
            value=cast("ResultT | None", progress.result),
            error=error,
            attempts=progress.attempts,
            lost=progress.lost,
            elapsed=elapsed,
        )

    def _not_attempted(self) -> ChatKitError:
        return self._stopped_by or ChatKitError("not attempted: the run ended before")

    def _unanswered(self, progress: Progress, elapsed: float) -> APIConnectionError:
        done = "exist" if self._done == "created" else f"have been {self._done}"
        return APIConnectionError(
            f"the run ended before the answer came; the {_THINGS[self._done]} may {done}",
            attempts=progress.attempts,
            elapsed=elapsed,
        )

    # The end of a run

    def _stop_if_rows_share(self, error: ChatKitError, started: float) -> None:
        """Stop the run if a row's failure is one that the other rows will share."""
        if self._hits_every_row(error, started):
            self._stop_by(error)
        elif isinstance(error, APIStatusError) and self._alike.note_failure(error):
            reason = (
                f"the run stopped because {self._alike.count} rows in a row failed in the same way "
                f"and no {_THINGS[self._done]} was {self._done} (see max_failures)"
            )
            self._stop_by(_retold(error, f"{reason}: {error.message}"))

    def _hits_every_row(self, error: ChatKitError, started: float) -> bool:
        """Return True if any other row would fail in the same way."""
        if is_no_connection(error):
            return self._last_reply < started
        if isinstance(error, APIStatusError) and error.status_code == HTTPStatus.GONE:
            return True
        out_of_quota = isinstance(error, RateLimitError) and is_out_of_quota(error)
        return self._patience.ran_out or out_of_quota or isinstance(error, _NO_ROWS_FAULT)

    def _stop_by(self, error: ChatKitError) -> None:
        """Stop the run and end every wait. The first error is the one that the summary has."""
        if self._stopped_by is None:
            self._stopped_by = error
        self._fanout.stop()
        self._patience.end()

    def _end_with(self, failure: BaseException) -> None:
        self._fanout.stop(failure)
        self._patience.end()


def _after_a_loss(error: ChatKitError) -> ChatKitError:
    """Say why the row of a failure to connect, which sent nothing, is unknown nevertheless."""
    if not isinstance(error, APIConnectionError) or not is_no_connection(error):
        return error
    return _retold(error, f"the answer to an earlier request was lost; then {error.message}")


def _retold(error: APIError, message: str) -> APIError:
    """Return a copy of an error with another message: rows and their run may share the error."""
    # Not copy(): where tblib is at work, as in a worker of Dask's, the two would share their
    # attributes.
    copy = type(error).__new__(type(error), *error.args)
    vars(copy).update(vars(error))
    copy.message = message
    return copy


_THINGS: dict[SuccessKind, str] = {
    "created": "session",
    "cancelled": "session",
    "deleted": "thread",
}

_NO_ROWS_FAULT = (
    AuthenticationError,
    PermissionDeniedError,
    ConfigurationError,
    ClientClosedError,
)

# From rows to calls -------------------------------------------------------------------------------


def creation(
    defaults: Mapping[str, object], options: RequestOptions
) -> Callable[[CreateRow], Call[ChatSession]]:
    """Return the function that makes a row's call. `defaults` are for fields that a row lacks."""
    line = calling_line()

    def build(row: CreateRow) -> Call[ChatSession]:
        nonlocal line
        params = {**defaults, **_own_fields(row)}
        if line is not None and has_latest_version(params.get("workflow")):
            warn_of_latest_at(line)
            line = None  # once is enough
        return create_session(params, options)

    return build


def cancellation(options: RequestOptions) -> Callable[[CancelRow], Call[ChatSession]]:
    """Make the function that makes a row's call."""
    return lambda row: cancel_session(id_of(row, ChatSession, "session_id"), options)


def id_of(row: T | str, cls: type[T], name: str) -> str:
    """Return the id that a row is, or has if it is an object of a class.

    Raises:
        ParameterError: the object has none.
    """
    if not isinstance(row, cls):
        return cast("str", row)  # whatever it is: the call refuses what is no id
    found = getattr(row, "id", None)
    if found is None:
        raise ParameterError([(name, "is missing: the API's reply had none")])
    return cast("str", found)


def _own_fields(row: object) -> dict[str, object]:
    """Return the fields that a row has itself."""
    if isinstance(row, str):
        return {"user": row}
    if isinstance(row, SessionCreateParams):
        fields = fields_of(SessionCreateParams)
        return {name: value for name in fields if (value := getattr(row, name)) is not None}
    if not isinstance(row, Mapping):
        wanted = "must be a SessionCreateParams, a mapping or a user's id"
        raise ParameterError([("params", f"{wanted}, got {described(row)}{mapping_advice(row)}")])
    try:
        return dict(cast("Mapping[str, object]", row))
    except Exception as error:  # noqa: BLE001 - a mapping may be anybody's
        problem = f"cannot be read: it raised {type(error).__name__}"
    raise ParameterError([("params", problem)])


def _refuse_bad_arguments(
    name: str,
    rows: object,
    options: RequestOptions,
    *,
    concurrency: object,
    rate: object,
    max_wait: object,
    max_failures: object,
    capacity: int,
) -> None:
    """Refuse invalid arguments of a run, before a row is read. `name` names its rows.

    Raises:
        ParameterError: with every problem.
        TypeError: there is an option of another name.
    """
    for option in options:
        if option in fields_of(SessionCreateParams):
            hint = f"create_many takes what all rows have as defaults={{{option!r}: ...}}"
            if name == "threads":
                hint = "delete_many takes a list: client.threads.list(user=...)"
            raise TypeError(f"unexpected keyword argument {option!r}; {hint}")
    given = described(rows)
    found = Checks()
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable | AsyncIterable):
        wanted = f"an iterable of {name.replace('_', ' ')}, for example a list"
        found.append((name, f"must be {wanted}; got {given}"))
    if (problem := whole_number_problem(concurrency, least=1)) is not None:
        found.append(("concurrency", problem))
    elif cast("int", concurrency) > capacity:
        wrong = (
            f"must be at most the client's max_connections, {capacity}, got "
            f"{described(concurrency)}: make the client with as many"
        )
        found.append(("concurrency", wrong))
    found.rate("rate", rate)
    found.seconds("max_wait", max_wait, optional=True)
    if max_failures is not None:
        found.whole("max_failures", max_failures, least=1)
    found += option_problems(options)
    if found:
        raise ParameterError(found)


def checked_defaults(defaults: object) -> dict[str, object]:
    """Return what rows are to have that they do not say themselves.

    Raises:
        ParameterError: with every problem of it.
    """
    if defaults is None:
        return {}
    if not isinstance(defaults, Mapping | SessionCreateParams):
        given = f"{described(defaults)}{mapping_advice(defaults)}"
        raise ParameterError([("defaults", f"must be a mapping, got {given}")])
    own = _own_fields(cast("object", defaults))
    try:
        create_params({"user": "-", "workflow": "-", **own})
    except ParameterError as error:
        problems = [(f"defaults.{path}", sentence) for path, sentence in error.problems]
    else:
        return own
    raise ParameterError(problems)


# For the blocking run, which takes the outcomes in another thread -----------------------------------


def parts_of_run(
    run: BulkRun[RowT, ResultT],
) -> tuple[
    Fanout[RowT, Outcome[RowT, ResultT]], Callable[[], None], Callable[[ChatKitError], None]
]:
    """Return the fan-out of a run, and the functions that start the run and stop it by an error.

    It is a function, so that no user of a run meets it.
    """
    return run._parts()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
