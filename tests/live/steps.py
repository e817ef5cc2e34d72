"""The requests of a live run, and the replies to them as they came."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from urllib.parse import quote

import aiohttp
import attrs

SECONDS_PER_REPLY = 30


@attrs.frozen(eq=False)
class Step:
    """One request.

    Attributes:
        title: The heading in the report.
        method: GET or POST. No step deletes anything.
        path: The path and query below the base URL. `{name}` stands for an id.
        workflow: The name of the workflow id that the body of a create holds.
        gives: Ids that later steps need: their names, and where they are in the reply.
    """

    title: str
    method: str
    path: str
    workflow: str | None = None
    gives: Mapping[str, tuple[str | int, ...]] = attrs.field(factory=dict)

    @property
    def needs(self) -> set[str]:
        """The names of the ids in the path."""
        return set(re.findall(r"\{(\w+)\}", self.path))


STEPS = (
    Step("Create a session", "POST", "/chatkit/sessions", "workflow", {"session": ("id",)}),
    Step("Cancel that session", "POST", "/chatkit/sessions/{session}/cancel"),
    Step("Cancel it again", "POST", "/chatkit/sessions/{session}/cancel"),
    Step("Cancel an unknown session", "POST", "/chatkit/sessions/{unknown_session}/cancel"),
    Step(
        "Create with an unknown workflow",
        "POST",
        "/chatkit/sessions",
        "unknown_workflow",
        {"surprise": ("id",)},
    ),
    Step("Cancel that session, if there is one", "POST", "/chatkit/sessions/{surprise}/cancel"),
    Step("Use the wrong method", "GET", "/chatkit/sessions"),
    Step(
        "List threads",
        "GET",
        "/chatkit/threads",
        gives={"newest": ("data", 0, "id"), "oldest": ("data", -1, "id")},
    ),
    Step("List one thread", "GET", "/chatkit/threads?limit=1", gives={"last": ("data", -1, "id")}),
    Step("List the next thread", "GET", "/chatkit/threads?limit=1&after={last}"),
    Step("List no threads", "GET", "/chatkit/threads?limit=0"),
    Step("List 101 threads", "GET", "/chatkit/threads?limit=101"),
    Step("List threads, oldest first", "GET", "/chatkit/threads?limit=3&order=asc"),
    Step("List before, newest first", "GET", "/chatkit/threads?limit=3&order=desc&before={oldest}"),
    Step("List before, oldest first", "GET", "/chatkit/threads?limit=3&order=asc&before={newest}"),
    Step("List after a deleted thread", "GET", "/chatkit/threads?limit=1&after={deleted}"),
    Step("List before a deleted thread", "GET", "/chatkit/threads?limit=1&before={deleted}"),
    Step("Retrieve a thread", "GET", "/chatkit/threads/{newest}"),
    Step("Retrieve a deleted thread", "GET", "/chatkit/threads/{deleted}"),
    Step(
        "List the items of a thread",
        "GET",
        "/chatkit/threads/{newest}/items",
        gives={"item": ("data", -1, "id")},
    ),
    Step("List one item", "GET", "/chatkit/threads/{newest}/items?limit=1"),
    Step("List no items", "GET", "/chatkit/threads/{newest}/items?limit=0"),
    Step("List 101 items", "GET", "/chatkit/threads/{newest}/items?limit=101"),
    Step(
        "List items before the last",
        "GET",
        "/chatkit/threads/{newest}/items?limit=3&order=desc&before={item}",
    ),
    Step(
        "List items after an unknown item",
        "GET",
        "/chatkit/threads/{newest}/items?limit=1&after={unknown_item}",
    ),
    Step("List the items of a deleted thread", "GET", "/chatkit/threads/{deleted}/items"),
)


@attrs.frozen
class Reply:
    """A reply as it came."""

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)

    @property
    def json(self) -> object:
        """The decoded body; raises ValueError if it is not JSON."""
        return json.loads(self.body)


@attrs.frozen
class Api:
    """Where a run sends its requests, and with which ids."""

    base_url: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    workflow: str
    user: str
    deleted_thread: str | None = None
    proxy: str | None = attrs.field(default=None, repr=False)

    async def replies(self) -> dict[Step, Reply | str]:
        """Take the steps in order; a str says why a step has no reply.

        Raises:
            ConnectionError: The first request got no reply, or its key was refused.
        """
        known: dict[str, str] = {
            "workflow": self.workflow,
            "deleted": self.deleted_thread or made_up("cthr"),
            "unknown_workflow": made_up("wf"),
            "unknown_session": made_up("cksess"),
            "unknown_item": made_up("cti"),
        }
        found: dict[Step, Reply | str] = {}
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self.headers,
            timeout=aiohttp.ClientTimeout(total=SECONDS_PER_REPLY),
        ) as session:
            for step in STEPS:
                missing = sorted(step.needs - known.keys())
                if missing:
                    found[step] = f"not sent: no {missing[0]} id"
                    continue
                reply = found[step] = await self._send(session, step, known)
                if step is STEPS[0]:
                    _check_first(reply)
                for name, path in step.gives.items():
                    value = _at(reply, path)
                    if isinstance(value, str):
                        known[name] = value
        return found

    async def _send(
        self, session: aiohttp.ClientSession, step: Step, known: Mapping[str, str]
    ) -> Reply | str:
        ids = {name: quote(value, safe="") for name, value in known.items()}
        body = None
        if step.workflow is not None:
            body = {"user": self.user, "workflow": {"id": known[step.workflow]}}
        try:
            response = await session.request(
                step.method,
                self.base_url + step.path.format_map(ids),
                json=body,
                allow_redirects=False,
                proxy=self.proxy,
            )
            return Reply(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            # Its text can hold the request's headers.
            return f"no reply: {type(error).__name__}"


def made_up(prefix: str) -> str:
    """Return an id in the API's form that nothing has: a time of creation, then 40 hex digits."""
    return f"{prefix}_{int(time.time()):08x}{secrets.token_hex(20)}"


def _check_first(reply: Reply | str) -> None:
    if isinstance(reply, str):
        raise ConnectionError(reply)
    if reply.status == 401:
        message = "the API key was refused (401)"
        raise ConnectionError(message)


def _at(reply: Reply | str, path: tuple[str | int, ...]) -> object:
    """Return the value at a path of a reply's JSON, or None."""
    try:
        value = reply.json
        for part in path:
            value = value[part]
    except (AttributeError, ValueError, TypeError, LookupError, RecursionError):
        return None
    return value
