"""`emulator`."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket

import pytest

from chatkit_async import AsyncChatKit
from chatkit_async.cli._emulator import assignment


def create(base_url, api_key):
    async def create():
        async with AsyncChatKit(base_url=base_url, api_key=api_key) as client:
            return await client.sessions.create(user="user_123", workflow="wf_123")

    return asyncio.run(create())


def test_it_prints_what_to_set_serves_until_ctrl_c_and_shows_each_request(start):
    process = start("emulator")
    base_url = process.stdout.readline().removeprefix("export OPENAI_BASE_URL=").strip()
    api_key = process.stdout.readline().removeprefix("export OPENAI_API_KEY=").strip()
    session = create(base_url, api_key)
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert rest == ""
    serving, request, empty, interrupted = said.splitlines()
    assert serving == "Serving. Set these in another terminal; Ctrl-C ends it."
    assert re.fullmatch(r"\d\d:\d\d:\d\d POST /v1/chatkit/sessions 200 req_\w+", request)
    assert (empty, interrupted) == ("", "Interrupted.")
    assert session.client_secret not in said


def test_json_is_for_programs_that_start_it(start):
    process = start("emulator", "--json")
    printed = json.loads(process.stdout.readline())
    assert set(printed) == {"base_url", "api_key"}
    assert create(**printed).status == "active"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130


def test_it_serves_on_when_nobody_reads_the_requests(start):
    process = start("emulator", "--json")
    printed = json.loads(process.stdout.readline())
    process.stderr.readline()
    process.stderr.close()
    for _ in range(3):
        assert create(**printed).status == "active"
    process.send_signal(signal.SIGINT)
    process.wait(timeout=10)


@pytest.fixture
def taken():
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken_is_told(invoke, taken):
    result = invoke("emulator", "--port", str(taken))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: port {taken} cannot be had: ")
    assert "leave --port out" in result.stderr


def test_a_port_that_cannot_be_is_wrong_usage(invoke):
    assert invoke("emulator", "--port", "70000").exit_code == 2


def test_what_to_set_is_in_the_language_of_the_platforms_shell():
    assert assignment("NAME", "value", "linux") == "export NAME=value\n"
    assert assignment("NAME", "value", "win32") == '$env:NAME = "value"\n'
