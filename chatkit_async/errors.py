"""The exceptions.

::

    ChatKitError
    ├── ConfigurationError (ValueError)    a client cannot be made of these settings
    ├── ParameterError (ValueError)        a call cannot be made of these arguments
    ├── ClientClosedError (RuntimeError)   the client was closed before or during the call
    ├── APIError                           a call failed
    │   ├── APIConnectionError             no reply: DNS, refused, reset, TLS
    │   │   └── APITimeoutError            no reply in time
    │   ├── APIStatusError                 the API replied with an error
    │   │   ├── BadRequestError            400
    │   │   ├── AuthenticationError        401
    │   │   ├── PermissionDeniedError      403
    │   │   ├── NotFoundError              404
    │   │   ├── ConflictError              409
    │   │   ├── UnprocessableEntityError   422
    │   │   ├── RateLimitError             429
    │   │   └── InternalServerError        5xx
    │   └── APIResponseError               a 2xx reply without a usable body
    ├── ResponseValidationError            a reply is not what the API's schema promises
    ├── MissingFieldError (AttributeError) a promised field was read that the reply lacks
    └── InvalidFieldError (AttributeError) a field was read that has the wrong type

All of them pickle. None carries the API key, a client secret or a request header: what a lower
layer raised is kept as text in `APIError.cause`, never as an exception with its own attributes.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypedDict, Unpack

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ChatKitError",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "InternalServerError",
    "InvalidFieldError",
    "MissingFieldError",
    "NotFoundError",
    "ParameterError",
    "PermissionDeniedError",
    "RateLimitError",
    "ResponseValidationError",
    "UnprocessableEntityError",
]

ConnectionErrorKind: TypeAlias = Literal[
    "dns",
    "refused",
    "unreachable",
    "reset",
    "disconnected",
    "tls",
    "certificate",
    "proxy",
    "protocol",
    "timeout",
    "other",
]
TimeoutLimit: TypeAlias = Literal["timeout", "attempt_timeout", "connect_timeout"]
ResponseErrorKind: TypeAlias = Literal[
    "empty",
    "not_json",
    "not_an_object",
    "truncated",
    "too_large",
    "too_deep",
    "encoding",
    "mismatched",
    "page",
]
Problem: TypeAlias = tuple[str, str]


class ChatKitError(Exception):
    """The base of every exception of this package.

    Attributes:
        cursor: Where a list broke off: the id of its last item, for `list(after=cursor)`. None:
            before its first item, or this is no error of a list.
    """

    cursor: str | None = None


class _ProblemsError(ChatKitError, ValueError):
    """Several problems in one error: each a path and a sentence."""

    problems: tuple[Problem, ...]

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        lines = [f"{path}: {sentence}" for path, sentence in self.problems]
        if len(lines) == 1:
            return lines[0]
        return "\n  ".join([f"{len(lines)} problems:", *lines])


class ConfigurationError(_ProblemsError):
    """A client cannot be made of these settings.

    Attributes:
        problems: Every problem found: pairs of the setting's name and a sentence. A key that is
            refused is never part of it.
    """


class ParameterError(_ProblemsError):
    """A call cannot be made of these arguments. Nothing was sent.

    Attributes:
        problems: Every problem found: pairs of a field's path, such as
            `rate_limits.max_requests_per_1_minute`, and a sentence.
    """


class ClientClosedError(ChatKitError, RuntimeError):
    """The client was closed before this call, or during it.

    A session that a call ended this way was creating may exist; it expires on its own.
    """

    def __init__(self, message: str = "this client is closed: make a new one") -> None:
        super().__init__(message)


class _CallFacts(TypedDict, total=False):
    """The facts about a call that any `APIError` may have."""

    request_id: str | None
    attempts: int
    elapsed: float
    cause: str | None


class APIError(ChatKitError):
    """A call failed: the base of what the network and the API answer.

    Attributes:
        message: The description of the error, and what to do about it.
        request_id: The API's id for the last request (`x-request-id`), to quote to its support.
        attempts: The number of attempts.
        elapsed: Seconds from the start of the call to its failure, waits included.
        cause: The error of the layer below, as text: class, error number and message.
    """

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        attempts: int = 1,
        elapsed: float = 0.0,
        cause: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.attempts = attempts
        self.elapsed = elapsed
        self.cause = cause

    def _facts(self) -> list[str]:
        facts = [f"{self.attempts} attempt{'s' if self.attempts != 1 else ''}"]
        facts.append(f"{self.elapsed:.2f} s")
        if self.request_id is not None:
            facts.append(f"request id {self.request_id}")
        if self.cause is not None:
            facts.append(f"cause: {self.cause}")
        return facts

    def __str__(self) -> str:
        return f"{self.message} ({', '.join(self._facts())})"


class APIConnectionError(APIError):
    """No reply came: the host was not found, refused or reset the connection, or TLS failed.

    A session that the request was creating may exist; it expires on its own.

    Attributes:
        kind: The failure: `dns`, `refused`, `unreachable`, `reset`, `disconnected` (closed without
            a reply), `tls`, `certificate` (the server's is not trusted, or it wants one of the
            client), `proxy`, `protocol` (the reply was not HTTP), `timeout` or `other`.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: ConnectionErrorKind = "other",
        **facts: Unpack[_CallFacts],
    ) -> None:
        super().__init__(message, **facts)
        self.kind: ConnectionErrorKind = kind


class APITimeoutError(APIConnectionError):
    """No reply came in time.

    Attributes:
        limit: The limit that ran out: `timeout` (the whole call), `attempt_timeout` (the last
            attempt) or `connect_timeout` (its connection).
    """

    def __init__(
        self,
        message: str,
        *,
        limit: TimeoutLimit = "timeout",
        kind: ConnectionErrorKind = "timeout",
        **facts: Unpack[_CallFacts],
    ) -> None:
        super().__init__(message, kind=kind, **facts)
        self.limit: TimeoutLimit = limit


class APIStatusError(APIError):
    """The API replied with something other than success.

    Attributes:
        status_code: The HTTP status.
        headers: The reply's headers; names are case-insensitive. Of a reply about threads, the
            values of headers that could quote a conversation are masked.
        body: The reply's body: its JSON, or its text when it is none. Cut to 16 KiB; what looks
            like a secret is masked. Of a reply about threads, only the API's error is kept.
        code: The API's error code, such as `invalid_api_key`.
        param: The parameter that the API objects to.
        type: The API's error type, such as `invalid_request_error`.
        retry_after: Seconds the server asked to wait before another attempt.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int = 0,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's own name for it
        retry_after: float | None = None,
        **facts: Unpack[_CallFacts],
    ) -> None:
        super().__init__(message, **facts)
        self.status_code = status_code
        self.headers: Mapping[str, str] = {} if headers is None else headers
        self.body = body
        self.code = code
        self.param = param
        self.type = type
        self.retry_after = retry_after

    def _facts(self) -> list[str]:
        facts = super()._facts()
        if self.retry_after is not None:
            facts.append(f"asked to wait {self.retry_after:g} s")
        return facts

    @classmethod
    def of_status(cls, status_code: int) -> "type[APIStatusError]":
        """Return the class for an HTTP status."""
        if 500 <= status_code < 600:  # noqa: PLR2004 - an HTTP status class
            return InternalServerError
        return _BY_STATUS.get(status_code, APIStatusError)


class BadRequestError(APIStatusError):
    """400: the API objects to the request. `param` names the field."""


class AuthenticationError(APIStatusError):
    """401: the API key is missing, wrong or revoked."""


class PermissionDeniedError(APIStatusError):
    """403: the API key may not do this."""


class NotFoundError(APIStatusError):
    """404: no such workflow or session, for this key's project."""


class ConflictError(APIStatusError):
    """409: the resource is in a state that does not allow the request."""


class UnprocessableEntityError(APIStatusError):
    """422: the request was understood and refused."""


class RateLimitError(APIStatusError):
    """429: too many requests, or no quota left (`code == "insufficient_quota"`)."""


class InternalServerError(APIStatusError):
    """5xx: the API failed."""


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


class APIResponseError(APIError):
    """A 2xx reply without a usable body. A session may have been created. It expires on its own.

    Attributes:
        kind: The flaw of the body: `empty`, `not_json`, `not_an_object`, `truncated`,
            `too_large`, `too_deep`, `encoding` (a `Content-Encoding` that the client did not ask
            for and could not decode) or `mismatched` (the reply to another request: its `user` or
            `id` is not the one that was sent).
        status_code: The HTTP status.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: ResponseErrorKind = "not_json",
        status_code: int = 200,
        **facts: Unpack[_CallFacts],
    ) -> None:
        super().__init__(message, **facts)
        self.kind: ResponseErrorKind = kind
        self.status_code = status_code


class ResponseValidationError(ChatKitError):
    """A reply is not what the API's schema promises.

    Attributes:
        problems: Every problem found: pairs of a JSON path, such as `$.workflow.id`, and a
            sentence.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))
        self.problems: tuple[Problem, ...] = tuple(problems)

    def __str__(self) -> str:
        return "the reply does not fit the schema:\n  " + "\n  ".join(
            f"{path}: {sentence}" for path, sentence in self.problems
        )


class _FieldError(ChatKitError, AttributeError):
    """A field of a reply cannot be read."""

    def __init__(self, message: str, *, name: str = "") -> None:
        # Python fills in `name` and `obj` of an AttributeError that has neither; `obj` would be
        # the session, with its client secret.
        super().__init__(message, name=name, obj=None)

    def __reduce__(self) -> tuple[object, ...]:
        # Before Python 3.12 an AttributeError loses its name on the way.
        return type(self), self.args, {**self.__dict__, "name": self.name}


class MissingFieldError(_FieldError):
    """A field was read that the API's schema promises and the reply lacks."""


class InvalidFieldError(_FieldError):
    """A field was read whose value in the reply is not of the type the schema promises."""
