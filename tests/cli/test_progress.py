"""The progress of a run, on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter

import pytest
import virtual

from chatkit_async.cli._progress import BAR_INTERVAL, LINE_INTERVAL, Progress, duration


class Run:
    """A run that goes as a test says."""

    def __init__(self, total=None, in_flight=0, waiting=0, quiet=False, **totals):
        self.now = 0.0
        self.total = total
        self.totals = Counter({"created": 0, **totals})
        self.progress = Progress(
            self.totals,
            lambda: self.total,
            lambda: (in_flight, waiting),
            quiet=quiet,
            clock=lambda: self.now,
        )

    def after(self, seconds, created, width=1000):
        self.now += seconds
        self.progress.kinds["created"] += created
        self.totals["created"] += created
        return self.progress.text(width)


LONGEST = (
    "1,200/~3,000 rows, 40%, 1,190 created, 10 failed, 64 in flight, 3 waiting for the rate limit, "
    "30/s, 1 min left"
)


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (110, LONGEST),
        (109, LONGEST.replace(" 64 in flight,", "")),
        (80, "1,200/~3,000 rows, 40%, 1,190 created, 10 failed, 30/s, 1 min left"),
        (60, "1,200/~3,000 rows, 40%, 10 failed, 30/s, 1 min left"),
        (40, "1,200/~3,000 rows, 10 failed, 1 min left"),
        (39, "1,200/~3,000 rows, 1 min left"),
        (20, "1 min left"),
        (0, ""),
    ],
)
def test_time_left_stays_on_narrow_terminals(width, said):
    # 890 were created by an earlier run: the rate is that of this one.
    run = Run((3000, False), 64, 3, created=890, rejected=4, unknown=5, not_attempted=1)
    assert run.after(10, 300, width) == said


@pytest.mark.parametrize(
    ("total", "said"),
    [
        (None, "5 rows, 5 created, 0 in flight, 1/s"),
        ((20, True), "5/20 rows, 25%, 5 created, 0 in flight, 1/s, 15 s left"),
        ((3, False), "5/~5 rows, 100%, 5 created, 0 in flight, 1/s, 0 s left"),
    ],
)
def test_total_may_be_unknown_or_too_low(total, said):
    assert Run(total).after(5, 5) == said


def test_rate_is_that_of_the_last_ten_seconds():
    run = Run((0, True))
    assert run.after(0, 0) == "0/0 rows, 100%, 0 created, 0 in flight, 0/s"
    for _ in range(10):
        run.after(5, 500)
    assert ", 50/s, " in run.after(5, 0)
    assert run.after(5, 0).endswith(" 0/s")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59, "59 s"), (61, "1 min"), (3599, "60 min"), (5400, "1.5 h")],
)
def test_duration_is_as_people_say_it(seconds, said):
    assert duration(seconds) == said


def shown(progress, seconds, then=lambda: None):
    """Show it for so many seconds."""

    async def main():
        task = asyncio.create_task(progress.show())
        await asyncio.sleep(seconds)
        then()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    virtual.run(main())


LINE = "0 rows, 0 created, 0 in flight, 0/s"


@pytest.mark.parametrize(
    ("variables", "terminal", "expected"),
    [
        ({}, False, (f"{LINE}\n", LINE_INTERVAL)),
        ({"FORCE_COLOR": "1"}, False, (f"{LINE}\n", LINE_INTERVAL)),
        ({"TERM": "dumb"}, True, (f"{LINE}\n", LINE_INTERVAL)),
        ({}, True, (f"\r{LINE}\x1b[K", BAR_INTERVAL)),
        ({"COLUMNS": "12"}, True, ("\r0 rows, 0/s\x1b[K", BAR_INTERVAL)),
    ],
)
def test_lines_and_redrawn_lines(capsys, monkeypatch, variables, terminal, expected):
    for name, value in {"TERM": "xterm", "COLUMNS": "100", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    said, interval = expected
    shown(Run().progress, interval * 2.5)
    assert capsys.readouterr().err == said * 2 + ("\r\x1b[K" if said.startswith("\r") else "")


@pytest.mark.parametrize(
    ("variables", "bar"),
    [
        ({}, "\x1b[32m" + "━" * 20 + "\x1b[0m\x1b[90m╺\x1b[0m\x1b[90m" + "━" * 19 + "\x1b[0m"),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, "━" * 20 + " " * 20),
    ],
)
def test_bar_shows_the_share_of_the_rows(capsys, monkeypatch, variables, bar):
    for name, value in {"TERM": "xterm", "COLUMNS": "100", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run = Run((20, True), created=10)
    shown(run.progress, BAR_INTERVAL * 1.5, then=run.progress.clear)
    text = "10/20 rows, 50%, 10 created, 0 in flight, 0/s"
    assert capsys.readouterr().err == f"\r{bar} {text}\x1b[K\r\x1b[K"


def test_nothing_is_shown_if_quiet(capsys):
    shown(Run(quiet=True).progress, LINE_INTERVAL * 2)
    assert capsys.readouterr().err == ""


def test_program_without_stderr_has_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert Run().progress._interval == LINE_INTERVAL
