from __future__ import annotations

import json
import math

import aiohttp
import pytest

from chatkit_async.emulator import (
    Emulator,
    Exponential,
    FixedWindow,
    LogNormal,
    TokenBucket,
    Uniform,
)


async def test_the_state_at_a_glance(create, cancel, control, emulator):
    _, created = await create()
    await cancel(created["id"])
    await create()
    emulator.fail(status=500, times=None)

    status, state = await control("GET", "state")

    assert status == 200
    assert state == {
        "base_url": emulator.base_url,
        "clock": {"now": emulator.clock.now(), "frozen": True},
        "sessions": {"total": 2, "cancelled": 1, "active": 1},
        "threads": {"total": 0},
        "requests": {"total": 3, "kept": 3},
        "connections": 2,
        "rate_limit": None,
        "latency": 0.0,
        "off_schema": False,
        "retired": False,
        "deleted_cursor": "error",
        "faults": [{"number": 1, "met": 0, "times": None, "status": 500}],
    }


async def test_controls_are_in_no_ledger_meet_no_fault_and_draw_nothing(control, create, wanted):
    async def request_id(ask):
        async with Emulator() as emulator, aiohttp.ClientSession() as http:
            if ask:
                emulator.fail(status=500, times=None)
                async with http.get(f"{emulator.control_url}/state") as response:
                    assert response.status == 200
            assert not emulator.requests
            async with http.post(f"{emulator.base_url}/chatkit/sessions", json=wanted) as response:
                return response.headers["x-request-id"]

    assert await request_id(ask=True) == await request_id(ask=False)


# Sessions


async def test_a_session_is_shown_with_its_secret_masked(create, control, emulator):
    scope = {"OpenAI-Organization": "org_1", "OpenAI-Project": "proj_1"}
    _, created = await create(headers=scope)

    status, session = await control("GET", f"sessions/{created['id']}")

    assert status == 200
    now = emulator.clock.now()
    assert session == {
        "id": created["id"],
        "client_secret": "ek_***",
        "status": "active",
        "created_at": now,
        "expires_at": now + 600,
        "cancelled_at": None,
        "organization": "org_1",
        "project": "proj_1",
        "parameters": {
            "user": "user_123",
            "workflow": "wf_123",
            "workflow_version": None,
            "state_variables": None,
            "tracing": True,
            "expires_in": 600,
            "max_requests_per_1_minute": 10,
            "automatic_thread_titling": True,
            "file_upload": False,
            "max_file_size": 512,
            "max_files": 10,
            "history": True,
            "recent_threads": None,
        },
    }


async def test_what_a_session_was_made_with_is_shown_with_its_credentials_masked(
    create, control, wanted
):
    workflow = {**wanted["workflow"], "state_variables": {"token": "sk-in-a-variable", "n": 5}}
    _, created = await create(
        {**wanted, "workflow": workflow}, headers={"OpenAI-Organization": "sk-by-mistake"}
    )

    _, session = await control("GET", f"sessions/{created['id']}")

    assert session["organization"] == "sk-***"
    assert session["parameters"]["state_variables"] == {"token": "sk-***", "n": 5}


async def test_sessions_are_chosen_by_user_and_status(create, cancel, control, wanted):
    ids = [(await create({**wanted, "user": user}))[1]["id"] for user in "aab"]
    await cancel(ids[0])

    async def chosen(query):
        _, body = await control("GET", f"sessions{query}")
        return body["total"], [session["id"] for session in body["sessions"]]

    assert await chosen("") == (3, ids)
    assert await chosen("?user=a") == (2, ids[:2])
    assert await chosen("?user=a&status=active") == (1, [ids[1]])
    assert await chosen("?limit=2") == (3, ids[1:])
    assert await chosen("?limit=0") == (3, [])


async def test_a_session_that_there_is_not_is_a_404_that_shows_no_secret(control):
    status, body = await control("GET", "sessions/ek_secret")

    assert status == 404
    assert body["error"]["message"] == "Session 'ek_***' not found."


# Requests


async def test_a_request_is_shown_with_its_credentials_masked(http, control, emulator, wanted):
    fault = emulator.fail(status=503, headers={"X-Key": "sk-in-a-header"})
    async with http.post(
        "chatkit/sessions",
        json={**wanted, "note": ["sk-in-the-body", {"ek_in_a_name": 5}]},
        params={"key": "sk-in-the-query"},
        headers={"X-Other": "ek_in_a_header", "api-key": "another's way to send it"},
    ):
        pass

    assert (await control("GET", "requests/2"))[0] == 404
    status, record = await control("GET", "requests/1")

    assert status == 200
    headers = record.pop("headers")
    assert headers["Authorization"] == "Bearer ***-key"
    assert headers["X-Other"] == "ek_***"
    assert headers["api-key"] == "***"
    assert record == {
        "number": 1,
        "connection": 1,
        "received_at": emulator.clock.now(),
        "method": "POST",
        "path": "/v1/chatkit/sessions",
        "query": "key=sk-***",
        "request_id": emulator.requests[0].request_id,
        "operation": "create",
        "session_id": None,
        "thread_id": None,
        "user": "user_123",
        "body": {**wanted, "note": ["sk-***", {"ek_***": 5}]},
        "body_size": 99,
        "unknown_fields": [],
        "fault": {"times": 1, "status": 503, "headers": {"X-Key": "sk-***"}},
        "status": 503,
        "outcome": "sent",
    }
    assert emulator.requests[0].fault is fault


async def test_a_body_that_is_no_json_is_not_shown(http, control):
    async with http.post("chatkit/sessions", data=b"\xff"):
        pass
    assert (await control("GET", "requests/1"))[1]["body"] is None


async def test_requests_are_chosen_by_what_they_ask_for(create, cancel, control, wanted):
    ids = [(await create({**wanted, "user": user}))[1]["id"] for user in "ab"]
    for session_id in ids:
        await cancel(session_id)

    async def chosen(query):
        _, body = await control("GET", f"requests{query}")
        assert body["total"] == 4
        return [record["number"] for record in body["requests"]]

    assert await chosen("") == [1, 2, 3, 4]
    assert await chosen("?operation=cancel") == [3, 4]
    assert await chosen("?user=b") == [2, 4]
    assert await chosen("?after=2") == [3, 4]
    assert await chosen("?limit=1") == [4]


async def test_the_ledger_can_be_cleared(create, control, emulator):
    await create()

    assert await control("DELETE", "requests") == (200, {"total": 1, "requests": []})
    assert not emulator.requests
    assert (await control("GET", "requests/1"))[0] == 404


# Clock


async def test_the_clock_can_be_set_stopped_and_moved(control, emulator):
    assert await control("GET", "clock") == (200, {"now": 1_800_000_000, "frozen": True})

    assert (await control("PATCH", "clock", {"now": 100}))[1]["now"] == 100
    assert (await control("PATCH", "clock", {"advance": 0.5}))[1]["now"] == 100.5
    _, clock = await control("PATCH", "clock", {"frozen": False})
    assert clock["frozen"] is False
    assert clock["now"] >= 100.5
    _, clock = await control("PATCH", "clock", {"frozen": True, "now": 200, "advance": 50})
    assert clock == {"now": 250, "frozen": True}
    assert emulator.clock.now() == 250


async def test_a_time_that_cannot_be_leaves_the_clock_alone(control, emulator):
    for fields, param in [
        ({"now": "noon"}, "now"),
        ({"now": True}, "now"),
        ({"now": 10**400}, "now"),
        ({"advance": -1}, "advance"),
        ({"advance": 10**400}, "advance"),
        ({"now": 1.7e308, "advance": 1.7e308}, "advance"),
        ({"now": 10**308, "advance": 10**308}, "advance"),
        ({"frozen": 1}, "frozen"),
        ({"now": 5, "later": 5}, "later"),
    ]:
        before = emulator.clock.now()

        status, body = await control("PATCH", "clock", fields)

        assert status == 400
        assert body["error"]["param"] == param
        assert emulator.clock.now() == before


# Faults


async def test_a_fault_is_scripted_listed_and_met(create, control, emulator):
    status, added = await control("POST", "faults", {"status": 503, "times": 2, "user": "user_123"})
    assert status == 200
    assert added == {"number": 1, "met": 0, "times": 2, "user": "user_123", "status": 503}

    assert (await create())[0] == 503
    assert await control("GET", "faults") == (200, {"faults": [{**added, "met": 1}]})
    assert await control("GET", "faults/1") == (200, {**added, "met": 1})
    assert (await create())[0] == 503
    assert (await create())[0] == 200
    assert (await control("GET", "faults/1"))[0] == 404


ALL_OF_A_FAULT = {
    "operation": "create",
    "path": "/v1/*",
    "user": "ada",
    "with_body": {"workflow.id": "wf_1"},
    "with_headers": {"OpenAI-Project": "proj_1"},
    "times": None,
    "every": 3,
    "status": 503,
    "headers": {"Retry-After": "1"},
    "body": {"id": 5},
    "content_type": "text/plain",
    "delay": 0.5,
    "drip": 0.1,
    "cut": True,
    "after": True,
    "chance": 0.5,
}


async def test_a_fault_comes_back_as_it_was_said(control, emulator):
    for fields in [
        ALL_OF_A_FAULT,
        {"times": 1, "status": 429, "code": "insufficient_quota"},
        {"times": 1, "delay": "inf", "drop": "reset"},
        {"times": 1, "off_schema": True},
        {"times": 1, "body": "<html>"},
        {"times": 1, "body": []},
    ]:
        emulator.reset()
        _, added = await control("POST", "faults", fields)

        assert added == {"number": 1, "met": 0, **fields}
        [fault] = emulator.faults
        assert fault.delay == (math.inf if "inf" in fields.values() else fields.get("delay", 0))


async def test_a_fault_made_in_python_is_shown_without_credentials(control, emulator):
    emulator.fail(body=b"\xff", with_headers={"Authorization": "Bearer my-own-key", "A": "b"})

    _, shown = await control("GET", "faults/1")

    assert shown["with_headers"] == {"Authorization": "***", "A": "b"}
    assert shown["body"] == "\ufffd"
    assert "my-own-key" not in repr(emulator.faults)


async def test_a_fault_that_cannot_be_is_refused(control, emulator):
    for fields, param, sentence in [
        ({}, None, "a fault must do something: set a status, delay, drop, cut or another field."),
        ({"status": 99}, None, "status must be a whole number from 200 to 599, got 99."),
        ({"status": 500, "times": 0}, "times", "Invalid 'times': expected at least 1."),
        ({"status": "500"}, "status", "expected an integer, not a string."),
        ({"headers": {"a": "b\r\n"}}, None, "header 'a' must be printable text."),
        ({"body": "\ud800"}, None, "The request's body is not valid JSON."),
        ({"body": 5}, "body", "expected a string, an object or an array, not an integer."),
        ({"drop": "slowly"}, None, "drop must be 'close' or 'reset', got 'slowly'."),
        ({"delay": "long"}, "delay", "expected a number, not a string."),
        ({"with_headers": {"a": 5}}, "with_headers.a", "expected a string, not an integer."),
        ({"status": 500, "tmies": 5, "x": 1}, "tmies", "Unknown: 'tmies', 'x'."),
    ]:
        status, body = await control("POST", "faults", fields)

        assert status == 400
        assert body["error"]["param"] == param
        assert body["error"]["message"].endswith(sentence)
        assert not emulator.faults


async def test_faults_can_be_cleared_one_by_one_and_all(control, emulator):
    for status in (500, 502, 503):
        emulator.fail(status=status)

    assert (await control("DELETE", "faults/2"))[1]["status"] == 502
    assert [fault.status for fault in emulator.faults] == [500, 503]
    assert (await control("DELETE", "faults/2"))[0] == 404
    assert await control("DELETE", "faults") == (200, {"faults": []})
    assert not emulator.faults


# Settings


@pytest.mark.parametrize(
    ("form", "limit"),
    [
        (None, None),
        (
            {"kind": "token_bucket", "rate": 25, "burst": 5, "retry_after": 1.5, "per_key": True},
            TokenBucket(rate=25, burst=5, retry_after=1.5, per_key=True),
        ),
        (
            {
                "kind": "fixed_window",
                "limit": 600,
                "window": 60.0,
                "retry_after": None,
                "per_key": False,
            },
            FixedWindow(limit=600, retry_after=None),
        ),
        (
            {
                "kind": "fixed_window",
                "limit": 1,
                "window": 1.0,
                "retry_after": "exact",
                "per_key": False,
            },
            FixedWindow(limit=1, window=1.0),
        ),
    ],
)
async def test_a_rate_limit_is_set_and_told(control, emulator, form, limit):
    emulator.rate_limit = TokenBucket(rate=1)

    status, settings = await control("PATCH", "settings", {"rate_limit": form})

    assert status == 200
    assert settings["rate_limit"] == form
    assert emulator.rate_limit == limit
    assert (await control("GET", "settings"))[1] == settings


@pytest.mark.parametrize(
    ("form", "latency"),
    [
        (0.5, 0.5),
        ("inf", math.inf),
        ({"distribution": "uniform", "low": 0.1, "high": 0.2}, Uniform(0.1, 0.2)),
        ({"distribution": "exponential", "mean": 0.1}, Exponential(0.1)),
        ({"distribution": "lognormal", "median": 0.1, "sigma": 1.0}, LogNormal(0.1, 1.0)),
    ],
)
async def test_a_latency_is_set_and_told(control, emulator, form, latency):
    status, settings = await control("PATCH", "settings", {"latency": form})

    assert (status, settings["latency"]) == (200, form)
    assert emulator.latency == latency


async def test_a_latency_of_ones_own_is_told_as_such(control, emulator):
    emulator.latency = lambda random: 0.0

    assert (await control("GET", "settings"))[1]["latency"] == {"distribution": "custom"}


async def test_retired_is_set_and_told(create, control):
    assert (await control("PATCH", "settings", {"retired": True}))[1]["retired"] is True
    assert (await create())[0] == 410
    await control("POST", "reset", {})
    assert (await create())[0] == 200


async def test_off_schema_is_set_and_told(create, control):
    status, settings = await control("PATCH", "settings", {"off_schema": True})

    assert (status, settings["off_schema"]) == (200, True)
    assert "scope" in (await create())[1]


async def test_settings_that_cannot_be_change_none(control, emulator):
    for settings, param in [
        ({"off_schema": None}, "off_schema"),
        ({"latency": "slow"}, "latency"),
        ({"latency": -1}, "latency"),
        ({"latency": {"distribution": "normal"}}, "latency.distribution"),
        ({"latency": {"distribution": "uniform", "low": 0}}, "latency.high"),
        ({"latency": {"distribution": "exponential", "mean": -1}}, None),
        ({"rate_limit": 25}, "rate_limit"),
        ({"rate_limit": {"rate": 25}}, "rate_limit.kind"),
        ({"rate_limit": {"kind": "token_bucket"}}, "rate_limit.rate"),
        ({"rate_limit": {"kind": "token_bucket", "rate": 1, "window": 1}}, "rate_limit.window"),
        ({"rate_limit": {"kind": "fixed_window", "limit": 1, "window": 0}}, None),
        ({"rate_limit": {"kind": "token_bucket", "rate": 1, "retry_after": 0}}, None),
        ({"colour": "blue"}, "colour"),
    ]:
        status, body = await control("PATCH", "settings", {"off_schema": True, **settings})

        assert status == 400
        assert body["error"]["param"] == param
        assert emulator.off_schema is False


# Reset


async def test_a_reset_starts_anew_with_the_same_seed_or_another(create, control, emulator):
    _, first = await create()
    emulator.fail(status=500)

    status, state = await control("POST", "reset", {})
    assert status == 200
    assert (state["sessions"], state["requests"]["total"]) == ({"total": 0}, 0)
    assert (await create())[1] == first

    await control("POST", "reset", {"seed": 7})
    _, other = await create()
    assert other["id"] != first["id"]
    await control("POST", "reset", {})
    assert (await create())[1] == other


@pytest.mark.parametrize("fields", [{"seed": "lucky"}, {"seed": 1.5}, {"sede": 1}])
async def test_a_reset_that_is_misspelt_resets_nothing(create, control, emulator, fields):
    await create()

    assert (await control("POST", "reset", fields))[0] == 400
    assert len(emulator.sessions) == 1


# What is no control


async def test_an_unknown_path_says_which_there_are(http, emulator):
    for path in ["/_emulator", "/_emulator/", "/_emulator/nothing", "/_emulator/state/1"]:
        async with http.get(emulator.control_url.replace("/_emulator", path)) as response:
            body = await response.json()

        assert response.status == 404
        assert f"{path} not found. Resources: /_emulator/state, " in body["error"]["message"]


async def test_another_method_says_which_there_are(http, emulator):
    for method, path, allowed in [
        ("PUT", "clock", "GET, PATCH"),
        ("GET", "reset", "POST"),
        ("POST", "faults/1", "GET, DELETE"),
    ]:
        async with http.request(method, f"{emulator.control_url}/{path}") as response:
            body = await response.json()

        assert response.status == 405
        assert response.headers["Allow"] == allowed
        assert allowed in body["error"]["message"]


async def test_a_query_that_is_misspelt_is_refused(control):
    for path, param in [
        ("state?verbose=1", "verbose"),
        ("clock?x=", "x"),
        ("sessions?name=ada", "name"),
        ("sessions/x?user=ada", "user"),
        ("requests?limit=-1", "limit"),
        ("requests?after=²", "after"),
        (f"requests?after={'9' * 5000}", "after"),
        ("requests/1?limit=1", "limit"),
        ("faults/1?x=1", "x"),
    ]:
        status, body = await control("GET", path)

        assert status == 400
        assert body["error"]["param"] == param


async def test_what_is_refused_for_its_query_changes_nothing(create, control, emulator):
    for request_line, fields in [
        ("DELETE faults", None),
        ("DELETE faults/1", None),
        ("DELETE requests", None),
        ("POST reset", {}),
        ("PATCH settings", {"latency": 5}),
        ("PATCH clock", {"now": 5}),
    ]:
        emulator.reset()
        emulator.fail(operation="cancel", status=500)
        await create()
        before = await control("GET", "state")

        status, body = await control(*f"{request_line}?sure=1".split(), fields)

        assert (status, body["error"]["param"]) == (400, "sure")
        assert await control("GET", "state") == before


async def test_a_body_that_is_no_json_object_is_refused(http, emulator):
    for content in ["{", "[]", "5"]:
        headers = {"Content-Type": "application/json"}
        url = f"{emulator.control_url}/faults"
        async with http.post(url, data=content, headers=headers) as response:
            assert response.status == 400
            assert set(json.loads(await response.read())) == {"error"}


async def test_a_reset_needs_no_body(http, emulator):
    headers = {"Content-Type": "application/json"}
    async with http.post(f"{emulator.control_url}/reset", headers=headers) as response:
        assert response.status == 200


def test_its_url_is_not_known_before_its_port_is():
    with pytest.raises(RuntimeError, match="enter it"):
        _ = Emulator().control_url
    assert Emulator(port=8090).control_url == "http://127.0.0.1:8090/_emulator"
