"""`doctor`."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys

import pytest
import trustme
from servers import http, replying, serve


def test_all_is_well_against_the_emulator(invoke, emulator):
    result = invoke("doctor")
    assert result.exit_code == 0
    assert result.stderr == ""
    states = [line.split()[:2] for line in result.stdout.splitlines() if line[0] != " "]
    assert {state for state, check in states if check != "browser:"} == {"ok"}
    assert "domain allow-list" in result.stdout
    assert emulator.api_key not in result.stdout
    assert not emulator.sessions


@pytest.mark.parametrize(
    ("fault", "exit_code", "said"),
    [
        ({}, 0, "ok       workflow: a session of wf_1 was created, and cancelled\n"),
        ({"status": 404}, 1, "failed   workflow: wf_1 was not found with this key\n"),
        ({"status": 400}, 1, "failed   workflow: the API replied 400"),
    ],
)
def test_workflow_is_tried_if_asked(invoke, emulator, fault, exit_code, said):
    if fault:
        emulator.fail(operation="create", **fault)
    result = invoke("doctor", "--workflow", "wf_1")
    assert result.exit_code == exit_code
    assert said in result.stdout
    assert [session.status for session in emulator.sessions.values()] == ["cancelled"] * (not fault)


def test_base_url_can_be_an_option(invoke, emulator, environment):
    environment.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    result = invoke("doctor", "--base-url", emulator.base_url)
    assert f"OPENAI_BASE_URL: {emulator.base_url} (--base-url)\n" in result.stdout
    assert result.exit_code == 0
    assert "(environment)" in invoke("doctor").stdout  # it counts for one command


def test_a_missing_key_is_4(invoke, emulator, environment):
    environment.delenv("OPENAI_API_KEY")
    result = invoke("doctor")
    assert result.exit_code == 4
    assert "failed   OPENAI_API_KEY: not set\n" in result.stdout
    assert "skipped  request: not made" in result.stdout


def test_a_refused_key_is_4(invoke, emulator):
    emulator.fail(status=401)
    assert invoke("doctor").exit_code == 4


def test_unreadable_threads_do_not_change_the_exit_code(invoke, emulator):
    message = "Invalid URL (GET /v1/chatkit/threads)"
    emulator.fail(operation="list_threads", status=404, body={"error": {"message": message}})
    result = invoke("doctor")
    assert "warning  threads: the server has no threads API at this base URL" in result.stdout
    assert result.exit_code == 0


def test_anything_else_that_fails_is_1(invoke, emulator):
    emulator.fail(status=500)
    assert invoke("doctor").exit_code == 1


def test_a_warning_leaves_the_exit_code_at_0(invoke, emulator, environment):
    environment.setenv("OPENAI_ORG_ID", "elsewhere")
    result = invoke("doctor")
    assert "warning  OPENAI_ORG_ID: elsewhere (environment)\n" in result.stdout
    assert "         Such an id begins with 'org-'" in result.stdout
    assert result.exit_code == 0


def test_an_organization_that_cannot_be_sent_is_a_finding_and_no_request_is_made(
    invoke, emulator, environment
):
    environment.setenv("OPENAI_ORG_ID", "org-\x01")
    result = invoke("doctor")
    assert result.exit_code == 1
    assert result.stderr == ""
    assert "failed   OPENAI_ORG_ID: has a control character" in result.stdout
    assert "failed   request: OPENAI_ORG_ID: has a control character" in result.stdout


def test_a_key_in_the_wrong_variable_is_not_shown(invoke, emulator, environment):
    environment.setenv("OPENAI_PROJECT_ID", "sk-0123456789abcdef")
    result = invoke("doctor")
    assert "0123456789abcdef" not in result.output
    assert "OPENAI_PROJECT_ID: ********** (environment)" in result.stdout


def test_json_is_an_object_per_finding(invoke, emulator):
    result = invoke("doctor", "--json")
    findings = [json.loads(line) for line in result.stdout.splitlines()]
    assert findings[0]["check"] == "versions"
    assert {tuple(finding) for finding in findings} == {("check", "state", "said", "advice")}
    assert {"OPENAI_API_KEY", "OPENAI_BASE_URL", "proxy", "request", "clock"} <= {
        finding["check"] for finding in findings
    }


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "soon"])
def test_a_timeout_that_cannot_be_is_wrong_usage(invoke, timeout):
    assert invoke("doctor", "--timeout", timeout).exit_code == 2


async def test_https_is_examined_to_the_end(environment, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    body = json.dumps({"error": {"message": "No such session", "type": "invalid_request_error"}})
    reply = http(body.encode(), "404 Not Found", x_request_id="req_1")
    async with serve(replying(reply), ssl=context) as server:
        environment.setenv("OPENAI_BASE_URL", server.base_url)
        environment.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
        # In a process of its own: aiohttp reads the trusted authorities when it is imported.
        environment.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chatkit_async", "doctor", stdout=asyncio.subprocess.PIPE
        )
        shown, _ = await process.communicate()
    assert process.returncode == 0, shown
    assert b"ok       TLS: TLSv1." in shown
    assert b"ok       request: the API accepted the key" in shown
