"""Secret: a str that does not show itself, and the cleaning of text that others wrote."""

import base64
import html
import json
import re
from collections.abc import Callable, Iterable
from typing import Self, SupportsIndex, cast
from urllib.parse import quote, unquote

__all__ = ["Secret"]

MASK = "**********"

MIN_UNMISTAKABLE_LENGTH = 8
"""Characters of the shortest secret that is masked wherever it is found. A shorter one may be part
of any word, and is masked where it stands alone."""


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


_UNDECODED = re.compile("[\udc80-\udcff]")

# What the API's credentials look like: API keys (sk-...) and client secrets (ek_...,
# chatkit_token_...). Eight characters spare prose such as "sk-..." in a message.
_TOKEN = re.compile(r"\b(?:sk|ek|sess|chatkit_token)[-_][A-Za-z0-9_\-]{8,}")
_BEARER = re.compile(r"(?i)\b(bearer\s+)[^\s\"'\\,;]+")
# In JSON, also in JSON within JSON, in a Python repr and in a form; to the end if it was cut off.
_CLIENT_SECRET = re.compile(
    r"""(?xs) ( client_secret (\\*["']) \s*:\s* \2 ) (?: .*? (?= (?<!\\) \2 ) | .* )"""
)
# A word's letters are not those of Chinese, Japanese and Korean, which may adjoin any word. What
# precedes a word may also be the last letter of an escape, as in "\\nword" and "%20word".
_LETTER = r"[^\W\u2e80-\U0003ffff]"
_WORD_START = rf"(?:(?<!{_LETTER})|(?<=\\[bfnrt])|(?<=%[0-9A-Fa-f]{{2}}))"
_WORD_END = rf"(?!{_LETTER})"
_FORM_SECRET = re.compile(r"\b(client_secret=)[^&\s\"']+")


def mask_text(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without the given secrets, or anything that looks like a credential.

    A secret is found plain, URL-encoded, JSON-escaped, HTML-escaped and in base64. Where it only
    shows after decoding, the whole text is withheld: there is no telling what else is in there.
    A secret of fewer than 8 characters is found where it stands alone, but not within a word, and
    not in base64.

    Bytes that were decoded to lone surrogates because they are not UTF-8 are read as Latin-1.
    """
    text = _read_as_latin_1(text)
    if "\0" in text:
        # What is UTF-16 or UTF-32 has them between its letters when it is read as UTF-8.
        secrets, joined = tuple(secrets), text.replace("\0", "")
        if mask_text(joined, secrets) != joined:
            return MASK
    for secret in filter(None, secrets):
        if len(secret) < MIN_UNMISTAKABLE_LENGTH:
            text = _standing_alone(secret).sub(MASK, text)
            continue
        for form in _forms(secret):
            text = text.replace(form, MASK)
        bare = _unescaped(secret)
        if (
            secret in unquote(text)
            or secret in html.unescape(text)
            or (bare and bare in _unescaped(text))
        ):
            return MASK
    text = _CLIENT_SECRET.sub(rf"\g<1>{MASK}", text)
    text = _FORM_SECRET.sub(rf"\g<1>{MASK}", text)
    text = _BEARER.sub(rf"\g<1>{MASK}", text)
    return _TOKEN.sub(MASK, text)


def printable(text: str) -> str:
    r"""Return `text` with each character that cannot be shown as an escape such as `\x1b`.

    Those are control characters, line breaks, lone surrogates, and invisible characters such as
    those that change the direction of writing. Bytes that were decoded to lone surrogates because
    they are not UTF-8 are read as Latin-1. The result is one line, and safe for a terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in _read_as_latin_1(text))


def clean_text(text: str, secrets: Iterable[str]) -> str:
    """Return `text` masked and printable: fit for an error, a log and a metric's label."""
    return printable(mask_text(text, secrets))


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


def _read_as_latin_1(text: str) -> str:
    """Undo the codec's "surrogateescape", by which aiohttp keeps a header's bytes not in UTF-8."""
    return _UNDECODED.sub(lambda found: chr(ord(found[0]) - 0xDC00), text)


def _forms(secret: str) -> list[str]:
    """Return the ways a secret is commonly written, longest first."""
    raw = secret.encode("utf-8", "surrogatepass")
    forms = _written_out(secret)
    for shift in range(3):
        # In base64 three bytes become four characters: how a secret looks depends on where in its
        # text it starts. The characters at the edges are shared with the neighbours: leave them.
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        core = encoded[-(-8 * shift // 6) : (shift + len(raw)) * 8 // 6]
        forms |= {core, core.replace("+", "-").replace("/", "_")}
    return sorted(forms, key=len, reverse=True)


def _written_out(secret: str) -> set[str]:
    """Return a secret as it is, and as URLs, JSON and HTML write it."""
    raw = secret.encode("utf-8", "surrogatepass")
    return {secret, quote(raw, safe=""), json.dumps(secret)[1:-1], html.escape(secret)}


def _standing_alone(secret: str) -> re.Pattern[str]:
    """Match a short secret that is neither part of a word nor punctuation of a sentence."""
    if not any(map(str.isalnum, secret)):
        return re.compile(rf"(?<![^\s\"'=:]){re.escape(secret)}(?![^\s\"',;])")
    forms = sorted(_written_out(secret), key=len, reverse=True)
    return re.compile(
        "|".join(
            (_WORD_START if form[0].isalnum() else "")
            + re.escape(form)
            + (_WORD_END if form[-1].isalnum() else "")
            for form in forms
        )
    )


def _unescaped(text: str) -> str:
    r"""Return the text without JSON's escapes, at any depth of JSON within JSON, for a comparison."""
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    return text.replace("\\", "")
