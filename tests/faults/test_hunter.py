"""The hunter finds a secret in each place it is said to look, however it is written."""

from __future__ import annotations

import base64
import json
import logging
import sys
from urllib.parse import quote

import attrs
import pytest
from faults.behaviour import status
from faults.cell import EVERY_ATTEMPT, KEY, asynchronous, blocking
from faults.hunter import Hunter, Log, rendered
from faults.table import NEVER, Fault

from chatkit_async import APIError, BadRequestError, Secret
from chatkit_async._protocol import read

pytestmark = pytest.mark.unmeasured

hunter = Hunter(KEY)


def test_it_finds_nothing_where_there_is_nothing():
    error = APIError("it failed", request_id="req_1", cause="OSError: [Errno 104] reset")
    assert hunter.hunt(error, ["sk-proj-**********", {"key": Secret("")}, b"sk-proj-"]) == []


WRITTEN = {
    "plain": lambda key: key,
    "bytes": lambda key: f"a{key}b".encode(),
    "URL": lambda key: quote(key, safe=""),
    "JSON": json.dumps,
    "JSON in JSON": lambda key: json.dumps(json.dumps({"key": key})),
    "repr": lambda key: repr([key]),
    "cut at its end": lambda key: key[:-9],
    "cut at its beginning": lambda key: key[17:],
    "a part": lambda key: f"...{key[9:25]}...",
    **{
        f"base64 after {n}": lambda key, n=n: base64.b64encode(b"u" * n + b":" + key.encode())
        for n in range(4)
    },
    **{
        f"base64 of URLs after {n}": lambda key, n=n: base64.urlsafe_b64encode(
            b"u" * n + key.encode() + b"!"
        ).decode()
        for n in range(4)
    },
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_it_finds_a_secret_however_it_is_written(write):
    assert hunter.found(write(KEY))
    assert hunter.hunt(write(KEY))


class Slotted:
    __slots__ = ("held", "unset")

    def __init__(self, held):
        self.held = held


def chained(cause):
    error = APIError("it failed")
    error.__cause__ = cause
    return error


def in_a_context(context):
    try:
        try:
            raise context
        finally:
            raise APIError("it failed")
    except APIError as error:
        error.__suppress_context__ = True  # not shown, and still there
        return error


def noted(error):
    error.add_note(f"with {KEY}")
    return error


def undecodable():
    try:
        (KEY.encode() + b"\xff").decode()
    except UnicodeDecodeError as error:
        return error


def attribute_missing():
    try:
        Slotted(KEY).nothing  # noqa: B018 - it raises
    except AttributeError as error:
        return error


@attrs.frozen
class Held:
    secret: str = attrs.field(repr=False)


def with_attribute(value):
    error = APIError("it failed")
    error.held = value
    return error


PLANTED = {
    "an argument": lambda: APIError(f"it failed: {KEY}"),
    "an argument that is not shown": lambda: with_attribute([{"a": (Secret(KEY),)}]),
    "an attribute": lambda: with_attribute(KEY),
    "a mapping's key": lambda: with_attribute({KEY: 1}),
    "a set": lambda: with_attribute({KEY}),
    "bytes": lambda: with_attribute(KEY.encode()),
    "a slot": lambda: with_attribute(Slotted(KEY)),
    "a slot whose repr is masked": lambda: with_attribute(Held(KEY)),
    "a request header": lambda: BadRequestError("no", headers={"Authorization": f"Bearer {KEY}"}),
    "a body": lambda: BadRequestError("no", body={"error": {"message": [KEY]}}),
    "a note": lambda: noted(APIError("it failed")),
    "the cause": lambda: chained(ValueError(KEY)),
    "the cause's cause": lambda: chained(chained(ValueError(KEY))),
    "the context": lambda: in_a_context(ValueError(KEY)),
    "the context's note": lambda: in_a_context(noted(ValueError())),
    "a group": lambda: chained(ExceptionGroup("several", [ValueError(KEY)])),
    "the object of a decoding error": lambda: chained(undecodable()),
    "the object of an attribute error": attribute_missing,
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_it_finds_a_secret_in_an_exception(plant):
    assert hunter.hunt(plant())


def frame_of(local):
    """An error that was raised in a frame of the library, which holds a local."""
    code = compile("def fails(held):\n    raise APIError('no')", read.__code__.co_filename, "exec")
    namespace = {"APIError": APIError}
    exec(code, namespace)  # noqa: S102 - how else would a frame be in the library's file
    try:
        namespace["fails"](local)
    except APIError as error:
        return error


def test_it_finds_a_secret_in_a_frame_of_the_library():
    found = hunter.hunt(frame_of(KEY))
    assert {place.partition(":")[0] for place in found} == {"traceback"}
    assert hunter.hunt(frame_of(Secret(KEY))) == []


def test_it_finds_a_secret_in_a_frame_of_a_context():
    assert hunter.found(rendered(chained(frame_of(KEY))))


def test_it_leaves_out_the_frames_of_the_tests_before_the_library():
    shown = rendered(frame_of("a local"))
    assert "held = 'a local'" in shown
    assert "frame_of" not in shown


@pytest.mark.parametrize("name", Log.NAMES)
def test_it_finds_a_secret_in_a_log(name):
    logger = logging.getLogger(name)
    with Log() as log:
        logger.debug("sent %s", {"Authorization": KEY})
    assert hunter.hunt(log.text)
    with Log() as log:
        logger.debug("failed", exc_info=ValueError(KEY))
    assert hunter.hunt(log.text)
    with Log() as log:
        logger.debug("sent", extra={"key": KEY})
    assert hunter.hunt(log.text)


@pytest.mark.parametrize("call", [asynchronous, blocking], ids=["async", "sync"])
def test_a_cell_shows_what_a_library_that_leaks_would_show(meeting, monkeypatch, call):
    # What masks is taken out, one after the other: each has to be missed.
    def unmasked(text, secrets):
        return text

    fault = Fault("400", status(400), BadRequestError, 400, NEVER)
    with monkeypatch.context() as patched:
        patched.setattr("chatkit_async.secret.mask_text", unmasked)
        with meeting(fault, EVERY_ATTEMPT) as cell:
            error = call(cell, "create").error
        places = {found.partition(":")[0] for found in hunter.hunt(error)}
        assert {"pickle 2", f"{type(error).__name__}.headers['X-Echo']"} <= places

    with monkeypatch.context() as patched:
        patched.setattr(Secret, "__repr__", str.__repr__)
        with meeting(fault, EVERY_ATTEMPT) as cell:
            error = call(cell, "create").error
        assert "traceback" in {found.partition(":")[0] for found in hunter.hunt(error)}


def test_a_secret_in_an_argument_of_this_process_is_found():
    assert hunter.hunt([*sys.argv, f"--api-key={KEY}"])
