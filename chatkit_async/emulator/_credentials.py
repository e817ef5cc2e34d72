"""API keys and client secrets: the detection of real ones, and the masking of all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    from chatkit_async.emulator._json import JSON

_SECRET = re.compile(r"\bek_\w+(?:=|%3[Dd])*")
_KEY = re.compile(r"\bsk-[\w-]+")
# Anywhere in a text: a key is pasted with its quotes, or with a second "Bearer".
_REAL_KEY = re.compile(r"(?<![\w-])(?:sk|sess)-([\w-]{40,})", re.ASCII)
_CREDENTIALS = ("Authorization", "Proxy-Authorization", "Cookie", "api-key", "x-api-key")
_MIN_SHOWN_KEY = 12  # characters of a key whose end is shown, which tells keys apart


def looks_real(key: str) -> bool:
    """Return True if a text may be, or contain, a key of the real service.

    Such a key has `sk-` and at least 48 random letters and digits, with `proj-`, `svcacct-` or
    `admin-` between the two; the key of a session in a browser has `sess-` and 40. A key made up
    for a test is hardly as long and has capitals, small letters and digits.
    """
    found = _REAL_KEY.search(key)
    return found is not None and all(
        any(map(kind, found[1])) for kind in (str.isupper, str.islower, str.isdigit)
    )


def masked_key(key: str) -> str:
    """Return an API key as the service echoes it, and nothing of one that may be real."""
    if len(key) < _MIN_SHOWN_KEY or looks_real(key):
        return "****"
    return f"{key[:4]}****{key[-4:]}"


def masked_text(text: str) -> str:
    """Return a text without client secrets and API keys."""
    if "ek_" in text:
        text = _SECRET.sub("ek_***", text)
    return _KEY.sub("sk-***", text) if "sk-" in text else text


def masked_json(value: JSON) -> JSON:
    """Return a JSON value without client secrets and API keys."""
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
    """Return headers with the credentials in them masked."""
    masked = CIMultiDict(headers)
    for name in _CREDENTIALS:
        if name in masked:
            masked[name] = _masked_credentials(masked[name])
    values = "\n".join(masked.values())  # all at once, because there is hardly ever one
    if masked_text(values) != values:
        masked = CIMultiDict((name, masked_text(value)) for name, value in masked.items())
    return CIMultiDictProxy(masked)


def _masked_credentials(value: str) -> str:
    scheme, _, key = value.partition(" ")
    if scheme.lower() != "bearer" or len(key) < _MIN_SHOWN_KEY or looks_real(key):
        return "***"
    return f"{scheme} ***{key[-4:]}"
