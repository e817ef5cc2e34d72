"""The faults that a call can meet, and how it ends: one line each.

`raises` and `kind` are what the caller gets when every attempt meets the fault (`kind` is the
error's own, or the HTTP status); `None` is success, whatever is odd about the reply. `waits` are
the seconds asked for before the second and the third attempt; `NEVER`: there is no other attempt.
"""

from __future__ import annotations

import attrs
from faults.behaviour import (
    BOMB,
    BROTLI,
    CHUNKED,
    DATE,
    FIVE_MIB,
    FLOOD,
    GZIP,
    HEAD,
    NESTED,
    OFF_SCHEMA,
    PAST,
    SOON,
    TWICE,
    UNFINISHED_JSON,
    closing,
    dribbling,
    encoded,
    endless,
    garbled,
    overlong,
    raw,
    redirect,
    reply,
    reset,
    session,
    silent,
    status,
    tls_port,
)
from servers import BODY, http

from chatkit_async import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
)

# With the jitter of a cell, which always draws 0.5: backoff goes to half of 0.5, then of 1.0
# seconds, and a server's own wait has half of a tenth on top.
NEVER = ()
BACKOFF = (0.25, 0.5)
TWO_SECONDS = (2.1, 2.1)


@attrs.frozen
class Fault:
    """What goes wrong, and what comes of it.

    Attributes:
        where: What is at fault: a reply or its connection; `tls`, the certificate or the
            handshake; `port`, where nobody listens; `name`, which has no address; or `used`, a
            connection that was idle. Only what comes after a connection is seen by the server.
    """

    name: str
    does: object = attrs.field(repr=False)
    raises: type[Exception] | None
    kind: str | int | None
    waits: tuple[float, ...]
    where: str = "reply"


# fmt: off
TABLE = [
    # What happens                       what the server does                        what the caller gets                    then waits
    # Redirects
    Fault("301 same origin",             redirect(301, "127.0.0.1"),                 APIStatusError, 301,                    NEVER),
    Fault("301 other origin",            redirect(301, "localhost"),                 APIStatusError, 301,                    NEVER),
    Fault("302 same origin",             redirect(302, "127.0.0.1"),                 APIStatusError, 302,                    NEVER),
    Fault("302 other origin",            redirect(302, "localhost"),                 APIStatusError, 302,                    NEVER),
    Fault("307 same origin",             redirect(307, "127.0.0.1"),                 APIStatusError, 307,                    NEVER),
    Fault("307 other origin",            redirect(307, "localhost"),                 APIStatusError, 307,                    NEVER),
    Fault("308 same origin",             redirect(308, "127.0.0.1"),                 APIStatusError, 308,                    NEVER),
    Fault("308 other origin",            redirect(308, "localhost"),                 APIStatusError, 308,                    NEVER),
    # The request is at fault
    Fault("400",                         status(400),                                BadRequestError, 400,                   NEVER),
    Fault("401",                         status(401),                                AuthenticationError, 401,               NEVER),
    Fault("403",                         status(403),                                PermissionDeniedError, 403,             NEVER),
    Fault("404",                         status(404),                                NotFoundError, 404,                     NEVER),
    Fault("408",                         status(408),                                APIStatusError, 408,                    BACKOFF),
    Fault("409",                         status(409),                                ConflictError, 409,                     BACKOFF),
    Fault("418",                         status(418),                                APIStatusError, 418,                    NEVER),
    Fault("422",                         status(422),                                UnprocessableEntityError, 422,          NEVER),
    Fault("425",                         status(425),                                APIStatusError, 425,                    NEVER),
    # Too many requests
    Fault("429",                         status(429),                                RateLimitError, 429,                    BACKOFF),
    Fault("429 in seconds",              status(429, Retry_After="2"),               RateLimitError, 429,                    TWO_SECONDS),
    Fault("429 in milliseconds",         status(429, retry_after_ms="2000"),         RateLimitError, 429,                    TWO_SECONDS),
    Fault("429 until a date",            status(429, Date=DATE, Retry_After=SOON),   RateLimitError, 429,                    TWO_SECONDS),
    Fault("429 until a date gone by",    status(429, Date=DATE, Retry_After=PAST),   RateLimitError, 429,                    BACKOFF),
    Fault("429 in zero seconds",         status(429, Retry_After="0"),               RateLimitError, 429,                    BACKOFF),
    Fault("429 in negative seconds",     status(429, Retry_After="-5"),              RateLimitError, 429,                    BACKOFF),
    Fault("429 in junk",                 status(429, Retry_After="soon"),            RateLimitError, 429,                    BACKOFF),
    Fault("429 in an hour",              status(429, Retry_After="3600"),            RateLimitError, 429,                    NEVER),
    Fault("429 for want of quota",       status(429, error_code="insufficient_quota"), RateLimitError, 429,                  NEVER),
    # The server is at fault
    Fault("500",                         status(500),                                InternalServerError, 500,               BACKOFF),
    Fault("502",                         status(502),                                InternalServerError, 502,               BACKOFF),
    Fault("503",                         status(503),                                InternalServerError, 503,               BACKOFF),
    Fault("503 in seconds",              status(503, Retry_After="2"),               InternalServerError, 503,               TWO_SECONDS),
    Fault("504",                         status(504),                                InternalServerError, 504,               BACKOFF),
    Fault("520",                         status(520),                                InternalServerError, 520,               BACKOFF),
    Fault("400, should retry",           status(400, x_should_retry="true"),         BadRequestError, 400,                   BACKOFF),
    Fault("500, should not retry",       status(500, x_should_retry="false"),        InternalServerError, 500,               NEVER),
    # Bodies of success
    Fault("empty body",                  reply(b""),                                 APIResponseError, "empty",              NEVER),
    Fault("HTML",                        reply(b"<html>Log in</html>", Content_Type="text/html"), APIResponseError, "not_json", NEVER),
    Fault("null",                        reply(b"null"),                             APIResponseError, "not_an_object",      NEVER),
    Fault("list",                        reply(b"[" + BODY + b"]"),                  APIResponseError, "not_an_object",      NEVER),
    Fault("string",                      reply(b'"%b"' % BODY.replace(b'"', b'\\"')), APIResponseError, "not_an_object",     NEVER),
    Fault("JSON without its end",        reply(UNFINISHED_JSON),                     APIResponseError, "not_json",           NEVER),
    Fault("another content type",        reply(BODY, Content_Type="text/plain"),     None, None,                             NEVER),
    Fault("another charset",             reply(BODY, Content_Type="application/json; charset=klingon"), None, None,          NEVER),
    Fault("not its charset",             reply(session(user="é").replace(b"\\u00e9", b"\xe9")), APIResponseError, "not_json", NEVER),
    Fault("byte order mark",             reply(b"\xef\xbb\xbf" + BODY),              None, None,                             NEVER),
    Fault("NaN",                         reply(session(expires_at=float("nan"))),    None, None,                             NEVER),
    Fault("duplicate keys",              reply(TWICE),                               None, None,                             NEVER),
    Fault("100,000 deep",                reply(NESTED),                              APIResponseError, "too_deep",           NEVER),
    Fault("gzip bomb",                   reply(BOMB, Content_Encoding="gzip"),       APIResponseError, "too_large",          NEVER),
    Fault("gzip that is none",           reply(BODY, Content_Encoding="gzip"),       APIResponseError, "encoding",           NEVER),
    Fault("brotli",                      reply(BROTLI, Content_Encoding="br"),       APIResponseError, "encoding",           NEVER),
    Fault("an encoding with the key",    encoded,                                    APIResponseError, "encoding",           NEVER),
    Fault("gzip unasked",                reply(GZIP, Content_Encoding="gzip"),       None, None,                             NEVER),
    Fault("a long header",               reply(BODY, X_Policy="p" * 60_000),         None, None,                             NEVER),
    Fault("endless body",                endless(),                                  APIResponseError, "too_large",          NEVER),
    Fault("5 MiB of JSON",               reply(FIVE_MIB),                            APIResponseError, "too_large",          NEVER),
    Fault("off-schema in every field",   reply(OFF_SCHEMA),                          None, None,                             NEVER),
    Fault("another session",             reply(session(user="user_124", id="cksess_124")), APIResponseError, "mismatched",   BACKOFF),
    # Wire
    Fault("no such host",                None,                                       APIConnectionError, "dns",              BACKOFF, "name"),
    Fault("refused",                     None,                                       APIConnectionError, "refused",          BACKOFF, "port"),
    Fault("reset before the headers",    reset(),                                    APIConnectionError, "reset",            BACKOFF),
    Fault("reset within the headers",    reset(HEAD[:30]),                           APIConnectionError, "reset",            BACKOFF),
    Fault("reset after the headers",     reset(HEAD + BODY[:20]),                    APIResponseError, "truncated",          BACKOFF),
    Fault("closed before the reply",     closing,                                    APIConnectionError, "disconnected",     BACKOFF),
    Fault("closed within the headers",   raw(HEAD[:30]),                             APIConnectionError, "disconnected",     BACKOFF),
    Fault("closed within the body",      raw(HEAD + BODY[:-20]),                     APIResponseError, "truncated",          BACKOFF),
    Fault("closed within a chunk",       raw(http(b"ff\r\n{", **CHUNKED)),          APIResponseError, "truncated",          BACKOFF),
    Fault("garbage for a status line",   raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),        APIConnectionError, "protocol",         BACKOFF),
    Fault("the key for a status line",   garbled,                                    APIConnectionError, "protocol",         BACKOFF),
    Fault("too long a header",           overlong,                                   APIConnectionError, "protocol",         BACKOFF),
    Fault("flood of headers",            raw(FLOOD),                                 APIConnectionError, "protocol",         BACKOFF),
    Fault("stuck within the headers",    silent(HEAD[:30]),                          APITimeoutError, "timeout",             BACKOFF),
    Fault("dribbling headers",           dribbling(b"", HEAD),                       APITimeoutError, "timeout",             BACKOFF),
    Fault("dribbling body",              dribbling(HEAD, BODY),                      APITimeoutError, "timeout",             BACKOFF),
    Fault("stuck within the body",       silent(HEAD + BODY[:20]),                   APITimeoutError, "timeout",             BACKOFF),
    Fault("never a reply",               silent(),                                   APITimeoutError, "timeout",             BACKOFF),
    Fault("stale connection",            closing,                                    APIConnectionError, "disconnected",     BACKOFF, "used"),
    # TLS
    Fault("wrong name",                  "wrong name",                               APIConnectionError, "certificate",      NEVER, "tls"),
    Fault("expired",                     "expired",                                  APIConnectionError, "certificate",      NEVER, "tls"),
    Fault("untrusted",                   "untrusted",                                APIConnectionError, "certificate",      NEVER, "tls"),
    Fault("a handshake without end",     "no answer",                                APITimeoutError, "timeout",             BACKOFF, "tls"),
    Fault("https to a plain port",       "plain",                                    APIConnectionError, "tls",              BACKOFF, "tls"),
    Fault("plain http to a TLS port",    tls_port,                                   APIConnectionError, "disconnected",     BACKOFF),
]
# fmt: on
