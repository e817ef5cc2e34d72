"""An export that is killed or interrupted at each line, and resumed."""

from __future__ import annotations

import os

import pytest
from exports import add_threads, exported, held

from chatkit_async.emulator import Emulator

LINES = 7  # four short threads, and three lines of the long one
MOMENTS = [
    f"{when}_{line}" for line in range(1, LINES + 1) for when in ("before", "during", "after")
]

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.unmeasured,
]


@pytest.fixture(scope="module")
def crowd():
    """An emulator for many runs, which read alone."""
    with Emulator() as emulator:
        add_threads(emulator)
        yield emulator


@pytest.fixture
def killed(forks, crowd, tmp_path):
    """Export in a process that receives signals at moments; returns its exit code."""

    def killed(*options, **at):
        command = ["threads", "export", "-o", str(tmp_path / "export.jsonl"), *options]
        return forks(*command, output=tmp_path / "printed", emulator=crowd, at=at)

    return killed


@pytest.mark.sweep(every=9)
@pytest.mark.parametrize("again", [None, "during_2"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_line_it_resumes(killed, crowd, tmp_path, moment, again):
    path = tmp_path / "export.jsonl"
    assert killed(**{moment: ["SIGKILL"]}) == -9
    if again is not None:
        killed("--resume", **{again: ["SIGKILL"]})
    assert killed("--resume") == 0
    assert exported(path) == held(crowd)


@pytest.mark.sweep(every=5)
@pytest.mark.parametrize("line", range(1, LINES + 1))
def test_signal_leaves_whole_threads(killed, crowd, tmp_path, line):
    path = tmp_path / "export.jsonl"
    name, code = [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)][line % 3]
    assert killed("--concurrency=1", **{f"before_{line}": [name]}) == code
    threads = exported(path)
    assert threads
    assert line > 1 or len(threads) < 5
    assert threads == held(crowd, *threads)
    printed = (tmp_path / "printed").read_text("utf-8")
    assert f"Interrupted by {name}: finishing the threads in flight." in printed
    assert killed("--resume") == 0
    assert exported(path) == held(crowd)


def test_second_interrupt_stops_in_a_long_thread(killed, crowd, tmp_path):
    assert killed("--user=ada", before_2=["SIGINT"], after_2=["SIGINT"]) == 130
    assert "cthr_2" not in exported(tmp_path / "export.jsonl")
