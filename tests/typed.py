"""Calls that type checkers accept and refuse: `nox -s types` checks this file, and nothing runs it.

A line that has to be refused carries a comment, and both checkers complain if it is not needed.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, assert_type

from chatkit_async import (
    APIResponse,
    AsyncChatKit,
    AsyncPage,
    BlockingBulkRun,
    BulkRun,
    ChatKit,
    ChatKitThread,
    ChatKitThreadDeleted,
    ChatKitThreadItem,
    ChatSession,
    ChatSessionChatKitConfigurationParam,
    ChatSessionRateLimitsParam,
    ChatSessionWorkflowDict,
    ChatSessionWorkflowParam,
    HistoryParam,
    Page,
    SessionCreateDict,
    SessionCreateParams,
)
from chatkit_async.web import BlockingClientSecretEndpoint, ClientSecretEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterator


def accepted(client: ChatKit) -> None:
    """Check every form of every parameter."""
    client.sessions.create(user="u", workflow="wf")
    client.sessions.create(user="u", workflow={"id": "wf", "version": None})
    client.sessions.create(
        user="u",
        workflow={"id": "wf", "state_variables": {"a": 1, "b": 1.5}, "tracing": {"enabled": True}},
        chatkit_configuration={
            "automatic_thread_titling": {"enabled": False},
            "file_upload": {"enabled": True, "max_files": 3, "max_file_size": 5},
            "history": HistoryParam(enabled=False),
        },
        expires_after={"seconds": 60, "anchor": "created_at"},
        rate_limits={"max_requests_per_1_minute": 5},
    )
    client.sessions.create(user="u", workflow="wf", expires_after=60, rate_limits=5)
    client.sessions.create(
        user="u",
        workflow=ChatSessionWorkflowParam(id="wf", tracing={"enabled": True}),
        chatkit_configuration=ChatSessionChatKitConfigurationParam(history={"enabled": True}),
        expires_after=timedelta(minutes=1),
        rate_limits=ChatSessionRateLimitsParam(max_requests_per_1_minute=5),
    )
    client.sessions.create(user="u", workflow=json.loads("{}"))
    workflow: ChatSessionWorkflowDict = {"id": "wf"}
    client.sessions.create(user="u", workflow=workflow)
    client.sessions.create(user="u", workflow=ChatSessionWorkflowDict(id="wf"))
    params: SessionCreateDict = {"user": "u", "workflow": "wf", "rate_limits": 5}
    client.sessions.create(**params)
    SessionCreateParams(**params)


def rows(client: ChatKit, cells: Iterator[dict[str, str]]) -> None:
    """Check that rows may be of any mapping, and can be checked."""
    checked: list[SessionCreateDict] = [{"user": "u", "workflow": {"id": "wf"}}]
    client.sessions.create_many(checked)
    client.sessions.create_many(cells, defaults={"workflow": {"id": "wf"}})
    client.sessions.create_many(["u", "v"], defaults={"workflow": "wf"})


def refused(client: ChatKit) -> None:
    """Check misspelt keys and wrong types at every depth."""
    create = client.sessions.create
    create(user="u", workflow={"idd": "wf"})  # type: ignore[arg-type]
    create(user="u", workflow={"id": 5})  # type: ignore[arg-type]
    create(user="u", workflow={"id": "wf", "vers": "1"})  # type: ignore[arg-type]
    create(user="u", workflow={"id": "wf", "state_variables": {"a": [1]}})  # type: ignore[arg-type]
    create(user="u", workflow={"id": "wf", "tracing": {"enable": True}})  # type: ignore[arg-type]
    create(user="u", workflow={"id": "wf", "tracing": {"enabled": "yes"}})  # type: ignore[arg-type]
    create(user="u", workflow="wf", chatkit_configuration={"files": {}})  # type: ignore[arg-type]
    create(user="u", workflow="wf", chatkit_configuration={"file_upload": {"enabled": "yes"}})  # type: ignore[arg-type]
    create(user="u", workflow="wf", chatkit_configuration={"file_upload": {"max_file": 5}})  # type: ignore[arg-type]
    create(user="u", workflow="wf", chatkit_configuration={"history": {"recent": 5}})  # type: ignore[arg-type]
    create(user="u", workflow="wf", chatkit_configuration={"history": {"recent_threads": "5"}})  # type: ignore[arg-type]
    create(user="u", workflow="wf", chatkit_configuration={"automatic_thread_titling": True})  # type: ignore[arg-type]
    create(user="u", workflow="wf", expires_after={"minutes": 5})  # type: ignore[arg-type]
    create(user="u", workflow="wf", expires_after={"seconds": 5, "anchor": "now"})  # type: ignore[arg-type]
    create(user="u", workflow="wf", rate_limits={"requests": 5})  # type: ignore[arg-type]
    create({"user": "u", "workflow": "wf"})  # type: ignore[arg-type, call-arg]
    workflow = {"id": "wf"}
    create(user="u", workflow=workflow)  # type: ignore[arg-type]


def refused_elsewhere(client: ChatKit, asynchronous: AsyncChatKit) -> None:
    """Check the other calls and classes that take parameters."""
    client.sessions.open(user="u", workflow={"idd": "wf"})  # type: ignore[arg-type]
    client.sessions.with_raw_response.create(user="u", workflow={"idd": "wf"})  # type: ignore[arg-type]
    asynchronous.sessions.open(user="u", workflow={"idd": "wf"})  # type: ignore[arg-type]
    endpoint = ClientSecretEndpoint(asynchronous, workflow={"idd": "wf"})  # type: ignore[arg-type]
    _ = endpoint.handle(user="u", workflow={"idd": "wf"})  # type: ignore[arg-type]
    blocking = BlockingClientSecretEndpoint(client, workflow={"idd": "wf"})  # type: ignore[arg-type]
    blocking.handle(user="u", workflow={"idd": "wf"})  # type: ignore[arg-type]
    ChatSessionWorkflowParam(id="wf", tracing={"enable": True})  # type: ignore[arg-type]
    ChatSessionChatKitConfigurationParam(history={"recent": 5})  # type: ignore[arg-type]
    SessionCreateParams(user="u", workflow={"idd": "wf"})  # type: ignore[arg-type]
    row: SessionCreateDict = {"user": "u", "workflow": {"idd": "wf"}}  # type: ignore[typeddict-item]
    client.sessions.create_many([row])


async def returned(client: AsyncChatKit, blocking: ChatKit) -> None:
    """Check what the methods return."""
    assert_type(await client.chatkit.sessions.create(user="u", workflow="wf"), ChatSession)
    raw = client.beta.chatkit.sessions.with_raw_response
    assert_type(await raw.create(user="u", workflow="wf"), APIResponse[ChatSession])
    assert_type(
        blocking.sessions.with_raw_response.cancel("cksess_1", timeout=5), APIResponse[ChatSession]
    )
    assert_type(client.sessions.create_many(["u"]), BulkRun[str, ChatSession])
    for outcome in await client.sessions.create_many(["u"]).results():
        assert_type(outcome.result(), ChatSession)
        assert_type(outcome.session, ChatSession | None)


async def threads_returned(client: AsyncChatKit, blocking: ChatKit) -> None:
    """Check what the methods of threads return."""
    assert_type(await client.threads.list(), AsyncPage[ChatKitThread])
    assert_type(blocking.threads.list().page(), Page[ChatKitThread])
    async for item in client.threads.list_items("cthr_1"):
        assert_type(item, ChatKitThreadItem)
    for thread in blocking.threads.list(user="u"):
        assert_type(thread, ChatKitThread)
    listed = client.threads.delete_many(client.threads.list(user="u"))
    assert_type(listed, BulkRun[ChatKitThread, ChatKitThreadDeleted])
    of_ids = blocking.threads.delete_many(["cthr_1"])
    assert_type(of_ids, BlockingBulkRun[str, ChatKitThreadDeleted])
    for outcome in blocking.threads.delete_many(blocking.threads.list()):
        assert_type(outcome.row, ChatKitThread)
        assert_type(outcome.result(), ChatKitThreadDeleted)


async def threads_refused(client: AsyncChatKit, blocking: ChatKit) -> None:
    """Check that a list used in the wrong way is reported, and a user that may be nobody."""
    for _ in client.threads.list():  # type: ignore[attr-defined]
        pass
    async for _ in blocking.threads.list():  # type: ignore[attr-defined]
        pass
    await blocking.threads.list()  # type: ignore[misc]
    len(client.threads.list())  # type: ignore[arg-type]
    _ = client.threads.list(user=None)  # type: ignore[arg-type]
    client.threads.delete_many([5])  # type: ignore[type-var]
