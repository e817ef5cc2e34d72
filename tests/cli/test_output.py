"""What is shown, where and how."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys

import click
import pytest

from chatkit_async import ChatSession
from chatkit_async.cli._output import (
    Page,
    columns,
    masked,
    note,
    printable_lines,
    session_data,
    session_fields,
    write,
    write_json,
)

SECRET = "ek_0123456789abcdef0123456789abcdef"
SESSION = ChatSession.from_dict(
    {
        "id": "cksess_123",
        "status": "active",
        "user": "user_123",
        "workflow": {"id": "wf_123", "version": None},
        "expires_at": 1_800_000_000,
        "client_secret": SECRET,
        "hint": f"also {SECRET}",
    }
)


def test_data_goes_to_stdout_and_notes_to_stderr(capsys):
    write("data\n")
    note("a note")
    assert capsys.readouterr() == ("data\n", "a note\n")


def test_json_is_one_line_of_ascii(capsys):
    write_json({"user": "Łucja", "lone": "\ud800"})
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert shown.count("\n") == 1
    assert json.loads(shown) == {"user": "Łucja", "lone": "\ud800"}


@pytest.mark.parametrize("code", [errno.EPIPE, errno.EINVAL, errno.ENOSPC, None])
def test_failed_write_is_an_error_on_stdout_alone(monkeypatch, tmp_path, code):
    def fail(*args, **kwargs):
        raise OSError(code, "No space left on device")

    monkeypatch.setattr(click, "echo", fail)
    for name in ("stdout", "stderr"):
        with (tmp_path / name).open("w") as stream:
            monkeypatch.setattr(sys, name, None if code is None else stream)
            expected = contextlib.nullcontext()
            if name == "stdout":
                expected = pytest.raises((click.exceptions.Exit, click.ClickException))
            with expected as end:
                write("data", err=name == "stderr")
            stream.write("what was left")
        if name == "stdout":
            said = {errno.ENOSPC: "No space left on device", None: "standard output is closed"}
            assert end.value.exit_code == 1
            assert said.get(code, "") in str(end.value)
        if code == errno.EPIPE:
            assert (tmp_path / name).read_text() == ""


def test_what_would_steer_a_terminal_is_shown_as_its_code():
    assert printable_lines("a\x1b[2Jb\r\n\u202ec") == "a\\x1b[2Jb\\r\n\\u202ec"


@pytest.mark.parametrize(
    ("credential", "shown"),
    [
        ("sk-0123456789abcdef0123", "sk-**********0123"),
        ("sk-proj-0123456789abcdef0123", "sk-proj-**********0123"),
        (SECRET, "ek_**********cdef"),
        ("0123456789abcdef0123", "**********0123"),
        ("sk-short", "sk-**********"),
        ("", "**********"),
    ],
)
def test_a_credential_is_shown_by_its_kind_and_its_end(credential, shown):
    assert masked(credential) == shown


def test_a_sessions_secret_is_masked_wherever_it_is():
    data = session_data(SESSION, show_secret=False)
    assert data["client_secret"] == "**********"
    assert data["hint"] == "also **********"
    assert data["user"] == "user_123"
    assert dict(session_fields(SESSION, show_secret=False))["client_secret"] == "**********"


def test_a_sessions_secret_is_shown_when_asked_for():
    assert session_data(SESSION, show_secret=True) == SESSION.to_dict()
    assert dict(session_fields(SESSION, show_secret=True))["client_secret"] == SECRET


def test_a_sessions_fields_are_the_ones_people_look_for():
    assert session_fields(SESSION, show_secret=False)[:5] == [
        ("id", "cksess_123"),
        ("status", "active"),
        ("user", "user_123"),
        ("workflow", "wf_123"),
        ("expires", "2027-01-15 08:00:00 UTC"),
    ]


@pytest.mark.parametrize("data", [{}, {"id": 5, "workflow": {}, "expires_at": 10**30}])
def test_fields_that_a_reply_lacks_or_bends_are_left_out(data):
    assert session_fields(ChatSession.from_dict(data), show_secret=True) == []


# Pages


class Terminal:
    """A stream that says it is a terminal, and keeps what is written."""

    encoding = "utf-8"
    errors = "strict"

    def __init__(self):
        self.shown = ""

    def isatty(self):
        return True

    def write(self, text):
        self.shown += text

    def flush(self):
        pass


@pytest.fixture
def terminal(monkeypatch):
    """Put a terminal of 40 columns on stdout."""

    def terminal():
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)  # pytest puts its own there for each phase
        return terminal

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    return terminal


def fill(page):
    page.heading("A heading")
    page.prose("Twelve words that would not fit on a line of forty columns.", indent=3)
    page.code("session = await client.sessions.create(user='user_123')\n\ndone()")
    page.item("ok", "green", "name: " + "word " * 12)
    page.fields([("id", "cksess_" + "0" * 40), ("status", "active")], indent=0)


def test_on_a_terminal_there_are_colours(terminal):
    stdout = terminal()
    fill(Page())
    assert "\x1b[1mA heading\x1b[0m" in stdout.shown
    assert "\x1b[36m" in stdout.shown
    assert "\x1b[32mok       \x1b[0mname: " in stdout.shown


def test_with_no_color_there_are_none(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    stdout = terminal()
    fill(Page())
    assert "\x1b" not in stdout.shown


def test_on_a_dumb_terminal_there_are_none(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stdout = terminal()
    fill(Page())
    assert "\x1b" not in stdout.shown


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_can_be_forced_elsewhere(capsys, monkeypatch, no_color):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": no_color}.items():
        monkeypatch.setenv(name, value)
    fill(Page())
    assert ("\x1b[1mA heading\x1b[0m" in capsys.readouterr().out) is not bool(no_color)


@pytest.mark.parametrize(
    ("size", "width"),
    [(os.terminal_size((123, 40)), 123), (os.terminal_size((0, 0)), 80), (None, 80)],
)
def test_width_is_that_of_the_stream(terminal, monkeypatch, size, width):
    def get_terminal_size(descriptor):
        assert descriptor == 7
        if size is None:
            raise OSError
        return size

    stream = terminal()
    stream.fileno = lambda: 7
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr(os, "get_terminal_size", get_terminal_size)
    assert columns(stream) == width


def test_prose_wraps_and_code_and_values_do_not(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    stdout = terminal()
    fill(Page())
    assert stdout.shown == (
        "\n"
        "A heading\n"
        "   Twelve words that would not fit on a\n"
        "   line of forty columns.\n"
        "\n"
        " session = await client.sessions.create(user='user_123')\n"
        "\n"
        " done()\n"
        "\n"
        "ok       name: word word word word word\n"
        "         word word word word word word\n"
        "         word\n"
        "id      cksess_0000000000000000000000000000000000000000\n"
        "status  active\n"
    )


def test_a_wide_terminal_has_room_to_indent(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stdout = terminal()
    Page().code("done()")
    assert "   done()" in stdout.shown


def test_a_wide_terminals_prose_stays_readable(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    stdout = terminal()
    Page().prose("word " * 50)
    assert max(map(len, stdout.shown.splitlines())) <= 80


def test_a_page_can_go_to_stderr(capsys):
    Page(err=True).heading("Aside")
    assert capsys.readouterr() == ("", "\nAside\n")


def test_no_fields_are_nothing(capsys):
    Page().fields([])
    assert capsys.readouterr().out == ""


def test_markup_in_a_value_is_just_text(capsys):
    Page().fields([("user", "[bold]me[/bold] :smile:")], indent=0)
    assert capsys.readouterr().out == "user  [bold]me[/bold] :smile:\n"
