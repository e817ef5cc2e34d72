"""`chatkit-async doctor`."""

import platform
from collections.abc import AsyncIterator, Callable

import aiohttp
import attrs
import click

from chatkit_async import __version__
from chatkit_async._exit_codes import AUTHENTICATION, FAILED
from chatkit_async.cli._connection import connection
from chatkit_async.cli._finding import Finding, State
from chatkit_async.cli._options import debug_option, json_option
from chatkit_async.cli._output import Page, without_secrets, write_json
from chatkit_async.cli._running import run
from chatkit_async.cli._settings import settings

LONGEST_STEP = 600
"""Seconds."""

_STYLES: dict[State, str] = {
    "ok": "green",
    "warning": "bold magenta",
    "failed": "bold red",
    "skipped": "bold",
}


@click.command(short_help="Find out what is wrong with the setup.")
@click.option(
    "--timeout",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Limit of each step.",
)
@json_option
@debug_option
@click.pass_context
def doctor(context: click.Context, /, *, timeout: float, as_json: bool) -> None:
    """Say where each setting comes from, and whether the API can be reached with them.

    It creates no session, and makes two requests. One asks to cancel a session that does not
    exist: that takes a working key, and changes nothing. The other asks for one thread, to see if
    threads can be read; nothing of it is shown. Against an emulator it works the same.
    """
    if not 0 < timeout <= LONGEST_STEP:  # not click's own range, which lets NaN through
        raise click.UsageError(f"--timeout should be more than 0 and at most {LONGEST_STEP}.")
    show = _show_json if as_json else _shower(Page())
    context.exit(run(_examine(show, timeout)))


async def _examine(show: Callable[[Finding], None], timeout: float) -> int:
    """Show each finding as it comes, and return the exit code."""
    failed: list[Finding] = []
    async for finding in _findings(timeout):
        # A key may have got into another setting.
        show(attrs.evolve(finding, said=without_secrets(finding.said)))
        if finding.state == "failed":
            failed.append(finding)
    if any(finding.concerns_key for finding in failed):
        return AUTHENTICATION
    return FAILED if failed else 0


async def _findings(timeout: float) -> AsyncIterator[Finding]:
    yield _versions()
    target, found = settings()
    for finding in found:
        yield finding
    async for finding in connection(target, timeout):
        yield finding


def _versions() -> Finding:
    return Finding(
        "versions",
        "ok",
        f"chatkit-async {__version__}, Python {platform.python_version()}, "
        f"aiohttp {aiohttp.__version__}, {platform.system()}",
    )


def _show_json(finding: Finding) -> None:
    write_json(
        {
            "check": finding.check,
            "state": finding.state,
            "said": finding.said,
            "advice": list(finding.advice),
        }
    )


def _shower(page: Page) -> Callable[[Finding], None]:
    def show(finding: Finding) -> None:
        page.item(finding.state, _STYLES[finding.state], f"{finding.check}: {finding.said}")
        for advice in finding.advice:
            page.prose(advice, indent=page.ITEM_INDENT)

    return show
