"""docs/examples/bulk_job.py."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from patience import PATIENCE

pytestmark = pytest.mark.unmeasured


def run(load, tmp_path, users):
    file = tmp_path / "users.txt"
    file.write_text("\n".join(users), encoding="utf-8")
    return asyncio.run(load("bulk_job").main(file))


def test_every_user_gets_a_session(load, emulator, tmp_path, capsys):
    users = [f"user_{number}" for number in range(50)]
    assert run(load, tmp_path, [*users, "", ""]) == 0
    captured = capsys.readouterr()
    assert sorted(line.split(":")[0] for line in captured.out.splitlines()) == sorted(users)
    assert captured.err.startswith("50 of 50 in ")
    assert sorted(session.user for session in emulator.sessions.values()) == sorted(users)


def test_what_became_of_the_others_is_told(load, emulator, tmp_path, capsys):
    emulator.fail(status=400)
    assert run(load, tmp_path, ["ada", "bob"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert ": rejected: the API replied 400" in captured.err
    assert "1 of 2 in " in captured.err


def test_what_would_hit_every_user_ends_it(load, emulator, tmp_path, capsys):
    emulator.fail(status=401)
    assert run(load, tmp_path, ["ada"]) == 1
    assert "stopped: the API replied 401" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["bulk_job", "dask_bulk"])
def test_without_arguments_it_says_which(examples, name):
    done = subprocess.run(
        [sys.executable, examples / f"{name}.py"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr.startswith(f"usage: python {name}.py USERS")
    assert len(done.stderr.splitlines()) == 1
    assert done.returncode == 1
