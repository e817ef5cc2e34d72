"""Fixtures for test suites of backends that create ChatKit sessions. pytest loads them as a plugin.

It imports nothing of the package before a test uses a fixture: suites that use none pay nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import parse_qsl

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chatkit_async import AsyncChatKit, ChatKit
    from chatkit_async.emulator import Emulator, Operation, Record

__all__ = [
    "AssertChatKitRequested",
    "assert_chatkit_requested",
    "async_chatkit",
    "chatkit",
    "chatkit_emulator",
    "chatkit_emulator_options",
]

MARKER = "chatkit_fault"

BACKOFF = 0.01
"""Seconds that the fixtures' clients wait at most before an attempt: tests should not."""

SHOWN = 300
"""Characters of a request's body, and of a value in it, that a failed assertion shows."""

NOTHING_CAME = (
    "the emulator was asked for nothing: was the client made when its module was imported?"
)
"""A client that was made before the test does not know the emulator."""

SHORT_FOR = {
    "workflow": "id",
    "expires_after": "seconds",
    "rate_limits": "max_requests_per_1_minute",
}
"""The field that `create` makes of a value that is not a mapping."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(**fault): let the ChatKit emulator fail in this test, as `Emulator.fail` says; "
        "the emulator is there without the fixture being asked for",
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give a test with the marker the emulator."""
    if item.get_closest_marker(MARKER) is not None:
        # First, so that the environment is set for what the test's other fixtures make; and a list
        # of its own, as the parameter sets of a test share theirs.
        names: list[str] = getattr(item, "fixturenames", [])
        item.fixturenames = ["chatkit_emulator", *names]  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue] - of a Function


@pytest.fixture
def chatkit_emulator_options() -> Mapping[str, object]:
    """The arguments of `chatkit_emulator`, such as `{"workflows": ["wf_123"]}`: override it."""
    return {}


@pytest.fixture
def chatkit_emulator(
    request: pytest.FixtureRequest, chatkit_emulator_options: Mapping[str, object]
) -> Iterator[Emulator]:
    """An emulator of the ChatKit sessions API, new for each test, on a thread of its own.

    The environment points at it: `OPENAI_BASE_URL` and `OPENAI_API_KEY` are its own, and
    `OPENAI_ORG_ID` and `OPENAI_PROJECT_ID` are unset. So a client that your code makes while the
    test runs gets there too, and a real key stays out of the test.

    Each `chatkit_fault` marker of the test becomes an `Emulator.fail`, from the module's to the
    class's to the test's, top to bottom.
    """
    from chatkit_async.emulator import Emulator  # noqa: PLC0415 - only its users pay for it

    options: dict[str, object] = dict(chatkit_emulator_options)
    with (
        Emulator(**options) as emulator,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - Emulator checks them
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("OPENAI_BASE_URL", emulator.base_url)
        environment.setenv("OPENAI_API_KEY", emulator.api_key)
        environment.delenv("OPENAI_ORG_ID", raising=False)
        environment.delenv("OPENAI_PROJECT_ID", raising=False)
        for marker in reversed([*request.node.iter_markers(MARKER)]):
            _script(emulator, marker)
        yield emulator


def _script(emulator: Emulator, marker: pytest.Mark) -> None:
    try:
        emulator.fail(*marker.args, **marker.kwargs)
    except (TypeError, ValueError) as error:
        given = [
            *map(repr, marker.args),
            *(f"{name}={value!r}" for name, value in marker.kwargs.items()),
        ]
        pytest.fail(f"{MARKER}({', '.join(given)}): {error.args[0]}", pytrace=False)


@pytest.fixture
def async_chatkit(chatkit_emulator: Emulator) -> Iterator[AsyncChatKit]:
    """An `AsyncChatKit` of the emulator, for a test on any event loop. It hardly waits to retry.

    This is a plain fixture: it needs no plugin for async fixtures, whichever runs the test.
    """
    import asyncio  # noqa: PLC0415 - only its users pay for it
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only its users pay for it

    from chatkit_async import AsyncChatKit, RetryPolicy  # noqa: PLC0415 - only its users pay for it

    client = AsyncChatKit(
        api_key=chatkit_emulator.api_key,
        base_url=chatkit_emulator.base_url,
        retry_policy=RetryPolicy(initial_backoff=BACKOFF, max_backoff=BACKOFF),
    )
    yield client
    # In another thread: this one's event loop is somebody else's affair.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(client.close())).result()


@pytest.fixture
def chatkit(chatkit_emulator: Emulator) -> Iterator[ChatKit]:
    """A `ChatKit` of the emulator. It hardly waits to retry."""
    from chatkit_async import ChatKit, RetryPolicy  # noqa: PLC0415 - only its users pay for it

    with ChatKit(
        api_key=chatkit_emulator.api_key,
        base_url=chatkit_emulator.base_url,
        retry_policy=RetryPolicy(initial_backoff=BACKOFF, max_backoff=BACKOFF),
    ) as client:
        yield client


class AssertChatKitRequested(Protocol):
    """The type of the fixture `assert_chatkit_requested`, for annotations."""

    def __call__(
        self,
        operation: Operation = "create",
        *,
        times: int | None = None,
        status: int | None = None,
        session_id: str | None = None,
        thread_id: str | None = None,
        **fields: object,
    ) -> list[Record]:
        """Assert that the emulator got such requests, and return their records.

        Args:
            operation: The operation.
            times: The number of such requests. None: at least one.
            status: The status that they were answered with. None: any.
            session_id: The session that they made or cancelled. None: any.
            thread_id: The thread in their path. None: any.
            **fields: What their bodies hold, among other things: of a mapping the keys that are
                given, and the short forms of `create`, such as `workflow="wf_123"`. For lists: what
                their queries hold, such as `user="ada"`.

        Raises:
            AssertionError: there were more or fewer; the message lists every request.
        """
        ...


@pytest.fixture
def assert_chatkit_requested(chatkit_emulator: Emulator) -> AssertChatKitRequested:
    """Assert what was requested, as in `assert_chatkit_requested(user="ada", times=1)`.

    See `AssertChatKitRequested`.
    """

    def assert_requested(
        operation: Operation = "create",
        *,
        times: int | None = None,
        status: int | None = None,
        session_id: str | None = None,
        thread_id: str | None = None,
        **fields: object,
    ) -> list[Record]:
        __tracebackhide__ = True
        about = {"status": status, "session_id": session_id, "thread_id": thread_id}
        wanted = {"operation": operation} | {k: v for k, v in about.items() if v is not None}
        differences = {
            record: [
                *_differences(wanted, {name: getattr(record, name) for name in wanted}),
                *(_differences(fields, _sent(record)) if record.operation == operation else ()),
            ]
            for record in chatkit_emulator.requests
        }
        found = [record for record, different in differences.items() if not different]
        if bool(found) if times is None else len(found) == times:
            return found
        sought = ", ".join(f"{name}={value!r}" for name, value in {**wanted, **fields}.items())
        number = "at least 1" if times is None else times
        of_all = f"{number} of {len(differences)} requests"
        lines = [f"expected {of_all} to have {sought}; found {len(found)}"]
        if not differences:
            lines.append(f"  {NOTHING_CAME}")
        for record, different in differences.items():
            lines.append(f"  {record.number}. {record}{_shown(record.body)}")
            lines += [f"     {difference}" for difference in different]
        raise AssertionError("\n".join(lines))

    return assert_requested


def _sent(record: Record) -> object:
    """Return the body of a request, or its query, with numbers as in Python."""
    if record.method != "GET":
        return record.body
    query = parse_qsl(record.query, keep_blank_values=True)
    return {name: int(value) if name == "limit" else value for name, value in query}


def _differences(wanted: Mapping[str, object], given: object, path: str = "") -> Iterator[str]:
    """Return what is missing or different, a line for each."""
    members = _members(given) or {}
    for name, value in wanted.items():
        where = f"{path}{name}"
        if name not in members:
            yield f"{where} is missing"
            continue
        found = members[name]
        if (inner := _members(value)) is not None:
            yield from _differences(inner, found, f"{where}.")
            continue
        if (inner := _members(found)) is not None and name in SHORT_FOR:
            found = inner.get(SHORT_FOR[name])
        if found != (value.total_seconds() if isinstance(value, timedelta) else value):
            yield f"{where} is {_cut(repr(found))}, not {value!r}"


def _members(value: object) -> Mapping[str, object] | None:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else None


def _shown(body: object) -> str:
    return "" if _members(body) is None else f" {_cut(json.dumps(body))}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
