"""The translation of aiohttp's exceptions and the operating system's."""

from __future__ import annotations

import errno
import ssl
from types import SimpleNamespace
from typing import get_args

import aiohttp
import pytest
from yarl import URL

from chatkit_async import APIConnectionError, APIError, APITimeoutError
from chatkit_async._failures import failure, is_no_connection
from chatkit_async.errors import ConnectionErrorKind

KEY = "sk-" + "0123456789abcdef" * 2
API = URL("https://h/v1/x")


def key():
    return SimpleNamespace(host="h", port=443, is_ssl=True, ssl=True)


def response_error(cls=aiohttp.ClientResponseError, **options):
    info = aiohttp.RequestInfo(
        URL("https://h/"), "POST", {"Authorization": f"Bearer {KEY}"}, URL("https://h/")
    )
    return cls(info, (), **options)


FAILURES = {
    "no such host": (
        aiohttp.ClientConnectorDNSError(key(), OSError(-2, "unknown")),
        ("dns", "h:443 was not found: is base_url right, is there a network?"),
    ),
    "no possible host": (
        UnicodeError("label empty"),
        ("dns", "h:443 was not found: is base_url right, is there a network?"),
    ),
    "nobody listens": (
        aiohttp.ClientConnectorError(key(), OSError(errno.ECONNREFUSED, "no")),
        ("refused", "h:443 refused the connection: is the server up, the port right?"),
    ),
    "no network": (
        aiohttp.ClientConnectorError(key(), OSError(errno.ENETUNREACH, "")),
        ("unreachable", "h:443 cannot be reached: is there a network?"),
    ),
    "no route": (
        aiohttp.ClientConnectorError(key(), OSError(errno.EHOSTUNREACH, "")),
        ("unreachable", "h:443 cannot be reached: is there a network?"),
    ),
    "no file descriptor": (
        aiohttp.ClientConnectorError(key(), OSError(errno.EMFILE, "too many open files")),
        ("other", "no connection to h:443"),
    ),
    "reset": (aiohttp.ClientOSError(errno.ECONNRESET, ""), ("reset", "h:443 reset the connection")),
    "pipe": (aiohttp.ClientOSError(errno.EPIPE, ""), ("reset", "h:443 reset the connection")),
    "aborted": (
        aiohttp.ClientOSError(errno.ECONNABORTED, ""),
        ("reset", "h:443 reset the connection"),
    ),
    "closing": (
        aiohttp.ClientConnectionResetError("closing"),
        ("reset", "h:443 reset the connection"),
    ),
    "broken pipe": (BrokenPipeError(), ("reset", "h:443 reset the connection")),
    "closed": (
        aiohttp.ServerDisconnectedError(),
        ("disconnected", "h:443 closed the connection without a reply"),
    ),
    "certificate": (
        aiohttp.ClientConnectorCertificateError(key(), ssl.CertificateError("old")),
        (
            "certificate",
            (
                "the certificate of h:443 is not trusted: is base_url right? A private CA goes "
                "into ssl=ssl.create_default_context(cafile=...)"
            ),
        ),
    ),
    "TLS": (
        aiohttp.ClientConnectorSSLError(key(), ssl.SSLError(1, "?")),
        ("tls", "no TLS connection to h:443: does it speak https?"),
    ),
    "no proxy there": (
        aiohttp.ClientProxyConnectionError(key(), OSError(1, "no")),
        ("proxy", "the proxy in front of h:443 refused: check proxy, or HTTPS_PROXY"),
    ),
    "refused by a proxy": (
        response_error(aiohttp.ClientHttpProxyError, status=407),
        ("proxy", "the proxy in front of h:443 refused: check proxy, or HTTPS_PROXY"),
    ),
    "no HTTP": (
        response_error(status=400),
        ("protocol", "h:443 did not reply with HTTP: is base_url right?"),
    ),
    "a header too long": (
        response_error(status=400, message=f"Got more than 65536 bytes when reading: b'{KEY}'"),
        (
            "protocol",
            "h:443 sent larger headers than this client reads (128 headers, each of up to 64 kB)",
        ),
    ),
    "too many headers": (
        response_error(status=400, message="Too many headers received"),
        (
            "protocol",
            "h:443 sent larger headers than this client reads (128 headers, each of up to 64 kB)",
        ),
    ),
    "closed here": (
        aiohttp.ClientConnectionError("Connector is closed."),
        ("other", "no reply from h:443"),
    ),
    "odd URL": (aiohttp.InvalidURL("https://h"), ("other", "no reply from h:443")),
    "too slow": (
        aiohttp.ConnectionTimeoutError(),
        ("timeout", "no connection to h:443 within connect_timeout"),
    ),
}


@pytest.mark.parametrize(("error", "named"), FAILURES.values(), ids=FAILURES)
def test_failure_has_a_kind_and_advice(error, named):
    kind, said = named
    translated = failure(error, API, proxied=False)

    assert translated.kind == kind
    assert translated.message == said
    assert translated.cause.startswith(f"{type(error).__name__}: ")
    assert KEY not in str(translated)
    assert (translated.attempts, translated.request_id) == (1, None)


CAUSES = {
    "an error of a host's look-up": (
        aiohttp.ClientConnectorDNSError(key(), OSError(-2, "unknown")),
        "ClientConnectorDNSError: [Errno -2] unknown",
    ),
    "an error without a number": (
        aiohttp.ClientConnectorError(key(), OSError("odd")),
        "ClientConnectorError: odd",
    ),
    "a certificate": (
        aiohttp.ClientConnectorCertificateError(key(), ssl.CertificateError("old")),
        "ClientConnectorCertificateError: ('old',)",
    ),
    "a number that is not in the message": (
        aiohttp.ClientConnectorSSLError(key(), ssl.SSLError(1, "?")),
        "ClientConnectorSSLError: [Errno 1] ?",
    ),
    "closed": (
        aiohttp.ServerDisconnectedError(),
        "ServerDisconnectedError: Server disconnected",
    ),
    "a reply that is no HTTP": (
        response_error(status=400, message="Bad status line"),
        "ClientResponseError: 400, message='Bad status line'",
    ),
    "a header too long": (
        response_error(status=400, message="Got more than 65536 bytes when reading: b'ppp'"),
        "ClientResponseError: Got more than 65536 bytes",
    ),
    "closed within the headers": (
        aiohttp.ServerDisconnectedError(SimpleNamespace(reason=KEY)),
        "ServerDisconnectedError: Server disconnected within the headers",
    ),
}


@pytest.mark.parametrize(("error", "cause"), CAUSES.values(), ids=CAUSES)
def test_cause_is_the_original_message(error, cause):
    assert failure(error, API, proxied=False).cause == cause


def test_connection_timeout_names_its_limit():
    translated = failure(aiohttp.ConnectionTimeoutError(), API, proxied=False)

    assert isinstance(translated, APITimeoutError)
    assert translated.limit == "connect_timeout"


@pytest.mark.parametrize("said", ["no such host", "no possible host"])
def test_proxy_not_found_is_named(said):
    error, _ = FAILURES[said]
    translated = failure(error, API, proxied=True)

    assert translated.kind == "proxy"
    assert translated.message == (
        "the proxy in front of h:443 was not found: check proxy, or HTTPS_PROXY"
    )


@pytest.mark.parametrize("kind", get_args(ConnectionErrorKind))
def test_some_kinds_mean_no_connection(kind):
    none = {"dns", "refused", "unreachable", "certificate", "tls", "proxy"}
    assert is_no_connection(APIConnectionError("failed", kind=kind)) is (kind in none)


@pytest.mark.parametrize("limit", ["timeout", "attempt_timeout", "connect_timeout"])
def test_connect_timeout_means_no_connection(limit):
    error = APITimeoutError("late", limit=limit)
    assert is_no_connection(error) is (limit == "connect_timeout")


def test_other_errors_had_a_connection():
    assert not is_no_connection(APIError("failed"))
