"""The way to the API, step by step."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import ssl
from email.utils import formatdate

import pytest
import trustme
from servers import CLOSE, http, replying, serve

from chatkit_async.cli._connection import NO_SUCH_SESSION, clock, connection
from chatkit_async.cli._settings import Target, settings


@pytest.fixture
def examine(environment):
    """Look at the way to a server: findings by their check."""

    async def examine(base_url, *, key="sk-0123456789abcdef", timeout=5.0, **variables):
        environment.setenv("OPENAI_BASE_URL", base_url)
        if key:
            environment.setenv("OPENAI_API_KEY", key)
        for name, value in variables.items():
            environment.setenv(name, value)
        target, _ = settings()
        return {finding.check: finding async for finding in connection(target, timeout)}

    return examine


@pytest.fixture
def authority(environment, tmp_path):
    """A certificate authority that this machine trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    environment.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


def tls(authority, host="127.0.0.1"):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host).configure_cert(context)
    return context


# As far as it goes


async def test_every_step_is_taken_and_nothing_changed(examine, emulator):
    found = await examine(emulator.base_url)
    assert {check: finding.state for check, finding in found.items()} == {
        "name": "ok",
        "connection": "ok",
        "request": "ok",
        "threads": "ok",
        "clock": "ok",
        "browser": "skipped",
    }
    assert found["name"].said == "127.0.0.1 is 127.0.0.1"
    request, probe = emulator.requests
    assert (probe.method, probe.path) == ("GET", "/v1/chatkit/threads")
    assert (request.operation, request.session_id) == ("cancel", NO_SUCH_SESSION)
    assert request.request_id in found["request"].said
    assert not emulator.sessions


async def test_a_server_that_cancels_the_session_all_the_same_is_fine(examine, emulator):
    emulator.fail(body={"id": NO_SUCH_SESSION})
    found = await examine(emulator.base_url)
    assert found["request"].state == "ok"
    assert "(200, request id req_" in found["request"].said


async def test_without_settings_nothing_is_tried():
    target = Target(base_url=None, proxy=None, has_key=True)
    (finding,) = [finding async for finding in connection(target, 1.0)]
    assert (finding.check, finding.state) == ("connection", "skipped")


async def test_without_a_key_no_request_is_made(examine, emulator, environment):
    environment.delenv("OPENAI_API_KEY")
    found = await examine(emulator.base_url, key=None)
    assert found["connection"].state == "ok"
    assert found["request"].state == "skipped"
    assert emulator.requests.total == 0


# Name and connection


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (UnicodeError("label too long"), "label too long"),
        (OSError("odd"), "odd"),
        (TimeoutError(), "no answer in time"),
    ],
)
async def test_a_name_that_is_not_found_ends_it(examine, monkeypatch, error, reason):
    async def getaddrinfo(*args, **kwargs):
        raise error

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    found = await examine("https://api.example/v1")
    assert list(found) == ["name"]
    assert found["name"].state == "failed"
    assert found["name"].said == f"api.example was not found: {reason}"
    assert "HTTPS_PROXY" in found["name"].advice[0]


async def test_a_port_that_nobody_listens_on_ends_it(examine):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = await examine(f"http://127.0.0.1:{port}/v1")
    assert list(found) == ["name", "connection"]
    assert found["connection"].said == (
        f"127.0.0.1 does not answer on port {port}: connection refused"
    )


async def test_a_proxy_is_the_first_hop_and_is_named_as_such(examine):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    proxy = f"http://me:pass@127.0.0.1:{port}"
    found = await examine("https://api.example/v1", HTTPS_PROXY=proxy)
    assert found["name"].said == "the proxy 127.0.0.1 is 127.0.0.1"
    assert found["connection"].said.startswith("the proxy 127.0.0.1 does not answer")
    assert "address of the proxy" in found["connection"].advice[0]
    assert "pass" not in str(found)


# TLS


async def test_tls_that_this_machine_trusts_is_told(examine, authority):
    async with serve(replying(CLOSE), ssl=tls(authority)) as server:
        found = await examine(server.base_url, timeout=5.0)
    assert found["TLS"].state == "ok"
    assert found["TLS"].said.startswith("TLSv1.")


async def test_a_certificate_that_is_not_trusted_ends_it(examine):
    async with serve(replying(CLOSE), ssl=tls(trustme.CA())) as server:
        found = await examine(server.base_url)
    assert list(found) == ["name", "connection", "TLS"]
    assert found["TLS"].said.startswith("the certificate of 127.0.0.1 is not trusted: ")
    assert any("SSL_CERT_FILE" in advice for advice in found["TLS"].advice)


async def test_a_certificate_for_another_host_ends_it(examine, authority):
    async with serve(replying(CLOSE), ssl=tls(authority, "api.example")) as server:
        found = await examine(server.base_url)
    assert "mismatch" in found["TLS"].said


async def test_a_server_without_tls_ends_it(examine, emulator):
    found = await examine(emulator.base_url.replace("http:", "https:"))
    assert list(found) == ["name", "connection", "TLS"]
    assert found["TLS"].said.startswith("127.0.0.1 does not speak TLS on port")


async def test_a_server_that_never_answers_runs_into_the_timeout(examine):
    async def silent(server, wire):
        await wire.reader.read()

    async with serve(silent) as server:
        base_url = server.base_url.replace("http:", "https:")
        found = await examine(base_url, timeout=0.2)
    assert found["TLS"].said.endswith("no answer in time")


# The request


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_refused_is_the_keys_fault(examine, emulator, status):
    emulator.fail(status=status)
    found = await examine(emulator.base_url)
    assert found["request"].state == "failed"
    assert found["request"].concerns_key
    assert found["clock"].state == "ok"


@pytest.mark.parametrize(
    ("status", "state"), [(400, "ok"), (404, "ok"), (429, "failed"), (500, "failed")]
)
async def test_other_answers_of_the_api(examine, emulator, status, state):
    emulator.fail(status=status)
    found = await examine(emulator.base_url)
    assert found["request"].state == state
    assert not found["request"].concerns_key
    assert emulator.requests.total == 2


async def test_a_base_url_without_v1_is_recognised_by_its_answer(examine, emulator):
    found = await examine(emulator.base_url.removesuffix("/v1"))
    assert found["request"].state == "failed"
    assert "no sessions API at this base URL" in found["request"].said
    assert "/v1" in found["request"].advice[0]


async def test_another_server_is_recognised_by_its_answer(examine):
    async with serve(replying(http(b"<html>", "404 Not Found"))) as server:
        found = await examine(server.base_url)
    assert found["request"].state == "failed"
    assert "clock" not in found  # it sent no Date


async def test_a_request_without_an_answer_fails(examine):
    async with serve(replying(CLOSE)) as server:
        found = await examine(server.base_url)
    assert found["request"].state == "failed"
    assert "closed the connection" in found["request"].said


# Threads

ERROR = {"message": "Refused: TITLE", "type": "invalid_request_error", "param": None, "code": None}
NO_SESSION = http(json.dumps({"error": ERROR}).encode(), "404 Not Found")
THREAD = {"id": "cthr_1", "object": "chatkit.thread", "title": "TITLE", "user": "USER"}
THREADS = http(json.dumps({"object": "list", "data": [THREAD], "has_more": True}).encode())


def refusal(status, message="Refused: TITLE"):
    return http(
        json.dumps({"error": ERROR | {"message": message}}).encode(), status, x_request_id="req_1"
    )


def api(sessions, threads):
    """A server with these replies for sessions and for threads."""
    return replying(lambda request: threads if request.line.startswith("GET") else sessions)


async def test_readable_threads_are_fine(examine):
    async with serve(api(NO_SESSION, THREADS)) as server:
        found = await examine(server.base_url)

    assert found["threads"].state == "ok"
    assert found["threads"].said == "threads can be read with this key"
    request, probe = server.requests
    assert probe.line == "GET /v1/chatkit/threads?limit=1 HTTP/1.1"
    assert probe.body == b""
    assert probe.headers["authorization"] == request.headers["authorization"]
    assert probe.headers["openai-beta"] == "chatkit_beta=v1"


@pytest.mark.parametrize("status", ["403 Forbidden", "410 Gone", "404 Not Found", "500 Oops"])
async def test_readable_threads_are_to_be_exported(examine, status):
    async with serve(api(refusal(status, "Invalid URL"), THREADS)) as server:
        found = await examine(server.base_url)

    assert found["request"].state == "failed"
    assert found["threads"].state == "warning"
    assert found["threads"].said == (
        "sessions are refused, but threads can be read: export them now"
    )
    assert "https://" in found["threads"].advice[0]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (refusal("404 Not Found", "Invalid URL (GET /v1/chatkit/threads)"), "no threads API"),
        (refusal("404 Not Found"), "replied 404 to GET /chatkit/threads (request id req_1)"),
        (refusal("403 Forbidden"), "replied 403 to GET /chatkit/threads (request id req_1)"),
        (refusal("410 Gone"), "replied 410"),
        (refusal("500 Oops"), "replied 500"),
        (http(b"<html>TITLE"), "replied 200"),
        (http(b'{"object": "TITLE"}'), "not a usable page"),
        (http(b'{"data": ["TITLE"]}'), "not a usable page"),
        (CLOSE, "closed the connection"),
    ],
)
async def test_unreadable_threads_are_a_warning(examine, reply, said):
    async with serve(api(NO_SESSION, reply)) as server:
        found = await examine(server.base_url)

    assert found["request"].state == "ok"
    assert found["threads"].state == "warning"
    assert said in found["threads"].said
    assert "TITLE" not in repr(found["threads"])


async def test_threads_are_not_asked_for_without_a_reply(examine):
    async with serve(replying(CLOSE)) as server:
        assert "threads" not in await examine(server.base_url)


# The clock


NOW = 1_800_000_000.0


@pytest.mark.parametrize("off", [0.0, 4.9, -4.9])
def test_clocks_that_agree(off):
    assert clock(formatdate(NOW, usegmt=True), NOW + off).state == "ok"


@pytest.mark.parametrize(
    ("off", "said"), [(90.0, "90 seconds ahead of"), (-3600.0, "3600 seconds behind")]
)
def test_a_clock_that_is_off_is_warned_of(off, said):
    finding = clock(formatdate(NOW, usegmt=True), NOW + off)
    assert finding.state == "warning"
    assert finding.said == f"this machine's clock is {said} the server's"


@pytest.mark.parametrize("date", ["yesterday", "", "Fri, 99 Jan 2027 08:00:00 GMT"])
def test_a_server_that_does_not_tell_the_time(date):
    finding = clock(date, math.pi)
    assert finding.state == "skipped"
