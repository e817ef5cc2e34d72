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

For whoever found one in a log: what each failure of a call says, what it means, and what to do.
The class is in front, as at the end of a traceback; [Errors](errors.md) has what else it carries.

In brackets are the attempts that were made, the seconds from the start of the call, the API's id of the last request, and what the layer below said, here cut to `...`.
Whatever can be tried again has been tried again, `max_retries` times, before you see it.
These are printed by the tests, one for each way to fail that they put the client through.
"""


@attrs.frozen
class Section:
    """Faults that mean the same to whoever meets them."""

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
        "Correct the arguments. Limits are in [The API's fields](api-fields.md). Trying again does not help.",
    ),
    Section(
        "The key is refused",
        ("401", "403"),
        "The key is missing, wrong, revoked, or of a project that may not do this.",
        "Check `OPENAI_API_KEY`, and the key's permissions; `chatkit-async doctor` says which key is used.",
    ),
    Section(
        "There is no such workflow or session",
        ("404",),
        "For this key's project it does not exist. It may exist in another project.",
        "Check the id, and that the key is of the project the workflow was made in. The path can be wrong too: `base_url` ends with `/v1`. What is known about the end of hosted workflows is in [The state of the hosted service](../explanation/hosted-service.md).",
    ),
    Section(
        "Too many requests",
        (
            *("429", "429 in seconds", "429 in milliseconds", "429 until a date"),
            *("429 until a date gone by", "429 in zero seconds", "429 in negative seconds"),
            *("429 in junk", "429 in an hour"),
        ),
        "The project's rate limit is used up. The client waited as long as the API asked, if that fitted into `timeout`; a wait that does not fit ends the call at once.",
        "Send fewer at a time, or allow more `timeout`. `error.retry_after` has the seconds that the API asked for.",
    ),
    Section(
        "The quota is used up",
        ("429 for want of quota",),
        "The project has no credit left, or reached its budget.",
        "See the project's billing page. Trying again does not help.",
    ),
    Section(
        "The API fails",
        (
            *("408", "409", "500", "500, should not retry", "502", "503", "503 in seconds"),
            *("504", "520"),
        ),
        "The API, or a proxy in between, is in trouble. A create may have made a session; it expires on its own.",
        "Try again later, and look at the status page of the API. Its support wants the request id.",
    ),
    Section(
        "The reply is of no use",
        (
            *("empty body", "HTML", "null", "list", "string", "JSON without its end"),
            *("not its charset", "100,000 deep", "gzip bomb", "endless body", "5 MiB of JSON"),
        ),
        "Something answered with success, and not with a session: a login page, a proxy, another API. After a cancel the message says that the session may have been cancelled.",
        "Check `base_url`, and what is between you and it.",
    ),
    Section(
        "The reply cannot be decoded",
        ("gzip that is none", "brotli", "an encoding with the key"),
        "The reply is compressed in a way that the client did not ask for, or is not compressed as its `Content-Encoding` says. The API did answer, so a create may have made a session; it was not tried again.",
        "Look for a proxy or gateway that compresses replies, or changes their headers. Replies in gzip and deflate are decoded, although the client does not ask for them.",
    ),
    Section(
        "The reply is to another request",
        ("another session",),
        "Each attempt got a session of another user, or another session than the one to cancel. Something between you and the API mixes up replies, or rewrites the ids in them. No user was given another user's secret.",
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
        "Its name has no address: it is misspelt, or there is no network, or no DNS.",
        "Check `base_url`; `chatkit-async doctor` looks the name up. Where the way out is a proxy, set `HTTPS_PROXY`.",
    ),
    Section(
        "The connection is refused, reset or closed",
        (
            *("refused", "reset before the headers", "reset within the headers"),
            *("closed before the reply", "closed within the headers", "stale connection"),
            "plain http to a TLS port",
        ),
        "Refused: nothing listens there. Reset or closed: something was there and hung up, as a server does that restarts, a firewall, or a port that wants https.",
        "Check the host, the port and the scheme of `base_url`. A create may have made a session all the same.",
    ),
    Section(
        "What answers does not speak HTTP",
        (
            *("garbage for a status line", "the key for a status line"),
            *("flood of headers", "too long a header"),
        ),
        "Another service listens on that port, or a gateway adds headers without end.",
        "Check the port in `base_url`, and what a gateway adds to replies.",
    ),
    Section(
        "No reply in time",
        (
            *("stuck within the headers", "dribbling headers", "dribbling body"),
            *("stuck within the body", "never a reply", "a handshake without end"),
        ),
        "The server, or the way to it, is too slow for the limit that the message names. `error.limit` names it too.",
        "Raise that limit if the API is only slow; see [Timeouts](../howto/timeouts.md). A create may have made a session all the same.",
    ),
    Section(
        "The certificate is not trusted",
        ("wrong name", "expired", "untrusted"),
        "The server is not who it says, or its certificate is of an authority that this machine does not know, or has expired. Nothing was sent, and it was not tried again.",
        "Check `base_url`, and this machine's clock. The end of the message says which it is; for an authority of your own see [Proxies and TLS](../howto/proxies-and-tls.md).",
    ),
    Section(
        "There is no TLS",
        ("https to a plain port",),
        "The base URL says https, and the port answers in something else.",
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
