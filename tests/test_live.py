"""`nox -s live`, against the emulator and a server that replies as captures of the API do."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
import sys
import urllib.parse

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from live.__main__ import main
from live.comparison import Masked
from live.steps import STEPS, Reply

from chatkit_async.emulator import Emulator

KEY = "sk-made-up-3f9c1d7a5e"
WORKFLOW = f"wf_{'6' * 48}"
PRIVATE = "Bananenbrot"
"""Stands wherever a reply holds what a person wrote."""


@pytest.fixture
def environment(monkeypatch):
    """Point the environment's settings at a base URL."""

    def point(base_url, **other):
        for name in list(os.environ):
            if name.startswith("OPENAI_") or name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        values = {"OPENAI_API_KEY": KEY, "CHATKIT_WORKFLOW": WORKFLOW, "OPENAI_BASE_URL": base_url}
        for name, value in (values | other).items():
            monkeypatch.setenv(name, value)

    return point


@pytest.fixture
def output(tmp_path):
    return tmp_path / "build" / "live.md"


@pytest.mark.parametrize("missing", ["OPENAI_API_KEY", "CHATKIT_WORKFLOW"])
@pytest.mark.parametrize("value", ["", "  "])
def test_live_needs_key_and_workflow(missing, value, environment, output, capsys):
    with Emulator() as emulator:
        environment(emulator.base_url, **{missing: value})

        assert main(["--output", str(output)]) == 2

        assert not emulator.requests
    assert capsys.readouterr().err == "Set OPENAI_API_KEY and CHATKIT_WORKFLOW first.\n"
    assert not output.exists()


def test_live_refuses_wrong_settings(environment, output, capsys):
    environment("http://api.example/v1")

    assert main(["--output", str(output)]) == 2

    assert "OPENAI_BASE_URL" in capsys.readouterr().err
    assert not output.exists()


def test_live_compares_with_the_emulator(environment, output, capsys):
    with Emulator(workflows=[WORKFLOW]) as emulator:
        environment(emulator.base_url)

        assert main(["--output", str(output)]) == 0
        summary = capsys.readouterr().out
        text = output.read_text()
        assert main(["--output", str(output)]) == 2

        assert [session.status for session in emulator.sessions.values()] == ["cancelled"]
    count = len(STEPS)
    assert summary == f"{count} of {count} replies agree. Read {output} before you share it.\n"
    assert "\n| ! |" not in text
    assert KEY not in text
    assert "already exists" in capsys.readouterr().err
    assert output.read_text() == text
    if sys.platform != "win32":
        assert stat.S_IMODE(output.stat().st_mode) == 0o600


def test_live_deletes_nothing():
    assert {step.method for step in STEPS} == {"GET", "POST"}
    posts = {step.path.partition("{")[0] for step in STEPS if step.method == "POST"}
    assert posts == {"/chatkit/sessions", "/chatkit/sessions/"}


async def test_live_masks_captured_replies(environment, output):
    api = Captured()
    async with TestServer(api.app) as server:
        environment(
            str(server.make_url("/v1")),
            OPENAI_ORG_ID="org-made-up",
            OPENAI_PROJECT_ID="proj_x1y2z3",
        )
        deleted = api.id("cthr", 99)
        code = await asyncio.to_thread(main, ["--output", str(output), "--deleted-thread", deleted])

    assert code == 0
    assert api.methods == {"GET", "POST"}
    assert [session["status"] for session in api.sessions.values()] == ["cancelled"]
    text = output.read_text()
    private = [KEY, "made-up", WORKFLOW, "proj_x1", PRIVATE, "ada@", *api.ids]
    assert [value for value in private if value in text] == []
    session = live_cells(text, "Create a session")
    assert session["body.id"] == "(cksess_ and 48 hex digits, no. 1)"
    assert session["body.client_secret"] == "(ek_ and 87 characters, no. 1)"
    assert session["body.workflow.id"] == "(workflow as sent)"
    assert session["header set-cookie"] == "(present)"
    assert session["header openai-version"] == "2020-10-01"
    message = {
        "Cancel an unknown session": "Chatkit Session with id \u2018...\u2019 not found.",
        "Create with an unknown workflow": "Workflow with id '...' not found.",
        "Use the wrong method": "Invalid method for URL (GET /v1/chatkit/sessions)",
    }
    found = {title: live_cells(text, title)["body.error.message"] for title in message}
    assert found == message
    threads = live_cells(text, "List threads")
    assert threads["body.data[].id"].startswith("(cthr_ and 48 hex digits, no. 1) (cthr_")
    assert threads["body.data[].created_at"] == "(time, falling)"
    assert threads["body.data[].title"] == "(text) or null"
    items = live_cells(text, "List the items of a thread")
    kinds = "chatkit.client_tool_call or chatkit.task_group or chatkit.user_message"
    assert items["body.data[].type"] == kinds
    assert live_cells(text, "List 101 threads")["status"] == "400"


async def test_live_stops_when_nothing_is_learned(environment, output, capsys):
    async def refuse(_):
        return web.Response(status=401)

    app = web.Application()
    app.router.add_post("/v1/chatkit/sessions", refuse)
    async with TestServer(app) as server:
        environment(str(server.make_url("/v1")))
        assert await asyncio.to_thread(main, ["--output", str(output)]) == 1
        assert capsys.readouterr().err == "127.0.0.1: the API key was refused (401)\n"

    assert await asyncio.to_thread(main, ["--output", str(output)]) == 1
    assert capsys.readouterr().err == "127.0.0.1: no reply: ClientConnectorError\n"
    assert not output.exists()


def live_cells(text, title):
    """The live side of the table below a heading: names and cells."""
    lines = text.split(f"## {title}\n")[1].split("\n\n")[1].splitlines()[2:]
    cells = (line.split("|") for line in lines)
    return {name.strip(): live.strip() for _, _, name, live, *_ in cells}


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b"<html>Bananenbrot</html>", {"body": "(24 bytes, not JSON)"}),
        (b"[" * 100_000, {"body": "(100000 bytes, not JSON)"}),
        (b"{}", {"body": "empty object"}),
        (b'{"n": 7, "x": 1.5}', {"body.n": "(number)", "body.x": "(number)"}),
        (b'{"max_files": 7}', {"body.max_files": "7"}),
        (b'{"type": "a b"}', {"body.type": "(text)"}),
        (b'{"My name": 1}', {"body.(name)": "(number)"}),
        (b'{"state_variables": {"ada": 1}}', {"body.state_variables": "object"}),
        (b'[{"at": 1}, {"at": null}]', {"body[].at": "(number) or null"}),
        (b'[{"created_at": 1}, {"created_at": 1}]', {"body[].created_at": "(time, falling)"}),
        (b'[{"created_at": 1}, {"created_at": 2}]', {"body[].created_at": "(time, rising)"}),
        (
            b'[{"created_at": 1}, {"created_at": 2}, {"created_at": 0}]',
            {"body[].created_at": "(time, in no order)"},
        ),
        (
            b'{"error": {"message": "ada@example.com of org-1 can\'t: \'Ada\'s Bananenbrot\', sk-12"}}',
            {"body.error.message": "(masked) of (masked) can't: '...', (masked)"},
        ),
    ],
)
def test_reply_is_masked(body, rows):
    found = Masked({}).rows(Reply(200, {}, body))

    around = {"status", "body", "body[]", "body.error"}
    assert {name: found[name] for name in found.keys() - (around - rows.keys())} == rows


def test_ids_are_numbered():
    reply = Reply(200, {}, b'{"data": [{"id": "cthr_12345678"}, {"id": "cthr_87654321"}]}')
    masked = Masked({})

    rows = masked.rows(reply)

    assert [word for word in rows["body.data[].id"].split() if word.endswith(")")] == ["1)", "2)"]
    assert masked.rows(reply) == rows


CAPTURED_HEADERS = {
    "openai-version": "2020-10-01",
    "openai-processing-ms": "211",
    "openai-organization": "made-up",
    "x-request-id": "req_0123456789abcdef",
    "x-envoy-upstream-service-time": "215",
    "cf-ray": "98c1f3-FRA",
    "cf-cache-status": "DYNAMIC",
    "alt-svc": 'h3=":443"; ma=86400',
    "strict-transport-security": "max-age=31536000",
    "set-cookie": "__cf_bm=made-up; path=/",
    f"x-echo-{KEY}": "1",
}


class Captured:
    """Replies with the ids, texts and headers that public recordings of the API show."""

    def __init__(self):
        self.ids = set()
        self.methods = set()
        self.sessions = {}
        self.threads = [
            {
                "id": self.id("cthr", number),
                "object": "chatkit.thread",
                "created_at": 1_760_000_000 - number,
                "title": PRIVATE if number else None,
                "status": {"type": "locked", "reason": f"{PRIVATE} is closed"},
                "user": "ada@example.com",
            }
            for number in range(3)
        ]
        self.app = web.Application(middlewares=[self._recorded])
        self.app.router.add_post("/v1/chatkit/sessions", self._create)
        self.app.router.add_get("/v1/chatkit/sessions", self._wrong_method)
        self.app.router.add_post("/v1/chatkit/sessions/{id}/cancel", self._cancel)
        self.app.router.add_get("/v1/chatkit/threads", self._list)
        self.app.router.add_get("/v1/chatkit/threads/{id}", self._retrieve)
        self.app.router.add_get("/v1/chatkit/threads/{id}/items", self._items)

    def id(self, prefix, number):
        made = f"{prefix}_68e7b5b9{number:040x}"
        self.ids.add(made)
        return made

    @web.middleware
    async def _recorded(self, request, handler):
        self.methods.add(request.method)
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        assert request.headers["OpenAI-Beta"] == "chatkit_beta=v1"
        response = await handler(request)
        response.headers.update(CAPTURED_HEADERS)
        return response

    def _error(self, status, message, param=None):
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
        return web.json_response({"error": error}, status=status)

    async def _create(self, request):
        wanted = await request.json()
        if wanted["workflow"]["id"] != WORKFLOW:
            return self._error(404, f"Workflow with id '{wanted['workflow']['id']}' not found.")
        session = self.id("cksess", len(self.sessions))
        end = base64.b64encode(json.dumps({"expires_at": 1760045715}).encode()).decode()
        self.ids.add(end)
        self.sessions[session] = {
            "id": session,
            "object": "chatkit.session",
            "client_secret": f"ek_{'7' * 48}_00{end}",
            "expires_at": 1_760_045_715,
            "status": "active",
            "user": wanted["user"],
            "workflow": {"id": WORKFLOW, "state_variables": {"name": PRIVATE}},
        }
        return web.json_response(self.sessions[session])

    async def _cancel(self, request):
        session = request.match_info["id"]
        if session not in self.sessions:
            return self._error(404, f"Chatkit Session with id \u2018{session}\u2019 not found.")
        self.sessions[session]["status"] = "cancelled"
        return web.json_response(self.sessions[session])

    async def _wrong_method(self, request):
        return self._error(405, f"Invalid method for URL ({request.method} {request.path})")

    async def _list(self, request):
        return self._page(request, self.threads)

    async def _retrieve(self, request):
        for thread in self.threads:
            if thread["id"] == request.match_info["id"]:
                return web.json_response(thread)
        return self._error(404, f"Thread with id '{request.match_info['id']}' not found.")

    async def _items(self, request):
        thread = request.match_info["id"]
        if thread not in {each["id"] for each in self.threads}:
            return self._error(404, f"Thread with id '{thread}' not found.")
        own = [
            {
                "type": "chatkit.user_message",
                "content": [{"type": "input_text", "text": f"{PRIVATE}, please"}],
                "attachments": [{"type": "image", "name": f"{PRIVATE}.png", "preview_url": None}],
            },
            {
                "type": "chatkit.client_tool_call",
                "name": PRIVATE,
                "arguments": json.dumps({"type": PRIVATE}),
                "output": json.dumps(PRIVATE),
                "status": "completed",
            },
            {
                "type": "chatkit.task_group",
                "tasks": [{"type": "thought", "heading": PRIVATE, "summary": None}],
            },
        ]
        items = [
            {
                "id": self.id("cti", number),
                "object": "chatkit.thread_item",
                "created_at": 1_760_000_000 - number,
                "thread_id": thread,
                **each,
            }
            for number, each in enumerate(own)
        ]
        return self._page(request, items)

    def _page(self, request, entries):
        query = dict(urllib.parse.parse_qsl(request.query_string))
        limit = int(query.get("limit", 20))
        if limit > 100:
            return self._error(400, f"Invalid 'limit': {limit} is above the maximum", "limit")
        if query.get("order") == "asc":
            entries = entries[::-1]
        ids = [entry["id"] for entry in entries]
        for name in ("after", "before"):
            if name in query and query[name] not in ids:
                return self._error(400, f"No thread '{query[name]}'", name)
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        stop = ids.index(query["before"]) if "before" in query else len(ids)
        data = entries[start:stop][:limit]
        return web.json_response(
            {
                "object": "list",
                "data": data,
                "first_id": data[0]["id"] if data else None,
                "last_id": data[-1]["id"] if data else None,
                "has_more": len(entries[start:stop]) > limit,
            }
        )
