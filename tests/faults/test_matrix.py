"""Each fault, met by each method of each client, ends as the table says."""

from __future__ import annotations

import pytest
from faults.cell import EVERY_ATTEMPT, asynchronous, blocking, expected
from faults.table import TABLE

EXTENTS = {"first attempt": 1, "first two": 2, "every attempt": EVERY_ATTEMPT}


@pytest.mark.parametrize("times", EXTENTS.values(), ids=EXTENTS)
@pytest.mark.parametrize("call", [asynchronous, blocking], ids=["async", "sync"])
@pytest.mark.parametrize("method", ["create", "cancel"])
@pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)
def test_a_fault_ends_as_the_table_says(meeting, fault, method, call, times):
    with meeting(fault, times) as cell:
        done = call(cell, method)

    assert done.outcome == expected(fault, times)
