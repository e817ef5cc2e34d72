"""The emulator's clock: it tells the time, and a test can move it."""

from __future__ import annotations

import math
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock"]


def _real_time() -> float:
    """Return the time, also where a tool such as freezegun has replaced `time.time` since."""
    return time.time()


class Clock:
    """What the emulator takes for the time: real time plus an offset, until it is frozen.

    Every time is in Unix seconds. All methods can be called from any thread.

    Args:
        source: Where unmoved time comes from. The default is `time.time`, looked up
            at each call, so that freezegun and its like are followed; on virtual time give it
            the loop's own (`loop.time`), so that sessions expire as the loop's timers do.
    """

    def __init__(self, source: Callable[[], float] = _real_time) -> None:
        self._source = source
        self._offset = 0.0
        self._frozen_at: float | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show the time, and whether it stands still."""
        return f"<Clock {self.now():.3f}{' frozen' if self.frozen else ''}>"

    @property
    def frozen(self) -> bool:
        """Whether time stands still."""
        return self._frozen_at is not None

    def now(self) -> float:
        """Return the time in Unix seconds."""
        with self._lock:
            return self._now()

    def set(self, to: float) -> None:
        """Move to a time, forwards or backwards; a frozen clock stays frozen there.

        Args:
            to: Unix seconds.

        Raises:
            ValueError: It is not a finite number.
        """
        if not math.isfinite(to):
            message = f"the clock cannot be set to {to!r}: expected Unix seconds"
            raise ValueError(message)
        with self._lock:
            self._move_to(to)

    def advance(self, by: float | timedelta) -> None:
        """Move forwards; a frozen clock stays frozen at the new time.

        Args:
            by: Seconds, or a timedelta; zero or more.

        Raises:
            ValueError: It is negative or not finite, or ends beyond all numbers. `set` goes
                backwards.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        with self._lock:
            to = self._now() + seconds
            if not (math.isfinite(to) and seconds >= 0):
                message = f"the clock cannot advance by {seconds!r} seconds; set() goes backwards"
                raise ValueError(message)
            self._move_to(to)

    def freeze(self) -> None:
        """Stand still at the present time, until `resume`."""
        with self._lock:
            self._frozen_at = self._now()

    def resume(self) -> None:
        """Run on from the present time; a clock that runs is left as it is."""
        with self._lock:
            now, self._frozen_at = self._now(), None
            self._offset = now - self._source()

    def snapshot(self) -> tuple[float, float | None]:
        """Return what `restore` takes to be as now: how far it was moved, and where it stands."""
        with self._lock:
            return self._offset, self._frozen_at

    def restore(self, snapshot: tuple[float, float | None]) -> None:
        """Be as at a snapshot: stand still where it stood, or run as if never moved since."""
        with self._lock:
            self._offset, self._frozen_at = snapshot

    def _now(self) -> float:
        if self._frozen_at is not None:
            return self._frozen_at
        return self._source() + self._offset

    def _move_to(self, to: float) -> None:
        if self._frozen_at is not None:
            self._frozen_at = to
        else:
            self._offset = to - self._source()
