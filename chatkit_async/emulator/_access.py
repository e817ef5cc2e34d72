"""Access to the emulator: for programs on this machine, not for pages in a browser.

The socket is on loopback, which keeps other machines out, but not the browser on this one: any
page in it can send requests to any port of the machine.

- A page whose host name resolves to 127.0.0.1 (DNS rebinding) sends its own name as `Host`. So
  `Host` must be loopback.
- The browser sends the origin of a request in `Sec-Fetch-Site` and `Origin`. So a request must
  have none, as from a program or the address bar, or the emulator's own. A page of this machine is
  refused too: another port is another origin, and an API key belongs in a backend.
- A page, or a form in an old browser, may send one of three content types without a preflight
  request. So the body of a control must have another, `application/json`. For that, and for
  `PATCH` and `DELETE`, a browser first sends `OPTIONS`, which is refused.

A request that is refused here is not read further, is in no ledger and meets no fault.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

from chatkit_async.emulator._errors import ApiError

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d*)?", re.ASCII | re.IGNORECASE)


def check_host(headers: CIMultiDictProxy[str]) -> None:
    """Check that `Host` is this machine's loopback."""
    if not _is_loopback(headers.get("Host", "")):
        message = "The emulator answers to 127.0.0.1, [::1] and localhost only: see 'Host'."
        raise ApiError(421, message, code="host_not_allowed")


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1].lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def check_not_from_a_page(headers: CIMultiDictProxy[str]) -> None:
    """Check that the request is not from a page of another origin."""
    site = headers.get("Sec-Fetch-Site", "none")
    origin = headers.get("Origin")
    own_origin = f"http://{headers.get('Host', '')}"
    if site not in ("none", "same-origin") or origin not in (None, own_origin):
        message = (
            "The emulator does not answer web pages of other origins: call it from a backend, "
            "without 'Origin' and 'Sec-Fetch-Site'."
        )
        raise ApiError(403, message, code="cross_site_request")


def check_content_type(headers: CIMultiDictProxy[str]) -> None:
    """Check that `Content-Type` is JSON."""
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        message = f"Unsupported content type '{media_type}': expected 'application/json'."
        raise ApiError(400, message, code="unsupported_content_type")
