from __future__ import annotations

import pytest

from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._json import parse_json
from chatkit_async.emulator._schema import CreateParameters, read_create


def body_with(path, value):
    """Return a valid body, but for one value at a dotted path."""
    body = {"user": "user_123", "workflow": {"id": "wf_123"}}
    *sections, last = path.split(".")
    section = body
    for name in sections:
        section = section.setdefault(name, {})
    section[last] = value
    return body


def refusal_of(body):
    with pytest.raises(ApiError) as refusal:
        read_create(body)
    return refusal.value


def test_defaults_are_those_the_schema_documents(wanted):
    parameters, unknown = read_create(wanted)

    assert parameters == CreateParameters(
        user="user_123",
        workflow="wf_123",
        workflow_version=None,
        state_variables=None,
        tracing=True,
        expires_in=600,
        max_requests_per_1_minute=10,
        automatic_thread_titling=True,
        file_upload=False,
        max_file_size=512,
        max_files=10,
        history=True,
        recent_threads=None,
    )
    assert unknown == ()


def test_every_field_the_schema_knows_is_read():
    parameters, unknown = read_create(
        {
            "user": "u",
            "workflow": {
                "id": "wf",
                "version": "7",
                "state_variables": {"name": "Ada", "age": 36, "vip": True, "score": 0.5},
                "tracing": {"enabled": False},
            },
            "expires_after": {"anchor": "created_at", "seconds": 60},
            "rate_limits": {"max_requests_per_1_minute": 30},
            "chatkit_configuration": {
                "automatic_thread_titling": {"enabled": False},
                "file_upload": {"enabled": True, "max_file_size": 16, "max_files": 3},
                "history": {"enabled": False, "recent_threads": 5},
            },
        }
    )

    assert parameters == CreateParameters(
        user="u",
        workflow="wf",
        workflow_version="7",
        state_variables={"name": "Ada", "age": 36, "vip": True, "score": 0.5},
        tracing=False,
        expires_in=60,
        max_requests_per_1_minute=30,
        automatic_thread_titling=False,
        file_upload=True,
        max_file_size=16,
        max_files=3,
        history=False,
        recent_threads=5,
    )
    assert unknown == ()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("expires_after", {"anchor": "created_at", "seconds": 1}),
        ("expires_after", {"anchor": "created_at", "seconds": 600}),
        ("rate_limits.max_requests_per_1_minute", 1),
        ("rate_limits", {}),
        ("chatkit_configuration", {}),
        ("chatkit_configuration.file_upload.max_file_size", 1),
        ("chatkit_configuration.file_upload.max_file_size", 512),
        ("chatkit_configuration.file_upload.max_files", 10**9),
        ("chatkit_configuration.history.recent_threads", 1),
        ("workflow.state_variables", {}),
        ("workflow.state_variables", {f"key_{number}": number for number in range(64)}),
        ("workflow.state_variables", {"k" * 64: "v" * 10_485_760, "": ""}),
        ("workflow.version", ""),
        ("user", "x"),
    ],
)
def test_what_is_within_the_limits_is_accepted(path, value):
    read_create(body_with(path, value))


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("user", "", "string_below_min_length"),
        ("rate_limits.max_requests_per_1_minute", 0, "integer_below_min_value"),
        ("chatkit_configuration.file_upload.max_file_size", 0, "integer_below_min_value"),
        ("chatkit_configuration.file_upload.max_file_size", 513, "integer_above_max_value"),
        ("chatkit_configuration.file_upload.max_files", -1, "integer_below_min_value"),
        ("chatkit_configuration.history.recent_threads", 0, "integer_below_min_value"),
        ("workflow.state_variables", dict.fromkeys(range(65)), "object_above_max_properties"),
        ("workflow.state_variables", {"k" * 65: 1}, "string_above_max_length"),
        ("workflow.state_variables.text", "v" * 10_485_761, "string_above_max_length"),
    ],
)
def test_what_is_beyond_a_limit_is_refused_by_its_path(path, value, code):
    refusal = refusal_of(body_with(path, value))

    assert refusal.status == 400
    assert refusal.code == code
    assert refusal.param == path
    assert refusal.message.startswith(f"Invalid '{path}': expected ")


@pytest.mark.parametrize(
    ("expiry", "param", "code"),
    [
        ({"anchor": "now", "seconds": 60}, "expires_after.anchor", "invalid_value"),
        (
            {"anchor": "created_at", "seconds": 0},
            "expires_after.seconds",
            "integer_below_min_value",
        ),
        (
            {"anchor": "created_at", "seconds": 601},
            "expires_after.seconds",
            "integer_above_max_value",
        ),
    ],
)
def test_an_expiry_beyond_its_limits_is_refused_by_its_path(expiry, param, code):
    refusal = refusal_of(body_with("expires_after", expiry))

    assert refusal.status == 400
    assert refusal.code == code
    assert refusal.param == param


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("user", None, "expected a string, not null"),
        ("user", 5, "expected a string, not an integer"),
        ("workflow", "wf_123", "expected an object, not a string"),
        ("workflow.id", True, "expected a string, not a boolean"),
        ("workflow.version", None, "expected a string, not null"),
        ("workflow.tracing", [], "expected an object, not an array"),
        ("workflow.tracing.enabled", 1, "expected a boolean, not an integer"),
        ("workflow.state_variables", None, "expected an object, not null"),
        (
            "workflow.state_variables.nested",
            {},
            "expected a string, an integer, a boolean or a number, not an object",
        ),
        ("expires_after", 600, "expected an object, not an integer"),
        ("rate_limits.max_requests_per_1_minute", True, "expected an integer, not a boolean"),
        ("rate_limits.max_requests_per_1_minute", 5.5, "expected an integer, not a number"),
        ("chatkit_configuration", None, "expected an object, not null"),
        ("chatkit_configuration.file_upload.max_files", "3", "expected an integer, not a string"),
        ("chatkit_configuration.history.recent_threads", None, "expected an integer, not null"),
    ],
)
def test_what_has_the_wrong_type_is_refused_by_its_path(path, value, sentence):
    refusal = refusal_of(body_with(path, value))

    assert refusal.status == 400
    assert refusal.code == "invalid_type"
    assert refusal.param == path
    assert refusal.message == f"Invalid type for '{path}': {sentence}."


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"user": "u"}, "workflow"),
        ({"user": "u", "workflow": {}}, "workflow.id"),
        ({"workflow": {"id": "wf"}}, "user"),
        (body_with("expires_after.seconds", 60), "expires_after.anchor"),
        (body_with("expires_after.anchor", "created_at"), "expires_after.seconds"),
    ],
)
def test_what_is_required_and_missing_is_named(body, param):
    refusal = refusal_of(body)

    assert refusal.status == 400
    assert refusal.code == "missing_required_parameter"
    assert refusal.param == param
    assert refusal.message == f"Missing required parameter: '{param}'."


@pytest.mark.parametrize("body", [[], "text", 5, 1.5, True, None])
def test_a_body_that_is_no_object_is_refused(body):
    assert "must be a JSON object, not " in refusal_of(body).message


def test_a_body_that_is_no_json_is_refused():
    assert refusal_of(b"{").message == "The request's body is not valid JSON."


def test_fields_the_schema_does_not_know_are_accepted_and_named():
    body = body_with("workflow.colour", "red")
    body["metadata"] = {"a": 1}
    body["chatkit_configuration"] = {"history": {"depth": 3}}

    _, unknown = read_create(body)

    assert unknown == ("metadata", "workflow.colour", "chatkit_configuration.history.depth")


def test_values_are_never_quoted_in_a_refusal():
    assert "hunter2" not in refusal_of(body_with("workflow", "hunter2")).message


def nested(value, depth):
    return nested([value], depth - 1) if depth else value


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a": [1, 2.5, true, null]}', {"a": [1, 2.5, True, None]}),
        ('"é"'.encode(), "é"),
        (b"null", None),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"[" * 99 + b'"[{\\"["' + b"]" * 99, nested('[{"[', 99)),
        (b"[" + b"{}," * 99 + b"{}]", [{}] * 100),
    ],
)
def test_json_is_parsed(raw, value):
    assert parse_json(raw) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"a": NaN}',
        b"-Infinity",
        b'"\xff"',
        '{"a": 1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"[" * 101 + b"]" * 101,
        b'{"a":' * 101 + b"1" + b"}" * 101,
        b"1e999",
        b"-1e999",
        b'"\\ud800"',
        b'{"\\uDFFF": 1}',
        b"9" * 5000,
    ],
)
def test_what_is_no_json_is_kept_as_bytes(raw):
    assert parse_json(raw) == raw


def test_a_number_without_a_fraction_is_an_integer_as_the_schema_has_it():
    parameters, _ = read_create(body_with("rate_limits.max_requests_per_1_minute", 5.0))

    assert repr(parameters.max_requests_per_1_minute) == "5"
