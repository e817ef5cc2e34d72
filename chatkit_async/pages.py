"""Pages of a list, and the lazy list: awaited it is a page, iterated it is every item."""

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Sequence,
)
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
)

import attrs

from chatkit_async.errors import (
    APIResponseError,
    BadRequestError,
    ChatKitError,
    NotFoundError,
)

__all__ = ["AsyncPage", "AsyncPages", "Page", "Pages"]

P = ParamSpec("P")
T = TypeVar("T")
ItemT = TypeVar("ItemT", bound="Listed")
ItemT_co = TypeVar("ItemT_co", bound="Listed", covariant=True)


class Listed(Protocol):
    """An entry of a list: a thread, or an item of one."""

    @property
    def id(self) -> str: ...
    @property
    def created_at(self) -> int: ...


class PageReply(Protocol[ItemT_co]):
    """A page as the API returned it."""

    @property
    def data(self) -> Sequence[ItemT_co]: ...
    @property
    def first_id(self) -> str | None: ...
    @property
    def last_id(self) -> str | None: ...
    @property
    def has_more(self) -> bool: ...


@attrs.frozen(kw_only=True)
class Listing(Generic[ItemT]):
    """A list that is read page by page, with the same filters for each page.

    Attributes:
        fetch: Requests the page after an id. None: the first page.
        fetch_raw: Likewise, and returns the reply as it came.
        ascending: True for the oldest first.
        after: The id of the item after which the list starts. None: it starts at its beginning.
        max_items: The maximum number of items in total. None: no limit.
        check_owner: Of the items of a thread: raises the API's error if the thread is gone.
    """

    fetch: Callable[[str | None], Awaitable[PageReply[ItemT]]]
    fetch_raw: Callable[[str | None], Awaitable[Any]]
    ascending: bool = False
    after: str | None = None
    max_items: int | None = None
    check_owner: Callable[[], Awaitable[object]] | None = None

    async def answer(self, request: "Request") -> PageReply[ItemT] | None:
        """Make a request of a sweep."""
        if isinstance(request, PageAfter):
            return await self.fetch(request.cursor)
        await request.check()
        return None


# The sweep: which page to request next, and which items to yield ----------------------------------


@attrs.frozen
class PageAfter:
    """The request for the page after an id. None: the first page."""

    cursor: str | None


@attrs.frozen
class Owner:
    """The request for the thread that the items belong to, to see whether it still exists."""

    check: Callable[[], Awaitable[object]]


Request: TypeAlias = PageAfter | Owner


class Sweep(Generic[ItemT]):
    """Every item of a list, also if the loop over them deletes each one. Sans-IO.

    - A page's last item is held back until the next page is there, so that its id is a valid cursor
      for that request. This costs no extra request, and holds one page and one item.
    - If the server refuses the cursor, because somebody else deleted that item, the list starts
      again. Items that are not later, in the order asked for, than the last one yielded are
      skipped: by `created_at`, and by id within that one second. The same applies if the server
      starts again on its own. A restart that comes to no new item is not repeated.
    - `has_more` decides whether another page follows, not an empty page. A cursor that was used
      before is an error, because the list would never end.

    `step` returns the next item or request. `given` is set to each item at the moment it is handed
    on, and each request is followed by `answer`. Until then, `step` returns the same again, because
    a cancellation or a signal handler may have come between.

    Attributes:
        given: The last item handed on.
    """

    def __init__(self, listing: Listing[ItemT], first: PageReply[ItemT] | None = None) -> None:
        self.given: ItemT | None = None
        self._listing = listing
        self._left = listing.max_items
        self._steps = self._run(first)
        self._is_stepping = False
        self._last: ItemT | Request | None = None
        self._answer: PageReply[ItemT] | ChatKitError | None = None
        self._second: int | None = None  # when the last item was created
        self._ids: set[str | None] = set()  # of the items yielded of that second

    @property
    def cursor(self) -> str | None:
        """The id of the last item handed on."""
        return self._listing.after if self.given is None else getattr(self.given, "id", None)

    def step(self) -> ItemT | Request | None:
        """Return the next item, or the request that has to be answered first. None: the end.

        Raises:
            ChatKitError: a request failed, or an exception of a signal handler ended an earlier
                step. Its `cursor` is the id of the last item handed on.
        """
        if self._last is not None and self._last is not self.given:
            return self._last
        if self._is_stepping:
            raise _interrupted(self.cursor)
        self._is_stepping = True
        answer, self._answer = self._answer, None
        step: ItemT | Request | None = None
        try:
            if isinstance(answer, ChatKitError):
                step = self._steps.throw(answer)
            else:
                step = self._steps.send(answer)
        except StopIteration:
            pass
        except ChatKitError as error:
            self._is_stepping = False
            error.cursor = self.cursor
            raise
        finally:
            del answer  # an error's traceback holds this frame
        self._last, self._is_stepping = step, False
        return step

    def answer(self, answer: PageReply[ItemT] | ChatKitError | None) -> None:
        """Answer the last request, with a page or an error."""
        self._answer, self._last = answer, None

    def _run(
        self, page: PageReply[ItemT] | None
    ) -> Generator[ItemT | Request, PageReply[ItemT] | None, None]:
        start = self._listing.after
        if page is None:
            page = cast("PageReply[ItemT]", (yield PageAfter(start)))
        cursors = _Cursors(start)
        again = False  # the list was started again: skip what was yielded before
        news = 0  # items that were not
        while True:
            if not again and self._has_started_again(page):
                cursors, again, news = _Cursors(start), True, 0
            items = [item for item in page.data if not (again and self._was_yielded(item))]
            if not page.has_more or (self._left is not None and len(items) >= self._left):
                yield from map(self._noted, items[: self._left])
                return
            news += len(items)
            yield from map(self._noted, items[:-1])
            failure: ChatKitError | None = None
            try:
                cursors.move_to(cursor_of(page))
                page = cast("PageReply[ItemT]", (yield PageAfter(cursor_of(page))))
            except ChatKitError as error:
                failure = error
            yield from map(self._noted, items[-1:])
            if failure is None:
                continue
            try:
                refused = isinstance(failure, BadRequestError | NotFoundError)
                # A server that ignores a deleted cursor starts the list again each time.
                if not news or not (refused or (again and cursors.is_circle)):
                    raise failure
            finally:
                del failure  # its traceback holds this frame
            if self._listing.check_owner is not None:
                yield Owner(self._listing.check_owner)
            cursors, again, news = _Cursors(start), True, 0
            page = cast("PageReply[ItemT]", (yield PageAfter(start)))

    def _noted(self, item: ItemT) -> ItemT:
        """Note that an item is yielded now."""
        if self._left is not None:
            self._left -= 1
        second: int | None = getattr(item, "created_at", None)
        if second != self._second:
            self._second = second
            self._ids.clear()
        self._ids.add(getattr(item, "id", None))
        return item

    def _has_started_again(self, page: PageReply[ItemT]) -> bool:
        """True if a page begins earlier in the list than the last item yielded."""
        first: int | None = getattr(page.data[0], "created_at", None) if page.data else None
        if first is None or self._second is None:
            return False
        if first == self._second:
            ids = {getattr(item, "id", None) for item in page.data} - {None}
            return not ids.isdisjoint(self._ids)
        return first < self._second if self._listing.ascending else first > self._second

    def _was_yielded(self, item: ItemT) -> bool:
        """True if an item was yielded before the list was started again.

        Raises:
            MissingFieldError: the item has no `created_at`.
            APIResponseError: the last item yielded had none.
        """
        if self._second is None:
            raise page_error("its items have no created_at to start the list again by")
        if item.created_at == self._second:
            return item.id in self._ids
        return (item.created_at < self._second) is self._listing.ascending


class _Cursors:
    """The cursors of a list, which have to move.

    One of them is kept to compare with, the last whose number is a power of two: any cycle comes
    back to it, and no other has to be remembered (Brent's algorithm).

    Attributes:
        is_circle: True once a cursor came back.
    """

    def __init__(self, start: str | None) -> None:
        self.is_circle: bool = False
        self._last = self._kept = start
        self._moves = 0

    def move_to(self, cursor: str | None) -> None:
        """Take the next cursor.

        Raises:
            APIResponseError: the page has no cursor, or it was used before.
        """
        if cursor is None:
            raise page_error("it has more pages, but no last_id and no item with an id to go on")
        self.is_circle = cursor in {self._last, self._kept}
        if self.is_circle:
            raise page_error("its last_id was used before, so the list would never end")
        self._last = cursor
        self._moves += 1
        if self._moves & (self._moves - 1) == 0:
            self._kept = cursor


def cursor_of(page: PageReply[Any]) -> str | None:
    """Return where the next page starts: `last_id`, which the documented replies lack, or an id."""
    last_id: str | None = getattr(page, "last_id", None)  # None too if it is no string
    return last_id or (getattr(page.data[-1], "id", None) if page.data else None)


def page_error(problem: str) -> APIResponseError:
    """Make the error of a reply that is no page to go on from."""
    return APIResponseError(f"The API's reply is not a usable page: {problem}.", kind="page")


def _interrupted(cursor: str | None) -> ChatKitError:
    """Make the error of a list that goes on after an exception such as Ctrl-C ended it."""
    error = ChatKitError("this iterator was interrupted: continue with list(after=error.cursor)")
    error.cursor = cursor
    return error


# Pages --------------------------------------------------------------------------------------------


class _Page(Generic[ItemT]):
    """The common part of the pages of both clients. A pickled page leaves its client behind."""

    def __init__(self, listing: Listing[ItemT] | None, reply: PageReply[ItemT]) -> None:
        self.data: Sequence[ItemT] = reply.data
        # Of a reply, these raise if they are no strings. A page goes on without them.
        self.first_id: str | None = getattr(reply, "first_id", None)
        self.last_id: str | None = getattr(reply, "last_id", None)
        self.has_more: bool = reply.has_more
        self._listing = listing

    @property
    def cursor(self) -> str | None:
        """The start of the next page, for `list(after=page.cursor)`. None: this page is empty."""
        return cursor_of(self)

    def has_next_page(self) -> bool:
        """Return True if another page follows."""
        return self.has_more

    def next_page_info(self) -> dict[str, str] | None:
        """Return the parameters that list the next page. None: this is the last one."""
        return {"after": self.cursor} if self.has_more and self.cursor is not None else None

    def _origin(self) -> Listing[ItemT]:
        if self._listing is None:
            raise ChatKitError(
                "a page that was pickled has no client: continue with list(after=page.cursor)"
            )
        return self._listing

    async def _next(self) -> PageReply[ItemT]:
        """Request the next page."""
        listing = self._origin()
        if not self.has_more:
            raise ChatKitError("this is the last page: check has_next_page() first")
        try:
            cursors = _Cursors(None)
            cursors.move_to(self.cursor)
            reply = await listing.fetch(self.cursor)
            if reply.has_more:
                cursors.move_to(cursor_of(reply))
        except ChatKitError as error:
            error.cursor = self.cursor
            raise
        return reply

    def __getstate__(self) -> dict[str, object]:
        return {
            "data": self.data,
            "first_id": self.first_id,
            "last_id": self.last_id,
            "has_more": self.has_more,
            "_listing": None,
        }

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(data=<{len(self.data)} items>, first_id={self.first_id!r}, "
            f"last_id={self.last_id!r}, has_more={self.has_more})"
        )


class AsyncPage(_Page[ItemT]):
    """A page of a list. `async for` gives its own items and those of all later pages.

    Attributes:
        data: The items of this page.
        first_id: The id of the first of them. None: the reply has none.
        last_id: The id of the last of them. None: the reply has none.
        has_more: True if another page follows.
    """

    async def get_next_page(self) -> "AsyncPage[ItemT]":
        """Request the next page.

        Raises:
            ChatKitError: this is the last page, or the request failed.
        """
        return AsyncPage(self._listing, await self._next())

    def __aiter__(self) -> "AsyncItems[ItemT]":
        return AsyncItems(self._origin(), self)


class AsyncItems(AsyncIterator[ItemT]):
    """An iterator over every item of a list."""

    def __init__(self, listing: Listing[ItemT], first: PageReply[ItemT] | None = None) -> None:
        self._listing = listing
        self._sweep = Sweep(listing, first)

    @property
    def cursor(self) -> str | None:
        """The id of the last item yielded: `list(after=cursor)` goes on from there."""
        return self._sweep.cursor

    async def __anext__(self) -> ItemT:
        while isinstance(step := self._sweep.step(), Request):
            try:
                answer = await self._listing.answer(step)
            except ChatKitError as error:
                self._sweep.answer(error)
            else:
                self._sweep.answer(answer)
        if step is None:
            raise StopAsyncIteration
        self._sweep.given = step
        return step


class AsyncPages(Generic[ItemT]):
    """A list that was not requested yet: await it for its first page, iterate it for every item.

    Each page is requested when it is needed, as a call with its own timeout and retries. Iterating
    again starts over. The iterator's `cursor`, and that of an error it raises, is the id of the
    last item it gave: `list(after=cursor)` goes on from there.
    """

    def __init__(self, listing: Listing[ItemT]) -> None:
        self._listing = listing

    def __await__(self) -> Generator[Any, None, AsyncPage[ItemT]]:
        return self.page().__await__()

    async def page(self) -> AsyncPage[ItemT]:
        """Request the first page, as awaiting the list does."""
        return AsyncPage(self._listing, await self._listing.fetch(self._listing.after))

    def __aiter__(self) -> AsyncItems[ItemT]:
        return AsyncItems(self._listing)

    async def pages(self) -> AsyncIterator[AsyncPage[ItemT]]:
        """Iterate page by page, whatever `max_items` says. `list(after=page.cursor)` resumes.

        A loop that deletes what it lists iterates over the items instead: pages do not notice that
        the server refuses a cursor that was deleted.
        """
        page = await self
        yield page
        while page.has_next_page():
            page = await page.get_next_page()
            yield page

    # A type checker reports `for` on it, as there is no such method.
    if not TYPE_CHECKING:  # pragma: no branch

        def __iter__(self) -> NoReturn:
            raise TypeError(
                "this list is asynchronous: `async for item in ...`, or `page = await ...` for one "
                "page"
            )


def listing_of(pages: AsyncPages[ItemT]) -> Listing[ItemT]:
    """Return what a list requests: a function, so that no user of the list meets it."""
    return pages._listing  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def read_on_loop(items: T) -> T | AsyncPages[Any]:
    """Return a blocking list as it is read in the event loop, and anything else as it is."""
    if not isinstance(items, Pages):
        return items
    return cast("Pages[Any]", items)._pages  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


# For the blocking client --------------------------------------------------------------------------


class Run(Protocol):
    """Runs a coroutine function on the loop of a blocking client."""

    def __call__(
        self, method: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...


class Page(_Page[ItemT]):
    """A page of a list. `for` gives its own items and those of all later pages.

    Attributes:
        data: The items of this page.
        first_id: The id of the first of them. None: the reply has none.
        last_id: The id of the last of them. None: the reply has none.
        has_more: True if another page follows.
    """

    def __init__(self, page: AsyncPage[ItemT], run: Run) -> None:
        super().__init__(page._listing, page)  # noqa: SLF001 - its other half
        self._run = run

    def get_next_page(self) -> "Page[ItemT]":
        """Request the next page.

        Raises:
            ChatKitError: this is the last page, or the request failed.
        """
        listing = self._origin()
        return Page(AsyncPage(listing, self._run(self._next)), self._run)

    def __iter__(self) -> "Items[ItemT]":
        return Items(self._origin(), self._run, self)


class Items(Iterator[ItemT]):
    """An iterator over every item of a list. Only its requests cross to the client's thread."""

    def __init__(
        self, listing: Listing[ItemT], run: Run, first: PageReply[ItemT] | None = None
    ) -> None:
        self._listing = listing
        self._run = run
        self._sweep = Sweep(listing, first)

    @property
    def cursor(self) -> str | None:
        """The id of the last item yielded: `list(after=cursor)` goes on from there."""
        return self._sweep.cursor

    def __next__(self) -> ItemT:
        while isinstance(step := self._sweep.step(), Request):
            try:
                answer = self._run(self._listing.answer, step)
            except ChatKitError as error:
                self._sweep.answer(error)
            else:
                self._sweep.answer(answer)
        if step is None:
            raise StopIteration
        # No call from here on: a signal handler, which may raise, runs after calls.
        self._sweep.given = step
        return step


class Pages(Generic[ItemT]):
    """A list that was not requested yet: iterate it for every item, or call `page()` for one page.

    Each page is requested when it is needed, as a call with its own timeout and retries. Iterating
    again starts over. The iterator's `cursor`, and that of an error it raises, is the id of the
    last item it gave: `list(after=cursor)` goes on from there.
    """

    def __init__(self, pages: AsyncPages[ItemT], run: Run) -> None:
        self._pages = pages
        self._run = run

    def page(self) -> Page[ItemT]:
        """Request the first page."""
        return Page(self._run(self._pages.page), self._run)

    def __iter__(self) -> Items[ItemT]:
        return Items(listing_of(self._pages), self._run)

    def pages(self) -> Iterator[Page[ItemT]]:
        """Iterate page by page, whatever `max_items` says. `list(after=page.cursor)` resumes.

        A loop that deletes what it lists iterates over the items instead: pages do not notice that
        the server refuses a cursor that was deleted.
        """
        page = self.page()
        yield page
        while page.has_next_page():
            page = page.get_next_page()
            yield page

    # A type checker reports `async for` on it, as there is no such method.
    if not TYPE_CHECKING:  # pragma: no branch

        def __aiter__(self) -> NoReturn:
            raise TypeError(
                "this list is of the blocking client: `for item in ...`, or `page()` for one page"
            )
