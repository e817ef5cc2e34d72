"""The exit codes of the command line: one for each kind of failure."""

import signal

FAILED = 1
USAGE = 2
PARTIAL = 3
AUTHENTICATION = 4


def after_signal(number: signal.Signals) -> int:
    """Return the exit code of a program that `number` ended: 129, 130 or 143, as in a shell."""
    return 128 + number
