"""Faults of replies, and the requests that meet them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from attrs import evolve, field, frozen

from chatkit_async.emulator._checks import choice, number
from chatkit_async.emulator._json import JSON, encode_json
from chatkit_async.emulator._replies import (
    PAGE_FAULTS,
    SERVER_ERROR_MESSAGE,
    UNAUTHORIZED_HEADERS,
    PageFault,
    Reply,
    error_body,
)
from chatkit_async.emulator._routes import OPERATIONS, Operation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chatkit_async.emulator._request import Request

__all__ = ["Body", "Drop", "Fault"]

Body: TypeAlias = bytes | str | Mapping[str, object] | list[object]
Drop: TypeAlias = Literal["close", "reset"]

_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
_BODILESS = (204, 304)
_FRAMING = ("content-length", "transfer-encoding")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~\w-]+", re.ASCII)


def _names(headers: Mapping[str, str]) -> str:
    return repr(list(headers))  # their values may be keys


def _check_body(_fault: object, _attribute: object, body: Body | None) -> None:
    try:
        _encode(body or "")
    except (TypeError, ValueError, RecursionError) as error:
        message = f"body cannot be sent: {error}"
        raise ValueError(message) from None


@frozen(kw_only=True)
class Fault:
    """A fault of the reply to a request. `Emulator.fail` explains each field."""

    operation: Operation | None = field(default=None, validator=choice(OPERATIONS, optional=True))
    path: str | None = None
    user: str | None = None
    with_body: Mapping[str, JSON] = field(factory=dict[str, JSON])
    with_headers: Mapping[str, str] = field(factory=dict[str, str], repr=_names)
    times: int | None = field(default=None, validator=number(1, whole=True, optional=True))
    every: int = field(default=1, validator=number(1, whole=True))
    status: int | None = field(default=None, validator=number(200, 599, whole=True, optional=True))
    code: str | None = None
    headers: Mapping[str, str] = field(factory=dict[str, str])
    body: Body | None = field(default=None, repr=False, validator=_check_body)
    content_type: str | None = None
    delay: float = field(default=0.0, validator=number(0))
    drip: float = field(default=0.0, validator=number(0))
    drop: Drop | None = field(default=None, validator=choice(("close", "reset"), optional=True))
    cut: bool = False
    off_schema: bool = False
    page: PageFault | None = field(default=None, validator=choice(PAGE_FAULTS, optional=True))
    after: bool = False
    chance: float = field(default=1.0, validator=number(0, 1))

    def __attrs_post_init__(self) -> None:
        """Check that the fault does something, and that no two fields contradict each other."""
        for problem in self._problems():
            raise ValueError(problem)
        _check_headers(self.headers, self.content_type)

    def _problems(self) -> Iterator[str]:
        is_replaced = self._error_status is not None or self.body is not None
        is_changed = is_replaced or any(
            (self.status, self.content_type is not None, self.headers, self.drip, self.cut)
        )
        is_reshaped = self.off_schema or self.page is not None
        if self.drop is not None and (is_changed or is_reshaped):
            yield "drop leaves no reply: it can be combined with delay and after only"
        if self.code is not None and (self._error_status is None or self.body is not None):
            yield "code belongs to an error: it needs a status of 300 or more and no body"
        if is_reshaped and is_replaced:
            name = "off_schema" if self.off_schema else "page"
            yield f"{name} changes the usual reply: it cannot be combined with an error or a body"
        if self.off_schema and self.page is not None:
            yield "page and off_schema cannot be combined"
        if not (is_changed or is_reshaped or self.drop is not None or self.delay):
            yield "a fault must do something: set a status, delay, drop, cut or another field"
        if self.status in _BODILESS and (self.body or self.code or self.cut or self.drip):
            yield f"a {self.status} has no body: it cannot be combined with body, code, cut or drip"

    @property
    def spares_service(self) -> bool:
        """True if the request does not reach the service."""
        return not self.after and (
            self.drop is not None or self.body is not None or self._error_status is not None
        )

    def fits(self, request: Request, user: str | None) -> bool:
        """Return True if a request of a user is one that the fault is for."""
        return (
            self.operation in (None, request.operation)
            and self.user in (None, user)
            and (self.path is None or fnmatchcase(request.path, self.path))
            and all(_equal(_at(request.value, path), v) for path, v in self.with_body.items())
            and all(v in request.headers.getall(name, ()) for name, v in self.with_headers.items())
        )

    def bend(self, reply: Reply) -> Reply:
        """Return the reply that is sent instead of the service's."""
        body = reply.body
        usual: Mapping[str, str] = {}
        if self.body is not None:
            body = _encode(self.body)
        elif self._error_status is not None:
            code = self.code or _CODES.get(self._error_status)
            scripted = f"The emulator was told to answer {self._error_status}."
            message = SERVER_ERROR_MESSAGE if self._error_status == 500 else scripted  # noqa: PLR2004
            body = error_body(self._error_status, message, code=code)
            if self._error_status == 401:  # noqa: PLR2004
                usual = UNAUTHORIZED_HEADERS
        elif reply.shaped is not None and (self.off_schema or self.page is not None):
            body = reply.shaped("off_schema" if self.off_schema else self.page)
        headers = {**reply.headers, **usual, **self.headers}
        if self.content_type is not None:
            headers["Content-Type"] = self.content_type
        return evolve(
            reply,
            status=self.status or (200 if self.body is not None else reply.status),
            body=body,
            headers=headers,
        )

    @property
    def _error_status(self) -> int | None:
        """The status of an error or a redirect, neither of which has an effect."""
        return self.status if self.status is not None and self.status >= 300 else None  # noqa: PLR2004


def _check_headers(headers: Mapping[str, str], content_type: str | None) -> None:
    given = [*headers.items(), ("Content-Type", content_type or "")]
    for name, text in cast("list[tuple[object, object]]", given):
        if not (isinstance(name, str) and _HEADER_NAME.fullmatch(name)):
            message = f"header {name!r} must have the name of a header"
            raise ValueError(message)
        if not (isinstance(text, str) and text.isprintable()):
            # The value is not shown, because it may be a key.
            message = f"header {name!r} must be printable text"
            raise ValueError(message)
        if name.lower() in _FRAMING:
            message = (
                f"header {name!r} follows from the body; to promise more than is sent, set cut"
            )
            raise ValueError(message)


_ABSENT = object()


def _at(body: JSON | bytes, path: str) -> object:
    value: object = body
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def _equal(value: object, expected: JSON) -> bool:
    return type(value) is type(expected) and value == expected  # True is not 1


def _encode(body: Body) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else encode_json(body)
