"""How a request arrives: absolute targets, `Expect`, and bodies beyond bounds or encodings."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import zlib

import aiohttp
import pytest

from chatkit_async.emulator import Emulator

CREATE = b'{"user": "u", "workflow": {"id": "wf"}}'
MAX_BODY = 10_000


@pytest.fixture
async def small():
    async with Emulator(max_body=MAX_BODY) as emulator:
        yield emulator


async def talk(emulator, *parts):
    """Send bytes, and more of them after each reply; return all that was replied."""
    port = int(emulator.base_url.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = b""
    for part in parts:
        writer.write(part)
        said += await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return said


def request_of(body=CREATE, target="/v1/chatkit/sessions", version="1.1", **changes):
    """Return a create request as it goes over the wire, its head and its body."""
    fields = {
        "Host": "127.0.0.1",
        "Authorization": f"Bearer {Emulator.api_key}",
        "OpenAI-Beta": "chatkit_beta=v1",
        "Content-Type": "application/json",
        "Content-Length": len(body),
        **changes,
    }
    lines = [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([f"POST {target} HTTP/{version}", *lines, "", ""]).encode(), body


def statuses(said):
    return [int(line.split()[1]) for line in said.split(b"\r\n") if line.startswith(b"HTTP/")]


# Targets


async def test_an_absolute_target_is_its_path(emulator):
    for target, host, status in [
        ("http://localhost:80/v1/chatkit/sessions", "localhost", 200),
        ("HTTP://127.0.0.1/v1/chatkit/sessions?a=1", "127.0.0.1", 200),
        ("https://localhost/v1/chatkit/sessions", "localhost", 200),
        ("http://localhost/v1/chatkit/sessions", "evil.example", 200),
        ("http://evil.example/v1/chatkit/sessions", "localhost", 421),
        ("http://localhost@evil.example/v1/chatkit/sessions", "localhost", 421),
        ("http://localhost", "localhost", 404),
        ("http://localhost?a=1", "localhost", 404),
    ]:
        emulator.reset()
        said = await talk(emulator, b"".join(request_of(target=target, Host=host)))

        assert statuses(said) == [status]
        if status == 200:
            assert emulator.requests[-1].path == "/v1/chatkit/sessions"
            assert emulator.requests[-1].query == target.partition("?")[2]
        else:
            assert not emulator.sessions


async def test_an_absolute_target_reaches_the_controls(emulator):
    target = f"{emulator.control_url}/state"
    said = await talk(emulator, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    assert statuses(said) == [200]


# Expect


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue"])
async def test_a_client_is_told_to_continue(emulator, expect):
    assert statuses(await talk(emulator, *request_of(Expect=expect))) == [100, 200]


@pytest.mark.parametrize("changes", [{"Expect": "no-such-thing"}, {}])
async def test_a_client_that_expects_nothing_is_told_nothing(emulator, changes):
    assert statuses(await talk(emulator, b"".join(request_of(**changes)))) == [200]


async def test_an_old_client_is_not_told_to_continue(emulator):
    request = request_of(version="1.0", Expect="100-continue")

    assert statuses(await talk(emulator, b"".join(request))) == [200]


@pytest.mark.parametrize(
    ("changes", "status"), [({"Content-Length": MAX_BODY + 1}, 413), ({"Origin": "null"}, 403)]
)
async def test_a_refused_client_is_not_told_to_continue(small, changes, status):
    head, _ = request_of(Expect="100-continue", **changes)

    assert statuses(await talk(small, head)) == [status]


async def test_the_controls_tell_a_client_to_continue(emulator):
    request = request_of(b'{"off_schema": true}', Expect="100-continue")
    head, body = (
        part.replace(b"POST /v1/chatkit/sessions", b"PATCH /_emulator/settings") for part in request
    )

    assert statuses(await talk(emulator, head, body)) == [100, 200]
    assert emulator.off_schema


# Bodies

ENCODINGS = {
    "identity": lambda body: body,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


async def pieces(sent):
    for start in range(0, len(sent), 100_000):
        yield sent[start : start + 100_000]


async def test_a_body_is_accepted_up_to_its_limit(small, headers):
    for chunked, encoding, excess in itertools.product(
        [False, True], ENCODINGS, [-1, 0, 1, 1_000_000]
    ):
        small.reset()
        body = CREATE + b" " * (MAX_BODY - len(CREATE) + excess)
        sent = ENCODINGS[encoding](body)
        headers |= {"Content-Type": "application/json", "Content-Encoding": encoding}
        async with (
            aiohttp.ClientSession(f"{small.base_url}/", headers=headers) as http,
            http.post("chatkit/sessions", data=pieces(sent) if chunked else sent) as response,
        ):
            reply = await response.json()

        [record] = small.requests
        if excess <= 0:
            assert (response.status, record.body_size) == (200, MAX_BODY + excess)
        else:
            assert (response.status, record.status, record.content) == (413, 413, b"")
            assert reply["error"] == {
                "message": "The request's body is too large: expected at most 10000 bytes.",
                "type": "invalid_request_error",
                "param": None,
                "code": "request_too_large",
            }
            assert not small.sessions


async def test_a_body_that_is_too_large_meets_no_fault(small):
    small.fail(status=503)

    assert statuses(await talk(small, b"".join(request_of(b" " * (MAX_BODY + 1))))) == [413]
    assert len(small.faults) == 1


@pytest.mark.parametrize("sizes", [(-1, 200), (0, 200), (1, 413)])
async def test_a_controls_body_is_accepted_up_to_its_limit(small, sizes):
    excess, status = sizes
    body = b"{}" + b" " * (MAX_BODY - 2 + excess)
    json_type = {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(headers=json_type) as http,
        http.patch(f"{small.control_url}/clock", data=body) as response,
    ):
        assert response.status == status


@pytest.mark.parametrize("max_body", [0, -1])
def test_a_limit_of_bodies_is_at_least_a_byte(max_body):
    with pytest.raises(ValueError, match=r"max_body must be a whole number of 1 or more, got -?\d"):
        Emulator(max_body=max_body)


@pytest.mark.parametrize("path", ["/v1/chatkit/sessions", "/_emulator/reset"])
@pytest.mark.parametrize("origin", [{}, {"Origin": "https://evil.example"}])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_not_in_its_encoding_is_refused_in_silence(
    emulator, caplog, path, origin, encoding
):
    request = b"".join(request_of(target=path, **origin, **{"Content-Encoding": encoding}))

    assert statuses(await talk(emulator, request)) == [403 if origin else 400]
    await emulator.until(lambda: emulator.connections == 0)
    assert caplog.text == ""
    assert not emulator.sessions


async def test_many_large_bodies_leave_little_behind(headers):
    # Decoded, each is thirty times as large.
    bombs = [b"[" + b"{}," * 60_000 + b"{}]", json.dumps({f"{i:0999}": 0 for i in range(200)})]
    headers |= {"Content-Type": "application/json"}
    async with (
        Emulator() as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
    ):
        for bomb in bombs:
            async with http.post("chatkit/sessions", data=bomb) as response:
                assert response.status == 400
        for record, bomb in zip(emulator.requests, bombs, strict=True):
            assert record.body_size == len(bomb)
            assert len(record.body) == len(record.content) == 64 * 1024
