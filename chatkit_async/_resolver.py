"""Looks host names up, so that nothing waits for a name server longer than it wants to.

asyncio looks names up in a pool of threads, which the end of the loop and of the process wait for,
and no timeout of aiohttp's bounds a look-up alone.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar

from aiohttp.abc import AbstractResolver, ResolveResult

from chatkit_async.errors import ChatKitError

look_up_limit: ContextVar[float | None] = ContextVar("look_up_limit", default=None)
"""Seconds that a look-up of the call that is sent from here may take. None: no limit."""

_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

# Only addresses of a kind that this machine has; some systems do not know the flag.
_USABLE = socket.AI_ADDRCONFIG & getattr(socket, "AI_MASK", socket.AI_ADDRCONFIG)


class _NoThreadError(ChatKitError, RuntimeError):
    """No daemon thread can be started, as in an isolated subinterpreter."""


def start_thread(target: Callable[..., object], *args: object, name: str) -> None:
    """Start a daemon thread.

    Raises:
        ChatKitError: Python cannot start it. It is a RuntimeError too.
    """
    try:
        threading.Thread(target=target, args=args, name=name, daemon=True).start()
    except RuntimeError as error:
        reason = str(error)
    else:
        return
    raise _NoThreadError(
        f"no thread could be started: {reason}. Isolated subinterpreters do not allow the threads "
        "that this package needs: use ThreadPoolExecutor or ProcessPoolExecutor instead"
    )


class Resolver(AbstractResolver):
    """A resolver that looks each name up in a daemon thread."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            TimeoutError: The look-up took longer than `look_up_limit`.
            OSError: There are none.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def look_up() -> None:
            addresses: list[ResolveResult] = []
            failure: Exception | None = None
            try:
                addresses = _addresses(host, port, family)
            except Exception as error:  # noqa: BLE001 - raised on the loop
                failure = error
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(finish, addresses, failure)

        def finish(addresses: list[ResolveResult], failure: Exception | None) -> None:
            if found.done():
                return  # nobody waits any more
            if failure is None:
                found.set_result(addresses)
            else:
                found.set_exception(failure)

        start_thread(look_up, name="chatkit-async-dns")
        async with asyncio.timeout(look_up_limit.get()):
            return await found

    async def close(self) -> None:
        """Leave look-ups that are in progress to their threads."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    # Without a network, the flag would leave no address of this machine itself.
    flags = 0 if host.rstrip(".").lower() == "localhost" else _USABLE
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=flags)
    return [
        ResolveResult(
            hostname=host,
            host=socket.getnameinfo(address, _NUMERIC)[0],  # with the zone of a link-local one
            port=port,
            family=kind,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, protocol, _, address in found
    ]
