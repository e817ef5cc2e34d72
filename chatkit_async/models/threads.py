"""Threads and their items, as the API returns them.

Class and field names are the API's. Conversations are private: a repr shows kinds, ids, times and
lengths, and never text, titles, arguments, file names or URLs.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal, TypeAlias, cast

from chatkit_async.errors import Problem
from chatkit_async.models._base import ReplyObject, datetime_of, model

__all__ = [
    "ChatKitAnnotation",
    "ChatKitAnnotationSource",
    "ChatKitAttachment",
    "ChatKitClientToolCallItem",
    "ChatKitClientToolCallStatus",
    "ChatKitInferenceOptions",
    "ChatKitResponseOutputText",
    "ChatKitTask",
    "ChatKitTaskGroupItem",
    "ChatKitTaskItem",
    "ChatKitThread",
    "ChatKitThreadAssistantMessageItem",
    "ChatKitThreadDeleted",
    "ChatKitThreadItem",
    "ChatKitThreadItemList",
    "ChatKitThreadList",
    "ChatKitThreadStatus",
    "ChatKitThreadStatusType",
    "ChatKitThreadUserMessageItem",
    "ChatKitToolChoice",
    "ChatKitUserMessageContent",
    "ChatKitWidgetItem",
]


class PrivateObject(ReplyObject):
    """A part of a conversation: its repr shows the fields named in `_shown`, and lengths."""

    __slots__ = ()

    _shown: ClassVar[frozenset[str]] = frozenset()

    def _show(self, name: str, value: object) -> str:
        if name in self._shown or value is None or isinstance(value, PrivateObject):
            return repr(value)
        if isinstance(value, tuple):
            return f"<{len(cast('tuple[object, ...]', value))} items>"
        return f"<{len(value)} characters>" if isinstance(value, str) else "<hidden>"


# Threads ------------------------------------------------------------------------------------------


class ChatKitThreadStatusType(StrEnum):
    """The state of a thread. API documentation: ChatKit thread object, `status.type`."""

    ACTIVE = "active"
    LOCKED = "locked"
    CLOSED = "closed"


@model
class ChatKitThreadStatus(PrivateObject):
    """The status of a thread. API documentation: ChatKit thread object, `status`.

    Attributes:
        type: The state. A state that is unknown here is a plain str.
        reason: Why the thread is locked or closed. None: no reason was given, or it is active.
    """

    _shown = frozenset({"type"})

    type: ChatKitThreadStatusType | str
    reason: str | None

    def _problems(self, path: str) -> Iterator[Problem]:
        for where, what in super()._problems(path):
            # Only the other states have a reason.
            if (where, what) != (f"{path}.reason", "is missing") or self._has_reason():
                yield where, what

    def _has_reason(self) -> bool:
        return getattr(self, "type", None) != ChatKitThreadStatusType.ACTIVE


@model
class ChatKitThread(PrivateObject):
    """A thread: a conversation of one user. API documentation: ChatKit thread object.

    The API keeps no time of modification. The newest item tells how long a thread has been idle:
    `list_items(thread.id, limit=1, order="desc")`.

    A field that the API's reply lacks, or has with a wrong type, raises `MissingFieldError` or
    `InvalidFieldError` when it is read. `validate()` lists all of them at once.

    Attributes:
        id: The thread's id, `cthr_...`.
        object: Always `chatkit.thread`.
        created_at: When the thread was created, in Unix seconds.
        title: The thread's title. None: it has none yet.
        status: The state of the thread.
        user: The user that the thread belongs to.
    """

    _shown = frozenset({"id", "object", "created_at"})

    id: str
    object: Literal["chatkit.thread"]
    created_at: int
    title: str | None
    status: ChatKitThreadStatus
    user: str

    @property
    def created_at_datetime(self) -> datetime:
        """The time of creation, as an aware datetime in UTC.

        Raises:
            InvalidFieldError: `created_at` is out of datetime's range.
        """
        return datetime_of(self.created_at, "created_at")


@model
class ChatKitThreadDeleted(ReplyObject):
    """The confirmation of a deletion. API documentation: Delete ChatKit thread.

    Attributes:
        id: The id of the thread that was deleted.
        object: Always `chatkit.thread.deleted`.
        deleted: True if the thread was deleted.
    """

    id: str
    object: Literal["chatkit.thread.deleted"]
    deleted: bool


# Parts of items -----------------------------------------------------------------------------------


@model
class ChatKitUserMessageContent(PrivateObject):
    """A part of a user's message. API documentation: ChatKit thread item, `content`.

    Attributes:
        type: `input_text`, which the user wrote, or `quoted_text`, which the user quoted.
        text: The text.
    """

    _shown = frozenset({"type"})

    type: str
    text: str


@model
class ChatKitAttachment(PrivateObject):
    """A file that a user attached. API documentation: ChatKit thread item, `attachments`.

    Attributes:
        type: `image` or `file`.
        id: The attachment's id, `cfile_...`.
        name: The file's name.
        mime_type: The file's MIME type.
        preview_url: The URL of a preview. None: there is no preview.
    """

    _shown = frozenset({"type", "id", "mime_type"})

    type: str
    id: str
    name: str
    mime_type: str
    preview_url: str | None


@model
class ChatKitToolChoice(PrivateObject):
    """A tool that the user asked for. API documentation: ChatKit thread item, `tool_choice`.

    Attributes:
        id: The tool's id.
    """

    _shown = frozenset({"id"})

    id: str


@model
class ChatKitInferenceOptions(PrivateObject):
    """The choices of the user. API documentation: ChatKit thread item, `inference_options`.

    Attributes:
        tool_choice: The tool to use. None: the workflow chooses.
        model: The model to use. None: the workflow chooses.
    """

    _shown = frozenset({"model"})

    tool_choice: ChatKitToolChoice | None
    model: str | None


@model
class ChatKitAnnotationSource(PrivateObject):
    """The source that an annotation refers to. API documentation: ChatKit thread item, `source`.

    Attributes:
        type: `file` or `url`.
        filename: The name of a file. None: it is a URL.
        url: A URL. None: it is a file.
    """

    _shown = frozenset({"type"})

    type: str
    filename: str | None
    url: str | None

    def _problems(self, path: str) -> Iterator[Problem]:
        other = {"file": "url", "url": "filename"}.get(getattr(self, "type", ""))
        for where, what in super()._problems(path):
            if (where, what) != (f"{path}.{other}", "is missing"):
                yield where, what


@model
class ChatKitAnnotation(PrivateObject):
    """A reference in an answer. API documentation: ChatKit thread item, `annotations`.

    Attributes:
        type: `file` or `url`.
        source: The source that it refers to.
    """

    _shown = frozenset({"type"})

    type: str
    source: ChatKitAnnotationSource


@model
class ChatKitResponseOutputText(PrivateObject):
    """A part of an answer. API documentation: ChatKit thread item, `content`.

    Attributes:
        type: Always `output_text`.
        text: The text.
        annotations: The references in the text.
    """

    _shown = frozenset({"type"})

    type: str
    text: str
    annotations: tuple[ChatKitAnnotation, ...]


@model
class ChatKitTask(PrivateObject):
    """A task of a group. API documentation: ChatKit thread item, `tasks`.

    Attributes:
        type: `custom` or `thought`.
        heading: The heading. None: there is none.
        summary: The summary. None: there is none.
    """

    _shown = frozenset({"type"})

    type: str
    heading: str | None
    summary: str | None


# Items --------------------------------------------------------------------------------------------


SHOWN_OF_LISTS = frozenset({"object", "first_id", "last_id", "has_more"})
"""Fields that every list shows in its repr."""

SHOWN_OF_ITEMS = frozenset({"id", "object", "created_at", "thread_id", "type"})
"""Fields that every item shows in its repr."""


@model
class ChatKitThreadItem(PrivateObject):
    """An item of a thread. API documentation: ChatKit thread item.

    An item whose `type` is unknown here is of this class, with all other fields in `extra`.

    Attributes:
        id: The item's id.
        object: Always `chatkit.thread_item`.
        created_at: When the item was created, in Unix seconds.
        thread_id: The thread that the item belongs to.
        type: The kind of the item.
    """

    _shown = SHOWN_OF_ITEMS

    id: str
    object: Literal["chatkit.thread_item"]
    created_at: int
    thread_id: str
    type: str

    @property
    def created_at_datetime(self) -> datetime:
        """The time of creation, as an aware datetime in UTC.

        Raises:
            InvalidFieldError: `created_at` is out of datetime's range.
        """
        return datetime_of(self.created_at, "created_at")

    @property
    def text(self) -> str | None:
        """The text that a person would read. None: this kind of item has none."""
        return None

    def _problems(self, path: str) -> Iterator[Problem]:
        yield from super()._problems(path)
        kind = getattr(self, "type", None)
        if kind is not None and kind not in _ITEM_CLASSES:
            yield f"{path}.type", f"is {kind!r}, which the schema does not know"


@model
class ChatKitThreadUserMessageItem(ChatKitThreadItem):
    """A message of the user. API documentation: ChatKit thread item, `chatkit.user_message`.

    Attributes:
        content: The parts of the message, as typed or quoted.
        attachments: The files that came with it.
        inference_options: The choices of the user. None: no choices.
    """

    content: tuple[ChatKitUserMessageContent, ...]
    attachments: tuple[ChatKitAttachment, ...]
    inference_options: ChatKitInferenceOptions | None

    @property
    def text(self) -> str | None:
        """The text of the message, its parts on lines of their own."""
        return _joined(getattr(part, "text", None) for part in self.content)


@model
class ChatKitThreadAssistantMessageItem(ChatKitThreadItem):
    """An answer. API documentation: ChatKit thread item, `chatkit.assistant_message`.

    Attributes:
        content: The parts of the answer.
    """

    content: tuple[ChatKitResponseOutputText, ...]

    @property
    def text(self) -> str | None:
        """The text of the answer, its parts on lines of their own."""
        return _joined(getattr(part, "text", None) for part in self.content)


@model
class ChatKitWidgetItem(ChatKitThreadItem):
    """A widget. API documentation: ChatKit thread item, `chatkit.widget`.

    Attributes:
        widget: The widget, as JSON text.
    """

    widget: str


class ChatKitClientToolCallStatus(StrEnum):
    """The state of a tool call. API documentation: ChatKit thread item, `status`."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"


@model
class ChatKitClientToolCallItem(ChatKitThreadItem):
    """A call of a browser's tool. API documentation: thread item, `chatkit.client_tool_call`.

    Attributes:
        status: The state of the call. A state that is unknown here is a plain str.
        call_id: The id of the call.
        name: The tool's name.
        arguments: The arguments, as JSON text.
        output: The output, as JSON text. None: the call is in progress.
    """

    _shown = SHOWN_OF_ITEMS | {"status", "call_id"}

    status: ChatKitClientToolCallStatus | str
    call_id: str
    name: str
    arguments: str
    output: str | None


@model
class ChatKitTaskItem(ChatKitThreadItem):
    """A task of the workflow. API documentation: ChatKit thread item, `chatkit.task`.

    Attributes:
        task_type: `custom` or `thought`.
        heading: The heading. None: there is none.
        summary: The summary. None: there is none.
    """

    _shown = SHOWN_OF_ITEMS | {"task_type"}

    task_type: str
    heading: str | None
    summary: str | None

    @property
    def text(self) -> str | None:
        """The heading and the summary, on lines of their own."""
        return _joined((self.heading, self.summary))


@model
class ChatKitTaskGroupItem(ChatKitThreadItem):
    """A group of tasks. API documentation: ChatKit thread item, `chatkit.task_group`.

    Attributes:
        tasks: The tasks.
    """

    tasks: tuple[ChatKitTask, ...]

    @property
    def text(self) -> str | None:
        """The headings and summaries of the tasks, on lines of their own."""
        return _joined(
            getattr(task, name, None) for task in self.tasks for name in ("heading", "summary")
        )


def _joined(texts: Iterable[str | None]) -> str | None:
    return "\n".join(text for text in texts if text) or None


_ITEM_CLASSES = {
    "chatkit.user_message": ChatKitThreadUserMessageItem,
    "chatkit.assistant_message": ChatKitThreadAssistantMessageItem,
    "chatkit.widget": ChatKitWidgetItem,
    "chatkit.client_tool_call": ChatKitClientToolCallItem,
    "chatkit.task": ChatKitTaskItem,
    "chatkit.task_group": ChatKitTaskGroupItem,
}
# The classes have to be there first. The documentation's examples leave the prefix out.
ChatKitThreadItem._kinds = _ITEM_CLASSES | {  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    name.removeprefix("chatkit."): cls for name, cls in _ITEM_CLASSES.items()
}

# Lists --------------------------------------------------------------------------------------------


@model
class ChatKitThreadList(PrivateObject):
    """A page of threads. API documentation: List ChatKit threads.

    Attributes:
        object: Always `list`.
        data: The threads of this page.
        first_id: The id of the first thread. None: the reply has none.
        last_id: The id of the last thread. None: the reply has none.
        has_more: True if other pages follow.
    """

    _shown = SHOWN_OF_LISTS

    indispensable: ClassVar[tuple[str, ...]] = ("data", "has_more")

    object: Literal["list"]
    data: tuple[ChatKitThread, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


@model
class ChatKitThreadItemList(PrivateObject):
    """A page of a thread's items. API documentation: List ChatKit thread items.

    Attributes:
        object: Always `list`.
        data: The items of this page.
        first_id: The id of the first item. None: the reply has none.
        last_id: The id of the last item. None: the reply has none.
        has_more: True if other pages follow.
    """

    _shown = SHOWN_OF_LISTS

    indispensable: ClassVar[tuple[str, ...]] = ("data", "has_more")

    object: Literal["list"]
    data: tuple[ChatKitThreadItem, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


AnyThreadItem: TypeAlias = (
    ChatKitThreadUserMessageItem
    | ChatKitThreadAssistantMessageItem
    | ChatKitWidgetItem
    | ChatKitClientToolCallItem
    | ChatKitTaskItem
    | ChatKitTaskGroupItem
    | ChatKitThreadItem
)
"""Any kind of item, for type checkers to tell apart with `isinstance`."""
