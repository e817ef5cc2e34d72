"""Options that several commands have."""

import logging
import os
import shlex
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar, cast

import click

from chatkit_async.cli._output import note, without_secrets
from chatkit_async.cli._rows import number_or_bool
from chatkit_async.models import StateVariable
from chatkit_async.options import TIMEOUT

F = TypeVar("F", bound=Callable[..., Any])

ARGUMENTS = "chatkit_async.arguments"
"""The key of the program's arguments in `meta` of click's context."""

BASE_URL_OPTION = "chatkit_async.base_url"
"""The key of `--base-url` in `meta` of click's context."""

logger = logging.getLogger("chatkit_async")


def command_with(*more: str, without: Collection[str] = ()) -> str:
    """Return the current command line with other arguments, for a shell."""
    given = cast("list[str]", click.get_current_context().meta[ARGUMENTS])
    kept = [argument for argument in given if argument not in without]
    return shlex.join(["chatkit-async", *kept, *more])


class _ToStderr(logging.Handler):
    """Writes the log for people."""

    def emit(self, record: logging.LogRecord) -> None:
        note(without_secrets(self.format(record)))


def _log(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's signature
    if not wanted:
        return
    handler, level = _ToStderr(), logger.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(level)

    # Not at the end of the command itself: its error has not been shown by then.
    context.find_root().call_on_close(end)


def _use_base_url(context: click.Context, _parameter: click.Parameter, url: str | None) -> None:
    """Set OPENAI_BASE_URL to the option for this command."""
    if url is None:
        return
    context.meta[BASE_URL_OPTION] = url
    before = os.environ.get("OPENAI_BASE_URL", "")  # blank counts as unset
    os.environ["OPENAI_BASE_URL"] = url
    context.find_root().call_on_close(lambda: os.environ.update(OPENAI_BASE_URL=before))


def base_url_option(command: F) -> F:
    """Add `--base-url`, which sets the base URL of the whole command."""
    return click.option(
        "--base-url",
        expose_value=False,
        callback=_use_base_url,
        metavar="URL",
        help="Where the API is. Default: OPENAI_BASE_URL, or OpenAI's API.",
    )(command)


def debug_option(command: F) -> F:
    """Add `--debug`, which sets up logging for the whole command."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_log,
        help="Show each attempt of each call on stderr.",
    )(command)


def json_option(command: F) -> F:
    """Add `--json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON on stdout, one object per line."
    )(command)


def secret_option(command: F) -> F:
    """Add `--show-secret`."""
    return click.option(
        "--show-secret", is_flag=True, help="Show client secrets, which are masked otherwise."
    )(command)


def timeout_option(
    text: str = "Time limit of each call, with all attempts and waits.",
) -> Callable[[F], F]:
    """Add `--timeout`."""
    return click.option(
        "--timeout",
        type=float,
        default=TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        help=text,
    )


def _state_variables(
    _context: click.Context, _parameter: click.Parameter, given: Sequence[str]
) -> dict[str, StateVariable] | None:
    variables: dict[str, StateVariable] = {}
    for text in given:
        name, equals, value = text.partition("=")
        is_json = name.endswith(":")
        name = name.removesuffix(":")
        if not name or not equals:
            raise click.BadParameter(f"{text!r} should be NAME=TEXT, or NAME:=NUMBER.")
        if name in variables:
            raise click.BadParameter(f"{name!r} is given twice.")
        try:
            variables[name] = number_or_bool(value) if is_json else value
        except ValueError as error:
            raise click.BadParameter(f"the value of {name!r} {error}.") from None
    return variables or None


def state_variable_option(command: F) -> F:
    """Add `--state-variable`."""
    return click.option(
        "--state-variable",
        "state_variables",
        multiple=True,
        metavar="NAME=TEXT",
        callback=_state_variables,
        help="A variable for the workflow; NAME:=3, NAME:=true for what is not text. Repeatable.",
    )(command)
