"""The models: what they hold, how they read when a reply does not fit, and that they are values."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import traceback
import weakref
from collections import OrderedDict, UserDict, defaultdict
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import get_type_hints

import attrs
import pytest
from hypothesis import given
from replies import (
    CLIENT_SECRET,
    DOCUMENTED,
    DOCUMENTED_CANCELLED,
    DOCUMENTED_CREATED,
    FITTING,
    NULLABLE,
    OBJECTS,
    PATHS,
    at,
    replies,
    reply_with,
    reply_without,
)

import chatkit_async
from chatkit_async import models
from chatkit_async.errors import (
    InvalidFieldError,
    MissingFieldError,
    ParameterError,
    ResponseValidationError,
)
from chatkit_async.models import (
    AutomaticThreadTitlingParam,
    ChatKitWorkflow,
    ChatKitWorkflowTracing,
    ChatSession,
    ChatSessionAutomaticThreadTitling,
    ChatSessionChatKitConfiguration,
    ChatSessionChatKitConfigurationParam,
    ChatSessionExpiresAfterParam,
    ChatSessionFileUpload,
    ChatSessionHistory,
    ChatSessionRateLimits,
    ChatSessionRateLimitsParam,
    ChatSessionStatus,
    ChatSessionWorkflowParam,
    FileUploadParam,
    HistoryParam,
    SessionCreateParams,
    WorkflowTracingParam,
)
from chatkit_async.secret import Secret

DOCUMENTED_REPLIES = {
    "fitting": FITTING,
    "documented": DOCUMENTED,
    "documented create": DOCUMENTED_CREATED,
    "documented cancel": DOCUMENTED_CANCELLED,
    "empty": {},
}

PARAMS = [
    WorkflowTracingParam(enabled=False),
    AutomaticThreadTitlingParam(),
    FileUploadParam(enabled=True, max_file_size=5),
    HistoryParam(recent_threads=3),
    ChatSessionExpiresAfterParam(seconds=60),
    ChatSessionRateLimitsParam(max_requests_per_1_minute=2),
    ChatSessionWorkflowParam(id="wf", state_variables={"a": 1}, tracing={"enabled": True}),
    ChatSessionChatKitConfigurationParam(history=HistoryParam(enabled=False), file_upload={}),
    SessionCreateParams(user="u", workflow="wf", expires_after=timedelta(seconds=5)),
    SessionCreateParams(user="u", workflow=ChatSessionWorkflowParam(id="wf"), rate_limits=[5]),
]
REPLIES = [
    ChatSession.from_dict(FITTING),
    ChatSession.from_dict(DOCUMENTED_CREATED),
    ChatSession.from_dict({}),
]

per_class = pytest.mark.parametrize(
    "value", [*PARAMS, *REPLIES], ids=lambda value: repr(value)[:60]
)
per_param = pytest.mark.parametrize("cls", {type(value): None for value in PARAMS})
per_path = pytest.mark.parametrize("path", PATHS, ids=".".join)
per_object = pytest.mark.parametrize("path", OBJECTS, ids=lambda path: "$" + ".".join(path))
per_reply = pytest.mark.parametrize(
    "data", DOCUMENTED_REPLIES.values(), ids=DOCUMENTED_REPLIES.keys()
)


def exactly(value):
    """JSON text, in which True, 1 and 1.0 differ, as they do not in Python."""
    return json.dumps(value, sort_keys=True)


def through_pickle(value, protocol=pickle.HIGHEST_PROTOCOL):
    return pickle.loads(pickle.dumps(value, protocol))  # noqa: S301 - our own


# Values: parameters and replies alike


@per_param
def test_a_typed_dict_has_the_fields_of_its_class(cls):
    name = cls.__name__.removesuffix("s").replace("Param", "Dict")
    typed_dict = getattr(chatkit_async, name)
    fields = attrs.fields_dict(attrs.resolve_types(cls))

    assert get_type_hints(typed_dict) == {name: field.type for name, field in fields.items()}
    assert typed_dict.__required_keys__ == {
        name for name, field in fields.items() if field.default is attrs.NOTHING
    }


@per_class
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_comes_back_equal(value, protocol):
    again = through_pickle(value, protocol)
    assert again == value
    assert hash(again) == hash(value)
    assert repr(again) == repr(value)


@per_class
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_is_equal(value, duplicate):
    again = duplicate(value)
    assert again == value
    assert hash(again) == hash(value)
    assert repr(again) == repr(value)


@per_class
def test_it_is_frozen(value):
    name = attrs.fields(type(value))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, name, "changed")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        delattr(value, name)


@per_class
def test_it_has_slots_and_can_be_referred_to_weakly(value):
    assert not hasattr(value, "__dict__")
    assert weakref.ref(value)() is value


@per_class
def test_it_is_only_made_by_keyword(value):
    with pytest.raises(TypeError, match="positional"):
        type(value)("positional")


@per_class
def test_it_does_not_equal_what_is_no_model(value):
    assert value != dict(value.to_dict() if hasattr(value, "to_dict") else {})
    assert value != object()


def test_objects_of_two_classes_with_the_same_fields_differ():
    assert WorkflowTracingParam(enabled=True) != AutomaticThreadTitlingParam(enabled=True)
    tracing = ChatKitWorkflowTracing.from_dict({"enabled": True})
    titling = ChatSessionAutomaticThreadTitling.from_dict({"enabled": True})
    assert tracing != titling
    assert len({tracing, titling}) == 2


def test_every_model_is_public_at_the_top():
    classes = {name for name in models.__all__ if isinstance(getattr(models, name), type)}
    assert classes <= set(chatkit_async.__all__)
    assert len(classes) == 27


# Parameters


def test_a_parameter_s_repr_can_be_typed():
    assert repr(ChatSessionExpiresAfterParam(seconds=60)) == (
        "ChatSessionExpiresAfterParam(seconds=60, anchor='created_at')"
    )


def test_parameters_that_differ_in_a_mapping_differ_and_share_a_hash():
    one = ChatSessionWorkflowParam(id="wf", state_variables={"a": 1})
    other = ChatSessionWorkflowParam(id="wf", state_variables={"a": 2})
    assert one != other
    assert hash(one) == hash(other)


def test_parameters_are_held_as_given():
    given = {"id": "wf"}
    assert SessionCreateParams(user="u", workflow=given).workflow is given


# Replies that fit


def test_a_fitting_reply_reads_as_its_fields():
    session = ChatSession.from_dict(FITTING)
    assert session.id == "cksess_68f1c2d3"
    assert session.object == "chatkit.session"
    assert session.expires_at == 1735689600
    assert session.client_secret == CLIENT_SECRET
    assert session.user == "user_123"
    assert session.max_requests_per_1_minute == 10
    assert session.status is ChatSessionStatus.ACTIVE
    assert isinstance(session.workflow, ChatKitWorkflow)
    assert isinstance(session.workflow.tracing, ChatKitWorkflowTracing)
    assert isinstance(session.rate_limits, ChatSessionRateLimits)
    configuration = session.chatkit_configuration
    assert isinstance(configuration, ChatSessionChatKitConfiguration)
    assert isinstance(configuration.automatic_thread_titling, ChatSessionAutomaticThreadTitling)
    assert isinstance(configuration.file_upload, ChatSessionFileUpload)
    assert isinstance(configuration.history, ChatSessionHistory)
    assert configuration.history.recent_threads is None
    assert session.workflow.version is None


@pytest.mark.parametrize("data", [FITTING, DOCUMENTED], ids=["fitting", "documented"])
def test_a_fitting_reply_is_valid_and_is_held_once(data):
    session = ChatSession.from_dict(data)
    assert session.validate() is session
    assert session.extra == {}
    assert data not in gc.get_referents(session)
    for path in OBJECTS:
        with pytest.raises(AttributeError):
            _ = at(session, path)._misfits


@pytest.mark.parametrize(
    ("value", "shown"),
    [(True, "true"), (1, "1"), (1.0, "1.0"), (3.5, "3.5"), (2**70, str(2**70)), ("1", '"1"')],
    ids=repr,
)
def test_a_state_variable_is_what_was_sent(value, shown):
    session = ChatSession.from_dict(reply_with(("workflow", "state_variables"), {"v": value}))
    assert exactly(session.workflow.state_variables) == f'{{"v": {shown}}}'
    assert exactly(session.to_dict()["workflow"]["state_variables"]) == f'{{"v": {shown}}}'


def test_a_huge_number_is_exact():
    assert ChatSession.from_dict(reply_with(("expires_at",), 2**70)).expires_at == 2**70


@pytest.mark.parametrize("status", ["active", "expired", "cancelled"])
def test_a_known_status_is_a_member(status):
    session = ChatSession.from_dict(reply_with(("status",), status))
    assert isinstance(session.status, ChatSessionStatus)
    assert session.status == status


def test_an_unknown_status_is_usable():
    session = ChatSession.from_dict(reply_with(("status",), "paused"))
    assert session.status == "paused"
    assert session.to_dict()["status"] == "paused"


# The client secret


@per_reply
def test_the_client_secret_is_a_secret_and_in_no_repr(data):
    session = ChatSession.from_dict({**data, "client_secret": CLIENT_SECRET})
    assert isinstance(session.client_secret, Secret)
    assert session.client_secret == CLIENT_SECRET
    assert CLIENT_SECRET not in repr(session)
    assert CLIENT_SECRET not in repr(session.to_dict())
    assert "client_secret=Secret('**********')" in repr(session)


@pytest.mark.parametrize("value", [[CLIENT_SECRET], {"value": CLIENT_SECRET}], ids=["list", "dict"])
def test_a_client_secret_of_a_wrong_type_is_in_no_repr(value):
    session = ChatSession.from_dict(reply_with(("client_secret",), value))
    assert "client_secret=<invalid>" in repr(session)
    assert CLIENT_SECRET not in repr(session)


def test_no_traceback_of_a_field_error_shows_a_secret():
    session = ChatSession.from_dict({**DOCUMENTED_CREATED, "client_secret": CLIENT_SECRET})
    for read in (lambda: session.id, lambda: session.user, session.validate):
        try:
            read()
        except (MissingFieldError, ResponseValidationError) as error:
            shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert CLIENT_SECRET not in "".join(shown.format())


# Replies that lack something


@per_path
def test_an_absent_field_is_missing_when_it_is_read_unless_it_is_nullable(path):
    holder = at(ChatSession.from_dict(reply_without(path)), path[:-1])
    name = path[-1]
    if name in NULLABLE:
        assert getattr(holder, name) is None
        assert hasattr(holder, name)
        return
    assert not hasattr(holder, name)
    assert getattr(holder, name, "default") == "default"
    with pytest.raises(MissingFieldError, match=f"no '{name}'") as caught:
        getattr(holder, name)
    assert caught.value.name == name
    assert caught.value.obj is None
    assert caught.value.__context__ is None


@per_path
def test_an_absent_field_is_a_problem_by_its_path(path):
    session = ChatSession.from_dict(reply_without(path))
    with pytest.raises(ResponseValidationError) as caught:
        session.validate()
    assert caught.value.problems == (("$." + ".".join(path), "is missing"),)


def test_an_absent_field_is_not_in_the_repr():
    assert repr(ChatSession.from_dict({"user": "u"})) == "ChatSession(user='u')"


# Replies that bend something


@pytest.mark.parametrize(
    ("path", "value"),
    [(path, value) for path in PATHS for value in (["LEAK"], 3.5)]
    + [(path, {"LEAK": ["LEAK"]}) for path in PATHS if path not in OBJECTS],
    ids=repr,
)
def test_a_bent_field_is_invalid_when_it_is_read(path, value):
    session = ChatSession.from_dict(reply_with(path, value))
    holder, name = at(session, path[:-1]), path[-1]
    assert not hasattr(holder, name)
    assert getattr(holder, name, "default") == "default"
    with pytest.raises(InvalidFieldError, match=f"'{name}' of the API's reply") as caught:
        getattr(holder, name)
    assert caught.value.name == name
    assert caught.value.obj is None
    assert "LEAK" not in str(caught.value)
    assert f"{name}=<invalid>" in repr(session)
    assert "LEAK" not in repr(session)
    assert at(session.to_dict(), path) == value
    with pytest.raises(ResponseValidationError, match=name) as invalid:
        session.validate()
    assert [where for where, _ in invalid.value.problems] == ["$." + ".".join(path)]
    assert "LEAK" not in str(invalid.value)


@per_path
def test_null_is_only_right_where_the_schema_allows_it(path):
    holder = at(ChatSession.from_dict(reply_with(path, None)), path[:-1])
    if path[-1] in NULLABLE:
        assert getattr(holder, path[-1]) is None
    else:
        with pytest.raises(InvalidFieldError, match="has the wrong type: null"):
            getattr(holder, path[-1])


@pytest.mark.parametrize(
    ("path", "value", "wrong"),
    [
        ("id", 5, "has the wrong type: an integer"),
        ("id", None, "has the wrong type: null"),
        ("id", True, "has the wrong type: a boolean"),
        ("id", [], "has the wrong type: an array"),
        ("id", {}, "has the wrong type: an object"),
        ("id", b"id", "has the wrong type: bytes"),
        ("expires_at", "1735689600", "has the wrong type: a string"),
        ("expires_at", 1735689600.0, "has the wrong type: a number"),
        ("expires_at", True, "has the wrong type: a boolean"),
        ("object", "chatkit.thread", "is another string than 'chatkit.session'"),
        ("object", 5, "has the wrong type: an integer"),
        ("status", "paused", "is 'paused', which the schema does not know"),
        ("status", 5, "has the wrong type: an integer"),
    ],
)
def test_a_problem_says_what_is_wrong(path, value, wrong):
    session = ChatSession.from_dict(reply_with((path,), value))
    with pytest.raises(ResponseValidationError) as caught:
        session.validate()
    assert caught.value.problems == ((f"$.{path}", wrong),)


@pytest.mark.parametrize("value", [None, [], {}], ids=repr)
def test_a_state_variable_of_a_wrong_type_is_told_from_no_state_variables(value):
    session = ChatSession.from_dict(reply_with(("workflow", "state_variables"), {"v": value}))
    with pytest.raises(InvalidFieldError, match="something else than strings, booleans and num"):
        _ = session.workflow.state_variables
    assert session.to_dict()["workflow"]["state_variables"] == {"v": value}


def test_all_that_is_wrong_is_listed_at_once():
    data = reply_with(("workflow",), {"id": 5, "tracing": {}})
    del data["user"]
    with pytest.raises(ResponseValidationError) as caught:
        ChatSession.from_dict(data).validate()
    assert caught.value.problems == (
        ("$.workflow.id", "has the wrong type: an integer"),
        ("$.workflow.version", "is missing"),
        ("$.workflow.state_variables", "is missing"),
        ("$.workflow.tracing.enabled", "is missing"),
        ("$.user", "is missing"),
    )


# Replies that add something


@per_object
def test_unknown_fields_are_kept_and_their_values_shown_nowhere(path):
    session = ChatSession.from_dict(reply_with((*path, "gained"), {"by": ["LEAK"]}))
    assert at(session, path).extra == {"gained": {"by": ["LEAK"]}}
    assert "extra=<'gained'>" in repr(session)
    assert "LEAK" not in repr(session)
    assert session.validate() is session
    assert session.to_dict() == reply_with((*path, "gained"), {"by": ["LEAK"]})


def replaced(value, **changes):
    """Return what `copy.replace` does, which Python has from 3.13 on."""
    return getattr(copy, "replace", type(value).__replace__)(value, **changes)


@per_object
@pytest.mark.parametrize("duplicate", [attrs.evolve, replaced])
def test_a_copy_with_changes_keeps_unknown_fields(path, duplicate):
    data = reply_with((*path, "gained"), {"by": [1]})
    value = at(ChatSession.from_dict(data), path)

    again = duplicate(value)
    assert again.extra == {"gained": {"by": [1]}}
    assert again == value
    assert again.to_dict() == value.to_dict()
    assert duplicate(value, extra=None).extra == {}
    with pytest.raises(TypeError, match="'nonsense'"):
        duplicate(value, nonsense=1)


@per_reply
def test_a_replaced_session_keeps_what_breaks_the_schema(data):
    session = ChatSession.from_dict({**data, "user": ["eve"], "gained": 1})
    assert replaced(session) == session

    changed = replaced(session, user="ada")
    assert changed.to_dict() == {**data, "user": "ada", "gained": 1}
    assert through_pickle(changed) == changed
    assert session.to_dict()["user"] == ["eve"]


def test_evolve_replaces_an_invalid_field_and_raises_for_another():
    session = ChatSession.from_dict({**FITTING, "user": ["eve"], "gained": 1})
    assert attrs.evolve(session, user="ada").to_dict() == {**FITTING, "user": "ada", "gained": 1}
    with pytest.raises(InvalidFieldError, match="'user'"):
        attrs.evolve(session, status="expired")


def test_unknown_fields_can_be_given():
    session = ChatSession.from_dict({**FITTING, "gained": 1})
    again = attrs.evolve(ChatSession.from_dict(FITTING), extra=session.extra)
    assert again == session
    assert through_pickle(again) == session
    assert hash(again) == hash(session)


def test_an_unknown_field_is_no_attribute():
    session = ChatSession.from_dict(DOCUMENTED_CANCELLED)
    assert session.extra["cancelled_at"] == 1712345678
    assert not hasattr(session, "cancelled_at")


def test_the_unknown_fields_cannot_be_changed():
    with pytest.raises(TypeError):
        ChatSession.from_dict(DOCUMENTED_CANCELLED).extra["cancelled_at"] = 0


@pytest.mark.parametrize(
    "name", ["_misfits", "_extra", "_fields", "extra", "to_dict", "__class__", ""]
)
def test_an_unknown_field_may_have_any_name(name):
    session = ChatSession.from_dict({**FITTING, name: "LEAK"})
    assert session.extra == {name: "LEAK"}
    assert session.to_dict() == {**FITTING, name: "LEAK"}
    assert "LEAK" not in repr(session)


def test_a_misspelt_attribute_is_an_ordinary_attribute_error():
    session = ChatSession.from_dict(FITTING)
    with pytest.raises(AttributeError, match="'ChatSession' object has no attribute 'secret'") as e:
        _ = session.secret
    assert type(e.value) is AttributeError
    assert e.value.name == "secret"
    assert e.value.obj is None


# The documentation's own examples


def test_the_documented_create_reads():
    session = ChatSession.from_dict(DOCUMENTED_CREATED)
    assert session.client_secret == "chatkit_token_123"
    assert session.workflow.id == "workflow_alpha"
    assert session.workflow.version == "2024-10-01"
    assert session.workflow.state_variables is None
    assert session.max_requests_per_1_minute == 60
    assert session.status is ChatSessionStatus.ACTIVE
    assert session.expires_at_datetime == datetime(2025, 1, 1, tzinfo=UTC)
    assert session.extra == {
        "scope": {"project": "alpha", "environment": "staging"},
        "max_requests_per_session": 500,
    }
    with pytest.raises(ResponseValidationError) as caught:
        session.validate()
    assert [path for path, _ in caught.value.problems] == [
        "$.id",
        "$.object",
        "$.workflow.state_variables",
        "$.workflow.tracing",
        "$.user",
        "$.rate_limits",
        "$.chatkit_configuration",
    ]


def test_the_documented_cancel_reads():
    session = ChatSession.from_dict(DOCUMENTED_CANCELLED)
    assert session.id == "cksess_123"
    assert session.status is ChatSessionStatus.CANCELLED
    assert session.workflow.version == "1"
    assert set(session.extra) == {"scope", "ttl_seconds", "cancelled_at"}
    assert not hasattr(session, "client_secret")
    assert not hasattr(session, "expires_at")


@per_reply
def test_a_reply_becomes_the_dict_it_was_made_of(data):
    assert exactly(ChatSession.from_dict(data).to_dict()) == exactly(data)


# Whatever the reply


@given(replies())
def test_any_reply_becomes_the_dict_it_was_made_of(data):
    before = exactly(data)
    assert exactly(ChatSession.from_dict(data).to_dict()) == before
    assert exactly(data) == before


@given(replies())
def test_any_reply_makes_a_value(data):
    session = ChatSession.from_dict(data)
    assert CLIENT_SECRET not in repr(session)
    for again in (
        ChatSession.from_dict(copy.deepcopy(data)),
        ChatSession.from_dict(session.to_dict()),
        copy.copy(session),
        copy.deepcopy(session),
        through_pickle(session),
    ):
        assert again == session
        assert hash(again) == hash(session)
        assert repr(again) == repr(session)
        assert exactly(again.to_dict()) == exactly(data)


@given(replies(), replies())
def test_sessions_are_equal_exactly_when_their_replies_are(one, other):
    sessions = ChatSession.from_dict(one), ChatSession.from_dict(other)
    assert (sessions[0] == sessions[1]) is (one == other)
    assert (hash(sessions[0]) == hash(sessions[1])) >= (one == other)


@given(replies())
def test_what_can_be_read_and_what_validate_says_agree(data):
    session = ChatSession.from_dict(data)
    try:
        session.validate()
    except ResponseValidationError as error:
        problems = {path for path, _ in error.problems}
    else:
        problems = set()
    for name in set(attrs.fields_dict(ChatSession)) - {"status"}:
        assert hasattr(session, name) is (f"$.{name}" not in problems)


def test_a_number_that_json_calls_infinite_or_none_is_held():
    data = reply_with(("workflow", "state_variables"), {"a": float("inf"), "b": float("nan")})
    assert exactly(ChatSession.from_dict(data).to_dict()) == exactly(data)


# What a session is made of


MAPPINGS = {
    "proxy": MappingProxyType,
    "ordered": OrderedDict,
    "user": UserDict,
    "default": lambda data: defaultdict(str, data),
}


@pytest.mark.parametrize("mapping", MAPPINGS.values(), ids=MAPPINGS)
@pytest.mark.parametrize("data", [FITTING, DOCUMENTED_CREATED], ids=["fitting", "documented"])
def test_a_session_is_made_of_any_mapping(mapping, data):
    given = mapping({**data, "workflow": mapping(data["workflow"])})
    session = ChatSession.from_dict(given)
    assert session == ChatSession.from_dict(data)
    assert set(given) == set(data)


def test_state_variables_may_be_any_mapping():
    data = reply_with(("workflow", "state_variables"), MappingProxyType({"a": 1}))
    assert ChatSession.from_dict(data).workflow.state_variables == {"a": 1}


@pytest.mark.parametrize("data", [None, [], "{}", 5, b"{}", ChatSession.from_dict({})], ids=repr)
def test_a_session_is_made_of_nothing_but_a_mapping(data):
    with pytest.raises(ParameterError, match="must be a mapping") as caught:
        ChatSession.from_dict(data)
    assert [path for path, _ in caught.value.problems] == ["data"]


def test_a_part_of_a_session_can_be_made_by_itself():
    workflow = ChatKitWorkflow.from_dict({"id": "wf"})
    assert workflow.id == "wf"
    assert workflow.version is None
    assert workflow.to_dict() == {"id": "wf"}


def test_keys_need_not_be_strings():
    session = ChatSession.from_dict({5: "LEAK", None: 1})
    assert session.extra == {5: "LEAK", None: 1}
    assert "LEAK" not in repr(session)


def test_what_it_was_made_of_may_change_afterwards():
    data = copy.deepcopy(FITTING)
    session = ChatSession.from_dict(data)
    data["workflow"]["state_variables"]["name"] = "changed"
    session.to_dict()["workflow"]["state_variables"]["name"] = "changed"
    assert session == ChatSession.from_dict(FITTING)


def test_a_session_can_be_made_by_keyword_as_in_a_user_s_test():
    session = ChatSession(
        id="cksess_1",
        object="chatkit.session",
        expires_at=1735689600,
        client_secret=Secret(CLIENT_SECRET),
        workflow=ChatKitWorkflow.from_dict(FITTING["workflow"]),
        user="u",
        rate_limits=ChatSessionRateLimits(max_requests_per_1_minute=1),
        max_requests_per_1_minute=1,
        status="active",
        chatkit_configuration=ChatSessionChatKitConfiguration.from_dict({}),
    )
    assert session.to_dict()["rate_limits"] == {"max_requests_per_1_minute": 1}
    assert session == ChatSession.from_dict(session.to_dict())


# Times


def test_expires_in_counts_down_to_expires_at(monkeypatch):
    monkeypatch.setattr(models.sessions, "time", lambda: 1735689590.5)
    assert ChatSession.from_dict(FITTING).expires_in == 9.5


def test_expires_in_is_negative_when_the_session_has_ended(monkeypatch):
    monkeypatch.setattr(models.sessions, "time", lambda: 1735689601.0)
    assert ChatSession.from_dict(FITTING).expires_in == -1.0


def test_expires_at_datetime_is_aware_and_utc():
    moment = ChatSession.from_dict(FITTING).expires_at_datetime
    assert moment == datetime(2025, 1, 1, tzinfo=UTC)
    assert moment.utcoffset() == timedelta(0)


@pytest.mark.parametrize("name", ["expires_in", "expires_at_datetime"])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({}, MissingFieldError),
        ({"expires_at": "soon"}, InvalidFieldError),
        ({"expires_at": 10**400}, InvalidFieldError),
        ({"expires_at": -(10**400)}, InvalidFieldError),
        ({"expires_at": 10**5000}, InvalidFieldError),
    ],
    ids=["missing", "text", "huge", "hugely negative", "unprintable"],
)
def test_a_time_that_cannot_be_told_is_a_field_error(name, data, error):
    session = ChatSession.from_dict(data)
    assert not hasattr(session, name)
    with pytest.raises(error, match="'expires_at'") as caught:
        getattr(session, name)
    assert type(caught.value) is error
    assert caught.value.__context__ is None


@pytest.mark.parametrize("seconds", [2**63, -(2**63), 10**12])
def test_a_date_out_of_range_is_an_invalid_field(seconds):
    session = ChatSession.from_dict({"expires_at": seconds})
    with pytest.raises(InvalidFieldError, match="out of range"):
        _ = session.expires_at_datetime
    assert isinstance(session.expires_in, float)
