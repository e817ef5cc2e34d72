"""`chatkit-async emulator`."""

import asyncio
import sys
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import click

from chatkit_async.cli._options import json_option
from chatkit_async.cli._output import note, write, write_json
from chatkit_async.cli._running import run

if TYPE_CHECKING:
    from chatkit_async.emulator import Record


@click.command(short_help="Serve the API on this machine, to try things on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Where to listen. Default: a free one."
)
@json_option
def emulator(*, port: int, as_json: bool) -> None:
    """Serve the ChatKit sessions API on this machine, until Ctrl-C.

    Prints on stdout what to set in another terminal to use it, and on stderr a line for each
    request. It takes any key and any workflow, keeps what it makes in memory, and cannot be
    reached from other machines.
    """
    run(_serve(port, as_json=as_json))


async def _serve(port: int, *, as_json: bool) -> None:
    from chatkit_async.emulator import Emulator  # noqa: PLC0415 - it brings a web server

    server = Emulator(port=port, on_request=_show)
    try:
        await server.__aenter__()
    except OSError as error:
        raise click.ClickException(
            f"port {port} cannot be had: {error.strerror}. Choose another, or leave --port out."
        ) from None
    try:
        if as_json:
            write_json({"base_url": server.base_url, "api_key": server.api_key})
        else:
            for name, value in (
                ("OPENAI_BASE_URL", server.base_url),
                ("OPENAI_API_KEY", server.api_key),
            ):
                write(assignment(name, value))
        note("Serving. Set these in another terminal; Ctrl-C ends it.")
        await asyncio.get_running_loop().create_future()
    finally:
        await server.__aexit__()


def assignment(name: str, value: str, platform: str = sys.platform) -> str:
    """The line that sets a variable: in PowerShell on Windows, else in a shell of Unix."""
    return f'$env:{name} = "{value}"\n' if platform == "win32" else f"export {name}={value}\n"


def _show(record: "Record") -> None:
    at = datetime.fromtimestamp(record.received_at).astimezone()
    with suppress(click.exceptions.Exit):  # nobody reads it; whoever asked still gets a reply
        note(f"{at:%H:%M:%S} {record}")
