"""Creating, cancelling and opening sessions, over real sockets against the emulator."""

from __future__ import annotations

import asyncio
import linecache
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

import aiohappyeyeballs
import async_solipsism
import attrs
import pytest
from servers import HANG, SESSION, http, replying, serve

from chatkit_async import (
    APIResponse,
    AsyncChatKit,
    AsyncSessions,
    ChatSession,
    ChatSessionExpiresAfterParam,
    ChatSessionRateLimitsParam,
    ChatSessionWorkflowParam,
    ClientClosedError,
    InternalServerError,
    MissingFieldError,
    NotFoundError,
    ParameterError,
)
from chatkit_async.emulator import Clock, Emulator
from chatkit_async.web import ClientSecretEndpoint

WANTED = {"user": "user_123", "workflow": "wf_123"}
NOTE = "the session was not cancelled, and expires on its own: "


async def no_wait(seconds):
    pass


@pytest.fixture
async def emulator():
    async with Emulator() as emulator:
        yield emulator


@pytest.fixture
async def client(emulator):
    async with AsyncChatKit(api_key=emulator.api_key, base_url=emulator.base_url) as client:
        client._attempts.seam = attrs.evolve(client._attempts.seam, sleep=no_wait)
        yield client


@pytest.fixture
def sessions(client):
    return client.sessions


class BlockError(Exception):
    """What the block of an `async with` raises."""


# create


async def test_a_session_is_created(sessions, emulator):
    session = await sessions.create(**WANTED)

    [made] = emulator.sessions.values()
    assert isinstance(session, ChatSession)
    assert session.validate() is session
    assert (session.id, session.client_secret) == (made.id, made.client_secret)
    assert (session.user, session.workflow.id) == ("user_123", "wf_123")
    assert session.status == "active"


@pytest.mark.parametrize(
    "given",
    [
        {"workflow": "wf_1", "expires_after": 60, "rate_limits": 5},
        {"workflow": {"id": "wf_1"}, "expires_after": timedelta(minutes=1), "rate_limits": 5},
        {
            "workflow": {"id": "wf_1"},
            "expires_after": {"seconds": 60, "anchor": "created_at"},
            "rate_limits": {"max_requests_per_1_minute": 5},
        },
        {
            "workflow": ChatSessionWorkflowParam(id="wf_1"),
            "expires_after": ChatSessionExpiresAfterParam(seconds=60),
            "rate_limits": ChatSessionRateLimitsParam(max_requests_per_1_minute=5),
        },
    ],
    ids=["plain", "timedelta", "mappings", "classes"],
)
async def test_every_form_of_a_parameter_sends_the_same(sessions, emulator, given):
    await sessions.create(user="user_1", **given)

    assert emulator.requests[0].body == {
        "user": "user_1",
        "workflow": {"id": "wf_1"},
        "expires_after": {"seconds": 60, "anchor": "created_at"},
        "rate_limits": {"max_requests_per_1_minute": 5},
    }


async def test_the_configuration_is_sent(sessions, emulator):
    configuration = {"file_upload": {"enabled": True, "max_files": 3}}

    session = await sessions.create(**WANTED, chatkit_configuration=configuration)

    assert emulator.requests[0].body["chatkit_configuration"] == configuration
    assert session.chatkit_configuration.file_upload.max_files == 3


async def test_every_problem_is_named_and_nothing_sent(sessions, emulator):
    with pytest.raises(ParameterError) as caught:
        await sessions.create(user=" ", workflow="", expires_after=0, timeout=-1)

    assert {path for path, _ in caught.value.problems} == {
        "user",
        "workflow",
        "expires_after",
        "timeout",
    }
    assert not emulator.requests


@pytest.mark.parametrize(
    "call",
    [
        lambda sessions: sessions.create(**WANTED, max_retrys=3),
        lambda sessions: sessions.cancel("cksess_1", max_retrys=3),
        lambda sessions: sessions.open(**WANTED, max_retrys=3).__aenter__(),
    ],
    ids=["create", "cancel", "open"],
)
async def test_an_option_that_does_not_exist_is_refused_as_python_does(sessions, emulator, call):
    with pytest.raises(TypeError, match="'max_retrys'; did you mean 'max_retries'"):
        await call(sessions)

    assert not emulator.requests


async def test_a_reply_that_does_not_fit_the_schema_is_a_session_all_the_same(sessions, emulator):
    emulator.fail(off_schema=True)

    session = await sessions.create(**WANTED)

    [made] = emulator.sessions.values()
    assert session.client_secret == made.client_secret
    with pytest.raises(MissingFieldError):
        session.id  # noqa: B018 - reading it is what raises


# cancel


async def test_a_session_is_cancelled(sessions, emulator):
    session = await sessions.create(**WANTED)

    cancelled = await sessions.cancel(session.id)

    assert (cancelled.id, cancelled.status) == (session.id, "cancelled")
    assert emulator.sessions[session.id].status == "cancelled"


async def test_a_cancellation_has_no_body(sessions, emulator):
    with pytest.raises(NotFoundError, match="same project as the key"):
        await sessions.cancel("cksess_1")

    [record] = emulator.requests
    assert record.method == "POST"
    assert record.headers["Content-Length"] == "0"
    assert record.body == b""


async def test_a_cancellation_takes_options_too(sessions, emulator):
    with pytest.raises(NotFoundError):
        await sessions.cancel(
            "cksess_1", extra_headers={"X-A": "1"}, extra_query={"b": 2}, extra_body={"c": 3}
        )

    [record] = emulator.requests
    assert (record.headers["X-A"], record.query, record.body) == ("1", "b=2", {"c": 3})


@pytest.mark.parametrize(
    ("session_id", "segment"),
    [
        ("cksess_1", "cksess_1"),
        ("a/b", "a%2Fb"),
        ("a?x=1", "a%3Fx%3D1"),
        ("a%2Fb", "a%252Fb"),
        ("é", "%C3%A9"),
        ("a b", "a%20b"),
        ("a#b", "a%23b"),
        ("../x", "..%2Fx"),
        ("...", "..."),
        ("a+b&c;d", "a%2Bb%26c%3Bd"),
        ("~", "~"),
    ],
)
async def test_an_id_arrives_as_one_segment_encoded_once(sessions, emulator, session_id, segment):
    with pytest.raises(NotFoundError):
        await sessions.cancel(session_id)

    [record] = emulator.requests
    assert record.path == f"/v1/chatkit/sessions/{segment}/cancel"
    assert record.session_id == session_id


@pytest.mark.parametrize("session_id", ["", " ", ".", "..", "a\r\nb", "a\0", "\ud800", None, 5])
async def test_an_id_that_cannot_be_right_is_not_sent(sessions, emulator, session_id):
    with pytest.raises(ParameterError, match="session_id"):
        await sessions.cancel(session_id)

    assert not emulator.requests


# with_raw_response


async def test_raw_methods_return_the_reply(sessions):
    created = await sessions.with_raw_response.create(**WANTED)
    cancelled = await sessions.with_raw_response.cancel(created.parse().id)

    assert isinstance(created, APIResponse)
    assert (created.status_code, created.attempts) == (200, 1)
    assert created.request_id.startswith("req_")
    assert (created.parse().status, cancelled.parse().status) == ("active", "cancelled")


async def test_raw_methods_check_as_the_methods_do(sessions, emulator):
    with pytest.raises(ParameterError):
        await sessions.with_raw_response.create(user="", workflow="wf_1")

    assert not emulator.requests


async def test_raw_methods_are_made_once(sessions):
    assert sessions.with_raw_response is sessions.with_raw_response


# open


async def test_leaving_a_block_cancels_its_session(sessions, emulator):
    async with sessions.open(**WANTED) as session:
        assert emulator.sessions[session.id].status == "active"

    assert emulator.sessions[session.id].status == "cancelled"


async def test_a_session_that_was_not_created_opens_no_block(sessions, emulator):
    emulator.fail(status=404)
    with pytest.raises(NotFoundError):
        async with sessions.open(**WANTED):
            pytest.fail("the block was entered")

    assert [record.operation for record in emulator.requests] == ["create"]


async def test_a_block_that_raises_cancels_its_session(sessions, emulator):
    error = BlockError()
    with pytest.raises(BlockError) as caught:
        async with sessions.open(**WANTED) as session:
            raise error

    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert emulator.sessions[session.id].status == "cancelled"


async def test_what_fails_on_leaving_is_raised(sessions, emulator):
    emulator.fail(operation="cancel", status=500, times=None)
    left = sessions.open(**WANTED)
    await left.__aenter__()

    with pytest.raises(InternalServerError):
        await left.__aexit__(None, None, None)


async def test_what_fails_on_leaving_is_noted_on_what_the_block_raised(sessions, emulator):
    emulator.fail(operation="cancel", status=500, times=None)
    with pytest.raises(BlockError) as caught:
        async with sessions.open(**WANTED):
            raise BlockError

    [note] = caught.value.__notes__
    assert note.startswith(f"{NOTE}the API replied 500")


async def test_a_session_without_an_id_cannot_be_cancelled(sessions, emulator):
    emulator.fail(operation="create", off_schema=True)
    with pytest.raises(MissingFieldError, match="has no 'id'"):
        async with sessions.open(**WANTED) as session:
            assert session.client_secret


async def test_extra_headers_go_with_the_cancellation_and_other_options_do_not(sessions, emulator):
    async with sessions.open(
        **WANTED, extra_headers={"X-A": "1"}, extra_query={"b": 2}, extra_body={"c": 3}
    ):
        pass

    create, cancel = emulator.requests
    assert (create.headers["X-A"], create.query, create.body["c"]) == ("1", "b=2", 3)
    assert (cancel.headers["X-A"], cancel.query, cancel.body) == ("1", "", b"")


async def test_leaving_when_the_client_was_closed_says_so(sessions, client):
    with pytest.raises(ClientClosedError):
        async with sessions.open(**WANTED):
            await client.close()


def opened(sessions, entered):
    async def block():
        async with sessions.open(**WANTED):
            entered.set()
            await asyncio.get_running_loop().create_future()

    return asyncio.create_task(block())


async def test_a_cancelled_task_cancels_its_session(sessions, emulator):
    entered = asyncio.Event()
    task = opened(sessions, entered)
    await entered.wait()

    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task

    [session] = emulator.sessions.values()
    assert session.status == "cancelled"


async def test_cancelling_again_does_not_keep_the_session_from_being_cancelled():
    answer = asyncio.Event()

    async def slow(server, wire):
        while True:
            request = await wire.request()
            server.requests.append(request)
            server.note()
            if "cancel" in request.line:
                await answer.wait()
            await wire.send(http())

    async with (
        serve(slow) as server,
        AsyncChatKit(api_key="sk-test-test", base_url=server.base_url) as client,
    ):
        entered = asyncio.Event()
        task = opened(client.sessions, entered)
        await entered.wait()
        task.cancel("first")
        await server.until(lambda: len(server.requests) == 2)
        task.cancel("second")
        await asyncio.sleep(0)
        assert not task.done()
        answer.set()
        with pytest.raises(asyncio.CancelledError, match="second"):
            await task


async def test_cancelling_while_leaving_keeps_the_failure_as_its_cause(emulator, sessions):
    emulator.fail(operation="cancel", status=404, delay=0.01)
    entered = asyncio.Event()

    async def block():
        async with sessions.open(**WANTED):
            entered.set()

    task = asyncio.create_task(block())
    await entered.wait()
    await emulator.until(lambda: len(emulator.requests) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task

    assert isinstance(caught.value.__cause__, NotFoundError)


async def test_cancelling_while_leaving_has_no_cause_after_a_success(emulator, sessions):
    emulator.fail(operation="cancel", delay=0.01)
    entered = asyncio.Event()

    async def block():
        async with sessions.open(**WANTED):
            entered.set()

    task = asyncio.create_task(block())
    await entered.wait()
    await emulator.until(lambda: len(emulator.requests) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task

    assert caught.value.__cause__ is None
    [session] = emulator.sessions.values()
    assert session.status == "cancelled"


async def test_the_end_of_a_loop_ends_what_is_under_way():
    """`asyncio.run` cancels every task on its way out, the session's cancellation too."""
    async with (
        serve(replying(http(), HANG)) as server,
        AsyncChatKit(api_key="sk-test-test", base_url=server.base_url) as client,
    ):
        entered = asyncio.Event()
        task = opened(client.sessions, entered)
        await entered.wait()
        before = asyncio.all_tasks()
        task.cancel()
        await server.until(lambda: len(server.requests) == 2)
        for other in asyncio.all_tasks() - before:
            other.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("raising", [False, True])
def test_leaving_is_bound_to_ten_seconds(monkeypatch, raising):
    monkeypatch.setattr(
        aiohappyeyeballs, "start_connection", async_solipsism.aiohappyeyeballs_start_connection
    )

    async def scenario():
        loop = asyncio.get_running_loop()
        async with (
            Emulator(clock=Clock(loop.time)) as emulator,
            AsyncChatKit(
                api_key=emulator.api_key, base_url=emulator.base_url, timeout=None
            ) as client,
        ):
            client._attempts.seam = attrs.evolve(client._attempts.seam, now=loop.time)
            emulator.fail(operation="cancel", delay=3600, times=None)
            left = client.sessions.open(**WANTED, timeout=900)
            await left.__aenter__()
            error = BlockError() if raising else None
            try:
                await left.__aexit__(error and BlockError, error, None)
            except Exception as failed:
                error = failed
            return loop.time(), error

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        elapsed, error = runner.run(scenario())

    assert elapsed == pytest.approx(10, abs=0.01)
    said = error.__notes__[0] if raising else error.message
    assert "no reply from 127.0.0.1 within timeout" in said


# Its own interface


async def test_sessions_need_no_client_but_what_makes_their_calls():
    calls = []

    async def call(call, options):
        calls.append((call.method, call.path, call.body, options))
        return ChatSession.from_dict(SESSION)

    async with AsyncSessions(call, call, None).open(**WANTED, timeout=3.0):
        pass

    create, cancel = calls
    assert create == (
        "POST",
        "/chatkit/sessions",
        b'{"user":"user_123","workflow":{"id":"wf_123"}}',
        {"timeout": 3.0},
    )
    assert cancel == (
        "POST",
        "/chatkit/sessions/cksess_123/cancel",
        None,
        {"timeout": 10.0, "extra_headers": None},
    )


async def test_extras_of_none_are_none_as_in_calls_written_for_the_openai_sdks(emulator, client):
    await client.sessions.create(**WANTED, extra_headers=None, extra_query=None, extra_body=None)

    assert emulator.requests[-1].status == 200


# The warning about version "latest"

LATEST = {"id": "wf_1", "version": "latest"}


async def _create(client):
    await client.sessions.create(user="ada", workflow=LATEST)


async def _open(client):
    async with client.sessions.open(user="ada", workflow=LATEST):
        pass


async def _raw(client):
    await client.chatkit.sessions.with_raw_response.create(user="ada", workflow=LATEST)


async def _rows(client):
    run = client.sessions.create_many([{"user": "ada", "workflow": LATEST}] * 3)
    await run.results()


async def _defaults(client):
    run = client.sessions.create_many(["ada", "eve"], defaults={"workflow": LATEST})
    async for _ in run:
        pass


async def _endpoint(client):
    endpoint = ClientSecretEndpoint(client, workflow=LATEST)
    await endpoint.handle(user="ada")


async def _handle(client):
    endpoint = ClientSecretEndpoint(client, workflow="wf_1")
    await endpoint.handle(user="ada", workflow=LATEST)


@pytest.mark.parametrize("call", [_create, _open, _raw, _rows, _defaults, _endpoint, _handle])
async def test_latest_version_warning_is_at_the_callers_line(client, call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await call(client)

    [warning] = caught
    assert warning.filename == __file__
    assert "LATEST" in linecache.getline(__file__, warning.lineno)


async def test_latest_version_warning_comes_from_tasks_too(client):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await asyncio.create_task(client.sessions.create(user="ada", workflow=LATEST))

    [warning] = caught
    assert {"asyncio", "chatkit_async"}.isdisjoint(Path(warning.filename).parts)


# Positional arguments


@pytest.mark.parametrize("raw", [False, True])
async def test_a_positional_mapping_is_shown_the_right_call(client, emulator, raw):
    sessions = client.chatkit.sessions
    with pytest.raises(TypeError, match=r"create\(\*\*params\)") as caught:
        await (sessions.with_raw_response if raw else sessions).create(
            {"user": "ada"}, extra_headers={"X-Key": "sk-made-up"}
        )

    stack = traceback.StackSummary.extract(
        traceback.walk_tb(caught.tb.tb_next), capture_locals=True
    )
    assert not emulator.requests
    assert "sk-made-up" not in "".join(stack.format())
