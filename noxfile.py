"""Development tasks. `nox` runs what CI runs, `nox -l` lists the sessions.

Everything comes from PyPI by pip; an interpreter that is not there is skipped with a line saying so.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
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
nox.options.sessions = ["lint", "types", "docs", "tests", "lowest", "package"]

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

# What an application needs no lawyer for; in the notation of whoever declared it.
LICENCES = "Apache;BSD;MIT;PSF;Python Software Foundation"

IMPORT_ALL = "from chatkit_async import AsyncChatKit, ChatKit, emulator, web"


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
    # What is imported is compiled once, not by every worker and every program that a test starts.
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    session.env["COVERAGE_FILE"] = str(Path(session.virtualenv.location).resolve() / "coverage")
    session.run("coverage", "erase")
    # A process per core, and one for the time that the others wait for sockets and processes.
    workers = str((os.cpu_count() or 1) + 1)
    session.run("coverage", "run", "-m", "pytest", "-n", workers, *pytest_options, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    # A chosen few tests cannot cover everything.
    session.run("coverage", "report", *(["--fail-under=0"] if session.posargs else []))


def empty_environment(session: nox.Session, folder: Path) -> str:
    """Make a virtual environment with nothing in it, and give the path of its Python."""
    session.run(sys.executable, "-m", "virtualenv", "--quiet", str(folder), external=True)
    return str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests with 100% coverage; arguments after -- go to pytest."""
    session.install(".[cli]", *group("tests"), *group("examples"))
    run_tests(session)


@nox.session(python=PYTHONS[-1])
def lowest(session: nox.Session) -> None:
    """Run the tests on the lowest allowed version of each dependency, and the newest Python.

    It is the Python that old versions are the least likely to work on.
    """
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
def package(session: nox.Session) -> None:
    """Build the package into dist/, twice with the same bytes, and run the tests on the wheel."""
    session.install(*group("package"))
    # The commit's time stands for the build's: two builds of one commit are then the same bytes.
    commit_time = session.run("git", "log", "-1", "--format=%ct", external=True, silent=True)
    session.env["SOURCE_DATE_EPOCH"] = str(commit_time).strip()
    shutil.rmtree(HERE / "dist", ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", "dist")
    [sdist], [wheel] = (HERE / "dist").glob("*.tar.gz"), (HERE / "dist").glob("*.whl")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch, filter="data")
        source = scratch / sdist.name.removesuffix(".tar.gz")
        session.run("python", "-m", "build", "--outdir", str(scratch), str(source))
        for built in (sdist, wheel):
            if built.read_bytes() != (scratch / built.name).read_bytes():
                session.error(f"a second build, from the sdist, gives another {built.name}")
        session.run("twine", "check", "--strict", str(sdist), str(wheel))
        session.run("check-wheel-contents", str(wheel))
        if "chatkit_async/py.typed" not in zipfile.ZipFile(wheel).namelist():
            session.error(f"{wheel.name} has no py.typed: to type checkers it has no types")
        shutil.rmtree(source / "chatkit_async")  # out of reach of the tests
        python = empty_environment(session, scratch / "empty")
        session.env["PYTHONSAFEPATH"] = "1"
        # First with what the wheel asks for and nothing else: is all of that declared?
        session.run(python, "-m", "pip", "install", "--quiet", str(wheel), external=True)
        session.run(python, "-W", "error", "-c", IMPORT_ALL, external=True)
        requirements = [f"{wheel}[cli]", *group("tests")]
        session.run(python, "-m", "pip", "install", "--quiet", *requirements, external=True)
        options = ["-n", "auto", "--ignore=tests/examples", *session.posargs]
        with session.chdir(source):
            session.run(python, "-m", "pytest", *options, external=True)


@nox.session
def api(session: nox.Session) -> None:
    """Accept the public API as it is now: write it to tests/api.txt."""
    session.install(*group("api"))
    session.run("python", "-P", "tests/api.py", str(HERE))
    session.run("git", "diff", "--stat", "--", "tests/api.txt", external=True)


@nox.session
def audit(session: nox.Session) -> None:
    """List the licences of all that users install with the package, and known vulnerabilities."""
    session.install(*group("audit"))
    with tempfile.TemporaryDirectory() as folder:
        python = empty_environment(session, Path(folder, "empty"))
        session.run(python, "-m", "pip", "install", "--quiet", ".[cli]", external=True)
        session.run("pip-licenses", "--python", python, "--partial-match", "--allow-only", LICENCES)
        pins = session.run(
            *(python, "-m", "pip", "freeze", "--exclude", "chatkit-async"),
            external=True,
            silent=True,
        )
        requirements, found = Path(folder, "requirements.txt"), Path(folder, "found.json")
        requirements.write_text(str(pins), encoding="utf-8")
        session.run(
            *("pip-audit", "--requirement", str(requirements), "--no-deps", "--disable-pip"),
            *("--format", "json", "--output", str(found)),
            success_codes=[0, 1],  # 1: it found something
            silent=True,
        )
        packages = json.loads(found.read_text(encoding="utf-8"))["dependencies"]
    flaws = [
        f"{package['name']} {package['version']}: {flaw['id']}"
        for package in packages
        for flaw in package.get("vulns", ())
    ]
    if flaws:
        session.error("known vulnerabilities: " + ", ".join(flaws))
    # What the index knows nothing of, pip-audit counts as clean.
    unknown = sum("skip_reason" in package for package in packages)
    if unknown:
        session.error(
            f"nothing is known about {unknown} of {len(packages)} packages: the index that pip "
            "uses here tells no vulnerabilities; run this where the Python Package Index answers"
        )


@nox.session
def mutants(session: nox.Session) -> None:
    """Change the code in small ways, and see that tests notice; -- _retry: of one module."""
    project = PYPROJECT["project"]
    # Without the package: what is tested is the changed copy in mutants/.
    session.install(*project["dependencies"], *group("tests"), *group("mutants"))
    session.env["CI"] = "true"  # the same examples for each
    shutil.rmtree(HERE / "mutants", ignore_errors=True)
    session.run("mutmut", "run", *(f"chatkit_async.{module}.*" for module in session.posargs))
    session.run("python", "-P", "tests/mutants.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Run every sweep of the tests in full, and what is tested by random examples with many more.

    With arguments, play stories of client and emulator: -- --seed N tells one, -- --seeds 100000
    plays many.
    """
    session.install(".[cli]", *group("tests"))
    session.env["PYTHONPATH"] = "tests"
    if session.posargs:
        session.run("python", "-P", "-m", "simulation", *session.posargs)
    else:
        every = {"SWEEP_STRIDE": "1"}
        session.run(
            "python", "-P", "-m", "pytest", "-m", "sweep or hypothesis", "-n", "auto", env=every
        )


@nox.session
def live(session: nox.Session) -> None:
    """Compare the live API with the emulator; needs OPENAI_API_KEY and CHATKIT_WORKFLOW."""
    session.install(".")
    session.env["PYTHONPATH"] = "tests"
    session.run("python", "-P", "-m", "live", *session.posargs)


@nox.session
def node(session: nox.Session) -> None:
    """Let the official SDK for Node use the emulator; needs Node and npm."""
    session.install(".[cli]", *group("tests"))
    folder = HERE / "build" / "node"
    folder.mkdir(parents=True, exist_ok=True)
    session.run("npm", "install", "--prefix", str(folder), "openai@7", external=True)
    session.env["PYTHONPATH"] = "tests"
    session.env["OPENAI_NODE"] = str(folder)
    session.run("python", "-P", "-m", "pytest", "tests/emulator/test_node.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks; arguments after -- go to them."""
    session.install(".[cli]", *group("bench"))
    session.run("python", "tests/bench", *session.posargs)


@nox.session
def push_back(session: nox.Session) -> None:
    """Measure clients behind a rate limit and draw the documentation's plots; -- --real: live."""
    session.install(".", *group("bench"))
    session.env["PYTHONPATH"] = "tests"
    session.run("python", "-P", "tests/bench/push_back.py", *session.posargs)
