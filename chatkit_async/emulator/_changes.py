"""The changes of an emulator that a test can wait for."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Changes:
    """Wakes those who wait for a change, in the serving loop or in another thread.

    An exception from a signal handler, such as Ctrl-C, can be raised at any bytecode of a thread
    that waits. So it shares no lock or condition with the serving loop: one that stays locked would
    stop the emulator.
    """

    def __init__(self) -> None:
        self._wakers: list[Callable[[], object]] = []

    def announce(self) -> None:
        """Wake all that wait, to look again. Called in the serving loop."""
        for wake in tuple(self._wakers):
            wake()

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait in the serving loop until the predicate is true."""
        changed = asyncio.Event()
        with self._woken_by(changed.set):
            while not predicate():
                await changed.wait()
                changed.clear()

    def wait_until(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait in another thread. Return False if the predicate is not true in time."""
        changes: SimpleQueue[None] = SimpleQueue()
        deadline = time.monotonic() + timeout
        with self._woken_by(partial(changes.put, None)):
            while not predicate():
                try:
                    changes.get(timeout=max(0.0, deadline - time.monotonic()))
                except Empty:
                    return predicate()
        return True

    @contextmanager
    def _woken_by(self, wake: Callable[[], object]) -> Generator[None]:
        self._wakers.append(wake)
        try:
            yield
        finally:
            self._wakers.remove(wake)
