"""A thread with an event loop, which runs coroutines for blocking callers in other threads.

anyio starts the loop, hosts the coroutine that keeps it running, and stops it: it cancels the tasks
that are left, waits for their end, and closes the loop's asynchronous generators and executor.

Calls do not cross by anyio's `BlockingPortal`. It has a caller wait for a `concurrent.futures.Future`,
and an exception from a signal handler, such as Ctrl-C, can leave the lock of that Future locked: then
the loop's thread, which has to set it, hangs, and every other call with it.
"""

import asyncio
import atexit
import contextvars
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, cast
from weakref import WeakSet, ref

from chatkit_async._fork import leave_to_parent, start_over_in_child
from chatkit_async._resolver import start_thread
from chatkit_async._transport import Transport
from chatkit_async.errors import ChatKitError, ClientClosedError

P = ParamSpec("P")
T = TypeVar("T")

CANCEL_PATIENCE = 2.0
"""Seconds that a caller who gives up waits at most for its call to end on the loop."""

EXIT_PATIENCE = 0.5
"""Seconds that the end of the process waits at most for a client that was not closed."""

SLICE = 0.1 if os.name == "nt" else 1.0
"""Seconds of a wait at a time, after which Python looks for a Ctrl-C.

Windows does not interrupt a lock for it. Elsewhere a signal does, unless it came just before the
wait, or was no signal: `_thread.interrupt_main`, as debuggers and editors use it.
"""


class _OwnLoopError(ChatKitError, RuntimeError):
    """A call was made in the very thread that would have to serve it."""


class LoopThread:
    """A thread with an event loop, shared by a client and the clients made from it.

    The thread starts with the first call. The hand-over of a call has three steps: its caller
    appends it to `_waiting`; wakes the loop, or starts a thread if there is none; and waits for the
    call's own lock, which the loop's thread releases when the call has ended.

    An exception may be raised at any bytecode of a caller, by a signal handler. So callers hold no
    lock and no Future that others need; what they change, they change in one step; and a thread
    takes the role of the loop's host on its own. If several callers start a thread at a time,
    one hosts the loop, and the others end.

    The thread refers to this object weakly, so that a client that is dropped is noticed. `threading`
    is looked up at use, because gevent may replace its contents after the import.

    Attributes:
        closed: True if no call is accepted any more.
    """

    # For `__del__`, if the constructor is interrupted.
    _loop: asyncio.AbstractEventLoop | None = None
    closed: bool = False

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._name = name
        self._reset()
        _loop_threads.add(self)
        start_over_in_child(self)

    def _reset(self) -> None:
        self._waiting = deque[_Call[Any]]()  # calls that have not begun
        self._begun = set[_Call[Any]]()  # used by the loop's thread only
        self._host_role = (
            threading.Lock()
        )  # taken by the thread that hosts the loop, never waited for
        self._thread: threading.Thread | None = None
        self._loop = None  # None: calls have to start a thread
        self._stop: Callable[[], object] | None = None

    def after_fork(self) -> None:
        """In a forked child, start over: the thread runs in the parent only."""
        leave_to_parent(self._loop, self._stop, self._begun)
        self._reset()

    # For callers

    def run(
        self, method: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a coroutine function on the loop, and return its result.

        It is called on the loop too, so that no caller is left with a coroutine that never ran.

        Raises:
            ClientClosedError: the client is closed, or was closed meanwhile.
        """
        self._refuse_own_thread()
        if self.closed:
            raise ClientClosedError
        call = _Call(partial(method, *args, **kwargs))
        del args, kwargs  # headers may be credentials, and what is raised holds this frame
        try:
            self._waiting.append(call)
            self._wake()
            while not call.in_progress.acquire(timeout=SLICE):
                pass
        except BaseException:  # such as Ctrl-C, or what a signal handler raises
            call.given_up = True
            self._give_up(call)
            raise
        error, call.error = call.error, None
        if error is None:
            return cast("T", call.result)
        try:
            if self.closed and isinstance(error, asyncio.CancelledError):
                raise ClientClosedError
            raise error
        finally:
            del error  # its traceback holds this frame

    @contextmanager
    def enter(self, context: AbstractAsyncContextManager[T]) -> Generator[T]:
        """Enter and leave an asynchronous context manager, one that swallows nothing."""
        entered: list[T] = []  # changed on the loop: an interrupted caller leaves what was entered

        async def enter() -> None:
            entered.append(await context.__aenter__())

        async def leave(
            exc_type: type[BaseException] | None,
            exc: BaseException | None,
            traceback: TracebackType | None,
        ) -> None:
            entered.clear()
            await context.__aexit__(exc_type, exc, traceback)

        try:
            self.run(enter)
            yield entered[0]
            self.run(leave, None, None, None)
        except BaseException as error:
            if entered:
                self.run(leave, type(error), error, error.__traceback__)
            raise

    def _wake(self) -> None:
        """Have the calls that wait begin. Start a thread, if none hosts the loop."""
        if (loop := self._loop) is not None:
            _call_soon(loop, self._begin_calls)
            return
        start_thread(_serve_calls, ref(self), self._transport, name="chatkit-async")

    def _give_up(self, call: "_Call[Any]") -> None:
        """Cancel a call, and wait a little for it to end: its connection is free then."""
        # Without a loop, it has not begun, and will not.
        if (loop := self._loop) is not None and not call.ended:
            _call_soon(loop, call.cancel)
            call.in_progress.acquire(timeout=CANCEL_PATIENCE)

    def _refuse_own_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise _OwnLoopError(
                "this client cannot be used by its own key callable or on_attempt: use another one"
            )

    # On the thread

    def take_host_role(self) -> bool:
        """Return True if calls wait, and no other thread hosts the loop: then the caller has to."""
        if not self._waiting or not self._host_role.acquire(blocking=False):
            return False
        self._thread = threading.current_thread()
        return True

    def serve_until(self, stop: Callable[[], object]) -> None:
        """Begin calls on the running loop, until `stop` is called on it."""
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._begin_calls()
        if self.closed:
            stop()

    def end_serving(self, failure: BaseException | None) -> bool:
        """End the calls that are left, as the loop has ended. Return True if there were any."""
        self._loop = self._stop = None
        left = [*self._begun, *self._taken()]
        for call in left:
            call.end(failure or asyncio.CancelledError())
        self._begun.clear()
        self._host_role.release()
        return bool(left)

    def _begin_calls(self) -> None:
        for call in self._taken():
            if self.closed:
                call.end(ClientClosedError())
            elif not call.given_up:
                self._begun.add(call)
                call.task = asyncio.create_task(self._run(call), context=call.context)

    def _taken(self) -> "Generator[_Call[Any]]":
        while self._waiting:
            yield self._waiting.popleft()

    async def _run(self, call: "_Call[Any]") -> None:
        try:
            call.result = await call.start()
        except BaseException as error:  # noqa: BLE001 - its caller's; SystemExit would end the loop
            call.end(error)
        else:
            call.end(None)
        self._begun.discard(call)

    # The end

    def close(self) -> None:
        """End the calls and the loop, and wait for the thread."""
        self._refuse_own_thread()
        self.closed = True
        try:
            self._end_loop()
            while self._thread is not None and self._thread.is_alive():
                self._thread.join(SLICE)
        except BaseException:
            self._end_loop()  # it may have been interrupted before
            raise

    def has_ended(self) -> bool:
        """Return True if it was closed. Then nothing runs on its loop any more."""
        if self.closed:
            self.close()  # by another thread, maybe, and just now
        return self.closed

    def end_at_exit(self) -> None:
        """End the loop as the process ends, if the client was not closed."""
        if self._loop is not None and self._thread is not None and not self.closed:
            self.closed = True
            self._end_loop()
            self._thread.join(EXIT_PATIENCE)
            warnings.warn(f"unclosed client {self._name}", ResourceWarning, stacklevel=1)

    def _end_loop(self) -> None:
        if self._loop is not None and self._stop is not None:
            _call_soon(self._loop, self._stop)

    def __del__(self) -> None:
        # It must not wait: the garbage collector may run in the loop's thread.
        unclosed = self._loop is not None and not self.closed
        self._end_loop()
        if unclosed:
            warnings.warn(f"unclosed client {self._name}", ResourceWarning, stacklevel=2)


class _Call(Generic[T]):
    """A call of a coroutine function, and what came of it."""

    def __init__(self, start: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.start = start
        self.context = contextvars.copy_context()  # the caller's: tracing depends on it
        self.task: asyncio.Task[None] | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self.given_up = False
        self.ended = False
        # Released once. A concurrent.futures.Future takes 8 µs a call more.
        self.in_progress = threading.Lock()
        self.in_progress.acquire()

    def end(self, error: BaseException | None) -> None:
        if not self.ended:
            self.error = error
            self.ended = True
            self.in_progress.release()

    def cancel(self) -> None:
        if self.task is None:
            self.end(None)  # given up before it began
        else:
            # Next time round: a task that is cancelled before its first step never takes it.
            asyncio.get_running_loop().call_soon(self.task.cancel)


def _serve_calls(owner: "ref[LoopThread]", transport: Transport) -> None:
    """Serve a `LoopThread`, unless another thread does: what its threads run."""
    while (this := owner()) is not None and this.take_host_role():
        failure: BaseException | None = None
        must_serve = not this.closed
        del this
        if must_serve:
            try:
                import anyio  # noqa: PLC0415 - 30 ms that only programs that block have to pay

                anyio.run(_serve, owner, transport)
            except BaseException as error:  # noqa: BLE001 - raised below
                failure = error
        was_told = (this := owner()) is not None and this.end_serving(failure)
        del this
        # While the interpreter ends, asyncio fails to start the thread that stops its executor.
        if failure is not None and not was_told and threading.main_thread().is_alive():
            raise failure


async def _serve(owner: "ref[LoopThread]", transport: Transport) -> None:
    stopped = asyncio.Event()
    if (this := owner()) is not None:
        this.serve_until(stopped.set)
        del this
        await stopped.wait()
        await transport.close()


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Have the loop call a function, unless the loop was closed just now."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise  # such as a RecursionError


_loop_threads = WeakSet[LoopThread]()


def _at_exit() -> None:
    for loop_thread in tuple(_loop_threads):
        loop_thread.end_at_exit()


atexit.register(_at_exit)
