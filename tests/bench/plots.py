"""Plots of a run. `python tests/bench/plots.py report.json` draws those of an earlier one."""

from __future__ import annotations

import json
import statistics
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenarios import (
    AIOHTTP,
    BULK_8,
    BULK_64,
    BULK_512,
    IP_500,
    ON_IP,
    OPENAI,
    SLOW,
    TYPED,
    US,
    US_UVLOOP,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS, THEIRS, PLAIN = "#3b7dd8", "#d9534f", "#8a8f98"

Rows = dict[tuple[str, str], dict[str, Any]]


def draw(whole: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what can be drawn of a run, and say where."""
    if find_spec("matplotlib") is None:
        whole["notes"].append("no plots: matplotlib is not installed (dependency group bench)")
        return []
    rows: Rows = {(row["what"], row["who"]): row for row in whole["context"]}
    drawn = []
    for name, plot in {"cpu": cpu(rows), "rate": rates(rows), "bulk": bulk(rows)}.items():
        if plot is not None:
            drawn.append(folder / f"benchmarks-{name}.png")
            # Without its version: the same figures are to give the same file.
            plot.savefig(drawn[-1], dpi=120, metadata={"Software": None})
    return drawn


def cpu(rows: Rows) -> Figure | None:
    """CPU time of a create to that of bare aiohttp, a bar for each client."""
    if (ON_IP.name, AIOHTTP) not in rows:
        return None
    theirs = rows[ON_IP.name, AIOHTTP]["rounds"]["cpu_us"]
    ratios = {
        peer: [us / them for us, them in zip(row["rounds"]["cpu_us"], theirs, strict=True)]
        for (what, peer), row in rows.items()
        if what == ON_IP.name
    }
    ratios = dict(sorted(ratios.items(), key=lambda item: -statistics.median(item[1])))
    figure, axes = _figure(0.3 * len(ratios) + 0.8)
    for peer, values in ratios.items():
        colour = OURS if peer in {US, US_UVLOOP} else THEIRS if "openai" in peer else PLAIN
        low, median, high = _quartiles(values)
        error = [[median - low], [high - median]]
        axes.barh(peer, median, xerr=error, color=colour, ecolor="#00000080")
        axes.annotate(f" {median:.2f}", (high, peer), va="center", fontsize=8)
    axes.axvline(1, color="#00000060", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.1)
    axes.set_xlabel("CPU time of a create, 50 in flight; bare aiohttp = 1")
    return figure


def rates(rows: Rows) -> Figure | None:
    """Creates a second of ours and the OpenAI SDK's, by how many are in flight."""
    scenarios = {ON_IP.name: "50 in flight", IP_500.name: "500", SLOW.name: "500, 50 ms each"}
    return _groups(rows, scenarios, {US: OURS, OPENAI: THEIRS})


def bulk(rows: Rows) -> Figure | None:
    """Rows a second, by how many are in flight."""
    scenarios = {BULK_8.name: "8 in flight", BULK_64.name: "64", BULK_512.name: "512"}
    return _groups(rows, scenarios, {US: OURS, TYPED: PLAIN, OPENAI: THEIRS})


def _groups(rows: Rows, scenarios: dict[str, str], peers: dict[str, str]) -> Figure | None:
    if not any((scenario, US) in rows for scenario in scenarios):
        return None
    figure, axes = _figure(3)
    width = 0.8 / len(peers)
    for number, (peer, colour) in enumerate(peers.items()):
        found = {
            place + number * width: _quartiles(rows[scenario, peer]["rounds"]["rate"])
            for place, scenario in enumerate(scenarios)
            if (scenario, peer) in rows
        }
        medians = [median for _, median, _ in found.values()]
        errors = [
            [median - low for low, median, _ in found.values()],
            [high - median for _, median, high in found.values()],
        ]
        bars = axes.bar(
            list(found), medians, width, yerr=errors, color=colour, ecolor="#00000080", label=peer
        )
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=8, padding=2)
    middle = (len(peers) - 1) * width / 2
    axes.set_xticks([place + middle for place in range(len(scenarios))], list(scenarios.values()))
    axes.set_ylabel("creates a second")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _figure(height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)
    return figure, axes


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


if __name__ == "__main__":
    report = Path(sys.argv[1])
    print(*draw(json.loads(report.read_text(encoding="utf-8")), report.parent), sep="\n")
