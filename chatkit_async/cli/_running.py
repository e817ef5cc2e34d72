"""Running a command's coroutine, and what Ctrl-C does meanwhile."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar, cast

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], *, on_interrupt: Callable[[], bool] = lambda: False) -> T:
    """Run a coroutine as `asyncio.run` does, but without waiting for threads in the end.

    Such as one that looks up a host's name: neither a timeout nor Ctrl-C ends that.

    Args:
        work: The coroutine.
        on_interrupt: Called on the loop at Ctrl-C: whether it saw to it. If not, the work is
            cancelled.

    Raises:
        KeyboardInterrupt: the work was cancelled by Ctrl-C.
    """
    runner = asyncio.Runner()
    try:
        return runner.run(_heeding(work, on_interrupt))
    finally:
        work.close()  # Ctrl-C may have come before its first step
        loop = runner.get_loop()
        loop.run_until_complete(_clear())
        loop.close()


async def _heeding(work: Coroutine[Any, Any, T], on_interrupt: Callable[[], bool]) -> T:
    """Await work until Ctrl-C.

    The runner's own handling leaves a loop asleep that goes to sleep just as the signal comes; a
    handler of the loop's wakes it.
    """
    loop = asyncio.get_running_loop()
    task = cast("asyncio.Task[T]", asyncio.current_task())
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not on_interrupt():
            interrupted = True
            task.cancel()

    # Neither on Windows, nor in a thread, where the runner's own has to do.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        with suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        return await work
    except asyncio.CancelledError:
        if not interrupted:
            raise
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
    raise KeyboardInterrupt


async def _clear() -> None:
    """End what is left on the loop."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.sleep(0)  # transports close their sockets a turn after they were closed
