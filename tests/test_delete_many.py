"""Deleting many threads: what counts as deleted, and which threads a run takes."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import cancelling
import pytest
import virtual
from servers import CLOSE, http, replying, serve

from chatkit_async import (
    APIError,
    APIResponseError,
    AsyncChatKit,
    BadRequestError,
    ChatKit,
    ChatKitThread,
    ChatSession,
    NotFoundError,
    ParameterError,
    PermissionDeniedError,
)
from chatkit_async.emulator import Emulator

KEY = "sk-" + "0123456789abcdef" * 2


def sent(content, status="200 OK"):
    return http(json.dumps(content).encode(), status)


def failed(status, message="Thread with id 'cthr_1' not found."):
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return sent({"error": error}, status)


def gone(thread_id="cthr_1", **own):
    return sent({"id": thread_id, "object": "chatkit.thread.deleted", **own})


def kinds(outcomes):
    return Counter(outcome.kind for outcome in outcomes)


@pytest.fixture
def emulator():
    with Emulator() as emulator:
        yield emulator


def add_threads(emulator, number, user="ada"):
    return [emulator.add_thread(user=user).id for _ in range(number)]


# What a run takes


ROWS = {
    "ids": lambda listed, ids: ids,
    "threads": lambda listed, ids: [ChatKitThread.from_dict({"id": each}) for each in ids],
    "a list": lambda listed, ids: listed,
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_both_clients_delete_every_thread(emulator, rows):
    settings = {"api_key": emulator.api_key, "base_url": emulator.base_url}

    async def delete(ids):
        async with AsyncChatKit(**settings) as client:
            listed = client.threads.list(user="ada", limit=3)
            return await client.threads.delete_many(rows(listed, ids), concurrency=4).results()

    def delete_blocking(ids):
        with ChatKit(**settings) as client:
            listed = client.threads.list(user="ada", limit=3)
            with client.threads.delete_many(rows(listed, ids), concurrency=4) as run:
                outcomes = list(run)
            assert run.summary.deleted == len(ids)
            return outcomes

    [kept] = add_threads(emulator, 1, user="bob")
    for delete_all in (lambda ids: asyncio.run(delete(ids)), delete_blocking):
        ids = add_threads(emulator, 10)
        outcomes = delete_all(ids)
        assert kinds(outcomes) == {"deleted": 10}
        assert {outcome.result().id for outcome in outcomes} == set(ids)
        assert all(outcome.value.deleted and outcome.session is None for outcome in outcomes)
        assert list(emulator.threads) == [kept]


async def test_page_stands_for_all_later_pages(emulator):
    add_threads(emulator, 5)
    async with AsyncChatKit(api_key=KEY, base_url=emulator.base_url) as client:
        page = await client.threads.list(limit=2)
        assert kinds(await client.threads.delete_many(page.data).results()) == {"deleted": 2}
        page = await client.threads.list(limit=2)
        assert kinds(await client.threads.delete_many(page).results()) == {"deleted": 3}


@pytest.mark.parametrize(
    "row",
    [
        ChatKitThread.from_dict({"title": "Private"}),
        ChatKitThread.from_dict({"id": 5}),
        ChatSession.from_dict({"id": "cksess_1"}),
        " ",
        None,
    ],
    ids=["no id", "bent id", "session", "blank", "nothing"],
)
async def test_row_without_an_id_is_rejected(row):
    async with serve(replying()) as server:
        async with AsyncChatKit(api_key=KEY, base_url=server.base_url) as client:
            [outcome] = await client.threads.delete_many([row]).results()
        assert not server.requests
    assert outcome.kind == "rejected"
    assert [path for path, _ in outcome.error.problems] == ["thread_id"]
    assert "Private" not in repr(outcome)


@pytest.mark.parametrize(
    ("rows", "options", "error", "said"),
    [
        ("cthr_1", {}, ParameterError, "threads"),
        (ChatKitThread.from_dict({"id": "cthr_1"}), {}, ParameterError, "threads"),
        (["cthr_1"], {"concurrency": 0}, ParameterError, "concurrency"),
        (["cthr_1"], {"user": "ada"}, TypeError, r"client.threads.list\(user=...\)"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(rows, options, error, said):
    with ChatKit(api_key=KEY) as client, pytest.raises(error, match=said):
        client.threads.delete_many(rows, **options)


def test_list_of_the_other_client_is_read_or_refused(emulator):
    settings = {"api_key": emulator.api_key, "base_url": emulator.base_url}
    add_threads(emulator, 3)

    async def delete(rows):
        async with AsyncChatKit(**settings) as client:
            return await client.threads.delete_many(rows).results()

    with ChatKit(**settings) as blocking:
        with pytest.raises(TypeError, match="blocking client"):
            asyncio.run(delete(blocking.threads.list()))
        listed = AsyncChatKit(**settings).threads.list()
        assert kinds(blocking.threads.delete_many(listed).results()) == {"deleted": 3}


# What counts as deleted


NOT_FOUND = failed("404 Not Found")


@pytest.mark.parametrize(
    ("replies", "kind", "error", "attempts"),
    [
        ([gone(deleted=True)], "deleted", None, 1),
        ([gone(deleted=False)], "rejected", APIError, 1),
        ([gone(deleted="true")], "rejected", APIError, 1),
        ([gone()], "rejected", APIError, 1),
        ([CLOSE, gone(deleted=False)], "unknown", APIError, 2),
        ([NOT_FOUND], "rejected", NotFoundError, 1),
        ([CLOSE, NOT_FOUND], "deleted", None, 2),
        ([failed("503 Busy"), NOT_FOUND], "rejected", NotFoundError, 2),
        ([CLOSE, failed("404 Not Found", "Invalid URL (DELETE /x)")], "unknown", NotFoundError, 2),
        ([CLOSE, http(b"<h1>Not found</h1>", "404 No")], "unknown", NotFoundError, 2),
        ([gone("cthr_2", deleted=True)] * 3, "unknown", APIResponseError, 3),
        ([http(b"{")], "unknown", APIResponseError, 1),
    ],
)
async def test_only_a_confirmed_deletion_counts(replies, kind, error, attempts):
    async with (
        serve(replying(*replies)) as server,
        AsyncChatKit(api_key=KEY, base_url=server.base_url) as client,
    ):
        client._attempts.seam = type(client._attempts.seam)(sleep=lambda _: asyncio.sleep(0))
        run = client.threads.delete_many(["cthr_1"])
        [outcome] = await run.results()

    assert (outcome.kind, outcome.attempts) == (kind, attempts)
    assert type(outcome.error) is (error or type(None))
    assert (outcome.value is None) == (kind != "deleted")
    assert getattr(run.summary, kind) == run.summary.read == 1


# What stops a run


async def test_refusals_that_are_alike_stop_a_run(emulator):
    emulator.fail(operation="delete_thread", status=400, times=None)
    async with AsyncChatKit(api_key=KEY, base_url=emulator.base_url) as client:
        run = client.threads.delete_many(map(str, range(99)), concurrency=1, max_failures=5)
        outcomes = await run.results()

    assert kinds(outcomes)["rejected"] == 5
    assert isinstance(run.summary.stopped_by, BadRequestError)
    assert "5 rows in a row failed in the same way and no thread was deleted" in str(
        run.summary.stopped_by
    )


async def test_threads_that_are_not_found_stop_no_run(emulator):
    ids = [*map(str, range(9)), *add_threads(emulator, 1)]
    async with AsyncChatKit(api_key=KEY, base_url=emulator.base_url) as client:
        run = client.threads.delete_many(ids, max_failures=5, ordered=True)
        assert kinds(await run.results()) == {"rejected": 9, "deleted": 1}
        assert run.summary.stopped_by is None


async def test_missing_permission_stops_a_run(emulator):
    ids = add_threads(emulator, 20)
    emulator.fail(operation="delete_thread", status=403, times=None)
    async with AsyncChatKit(api_key=KEY, base_url=emulator.base_url) as client:
        run = client.threads.delete_many(ids, concurrency=1)
        await run.results()

    assert (run.summary.rejected, run.summary.deleted) == (1, 0)
    assert isinstance(run.summary.stopped_by, PermissionDeniedError)
    assert len(emulator.threads) == 20


async def test_error_of_the_list_comes_after_the_outcomes(emulator):
    ids = add_threads(emulator, 6)
    async with AsyncChatKit(api_key=KEY, base_url=emulator.base_url, max_retries=0) as client:
        listed = aiter(client.threads.list(limit=2, order="asc"))
        run = client.threads.delete_many(listed, concurrency=1)
        emulator.fail(operation="list_threads", status=500, every=2)
        with pytest.raises(APIError) as caught:
            await run.results()
        outcomes = [outcome async for outcome in run]

    assert [outcome.row.id for outcome in outcomes] == ids[:2]
    assert kinds(outcomes) == {"deleted": 2}
    assert caught.value.cursor == listed.cursor == ids[1]


# Leaving early


@pytest.mark.parametrize("way", ["once", "each turn"])
def test_cancelled_run_accounts_for_every_thread(way):
    async def main():
        async with virtual.emulator() as emulator, virtual.client(emulator) as client:

            def cancelled():
                ids = add_threads(emulator, 8)
                run = client.threads.delete_many(client.threads.list(limit=3), concurrency=3)
                outcomes = []

                async def work():
                    async with run:
                        async for outcome in run:
                            outcomes.append(outcome)  # noqa: PERF401 - it is cancelled half way

                async def check():
                    if run.summary.read:  # else it may have to start yet
                        outcomes.extend([outcome async for outcome in run])
                    found = {outcome.row.id: outcome.kind for outcome in outcomes}
                    assert len(found) == len(outcomes) == run.summary.read
                    assert set(found.values()) <= {"deleted", "unknown", "not_attempted"}
                    left = {each for each in ids if each in emulator.threads}
                    assert not left & {each for each, kind in found.items() if kind == "deleted"}
                    assert set(ids) - left <= {
                        each for each, kind in found.items() if kind != "not_attempted"
                    }
                    for each in left:
                        emulator.delete_thread(each)

                return work, check

            await cancelling.sweep(cancelling.WAYS[way], cancelled, step=7)

    virtual.run(main(), loop_factory=cancelling.CountingLoop)


def test_block_left_early_deletes_no_more(emulator):
    add_threads(emulator, 30)
    with ChatKit(api_key=KEY, base_url=emulator.base_url) as client:
        with client.threads.delete_many(client.threads.list(limit=5), concurrency=1) as run:
            first = next(iter(run))
        left = list(run)
        deleted = kinds([first, *left])["deleted"]
        assert len(left) + 1 == run.summary.read < 30
        assert 30 - len(emulator.threads) in {deleted, deleted + kinds(left)["unknown"]}


def test_closed_client_ends_a_run(emulator):
    ids = add_threads(emulator, 6)
    client = ChatKit(api_key=KEY, base_url=emulator.base_url)
    run = client.threads.delete_many(ids, concurrency=1)
    next(iter(run))
    client.close()
    rest = list(run)

    assert {outcome.kind for outcome in rest} <= {"deleted", "unknown", "not_attempted"}
    assert run.summary.read == len(rest) + 1
