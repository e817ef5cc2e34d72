"""The format of an export: JSON lines, one thread after another.

A line is a `Part`: `{"thread": {...}, "items": [...]}`, both as the API sent them. A thread with
more items than fit on a page has several lines in a row, which also have a `part`, from 1, and
`has_more`. docs/reference/export.md describes the schema. Only the last line can be torn, because
lines are only ever appended.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import attrs
import click

from chatkit_async.models.threads import ChatKitThread, ChatKitThreadItem


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
        raise ExportError(f"cannot read {export}: {error.strerror or error}") from None
    raise ExportError(
        f"{export} does not contain all of thread {thread_id}: it has another id, or the export was "
        "interrupted."
    )
