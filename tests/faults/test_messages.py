"""The documentation's page of messages says what both clients say, for each error of the table."""

from __future__ import annotations

import pickle
import re
from collections import Counter

import pytest
from faults.cell import blocking
from faults.messages import HEAD, PAGE, SECTIONS, as_in_life, errors, rendered
from faults.table import TABLE

pytestmark = pytest.mark.unmeasured


def test_each_error_of_the_table_is_on_the_page_once():
    shown = Counter(name for section in SECTIONS for name in section.faults)
    assert shown == Counter(fault.name for fault in TABLE if fault.raises is not None)


def test_the_page_has_these_sections():
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(HEAD)
    assert re.findall("^## (.+)", page, re.MULTILINE) == [section.title for section in SECTIONS]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_both_clients_say_what_the_page_says(grounds, section):
    ours = list(errors(grounds, section))

    # If this fails: PYTHONPATH=.:tests python -m faults.messages
    assert rendered(section, ours) in PAGE.read_text(encoding="utf-8")
    for one, other in zip(ours, errors(grounds, section, blocking), strict=True):
        assert as_in_life(str(one)) == as_in_life(str(other))
        assert as_in_life(repr(vars(one))) == as_in_life(repr(vars(other)))
        assert as_in_life(str(pickle.loads(pickle.dumps(one)))) == as_in_life(str(one))  # noqa: S301
