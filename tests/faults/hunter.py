"""Hunts secrets in whatever a program shows, keeps or passes on: in text, and in objects.

A secret is hunted in pieces, in every way it may be written: a leak may be cut, or encoded.
"""

from __future__ import annotations

import base64
import json
import logging
import pickle
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import chatkit_async

PIECE = 8
"""Characters of a piece: as few as a text of ours has in common with a secret by chance."""

LIBRARY = str(Path(chatkit_async.__file__).parent)


class Hunter:
    """Looks for pieces of secrets."""

    def __init__(self, *secrets):
        self._pieces = [
            (f"{secret[:6]}..., {encoding}", piece)
            for secret in secrets
            for encoding, form in forms(secret).items()
            for piece in pieces(form)
        ]

    def found(self, text):
        """What of the secrets is in a text, and in which encoding."""
        if isinstance(text, bytes):
            text = text.decode("latin-1")
        return sorted({name for name, piece in self._pieces if piece in text})

    def hunt(self, *objects):
        """Where the secrets are in these objects, or in what can be reached from them."""
        return [
            f"{where}: {name}"
            for thing in objects
            for where, text in shown(thing)
            for name in self.found(text)
        ]


def forms(secret):
    """The ways a secret may be written, by name."""
    raw = secret.encode()
    every = {
        "plain": secret,
        "URL": quote(secret, safe=""),
        "JSON": json.dumps(secret)[1:-1],
        "repr": repr(secret)[1:-1],
    }
    for shift in range(3):
        # Where in its text a secret begins decides how it looks in base64; the characters at its
        # edges are shared with what is around it.
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        core = encoded[-(-8 * shift // 6) : (shift + len(raw)) * 8 // 6]
        every[f"base64, {shift}"] = core
        every[f"base64 of URLs, {shift}"] = core.replace("+", "-").replace("/", "_")
    return every


def pieces(form):
    """A text in pieces, but for its beginning, which says what it is: `sk-proj-`, `ek_`."""
    return [form[at : at + PIECE] for at in range(PIECE, len(form) - PIECE + 1, PIECE)]


# What an object shows -----------------------------------------------------------------------------


def shown(thing):
    """Every text an object shows or holds, each with where it is.

    An exception shows what it holds, its causes and contexts what they hold, and all of them their
    frames' locals as a crash reporter renders them.
    """
    yield from _shown(thing, type(thing).__name__, set())
    if isinstance(thing, BaseException):
        yield "traceback", rendered(thing)
        for protocol in (2, pickle.HIGHEST_PROTOCOL):
            yield f"pickle {protocol}", pickle.dumps(thing, protocol)


def _shown(thing, where, seen):
    if isinstance(thing, str | bytes | bytearray):
        # Its text, also where its repr is masked: what an error holds, its pickle holds.
        yield where, thing if isinstance(thing, str) else bytes(thing)
        return
    if id(thing) in seen or isinstance(thing, _OPAQUE):
        return
    seen.add(id(thing))
    yield f"repr of {where}", repr(thing)
    yield f"str of {where}", str(thing)
    for name, held in _held(thing):
        yield from _shown(held, f"{where}{name}", seen)


_OPAQUE = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.TracebackType,  # rendered as a whole
    types.FrameType,
    types.CodeType,
    bool,
    int,
    float,
    type(None),
)


def _held(thing):
    """What an object holds, by the way to it."""
    if isinstance(thing, Mapping):
        for key, value in thing.items():
            yield f" key {key!a}", key
            yield f"[{key!a}]", value
    elif isinstance(thing, list | tuple | set | frozenset):
        for number, item in enumerate(thing):
            yield f"[{number}]", item
    yield from ((f".{name}", value) for name, value in getattr(thing, "__dict__", {}).items())
    # Slots, and what C keeps: an AttributeError's `obj`, a UnicodeDecodeError's `object`, ...
    for cls in type(thing).__mro__:
        for name, member in vars(cls).items():
            if isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType):
                try:
                    yield f".{name}", getattr(thing, name)
                except AttributeError:  # a slot that is not set
                    continue


def rendered(error):
    """An exception's traceback with the locals of each frame, without the tests' own frames.

    The tests hold the key; what they call is cut out here, at the way into the library.
    """
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    _leave_out_tests(report, set())
    return "".join(report.format())


def _leave_out_tests(report, seen):
    if report is None or id(report) in seen:
        return
    seen.add(id(report))
    entered = [frame.filename.startswith(LIBRARY) for frame in report.stack]
    if True in entered:
        del report.stack[: entered.index(True)]
    for other in (report.__cause__, report.__context__, *(report.exceptions or ())):
        _leave_out_tests(other, seen)


# What is logged -----------------------------------------------------------------------------------


class Log(logging.Handler):
    """Keeps what is logged: as text, and with its arguments."""

    NAMES = ("chatkit_async", "aiohttp", "asyncio")

    def __init__(self):
        super().__init__(logging.DEBUG)
        self._records = []
        self._levels = {}
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(threadName)s %(message)s"))

    @property
    def text(self):
        return "\n".join(self._records)

    def emit(self, record):
        self._records += [self.format(record), repr(record.__dict__)]

    def __enter__(self):
        for name in self.NAMES:
            logger = logging.getLogger(name)
            self._levels[name] = logger.level
            logger.setLevel(logging.DEBUG)
            logger.addHandler(self)
            # Not to pytest's own handlers too: there is a record for every callback of a loop.
            logger.propagate = False
        return self

    def __exit__(self, *exc_info):
        for name, level in self._levels.items():
            logger = logging.getLogger(name)
            logger.setLevel(level)
            logger.removeHandler(self)
            logger.propagate = True
