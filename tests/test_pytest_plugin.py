"""The fixtures for other people's suites, in suites of other people."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import anyio.pytest_plugin
import pytest
import pytest_asyncio.plugin
from patience import PATIENCE

from chatkit_async import ChatKit, emulator, pytest_plugin

pytest_plugins = ["pytester"]

# Imported here, so that no suite is the first: what one is the first to import, pytester forgets
# after it, and there would be two of each class.
_IMPORTED = (ChatKit, emulator)

OPTIONS = ["--strict-markers", "-W", "error", "-p", "no:cacheprovider"]

APP = """
import os

from chatkit_async import APIError, AsyncChatKit, ChatKit


async def open_the_chat(client, user):
    session = await client.sessions.create(user=user, workflow="wf_123", expires_after=120)
    return session.client_secret


def open_it_blocking(user):
    with ChatKit() as client:
        return client.sessions.create(user=user, workflow="wf_123").client_secret
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """Runs the tests of another suite, with the plugins it names, warnings as errors."""
    # Theirs are not ours: what is installed here must not decide.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real-one")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-real-one")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    pytester.makepyfile(app=APP)
    monkeypatch.syspath_prepend(pytester.path)

    def run(code, *options, plugins=()):
        pytester.makepyfile(test_theirs="from app import *\n" + code)
        plugins = [pytest_plugin, *plugins]
        return pytester.runpytest_inprocess(*OPTIONS, *options, plugins=plugins)

    return run


def test_pytest_finds_the_plugin_by_itself():
    [found] = entry_points(group="pytest11", name="chatkit_async")

    assert found.load() is pytest_plugin


def test_the_plugin_itself_imports_nothing_of_the_package():
    program = """if True:
        import sys, pytest
        before = set(sys.modules)
        from chatkit_async import pytest_plugin
        print(*sorted(set(sys.modules) - before))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )

    ours = [name for name in done.stdout.split() if name.startswith("chatkit_async")]
    assert ours == ["chatkit_async", "chatkit_async.pytest_plugin"]


def test_a_blocking_test(suite):
    suite("""
def test_a_session(chatkit, chatkit_emulator):
    session = chatkit.sessions.create(user="ada", workflow="wf_123")
    assert list(chatkit_emulator.sessions) == [session.id]
""").assert_outcomes(passed=1)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_an_async_test_under_pytest_asyncio(suite, mode):
    suite(
        """
import pytest

@pytest.mark.asyncio
async def test_a_session(async_chatkit, chatkit_emulator):
    secret = await open_the_chat(async_chatkit, "ada")
    assert [each.client_secret for each in chatkit_emulator.sessions.values()] == [secret]

@pytest.mark.asyncio(loop_scope="module")
async def test_on_a_loop_that_goes_on(async_chatkit):
    assert await open_the_chat(async_chatkit, "ada")

@pytest.mark.asyncio(loop_scope="module")
async def test_on_the_same_loop(async_chatkit):
    assert await open_the_chat(async_chatkit, "ada")
""",
        f"--asyncio-mode={mode}",
        "-o",
        "asyncio_default_fixture_loop_scope=function",
        plugins=[pytest_asyncio.plugin],
    ).assert_outcomes(passed=3)


def test_an_async_test_under_anyio(suite):
    suite(
        """
import pytest

pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def secret(async_chatkit):
    return await open_the_chat(async_chatkit, "ada")

async def test_a_session(async_chatkit, secret, chatkit_emulator):
    assert await open_the_chat(async_chatkit, "ada")
    assert secret in [each.client_secret for each in chatkit_emulator.sessions.values()]
""",
        plugins=[anyio.pytest_plugin],
    ).assert_outcomes(passed=1)


def test_an_async_client_in_a_blocking_test(suite):
    suite("""
import asyncio

def test_on_several_loops(async_chatkit):
    for user in ("ada", "bob"):
        assert asyncio.run(open_the_chat(async_chatkit, user))

def test_on_a_loop_left_open(async_chatkit):
    global loop
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(open_the_chat(async_chatkit, "ada"))

def test_that_closes_it():
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()

def test_that_never_uses_it(async_chatkit):
    pass
""").assert_outcomes(passed=4)


@pytest.mark.unmeasured
def test_under_xdist(pytester, suite):
    pytester.makepyfile("""
import pytest

@pytest.mark.parametrize("number", range(4))
def test_each_has_an_emulator_of_its_own(number, chatkit, chatkit_emulator):
    chatkit.sessions.create(user="ada", workflow="wf_123")
    assert len(chatkit_emulator.requests) == 1
""")

    plugins = ["-p", "xdist.plugin", "-p", "chatkit_async.pytest_plugin"]
    result = pytester.runpytest_subprocess(*OPTIONS, *plugins, "-n1", timeout=PATIENCE)

    result.assert_outcomes(passed=4)


def test_a_client_that_the_code_makes_of_the_environment_gets_to_the_emulator(suite):
    suite(
        """
def test_a_session(chatkit_emulator):
    secret = open_it_blocking("ada")
    (session,) = chatkit_emulator.sessions.values()
    assert session.client_secret == secret
    assert "OpenAI-Organization" not in chatkit_emulator.requests[0].headers
    assert os.environ["OPENAI_API_KEY"] == chatkit_emulator.api_key

def test_the_environment_afterwards():
    assert os.environ["OPENAI_API_KEY"] == "sk-real-one"
    assert os.environ["OPENAI_ORG_ID"] == "org-real-one"
    assert "OPENAI_BASE_URL" not in os.environ

def test_their_own_patches_do_not_meet_the_emulators(chatkit_emulator, monkeypatch):
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj_theirs")
    monkeypatch.undo()
    assert open_it_blocking("ada")
""",
    ).assert_outcomes(passed=3)


def test_faults_come_from_markers_outside_in_and_top_down(suite):
    suite("""
import pytest

pytestmark = pytest.mark.chatkit_fault(status=500)

@pytest.mark.chatkit_fault(status=501)
class TestTheirs:
    @pytest.mark.chatkit_fault(status=502)
    @pytest.mark.chatkit_fault(status=503)
    def test_four_failures(self, chatkit, chatkit_emulator):
        client = chatkit.with_options(max_retries=4)
        client.sessions.create(user="ada", workflow="wf_123")
        assert [r.status for r in chatkit_emulator.requests] == [500, 501, 502, 503, 200]
""").assert_outcomes(passed=1)


def test_a_marked_test_has_the_emulator_whether_it_asks_for_it_or_not(suite):
    suite("""
import pytest
import unittest

@pytest.mark.chatkit_fault(status=404)
def test_a_failure():
    with pytest.raises(APIError):
        open_it_blocking("ada")

@pytest.mark.parametrize("url", [
    pytest.param("http", marks=pytest.mark.chatkit_fault(status=404)),
    None,
])
def test_only_the_marked_parameters(url):
    assert os.environ.get("OPENAI_BASE_URL", "None").startswith(str(url))

@pytest.fixture
def chat():
    with ChatKit() as client:
        yield client

@pytest.mark.chatkit_fault(status=404)
def test_a_fixture_that_finds_it(chat, chatkit_emulator):
    with pytest.raises(APIError):
        chat.sessions.create(user="ada", workflow="wf_123")
    assert len(chatkit_emulator.requests) == 1

@pytest.mark.chatkit_fault(status=404)
class TestTheirs(unittest.TestCase):
    def test_a_failure(self):
        with self.assertRaises(APIError):
            open_it_blocking("ada")
""").assert_outcomes(passed=5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("status=999", "chatkit_fault(status=999): "),
        (
            "drop='slowly'",
            "chatkit_fault(drop='slowly'): drop must be 'close' or 'reset', got 'slowly'",
        ),
        ("503", "chatkit_fault(503): *positional argument*"),
        ("colour='red'", "chatkit_fault(colour='red'): *'colour'*"),
        ("", "chatkit_fault(): a fault must do something*"),
    ],
)
def test_a_marker_that_makes_no_sense_is_told_by_what_it_says(suite, given, said):
    result = suite(f"""
import pytest

@pytest.mark.chatkit_fault({given})
def test_theirs(chatkit_emulator):
    pass
""")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(f"*{said}*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_a_marker_on_what_is_no_function_is_left_alone(suite, pytester):
    pytester.makeconftest("""
import pytest

class Item(pytest.Item):
    def runtest(self): pass

class File(pytest.File):
    def collect(self):
        item = Item.from_parent(self, name="theirs")
        item.add_marker(pytest.mark.chatkit_fault(status=503))
        return [item]

def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".theirs":
        return File.from_parent(parent, path=file_path)
""")
    pytester.makefile(".theirs", "")

    suite("").assert_outcomes(passed=1)


def test_the_emulator_is_made_as_the_suite_says(suite):
    suite("""
import pytest

@pytest.fixture
def chatkit_emulator_options():
    return {"workflows": ["wf_other"]}

def test_a_workflow_that_is_not_there(chatkit):
    with pytest.raises(APIError):
        chatkit.sessions.create(user="ada", workflow="wf_123")
""").assert_outcomes(passed=1)


@pytest.mark.parametrize("fixture", ["chatkit", "async_chatkit"])
def test_the_clients_hardly_wait_to_try_again(suite, fixture):
    suite(f"""
import asyncio
import inspect
import pytest

@pytest.mark.chatkit_fault(status=503, times=2)
def test_two_retries({fixture}):
    waits = []
    client = {fixture}.with_options(on_attempt=lambda attempt: waits.append(attempt.next_wait))
    created = client.sessions.create(user="ada", workflow="wf_123")
    if inspect.iscoroutine(created):
        asyncio.run(created)
    assert len(waits) == 3
    assert all(wait <= 0.01 for wait in waits[:2])
""").assert_outcomes(passed=1)


# The assertion ------------------------------------------------------------------------------------


def test_what_was_requested_can_be_asserted(suite):
    suite("""
from datetime import timedelta

def test_theirs(chatkit, assert_chatkit_requested):
    assert_chatkit_requested(times=0)
    session = chatkit.sessions.create(
        user="ada",
        workflow={"id": "wf_123", "state_variables": {"plan": "pro", "seats": 5}},
        expires_after=120,
        rate_limits=5,
    )
    chatkit.sessions.cancel(session.id)

    (record,) = assert_chatkit_requested(user="ada", times=1, status=200)
    assert record.body["user"] == "ada"
    assert_chatkit_requested(workflow="wf_123", expires_after=120, rate_limits=5)
    assert_chatkit_requested(expires_after=timedelta(minutes=2))
    assert_chatkit_requested(workflow={"state_variables": {"plan": "pro"}})
    assert_chatkit_requested(expires_after={"seconds": 120, "anchor": "created_at"})
    assert_chatkit_requested("create", session_id=session.id)
    assert_chatkit_requested("cancel", session_id=session.id, times=1)
    assert_chatkit_requested("cancel", session_id="cksess_other", times=0)
    assert_chatkit_requested(user="bob", times=0)
""").assert_outcomes(passed=1)


def test_requests_about_threads_can_be_asserted(suite):
    suite(
        """
from urllib.request import Request, urlopen

def test_theirs(chatkit_emulator, assert_chatkit_requested):
    def ask(path, method="GET"):
        headers = {
            "Authorization": f"Bearer {chatkit_emulator.api_key}",
            "OpenAI-Beta": "chatkit_beta=v1",
        }
        url = f"{chatkit_emulator.base_url}/chatkit/threads{path}"
        urlopen(Request(url, headers=headers, method=method)).close()

    thread = chatkit_emulator.add_thread(user="ada", title="Private", items=["user: Private"])
    ask("?user=ada&limit=5&order=asc")
    ask(f"/{thread.id}/items")
    ask(f"/{thread.id}", "DELETE")

    assert_chatkit_requested("list_threads", user="ada", limit=5, times=1)
    assert_chatkit_requested("list_threads", thread_id=thread.id, times=0)
    assert_chatkit_requested("list_items", thread_id=thread.id, times=1)
    assert_chatkit_requested("delete_thread", thread_id=thread.id, status=200, times=1)
    assert_chatkit_requested("retrieve_thread", times=0)
    with pytest.raises(AssertionError) as error:
        assert_chatkit_requested("list_threads", user="bob", limit=6)
    assert "user is 'ada', not 'bob'" in str(error.value)
    assert "limit is 5, not 6" in str(error.value)
    assert "Private" not in str(error.value)
""".replace("\nfrom", "\nimport pytest\nfrom", 1)
    ).assert_outcomes(passed=1)


def test_an_assertion_that_fails_says_what_was_requested(suite):
    result = suite("""
def test_theirs(chatkit, assert_chatkit_requested):
    chatkit.sessions.create(user="ada", workflow="wf_123")
    session = chatkit.sessions.create(user="b" * 1000, workflow={"id": "wf_123"})
    chatkit.sessions.cancel(session.id)

    assert_chatkit_requested(
        user="eve", workflow={"id": "wf_123", "state_variables": {"plan": "pro"}}, rate_limits=5
    )
""")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*assert_chatkit_requested(",
            "E*expected at least 1 of 3 requests to have operation='create', user='eve', *found 0",
            'E*  1. POST /v1/chatkit/sessions 200 req_* {"user": "ada", "workflow": *',
            "E*     user is 'ada', not 'eve'",
            "E*     workflow.state_variables is missing",
            "E*     rate_limits is missing",
            'E*  2. POST /v1/chatkit/sessions 200 req_* {"user": "bbb*bbb...',
            "E*     user is 'bbb*bbb..., not 'eve'",
            "E*  3. POST /v1/chatkit/sessions/cksess_*/cancel 200 req_*",
            "E*     operation is 'cancel', not 'create'",
        ]
    )
    result.stdout.no_fnmatch_line("*user is missing*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")
    result.stdout.no_fnmatch_line("*ek_*")


def test_too_many_requests_are_told_as_well(suite):
    result = suite("""
def test_theirs(chatkit, assert_chatkit_requested):
    chatkit.sessions.create(user="ada", workflow="wf_123")
    assert_chatkit_requested(times=0)
""")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines("E*expected 0 of 1 requests to have operation='create'; found 1")


def test_a_client_that_was_made_too_early_is_guessed_at(suite, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    result = suite("""
early = ChatKit(max_retries=0)

def test_theirs(assert_chatkit_requested):
    with early:
        try:
            early.sessions.create(user="ada", workflow="wf_123")
        except APIError:
            pass
    assert_chatkit_requested(user="ada")
""")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E*at least 1 of 0 requests to have *found 0", "E*made when its module was imported[?]"]
    )


def test_the_marker_and_the_fixtures_are_documented(suite):
    result = suite("", "--markers")
    result.stdout.fnmatch_lines("@pytest.mark.chatkit_fault(*fault):*")

    result = suite("", "--fixtures")
    for name in ("chatkit_emulator", "async_chatkit", "chatkit", "assert_chatkit_requested"):
        result.stdout.fnmatch_lines([f"{name}*", "    A*"])
