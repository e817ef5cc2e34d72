"""A cell of the matrix: one call, on a client of its own, that meets a fault so many times.

Everything goes over real sockets, and nothing waits: time passes in a cell when its client sleeps
and when its server says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from datetime import UTC, datetime

import attrs
import trustme
from faults.behaviour import ATTEMPT_TIMEOUT, CONNECT_TIMEOUT
from faults.table import NEVER
from patience import PATIENCE
from servers import http, serve

from chatkit_async import AsyncChatKit, ChatKit
from chatkit_async._attempts import Seam

# With characters that URLs and JSON escape, as no real key has: so each encoding differs.
KEY = 'sk-proj-+/7"Zk\\%pQ2wX9mVb4nR8tLc6yHd'

MAX_RETRIES = 2
EVERY_ATTEMPT = 99
NOWHERE = "nowhere.invalid"

getaddrinfo = socket.getaddrinfo


class Clock:
    """The time of one cell. It stands still but for what passes by `advance`."""

    def __init__(self):
        self.waits = []
        self.between = None
        self._passed = 0.0
        self._loop = None

    def govern(self, loop):
        """Have a loop's timers go by this time too, on top of its own."""
        self._loop = loop
        loop.time = lambda: time.monotonic() + self._passed

    def advance(self, seconds):
        """Let time pass; may be called from any thread."""
        self._passed += seconds
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: None)  # have it look at its timers

    def now(self):
        return self._passed

    async def sleep(self, seconds):
        """The client's sleep: it is noted, and over at once."""
        self.waits.append(seconds)
        self._passed += seconds
        if self.between is not None:
            await self.between()

    @property
    def seam(self):
        return Seam(now=self.now, sleep=self.sleep, random=lambda: 0.5)


class Certificates:
    """TLS settings of servers, and of a client that trusts the tests' own authority."""

    def __init__(self):
        authority = trustme.CA()
        long_ago = datetime(2001, 1, 1, tzinfo=UTC)
        self._issued = {
            "right": authority.issue_cert("127.0.0.1"),
            "wrong name": authority.issue_cert("other.example"),
            "expired": authority.issue_cert("127.0.0.1", not_after=long_ago),
            "untrusted": trustme.CA().issue_cert("127.0.0.1"),
        }
        self.trusting = ssl.create_default_context()
        authority.configure_trust(self.trusting)

    def context(self, name):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._issued[name].configure_cert(context)
        return context


class Grounds:
    """A thread for the servers: a client that blocks cannot share its own with them."""

    def __init__(self):
        self.certificates = Certificates()
        self._loop = asyncio.new_event_loop()
        # A server whose handshake fails tells its loop so, which is not what is tested.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._thread = threading.Thread(target=self._loop.run_forever, name="faults")
        self._thread.start()

    def run(self, work):
        """Run a coroutine over there, from a thread that may wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def await_(self, work):
        """Run a coroutine over there, from another loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    @contextlib.contextmanager
    def serving(self, handle):
        """Serve over there: see `serve`."""
        context = serve(handle)
        server = self.run(context.__aenter__())
        try:
            yield server
        finally:
            self.run(context.__aexit__(None, None, None))

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class Cell:
    """Where a fault strikes the first `times` attempts of a call."""

    def __init__(self, grounds, fault, times):
        self.certificates = grounds.certificates
        self.clock = Clock()
        self.server = None
        self._grounds = grounds
        self._fault = fault
        self._left = times
        self._idle = fault.where == "used"  # the first call only makes a connection
        self._stack = contextlib.AsyncExitStack()

    @property
    def port(self):
        return self._socket.getsockname()[1]

    @property
    def settings(self):
        """How a client is made that meets the fault."""
        scheme = "https" if self._fault.where == "tls" else "http"
        host = NOWHERE if self._fault.where == "name" else "127.0.0.1"
        return {
            "api_key": KEY,
            "base_url": f"{scheme}://{host}:{self.port}/v1",
            "allow_http": True,
            "attempt_timeout": ATTEMPT_TIMEOUT,
            "connect_timeout": CONNECT_TIMEOUT,
            "max_retries": MAX_RETRIES,
            "ssl": None if self._fault.does == "untrusted" else self.certificates.trusting,
        }

    def __enter__(self):
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        if self._fault.where == "port":
            self.clock.between = self._open_late  # until then nobody listens
        else:
            self._grounds.run(self._open())
        return self

    def __exit__(self, *exc_info):
        self._grounds.run(self._stack.aclose())
        self._socket.close()

    def look_up(self, host, *args, **kwargs):
        """What stands in for `socket.getaddrinfo`: it does not know the host at first."""
        if host == NOWHERE:
            if self.strikes():
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = "127.0.0.1"
        return getaddrinfo(host, *args, **kwargs)

    def strikes(self):
        """Whether the fault happens this time."""
        self._left -= 1
        return self._left >= 0

    def until_asked(self):
        """Wait until the server has read a request."""
        self._grounds.run(self.server.until(lambda: self.server.requests))

    def until_all_is_closed(self):
        """Wait until the client holds no connection to the server any more."""
        if self.server is not None:
            self._grounds.run(self.server.until(lambda: not self.server.open))

    async def _open(self):
        self.server = await self._stack.enter_async_context(serve(self._handle, sock=self._socket))

    async def _open_late(self):
        # Between two attempts, the first of which found nobody listening.
        self._left -= 1
        if self._left == 0:
            await self._grounds.await_(self._open())

    async def _handle(self, server, wire):
        where = self._fault.where
        if where == "tls" and not await self._handshake(wire):
            return
        while True:
            request = await wire.request()
            server.requests.append(request)
            server.note()
            if where not in {"reply", "used"}:
                await wire.send(http())
            elif self._idle:
                self._idle = False
                await wire.send(http())
            elif not self.strikes():
                await wire.send(http())
            elif not await self._fault.does(wire, request, self):
                return

    async def _handshake(self, wire):
        """Speak TLS as the fault has it; whether there is a connection then."""
        does = self._fault.does if self.strikes() else "right"
        if does == "no answer":
            self.clock.advance(CONNECT_TIMEOUT)
            await wire.reader.read()
            return False
        if does == "plain":
            await wire.reader.read(1)
            await wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return False
        try:
            await wire.writer.start_tls(self.certificates.context(does))
        except (OSError, ssl.SSLError):
            return False
        return True


@attrs.frozen
class Outcome:
    """What came of a call, as the caller and the server saw it."""

    raised: type[Exception] | None
    kind: str | int | None
    attempts: int
    requests: int
    waits: tuple[float, ...]
    held: int
    """Connections that the client still holds as in use."""


def expected(fault, times):
    """What comes of a call whose first `times` attempts meet the fault."""
    if fault.where == "used":
        times -= 1  # a stale connection is replaced without costing an attempt
    can_retry = fault.raises is not None and fault.waits is not NEVER
    retries = min(times, MAX_RETRIES) if can_retry else 0
    attempts = retries + 1
    fails = fault.raises is not None and times >= attempts
    seen = attempts
    if fault.where in {"tls", "port", "name"}:
        seen -= min(times, attempts)  # these never came as far as a request
    if fault.where == "used":
        seen += 2  # the one that made the connection, and the one on the stale connection
    return Outcome(
        raised=fault.raises if fails else None,
        kind=fault.kind if fails else None,
        attempts=attempts,
        requests=seen,
        waits=fault.waits[:retries],
        held=0,
    )


@attrs.define
class Call:
    """A call of a cell: what came of it, and what it left to be hunted through."""

    outcome: Outcome
    error: Exception | None
    result: object
    attempts: list


METHODS = {
    "create": lambda sessions: sessions.create(user="user_123", workflow="wf_123"),
    "cancel": lambda sessions: sessions.cancel("cksess_123"),
}


def asynchronous(cell, method, *, debug=False, **settings):
    """Make a cell's call with AsyncChatKit; with `debug`, the loop logs every callback."""

    async def main():
        attempts = []
        options = {**cell.settings, "on_attempt": attempts.append, **settings}
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0  # of the debug mode: what takes longer is logged
        cell.clock.govern(loop)
        async with AsyncChatKit(**options) as client:
            client._attempts.seam = cell.clock.seam
            if cell._idle:
                await METHODS[method](client.sessions)
                attempts.clear()
            error = result = None
            try:
                result = await METHODS[method](client.sessions)
            except Exception as raised:
                error = raised
            outcome = _outcome(cell, client, error, attempts)
        return Call(outcome, error, result, attempts)

    with asyncio.Runner(debug=debug) as runner:
        return runner.run(main())


def blocking(cell, method, *, debug=False, **settings):
    """Make a cell's call with ChatKit; with `debug`, its loop logs every callback."""
    attempts = []
    options = {**cell.settings, "on_attempt": attempts.append, **settings}
    with ChatKit(**options) as client:
        client._client._attempts.seam = cell.clock.seam
        loop = loop_of(client)
        loop.set_debug(debug)
        loop.slow_callback_duration = 0
        cell.clock.govern(loop)
        if cell._idle:
            METHODS[method](client.sessions)
            attempts.clear()
        error = result = None
        try:
            result = METHODS[method](client.sessions)
        except Exception as raised:
            error = raised
        outcome = _outcome(cell, client._client, error, attempts)
    return Call(outcome, error, result, attempts)


def loop_of(client):
    """The event loop that serves a blocking client."""

    async def running_loop():
        return asyncio.get_running_loop()

    return client._loop_thread.run(running_loop)


def _outcome(cell, client, error, attempts):
    opened = client._attempts.transport._opened.values()
    return Outcome(
        raised=None if error is None else type(error),
        kind=getattr(error, "kind", getattr(error, "status_code", None)),
        attempts=len(attempts),
        requests=0 if cell.server is None else len(cell.server.requests),
        waits=tuple(round(wait, 6) for wait in cell.clock.waits),
        held=sum(len(session.connector._acquired) for session, _ in opened),
    )
