"""A request as it was received: the form of its target, and its body within bounds."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, web
from attrs import define
from multidict import CIMultiDict, CIMultiDictProxy

from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._json import JSON, parse_json
from chatkit_async.emulator._routes import Operation, route

if TYPE_CHECKING:
    from aiohttp.http_parser import RawRequestMessage

BODY_PATIENCE = 60.0
"""Seconds in which the body of a request has to arrive."""

_ABSOLUTE_FORM = re.compile(r"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@define(kw_only=True, eq=False)
class Request:
    """A request as it was received, with credentials. A `Record` keeps an excerpt without them."""

    connection: int
    received_at: float
    id: str
    method: str
    path: str
    query: str
    headers: CIMultiDictProxy[str]
    operation: Operation | None
    session_id: str | None
    """The id in the path of a cancel, decoded."""
    thread_id: str | None
    """The id in the path of a thread, decoded."""
    content: bytes = b""
    """The body, decompressed; empty if it was refused."""
    value: JSON | bytes = b""
    """The JSON value in the body, or the body itself if it is not JSON."""
    problem: ApiError | None = None
    """The reason why the body was refused."""

    @classmethod
    def of(
        cls,
        raw: web.BaseRequest,
        *,
        request_id: str,
        connection: int,
        received_at: float,
    ) -> Request:
        """Return the request whose head aiohttp has read."""
        path, _, query = raw.raw_path.partition("?")
        operation, subject = route(raw.method, path)
        return cls(
            connection=connection,
            received_at=received_at,
            id=request_id,
            method=raw.method,
            path=path,
            query=query,
            headers=raw.headers,
            operation=operation,
            session_id=subject if operation == "cancel" else None,
            thread_id=None if operation == "cancel" else subject,
        )

    async def receive(self, raw: web.BaseRequest, max_body: int) -> None:
        """Read the body, or note as `problem` why it is refused."""
        try:
            self.content = await read_body(raw, max_body)
        except ApiError as problem:
            self.problem = problem
        else:
            self.value = parse_json(self.content)


def in_origin_form(message: RawRequestMessage) -> RawRequestMessage:
    """Return a request with a path as its target, also if it was sent as to a proxy, with a URL.

    The URL's host replaces `Host`: RFC 9112, section 3.2.2.
    """
    match = _ABSOLUTE_FORM.fullmatch(message.path)
    if match is None:
        return message
    host, target = match.groups()
    headers = CIMultiDict(message.headers)
    headers["Host"] = host
    path = target if target.startswith("/") else f"/{target}"
    return message._replace(path=path, headers=CIMultiDictProxy(headers))


async def read_body(raw: web.BaseRequest, max_size: int) -> bytes:
    """Read a request's body and decompress it.

    Raises:
        ApiError: 413 for a body of more than `max_size` bytes after decompression, 400 for one
            that is not in its `Content-Encoding`, 408 for one that does not arrive in time.
    """
    if (raw.content_length or 0) > max_size:
        raise _too_large(max_size)
    expected = raw.headers.get("Expect", "").lower()
    if expected == "100-continue" and raw.version >= HttpVersion11:
        await raw.writer.write(_CONTINUE)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_PATIENCE):
            # Not read(): that decompresses without a bound.
            async for chunk in raw.content.iter_any():
                body += chunk
                if len(body) > max_size:
                    raise _too_large(max_size)
    except web.RequestPayloadError:
        message = "The request's body is not in its Content-Encoding."
        raise ApiError(400, message, code="invalid_content_encoding") from None
    except TimeoutError:
        message = f"The request's body did not arrive within {BODY_PATIENCE:g} seconds."
        raise ApiError(408, message, code="request_timeout") from None
    return bytes(body)


def _too_large(max_size: int) -> ApiError:
    message = f"The request's body is too large: expected at most {max_size} bytes."
    return ApiError(413, message, code="request_too_large")
