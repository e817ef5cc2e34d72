"""Development tasks. `nox` runs what CI runs, `nox -l` lists the sessions.

Everything comes from PyPI by pip; an interpreter that is not there is skipped with a line saying so.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"
nox.options.download_python = "never"
# Nox turns a missing interpreter into a failure when CI is set. Whoever has one Python can still
# pass the tests on it, and CI shows in its output what it skipped.
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"
nox.options.envdir = os.environ.get("NOX_ENVDIR", ".nox")
nox.options.sessions = ["lint", "types", "docs", "tests", "lowest"]

HERE = Path(__file__).parent
PYPROJECT = nox.project.load_toml(HERE / "pyproject.toml")

PYTHONS = nox.project.python_versions(PYPROJECT)
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
if RUNNING not in PYTHONS:
    # On a Python newer than the classifiers, do not skip everything and call it a success.
    PYTHONS.append(RUNNING)

# pyenv puts only the selected versions' interpreters to work; its shims for the others fail when
# run. Last on PATH, the installed versions are found all the same.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
os.environ["PATH"] = os.pathsep.join(
    [
        os.environ["PATH"],
        *(str(d) for v in PYTHONS for d in sorted(PYENV.glob(f"versions/{v}.*/bin"))),
    ]
)


def group(name: str) -> list[str]:
    """The requirements of a dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def lower_bounds() -> list[str]:
    """The lowest version each runtime requirement allows, as constraints."""
    project = PYPROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [
        f"{requirement.name}=={specifier.version}"
        for requirement in map(Requirement, itertools.chain.from_iterable(lists))
        for specifier in requirement.specifier
        if specifier.operator == ">="
    ]


def run_tests(session: nox.Session, *pytest_options: str) -> None:
    """Run the tests under coverage, against the package as it is installed.

    Each interpreter stands alone: its data is combined (from threads, forks and subprocesses) and
    has to reach 100% by itself, so that a machine with one Python gets the same verdict as CI.
    """
    # Keeps the checkout off sys.path: what is tested is the wheel's content.
    session.env["PYTHONSAFEPATH"] = "1"
    session.env["COVERAGE_FILE"] = str(Path(session.virtualenv.location).resolve() / "coverage")
    session.run("coverage", "erase")
    # A process per core: the tests of faults, forks and simulated hours are many.
    session.run("coverage", "run", "-m", "pytest", "-n", "auto", *pytest_options, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    # A chosen few tests cannot cover everything.
    session.run("coverage", "report", *(["--fail-under=0"] if session.posargs else []))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests with 100% coverage; arguments after -- go to pytest."""
    session.install(".[cli]", *group("tests"), *group("examples"))
    run_tests(session)


@nox.session(python=list(dict.fromkeys([RUNNING, PYTHONS[-1]])))
def lowest(session: nox.Session) -> None:
    """Run the tests on the lowest allowed version of each dependency."""
    constraints = Path(session.virtualenv.location, "constraints.txt")
    constraints.write_text("\n".join(lower_bounds()), encoding="utf-8")
    session.install(".[cli]", *group("tests"), "--constraint", str(constraints))
    # The examples are for the newest of the frameworks, which may want more than the lowest.
    run_tests(session, "--ignore=tests/examples")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check", "--diff")


@nox.session
def types(session: nox.Session) -> None:
    """Check types twice over, and that the public API is completely typed."""
    session.install(".[cli]", *group("types"))
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "chatkit_async", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build, warnings as errors."""
    session.install(".[cli]", *group("docs"))
    session.run("sphinx-build", "-EnqW", "--keep-going", "docs", "docs/_build/html")


@nox.session
def soak(session: nox.Session) -> None:
    """Play stories of client and emulator: -- --seed N for one, -- --seeds 100000 for many."""
    session.install(".", *group("tests"))
    session.env["PYTHONPATH"] = "tests"
    session.run("python", "-P", "-m", "simulation", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks; arguments after -- go to them."""
    session.install(".", *group("bench"))
    session.run("python", "tests/bench", *session.posargs)


@nox.session
def push_back(session: nox.Session) -> None:
    """Measure clients behind a rate limit and draw the documentation's plots; -- --real: live."""
    session.install(".", *group("bench"))
    session.env["PYTHONPATH"] = "tests"
    session.run("python", "-P", "tests/bench/push_back.py", *session.posargs)
