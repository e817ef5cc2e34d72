"""The bridge from a caller's thread to a loop on another: an anyio portal, and calls over it."""

import asyncio
import atexit
import os
import warnings
from collections.abc import Coroutine, Generator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from threading import Lock, Thread, get_ident, main_thread
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

from chatkit_async._transport import Transport
from chatkit_async.errors import ChatKitError, ClientClosedError

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

T = TypeVar("T")

_Started: TypeAlias = "Future[tuple[asyncio.AbstractEventLoop, BlockingPortal]]"

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


class Bridge:
    """From a caller's thread to the loop and back, shared by a client and those made from it.

    When the last of them is gone, so is this. It has a portal for each process: in a forked child
    the parent's has no thread, and its sockets are still the parent's, so it is left alone.
    """

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._name = name
        self._portals: dict[int, Portal] = {}
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop; return what it returns, raise what it raises."""
        return self._portal().run(work)

    @contextmanager
    def enter(self, context: AbstractAsyncContextManager[T]) -> Generator[T]:
        """Enter and leave an asynchronous context manager, one that swallows nothing."""
        value = self.run(context.__aenter__())
        try:
            yield value
        except BaseException as error:
            self.run(context.__aexit__(type(error), error, error.__traceback__))
            raise
        else:
            self.run(context.__aexit__(None, None, None))

    def close(self) -> None:
        """End the portal of this process, and wait for its thread."""
        self._portal().close()
        self._closed = True  # in processes yet to be forked, too

    def has_ended(self) -> bool:
        """Whether it was closed. If so, nothing runs on its loop any more."""
        portal = self._portal()
        if portal.closed:
            portal.close()  # by another thread, maybe, and just now
        return portal.closed

    def _portal(self) -> "Portal":
        # Not under a lock: in a forked child, a thread that is no more could be holding it.
        pid = os.getpid()
        return self._portals.get(pid) or self._portals.setdefault(
            pid, Portal(self._transport, self._name, closed=self._closed)
        )

    def __del__(self) -> None:
        if (portal := self._portals.get(os.getpid())) is not None:
            portal.drop()


class Portal:
    """An anyio portal on a thread of this process, started on first use.

    Not by `start_blocking_portal`: its context manager joins the thread when it is finalized, and
    so hangs at exit, in a forked child, and when the garbage collector runs in that very thread.
    """

    def __init__(self, transport: Transport, name: str, *, closed: bool) -> None:
        # Not the client: `atexit` and the thread hold this, and a dropped client has to be noticed.
        self._transport = transport
        self._name = name
        self._pid = os.getpid()
        self._lock = Lock()
        self._started: _Started | None = None
        self._thread: Thread | None = None
        # The ids of its threads: a start that was interrupted leaves one to end.
        self._serving: set[int] = set()
        self._calls: set[BlockingCall[Any]] = set()
        self._closed = closed

    # For callers

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """See `Bridge.run`."""
        call = BlockingCall(work)
        try:
            self._send(call)
            call.wait()
        except BaseException:  # such as Ctrl-C, or what a signal handler raises
            call.give_up()
            raise
        finally:
            self._calls.discard(call)
        error, call.error = call.error, None
        if error is None:
            return cast("T", call.result)
        try:
            if self._closed and isinstance(error, asyncio.CancelledError):
                raise ClientClosedError
            raise error
        finally:
            del error  # its traceback holds this frame

    def _send(self, call: "BlockingCall[Any]") -> None:
        self._refuse_own_thread()
        loop, _ = (self._started or self._start()).result()
        if self._closed:
            raise ClientClosedError
        call.loop = loop
        self._calls.add(call)
        try:
            # The call runs in a copy of this thread's context: tracing depends on it.
            loop.call_soon_threadsafe(self._begin, call)
        except RuntimeError:  # the loop was closed just now
            call.drop()

    def _refuse_own_thread(self) -> None:
        if get_ident() in self._serving:
            raise _OwnLoopError(
                "this client was used in the thread that serves it, by a key callable or "
                "on_attempt: it would wait for itself for ever; use another client there"
            )

    def _start(self) -> "_Started":
        with self._lock:
            if self._closed:
                raise ClientClosedError
            if self._started is not None:
                return self._started
            started: _Started = Future()
            thread = Thread(target=self._serve, args=[started], name="chatkit-async", daemon=True)
            try:
                thread.start()
            except BaseException:  # such as Ctrl-C: it may run all the same
                if not started.cancel():
                    started.add_done_callback(_end_loop)
                raise
            self._started, self._thread = started, thread
            atexit.register(self._at_exit)
        return started

    # On its thread

    def _serve(self, started: "_Started") -> None:
        if not started.set_running_or_notify_cancel():
            return
        try:
            import anyio  # noqa: PLC0415 - 30 ms that only programs that block have to pay

            anyio.run(self._until_stopped, started)
        except BaseException as error:
            if not started.done():
                with self._lock:
                    self._started = None  # the next call tries anew
                started.set_exception(error)
            # As the interpreter ends, asyncio cannot start the thread that ends its executor.
            elif main_thread().is_alive():
                raise
        finally:
            self._serving.discard(get_ident())  # another thread may get it
            ended = started.result()[0] if started.exception() is None else None
            for call in [call for call in tuple(self._calls) if call.loop is ended]:
                call.drop()

    async def _until_stopped(self, started: "_Started") -> None:
        from anyio.from_thread import BlockingPortal  # noqa: PLC0415 - as above

        async with BlockingPortal() as portal:
            self._serving.add(get_ident())
            started.set_result((asyncio.get_running_loop(), portal))
            await portal.sleep_until_stopped()
            if self._closed:  # else a start was interrupted, and another thread may serve
                await self._transport.close()

    def _begin(self, call: "BlockingCall[Any]") -> None:
        if self._closed:
            call.drop()
        else:
            call.begin()

    # Its end

    @property
    def closed(self) -> bool:
        """Whether its loop has ended, or is about to."""
        return self._closed

    def close(self) -> None:
        """End the calls and the loop, and wait for the thread."""
        self._refuse_own_thread()
        with self._lock:
            self._end()
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(SLICE)

    def drop(self) -> None:
        """End the loop without waiting: the garbage collector may run in its thread."""
        if self._started is not None and not self._closed:
            self._end()
            warnings.warn(f"unclosed client {self._name}", ResourceWarning, stacklevel=3)

    def _at_exit(self) -> None:
        if self._pid == os.getpid() and self._thread is not None:
            self._end()
            self._thread.join(EXIT_PATIENCE)
            warnings.warn(f"unclosed client {self._name}", ResourceWarning, stacklevel=1)

    def _end(self) -> None:
        self._closed = True
        atexit.unregister(self._at_exit)
        if self._started is not None:
            self._started.add_done_callback(_end_loop)


class BlockingCall(Generic[T]):
    """A coroutine that a caller in another thread waits for."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        # Released once. A concurrent.futures.Future takes 8 µs a call more.
        self._under_way = Lock()
        self._under_way.acquire()

    # For its caller

    def wait(self) -> None:
        """Wait for the call to end."""
        while not self._under_way.acquire(timeout=SLICE):
            pass

    def give_up(self) -> None:
        """Cancel the call, and wait a little for it to end: its connection is free then."""
        if self.loop is None:
            self.drop()  # it was never sent
            return
        with suppress(RuntimeError):  # the loop was closed just now
            self.loop.call_soon_threadsafe(self._cancel)
            self._under_way.acquire(timeout=CANCEL_PATIENCE)

    # On the loop

    def begin(self) -> None:
        self._task = asyncio.create_task(self._run())

    def drop(self) -> None:
        """End the call if it has not begun."""
        self._work.close()
        self._end(asyncio.CancelledError())

    async def _run(self) -> None:
        try:
            self.result = await self._work
        except BaseException as error:  # noqa: BLE001 - its caller's; SystemExit would end the loop
            self._end(error)
        else:
            self._end(None)

    def _cancel(self) -> None:
        if self._task is None:
            self.drop()
        else:
            # Next time round: a task that is cancelled before its first step never takes it.
            asyncio.get_running_loop().call_soon(self._task.cancel)

    def _end(self, error: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            self.error = error
            self._under_way.release()


def _end_loop(started: "_Started") -> None:
    if not started.exception():
        loop, portal = started.result()
        with suppress(RuntimeError):  # it has stopped already
            loop.call_soon_threadsafe(lambda: loop.create_task(portal.stop()))
