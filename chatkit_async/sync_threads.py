"""Threads: the blocking facade of `AsyncThreads`. Its classes are imported when they are used."""

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, Unpack, cast

import attrs

from chatkit_async._loop_thread import LoopThread
from chatkit_async.bulk import CONCURRENCY, MAX_FAILURES, MAX_WAIT
from chatkit_async.models.threads import ChatKitThread, ChatKitThreadDeleted, ChatKitThreadItem
from chatkit_async.options import (
    OMITTED,
    Omitted,
    Order,
    RequestOptions,
    traceback_safe_options,
)
from chatkit_async.pages import AsyncPage, Page, Pages, read_on_loop
from chatkit_async.sessions import APIResponse
from chatkit_async.sync_bulk import BlockingBulkRun
from chatkit_async.threads import AsyncThreads, AsyncThreadsWithRawResponse, DeleteRowT

__all__ = ["Threads", "ThreadsWithRawResponse"]

P = ParamSpec("P")
T = TypeVar("T")
ItemT = TypeVar("ItemT", bound=ChatKitThread | ChatKitThreadItem)


class Threads:
    """Lists, reads and deletes threads, the conversations from sessions: `client.threads`.

    A key sees the threads of its project, whatever workflow they belong to.

    Attributes:
        with_raw_response: The same methods, returning the reply as it came: see `APIResponse`.

    API documentation: https://platform.openai.com/docs/api-reference/chatkit/threads
    """

    with_raw_response: "ThreadsWithRawResponse"

    def __init__(self, threads: AsyncThreads, loop_thread: LoopThread) -> None:
        self._threads = threads
        self._loop_thread = loop_thread
        self.with_raw_response = ThreadsWithRawResponse(threads.with_raw_response, loop_thread)

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
    ) -> Pages[ChatKitThread]:
        """List threads: iterate the list for every thread, or call `page()` for one page.

        Nothing is requested before that. See `Pages`.

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

        `page()` and iterating raise `APIError`, as `retrieve` does.

        API documentation: List ChatKit threads, `GET /chatkit/threads`.
        """
        options = traceback_safe_options(options)
        pages = self._threads.list(
            user=user,
            limit=limit,
            order=order,
            after=after,
            before=before,
            max_items=max_items,
            **options,
        )
        return Pages(pages, self._loop_thread.run)

    def retrieve(self, thread_id: str, **options: Unpack[RequestOptions]) -> ChatKitThread:
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
        return self._loop_thread.run(self._threads.retrieve, thread_id, **options)

    def delete(self, thread_id: str, **options: Unpack[RequestOptions]) -> ChatKitThreadDeleted:
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
        return self._loop_thread.run(self._threads.delete, thread_id, **options)

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
    ) -> BlockingBulkRun[DeleteRowT, ChatKitThreadDeleted]:
        """Delete threads, and give the outcome of each: see `BlockingBulkRun`. This cannot be undone.

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
        run = self._threads.delete_many(
            read_on_loop(threads),  # so that the next page is read while threads are deleted
            concurrency=concurrency,
            ordered=ordered,
            rate=rate,
            max_wait=max_wait,
            max_failures=max_failures,
            **options,
        )
        return BlockingBulkRun(run, self._loop_thread)

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
    ) -> Pages[ChatKitThreadItem]:
        """List the items of a thread: iterate for every item, or call `page()` for one page.

        Nothing is requested before that. See `Pages`.

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

        `page()` and iterating raise `APIError`, as `retrieve` does.

        API documentation: List ChatKit thread items, `GET /chatkit/threads/{thread_id}/items`.
        """
        options = traceback_safe_options(options)
        pages = self._threads.list_items(
            thread_id,
            limit=limit,
            order=order,
            after=after,
            before=before,
            max_items=max_items,
            **options,
        )
        return Pages(pages, self._loop_thread.run)


def _blocking(
    method: Callable[Concatenate[AsyncThreadsWithRawResponse, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[ThreadsWithRawResponse, P], T]":
    """Give a method that is a coroutine function its blocking form: its own parameters."""

    @wraps(method)
    def blocking(self: "ThreadsWithRawResponse", /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._run(method, self._threads, *args, **kwargs)  # pyright: ignore[reportPrivateUsage]
        finally:
            del kwargs  # headers may be credentials, and what is raised holds this frame

    return blocking


def _blocking_page(
    method: Callable[
        Concatenate[AsyncThreadsWithRawResponse, P],
        Coroutine[Any, Any, APIResponse[AsyncPage[ItemT]]],
    ],
) -> "Callable[Concatenate[ThreadsWithRawResponse, P], APIResponse[Page[ItemT]]]":
    """Give a method that returns a page its blocking form: its own parameters."""
    request = _blocking(method)

    @wraps(method)
    def blocking(
        self: "ThreadsWithRawResponse", /, *args: P.args, **kwargs: P.kwargs
    ) -> APIResponse[Page[ItemT]]:
        try:
            response: APIResponse[Any] = request(self, *args, **kwargs)
        finally:
            del kwargs  # headers may be credentials, and what is raised holds this frame
        page = Page(response.parse(), self._run)  # pyright: ignore[reportPrivateUsage]
        return attrs.evolve(response, result=page)

    return blocking


class ThreadsWithRawResponse:
    """The methods of `Threads`, each returning an `APIResponse`.

    They are `client.threads.with_raw_response`.

    Attributes:
        list: As `Threads.list`, for one page.
        retrieve: As `Threads.retrieve`.
        delete: As `Threads.delete`.
        list_items: As `Threads.list_items`, for one page.
    """

    def __init__(self, threads: AsyncThreadsWithRawResponse, loop_thread: LoopThread) -> None:
        self._threads = threads
        self._run = loop_thread.run

    retrieve: Final = _blocking(AsyncThreadsWithRawResponse.retrieve)
    delete: Final = _blocking(AsyncThreadsWithRawResponse.delete)
    list: Final = _blocking_page(AsyncThreadsWithRawResponse.list)
    list_items: Final = _blocking_page(AsyncThreadsWithRawResponse.list_items)


# The spec of `mock.create_autospec`: see `AsyncChatKit`.
Threads.with_raw_response = cast("ThreadsWithRawResponse", ThreadsWithRawResponse)
