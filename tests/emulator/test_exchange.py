from __future__ import annotations

import asyncio
import itertools
import json
import math

import aiohttp
import pytest

from chatkit_async.emulator import Clock, Emulator


@pytest.fixture
async def connect(emulator):
    """Open bare connections to the emulator, for what an HTTP client hides."""
    port = int(emulator.base_url.rpartition(":")[2].partition("/")[0])
    writers = []

    async def connect():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()


@pytest.fixture
def raw_create(headers):
    """A create request as it goes over the wire."""

    def raw_create(extra=(), body=b'{"user": "u", "workflow": {"id": "wf"}}'):
        lines = [
            b"POST /v1/chatkit/sessions HTTP/1.1",
            b"Host: 127.0.0.1",
            b"Content-Type: application/json",
            b"Content-Length: %d" % len(body),
            *(f"{name}: {value}".encode() for name, value in headers.items()),
            *extra,
        ]
        return b"\r\n".join([*lines, b"", body])

    return raw_create


async def test_a_request_is_noted_as_it_came(http, emulator, wanted):
    async with http.post(
        "chatkit/sessions", json=wanted, params={"a": "ü"}, headers={"X-Mine": "1"}
    ) as response:
        request_id = response.headers["x-request-id"]

    [record] = emulator.requests
    assert record.number == 1
    assert record.method == "POST"
    assert record.path == "/v1/chatkit/sessions"
    assert record.query == "a=%C3%BC"
    assert record.headers["x-mine"] == "1"
    assert record.body == wanted
    assert record.operation == "create"
    assert record.session_id in emulator.sessions
    assert record.status == 200
    assert record.outcome == "sent"
    assert record.fault is None
    assert record.request_id == request_id
    assert record.received_at == emulator.clock.now()


async def test_a_body_that_is_no_json_is_noted_as_bytes(http, emulator):
    async with http.post("chatkit/sessions", data=b"\xff") as response:
        assert response.status == 400

    assert emulator.requests[-1].body == b"\xff"


async def test_requests_on_one_connection_say_so(create, emulator, http):
    await create()
    await create()
    await create(headers={"Connection": "close"})
    await create()

    assert [record.connection for record in emulator.requests] == [1, 1, 1, 2]


async def test_credentials_are_noted_masked(create, emulator):
    for (credentials, noted), name in itertools.product(
        [
            ("Bearer sk-a-key-of-some-length", "Bearer ***ngth"),
            ("Bearer short-key", "***"),
            ("sk-a-key-without-a-scheme", "***"),
            ("Basic dXNlcjpwYXNzd29yZA==", "***"),
        ],
        ["Authorization", "Proxy-Authorization"],
    ):
        await create(headers={name: credentials})

        assert emulator.requests[-1].headers[name] == noted


@pytest.mark.parametrize("name", ["api-key", "X-API-Key", "Cookie"])
async def test_credentials_that_are_sent_otherwise_are_not_noted(create, emulator, name):
    await create(headers={name: "Bearer a-key-of-some-length"})

    assert "length" not in str(emulator.requests[-1].headers[name].removesuffix("***ngth"))


async def test_secrets_in_any_header_are_noted_masked(create, emulator):
    await create(
        headers={
            "OpenAI-Project": "sk-by-mistake",
            "X-Emulator-Fault": "delay=0; status=503; user=sk-scripted",
            "X-Said": "a task-list for ek_secret",
        }
    )

    headers = emulator.requests[-1].headers
    assert headers["openai-project"] == "sk-***"
    assert headers["X-Emulator-Fault"].endswith("user=sk-***")
    assert headers["X-Said"] == "a task-list for ek_***"
    assert headers["Authorization"] == "Bearer ***-key"


async def test_a_key_that_is_sent_as_an_id_is_noted_masked(cancel, emulator):
    await cancel("sk-secret")

    record = emulator.requests[-1]
    assert record.session_id == "sk-***"
    assert "secret" not in f"{record} {record!r}"


async def test_secrets_in_a_path_or_a_query_are_noted_masked(cancel, emulator):
    status, body = await cancel("ek_secret", params={"key": "sk-secret", "secret": "ek_secret"})

    assert status == 404
    assert "secret" not in body["error"]["message"]
    record = emulator.requests[-1]
    assert record.path == "/v1/chatkit/sessions/ek_***/cancel"
    assert record.query == "key=sk-***&secret=ek_***"
    assert record.session_id == "ek_***"


async def test_a_request_says_which_user_it_is_about(create, cancel, http, emulator):
    _, created = await create()
    await cancel(created["id"])
    await cancel("cksess_unknown")
    await create({"user": 5})
    await create([])
    async with http.get("models"):
        pass

    users = [record.user for record in emulator.requests]
    assert users == ["user_123", "user_123", None, None, None, None]


async def test_what_is_no_http_is_refused_in_the_apis_shape_and_not_logged(
    connect, raw_create, emulator, caplog
):
    reader, writer = await connect()
    writer.write(raw_create([b"X-Key: sk-secret\x00"]))

    head, _, body = (await reader.read()).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.0 400 ")
    assert b"x-request-id: req_" in head
    assert json.loads(body)["error"]["message"] == "This is not an HTTP request."
    assert "secret" not in caplog.text
    assert not emulator.requests


async def test_a_failure_of_the_emulator_itself_is_told_as_such(headers, wanted, caplog):
    def fail():
        raise RuntimeError("the clock stands")

    async with (
        Emulator(clock=Clock(fail)) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
        http.post("chatkit/sessions", json=wanted) as response,
    ):
        assert response.status == 500
    assert "the clock stands" in caplog.text


async def test_organization_and_project_are_echoed(http, wanted):
    scope = {"OpenAI-Organization": "org_1", "OpenAI-Project": "proj_1"}
    async with http.post("chatkit/sessions", json=wanted, headers=scope) as response:
        assert response.headers["openai-organization"] == "org_1"
        assert response.headers["openai-project"] == "proj_1"


@pytest.mark.parametrize("header", [b"OpenAI-Project: \xff", "OpenAI-Project: é".encode()])
async def test_a_project_that_is_no_ascii_is_not_echoed(connect, raw_create, header):
    reader, writer = await connect()
    writer.write(raw_create([header, b"Connection: close"]))

    reply = await reader.read()

    assert reply.startswith(b"HTTP/1.1 200 ")
    assert b"project" not in reply.lower()


async def test_every_reply_has_the_captured_headers(http, emulator):
    async with http.get("models") as response:
        headers = response.headers

    request_id = emulator.requests[-1].request_id
    assert headers["x-request-id"] == request_id
    assert headers["openai-version"] == "2020-10-01"
    assert headers["x-envoy-upstream-service-time"] == headers["openai-processing-ms"]
    assert headers["cf-ray"] == f"{request_id[4:20]}-LHR"
    assert {"cf-cache-status", "strict-transport-security", "alt-svc"} <= {
        name.lower() for name in headers
    }
    assert not [name for name in headers if name.lower().startswith("x-ratelimit-")]
    assert "Retry-After" not in headers


async def test_every_reply_says_how_long_it_took(http):
    async with http.get("models") as response:
        assert int(response.headers["openai-processing-ms"]) >= 0


@pytest.mark.parametrize(
    ("now", "date"),
    [
        (1_700_000_000.9, "Tue, 14 Nov 2023 22:13:20 GMT"),
        (-1.0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (1e18, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ],
)
async def test_every_reply_has_the_date_of_the_emulators_clock(emulator, http, now, date):
    emulator.clock.freeze()
    emulator.clock.set(now)
    async with http.get("models") as response:
        assert response.headers["Date"] == date


async def test_request_ids_differ_and_follow_from_the_seed(headers):
    async def ids(seed):
        async with (
            Emulator(seed=seed) as emulator,
            aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
        ):
            for _ in range(2):
                async with http.get("models"):
                    pass
            return [record.request_id for record in emulator.requests]

    first = await ids(1)
    assert first == await ids(1)
    assert len({*first, *await ids(2)}) == 4


async def test_a_closed_connection_ends_without_a_reply(connect, raw_create, emulator):
    emulator.fail(drop="close")
    reader, writer = await connect()
    writer.write(raw_create())

    assert await reader.read() == b""
    assert emulator.requests[-1].outcome == "dropped"
    assert emulator.requests[-1].status is None
    assert not emulator.sessions


async def test_a_reset_connection_ends_with_a_reset(connect, raw_create, emulator):
    emulator.fail(drop="reset")
    reader, writer = await connect()
    writer.write(raw_create())

    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert emulator.requests[-1].outcome == "dropped"


async def test_a_connection_can_be_dropped_after_the_effect(connect, raw_create, emulator):
    emulator.fail(drop="close", after=True)
    reader, writer = await connect()
    writer.write(raw_create())

    assert await reader.read() == b""
    assert list(emulator.sessions) == [emulator.requests[-1].session_id]


async def test_a_cut_reply_promises_more_than_it_sends(connect, raw_create, emulator):
    emulator.fail(cut=True)
    reader, writer = await connect()
    writer.write(raw_create())

    head, _, body = (await reader.read()).partition(b"\r\n\r\n")

    [promised] = [
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    ]
    assert len(body) == promised // 2
    assert b"connection: close" not in head.lower()
    assert emulator.requests[-1].outcome == "cut"
    assert len(emulator.sessions) == 1


async def test_a_cut_of_an_empty_body_promises_a_byte(connect, raw_create, emulator):
    emulator.fail(cut=True, body=b"")
    reader, writer = await connect()
    writer.write(raw_create())

    head, _, body = (await reader.read()).partition(b"\r\n\r\n")

    assert b"content-length: 1" in head.lower()
    assert body == b""


async def test_a_dripping_reply_arrives_whole(create, emulator):
    emulator.fail(drip=0.00001)

    status, body = await create()

    assert status == 200
    assert body["id"] in emulator.sessions
    assert emulator.requests[-1].outcome == "sent"


async def test_a_client_that_leaves_before_its_reply_is_noted_and_the_effect_stays(
    http, emulator, wanted
):
    emulator.fail(delay=math.inf)
    creating = asyncio.ensure_future(http.post("chatkit/sessions", json=wanted))
    await emulator.until(lambda: emulator.requests.total == 1)
    assert emulator.requests[-1].outcome == "pending"

    creating.cancel()
    await emulator.until(lambda: emulator.requests[-1].outcome != "pending")

    assert emulator.requests[-1].outcome == "client_gone"
    assert emulator.requests[-1].status is None
    assert len(emulator.sessions) == 1


async def test_a_client_that_leaves_amid_its_request_is_noted(connect, raw_create, emulator):
    _, writer = await connect()
    writer.write(raw_create()[:-5])
    await emulator.until(lambda: emulator.connections == 1)
    writer.close()
    await emulator.until(lambda: emulator.requests.total == 1)

    assert emulator.requests[-1].outcome == "client_gone"
    assert not emulator.sessions


async def test_a_client_that_leaves_amid_a_dripping_reply_is_noted(http, emulator, wanted):
    emulator.fail(body=b"ab", drip=math.inf)
    async with http.post("chatkit/sessions", json=wanted) as response:
        response.close()
    await emulator.until(lambda: emulator.requests[-1].outcome != "sent")

    assert emulator.requests[-1].outcome == "client_gone"


async def test_a_connection_that_breaks_as_the_reply_is_written_is_noted(wanted, headers):
    def break_connections():
        for _, transport in emulator._server._open.values():
            transport.abort()
        return 0.0

    async with (
        Emulator(clock=Clock(break_connections)) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
    ):
        with pytest.raises(aiohttp.ClientError):
            await http.post("chatkit/sessions", json=wanted)

        assert emulator.requests[-1].outcome == "client_gone"


async def test_each_request_is_handed_over_once_its_outcome_is_known(wanted, headers):
    lines = []
    async with (
        Emulator(on_request=lambda record: lines.append(str(record))) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
    ):
        async with http.post("chatkit/sessions", json=wanted) as response:
            body = json.loads(await response.read())
        async with http.get("models"):
            pass
        await emulator.until(lambda: len(lines) == 2)

    created, unknown = emulator.requests
    assert lines == [
        f"POST /v1/chatkit/sessions 200 {created.request_id}",
        f"GET /v1/models 404 {unknown.request_id}",
    ]
    assert body["client_secret"] not in "".join(lines)
