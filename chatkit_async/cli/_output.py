"""Output: data on stdout, everything else on stderr."""

import errno
import json
import os
import re
import sys
from collections.abc import Iterable
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING, TextIO, cast

import click

from chatkit_async._exit_codes import FAILED
from chatkit_async.models import ChatSession
from chatkit_async.secret import MASK, mask_json, mask_text, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PROSE_WIDTH = 80
"""Columns of running text: at most, and where there is no terminal to ask."""

ROOMY = 60
"""Columns from which on there is room to indent."""

# What writing to a pipe that was closed fails with; Windows says EINVAL.
_CLOSED = {errno.EPIPE, errno.EINVAL}

# How a credential says what kind it is.
_KIND = re.compile(r"(?:sk-(?:(?:proj|svcacct|admin)-)?|ek_|chatkit_token_)?")
_TELLING_LENGTH = 20  # of one that long the end is shown: enough to tell it, not to use it


def write(text: str, *, err: bool = False) -> None:
    """Write to stdout, or to stderr, where a failure is ignored: nobody would read about it.

    Raises:
        click.exceptions.Exit: the reader of stdout has gone.
        click.ClickException: stdout is closed, or cannot be written, as on a full disk.
    """
    # A program can be started without them.
    stream = cast("TextIO | None", sys.stderr if err else sys.stdout)
    if stream is None:
        if err:
            return
        raise click.ClickException("standard output is closed")
    try:
        click.echo(text, nl=False, err=err, color=True)  # colours are decided by console()
    except OSError as error:
        closed = error.errno in _CLOSED
        if closed or err:
            # What is left in its buffer is flushed once more at exit, and must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if err:
            return
        if closed:
            raise click.exceptions.Exit(FAILED) from None
        message = f"cannot write to standard output: {reason(error)}"
        raise click.ClickException(message) from None


def reason(error: OSError) -> str:
    """Return the reason of the operating system."""
    return error.strerror or str(error)


def write_json(value: object) -> None:
    """Write a JSON value to stdout, on a line of its own."""
    write(json.dumps(value) + "\n")


def note(text: str) -> None:
    """Write a line for people to stderr."""
    write(printable_lines(text) + "\n", err=True)


def printable_lines(text: str) -> str:
    """Return `text` without characters that control a terminal, except for line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def counted(number: int, noun: str) -> str:
    """Return a number of things for people, such as `2 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def without_secrets(text: str) -> str:
    """Return a text without the key, and without what looks like a credential."""
    return mask_text(text, _keys())


def _keys() -> list[str]:
    return [os.environ.get("OPENAI_API_KEY", "").strip()]


def masked(credential: str) -> str:
    """Return the prefix and the end of a credential, with a mask between them."""
    kind = cast("re.Match[str]", _KIND.match(credential))[0]
    return kind + MASK + (credential[-4:] if len(credential) >= _TELLING_LENGTH else "")


def session_data(session: ChatSession, *, show_secret: bool) -> dict[str, object]:
    """Return a session as the API sent it, with secrets only if `show_secret`."""
    data = session.to_dict()
    return data if show_secret else cast("dict[str, object]", mask_json(data, _keys()))


def session_fields(session: ChatSession, *, show_secret: bool) -> list[tuple[str, str]]:
    """Return the main fields of a session, by name, without those that the reply lacks."""
    fields = [
        ("id", getattr(session, "id", None)),
        ("status", getattr(session, "status", None)),
        ("user", getattr(session, "user", None)),
        ("workflow", getattr(getattr(session, "workflow", None), "id", None)),
        ("expires", _expiry(session)),
    ]
    shown = [(name, without_secrets(value)) for name, value in fields if value is not None]
    if (secret := getattr(session, "client_secret", None)) is not None:
        shown.append(("client_secret", str(secret) if show_secret else MASK))
    return shown


def _expiry(session: ChatSession) -> str | None:
    at = getattr(session, "expires_at_datetime", None)
    return None if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def columns(stream: TextIO | None) -> int:
    """Return the width of a stream's terminal, or of running text if it has none."""
    if stream is None or not stream.isatty():
        return PROSE_WIDTH
    if (given := os.environ.get("COLUMNS", "")).isdecimal():
        return int(given)
    try:
        # Not of shutil: it asks stdout, which may be a pipe while stderr is a terminal.
        return os.get_terminal_size(stream.fileno()).columns or PROSE_WIDTH
    except (OSError, ValueError):
        return PROSE_WIDTH


def console(stream: TextIO | None) -> "Console":
    """Return a console to capture text for a stream, with the colours that it can show."""
    from rich.console import Console  # noqa: PLC0415 - 50 ms that JSON does not need

    terminal = stream is not None and stream.isatty()
    plain = not (terminal or os.environ.get("FORCE_COLOR")) or bool(os.environ.get("NO_COLOR"))
    return Console(
        # What it captures is written by write(), which handles errors.
        file=TextIOWrapper(BytesIO(), encoding=getattr(stream, "encoding", None)),
        width=columns(stream),
        force_terminal=not plain,
        color_system=None if plain else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )


class Page:
    """Text for people, with as much colour and width as the stream it goes to has.

    Styles are few, and legible on dark and on light: bold, cyan, green, red, magenta.
    """

    ITEM_INDENT = 9

    def __init__(self, *, err: bool = False) -> None:
        # A program can be started without them.
        stream = cast("TextIO | None", sys.stderr if err else sys.stdout)
        width = columns(stream)
        self._err = err
        self._width = min(width, PROSE_WIDTH)
        self.indent = 3 if width >= ROOMY else 1
        self._console = console(stream)
        self._console.width = self._width

    def heading(self, text: str) -> None:
        """Show a heading, with an empty line before."""
        self._show(self._text(f"\n{text}", "bold"))

    def prose(self, text: str, *, indent: int | None = None) -> None:
        """Show a paragraph, wrapped between words. By default it is indented as the page is."""
        indent = self.indent if indent is None else indent
        for line in self._wrapped(text, indent):
            line.pad_left(indent)
            self._show(line)

    def item(self, label: str, style: str, text: str) -> None:
        """Show a coloured label with a paragraph beside it."""
        start = self._text("").append(f"{label:{self.ITEM_INDENT}}", style)
        for line in self._wrapped(text, self.ITEM_INDENT):
            self._show(start.append_text(line))
            start = self._text(" " * self.ITEM_INDENT)

    def line(self, text: str) -> None:
        """Show a line. The terminal wraps it, so that it can be copied."""
        self._show(self._text(" " * self.indent + text))

    def code(self, lines: str) -> None:
        """Show code between empty lines. The terminal wraps long lines."""
        self._show(self._text(""))
        for line in lines.splitlines():
            self._show(self._text(" " * self.indent + line if line else "", "cyan"))
        self._show(self._text(""))

    def fields(self, fields: Iterable[tuple[str, str]], *, indent: int | None = None) -> None:
        """Show names and values, one to a line. The terminal wraps long values."""
        indent = self.indent if indent is None else indent
        fields = list(fields)
        width = max((len(name) for name, _ in fields), default=0)
        for name, value in fields:
            line = self._text(" " * indent)
            line.append(f"{name:{width}}  ", style="bold")
            line.append(printable_lines(value))
            self._show(line)

    def _wrapped(self, text: str, indent: int) -> "Iterable[Text]":
        for line in self._text(text).wrap(self._console, self._width - indent):
            line.rstrip()
            yield line

    def _text(self, text: str, style: str = "") -> "Text":
        from rich.text import Text  # noqa: PLC0415 - see above

        return Text(printable_lines(text), style=style)

    def _show(self, text: "Text") -> None:
        with self._console.capture() as capture:
            self._console.print(text, soft_wrap=True)
        write(capture.get(), err=self._err)
