"""The sessions API without its sockets: a request goes in, a reply comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from attrs import evolve

from chatkit_async.emulator._access import check_content_type
from chatkit_async.emulator._credentials import looks_real
from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._limits import Limiter, RateLimit, duration
from chatkit_async.emulator._replies import (
    Operation,
    Reply,
    off_schema,
    refusal,
    resource,
)
from chatkit_async.emulator._schema import read_create
from chatkit_async.emulator._state import SessionStore

if TYPE_CHECKING:
    from collections.abc import Collection

    from multidict import CIMultiDictProxy

    from chatkit_async.emulator._clock import Clock
    from chatkit_async.emulator._ledger import Record
    from chatkit_async.emulator._state import Session

_BETA = "chatkit_beta=v1"


def route(path: str) -> tuple[Operation | None, str | None]:
    """Return the operation behind a path as it came over the wire, and the session id in it.

    The path is split before it is decoded, once, so that an escaped slash stays in its segment.
    """
    match path.split("/"):
        case ["", "v1", "chatkit", "sessions"]:
            return "create", None
        case ["", "v1", "chatkit", "sessions", session_id, "cancel"]:
            return "cancel", unquote(session_id)
        case _:
            return None, None


class Service:
    """The rules of the sessions API over a store of sessions."""

    def __init__(
        self,
        *,
        clock: Clock,
        seed: int,
        api_keys: Collection[str] | None,
        workflows: Collection[str] | None,
        allow_real_keys: bool,
        rate_limit: RateLimit | None,
        off_schema: bool,
        retired: bool,
    ) -> None:
        self.sessions = SessionStore(clock, seed)
        self.limiter = None if rate_limit is None else Limiter(rate_limit)
        self.off_schema = off_schema
        self.retired = retired
        self._clock = clock
        self._allow_real_keys = allow_real_keys
        self._api_keys = None if api_keys is None else frozenset(api_keys)
        self._workflows = None if workflows is None else frozenset(workflows)

    def user_of(self, record: Record) -> str | None:
        """Return the user that a request is about, as far as it says."""
        if record.session_id is not None:
            session = self.sessions.get(record.session_id)
            return None if session is None else session.user
        user = record.body.get("user") if isinstance(record.body, dict) else None
        return user if isinstance(user, str) else None

    def answer(self, record: Record, headers: CIMultiDictProxy[str]) -> Reply:
        """Do what a request asks for, and note in its record what came to light.

        Args:
            record: The request.
            headers: Its headers as they came; the record's own are masked.
        """
        told: dict[str, str] = {}  # about the rate limit, in whatever reply to a request it counts
        try:
            self._find(record)
            self._count(self._authenticate(headers), told)
            self._check_beta(headers)
            if record.session_id is None:
                reply = self._create(record, headers)
            else:
                reply = self._cancel(record.session_id)
        except ApiError as error:
            reply = refusal(error)
        return evolve(reply, headers={**reply.headers, **told}) if told else reply

    def _find(self, record: Record) -> None:
        if record.operation is None:
            raise ApiError(404, f"Invalid URL ({record.method} {record.path})")
        if record.method != "POST":
            message = f"Not allowed to {record.method} on {record.path} (use POST)"
            raise ApiError(405, message, code="method_not_supported", headers={"Allow": "POST"})

    def _authenticate(self, headers: CIMultiDictProxy[str]) -> str:
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            message = "No API key: send it as 'Authorization: Bearer YOUR_KEY'."
            raise ApiError(401, message, code="invalid_api_key")
        if not self._allow_real_keys and looks_real(key):
            message = (
                "This looks like a real API key, which an emulator should never be sent: "
                "use a made-up one, or allow real keys where the emulator is started."
            )
            raise ApiError(401, message, code="real_api_key")
        if self._api_keys is not None and key not in self._api_keys:
            # The service echoes a masked key here; the emulator never shows any of it.
            raise ApiError(401, "The API key is not valid.", code="invalid_api_key")
        return key

    def _count(self, key: str, told: dict[str, str]) -> None:
        if self.limiter is None:
            return
        count, headers = self.limiter.count(key, self._clock.now())
        told.update(headers)
        if count.wait:
            message = (
                f"Rate limit reached for requests: Limit {count.limit}. "
                f"Please try again in {duration(count.wait)}."
            )
            raise ApiError(429, message, code="rate_limit_exceeded")

    def _check_beta(self, headers: CIMultiDictProxy[str]) -> None:
        beta = ",".join(headers.getall("OpenAI-Beta", []))
        if _BETA not in [feature.strip() for feature in beta.split(",")]:
            message = f"The ChatKit API is in beta: send the header 'OpenAI-Beta: {_BETA}'."
            raise ApiError(400, message, code="invalid_beta")

    def _create(self, record: Record, headers: CIMultiDictProxy[str]) -> Reply:
        if self.retired:
            message = (
                "Sessions can no longer be created, because hosted workflows have been retired."
            )
            raise ApiError(410, message, code="service_retired")
        check_content_type(headers)
        parameters, record.unknown_fields = read_create(record.body)
        if self._workflows is not None and parameters.workflow not in self._workflows:
            raise ApiError(404, f"Workflow with id '{parameters.workflow}' not found.")
        session = self.sessions.create(
            parameters,
            organization=headers.get("OpenAI-Organization"),
            project=headers.get("OpenAI-Project"),
            size=record.body_size,
        )
        record.session_id = session.id
        return self._told("create", session)

    def _cancel(self, session_id: str) -> Reply:
        session = self.sessions.get(session_id)
        if session is None:
            raise ApiError(404, f"Session with id '{session_id}' not found.", param="session_id")
        self.sessions.cancel(session)
        return self._told("cancel", session)

    def _told(self, operation: Operation, session: Session) -> Reply:
        body = off_schema(operation, session) if self.off_schema else resource(session)
        return Reply(body=body, session=session)
