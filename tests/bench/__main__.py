"""What our client costs, against others on the same machine in the same minutes.

`nox -s bench`, or `python tests/bench` where the package and the `bench` group are installed. Every
figure is a ratio within one run: the clients take turns, round by round, each in a process of its
own, on one load server. CPU time is compared where that is the cost: a busy machine changes it the
least.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import layers
import report
from report import Figure
from scenarios import (
    BASE,
    COMPARISONS,
    CROSSINGS,
    FLOOR,
    IMPORT_AIMS,
    IMPORTS,
    ON_IP,
    OPENAI,
    PACE,
    SCENARIOS,
    US,
    Scenario,
)
from server import Server
from worker import Worker, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker import Measured

Found: TypeAlias = "dict[Scenario, dict[str, list[Measured]]]"

REPORT = Path(__file__).parents[2] / "build" / "bench.json"

PARTS = ("import", "create", "sync")

CAN_PIN = hasattr(os, "sched_setaffinity")
CORES = os.sched_getaffinity(0) if CAN_PIN else set[int]()

_TIMED_IMPORT = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"


class Run:
    """One run: who takes part, and what is found.

    Attributes:
        figures: Ratios.
        context: What they were made of, in absolute numbers: a row for each client and scenario.
        notes: What else is to be known.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._parts: list[str] = options.only or list(PARTS)
        self._rounds: int = options.rounds
        self._scale: float = options.scale
        self._base: Path | None = options.base
        self.figures: list[Figure] = []
        self.context: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._absent = set[str]()
        if self._base is None:
            self._absent.add(BASE)
        if OPENAI in options.without:
            self._leave_out(OPENAI, "as asked")
        elif find_spec("openai") is None:
            self._leave_out(OPENAI, "it is not installed (dependency group bench)")
        if "sync" in self._parts and find_spec("chatkit_async.sync") is None:
            self._parts.remove("sync")
            self.notes.append("sync is left out: there is no chatkit_async.sync")

    def go(self) -> None:
        """Measure what was asked for."""
        if "import" in self._parts:
            self._imports()
        if scenarios := [scenario for scenario in SCENARIOS if scenario.part in self._parts]:
            self._creates(scenarios)

    def _leave_out(self, peer: str, reason: str) -> None:
        self._absent.add(peer)
        self.notes.append(f"{peer} is left out: {reason}")

    def _order(self, peers: Iterable[str], number: int) -> list[str]:
        """Those of the peers that take part, in each round starting with the next one."""
        present = [peer for peer in peers if peer not in self._absent]
        first = number % len(present)
        return present[first:] + present[:first]

    def _environment(self, peer: str) -> dict[str, str]:
        environment = clean_environment()
        if peer == BASE:
            environment["PYTHONPATH"] = str(self._base)
        return environment

    # Imports

    def _imports(self) -> None:
        """Time each import in fresh interpreters."""
        taken: dict[str, list[float]] = defaultdict(list)
        for number in range(self._rounds + 1):
            for peer in self._order(IMPORTS, number):
                seconds = self._import(peer)
                if number:  # the first filled the caches, of bytecode and of files
                    taken[peer].append(seconds)
        for peer, aim in IMPORT_AIMS.items():
            if peer in taken:
                ratios = [us / them for us, them in zip(taken[US], taken[peer], strict=True)]
                self.figures.append(Figure(name=f"import: CPU, to {peer}", values=ratios, aim=aim))
        for peer, times in taken.items():
            cpu = statistics.median(times) * 1e6
            self.context.append({"what": "import", "who": peer, "cpu_us": cpu})

    def _import(self, peer: str) -> float:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _TIMED_IMPORT.format(IMPORTS[peer])],
            env=self._environment(peer),
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            timeout=60,
        )
        return float(done.stdout)

    # Creates

    def _creates(self, scenarios: list[Scenario]) -> None:
        """Let the clients take turns at each scenario, in every round in new processes."""
        found: Found = {scenario: defaultdict(list) for scenario in scenarios}
        with Server() as server:
            for number in range(self._rounds):
                print(f"round {number + 1} of {self._rounds}", file=sys.stderr)
                with ExitStack() as stack:
                    workers = {
                        peer: stack.enter_context(
                            Worker(US if peer == BASE else peer, self._environment(peer))
                        )
                        for peer in self._order(PACE, number)
                    }
                    for scenario in scenarios:
                        for peer in self._order(scenario.peers, number):
                            measured = self._measure(workers[peer], scenario, peer, server)
                            found[scenario][peer].append(measured)
            self.notes.append(f"the load server runs on {server.loop}")
        if not CAN_PIN:
            self.notes.append("this system keeps no process on one core: there, one is any")
        self._compare(found)
        for scenario, by_peer in found.items():
            for peer, rounds in by_peer.items():
                self._describe(scenario, peer, rounds)

    def _measure(self, worker: Worker, scenario: Scenario, peer: str, server: Server) -> Measured:
        if CAN_PIN:
            for pid in (worker.pid, server.pid):  # the threads they start inherit it
                os.sched_setaffinity(pid, {max(CORES)} if scenario.one_core else CORES)
        requests = int(scenario.seconds / PACE[peer] * self._scale)
        return worker.measure(
            scenario.task,
            base_url=f"http://{scenario.host}:{server.port}/{scenario.path}/v1",
            requests=max(requests, scenario.at_once),
            at_once=scenario.at_once,
        )

    def _compare(self, found: Found) -> None:
        for comparison in COMPARISONS:
            by_peer = found.get(comparison.scenario, {})
            if comparison.peer in by_peer:
                self.figures.append(
                    Figure(
                        name=comparison.name,
                        values=[
                            comparison.value(us) / comparison.value(them)
                            for us, them in zip(by_peer[US], by_peer[comparison.peer], strict=True)
                        ],
                        aim=comparison.aim,
                        at_least=comparison.at_least,
                    )
                )
        for crossing in CROSSINGS:
            if crossing.blocking[0] in found:
                rounds = zip(
                    *(found[s][p] for s, p in (crossing.blocking, crossing.own)), strict=True
                )
                self.figures.append(
                    Figure(
                        name=crossing.name,
                        values=[(blocking.p50 - own.p50) * 1e6 for blocking, own in rounds],
                        aim=crossing.aim,
                        unit=" us",
                    )
                )

    def _describe(self, scenario: Scenario, peer: str, rounds: list[Measured]) -> None:
        self.context.append(
            {
                "what": scenario.name,
                "who": peer,
                "cpu_us": statistics.median(each.cpu for each in rounds) * 1e6,
                "p50_us": statistics.median(each.p50 for each in rounds) * 1e6,
                "rate": statistics.median(each.rate for each in rounds),
                "server_cpu_us": statistics.median(each.server_cpu for each in rounds) * 1e6,
                "server_busy": statistics.median(each.server_cpu * each.rate for each in rounds),
            }
        )
        if (scenario, peer) == (ON_IP, FLOOR):
            busy = max(each.server_cpu * each.rate for each in rounds)
            alone = statistics.median(1 / each.server_cpu for each in rounds)
            self.notes.append(
                f"alone, the load server can answer {alone:.0f} requests a second; "
                f"the floor client keeps it {busy:.0%} busy"
            )


def main() -> None:
    """Measure, print the report, and write it as JSON."""
    options = _options()
    if options.layers:
        layers.main(options.rounds, options.scale)
        return
    run = Run(options)
    busy = [report.load()]
    run.go()
    busy.append(report.load())
    whole = {
        "machine": {**report.machine(), "load_before_and_after": busy},
        "versions": report.versions(),
        "rounds": options.rounds,
        "figures": [figure.as_json() for figure in run.figures],
        "context": run.context,
        "notes": run.notes,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    print(report.text(run.figures, whole))
    print(f"\nas JSON: {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="may be repeated")
    parser.add_argument("--without", action="append", choices=[OPENAI], default=[])
    parser.add_argument("--layers", action="store_true", help="where our own CPU time goes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="of the requests in each round")
    parser.add_argument("--base", type=Path, help="another checkout of ours, to compare with")
    parser.add_argument("--json", type=Path, default=REPORT)
    return parser.parse_args()


if __name__ == "__main__":
    main()
