"""The page of the documentation that shows each error of the matrix: docs/reference/messages.md.

It is made of the table, by `PYTHONPATH=.:tests python -m faults.messages`; a test holds it current.
"""

from __future__ import annotations

import re
import textwrap
from http import HTTPStatus
from pathlib import Path
from unittest import mock

import attrs
from faults.cell import EVERY_ATTEMPT, Cell, Grounds, asynchronous
from faults.table import TABLE

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "messages.md"

FAULTS = {fault.name: fault for fault in TABLE}

WIDTH = 96

HEAD = """\
# Messages

This page lists the message of each failure of a call, its meaning, and what to do.
The class comes first, as at the end of a traceback. [Errors](errors.md) lists the attributes of each class.

In brackets are the number of attempts, the seconds from the start of the call, the API's id of the last request, and the cause from the layer below, here cut to `...`.
A failure that can be retried was retried `max_retries` times before its error is raised.
The messages are printed by the tests, one for each failure that they put the client through.
"""


@attrs.frozen
class Section:
    """Faults with the same meaning and the same advice."""

    title: str
    faults: tuple[str, ...]
    means: str
    do: str


SECTIONS = [
    Section(
        "The API redirects",
        (
            *("301 same origin", "301 other origin", "302 same origin", "302 other origin"),
            *("307 same origin", "307 other origin", "308 same origin", "308 other origin"),
        ),
        "The base URL leads to something that sends its callers elsewhere: a gateway that moved, a login page, plain http that wants https. The redirect was not followed, so the key went nowhere else.",
        "If you trust the address in the message, make it `base_url` or `OPENAI_BASE_URL`.",
    ),
    Section(
        "The request is refused",
        ("400", "400, should retry", "418", "422", "425"),
        "The API, or a proxy in between, understood the request and objects to it. `error.param` and `error.body` have what it said.",
        "Correct the arguments. Limits are in [The API's fields](api-fields.md). A retry does not help.",
    ),
    Section(
        "The key is refused",
        ("401", "403"),
        "The key is missing, wrong, revoked, or of a project that may not do this.",
        "Check `OPENAI_API_KEY`, and the key's permissions; `chatkit-async doctor` says which key is used.",
    ),
    Section(
        "The workflow or session is not found",
        ("404",),
        "It does not exist in this key's project. It may exist in another project.",
        "Check the id, and that the key is of the project of the workflow. The path can be wrong too: `base_url` ends with `/v1`. What is known about the end of hosted workflows is in [The state of the hosted service](../explanation/hosted-service.md).",
    ),
    Section(
        "Too many requests",
        (
            *("429", "429 in seconds", "429 in milliseconds", "429 until a date"),
            *("429 until a date gone by", "429 in zero seconds", "429 in negative seconds"),
            *("429 in junk", "429 in an hour"),
        ),
        "The project's rate limit is used up. The client waited as long as the API asked, if `timeout` allowed it. A longer wait ends the call at once.",
        "Send fewer requests at a time, or increase `timeout`. `error.retry_after` has the seconds that the API asked for.",
    ),
    Section(
        "The quota is used up",
        ("429 for want of quota",),
        "The project has no credit left, or reached its budget.",
        "See the project's billing page. A retry does not help.",
    ),
    Section(
        "The API fails",
        (
            *("408", "409", "500", "500, should not retry", "502", "503", "503 in seconds"),
            *("504", "520"),
        ),
        "The API, or a proxy in between, failed. A create may have created a session; it expires on its own.",
        "Try again later, and look at the status page of the API. Give its support the request id.",
    ),
    Section(
        "The reply is unusable",
        (
            *("empty body", "HTML", "null", "list", "string", "JSON without its end"),
            *("not its charset", "100,000 deep", "gzip bomb", "endless body", "5 MiB of JSON"),
        ),
        "The reply has a success status, but no session in it: a login page, a proxy, another API. After a cancel, the message says that the session may have been cancelled.",
        "Check `base_url`, and any proxy or gateway on the way.",
    ),
    Section(
        "The reply cannot be decoded",
        ("gzip that is none", "brotli", "an encoding with the key"),
        "The reply is compressed in a way that the client did not ask for, or is not compressed as its `Content-Encoding` says. The API did reply, so a create may have created a session, and it was not retried.",
        "Look for a proxy or gateway that compresses replies, or changes their headers. Replies in gzip and deflate are decoded, although the client does not ask for them.",
    ),
    Section(
        "The reply is to another request",
        ("another session",),
        "Each attempt got a session of another user, or another session than the one to cancel. A proxy or gateway mixes up replies, or rewrites the ids in them. No user was given another user's secret.",
        "Look for a proxy or load balancer that sends a reply twice, and have it fixed. If a gateway of yours rewrites user ids, pass `verify_replies=False`.",
    ),
    Section(
        "The reply is cut short",
        (*("reset after the headers", "closed within the body", "closed within a chunk"),),
        "The connection ended in the middle of the reply, at each attempt.",
        "Look for a proxy or firewall that ends connections.",
    ),
    Section(
        "The host is not found",
        ("no such host",),
        "Its name has no address: the name is misspelt, or there is no network or DNS.",
        "Check `base_url`; `chatkit-async doctor` looks the name up. If the network needs a proxy, set `HTTPS_PROXY`.",
    ),
    Section(
        "The connection is refused, reset or closed",
        (
            *("refused", "reset before the headers", "reset within the headers"),
            *("closed before the reply", "closed within the headers", "stale connection"),
            "plain http to a TLS port",
        ),
        "Refused: nothing listens on that port. Reset or closed: the other side ended the connection, as a restarting server, a firewall or a port that expects https does.",
        "Check the host, the port and the scheme of `base_url`. A create may still have created a session.",
    ),
    Section(
        "The reply is not HTTP",
        (
            *("garbage for a status line", "the key for a status line"),
            *("flood of headers", "too long a header"),
        ),
        "Another service listens on that port, or a gateway adds too many headers.",
        "Check the port in `base_url`, and the headers that a gateway adds to replies.",
    ),
    Section(
        "No reply in time",
        (
            *("stuck within the headers", "dribbling headers", "dribbling body"),
            *("stuck within the body", "never a reply", "a handshake without end"),
        ),
        "The server or the network is too slow for the limit in the message, which is also in `error.limit`.",
        "Increase that limit if the API is only slow; see [Timeouts](../howto/timeouts.md). A create may still have created a session.",
    ),
    Section(
        "The certificate is not trusted",
        ("wrong name", "expired", "untrusted"),
        "The certificate is for another host, is of an authority that this machine does not know, or has expired. Nothing was sent, and the request was not retried.",
        "Check `base_url`, and this machine's clock. The end of the message has the reason. For an authority of your own, see [Proxies and TLS](../howto/proxies-and-tls.md).",
    ),
    Section(
        "The server does not use TLS",
        ("https to a plain port",),
        "The base URL says https, but the reply from that port is not TLS.",
        "Check the port; for a server on this machine, `http://` may be right.",
    ),
]


def errors(grounds, section, call=asynchronous):
    """The errors of a section: of a create, and of a cancel where it means another thing."""
    for name in section.faults:
        fault = FAULTS[name]
        for method in ("create", "cancel") if fault.kind == HTTPStatus.NOT_FOUND else ("create",):
            with (
                Cell(grounds, fault, EVERY_ATTEMPT) as cell,
                mock.patch("socket.getaddrinfo", cell.look_up),
            ):
                yield call(cell, method).error


def rendered(section, errors):
    """A section of the page, with what a person sees of its errors."""
    messages = [as_in_life(f"{type(error).__name__}: {error}") for error in errors]
    return (
        f"## {section.title}\n\n"
        "```text\n" + "\n".join(map(wrapped, dict.fromkeys(messages))) + "\n```\n\n"
        f"{section.means}\n\n**To do:** {section.do}\n"
    )


def as_in_life(message):
    """A message as it reads outside of a test, and on any machine."""
    for test, life in (
        (r"http://localhost:\d+", "https://elsewhere.example"),
        (r"http://127\.0\.0\.1:\d+", "https://api.openai.com"),
        (r"(127\.0\.0\.1|nowhere\.invalid):\d+", "api.openai.com:443"),
        (r"\('127\.0\.0\.1', \d+\)", "('api.openai.com', 443)"),
        (r"127\.0\.0\.1", "api.openai.com"),
        # What the layer below says depends on the versions of Python, aiohttp and OpenSSL.
        (r"cause: (\w+: )?.*\)$", r"cause: \1...)"),
    ):
        message = re.sub(test, life, message)
    return message


def wrapped(message):
    return textwrap.fill(
        message, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def main():
    """Write the page."""
    grounds = Grounds()
    try:
        sections = [rendered(section, errors(grounds, section)) for section in SECTIONS]
        PAGE.write_text("\n".join([HEAD, *sections]), encoding="utf-8")
    finally:
        grounds.close()


if __name__ == "__main__":
    main()
