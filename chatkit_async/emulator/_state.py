"""The state of an emulator: all that a reset starts again."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from attrs import Factory, define, evolve, field

from chatkit_async.emulator._checks import check_number, choice
from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._fields import Fields
from chatkit_async.emulator._json import JSON, parse_json
from chatkit_async.emulator._latency import Latency, draw
from chatkit_async.emulator._ledger import Ledger
from chatkit_async.emulator._limits import Limiter, RateLimit
from chatkit_async.emulator._readers import move_clock, read_fault
from chatkit_async.emulator._schema import read_create
from chatkit_async.emulator._script import FaultScript
from chatkit_async.emulator._sessions import SessionStore
from chatkit_async.emulator._threads import DELETED_CURSORS, DeletedCursor, ThreadStore

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from attrs import Attribute

    from chatkit_async.emulator._clock import Clock
    from chatkit_async.emulator._faults import Fault

StateLine: TypeAlias = "tuple[str, JSON | bytes]"
"""A line of a state file: where it is, and its content."""

_KINDS = ("thread", "session", "fault", "clock")


def _limiter(limit: RateLimit | None) -> Limiter | None:
    return None if limit is None else Limiter(limit)


def _renew_limiter(
    settings: Settings, _: Attribute[RateLimit | None], limit: RateLimit | None
) -> RateLimit | None:
    settings.limiter = _limiter(limit)
    return limit


def _check_latency(_settings: object, _attribute: object, latency: Latency) -> None:
    if not callable(latency):
        check_number("latency", latency, 0)


@define(kw_only=True, eq=False)
class Settings:
    """The settings that can be changed while the emulator serves."""

    rate_limit: RateLimit | None = field(on_setattr=_renew_limiter)
    latency: Latency = field(validator=_check_latency)
    off_schema: bool
    retired: bool
    deleted_cursor: DeletedCursor = field(validator=choice(DELETED_CURSORS))
    limiter: Limiter | None = field(
        init=False, default=Factory(lambda self: _limiter(self.rate_limit), takes_self=True)
    )


def read_state(path: str | os.PathLike[str]) -> list[StateLine]:
    """Read a file of JSON lines. Empty lines are skipped."""
    lines = Path(path).read_bytes().splitlines()
    return [
        (f"{path}, line {number}", parse_json(line))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


class State:
    """Sessions, threads, requests, faults, settings, the clock, and what is drawn from the seed."""

    settings: Settings

    def __init__(
        self,
        *,
        clock: Clock,
        seed: int,
        settings: Settings,
        faults: Iterable[Fault],
        ledger_size: int,
        lines: Iterable[StateLine],
    ) -> None:
        self.clock = clock
        self.sessions = SessionStore(clock, seed)
        self.threads = ThreadStore(clock, seed)
        self.requests = Ledger(ledger_size)
        self.faults = FaultScript()
        self._seed = seed
        self._clock_at_start = clock.snapshot()
        self._settings_at_start = settings
        self._faults_at_start = tuple(faults)
        self._lines = tuple(lines)
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Start again, with another seed if one is given."""
        if seed is not None:
            self._seed = seed
        self._request_ids = Random(f"requests {self._seed}")  # noqa: S311 - repeatable on purpose
        self._latencies = Random(f"latencies {self._seed}")  # noqa: S311
        self.clock.restore(self._clock_at_start)
        self.sessions.reset(self._seed)
        self.threads.reset(self._seed)
        self.requests.reset()
        self.faults.reset(self._seed, self._faults_at_start)
        self.settings = evolve(self._settings_at_start)
        for where, content in self._lines:
            self._load(where, content)

    def new_request_id(self) -> str:
        """Return the id of a new request."""
        return f"req_{self._request_ids.getrandbits(128):032x}"

    def draw_latency(self) -> float:
        """Return the seconds that a reply takes."""
        return draw(self.settings.latency, self._latencies)

    def _load(self, where: str, content: JSON | bytes) -> None:
        try:
            top = Fields.of_body(content)
            kind = next((kind for kind in _KINDS if kind in top), "thread")
            fields = top.required_section(kind)
            match kind:
                case "thread":
                    self._load_thread(fields, top)
                case "session":
                    self._load_session(fields)
                case "fault":
                    self.faults.add(read_fault(fields))
                case _:
                    move_clock(fields, self.clock)
            top.refuse_unread()
        except ApiError as error:
            message = f"{where}: {error.message}"
            raise ValueError(message) from None

    def _load_thread(self, fields: Fields, top: Fields) -> None:
        """Create a thread, or add the items of another line of an export, which splits threads."""
        top.get("has_more", Fields.take, None)
        if top.get("part", Fields.whole, 1) == 1:
            self.threads.create(fields, beside=top)
            return
        items = top.take("items")
        thread = self.threads.get(fields.text("id"))
        if thread is None or not isinstance(items, list):
            raise ApiError(
                400, "This is a later part of a thread without a first one.", param="part"
            )
        for item in items:
            self.threads.create_item(thread, item)

    def _load_session(self, fields: Fields) -> None:
        session_id = fields.get("id", Fields.name, None)
        parameters, unknown = read_create(
            {name: fields.take(name) for name in fields if name != "id"}
        )
        if unknown:
            message = f"Unknown: {', '.join(map(repr, unknown))}."
            raise ApiError(400, message, param=unknown[0])
        self.sessions.create(parameters, organization=None, project=None, session_id=session_id)
