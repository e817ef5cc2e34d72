"""Compare the replies of the live API with the emulator's, in a file to read and share.

Needs OPENAI_API_KEY and CHATKIT_WORKFLOW, a workflow of the key's project. It creates one session
and cancels it, reads the newest conversations, and deletes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from live.comparison import report
from live.steps import Api, made_up

from chatkit_async import ConfigurationError, __version__
from chatkit_async._settings import Settings
from chatkit_async.emulator import Emulator

REPORT = Path(__file__).parents[2] / "build" / "live.md"
FAILED = 1
USAGE = 2


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison and return an exit code."""
    parser = argparse.ArgumentParser(prog="live", description=__doc__)
    parser.add_argument("--output", type=Path, default=REPORT, help="default: build/live.md")
    parser.add_argument(
        "--deleted-thread", metavar="ID", help="a thread that you deleted; by default a made-up id"
    )
    options = parser.parse_args(arguments)
    workflow = os.environ.get("CHATKIT_WORKFLOW", "").strip()
    if not (os.environ.get("OPENAI_API_KEY", "").strip() and workflow):
        return _complain("Set OPENAI_API_KEY and CHATKIT_WORKFLOW first.", USAGE)
    try:
        settings = Settings.resolve({})
    except ConfigurationError as error:
        return _complain(str(error), USAGE)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(options.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _complain(f"{options.output} already exists. Move it, or use --output.", USAGE)
    with os.fdopen(file, "w", encoding="utf-8") as output:
        try:
            text, summary = asyncio.run(_compared(settings, workflow, options.deleted_thread))
        except BaseException as error:
            options.output.unlink()
            if isinstance(error, ConnectionError):
                return _complain(f"{urlsplit(settings.base_url).hostname}: {error}", FAILED)
            raise
        output.write(text)
    print(f"{summary} Read {options.output} before you share it.")
    return 0


async def _compared(
    settings: Settings, workflow: str, deleted_thread: str | None
) -> tuple[str, str]:
    live = Api(
        settings.base_url,
        headers=_headers(settings.api_key, settings.organization, settings.project),
        workflow=workflow,
        user=f"chatkit-async-live-{secrets.token_hex(8)}",
        deleted_thread=deleted_thread,
        proxy=settings.proxy,
    )
    known_workflow = made_up("wf")
    async with Emulator(workflows=[known_workflow]) as emulator:
        emulated = Api(
            emulator.base_url,
            headers=_headers(emulator.api_key),
            workflow=known_workflow,
            user=live.user,
        )
        replies = await live.replies(), await emulated.replies()
    secret = {
        settings.api_key: "(key)",
        settings.organization: "(organization)",
        settings.project: "(project)",
        deleted_thread: "(the deleted thread)",
    }
    known = [
        {api.workflow: "(workflow as sent)", api.user: "(user as sent)"} for api in (live, emulated)
    ]
    host = urlsplit(settings.base_url).netloc
    today = datetime.now(UTC).date()
    text, agreeing = report(
        *replies,
        live_secrets={name: mask for name, mask in secret.items() if name} | known[0],
        emulated_secrets=known[1],
        heading=f"{host} and the emulator of chatkit-async {__version__}, {today}",
    )
    return text, f"{agreeing} of {len(replies[0])} replies agree."


def _headers(
    key: str, organization: str | None = None, project: str | None = None
) -> dict[str, str]:
    headers = {
        "Authorization": f"Bearer {key}",
        "OpenAI-Beta": "chatkit_beta=v1",
        "OpenAI-Organization": organization,
        "OpenAI-Project": project,
        "Accept-Encoding": "identity",
    }
    return {name: value for name, value in headers.items() if value is not None}


def _complain(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
