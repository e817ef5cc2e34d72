"""How a bulk run goes, on stderr: on a terminal a line that is redrawn, elsewhere one now and then."""

import asyncio
import shutil
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TextIO, cast

from chatkit_async.cli._output import printable_lines, write

LIVE = 0.2
"""Seconds between two drawings of the live line."""

PLAIN = 5.0
"""Seconds between two plain lines."""

WINDOW = 10.0
"""Seconds over which a rate is taken."""

_MINUTE = 60
_HOUR = 3600


class Progress:
    """Counts what happens, and shows it while it runs.

    Attributes:
        kinds: How many rows came to what.
        skipped: How many rows were left as they are.

    Args:
        share: How much of the input is under way or done, 0 to 1; None: there is no telling.
        under_way: How many rows are in flight, and how many of them wait for the rate gate.
        clock: Seconds.
    """

    def __init__(
        self,
        share: Callable[[], float | None],
        under_way: Callable[[], tuple[int, int]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A program can be started without it.
        stream = cast("TextIO | None", sys.stderr)
        self.kinds: Counter[str] = Counter()
        self.skipped = 0
        self._share = share
        self._under_way = under_way
        self._live = stream is not None and stream.isatty()
        self._clock = clock
        self._interval = LIVE if self._live else PLAIN
        self._samples: deque[tuple[float, int, float | None]] = deque(
            [(clock(), 0, share())], maxlen=int(WINDOW / self._interval) + 1
        )
        self._drawn = False

    async def show(self) -> None:
        """Show it until cancelled, and leave no line half drawn."""
        try:
            while True:
                await asyncio.sleep(self._interval)
                self._draw(self.text())
        finally:
            self.clear()

    def clear(self) -> None:
        """Make way for another line."""
        if self._drawn:
            write("\r\x1b[K", err=True)
            self._drawn = False

    def text(self) -> str:
        """How it goes."""
        now, done, share = self._clock(), self.kinds.total(), self._share()
        self._samples.append((now, done, share))
        then, done_then, share_then = self._samples[0]
        elapsed = now - then
        rate = (done - done_then) / elapsed if elapsed > 0 else 0.0
        said = [f"{done:,} done"]
        said += [f"{number:,} {kind.replace('_', ' ')}" for kind, number in self.kinds.items()]
        if self.skipped:
            said.append(f"{self.skipped:,} skipped")
        in_flight, waiting = self._under_way()
        said.append(f"{in_flight:,} in flight")
        if waiting:
            said.append(f"{waiting:,} waiting for the rate limit")
        said.append(f"{rate:,.0f}/s")
        if share is not None and share_then is not None and share > share_then:
            said.append(f"{duration((1 - share) * elapsed / (share - share_then))} left")
        return ", ".join(said)

    def _draw(self, text: str) -> None:
        if self._live:
            columns = shutil.get_terminal_size().columns
            write(f"\r{printable_lines(text)[: columns - 1]}\x1b[K", err=True)
            self._drawn = True
        else:
            write(f"{printable_lines(text)}\n", err=True)


def duration(seconds: float) -> str:
    """Seconds, as people say them."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"
