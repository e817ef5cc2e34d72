"""Everything the package uses of aiohttp's client beyond aiohttp's documentation.

aiohttp's pool hands out a kept-alive connection whatever came in on it while it was idle, and takes
those bytes for the reply to the next request. From then on every reply on that connection belongs
to the request before, so that one user is given another user's secret. `Connector` uses no such
connection again.
"""

import asyncio
import logging
import os
import select
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import aiohttp

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.http_parser import HttpParser
    from aiohttp.tracing import Trace

_logger = logging.getLogger("chatkit_async")


class Connector(aiohttp.TCPConnector):
    """A pool that reuses a connection only if nothing is left to read on it.

    In a forked child it counts as closed, and is left alone: its connections are the parent's, and
    closing them would take them off the selector, which the two processes share.

    Args:
        limit: Connections open at a time.
        keepalive_timeout: Seconds an idle connection is kept.
        on_connection: Called for each request that got a connection, with True if that
            connection was used before.
        resolver: Looks names up. None: aiohttp's own.
    """

    def __init__(
        self,
        *,
        limit: int,
        keepalive_timeout: float,
        on_connection: Callable[[bool], None],
        resolver: "AbstractResolver | None" = None,
    ) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType] - of aiohttp
            limit=limit, keepalive_timeout=keepalive_timeout, resolver=resolver
        )
        self._on_connection = on_connection
        self._generation = 0
        self._generations = WeakKeyDictionary["ResponseHandler", int]()
        self._pid = os.getpid()

    @property
    def closed(self) -> bool:
        return super().closed or self._pid != os.getpid()

    def __del__(self, *_: object) -> None:
        if self._pid == os.getpid():
            super().__del__()

    async def connect(
        self, req: "ClientRequest", traces: "list[Trace]", timeout: aiohttp.ClientTimeout
    ) -> "Connection":
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = cast("ResponseHandler", connection.protocol)  # until it is released
            generation = self._generations.get(protocol)
            if generation is None:
                self._generations[protocol] = self._generation
                break
            if generation == self._generation and not _has_unread(protocol):
                break
            connection.close()
        self._on_connection(generation is not None)
        return connection

    def retire(self) -> None:
        """Reuse no connection that is open now."""
        self._generation += 1


def _has_unread(protocol: "ResponseHandler") -> bool:
    """Return True if a connection received anything after its last reply.

    aiohttp may hold it as whole replies, or its parser as the beginning of one; or the operating
    system holds it until the event loop reads it. So does the end of a connection.
    """
    try:
        if protocol.should_close:
            return True
        # It is connected, and so it has both.
        parser = cast("HttpParser[Any]", protocol._parser)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        transport = cast("asyncio.Transport", protocol.transport)
        feed_eof = parser.feed_eof
    except AttributeError:
        _warn_of_no_reuse()
        return True
    try:
        begun = feed_eof()
    except Exception:  # noqa: BLE001 - whatever it says, something is there that is no reply
        return True
    # Only aiohttp's parser in pure Python has `_lines`, and does not return what it cannot parse.
    return begun is not None or bool(getattr(parser, "_lines", ())) or _is_readable(transport)


def _is_readable(transport: asyncio.Transport) -> bool:
    """Return True if the operating system has something of a connection for the loop to read."""
    sock = transport.get_extra_info("socket")
    descriptor = None if sock is None else sock.fileno()
    if not isinstance(descriptor, int):  # a connection in memory
        return False
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


@cache
def _warn_of_no_reuse() -> None:
    _logger.warning(
        "Connections are not reused, because aiohttp %s does not show whether a connection has "
        "unread data. Upgrade chatkit-async, or use aiohttp 3.14.5.",
        aiohttp.__version__,
    )


def close_idle_connections(session: aiohttp.ClientSession) -> None:
    """Close the idle connections of a session. A `Connector` reuses none that is in use."""
    connector = session.connector
    if isinstance(connector, Connector):
        connector.retire()
    for idle in getattr(connector, "_conns", {}).values():
        for protocol, _ in idle:
            protocol.close()


def close_at_once(session: aiohttp.ClientSession) -> None:
    """Close a session's connections without waiting for their ends."""
    closing = session.close()
    with suppress(StopIteration):
        closing.send(None)
    closing.close()


def retry_nothing(session: aiohttp.ClientSession) -> None:
    """Keep a session from repeating a GET or a DELETE, which it does within one attempt."""
    session._retry_connection = False  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def loop_of(session: aiohttp.ClientSession) -> asyncio.AbstractEventLoop | None:
    """Return the loop that a session was made in. Its own property for that is deprecated."""
    return getattr(session, "_loop", None)
