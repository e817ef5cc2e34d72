from __future__ import annotations

import errno
import http.client
import json
import math
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from patience import PATIENCE

import chatkit_async.emulator
from chatkit_async.emulator import Emulator, Fault, TokenBucket, Uniform


@pytest.fixture
def create_blocking(headers, wanted):
    """Create a session without a loop: returns the status and the decoded body."""

    def create_blocking(emulator):
        url = urlsplit(emulator.base_url)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=PATIENCE)
        try:
            connection.request(
                "POST",
                f"{url.path}/chatkit/sessions",
                json.dumps(wanted),
                {**headers, "Content-Type": "application/json"},
            )
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    return create_blocking


@pytest.fixture
def create_at(headers, wanted):
    async def create_at(emulator):
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(f"{emulator.base_url}/chatkit/sessions", json=wanted) as response,
        ):
            return response.status, await response.json()

    return create_at


def test_it_imports_nothing_of_the_client_it_judges():
    for module in Path(chatkit_async.emulator.__file__).parent.glob("*.py"):
        for line in module.read_text(encoding="utf-8").splitlines():
            if line.lstrip().startswith(("import chatkit_async", "from chatkit_async")):
                assert "chatkit_async.emulator." in line or "._cancellation import" in line


def test_its_key_cannot_be_taken_for_a_real_one():
    assert Emulator.api_key == "sk-emulator-not-a-real-key"


async def test_it_serves_on_the_running_loop(create_at):
    threads = threading.active_count()
    async with Emulator() as emulator:
        status, body = await create_at(emulator)

        assert status == 200
        assert body["id"] in emulator.sessions
        assert threading.active_count() == threads


def test_it_serves_blocking_code_from_a_thread_that_ends_with_it(create_blocking):
    threads = threading.active_count()
    with Emulator() as emulator:
        status, body = create_blocking(emulator)

        assert status == 200
        assert body["id"] in emulator.sessions
        assert emulator.requests[-1].outcome == "sent"
    assert threading.active_count() == threads


async def test_its_thread_serves_inside_a_running_loop_too(create_at):
    with Emulator() as emulator:
        assert (await create_at(emulator))[0] == 200


async def test_several_serve_at_once_each_with_its_own_state(create_at):
    async with Emulator() as one, Emulator() as other:
        await create_at(one)

        assert one.base_url != other.base_url
        assert (len(one.sessions), len(other.sessions)) == (1, 0)


async def test_entered_again_it_goes_on_with_its_state_on_its_port(create_at):
    emulator = Emulator()
    async with emulator:
        await create_at(emulator)
        url = emulator.base_url
    assert emulator.base_url == url
    async with emulator:
        await create_at(emulator)
        assert emulator.base_url == url

    assert len(emulator.sessions) == 2
    assert emulator.requests.total == 2


def test_it_serves_on_the_port_it_was_given():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    with Emulator(port=port) as emulator:
        assert emulator.base_url == f"http://127.0.0.1:{port}/v1"


async def test_a_port_that_is_taken_is_an_error_it_recovers_from():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        emulator = Emulator(port=taken.getsockname()[1])
        with pytest.raises(OSError) as failure:
            async with emulator:
                raise NotImplementedError
    assert failure.value.errno == errno.EADDRINUSE

    async with emulator:
        assert emulator.connections == 0


def test_a_port_that_is_taken_is_an_error_in_the_callers_thread():
    threads = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        emulator = Emulator(port=taken.getsockname()[1])
        with pytest.raises(OSError) as failure, emulator:
            raise NotImplementedError
    assert failure.value.errno == errno.EADDRINUSE

    assert threading.active_count() == threads
    with emulator:
        assert emulator.connections == 0


async def test_it_does_not_serve_twice_at_once():
    async with Emulator() as emulator:
        with pytest.raises(RuntimeError, match="already serving"):
            await emulator.__aenter__()
        with pytest.raises(RuntimeError, match="already serving"):
            emulator.__enter__()
    with emulator, pytest.raises(RuntimeError, match="already serving"):
        await emulator.__aenter__()


async def test_leaving_what_was_not_entered_does_nothing():
    emulator = Emulator()

    await emulator.__aexit__(None, None, None)
    emulator.__exit__(None, None, None)

    assert emulator.connections == 0


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.2", "127.0.0.2"), ("::1", "[::1]"), ("localhost", "127.0.0.1")]
)
def test_it_may_have_any_loopback_address(host, shown):
    emulator = Emulator(host=host, port=8080)

    assert emulator.base_url == f"http://{shown}:8080/v1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org", ""])  # noqa: S104
def test_it_has_no_other_address(host):
    with pytest.raises(ValueError, match="must be a loopback address"):
        Emulator(host=host)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_refused(port):
    with pytest.raises(ValueError, match="from 0 to 65535"):
        Emulator(port=port)


def test_a_ledger_that_keeps_nothing_is_refused():
    with pytest.raises(ValueError, match="ledger_size"):
        Emulator(ledger_size=0)


@pytest.mark.parametrize("name", ["api_keys", "workflows"])
def test_a_str_for_a_collection_is_refused_and_not_echoed(name):
    with pytest.raises(TypeError, match=f"{name} must be a collection") as refusal:
        Emulator(**{name: "sk-secret"})

    assert "sk-secret" not in str(refusal.value)


def test_its_url_is_not_known_before_its_port_is():
    with pytest.raises(RuntimeError, match="enter it"):
        _ = Emulator().base_url


def test_its_repr_says_where_it_serves():
    assert repr(Emulator()) == "<Emulator not started>"
    assert repr(Emulator(port=8080)) == "<Emulator http://127.0.0.1:8080/v1>"


async def test_the_ledger_keeps_as_many_requests_as_it_was_told(create_at):
    async with Emulator(ledger_size=2) as emulator:
        for _ in range(3):
            await create_at(emulator)

    assert [record.number for record in emulator.requests] == [2, 3]


def test_another_thread_waits_for_what_happens(create_blocking):
    with Emulator() as emulator:
        creating = threading.Thread(target=create_blocking, args=[emulator])
        creating.start()
        emulator.wait_until(lambda: len(emulator.sessions) == 1)
        creating.join()


def test_a_wait_that_takes_too_long_says_what_was_requested(create_blocking):
    with Emulator() as emulator:
        create_blocking(emulator)
        with pytest.raises(TimeoutError, match=r"last requests: POST /v1/chatkit/sessions 200"):
            emulator.wait_until(lambda: False, timeout=0)


async def test_a_loop_cannot_wait_for_what_happens_on_another():
    with Emulator() as emulator, pytest.raises(RuntimeError, match=r"use wait_until\(\)"):
        await emulator.until(lambda: True)


def test_a_thread_ends_while_a_request_is_pending(create_blocking):
    with Emulator() as emulator:
        emulator.fail(delay=math.inf)
        failures = []

        def create():
            try:
                create_blocking(emulator)
            except http.client.RemoteDisconnected as failure:
                failures.append(failure)

        creating = threading.Thread(target=create)
        creating.start()
        emulator.wait_until(lambda: emulator.requests.total == 1)
    creating.join()

    assert len(failures) == 1


async def test_reset_it_is_as_it_was_made(clock, headers, wanted):
    def state(emulator):
        return (
            emulator.clock.now(),
            emulator.clock.frozen,
            emulator.rate_limit,
            emulator.latency,
            emulator.off_schema,
            emulator.retired,
            emulator.faults,
        )

    async def history(emulator):
        async with aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http:
            for _ in range(8):
                async with http.post("chatkit/sessions", json=wanted):
                    pass
        return (
            [session.client_secret for session in emulator.sessions.values()],
            [(record.number, record.request_id, record.status) for record in emulator.requests],
        )

    emulator = Emulator(
        clock=clock,
        rate_limit=TokenBucket(rate=1, burst=6),
        latency=Uniform(0, 0.001),
        faults=[Fault(status=503, chance=0.5), Fault(status=400, times=3)],
        seed=3,
    )
    at_start = state(emulator)
    async with emulator:
        first = await history(emulator)
        emulator.clock.advance(50)
        emulator.clock.resume()
        emulator.rate_limit = None
        emulator.latency = 0.0
        emulator.off_schema = True
        emulator.retired = True
        emulator.clear_faults()
        emulator.fail(status=500, times=None)
        await history(emulator)

        emulator.reset()

        assert not emulator.sessions
        assert emulator.requests.total == 0
        assert state(emulator) == at_start
        assert await history(emulator) == first
        emulator.reset(seed=4)
        other = await history(emulator)
        assert other != first
        emulator.reset()
        assert await history(emulator) == other
