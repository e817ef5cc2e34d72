"""The exceptions: their tree, what they say, and that all of them survive pickling."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
from multidict import CIMultiDict

import chatkit_async
from chatkit_async import errors
from chatkit_async.errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ChatKitError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    InternalServerError,
    InvalidFieldError,
    MissingFieldError,
    NotFoundError,
    ParameterError,
    PermissionDeniedError,
    RateLimitError,
    ResponseValidationError,
    UnprocessableEntityError,
)

CALL = {"request_id": "req_1", "attempts": 3, "elapsed": 1.25, "cause": "OSError: [Errno 104]"}
STATUS = {
    "status_code": 429,
    "headers": CIMultiDict({"Retry-After": "2"}),
    "body": {"error": {"message": "slow down"}},
    "code": "rate_limit_exceeded",
    "param": "user",
    "type": "requests",
    "retry_after": 2.0,
}
PROBLEMS = [("user", "must not be empty"), ("workflow.id", "is required")]

EXAMPLES: list[ChatKitError] = [
    ChatKitError("plain"),
    ConfigurationError(PROBLEMS),
    ParameterError(PROBLEMS),
    ResponseValidationError(PROBLEMS),
    ClientClosedError(),
    MissingFieldError("no id", name="id"),
    InvalidFieldError("bent id", name="id"),
    APIError("failed", **CALL),
    APIConnectionError("refused", kind="refused", **CALL),
    APITimeoutError("late", limit="connect_timeout", **CALL),
    APIResponseError("not JSON", kind="truncated", status_code=201, **CALL),
    *(
        cls("said", **STATUS, **CALL)
        for cls in (
            APIStatusError,
            BadRequestError,
            AuthenticationError,
            PermissionDeniedError,
            NotFoundError,
            ConflictError,
            UnprocessableEntityError,
            RateLimitError,
            InternalServerError,
        )
    ),
]


def attributes(error: BaseException) -> dict[str, object]:
    named = {"name": error.name, "obj": error.obj} if isinstance(error, AttributeError) else {}
    return {**vars(error), **named, "args": error.args, "str": str(error), "repr": repr(error)}


def test_there_is_an_example_of_every_exception():
    public = {getattr(errors, name) for name in errors.__all__}
    assert {type(example) for example in EXAMPLES} == public


def test_every_exception_is_public_at_the_top():
    assert set(errors.__all__) <= set(chatkit_async.__all__)
    assert all(getattr(chatkit_async, name) is getattr(errors, name) for name in errors.__all__)


@pytest.mark.unmeasured
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_exception_survives_pickling_with_all_it_knows(error, protocol):
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert attributes(again) == attributes(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_every_exception_survives_copying_with_all_it_knows(error, duplicate):
    assert attributes(duplicate(error)) == attributes(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_a_note_survives_pickling(error):
    noted = copy.copy(error)
    noted.add_note("row 7")
    assert pickle.loads(pickle.dumps(noted)).__notes__ == ["row 7"]  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        (ConfigurationError, ValueError),
        (ParameterError, ValueError),
        (ClientClosedError, RuntimeError),
        (MissingFieldError, AttributeError),
        (InvalidFieldError, AttributeError),
        (APITimeoutError, APIConnectionError),
        (APIConnectionError, APIError),
        (APIStatusError, APIError),
        (APIResponseError, APIError),
    ],
)
def test_an_exception_can_be_caught_by_its_base(cls, base):
    assert issubclass(cls, base)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_exception_is_a_chatkit_error_with_a_docstring(name):
    cls = getattr(errors, name)
    assert issubclass(cls, ChatKitError)
    assert inspect.getdoc(cls)
    assert name in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, UnprocessableEntityError),
        (429, RateLimitError),
        (500, InternalServerError),
        (503, InternalServerError),
        (599, InternalServerError),
        (302, APIStatusError),
        (408, APIStatusError),
        (418, APIStatusError),
        (600, APIStatusError),
    ],
)
def test_each_status_has_its_class(status, cls):
    assert APIStatusError.of_status(status) is cls


def test_one_problem_is_a_line():
    assert str(ParameterError(PROBLEMS[:1])) == "user: must not be empty"


def test_several_problems_are_counted_and_listed():
    assert str(ConfigurationError(PROBLEMS)) == (
        "2 problems:\n  user: must not be empty\n  workflow.id: is required"
    )


def test_a_reply_that_does_not_fit_lists_where():
    assert str(ResponseValidationError([("$.id", "is missing")])) == (
        "the reply does not fit the schema:\n  $.id: is missing"
    )


@pytest.mark.parametrize("cls", [ConfigurationError, ParameterError, ResponseValidationError])
def test_problems_are_not_the_list_they_were_made_of(cls):
    found = PROBLEMS[:1]
    error = cls(found)
    found.append(("later", "is not part of it"))
    assert error.problems == (("user", "must not be empty"),)
    assert error.args == (error.problems,)


def test_a_failed_call_says_how_often_and_how_long_it_tried():
    assert str(APIError("failed", attempts=2, elapsed=1.234)) == "failed (2 attempts, 1.23 s)"


def test_a_failed_call_says_all_there_is_to_quote():
    assert str(APIError("failed", **{**CALL, "attempts": 1})) == (
        "failed (1 attempt, 1.25 s, request id req_1, cause: OSError: [Errno 104])"
    )


@pytest.mark.parametrize(
    ("retry_after", "fact"),
    [(None, ""), (2.0, ", asked to wait 2 s"), (0.25, ", asked to wait 0.25 s")],
)
def test_a_status_error_says_what_wait_the_server_asked_for(retry_after, fact):
    error = APIStatusError("said", retry_after=retry_after)
    assert str(error) == f"said (1 attempt, 0.00 s{fact})"


def test_a_status_error_without_headers_has_empty_ones():
    assert APIStatusError("said").headers == {}


def test_a_closed_client_says_what_to_do():
    assert str(ClientClosedError()) == "this client is closed: make a new one"
    assert str(ClientClosedError("closed by you")) == "closed by you"


@pytest.mark.parametrize("cls", [MissingFieldError, InvalidFieldError])
def test_python_does_not_hang_the_object_on_a_field_error(cls):
    class Holder:
        def __getattr__(self, name):
            raise cls("no such field", name=name)

    with pytest.raises(cls) as caught:
        _ = Holder().client_secret
    assert caught.value.name == "client_secret"
    assert caught.value.obj is None
