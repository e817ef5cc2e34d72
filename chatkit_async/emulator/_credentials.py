"""API keys and client secrets: which keys look real, and what is shown instead of any."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    from chatkit_async.emulator._fields import JSON

_SECRET = re.compile(r"\bek_\w+(?:=|%3[Dd])*")
_KEY = re.compile(r"\bsk-[\w-]+")
# Wherever it starts: a key is pasted with its quotes, or with a second "Bearer".
_REAL_KEY = re.compile(r"(?<![\w-])(?:sk|sess)-([\w-]{40,})", re.ASCII)
_CREDENTIALS = ("Authorization", "Proxy-Authorization", "Cookie", "api-key", "x-api-key")
_TELLING_LENGTH = 12  # of keys that long the end is shown: enough to tell them apart, not to use


def looks_real(key: str) -> bool:
    """Whether an API key may be one of the real service, or holds one.

    Those have `sk-` and 48 random letters and digits at least, whatever `proj-`, `svcacct-` or
    `admin-` stands between; the key of a session in a browser has `sess-` and 40. A key that a
    person made up for a test hardly is as long and has capitals, small letters and digits.
    """
    found = _REAL_KEY.search(key)
    return found is not None and all(
        any(map(kind, found[1])) for kind in (str.isupper, str.islower, str.isdigit)
    )


def without_secret(text: str) -> str:
    """Return the text without a client secret: someone cancels by secret instead of id."""
    return _SECRET.sub("ek_***", text) if "ek_" in text else text


def masked_key(key: str) -> str:
    """Return an API key as the service echoes it; of one that may be real, nothing."""
    if len(key) < _TELLING_LENGTH or looks_real(key):
        return "****"
    return f"{key[:4]}****{key[-4:]}"


def masked_text(text: str) -> str:
    """Return the text without a client secret or an API key."""
    text = without_secret(text)
    return _KEY.sub("sk-***", text) if "sk-" in text else text


def masked_json(value: JSON) -> JSON:
    """Return a JSON value with every client secret and API key in it masked.

    Raises:
        RecursionError: It is nested too deeply.
    """
    match value:
        case str():
            return masked_text(value)
        case dict():
            return {masked_text(name): masked_json(each) for name, each in value.items()}
        case list():
            return [masked_json(each) for each in value]
        case _:
            return value


def masked_headers(headers: CIMultiDictProxy[str]) -> CIMultiDictProxy[str]:
    """Return the headers with the credentials in them masked."""
    masked = CIMultiDict(headers)
    for name in _CREDENTIALS:
        if name in masked:
            masked[name] = _masked_credentials(masked[name])
    values = "\n".join(masked.values())  # all at once: hardly ever is there one
    if masked_text(values) != values:
        masked = CIMultiDict((name, masked_text(value)) for name, value in masked.items())
    return CIMultiDictProxy(masked)


def _masked_credentials(value: str) -> str:
    scheme, _, key = value.partition(" ")
    if scheme.lower() != "bearer" or len(key) < _TELLING_LENGTH or looks_real(key):
        return "***"
    return f"{scheme} ***{key[-4:]}"
