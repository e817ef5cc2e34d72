"""The methods of the API for threads. They are given what makes a call, and know no client."""

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, Unpack, cast, get_args

import attrs

from chatkit_async._attempts import Attempts
from chatkit_async._checks import Checks
from chatkit_async._protocol import ITEMS_ROUTE, THREAD_ROUTE, THREADS_ROUTE, Call, threads_call
from chatkit_async.bulk import CONCURRENCY, MAX_FAILURES, MAX_WAIT, BulkRun, id_of
from chatkit_async.errors import Problem
from chatkit_async.models.threads import (
    ChatKitThread,
    ChatKitThreadDeleted,
    ChatKitThreadItem,
    ChatKitThreadItemList,
    ChatKitThreadList,
)
from chatkit_async.options import (
    OMITTED,
    Omitted,
    Order,
    QueryValue,
    RequestOptions,
    traceback_safe_options,
)
from chatkit_async.pages import AsyncPage, AsyncPages, Listing, listing_of
from chatkit_async.sessions import APIResponse, Caller, RawCaller

__all__ = ["AsyncThreads", "AsyncThreadsWithRawResponse"]

P = ParamSpec("P")
T = TypeVar("T")
ItemT = TypeVar("ItemT", bound=ChatKitThread | ChatKitThreadItem)
DeleteRowT = TypeVar("DeleteRowT", bound=ChatKitThread | str)


class AsyncThreads:
    """Lists, reads and deletes threads, the conversations from sessions: `client.threads`.

    A key sees the threads of its project, whatever workflow they belong to.

    Attributes:
        with_raw_response: The same methods, returning the reply as it came: see `APIResponse`.

    API documentation: https://platform.openai.com/docs/api-reference/chatkit/threads
    """

    with_raw_response: "AsyncThreadsWithRawResponse"

    def __init__(self, call: Caller, call_raw: RawCaller, attempts: Attempts) -> None:
        self._call = call
        self._call_raw = call_raw
        self._attempts = attempts
        self.with_raw_response = AsyncThreadsWithRawResponse(self, call_raw)

    def list(
        self,
        *,
        user: str | Omitted = OMITTED,
        limit: int | None = None,
        order: Order | None = None,
        after: str | None = None,
        before: str | None = None,
        max_items: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncPages[ChatKitThread]:
        """List threads: iterate the list for every thread, or await it for one page.

        Nothing is requested before that. See `AsyncPages`.

        Args:
            user: List the threads of this user only. Leave it out to list those of all users.
            limit: Threads per page, 0 to 100. It is not a total. The API's default: 20.
            order: `asc` for the oldest first, `desc` for the newest first. The API's default: desc.
            after: Start after the thread of this id, in the order asked for.
            before: End before the thread of this id.
            max_items: Threads in total, at least 1. None: no limit.
            **options: Options of these calls that differ from the client's: see `RequestOptions`.
                Its limits are those of each page.

        Raises:
            ParameterError: the arguments are invalid. Nothing was sent.

        Awaiting and iterating raise `APIError`, as `retrieve` does.

        API documentation: List ChatKit threads, `GET /chatkit/threads`.
        """
        options = traceback_safe_options(options)
        problems = _list_problems(
            user=user, limit=limit, order=order, after=after, before=before, max_items=max_items
        )
        query: dict[str, QueryValue | None] = {
            "limit": limit,
            "order": order,
            "before": before,
            "user": None if user is OMITTED else user,
        }

        def page(cursor: str | None) -> Call[ChatKitThreadList]:
            return threads_call(
                ChatKitThreadList,
                "GET",
                THREADS_ROUTE,
                options,
                query={"after": cursor, **query},
                problems=problems,
            )

        page(after)  # refuses bad arguments now
        return AsyncPages(
            Listing(
                fetch=lambda cursor: self._call(page(cursor), options),
                fetch_raw=lambda cursor: self._call_raw(page(cursor), options),
                ascending=order == "asc",
                after=after,
                max_items=max_items,
            )
        )

    async def retrieve(self, thread_id: str, **options: Unpack[RequestOptions]) -> ChatKitThread:
        """Read a thread. Its items are listed by `list_items`.

        Args:
            thread_id: The thread's id, `cthr_...`.
            **options: Options of this call that differ from the client's: see `RequestOptions`.

        Raises:
            ParameterError: the id is invalid. Nothing was sent.
            NotFoundError: the thread does not exist in this key's project.
            APIStatusError: the API refused: see its subclasses.
            APIConnectionError: no reply came; `APITimeoutError`: not in time.
            APIResponseError: the reply was of no use.
            ClientClosedError: the client was closed.

        API documentation: Retrieve ChatKit thread, `GET /chatkit/threads/{thread_id}`.
        """
        options = traceback_safe_options(options)
        call = threads_call(
            ChatKitThread,
            "GET",
            THREAD_ROUTE,
            options,
            thread_id=thread_id,
            subject=("id", thread_id),
        )
        return await self._call(call, options)

    async def delete(
        self, thread_id: str, **options: Unpack[RequestOptions]
    ) -> ChatKitThreadDeleted:
        """Delete a thread, with its items and attachments. This cannot be undone.

        Args:
            thread_id: The thread's id, `cthr_...`.
            **options: Options of this call that differ from the client's: see `RequestOptions`.

        Returns:
            The API's confirmation. If the reply to a first attempt was lost, and the next attempt
            finds the thread gone, that is a success too: see `attempts` of a raw response.

        Raises:
            ParameterError: the id is invalid. Nothing was sent.
            NotFoundError: the thread does not exist in this key's project.
            APIStatusError: the API refused: see its subclasses.
            APIConnectionError: no reply came; `APITimeoutError`: not in time.
            APIResponseError: the reply was of no use.
            ClientClosedError: the client was closed.

        API documentation: Delete ChatKit thread, `DELETE /chatkit/threads/{thread_id}`.
        """
        options = traceback_safe_options(options)
        return await self._call(_deletion(thread_id, options), options)

    def delete_many(
        self,
        threads: Iterable[DeleteRowT] | AsyncIterable[DeleteRowT],
        *,
        concurrency: int = CONCURRENCY,
        ordered: bool = False,
        rate: float | None = None,
        max_wait: float | None = MAX_WAIT,
        max_failures: int | None = MAX_FAILURES,
        **options: Unpack[RequestOptions],
    ) -> BulkRun[DeleteRowT, ChatKitThreadDeleted]:
        """Delete threads, and give the outcome of each: see `BulkRun`. This cannot be undone.

        `delete_many(client.threads.list(user="..."))` deletes every thread of a user. A list
        without `user` is one of all users' threads.

        Args:
            threads: An iterable, or an asynchronous one, of threads or ids, `cthr_...`; a list of
                this client is one.
            concurrency: As in `create_many`.
            ordered: As in `create_many`.
            rate: As in `create_many`.
            max_wait: As in `create_many`.
            max_failures: As in `create_many`, but for 404: each row has a thread of its own.
            **options: As in `create_many`.

        Raises:
            ParameterError: an argument other than `threads` is invalid. Nothing was read.

        API documentation: Delete ChatKit thread, `DELETE /chatkit/threads/{thread_id}`.
        """
        options = traceback_safe_options(options)
        return BulkRun(
            self._attempts,
            lambda row: _deletion(id_of(row, ChatKitThread, "thread_id"), options),
            threads,
            name="threads",
            done="deleted",
            options=options,
            concurrency=concurrency,
            ordered=ordered,
            rate=rate,
            max_wait=max_wait,
            max_failures=max_failures,
        )

    def list_items(
        self,
        thread_id: str,
        *,
        limit: int | None = None,
        order: Order | None = None,
        after: str | None = None,
        before: str | None = None,
        max_items: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncPages[ChatKitThreadItem]:
        """List the items of a thread: iterate for every item, or await it for one page.

        Nothing is requested before that. See `AsyncPages`.

        Args:
            thread_id: The thread's id, `cthr_...`.
            limit: As in `list`, in items.
            order: As in `list`.
            after: As in `list`, with the id of an item.
            before: As in `list`, with the id of an item.
            max_items: As in `list`, in items.
            **options: As in `list`.

        Raises:
            ParameterError: the arguments are invalid. Nothing was sent.

        Awaiting and iterating raise `APIError`, as `retrieve` does.

        API documentation: List ChatKit thread items, `GET /chatkit/threads/{thread_id}/items`.
        """
        options = traceback_safe_options(options)
        problems = _list_problems(
            user=OMITTED, limit=limit, order=order, after=after, before=before, max_items=max_items
        )
        query: dict[str, QueryValue | None] = {"limit": limit, "order": order, "before": before}

        def page(cursor: str | None) -> Call[ChatKitThreadItemList]:
            return threads_call(
                ChatKitThreadItemList,
                "GET",
                ITEMS_ROUTE,
                options,
                thread_id=thread_id,
                query={"after": cursor, **query},
                problems=problems,
                subject=("thread_id", thread_id),
            )

        page(after)  # refuses bad arguments now
        return AsyncPages(
            Listing(
                fetch=lambda cursor: self._call(page(cursor), options),
                fetch_raw=lambda cursor: self._call_raw(page(cursor), options),
                ascending=order == "asc",
                after=after,
                max_items=max_items,
                check_owner=lambda: self.retrieve(thread_id, **options),
            )
        )


def _deletion(thread_id: str, options: RequestOptions) -> Call[ChatKitThreadDeleted]:
    return threads_call(
        ChatKitThreadDeleted,
        "DELETE",
        THREAD_ROUTE,
        options,
        thread_id=thread_id,
        subject=("id", thread_id),
        if_gone={"id": thread_id, "object": "chatkit.thread.deleted", "deleted": True},
    )


def _raw(
    method: Callable[Concatenate[AsyncThreads, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[AsyncThreadsWithRawResponse, P], Coroutine[Any, Any, APIResponse[T]]]":
    """Give a method over a raw call its true type: its own parameters, and the raw reply."""
    raw: Any = method
    return raw  # type: ignore[no-any-return]


def _raw_page(
    method: Callable[Concatenate[AsyncThreads, P], AsyncPages[ItemT]],
) -> """Callable[
    Concatenate[AsyncThreadsWithRawResponse, P], Coroutine[Any, Any, APIResponse[AsyncPage[ItemT]]]
]""":
    """Make the method of a list request one page, and return it with its reply."""

    @wraps(method)
    async def request(
        self: "AsyncThreadsWithRawResponse", /, *args: P.args, **kwargs: P.kwargs
    ) -> APIResponse[AsyncPage[ItemT]]:
        try:
            pages = method(self._threads, *args, **kwargs)  # pyright: ignore[reportPrivateUsage]
        finally:
            del kwargs  # headers may be credentials, and what is raised holds this frame
        listing = listing_of(pages)
        response: APIResponse[Any] = await listing.fetch_raw(listing.after)
        return attrs.evolve(response, result=AsyncPage(listing, response.parse()))

    return request


class AsyncThreadsWithRawResponse:
    """The methods of `AsyncThreads`, each awaited and returning an `APIResponse`.

    They are `client.threads.with_raw_response`.

    Attributes:
        list: As `AsyncThreads.list`, for one page.
        retrieve: As `AsyncThreads.retrieve`.
        delete: As `AsyncThreads.delete`.
        list_items: As `AsyncThreads.list_items`, for one page.
    """

    def __init__(self, threads: AsyncThreads, call_raw: RawCaller) -> None:
        self._threads = threads
        self._call = call_raw  # the methods return what this returns

    retrieve: Final = _raw(AsyncThreads.retrieve)
    delete: Final = _raw(AsyncThreads.delete)
    list: Final = _raw_page(AsyncThreads.list)
    list_items: Final = _raw_page(AsyncThreads.list_items)


# The spec of `mock.create_autospec`: see `AsyncChatKit`.
AsyncThreads.with_raw_response = cast("AsyncThreadsWithRawResponse", AsyncThreadsWithRawResponse)


def _list_problems(
    *,
    user: object,
    limit: object,
    order: object,
    after: object,
    before: object,
    max_items: object,
) -> list[Problem]:
    """Return the problems of the arguments of a list. Upper limits are the server's."""
    found = Checks()
    if user is not OMITTED:
        found.text("user", user)
        if found:
            path, problem = found.pop()
            danger = "the API would list the threads of every user. For that, leave user out"
            found.append((path, f"{problem}; {danger}"))
    if limit is not None:
        found.whole("limit", limit, least=0)
    if order is not None and order not in get_args(Order):
        guess = get_close_matches(str(order), ["asc", "ascending", "oldest"], 1)
        meant = "asc" if guess else "desc"
        found.append(("order", f"must be 'asc' or 'desc', did you mean {meant!r}?"))
    for name, cursor in (("after", after), ("before", before)):
        if cursor is not None:
            found.text(name, cursor)
    if max_items is not None:
        found.whole("max_items", max_items, least=1)
    return found
