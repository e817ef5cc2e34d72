"""Each fault, met by each method of each client, ends as the table says, and shows no secret."""

from __future__ import annotations

import warnings

import pytest
from faults.cell import EVERY_ATTEMPT, KEY, asynchronous, blocking, expected
from faults.hunter import Hunter, Log
from faults.table import TABLE
from servers import SESSION

from chatkit_async import ChatSession

pytestmark = pytest.mark.unmeasured

EXTENTS = {"first attempt": 1, "first two": 2, "every attempt": EVERY_ATTEMPT}

hunter = Hunter(KEY, SESSION["client_secret"])


@pytest.mark.sweep(every=11)
@pytest.mark.parametrize("times", EXTENTS.values(), ids=EXTENTS)
@pytest.mark.parametrize("call", [asynchronous, blocking], ids=["async", "sync"])
@pytest.mark.parametrize("method", ["create", "cancel"])
@pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)
def test_a_fault_ends_as_the_table_says(meeting, fault, method, call, times):
    with (
        Log() as log,
        warnings.catch_warnings(record=True) as warned,
        meeting(fault, times) as cell,
    ):
        done = call(cell, method)

    assert done.outcome == expected(fault, times)
    assert isinstance(done.result, ChatSession) == (done.error is None)
    assert hunter.hunt(*filter(None, [done.error]), *done.attempts) == []
    assert hunter.found(repr(done.result)) == []
    assert hunter.hunt(log.text) == []
    assert "chatkit_async" in log.text
    assert [str(warning.message) for warning in warned] == []
