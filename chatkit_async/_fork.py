"""Clients after a fork: in the child, their parts start over.

A fork copies the memory, but none of the threads, and so no event loop runs in the child. The child
shares the parent's descriptors: connections, and the selectors of its loops. What belongs to the
parent is left to it: the child neither uses it nor finalizes it, because that could take a
connection from a selector that the parent still waits on.
"""

import os
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class Part(Protocol):
    """A part of a client that a child cannot take over."""

    def after_fork(self) -> None:
        """In a forked child, start over."""
        ...


_parts = WeakSet[Part]()

_parents: list[object] = []


def start_over_in_child(*parts: Part) -> None:
    """Have parts start over in any child that is forked from now on."""
    _parts.update(parts)


def leave_to_parent(*belongings: object) -> None:
    """In a child, keep what belongs to the parent from being finalized."""
    _parents.extend(belongings)


def _after_fork() -> None:
    for part in tuple(_parts):
        part.after_fork()


with suppress(AttributeError):  # Windows does not fork
    os.register_at_fork(after_in_child=_after_fork)
