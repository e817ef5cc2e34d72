"""Transcripts of conversations: who said what, and when.

Titles and texts come from strangers. For a terminal, characters that could steer it are escaped.
In Markdown, HTML and Markdown are escaped too, so that nothing is loaded and nothing is formatted.
"""

import re
from collections.abc import Iterator

from chatkit_async.models.threads import (
    ChatKitAttachment,
    ChatKitClientToolCallItem,
    ChatKitThread,
    ChatKitThreadAssistantMessageItem,
    ChatKitThreadItem,
    ChatKitThreadUserMessageItem,
    ChatKitWidgetItem,
)
from chatkit_async.secret import printable

_INDENT = "    "
_TAB_COLUMNS = 4

_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKS = re.compile(r"[\\`*_\[\]|~&<>]")
# A heading, a list, a rule or a table's line, and indentation, which begins a block of code.
_LINE_START = re.compile(r"^( *)([#+=:-]|\d+[.)])?")


def heading(thread: ChatKitThread) -> list[tuple[str, str]]:
    """Return the names and values that introduce a thread, without what the reply lacks."""
    fields = [
        ("thread", getattr(thread, "id", None)),
        ("title", getattr(thread, "title", None)),
        ("user", getattr(thread, "user", None)),
        ("created", when(thread)),
        ("status", getattr(getattr(thread, "status", None), "type", None)),
    ]
    return [(name, value) for name, value in fields if value is not None]


def when(entry: ChatKitThread | ChatKitThreadItem) -> str | None:
    """Return the time of creation for people. None: the reply has none."""
    at = getattr(entry, "created_at_datetime", None)
    return None if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def speaker(item: ChatKitThreadItem) -> str:
    """Return who an item is from: a person, the assistant, or the kind of another item."""
    match item:
        case ChatKitThreadUserMessageItem():
            return "user"
        case ChatKitThreadAssistantMessageItem():
            return "assistant"
        case _:
            return getattr(item, "type", "unknown").removeprefix("chatkit.").replace("_", " ")


def attachments(item: ChatKitThreadItem) -> tuple[ChatKitAttachment, ...]:
    """Return the attachments of an item."""
    found: tuple[ChatKitAttachment, ...] = getattr(item, "attachments", ())
    return found


def text_of(item: ChatKitThreadItem) -> Iterator[str]:
    """Return an item for a terminal, line by line."""
    yield from ("", printable(f"{_when(item)}  {speaker(item)}"))
    yield from (f"{_INDENT}{printable(line)}" for line in _lines(item))


def markdown_heading(thread: ChatKitThread) -> Iterator[str]:
    """Return what introduces a thread in Markdown, line by line."""
    yield from (f"# {_escaped(getattr(thread, 'title', None) or 'Conversation')}", "")
    yield from (f"- {name}: {_escaped(value)}" for name, value in heading(thread))


def markdown_of(item: ChatKitThreadItem) -> Iterator[str]:
    """Return an item in Markdown, line by line."""
    yield from ("", f"## {_escaped(speaker(item))}, {_when(item)}", "")
    yield from (f"{_escaped(line)}  " for line in _lines(item))  # two spaces: a line break


def _when(item: ChatKitThreadItem) -> str:
    return when(item) or "at an unknown time"


def _lines(item: ChatKitThreadItem) -> Iterator[str]:
    """Return the lines of what an item says, as they came."""
    texts = [*_parts(item), *map(_attachment, attachments(item))]
    for text in texts or ["(no text)"]:
        for line in re.split("\r\n|[\r\n]", text):
            yield line.expandtabs(_TAB_COLUMNS)


def _parts(item: ChatKitThreadItem) -> Iterator[str]:
    match item:
        case ChatKitThreadUserMessageItem() | ChatKitThreadAssistantMessageItem():
            for part in getattr(item, "content", ()):
                text = getattr(part, "text", "(no text)")
                is_quote = getattr(part, "type", None) == "quoted_text"
                yield re.sub("(?m)^", "> ", text) if is_quote else text
                for annotation in getattr(part, "annotations", ()):
                    source = getattr(annotation, "source", None)
                    named = getattr(source, "url", None) or getattr(source, "filename", None)
                    yield f"(source: {named or 'unknown'})"
        case ChatKitClientToolCallItem():
            yield f"{getattr(item, 'name', '')}({getattr(item, 'arguments', '')})"
            yield f"-> {getattr(item, 'output', None) or '(no output)'}"
        case ChatKitWidgetItem():
            yield getattr(item, "widget", "(no widget)")
        case _:
            if (text := _text(item)) is not None:
                yield text


def _text(item: ChatKitThreadItem) -> str | None:
    """Return the text of an item. None: it has none, or lacks the field of its text."""
    text: str | None = getattr(item, "text", None)
    return text


def _attachment(attachment: ChatKitAttachment) -> str:
    named = [getattr(attachment, name, None) for name in ("name", "mime_type", "id", "preview_url")]
    return f"(attachment: {', '.join(map(str, filter(None, named)))})"


def _escaped(line: str) -> str:
    """Return a line as Markdown that shows it as it is."""
    line = _MARKS.sub(lambda found: _HTML.get(found[0]) or f"\\{found[0]}", printable(line))
    return _LINE_START.sub(_start_escaped, line, count=1)


def _start_escaped(found: re.Match[str]) -> str:
    mark: str = found[2] or ""
    return "&nbsp;" * len(found[1]) + (mark and f"{mark[:-1]}\\{mark[-1]}")
