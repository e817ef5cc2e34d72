from __future__ import annotations

import itertools
import json

import aiohttp
import pytest
from yarl import URL

from chatkit_async.emulator import Emulator
from chatkit_async.emulator._routes import route


def error_of(reply):
    status, body = reply
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return status, body["error"]


async def test_a_created_session_comes_back_whole(create, emulator):
    status, body = await create()

    assert status == 200
    session = emulator.sessions[body["id"]]
    assert body["object"] == "chatkit.session"
    assert body["client_secret"] == session.client_secret
    assert body["user"] == "user_123"
    assert body["workflow"]["id"] == "wf_123"
    assert body["status"] == "active"


async def test_a_session_expires_600_seconds_after_its_creation_unless_told_otherwise(
    create, emulator, wanted
):
    _, usual = await create()
    expiry = {"anchor": "created_at", "seconds": 60}
    _, brief = await create(wanted | {"expires_after": expiry})

    assert usual["expires_at"] == emulator.clock.now() + 600
    assert brief["expires_at"] == emulator.clock.now() + 60


async def test_a_cancelled_session_comes_back_cancelled(create, cancel):
    _, created = await create()

    status, cancelled = await cancel(created["id"])

    assert status == 200
    assert cancelled == created | {"status": "cancelled"}


async def test_cancelling_again_gives_the_same_session(create, cancel, emulator):
    _, created = await create()
    session = emulator.sessions[created["id"]]
    first, cancelled_at = await cancel(session.id), session.cancelled_at
    emulator.clock.advance(10)

    assert await cancel(session.id) == first
    assert session.cancelled_at == cancelled_at


async def test_cancelling_an_expired_session_gives_it_as_expired(create, cancel, emulator):
    _, created = await create()
    emulator.clock.advance(600)

    assert await cancel(created["id"]) == (200, created | {"status": "expired"})
    assert emulator.sessions[created["id"]].cancelled_at is None


async def test_cancelling_what_does_not_exist_is_a_404(cancel):
    status, error = error_of(await cancel("cksess_unknown"))

    assert status == 404
    assert error == {
        "message": "Chatkit Session with id \u2018cksess_unknown\u2019 not found.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


async def test_cancel_takes_no_body_and_no_content_type(create, http):
    _, created = await create()

    url = f"chatkit/sessions/{created['id']}/cancel"
    async with http.post(url, data=b"anything", skip_auto_headers=["Content-Type"]) as response:
        assert response.status == 200


async def test_a_field_that_breaks_the_schema_is_a_400_that_names_it(create, wanted):
    status, error = error_of(
        await create(wanted | {"rate_limits": {"max_requests_per_1_minute": 0}})
    )

    assert status == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == "rate_limits.max_requests_per_1_minute"
    assert error["code"] == "integer_below_min_value"


async def test_unknown_fields_are_accepted_and_noted(create, emulator, wanted):
    status, _ = await create(wanted | {"metadata": {}})

    assert status == 200
    assert emulator.requests[-1].unknown_fields == ("metadata",)


async def test_a_body_that_is_no_json_is_a_400(http):
    json_type = {"Content-Type": "application/json"}
    async with http.post("chatkit/sessions", data=b"{", headers=json_type) as response:
        status, error = error_of((response.status, await response.json()))

    assert status == 400
    assert error["message"] == "The request's body is not valid JSON."


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_another_content_type_is_a_400(create, content_type, emulator):
    status, error = error_of(await create(headers={"Content-Type": content_type}))

    assert status == 400
    assert error["code"] == "unsupported_content_type"
    assert not emulator.sessions


async def test_the_content_type_may_name_its_charset(create):
    status, _ = await create(headers={"Content-Type": "Application/JSON; charset=utf-8"})

    assert status == 200


async def test_without_a_key_nothing_is_created(create, emulator):
    for authorization in ["", "Bearer", "Bearer  ", "Basic c2stc2VjcmV0", "sk-secret"]:
        status, error = error_of(await create(headers={"Authorization": authorization}))

        assert status == 401
        assert error["code"] == "invalid_api_key"
        assert error["type"] == "invalid_request_error"
        assert not emulator.sessions


async def test_any_key_is_accepted_unless_some_are_named(create):
    status, _ = await create(headers={"Authorization": "bearer anything"})

    assert status == 200


async def test_a_key_that_was_not_named_is_refused_and_not_echoed(wanted, headers):
    async with (
        Emulator(api_keys={"sk-known-to-the-test"}) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
    ):

        async def status_and_text(key):
            authorization = {"Authorization": f"Bearer {key}"}
            request = http.post("chatkit/sessions", json=wanted, headers=authorization)
            async with request as response:
                return response.status, await response.text()

        assert (await status_and_text("sk-known-to-the-test"))[0] == 200
        assert (await status_and_text(emulator.api_key))[0] == 200
        status, text = await status_and_text("sk-unknown-to-the-test")

    assert status == 401
    assert json.loads(text)["error"] == {
        "message": "Incorrect API key provided: sk-u****test. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }


@pytest.mark.parametrize("key", ["sk-short", "sk-proj-" + "Ab3" * 16, "x sk-" + "Ab3" * 16])
async def test_key_that_tells_too_much_is_not_echoed(create, wanted, headers, key):
    authorization = {**headers, "Authorization": f"Bearer {key}"}
    async with (
        Emulator(api_keys=[], allow_real_keys=True) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=authorization) as http,
        http.post("chatkit/sessions", json=wanted) as response,
    ):
        text = await response.text()

    assert "Incorrect API key provided: ****. You" in text


BODIES = {
    "none": {},
    "no JSON": {"data": b"{", "headers": {"Content-Type": "application/json"}},
    "off schema": {"json": {}},
    "text": {"data": "x"},
    "too large": {"data": b"x" * 101},
    "not gzip": {"data": b"x", "headers": {"Content-Encoding": "gzip"}},
}


async def test_key_is_checked_before_the_body():
    async with (
        Emulator(api_keys=[], max_body=100) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/") as http,
    ):
        for body, key in itertools.product(
            BODIES, ["Bearer wrong-key-of-some-length", "Basic x", ""]
        ):
            options = {**BODIES[body]}
            options["headers"] = {**options.get("headers", {}), "Authorization": key}
            async with http.post("chatkit/sessions", **options) as response:
                assert response.status == 401, (body, key)
                assert response.headers["WWW-Authenticate"] == 'Bearer realm="OpenAI API"'


@pytest.mark.parametrize("beta", ["", "chatkit_beta=v2", "assistants=v2"])
async def test_without_the_beta_header_nothing_is_created(create, emulator, beta):
    status, error = error_of(await create(headers={"OpenAI-Beta": beta}))

    assert status == 400
    assert "OpenAI-Beta: chatkit_beta=v1" in error["message"]
    assert not emulator.sessions


async def test_the_beta_header_may_name_other_betas_too(create):
    status, _ = await create(headers={"OpenAI-Beta": "assistants=v2, chatkit_beta=v1"})

    assert status == 200


async def test_a_workflow_that_does_not_exist_is_a_404_without_param_or_code(wanted, headers):
    async with (
        Emulator(workflows={"wf_other"}) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
        http.post("chatkit/sessions", json=wanted) as response,
    ):
        status, error = error_of((response.status, await response.json()))

    assert status == 404
    assert error == {
        "message": "Workflow with id 'wf_123' not found.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


async def test_a_workflow_that_exists_serves(wanted, headers):
    async with (
        Emulator(workflows={"wf_123"}) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
        http.post("chatkit/sessions", json=wanted) as response,
    ):
        assert response.status == 200


async def test_off_schema_tells_every_session_as_the_documentation_does(create, cancel, emulator):
    emulator.off_schema = True
    assert emulator.off_schema

    status, created = await create()
    assert status == 200
    assert "id" not in created
    [session_id] = emulator.sessions
    status, cancelled = await cancel(session_id)
    assert status == 200
    assert cancelled["status"] == "cancelled"
    assert "client_secret" not in cancelled
    assert (await cancel("cksess_unknown"))[0] == 404


async def test_a_session_can_be_off_schema_from_the_start(wanted, headers):
    async with (
        Emulator(off_schema=True) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
        http.post("chatkit/sessions", json=wanted) as response,
    ):
        assert "scope" in await response.json()


async def test_a_retired_service_refuses_creates(create, cancel, emulator):
    _, session = await create()
    emulator.retired = True
    assert emulator.retired

    for body in {"user": "u", "workflow": {"id": "wf"}}, {}:
        status, refused = await create(body)
        assert status == 410
        assert refused["error"] == {
            "message": "Sessions can no longer be created, because hosted workflows have been "
            "retired.",
            "type": "invalid_request_error",
            "param": None,
            "code": "service_retired",
        }
    assert (await create(headers={"Authorization": "Bearer"}))[0] == 401
    assert (await cancel(session["id"]))[1]["status"] == "cancelled"
    assert len(emulator.sessions) == 1

    emulator.retired = False
    assert (await create())[0] == 200


async def test_a_service_can_be_retired_from_the_start(wanted, headers):
    async with (
        Emulator(retired=True) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http,
        http.post("chatkit/sessions", json=wanted) as response,
    ):
        assert response.status == 410


async def test_organization_and_project_are_noted_with_the_session(create, emulator):
    scope = {"OpenAI-Organization": "org_1", "OpenAI-Project": "proj_1"}
    _, body = await create(headers=scope)

    session = emulator.sessions[body["id"]]
    assert (session.organization, session.project) == ("org_1", "proj_1")


async def test_an_unknown_path_is_a_404(http):
    for path in [
        "",
        "chatkit",
        "chatkit/sessions/",
        "chatkit/sessions/x",
        "chatkit/cancel",
        "models",
    ]:
        async with http.post(path) as response:
            status, error = error_of((response.status, await response.json()))

        assert status == 404
        assert error["message"] == f"Invalid URL (POST /v1/{path})"


async def test_another_method_than_post_is_a_405(http):
    for path, method in itertools.product(
        ["chatkit/sessions", "chatkit/sessions/cksess_1/cancel"], ["GET", "DELETE", "PUT"]
    ):
        async with http.request(method, path) as response:
            status, error = error_of((response.status, await response.json()))

        assert status == 405
        assert response.headers["Allow"] == "POST"
        assert error == {
            "message": f"Invalid method for URL ({method} /v1/{path})",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }


async def test_a_session_id_is_one_segment_decoded_once(http, emulator):
    for raw, session_id in [
        ("cksess_1", "cksess_1"),
        ("a%2Fb", "a/b"),
        ("a%252Fb", "a%2Fb"),
        ("%C3%A9", "é"),
        ("a%3Fx=1", "a?x=1"),
        ("a+b", "a+b"),
        ("..", ".."),
        ("", ""),
    ]:
        url = URL(f"{emulator.base_url}/chatkit/sessions/{raw}/cancel", encoded=True)
        async with http.post(url) as response:
            assert response.status == 404

        assert emulator.requests[-1].path == f"/v1/chatkit/sessions/{raw}/cancel"
        assert emulator.requests[-1].session_id == session_id


def test_a_slash_that_is_not_escaped_makes_another_path():
    assert route("POST", "/v1/chatkit/sessions/a/b/cancel") == (None, None)
    assert route("GET", "/v1/chatkit/threads/a/b/items") == (None, None)
