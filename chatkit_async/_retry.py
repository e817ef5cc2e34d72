"""Sans-IO: whether and when to retry, and the retry budget that a client's calls share."""

from collections.abc import Callable
from http import HTTPStatus

import attrs

from chatkit_async.errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
)
from chatkit_async.options import NotRetried, RetryPolicy

_TRANSIENT_STATUSES = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_MANY_REQUESTS,
}


@attrs.frozen
class Verdict:
    """The decision about another attempt after a failure.

    Attributes:
        wait: Seconds until the next attempt. None: no attempt follows.
        reason: Why no attempt follows. None: one does.
    """

    wait: float | None
    reason: NotRetried | None = None


def next_wait(
    error: APIError,
    *,
    retries_made: int,
    max_retries: int | None,
    time_left: float | None,
    policy: RetryPolicy,
    budget: "RetryBudget",
    random: Callable[[], float],
) -> Verdict:
    """Return the seconds until the next attempt, or the reason why there is none.

    If the caller could expect a retry, the reason is also noted on the error. For a row of a bulk
    run, `bulk.RowLimits` decides which limits count.

    Args:
        error: The error of the last attempt.
        retries_made: Attempts after the first, so far.
        max_retries: The most that there may be. None: no limit.
        time_left: Seconds left of the whole call. None: no limit.
        policy: The backoff where the server does not ask for a wait.
        budget: The client's retry budget.
        random: Returns a uniform random number from 0 to 1.
    """
    if not is_transient(error):
        if _is_forbidden(error):
            return _no_retry(error, "forbidden", "the server forbids it (x-should-retry: false)")
        return Verdict(None, "not_retryable")
    if max_retries is not None and retries_made >= max_retries:
        if max_retries:
            error.add_note(f"Not retried again: max_retries={max_retries} is used up.")
        return Verdict(None, "retries_exhausted")
    asked = error.retry_after if isinstance(error, APIStatusError) else None
    if asked is None:
        doubled = 2.0 ** min(retries_made, 1000)  # a float ends at 2.0**1024
        ceiling = min(policy.max_backoff, policy.initial_backoff * doubled)
        wait = random() * ceiling
    else:
        # The server's wait is a minimum. The jitter on top keeps clients from coming back at once.
        wait = asked * (1 + 0.1 * random())
    if time_left is not None and wait >= time_left:
        return _no_retry(
            error,
            "deadline",
            f"the next attempt would start in {wait:.1f} s, and this call's timeout ends before that",
        )
    if not is_push_back(error) and not budget.draw():
        return _no_retry(
            error,
            "budget_exhausted",
            "the client's retry budget is exhausted because too many recent requests failed",
        )
    return Verdict(wait)


def _no_retry(error: APIError, reason: NotRetried, said: str) -> Verdict:
    """Say on an error why its attempt is not retried, although the caller could expect it."""
    error.add_note(f"Not retried: {said}.")
    return Verdict(None, reason)


def is_push_back(error: APIError) -> bool:
    """True if the server asks for fewer requests: a 429, or a 503 with a wait."""
    match error:
        case APIStatusError(status_code=HTTPStatus.TOO_MANY_REQUESTS):
            return not is_out_of_quota(error)
        case APIStatusError(status_code=HTTPStatus.SERVICE_UNAVAILABLE):
            return error.retry_after is not None
        case _:
            return False


def is_transient(error: APIError) -> bool:
    """True if another attempt may succeed."""
    match error:
        case APIStatusError():
            asked = _should_retry(error)
            return _has_transient_status(error) if asked is None else asked
        case APIConnectionError(kind=kind):
            return kind != "certificate"
        case APIResponseError(kind=kind):
            return kind in {"truncated", "mismatched"}
        case _:
            return False


def _is_forbidden(error: APIError) -> bool:
    """True if the server forbids a retry that would follow otherwise."""
    if not isinstance(error, APIStatusError):
        return False
    return _should_retry(error) is False and _has_transient_status(error)


def _should_retry(error: APIStatusError) -> bool | None:
    """Return the server's own word about retries, `x-should-retry`. None: there is none."""
    said = error.headers.get("x-should-retry", "").strip().lower()
    return {"true": True, "false": False}.get(said)


def _has_transient_status(error: APIStatusError) -> bool:
    if is_out_of_quota(error):
        return False
    return (
        error.status_code in _TRANSIENT_STATUSES
        or error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


def is_out_of_quota(error: APIStatusError) -> bool:
    """True if the project's quota is used up."""
    return "insufficient_quota" in {error.code, error.type}


# The retry budget ---------------------------------------------------------------------------------


class RetryBudget:
    """A token bucket for a client's retries, which keeps it from tripling the load of an outage.

    A retry takes a token, and a success puts part of one back. Retries after a push-back
    take none, because they wait for their turn at the rate gate.
    """

    CAPACITY = 20.0
    """Retries that can be made before any success."""

    TOKENS_PER_SUCCESS = 0.2
    """Tokens that a success puts back: in the long run, one retry for five successes."""

    def __init__(self) -> None:
        self._tokens = self.CAPACITY

    def draw(self) -> bool:
        """Take a token. False: there is none."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def put_back(self) -> None:
        """Put back a success's part of a token."""
        if self._tokens < self.CAPACITY:
            self._tokens = min(self.CAPACITY, self._tokens + self.TOKENS_PER_SUCCESS)
