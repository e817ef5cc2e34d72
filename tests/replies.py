"""What the API replies: as its documentation shows it, and as it might."""

from __future__ import annotations

from copy import deepcopy

from hypothesis import strategies as st

# The API reference, ChatKit sessions. The generated example, the same for create and cancel:
DOCUMENTED = {
    "id": "id",
    "chatkit_configuration": {
        "automatic_thread_titling": {"enabled": True},
        "file_upload": {"enabled": True, "max_file_size": 0, "max_files": 0},
        "history": {"enabled": True, "recent_threads": 0},
    },
    "client_secret": "client_secret",
    "expires_at": 0,
    "max_requests_per_1_minute": 0,
    "object": "chatkit.session",
    "rate_limits": {"max_requests_per_1_minute": 0},
    "status": "active",
    "user": "user",
    "workflow": {
        "id": "id",
        "state_variables": {"foo": "string"},
        "tracing": {"enabled": True},
        "version": "version",
    },
}

# The last example of create, and of cancel: neither is what the API's own schema promises.
DOCUMENTED_CREATED = {
    "client_secret": "chatkit_token_123",
    "expires_at": 1735689600,
    "workflow": {"id": "workflow_alpha", "version": "2024-10-01"},
    "scope": {"project": "alpha", "environment": "staging"},
    "max_requests_per_1_minute": 60,
    "max_requests_per_session": 500,
    "status": "active",
}
DOCUMENTED_CANCELLED = {
    "id": "cksess_123",
    "object": "chatkit.session",
    "workflow": {"id": "workflow_alpha", "version": "1"},
    "scope": {"customer_id": "cust_456"},
    "max_requests_per_1_minute": 30,
    "ttl_seconds": 900,
    "status": "cancelled",
    "cancelled_at": 1712345678,
}

CLIENT_SECRET = "ek_68f1c2d3e4b5a6978877665544332211"

# One as the API sends it today.
FITTING = {
    "id": "cksess_68f1c2d3",
    "object": "chatkit.session",
    "expires_at": 1735689600,
    "client_secret": CLIENT_SECRET,
    "workflow": {
        "id": "wf_68f1c2d3",
        "version": None,
        "state_variables": {"name": "Ada", "vip": True, "visits": 3, "score": 3.5, "n": 2**70},
        "tracing": {"enabled": True},
    },
    "user": "user_123",
    "rate_limits": {"max_requests_per_1_minute": 10},
    "max_requests_per_1_minute": 10,
    "status": "active",
    "chatkit_configuration": {
        "automatic_thread_titling": {"enabled": True},
        "file_upload": {"enabled": False, "max_file_size": 512, "max_files": 10},
        "history": {"enabled": True, "recent_threads": None},
    },
}

# Every field that the schema promises, as the path to it.
PATHS = [
    ("id",),
    ("object",),
    ("expires_at",),
    ("client_secret",),
    ("workflow",),
    ("workflow", "id"),
    ("workflow", "version"),
    ("workflow", "state_variables"),
    ("workflow", "tracing"),
    ("workflow", "tracing", "enabled"),
    ("user",),
    ("rate_limits",),
    ("rate_limits", "max_requests_per_1_minute"),
    ("max_requests_per_1_minute",),
    ("status",),
    ("chatkit_configuration",),
    ("chatkit_configuration", "automatic_thread_titling"),
    ("chatkit_configuration", "automatic_thread_titling", "enabled"),
    ("chatkit_configuration", "file_upload"),
    ("chatkit_configuration", "file_upload", "enabled"),
    ("chatkit_configuration", "file_upload", "max_file_size"),
    ("chatkit_configuration", "file_upload", "max_files"),
    ("chatkit_configuration", "history"),
    ("chatkit_configuration", "history", "enabled"),
    ("chatkit_configuration", "history", "recent_threads"),
]
NULLABLE = {"version", "state_variables", "max_file_size", "max_files", "recent_threads"}

# Every object that a reply consists of, as the path to it.
OBJECTS = [
    (),
    ("workflow",),
    ("workflow", "tracing"),
    ("rate_limits",),
    ("chatkit_configuration",),
    ("chatkit_configuration", "automatic_thread_titling"),
    ("chatkit_configuration", "file_upload"),
    ("chatkit_configuration", "history"),
]


def at(value, path):
    """What is at a path, in JSON or in models."""
    for step in path:
        value = value[step] if isinstance(value, dict) else getattr(value, step)
    return value


def reply_with(path, value):
    """`FITTING`, with another value at a path."""
    reply = deepcopy(FITTING)
    at(reply, path[:-1])[path[-1]] = value
    return reply


def reply_without(path):
    """`FITTING`, without the field at a path."""
    reply = deepcopy(FITTING)
    del at(reply, path[:-1])[path[-1]]
    return reply


# JSON may hold any text, lone surrogates too.
texts = st.text(st.characters(exclude_categories=()), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def _objects_in(value):
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from _objects_in(member)


@st.composite
def replies(draw):
    """Replies with fields dropped, nulled, retyped and added, at every depth."""
    reply = deepcopy(FITTING)
    for _ in range(draw(st.integers(0, 5))):
        target = draw(st.sampled_from(list(_objects_in(reply))))
        change = draw(st.sampled_from(["drop", "null", "retype", "add"]))
        if change == "add":
            target[draw(texts)] = draw(json_values)
        elif target:
            name = draw(st.sampled_from(sorted(target)))
            if change == "drop":
                del target[name]
            else:
                target[name] = None if change == "null" else draw(json_values)
    return reply
