from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import socket
import threading

import aiohttp
import pytest
from patience import PATIENCE

from chatkit_async.emulator import Emulator
from chatkit_async.emulator._changes import Changes
from chatkit_async.emulator._server import Server, ServerThread


async def test_connections_are_counted_while_they_are_open(emulator, create, http):
    await create()
    assert emulator.connections == 1

    await http.close()
    await emulator.until(lambda: emulator.connections == 0)


async def test_stopping_closes_a_connection_that_is_only_just_accepted():
    async with Emulator() as emulator:
        port = int(emulator.base_url.rpartition(":")[2].partition("/")[0])
        client = socket.create_connection(("127.0.0.1", port))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # accepted, and no transport made yet

    client.settimeout(PATIENCE)
    with contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""
    client.close()
    gc.collect()  # a socket that was left open would warn


async def test_stopping_ends_idle_connections(headers):
    async with Emulator() as emulator:
        port = int(emulator.base_url.rpartition(":")[2].partition("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await emulator.until(lambda: emulator.connections == 1)

    assert await reader.read() == b""
    writer.close()


async def test_stopping_ends_requests_that_would_never_be_answered(wanted, headers):
    async with aiohttp.ClientSession(headers=headers) as http:
        async with Emulator() as emulator:
            emulator.fail(delay=math.inf)
            url = f"{emulator.base_url}/chatkit/sessions"
            creating = asyncio.ensure_future(http.post(url, json=wanted))
            await emulator.until(lambda: emulator.requests.total == 1)

        assert emulator.requests[-1].outcome == "client_gone"
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await creating


async def test_a_stopped_server_refuses_connections():
    async with Emulator() as emulator:
        port = int(emulator.base_url.rpartition(":")[2].partition("/")[0])

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_connection_that_is_announced_after_the_stop_is_ended():
    async def unused():
        raise NotImplementedError

    server = Server(unused, unused, Changes(), itertools.count(1))
    await server.start("127.0.0.1", 0)
    await server.stop()
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()

    with theirs:
        theirs.setblocking(False)
        transport, _ = await loop.create_connection(server, sock=ours)
        assert await loop.sock_recv(theirs, 1) == b""

    assert transport.is_closing()
    assert server.connections_open == 0


def test_a_thread_that_cannot_start_raises_what_kept_it_and_ends():
    async def start():
        raise OSError("no such port")

    async def stop():
        raise NotImplementedError

    thread = ServerThread(start, stop)
    with pytest.raises(OSError, match="no such port"):
        thread.start()

    assert not thread._thread.is_alive()


@pytest.mark.parametrize(
    "error", [OSError(24, "Too many open files"), RuntimeError("sockets are blocked")], ids=str
)
def test_thread_without_a_loop_raises_in_the_caller(monkeypatch, error):
    def refuse():
        raise error

    monkeypatch.setattr(asyncio.events, "new_event_loop", refuse)
    emulator = Emulator()
    with pytest.raises(type(error)) as caught:
        emulator.__enter__()

    assert caught.value is error
    assert all(thread.name != "chatkit-emulator" for thread in threading.enumerate())
    monkeypatch.undo()
    with emulator:
        assert emulator.base_url


def test_thread_that_cannot_stop_says_so(monkeypatch):
    async def start():
        pass

    async def stop():
        raise OSError("not today")

    said = []
    monkeypatch.setattr(threading, "excepthook", lambda args: said.append(args.exc_value))
    thread = ServerThread(start, stop)
    thread.start()
    thread.stop()

    assert [str(error) for error in said] == ["not today"]


def test_a_thread_runs_both_ends_in_a_loop_of_its_own():
    seen = []

    async def note():
        seen.append((threading.current_thread(), asyncio.get_running_loop()))

    thread = ServerThread(note, note)
    thread.start()
    thread.stop()

    assert seen[0] == seen[1]
    assert seen[0][0] is not threading.current_thread()
    assert not thread._thread.is_alive()


def test_thread_stopped_before_it_serves_ends():
    stopped = []

    async def start():
        thread._is_stopping = True  # as stop() sets it, which did not find a loop to wake

    async def stop():
        stopped.append(True)

    thread = ServerThread(start, stop)
    thread.start()
    thread._thread.join(PATIENCE)

    assert stopped == [True]
