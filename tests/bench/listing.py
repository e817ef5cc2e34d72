"""Conversations: lists of many items, page by page, and threads that are deleted."""

from __future__ import annotations

import asyncio
import gc
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import peers
import server
from meter import Measured, Meter, resident

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

PAGE = server.PAGE_SIZE


def _async_client(peer: str, base_url: str) -> Any:
    if peer == "openai":
        from openai import AsyncOpenAI

        return AsyncOpenAI(api_key=peers.API_KEY, base_url=base_url)
    from chatkit_async import AsyncChatKit

    return AsyncChatKit(api_key=peers.API_KEY, base_url=base_url)


def _blocking_client(peer: str, base_url: str) -> Any:
    if peer == "openai":
        from openai import OpenAI

        return OpenAI(api_key=peers.API_KEY, base_url=base_url)
    from chatkit_async import ChatKit

    return ChatKit(api_key=peers.API_KEY, base_url=base_url)


def listing(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    """Iterate over so many items, on the client's own way from page to page."""
    return asyncio.run(_listing(peer, base_url, requests))


async def _listing(peer: str, base_url: str, requests: int) -> Measured:
    async with _async_client(peer, base_url) as client:

        async def read(number: int) -> int:
            items = client.beta.chatkit.threads.list_items("cthr_1", limit=PAGE)
            return len(await _taken(items, number))

        await read(PAGE)
        with Meter(base_url) as meter:
            meter.requests = await read(requests)
        return _by_item(meter.measured)


async def _taken(items: AsyncIterable[Any], number: int, *, whole: bool = False) -> list[Any]:
    """Take so many items; return their ids, or the whole items."""
    taken: list[Any] = []
    async for item in items:
        taken.append(item if whole else item.id)
        if len(taken) == number:
            break
    return taken


def listing_blocking(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    """Likewise, blocking."""
    with _blocking_client(peer, base_url) as client:

        def read(number: int) -> int:
            items: Iterable[Any] = client.beta.chatkit.threads.list_items("cthr_1", limit=PAGE)
            return len([item.id for item in itertools.islice(items, number)])

        read(PAGE)
        with Meter(base_url) as meter:
            meter.requests = read(requests)
        return _by_item(meter.measured)


def _by_item(measured: Measured) -> Measured:
    """The server's CPU time of an item; it counts pages."""
    return replace(measured, server_cpu=measured.server_cpu / PAGE)


def held_items(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    """Keep so many items: the memory is what each of them takes."""
    return asyncio.run(_held_items(peer, base_url, requests))


async def _held_items(peer: str, base_url: str, requests: int) -> Measured:
    async with _async_client(peer, base_url) as client:
        threads = client.beta.chatkit.threads
        await _taken(threads.list_items("cthr_1", limit=PAGE), PAGE * 3)
        gc.collect()
        before = resident()
        with Meter(base_url) as meter:
            held = await _taken(threads.list_items("cthr_1", limit=PAGE), requests, whole=True)
            meter.requests = len(held)
        gc.collect()
        return replace(_by_item(meter.measured), memory=(resident() - before) / len(held))


def delete(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    """Delete so many threads, so many at a time."""
    return asyncio.run(_delete(peer, base_url, requests, at_once))


async def _delete(peer: str, base_url: str, requests: int, at_once: int) -> Measured:
    async with _async_client(peer, base_url) as client:
        threads = client.beta.chatkit.threads

        async def delete_all(number: int) -> int:
            ids = (f"cthr_{each}" for each in range(number))
            if peer != "openai":
                async with threads.delete_many(ids, concurrency=at_once) as run:
                    return sum([outcome.kind == "deleted" async for outcome in run])
            semaphore = asyncio.Semaphore(at_once)

            async def one(thread_id: str) -> bool:
                async with semaphore:
                    return bool((await threads.delete(thread_id)).deleted)

            return sum(await asyncio.gather(*map(one, ids)))

        await delete_all(min(at_once * 4, requests))
        with Meter(base_url) as meter:
            meter.requests = await delete_all(requests)
        return meter.measured
