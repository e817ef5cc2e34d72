"""Create a session for each user of a file, and use each as it comes: `python bulk_job.py USERS`.

A secret lives 600 seconds at most, so nothing is collected: each is handed on at once. A run that
has to survive a crash, and go on where it ended, is what `chatkit-async bulk create` is for.
"""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

from chatkit_async import AsyncChatKit, ChatSession


def users(path: Path) -> Iterator[str]:
    """Read the file as the run gets on: it may be longer than the memory."""
    with path.open(encoding="utf-8") as lines:
        yield from filter(None, map(str.strip, lines))


async def hand_over(session: ChatSession) -> None:
    """Yours goes here: a message to the user's browser, a cache, a table."""
    print(f"{session.user}: {session.id}")


async def main(path: Path) -> int:
    async with AsyncChatKit() as client:
        run = client.sessions.create_many(
            users(path),
            concurrency=32,
            defaults={"workflow": "wf_123"},
        )
        async with run:
            async for outcome in run:
                if outcome.session is not None:
                    await hand_over(outcome.session)
                else:
                    print(f"{outcome.row}: {outcome.kind}: {outcome.error}", file=sys.stderr)
    summary = run.summary
    if summary.stopped_by is not None:
        print(f"stopped: {summary.stopped_by}", file=sys.stderr)
    print(f"{summary.created} of {summary.read} in {summary.elapsed:.1f} s", file=sys.stderr)
    return 0 if summary.created == summary.read and summary.stopped_by is None else 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case [file]:
            sys.exit(asyncio.run(main(Path(file))))
        case _:
            sys.exit("usage: python bulk_job.py USERS")
