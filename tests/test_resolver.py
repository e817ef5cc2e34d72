"""Looking names up: what is found, what fails, and who waits for it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading

import pytest
from patience import PATIENCE

from chatkit_async import APITimeoutError, AsyncChatKit, ChatKit, ChatKitError
from chatkit_async._resolver import Resolver, look_up_limit
from chatkit_async.emulator import Emulator

LATE = {"late.example", "localhost"}
WANTED = {"user": "user_123", "workflow": "wf_123"}


@pytest.fixture
def answer(monkeypatch):
    """An event that the name server waits for before it answers with this machine's address."""
    answer, asked = threading.Event(), socket.getaddrinfo

    def late(host, *args, **kwargs):
        if host in LATE:
            assert answer.wait(PATIENCE)
            host = "127.0.0.1"
        return asked(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", late)
    yield answer
    answer.set()


def dns_threads():
    return [thread for thread in threading.enumerate() if thread.name == "chatkit-async-dns"]


def resolve(host, limit=None, **options):
    async def main():
        look_up_limit.set(limit)
        return await Resolver().resolve(host, **options)

    return asyncio.run(main())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_name_is_found(host):
    [found] = resolve(host, port=443, family=socket.AF_INET)
    assert (found["hostname"], found["host"], found["port"]) == (host, "127.0.0.1", 443)
    assert found["family"] == socket.AF_INET


def test_zone_of_a_link_local_address_is_kept(monkeypatch):
    address = ("fe80::1", 443, 0, 1)
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "getnameinfo", lambda *_: ("fe80::1%eth0", "443"))
    assert [each["host"] for each in resolve("router")] == ["fe80::1%eth0"]


@pytest.mark.parametrize("error", [socket.gaierror(-2, "no such name"), UnicodeError("label")])
def test_failure_is_raised(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(type(error)) as caught:
        resolve("nowhere.example")
    assert caught.value is error


@pytest.mark.parametrize("is_loop_open", [True, False])
def test_answer_that_nobody_waits_for_is_dropped(answer, is_loop_open):
    def end_look_ups():
        answer.set()
        for thread in dns_threads():
            thread.join(PATIENCE)

    async def main():
        look_up_limit.set(0.001)
        with pytest.raises(TimeoutError):
            await Resolver().resolve("late.example")
        if is_loop_open:
            await asyncio.to_thread(end_look_ups)

    asyncio.run(main())
    end_look_ups()


def test_connect_timeout_bounds_the_look_up_and_close_does_not_wait_for_it(answer):
    settings = {"base_url": "http://late.example:9/v1", "allow_http": True, "max_retries": 0}
    with (
        ChatKit(api_key="sk-any", connect_timeout=0.01, **settings) as client,
        pytest.raises(APITimeoutError) as caught,
    ):
        client.sessions.create(**WANTED)
    assert caught.value.limit == "connect_timeout"
    assert dns_threads()  # still waiting


def test_answer_in_time_is_used(answer):
    with Emulator() as emulator:
        base_url = emulator.base_url.replace("127.0.0.1", "localhost")
        with ChatKit(api_key=emulator.api_key, base_url=base_url) as client:
            threading.Timer(0.01, answer.set).start()
            assert client.sessions.create(**WANTED).status == "active"


@pytest.mark.unmeasured
def test_exit_does_not_wait_for_a_look_up():
    program = """
import socket, threading
from chatkit_async import APITimeoutError, AsyncChatKit, ChatKit, ChatKitError

socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
settings = {"base_url": "https://late.example/v1", "max_retries": 0, "connect_timeout": 0.01}
with ChatKit(api_key="sk-any", **settings) as client:
    try:
        client.sessions.create(user="ada", workflow="wf_123")
    except APITimeoutError:
        print("timed out")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.split() == [b"timed", b"out"]


async def test_thread_that_cannot_start_is_explained(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("daemon threads are disabled in this (sub)interpreter")

    monkeypatch.setattr(threading, "Thread", refuse)
    client = AsyncChatKit(api_key="sk-made-up", base_url="https://api.test/v1", max_retries=0)
    with pytest.raises(ChatKitError, match="subinterpreters") as caught:
        await client.sessions.create(user="ada", workflow="wf_1")

    assert isinstance(caught.value, RuntimeError)
    await client.close()
