"""`chatkit-async threads`: list and show conversations, and the commands that copy and erase them."""

from pathlib import Path

import click

from chatkit_async.cli._export_file import PAGE_SIZE, parts_of
from chatkit_async.cli._options import base_url_option, debug_option, json_option, timeout_option
from chatkit_async.cli._output import note, write, write_json
from chatkit_async.cli._running import run
from chatkit_async.cli._threads_delete import delete
from chatkit_async.cli._threads_export import export
from chatkit_async.cli._transcript import heading, text_of, when
from chatkit_async.client import AsyncChatKit
from chatkit_async.models.threads import ChatKitThread, ChatKitThreadItem
from chatkit_async.options import OMITTED
from chatkit_async.secret import printable


@click.group(short_help="List, show, export and erase conversations.")
def threads() -> None:
    """List, show, export and erase conversations: the threads of the key's project."""


@threads.command("list", short_help="List threads, the newest first.")
@click.option("--user", metavar="ID", help="Only the threads of this user. Default: of all users.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="List N threads, and end. Default: all."
)
@timeout_option("Limit of each request, every attempt and wait included.")
@json_option
@base_url_option
@debug_option
def list_(*, user: str | None, limit: int | None, timeout: float, as_json: bool) -> None:
    """List threads, the newest first: id, time of creation, user and title.

    \b
      chatkit-async threads list --user ada
    """  # noqa: D301 - click wants the character itself
    count = run(_list(user, limit, timeout, as_json=as_json))
    if not count:
        note("No threads. A key sees only the threads of its own project.")


async def _list(user: str | None, limit: int | None, timeout: float, *, as_json: bool) -> int:
    count = 0
    async with AsyncChatKit(timeout=timeout) as client:
        async for thread in client.threads.list(
            user=OMITTED if user is None else user, limit=PAGE_SIZE, max_items=limit
        ):
            count += 1
            if as_json:
                write_json(thread.to_dict())
                continue
            fields = (
                getattr(thread, "id", None),
                when(thread),
                getattr(thread, "user", None),
                getattr(thread, "title", None),
            )
            write("  ".join(printable(field or "-") for field in fields) + "\n")
    return count


@threads.command("show", short_help="Print the transcript of a thread.")
@click.argument("thread_id", metavar="THREAD_ID")
@click.option(
    "--from",
    "export_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="EXPORT",
    help="Read an export of `threads export`, and use no network.",
)
@timeout_option("Limit of each request, every attempt and wait included.")
@json_option
@base_url_option
@debug_option
def show(*, thread_id: str, export_path: Path | None, timeout: float, as_json: bool) -> None:
    """Print the transcript of a thread: who said what, and when.

    What could steer the terminal is shown as an escape such as \\x1b. With --json, the thread and
    then each item is a line.

    \b
      chatkit-async threads show cthr_123
    """  # noqa: D301 - click wants the character itself
    if export_path is None:
        run(_show(thread_id, timeout, as_json=as_json))
        return
    for part in parts_of(export_path, thread_id):
        if part.number == 1:
            _print_thread(part.thread, as_json=as_json)
        for item in part.items:
            _print_item(item, as_json=as_json)


async def _show(thread_id: str, timeout: float, *, as_json: bool) -> None:
    async with AsyncChatKit(timeout=timeout) as client:
        _print_thread(await client.threads.retrieve(thread_id), as_json=as_json)
        async for item in client.threads.list_items(thread_id, order="asc", limit=PAGE_SIZE):
            _print_item(item, as_json=as_json)


def _print_thread(thread: ChatKitThread, *, as_json: bool) -> None:
    if as_json:
        write_json(thread.to_dict())
    else:
        write("".join(f"{name:9}{printable(value)}\n" for name, value in heading(thread)))


def _print_item(item: ChatKitThreadItem, *, as_json: bool) -> None:
    if as_json:
        write_json(item.to_dict())
    else:
        write("".join(f"{line}\n" for line in text_of(item)))


threads.add_command(export)
threads.add_command(delete)
