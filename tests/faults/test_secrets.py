"""No secret comes out of the client, however it got the key and whatever goes wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings

import aiohttp
import pytest
from faults.behaviour import CHUNKED, closing, reply, session, silent, status
from faults.cell import EVERY_ATTEMPT, KEY, METHODS, asynchronous, blocking
from faults.hunter import Hunter, Log, rendered
from faults.table import NEVER, TABLE, Fault
from patience import PATIENCE
from servers import BODY, SESSION, http

from chatkit_async import (
    APIError,
    AsyncChatKit,
    ChatKit,
    ChatSession,
    ConfigurationError,
    InvalidFieldError,
    ParameterError,
    ResponseValidationError,
)

pytestmark = pytest.mark.unmeasured

NEXT_KEY = "sk-proj-Rt5Yh8Kj2Lm6Nb3Vc9Xz4Qw7Er1"
CLIENT_SECRET = SESSION["client_secret"]

hunter = Hunter(KEY, NEXT_KEY, CLIENT_SECRET)


def fault(does, name="a fault"):
    return Fault(name, does, APIError, None, NEVER)


# However the client got its key


async def awaited():
    await asyncio.sleep(0)
    return KEY


SOURCES = {"environment": None, "function": lambda: KEY, "coroutine function": awaited}


@pytest.mark.sweep(every=7)
@pytest.mark.parametrize("call", [asynchronous, blocking], ids=["async", "sync"])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("failing", TABLE, ids=lambda fault: fault.name)
def test_no_fault_shows_a_key_of_any_source(meeting, monkeypatch, failing, source, call):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Log() as log, meeting(failing, EVERY_ATTEMPT) as cell:
        done = call(cell, "create", debug=True, api_key=source)

    assert (done.error is None) == (failing.raises is None)
    assert "Executing <Task" in log.text
    assert hunter.hunt(*filter(None, [done.error]), *done.attempts, log.text) == []


@pytest.mark.parametrize("call", [asynchronous, blocking], ids=["async", "sync"])
def test_neither_of_two_keys_is_shown_when_both_are_rejected(meeting, call):
    keys = iter([KEY, NEXT_KEY])
    with meeting(fault(status(401)), EVERY_ATTEMPT) as cell:
        done = call(cell, "create", api_key=lambda: next(keys))

    assert done.outcome.requests == 2
    assert hunter.hunt(done.error) == []


# Before anything is sent


BAD_KEY = f"{KEY}\x00"
REFUSED = {
    "key": {"api_key": BAD_KEY},
    "key, two lines": {"api_key": f"{KEY}\n{NEXT_KEY}"},
    "key, as bytes": {"api_key": KEY.encode()},
    "key, as a list": {"api_key": [KEY]},
    "another setting": {"api_key": KEY, "timeout": -1},
    "base URL": {"api_key": KEY, "base_url": f"https://{NEXT_KEY}@api.example/v1"},
    "base URL, password": {"api_key": KEY, "base_url": f"https://me:{NEXT_KEY}@api.example/v1"},
    "base URL, query": {"api_key": KEY, "base_url": f"https://api.example/v1?key={NEXT_KEY}"},
    "base URL, plain": {"api_key": KEY, "base_url": f"http://me:{NEXT_KEY}@api.example/v1"},
    "header": {"api_key": KEY, "default_headers": {"Authorization": f"Bearer {NEXT_KEY}\n"}},
    "headers": {"api_key": KEY, "default_headers": [("Authorization", f"Bearer {NEXT_KEY}")]},
    "proxy": {"api_key": KEY, "proxy": f"socks5://me:{NEXT_KEY}@proxy.example"},
    "organization": {"api_key": KEY, "organization": f"{NEXT_KEY}\n\x00"},
    "project": {"api_key": KEY, "project": [NEXT_KEY]},
}


@pytest.mark.parametrize("settings", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("client", [AsyncChatKit, ChatKit])
def test_settings_that_are_refused_are_not_shown(client, settings):
    with pytest.raises(ConfigurationError) as caught:
        client(**settings)

    assert hunter.hunt(caught.value) == []


@pytest.mark.parametrize("settings", REFUSED.values(), ids=REFUSED)
def test_other_settings_that_are_refused_are_not_shown(settings):
    client = AsyncChatKit(api_key=KEY)
    with pytest.raises(ConfigurationError) as caught:
        client.with_options(**settings)

    assert hunter.hunt(caught.value) == []


ENVIRONMENT = {
    "key": {"OPENAI_API_KEY": f"{KEY}\x01"},
    "base URL": {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"https://{NEXT_KEY}@api.example/v1"},
    "organization": {"OPENAI_API_KEY": KEY, "OPENAI_ORG_ID": f"{NEXT_KEY}\x01"},
    "proxy": {"OPENAI_API_KEY": KEY, "https_proxy": f"socks5://me:{NEXT_KEY}@proxy.example"},
}


@pytest.mark.parametrize("variables", ENVIRONMENT.values(), ids=ENVIRONMENT)
@pytest.mark.parametrize("client", [AsyncChatKit, ChatKit])
def test_an_environment_that_is_refused_is_not_shown(monkeypatch, client, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        client()

    assert hunter.hunt(caught.value) == []


@pytest.mark.parametrize("given", [BAD_KEY, KEY.encode(), [KEY], f"  {KEY}\t{KEY}"])
async def test_what_a_callable_gives_in_place_of_a_key_is_not_shown(given):
    async with AsyncChatKit(api_key=lambda: given, base_url="https://127.0.0.1:1") as client:
        with pytest.raises(ConfigurationError) as caught:
            await client.sessions.create(user="user_123", workflow="wf_123")

    assert hunter.hunt(caught.value) == []


OPTIONS = {
    "header": {"extra_headers": {"Authorization": f"Bearer {NEXT_KEY}\n"}},
    "headers": {"extra_headers": [f"Bearer {NEXT_KEY}"], "timeout": -1},
    "header's name": {"extra_headers": {"X Key": NEXT_KEY}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_that_are_refused_are_not_shown(options):
    with ChatKit(api_key=KEY) as client, pytest.raises(ParameterError) as caught:
        client.sessions.create(user="user_123", workflow="wf_123", **options)

    assert hunter.hunt(caught.value) == []


# Ends that are no errors of ours


@pytest.mark.parametrize("method", METHODS)
def test_a_call_that_is_cancelled_shows_nothing(meeting, method):
    async def main(cell):
        async with AsyncChatKit(**cell.settings) as client:
            call = asyncio.create_task(METHODS[method](client.sessions))
            await asyncio.to_thread(cell.until_asked)
            call.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await call
            return caught.value

    with meeting(fault(silent()), EVERY_ATTEMPT) as cell:
        error = asyncio.run(main(cell))

    assert "in _attempt\n" in rendered(error)
    assert hunter.hunt(error) == []


WITHIN = {
    "a body": silent(http(BODY, X_Echo=f"Bearer {KEY}")[:-20]),
    "a chunk": silent(http(b"fff\r\n" + BODY[:-20], **CHUNKED)),
}


@pytest.mark.parametrize("does", WITHIN.values(), ids=WITHIN)
def test_a_call_that_is_cancelled_within_the_reply_shows_nothing(meeting, does):
    async def main(cell):
        headers_read = asyncio.Event()

        async def note(*_):
            headers_read.set()

        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(note)
        trace.freeze()
        async with AsyncChatKit(**cell.settings) as client:
            client._attempts.transport._session().trace_configs.append(trace)
            call = asyncio.create_task(METHODS["create"](client.sessions))
            # A caller's own limit: the cancellation is the cause of what is raised.
            await headers_read.wait()
            await asyncio.sleep(0)  # the beginning of the body came with the headers
            call.cancel()
            try:
                await call
            except asyncio.CancelledError as error:
                raise TimeoutError from error

    with (
        meeting(fault(does), EVERY_ATTEMPT) as cell,
        pytest.raises(TimeoutError) as caught,
    ):
        asyncio.run(main(cell))

    assert "in _attempt\n" in rendered(caught.value)
    assert hunter.hunt(caught.value) == []


def test_a_call_that_closing_ends_shows_nothing(meeting):
    async def main(cell):
        client = AsyncChatKit(**cell.settings)
        call = asyncio.create_task(METHODS["create"](client.sessions))
        await asyncio.to_thread(cell.until_asked)
        await client.close()
        [error] = await asyncio.gather(call, return_exceptions=True)
        return error

    with meeting(fault(silent()), EVERY_ATTEMPT) as cell:
        error = asyncio.run(main(cell))

    assert "closed" in str(error)
    assert hunter.hunt(error) == []


@pytest.mark.parametrize("does", [reply(BODY), status(400), closing], ids=["ok", "400", "closed"])
@pytest.mark.parametrize("call", [asynchronous, blocking], ids=["async", "sync"])
def test_what_a_hook_raises_shows_nothing_of_the_library(meeting, does, call):
    def hook(attempt):
        raise LookupError("of the hook")

    with meeting(fault(does), EVERY_ATTEMPT) as cell:
        done = call(cell, "create", on_attempt=hook)

    assert isinstance(done.error, LookupError)
    assert "in _report\n" in rendered(done.error)
    assert hunter.hunt(done.error) == []


def test_what_a_key_callable_raises_shows_nothing_of_the_library(meeting):
    keys = iter([KEY])

    def key():
        return next(keys, None) or 1 / 0

    with meeting(fault(status(401)), EVERY_ATTEMPT) as cell:
        done = asynchronous(cell, "create", api_key=key)

    assert isinstance(done.error, ZeroDivisionError)
    assert hunter.hunt(done.error) == []


async def leave_async(cell):
    async with AsyncChatKit(**cell.settings) as client:
        client._attempts.seam = cell.clock.seam
        async with client.sessions.open(user="user_123", workflow="wf_123"):
            raise LookupError("of the block")


def leave_blocking(cell):
    with ChatKit(**cell.settings) as client:
        client._client._attempts.seam = cell.clock.seam
        with client.sessions.open(user="user_123", workflow="wf_123"):
            raise LookupError("of the block")


@pytest.mark.parametrize(
    "leave", [lambda cell: asyncio.run(leave_async(cell)), leave_blocking], ids=["async", "sync"]
)
def test_a_session_that_was_not_cancelled_is_noted_without_its_secret(meeting, leave):
    async def a_session_and_no_cancel(wire, request, cell):
        does = status(404) if "/cancel" in request.line else reply(BODY)
        return await does(wire, request, cell)

    with (
        meeting(fault(a_session_and_no_cancel), EVERY_ATTEMPT) as cell,
        pytest.raises(LookupError) as caught,
    ):
        leave(cell)

    assert "404" in caught.value.__notes__[0]
    assert hunter.hunt(caught.value) == []


# Sessions


BENT = {
    "a list": session(client_secret=[CLIENT_SECRET]),
    "an object": session(client_secret={"value": CLIENT_SECRET}),
    "beside a field that is missing": BODY.replace(b'"expires_at"', b'"expired"'),
    "beside a field that is bent": session(expires_at="soon", workflow=None),
    "of another name": session(secret=CLIENT_SECRET),
}


@pytest.mark.parametrize("body", BENT.values(), ids=BENT)
def test_a_session_that_does_not_fit_shows_no_secret(meeting, body):
    with meeting(fault(reply(body)), EVERY_ATTEMPT) as cell:
        created = asynchronous(cell, "create").result

    assert isinstance(created, ChatSession)
    assert hunter.found(repr(created)) == []
    errors = []
    try:
        created.validate()
    except ResponseValidationError as error:
        errors.append(error)
    for name in SESSION:
        try:
            getattr(created, name)
        except AttributeError as error:
            errors.append(error)
    assert errors or b'"secret"' in body
    assert hunter.hunt(*errors) == []


def test_a_field_that_is_bent_is_named_without_its_value():
    created = ChatSession.from_dict({**SESSION, "client_secret": [CLIENT_SECRET]})
    with pytest.raises(InvalidFieldError, match="client_secret") as caught:
        created.client_secret  # noqa: B018 - reading it raises

    assert hunter.hunt(caught.value) == []


async def test_a_raw_response_shows_no_secret(meeting):
    with meeting(fault(reply(BODY)), EVERY_ATTEMPT) as cell:
        async with AsyncChatKit(**cell.settings) as client:
            raw = await client.sessions.with_raw_response.create(user="user_123", workflow="wf_123")

    assert CLIENT_SECRET.encode() in raw.content
    assert hunter.found(repr(raw)) == []


# Clients


def test_a_client_that_was_not_closed_warns_without_its_key(meeting):
    with (
        meeting(fault(reply(BODY)), EVERY_ATTEMPT) as cell,
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        client = ChatKit(**cell.settings)
        METHODS["create"](client.sessions)
        server = cell.settings["base_url"]
        shown = repr(client) + repr(client._client) + repr(vars(client._client))
        thread = client._loop_thread._thread
        del client
        gc.collect()
        thread.join(PATIENCE)

    # The collection may find others' garbage, too: this client's warning names its server.
    mine = [warning for warning in warned if server in str(warning.message)]
    assert [warning.category for warning in mine] == [ResourceWarning]
    assert hunter.found(f"{shown}{mine[0].message}{mine[0].source}") == []


def test_a_log_of_everything_the_library_holds_shows_nothing(caplog):
    client = AsyncChatKit(api_key=KEY, default_headers={"X-Key": NEXT_KEY})
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("app").debug(
            "%s %s %s", client._attempts.settings, client._given, client._attempts._headers
        )

    assert "api_key" in caplog.text
    assert hunter.found(caplog.text) == []
