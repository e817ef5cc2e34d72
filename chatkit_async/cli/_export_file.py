"""Exports: JSON lines, one thread after another, or a folder of Markdown for people.

A line is a `Part`: `{"thread": {...}, "items": [...]}`, both as the API sent them. A thread with
more items than fit on a page has several lines in a row, which also have a `part`, from 1, and
`has_more`. docs/reference/export.md describes the schema. The export is its own journal: threads
are written one after another, so a run that was killed leaves at most one that is not whole, at the
end. In a folder, each thread is a file that gets its name when it is whole.
"""

import json
import os
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias
from urllib.parse import quote

import attrs
import click

from chatkit_async.cli._line_file import LineFile, LineFileError
from chatkit_async.cli._output import reason
from chatkit_async.cli._transcript import attachments, markdown_heading, markdown_of
from chatkit_async.models.threads import ChatKitThread, ChatKitThreadItem
from chatkit_async.pages import AsyncPage

PAGE_SIZE = 100
"""Threads or items per request, the most that the API allows, and items per line."""

MAX_NAME_LENGTH = 120
"""Characters of a file's name, without its suffix."""


class ExportError(click.ClickException):
    """The export cannot be read or written."""


@attrs.frozen(kw_only=True)
class Part:
    """A line of an export: a thread with its items, or with the next items of many.

    Attributes:
        thread: The thread.
        items: The items, oldest first.
        number: The place of this line among those of its thread, from 1.
        has_more: True if the next line has more items of this thread.
    """

    thread: ChatKitThread
    items: Sequence[ChatKitThreadItem]
    number: int = 1
    has_more: bool = False

    def encode(self) -> bytes:
        """Return the line."""
        record: dict[str, object] = {
            "thread": self.thread.to_dict(),
            "items": [item.to_dict() for item in self.items],
        }
        if self.has_more or self.number > 1:
            record |= {"part": self.number, "has_more": self.has_more}
        return json.dumps(record).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read a line.

        Raises:
            ValueError: the line is not a part of an export.
        """
        try:
            record: Any = json.loads(line)
            thread = ChatKitThread.from_dict(record["thread"])
            items = [ChatKitThreadItem.from_dict(item) for item in record["items"]]
            number: object = record.get("part", 1)
            has_more: object = record.get("has_more", False)
        except (ValueError, LookupError, TypeError, RecursionError):
            raise ValueError('expected {"thread": {...}, "items": [...]}') from None
        if type(number) is not int or number < 1 or not isinstance(has_more, bool):
            raise ValueError("part must be a number from 1, and has_more true or false")
        if not hasattr(thread, "id"):
            raise ValueError("the thread has no id")
        return cls(thread=thread, items=items, number=number, has_more=has_more)


def read_parts(file: BinaryIO, name: object) -> Iterator[tuple[Part, int]]:
    """Return the parts of an export, each with the position in the file where its line ends.

    A torn last line ends the export: a run was killed while it wrote it.

    Raises:
        ExportError: a line is not a part of an export, or does not follow the line before it.
    """
    end = 0
    expected: tuple[str, int] | None = None  # which thread goes on, and with which part
    for number, line in enumerate(file, 1):
        try:
            part = Part.decode(line)
        except ValueError as error:
            if not line.endswith(b"\n"):
                return
            raise ExportError(f"{name} is not an export: line {number}: {error}") from None
        if expected != ((part.thread.id, part.number) if part.number > 1 else None):
            raise ExportError(f"{name}, line {number}: a part of a thread is missing before it")
        expected = (part.thread.id, part.number + 1) if part.has_more else None
        end += len(line)
        yield part, end


def parts_of(export: Path, thread_id: str) -> Iterator[Part]:
    """Return the parts of one thread of an export.

    Raises:
        ExportError: the export cannot be read, or does not contain all of the thread.
    """
    try:
        with export.open("rb") as file:
            for part, _ in read_parts(file, export):
                if part.thread.id == thread_id:
                    yield part
                    if not part.has_more:
                        return
    except OSError as error:
        raise ExportError(f"cannot read {export}: {reason(error)}") from None
    raise ExportError(
        f"{export} does not contain all of thread {thread_id}: it has another id, or the export was "
        "interrupted."
    )


# Writing ------------------------------------------------------------------------------------------


class Ids:
    """A set of ids that takes nine bytes for each."""

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(256)]  # each is sorted

    def add(self, given: str) -> bool:
        """Add an id. Return False if the set has it already."""
        digest = blake2b(given.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "big")
        bucket = self._buckets[digest[-1]]
        at = bisect_left(bucket, number)
        if at < len(bucket) and bucket[at] == number:
            return False
        bucket.insert(at, number)
        return True


def counts_of(items: Sequence[ChatKitThreadItem]) -> Counter[str]:
    """Return the numbers of items, attachments, and attachments without a preview."""
    counts = Counter(items=len(items))
    for item in items:
        for attachment in attachments(item):
            counts["attachments"] += 1
            counts["without_preview"] += not getattr(attachment, "preview_url", None)
    return counts


async def parts_from(
    thread: ChatKitThread, page: AsyncPage[ChatKitThreadItem]
) -> AsyncIterator[Part]:
    """Return a thread in parts, from the first page of its items."""
    if not page.has_more:
        yield Part(thread=thread, items=page.data)
        return
    number, items = 1, list[ChatKitThreadItem]()
    async for item in page:
        if len(items) == PAGE_SIZE:
            yield Part(thread=thread, items=items, number=number, has_more=True)
            number, items = number + 1, []
        items.append(item)
    yield Part(thread=thread, items=items, number=number)


class ExportFile(LineFile):
    """An open export of JSON lines.

    Attributes:
        counts: The numbers of `threads`, `items`, `attachments`, and attachments `without_preview`.
    """

    def __init__(self, path: Path, *, resume: bool, fits: Callable[[ChatKitThread], bool]) -> None:
        """Open an export.

        Args:
            path: The file.
            resume: True if it may exist already, and continues.
            fits: Returns False for a thread that this run would not export.

        Raises:
            click.UsageError: it exists already, or has threads that do not fit.
            LineFileError, ExportError: it cannot be opened, is not an export, or is in use.
        """
        self.counts: Counter[str] = Counter()
        self._fits = fits
        self._ids = Ids()
        super().__init__(path, resume=resume)

    def add(self, thread_id: str) -> bool:
        """Note that a thread is about to be fetched. Return False if it is there already."""
        return self._ids.add(thread_id)

    async def write(self, thread: ChatKitThread, page: AsyncPage[ChatKitThreadItem]) -> None:
        """Write a thread, with the first page of its items and all later ones.

        Raises:
            ChatKitError: a later page could not be read. Nothing of the thread is left.
            LineFileError: it cannot be written.
        """
        start, counts = self.size, Counter(threads=1)
        try:
            async for part in parts_from(thread, page):
                self.append(part.encode())
                counts += counts_of(part.items)
        except BaseException:
            self.take_back(start)
            raise
        self.counts += counts

    def _load(self, file: BinaryIO) -> int:
        whole = 0
        counts = Counter[str]()
        for part, end in read_parts(file, self._path):
            if not self._fits(part.thread):
                raise click.UsageError(
                    f"{self._path} has threads that this command would not export. Resume with the "
                    "options of the first run, or choose another file."
                )
            counts += counts_of(part.items)
            if not part.has_more:
                self._ids.add(part.thread.id)
                self.counts += counts + Counter(threads=1)
                whole, counts = end, Counter[str]()
        return whole

    def _begin(self) -> None:
        pass


class MarkdownFolder:
    """A folder with a folder for each user and a file for each thread.

    Attributes:
        counts: As in an `ExportFile`, but of earlier runs the `threads` alone.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Open the folder.

        Raises:
            click.UsageError: it exists already.
            LineFileError: it cannot be used.
        """
        self.counts: Counter[str] = Counter()
        self._path = path
        self._names = Ids()
        with self._errors():
            path.mkdir(mode=0o700, exist_ok=True)
            if not resume and any(path.iterdir()):
                raise click.UsageError(
                    f"{path} already exists. Use --resume to continue that run, or choose another "
                    "folder."
                )
            for left in path.glob("*/*.part"):
                left.unlink()
            for file in path.glob("*/*.md"):
                self._names.add(file.stem)
                self.counts["threads"] += 1

    def add(self, thread_id: str) -> bool:
        """Do as an `ExportFile` does."""
        return self._names.add(_file_name(thread_id))

    async def write(self, thread: ChatKitThread, page: AsyncPage[ChatKitThreadItem]) -> None:
        """Do as an `ExportFile` does."""
        counts = Counter(threads=1)
        with self._errors():
            folder = self._path / _file_name(getattr(thread, "user", None) or "unknown user")
            folder.mkdir(mode=0o700, exist_ok=True)
            unfinished = folder / f"{_file_name(thread.id)}.part"
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.writelines(f"{line}\n" for line in markdown_heading(thread))
                    async for part in parts_from(thread, page):
                        for item in part.items:
                            file.writelines(f"{line}\n" for line in markdown_of(item))
                        counts += counts_of(part.items)
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.replace(unfinished.with_suffix(".md"))
            except BaseException:
                unfinished.unlink()
                raise
        self.counts += counts

    def sync(self) -> None:
        """Each file is flushed before it gets its name."""

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise LineFileError(f"cannot write to {self._path}: {reason(error)}") from None


def _file_name(text: str) -> str:
    """Return a name of a file for a text from strangers, and always the same one."""
    name = quote(text, safe="", errors="surrogatepass").replace(".", "%2E")
    if len(name) <= MAX_NAME_LENGTH:
        return name
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{name[: MAX_NAME_LENGTH - len(digest) - 1]}-{digest}"


Sink: TypeAlias = ExportFile | MarkdownFolder
"""A destination of exported threads."""
