"""Failures of commands, as a paragraph on stderr and an exit code, never a traceback."""

import logging
import signal
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import click

from chatkit_async._exit_codes import AUTHENTICATION, FAILED, USAGE, after_signal
from chatkit_async.cli._output import note, without_secrets
from chatkit_async.errors import (
    AuthenticationError,
    ChatKitError,
    ConfigurationError,
    ParameterError,
    PermissionDeniedError,
)

logger = logging.getLogger("chatkit_async")


@contextmanager
def reported() -> Generator[None]:
    """Turn what a command raises into what click ends a program with."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        warnings.simplefilter("always", UserWarning)  # those for whoever gave the arguments
        try:
            yield
        except KeyboardInterrupt:
            note("\nInterrupted.")
            raise click.exceptions.Exit(after_signal(signal.SIGINT)) from None
        except ChatKitError as error:
            note(f"Error: {_said(error)}")
            raise click.exceptions.Exit(exit_code(error)) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:  # click printed the help, and its reader has gone
            raise click.exceptions.Exit(FAILED) from None
        except Exception as error:
            logger.debug("unexpected", exc_info=True)
            what = without_secrets(f"{type(error).__name__}: {error}")
            note(
                f"Error: unexpected {what}. This is a bug in chatkit-async. Please "
                "report it with the output of --debug."
            )
            raise click.exceptions.Exit(FAILED) from None


def exit_code(error: ChatKitError) -> int:
    """Return the exit code for an error."""
    match error:
        case AuthenticationError() | PermissionDeniedError():
            return AUTHENTICATION
        case ConfigurationError(problems=problems):
            keys = {"api_key", "OPENAI_API_KEY"}
            return AUTHENTICATION if keys & {name for name, _ in problems} else USAGE
        case ParameterError():
            return USAGE
        case _:
            return FAILED


def _said(error: ChatKitError) -> str:
    said = str(error)
    if isinstance(error, ConfigurationError):
        said = said.replace("set it, or pass api_key=...", "set it")  # no command takes it
        said += "\n`chatkit-async doctor` shows where each setting comes from."
    return said


def _show_warning(message: Warning | str, *_where: object, **_how: object) -> None:
    note(f"Warning: {message}")
