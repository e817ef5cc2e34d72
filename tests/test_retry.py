"""The retry decision, its reasons, and the retry budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from chatkit_async import _retry
from chatkit_async._retry import RetryBudget
from chatkit_async.errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
)
from chatkit_async.options import RetryPolicy

SERVER_ERROR = APIStatusError("broken", status_code=500)


def verdict(
    error=SERVER_ERROR, *, made=0, most=2, left=None, policy=RetryPolicy(), budget=None, drawn=0.5
):
    return _retry.next_wait(
        error,
        retries_made=made,
        max_retries=most,
        time_left=left,
        policy=policy,
        budget=budget or RetryBudget(),
        random=lambda: drawn,
    )


def wait(error=SERVER_ERROR, **given):
    return verdict(error, **given).wait


def status(status_code, *, should_retry=None, retry_after=None, **fields):
    headers = CIMultiDict({} if should_retry is None else {"X-Should-Retry": should_retry})
    return APIStatusError(
        "said", status_code=status_code, headers=headers, retry_after=retry_after, **fields
    )


# Whether


@pytest.mark.parametrize("code", [408, 409, 429, 500, 501, 502, 503, 504, 520, 599])
def test_these_statuses_are_transient(code):
    assert _retry.is_transient(status(code))


@pytest.mark.parametrize("code", [300, 302, 304, 400, 401, 402, 403, 404, 405, 410, 413, 422, 451])
def test_these_statuses_are_not(code):
    assert not _retry.is_transient(status(code))


@pytest.mark.parametrize("code", [400, 404, 429, 500])
@pytest.mark.parametrize(
    ("said", "transient"), [("true", True), ("false", False), (" TRUE ", True)]
)
def test_the_server_has_the_last_word(code, said, transient):
    assert _retry.is_transient(status(code, should_retry=said)) is transient


@pytest.mark.parametrize("said", ["", "yes", "1", "maybe"])
@pytest.mark.parametrize(("code", "transient"), [(400, False), (503, True)])
def test_what_the_server_says_otherwise_is_ignored(said, code, transient):
    assert _retry.is_transient(status(code, should_retry=said)) is transient


@pytest.mark.parametrize("field", ["code", "type"])
def test_an_exhausted_quota_is_not_transient(field):
    assert not _retry.is_transient(status(429, **{field: "insufficient_quota"}))
    assert _retry.is_transient(status(429, **{field: "rate_limit_exceeded"}))


def test_an_exhausted_quota_is_tried_again_where_the_server_says_so():
    assert _retry.is_transient(status(429, should_retry="true", code="insufficient_quota"))


@pytest.mark.parametrize(
    "kind",
    ["dns", "refused", "unreachable", "reset", "disconnected", "tls", "proxy", "protocol", "other"],
)
def test_a_failed_connection_is_transient(kind):
    assert _retry.is_transient(APIConnectionError("failed", kind=kind))


def test_a_certificate_that_does_not_convince_is_not():
    assert not _retry.is_transient(APIConnectionError("failed", kind="certificate"))


@pytest.mark.parametrize("limit", ["attempt_timeout", "connect_timeout", "timeout"])
def test_a_timeout_is_transient(limit):
    assert _retry.is_transient(APITimeoutError("late", limit=limit))


@pytest.mark.parametrize(
    ("kind", "transient"),
    [
        ("truncated", True),
        ("empty", False),
        ("not_json", False),
        ("not_an_object", False),
        ("too_large", False),
        ("too_deep", False),
        ("encoding", False),
        ("mismatched", True),
    ],
)
def test_of_unusable_bodies_only_one_cut_short_is_transient(kind, transient):
    assert _retry.is_transient(APIResponseError("unusable", kind=kind)) is transient


def test_what_is_none_of_these_is_not_transient():
    assert not _retry.is_transient(APIError("failed"))


# How many


@pytest.mark.parametrize(("made", "most", "more"), [(0, 0, 0), (0, 1, 1), (1, 1, 0), (2, 5, 1)])
def test_there_are_at_most_max_retries(made, most, more):
    assert (wait(made=made, most=most) is not None) is bool(more)


def test_no_limit_of_retries_allows_any_number():
    assert wait(made=10**9, most=None) is not None


# Why not


def spent():
    budget = RetryBudget()
    while budget.draw():
        pass
    return budget


@pytest.mark.parametrize(
    ("reason", "given", "note"),
    [
        ("not_retryable", {"error": status(400)}, None),
        ("not_retryable", {"error": status(400, should_retry="false")}, None),
        ("not_retryable", {"error": status(429, code="insufficient_quota")}, None),
        ("not_retryable", {"error": APIConnectionError("no", kind="certificate")}, None),
        (
            "forbidden",
            {"error": status(503, should_retry="false")},
            "Not retried: the server forbids it (x-should-retry: false).",
        ),
        ("retries_exhausted", {"most": 0}, None),
        ("retries_exhausted", {"made": 2}, "Not retried again: max_retries=2 is used up."),
        (
            "deadline",
            {"error": status(429, retry_after=30.0), "left": 9.0},
            (
                "Not retried: the next attempt would start in 31.5 s, and this call's timeout ends "
                "before that."
            ),
        ),
        (
            "budget_exhausted",
            {"budget": spent()},
            (
                "Not retried: the client's retry budget is exhausted because too many recent requests "
                "failed."
            ),
        ),
    ],
)
def test_reason_is_given_and_noted(reason, given, note):
    given = {"error": status(500), **given}

    assert verdict(**given) == _retry.Verdict(None, reason)
    assert getattr(given["error"], "__notes__", [None]) == [note]


def test_retry_has_no_reason_against_it():
    assert verdict(drawn=0.5) == _retry.Verdict(0.25, None)


# How long


@pytest.mark.parametrize(
    ("made", "ceiling"), [(0, 0.5), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (100, 8.0)]
)
@pytest.mark.parametrize("drawn", [0.0, 0.25, 1.0])
def test_the_wait_is_drawn_from_the_whole_of_a_doubling_range(made, ceiling, drawn):
    assert wait(made=made, most=1000, drawn=drawn) == ceiling * drawn


@pytest.mark.parametrize("made", [1023, 1024, 10_000, 10**9])
def test_no_number_of_retries_is_too_many(made):
    assert wait(made=made, most=made + 1, drawn=1.0) == 8.0


def test_the_policy_sets_the_range():
    policy = RetryPolicy(initial_backoff=0.1, max_backoff=0.3)
    waits = [wait(made=made, most=9, policy=policy, drawn=1.0) for made in range(3)]
    assert waits == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 30.0), (0.5, 31.5), (1.0, 33.0)])
def test_the_server_s_wait_is_a_minimum_with_jitter_on_top(drawn, seconds):
    assert wait(status(429, retry_after=30.0), drawn=drawn) == pytest.approx(seconds)


@given(
    asked=st.floats(0.001, 1e6),
    drawn=st.floats(0, 1, exclude_max=True),
    made=st.integers(0, 5),
)
def test_the_server_s_wait_is_never_cut_short(asked, drawn, made):
    seconds = wait(status(503, retry_after=asked), drawn=drawn, made=made, most=6)
    assert asked <= seconds <= asked * 1.1


@given(drawn=st.floats(0, 1, exclude_max=True), made=st.integers(0, 2000))
def test_our_own_wait_is_never_longer_than_the_policy_s(drawn, made):
    assert 0 <= wait(drawn=drawn, made=made, most=2001) <= 8.0


# Whether it fits


@pytest.mark.parametrize(
    ("left", "fits"), [(None, True), (30.1, True), (30.0, False), (29.9, False), (-1.0, False)]
)
def test_a_wait_that_does_not_fit_ends_the_call(left, fits):
    error = status(429, retry_after=30.0)
    assert (wait(error, left=left, drawn=0.0) is not None) is fits


def test_the_jitter_counts_when_a_wait_has_to_fit():
    assert wait(status(429, retry_after=30.0), left=31.0, drawn=1.0) is None


def test_no_time_left_is_no_wait_even_of_nothing():
    assert wait(left=0.0, drawn=0.0) is None


@pytest.mark.parametrize("should_retry", [None, "true", "false"])
def test_a_429_is_a_push_back_whether_or_not_its_call_may_try_again(should_retry):
    assert _retry.is_push_back(status(429, should_retry=should_retry))


def test_a_quota_that_is_used_up_is_no_push_back():
    assert not _retry.is_push_back(status(429, code="insufficient_quota"))


def test_a_503_is_a_push_back_if_it_asks_to_wait():
    assert _retry.is_push_back(status(503, retry_after=1.0))
    assert not _retry.is_push_back(status(503))


# The budget


@given(st.lists(st.sampled_from("rrrs")))
def test_retries_are_at_most_the_capacity_and_a_fifth_of_the_successes(events):
    budget = RetryBudget()
    retries = successes = 0
    for event in events:
        if event == "s":
            budget.put_back()
            successes += 1
        else:
            retries += budget.draw()
        assert retries <= budget.CAPACITY + budget.TOKENS_PER_SUCCESS * successes + 1e-9


def test_in_an_outage_twenty_retries_are_made_and_then_none():
    budget = RetryBudget()

    assert sum(budget.draw() for _ in range(1000)) == 20


def test_successes_bring_retries_back_one_for_five():
    budget = RetryBudget()
    while budget.draw():
        pass

    for _ in range(50):
        budget.put_back()

    assert 9 <= sum(budget.draw() for _ in range(1000)) <= 10


def test_a_long_good_time_saves_up_no_more_than_the_capacity():
    budget = RetryBudget()
    for _ in range(10_000):
        budget.put_back()

    assert sum(budget.draw() for _ in range(1000)) == 20


def test_what_one_client_spends_is_another_ones_to_spend():
    one, other = RetryBudget(), RetryBudget()
    while one.draw():
        pass

    assert other.draw()


def test_budget_allows_twenty_retries_before_a_success():
    budget = RetryBudget()

    assert [wait(budget=budget) for _ in range(20)] == [0.25] * 20
    assert verdict(budget=budget).reason == "budget_exhausted"


def test_push_back_draws_on_no_budget():
    assert wait(status(429, retry_after=2.0), budget=spent()) == 2.1
