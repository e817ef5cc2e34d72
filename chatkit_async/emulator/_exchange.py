"""The way of a request through the emulator: received, answered, changed by a fault, sent."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import sys
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDict

from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._ledger import Record, record_of
from chatkit_async.emulator._readers import parse_fault
from chatkit_async.emulator._replies import Reply, error_body, refusal
from chatkit_async.emulator._request import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatkit_async.emulator._changes import Changes
    from chatkit_async.emulator._faults import Drop, Fault
    from chatkit_async.emulator._service import Service
    from chatkit_async.emulator._state import State

_FAULT = "X-Emulator-Fault"
_ECHOED = ("OpenAI-Organization", "OpenAI-Project")
_CAPTURED_HEADERS = {
    "openai-version": "2020-10-01",
    "x-openai-proxy-wasm": "v0.1",
    "cf-cache-status": "DYNAMIC",
    "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
    "alt-svc": 'h3=":443"; ma=86400',
}
_LAST_SECOND = 253_402_300_799  # of the year 9999

# Linger on, for 0 seconds: closing then resets the connection. The struct differs on Windows.
_LINGER_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class Exchange:
    """Takes each request from its arrival to its outcome."""

    def __init__(
        self,
        state: State,
        service: Service,
        changes: Changes,
        *,
        max_body: int,
        on_request: Callable[[Record], object] | None,
    ) -> None:
        self._state = state
        self._service = service
        self._changes = changes
        self._max_body = max_body
        self._on_request = on_request

    async def run(
        self, raw: web.BaseRequest, connection: int, transport: asyncio.Transport
    ) -> web.StreamResponse:
        """Answer a request on a connection, and note it in the ledger.

        When the client closes the connection, aiohttp cancels this at any point.
        """
        arrived = asyncio.get_running_loop().time()
        request = Request.of(
            raw,
            request_id=self._state.new_request_id(),
            connection=connection,
            received_at=self._state.clock.now(),
        )
        record: Record | None = None
        try:
            await request.receive(raw, self._max_body)
            user = None if request.problem is not None else self._service.user_of(request)
            reply, fault = self._reply(request, user)
            record = record_of(request, reply, user, fault)
            self._note(record)
            delay = self._state.draw_latency()
            await _sleep(delay if fault is None else delay + fault.delay)
            if fault is not None and fault.drop is not None:
                return _drop(transport, record, fault.drop)
            elapsed = asyncio.get_running_loop().time() - arrived
            headers = self._headers(request, elapsed)
            headers.update(reply.headers)
            return await _send(raw, record, reply, headers, fault)
        except asyncio.CancelledError:
            if record is None:  # the client left before the body was whole
                record = record_of(request, Reply(), None, None)
                self._note(record)
            record.outcome = "client_gone"
            raise
        finally:
            self._changes.announce()
            if record is not None and self._on_request is not None:
                self._on_request(record)

    def answer_garbage(self, status: int) -> web.Response:
        """Return the reply to what is not an HTTP request. No ledger has it."""
        body = error_body(status, "This is not an HTTP request.")
        headers = {
            "Content-Type": "application/json",
            "x-request-id": self._state.new_request_id(),
        }
        return web.Response(status=status, body=body, headers=headers)

    def _reply(self, request: Request, user: str | None) -> tuple[Reply, Fault | None]:
        if request.problem is not None:
            return self._service.answer(request), None
        try:
            fault = self._fault(request, user)
        except ApiError as error:
            message = f"{_FAULT}: {error.message}"
            return refusal(ApiError(400, message, code="invalid_emulator_fault")), None
        if fault is None:
            return self._service.answer(request), None
        reply = Reply() if fault.spares_service else self._service.answer(request)
        return fault.bend(reply), fault

    def _fault(self, request: Request, user: str | None) -> Fault | None:
        asked = request.headers.get(_FAULT)
        if asked is None:
            return self._state.faults.take(request, user)
        fault = parse_fault(asked)
        if fault.times is not None or fault.every != 1:
            raise ApiError(400, "times and every count requests: a request cannot ask for them.")
        return fault if fault.fits(request, user) and self._state.faults.strikes(fault) else None

    def _note(self, record: Record) -> None:
        self._state.requests.append(record)
        self._changes.announce()

    def _headers(self, request: Request, elapsed: float) -> CIMultiDict[str]:
        milliseconds = str(round(elapsed * 1000))
        headers = CIMultiDict(
            {
                "Content-Type": "application/json",
                "Date": _http_date(int(self._state.clock.now())),
                "x-request-id": request.id,
                "openai-processing-ms": milliseconds,
                "x-envoy-upstream-service-time": milliseconds,
                "cf-ray": f"{request.id[4:20]}-LHR",
                **_CAPTURED_HEADERS,
            }
        )
        for name in _ECHOED:
            value = request.headers.get(name)
            if value is not None and value.isascii():  # other text may not be fit to be sent
                headers[name.lower()] = value
        return headers


@lru_cache(maxsize=1)  # of many replies in one second
def _http_date(second: int) -> str:
    """Return a time for a header, which has no later year than 9999."""
    return formatdate(min(max(second, 0), _LAST_SECOND), usegmt=True)


async def _sleep(delay: float) -> None:
    if math.isinf(delay):  # not every loop can schedule it
        await asyncio.get_running_loop().create_future()
    elif delay:
        await asyncio.sleep(delay)


def _drop(transport: asyncio.Transport, record: Record, how: Drop) -> web.StreamResponse:
    record.outcome = "dropped"
    if how == "reset":
        connection = transport.get_extra_info("socket")
        # A socket in memory, as with virtual time, cannot be reset, only closed.
        if isinstance(connection.fileno(), int):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    transport.abort()
    return web.Response()  # aiohttp needs one, and does not send it


async def _send(
    raw: web.BaseRequest,
    record: Record,
    reply: Reply,
    headers: CIMultiDict[str],
    fault: Fault | None,
) -> web.StreamResponse:
    # Set first, because a client in another thread may have the reply before this continues.
    record.status = reply.status
    record.outcome = "sent"
    try:
        if fault is not None and (fault.cut or fault.drip):
            return await _send_slowly(raw, record, reply, headers, fault)
        response = web.Response(status=reply.status, headers=headers, body=reply.body)
        await response.prepare(raw)
        await response.write_eof()
    except ConnectionError:
        record.outcome = "client_gone"
        return web.Response()
    return response


async def _send_slowly(
    raw: web.BaseRequest,
    record: Record,
    reply: Reply,
    headers: CIMultiDict[str],
    fault: Fault,
) -> web.StreamResponse:
    body = reply.body
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.content_length = len(body)
    if fault.cut:
        record.outcome = "cut"
        response.content_length = max(len(body), 1)
        body = body[: len(body) // 2]
    await response.prepare(raw)
    if fault.drip:
        for byte in body:
            await _sleep(fault.drip)
            await response.write(bytes([byte]))
    else:
        await response.write(body)
    if fault.cut:
        response.force_close()  # only now, so that no header announces it
    await response.write_eof()
    return response
