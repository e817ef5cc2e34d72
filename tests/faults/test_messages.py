"""The documentation's page of messages says what the client says, for each error of the table."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest
from faults.cell import EVERY_ATTEMPT, asynchronous, blocking
from faults.messages import PAGE, SECTIONS, as_in_life, rendered
from faults.table import TABLE

FAILING = [fault for fault in TABLE if fault.raises is not None]

pytestmark = pytest.mark.unmeasured


def test_each_error_of_the_table_is_on_the_page_once():
    shown = Counter(name for section in SECTIONS for name in section.faults)
    assert shown == Counter(fault.name for fault in FAILING)


def test_the_page_is_current(grounds):
    # If this fails: PYTHONPATH=.:tests python -m faults.messages
    assert PAGE.read_text(encoding="utf-8") == rendered(grounds)


@pytest.mark.parametrize("fault", FAILING, ids=lambda fault: fault.name)
def test_both_clients_say_and_carry_the_same(meeting, fault):
    errors = []
    for call in (asynchronous, blocking):
        with meeting(fault, EVERY_ATTEMPT) as cell:
            errors.append(call(cell, "create").error)

    one, other = errors
    assert as_in_life(str(one)) == as_in_life(str(other))
    assert as_in_life(repr(vars(one))) == as_in_life(repr(vars(other)))
    assert as_in_life(str(pickle.loads(pickle.dumps(one)))) == as_in_life(str(one))  # noqa: S301
