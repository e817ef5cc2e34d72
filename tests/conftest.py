"""What every test of the suite runs under."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pkgutil
import signal
import sys
import threading
from collections import Counter
from types import SimpleNamespace

import aiohttp
import aioresponses.core
import hypothesis
import pytest
from patience import PATIENCE
from programs import Programs

import chatkit_async
from chatkit_async.emulator import Emulator

SOAK = "SWEEP_STRIDE" in os.environ

# No limit depends on the machine's speed. In CI the examples are the same every time, so that a
# failure comes from the change; elsewhere they are new, with a blob to repeat a failing one.
hypothesis.settings.register_profile(
    "default",
    deadline=None,
    max_examples=1000 if SOAK else 40,
    derandomize="CI" in os.environ,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("default")

# A test that waits for the emulator's thread waits as long as it does for anything else.
Emulator.wait_until.__kwdefaults__["timeout"] = PATIENCE


# A shell ignores Ctrl-C in what it starts in the background, and nohup ignores SIGHUP. Everything
# started from there inherits that. The tests of signals mean the usual.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("SIGHUP", "SIGTERM"):  # Windows has no SIGHUP
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), signal.SIG_DFL)


class _ClientResponse(aiohttp.ClientResponse):
    """aiohttp's response, which since aiohttp 3.14 wants a writer that aioresponses does not pass.

    See https://github.com/pnuckowski/aioresponses/issues/289. Remove it, and the line below, once
    a release of aioresponses passes `stream_writer` and is the lower bound of the tests group.
    """

    def __init__(self, *args, stream_writer=SimpleNamespace(output_size=0), **kwargs):  # noqa: B008  # never changed
        super().__init__(*args, stream_writer=stream_writer, **kwargs)


aioresponses.core.ClientResponse = _ClientResponse


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before pytest-randomly shuffles them
def pytest_collection_modifyitems(config, items):
    """Keep every n-th case of a sweep, and none if n is 0; all of them where SWEEP_STRIDE is 1."""
    cases, left_out = Counter(), []
    for item in items:
        if sweep := item.get_closest_marker("sweep"):
            test = item.nodeid.partition("[")[0]
            stride = int(os.environ.get("SWEEP_STRIDE", sweep.kwargs["every"]))
            if not stride or cases[test] % stride:
                left_out.append(item)
            cases[test] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        left_out = set(left_out)
        items[:] = [item for item in items if item not in left_out]
    return (yield)


@pytest.fixture(scope="session")
def programs():
    """A process that starts programs as forks of itself."""
    programs = Programs()
    yield programs
    programs.close()


@contextlib.contextmanager
def without_coverage():
    """Run code without coverage, also in the threads and processes that it starts."""
    variables = {name: os.environ[name] for name in os.environ if name.startswith("COVERAGE")}
    here, in_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    for name in variables:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(variables)
        threading.settrace(in_threads)
        sys.settrace(here)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect without coverage, and keep what was imported out of every garbage collection."""
    for module in pkgutil.walk_packages(chatkit_async.__path__, "chatkit_async."):
        importlib.import_module(module.name)  # its lines count as covered
    with without_coverage():
        result = yield
    gc.collect()
    gc.freeze()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Run an unmeasured test without coverage; examples by chance must not decide what is covered."""
    unmeasured = item.get_closest_marker("unmeasured") or item.get_closest_marker("hypothesis")
    with without_coverage() if unmeasured else contextlib.nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session):
    """Leave coverage to the workers where there are any: their coordinator runs no test."""
    coordinates = session.config.pluginmanager.has_plugin("dsession")
    with without_coverage() if coordinates else contextlib.nullcontext():
        return (yield)
