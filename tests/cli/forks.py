"""Run as a program: runs the command line in forks of itself, each ended at a step of its journal.

A fork is a start without the second that imports take. This process has one thread, as forking
wants, and the steps are counted in the fork itself: no run is hit at another step for being slow.

It reads a line of JSON for each run, and answers with one: the exit code, or minus the signal.
A run has `arguments`, `output` (where stdout and stderr go, and stdin is; it runs in that folder), `environment`, and `at`: signals by
the moment at which they come, as `{"after_3": ["SIGKILL"]}`. Step n is the n-th record that is
written, and `during` it is between its halves. In place of a signal, "unlink" and "truncate" do so
to the journal.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import chatkit_async.cli  # noqa: F401 - here, so that no fork has to
from chatkit_async import __main__ as program


def main():
    for line in sys.stdin:
        run = json.loads(line)
        child = os.fork()
        if not child:
            become(**run)
        status = os.waitpid(child, 0)[1]
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def become(arguments, output, environment, at):
    """Be the command line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(Path(output).parent)
    descriptor = os.open(output, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (0, 1, 2):
        os.dup2(descriptor, stream)
    # Those of this process know how to seek in what they were opened on.
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.update(environment)
    if at:
        Steps(at, journal=Path(arguments[arguments.index("-o") + 1]))
    sys.argv[1:] = arguments
    program.main()


class Steps:
    """Counts the records that are written, and sends signals to this process."""

    def __init__(self, at, journal):
        self.at = at
        self.others = {"unlink": journal.unlink, "truncate": lambda: os.truncate(journal, 0)}
        self.number = 0
        self.write_really, os.write = os.write, self.write

    def write(self, descriptor, data):
        if not bytes(data).startswith((b'{"record"', b'{"thread"')):
            return self.write_really(descriptor, data)
        self.number += 1
        self.reach("before")
        half = len(data) // 2 if f"during_{self.number}" in self.at else 0
        written = self.write_really(descriptor, data[:half]) if half else 0
        self.reach("during")
        written += self.write_really(descriptor, data[half:])
        self.reach("after")
        return written

    def reach(self, moment):
        for name in self.at.get(f"{moment}_{self.number}", ()):
            if name in self.others:
                self.others[name]()
            else:
                os.kill(os.getpid(), signal.Signals[name])


if __name__ == "__main__":
    main()
