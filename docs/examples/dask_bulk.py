"""Create sessions on a Dask cluster: `python dask_bulk.py USERS JOURNALS [SCHEDULER]`.

Each partition of the users is a task. Its worker has a client of its own and its share of the rate,
and notes each outcome in the partition's journal as it comes. When a worker dies, Dask gives its
partition to another, which creates nothing that the journal has already.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path

from distributed import Client, LocalCluster, as_completed

from chatkit_async import AsyncChatKit, ChatSession, Outcome

PARTITION = 50
RATE = 100.0
"""Creates per second of the whole cluster: what the project's rate limit allows, or less."""


def noted(journal: Path) -> list[dict[str, str]]:
    """What a journal says; a last line that a dying worker cut short is taken off it."""
    if not journal.exists():
        return []
    whole = journal.read_bytes().rpartition(b"\n")[0]
    os.truncate(journal, len(whole) + 1 if whole else 0)
    return [json.loads(line) for line in whole.splitlines()]


def record(outcome: Outcome[str, ChatSession]) -> bytes:
    """An outcome as a line of the journal. The secret is in it: the file is for its owner only."""
    session = outcome.session
    fields = {
        "user": outcome.row,
        "kind": outcome.kind,
        "id": None if session is None else session.id,
        "client_secret": None if session is None else session.client_secret,
        "error": None if outcome.error is None else str(outcome.error),
    }
    return json.dumps(fields).encode() + b"\n"


def create_partition(users: list[str], journal: Path, rate: float) -> dict[str, int]:
    """Create a session for each user whom the journal does not know: how many became what."""
    return asyncio.run(_create_partition(users, journal, rate))


async def _create_partition(users: list[str], journal: Path, rate: float) -> dict[str, int]:
    # The rest are made, or made anew: what was lost on the way expires on its own.
    settled = {
        entry["user"]: entry["kind"]
        for entry in noted(journal)
        if entry["kind"] in {"created", "rejected"}
    }
    counts = Counter(settled.values())
    file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        async with (
            AsyncChatKit() as client,
            client.sessions.create_many(
                [user for user in users if user not in settled],
                rate=rate,
                defaults={"workflow": "wf_123"},
            ) as run,
        ):
            async for outcome in run:
                os.write(file, record(outcome))
                counts[outcome.kind] += 1
    finally:
        os.close(file)
    if run.summary.stopped_by is not None:
        raise run.summary.stopped_by
    return dict(counts)


def main(users: list[str], journals: Path, scheduler: str | None) -> int:
    total: Counter[str] = Counter()
    cluster = scheduler or LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with Client(cluster) as dask:
        share = RATE / len(dask.scheduler_info()["workers"])
        tasks = [
            dask.submit(
                create_partition,
                users[first : first + PARTITION],
                journals / f"{first // PARTITION:06}.jsonl",
                share,
                key=f"partition-{first // PARTITION:06}",
                retries=2,
            )
            for first in range(0, len(users), PARTITION)
        ]
        for task in as_completed(tasks):
            total.update(task.result())
    print(dict(total))
    return 0 if total["created"] == len(users) else 1


if __name__ == "__main__":
    if len(sys.argv) not in {3, 4}:
        sys.exit("usage: python dask_bulk.py USERS JOURNALS [SCHEDULER]")
    file, folder, *scheduler = sys.argv[1:]
    names = [name for line in Path(file).read_text().splitlines() if (name := line.strip())]
    sys.exit(main(names, Path(folder), scheduler[0] if scheduler else None))
