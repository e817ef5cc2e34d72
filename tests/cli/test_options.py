"""Options that several commands have."""

from __future__ import annotations

import logging

CREATE = ["create", "--user", "user_123", "--workflow", "wf_123"]


def test_debug_shows_each_attempt_and_no_secret(invoke, emulator):
    emulator.fail(status=503, headers={"retry-after-ms": "1"})
    result = invoke(*CREATE, "--debug")
    assert result.exit_code == 0
    attempts = [line for line in result.stderr.splitlines() if " chatkit_async: POST " in line]
    assert len(attempts) == 2
    assert "503" in attempts[0]
    assert "200" in attempts[1]
    assert emulator.api_key not in result.stderr
    assert "user_123" not in result.stderr


def test_debug_shows_where_a_defect_is(invoke, emulator, monkeypatch):
    def broken(coroutine):
        coroutine.close()
        raise RuntimeError("broken")

    monkeypatch.setattr("chatkit_async.cli._sessions.run", broken)
    assert "Traceback" not in invoke(*CREATE).stderr
    result = invoke(*CREATE, "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_debug_ends_with_its_command(invoke, emulator):
    logger = logging.getLogger("chatkit_async")
    before = logger.level, list(logger.handlers)
    invoke(*CREATE, "--debug")
    assert (logger.level, logger.handlers) == before


def test_timeout_limits_the_whole_call(invoke, emulator):
    emulator.fail(delay=float("inf"), times=None)
    result = invoke(*CREATE, "--timeout", "0.05")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no reply from 127.0.0.1 within timeout")


def test_a_timeout_that_cannot_be_is_wrong_usage(invoke, emulator):
    result = invoke(*CREATE, "--timeout", "nan")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: timeout: must be more than 0 seconds")
