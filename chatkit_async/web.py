"""The answer of a backend to a browser that asks for a client secret, in any web framework.

`ClientSecretEndpoint` is for async views, `BlockingClientSecretEndpoint` for the others. Both take
plain values and return plain values, so that a view is the login, one call, and a response.
"""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from http import HTTPStatus
from math import ceil, inf
from types import MappingProxyType
from typing import Any, TypeVar, Unpack, cast
from weakref import WeakValueDictionary

import attrs

from chatkit_async import _codec, _protocol
from chatkit_async._checks import Checks
from chatkit_async._transport import running_loop
from chatkit_async.client import AsyncChatKit
from chatkit_async.errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    ChatKitError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    InternalServerError,
    InvalidFieldError,
    RateLimitError,
)
from chatkit_async.models import (
    ChatKitConfigurationLike,
    ChatSession,
    ExpiresAfterLike,
    RateLimitsLike,
    SessionCreateParams,
    WorkflowLike,
)
from chatkit_async.options import RequestOptions, traceback_safe, traceback_safe_options
from chatkit_async.secret import Secret
from chatkit_async.sessions import APIResponse
from chatkit_async.sync import ChatKit, parts_of

__all__ = ["BlockingClientSecretEndpoint", "ClientSecretEndpoint", "ClientSecretResponse"]

_logger = logging.getLogger("chatkit_async")

MIN_TTL = 60.0
MAX_SECRETS = 10_000

LIFETIME = 600
"""Seconds that a session lives where `expires_after` does not say: the API's own default."""

FAILURE_TTL = 10.0
"""Seconds that a permanent failure is remembered, for each set of parameters."""

MAX_FAILURES = 10_000
"""Permanent failures that are remembered at a time."""

LOG_INTERVAL = 60.0
"""Seconds between two log lines about the same permanent failure."""

RETRY_AFTER = 5
"""Seconds to wait that a browser is told where the API names none."""

MAX_RETRY_AFTER = 3600
"""Seconds to wait that a browser is told at most."""

NOT_SIGNED_IN = "not_signed_in"
INVALID_REQUEST = "invalid_request"
RATE_LIMITED = "rate_limited"
UNAVAILABLE = "unavailable"
TIMEOUT = "timeout"
BAD_GATEWAY = "bad_gateway"

REFUSALS: Mapping[str, tuple[int, str]] = {
    NOT_SIGNED_IN: (401, "Sign in to use the chat."),
    INVALID_REQUEST: (400, "current_secret should be a string or null."),
    RATE_LIMITED: (503, "The chat is busy. Try again later."),
    UNAVAILABLE: (503, "The chat cannot be reached. Try again later."),
    TIMEOUT: (504, "The chat did not answer in time. Try again."),
    BAD_GATEWAY: (502, "The chat is out of order until its operator has acted."),
}
"""The status and the message of each refusal, by its code: all that a browser gets to see."""


def _length(body: bytes) -> str:
    return f"<{len(body)} bytes>"


@attrs.frozen(kw_only=True)
class ClientSecretResponse:
    """The answer to the browser: hand its three parts to the web framework as they are.

    A body with a secret is `{"client_secret": "...", "expires_at": 1735689600}`, `expires_at` in
    Unix seconds, or null where the API did not say. Any other is
    `{"error": {"code": "...", "message": "..."}}`.

    Attributes:
        status: The HTTP status: 200, 400, 401, 502, 503 or 504.
        headers: `Content-Type`, `Cache-Control: no-store`, and `Retry-After` with a 503.
        body: JSON in UTF-8. It may hold the client secret: never log it. The repr shows its
            length alone.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(hash=False)
    body: bytes = attrs.field(repr=_length)


class ClientSecretEndpoint:
    """The answer of an async backend to browsers that ask for a client secret.

    Make one beside the client, for the life of the application. In the view, find out who asks,
    then::

        response = await endpoint.handle(user=user_id, current_secret=current)

    and return the response's status, headers and body. Serve it to `POST` only.

    **Reuse.** One create is in progress per user and event loop, however often the browser asks
    meanwhile: all who ask share its outcome. When one of them is cancelled, as its browser has
    gone, the create goes on for the others; when nobody waits for it any more, it is cancelled. A
    secret that was issued is handed out again, to the same user for the same parameters only,
    while it has `min_ttl` seconds left, and not once a browser has sent it as `current_secret`
    there: parameters that change from one request to the next have secrets of their own.
    How long it has left is counted on this machine from the moment the reply came, and from what
    the reply itself says of the API's time: a clock that is wrong here does no harm.

    **Failures.** `handle` raises only for invalid arguments. A failure of the API or the network
    becomes a response that shows nothing of the key, the workflow or the API's reply:

    ====== =============== ======================================================================
    Status `error.code`    When
    ====== =============== ======================================================================
    401    not_signed_in   `user` is None or blank.
    400    invalid_request `current_secret` is neither a str nor None.
    503    rate_limited    The API's rate limit. `Retry-After` says when to ask again.
    503    unavailable     No connection, the API's own failure (5xx), or the client was closed.
                           `Retry-After` says when to ask again.
    504    timeout         No reply in time.
    502    bad_gateway     A failure that asking again does not fix: a key or a workflow that is
                           refused, no quota left, a bad certificate, a reply without a secret.
    ====== =============== ======================================================================

    A permanent failure (401, 403, 404, 410) is remembered for 10 seconds: until then, requests with
    the same parameters get the same response without another create.

    The error itself goes to the logger `chatkit_async`, once per create, and to `on_error`. Of
    failures that become a 502, one line is logged a minute, with the number of requests that failed
    in the same way since the line before.

    It may be used from several event loops and threads: they share the secrets that were issued,
    while a create in progress is shared within its loop only.

    Args:
        client: The client to create sessions with. It is not closed.
        workflow: The workflow to run, as in `create`.
        chatkit_configuration: As in `create`.
        expires_after: As in `create`.
        rate_limits: As in `create`.
        min_ttl: Seconds that a secret must have left to be handed out again, 0 or more. Where
            sessions live no longer than that, or with `math.inf`, none is handed out twice.
        max_secrets: The number of issued secrets to keep for that, 0 or more; the oldest go first,
            and those that have ended.
        on_error: Called once with each error that became a 502, 503 or 504, by one of the requests
            that wait for the create. It should not block. What it raises, `handle` raises there.
        **options: Options of these calls that differ from the client's: see `RequestOptions`.

    Raises:
        ParameterError: the parameters of the session or the options are invalid.
        ConfigurationError: `min_ttl` or `max_secrets` is out of range.
        TypeError: the client is a blocking one.
    """

    def __init__(
        self,
        client: AsyncChatKit,
        *,
        workflow: WorkflowLike,
        chatkit_configuration: ChatKitConfigurationLike | None = None,
        expires_after: ExpiresAfterLike | None = None,
        rate_limits: RateLimitsLike | None = None,
        min_ttl: float = MIN_TTL,
        max_secrets: int = MAX_SECRETS,
        on_error: Callable[[ChatKitError], object] | None = None,
        **options: Unpack[RequestOptions],
    ) -> None:
        options = traceback_safe_options(options)
        _check_client(
            client, ChatKit, "an AsyncChatKit; BlockingClientSecretEndpoint takes a ChatKit"
        )
        given = {
            "workflow": workflow,
            "chatkit_configuration": chatkit_configuration,
            "expires_after": expires_after,
            "rate_limits": rate_limits,
        }
        self._core = _EndpointCore(
            client,
            given,
            options,
            min_ttl=min_ttl,
            max_secrets=max_secrets,
            on_error=on_error,
        )

    async def handle(
        self,
        *,
        user: str | None,
        current_secret: object = None,
        workflow: WorkflowLike | None = None,
        chatkit_configuration: ChatKitConfigurationLike | None = None,
        expires_after: ExpiresAfterLike | None = None,
        rate_limits: RateLimitsLike | None = None,
    ) -> ClientSecretResponse:
        """Answer a browser.

        Args:
            user: Your own id of the user who is signed in, as your login says, never as the
                browser does. None or blank: nobody is, which is a 401.
            current_secret: The secret that the browser has and no longer wants, as it sent it:
                anything. None or empty: it has none.
            workflow: Instead of the endpoint's own: to give this user's state variables along.
            chatkit_configuration: Instead of the endpoint's own, as a whole.
            expires_after: Instead of the endpoint's own.
            rate_limits: Instead of the endpoint's own.

        Raises:
            ParameterError: the parameters for this user are invalid. Nothing was sent.
            Exception: what your own `api_key` or `on_attempt` raised, to all who share the create,
                or what your `on_error` raised, to the one that called it.
        """
        current_secret = traceback_safe(current_secret)
        given = {
            "workflow": workflow,
            "chatkit_configuration": chatkit_configuration,
            "expires_after": expires_after,
            "rate_limits": rate_limits,
        }
        request = self._core.accept(user, current_secret, given)
        if isinstance(request, ClientSecretResponse):
            return request
        return self._core.respond(await self._core.create(request))


class BlockingClientSecretEndpoint:
    """The answer of a blocking backend to browsers: for Flask, Django and WSGI.

    Make one beside the client, for the life of the process; every thread may use it::

        response = endpoint.handle(user=user_id, current_secret=current)

    Everything is as in `ClientSecretEndpoint`: reuse, failures, arguments. One create is in progress
    per user and process; the threads that ask meanwhile wait for its outcome. Ctrl-C in one of them
    leaves the create to the others. It runs on the client's own thread; a secret that was issued is
    handed out again in the thread that asks, without waiting for any other.

    Args:
        client: The client to create sessions with. It is not closed.
        workflow: The workflow to run, as in `create`.
        chatkit_configuration: As in `create`.
        expires_after: As in `create`.
        rate_limits: As in `create`.
        min_ttl: Seconds that a secret must have left to be handed out again, 0 or more. Where
            sessions live no longer than that, or with `math.inf`, none is handed out twice.
        max_secrets: The number of issued secrets to keep for that, 0 or more; the oldest go first,
            and those that have ended.
        on_error: Called once with each error that became a 502, 503 or 504, by one of the requests
            that wait for the create. It should not block. What it raises, `handle` raises there.
        **options: Options of these calls that differ from the client's: see `RequestOptions`.

    Raises:
        ParameterError: the parameters of the session or the options are invalid.
        ConfigurationError: `min_ttl` or `max_secrets` is out of range.
        TypeError: the client is an async one.
    """

    def __init__(
        self,
        client: ChatKit,
        *,
        workflow: WorkflowLike,
        chatkit_configuration: ChatKitConfigurationLike | None = None,
        expires_after: ExpiresAfterLike | None = None,
        rate_limits: RateLimitsLike | None = None,
        min_ttl: float = MIN_TTL,
        max_secrets: int = MAX_SECRETS,
        on_error: Callable[[ChatKitError], object] | None = None,
        **options: Unpack[RequestOptions],
    ) -> None:
        options = traceback_safe_options(options)
        _check_client(client, AsyncChatKit, "a ChatKit; ClientSecretEndpoint takes an AsyncChatKit")
        given = {
            "workflow": workflow,
            "chatkit_configuration": chatkit_configuration,
            "expires_after": expires_after,
            "rate_limits": rate_limits,
        }
        async_client, loop_thread = parts_of(client)
        self._core = _EndpointCore(
            async_client,
            given,
            options,
            min_ttl=min_ttl,
            max_secrets=max_secrets,
            on_error=on_error,
        )
        self._loop_thread = loop_thread

    def handle(
        self,
        *,
        user: str | None,
        current_secret: object = None,
        workflow: WorkflowLike | None = None,
        chatkit_configuration: ChatKitConfigurationLike | None = None,
        expires_after: ExpiresAfterLike | None = None,
        rate_limits: RateLimitsLike | None = None,
    ) -> ClientSecretResponse:
        """Answer a browser.

        Args:
            user: Your own id of the user who is signed in, as your login says, never as the
                browser does. None or blank: nobody is, which is a 401.
            current_secret: The secret that the browser has and no longer wants, as it sent it:
                anything. None or empty: it has none.
            workflow: Instead of the endpoint's own: to give this user's state variables along.
            chatkit_configuration: Instead of the endpoint's own, as a whole.
            expires_after: Instead of the endpoint's own.
            rate_limits: Instead of the endpoint's own.

        Raises:
            ParameterError: the parameters for this user are invalid. Nothing was sent.
            Exception: what your own `api_key` or `on_attempt` raised, to all who share the create,
                or what your `on_error` raised, to the one that called it.
        """
        current_secret = traceback_safe(current_secret)
        given = {
            "workflow": workflow,
            "chatkit_configuration": chatkit_configuration,
            "expires_after": expires_after,
            "rate_limits": rate_limits,
        }
        request = self._core.accept(user, current_secret, given)
        if isinstance(request, ClientSecretResponse):
            return request
        try:
            outcome = self._loop_thread.run(self._core.create, request)
        except ChatKitError as error:  # the client is closed
            outcome = self._core.fail(request, error)
        return self._core.respond(outcome)


def _check_client(client: object, wrong: type[object], wanted: str) -> None:
    if isinstance(client, wrong):
        raise TypeError(f"the client is of type {type(client).__name__}: this takes {wanted}")


class _SharedCreate:
    """A create in progress on a loop, and how many wait for it there."""

    def __init__(self, work: "Coroutine[Any, Any, _Outcome]") -> None:
        self._task = asyncio.create_task(work)
        self._waiting = 0

    @property
    def can_be_joined(self) -> bool:
        """True if it has neither been given up nor ended.

        Whoever knows its secret may ask again before all who waited for it have gone on.
        """
        return self._waiting > 0 and not self._task.done()

    async def outcome(self) -> "_Outcome":
        self._waiting += 1
        try:
            # Cancelled itself, this does not cancel the task.
            await asyncio.wait([self._task])
        finally:
            self._waiting -= 1
            if not self._waiting:
                with suppress(RuntimeError):  # a loop that was closed under its tasks
                    self._task.cancel()
        return self._task.result()


# What both endpoints share ------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Request:
    """A request of a browser.

    Attributes:
        key: Stands for all parameters, the user among them: what was issued for a key fits the key.
        params: The parameters, checked.
        current: The secret that the browser no longer wants.
    """

    key: bytes
    params: SessionCreateParams
    current: Secret | None

    @property
    def lifetime(self) -> int:
        """Seconds that the session is to live."""
        expires_after = self.params.expires_after
        return LIFETIME if expires_after is None else cast("Any", expires_after).seconds

    def arguments(self) -> dict[str, Any]:
        """Return the parameters as `create` takes them."""
        return attrs.asdict(cast("Any", self.params), recurse=False)

    def refuses(self, secret: str) -> bool:
        """Return True if this is the secret that the browser no longer wants."""
        # Length is no secret, and a browser may have sent any amount of text.
        return (
            self.current is not None
            and len(self.current) == len(secret)
            and hmac.compare_digest(_raw(self.current), _raw(secret))
        )


@attrs.frozen
class _Outcome:
    """The outcome of a create, for all who wait for it.

    Attributes:
        response: The response; None: an exception that is no `ChatKitError` was raised.
        errors: The error that `on_error` has not been called with yet.
        exception: An exception from a callable of the user's.
    """

    response: ClientSecretResponse | None
    errors: Iterable[ChatKitError] = ()  # an iterator that all share gives an error once
    exception: BaseException | None = None


@attrs.define(kw_only=True, eq=False)
class _IssuedSecret:
    """A secret that was issued, the moment since which it is known, and its seconds from then.

    Attributes:
        is_unwanted: True if a browser has sent it back. Then it is not handed out any more.
    """

    response: ClientSecretResponse
    secret: Secret
    since: "_Moment"
    lifetime: float
    is_unwanted: bool = False


@attrs.frozen
class _Failure:
    """A permanent failure that is remembered."""

    response: ClientSecretResponse
    since: "_Moment"
    line: "_LogLine"


@attrs.define(eq=False)
class _LogLine:
    """A line that was logged about a failure, and the requests that failed alike since."""

    since: "_Moment"
    unlogged: int = 0


@attrs.frozen
class _Moment:
    """A moment on both clocks of this machine."""

    monotonic: float
    wall: float

    def until(self, later: "_Moment") -> float:
        """Seconds that passed: by the clock that says more, so that none is overlooked.

        The monotonic clock stands still while a machine sleeps or a container is frozen; the wall
        clock may be set back.
        """
        return max(later.monotonic - self.monotonic, later.wall - self.wall)


def _now() -> _Moment:
    return _Moment(time.monotonic(), time.time())


KeptT = TypeVar("KeptT")


class _EndpointCore:
    """Both endpoints: the decisions, the secrets that were issued, and the shared creates.

    A request takes three steps. `accept` checks it, and returns a response that is kept, if there
    is one. Otherwise `create` looks again, and then joins the create in progress for the same
    parameters, or starts one: at most one is in progress on an event loop. Each request that waits
    for it counts. The last one to give up cancels it, and a create that nobody waits for any more
    is not joined. Its result is kept before its task ends, so the next request finds the create or the result.
    `respond` returns the response to each that waited, and the first of them calls `on_error`.

    `accept` and `respond` run in the caller's thread, `create` on an event loop. The threads of a
    blocking endpoint hold no lock, and look up what is kept in single steps.
    """

    def __init__(
        self,
        client: AsyncChatKit,
        given: Mapping[str, object],
        options: RequestOptions,
        *,
        min_ttl: float,
        max_secrets: int,
        on_error: Callable[[ChatKitError], object] | None,
    ) -> None:
        found = Checks()
        if min_ttl != inf:  # which turns reuse off
            found.seconds("min_ttl", min_ttl, zero=True)
        found.whole("max_secrets", max_secrets, least=0)
        if found:
            raise ConfigurationError(found)
        # Invalid options raise when the application starts, not when the first user comes.
        _protocol.create_session({"user": "user", **given}, options)
        _protocol.warn_of_latest(given.get("workflow"))
        self.now = _now
        self.client = client
        self._given = given
        self._options = options
        self._min_ttl = min_ttl
        self._max_secrets = max_secrets
        self._on_error = on_error
        self._issued: dict[bytes, _IssuedSecret] = {}  # in the order of their coming
        self._failures: dict[bytes, _Failure] = {}
        self._lines: dict[str, _LogLine] = {}
        # Weak: a create is worth something as long as somebody waits for it.
        self._in_progress = WeakValueDictionary[
            tuple[asyncio.AbstractEventLoop, bytes], _SharedCreate
        ]()

    def accept(
        self, user: object, current: object, given: Mapping[str, object]
    ) -> _Request | ClientSecretResponse:
        """Check what is asked for: a request, or a response that needs no create.

        Raises:
            ParameterError: it cannot be right, and that is no browser's fault.
        """
        if user is None or (isinstance(user, str) and not user.strip()):
            return _refusal(NOT_SIGNED_IN)
        if current is not None and not isinstance(current, Secret):
            return _refusal(INVALID_REQUEST)
        own = {name: value for name, value in given.items() if value is not None}
        params = _codec.create_params({"user": user, **self._given, **own})
        _protocol.warn_of_latest(own.get("workflow"))
        key = sha256(_codec.encode(params, {})).digest()
        request = _Request(key=key, params=params, current=current)
        return self._find(request) or request

    async def create(self, request: _Request) -> _Outcome:
        """Create a session, or join the create that is in progress for the same parameters."""
        if (found := self._find(request)) is not None:  # since it was accepted
            return _Outcome(found)
        place = (running_loop(), request.key)
        shared = self._in_progress.get(place)
        if shared is None or not shared.can_be_joined:
            shared = self._in_progress[place] = _SharedCreate(self._create(request))
        return await shared.outcome()

    def respond(self, outcome: _Outcome) -> ClientSecretResponse:
        """Return the response, or raise the exception. The first to ask calls `on_error`."""
        if outcome.response is None:
            raise cast("BaseException", outcome.exception)
        if self._on_error is not None:
            for error in outcome.errors:
                self._on_error(error)
        return outcome.response

    def fail(self, request: _Request, error: ChatKitError) -> _Outcome:
        """Make a response of a failed create, log the error, and remember it if it is permanent."""
        code, now = _code(error), self.now()
        line = self._log(code, error, now)
        response = _refusal(code, getattr(error, "retry_after", None))
        if isinstance(error, APIStatusError) and error.status_code in _PERMANENT:
            self._failures.pop(request.key, None)  # the latest come last
            self._failures[request.key] = _Failure(response, now, line)
            _keep_latest(self._failures, MAX_FAILURES, self._is_remembered)
        return _Outcome(response, iter([error]))

    async def _create(self, request: _Request) -> _Outcome:
        try:
            reply = await self.client.sessions.with_raw_response.create(
                **request.arguments(), **self._options
            )
            issued = self._read(request, reply)
        except ChatKitError as error:
            return self.fail(request, error)
        except BaseException as error:  # noqa: BLE001 - raised by `respond`, for each who waits
            return _Outcome(None, exception=error)
        # Nothing is awaited from here to the task's end: whoever comes next finds the secret.
        self._issued.pop(request.key, None)  # the latest come last
        self._issued[request.key] = issued
        _keep_latest(self._issued, self._max_secrets, self._is_good)
        return _Outcome(issued.response)

    def _find(self, request: _Request) -> ClientSecretResponse | None:
        """Return a response that can be given again."""
        issued = self._issued.get(request.key)
        if issued is not None and self._is_good(issued):
            if not request.refuses(issued.secret):
                return issued.response
            issued.is_unwanted = True  # for everybody
        failure = self._failures.get(request.key)
        if failure is not None and self._is_remembered(failure):
            failure.line.unlogged += 1
            return failure.response
        return None

    def _is_good(self, issued: _IssuedSecret) -> bool:
        """Return True if a secret can be handed out again, and lives long enough for it."""
        left = issued.lifetime - issued.since.until(self.now())
        return not issued.is_unwanted and left >= self._min_ttl

    def _is_remembered(self, failure: _Failure) -> bool:
        return failure.since.until(self.now()) < FAILURE_TTL

    def _read(self, request: _Request, reply: APIResponse[ChatSession]) -> _IssuedSecret:
        """Make a response of the API's reply.

        Raises:
            MissingFieldError: there is no secret in it.
            InvalidFieldError: likewise.
        """
        session, now = reply.parse(), self.now()
        secret = session.client_secret
        if not secret:
            raise InvalidFieldError("'client_secret' of the API's reply is empty")
        expires_at: int | None = getattr(session, "expires_at", None)
        lifetime = 0.0
        if expires_at is not None:
            # Both by the API's clock. Where it does not tell the time, this machine's has to do.
            date = _protocol.http_date(reply.headers.get("Date"))
            then = now.wall if date is None else date.timestamp()
            lifetime = max(min(expires_at, then + request.lifetime), then) - then
        return _IssuedSecret(
            response=_response(200, {"client_secret": secret, "expires_at": expires_at}),
            secret=secret,
            since=now,
            lifetime=lifetime,
        )

    def _log(self, code: str, error: ChatKitError, now: _Moment) -> _LogLine:
        """Log a failure. One that only the operator can correct is logged once in a while."""
        if code != BAD_GATEWAY:
            _logger.warning("No client secret was issued (%s): %s", code, error)
            return _LogLine(now)
        kind = getattr(error, "message", str(error))  # the text of a status error has an id in it
        line = self._lines.get(kind)
        if line is not None and line.since.until(now) < LOG_INTERVAL:
            line.unlogged += 1
            return line
        line = self._lines.pop(kind, None) or _LogLine(now)
        again = ""
        if line.unlogged:
            again = f"; {line.unlogged} more requests failed in the same way since the last line"
        _logger.error("No client secret was issued (%s): %s%s", code, error, again)
        line.since, line.unlogged = now, 0
        self._lines[kind] = line  # the latest come last
        _keep_latest(self._lines, MAX_FAILURES, lambda _: True)
        return line


def _keep_latest(kept: dict[Any, KeptT], most: int, is_good: Callable[[KeptT], bool]) -> None:
    """Drop the oldest of what is kept, down to a number, and those that are good no more."""
    # A loop in another thread may change it meanwhile; then it also drops the rest.
    with suppress(StopIteration, RuntimeError):
        while True:
            key, oldest = next(iter(kept.items()))
            if len(kept) <= most and is_good(oldest):
                return
            kept.pop(key, None)


_PERMANENT = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.GONE,
}
"""The statuses of failures that another create would meet too."""


def _code(error: ChatKitError) -> str:
    """Return the code of a failed create, as the browser gets it."""
    match error:
        case APITimeoutError() | APIStatusError(status_code=HTTPStatus.REQUEST_TIMEOUT):
            return TIMEOUT
        case APIConnectionError(kind="certificate") | RateLimitError(code="insufficient_quota"):
            return BAD_GATEWAY
        case RateLimitError():
            return RATE_LIMITED
        case (
            APIConnectionError()
            | APIResponseError(kind="truncated" | "mismatched")
            | ClientClosedError()
            | ConflictError()
            | InternalServerError()
        ):
            return UNAVAILABLE
        case _:
            return BAD_GATEWAY


def _refusal(code: str, retry_after: float | None = None) -> ClientSecretResponse:
    status, message = REFUSALS[code]
    headers: dict[str, str] = {}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        wait = ceil(min(retry_after or RETRY_AFTER, MAX_RETRY_AFTER))
        headers["Retry-After"] = str(wait)
    return _response(status, {"error": {"code": code, "message": message}}, headers)


def _response(
    status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None
) -> ClientSecretResponse:
    always = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    # Read-only: those who share a create share its response.
    return ClientSecretResponse(
        status=status,
        headers=MappingProxyType(always | dict(headers or {})),
        body=json.dumps(body).encode(),
    )


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
