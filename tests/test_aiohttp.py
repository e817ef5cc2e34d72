"""What the package uses of aiohttp beyond its documentation, and the pool that rests on it."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import os
import select
from operator import attrgetter
from pathlib import Path

import aiohttp
import aiohttp.web
import async_solipsism
import pytest
from aiohttp import client_proto, http_parser
from servers import CLOSE, http, replying, serve

from chatkit_async import _aiohttp

# Every attribute that aiohttp's documentation does not have.
USED = {
    "session": {"_loop", "_retry_connection"},
    "connector": {"_conns"},
    "connection": {"protocol"},
    "protocol": {"should_close", "transport", "_parser", "close"},
    "parser": {"feed_eof"},
    "pure parser": {"_lines"},
}

# The same of two other modules: attributes of exceptions, and the emulator's server.
USED_ELSEWHERE = {
    "_failures": [
        "ClientConnectorError.os_error",
        "ClientConnectorCertificateError.certificate_error",
    ],
    "emulator._server": [
        "web.RequestHandler.data_received",
        "web.RequestHandler.handle_error",
        "web.Server.connection_made",
        "web.Server.connection_lost",
        "web.BaseRequest.protocol",
    ],
}

REPLY = http(b"{}")
UNREAD = {
    "a reply": REPLY,
    "two replies": REPLY * 2,
    "an interim reply": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a 204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "a 408": b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
    "a byte": REPLY[:1],
    "a status line": b"HTTP/1.1 200 OK\r\n",
    "half a header": REPLY[:40],
    "a header that is refused": b"HTTP/1.1 200 OK\r\nSec-WebSocket-Key1: 1",
    "headers": REPLY[:-2],
    "all but a byte": REPLY[:-1],
}
NO_HTTP = b"\x00\x00"
FRAMINGS = {
    "length": REPLY,
    "chunks": http(b"2\r\n{}\r\n0\r\n\r\n", Content_Length=None, Transfer_Encoding="chunked"),
    "HTTP/1.0": http(b"{}", Connection="keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "empty": http(b""),
    "no content": http(b"", "204 No Content", Content_Length=None),
}


@pytest.fixture
def used():
    """True for each request that had a connection used before."""
    return []


@pytest.fixture
async def connector(used):
    async with _aiohttp.Connector(
        limit=10, keepalive_timeout=60.0, on_connection=used.append
    ) as connector:
        yield connector


@pytest.fixture
async def session(connector):
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@pytest.fixture(params=["C", "Python"])
def parser(request, monkeypatch):
    """Either of aiohttp's two parsers."""
    if request.param == "Python":
        pure = http_parser.HttpResponseParserPy
        monkeypatch.setattr(client_proto, "HttpResponseParser", pure)
    return request.param


async def post(session, server):
    async with session.post(server.base_url) as response:
        return response.status, await response.read()


def idle(connector):
    return [protocol for pool in connector._conns.values() for protocol, _ in pool]


async def read_by_the_loop(connector):
    """Let the loop read what is there: on loopback, all that was sent."""
    while any(_aiohttp._is_readable(each.transport) for each in idle(connector)):  # noqa: ASYNC110
        await asyncio.sleep(0)


def send(server, data):
    """Send on the only connection, before the client's loop can read it."""
    [wire] = server.open
    wire.writer.write(data)


# What is used


async def test_aiohttp_has_all_that_is_used(session, connector, monkeypatch):
    async with serve(replying(REPLY)) as server:
        await post(session, server)
        [protocol] = idle(connector)
    things = {
        "session": session,
        "connector": connector,
        "connection": aiohttp.connector.Connection,
        "protocol": protocol,
        "parser": protocol._parser,
        "pure parser": http_parser.HttpResponseParserPy(protocol, protocol._loop, 2**16),
    }

    assert not {(of, name) for of in USED for name in USED[of] if not hasattr(things[of], name)}
    connect = inspect.signature(aiohttp.BaseConnector.connect)
    assert list(connect.parameters) == ["self", "req", "traces", "timeout"]


@pytest.mark.parametrize("module", USED_ELSEWHERE)
def test_aiohttp_has_what_other_modules_use(module):
    for name in USED_ELSEWHERE[module]:
        attrgetter(name)(aiohttp)


def test_all_that_is_used_is_listed():
    tree = ast.parse(Path(_aiohttp.__file__).read_text(encoding="utf-8"))
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    names = {name for name in attributes | literals if isinstance(name, str)}
    private = {name for name in names if name.startswith("_") and not name.endswith("__")}
    own = {"_on_connection", "_generation", "_generations", "_pid"}

    assert private - own == {n for names in USED.values() for n in names if n.startswith("_")}


async def test_session_repeats_no_request(session):
    _aiohttp.retry_nothing(session)
    async with serve(replying(CLOSE)) as server:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.delete(server.base_url)

        assert len(server.requests) == 1


async def test_a_session_knows_its_loop(session):
    assert _aiohttp.loop_of(session) is asyncio.get_running_loop()


# Reuse


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_connection_without_unread_data_is_reused(session, used, parser, framing):
    async with serve(replying(FRAMINGS[framing])) as server:
        for _ in range(3):
            await post(session, server)

    assert used == [False, True, True]


@pytest.mark.parametrize("unread", UNREAD)
async def test_data_within_the_replys_segment_ends_reuse(session, used, parser, unread):
    async with serve(replying(REPLY + UNREAD[unread], REPLY)) as server:
        for _ in range(2):
            assert await post(session, server) == (200, b"{}")

    assert used == [False, False]


@pytest.mark.parametrize("unread", [*UNREAD, "no HTTP"])
async def test_data_on_an_idle_connection_ends_reuse(session, connector, used, parser, unread):
    async with serve(replying(REPLY)) as server:
        await post(session, server)
        send(server, UNREAD.get(unread, NO_HTTP))
        await read_by_the_loop(connector)
        assert await post(session, server) == (200, b"{}")

    assert used == [False, False]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("unread", ["a reply", "a byte"])
async def test_data_after_any_reply_ends_reuse(session, connector, used, framing, unread):
    async with serve(replying(FRAMINGS[framing])) as server:
        first = await post(session, server)
        send(server, UNREAD[unread])
        await read_by_the_loop(connector)
        assert await post(session, server) == first

    assert used == [False, False]


async def test_any_part_of_a_reply_ends_reuse(session, connector, used):
    async with serve(replying(REPLY)) as server:
        await post(session, server)
        for offset in range(1, len(REPLY)):
            send(server, REPLY[:offset])
            await read_by_the_loop(connector)
            await post(session, server)
            await server.until(lambda: len(server.open) == 1)

    assert used == [False] * len(REPLY)


@pytest.mark.parametrize("poll", [True, False], ids=["poll", "select"])
async def test_data_that_the_loop_did_not_read_ends_reuse(session, used, poll, monkeypatch):
    if not poll:
        monkeypatch.delattr(select, "poll")
    async with serve(replying(REPLY)) as server:
        await post(session, server)
        await post(session, server)
        send(server, REPLY)
        assert await post(session, server) == (200, b"{}")

    assert used == [False, True, False]


async def test_unread_data_costs_one_connection_of_many(session, connector, used):
    together = asyncio.Barrier(5)

    async def handle(server, wire):
        while True:
            await wire.request()
            if len(used) <= 5:
                await together.wait()
            await wire.send(REPLY)

    async with serve(handle) as server:
        await asyncio.gather(*(post(session, server) for _ in range(5)))
        next(iter(server.open)).writer.write(REPLY)
        await read_by_the_loop(connector)
        await asyncio.gather(*(post(session, server) for _ in range(4)))

    assert used == [False] * 5 + [True] * 4


def test_a_connection_in_memory_has_nothing_unread_outside_of_it():
    async def main():
        ours, theirs = async_solipsism.socketpair()
        _, writer = await asyncio.open_connection(sock=ours)
        readable = _aiohttp._is_readable(writer.transport)
        writer.close()
        theirs.close()
        return readable

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        assert runner.run(main()) is False


# When aiohttp changes


class Without:
    """An object, as it is without some of its attributes."""

    def __init__(self, thing, *names):
        self._thing = thing
        self._names = names

    def __getattr__(self, name):
        if name in self._names:
            raise AttributeError(name)
        thing = getattr(self._thing, name)
        return Without(thing, *self._names) if name == "_parser" else thing


@pytest.mark.parametrize("missing", ["should_close", "transport", "_parser", "feed_eof"])
async def test_a_missing_attribute_ends_all_reuse(session, used, missing, monkeypatch, caplog):
    has_unread = _aiohttp._has_unread
    monkeypatch.setattr(_aiohttp, "_has_unread", lambda thing: has_unread(Without(thing, missing)))
    _aiohttp._warn_of_no_reuse.cache_clear()
    async with serve(replying(REPLY)) as server:
        for _ in range(4):
            assert await post(session, server) == (200, b"{}")

    assert used == [False] * 4
    [warning] = caplog.records
    assert (warning.name, warning.levelno) == ("chatkit_async", logging.WARNING)
    assert "Connections are not reused" in warning.getMessage()


# Closing


async def test_a_session_is_closed_at_once(session):
    async with serve(replying(REPLY)) as server:
        await post(session, server)
        _aiohttp.close_at_once(session)
        assert session.closed
        await server.until(lambda: not server.open)


async def test_a_forked_child_leaves_the_connections_alone(session, connector, monkeypatch):
    async with serve(replying(REPLY)) as server:
        await post(session, server)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            assert connector.closed
            connector.__del__()
        await post(session, server)

    assert len({request.connection for request in server.requests}) == 1


async def test_idle_connections_are_closed(session, connector, used):
    async with serve(replying(REPLY)) as server:
        await post(session, server)
        _aiohttp.close_idle_connections(session)
        await server.until(lambda: not server.open)
        await post(session, server)

    assert used == [False, False]


async def test_a_connection_in_use_is_not_reused(session, used):
    async with serve(replying(REPLY)) as server:
        async with session.post(server.base_url):
            _aiohttp.close_idle_connections(session)
        await post(session, server)
        await post(session, server)

    assert used == [False, False, True]


async def test_idle_connections_of_any_connector_are_closed():
    async with aiohttp.ClientSession() as session, serve(replying(REPLY)) as server:
        await post(session, server)
        _aiohttp.close_idle_connections(session)
        await server.until(lambda: not server.open)


async def test_a_closed_session_has_no_idle_connections(session):
    await session.close()

    _aiohttp.close_idle_connections(session)


async def test_idle_connections_that_aiohttp_hides_are_not_reused(session, connector, used):
    async with serve(replying(REPLY)) as server:
        await post(session, server)
        connector.retire()
        await post(session, server)

    assert used == [False, False]
