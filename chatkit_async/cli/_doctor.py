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
from chatkit_async.cli._options import base_url_option, debug_option, json_option
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
@click.option(
    "--workflow", metavar="ID", help="Create a session of this workflow too, and cancel it."
)
@json_option
@base_url_option
@debug_option
@click.pass_context
def doctor(
    context: click.Context, /, *, timeout: float, workflow: str | None, as_json: bool
) -> None:
    """Show where each setting comes from, and check that the API can be used with them.

    Makes two requests that change nothing: one to cancel a session that does not exist, and one
    to list a single thread, which is not shown. Only with --workflow it creates a session.

    \b
      chatkit-async doctor --workflow wf_123
    """  # noqa: D301 - click wants the character itself
    if not 0 < timeout <= LONGEST_STEP:  # not click's own range, which lets NaN through
        raise click.UsageError(f"--timeout should be more than 0 and at most {LONGEST_STEP}.")
    show = _show_json if as_json else _shower(Page())
    context.exit(run(_examine(show, timeout, workflow)))


async def _examine(show: Callable[[Finding], None], timeout: float, workflow: str | None) -> int:
    """Show each finding as it comes, and return the exit code."""
    failed: list[Finding] = []
    async for finding in _findings(timeout, workflow):
        # A key may be in another setting.
        advice = tuple(map(without_secrets, finding.advice))
        show(attrs.evolve(finding, said=without_secrets(finding.said), advice=advice))
        if finding.state == "failed":
            failed.append(finding)
    if any(finding.concerns_key for finding in failed):
        return AUTHENTICATION
    return FAILED if failed else 0


async def _findings(timeout: float, workflow: str | None) -> AsyncIterator[Finding]:
    yield _versions()
    target, found = settings()
    for finding in found:
        yield finding
    async for finding in connection(target, timeout, workflow):
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
