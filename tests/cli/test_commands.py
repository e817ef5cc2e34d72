"""The group: its help, its completion, and what it does not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import chatkit_async


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


def test_the_help_fits_a_terminal_of_80_columns(invoke):
    for command in (
        [],
        ["demo"],
        ["create"],
        ["cancel"],
        ["bulk"],
        ["threads"],
        ["threads", "list"],
        ["threads", "show"],
        ["threads", "export"],
        ["emulator"],
        ["doctor"],
    ):
        shown = invoke(*command, "--help").stdout
        assert max(map(len, shown.splitlines())) <= 80


def test_no_option_takes_the_key(invoke):
    for command in ("demo", "create", "cancel", "emulator", "doctor"):
        assert "--api-key" not in invoke(command, "--help").stdout


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
