"""Options: which are refused, how credentials in them are masked, and what users can pickle."""

from __future__ import annotations

import pickle
from collections import UserDict
from enum import Enum

import pytest

from chatkit_async import options
from chatkit_async.errors import ConfigurationError
from chatkit_async.options import Attempt, ClientOptions, RequestOptions, RetryPolicy

KEY = "sk-proj-0123456789abcdefghij"
SURROGATE_PROBLEM = "has text that UTF-8 cannot encode (a lone surrogate)"


def test_what_is_hidden_is_the_text_of_a_str_that_shows_another():
    class Masked(str):
        __slots__ = ()

        def __str__(self):
            return "***"

    class Keys(str, Enum):  # noqa: UP042 - its str() is not its value
        LIVE = KEY

    assert options.traceback_safe(Masked(KEY)) == KEY
    assert options.traceback_safe(Keys.LIVE) == KEY
    assert options.traceback_safe(None) is None


def test_hidden_options_are_the_same_and_show_no_credential():
    given = {
        "api_key": KEY,
        "proxy": "http://user:pass@proxy:1",
        "base_url": "https://user:pass@api.example/v1",
        "default_headers": {"X-Token": "hush-1"},
        "timeout": 5,
    }
    masked = options.traceback_safe_options(given)
    assert masked == given
    assert not any(part in repr(masked) for part in (KEY, "pass", "hush-1"))
    request: RequestOptions = {"extra_headers": UserDict({"X-Token": "hush-2"})}
    assert options.traceback_safe_options(request) == {"extra_headers": {"X-Token": "hush-2"}}
    assert "hush-2" not in repr(options.traceback_safe_options(request))
    assert options.traceback_safe_options({}) == {}
    assert options.traceback_safe_options({"proxy": None, "extra_headers": None}) == {
        "proxy": None,
        "extra_headers": None,
    }


class Index:
    """An integer as numpy has it."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


@pytest.mark.parametrize("name", ["timeout", "attempt_timeout", "max_retries"])
def test_integers_of_other_libraries_are_taken(name):
    assert options.request_problems({name: Index(5)}) == []


def test_integers_of_other_libraries_have_the_same_range():
    found = options.request_problems({"max_retries": Index(-1), "extra_query": {"a": Index(10)}})
    assert [name for name, _ in found] == ["max_retries"]


def test_an_extra_body_that_has_a_mapping_is_told_how_to_make_it():
    class Model:
        def model_dump(self):
            return {"a": 1}

    wanted = "must be a Mapping, got Model: pass its model_dump() instead"
    assert options.request_problems({"extra_body": Model()}) == [("extra_body", wanted)]
    assert options.request_problems({"extra_body": Model().model_dump()}) == []


def test_a_count_that_python_does_not_print_is_refused_all_the_same():
    assert options.request_problems({"max_retries": -(10**5000)}) == [
        ("max_retries", "must be at least 0, got a very large number")
    ]


def test_a_call_s_options_that_are_right():
    assert not options.request_problems({})
    assert not options.request_problems(
        {
            "timeout": None,
            "attempt_timeout": 5,
            "max_retries": 0,
            "extra_headers": {"X-A": "a"},
            "extra_query": {"a": "b", "n": 5, "x": 2.5, "": ""},
            "extra_body": {"a": object()},
        }
    )


@pytest.mark.parametrize(
    ("query", "step", "sentence"),
    [
        ([("a", "b")], "", "must be a mapping, got list"),
        ({5: "a"}, "[5]", "must have a string as its name, got 5"),
        ({"a": True}, "['a']", "must be a string or a number, got True"),
        ({"a": None}, "['a']", "must be a string or a number, got None"),
        ({"a": ["b"]}, "['a']", "must be a string or a number, got list"),
        ({"a": float("nan")}, "['a']", "must be a string or a number, got nan"),
        ({"a": float("inf")}, "['a']", "must be a string or a number, got inf"),
        ({"a": "\ud800"}, "['a']", SURROGATE_PROBLEM),
        ({"\ud800": "a"}, "['\\ud800']", SURROGATE_PROBLEM),
        ({"\ud800": 5}, "['\\ud800']", SURROGATE_PROBLEM),
        ({"\ud83d": "\ude00"}, "['\\ud83d']", SURROGATE_PROBLEM),
    ],
    ids=ascii,
)
def test_a_query_that_cannot_be_right(query, step, sentence):
    assert options.request_problems({"extra_query": query}) == [("extra_query" + step, sentence)]


def test_a_query_s_number_that_python_does_not_print():
    assert options.request_problems({"extra_query": {"a": 10**5000}}) == [
        ("extra_query['a']", "must be a string or a number, got a very large number")
    ]


def test_every_problem_of_a_call_is_found_at_once():
    found = options.request_problems(
        {
            "timeout": 0,
            "attempt_timeout": "5",
            "max_retries": -1,
            "extra_headers": 5,
            "extra_query": 5,
            "extra_body": 5,
        }
    )
    assert [name for name, _ in found] == list(RequestOptions.__annotations__)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("timout", "; did you mean 'timeout'?"), ("max_retry", "; did you mean 'max_retries'?")],
)
def test_an_option_of_another_name_is_refused_as_python_does(name, hint):
    with pytest.raises(TypeError) as caught:
        options.request_problems({name: 5})
    assert str(caught.value) == f"unexpected keyword argument {name!r}{hint}"


def test_an_option_of_an_altogether_other_name():
    with pytest.raises(TypeError, match=r"^unexpected keyword argument 'colour'$"):
        options.request_problems({"colour": "red"})


@pytest.mark.parametrize("name", ["api_key", "connect_timeout", "proxy"])
def test_what_only_a_client_has_says_where_it_goes(name):
    with pytest.raises(
        TypeError, match=rf"{name!r}; a client has it .*client\.with_options\({name}="
    ):
        options.refuse_unknown({name: 5}, RequestOptions)


@pytest.mark.parametrize("name", ["max_connections", "http_session"])
@pytest.mark.parametrize("known", [RequestOptions, ClientOptions])
def test_what_belongs_to_the_connections_says_so(name, known):
    with pytest.raises(TypeError, match=rf"{name!r}; it is the connections', set as a client"):
        options.refuse_unknown({name: 5}, known)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"initial_backoff": 0},
            ("initial_backoff", "must be more than 0 seconds and finite, got 0"),
        ),
        ({"initial_backoff": None}, ("initial_backoff", "must be seconds, got None")),
        ({"max_backoff": True}, ("max_backoff", "must be seconds, got True")),
        ({"max_backoff": 0.1}, ("max_backoff", "must be at least initial_backoff")),
    ],
    ids=repr,
)
def test_a_retry_policy_that_cannot_be_right(given, problem):
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**given)
    assert caught.value.problems == (problem,)


@pytest.mark.parametrize(
    "value",
    [
        RetryPolicy(initial_backoff=1, max_backoff=1),
        Attempt(
            method="POST",
            route="/chatkit/sessions",
            number=1,
            status_code=200,
            request_id=None,
            elapsed=0.1,
            error=None,
            next_wait=None,
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_users_meet_is_frozen_and_pickles(value):
    with pytest.raises(AttributeError):
        value.number = 2
    assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301 - our own
    assert hash(value) == hash(pickle.loads(pickle.dumps(value)))  # noqa: S301 - our own
