from __future__ import annotations

import asyncio
import threading

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from patience import PATIENCE

from chatkit_async.emulator import Ledger, Record
from chatkit_async.emulator._changes import Changes
from chatkit_async.emulator._ledger import record_of
from chatkit_async.emulator._replies import Reply
from chatkit_async.emulator._request import Request


def record(**changes):
    values = {
        "connection": 1,
        "received_at": 0.0,
        "method": "POST",
        "path": "/v1/chatkit/sessions",
        "query": "",
        "headers": {"X-Header": "header value"},
        "request_id": "req_1",
        "operation": "create",
        "session_id": None,
        "content": b'{"user": "body value"}',
    }
    return Record(**(values | changes))


@pytest.fixture
def ledger():
    return Ledger(3)


@pytest.fixture
def filled(ledger):
    for name in "abcde":
        ledger.append(record(path=name))
    return ledger


def test_the_latest_requests_are_kept_oldest_first(filled):
    assert [record.path for record in filled] == ["c", "d", "e"]
    assert len(filled) == 3


def test_requests_are_numbered_from_one(filled):
    assert [record.number for record in filled] == [3, 4, 5]


def test_all_requests_are_counted(filled):
    assert filled.total == 5


def test_requests_are_indexed_and_sliced(filled):
    assert filled[-1].path == "e"
    assert [record.path for record in filled[:2]] == ["c", "d"]


def test_a_cleared_ledger_goes_on_counting(filled):
    filled.clear()
    filled.append(record())

    assert len(filled) == 1
    assert filled[0].number == 6


def test_going_through_a_ledger_is_not_disturbed_by_new_requests(filled):
    seen = []
    for kept in filled:
        filled.append(record(path="new"))
        seen.append(kept.path)

    assert seen == ["c", "d", "e"]


def test_a_ledgers_repr_says_how_much_it_kept(filled):
    assert repr(filled) == "<3 requests of 5>"


def test_a_line_for_the_log_says_what_became_of_a_request():
    assert str(record(status=200, outcome="sent")) == "POST /v1/chatkit/sessions 200 req_1"
    assert str(record(outcome="client_gone")) == "POST /v1/chatkit/sessions - (client gone) req_1"


def test_neither_line_nor_repr_of_a_record_holds_headers_or_body():
    for text in (str(record()), repr(record())):
        assert "header value" not in text
        assert "body value" not in text


def test_a_line_for_the_log_holds_neither_query_nor_secret():
    line = str(record(path="/v1/chatkit/sessions/ek_123abc/cancel", query="token=abc"))

    assert "/v1/chatkit/sessions/ek_***/cancel" in line
    assert "abc" not in line


def kept(body=b"", **reply):
    """The record of a request with a body."""
    request = Request(
        connection=1,
        received_at=0.0,
        id="req_1",
        method="POST",
        path="/v1/chatkit/sessions",
        query="",
        headers=CIMultiDictProxy(CIMultiDict()),
        operation="create",
        session_id=None,
        thread_id=None,
        content=body,
    )
    return record_of(request, Reply(**reply), "u" * 70_000, None)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"", b""),
        (b"null", None),
        (b'{"a": [1]}', {"a": [1]}),
        (b"no json", b"no json"),
        (b'"' + 65_534 * b"x" + b'"', 65_534 * "x"),
        (b'"' + 65_535 * b"x" + b'"', b'"' + 65_535 * b"x"),
    ],
)
def test_a_record_keeps_64_kib_of_a_body(body, value):
    record = kept(body)

    assert record.body == value
    assert record.content == body[: 64 * 1024]
    assert record.body_size == len(body)


def test_a_record_keeps_little_of_what_else_a_body_says():
    record = kept(unknown_fields=("f" * 2000,) * 200)

    assert record.user == "u" * 64 * 1024
    assert record.unknown_fields == ("f" * 1000,) * 100


async def test_until_returns_at_once_when_it_is_true_already():
    await Changes().until(lambda: True)


async def test_until_looks_again_at_every_change():
    changes = Changes()
    asked = 0

    def third_time():
        nonlocal asked
        asked += 1
        return asked == 3

    waiting = asyncio.ensure_future(changes.until(third_time))
    while not waiting.done():
        changes.announce()
        changes.announce()  # before the waiter had its turn
        await asyncio.sleep(0)

    assert asked == 3


async def test_a_wait_that_was_given_up_is_forgotten():
    changes = Changes()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await changes.until(lambda: False)

    assert not changes._wakers


def test_wait_until_sees_what_another_thread_changed():
    changes = Changes()
    happened = threading.Event()

    def happen():
        happened.set()
        changes.announce()

    asked = threading.Event()

    def look():
        asked.set()
        return happened.is_set()

    def happen_once_asked():
        asked.wait()
        happen()

    thread = threading.Thread(target=happen_once_asked)
    thread.start()
    assert changes.wait_until(look, PATIENCE)
    thread.join()


def test_wait_until_gives_up_in_time():
    assert not Changes().wait_until(lambda: False, 0)


def test_a_ledger_that_is_reset_counts_from_one(filled):
    filled.reset()
    filled.append(record())

    assert (filled.total, [each.number for each in filled]) == (1, [1])
