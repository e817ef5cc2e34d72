"""The format of an export: what is written is read back, and what is not an export is refused."""

from __future__ import annotations

import io
import json

import pytest

from chatkit_async.cli._export_file import ExportError, Part, parts_of, read_parts
from chatkit_async.models.threads import ChatKitThread, ChatKitThreadItem

THREAD = {"id": "cthr_1", "object": "chatkit.thread", "title": "Ä\n\u2028", "new": [1, None]}
ITEM = {"id": "cti_1", "type": "chatkit.user_message", "content": [{"text": "\ud800"}]}


def part(thread_id="cthr_1", **fields):
    return Part(
        thread=ChatKitThread.from_dict({**THREAD, "id": thread_id}),
        items=[ChatKitThreadItem.from_dict(ITEM)],
        **fields,
    )


LONG = [part("cthr_2", number=1, has_more=True), part("cthr_2", number=2)]
LINES = b"".join(one.encode() for one in [part(), *LONG])


def test_part_is_read_as_it_was_written():
    assert json.loads(part().encode()) == {"thread": THREAD, "items": [ITEM]}
    assert json.loads(LONG[1].encode()).keys() == {"thread", "items", "part", "has_more"}
    read = list(read_parts(io.BytesIO(LINES), "x"))
    assert [one for one, _ in read] == [part(), *LONG]
    assert read[-1][1] == len(LINES)


def test_torn_last_line_ends_the_export():
    first = len(part().encode())
    for size in range(first, first + len(LONG[0].encode()) - 1):
        assert [end for _, end in read_parts(io.BytesIO(LINES[:size]), "x")] == [first]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"\n", "line 2: expected"),
        (b"[]\n", "line 2: expected"),
        (b"[" * 9999 + b"\n", "line 2: expected"),
        (b'{"thread": {"id": "a"}}\n', "line 2: expected"),
        (b'{"thread": {"id": "a"}, "items": [1]}\n', "line 2: expected"),
        (b'{"thread": {}, "items": []}\n', "line 2: the thread has no id"),
        (b'{"thread": {"id": "a"}, "items": [], "part": "1"}\n', "line 2: part must be"),
        (b'{"thread": {"id": "a"}, "items": [], "has_more": 1}\n', "line 2: part must be"),
        (LONG[1].encode(), "line 2: a part of a thread is missing before it"),
        (LONG[0].encode() + part().encode(), "line 3: a part of a thread is missing before it"),
    ],
)
def test_file_that_is_not_an_export_is_refused(line, problem):
    with pytest.raises(ExportError, match=problem):
        list(read_parts(io.BytesIO(part().encode() + line), "x"))


def test_thread_is_found_in_an_export(tmp_path):
    (path := tmp_path / "export.jsonl").write_bytes(LINES)
    assert list(parts_of(path, "cthr_2")) == LONG
    path.write_bytes(LINES[:-9])
    with pytest.raises(ExportError, match="does not contain all of thread cthr_2"):
        list(parts_of(path, "cthr_2"))
    with pytest.raises(ExportError, match="cannot read"):
        list(parts_of(tmp_path, "cthr_2"))
