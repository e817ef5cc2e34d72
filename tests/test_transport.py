"""The transport, against raw sockets; with aioresponses where only aiohttp's errors matter."""

from __future__ import annotations

import asyncio
import errno
import gc
import gzip
import os
import ssl
import threading
import traceback
import tracemalloc
import weakref
import zlib
from datetime import UTC, datetime

import aiohttp
import attrs
import pytest
import trustme
import virtual
from patience import PATIENCE
from servers import BODY, CLOSE, HANG, RESET, http, replying, serve
from yarl import URL

from chatkit_async import (
    APIConnectionError,
    APITimeoutError,
    ClientClosedError,
    Secret,
)
from chatkit_async._transport import (
    MAX_REPLY,
    Link,
    Progress,
    Timers,
    Transport,
)
from chatkit_async.secret import MASK

KEY = "sk-" + "0123456789abcdef" * 2
LINK = Link(connect_timeout=5.0)


@pytest.fixture
async def transport():
    transport = Transport(max_connections=100)
    yield transport
    await transport.close()


async def send(transport, server, *, path="/x", body=b"{}", link=LINK, headers=None, progress=None):
    url = server if isinstance(server, URL) else URL(server.base_url + path, encoded=True)
    headers = {"Authorization": Secret(f"Bearer {KEY}")} if headers is None else headers
    progress = Progress() if progress is None else progress
    return await transport.send(
        "POST", url, headers=headers, body=body, link=link, progress=progress
    )


async def failure(*args, **options):
    """The error that a request ends with."""
    with pytest.raises(APIConnectionError) as caught:
        await send(*args, **options)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def connector(transport):
    [(session, _)] = transport._opened.values()
    return session.connector


# Requests and replies


async def test_a_request_goes_out_as_it_was_given(transport):
    async with serve(replying(http())) as server:
        await send(transport, server, path="/a%2Fb?c=%C3%A9", body=b'{"a":1}', headers={"X-A": "1"})

    [request] = server.requests
    assert request.line == "POST /v1/a%2Fb?c=%C3%A9 HTTP/1.1"
    assert request.body == b'{"a":1}'
    assert request.headers["x-a"] == "1"


async def test_a_request_without_a_body_says_that_it_has_none(transport):
    async with serve(replying(http())) as server:
        await send(transport, server, body=None)

    assert server.requests[0].headers["content-length"] == "0"


async def test_a_reply_comes_back_whole_whatever_its_status(transport):
    raw = http(b"oh no", "418 I'm a teapot", x_request_id="req_1", Content_Type="text/plain")
    async with serve(replying(raw)) as server:
        reply = await send(transport, server)

    assert reply.status == 418
    assert reply.headers["X-Request-Id"] == "req_1"
    assert reply.content == b"oh no"
    assert reply.flaw is None


@pytest.mark.parametrize("size", [1, 512 * 1024, 512 * 1024 + 1, 3 * 1024 * 1024])
async def test_a_body_of_any_size_arrives_the_same_each_time(transport, size):
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with serve(replying(http())) as server:
        await send(transport, server, body=body)
        await send(transport, server, body=body)

    assert [request.body == body for request in server.requests] == [True, True]


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
async def test_a_redirect_is_not_followed(transport, status):
    async with serve(replying(http())) as elsewhere:
        raw = http(b"", f"{status} Moved", Location=elsewhere.base_url)
        async with serve(replying(raw)) as server:
            reply = await send(transport, server)

    assert reply.status == int(status)
    assert elsewhere.requests == []


async def test_cookies_are_neither_kept_nor_sent(transport):
    # From a host with a name: aiohttp keeps those of an IP address in no case.
    async with serve(replying(http(Set_Cookie="a=b; Path=/"))) as proxy:
        for _ in range(2):
            await send(transport, URL("http://api.example/v1/x"), link=proxied(LINK, proxy))

    assert ["cookie" in request.headers for request in proxy.requests] == [False, False]


def raw_deflate(data):
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


READABLE = {
    "gzip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    " GZip ": gzip.compress(BODY),
    "gzip, identity": gzip.compress(BODY),
    "gzip ": gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]),
    "\tgzip": gzip.compress(b"") * 99 + gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "Deflate": raw_deflate(BODY),
    "identity": BODY,
    "": BODY,
    "utf-8": BODY,
    "none": b"\r\n" + BODY,
}
BR = b'\x8b\t\x80{"id": "cksess_123"}\x03'
ZSTD = b'(\xb5/\xfd \x14\xa1\x00\x00{"id": "cksess_123"}'
UNREADABLE = [
    ("br", BR),
    ("BR", BR),
    ("zstd", ZSTD),
    ("compress", b"\x1f\x9d\x90{"),
    ("utf-8", b"<html>"),
    ("gzip, br", BR),
    ("gzip, gzip", gzip.compress(gzip.compress(BODY))),
    ("gzip", BODY),
    ("gzip", BR),
    ("gzip", zlib.compress(BODY)),
    ("gzip", gzip.compress(BODY) + b"rest"),
    ("gzip", gzip.compress(b"") * 100 + gzip.compress(BODY)),
    ("gzip", gzip.compress(BODY)[:-8] + bytes(8)),
    ("deflate", BODY),
    ("deflate", BR),
    ("deflate", gzip.compress(BODY)),
    ("deflate", raw_deflate(BODY)[:-20]),
]


@pytest.fixture(params=[True, False], ids=["decoders", "no decoders"])
def decoders(request, monkeypatch):
    """Let aiohttp believe that the packages for br and zstd are installed, or are not."""
    monkeypatch.setattr("aiohttp.http_parser.HAS_BROTLI", request.param)
    monkeypatch.setattr("aiohttp.http_parser.HAS_ZSTD", request.param)


@pytest.fixture(params=[True, False], ids=["own", "borrowed"])
async def either_transport(request, transport):
    """A transport with a session of its own, or a borrowed one."""
    if request.param:
        yield transport
        return
    async with aiohttp.ClientSession() as session:
        yield Transport(max_connections=100, http_session=session)


@pytest.mark.usefixtures("decoders")
async def test_unasked_encodings_are_decoded(either_transport):
    replies = [http(raw, Content_Encoding=encoding) for encoding, raw in READABLE.items()]
    async with serve(replying(*replies)) as server:
        for _ in replies:
            reply = await send(either_transport, server)
            assert (reply.content.strip(), reply.flaw) == (BODY, None)

    assert server.connections == 1


@pytest.mark.usefixtures("decoders")
async def test_undecodable_bodies_are_marked(either_transport):
    replies = [http(raw, "500 Oops", Content_Encoding=name) for name, raw in UNREADABLE]
    async with serve(replying(*replies)) as server:
        for name, raw in UNREADABLE:
            reply = await send(either_transport, server)
            assert (reply.status, reply.content, reply.flaw) == (500, b"", "encoding"), (name, raw)

    assert len(server.requests) == len(replies)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_every_cut_of_a_compressed_body_is_marked(transport, encoding):
    whole = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](b'{"id": "x"}')
    cuts = [http(whole[:end], Content_Encoding=encoding) for end in range(1, len(whole))]
    async with serve(replying(*cuts)) as server:
        for _ in cuts:
            reply = await send(transport, server)
            assert (reply.content, reply.flaw) == (b"", "truncated")


async def test_an_empty_body_needs_no_decoding(transport):
    async with serve(replying(http(b"", Content_Encoding="gzip"))) as server:
        reply = await send(transport, server)

    assert (reply.content, reply.flaw) == (b"", None)


@pytest.mark.parametrize("size", [8_190, 8_191, 30_000, 65_000])
async def test_long_headers_are_read(either_transport, size):
    value = "p" * size
    replies = [http(X_Policy=value), http(status=f"200 {value}"), http(**{f"X{value}": "p"})]
    async with serve(replying(*replies)) as server:
        for _ in replies:
            reply = await send(either_transport, server)
            assert (reply.status, reply.content) == (200, BODY)


async def test_a_chunked_reply_is_read(transport):
    raw = http(
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", Content_Length=None, Transfer_Encoding="chunked"
    )
    async with serve(replying(raw)) as server:
        reply = await send(transport, server)

    assert (reply.content, reply.flaw) == (b"abcde", None)


# The cap


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_reply_of_the_largest_size_is_whole(transport, chunked):
    body = b"x" * MAX_REPLY
    raw = http(body)
    if chunked:
        framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        raw = http(framed, Content_Length=None, Transfer_Encoding="chunked")
    async with serve(replying(raw)) as server:
        reply = await send(transport, server)

    assert (len(reply.content), reply.flaw) == (MAX_REPLY, None)


async def test_a_larger_reply_is_cut_and_its_connection_closed(transport):
    async with serve(replying(http(b"x" * 4 * MAX_REPLY), http())) as server:
        reply = await send(transport, server)
        assert (len(reply.content), reply.flaw) == (MAX_REPLY, "too_large")
        assert (await send(transport, server)).content == BODY

    assert server.connections == 2


async def test_an_endless_reply_is_cut(transport):
    async def endless(server, wire):
        await wire.request()
        await wire.send(http(b"", Content_Length=None, Transfer_Encoding="chunked"))
        while True:
            await wire.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    async with serve(endless) as server:
        reply = await send(transport, server)
        await server.until(lambda: not server.open)

    assert (len(reply.content), reply.flaw) == (MAX_REPLY, "too_large")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compression_bomb_is_cut_before_it_fills_the_memory(transport, encoding):
    bomb = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](bytes(100 * 1024 * 1024))
    async with serve(replying(http(bomb, Content_Encoding=encoding))) as server:
        tracemalloc.start()
        reply = await send(transport, server)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert (len(reply.content), reply.flaw) == (MAX_REPLY, "too_large")
    assert peak < 25 * 1024 * 1024


# Replies that are not whole


CUT = {
    "shorter than its length": http(BODY[:20], Content_Length=len(BODY)),
    "without its last chunk": http(
        b"3\r\nabc\r\n", Content_Length=None, Transfer_Encoding="chunked"
    ),
    "in the middle of a chunk": http(
        b"30\r\nabc", Content_Length=None, Transfer_Encoding="chunked"
    ),
    "compressed and cut": http(
        gzip.compress(BODY)[:-20], Content_Encoding="gzip", Content_Length=4000
    ),
    "compressed and cut, with the length of what came": http(
        gzip.compress(BODY)[:-20], Content_Encoding="gzip"
    ),
}


@pytest.mark.parametrize("raw", CUT.values(), ids=CUT)
async def test_a_reply_that_is_not_whole_is_marked(transport, raw):
    async def cutting(server, wire):
        server.requests.append(await wire.request())
        await wire.send(raw)

    async with serve(cutting) as server:
        reply = await send(transport, server)

    assert (reply.status, reply.content, reply.flaw) == (200, b"", "truncated")
    assert len(server.requests) == 1


async def test_a_reply_reset_half_way_is_marked(transport):
    async def resetting(server, wire):
        await wire.request()
        await wire.send(http(BODY[:20], "500 Oops", Content_Length=len(BODY)))
        await server.until(lambda: server.requests)  # the client has the headers
        wire.reset()

    async with serve(resetting) as server:
        session = transport._session()

        async def headers_seen(*_):
            server.requests.append("headers")
            server.note()

        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(headers_seen)
        trace.freeze()
        session.trace_configs.append(trace)
        reply = await send(transport, server)

    assert (reply.status, reply.flaw) == (500, "truncated")


async def test_more_than_was_promised_is_not_the_next_reply(transport):
    async with serve(
        replying(http(BODY + b"HTTP/1.1 500 X\r\n\r\n", Content_Length=len(BODY)))
    ) as s:
        first = await send(transport, s)
        second = await send(transport, s)

    assert (first.status, first.content, first.flaw) == (200, BODY, None)
    assert (second.status, second.content) == (200, BODY)


# Failures


async def test_a_handshake_that_never_ends_is_bound_by_connect_timeout(transport):
    async def silent(server, wire):
        await wire.reader.read()

    async with serve(silent) as server:
        url = URL(server.base_url.replace("http", "https"))
        caught = await failure(transport, url, link=Link(connect_timeout=0.01))

    assert isinstance(caught, APITimeoutError)
    assert caught.limit == "connect_timeout"


async def test_a_refused_connection(transport):
    async with serve(replying(http())) as server:
        pass

    caught = await failure(transport, server)

    assert caught.kind == "refused"
    assert f"127.0.0.1:{server.port} refused" in caught.message
    assert f"[Errno {errno.ECONNREFUSED}]" in caught.cause


async def test_a_host_that_can_have_no_address(transport):
    caught = await failure(transport, URL("https://a..b/v1", encoded=True))

    assert caught.kind == "dns"


async def raw_failure(transport, data):
    async def handle(server, wire):
        server.requests.append(await wire.request())
        await wire.send(data)

    async with serve(handle) as server:
        caught = await failure(transport, server)
    assert len(server.requests) == 1
    return caught


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        b"HTTP/1.1 abc Weird\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    ],
    ids=["ssh", "tls", "status", "header", "flood", "long", "length", "negative"],
)
async def test_what_is_not_http_is_a_protocol_failure(transport, data):
    caught = await raw_failure(transport, data)

    assert caught.kind == "protocol"
    assert KEY not in str(caught)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_a_connection_closed_before_the_headers_are_whole(transport, data):
    assert (await raw_failure(transport, data)).kind == "disconnected"


async def test_a_connection_that_is_reset(transport):
    async with serve(replying(RESET)) as server:
        assert (await failure(transport, server)).kind == "reset"


async def test_a_failure_leaves_no_cycle_that_keeps_its_frames(transport):
    async def failed():
        try:
            await send(transport, server)
        except APIConnectionError as error:
            return weakref.ref(error)

    async with serve(replying(CLOSE)) as server:
        gc.disable()
        try:
            assert (await failed())() is None
        finally:
            gc.enable()


async def test_no_frame_of_a_failure_shows_the_key(transport):
    async with serve(replying(CLOSE)) as server:
        caught = await failure(transport, server)

    shown = traceback.TracebackException.from_exception(caught, capture_locals=True)
    assert KEY not in "".join(shown.format())


# Connections


async def test_a_connection_is_used_again(transport):
    async with serve(replying(http())) as server:
        for _ in range(3):
            await send(transport, server)

    assert [request.connection for request in server.requests] == [1, 1, 1]


async def test_an_idle_connection_is_kept_for_a_minute(transport):
    await use(transport)

    assert connector(transport)._keepalive_timeout == 60


@pytest.mark.parametrize("end", [CLOSE, RESET], ids=["closed", "reset"])
async def test_a_stale_connection_is_replaced_at_once(transport, end):
    async with serve(replying(http(), end, http())) as server:
        await send(transport, server)
        reply = await send(transport, server)

    assert reply.status == 200
    assert [request.connection for request in server.requests] == [1, 1, 2]


async def test_a_trail_counts_the_requests_that_went_out(transport):
    progress = Progress()
    async with serve(replying(http(), CLOSE, http())) as server:
        await send(transport, server, progress=progress)
        assert progress.sent == 1
        await send(transport, server, progress=progress)
    assert progress.sent == 3  # one of them on a connection that the server had closed
    assert progress.answered == 0  # for who reads the replies to count


async def test_a_trail_counts_no_request_that_had_no_connection(transport):
    progress = Progress()
    async with serve(replying(http())) as server:
        pass

    await failure(transport, server, progress=progress)

    assert progress.sent == 0


async def test_a_trail_counts_its_own_call_alone(transport):
    progress = Progress()
    async with serve(replying(http())) as server:
        await send(transport, server, progress=progress)
        await send(transport, server)

    assert progress.sent == 1


async def test_a_connection_is_replaced_once_in_an_attempt(transport):
    arrived = asyncio.Event()

    async def together(server, wire):
        server.requests.append(await wire.request())
        if len(server.requests) == 3:
            arrived.set()
        await arrived.wait()
        await wire.send(http())
        server.requests.append(await wire.request())

    async with serve(together) as server:
        await asyncio.gather(*(send(transport, server) for _ in range(3)))
        await failure(transport, server)

    assert len(server.requests) == 5


async def test_a_fresh_connection_that_fails_is_not_replaced(transport):
    async with serve(replying(CLOSE)) as server:
        await failure(transport, server)

    assert len(server.requests) == 1


async def test_a_used_connection_that_fails_otherwise_is_not_replaced(transport):
    async with serve(replying(http(), b"SSH-2.0-OpenSSH\r\n\r\n")) as server:
        await send(transport, server)
        caught = await failure(transport, server)

    assert caught.kind == "protocol"
    assert len(server.requests) == 2


async def test_a_connection_the_server_closed_is_not_used_again(transport):
    async def once(server, wire):
        await wire.request()
        await wire.send(http(Connection="close"))

    async with serve(once) as server:
        await send(transport, server)
        await send(transport, server)

    assert server.connections == 2


async def test_no_more_connections_are_open_than_allowed():
    transport = Transport(max_connections=2)
    release = asyncio.Event()

    async def held(server, wire):
        while True:
            server.requests.append(await wire.request())
            server.note()
            await release.wait()
            await wire.send(http())

    async with serve(held) as server:
        sending = [asyncio.create_task(send(transport, server)) for _ in range(5)]
        await server.until(lambda: len(server.requests) == 2)
        release.set()
        await asyncio.gather(*sending)
        await transport.close()

    assert server.connections == 2
    assert len(server.requests) == 5


async def test_cancelling_gives_the_connection_back(transport):
    async with serve(replying(HANG, http())) as server:
        sending = asyncio.create_task(send(transport, server))
        await server.until(lambda: server.requests)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

        assert not connector(transport)._acquired
        await server.until(lambda: not server.open)
        assert (await send(transport, server)).status == 200


async def test_cancelling_in_the_middle_of_a_body_gives_the_connection_back(transport):
    dripping = asyncio.Event()

    async def drip(server, wire):
        await wire.request()
        await wire.send(http(b"{", Content_Length=100))
        dripping.set()
        await wire.reader.read()

    async with serve(drip) as server:
        sending = asyncio.create_task(send(transport, server))
        await dripping.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

        assert not connector(transport)._acquired
        await server.until(lambda: not server.open)


# TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority):
    """Makes a server's TLS settings, with a certificate for the given names."""

    def tls(*names, **options):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(*names, **options).configure_cert(context)
        return context

    return tls


@pytest.fixture
def trusting(authority):
    """A link that trusts the tests' authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return Link(connect_timeout=5.0, ssl=context)


async def test_a_certificate_of_a_private_authority_is_trusted_on_request(transport, tls, trusting):
    async with serve(replying(http()), ssl=tls("127.0.0.1")) as server:
        assert (await send(transport, server, link=trusting)).status == 200


async def test_an_unknown_authority_is_not_trusted(transport, tls):
    async with serve(replying(http()), ssl=tls("127.0.0.1")) as server:
        caught = await failure(transport, server)

    assert caught.kind == "certificate"
    assert "cafile" in caught.message
    assert server.requests == []


async def test_a_certificate_for_another_name_is_not_trusted(transport, tls, trusting):
    async with serve(replying(http()), ssl=tls("other.example")) as server:
        caught = await failure(transport, server, link=trusting)

    assert caught.kind == "certificate"


async def test_an_expired_certificate_is_not_trusted(transport, tls, trusting):
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    async with serve(replying(http()), ssl=tls("127.0.0.1", not_after=long_ago)) as server:
        caught = await failure(transport, server, link=trusting)

    assert caught.kind == "certificate"


def demanding(context):
    """A server that ends the handshake as soon as it knows the client's certificate."""

    async def handle(server, wire):
        # Not asyncio's own TLS, which drops the alert that says why.
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        over = False
        while not over:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                over = True
            await wire.send(outgoing.read())
            incoming.write(await wire.reader.read(65536))
        await wire.reader.read()  # all of it: what is left would reset the connection

    return handle


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def mutual(request, authority, tls):
    """TLS settings of a server that wants a client certificate."""
    context = tls("127.0.0.1")
    context.minimum_version = context.maximum_version = request.param
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("given", [None, "untrusted", "expired"])
async def test_client_certificate_is_asked_for(
    either_transport, authority, mutual, trusting, given
):
    if given is not None:
        issuer = trustme.CA() if given == "untrusted" else authority
        long_ago = datetime(2001, 1, 1, tzinfo=UTC) if given == "expired" else None
        issuer.issue_cert("client", not_after=long_ago).configure_cert(trusting.ssl)
    progress = Progress()
    async with serve(demanding(mutual)) as server:
        url = URL(f"https://127.0.0.1:{server.port}/x")
        caught = await failure(either_transport, url, link=trusting, progress=progress)

    assert caught.kind == "certificate"
    assert "load_cert_chain" in caught.message
    assert progress.sent == 0


async def test_https_to_a_plain_port_is_a_tls_failure(transport):
    async def plain(server, wire):
        await wire.reader.read(1)
        await wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serve(plain) as server:
        caught = await failure(transport, URL(server.base_url.replace("http", "https")))

    assert caught.kind == "tls"
    assert "does it speak https?" in caught.message


async def test_plain_http_to_a_tls_port_is_a_failure(transport, tls):
    async with serve(replying(http()), ssl=tls("127.0.0.1")) as server:
        caught = await failure(transport, URL(server.base_url.replace("https", "http")))

    assert caught.kind in {"disconnected", "reset"}


# Proxies


def tunnel(target):
    """A proxy's side of CONNECT: joins the connection to `target`, whatever was asked for."""

    async def pump(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def handle(server, wire):
        server.requests.append(await wire.request())
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        await wire.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(pump(wire.reader, writer), pump(reader, wire.writer))

    return handle


def proxied(link, proxy, login="user:p%40ss@"):
    return attrs.evolve(link, proxy=Secret(f"http://{login}127.0.0.1:{proxy.port}"))


BASIC = "Basic dXNlcjpwQHNz"  # user:p@ss


async def test_https_goes_through_a_proxys_tunnel(transport, tls, trusting):
    async with (
        serve(replying(http()), ssl=tls("api.example")) as server,
        serve(tunnel(server)) as proxy,
    ):
        reply = await send(
            transport, URL("https://api.example/v1/x"), link=proxied(trusting, proxy)
        )
        await transport.close()

    assert reply.status == 200
    [asked] = proxy.requests
    assert asked.line == "CONNECT api.example:443 HTTP/1.1"
    assert asked.headers["proxy-authorization"] == BASIC
    assert "authorization" not in asked.headers
    [request] = server.requests
    assert "proxy-authorization" not in request.headers


@pytest.mark.parametrize(
    ("login", "basic"), [("user:p%40ss@", BASIC), ("user@", "Basic dXNlcjo=")], ids=["both", "user"]
)
async def test_plain_http_is_handed_to_the_proxy_with_its_login(transport, login, basic):
    async with serve(replying(http())) as proxy:
        link = proxied(LINK, proxy, login)
        reply = await send(transport, URL("http://api.example/v1/x"), link=link)

    assert reply.status == 200
    [request] = proxy.requests
    assert request.line == "POST http://api.example/v1/x HTTP/1.1"
    assert request.headers["proxy-authorization"] == basic
    assert request.headers["authorization"] == f"Bearer {KEY}"


async def test_a_redirect_that_comes_through_a_proxy_is_not_followed(transport):
    redirect = http(b"", "302 Found", Location="http://elsewhere.example/")
    async with serve(replying(redirect)) as proxy:
        reply = await send(transport, URL("http://api.example/v1/x"), link=proxied(LINK, proxy))

    assert reply.status == 302
    assert len(proxy.requests) == 1


async def test_a_proxy_without_a_login_gets_none(transport):
    async with serve(replying(http())) as proxy:
        link = proxied(LINK, proxy, login="")
        await send(transport, URL("http://api.example/v1/x"), link=link)

    assert "proxy-authorization" not in proxy.requests[0].headers


async def test_the_environments_proxies_are_not_looked_up_here(transport, monkeypatch):
    async with serve(replying(http())) as server, serve(replying(http())) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        for name in "no_proxy", "NO_PROXY":
            monkeypatch.delenv(name, raising=False)
        await send(transport, server)

    assert len(server.requests) == 1
    assert proxy.requests == []


async def test_a_proxy_that_refuses_is_named(transport, trusting):
    refusal = http(b"", "407 Proxy Authentication Required")
    async with serve(replying(refusal)) as proxy:
        url = URL("https://api.example/v1/x")
        caught = await failure(transport, url, link=proxied(trusting, proxy))

    assert caught.kind == "proxy"
    assert "407" in caught.cause


def test_a_proxys_login_is_in_its_header_alone():
    link = attrs.evolve(LINK, proxy=Secret("http://us%40er:p%40ss@proxy.example:3128"))

    assert link.arguments["proxy"] == URL("http://proxy.example:3128")
    assert link.proxy_headers == {"Proxy-Authorization": "Basic dXNAZXI6cEBzcw=="}
    assert link.login == ("us@er:p@ss", "p@ss", "dXNAZXI6cEBzcw==")
    assert repr(link.login).count(MASK) == 3


def test_a_proxys_user_without_a_password_is_its_login():
    link = attrs.evolve(LINK, proxy=Secret("http://token@proxy.example:3128"))

    assert link.login == ("token:", "token", "dG9rZW46")


async def test_a_proxy_that_is_not_there_is_named(transport, trusting):
    async with serve(replying(http())) as proxy:
        pass

    url = URL("https://api.example/v1/x")
    caught = await failure(transport, url, link=proxied(trusting, proxy))

    assert caught.kind == "proxy"


OPENED = b"HTTP/1.1 200 OK\r\n\r\n"
STAGES = {
    "before it reads": [],
    "after it read": ["read"],
    "by a reset": ["read", "reset"],
    "within its reply": ["read", b"HTTP/1.1 200"],
    "by a refusal": ["read", http(b"", "407 No")],
    "by another protocol": ["read", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"],
    "by a long header": ["read", http(X_Policy="p" * 70_000)],
    "as it opened the tunnel": ["read", OPENED],
    "by a reset as it opened the tunnel": ["read", OPENED, "reset"],
    "by other bytes in the tunnel": ["read", OPENED, "handshake", b"no TLS at all"],
    "after the handshake began": ["read", OPENED, "handshake"],
}
PLAIN_STAGES = [
    *("before it reads", "after it read", "by a reset", "within its reply"),
    *("by another protocol", "by a long header"),
]


def failing(steps):
    """A proxy that takes these steps, and closes."""

    async def handle(server, wire):
        for step in steps:
            if step == "read":
                server.requests.append(await wire.request())
            elif step == "handshake":
                await wire.reader.read(65536)
            elif step == "reset":
                wire.reset()
            else:
                await wire.send(step)

    return handle


@pytest.mark.unmeasured
@pytest.mark.parametrize("stage", STAGES)
async def test_proxy_fails_while_it_opens_a_tunnel(either_transport, trusting, stage):
    progress = Progress()
    async with serve(failing(STAGES[stage])) as proxy:
        url, link = URL("https://api.example/v1/x"), proxied(trusting, proxy)
        caught = await failure(either_transport, url, link=link, progress=progress)

    behind = "tunnel" in stage or "handshake" in stage
    borrowed = either_transport._borrowed is not None
    if not borrowed:
        assert (caught.kind == "proxy") is not behind
        assert progress.sent == 0
    assert "base_url" not in caught.message
    assert "proxy" in caught.message


@pytest.mark.parametrize("stage", PLAIN_STAGES)
async def test_proxy_of_plain_http_fails(either_transport, stage):
    progress = Progress()
    async with serve(failing(STAGES[stage])) as proxy:
        url, link = URL("http://api.example/v1/x"), proxied(LINK, proxy)
        caught = await failure(either_transport, url, link=link, progress=progress)

    assert caught.kind == "proxy"
    assert caught.message.startswith("the proxy in front of api.example:80 ")
    assert caught.message.endswith(": check proxy, or HTTP_PROXY")
    assert progress.sent == 1  # it may have gone on to the host


@pytest.mark.parametrize("reply", [CLOSE, http(b"", "407 No")], ids=["closed", "refused"])
async def test_no_frame_of_a_proxys_failure_shows_its_password(transport, trusting, reply):
    async with serve(replying(reply)) as proxy:
        link = Link(5.0, Secret(f"http://user:s3cr3t-pass@127.0.0.1:{proxy.port}"), trusting.ssl)
        caught = await failure(transport, URL("https://api.example/v1"), link=link)

    shown = "".join(
        traceback.TracebackException.from_exception(caught, capture_locals=True).format()
    )
    assert "s3cr3t-pass" not in shown
    assert "czNjcjN0LXBhc3M" not in shown
    assert "s3cr3t-pass" not in repr(link)


# Sessions and loops


async def use(transport):
    async with serve(replying(http())) as server:
        await send(transport, server)
        return transport._session()


def test_a_session_is_closed_when_its_loop_ends():
    transport = Transport(max_connections=10)

    sessions = [asyncio.run(use(transport)) for _ in range(3)]

    assert [session.closed for session in sessions] == [True, True, True]
    assert len(set(sessions)) == 3
    assert not transport.is_open


async def test_one_loop_has_one_session(transport):
    async with serve(replying(http())) as server:
        await send(transport, server)
        first = transport._session()
        await send(transport, server)

    assert transport._session() is first


def test_two_loops_in_two_threads_at_once():
    transport = Transport(max_connections=10)
    both = threading.Barrier(2, timeout=PATIENCE)
    sessions = []

    async def work():
        async with serve(replying(http())) as server:
            await send(transport, server)
            sessions.append(transport._session())
            both.wait()
            await send(transport, server)

    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(sessions)) == 2
    assert not transport.is_open


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_a_carelessly_closed_loop_left_is_forgotten():
    transport = Transport(max_connections=10)
    careless = asyncio.new_event_loop()
    careless.set_exception_handler(lambda loop, context: None)
    careless.run_until_complete(use(transport))
    careless.close()  # without shutdown_asyncgens
    assert transport.is_open

    async def scenario():
        await use(transport)
        assert len(transport._opened) == 1

    asyncio.run(scenario())
    assert not transport.is_open
    gc.collect()


async def test_a_closed_transport_sends_nothing(transport):
    async with serve(replying(http())) as server:
        await transport.close()
        with pytest.raises(ClientClosedError):
            await send(transport, server)

    assert server.requests == []


async def test_closing_twice_is_closing_once(transport):
    session = await use(transport)

    await transport.close()
    await transport.close()

    assert session.closed
    assert not transport.is_open
    assert not transport._opened  # nothing is left for the loop's end


async def test_closing_while_a_stale_connection_is_being_replaced(transport):
    closing = []

    def reply(request):
        if len(server.requests) == 1:
            return http()
        closing.append(asyncio.create_task(transport.close()))
        return HANG

    async with serve(replying(reply)) as server:
        await send(transport, server)
        # Closing breaks the used connection, which looks as if the server had done it.
        with pytest.raises((ClientClosedError, APIConnectionError)):
            await send(transport, server)
        await asyncio.gather(*closing)

    assert len(server.requests) == 2


async def test_closing_ends_what_its_timers_bound(transport):
    entered = asyncio.Event()

    async def bound():
        async with transport.timers().start(None):
            entered.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(bound())
    await entered.wait()
    await transport.close()

    with pytest.raises(TimeoutError):
        await task


async def test_closing_leaves_alone_what_has_ended_by_itself(transport):
    loop = asyncio.get_running_loop()
    complaints = []
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    async with transport.timers().start(None):
        await asyncio.sleep(0)
    gone = asyncio.new_event_loop()
    transport._timers[gone] = Timers(gone)
    transport._timers[gone].start(None)
    gone.close()

    await transport.close()
    await asyncio.sleep(0)  # what closing left for the loop to do

    assert complaints == []


@pytest.mark.parametrize("limits", [(20, 1, 5), (1, 5, 20), (5, 5, 5), (20, None, 1)])
def test_each_timer_expires_at_its_own_time(limits):
    async def bounded(timers, seconds):
        timer = timers.start(seconds)
        try:
            async with timer:
                await asyncio.sleep(100)
        except TimeoutError:
            pass
        finally:
            timers.stop(timer)
        return asyncio.get_running_loop().time() - started

    async def main():
        nonlocal started
        started = asyncio.get_running_loop().time()
        timers = Transport(max_connections=1).timers()
        ended = await asyncio.gather(*(bounded(timers, seconds) for seconds in limits))
        assert ended == pytest.approx([seconds or 100 for seconds in limits], abs=0.01)
        assert not timers

    started = 0.0
    virtual.run(main())


def test_a_timer_that_was_stopped_rings_for_nobody():
    async def main():
        timers = Transport(max_connections=1).timers()
        timers.stop(timers.start(1))
        later = timers.start(3)
        with pytest.raises(TimeoutError):
            async with later:
                await asyncio.sleep(100)
        timers.stop(later)
        await asyncio.sleep(100)  # with nothing left, nothing rings

    virtual.run(main())


def test_timers_of_loops_that_are_closed_are_forgotten():
    transport = Transport(max_connections=1)

    async def timers():
        assert transport.timers() is transport.timers()

    for _ in range(3):
        asyncio.run(timers())
    assert len(transport._timers) == 1


class Elsewhere:
    """A loop that runs in a thread of its own, with a session of `transport` in it."""

    def __init__(self, transport):
        self.loop = asyncio.new_event_loop()
        self.session = self.loop.run_until_complete(use(transport))
        self.thread = threading.Thread(target=self.loop.run_forever)

    def end(self):
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


def test_closing_from_another_loop_waits_for_the_loops_that_have_sessions():
    transport = Transport(max_connections=10)
    others = [Elsewhere(transport) for _ in range(2)]
    for elsewhere in others:
        elsewhere.thread.start()

    asyncio.run(transport.close())

    assert all(elsewhere.session.closed for elsewhere in others)
    for elsewhere in others:
        elsewhere.end()


def test_closing_ends_what_another_loop_has_under_way_without_a_session_of_its_own():
    transport = Transport(max_connections=10)
    entered, ended = threading.Event(), []

    async def bound():
        try:
            async with transport.timers().start(None):
                entered.set()
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            ended.append("by its timer")

    thread = threading.Thread(target=asyncio.run, args=(bound(),))
    thread.start()
    entered.wait(PATIENCE)
    asyncio.run(transport.close())
    thread.join(PATIENCE)

    assert ended == ["by its timer"]


async def test_a_transport_is_open_as_long_as_a_session_is(transport):
    assert not transport.is_open
    await use(transport)
    assert transport.is_open
    await transport.close()
    assert not transport.is_open


async def test_it_is_open_although_the_garbage_collector_began_with_its_connector(transport):
    session = await use(transport)
    await session.connector.close()
    assert session.closed
    assert transport.is_open
    await transport.close()
    assert not transport.is_open


def test_closing_does_not_wait_for_a_loop_that_does_not_run():
    transport = Transport(max_connections=10)
    elsewhere = Elsewhere(transport)

    asyncio.run(transport.close())

    assert not transport.is_open
    assert not elsewhere.session.closed
    elsewhere.end()
    assert elsewhere.session.closed


def test_closing_does_not_wait_for_a_loop_that_stops_meanwhile():
    transport = Transport(max_connections=10)
    elsewhere = Elsewhere(transport)
    elsewhere.loop.call_soon(elsewhere.loop.stop)
    busy = threading.Event()
    elsewhere.loop.call_soon(busy.wait)  # holds the loop until closing is under way
    elsewhere.thread.start()

    async def scenario():
        asyncio.get_running_loop().call_later(0, busy.set)
        await transport.close()

    asyncio.run(scenario())
    elsewhere.thread.join()
    elsewhere.end()
    assert elsewhere.session.closed


def test_closing_can_be_cancelled_while_another_loop_is_busy():
    transport = Transport(max_connections=10)
    elsewhere = Elsewhere(transport)
    busy = threading.Event()
    elsewhere.loop.call_soon(busy.wait)
    elsewhere.thread.start()

    async def scenario():
        here = await use(transport)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await transport.close()
        return here

    assert asyncio.run(scenario()).closed
    busy.set()
    elsewhere.end()
    assert elsewhere.session.closed


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_closing_passes_over_a_loop_that_is_closed():
    transport = Transport(max_connections=10)
    elsewhere = Elsewhere(transport)
    elsewhere.loop.set_exception_handler(lambda loop, context: None)
    elsewhere.loop.close()

    asyncio.run(transport.close())

    assert not transport.is_open
    del elsewhere
    gc.collect()


async def test_a_forked_child_opens_sessions_of_its_own(transport):
    parents = await use(transport)
    [(_, lifetime)] = transport._opened.values()

    transport.after_fork()

    assert not transport.is_open
    assert await use(transport) is not parents
    await lifetime.aclose()


async def test_a_childs_child_leaves_alone_what_both_inherited(transport):
    session = await use(transport)

    transport.after_fork()
    transport.after_fork()
    gc.collect()
    for _ in range(10):  # what a finalizer would have the loop do
        await asyncio.sleep(0)

    assert not session.closed
    await session.close()


async def test_a_parents_connections_count_as_closed_in_a_child(transport, monkeypatch):
    session = await use(transport)
    parents = session.connector
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        assert session.closed
        parents.__del__()  # leaves them alone

    assert not session.closed
    assert await use(transport) is session


# A borrowed session


async def test_a_borrowed_session_is_used_and_never_closed():
    async with aiohttp.ClientSession(raise_for_status=True, cookies={"a": "b"}) as session:
        transport = Transport(max_connections=10, http_session=session)
        async with serve(replying(http(status="500 Oops"))) as server:
            reply = await send(transport, server)
        await transport.close()

        assert reply.status == 500
        assert server.requests[0].headers["cookie"] == "a=b"
        assert not transport.is_open
        assert not session.closed


async def test_a_borrowed_session_that_was_closed_is_named():
    async with aiohttp.ClientSession() as session:
        transport = Transport(max_connections=10, http_session=session)

    with pytest.raises(ClientClosedError) as caught:
        await send(transport, URL("http://127.0.0.1:1"))
    assert str(caught.value) == "the http_session that this client borrowed is closed"


async def test_a_trail_counts_the_requests_of_a_borrowed_session():
    progress = Progress()
    async with aiohttp.ClientSession() as session:
        transport = Transport(max_connections=10, http_session=session)
        async with serve(replying(http(), http(), CLOSE)) as server:
            await send(transport, server, progress=progress)
            await send(transport, server, progress=progress)
            assert progress.sent == 2
            await failure(transport, server, progress=progress)
            assert progress.sent == 3  # it may have been acted on
        await failure(transport, server, progress=progress)

    assert progress.sent == 3  # nobody listened any more


async def test_a_borrowed_session_that_is_closed_during_a_request():
    session = aiohttp.ClientSession()
    transport = Transport(max_connections=10, http_session=session)
    async with serve(replying(HANG)) as server:
        sending = asyncio.create_task(send(transport, server))
        await server.until(lambda: server.requests)
        await session.close()
        with pytest.raises(APIConnectionError):
            await sending


def test_a_borrowed_session_serves_its_own_loop_only():
    with asyncio.Runner() as runner:

        async def borrow():
            return aiohttp.ClientSession()

        session = runner.run(borrow())
        transport = Transport(max_connections=10, http_session=session)

        other = asyncio.run(use(transport))
        assert other is not session
        assert other.closed
        assert runner.run(use(transport)) is session
        runner.run(session.close())


async def test_a_used_connection_that_began_to_answer_is_not_replaced(transport):
    async def half_a_header(server, wire):
        server.requests.append(await wire.request())
        await wire.send(http())
        server.requests.append(await wire.request())
        await wire.send(b"HTTP/1.1 200 OK\r\nx-request-id: r")

    async with serve(half_a_header) as server:
        await send(transport, server)
        caught = await failure(transport, server)

    assert caught.kind == "disconnected"
    assert len(server.requests) == 2


async def test_a_used_connection_that_held_for_a_while_is_not_replaced(transport, monkeypatch):
    monkeypatch.setattr("chatkit_async._transport._STALE_WITHIN", -1.0)  # any time is a while
    async with serve(replying(http(), CLOSE)) as server:
        await send(transport, server)
        caught = await failure(transport, server)

    assert caught.kind == "disconnected"
    assert len(server.requests) == 2


async def test_an_errors_body_is_read_up_to_64_kib(transport):
    async with serve(replying(http(b"x" * 70_000, "500 Internal Server Error"))) as server:
        reply = await send(transport, server)

    assert (reply.status, len(reply.content), reply.flaw) == (500, 64 * 1024, "too_large")
