"""The emulator's HTTP server, on the running loop or on a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from aiohttp import web

from chatkit_async.emulator._request import in_origin_form

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_parser import RawRequestMessage

    from chatkit_async.emulator._changes import Changes

    Answer = Callable[[web.BaseRequest, int, asyncio.Transport], Awaitable[web.StreamResponse]]
    AnswerGarbage = Callable[[int], web.Response]

_LINGERING_SECONDS = 1.0  # in which the rest of a refused body is discarded
_STOP_TIMEOUT = 5.0  # seconds; a handler that has lost its connection ends at once


def check_running_loop() -> None:
    """Check that an asyncio event loop is running, or raise RuntimeError."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "`async with Emulator()` needs a running asyncio event loop, because aiohttp serves "
            "the emulator. Under trio, use `with Emulator()`, which has a thread of its own"
        ) from None


class Server(web.Server):
    """An HTTP server on one address, with numbered connections."""

    _listener: asyncio.Server

    def __init__(
        self,
        answer: Answer,
        answer_garbage: AnswerGarbage,
        changes: Changes,
        numbers: Iterator[int],
    ) -> None:
        super().__init__(self._handle, request_factory=self._request, handler_cancellation=True)
        self.answer_garbage = answer_garbage
        self._answer = answer
        self._changes = changes
        self._numbers = numbers
        self._open: dict[web.RequestHandler, tuple[int, asyncio.Transport]] = {}
        self._stopping = False

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return _Connection(self)

    @property
    def connections_open(self) -> int:
        """The number of open connections."""
        return len(self._open)

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port. The system chooses it for `port=0`."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self, host, port, start_serving=False)
        try:
            await self._listener.start_serving()
        except BaseException:  # cancelled: nobody will stop a server that did not start
            self._listener.close()
            raise
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening, end all connections, and wait for the end of their handlers."""
        self._stopping = True
        # A connection just accepted gets its transport two turns of the loop later. After the
        # listener is closed, asyncio would give it none, and leave the socket open.
        for _ in range(2):
            await asyncio.sleep(0)
        self._listener.close()
        for _, transport in self._open.values():
            transport.abort()
        await self.shutdown(_STOP_TIMEOUT)
        await self._listener.wait_closed()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Number a new connection."""
        super().connection_made(handler, transport)
        self._open[handler] = (next(self._numbers), transport)
        self._changes.announce()
        if self._stopping:  # accepted before the listener was closed
            transport.abort()

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """Forget a connection."""
        super().connection_lost(handler, exc)
        del self._open[handler]
        self._changes.announce()

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(in_origin_form(message), payload, protocol, writer, task, loop)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        number, transport = self._open[request.protocol]
        return await self._answer(request, number, transport)


class _Connection(web.RequestHandler):
    """One connection, which answers what is not HTTP in the API's error format."""

    def __init__(self, server: Server) -> None:
        loop = asyncio.get_running_loop()
        # None turns the access log off.
        super().__init__(server, loop=loop, access_log=None, lingering_time=_LINGERING_SECONDS)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        self._answer_garbage = server.answer_garbage

    def data_received(self, data: bytes) -> None:
        """Parse data. Close the connection if the parser fails instead of refusing."""
        try:
            super().data_received(data)
        except ValueError:  # from aiohttp's parser in Python, for a Content-Length of 5,000 digits
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer without the log entry of aiohttp, which may quote a header with a key."""
        if status >= 500:  # noqa: PLR2004 - the emulator's own failure
            return super().handle_error(request, status, exc, message)
        response = self._answer_garbage(status)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Log, except for a body that is not in its `Content-Encoding`: the client's fault.

        aiohttp meets it again where it discards the rest of the body.
        """
        if not isinstance(kwargs.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kwargs)


class ServerThread:
    """A thread with its own event loop, which serves until `stop`.

    An exception from a signal handler, such as Ctrl-C, can be raised at any bytecode of the caller
    that starts or stops the thread. So the two share nothing that an interrupt could leave locked.
    """

    def __init__(
        self, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]
    ) -> None:
        self._start = start
        self._stop = stop
        self._failures: SimpleQueue[BaseException | None] = SimpleQueue()  # None: it serves
        self._wake: Callable[[], object] | None = None
        self._is_stopping = False
        # A daemon thread: an emulator that was not left must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._main, name="chatkit-emulator", daemon=True)

    def start(self) -> None:
        """Start the thread, and wait until it serves.

        Raises:
            BaseException: The error that kept it from serving.
        """
        self._thread.start()
        if (failure := self._failures.get()) is not None:
            self._thread.join()
            raise failure

    def stop(self) -> None:
        """Stop serving, and wait for the end of the thread, however far its start had come."""
        self._is_stopping = True
        if self._wake is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._wake()
        if self._thread.is_alive():
            self._thread.join()

    def _main(self) -> None:
        try:
            with asyncio.Runner() as runner:  # it opens the loop, which may fail
                runner.run(self._serve())
        except BaseException as error:
            if self._wake is not None:
                raise
            self._failures.put(error)

    async def _serve(self) -> None:
        stopped = asyncio.Event()
        await self._start()
        self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, stopped.set)
        self._failures.put(None)
        if not self._is_stopping:  # else the caller may have looked before there was a `_wake`
            await stopped.wait()
        await self._stop()
