"""The selection of the threads that a command is for, and the project they belong to."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs
import click

from chatkit_async._settings import Settings
from chatkit_async.cli._export_file import Ids
from chatkit_async.cli._job import Source
from chatkit_async.cli._output import masked, reason
from chatkit_async.cli._rows import CsvDecoder, Decoder, IdDecoder, InputError, JsonDecoder, Row
from chatkit_async.models.threads import ChatKitThread

F = TypeVar("F", bound=Callable[..., Any])
V = TypeVar("V")

_JSON_LINES = {".jsonl", ".ndjson", ".json"}


def _seconds(_context: click.Context, _parameter: click.Parameter, given: str | None) -> int | None:
    """Return a date in Unix seconds."""
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise click.BadParameter(
            f"must be a date such as 2026-11-28, or 2026-11-28T18:00:00Z, got {given!r}."
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def selection_options(command: F) -> F:
    """Add the options for the users or ids of a `Selection`."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    options: tuple[Callable[[Any], Any], ...] = (
        click.option("--user", metavar="ID", help="The threads of this user."),
        click.option(
            "--users",
            type=file,
            metavar="FILE",
            help="The threads of these users: CSV with a column `user`, or JSON lines.",
        ),
        click.option(
            "--ids", type=file, metavar="FILE", help="Threads by their ids, one to a line."
        ),
    )
    for option in reversed(options):
        command = cast("F", option(command))
    return command


def date_option(name: str, parameter: str, text: str) -> Callable[[F], F]:
    """Add an option for a moment, in Unix seconds."""
    return click.option(name, parameter, callback=_seconds, metavar="DATE", help=text)


@attrs.frozen(kw_only=True)
class Selection:
    """The threads that a command is for: those of users, those with ids, or all.

    Attributes:
        user: A user.
        users: A file of users.
        ids: A file of ids.
        since: The earliest time of creation, in Unix seconds.
        until: The time, in Unix seconds, that all of them were created before.
    """

    user: str | None
    users: Path | None
    ids: Path | None
    since: int | None = None
    until: int | None = None

    def __attrs_post_init__(self) -> None:
        given = [self.user, self.users, self.ids]
        if given.count(None) < len(given) - 1:
            raise click.UsageError("Choose one of --user, --users and --ids.")
        if self.ids is not None and not (self.since is None and self.until is None):
            raise click.UsageError("Dates do not go with --ids.")
        if self.user is not None and not self.user.strip():
            raise click.UsageError("--user must not be empty.")

    @property
    def users_alone(self) -> bool:
        """True for all threads of one or more users, whenever they were created."""
        return (self.user or self.users) is not None and self.since is None and self.until is None

    def check(self) -> None:
        """Read the files.

        Raises:
            InputError: a line has no user, or no id.
        """
        for _ in self.each_id() if self.ids is not None else self.each_user():
            pass

    def each_user(self) -> Iterator[str | None]:
        """Return the users, each once. None: all users."""
        if self.users is None:
            yield self.user
            return
        is_json = self.users.suffix.lower() in _JSON_LINES
        seen = Ids()
        for row in _rows(
            self.users, JsonDecoder({}) if is_json else CsvDecoder({}, ignore_unknown=True)
        ):
            user = row.value.get("user")
            if not isinstance(user, str) or not user.strip():
                raise InputError(
                    f"{self.users}, line {row.line}: no user found. The file must be CSV with a "
                    "column `user`, or JSON lines with a field `user`."
                )
            if seen.add(user):
                yield user

    def each_id(self) -> Iterator[str]:
        """Return the ids."""
        for row in _rows(cast("Path", self.ids), IdDecoder()):
            if row.problems:
                raise InputError(f"{self.ids}, line {row.line}: not a thread id.")
            yield row.value

    def is_too_old(self, thread: ChatKitThread) -> bool:
        """Return True if a thread was created before `since`, as are all that follow it."""
        at: int | None = getattr(thread, "created_at", None)
        return self.since is not None and at is not None and at < self.since

    def fits(self, thread: ChatKitThread) -> bool:
        """Return True if a thread may be selected, by its own fields."""
        at: int | None = getattr(thread, "created_at", None)
        is_too_new = self.until is not None and at is not None and at >= self.until
        is_of_another = self.user is not None and getattr(thread, "user", None) != self.user
        return not (is_too_new or is_of_another or self.is_too_old(thread))


def _rows(path: Path, decoder: Decoder[V]) -> Iterator[Row[V]]:
    try:
        with path.open("rb") as file:
            yield from Source(decoder, file, None).all()
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from None


def project() -> dict[str, str]:
    """Return the names and values that tell which project's threads the key sees."""
    settings = Settings.resolve({})
    return {
        "base_url": settings.base_url,
        "key": masked(os.environ.get("OPENAI_API_KEY", "").strip()),
        "organization": settings.organization or "of the key",
        "project": settings.project or "of the key",
    }


def described(where: dict[str, str]) -> str:
    """Return a project for people."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in where.items())
