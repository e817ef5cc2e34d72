"""The examples of the documentation, with an emulator behind them."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from chatkit_async.emulator import Emulator

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def examples():
    """The folder that the examples are in."""
    return EXAMPLES


@pytest.fixture
def emulator(monkeypatch):
    """An emulator on a thread, which the environment points to, and nothing else."""
    for name in list(os.environ):
        if name.startswith("OPENAI_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with Emulator() as emulator:
        monkeypatch.setenv("OPENAI_BASE_URL", emulator.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", emulator.api_key)
        yield emulator


@pytest.fixture
def load(emulator, monkeypatch):
    """Import an example, as the server of an application would: its settings are in place."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load
