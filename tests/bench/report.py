"""Figures: what the rounds come to, as a table and as JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LIBRARIES = ["chatkit-async", "aiohttp", "attrs", "cattrs", "anyio", "openai", "httpx2", "uvloop"]

TOLERANCE = 0.10
"""How much worse than the baseline a ratio may be."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Ours against theirs, round by round.

    Attributes:
        name: What is compared with what.
        values: One for each round: a ratio, or, where `unit` says so, a difference.
        aim: What we want it to be at most; with `at_least`, at least.
        unit: Of a difference.
        baseline: What it was in the run that is kept as the baseline.
    """

    name: str
    values: Sequence[float]
    aim: float | None = None
    at_least: bool = False
    unit: str = ""
    baseline: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def met(self) -> bool | None:
        """Whether it is what we want; None: we want nothing of it."""
        if self.aim is None:
            return None
        return self.median >= self.aim if self.at_least else self.median <= self.aim

    @property
    def worse(self) -> bool:
        """Whether it is worse than the baseline by more than the tolerance.

        The median is, and three rounds of four are worse than the baseline: a few bad rounds on a
        busy machine are not ours.
        """
        if self.baseline is None or self.unit:
            return False
        low, high = self.quartiles
        if self.at_least:
            return self.median * (1 + TOLERANCE) < self.baseline and high < self.baseline
        return self.median > self.baseline * (1 + TOLERANCE) and low > self.baseline

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "median": self.median,
            "quartiles": self.quartiles,
            "rounds": list(self.values),
            "unit": self.unit or "ratio",
            "aim": self.aim,
            "at_least": self.at_least,
            "met": self.met,
            "baseline": self.baseline,
            "worse": self.worse,
        }

    def as_row(self) -> list[str]:
        low, high = self.quartiles
        sign = ">=" if self.at_least else "<="
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        return [
            self.name,
            f"{_short(self.median)}{self.unit}",
            f"{_short(low)} .. {_short(high)}",
            "" if self.aim is None else f"{sign} {_short(self.aim)}{self.unit}",
            "" if self.baseline is None else f"{_short(self.baseline)}{self.unit}",
            f"{verdict} WORSE" if self.worse else verdict,
        ]


def _short(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def machine() -> dict[str, Any]:
    """What this runs on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "os": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _cpu() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """What is compared. A package run from a checkout has no version."""
    found: dict[str, str] = {}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def load() -> float | None:
    """How many processes want to run, on average of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def text(figures: Sequence[Figure], whole: dict[str, Any]) -> str:
    """The report for a terminal."""
    figure_rows = [
        ["figure", "ratio", "quartiles", "aim", "baseline", ""],
        *(figure.as_row() for figure in figures),
    ]
    columns = {
        "cpu_us": "CPU, us",
        "p50_us": "p50, us",
        "p99_us": "p99, us",
        "rate": "creates/s",
        "server_cpu_us": "server CPU, us",
        "server_busy": "server busy",
        "memory": "memory, kB",
    }
    context_rows = [
        ["measured, absolute: as context", "who", *columns.values(), ""],
        *(
            [row["what"], row["who"], *(_cell(name, row.get(name)) for name in columns), ""]
            for row in whole["context"]
        ),
    ]
    return "\n".join(
        [
            "",
            *table(figure_rows),
            "",
            *table(context_rows),
            "",
            f"medians of {whole['rounds']} interleaved rounds, and their quartiles",
            f"it took {whole['seconds']} s",
            ", ".join(f"{name} {value}" for name, value in whole["machine"].items()),
            ", ".join(f"{name} {version}" for name, version in whole["versions"].items()),
            *whole["notes"],
        ]
    )


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name == "server_busy":
        return f"{value:.0%}"
    if name == "memory":
        return f"{value / 1000:,.1f}"
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows in columns, the first row their heads."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = [
            cell.rjust(width) if 0 < column < len(row) - 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)
