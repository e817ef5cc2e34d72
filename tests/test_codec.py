"""The codec: what is sent for which parameters, and every problem of those that cannot be right."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import NamedTuple

import attrs
import pytest
from conversation import CONVERSATION
from hypothesis import given
from hypothesis import strategies as st
from replies import DOCUMENTED_CREATED, FITTING

from chatkit_async import _codec
from chatkit_async._checks import PRINTABLE_BITS
from chatkit_async.errors import ParameterError
from chatkit_async.models import (
    AutomaticThreadTitlingParam,
    ChatSession,
    ChatSessionChatKitConfigurationParam,
    ChatSessionExpiresAfterParam,
    ChatSessionRateLimitsParam,
    ChatSessionStatus,
    ChatSessionWorkflowParam,
    FileUploadParam,
    HistoryParam,
    SessionCreateParams,
    WorkflowTracingParam,
)
from chatkit_async.models._base import member_class, promised_object
from chatkit_async.models.threads import ChatKitThreadItemList
from chatkit_async.secret import Secret

SURROGATE = "\ud83d"
SURROGATE_PROBLEM = "has text that UTF-8 cannot encode (a lone surrogate)"
WHOLE_FLOAT = (
    "must be a whole number of type int, got the float 60.0; floats are not converted, because a "
    "calculated one may be slightly off: pass int(...) or round(...)"
)


class Plan(str, Enum):  # noqa: UP042 - its str() is not its value
    FREE = "wf_free"


class Team(StrEnum):
    RED = "wf_red"


class Limit(IntEnum):
    LOW = 5


def body(**params):
    """The bytes that are sent for these parameters, besides a user and a workflow."""
    given = {"user": "u", "workflow": "wf", **params}
    return _codec.encode(_codec.create_params(given), {}).decode()


def sent(workflow="wf", **params):
    """What is sent for these parameters alone, as compact JSON."""
    if workflow != "wf":
        return body(workflow=workflow, **params)
    start = '{"user":"u","workflow":{"id":"wf"}'
    encoded = body(**params)
    assert encoded.startswith(start)
    assert encoded.endswith("}")
    return encoded[len(start) + 1 : -1]


def problems(**params):
    with pytest.raises(ParameterError) as caught:
        _codec.create_params({"user": "u", "workflow": "wf", **params})
    return dict(caught.value.problems)


# What is sent


def test_the_least_there_is():
    assert body() == '{"user":"u","workflow":{"id":"wf"}}'


def test_all_there_is():
    params = SessionCreateParams(
        user="u",
        workflow=ChatSessionWorkflowParam(
            id="wf",
            version="2",
            state_variables={"name": "Ada"},
            tracing=WorkflowTracingParam(enabled=False),
        ),
        chatkit_configuration=ChatSessionChatKitConfigurationParam(
            automatic_thread_titling=AutomaticThreadTitlingParam(enabled=False),
            file_upload=FileUploadParam(enabled=True, max_file_size=5, max_files=2),
            history=HistoryParam(enabled=True, recent_threads=3),
        ),
        expires_after=ChatSessionExpiresAfterParam(seconds=60),
        rate_limits=ChatSessionRateLimitsParam(max_requests_per_1_minute=7),
    )
    expected = (
        '{"user":"u",'
        '"workflow":{"id":"wf","version":"2","state_variables":{"name":"Ada"},'
        '"tracing":{"enabled":false}},'
        '"chatkit_configuration":{"automatic_thread_titling":{"enabled":false},'
        '"file_upload":{"enabled":true,"max_file_size":5,"max_files":2},'
        '"history":{"enabled":true,"recent_threads":3}},'
        '"expires_after":{"seconds":60,"anchor":"created_at"},'
        '"rate_limits":{"max_requests_per_1_minute":7}}'
    )
    assert _codec.encode(_codec.create_params(params), {}).decode() == expected
    # The same as mappings all the way down.
    assert _codec.encode(_codec.create_params(json.loads(expected)), {}).decode() == expected


@pytest.mark.parametrize(
    "workflow",
    [
        "wf",
        {"id": "wf"},
        MappingProxyType({"id": "wf"}),
        OrderedDict(id="wf"),
        ChatSessionWorkflowParam(id="wf"),
        {"id": "wf", "version": None, "state_variables": None, "tracing": None},
        Secret("wf"),
    ],
    ids=repr,
)
def test_a_workflow_is_an_id_a_mapping_or_its_class(workflow):
    assert body(workflow=workflow) == '{"user":"u","workflow":{"id":"wf"}}'


@pytest.mark.parametrize(
    "expires_after",
    [
        60,
        timedelta(minutes=1),
        {"seconds": 60},
        {"seconds": 60, "anchor": "created_at"},
        ChatSessionExpiresAfterParam(seconds=60),
    ],
    ids=repr,
)
def test_an_expiration_is_seconds_a_timedelta_a_mapping_or_its_class(expires_after):
    assert sent(expires_after=expires_after) == (
        '"expires_after":{"seconds":60,"anchor":"created_at"}'
    )


@pytest.mark.parametrize(
    "rate_limits",
    [
        5,
        Limit.LOW,
        {"max_requests_per_1_minute": 5},
        ChatSessionRateLimitsParam(max_requests_per_1_minute=5),
    ],
    ids=repr,
)
def test_rate_limits_are_requests_per_minute_a_mapping_or_their_class(rate_limits):
    assert sent(rate_limits=rate_limits) == '"rate_limits":{"max_requests_per_1_minute":5}'


@pytest.mark.parametrize(
    "configuration",
    [
        {"history": {"enabled": False}},
        {"history": HistoryParam(enabled=False)},
        ChatSessionChatKitConfigurationParam(history={"enabled": False}),
        ChatSessionChatKitConfigurationParam(history=HistoryParam(enabled=False)),
    ],
    ids=["mappings", "class in mapping", "mapping in class", "classes"],
)
def test_mappings_and_classes_mix_at_any_depth(configuration):
    assert sent(chatkit_configuration=configuration) == (
        '"chatkit_configuration":{"history":{"enabled":false}}'
    )


def test_none_is_left_out():
    nothing = {"chatkit_configuration": None, "expires_after": None, "rate_limits": None}
    assert body(**nothing) == body()


def test_what_is_empty_is_sent_empty():
    assert sent(chatkit_configuration={}, rate_limits={}) == (
        '"chatkit_configuration":{},"rate_limits":{}'
    )


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("Ada", '"Ada"'),
        ("", '""'),
        (True, "true"),
        (1, "1"),
        (1.0, "1.0"),
        (-3.5, "-3.5"),
        (2**70, str(2**70)),
        (Plan.FREE, '"wf_free"'),
        (Limit.LOW, "5"),
    ],
    ids=repr,
)
def test_a_state_variable_is_sent_as_it_is(value, encoded):
    workflow = {"id": "wf", "state_variables": {"v": value}}
    assert body(workflow=workflow) == (
        f'{{"user":"u","workflow":{{"id":"wf","state_variables":{{"v":{encoded}}}}}}}'
    )


@pytest.mark.parametrize("member", [Plan.FREE, Team.RED], ids=repr)
def test_an_enum_that_is_a_str_is_sent_as_its_value(member):
    assert body(user=member, workflow=member) == (
        f'{{"user":"{member.value}","workflow":{{"id":"{member.value}"}}}}'
    )


def test_text_is_sent_as_utf_8():
    encoded = _codec.encode(_codec.create_params({"user": "Zoë 🦊", "workflow": "wf"}), {})
    assert encoded == '{"user":"Zoë 🦊","workflow":{"id":"wf"}}'.encode()


@given(st.text(min_size=1).filter(str.strip))
def test_any_text_that_can_be_encoded_arrives_as_it_is(user):
    encoded = _codec.encode(_codec.create_params({"user": user, "workflow": "wf"}), {})
    assert json.loads(encoded)["user"] == user


@pytest.mark.parametrize("seconds", [601, 86_400, 2**70])
def test_limits_that_the_server_owns_are_the_server_s(seconds):
    assert f'"seconds":{seconds}' in sent(expires_after=seconds)


def test_parameters_come_out_as_their_classes():
    params = _codec.create_params({"user": "u", "workflow": "wf", "expires_after": 60})
    assert params == SessionCreateParams(
        user="u",
        workflow=ChatSessionWorkflowParam(id="wf"),
        expires_after=ChatSessionExpiresAfterParam(seconds=60),
    )


def test_state_variables_are_a_snapshot():
    variables = {"a": 1}
    params = _codec.create_params(
        {"user": "u", "workflow": {"id": "wf", "state_variables": variables}}
    )
    variables["b"] = 2
    assert params.workflow.state_variables == {"a": 1}


# What cannot be right


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must not be empty"),
        ("  ", "must not be blank"),
        ("\t\n", "must not be blank"),
        (5, "must be a string, got 5"),
        (True, "must be a string, got True"),
        (b"u", "must be a string, got bytes"),
        (["u"], "must be a string, got list"),
        (f"a{SURROGATE}", SURROGATE_PROBLEM),
    ],
    ids=ascii,
)
def test_text_that_cannot_be_right(text, sentence):
    assert problems(user=text, workflow={"id": text, "version": text}) == {
        "user": sentence,
        "workflow.id": sentence,
        "workflow.version": sentence,
    }


def test_none_is_no_text_where_text_is_required():
    assert problems(user=None, workflow={"id": None, "version": None}) == {
        "user": "must be a string, got None",
        "workflow.id": "must be a string, got None",
    }


@pytest.mark.parametrize("name", ["user", "workflow"])
def test_what_is_required_is_said_to_be(name):
    given = {"user": "u", "workflow": "wf"}
    del given[name]
    with pytest.raises(ParameterError) as caught:
        _codec.create_params(given)
    assert caught.value.problems == ((name, "is required"),)


WORKFLOW = "must be a workflow's id, a ChatSessionWorkflowParam or a mapping"


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        ("", {"workflow": "must not be empty"}),
        (" ", {"workflow": "must not be blank"}),
        (SURROGATE, {"workflow": SURROGATE_PROBLEM}),
        ({}, {"workflow.id": "is required"}),
        ({"id": 5}, {"workflow.id": "must be a string, got 5"}),
        ({"id": "w", "verison": "1"}, {"workflow.verison": "is unknown, did you mean 'version'?"}),
        (None, {"workflow": f"{WORKFLOW}, got None"}),
        (5, {"workflow": f"{WORKFLOW}, got 5"}),
        (["wf"], {"workflow": f"{WORKFLOW}, got list"}),
        (
            {"id": "w", "tracing": True},
            {"workflow.tracing": "must be a WorkflowTracingParam or a mapping, got True"},
        ),
        (
            {"id": "w", "tracing": {"enabled": 1}},
            {"workflow.tracing.enabled": "must be true or false, got 1"},
        ),
        (
            ChatSessionWorkflowParam(id="w", tracing={"enabled": "no"}),
            {"workflow.tracing.enabled": "must be true or false, got str"},
        ),
    ],
    ids=ascii,
)
def test_a_workflow_that_cannot_be_right(workflow, expected):
    assert problems(workflow=workflow) == expected


EXPIRES_AFTER = "must be whole seconds, a timedelta, a ChatSessionExpiresAfterParam or a mapping"


@pytest.mark.parametrize(
    ("expires_after", "expected"),
    [
        (True, {"expires_after": "must be a whole number, got True"}),
        (-1, {"expires_after": "must be at least 1, got -1"}),
        (0, {"expires_after": "must be at least 1, got 0"}),
        (1.5, {"expires_after": "must be a whole number, got 1.5"}),
        (60.0, {"expires_after": WHOLE_FLOAT}),
        ({"seconds": 60.0}, {"expires_after.seconds": WHOLE_FLOAT}),
        (float("nan"), {"expires_after": "must be a whole number, got nan"}),
        (float("inf"), {"expires_after": "must be a whole number, got inf"}),
        ("600", {"expires_after": f"{EXPIRES_AFTER}, got str"}),
        (timedelta(seconds=1.5), {"expires_after": "must be whole seconds, got 1.5"}),
        (timedelta(0), {"expires_after": "must be at least 1, got 0"}),
        (timedelta(seconds=-5), {"expires_after": "must be at least 1, got -5"}),
        ({}, {"expires_after.seconds": "is required"}),
        ({"seconds": "60"}, {"expires_after.seconds": "must be a whole number, got str"}),
        ({"seconds": None}, {"expires_after.seconds": "must be a whole number, got None"}),
        (
            {"seconds": 60, "anchor": "now"},
            {"expires_after.anchor": "must be 'created_at', which is the only anchor"},
        ),
        (
            ChatSessionExpiresAfterParam(seconds=0),
            {"expires_after.seconds": "must be at least 1, got 0"},
        ),
    ],
    ids=ascii,
)
def test_an_expiration_that_cannot_be_right(expires_after, expected):
    assert problems(expires_after=expires_after) == expected


@pytest.mark.parametrize("number", [1, 2, 600, 2**PRINTABLE_BITS - 1], ids=lambda n: n % 1000)
def test_a_whole_number_from_1_on_is_left_to_the_server(number):
    assert sent(expires_after=number, rate_limits=number) == (
        f'"expires_after":{{"seconds":{number},"anchor":"created_at"}},'
        f'"rate_limits":{{"max_requests_per_1_minute":{number}}}'
    )


def test_a_whole_number_that_python_does_not_print_cannot_be_right():
    assert problems(expires_after=10**5000, rate_limits=-(10**5000)) == {
        "expires_after": "must be smaller, got a very large number",
        "rate_limits": "must be at least 1, got a very large number",
    }


RATE_LIMITS = "must be requests per minute, a ChatSessionRateLimitsParam or a mapping"


@pytest.mark.parametrize(
    ("rate_limits", "expected"),
    [
        (0, {"rate_limits": "must be at least 1, got 0"}),
        (-1, {"rate_limits": "must be at least 1, got -1"}),
        (False, {"rate_limits": "must be a whole number, got False"}),
        (2.5, {"rate_limits": "must be a whole number, got 2.5"}),
        ("10", {"rate_limits": f"{RATE_LIMITS}, got str"}),
        (
            {"max_requests_per_1_minute": 0},
            {"rate_limits.max_requests_per_1_minute": "must be at least 1, got 0"},
        ),
        (
            {"max_requests_per_minute": 5},
            {
                "rate_limits.max_requests_per_minute": (
                    "is unknown, did you mean 'max_requests_per_1_minute'?"
                )
            },
        ),
    ],
    ids=ascii,
)
def test_rate_limits_that_cannot_be_right(rate_limits, expected):
    assert problems(rate_limits=rate_limits) == expected


def test_of_an_unknown_keys_likenesses_the_best_is_named():
    assert problems(chatkit_configuration={"file_upload": {"max_file": 5}}) == {
        "chatkit_configuration.file_upload.max_file": "is unknown, did you mean 'max_files'?"
    }


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        (
            5,
            {"": "must be a ChatSessionChatKitConfigurationParam or a mapping, got 5"},
        ),
        ({"history": {"recent_threads": 0}}, {".history.recent_threads": "at least 1, got 0"}),
        ({"file_upload": {"max_files": True}}, {".file_upload.max_files": "number, got True"}),
        ({"file_upload": {"max_file_size": -1}}, {".file_upload.max_file_size": "1, got -1"}),
        ({"file_upload": []}, {".file_upload": "FileUploadParam or a mapping, got list"}),
        ({"file_upload": {"enabled": "y"}}, {".file_upload.enabled": "true or false, got str"}),
        ({"threads": {}}, {".threads": "is unknown: what the API has gained since goes into ext"}),
    ],
    ids=ascii,
)
def test_a_configuration_that_cannot_be_right(configuration, expected):
    found = problems(chatkit_configuration=configuration)
    assert list(found) == [f"chatkit_configuration{path}" for path in expected]
    assert all(
        part in sentence for part, sentence in zip(expected.values(), found.values(), strict=True)
    )


VARIABLE = "must be a string, a boolean or a number"


@pytest.mark.parametrize(
    ("variables", "path", "sentence"),
    [
        ({"a": {"b": 1}}, ".a", f"{VARIABLE}, got dict"),
        ({"a": [1]}, ".a", f"{VARIABLE}, got list"),
        ({"a": None}, ".a", f"{VARIABLE}, got None"),
        ({"a": float("nan")}, ".a", "must be finite, got nan"),
        ({"a": float("-inf")}, ".a", "must be finite, got -inf"),
        ({"a": SURROGATE}, ".a", SURROGATE_PROBLEM),
        ({SURROGATE: "a"}, "['\\ud83d']", SURROGATE_PROBLEM),
        ({5: "a"}, "[5]", "must have strings as keys, got 5"),
        ({None: "a"}, "[None]", "must have strings as keys, got None"),
        ({("a",): "a"}, "[('a',)]", "must have strings as keys, got tuple"),
        ({"a.b": None}, "['a.b']", f"{VARIABLE}, got None"),
        ({"": None}, "['']", f"{VARIABLE}, got None"),
        ({" ": None}, "[' ']", f"{VARIABLE}, got None"),
        ([("a", 1)], "", "must be a mapping, got list"),
        ("a=1", "", "must be a mapping, got str"),
    ],
    ids=ascii,
)
def test_state_variables_that_cannot_be_right(variables, path, sentence):
    workflow = {"id": "wf", "state_variables": variables}
    assert problems(workflow=workflow) == {f"workflow.state_variables{path}": sentence}


def test_a_number_that_python_does_not_print_is_a_problem():
    workflow = {"id": "wf", "state_variables": {"a": 10**5000}}
    assert problems(workflow=workflow)["workflow.state_variables.a"].startswith("is not JSON: ")


def test_every_problem_is_found_at_once():
    assert problems(
        user="",
        workflow={"id": 5, "verison": "1", "state_variables": {"a": None, "b": [], "c": 1}},
        expires_after=0,
        rate_limits={"max_requests_per_1_minute": 1.5},
        chatkit_configuration={"history": {"enabled": 1, "recent_threads": 0}},
        colour="red",
    ) == {
        "user": "must not be empty",
        "workflow.id": "must be a string, got 5",
        "workflow.state_variables.a": f"{VARIABLE}, got None",
        "workflow.state_variables.b": f"{VARIABLE}, got list",
        "workflow.verison": "is unknown, did you mean 'version'?",
        "chatkit_configuration.history.enabled": "must be true or false, got 1",
        "chatkit_configuration.history.recent_threads": "must be at least 1, got 0",
        "expires_after": "must be at least 1, got 0",
        "rate_limits.max_requests_per_1_minute": "must be a whole number, got 1.5",
        "colour": "is unknown: what the API has gained since goes into extra_body",
    }


@pytest.mark.parametrize("name", ["timeout", "extra_body"])
def test_an_option_among_the_fields_says_where_it_goes(name):
    sentence = f"is an option of the calls, not a field: create_many(rows, {name}=...)"
    assert problems(**{name: None}) == {name: sentence}


def test_an_unknown_key_is_named_as_it_is():
    assert list(problems(Xtra=1, _x_=1, workflow={"id": "wf", "XX": 1})) == [
        "workflow.XX",
        "Xtra",
        "_x_",
    ]


def test_unknown_keys_may_be_of_any_type():
    assert problems(workflow={"id": "wf", 5: 1, None: 1, SURROGATE: 1}) == {
        "workflow[5]": "is unknown: what the API has gained since goes into extra_body",
        "workflow[None]": "is unknown: what the API has gained since goes into extra_body",
        "workflow['\\ud83d']": "is unknown: what the API has gained since goes into extra_body",
    }


@pytest.mark.parametrize("params", [None, 5, "wf", [("user", "u")]], ids=repr)
def test_parameters_that_are_no_mapping_at_all(params):
    with pytest.raises(ParameterError, match="must be a SessionCreateParams or a mapp") as caught:
        _codec.create_params(params)
    assert [path for path, _ in caught.value.problems] == ["params"]


def test_problems_neither_show_text_nor_keep_what_raised_them():
    with pytest.raises(ParameterError) as caught:
        _codec.create_params({"user": "u", "workflow": {"id": 5}, "expires_after": "PRIVATE"})
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert "PRIVATE" not in str(caught.value)


# Scalars and records of other libraries


class Scalar:
    """A number as numpy has it: no int, no bool, and with `item()`."""

    shape = ()

    def __init__(self, value):
        self.value = value

    def item(self):
        return self.value


class Index:
    """An integer as other libraries have it."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


class Array(Scalar):
    shape = (1,)


def all_numbers(whole, flag):
    """Return parameters with a number at every place that takes one."""
    return {
        "workflow": {
            "id": "wf",
            "state_variables": {"a": whole, "b": flag},
            "tracing": {"enabled": flag},
        },
        "chatkit_configuration": {
            "automatic_thread_titling": {"enabled": flag},
            "file_upload": {"enabled": flag, "max_file_size": whole, "max_files": whole},
            "history": {"enabled": flag, "recent_threads": whole},
        },
        "expires_after": whole,
        "rate_limits": whole,
    }


@pytest.mark.parametrize("whole", [Scalar(5), Index(5)], ids=["item", "index"])
def test_scalars_are_sent_as_plain_numbers(whole):
    given = all_numbers(whole, Scalar(value=True))
    wanted = all_numbers(5, flag=True)

    assert sent(**given) == sent(**wanted)
    assert sent(expires_after={"seconds": whole}) == sent(expires_after=5)
    assert sent(rate_limits={"max_requests_per_1_minute": whole}) == sent(rate_limits=5)


def test_numpy_scalars_are_sent_as_plain_numbers():
    numpy = pytest.importorskip("numpy")
    wanted = sent(**all_numbers(5, flag=True))

    for kind in (numpy.int8, numpy.uint32, numpy.int64, numpy.array):
        assert sent(**all_numbers(kind(5), numpy.bool_(True))) == wanted
    assert sent(expires_after=numpy.timedelta64(60, "s")) == sent(expires_after=60)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (Scalar(5.0), WHOLE_FLOAT.replace("60.0", "5.0")),
        (Scalar(value=True), "must be a whole number, got True"),
        (Array([5]), "must be a whole number, got Array"),
    ],
    ids=["float", "bool", "array"],
)
def test_a_scalar_is_held_to_the_same_rules(value, sentence):
    assert problems(chatkit_configuration={"history": {"recent_threads": value}}) == {
        "chatkit_configuration.history.recent_threads": sentence
    }


@attrs.frozen
class PydanticModel:
    id: str = "wf"

    def model_dump(self):
        return {"id": self.id}


@dataclass
class Dataclass:
    id: str = "wf"


class Named(NamedTuple):
    id: str = "wf"


RECORDS = {
    "pydantic": (PydanticModel(), "its model_dump()", PydanticModel.model_dump),
    "dataclass": (Dataclass(), "dataclasses.asdict() of it", asdict),
    "namedtuple": (Named(), "its _asdict()", Named._asdict),
}


@pytest.mark.parametrize(("record", "call", "made"), RECORDS.values(), ids=RECORDS)
@pytest.mark.parametrize(
    ("params", "path"),
    [
        (lambda record: record, "params"),
        (lambda record: {"user": "u", "workflow": record}, "workflow"),
        (
            lambda record: {"user": "u", "workflow": {"id": "wf", "state_variables": record}},
            "workflow.state_variables",
        ),
    ],
    ids=["all", "workflow", "variables"],
)
def test_a_record_is_refused_with_the_call_that_makes_it_a_mapping(
    record, call, made, params, path
):
    with pytest.raises(ParameterError) as caught:
        _codec.create_params(params(record))

    [(where, sentence)] = caught.value.problems
    assert where == path
    assert sentence.endswith(f", got {type(record).__name__}: pass {call} instead")
    assert made(record) == {"id": "wf"}


# extra_body


def merged(extra_body, **params):
    given = {"user": "u", "workflow": "wf", **params}
    return json.loads(_codec.encode(_codec.create_params(given), extra_body))


def test_extra_body_adds_fields():
    assert merged({"colour": "red"}) == {"user": "u", "workflow": {"id": "wf"}, "colour": "red"}


def test_extra_body_is_merged_object_by_object():
    extra = {"chatkit_configuration": {"history": {"days": 3}, "theme": {"dark": True}}}
    configuration = {"history": {"enabled": True}, "file_upload": {"enabled": True}}
    assert merged(extra, chatkit_configuration=configuration)["chatkit_configuration"] == {
        "history": {"enabled": True, "days": 3},
        "file_upload": {"enabled": True},
        "theme": {"dark": True},
    }


def test_extra_body_wins_over_the_parameters():
    assert merged({"expires_after": None, "user": "other"}, expires_after=60) == {
        "user": "other",
        "workflow": {"id": "wf"},
        "expires_after": None,
    }


def test_extra_body_replaces_what_is_no_object():
    assert merged({"workflow": "wf_2"})["workflow"] == "wf_2"
    assert merged({"workflow": {"state_variables": [1]}})["workflow"] == {
        "id": "wf",
        "state_variables": [1],
    }


def test_extra_body_is_left_as_it_was():
    extra = {"workflow": {"gained": {}}}
    merged(extra)
    assert extra == {"workflow": {"gained": {}}}


def test_extra_body_is_all_there_is_without_parameters():
    assert _codec.encode(None, {"reason": "Zoë"}) == '{"reason":"Zoë"}'.encode()


def test_extra_body_is_held_to_be_json():
    circle: list[object] = []
    circle.append(circle)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    found = _codec.extra_body_problems(
        {
            "fine": [1, None, {"a": 2.5}],
            "nan": {"a": [float("nan")]},
            "type": {1, 2},
            "circle": circle,
            "deep": deep,
            "text": [SURROGATE],
            SURROGATE: 1,
            5: 1,
        }
    )
    assert [path for path, _ in found] == [
        "extra_body.nan",
        "extra_body.type",
        "extra_body.circle",
        "extra_body.deep",
        "extra_body.text",
        "extra_body['\\ud83d']",
        "extra_body[5]",
    ]
    sentences = [sentence for _, sentence in found]
    assert all(sentence.startswith("is not JSON: ") for sentence in sentences[:4])
    assert sentences[4:] == [
        SURROGATE_PROBLEM,
        SURROGATE_PROBLEM,
        "must have strings as keys, got 5",
    ]


# JSON


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_json_is_read_in_the_encodings_it_has(encoding):
    assert _codec.loads('{"a": "é"}'.encode(encoding)) == {"a": "é"}


def test_json_that_cannot_be_decoded_is_a_value_error():
    with pytest.raises(ValueError, match="codec"):
        _codec.loads('{"a": "é"}'.encode("latin-1"))


def test_json_that_is_nested_too_deeply_is_told_apart():
    with pytest.raises(RecursionError):
        _codec.loads(b"[" * 1_000_000)


# Replies: what the models' tests do not reach


def test_a_reply_is_read_of_any_mapping_and_of_nothing_else():
    read = _codec.from_dict(ChatSession, MappingProxyType(FITTING))
    assert read == _codec.from_dict(ChatSession, FITTING)
    with pytest.raises(ParameterError, match="data: must be a mapping, got list"):
        _codec.from_dict(ChatSession, [FITTING])


def test_subclass_of_a_fields_type_fits():
    class Seconds(int):
        pass

    assert _codec.from_dict(ChatSession, {"expires_at": Seconds(5)}).expires_at == 5


def test_a_reply_that_does_not_fit_is_read_field_by_field():
    session = _codec.from_dict(ChatSession, {**DOCUMENTED_CREATED, "status": 5, "user": None})
    assert session.workflow.id == "workflow_alpha"
    assert not hasattr(session, "status")
    assert not hasattr(session, "user")


def test_a_status_is_a_member_if_it_is_known_and_as_it_came_if_not():
    statuses = [_codec.from_dict(ChatSession, {"status": s}).status for s in ("expired", "paused")]
    assert statuses == [ChatSessionStatus.EXPIRED, "paused"]
    assert [type(status) for status in statuses] == [ChatSessionStatus, str]


@pytest.mark.parametrize("variables", [None, [1], "a", {"a": None}, {5: "a"}], ids=repr)
def test_state_variables_of_a_reply_are_kept_whatever_they_are(variables):
    data = {"workflow": {"id": "wf", "state_variables": variables}}
    assert _codec.from_dict(ChatSession, data).to_dict() == data


def test_what_reads_a_reply_is_nobody_else_s_converter():
    import cattrs

    assert _codec._converter is not cattrs.global_converter


def test_conversions_are_made_again_when_forgotten():
    # Else the test that comes first in a process decides if making them is measured.
    _codec._slots_of.cache_clear()
    _codec._converter._structure_func.clear_cache()
    promised_object.cache_clear()
    member_class.cache_clear()
    assert _codec.from_dict(ChatSession, FITTING).to_dict() == FITTING
    page = {"object": "list", "data": CONVERSATION, "first_id": None, "last_id": None}
    assert _codec.from_dict(ChatKitThreadItemList, page).to_dict() == page
