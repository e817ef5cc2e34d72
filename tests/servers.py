"""Servers that do to a connection what no HTTP server would: raw sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct

import attrs

SESSION = {
    "id": "cksess_123",
    "object": "chatkit.session",
    "expires_at": 1_900_000_000,
    "client_secret": "ek_" + "s3cr3t" * 6,
    "workflow": {
        "id": "wf_123",
        "version": None,
        "state_variables": None,
        "tracing": {"enabled": True},
    },
    "user": "user_123",
    "rate_limits": {"max_requests_per_1_minute": 10},
    "max_requests_per_1_minute": 10,
    "status": "active",
    "chatkit_configuration": {
        "automatic_thread_titling": {"enabled": True},
        "file_upload": {"enabled": False, "max_file_size": 512, "max_files": 10},
        "history": {"enabled": True, "recent_threads": None},
    },
}
BODY = json.dumps(SESSION).encode()

HANG = object()
"""Instead of a reply: none, ever."""
CLOSE = object()
"""Instead of a reply: the connection's end."""
RESET = object()
"""Instead of a reply: the connection's reset."""


@attrs.frozen
class Cut:
    """Instead of a reply: its beginning, and then the connection's end."""

    data: bytes


def http(body=BODY, status="200 OK", **headers):
    """A reply as it goes over the wire; `None` leaves a header out."""
    fields = {"Content-Type": "application/json", "Content-Length": len(body)}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status}", *(f"{k}: {v}" for k, v in fields.items() if v is not None)]
    return "\r\n".join([*lines, "", ""]).encode() + body


def created(request):
    """The reply to a create: a session of the user in its body."""
    user = json.loads(request.body)["user"]
    return http(session_of(user))


def session_of(user):
    """A session as the API sends it, with an id and a secret that tell whose it is."""
    ours = {"user": user, "id": f"cksess_{user}", "client_secret": f"ek_of_{user}"}
    return json.dumps(SESSION | ours).encode()


@attrs.frozen
class Request:
    connection: int
    line: str
    headers: dict[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


class Wire:
    """A connection to a raw server."""

    def __init__(self, number, reader, writer):
        self.number = number
        self.reader = reader
        self.writer = writer

    async def request(self):
        """Read a request."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Request(self.number, line, headers, body)

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    def reset(self):
        linger_not = struct.pack("ii", 1, 0)
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        self.writer.transport.abort()


class Server:
    """A raw server: what `serve` gives."""

    def __init__(self, scheme):
        self.scheme = scheme
        self.port = 0
        self.connections = 0
        self.requests = []
        self.open = set()
        self._changed = asyncio.Event()

    @property
    def base_url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"

    def note(self):
        self._changed.set()

    async def until(self, predicate):
        """Wait until something is true of this server."""
        while not predicate():
            self._changed.clear()
            await self._changed.wait()


@contextlib.asynccontextmanager
async def serve(handle, *, ssl=None, sock=None):
    """Serve on loopback: `handle(server, wire)` is called for each connection, and then it closes.

    `sock` is a socket that is bound already, where the port has to be known before.
    """
    server = Server("https" if ssl else "http")
    tasks = set()

    async def connected(reader, writer):
        task = asyncio.current_task()
        server.connections += 1
        wire = Wire(server.connections, reader, writer)
        tasks.add(task)
        server.open.add(wire)
        server.note()
        try:
            # The client's leaving is not the server's failure.
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await handle(server, wire)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)
            server.open.discard(wire)
            server.note()

    where = {"host": "127.0.0.1", "port": 0} if sock is None else {"sock": sock}
    listener = await asyncio.start_server(connected, **where, ssl=ssl)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks)
        await listener.wait_closed()


def replying(*replies):
    """Answer each request with the next of `replies`; the last one is for all that follow.

    A reply is bytes, `HANG`, `CLOSE`, `RESET` or a `Cut`, or a callable that makes one of the
    request.
    """
    script = list(replies)

    async def handle(server, wire):
        while True:
            request = await wire.request()
            server.requests.append(request)
            server.note()
            reply = script.pop(0) if len(script) > 1 else script[0]
            if callable(reply):
                reply = reply(request)
            if reply is HANG:
                await wire.reader.read()
                return
            if reply is CLOSE:
                return
            if reply is RESET:
                wire.reset()
                return
            if isinstance(reply, Cut):
                await wire.send(reply.data)
                return
            await wire.send(reply)

    return handle
