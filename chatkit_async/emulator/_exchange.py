"""A request's way through the emulator: noted, answered, bent by a fault, sent."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import sys
from email.utils import formatdate
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDict

from chatkit_async.emulator._arrival import read_body
from chatkit_async.emulator._credentials import masked_headers
from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._latency import Latency, draw
from chatkit_async.emulator._ledger import Ledger, Record
from chatkit_async.emulator._replies import Reply, error_body
from chatkit_async.emulator._service import Service, route

if TYPE_CHECKING:
    from collections.abc import Callable

    from multidict import CIMultiDictProxy

    from chatkit_async.emulator._changes import Changes
    from chatkit_async.emulator._clock import Clock
    from chatkit_async.emulator._faults import Drop, Fault, FaultScript

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

# Linger on, for no time: closing then resets the connection. The struct differs on Windows.
_LINGER_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class Exchange:
    """Takes each request from its arrival to its outcome."""

    def __init__(
        self,
        *,
        service: Service,
        faults: FaultScript,
        ledger: Ledger,
        changes: Changes,
        clock: Clock,
        seed: int,
        latency: Latency,
        max_body: int,
        on_request: Callable[[Record], object] | None,
    ) -> None:
        self.latency = latency
        self._service = service
        self._faults = faults
        self._ledger = ledger
        self._changes = changes
        self._clock = clock
        self._max_body = max_body
        self._on_request = on_request
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Draw request ids and latencies anew, from a seed."""
        self._random = Random(f"requests {seed}")  # noqa: S311 - repeatable on purpose
        self._latencies = Random(f"latencies {seed}")  # noqa: S311 - repeatable on purpose

    async def run(
        self, request: web.BaseRequest, connection: int, transport: asyncio.Transport
    ) -> web.StreamResponse:
        """Answer a request that came on a connection; what happens is in its record.

        When the client closes the connection, aiohttp cancels this, wherever it stands.
        """
        arrived = asyncio.get_running_loop().time()
        record = self._record(request, connection)
        try:
            try:
                record.receive(await read_body(request, self._max_body))
            except ApiError as problem:
                reply, fault = self._service.answer(record, request.headers, problem), None
            else:
                record.user = self._service.user_of(record)
                reply, fault = self._reply(record, request.headers)
            record.shrink()
            self._ledger.append(record)
            self._changes.announce()
            delay = draw(self.latency, self._latencies)
            await _sleep(delay if fault is None else delay + fault.delay)
            if fault is not None and fault.drop is not None:
                return _drop(transport, record, fault.drop)
            elapsed = asyncio.get_running_loop().time() - arrived
            headers = self._headers(record, request.headers, elapsed)
            headers.update(reply.headers)
            return await _send(request, record, reply, headers, fault)
        except asyncio.CancelledError:
            record.outcome = "client_gone"
            raise
        finally:
            if not record.number:  # it left before its body was whole
                record.shrink()
                self._ledger.append(record)
            self._changes.announce()
            if self._on_request is not None:
                self._on_request(record)

    def answer_garbage(self, status: int) -> web.Response:
        """Return the reply to what could not be read as a request, and is noted nowhere."""
        body = error_body(status, "This is no HTTP request.", param=None, code=None)
        headers = {"Content-Type": "application/json", "x-request-id": self._request_id()}
        return web.Response(status=status, body=body, headers=headers)

    def _request_id(self) -> str:
        return f"req_{self._random.getrandbits(128):032x}"

    def _record(self, request: web.BaseRequest, connection: int) -> Record:
        path, _, query = request.raw_path.partition("?")
        operation, about = route(request.method, path)
        return Record(
            connection=connection,
            received_at=self._clock.now(),
            method=request.method,
            path=path,
            query=query,
            headers=masked_headers(request.headers),
            request_id=self._request_id(),
            operation=operation,
            session_id=about if operation == "cancel" else None,
            thread_id=None if operation == "cancel" else about,
        )

    def _reply(self, record: Record, headers: CIMultiDictProxy[str]) -> tuple[Reply, Fault | None]:
        try:
            fault = self._faults.take(record, headers, headers.get(_FAULT))
        except ValueError as error:
            body = error_body(
                400, f"{_FAULT}: {error.args[0]}", param=None, code="invalid_emulator_fault"
            )
            return Reply(status=400, body=body), None
        record.fault = fault
        if fault is None:
            return self._service.answer(record, headers), None
        reply = Reply() if fault.spares_service else self._service.answer(record, headers)
        return fault.bend(reply), fault

    def _headers(
        self, record: Record, asked: CIMultiDictProxy[str], elapsed: float
    ) -> CIMultiDict[str]:
        milliseconds = str(round(elapsed * 1000))
        headers = CIMultiDict(
            {
                "Content-Type": "application/json",
                "Date": _http_date(int(self._clock.now())),
                "x-request-id": record.request_id,
                "openai-processing-ms": milliseconds,
                "x-envoy-upstream-service-time": milliseconds,
                "cf-ray": f"{record.request_id[4:20]}-LHR",
                **_CAPTURED_HEADERS,
            }
        )
        for name in _ECHOED:
            value = asked.get(name)
            if value is not None and value.isascii():  # else it may not be fit to be sent
                headers[name.lower()] = value
        return headers


@lru_cache(maxsize=1)  # of many replies in one second
def _http_date(second: int) -> str:
    """The emulator's time, as far as a header can tell it."""
    return formatdate(min(max(second, 0), _LAST_SECOND), usegmt=True)


async def _sleep(delay: float) -> None:
    if math.isinf(delay):  # not every loop can schedule that
        await asyncio.get_running_loop().create_future()
    elif delay:
        await asyncio.sleep(delay)


def _drop(transport: asyncio.Transport, record: Record, how: Drop) -> web.StreamResponse:
    record.outcome = "dropped"
    if how == "reset":
        connection = transport.get_extra_info("socket")
        # A socket in memory, as on virtual time, knows no reset; closing is as near as it gets.
        if isinstance(connection.fileno(), int):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    transport.abort()
    return web.Response()  # aiohttp wants one, and finds that there is nobody to send it to


async def _send(
    request: web.BaseRequest,
    record: Record,
    reply: Reply,
    headers: CIMultiDict[str],
    fault: Fault | None,
) -> web.StreamResponse:
    # Before the reply, because a client in another thread may have it before this goes on.
    record.status = reply.status
    record.outcome = "sent"
    try:
        if fault is not None and (fault.cut or fault.drip):
            return await _send_slowly(request, record, reply, headers, fault)
        response = web.Response(status=reply.status, headers=headers, body=reply.body)
        await response.prepare(request)
        await response.write_eof()
    except ConnectionError:
        record.outcome = "client_gone"
        return web.Response()
    return response


async def _send_slowly(
    request: web.BaseRequest,
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
    await response.prepare(request)
    if fault.drip:
        for byte in body:
            await _sleep(fault.drip)
            await response.write(bytes([byte]))
    else:
        await response.write(body)
    if fault.cut:
        response.force_close()  # only now, so that no header gives it away
    await response.write_eof()
    return response
