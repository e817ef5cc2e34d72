"""The documentation's page of messages says what the client says, for each error of the table."""

from __future__ import annotations

from collections import Counter

from faults.messages import PAGE, SECTIONS, rendered
from faults.table import TABLE


def test_each_error_of_the_table_is_on_the_page_once():
    shown = Counter(name for section in SECTIONS for name in section.faults)
    assert shown == Counter(fault.name for fault in TABLE if fault.raises is not None)


def test_the_page_is_current(grounds):
    # If this fails: PYTHONPATH=.:tests python -m faults.messages
    assert PAGE.read_text(encoding="utf-8") == rendered(grounds)
