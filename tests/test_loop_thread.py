"""The blocking client's life among threads, loops, signals, exits and forks."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import ctypes
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from patience import PATIENCE

from chatkit_async import ChatKit, ChatKitError, ClientClosedError, _loop_thread
from chatkit_async._loop_thread import LoopThread
from chatkit_async.emulator import Emulator

WANTED = {"user": "user_123", "workflow": "wf_123"}
KEY = "sk-" + "0123456789abcdef" * 2
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@pytest.fixture
def emulator():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def connect(emulator):
    """Makes clients of the emulator, and closes them."""
    with contextlib.ExitStack() as clients:

        def connect(**settings):
            settings = {"api_key": emulator.api_key, "base_url": emulator.base_url} | settings
            return clients.enter_context(ChatKit(**settings))

        yield connect


@pytest.fixture
def client(connect):
    return connect()


@contextlib.contextmanager
def warned_once(*, base_url):
    """Of the client, and of nothing that it holds."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [str(warning.message) for warning in caught] == [
        f"unclosed client ChatKit(base_url='{base_url}')"
    ]
    assert caught[0].category is ResourceWarning


def loop_threads():
    return [thread for thread in threading.enumerate() if thread.name == "chatkit-async"]


def collect_until_ended(thread):
    """Collect garbage until a thread ends; on a busy machine it may hold its last call for a while."""
    while thread.is_alive():
        gc.collect()
        thread.join(0.01)


class Script:
    """A program, in asyncio's debug mode, with a client for the emulator at hand."""

    PREAMBLE = """
        import logging, os, signal, sys, threading, warnings
        from chatkit_async import ChatKit

        warnings.simplefilter("default")
        os.environ["PYTHONASYNCIODEBUG"] = "1"

        # The debug mode logs each step that took 0.1 s, which on a busy machine any may.
        slow = lambda record: record.msg.startswith("Executing")
        logging.getLogger("asyncio").addFilter(lambda record: not slow(record))

        # Python 3.12 and later advise against what is tested here.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

        WANTED = {"user": "user_123", "workflow": "wf_123"}
        settings = {"api_key": "sk-any", "base_url": sys.argv[1]}

        def say(word):
            print(word, flush=True)
    """

    def __init__(self, programs, path, body, base_url):
        path.write_text(textwrap.dedent(self.PREAMBLE) + textwrap.dedent(body))
        self._process = programs.start(
            [path, base_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._limit = threading.Timer(PATIENCE, self._process.kill)
        self._limit.start()

    def hear(self):
        """The next line it prints; none when it has ended."""
        return self._process.stdout.readline().strip()

    def tell(self, line):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def interrupt(self, number=signal.SIGINT):
        self._process.send_signal(number)

    def end(self):
        """Its exit status, and what it wrote to stderr."""
        _, errors = self._process.communicate()
        return self._process.returncode, errors

    def kill(self):
        self._limit.cancel()
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def script(programs, tmp_path, emulator):
    """Starts programs that use the emulator."""
    started = []

    def script(body, *, host="127.0.0.1"):
        base_url = emulator.base_url.replace("127.0.0.1", host)
        started.append(Script(programs, tmp_path / f"script{len(started)}.py", body, base_url))
        return started[-1]

    yield script
    for one in started:
        one.kill()


# Threads and loops


async def test_a_call_inside_a_running_loop(client):
    assert client.sessions.create(**WANTED).status == "active"


@pytest.mark.unmeasured
def test_fifty_threads_share_a_client(client, emulator):
    together = threading.Barrier(50)

    def work(number):
        together.wait(PATIENCE)
        return [client.sessions.create(user=f"u{number}", workflow="w").user for _ in range(4)]

    with ThreadPoolExecutor(50) as pool:
        users = list(pool.map(work, range(50)))
    assert users == [[f"u{number}"] * 4 for number in range(50)]
    assert emulator.requests.total == 200
    assert len(loop_threads()) == 1


def test_a_client_used_in_its_own_thread_says_so(connect):
    problems = []

    def key():
        for use in (client.close, lambda: client.sessions.create(**WANTED)):
            try:
                use()
            except ChatKitError as error:
                problems.append(error)
        return KEY

    client = connect(api_key=key)
    assert client.sessions.create(**WANTED).status == "active"
    assert len(problems) == 2
    for problem in problems:
        assert isinstance(problem, RuntimeError)
        assert "use another one" in str(problem)
        assert str(pickle.loads(pickle.dumps(problem))) == str(problem)  # noqa: S301


def test_another_client_can_be_used_in_a_clients_thread(connect):
    inner = connect()
    outer = connect(api_key=lambda: inner.sessions.create(**WANTED).id)
    assert outer.sessions.create(**WANTED).status == "active"


def test_a_thread_that_cannot_be_started_is_tried_again(client, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            client.sessions.create(**WANTED)
    assert client.sessions.create(**WANTED).status == "active"


@pytest.mark.parametrize("runs", [False, True])
def test_ctrl_c_as_the_thread_starts_leaves_no_second_one(client, monkeypatch, runs):
    running = told_when(monkeypatch, anyio, "run")
    start, threads = threading.Thread.start, []

    def interrupted(thread):
        if thread.name != "chatkit-async":  # a loop that ends starts one to end its executor
            return start(thread)
        threads.append(thread)
        if runs:
            start(thread)
            running.acquire(timeout=PATIENCE)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.sessions.create(**WANTED)
    [thread] = threads
    if not runs:
        start(thread)
    assert client.sessions.create(**WANTED).status == "active"
    assert loop_threads() == [thread]


def test_one_of_the_threads_started_together_serves(client, monkeypatch):
    together, start, started = threading.Barrier(3), threading.Thread.start, []

    def start_together(thread):
        if thread.name == "chatkit-async":
            started.append(thread)
            together.wait(PATIENCE)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_together)
    calls = [Calling(client) for _ in range(3)]
    assert [call.ended() for call in calls] == ["active"] * 3
    serving = client._loop_thread._thread
    for thread in started:
        if thread is not serving:
            thread.join(PATIENCE)
    assert loop_threads() == [serving]


def test_anyio_that_cannot_be_imported_is_an_error(client, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "anyio", None)
        with pytest.raises(ImportError):
            client.sessions.create(**WANTED)
    assert client.sessions.create(**WANTED).status == "active"


def test_closing_a_client_whose_loop_cannot_be_opened(client, monkeypatch):
    opening, closing = threading.Event(), told_when(monkeypatch, threading.Thread, "is_alive")

    def refuse(*_):
        opening.set()
        closing.acquire(timeout=PATIENCE)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(anyio, "run", refuse)
    calling = Calling(client)
    opening.wait(PATIENCE)
    client.close()
    assert calling.ended() is OSError


def test_a_loop_that_cannot_be_opened_is_tried_again(client, monkeypatch):
    def refuse(*_):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(anyio, "run", refuse)
        with pytest.raises(OSError, match="Too many"):
            client.sessions.create(**WANTED)
    assert client.sessions.create(**WANTED).status == "active"


@pytest.mark.parametrize("at_exit", [False, True])
def test_an_error_of_the_loops_own_shows_unless_python_ends(client, monkeypatch, at_exit):
    ended = []
    monkeypatch.setattr(threading, "excepthook", ended.append)
    client.sessions.create(**WANTED)

    async def fail():
        await original()
        raise OSError("the loop's own")

    transport = client._loop_thread._transport
    original = transport.close
    monkeypatch.setattr(transport, "close", fail)
    if at_exit:
        monkeypatch.setattr(threading, "main_thread", threading.Thread)  # one that does not run
    client.close()
    assert len(ended) == (0 if at_exit else 1)


def test_threading_is_looked_up_at_use(client, monkeypatch):
    """As gevent wants it, which may patch the module after the client was made."""
    made = []

    def patch(name):
        original = getattr(threading, name)
        monkeypatch.setattr(
            threading, name, lambda *args, **kwargs: made.append(name) or original(*args, **kwargs)
        )

    patch("Thread")
    patch("Lock")
    client.sessions.create(**WANTED)
    assert {"Thread", "Lock"} <= set(made)


def test_recursion_limit_is_what_a_call_near_it_raises(client):
    def deep(frames):
        return deep(frames - 1) if frames else client.sessions.create(**WANTED).status

    def sweep():
        limit = sys.getrecursionlimit()
        for frames in range(limit - 60, limit):
            try:
                outcomes.append(deep(frames))
            except BaseException as error:
                outcomes.append(type(error))

    outcomes = []
    client.sessions.create(**WANTED)
    thread = threading.Thread(target=sweep)
    thread.start()
    thread.join()
    assert set(outcomes) == {"active", RecursionError}
    assert client.sessions.create(**WANTED).status == "active"


# Interrupting


@pytest.mark.unmeasured
@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM])
def test_ctrl_c_ends_the_call_and_not_the_client(script, emulator, number):
    emulator.fail(delay=float("inf"))
    program = script(
        """
        class Alarm(BaseException):
            pass

        def alarm(*_):
            raise Alarm

        signal.signal(signal.SIGALRM, alarm)
        with ChatKit(**settings) as client:
            try:
                client.sessions.create(**WANTED)
            except (KeyboardInterrupt, Alarm) as error:
                say(type(error).__name__)
            say(client.sessions.create(**WANTED).status)
        """
    )
    emulator.wait_until(lambda: len(emulator.requests) == 1)
    program.interrupt(number)
    assert program.hear() == {signal.SIGINT: "KeyboardInterrupt", signal.SIGALRM: "Alarm"}[number]
    assert program.hear() == "active"
    assert program.end() == (0, "")
    assert [record.outcome for record in emulator.requests] == ["client_gone", "sent"]


def test_a_call_that_takes_longer_than_a_slice_is_waited_for(client, monkeypatch):
    second_slice = threading.Event()

    class Call(_loop_thread._Call):
        def __init__(self, start):
            super().__init__(start)
            self.slices = 0
            self._lock, self.in_progress = self.in_progress, self

        def acquire(self, timeout):
            self.slices += 1
            if self.slices == 2:
                second_slice.set()
            return self.slices > 1 and self._lock.acquire(timeout=PATIENCE)

        def release(self):
            self._lock.release()

    async def answer():
        return await asyncio.to_thread(second_slice.wait, PATIENCE)

    monkeypatch.setattr(_loop_thread, "_Call", Call)
    assert client._loop_thread.run(answer)


def test_ctrl_c_that_wakes_nobody_ends_the_call_all_the_same(client, emulator, monkeypatch):
    # As a signal may that arrives between the last look for one and the wait.
    assert 0 < _loop_thread.SLICE <= 1
    monkeypatch.setattr(_loop_thread, "SLICE", 0.01)
    emulator.fail(delay=float("inf"))

    def interrupt():
        emulator.wait_until(lambda: len(emulator.requests) == 1)
        _thread.interrupt_main()

    with ThreadPoolExecutor() as pool:
        interrupting = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.sessions.create(**WANTED)
        interrupting.result()
    emulator.wait_until(lambda: emulator.requests[0].outcome == "client_gone")
    assert client.sessions.create(**WANTED).status == "active"


def interrupt(thread):
    """Have KeyboardInterrupt raised in a thread, as soon as it runs Python code."""
    found = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt)
    )
    assert found == 1


class Calling(threading.Thread):
    """A call in a thread of its own, and what it came to."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self._client = client
        self.outcome = None
        self.start()

    def run(self):
        try:
            self.outcome = self._client.sessions.create(**WANTED).status
        except BaseException as error:
            self.outcome = type(error)

    def ended(self):
        self.join(PATIENCE)
        return self.outcome


def test_a_wait_in_slices_can_be_interrupted_anywhere(client, emulator, monkeypatch):
    monkeypatch.setattr(_loop_thread, "SLICE", 0.01)
    emulator.fail(delay=float("inf"))
    calling = Calling(client)
    emulator.wait_until(lambda: len(emulator.requests) == 1)
    interrupt(calling)
    assert calling.ended() is KeyboardInterrupt
    emulator.wait_until(lambda: emulator.requests[0].outcome == "client_gone")
    assert client.sessions.create(**WANTED).status == "active"


def told_when(monkeypatch, cls, name):
    """A semaphore that is released each time a method is entered."""
    entered, method = threading.Semaphore(0), getattr(cls, name)

    def telling(*args):
        entered.release()
        return method(*args)

    monkeypatch.setattr(cls, name, telling)
    return entered


class Busy:
    """A key callable that keeps the client's thread busy until it is let go."""

    def __init__(self):
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def __call__(self):
        self.entered.set()
        self.let_go.wait(PATIENCE)
        return KEY


def test_a_call_given_up_before_it_began_sends_nothing(connect, emulator, monkeypatch):
    monkeypatch.setattr(_loop_thread, "SLICE", 0.01)
    busy = Busy()
    client = connect(api_key=busy)
    waiting = told_when(monkeypatch, LoopThread, "_wake")
    giving_up = told_when(monkeypatch, LoopThread, "_give_up")
    first = Calling(client)
    waiting.acquire(timeout=PATIENCE)
    busy.entered.wait(PATIENCE)
    second = Calling(client)
    waiting.acquire(timeout=PATIENCE)
    interrupt(second)
    giving_up.acquire(timeout=PATIENCE)
    busy.let_go.set()
    assert second.ended() is KeyboardInterrupt
    assert first.ended() == "active"
    assert len(emulator.requests) == 1


def test_interrupt_as_a_call_ends_is_raised_at_once(client, monkeypatch):
    def acquire_and_interrupt(lock):
        class Interrupting:
            def acquire(self, **kwargs):
                assert not interrupted, "waited for a call that had ended"
                lock.acquire()
                interrupted.append(True)
                raise KeyboardInterrupt

            release = lock.release

        return Interrupting()

    interrupted = []
    make_call = _loop_thread._Call

    def call_with_interrupt(*args):
        call = make_call(*args)
        call.in_progress = acquire_and_interrupt(call.in_progress)
        return call

    client.sessions.create(**WANTED)
    with monkeypatch.context() as patched:
        patched.setattr(_loop_thread, "_Call", call_with_interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.sessions.create(**WANTED)
    assert interrupted
    assert client.sessions.create(**WANTED).status == "active"


def test_a_call_interrupted_as_it_is_sent_sends_nothing(client, emulator, monkeypatch):
    client.sessions.create(**WANTED)
    loop = client._loop_thread._loop
    soon = loop.call_soon_threadsafe
    interruptions = iter([KeyboardInterrupt])

    def interrupted(*args):
        for interruption in interruptions:
            raise interruption
        return soon(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.sessions.create(**WANTED)
    assert client.sessions.create(**WANTED).status == "active"
    assert len(emulator.requests) == 2


# The end of a client


def test_use_after_close(client):
    client.sessions.create(**WANTED)
    client.close()
    client.close()
    assert not loop_threads()
    with pytest.raises(ClientClosedError):
        client.sessions.create(**WANTED)
    with pytest.raises(ClientClosedError), client.sessions.open(**WANTED):
        pass
    with pytest.raises(ClientClosedError):
        client.sessions.with_raw_response.create(**WANTED)
    assert Calling(client).ended() is ClientClosedError  # its thread may have the portal's old id


def test_a_client_closed_before_its_first_use_starts_no_thread(client):
    client.close()
    with pytest.raises(ClientClosedError):
        client.sessions.create(**WANTED)
    assert not loop_threads()


def test_close_ends_calls_in_flight(client, emulator):
    emulator.fail(delay=float("inf"), times=None)
    calls = [Calling(client) for _ in range(5)]
    emulator.wait_until(lambda: len(emulator.requests) == 5)
    client.close()
    assert [call.ended() for call in calls] == [ClientClosedError] * 5
    emulator.wait_until(lambda: all(r.outcome == "client_gone" for r in emulator.requests))
    assert emulator.requests.total == 5


def test_close_ends_calls_that_wait(connect, emulator):
    begun = threading.Event()

    async def key():
        begun.set()
        await asyncio.Event().wait()

    client = connect(api_key=key)
    calling = Calling(client)
    begun.wait(PATIENCE)
    client.close()
    assert calling.ended() is ClientClosedError


def test_close_ends_calls_that_have_not_begun(connect, emulator, monkeypatch):
    busy = Busy()
    client = connect(api_key=busy)
    waiting = told_when(monkeypatch, LoopThread, "_wake")
    joining = told_when(monkeypatch, threading.Thread, "is_alive")
    calls = [Calling(client)]
    waiting.acquire(timeout=PATIENCE)
    busy.entered.wait(PATIENCE)
    calls.append(Calling(client))
    waiting.acquire(timeout=PATIENCE)
    closing = threading.Thread(target=client.close)
    closing.start()
    joining.acquire(timeout=PATIENCE)
    busy.let_go.set()
    assert [call.ended() for call in calls] == [ClientClosedError] * 2
    closing.join(PATIENCE)
    assert not emulator.requests


def test_close_ends_calls_that_never_get_to_begin(client, monkeypatch):
    sent = threading.Event()
    client.sessions.create(**WANTED)
    monkeypatch.setattr(LoopThread, "_begin_calls", lambda loop_thread: sent.set())
    calling = Calling(client)
    sent.wait(PATIENCE)
    client.close()
    assert calling.ended() is ClientClosedError


def test_a_call_that_meets_a_loop_just_closed(client, monkeypatch):
    client.sessions.create(**WANTED)
    loop = client._loop_thread._loop
    soon = loop.call_soon_threadsafe

    def too_late(*args):
        monkeypatch.undo()
        client.close()
        return soon(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", too_late)
    with pytest.raises(ClientClosedError):
        client.sessions.create(**WANTED)


def test_a_call_interrupted_as_its_loop_is_closed(client, monkeypatch):
    client.sessions.create(**WANTED)
    loop = client._loop_thread._loop

    def too_late(*args):
        monkeypatch.undo()
        client.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "call_soon_threadsafe", too_late)
    with pytest.raises(KeyboardInterrupt):
        client.sessions.create(**WANTED)


@pytest.mark.parametrize(("cls", "name"), [(threading.Thread, "start"), (anyio, "run")])
def test_client_closed_as_its_thread_starts_ends_the_call(client, monkeypatch, cls, name):
    def close_first(*args):
        client._loop_thread.closed = True
        return original(*args)

    original = getattr(cls, name)
    monkeypatch.setattr(cls, name, close_first)
    with pytest.raises(ClientClosedError):
        client.sessions.create(**WANTED)
    client.close()
    assert not loop_threads()


@pytest.mark.parametrize("is_closed", [False, True])
def test_error_of_an_open_loop_is_raised(is_closed):
    class Loop:
        def call_soon_threadsafe(self, callback):
            raise RecursionError

    Loop.is_closed = lambda loop: is_closed
    with contextlib.nullcontext() if is_closed else pytest.raises(RecursionError):
        _loop_thread._call_soon(Loop(), print)


def test_interrupted_close_ends_the_loop_all_the_same(client, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    client.sessions.create(**WANTED)
    [thread] = loop_threads()
    with monkeypatch.context() as patched:
        # Not in join(), which close() does not come to if the thread is quick to end.
        patched.setattr(threading.Thread, "is_alive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_end_of_the_process_ends_an_unclosed_client(client, emulator):
    client.sessions.create(**WANTED)
    [thread] = loop_threads()
    with warned_once(base_url=emulator.base_url):
        _loop_thread._at_exit()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_client_dropped_as_its_thread_starts_serves_nobody(client):
    asyncio.run(_loop_thread._serve(lambda: None, client._loop_thread._transport))
    assert not client._loop_thread._transport.closed


def test_call_ends_once():
    call = _loop_thread._Call(print)
    call.end(None)
    call.end(KeyboardInterrupt())
    assert call.error is None


def open_files():
    return len(os.listdir("/dev/fd")) if os.path.exists("/dev/fd") else 0  # noqa: PTH110, PTH208


@pytest.mark.unmeasured
@pytest.mark.sweep(every=2)
@pytest.mark.parametrize("number", [100, 1000])
def test_dropped_clients_leave_nothing_behind(emulator, number):
    gc.collect()
    before = open_files()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for each in range(number):
            client = ChatKit(api_key=KEY, base_url=emulator.base_url)
            client.sessions.create(**WANTED)
            if each % 2:
                client.close()
            del client
        for thread in loop_threads():
            thread.join(PATIENCE)
        gc.collect()
    assert {str(warning.message) for warning in caught} == {
        f"unclosed client ChatKit(base_url='{emulator.base_url}')"
    }
    assert len(caught) == number // 2
    assert not loop_threads()
    emulator.wait_until(lambda: emulator.connections == 0)
    assert open_files() <= before + 1


def test_a_client_with_other_options_keeps_the_first_one_alive(emulator):
    client = ChatKit(api_key=KEY, base_url=emulator.base_url)
    other = client.with_options(timeout=5)
    other.sessions.create(**WANTED)
    sessions = other.sessions
    del client, other
    gc.collect()
    assert sessions.create(**WANTED).status == "active"
    [thread] = loop_threads()
    with warned_once(base_url=emulator.base_url):
        del sessions
        collect_until_ended(thread)


def test_a_client_dropped_in_its_own_thread(emulator):
    client = ChatKit(api_key=KEY, base_url=emulator.base_url)
    client.sessions.create(**WANTED)
    loop = client._loop_thread._loop
    [thread] = loop_threads()
    client.itself = client
    with warned_once(base_url=emulator.base_url):
        del client
        loop.call_soon_threadsafe(gc.collect)
        thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_client_that_its_callables_refer_to_is_dropped_all_the_same(emulator):
    class Meter:
        def __call__(self, attempt):
            self.attempt = attempt

    meter = Meter()
    meter.client = ChatKit(api_key=KEY, base_url=emulator.base_url, on_attempt=meter)
    meter.client.sessions.create(**WANTED)
    [thread] = loop_threads()
    with warned_once(base_url=emulator.base_url):
        del meter
        collect_until_ended(thread)


# The end of a process


UNCLOSED = "ResourceWarning: unclosed client ChatKit"


@pytest.mark.unmeasured
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_exit_without_close(script, host):
    program = script(
        """
        client = ChatKit(**settings)
        say(client.sessions.create(**WANTED).status)
        """,
        host=host,
    )
    assert program.hear() == "active"
    status, errors = program.end()
    assert status == 0
    assert errors.count("Warning: ") == errors.count(UNCLOSED) == 1
    assert "Traceback" not in errors


@pytest.mark.unmeasured
def test_exit_with_a_call_in_flight(script, emulator):
    emulator.fail(delay=float("inf"))
    program = script(
        """
        client = ChatKit(**settings)
        def call():
            try:
                client.sessions.create(**WANTED)
            except Exception as error:
                say(type(error).__name__)
        threading.Thread(target=call, daemon=True).start()
        say(input())
        """
    )
    emulator.wait_until(lambda: len(emulator.requests) == 1)
    program.tell("leaving")
    assert program.hear() == "leaving"
    status, errors = program.end()
    assert status == 0
    assert errors.count("Warning: ") == errors.count(UNCLOSED) == 1


@pytest.mark.unmeasured
def test_exit_while_a_callable_blocks_the_clients_thread(script):
    program = script(
        """
        def key():
            say("blocking")
            threading.Event().wait()
        client = ChatKit(**settings | {"api_key": key})
        threading.Thread(target=client.sessions.create, kwargs=WANTED, daemon=True).start()
        input()
        """
    )
    assert program.hear() == "blocking"
    program.tell("leave")
    status, errors = program.end()
    assert status == 0
    assert UNCLOSED in errors


def test_a_forked_child_leaves_the_parents_thread_alone(client):
    client.sessions.create(**WANTED)
    parents = dict(vars(client._loop_thread))
    client._loop_thread.after_fork()
    _loop_thread._at_exit()
    assert not client._loop_thread.closed
    vars(client._loop_thread).update(parents)
    assert client.sessions.create(**WANTED).status == "active"


# Forks and other processes


@pytest.mark.unmeasured
@POSIX
@pytest.mark.parametrize(
    "deed",
    [
        "pass",
        "call()",
        "client.close()",
        "call(); client.close()",
        "del client",
        "call(); del client",
    ],
)
def test_a_forked_child_has_connections_of_its_own(script, emulator, deed):
    program = script(
        f"""
        client = ChatKit(**settings)
        def call():
            client.sessions.create(**WANTED)
        call()
        child = os.fork()
        if child == 0:
            {deed}
            say("child done")
            sys.exit(7)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        input()
        call()
        client.close()
        say("parent done")
        """
    )
    assert program.hear() == "child done"
    assert program.hear() == "7"
    used = [record.connection for record in emulator.requests]
    assert used == ([1, 2] if "call" in deed else [1])
    emulator.wait_until(lambda: emulator.connections == 1)
    program.tell("go on")
    assert program.hear() == "parent done"
    assert emulator.requests[-1].connection == 1
    status, errors = program.end()
    assert status == 0
    assert errors.count("Warning: ") == errors.count(UNCLOSED)
    assert errors.count(UNCLOSED) == (1 if "call" in deed and "close" not in deed else 0)


@pytest.mark.unmeasured
@POSIX
def test_a_forked_child_does_not_end_the_connections_of_an_asynchronous_client(script, emulator):
    program = script(
        """
        import asyncio, gc
        from chatkit_async import AsyncChatKit

        def call():
            create = client.sessions.create(**WANTED)
            return asyncio.run_coroutine_threadsafe(create, loop).result()

        async def end():
            await client.close()
            loop.stop()

        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        client = AsyncChatKit(**settings)
        call()
        child = os.fork()
        if child == 0:
            del client
            gc.collect()
            sys.exit(7)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        say(call().status)
        loop.call_soon_threadsafe(loop.create_task, end())
        thread.join()
        loop.close()
        """
    )
    assert program.hear() == "7"
    assert program.hear() == "active"
    assert program.end() == (0, "")
    assert {record.connection for record in emulator.requests} == {1}


@pytest.mark.unmeasured
@POSIX
def test_a_child_forked_while_other_threads_call(script, emulator):
    emulator.fail(delay=float("inf"))
    program = script(
        """
        client = ChatKit(**settings)
        def call():
            try:
                client.sessions.create(**WANTED)
            except Exception as error:
                say(type(error).__name__)
        waiting = threading.Thread(target=call)
        waiting.start()
        input()
        child = os.fork()
        if child == 0:
            with client:
                say(client.sessions.create(**WANTED).status)
            sys.exit(7)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        client.close()
        waiting.join()
        """
    )
    emulator.wait_until(lambda: len(emulator.requests) == 1)
    program.tell("fork")
    assert program.hear() == "active"
    assert program.hear() == "7"
    assert program.hear() == "ClientClosedError"
    assert program.end() == (0, "")


@pytest.mark.unmeasured
@POSIX
def test_a_child_does_not_queue_behind_its_parents_calls_at_the_rate_gate(script, emulator):
    emulator.fail(status=429, headers={"retry-after-ms": "500"})
    program = script(
        """
        import attrs, time

        stopped = [time.monotonic()]  # so that the gate stays closed until the child is there
        now = lambda: stopped[0] if stopped else time.monotonic()

        pushed_back = threading.Event()
        client = ChatKit(**settings, on_attempt=lambda _: pushed_back.set())
        attempts = client._client._attempts
        attempts.seam = attrs.evolve(attempts.seam, now=now)
        calls = [threading.Thread(target=client.sessions.create, kwargs=WANTED) for _ in range(2)]
        calls[0].start()
        pushed_back.wait()
        calls[1].start()
        while not attempts.gate._waiting:
            time.sleep(0.001)
        child = os.fork()
        stopped.clear()
        if child == 0:
            with client:
                say(client.sessions.create(**WANTED).status)
            sys.exit(7)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        for call in calls:
            call.join()
        client.close()
        """
    )
    assert program.hear() == "active"
    assert program.hear() == "7"
    assert program.end() == (0, "")
    assert [record.status for record in emulator.requests] == [429, 200, 200, 200]


@pytest.mark.unmeasured
@POSIX
def test_a_client_closed_before_a_fork_is_closed_in_the_child(script):
    program = script(
        """
        client = ChatKit(**settings)
        client.close()
        if child := os.fork():
            os.waitpid(child, 0)
        try:
            client.sessions.create(**WANTED)
        except Exception as error:
            say(type(error).__name__)
        """
    )
    assert [program.hear(), program.hear()] == ["ClientClosedError"] * 2
    assert program.end() == (0, "")


MULTIPROCESSING = """
    import multiprocessing

    def shared(number):
        return client.sessions.create(user=f"u{number}", workflow="w").user

    def own(number):
        with ChatKit(**settings) as client:
            return client.sessions.create(user=f"u{number}", workflow="w").user

    if __name__ == "__main__":
        with ChatKit(**settings) as client:
            client.sessions.create(**WANTED)
            with multiprocessing.get_context(METHOD).Pool(2) as pool:
                say(sorted(pool.map(WORK, range(4))))
                try:
                    pool.apply(print, [client])
                except TypeError as error:
                    say(error)
                pool.close()
                pool.join()
            say(client.sessions.create(**WANTED).status)
"""


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("method", "work"),
    [
        pytest.param("fork", "shared", marks=POSIX),
        pytest.param("fork", "own", marks=POSIX),
        ("spawn", "own"),
    ],
)
def test_multiprocessing(script, emulator, method, work):
    program = script(MULTIPROCESSING.replace("METHOD", repr(method)).replace("WORK", work))
    assert program.hear() == "['u0', 'u1', 'u2', 'u3']"
    assert program.hear() == (
        "ChatKit holds connections and cannot be pickled: make one per process"
    )
    assert program.hear() == "active"
    status, _ = program.end()
    assert status == 0
    assert emulator.requests[-1].connection == 1


# Where no thread can be started


@pytest.mark.parametrize(
    "reason",
    [
        "daemon threads are disabled in this (sub)interpreter",  # CPython 3.12 and later
        "thread is not supported for isolated subinterpreters",  # CPython 3.11
        "can't start new thread",
    ],
)
def test_a_thread_that_cannot_be_started_is_explained(connect, monkeypatch, reason):
    def refuse(*args, **kwargs):
        raise RuntimeError(reason)

    client = connect()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", refuse)
        with pytest.raises(ChatKitError, match="subinterpreter") as caught:
            client.sessions.create(**WANTED)

    assert reason in str(caught.value)
    assert isinstance(caught.value, RuntimeError)
    assert client.sessions.create(**WANTED).user == WANTED["user"]
