"""`threads delete`: what is deleted, what is left, and what the record says."""

from __future__ import annotations

import json
import os
import time
from types import SimpleNamespace

import pytest
from exports import AT, add_threads

from chatkit_async.cli import _threads_delete
from chatkit_async.cli._threads_delete import Deletion
from chatkit_async.emulator import Emulator

DELETE = ("threads", "delete", "--yes", "--no-wait")
NO_RETRY = {"x-should-retry": "false"}


@pytest.fixture
def threads(emulator):
    """Threads of ada (0, 2, 4), bob (1) and cleo (3)."""
    return add_threads(emulator)


@pytest.fixture
def delete(invoke, tmp_path):
    """Delete; returns the result, with the lines of the record."""

    def delete(*options):
        result = invoke(*DELETE, "--record", str(tmp_path / "record"), *options)
        result.records = records(tmp_path / "record")
        return result

    return delete


def records(path):
    return (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    )


def of_kind(lines, kind):
    return [line["thread_id"] for line in lines if line["record"] == kind]


def left(emulator):
    """Return the emulator's threads, byte for byte."""
    return {
        thread.id: json.dumps([thread.user, thread.title, thread.items])
        for thread in emulator.threads.values()
    }


def test_deletion_of_a_user_is_recorded(delete, emulator, threads):
    before = left(emulator)
    result = delete("--user=ada")
    assert result.exit_code == 0, result.stderr
    gone = ["cthr_4", "cthr_2", "cthr_0"]
    assert left(emulator) == {one: before[one] for one in before if one not in gone}
    run, *found = result.records[:4]
    assert run["base_url"] == emulator.base_url
    assert run["key"].endswith("-key")
    assert [line["thread_id"] for line in found] == gone
    assert found[1] == {
        "record": "listed",
        "thread_id": "cthr_2",
        "user": "ada",
        "items": 250,
        "at": found[1]["at"],
    }
    sent = {r.thread_id: [r.request_id] for r in emulator.requests if r.method == "DELETE"}
    assert {
        line["thread_id"]: line["request_ids"]
        for line in result.records
        if line["record"] == "deleted"
    } == sent
    assert set(of_kind(result.records, "intent")) == sent.keys() == set(gone)
    last = emulator.requests[-1].request_id
    assert (
        result.records[-1].items() >= {"record": "empty", "user": "ada", "request_id": last}.items()
    )
    for line in (
        "3 threads of 1 user, with 254 items and 4 attachments.",
        "  ada: 3 threads",
        "  cthr_4  2026-11-28 07:13:24 UTC  T4",
        f"The list of ada is empty (request id {last}).",
    ):
        assert f"{line}\n" in result.stderr
    assert "can still write until" in result.stderr
    again = delete("--user=ada")
    assert again.exit_code == 0
    assert again.records[-1]["record"] == "empty"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "Choose one of --user, --users, --ids, --from and --all-users."),
        (["--idle-for=3d"], "Choose one of"),
        (["--user=ada", "--all-users"], "Choose one of"),
        (["--all-users", "--idle-for=3 weeks"], "must be a number of days such as 30d"),
    ],
)
@pytest.mark.usefixtures("threads")
def test_deletion_needs_a_filter(delete, emulator, options, problem):
    result = delete(*options)
    assert (result.exit_code, problem in result.stderr) == (2, True)
    assert not emulator.requests


@pytest.mark.usefixtures("threads")
def test_deletion_asks_first(invoke, emulator, monkeypatch):
    command = ("threads", "delete", "--user=bob", "--no-wait")
    result = invoke(*command)
    assert (result.exit_code, "use --yes" in result.stderr) == (2, True)
    assert "cthr_1" in emulator.threads
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(_threads_delete, "sys", SimpleNamespace(stdin=terminal, stderr=terminal))
    assert invoke(*command, input="n\n").exit_code == 1
    assert "cthr_1" in emulator.threads
    assert invoke(*command, input="y\n").exit_code == 0
    assert "cthr_1" not in emulator.threads


@pytest.mark.usefixtures("threads")
def test_thread_that_changed_since_the_export_is_kept(invoke, delete, emulator, tmp_path):
    path = str(tmp_path / "export.jsonl")
    emulator.add_thread(id="cthr_5", user="eve", created_at=AT)
    invoke("threads", "export", "-o", path)
    emulator.add_item("cthr_1", "user: later")
    emulator.add_item("cthr_5", "user: first")
    emulator.add_thread(id="cthr_6", user="eve")
    emulator.delete_thread("cthr_3")
    result = delete("--from", path)
    assert result.exit_code == 3
    assert set(left(emulator)) == {"cthr_1", "cthr_5", "cthr_6"}
    assert set(of_kind(result.records, "changed")) == {"cthr_1", "cthr_5"}
    assert of_kind(result.records, "gone") == ["cthr_3"]
    assert "2 threads left out, because they have items that are newer" in result.stderr
    # What the record has as deleted need not be found again.
    ids = tmp_path / "ids"
    ids.write_text("cthr_0\ncthr_2\n")
    assert delete("--ids", str(ids)).exit_code == 0
    ids.write_text("cthr_0\ncthr_9\n")
    assert delete("--ids", str(ids)).exit_code == 3


def test_old_and_idle_threads_are_deleted(delete, emulator):
    days = {name: int(time.time()) - 86_400 * age for name, age in [("old", 40), ("new", 20)]}
    for name, created in days.items():
        emulator.add_thread(id=f"cthr_{name}", user="ada", created_at=created)
    emulator.add_thread(id="cthr_used", user="bob", created_at=days["old"])
    emulator.add_item("cthr_used", "user: hi")
    result = delete("--all-users", "--idle-for=30d")
    assert result.exit_code == 0
    assert set(left(emulator)) == {"cthr_new", "cthr_used"}
    assert "2 threads left out, because they were not idle" in result.stderr
    assert delete("--all-users", "--created-before=2001-01-01").exit_code == 0
    assert delete("--user=ada", "--created-before=2999-01-01").exit_code == 0
    assert set(left(emulator)) == {"cthr_used"}


@pytest.mark.usefixtures("threads")
def test_deletion_includes_what_appears_meanwhile(invoke, emulator, tmp_path, monkeypatch):
    now = time.time()
    monkeypatch.setattr(_threads_delete, "POLL_INTERVAL", 0)
    monkeypatch.setattr(_threads_delete, "time", SimpleNamespace(time=lambda: now))
    look, new = Deletion._left, iter(["cthr_new", None, "cthr_newer"])

    async def look_later(self):
        nonlocal now
        if (name := next(new, "the end")) is not None:
            emulator.add_thread(id=name, user="bob" if name != "the end" else "eve")
            now += 250
        return await look(self)

    monkeypatch.setattr(Deletion, "_left", look_later)
    people = tmp_path / "people.csv"
    people.write_text("user\nada\nbob\n")
    record = tmp_path / "record"
    result = invoke(*DELETE[:-1], f"--users={people}", f"--record={record}")
    assert result.exit_code == 0, result.stderr
    assert set(left(emulator)) == {"cthr_3", "the end"}
    assert "Looking for what sessions still write, until " in result.stderr
    assert of_kind(records(record), "appeared") == ["cthr_new", "cthr_newer"]
    assert len(of_kind(records(record), "deleted")) == 6
    assert [line["user"] for line in records(record)[-2:]] == ["ada", "bob"]


@pytest.mark.parametrize("status", [429, 500])
@pytest.mark.usefixtures("threads")
def test_deletion_retries(delete, emulator, status):
    emulator.fail(operation="delete_thread", drop="close", after=True)  # then it is gone: 404
    emulator.fail(status=status, every=3, times=3, headers={"retry-after-ms": "1"})
    assert delete("--user=ada").exit_code == 0
    assert set(left(emulator)) == {"cthr_1", "cthr_3"}


@pytest.mark.usefixtures("threads")
def test_thread_that_remains_is_an_error(delete, emulator):
    emulator.fail(path="*/cthr_2", status=500, times=None, headers=NO_RETRY)
    result = delete("--user=ada")
    assert result.exit_code == 3
    assert "thread cthr_2: " in result.stderr
    assert result.stderr.endswith("\nNot deleted: 1 thread.\n")
    assert len(of_kind(result.records, "deleted")) == 2


@pytest.mark.usefixtures("threads")
def test_another_file_is_not_a_record(delete, emulator, tmp_path):
    (tmp_path / "record").write_text("{}\n")
    assert "is not a record of deletions: line 1" in delete("--user=ada").stderr
    assert not emulator.requests


# Kills

LINES = 11  # a run, and listed, intent and deleted of three threads, and the end


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.unmeasured
@pytest.mark.sweep(every=8)
@pytest.mark.parametrize(
    "moment",
    [f"{when}_{line}" for line in range(1, LINES + 1) for when in ("before", "during", "after")],
)
def test_killed_at_any_line_it_can_be_run_again(forks, tmp_path, moment):
    path = tmp_path / "record"
    command = (*DELETE, "--user=ada", "-o", str(path))
    with Emulator() as emulator:
        add_threads(emulator)
        before = left(emulator)
        streams = {"output": tmp_path / "printed", "emulator": emulator}
        assert forks(*command, **streams, at={moment: ["SIGKILL"]}) == -9
        assert forks(*command, **streams) == 0
        assert left(emulator) == {one: before[one] for one in ("cthr_1", "cthr_3")}
    lines = records(path)
    assert set(of_kind(lines, "listed")) == {"cthr_0", "cthr_2", "cthr_4"}
    assert set(of_kind(lines, "intent")) == {"cthr_0", "cthr_2", "cthr_4"}
    assert lines[-1]["record"] == "empty"
