"""The exceptions of aiohttp and the operating system, translated to those of `errors`.

None of theirs is kept as a cause: they hold the request's headers, and so the key. The cause is
kept as text.
"""

import errno
import ssl

import aiohttp
from yarl import URL

from chatkit_async.errors import APIConnectionError, APITimeoutError, ConnectionErrorKind


def is_no_connection(error: Exception) -> bool:
    """Return True if a call failed because no connection could be opened."""
    match error:
        case APITimeoutError():
            return error.limit == "connect_timeout"
        case APIConnectionError():
            return error.kind in _UNCONNECTED
        case _:
            return False


_NOT_HTTP = "{host} did not reply with HTTP: is base_url right?"
_HEADERS_TOO_LARGE = (
    "{host} sent larger headers than this client reads (128 headers, each of up to 64 kB)"
)
_TOO_LARGE = ("Got more than", "Too many headers")
"""The beginnings of aiohttp's messages about headers over its limits."""

_PARSER_MESSAGES = (
    "Bad status line",
    "Invalid HTTP header",
    "Invalid header token",
    "Invalid header value char",
    "Invalid character in chunk size",
    "Invalid character in Content-Length",
)
"""The beginnings of aiohttp's messages about what it cannot parse. A quotation follows."""

_UNCONNECTED = {"dns", "refused", "unreachable", "certificate", "tls", "proxy"}


def had_connection(error: Exception) -> bool:
    """Return True if the exception came when there was a connection, and a request could go out.

    A proxy that ends the connection while it is to open a tunnel cannot be told from a host that
    ends it after.
    """
    if isinstance(error, aiohttp.ClientResponseError):
        return error.request_info.method != "CONNECT"
    return not isinstance(
        error,
        aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | UnicodeError,
    )


def failure(
    error: Exception, url: URL, *, proxied: bool = False, connected: bool = True
) -> APIConnectionError:
    """Translate an exception of aiohttp or the operating system.

    Args:
        error: The exception.
        url: The request's URL.
        proxied: True if a proxy is in front of the host.
        connected: True if the request had a connection: with TLS, one to the host.
    """
    host = f"{url.host}:{url.port}"
    kind, said = diagnosis(error)
    message = said.format(host=f"{host} (through the proxy)" if proxied else host)
    if proxied and _is_proxys(error, url, connected=connected):
        message = f"the proxy in front of {host} {_OF_PROXIES.get(kind, 'refused')}"
        message += f": check proxy, or {url.scheme.upper()}_PROXY"
        kind = kind if kind in {"timeout", "certificate"} else "proxy"
    cause = _cause(error)
    if kind == "timeout":
        return APITimeoutError(message, limit="connect_timeout", cause=cause)
    return APIConnectionError(message, kind=kind, cause=cause)


_OF_PROXIES: dict[ConnectionErrorKind, str] = {
    "dns": "was not found",
    "timeout": "gave no connection within connect_timeout",
    "certificate": "has a certificate that is not trusted",
    "tls": "does not speak TLS",
    "protocol": "did not reply with HTTP",
    "disconnected": "closed the connection without a reply",
    "reset": "reset the connection",
    "other": "cannot be reached",
}


def _is_proxys(error: Exception, url: URL, *, connected: bool) -> bool:
    """Return True if the proxy failed, and not the host behind it.

    Plain http is between the client and the proxy alone. With https the proxy opens a tunnel, and
    only TLS inside of the tunnel fails in aiohttp with the host's own address.
    """
    if connected:
        return url.scheme == "http"
    in_tunnel = (
        isinstance(error, aiohttp.ClientConnectorError)
        and not isinstance(error, aiohttp.ClientProxyConnectionError)
        and not isinstance(error, aiohttp.ClientConnectorDNSError)
        and (error.host, error.port) == (url.raw_host, url.port)
    )
    return not in_tunnel


def _cause(error: Exception) -> str:
    """Return the class, error number and message."""
    name, code = type(error).__name__, getattr(error, "errno", None)
    match error:
        # Their own messages add the address of an SSLContext.
        case aiohttp.ClientConnectorCertificateError():
            said = str(error.certificate_error)
        case aiohttp.ClientConnectorError():
            said = str(error.os_error)
        # Its message is what was read of the headers, in aiohttp's own terms.
        case aiohttp.ServerDisconnectedError() if not isinstance(error.message, str):
            said = "Server disconnected within the headers"
        # Its own message adds the URL, and so the query.
        case aiohttp.ClientHttpProxyError():
            said = f"{error.status}, message='{error.message}'"
        # Its message quotes what was read, which may be a part of a secret or of a conversation.
        case aiohttp.ClientResponseError(message=message) if message.startswith(_TOO_LARGE):
            said = message.partition(" when reading")[0]
        case aiohttp.ClientResponseError(message=message):
            said = next(filter(message.startswith, _PARSER_MESSAGES), "Invalid HTTP")
        case _:
            said = str(error)
    if code is not None and not said.startswith("["):
        said = f"[Errno {code}] {said}"
    return f"{name}: {said}"


def diagnosis(error: Exception) -> tuple[ConnectionErrorKind, str]:
    """Return the kind of a failure and a sentence for it, with a place for the host."""
    match error:
        case TimeoutError():
            return "timeout", "no connection to {host} within connect_timeout"
        case aiohttp.ClientConnectorDNSError() | UnicodeError():
            return "dns", "{host} was not found: is base_url right, is there a network?"
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return "proxy", "{host} refused"
        case aiohttp.ClientResponseError(message=read):
            return "protocol", _HEADERS_TOO_LARGE if read.startswith(_TOO_LARGE) else _NOT_HTTP
        case aiohttp.ServerDisconnectedError():
            return "disconnected", "{host} closed the connection without a reply"
        case OSError() if failed := _underlying(error, ssl.SSLError, ssl.CertificateError):
            return _by_tls(failed, had_connection=had_connection(error))
        case OSError() if _underlying(error, ConnectionResetError, BrokenPipeError):
            return "reset", "{host} reset the connection"
        case OSError(errno=code):
            return _by_errno(code)
        case _:
            return "other", "no reply from {host}"


def _underlying(error: Exception, *classes: type[Exception]) -> Exception | None:
    """Return the exception that aiohttp wrapped, or its own, if it is of one of these classes."""
    candidates = (getattr(error, "os_error", None), error.__cause__, error)
    return next((each for each in candidates if isinstance(each, classes)), None)


def _by_tls(error: Exception, *, had_connection: bool) -> tuple[ConnectionErrorKind, str]:
    # With TLS 1.3 a server says what it thinks of the client's certificate when the client's
    # handshake is over already: as the first thing that is read.
    alert = (getattr(error, "reason", None) or "").partition("ALERT_")[2]
    if alert in _CERTIFICATE_ALERTS:
        return "certificate", (
            "{host} asks for a client certificate that it accepts: load one with "
            "context.load_cert_chain(...), and pass ssl=context"
        )
    if alert == "HANDSHAKE_FAILURE":  # TLS 1.2 says no more than that
        return "certificate", (
            "{host} refused the TLS handshake: if it asks for a client certificate, load one with "
            "context.load_cert_chain(...), and pass ssl=context"
        )
    if isinstance(error, ssl.CertificateError):
        return "certificate", (
            "the certificate of {host} is not trusted: is base_url right? A private CA goes "
            "into ssl=ssl.create_default_context(cafile=...)"
        )
    if had_connection:
        return "other", "the TLS connection to {host} failed"
    return "tls", "no TLS connection to {host}: does it speak https?"


_CERTIFICATE_ALERTS = {
    "ACCESS_DENIED",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REQUIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
    "UNKNOWN_CA",
    "UNSUPPORTED_CERTIFICATE",
}
"""TLS alerts about the client's certificate, or the lack of one: RFC 8446, section 6.2."""


def _by_errno(code: int | None) -> tuple[ConnectionErrorKind, str]:
    match code:
        case errno.ECONNREFUSED:
            return "refused", "{host} refused the connection: is the server up, the port right?"
        case errno.ECONNRESET | errno.EPIPE | errno.ECONNABORTED:
            return "reset", "{host} reset the connection"
        case errno.ENETUNREACH | errno.EHOSTUNREACH | errno.EADDRNOTAVAIL:
            return "unreachable", "{host} cannot be reached: is there a network?"
        case _:
            return "other", "no connection to {host}"
