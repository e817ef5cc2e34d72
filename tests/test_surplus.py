"""Replies that nobody asked for: no user is ever given another user's secret."""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from math import inf

import aiohttp
import pytest
from servers import http, serve, session_of

from chatkit_async import APIResponseError, AsyncChatKit, ChatKit, RetryPolicy
from chatkit_async.web import ClientSecretEndpoint

KEY = "sk-test-0123456789"
# `nox -s soak` sets SWEEP_STRIDE=1: every delay with every caller. By default a sample.
SOAK = os.environ.get("SWEEP_STRIDE") == "1"
DELAYS = [each / 1000 for each in range(0, 101, 10)] if SOAK else [0.0, 0.005]
PAUSES = [0.0, 0.005, 0.05] if SOAK else [0.0, 0.01]
QUICK = RetryPolicy(initial_backoff=0.001, max_backoff=0.001)

pytestmark = [pytest.mark.unmeasured, pytest.mark.sweep(every=1)]


# The server


def by_length(body):
    return http(body)


def in_chunks(body):
    chunks = b"5\r\n" + body[:5] + b"\r\n%x\r\n" % len(body[5:]) + body[5:] + b"\r\n0\r\n\r\n"
    return http(chunks, Content_Length=None, Transfer_Encoding="chunked")


def in_http_1_0(body):
    return http(body, Connection="keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0", 1)


FRAMINGS = [by_length, in_chunks, in_http_1_0]

TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
SURPLUS = {
    "duplicate": lambda reply: reply,
    "duplicates": lambda reply: reply * 3,
    "a stranger's": lambda reply: http(session_of("stranger")),
    "408": lambda reply: TIMED_OUT,
    "408 and close": lambda reply: TIMED_OUT.replace(b"\r\n", b"\r\nConnection: close\r\n", 1),
    "half": lambda reply: reply[: len(reply) // 2],
    "interim": lambda reply: b"HTTP/1.1 100 Continue\r\n\r\n",
}


def off_schema(user):
    """A session as the API's documentation shows it: it does not say whose it is."""
    return json.dumps({"client_secret": f"ek_of_{user}", "status": "active"}).encode()


class SurplusServer:
    """Answers creates, and sends on each connection what nobody asked for.

    Args:
        surplus: Makes it of the reply before.
        moment: When it is sent: "with" that reply, while the connection is "idle", or "after" the
            next request was received; a float: seconds after that reply.
        at_once: Requests that come before any is answered, so that each has its own connection.
        times: How often; None: with every reply.
    """

    def __init__(
        self, surplus, moment, *, at_once=1, framing=by_length, session=session_of, times=None
    ):
        self.surplus = surplus
        self.moment = moment
        self.at_once = at_once
        self.reply_to = lambda user: framing(session(user))
        self.left = inf if times is None else times
        self.requests = 0
        self.idle = {}  # connections, and the last reply on each

    async def __call__(self, server, wire):
        reply = None
        while True:
            request = await wire.request()
            self.requests += 1
            server.note()
            await server.until(lambda: self.requests >= self.at_once)
            if reply is not None and self.is_due("after"):
                await wire.send(self.surplus(reply))
            reply = self.reply_to(json.loads(request.body)["user"])
            self.idle[wire] = reply
            if isinstance(self.moment, float):
                later = asyncio.get_running_loop().call_later
                later(self.moment, wire.writer.write, self.surplus(reply))
            await wire.send(reply + self.surplus(reply) if self.is_due("with") else reply)

    def between_rounds(self):
        """Send what is due while the connections are idle."""
        for wire, reply in self.idle.items():
            if self.is_due("idle"):
                wire.writer.write(self.surplus(reply))
        self.idle.clear()

    def is_due(self, moment):
        if self.moment != moment or not self.left:
            return False
        self.left -= 1
        return True


# The callers: each creates sessions of some users at once, and returns their secrets, or errors


async def by_create(client, users):
    creating = (client.sessions.create(user=user, workflow="wf_123") for user in users)
    sessions = await asyncio.gather(*creating, return_exceptions=True)
    return [getattr(session, "client_secret", session) for session in sessions]


async def by_blocking_create(client, users):
    def create(user):
        return client.sessions.create(user=user, workflow="wf_123")

    run = asyncio.get_running_loop().run_in_executor
    with ThreadPoolExecutor(len(users)) as threads:
        creating = [run(threads, create, user) for user in users]
        sessions = await asyncio.gather(*creating, return_exceptions=True)
    return [getattr(session, "client_secret", session) for session in sessions]


async def by_bulk(client, users):
    outcomes = await client.sessions.create_many(
        users, defaults={"workflow": "wf_123"}, concurrency=len(users), ordered=True
    ).results()
    lost = [each for each in outcomes if getattr(each.error, "kind", None) == "mismatched"]
    assert {each.kind for each in lost} <= {"unknown"}
    return [each.error or each.session.client_secret for each in outcomes]


async def by_endpoint(client, users):
    errors = {}
    endpoint = ClientSecretEndpoint(
        client, workflow="wf_123", on_error=lambda e: errors.update(e=e)
    )
    responses = await asyncio.gather(*(endpoint.handle(user=user) for user in users))
    return [json.loads(each.body).get("client_secret") or errors["e"] for each in responses]


CALLERS = [by_create, by_blocking_create, by_bulk, by_endpoint]


async def handed_out(server, caller, rounds, *, borrow=False, pause=0.0):
    """The secret of each user, or an error, after some rounds of creates that come at once."""
    found = {}
    async with AsyncExitStack() as stack:
        wires = await stack.enter_async_context(serve(server))
        options = {"api_key": KEY, "base_url": wires.base_url, "retry_policy": QUICK}
        if caller is by_blocking_create:
            client = ChatKit(**options)
            stack.push_async_callback(asyncio.to_thread, client.close)
        else:
            if borrow:
                options["http_session"] = await stack.enter_async_context(aiohttp.ClientSession())
            client = await stack.enter_async_context(AsyncChatKit(**options))
        for number in range(rounds):
            users = [f"user_{number}_{each}" for each in range(server.at_once)]
            found.update(zip(users, await caller(client, users), strict=True))
            server.between_rounds()
            if pause:
                await asyncio.sleep(pause)
    return found


def assert_everyone_has_their_own(found, *, errors=0):
    wrong = {u: s for u, s in found.items() if isinstance(s, str) and s != f"ek_of_{u}"}
    assert not wrong
    failed = [each for each in found.values() if not isinstance(each, str)]
    assert {getattr(each, "kind", None) or each.status_code for each in failed} <= {
        "mismatched",
        408,
    }
    assert len(failed) <= errors


# One connection


@pytest.mark.parametrize("moment", ["with", "idle", "after"])
@pytest.mark.parametrize("caller", CALLERS)
async def test_a_duplicate_reaches_nobody_else(caller, moment):
    server = SurplusServer(SURPLUS["duplicate"], moment)

    assert_everyone_has_their_own(await handed_out(server, caller, rounds=5))


@pytest.mark.parametrize("moment", ["with", "idle", "after"])
@pytest.mark.parametrize("surplus", SURPLUS)
async def test_surplus_reaches_nobody_else(surplus, moment):
    server = SurplusServer(SURPLUS[surplus], moment)
    found = await handed_out(server, by_create, rounds=5)

    if (surplus, moment) == ("half", "after"):  # the reply after it is part of its body
        found = {user: secret for user, secret in found.items() if isinstance(secret, str)}
    assert_everyone_has_their_own(found)


@pytest.mark.parametrize("moment", ["with", "idle", "after"])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_surplus_of_any_framing_reaches_nobody_else(framing, moment):
    server = SurplusServer(SURPLUS["duplicate"], moment, framing=framing)

    assert_everyone_has_their_own(await handed_out(server, by_create, rounds=5))


@pytest.mark.parametrize("moment", ["with", "idle", "after"])
@pytest.mark.parametrize("surplus", ["duplicate", "408"])
async def test_surplus_on_a_borrowed_session_reaches_nobody_else(surplus, moment):
    server = SurplusServer(SURPLUS[surplus], moment)

    assert_everyone_has_their_own(await handed_out(server, by_create, rounds=5, borrow=True))


@pytest.mark.parametrize("moment", ["with", "idle"])
@pytest.mark.parametrize("caller", CALLERS)
async def test_an_off_schema_duplicate_reaches_nobody_else(caller, moment):
    server = SurplusServer(SURPLUS["duplicate"], moment, session=off_schema)

    assert_everyone_has_their_own(await handed_out(server, caller, rounds=5))


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_late_duplicate_affects_one_call(caller):
    server = SurplusServer(SURPLUS["duplicate"], "after", times=1)
    found = await handed_out(server, caller, rounds=20)

    assert_everyone_has_their_own(found)
    assert server.requests == 21


async def test_a_reply_to_another_request_is_lost():
    """A row whose attempts all get another user's session has sent as many requests as it lost."""
    server = SurplusServer(None, None, session=lambda user: session_of("stranger"))
    async with (
        serve(server) as wires,
        AsyncChatKit(api_key=KEY, base_url=wires.base_url, retry_policy=QUICK) as client,
    ):
        [outcome] = await client.sessions.create_many(
            ["ada"], defaults={"workflow": "wf_123"}
        ).results()

    assert (outcome.kind, outcome.attempts, outcome.lost) == ("unknown", 3, 3)
    assert outcome.error.kind == "mismatched"
    assert wires.connections == 3


async def test_a_reply_to_another_request_draws_on_the_retry_budget():
    server = SurplusServer(None, None, session=lambda user: session_of("stranger"))
    async with (
        serve(server) as wires,
        AsyncChatKit(api_key=KEY, base_url=wires.base_url, retry_policy=QUICK) as client,
    ):
        for _ in range(15):
            with pytest.raises(APIResponseError) as caught:
                await client.sessions.create(user="ada", workflow="wf_123")

    assert server.requests == 15 + 20  # the budget
    assert caught.value.attempts == 1


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "blocking"])
async def test_replies_are_taken_as_they_come_without_verify_replies(blocking):
    server = SurplusServer(None, None, session=lambda user: session_of("stranger"))
    async with serve(server) as wires:
        options = {"api_key": KEY, "base_url": wires.base_url}
        if blocking:

            def create():
                with ChatKit(**options) as client:
                    trusting = client.with_options(verify_replies=False)
                    return trusting.sessions.create(user="ada", workflow="wf_123")

            session = await asyncio.to_thread(create)
        else:
            async with AsyncChatKit(**options, verify_replies=False) as client:
                session = await client.sessions.create(user="ada", workflow="wf_123")

    assert session.user == "stranger"
    assert server.requests == 1


async def test_a_gateway_that_normalises_ids_fails_no_create():
    users = ["Ada", "\uff21\uff24\uff21", "ada  lovelace ", "stra\u00dfe", "cafe\u0301"]
    server = SurplusServer(
        None, None, session=lambda user: session_of(" ".join(user.upper().split()))
    )
    async with (
        serve(server) as wires,
        AsyncChatKit(api_key=KEY, base_url=wires.base_url) as client,
    ):
        for user in users:
            await client.sessions.create(user=user, workflow="wf_123")

    assert server.requests == len(users)


async def test_a_user_of_extra_body_gets_their_own():
    server = SurplusServer(SURPLUS["duplicate"], "after")
    async with (
        serve(server) as wires,
        AsyncChatKit(api_key=KEY, base_url=wires.base_url, retry_policy=QUICK) as client,
    ):
        for number in range(4):
            session = await client.sessions.create(
                user="ada", workflow="wf_123", extra_body={"user": f"user_{number}"}
            )
            assert session.client_secret == f"ek_of_user_{number}"


async def test_a_408_closes_the_connection_it_came_on():
    """The reply to the request that the 408 crossed comes late, and reaches nobody."""
    server = SurplusServer(SURPLUS["408"], "after", session=off_schema)
    found = await handed_out(server, by_create, rounds=6)

    assert_everyone_has_their_own(found)


# Fifty connections


@pytest.mark.sweep(every=2)
@pytest.mark.parametrize("moment", ["with", "idle", "after"])
@pytest.mark.parametrize("caller", CALLERS)
async def test_surplus_on_fifty_connections_reaches_nobody_else(caller, moment):
    server = SurplusServer(SURPLUS["duplicate"], moment, at_once=50)
    found = await handed_out(server, caller, rounds=3)

    assert len(found) == 150
    assert_everyone_has_their_own(found, errors=100 if moment == "after" else 0)


# Any delay


async def delayed(caller, surplus, delay, pause, *, at_once=1, borrow=False):
    server = SurplusServer(SURPLUS[surplus], delay, at_once=at_once)
    rounds = 10 if SOAK else 4
    found = await handed_out(server, caller, rounds, borrow=borrow, pause=pause)
    assert_everyone_has_their_own(found, errors=0 if at_once == 1 else len(found))


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("surplus", ["duplicate", "408"])
async def test_surplus_after_any_delay_reaches_nobody_else(surplus, delay, pause):
    await delayed(by_create, surplus, delay, pause)
    if SOAK:
        await delayed(by_create, surplus, delay, pause, borrow=True)
        for caller in CALLERS:
            await delayed(caller, surplus, delay, pause, at_once=50)
