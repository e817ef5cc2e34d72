"""Sans-IO: whether and when to retry, and the retry budget that a client's calls share."""

from collections.abc import Callable
from http import HTTPStatus
from typing import TypeGuard

from chatkit_async.errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
)
from chatkit_async.options import RetryPolicy

_TRANSIENT_STATUSES = {
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
    budget: "RetryBudget",
    random: Callable[[], float],
) -> float | None:
    """Seconds until the next attempt; None: there is none.

    Args:
        error: How the last attempt failed.
        retries_made: Attempts after the first, so far.
        max_retries: How many of them there may be.
        time_left: Seconds left of the whole call; None: no limit.
        policy: How long to wait where the server does not say.
        budget: What the client may spend on retries.
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
    if time_left is not None and wait >= time_left:
        return None  # sleeping towards certain failure helps nobody
    if not is_push_back(error) and not budget.draw():
        error.add_note("not tried again: too many attempts of this client fail")
        return None
    return wait


def is_push_back(error: APIError) -> TypeGuard[APIStatusError]:
    """Whether the server asks for fewer requests, rather than fails."""
    match error:
        case APIStatusError(status_code=HTTPStatus.TOO_MANY_REQUESTS):
            return not is_out_of_quota(error)
        case APIStatusError(status_code=HTTPStatus.SERVICE_UNAVAILABLE):
            return error.retry_after is not None
        case _:
            return False


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
    if is_out_of_quota(error):
        return False
    return (
        error.status_code in _TRANSIENT_STATUSES
        or error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


def is_out_of_quota(error: APIStatusError) -> bool:
    """Whether the project's quota is used up."""
    return "insufficient_quota" in {error.code, error.type}


# The retry budget ---------------------------------------------------------------------------------


class RetryBudget:
    """What a client may spend on retries, so that it does not multiply an outage by three.

    A token bucket: a retry takes a token, a success puts a part of one back. Retries after a 429
    take none: they wait for their turn at the gate.
    """

    CAPACITY = 20.0
    """Retries that may be made before any success."""

    PER_SUCCESS = 0.2
    """Tokens that a success puts back: in the long run, at most one retry for five successes."""

    def __init__(self) -> None:
        self._tokens = self.CAPACITY

    def draw(self) -> bool:
        """Take a token; False: there is none."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def put_back(self) -> None:
        """Note a success."""
        if self._tokens < self.CAPACITY:
            self._tokens = min(self.CAPACITY, self._tokens + self.PER_SUCCESS)
