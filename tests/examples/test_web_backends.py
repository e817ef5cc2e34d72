"""The examples of web backends, each in its real framework, all to the same contract."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.unmeasured

SIGNED_IN = {"X-Authenticated-User": "ada"}
JSON = {"Content-Type": "application/json"}


@contextmanager
def fastapi(load):
    from fastapi.testclient import TestClient

    with TestClient(load("fastapi_app").app) as client:

        def post(body, headers):
            reply = client.post("/chatkit/secret", content=body, headers=headers)
            return reply.status_code, reply.headers, reply.text

        yield post


@contextmanager
def starlette(load):
    from starlette.testclient import TestClient

    with TestClient(load("starlette_app").app) as client:

        def post(body, headers):
            reply = client.post("/chatkit/secret", content=body, headers=headers)
            return reply.status_code, reply.headers, reply.text

        yield post


@contextmanager
def aiohttp(load):
    from aiohttp.test_utils import TestClient, TestServer

    async def start():
        client = TestClient(TestServer(load("aiohttp_app").application()))
        await client.start_server()
        return client

    with asyncio.Runner() as runner:
        client = runner.run(start())

        async def send(body, headers):
            async with client.post("/chatkit/secret", data=body, headers=headers) as reply:
                return reply.status, reply.headers, await reply.text()

        yield lambda body, headers: runner.run(send(body, headers))
        runner.run(client.close())


def load_django(load):
    from django.urls import clear_url_caches

    module = load("django_app")
    clear_url_caches()  # another test's views
    return module


@contextmanager
def django_async(load):
    from django.test import AsyncClient

    load_django(load)
    with asyncio.Runner() as runner:

        def post(body, headers):
            reply = runner.run(
                AsyncClient().post(
                    "/chatkit/secret", body, content_type="application/json", headers=headers
                )
            )
            return reply.status_code, reply.headers, reply.content.decode()

        yield post


@contextmanager
def django_blocking(load):
    from django.test import Client

    module = load_django(load)

    def post(body, headers):
        reply = Client().post(
            "/chatkit/blocking-secret", body, content_type="application/json", headers=headers
        )
        return reply.status_code, reply.headers, reply.content.decode()

    yield post
    module.blocking_client().close()


@contextmanager
def flask(load):
    app = load("flask_app").create_app()

    def post(body, headers):
        reply = app.test_client().post("/chatkit/secret", data=body, headers=headers)
        return reply.status_code, reply.headers, reply.text

    yield post
    app.extensions["chatkit"].close()


@pytest.fixture(params=[fastapi, starlette, aiohttp, django_async, django_blocking, flask])
def post(request, load):
    """Post a body to a backend: what comes back is the status, the headers and the text."""
    with request.param(load) as post:

        def posted(body, headers):
            return post(body, {**JSON, **headers})

        yield posted


@pytest.fixture
def ask(post):
    """Ask a backend as a browser does: what comes back is the status, the headers and the JSON."""

    def ask(current_secret=None, *, headers=SIGNED_IN):
        status, headers, text = post(json.dumps({"current_secret": current_secret}), headers)
        return status, headers, json.loads(text)

    return ask


def test_a_user_who_is_signed_in_gets_a_secret_that_nothing_stores(ask, emulator):
    status, headers, body = ask()
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    [session] = emulator.sessions.values()
    assert session.user == "ada"
    assert body == {"client_secret": session.client_secret, "expires_at": session.expires_at}


def test_asking_twice_creates_one_session_and_a_secret_that_failed_another(ask, emulator):
    _, _, first = ask()
    _, _, again = ask()
    assert again == first
    _, _, fresh = ask(first["client_secret"])
    assert fresh["client_secret"] != first["client_secret"]
    assert len(emulator.sessions) == 2


def test_nobody_gets_nothing(ask, emulator):
    status, _, body = ask(headers={})
    assert status == 401
    assert body["error"]["code"] == "not_signed_in"
    assert not emulator.sessions


@pytest.mark.parametrize("body", ["{", "[]", '"x"', b'{"\xff": 1}', "1" * 5000], ids=str)
def test_a_body_that_is_no_json_object_is_the_browsers_fault(post, emulator, body):
    status, _, _ = post(body, SIGNED_IN)
    assert 400 <= status < 500
    assert not emulator.sessions


def test_a_key_that_is_refused_is_not_the_browsers_business(ask, emulator):
    emulator.fail(status=401)
    status, _, body = ask()
    assert status == 502
    assert body["error"]["code"] == "bad_gateway"
    assert emulator.api_key not in json.dumps(body)


def test_a_rate_limit_tells_the_browser_when_to_come_back(ask, emulator):
    emulator.fail(status=429, headers={"Retry-After": "60"})
    status, headers, body = ask()
    assert status == 503
    assert headers["Retry-After"] == "60"
    assert body["error"]["code"] == "rate_limited"


@pytest.mark.parametrize("framework", ["fastapi", "starlette", "aiohttp", "django", "flask"])
def test_a_backend_is_imported_without_a_key(load, monkeypatch, framework):
    monkeypatch.delenv("OPENAI_API_KEY")
    load(f"{framework}_app")
