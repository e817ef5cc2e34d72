"""What a server, or the network before it, does to an attempt.

A behaviour is given the wire, the request that was read from it, and the cell it happens in. It
returns whether the connection goes on.

What a server says, it says with the key and a client secret in it: none of it may come out.
"""

from __future__ import annotations

import base64
import gzip
import json
from ssl import MemoryBIO, SSLError
from urllib.parse import quote

from servers import BODY, SESSION, http

DATE = "Mon, 02 Nov 2026 12:00:00 GMT"
SOON = "Mon, 02 Nov 2026 12:00:02 GMT"
PAST = "Mon, 02 Nov 2026 11:00:00 GMT"

ATTEMPT_TIMEOUT = 10.0
CONNECT_TIMEOUT = 5.0
"""Seconds: the limits in a cell, and so how much time passes there while a server does nothing."""

SAID = {
    400: ("Invalid value for 'expires_after.seconds': 86400.", "invalid_value"),
    401: ("Incorrect API key provided: {key}.", "invalid_api_key"),
    403: ("You have insufficient permissions for this operation.", None),
    404: ("No such {what}.", None),
    409: ("The resource is being modified by another request.", None),
    422: ("Unprocessable request.", None),
    429: ("Rate limit reached for requests.", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request.", None),
    503: ("The service is overloaded.", None),
}


def key_of(request):
    return request.headers["authorization"].removeprefix("Bearer ")


def echo(request):
    """What a careless server or proxy might send back."""
    key = key_of(request)
    return {
        "authorization": request.headers["authorization"],
        "query": f"?key={quote(key, safe='')}&again={key}",
        "basic": [base64.b64encode(f"{user}:{key}".encode()).decode() for user in ("", "a", "ab")],
        "json": json.dumps({"key": key}),
        "session": SESSION,
    }


def status(code, *, error_code=None, **headers):
    """An error as the API writes it."""
    said, usual_code = SAID.get(code, (None, None))

    async def respond(wire, request, cell):
        what = "session" if "/cancel" in request.line else "workflow"
        error = {
            "message": said and said.format(key=key_of(request), what=what),
            "type": "invalid_request_error",
            "param": None,
            "code": error_code or usual_code,
        }
        content = json.dumps({"error": error, "echo": echo(request)}).encode()
        headers.setdefault("x_request_id", f"req_{code}")
        headers.setdefault("X_Echo", request.headers["authorization"])
        headers.setdefault("Set_Cookie", f"session={SESSION['client_secret']}")
        await wire.send(http(content, f"{code} Said So", **headers))
        return True

    return respond


def redirect(code, host):
    """A redirect to another path of a host that is this very server: it would see who follows."""

    async def respond(wire, request, cell):
        target = f"http://{host}:{cell.server.port}/elsewhere?key={key_of(request)}"
        return await status(code, Location=target)(wire, request, cell)

    return respond


def reply(content, **headers):
    """A reply of success with this body."""

    async def respond(wire, request, cell):
        await wire.send(http(content, x_request_id="req_200", **headers))
        return True

    return respond


def session(**changed):
    """A session, with some of it changed, as JSON."""
    return json.dumps({**SESSION, **changed}).encode()


def raw(data):
    """Bytes that may be no HTTP, and the connection's end."""

    async def respond(wire, request, cell):
        await wire.send(data)
        return False

    return respond


async def garbled(wire, request, cell):
    """No HTTP, but the key: where a message that is cut, and then masked, would show half of it."""
    await wire.send(f"{'-' * 185}{key_of(request)}\r\n\r\n".encode())
    return False


async def encoded(wire, request, cell):
    """A body in an unknown encoding, whose name is the key."""
    await wire.send(http(b"<html>", Content_Encoding=key_of(request), x_request_id="req_200"))
    return True


async def overlong(wire, request, cell):
    """A header over the limit, with the key where a message about it is cut."""
    await wire.send(http(X_Echo=f"{'-' * 90}{key_of(request)}{'-' * 70_000}"))
    return False


def reset(data=b""):
    """Some bytes, and the connection's reset."""

    async def respond(wire, request, cell):
        if data:
            await wire.send(data)
        wire.reset()
        return False

    return respond


def silent(data=b""):
    """Some bytes, and then nothing, ever."""

    async def respond(wire, request, cell):
        if data:
            await wire.send(data)
        cell.clock.advance(ATTEMPT_TIMEOUT)
        await wire.reader.read()
        return False

    return respond


def dribbling(data, rest):
    """Some bytes, and then a byte a second, until the client's patience is over."""

    async def respond(wire, request, cell):
        await wire.send(data)
        for byte in rest[: int(ATTEMPT_TIMEOUT)]:
            await wire.send(bytes([byte]))
            cell.clock.advance(1.0)
        await wire.reader.read()
        return False

    return respond


def endless():
    """A body that never ends, in chunks."""

    async def respond(wire, request, cell):
        await wire.send(http(b"", **CHUNKED))
        while True:  # until the client is gone
            await wire.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    return respond


async def closing(wire, request, cell):
    """No reply, and the connection's end."""
    return False


async def tls_port(wire, request, cell):
    """What OpenSSL makes of plain HTTP."""
    incoming, outgoing = MemoryBIO(), MemoryBIO()
    server = cell.certificates.context("right").wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(request.line.encode())
    try:
        server.do_handshake()
    except SSLError:
        await wire.send(outgoing.read())
    return False


HEAD = http(x_request_id="req_200")[: -len(BODY)]
NESTED = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
TWICE = BODY[:-1] + b', "status": "cancelled"}'
UNFINISHED_JSON = BODY[:-40]
OFF_SCHEMA = json.dumps({name: [None] for name in SESSION}).encode()
GZIP = gzip.compress(BODY)
BROTLI = b'\x8b\t\x80{"id": "cksess_123"}\x03'
BOMB = gzip.compress(b" " * 100 * 1024 * 1024)
CHUNKED = {"Content_Length": None, "Transfer_Encoding": "chunked", "x_request_id": "req_200"}
FIVE_MIB = session(padding="x" * 5 * 1024 * 1024)
FLOOD = b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50_000 + b"\r\n"
