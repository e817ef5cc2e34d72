"""What the emulator keeps and the command line shows: no key, and no client secret unasked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from faults.cell import KEY
from faults.hunter import Hunter, Log
from patience import PATIENCE
from servers import BODY, SESSION

from chatkit_async import AsyncChatKit, ChatKit, ChatKitError
from chatkit_async.cli import commands
from chatkit_async.emulator import Emulator

pytestmark = pytest.mark.unmeasured

CREATE = ("create", "--user", "user_123", "--workflow", "wf_123")
PLAIN_KEY = "sk-proj-Rt5Yh8Kj2Lm6Nb3Vc9Xz4Qw7Er1"  # one that a URL can hold as it is
ECHO = {"error": {"message": f"no: {KEY}", "code": KEY}, "client_secret": SESSION["client_secret"]}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """An environment with nothing but the key."""
    for name in list(os.environ):
        if name.startswith("OPENAI_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return monkeypatch


@pytest.fixture
def emulator(environment):
    with Emulator() as emulator:
        environment.setenv("OPENAI_BASE_URL", emulator.base_url)
        yield emulator


def secrets(emulator):
    """A hunter for the key, and for each client secret the emulator gave out."""
    return Hunter(KEY, *(session.client_secret for session in emulator.sessions.values()))


# The emulator


async def test_the_emulators_ledger_and_log_hold_no_secret():
    log = []
    async with (
        Emulator(on_request=lambda record: log.append(str(record))) as emulator,
        AsyncChatKit(api_key=KEY, base_url=emulator.base_url, max_retries=0) as client,
    ):
        created = await client.sessions.create(user="user_123", workflow="wf_123")
        await client.sessions.cancel(created.id)
        for mistaken_for_an_id in (created.client_secret, "cksess_nobody"):
            with pytest.raises(ChatKitError):
                await client.sessions.cancel(mistaken_for_an_id)
        emulator.fail(status=401)
        with pytest.raises(ChatKitError):
            await client.sessions.create(
                user="user_123", workflow="wf_123", extra_headers={"X-Key": "none"}
            )
        hunter = secrets(emulator)

        assert len(log) == len(emulator.requests) == 5
        assert hunter.hunt(log, [repr(record) for record in emulator.requests]) == []
        assert Hunter(KEY).hunt(list(emulator.requests)) == []
        assert (
            hunter.found(repr(emulator) + repr(emulator.requests) + repr(emulator.sessions)) == []
        )


async def test_the_emulator_logs_no_secret_in_debug_mode():
    asyncio.get_running_loop().set_debug(True)
    with Log() as log:
        async with (
            Emulator() as emulator,
            AsyncChatKit(api_key=KEY, base_url=emulator.base_url, max_retries=0) as client,
        ):
            await client.sessions.create(user="user_123", workflow="wf_123")
            for drop in ("close", "reset"):
                emulator.fail(drop=drop, times=2)  # a connection that was idle is replaced
                with pytest.raises(ChatKitError):
                    await client.sessions.create(user="user_123", workflow="wf_123")
            hunter = secrets(emulator)
    assert log.text
    assert hunter.hunt(log.text) == []


# The command line


def run(*arguments):
    """What a command writes, to both streams."""
    result = CliRunner().invoke(commands, arguments, catch_exceptions=False)
    return result.exit_code, result.stdout_bytes + (result.stderr_bytes or b"")


SUCCEED = {
    "demo": ["demo"],
    "demo as JSON": ["demo", "--json", "--debug"],
    "demo, live": ["demo", "--live", "--workflow", "wf_123", "--debug"],
    "create": [*CREATE],
    "create, debug": [*CREATE, "--debug"],
    "create as JSON": [*CREATE, "--json"],
    "doctor": ["doctor"],
    "doctor as JSON": ["doctor", "--json", "--debug"],
}


@pytest.mark.parametrize("arguments", SUCCEED.values(), ids=SUCCEED)
def test_a_command_that_succeeds_shows_no_secret(emulator, arguments):
    code, output = run(*arguments)

    assert code == 0
    assert output
    assert secrets(emulator).found(output) == []


def test_a_cancel_that_succeeds_shows_no_secret(emulator):
    with ChatKit() as client:
        session = client.sessions.create(user="user_123", workflow="wf_123")
    code, output = run("cancel", session.id, "--json", "--debug")

    assert code == 0
    assert session.id.encode() in output
    assert secrets(emulator).found(output) == []


def test_the_client_secret_is_shown_on_request_alone(emulator):
    # This is what shows that the tests above would find one.
    _, output = run(*CREATE, "--show-secret")
    assert secrets(emulator).found(output)


CALLS = {
    "demo": ["demo", "--live", "--workflow", "wf_123", "--debug"],
    "create": [*CREATE, "--debug"],
    "create as JSON": [*CREATE, "--json"],
    "cancel": ["cancel", "cksess_1", "cksess_2", "--debug"],
    "cancel by secret": ["cancel", SESSION["client_secret"], "--json"],
    "doctor": ["doctor", "--debug"],
    "doctor as JSON": ["doctor", "--json"],
}
FAILURES = {
    "an echo": {"status": 400, "body": ECHO},
    "an echo of 401": {"status": 401, "body": ECHO, "headers": {"x-request-id": KEY}},
    "an echo as text": {"status": 404, "body": f"Bearer {KEY}, {json.dumps(SESSION)}"},
    "no session": {"body": b"[" + BODY + b"]"},
    "a session that is bent": {"body": json.dumps({**SESSION, "status": ["active"], "id": None})},
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("arguments", CALLS.values(), ids=CALLS)
def test_a_command_that_fails_shows_no_secret(emulator, arguments, failure):
    emulator.fail(times=None, **failure)
    _, output = run(*arguments)

    assert output
    assert Hunter(KEY, SESSION["client_secret"]).found(output) == []


@pytest.mark.parametrize("arguments", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"OPENAI_API_KEY": f"{KEY} {KEY}"},
        {"OPENAI_API_KEY": f"Bearer {KEY}"},
        {"OPENAI_API_KEY": f'"{KEY}"'},
        {"OPENAI_BASE_URL": f"https://{PLAIN_KEY}@127.0.0.1:1/v1"},
        {"OPENAI_BASE_URL": "https://me:s3cr3t-p4ssw0rd@127.0.0.1:1/v1"},
        {"OPENAI_ORG_ID": f"{KEY}\x01"},
        {"https_proxy": "ftp://me:s3cr3t-p4ssw0rd@127.0.0.1:1", "OPENAI_BASE_URL": ""},
    ],
    ids=["spaces", "bearer", "quoted", "base URL", "password", "organization", "proxy"],
)
def test_a_command_of_a_wrong_setup_shows_no_secret(environment, arguments, wrong):
    environment.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")  # where nobody listens
    for name, value in wrong.items():
        environment.setenv(name, value)
    environment.setattr("chatkit_async._retry.is_transient", lambda error: False)
    code, output = run(*arguments)

    assert code != 0
    assert output
    assert Hunter(KEY, PLAIN_KEY, "_password_s3cr3t-p4ssw0rd").found(output) == []


@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["", "debug"])
def test_a_defect_shows_no_secret(emulator, environment, debug):
    def defective(*_, **__):
        raise RuntimeError(f"of a defect, with {KEY}")

    environment.setattr("chatkit_async._attempts._protocol.read", defective)
    code, output = run(*CREATE, *debug)

    assert code == 1
    assert b"RuntimeError: of a defect" in output
    assert (b"Traceback" in output) == bool(debug)
    assert Hunter(KEY).found(output) == []


# Arguments: what `ps` shows to everybody


def parameters(command, path=()):
    """What takes a value."""
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from parameters(child, (*path, name))
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            continue
        for option in parameter.opts:
            yield " ".join((*path, option))


def test_no_command_takes_a_key_as_an_argument():
    taken = list(parameters(commands))
    assert "create --user" in taken
    assert not [option for option in taken if "key" in option or "token" in option]


@pytest.mark.parametrize("option", [f"--api-key={KEY}", f"--key={KEY}", f"-k{KEY}"])
def test_a_key_that_is_an_argument_all_the_same_is_not_repeated(option):
    code, output = run(*CREATE, option)

    assert code == 2
    assert Hunter(KEY).found(output) == []


@pytest.mark.skipif(sys.platform == "win32", reason="ends the emulator by Ctrl-C")
def test_the_emulators_command_shows_no_secret(programs, environment):
    program = ["-m", "chatkit_async", "emulator", "--json"]
    with programs.start(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            serving = json.loads(process.stdout.readline())
            with ChatKit(base_url=serving["base_url"], max_retries=0) as client:
                session = client.sessions.create(user="user_123", workflow="wf_123")
                with pytest.raises(ChatKitError):
                    client.sessions.cancel(session.client_secret)
            process.send_signal(signal.SIGINT)
            output, log = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()

    assert log.count(b"/v1/chatkit/sessions") == 2
    assert Hunter(KEY, session.client_secret).found(output + log) == []
