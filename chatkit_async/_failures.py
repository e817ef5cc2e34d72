"""The exceptions of aiohttp and the operating system, translated to those of `errors`.

None of theirs is kept as a cause: they hold the request's headers, and so the key. The cause is
kept as text.
"""

import errno

import aiohttp
from yarl import URL

from chatkit_async.errors import APIConnectionError, APITimeoutError, ConnectionErrorKind


def is_no_connection(error: Exception) -> bool:
    """Whether a call failed for want of a connection to send a request on."""
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
"""How aiohttp's messages about headers over its limits begin."""

_UNCONNECTED = {"dns", "refused", "unreachable", "certificate", "tls", "proxy"}


def failure(error: Exception, url: URL, *, proxied: bool) -> APIConnectionError:
    """Say in the terms of `errors` what aiohttp or the operating system said."""
    host = f"{url.host}:{url.port}"
    kind, said = diagnosis(error)
    if kind == "dns" and proxied:  # it finds the host itself
        kind = "proxy"
        said = "the proxy in front of {host} was not found: check proxy, or HTTPS_PROXY"
    message = said.format(host=host)
    cause = _cause(error)
    if kind == "timeout":
        return APITimeoutError(message, limit="connect_timeout", cause=cause)
    return APIConnectionError(message, kind=kind, cause=cause)


def _cause(error: Exception) -> str:
    """The class, error number and message."""
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
        # Its message quotes the header, and cuts it: nobody recognises half a secret.
        case aiohttp.ClientResponseError(message=message) if message.startswith(_TOO_LARGE):
            said = message.partition(" when reading")[0]
        # Its own message adds the URL, and so the query.
        case aiohttp.ClientResponseError():
            said = f"{error.status}, message='{error.message}'"
        case _:
            said = str(error)
    if code is not None and not said.startswith("["):
        said = f"[Errno {code}] {said}"
    return f"{name}: {said}"


def diagnosis(error: Exception) -> tuple[ConnectionErrorKind, str]:
    """What kind of failure it was, and a sentence for it, which leaves the host open."""
    match error:
        case TimeoutError():
            return "timeout", "no connection to {host} within connect_timeout"
        case aiohttp.ClientConnectorDNSError() | UnicodeError():
            return "dns", "{host} was not found: is base_url right, is there a network?"
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return "proxy", "the proxy in front of {host} refused: check proxy, or HTTPS_PROXY"
        case aiohttp.ClientConnectorCertificateError():
            return "certificate", (
                "the certificate of {host} is not trusted: is base_url right? A private CA goes "
                "into ssl=ssl.create_default_context(cafile=...)"
            )
        case aiohttp.ClientSSLError():
            return "tls", "no TLS connection to {host}: does it speak https?"
        case aiohttp.ClientResponseError(message=read):
            return "protocol", _HEADERS_TOO_LARGE if read.startswith(_TOO_LARGE) else _NOT_HTTP
        case aiohttp.ServerDisconnectedError():
            return "disconnected", "{host} closed the connection without a reply"
        case ConnectionResetError() | BrokenPipeError():
            return "reset", "{host} reset the connection"
        case OSError(errno=code):
            return _by_errno(code)
        case _:
            return "other", "no reply from {host}"


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
