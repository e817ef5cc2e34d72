"""aiohttp: sends a request and reads its reply, on one session per event loop."""

import asyncio
import threading
import zlib
from collections.abc import AsyncGenerator, Mapping, MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from http import HTTPStatus
from io import BytesIO
from math import inf
from ssl import SSLContext
from sys import maxsize
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from chatkit_async._aiohttp import (
    Connector,
    close_at_once,
    close_idle_connections,
    loop_of,
    retry_nothing,
)
from chatkit_async._cancellation import run_to_end
from chatkit_async._checks import described
from chatkit_async._failures import diagnosis, failure, had_connection
from chatkit_async._fork import leave_to_parent
from chatkit_async._protocol import Flaw, Reply
from chatkit_async._resolver import Resolver, look_up_limit
from chatkit_async.errors import APIError, APIStatusError, ChatKitError, ClientClosedError, Problem
from chatkit_async.models._base import ReplyObject
from chatkit_async.secret import Secret

MAX_REPLY = 4 * 1024 * 1024
"""Bytes of a reply's body that are read, after decompression. A session has some 1,000."""

KEEP_ALIVE = 60.0
"""Seconds an idle connection is kept."""

MAX_ERROR_REPLY = 64 * 1024
"""Bytes of an error's body that are read."""

_MAX_HEADER = 64 * 1024
"""Bytes of a reply's status line and of each header. aiohttp's default, 8,190, is too small for
the cookies and policies that some gateways add."""

_STALE_WITHIN = 0.5
"""Seconds in which a connection fails that was closed while it was idle. One that holds for longer
was open, and the server may have acted on the request."""

_MAX_PLAIN_BODY = 512 * 1024
"""Bytes of a body that are written at once; a larger one in pieces, so that the loop stays free."""


@attrs.frozen
class Link:
    """The settings of a client's requests that can differ between clients that share connections."""

    connect_timeout: float | None
    proxy: Secret | None = None
    ssl: SSLContext | None = None
    arguments: Mapping[str, Any] = attrs.field(init=False, repr=False)
    proxy_headers: Mapping[str, str] | None = attrs.field(init=False, repr=False)
    login: tuple[Secret, ...] = attrs.field(init=False, repr=False)
    """The secrets for the proxy alone: user and password together, the password, and the header's
    base64 of both. Without a password the user name is the secret."""

    def __attrs_post_init__(self) -> None:
        # The limits of a whole attempt are the client's; see `AsyncChatKit`.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.connect_timeout)
        arguments: dict[str, Any] = {
            "allow_redirects": False,
            "raise_for_status": False,
            "max_line_size": _MAX_HEADER,
            "max_field_size": _MAX_HEADER,
            # Which encodings aiohttp decodes depends on the packages that are installed, and for
            # the others it raises without the status.
            "auto_decompress": False,
            "timeout": timeout,
        }
        url, headers, login = _without_password(self.proxy) if self.proxy else (None, None, ())
        if url is not None:
            arguments |= {"proxy": url, "proxy_headers": headers}
        if self.ssl is not None:
            arguments["ssl"] = self.ssl
        object.__setattr__(self, "arguments", arguments)
        object.__setattr__(self, "proxy_headers", headers)
        object.__setattr__(self, "login", login)


def _without_password(
    proxy: Secret,
) -> tuple[URL, Mapping[str, str] | None, tuple[Secret, ...]]:
    """Move a proxy's user and password from its URL to a masked header, and say what they are."""
    parts = urlsplit(proxy)
    host = parts.netloc.rpartition("@")[2]
    url = URL(urlunsplit(parts._replace(netloc=host)))
    if parts.username is None:
        return url, None, ()
    user, password = unquote(parts.username), unquote(parts.password or "")
    basic = Secret(aiohttp.encode_basic_auth(user, password))
    login = (Secret(f"{user}:{password}"), Secret(password or user), basic.removeprefix("Basic "))
    return url, {"Proxy-Authorization": basic}, tuple(map(Secret, login))


class Progress:
    """The requests of a call that were sent and answered, also when it fails or is cancelled.

    The transport writes the first two, the loop of attempts the others.

    Attributes:
        sent: Requests that got a connection.
        reused_at: When the last request got a connection that was used before, by the loop's
            clock. -inf: its connection was new.
        attempts: Attempts that were started.
        answered: Requests that were answered. The server may have acted on the others too.
        ended: Requests of attempts that have ended.
        result: The result of the attempt that succeeded.
    """

    __slots__ = ("answered", "attempts", "ended", "result", "reused_at", "sent")

    def __init__(self) -> None:
        self.sent: int = 0
        self.reused_at: float = -inf
        self.attempts: int = 0
        self.answered: int = 0
        self.ended: int = 0
        self.result: ReplyObject | None = None

    @property
    def lost(self) -> int:
        """The number of requests that were not answered."""
        return self.sent - self.answered

    @property
    def in_flight(self) -> bool:
        """True while an attempt waits for its reply."""
        return self.sent > self.ended

    def note_success(self, result: ReplyObject) -> None:
        """Note that an attempt succeeded."""
        self.result = result
        self.answered += 1
        self.ended = self.sent

    def note_failure(self, error: APIError) -> None:
        """Note that an attempt failed."""
        self.ended = self.sent
        if isinstance(error, APIStatusError) and error.status_code not in _GATEWAY_STATUSES:
            self.answered += 1


_GATEWAY_STATUSES = {HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT, 520, 522, 524}
"""Statuses of a gateway that got no reply from the API: the request may have been acted on.

Those above 511 are Cloudflare's. With its other ones the request did not get through.
https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/
"""


class Transport:
    """The sessions of a client: one per event loop, opened on first use.

    A session ends with its loop: `asyncio.run` finalizes the asynchronous generator that holds it.
    So a client can outlive a loop, and serve several at once.
    """

    def __init__(
        self, *, max_connections: int, http_session: aiohttp.ClientSession | None = None
    ) -> None:
        self._max_connections = max_connections
        self._borrowed = http_session
        self._opened: dict[
            asyncio.AbstractEventLoop,
            tuple[aiohttp.ClientSession, AsyncGenerator[aiohttp.ClientSession]],
        ] = {}
        self._timers: dict[asyncio.AbstractEventLoop, Timers] = {}
        self.closed: bool = False

    def after_fork(self) -> None:
        """In a forked child, leave to the parent what is its own: its loops do not run here."""
        leave_to_parent(self._opened, self._timers)
        self._opened, self._timers = {}, {}

    @property
    def is_open(self) -> bool:
        """True if there is anything to close."""
        # Not whether a session is closed: the garbage collector may have got there before.
        return not self.closed and bool(self._opened)

    @property
    def capacity(self) -> int:
        """Number of connections that may be open at a time, in each loop."""
        if self._borrowed is None:
            return self._max_connections
        connector = self._borrowed.connector
        limits = [] if connector is None else [connector.limit, connector.limit_per_host]
        return min((limit for limit in limits if limit), default=maxsize)  # 0: no limit

    async def send(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        link: Link,
        progress: Progress,
    ) -> Reply:
        """Send a request and read its reply.

        A connection that the server had closed while it was idle is replaced at once. Such a
        connection fails as soon as it is used, and without a byte of an answer. `progress`
        counts both requests: a server that fails like this may have acted on the first.

        Raises:
            APIConnectionError: no reply came.
            ClientClosedError: the client, or the session it borrowed, is closed.
        """
        if link.proxy_headers and url.scheme == "http":
            # There is no CONNECT to carry them: the proxy reads the request itself.
            headers = CIMultiDict(headers)
            headers.update(link.proxy_headers)
        may_be_stale = True
        while True:
            session = self._session()
            progress.reused_at = -inf
            _progress.set(progress)
            look_up_limit.set(link.connect_timeout)
            sent_before = progress.sent
            if session is self._borrowed:
                progress.sent += 1  # its connector does not tell
            try:
                response = await session.request(
                    method,
                    url,
                    # A payload is used up by an attempt.
                    data=BytesIO(body) if body and len(body) > _MAX_PLAIN_BODY else body,
                    headers=headers,
                    **link.arguments,
                )
            except (aiohttp.ClientError, OSError, UnicodeError) as error:
                if may_be_stale and _is_stale(error, progress.reused_at):
                    may_be_stale = False  # once: the loop has noticed by now what else was closed
                    continue
                if session is self._borrowed and not had_connection(error):
                    progress.sent = sent_before
                connected = progress.sent > sent_before
                failed = failure(error, url, proxied=link.proxy is not None, connected=connected)
                if failed.kind == "certificate":
                    progress.sent = sent_before  # refused before it was read
            else:
                return await _read(response)
            try:
                raise failed
            finally:
                del failed  # its traceback holds this frame

    def timers(self) -> "Timers":
        """Return the timers of the running loop. Closing lets them expire."""
        loop = running_loop()
        if (timers := self._timers.get(loop)) is None:
            for gone in [other for other in tuple(self._timers) if other.is_closed()]:
                self._timers.pop(gone, None)
            timers = self._timers[loop] = Timers(loop)
        return timers

    def close_idle_connections(self) -> None:
        """Close the idle connections of the running loop: a reply on one was another request's."""
        with suppress(ClientClosedError):
            close_idle_connections(self._session())

    def _session(self) -> aiohttp.ClientSession:
        """Return the session of the running loop."""
        loop = asyncio.get_running_loop()
        if self.closed:
            raise ClientClosedError
        if self._borrowed is not None and loop_of(self._borrowed) is loop:
            if self._borrowed.closed:
                raise ClientClosedError("the http_session that this client borrowed is closed")
            return self._borrowed
        if (opened := self._opened.get(loop)) is not None:
            return opened[0]
        return self._open(loop)

    def _open(self, loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
        # Loops that were closed without finalizing their generators leave their sessions here.
        for stale in [other for other in tuple(self._opened) if other.is_closed()]:
            with suppress(KeyError):  # another thread was first
                close_at_once(self._opened.pop(stale)[0])
        session = aiohttp.ClientSession(
            connector=Connector(
                limit=self._max_connections,
                keepalive_timeout=KEEP_ALIVE,
                on_connection=_note_connection,
                resolver=Resolver(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        retry_nothing(session)
        lifetime = _until_the_loop_ends(session, self._opened, loop)
        try:
            lifetime.asend(None).send(None)  # to its first yield, without a chance to be cancelled
        except StopIteration:
            self._opened[loop] = (session, lifetime)
        return session

    async def close(self) -> None:
        """Close every session of its own. Calls in flight fail.

        A cancellation meanwhile takes effect when the sessions of this loop are closed. Those of
        other loops are told to close by then, and only the wait for them is cut short.
        """
        here = running_loop()
        self.closed = True
        loops = {*self._timers, *self._opened}
        others = [(loop, self._close_over_there(loop)) for loop in loops - {here}]
        if here in loops:
            await run_to_end(self._close_here(here))
        for loop, closed in others:
            while loop.is_running() and not closed.is_set():  # noqa: ASYNC110 - a loop's end sets no event
                await asyncio.sleep(0.01)

    async def _close_here(self, here: asyncio.AbstractEventLoop) -> None:
        self.timers().expire()
        # The timers come first: closing cancels what waits for a connection.
        await asyncio.sleep(0)
        if (opened := self._opened.get(here)) is not None:
            await opened[1].aclose()

    def _close_over_there(self, loop: asyncio.AbstractEventLoop) -> threading.Event:
        """Have another loop close its session. Return what is set when that is done.

        No task does it: a loop that is about to end would not wait for one.
        """
        closed = threading.Event()

        def end_calls() -> None:
            self.timers().expire()
            loop.call_soon(close)

        def close() -> None:
            if (opened := self._opened.get(loop)) is not None:
                close_at_once(opened[0])
            closed.set()

        try:
            loop.call_soon_threadsafe(end_calls)
        except RuntimeError:  # it is closed: nothing runs there any more
            close()
        return closed


class Timers:
    """The timers of the attempts and waits in progress in a loop, for `async with`.

    One alarm serves them all. It is set for the earliest end, and stays set when that one is over:
    an alarm for each attempt, which hardly ever goes off, takes 6% of a call.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ends: dict[asyncio.Timeout, float] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._rings_at = inf

    def __len__(self) -> int:
        return len(self._ends)

    def start(self, seconds: float | None) -> asyncio.Timeout:
        """Return a timer that expires after so many seconds. None: only closing ends it."""
        timer = asyncio.timeout(None)
        self._ends[timer] = end = inf if seconds is None else self._loop.time() + seconds
        if end < self._rings_at:
            self._ring_at(end)
        return timer

    def stop(self, timer: asyncio.Timeout) -> None:
        """Forget a timer: what it bounded is over."""
        del self._ends[timer]

    def expire(self) -> None:
        """Let every timer expire."""
        self._ring(inf)

    def _ring(self, until: float) -> None:
        for timer, end in self._ends.items():
            if end <= until:
                self._ends[timer] = inf
                with suppress(RuntimeError):  # it has ended on its own
                    timer.reschedule(self._loop.time())
        self._ring_at(min(self._ends.values(), default=inf))

    def _ring_at(self, end: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._rings_at = end
        self._alarm = None if end == inf else self._loop.call_at(end, self._ring, end)


class _NoLoopError(ChatKitError, RuntimeError):
    """A call was made where no asyncio event loop runs, such as under trio."""


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        ChatKitError: There is none, as under trio. It is a RuntimeError too.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    raise _NoLoopError(
        "AsyncChatKit needs a running asyncio event loop, and there is none here: aiohttp, which "
        "sends its requests, works with asyncio only. Under trio, use ChatKit in a thread: "
        "await trio.to_thread.run_sync(...)"
    )


def not_picklable(cls: type[object]) -> TypeError:
    """Return the error for pickling an object of this class, which holds connections."""
    return TypeError(
        f"{cls.__name__} holds connections and cannot be pickled: make one per process"
    )


def session_problems(session: object) -> list[Problem]:
    """Return the reasons why requests cannot be sent through a borrowed session."""
    # A mock of a session has no loop.
    if isinstance(session, aiohttp.ClientSession) and loop_of(session) is not None:
        return []
    return [("http_session", f"must be an aiohttp.ClientSession, got {described(session)}")]


async def _until_the_loop_ends(
    session: aiohttp.ClientSession,
    opened: MutableMapping[asyncio.AbstractEventLoop, Any],
    loop: asyncio.AbstractEventLoop,
) -> AsyncGenerator[aiohttp.ClientSession]:
    try:
        yield session
    finally:
        opened.pop(loop, None)
        await session.close()


def _note_connection(reused: bool) -> None:  # noqa: FBT001 - a callback's only argument
    """Note on the progress of the call that is sent from here that its request can go out."""
    progress = _progress.get()
    progress.sent += 1
    if reused:
        progress.reused_at = asyncio.get_running_loop().time()


_progress: ContextVar[Progress] = ContextVar("_progress")
"""The progress of the call that is sent in this context."""


def _is_stale(error: Exception, reused_at: float) -> bool:
    """Return True if a connection failed as one does that the server closed while it was idle."""
    if asyncio.get_running_loop().time() - reused_at > _STALE_WITHIN:
        return False
    if isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str):
        return False  # the message is the part of an answer that was read
    return diagnosis(error)[0] in {"disconnected", "reset"}


# Replies ------------------------------------------------------------------------------------------


async def _read(response: aiohttp.ClientResponse) -> Reply:
    """Read a reply's body, up to the cap."""
    content = b""
    flaw: Flaw | None = None
    try:
        content, flaw = await _body(response)
    except (aiohttp.ClientError, OSError):
        # Whatever ended it, there is a status, and it counts for more.
        flaw = "truncated"
    return Reply(status=response.status, headers=response.headers, content=content, flaw=flaw)


async def _body(response: aiohttp.ClientResponse) -> tuple[bytes, Flaw | None]:
    length = response.content_length
    most = MAX_REPLY if response.ok else MAX_ERROR_REPLY
    if length is not None and length <= most:
        content = await response.read()  # which closes it if it fails
    else:
        body = bytearray()
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > most:
                    return bytes(body[:most]), "too_large"
        finally:
            # What was read to its end has gone back to the pool by now; anything else is closed.
            response.close()
        content = bytes(body)
    if "Content-Encoding" not in response.headers:
        return content, None
    return _decoded(content, ",".join(response.headers.getall("Content-Encoding")), most)


def _decoded(content: bytes, encodings: str, most: int) -> tuple[bytes, Flaw | None]:
    """Decode a body that was encoded although no encoding was asked for.

    There are three cases: no encoding, one that zlib decodes, and any other. Some servers put a
    charset there, so a JSON object under an unknown encoding is left as it is.
    """
    match [name for text in encodings.lower().split(",") if (name := text.strip()) != "identity"]:
        case [] | [""]:
            return content, None
        case ["gzip" | "x-gzip"]:
            return _inflated(content, _GZIP, most)
        case ["deflate"]:
            # With zlib's header, as the standard says, or without, as some servers do.
            has_header = content[:1] and content[0] & 0xF == zlib.DEFLATED
            return _inflated(content, zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS, most)
        case _ if content.lstrip(b" \t\r\n").startswith(b"{"):
            return content, None
        case _:
            return b"", "encoding"


_GZIP = 16 + zlib.MAX_WBITS
"""zlib's `wbits` for gzip: https://docs.python.org/3/library/zlib.html#zlib.decompressobj"""

_MAX_GZIP_MEMBERS = 100
"""Members of a body in gzip that are read: each of them costs a copy of those after it."""


def _inflated(content: bytes, wbits: int, most: int) -> tuple[bytes, Flaw | None]:
    """Inflate a body, never past the cap. One in gzip may have several members."""
    body = bytearray()
    for _ in range(_MAX_GZIP_MEMBERS if wbits == _GZIP else 1):
        if not content:
            break
        inflater = zlib.decompressobj(wbits)
        try:
            body += inflater.decompress(content, most + 1 - len(body))
        except zlib.error:
            return b"", "encoding"
        if len(body) > most:
            return bytes(body[:most]), "too_large"
        if not inflater.eof:
            # Any text can look like the start of a stream that has no header.
            return b"", "encoding" if wbits < 0 else "truncated"
        content = inflater.unused_data
    return (b"", "encoding") if content else (bytes(body), None)
