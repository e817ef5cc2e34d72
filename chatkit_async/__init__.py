"""ChatKit sessions and threads of the OpenAI API, with asyncio or blocking.

Start with `AsyncChatKit`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from chatkit_async.bulk import BulkRun, BulkSummary, Outcome
    from chatkit_async.client import AsyncChatKit
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
    from chatkit_async.models import (
        AutomaticThreadTitlingDict,
        AutomaticThreadTitlingParam,
        ChatKitWorkflow,
        ChatKitWorkflowTracing,
        ChatSession,
        ChatSessionAutomaticThreadTitling,
        ChatSessionChatKitConfiguration,
        ChatSessionChatKitConfigurationDict,
        ChatSessionChatKitConfigurationParam,
        ChatSessionExpiresAfterDict,
        ChatSessionExpiresAfterParam,
        ChatSessionFileUpload,
        ChatSessionHistory,
        ChatSessionRateLimits,
        ChatSessionRateLimitsDict,
        ChatSessionRateLimitsParam,
        ChatSessionStatus,
        ChatSessionWorkflowDict,
        ChatSessionWorkflowParam,
        FileUploadDict,
        FileUploadParam,
        HistoryDict,
        HistoryParam,
        SessionCreateDict,
        SessionCreateParams,
        WorkflowTracingDict,
        WorkflowTracingParam,
    )
    from chatkit_async.models.threads import (
        ChatKitAnnotation,
        ChatKitAnnotationSource,
        ChatKitAttachment,
        ChatKitClientToolCallItem,
        ChatKitClientToolCallStatus,
        ChatKitInferenceOptions,
        ChatKitResponseOutputText,
        ChatKitTask,
        ChatKitTaskGroupItem,
        ChatKitTaskItem,
        ChatKitThread,
        ChatKitThreadAssistantMessageItem,
        ChatKitThreadDeleted,
        ChatKitThreadItem,
        ChatKitThreadItemList,
        ChatKitThreadList,
        ChatKitThreadStatus,
        ChatKitThreadStatusType,
        ChatKitThreadUserMessageItem,
        ChatKitToolChoice,
        ChatKitUserMessageContent,
        ChatKitWidgetItem,
    )
    from chatkit_async.options import (
        OMITTED,
        Attempt,
        ClientOptions,
        Omitted,
        RequestOptions,
        RetryPolicy,
    )
    from chatkit_async.pages import AsyncPage, AsyncPages, Page, Pages
    from chatkit_async.secret import Secret
    from chatkit_async.sessions import APIResponse, AsyncSessions
    from chatkit_async.sync import ChatKit, Sessions
    from chatkit_async.sync_bulk import BlockingBulkRun
    from chatkit_async.sync_threads import Threads
    from chatkit_async.threads import AsyncThreads

__all__ = [
    "OMITTED",
    "APIConnectionError",
    "APIError",
    "APIResponse",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncChatKit",
    "AsyncPage",
    "AsyncPages",
    "AsyncSessions",
    "AsyncThreads",
    "Attempt",
    "AuthenticationError",
    "AutomaticThreadTitlingDict",
    "AutomaticThreadTitlingParam",
    "BadRequestError",
    "BlockingBulkRun",
    "BulkRun",
    "BulkSummary",
    "ChatKit",
    "ChatKitAnnotation",
    "ChatKitAnnotationSource",
    "ChatKitAttachment",
    "ChatKitClientToolCallItem",
    "ChatKitClientToolCallStatus",
    "ChatKitError",
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
    "ClientClosedError",
    "ClientOptions",
    "ConfigurationError",
    "ConflictError",
    "FileUploadDict",
    "FileUploadParam",
    "HistoryDict",
    "HistoryParam",
    "InternalServerError",
    "InvalidFieldError",
    "MissingFieldError",
    "NotFoundError",
    "Omitted",
    "Outcome",
    "Page",
    "Pages",
    "ParameterError",
    "PermissionDeniedError",
    "RateLimitError",
    "RequestOptions",
    "ResponseValidationError",
    "RetryPolicy",
    "Secret",
    "SessionCreateDict",
    "SessionCreateParams",
    "Sessions",
    "Threads",
    "UnprocessableEntityError",
    "WorkflowTracingDict",
    "WorkflowTracingParam",
    "__version__",
]

_HOMES = (
    "errors",
    "secret",
    "options",
    "models",
    "sessions",
    "bulk",
    "client",
    "sync",
    "sync_bulk",
    "pages",
    "models.threads",
    "threads",
    "sync_threads",
)
"""The modules that the names are from, those of threads last: they take time to import."""

if not TYPE_CHECKING:
    # A name is imported when it is asked for: pytest imports this package in every suite, for its
    # plugin, and most suites ask for nothing.
    def __getattr__(name: str) -> object:
        if name in _HOMES:
            return import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        homes = (import_module(f"{__name__}.{home}") for home in _HOMES)
        globals()[name] = next(getattr(home, name) for home in homes if name in home.__all__)
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
