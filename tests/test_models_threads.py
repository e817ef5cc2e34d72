"""Threads and items: their kinds, their tolerance of any reply, and reprs that hide conversations."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatkit_async import _codec
from chatkit_async.errors import (
    InvalidFieldError,
    MissingFieldError,
    ParameterError,
    ResponseValidationError,
)
from chatkit_async.models import threads
from chatkit_async.models.threads import (
    ChatKitClientToolCallItem,
    ChatKitClientToolCallStatus,
    ChatKitTaskGroupItem,
    ChatKitTaskItem,
    ChatKitThread,
    ChatKitThreadAssistantMessageItem,
    ChatKitThreadDeleted,
    ChatKitThreadItem,
    ChatKitThreadItemList,
    ChatKitThreadList,
    ChatKitThreadStatusType,
    ChatKitThreadUserMessageItem,
    ChatKitWidgetItem,
)

PRIVATE = "PRIVATE"
"""A part of every text that no repr may show."""


def item(kind, **own):
    common = {"object": "chatkit.thread_item", "created_at": 1_795_850_001, "thread_id": "cthr_1"}
    return {"id": "cti_1", "type": kind, **common, **own}


USER_MESSAGE = item(
    "chatkit.user_message",
    content=[
        {"type": "quoted_text", "text": f"{PRIVATE} quote"},
        {"type": "input_text", "text": f"{PRIVATE} question"},
    ],
    attachments=[
        {
            "type": "image",
            "id": "cfile_1",
            "name": f"{PRIVATE}.png",
            "mime_type": "image/png",
            "preview_url": f"https://files.example/{PRIVATE}",
        }
    ],
    inference_options={"tool_choice": {"id": "search"}, "model": None},
)
ANSWER = item(
    "chatkit.assistant_message",
    content=[
        {
            "type": "output_text",
            "text": f"{PRIVATE} answer",
            "annotations": [
                {"type": "url", "source": {"type": "url", "url": f"https://{PRIVATE}.example"}},
                {"type": "file", "source": {"type": "file", "filename": f"{PRIVATE}.pdf"}},
            ],
        }
    ],
)
WIDGET = item("chatkit.widget", widget=f'{{"type": "Card", "value": "{PRIVATE}"}}')
TOOL_CALL = item(
    "chatkit.client_tool_call",
    status="completed",
    call_id="call_1",
    name=f"{PRIVATE}_tool",
    arguments=f'{{"a": "{PRIVATE}"}}',
    output=f'{{"b": "{PRIVATE}"}}',
)
TASK = item("chatkit.task", task_type="thought", heading=f"{PRIVATE} heading", summary=None)
TASK_GROUP = item(
    "chatkit.task_group",
    tasks=[
        {"type": "custom", "heading": f"{PRIVATE} one", "summary": f"{PRIVATE} two"},
        {"type": "thought", "heading": None, "summary": None},
    ],
)
THREAD = {
    "id": "cthr_1",
    "object": "chatkit.thread",
    "created_at": 1_795_850_000,
    "title": f"{PRIVATE} title",
    "status": {"type": "locked", "reason": f"{PRIVATE} reason"},
    "user": f"{PRIVATE} user",
}
ITEMS = [USER_MESSAGE, ANSWER, WIDGET, TOOL_CALL, TASK, TASK_GROUP]
CLASSES = [
    ChatKitThreadUserMessageItem,
    ChatKitThreadAssistantMessageItem,
    ChatKitWidgetItem,
    ChatKitClientToolCallItem,
    ChatKitTaskItem,
    ChatKitTaskGroupItem,
]


def listed(*members, **own):
    return {"object": "list", "data": list(members), "has_more": False, **own}


# Kinds


@pytest.mark.parametrize(("data", "cls"), list(zip(ITEMS, CLASSES, strict=True)))
@pytest.mark.parametrize("short", [False, True])
def test_item_has_the_class_of_its_type(data, cls, short):
    kind = data["type"].removeprefix("chatkit.") if short else data["type"]
    decoded = ChatKitThreadItem.from_dict({**data, "type": kind})

    assert type(decoded) is cls
    assert decoded.type == kind
    assert not decoded.extra


@pytest.mark.parametrize("kind", ["chatkit.workflow", "", "chatkit.", None, 5, ["chatkit.task"]])
def test_unknown_type_is_a_plain_item(kind):
    decoded = ChatKitThreadItem.from_dict({**ANSWER, "type": kind})

    assert type(decoded) is ChatKitThreadItem
    assert decoded.extra["content"] == ANSWER["content"]
    assert decoded.text is None


def test_class_of_one_kind_decodes_as_that_kind():
    decoded = ChatKitTaskItem.from_dict(ANSWER)

    assert type(decoded) is ChatKitTaskItem
    assert decoded.extra["content"] == ANSWER["content"]


@pytest.mark.parametrize("kind", ["active", "locked", "closed"])
def test_thread_has_three_states(kind):
    reason = {} if kind == "active" else {"reason": None}
    thread = ChatKitThread.from_dict({**THREAD, "status": {"type": kind, **reason}})

    assert thread.status.type is ChatKitThreadStatusType(kind)
    assert thread.status.reason is None
    assert thread.validate() is thread


def test_unknown_state_stays_usable():
    thread = ChatKitThread.from_dict({**THREAD, "status": {"type": "paused", "reason": "x"}})

    assert thread.status.type == "paused"
    with pytest.raises(ResponseValidationError, match=r"\$\.status\.type: is 'paused'"):
        thread.validate()


def test_tool_call_has_its_status():
    decoded = ChatKitThreadItem.from_dict(TOOL_CALL)

    assert decoded.status is ChatKitClientToolCallStatus.COMPLETED


# Text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (USER_MESSAGE, f"{PRIVATE} quote\n{PRIVATE} question"),
        (ANSWER, f"{PRIVATE} answer"),
        (WIDGET, None),
        (TOOL_CALL, None),
        (TASK, f"{PRIVATE} heading"),
        (TASK_GROUP, f"{PRIVATE} one\n{PRIVATE} two"),
        ({**ANSWER, "content": []}, None),
        ({**ANSWER, "content": [{"type": "output_text"}, {"text": "read"}]}, "read"),
    ],
)
def test_text_is_what_a_person_reads(data, text):
    assert ChatKitThreadItem.from_dict(data).text == text


@pytest.mark.parametrize(("cls", "data"), [(ChatKitThread, THREAD), (ChatKitThreadItem, ANSWER)])
def test_created_at_datetime_is_aware(cls, data):
    assert cls.from_dict({**data, "created_at": 0}).created_at_datetime == datetime(
        1970, 1, 1, tzinfo=UTC
    )
    with pytest.raises(InvalidFieldError, match="'created_at' of the API's reply is no date"):
        _ = cls.from_dict({**data, "created_at": 2**70}).created_at_datetime


# Tolerance

OFF_SCHEMA = [
    # The documentation's own examples, in short.
    (ChatKitThread, {"id": "cthr_1", "object": "chatkit.thread", "items": {"data": [ANSWER]}}),
    (ChatKitThreadItemList, listed({"id": "cthi_1", "type": "user_message", "content": []})),
    (ChatKitThreadList, {"data": [THREAD], "has_more": True}),
    (ChatKitThreadItem, {**USER_MESSAGE, "content": "text", "attachments": None}),
    (ChatKitThreadItem, {**USER_MESSAGE, "inference_options": {"tool_choice": "search"}}),
    (ChatKitThreadItem, {**USER_MESSAGE, "inference_options": 5}),
    (ChatKitThreadItem, {**ANSWER, "content": [5]}),
    (ChatKitThreadItem, {**ANSWER, "content": [{"annotations": [{"source": []}]}]}),
    (ChatKitThreadDeleted, {"id": 5, "deleted": "yes"}),
    (ChatKitThread, {}),
]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def bent(data):
    """Strategies for JSON like this with members dropped, replaced and added at any depth."""
    if isinstance(data, dict):
        members = {name: bent(value) | JSON for name, value in data.items()}
        return st.fixed_dictionaries({}, optional=members | {"added": JSON})
    if isinstance(data, list):
        return st.lists(st.one_of(*map(bent, data)) | JSON, max_size=3)
    return st.just(data)


def holds(cls, data):
    decoded = cls.from_dict(copy.deepcopy(data))
    assert decoded.to_dict() == data
    pickled = pickle.loads(pickle.dumps(decoded))  # noqa: S301 - made here
    for other in (pickled, copy.deepcopy(decoded)):
        assert other == decoded
        assert hash(other) == hash(decoded)
        assert repr(other) == repr(decoded)
    for name in decoded._fields:
        getattr(decoded, name, None)
    return decoded


@pytest.mark.parametrize(("cls", "data"), OFF_SCHEMA)
def test_off_schema_reply_keeps_everything(cls, data):
    decoded = holds(cls, data)

    with pytest.raises(ResponseValidationError):
        decoded.validate()


@pytest.mark.parametrize("data", ITEMS)
def test_item_within_the_schema_validates(data):
    decoded = holds(ChatKitThreadItem, data)

    assert decoded.validate() is decoded
    assert decoded.extra == {}


@settings(max_examples=40)
@given(data=bent(listed(*ITEMS, first_id="a", last_id="b")))
def test_any_page_of_items_keeps_everything(data):
    holds(ChatKitThreadItemList, data)


@settings(max_examples=40)
@given(data=bent(listed(THREAD, first_id="a", last_id="b")))
def test_any_page_of_threads_keeps_everything(data):
    holds(ChatKitThreadList, data)


def test_missing_field_raises_when_read():
    thread = ChatKitThread.from_dict({"created_at": "soon"})

    with pytest.raises(MissingFieldError, match="'status'"):
        _ = thread.status
    with pytest.raises(InvalidFieldError, match=r"'created_at' .* has the wrong type: a string"):
        _ = thread.created_at
    assert thread.title is None


def test_validation_names_every_path():
    data = {**USER_MESSAGE, "type": "user_message", "content": [{"text": "x"}]}
    data["inference_options"] = {"tool_choice": {}, "model": None}

    with pytest.raises(ResponseValidationError) as caught:
        ChatKitThreadItem.from_dict(data).validate()
    assert [path for path, _ in caught.value.problems] == [
        "$.content[0].type",
        "$.inference_options.tool_choice.id",
        "$.type",
    ]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"type": "url"}, "$.content[0].annotations[0].source.url"),
        ({"type": "file"}, "$.content[0].annotations[0].source.filename"),
    ],
)
def test_annotation_source_needs_what_its_type_has(source, problem):
    annotations = [{"type": source["type"], "source": source}]
    content = [{"type": "output_text", "text": "", "annotations": annotations}]

    with pytest.raises(ResponseValidationError) as caught:
        ChatKitThreadItem.from_dict({**ANSWER, "content": content}).validate()
    assert caught.value.problems == ((problem, "is missing"),)


@pytest.mark.parametrize("data", [None, 5, "cthr_1", [THREAD]])
def test_from_dict_takes_a_mapping_only(data):
    with pytest.raises(ParameterError):
        ChatKitThread.from_dict(data)


# Privacy


@pytest.mark.parametrize("data", ITEMS)
def test_repr_of_an_item_hides_the_conversation(data):
    decoded = ChatKitThreadItem.from_dict(data)
    parts = [
        value for name in decoded._fields if not isinstance(value := getattr(decoded, name), str)
    ]

    assert "id='cti_1'" in repr(decoded)
    assert PRIVATE not in repr(decoded) + str(decoded) + f"{decoded}" + repr(parts)


def test_repr_of_a_thread_hides_title_user_and_reason():
    shown = repr(_codec.from_dict(ChatKitThreadList, listed(THREAD)).data)

    assert PRIVATE not in shown
    assert "id='cthr_1'" in shown
    assert "title=<13 characters>" in shown


@settings(max_examples=40)
@given(data=bent(listed(*ITEMS)))
def test_no_repr_shows_a_text(data):
    assert PRIVATE not in repr(ChatKitThreadItemList.from_dict(data))


def test_every_class_is_exported():
    assert set(threads.__all__) >= {cls.__name__ for cls in CLASSES}
