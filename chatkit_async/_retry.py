"""Sans-IO: whether a failed attempt is followed by another, and after how many seconds."""

from collections.abc import Callable
from http import HTTPStatus

from chatkit_async.errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
)
from chatkit_async.options import RetryPolicy

_STATUSES = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_MANY_REQUESTS,
}


def next_wait(
    error: APIError,
    *,
    retries_made: int,
    max_retries: int,
    time_left: float | None,
    policy: RetryPolicy,
    random: Callable[[], float],
) -> float | None:
    """Seconds until the next attempt; None: there is none.

    Args:
        error: How the last attempt failed.
        retries_made: Attempts after the first, so far.
        max_retries: How many of them there may be.
        time_left: Seconds left of the whole call; None: no limit.
        policy: How long to wait where the server does not say.
        random: Draws evenly from 0 to 1.
    """
    if retries_made >= max_retries or not is_transient(error):
        return None
    asked = error.retry_after if isinstance(error, APIStatusError) else None
    if asked is None:
        doubled = 2.0 ** min(retries_made, 1000)  # a float ends at 2.0**1024
        ceiling = min(policy.max_backoff, policy.initial_backoff * doubled)
        wait = random() * ceiling
    else:
        # The server's wait is a minimum; the jitter on top keeps clients from coming back as one.
        wait = asked * (1 + 0.1 * random())
    # Sleeping towards certain failure helps nobody.
    return wait if time_left is None or wait < time_left else None


def is_transient(error: APIError) -> bool:
    """Whether another attempt may fare better."""
    match error:
        case APIStatusError():
            return _is_transient_status(error)
        case APIConnectionError(kind=kind):
            return kind != "certificate"
        case APIResponseError(kind=kind):
            return kind == "truncated"
        case _:
            return False


def _is_transient_status(error: APIStatusError) -> bool:
    match error.headers.get("x-should-retry", "").strip().lower():
        case "true":
            return True
        case "false":
            return False
        case _:
            pass
    if "insufficient_quota" in {error.code, error.type}:
        return False
    return error.status_code in _STATUSES or error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
