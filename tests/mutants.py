"""What became of the mutants: how many are killed in each module, and which live on.

Run by `nox -s mutants` after mutmut. Those that no test can kill are listed in mutants.txt beside
this file, each with the reason.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LISTED = Path(__file__).with_name("mutants.txt")
WANTED = 0.9
PATIENCE = 20
"""Seconds for a test, which takes much less. A mutant that makes one endless is noticed."""

# What mutmut says of those that it could not see killed, and of those that it may only have been
# too impatient with: what opens sockets and threads is not at its best in a forked process.
DOUBTFUL = {"survived", "no tests", "timeout"}


def main(modules: list[str]) -> int:
    """Report on these modules, or on all; 1: too few are killed."""
    listed = reasons()
    statuses = [
        (name, status) for name, status in results() if not modules or module_of(name) in modules
    ]
    doubtful = {
        name: (function_of(name), change(name)) for name, status in statuses if status in DOUBTFUL
    }
    reasoned = {name for name, mutant in doubtful.items() if mutant in listed}
    unreasoned = survivors(sorted(doubtful.keys() - reasoned))
    counts = {module: Counter() for module in sorted({module_of(name) for name, _ in statuses})}
    for name, status in statuses:
        if name in reasoned | unreasoned:
            fate = "survived"
        else:
            fate = "types" if status == "caught by type check" else "tests"
        counts[module_of(name)][fate] += 1
    for function, lines in sorted(doubtful[name] for name in unreasoned):
        print(f"{function}: no reason given\n{lines}\n")
    if not modules:
        for function, lines in sorted(listed.keys() - {doubtful[name] for name in reasoned}):
            print(f"{function}: listed, and does not survive (any more)\n{lines}\n")
    print(f"{'module':12} {'mutants':>8} {'types':>6} {'tests':>6} {'survive':>8} {'killed':>7}")
    enough = True
    for module, count in counts.items():
        # Those that the type checker refuses are no merit of the tests.
        share = count["tests"] / max(1, count["tests"] + count["survived"])
        enough = enough and share >= WANTED
        figures = f"{count['types']:6} {count['tests']:6} {count['survived']:8} {share:7.1%}"
        print(f"{module:12} {count.total():8} {figures}")
    print(f"{len(reasoned)} survive for a reason, {len(unreasoned)} without")
    return 0 if enough else 1


def reasons() -> dict[tuple[str, str], str]:
    """The mutants that are listed: `function: reason`, the changed lines, and a blank line."""
    listed = {}
    for entry in LISTED.read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in entry.splitlines() if line and not line.startswith("#")]
        if lines:
            function, _, reason = lines[0].partition(": ")
            listed[function, "\n".join(lines[1:])] = reason
    return listed


def results() -> list[tuple[str, str]]:
    """Each mutant's name, and what mutmut says became of it."""
    lines = mutmut("results", "--all", "true").splitlines()
    return [tuple(line.strip().split(": ", maxsplit=1)) for line in lines if "__mutmut_" in line]


def change(name: str) -> str:
    """The lines that make the mutant, without their indentation."""
    lines = [
        line[0] + " " + line[1:].strip()
        for line in mutmut("show", name).splitlines()
        if line[:1] in {"-", "+"} and line[:3] not in {"---", "+++"}
    ]
    return "\n".join(lines)


def mutmut(*arguments: str) -> str:
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def module_of(name: str) -> str:
    return name.split(".")[1]


def function_of(name: str) -> str:
    """`_gate.RateGate.admit` of `chatkit_async._gate.xǁRateGateǁadmit__mutmut_1`."""
    _, module, mangled = name.split(".")
    function = mangled.rpartition("__mutmut_")[0].replace("ǁ", ".").removeprefix("x")
    return f"{module}.{function.removeprefix('.').removeprefix('_')}"


def survivors(names: list[str]) -> set[str]:
    """Those of the mutants that survive by themselves."""
    for module in {module_of(name) for name in names}:
        if not survives_alone(f"chatkit_async.{module}.unchanged"):
            sys.exit(f"the tests of {module} fail without a mutant too")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        survive = pool.map(survives_alone, names)
        return {name for name, survives in zip(names, survive, strict=True) if survives}


def survives_alone(name: str) -> bool:
    """Whether it survives the tests that name its module, in an interpreter of its own.

    mutmut forks from a process that has imported the package: a mutant of what runs at the import
    was never at work there.
    """
    settings = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
    selected = settings["pytest_add_cli_args_test_selection"]
    named = re.compile(rf"\b{module_of(name)}\b")
    tests = [path for path in selected if named.search(Path(path).read_text(encoding="utf-8"))]
    options = ["-x", "-q", f"--timeout={PATIENCE}", *settings["pytest_add_cli_args"]]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd="mutants",
            env=os.environ | {"MUTANT_UNDER_TEST": name},
            capture_output=True,
            check=False,
            timeout=10 * PATIENCE,  # where the test does not end even so
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
