"""JSON as the emulator reads and writes it."""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import NoReturn, TypeAlias

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

MAX_DEPTH = 100
"""Levels of objects and arrays in a JSON value that is accepted."""

_NO_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[^\[\]{}"]++', re.DOTALL)
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_LONE_SURROGATE = re.compile(r"(\\\\|\\ud[89ab]..\\ud[c-f]..)|\\ud[89a-f]..")


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        message = f"{text} is larger than any floating-point number"
        raise ValueError(message)
    return number


_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).decode
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def encode_json(content: object) -> bytes:
    """Encode as the API does: compact, ASCII, no NaN."""
    return _encode(content).encode()


def to_json(content: object) -> bytes:
    """Encode a reply. Lone surrogates, as from some headers, become U+FFFD."""
    text = _encode(content)
    if "\\ud" in text:
        text = _LONE_SURROGATE.sub(lambda found: found[1] or "\\ufffd", text)
    return text.encode()


def parse_json(body: bytes) -> JSON | bytes:
    r"""Return the JSON value in a body, or the body itself if it is not JSON.

    What the emulator could not send back does not count as JSON: more than `MAX_DEPTH` levels, a
    number that is larger than any floating-point number (`1e999`), a lone surrogate (`"\ud800"`).
    """
    try:
        # Decoded here, because json.loads() would guess at UTF-16 and UTF-32 as well.
        text = body.decode()
        if _is_deep(text):
            return body
        value: JSON = _decode(text)
        if _SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # raises for a lone surrogate
    except ValueError:
        return body
    return value


def _is_deep(text: str) -> bool:
    """Return True if a text has more than `MAX_DEPTH` levels, without recursion."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    brackets = _NO_BRACKET.sub("", text)
    return any(depth > MAX_DEPTH for depth in accumulate(map(_STEPS.__getitem__, brackets)))
