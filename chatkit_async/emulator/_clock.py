"""The emulator's clock, which a test can move."""

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
    """Return the time, also if a tool such as freezegun has replaced `time.time` since."""
    return time.time()


class Clock:
    """The emulator's time: real time plus an offset, unless it is frozen.

    Every time is in Unix seconds. All methods can be called from any thread.

    Args:
        source: The function that returns the unmoved time. The default is `time.time`, looked up
            at each call, so that freezegun and similar tools work. For virtual time use
            `loop.time`, so that sessions expire with the loop's timers.
    """

    def __init__(self, source: Callable[[], float] = _real_time) -> None:
        self._source = source
        self._offset = 0.0
        self._frozen_at: float | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show the time."""
        return f"<Clock {self.now():.3f}{' frozen' if self.frozen else ''}>"

    @property
    def frozen(self) -> bool:
        """True if the clock stands still."""
        return self._frozen_at is not None

    def now(self) -> float:
        """Return the time in Unix seconds."""
        with self._lock:
            return self._now()

    def set(self, to: float) -> None:
        """Set the time, forwards or backwards. A frozen clock stays frozen.

        Args:
            to: Unix seconds.

        Raises:
            ValueError: It is not a finite number.
        """
        if not math.isfinite(to):
            message = f"the clock must be set to finite Unix seconds, got {to!r}"
            raise ValueError(message)
        with self._lock:
            self._move_to(to)

    def advance(self, by: float | timedelta) -> None:
        """Move the time forwards. A frozen clock stays frozen.

        Args:
            by: Seconds, or a timedelta; zero or more.

        Raises:
            ValueError: It is negative or not finite, or the new time would be. `set` goes
                backwards.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        with self._lock:
            to = self._now() + seconds
            if not (math.isfinite(to) and seconds >= 0):
                message = (
                    f"the clock must advance by 0 seconds or more, got {seconds!r}; "
                    "set() goes backwards"
                )
                raise ValueError(message)
            self._move_to(to)

    def freeze(self) -> None:
        """Stop the clock until `resume`."""
        with self._lock:
            self._frozen_at = self._now()

    def resume(self) -> None:
        """Let the clock run on from the time it shows."""
        with self._lock:
            now, self._frozen_at = self._now(), None
            self._offset = now - self._source()

    def snapshot(self) -> tuple[float, float | None]:
        """Return the offset and the frozen time, for `restore`."""
        with self._lock:
            return self._offset, self._frozen_at

    def restore(self, snapshot: tuple[float, float | None]) -> None:
        """Restore a snapshot: stand still where it stood, or run with its offset."""
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
