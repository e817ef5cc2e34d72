"""The benchmark runs and reports. What it measures here means nothing: too few, too short."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unmeasured  # none of it is the package's

BENCH = Path(__file__).parent / "bench"


def run(*options):
    fast = ["--rounds", "1", "--scale", "0.001", "--without", "openai", "--without", "httpx2"]
    command = [sys.executable, BENCH, *fast, *options]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


@pytest.mark.sweep(every=2)
@pytest.mark.parametrize("parts", [["--only", "sync"], []], ids=["one part", "every part"])
def test_benchmark_prints_and_writes_its_figures(tmp_path, parts):
    path = tmp_path / "new" / "report.json"
    printed = run("--json", path, *parts)
    written = json.loads(path.read_text(encoding="utf-8"))

    names = [figure["name"] for figure in written["figures"]]
    assert len(set(names)) == len(names) >= 3
    for figure in written["figures"]:
        assert figure["name"] in printed
        assert figure["median"] == figure["rounds"][0]
        assert (figure["met"] is None) == (figure["aim"] is None)
    assert all(row["cpu_us"] > 0 for row in written["context"])
    assert set(written["machine"]) == {"cpu", "cores", "os", "python", "load_before_and_after"}
    assert written["versions"]["aiohttp"] in printed
    assert "openai" not in {row["who"] for row in written["context"]}
    assert "openai is left out: as asked" in printed
    if not parts:
        assert "alone, the load server can answer" in printed
        layers = [row for row in run("--layers").splitlines() if row.startswith("+ ")]
        assert layers[0].startswith("+ transport")
        assert layers[-1].startswith("+ create")


@pytest.mark.parametrize("before", [0.9, 1.0])
def test_figure_worse_than_the_baseline_is_told(tmp_path, monkeypatch, before):
    monkeypatch.syspath_prepend(BENCH)
    import baseline
    import report

    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({"figures": {"create": before}}), encoding="utf-8")
    [figure] = baseline.compared([report.Figure(name="create", values=[1.05])], path)

    assert figure.worse == (before == 0.9)


def test_documentation_shows_the_figures_of_the_baseline():
    page = (BENCH.parents[1] / "docs" / "explanation" / "benchmarks.md").read_text(encoding="utf-8")
    table = page.partition("<!-- figures -->")[2].partition("<!-- end of figures -->")[0]
    shown = re.findall(r"^\| (.+?) \| ([\d.e+]+)", table, flags=re.MULTILINE)
    kept = json.loads((BENCH / "baseline.json").read_text(encoding="utf-8"))["figures"]
    assert [name.replace("\\_", "_") for name, _ in shown] == list(kept)
    for (name, figure), median in zip(shown, kept.values(), strict=True):
        assert float(figure) == pytest.approx(median, rel=0.01, abs=1e-3), name
