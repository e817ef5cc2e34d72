"""Sans-IO: what is sent for a method, and what a reply means."""

import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from inspect import currentframe
from math import isfinite
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast
from unicodedata import category, normalize
from urllib.parse import quote, urlencode, urlsplit

import attrs
from multidict import CIMultiDict

from chatkit_async import _codec
from chatkit_async._checks import text_problem
from chatkit_async.errors import (
    APIResponseError,
    APIStatusError,
    NotFoundError,
    ParameterError,
    Problem,
    ResponseErrorKind,
)
from chatkit_async.models import ChatSession, SessionCreateParams
from chatkit_async.models._base import ReplyObject, member_class, promised_object
from chatkit_async.options import QueryValue, RequestOptions, request_problems
from chatkit_async.secret import MASK, Secret, clean_text, mask_json, mask_text, printable

if TYPE_CHECKING:
    from types import FrameType

T = TypeVar("T", bound=ReplyObject)
Flaw: TypeAlias = Literal["truncated", "too_large", "encoding"]

# https://platform.openai.com/docs/api-reference/chatkit/sessions
CREATE_ROUTE = "/chatkit/sessions"
CANCEL_ROUTE = "/chatkit/sessions/{session_id}/cancel"

# https://platform.openai.com/docs/api-reference/chatkit/threads
THREADS_ROUTE = "/chatkit/threads"
THREAD_ROUTE = "/chatkit/threads/{thread_id}"
ITEMS_ROUTE = "/chatkit/threads/{thread_id}/items"

# ChatKit is in beta: the API wants to hear that the caller knows.
BETA_HEADER = ("OpenAI-Beta", "chatkit_beta=v1")

MAX_ERROR_BODY = 16 * 1024
"""Bytes of an error's body that are kept on the exception."""

MAX_SAID = 1000
"""Characters of what the API said, of its message as of its code, that are part of an error."""


WITHDRAWAL = (
    "Hosted workflows may also have been withdrawn: as announced on 2026-06-03, Agent Builder ends "
    "on 2026-11-30 (https://platform.openai.com/docs/deprecations)"
)

MAX_ENCODING = 100
"""Characters of an unknown encoding's name that are part of an error."""


@attrs.frozen(kw_only=True)
class Call(Generic[T]):
    """A request, whole but for what the client adds: base URL, key and its own headers.

    Every attempt sends the same bytes.

    Attributes:
        subject: The field of the reply that names what the request is about, and its value; None:
            any reply will do. In the reply of a list, it is a field of each member.
        if_gone: The reply to a request that deletes, as it would have been, for when its reply was
            lost and the next attempt is told that the thing does not exist.
    """

    method: str
    route: str
    path: str
    result: type[T]
    headers: Mapping[str, Secret]
    body: bytes | None = attrs.field(repr=False)
    subject: tuple[str, str] | None = attrs.field(default=None, repr=False)
    if_gone: Mapping[str, object] | None = None


@attrs.frozen(kw_only=True)
class Reply:
    """A response, read. The body may hold a client secret: it is in no repr.

    Attributes:
        flaw: Why the body is not whole: it ended early, is larger than the cap, or is in an
            encoding that could not be decoded.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    content: bytes = attrs.field(repr=False)
    flaw: Flaw | None = None

    def clean_request_id(self, secrets: Iterable[str]) -> str | None:
        """Return the API's own id for the request, masked and printable."""
        request_id = self.headers.get("x-request-id")
        return None if request_id is None else clean_text(request_id, secrets)


# Calls --------------------------------------------------------------------------------------------


def create_session(
    params: SessionCreateParams | Mapping[str, object], options: RequestOptions
) -> Call[ChatSession]:
    """Build the call that creates a session.

    Raises:
        ParameterError: with every problem of the parameters and the options.
    """
    problems = option_problems(options) if options else []
    try:
        params = _codec.create_params(params)
    except ParameterError as error:
        problems = [*error.problems, *problems]
    if problems:
        raise ParameterError(problems)
    checked = cast("SessionCreateParams", params)
    extra_body = options.get("extra_body") or {}
    user = extra_body.get("user", checked.user)
    return Call(
        method="POST",
        route=CREATE_ROUTE,
        path=CREATE_ROUTE + _query(options.get("extra_query")),
        result=ChatSession,
        headers=_headers(options),
        body=_codec.encode(checked, extra_body),
        subject=("user", user) if isinstance(user, str) else None,
    )


def cancel_session(session_id: str, options: RequestOptions) -> Call[ChatSession]:
    """Build the call that cancels a session.

    Raises:
        ParameterError: with every problem of the id and the options.
    """
    problems = option_problems(options) if options else []
    if (problem := _id_problem(session_id)) is not None:
        problems = [("session_id", problem), *problems]
    if problems:
        raise ParameterError(problems)
    # `safe=""`: a slash in an id is part of the id, not of the path.
    path = CANCEL_ROUTE.format(session_id=quote(session_id, safe=""))
    extra_body = options.get("extra_body")
    return Call(
        method="POST",
        route=CANCEL_ROUTE,
        path=path + _query(options.get("extra_query")),
        result=ChatSession,
        headers=_headers(options),
        body=None if extra_body is None else _codec.encode(None, extra_body),
        subject=("id", session_id),
    )


def threads_call(
    result: type[T],
    method: str,
    route: str,
    options: RequestOptions,
    *,
    thread_id: str | None = None,
    query: Mapping[str, QueryValue | None] | None = None,
    problems: Iterable[Problem] = (),
    subject: tuple[str, str] | None = None,
    if_gone: Mapping[str, object] | None = None,
) -> Call[T]:
    """Build a call about threads. Parameters that are None are left out of the query.

    Without another subject, the reply has to be about the user that is sent, if there is one.

    Raises:
        ParameterError: with every problem of the id and the options.
    """
    problems = [*problems, *(option_problems(options) if options else ())]
    if "{" in route and (problem := _id_problem(thread_id)) is not None:
        problems = [("thread_id", problem), *problems]
    if problems:
        raise ParameterError(problems)
    path = route.format(thread_id=quote(thread_id or "", safe=""))
    extra_body = options.get("extra_body")
    sent = {name: value for name, value in (query or {}).items() if value is not None}
    sent |= options.get("extra_query") or {}
    if subject is None and isinstance(user := sent.get("user"), str):
        subject = ("user", user)
    return Call(
        method=method,
        route=route,
        path=path + _query(sent),
        result=result,
        headers=_headers(options),
        body=None if extra_body is None else _codec.encode(None, extra_body),
        subject=subject,
        if_gone=if_gone,
    )


def option_problems(options: RequestOptions) -> list[Problem]:
    """Return the problems of the options of one call."""
    problems = request_problems(options)
    if isinstance(extra_body := options.get("extra_body"), Mapping):
        problems += _codec.extra_body_problems(extra_body)
    return problems


def _id_problem(session_id: object) -> str | None:
    if (problem := text_problem(session_id)) is not None:
        return problem
    text = cast("str", session_id)
    if text in {".", ".."}:
        return "must not be '.' or '..', which a path reads as a folder"
    return "has a control character" if any(category(each) == "Cc" for each in text) else None


def _query(query: Mapping[str, QueryValue] | None) -> str:
    if not query:
        return ""
    # Encoded here: urlencode takes str() of what is no bytes, and some str say another thing then.
    return "?" + urlencode(
        {k.encode(): v.encode() if isinstance(v, str) else v for k, v in query.items()}
    )


def _headers(options: RequestOptions) -> dict[str, Secret]:
    # Any of them may be a credential.
    return {name: Secret(value) for name, value in (options.get("extra_headers") or {}).items()}


@attrs.frozen
class CodeLine:
    """A line of code, for a warning to point at."""

    filename: str
    number: int
    module_globals: dict[str, Any] = attrs.field(repr=False)


def calling_line() -> CodeLine | None:
    """Return the line that called into the package, or None if the package called itself.

    A blocking client and an endpoint call the methods elsewhere than where they were called
    themselves, and have warned there.
    """
    inner, frame = "", cast("FrameType", currentframe())
    while frame.f_back is not None:
        name = str(frame.f_globals.get("__name__"))
        if inner in _METHODS and name in _CALLS_METHODS:
            return None
        if name.startswith("chatkit_async."):
            inner = name
        elif not name.startswith(("asyncio.", "contextlib")):
            break
        frame = frame.f_back
    return CodeLine(frame.f_code.co_filename, frame.f_lineno, frame.f_globals)


_METHODS = {"chatkit_async.sessions", "chatkit_async.sync"}
_CALLS_METHODS = {"chatkit_async._loop_thread", "chatkit_async.web"}


def has_latest_version(workflow: object) -> bool:
    """Return whether a workflow, as a caller gave it, has the version that fails in the browser."""
    if isinstance(workflow, Mapping):
        return cast("Mapping[object, object]", workflow).get("version") == "latest"
    return getattr(workflow, "version", None) == "latest"


def warn_of_latest(workflow: object) -> None:
    """Warn about a workflow's version that fails in the browser."""
    if has_latest_version(workflow) and (line := calling_line()) is not None:
        warn_of_latest_at(line)


def warn_of_latest_at(line: CodeLine) -> None:
    """Warn that a version fails in the browser, and point at a line."""
    warnings.warn_explicit(
        "workflow.version='latest' is accepted by the API but fails in the browser. "
        "Leave the version out to run the latest one.",
        UserWarning,
        line.filename,
        line.number,
        line.module_globals.get("__name__"),
        line.module_globals.setdefault("__warningregistry__", {}),
    )


# Replies ------------------------------------------------------------------------------------------


def read(
    call: Call[T],
    reply: Reply,
    secrets: Iterable[str],
    *,
    verify: bool = True,
    after_loss: bool = False,
) -> T:
    """Read a reply into what its call is to return.

    Args:
        call: The request.
        reply: The reply.
        secrets: Texts that must not appear in an error: the API key.
        verify: Compare the reply with the request: it may be the reply to another one.
        after_loss: The reply to an earlier attempt was lost.

    Raises:
        APIStatusError: the status is not 2xx.
        APIResponseError: it is, and the body is of no use.
    """
    secrets = tuple(secrets)
    if not 200 <= reply.status < 300:  # noqa: PLR2004 - an HTTP status class
        if after_loss and call.if_gone and _is_gone(_status_error(call, reply, secrets)):
            return _codec.of_json(call.result, dict(call.if_gone))
        raise _status_error(call, reply, secrets)
    kind, cause, data = _decoded(call, reply, secrets, verify=verify)
    if kind is None:
        result = _codec.of_json(call.result, data)
        if all(hasattr(result, name) for name in result.indispensable):
            return result
        kind = "page"
        data.clear()  # an error's traceback holds this frame
    raise APIResponseError(
        f"the API replied {reply.status}, but {_flaw(kind, reply, secrets)}"
        f"{_aftermath(call)}{_REWRITTEN if kind == 'mismatched' else ''}",
        kind=kind,
        status_code=reply.status,
        request_id=reply.clean_request_id(secrets),
        cause=cause,
    )


def _is_gone(error: APIStatusError) -> bool:
    """True if the API itself, and no proxy or wrong base URL, says that a thing does not exist."""
    said = _members(_members(error.body).get("error")).get("message")
    return (
        isinstance(error, NotFoundError)
        and isinstance(said, str)
        and not said.startswith("Invalid URL")
    )


_FLAWS: dict[ResponseErrorKind, str] = {
    "empty": "without a body",
    "not_json": "its body is not JSON (is base_url right? is there a proxy in between?)",
    "not_an_object": "its body is not a JSON object",
    "truncated": "the connection ended before its body did",
    "too_large": "its body is larger than 4 MiB",
    "too_deep": "its body is nested too deeply to be decoded",
    "page": "its body is not a usable page",
    "encoding": (
        "its body could not be decoded from Content-Encoding '{encoding}', which was not asked for "
        "(is there a proxy in between?)"
    ),
    "mismatched": "its body is the reply to another request",
}

_REWRITTEN = ". If a gateway rewrites user ids, pass verify_replies=False"


def _flaw(kind: ResponseErrorKind, reply: Reply, secrets: Iterable[str]) -> str:
    encoding = clean_text(reply.headers.get("Content-Encoding", ""), secrets)
    return _FLAWS[kind].format(encoding=encoding[:MAX_ENCODING])


_AFTERMATHS = {
    ("POST", CREATE_ROUTE): "; the session may exist, and then expires on its own",
    ("POST", CANCEL_ROUTE): "; the session may have been cancelled",
    ("DELETE", THREAD_ROUTE): "; the thread may have been deleted",
}


def _aftermath(call: Call[T]) -> str:
    """Say what an unusable reply may leave behind."""
    return _AFTERMATHS.get((call.method, call.route), "")


def _decoded(
    call: Call[T], reply: Reply, secrets: Iterable[str], *, verify: bool
) -> tuple[ResponseErrorKind | None, str | None, dict[str, object]]:
    """Return a reply's JSON object, or the kind of its flaw and the decoder's message."""
    if reply.flaw is not None:
        return reply.flaw, None, {}
    if not reply.content.strip():
        return "empty", None, {}
    # The decoder's errors hold the document, with its secret: they end here.
    try:
        data = _codec.loads(reply.content)
    except RecursionError:
        return "too_deep", None, {}
    except UnicodeDecodeError as error:
        return "not_json", f"{error.reason} at byte {error.start}", {}
    except ValueError as error:
        return "not_json", clean_text(str(error), secrets), {}
    if not isinstance(data, dict):
        return "not_an_object", None, {}
    members = cast("dict[str, object]", data)
    if verify and not _is_reply_to(call, members):
        return "mismatched", None, {}
    return None, None, members


def _is_reply_to(call: Call[T], members: dict[str, object]) -> bool:
    """Return True unless a reply, or a member of its list, belongs to another request."""
    if not _is_of_kind(members, call.result):
        return False
    about = [members]
    # mypy takes the hash of a class for that of its objects, here and below.
    if (listed := member_class(call.result)) is not None:  # type: ignore[arg-type]
        data = members.get("data")
        about = (
            [_members(each) for each in cast("list[object]", data)]
            if isinstance(data, list)
            else []
        )
        if not all(_is_of_kind(each, listed) for each in about):
            return False
    return call.subject is None or all(_is_about(each, *call.subject) for each in about)


_OBJECTS = {
    "chatkit.session",
    "chatkit.thread",
    "chatkit.thread.deleted",
    "chatkit.thread_item",
    "list",
}
"""The values of `object` in the API's replies, and in what they list."""


def _is_of_kind(members: Mapping[str, object], cls: type[ReplyObject]) -> bool:
    """Return True unless an object is one of the API's other kinds. An unknown kind will do."""
    found, promised = members.get("object"), promised_object(cls)  # type: ignore[arg-type]
    return found == promised or not isinstance(found, str) or found not in _OBJECTS


def _is_about(members: Mapping[str, object], field: str, sent: str) -> bool:
    """Return True unless a reply's field names something other than what was sent.

    The service may have changed case, width and whitespace, or have left the field out.
    """
    found = members.get(field)
    return found == sent or not isinstance(found, str) or _normal(found) == _normal(sent)


def _normal(text: str) -> str:
    return " ".join(normalize("NFKC", normalize("NFKC", text).casefold()).split())


def _status_error(call: Call[T], reply: Reply, secrets: Iterable[str]) -> APIStatusError:
    said, body = _error_body(reply, secrets)
    is_private = call.route.startswith(THREADS_ROUTE)
    if is_private:
        body = {"error": said} if said else None  # whatever else is in it may be a conversation
    headers: CIMultiDict[str] = CIMultiDict(
        (
            clean_text(name, secrets),
            clean_text(value, secrets) if _is_shown(name.lower(), is_private=is_private) else MASK,
        )
        for name, value in reply.headers.items()
    )
    return APIStatusError.of_status(reply.status)(
        _status_message(call, reply, said.get("message"), said.get("code"), headers),
        status_code=reply.status,
        headers=headers,
        body=body,
        code=said.get("code"),
        param=said.get("param"),
        type=said.get("type"),
        retry_after=retry_after(reply.headers),
        request_id=reply.clean_request_id(secrets),
    )


def _is_shown(header: str, *, is_private: bool) -> bool:
    """Return True if an error may show a header's value. Replies about threads are private."""
    return header in _PLAIN_HEADERS or (not is_private and header != "set-cookie")


_PLAIN_HEADERS = {
    "allow",
    "cf-ray",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "location",
    "openai-organization",
    "openai-processing-ms",
    "openai-version",
    "retry-after",
    "retry-after-ms",
    "server",
    "transfer-encoding",
    "via",
    "www-authenticate",
    "x-envoy-upstream-service-time",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-request-id",
    "x-should-retry",
}
"""Headers that say what happened to a request, and nothing of a conversation. A file's name, for
example, would be in `Content-Disposition`."""


def _members(value: object) -> dict[str, object]:
    """Return the members of a JSON object. Anything else has none."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _error_body(reply: Reply, secrets: Iterable[str]) -> tuple[dict[str, str], object]:
    """Return the API's texts by name, and the body as an error keeps it, both masked and cut."""
    # Masked before it is cut: nobody recognises half a secret.
    text = mask_text(reply.content.decode("utf-8", "surrogateescape"), secrets)[:MAX_ERROR_BODY]
    try:
        body = _codec.loads(reply.content)
        error = _members(body).get("error")
        fields = {"message": error} if isinstance(error, str) else _members(error)
        said = {
            name: _line(mask_text(value, secrets))[:MAX_SAID]
            for name in ("message", "code", "param", "type")
            if isinstance(value := fields.get(name), str)
        }
        whole = len(reply.content) <= MAX_ERROR_BODY
        return said, mask_json(body, secrets) if whole else text
    except (ValueError, RecursionError):
        return {}, text


def _status_message(
    call: Call[T], reply: Reply, said: str | None, code: str | None, headers: Mapping[str, str]
) -> str:
    status = reply.status
    reason = (said or "").rstrip(" .") or _reason(status)
    message = f"the API replied {status} to {call.method} {call.route}: {reason}"
    hints = [_hint(call, status, code, headers)]
    may_be_withdrawn = call.route == CREATE_ROUTE and status in _MAYBE_WITHDRAWN
    if status == HTTPStatus.NOT_FOUND and is_invalid_url(reason):
        hints = ["Check base_url: it should end with /v1"]
        may_be_withdrawn = may_be_withdrawn and "/v1/" in reason
    if may_be_withdrawn:
        hints.append(WITHDRAWAL)
    return ". ".join([message, *filter(None, hints)])


def is_invalid_url(said: str) -> bool:
    """Return True if the API said that there is nothing at the path."""
    return "invalid url" in said.lower()


def _line(said: str) -> str:
    """Return the API's text on one line, its white space reduced to single spaces."""
    return printable(" ".join(said.split()))


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no reason given"


_MAYBE_WITHDRAWN = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE}


def _hint(call: Call[T], status: int, code: str | None, headers: Mapping[str, str]) -> str:
    """Return advice about a status."""
    if code == "insufficient_quota":
        return "The project's quota is used up: see its billing page; trying again will not help"
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return "Check OPENAI_API_KEY or api_key: it is missing, wrong or revoked"
        case HTTPStatus.FORBIDDEN:
            return "The key may not do this: check its permissions and its project"
        case HTTPStatus.NOT_FOUND if call.route == CREATE_ROUTE:
            return (
                "Check the workflow's id; the usual cause is a workflow that belongs to another "
                "project than the key"
            )
        case HTTPStatus.NOT_FOUND if call.route == CANCEL_ROUTE:
            return "Check the session's id; it must come from the same project as the key"
        case HTTPStatus.NOT_FOUND if "{thread_id}" in call.route:
            return "Check the thread's id; it must come from the same project as the key"
        case HTTPStatus.TOO_MANY_REQUESTS:
            return "Too many requests for the project's rate limit: send fewer at a time"
        case HTTPStatus.NOT_MODIFIED:
            return (
                "Only a request with a condition is answered like this: check default_headers and "
                "extra_headers, and what is between you and the API"
            )
        case _ if 300 <= status < 400:  # noqa: PLR2004 - an HTTP status class
            target = _origin(headers.get("Location", ""))
            return (
                f"Redirects are not followed, as the key would go along (to {target}): correct "
                "base_url"
            )
        case _:
            return ""


def _origin(location: str) -> str:
    try:
        parts = urlsplit(location)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an invalid address"
    if not parts.hostname:
        return "the same host"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme or 'https'}://{host}{port}"


SHORTEST_WAIT = 0.001
"""Seconds of a wait that a server can ask for, at least."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the server asks to wait, or None.

    Zero, negative, less than a millisecond or junk counts as not asked: a client that obeyed would
    send thousands of requests per second to a server that refuses them.

    From `retry-after-ms`, else from `Retry-After`: seconds, or a date, which counts from the
    reply's own `Date` so that this machine's clock does not matter.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if isfinite(wait) and wait >= SHORTEST_WAIT:
            return wait
    until, now = http_date(headers.get("retry-after")), http_date(headers.get("date"))
    if until is None:
        return None
    wait = (until - (now or datetime.now(UTC))).total_seconds()
    return wait if wait >= SHORTEST_WAIT else None


def http_date(text: str | None) -> datetime | None:
    """Return the moment that a header such as `Date` names, or None."""
    try:
        date = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
