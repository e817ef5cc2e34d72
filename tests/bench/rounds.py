"""A run: in every round each peer does every scenario, in turns."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

import meter
import server
from meter import Measured
from scenarios import (
    BASE,
    CODE,
    COMPARISONS,
    CROWD,
    FLOOR_UVLOOP,
    GROWTH,
    HELD,
    HELD_ITEMS,
    NEEDS,
    ON_IP,
    PACE,
    SCENARIOS,
    US,
    US_BLOCKING,
    US_COMMAND,
    USUAL_PACE,
    Scenario,
)
from worker import Worker, clean_environment

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from report import Figure

Found: TypeAlias = "dict[Scenario, dict[str, list[Measured]]]"

CAN_PIN = hasattr(os, "sched_setaffinity")
CORES = os.sched_getaffinity(0) if CAN_PIN else set[int]()

_IMPORT = """
import json, os, time
cpu, wall = time.process_time(), time.perf_counter()
{}
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
try:
    with open("/proc/self/statm") as file:
        memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
except OSError:
    memory = 0
print(json.dumps(dict(requests=1, cpu=cpu, wall=wall, memory=memory)))
"""


class Run:
    """One run: who takes part, and what is found.

    Attributes:
        found: What was measured: for each scenario and peer, round by round.
        notes: What else is to be known.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._rounds: int = options.rounds
        self._scale: float = options.scale
        self._base: Path | None = options.base
        self.notes: list[str] = []
        parts = options.only or {scenario.part for scenario in SCENARIOS}
        self._scenarios = [scenario for scenario in SCENARIOS if scenario.part in parts]
        self._rows: int = options.rows
        self._absent = set[str]()
        if self._base is None:
            self._absent.add(BASE)
        for library in dict.fromkeys(NEEDS.values()):
            if library in options.without:
                self._leave_out(library, "as asked")
            elif find_spec(library) is None:
                self._leave_out(library, "it is not installed (dependency group bench)")
        self._look_at_bulk()
        self._look_at_the_system()
        self.found: Found = {scenario: defaultdict(list) for scenario in self._scenarios}

    def _leave_out(self, library: str, reason: str) -> None:
        self._absent.update(peer for peer, needed in NEEDS.items() if needed == library)
        self.notes.append(f"{library} is left out: {reason}")

    def _look_at_bulk(self) -> None:
        """Leave out what this version of the package has not."""
        from chatkit_async import sessions, sync

        if not hasattr(sessions.AsyncSessions, "create_many"):
            self._drop(lambda scenario: scenario.task in {"bulk", "growth"}, "no create_many")
            return
        if not hasattr(sync.Sessions, "create_many"):
            self._absent.add(US_BLOCKING)
            self.notes.append(f"{US_BLOCKING} is left out: no create_many")
        if not _has_command("bulk"):
            self._absent.add(US_COMMAND)
            self.notes.append(f"{US_COMMAND} is left out: no command bulk (extra cli)")

    def _look_at_the_system(self) -> None:
        """Leave out what this system cannot do."""
        if not CAN_PIN:
            self.notes.append("this system keeps no process on one core: there, one is any")
        files, needed = server.raise_open_files(), self._requests(CROWD, US) + 200
        if files < needed:
            self._drop(
                lambda scenario: scenario in {CROWD, HELD},
                f"a process may open {files} files here, not {needed} (ulimit -Hn)",
            )
        if not meter.CAN_TELL_MEMORY:
            self._drop(
                lambda scenario: scenario in {HELD, GROWTH, HELD_ITEMS}, "this system has no /proc"
            )

    def _drop(self, condition: Callable[[Scenario], bool], reason: str) -> None:
        for scenario in [scenario for scenario in self._scenarios if condition(scenario)]:
            self._scenarios.remove(scenario)
            self.notes.append(f"{scenario.name!r} is left out: {reason}")

    # Measuring

    def go(self) -> None:
        """Let the peers take turns at each scenario, in every round in new processes."""
        for scenario, peer in CODE:  # fills the caches, of bytecode and of files
            if scenario in self._scenarios and peer not in self._absent:
                self._import(scenario, peer)
        with server.Server() as load_server:
            for number in range(self._rounds):
                print(f"round {number + 1} of {self._rounds}", file=sys.stderr)
                with ExitStack() as stack:
                    workers: dict[str, Worker] = {}
                    for scenario in self._scenarios:
                        for peer in self._order(scenario.peers, number):
                            measured = self._measure(scenario, peer, load_server, workers, stack)
                            self.found[scenario][peer].append(measured)
            self.notes.append(f"the load server runs on {load_server.loop}")
            if ON_IP in self.found:
                self._say_what_the_server_can_do(load_server.port)

    def _order(self, peers: Iterable[str], number: int) -> list[str]:
        """Those of the peers that take part, in each round starting with the next one."""
        present = [peer for peer in peers if peer not in self._absent]
        first = number % len(present) if present else 0
        return present[first:] + present[:first]

    def _measure(
        self,
        scenario: Scenario,
        peer: str,
        load_server: server.Server,
        workers: dict[str, Worker],
        stack: ExitStack,
    ) -> Measured:
        if scenario.task == "import":
            return self._import(scenario, peer)
        if scenario.fresh:
            with self._worker(peer) as worker:
                return self._send(worker, scenario, peer, load_server)
        if peer not in workers:
            workers[peer] = stack.enter_context(self._worker(peer))
        return self._send(workers[peer], scenario, peer, load_server)

    def _worker(self, peer: str) -> Worker:
        return Worker(US if peer == BASE else peer, self._environment(peer))

    def _send(
        self, worker: Worker, scenario: Scenario, peer: str, load_server: server.Server
    ) -> Measured:
        if CAN_PIN:
            for pid in (worker.pid, load_server.pid):  # the threads they start inherit it
                os.sched_setaffinity(pid, {max(CORES)} if scenario.one_core else CORES)
        requests = self._requests(scenario, peer)
        return worker.measure(
            scenario.task,
            base_url=f"http://{scenario.host}:{load_server.port}/{scenario.path}/v1",
            requests=requests,
            at_once=min(scenario.at_once, requests),
        )

    def _requests(self, scenario: Scenario, peer: str) -> int:
        if scenario == GROWTH:
            return max(int(self._rows * self._scale), 100)
        if scenario.requests is not None:
            return max(int(scenario.requests * self._scale), 10)
        pace = PACE.get(peer, USUAL_PACE)
        return max(int(scenario.seconds / pace * self._scale), scenario.at_once)

    def _import(self, scenario: Scenario, peer: str) -> Measured:
        code = CODE[scenario, US if peer == BASE else peer]
        done = subprocess.run(
            [sys.executable, "-P", "-c", _IMPORT.format(code)],
            env=self._environment(peer),
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            timeout=60,
        )
        return Measured(**json.loads(done.stdout))

    def _environment(self, peer: str) -> dict[str, str]:
        environment = clean_environment()
        if peer == BASE:
            environment["PYTHONPATH"] = str(self._base)
        return environment

    # What it comes to

    def _say_what_the_server_can_do(self, port: int) -> None:
        """Say what the load server can do alone, so that nobody has to trust it."""
        for peer in (FLOOR_UVLOOP, "floor"):
            if rounds := self.found[ON_IP].get(peer):
                alone = statistics.median(1 / each.server_cpu for each in rounds)
                busy = statistics.median(each.server_cpu * each.rate for each in rounds)
                seen = statistics.median(each.rate for each in rounds)
                self.notes.append(
                    f"alone, the load server can answer {alone:,.0f} requests a second, by its "
                    f"own CPU time; it answered {seen:,.0f} of {peer}, {busy:.0%} busy"
                )
                break
        if (wrk := shutil.which("wrk")) is not None:
            url = f"http://127.0.0.1:{port}/"
            command = [wrk, "--threads=1", "--connections=50", "--duration=2s", url]
            done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
            line = next(line for line in done.stdout.splitlines() if "Requests/sec" in line)
            self.notes.append(f"wrk, which asks it for its stats: {line.strip()}")

    def figures(self) -> list[Figure]:
        """What the rounds come to."""
        made = (comparison.figure(self.found) for comparison in COMPARISONS)
        return [figure for figure in made if figure is not None]

    def context(self) -> list[dict[str, Any]]:
        """What the figures are made of, in absolute numbers: a row for each client and scenario."""
        return [
            _described(scenario, peer, rounds)
            for scenario, by_peer in self.found.items()
            for peer, rounds in by_peer.items()
        ]


def _has_command(name: str) -> bool:
    try:
        from chatkit_async.cli import commands
    except ImportError:
        return False
    return name in commands.commands


def _described(scenario: Scenario, peer: str, rounds: list[Measured]) -> dict[str, Any]:
    row: dict[str, Any] = {"what": scenario.name, "who": peer, "at_once": scenario.at_once}
    values = {
        "cpu_us": [each.cpu * 1e6 for each in rounds],
        "p50_us": [each.p50 * 1e6 for each in rounds],
        "p99_us": [each.p99 * 1e6 for each in rounds],
        "rate": [each.rate for each in rounds if scenario.task not in {"import", "decode"}],
        "server_cpu_us": [each.server_cpu * 1e6 for each in rounds],
        "server_busy": [each.server_cpu * each.rate for each in rounds],
        "memory": [each.memory for each in rounds],
    }
    for name, numbers in values.items():
        if any(numbers):
            row[name] = statistics.median(numbers)
    row["rounds"] = {name: numbers for name, numbers in values.items() if any(numbers)}
    return row
