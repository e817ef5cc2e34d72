"""Sessions: what creates one, and what the API returns.

Class and field names are the API's.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from time import time
from typing import Literal, NotRequired, TypeAlias, TypedDict

from chatkit_async.errors import InvalidFieldError
from chatkit_async.models._base import Model, ReplyObject, datetime_of, model
from chatkit_async.secret import Secret

__all__ = [
    "AutomaticThreadTitlingDict",
    "AutomaticThreadTitlingParam",
    "ChatKitConfigurationLike",
    "ChatKitWorkflow",
    "ChatKitWorkflowTracing",
    "ChatSession",
    "ChatSessionAutomaticThreadTitling",
    "ChatSessionChatKitConfiguration",
    "ChatSessionChatKitConfigurationDict",
    "ChatSessionChatKitConfigurationParam",
    "ChatSessionExpiresAfterDict",
    "ChatSessionExpiresAfterParam",
    "ChatSessionFileUpload",
    "ChatSessionHistory",
    "ChatSessionRateLimits",
    "ChatSessionRateLimitsDict",
    "ChatSessionRateLimitsParam",
    "ChatSessionStatus",
    "ChatSessionWorkflowDict",
    "ChatSessionWorkflowParam",
    "ExpiresAfterLike",
    "FileUploadDict",
    "FileUploadParam",
    "HistoryDict",
    "HistoryParam",
    "RateLimitsLike",
    "SessionCreateDict",
    "SessionCreateParams",
    "StateVariable",
    "WorkflowLike",
    "WorkflowTracingDict",
    "WorkflowTracingParam",
]

StateVariable: TypeAlias = str | bool | int | float
"""The value of a state variable of a workflow."""

# Parameters ---------------------------------------------------------------------------------------

# Each class has a TypedDict, so that type checkers find a misspelt key or a wrong type in a literal.
# At runtime any mapping is taken.


class WorkflowTracingDict(TypedDict, total=False):
    """The keys of a `WorkflowTracingParam`, for type checkers."""

    enabled: bool | None


@model
class WorkflowTracingParam(Model):
    """Tracing of a workflow's runs. API documentation: Create ChatKit session, `tracing`.

    Attributes:
        enabled: True if runs are traced. The API's default: true.
    """

    enabled: bool | None = None


class ChatSessionWorkflowDict(TypedDict):
    """The keys of a `ChatSessionWorkflowParam`, for type checkers."""

    id: str
    version: NotRequired[str | None]
    state_variables: NotRequired[Mapping[str, StateVariable] | None]
    tracing: NotRequired[WorkflowTracingParam | WorkflowTracingDict | None]


@model
class ChatSessionWorkflowParam(Model):
    """The workflow that a session runs. API documentation: Create ChatKit session, `workflow`.

    Attributes:
        id: The workflow's id, `wf_...`.
        version: A version to hold on to; left out, the latest deployed one runs.
        state_variables: Variables handed to the workflow: str, bool, int or finite float. The API
            takes up to 64, with keys of up to 64 characters and strings of up to 10 MiB.
        tracing: Tracing of the runs.
    """

    id: str
    version: str | None = None
    state_variables: Mapping[str, StateVariable] | None = None
    tracing: WorkflowTracingParam | WorkflowTracingDict | None = None


class AutomaticThreadTitlingDict(TypedDict, total=False):
    """The keys of a `AutomaticThreadTitlingParam`, for type checkers."""

    enabled: bool | None


@model
class AutomaticThreadTitlingParam(Model):
    """Titles for threads. API documentation: Create ChatKit session, `automatic_thread_titling`.

    Attributes:
        enabled: True if threads are given titles. The API's default: true.
    """

    enabled: bool | None = None


class FileUploadDict(TypedDict, total=False):
    """The keys of a `FileUploadParam`, for type checkers."""

    enabled: bool | None
    max_file_size: int | None
    max_files: int | None


@model
class FileUploadParam(Model):
    """Uploads by the end user. API documentation: Create ChatKit session, `file_upload`.

    Attributes:
        enabled: True if files can be uploaded. The API's default: false.
        max_file_size: Megabytes a file may have, 1 to 512. The API's default: 512.
        max_files: The maximum number of files of a session, at least 1. The API's default: 10.
    """

    enabled: bool | None = None
    max_file_size: int | None = None
    max_files: int | None = None


class HistoryDict(TypedDict, total=False):
    """The keys of a `HistoryParam`, for type checkers."""

    enabled: bool | None
    recent_threads: int | None


@model
class HistoryParam(Model):
    """Earlier threads shown to the end user. API documentation: Create ChatKit session, `history`.

    Attributes:
        enabled: True if earlier threads are shown. The API's default: true.
        recent_threads: The number of threads to show, at least 1. The API's default: all.
    """

    enabled: bool | None = None
    recent_threads: int | None = None


class ChatSessionChatKitConfigurationDict(TypedDict, total=False):
    """The keys of a `ChatSessionChatKitConfigurationParam`, for type checkers."""

    automatic_thread_titling: AutomaticThreadTitlingParam | AutomaticThreadTitlingDict | None
    file_upload: FileUploadParam | FileUploadDict | None
    history: HistoryParam | HistoryDict | None


@model
class ChatSessionChatKitConfigurationParam(Model):
    """The features of the chat. API documentation: Create ChatKit session, `chatkit_configuration`.

    Attributes:
        automatic_thread_titling: Titles for threads.
        file_upload: Uploads by the end user.
        history: Earlier threads shown to the end user.
    """

    automatic_thread_titling: AutomaticThreadTitlingParam | AutomaticThreadTitlingDict | None = None
    file_upload: FileUploadParam | FileUploadDict | None = None
    history: HistoryParam | HistoryDict | None = None


class ChatSessionExpiresAfterDict(TypedDict):
    """The keys of a `ChatSessionExpiresAfterParam`, for type checkers."""

    seconds: int
    anchor: NotRequired[Literal["created_at"]]


@model
class ChatSessionExpiresAfterParam(Model):
    """The expiry of a session. API documentation: Create ChatKit session, `expires_after`.

    Attributes:
        seconds: Seconds from the anchor, 1 to 600. The API's default: 600.
        anchor: The start of these seconds. Only the session's creation is possible.
    """

    seconds: int
    anchor: Literal["created_at"] = "created_at"


class ChatSessionRateLimitsDict(TypedDict, total=False):
    """The keys of a `ChatSessionRateLimitsParam`, for type checkers."""

    max_requests_per_1_minute: int | None


@model
class ChatSessionRateLimitsParam(Model):
    """The limits on what the end user may send. API documentation: Create ChatKit session, `rate_limits`.

    Attributes:
        max_requests_per_1_minute: Requests per minute, at least 1. The API's default: 10.
    """

    max_requests_per_1_minute: int | None = None


WorkflowLike: TypeAlias = ChatSessionWorkflowParam | ChatSessionWorkflowDict | str
"""A workflow: its parameters, a mapping with the same keys, or its id."""

ChatKitConfigurationLike: TypeAlias = (
    ChatSessionChatKitConfigurationParam | ChatSessionChatKitConfigurationDict
)
"""A configuration: its parameters, or a mapping with the same keys."""

ExpiresAfterLike: TypeAlias = (
    ChatSessionExpiresAfterParam | ChatSessionExpiresAfterDict | timedelta | int
)
"""An expiration: its parameters, a mapping with the same keys, or whole seconds."""

RateLimitsLike: TypeAlias = ChatSessionRateLimitsParam | ChatSessionRateLimitsDict | int
"""Rate limits: their parameters, a mapping with the same keys, or requests per minute."""


class SessionCreateDict(TypedDict):
    """The keys of a `SessionCreateParams`, for type checkers: annotate rows with it."""

    user: str
    workflow: WorkflowLike
    chatkit_configuration: NotRequired[ChatKitConfigurationLike | None]
    expires_after: NotRequired[ExpiresAfterLike | None]
    rate_limits: NotRequired[RateLimitsLike | None]


@model
class SessionCreateParams(Model):
    """All that makes a session. API documentation: Create ChatKit session.

    Attributes:
        user: Your own id of the end user of the session, not blank. Sessions of the same
            user see the same threads.
        workflow: The workflow to run: parameters, a mapping, or just the workflow's id.
        chatkit_configuration: The features of the chat.
        expires_after: When the session ends: parameters, a mapping, a timedelta of whole seconds,
            or whole seconds. The API's default: 600.
        rate_limits: The limit of the end user: parameters, a mapping, or requests per minute. The
            API's default: 10.
    """

    user: str
    workflow: WorkflowLike
    chatkit_configuration: ChatKitConfigurationLike | None = None
    expires_after: ExpiresAfterLike | None = None
    rate_limits: RateLimitsLike | None = None


# Replies ------------------------------------------------------------------------------------------


class ChatSessionStatus(StrEnum):
    """The status of a session. API documentation: ChatKit session object, `status`."""

    ACTIVE = "active"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@model
class ChatKitWorkflowTracing(ReplyObject):
    """Tracing of a workflow's runs. API documentation: ChatKit session object, `tracing`.

    Attributes:
        enabled: True if runs are traced.
    """

    enabled: bool


@model
class ChatKitWorkflow(ReplyObject):
    """The workflow a session runs. API documentation: ChatKit session object, `workflow`.

    Attributes:
        id: The workflow's id.
        version: The version that runs; None: the latest deployed one.
        state_variables: The variables handed to it; None: none.
        tracing: Tracing of the runs.
    """

    id: str
    version: str | None
    state_variables: Mapping[str, StateVariable] | None
    tracing: ChatKitWorkflowTracing


@model
class ChatSessionAutomaticThreadTitling(ReplyObject):
    """Titles for threads. API documentation: ChatKit session object, `automatic_thread_titling`.

    Attributes:
        enabled: True if threads are given titles.
    """

    enabled: bool


@model
class ChatSessionFileUpload(ReplyObject):
    """Uploads by the end user. API documentation: ChatKit session object, `file_upload`.

    Attributes:
        enabled: True if files can be uploaded.
        max_file_size: Megabytes a file may have.
        max_files: The maximum number of files of the session.
    """

    enabled: bool
    max_file_size: int | None
    max_files: int | None


@model
class ChatSessionHistory(ReplyObject):
    """Earlier threads shown to the end user. API documentation: ChatKit session object, `history`.

    Attributes:
        enabled: True if earlier threads are shown.
        recent_threads: The number of threads to show. None: all.
    """

    enabled: bool
    recent_threads: int | None


@model
class ChatSessionChatKitConfiguration(ReplyObject):
    """The features of the chat. API documentation: ChatKit session object, `chatkit_configuration`.

    Attributes:
        automatic_thread_titling: Titles for threads.
        file_upload: Uploads by the end user.
        history: Earlier threads shown to the end user.
    """

    automatic_thread_titling: ChatSessionAutomaticThreadTitling
    file_upload: ChatSessionFileUpload
    history: ChatSessionHistory


@model
class ChatSessionRateLimits(ReplyObject):
    """The limits on what the end user may send. API documentation: ChatKit session object, `rate_limits`.

    Attributes:
        max_requests_per_1_minute: Requests per minute.
    """

    max_requests_per_1_minute: int


_OUT_OF_RANGE = "'expires_at' of the API's reply is no date: it is out of range"


@model
class ChatSession(ReplyObject):
    """A session and its resolved configuration. API documentation: ChatKit session object.

    A field that the API's reply lacks, or has with a wrong type, raises `MissingFieldError` or
    `InvalidFieldError` when it is read; `validate()` lists all of them at once.

    Attributes:
        id: The session's id, `cksess_...`.
        object: Always `chatkit.session`.
        expires_at: When the session ends, in Unix seconds.
        client_secret: The credential of the browser. Masked in its repr.
        workflow: The workflow it runs.
        user: The user it is for.
        rate_limits: The limits of the end user.
        max_requests_per_1_minute: The same, requests per minute.
        status: The status. A status that is unknown here is a plain str.
        chatkit_configuration: The features of the chat.
    """

    id: str
    object: Literal["chatkit.session"]
    expires_at: int
    client_secret: Secret
    workflow: ChatKitWorkflow
    user: str
    rate_limits: ChatSessionRateLimits
    max_requests_per_1_minute: int
    status: ChatSessionStatus | str
    chatkit_configuration: ChatSessionChatKitConfiguration

    @property
    def expires_in(self) -> float:
        """Seconds until the session ends by this machine's clock; negative when it has ended.

        Raises:
            InvalidFieldError: `expires_at` is out of a float's range.
        """
        try:
            return self.expires_at - time()
        except OverflowError:
            pass
        raise InvalidFieldError(_OUT_OF_RANGE, name="expires_in")

    @property
    def expires_at_datetime(self) -> datetime:
        """The time when the session ends, as an aware datetime in UTC.

        Raises:
            InvalidFieldError: `expires_at` is out of datetime's range.
        """
        return datetime_of(self.expires_at, "expires_at")
