from __future__ import annotations

import math

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from chatkit_async.emulator import Emulator, Fault
from chatkit_async.emulator._readers import parse_fault
from chatkit_async.emulator._request import Request
from chatkit_async.emulator._script import FaultScript


async def test_a_status_is_answered_instead_of_the_session(create, emulator):
    emulator.fail(status=503)

    status, body = await create()

    assert status == 503
    assert body["error"] == {
        "message": "The emulator was told to answer 503.",
        "type": "server_error",
        "param": None,
        "code": None,
    }
    assert not emulator.sessions


async def test_headers_go_with_the_status(http, emulator, wanted):
    emulator.fail(status=429, headers={"Retry-After": "1", "content-TYPE": "text/plain"})

    async with http.post("chatkit/sessions", json=wanted) as response:
        assert response.headers["Retry-After"] == "1"
        assert response.headers.getall("Content-Type") == ["text/plain"]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (429, None, "rate_limit_exceeded"),
        (429, "insufficient_quota", "insufficient_quota"),
        (401, None, "invalid_api_key"),
        (500, None, None),
    ],
)
async def test_an_error_has_the_code_asked_for_or_the_usual_one(
    create, emulator, status, code, expected
):
    emulator.fail(status=status, code=code)

    assert (await create())[1]["error"]["code"] == expected


async def test_errors_are_as_the_service_words_them(http, wanted, emulator):
    emulator.fail(status=500)
    async with http.post("chatkit/sessions", json=wanted) as response:
        assert (await response.json())["error"] == {
            "message": "The server had an error while processing your request. Sorry about that!",
            "type": "server_error",
            "param": None,
            "code": None,
        }
        assert "WWW-Authenticate" not in response.headers
    emulator.fail(status=401)
    async with http.post("chatkit/sessions", json=wanted) as response:
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="OpenAI API"'
    emulator.fail(status=401, headers={"WWW-Authenticate": "Basic"})
    async with http.post("chatkit/sessions", json=wanted) as response:
        assert response.headers["WWW-Authenticate"] == "Basic"


@pytest.mark.parametrize(
    "given", [{"status": 503}, {"body": "x"}, {"off_schema": True}, {"drop": "close"}]
)
def test_page_fault_alone_shapes_the_reply(given):
    with pytest.raises(ValueError, match=r"page|drop"):
        Fault(page="empty", **given)
    with pytest.raises(ValueError, match="page"):
        Fault(page="full")


async def test_a_success_status_leaves_the_reply_and_its_effect(create, emulator):
    emulator.fail(status=201)

    status, body = await create()

    assert status == 201
    assert body["id"] in emulator.sessions


async def test_a_redirect_has_no_effect(http, emulator, wanted):
    emulator.fail(status=307, headers={"Location": "/elsewhere"})

    async with http.post("chatkit/sessions", json=wanted, allow_redirects=False) as response:
        assert response.headers["Location"] == "/elsewhere"
    assert not emulator.sessions


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b"\xff\x00", b"\xff\x00"),
        ("<p>é</p>", "<p>é</p>".encode()),
        ({"error": {"code": "x"}}, b'{"error":{"code":"x"}}'),
        ([], b"[]"),
        (b"", b""),
    ],
)
async def test_any_body_can_be_answered(http, emulator, wanted, body, sent):
    emulator.fail(body=body, content_type="text/html")

    async with http.post("chatkit/sessions", json=wanted) as response:
        assert response.status == 200
        assert response.content_type == "text/html"
        assert await response.read() == sent
    assert not emulator.sessions


async def test_after_lets_the_request_take_effect_before_its_reply_is_replaced(create, emulator):
    emulator.fail(status=500, after=True)

    status, _ = await create()

    assert status == 500
    [session_id] = emulator.sessions
    assert emulator.requests[-1].session_id == session_id


async def test_off_schema_answers_as_the_documentation_does(create, cancel, emulator):
    emulator.fail(off_schema=True, times=2)

    _, created = await create()
    [session_id] = emulator.sessions
    _, cancelled = await cancel(session_id)

    assert created["client_secret"] == emulator.sessions[session_id].client_secret
    assert {"scope", "max_requests_per_session"} <= set(created)
    assert "id" not in created
    assert {"scope", "ttl_seconds", "cancelled_at"} <= set(cancelled)
    assert "client_secret" not in cancelled


async def test_off_schema_leaves_errors_as_they_are(cancel, emulator):
    emulator.fail(off_schema=True)

    status, body = await cancel("cksess_unknown")

    assert status == 404
    assert "error" in body


async def test_a_fault_meets_as_many_requests_as_it_says(create, emulator):
    emulator.fail(status=500, times=2)

    assert [(await create())[0] for _ in range(3)] == [500, 500, 200]


async def test_a_fault_without_a_number_meets_every_request(create, emulator):
    emulator.fail(status=500, times=None)

    assert [(await create())[0] for _ in range(3)] == [500, 500, 500]


async def test_faults_are_met_in_the_order_they_were_added(create, emulator):
    emulator.fail(status=500)
    emulator.fail(status=502)

    assert [(await create())[0] for _ in range(3)] == [500, 502, 200]


async def test_a_fault_for_one_operation_lets_the_other_pass(create, cancel, emulator):
    emulator.fail(operation="cancel", status=500)

    status, created = await create()
    assert status == 200
    assert (await cancel(created["id"]))[0] == 500
    assert (await cancel(created["id"]))[0] == 200


async def test_a_fault_for_a_path_meets_what_fits_it(create, cancel, emulator):
    emulator.fail(path="/v1/chatkit/sessions/*/cancel", status=500)

    status, created = await create()
    assert status == 200
    assert (await cancel(created["id"]))[0] == 500


async def test_a_fault_for_a_user_meets_their_requests_only(create, cancel, emulator, wanted):
    _, ada = await create({**wanted, "user": "ada"})
    emulator.fail(user="ada", status=500, times=None)

    assert (await create())[0] == 200
    assert (await create({**wanted, "user": "ada"}))[0] == 500
    assert (await cancel(ada["id"]))[0] == 500
    assert (await cancel("cksess_unknown"))[0] == 404


async def test_a_fault_for_a_body_meets_what_has_its_values(create, emulator, wanted):
    for with_body, status in [
        ({"workflow.id": "wf_123"}, 500),
        ({"workflow": {"id": "wf_123"}}, 500),
        ({"workflow.id": "wf_123", "user": "user_123"}, 500),
        ({"workflow.id": "wf_123", "user": "ada"}, 200),
        ({"workflow.version": None}, 200),
        ({"user.name": "ada"}, 200),
        ({"vip": True}, 500),
        ({"vip": 1}, 200),
    ]:
        emulator.reset()
        emulator.fail(with_body=with_body, status=500)

        assert (await create({**wanted, "vip": True}))[0] == status


async def test_a_fault_for_a_body_lets_one_pass_that_is_no_json(http, emulator):
    emulator.fail(with_body={"user": "ada"}, status=500)

    async with http.post("chatkit/sessions", data=b"{") as response:
        assert response.status == 400


async def test_a_fault_for_headers_meets_what_has_them(create, emulator):
    emulator.fail(with_headers={"openai-project": "proj_1"}, status=500)

    assert (await create())[0] == 200
    assert (await create(headers={"OpenAI-Project": "proj_2"}))[0] == 200
    assert (await create(headers={"OpenAI-Project": "proj_1"}))[0] == 500


async def test_a_fault_meets_every_third_request_it_is_for(create, cancel, emulator):
    emulator.fail(operation="create", status=500, every=3, times=2)

    statuses = []
    for _ in range(10):
        statuses.append((await create())[0])
        await cancel("cksess_unknown")

    assert statuses == [200, 200, 500, 200, 200, 500, 200, 200, 200, 200]
    assert not emulator.faults


async def test_a_request_that_meets_another_fault_counts_for_every(create, emulator):
    emulator.fail(status=500, every=2, times=None)
    emulator.fail(status=503, every=3, times=None)

    statuses = [(await create())[0] for _ in range(6)]
    assert statuses == [200, 500, 503, 500, 200, 500]


async def test_faults_from_the_start_say_themselves_how_often(headers, wanted):
    faults = [Fault(status=500, times=1)]
    async with (
        Emulator(faults=faults) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
    ):
        for expected in (500, 200):
            async with http.post("chatkit/sessions", json=wanted) as response:
                assert response.status == expected


async def test_a_fault_for_any_operation_meets_unknown_paths_too(http, emulator):
    emulator.fail(status=502)

    async with http.get("models") as response:
        assert response.status == 502


async def test_cleared_faults_meet_nothing(create, emulator):
    emulator.fail(status=500, times=None)
    emulator.clear_faults()

    assert (await create())[0] == 200


async def test_the_record_says_which_fault_was_met(create, emulator):
    fault = emulator.fail(status=500)
    await create()
    await create()

    assert [record.fault for record in emulator.requests] == [fault, None]


ENDLESS = []
ENDLESS.append(ENDLESS)

WRONG = [
    *(({"status": status}, "status must be") for status in (100, 199, 600, "500", 2.5, True)),
    *(({"status": 500, "every": every}, "every must be") for every in (0, -1)),
    *(({"status": 500, "times": times}, "times must be") for times in (0, -1, 1.5)),
    *(({"status": 500, "chance": chance}, "chance must") for chance in (-0.1, 1.1, math.nan)),
    *(({name: -1}, f"{name} must be") for name in ("delay", "drip")),
    *(({name: math.nan}, f"{name} must be") for name in ("delay", "drip")),
    *(({"status": 500, name: "craete"}, f"{name} must be") for name in ("operation", "drop")),
    ({"status": 500, "page": "craete"}, "page must be"),
    ({"after": True}, "must do something"),
    *(
        ({"drop": "reset", **reply}, "drop leaves no reply")
        for reply in (
            {"status": 500},
            {"body": b""},
            {"headers": {"a": "b"}},
            {"cut": True},
            {"page": "stuck"},
        )
    ),
    *(
        ({"code": "insufficient_quota", **rest}, "code belongs to an error")
        for rest in ({}, {"status": 200}, {"status": 500, "body": b""})
    ),
    *(
        ({"off_schema": True, **rest}, "off_schema changes the usual reply")
        for rest in ({"status": 500}, {"body": b""})
    ),
    ({"page": "stuck", "body": b""}, "page changes the usual reply"),
    ({"page": "stuck", "off_schema": True}, "page and off_schema cannot be combined"),
    *(
        ({"status": status, **rest}, f"a {status} has no body")
        for status in (204, 304)
        for rest in ({"body": "x"}, {"cut": True}, {"drip": 0.1})
    ),
    *(
        ({"headers": {name: "5"}}, f"header '{name}' follows from the body")
        for name in ("Content-Length", "transfer-encoding")
    ),
    *(({"headers": {name: "1"}}, "must have the name") for name in ("Retry-After\n", 1, "", "a b")),
    *(
        (reply, "must be printable text")
        for reply in (
            {"headers": {"Retry-After": "1\r\nX-Key: my-own-key"}},
            {"headers": {"Retry-After": 1}},
            {"headers": {"Retry-After": "\ud800"}},
            {"content_type": "text/plain\r\n"},
            {"headers": {"Content-Type": "text/plain"}, "content_type": "text/html\r\n"},
        )
    ),
    *(
        ({"body": body}, "body cannot be sent: ")
        for body in ("\ud800", {"a": math.nan}, {"a": {1}}, {"a": b""}, ENDLESS)
    ),
]


@pytest.mark.parametrize(("fields", "reason"), WRONG)
def test_fault_that_cannot_be_is_refused(fields, reason):
    with pytest.raises(ValueError, match=reason) as refusal:
        Fault(**fields)

    assert "my-own-key" not in str(refusal.value)


async def test_a_script_without_a_fitting_fault_lets_the_request_pass(create, emulator):
    fault = emulator.fail(operation="cancel", status=500)

    assert (await create())[0] == 200
    assert emulator.faults == (fault,)


# By chance


@pytest.fixture
def request_to_create():
    """A request as it arrives."""
    return Request(
        connection=1,
        received_at=0.0,
        id="req_1",
        method="POST",
        path="/v1/chatkit/sessions",
        query="",
        headers=CIMultiDictProxy(CIMultiDict()),
        operation="create",
        session_id=None,
        thread_id=None,
    )


@pytest.fixture
def chances(request_to_create):
    """The numbers of the requests, of 200, that meet a fault of a script with a seed."""

    def chances(seed, *faults):
        script = FaultScript()
        script.reset(seed, faults)
        taken = [script.take(request_to_create, None) for _ in range(200)]
        return [number for number, fault in enumerate(taken, 1) if fault is not None]

    return chances


def test_chance_is_about_as_often_and_the_same_for_a_seed(chances):
    fault = Fault(status=503, chance=0.1)

    first = chances(1, fault)

    assert 8 <= len(first) <= 35
    assert chances(1, fault) == first
    assert chances(2, fault) != first


def test_fault_without_a_chance_never_meets_a_request(chances):
    assert chances(1, Fault(status=503, chance=0)) == []


async def test_what_escapes_one_fault_may_meet_the_next(create, emulator):
    emulator.fail(status=500, chance=0.0, times=None)
    emulator.fail(status=502)

    assert (await create())[0] == 502


def test_scripted_fault_leaves_the_luck_of_the_others(chances):
    luck = Fault(status=503, chance=0.1)

    assert chances(1, luck, Fault(operation="cancel", status=500)) == chances(1, luck)


def test_times_counts_the_requests_that_meet_a_fault(chances):
    numbers = chances(0, Fault(status=503, chance=0.2, times=3))

    assert len(numbers) == 3
    assert numbers != [1, 2, 3]


# As a request asks


async def test_a_request_asks_for_a_fault_by_a_header(http, wanted, emulator):
    asked = {"X-Emulator-Fault": "status=503; retry-after=1; code=busy"}
    async with http.post("chatkit/sessions", json=wanted, headers=asked) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"
        assert (await response.json())["error"]["code"] == "busy"

    assert emulator.requests[-1].fault == Fault(
        status=503, code="busy", headers={"retry-after": "1"}
    )
    assert not emulator.sessions


async def test_a_request_that_asks_leaves_the_script_to_the_others(create, emulator):
    emulator.fail(status=500)

    assert (await create(headers={"X-Emulator-Fault": "status=502"}))[0] == 502
    assert (await create())[0] == 500


async def test_a_request_that_asks_for_a_chance_may_be_spared(create, emulator):
    assert (await create(headers={"X-Emulator-Fault": "status=502; chance=0"}))[0] == 200
    assert emulator.requests[-1].fault is None


async def test_a_request_that_asks_for_what_is_no_fault_is_told(create, emulator):
    for text, reason in [
        ("", "must do something"),
        ("status", "not a part of a fault. Parts: "),
        ("cut=1", "not a part of a fault. Parts: "),
        ("stauts=500", "'stauts=500' is not a part of a fault"),
        ("status=abc", "Invalid type for 'status': expected an integer, not a string."),
        ("status=99", "status"),
        ("key=sk-scripted", "'key=sk-***' is not a part of a fault"),
        ("drop=reset; status=500", "drop leaves no reply"),
    ]:
        status, body = await create(headers={"X-Emulator-Fault": text})

        assert status == 400
        assert body["error"]["code"] == "invalid_emulator_fault"
        assert body["error"]["message"].startswith("X-Emulator-Fault: ")
        assert reason in body["error"]["message"]
        assert not emulator.sessions


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("drop=close;after", Fault(drop="close", after=True)),
        ("delay=inf; chance=.5", Fault(delay=math.inf, chance=0.5)),
        ("cut ; delay=0.5;", Fault(cut=True, delay=0.5)),
        ("off-schema; drip=0.1; chance=0.5", Fault(off_schema=True, drip=0.1, chance=0.5)),
        (
            "body=<p>a=b</p>; content-type=text/html",
            Fault(body="<p>a=b</p>", content_type="text/html"),
        ),
        (
            "operation=create; status=429; retry-after-ms=10",
            Fault(operation="create", status=429, headers={"retry-after-ms": "10"}),
        ),
        (
            "status=500; x-should-retry=false",
            Fault(status=500, headers={"x-should-retry": "false"}),
        ),
        (
            "user=ada; path=/v1/*; every=3; times=2; status=503",
            Fault(user="ada", path="/v1/*", every=3, times=2, status=503),
        ),
    ],
)
def test_a_fault_is_read_from_text(text, fault):
    assert parse_fault(text) == fault


@pytest.mark.parametrize("counted", ["times=2", "every=3"])
async def test_what_a_request_asks_for_cannot_count_requests(create, emulator, counted):
    fault = f"status=503; {counted}"
    status, body = await create(headers={"X-Emulator-Fault": fault})

    assert status == 400
    assert body["error"]["code"] == "invalid_emulator_fault"
    assert "a request cannot ask for them" in body["error"]["message"]


async def test_what_a_request_asks_for_may_be_for_others(create):
    asked = {"X-Emulator-Fault": "status=503; user=ada"}

    assert (await create(headers=asked))[0] == 200
