"""docs/examples/to_own_server.py, with the types of openai-chatkit."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner
from conversation import CONVERSATION

from chatkit_async.cli import commands

pytest.importorskip("chatkit.store", reason="openai-chatkit is not installed")

from chatkit.store import NotFoundError, Store

pytestmark = pytest.mark.unmeasured

MISFITS = [
    {"type": "chatkit.widget", "widget": "no JSON"},
    {"type": "chatkit.hologram"},
    {"type": "chatkit.client_tool_call", "status": "in_progress", "call_id": "c", "name": "n"},
]


class MemoryStore(Store):
    """Threads and items by context and id, as JSON."""

    def __init__(self):
        self.held, self.writes = {}, 0

    def _save(self, context, key, value):
        self.writes += 1
        self.held[context, *key] = value

    def _load(self, context, key):
        if (context, *key) not in self.held:
            raise NotFoundError
        return self.held[context, *key]

    async def load_thread(self, thread_id, context):
        return self._load(context, [thread_id])

    async def save_thread(self, thread, context):
        self._save(context, [thread.id], thread)

    async def load_item(self, thread_id, item_id, context):
        return self._load(context, [thread_id, item_id])

    async def add_thread_item(self, thread_id, item, context):
        assert item.thread_id == thread_id
        self._save(context, [thread_id, item.id], item)

    async def save_attachment(self, attachment, context):
        self._save(context, ["attachment", attachment.id], attachment)


MemoryStore.__abstractmethods__ = frozenset()


@pytest.fixture
def lines(emulator, tmp_path):
    """The lines of an export with an item of each kind, and of some that do not fit."""
    items = [*CONVERSATION, *MISFITS]
    emulator.add_thread(id="cthr_1", user="ada", title="T", items=items, created_at=1000)
    path = tmp_path / "export.jsonl"
    result = CliRunner().invoke(commands, ["threads", "export", "-o", str(path)])
    assert result.exit_code == 0
    return path.read_text("utf-8").splitlines()


def test_export_is_loaded_once(load, lines):
    store = MemoryStore()

    async def loaded():
        return [one async for one in load("to_own_server").load(lines, store, lambda user: user)]

    misfits = [text for _, text in asyncio.run(loaded())]
    assert misfits == [
        "attachment cfile_1: the file is not in the export",
        "attachment cfile_2: the file is not in the export",
        "left out, a chatkit.widget that does not fit: JSONDecodeError",
        "left out, a chatkit.hologram that does not fit: ValueError",
        "left out, a chatkit.client_tool_call that does not fit: KeyError",
    ]
    writes = store.writes
    assert len(asyncio.run(loaded())) == 3  # those that are not there
    assert store.writes == writes

    thread = store.held["ada", "cthr_1"]
    assert (thread.title, thread.created_at.timestamp(), thread.status.type) == (
        "T",
        1000,
        "active",
    )
    ids = [item["id"] for item in json.loads(lines[0])["items"]]
    user, assistant, widget, call, task, group, *_ = (
        store.held["ada", "cthr_1", one] for one in ids[: len(CONVERSATION)]
    )
    assert (user.quoted_text, user.content[0].text) == ("Returns take 5 days", "And abroad?")
    assert [one.type for one in user.attachments] == ["image", "file"]
    assert user.inference_options.tool_choice.id == "search"
    assert [one.source.title for one in assistant.content[0].annotations] == [
        "https://shop.example",
        "returns.pdf",
    ]
    assert widget.widget.type == "Card"
    assert (call.status, call.arguments, call.output) == ("completed", {"id": 7}, None)
    assert (task.task.type, task.task.title, task.task.content) == ("thought", "Looking", "")
    assert (group.workflow.type, group.workflow.tasks[0].content) == ("custom", "3 hits")
