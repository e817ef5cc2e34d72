from __future__ import annotations

import base64
import json
import re
import threading
from urllib.parse import quote

import pytest

from chatkit_async.emulator import _sessions
from chatkit_async.emulator._credentials import masked_text
from chatkit_async.emulator._schema import read_create
from chatkit_async.emulator._sessions import SessionStore


@pytest.fixture
def parameters(wanted):
    return read_create(wanted)[0]


@pytest.fixture
def store(clock):
    return SessionStore(clock, seed=0)


@pytest.fixture
def make(store, parameters):
    def make():
        return store.create(parameters, organization="org_1", project="proj_1")

    return make


def test_a_session_knows_who_asked_for_what(make):
    session = make()

    assert session.user == "user_123"
    assert session.workflow == "wf_123"
    assert session.organization == "org_1"
    assert session.project == "proj_1"


def test_a_session_is_active_until_the_second_it_expires(make, clock):
    session = make()

    clock.set(session.expires_at - 0.001)
    assert session.status == "active"
    clock.set(session.expires_at)
    assert session.status == "expired"


def test_times_are_whole_seconds(store, parameters, clock):
    clock.advance(0.75)

    session = store.create(parameters, organization=None, project=None)

    assert session.created_at == int(clock.now())
    assert session.expires_at == session.created_at + 600


def test_a_cancelled_session_stays_cancelled_after_its_expiry(make, store, clock):
    session = make()
    clock.advance(10)
    store.cancel(session)
    cancelled_at = clock.now()
    clock.advance(1000)

    assert session.status == "cancelled"
    assert session.cancelled_at == cancelled_at


def test_ids_and_secrets_follow_from_the_seed(clock, parameters):
    def names(seed):
        store = SessionStore(clock, seed)
        sessions = [store.create(parameters, organization=None, project=None) for _ in range(3)]
        return [(session.id, session.client_secret) for session in sessions]

    assert names(1) == names(1)
    assert not set(names(1)) & set(names(2))


def test_ids_and_secrets_look_like_those_of_the_service(make, clock):
    session = make()

    time = f"{int(clock.now()):08x}"
    assert re.fullmatch(f"cksess_{time}[0-9a-f]{{40}}", session.id)
    digits, _, expiry = session.client_secret.partition("_00")
    assert re.fullmatch("ek_[0-9a-f]{48}", digits)
    assert expiry.endswith("=")
    assert json.loads(base64.b64decode(expiry)) == {"expires_at": session.expires_at}


@pytest.mark.parametrize("now", [-1, 0, 2**40])
def test_ids_are_as_long_at_any_time(make, clock, now):
    clock.set(now)
    assert len(make().id) == len("cksess_") + 48


def test_the_secret_is_masked_whole(make):
    secret = make().client_secret

    assert masked_text(f"/{secret}/cancel") == "/ek_***/cancel"
    assert masked_text(quote(secret, safe="")) == "ek_***"


def test_the_secret_is_not_in_a_repr(make, store):
    session = make()

    assert session.client_secret not in repr(session)
    assert repr(store) == "<1 sessions>"


def test_sessions_are_found_by_id_oldest_first(make, store):
    first, second = make(), make()

    assert list(store) == [first.id, second.id]
    assert store[second.id] is second
    assert "cksess_unknown" not in store


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ([1, 1, 1, 1], 3),
        ([50, 50], 2),
        ([50, 50, 1], 2),
        ([1, 1, 100], 1),
        ([1, 101], 1),
        ([99, 101, 1, 1, 1], 3),
    ],
)
def test_the_oldest_sessions_are_forgotten(store, parameters, monkeypatch, sizes, kept):
    monkeypatch.setattr(_sessions, "MAX_SESSIONS", 3)
    monkeypatch.setattr(_sessions, "MAX_SESSION_BYTES", 100)
    for _ in range(2):
        sessions = [
            store.create(parameters, organization=None, project=None, size=size) for size in sizes
        ]
        assert list(store.values()) == sessions[-kept:]
        store.reset(0)


def test_sessions_can_be_listed_while_another_thread_adds_some(make, store):
    make()
    seen = []
    for session_id in store:
        adding = threading.Thread(target=make)
        adding.start()
        adding.join()
        seen.append(session_id)

    assert len(seen) == 1
    assert len(store) == 2
