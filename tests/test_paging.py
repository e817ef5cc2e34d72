"""The table of docs/explanation/paging.md says what both clients do with the same replies."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import openai
import pytest
from servers import http, replying, serve
from test_front_page import CLAIMS as FRONT_PAGE
from test_front_page import table

import chatkit_async

KEY = "sk-" + "0123456789abcdef" * 2
ENOUGH_REQUESTS = 20
"""Requests after which a list that does not move is given up."""

PAGE = Path(__file__).parent.parent / "docs/explanation/paging.md"
CLAIMS = table(PAGE.read_text("utf-8"))


def thread(number):
    return {
        "id": f"cthr_{number}",
        "object": "chatkit.thread",
        "created_at": 1_795_850_000 + number,
        "title": None,
        "status": {"type": "active"},
        "user": "ada",
    }


def listed(*data, more=False, **own):
    last_id = data[-1]["id"] if data else None
    page = {"object": "list", "data": list(data), "has_more": more, "last_id": last_id, **own}
    return sent({name: value for name, value in page.items() if value is not ...})


def threads(*numbers, more=True, **own):
    return listed(*map(thread, numbers), more=more, **own)


def sent(content, status="200 OK"):
    return http(json.dumps(content).encode(), status)


def failed(status, message):
    return sent(
        {"error": {"message": message, "type": "server_error", "param": None, "code": None}}, status
    )


class Store:
    """Six threads, two of them on a page. A deleted thread is no cursor."""

    def __init__(self):
        self.left = [6, 5, 4, 3, 2, 1]

    def __call__(self, request):
        method, target, _ = request.line.split(" ")
        path, after = urlsplit(target).path, parse_qs(urlsplit(target).query).get("after")
        if method == "DELETE":
            name = path.rpartition("/")[2]
            self.left.remove(number_of(name))
            return sent({"id": name, "object": "chatkit.thread.deleted", "deleted": True})
        if after and number_of(after[0]) not in self.left:
            return failed("404 Not Found", f"Thread with id '{after[0]}' not found.")
        at = self.left.index(number_of(after[0])) + 1 if after else 0
        return threads(*self.left[at : at + 2], more=len(self.left) > at + 2)


def number_of(name):
    return int(name.removeprefix("cthr_"))


def without_end():
    """Answer with the same page, but not for ever."""
    left = iter(range(ENOUGH_REQUESTS))

    def reply(_):
        return threads(2, 1) if next(left, None) is not None else failed("410 Gone", "enough")

    return reply


@pytest.fixture(params=["chatkit_async", "openai"])
async def connect(request):
    """Make a client of either package for a server, and say which column of the table is its."""
    package = {"chatkit_async": chatkit_async, "openai": openai}[request.param]
    make = package.AsyncChatKit if package is chatkit_async else package.AsyncOpenAI

    def connect(server):
        options = {}
        if package is openai:  # a TLS context for each client would take long
            options = {"http_client": openai.DefaultAsyncHttpxClient(verify=False, trust_env=False)}
        return make(api_key=KEY, base_url=server.base_url, max_retries=0, **options)

    connect.column = 0 if package is chatkit_async else 1
    return connect


async def listed_threads(client, each=None):
    """List every thread; return how many there were and the error at the end."""
    found = 0
    try:
        async for one in client.beta.chatkit.threads.list():
            found += 1
            if each is not None:
                await each(one.id)
    except (chatkit_async.ChatKitError, openai.OpenAIError) as error:
        return found, error
    return found, None


def told(found, error, of):
    if not found:
        return f"`{type(error).__name__}`" if error else "an empty list, no error"
    text = f"{found} of {of} threads"
    return f"{text}, then `{type(error).__name__}`" if error else f"{text}, no error"


@pytest.mark.parametrize(
    ("row", "of", "replies"),
    [
        (
            "An empty page has `has_more: true`",
            4,
            [threads(4, 3), threads(last_id="cthr_3a"), threads(2, 1, more=False)],
        ),
        (
            "Pages have no `last_id`",
            4,
            [threads(4, 3, last_id=...), threads(2, 1, more=False, last_id=...)],
        ),
        ("The reply is `{}`", 4, [sent({})]),
    ],
)
async def test_paging_table_counts_threads(connect, row, of, replies):
    async with serve(replying(*replies)) as server, connect(server) as client:
        found, error = await listed_threads(client)

    assert CLAIMS[row][connect.column] == told(found, error, of)


async def test_front_page_says_how_many_pages_are_read(connect):
    replies = [threads(4, 3, last_id=...), threads(2, 1, more=False, last_id=...)]
    async with serve(replying(*replies)) as server, connect(server) as client:
        _, error = await listed_threads(client)

    assert error is None
    pages = {1: "the first page, without an error", 2: "every page"}[len(server.requests)]
    row = "a list of threads whose pages have no `last_id`, as in the API's documentation"
    assert FRONT_PAGE[row][connect.column] == pages


async def test_paging_table_says_what_has_no_end(connect):
    async with serve(replying(without_end())) as server, connect(server) as client:
        found, error = await listed_threads(client)

    endless = len(server.requests) > ENOUGH_REQUESTS
    claim = CLAIMS["`last_id` does not move"][connect.column]
    assert claim == ("requests without end" if endless else told(found, error, 2))


async def test_paging_table_says_where_to_resume(connect):
    replies = [threads(6, 5), threads(4, 3), failed("500 Internal Server Error", "sorry")]
    async with serve(replying(*replies)) as server, connect(server) as client:
        found, error = await listed_threads(client)

    cursor = getattr(error, "cursor", None)
    assert cursor in {None, "cthr_3"}
    claim = told(found, error, 6) + (" with its `cursor`" if cursor else " without a cursor")
    assert CLAIMS["The third of three pages fails"][connect.column] == claim


async def test_paging_table_counts_deleted_threads(connect):
    store = Store()
    async with serve(replying(store)) as server, connect(server) as client:
        found, error = await listed_threads(client, client.beta.chatkit.threads.delete)

    assert len(store.left) == 6 - found
    row = "The loop deletes, and a deleted cursor is refused"
    assert CLAIMS[row][connect.column] == told(found, error, 6)


async def test_paging_table_says_whose_threads_are_listed(connect):
    async with serve(replying(threads(2, 1, more=False))) as server, connect(server) as client:
        try:
            await client.beta.chatkit.threads.list(user=None)
        except ValueError as error:
            claim = f"`{type(error).__name__}`, nothing is sent"
            assert not server.requests
        else:
            claim = "the threads of every user"
            assert "user" not in server.requests[0].line

    assert CLAIMS["`user=None`"][connect.column] == claim


async def test_paging_table_says_what_an_unknown_item_becomes(connect):
    kind = {"type": "chatkit.poll", "question": "Tea?"}
    item = {"id": "cti_1", "created_at": 1_795_850_000, "thread_id": "cthr_1", **kind}
    async with serve(replying(listed(item))) as server, connect(server) as client:
        page = await client.beta.chatkit.threads.list_items("cthr_1")

    [found] = page.data
    claim = f"`{type(found).__name__}`"
    if hasattr(found, "extra"):
        assert found.extra == {"question": "Tea?"}
        claim += ", other fields in `extra`"
    else:
        assert found.content is None
        claim += " with `content=None`"
    assert CLAIMS["An item has an unknown `type`"][connect.column] == claim


@pytest.mark.unmeasured
async def test_paging_table_says_what_a_printed_item_shows(connect):
    text = [{"type": "output_text", "text": "Your parcel is late.", "annotations": []}]
    item = {"id": "cti_1", "created_at": 1_795_850_000, "thread_id": "cthr_1"}
    item |= {"object": "chatkit.thread_item", "type": "chatkit.assistant_message", "content": text}
    async with serve(replying(listed(item))) as server, connect(server) as client:
        page = await client.beta.chatkit.threads.list_items("cthr_1")

    claim = "shows the text" if "parcel" in f"{page.data[0]} {page}" else "hides the text"
    assert CLAIMS["`print(item)`, or a log line with it"][connect.column] == claim
