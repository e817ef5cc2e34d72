"""`bulk status`: the summary of a run, and its rejected rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from chatkit_async.cli import _status


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def create(invoke, content, name="rows.csv", encoding="utf-8"):
    """Run `bulk create` on an input."""
    Path(name).write_bytes(content.encode(encoding))
    return invoke("bulk", "create", name, "-o", "out.jsonl", "--concurrency", "1")


ROWS = "user,workflow,expires_after\nada,wf_1,\nbob,wf_1,x\ncid,,5\n dan,wf_1,y\neve,wf_1,\n"


def test_status_counts_and_groups_the_rows(invoke, emulator):
    create(invoke, ROWS)
    text = re.sub(
        r'"expires_at": \d+', '"expires_at": 5', Path("out.jsonl").read_text("utf-8"), count=1
    )
    lines = text.splitlines(keepends=True)
    lines[-1] = '{"record": "outco'  # the last row was in flight when the run was killed
    Path("out.jsonl").write_text("".join(lines), "utf-8")
    result = invoke("bulk", "status", "out.jsonl")
    assert result.exit_code == 0
    assert result.stdout == (
        f"bulk create rows.csv, against {emulator.base_url}\n"
        "5 rows: 1 created, 3 rejected, 1 unknown. 1 attempt.\n"
        "0 sessions still valid.\n"
        "2 rows rejected, the first on line 3: expires_after.seconds: must be a whole number, "
        "got 'x'\n"
        "1 row rejected, the first on line 4: workflow: is required\n"
        "1 row unknown, the first on line 6: the run ended before the outcome was known\n"
    )
    data = json.loads(invoke("bulk", "status", "out.jsonl", "--json").stdout)
    assert data["kinds"] == {"created": 1, "rejected": 3, "unknown": 1}
    assert (data["rows"], data["still_valid"], data["attempts"]) == (5, 0, 1)
    assert data["failures"][0] == {
        "kind": "rejected",
        "type": "ParameterError",
        "status_code": None,
        "field": "expires_after.seconds",
        "rows": 2,
        "first_line": 3,
        "message": "expires_after.seconds: must be a whole number, got 'x'",
    }


def test_row_that_was_sent_again_is_no_failure(invoke, emulator):
    emulator.fail(status=400)
    create(invoke, "user,workflow\nada,wf_1\n")
    assert "1 row rejected, the first on line 2: the API" in invoke(*STATUS).stdout
    invoke("bulk", "create", "rows.csv", "-o", "out.jsonl", "--resume", "--retry-rejected")
    shown = invoke(*STATUS).stdout
    assert "1 row: 1 created. 2 attempts.\n1 session still valid.\n" in shown
    invoke("bulk", "cancel", "out.jsonl", "-o", "cancelled.jsonl")
    shown = invoke("bulk", "status", "cancelled.jsonl").stdout
    assert shown.endswith("1 row: 1 cancelled. 1 attempt.\n")


STATUS = ("bulk", "status", "out.jsonl")


def test_only_the_first_failures_are_listed(invoke, emulator, monkeypatch):
    monkeypatch.setattr(_status, "MAX_LISTED_FAILURES", 1)
    create(invoke, ROWS)
    assert invoke(*STATUS).stdout.endswith("got 'x'\n1 other failure: --json lists all.\n")


BAD = "must be a whole number, got 'x'"


@pytest.mark.parametrize(
    ("content", "encoding", "expected"),
    [
        (
            "user,workflow,expires_after\nada,wf_1,\nbob,wf_1,x\n",
            "utf-8",
            f'user,workflow,expires_after,reason\nbob,wf_1,x,"expires_after.seconds: {BAD}"\n',
        ),
        (
            'workflow;"user";expires_after\r\nwf_1;"Ü\r\n1";x\r\nwf_1;ada;\r\n',
            "utf-8-sig",
            f'workflow;"user";expires_after;reason\nwf_1;"Ü\n1";x;expires_after.seconds: {BAD}\n',
        ),
        (
            '"SEP=;"\n"user";workflow;expires_after\n;;\nada;wf_1;\nbob;wf_1;x\n',
            "utf-8",
            f'"SEP=;"\n"user";workflow;expires_after;reason\nbob;wf_1;x;expires_after.seconds: {BAD}\n',
        ),
        (
            '{"user": "ada", "workflow": "wf_1"}\n{"user": "bob"}\n',
            "utf-8",
            '{"row": "{\\"user\\": \\"bob\\"}", "reason": "workflow: is required"}\n',
        ),
    ],
)
def test_rejected_rows_are_written_with_the_reason(invoke, emulator, content, encoding, expected):
    name = "rows.jsonl" if content[0] == "{" else "rows.csv"
    create(invoke, content, name, encoding)
    result = invoke(*STATUS, "--failed", "rejected")
    assert result.stderr == f"rejected has the rejected rows. Correct them in {name}.\n"
    assert Path("rejected").read_text("utf-8-sig") == expected
    assert invoke(*STATUS, "--failed", "rejected").stderr == "Error: rejected: File exists\n"
    Path(name).rename("moved")
    assert "No such file" in invoke(*STATUS, "--failed", "other").stderr
    assert invoke(*STATUS, "--failed", "other", "--input", "moved").exit_code == 0


def test_rejected_rows_of_utf_16_keep_their_separator(invoke, emulator):
    create(invoke, ROWS.partition("cid")[0])
    marked = "sep=;\nuser;workflow;expires_after\nada;wf_1;\n"
    Path("rows.csv").write_text(marked + "bob;wf_1;x\n", "utf-16")
    journal = Path("out.jsonl").read_text("utf-8").replace('"line": 3', '"line": 4')
    Path("out.jsonl").write_text(journal.replace('"line": 2', '"line": 3'), "utf-8")
    invoke(*STATUS, "--failed", "rejected.csv")
    assert Path("rejected.csv").read_text("utf-8-sig").splitlines() == [
        "sep=;",
        "user;workflow;expires_after;reason",
        f"bob;wf_1;x;expires_after.seconds: {BAD}",
    ]


HEADER = (
    '{"record": "header", "format": 1, "command": "", "base_url": "", "input": "", '
    '"defaults": null}\n'
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read out.jsonl: No such file or directory"),
        ("", "out.jsonl is empty"),
        ("user\nada\n", "out.jsonl is not a journal that can be resumed: line 1: "),
        (
            HEADER + '{"record": "intent", "index": 0, "fingerprint": "0"}\n',
            "out.jsonl is damaged",
        ),
    ],
)
def test_file_that_is_no_journal_is_an_error(invoke, content, said):
    if content is not None:
        Path("out.jsonl").write_text(content)
    result = invoke(*STATUS)
    assert result.exit_code == 1
    assert f"Error: {said}" in result.stderr
