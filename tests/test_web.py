"""The endpoint for browsers: what it answers, what it hands out again, and who shares a create."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import inspect
import json
import logging
import math
import threading
import traceback
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import formatdate
from random import Random

import pytest
import virtual
from patience import PATIENCE
from replies import CLIENT_SECRET, FITTING, reply_with, reply_without

from chatkit_async import (
    APIConnectionError,
    APIResponse,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AsyncChatKit,
    ChatKit,
    ChatKitError,
    ChatSession,
    ChatSessionWorkflowParam,
    ClientClosedError,
    ConfigurationError,
    InternalServerError,
    MissingFieldError,
    ParameterError,
    _loop_thread,
    web,
)
from chatkit_async.emulator import Emulator
from chatkit_async.web import (
    BlockingClientSecretEndpoint,
    ClientSecretEndpoint,
    ClientSecretResponse,
)

NOW = 1_735_689_000
"""What the API's clock says at first; `FITTING` lives 600 seconds from then."""


class API:
    """Stands for the client: answers with a session each, or with what it is told to."""

    def __init__(self):
        self.calls = []
        self.clients = []
        self.script = []
        self.seconds = 1000.0
        self.skew = 0.0
        self.sends_date = True
        self.begun = threading.Semaphore(0)
        self.sessions = self
        self.with_raw_response = self

    def now(self):
        return web._Moment(self.seconds, NOW + self.seconds - 1000 + self.skew)

    def close(self):
        for client in self.clients:
            client.close()

    def then(self, *outcomes):
        self.script += outcomes

    def take(self, given):
        self.calls.append(given)
        self.begun.release()
        outcome = self.script.pop(0) if self.script else {}
        if isinstance(outcome, dict):
            theirs = NOW + self.seconds - 1000
            session = {
                **FITTING,
                "client_secret": f"ek_number_{len(self.calls)}",
                "expires_at": int(theirs) + 600,
                **outcome,
            }
            return self.reply(session, theirs)
        return outcome

    def reply(self, session, theirs=NOW):
        return APIResponse(
            status_code=200,
            headers={"Date": formatdate(theirs, usegmt=True)} if self.sends_date else {},
            content=b"",
            attempts=1,
            elapsed=0.0,
            result=ChatSession.from_dict(session),
        )

    async def create(self, **given):
        outcome = self.take(given)
        if isinstance(outcome, Gate):
            await outcome.wait()
            outcome = self.script.pop(0) if self.script else self.reply(FITTING)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


class Gate:
    """What a create waits for, in whatever loop; it is opened in any thread."""

    def __init__(self):
        self._opened = Future()

    def set(self):
        self._opened.set_result(None)

    async def wait(self):
        await asyncio.wrap_future(self._opened)


class AsyncAPI(API):
    endpoint = ClientSecretEndpoint

    def client(self):
        return self

    def ask(self, endpoint, user="ada", current=None, **given):
        return asyncio.run(endpoint.handle(user=user, current_secret=current, **given))


class BlockingAPI(API):
    endpoint = BlockingClientSecretEndpoint

    def client(self):
        self.clients.append(ChatKit(api_key="sk-made-up"))
        return self.clients[-1]

    def ask(self, endpoint, user="ada", current=None, **given):
        return endpoint.handle(user=user, current_secret=current, **given)


def make(api, **settings):
    endpoint = api.endpoint(api.client(), **{"workflow": "wf_123", **settings})
    endpoint._core.now = api.now
    endpoint._core.client = api
    return endpoint


@pytest.fixture(params=[AsyncAPI, BlockingAPI], ids=["async", "blocking"])
def api(request):
    """Either endpoint: what it decides is the same."""
    api = request.param()
    yield api
    api.close()


@pytest.fixture
def async_api():
    return AsyncAPI()


@pytest.fixture
def blocking_api():
    api = BlockingAPI()
    yield api
    api.close()


def told(response):
    return json.loads(response.body)


def secret_of(response):
    assert response.status == 200, response.body
    return told(response)["client_secret"]


# What it answers ----------------------------------------------------------------------------------


def test_a_signed_in_user_gets_a_secret_that_no_cache_keeps(api):
    response = api.ask(make(api))

    assert response.status == 200
    assert told(response) == {"client_secret": "ek_number_1", "expires_at": NOW + 600}
    assert response.headers == {"Content-Type": "application/json", "Cache-Control": "no-store"}


def test_a_response_does_not_show_its_secret_and_cannot_be_changed(api):
    response = api.ask(make(api))

    assert "ek_number_1" not in repr(response)
    assert f"<{len(response.body)} bytes>" in repr(response)
    with pytest.raises(TypeError):
        response.headers["X"] = "y"
    with pytest.raises(AttributeError):
        response.status = 201
    twin = ClientSecretResponse(
        status=response.status, headers=dict(response.headers), body=response.body
    )
    assert response == twin
    assert hash(response) == hash(twin)


def test_the_session_is_made_of_the_endpoints_parameters_and_options(api):
    endpoint = make(
        api,
        chatkit_configuration={"file_upload": {"enabled": True}},
        expires_after=300,
        rate_limits=5,
        timeout=10,
    )

    api.ask(endpoint)

    (given,) = api.calls
    assert given["user"] == "ada"
    assert given["workflow"] == ChatSessionWorkflowParam(id="wf_123")
    assert given["chatkit_configuration"].file_upload.enabled is True
    assert given["expires_after"].seconds == 300
    assert given["rate_limits"].max_requests_per_1_minute == 5
    assert given["timeout"] == 10


@pytest.mark.parametrize("user", [None, "", " \t"])
def test_nobody_gets_a_session_without_signing_in(api, user):
    response = api.ask(make(api), user=user)

    assert response.status == 401
    assert told(response)["error"]["code"] == "not_signed_in"
    assert response.headers["Cache-Control"] == "no-store"
    assert not api.calls


def test_a_user_that_is_no_str_is_the_programmers_mistake(api):
    with pytest.raises(ParameterError, match="user"):
        api.ask(make(api), user=5)
    assert not api.calls


@pytest.mark.parametrize("current", [5, True, b"ek_1", ["ek_1"], {"a": 1}, object(), print])
def test_a_current_secret_that_is_no_text_is_the_browsers_mistake(api, current):
    response = api.ask(make(api), current=current)

    assert response.status == 400
    assert told(response)["error"]["code"] == "invalid_request"
    assert not api.calls


@pytest.mark.parametrize("current", ["", "ek_unknown", "\udc80", "é" * 11, "x" * 10_000_000, "\0"])
def test_any_text_may_come_as_current_secret(api, current):
    endpoint = make(api)

    assert secret_of(api.ask(endpoint, current=current)) == "ek_number_1"
    assert secret_of(api.ask(endpoint, current=current)) == "ek_number_1"


def status_error(status, **facts):
    return APIStatusError.of_status(status)("said so", status_code=status, **facts)


FAILURES = {
    "400": (status_error(400), 502, "bad_gateway"),
    "401": (status_error(401), 502, "bad_gateway"),
    "403": (status_error(403), 502, "bad_gateway"),
    "404": (status_error(404), 502, "bad_gateway"),
    "422": (status_error(422), 502, "bad_gateway"),
    "redirect": (status_error(307), 502, "bad_gateway"),
    "certificate": (APIConnectionError("no", kind="certificate"), 502, "bad_gateway"),
    "useless reply": (APIResponseError("no", kind="not_json"), 502, "bad_gateway"),
    "no quota": (status_error(429, code="insufficient_quota"), 502, "bad_gateway"),
    "key": (ConfigurationError([("api_key", "is blank")]), 502, "bad_gateway"),
    "rate limit": (status_error(429), 503, "rate_limited"),
    "409": (status_error(409), 503, "unavailable"),
    "500": (status_error(500), 503, "unavailable"),
    "503": (status_error(503), 503, "unavailable"),
    "refused": (APIConnectionError("no", kind="refused"), 503, "unavailable"),
    "cut short": (APIResponseError("no", kind="truncated"), 503, "unavailable"),
    "another user's": (APIResponseError("no", kind="mismatched"), 503, "unavailable"),
    "closed": (ClientClosedError(), 503, "unavailable"),
    "408": (status_error(408), 504, "timeout"),
    "timeout": (APITimeoutError("no"), 504, "timeout"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_told_by_its_kind_and_nothing_else(api, name):
    error, status, code = FAILURES[name]
    api.then(error)

    response = api.ask(make(api))

    assert (response.status, told(response)["error"]["code"]) == (status, code)
    assert told(response)["error"]["message"] == web.REFUSALS[code][1]
    assert response.headers["Cache-Control"] == "no-store"
    assert ("Retry-After" in response.headers) == (status == 503)


@pytest.mark.parametrize(
    ("asked", "said"), [(None, "5"), (0.2, "1"), (30, "30"), (30.1, "31"), (1e308, "3600")]
)
def test_a_browser_is_told_in_whole_seconds_when_to_ask_again(api, asked, said):
    api.then(status_error(429, retry_after=asked))

    assert api.ask(make(api)).headers["Retry-After"] == said


@pytest.mark.parametrize(
    "reply",
    [
        reply_without(("client_secret",)),
        reply_with(("client_secret",), None),
        reply_with(("client_secret",), ""),
        reply_with(("client_secret",), 5),
    ],
)
def test_a_reply_without_a_secret_is_of_no_use(api, reply):
    errors = []
    api.then(api.reply(reply))

    response = api.ask(make(api, on_error=errors.append))

    assert (response.status, told(response)["error"]["code"]) == (502, "bad_gateway")
    assert isinstance(errors[0], ChatKitError)
    assert "client_secret" in str(errors[0])


def test_the_operator_gets_the_error_itself_once(api, caplog):
    errors = []
    error = status_error(422, request_id="req_1")
    api.then(error, APITimeoutError("too late"))
    endpoint = make(api, on_error=errors.append)

    with caplog.at_level(logging.WARNING, "chatkit_async"):
        api.ask(endpoint)
        api.ask(endpoint)

    assert errors[0] is error
    first, second = caplog.records
    assert (first.name, first.levelname, second.levelname) == ("chatkit_async", "ERROR", "WARNING")
    assert first.getMessage().startswith("No client secret was issued (bad_gateway): said so")
    assert "req_1" in first.getMessage()


def test_a_failure_is_not_kept(api):
    api.then(status_error(500))
    endpoint = make(api)

    assert api.ask(endpoint).status == 503
    assert secret_of(api.ask(endpoint)) == "ek_number_2"


@pytest.mark.parametrize("error", [LookupError("vault"), asyncio.CancelledError("key")])
def test_what_your_own_callables_raise_is_raised(api, error):
    api.then(error)
    endpoint = make(api)

    with pytest.raises(type(error)):
        api.ask(endpoint)
    assert secret_of(api.ask(endpoint)) == "ek_number_2"


def test_what_on_error_raises_is_raised(api):
    def on_error(error):
        raise LookupError from None

    api.then(status_error(500))
    endpoint = make(api, on_error=on_error)

    with pytest.raises(LookupError):
        api.ask(endpoint)
    assert secret_of(api.ask(endpoint)) == "ek_number_2"


# What it refuses to be made of --------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"workflow": ""}, {"rate_limits": 0}, {"expires_after": -1}, {"timeout": 0}],
    ids=str,
)
def test_parameters_that_cannot_be_right_are_told_at_once(api, settings):
    with pytest.raises(ParameterError, match=next(iter(settings))):
        make(api, **settings)


def test_an_unknown_option_is_told_at_once(api):
    with pytest.raises(TypeError, match="did you mean 'timeout'"):
        make(api, timeouts=5)


@pytest.mark.parametrize("min_ttl", [-1, math.nan, True, "60", None])
def test_min_ttl_is_zero_or_more_seconds(api, min_ttl):
    with pytest.raises(ConfigurationError, match="min_ttl"):
        make(api, min_ttl=min_ttl)


@pytest.mark.parametrize("max_secrets", [-1, 1.5, True, None])
def test_max_secrets_is_a_whole_number(api, max_secrets):
    with pytest.raises(ConfigurationError, match="max_secrets"):
        make(api, max_secrets=max_secrets)


def test_a_client_of_the_other_kind_is_told_apart():
    with ChatKit(api_key="sk-made-up") as client, pytest.raises(TypeError, match="an AsyncChatKit"):
        ClientSecretEndpoint(client, workflow="wf_123")
    with pytest.raises(TypeError, match="takes a ChatKit; ClientSecretEndpoint"):
        BlockingClientSecretEndpoint(AsyncChatKit(api_key="sk-made-up"), workflow="wf_123")


def test_both_endpoints_take_and_say_the_same():
    def signature(method):
        found = inspect.signature(method)
        return [p.replace(annotation=None) for p in found.parameters.values()]

    one, other = ClientSecretEndpoint, BlockingClientSecretEndpoint
    assert signature(one) == signature(other)
    assert signature(one.handle) == signature(other.handle)
    assert inspect.getdoc(one.handle) == inspect.getdoc(other.handle)
    assert (
        inspect.getdoc(one).partition("Args:")[2].replace("a blocking one", "an async one")
        == (inspect.getdoc(other).partition("Args:")[2])
    )


# What it hands out again --------------------------------------------------------------------------


def test_a_secret_is_handed_out_again_while_it_has_min_ttl_left(api):
    endpoint = make(api, min_ttl=120)

    first = api.ask(endpoint)
    api.seconds += 480
    assert api.ask(endpoint) is first
    api.seconds += 1
    assert secret_of(api.ask(endpoint)) == "ek_number_2"


def test_a_secret_is_handed_out_again_to_its_user_alone(api):
    endpoint = make(api)

    assert secret_of(api.ask(endpoint, "ada")) == "ek_number_1"
    assert secret_of(api.ask(endpoint, "bob")) == "ek_number_2"
    assert secret_of(api.ask(endpoint, "ada ")) == "ek_number_3"
    assert secret_of(api.ask(endpoint, "ada")) == "ek_number_1"


@pytest.mark.parametrize(
    "other",
    [
        {"workflow": "wf_456"},
        {"workflow": {"id": "wf_123", "state_variables": {"plan": "pro"}}},
        {"chatkit_configuration": {"history": {"enabled": False}}},
        {"expires_after": 300},
        {"rate_limits": 5},
    ],
    ids=str,
)
def test_a_secret_is_handed_out_again_for_its_parameters_alone(api, other):
    endpoint = make(api)

    assert secret_of(api.ask(endpoint)) == "ek_number_1"
    assert secret_of(api.ask(endpoint, **other)) == "ek_number_2"
    assert secret_of(api.ask(endpoint, **other)) == "ek_number_2"
    assert secret_of(api.ask(endpoint)) == "ek_number_1"


def test_parameters_are_the_same_in_all_their_forms(api):
    endpoint = make(api)

    first = api.ask(endpoint, rate_limits=5)

    assert api.ask(endpoint, rate_limits={"max_requests_per_1_minute": 5}) is first
    assert api.ask(endpoint, rate_limits=5, workflow={"id": "wf_123"}) is first


def test_parameters_for_a_user_that_cannot_be_right_are_the_programmers_mistake(api):
    with pytest.raises(ParameterError, match="state_variables"):
        api.ask(make(api), workflow={"id": "wf_123", "state_variables": {"a": []}})
    assert not api.calls


def test_the_secret_that_the_browser_has_given_up_on_is_not_handed_out_again(api):
    endpoint = make(api)

    first = secret_of(api.ask(endpoint))
    second = secret_of(api.ask(endpoint, current=first))
    assert second != first
    # A tab that still has the first one gets the second, and nobody gets the first again.
    assert secret_of(api.ask(endpoint, current=first)) == second
    assert secret_of(api.ask(endpoint)) == second


def test_a_secret_given_up_on_is_gone_though_the_create_after_it_fails(api):
    endpoint = make(api)
    first = secret_of(api.ask(endpoint))
    api.then(status_error(500))

    assert api.ask(endpoint, current=first).status == 503
    assert secret_of(api.ask(endpoint)) == "ek_number_3"


def test_a_secret_that_is_not_ascii_can_be_given_up_on(api):
    endpoint = make(api)
    api.then({"client_secret": "é\udc80"})

    assert secret_of(api.ask(endpoint)) == "é\udc80"
    assert secret_of(api.ask(endpoint, current="é\udc80")) == "ek_number_2"


@pytest.mark.parametrize("skew", [-7200, 7200])
def test_a_clock_of_ours_that_is_wrong_does_no_harm(api, skew):
    api.skew = skew
    endpoint = make(api)

    first = api.ask(endpoint)
    api.seconds += 540
    assert api.ask(endpoint) is first
    api.seconds += 1
    assert api.ask(endpoint) is not first


@pytest.mark.parametrize(
    ("date", "skew"),
    [
        (None, 0),
        ("yesterday", 0),
        (formatdate(NOW), 7200),  # in UTC, and does not say so
        ("Wed, 01 Jan 2025 01:50:00 +0200", 7200),
    ],
)
def test_what_the_reply_says_of_the_time_may_be_odd(api, date, skew):
    reply = api.reply({**FITTING, "expires_at": NOW + 600})
    object.__setattr__(reply, "headers", {} if date is None else {"Date": date})
    api.then(reply)
    api.skew = skew
    endpoint = make(api)

    first = api.ask(endpoint)
    api.seconds += 540
    assert api.ask(endpoint) is first
    api.seconds += 1
    assert api.ask(endpoint) is not first


def test_a_slow_clock_alone_does_not_make_a_secret_last_longer_than_was_asked_for(api):
    api.sends_date, api.skew = False, -7200
    endpoint = make(api, expires_after=120)

    first = api.ask(endpoint)
    api.seconds += 60
    assert api.ask(endpoint) is first
    api.seconds += 1
    assert api.ask(endpoint) is not first


def test_time_that_passes_while_the_machine_sleeps_counts(api):
    endpoint = make(api)

    first = api.ask(endpoint)
    api.skew += 541  # the wall clock went on, the monotonic one stood still
    assert api.ask(endpoint) is not first


def test_a_wall_clock_that_is_set_back_does_not_make_a_secret_last(api):
    endpoint = make(api)

    first = api.ask(endpoint)
    api.seconds, api.skew = api.seconds + 541, -7200
    assert api.ask(endpoint) is not first


@pytest.mark.parametrize("expires_at", [None, "soon", 0, -(2**2000), NOW])
def test_a_secret_of_unknown_or_no_duration_is_handed_out_once(api, expires_at):
    api.then({"expires_at": expires_at})
    endpoint = make(api)

    response = api.ask(endpoint)

    assert secret_of(response) == "ek_number_1"
    assert told(response)["expires_at"] == (expires_at if isinstance(expires_at, int) else None)
    assert secret_of(api.ask(endpoint)) == "ek_number_2"


def test_a_reply_without_expires_at_is_handed_out_once(api):
    api.then(api.reply(reply_without(("expires_at",))))
    endpoint = make(api)

    assert told(api.ask(endpoint)) == {"client_secret": CLIENT_SECRET, "expires_at": None}
    assert secret_of(api.ask(endpoint)) == "ek_number_2"


def test_a_date_beyond_all_clocks_lasts_as_long_as_was_asked_for(api):
    api.then({"expires_at": 2**2000})
    endpoint = make(api)

    first = api.ask(endpoint)
    api.seconds += 540
    assert api.ask(endpoint) is first
    api.seconds += 1
    assert api.ask(endpoint) is not first


def test_reuse_can_be_turned_off(api):
    for endpoint in (make(api, min_ttl=math.inf), make(api, max_secrets=0)):
        assert api.ask(endpoint) != api.ask(endpoint)
        assert not endpoint._core._issued


def test_no_more_secrets_are_kept_than_asked_and_the_oldest_go_first(api):
    endpoint = make(api, max_secrets=2)
    for user in ("ada", "bob", "eve"):
        api.ask(endpoint, user)

    assert len(endpoint._core._issued) == 2
    assert secret_of(api.ask(endpoint, "bob")) == "ek_number_2"
    assert secret_of(api.ask(endpoint, "eve")) == "ek_number_3"
    assert secret_of(api.ask(endpoint, "ada")) == "ek_number_4"


def test_what_has_ended_is_not_kept(api):
    endpoint = make(api)
    for user in ("ada", "bob"):
        api.ask(endpoint, user)
        api.seconds += 300
    api.ask(endpoint, "eve")  # ada's has ended just now

    assert len(endpoint._core._issued) == 2
    assert CLIENT_SECRET not in repr(endpoint._core._issued)
    assert "ek_number" not in repr(endpoint._core._issued)


# Who shares a create: tasks -----------------------------------------------------------------------


async def turns(number=5):
    """Let the tasks of this loop get on as far as they can."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_all_who_ask_meanwhile_share_a_create(async_api):
    go = Gate()
    async_api.then(go)
    endpoint = make(async_api)

    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(endpoint.handle(user="ada", current_secret=current))
            for current in (None, None, "ek_old", "")
        ]
        other = group.create_task(endpoint.handle(user="bob"))
        await turns()
        assert len(async_api.calls) == 2
        go.set()

    assert len({id(task.result()) for task in asked}) == 1
    assert secret_of(other.result()) != secret_of(asked[0].result())
    assert len(async_api.calls) == 2


@pytest.mark.parametrize("leaves", [0, 1])
async def test_who_is_gone_does_not_end_the_create_of_those_who_wait(async_api, leaves):
    go = Gate()
    async_api.then(go)
    endpoint = make(async_api)
    asked = [asyncio.create_task(endpoint.handle(user="ada")) for _ in range(2)]
    await turns()

    asked[leaves].cancel()
    await turns()
    go.set()

    assert secret_of(await asked[1 - leaves]) == CLIENT_SECRET
    assert asked[leaves].cancelled()
    assert len(async_api.calls) == 1


async def test_a_create_that_nobody_waits_for_is_cancelled_and_not_joined(async_api):
    ended = []

    async def create(**given):
        async_api.take(given)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    endpoint = make(async_api)
    async_api.create = create
    asked = [asyncio.create_task(endpoint.handle(user="ada")) for _ in range(2)]
    await turns()
    del async_api.create
    for task in asked:
        task.cancel()
    next_one = asyncio.create_task(endpoint.handle(user="ada"))

    assert secret_of(await next_one) == "ek_number_2"
    assert ended == [True]
    assert len(async_api.calls) == 2
    assert not endpoint._core._in_progress


@pytest.mark.parametrize("outcome", [{}, InternalServerError("said so")], ids=["secret", "failure"])
async def test_a_create_that_has_ended_is_not_joined_by_who_knows_its_outcome(async_api, outcome):
    async_api.then(outcome)
    endpoint = make(async_api)

    async def ask_twice():
        first = await endpoint.handle(user="ada")
        current = told(first).get("client_secret")
        return first, await endpoint.handle(user="ada", current_secret=current)

    # It goes on before the others that waited for the same create do.
    (first, second), *_ = await asyncio.gather(
        ask_twice(), *(endpoint.handle(user="ada") for _ in range(2))
    )

    assert secret_of(second) == "ek_number_2"
    assert second.body != first.body


async def test_a_timeout_of_the_callers_own_ends_its_wait_alone(async_api):
    go = Gate()
    async_api.then(go)
    endpoint = make(async_api)
    waiting = asyncio.create_task(endpoint.handle(user="ada"))
    await turns()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await endpoint.handle(user="ada")
    go.set()

    assert secret_of(await waiting) == CLIENT_SECRET


async def test_an_exception_is_shared_and_makes_no_noise(async_api, caplog):
    async_api.then(LookupError("vault"))
    endpoint = make(async_api)

    found = await asyncio.gather(
        *(endpoint.handle(user="ada") for _ in range(3)), return_exceptions=True
    )

    assert [type(error) for error in found] == [LookupError] * 3
    assert len(async_api.calls) == 1
    del found
    gc.collect()
    assert not caplog.records


async def test_an_exception_that_nobody_is_left_to_see_makes_no_noise(async_api, caplog):
    async def create(**given):
        async_api.take(given)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LookupError from None

    endpoint = make(async_api)
    async_api.create = create
    asked = asyncio.create_task(endpoint.handle(user="ada"))
    await turns()
    asked.cancel()
    await turns()

    assert asked.cancelled()
    del asked
    gc.collect()
    assert len(async_api.calls) == 1
    assert not caplog.records


async def test_a_failure_is_logged_once_however_many_share_it(async_api, caplog):
    async_api.then(status_error(500))
    errors = []
    endpoint = make(async_api, on_error=errors.append)

    found = await asyncio.gather(*(endpoint.handle(user="ada") for _ in range(3)))

    assert [response.status for response in found] == [503] * 3
    assert (len(errors), len(caplog.records)) == (1, 1)


def test_two_loops_share_what_was_issued_and_not_what_is_under_way(async_api):
    endpoint = make(async_api)
    first, second = asyncio.Runner(), asyncio.Runner()
    with first, second:
        go = Gate()
        async_api.then(go)

        async def begin():
            task = asyncio.create_task(endpoint.handle(user="ada"))
            await turns()
            return task

        async def end(task):
            go.set()
            return await task

        under_way = first.run(begin())
        there = second.run(endpoint.handle(user="ada"))
        assert secret_of(there) == "ek_number_2"
        assert secret_of(first.run(end(under_way))) == CLIENT_SECRET
        # The one that came last is the one that is kept, for both.
        assert secret_of(second.run(endpoint.handle(user="ada"))) == CLIENT_SECRET
    assert len(async_api.calls) == 2


@pytest.mark.filterwarnings("ignore:coroutine.*was never awaited:RuntimeWarning")
def test_a_loop_that_is_closed_under_its_tasks_leaves_nothing_behind(async_api):
    endpoint = make(async_api)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending"
    async_api.then(Gate())
    task = loop.create_task(endpoint.handle(user="ada"))
    loop.run_until_complete(turns())
    assert len(endpoint._core._in_progress) == 1
    gone = weakref.ref(task)
    loop.close()

    del task
    async_api.calls.clear()
    gc.collect()

    assert gone() is None
    assert not endpoint._core._in_progress


# Who shares a create: threads ---------------------------------------------------------------------


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as threads:
        yield threads


def joined(endpoint):
    """An event that is set as a thread begins to wait for the create that is in progress."""
    waits = threading.Event()
    (shared,) = endpoint._core._in_progress.values()
    outcome = shared.outcome

    def wait():
        waits.set()
        return outcome()

    shared.outcome = wait
    return waits


def test_all_threads_that_ask_meanwhile_share_a_create(blocking_api, threads):
    go = Gate()
    blocking_api.then(go)
    endpoint = make(blocking_api)
    leader = threads.submit(endpoint.handle, user="ada")
    assert blocking_api.begun.acquire(timeout=PATIENCE)
    waits = joined(endpoint)
    follower = threads.submit(endpoint.handle, user="ada")
    other = threads.submit(endpoint.handle, user="bob")

    assert waits.wait(PATIENCE)
    assert secret_of(other.result(PATIENCE)) == "ek_number_2"
    go.set()

    assert follower.result(PATIENCE) is leader.result(PATIENCE)
    blocking_api.close()
    gc.collect()
    assert not endpoint._core._in_progress


def test_an_exception_is_shared_among_threads(blocking_api, threads):
    go = Gate()
    blocking_api.then(go, LookupError("vault"))
    endpoint = make(blocking_api)
    leader = threads.submit(endpoint.handle, user="ada")
    assert blocking_api.begun.acquire(timeout=PATIENCE)
    waits = joined(endpoint)
    follower = threads.submit(endpoint.handle, user="ada")
    assert waits.wait(PATIENCE)
    go.set()

    for asked in (leader, follower):
        with pytest.raises(LookupError, match="vault"):
            asked.result(PATIENCE)
    blocking_api.close()
    gc.collect()
    assert not endpoint._core._in_progress


def test_interrupted_thread_leaves_its_create_to_the_others(blocking_api, threads, monkeypatch):
    go = Gate()
    blocking_api.then(go)
    endpoint = make(blocking_api)
    run, given_up = endpoint._loop_thread._give_up, threading.Event()

    def interrupted():
        idents.append(threading.get_ident())
        try:
            endpoint.handle(user="ada")
        except KeyboardInterrupt:
            return True

    idents = []
    monkeypatch.setattr(_loop_thread, "SLICE", 0.01)
    monkeypatch.setattr(endpoint._loop_thread, "_give_up", lambda call: (run(call), given_up.set()))
    leader = threads.submit(interrupted)
    assert blocking_api.begun.acquire(timeout=PATIENCE)
    waits = joined(endpoint)
    follower = threads.submit(endpoint.handle, user="ada")
    assert waits.wait(PATIENCE)
    interrupt_thread(idents[0])
    assert given_up.wait(PATIENCE)
    go.set()

    assert leader.result(PATIENCE) is True
    assert secret_of(follower.result(PATIENCE)) == CLIENT_SECRET
    assert len(blocking_api.calls) == 1


def interrupt_thread(ident):
    raised = ctypes.py_object(KeyboardInterrupt)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), raised) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), LookupError("vault")])
def test_exception_of_a_key_callable_does_not_end_the_loop(blocking_api, error):
    blocking_api.then(error)
    endpoint = make(blocking_api)

    with pytest.raises(type(error)):
        endpoint.handle(user="ada")
    assert secret_of(endpoint.handle(user="ada")) == "ek_number_2"


def test_on_error_is_called_once_in_a_thread_that_waits(blocking_api, threads):
    def on_error(error):
        called_in.append(threading.current_thread())
        if len(called_in) == 1:
            raise LookupError

    go, called_in = Gate(), []
    blocking_api.then(go, status_error(500))
    endpoint = make(blocking_api, on_error=on_error)
    asked = [threads.submit(endpoint.handle, user="ada")]
    assert blocking_api.begun.acquire(timeout=PATIENCE)
    waits = joined(endpoint)
    asked.append(threads.submit(endpoint.handle, user="ada"))
    assert waits.wait(PATIENCE)
    go.set()

    results = [one.exception(PATIENCE) or one.result().status for one in asked]
    assert sorted(map(str, results)) == ["", "503"]
    assert [thread.name for thread in called_in] != [_loop_thread]
    assert called_in[0] is not endpoint._loop_thread._thread


def test_on_error_may_ask_again(blocking_api):
    found = []
    blocking_api.then(status_error(500))
    endpoint = make(blocking_api, on_error=lambda _: found.append(endpoint.handle(user="eve")))

    assert endpoint.handle(user="ada").status == 503
    assert secret_of(found[0]) == "ek_number_2"


def test_cached_secret_is_found_without_the_loop(blocking_api):
    endpoint = make(blocking_api)
    first = endpoint.handle(user="ada")
    blocking_api.close()

    assert endpoint.handle(user="ada") is first
    assert endpoint.handle(user="bob").status == 503


def test_secret_that_another_thread_got_meanwhile_is_found(blocking_api, monkeypatch):
    endpoint, found = make(blocking_api), []

    def run_after_another(*args):
        monkeypatch.undo()
        found.append(endpoint.handle(user="ada"))
        return endpoint._loop_thread.run(*args)

    monkeypatch.setattr(endpoint._loop_thread, "run", run_after_another)
    found.append(endpoint.handle(user="ada"))
    assert found[0] is found[1]


# Permanent failures -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_permanent_failure_is_remembered_for_ten_seconds(api, status, caplog):
    errors = []
    api.then(*[status_error(status)] * 2)
    endpoint = make(api, on_error=errors.append)

    responses = [api.ask(endpoint)]
    for _ in range(4):
        api.seconds += 2.4
        responses.append(api.ask(endpoint))
    assert {response.body for response in responses} == {responses[0].body}
    assert (responses[0].status, len(api.calls), len(errors)) == (502, 1, 1)
    api.seconds += 0.4
    assert api.ask(endpoint).status == 502
    assert (len(api.calls), len(errors), len(caplog.records)) == (2, 2, 1)
    api.seconds += 10
    assert secret_of(api.ask(endpoint)) == "ek_number_3"


@pytest.mark.parametrize("status", [400, 408, 409, 422, 429, 500])
def test_other_failure_is_not_remembered(api, status):
    api.then(status_error(status))
    endpoint = make(api)

    assert api.ask(endpoint).status != 200
    assert secret_of(api.ask(endpoint)) == "ek_number_2"


def test_permanent_failure_is_remembered_for_its_parameters_alone(api):
    api.then(status_error(404))
    endpoint = make(api)

    assert api.ask(endpoint, workflow="wf_gone").status == 502
    assert secret_of(api.ask(endpoint)) == "ek_number_2"
    assert secret_of(api.ask(endpoint, user="bob")) == "ek_number_3"
    assert api.ask(endpoint, workflow="wf_gone").status == 502
    assert len(api.calls) == 3


def test_permanent_failure_leaves_a_good_secret_alone(api):
    endpoint = make(api)
    first = secret_of(api.ask(endpoint))
    api.then(status_error(403))

    assert api.ask(endpoint, current=first).status == 502
    assert api.ask(endpoint, current=first).status == 502
    assert len(api.calls) == 2


def test_failures_are_logged_once_a_minute_with_their_number(api, caplog):
    api.then(*[status_error(404, request_id=f"req_{number}") for number in range(60)])
    endpoint = make(api)

    for number in range(130):
        api.ask(endpoint, user=f"user_{number % 3}")
        api.seconds += 1

    lines = [record.getMessage() for record in caplog.records]
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3
    assert "more requests" not in lines[0]
    assert all("; 59 more requests failed in the same way" in line for line in lines[1:])
    assert lines[1].count("req_") == 1


def test_failures_of_another_kind_are_logged_at_once(api, caplog):
    api.then(status_error(404), status_error(403))
    api.script[1].message = "another one"
    endpoint = make(api)

    api.ask(endpoint, user="ada")
    api.ask(endpoint, user="bob")
    assert [record.getMessage().split(": ")[1].split(" (")[0] for record in caplog.records] == [
        "said so",
        "another one",
    ]


def test_no_more_failures_are_remembered_than_fit(api, monkeypatch):
    monkeypatch.setattr(web, "MAX_FAILURES", 2)
    api.then(*[status_error(404) for _ in range(3)])
    endpoint = make(api)
    for user in ("ada", "bob", "eve"):
        api.ask(endpoint, user)

    assert len(endpoint._core._failures) == 2
    assert secret_of(api.ask(endpoint, "ada")) == "ek_number_4"


# Stories: what holds whoever asks, leaves or fails, and whenever ------------------------------------


class Books:
    """What a story knows of each secret, to hold what browsers get against it."""

    MIN_TTL = 60

    def __init__(self, random, now):
        self.random = random
        self.now = now
        self.lock = threading.Lock()
        self.under_way = set()
        self.owner, self.made, self.lifetime, self.unwanted = {}, {}, {}, set()
        self.reused = 0

    def begin(self, user):
        with self.lock:
            assert user not in self.under_way, "two creates for one user"
            self.under_way.add(user)

    def end(self, user):
        with self.lock:
            self.under_way.remove(user)

    def issue(self, api, user):
        with self.lock:
            if self.random.random() < 0.2:
                raise self.random.choice([status_error(500), APITimeoutError("no"), LookupError()])
            secret = f"ek_story_{len(self.owner)}"
            lifetime = self.random.choice([30, 120, 600])
            self.owner[secret], self.made[secret] = user, self.now()
            self.lifetime[secret] = lifetime
        now = int(NOW + self.now())
        return api.reply({**FITTING, "client_secret": secret, "expires_at": now + lifetime}, now)

    def want(self, has):
        """What a browser sends along; since when it waits; and what it must not get."""
        with self.lock:
            current = has if self.random.random() < 0.5 else None
            return current, self.now(), {*self.unwanted, current}

    def give_up(self, current):
        """Note that the endpoint has been told."""
        with self.lock:
            self.unwanted.add(current)

    def check(self, user, response, began, unwanted):
        assert response.status in {200, 503, 504}
        if response.status != 200:
            return None
        secret = told(response)["client_secret"]
        with self.lock:
            assert self.owner[secret] == user
            assert secret not in unwanted
            if self.made[secret] < began:
                self.reused += 1
                left = self.lifetime[secret] - (self.now() - self.made[secret])
                assert left >= self.MIN_TTL - 1  # the API's clock tells whole seconds
        return secret


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(4))
def test_a_story_of_tasks(async_api, seed):
    async def main():
        loop = asyncio.get_running_loop()
        books = Books(Random(seed), loop.time)
        endpoint = make(async_api, min_ttl=books.MIN_TTL, max_secrets=2, expires_after=600)
        endpoint._core.now = lambda: web._Moment(loop.time(), NOW + loop.time())

        async def create(*, user, **given):
            books.begin(user)
            try:
                await asyncio.sleep(books.random.uniform(0, 3))
                return books.issue(async_api, user)
            finally:
                books.end(user)

        async_api.create = create

        async def browser(user):
            has = None
            for _ in range(40):
                await asyncio.sleep(books.random.choice([0, 0, 1, 100]))
                current, *known = books.want(has)
                books.give_up(current)  # nothing else runs before it is told
                with contextlib.suppress(TimeoutError, LookupError):
                    async with asyncio.timeout(books.random.choice([0, 1, 2, None])):
                        response = await endpoint.handle(user=user, current_secret=current)
                    has = books.check(user, response, *known)

        users = ["ada", "bob", "eve"]
        await asyncio.gather(*(browser(user) for user in users * 3))
        assert books.reused
        assert not books.under_way
        assert len(endpoint._core._issued) <= 2

    virtual.run(main())


@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(2))
def test_a_story_of_threads(blocking_api, threads, seed):
    books = Books(Random(seed), lambda: 0.0)
    endpoint = make(blocking_api, min_ttl=books.MIN_TTL)

    async def create(*, user, **given):
        books.begin(user)
        try:
            await asyncio.sleep(0)
            return books.issue(blocking_api, user)
        finally:
            books.end(user)

    blocking_api.create = create

    def browser(user):
        has = None
        for _ in range(50):
            current, *known = books.want(has)
            with contextlib.suppress(LookupError):
                response = endpoint.handle(user=user, current_secret=current)
                has = books.check(user, response, *known)
            books.give_up(current)

    for asked in [threads.submit(browser, user) for user in ["ada", "bob"] * 4]:
        asked.result(PATIENCE)
    gc.collect()
    assert not endpoint._core._in_progress


# Against the emulator -----------------------------------------------------------------------------


async def test_an_async_backend_in_whole():
    async with (
        Emulator(workflows=["wf_123"]) as emulator,
        AsyncChatKit(api_key=emulator.api_key, base_url=emulator.base_url, max_retries=0) as client,
    ):
        endpoint = ClientSecretEndpoint(client, workflow="wf_123", expires_after=300)

        twice = await asyncio.gather(*(endpoint.handle(user="ada") for _ in range(2)))
        (session,) = emulator.sessions.values()
        assert twice[0] is twice[1]
        assert told(twice[0]) == {
            "client_secret": session.client_secret,
            "expires_at": session.expires_at,
        }
        assert await endpoint.handle(user="ada") is twice[0]
        again = await endpoint.handle(user="ada", current_secret=session.client_secret)
        assert secret_of(again) != session.client_secret
        assert emulator.requests[-1].body["expires_after"]["seconds"] == 300

        gone = await endpoint.handle(user="ada", workflow="wf_gone")
        assert gone.status == 502
        assert b"wf_gone" not in gone.body
        emulator.fail(status=429, headers={"Retry-After": "30"})
        busy = await endpoint.handle(user="bob")
        assert (busy.status, busy.headers["Retry-After"]) == (503, "30")


def test_a_blocking_backend_in_whole():
    with (
        Emulator() as emulator,
        ChatKit(api_key=emulator.api_key, base_url=emulator.base_url, timeout=30) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        endpoint = BlockingClientSecretEndpoint(client, workflow="wf_123")
        emulator.latency = 0.05

        asked = [threads.submit(endpoint.handle, user="ada") for _ in range(20)]

        assert len({secret_of(each.result(PATIENCE)) for each in asked}) == 1
        assert len(emulator.requests) == 1


async def test_a_reply_as_the_apis_documentation_shows_it_is_of_use():
    async with (
        Emulator() as emulator,
        AsyncChatKit(api_key=emulator.api_key, base_url=emulator.base_url) as client,
    ):
        endpoint = ClientSecretEndpoint(client, workflow="wf_123")
        emulator.fail(off_schema=True)

        response = await endpoint.handle(user="ada")

        (session,) = emulator.sessions.values()
        assert secret_of(response) == session.client_secret


async def test_a_closed_client_is_told_as_unavailable():
    client = AsyncChatKit(api_key="sk-made-up")
    await client.close()

    response = await ClientSecretEndpoint(client, workflow="wf_123").handle(user="ada")

    assert (response.status, told(response)["error"]["code"]) == (503, "unavailable")


def test_a_traceback_with_locals_shows_no_secret(api):
    endpoint = make(api, extra_headers={"X-Key": "sk-in-a-header"})
    first = secret_of(api.ask(endpoint))
    api.then(LookupError("vault"))

    for ask in (
        lambda: api.ask(endpoint, current=first),
        lambda: api.ask(endpoint, current=first, rate_limits=0),
        lambda: make(api, rate_limits=0, extra_headers={"X-Key": "sk-in-a-header"}),
    ):
        try:
            ask()
        except (LookupError, ParameterError) as error:
            shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        frames = [frame for frame in shown.stack if frame.filename == web.__file__]
        assert frames
        for frame in frames:
            assert first not in str(frame.locals)
            assert "sk-in-a-header" not in str(frame.locals)


def test_missing_fields_are_named_in_the_log(api, caplog):
    api.then(api.reply(reply_without(("client_secret",))))
    errors = []

    api.ask(make(api, on_error=errors.append))

    assert isinstance(errors[0], MissingFieldError)
    assert "client_secret" in caplog.text
