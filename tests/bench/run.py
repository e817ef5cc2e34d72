"""What the tasks share: which client, on which loop, and that it got what was sent."""

from __future__ import annotations

import asyncio

import server

UVLOOP = ", uvloop"
"""Ends the name of a peer that runs on uvloop."""


def client_of(peer: str) -> str:
    """Which client a peer is, whatever the loop."""
    return peer.removesuffix(UVLOOP)


def loop_of(peer: str) -> asyncio.Runner:
    """What runs a peer's coroutines."""
    if not peer.endswith(UVLOOP):
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def check(secret: str) -> None:
    """Refuse what the server did not send."""
    if secret != server.CLIENT_SECRET:
        raise AssertionError("the client returned something else than the server sent")
