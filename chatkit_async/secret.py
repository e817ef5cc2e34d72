"""Secret: a str that does not show itself, and the masking of text that others wrote."""

import base64
import json
import re
from collections.abc import Callable, Iterable
from typing import Self, SupportsIndex, cast
from urllib.parse import quote, unquote

__all__ = ["Secret"]

MASK = "**********"

SHORTEST = 8
"""Characters of the shortest secret that is looked for: a shorter one is a part of any text."""


class Secret(str):
    """A str that is masked in its own repr, and so in containers, models, locals and logs of them.

    Everywhere else it is the text itself: equality, JSON, f-strings, HTTP headers. A slice of it is
    one too. What else is derived from it (`str(secret)`, concatenation) is a plain `str` and no
    longer masked.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:  # noqa: D102 - see the class
        # Its text, also of a str whose str() is another, as that of an Enum's member is.
        return super().__new__(cls, str.__str__(text))

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{MASK}')"

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        part = super().__getitem__(key)
        # What renders locals, as rich and structlog, cuts long text before it takes the repr.
        return type(self)(part) if isinstance(key, slice) else part

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: object, handler: Callable[[type], object]
    ) -> dict[str, object]:
        """Let a pydantic field be typed `Secret`: validated as a str, serialised as a str."""
        return {
            "type": "function-after",
            "function": {"type": "no-info", "function": cls},
            "schema": handler(str),
        }


# What the API's credentials look like: API keys (sk-...) and client secrets (ek_...,
# chatkit_token_...). Eight characters spare prose such as "sk-..." in a message.
_TOKEN = re.compile(r"\b(?:sk|ek|sess|chatkit_token)[-_][A-Za-z0-9_\-]{8,}")
_BEARER = re.compile(r"(?i)\b(bearer\s+)[^\s\"'\\,;]+")
# In JSON, also in JSON within JSON, in a Python repr and in a form; to the end if it was cut off.
_CLIENT_SECRET = re.compile(
    r"""(?xs) ( client_secret (\\*["']) \s*:\s* \2 ) (?: .*? (?= (?<!\\) \2 ) | .* )"""
)
_FORM_SECRET = re.compile(r"\b(client_secret=)[^&\s\"']+")


def mask_text(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without the given secrets, or anything that looks like a credential.

    A secret is found plain, URL-encoded, JSON-escaped and in base64. Where it only shows after
    decoding the whole text is withheld: there is no telling what else is in there.
    """
    if "\0" in text:
        # What is UTF-16 or UTF-32 has them between its letters when it is read as UTF-8.
        secrets, joined = tuple(secrets), text.replace("\0", "")
        if mask_text(joined, secrets) != joined:
            return MASK
    for secret in secrets:
        forms = _forms(secret)
        for form in forms:
            text = text.replace(form, MASK)
        bare = _unescaped(secret)
        if forms and (secret in unquote(text) or (bare and bare in _unescaped(text))):
            return MASK
    text = _CLIENT_SECRET.sub(rf"\g<1>{MASK}", text)
    text = _FORM_SECRET.sub(rf"\g<1>{MASK}", text)
    text = _BEARER.sub(rf"\g<1>{MASK}", text)
    return _TOKEN.sub(MASK, text)


def mask_json(value: object, secrets: Iterable[str]) -> object:
    """Return a decoded JSON value with every string masked, and every client secret withheld.

    Raises:
        RecursionError: the value is nested too deeply.
    """
    if isinstance(value, str):
        return mask_text(value, secrets)
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return {
            mask_text(key, secrets): MASK
            if key == "client_secret" and member is not None
            else mask_json(member, secrets)
            for key, member in members.items()
        }
    if isinstance(value, list):
        return [mask_json(item, secrets) for item in cast("list[object]", value)]
    return value


def _forms(secret: str) -> list[str]:
    """The ways a secret is commonly written, longest first."""
    if len(secret) < SHORTEST:
        return []
    raw = secret.encode("utf-8", "surrogatepass")
    forms = {secret, quote(raw, safe=""), json.dumps(secret)[1:-1]}
    for shift in range(3):
        # In base64 three bytes become four characters: how a secret looks depends on where in its
        # text it starts. The characters at the edges are shared with the neighbours: leave them.
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        core = encoded[-(-8 * shift // 6) : (shift + len(raw)) * 8 // 6]
        forms |= {core, core.replace("+", "-").replace("/", "_")}
    return sorted(forms, key=len, reverse=True)


def _unescaped(text: str) -> str:
    r"""The text without JSON's escapes, at any depth of JSON within JSON, for a comparison."""
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    return text.replace("\\", "")
