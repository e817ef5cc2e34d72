"""The package as a whole: what an import costs, what it gives, who may import whom."""

from __future__ import annotations

import ast
import graphlib
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

import chatkit_async

ROOT = Path(chatkit_async.__file__).parent

# Who may import whom: a module imports only from lines below its own.
LAYERS = [
    {"__main__"},
    {"cli", "pytest_plugin"},
    {"emulator", "web"},
    {"__init__"},
    {"sync"},
    {"sync_threads"},
    {"sync_bulk"},
    {"client", "_loop_thread"},
    {"threads"},
    {"sessions"},
    {"bulk", "pages"},
    {"_attempts"},
    {"_fanout", "_transport", "_gate", "_retry", "_protocol"},
    {"_aiohttp", "_failures", "_resolver"},
    {"_codec", "_settings"},
    {"models", "options"},
    {"_checks", "_no_proxy", "_cancellation", "_fork", "_exit_codes"},
    {"secret", "errors"},
]
WITHIN_A_LAYER = {
    ("_transport", "_protocol"),  # a reply is what the transport returns
}
UPWARD = {
    ("models", "_codec"),  # from_dict, when it is called
    ("_attempts", "__init__"),  # the version
}

# What is nobody else's to import.
RESERVED = {
    "anyio": {"_loop_thread", "_cancellation"},
    "cattrs": {"_codec"},
    "aiohttp": {
        "client",
        "_attempts",
        "_transport",
        "_failures",
        "_aiohttp",
        "_resolver",
        "emulator",
        "pytest_plugin",
        "cli",
    },
    "click": {"cli"},
    "rich": {"cli"},
}


def imports():
    """Every import in the package: the module it is in, and the module it names."""
    for path in sorted(ROOT.rglob("*.py")):
        module = path.relative_to(ROOT).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((module, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                if node.module != "chatkit_async":
                    yield module, node.module
                    continue
                for alias in node.names:
                    submodule = (ROOT / f"{alias.name}.py").exists() or (ROOT / alias.name).is_dir()
                    yield module, f"chatkit_async.{alias.name if submodule else '__init__'}"


def layer(module):
    [found] = [number for number, names in enumerate(LAYERS) if module in names]
    return found


def test_every_module_has_its_layer():
    modules = {path.stem for path in ROOT.glob("*.py")}
    modules |= {path.parent.name for path in ROOT.glob("*/__init__.py")}

    assert modules <= set().union(*LAYERS)


@pytest.mark.unmeasured
def test_imports_run_downward_only():
    within = {
        (module, name.split(".")[1])
        for module, name in imports()
        if name.startswith("chatkit_async.")
    }
    ours = {(module, other) for module, other in within if module != other}

    assert ("client", "sessions") in ours  # the imports were found at all
    assert {
        (module, other) for module, other in ours if layer(module) >= layer(other)
    } <= WITHIN_A_LAYER | UPWARD


def test_emulator_has_no_import_cycle():
    folder = ROOT / "emulator"
    below = {path.stem: set() for path in folder.glob("*.py")}
    for module, others in below.items():
        for node in ast.walk(ast.parse((folder / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith(
                "chatkit_async.emulator."
            ):
                others.add(node.module.rpartition(".")[2])

    assert list(graphlib.TopologicalSorter(below).static_order())[-1] == "__init__"  # or CycleError


@pytest.mark.unmeasured
def test_libraries_are_imported_where_they_belong_only():
    used = {(module, name.split(".")[0]) for module, name in imports()}

    assert ("_codec", "cattrs") in used  # the imports were found at all
    assert not {
        (module, library)
        for module, library in used
        if library in RESERVED and module not in RESERVED[library]
    }


@pytest.mark.unmeasured
def test_names_of_threading_are_looked_up_at_use():
    """gevent may replace them after the import, as under `gunicorn -k gevent --preload`."""
    importing = [
        path
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "threading"
    ]

    assert not importing


@pytest.fixture(scope="module")
def imported():
    """The modules that are there after a client was imported in a fresh interpreter."""
    program = "import sys; from chatkit_async import AsyncChatKit; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "name",
    [
        "aiohttp.web",
        "anyio.from_thread",
        "chatkit_async.cli",
        "chatkit_async.emulator",
        "chatkit_async.pytest_plugin",
        "chatkit_async.threads",
        "click",
        "pydantic",
        "pytest",
        "rich",
    ],
)
def test_importing_a_client_leaves_alone_what_it_does_not_need(imported, name):
    assert "chatkit_async.client" in imported
    assert name not in imported


def test_a_name_is_imported_from_its_home_when_it_is_asked_for(monkeypatch):
    monkeypatch.delitem(vars(chatkit_async), "AsyncChatKit", raising=False)

    assert chatkit_async.AsyncChatKit is chatkit_async.client.AsyncChatKit
    assert "AsyncChatKit" in vars(chatkit_async)
    assert set(chatkit_async.__all__) <= set(dir(chatkit_async))


def test_a_home_itself_is_there_as_well(monkeypatch):
    monkeypatch.delattr(chatkit_async, "errors")

    assert chatkit_async.errors.ChatKitError is chatkit_async.ChatKitError


@pytest.mark.parametrize("name", ["AsyncChatkit", "ClientSecretEndpoint", "StateVariable"])
def test_a_name_that_is_not_offered_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"'chatkit_async' has no attribute '{name}'"):
        getattr(chatkit_async, name)


def test_every_public_name_is_there_and_at_home_in_the_package():
    names = chatkit_async.__all__

    assert len(names) == len(set(names))
    for name in names:
        thing = getattr(chatkit_async, name)
        assert getattr(thing, "__module__", "chatkit_async").startswith("chatkit_async")


@pytest.mark.parametrize(
    "module",
    [
        "errors",
        "models",
        "models.threads",
        "options",
        "pages",
        "secret",
        "sessions",
        "client",
        "sync_threads",
        "threads",
    ],
)
def test_what_a_module_offers_is_there(module):
    home = importlib.import_module(f"chatkit_async.{module}")

    assert all(hasattr(home, name) for name in home.__all__)


def test_every_error_and_model_is_public():
    for module in ("errors", "models", "models.threads", "pages"):
        home = importlib.import_module(f"chatkit_async.{module}")
        classes = {name for name in home.__all__ if isinstance(getattr(home, name), type)}
        assert classes <= set(chatkit_async.__all__)


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "py.typed").exists()


def test_the_version_is_the_one_installed():
    assert chatkit_async.__version__ in chatkit_async._attempts.USER_AGENT


OWN_SECONDS = re.compile(
    r"\.(?:wait|join|acquire|result|communicate|settimeout)\((?:timeout=)?[1-9][\d.]*\)"
    r"|mark\.timeout"
    r"|(?:subprocess\.\w+|\bwait_until|\bBarrier|Connection)\([^)]*\btimeout=[1-9]"
)
"""A wait for a number of seconds of its own, where no time is virtual."""


def test_every_wait_of_a_test_takes_patience():
    assert OWN_SECONDS.search("thread." + "join(30)")
    assert not OWN_SECONDS.search("thread.join(PATIENCE)")
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        if "bench" not in path.parts and path.name != "mutants.py":
            found = OWN_SECONDS.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path.name}: {found[0]}"
