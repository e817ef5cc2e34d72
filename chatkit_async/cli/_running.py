"""Running a command's coroutine, and ending it on a signal."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar, cast

from chatkit_async._exit_codes import after_signal

T = TypeVar("T")

ENDING_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""Ctrl-C, the stop of a container or a service, and a closed terminal; Windows has no SIGHUP."""


def run(
    work: Coroutine[Any, Any, T],
    *,
    on_interrupt: Callable[[signal.Signals], bool] = lambda _: False,
) -> T:
    """Run a coroutine as `asyncio.run` does, but do not wait for threads at the end.

    A thread that looks up a host's name, for example, ends neither by a timeout nor by a signal.

    Args:
        work: The coroutine.
        on_interrupt: Called on the loop with each signal that ends programs. If it returns
            False, the work is cancelled.

    Raises:
        KeyboardInterrupt: the work was cancelled by Ctrl-C.
        SystemExit: the work was cancelled by another signal.
    """
    runner = asyncio.Runner()
    try:
        return runner.run(_heeding(work, on_interrupt))
    finally:
        work.close()  # Ctrl-C may have come before its first step
        loop = runner.get_loop()
        loop.run_until_complete(_clear())
        loop.close()


async def _heeding(
    work: Coroutine[Any, Any, T], on_interrupt: Callable[[signal.Signals], bool]
) -> T:
    """Await work until a signal ends it.

    The runner's own handling leaves a loop asleep that goes to sleep just as the signal comes. A
    handler of the loop wakes it. The first process of a container needs one for SIGTERM, which the
    kernel ignores there by default. What ignores a signal, as under nohup, keeps ignoring it.
    """
    loop = asyncio.get_running_loop()
    task = cast("asyncio.Task[T]", asyncio.current_task())
    cancelled_by: signal.Signals | None = None

    def interrupt(number: signal.Signals) -> None:
        nonlocal cancelled_by
        if not on_interrupt(number):
            cancelled_by = number
            task.cancel()

    previous = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    heeded = [number for number, handler in previous.items() if handler is not signal.SIG_IGN]
    # Neither on Windows, nor in a thread, where the runner's own has to do.
    with suppress(NotImplementedError, RuntimeError):
        for number in heeded:
            loop.add_signal_handler(number, interrupt, number)
    try:
        return await work
    except asyncio.CancelledError:
        if cancelled_by is None:
            raise
    finally:
        for number in heeded:
            with suppress(NotImplementedError):
                if loop.remove_signal_handler(number):
                    signal.signal(number, previous[number])
    if cancelled_by is signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(after_signal(cancelled_by))


async def _clear() -> None:
    """End what is left on the loop."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.sleep(0)  # transports close their sockets a turn after they were closed
