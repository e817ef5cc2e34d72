"""Programs that are started as forks of a process which has imported the package.

Imports take half a second of CPU time, and a fork hardly any. Run as a program, this module is that
process. It has one thread, as forking wants. Over a socket it gets programs, with their streams, and
questions for their ends, each as a line of JSON, and answers each with a line of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType


class Programs:
    """The process that forks, as the tests see it."""

    def __init__(self):
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        self._answers = self._socket.makefile()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                # Pipes, which cannot seek, so that a fork's streams may be anything.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Without coverage: nothing is covered only in here.
                env={key: os.environ[key] for key in os.environ if not key.startswith("COVERAGE")},
            )

    def start(self, program, **options):
        """Start a program, given as what follows `python` on a command line, as `Popen` does."""
        return Fork(self, program, **options)

    def ask(self, question, streams=()):
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(question).encode() + b"\n"], streams)
            return json.loads(self._answers.readline())

    def close(self):
        self._answers.close()
        self._socket.close()
        self._process.communicate()


class Fork(subprocess.Popen):
    """A `Popen` whose process is a fork; what it overrides is the same from Python 3.11 to 3.13."""

    def __init__(self, programs, program, **options):
        self._programs = programs
        super().__init__(program, **options)

    def _execute_child(self, args, *options):
        cwd, env = options[4:6]
        pipes = options[9:15]
        theirs = (pipes[0], pipes[3], pipes[5])
        streams = [number if pipe == -1 else pipe for number, pipe in enumerate(theirs)]
        program = [os.fspath(arg) for arg in args]
        place = {"cwd": os.fspath(cwd or Path.cwd()), "environment": dict(env or os.environ)}
        self.pid = self._programs.ask({"program": program, **place}, streams)
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _try_wait(self, wait_flags):
        return self._programs.ask({"pid": self.pid, "flags": wait_flags})

    def _internal_poll(self, **_):
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def serve():
    """Fork until the tests are over. Return in each fork, with what it has to be."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the tests' to end by
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        while True:
            data, streams, *_ = socket.recv_fds(connection, 1 << 16, 3)
            while data and not data.endswith(b"\n"):
                data += connection.recv(1 << 16)
            if not data:
                return None
            question = json.loads(data)
            if "pid" in question:
                answer = os.waitpid(question["pid"], question["flags"])
            elif answer := os.fork():
                for stream in streams:
                    os.close(stream)
            else:
                return {"streams": streams, **question}
            connection.sendall(json.dumps(answer).encode() + b"\n")


def become(program, streams, cwd, environment):
    """Be a program. What is left to do when it returns is to end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if program[0] == "-m":
        sys.argv[1:] = program[2:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = ModuleType("__main__")
    if program[0] == "-c":
        code = program.pop(1)
    else:
        main.__file__ = program[0]
        code = Path(program[0]).read_text(encoding="utf-8")
    sys.argv = program
    exec(compile(code, program[0], "exec"), vars(main))  # noqa: S102 - it is the test's


if __name__ == "__main__":
    import chatkit_async.cli
    import chatkit_async.emulator
    import chatkit_async.sync  # noqa: F401 - here, so that no fork has to

    gc.freeze()  # a collection, as there is at the end, would copy all of that for a fork
    if (fork := serve()) is not None:
        become(**fork)
