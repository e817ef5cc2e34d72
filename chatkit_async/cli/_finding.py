"""What `chatkit-async doctor` finds."""

from typing import Literal

import attrs

State = Literal["ok", "warning", "failed", "skipped"]


@attrs.frozen
class Finding:
    """The result of one check.

    Attributes:
        check: What was looked at.
        state: How it is; a warning leaves the exit code alone.
        said: What was found.
        advice: What to do about it.
        concerns_key: Whether what failed is the key.
    """

    check: str
    state: State
    said: str
    advice: tuple[str, ...] = ()
    concerns_key: bool = False
