"""How a request arrives: the form of its target, and its body within bounds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, CIMultiDictProxy

from chatkit_async.emulator._errors import ApiError

if TYPE_CHECKING:
    from aiohttp.http_parser import RawRequestMessage

_ABSOLUTE_FORM = re.compile(r"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def in_origin_form(message: RawRequestMessage) -> RawRequestMessage:
    """Return a request with a path for its target, where it came as to a proxy with a whole URL.

    The URL's host takes the place of `Host`: RFC 9112, section 3.2.2.
    """
    match = _ABSOLUTE_FORM.fullmatch(message.path)
    if match is None:
        return message
    host, target = match.groups()
    headers = CIMultiDict(message.headers)
    headers["Host"] = host
    path = target if target.startswith("/") else f"/{target}"
    return message._replace(path=path, headers=CIMultiDictProxy(headers))


async def read_body(request: web.BaseRequest, max_size: int) -> bytes:
    """Read a request's body and decompress it.

    Raises:
        ApiError: 413 for a body of more than `max_size` bytes after decompression, 400 for one
            that is not in its `Content-Encoding`.
    """
    if (request.content_length or 0) > max_size:
        raise _too_large(max_size)
    expected = request.headers.get("Expect", "").lower()
    if expected == "100-continue" and request.version >= HttpVersion11:
        await request.writer.write(_CONTINUE)
    body = bytearray()
    try:
        # Not read(): that decompresses without a bound.
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > max_size:
                raise _too_large(max_size)
    except web.RequestPayloadError:
        message = "The request's body is not in its Content-Encoding."
        raise ApiError(400, message, code="invalid_content_encoding") from None
    return bytes(body)


def _too_large(max_size: int) -> ApiError:
    message = f"The request's body is too large: expected at most {max_size} bytes."
    return ApiError(413, message, code="request_too_large")
