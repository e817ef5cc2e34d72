"""An emulator at a time that stands still, and a plain HTTP client for it."""

from __future__ import annotations

import aiohttp
import pytest

from chatkit_async.emulator import Clock, Emulator

NOW = 1_800_000_000


@pytest.fixture
def clock():
    clock = Clock()
    clock.freeze()
    clock.set(NOW)
    return clock


@pytest.fixture
async def emulator(clock):
    async with Emulator(clock=clock) as emulator:
        yield emulator


@pytest.fixture
def headers():
    return {
        "Authorization": f"Bearer {Emulator.api_key}",
        "OpenAI-Beta": "chatkit_beta=v1",
    }


@pytest.fixture
async def http(emulator, headers):
    async with aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http:
        yield http


@pytest.fixture
def wanted():
    """The smallest body that creates a session."""
    return {"user": "user_123", "workflow": {"id": "wf_123"}}


@pytest.fixture
def create(http, wanted):
    """Create a session: returns the status and the decoded body."""

    async def create(body=wanted, **options):
        async with http.post("chatkit/sessions", json=body, **options) as response:
            return response.status, await response.json()

    return create


@pytest.fixture
def cancel(http):
    """Cancel a session: returns the status and the decoded body."""

    async def cancel(session_id, **options):
        async with http.post(f"chatkit/sessions/{session_id}/cancel", **options) as response:
            return response.status, await response.json()

    return cancel


@pytest.fixture
async def control(emulator):
    """Ask the control interface: returns the status and the decoded body."""
    async with aiohttp.ClientSession(f"{emulator.control_url}/") as http:

        async def control(method, path, json=None, **options):
            async with http.request(method, path, json=json, **options) as response:
                return response.status, await response.json()

        yield control
