"""Threads to export, and what an export should have."""

from __future__ import annotations

import json

AT = 1_795_850_000
LONG = 250
"""Items of the thread that takes three lines."""


def add_threads(emulator):
    """Add five threads of three users, of which the third is long."""
    attached = [
        {"type": "file", "id": "cfile_1", "name": "a", "mime_type": "b", "preview_url": None},
        {"type": "image", "id": "cfile_2", "name": "a", "mime_type": "b", "preview_url": "//c"},
    ]
    message = {"type": "chatkit.user_message", "content": [], "attachments": attached}
    for number, user in enumerate(["ada", "bob", "ada", "cleo", "ada"]):
        items = [f"user: {one}" for one in range(LONG)] if number == 2 else ["user: hi", message]
        emulator.add_thread(
            id=f"cthr_{number}", user=user, title=f"T{number}", items=items, created_at=AT + number
        )
    return emulator.threads


def exported(path):
    """The ids of an export's items by thread; each thread has its lines in a row, and once."""
    threads = {}
    more = None
    for line in path.read_text("utf-8").splitlines():
        record = json.loads(line)
        thread_id = record["thread"]["id"]
        assert more in {None, thread_id}
        assert more or thread_id not in threads
        threads.setdefault(thread_id, []).extend(item["id"] for item in record["items"])
        more = thread_id if record.get("has_more") else None
    assert more is None
    return threads


def held(emulator, *ids):
    """Return the ids of the items that an export must have, by thread: of these threads, or of all."""
    return {
        thread.id: [item["id"] for item in thread.items]
        for thread in emulator.threads.values()
        if not ids or thread.id in ids
    }
