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

Create: TypeAlias = "Callable[..., Awaitable[str]]"
BlockingCreate: TypeAlias = "Callable[[], str]"

API_KEY = "sk-proj-made-up-for-the-benchmark-0123456789"
USER = "user_123"
WORKFLOW = "wf_68df4b13b3588190a09d19288d4610ec0df388c3983f58d1"
HEADERS = {"Authorization": f"Bearer {API_KEY}", "OpenAI-Beta": "chatkit_beta=v1"}


@asynccontextmanager
async def chatkit_async(base_url: str, connections: int | None = None) -> AsyncGenerator[Create]:
    """Us. To open very many connections at once takes longer than the default limits allow."""
    from chatkit_async import AsyncChatKit

    options: dict[str, Any] = {}
    if connections is not None:
        options = {"max_connections": connections, "connect_timeout": 60, "attempt_timeout": 60}
    async with AsyncChatKit(api_key=API_KEY, base_url=base_url, **options) as client:

        async def create(user: str = USER) -> str:
            session = await client.sessions.create(user=user, workflow=WORKFLOW)
            return session.client_secret

        yield create


@asynccontextmanager
async def with_orjson(base_url: str) -> AsyncGenerator[Create]:
    """Us, with orjson's JSON: what it would buy. It makes floats of integers over 64 bits."""
    import orjson

    from chatkit_async import _codec

    _codec.loads = orjson.loads
    _codec._dumps = lambda value: orjson.dumps(value).decode()
    async with chatkit_async(base_url) as create:
        yield create


@asynccontextmanager
async def with_msgspec(base_url: str) -> AsyncGenerator[Create]:
    """Us, with msgspec's JSON, likewise. It has no lone surrogates and no infinities."""
    import msgspec

    from chatkit_async import _codec

    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    _codec.loads = decode
    _codec._dumps = lambda value: encode(value).decode()
    async with chatkit_async(base_url) as create:
        yield create


@asynccontextmanager
async def aiohttp(base_url: str, connections: int | None = None) -> AsyncGenerator[Create]:
    """The client that aiohttp's tutorial shows, with a JSON parse and nothing else."""
    from aiohttp import ClientSession, TCPConnector

    connector = None if connections is None else TCPConnector(limit=connections)
    async with ClientSession(headers=HEADERS, connector=connector) as session:

        async def create(user: str = USER) -> str:
            body = {"user": user, "workflow": {"id": WORKFLOW}}
            async with session.post(f"{base_url}/chatkit/sessions", json=body) as response:
                return cast("str", (await response.json())["client_secret"])

        yield create


@asynccontextmanager
async def _leanest(base_url: str) -> AsyncGenerator[Callable[[str], Awaitable[bytes]]]:
    """As little of aiohttp as a create takes: no cookies, no time limit, everything made before."""
    from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
    from yarl import URL

    url = URL(f"{base_url}/chatkit/sessions")
    async with ClientSession(
        headers={**HEADERS, "Content-Type": "application/json"},
        connector=TCPConnector(limit=0),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None),
    ) as session:

        async def post(user: str) -> bytes:
            body = json.dumps({"user": user, "workflow": {"id": WORKFLOW}}).encode()
            response = await session.post(url, data=body)
            return await response.read()

        yield post


@asynccontextmanager
async def leanest(base_url: str) -> AsyncGenerator[Create]:
    """The leanest bare aiohttp."""
    async with _leanest(base_url) as post:

        async def create(user: str = USER) -> str:
            return cast("str", json.loads(await post(user))["client_secret"])

        yield create


@asynccontextmanager
async def typed(base_url: str) -> AsyncGenerator[Create]:
    """The leanest bare aiohttp that gives typed objects."""
    import typed as decode

    async with _leanest(base_url) as post:

        async def create(user: str = USER) -> str:
            return decode.session(json.loads(await post(user))).client_secret

        yield create


@asynccontextmanager
async def httpx2(base_url: str) -> AsyncGenerator[Create]:
    """The client that httpx2's quickstart shows; as many connections as `openai` allows."""
    from httpx2 import AsyncClient, Limits

    limits = Limits(max_connections=1000, max_keepalive_connections=100)
    async with AsyncClient(headers=HEADERS, limits=limits) as client:

        async def create(user: str = USER) -> str:
            body = {"user": user, "workflow": {"id": WORKFLOW}}
            response = await client.post(f"{base_url}/chatkit/sessions", json=body)
            return cast("str", response.json()["client_secret"])

        yield create


@asynccontextmanager
async def openai(base_url: str, http_client: Any = None) -> AsyncGenerator[Create]:
    """The OpenAI SDK."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(api_key=API_KEY, base_url=base_url, http_client=http_client) as client:

        async def create(user: str = USER) -> str:
            session = await client.beta.chatkit.sessions.create(
                user=user, workflow={"id": WORKFLOW}
            )
            return session.client_secret

        yield create


@asynccontextmanager
async def openai_aiohttp(base_url: str) -> AsyncGenerator[Create]:
    """The OpenAI SDK on its aiohttp transport."""
    from openai import DefaultAioHttpClient

    async with openai(base_url, DefaultAioHttpClient()) as create:
        yield create


@asynccontextmanager
async def floor(base_url: str) -> AsyncGenerator[Create]:
    """The least a client on asyncio can do: bytes made beforehand, and a JSON parse."""
    url = urlsplit(base_url)
    assert url.hostname is not None
    assert url.port is not None
    host, port = url.hostname, url.port
    body = json.dumps({"user": USER, "workflow": {"id": WORKFLOW}}).encode()
    headers = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    request = (
        f"POST {url.path}/chatkit/sessions HTTP/1.1\r\nHost: {url.netloc}\r\n{headers}"
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


ASYNC: dict[str, Callable[..., AbstractAsyncContextManager[Create]]] = {
    "chatkit_async": chatkit_async,
    "chatkit_async, orjson": with_orjson,
    "chatkit_async, msgspec": with_msgspec,
    "aiohttp": aiohttp,
    "aiohttp, leanest": leanest,
    "aiohttp, leanest, typed": typed,
    "httpx2": httpx2,
    "openai": openai,
    "openai, aiohttp": openai_aiohttp,
    "floor": floor,
}

BLOCKING: dict[str, Callable[[str], AbstractContextManager[BlockingCreate]]] = {
    "chatkit_async": chatkit_sync,
    "openai": openai_sync,
    "floor, crossed": floor_crossed,
}


# Decoding -----------------------------------------------------------------------------------------


def decode_chatkit_async(content: bytes) -> Callable[[], str]:
    """Us: from a reply that was read to a `ChatSession`."""
    from chatkit_async import _protocol

    call = _protocol.create_session({"user": USER, "workflow": WORKFLOW}, {})
    reply = _protocol.Reply(status=200, headers={}, content=content)
    return lambda: _protocol.read(call, reply, ()).client_secret


def decode_openai(content: bytes) -> Callable[[], str]:
    """The OpenAI SDK: likewise, by the method that its requests end in."""
    import httpx2
    from openai import OpenAI
    from openai._models import FinalRequestOptions
    from openai.types.beta.chatkit import ChatSession

    client = OpenAI(api_key=API_KEY)
    response = httpx2.Response(
        200,
        headers={"Content-Type": "application/json"},
        content=content,
        request=httpx2.Request("POST", "http://127.0.0.1/v1/chatkit/sessions"),
    )
    options = FinalRequestOptions.construct(method="post", url="/chatkit/sessions")

    def decode() -> str:
        session = client._process_response(
            cast_to=ChatSession, options=options, response=response, stream=False, stream_cls=None
        )
        return session.client_secret

    return decode


DECODING: dict[str, Callable[[bytes], Callable[[], str]]] = {
    "chatkit_async": decode_chatkit_async,
    "openai": decode_openai,
}
