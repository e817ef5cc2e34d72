"""The sessions of an emulator."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterator, Mapping
from random import Random
from typing import Literal, TypeAlias

from attrs import define, field

from chatkit_async.emulator._clock import Clock
from chatkit_async.emulator._schema import CreateParameters

__all__ = ["Session", "SessionStatus"]

MAX_SESSIONS = 100_000
"""Sessions that are kept."""

MAX_SESSION_BYTES = 256 * 1024 * 1024
"""Bytes of the requests that created the kept sessions."""

_TIME_BITS = 0xFFFFFFFF  # the part of the time that an id begins with

SessionStatus: TypeAlias = Literal["active", "expired", "cancelled"]


def new_id(prefix: str, created_at: int, random: Random) -> str:
    """Return an id in the service's format: 48 hexadecimal digits, beginning with the time."""
    return f"{prefix}_{created_at & _TIME_BITS:08x}{random.getrandbits(160):040x}"


def _new_secret(expires_at: int, random: Random) -> str:
    expiry = base64.b64encode(f'{{"expires_at": {expires_at}}}'.encode()).decode()
    return f"ek_{random.getrandbits(192):048x}_00{expiry}"


@define(kw_only=True, eq=False)
class Session:
    """A session of the emulator. Times are whole Unix seconds."""

    id: str
    client_secret: str = field(repr=False)
    """The ephemeral secret; not in the repr."""
    created_at: int
    expires_at: int
    cancelled_at: int | None = None
    organization: str | None
    """The `OpenAI-Organization` header of the create."""
    project: str | None
    """The `OpenAI-Project` header of the create."""
    parameters: CreateParameters = field(repr=False)
    """The parameters of the create, with defaults filled in."""
    _clock: Clock = field(repr=False, alias="clock")

    @property
    def user(self) -> str:
        """The user that the session was created for."""
        return self.parameters.user

    @property
    def workflow(self) -> str:
        """The id of the session's workflow."""
        return self.parameters.workflow

    @property
    def status(self) -> SessionStatus:
        """The status by the emulator's clock."""
        if self.cancelled_at is not None:
            return "cancelled"
        return "active" if self._clock.now() < self.expires_at else "expired"


class SessionStore(Mapping[str, Session]):
    """The latest sessions by id, oldest first. Safe to read from any thread."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self._clock = clock
        self.reset(seed)

    def __repr__(self) -> str:
        return f"<{len(self)} sessions>"

    def __getitem__(self, session_id: str) -> Session:
        return self._sessions[session_id]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._sessions))  # a copy, because the serving thread may add to it

    def __len__(self) -> int:
        return len(self._sessions)

    def reset(self, seed: int) -> None:
        """Start again with a seed."""
        self._random = Random(f"sessions {seed}")  # noqa: S311 - repeatable on purpose
        self._sessions: dict[str, Session] = {}
        self._sizes: deque[int] = deque()
        self._size = 0

    def create(
        self,
        parameters: CreateParameters,
        *,
        organization: str | None,
        project: str | None,
        size: int = 0,
        session_id: str | None = None,
    ) -> Session:
        """Create a session, and forget the oldest ones beyond the bounds.

        Ids and secrets follow from the seed and the order of creation. `size` is the number of
        bytes of the request's body.
        """
        now = int(self._clock.now())
        expires_at = now + parameters.expires_in
        drawn = new_id("cksess", now, self._random)
        session = Session(
            id=drawn if session_id is None else session_id,
            client_secret=_new_secret(expires_at, self._random),
            created_at=now,
            expires_at=expires_at,
            organization=organization,
            project=project,
            parameters=parameters,
            clock=self._clock,
        )
        self._sessions[session.id] = session
        self._sizes.append(size)
        self._size += size
        while len(self) > MAX_SESSIONS or (self._size > MAX_SESSION_BYTES and len(self) > 1):
            del self._sessions[next(iter(self._sessions))]
            self._size -= self._sizes.popleft()
        return session

    def cancel(self, session: Session) -> None:
        """Cancel a session, unless it has ended already."""
        if session.status == "active":
            session.cancelled_at = int(self._clock.now())
