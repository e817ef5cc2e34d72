"""How a bulk run goes, on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import pytest
import virtual

from chatkit_async.cli._progress import LIVE, PLAIN, Progress, duration


class Run:
    """A run that goes as a test says."""

    def __init__(self):
        self.now = 0.0
        self.read = None
        self.rows = (0, 0)
        self.progress = Progress(lambda: self.read, lambda: self.rows, clock=lambda: self.now)

    def after(self, seconds, created, read=None):
        self.now += seconds
        self.progress.kinds["created"] += created
        self.read = read
        return self.progress.text()


def test_it_says_what_came_of_the_rows_and_what_is_going_on():
    run = Run()
    run.rows = (64, 3)
    run.progress.kinds["rejected"] = 10
    run.progress.kinds["not_attempted"] = 1
    run.progress.skipped = 2000
    assert run.after(10, 1190) == (
        "1,201 done, 10 rejected, 1 not attempted, 1,190 created, 2,000 skipped, 64 in flight, "
        "3 waiting for the rate limit, 120/s"
    )


def test_the_rate_is_that_of_the_last_ten_seconds():
    run = Run()
    for _ in range(10):
        run.after(5, 500)
    assert run.after(5, 0).endswith(" 50/s")
    assert run.after(5, 0).endswith(" 0/s")


def test_before_time_passes_there_is_no_rate():
    assert Run().after(0, 5).endswith("5 created, 0 in flight, 0/s")


def test_the_time_left_follows_from_how_fast_the_input_is_read():
    run = Run()
    run.read = 0.0
    assert run.after(1, 1, 0.0).endswith("1/s")
    run = Run()
    run.progress._samples[0] = (0.0, 0, 0.0)
    assert run.after(10, 1, 0.25).endswith("30 s left")
    assert run.after(10, 1, 0.5).endswith("20 s left")
    assert run.after(10, 1, None).endswith("0/s")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59, "59 s"), (61, "1 min"), (3599, "60 min"), (5400, "1.5 h")],
)
def test_a_duration_is_as_people_say_it(seconds, said):
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


def test_where_there_is_no_terminal_there_is_a_line_now_and_then(capsys):
    run = Run()
    shown(run.progress, PLAIN * 2.5)
    assert capsys.readouterr().err == "0 done, 0 in flight, 0/s\n" * 2


def test_on_a_terminal_a_line_is_drawn_over_and_over_and_gone_in_the_end(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "11")
    run = Run()
    shown(run.progress, LIVE * 2.5)
    assert capsys.readouterr().err == "\r0 done, 0 \x1b[K" * 2 + "\r\x1b[K"


def test_a_line_makes_way_for_others(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run = Run()
    shown(run.progress, LIVE * 1.5, then=run.progress.clear)
    assert capsys.readouterr().err == "\r0 done, 0 in flight, 0/s\x1b[K\r\x1b[K"


def test_a_program_without_stderr_has_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert Progress(lambda: None, lambda: (0, 0))._interval == PLAIN
