"""The async client where no asyncio event loop runs: under trio, or by hand."""

from __future__ import annotations

import gc

import pytest
import trio

from chatkit_async import AsyncChatKit, ChatKit, ChatKitError
from chatkit_async.emulator import Emulator
from chatkit_async.web import ClientSecretEndpoint

WANTED = {"user": "ada", "workflow": "wf_1"}


@pytest.fixture
def emulator():
    with Emulator() as emulator:
        yield emulator


async def create(client):
    await client.sessions.create(**WANTED)


async def create_raw(client):
    await client.sessions.with_raw_response.create(**WANTED)


async def create_behind_a_push_back(client):
    client._attempts.gate.push_back(client._attempts.seam.now(), 0.0, 1.0)
    await client.sessions.create(**WANTED)


async def cancel(client):
    await client.sessions.cancel("cksess_1")


async def opened(client):
    async with client.sessions.open(**WANTED):
        raise AssertionError


async def create_many(client):
    await client.sessions.create_many([WANTED]).results()


async def cancel_many(client):
    async for _ in client.sessions.cancel_many(["cksess_1"]):
        raise AssertionError


async def run_entered(client):
    async with client.sessions.create_many([WANTED]):
        raise AssertionError


async def entered(client):
    async with client:
        raise AssertionError


async def close(client):
    await client.close()


async def endpoint(client):
    await ClientSecretEndpoint(client, workflow="wf_1").handle(user="ada")


async def retrieve_thread(client):
    await client.threads.retrieve("cthr_1")


async def list_threads(client):
    await client.threads.list()


async def every_thread(client):
    async for _ in client.threads.list():
        raise AssertionError


async def delete_thread(client):
    await client.threads.delete("cthr_1")


ENTRIES = [
    retrieve_thread,
    list_threads,
    every_thread,
    delete_thread,
    create,
    create_raw,
    create_behind_a_push_back,
    cancel,
    opened,
    create_many,
    cancel_many,
    run_entered,
    entered,
    close,
    endpoint,
]


def by_hand(function, *arguments):
    coroutine = function(*arguments)
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


runners = pytest.mark.parametrize("run", [by_hand, trio.run])


@runners
def test_every_entry_says_that_asyncio_is_needed(emulator, run):
    for entry in ENTRIES:
        client = AsyncChatKit(api_key=emulator.api_key, base_url=emulator.base_url)
        with pytest.raises(
            ChatKitError, match=r"asyncio only.*trio\.to_thread\.run_sync"
        ) as caught:
            run(entry, client)
        assert isinstance(caught.value, RuntimeError)

    gc.collect()  # a coroutine that was never awaited warns here, and a warning is an error
    assert not emulator.requests


@runners
def test_the_emulator_says_that_asyncio_is_needed(run):
    async def entered():
        async with Emulator():
            raise AssertionError

    with pytest.raises(RuntimeError, match=r"`with Emulator\(\)`"):
        run(entered)


def test_the_blocking_client_works_under_trio(emulator):
    async def main():
        with ChatKit(api_key=emulator.api_key, base_url=emulator.base_url) as client:
            return await trio.to_thread.run_sync(lambda: client.sessions.create(**WANTED))

    assert trio.run(main).user == "ada"
