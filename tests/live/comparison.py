"""A report that compares two sets of replies, with secrets and conversations masked.

Only what is listed here is shown. Any other text becomes `(text)`, an id becomes its prefix, its
length and a number that stands for it within one side, and any other number becomes `(number)`.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from chatkit_async.secret import mask_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from live.steps import Reply, Step

SHOWN_HEADERS = {
    "allow",
    "cache-control",
    "content-encoding",
    "content-type",
    "deprecation",
    "openai-version",
    "retry-after",
    "retry-after-ms",
    "sunset",
    "transfer-encoding",
    "x-should-retry",
}
SHOWN_HEADER_PREFIX = "x-ratelimit-"
SHOWN_TEXTS = {"code", "object", "param", "status", "task_type", "type"}
FREE_FORM = {"metadata", "state_variables"}
"""Objects whose field names are chosen by users."""
SHOWN_NUMBERS = {"max_file_size", "max_files", "max_requests_per_1_minute", "recent_threads"}

_ID = re.compile(r"(cfile|cksess|cthi|cthr|cti|ek|wf)_(\S{8,})")
_KEYWORD = re.compile(r"[A-Za-z][\w.\[\]-]{0,63}", re.ASCII)
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_QUOTED = re.compile(r"(?s)(?<!\w)(['\"\u2018\u201c]).*(['\"\u2019\u201d])")
_LOOKS_PRIVATE = re.compile(r"\S+@\S+|\b(?:cfile|cksess|cthi|cthr|cti|ek|org|proj|sk|wf)[-_]\S+")


class Masked:
    """The replies of one side, each as rows of a name and a text that may be shared."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._secrets = secrets
        self._numbers: dict[str, int] = {}
        self._kinds: Counter[str] = Counter()

    def rows(self, reply: Reply | str) -> dict[str, str]:
        """Return status, headers and JSON shape."""
        if isinstance(reply, str):
            return {"reply": reply}
        rows = {"status": str(reply.status)}
        for name, value in sorted((name.lower(), value) for name, value in reply.headers.items()):
            shown = name in SHOWN_HEADERS or name.startswith(SHOWN_HEADER_PREFIX)
            rows[f"header {name}"] = self._sentence(value) if shown else "(present)"
        try:
            content = reply.json
        except (ValueError, RecursionError):
            rows["body"] = f"({len(reply.body)} bytes, not JSON)"
            return rows
        found: dict[str, list[str]] = {}
        for path, text in self._shape("body", "", content):
            found.setdefault(path, []).append(text)
        rows |= {path: _together(path, texts) for path, texts in found.items()}
        return rows

    def _shape(self, path: str, name: str, value: object) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            yield path, "object" if value else "empty object"
            if name in FREE_FORM:
                return
            for key, member in value.items():
                field = key if _FIELD.fullmatch(key) else "(name)"
                yield from self._shape(f"{path}.{field}", key, member)
        elif isinstance(value, list):
            yield path, f"list of {len(value)}"
            for member in value:
                yield from self._shape(f"{path}[]", name, member)
        else:
            yield path, self._scalar(path, name, value)

    def _scalar(self, path: str, name: str, value: object) -> str:
        if value is None or isinstance(value, bool):
            return {None: "null", True: "true", False: "false"}[value]
        if isinstance(value, int | float):
            if name.endswith("_at"):
                return f"(time {value})"  # becomes an order in `_together`
            return str(value) if name in SHOWN_NUMBERS else "(number)"
        if value in self._secrets:
            return self._secrets[value]
        if found := _ID.fullmatch(value):
            return self._id(value, *found.groups())
        if path == "body.error.message":
            return self._sentence(value)
        shown = name in SHOWN_TEXTS and _KEYWORD.fullmatch(value)
        return self._sentence(value) if shown else "(text)"

    def _id(self, value: str, prefix: str, rest: str) -> str:
        if value not in self._numbers:
            self._kinds[prefix] += 1
            self._numbers[value] = self._kinds[prefix]
        kind = "hex digits" if re.fullmatch("[0-9a-f]+", rest) else "characters"
        return f"({prefix}_ and {len(rest)} {kind}, no. {self._numbers[value]})"

    def _sentence(self, text: str) -> str:
        text = mask_text(_QUOTED.sub(r"\1...\2", text), self._secrets)
        return _LOOKS_PRIVATE.sub("(masked)", text)


def _together(path: str, texts: list[str]) -> str:
    """Return one text for a field that several members of a list have."""
    times = [float(text.split()[1].rstrip(")")) for text in texts if text.startswith("(time ")]
    if times:
        steps = {after > before for before, after in pairwise(times)}
        orders = {frozenset(): "", frozenset({True}): ", rising", frozenset({False}): ", falling"}
        return "(time" + orders.get(frozenset(steps), ", in no order") + ")"
    if path.endswith("[].id"):
        return " ".join(texts)
    return " or ".join(sorted(set(texts)))


def report(
    live: Mapping[Step, Reply | str],
    emulated: Mapping[Step, Reply | str],
    *,
    live_secrets: Mapping[str, str],
    emulated_secrets: Mapping[str, str],
    heading: str,
) -> tuple[str, int]:
    """Return the report as Markdown, and the number of steps whose replies agree."""
    sides = Masked(live_secrets), Masked(emulated_secrets)
    sections: list[str] = []
    agreeing = 0
    for step, reply in live.items():
        left, right = sides[0].rows(reply), sides[1].rows(emulated[step])
        agreeing += left == right
        sections += [
            f"## {step.title}",
            "",
            f"`{step.method} {step.path}`",
            "",
            *_table(left, right),
        ]
    text = "\n".join(
        [
            f"# {heading}",
            "",
            f"{agreeing} of {len(live)} replies agree. A row that differs begins with `!`.",
            "Texts, ids, times and other numbers are masked. Read this file before you share it.",
            "",
            *sections,
        ]
    )
    return mask_text(text, live_secrets), agreeing


def _table(left: Mapping[str, str], right: Mapping[str, str]) -> list[str]:
    rows = ["| | what | live | emulator |", "|---|---|---|---|"]
    for name in {**left, **right}:
        cells = left.get(name, ""), right.get(name, "")
        mark = " " if cells[0] == cells[1] else "!"
        shown = " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
        rows.append(f"| {mark} | {name} | {shown} |")
    return [*rows, ""]
