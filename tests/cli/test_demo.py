"""`demo`."""

from __future__ import annotations

import json
import re
from textwrap import indent

import pytest

from chatkit_async.cli._output import Page


@pytest.fixture
def live(emulator):
    """The arguments for the real API, which is the emulator here."""
    return ["demo", "--live", "--workflow", "wf_123"]


def test_the_demo_shows_the_whole_job_without_a_key(invoke):
    result = invoke("demo")
    assert result.exit_code == 0
    assert result.stderr == ""
    shown = result.stdout
    steps = [
        r"1\. A place to try it",
        r"serving at  http://127\.0\.0\.1:\d+/v1",
        r"2\. Create a session",
        r"status    active",
        r"3\. What the browser gets",
        r'\{"client_secret": "\*{10}"\}',
        r"4\. Cancel it",
        r"status  cancelled",
        r"5\. 20 at once",
        r"20 sessions created in \d+\.\d\d seconds, and cancelled again",
        r"What next",
    ]
    assert re.search(".*?".join(steps), shown, re.DOTALL)


def test_the_demo_fits_a_terminal_of_80_columns(invoke):
    assert max(map(len, invoke("demo").stdout.splitlines())) <= 80


def test_the_lines_it_shows_are_python(invoke, monkeypatch):
    blocks = []
    monkeypatch.setattr(Page, "code", lambda page, lines: blocks.append(lines))
    invoke("demo")
    *python, commands = blocks
    assert len(python) == 5
    for block in python:
        compile("async def main():\n" + indent(block, "    "), "demo", "exec")
    assert commands.startswith("chatkit-async doctor")


def test_the_demo_does_not_mind_a_wrong_environment(invoke, environment):
    for name in ("API_KEY", "BASE_URL", "ORG_ID", "PROJECT_ID"):
        environment.setenv(f"OPENAI_{name}", "\x7f")
    environment.setenv("HTTP_PROXY", "socks5://nowhere")
    assert invoke("demo", "--sessions=1").exit_code == 0


def test_the_secret_is_shown_when_asked_for(invoke):
    result = invoke("demo", "--sessions=1", "--show-secret")
    assert re.search(r'\{"client_secret": "ek_\w{60,}="\}', result.stdout)
    assert "Masked" not in result.stdout


def test_json_on_stdout_leaves_the_story_on_stderr(invoke):
    result = invoke("demo", "--json", "--sessions=3")
    told = json.loads(result.stdout)
    assert told["created"]["status"] == "active"
    assert told["created"]["client_secret"] == "**********"
    assert told["cancelled"]["id"] == told["created"]["id"]
    assert told["cancelled"]["status"] == "cancelled"
    assert told["many"]["created"] == told["many"]["cancelled"] == 3
    assert "3 at once" in result.stderr


def test_live_says_first_what_it_creates_and_cancels_all_of_it(invoke, emulator, live):
    result = invoke(*live, "--sessions=4")
    assert result.exit_code == 0
    warned, _, done = result.stdout.partition("2. Create a session")
    warned = " ".join(warned.split())
    assert "creates 5 real sessions of the workflow wf_123" in warned
    assert f"going to {emulator.base_url}" in warned
    assert "status    active" in done
    assert len(emulator.sessions) == 5
    assert {session.status for session in emulator.sessions.values()} == {"cancelled"}
    assert {session.parameters.workflow for session in emulator.sessions.values()} == {"wf_123"}


def test_live_with_json_says_it_on_stderr(invoke, emulator, live):
    result = invoke(*live, "--sessions=1", "--json")
    assert json.loads(result.stdout)["base_url"] == emulator.base_url
    assert "real sessions" in result.stderr


def test_live_needs_a_key(invoke, live, environment):
    environment.delenv("OPENAI_API_KEY")
    result = invoke(*live)
    assert result.exit_code == 4
    assert result.stderr.startswith("Error: OPENAI_API_KEY: is not set")


def test_live_needs_a_workflow(invoke):
    result = invoke("demo", "--live")
    assert result.exit_code == 2
    assert "--live needs --workflow" in result.stderr


def test_a_workflow_is_for_live(invoke):
    result = invoke("demo", "--workflow", "wf_123")
    assert result.exit_code == 2
    assert "--workflow goes with --live" in result.stderr


def test_a_failure_half_way_is_one_paragraph(invoke, emulator, live):
    emulator.fail(operation="cancel", status=400)
    result = invoke(*live)
    assert result.exit_code == 1
    assert "2. Create a session" in result.stdout
    assert result.stderr.startswith("Error: the API replied 400")
    assert result.stderr.count("\n") == 1
