"""The budget's properties."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatkit_async._retry import RetryBudget, next_wait
from chatkit_async.errors import APIConnectionError, APIStatusError
from chatkit_async.options import RetryPolicy


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
        assert retries <= budget.CAPACITY + budget.PER_SUCCESS * successes + 1e-9


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


def wait_after(error, budget):
    return next_wait(
        error,
        retries_made=0,
        max_retries=2,
        time_left=None,
        policy=RetryPolicy(),
        budget=budget,
        random=lambda: 0.5,
    )


def test_a_call_without_budget_ends_with_its_error_and_a_note():
    budget = RetryBudget()
    waits = [wait_after(APIConnectionError("reset", kind="reset"), budget) for _ in range(20)]
    error = APIConnectionError("reset", kind="reset")

    assert waits == [0.25] * 20
    assert wait_after(error, budget) is None
    assert error.__notes__ == ["not tried again: too many attempts of this client fail"]


def test_a_push_back_draws_on_no_budget():
    budget = RetryBudget()
    while budget.draw():
        pass

    assert wait_after(APIStatusError("busy", status_code=429, retry_after=2.0), budget) == 2.1
