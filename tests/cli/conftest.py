"""The command line in this process, in one of its own, and an emulator for both."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from chatkit_async.cli import commands
from chatkit_async.emulator import Emulator

PROGRAM = ["-m", "chatkit_async"]
# The lowest click that is allowed mixes them unless it is told not to; later ones never do.
APART = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """An environment in which nothing is set."""
    for name in list(os.environ):
        if name.startswith("OPENAI_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def emulator(environment):
    """An emulator on a thread, which the environment points to."""
    with Emulator() as emulator:
        environment.setenv("OPENAI_BASE_URL", emulator.base_url)
        environment.setenv("OPENAI_API_KEY", emulator.api_key)
        yield emulator


@pytest.fixture
def invoke():
    """Run a command in this process."""

    def invoke(*arguments, **options):
        runner = CliRunner(**APART)
        return runner.invoke(commands, arguments, catch_exceptions=False, **options)

    return invoke


@pytest.fixture
def start(programs):
    """Start a command in a process of its own."""
    started = []
    # Ctrl-C reaches a child only if this process does not ignore it, as one in the background may.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(*arguments, program=PROGRAM, **options):
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = programs.start([*program, *arguments], **{**streams, "text": True, **options})
        started.append(process)
        return process

    yield start
    signal.signal(signal.SIGINT, previous)
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def forks():
    """Run commands in forks of a process that has imported them; returns their exit codes."""
    program = [sys.executable, str(Path(__file__).with_name("forks.py"))]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def run(*arguments, output, emulator, at=None):
            environment = {
                "OPENAI_BASE_URL": emulator.base_url,
                "OPENAI_API_KEY": emulator.api_key,
                "TERM": "xterm",
            }
            run = {"output": str(output), "environment": environment, "at": at or {}}
            process.stdin.write(json.dumps({"arguments": arguments, **run}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()
