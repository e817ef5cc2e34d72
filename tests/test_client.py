"""The client over real sockets: settings, attempts, deadlines, keys, its life and its end."""

from __future__ import annotations

import asyncio
import base64
import copy
import gc
import inspect
import json
import logging
import pickle
import re
import ssl
import subprocess
import textwrap
import threading
import traceback
import warnings
import weakref
from operator import attrgetter
from pathlib import Path
from unittest import mock
from urllib.parse import quote

import aiohappyeyeballs
import aiohttp
import async_solipsism
import attrs
import pytest
import trustme
from patience import PATIENCE
from servers import BODY, CLOSE, HANG, RESET, SESSION, http, replying, serve

import chatkit_async.client
from chatkit_async import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AsyncChatKit,
    AuthenticationError,
    ChatKit,
    ClientClosedError,
    ConfigurationError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
)
from chatkit_async.emulator import Clock, Emulator
from chatkit_async.secret import MASK
from chatkit_async.web import BlockingClientSecretEndpoint, ClientSecretEndpoint

KEY = "sk-" + "0123456789abcdef" * 2
WANTED = {"user": "user_123", "workflow": "wf_123"}
PACKAGE = str(Path(chatkit_async.__file__).parent)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID", "BASE_URL"):
        monkeypatch.delenv(f"OPENAI_{name}", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def emulator():
    async with Emulator() as emulator:
        yield emulator


class Pace:
    """Virtual waits: notes what a client asks to wait for, and lets its time pass at once."""

    def __init__(self, luck=1.0):
        self.time = 1000.0
        self.waits = []
        self.luck = luck

    async def sleep(self, seconds):
        self.waits.append(seconds)
        self.time += seconds

    def under(self, client):
        client._attempts.seam = attrs.evolve(
            client._attempts.seam, now=lambda: self.time, sleep=self.sleep, random=lambda: self.luck
        )
        return client


@pytest.fixture
def pace():
    return Pace()


@pytest.fixture
async def connect(emulator, pace):
    """Makes clients, of the emulator unless told otherwise, with virtual waits."""
    clients = []

    def connect(**settings):
        settings = {"api_key": emulator.api_key, "base_url": emulator.base_url} | settings
        clients.append(pace.under(AsyncChatKit(**settings)))
        return clients[-1]

    yield connect
    for client in clients:
        await client.close()


@pytest.fixture
def client(connect):
    return connect()


async def failure(client, kind=APIError, **options):
    """The error that a create ends with."""
    with pytest.raises(kind) as caught:
        await client.sessions.create(**WANTED, **options)
    return caught.value


def shown_of(error):
    """What a log or a tool can see of an error: itself, its chain, and our frames' locals."""
    shown = []
    while error is not None:
        shown += [repr(error), str(error), repr(error.args), repr(vars(error))]
        trace = traceback.TracebackException.from_exception(error, capture_locals=True)
        ours = [frame for frame in trace.stack if frame.filename.startswith(PACKAGE)]
        assert ours
        shown += [str(frame.locals) for frame in ours]
        error = error.__cause__ or error.__context__
    return "\n".join(shown)


def hides(text, secret):
    """Whether a secret is nowhere in a text, in any of the ways it may be written."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")[:-1]
    return not any(form in text for form in (secret, quote(secret, safe=""), encoded))


# Settings


async def test_what_every_request_carries(connect, emulator):
    await connect(organization="org_1", project="proj_1").sessions.create(**WANTED)

    [record] = emulator.requests
    assert record.headers["Authorization"].startswith("Bearer ")
    assert record.headers["OpenAI-Beta"] == "chatkit_beta=v1"
    assert record.headers["OpenAI-Organization"] == "org_1"
    assert record.headers["OpenAI-Project"] == "proj_1"
    assert record.headers["Content-Type"] == "application/json"
    assert record.headers["Accept"] == "application/json"
    assert record.headers["Accept-Encoding"] == "identity"
    assert record.headers["User-Agent"].startswith("chatkit-async/")


async def test_no_organization_and_no_project_are_no_headers(client, emulator):
    await client.sessions.create(**WANTED)

    assert "OpenAI-Organization" not in emulator.requests[0].headers
    assert "OpenAI-Project" not in emulator.requests[0].headers


async def test_the_environment_fills_in_what_is_not_given(monkeypatch, emulator):
    monkeypatch.setenv("OPENAI_API_KEY", f" {emulator.api_key}\n")
    monkeypatch.setenv("OPENAI_ORG_ID", "org_env")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj_env")
    monkeypatch.setenv("OPENAI_BASE_URL", emulator.base_url + "/")
    async with AsyncChatKit(project="proj_given") as client:
        await client.sessions.create(**WANTED)

    [record] = emulator.requests
    assert record.status == 200
    assert record.headers["OpenAI-Organization"] == "org_env"
    assert record.headers["OpenAI-Project"] == "proj_given"


async def test_a_blank_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL", "HTTPS_PROXY"):
        monkeypatch.setenv(name, " ")

    client = AsyncChatKit()

    assert repr(client) == "AsyncChatKit(base_url='https://api.openai.com/v1')"
    assert not {"OpenAI-Organization", "OpenAI-Project"} & set(client._attempts._headers)
    assert client._attempts._link.proxy is None


def test_every_problem_of_the_settings_is_named_at_once():
    with pytest.raises(ConfigurationError) as caught:
        AsyncChatKit(base_url="ftp://x", timeout=-1, max_connections=0, on_attempt=5)

    assert [path for path, _ in caught.value.problems] == [
        "timeout",
        "max_connections",
        "on_attempt",
        "base_url",
        "OPENAI_API_KEY",
    ]


@pytest.mark.parametrize("wrong", [True, "5", 1.5, None])
def test_max_connections_is_a_whole_number(wrong):
    with pytest.raises(ConfigurationError, match=r"max_connections: must be a whole number"):
        AsyncChatKit(api_key=KEY, max_connections=wrong)


@pytest.mark.parametrize("key", [f"{KEY}\nx", f"{KEY}é", f"a {KEY}", KEY.encode()])
def test_a_key_that_is_refused_is_not_shown(key):
    with pytest.raises(ConfigurationError) as caught:
        AsyncChatKit(api_key=key, timeout=-1)

    assert hides(shown_of(caught.value), KEY)


def test_no_setting_with_a_credential_is_shown_when_another_is_refused():
    with pytest.raises(ConfigurationError) as caught:
        AsyncChatKit(
            api_key="pa55word-1",
            proxy="http://user:pa55word-2@127.0.0.1",
            default_headers={"X-Secret": "pa55word-3"},
            timeout=-1,
        )

    assert "pa55word" not in shown_of(caught.value)


async def test_default_headers_are_sent_and_a_call_may_replace_them(connect, emulator):
    client = connect(default_headers={"X-A": "1", "x-b": "2", "OpenAI-Project": "proj_d"})

    await client.sessions.create(**WANTED, extra_headers={"X-B": "3"})

    [record] = emulator.requests
    assert (record.headers["X-A"], record.headers["X-B"]) == ("1", "3")
    assert record.headers["OpenAI-Project"] == "proj_d"


@pytest.mark.parametrize("extra", [{}, {"extra_headers": {"X-A": "1"}}])
@pytest.mark.parametrize("api_key", [KEY, lambda: KEY], ids=["key", "callable"])
async def test_a_default_authorization_replaces_the_keys(connect, extra, api_key):
    async with serve(replying(http())) as server:
        client = connect(
            api_key=api_key,
            base_url=server.base_url,
            default_headers={"Authorization": "Token gateway"},
        )
        await client.sessions.create(**WANTED, **extra)

    assert server.requests[0].headers["authorization"] == "Token gateway"


@pytest.mark.parametrize("path", ["", "/", "/v1", "/a/b%20c/"])
async def test_a_base_url_may_have_any_path(connect, path):
    async with serve(replying(http())) as server:
        await connect(base_url=server.base_url.removesuffix("/v1") + path).sessions.create(**WANTED)

    assert server.requests[0].line == f"POST {path.rstrip('/')}/chatkit/sessions HTTP/1.1"


def test_a_client_shows_neither_key_nor_password():
    client = AsyncChatKit(api_key=KEY, proxy="http://user:pa55word@127.0.0.1:3128")

    shown = repr(
        [
            client,
            vars(client),
            client._attempts.settings,
            client._attempts._link,
            client._attempts._link.proxy_headers,
        ]
    )
    assert hides(shown, KEY)
    assert hides(shown, "pa55word")
    assert hides(shown, "user:pa55word")


# Calls


async def test_options_of_a_call_apply_to_it_alone(client, emulator):
    emulator.fail(status=500, times=None)

    assert (await failure(client, max_retries=0)).attempts == 1
    assert (await failure(client)).attempts == 3


async def test_extra_query_and_body_reach_the_api(client, emulator):
    await client.sessions.create(
        **WANTED, extra_query={"a b": "é&"}, extra_body={"workflow": {"colour": "red"}, "new": 1}
    )

    [record] = emulator.requests
    assert record.query == "a+b=%C3%A9%26"
    assert record.body["workflow"] == {"id": "wf_123", "colour": "red"}
    assert record.body["new"] == 1


async def test_a_raw_response_is_the_reply_as_it_came(client, emulator, pace):
    emulator.fail(status=503)

    response = await client.sessions.with_raw_response.create(**WANTED)

    assert response.status_code == 200
    assert response.request_id == response.headers["X-Request-Id"]
    assert json.loads(response.content) == response.parse().to_dict()
    assert response.attempts == 2
    assert response.elapsed == sum(pace.waits) > 0
    assert response.parse().client_secret not in repr(response)


def test_the_path_of_the_openai_sdks_leads_to_the_same_sessions():
    client = AsyncChatKit(api_key=KEY)

    assert client.chatkit.sessions is client.sessions
    assert client.beta.chatkit.sessions is client.sessions


# Attempts

TRANSIENT = {
    "408": {"status": 408},
    "409": {"status": 409},
    "429": {"status": 429},
    "500": {"status": 500},
    "503": {"status": 503},
    "520": {"status": 520},
    "closed": {"drop": "close"},
    "reset": {"drop": "reset"},
    "cut": {"cut": True},
    "forced": {"status": 400, "headers": {"x-should-retry": "true"}},
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
async def test_what_may_fare_better_is_tried_again(client, emulator, fault):
    emulator.fail(**fault, times=2)

    assert (await client.sessions.create(**WANTED)).status == "active"
    assert len(emulator.requests) == 3


async def test_what_keeps_failing_is_given_up(client, emulator, pace):
    emulator.fail(status=500, times=None)

    error = await failure(client)

    assert len(emulator.requests) == 3
    assert error.attempts == 3
    assert error.elapsed == sum(pace.waits)
    assert len(pace.waits) == 2
    assert "3 attempts" in str(error)


async def test_an_error_has_the_request_id_of_the_last_attempt(client, emulator):
    emulator.fail(status=500, times=None)

    error = await failure(client, InternalServerError)

    assert error.request_id == emulator.requests[-1].request_id
    assert error.request_id in str(error)


async def test_every_attempt_sends_the_same_bytes(connect):
    async with serve(replying(http(status="500 Oops"), CLOSE, http())) as server:
        client = connect(base_url=server.base_url)
        await client.sessions.create(**WANTED, extra_headers={"X-A": "1"}, extra_query={"b": 2})

    first, second, third = server.requests
    assert first.line == second.line == third.line
    assert first.headers == second.headers == third.headers
    assert first.body == second.body == third.body


@pytest.mark.parametrize("luck", [0.0, 0.25, 1.0])
async def test_waits_are_drawn_from_an_exponential_ceiling(client, emulator, pace, luck):
    pace.luck = luck
    emulator.fail(status=500, times=None)

    await failure(client, max_retries=6)

    assert pace.waits == [luck * ceiling for ceiling in (0.5, 1, 2, 4, 8, 8)]


async def test_the_ceilings_are_the_retry_policys(connect, emulator, pace):
    emulator.fail(status=500, times=None)
    client = connect(retry_policy=RetryPolicy(initial_backoff=1.0, max_backoff=3.0))

    await failure(client, max_retries=3)

    assert pace.waits == [1, 2, 3]


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "1500", "Retry-After": "7"}, 1.5),
        (
            {
                "Date": "Sun, 06 Nov 1994 08:49:30 GMT",
                "Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT",
            },
            7.0,
        ),
    ],
    ids=["seconds", "milliseconds", "date"],
)
async def test_a_servers_wait_is_a_minimum_with_jitter_on_top(
    connect, emulator, pace, headers, least
):
    for pace.luck in (1.0, 0.0):
        emulator.fail(status=429, headers=headers)
        await connect().sessions.create(**WANTED)

    assert pace.waits == [pytest.approx(least * 1.1), least]


@pytest.mark.parametrize("junk", ["0", "-1", "soon", "nan", "inf"])
async def test_a_servers_wait_that_is_none_leaves_it_to_the_policy(client, emulator, pace, junk):
    emulator.fail(status=429, headers={"Retry-After": junk})

    await client.sessions.create(**WANTED)

    assert pace.waits == [0.5]


async def test_a_wait_that_cannot_fit_ends_the_call_at_once(client, emulator, pace):
    emulator.fail(status=429, headers={"Retry-After": "3600"})

    error = await failure(client, RateLimitError)

    assert (pace.waits, error.attempts, error.retry_after) == ([], 1, 3600)


async def test_without_a_limit_any_wait_fits(client, emulator, pace):
    emulator.fail(status=429, headers={"Retry-After": "3600"})

    await client.sessions.create(**WANTED, timeout=None)

    assert pace.waits == [pytest.approx(3960)]


async def test_waits_count_against_the_deadline(client, emulator, pace):
    emulator.fail(status=429, headers={"Retry-After": "25"}, times=None)

    error = await failure(client, RateLimitError, max_retries=9)

    assert pace.waits == [pytest.approx(27.5)] * 2
    assert (error.attempts, error.elapsed) == (3, pytest.approx(55))


# Deadlines, on virtual time


@pytest.fixture
def virtually(monkeypatch):
    """Runs `scenario(emulator, client)` on a loop whose time passes when nothing else can."""
    monkeypatch.setattr(
        aiohappyeyeballs, "start_connection", async_solipsism.aiohappyeyeballs_start_connection
    )
    # aiohttp lets idle connections go by real time.
    monkeypatch.setattr(aiohttp.connector, "monotonic", lambda: asyncio.get_running_loop().time())

    def virtually(scenario, **settings):
        async def main():
            now = asyncio.get_running_loop().time
            async with (
                Emulator(clock=Clock(now)) as emulator,
                AsyncChatKit(
                    api_key=emulator.api_key, base_url=emulator.base_url, **settings
                ) as client,
            ):
                client._attempts.seam = attrs.evolve(
                    client._attempts.seam, now=now, random=lambda: 1.0
                )
                return await scenario(emulator, client)

        with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
            return runner.run(main())

    return virtually


SLOW = {
    "never": {"delay": float("inf")},
    "after an hour": {"delay": 3600.0},
    "byte by byte": {"drip": 15.0},
}


@pytest.mark.parametrize("fault", SLOW.values(), ids=SLOW)
def test_no_call_outlives_its_timeout(virtually, fault):
    async def scenario(emulator, client):
        emulator.fail(**fault, times=None)
        return await failure(client, APITimeoutError), asyncio.get_running_loop().time()

    error, elapsed = virtually(scenario, timeout=30.0, max_retries=100)

    assert elapsed == pytest.approx(30.0, abs=0.01)
    assert error.elapsed == pytest.approx(30.0, abs=0.01)
    assert error.limit == "timeout"
    assert "timeout, the limit of the whole call" in error.message


def test_an_attempt_ends_at_its_own_limit_and_the_next_begins(virtually):
    async def scenario(emulator, client):
        emulator.fail(delay=3600)
        session = await client.sessions.create(**WANTED)
        return session.status, len(emulator.requests), asyncio.get_running_loop().time()

    assert virtually(scenario) == ("active", 2, pytest.approx(20.5, abs=0.01))


def test_the_limit_of_the_last_attempt_is_named(virtually):
    async def scenario(emulator, client):
        emulator.fail(delay=3600, times=None)
        return await failure(client, APITimeoutError)

    error = virtually(scenario, attempt_timeout=3.0, max_retries=1)

    assert (error.limit, error.kind, error.attempts) == ("attempt_timeout", "timeout", 2)
    assert "attempt_timeout=3.0 s" in error.message
    assert error.elapsed == pytest.approx(6.5, abs=0.01)


def test_without_limits_a_call_waits_for_as_long_as_it_takes(virtually):
    async def scenario(emulator, client):
        emulator.fail(delay=86_400)
        await client.sessions.create(**WANTED, timeout=None, attempt_timeout=None)
        return asyncio.get_running_loop().time()

    assert virtually(scenario) == pytest.approx(86_400, abs=1)


def test_a_key_that_never_comes_is_bound_by_the_same_limits(virtually):
    async def never():
        await asyncio.get_running_loop().create_future()

    async def scenario(emulator, client):
        return await failure(client.with_options(api_key=never), APITimeoutError)

    assert virtually(scenario, max_retries=0).limit == "attempt_timeout"


def test_a_quiet_backend_needs_no_extra_attempt(virtually):
    async def scenario(emulator, client):
        attempts = []
        for _ in range(24):
            response = await client.sessions.with_raw_response.create(**WANTED)
            attempts.append(response.attempts)
            await asyncio.sleep(3600)
        return attempts, [record.connection for record in emulator.requests]

    assert virtually(scenario) == ([1] * 24, list(range(1, 25)))


def test_a_connection_is_kept_for_a_minute(virtually):
    async def scenario(emulator, client):
        for pause in (50, 50, 70, 0):
            await client.sessions.create(**WANTED)
            await asyncio.sleep(pause)
        return [record.connection for record in emulator.requests]

    assert virtually(scenario) == [1, 1, 1, 2]


# The rate gate, on virtual time: its own rules are test_rate_gate's

PUSHED_BACK = {"status": 429, "headers": {"Retry-After": "30"}}


async def pushed_back(emulator, client):
    """A call that the API has told to wait for 30 seconds, with jitter 33."""
    emulator.fail(**PUSHED_BACK)
    told = asyncio.Event()
    client = client.with_options(on_attempt=lambda attempt: told.set())
    call = asyncio.create_task(client.sessions.create(**WANTED))
    await told.wait()
    await asyncio.sleep(1)  # virtual, so that it is clear whose turn comes first
    return call


def test_after_a_push_back_other_calls_wait_without_spending_attempts(virtually):
    async def scenario(emulator, client):
        first = await pushed_back(emulator, client)
        raw = client.sessions.with_raw_response
        others = [raw.create(**WANTED, timeout=None) for _ in range(3)]
        responses = await asyncio.gather(*others)
        await first
        return [response.attempts for response in responses], emulator.requests

    attempts, requests = virtually(scenario)

    assert attempts == [1, 1, 1]
    assert len(requests) == 5
    assert all(record.received_at >= 30 for record in requests[1:])


def test_a_call_whose_turn_cannot_come_in_time_ends_at_once(virtually):
    async def scenario(emulator, client):
        first = await pushed_back(emulator, client)
        error = await failure(client, RateLimitError, timeout=10.0)
        ended = asyncio.get_running_loop().time()
        await first
        return error, ended, len(emulator.requests)

    error, ended, requests = virtually(scenario)

    assert (error.attempts, error.status_code, requests) == (0, 429, 2)
    assert error.retry_after == pytest.approx(32, abs=0.1)
    assert error.message.startswith("Rate limited (429): the request was not sent")
    assert "this call's timeout ends before that" in error.message
    assert ended == pytest.approx(1, abs=0.1)


def test_closing_ends_a_wait_at_the_gate(virtually):
    async def scenario(emulator, client):
        first = await pushed_back(emulator, client)
        waiting = [asyncio.create_task(closed_error(client)) for _ in range(2)]
        await asyncio.sleep(1)  # virtual
        await client.close()
        await asyncio.gather(*waiting)
        with pytest.raises(ClientClosedError):
            await first
        return asyncio.get_running_loop().time(), len(emulator.requests)

    assert virtually(scenario) == (pytest.approx(2, abs=0.1), 1)


def test_with_options_stays_behind_the_same_gate_unless_the_key_differs():
    client = AsyncChatKit(api_key=KEY)

    assert client.with_options(timeout=5.0)._attempts.gate is client._attempts.gate
    assert client.with_options(api_key=f"{KEY}x")._attempts.gate is not client._attempts.gate


# What is told of attempts


async def test_each_attempt_is_told(connect, emulator):
    told = []
    emulator.fail(drop="close")
    emulator.fail(status=503)
    session = await connect(on_attempt=told.append).sessions.create(**WANTED)

    first, second, third = told
    assert (first.number, first.status_code, first.next_wait) == (1, None, 0.5)
    assert isinstance(first.error, APIConnectionError)
    assert (first.request_id, first.elapsed) == (None, 0.0)
    assert (second.number, second.status_code, second.next_wait) == (2, 503, 1.0)
    assert second.request_id == emulator.requests[1].request_id
    assert isinstance(second.error, InternalServerError)
    assert (third.number, third.status_code, third.next_wait, third.error) == (3, 200, None, None)
    assert third.request_id == emulator.requests[2].request_id
    assert {(told.method, told.route) for told in told} == {("POST", "/chatkit/sessions")}
    assert session.client_secret not in repr(told)


@pytest.mark.parametrize("api_key", ["not-like-a-key-of-the-api", lambda: "sk-" + "k" * 40])
async def test_a_key_that_comes_back_as_the_request_s_id_is_not_told(connect, caplog, api_key):
    key = api_key() if callable(api_key) else api_key
    told = []
    async with serve(replying(http(x_request_id=f"req-{key}"))) as server:
        client = connect(api_key=api_key, base_url=server.base_url, on_attempt=told.append)
        with caplog.at_level(logging.DEBUG):
            await client.sessions.create(**WANTED)

    assert told[0].request_id == f"req-{MASK}"
    assert key not in caplog.text


async def test_the_route_of_a_cancellation_has_no_id_in_it(connect, emulator):
    told = []
    client = connect(on_attempt=told.append)
    with pytest.raises(NotFoundError):
        await client.sessions.cancel("cksess_1")

    assert [attempt.route for attempt in told] == ["/chatkit/sessions/{session_id}/cancel"]


@pytest.mark.parametrize("fault", [{}, {"status": 500}], ids=["success", "failure"])
async def test_what_on_attempt_raises_ends_the_call(connect, emulator, fault):
    class MineError(Exception):
        pass

    def raising(attempt):
        raise MineError

    if fault:
        emulator.fail(**fault)
    with pytest.raises(MineError) as caught:
        await connect(on_attempt=raising).sessions.create(**WANTED)

    assert len(emulator.requests) == 1
    assert caught.value.__context__ is None


async def test_the_log_has_a_line_for_each_attempt_and_no_secret(client, emulator, caplog):
    emulator.fail(drop="close")
    emulator.fail(status=503)
    with caplog.at_level(logging.DEBUG):
        session = await client.sessions.create(**WANTED)

    lines = [r.getMessage() for r in caplog.records if r.name == "chatkit_async"]
    ids = [record.request_id for record in emulator.requests]
    assert lines == [
        f"POST /chatkit/sessions: {line}"
        for line in (
            "disconnected, request id None, attempt 1, 0.000 s, next attempt in 0.500 s",
            f"503, request id {ids[1]}, attempt 2, 0.000 s, next attempt in 1.000 s",
            f"200, request id {ids[2]}, attempt 3, 0.000 s",
        )
    ]
    assert emulator.api_key not in caplog.text
    assert session.client_secret not in caplog.text
    assert "user_123" not in caplog.text


async def test_last_attempt_says_why_no_other_follows(connect, emulator, caplog):
    told = []
    emulator.fail(status=500, times=3)
    with caplog.at_level(logging.DEBUG), pytest.raises(InternalServerError) as caught:
        await connect(on_attempt=told.append).sessions.create(**WANTED)

    assert [attempt.not_retried for attempt in told] == [None, None, "retries_exhausted"]
    assert caplog.messages[-1].endswith(", not retried: retries_exhausted")
    assert caught.value.__notes__ == ["Not retried again: max_retries=2 is used up."]


# Keys


async def test_a_callable_gives_the_key_of_each_attempt(connect):
    keys = iter(["sk-one-one-one", "sk-two-two-two"])
    async with serve(replying(http(status="500 Oops"), http())) as server:
        await connect(api_key=lambda: next(keys), base_url=server.base_url).sessions.create(
            **WANTED
        )

    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer sk-one-one-one",
        "Bearer sk-two-two-two",
    ]


async def test_a_callable_may_give_an_awaitable(connect, emulator):
    async def api_key():
        await asyncio.sleep(0)
        return f"{emulator.api_key}\n"

    await connect(api_key=api_key).sessions.create(**WANTED)

    assert emulator.requests[0].status == 200


async def test_a_rejected_key_is_asked_for_once_more(connect, pace):
    keys = iter(["sk-old-old-old", "sk-new-new-new"])
    async with serve(replying(http(b"{}", "401 No"), http())) as server:
        client = connect(api_key=lambda: next(keys), base_url=server.base_url)
        response = await client.sessions.with_raw_response.create(**WANTED)

    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer sk-old-old-old",
        "Bearer sk-new-new-new",
    ]
    assert response.attempts == 1
    assert pace.waits == []


async def test_a_key_that_stays_the_same_is_not_sent_again(connect):
    async with serve(replying(http(b"{}", "401 No"))) as server:
        client = connect(api_key=lambda: KEY, base_url=server.base_url)
        await failure(client, AuthenticationError)

    assert len(server.requests) == 1


async def test_a_second_401_is_final(connect):
    keys = iter(["sk-one-one-one", "sk-two-two-two", "sk-three-three"])
    async with serve(replying(http(b"{}", "401 No"))) as server:
        client = connect(api_key=lambda: next(keys), base_url=server.base_url)
        await failure(client, AuthenticationError)

    assert len(server.requests) == 2
    assert next(keys) == "sk-three-three"


@pytest.mark.parametrize(
    "error", [RuntimeError("vault"), TimeoutError("vault"), OSError("vault"), KeyError("vault")]
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_a_key_callable_raises_passes_through(connect, emulator, error, asynchronous):
    def plain():
        raise error

    async def awaited():
        raise error

    client = connect(api_key=awaited if asynchronous else plain)
    with pytest.raises(type(error)) as caught:
        await client.sessions.create(**WANTED)

    assert caught.value is error
    assert error.__context__ is None
    assert not emulator.requests


@pytest.mark.parametrize("key", ["", "  ", f"{KEY}\nX: y", f"{KEY}é", None, 5, KEY.encode()])
async def test_a_callables_key_that_cannot_be_right_is_not_sent(connect, emulator, key):
    with pytest.raises(ConfigurationError, match="the key from the callable") as caught:
        await connect(api_key=lambda: key).sessions.create(**WANTED)

    assert KEY not in str(caught.value)
    assert not emulator.requests


# Redirects


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://other.example/v1?token=abc", "https://other.example"),
        ("http://127.0.0.1:9/x", "http://127.0.0.1:9"),
        ("//other.example:8/x", "https://other.example:8"),
        ("/elsewhere", "the same host"),
        ("http://[", "an invalid address"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_names_where_it_would_have_led(client, emulator, status, location, target):
    emulator.fail(status=status, headers={"Location": location})

    error = await failure(client, APIStatusError)

    assert error.status_code == status
    assert f"(to {target})" in error.message
    assert len(emulator.requests) == 1


# Secrets in errors


async def test_an_echoed_secret_is_masked(connect):
    secret = SESSION["client_secret"]
    said = {"error": {"message": f"Bearer {KEY} {secret}", "client_secret": secret}}
    body = json.dumps(said).encode()
    async with serve(replying(http(body, "400 No", x_echo=KEY, Set_Cookie="a=b"))) as server:
        error = await failure(connect(base_url=server.base_url, api_key=KEY))

    assert hides(shown_of(error), KEY)
    assert hides(shown_of(error), secret)
    assert "a=b" not in shown_of(error)


@pytest.mark.parametrize("body", [BODY[:-1], BODY + b"}", b"[%b]" % BODY], ids=["cut", "}", "[]"])
async def test_a_reply_of_no_use_does_not_show_its_client_secret(connect, body):
    async with serve(replying(http(body))) as server:
        error = await failure(connect(base_url=server.base_url), APIResponseError)

    assert hides(shown_of(error), SESSION["client_secret"])
    assert (error.__cause__, error.__context__) == (None, None)


async def test_an_extra_header_is_in_no_frame(client, emulator):
    emulator.fail(status=500, times=None)

    error = await failure(client, extra_headers={"X-Token": "pa55word"})

    assert "pa55word" not in shown_of(error)


async def test_an_error_leaves_no_cycle_that_keeps_its_frames(client, emulator):
    async def failed():
        try:
            await client.sessions.create(**WANTED)
        except APIError as error:
            return weakref.ref(error)

    emulator.fail(drop="close", times=None)
    gc.disable()
    try:
        assert (await failed())() is None
    finally:
        gc.enable()


# Other settings on the same connections


async def test_with_options_shares_connections(client, emulator):
    other = client.with_options(timeout=5.0, organization="org_2")
    await client.sessions.create(**WANTED)
    await other.sessions.create(**WANTED)

    first, second = emulator.requests
    assert first.connection == second.connection
    assert second.headers["OpenAI-Organization"] == "org_2"
    assert "OpenAI-Organization" not in first.headers


async def test_with_options_keeps_what_is_not_named(connect, emulator):
    told = []
    client = connect(on_attempt=told.append, default_headers={"X-A": "1"}, max_retries=0)
    emulator.fail(status=500, times=None)

    await failure(client.with_options(timeout=5.0))

    assert len(told) == 1
    assert emulator.requests[0].headers["X-A"] == "1"


async def test_with_options_does_not_ask_the_environment_again(monkeypatch, emulator):
    monkeypatch.setenv("OPENAI_API_KEY", emulator.api_key)
    monkeypatch.setenv("OPENAI_BASE_URL", emulator.base_url)
    monkeypatch.setenv("OPENAI_ORG_ID", "org_then")
    async with AsyncChatKit() as client:
        for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID"):
            monkeypatch.delenv(name)
        await client.with_options(timeout=5.0).sessions.create(**WANTED)

    assert emulator.requests[0].headers["OpenAI-Organization"] == "org_then"


async def test_closing_what_with_options_gave_closes_nothing(client, emulator):
    async with client.with_options(timeout=5.0) as other:
        await other.sessions.create(**WANTED)
    await client.sessions.create(**WANTED)

    assert [record.connection for record in emulator.requests] == [1, 1]


async def test_closing_a_client_closes_what_with_options_gave(client):
    other = client.with_options(timeout=5.0)
    await client.close()

    with pytest.raises(ClientClosedError):
        await other.sessions.create(**WANTED)


def test_with_options_refuses_what_there_is_not():
    client = AsyncChatKit(api_key=KEY)

    with pytest.raises(TypeError, match="'max_retrys'; did you mean 'max_retries'"):
        client.with_options(max_retrys=3)
    with pytest.raises(ConfigurationError, match="timeout"):
        client.with_options(timeout=0)


def test_with_options_hides_a_key_before_it_can_fail():
    client = AsyncChatKit(api_key=KEY)
    with pytest.raises(ConfigurationError) as caught:
        client.with_options(api_key="sk-" + "other" * 5, timeout=0)

    assert "otherother" not in shown_of(caught.value)


# Its life


async def test_entering_and_leaving_closes(emulator):
    async with AsyncChatKit(api_key=emulator.api_key, base_url=emulator.base_url) as client:
        await client.sessions.create(**WANTED)
        assert emulator.connections == 1

    await emulator.until(lambda: emulator.connections == 0)
    with pytest.raises(ClientClosedError, match="this client is closed: make a new one"):
        await client.sessions.create(**WANTED)


async def test_closing_twice_is_closing_once(client):
    await client.sessions.create(**WANTED)
    await client.close()
    await client.close()


async def test_closing_an_unused_client(client):
    await client.close()

    assert (await closed_error(client)).__context__ is None


async def closed_error(client):
    with pytest.raises(ClientClosedError) as caught:
        await client.sessions.create(**WANTED)
    return caught.value


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("fault", [{"delay": float("inf")}, {"drip": 3600.0}], ids=["head", "body"])
async def test_closing_ends_calls_in_flight(client, emulator, fault, used):
    if used:
        await client.sessions.create(**WANTED)
    emulator.fail(**fault, times=None)
    before = emulator.requests.total
    calls = [asyncio.create_task(closed_error(client)) for _ in range(5)]
    await emulator.until(lambda: emulator.requests.total == before + 5)

    await client.close()

    errors = await asyncio.gather(*calls)
    assert [error.__context__ for error in errors] == [None] * 5
    await emulator.until(lambda: emulator.connections == 0)


async def test_closing_ends_calls_that_wait_for_a_connection(connect, emulator):
    client = connect(max_connections=1)
    emulator.fail(delay=float("inf"))
    calls = [asyncio.create_task(closed_error(client)) for _ in range(3)]
    await emulator.until(lambda: emulator.requests)

    await client.close()

    assert len(await asyncio.gather(*calls)) == 3


async def test_closing_ends_a_wait_between_attempts(connect, emulator):
    waiting = asyncio.Event()

    async def sleep(seconds):
        waiting.set()
        await asyncio.get_running_loop().create_future()

    client = connect()
    client._attempts.seam = attrs.evolve(client._attempts.seam, sleep=sleep)
    emulator.fail(status=500)
    call = asyncio.create_task(closed_error(client))
    await waiting.wait()
    await client.close()

    await call
    assert len(emulator.requests) == 1


async def test_what_the_seams_sleep_raises_passes_through(connect, emulator):
    async def sleep(seconds):
        raise TimeoutError("somebody else's")

    client = connect()
    client._attempts.seam = attrs.evolve(client._attempts.seam, sleep=sleep)
    emulator.fail(status=500)

    with pytest.raises(TimeoutError, match="somebody else's"):
        await client.sessions.create(**WANTED)


async def test_closing_ends_a_wait_for_a_key(connect):
    asked = asyncio.Event()

    async def never():
        asked.set()
        await asyncio.get_running_loop().create_future()

    client = connect(api_key=never)
    call = asyncio.create_task(closed_error(client))
    await asked.wait()
    await client.close()
    await call


def test_closing_from_another_thread_ends_calls_in_flight():
    with Emulator() as emulator:
        emulator.fail(delay=float("inf"), times=None)
        client = AsyncChatKit(api_key=emulator.api_key, base_url=emulator.base_url)
        ended = []

        async def call():
            ended.append(await closed_error(client))

        thread = threading.Thread(target=asyncio.run, args=(call(),))
        thread.start()
        emulator.wait_until(lambda: len(emulator.requests) == 1)
        asyncio.run(client.close())
        thread.join(PATIENCE)
        emulator.wait_until(lambda: emulator.connections == 0)

    assert len(ended) == 1


def test_two_threads_loops_share_a_client():
    with Emulator() as emulator:
        client = AsyncChatKit(api_key=emulator.api_key, base_url=emulator.base_url)
        both = threading.Barrier(2, timeout=PATIENCE)
        made = []

        async def work():
            for _ in range(3):
                both.wait()
                made.append(await client.sessions.create(**WANTED))

        threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        emulator.wait_until(lambda: emulator.connections == 0)
        connections = {record.connection for record in emulator.requests}

    assert len({session.id for session in made}) == 6
    assert len(connections) == 2


async def test_an_unclosed_client_warns(emulator):
    client = AsyncChatKit(api_key=emulator.api_key, base_url=emulator.base_url)
    await client.sessions.create(**WANTED)

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # aiohttp's own
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del client
        gc.collect()
    messages = [str(warning.message) for warning in caught]
    assert f"unclosed client AsyncChatKit(base_url={emulator.base_url!r})" in messages
    await emulator.until(lambda: emulator.connections == 0)


async def test_an_unused_client_does_not_warn():
    AsyncChatKit(api_key=KEY)
    gc.collect()


def test_a_client_that_could_not_be_made_does_not_warn():
    with pytest.raises(ConfigurationError):
        AsyncChatKit()
    gc.collect()


async def test_a_forked_child_starts_anew(client, emulator):
    gate = client._attempts.gate
    for part in (client._attempts.transport, gate):
        part.after_fork()

    await client.sessions.create(**WANTED)

    assert client._attempts.gate is gate
    assert len(emulator.requests) == 1


def test_a_client_refuses_to_be_copied_or_pickled():
    client = AsyncChatKit(api_key=KEY)

    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled: make one per process"):
            copying(client)


USERS_OF_A_CLIENT = {
    "sessions": lambda client: client.sessions,
    "method": lambda client: client.sessions.create,
    "raw": lambda client: client.sessions.with_raw_response,
    "beta": lambda client: client.beta,
    "run": lambda client: client.sessions.create_many([]),
    "other options": lambda client: client.with_options(timeout=5),
    "endpoint": lambda client: (
        ClientSecretEndpoint(client, workflow="w")
        if isinstance(client, AsyncChatKit)
        else BlockingClientSecretEndpoint(client, workflow="w")
    ),
}


@pytest.mark.parametrize("cls", [AsyncChatKit, ChatKit])
@pytest.mark.parametrize("user", USERS_OF_A_CLIENT.values(), ids=USERS_OF_A_CLIENT)
def test_pickling_errors_name_the_public_client(cls, user):
    used = user(cls(api_key=KEY))

    with pytest.raises(TypeError, match=rf"^({cls.__name__}|{type(used).__name__}) holds"):
        pickle.dumps(used)


RESOURCE_PATHS = [
    "sessions.create",
    "sessions.cancel",
    "sessions.open",
    "sessions.create_many",
    "sessions.cancel_many",
    "sessions.with_raw_response.create",
    "sessions.with_raw_response.cancel",
    "chatkit.sessions.create",
    "beta.chatkit.sessions.create",
]


@pytest.mark.parametrize("cls", [AsyncChatKit, ChatKit])
def test_an_autospec_has_the_resources(cls):
    of_class = mock.create_autospec(cls, instance=True)
    of_client = mock.create_autospec(cls(api_key=KEY))
    for path in RESOURCE_PATHS:
        for spec in (of_class, of_client):
            with pytest.raises(TypeError):
                attrgetter(path)(spec)(nonsense=1)
        if path.endswith((".create", ".cancel")):
            fake = attrgetter(path)(of_class)
            assert isinstance(fake, mock.AsyncMock) is (cls is AsyncChatKit)


@pytest.mark.parametrize(
    "http_session",
    [5, object(), mock.AsyncMock(spec=aiohttp.ClientSession), aiohttp.ClientSession],
    ids=["int", "object", "mock", "class"],
)
def test_an_http_session_must_be_one(http_session):
    with pytest.raises(ConfigurationError) as caught:
        AsyncChatKit(api_key=KEY, timeout=-1, http_session=http_session)

    found = dict(caught.value.problems)
    assert found.keys() == {"timeout", "http_session"}
    assert found["http_session"].startswith("must be an aiohttp.ClientSession, got ")


# Development mode logs each step of a task that took 0.1 s, which on a busy machine any may.
DEBUG = """
import logging, os, warnings
warnings.simplefilter("error")
os.environ["PYTHONASYNCIODEBUG"] = "1"
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing"))
"""


@pytest.fixture
def run(programs):
    """Run a program on an emulator, in asyncio's debug mode and with every warning an error."""

    def run(program, *, code=0):
        with Emulator() as emulator:
            program = textwrap.dedent(program).format(
                settings=f"api_key={emulator.api_key!r}, base_url={emulator.base_url!r}"
            )
            process = programs.start(
                ["-c", DEBUG + program],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, err
        return out, err

    return run


def test_one_client_serves_several_runs_without_a_warning(run):
    out, err = run(
        """
        import asyncio
        from chatkit_async import AsyncChatKit

        client = AsyncChatKit({settings})

        async def main():
            session, _ = await asyncio.gather(
                client.sessions.create(user="u", workflow="w"),
                client.sessions.create(user="u", workflow="w"),
            )
            print((await client.sessions.cancel(session.id)).status)

        for _ in range(3):
            asyncio.run(main())
        """
    )

    assert out.split() == ["cancelled"] * 3
    assert err == ""


def test_uvloop_serves_as_well():
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not for Windows")
    with Emulator() as emulator:
        client = AsyncChatKit(api_key=emulator.api_key, base_url=emulator.base_url)

        async def main():
            session = await client.sessions.create(**WANTED)
            return (await client.sessions.cancel(session.id)).status

        for _ in range(2):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                assert runner.run(main()) == "cancelled"
        emulator.wait_until(lambda: emulator.connections == 0)


def test_a_program_that_forgets_to_close_ends_by_itself(run):
    out, err = run(
        """
        import asyncio
        from chatkit_async import AsyncChatKit

        async def main():
            print((await AsyncChatKit({settings}).sessions.create(user="u", workflow="w")).status)

        asyncio.run(main())
        """
    )

    assert out.split() == ["active"]
    assert err == ""


# Being cancelled


async def test_a_cancelled_call_gives_its_connection_back(connect):
    async with serve(replying(HANG, http())) as server:
        client = connect(base_url=server.base_url)
        call = asyncio.create_task(client.sessions.create(**WANTED))
        await server.until(lambda: server.requests)
        call.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await call

        [(session, _)] = client._attempts.transport._opened.values()
        assert not session.connector._acquired
        await server.until(lambda: not server.open)
        assert not client._attempts.transport.timers()
        assert (await client.sessions.create(**WANTED)).id == SESSION["id"]


@pytest.mark.parametrize(
    "fault",
    [{"delay": 3600.0}, {"drip": 60.0}, {"status": 429, "headers": {"Retry-After": "30"}}],
    ids=["head", "body", "wait"],
)
def test_a_callers_own_timeout_is_not_swallowed(virtually, fault):
    async def scenario(emulator, client):
        async def impatient():
            async with asyncio.timeout(7):
                await client.sessions.create(**WANTED)

        emulator.fail(**fault, times=None)
        with pytest.raises(TimeoutError) as caught:
            await impatient()
        assert not isinstance(caught.value, APIError)
        assert not client._attempts.transport._opened[asyncio.get_running_loop()][
            0
        ].connector._acquired
        return asyncio.get_running_loop().time(), len(emulator.requests)

    assert virtually(scenario) == (pytest.approx(7, abs=0.01), 1)


async def test_a_group_that_fails_cancels_its_calls(connect):
    async with serve(replying(HANG)) as server:
        client = connect(base_url=server.base_url)

        async def fail():
            await server.until(lambda: len(server.requests) == 3)
            raise KeyError

        async def together():
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(client.sessions.create(**WANTED))
                group.create_task(fail())

        with pytest.raises(ExceptionGroup) as caught:
            await together()

        assert [type(error) for error in caught.value.exceptions] == [KeyError]
        await server.until(lambda: not server.open)


# Proxies


async def test_a_proxy_of_the_environment_is_used(monkeypatch, connect):
    async with serve(replying(http())) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:pa55word@127.0.0.1:{proxy.port}")
        client = connect(base_url="http://api.example/v1", allow_http=True)
        monkeypatch.delenv("HTTP_PROXY")  # it is looked up once
        await client.sessions.create(**WANTED)

    [request] = proxy.requests
    assert request.line == "POST http://api.example/v1/chatkit/sessions HTTP/1.1"
    assert request.headers["proxy-authorization"].startswith("Basic ")


async def test_no_proxy_is_respected(monkeypatch, connect, emulator):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", ".example")

    assert connect(base_url="https://api.example/v1")._attempts._link.proxy is None
    assert connect(base_url="https://api.test/v1")._attempts._link.proxy == "http://127.0.0.1:9"


async def test_this_machine_is_never_reached_by_the_environments_proxy(
    monkeypatch, connect, emulator
):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    await connect().sessions.create(**WANTED)

    assert emulator.requests[0].status == 200


async def test_a_proxy_given_goes_before_the_environments(monkeypatch, connect):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "*")
    async with serve(replying(http())) as proxy:
        client = connect(
            base_url="http://api.example/v1",
            allow_http=True,
            proxy=f"http://127.0.0.1:{proxy.port}",
        )
        await client.sessions.create(**WANTED)

    assert len(proxy.requests) == 1


async def test_a_proxy_that_refuses_does_not_show_its_password(connect):
    async with serve(replying(http(b"", "407 No"))) as proxy:
        client = connect(
            base_url="https://api.example/v1",
            proxy=f"http://user:pa55word@127.0.0.1:{proxy.port}",
        )
        error = await failure(client, APIConnectionError, max_retries=0)

    assert error.kind == "proxy"
    assert hides(shown_of(error), "user:pa55word")
    assert "pa55word" not in shown_of(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_repeats_its_login_is_not_repeated(connect, scheme):
    def repeat(request):
        header = request.headers["proxy-authorization"]
        login = base64.b64decode(header.removeprefix("Basic ")).decode()
        return http(login.encode(), f"502 {login}", X_Login=header, X_Password=login[5:])

    async with serve(replying(repeat)) as proxy:
        client = connect(
            base_url=f"{scheme}://api.example/v1",
            allow_http=True,
            proxy=f"http://user:pa%2555word@127.0.0.1:{proxy.port}",
        )
        error = await failure(client, max_retries=0)

    for secret in "user:pa%55word", "pa%55word":
        assert hides(shown_of(error), secret)
        assert secret not in shown_of(error) + repr(dict(getattr(error, "headers", {})))


SHORT_PASSWORDS = ["a", "7", "xy", "407", "p@s", "pä", "ab!", "it's", "seven77", "päss'wörd"]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_a_proxys_password_is_masked_whatever_its_length(connect, scheme, encoding):
    def repeat(request):
        basic = request.headers["proxy-authorization"].removeprefix("Basic ")
        login = base64.b64decode(basic).decode()
        password = login.removeprefix("user:")
        told = f"<b>{password}</b>, {login}, {basic}"
        body = json.dumps({"error": {"message": told}}).encode()
        reply = http(body, f"502 {told}", X_Told=told, X_Request_Id=told)
        return reply.decode().encode(encoding)

    attempts = []
    async with serve(replying(repeat)) as proxy:
        for password in SHORT_PASSWORDS:
            login = f"user:{quote(password, safe='')}"
            client = connect(
                base_url=f"{scheme}://api.example/v1",
                allow_http=True,
                proxy=f"http://{login}@127.0.0.1:{proxy.port}",
                on_attempt=attempts.append,
            )
            error = await failure(client, max_retries=0)

            basic = base64.b64encode(f"user:{password}".encode()).decode()
            told = [str(error), str(attempts.pop()), str(dict(getattr(error, "headers", {})))]
            for text in [*told, str(getattr(error, "body", ""))]:
                assert not {password, f"user:{password}", basic} & set(re.split("[ <>,()]+", text))
                assert f"user:{password}" not in text
                assert basic not in text


@pytest.mark.parametrize("status", ["200 OK", "500 Oops"])
async def test_what_a_header_says_is_printable(connect, caplog, status):
    odd = bytes([9, *range(32, 127), *range(128, 256)])
    reply = http(status=status, X_Request_Id="req_<>", X_Odd="<>").replace(b"<>", odd)
    attempts = []
    async with serve(replying(reply)) as server:
        client = connect(base_url=server.base_url, on_attempt=attempts.append)
        with caplog.at_level(logging.DEBUG, "chatkit_async"):
            if status == "200 OK":
                raw = await client.sessions.with_raw_response.create(**WANTED)
                told = [raw.request_id, *raw.headers.values()]
            else:
                error = await failure(client, max_retries=0)
                told = [str(error), error.request_id, *error.headers.values()]

    [line] = [record.getMessage() for record in caplog.records]
    for text in [*told, line, attempts[0].request_id]:
        assert text.isprintable()
    assert "\\x9b" in attempts[0].request_id
    assert "é" in attempts[0].request_id


# TLS and borrowed sessions


async def test_tls_settings_are_used(connect):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serve(replying(http()), ssl=context) as server:
        client = connect(base_url=server.base_url)
        error = await failure(client, APIConnectionError)
        assert (error.kind, error.attempts) == ("certificate", 1)
        assert hides(shown_of(error), client._attempts.settings.api_key)

        session = await client.with_options(ssl=trusting).sessions.create(**WANTED)
        await client.close()
    assert session.id == SESSION["id"]


async def test_a_borrowed_session_is_sent_through_and_left_open(connect, emulator):
    async with aiohttp.ClientSession(
        headers={"X-Theirs": "1"}, raise_for_status=True
    ) as http_session:
        client = connect(http_session=http_session)
        await client.sessions.create(**WANTED)
        emulator.fail(status=404)
        assert isinstance(await failure(client), NotFoundError)
        await client.close()

        assert emulator.requests[0].headers["X-Theirs"] == "1"
        assert not http_session.closed
        assert client._attempts.transport._opened == {}


async def test_closing_ends_calls_through_a_borrowed_session(connect, emulator):
    async with aiohttp.ClientSession() as http_session:
        client = connect(http_session=http_session)
        emulator.fail(delay=float("inf"))
        call = asyncio.create_task(closed_error(client))
        await emulator.until(lambda: emulator.requests)
        await client.close()
        await call

        assert not http_session.closed


# Keep-alive


@pytest.mark.parametrize("end", [CLOSE, RESET], ids=["closed", "reset"])
async def test_a_stale_connection_costs_no_attempt(connect, end, pace):
    async with serve(replying(http(), end, http())) as server:
        client = connect(base_url=server.base_url, max_retries=0)
        await client.sessions.create(**WANTED)
        response = await client.sessions.with_raw_response.create(**WANTED)

    assert response.attempts == 1
    assert pace.waits == []
    assert [request.connection for request in server.requests] == [1, 1, 2]


def test_raw_methods_have_the_methods_own_signatures():
    sessions = AsyncChatKit(api_key=KEY).sessions

    for name in ("create", "cancel"):
        raw = getattr(sessions.with_raw_response, name)
        assert inspect.signature(raw) == inspect.signature(getattr(sessions, name))


async def test_a_closed_client_does_not_wait_at_its_gate(connect, emulator, pace):
    client = connect()
    emulator.fail(status=429, headers={"Retry-After": "30"}, times=None)
    await failure(client, max_retries=0)
    await client.close()

    await failure(client, ClientClosedError)

    assert pace.waits == []


async def test_a_refusal_that_forbids_a_retry_closes_the_gate_all_the_same(connect, emulator):
    client = connect()
    emulator.fail(status=429, headers={"Retry-After": "30", "x-should-retry": "false"})

    await failure(client)

    assert not client._attempts.gate.is_free


async def test_a_quota_that_is_used_up_counts_neither_way_at_the_gate(connect, emulator):
    client = connect()
    error = {"error": {"message": "used up", "code": "insufficient_quota"}}
    emulator.fail(status=429, body=error)

    await failure(client)

    assert client._attempts.gate.is_free
    assert not client._attempts.gate._accepted


async def test_what_was_blank_stays_blank_with_other_options(connect, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-environment")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj_of_the_environment")

    other = connect(organization="", project="").with_options(timeout=1)

    assert (other._attempts.settings.organization, other._attempts.settings.project) == (None, None)


async def test_the_proxy_is_looked_up_once_for_a_base_url(connect, monkeypatch):
    client = connect(base_url="https://api.test/v1")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")

    assert client.with_options(timeout=1)._attempts.settings.proxy is None
    other = client.with_options(base_url="https://other.test/v1")
    assert other._attempts.settings.proxy == "http://proxy:3128"
