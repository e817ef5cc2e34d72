"""`chatkit-async` and `python -m chatkit_async`."""

import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from io import TextIOWrapper
from typing import NoReturn

from chatkit_async._exit_codes import FAILED, USAGE, after_signal

NEEDED = ("click", "rich")


def main() -> int:
    """Run the command line on this process's arguments, and end the process."""
    if any(find_spec(name) is None for name in NEEDED):
        print(  # noqa: T201 - what would print it is what is missing
            "The command line needs click and rich: run `python -m pip install click rich`.",
            file=sys.stderr,
        )
        return USAGE
    for stream in (sys.stdout, sys.stderr):
        # A console that cannot show a character shows its code instead of a traceback.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = 0
    try:
        for name in ("SIGTERM", "SIGHUP"):  # the first process of a container ignores them else
            number: signal.Signals | None = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)
        from chatkit_async.cli import commands  # noqa: PLC0415 - it may not be installed

        commands()
    except KeyboardInterrupt:  # before a command had begun
        code = after_signal(signal.SIGINT)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else FAILED
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            with suppress(OSError):  # whoever was reading has gone
                stream.flush()
    # The interpreter's own exit waits for threads, such as one that looks up a host's name.
    os._exit(code)


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(after_signal(signal.Signals(number)))


if __name__ == "__main__":
    sys.exit(main())
