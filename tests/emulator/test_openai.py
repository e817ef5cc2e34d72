"""The official SDK against the emulator, as it comes, its strict validation of replies on."""

from __future__ import annotations

import asyncio

import openai
import pytest
from conversation import CONVERSATION

from chatkit_async.emulator import Emulator, TokenBucket

pytestmark = pytest.mark.unmeasured

OPTIONS = {"max_retries": 0, "_strict_response_validation": True}
NO_TLS = {"verify": False, "trust_env": False}  # a TLS context for each client would take long

EVERYTHING = {
    "user": "ada",
    "workflow": {
        "id": "wf_123",
        "version": "2",
        "state_variables": {"name": "Ada", "age": 36, "vip": True, "score": 0.5},
        "tracing": {"enabled": False},
    },
    "expires_after": {"anchor": "created_at", "seconds": 60},
    "rate_limits": {"max_requests_per_1_minute": 20},
    "chatkit_configuration": {
        "automatic_thread_titling": {"enabled": False},
        "file_upload": {"enabled": True, "max_file_size": 5, "max_files": 2},
        "history": {"enabled": True, "recent_threads": 3},
    },
}


class Blocking:
    """The SDK's blocking client; its methods as coroutines, so that the tests are the same."""

    def __init__(self, emulator, **options):
        self._client = openai.OpenAI(
            api_key=emulator.api_key,
            base_url=emulator.base_url,
            http_client=openai.DefaultHttpxClient(**NO_TLS),
            **OPTIONS | options,
        )
        self.sessions = self._client.beta.chatkit.sessions
        self.threads = self._client.beta.chatkit.threads

    async def create(self, **params):
        return await asyncio.to_thread(self.sessions.create, **params)

    async def cancel(self, session_id):
        return await asyncio.to_thread(self.sessions.cancel, session_id)

    async def retrieve(self, thread_id):
        return await asyncio.to_thread(self.threads.retrieve, thread_id)

    async def delete(self, thread_id):
        return await asyncio.to_thread(self.threads.delete, thread_id)

    async def list(self, **params):
        return await asyncio.to_thread(lambda: list(self.threads.list(**params)))

    async def list_items(self, thread_id, **params):
        return await asyncio.to_thread(lambda: list(self.threads.list_items(thread_id, **params)))

    async def close(self):
        self._client.close()


class Async:
    """The SDK's async client."""

    def __init__(self, emulator, **options):
        self._client = openai.AsyncOpenAI(
            api_key=emulator.api_key,
            base_url=emulator.base_url,
            http_client=openai.DefaultAsyncHttpxClient(**NO_TLS),
            **OPTIONS | options,
        )
        self.create = self._client.beta.chatkit.sessions.create
        self.cancel = self._client.beta.chatkit.sessions.cancel
        self.threads = self._client.beta.chatkit.threads
        self.retrieve, self.delete = self.threads.retrieve, self.threads.delete

    async def list(self, **params):
        return [thread async for thread in self.threads.list(**params)]

    async def list_items(self, thread_id, **params):
        return [item async for item in self.threads.list_items(thread_id, **params)]

    async def close(self):
        await self._client.close()


@pytest.fixture(params=[Blocking, Async])
async def connect(request):
    """Connect an SDK's client to an emulator."""
    clients = []

    def connect(emulator, **options):
        clients.append(request.param(emulator, **options))
        return clients[-1]

    yield connect
    for client in clients:
        await client.close()


@pytest.fixture
def client(connect, emulator):
    return connect(emulator)


async def test_a_session_is_created_with_its_defaults(client, emulator):
    session = await client.create(user="ada", workflow={"id": "wf_123"})

    made = emulator.sessions[session.id]
    assert session.client_secret == made.client_secret
    assert session.expires_at == made.created_at + 600
    assert session.status == "active"
    assert session.object == "chatkit.session"
    assert session.rate_limits.max_requests_per_1_minute == 10
    assert session.workflow.tracing.enabled is True
    assert session.chatkit_configuration.file_upload.max_file_size == 512
    assert emulator.requests[-1].unknown_fields == ()


async def test_a_session_is_created_with_everything_there_is(client, emulator):
    session = await client.create(**EVERYTHING)

    assert session.user == "ada"
    assert session.workflow.version == "2"
    assert session.workflow.state_variables == EVERYTHING["workflow"]["state_variables"]
    assert session.workflow.tracing.enabled is False
    assert session.max_requests_per_1_minute == 20
    assert session.expires_at == emulator.clock.now() + 60
    configuration = session.chatkit_configuration.to_dict()
    assert configuration == EVERYTHING["chatkit_configuration"]


async def test_a_session_is_cancelled(client):
    session = await client.create(user="ada", workflow={"id": "wf_123"})

    cancelled = await client.cancel(session.id)

    assert cancelled.to_dict() == {**session.to_dict(), "status": "cancelled"}


async def test_its_project_and_organization_arrive(connect, emulator):
    client = connect(emulator, organization="org_1", project="proj_1")

    session = await client.create(user="ada", workflow={"id": "wf_123"})

    made = emulator.sessions[session.id]
    assert (made.organization, made.project) == ("org_1", "proj_1")


@pytest.mark.parametrize(
    ("params", "error", "code"),
    [
        ({"user": ""}, openai.BadRequestError, "string_below_min_length"),
        ({"extra_headers": {"OpenAI-Beta": "x"}}, openai.BadRequestError, "invalid_beta"),
        ({"extra_headers": {"Authorization": "x"}}, openai.AuthenticationError, "invalid_api_key"),
    ],
)
async def test_a_refusal_is_the_sdks_error_for_it(client, emulator, params, error, code):
    with pytest.raises(error) as refusal:
        await client.create(**{"user": "ada", "workflow": {"id": "wf_123"}, **params})

    assert refusal.value.code == code
    assert refusal.value.param == ("user" if "user" in params else None)
    assert refusal.value.type == "invalid_request_error"
    assert refusal.value.request_id == emulator.requests[-1].request_id


async def test_a_session_that_does_not_exist_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as refusal:
        await client.cancel("cksess_unknown")

    assert "Chatkit Session with id \u2018cksess_unknown\u2019" in refusal.value.message


async def test_a_workflow_of_another_project_is_not_found(connect):
    async with Emulator(workflows=[]) as emulator:
        with pytest.raises(openai.NotFoundError) as refusal:
            await connect(emulator).create(user="ada", workflow={"id": "wf_123"})

    assert (refusal.value.param, refusal.value.code) == (None, None)


async def test_a_rate_limit_is_one(client, emulator):
    emulator.rate_limit = TokenBucket(rate=1)
    await client.create(user="ada", workflow={"id": "wf_123"})

    with pytest.raises(openai.RateLimitError) as refusal:
        await client.create(user="ada", workflow={"id": "wf_123"})

    assert refusal.value.code == "rate_limit_exceeded"
    assert refusal.value.response.headers["x-ratelimit-remaining-requests"] == "0"


async def test_it_tries_again_when_told_to(connect, emulator):
    emulator.fail(status=503, headers={"retry-after-ms": "1"})

    session = await connect(emulator, max_retries=1).create(user="ada", workflow={"id": "wf_123"})

    assert session.id in emulator.sessions
    assert [record.status for record in emulator.requests] == [503, 200]


async def test_its_strict_validation_refuses_what_is_off_schema(client, emulator):
    session = await client.create(user="ada", workflow={"id": "wf_123"})
    emulator.off_schema = True

    with pytest.raises(openai.APIResponseValidationError):
        await client.create(user="ada", workflow={"id": "wf_123"})
    with pytest.raises(openai.APIResponseValidationError):
        await client.cancel(session.id)


async def test_threads_are_listed_read_and_deleted(client, emulator):
    statuses = ("active", "locked", "closed", "active", "active")
    threads = [
        emulator.add_thread(user="ada", title=title, status=status)
        for title, status in zip([None, "b", "c", "d", "e"], statuses, strict=True)
    ]
    emulator.add_thread(user="bob")

    listed = await client.list(user="ada", limit=2, order="asc")

    assert [(thread.id, thread.title) for thread in listed] == [
        (thread.id, thread.title) for thread in threads
    ]
    assert [thread.status.type for thread in listed] == list(statuses)
    assert await client.retrieve(threads[1].id) == listed[1]
    deleted = await client.delete(threads[1].id)
    assert (deleted.id, deleted.deleted) == (threads[1].id, True)
    assert threads[1].id not in [thread.id for thread in await client.list()]
    for method in (client.retrieve, client.delete, client.list_items):
        with pytest.raises(openai.NotFoundError) as refusal:
            await method(threads[1].id)
        assert (refusal.value.param, refusal.value.code) == (None, None)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_items_of_every_kind_are_listed(client, emulator, order, limit):
    thread = emulator.add_thread(user="ada", items=CONVERSATION)

    items = await client.list_items(thread.id, order=order, limit=limit)

    kept = list(thread.items) if order == "asc" else list(reversed(thread.items))
    assert [item.to_dict() for item in items] == kept


async def test_parameters_that_it_passes_on_are_refused(client):
    for params, param in [({"limit": 101}, "limit"), ({"order": "up"}, "order")]:
        with pytest.raises(openai.BadRequestError) as refusal:
            await client.list(**params)
        assert refusal.value.param == param


async def test_it_stops_where_a_page_is_empty(client, emulator):
    for _ in range(5):
        emulator.add_thread(user="ada")
    emulator.fail(operation="list_threads", page="empty", every=2)

    assert len(await client.list(limit=2)) == 2
