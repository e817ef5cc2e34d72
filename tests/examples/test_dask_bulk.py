"""docs/examples/dask_bulk.py: on a cluster of two workers, one of which dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import psutil
import pytest
from patience import PATIENCE

from chatkit_async import AuthenticationError

pytestmark = pytest.mark.unmeasured

USERS = [f"user_{number:03}" for number in range(120)]


@pytest.fixture
def journals(tmp_path):
    folder = tmp_path / "journals"
    folder.mkdir()
    return folder


@pytest.fixture
def start(emulator, examples, journals, tmp_path):
    """Start the program, in a process of its own, as the cluster's workers are."""
    started = []

    def start():
        users = tmp_path / "users.txt"
        users.write_text("\n".join(USERS), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, examples / "dask_bulk.py", users, journals],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # One process imports dask, and the workers are forks of it.
            env=os.environ | {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.communicate()


def created(emulator):
    """How many sessions each user has."""
    return Counter(session.user for session in emulator.sessions.values())


def held(journals):
    """How many sessions of each user the journals hold."""
    return Counter(
        entry["user"]
        for journal in journals.iterdir()
        for entry in map(json.loads, journal.read_text(encoding="utf-8").splitlines())
        if entry["kind"] == "created"
    )


def workers(process):
    """The processes of the cluster's workers."""
    return [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "forkserver" in " ".join(child.parent().cmdline())
    ]


def test_a_worker_that_dies_costs_no_user_a_session_and_gives_none_that_is_noted_two(
    start, emulator, journals
):
    # Nobody answers for one user of the second partition, until its worker has died.
    emulator.fail(delay=float("inf"), user="user_070")
    process = start()
    emulator.wait_until(lambda: created(emulator)["user_070"] == 1)
    noted_before = held(journals)
    for worker in workers(process):
        worker.kill()
    shown, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert shown == f"{{'created': {len(USERS)}}}\n"
    assert held(journals) == Counter(USERS)
    assert set(created(emulator)) == set(USERS)
    assert {user: created(emulator)[user] for user in noted_before} == noted_before
    assert created(emulator)["user_070"] == 2
    assert all(journal.stat().st_mode & 0o777 == 0o600 for journal in journals.iterdir())


def test_a_job_that_runs_again_creates_nothing_that_is_noted(load, emulator, journals):
    create_partition = load("dask_bulk").create_partition
    journal = journals / "000000.jsonl"
    assert create_partition(USERS[:5], journal, 1000.0) == {"created": 5}
    with journal.open("ab") as file:
        file.write(b'{"user": "user_005", "kind": "cre')  # its worker died there
    assert create_partition(USERS[:8], journal, 1000.0) == {"created": 8}
    assert created(emulator) == held(journals) == Counter(USERS[:8])


def test_what_would_hit_every_user_fails_the_partition(load, emulator, journals):
    emulator.fail(status=401)
    with pytest.raises(AuthenticationError):
        load("dask_bulk").create_partition(USERS[:1], journals / "000000.jsonl", 1000.0)
