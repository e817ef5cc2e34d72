"""What goes into a call and what comes out of it. No wire rules, no I/O.

Class and field names are the API's. The parameter classes hold what they are given; it is checked
when a call is made of it. The reply classes hold what the API said, also where that is not what
its schema promises: a promised field that is missing or bent raises when it is read, not before.
"""

from collections.abc import Hashable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from time import time
from types import MappingProxyType, NoneType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeAlias,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
)

import attrs

from chatkit_async.errors import (
    InvalidFieldError,
    MissingFieldError,
    Problem,
    ResponseValidationError,
)
from chatkit_async.secret import Secret

__all__ = [
    "AutomaticThreadTitlingParam",
    "ChatKitConfigurationLike",
    "ChatKitWorkflow",
    "ChatKitWorkflowTracing",
    "ChatSession",
    "ChatSessionAutomaticThreadTitling",
    "ChatSessionChatKitConfiguration",
    "ChatSessionChatKitConfigurationParam",
    "ChatSessionExpiresAfterParam",
    "ChatSessionFileUpload",
    "ChatSessionHistory",
    "ChatSessionRateLimits",
    "ChatSessionRateLimitsParam",
    "ChatSessionStatus",
    "ChatSessionWorkflowParam",
    "ExpiresAfterLike",
    "FileUploadParam",
    "HistoryParam",
    "RateLimitsLike",
    "SessionCreateParams",
    "StateVariable",
    "WorkflowLike",
    "WorkflowTracingParam",
]

StateVariable: TypeAlias = str | bool | int | float
"""What a state variable of a workflow can be."""

_C = TypeVar("_C")


@dataclass_transform(eq_default=False, frozen_default=True, kw_only_default=True)
def _model(cls: type[_C]) -> type[_C]:
    """attrs.frozen with the methods of `Model` in place of attrs' own."""
    return attrs.frozen(cls, kw_only=True, eq=False, repr=False, getstate_setstate=False)


def fields_of(cls: type[object]) -> "dict[str, attrs.Attribute[Any]]":
    """The fields of a model by name; `_model` hides from type checkers that attrs made it."""
    return attrs.fields_dict(cast("type[attrs.AttrsInstance]", cls))


class Model:
    """Equality, hash and repr over the fields that are set, which in a reply may not be all.

    What attrs writes for these reads every slot, and an unset slot raises.
    """

    __slots__ = ()

    _fields: ClassVar[tuple[str, ...]]

    @classmethod
    def __attrs_init_subclass__(cls) -> None:
        cls._fields = tuple(fields_of(cls))

    def _items(self) -> Iterator[tuple[str, object]]:
        """The names and values of the fields that are set."""
        for name in self._fields:
            try:
                yield name, object.__getattribute__(self, name)
            except AttributeError:
                continue

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Model) or type(other) is not type(self):
            return NotImplemented
        return list(self._items()) == list(other._items())

    def __hash__(self) -> int:
        # Mappings count for equality and not for the hash, as they have none.
        hashable = [(n, v) for n, v in self._items() if _is_hashable(v)]
        return hash((type(self), *hashable))

    def __getstate__(self) -> dict[str, object]:
        return dict(self._items())

    def __setstate__(self, state: Mapping[str, object]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._items())
        return f"{type(self).__name__}({shown})"


def _is_hashable(value: Any) -> bool:
    return isinstance(value, Hashable) and not isinstance(value, Mapping)


# Parameters ---------------------------------------------------------------------------------------


@_model
class WorkflowTracingParam(Model):
    """Tracing of a workflow's runs. API documentation: Create ChatKit session, `tracing`.

    Attributes:
        enabled: Whether runs are traced. The API's default: true.
    """

    enabled: bool | None = None


@_model
class ChatSessionWorkflowParam(Model):
    """Which workflow a session runs. API documentation: Create ChatKit session, `workflow`.

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
    tracing: WorkflowTracingParam | Mapping[str, object] | None = None


@_model
class AutomaticThreadTitlingParam(Model):
    """Titles for threads. API documentation: Create ChatKit session, `automatic_thread_titling`.

    Attributes:
        enabled: Whether threads are given titles. The API's default: true.
    """

    enabled: bool | None = None


@_model
class FileUploadParam(Model):
    """Uploads by the end user. API documentation: Create ChatKit session, `file_upload`.

    Attributes:
        enabled: Whether files can be uploaded. The API's default: false.
        max_file_size: Megabytes a file may have, 1 to 512. The API's default: 512.
        max_files: How many files a session may have, at least 1. The API's default: 10.
    """

    enabled: bool | None = None
    max_file_size: int | None = None
    max_files: int | None = None


@_model
class HistoryParam(Model):
    """Earlier threads shown to the end user. API documentation: Create ChatKit session, `history`.

    Attributes:
        enabled: Whether earlier threads are shown. The API's default: true.
        recent_threads: How many of them, at least 1. The API's default: all.
    """

    enabled: bool | None = None
    recent_threads: int | None = None


@_model
class ChatSessionChatKitConfigurationParam(Model):
    """What the chat offers. API documentation: Create ChatKit session, `chatkit_configuration`.

    Attributes:
        automatic_thread_titling: Titles for threads.
        file_upload: Uploads by the end user.
        history: Earlier threads shown to the end user.
    """

    automatic_thread_titling: AutomaticThreadTitlingParam | Mapping[str, object] | None = None
    file_upload: FileUploadParam | Mapping[str, object] | None = None
    history: HistoryParam | Mapping[str, object] | None = None


@_model
class ChatSessionExpiresAfterParam(Model):
    """When a session ends by itself. API documentation: Create ChatKit session, `expires_after`.

    Attributes:
        seconds: Seconds from the anchor, 1 to 600. The API's default: 600.
        anchor: What they count from: the session's creation is all there is.
    """

    seconds: int
    anchor: Literal["created_at"] = "created_at"


@_model
class ChatSessionRateLimitsParam(Model):
    """What the end user may send. API documentation: Create ChatKit session, `rate_limits`.

    Attributes:
        max_requests_per_1_minute: Requests per minute, at least 1. The API's default: 10.
    """

    max_requests_per_1_minute: int | None = None


WorkflowLike: TypeAlias = ChatSessionWorkflowParam | Mapping[str, object] | str
"""A workflow: its parameters, a mapping with the same keys, or its id."""

ChatKitConfigurationLike: TypeAlias = ChatSessionChatKitConfigurationParam | Mapping[str, object]
"""A configuration: its parameters, or a mapping with the same keys."""

ExpiresAfterLike: TypeAlias = ChatSessionExpiresAfterParam | Mapping[str, object] | timedelta | int
"""An expiration: its parameters, a mapping with the same keys, or whole seconds."""

RateLimitsLike: TypeAlias = ChatSessionRateLimitsParam | Mapping[str, object] | int
"""Rate limits: their parameters, a mapping with the same keys, or requests per minute."""


@_model
class SessionCreateParams(Model):
    """All that makes a session. API documentation: Create ChatKit session.

    Attributes:
        user: Who the session is for: your own id of the end user, not blank. Sessions of the same
            user see the same threads.
        workflow: What the session runs: parameters, a mapping, or just the workflow's id.
        chatkit_configuration: What the chat offers.
        expires_after: When the session ends: parameters, a mapping, a timedelta of whole seconds,
            or whole seconds. The API's default: 600.
        rate_limits: What the end user may send: parameters, a mapping, or requests per minute. The
            API's default: 10.
    """

    user: str
    workflow: WorkflowLike
    chatkit_configuration: ChatKitConfigurationLike | None = None
    expires_after: ExpiresAfterLike | None = None
    rate_limits: RateLimitsLike | None = None


# Replies ------------------------------------------------------------------------------------------


class ReplyObject(Model):
    """A part of a reply, tolerant of what the API sends.

    A field that fits is held in its slot. A field that the reply lacks leaves its slot unset, so
    that reading it comes to `__getattr__`. All else, values of a wrong type and fields that are
    unknown here, is kept as it came in `_misfits`, by its key.
    """

    __slots__ = ("_misfits",)

    _nullable: ClassVar[frozenset[str]]

    @classmethod
    def __attrs_init_subclass__(cls) -> None:
        super().__attrs_init_subclass__()
        cls._nullable = frozenset(
            name for name, field in fields_of(cls).items() if NoneType in get_args(field.type)
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Self:
        """Make one of a reply's JSON object, whatever that adds, lacks or bends.

        Raises:
            ParameterError: `data` is not a mapping.
        """
        # The codec knows the models; the models meet it only here.
        from chatkit_async import _codec  # noqa: PLC0415

        return _codec.from_dict(cls, data)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object that `from_dict` was given: `from_dict(d).to_dict() == d`."""
        data = {name: _plain(value) for name, value in super()._items()}
        return data | self._kept()

    @property
    def extra(self) -> Mapping[str, object]:
        """The fields of the reply that are unknown here, as decoded JSON."""
        known = self._fields
        return MappingProxyType({k: v for k, v in self._kept().items() if k not in known})

    def validate(self) -> Self:
        """Return self, if it has all that the API's schema promises.

        Raises:
            ResponseValidationError: it has not; `.problems` has each JSON path and what is wrong.
        """
        if problems := list(self._problems("$")):
            raise ResponseValidationError(problems)
        return self

    def _problems(self, path: str) -> Iterator[Problem]:
        held = dict(self._items())
        for name in self._fields:
            where = f"{path}.{name}"
            if name in held:
                value = held[name]
                if isinstance(value, ReplyObject):
                    yield from value._problems(where)  # noqa: SLF001 - its own kind
                elif name == "status" and not isinstance(value, ChatSessionStatus):
                    yield where, f"is {value!r}, which the schema does not know"
            elif name in self._kept():
                yield where, _misfit(name, self._kept()[name])
            else:
                yield where, "is missing"

    def _kept(self) -> dict[str, object]:
        try:
            return cast("dict[str, object]", object.__getattribute__(self, "_misfits"))
        except AttributeError:
            return {}

    def _items(self) -> Iterator[tuple[str, object]]:
        yield from super()._items()
        if kept := self._kept():
            yield "_misfits", kept

    def __repr__(self) -> str:
        shown = [f"{name}={value!r}" for name, value in super()._items()]
        kept = self._kept()
        shown += [f"{name}=<invalid>" for name in self._fields if name in kept]
        # Unknown fields are named, never shown: nobody knows what they hold.
        if extra := ", ".join(repr(name) for name in kept if name not in self._fields):
            shown.append(f"extra=<{extra}>")
        return f"{type(self).__name__}({', '.join(shown)})"

    # To a type checker every field is there, and a misspelt one is not.
    if not TYPE_CHECKING:  # pragma: no branch

        def __getattr__(self, name: str) -> object:
            derived = getattr(type(self), name, None)
            if isinstance(derived, property):
                # The property raised an AttributeError, so Python asks here. Raise it as it was.
                return derived.fget(self)
            if name not in self._fields:
                message = f"{type(self).__name__!r} object has no attribute {name!r}"
                raise AttributeError(message, name=name, obj=None)
            if name in self._kept():
                message = (
                    f"{name!r} of the API's reply {_misfit(name, self._kept()[name])}; "
                    "to_dict() has it as it came, validate() lists all there is"
                )
                raise InvalidFieldError(message, name=name)
            if name in self._nullable:
                return None
            message = (
                f"the API's reply has no {name!r}, which its schema promises; "
                "validate() lists all that is missing"
            )
            raise MissingFieldError(message, name=name)


def _plain(value: object) -> object:
    """A field's value as decoded JSON has it."""
    if isinstance(value, ReplyObject):
        return value.to_dict()
    if isinstance(value, ChatSessionStatus):
        return value.value
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    return value


def _misfit(name: str, value: object) -> str:
    """What is wrong with a field's value, which is not shown: nobody knows what it holds."""
    if name == "object" and isinstance(value, str):
        return "is another string than 'chatkit.session'"
    if name == "state_variables" and isinstance(value, Mapping):
        return "holds something else than strings, booleans and numbers"
    names: dict[type, str] = {
        NoneType: "null",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return f"has the wrong type: {names.get(type(value), type(value).__name__)}"


class ChatSessionStatus(StrEnum):
    """Where a session is in its life. API documentation: ChatKit session object, `status`."""

    ACTIVE = "active"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@_model
class ChatKitWorkflowTracing(ReplyObject):
    """Tracing of a workflow's runs. API documentation: ChatKit session object, `tracing`.

    Attributes:
        enabled: Whether runs are traced.
    """

    enabled: bool


@_model
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


@_model
class ChatSessionAutomaticThreadTitling(ReplyObject):
    """Titles for threads. API documentation: ChatKit session object, `automatic_thread_titling`.

    Attributes:
        enabled: Whether threads are given titles.
    """

    enabled: bool


@_model
class ChatSessionFileUpload(ReplyObject):
    """Uploads by the end user. API documentation: ChatKit session object, `file_upload`.

    Attributes:
        enabled: Whether files can be uploaded.
        max_file_size: Megabytes a file may have.
        max_files: How many files the session may have.
    """

    enabled: bool
    max_file_size: int | None
    max_files: int | None


@_model
class ChatSessionHistory(ReplyObject):
    """Earlier threads shown to the end user. API documentation: ChatKit session object, `history`.

    Attributes:
        enabled: Whether earlier threads are shown.
        recent_threads: How many of them; None: all.
    """

    enabled: bool
    recent_threads: int | None


@_model
class ChatSessionChatKitConfiguration(ReplyObject):
    """What the chat offers. API documentation: ChatKit session object, `chatkit_configuration`.

    Attributes:
        automatic_thread_titling: Titles for threads.
        file_upload: Uploads by the end user.
        history: Earlier threads shown to the end user.
    """

    automatic_thread_titling: ChatSessionAutomaticThreadTitling
    file_upload: ChatSessionFileUpload
    history: ChatSessionHistory


@_model
class ChatSessionRateLimits(ReplyObject):
    """What the end user may send. API documentation: ChatKit session object, `rate_limits`.

    Attributes:
        max_requests_per_1_minute: Requests per minute.
    """

    max_requests_per_1_minute: int


_OUT_OF_RANGE = "'expires_at' of the API's reply is no date: it is out of range"


@_model
class ChatSession(ReplyObject):
    """A session and its resolved configuration. API documentation: ChatKit session object.

    A field that the API's reply lacks, or has with a wrong type, raises `MissingFieldError` or
    `InvalidFieldError` when it is read; `validate()` lists all of them at once.

    Attributes:
        id: The session's id, `cksess_...`.
        object: Always `chatkit.session`.
        expires_at: When the session ends, in Unix seconds.
        client_secret: What the browser authenticates with. Masked in its repr.
        workflow: The workflow it runs.
        user: The user it is for.
        rate_limits: What the end user may send.
        max_requests_per_1_minute: The same, requests per minute.
        status: Where it is in its life. A status that is unknown here is a plain str.
        chatkit_configuration: What the chat offers.
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
        """When the session ends, as an aware datetime in UTC.

        Raises:
            InvalidFieldError: `expires_at` is out of datetime's range.
        """
        try:
            return datetime.fromtimestamp(self.expires_at, UTC)
        except (OverflowError, ValueError, OSError):
            pass
        raise InvalidFieldError(_OUT_OF_RANGE, name="expires_at_datetime")
