"""Requests that no well-behaved client sends: an error in the API's format, or a closed connection.

None gets a 500, a logged traceback or no end, and what is accepted can be shown and listed.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest
from patience import PATIENCE

from chatkit_async.emulator import Emulator, _request, _server

HEADERS = (
    f"Host: localhost\r\nAuthorization: Bearer {Emulator.api_key}\r\n"
    "OpenAI-Beta: chatkit_beta=v1\r\nContent-Type: application/json\r\n"
).encode()
CREATE, THREADS = b"/v1/chatkit/sessions", b"/v1/chatkit/threads"
FAULTS, ADD, CLOCK = b"/_emulator/faults", b"/_emulator/threads", b"/_emulator/clock"
CLOSED = 0


def get(target, header=b"", method=b"GET"):
    return method + b" " + target + b" HTTP/1.1\r\n" + HEADERS + header + b"\r\n"


def post(body, target=CREATE, header=b"", method=b"POST"):
    return get(target, header + b"Content-Length: %d\r\n" % len(body), method) + body


def wants(extra):
    return post(b'{"user": "u", "workflow": {"id": "wf"}, ' + extra + b"}")


def length(value, body=b"{}"):
    return get(CREATE, b"Content-Length: " + value + b"\r\n", b"POST") + body


def chunks(sent):
    return get(CREATE, b"Transfer-Encoding: chunked\r\n", b"POST") + sent


def fault(text):
    return get(THREADS, b"X-Emulator-Fault: " + text + b"\r\n")


def levels(number):
    return b"[" * number + b"]" * number


TABLE = {
    "request line": [
        (400, b"\x00\x01\r\n\r\n"),
        (400, b"\x16\x03\x01\x00\xa5\r\n\r\n"),
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, b"G@T / HTTP/1.1\r\n" + HEADERS + b"\r\n"),
        (400, b"G" * 9000 + b" / HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    ],
    "target": [
        (404, get(b"*", method=b"OPTIONS")),
        (400, get(b"v1/chatkit/threads")),
        (400, get(b"/" + b"a" * 9000)),
        (400, get(b"/v1/\x00")),
        (404, get(b"//[bad/v1")),
        (400, get(b"http://[::1/v1/chatkit/threads")),
        (421, get(b"http://a:b@localhost/v1/chatkit/threads")),
        (404, get(b"ftp://localhost/v1")),
        (404, get(THREADS + b"/%")),
        (404, get(THREADS + b"/%zz%ff%00%ed%a0%80")),
        (404, post(b"", CREATE + b"/%ed%a0%80ek_secret/cancel")),
        (400, get(THREADS + b"?user=%ff&after=%ed%a0%80")),
        (400, get(THREADS + b"?limit=" + b"9" * 5000)),
        (404, get(b"/_emulator/../v1")),
        (404, get(b"/_emulator/sessions/%ff%00%zz%ed%a0%80")),
        (400, get(b"/_emulator/requests?%ed%a0%80=1")),
        (400, get(b"/_emulator/requests?limit=%C2%B2")),
    ],
    "headers": [
        (400, get(THREADS, b"X-A: " + b"a" * 9000 + b"\r\n")),
        (400, get(THREADS, b"".join(b"X-%d: a\r\n" % number for number in range(3000)))),
        (400, get(THREADS, b"X A: b\r\n")),
        (400, get(THREADS, b"X-A\r\n")),
        (400, get(THREADS, b"Host: evil.example\r\n")),
        (400, get(THREADS, b"X-A: \x00\r\n")),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (421, b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
        (401, b"GET " + THREADS + b" HTTP/1.1\r\nHost: [::1]\r\nAuthorization: \xff\r\n\r\n"),
        (400, post(b"{}").replace(b"application/json", b"\xff;=")),
        (200, wants(b'"org": 1').replace(b"\r\n\r\n", b"\r\nOpenAI-Project: \xed\xa0\x80\r\n\r\n")),
        (200, get(THREADS, b"Connection: Upgrade\r\nUpgrade: websocket\r\n")),
    ],
    "framing": [
        *((400, length(value)) for value in (b"-1", b"abc", b"+2", b"9" * 5000, b"\xb2")),
        (400, length(b"2\r\nContent-Length: 3")),
        (400, length(b"2\r\nTransfer-Encoding: chunked", b"0\r\n\r\n")),
        (400, get(CREATE, b"Transfer-Encoding: junk\r\n", b"POST") + b"{}"),
        *(
            (400, chunks(sent))
            for sent in (b"zz\r\n{}", b"-1\r\n{}", b"2\r\n{}xx", b"f" * 20 + b"\r\n")
        ),
        (400, chunks(b"2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n")),
        (400, post(gzip.compress(b"{}"), header=b"Content-Encoding: deflate\r\n")),
        (400, get(THREADS + b"?limit=x") + get(THREADS + b"/%") + b"junk\r\n\r\n"),
    ],
    "body that stops": [
        (CLOSED, length(b"100", b"{")),
        (CLOSED, chunks(b"5\r\n{")),
        (CLOSED, wants(b'"a": 1')[:-3]),
    ],
    "JSON": [
        *(
            (400, post(body))
            for body in (b"", b"\x00", b"\xef\xbb\xbf{}", b'{"user": "\xe9"}', b"NaN")
        ),
        (400, post("{}".encode("utf-16"))),
        *((400, wants(b'"x": ' + levels(number))) for number in (101, 20_000)),
        (200, wants(b'"x": ' + levels(99))),
        (400, wants(b'"x": ' + b"9" * 5000)),
        (400, wants(b'"x": 1e999')),
        (200, wants(b'"x": ' + b"9" * 4000)),
        (400, wants(b'"user": "\\ud800"')),
        (400, wants(b'"\\uDFFF": 1')),
        (400, wants(b'"user": 5')),
        (200, wants(b'"user": "a\\r\\nb\\u0000"')),
        (200, wants(b'"rate_limits": {"max_requests_per_1_minute": 1e308}')),
        (200, wants(b'"workflow": {"id": "w", "state_variables": {"a": ' + b"9" * 4000 + b"}}")),
    ],
    "fault": [
        *((400, fault(text)) for text in (b"\xff=;", b"delay=nan", b"status=" + b"9" * 5000)),
        *(
            (400, fault(text))
            for text in (b"status=503; retry-after=\xff", b"body=\xff", b"page=\xff")
        ),
        (400, fault(b"status=400; code=\xff")),
        (200, fault(b"status=400; path=[")),
        (400, post(b'{"headers": {"a b": "c"}}', FAULTS)),
        (400, post(b'{"headers": {"": "c"}}', FAULTS)),
        (400, post(b'{"body": ' + levels(101) + b"}", FAULTS)),
        (400, post(b'{"delay": ' + b"9" * 4000 + b"}", FAULTS)),
        (200, post(b'{"body": ' + levels(99) + b', "path": "/nowhere"}', FAULTS)),
    ],
    "thread": [
        (400, post(b'{"user": "u", "items": [{"type": "x", "n": 1e999}]}', ADD)),
        (400, post(b'{"user": "u", "status": {"type": []}}', ADD)),
        (200, post(b'{"user": "u", "created_at": ' + b"9" * 4000 + b"}", ADD)),
        (
            200,
            post(
                b'{"user": "u", "id": "a", "items": [{"type": "x", "y": ' + levels(97) + b"}]}", ADD
            ),
        ),
        (200, post(b'{"now": 1e308}', CLOCK, method=b"PATCH")),
        (200, post(b'{"user": "u"}', ADD)),
        (200, wants(b'"x": 1')),
        (200, post(b'{"now": -1e300}', CLOCK, method=b"PATCH")),
        (200, wants(b'"x": 1')),
    ],
    "what was accepted": [
        *(
            (200, get(b"/_emulator/" + name + b"?limit=1000"))
            for name in (b"sessions", b"requests", b"threads")
        ),
        (200, get(b"/_emulator/state")),
        (200, get(b"/_emulator/faults")),
        (200, get(THREADS + b"?limit=100")),
        (200, get(THREADS + b"/a/items")),
    ],
}


def answer(emulator, request, *, ends):
    """Send a request, and return the status and the decoded body of the first reply."""
    url = urlsplit(emulator.base_url)
    with socket.create_connection((url.hostname, url.port), timeout=PATIENCE) as connection:
        with contextlib.suppress(ConnectionError):  # it may be refused before it is all sent
            connection.sendall(request)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection)
        try:
            response.begin()
        except (http.client.BadStatusLine, ConnectionError):
            return CLOSED, None
        body = json.loads(response.read())
        json.dumps(body, ensure_ascii=False).encode()  # raises for a lone surrogate
        return response.status, body


def test_hostile_requests_get_an_error_or_a_close(caplog):
    with Emulator(ledger_size=1000) as emulator:
        for kind, requests in TABLE.items():
            for number, (expected, request) in enumerate(requests):
                status, body = answer(emulator, request, ends=expected == CLOSED)
                case = kind, number, request[:100], body
                assert status == expected, case
                if status >= 400:
                    assert set(body) == {"error"}, case
                    assert set(body["error"]) == {"message", "type", "param", "code"}, case
    assert caplog.text == ""


@pytest.mark.parametrize("target", [CREATE, FAULTS])
def test_body_that_does_not_arrive_is_a_408(monkeypatch, target):
    monkeypatch.setattr(_request, "BODY_PATIENCE", 0.0)
    with Emulator() as emulator:
        half = post(b"{}", target)[:-1]
        status, body = answer(emulator, half, ends=False)

    assert (status, body["error"]["code"]) == (408, "request_timeout")


def test_parser_that_fails_closes_the_connection(monkeypatch, caplog):
    def fail(*_):
        raise ValueError

    monkeypatch.setattr(_server.web.RequestHandler, "data_received", fail)
    with Emulator() as emulator:
        assert answer(emulator, get(THREADS), ends=False) == (CLOSED, None)
    assert caplog.text == ""
