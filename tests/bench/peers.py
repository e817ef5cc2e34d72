"""The clients that are compared: each as its own documentation shows it, its settings its defaults.

Each gives a function that creates a session and returns its client secret.
"""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

Create: TypeAlias = "Callable[[], Awaitable[str]]"
BlockingCreate: TypeAlias = "Callable[[], str]"

API_KEY = "sk-proj-made-up-for-the-benchmark-0123456789"
USER = "user_123"
WORKFLOW = "wf_68df4b13b3588190a09d19288d4610ec0df388c3983f58d1"


@asynccontextmanager
async def chatkit_async(base_url: str) -> AsyncGenerator[Create]:
    """Us."""
    from chatkit_async import AsyncChatKit

    async with AsyncChatKit(api_key=API_KEY, base_url=base_url) as client:

        async def create() -> str:
            session = await client.sessions.create(user=USER, workflow=WORKFLOW)
            return session.client_secret

        yield create


@asynccontextmanager
async def aiohttp(base_url: str) -> AsyncGenerator[Create]:
    """The client that aiohttp's tutorial shows, with a JSON parse and nothing else."""
    from aiohttp import ClientSession

    headers = {"Authorization": f"Bearer {API_KEY}", "OpenAI-Beta": "chatkit_beta=v1"}
    body = {"user": USER, "workflow": {"id": WORKFLOW}}
    async with ClientSession(headers=headers) as session:

        async def create() -> str:
            async with session.post(f"{base_url}/chatkit/sessions", json=body) as response:
                return cast("str", (await response.json())["client_secret"])

        yield create


@asynccontextmanager
async def openai(base_url: str) -> AsyncGenerator[Create]:
    """The OpenAI SDK."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(api_key=API_KEY, base_url=base_url) as client:

        async def create() -> str:
            session = await client.beta.chatkit.sessions.create(
                user=USER, workflow={"id": WORKFLOW}
            )
            return session.client_secret

        yield create


@asynccontextmanager
async def floor(base_url: str) -> AsyncGenerator[Create]:
    """The least a client on asyncio can do: bytes made beforehand, and a JSON parse."""
    url = urlsplit(base_url)
    assert url.hostname is not None
    assert url.port is not None
    host, port = url.hostname, url.port
    body = json.dumps({"user": USER, "workflow": {"id": WORKFLOW}}).encode()
    request = (
        f"POST {url.path}/chatkit/sessions HTTP/1.1\r\nHost: {url.netloc}\r\n"
        f"Authorization: Bearer {API_KEY}\r\nOpenAI-Beta: chatkit_beta=v1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    loop = asyncio.get_running_loop()
    connections: list[_Connection] = []
    idle: list[_Connection] = []

    async def create() -> str:
        if idle:
            connection = idle.pop()
        else:
            _, connection = await loop.create_connection(_Connection, host, port)
            connections.append(connection)
        reply = await connection.send(request)
        idle.append(connection)
        return cast("str", json.loads(reply.partition(b"\r\n\r\n")[2])["client_secret"])

    yield create
    for connection in connections:
        connection.close()


class _Connection(asyncio.Protocol):
    """Takes each reply to arrive in one piece, as it does on loopback."""

    _waiter: asyncio.Future[bytes]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes) -> asyncio.Future[bytes]:
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiter

    def data_received(self, data: bytes) -> None:
        self._waiter.set_result(data)

    def close(self) -> None:
        self._transport.close()


@contextmanager
def chatkit_sync(base_url: str) -> Generator[BlockingCreate]:
    """Us, blocking."""
    from chatkit_async import ChatKit

    with ChatKit(api_key=API_KEY, base_url=base_url) as client:

        def create() -> str:
            return client.sessions.create(user=USER, workflow=WORKFLOW).client_secret

        yield create


@contextmanager
def openai_sync(base_url: str) -> Generator[BlockingCreate]:
    """The OpenAI SDK, blocking."""
    from openai import OpenAI

    with OpenAI(api_key=API_KEY, base_url=base_url) as client:

        def create() -> str:
            session = client.beta.chatkit.sessions.create(user=USER, workflow={"id": WORKFLOW})
            return session.client_secret

        yield create


@contextmanager
def floor_crossed(base_url: str) -> Generator[BlockingCreate]:
    """The least on a loop's thread, called as asyncio's documentation shows it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    connected = floor(base_url)
    create = run(connected.__aenter__())
    try:
        yield lambda: run(create())
    finally:
        run(connected.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


ASYNC: dict[str, Callable[[str], AbstractAsyncContextManager[Create]]] = {
    "chatkit_async": chatkit_async,
    "aiohttp": aiohttp,
    "openai": openai,
    "floor": floor,
}

BLOCKING: dict[str, Callable[[str], AbstractContextManager[BlockingCreate]]] = {
    "chatkit_async": chatkit_sync,
    "openai": openai_sync,
    "floor, crossed": floor_crossed,
}
