"""`chatkit-async threads export`: copy conversations to a file or a folder."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import attrs
import click

from chatkit_async._exit_codes import PARTIAL, after_signal
from chatkit_async._fanout import Fanout
from chatkit_async._protocol import THREADS_ROUTE
from chatkit_async.cli._export_file import PAGE_SIZE, ExportFile, MarkdownFolder, Sink
from chatkit_async.cli._failures import exit_code
from chatkit_async.cli._job import MAX_SHOWN_FAILURES, Interruptible, beside, flushed
from chatkit_async.cli._options import base_url_option, command_with, debug_option, json_option
from chatkit_async.cli._output import counted, note, without_secrets, write_json
from chatkit_async.cli._progress import Progress
from chatkit_async.cli._running import run
from chatkit_async.cli._selection import (
    Selection,
    date_option,
    described,
    project,
    selection_options,
)
from chatkit_async.client import AsyncChatKit
from chatkit_async.errors import (
    APIResponseError,
    ChatKitError,
    InternalServerError,
    NotFoundError,
)
from chatkit_async.models.threads import ChatKitThread, ChatKitThreadItem
from chatkit_async.options import OMITTED, Attempt
from chatkit_async.pages import AsyncPage

CONCURRENCY = 16
"""Threads that are fetched at a time, by default."""

TIMEOUT = 300.0
"""Seconds for each request, by default: enough for many pauses for the rate limit."""

MAX_RETRIES = 5

MAX_COUNTED_USERS = 10_000
"""Users whose threads are counted separately, so that memory stays bounded."""

MAX_SHOWN_USERS = 10
"""Users whose threads are shown separately."""

OF_THE_THREAD = (NotFoundError, InternalServerError, APIResponseError)
"""Errors that concern one thread. After any other, the rest would fail too."""


@attrs.frozen
class Fetched:
    """A thread with the first page of its items, or the error of fetching them."""

    thread_id: str
    thread: ChatKitThread | None = None
    page: AsyncPage[ChatKitThreadItem] | None = None
    error: ChatKitError | None = None


class Export(Interruptible):
    """A run that writes threads to a sink, each once.

    It lists the threads from the newest on, skips those that the sink has, fetches the first items
    of several threads at a time, and writes one thread after another. So a run that resumes another
    gets the threads that were created in the meantime as well.

    Attributes:
        listed: Threads that were listed, by user.
        ends: The request id of each list's last page, by user. None: the list of all users.
        stopped_by: The error that ended the run early.
    """

    def __init__(
        self,
        client: AsyncChatKit,
        sink: Sink,
        selection: Selection,
        *,
        concurrency: int,
        quiet: bool,
    ) -> None:
        self.totals: Counter[str] = Counter(exported=sink.counts["threads"], failed=0)
        super().__init__(
            Progress(self.totals, self._total, self._under_way, noun="threads", quiet=quiet)
        )
        self.listed: Counter[str] = Counter()
        self.ends: dict[str | None, str | None] = {}
        self.stopped_by: ChatKitError | None = None
        self._client = client
        self._threads = client.with_options(on_attempt=self._note_attempt).threads
        self._sink = sink
        self._selection = selection
        self._concurrency = concurrency
        self._fanout: Fanout[ChatKitThread | str, Fetched | None] | None = None
        self._selected = 0  # threads that were listed or named, also those that the sink has
        self._has_all = False  # True once the last of them was listed or named
        self._done = 0
        self._request_id: str | None = None  # of the last page of a list

    async def work(self) -> None:
        """Export the threads.

        Raises:
            click.ClickException: the sink cannot be written, or the input cannot be read.
        """
        async with self._client:
            self._fanout = fanout = Fanout(
                self._fetch,
                lambda _index, _thread: None,
                self._wanted(),
                concurrency=self._concurrency,
                ordered=True,
            )
            self._stop = fanout.stop
            fanout.start()
            try:
                async with beside(self._progress.show(), flushed(self._sink.sync)):
                    while await fanout.ready():
                        for fetched in filter(None, fanout.take(1)):
                            await self._write(fetched)
                        self._done += 1
            except ChatKitError as error:
                self.stopped_by = self.stopped_by or error  # the list could not be read
            finally:
                await fanout.close()

    # Threads --------------------------------------------------------------------------------------

    async def _wanted(self) -> AsyncIterator[ChatKitThread | str]:
        """Return the threads, or ids, that the sink does not have yet."""
        if self._selection.ids is not None:
            for thread_id in self._selection.each_id():
                self._selected += 1
                if self._sink.add(thread_id):
                    yield thread_id
        else:
            for user in self._selection.each_user():
                async for thread in self._list(user):
                    self._selected += 1
                    if self._sink.add(thread.id):
                        yield thread
        self._has_all = True

    async def _list(self, user: str | None) -> AsyncIterator[ChatKitThread]:
        """List the threads of a user, or of all, and note the end of the list."""
        threads = self._threads.list(
            user=OMITTED if user is None else user, limit=PAGE_SIZE, order="desc"
        )
        async for thread in threads:
            if self._selection.is_too_old(thread):
                return
            if self._selection.fits(thread):
                owner: str = getattr(thread, "user", None) or "(unknown)"
                has_room = owner in self.listed or len(self.listed) < MAX_COUNTED_USERS
                self.listed[owner if has_room else "(other users)"] += 1
                yield thread
        # The list has ended because its last page says so: see `Sweep`.
        if len(self.ends) < MAX_COUNTED_USERS:
            self.ends[user] = self._request_id

    def _note_attempt(self, attempt: Attempt) -> None:
        if attempt.route == THREADS_ROUTE and attempt.error is None:
            self._request_id = attempt.request_id

    async def _fetch(self, _index: int, wanted: ChatKitThread | str) -> Fetched:
        """Fetch a thread, if only its id is known, and the first page of its items."""
        thread_id = wanted if isinstance(wanted, str) else wanted.id
        try:
            thread = wanted
            if isinstance(thread, str):
                thread = await self._threads.retrieve(thread)
            page = await self._threads.list_items(thread_id, limit=PAGE_SIZE, order="asc")
        except ChatKitError as error:
            self._note_error(error)
            return Fetched(thread_id, error=error)
        return Fetched(thread_id, thread, page)

    async def _write(self, fetched: Fetched) -> None:
        error = fetched.error
        if fetched.thread is not None and fetched.page is not None:
            try:
                await self._sink.write(fetched.thread, fetched.page)
            except ChatKitError as raised:
                self._note_error(raised)
                error = raised
        kind = "exported" if error is None else "failed"
        self.totals[kind] += 1
        self._progress.kinds[kind] += 1
        if error is not None and self._progress.kinds["failed"] <= MAX_SHOWN_FAILURES:
            self._say(f"thread {fetched.thread_id}: {error}")

    def _note_error(self, error: ChatKitError) -> None:
        if self.stopped_by is None and not isinstance(error, OF_THE_THREAD):
            self.stopped_by = error
            cast("Fanout[Any, Any]", self._fanout).stop()

    # Reports --------------------------------------------------------------------------------------

    def _total(self) -> tuple[int, bool] | None:
        return (self._selected, True) if self._has_all else None

    def _under_way(self) -> tuple[int, int]:
        return (0 if self._fanout is None else self._fanout.read) - self._done, 0

    @property
    def is_complete(self) -> bool:
        """True if every thread that was asked for is in the export."""
        ended = self.interrupted_by is None and self.stopped_by is None
        return ended and self._has_all and not self.totals["failed"]

    @property
    def exit_code(self) -> int:
        """The exit code for what came of all threads."""
        if self.interrupted_by is not None:
            return after_signal(self.interrupted_by)
        if self.stopped_by is not None:
            return exit_code(self.stopped_by)
        return 0 if self.is_complete else PARTIAL

    def summary(self) -> dict[str, object]:
        """Return the summary as JSON."""
        counts = self._sink.counts
        return {
            "complete": self.is_complete,
            "threads": counts["threads"],
            "failed": self.totals["failed"],
            "items": counts["items"],
            "attachments": counts["attachments"],
            "attachments_without_preview": counts["without_preview"],
            "listed": dict(self.listed),
            "list_ends": [
                {"user": user, "has_more": False, "request_id": request_id}
                for user, request_id in self.ends.items()
            ],
        }

    def lines(self) -> Iterator[str]:
        """Return the summary for people, line by line."""
        counts, failed = self._sink.counts, self.totals["failed"]
        said = f"{counted(counts['threads'], 'thread')} exported"
        said += f", {failed:,} failed" if failed else ""
        yield f"{said}; {counted(counts['items'], 'item')}."
        if lost := counts["attachments"]:
            yield (
                f"{counted(lost, 'attachment')} listed, {counts['without_preview']:,} of them without "
                "a preview_url. The API deletes attachments with their thread, and offers nothing "
                "but previews."
            )
        for user, number in self.listed.most_common(MAX_SHOWN_USERS):
            yield f"  {user}: {counted(number, 'thread')} listed"
        if (more := len(self.listed) - MAX_SHOWN_USERS) > 0:
            yield f"  {counted(more, 'more user')}: see --json"
        for owner, request_id in list(self.ends.items())[:MAX_SHOWN_USERS]:
            of = "all users" if owner is None else owner
            yield f"The list of {of} ended with has_more: false (request id {request_id})."
        if self.stopped_by is not None:
            yield f"Stopped: {self.stopped_by}"


@click.command("export", short_help="Copy conversations to a file or a folder.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file, or for Markdown the folder. Only you can read it.",
)
@selection_options
@date_option("--since", "since", "Only threads created at or after this date, in UTC.")
@date_option("--until", "until", "Only threads created before it.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["jsonl", "markdown"]),
    default="jsonl",
    show_default=True,
    help="JSON lines for programs, or a folder of Markdown for people.",
)
@click.option("--resume", is_flag=True, help="Continue FILE: add the threads that it lacks.")
@click.option("--allow-empty", is_flag=True, help="Exit with 0 if there are no threads.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    default=CONCURRENCY,
    show_default=True,
    metavar="N",
    help="Threads that are fetched at a time.",
)
@click.option(
    "--timeout",
    type=float,
    default=TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Limit of each request, every attempt and wait included.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress, and no summary of a full success.")
@json_option
@base_url_option
@debug_option
@click.pass_context
def export(
    context: click.Context,
    /,
    *,
    output: Path,
    output_format: str,
    resume: bool,
    allow_empty: bool,
    concurrency: int,
    timeout: float,
    quiet: bool,
    as_json: bool,
    **selected: Any,
) -> None:
    """Copy conversations to FILE: those of a user, of users, by id, or all.

    If it is interrupted, the same command with --resume continues. --json prints the summary as
    JSON: the number of threads per user, and the end of each list.

    \b
      chatkit-async threads export -o export.jsonl --user ada
    """  # noqa: D301 - click wants the character itself
    selection = Selection(**selected)
    selection.check()
    where = project()
    client = AsyncChatKit(timeout=timeout, max_retries=MAX_RETRIES)  # refuses wrong settings
    with ExitStack() as stack:
        sink: Sink
        if output_format == "markdown":
            sink = MarkdownFolder(output, resume=resume)
        else:
            file = ExportFile(output, resume=resume, fits=selection.fits)
            sink = stack.enter_context(file)
        work = Export(client, sink, selection, concurrency=concurrency, quiet=quiet)
        try:
            run(work.work(), on_interrupt=work.interrupt)
        finally:
            if not (quiet and work.is_complete):
                for line in work.lines():
                    note(without_secrets(line))
            if not work.is_complete:
                note(
                    f"To continue: {without_secrets(command_with('--resume', without={'--resume'}))}"
                )
    if as_json:
        write_json(work.summary())
    if work.is_complete and not work.totals.total() and not allow_empty:
        note(f"No threads. A key sees only the threads of its own project: {described(where)}.")
        context.exit(PARTIAL)
    context.exit(work.exit_code)
