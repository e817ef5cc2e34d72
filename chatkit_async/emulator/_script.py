"""The script of an emulator: the faults that wait for requests."""

from __future__ import annotations

import threading
from random import Random
from typing import TYPE_CHECKING

from attrs import define

from chatkit_async.emulator._faults import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chatkit_async.emulator._request import Request


@define(eq=False)
class ScriptedFault:
    """A fault that waits for requests."""

    number: int
    fault: Fault
    fitting: int = 0
    """Requests that the fault was for; every n-th of them meets it."""
    met: int = 0
    """Requests that have met it."""


class FaultScript:
    """The scripted faults, tried in the order they were added. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset(0, ())

    def reset(self, seed: int, faults: Iterable[Fault]) -> None:
        """Start again with a seed and the faults of the start."""
        with self._lock:
            self._random = Random(f"faults {seed}")  # noqa: S311 - repeatable on purpose
            self._lines = [ScriptedFault(*each) for each in enumerate(faults, 1)]
            self._added = len(self._lines)

    def lines(self) -> tuple[ScriptedFault, ...]:
        """Return the faults that are left."""
        with self._lock:
            return tuple(self._lines)

    def add(self, fault: Fault) -> ScriptedFault:
        """Add a fault at the end."""
        with self._lock:
            self._added += 1
            line = ScriptedFault(self._added, fault)
            self._lines.append(line)
            return line

    def clear(self, number: int | None = None) -> None:
        """Remove one fault, or all of them."""
        with self._lock:
            self._lines = [line for line in self._lines if number not in (None, line.number)]

    def take(self, request: Request, user: str | None) -> Fault | None:
        """Return the fault that a request of a user meets, if there is one."""
        if not self._lines:  # the usual case, without the lock
            return None
        taken: Fault | None = None
        with self._lock:
            for line in self._lines.copy():
                fault = line.fault
                if not fault.fits(request, user):
                    continue
                line.fitting += 1  # also if the request meets another fault
                if taken is None and line.fitting % fault.every == 0 and self.strikes(fault):
                    taken = fault
                    line.met += 1
                    if line.met == fault.times:
                        self._lines.remove(line)
        return taken

    def strikes(self, fault: Fault) -> bool:
        """Return True if a fault happens, by its chance.

        Nothing is drawn for a certain fault, so that it does not change when the others happen.
        """
        return fault.chance == 1 or self._random.random() < fault.chance
