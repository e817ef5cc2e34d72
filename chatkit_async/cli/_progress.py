"""The progress of a run, on stderr: a bar on a terminal, elsewhere a line from time to time."""

import asyncio
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TextIO, cast

from chatkit_async.cli._output import columns, console, write

BAR_INTERVAL = 0.2
"""Seconds between two drawings of the bar."""

LINE_INTERVAL = 5.0
"""Seconds between two lines."""

RATE_WINDOW = 10.0
"""Seconds over which the rate is measured."""

MIN_BAR_WIDTH, MAX_BAR_WIDTH = 10, 40

FAILURES = ("rejected", "unknown", "not_attempted")

_MINUTE = 60
_HOUR = 3600


class Progress:
    """Counts outcomes, and shows them while a run goes on.

    Attributes:
        kinds: The number of outcomes of this run, by kind.
        noun: The plural of what is counted.

    Args:
        totals: The number of outcomes by kind, those of earlier runs included.
        total: Returns the number of rows, and True if it is exact; None: it is unknown.
        under_way: Returns how many rows are in flight, and how many wait for the rate gate.
        quiet: Show nothing.
        clock: Returns seconds.
    """

    def __init__(
        self,
        totals: Counter[str],
        total: Callable[[], tuple[int, bool] | None],
        under_way: Callable[[], tuple[int, int]],
        *,
        noun: str = "rows",
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A program can be started without it.
        stream = cast("TextIO | None", sys.stderr)
        self.kinds: Counter[str] = Counter()
        self.noun = noun
        self._totals = totals
        self._total = total
        self._under_way = under_way
        self._quiet = quiet
        self._has_bar = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
        self._clock = clock
        self._interval = BAR_INTERVAL if self._has_bar else LINE_INTERVAL
        self._samples: deque[tuple[float, int]] = deque(
            [(clock(), 0)], maxlen=int(RATE_WINDOW / self._interval) + 1
        )
        self._drawn = False

    async def show(self) -> None:
        """Show the progress until cancelled, and leave no bar behind."""
        try:
            while not self._quiet:
                await asyncio.sleep(self._interval)
                if self._has_bar:
                    write(f"\r{self._bar()}\x1b[K", err=True)
                    self._drawn = True
                else:
                    write(f"{self.text()}\n", err=True)
        finally:
            self.clear()

    def clear(self) -> None:
        """Make way for another line."""
        if self._drawn:
            write("\r\x1b[K", err=True)
            self._drawn = False

    def text(self, width: float = float("inf")) -> str:
        """Return the numbers as text, without the least important if the width is too small."""
        now, sent = self._clock(), self.kinds.total()
        self._samples.append((now, sent))
        then, sent_then = self._samples[0]
        rate = (sent - sent_then) / (now - then) if now > then else 0.0
        done, total = self._totals.total(), self._total()
        in_flight, waiting = self._under_way()
        failed = sum(self._totals[kind] for kind in FAILURES)
        succeeded = [kind for kind in self._totals if kind not in FAILURES]
        parts = [(5, f"{self._totals[kind]:,} {kind}") for kind in succeeded]
        parts += [(2, f"{failed:,} failed")] if failed else []
        parts += [(7, f"{in_flight:,} in flight")]
        parts += [(6, f"{waiting:,} waiting for the rate limit")] if waiting else []
        parts += [(4, f"{rate:,.0f}/s")]
        if total is None:
            parts.insert(0, (1, f"{done:,} {self.noun}"))
        else:
            rows, about = max(total[0], done), "" if total[1] else "~"
            percent = 100 * done // rows if rows else 100
            parts[:0] = [(1, f"{done:,}/{about}{rows:,} {self.noun}"), (3, f"{percent}%")]
            parts += [(0, f"{duration((rows - done) / rate)} left")] if rate else []
        # Each part has its importance: 0 is kept longest.
        while len(said := ", ".join(text for _, text in parts)) > width:
            parts.remove(max(parts))
        return said

    def _bar(self) -> str:
        from rich.progress_bar import ProgressBar  # noqa: PLC0415 - late, as it takes 50 ms

        width = columns(sys.stderr) - 1
        text, total = self.text(width), self._total()
        room = min(width - len(text) - 1, MAX_BAR_WIDTH)
        if total is None or room < MIN_BAR_WIDTH:
            return text
        terminal = console(sys.stderr)
        with terminal.capture() as capture:
            bar = ProgressBar(total[0], self._totals.total(), room, complete_style="green")
            terminal.print(bar, end="")
        return f"{capture.get():{room}} {text}"


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"
