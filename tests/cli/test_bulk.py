"""`bulk create` and `bulk cancel`: from rows to outcomes, and on from a journal."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import tracemalloc
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from patience import PATIENCE

from chatkit_async.cli import _check, _job, _progress, _rows
from chatkit_async.cli._bulk import _each_warning_once
from chatkit_async.cli._journal import Header, Journal
from chatkit_async.emulator import TokenBucket

OUT = Path("out.jsonl")
ROWS = '{{"user": "user_{}", "workflow": "wf_1"}}\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def rows(folder):
    """Write an input of so many rows."""

    def write(number, name="rows.jsonl"):
        (folder / name).write_text("".join(ROWS.format(index) for index in range(number)))
        return name

    return write


def create(invoke, *arguments, output="out.jsonl", **options):
    given = [] if output is None else ["--output", output]
    return invoke("bulk", "create", *map(str, arguments), *given, **options)


def resume(invoke, *arguments):
    return create(invoke, *arguments, "--resume")


def records(path, kind="outcome"):
    """The records of a kind."""
    lines = Path(path).read_text("utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["record"] == kind]


def kinds(path="out.jsonl"):
    """The kind of each row, as its last outcome has it."""
    last = {record["index"]: record["kind"] for record in records(path)}
    return [last[index] for index in sorted(last)]


def users(emulator):
    return sorted(session.user for session in emulator.sessions.values())


def expected(number):
    return sorted(f"user_{index}" for index in range(number))


# Create


def test_a_session_is_created_for_each_row_and_the_output_has_its_secret(invoke, emulator, rows):
    result = create(invoke, rows(3))
    assert result.exit_code == 0
    assert result.stdout == ""
    assert re.fullmatch(r"3 rows: 3 created\. 3 attempts in \d s\.\n", result.stderr)
    assert users(emulator) == expected(3)
    for record in records("out.jsonl"):
        session = emulator.sessions[record["session"]["id"]]
        assert record["user"] == session.user == f"user_{record['index']}"
        assert record["session"]["client_secret"] == session.client_secret
    assert emulator.api_key not in OUT.read_text("utf-8")


def test_csv_and_defaults_make_whole_sessions(invoke, emulator, folder):
    (folder / "rows.csv").write_text("user,state_variables.plan,expires_after\nada,pro,300\n")
    (folder / "all.toml").write_text('workflow = "wf_7"\nexpires_after = 60\nrate_limits = 5\n')
    assert create(invoke, "rows.csv", "--defaults", "all.toml").exit_code == 0
    assert emulator.requests[-1].body == {
        "user": "ada",
        "workflow": {"id": "wf_7", "state_variables": {"plan": "pro"}},
        "expires_after": {"anchor": "created_at", "seconds": 300},
        "rate_limits": {"max_requests_per_1_minute": 5},
    }


def test_rows_go_over_options_and_options_over_defaults(invoke, emulator, folder):
    (folder / "rows.csv").write_text("User ID,Notes,expires_after\nada,x,7\nbob,y,\n")
    (folder / "all.json").write_text('{"workflow": {"id": "wf_7", "version": "3"}}')
    options = ["--map", "user id=user", "--ignore-column", "notes", "--defaults", "all.json"]
    options += ["--workflow", "wf_8", "--expires-after", "60", "--max-requests-per-minute", "5"]
    options += ["--state-variable", "plan=pro", "--state-variable", "seats:=3"]
    assert create(invoke, "rows.csv", *options, "--concurrency", "1").exit_code == 0
    ada, bob = (request.body for request in emulator.requests)
    variables = {"plan": "pro", "seats": 3}
    assert bob == {
        "user": "bob",
        "workflow": {"id": "wf_8", "version": "3", "state_variables": variables},
        "expires_after": {"anchor": "created_at", "seconds": 60},
        "rate_limits": {"max_requests_per_1_minute": 5},
    }
    assert ada == bob | {"user": "ada", "expires_after": {"anchor": "created_at", "seconds": 7}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--map", "user"], "must be COLUMN=FIELD, got 'user'"),
        (["--map", "=user"], "must be COLUMN=FIELD, got 'user'"),
        (["--map", "a=user"], "are for CSV"),
        (["--ignore-column", "a"], "are for CSV"),
        (["--ignore-unknown-columns"], "are for CSV"),
        (["--workflow", " "], "workflow.id: must not be blank"),
        (["--expires-after", "0"], "--expires-after"),
        (["--max-requests-per-minute", "x"], "--max-requests-per-minute"),
    ],
)
def test_wrong_options_for_rows_send_nothing(invoke, emulator, rows, arguments, said):
    result = create(invoke, rows(1), *arguments)
    assert (result.exit_code, OUT.exists()) == (2, False)
    assert said in result.stderr


def test_wrong_header_shows_the_command_that_reads_it(invoke, folder):
    (folder / "rows.csv").write_text("User ID,Workflow,Phone number\nada,wf_1,1\n")
    result = create(invoke, "rows.csv", "--dry-run", output=None)
    assert result.exit_code == 2
    *_, last = result.stderr.splitlines()
    again = "bulk create rows.csv --dry-run --map 'User ID=user' --ignore-column 'Phone number'"
    assert last == f"Try: chatkit-async {again}"
    assert invoke(*shlex.split(again)).exit_code == 0


def test_workbook_is_to_be_saved_as_csv(invoke, folder):
    (folder / "rows.xlsx").write_bytes(b"PK\x03\x04 and so on")
    result = create(invoke, "rows.xlsx", "--dry-run")
    assert result.exit_code == 2
    assert "the input is a workbook: save the file as CSV UTF-8" in result.stderr


@pytest.mark.parametrize(
    ("data", "options"),
    [('{"user": "ada", "workflow": "wf_1"}', []), ("user,workflow\nada,wf_1\n", ["--format=csv"])],
)
def test_rows_come_from_stdin_too(invoke, emulator, folder, data, options):
    assert create(invoke, "-", *options, input=data).exit_code == 0
    assert users(emulator) == ["ada"]


def test_without_stdin_it_says_so(invoke, emulator, monkeypatch):
    monkeypatch.setattr("chatkit_async.cli._bulk.sys", type("", (), {"stdin": None}))
    result = create(invoke, "-", output=None)
    assert (result.exit_code, result.stderr) == (2, "Error: there is no standard input\n")


def test_what_a_file_is_follows_from_its_name_or_is_asked_for(invoke, emulator, rows):
    result = create(invoke, rows(1, "rows.txt"))
    assert result.exit_code == 2
    assert "use --format csv or --format jsonl." in result.stderr
    assert "Users' ids, one on each line, are CSV with a first line `user`." in result.stderr
    assert create(invoke, "rows.txt", "--format", "jsonl").exit_code == 0


@pytest.mark.parametrize("output", [None, "-"])
def test_without_an_output_outcomes_are_printed_and_secrets_masked(invoke, emulator, rows, output):
    result = create(invoke, rows(1), output=output)
    (session,) = emulator.sessions.values()
    record = json.loads(result.stdout)
    assert (record["record"], record["kind"], record["user"]) == ("outcome", "created", "user_0")
    assert record["session"]["client_secret"] == "**********"
    assert session.client_secret not in result.stdout + result.stderr
    shown = create(invoke, "rows.jsonl", "--show-secret", output=None)
    assert json.loads(shown.stdout)["session"]["client_secret"].startswith("ek_")


def test_no_more_than_so_many_are_in_flight(invoke, emulator, rows):
    emulator.latency = 0.01
    assert create(invoke, rows(12), "--concurrency", "3").exit_code == 0
    # A connection is never shared by two at once.
    assert len({request.connection for request in emulator.requests}) <= 3


def test_rows_that_are_refused_are_told_counted_and_named(invoke, emulator, folder):
    (folder / "rows.csv").write_text(
        "user,workflow,expires_after\nada,wf_1,\n ,wf_1,\nbob,wf_1,soon\ncid,wf_1,601\ndan,wf_1,\n"
    )
    result = create(invoke, "rows.csv")
    assert result.exit_code == 3
    assert kinds() == ["created", "rejected", "rejected", "rejected", "created"]
    assert "line 3: rejected: user: must not be blank\n" in result.stderr
    assert "line 4: rejected: expires_after.seconds: must be a whole number" in result.stderr
    assert "line 5: rejected: the API replied 400" in result.stderr
    assert "5 rows: 2 created, 3 rejected. 3 attempts" in result.stderr
    assert "3 rows rejected. To see why:\n  chatkit-async bulk status out.jsonl\n" in result.stderr
    assert commands_in(result)[-1][-2:] == ["--resume", "--retry-rejected"]
    assert users(emulator) == ["ada", "dan"]


def test_of_many_refusals_the_first_few_are_told(invoke, emulator, folder):
    (folder / "rows.jsonl").write_text("{}\n" * 9)
    result = create(invoke, "rows.jsonl", output=None)
    assert result.stderr.count(": rejected: ") == 5
    assert result.stderr.count("There are more like these") == 1
    assert result.stderr.endswith("9 rows: 9 rejected.\n")


@pytest.mark.parametrize(("status", "said"), [(None, ""), (400, "1 row: 1 rejected. ")])
def test_quiet_run_tells_of_failures_alone(invoke, emulator, rows, status, said):
    if status is not None:
        emulator.fail(status=status)
    assert said in create(invoke, rows(1), "--quiet").stderr
    if not said:
        assert create(invoke, rows(1), "-q", output="other.jsonl").stderr == ""


def test_an_input_without_rows_is_done(invoke, emulator, rows):
    result = create(invoke, rows(0))
    assert (result.exit_code, result.stderr) == (0, "No rows.\n")


def test_a_warning_is_shown_once(invoke, emulator, folder):
    row = {"user": "ada", "workflow": {"id": "wf_1", "version": "latest"}}
    (folder / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    result = create(invoke, "rows.jsonl")
    assert result.stderr.count("Warning: workflow.version='latest'") == 1
    assert kinds() == ["created"] * 3


def test_repeated_warning_is_shown_once():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with _each_warning_once():
            for text in ("one", "two", "one"):
                warnings.warn(text, stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["one", "two"]


@pytest.mark.parametrize(
    ("fault", "exit_code"),
    [
        ({"status": 401}, 4),
        ({"status": 403}, 4),
        ({"status": 410}, 3),
        ({"status": 429, "code": "insufficient_quota"}, 3),
    ],
)
def test_what_would_hit_every_row_stops_the_run_and_resuming_sends_the_rest(
    invoke, emulator, rows, fault, exit_code
):
    emulator.fail(**fault)
    result = create(invoke, rows(20), "--concurrency", "1")
    assert result.exit_code == exit_code
    assert f"Stopped: the API replied {fault['status']}" in result.stderr
    assert "--retry-rejected" not in result.stderr
    assert len(emulator.sessions) == 0
    result = invoke(*commands_in(result)[-1])
    assert result.exit_code == 0
    assert "20 rows: 20 created." in result.stderr
    assert users(emulator) == expected(20)


def test_rows_that_fail_alike_stop_the_run_and_can_be_sent_again(invoke, emulator, rows):
    emulator.fail(status=404, times=3)
    result = create(invoke, rows(20), "--concurrency", "1", "--max-failures", "3")
    assert result.exit_code == 3
    assert "Stopped: the run stopped because 3 rows in a row failed" in result.stderr
    assert "3 rows rejected." in result.stderr

    result = invoke(*commands_in(result)[-1])

    assert result.exit_code == 0
    assert users(emulator) == expected(20)


@pytest.mark.parametrize(("limit", "rejected"), [("0", 60), ("55", 55)])
def test_max_failures_can_be_chosen(invoke, emulator, rows, limit, rejected):
    emulator.fail(status=404, times=None)
    result = create(invoke, rows(60), "--concurrency", "1", "--max-failures", limit)
    assert result.exit_code == 3
    assert Counter(kinds())["rejected"] == rejected


def test_where_nobody_answers_the_run_stops(invoke, environment, rows):
    environment.setenv("OPENAI_API_KEY", "sk-x")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen: a port that refuses
        port = bound.getsockname()[1]
        environment.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
        result = create(invoke, rows(3), "--timeout", "0.5")
    assert result.exit_code == 3
    assert "Stopped: " in result.stderr
    assert re.search(r"\d+ not attempted\. \d+ attempts? to connect in ", result.stderr)
    assert set(kinds()) == {"not_attempted"}


def test_without_a_key_nothing_is_begun(invoke, emulator, environment, rows, folder):
    environment.delenv("OPENAI_API_KEY")
    result = create(invoke, rows(1))
    assert result.exit_code == 4
    assert result.stderr.startswith("Error: OPENAI_API_KEY: is not set: set it\n")
    assert [path.name for path in folder.iterdir()] == ["rows.jsonl"]


def test_settings_that_cannot_be_right_begin_nothing(invoke, emulator, rows, folder):
    result = create(invoke, rows(1), "--timeout", "-1")
    assert result.exit_code == 2
    assert [path.name for path in folder.iterdir()] == ["rows.jsonl"]


def test_a_limit_ends_the_run_and_resuming_goes_on(invoke, emulator, rows):
    result = create(invoke, rows(5), "--limit", "2")
    assert result.exit_code == 0
    assert users(emulator) == expected(2)
    assert result.stderr.startswith("The first 2 rows: 2 created. 2 attempts in ")
    result = invoke(*commands_in(result)[-1])
    assert users(emulator) == expected(4)
    result = invoke(*commands_in(result)[-1])
    assert "5 rows: 5 created. 5 attempts, 1 of them in this run, in " in result.stderr
    assert users(emulator) == expected(5)


def test_limit_of_rows_from_stdin_ends_the_run(invoke, emulator, folder):
    result = create(invoke, "-", "--limit", "1", input=ROWS.format(0))
    assert result.stderr.startswith("The first row: 1 created.")


@pytest.mark.parametrize("made", [0, 1])
def test_run_without_an_output_asks_on_a_terminal(invoke, emulator, rows, monkeypatch, made):
    terminal = SimpleNamespace(isatty=lambda: True)
    streams = SimpleNamespace(stdin=terminal, stderr=terminal)
    monkeypatch.setattr("chatkit_async.cli._bulk.sys", streams)
    result = create(invoke, rows(1), output=None, input="ny"[made] + "\n")
    assert "all client secrets are lost" in result.stderr
    assert (result.exit_code, len(emulator.sessions)) == (1 - made, made)


def test_a_limit_that_the_input_does_not_exceed_leaves_nothing_to_resume(invoke, emulator, rows):
    result = create(invoke, rows(2), "--limit", "2")
    assert result.stderr.startswith("2 rows: 2 created. ")
    assert "--resume" not in result.stderr


def test_a_limit_does_not_wait_for_another_row(start, emulator, folder):
    process = start("bulk", "create", "-", "-o", "out.jsonl", "--limit=2", stdin=subprocess.PIPE)
    process.stdin.write(ROWS.format(0) + ROWS.format(1))
    process.stdin.flush()
    assert process.wait(PATIENCE) == 0
    assert kinds() == ["created"] * 2
    assert "The first 2 rows: 2 created." in process.stderr.read()


def test_a_rate_is_kept(invoke, emulator, rows):
    emulator.rate_limit = TokenBucket(rate=1000, burst=5)
    assert create(invoke, rows(5), "--rate", "500").exit_code == 0


def test_a_push_back_is_waited_out(invoke, emulator, rows):
    emulator.fail(status=429, headers={"retry-after-ms": "5"}, times=5)
    result = create(invoke, rows(5), "--concurrency", "1")
    assert result.exit_code == 0
    assert "5 rows: 5 created. 10 attempts" in result.stderr


def test_an_input_that_cannot_be_read_to_its_end_says_so(invoke, emulator, folder):
    (folder / "rows.csv").write_text('user,workflow\nada,wf_1\n"bob,wf_1\n')
    result = create(invoke, "rows.csv")
    assert result.exit_code == 2
    assert "The first row: 1 created." in result.stderr
    assert result.stderr.endswith("Error: line 3: a quotation mark is never closed\n")
    assert kinds() == ["created"]


def test_an_input_that_cannot_be_opened_says_so(invoke, emulator, rows, monkeypatch):
    name = rows(1)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    result = create(invoke, name)
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: cannot read rows.jsonl: Permission denied\n",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume"], "--resume needs --output FILE"),
        (["--resume", "-o", "-"], "--resume needs --output FILE"),
        (["-o", "x", "--retry-unknown"], "go with --resume"),
        (["-o", "x", "--retry-rejected"], "go with --resume"),
        (["-o", "x", "--renew-expired"], "go with --resume"),
        (["--concurrency", "0"], "--concurrency"),
        (["--rate", "0"], "--rate"),
        (["--rate", "nan"], "--rate must be greater than 0 and finite"),
        (["--rate", "inf"], "--rate must be greater than 0 and finite"),
        (["--limit", "0"], "--limit"),
        (["--max-failures", "-1"], "--max-failures"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(invoke, emulator, rows, arguments, said):
    result = create(invoke, rows(1), *arguments, output=None)
    assert result.exit_code == 2
    assert said in result.stderr
    assert emulator.requests.total == 0


# Dry run


QUOTES = (
    "has a quotation mark within a cell: enclose the cell in quotation marks, and write each "
    "within it twice"
)


def test_dry_run_groups_problems_over_the_file(invoke, folder):
    (folder / "rows.csv").write_text(
        'user,expires_after\nada,0\n,soon\nbob,x\nbob,12\ncid\n"d"n,5\n'
    )
    result = create(invoke, "rows.csv", "--dry-run")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "workflow: is required: 4 rows, first on line 2; pass --workflow or add a column",
        "expires_after.seconds: must be at least 1, got 0: line 2",
        'user: is required: line 3; add a column, or rename one: --map "COLUMN=user"',
        "expires_after.seconds: must be a whole number, got 'soon': 2 rows, first on line 3",
        "row: has 1 cell, but the header has 2: line 6",
        f"row: {QUOTES}: line 7",
        "Warning: user: appears more than once: line 5; each of these rows is sent",
        "6 rows, 6 of them wrong. Nothing was sent.",
    ]
    assert [path.name for path in folder.iterdir()] == ["rows.csv"]


def test_dry_run_shows_the_first_groups(invoke, folder):
    rows = ({"user": "ada", "workflow": "wf_1", f"field{'x' * number}": 1} for number in range(12))
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows) * 2)
    lines = create(invoke, "rows.jsonl", "--dry-run").stderr.splitlines()
    assert [line.count("2 rows, first on line ") for line in lines[:10]] == [1] * 10
    assert lines[10] == "and 4 more of other kinds"
    assert lines[11].startswith("Warning: user: appears more than once: 23 rows, first on line 2;")


SPACES, REMOVE = "has spaces around it", "remove them if they are not part of it"


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_dry_run_warns_of_oddities(invoke, folder, name):
    odd = ["ada", " bob", "1.0E+05", "1,0E+05", "#N/A", "ada", "1e5", "# 1", "#DIV/0!", "12"]
    if name == "rows.csv":
        (folder / name).write_text(
            "user;state_variables.plan\n" + "".join(f"{u};p \n" for u in odd)
        )
    else:
        rows = ({"user": u, "workflow": {"state_variables": {"plan": "p "}}} for u in odd)
        (folder / name).write_text("\n" + "".join(f"{json.dumps(row)}\n" for row in rows))
    result = create(invoke, name, "--dry-run", "--workflow", "wf_1", "-o", "-", output=None)
    assert result.exit_code == 0
    *warnings, number, command = result.stderr.splitlines()
    assert [line.removeprefix("Warning: ").split("; ") for line in warnings] == [
        [f"workflow.state_variables.plan: {SPACES}: 10 rows, first on line 2", REMOVE],
        [f"user: {SPACES}: line 3", REMOVE],
        [
            "user: is a number that a spreadsheet shortened: 2 rows, first on line 4",
            "format the column as text, export again",
        ],
        [
            "user: is an error value of a spreadsheet: 2 rows, first on line 6",
            "correct the formula, export again",
        ],
        ["user: appears more than once: line 7", "each of these rows is sent"],
    ]
    assert number == "10 rows, 0 of them wrong. Nothing was sent."
    assert command == f"To send: chatkit-async bulk create {name} --workflow wf_1 -o -"


def test_repeated_users_are_found_as_far_as_there_is_room(monkeypatch):
    monkeypatch.setattr(_check, "_SLOTS", 8)
    monkeypatch.setattr(_check, "MAX_COMPARED", 6)
    compared = _check._Compared()
    users = [f"user_{index}" for index in range(50)]
    assert not any(map(compared.has, users))
    assert [compared.has(user) for user in users] == [True] * 6 + [False] * 44


def test_dry_run_takes_the_same_memory_for_any_number_of_rows():
    ours = tracemalloc.Filter(inclusive=True, filename_pattern=f"{Path(_check.__file__).parent}/*")

    def held(number):
        def problems_of(value):
            return ((f"field{value['user']}", f"should be {value['user']}, is '{value['plan']}'"),)

        report = _check.Report(problems_of, "user", {})
        tracemalloc.start()
        rows = _rows.Rows(_rows.JsonDecoder({}))
        for index in range(number):
            line = f'{{"user": "user_{index}", "plan": " {index}"}}\n'
            for row in rows.feed(line.encode()):
                report.add(row)
        lines = [*report.problems, *report.warnings]
        snapshot = tracemalloc.take_snapshot().filter_traces([ours])
        tracemalloc.stop()
        assert report.wrong == number
        assert lines[10] == f"and {number - 10:,} more of other kinds"
        return sum(trace.size for trace in snapshot.traces)

    held(200)  # fills caches
    assert held(900) - held(200) < 5_000


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize(
    ("options", "lifetime"),
    [
        (["--rate", "0.05"], "10 min"),
        (["--rate", "1", "--expires-after", "20"], "20 s"),
        (["--rate", "1", "--limit", "20", "--expires-after", "15"], "15 s"),
        (["--rate", "1"], None),
        (["--rate", "1", "--limit", "20", "--expires-after", "20"], None),
        (["--expires-after", "1"], None),
    ],
)
def test_secrets_that_expire_before_the_end_are_announced(
    invoke, rows, monkeypatch, options, lifetime
):
    monkeypatch.setattr("chatkit_async.cli._bulk.run", lambda work, **_: work.close())
    rows(31)
    command = ["rows.jsonl", *options]
    announced = [create(invoke, *command, "--dry-run"), create(invoke, *command)]
    for result in announced:
        assert ("client secrets expire after" in result.stderr) is (lifetime is not None)
        assert f"client secrets expire after {lifetime or ''}" in result.stderr or lifetime is None
    if options == ["--rate", "0.05"]:
        assert announced[0].stderr.startswith(
            "Warning: 31 rows at 3 per minute take 10 min, and client secrets expire after 10 min. "
            "Use each one as it arrives: -o - --show-secret | PROGRAM\n"
        )
    assert "client secrets" not in create(invoke, "-", *options, output=None, input="").stderr


def test_a_dry_run_of_an_input_that_breaks_off_tells_what_was_before(invoke, folder):
    (folder / "rows.csv").write_text('user\nada\n"')
    result = create(invoke, "rows.csv", "--dry-run")
    assert result.exit_code == 2
    assert result.stderr.startswith("workflow: is required: line 2; pass --workflow or add a col")
    assert "Error: line 3: a quotation mark is never closed" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_an_input_that_cannot_be_read_says_so(invoke, emulator, folder, monkeypatch, arguments):
    class Broken:
        def read1(self, size):
            raise OSError(5, "Input/output error")

    system = SimpleNamespace(stdin=SimpleNamespace(buffer=Broken()))
    monkeypatch.setattr("chatkit_async.cli._bulk.sys", system)
    result = create(invoke, "-", *arguments)
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: cannot read the input: Input/output error\n")


def test_a_dry_run_of_ids(invoke, folder):
    (folder / "ids").write_text("cksess_1\n..\n")
    result = invoke("bulk", "cancel", "ids", "--dry-run")
    assert result.exit_code == 2
    assert result.stderr.startswith("session_id: must not be '.' or '..'")
    (folder / "ids").write_text("cksess_1\ncksess_1\n")
    assert invoke("bulk", "cancel", "ids", "--dry-run").stderr.splitlines() == [
        "Warning: id: appears more than once: line 2; each of these rows is sent",
        "2 rows, 0 of them wrong. Nothing was sent.",
        "To send: chatkit-async bulk cancel ids -o ids.out.jsonl",
    ]
    dry = invoke("bulk", "cancel", "-", "--dry-run", input="cksess_1\n").stderr
    assert dry == "1 row, 0 of them wrong. Nothing was sent.\n"


# Resume


def commands_in(result):
    """The commands that were printed, each without the program's name."""
    found = re.findall(r"^  chatkit-async (.*)$", result.stderr, re.MULTILINE)
    return [shlex.split(command) for command in found]


def lose_outcomes(*indices):
    """Make the journal one of a run that was killed with some rows in flight."""
    kept = [
        line
        for line in OUT.read_text("utf-8").splitlines(keepends=True)
        if not (line.startswith('{"record": "outcome"') and json.loads(line)["index"] in indices)
    ]
    OUT.write_text("".join(kept), "utf-8")


def test_resuming_what_is_done_sends_nothing(invoke, emulator, rows):
    create(invoke, rows(3))
    before = OUT.read_bytes()
    result = resume(invoke, "rows.jsonl")
    assert (result.exit_code, result.stderr) == (0, "3 rows: 3 created.\n")
    assert emulator.requests.total == 3
    assert OUT.read_bytes() == before


def test_rows_sent_without_an_outcome_are_unknown_and_sent_again_only_if_told_to(
    invoke, emulator, rows
):
    create(invoke, rows(6))
    lose_outcomes(1, 4)
    result = resume(invoke, "rows.jsonl")
    assert result.exit_code == 3
    assert "6 rows: 4 created, 2 unknown." in result.stderr
    assert "--retry-unknown" in result.stderr
    assert kinds() == ["created", "unknown", "created", "created", "unknown", "created"]
    assert emulator.requests.total == 6
    assert "an earlier run ended" in records("out.jsonl")[-1]["error"]["message"]
    again = resume(invoke, "rows.jsonl")  # now they have an outcome, which stays
    assert (again.exit_code, len(records("out.jsonl"))) == (3, 6)
    result = resume(invoke, "rows.jsonl", "--retry-unknown")
    assert result.exit_code == 0
    assert emulator.requests.total == 8
    assert kinds() == ["created"] * 6


def test_rejected_rows_can_be_mended_and_sent_again(invoke, emulator, folder):
    (folder / "rows.csv").write_text("user,workflow\nada,wf_1\nbob,\ncid,wf_1\n")
    assert create(invoke, "rows.csv").exit_code == 3
    assert resume(invoke, "rows.csv").exit_code == 3
    (folder / "rows.csv").write_text("user,workflow\nada,wf_1\nbob,wf_1\ncid,wf_1\n")
    assert resume(invoke, "rows.csv", "--retry-rejected").exit_code == 0
    assert users(emulator) == ["ada", "bob", "cid"]


def test_expired_sessions_are_created_anew_if_told_to(invoke, emulator, rows):
    result = create(invoke, rows(2))
    text = OUT.read_text("utf-8")
    OUT.write_text(re.sub(r'"expires_at": \d+', '"expires_at": 5', text, count=1), "utf-8")
    result = resume(invoke, "rows.jsonl")
    assert result.exit_code == 0
    assert "1 row with an expired session. To create new sessions:\n" in result.stderr
    result = invoke(*commands_in(result)[-1])
    assert result.exit_code == 0
    assert len(emulator.sessions) == 3
    assert resume(invoke, "rows.jsonl").stderr == "2 rows: 2 created.\n"


def test_an_input_that_is_another_is_told_by_its_first_row_that_differs(invoke, emulator, rows):
    create(invoke, rows(6), "--limit", "4")
    text = Path("rows.jsonl").read_text("utf-8")
    Path("rows.jsonl").write_text("\n" + text.replace("user_2", "user_9"), "utf-8")
    result = resume(invoke, "rows.jsonl")
    assert result.exit_code == 2
    assert "Error: row 3, on line 4, is not what it was when the journal was written" in (
        result.stderr
    )
    assert users(emulator) == expected(4)


def test_an_input_with_fewer_rows_is_another(invoke, emulator, rows):
    create(invoke, rows(5))
    result = resume(invoke, rows(4))
    assert result.exit_code == 2
    assert "the input has 4 rows, and the journal 5: it is another" in result.stderr


def test_an_input_that_has_grown_is_gone_on_with(invoke, emulator, rows):
    create(invoke, rows(3))
    assert resume(invoke, rows(5)).exit_code == 0
    assert users(emulator) == expected(5)


def test_other_defaults_make_other_rows(invoke, emulator, rows, folder):
    create(invoke, rows(2))
    (folder / "all.json").write_text('{"expires_after": 60}')
    result = resume(invoke, "rows.jsonl", "--defaults", "all.json")
    assert result.exit_code == 2
    assert "with the same input, options and defaults" in result.stderr


def test_a_run_that_had_defaults_needs_them_again(invoke, emulator, rows, folder):
    (folder / "all.json").write_text('{"expires_after": 60}')
    create(invoke, rows(2), "--defaults", "all.json")
    result = resume(invoke, "rows.jsonl")
    assert result.exit_code == 2
    assert "whose options or --defaults set fields of all rows: pass them again." in result.stderr


def test_a_journal_against_another_base_url_is_not_gone_on_with(
    invoke, emulator, environment, rows
):
    create(invoke, rows(1))
    environment.setenv("OPENAI_BASE_URL", "https://x/v1")
    result = resume(invoke, "rows.jsonl")
    assert result.exit_code == 2
    assert "is of a run against" in result.stderr


def test_stdin_is_gone_on_with_if_it_brings_the_same_rows(invoke, emulator, folder):
    data = "".join(ROWS.format(index) for index in range(4))
    create(invoke, "-", "--limit", "2", input=data)
    result = create(invoke, "-", "--resume", input=data)
    assert result.exit_code == 0
    assert users(emulator) == expected(4)
    result = create(invoke, "-", "--resume", input=data.replace("user_1", "user_x"))
    assert "row 2, on line 2, is not what it was" in result.stderr


# Cancel


def test_cancel_takes_back_what_a_run_created(invoke, emulator, folder):
    (folder / "rows.jsonl").write_text(ROWS.format(0) + "{}\n" + ROWS.format(2))
    create(invoke, "rows.jsonl")
    result = invoke("bulk", "cancel", "out.jsonl")
    assert result.exit_code == 0
    assert "2 rows: 2 cancelled. 2 attempts" in result.stderr
    printed = [json.loads(line) for line in result.stdout.splitlines()]
    assert {record["kind"] for record in printed} == {"cancelled"}
    assert {record["session_id"] for record in printed} == set(emulator.sessions)
    assert {session.status for session in emulator.sessions.values()} == {"cancelled"}


def test_cancel_takes_ids_from_stdin_and_keeps_a_journal_if_asked(invoke, emulator, rows, folder):
    create(invoke, rows(3))
    ids = "\n".join([*emulator.sessions, "cksess_none"])
    arguments = ("bulk", "cancel", "-", "-o", "cancelled.jsonl")
    result = invoke(*arguments, "--limit", "2", input=ids)
    assert result.exit_code == 0
    result = invoke(*arguments, "--resume", input=ids)
    assert result.exit_code == 3
    assert "line 4: rejected: the API replied 404" in result.stderr
    assert kinds("cancelled.jsonl") == ["cancelled"] * 3 + ["rejected"]
    assert "4 rows: 3 cancelled, 1 rejected. 4 attempts, 2 of them in this run" in result.stderr
    assert "ek_" not in (folder / "cancelled.jsonl").read_text()


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_the_input_of_create_is_not_cancelled(invoke, emulator, folder, arguments):
    (folder / "users.csv").write_text("user\nada\nbob\n")
    result = invoke("bulk", "cancel", "users.csv", *arguments)
    assert result.exit_code == 2
    assert "Give the output file of that run instead" in result.stderr
    assert emulator.requests.total == 0


def test_a_journal_of_one_command_is_none_of_the_other(invoke, emulator, rows):
    create(invoke, rows(1))
    result = invoke("bulk", "cancel", "out.jsonl", "-o", "out.jsonl", "--resume")
    assert result.exit_code in {1, 2}
    assert "is in use" in result.stderr or "is the journal of `bulk create`" in result.stderr


def test_where_files_cannot_be_locked_ids_are_read_all_the_same(
    invoke, emulator, folder, monkeypatch
):
    def lock(descriptor, *, shared=False):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("chatkit_async.cli._bulk.lock", lock)
    (folder / "ids").write_text("cksess_1\n")
    assert "line 1: rejected: the API replied 404" in invoke("bulk", "cancel", "ids").stderr


def test_what_a_run_still_writes_is_not_cancelled(invoke, emulator, rows):
    create(invoke, rows(1))
    header = Header(
        command="bulk create", base_url=emulator.base_url, input="rows.jsonl", defaults=None
    )
    with Journal(Path("out.jsonl"), header, resume=True):
        result = invoke("bulk", "cancel", "out.jsonl")
        assert result.exit_code == 2
        assert "out.jsonl is being written by a run: wait for its end" in result.stderr
        assert "is in use by another run" in resume(invoke, "rows.jsonl").stderr
    assert {session.status for session in emulator.sessions.values()} == {"active"}


# What cannot be written


class Disk:
    """A disk that is full from the n-th record on, for so many records; the rest is torn."""

    def __init__(self, monkeypatch, full_from, records=10**9):
        self.number = 0
        self.full = range(full_from, full_from + records)
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor, data):
        if not bytes(data).startswith(b'{"record"') and self.number not in self.full:
            return self._write(descriptor, data)
        self.number += 1
        if self.number - 1 not in self.full:
            return self._write(descriptor, data)
        self._write(descriptor, data[:9])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def active(emulator):
    return [s.id for s in emulator.sessions.values() if s.status == "active"]


@pytest.mark.parametrize("full_from", range(1, 8))
def test_on_a_full_disk_every_session_is_in_the_journal_or_cancelled_and_named(
    invoke, emulator, rows, monkeypatch, full_from
):
    name = rows(4)
    disk = Disk(monkeypatch, full_from)
    result = create(invoke, name, "--concurrency", "2")
    assert result.exit_code == 1
    assert "Error: cannot write out.jsonl: No space left on device" in result.stderr
    held = [record["session"]["id"] for record in records("out.jsonl")]
    assert sorted(active(emulator)) == sorted(held)
    for session in emulator.sessions.values():
        if session.id not in held:
            assert (
                f"{session.id} was created, but could not be written, and was cancelled"
                in result.stderr
            )
    assert "ek_" not in result.stderr
    disk.full = range(0)
    assert resume(invoke, name, "--retry-unknown").exit_code == 0
    assert kinds() == ["created"] * 4
    assert len(active(emulator)) == 4


def test_a_disk_that_has_room_again_loses_nothing(invoke, emulator, rows, monkeypatch):
    Disk(monkeypatch, 2, records=1)  # the first outcome
    result = create(invoke, rows(4), "--concurrency", "1")
    assert result.exit_code == 1
    assert "cancelled" not in result.stderr
    assert kinds() == ["created"] * len(emulator.sessions)
    assert len(active(emulator)) == len(emulator.sessions)


def test_a_session_that_cannot_even_be_cancelled_is_named(invoke, emulator, rows, monkeypatch):
    Disk(monkeypatch, 2)
    emulator.fail(operation="cancel", status=404)
    result = create(invoke, rows(1))
    (session_id,) = emulator.sessions
    assert (
        f"{session_id} was created, but could not be written, and was NOT cancelled: the API"
        in result.stderr
    )


def test_what_is_no_session_and_cannot_be_written_is_told(invoke, emulator, folder, monkeypatch):
    (folder / "rows.jsonl").write_text("{}\n" * 3)
    Disk(monkeypatch, 2)
    result = create(invoke, "rows.jsonl")
    assert "line 1: rejected, but this could not be written." in result.stderr


@pytest.mark.unmeasured
def test_a_run_with_a_journal_goes_on_when_nobody_reads_why_rows_failed(start, emulator, rows):
    name = rows(3)
    emulator.fail(status=400)
    process = start("bulk", "create", name, "-o", "out.jsonl", "--concurrency=1")
    process.stderr.close()
    assert process.wait(PATIENCE) == 3
    process.stderr = None
    assert kinds() == ["rejected", "created", "created"]


def test_a_row_that_is_never_sent_and_cannot_be_written_ends_the_run(
    invoke, emulator, folder, monkeypatch
):
    (folder / "bad.csv").write_text("user,workflow,expires_after\n" + "ada,wf_1,x\n" * 3)
    Disk(monkeypatch, 1)
    result = create(invoke, "bad.csv")
    assert result.exit_code == 1
    assert result.stderr.count("rejected, but this could not be written.") == 1


def test_outcome_that_stdout_does_not_take_is_undone(invoke, emulator, rows, monkeypatch):
    def refuse(record):
        raise click.exceptions.Exit(1)

    monkeypatch.setattr(_job, "write_json", refuse)
    result = create(invoke, rows(1), output=None)
    assert result.exit_code == 1
    assert "1 row: 1 cancelled. 1 attempt in " in result.stderr
    assert not active(emulator)


def test_signal_before_the_work_starts_cancels_it():
    assert not _job.Interruptible(SimpleNamespace()).interrupt(signal.SIGINT)


def test_reader_of_stdout_that_goes_leaves_no_session(start, emulator, rows):
    name = rows(2000)  # more than a pipe holds: some are left to write when the reader has gone
    process = start("bulk", "create", name, "--concurrency", "2")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(PATIENCE) == 1
    errors = process.stderr.read()
    process.stdout = None
    cancelled = errors.count("was created, but could not be written, and was cancelled")
    assert cancelled == len(emulator.sessions) - len(active(emulator)) > 0
    assert f"{len(active(emulator)):,} created, {cancelled} cancelled." in errors


def test_an_output_that_cannot_be_written_is_told_before_anything_is_sent(
    invoke, emulator, rows, monkeypatch
):
    def refuse(*args):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    name = rows(1)
    monkeypatch.setattr(os, "open", refuse)
    result = create(invoke, name)
    assert result.exit_code == 1
    assert result.stderr == "Error: cannot open out.jsonl: Read-only file system\n"
    assert emulator.requests.total == 0


def test_the_journal_is_brought_to_the_disk_while_the_run_goes_on(
    invoke, emulator, rows, monkeypatch
):
    synced = threading.Event()
    real = os.fsync

    def fsync(descriptor):
        if threading.current_thread() is not threading.main_thread():
            synced.set()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(_job, "SYNC_INTERVAL", 0.001)
    emulator.fail(times=None, delay=0.001)
    while not synced.is_set():  # the machine may be busy: once more
        OUT.unlink(missing_ok=True)
        assert create(invoke, rows(20), "--concurrency", "1").exit_code == 0


@pytest.mark.parametrize("options", [[], ["--limit", "5"]])
def test_now_and_then_it_says_how_it_goes(invoke, emulator, rows, monkeypatch, options):
    monkeypatch.setattr(_progress, "LINE_INTERVAL", 0.001)
    emulator.fail(times=None, delay=0.001)
    said = None
    while said is None:  # the machine may be busy: once more
        OUT.unlink(missing_ok=True)
        result = create(invoke, rows(9), "--concurrency", "1", *options)
        assert result.exit_code == 0
        said = re.search(
            r"^\d/~?[59] rows, \d+%, \d created, 1 in flight, \d+/s", result.stderr, re.MULTILINE
        )


def test_what_does_not_reach_the_disk_ends_the_run(invoke, emulator, rows, monkeypatch):
    name = rows(1)
    create(invoke, name)

    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    result = resume(invoke, name)
    assert result.exit_code == 1
    assert result.stderr.endswith("Error: cannot write out.jsonl: Input/output error\n")


# Ctrl-C, and what keeps waiting; test_bulk_interrupted.py has the rest


@pytest.fixture
def ctrl_c_at(monkeypatch):
    """Press Ctrl-C so many times when a record is written, by its number."""

    def at(record, times):
        real, number = os.write, iter(range(10**6))

        def write(descriptor, data):
            if bytes(data).startswith(b'{"record"') and next(number) == record:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
            return real(descriptor, data)

        monkeypatch.setattr(os, "write", write)

    return at


def test_ctrl_c_finishes_what_is_in_flight(invoke, emulator, rows, ctrl_c_at):
    name = rows(9)
    ctrl_c_at(5, times=1)
    result = create(invoke, name, "--concurrency", "2")
    assert result.exit_code == 130
    assert "Interrupted by SIGINT: finishing the rows in flight." in result.stderr
    assert commands_in(result)[-1][-1] == "--resume"
    assert set(kinds()) == {"created"}
    assert len(kinds()) == len(emulator.sessions) < 9


def test_an_interrupted_run_leaves_its_rejected_rows_to_the_one_that_resumes_it(
    invoke, emulator, rows, ctrl_c_at
):
    name = rows(9)
    emulator.fail(status=400)
    ctrl_c_at(3, times=1)
    result = create(invoke, name, "--concurrency", "1")
    assert "1 rejected" in result.stderr
    assert "1 row rejected." in invoke(*commands_in(result)[-1]).stderr


def test_a_second_ctrl_c_stops_at_once(invoke, emulator, rows, ctrl_c_at):
    name = rows(9)
    emulator.fail(times=None, delay=math.inf)
    ctrl_c_at(2, times=2)
    result = create(invoke, name, "--timeout", "3600", "--concurrency", "2")
    assert result.exit_code == 130
    assert result.stderr.endswith("\nInterrupted.\n")
    assert set(kinds()) <= {"unknown", "not_attempted"}
    assert len(kinds()) == 2


@pytest.mark.unmeasured
def test_ctrl_c_is_heard_while_stdin_has_nothing_to_say(start, emulator, folder):
    process = start("bulk", "create", "-", "-o", "out.jsonl", stdin=subprocess.PIPE)
    process.stdin.write(ROWS.format(0) + ROWS.format(1))
    process.stdin.flush()
    emulator.wait_until(lambda: len(emulator.sessions) == 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert kinds() == ["created"] * 2
    assert "2 rows: 2 created." in process.stderr.read()


def test_others_have_their_turn_while_a_million_rows_are_skipped(
    invoke, emulator, rows, monkeypatch
):
    create(invoke, rows(30))
    turns = []
    real = asyncio.sleep

    async def sleep(seconds):
        turns.append(seconds)
        await real(seconds)

    monkeypatch.setattr(_job, "ROWS_PER_TURN", 10)
    monkeypatch.setattr(_job.asyncio, "sleep", sleep)
    resume(invoke, "rows.jsonl")
    assert turns.count(0) >= 3
