"""`emulator`."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from contextlib import nullcontext, suppress
from types import SimpleNamespace

import pytest
from patience import PATIENCE

from chatkit_async import AsyncChatKit, AuthenticationError, BadRequestError, NotFoundError
from chatkit_async.cli import _emulator
from chatkit_async.cli._emulator import assignment
from chatkit_async.emulator import (
    Exponential,
    Fault,
    FixedWindow,
    LogNormal,
    TokenBucket,
    Uniform,
)


def create(base_url, api_key):
    async def create():
        async with AsyncChatKit(base_url=base_url, api_key=api_key) as client:
            return await client.sessions.create(user="user_123", workflow="wf_123")

    return asyncio.run(create())


@pytest.mark.unmeasured
def test_it_prints_what_to_set_serves_until_ctrl_c_and_shows_each_request(start):
    process = start("emulator")
    base_url = process.stdout.readline().removeprefix("export OPENAI_BASE_URL=").strip()
    api_key = process.stdout.readline().removeprefix("export OPENAI_API_KEY=").strip()
    session = create(base_url, api_key)
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert rest == ""
    serving, control, request, empty, interrupted = said.splitlines()
    assert serving == "Serving. Set these in another terminal; Ctrl-C ends it."
    control_url = base_url.replace("/v1", "/_emulator")
    assert control == f"Its state can be read and set at {control_url}/state and beside it."
    assert re.fullmatch(r"\d\d:\d\d:\d\d POST /v1/chatkit/sessions 200 req_\w+", request)
    assert (empty, interrupted) == ("", "Interrupted.")
    assert session.client_secret not in said


@pytest.mark.unmeasured
def test_json_is_for_programs_that_start_it(start):
    process = start("emulator", "--json")
    printed = json.loads(process.stdout.readline())
    assert set(printed) == {"base_url", "api_key", "control_url"}
    assert printed.pop("control_url") == printed["base_url"].replace("/v1", "/_emulator")
    assert create(**printed).status == "active"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 130


@pytest.mark.unmeasured
def test_it_serves_on_when_nobody_reads_the_requests(start):
    process = start("emulator", "--json")
    printed = json.loads(process.stdout.readline())
    printed.pop("control_url")
    process.stderr.readline()
    process.stderr.readline()
    process.stderr.close()
    for _ in range(3):
        assert create(**printed).status == "active"
    process.send_signal(signal.SIGINT)
    process.wait(timeout=PATIENCE)


def test_a_request_beyond_all_calendars_is_shown_in_unix_seconds(monkeypatch):
    shown = []
    monkeypatch.setattr(_emulator, "note", shown.append)
    for received_at in (1e18, 1_800_000_000):
        _emulator._show(SimpleNamespace(received_at=received_at))
    assert shown[0].startswith("1000000000000000000 ")
    assert re.match(r"\d\d:\d\d:\d\d ", shown[1])


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        ([], r"export OPENAI_BASE_URL=http\S+/v1\nexport OPENAI_API_KEY=\S+\n"),
        (["--json"], r'{"base_url": "http\S+/v1", "api_key": "\S+", "control_url": "\S+"}\n'),
    ],
)
def test_serving_emulator_ends_by_ctrl_c(invoke, monkeypatch, options, printed):
    def note(text):
        said.append(text)
        if len(said) == 2:
            signal.raise_signal(signal.SIGINT)

    said = []
    monkeypatch.setattr(_emulator, "note", note)
    result = invoke("emulator", *options)
    assert result.exit_code == 130
    assert re.fullmatch(printed, result.stdout)


@pytest.fixture
def taken():
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken_is_told(invoke, taken):
    result = invoke("emulator", "--port", str(taken))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: cannot listen on port {taken}: ")
    assert "leave --port out" in result.stderr


def test_a_port_that_cannot_be_is_wrong_usage(invoke):
    assert invoke("emulator", "--port", "70000").exit_code == 2


@pytest.fixture
def server(monkeypatch):
    """What the command would serve with."""
    servers = []

    async def serve(server, port, *, as_json):
        servers.append(server)

    monkeypatch.setattr("chatkit_async.cli._emulator._serve", serve)
    return servers


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        ([], None),
        (["--rate-limit", "25"], TokenBucket(rate=25)),
        (["--rate-limit", "0.5", "--burst", "3"], TokenBucket(rate=0.5, burst=3)),
        (["--rate-limit", "2", "--retry-after", "1.5"], TokenBucket(rate=2, retry_after=1.5)),
        (["--rate-limit", "2", "--retry-after", "exact"], TokenBucket(rate=2)),
        (["--rate-limit", "2", "--retry-after", "none"], TokenBucket(rate=2, retry_after=None)),
        (["--rate-limit", "2", "--per-key"], TokenBucket(rate=2, per_key=True)),
        (["--rate-limit", "600", "--window", "60"], FixedWindow(limit=600, window=60)),
    ],
)
def test_it_limits_the_rate_as_told(invoke, server, arguments, limit):
    assert invoke("emulator", *arguments).exit_code == 0
    assert server[0].rate_limit == limit


@pytest.mark.parametrize(
    ("given", "latency"),
    [
        ("0.05", 0.05),
        ("uniform:0.1:0.2", Uniform(0.1, 0.2)),
        ("exponential:0.1", Exponential(0.1)),
        ("lognormal:0.1", LogNormal(0.1)),
        ("lognormal:0.1:1", LogNormal(0.1, 1.0)),
    ],
)
def test_it_takes_its_time_as_told(invoke, server, given, latency):
    assert invoke("emulator", "--latency", given).exit_code == 0
    assert server[0].latency == latency


@pytest.mark.unmeasured
def test_it_fails_as_told_the_same_for_a_seed(start):
    def statuses():
        process = start(
            "emulator", "--json", "--seed", "3", "--fault", "status=400; chance=0.5",
            "--fault", "operation=cancel; drop=close",
        )  # fmt: skip
        printed = json.loads(process.stdout.readline())
        printed.pop("control_url")
        process.stderr.readline()
        for _ in range(8):
            with suppress(BadRequestError):
                create(**printed)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE)[1]
        return re.findall(r"sessions (\d+) req_", said)

    first = statuses()
    assert set(first) == {"200", "400"}
    assert statuses() == first


def test_it_fails_as_scripted(invoke, server):
    said = "operation=create; user=ada; every=3; times=2; status=503"
    assert invoke("emulator", "--fault", said).exit_code == 0
    fault = Fault(
        operation="create",
        user="ada",
        every=3,
        times=2,
        status=503,
    )
    assert server[0].faults == (fault,)


@pytest.mark.parametrize(("arguments", "retired"), [([], False), (["--retired"], True)])
def test_it_is_retired_if_told(invoke, server, arguments, retired):
    assert invoke("emulator", *arguments).exit_code == 0
    assert server[0].retired is retired


@pytest.mark.parametrize("deleted_cursor", ["error", "ignore", "accept"])
def test_what_it_does_with_a_deleted_cursor(invoke, server, deleted_cursor):
    assert invoke("emulator", "--deleted-cursor", deleted_cursor).exit_code == 0
    assert server[0].deleted_cursor == deleted_cursor


def test_state_file_is_loaded(invoke, server, tmp_path):
    file = tmp_path / "state.jsonl"
    file.write_text('{"thread": {"user": "ada"}, "items": ["user: Hi"]}\n', encoding="utf-8")
    assert invoke("emulator", "--state", str(file)).exit_code == 0
    assert [thread.user for thread in server[0].threads.values()] == ["ada"]

    file.write_text('{"thread": {"user": "ada"}}\n{"threat": {}}\n', encoding="utf-8")
    refused = invoke("emulator", "--state", str(file))
    assert refused.exit_code == 2
    assert f"{file}, line 2: " in refused.stderr
    assert invoke("emulator", "--state", str(tmp_path)).exit_code == 2


@pytest.mark.parametrize(("arguments", "off_schema"), [([], False), (["--off-schema"], True)])
def test_it_keeps_to_the_schema_unless_told_otherwise(invoke, server, arguments, off_schema):
    assert invoke("emulator", *arguments).exit_code == 0
    assert server[0].off_schema is off_schema


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], None),
        (["--workflow", "wf_1", "--workflow", "wf_123"], None),
        (["--workflow", "wf_1"], NotFoundError),
        (["--check-key"], AuthenticationError),
    ],
)
def test_it_knows_the_workflows_and_the_key_it_was_told(invoke, server, arguments, error):
    assert invoke("emulator", *arguments).exit_code == 0
    with server[0] as emulator, pytest.raises(error) if error else nullcontext():
        create(emulator.base_url, "sk-made-up")


REAL = "sk-proj-" + "aB3" * 16


@pytest.mark.parametrize(
    ("arguments", "error"), [([], AuthenticationError), (["--allow-real-keys"], None)]
)
def test_it_refuses_a_key_that_looks_real_unless_told_otherwise(invoke, server, arguments, error):
    assert invoke("emulator", *arguments).exit_code == 0
    with server[0] as emulator, pytest.raises(error) if error else nullcontext():
        create(emulator.base_url, REAL)


@pytest.mark.parametrize(
    "given", ["1800000000", "2027-01-15T08:00:00Z", "2027-01-15T09:00:00+01:00"]
)
def test_it_serves_at_the_time_it_was_told(invoke, server, given):
    assert invoke("emulator", "--time", given, "--freeze").exit_code == 0
    assert server[0].clock.frozen
    assert server[0].clock.now() == 1_800_000_000


def test_time_runs_on_unless_it_is_frozen(invoke, server):
    assert invoke("emulator", "--time", "100").exit_code == 0
    assert not server[0].clock.frozen
    assert server[0].clock.now() >= 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--time", "noon"], "'noon' should be Unix seconds or a date"),
        (["--time", "nan"], "the clock must be set to finite Unix seconds, got nan"),
        (["--rate-limit", "0"], "no such rate limit: rate must be a number from 1e-09"),
        (
            ["--rate-limit", "1.5", "--window", "60"],
            "--rate-limit should be a whole number, with --window.",
        ),
        (["--rate-limit", "inf", "--window", "60"], "--rate-limit should be a whole number"),
        (
            ["--rate-limit", "0", "--window", "60"],
            "no such rate limit: limit must be a whole number from 1",
        ),
        (["--rate-limit", "1", "--retry-after", "soon"], "='soon': expected seconds, 'exact' or"),
        (["--rate-limit", "1", "--burst", "1", "--window", "60"], "--burst is a bucket's"),
        (["--burst", "1"], "go with --rate-limit"),
        (["--window", "1"], "go with --rate-limit"),
        (["--retry-after", "1"], "go with --rate-limit"),
        (["--per-key"], "go with --rate-limit"),
        (["--latency", "soon"], "'soon' should be seconds, uniform:LOW:HIGH"),
        (["--latency", "uniform:1"], "should be seconds, uniform:LOW:HIGH"),
        (["--latency", "uniform:2:1"], "low must not be larger than high, got 2.0 and 1.0"),
        (["--latency", "-1"], "latency must be a number of 0 or more, got -1.0"),
        (["--fault", "stauts=500"], "'stauts=500' is not a part of a fault"),
        (["--fault", "drop=slowly"], "drop must be 'close' or 'reset', got 'slowly'."),
    ],
)
def test_what_cannot_be_is_wrong_usage(invoke, server, arguments, said):
    result = invoke("emulator", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert server == []


def test_what_to_set_is_in_the_language_of_the_platforms_shell():
    assert assignment("NAME", "value", "linux") == "export NAME=value\n"
    assert assignment("NAME", "value", "win32") == '$env:NAME = "value"\n'
