"""The group: its help, its completion, and what it does not import."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import chatkit_async
from chatkit_async import cli
from chatkit_async.emulator import Emulator


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_help_begins_with_what_a_newcomer_wants(invoke, option):
    shown = invoke(option).stdout
    assert shown.index("chatkit-async demo") < shown.index("Commands:")
    listed = shown.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed[:7]] == [
        "demo",
        "create",
        "cancel",
        "bulk",
        "threads",
        "emulator",
        "doctor",
    ]


def test_the_help_states_the_exit_codes_and_the_environment(invoke):
    shown = invoke("--help").stdout
    for line in (
        "0  done",
        "1  failed",
        "2  wrong usage, or an input with problems",
        "3  some rows of a bulk run, or some threads, failed",
        "4  no key, or the API refused it",
        "129, 130, 143  ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM",
        "OPENAI_API_KEY     the key",
        'eval "$(_CHATKIT_ASYNC_COMPLETE=bash_source chatkit-async)"',
    ):
        assert f" {line}\n" in shown


def every_command(command=cli.commands, path=()):
    """The arguments that lead to each command, those of groups first."""
    yield list(path)
    for name, each in getattr(command, "commands", {}).items():
        yield from every_command(each, (*path, name))


COMMANDS = list(every_command())
PROGRAMS = [path for path in COMMANDS if [*path] not in [each[:-1] for each in COMMANDS if each]]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_fits_80_columns_and_takes_no_key(invoke, path):
    shown = invoke(*path, "--help").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "--api-key" not in shown
    local = path not in PROGRAMS or path in (["demo"], ["emulator"], ["bulk", "status"])
    assert local or "\n  --base-url URL " in shown


@pytest.mark.parametrize("path", PROGRAMS, ids=" ".join)
def test_help_has_one_example_that_runs(invoke, environment, monkeypatch, tmp_path, path):
    monkeypatch.chdir(tmp_path)
    Path("users.csv").write_text("user\nada\n")
    state = [
        {"session": {"id": "cksess_123", "user": "ada", "workflow": {"id": "wf_123"}}},
        {"thread": {"id": "cthr_123", "user": "ada"}},
    ]
    Path("state.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in state))
    monkeypatch.setattr("chatkit_async.cli._emulator.run", lambda serving: serving.close())
    shown = invoke(*path, "--help").stdout
    (example,) = re.findall(r"^    chatkit-async (.*)$", shown, re.MULTILINE)
    arguments = shlex.split(example)
    assert arguments[: len(path)] == path
    with Emulator(state="state.jsonl") as emulator:
        environment.setenv("OPENAI_BASE_URL", emulator.base_url)
        environment.setenv("OPENAI_API_KEY", emulator.api_key)
        if path[0] == "bulk" and path != ["bulk", "create"]:
            invoke("bulk", "create", "users.csv", "--workflow", "wf_123", "-o", "out.jsonl")
        result = invoke(*arguments)
    assert result.exit_code == 0, result.output


def test_an_unknown_command_is_wrong_usage(invoke):
    result = invoke("make")
    assert result.exit_code == 2
    assert "No such command 'make'" in result.stderr


def test_the_shell_completes_commands(invoke):
    environment = {
        "_CHATKIT_ASYNC_COMPLETE": "zsh_complete",
        "COMP_WORDS": "chatkit-async d",
        "COMP_CWORD": "1",
    }
    completed = invoke(prog_name="chatkit-async", env=environment).stdout
    assert completed.splitlines()[1::3] == ["demo", "doctor"]


@pytest.mark.unmeasured
def test_starting_imports_neither_rich_nor_the_emulator():
    script = (
        "import sys, chatkit_async.cli\n"
        "heavy = {'rich', 'chatkit_async.emulator', 'aiohttp.web', 'ssl_context'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert shown.stdout.strip() == b"[]"


@pytest.mark.unmeasured
def test_nothing_else_in_the_package_imports_click_or_rich():
    package = Path(chatkit_async.__file__).parent
    for path in package.rglob("*.py"):
        if path.parent.name == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & {"click", "rich"}, path
