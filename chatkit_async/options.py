"""The options that users can set: per client, per call, and for retries."""

import ssl as tls
from collections.abc import Awaitable, Callable, Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from typing import Literal, TypeAlias, TypedDict, TypeVar, cast

import attrs

from chatkit_async._checks import HEADER_NAME, Checks, Withheld
from chatkit_async.errors import APIError, ConfigurationError, Problem
from chatkit_async.secret import MASK, Secret, mask_text

__all__ = [
    "OMITTED",
    "ApiKeyProvider",
    "Attempt",
    "ClientOptions",
    "NotRetried",
    "Omitted",
    "Order",
    "QueryValue",
    "RequestOptions",
    "RetryPolicy",
]

T = TypeVar("T", "ClientOptions", "RequestOptions")

BASE_URL = "https://api.openai.com/v1"
TIMEOUT = 60.0
ATTEMPT_TIMEOUT = 20.0
CONNECT_TIMEOUT = 5.0
MAX_RETRIES = 2
MAX_CONNECTIONS = 1000

ApiKeyProvider: TypeAlias = Callable[[], str | Awaitable[str]]
"""Gives the API key, at once or when awaited; called for each attempt."""

Order: TypeAlias = Literal["asc", "desc"]
"""The order of a list by creation: `asc` is the oldest first, `desc` the newest."""


class Omitted(Enum):
    """The type of `OMITTED`, an argument that was not given where None would be a mistake."""

    OMITTED = "omitted"


OMITTED = Omitted.OMITTED
"""An argument that was not given."""

QueryValue: TypeAlias = str | int | float
"""A value in `extra_query`."""


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """The waits of a call before another attempt, where the API does not say.

    The wait before retry n is drawn evenly from 0 to `initial_backoff * 2 ** (n - 1)`, at most
    `max_backoff` ("full jitter").

    Attributes:
        initial_backoff: Seconds, more than 0. Default: 0.5.
        max_backoff: Seconds, at least `initial_backoff`. Default: 8.0.

    Raises:
        ConfigurationError: a number is out of its range.
    """

    initial_backoff: float = 0.5
    max_backoff: float = 8.0

    def __attrs_post_init__(self) -> None:
        problems = Checks()
        problems.seconds("initial_backoff", self.initial_backoff)
        problems.seconds("max_backoff", self.max_backoff)
        if not problems and self.max_backoff < self.initial_backoff:
            problems.append(("max_backoff", "must be at least initial_backoff"))
        if problems:
            raise ConfigurationError(problems)


NotRetried: TypeAlias = Literal[
    "not_retryable", "retries_exhausted", "budget_exhausted", "deadline", "forbidden"
]
"""The reason why a failed attempt is not retried: see `Attempt.not_retried`."""


@attrs.frozen(kw_only=True)
class Attempt:
    """One attempt of a call, as `on_attempt` receives it.

    Attributes:
        method: The HTTP method.
        route: The path with its variables named, such as `/chatkit/sessions/{session_id}/cancel`:
            a label of few values for metrics and traces.
        number: The number of the attempt within its call, from 1.
        status_code: The reply's HTTP status; None: there was no reply.
        request_id: The reply's `x-request-id`.
        elapsed: Seconds from the attempt's start to its end.
        error: The error. None: the attempt succeeded.
        next_wait: Seconds until the next attempt; None: this was the last.
        not_retried: Why this was the last attempt, if it failed. `not_retryable`: no retry helps
            against this failure. `retries_exhausted`: `max_retries` were made. `budget_exhausted`:
            too many recent requests of this client failed. `deadline`: the wait does not fit into
            what is left of `timeout`. `forbidden`: the server forbids it, `x-should-retry: false`.
            None: it succeeded, or another attempt follows.
    """

    method: str
    route: str
    number: int
    status_code: int | None
    request_id: str | None
    elapsed: float
    error: APIError | None
    next_wait: float | None
    not_retried: NotRetried | None = None


class RequestOptions(TypedDict, total=False):
    """Options of one call. Those left out are the client's.

    Attributes:
        timeout: Seconds for the whole call, every attempt and every wait; None: no limit.
        attempt_timeout: Seconds for each attempt; None: no limit.
        max_retries: Attempts after the first, at least 0.
        extra_headers: Headers to add to the request, or to replace the client's own.
        extra_query: Query parameters to add to the URL.
        extra_body: Fields to merge into the body, object by object: for those that the API has
            gained since this release.
    """

    timeout: float | None
    attempt_timeout: float | None
    max_retries: int
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, QueryValue] | None
    extra_body: Mapping[str, object] | None


class ClientOptions(TypedDict, total=False):
    """Options that `with_options` can change. Those left out stay.

    Attributes:
        api_key: The API key, or a callable that gives it.
        organization: Sent as `OpenAI-Organization`; None: from `OPENAI_ORG_ID`.
        project: Sent as `OpenAI-Project`; None: from `OPENAI_PROJECT_ID`.
        base_url: The URL of the API. None: from `OPENAI_BASE_URL`.
        timeout: Seconds for a whole call, every attempt and every wait; None: no limit.
        attempt_timeout: Seconds for each attempt; None: no limit.
        connect_timeout: Seconds to look the host name up, and again to open a connection, TLS
            included; None: no limit.
        max_retries: Attempts after the first, at least 0.
        retry_policy: The waits between attempts.
        verify_replies: Refuse a reply whose user or session is not the one in the request.
        default_headers: Headers for every request.
        proxy: URL of an HTTP proxy; None: from the environment.
        ssl: TLS settings; None: the CAs that Python's `ssl` trusts.
        allow_http: True to allow plain http to hosts other than this machine.
        on_attempt: Called after each attempt.
    """

    api_key: str | ApiKeyProvider | None
    organization: str | None
    project: str | None
    base_url: str | None
    timeout: float | None
    attempt_timeout: float | None
    connect_timeout: float | None
    max_retries: int
    retry_policy: RetryPolicy | None
    verify_replies: bool
    default_headers: Mapping[str, str] | None
    proxy: str | None
    ssl: tls.SSLContext | None
    allow_http: bool
    on_attempt: Callable[[Attempt], object] | None


# Checks -------------------------------------------------------------------------------------------

_OF_THE_CONNECTIONS = {"max_connections", "http_session"}


def refuse_unknown(options: Iterable[str], known: type[object]) -> None:
    """Refuse unknown options, as Python does where a signature names its arguments.

    Raises:
        TypeError: An option has another name.
    """
    for name in options:
        if name in known.__annotations__:
            continue
        hint = ""
        if name in ClientOptions.__annotations__:
            hint = f"; a client has it for all its calls: client.with_options({name}=...)"
        elif name in _OF_THE_CONNECTIONS:
            hint = "; it is the connections', set as a client is made, and shared by with_options"
        elif guess := get_close_matches(name, known.__annotations__, 1):
            hint = f"; did you mean {guess[0]!r}?"
        raise TypeError(f"unexpected keyword argument {name!r}{hint}")


def request_problems(options: RequestOptions) -> list[Problem]:
    """Return the problems of the options of one call.

    Raises:
        TypeError: An option has another name.
    """
    refuse_unknown(options, RequestOptions)
    found = Checks()
    if "timeout" in options:
        found.seconds("timeout", options["timeout"], optional=True)
    if "attempt_timeout" in options:
        found.seconds("attempt_timeout", options["attempt_timeout"], optional=True)
    if "max_retries" in options:
        found.whole("max_retries", options["max_retries"], least=0)
    # None is what calls written for the OpenAI SDKs have where there is nothing to add.
    if (headers := options.get("extra_headers")) is not None:
        found.headers("extra_headers", headers)
    if (query := options.get("extra_query")) is not None:
        found.query("extra_query", query)
    found.instance("extra_body", options.get("extra_body"), Mapping)
    return found


# Credentials in tracebacks, which may show the locals of each frame -------------------------------


_CREDENTIALS = {"api_key", "base_url", "organization", "project", "proxy"}
"""Settings that are a credential, may hold one (`https://user:password@...`) or get one by
mistake."""

_SHOWN = {*ClientOptions.__annotations__, *RequestOptions.__annotations__} - _CREDENTIALS


def traceback_safe(value: object) -> object:
    """Return text as a `Secret`, and anything else but a callable as its type, for an error.

    Call it before anything can raise: a traceback may show a frame's locals.
    """
    if isinstance(value, str):
        return Secret(value)
    if value is None or callable(value):
        return value
    return Withheld(type(value))


@attrs.frozen(repr=False)
class _HiddenProvider:
    """Gives the API key by a callable whose own repr may show it, as a partial's does."""

    give: ApiKeyProvider

    def __call__(self) -> str | Awaitable[str]:
        return self.give()

    def __repr__(self) -> str:
        return f"<a callable: {MASK}>"


def client_options(arguments: Mapping[str, object]) -> ClientOptions:
    """Return the options of a client among the arguments of its constructor, as `locals()`.

    Everything in them that may be a credential is masked in its repr.
    """
    given = {name: arguments[name] for name in ClientOptions.__annotations__}
    return traceback_safe_options(cast("ClientOptions", given))


def traceback_safe_options(options: T) -> T:
    """Return the same options, with everything that may be a credential masked in its repr.

    Call it before anything can raise: a traceback may show a frame's locals.
    """
    if not options:
        return options
    masked = dict(cast("Mapping[str, object]", options))
    for name in masked.keys() - _SHOWN:  # also one that is misspelt
        masked[name] = traceback_safe(masked[name])
    key = masked.get("api_key")
    if callable(key) and not isinstance(key, _HiddenProvider):
        masked["api_key"] = _HiddenProvider(cast("ApiKeyProvider", key))
    for name in ("default_headers", "extra_headers"):
        headers = masked.get(name)
        if isinstance(headers, Mapping):
            items = cast("Mapping[object, object]", headers).items()
            masked[name] = {_header_name(key): traceback_safe(value) for key, value in items}
        elif headers is not None:
            masked[name] = traceback_safe(headers)
    return cast("T", masked)


def _header_name(name: object) -> object:
    """Return a header's name. Of a whole header in its place, the value is masked."""
    if not isinstance(name, str) or HEADER_NAME.fullmatch(name):
        return name
    name, colon, value = mask_text(name, ()).partition(":")
    return f"{name}{colon}{MASK if value else ''}"
