"""Threads: how they are added, listed, read and deleted."""

from __future__ import annotations

import itertools
import json
import math
import threading
from pathlib import Path

import aiohttp
import pytest

from chatkit_async.emulator import Emulator

PRIVATE = "the text of a conversation"

WIDGET = {"type": "chatkit.widget", "widget": '{"type": "Card"}'}


@pytest.fixture
def ask(http):
    """Ask the API: returns the status and the decoded body."""

    async def ask(method, path, **options):
        async with http.request(method, f"chatkit/{path}", **options) as response:
            return response.status, await response.json()

    return ask


@pytest.fixture
def page(ask):
    """List: returns the ids, and the page without its data."""

    async def page(path="threads", **params):
        status, body = await ask("GET", path, params=params)
        assert status == 200, body
        return [row["id"] for row in body.pop("data")], body

    return page


@pytest.fixture
def refusal(ask):
    async def refusal(path, **params):
        status, body = await ask("GET", path, params=params)
        assert status == 400
        assert body["error"]["type"] == "invalid_request_error"
        return body["error"]["param"], body["error"]["code"]

    return refusal


def add(emulator, count, *, per_second=3, user="ada"):
    """Add threads, some in the same second: returns their ids, oldest first."""
    start = int(emulator.clock.now())
    return [
        emulator.add_thread(user=user, created_at=start + number // per_second).id
        for number in range(count)
    ]


# Adding


def test_thread_has_what_was_given(clock):
    emulator = Emulator(clock=clock)
    thread = emulator.add_thread(
        user="ada",
        title="Refund",
        status={"type": "locked", "reason": "handed over"},
        created_at=5,
        id="cthr_1",
        items=["user: Hi", {**WIDGET, "id": "cti_1", "created_at": 7, "thread_id": "cthr_other"}],
    )

    assert (thread.id, thread.user, thread.title) == ("cthr_1", "ada", "Refund")
    assert thread.created_at == 5
    assert thread.status == {"type": "locked", "reason": "handed over"}
    assert emulator.threads["cthr_1"] is thread
    first, second = thread.items
    assert first == {
        "id": first["id"],
        "object": "chatkit.thread_item",
        "created_at": 5,
        "thread_id": "cthr_1",
        "type": "chatkit.user_message",
        "content": [{"type": "input_text", "text": "Hi"}],
        "attachments": [],
        "inference_options": None,
    }
    assert second == {
        **WIDGET,
        "id": "cti_1",
        "object": "chatkit.thread_item",
        "created_at": 7,
        "thread_id": "cthr_other",
    }


def test_thread_defaults(clock):
    thread = Emulator(clock=clock).add_thread(user="ada", items=["assistant:Hello: you"])

    assert thread.created_at == clock.now()
    assert thread.title is None
    assert thread.status == {"type": "active"}
    assert thread.items[0]["created_at"] == clock.now()
    assert thread.items[0]["content"] == [
        {"type": "output_text", "text": "Hello: you", "annotations": []}
    ]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("active", {"type": "active"}),
        ("closed", {"type": "closed", "reason": None}),
        ({"type": "locked"}, {"type": "locked", "reason": None}),
    ],
)
def test_thread_status(status, told):
    assert Emulator().add_thread(user="ada", status=status).status == told


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"user": ""}, "user"),
        ({"user": None}, "user"),
        ({"user": 5}, "user"),
        ({"title": 5}, "title"),
        ({"status": "open"}, "status"),
        ({"status": {}}, "status"),
        ({"status": 5}, "status"),
        ({"created_at": "5"}, "created_at"),
        ({"created_at": 5.5}, "created_at"),
        ({"id": ""}, "id"),
        ({"id": "cthr_taken"}, "cthr_taken"),
        ({"items": [f"someone: {PRIVATE}"]}, r"items\[0\]"),
        ({"items": ["user: Hi", PRIVATE]}, r"items\[1\]"),
        ({"items": [5]}, r"items\[0\]"),
        ({"items": PRIVATE}, r"items\[0\]"),
        ({"items": [{"text": PRIVATE}]}, r"items\[0\].type"),
        ({"items": [{"type": ""}]}, r"items\[0\].type"),
        ({"items": [{**WIDGET, "created_at": "x"}]}, r"items\[0\].created_at"),
        ({"items": [{**WIDGET, "id": "a"}, {**WIDGET, "id": "a"}]}, "'a'"),
        ({"items": [{**WIDGET, "widget": math.nan}]}, "JSON"),
        ({"items": [{**WIDGET, "widget": object()}]}, "JSON"),
    ],
)
def test_thread_that_cannot_be_added(given, problem):
    emulator = Emulator()
    emulator.add_thread(user="ada", id="cthr_taken")

    with pytest.raises(ValueError, match=problem) as error:
        emulator.add_thread(**{"user": "ada", "title": PRIVATE, **given})

    assert PRIVATE not in str(error.value)
    assert list(emulator.threads) == ["cthr_taken"]


def test_items_are_copied():
    item = {**WIDGET, "more": {"key": 1}}
    emulator = Emulator()
    thread = emulator.add_thread(user="ada", items=[item])
    item["more"]["key"] = 2

    assert thread.items[0]["more"] == {"key": 1}


def test_item_is_added_and_deleted(clock):
    emulator = Emulator(clock=clock)
    thread = emulator.add_thread(user="ada", items=["user: Hi"])
    clock.advance(3)

    item = emulator.add_item(thread.id, "assistant: Hello")

    assert thread.items[1] == item
    assert item["created_at"] == clock.now()
    emulator.delete_item(thread.id, thread.items[0]["id"])
    assert thread.items == (item,)
    emulator.delete_thread(thread.id)
    assert not emulator.threads
    for missing in (
        lambda: emulator.add_item(thread.id, WIDGET),
        lambda: emulator.delete_thread(thread.id),
        lambda: emulator.delete_item(thread.id, "cti_1"),
    ):
        with pytest.raises(KeyError):
            missing()
    with pytest.raises(ValueError, match="'item'"):
        emulator.add_item(emulator.add_thread(user="ada").id, "Hi")


def test_ids_begin_with_the_time(clock):
    def ids(seed):
        emulator = Emulator(clock=clock, seed=seed)
        threads = [emulator.add_thread(user="ada", items=[WIDGET]) for _ in range(2)]
        return [each for thread in threads for each in (thread.id, thread.items[0]["id"])]

    now = f"{int(clock.now()):08x}"
    for each, prefix in zip(ids(1), itertools.cycle(["cthr_", "cti_"]), strict=False):
        assert each.startswith(prefix + now)
        digits = each.removeprefix(prefix)
        assert len(digits) == 48
        assert set(digits) <= set("0123456789abcdef")
    assert ids(1) == ids(1)
    assert not set(ids(1)) & set(ids(2))


def test_reset_forgets_threads(clock):
    emulator = Emulator(clock=clock)
    first = emulator.add_thread(user="ada").id
    emulator.deleted_cursor = "accept"
    emulator.reset()

    assert not emulator.threads
    assert emulator.deleted_cursor == "error"
    assert emulator.add_thread(user="ada").id == first


def test_text_is_in_no_repr():
    emulator = Emulator()
    thread = emulator.add_thread(
        user="ada",
        title=PRIVATE,
        status={"type": "locked", "reason": PRIVATE},
        items=[f"user: {PRIVATE}"],
    )

    shown = f"{thread!r} {emulator.threads!r} {emulator!r} {thread}"
    assert PRIVATE not in shown
    assert thread.id in shown
    assert "<1 rows>" in shown
    assert "status='locked'" in shown


def test_threads_can_be_listed_while_another_thread_deletes_some():
    emulator = Emulator()
    ids = add(emulator, 3)
    seen = []
    for thread_id in emulator.threads:
        deleting = threading.Thread(target=emulator.delete_thread, args=[thread_id])
        deleting.start()
        deleting.join()
        seen.append(thread_id)

    assert seen == ids


# Lists


async def test_list_has_the_schemas_fields(ask, emulator):
    first = emulator.add_thread(user="ada", title="Refund")
    second = emulator.add_thread(user="bob", status="closed")

    status, body = await ask("GET", "threads")

    assert status == 200
    assert body == {
        "object": "list",
        "data": [
            {
                "id": thread.id,
                "object": "chatkit.thread",
                "created_at": emulator.clock.now(),
                "title": thread.title,
                "status": thread.status,
                "user": thread.user,
            }
            for thread in (second, first)
        ],
        "first_id": second.id,
        "last_id": first.id,
        "has_more": False,
    }


async def test_items_have_the_schemas_fields(ask, emulator):
    thread = emulator.add_thread(user="ada", items=["user: Hi", WIDGET])

    status, body = await ask("GET", f"threads/{thread.id}/items")

    assert status == 200
    assert body == {
        "object": "list",
        "data": list(reversed(thread.items)),
        "first_id": thread.items[1]["id"],
        "last_id": thread.items[0]["id"],
        "has_more": False,
    }


@pytest.mark.parametrize("path", ["threads", "items"])
async def test_page_size_is_20_unless_asked(page, emulator, path):
    ids = add(emulator, 101)
    if path == "items":
        thread = emulator.add_thread(user="ada", items=[WIDGET] * 101)
        ids, path = [item["id"] for item in thread.items], f"threads/{thread.id}/items"
    newest = ids[::-1]

    for params, found in [({}, 20), ({"limit": 1}, 1), ({"limit": 100}, 100), ({"limit": 0}, 0)]:
        found_ids, rest = await page(path, order="desc", **params)
        if path == "threads":
            assert found_ids == newest[:found]
        assert len(found_ids) == found
        assert rest["has_more"] is True
        assert (rest["first_id"] is None) is (found == 0)


async def test_empty_list(page):
    for limit in (0, 20):
        ids, rest = await page(limit=limit)
        assert ids == []
        assert rest == {"object": "list", "first_id": None, "last_id": None, "has_more": False}


async def test_pages_list_each_thread_once(page, emulator):
    for order, limit in itertools.product(["asc", "desc"], [1, 2, 3, 7, 8]):
        emulator.reset()
        ids = add(emulator, 7)
        found, cursor = [], {}
        for _ in range(7):
            more, rest = await page(order=order, limit=limit, **cursor)
            found += more
            cursor = {"after": rest["last_id"]}
            if not rest["has_more"]:
                break

        assert found == (ids if order == "asc" else ids[::-1])


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_cursors_are_exclusive_bounds_in_the_order_asked_for(page, emulator, order):
    ids = add(emulator, 5)
    listed = ids if order == "asc" else ids[::-1]
    for low, high in itertools.product([None, *range(5)], repeat=2):
        cursors = {} if low is None else {"after": listed[low]}
        cursors |= {} if high is None else {"before": listed[high]}
        start = 0 if low is None else low + 1
        window = listed[start : 5 if high is None else high]

        found, rest = await page(order=order, limit=2, **cursors)

        assert found == window[:2]
        assert rest["has_more"] is (len(window) > 2)


async def test_order_is_by_time_then_by_insertion(page, emulator):
    late, first, second = (
        emulator.add_thread(user="ada", created_at=created_at).id for created_at in (9, 5, 5)
    )

    assert (await page(order="asc"))[0] == [first, second, late]
    assert list(emulator.threads) == [first, second, late]


async def test_user_filter(page, emulator):
    ada, bob = add(emulator, 3), add(emulator, 2, user="sk-bob ä&")

    assert (await page(order="asc", user="sk-bob ä&"))[0] == bob
    found, rest = await page(order="asc", user="ada", limit=2)
    assert (found, rest["has_more"]) == (ada[:2], True)
    assert (await page(order="asc", user="ada", before=bob[1]))[0] == ada
    assert (await page(user="x" * 512))[0] == []


async def test_query_that_breaks_the_schema(refusal, emulator):
    for path, (params, problem) in itertools.product(
        ["threads", "threads/cthr_1/items"],
        [
            ({"limit": -1}, ("limit", "integer_below_min_value")),
            ({"limit": 101}, ("limit", "integer_above_max_value")),
            ({"limit": 10**30}, ("limit", "invalid_type")),
            ({"limit": "1.5"}, ("limit", "invalid_type")),
            ({"limit": ""}, ("limit", "invalid_type")),
            ({"limit": "٣"}, ("limit", "invalid_type")),
            ({"limit": "true"}, ("limit", "invalid_type")),
            ({"order": "newest"}, ("order", "invalid_value")),
            ({"order": ""}, ("order", "invalid_value")),
            ({"order": "ASC"}, ("order", "invalid_value")),
            ({"after": "cthr_unknown"}, ("after", None)),
            ({"before": ""}, ("before", None)),
        ],
    ):
        emulator.reset()
        emulator.add_thread(user="ada", id="cthr_1")

        assert await refusal(path, **params) == problem


async def test_user_filter_has_1_to_512_characters(refusal, page, emulator):
    assert await refusal("threads", user="") == ("user", "string_below_min_length")
    assert await refusal("threads", user="x" * 513) == ("user", "string_above_max_length")
    thread = emulator.add_thread(user="ada")
    await page(f"threads/{thread.id}/items", user="", metadata=1)
    assert emulator.requests[-1].unknown_fields == ("user", "metadata")


@pytest.mark.parametrize("name", ["after", "before"])
async def test_deleted_cursor(page, refusal, emulator, name):
    ids = add(emulator, 5)
    emulator.delete_thread(ids[2])
    left = [*ids[:2], *ids[3:]]

    assert await refusal("threads", **{name: ids[2]}) == (name, None)
    emulator.deleted_cursor = "ignore"
    assert (await page(order="asc", **{name: ids[2]}))[0] == left
    assert (await page(order="asc", **{name: "unknown"}))[0] == left
    emulator.deleted_cursor = "accept"
    found = (await page(order="asc", **{name: ids[2]}))[0]
    assert found == (ids[3:] if name == "after" else ids[:2])
    assert await refusal("threads", **{name: "unknown"}) == (name, None)


@pytest.mark.parametrize("deleted_cursor", [None, "accepted", "", 5])
def test_deleted_cursor_is_one_of_three(deleted_cursor):
    with pytest.raises(ValueError, match="deleted_cursor"):
        Emulator(deleted_cursor=deleted_cursor)
    emulator = Emulator(deleted_cursor="ignore")
    with pytest.raises(ValueError, match="deleted_cursor"):
        emulator.deleted_cursor = deleted_cursor
    assert emulator.deleted_cursor == "ignore"


async def test_secret_as_cursor_is_masked(ask):
    _, body = await ask("GET", "threads", params={"after": "ek_secret=="})

    assert "ek_***'" in body["error"]["message"]
    assert "secret" not in json.dumps(body)


# One thread


async def test_thread_is_retrieved_and_deleted(ask, emulator):
    thread = emulator.add_thread(user="ada", title="Refund", items=["user: Hi"])
    path = f"threads/{thread.id}"

    assert await ask("GET", path) == (
        200,
        {
            "id": thread.id,
            "object": "chatkit.thread",
            "created_at": emulator.clock.now(),
            "title": "Refund",
            "status": {"type": "active"},
            "user": "ada",
        },
    )
    assert await ask("DELETE", path) == (
        200,
        {"id": thread.id, "object": "chatkit.thread.deleted", "deleted": True},
    )
    for method, gone in [("GET", path), ("DELETE", path), ("GET", f"{path}/items")]:
        status, body = await ask(method, gone)
        assert status == 404
        assert body["error"] == {
            "message": f"Thread with id '{thread.id}' not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }


async def test_requests_about_threads_are_noted(ask, emulator):
    thread = emulator.add_thread(user="ada", title=PRIVATE, items=[f"user: {PRIVATE}"])
    await ask("GET", "threads", params={"user": "sk-bob"})
    await ask("GET", f"threads/{thread.id}/items")
    await ask("GET", f"threads/{thread.id}")
    await ask("DELETE", f"threads/{thread.id}")
    await ask("GET", "threads/unknown")

    noted = [
        (record.operation, record.thread_id, record.session_id, record.user)
        for record in emulator.requests
    ]
    assert noted == [
        ("list_threads", None, None, "sk-bob"),
        ("list_items", thread.id, None, "ada"),
        ("retrieve_thread", thread.id, None, "ada"),
        ("delete_thread", thread.id, None, "ada"),
        ("retrieve_thread", "unknown", None, None),
    ]
    assert emulator.requests[0].query == "user=sk-***"
    assert PRIVATE not in f"{list(emulator.requests)} {[str(each) for each in emulator.requests]}"


async def test_wrong_method(http):
    for path, allowed in (
        ("chatkit/threads", "GET"),
        ("chatkit/threads/cthr_1", "GET, DELETE"),
        ("chatkit/threads/cthr_1/items", "GET"),
    ):
        for method in {"POST", "PUT", "PATCH", "DELETE"} - set(allowed.split(", ")):
            async with http.request(method, path) as response:
                assert response.status == 405
                assert response.headers["Allow"] == allowed
                message = (await response.json())["error"]["message"]
            assert message == f"Invalid method for URL ({method} /v1/{path})"


async def test_path_that_does_not_exist(ask):
    for path in ["threads/", "threads/a/b", "threads/a/items/b", "files"]:
        status, body = await ask("GET", path)

        assert status == 404
        assert body["error"]["message"] == f"Invalid URL (GET /v1/chatkit/{path})"


async def test_retired_service_still_has_threads(ask, emulator):
    thread = emulator.add_thread(user="ada")
    emulator.retired = True

    for method, path in [("GET", ""), ("GET", f"/{thread.id}/items"), ("DELETE", f"/{thread.id}")]:
        assert (await ask(method, f"threads{path}"))[0] == 200


# Pages off their schema


async def test_off_schema_is_as_the_documentation_shows(ask, emulator):
    thread = emulator.add_thread(user="ada", title="Refund", items=["user: Hi", "assistant: Yes"])
    emulator.off_schema = True
    user, assistant = thread.items
    shown = [
        {
            "id": user["id"],
            "object": "chatkit.thread_item",
            "type": "user_message",
            "content": [{"type": "input_text", "text": "Hi"}],
            "attachments": [],
        },
        {
            "id": assistant["id"],
            "object": "chatkit.thread_item",
            "type": "assistant_message",
            "content": [{"type": "output_text", "text": "Yes"}],
        },
    ]
    named = {"id": thread.id, "object": "chatkit.thread", "title": "Refund"}

    assert (await ask("GET", "threads"))[1] == {
        "object": "list",
        "data": [named],
        "has_more": False,
    }
    assert (await ask("GET", f"threads/{thread.id}/items?order=asc"))[1] == {
        "object": "list",
        "data": shown,
        "has_more": False,
    }
    assert (await ask("GET", f"threads/{thread.id}"))[1] == {
        **named,
        "items": {"data": shown, "has_more": False},
    }
    assert (await ask("DELETE", f"threads/{thread.id}"))[1]["deleted"] is True


@pytest.mark.parametrize("operation", ["list_threads", "list_items"])
async def test_page_faults(ask, emulator, operation):
    thread = emulator.add_thread(user="ada", items=["user: Hi", WIDGET, "assistant: Yes"])
    add(emulator, 2)
    path = "threads" if operation == "list_threads" else f"threads/{thread.id}/items"

    async def bent(page, **params):
        emulator.fail(operation=operation, page=page)
        status, body = await ask("GET", path, params={"limit": 2, "order": "asc", **params})
        assert status == 200
        assert emulator.faults == ()
        return body

    _, usual = await ask("GET", path, params={"limit": 2, "order": "asc"})
    assert await bent("empty") == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": True,
    }
    assert await bent("stuck") == usual
    last = usual["last_id"]
    stuck = await bent("stuck", after=last)
    assert (len(stuck["data"]), stuck["last_id"], stuck["has_more"]) == (1, last, True)
    without = {**usual}
    del without["last_id"]
    assert await bent("no_last_id") == without
    short = (await bent("short_types"))["data"]
    unknown = (await bent("unknown_types"))["data"]
    assert {row["type"] for row in unknown} == {"chatkit.unknown"}
    if operation == "list_items":
        assert [row["type"] for row in short] == ["user_message", "widget"]
        assert unknown[1]["widget"] == WIDGET["widget"]
    else:
        assert short == usual["data"]


async def test_page_fault_leaves_other_replies(ask, emulator, create):
    thread = emulator.add_thread(user="ada")
    emulator.fail(page="empty", times=None)

    assert (await create())[1]["object"] == "chatkit.session"
    assert (await ask("GET", f"threads/{thread.id}"))[1]["id"] == thread.id
    assert (await ask("GET", "threads/unknown"))[0] == 404


async def test_faults_for_threads(ask, emulator):
    ada, bob = emulator.add_thread(user="ada"), emulator.add_thread(user="bob")
    emulator.fail(operation="list_threads", status=503, every=2)
    emulator.fail(user="ada", status=429)
    emulator.fail(operation="delete_thread", drop="close", after=True, times=2)

    assert (await ask("GET", "threads"))[0] == 200
    assert (await ask("GET", f"threads/{bob.id}"))[0] == 200
    assert (await ask("GET", f"threads/{ada.id}"))[0] == 429
    assert (await ask("GET", "threads", params={"user": "ada"}))[0] == 503
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await ask("DELETE", f"threads/{bob.id}")
    assert list(emulator.threads) == [ada.id]


# The state file


@pytest.fixture
def state(tmp_path):
    def state(*lines):
        path = Path(tmp_path, "state.jsonl")
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_text("\n".join(texts), encoding="utf-8")
        return path

    return state


async def test_state_file(state, clock):
    thread = {
        "id": "cthr_1",
        "object": "chatkit.thread",
        "created_at": 5,
        "title": None,
        "status": {"type": "active"},
        "user": "ada",
    }
    item = {
        **WIDGET,
        "id": "cthi_1",
        "created_at": 6,
        "thread_id": "cthr_1",
        "new": {"a": "\u2028"},
    }
    path = state(
        {"clock": {"now": 1000, "frozen": True}},
        {"thread": thread, "items": [item, "user: Hi"], "has_more": True},
        {"thread": {"id": "cthr_1"}, "items": ["assistant: Hello"], "part": 2},
        "",
        {"thread": {"user": "bob"}},
        {"session": {"id": "cksess_1", "user": "ada", "workflow": {"id": "wf_1"}}},
        {"session": {"user": "bob", "workflow": {"id": "wf_1"}}},
        {"fault": {"status": 503, "operation": "list_items"}},
    )
    emulator = Emulator(clock=clock, state=path)

    for _ in range(2):
        assert emulator.clock.now() == 1000
        assert [each.user for each in emulator.threads.values()] == ["ada", "bob"]
        kept = emulator.threads["cthr_1"].items
        assert kept[0] == {**item, "object": "chatkit.thread_item"}
        assert len(kept) == 3
        assert next(iter(emulator.sessions)) == "cksess_1"
        assert len(emulator.sessions) == 2
        assert emulator.sessions["cksess_1"].created_at == 1000
        [fault] = emulator.faults
        assert (fault.status, fault.operation, fault.times) == (503, "list_items", 1)

        emulator.add_thread(user="eve")
        emulator.clear_faults()
        emulator.clock.advance(5)
        emulator.reset()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ("{}", "'thread'"),
        ({"threads": []}, "'thread'"),
        ({"thread": {}}, "'thread.user'"),
        ({"thread": {"user": "ada", "text": PRIVATE}}, "'thread.text'"),
        ({"thread": {"user": "ada"}, "item": []}, "'item'"),
        ({"thread": {"user": "ada"}, "items": {}}, "'items'"),
        ({"thread": {"user": "ada"}, "items": [PRIVATE]}, r"items\[0\]"),
        ({"thread": {"user": "ada", "id": "cthr_1"}}, "cthr_1"),
        ({"thread": {"user": "ada"}, "session": {}}, "'session'"),
        ({"thread": {"id": "cthr_2"}, "items": [], "part": 2}, "a later part"),
        ({"thread": {"id": "cthr_1"}, "items": {}, "part": 2}, "a later part"),
        ({"session": {"user": "ada"}}, "'workflow'"),
        ({"session": {"user": "ada", "workflow": {"id": "w"}, "x": 1}}, "'x'"),
        ({"session": {"user": "ada", "workflow": {"id": "w"}}, "items": []}, "'items'"),
        ({"fault": {}}, "must do something"),
        ({"fault": {"status": 503, "tmies": 2}}, "'fault.tmies'"),
        ({"clock": {"now": "noon"}}, "'clock.now'"),
        ({"clock": {"later": 5}}, "'clock.later'"),
    ],
)
def test_state_file_with_anything_else(state, line, problem):
    path = state({"thread": {"user": "ada", "id": "cthr_1"}}, line)

    with pytest.raises(ValueError, match=problem) as error:
        Emulator(state=path)

    assert str(error.value).startswith(f"{path}, line 2: ")
    assert PRIVATE not in str(error.value)


def test_state_file_that_cannot_be_read(tmp_path):
    with pytest.raises(OSError, match="missing"):
        Emulator(state=str(tmp_path / "missing"))


# Controls


async def test_threads_under_control(control):
    status, added = await control(
        "POST",
        "threads",
        {"user": "ada", "title": "Refund", "status": "locked", "items": ["user: Hi", WIDGET]},
    )
    assert status == 200
    assert added == {
        "id": added["id"],
        "object": "chatkit.thread",
        "created_at": added["created_at"],
        "title": "Refund",
        "status": {"type": "locked", "reason": None},
        "user": "ada",
        "items": 2,
    }
    await control("POST", "threads", {"user": "bob"})

    assert (await control("GET", f"threads/{added['id']}"))[1] == added
    listed = (await control("GET", "threads", params={"limit": 1}))[1]
    assert (listed["total"], listed["threads"][0]["user"]) == (2, "bob")
    assert (await control("GET", "threads", params={"user": "ada"}))[1] == {
        "total": 1,
        "threads": [added],
    }
    assert (await control("GET", "state"))[1]["threads"] == {"total": 2}
    assert await control("DELETE", f"threads/{added['id']}") == (200, added)
    for method in ("GET", "DELETE"):
        status, body = await control(method, f"threads/{added['id']}")
        assert status == 404
        assert added["id"] in body["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"), [({}, "user"), ({"user": "ada", "text": PRIVATE}, "text")]
)
async def test_thread_that_control_refuses(control, emulator, body, param):
    status, refused = await control("POST", "threads", body)

    assert (status, refused["error"]["param"]) == (400, param)
    assert PRIVATE not in json.dumps(refused)
    assert not emulator.threads


async def test_deleted_cursor_and_page_faults_under_control(control, emulator):
    _, settings = await control("PATCH", "settings", {"deleted_cursor": "accept"})
    assert settings["deleted_cursor"] == emulator.deleted_cursor == "accept"
    status, body = await control("PATCH", "settings", {"deleted_cursor": "x"})
    assert (status, body["error"]["param"]) == (400, "deleted_cursor")

    fault = {"operation": "list_items", "page": "stuck", "times": 1}
    assert (await control("POST", "faults", fault))[1] == {"number": 1, "met": 0, **fault}
