"""The emulator: the service behind a loopback socket, and the handles tests hold it by."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Self

from attrs import evolve, frozen

from chatkit_async._cancellation import run_to_end
from chatkit_async.emulator._access import check_host, check_not_from_a_page
from chatkit_async.emulator._changes import Changes
from chatkit_async.emulator._clock import Clock
from chatkit_async.emulator._control import PREFIX, Control, refusal
from chatkit_async.emulator._credentials import looks_real
from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._exchange import Exchange
from chatkit_async.emulator._faults import Fault, FaultScript
from chatkit_async.emulator._fields import Fields, parse_json, to_json
from chatkit_async.emulator._latency import Latency, check_latency
from chatkit_async.emulator._ledger import Ledger, Record
from chatkit_async.emulator._limits import Limiter, RateLimit
from chatkit_async.emulator._server import Server, ServerThread, check_running_loop
from chatkit_async.emulator._service import Service
from chatkit_async.emulator._state_file import StateLine, read_state
from chatkit_async.emulator._threads import DELETED_CURSORS, DeletedCursor

if TYPE_CHECKING:
    import asyncio
    import os
    from collections.abc import Callable, Collection, Generator, Iterable, Mapping

    from aiohttp import web

    from chatkit_async.emulator._faults import Body, Drop
    from chatkit_async.emulator._fields import JSON
    from chatkit_async.emulator._replies import Operation, PageFault
    from chatkit_async.emulator._state import Session
    from chatkit_async.emulator._threads import Thread

__all__ = ["Emulator"]


@frozen(kw_only=True)
class _AtStart:
    """What `reset` goes back to."""

    seed: int
    clock: tuple[float, float | None]
    faults: tuple[Fault, ...]
    rate_limit: RateLimit | None
    latency: Latency
    off_schema: bool
    retired: bool
    deleted_cursor: DeletedCursor
    state: tuple[StateLine, ...]


class Emulator:
    """The ChatKit API on a loopback port of this machine.

    `async with Emulator() as emulator:` serves on the running loop;
    `with Emulator() as emulator:` serves on a thread of its own, for blocking code. Several can
    serve at once. An emulator that is entered again goes on with the same state on the same port.

    Args:
        port: The port to serve on; 0 for a free one.
        host: A loopback address: `127.0.0.1`, another of 127.0.0.0/8, or `::1`.
        api_keys: The keys to accept besides `api_key`; None accepts any key.
        workflows: The ids of the workflows there are; None accepts any workflow.
        allow_real_keys: Whether a key that looks like one of the real service is let through: `sk-`
            or `sess-` and 40 or more characters with capitals, small letters and digits among them.
            It is refused otherwise, so that nobody points the wrong key here unawares.
        clock: The time that sessions live by; by default real time, to be moved as wanted.
        rate_limit: How many requests are let through, such as `TokenBucket(rate=25, burst=25)`;
            None for any number.
        latency: Seconds between each request and its reply, or what draws them: `Uniform`,
            `Exponential`, `LogNormal`, or any function of a `random.Random`.
        faults: What goes wrong from the start, mostly by chance, such as
            `Fault(status=503, chance=0.01)`. `fail` adds to them.
        off_schema: Whether sessions are told as the last example of each method in the API's
            documentation shows them, which does not fit the API's schema.
        retired: Whether a create is refused with 410, as it may be once the hosted service has
            ended. What exists can still be cancelled.
        deleted_cursor: What a list does with a cursor whose thread or item was deleted: `error`
            refuses it with 400, `ignore` starts the list at its beginning, `accept` continues from
            where it was.
        state: A file of JSON lines with what exists from the start, which `reset` returns to:
            `{"thread": {...}, "items": [...]}` as the API sends them, `{"session": {...}}` with the
            fields of a create and an optional `id`, and `{"fault": {...}}` and `{"clock": {...}}`
            as the controls take them.
        seed: What ids, client secrets, latencies and what happens by chance
            follow from.
        ledger_size: How many requests `requests` keeps.
        max_body: Bytes of a request's body, after decompression; a larger one is refused with 413.
        on_request: Called with each request's record once its outcome is known, in the thread
            that serves. `str(record)` is a line fit for a log.

    Raises:
        ValueError: The host is no loopback address, the port or the latency is out of range, the
            ledger's size or `max_body` is less than one, one of `api_keys` looks real, a line of
            `state` is none of the four kinds.
        OSError: `state` cannot be read.
        TypeError: `api_keys` or `workflows` is a str instead of a collection of them.
    """

    api_key: Final = "sk-emulator-not-a-real-key"
    """A key the emulator always accepts."""

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        api_keys: Collection[str] | None = None,
        workflows: Collection[str] | None = None,
        allow_real_keys: bool = False,
        clock: Clock | None = None,
        rate_limit: RateLimit | None = None,
        latency: Latency = 0.0,
        faults: Iterable[Fault] = (),
        off_schema: bool = False,
        retired: bool = False,
        deleted_cursor: DeletedCursor = "error",
        state: str | os.PathLike[str] | None = None,
        seed: int = 0,
        ledger_size: int = 1000,
        max_body: int = 32 * 1024 * 1024,
        on_request: Callable[[Record], object] | None = None,
    ) -> None:
        _check_collection("api_keys", api_keys)
        _check_collection("workflows", workflows)
        if not 0 <= port <= 65535:  # noqa: PLR2004
            message = f"port={port!r}: expected 0 to 65535"
            raise ValueError(message)
        for name, number in (("ledger_size", ledger_size), ("max_body", max_body)):
            if number < 1:
                message = f"{name}={number!r}: expected 1 or more"
                raise ValueError(message)
        if not allow_real_keys and any(map(looks_real, api_keys or ())):
            message = "one of api_keys looks real: make one up, or set allow_real_keys"
            raise ValueError(message)
        self._host = _loopback(host)
        self._port = port
        self._clock = Clock() if clock is None else clock
        self._requests = Ledger(ledger_size)
        self._changes = Changes()
        self._at_start = _AtStart(
            seed=seed,
            clock=self._clock.snapshot(),
            faults=tuple(faults),
            rate_limit=rate_limit,
            latency=check_latency(latency),
            off_schema=off_schema,
            retired=retired,
            deleted_cursor=_check_deleted_cursor(deleted_cursor),
            state=() if state is None else read_state(state),
        )
        self._faults = FaultScript(seed, self._at_start.faults)
        self._service = Service(
            clock=self._clock,
            seed=seed,
            api_keys=None if api_keys is None else {*api_keys, self.api_key},
            workflows=workflows,
            allow_real_keys=allow_real_keys,
            rate_limit=rate_limit,
            off_schema=off_schema,
            retired=retired,
            deleted_cursor=deleted_cursor,
        )
        self._exchange = Exchange(
            service=self._service,
            faults=self._faults,
            ledger=self._requests,
            changes=self._changes,
            clock=self._clock,
            seed=seed,
            latency=latency,
            max_body=max_body,
            on_request=on_request,
        )
        self._control = Control(self, self._faults, self._service.threads, max_body)
        self._load_state()
        self._connection_numbers = itertools.count(1)
        self._server: Server | None = None
        self._thread: ServerThread | None = None

    def __repr__(self) -> str:
        """Show where it serves."""
        return f"<Emulator {self.base_url if self._port else 'not started'}>"

    @property
    def base_url(self) -> str:
        """The base URL for a client, such as `http://127.0.0.1:49152/v1`.

        It stays the same when the emulator stops serving, and when it is entered again.

        Raises:
            RuntimeError: The port is not known yet, as the emulator has not been entered.
        """
        if not self._port:
            message = "the emulator has no port yet: enter it with `async with` or `with`"
            raise RuntimeError(message)
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/v1"

    @property
    def control_url(self) -> str:
        """Where its state is read and set in JSON, such as `http://127.0.0.1:49152/_emulator`.

        Raises:
            RuntimeError: As for `base_url`.
        """
        return f"{self.base_url.removesuffix('/v1')}{PREFIX}"

    @property
    def clock(self) -> Clock:
        """The time that sessions live by."""
        return self._clock

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The latest 100,000 sessions by id, oldest first. Can be read from any thread."""
        return self._service.sessions

    @property
    def threads(self) -> Mapping[str, Thread]:
        """The threads by id, oldest first. Can be read from any thread."""
        return self._service.threads

    def add_thread(
        self,
        *,
        user: str,
        title: str | None = None,
        items: Iterable[str | Mapping[str, JSON]] = (),
        status: str | Mapping[str, JSON] = "active",
        created_at: int | None = None,
        id: str | None = None,  # noqa: A002 - the API's name for it
    ) -> Thread:
        """Add a thread, as a conversation in a browser would. Can be called from any thread.

        Args:
            user: Its user.
            title: Its title.
            items: Its items, oldest first: `"user: Hi"`, `"assistant: Hello"`, or an item's fields,
                of which `id`, `object`, `created_at` and `thread_id` are filled in.
            status: `active`, `locked` or `closed`, or one of these with a `reason`, such as
                `{"type": "locked", "reason": "handed over"}`.
            created_at: Unix seconds. None: the clock's time.
            id: Its id. None: a new one.

        Raises:
            ValueError: One of these is not as described, or the id is taken. The message shows no
                text of the conversation.
        """
        given = {"title": title, "created_at": created_at, "id": id}
        fields: dict[str, object] = {"user": user, "items": [*items], "status": status}
        fields |= {name: value for name, value in given.items() if value is not None}
        with _as_value_error():
            return self._service.threads.create(Fields(_copied(fields)))

    def add_item(self, thread_id: str, item: str | Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Add an item to a thread, as described at `add_thread`, and return it.

        Raises:
            KeyError: There is no such thread.
            ValueError: As for `add_thread`.
        """
        thread = self._service.threads[thread_id]
        with _as_value_error():
            return self._service.threads.create_item(thread, _copied(item))

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread, as another client would.

        Raises:
            KeyError: There is no such thread.
        """
        self._service.threads.delete(thread_id)

    def delete_item(self, thread_id: str, item_id: str) -> None:
        """Delete an item of a thread.

        Raises:
            KeyError: There is no such thread or item.
        """
        self._service.threads[thread_id].rows.delete(item_id)

    @property
    def requests(self) -> Ledger:
        """The latest requests, oldest first. Can be read from any thread."""
        return self._requests

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return 0 if self._server is None else self._server.connections_open

    @property
    def rate_limit(self) -> RateLimit | None:
        """How many requests are let through; None for any number.

        Set it to have another limit from now on, which starts unused.
        """
        limiter = self._service.limiter
        return None if limiter is None else limiter.limit

    @rate_limit.setter
    def rate_limit(self, limit: RateLimit | None) -> None:
        self._service.limiter = None if limit is None else Limiter(limit)

    @property
    def latency(self) -> Latency:
        """Seconds between each request and its reply, or what draws them. It can be set."""
        return self._exchange.latency

    @latency.setter
    def latency(self, latency: Latency) -> None:
        self._exchange.latency = check_latency(latency)

    @property
    def off_schema(self) -> bool:
        """Whether sessions are told as the API's documentation shows them. It can be set."""
        return self._service.off_schema

    @off_schema.setter
    def off_schema(self, off_schema: bool) -> None:
        self._service.off_schema = off_schema

    @property
    def retired(self) -> bool:
        """Whether a create is refused with 410. It can be set."""
        return self._service.retired

    @retired.setter
    def retired(self, retired: bool) -> None:
        self._service.retired = retired

    @property
    def deleted_cursor(self) -> DeletedCursor:
        """What a list does with a cursor whose thread or item was deleted. It can be set."""
        return self._service.deleted_cursor

    @deleted_cursor.setter
    def deleted_cursor(self, deleted_cursor: DeletedCursor) -> None:
        self._service.deleted_cursor = _check_deleted_cursor(deleted_cursor)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is still to go wrong, in the order it is tried."""
        return tuple(line.fault for line in self._faults.lines())

    def fail(
        self,
        *,
        operation: Operation | None = None,
        path: str | None = None,
        user: str | None = None,
        with_body: Mapping[str, JSON] | None = None,
        with_headers: Mapping[str, str] | None = None,
        times: int | None = 1,
        every: int = 1,
        status: int | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str | None = None,
        delay: float = 0.0,
        drip: float = 0.0,
        drop: Drop | None = None,
        cut: bool = False,
        off_schema: bool = False,
        page: PageFault | None = None,
        after: bool = False,
        chance: float = 1.0,
    ) -> Fault:
        """Let requests fail: the next, every n-th, those of a user. Can be called from any thread.

        Faults are tried in the order they were added; a request meets one at most. A fault that
        replaces the reply (`drop`, `body`, a `status` of 300 or more) keeps the request from having
        any effect unless `after` is true; any other only changes how the service's own reply
        arrives. A request that has a header such as `X-Emulator-Fault: status=503; retry-after=1`
        meets that fault, and none of these.

        Args:
            operation: `create`, `cancel`, `list_threads`, `retrieve_thread`, `delete_thread` or
                `list_items`; None for any request.
            path: Only requests of this path, such as `/v1/chatkit/sessions/*/cancel`, where `*`
                stands for anything.
            user: Only requests to create a session for this user or to list their threads, and
                those about one of their sessions or threads.
            with_body: Only requests whose body has these values, by path, such as
                `{"workflow.id": "wf_1"}`.
            with_headers: Only requests that have these headers.
            times: How many requests meet this fault; None for all, until it is cleared.
            every: Of the requests it is for, which ones meet it: every third for 3, beginning with
                the third.
            status: 200 to 599. From 300 on, the body is an error in the API's shape.
            code: That error's `code`, such as `insufficient_quota`.
            headers: Headers to add, or to send instead of the usual ones.
            body: What to send instead: bytes and str as they are, anything else as JSON.
            content_type: The `Content-Type` to send.
            delay: Seconds between the request and its reply; the effect comes before. `math.inf`
                never answers.
            drip: Seconds between one byte of the body and the next.
            drop: End the connection without a reply: `close` it, or `reset` it.
            cut: Promise the whole body in `Content-Length`, send half, close the connection.
            off_schema: Answer as the last example of each method in the API's documentation
                does, which does not fit the API's schema.
            page: What is wrong with a page of a list: `empty` has no rows but claims that more
                follow, `stuck` claims so and returns the cursor that it was sent as its last id,
                `no_last_id` lacks it, `short_types` and `unknown_types` name its items' types as in
                the documentation (`user_message`), or as no version of the API does.
            after: Let the request take effect first, then lose or replace the reply.
            chance: How likely the fault is, 0 to 1; `times` counts the requests that it does meet.
                What happens follows from the emulator's seed and the order of the requests.

        Returns:
            The fault; the record of a request that meets it holds it as `fault`.

        Raises:
            ValueError: A value is out of range or cannot be sent, nothing is to go wrong, or two
                things contradict each other, such as a dropped connection and a reply.
        """
        fault = Fault(
            operation=operation,
            path=path,
            user=user,
            with_body={} if with_body is None else with_body,
            with_headers={} if with_headers is None else with_headers,
            times=times,
            every=every,
            status=status,
            code=code,
            headers={} if headers is None else headers,
            body=body,
            content_type=content_type,
            delay=delay,
            drip=drip,
            drop=drop,
            cut=cut,
            off_schema=off_schema,
            page=page,
            after=after,
            chance=chance,
        )
        self._faults.add(fault)
        return fault

    def clear_faults(self) -> None:
        """Forget the faults that are still to come. Can be called from any thread."""
        self._faults.clear()

    def reset(self, *, seed: int | None = None) -> None:
        """Be as it was made: sessions, threads, requests, faults, limits, latency, the clock, chance.

        What happens then happens as it did the first time. Connections stay open and keep their
        numbers, so do it between requests: one that is being answered ends as it began. Can be
        called from any thread.

        Args:
            seed: What ids and chance follow from, from now on; by default the seed as it was.
        """
        if seed is not None:
            self._at_start = evolve(self._at_start, seed=seed)
        start = self._at_start
        self._clock.restore(start.clock)
        self._service.sessions.reset(start.seed)
        self._service.threads.reset(start.seed)
        self._requests.reset()
        self._faults.reset(start.seed, start.faults)
        self._exchange.reset(start.seed)
        self.rate_limit = start.rate_limit
        self.latency = start.latency
        self.off_schema = start.off_schema
        self.retired = start.retired
        self.deleted_cursor = start.deleted_cursor
        self._load_state()

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait until something is true of the emulator, such as that a request has arrived.

        The predicate is asked now, and again when a request arrives, when its outcome is known,
        and when a connection opens or closes. Wrap it in `asyncio.timeout` to limit the wait.

        Raises:
            RuntimeError: The emulator serves on a thread; use `wait_until`.
        """
        if self._thread is not None:
            message = "the emulator serves on another thread: use wait_until()"
            raise RuntimeError(message)
        await self._changes.until(predicate)

    def wait_until(self, predicate: Callable[[], bool], *, timeout: float = 10.0) -> None:
        """Wait as `until` does, in a thread other than the one that serves.

        Raises:
            TimeoutError: It did not become true within `timeout` seconds.
        """
        if not self._changes.wait_until(predicate, timeout):
            message = f"still not true after {timeout:g} seconds; last requests: " + "; ".join(
                map(str, self.requests[-3:])
            )
            raise TimeoutError(message)

    async def __aenter__(self) -> Self:
        """Serve on the running loop.

        Raises:
            OSError: The port cannot be had.
            RuntimeError: The emulator serves already, or there is no running loop.
        """
        self._refuse_if_serving()
        check_running_loop()
        await self._start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop serving: end every connection, and wait until its handler is done.

        A cancellation meanwhile takes effect afterwards.
        """
        await run_to_end(self._stop())

    def __enter__(self) -> Self:
        """Serve on a thread with an event loop of its own.

        Raises:
            OSError: The port is not available.
            RuntimeError: The emulator is already serving.
        """
        self._refuse_if_serving()
        try:
            self._thread = ServerThread(self._start, self._stop)
            self._thread.start()
            return self  # noqa: TRY300 - an interrupt may come as late as here
        except BaseException:  # Ctrl-C included
            self.__exit__()
            raise

    def __exit__(self, *exc_info: object) -> None:
        """Stop serving, and wait for the thread to end."""
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    def _load_state(self) -> None:
        for line in self._at_start.state:
            line.load(self._clock, self._service, self._faults)

    def _refuse_if_serving(self) -> None:
        if self._server is not None or self._thread is not None:
            message = "the emulator serves already; make another one"
            raise RuntimeError(message)

    async def _answer(
        self, request: web.BaseRequest, connection: int, transport: asyncio.Transport
    ) -> web.StreamResponse:
        try:
            check_host(request.headers)
            check_not_from_a_page(request.headers)
        except ApiError as error:
            return refusal(error)
        if request.raw_path.startswith(PREFIX):
            return await self._control.answer(request)
        return await self._exchange.run(request, connection, transport)

    async def _start(self) -> None:
        server = Server(
            self._answer,
            self._exchange.answer_garbage,
            self._changes,
            self._connection_numbers,
        )
        self._port = await server.start(self._host, self._port)
        self._server = server

    async def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop()


def _loopback(host: str) -> str:
    # "localhost" is not resolved: what it means is the machine's to say, and may be no loopback.
    address = "127.0.0.1" if host == "localhost" else host
    try:
        loopback = ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        message = f"host={host!r}: the emulator serves on loopback only, such as 127.0.0.1 or ::1"
        raise ValueError(message)
    return address


def _check_collection(name: str, value: Collection[str] | None) -> None:
    if isinstance(value, str):
        message = f"{name} is a str: expected a collection of them, such as a set"
        raise TypeError(message)


def _check_deleted_cursor(value: DeletedCursor) -> DeletedCursor:
    if value not in DELETED_CURSORS:
        message = f"deleted_cursor={value!r}: expected one of {', '.join(DELETED_CURSORS)}"
        raise ValueError(message)
    return value


def _copied(value: object) -> Any:
    """Return a JSON value with nothing in it that the caller can change later."""
    return parse_json(to_json(value))


@contextmanager
def _as_value_error() -> Generator[None]:
    try:
        yield
    except (ApiError, TypeError) as error:  # a TypeError: it cannot be JSON
        raise ValueError(*error.args) from None
