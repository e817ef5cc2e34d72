from __future__ import annotations

import json

import pytest

from chatkit_async.emulator._replies import error_body, off_schema, resource
from chatkit_async.emulator._schema import read_create
from chatkit_async.emulator._sessions import SessionStore


@pytest.fixture
def store(clock):
    return SessionStore(clock, seed=0)


@pytest.fixture
def session(store):
    body = {"user": "u", "workflow": {"id": "wf", "version": "2"}}
    return store.create(read_create(body)[0], organization=None, project="proj_1")


def test_a_session_is_told_with_everything_the_schema_promises(session):
    assert json.loads(resource(session)) == {
        "id": session.id,
        "object": "chatkit.session",
        "expires_at": session.expires_at,
        "client_secret": session.client_secret,
        "workflow": {
            "id": "wf",
            "version": "2",
            "state_variables": None,
            "tracing": {"enabled": True},
        },
        "user": "u",
        "rate_limits": {"max_requests_per_1_minute": 10},
        "max_requests_per_1_minute": 10,
        "status": "active",
        "chatkit_configuration": {
            "automatic_thread_titling": {"enabled": True},
            "file_upload": {"enabled": False, "max_file_size": 512, "max_files": 10},
            "history": {"enabled": True, "recent_threads": None},
        },
    }


def test_a_created_session_off_schema_has_the_fields_of_the_documentations_example(session):
    assert json.loads(off_schema("create", session)) == {
        "client_secret": session.client_secret,
        "expires_at": session.expires_at,
        "workflow": {"id": "wf", "version": "2"},
        "scope": {"project": "proj_1", "environment": "emulator"},
        "max_requests_per_1_minute": 10,
        "max_requests_per_session": 500,
        "status": "active",
    }


def test_a_cancelled_session_off_schema_has_the_fields_of_the_documentations_example(
    session, store, clock
):
    store.cancel(session)

    assert json.loads(off_schema("cancel", session)) == {
        "id": session.id,
        "object": "chatkit.session",
        "workflow": {"id": "wf", "version": "2"},
        "scope": {"customer_id": "u"},
        "max_requests_per_1_minute": 10,
        "ttl_seconds": 600,
        "status": "cancelled",
        "cancelled_at": clock.now(),
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (429, "requests"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_an_error_has_the_apis_shape(status, kind):
    assert json.loads(error_body(status, "No.", param="user", code="empty")) == {
        "error": {"message": "No.", "type": kind, "param": "user", "code": "empty"}
    }
