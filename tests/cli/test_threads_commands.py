"""`threads list` and `threads show`."""

from __future__ import annotations

import json

import pytest

from chatkit_async.cli._export_file import Part
from chatkit_async.models.threads import ChatKitThread, ChatKitThreadItem

AT = 1_795_850_000
WHEN = "2026-11-28 07:13:20 UTC"


@pytest.fixture
def thread(emulator):
    return emulator.add_thread(
        user="ada",
        title="Parcel\x1b[2J",
        items=["user: Where is my parcel?\x1b[2J", "assistant: On its way."],
        created_at=AT,
    )


def test_list_prints_a_line_per_thread(invoke, emulator, thread):
    emulator.add_thread(user="bob", title=None, created_at=AT + 1)
    result = invoke("threads", "list", "--user", "ada")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{thread.id}  {WHEN}  ada  Parcel\\x1b[2J\n"
    result = invoke("threads", "list", "--limit=1")
    assert result.stdout.split("  ")[2:] == ["bob", "-\n"]
    result = invoke("threads", "list", "--json")
    assert [json.loads(line)["user"] for line in result.stdout.splitlines()] == ["bob", "ada"]


def test_list_says_that_there_is_nothing(invoke, emulator):
    result = invoke("threads", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No threads. A key sees only the threads of its own project.\n"


def test_show_prints_a_transcript(invoke, emulator, thread, tmp_path, environment):
    transcript = (
        f"thread   {thread.id}\ntitle    Parcel\\x1b[2J\nuser     ada\n"
        f"created  {WHEN}\nstatus   active\n"
        f"\n{WHEN}  user\n    Where is my parcel?\\x1b[2J\n"
        f"\n{WHEN}  assistant\n    On its way.\n"
    )
    shown = invoke("threads", "show", thread.id)
    as_json = invoke("threads", "show", thread.id, "--json").stdout
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout == transcript
    first, *items = map(json.loads, as_json.splitlines())
    assert first["id"] == thread.id
    assert items == list(thread.items)

    # From an export without a network: here over two lines.
    parts = (
        Part(
            thread=ChatKitThread.from_dict(first),
            items=[ChatKitThreadItem.from_dict(item)],
            number=number,
            has_more=number == 1,
        )
        for number, item in enumerate(items, 1)
    )
    (path := tmp_path / "export.jsonl").write_bytes(b"".join(part.encode() for part in parts))
    environment.delenv("OPENAI_API_KEY")
    requests = len(emulator.requests)
    assert invoke("threads", "show", thread.id, "--from", path).stdout == transcript
    assert invoke("threads", "show", thread.id, "--from", path, "--json").stdout == as_json
    assert len(emulator.requests) == requests


def test_show_of_an_unknown_thread_fails(invoke, emulator):
    result = invoke("threads", "show", "cthr_none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "404" in result.stderr
