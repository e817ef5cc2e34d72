"""What can be set: per client, per call, and for retries."""

import ipaddress
import os
import re
import ssl as tls
from collections.abc import Awaitable, Callable, Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from operator import index
from sys import float_info
from typing import Literal, SupportsIndex, TypeAlias, TypedDict, TypeVar, cast, get_args
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment

import attrs
from yarl import URL

from chatkit_async._no_proxy import bypasses_proxy
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
"""What can be a value in `extra_query`."""


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How long a call waits before another attempt, where the API does not say.

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
        problems = _Checks()
        problems.seconds("initial_backoff", self.initial_backoff, optional=False)
        problems.seconds("max_backoff", self.max_backoff, optional=False)
        if not problems and self.max_backoff < self.initial_backoff:
            problems.append(("max_backoff", "should be at least initial_backoff"))
        if problems:
            raise ConfigurationError(problems)


NotRetried: TypeAlias = Literal[
    "not_retryable", "retries_exhausted", "budget_exhausted", "deadline", "forbidden"
]
"""Why no attempt follows one that failed: see `Attempt.not_retried`."""


@attrs.frozen(kw_only=True)
class Attempt:
    """One attempt of a call, as `on_attempt` receives it.

    Attributes:
        method: The HTTP method.
        route: The path with its variables named, such as `/chatkit/sessions/{session_id}/cancel`:
            a label of few values for metrics and traces.
        number: Which attempt of its call this was, from 1.
        status_code: The reply's HTTP status; None: there was no reply.
        request_id: The reply's `x-request-id`.
        elapsed: Seconds from the attempt's start to its end.
        error: What failed; None: the attempt succeeded.
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
    """What can be set for one call; what is left out is as the client has it.

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
    """What `with_options` can change; what is left out stays.

    Attributes:
        api_key: The API key, or a callable that gives it.
        organization: Sent as `OpenAI-Organization`; None: from `OPENAI_ORG_ID`.
        project: Sent as `OpenAI-Project`; None: from `OPENAI_PROJECT_ID`.
        base_url: Where the API is; None: from `OPENAI_BASE_URL`.
        timeout: Seconds for a whole call, every attempt and every wait; None: no limit.
        attempt_timeout: Seconds for each attempt; None: no limit.
        connect_timeout: Seconds to look the host name up, and again to open a connection, TLS
            included; None: no limit.
        max_retries: Attempts after the first, at least 0.
        retry_policy: How long to wait between attempts.
        verify_replies: Refuse a reply whose user or session is not the one in the request.
        default_headers: Headers for every request.
        proxy: URL of an HTTP proxy; None: from the environment.
        ssl: TLS settings; None: the CAs that Python's `ssl` trusts.
        allow_http: Whether plain http is allowed to hosts other than this machine.
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

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# These frame the message: a request with a wrong one hangs, or is smuggled into another.
_FRAMING = {"content-length", "transfer-encoding", "connection", "upgrade"}


PRINTABLE_BITS = 2048
"""Bits of the largest int that Python prints, whatever its limit is set to."""


def described(value: object) -> str:
    """What a value is, for an error. Text is not shown: it may be somebody's, or secret."""
    if isinstance(value, int) and value.bit_length() > 64:  # noqa: PLR2004 - what a person can read
        return "a very large number"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    return f"of type {type(value).__name__}"


def mapping_advice(value: object) -> str:
    """Return advice on how to make a mapping of an object, to end a sentence with."""
    for name, call in _MAKES_MAPPING.items():
        if hasattr(type(value), name):
            return f": pass {call} instead"
    return ""


_MAKES_MAPPING = {
    "model_dump": "its model_dump()",  # pydantic
    "__dataclass_fields__": "dataclasses.asdict() of it",
    "_asdict": "its _asdict()",  # a namedtuple
}
"""Calls that make a mapping of an object, by an attribute of its class."""


class _Checks(list[Problem]):
    """The problems found so far; each method looks at one kind of value."""

    def seconds(self, name: str, value: object, *, optional: bool = True) -> None:
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, float | SupportsIndex):
            also = " or None" if optional else ""
            self.append((name, f"should be seconds{also}, is {described(value)}"))
        elif (_number(value) or 0) <= 0:
            hint = "; None means no limit" if optional else ""
            wrong = f"should be more than 0 seconds and finite, is {described(value)}{hint}"
            self.append((name, wrong))

    def whole(self, name: str, value: object, *, least: int) -> None:
        if isinstance(value, bool) or not isinstance(value, SupportsIndex):
            self.append((name, f"should be a whole number, is {described(value)}"))
        elif index(value) < least:
            self.append((name, f"should be at least {least}, is {described(value)}"))

    def text(self, name: str, value: object) -> None:
        if not isinstance(value, str):
            self.append((name, f"must be a string, got {described(value)}"))
        elif not value.strip():
            self.append((name, f"must not be {'blank' if value else 'empty'}"))
        elif not _is_utf8(value):
            self.append((name, "has text that UTF-8 cannot encode (a lone surrogate)"))

    def headers(self, name: str, value: object) -> None:
        if not isinstance(value, Mapping):
            self.append((name, f"should be a mapping, is of type {_type_name(value)}"))
            return
        for key, text in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str) or not _HEADER_NAME.fullmatch(key):
                self.append((f"{name}[{key!a}]", "is not a header's name"))
            elif key.lower() in _FRAMING:
                self.append((f"{name}[{key!a}]", "belongs to the connection: leave it out"))
            elif not isinstance(text, str):
                wrong = f"should be a string, is of type {_type_name(text)}"
                self.append((f"{name}[{key!a}]", wrong))
            elif not is_header_value(text):
                self.append((f"{name}[{key!a}]", "has a control character, or is not ASCII"))

    def query(self, name: str, value: object) -> None:
        if not isinstance(value, Mapping):
            self.append((name, f"should be a mapping, is of type {type(value).__name__}"))
            return
        for key, item in cast("Mapping[object, object]", value).items():
            where = f"{name}[{key!a}]"
            if not isinstance(key, str):
                self.append((where, f"has a name that is no string but {described(key)}"))
            elif not _is_utf8(key + item if isinstance(item, str) else key):
                self.append((where, "has text that UTF-8 cannot encode (a lone surrogate)"))
            elif not isinstance(item, str) and _number(item) is None:
                self.append((where, f"should be a string or a number, is {described(item)}"))

    def instance(self, name: str, value: object, wanted: type[object]) -> None:
        if value is not None and not isinstance(value, wanted):
            advice = mapping_advice(value) if wanted is Mapping else ""
            wrong = f"should be a {wanted.__name__}, is of type {type(value).__name__}{advice}"
            self.append((name, wrong))


def is_header_value(text: str) -> bool:
    """Whether a header can carry this text as it is."""
    return text.isascii() and (text.isprintable() or text.replace("\t", "").isprintable())


def _number(value: object) -> float | None:
    """Return a number in the range of a float. None: it is a bool, NaN, infinite or no number."""
    if isinstance(value, bool) or not isinstance(value, float | SupportsIndex):
        return None
    number = value if isinstance(value, float) else index(value)
    return number if -float_info.max <= number <= float_info.max else None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_OF_THE_CONNECTIONS = {"max_connections", "http_session"}


def refuse_unknown(options: Iterable[str], known: type[object]) -> None:
    """Refuse what Python itself refuses where a signature names its arguments.

    Raises:
        TypeError: there is an option of another name.
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
    """What is wrong with the options of one call.

    Raises:
        TypeError: there is an option of another name.
    """
    refuse_unknown(options, RequestOptions)
    found = _Checks()
    if "timeout" in options:
        found.seconds("timeout", options["timeout"])
    if "attempt_timeout" in options:
        found.seconds("attempt_timeout", options["attempt_timeout"])
    if "max_retries" in options:
        found.whole("max_retries", options["max_retries"], least=0)
    # None is what calls written for the OpenAI SDKs have where there is nothing to add.
    if (headers := options.get("extra_headers")) is not None:
        found.headers("extra_headers", headers)
    if (query := options.get("extra_query")) is not None:
        found.query("extra_query", query)
    found.instance("extra_body", options.get("extra_body"), Mapping)
    return found


def bulk_problems(
    *,
    concurrency: object,
    rate: object,
    max_wait: object,
    max_failures: object,
    capacity: int,
) -> list[Problem]:
    """What is wrong with the bounds of a bulk run, on a client with so many connections."""
    found = _Checks()
    found.whole("concurrency", concurrency, least=1)
    if not found and cast("int", concurrency) > capacity:
        wrong = (
            f"should be at most the client's max_connections, {capacity}, is "
            f"{described(concurrency)}: make the client with as many"
        )
        found.append(("concurrency", wrong))
    if rate is not None and (_number(rate) or 0) <= 0:
        found.append(
            ("rate", f"should be starts per second, more than 0, or None, is {described(rate)}")
        )
    found.seconds("max_wait", max_wait)
    if max_failures is not None:
        found.whole("max_failures", max_failures, least=1)
    return found


def list_problems(
    *,
    user: object,
    limit: object,
    order: object,
    after: object,
    before: object,
    max_items: object,
) -> list[Problem]:
    """Return what is wrong with the arguments of a list. Upper limits are the server's."""
    found = _Checks()
    if user is not OMITTED:
        found.text("user", user)
        if found:
            path, problem = found.pop()
            danger = "the API would list the threads of every user. For that, leave user out"
            found.append((path, f"{problem}; {danger}"))
    if limit is not None:
        found.whole("limit", limit, least=0)
    if order is not None and order not in get_args(Order):
        guess = get_close_matches(str(order), ["asc", "ascending", "oldest"], 1)
        meant = "asc" if guess else "desc"
        found.append(("order", f"must be 'asc' or 'desc', did you mean {meant!r}?"))
    for name, cursor in (("after", after), ("before", before)):
        if cursor is not None:
            found.text(name, cursor)
    if max_items is not None:
        found.whole("max_items", max_items, least=1)
    return found


# A client's settings ------------------------------------------------------------------------------


_CREDENTIALS = {"api_key", "base_url", "organization", "project", "proxy"}
"""Settings that are a credential, may hold one (`https://user:password@...`) or get one by
mistake."""

_SHOWN = {*ClientOptions.__annotations__, *RequestOptions.__annotations__} - _CREDENTIALS


def hide(value: object) -> object:
    """Make text a `Secret` before anything can raise: a traceback may render a frame's locals.

    What is neither text nor a callable is reduced to its type, for an error to name.
    """
    if isinstance(value, str):
        return Secret(value)
    if value is None or callable(value):
        return value
    return type(value)


@attrs.frozen(repr=False)
class _HiddenProvider:
    """Gives the API key by a callable whose own repr may show it, as a partial's does."""

    give: ApiKeyProvider

    def __call__(self) -> str | Awaitable[str]:
        return self.give()

    def __repr__(self) -> str:
        return f"<a callable: {MASK}>"


def _type_name(value: object) -> str:
    """The name of a value's type, which may be all that `hide` left of it."""
    return value.__name__ if isinstance(value, type) else type(value).__name__


def hidden(options: T) -> T:
    """The same options, with all that may be a credential hidden."""
    if not options:
        return options
    masked = dict(cast("Mapping[str, object]", options))
    for name in masked.keys() - _SHOWN:  # also one that is misspelt
        masked[name] = hide(masked[name])
    key = masked.get("api_key")
    if callable(key) and not isinstance(key, type | _HiddenProvider):
        masked["api_key"] = _HiddenProvider(cast("ApiKeyProvider", key))
    for name in ("default_headers", "extra_headers"):
        headers = masked.get(name)
        if isinstance(headers, Mapping):
            items = cast("Mapping[object, object]", headers).items()
            masked[name] = {_header_name(key): hide(value) for key, value in items}
        elif headers is not None:
            masked[name] = hide(headers)
    return cast("T", masked)


def _header_name(name: object) -> object:
    """The name; of what is no name, and a whole header maybe, no more than can be shown."""
    if not isinstance(name, str) or _HEADER_NAME.fullmatch(name):
        return name
    name, colon, value = mask_text(name, ()).partition(":")
    return f"{name}{colon}{MASK if value else ''}"


def key_problem(key: object) -> str | None:
    """What is wrong with a key; the sentence does not echo it."""
    if not isinstance(key, str):
        return f"should be a string, is of type {type(key).__name__}"
    if not key.strip():
        return "is blank"
    if not all("!" <= character <= "~" for character in key.strip()):
        return (
            "has a character that no API key has: a space, a control character or one that is not "
            "ASCII; copy it anew"
        )
    return None


@attrs.frozen(kw_only=True)
class Settings:
    """A client's settings: checked, with the environment filled in."""

    api_key: Secret | ApiKeyProvider
    organization: str | None
    project: str | None
    base_url: str
    timeout: float | None
    attempt_timeout: float | None
    connect_timeout: float | None
    max_retries: int
    retry_policy: RetryPolicy
    verify_replies: bool
    default_headers: Mapping[str, Secret]
    proxy: Secret | None
    ssl: tls.SSLContext | None
    on_attempt: Callable[[Attempt], object] | None

    @classmethod
    def resolve(
        cls,
        given: ClientOptions,
        *,
        max_connections: int = MAX_CONNECTIONS,
        problems: Iterable[Problem] = (),
    ) -> "Settings":
        """Check what was given, and fill in the environment.

        Args:
            given: What can differ between clients that share connections.
            max_connections: What cannot; it is only checked.
            problems: Problems of other settings, to raise along with those found here.

        Raises:
            ConfigurationError: with every problem there is.
        """
        found = _Checks(problems)
        timeout = given.get("timeout", TIMEOUT)
        attempt_timeout = given.get("attempt_timeout", ATTEMPT_TIMEOUT)
        connect_timeout = given.get("connect_timeout", CONNECT_TIMEOUT)
        max_retries = given.get("max_retries", MAX_RETRIES)
        headers = given.get("default_headers")
        if headers is None:
            headers = dict[str, str]()
        ssl = given.get("ssl")
        found.seconds("timeout", timeout)
        found.seconds("attempt_timeout", attempt_timeout)
        found.seconds("connect_timeout", connect_timeout)
        found.whole("max_retries", max_retries, least=0)
        found.headers("default_headers", headers)
        found.whole("max_connections", max_connections, least=1)
        found.instance("ssl", ssl, tls.SSLContext)
        found.instance("retry_policy", given.get("retry_policy"), RetryPolicy)
        on_attempt = given.get("on_attempt")
        if on_attempt is not None and not callable(on_attempt):
            wrong = type(on_attempt).__name__
            found.append(("on_attempt", f"should be a callable, is of type {wrong}"))
        verify_replies = given.get("verify_replies", True)
        found.instance("verify_replies", verify_replies, bool)
        allow_http = given.get("allow_http", False)
        found.instance("allow_http", allow_http, bool)
        base_url = _base_url(given.get("base_url"), found, allow_http=allow_http)
        api_key = _api_key(given.get("api_key"), found)
        organization = _text("organization", given.get("organization"), "OPENAI_ORG_ID", found)
        project = _text("project", given.get("project"), "OPENAI_PROJECT_ID", found)
        proxy = _proxy(given.get("proxy"), base_url, found)
        if found:
            raise ConfigurationError(found)
        return cls(
            api_key=api_key,
            organization=organization,
            project=project,
            base_url=base_url,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            connect_timeout=connect_timeout,
            max_retries=max_retries,
            retry_policy=given.get("retry_policy") or RetryPolicy(),
            verify_replies=verify_replies is not False,
            # Any of them may be a credential.
            default_headers={name: Secret(value) for name, value in headers.items()},
            proxy=proxy,
            ssl=ssl,
            on_attempt=on_attempt,
        )


def _text(name: str, value: object, variable: str, found: _Checks) -> str | None:
    """A header's value from its argument or its variable; blank counts as not given."""
    if value is None:
        name, value = variable, os.environ.get(variable)
    if value is None:
        return None
    if not isinstance(value, str):
        found.append((name, f"should be a string, is of type {_type_name(value)}"))
        return None
    if not is_header_value(text := value.strip()):
        found.append((name, "has a control character, or is not ASCII"))
        return None
    return Secret(text) if text else None  # it may be a key, by mistake


def _api_key(value: object, found: _Checks) -> Secret | ApiKeyProvider:
    name = "api_key"
    if value is None:
        name, value = "OPENAI_API_KEY", hide(os.environ.get("OPENAI_API_KEY", ""))
        if not value:
            found.append((name, "is not set: set it, or pass api_key=..."))
            return Secret("")
    if isinstance(value, type):
        found.append((name, f"should be a string or a callable, is of type {_type_name(value)}"))
        return Secret("")
    if callable(value):
        return cast("ApiKeyProvider", value)
    if (problem := key_problem(value)) is not None:
        found.append((name, problem))
        return Secret("")
    return Secret(cast("str", value).strip())


def _base_url(value: object, found: _Checks, *, allow_http: bool) -> str:
    name = "base_url"
    if value is None:
        name, value = "OPENAI_BASE_URL", os.environ.get("OPENAI_BASE_URL", "").strip() or BASE_URL
    if not isinstance(value, str):
        found.append((name, f"should be a string, is of type {_type_name(value)}"))
        return BASE_URL
    if (problem := _url_problem(value.strip(), allow_http=allow_http)) is not None:
        found.append((name, problem))
        return BASE_URL
    return value.strip().rstrip("/")


def _url_problem(url: str, *, allow_http: bool) -> str | None:
    parts = _split(url)
    if parts is None or not url.isprintable() or " " in url:
        return "is not a URL"
    if parts.scheme not in {"http", "https"}:
        # Whatever ends in a colon is a scheme: a key can.
        found = f"starts with {mask_text(parts.scheme, ())!r}" if parts.scheme else "has no scheme"
        return f"should start with https://, {found}"
    if not parts.hostname:
        return "has no host"
    if _yarl(url) is None:
        return "has a host that is no host's name"
    if parts.username is not None or parts.password is not None:
        return "has a user or password: the key goes into api_key"
    if "?" in url:
        return "has a query: use extra_query, or default_headers"
    if "#" in url:
        return "has a fragment"
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
        return "is plain http, which shows the key to the network: use https, or allow_http=True"
    return None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError:
        return None
    return parts


def _yarl(url: str) -> URL | None:
    """The URL as aiohttp reads it, which is stricter about hosts."""
    try:
        return URL(url)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _proxy(value: object, base_url: str, found: _Checks) -> Secret | None:
    """The proxy for the base URL, looked up once; it may carry a password."""
    name = "proxy"
    if value is None:
        server = urlsplit(base_url)
        scheme = server.scheme
        proxies = getproxies_environment()
        if is_loopback(server.hostname or "") or bypasses_proxy(base_url, proxies.get("no", "")):
            return None
        name = next((n for n in (scheme, "all") if proxies.get(n, "").strip()), "")
        name, value = f"{name}_proxy", proxies.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        found.append((name, f"should be a string, is of type {_type_name(value)}"))
        return None
    url = Secret(value.strip() if "://" in value else f"http://{value.strip()}")
    parts = _split(url)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        found.append((name, "should be the URL of an HTTP proxy, such as http://host:3128"))
    elif ":" in unquote(parts.username or ""):
        found.append((name, "has a user with a colon, which HTTP has no way to send"))
    return url
