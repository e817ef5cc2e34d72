"""A file of JSON lines with what an emulator holds from the start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._fields import JSON, Fields, parse_json
from chatkit_async.emulator._forms import move_clock, read_fault
from chatkit_async.emulator._schema import read_create

if TYPE_CHECKING:
    import os

    from chatkit_async.emulator._clock import Clock
    from chatkit_async.emulator._faults import FaultScript
    from chatkit_async.emulator._service import Service

_KINDS = ("thread", "session", "fault", "clock")


@frozen
class StateLine:
    """A line of the file."""

    where: str
    content: JSON | bytes = field(repr=False)

    def load(self, clock: Clock, service: Service, faults: FaultScript) -> None:
        """Let the emulator hold what the line says.

        Raises:
            ValueError: It is none of the four kinds; the message names the line.
        """
        try:
            top = Fields.of_body(self.content)
            kind = next((kind for kind in _KINDS if kind in top), "thread")
            fields = top.required_section(kind)
            if kind == "thread":
                _create_thread(fields, top, service)
            elif kind == "session":
                _create_session(fields, service)
            elif kind == "fault":
                faults.add(read_fault(fields))
            else:
                move_clock(fields, clock)
            top.refuse_unread()
        except ApiError as error:
            message = f"{self.where}: {error.message}"
            raise ValueError(message) from None


def read_state(path: str | os.PathLike[str]) -> tuple[StateLine, ...]:
    """Read the lines of a file. Empty lines are skipped.

    Raises:
        OSError: The file cannot be read.
    """
    lines = Path(path).read_bytes().splitlines()
    return tuple(
        StateLine(f"{path}, line {number}", parse_json(line))
        for number, line in enumerate(lines, 1)
        if line.strip()
    )


def _create_thread(fields: Fields, top: Fields, service: Service) -> None:
    """Create a thread, or add the items of a later line of an export, which has them in parts."""
    if "has_more" in top:
        top.take("has_more")
    if top.optional_whole("part", 1) == 1:
        service.threads.create(fields, beside=top)
        return
    items = top.take("items")
    thread = service.threads.get(fields.text("id"))
    if thread is None or not isinstance(items, list):
        raise ApiError(400, "There is no thread that this is another part of.", param="part")
    for item in items:
        service.threads.create_item(thread, item)


def _create_session(fields: Fields, service: Service) -> None:
    session_id = fields.optional_text("id", min_length=1)
    wanted = {name: fields.take(name) for name in fields if name != "id"}
    parameters, unknown = read_create(wanted)
    if unknown:
        message = f"Unknown: {', '.join(map(repr, unknown))}."
        raise ApiError(400, message, param=unknown[0])
    service.sessions.create(parameters, organization=None, project=None, session_id=session_id)
