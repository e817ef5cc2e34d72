"""`create` and `cancel`."""

from __future__ import annotations

import errno
import json
import os

import click
import pytest
from patience import PATIENCE

CREATE = ["create", "--user", "user_123", "--workflow", "wf_123"]


@pytest.fixture
def sent(emulator):
    """The body of the last request."""
    return lambda: emulator.requests[-1].body


def the_session(emulator):
    (session,) = emulator.sessions.values()
    return session


# create


def test_create_prints_the_session_with_its_secret_masked(invoke, emulator):
    result = invoke(*CREATE)
    session = the_session(emulator)
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["id"] == session.id
    assert lines["status"] == "active"
    assert lines["user"] == "user_123"
    assert lines["workflow"] == "wf_123"
    assert lines["client_secret"] == "**********"
    assert session.client_secret not in result.stdout + result.stderr
    assert result.stderr == "The client secret is masked: --show-secret prints it.\n"


def test_show_secret_prints_it_on_stdout_alone(invoke, emulator):
    result = invoke(*CREATE, "--show-secret")
    assert f"client_secret  {the_session(emulator).client_secret}\n" in result.stdout
    assert result.stderr == ""


def test_json_is_what_the_api_sent(invoke, emulator):
    result = invoke(*CREATE, "--json", "--show-secret")
    data = json.loads(result.stdout)
    assert data["id"] == the_session(emulator).id
    assert data["client_secret"] == the_session(emulator).client_secret
    assert data["chatkit_configuration"]["file_upload"]["max_file_size"] == 512


def test_json_is_masked_too(invoke, emulator):
    result = invoke(*CREATE, "--json")
    assert json.loads(result.stdout)["client_secret"] == "**********"
    assert the_session(emulator).client_secret not in result.output


def test_what_is_not_given_is_not_sent(invoke, sent):
    invoke(*CREATE)
    assert sent() == {"user": "user_123", "workflow": {"id": "wf_123"}}


def test_every_option_is_sent(invoke, sent):
    result = invoke(
        *CREATE,
        "--workflow-version=3",
        "--state-variable=plan=pro=max",
        "--state-variable=seats:=3",
        "--state-variable=ratio:=0.5",
        "--state-variable=trial:=false",
        "--state-variable=note=",
        "--no-tracing",
        "--expires-after=300",
        "--rate-limit=5",
        "--no-thread-titles",
        "--file-upload",
        "--max-file-size=16",
        "--max-files=2",
        "--history",
        "--recent-threads=7",
    )
    assert result.exit_code == 0
    assert sent() == {
        "user": "user_123",
        "workflow": {
            "id": "wf_123",
            "version": "3",
            "state_variables": {
                "plan": "pro=max",
                "seats": 3,
                "ratio": 0.5,
                "trial": False,
                "note": "",
            },
            "tracing": {"enabled": False},
        },
        "chatkit_configuration": {
            "automatic_thread_titling": {"enabled": False},
            "file_upload": {"enabled": True, "max_file_size": 16, "max_files": 2},
            "history": {"enabled": True, "recent_threads": 7},
        },
        "expires_after": {"anchor": "created_at", "seconds": 300},
        "rate_limits": {"max_requests_per_1_minute": 5},
    }


@pytest.mark.parametrize(
    ("option", "section"),
    [
        ("--thread-titles", {"automatic_thread_titling": {"enabled": True}}),
        ("--no-file-upload", {"file_upload": {"enabled": False}}),
        ("--max-files=3", {"file_upload": {"max_files": 3}}),
        ("--no-history", {"history": {"enabled": False}}),
        ("--recent-threads=3", {"history": {"recent_threads": 3}}),
    ],
)
def test_one_part_of_the_configuration_is_sent_alone(invoke, sent, option, section):
    invoke(*CREATE, option)
    assert sent()["chatkit_configuration"] == section


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("plan", "'plan' should be NAME=TEXT, or NAME:=NUMBER."),
        ("=pro", "'=pro' should be NAME=TEXT, or NAME:=NUMBER."),
        (":=1", "':=1' should be NAME=TEXT, or NAME:=NUMBER."),
        ("n:=pro", "the value of 'n' must be a number, true or false, got 'pro'."),
        ('n:="3"', "must be a number, true or false, got "),
        ("n:=null", "the value of 'n' must be a number, true or false, got 'null'."),
        ("n:=" + "[" * 100_000, "must be a number, true or false, got "),
    ],
)
def test_a_state_variable_that_cannot_be_read_is_wrong_usage(invoke, emulator, given, said):
    result = invoke(*CREATE, "--state-variable", given)
    assert result.exit_code == 2
    assert said in result.stderr
    assert emulator.requests.total == 0


def test_a_state_variable_given_twice_is_wrong_usage(invoke, emulator):
    result = invoke(*CREATE, "--state-variable=a=1", "--state-variable=a:=1")
    assert result.exit_code == 2
    assert "'a' is given twice." in result.stderr


def test_every_problem_is_told_at_once_and_nothing_is_sent(invoke, emulator):
    result = invoke("create", "--user= ", "--workflow=w", "--rate-limit=0", "--max-files=-1")
    assert result.exit_code == 2
    for path in ("user: ", "rate_limits", "max_files"):
        assert path in result.stderr
    assert "Traceback" not in result.stderr
    assert emulator.requests.total == 0


def test_the_latest_version_is_warned_of(invoke, emulator):
    result = invoke(*CREATE, "--workflow-version=latest")
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: workflow.version='latest' is accepted by the API")
    assert ".py:" not in result.stderr


def test_without_a_key_it_says_so(invoke, emulator, environment):
    environment.delenv("OPENAI_API_KEY")
    result = invoke(*CREATE)
    assert result.exit_code == 4
    assert result.stdout == ""
    assert result.stderr.startswith("Error: OPENAI_API_KEY: is not set")


@pytest.mark.parametrize(("status", "code"), [(401, 4), (403, 4), (404, 1), (400, 1)])
def test_what_the_api_refuses_is_one_paragraph(invoke, emulator, status, code):
    emulator.fail(status=status)
    result = invoke(*CREATE)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: the API replied {status} to POST /chatkit/sessions")
    assert result.stderr.count("\n") == 1


def test_a_reply_off_the_schema_still_gives_its_secret(invoke, emulator):
    emulator.fail(off_schema=True)
    result = invoke(*CREATE, "--json", "--show-secret")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["client_secret"]


def test_a_reply_without_a_secret_speaks_of_none(invoke, emulator):
    emulator.fail(body={"id": "cksess_1"})
    result = invoke(*CREATE)
    assert (result.stdout, result.stderr) == ("id  cksess_1\n", "")


@pytest.mark.parametrize("options", [[], ["--json", "--show-secret"]], ids=repr)
def test_a_session_that_cannot_be_shown_is_told_of(invoke, emulator, monkeypatch, options):
    echo = click.echo

    def full(text, *, err, **more):
        if not err:
            raise OSError(errno.ENOSPC, "No space left on device")
        echo(text, err=err, **more)

    monkeypatch.setattr(click, "echo", full)
    result = invoke(*CREATE, *options)
    assert result.exit_code == 1
    note, error = result.stderr.splitlines()
    assert note == f"{the_session(emulator).id} was created, and expires on its own."
    assert error == "Error: cannot write to standard output: No space left on device"


@pytest.mark.unmeasured
def test_a_session_that_nobody_reads_of_is_told_of(start, emulator):
    reader, writer = os.pipe()
    os.close(reader)
    process = start(*CREATE, stdout=writer)
    os.close(writer)
    _, notes = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert notes == f"{the_session(emulator).id} was created, and expires on its own.\n"


def test_a_key_that_comes_back_in_a_field_is_masked(invoke, emulator, environment):
    environment.setenv("OPENAI_API_KEY", key := "not-like-a-key-of-the-api")
    emulator.fail(body={"id": (given := f"cksess_{key}"), "status": key}, times=None)
    for command in CREATE, [*CREATE, "--json"], ["cancel", given]:
        result = invoke(*command)
        assert result.exit_code == 0
        assert "**********" in result.stdout
        assert key not in result.output


# cancel


@pytest.fixture
def created(invoke, emulator):
    """The ids of three sessions."""
    for _ in range(3):
        invoke(*CREATE)
    return list(emulator.sessions)


def test_cancel_prints_each_id_and_its_status(invoke, emulator, created):
    result = invoke("cancel", *created)
    assert result.exit_code == 0
    assert result.stdout == "".join(f"{one}  cancelled\n" for one in created)
    assert {emulator.sessions[one].status for one in created} == {"cancelled"}


def test_cancel_prints_json_one_object_per_line_without_secrets(invoke, created):
    result = invoke("cancel", "--json", *created)
    sessions = [json.loads(line) for line in result.stdout.splitlines()]
    assert [session["id"] for session in sessions] == created
    assert {session["client_secret"] for session in sessions} == {"**********"}


def test_cancel_tries_every_id_and_names_those_that_failed(invoke, emulator, created):
    result = invoke("cancel", created[0], "cksess_none", created[2])
    assert result.exit_code == 1
    assert result.stdout == f"{created[0]}  cancelled\n{created[2]}  cancelled\n"
    assert result.stderr.startswith("Error: cksess_none: the API replied 404")


def test_an_id_that_cannot_be_is_wrong_usage(invoke, emulator):
    result = invoke("cancel", "..")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ..: session_id: ")


def test_a_refused_key_counts_for_more_than_a_session_that_is_not_there(invoke, emulator):
    emulator.fail(status=401)
    assert invoke("cancel", "cksess_a", "cksess_b").exit_code == 4


def test_a_reply_without_a_status_is_still_an_answer(invoke, emulator):
    emulator.fail(body={})
    assert invoke("cancel", "cksess_a").stdout == "cksess_a  without a status\n"


def test_cancel_needs_an_id(invoke, emulator):
    assert invoke("cancel").exit_code == 2
