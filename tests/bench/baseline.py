"""The run that is kept: what the next one is compared with, and what the documentation shows."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenarios import BASE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from report import Figure

BASELINE = Path(__file__).with_name("baseline.json")
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "benchmarks.md"

_FIGURES = re.compile(r"(?<=<!-- figures -->\n\n).*?(?=\n\n<!-- end of figures -->)", re.DOTALL)


def compared(figures: Iterable[Figure], path: Path) -> list[Figure]:
    """The figures, each with what it was in the baseline."""
    if not path.exists():
        return list(figures)
    kept = json.loads(path.read_text(encoding="utf-8"))["figures"]
    return [replace(figure, baseline=kept.get(figure.name)) for figure in figures]


def save(whole: dict[str, Any], path: Path) -> None:
    """Keep a run as the baseline."""
    kept = {
        "machine": whole["machine"],
        "versions": whole["versions"],
        "rounds": whole["rounds"],
        "figures": {figure["name"]: round(figure["median"], 4) for figure in _lasting(whole)},
    }
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def document(whole: dict[str, Any], drawn: Iterable[Path]) -> None:
    """Put a run's figures and its plots into the documentation."""
    for plot in drawn:
        shutil.copy(plot, PAGE.parent)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_FIGURES.sub(lambda _: _markdown(whole), page), encoding="utf-8")


def _lasting(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures without those that compare us with another checkout."""
    return [figure for figure in whole["figures"] if not figure["name"].endswith(f"to {BASE}")]


def _markdown(whole: dict[str, Any]) -> str:
    """The figures as a table, and what they were measured with."""
    lines = ["| figure | median | quartiles | aim | |", "|---|---|---|---|---|"]
    for figure in _lasting(whole):
        unit = "" if figure["unit"] == "ratio" else figure["unit"]
        low, high = figure["quartiles"]
        sign = "at least" if figure["at_least"] else "at most"
        cells = [
            _plain(figure["name"]),
            f"{figure['median']:.3g}{unit}",
            f"{low:.3g} to {high:.3g}",
            "" if figure["aim"] is None else f"{sign} {figure['aim']:g}{unit}",
            {True: "met", False: "**missed**", None: ""}[figure["met"]],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    machine = whole["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in whole["versions"].items())
    notes = "".join(f"\n- {_plain(note)}" for note in whole["notes"])
    return (
        "\n".join(lines)
        + f"\n\nMedians of {whole['rounds']} rounds on {machine['cores']} cores of "
        + f"{machine['cpu']}, {machine['os']}, {machine['python']}, with {versions}.\n{notes}"
    )


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return text.replace("_", "\\_")
