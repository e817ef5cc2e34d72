"""The blocking client: the same interface, on the same coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import gc
import inspect
import linecache
import pickle
import subprocess
import sys
import threading
import traceback
import warnings
import weakref
from pathlib import Path

import pytest

from chatkit_async import (
    AsyncChatKit,
    AsyncSessions,
    AsyncThreads,
    ChatKit,
    ChatKitError,
    ChatSession,
    ClientClosedError,
    ConfigurationError,
    NotFoundError,
    ParameterError,
    Sessions,
    Threads,
    sync,
)
from chatkit_async.emulator import Emulator
from chatkit_async.sync import SessionsWithRawResponse
from chatkit_async.sync_threads import ThreadsWithRawResponse
from chatkit_async.threads import AsyncThreadsWithRawResponse
from chatkit_async.web import BlockingClientSecretEndpoint

WANTED = {"user": "user_123", "workflow": "wf_123"}
KEY = "sk-" + "0123456789abcdef" * 2


@pytest.fixture
def emulator():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def connect(emulator):
    """Makes clients of the emulator, and closes them."""
    with contextlib.ExitStack() as clients:

        def connect(**settings):
            settings = {"api_key": emulator.api_key, "base_url": emulator.base_url} | settings
            return clients.enter_context(ChatKit(**settings))

        yield connect


@pytest.fixture
def client(connect):
    return connect()


# The interface


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")}


def blocking(docstring):
    """What an asynchronous method's docstring says of a blocking one."""
    for there, here in (
        ("an `async with` block", "a `with` block"),
        ("or its task is cancelled", "or is interrupted by Ctrl-C"),
        ("`BulkRun`", "`BlockingBulkRun`"),
        (
            "in the event loop, one\n        row at a time",
            "in this thread, a few\n        rows at a time",
        ),
        ("or await it", "or call `page()`"),
        ("`AsyncPages`", "`Pages`"),
        ("Awaiting and iterating", "`page()` and iterating"),
    ):
        docstring = docstring.replace(there, here)
    return docstring


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (ChatKit, AsyncChatKit),
        (Sessions, AsyncSessions),
        (SessionsWithRawResponse, sync.AsyncSessionsWithRawResponse),
        (Threads, AsyncThreads),
        (ThreadsWithRawResponse, AsyncThreadsWithRawResponse),
    ],
)
def test_both_interfaces_have_the_same_names(here, there):
    assert public(here) == public(there)


@pytest.mark.parametrize(
    ("here", "there", "name"),
    [
        (ChatKit, AsyncChatKit, "close"),
        (ChatKit, AsyncChatKit, "with_options"),
        (Sessions, AsyncSessions, "create"),
        (Sessions, AsyncSessions, "cancel"),
        (Sessions, AsyncSessions, "open"),
        (Sessions, AsyncSessions, "create_many"),
        (Sessions, AsyncSessions, "cancel_many"),
        (Threads, AsyncThreads, "list"),
        (Threads, AsyncThreads, "retrieve"),
        (Threads, AsyncThreads, "delete"),
        (Threads, AsyncThreads, "list_items"),
    ],
)
def test_both_interfaces_take_and_say_the_same(here, there, name):
    here, there = getattr(here, name), getattr(there, name)

    assert inspect.getdoc(here) == blocking(inspect.getdoc(there))
    if callable(here):
        mine, theirs = inspect.signature(here), inspect.signature(there)
        assert list(mine.parameters.values()) == list(theirs.parameters.values())
        returned = mine.return_annotation == theirs.return_annotation
        assert returned or name in {"open", "create_many", "cancel_many", "list", "list_items"}


def test_both_clients_are_made_alike():
    mine = inspect.signature(ChatKit).parameters
    theirs = dict(inspect.signature(AsyncChatKit).parameters)
    assert theirs.pop("http_session")
    assert list(mine.values()) == list(theirs.values())

    def arguments(cls):
        return inspect.getdoc(cls).partition("Args:")[2].replace(", per event loop", "")

    ours, _, _ = arguments(AsyncChatKit).partition("    http_session:")
    assert arguments(ChatKit).startswith(ours)


def test_raw_methods_take_and_say_what_the_methods_do(client):
    for name in ("create", "cancel"):
        raw, plain = (
            getattr(client.sessions.with_raw_response, name),
            getattr(client.sessions, name),
        )
        assert inspect.signature(raw) == inspect.signature(plain)
        assert inspect.getdoc(raw) == inspect.getdoc(plain)
        assert not inspect.iscoroutinefunction(raw)


@pytest.mark.unmeasured
def test_importing_the_package_does_not_import_anyio():
    program = "import sys, chatkit_async; print(*(m for m in sys.modules if m.startswith('anyio')))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not loaded.stdout.strip()


# Calls


def test_create_and_cancel(client, emulator):
    session = client.sessions.create(**WANTED, expires_after=60)
    assert isinstance(session, ChatSession)
    assert session.client_secret.startswith("ek_")
    assert client.sessions.cancel(session.id).status == "cancelled"
    assert [record.operation for record in emulator.requests] == ["create", "cancel"]
    assert {record.connection for record in emulator.requests} == {1}


def test_the_path_of_the_openai_sdks_leads_to_the_same_sessions(client):
    assert client.chatkit.sessions is client.sessions
    assert client.beta.chatkit.sessions is client.sessions


def test_raw_responses(client):
    raw = client.sessions.with_raw_response
    assert raw is client.sessions.with_raw_response
    created = raw.create(**WANTED)
    assert (created.status_code, created.attempts) == (200, 1)
    assert raw.cancel(created.parse().id).parse().status == "cancelled"


def test_open_cancels_on_the_way_out(client, emulator):
    with client.sessions.open(**WANTED) as session:
        assert session.status == "active"
    assert emulator.sessions[session.id].status == "cancelled"


@pytest.mark.parametrize("error", [ValueError("the block's own"), KeyboardInterrupt()])
def test_open_cancels_when_its_block_raises(client, emulator, error):
    with pytest.raises(type(error)) as caught, client.sessions.open(**WANTED) as session:
        raise error
    assert caught.value is error
    assert error.__context__ is None
    assert emulator.sessions[session.id].status == "cancelled"


def test_open_notes_on_the_blocks_error_that_cancelling_failed(client, emulator):
    emulator.fail(operation="cancel", status=404)
    with pytest.raises(ValueError, match="own") as caught, client.sessions.open(**WANTED):
        raise ValueError("the block's own")
    assert "was not cancelled" in caught.value.__notes__[0]


def test_open_whose_client_is_closed_meanwhile_says_so(connect):
    client = connect()
    with pytest.raises(ClientClosedError), client.sessions.open(**WANTED):
        client.close()


def test_errors_come_over_as_they_are(client):
    with pytest.raises(NotFoundError) as missing:
        client.sessions.cancel("cksess_none")
    assert missing.value.__context__ is None
    assert missing.value.__cause__ is None
    with pytest.raises(ParameterError, match="user"):
        client.sessions.create(user="", workflow="wf_123")
    with pytest.raises(TypeError, match="did you mean 'timeout'"):
        client.sessions.create(**WANTED, timeuot=1)


@pytest.mark.parametrize("error", [TimeoutError("mine"), SystemExit(3), asyncio.CancelledError()])
def test_what_a_key_callable_raises_comes_over_and_the_client_lives_on(connect, error):
    failures = [error]

    def key():
        while failures:
            raise failures.pop()
        return KEY

    client = connect(api_key=key)
    with pytest.raises(type(error)) as caught:
        client.sessions.create(**WANTED)
    assert caught.value is error
    assert client.sessions.create(**WANTED).status == "active"


def test_an_error_is_freed_without_the_garbage_collector(client):
    def fail():
        try:
            client.sessions.cancel("cksess_none")
        except NotFoundError as error:
            return weakref.ref(error)

    fail()
    gc.collect()
    gc.disable()
    try:
        error = fail()
        client.sessions.create(**WANTED)  # the loop has finished with the call before
        assert error() is None
    finally:
        gc.enable()


def test_callables_run_in_the_clients_thread_in_the_callers_context(connect):
    request = contextvars.ContextVar("request", default="none")
    seen = []

    def note(_=None):
        seen.append((threading.current_thread().name, request.get()))
        request.set("changed by a callable")
        return KEY

    client = connect(api_key=note, on_attempt=note)
    client.sessions.create(**WANTED)
    seen.clear()
    request.set("one")
    client.sessions.create(**WANTED)
    assert seen[0] == ("chatkit-async", "one")
    assert seen[1][0] == "chatkit-async"
    assert request.get() == "one"


def test_other_options_on_the_same_connections(client, emulator):
    other = client.with_options(organization="org_2", timeout=5)
    client.sessions.create(**WANTED)
    other.sessions.create(**WANTED)
    other.close()
    client.sessions.create(**WANTED)
    assert [r.headers.get("OpenAI-Organization") for r in emulator.requests] == [
        None,
        "org_2",
        None,
    ]
    assert {record.connection for record in emulator.requests} == {1}
    client.close()
    with pytest.raises(ClientClosedError):
        other.sessions.create(**WANTED)


# What nobody is to see


def frames_of(error):
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    package = str(Path(sync.__file__).parent)
    return str([f.locals for f in trace.stack if f.filename.startswith(package)]) + str(error)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("emulate", [False, True])
def test_no_credential_shows_in_a_traceback_with_locals(emulate, raw):
    hidden = "s3cr3t" * 4
    with Emulator(api_keys=[]) if emulate else contextlib.nullcontext() as emulator:
        base_url = emulator.base_url if emulate else "http://127.0.0.1:1/v1"
        settings = {"default_headers": {"X-Token": hidden}, "max_retries": 0}
        with ChatKit(api_key=KEY, base_url=base_url, **settings) as client:
            sessions = client.sessions.with_raw_response if raw else client.sessions
            with pytest.raises(ChatKitError) as caught:
                sessions.create(**WANTED, extra_headers={"X-Other": hidden})
    shown = frames_of(caught.value)
    assert "user_123" in shown
    assert KEY not in shown
    assert hidden not in shown


def test_no_credential_shows_when_a_client_cannot_be_made(client):
    for make in (ChatKit, client.with_options):
        with pytest.raises(ConfigurationError) as caught:
            make(api_key=KEY, proxy=f"http://u:{KEY}@h", default_headers={"X": KEY}, timeout=-1)
        assert KEY not in frames_of(caught.value)


def test_a_client_does_not_show_its_key_and_refuses_to_pickle(client, emulator):
    assert repr(client) == f"ChatKit(base_url='{emulator.base_url}')"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"ChatKit holds connections .* one per process"):
            attempt(client)
    with pytest.raises(TypeError, match="cannot"):
        pickle.dumps(client.sessions)


def test_headers_of_a_raw_call_that_cannot_be_made_are_not_shown(emulator):
    with ChatKit(api_key=emulator.api_key, base_url=emulator.base_url) as client:
        with pytest.raises(TypeError) as caught:
            client.sessions.with_raw_response.create(
                user="u", extra_headers={"X": "sk-" + "7" * 20}
            )
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        lines = [line for frame in shown.stack[1:] for line in (frame.locals or {}).values()]

    assert lines
    assert not any("sk-7777" in line for line in lines)


# The warning about version "latest"

LATEST = {"id": "wf_1", "version": "latest"}


def _create(client):
    client.sessions.create(user="ada", workflow=LATEST)


def _open(client):
    with client.sessions.open(user="ada", workflow=LATEST):
        pass


def _raw(client):
    client.chatkit.sessions.with_raw_response.create(user="ada", workflow=LATEST)


def _rows(client):
    run = client.sessions.create_many([{"user": "ada", "workflow": LATEST}] * 3)
    run.results()


def _defaults(client):
    run = client.sessions.create_many(["ada", "eve"], defaults={"workflow": LATEST})
    for _ in run:
        pass


def _endpoint(client):
    endpoint = BlockingClientSecretEndpoint(client, workflow=LATEST)
    endpoint.handle(user="ada")


def _handle(client):
    endpoint = BlockingClientSecretEndpoint(client, workflow="wf_1")
    endpoint.handle(user="ada", workflow=LATEST)


@pytest.mark.parametrize("call", [_create, _open, _raw, _rows, _defaults, _endpoint, _handle])
def test_latest_version_warning_is_at_the_callers_line(client, call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(client)

    [warning] = caught
    assert warning.filename == __file__
    assert "LATEST" in linecache.getline(__file__, warning.lineno)


# Positional arguments


@pytest.mark.parametrize("raw", [False, True])
def test_a_positional_mapping_is_shown_the_right_call(client, emulator, raw):
    sessions = client.chatkit.sessions
    with pytest.raises(TypeError, match=r"create\(\*\*params\)"):
        (sessions.with_raw_response if raw else sessions).create({"user": "ada"})

    assert not emulator.requests
