"""docs/examples/notebook.ipynb, executed by a real kernel."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient
from patience import PATIENCE

pytestmark = pytest.mark.unmeasured


@pytest.fixture
def outputs(emulator, examples, monkeypatch):
    """What the notebook's code cells show, each as text."""
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # jupyter_core warns without it
    notebook = nbformat.read(examples / "notebook.ipynb", as_version=4)
    limits = {"timeout": PATIENCE, "startup_timeout": PATIENCE, "iopub_timeout": PATIENCE}
    NotebookClient(notebook, kernel_name="python3", **limits).execute()
    return [
        "".join(output.get("text") or output["data"]["text/plain"] for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_every_cell_runs_and_no_secret_is_shown(outputs, emulator):
    _, session, refused, several, cancelled = outputs
    assert session.startswith("ChatSession(id='cksess_")
    assert "Secret('**********')" in session
    assert "404" in refused
    assert several == "['bob', 'eve']"
    assert cancelled.split() == ["cancelled"] * 3
    assert [session.status for session in emulator.sessions.values()] == ["cancelled"] * 3
