"""Threads on both clients, against servers that answer as the API does, and as it should not."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import parse_qs, urlsplit

import cancelling
import pytest
import virtual
from servers import CLOSE, Cut, http, replying, serve

from chatkit_async import AsyncChatKit, ChatKit
from chatkit_async.errors import (
    APIError,
    APIResponseError,
    APIStatusError,
    BadRequestError,
    ClientClosedError,
    InternalServerError,
    NotFoundError,
    ParameterError,
)
from chatkit_async.models.threads import (
    ChatKitThread,
    ChatKitThreadDeleted,
    ChatKitThreadUserMessageItem,
)
from chatkit_async.options import OMITTED
from chatkit_async.pages import AsyncPage, Page

KEY = "sk-" + "0123456789abcdef" * 2


def thread(number, **own):
    return {
        "id": f"cthr_{number}",
        "object": "chatkit.thread",
        "created_at": 1_795_850_000 + number,
        "title": "Private title",
        "status": {"type": "active"},
        "user": "ada",
        **own,
    }


def item(number, **own):
    return {
        "id": f"cti_{number}",
        "object": "chatkit.thread_item",
        "created_at": 1_795_850_000 + number,
        "thread_id": "cthr_1",
        "type": "chatkit.user_message",
        "content": [{"type": "input_text", "text": f"Question {number}"}],
        "attachments": [],
        "inference_options": None,
        **own,
    }


def listed(*data, more=False, **own):
    last_id = data[-1].get("id") if data and isinstance(data[-1], dict) else None
    page = {"object": "list", "data": list(data), "has_more": more}
    return sent({**page, "first_id": None, "last_id": last_id, **own})


def sent(content, status="200 OK"):
    return http(json.dumps(content).encode(), status)


def failed(status, message="Thread with id 'cthr_1' not found.", **own):
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return sent({"error": error | own}, status)


DELETED = sent({"id": "cthr_1", "object": "chatkit.thread.deleted", "deleted": True})
PAGES = [
    listed(thread(6), thread(5), more=True),
    listed(thread(4), thread(3), more=True),
    listed(thread(2)),
]


def queries(server):
    lines = [request.line.split(" ")[1] for request in server.requests]
    return [{k: v[0] for k, v in parse_qs(urlsplit(line).query).items()} for line in lines]


def lines(server):
    return [request.line.removesuffix(" HTTP/1.1") for request in server.requests]


@pytest.fixture
def connect():
    def connect(server, **settings):
        client = AsyncChatKit(api_key=KEY, base_url=server.base_url, **settings)
        client._attempts.seam = type(client._attempts.seam)(sleep=_no_sleep)
        return client

    return connect


async def _no_sleep(_):
    await asyncio.sleep(0)


async def ids_until(error, items):
    """Iterate until an error is raised; return the ids up to then, and the error."""
    found = []

    async def iterate():
        async for each in items:
            found.append(each.id)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(error) as caught:
        await iterate()
    return found, caught.value


# Requests


async def test_list_awaited_is_one_page(connect):
    async with serve(replying(*PAGES)) as server, connect(server) as client:
        page = await client.threads.list(user="ada", limit=2, order="desc", before="cthr_0")

        assert isinstance(page, AsyncPage)
        assert [each.id for each in page.data] == ["cthr_6", "cthr_5"]
        assert isinstance(page.data[0], ChatKitThread)
        assert (page.first_id, page.last_id, page.has_more) == (None, "cthr_5", True)
        assert page.next_page_info() == {"after": "cthr_5"}
        assert lines(server)[0].startswith("GET /v1/chatkit/threads?")
        assert queries(server) == [
            {"user": "ada", "limit": "2", "order": "desc", "before": "cthr_0"}
        ]
        assert server.requests[0].headers["openai-beta"] == "chatkit_beta=v1"


async def test_list_sends_only_what_is_given(connect):
    async with serve(replying(listed())) as server, connect(server) as client:
        await client.threads.list()
        await client.threads.list(extra_query={"new": "x"}, limit=0)

        assert queries(server) == [{}, {"limit": "0", "new": "x"}]


async def test_iteration_keeps_the_filters(connect):
    async with serve(replying(*PAGES)) as server, connect(server) as client:
        found = [each.id async for each in client.threads.list(user="ada", limit=2)]

        assert found == ["cthr_6", "cthr_5", "cthr_4", "cthr_3", "cthr_2"]
        filters = {"user": "ada", "limit": "2"}
        assert queries(server) == [
            filters,
            {**filters, "after": "cthr_5"},
            {**filters, "after": "cthr_3"},
        ]


async def test_items_are_listed_of_one_thread(connect):
    async with serve(replying(listed(item(1), item(2)))) as server, connect(server) as client:
        items = [each async for each in client.threads.list_items("cthr_1", order="asc")]

        assert [each.text for each in items] == ["Question 1", "Question 2"]
        assert isinstance(items[0], ChatKitThreadUserMessageItem)
        assert lines(server) == ["GET /v1/chatkit/threads/cthr_1/items?order=asc"]


async def test_retrieve_and_delete(connect):
    async with serve(replying(sent(thread(1)), DELETED)) as server, connect(server) as client:
        found = await client.beta.chatkit.threads.retrieve("cthr_1")
        gone = await client.chatkit.threads.delete("cthr_1")

        assert (found.id, found.title) == ("cthr_1", "Private title")
        assert isinstance(gone, ChatKitThreadDeleted)
        assert gone.deleted
        assert lines(server) == [
            "GET /v1/chatkit/threads/cthr_1",
            "DELETE /v1/chatkit/threads/cthr_1",
        ]


async def test_an_id_is_one_segment_of_the_path(connect):
    async with serve(replying(failed("404 Not Found"))) as server, connect(server) as client:
        with pytest.raises(NotFoundError):
            await client.threads.retrieve("a/b?c")

        assert lines(server) == ["GET /v1/chatkit/threads/a%2Fb%3Fc"]


async def test_raw_response_has_the_page(connect):
    async with serve(replying(*PAGES)) as server, connect(server) as client:
        response = await client.threads.with_raw_response.list(limit=2)

        assert response.status_code == 200
        page = response.parse()
        assert [each.id for each in page.data] == ["cthr_6", "cthr_5"]
        assert [each.id async for each in page][2:] == ["cthr_4", "cthr_3", "cthr_2"]


async def test_raw_response_of_one_thread(connect):
    replies = (sent(thread(1)), DELETED, listed(item(1)))
    async with serve(replying(*replies)) as server, connect(server) as client:
        raw = client.threads.with_raw_response

        assert (await raw.retrieve("cthr_1")).parse().id == "cthr_1"
        assert (await raw.delete("cthr_1")).parse().deleted
        assert (await raw.list_items("cthr_1")).parse().data[0].id == "cti_1"


# The blocking client


async def test_blocking_client_does_the_same(connect):
    replies = (*PAGES, *PAGES, *PAGES, sent(thread(1)), DELETED, listed(item(1)))

    def work(base_url):
        with ChatKit(api_key=KEY, base_url=base_url) as client:
            threads = client.threads
            assert [each.id for each in threads.list(limit=2)][-1] == "cthr_2"
            assert [len(page.data) for page in threads.list().pages()] == [2, 2, 1]
            page = threads.list(limit=2).page()
            assert isinstance(page, Page)
            assert len(list(page)) == 5
            assert client.beta.chatkit.threads.retrieve("cthr_1").user == "ada"
            assert client.chatkit.threads.delete("cthr_1").deleted
            assert [each.text for each in threads.list_items("cthr_1")] == ["Question 1"]

    async with serve(replying(*replies)) as server:
        await asyncio.to_thread(work, server.base_url)


async def test_blocking_iteration_tells_where_it_broke_off():
    def work(base_url):
        with ChatKit(api_key=KEY, base_url=base_url, max_retries=0) as client:
            items = iter(client.threads.list())
            assert [next(items).id, next(items).id] == ["cthr_6", "cthr_5"]
            with pytest.raises(InternalServerError) as caught:
                next(items)
            assert caught.value.cursor == items.cursor == "cthr_5"

    async with serve(replying(PAGES[0], failed("500 Oops"))) as server:
        await asyncio.to_thread(work, server.base_url)


async def test_blocking_raw_responses():
    replies = (PAGES[0], listed(item(1)), sent(thread(1)), DELETED)

    def work(base_url):
        with ChatKit(api_key=KEY, base_url=base_url) as client:
            raw = client.threads.with_raw_response
            page = raw.list(limit=2).parse()
            assert isinstance(page, Page)
            assert page.cursor == "cthr_5"
            assert raw.list_items("cthr_1").parse().data[0].text == "Question 1"
            assert raw.retrieve("cthr_1").parse().id == "cthr_1"
            assert raw.delete("cthr_1").parse().deleted

    async with serve(replying(*replies)) as server:
        await asyncio.to_thread(work, server.base_url)


async def test_blocking_iteration_crosses_threads_once_per_page(monkeypatch):
    crossings = []

    def work(base_url):
        with ChatKit(api_key=KEY, base_url=base_url) as client:
            run = client._loop_thread.run

            def counted(*args):
                crossings.append(args)
                return run(*args)

            client.threads._loop_thread.run = counted
            assert len(list(client.threads.list())) == 5

    async with serve(replying(*PAGES)) as server:
        await asyncio.to_thread(work, server.base_url)
    assert len(crossings) == 3


# Arguments


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"user": None}, "user: must be a string, got None; the API would list the threads of"),
        ({"user": ""}, "user: must not be empty; the API would list the threads of every user"),
        ({"user": " "}, "user: must not be blank; the API would"),
        ({"limit": True}, "limit: must be a whole number, got True"),
        ({"limit": -1}, "limit: must be at least 0, got -1"),
        ({"limit": 1.5}, "limit: must be a whole number"),
        ({"limit": "20"}, "limit: must be a whole number"),
        ({"order": "newest"}, "order: must be 'asc' or 'desc', did you mean 'desc'?"),
        ({"order": "ascending"}, "order: must be 'asc' or 'desc', did you mean 'asc'?"),
        ({"order": 5}, "order: must be 'asc' or 'desc'"),
        ({"after": ""}, "after: must not be empty"),
        ({"before": 5}, "before: must be a string, got 5"),
        ({"after": "\ud800"}, "after: has text that UTF-8 cannot encode"),
        ({"max_items": 0}, "max_items: must be at least 1, got 0"),
        ({"timeout": -1}, "timeout: must be more than 0 seconds"),
    ],
)
async def test_list_refuses_what_cannot_be_right(given, problem):
    async with AsyncChatKit(api_key=KEY) as client:
        with pytest.raises(ParameterError) as caught:
            client.threads.list(**given)
        assert problem in str(caught.value)
        if not given.keys() & {"user"}:
            with pytest.raises(ParameterError):
                client.threads.list_items("cthr_1", **given)


async def test_every_problem_is_named_at_once():
    async with AsyncChatKit(api_key=KEY) as client:
        with pytest.raises(ParameterError) as caught:
            client.threads.list_items("..", limit=-1, order="up", timeout="x")
    assert [path for path, _ in caught.value.problems] == ["thread_id", "limit", "order", "timeout"]


@pytest.mark.parametrize("thread_id", ["", " ", ".", "..", "a\nb", None, 5, "\ud800"])
@pytest.mark.parametrize("method", ["retrieve", "delete"])
async def test_id_that_cannot_be_right_is_refused(method, thread_id):
    async with AsyncChatKit(api_key=KEY) as client:
        with pytest.raises(ParameterError, match="thread_id"):
            await getattr(client.threads, method)(thread_id)


async def test_omitted_user_lists_all_users(connect):
    async with serve(replying(listed(thread(1, user="eve")))) as server, connect(server) as client:
        page = await client.threads.list(user=OMITTED)

        assert page.data[0].user == "eve"


# Replies that are about something else


@pytest.mark.parametrize(
    ("reply", "call"),
    [
        (listed(thread(1), thread(2, user="eve")), lambda t: t.list(user="ada").page()),
        (sent(thread(2)), lambda t: t.retrieve("cthr_1")),
        (sent({"id": "cthr_2", "deleted": True}), lambda t: t.delete("cthr_1")),
        (listed(item(1, thread_id="cthr_2")), lambda t: t.list_items("cthr_1").page()),
        (listed(thread(1)), lambda t: t.list(user="ada", extra_query={"user": "eve"}).page()),
        (listed(thread(1)), lambda t: t.list(extra_query={"user": "eve"}).page()),
        (listed(thread(1)), lambda t: t.retrieve("cthr_1")),
        (DELETED, lambda t: t.retrieve("cthr_1")),
        (sent(thread(1)), lambda t: t.delete("cthr_1")),
        (listed(thread(1)), lambda t: t.delete("cthr_1")),
        (listed(thread(1)), lambda t: t.list_items("cthr_1").page()),
        (listed(item(1)), lambda t: t.list().page()),
    ],
)
async def test_reply_to_another_request_is_refused(connect, reply, call):
    async with serve(replying(reply)) as server:
        async with connect(server, max_retries=0) as client:
            with pytest.raises(APIResponseError) as caught:
                await call(client.threads)
            assert caught.value.kind == "mismatched"
        async with connect(server, verify_replies=False) as client:
            await call(client.threads)


async def test_unknown_kind_of_object_is_read(connect):
    reply = sent(thread(1, object="chatkit.conversation"))
    async with serve(replying(reply)) as server, connect(server) as client:
        assert (await client.threads.retrieve("cthr_1")).id == "cthr_1"


async def test_delete_read_after_a_surplus_reply_is_confirmed(connect):
    """The reply to `retrieve`, repeated, names the thread that is deleted next."""
    replies = (sent(thread(1)), sent(thread(1)), failed("404 Not Found"))
    async with serve(replying(*replies)) as server, connect(server) as client:
        await client.threads.retrieve("cthr_1")
        gone = await client.threads.delete("cthr_1")

        assert gone.deleted
        assert len(server.requests) == len(replies)


# Pages that are none


@pytest.mark.parametrize(
    "reply",
    [
        sent({"object": "list", "has_more": False}),
        sent({"object": "list", "data": {}, "has_more": False}),
        sent({"object": "list", "data": ["Private title"], "has_more": False}),
        sent({"object": "list", "data": [thread(1)]}),
        sent({"object": "list", "data": [thread(1)], "has_more": "no"}),
        sent({"title": "Private title"}),
    ],
)
@pytest.mark.parametrize("first", [True, False])
async def test_reply_that_is_no_page_is_an_error(connect, reply, first):
    replies = (reply,) if first else (PAGES[0], reply)
    async with serve(replying(*replies)) as server, connect(server) as client:
        found, error = await ids_until(APIResponseError, client.threads.list())

        assert error.kind == "page"
        assert found == ([] if first else ["cthr_6", "cthr_5"])
        assert error.cursor == (None if first else "cthr_5")
        assert "Private" not in repr(error) + str(error)


# Errors on the way


@pytest.mark.parametrize("reply", [failed("500 Oops"), CLOSE, Cut(PAGES[2][:-20])])
async def test_error_on_a_later_page_loses_no_item(connect, reply):
    replies = (*PAGES[:2], reply)
    async with serve(replying(*replies)) as server, connect(server, max_retries=0) as client:
        items = aiter(client.threads.list())
        found, error = await ids_until(APIError, items)

        assert found == ["cthr_6", "cthr_5", "cthr_4", "cthr_3"]
        assert error.cursor == items.cursor == "cthr_3"


async def test_each_page_is_retried(connect):
    replies = (PAGES[0], failed("503 Busy"), PAGES[1], failed("500 Oops"), PAGES[2])
    async with serve(replying(*replies)) as server, connect(server) as client:
        assert len([each async for each in client.threads.list()]) == 5


async def test_list_resumes_after_a_cursor(connect):
    async with serve(replying(*PAGES[1:])) as server, connect(server) as client:
        found = [each.id async for each in client.threads.list(after="cthr_5")]

        assert found == ["cthr_4", "cthr_3", "cthr_2"]
        assert queries(server)[0] == {"after": "cthr_5"}


async def test_error_quotes_no_conversation(connect):
    body = {"thread": thread(1), "error": {"message": "Sorry", "type": "server_error"}}
    replies = (sent(body, "500 Oops"), http(b"<p>Private title</p>", "502 Bad Gateway"))
    async with serve(replying(*replies)) as server, connect(server, max_retries=0) as client:
        for kept in ({"error": {"message": "Sorry", "type": "server_error"}}, None):
            with pytest.raises(InternalServerError) as caught:
                await client.threads.retrieve("cthr_1")
            assert caught.value.body == kept
            assert "Private" not in f"{caught.value!r} {caught.value} {vars(caught.value)}"


# Deleting


async def test_delete_whose_reply_was_lost_has_succeeded(connect):
    async with serve(replying(CLOSE, failed("404 Not Found"))) as server, connect(server) as client:
        response = await client.threads.with_raw_response.delete("cthr_1")

        assert response.attempts == 2
        assert response.parse().to_dict() == {
            "id": "cthr_1",
            "object": "chatkit.thread.deleted",
            "deleted": True,
        }


@pytest.mark.parametrize(
    "replies",
    [
        (failed("404 Not Found"),),
        (failed("503 Busy"), failed("404 Not Found")),
        (CLOSE, failed("404 Not Found", "Invalid URL (DELETE /chatkit/threads/cthr_1)")),
        (CLOSE, http(b"<h1>Not found</h1>", "404 Not Found")),
        (CLOSE, failed("403 Forbidden")),
    ],
)
async def test_thread_that_is_not_found_is_no_success(connect, replies):
    async with serve(replying(*replies)) as server, connect(server) as client:
        with pytest.raises(APIStatusError):
            await client.threads.delete("cthr_1")


async def test_read_that_was_lost_is_no_success(connect):
    async with serve(replying(CLOSE, failed("404 Not Found"))) as server, connect(server) as client:
        with pytest.raises(NotFoundError):
            await client.threads.retrieve("cthr_1")


# Cursors that are refused


async def test_missing_thread_is_told_from_a_missing_cursor(connect):
    gone = failed("404 Not Found")
    replies = (listed(item(2), item(1), more=True), gone, gone)
    async with serve(replying(*replies)) as server, connect(server) as client:
        found, error = await ids_until(NotFoundError, client.threads.list_items("cthr_1"))

        assert found == ["cti_2", "cti_1"]
        assert error.cursor == "cti_1"
        assert lines(server)[-1] == "GET /v1/chatkit/threads/cthr_1"


async def test_refused_cursor_starts_the_list_again(connect):
    refused = failed("404 Not Found", "No such item")
    first = listed(item(3), item(2), more=True)
    again = listed(item(3), item(1))
    replies = (first, refused, sent(thread(1)), again)
    async with serve(replying(*replies)) as server, connect(server) as client:
        found = [each.id async for each in client.threads.list_items("cthr_1")]

        assert found == ["cti_3", "cti_2", "cti_1"]


async def test_cursor_that_is_always_refused_is_an_error(connect):
    refused = failed("400 Bad Request", "No such cursor", param="after")
    replies = (PAGES[0], refused, PAGES[0], refused)
    async with serve(replying(*replies)) as server, connect(server) as client:
        found, error = await ids_until(BadRequestError, client.threads.list())

        assert found == ["cthr_6", "cthr_5"]
        assert error.cursor == "cthr_5"
        assert len(server.requests) == 4


# Lifetime and use


async def test_closed_client_ends_a_list(connect):
    async with serve(replying(*PAGES)) as server:
        client = connect(server)
        items = aiter(client.threads.list())
        assert (await anext(items)).id == "cthr_6"
        await client.close()
        found, error = await ids_until(ClientClosedError, items)
    assert found == ["cthr_5"]
    assert error.cursor == "cthr_5"


def test_cancelled_iteration_goes_on_where_it_was():
    async def main():
        async with virtual.emulator() as emulator, virtual.client(emulator) as client:
            ids = [emulator.add_thread(user="ada").id for _ in range(5)]

            def cancelled():
                items, found = aiter(client.threads.list(limit=2, order="asc")), []

                async def work():
                    async for thread in items:
                        found.append(thread.id)  # noqa: PERF401 - it is cancelled half way

                async def check():
                    await work()
                    assert found == ids

                return work, check

            await cancelling.sweep(cancelling.WAYS["twice"], cancelled, step=3)

    virtual.run(main(), loop_factory=cancelling.CountingLoop)


async def test_wrong_loop_says_which_is_right():
    async with AsyncChatKit(api_key=KEY) as client:
        with pytest.raises(TypeError, match="async for item in"):
            iter(client.threads.list())
    with ChatKit(api_key=KEY) as blocking, pytest.raises(TypeError, match="for item in"):
        aiter(blocking.threads.list())


async def test_threads_are_made_once():
    async with AsyncChatKit(api_key=KEY) as client:
        assert client.threads is client.threads is client.chatkit.threads
        assert client.with_options(timeout=5).threads is not client.threads
