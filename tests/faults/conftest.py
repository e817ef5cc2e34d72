"""What every cell of the matrix stands on."""

from __future__ import annotations

import contextlib
import socket

import pytest
from faults.cell import Cell, Grounds


@pytest.fixture(scope="module")
def grounds():
    # Not for the whole session: its thread is to be gone when another module's tests fork.
    grounds = Grounds()
    yield grounds
    grounds.close()


@pytest.fixture
def meeting(grounds, monkeypatch):
    """Makes a cell in which a fault strikes the first `times` attempts."""

    @contextlib.contextmanager
    def meeting(fault, times):
        with Cell(grounds, fault, times) as cell, monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", cell.look_up)
            yield cell
            cell.until_all_is_closed()

    return meeting
