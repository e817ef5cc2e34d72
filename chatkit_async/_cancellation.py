"""Clean-up that runs to its end, even if the task that waits for it is cancelled."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any


async def run_to_end(
    work: Coroutine[Any, Any, object], *, on_cancel: Callable[[], object] | None = None
) -> None:
    """Run work in a task of its own, wait for its end, and only then be cancelled.

    Args:
        work: The clean-up. Only the end of the event loop cancels it.
        on_cancel: Called whenever the waiting task is cancelled, for example to hurry the work.

    Raises:
        asyncio.CancelledError: The waiting task was cancelled meanwhile. Its cause is the error
            that the work raised, if it did.
        BaseException: The error that the work raised.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    with _without_repetition():
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
                if on_cancel is not None:
                    on_cancel()
    if cancelled is None:
        task.result()  # raises the error of the work
        return
    failure = None if task.cancelled() else task.exception()
    try:
        if failure is not None:
            raise cancelled from failure
        raise cancelled
    finally:
        del cancelled, failure  # their tracebacks hold this frame


def _without_repetition() -> AbstractContextManager[object]:
    """Keep anyio from cancelling this task in every turn of the loop.

    A cancelled scope of anyio repeats the cancellation for as long as a task is inside; a shielded
    scope ends that until it is left. Without an import of anyio there is no scope.
    """
    if "anyio" not in sys.modules:
        return nullcontext()
    from anyio import CancelScope  # noqa: PLC0415 - takes 10 ms where nobody has imported it

    return CancelScope(shield=True)
