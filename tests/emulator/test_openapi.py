"""The emulator against `openapi.json`, which says of the five paths what the API's schema says.

It says more of the replies: every field is there, none is added, and errors have a shape. It was
written for this test; schemathesis makes requests from it, good and bad, and looks at the replies.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conversation import CONVERSATION
from patience import PATIENCE

from chatkit_async.emulator import Emulator

pytestmark = pytest.mark.unmeasured

DOCUMENT = Path(__file__).with_name("openapi.json")


@pytest.fixture
def schemathesis(tmp_path):
    """Run schemathesis against an emulator: returns its exit code and what it says.

    In a process of its own, by its command line, so that neither its plugin nor its warnings are
    part of these tests. The same requests every time, whatever the machine is busy with.
    """

    def schemathesis(emulator, *options):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", str(DOCUMENT)),
                *("--url", emulator.base_url),
                *("--header", f"Authorization: Bearer {emulator.api_key}"),
                "--generation-deterministic",  # and without a database of what was tried before
                *("--suppress-health-check", "all", "--request-timeout", str(PATIENCE)),
                *options,
            ],
            cwd=tmp_path,  # it leaves a cache
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout

    return schemathesis


@pytest.mark.sweep(every=3)
@pytest.mark.parametrize("examples", ["1", "3", "10"])
def test_schemathesis_finds_nothing(schemathesis, examples):
    # Any string is a valid cursor to the schema: one that is not found may not be an error.
    with Emulator(api_keys=[], ledger_size=100_000, deleted_cursor="ignore") as emulator:
        for number in range(200):
            emulator.add_thread(user=f"user_{number}", items=CONVERSATION)
        exit_code, said = schemathesis(emulator, "--max-examples", examples)

        assert exit_code == 0, said
        assert "No issues found" in said
        answered = {(record.operation, record.status) for record in emulator.requests}

    for operation in ("create", "cancel"):
        assert {(operation, status) for status in (200, 400, 401, 405)} <= answered
    for operation in ("list_threads", "list_items"):
        assert {(operation, status) for status in (200, 400, 401, 405)} <= answered
    for operation in ("retrieve_thread", "delete_thread"):
        assert {(operation, status) for status in (200, 400, 401, 404)} <= answered
    assert {("cancel", 404), ("list_items", 404), ("retrieve_thread", 405)} <= answered


@pytest.mark.sweep(every=0)  # it takes 4 s of CPU time
def test_schemathesis_finds_what_does_not_fit(schemathesis):
    with Emulator(api_keys=[], off_schema=True) as emulator:
        once = ("--phases", "fuzzing", "--max-examples", "1", "--max-failures", "1", "--no-shrink")
        exit_code, said = schemathesis(emulator, *once)

    assert exit_code == 1
    assert "Response violates schema" in said
