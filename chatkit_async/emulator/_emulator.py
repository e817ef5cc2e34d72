"""The emulator: the service behind a loopback socket, and all that a test can do with it."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Self

from chatkit_async._cancellation import run_to_end
from chatkit_async.emulator._access import check_host, check_not_from_a_page
from chatkit_async.emulator._changes import Changes
from chatkit_async.emulator._checks import check_number
from chatkit_async.emulator._clock import Clock
from chatkit_async.emulator._control import PREFIX, Control, refusal
from chatkit_async.emulator._credentials import looks_real
from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._exchange import Exchange
from chatkit_async.emulator._faults import Fault
from chatkit_async.emulator._fields import Fields
from chatkit_async.emulator._json import parse_json, to_json
from chatkit_async.emulator._server import Server, ServerThread, check_running_loop
from chatkit_async.emulator._service import Service
from chatkit_async.emulator._state import Settings, State, read_state

if TYPE_CHECKING:
    import asyncio
    import os
    from collections.abc import Callable, Collection, Generator, Iterable, Mapping

    from aiohttp import web

    from chatkit_async.emulator._faults import Body, Drop
    from chatkit_async.emulator._json import JSON
    from chatkit_async.emulator._latency import Latency
    from chatkit_async.emulator._ledger import Ledger, Record
    from chatkit_async.emulator._limits import RateLimit
    from chatkit_async.emulator._replies import PageFault
    from chatkit_async.emulator._routes import Operation
    from chatkit_async.emulator._sessions import Session
    from chatkit_async.emulator._threads import DeletedCursor, Thread

__all__ = ["Emulator"]


class Emulator:
    """The ChatKit API on a loopback port of this machine.

    `async with Emulator() as emulator:` serves on the running loop;
    `with Emulator() as emulator:` serves on a thread of its own, for blocking code. Several
    emulators can serve at once. One that is entered again keeps its state and its port.

    Args:
        port: The port to serve on; 0 for a free one.
        host: A loopback address: `127.0.0.1`, another of 127.0.0.0/8, or `::1`.
        api_keys: The keys to accept besides `api_key`; None accepts any key.
        workflows: The ids of the workflows that exist; None accepts any workflow.
        allow_real_keys: True to accept keys that look like keys of the real service: `sk-` or
            `sess-`, then 40 or more characters with capitals, small letters and digits among them.
            Otherwise they are refused, in case somebody uses the wrong key by mistake.
        clock: The time that sessions expire by; by default real time, which a test can move.
        rate_limit: The number of requests that are let through, such as
            `TokenBucket(rate=25, burst=25)`; None for no limit.
        latency: Seconds between each request and its reply, or what draws them: `Uniform`,
            `Exponential`, `LogNormal`, or any function of a `random.Random`.
        faults: Faults from the start, usually by chance, such as `Fault(status=503, chance=0.01)`.
            `fail` adds more.
        off_schema: True to send sessions as in the last example of each method in the API's
            documentation, which does not fit the API's schema.
        retired: True to refuse each create with 410, as the service may do once it has ended.
            Sessions that exist can still be cancelled.
        deleted_cursor: The treatment of a cursor whose thread or item was deleted: `error` refuses
            it with 400, `ignore` starts the list at its beginning, `accept` continues from there.
        state: A file of JSON lines with the state at the start, which `reset` returns to:
            `{"thread": {...}, "items": [...]}` as the API sends them, `{"session": {...}}` with the
            fields of a create and an optional `id`, and `{"fault": {...}}` and `{"clock": {...}}`
            as the controls take them.
        seed: Determines ids, client secrets, latencies and what happens by chance.
        ledger_size: The number of requests that `requests` keeps.
        max_body: Bytes of a request's body, after decompression; a larger one is refused with 413.
        on_request: Called with the record of each request once its outcome is known, in the thread
            that serves. `str(record)` is a line for a log.

    Raises:
        ValueError: The host is not a loopback address, a number is out of range, one of `api_keys`
            looks real, or a line of `state` is not of one of the four kinds.
        OSError: `state` cannot be read.
        TypeError: `api_keys` or `workflows` is a str instead of a collection.
    """

    api_key: Final = "sk-emulator-not-a-real-key"
    """A key that the emulator always accepts."""

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
        check_number("port", port, 0, 65535, whole=True)
        check_number("ledger_size", ledger_size, 1, whole=True)
        check_number("max_body", max_body, 1, whole=True)
        if not allow_real_keys and any(map(looks_real, api_keys or ())):
            message = "one of api_keys looks real: make one up, or set allow_real_keys"
            raise ValueError(message)
        self._host = _loopback(host)
        self._port = port
        self._state = State(
            clock=Clock() if clock is None else clock,
            seed=seed,
            settings=Settings(
                rate_limit=rate_limit,
                latency=latency,
                off_schema=off_schema,
                retired=retired,
                deleted_cursor=deleted_cursor,
            ),
            faults=faults,
            ledger_size=ledger_size,
            lines=() if state is None else read_state(state),
        )
        service = Service(
            self._state,
            api_keys=None if api_keys is None else {*api_keys, self.api_key},
            workflows=workflows,
            allow_real_keys=allow_real_keys,
        )
        self._changes = Changes()
        self._exchange = Exchange(
            self._state, service, self._changes, max_body=max_body, on_request=on_request
        )
        self._control = Control(self._state, self._serving, max_body=max_body)
        self._connection_numbers = itertools.count(1)
        self._server: Server | None = None
        self._thread: ServerThread | None = None

    def __repr__(self) -> str:
        """Show the base URL."""
        return f"<Emulator {self.base_url if self._port else 'not started'}>"

    @property
    def base_url(self) -> str:
        """The base URL for a client, such as `http://127.0.0.1:49152/v1`.

        It stays the same when the emulator stops serving, and when it is entered again.

        Raises:
            RuntimeError: The emulator has not been entered, so it has no port yet.
        """
        if not self._port:
            message = "the emulator has no port yet: enter it with `async with` or `with`"
            raise RuntimeError(message)
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/v1"

    @property
    def control_url(self) -> str:
        """The URL where its state is read and set in JSON: `http://127.0.0.1:49152/_emulator`.

        Raises:
            RuntimeError: As for `base_url`.
        """
        return f"{self.base_url.removesuffix('/v1')}{PREFIX}"

    @property
    def clock(self) -> Clock:
        """The time that sessions expire by."""
        return self._state.clock

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The latest 100,000 sessions by id, oldest first. Can be read from any thread."""
        return self._state.sessions

    @property
    def threads(self) -> Mapping[str, Thread]:
        """The threads by id, oldest first. Can be read from any thread."""
        return self._state.threads

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
        """Add a thread, as a browser would. Can be called from any thread.

        Args:
            user: The user that the thread belongs to.
            title: The title.
            items: The items, oldest first: `"user: Hi"`, `"assistant: Hello"`, or an item's fields,
                of which `id`, `object`, `created_at` and `thread_id` are filled in.
            status: `active`, `locked` or `closed`, or one of these with a `reason`, such as
                `{"type": "locked", "reason": "handed over"}`.
            created_at: Unix seconds. None: the clock's time.
            id: The id. None: a new one.

        Raises:
            ValueError: An argument is not as described, or the id is taken. The message shows no
                text of the conversation.
        """
        given = {"title": title, "created_at": created_at, "id": id}
        fields: dict[str, object] = {"user": user, "items": [*items], "status": status}
        fields |= {name: value for name, value in given.items() if value is not None}
        with _as_value_error():
            return self._state.threads.create(Fields(_copied(fields)))

    def add_item(self, thread_id: str, item: str | Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Add an item to a thread, as described at `add_thread`, and return it.

        Raises:
            KeyError: The thread does not exist.
            ValueError: As for `add_thread`.
        """
        thread = self._state.threads[thread_id]
        with _as_value_error():
            return self._state.threads.create_item(thread, _copied(item))

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread, as another client would.

        Raises:
            KeyError: The thread does not exist.
        """
        self._state.threads.delete(thread_id)

    def delete_item(self, thread_id: str, item_id: str) -> None:
        """Delete an item of a thread.

        Raises:
            KeyError: The thread or the item does not exist.
        """
        self._state.threads[thread_id].rows.delete(item_id)

    @property
    def requests(self) -> Ledger:
        """The latest requests, oldest first. Can be read from any thread."""
        return self._state.requests

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return 0 if self._server is None else self._server.connections_open

    @property
    def rate_limit(self) -> RateLimit | None:
        """The number of requests that are let through. None: no limit.

        It can be set; the new limit starts unused.
        """
        return self._state.settings.rate_limit

    @rate_limit.setter
    def rate_limit(self, limit: RateLimit | None) -> None:
        self._state.settings.rate_limit = limit

    @property
    def latency(self) -> Latency:
        """Seconds between each request and its reply, or what draws them. It can be set."""
        return self._state.settings.latency

    @latency.setter
    def latency(self, latency: Latency) -> None:
        self._state.settings.latency = latency

    @property
    def off_schema(self) -> bool:
        """True if sessions are sent as in the API's documentation. It can be set."""
        return self._state.settings.off_schema

    @off_schema.setter
    def off_schema(self, off_schema: bool) -> None:
        self._state.settings.off_schema = off_schema

    @property
    def retired(self) -> bool:
        """True if each create is refused with 410. It can be set."""
        return self._state.settings.retired

    @retired.setter
    def retired(self, retired: bool) -> None:
        self._state.settings.retired = retired

    @property
    def deleted_cursor(self) -> DeletedCursor:
        """The treatment of a cursor whose thread or item was deleted. It can be set."""
        return self._state.settings.deleted_cursor

    @deleted_cursor.setter
    def deleted_cursor(self, deleted_cursor: DeletedCursor) -> None:
        self._state.settings.deleted_cursor = deleted_cursor

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The scripted faults that are left, in the order they are tried."""
        return tuple(line.fault for line in self._state.faults.lines())

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
        """Script a fault: for the next request, every n-th, those of a user.

        Can be called from any thread. Faults are tried in the order they were added; a request
        meets at most one. If a fault replaces the reply (`drop`, `body`, a `status` of 300 or
        more), the request has no effect unless `after` is true; other faults change how the
        service's own reply arrives. A request with a header such as
        `X-Emulator-Fault: status=503; retry-after=1` meets that fault, and no scripted one.

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
            times: The number of requests that meet this fault; None for all, until it is cleared.
            every: 3 for every third of the requests that the fault is for, beginning with the
                third.
            status: 200 to 599. From 300 on, the body is an error in the API's format.
            code: That error's `code`, such as `insufficient_quota`.
            headers: Headers to add, or to send instead of the usual ones.
            body: The body to send instead: bytes and str as they are, anything else as JSON.
            content_type: The `Content-Type` to send.
            delay: Seconds between the request and its reply; the effect comes before. `math.inf`
                never answers.
            drip: Seconds between one byte of the body and the next.
            drop: End the connection without a reply: `close` it, or `reset` it.
            cut: Promise the whole body in `Content-Length`, send half, close the connection.
            off_schema: Answer as in the last example of each method in the API's documentation,
                which does not fit the API's schema.
            page: The fault of a page of a list: `empty` has no rows but says that more follow,
                `stuck` says so too and repeats the request's cursor as its last id, `no_last_id`
                lacks it, `short_types` and `unknown_types` name the types of items as in the
                documentation (`user_message`), or as no version of the API does.
            after: Let the request take effect first, then lose or replace the reply.
            chance: The probability of the fault, 0 to 1; `times` counts the requests that meet it.
                The emulator's seed and the order of the requests determine which.

        Returns:
            The fault; the record of a request that meets it holds it as `fault`.

        Raises:
            ValueError: A value is out of range or cannot be sent, the fault does nothing, or two
                arguments contradict each other, such as a dropped connection and a reply.
        """
        # The parameters are a fault's fields, and None is the default of those that allow it.
        given = {name: value for name, value in locals().items() if value is not None}
        del given["self"]
        fault = Fault(**given)
        self._state.faults.add(fault)
        return fault

    def clear_faults(self) -> None:
        """Remove the scripted faults. Can be called from any thread."""
        self._state.faults.clear()

    def reset(self, *, seed: int | None = None) -> None:
        """Return to the state at the start: sessions, threads, requests, faults, settings, clock.

        The same requests then get the same replies. Connections stay open and keep their numbers,
        and a request in progress ends as it began, so call it between requests. Can be called from
        any thread.

        Args:
            seed: Another seed from now on. None: the same one.
        """
        self._state.reset(seed)

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait until a predicate is true, for example `lambda: emulator.requests.total == 1`.

        The predicate is called now, and again when a request arrives, when its outcome is known,
        and when a connection opens or closes. Wrap it in `asyncio.timeout` to limit the wait.

        Raises:
            RuntimeError: The emulator serves on a thread; use `wait_until`.
        """
        if self._thread is not None:
            message = "the emulator is serving on another thread: use wait_until()"
            raise RuntimeError(message)
        await self._changes.until(predicate)

    def wait_until(self, predicate: Callable[[], bool], *, timeout: float = 10.0) -> None:
        """Wait like `until`, in a thread other than the one that serves.

        Raises:
            TimeoutError: The predicate was not true within `timeout` seconds.
        """
        if not self._changes.wait_until(predicate, timeout):
            message = f"still not true after {timeout:g} seconds; last requests: " + "; ".join(
                map(str, self.requests[-3:])
            )
            raise TimeoutError(message)

    async def __aenter__(self) -> Self:
        """Serve on the running loop.

        Raises:
            OSError: The port is not available.
            RuntimeError: The emulator is already serving, or no event loop is running.
        """
        self._refuse_if_serving()
        check_running_loop()
        await self._start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop serving: end every connection, and wait for the end of its handler.

        If the task is cancelled meanwhile, it ends after that.
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

    def _serving(self) -> Mapping[str, JSON]:
        return {"base_url": self.base_url, "connections": self.connections}

    def _refuse_if_serving(self) -> None:
        if self._server is not None or self._thread is not None:
            message = "the emulator is already serving; make another one"
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
    # "localhost" is not resolved, because on some machines it is not loopback.
    address = "127.0.0.1" if host == "localhost" else host
    try:
        loopback = ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        message = f"host must be a loopback address such as 127.0.0.1 or ::1, got {host!r}"
        raise ValueError(message)
    return address


def _check_collection(name: str, value: Collection[str] | None) -> None:
    if isinstance(value, str):
        message = f"{name} must be a collection of str, for example a set; got a str"
        raise TypeError(message)


def _copied(value: object) -> Any:
    """Return a copy of a JSON value, which the caller cannot change later."""
    return parse_json(to_json(value))


@contextmanager
def _as_value_error() -> Generator[None]:
    try:
        yield
    except (ApiError, TypeError) as error:  # TypeError: it cannot be JSON
        raise ValueError(*error.args) from None
