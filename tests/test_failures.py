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
from chatkit_async._failures import failure, had_connection, is_no_connection
from chatkit_async.errors import ConnectionErrorKind

KEY = "sk-" + "0123456789abcdef" * 2
API = URL("https://h/v1/x")


def key():
    return SimpleNamespace(host="h", port=443, is_ssl=True, ssl=True)


def raised_from(error, cause):
    error.__cause__ = cause
    return error


def response_error(cls=aiohttp.ClientResponseError, method="POST", **options):
    info = aiohttp.RequestInfo(
        URL("https://h/"), method, {"Authorization": f"Bearer {KEY}"}, URL("https://h/")
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
    "TLS, after the handshake": (
        raised_from(aiohttp.ClientOSError(1, "?"), ssl.SSLError(1, "?")),
        ("other", "the TLS connection to h:443 failed"),
    ),
    "closed within the handshake": (
        aiohttp.ClientConnectorError(key(), ConnectionResetError()),
        ("reset", "h:443 reset the connection"),
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
    translated = failure(error, API)

    assert translated.kind == kind
    assert translated.message == said
    assert translated.cause.startswith(f"{type(error).__name__}: ")
    assert KEY not in str(translated)
    assert (translated.attempts, translated.request_id) == (1, None)


TEXT = 'tail_of_a_secret","title":"Private title"}'
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
        response_error(status=400, message=f"Bad status line:\n  Expected HTTP/:\n\n  b'{TEXT}'"),
        "ClientResponseError: Bad status line",
    ),
    "a header that is none": (
        response_error(status=400, message=f"Invalid HTTP header: b'{TEXT}'"),
        "ClientResponseError: Invalid HTTP header",
    ),
    "a chunk that is none, in aiohttp's own terms": (
        response_error(status=400, message=TEXT),
        "ClientResponseError: Invalid HTTP",
    ),
    "a proxy's refusal": (
        response_error(aiohttp.ClientHttpProxyError, status=403, message="Forbidden"),
        "ClientHttpProxyError: 403, message='Forbidden'",
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
    assert failure(error, API).cause == cause


def test_connection_timeout_names_its_limit():
    translated = failure(aiohttp.ConnectionTimeoutError(), API)

    assert isinstance(translated, APITimeoutError)
    assert translated.limit == "connect_timeout"


def alert(name):
    error = ssl.SSLError(1, f"[SSL: {name}] said so")
    error.reason = name
    return error


@pytest.mark.parametrize(
    "reason",
    [
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
    ],
)
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda error: aiohttp.ClientConnectorSSLError(key(), error),
        lambda error: raised_from(aiohttp.ClientOSError(*error.args), error),
        lambda error: error,
    ],
    ids=["in the handshake", "at the first read", "bare"],
)
def test_alert_asks_for_a_client_certificate(reason, wrapped):
    translated = failure(wrapped(alert(reason)), API)

    assert translated.kind == "certificate"
    assert "client certificate" in translated.message
    assert "load_cert_chain" in translated.message
    assert reason in translated.cause


@pytest.mark.parametrize("reason", ["TLSV1_ALERT_PROTOCOL_VERSION", "WRONG_VERSION_NUMBER"])
def test_other_tls_failures_are_not_the_certificate(reason):
    assert failure(aiohttp.ClientConnectorSSLError(key(), alert(reason)), API).kind == "tls"


PROXY = SimpleNamespace(host="proxy", port=3128, is_ssl=False, ssl=True)

# What a proxy does while it is to connect: the kind, and what the message says of it.
AT_PROXY = {
    "not found": (
        aiohttp.ClientConnectorDNSError(PROXY, OSError(-2, "?")),
        "proxy",
        "was not found",
    ),
    "no possible name": (UnicodeError("label empty"), "proxy", "was not found"),
    "nobody listens": (
        aiohttp.ClientProxyConnectionError(PROXY, OSError(1, "no")),
        "proxy",
        "refused",
    ),
    "refused": (
        response_error(aiohttp.ClientHttpProxyError, "CONNECT", status=407),
        "proxy",
        "refused",
    ),
    "too slow": (
        aiohttp.ConnectionTimeoutError(),
        "timeout",
        "gave no connection within connect_timeout",
    ),
    "no TLS": (
        aiohttp.ClientConnectorSSLError(PROXY, ssl.SSLError(1, "?")),
        "proxy",
        "does not speak TLS",
    ),
    "no trust": (
        aiohttp.ClientConnectorCertificateError(PROXY, ssl.CertificateError("old")),
        "certificate",
        "has a certificate that is not trusted",
    ),
    "no HTTP": (response_error(method="CONNECT", status=400), "proxy", "did not reply with HTTP"),
    "closed": (aiohttp.ServerDisconnectedError(), "proxy", "closed the connection without a reply"),
    "reset": (aiohttp.ClientOSError(errno.ECONNRESET, ""), "proxy", "reset the connection"),
    "no file descriptor": (
        aiohttp.ClientOSError(errno.EMFILE, "too many open files"),
        "proxy",
        "cannot be reached",
    ),
}


@pytest.mark.parametrize(("error", "kind", "said"), AT_PROXY.values(), ids=AT_PROXY)
@pytest.mark.parametrize("url", [URL("https://h/v1/x"), URL("http://h/v1/x")], ids=str)
def test_proxy_is_blamed_for_its_failure(error, kind, said, url):
    translated = failure(error, url, proxied=True, connected=False)

    assert translated.kind == kind
    assert translated.message == (
        f"the proxy in front of h:{url.port} {said}: check proxy, or {url.scheme.upper()}_PROXY"
    )


@pytest.mark.parametrize("name", ["no HTTP", "closed", "reset"])
def test_proxy_is_the_peer_of_plain_http(name):
    error, kind, said = AT_PROXY[name]
    translated = failure(error, URL("http://h/"), proxied=True, connected=True)

    assert translated.kind == kind
    assert f"the proxy in front of h:80 {said}" in translated.message


@pytest.mark.parametrize("name", ["certificate", "TLS", "closed within the handshake"])
def test_host_is_blamed_within_a_tunnel(name):
    error, (kind, _) = FAILURES[name]
    translated = failure(error, API, proxied=True, connected=False)

    assert translated.kind == kind
    assert "h:443 (through the proxy)" in translated.message


@pytest.mark.parametrize("name", ["closed", "reset", "no HTTP"])
def test_host_is_blamed_behind_a_tunnel(name):
    error, (kind, _) = FAILURES[name]
    translated = failure(error, API, proxied=True, connected=True)

    assert translated.kind == kind
    assert "h:443 (through the proxy)" in translated.message


def test_some_exceptions_come_before_a_connection():
    with_none = {
        *("no such host", "no possible host", "nobody listens", "no network", "no route"),
        *("no file descriptor", "certificate", "TLS", "closed within the handshake", "too slow"),
    }
    assert {name for name, (error, _) in FAILURES.items() if not had_connection(error)} == with_none
    assert not had_connection(response_error(method="CONNECT", status=400))


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
