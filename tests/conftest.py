"""What every test of the suite runs under."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import aiohttp
import aioresponses.core
import hypothesis

# deadline: the machine may be busy. In CI the same examples every time, so that a red run is the
# change's doing; elsewhere new ones, and a blob to repeat them with.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("ci" if "CI" in os.environ else "default")


# A shell starts what it puts in the background with Ctrl-C ignored, and everything started from
# there inherits that; tests of Ctrl-C mean the usual.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class _ClientResponse(aiohttp.ClientResponse):
    """aiohttp's response, which since aiohttp 3.14 wants a writer that aioresponses does not pass.

    See https://github.com/pnuckowski/aioresponses/issues/289. Remove it, and the line below, once
    a release of aioresponses passes `stream_writer` and is the lower bound of the tests group.
    """

    def __init__(self, *args, stream_writer=SimpleNamespace(output_size=0), **kwargs):  # noqa: B008  # never changed
        super().__init__(*args, stream_writer=stream_writer, **kwargs)


aioresponses.core.ClientResponse = _ClientResponse
