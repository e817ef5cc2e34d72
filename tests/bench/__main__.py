"""What our client costs, against others on the same machine in the same minutes.

`nox -s bench`, or `python tests/bench` where the package and the `bench` group are installed. Every
figure is a ratio within one run: the clients take turns, round by round, each in a process of its
own, on one load server. CPU time is compared where that is the cost: a busy machine changes it the
least.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import baseline
import plots
import report
from rounds import Run
from scenarios import GROWTH, NEEDS, PARTS

REPORT = Path(__file__).parents[2] / "build" / "bench.json"


def main() -> int:
    """Measure, print the report, and write it as JSON, with plots beside it."""
    options = _options()
    if options.layers:
        import layers  # only here: it imports the package

        layers.main(options.rounds, options.scale)
        return 0
    run = Run(options)
    busy, started = [report.load()], time.monotonic()
    run.go()
    busy.append(report.load())
    figures = baseline.compared(run.figures(), options.baseline)
    whole = {
        "machine": {**report.machine(), "load_before_and_after": busy},
        "versions": report.versions(),
        "rounds": options.rounds,
        "seconds": round(time.monotonic() - started),
        "figures": [figure.as_json() for figure in figures],
        "context": run.context(),
        "notes": run.notes,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    drawn = plots.draw(whole, options.json.parent)
    print(report.text(figures, whole))
    print(f"\nas JSON: {options.json}", *(f"plot: {path}" for path in drawn), sep="\n")
    if options.save:
        baseline.save(whole, options.baseline)
    if options.docs:
        baseline.document(whole, drawn)
    worse = [figure.name for figure in figures if figure.worse]
    for name in worse:
        print(f"more than {report.TOLERANCE:.0%} worse than the baseline: {name}")
    return int(options.check and bool(worse))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="may be repeated")
    parser.add_argument(
        "--without", action="append", choices=sorted(set(NEEDS.values())), default=[]
    )
    parser.add_argument("--layers", action="store_true", help="where our own CPU time goes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="of the requests in each round")
    parser.add_argument(
        "--rows", type=int, default=GROWTH.requests, help="of the run whose growth is measured"
    )
    parser.add_argument("--base", type=Path, help="another checkout of ours, to compare with")
    parser.add_argument(
        "--check", action="store_true", help="fail if a ratio is worse than the baseline's"
    )
    parser.add_argument("--save", action="store_true", help="keep this run as the baseline")
    parser.add_argument("--baseline", type=Path, default=baseline.BASELINE)
    parser.add_argument(
        "--docs", action="store_true", help="put figures and plots into the documentation"
    )
    parser.add_argument("--json", type=Path, default=REPORT)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
