"""The findings of `chatkit-async doctor`."""

from typing import Literal

import attrs

State = Literal["ok", "warning", "failed", "skipped"]


@attrs.frozen
class Finding:
    """The result of one check.

    Attributes:
        check: The name of the check.
        state: The result. A warning does not change the exit code.
        said: The finding.
        advice: The next steps.
        concerns_key: True if the key is what failed.
    """

    check: str
    state: State
    said: str
    advice: tuple[str, ...] = ()
    concerns_key: bool = False
