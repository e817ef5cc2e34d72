"""Bulk runs: what becomes of each row, what stops a run, and that nothing gets lost on the way."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import pickle
import socket
import traceback
from collections import Counter
from collections.abc import Mapping
from functools import wraps
from itertools import count, cycle, islice
from math import inf
from types import MappingProxyType
from typing import NamedTuple

import aiohttp
import attrs
import cancelling
import pytest
import virtual
from servers import CLOSE, SESSION, created, replying, serve
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from chatkit_async import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AsyncChatKit,
    AuthenticationError,
    BadRequestError,
    ChatKitError,
    ChatSession,
    ClientClosedError,
    ConfigurationError,
    NotFoundError,
    Outcome,
    ParameterError,
    PermissionDeniedError,
    RateLimitError,
    RetryPolicy,
    SessionCreateParams,
)
from chatkit_async._attempts import Attempts, Seam
from chatkit_async._settings import Settings
from chatkit_async._transport import Transport
from chatkit_async.bulk import MAX_WAIT, AlikeFailures, BulkRun, cancellation
from chatkit_async.emulator import Emulator, TokenBucket

KEY = "sk-" + "0123456789abcdef" * 2
DEFAULTS = {"workflow": "wf_123"}


def users(number):
    return [f"user_{each}" for each in range(number)]


def now():
    return asyncio.get_running_loop().time()


def on_virtual_time(**options):
    """Run a coroutine test with an emulator, on a loop whose time is virtual."""

    def wrap(test):
        @wraps(test)
        def run(**arguments):
            async def main():
                async with virtual.emulator(**options) as emulator:
                    await test(emulator, **arguments)

            virtual.run(main())

        # The emulator is no fixture here.
        _, *parameters = inspect.signature(test).parameters.values()
        run.__signature__ = inspect.Signature(parameters)
        return run

    return wrap


@pytest.fixture
async def emulator():
    async with Emulator() as emulator:
        yield emulator


@pytest.fixture
async def client(emulator):
    async with AsyncChatKit(api_key=emulator.api_key, base_url=emulator.base_url) as client:
        yield client


def kinds(outcomes):
    return Counter(outcome.kind for outcome in outcomes)


async def take_into(outcomes, run):
    async with run:
        async for outcome in run:
            outcomes.append(outcome)  # it may raise half way


def of_stub(send, rows, *, done="created", **options):
    """A run over a stub in place of a client."""
    attempts = Attempts(Settings.resolve({"api_key": KEY}), Transport(max_connections=1000))
    attempts.seam = Seam(now=now)
    attempts.make = send
    bounds = {
        "concurrency": 2,
        "ordered": True,
        "rate": None,
        "max_wait": None,
        "max_failures": None,
    } | options
    return BulkRun(attempts, lambda row: row, rows, name="rows", done=done, options={}, **bounds)


# Outcomes


async def test_a_session_is_created_for_each_row(client, emulator):
    async with client.sessions.create_many(users(20), defaults=DEFAULTS, concurrency=4) as run:
        outcomes = [outcome async for outcome in run]

    assert sorted(outcome.index for outcome in outcomes) == list(range(20))
    assert {outcome.row for outcome in outcomes} == set(users(20))
    assert all(outcome.session.user == outcome.row for outcome in outcomes)
    assert {outcome.result().id for outcome in outcomes} == set(emulator.sessions)
    assert kinds(outcomes) == {"created": 20}
    summary = run.summary
    assert (summary.created, summary.read, summary.attempts) == (20, 20, 20)
    assert (summary.in_flight, summary.lost, summary.stopped_by) == (0, 0, None)
    assert repr(run) == f"<BulkRun: {summary}>"


async def test_outcomes_come_in_order_when_asked_to(client):
    outcomes = await client.sessions.create_many(
        users(50), defaults=DEFAULTS, ordered=True
    ).results()

    assert [outcome.index for outcome in outcomes] == list(range(50))


async def test_sessions_are_cancelled_by_id_and_as_they_are(client, emulator):
    created = await client.sessions.create_many(users(4), defaults=DEFAULTS).results()
    first, second, *others = [outcome.session for outcome in created]
    nameless = ChatSession.from_dict({"user": "user_1"})

    async def ids():
        for each in [first, second.id, *others, "cksess_unknown", " ", nameless, 7]:
            yield each

    run = client.sessions.cancel_many(ids(), ordered=True)
    outcomes = await run.results()

    assert [outcome.kind for outcome in outcomes] == ["cancelled"] * 4 + ["rejected"] * 4
    assert run.summary.cancelled == 4
    assert {session.status for session in emulator.sessions.values()} == {"cancelled"}
    assert outcomes[0].row is first
    assert isinstance(outcomes[4].error, NotFoundError)
    problems = [outcome.error.problems[0] for outcome in outcomes[5:]]
    assert {path for path, _ in problems} == {"session_id"}
    assert problems[1][1] == "is missing: the API's reply had none"
    assert {outcome.attempts for outcome in outcomes[5:]} == {0}


class RaisingMapping(Mapping):
    def __getitem__(self, key):
        raise ZeroDivisionError

    def __iter__(self):
        return iter(["user"])

    def __len__(self):
        return 1

    def __repr__(self):
        return "RaisingMapping()"


@pytest.mark.parametrize(
    ("row", "path"),
    [
        ({"user": "user_1", "workflow": ""}, "workflow"),
        ({"user": "user_1", "workflow": {"id": "wf_1", "version": 2}}, "workflow.version"),
        ({"user": "user_1", "rate_limit": 3}, "rate_limit"),
        ({"user": [1]}, "user"),
        ({3: 4}, "user"),
        ({}, "user"),
        ("", "user"),
        (None, "params"),
        (7, "params"),
        (["user_1"], "params"),
        (RaisingMapping(), "params"),
    ],
    ids=repr,
)
async def test_a_bad_row_is_rejected_with_its_path_and_the_run_goes_on(client, emulator, row, path):
    outcomes = await client.sessions.create_many(
        ["user_0", row, "user_2"], defaults=DEFAULTS, ordered=True
    ).results()

    assert [outcome.kind for outcome in outcomes] == ["created", "rejected", "created"]
    bad = outcomes[1]
    assert bad.row is row
    assert isinstance(bad.error, ParameterError)
    assert path in {path for path, _ in bad.error.problems}
    assert (bad.attempts, bad.lost, bad.session) == (0, 0, None)
    assert len(emulator.requests) == 2
    hash(bad)


async def test_a_row_has_what_it_says_itself_and_else_the_defaults(client, emulator):
    rows = [
        "user_0",
        {"user": "user_1", "expires_after": {"seconds": 30}},
        MappingProxyType({"user": "user_2", "workflow": "wf_of_2"}),
        SessionCreateParams(user="user_3", workflow="wf_of_3"),
    ]
    defaults = {"workflow": {"id": "wf_1", "version": "7"}, "expires_after": 60}

    await client.sessions.create_many(rows, defaults=defaults, concurrency=1).results()

    bodies = [record.body for record in emulator.requests]
    assert [body["user"] for body in bodies] == ["user_0", "user_1", "user_2", "user_3"]
    assert [body["workflow"]["id"] for body in bodies] == ["wf_1", "wf_1", "wf_of_2", "wf_of_3"]
    assert "version" not in bodies[2]["workflow"]  # a row's own value is whole
    assert [body["expires_after"]["seconds"] for body in bodies] == [60, 30, 60, 60]


async def test_rows_may_be_whole_without_defaults(client):
    rows = [{"user": "user_1", "workflow": "wf_123"}, "user_2"]

    whole, part = await client.sessions.create_many(rows, ordered=True).results()

    assert whole.kind == "created"
    assert part.error.problems == (("workflow", "is required"),)


async def test_defaults_may_be_parameters_too(client, emulator):
    defaults = SessionCreateParams(user="-", workflow="wf_1", rate_limits=3)

    await client.sessions.create_many(["user_0"], defaults=defaults).results()

    [record] = emulator.requests
    assert (record.body["user"], record.body["workflow"]["id"]) == ("user_0", "wf_1")


async def test_options_are_those_of_every_row(client, emulator):
    await client.sessions.create_many(
        users(2), defaults=DEFAULTS, extra_headers={"X-Run": "7"}, extra_query={"a": "b"}
    ).results()

    assert {(record.headers["X-Run"], record.query) for record in emulator.requests} == {
        ("7", "a=b")
    }


async def test_an_outcome_gives_its_session_or_raises_its_error_each_time_anew(client, emulator):
    emulator.fail(status=400)
    [failed] = await client.sessions.create_many(["user_1"], defaults=DEFAULTS).results()
    lengths = []

    for _ in range(3):
        with pytest.raises(BadRequestError) as caught:
            failed.result()
        assert caught.value is failed.error
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))

    assert len(set(lengths)) == 1
    assert failed.error.__context__ is None

    try:
        failed.row.missing  # noqa: B018
    except AttributeError:
        with contextlib.suppress(BadRequestError):
            failed.result()  # with what is handled here as its context
    with pytest.raises(BadRequestError):
        failed.result()
    assert failed.error.__context__ is None


def test_an_outcome_that_somebody_made_with_nothing_in_it_says_so():
    empty = Outcome(
        index=0, row=1, kind="unknown", value=None, error=None, attempts=0, lost=0, elapsed=0.0
    )

    with pytest.raises(ChatKitError, match="neither"):
        empty.result()


async def test_outcomes_pickle_and_show_neither_row_nor_secret(client, emulator):
    emulator.fail(status=400, times=1)
    emulator.fail(status=504, times=1)
    rows = ["user_0", "user_1", "user_2", {"user": None, "note": "of somebody's"}]
    run = client.sessions.create_many(
        rows, defaults=DEFAULTS, concurrency=1, ordered=True, max_retries=0
    )
    outcomes = await run.results()

    for outcome in outcomes:
        again = pickle.loads(pickle.dumps(outcome))  # noqa: S301  # our own
        assert (again.index, again.row, again.kind) == (outcome.index, outcome.row, outcome.kind)
        assert str(again.error) == str(outcome.error)
        assert type(again.error) is type(outcome.error)
        assert again.session == outcome.session
        assert "somebody" not in repr(outcome)
        assert outcome.session is None or outcome.session.client_secret not in repr(outcome)
    assert [outcome.kind for outcome in outcomes] == ["rejected", "unknown", "created", "rejected"]
    assert pickle.loads(pickle.dumps(run.summary)) == run.summary  # noqa: S301  # our own


# What cannot be right of a run


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"concurrency": 2.0}, "concurrency"),
        ({"concurrency": 11}, "concurrency"),
        ({"rate": 0}, "rate"),
        ({"rate": inf}, "rate"),
        ({"rate": True}, "rate"),
        ({"rate": "fast"}, "rate"),
        ({"max_wait": 0}, "max_wait"),
        ({"max_wait": "long"}, "max_wait"),
        ({"max_failures": 0}, "max_failures"),
        ({"max_failures": True}, "max_failures"),
        ({"timeout": -1}, "timeout"),
        ({"extra_body": {"a": b"bytes"}}, "extra_body.a"),
        ({"rows": "user_1"}, "rows"),
        ({"rows": b"user_1"}, "rows"),
        ({"rows": {"user": "user_1"}}, "rows"),
        ({"rows": 7}, "rows"),
    ],
    ids=repr,
)
async def test_bad_arguments_raise_at_the_call(emulator, arguments, path):
    given = {"rows": (pytest.fail("it was read") for _ in [1])} | arguments
    given.setdefault("concurrency", 10)
    rows = given.pop("rows")
    async with AsyncChatKit(api_key=KEY, max_connections=10) as client:
        calls = {"rows": client.sessions.create_many, "session_ids": client.sessions.cancel_many}
        for name, call in calls.items():
            with pytest.raises(ParameterError) as caught:
                call(rows, **given)
            [(where, _)] = caught.value.problems
            assert where == (name if path == "rows" else path)


async def test_more_at_a_time_than_connections_says_what_to_do(client):
    with pytest.raises(ParameterError, match="max_connections, 1000, got 1001: make the client"):
        client.sessions.create_many([], concurrency=1001)
    with pytest.raises(TypeError, match="did you mean 'max_retries'"):
        client.sessions.create_many([], max_retrys=3)


async def test_a_string_or_fields_of_all_rows_say_what_to_do(client):
    wanted = "must be an iterable of"
    with pytest.raises(
        ParameterError, match=rf"^rows: {wanted} rows, for example a list; got str$"
    ):
        client.sessions.create_many("ada")
    with pytest.raises(
        ParameterError, match=rf"^session_ids: {wanted} session ids, for .*; got str$"
    ):
        client.sessions.cancel_many("cksess_1")
    with pytest.raises(TypeError, match=r"'workflow'; .* as defaults=\{'workflow': \.\.\.\}$"):
        client.sessions.create_many(["ada"], workflow="wf_123", user="ada")


@pytest.mark.parametrize(
    ("defaults", "path"),
    [
        (7, "defaults"),
        ("wf_1", "defaults"),
        ({"workflow": {}}, "defaults.workflow.id"),
        ({"workflw": "wf_1"}, "defaults.workflw"),
        ({"expires_after": 0}, "defaults.expires_after"),
    ],
    ids=repr,
)
async def test_bad_defaults_raise_at_the_call(client, defaults, path):
    with pytest.raises(ParameterError) as caught:
        client.sessions.create_many([], defaults=defaults)

    assert [path for path, _ in caught.value.problems] == [path]


class Record(NamedTuple):
    user: str = "ada"


async def test_a_record_among_the_rows_is_told_how_to_become_a_mapping(client):
    [outcome] = await client.sessions.create_many([Record()], defaults=DEFAULTS).results()
    assert str(outcome.error).endswith("got Record: pass its _asdict() instead")
    with pytest.raises(ParameterError, match=r"got Record: pass its _asdict\(\) instead"):
        client.sessions.create_many([], defaults=Record())


async def test_a_run_runs_once(client):
    run = client.sessions.create_many(users(1), defaults=DEFAULTS)
    assert run.summary.elapsed == 0
    async with run:
        pass

    with pytest.raises(RuntimeError, match="once"):
        await run.results()


async def test_a_run_may_be_iterated_without_its_block(client):
    run = client.sessions.create_many(users(3), defaults=DEFAULTS)

    assert kinds([outcome async for outcome in run]) == {"created": 3}
    elapsed = run.summary.elapsed
    assert elapsed == run.summary.elapsed > 0


# Lost replies


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"drop": "close", "after": True}, APIConnectionError),
        ({"drop": "reset", "after": True}, APIConnectionError),
        ({"status": 502, "after": True}, APIError),
        ({"status": 504, "after": True}, APIError),
        ({"status": 520, "after": True}, APIError),
        ({"status": 522, "after": True}, APIError),
        ({"status": 524, "after": True}, APIError),
        ({"body": "<html>", "after": True}, APIResponseError),
        ({"cut": True}, APIResponseError),
        ({"delay": inf, "after": True}, APITimeoutError),
    ],
    ids=repr,
)
@pytest.mark.parametrize("retries", [0, 1])
@on_virtual_time()
async def test_an_answer_that_never_came_is_lost(emulator, fault, error, retries):
    emulator.fail(**fault, times=1)
    async with virtual.client(emulator, max_retries=retries) as client:
        [outcome] = await client.sessions.create_many(["user_1"], defaults=DEFAULTS).results()

    assert outcome.lost == 1
    if retries and not (error is APIResponseError and "body" in fault):
        assert outcome.kind == "created"
        assert outcome.attempts == len(emulator.sessions) == 2
    else:
        assert outcome.kind == "unknown"
        assert isinstance(outcome.error, error)
        assert outcome.attempts == len(emulator.sessions) == 1


async def test_a_refused_connection_after_a_lost_answer_tells_of_both():
    refused = APIConnectionError("the host refused the connection", kind="refused", attempts=2)

    async def send(_call, _limits, row):
        row.sent += 1
        raise refused

    run = of_stub(send, ["one"])
    [outcome] = await run.results()

    assert outcome.kind == "unknown"
    lost = "the answer to an earlier request was lost; then the host refused the connection"
    assert str(outcome.error).startswith(f"{lost} (2 attempts")
    assert run.summary.stopped_by is refused
    assert refused.message == "the host refused the connection"


@on_virtual_time()
async def test_an_answer_that_is_no_is_rejected_and_not_lost(emulator):
    emulator.fail(status=500, times=3)
    async with virtual.client(emulator) as client:
        [outcome] = await client.sessions.create_many(["user_1"], defaults=DEFAULTS).results()

    assert (outcome.kind, outcome.attempts, outcome.lost) == ("rejected", 3, 0)
    assert not emulator.sessions


async def test_a_request_on_a_connection_that_breaks_is_sent_again_and_counted():
    async with (
        serve(replying(created, CLOSE, created)) as server,
        AsyncChatKit(api_key=KEY, base_url=server.base_url) as client,
    ):
        run = client.sessions.create_many(users(2), defaults=DEFAULTS, concurrency=1)
        outcomes = await run.results()

    # It looks like one that was closed while it was idle, and is replaced. Who knows?
    assert [(each.kind, each.attempts, each.lost) for each in outcomes] == [
        ("created", 1, 0),
        ("created", 1, 1),
    ]


async def test_a_key_that_was_rejected_and_replaced_loses_nothing(emulator):
    keys = iter(["sk-wrong-" + "x" * 20, emulator.api_key])
    emulator.require_key = True
    async with AsyncChatKit(api_key=lambda: next(keys), base_url=emulator.base_url) as client:
        emulator.fail(status=401, times=1)
        [outcome] = await client.sessions.create_many(["user_1"], defaults=DEFAULTS).results()

    assert (outcome.kind, outcome.attempts, outcome.lost) == ("created", 1, 0)
    assert len(emulator.requests) == 2


async def test_a_borrowed_session_tells_what_it_can(emulator):
    settings = {"api_key": emulator.api_key, "max_retries": 0}
    connector = aiohttp.TCPConnector(limit=50, limit_per_host=3)
    async with aiohttp.ClientSession(connector=connector) as session:
        async with AsyncChatKit(
            base_url=emulator.base_url, http_session=session, **settings
        ) as client:
            emulator.fail(drop="close", times=1)
            outcomes = await client.sessions.create_many(
                users(3), defaults=DEFAULTS, concurrency=3, ordered=True
            ).results()
            with pytest.raises(ParameterError, match="max_connections, 3, got 4"):
                client.sessions.create_many([], concurrency=4)
        async with AsyncChatKit(
            base_url=f"http://127.0.0.1:{unused_port()}", http_session=session, **settings
        ) as client:
            [refused] = await client.sessions.create_many(
                ["user_1"], defaults=DEFAULTS, concurrency=1
            ).results()

    assert kinds(outcomes) == {"created": 2, "unknown": 1}
    assert sum(outcome.lost for outcome in outcomes) == 1
    assert (refused.kind, refused.lost, refused.attempts) == ("not_attempted", 0, 1)


async def test_a_borrowed_session_without_limits_has_none():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        assert Transport(max_connections=1, http_session=session).capacity > 1_000_000
    assert Transport(max_connections=1, http_session=session).capacity > 1_000_000  # it is closed


def unused_port():
    """A port that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


# What stops a run


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 401}, AuthenticationError),
        ({"status": 403}, PermissionDeniedError),
        ({"status": 410}, APIStatusError),
        ({"status": 429, "code": "insufficient_quota"}, RateLimitError),
    ],
    ids=repr,
)
@on_virtual_time(latency=0.1)
async def test_a_failure_that_would_hit_every_row_stops_the_run(emulator, fault, error):
    emulator.fail(**fault, times=None)
    rows = iter(users(1000))
    async with virtual.client(emulator) as client:
        run = client.sessions.create_many(rows, defaults=DEFAULTS, concurrency=4)
        outcomes = await run.results()

    assert isinstance(run.summary.stopped_by, error)
    assert kinds(outcomes) == {"rejected": 4}
    assert run.summary.stopped_by in [outcome.error for outcome in outcomes]
    assert len(list(rows)) == 996


def refusal(status, message="no"):
    return APIStatusError(message, status_code=status)


ALIKE = {
    "404": (refusal(404), refusal(404, "another workflow")),
    "400": (refusal(400), refusal(400)),
    "5xx": (refusal(500), refusal(503, "overloaded"), refusal(520)),
}
NOT_ALIKE = {
    "400": (refusal(400, "bad a"), refusal(400, "bad b")),
    "statuses": (refusal(404), refusal(400)),
    "422": (refusal(422), refusal(422)),
}


@pytest.mark.parametrize("limit", [1, 2, 50])
@pytest.mark.parametrize("errors", ALIKE.values(), ids=ALIKE)
def test_failures_that_are_alike_reach_their_limit(errors, limit):
    alike = AlikeFailures(limit, done="created")

    said = [alike.note_failure(error) for error in islice(cycle(errors), limit)]

    assert said == [False] * (limit - 1) + [True]
    assert alike.count == limit


@pytest.mark.parametrize("errors", NOT_ALIKE.values(), ids=NOT_ALIKE)
def test_failures_that_differ_reach_no_limit(errors):
    alike = AlikeFailures(2, done="created")

    assert not any(alike.note_failure(error) for error in islice(cycle(errors), 20))


def test_failures_count_in_a_row_and_before_a_success():
    alike = AlikeFailures(3, done="created")
    errors = [refusal(404), refusal(404), refusal(500), refusal(404), refusal(404)]
    assert not any(map(alike.note_failure, errors))

    alike.note_success()

    assert not any(alike.note_failure(refusal(404)) for _ in range(10))


def test_failures_without_a_limit_are_no_reason_to_stop():
    alike = AlikeFailures(None, done="created")

    assert not any(alike.note_failure(refusal(404)) for _ in range(100))


def test_sessions_to_cancel_are_not_found_one_by_one():
    alike = AlikeFailures(1, done="cancelled")

    assert not alike.note_failure(refusal(404))
    assert alike.note_failure(refusal(500))


@pytest.mark.unmeasured
@pytest.mark.parametrize("status", [400, 404, 500])
@on_virtual_time()
async def test_rows_that_all_fail_alike_stop_the_run(emulator, status):
    emulator.fail(status=status, times=None)
    rows = iter([{"user": ""}, *users(1000)])
    async with virtual.client(emulator, max_retries=0) as client:
        run = client.sessions.create_many(rows, defaults=DEFAULTS, concurrency=4)
        outcomes = await run.results()

    stopped_by = run.summary.stopped_by
    assert stopped_by.status_code == status
    assert stopped_by.message.startswith(
        "the run stopped because 50 rows in a row failed in the same way and no session was created "
        f"(see max_failures): the API replied {status}"
    )
    rejected = [outcome for outcome in outcomes if outcome.kind == "rejected"]
    assert 51 <= len(rejected) <= 54  # with the bad row
    assert not any("the run stopped" in str(outcome.error) for outcome in rejected)
    assert len(list(rows)) > 900


@pytest.mark.unmeasured
@pytest.mark.parametrize("max_failures", [1, 7, None])
@on_virtual_time()
async def test_max_failures_can_be_chosen(emulator, max_failures):
    emulator.fail(status=404, times=None)
    async with virtual.client(emulator) as client:
        run = client.sessions.create_many(
            users(60), defaults=DEFAULTS, concurrency=1, max_failures=max_failures
        )
        await run.results()

    assert run.summary.rejected == (max_failures or 60)
    assert (run.summary.stopped_by is None) == (max_failures is None)


@pytest.mark.parametrize("status", [404, 500])
@on_virtual_time()
async def test_a_run_that_created_a_session_goes_on(emulator, status):
    async with virtual.client(emulator, max_retries=0) as client:
        emulator.fail(status=status, with_body={"workflow.id": "wf_none"}, times=None)
        rows = ["user_0", *({"user": user, "workflow": "wf_none"} for user in users(9))]
        run = client.sessions.create_many(rows, defaults=DEFAULTS, concurrency=1, max_failures=5)
        await run.results()

    assert (run.summary.created, run.summary.rejected) == (1, 9)
    assert run.summary.stopped_by is None


@on_virtual_time()
async def test_sessions_that_are_not_found_do_not_stop_a_cancelling_run(emulator):
    async with virtual.client(emulator) as client:
        run = client.sessions.cancel_many([f"cksess_{each}" for each in range(60)])
        await run.results()

    assert run.summary.rejected == 60
    assert run.summary.stopped_by is None


async def test_no_connection_at_all_stops_the_run_with_the_rows_not_attempted():
    rows = iter(users(1000))
    base_url = f"http://127.0.0.1:{unused_port()}"
    async with AsyncChatKit(api_key=KEY, base_url=base_url, max_retries=0) as client:
        run = client.sessions.create_many(rows, defaults=DEFAULTS, concurrency=4)
        outcomes = await run.results()

    assert run.summary.stopped_by.kind == "refused"
    assert kinds(outcomes) == {"not_attempted": len(outcomes)}
    assert {(outcome.attempts, outcome.lost) for outcome in outcomes} == {(1, 0)}
    assert len(list(rows)) >= 990
    with pytest.raises(APIConnectionError):
        outcomes[0].result()


@pytest.mark.parametrize("answered", [False, True])
@on_virtual_time()
async def test_a_row_without_a_connection_stops_the_run_unless_others_get_answers(
    emulator, answered
):
    async def send(call, limits, row):
        row.attempts = 1
        await asyncio.sleep(1 if call == "answered" else 2)
        if call == "answered":
            row.sent += 1
            row.note_success(ChatSession.from_dict(SESSION))
        else:
            raise APITimeoutError("no connection", limit="connect_timeout")

    run = of_stub(send, ["lonely", "answered" if answered else "lonely", "answered"])
    outcomes = await run.results()

    assert outcomes[0].kind == "not_attempted"
    assert (run.summary.stopped_by is None) == answered
    assert len(outcomes) == (3 if answered else 2)


async def test_a_key_that_cannot_be_right_stops_the_run(emulator):
    async with AsyncChatKit(api_key=lambda: " ", base_url=emulator.base_url) as client:
        run = client.sessions.create_many(users(100), defaults=DEFAULTS, concurrency=2)
        outcomes = await run.results()

    assert isinstance(run.summary.stopped_by, ConfigurationError)
    assert kinds(outcomes) == {"not_attempted": len(outcomes)}
    assert len(outcomes) <= 4
    assert not emulator.requests


@on_virtual_time(latency=5.0)
async def test_a_client_that_is_closed_stops_the_run(emulator):
    async with (
        virtual.client(emulator) as client,
        client.sessions.create_many(users(100), defaults=DEFAULTS, concurrency=2) as run,
    ):
        await asyncio.sleep(1)
        await client.close()
        outcomes = [outcome async for outcome in run]

    assert isinstance(run.summary.stopped_by, ClientClosedError)
    assert kinds(outcomes) == {"unknown": 2}
    assert isinstance(outcomes[0].error, ClientClosedError)


# Push-back


@pytest.mark.unmeasured
@pytest.mark.sweep(every=2)
@pytest.mark.parametrize("number", [150, 1000])
@on_virtual_time(rate_limit=TokenBucket(rate=25, burst=25, retry_after=1))
async def test_many_rows_at_a_hundred_in_flight_behind_25_a_second(emulator, number):
    async with virtual.client(emulator) as client:
        run = client.sessions.create_many(users(number), defaults=DEFAULTS, concurrency=100)
        outcomes = await run.results()

    assert kinds(outcomes) == {"created": number}
    assert {outcome.session.id for outcome in outcomes} == set(emulator.sessions)
    assert run.summary.attempts == emulator.requests.total <= number + 200
    assert run.summary.elapsed < number / 25 + 5


@on_virtual_time()
async def test_a_push_back_costs_a_row_neither_retries_nor_its_timeout(emulator):
    emulator.fail(status=429, headers={"Retry-After": "3"}, delay=0.4, times=5)
    emulator.fail(status=503, headers={"Retry-After": "3"}, times=1)
    async with virtual.client(emulator, max_retries=0, timeout=1.0) as client:
        [outcome] = await client.sessions.create_many(["user_1"], defaults=DEFAULTS).results()

    assert (outcome.kind, outcome.attempts, outcome.lost) == ("created", 7, 0)
    assert outcome.elapsed > 6 * 3


@on_virtual_time()
async def test_other_failures_cost_a_row_its_retries_as_ever(emulator):
    emulator.fail(status=429, headers={"Retry-After": "1"}, times=1)
    emulator.fail(status=500, times=1)
    emulator.fail(status=429, headers={"Retry-After": "1"}, times=1)
    emulator.fail(status=500, times=1)
    async with virtual.client(emulator, max_retries=1, timeout=None) as client:
        [outcome] = await client.sessions.create_many(["user_1"], defaults=DEFAULTS).results()

    assert (outcome.kind, outcome.attempts) == ("rejected", 4)


@on_virtual_time()
async def test_a_push_back_that_forbids_another_attempt_is_the_rows_own(emulator):
    emulator.fail(status=429, headers={"x-should-retry": "false"}, times=1)
    async with virtual.client(emulator) as client:
        run = client.sessions.create_many(users(2), defaults=DEFAULTS, concurrency=1, ordered=True)
        outcomes = await run.results()

    assert [outcome.kind for outcome in outcomes] == ["rejected", "created"]
    assert run.summary.stopped_by is None


@pytest.mark.parametrize("max_wait", [0.5, 20, 100])
@on_virtual_time()
async def test_a_run_that_stands_still_stops_after_max_wait(emulator, max_wait):
    emulator.fail(status=429, headers={"Retry-After": "7"}, times=None)
    async with virtual.client(emulator) as client:
        run = client.sessions.create_many(
            users(1000), defaults=DEFAULTS, concurrency=8, max_wait=max_wait
        )
        outcomes = await run.results()

    assert isinstance(run.summary.stopped_by, RateLimitError)
    assert max_wait - 10 <= run.summary.elapsed <= max_wait
    assert len(outcomes) == run.summary.read <= 16
    # Each was sent once at least, and refused: that is certain.
    assert kinds(outcomes) == {"rejected": len(outcomes)}
    assert {type(outcome.error) for outcome in outcomes} == {RateLimitError}


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("milliseconds", "most"), [("0.001", 10), ("0.999", 10), ("1", 270), ("20", 30), ("500", 10)]
)
@on_virtual_time()
async def test_a_short_wait_does_not_outlast_max_wait(emulator, milliseconds, most):
    emulator.fail(status=429, headers={"retry-after-ms": milliseconds}, times=1000)
    async with virtual.client(emulator) as client:
        run = client.sessions.create_many(
            users(1000), defaults=DEFAULTS, concurrency=8, max_wait=0.25
        )
        await run.results()

    assert isinstance(run.summary.stopped_by, RateLimitError)
    assert run.summary.elapsed <= 0.25
    assert len(emulator.requests) <= most


@pytest.mark.sweep(every=3)
@pytest.mark.parametrize("backoff", [1e-5, 1e-9, 1e-3])
@on_virtual_time()
async def test_a_short_backoff_does_not_outlast_max_wait(emulator, backoff):
    emulator.fail(status=429, times=400)
    policy = RetryPolicy(initial_backoff=backoff, max_backoff=backoff)
    steps = count()
    async with virtual.client(emulator, retry_policy=policy) as client:
        seam = client._attempts.seam
        # On a busy machine a short wait is over at the next look at the clock.
        client._attempts.seam = attrs.evolve(seam, now=lambda: seam.now() + next(steps) / 2**9)
        run = client.sessions.create_many(users(99), defaults=DEFAULTS, max_wait=1.0)
        await run.results()

    assert isinstance(run.summary.stopped_by, RateLimitError)
    assert len(emulator.requests) < 400


@on_virtual_time()
async def test_rows_that_wait_and_sent_nothing_are_not_attempted_when_a_run_stands_still(emulator):
    emulator.fail(status=429, headers={"Retry-After": "30"}, times=None)

    async def rows():
        yield "first"
        await asyncio.sleep(1)
        yield "second"

    async with virtual.client(emulator) as client:
        run = client.sessions.create_many(rows(), defaults=DEFAULTS, ordered=True, max_wait=40)
        first, second = await run.results()

    assert (first.kind, second.kind) == ("rejected", "not_attempted")
    assert second.attempts == 0
    assert second.error is run.summary.stopped_by


@on_virtual_time()
async def test_a_row_that_could_not_be_sent_in_time_says_what_the_gate_waits_for(emulator):
    emulator.fail(status=429, headers={"Retry-After": "50"}, times=1)
    async with virtual.client(emulator, max_retries=0) as client:
        with pytest.raises(RateLimitError):
            await client.sessions.create(user="user_0", workflow="wf_123")
        run = client.sessions.create_many(users(2), defaults=DEFAULTS, max_wait=10)
        outcomes = await run.results()

    assert "and max_wait of its run ends before that" in str(run.summary.stopped_by)
    assert kinds(outcomes) == {"not_attempted": len(outcomes)}


@pytest.mark.unmeasured
@on_virtual_time()
async def test_without_max_wait_a_run_stands_still_for_as_long_as_it_takes(emulator):
    emulator.fail(status=429, headers={"Retry-After": "60"}, times=8)
    async with virtual.client(emulator) as client:
        run = client.sessions.create_many(["user_1"], defaults=DEFAULTS, max_wait=None)
        [outcome] = await run.results()

    assert outcome.kind == "created"
    assert outcome.elapsed >= 8 * 60 > MAX_WAIT


@pytest.mark.unmeasured
@on_virtual_time(rate_limit=TokenBucket(rate=1, burst=1, retry_after=1))
async def test_a_run_that_gets_on_waits_longer_than_max_wait(emulator):
    async with virtual.client(emulator) as client:
        run = client.sessions.create_many(users(20), defaults=DEFAULTS, max_wait=5)
        outcomes = await run.results()

    assert kinds(outcomes) == {"created": 20}
    assert run.summary.elapsed > 15


@on_virtual_time(rate_limit=TokenBucket(rate=1, burst=4, retry_after=5))
async def test_who_waits_for_the_gate_is_counted(emulator):
    async with (
        virtual.client(emulator) as client,
        client.sessions.create_many(users(8), defaults=DEFAULTS) as run,
    ):
        await asyncio.sleep(1)
        assert run.summary.waiting == run.summary.in_flight == 4
        assert run.summary.created == 4
        outcomes = [outcome async for outcome in run]

    assert kinds(outcomes) == {"created": 8}
    assert run.summary.waiting == 0


# Stopping, leaving


@on_virtual_time(latency=2.0)
async def test_stopping_finishes_the_rows_under_way(emulator):
    async with (
        virtual.client(emulator) as client,
        client.sessions.create_many(users(99), defaults=DEFAULTS, concurrency=3) as run,
    ):
        await asyncio.sleep(3)
        run.stop()
        outcomes = [outcome async for outcome in run]
        assert now() == 4

    assert kinds(outcomes) == {"created": 6}
    assert run.summary.read == 6
    assert run.summary.stopped_by is None
    elapsed = run.summary.elapsed
    await asyncio.sleep(10)
    assert run.summary.elapsed == elapsed == 4


@on_virtual_time()
async def test_stopping_does_not_wait_for_rows_at_the_gate_that_sent_nothing(emulator):
    emulator.fail(status=429, headers={"Retry-After": "30"}, times=1)

    async def rows():
        yield "first"
        await asyncio.sleep(1)
        for user in users(3):
            yield user

    async with (
        virtual.client(emulator) as client,
        client.sessions.create_many(rows(), defaults=DEFAULTS, ordered=True) as run,
    ):
        await asyncio.sleep(5)
        run.stop()
        run.stop()
        outcomes = [outcome async for outcome in run]

    assert [outcome.kind for outcome in outcomes] == ["created"] + ["not_attempted"] * 3
    assert "the run ended before" in str(outcomes[1].error)
    assert outcomes[0].attempts == 2


@on_virtual_time(latency=2.0)
async def test_leaving_early_ends_what_is_under_way_and_keeps_its_outcomes(emulator):
    async with virtual.client(emulator) as client:
        async with client.sessions.create_many(users(99), defaults=DEFAULTS, concurrency=3) as run:
            async for outcome in run:
                taken = [outcome]
                break
            await asyncio.sleep(1)
        assert now() == 3
        summary = run.summary
        left = [outcome async for outcome in run]
        await emulator.until(lambda: not emulator.connections)

    assert (summary.created, summary.unknown, summary.in_flight) == (3, 3, 0)
    assert kinds(taken + left) == {"created": 3, "unknown": 3}
    unknown = [outcome for outcome in left if outcome.kind == "unknown"]
    assert {(outcome.attempts, outcome.lost) for outcome in unknown} == {(1, 1)}
    assert "the session may exist" in str(unknown[0].error)
    assert unknown[0].error.elapsed == pytest.approx(1, abs=1e-3)


@on_virtual_time(latency=1.0)
async def test_a_cancellation_that_was_cut_off_says_what_may_be(emulator):
    async with virtual.client(emulator) as client:
        async with client.sessions.cancel_many(["cksess_1"]) as run:
            await asyncio.sleep(0.5)
        [outcome] = [outcome async for outcome in run]

    assert "the session may have been cancelled" in str(outcome.error)


@on_virtual_time()
async def test_leaving_between_attempts_tells_the_last_failure(emulator):
    emulator.fail(status=500, times=None)
    async with virtual.client(emulator, seed=3) as client:
        async with client.sessions.create_many(["user_1"], defaults=DEFAULTS) as run:
            await asyncio.sleep(0.01)
        [outcome] = [outcome async for outcome in run]

    assert (outcome.kind, outcome.attempts) == ("rejected", 1)
    assert outcome.error.status_code == 500


@on_virtual_time(latency=1.0)
async def test_cancelling_the_consumer_is_leaving(emulator):
    async with virtual.client(emulator) as client:
        run = client.sessions.create_many(users(99), defaults=DEFAULTS, concurrency=3)
        consuming = asyncio.create_task(run.results())
        await asyncio.sleep(1.5)
        consuming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consuming
        left = [outcome async for outcome in run]

    assert kinds(left) == {"created": 3, "unknown": 3}
    assert (run.summary.created, run.summary.unknown) == (3, 3)


@pytest.mark.parametrize("way", cancelling.WAYS)
def test_a_cancelled_run_ends(way):
    async def main():
        async with virtual.emulator() as emulator, virtual.client(emulator) as client:

            def cancelled():
                run = client.sessions.create_many(users(8), defaults=DEFAULTS, concurrency=3)
                outcomes = []

                async def work():
                    await take_into(outcomes, run)

                async def check():
                    assert not [task for task in asyncio.all_tasks() if "Fanout" in repr(task)]
                    if run.summary.read:  # else it may have to start yet
                        outcomes.extend([outcome async for outcome in run])
                    assert run.summary.in_flight == 0
                    indexes = sorted(outcome.index for outcome in outcomes)
                    assert indexes == list(range(run.summary.read))

                return work, check

            await cancelling.sweep(cancelling.WAYS[way], cancelled, step=4)

    virtual.run(main(), loop_factory=cancelling.CountingLoop)


async def lines_of(run, outcomes):
    async with run:
        async for outcome in run:
            outcomes.append(outcome)
            yield f"{outcome.index}\n"


async def leave(stream, *, after, version):
    """Send a streaming response to a browser that leaves; return whether it saw the end.

    Before version 2.4 of its specification, an ASGI server tells that a browser has left when it is
    asked to receive; since then it raises from `send`.
    """
    turns, chunks = 0, []

    async def receive():
        nonlocal turns
        while turns < after:
            turns += 1
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message):
        if version == "2.4" and len(chunks) == after:
            raise OSError
        chunks.append(message)

    scope = {"type": "http", "asgi": {"spec_version": version}}
    with contextlib.suppress(ClientDisconnect):
        await StreamingResponse(stream)(scope, receive, send)
    return bool(chunks) and not chunks[-1].get("more_body", True)


@pytest.mark.unmeasured
@pytest.mark.parametrize("version", ["2.3", "2.4"])
def test_leaving_a_streaming_response_ends_its_run(version):
    async def main():
        async with virtual.emulator() as emulator, virtual.client(emulator) as client:
            for after in count(step=3 if version == "2.3" else 1):
                run = client.sessions.create_many(users(12), defaults=DEFAULTS, concurrency=4)
                before, outcomes = asyncio.all_tasks(), []

                stream = lines_of(run, outcomes)
                saw_the_end = await leave(stream, after=after, version=version)
                # After an error from `send`, the loop closes the generator in a task of its own.
                del stream
                while closing := asyncio.all_tasks() - before:
                    await asyncio.wait(closing)
                outcomes += [outcome async for outcome in run]
                assert sorted(each.index for each in outcomes) == list(range(run.summary.read))
                assert run.summary.in_flight == 0
                if saw_the_end:
                    return

    virtual.run(main(), loop_factory=cancelling.CountingLoop)


@on_virtual_time(latency=1.0)
async def test_what_the_input_raises_comes_after_all_outcomes(emulator):
    def rows():
        yield from users(5)
        raise ZeroDivisionError

    async with virtual.client(emulator) as client:
        outcomes = []
        with pytest.raises(ZeroDivisionError):
            await take_into(outcomes, client.sessions.create_many(rows(), defaults=DEFAULTS))

        assert kinds(outcomes) == {"created": 5}
        run = client.sessions.create_many(rows(), defaults=DEFAULTS)
        await run.__aenter__()
        await asyncio.sleep(5)  # and nobody iterates
        with pytest.raises(ZeroDivisionError):
            await run.__aexit__(None, None, None)
        assert kinds([outcome async for outcome in run]) == {"created": 5}

        run = client.sessions.create_many(rows(), defaults=DEFAULTS, ordered=True)
        with pytest.raises(ZeroDivisionError):
            await run.results()
        assert [outcome.row async for outcome in run] == users(5)


@on_virtual_time()
async def test_what_on_attempt_raises_ends_the_run_and_loses_no_session(emulator):
    def on_attempt(attempt):
        raise ZeroDivisionError

    outcomes = []
    async with virtual.client(emulator, on_attempt=on_attempt) as client:
        with pytest.raises(ZeroDivisionError):
            await take_into(outcomes, client.sessions.create_many(users(9), defaults=DEFAULTS))

    assert kinds(outcomes) == {"created": 9}
    assert {outcome.session.id for outcome in outcomes} == set(emulator.sessions)


@pytest.mark.parametrize("raised", [ZeroDivisionError, asyncio.CancelledError])
@on_virtual_time()
async def test_what_a_key_callable_raises_ends_the_run(emulator, raised):
    def key():
        raise raised

    async with AsyncChatKit(api_key=key, base_url=emulator.base_url) as client:
        run = client.sessions.create_many(users(99), defaults=DEFAULTS, concurrency=2)
        with pytest.raises(raised):
            await run.results()

    assert run.summary.not_attempted == run.summary.read
    assert run.summary.stopped_by is None
    assert not emulator.requests


# Resources


@pytest.mark.unmeasured
@on_virtual_time(latency=1.0)
async def test_the_pool_fits_the_concurrency(emulator):
    async with virtual.client(emulator, max_connections=20) as client:
        run = client.sessions.create_many(users(60), defaults=DEFAULTS, concurrency=20)
        await run.results()

    assert {record.connection for record in emulator.requests} == set(range(1, 21))
    assert run.summary.elapsed == pytest.approx(3, abs=0.01)


@on_virtual_time(latency=0.5)
async def test_rows_start_at_the_rate_that_was_asked_for(emulator):
    async with virtual.client(emulator) as client:
        await client.sessions.create_many(users(6), defaults=DEFAULTS, rate=4).results()

    starts = [record.received_at - emulator.requests[0].received_at for record in emulator.requests]
    assert starts == pytest.approx([each / 4 for each in range(6)], abs=1e-3)


def test_a_row_to_cancel_needs_no_more_than_its_id():
    call = cancellation({})("cksess_1")

    assert call.path == "/chatkit/sessions/cksess_1/cancel"
