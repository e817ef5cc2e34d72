"""docs/examples/script.py, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from patience import PATIENCE

pytestmark = pytest.mark.unmeasured


@pytest.fixture
def run(emulator, examples):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, examples / "script.py", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


def test_it_shows_a_session_and_cancels_it(run, emulator):
    done = run("ada", "wf_123")
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first.endswith(" for ada: active")
    assert second.startswith("its secret is good for ")
    assert done.returncode == 0
    assert [session.status for session in emulator.sessions.values()] == ["cancelled"]


def test_without_arguments_it_says_which(run):
    done = run()
    assert done.stderr == "usage: python script.py USER WORKFLOW\n"
    assert done.returncode == 1


def test_what_fails_is_one_line_on_stderr(run, emulator):
    emulator.fail(status=403)
    done = run("ada", "wf_123")
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "403" in done.stderr
    assert done.returncode == 1
