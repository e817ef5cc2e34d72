"""`python -m chatkit_async`, and what `chatkit-async` runs."""

from __future__ import annotations

import functools
import re
import runpy
import signal
import subprocess
import sys
from importlib.metadata import requires

import pytest
from patience import PATIENCE

from chatkit_async import __main__, __version__
from chatkit_async.cli._running import ENDING_SIGNALS


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_in_one_sentence_what_to_install(monkeypatch, capsys, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    assert __main__.main() == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "The command line needs click and rich: run `python -m pip install click rich`.\n"
    )


def test_needed_packages_are_those_of_the_extra():
    extra = [each for each in requires("chatkit-async") if "extra ==" in each and "cli" in each]

    assert sorted(re.match(r"\w+", each)[0] for each in extra) == sorted(__main__.NEEDED)


@pytest.mark.unmeasured
def test_a_console_that_cannot_show_a_character_shows_its_code(emulator, environment):
    environment.setenv("PYTHONIOENCODING", "latin-1")
    command = [sys.executable, "-m", "chatkit_async", "create", "--user=Łucja", "--workflow=wf_1"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "user           \\u0141ucja\n" in done.stdout


@pytest.fixture
def exits(monkeypatch):
    codes = []
    monkeypatch.setattr("os._exit", codes.append)
    return codes


def test_package_runs_as_a_module(monkeypatch, capsys, exits, handlers):
    monkeypatch.setattr(sys, "argv", ["chatkit-async", "--version"])
    with pytest.raises(SystemExit):
        runpy.run_path(__main__.__file__, run_name="__main__")
    assert exits == [0]
    assert capsys.readouterr().out == f"chatkit-async, version {__version__}\n"


@pytest.fixture
def handlers():
    """Put the handlers of signals back."""
    handlers = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    yield handlers
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_signal_before_a_command_sets_the_exit_code(monkeypatch, exits, handlers, number):
    monkeypatch.setattr("chatkit_async.cli.commands", lambda: signal.raise_signal(number))
    __main__.main()
    assert exits == [128 + number]


def test_ignored_signal_ends_nothing(monkeypatch, exits, handlers):
    signal.signal(ENDING_SIGNALS[-1], signal.SIG_IGN)
    monkeypatch.setattr(
        "chatkit_async.cli.commands", lambda: signal.raise_signal(ENDING_SIGNALS[-1])
    )
    __main__.main()
    assert exits == [0]


@pytest.mark.parametrize(("ends_with", "code"), [(0, 0), (4, 4), (130, 130), ("odd", 1)])
def test_the_exit_code_is_the_commands(monkeypatch, exits, ends_with, code):
    monkeypatch.setattr("chatkit_async.cli.commands", lambda: sys.exit(ends_with))
    __main__.main()
    assert exits == [code]


@pytest.mark.unmeasured
def test_wrong_usage_is_told(start):
    process = start("create")
    assert "Missing option '--user'" in process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["create", "--user", "u", "--workflow", "w"],
            r"cksess_\w+ was created, and expires on its own.\n",
        ),
        (["bulk", "create", __file__, "--format", "csv"], ""),  # nothing was read
    ],
)
@pytest.mark.usefixtures("emulator")
def test_closed_stdout_is_an_error(monkeypatch, capsys, exits, arguments, said):
    monkeypatch.setattr(sys, "argv", ["chatkit-async", *arguments])
    monkeypatch.setattr(sys, "stdout", None)
    __main__.main()
    assert exits == [1]
    said += "Error: standard output is closed\n"
    assert re.fullmatch(said, capsys.readouterr().err)


@pytest.mark.unmeasured
def test_ctrl_c_ends_a_call_and_leaves_no_traceback(start, emulator):
    emulator.fail(delay=float("inf"))
    process = start("create", "--user", "u", "--workflow", "wf_1")
    emulator.wait_until(lambda: len(emulator.requests) == 1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE) == ("", "\nInterrupted.\n")
    assert process.returncode == 130
    emulator.wait_until(lambda: emulator.requests[0].outcome == "client_gone")
    assert emulator.requests.total == 1


LOOKING_UP_FOREVER = """
import socket, threading
from chatkit_async.__main__ import main
def never(*args, **kwargs):
    print("looking up", flush=True)
    threading.Event().wait()
socket.getaddrinfo = never
main()
"""


@pytest.fixture
def start_without_names(start, environment):
    """Start a command on a machine where looking up a name takes for ever."""
    environment.setenv("OPENAI_API_KEY", "sk-123")
    return functools.partial(start, program=["-c", LOOKING_UP_FOREVER])


@pytest.mark.unmeasured
def test_ctrl_c_does_not_wait_for_a_name_to_be_looked_up(start_without_names):
    process = start_without_names("create", "--user=u", "--workflow=w")
    assert process.stdout.readline() == "looking up\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE) == ("", "\nInterrupted.\n")
    assert process.returncode == 130


@pytest.mark.unmeasured
def test_a_timeout_does_not_wait_for_a_name_to_be_looked_up(start_without_names):
    process = start_without_names("doctor", "--timeout=0.1")
    shown, _ = process.communicate(timeout=PATIENCE)
    assert "api.openai.com was not found: no answer in time" in shown
    assert process.returncode == 1


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "arguments",
    [
        ["demo"],
        ["create", "--user=u", "--workflow=w", "--json"],
        ["--help"],
        ["bulk", "create", "--help"],
        ["doctor"],
    ],
)
def test_a_reader_that_has_gone_ends_it_quietly(start, emulator, arguments):
    process = start(*arguments)
    process.stdout.close()
    process.wait(timeout=PATIENCE)
    assert process.returncode == 1
    assert not re.search("Traceback|Error", process.stderr.read())
