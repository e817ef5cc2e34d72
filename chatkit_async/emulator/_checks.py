"""Checks of the values that users set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from attrs import Attribute

    _Validator: TypeAlias = Callable[[object, Attribute[Any], Any], None]

MAX_SECONDS = 1e9
"""Seconds of a finite duration that can be set."""


def check_number(
    name: str, value: object, low: float, high: float = math.inf, *, whole: bool = False
) -> None:
    """Check that a value is a number within bounds, or raise ValueError."""
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        bounds = f"of {low:g} or more" if high == math.inf else f"from {low:.10g} to {high:.10g}"
        message = f"{name} must be {kind} {bounds}, got {value!r}"
        raise ValueError(message)


def number(
    low: float, high: float = math.inf, *, whole: bool = False, optional: bool = False
) -> _Validator:
    """Return `check_number` as the validator of an attrs field."""

    def check(_instance: object, attribute: Attribute[Any], value: object) -> None:
        if not (optional and value is None):
            check_number(attribute.name, value, low, high, whole=whole)

    return check


def choice(choices: tuple[str, ...], *, optional: bool = False) -> _Validator:
    """Return the check for one of a few values as the validator of an attrs field."""

    def check(_instance: object, attribute: Attribute[Any], value: object) -> None:
        if value not in choices and not (optional and value is None):
            expected = " or ".join(map(repr, choices))
            message = f"{attribute.name} must be {expected}, got {value!r}"
            raise ValueError(message)

    return check
