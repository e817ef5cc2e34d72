"""The benchmark runs and reports. What it measures here means nothing: too few, too short."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

# Without coverage: none of it is the package's. The benchmark as a whole is run by `nox -s soak`.
pytestmark = [pytest.mark.unmeasured, pytest.mark.sweep(every=2)]

BENCH = Path(__file__).parent / "bench"


def run(*options, code=0):
    done = subprocess.run(
        [
            sys.executable,
            BENCH,
            "--rounds",
            "1",
            "--scale",
            "0.001",
            "--without",
            "openai",
            "--without",
            "httpx2",
            *options,
        ],
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    assert done.returncode == code
    return done.stdout


@pytest.fixture(scope="module", params=[["--only", "sync"], []], ids=["one-part", "every-part"])
def printed_and_written(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "new" / "report.json"
    printed = run("--json", path, *request.param)
    return printed, json.loads(path.read_text(encoding="utf-8"))


def test_every_figure_is_printed_and_written(printed_and_written):
    printed, written = printed_and_written
    assert len(written["figures"]) >= 3
    for figure in written["figures"]:
        assert figure["name"] in printed
        assert figure["median"] == figure["rounds"][0]


def test_figures_with_an_aim_say_whether_they_met_it(printed_and_written):
    _, written = printed_and_written
    for figure in written["figures"]:
        assert (figure["met"] is None) == (figure["aim"] is None)


def test_no_two_figures_have_the_same_name(printed_and_written):
    _, written = printed_and_written
    names = [figure["name"] for figure in written["figures"]]
    assert len(set(names)) == len(names)


def test_the_report_names_machine_and_versions(printed_and_written):
    printed, written = printed_and_written
    assert set(written["machine"]) == {"cpu", "cores", "os", "python", "load_before_and_after"}
    assert written["versions"]["aiohttp"] in printed


def test_absolute_numbers_are_there_as_context(printed_and_written):
    _, written = printed_and_written
    for row in written["context"]:
        assert row["cpu_us"] > 0


def test_the_load_server_says_what_it_can_do_alone(printed_and_written):
    printed, written = printed_and_written
    measured = "create, 50 in flight, IP" in {row["what"] for row in written["context"]}
    assert ("alone, the load server can answer" in printed) == measured


def test_a_peer_that_is_left_out_is_so_with_a_line_saying_why(printed_and_written):
    printed, written = printed_and_written
    assert "openai" not in {row["who"] for row in written["context"]}
    assert "openai is left out: as asked" in printed


@pytest.mark.parametrize(("before", "worse"), [(1e-6, True), (1e6, False)])
def test_what_is_worse_than_the_baseline_fails_the_check(tmp_path, before, worse):
    baseline = tmp_path / "baseline.json"
    options = ["--only", "import", "--json", tmp_path / "report.json", "--baseline", baseline]
    run(*options, "--save")
    kept = json.loads(baseline.read_text(encoding="utf-8"))
    [name] = kept["figures"]

    kept["figures"][name] = before
    baseline.write_text(json.dumps(kept), encoding="utf-8")
    printed = run(*options, "--check", code=int(worse))
    assert (f"more than 10% worse than the baseline: {name}" in printed) == worse


def test_the_documentation_shows_the_figures_of_the_baseline():
    page = (BENCH.parents[1] / "docs" / "explanation" / "benchmarks.md").read_text(encoding="utf-8")
    table = page.partition("<!-- figures -->")[2].partition("<!-- end of figures -->")[0]
    shown = re.findall(r"^\| (.+?) \| ([\d.e+]+)", table, flags=re.MULTILINE)
    kept = json.loads((BENCH / "baseline.json").read_text(encoding="utf-8"))["figures"]
    assert [name.replace("\\_", "_") for name, _ in shown] == list(kept)
    for (name, figure), median in zip(shown, kept.values(), strict=True):
        assert float(figure) == pytest.approx(median, rel=0.01, abs=1e-3), name


def test_the_layers_add_up_from_bare_aiohttp_to_create():
    rows = [line for line in run("--layers").splitlines() if line.startswith("+ ")]
    assert [row.split(":")[0].split("  ")[0] for row in rows] == [
        "+ transport",
        "+ an attempt",
        "+ the loop of attempts",
        "+ create",
    ]
