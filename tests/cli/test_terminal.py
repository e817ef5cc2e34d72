"""A bulk run on a terminal."""

from __future__ import annotations

import os

import pytest

pty = pytest.importorskip("pty")

pytestmark = pytest.mark.unmeasured


@pytest.fixture
def on_terminal(forks, emulator, tmp_path):
    """Create sessions on a terminal, after something was typed; returns the code and the screen."""
    source = tmp_path / "rows.jsonl"
    source.write_text('{"user": "ada", "workflow": "wf_1"}\n' * 4)
    master, slave = pty.openpty()
    os.set_blocking(master, False)

    def run(*options, typed=b""):
        os.write(master, typed)
        code = forks(
            *("bulk", "create", str(source), *options), output=os.ttyname(slave), emulator=emulator
        )
        return code, os.read(master, 65536).decode()

    yield run
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize(
    ("options", "typed", "made"),
    [([], b"n\n", 0), ([], b"y\n", 1), (["--no-output"], b"", 1), (["--show-secret"], b"", 1)],
)
def test_run_without_output_asks_on_a_terminal(on_terminal, emulator, options, typed, made):
    code, shown = on_terminal("--limit=1", *options, typed=typed)
    assert len(emulator.sessions) == made, shown
    assert code == (0 if made else 1)
    assert ("Create the sessions anyway?" in shown) == bool(typed)


def test_progress_is_a_bar_on_a_terminal(on_terminal, emulator, tmp_path):
    emulator.latency = 1.0
    code, shown = on_terminal("-o", str(tmp_path / "out.jsonl"))
    assert code == 0, shown
    assert "\r\x1b[90m━" in shown
    assert " 0/4 rows, 0%, 0 created, 4 in flight, 0/s\x1b[K" in shown
    assert shown.endswith("\r\x1b[K4 rows: 4 created. 4 attempts in 1 s.\r\n")
