"""`chatkit-async emulator`."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from chatkit_async.cli._options import json_option
from chatkit_async.cli._output import note, write, write_json
from chatkit_async.cli._running import run

if TYPE_CHECKING:
    from chatkit_async.emulator import (
        DeletedCursor,
        Emulator,
        Fault,
        Latency,
        RateLimit,
        Record,
        RetryAfter,
    )

# What the options are made into is imported late: the emulator brings a web server.


def _latency(
    _context: click.Context, _parameter: click.Parameter, given: str | None
) -> "Latency | None":
    from chatkit_async.emulator import Exponential, LogNormal, Uniform  # noqa: PLC0415 - see above

    if given is None:
        return None
    name, *numbers = given.split(":")
    try:
        match name, list(map(float, numbers)):
            case "uniform", [low, high]:
                return Uniform(low, high)
            case "exponential", [mean]:
                return Exponential(mean)
            case "lognormal", [median]:
                return LogNormal(median)
            case "lognormal", [median, sigma]:
                return LogNormal(median, sigma)
            case _:
                return float(given)
    except ValueError as error:
        raise click.BadParameter(
            f"{given!r} should be seconds, uniform:LOW:HIGH, exponential:MEAN or "
            f"lognormal:MEDIAN[:SIGMA] ({error})."
        ) from None


def _faults(
    _context: click.Context, _parameter: click.Parameter, given: Sequence[str]
) -> "list[Fault]":
    from chatkit_async.emulator._errors import ApiError  # noqa: PLC0415 - see above
    from chatkit_async.emulator._readers import parse_fault  # noqa: PLC0415 - see above

    try:
        return [parse_fault(text) for text in given]
    except ApiError as error:
        raise click.BadParameter(error.message) from None


def _time(_context: click.Context, _parameter: click.Parameter, given: str | None) -> float | None:
    if given is None:
        return None
    try:
        return float(given)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(given).timestamp()
    except ValueError:
        raise click.BadParameter(
            f"{given!r} should be Unix seconds or a date and time such as 2027-01-01T12:00:00Z."
        ) from None


def _rate_limit(
    rate: float | None,
    burst: int | None,
    window: float | None,
    retry_after: str | None,
    *,
    per_key: bool,
) -> "RateLimit | None":
    from chatkit_async.emulator import FixedWindow, TokenBucket  # noqa: PLC0415 - see above

    if rate is None:
        if burst is not None or window is not None or retry_after is not None or per_key:
            raise click.UsageError(
                "--burst, --window, --retry-after and --per-key go with --rate-limit."
            )
        return None
    if burst is not None and window is not None:
        raise click.UsageError("--burst is a bucket's: it does not go with --window.")
    try:
        wait = _wait(retry_after)
        if window is None:
            if burst is None:
                return TokenBucket(rate=rate, retry_after=wait, per_key=per_key)
            return TokenBucket(rate=rate, burst=burst, retry_after=wait, per_key=per_key)
        if not rate.is_integer():
            raise click.UsageError("--rate-limit should be a whole number, with --window.")
        return FixedWindow(limit=int(rate), window=window, retry_after=wait, per_key=per_key)
    except ValueError as error:
        raise click.UsageError(f"no such rate limit: {error}.") from None


def _wait(retry_after: str | None) -> "RetryAfter":
    match retry_after:
        case None | "exact":
            return "exact"
        case "none":
            return None
        case _:
            try:
                return float(retry_after)
            except ValueError:
                message = f"retry_after={retry_after!r}: expected seconds, 'exact' or 'none'"
                raise ValueError(message) from None


@click.command(short_help="Serve an emulator of the API on this machine.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="The port to listen on. Default: a free one.",
)
@click.option(
    "--rate-limit", type=float, metavar="N", help="Requests per second. More are refused with 429."
)
@click.option(
    "--burst", type=int, metavar="N", help="Requests at once. Default: those of a second."
)
@click.option(
    "--window",
    type=float,
    metavar="SECONDS",
    help="Count the requests of --rate-limit in fixed windows of this length.",
)
@click.option(
    "--retry-after",
    metavar="SECONDS",
    help="The wait that a 429 asks for: seconds, 'exact' for the time needed, or 'none'. "
    "Default: exact.",
)
@click.option("--per-key", is_flag=True, help="Count the requests of each API key separately.")
@click.option(
    "--latency",
    metavar="SECONDS",
    callback=_latency,
    help="Seconds before each reply, or uniform:LOW:HIGH, exponential:MEAN, "
    "lognormal:MEDIAN:SIGMA.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT",
    callback=_faults,
    help="A fault, such as 'status=503; retry-after=1; chance=0.1' or "
    "'operation=cancel; user=ada; every=3; drop=close'. Repeatable.",
)
@click.option(
    "--off-schema",
    is_flag=True,
    help="Reply as the API's documentation shows, which breaks its schema.",
)
@click.option(
    "--retired",
    is_flag=True,
    help="Refuse each create with 410, as the hosted service may after its end.",
)
@click.option(
    "--deleted-cursor",
    type=click.Choice(["error", "ignore", "accept"]),
    default="error",
    help="For a deleted cursor, a list replies with an error, starts at its beginning, or "
    "continues from there. Default: error.",
)
@click.option(
    "--state",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="JSON lines with threads, sessions, faults and the time to begin with.",
)
@click.option(
    "--workflow",
    "workflows",
    multiple=True,
    metavar="ID",
    help="A workflow that exists; others are not found. Repeatable. Default: any.",
)
@click.option(
    "--check-key", is_flag=True, help="Accept only the key that is printed. Default: any."
)
@click.option("--allow-real-keys", is_flag=True, help="Accept keys that look real.")
@click.option(
    "--time",
    "now",
    metavar="WHEN",
    callback=_time,
    help="The time: Unix seconds, or 2027-01-01T12:00:00Z. Default: the real time.",
)
@click.option("--freeze", is_flag=True, help="Stop the clock until it is moved.")
@click.option("--seed", type=int, default=0, help="The seed of ids and of random faults.")
@json_option
def emulator(
    *,
    port: int,
    rate_limit: float | None,
    burst: int | None,
    window: float | None,
    retry_after: str | None,
    per_key: bool,
    latency: "Latency | None",
    faults: "list[Fault]",
    off_schema: bool,
    retired: bool,
    deleted_cursor: "DeletedCursor",
    state: str | None,
    workflows: Sequence[str],
    check_key: bool,
    allow_real_keys: bool,
    now: float | None,
    freeze: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Serve the ChatKit API on this machine, until Ctrl-C.

    Prints the settings for another terminal on stdout, and a line for each request on stderr. It
    accepts any workflow and any key that does not look real, keeps its data in memory, and listens
    on this machine only. Its state can be read and changed as JSON under /_emulator/.

    \b
      chatkit-async emulator --port 8090 --rate-limit 25
    """  # noqa: D301 - click wants the character itself
    from chatkit_async.emulator import Clock, Emulator  # noqa: PLC0415 - see above

    limit = _rate_limit(rate_limit, burst, window, retry_after, per_key=per_key)
    try:
        clock = Clock()
        if freeze:
            clock.freeze()
        if now is not None:
            clock.set(now)
        server = Emulator(
            port=port,
            api_keys=[] if check_key else None,
            workflows=workflows or None,
            allow_real_keys=allow_real_keys,
            clock=clock,
            rate_limit=limit,
            latency=0.0 if latency is None else latency,
            faults=faults,
            off_schema=off_schema,
            retired=retired,
            deleted_cursor=deleted_cursor,
            state=state,
            seed=seed,
            on_request=_show,
        )
    except (ValueError, OSError) as error:
        raise click.UsageError(f"{error}.") from None
    run(_serve(server, port, as_json=as_json))


async def _serve(server: "Emulator", port: int, *, as_json: bool) -> None:
    try:
        await server.__aenter__()
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on port {port}: {error.strerror}. Choose another, or leave --port out."
        ) from None
    try:
        if as_json:
            write_json(
                {
                    "base_url": server.base_url,
                    "api_key": server.api_key,
                    "control_url": server.control_url,
                }
            )
        else:
            for name, value in (
                ("OPENAI_BASE_URL", server.base_url),
                ("OPENAI_API_KEY", server.api_key),
            ):
                write(assignment(name, value))
        note("Serving. Set these in another terminal; Ctrl-C ends it.")
        note(f"Its state can be read and set at {server.control_url}/state and beside it.")
        await asyncio.get_running_loop().create_future()
    finally:
        await server.__aexit__()


def assignment(name: str, value: str, platform: str = sys.platform) -> str:
    """Return the line that sets a variable, for PowerShell on Windows and a Unix shell elsewhere."""
    return f'$env:{name} = "{value}"\n' if platform == "win32" else f"export {name}={value}\n"


def _show(record: "Record") -> None:
    try:
        at = f"{datetime.fromtimestamp(record.received_at).astimezone():%H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # the clock was set beyond all calendars
        at = f"{record.received_at:.0f}"
    note(f"{at} {record}")
