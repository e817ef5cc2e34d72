"""A bulk run that is killed or interrupted, at each step of its journal, and resumed."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
import shlex
from collections import Counter

import pytest

from chatkit_async.cli._journal import Header, Journal, State
from chatkit_async.emulator import Emulator

ROWS = 8
STEPS = 1 + 2 * ROWS  # the header, and an intent and an outcome of each row

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.unmeasured,
]


@pytest.fixture
def emulator():
    """An emulator on a thread."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def command(forks, emulator, tmp_path):
    """Run `bulk create` in a fork; returns its exit code and what it printed."""

    def command(*options, concurrency=2, **at):
        code = forks(
            *("bulk", "create", str(tmp_path / "rows.jsonl")),
            *("-o", str(tmp_path / "out.jsonl"), f"--concurrency={concurrency}", *options),
            output=tmp_path / "printed",
            emulator=emulator,
            at=at,
        )
        return code, (tmp_path / "printed").read_text("utf-8")

    return command


@pytest.fixture
def rows(tmp_path):
    def rows(number):
        path = tmp_path / "rows.jsonl"
        with path.open("w") as file:
            for index in range(number):
                file.write(f'{{"user": "user_{index}", "workflow": "wf_1"}}\n')
        return path

    return rows


def lines(path):
    """The records of a journal, without one that is torn."""
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def states(path):
    """Where each row is, by the journal: as whoever resumes it reads it."""
    header = next(iter(lines(path)))
    with Journal(
        path,
        Header(command="bulk create", base_url=header["base_url"], input="", defaults=None),
        resume=True,
    ) as journal:
        history = journal.history
        return [history.state(index) for index in range(len(history))]


def sessions_by_row(emulator, number):
    users = Counter(session.user for session in emulator.sessions.values())
    return [users[f"user_{index}"] for index in range(number)]


def moments(first, *when):
    """The moments of each step from one on."""
    return [f"{moment}_{step}" for step in range(first, STEPS + 1) for moment in when]


@pytest.mark.sweep(every=5)
@pytest.mark.parametrize("moment", moments(1, "before", "during", "after"))
def test_killed_at_any_step_it_resumes_to_the_end_of_an_undisturbed_run(
    command, emulator, rows, tmp_path, moment
):
    rows(ROWS)
    path = tmp_path / "out.jsonl"
    code, _ = command(**{moment: ["SIGKILL"]})
    assert code == -9
    records = list(lines(path))
    outcomes = {record["index"] for record in records if record["record"] == "outcome"}
    in_flight = {record["index"] for record in records if record["record"] == "intent"} - outcomes
    code, printed = command("--resume")
    # Without being told to it sends nothing twice, and says what it does not know.
    came_to = f"{ROWS} rows: {ROWS - len(in_flight)} created"
    came_to += f", {len(in_flight)} unknown." if in_flight else "."
    assert came_to.replace(" 0 created,", "") in printed
    assert code == (3 if in_flight else 0)
    assert all(number <= 1 for number in sessions_by_row(emulator, ROWS))
    code, printed = command("--resume", "--retry-unknown")
    assert code == 0, printed
    assert states(path) == [State.DONE] * ROWS
    # A session that nobody holds is of a row that was in flight.
    for index, number in enumerate(sessions_by_row(emulator, ROWS)):
        assert number == 1 or (number == 2 and index in in_flight)


@pytest.mark.sweep(every=4)
@pytest.mark.parametrize("first", range(1, STEPS, 6))
@pytest.mark.parametrize("second", range(1, STEPS, 6))
def test_killed_twice_it_resumes_all_the_same(command, rows, tmp_path, first, second):
    rows(ROWS)
    command(**{f"during_{first}": ["SIGKILL"]})
    command("--resume", "--retry-unknown", **{f"during_{second}": ["SIGKILL"]})
    assert command("--resume", "--retry-unknown")[0] == 0
    assert states(tmp_path / "out.jsonl") == [State.DONE] * ROWS


# A shell that loses its terminal, and `timeout`, send their signals twice.
DRAINS = [(["SIGINT"], 130), (["SIGTERM", "SIGTERM"], 143), (["SIGHUP", "SIGTERM"], 129)]


@pytest.mark.sweep(every=4)
@pytest.mark.parametrize(
    ("moment", "drain"),
    [
        (moment, drain)
        for moment, drain in zip(
            [*moments(2, "before"), *moments(2, "after")[::4]], itertools.cycle(DRAINS)
        )
    ],
)
def test_signal_at_any_step_loses_nothing(command, emulator, rows, moment, drain):
    signals, exit_code = drain
    path = rows(ROWS).with_name("out.jsonl")
    code, printed = command(**{moment: signals})
    assert code == exit_code, printed
    assert f"Interrupted by {signals[0]}: finishing the rows in flight." in printed
    found = states(path)
    assert State.SENT not in found
    assert State.UNKNOWN not in found
    assert found.count(State.DONE) == len(emulator.sessions)
    code, printed = command("--resume")
    assert code == 0, printed
    assert states(path) == [State.DONE] * ROWS
    assert sessions_by_row(emulator, ROWS) == [1] * ROWS


@pytest.mark.parametrize("deed", ["unlink", "truncate"])
@pytest.mark.parametrize("step", [2, STEPS])
def test_damaged_journal_ends_the_run(command, emulator, rows, deed, step):
    said = {"unlink": "deleted", "truncate": "changed by another program"}[deed]
    path = rows(ROWS).with_name("out.jsonl")
    code, printed = command(**{f"after_{step}": [deed]})
    assert code == 1
    assert f"Error: cannot write {path}: it was {said} during the run" in printed
    if step == 2:
        assert all(session.status == "cancelled" for session in emulator.sessions.values())


@pytest.mark.sweep(every=3)
@pytest.mark.parametrize("step", range(2, 2 + ROWS))
def test_a_second_ctrl_c_stops_at_once_and_every_row_is_accounted_for(
    command, emulator, rows, tmp_path, step
):
    rows(ROWS)
    path = tmp_path / "out.jsonl"
    emulator.fail(times=None, delay=math.inf)  # what is in flight has no end but this one
    both = {f"after_{step}": ["SIGINT", "SIGINT"]}
    code, printed = command("--timeout=3600", concurrency=ROWS, **both)
    assert code == 130, printed
    assert "Interrupted by SIGINT: finishing the rows in flight." in printed
    found = states(path)
    assert set(found) <= {State.UNKNOWN, State.OPEN}
    emulator.clear_faults()
    code, printed = command("--resume", "--retry-unknown")
    assert code == 0, printed
    assert states(path) == [State.DONE] * ROWS
    held = [record["session"]["id"] for record in lines(path) if record.get("kind") == "created"]
    assert len(set(held)) == ROWS
    assert len(emulator.sessions) <= ROWS + found.count(State.UNKNOWN)


@pytest.mark.parametrize(
    ("name", "ended"), [("SIGINT", (130, "\nInterrupted.\n")), ("SIGTERM", (143, ""))]
)
def test_signal_before_the_first_record_ends_the_run(command, emulator, rows, name, ended):
    rows(ROWS)
    assert command(before_1=[name]) == ended
    assert not emulator.sessions
    assert command("--resume")[0] == 0


def save_sheet(path, number, **cells):
    """Write rows as a spreadsheet saves them: with its own columns, and empty ones at the end."""
    lines = ["sep=;", "User ID;State_Variables.Plan; EXPIRES_AFTER;Notes;;"]
    for index in range(number):
        note = f'"says ""{index};""\nand more"' if index % 50 == 0 else ""
        cell = cells.get(f"row_{index}", "300" if index % 2 else "")
        lines.append(f"user_{index};{'#N/A' if index == 5 else ' pro'};{cell};{note};;")
    lines += [";;;;;"] * 100
    path.write_bytes("\r\n".join(lines).encode("utf-16"))


@pytest.mark.sweep(every=2)
@pytest.mark.parametrize("number", [3000, 20_000])
def test_sheet_is_created_with_the_commands_printed(forks, emulator, tmp_path, number):
    sheet, shown = tmp_path / "users.csv", tmp_path / "printed"
    command = ["bulk", "create", "users.csv", "--workflow", "wf_1", "--dry-run"]

    def run(code, *said, at=None):
        """Run the command, and make the last one that it prints the next."""
        nonlocal command
        assert forks(*command, output=shown, emulator=emulator, at=at) == code, shown.read_text()
        printed = shown.read_text()
        for text in said:
            assert text in printed
        for line in re.findall("chatkit-async (bulk create .*)", printed):
            command = shlex.split(line)

    save_sheet(sheet, number, row_7="soon", row_8="601")
    run(2, "line 2: unknown column 'User ID', did you mean 'user'?; unknown column 'Notes'\n")
    run(
        2,
        "expires_after.seconds: must be a whole number, got 'soon': line 11\n",
        f"Plan: has spaces around it: {number - 1:,} rows, first on line 3; remove them",
        "Plan: is an error value of a spreadsheet: line 9; correct the formula",
        f"\n{number:,} rows, 1 of them wrong. Nothing was sent.\n",
    )
    save_sheet(sheet, number, row_8="601")
    run(0, f"\n{number:,} rows, 0 of them wrong. Nothing was sent.\nTo send: ")
    run(130, "To continue this run:\n", at={f"after_{number * 3 // 4}": ["SIGINT"]})
    assert 0.35 * number <= len(emulator.sessions) < 0.75 * number
    run(143, "To continue this run:\n", at={f"after_{number * 13 // 20}": ["SIGTERM"]})
    assert len(emulator.sessions) < number - 1
    run(3, f"{number:,} rows: {number - 1:,} created, 1 rejected.", "After correcting the input:\n")
    save_sheet(sheet, number)
    run(0, f"{number:,} rows: {number:,} created.")
    assert sessions_by_row(emulator, number) == [1] * number
    records = lines(tmp_path / "users.out.jsonl")
    held = {record["session"]["id"] for record in records if record.get("kind") == "created"}
    assert held == set(emulator.sessions)
