"""The load server: answers as the API does, from bytes made beforehand.

A POST is answered as a create, a GET of a thread's items with a page, and a DELETE as the deletion
of the thread.

Run as a script in a process of its own, it prints a line of JSON with its port, and ends with its
standard input. It must not be what a benchmark waits for, so it does as little as possible, and
says what that takes: see `stats`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

LONGEST_LIFE = 3600.0
"""Seconds after which the server ends, whatever became of who started it."""

CLIENT_SECRET = "ek_68fb0a1d2b3c8190a4d5e6f708192a3b_00112233445566778899aabbccddeeff"

SESSION = {
    "id": "cksess_68fb0a1d2b3c8190a4d5e6f708192a3b",
    "object": "chatkit.session",
    "expires_at": 1893456000,
    "client_secret": CLIENT_SECRET,
    "workflow": {
        "id": "wf_68df4b13b3588190a09d19288d4610ec0df388c3983f58d1",
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

# What api.openai.com sends from behind its CDN. The cookies are without its `Domain`, which no
# client would take from a host on loopback.
HEADERS = [
    ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ("Content-Type", "application/json"),
    ("Connection", "keep-alive"),
    ("x-request-id", "req_5f1d8a0e7c9b4d3fa2e6b8c0d4f17e92"),
    ("openai-organization", "org-benchmark"),
    ("openai-project", "proj_benchmark"),
    ("openai-processing-ms", "87"),
    ("openai-version", "2020-10-01"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
    ("x-content-type-options", "nosniff"),
    ("cf-cache-status", "DYNAMIC"),
    ("Server", "cloudflare"),
    ("CF-RAY", "99a1b2c3d4e5f607-FRA"),
    ("alt-svc", 'h3=":443"; ma=86400'),
]
COOKIES = [
    ("Set-Cookie", f"__cf_bm={'Nq3m8vJ2xQ7r' * 10}; path=/; expires=Fri, 01-Jan-38 00:30:00 GMT"),
    ("Set-Cookie", f"_cfuvid={'aB1cD2eF3gH4' * 6}; path=/; HttpOnly"),
]


def _reply(headers: list[tuple[str, str]], content: object) -> bytes:
    body = json.dumps(content, indent=2).encode()
    lines = [
        "HTTP/1.1 200 OK",
        *(f"{name}: {value}" for name, value in headers),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


PLAIN = _reply(HEADERS, SESSION)
WITH_COOKIES = _reply(HEADERS + COOKIES, SESSION)

PAGE_SIZE = 100
LAST_ITEM = 1_000_000

ITEMS = (
    {
        "type": "chatkit.user_message",
        "content": [{"type": "input_text", "text": "Where is the parcel that I ordered? " * 3}],
        "attachments": [],
        "inference_options": {"tool_choice": None, "model": None},
    },
    {
        "type": "chatkit.assistant_message",
        "content": [
            {"type": "output_text", "text": "It arrives tomorrow. " * 10, "annotations": []}
        ],
    },
)
"""A user's message and its answer, over and over."""


@cache
def _page(after: int) -> bytes:
    """The page of items after one of them."""
    common = {"object": "chatkit.thread_item", "thread_id": "cthr_1"}
    data = [
        {"id": f"cti_{number}", "created_at": 1_795_850_000 - number, **common, **ITEMS[number % 2]}
        for number in range(after + 1, after + 1 + PAGE_SIZE)
    ]
    ids = {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
    more = after + PAGE_SIZE < LAST_ITEM
    return _reply(HEADERS, {"object": "list", "data": data, **ids, "has_more": more})


def _deleted(thread_id: str) -> bytes:
    return _reply(HEADERS, {"id": thread_id, "object": "chatkit.thread.deleted", "deleted": True})


_AFTER = re.compile(rb"[?&]after=cti_(\d+)")
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Connection(asyncio.Protocol):
    """One connection. What it does with a POST, the first part of the path says.

    - /plain/: replies.
    - /cookies/: replies with some.
    - /after-50/: replies 50 ms later.
    - /held/: replies once somebody sends `GET /release`.
    """

    served = 0
    held: ClassVar[list[asyncio.Transport]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._received = b""
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        received = self._received + data
        while (end := received.find(b"\r\n\r\n")) >= 0:
            found = _CONTENT_LENGTH.search(received, 0, end)
            end += 4 + (int(found[1]) if found else 0)
            if len(received) < end:
                break
            target = received[: received.index(b"\r\n")].split(b" ")[1]
            if received.startswith(b"DELETE"):
                _Connection.served += 1
                self._transport.write(_deleted(target.rpartition(b"/")[2].decode()))
            elif b"/items" in target:
                _Connection.served += 1
                after = _AFTER.search(target)
                self._transport.write(_page(int(after[1]) if after else 0))
            elif received.startswith(b"GET"):
                if received.startswith(b"GET /release"):
                    self._release()
                self._transport.write(self._stats())
            else:
                _Connection.served += 1
                self._answer(received[6 : received.index(b"/", 6)])
            received = received[end:]
        self._received = received

    def _answer(self, way: bytes) -> None:
        if way == b"plain":
            self._transport.write(PLAIN)
        elif way == b"cookies":
            self._transport.write(WITH_COOKIES)
        elif way == b"held":
            self.held.append(self._transport)
        else:
            milliseconds = int(way.removeprefix(b"after-"))
            self._loop.call_later(milliseconds / 1000, self._answer_late)

    def _answer_late(self) -> None:
        if not self._transport.is_closing():  # the client may be gone
            self._transport.write(PLAIN)

    @classmethod
    def _release(cls) -> None:
        for transport in cls.held:
            transport.write(PLAIN)
        cls.held.clear()

    @classmethod
    def _stats(cls) -> bytes:
        stats = {"served": cls.served, "cpu": time.process_time(), "held": len(cls.held)}
        return _reply([], stats)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The fastest loop there is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def raise_open_files() -> int:
    """Let this process open as many files as it may, and say how many that is."""
    try:
        import resource
    except ImportError:
        return 512  # of Windows' C library
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most if most != resource.RLIM_INFINITY else sys.maxsize


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    raise_open_files()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=16384)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"port": port, "loop": type(loop).__module__}), flush=True)
    ended = loop.run_in_executor(None, sys.stdin.read)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended, LONGEST_LIFE)
    os._exit(0)  # connections are still open, and nobody is left to hear them close


class Stats(NamedTuple):
    """What a server has done so far, the CPU seconds that took, and the requests it holds."""

    served: int
    cpu: float
    held: int


def stats(base_url: str, path: str = "/") -> Stats:
    """Ask a server for its stats. With the path `/release` it answers what it held."""
    url = urlsplit(base_url)
    connection = http.client.HTTPConnection(f"127.0.0.1:{url.port}", timeout=30)
    try:
        connection.request("GET", path)
        return Stats(**json.load(connection.getresponse()))
    finally:
        connection.close()


class Server:
    """The load server, in a process of its own, for the length of a `with` block."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        ready = json.loads(self._process.stdout.readline())
        self.port: int = ready["port"]
        self.loop: str = ready["loop"]
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve())
