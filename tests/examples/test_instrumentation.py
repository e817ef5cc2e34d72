"""Tracing tools see every attempt, and what they inject reaches the server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from patience import PATIENCE

from chatkit_async import AsyncChatKit, RetryPolicy

pytestmark = pytest.mark.unmeasured

PROGRAM = Path(__file__).with_name("instrumented.py")
BETA = "chatkit_beta=v1"
POLICY = RetryPolicy(initial_backoff=0.001, max_backoff=0.001)

TOOLS = {
    # Each with the header that it injects, and what its spans show of `OpenAI-Beta`.
    "opentelemetry": ("traceparent", BETA),
    "sentry": ("sentry-trace", None),
    "datadog": ("traceparent", BETA),
}
CALLS = ["create", "create_many", "blocking_create", "blocking_create_many"]


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_sees_every_attempt(tool, emulator):
    for call in CALLS:
        emulator.fail(status=503, user=call)

    done = subprocess.run(
        [sys.executable, PROGRAM, tool],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert list(seen) == CALLS
    header, beta = TOOLS[tool]
    for call, trace in seen.items():
        requests = [request for request in emulator.requests if request.user == call]
        # As (trace id, span id): it is the span of this attempt, below the caller's.
        injected = [ids_in(request.headers[header]) for request in requests]
        assert injected == [(trace["trace"], span) for span, _, _ in trace["spans"]]
        assert [status for _, status, _ in trace["spans"]] == [503, 200]
        assert {shown for _, _, shown in trace["spans"]} == {beta}


def ids_in(value):
    """The trace id and the span id in an injected header."""
    *_, trace, span, _ = value.split("-")
    return trace, span


START = ["on_request_start"]
NEW = ["on_connection_create_start", "on_connection_create_end"]
REUSED = ["on_connection_reuseconn"]
# Replies are read in chunks against a size limit, which aiohttp announces to nobody.
EXCHANGE = ["on_request_headers_sent", "on_request_chunk_sent", "on_request_end"]


async def test_trace_config_sees_every_attempt(emulator):
    emulator.fail(status=503, user="create")
    emulator.fail(status=503, user="create_many")
    config = aiohttp.TraceConfig()
    events, headers = [], []

    def listen(signal):
        async def listener(session, context, params):
            events.append(signal)

        getattr(config, signal).append(listener)

    async def inject(session, context, params):
        params.headers["traceparent"] = f"00-{len(headers):032x}-{1:016x}-01"
        headers.append(params.headers.copy())

    for signal in START + NEW + REUSED + EXCHANGE:
        listen(signal)
    config.on_request_start.append(inject)
    async with (
        aiohttp.ClientSession(trace_configs=[config]) as session,
        AsyncChatKit(http_session=session, retry_policy=POLICY) as client,
    ):
        await client.sessions.create(user="create", workflow="wf_123")
        await client.sessions.create_many(
            ["create_many"], defaults={"workflow": "wf_123"}
        ).results()

    assert events == [*START, *NEW, *EXCHANGE, *[*START, *REUSED, *EXCHANGE] * 3]
    assert [request.status for request in emulator.requests] == [503, 200] * 2
    for number, request in enumerate(emulator.requests):
        assert request.headers["traceparent"] == f"00-{number:032x}-{1:016x}-01"
        assert headers[number]["Authorization"] == f"Bearer {emulator.api_key}"
        for name in ("Content-Type", "OpenAI-Beta", "User-Agent"):
            assert headers[number][name] == request.headers[name]
