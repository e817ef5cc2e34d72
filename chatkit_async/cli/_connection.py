"""Checks of the connection to the API: name, TLS, harmless requests, the clock."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import cast
from urllib.parse import urlsplit

import attrs

from chatkit_async._protocol import THREADS_ROUTE, WITHDRAWAL, http_date, is_invalid_url
from chatkit_async.cli._finding import Finding
from chatkit_async.cli._settings import Target
from chatkit_async.client import AsyncChatKit
from chatkit_async.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ChatKitError,
    NotFoundError,
    PermissionDeniedError,
)

NO_SUCH_SESSION = "cksess_chatkit_async_doctor"
"""Cancelling it changes nothing, and needs the key, its permissions and the path to be right."""

CLOCK_TOLERANCE = 5.0
"""Seconds. A reply's Date has whole seconds, and takes time to arrive."""


ALLOW_LIST = "https://platform.openai.com/settings/organization/security/domain-allowlist"

BROWSER = Finding(
    "browser",
    "skipped",
    "cannot be checked from here. If sessions are created, and the chat stays empty:",
    (
        f"Add your site to the domain allow-list: {ALLOW_LIST}",
        "Leave out the workflow's version: 'latest' creates sessions that do not work.",
        "Use a key of the project that the workflow belongs to.",
    ),
)


async def connection(
    target: Target, timeout: float, workflow: str | None = None
) -> AsyncIterator[Finding]:
    """Look at each step of the way to the API, up to the first that fails."""
    if target.base_url is None:
        yield Finding("connection", "skipped", "not tried, because a setting is wrong")
        return
    hop = _Hop.first(target.proxy or target.base_url, is_proxy=target.proxy is not None)
    steps = [hop.name, hop.connection, hop.tls] if hop.secure else [hop.name, hop.connection]
    for step in steps:
        finding = await step(timeout)
        yield finding
        if finding.state == "failed":
            return
    if not target.has_key:
        yield Finding("request", "skipped", "not made, because there is no key to send")
        return
    finding, headers = await _request(timeout)
    yield finding
    if headers is None:
        return
    yield await _threads(timeout, sessions_refused=finding.state == "failed")
    if (date := headers.get("Date")) is not None:
        yield clock(date, time.time())
    if finding.state == "ok" and workflow is not None:
        yield await _workflow(timeout, workflow)
    yield BROWSER


@attrs.frozen(kw_only=True)
class _Hop:
    """The first machine on the way: the API's, or a proxy."""

    host: str
    port: int
    secure: bool
    called: str
    advice: str

    @classmethod
    def first(cls, url: str, *, is_proxy: bool) -> "_Hop":
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host = parts.hostname or ""
        return cls(
            host=host,
            port=parts.port or (443 if secure else 80),
            secure=secure,
            called=f"the proxy {host}" if is_proxy else host,
            advice="Is the address of the proxy right, and is there a network?"
            if is_proxy
            else "Is there a network, and is OPENAI_BASE_URL right? If the network needs a proxy, set "
            "HTTPS_PROXY.",
        )

    async def name(self, timeout: float) -> Finding:
        """Look up the host's name."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            said = f"{self.called} was not found: {_reason(error)}"
            return Finding("name", "failed", said, (self.advice,))
        addresses = ", ".join(dict.fromkeys(str(address[4][0]) for address in found))
        return Finding("name", "ok", f"{self.called} is {addresses}")

    async def connection(self, timeout: float) -> Finding:
        """Open a connection."""
        started = time.perf_counter()
        try:
            await self._open(timeout, None)
        except OSError as error:
            said = f"{self.called} does not answer on port {self.port}: {_reason(error)}"
            return Finding("connection", "failed", said, (self.advice,))
        milliseconds = (time.perf_counter() - started) * 1000
        said = f"{self.called} answers on port {self.port}, in {milliseconds:.0f} ms"
        return Finding("connection", "ok", said)

    async def tls(self, timeout: float) -> Finding:
        """Open a connection with TLS."""
        try:
            secured = await self._open(timeout, ssl.create_default_context())
        except ssl.SSLCertVerificationError as error:
            return Finding(
                "TLS",
                "failed",
                f"the certificate of {self.called} is not trusted: {error.verify_message}",
                (
                    "Is this machine's clock right?",
                    "For your own certificate authority, set SSL_CERT_FILE to its file.",
                ),
            )
        except OSError as error:
            said = f"{self.called} does not speak TLS on port {self.port}: {_reason(error)}"
            return Finding("TLS", "failed", said, (self.advice,))
        version = cast("ssl.SSLObject", secured).version()
        return Finding("TLS", "ok", f"{version}, with a certificate that this machine trusts")

    async def _open(self, timeout: float, context: ssl.SSLContext | None) -> object:
        """Open a connection and drop it. Return its TLS object, or None."""
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(self.host, self.port, ssl=context)
        secured: object = writer.get_extra_info("ssl_object")
        writer.transport.abort()
        return secured


def _reason(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case ConnectionRefusedError():
            return "connection refused"
        case ssl.SSLError(reason=str() as reason):
            return reason.replace("_", " ").lower()
        case OSError(strerror=str() as strerror):
            return strerror
        case _:
            return str(error)


async def _request(timeout: float) -> tuple[Finding, Mapping[str, str] | None]:
    """Make the request. Return the finding, and the reply's headers if there was a reply."""
    try:
        async with AsyncChatKit(timeout=timeout, max_retries=0) as client:
            reply = await client.sessions.with_raw_response.cancel(NO_SUCH_SESSION)
    except APIStatusError as error:
        return _judged(error), error.headers
    except ChatKitError as error:
        return Finding("request", "failed", str(error)), None
    return _accepted(reply.status_code, reply.request_id), reply.headers


async def _threads(timeout: float, *, sessions_refused: bool) -> Finding:
    """Ask for one thread with the same key. Threads are private: no reply is shown."""
    try:
        async with AsyncChatKit(timeout=timeout, max_retries=0) as client:
            await client.threads.list(limit=1)
    except NotFoundError as error:
        said = "the server has no threads API at this base URL: it replied 404"
        if not is_invalid_url(error.message):
            said = f"threads cannot be read: {_status(error)}"
        return Finding("threads", "warning", said)
    except APIStatusError as error:
        return Finding("threads", "warning", f"threads cannot be read: {_status(error)}")
    except ChatKitError as error:
        return Finding("threads", "warning", f"threads cannot be read: {error}")
    if sessions_refused:
        said = "sessions are refused, but threads can be read: export them now"
        return Finding("threads", "warning", said, (WITHDRAWAL,))
    return Finding("threads", "ok", "threads can be read with this key")


def _status(error: APIStatusError) -> str:
    return f"the API replied {error.status_code} to GET {THREADS_ROUTE} (request id {error.request_id})"


async def _workflow(timeout: float, workflow: str) -> Finding:
    """Create a session of a workflow, and cancel it."""
    try:
        async with (
            AsyncChatKit(timeout=timeout, max_retries=0) as client,
            client.sessions.open(user="chatkit-async-doctor", workflow=workflow, expires_after=60),
        ):
            pass
    except NotFoundError:
        said = f"{workflow} was not found with this key"
        advice = "Is it published? Use its id and a key of the same project."
        return Finding("workflow", "failed", said, (advice, WITHDRAWAL))
    except ChatKitError as error:
        return Finding("workflow", "failed", str(error))
    return Finding("workflow", "ok", f"a session of {workflow} was created, and cancelled")


def _judged(error: APIStatusError) -> Finding:
    match error:
        case AuthenticationError() | PermissionDeniedError():
            return Finding("request", "failed", str(error), concerns_key=True)
        case NotFoundError() | BadRequestError() if _is_the_apis(error):
            return _accepted(error.status_code, error.request_id)
        case NotFoundError():
            return Finding(
                "request",
                "failed",
                "the server has no sessions API at this base URL: it replied 404",
                ("Is OPENAI_BASE_URL right? OpenAI's ends with /v1.",),
            )
        case _:
            return Finding("request", "failed", str(error))


def _is_the_apis(error: APIStatusError) -> bool:
    """Return True if the API refused the session, not the path."""
    return error.type is not None and not is_invalid_url(error.message)


def _accepted(status: int, request_id: str | None) -> Finding:
    return Finding(
        "request",
        "ok",
        f"the API accepted the key, in a request to cancel {NO_SUCH_SESSION}, which does not exist "
        f"({status}, request id {request_id})",
    )


def clock(date: str, now: float) -> Finding:
    """Compare this machine's clock with the time a server's Date header says."""
    then = http_date(date)
    if then is None:
        return Finding("clock", "skipped", "the reply has no time")
    ahead = now - then.timestamp()
    if abs(ahead) <= CLOCK_TOLERANCE:
        return Finding("clock", "ok", "this machine's clock agrees with the server's")
    direction = "ahead of" if ahead > 0 else "behind"
    return Finding(
        "clock",
        "warning",
        f"this machine's clock is {abs(ahead):.0f} seconds {direction} the server's",
        ("Set it: sessions live for minutes, and expires_in counts by this clock.",),
    )
