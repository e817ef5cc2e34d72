"""Lists: every item, whatever the server does with a cursor, and errors that say where to resume."""

from __future__ import annotations

import asyncio
import pickle
from random import Random

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatkit_async import pages as paging
from chatkit_async.errors import (
    APIConnectionError,
    APIResponseError,
    BadRequestError,
    ChatKitError,
    MissingFieldError,
    NotFoundError,
)
from chatkit_async.models.threads import ChatKitThreadList
from chatkit_async.pages import AsyncPages, Listing


def thread(number, second=None):
    return {"id": f"cthr_{number}", "created_at": number if second is None else second}


def page(*threads, more=False, last_id=None):
    return ChatKitThreadList.from_dict(
        {"data": list(threads), "has_more": more, "last_id": last_id}
    )


def number_of(item):
    return int(item.id.removeprefix("cthr_"))


def refused():
    return BadRequestError("no such cursor", status_code=400, param="after")


@attrs.define
class Server:
    """A list of threads, three of them in each second, on pages of one size.

    Attributes:
        on_deleted: What becomes of a request for the page after a deleted thread.
    """

    size: int
    limit: int = 3
    ascending: bool = False
    on_deleted: str = "refused"
    requests: list = attrs.Factory(list)
    threads: list = attrs.field(init=False)

    def __attrs_post_init__(self):
        self.threads = list(range(self.size))

    def delete(self, number):
        if number in self.threads:
            self.threads.remove(number)

    async def fetch(self, after):
        self.requests.append(after)
        rows = sorted(self.threads, reverse=not self.ascending)
        if after is not None:
            number = int(after.removeprefix("cthr_"))
            if number in self.threads or self.on_deleted == "accepted":
                rows = [row for row in rows if row != number and (row > number) is self.ascending]
            elif self.on_deleted == "refused":
                raise refused()
        shown = [thread(row, row // 3) for row in rows[: self.limit]]
        return page(*shown, more=len(rows) > self.limit)

    def pages(self, **options):
        return AsyncPages(
            Listing(fetch=self.fetch, fetch_raw=self.fetch, ascending=self.ascending, **options)
        )


def scripted(*replies, **options):
    """A list whose pages are these, in turn; an exception is raised."""
    script, requests = iter(replies), []

    async def fetch(after):
        requests.append(after)
        reply = next(script)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return AsyncPages(Listing(fetch=fetch, fetch_raw=fetch, **options)), requests


async def numbers_until(error, items):
    """Iterate until an error is raised; return what came before, and the error."""
    found = []

    async def iterate():
        async for each in items:
            found.append(number_of(each))  # noqa: PERF401 - what came before the error counts

    with pytest.raises(error) as caught:
        await iterate()
    return found, caught.value


# A sweep that deletes what it lists


@attrs.define
class Sweep:
    """A loop over a list that may delete each thread, while others delete some too.

    Attributes:
        others: The chance that somebody else deletes a thread, for each thread and turn.
    """

    server: Server
    deletes: bool
    others: float
    random: Random
    seen: list = attrs.Factory(list)
    taken: set = attrs.Factory(set)

    async def run(self, most=0):
        async for item in self.server.pages():
            self.seen.append(number_of(item))
            if self.deletes:
                self.server.delete(self.seen[-1])
            for number in tuple(self.server.threads):
                if self.random.random() < self.others:
                    self.taken.add(number)
                    self.server.delete(number)
            if len(self.seen) == most:
                return


servers = st.builds(
    Server,
    size=st.integers(0, 25),
    limit=st.integers(1, 8),
    ascending=st.booleans(),
    on_deleted=st.sampled_from(["refused", "ignored", "accepted"]),
)


@given(server=servers, deletes=st.booleans(), others=st.sampled_from([0, 0.03, 0.1]), seed=...)
@settings(deadline=None)
@example(Server(size=7, limit=1, ascending=False, on_deleted="ignored"), False, 0.03, 1)
@example(Server(size=6, limit=1, ascending=False, on_deleted="ignored"), False, 0.03, 1)
def test_sweep_gets_everything_once(server, deletes, others, seed: int):
    sweep = Sweep(server, deletes, others, Random(seed))

    asyncio.run(sweep.run())

    assert len(sweep.seen) == len(set(sweep.seen))
    assert set(range(server.size)) - sweep.taken <= set(sweep.seen)


@given(server=servers, deletes=st.booleans())
@settings(deadline=None, max_examples=50)
def test_sweep_makes_as_many_requests_as_there_are_pages(server, deletes):
    asyncio.run(Sweep(server, deletes, 0, Random(0)).run())

    assert len(server.requests) == max(1, -(-server.size // server.limit))


@given(server=servers, most=st.integers(1, 10))
@settings(deadline=None, max_examples=50)
def test_interrupted_sweep_that_deletes_is_started_anew(server, most):
    sweep = Sweep(server, True, 0, Random(0))

    async def main():
        await sweep.run(most)
        await sweep.run()

    asyncio.run(main())

    assert sorted(sweep.seen) == list(range(server.size))


async def test_restart_without_creation_times_is_an_error():
    nameless = {"id": "cthr_2"}
    first = page(thread(3), nameless, more=True)
    pages, _ = scripted(first, refused(), page(thread(1)))
    found, error = await numbers_until(APIResponseError, pages)

    assert found == [3, 2]
    assert "no created_at" in str(error)
    assert (error.kind, error.cursor) == ("page", "cthr_2")


async def test_restart_reaches_an_item_without_creation_time():
    first = page(thread(3), thread(2), more=True)
    pages, _ = scripted(first, refused(), page({"id": "cthr_1"}))
    found, error = await numbers_until(MissingFieldError, pages)

    assert found == [3, 2]
    assert error.cursor == "cthr_2"


async def test_unusable_page_after_a_restart_is_an_error():
    first = page(thread(3), thread(2), more=True)
    bad = APIResponseError("truncated", kind="truncated")
    pages, requests = scripted(first, refused(), page(thread(1), more=True), bad, page(thread(0)))
    found, error = await numbers_until(APIResponseError, pages)

    assert found == [3, 2, 1]
    assert (error.kind, error.cursor) == ("truncated", "cthr_1")
    assert requests == [None, "cthr_2", None, "cthr_1"]


async def test_owner_that_is_gone_ends_the_list():
    async def check_owner():
        raise NotFoundError("no such thread", status_code=404)

    first = page(thread(3), thread(2), more=True)
    pages, requests = scripted(first, refused(), check_owner=check_owner)
    found, error = await numbers_until(NotFoundError, pages)

    assert found == [3, 2]
    assert str(error).startswith("no such thread")
    assert requests == [None, "cthr_2"]


# No page is lost


async def test_has_more_decides_about_an_empty_page():
    pages, requests = scripted(page(more=True, last_id="cthr_9"), page(thread(1)))

    assert [number_of(each) async for each in pages] == [1]
    assert requests == [None, "cthr_9"]


async def test_last_id_goes_before_the_last_items_id():
    pages, requests = scripted(page(thread(3), more=True, last_id="cthr_9"), page())

    assert [number_of(each) async for each in pages] == [3]
    assert requests == [None, "cthr_9"]


@pytest.mark.parametrize("more", [page(more=True), page({"created_at": 5}, more=True)])
async def test_page_without_a_cursor_is_an_error(more):
    pages, _ = scripted(page(thread(3), more=True), more)
    with pytest.raises(APIResponseError, match="no last_id and no item with an id") as caught:
        [each async for each in pages]

    assert caught.value.kind == "page"


@pytest.mark.parametrize("length", [1, 2, 3, 5])
async def test_cursors_in_a_circle_are_an_error(length):
    circle = [page(thread(n), more=True, last_id=f"c{n}") for n in range(length)]
    start = page(thread(9), more=True, last_id="start")
    pages, requests = scripted(start, *circle * 4)
    with pytest.raises(APIResponseError, match="was used before"):
        [each async for each in pages]

    assert len(requests) <= 4 * length + 1


async def test_error_comes_after_every_item_before_it():
    lost = APIConnectionError("reset", kind="reset")
    pages, _ = scripted(page(thread(3), thread(2), more=True), lost)
    items = aiter(pages)
    found, error = await numbers_until(APIConnectionError, items)

    assert found == [3, 2]
    assert error.cursor == items.cursor == "cthr_2"


async def test_error_of_the_first_page_has_no_cursor():
    pages, _ = scripted(APIConnectionError("reset", kind="reset"))
    found, error = await numbers_until(APIConnectionError, pages)

    assert (found, error.cursor) == ([], None)


# How much


@pytest.mark.parametrize("most", [1, 4, 5, 6, 10, 11])
def test_max_items_is_a_total(most):
    server = Server(10, limit=5)

    async def main():
        return [each async for each in server.pages(max_items=most)]

    assert len(asyncio.run(main())) == min(most, 10)
    assert len(server.requests) == (1 if most <= 5 else 2)


def test_iterating_again_starts_over():
    server = Server(4, limit=3)

    async def main():
        pages = server.pages()
        return [[number_of(each) async for each in pages] for _ in range(2)]

    assert asyncio.run(main()) == [[3, 2, 1, 0]] * 2


async def test_request_that_was_cancelled_is_made_again():
    gate, replies = asyncio.Event(), iter([page(thread(2), more=True), page(thread(1))])

    async def fetch(_):
        await gate.wait()
        return next(replies)

    items = aiter(AsyncPages(Listing(fetch=fetch, fetch_raw=fetch)))
    waiting = asyncio.create_task(anext(items))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    gate.set()

    assert [number_of(each) async for each in items] == [2, 1]


# Pages


async def test_pages_come_one_by_one():
    replies = page(thread(3), more=True), page(thread(2), more=True), page(thread(1))
    pages, _ = scripted(*replies, max_items=1)

    assert [[number_of(each) for each in one.data] async for one in pages.pages()] == [
        [3],
        [2],
        [1],
    ]


async def test_page_goes_on_through_later_pages():
    pages, requests = scripted(page(thread(3), thread(2), more=True), page(thread(1)))
    first = await pages

    assert first.has_next_page()
    assert first.next_page_info() == {"after": "cthr_2"}
    assert [number_of(each) async for each in first] == [3, 2, 1]
    assert requests == [None, "cthr_2"]


async def test_last_page_has_no_next_page():
    pages, _ = scripted(page(thread(1)))
    last = await pages

    assert not last.has_next_page()
    assert last.next_page_info() is None
    with pytest.raises(ChatKitError, match="last page"):
        await last.get_next_page()


async def test_empty_page_has_no_cursor():
    pages, _ = scripted(page())

    assert (await pages).cursor is None


async def test_next_page_whose_cursor_does_not_move_is_an_error():
    same = page(thread(3), more=True)
    pages, _ = scripted(same, same)
    first = await pages
    with pytest.raises(APIResponseError, match="was used before") as caught:
        await first.get_next_page()

    assert caught.value.cursor == "cthr_3"


async def test_page_is_pickled_without_its_client():
    pages, _ = scripted(page(thread(3), more=True))
    copied = pickle.loads(pickle.dumps(await pages))  # noqa: S301 - made here

    assert (copied.cursor, copied.has_more, number_of(copied.data[0])) == ("cthr_3", True, 3)
    with pytest.raises(ChatKitError, match=r"list\(after=page.cursor\)"):
        await copied.get_next_page()
    with pytest.raises(ChatKitError, match="pickled"):
        aiter(copied)


async def test_repr_of_a_page_shows_no_item():
    pages, _ = scripted(page(thread(3), more=True))

    shown = "AsyncPage(data=<1 items>, first_id=None, last_id=None, has_more=True)"
    assert repr(await pages) == shown


def test_interrupted_sweep_does_not_look_complete(monkeypatch):
    """An exception from a signal handler can end the generator within any step."""
    sweep = paging.Sweep(Listing(fetch=None, fetch_raw=None), page(thread(3), thread(2), thread(1)))
    sweep.given = sweep.step()
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "_ids", None)  # noted halfway
        with pytest.raises(AttributeError):
            sweep.step()

    for _ in range(2):
        with pytest.raises(ChatKitError, match="interrupted") as caught:
            sweep.step()
        assert caught.value.cursor == sweep.cursor == "cthr_3"


def test_item_that_was_not_handed_on_is_given_again():
    sweep = paging.Sweep(Listing(fetch=None, fetch_raw=None, after="cthr_4"), page(thread(3)))

    assert sweep.step() is sweep.step()
    assert sweep.cursor == "cthr_4"
    sweep.given = sweep.step()
    assert sweep.cursor == "cthr_3"
    assert sweep.step() is sweep.step() is None


@pytest.mark.parametrize("bent", [5, True, {"id": "cthr_2"}, []])
async def test_cursor_that_is_no_string_counts_as_absent(bent):
    replies = {None: page(thread(3), thread(2), more=True, last_id=bent), "cthr_2": page(thread(1))}

    async def fetch(after):
        return replies[after]

    pages = AsyncPages(Listing(fetch=fetch, fetch_raw=fetch))
    first = await pages

    assert (first.first_id, first.last_id, first.cursor) == (None, None, "cthr_2")
    assert [number_of(each) async for each in pages] == [3, 2, 1]
    assert "<2 items>" in repr(first)
