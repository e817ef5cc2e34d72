"""`threads export`: what is exported, resumed, refused and told."""

from __future__ import annotations

import json
import os
import re
import signal
import stat

import pytest
from exports import AT, LONG, add_threads, exported, held

from chatkit_async.cli._export_file import ExportFile, Ids
from chatkit_async.emulator import Emulator

LOST = (
    "8 attachments listed, 4 of them without a preview_url. The API deletes attachments with "
    "their thread, and offers nothing but previews."
)
NO_RETRY = {"x-should-retry": "false"}


@pytest.fixture
def threads(emulator):
    """Threads to export."""
    return add_threads(emulator)


@pytest.fixture
def export(invoke, tmp_path):
    """Export; returns the result, with the path of the export."""

    def export(*options, to="export.jsonl"):
        result = invoke("threads", "export", "-o", str(tmp_path / to), *options)
        result.path = tmp_path / to
        return result

    return export


def test_export_has_everything_and_proves_it(export, emulator, threads):
    result = export("--json")
    assert result.exit_code == 0, result.stderr
    assert exported(result.path) == held(emulator)
    if os.name == "posix":
        assert stat.S_IMODE(result.path.stat().st_mode) == 0o600
    first = json.loads(result.path.read_text("utf-8").partition("\n")[0])
    assert first["thread"]["title"] == "T4"
    assert first["items"] == list(threads["cthr_4"].items)
    (last,) = {r.request_id for r in emulator.requests if r.operation == "list_threads"}
    assert json.loads(result.stdout) == {
        "complete": True,
        "threads": 5,
        "failed": 0,
        "items": 8 + LONG,
        "attachments": 8,
        "attachments_without_preview": 4,
        "listed": {"ada": 3, "bob": 1, "cleo": 1},
        "list_ends": [{"user": None, "has_more": False, "request_id": last}],
    }
    assert result.stderr.splitlines() == [
        "5 threads exported; 258 items.",
        LOST,
        "  ada: 3 threads listed",
        "  cleo: 1 thread listed",
        "  bob: 1 thread listed",
        f"The list of all users ended with has_more: false (request id {last}).",
    ]
    assert export("--resume", "--quiet").stderr == ""


# In the first thread, after it, in each line of the long one, and without the last newline.
@pytest.mark.parametrize("cut", [0, 9, 500, 5_000, 60_000, 100_000, -1])
def test_torn_export_is_resumed(export, emulator, threads, cut):
    path = export().path
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] if cut >= 0 else whole[:-1])
    emulator.add_thread(user="ada", items=["user: later"], created_at=AT + 9)
    requests = len(emulator.requests)
    assert export("--resume").exit_code == 0
    assert exported(path) == held(emulator)
    if cut < 0:
        assert len(emulator.requests) == requests + 2  # the list, and the items of the new thread
    assert "already exists. Use --resume" in export().stderr


def test_export_is_of_the_threads_that_were_chosen(export, emulator, threads, tmp_path):
    (tmp_path / "people.csv").write_text("Name,User\nA,cleo\nB,bob\nA again,cleo\nN,nobody\n")
    (tmp_path / "people.jsonl").write_text('"cleo"\n{"user": "bob"}\n')
    (tmp_path / "ids").write_text("cthr_1\ncthr_3\ncthr_1\n")
    for number, (options, wanted) in enumerate(
        {
            ("--user=ada",): (0, 2, 4),
            (f"--users={tmp_path / 'people.csv'}",): (1, 3),
            (f"--users={tmp_path / 'people.jsonl'}",): (1, 3),
            (f"--ids={tmp_path / 'ids'}",): (1, 3),
            ("--since=2026-11-28T07:13:21Z", "--until=2026-11-28T07:13:23"): (1, 2),
            ("--user=ada", "--until=2026-11-28T08:13:22+01:00"): (0,),
        }.items()
    ):
        result = export(*options, to=f"{number}.jsonl")
        assert result.exit_code == 0, result.stderr
        assert exported(result.path) == held(emulator, *(f"cthr_{one}" for one in wanted))
        before = result.path.read_bytes()
        assert export(*options, "--resume", to=f"{number}.jsonl").exit_code == 0
        assert result.path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--user=ada", "--ids=ids.txt"], "Choose one of --user, --users and --ids."),
        (["--ids=ids.txt", "--since=2026-01-01"], "Dates do not go with --ids."),
        (["--since=yesterday"], "must be a date such as 2026-11-28"),
        (["--users=people.csv"], "people.csv, line 3: no user found."),
        (["--users=people.jsonl"], "people.jsonl, line 2: no user found."),
        (["--ids=ids.txt"], "ids.txt, line 2: not a thread id."),
        (["--user="], "--user must not be empty."),
        (["--user=bob", "--resume"], "has threads that this command would not export"),
    ],
)
@pytest.mark.usefixtures("threads")
def test_wrong_selection_sends_nothing(export, emulator, tmp_path, options, problem):
    (tmp_path / "people.csv").write_text("user,name\nada,A\n ,B\n")
    (tmp_path / "people.jsonl").write_text('{"user": "ada"}\n{"name": "B"}\n')
    (tmp_path / "ids.txt").write_text("cthr_1\nno id, this\n")
    export("--user=ada") if "--resume" in options else None
    requests = len(emulator.requests)
    result = export(*(option.replace("=", f"={tmp_path}/", "." in option) for option in options))
    assert (result.exit_code, result.stdout) == (2, "")
    assert problem in result.stderr
    assert len(emulator.requests) == requests


def test_input_that_cannot_be_read_is_an_error(export, emulator, tmp_path, monkeypatch):
    (tmp_path / "ids").write_text("cthr_1\n")
    monkeypatch.setattr(type(tmp_path), "open", failing)
    result = export(f"--ids={tmp_path / 'ids'}")
    assert (result.exit_code, "cannot read" in result.stderr) == (2, True)


def failing(*_, **__):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("page", [1, 3])
def test_thread_that_fails_is_left_out_whole(export, emulator, threads, page):
    emulator.fail(path="/v1/chatkit/threads/cthr_2/items", status=500, every=page, headers=NO_RETRY)
    result = export()
    assert result.exit_code == 3
    assert exported(result.path) == held(emulator, "cthr_0", "cthr_1", "cthr_3", "cthr_4")
    failure, told, *_, advice = result.stderr.splitlines()
    assert failure.startswith("thread cthr_2: the API replied 500")
    assert told == "4 threads exported, 1 failed; 8 items."
    assert advice.endswith("export.jsonl --resume")
    assert export("--resume").exit_code == 0
    assert exported(result.path) == held(emulator)


@pytest.mark.parametrize(
    ("operation", "status", "code"),
    [("list_threads", 401, 4), ("list_items", 401, 4), ("list_threads", 500, 1)],
)
@pytest.mark.usefixtures("threads")
def test_export_stops_at_what_concerns_every_thread(export, emulator, operation, status, code):
    emulator.fail(operation=operation, status=status, times=None, headers=NO_RETRY)
    result = export("--concurrency=1")
    assert result.exit_code == code
    assert f"\nStopped: the API replied {status}" in result.stderr
    assert "\nTo continue: chatkit-async threads export -o " in result.stderr
    emulator.clear_faults()
    assert export("--resume").exit_code == 0
    assert exported(result.path) == held(emulator)


@pytest.mark.usefixtures("threads")
def test_export_waits_for_the_rate_limit(export, emulator, monkeypatch):
    monkeypatch.setattr("chatkit_async.cli._progress.LINE_INTERVAL", 0.001)
    emulator.fail(status=429, every=2, times=3, headers={"retry-after-ms": "20"})
    result = export()
    assert result.exit_code == 0
    assert re.search("^[0-5](/5)? threads, ", result.stderr, re.MULTILINE)
    assert exported(result.path) == held(emulator)


@pytest.mark.usefixtures("threads")
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_signal_ends_the_export(export, emulator, monkeypatch):
    append = ExportFile.append

    def interrupted(self, line):
        append(self, line)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ExportFile, "append", interrupted)
    result = export("--concurrency=1")
    assert result.exit_code == 143
    assert held(emulator, *exported(result.path)) == exported(result.path)


def test_export_without_threads_names_the_project(export, emulator, environment):
    environment.setenv("OPENAI_PROJECT_ID", "proj_1")
    result = export()
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == (
        f"No threads. A key sees only the threads of its own project: base url {emulator.base_url}, key "
        "sk-**********-key, organization of the key, project proj_1."
    )
    assert export("--resume", "--allow-empty").exit_code == 0


@pytest.mark.usefixtures("threads")
def test_users_are_counted_within_bounds(export, tmp_path, monkeypatch):
    monkeypatch.setattr("chatkit_async.cli._threads_export.MAX_COUNTED_USERS", 1)
    monkeypatch.setattr("chatkit_async.cli._threads_export.MAX_SHOWN_USERS", 1)
    result = export("--json")
    assert json.loads(result.stdout)["listed"] == {"ada": 3, "(other users)": 2}
    assert "  1 more user: see --json\n" in result.stderr
    (tmp_path / "people.csv").write_text("user\nada\nbob\n")
    listed = json.loads(export("--json", "--resume", f"--users={tmp_path / 'people.csv'}").stdout)
    assert [end["user"] for end in listed["list_ends"]] == ["ada"]


def test_ids_are_a_set():
    ids, reference = Ids(), set()
    for number in range(3000):
        one = f"cthr_{number * 7919 % 2000}"
        assert ids.add(one) is (one not in reference)
        reference.add(one)


def test_emulator_replays_an_export(export, emulator, threads):
    with Emulator(state=export().path) as replayed:
        assert held(replayed) == held(emulator)
        assert replayed.threads["cthr_2"].items == threads["cthr_2"].items
        assert replayed.threads["cthr_2"].title == "T2"


# Markdown


@pytest.mark.parametrize("resume", [False, True])
def test_markdown_is_a_file_for_each_thread(export, emulator, threads, resume):
    emulator.add_thread(id="../cthr", user="..", title="<b>", items=["user: *hi*"], created_at=AT)
    folder = export("--format=markdown", to="out").path
    if resume:
        (folder / "ada" / "cthr_2.md").rename(folder / "ada" / "cthr_2.part")
        assert export("--format=markdown", "--resume", to="out").exit_code == 0
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        "%2E%2E/%2E%2E%2Fcthr.md",
        *(f"ada/cthr_{number}.md" for number in (0, 2, 4)),
        "bob/cthr_1.md",
        "cleo/cthr_3.md",
    ]
    text = (folder / "%2E%2E" / "%2E%2E%2Fcthr.md").read_text("utf-8")
    assert text.startswith("# &lt;b&gt;\n\n- thread: ../cthr\n")
    assert text.endswith("\n## user, 2026-11-28 07:13:20 UTC\n\n\\*hi\\*  \n")
    assert (folder / "ada" / "cthr_2.md").read_text("utf-8").count("## user") == LONG
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    assert "already exists" in export("--format=markdown", to="out").stderr


def test_markdown_leaves_no_half_thread(export, emulator, threads):
    emulator.fail(path="*/cthr_2/items", status=500, every=3, headers=NO_RETRY)
    result = export("--format=markdown", "--user=ada", to="out")
    assert result.exit_code == 3
    assert {path.name for path in (result.path / "ada").iterdir()} == {"cthr_0.md", "cthr_4.md"}
    assert export("--format=markdown", "--user=ada", "--resume", to="out").exit_code == 0


def test_markdown_shortens_long_names_and_reports_a_disk(export, emulator, monkeypatch):
    emulator.add_thread(user="u" * 300)
    emulator.add_thread(user="u" * 301)
    result = export("--format=markdown", to="out")
    assert result.exit_code == 0
    assert [len(path.name) for path in result.path.iterdir()] == [120, 120]
    emulator.add_thread(user="v")
    monkeypatch.setattr(os, "fsync", failing)
    result = export("--format=markdown", "--resume", to="out")
    assert result.exit_code == 1
    assert re.search("cannot write to .*: Permission denied", result.stderr)
    assert not [*(result.path / "v").iterdir()]
