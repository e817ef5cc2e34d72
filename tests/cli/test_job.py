"""Jobs at moments that a whole run seldom reaches."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import click
import pytest

from chatkit_async.cli import _job


def test_signal_before_the_work_cancels_it():
    assert not _job.Interruptible.interrupt(SimpleNamespace(_stop=None), signal.SIGINT)


@pytest.mark.parametrize("total", [None, 20])
def test_total_without_a_limit_is_the_inputs(total):
    source = SimpleNamespace(total=total)
    job = SimpleNamespace(_source=source, _limit=None, _at_end=False)
    assert _job.Job._total(job) == (total and (total, False))


def test_outcome_after_a_failed_one_is_not_printed(monkeypatch):
    def refuse(record):
        written.append(record)
        raise click.exceptions.Exit(1)

    written = []
    monkeypatch.setattr(_job, "write_json", refuse)
    monkeypatch.setattr(_job, "outcome_record", lambda row, outcome, *, show_secret: outcome)
    printed = _job.Printed(show_secret=False)
    for outcome in ("first", "second"):
        with pytest.raises(click.exceptions.Exit):
            printed.outcome(None, outcome)
    assert written == ["first"]
