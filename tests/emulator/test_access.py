from __future__ import annotations

import itertools

import aiohttp
import pytest

from chatkit_async.emulator import Emulator, TokenBucket


async def test_it_answers_to_every_name_of_the_loopback(create):
    for port, name in itertools.product(
        ["", ":80", ":8090"],
        ["127.0.0.1", "127.1.2.3", "[::1]", "localhost", "LocalHost", "app.localhost"],
    ):
        status, _ = await create(headers={"Host": f"{name}{port}"})

        assert status == 200


async def test_a_page_whose_host_was_made_to_mean_this_machine_gets_nothing(http, emulator, wanted):
    for host, path in itertools.product(
        [
            "evil.example",
            "evil.example:8090",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evillocalhost",
            "192.168.1.1",
            "[::2]:80",
            "127.0.0.1:80:80",
            "[]",
            "",
        ],
        ["/v1/chatkit/sessions", "/_emulator/state"],
    ):
        url = emulator.control_url.replace("/_emulator", path)
        async with http.post(url, json=wanted, headers={"Host": host}) as response:
            body = await response.json()

        assert response.status == 421
        assert body["error"]["code"] == "host_not_allowed"
        assert not emulator.sessions
        assert not emulator.requests


OTHER_ORIGINS = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "null"},
    {"Origin": ""},
]


async def test_a_page_of_another_origin_reads_and_changes_nothing(control, emulator):
    for method, headers in itertools.product(["GET", "DELETE"], OTHER_ORIGINS):
        emulator.reset()
        emulator.fail(status=500)

        status, body = await control(method, "faults", headers=headers)

        assert status == 403
        assert body["error"]["code"] == "cross_site_request"
        assert len(emulator.faults) == 1


async def test_a_page_of_another_origin_has_no_effect_on_the_api(http, emulator, wanted):
    for path, told in itertools.product(
        ["chatkit/sessions", "chatkit/sessions/cksess_1/cancel", "nowhere"], OTHER_ORIGINS
    ):
        emulator.reset()
        fault = emulator.fail(status=503)
        emulator.rate_limit = TokenBucket(rate=1, burst=1)

        for method in "GET", "POST":
            async with http.request(method, path, json=wanted, headers=told) as response:
                body = await response.json()
                assert response.status == 403
                assert body["error"]["code"] == "cross_site_request"
                assert not [name for name in response.headers if name.startswith("Access-Control")]

        assert emulator.faults == (fault,)
        assert emulator.requests.total == 0
        assert not emulator.sessions


async def test_a_program_may_use_the_api(create):
    for told in [{}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Mode": "cors"}]:
        assert (await create(headers=told))[0] == 200


@pytest.mark.parametrize("site", ["none", "same-origin"])
async def test_the_address_bar_and_its_own_origin_may_use_the_controls(control, emulator, site):
    own = emulator.control_url.removesuffix("/_emulator")
    headers = {"Sec-Fetch-Site": site, "Origin": own}

    assert (await control("GET", "state", headers=headers))[0] == 200


async def test_what_a_form_can_send_changes_nothing(http, emulator):
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
    ]:
        emulator.reset()
        emulator.fail(status=500)
        headers = {"Content-Type": content_type}

        async with http.post(
            f"{emulator.control_url}/reset", data="{}", headers=headers
        ) as response:
            assert response.status == 400

        assert len(emulator.faults) == 1


@pytest.mark.parametrize("path", ["/_emulator/reset", "/v1/chatkit/sessions"])
async def test_a_browser_that_asks_whether_it_may_is_not_told_yes(emulator, path):
    asking = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    url = emulator.control_url.replace("/_emulator", path)
    async with (
        aiohttp.ClientSession() as http,
        http.options(url, headers=asking) as response,
    ):
        assert response.status >= 400
        assert not [name for name in response.headers if name.startswith("Access-Control")]


async def test_what_controls_tell_is_not_kept_or_embedded(http, emulator):
    async with http.get(f"{emulator.control_url}/state") as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_key_that_looks_real_is_refused_and_no_part_of_it_kept(create, control, emulator):
    for end, start in itertools.product(
        ["", '"'],
        ["sk-", "sk-proj-", "sk-svcacct-_-", "sess-", " sk-", "Bearer sk-", '"sk-', "key=sk-"],
    ):
        key = f"{start}{'aB3' * 8}T3BlbkFJ{'xY4' * 8}{end}"

        status, body = await create(headers={"Authorization": f"Bearer {key}"})

        assert status == 401
        assert body["error"]["code"] == "real_api_key"
        assert emulator.requests[-1].headers["Authorization"] == "***"
        _, requests = await control("GET", "requests")
        assert key[-4:] not in str([body, requests, emulator.requests[-1]])


async def test_a_made_up_key_is_not_taken_for_a_real_one(create):
    for key in [
        Emulator.api_key,
        "sk-123",
        "sk-" + "a1" * 30,
        "sk-proj-" + "A" * 60,
        "sk-proj-" + "Ab" * 30,
        "no-sk-" + "aB3" * 20,
        "sess-" + "aB3" * 13,
    ]:
        assert (await create(headers={"Authorization": f"Bearer {key}"}))[0] == 200


async def test_real_keys_can_be_let_through(headers, wanted):
    real = {**headers, "Authorization": f"Bearer sk-{'aB3' * 16}"}
    async with (
        Emulator(allow_real_keys=True) as emulator,
        aiohttp.ClientSession(f"{emulator.base_url}/", headers=real) as http,
        http.post("chatkit/sessions", json=wanted) as response,
    ):
        assert response.status == 200


def test_a_real_key_is_not_named_by_mistake_and_not_echoed():
    key = "sk-" + "aB3" * 16
    with pytest.raises(ValueError, match="one of api_keys looks real") as refusal:
        Emulator(api_keys=[key])

    assert key not in str(refusal.value)
    assert Emulator(api_keys=[key], allow_real_keys=True)
