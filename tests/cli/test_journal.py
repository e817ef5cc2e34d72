"""The journal: what is written when, what is read from it, and what damage it takes."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import SESSION

from chatkit_async import ChatKitError, ChatSession, ParameterError, RateLimitError
from chatkit_async.bulk import Outcome
from chatkit_async.cli import _line_file
from chatkit_async.cli._journal import Header, History, Journal, State
from chatkit_async.cli._line_file import LineFileError, lock
from chatkit_async.cli._rows import Row

HEADER = Header(command="bulk create", base_url="http://127.0.0.1/v1", input="a.csv", defaults=7)
CREATED = ChatSession.from_dict(SESSION)
OVER = ChatSession.from_dict({**SESSION, "expires_at": 1})


def row(index=0, fingerprint=None, value=None):
    fingerprint = 2**64 - 1 - index if fingerprint is None else fingerprint
    value = {"user": f"user_{index}"} if value is None else value
    made = Row(index + 2, value, index=index)
    object.__setattr__(made, "fingerprint", fingerprint)  # as if it were calculated
    return made


def outcome(kind="created", *, session=None, error=None):
    return Outcome(
        index=0, row=None, kind=kind, value=session, error=error, attempts=1, lost=0, elapsed=0.5
    )


def opened(path, header=HEADER, *, resume=True):
    return Journal(path, header, resume=resume)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.jsonl"


def records(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def states(path):
    with opened(path) as journal:
        history = journal.history
        return [history.state(index) for index in range(len(history))]


# Writing


def test_it_begins_with_a_header_that_says_what_run_it_is_of(path):
    with opened(path, resume=False):
        pass
    (header,) = records(path)
    assert header.pop("started").endswith("+00:00")
    assert re.fullmatch(r"\d+\.\d+.*", header.pop("version"))
    assert header == {
        "record": "header",
        "format": 1,
        "command": "bulk create",
        "base_url": "http://127.0.0.1/v1",
        "input": "a.csv",
        "defaults": "0000000000000007",
    }


def test_an_intent_and_an_outcome_are_in_the_file_at_once(path):
    with opened(path) as journal:
        journal.intent(row(0))
        assert records(path)[1:] == [
            {"record": "intent", "index": 0, "line": 2, "fingerprint": "ffffffffffffffff"}
        ]
        journal.outcome(row(0), outcome(session=CREATED))
        record = records(path)[2]
    assert record.pop("at") > 1.7e9
    assert record == {
        "record": "outcome",
        "index": 0,
        "line": 2,
        "fingerprint": "ffffffffffffffff",
        "kind": "created",
        "user": "user_0",
        "session": SESSION,
        "attempts": 1,
        "lost": 0,
        "elapsed": 0.5,
    }


@pytest.mark.parametrize(
    ("error", "record"),
    [
        (ChatKitError("no"), {"type": "ChatKitError", "message": "no"}),
        (
            ParameterError([("user", "is required")]),
            {
                "type": "ParameterError",
                "message": "user: is required",
                "problems": [["user", "is required"]],
            },
        ),
        (
            RateLimitError("no", status_code=429, code="insufficient_quota", request_id="req_1"),
            {
                "type": "RateLimitError",
                "message": "no",
                "status_code": 429,
                "code": "insufficient_quota",
                "request_id": "req_1",
            },
        ),
    ],
)
def test_an_outcome_says_why_there_is_no_session(path, error, record):
    with opened(path) as journal:
        journal.outcome(row(), outcome("rejected", error=error))
    assert records(path)[1]["error"] == record
    assert "session" not in records(path)[1]


def test_of_a_cancellation_it_has_the_id_and_no_secret(path):
    with Journal(path, HEADER, resume=False, show_secret=False) as journal:
        journal.outcome(row(value="cksess_123"), outcome("cancelled", session=CREATED))
    assert records(path)[1]["session_id"] == "cksess_123"
    assert records(path)[1]["session"]["client_secret"] == "**********"
    assert "ek_" not in path.read_text()


def test_only_its_owner_can_read_it(path):
    previous = os.umask(0)
    try:
        opened(path, resume=False).close()
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_one_that_others_can_read_is_tightened_with_a_warning(path, capsys):
    opened(path).close()
    path.chmod(0o644)
    opened(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert capsys.readouterr().err == f"Warning: others could read {path}; now only you can.\n"


@pytest.mark.skipif(os.name != "posix", reason="files have no owner's number there")
@pytest.mark.parametrize("content", [b"", b"kept"])
def test_one_of_another_user_is_not_resumed(path, content, monkeypatch):
    path.write_bytes(content)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(LineFileError, match="belongs to another user"):
        opened(path)
    assert path.read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="files have no owner's number there")
def test_a_new_one_may_get_another_owner(path, monkeypatch):
    # Some network mounts decide it by themselves.
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    opened(path, resume=False).close()
    assert path.read_bytes()


def test_one_that_cannot_be_tightened_is_not_used(path, monkeypatch):
    opened(path).close()
    path.chmod(0o644)
    monkeypatch.setattr(os, "fchmod", failing(errno.EPERM))
    with pytest.raises(LineFileError, match=r"cannot use .*: Operation not permitted"):
        opened(path)


# Opening


def test_one_that_is_there_is_not_written_over(path):
    path.write_bytes(b"precious")
    with pytest.raises(click.UsageError, match=r"already exists\. Use --resume to continue"):
        opened(path, resume=False)
    assert path.read_bytes() == b"precious"


def test_resuming_what_is_not_there_yet_begins_it(path):
    opened(path).close()
    assert len(records(path)) == 1


@pytest.mark.parametrize("target", ["no/such/folder", "."])
def test_a_file_that_cannot_be_opened_is_told(tmp_path, target):
    with pytest.raises(LineFileError, match=r"cannot open .*: (No such file|Is a directory)"):
        opened(tmp_path / target)


def test_it_has_to_be_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LineFileError, match="is not a regular file"):
        opened(tmp_path / "pipe")


def test_a_second_run_on_the_same_journal_is_refused_while_the_first_goes_on(path):
    with opened(path) as first:
        first.intent(row())
        with pytest.raises(LineFileError, match="is in use by another run"):
            opened(path)
        first.outcome(row(), outcome())
    assert states(path) == [State.DONE]


def test_a_reader_is_refused_while_it_is_written_and_readers_are_not(path):
    with opened(path), path.open("rb") as file, pytest.raises(BlockingIOError):
        lock(file.fileno(), shared=True)
    with path.open("rb") as one, path.open("rb") as two:
        lock(one.fileno(), shared=True)
        lock(two.fileno(), shared=True)


@pytest.mark.parametrize("refusal", [None, PermissionError(13, "Permission denied")])
def test_on_windows_a_byte_behind_the_end_is_locked(monkeypatch, tmp_path, refusal):
    calls = []

    def locking(descriptor, mode, size):
        calls.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, size))
        if refusal:
            raise refusal

    msvcrt = SimpleNamespace(locking=locking, LK_NBLCK=2)
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    monkeypatch.setattr(_line_file.sys, "platform", "win32")
    with (tmp_path / "file").open("wb") as file:
        if refusal is None:
            lock(file.fileno())
        else:
            with pytest.raises(BlockingIOError):
                lock(file.fileno())
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0
    monkeypatch.undo()
    assert calls == [(0x7FFFFFFE, 2, 1)]


def test_a_folder_that_cannot_be_opened_is_left_to_the_system(path, monkeypatch):
    real = os.open

    def no_folders(target, flags, *mode):
        if Path(target).is_dir():
            raise PermissionError(13, "Permission denied")
        return real(target, flags, *mode)

    monkeypatch.setattr(os, "open", no_folders)
    opened(path).close()
    assert len(records(path)) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"command": "bulk cancel"}, "is the journal of `bulk create`: choose another file."),
        ({"base_url": "https://api.openai.com/v1"}, "is of a run against http://127.0.0.1/v1, "),
    ],
)
def test_a_run_is_resumed_as_what_it_is(path, change, said):
    import attrs

    opened(path).close()
    before = path.read_bytes()
    with pytest.raises(click.UsageError) as error:
        opened(path, attrs.evolve(HEADER, **change))
    assert said in error.value.message
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"user,workflow\nada,wf_1\n", "line 1: the line is not a JSON object"),
        (b"hello", "line 1: it does not begin with a header"),
        (b"[]\n", "line 1: the line is not a JSON object"),
        (b"{}\n", "line 1: it has no 'record'"),
        (b'{"record": "intent"}\n', "line 1: it does not begin with a header"),
        (
            b'{"record": "header", "format": 2}\n',
            "line 1: its format is 2, and this release knows 1",
        ),
        (b'{"record": "header", "format": 1}\n', "line 1: it has no 'defaults'"),
    ],
)
def test_a_file_that_is_no_journal_is_left_as_it_is(path, content, said):
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.raises(LineFileError) as error:
        opened(path)
    assert said in error.value.message
    assert "Nothing was changed." in error.value.message
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("{", "the line is not a JSON object"),
        ("\0\0\0", "the line is not a JSON object"),
        ("[" * 100_000, "the line is not a JSON object"),
        ('{"record": "intent"}', "it has no 'index'"),
        (
            '{"record": "intent", "index": true, "fingerprint": "0"}',
            "its index is not a whole number",
        ),
        ('{"record": "intent", "index": 0, "fingerprint": 5}', "can't convert non-string"),
        ('{"record": "intent", "index": 0, "fingerprint": "x"}', "invalid literal"),
        ('{"record": "intent", "index": 0, "fingerprint": "-1"}', "convert negative"),
        ('{"record": "intent", "index": 1, "fingerprint": "0"}', "the rows before it are missing"),
        ('{"record": "intent", "index": -1, "fingerprint": "0"}', "the rows before it are missing"),
        ('{"record": "note", "index": 0, "fingerprint": "0"}', "neither an intent nor an outcome"),
        ('{"record": "outcome", "index": 0, "fingerprint": "0"}', "it has no 'kind'"),
        (
            '{"record": "outcome", "index": 0, "fingerprint": "0", "kind": "made"}',
            "it is of an unknown kind",
        ),
    ],
)
def test_damage_within_is_told_by_its_line_and_nothing_is_changed(path, record, said):
    with opened(path) as journal:
        journal.intent(row())
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n" + record.encode() + b"\n", 1))
    before = path.read_bytes()
    with pytest.raises(LineFileError) as error:
        opened(path)
    assert "line 2: " in error.value.message
    assert said in error.value.message
    assert path.read_bytes() == before


# Reading


@pytest.mark.parametrize(
    ("last", "state"),
    [
        (None, State.SENT),
        (outcome(session=CREATED), State.DONE),
        (outcome(), State.DONE),
        (outcome(session=OVER), State.EXPIRED),
        (outcome(session=ChatSession.from_dict({"expires_at": "x"})), State.DONE),
        (outcome("cancelled", session=OVER), State.DONE),
        (outcome("unknown", error=ChatKitError("no")), State.UNKNOWN),
        (outcome("not_attempted", error=ChatKitError("no")), State.OPEN),
        (outcome("rejected"), State.REJECTED),
        (outcome("rejected", error=ParameterError([("a", "b")])), State.REJECTED),
        (outcome("rejected", error=RateLimitError("x", status_code=404)), State.REJECTED),
        (outcome("rejected", error=RateLimitError("x", status_code=401)), State.OPEN),
        (outcome("rejected", error=RateLimitError("x", status_code=403)), State.OPEN),
        (outcome("rejected", error=RateLimitError("x", status_code=429)), State.OPEN),
    ],
)
def test_the_last_record_of_a_row_says_where_it_is(path, last, state):
    with opened(path) as journal:
        journal.outcome(row(0), outcome("rejected"))
        journal.intent(row(0))
        if last is not None:
            journal.outcome(row(0), last)
    assert states(path) == [state]


def test_rows_are_known_by_their_fingerprints(path):
    with opened(path) as journal:
        journal.intent(row(0, 5))
        journal.intent(row(1, 6))
        journal.intent(row(1, 7))
    with opened(path) as journal:
        history = journal.history
        assert [history.is_of(row(0, 5)), history.is_of(row(0, 6)), history.is_of(row(1, 7))] == [
            True,
            False,
            True,
        ]
        assert history.state(2) is None
        assert history.counts() == {State.SENT: 2}
        assert journal.header == HEADER


def test_a_row_takes_nine_bytes():
    history = History()
    for index in range(100_000):
        history.set(index, index, State.DONE)
    held = sys.getsizeof(history._fingerprints) + sys.getsizeof(history._states)
    assert held < 9 * 100_000 * 1.2


def test_every_header_is_read_as_it_was_written():
    header = Header(command="bulk cancel", base_url="x", input="-", defaults=None)
    assert Header.decode(json.loads(header.encode())) == header


# Damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A journal, and the states of its rows after each of its bytes."""
    path = tmp_path_factory.mktemp("journal") / "whole.jsonl"
    with opened(path) as journal:
        journal.intent(row(0))
        journal.intent(row(1))
        journal.outcome(row(1), outcome(session=CREATED))
        journal.outcome(row(2), outcome("rejected", error=ParameterError([("user", "\u20ac")])))
        journal.outcome(row(0), outcome("unknown", error=ChatKitError("lost")))
        journal.intent(row(3))
    return path.read_bytes()


def known(content):
    """What is known of each row from the lines of a journal that can be read."""
    rows = {}
    for line in content.splitlines()[1:]:
        try:
            record = json.loads(line)
        except ValueError:
            break
        rows[record["index"]] = record.get("kind", "sent")
    return [rows[index] for index in sorted(rows)]


@given(data=st.data())
def test_cut_at_any_byte_it_resumes_with_what_its_whole_lines_say(tmp_path_factory, whole, data):
    cut = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.mktemp("cut") / "out.jsonl"
    path.write_bytes(whole[:cut])
    names = {
        State.SENT: "sent",
        State.DONE: "created",
        State.REJECTED: "rejected",
        State.UNKNOWN: "unknown",
    }
    with opened(path) as journal:
        length = len(journal.history)
        found = [names[journal.history.state(index)] for index in range(length)]
        journal.intent(row(length))
    assert found == known(whole[:cut])
    content = path.read_bytes()
    assert content.endswith(b"\n")
    assert all(json.loads(line) for line in content.splitlines())  # nothing torn is left
    assert content.startswith(whole[: whole.rfind(b"\n", 0, cut) + 1])  # nothing whole is lost
    assert known(content) == [*found, "sent"]


def test_the_zeros_that_a_power_failure_leaves_behind_are_taken_off(path, whole):
    path.write_bytes(whole + b"\0" * 5000)
    opened(path).close()
    assert path.read_bytes() == whole


# What cannot be written


def failing(code):
    def fail(*args):
        raise OSError(code, os.strerror(code))

    return fail


class Disk:
    """A disk with so many bytes left: what does not fit is written in part, as disks do."""

    def __init__(self, monkeypatch, room):
        self.room = room
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor, data):
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(descriptor, data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 40])
def test_on_a_full_disk_a_record_is_written_whole_or_not_at_all(path, monkeypatch, room):
    with opened(path) as journal:
        journal.intent(row(0))
        before = path.read_bytes()
        disk = Disk(monkeypatch, room)
        with pytest.raises(LineFileError, match=f"cannot write {path}: No space left on device"):
            journal.outcome(row(0), outcome(session=CREATED))
        assert path.read_bytes() == before
        disk.room = 10**6
        journal.outcome(row(0), outcome(session=CREATED))
    assert states(path) == [State.DONE]


def test_a_record_that_is_written_in_pieces_is_whole(path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    with opened(path) as journal:
        journal.intent(row(0))
    assert states(path) == [State.SENT]


def test_a_full_disk_at_the_start_leaves_nothing_that_keeps_from_resuming(path, monkeypatch):
    disk = Disk(monkeypatch, 30)
    with pytest.raises(LineFileError, match="No space left"):
        opened(path, resume=False)
    disk.room = 10**6
    opened(path).close()
    assert len(records(path)) == 1


def test_where_half_a_record_cannot_be_taken_back_no_other_follows_it(path, monkeypatch):
    journal = opened(path)
    disk = Disk(monkeypatch, 10)
    monkeypatch.setattr(os, "ftruncate", failing(errno.EIO))
    with pytest.raises(LineFileError, match="No space left"):
        journal.intent(row(0))
    disk.room = 10**6
    with pytest.raises(LineFileError, match="Input/output error"):
        journal.intent(row(0))
    with pytest.raises(LineFileError, match="Input/output error"):
        journal.close()
    monkeypatch.undo()
    assert states(path) == []


def test_what_does_not_reach_the_disk_is_told_with_the_next_record(path, monkeypatch):
    journal = opened(path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    journal.sync()
    with pytest.raises(LineFileError, match="Input/output error"):
        journal.intent(row(0))
    with pytest.raises(LineFileError, match="Input/output error"):
        journal.close()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, "it was deleted during the run"),
        (lambda path: os.truncate(path, 0), "it was changed by another program during the run"),
        (lambda path: os.truncate(path, 10**6), "it was changed by another program"),
    ],
)
def test_damage_is_told_with_the_next_record(path, damage, said):
    journal = opened(path)
    damage(path)
    for next_step in (lambda: journal.intent(row(0)), journal.close):
        with pytest.raises(LineFileError, match=f"cannot write {path}: {said}"):
            next_step()


def test_attempts_of_all_runs_are_counted(path):
    with opened(path) as journal:
        journal.outcome(row(0), outcome("rejected"))
        journal.outcome(row(0), outcome(session=CREATED))
    before = path.read_text("utf-8")
    path.write_text(before.replace('"attempts": 1', '"other": 1', 1), "utf-8")
    with opened(path) as journal:
        assert journal.history.attempts == 1


def test_bringing_it_to_the_disk_after_its_end_does_nothing(path, monkeypatch):
    journal = opened(path)
    journal.close()
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    journal.sync()


def test_a_line_that_lacks_only_its_end_is_given_one_or_the_journal_is_left(path, monkeypatch):
    with opened(path) as journal:
        journal.intent(row(0))
    path.write_bytes(path.read_bytes()[:-1])
    Disk(monkeypatch, 0)
    with pytest.raises(LineFileError, match="No space left"):
        opened(path)
    monkeypatch.undo()
    assert states(path) == [State.SENT]
