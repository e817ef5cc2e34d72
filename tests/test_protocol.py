"""Without I/O: what is sent for a method, and what a reply means."""

from __future__ import annotations

import base64
import json
import pickle
import traceback
from datetime import UTC, datetime
from enum import Enum
from types import SimpleNamespace
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from replies import CLIENT_SECRET, DOCUMENTED_CANCELLED, DOCUMENTED_CREATED, FITTING
from yarl import URL

from chatkit_async import _protocol
from chatkit_async._protocol import WITHDRAWAL, Reply
from chatkit_async.errors import (
    APIResponseError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    ParameterError,
    RateLimitError,
)
from chatkit_async.models import ChatSession, ChatSessionWorkflowParam
from chatkit_async.secret import MASK, Secret

KEY = Secret("sk-proj-0123456789abcdefghij")
PARAMS = {"user": FITTING["user"], "workflow": "wf"}
CREATE = _protocol.create_session(PARAMS, {})
CANCEL = _protocol.cancel_session("cksess_1", {})


def read(content=b"", status=200, headers=(), *, call=CREATE, flaw=None, secrets=(KEY,)):
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    reply = Reply(status=status, headers=CIMultiDict(headers), content=content, flaw=flaw)
    return _protocol.read(call, reply, secrets)


def failure(*args, **kwargs):
    with pytest.raises((APIStatusError, APIResponseError)) as caught:
        read(*args, **kwargs)
    error = caught.value
    assert error.__context__ is None
    assert error.__cause__ is None
    return error


def shown(error):
    """All that can be seen of an error: its texts and attributes, and the package's frames."""
    frames = error.__traceback__
    while frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    rendered = traceback.TracebackException(type(error), error, frames, capture_locals=True)
    return "".join([*rendered.format(), str(error), repr(error), repr(vars(error))])


# What create sends


def test_create_is_a_post_of_the_parameters():
    assert CREATE.method == "POST"
    assert CREATE.route == CREATE.path == "/chatkit/sessions"
    assert CREATE.body == b'{"user":"user_123","workflow":{"id":"wf"}}'
    assert CREATE.headers == {}
    assert CREATE.result is ChatSession


def test_a_call_is_frozen_and_its_repr_has_no_body():
    with pytest.raises(AttributeError):
        CREATE.body = b""
    assert "wf" not in repr(CREATE)


def test_extra_body_is_merged_into_what_is_sent():
    call = _protocol.create_session(PARAMS, {"extra_body": {"workflow": {"gained": 1}}})
    assert call.body == b'{"user":"user_123","workflow":{"id":"wf","gained":1}}'


def test_every_problem_of_parameters_and_options_is_found_at_once():
    with pytest.raises(ParameterError) as caught:
        _protocol.create_session(
            {"user": "", "workflow": {}},
            {"timeout": 0, "extra_query": 5, "extra_body": {"a": float("nan")}},
        )
    assert [path for path, _ in caught.value.problems] == [
        "user",
        "workflow.id",
        "timeout",
        "extra_query",
        "extra_body.a",
    ]
    assert caught.value.__context__ is None


def test_an_extra_body_that_is_no_mapping_is_one_problem():
    with pytest.raises(ParameterError) as caught:
        _protocol.create_session(PARAMS, {"extra_body": [1]})
    assert [path for path, _ in caught.value.problems] == ["extra_body"]


@pytest.mark.parametrize(
    "workflow",
    [
        {"id": "wf", "version": "latest"},
        ChatSessionWorkflowParam(id="wf", version="latest"),
    ],
)
def test_latest_version_is_warned_of(workflow):
    with pytest.warns(UserWarning, match="latest") as caught:
        _protocol.warn_of_latest(workflow)

    assert str(caught[0].message) == (
        "workflow.version='latest' is accepted by the API but fails in the browser. "
        "Leave the version out to run the latest one."
    )


def test_latest_version_is_warned_of_without_a_caller(monkeypatch):
    module = {"__name__": "chatkit_async.sessions"}
    code = SimpleNamespace(co_filename="sessions.py")
    outermost = SimpleNamespace(f_back=None, f_globals=module, f_code=code, f_lineno=3)
    monkeypatch.setattr(_protocol, "currentframe", lambda: outermost)

    with pytest.warns(UserWarning, match="latest") as caught:
        _protocol.warn_of_latest({"version": "latest"})

    assert (caught[0].filename, caught[0].lineno) == ("sessions.py", 3)


@pytest.mark.parametrize(
    "workflow",
    ["latest", {"id": "latest", "version": "2"}, ChatSessionWorkflowParam(id="latest"), None, 5],
)
def test_other_versions_are_not_warned_of(workflow):
    _protocol.warn_of_latest(workflow)


# What cancel sends


def test_cancel_is_a_post_without_a_body():
    assert CANCEL.method == "POST"
    assert CANCEL.route == "/chatkit/sessions/{session_id}/cancel"
    assert CANCEL.path == "/chatkit/sessions/cksess_1/cancel"
    assert CANCEL.body is None
    assert CANCEL.result is ChatSession


def test_cancel_has_a_body_where_one_is_asked_for():
    assert _protocol.cancel_session("c", {"extra_body": {"a": 1}}).body == b'{"a":1}'
    assert _protocol.cancel_session("c", {"extra_body": {}}).body == b"{}"


@pytest.mark.parametrize(
    ("session_id", "segment"),
    [
        ("cksess_123", "cksess_123"),
        ("a/b", "a%2Fb"),
        ("a?x=1", "a%3Fx%3D1"),
        ("a#b", "a%23b"),
        ("a%2Fb", "a%252Fb"),
        ("%2e%2e", "%252e%252e"),
        ("...", "..."),
        ("../x", "..%2Fx"),
        ("é", "%C3%A9"),
        ("a b", "a%20b"),
        (" a ", "%20a%20"),
        ("a+b", "a%2Bb"),
        ("{session_id}", "%7Bsession_id%7D"),
        ("a\\b", "a%5Cb"),
        ("a;b", "a%3Bb"),
        ("😀", "%F0%9F%98%80"),
    ],
)
def test_an_id_is_one_segment_of_the_path_encoded_exactly_once(session_id, segment):
    path = _protocol.cancel_session(session_id, {}).path
    assert path == f"/chatkit/sessions/{segment}/cancel"
    # As aiohttp is handed it, and sends it.
    assert URL(f"https://host/v1{path}", encoded=True).raw_path == f"/v1{path}"


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1).filter(str.strip))
def test_any_id_arrives_as_it_is(session_id):
    if session_id in {".", ".."}:
        return
    segments = _protocol.cancel_session(session_id, {}).path.split("/")
    assert [unquote(segment) for segment in segments] == [
        *("", "chatkit", "sessions"),
        session_id,
        "cancel",
    ]


@pytest.mark.parametrize(
    ("session_id", "sentence"),
    [
        ("", "must not be empty"),
        (" ", "must not be blank"),
        ("\u2003", "must not be blank"),
        (".", "must not be '.' or '..', which a path reads as a folder"),
        ("..", "must not be '.' or '..', which a path reads as a folder"),
        ("a\r\nb", "has a control character"),
        ("a\0", "has a control character"),
        ("a\x7f", "has a control character"),
        ("a\x85", "has a control character"),
        ("a\ud800", "has text that UTF-8 cannot encode (a lone surrogate)"),
        (None, "must be a string, got None"),
        (5, "must be a string, got 5"),
        (b"cksess_1", "must be a string, got bytes"),
        (ChatSession.from_dict({}), "must be a string, got ChatSession"),
    ],
    ids=ascii,
)
def test_an_id_that_cannot_be_right(session_id, sentence):
    with pytest.raises(ParameterError) as caught:
        _protocol.cancel_session(session_id, {})
    assert caught.value.problems == (("session_id", sentence),)


def test_every_problem_of_a_cancel_is_found_at_once():
    with pytest.raises(ParameterError) as caught:
        _protocol.cancel_session("", {"max_retries": -1, "extra_body": {"a": {1}}})
    assert [path for path, _ in caught.value.problems] == [
        "session_id",
        "max_retries",
        "extra_body.a",
    ]


# The options of both


class Colour(str, Enum):  # noqa: UP042 - its str() is not its value
    RED = "red & green"


@pytest.mark.parametrize(
    "call",
    [
        lambda options: _protocol.create_session(PARAMS, options),
        lambda options: _protocol.cancel_session("cksess_1", options),
    ],
    ids=["create", "cancel"],
)
class TestOptions:
    def test_a_query_is_encoded(self, call):
        query = {"a b": "c&d=e", "é": "ü", "n": 5, "x": 2.5, "e": Colour.RED, "s": Secret("t")}
        path = call({"extra_query": query}).path
        assert path.endswith("?a+b=c%26d%3De&%C3%A9=%C3%BC&n=5&x=2.5&e=red+%26+green&s=t")

    @pytest.mark.parametrize("options", [{}, {"extra_query": {}}])
    def test_without_a_query_there_is_no_question_mark(self, call, options):
        assert "?" not in call(options).path

    def test_headers_are_kept_as_secrets(self, call):
        made = call({"extra_headers": {"X-Token": "hush-hush", "X-Colour": Colour.RED}})
        assert made.headers == {"X-Token": "hush-hush", "X-Colour": "red & green"}
        assert "hush-hush" not in repr(made)

    def test_an_unknown_option_is_a_type_error(self, call):
        with pytest.raises(TypeError, match="did you mean 'timeout'"):
            call({"timeuot": 5})


# Replies that are of use


def test_a_reply_is_read_into_the_call_s_result():
    session = read(FITTING)
    assert session == ChatSession.from_dict(FITTING)
    assert session.validate() is session


@pytest.mark.parametrize("data", [DOCUMENTED_CREATED, DOCUMENTED_CANCELLED, {}])
def test_any_json_object_is_read(data):
    assert read(data).to_dict() == data


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_any_2xx_is_success(status):
    assert read(FITTING, status).id == FITTING["id"]


@pytest.mark.parametrize(
    ("encoding", "content_type"),
    [
        ("utf-8", "application/json"),
        ("utf-8", None),
        ("utf-8", "text/plain"),
        ("utf-8", "application/json; charset=latin-1"),
        ("utf-8-sig", "application/json"),
        ("utf-16", "application/json"),
        ("utf-32", "application/json; charset=utf-8"),
    ],
)
def test_a_body_is_read_in_its_encoding_whatever_its_headers_say(encoding, content_type):
    headers = {} if content_type is None else {"content-type": content_type}
    content = json.dumps({"user": "Zoë"}, ensure_ascii=False).encode(encoding)
    assert read(content, headers=headers, call=create_for("Zoë")).user == "Zoë"


def test_the_request_id_is_the_header_s_whatever_its_case():
    reply = Reply(status=200, headers=CIMultiDict({"X-REQUEST-ID": "req_1"}), content=b"")
    assert reply.clean_request_id(()) == "req_1"
    assert Reply(status=200, headers={}, content=b"").clean_request_id(()) is None


@pytest.mark.unmeasured
@pytest.mark.parametrize("status", [200, 301, 404, 500])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_an_error_is_printable(status, encoding):
    for code in [*range(256), 0x200F, 0x202E, 0x2028]:
        raw = f"a{chr(code)}b".encode(encoding, "replace")
        text = raw.decode("utf-8", "surrogateescape")
        headers = {"x-request-id": text, "X-Odd": text, "Location": f"https://{text}/"}
        said = {name: f"a{chr(code)}b" for name in ("message", "code", "param", "type")}
        error = failure({"error": said} if status != 200 else b"?", status, headers)
        texts = [str(error), error.request_id, *getattr(error, "headers", {}).values()]
        texts += [getattr(error, name, "") for name in ("code", "param", "type")]
        assert all(map(str.isprintable, texts)), texts


def test_a_reply_s_repr_has_neither_body_nor_headers():
    reply = Reply(status=200, headers={"Set-Cookie": KEY}, content=CLIENT_SECRET.encode())
    assert KEY not in repr(reply)
    assert CLIENT_SECRET not in repr(reply)


# Replies to other requests


def create_for(user, **options):
    return _protocol.create_session({"user": user, "workflow": "wf"}, options)


@pytest.mark.parametrize("user", ["user_124", "user_12", "", " ", "user 123", "user_1234"])
def test_another_users_session_is_refused(user):
    data = FITTING | {"user": user}

    error = failure(data)

    assert (error.kind, error.status_code) == ("mismatched", 200)
    assert error.message.endswith("If a gateway rewrites user ids, pass verify_replies=False")


def test_another_session_is_refused_by_cancel():
    error = failure({"id": "cksess_2", "status": "cancelled"}, call=CANCEL)

    assert error.kind == "mismatched"
    assert "may have been cancelled" in error.message


@pytest.mark.parametrize("found", ["chatkit.thread", "chatkit.thread.deleted", "list"])
@pytest.mark.parametrize("call", [CREATE, CANCEL], ids=["create", "cancel"])
def test_another_kind_of_reply_is_refused(call, found):
    error = failure({"object": found, "client_secret": CLIENT_SECRET}, call=call)

    assert error.kind == "mismatched"
    assert CLIENT_SECRET not in shown(error)


@pytest.mark.parametrize("found", ["chat_session", "", None, 5, []])
def test_an_unknown_kind_of_reply_is_read(found):
    assert read({"object": found}).to_dict() == {"object": found}


def test_a_refused_session_is_not_shown():
    data = FITTING | {"user": "somebody.else@example.com"}

    text = shown(failure(data))

    assert "somebody.else" not in text
    assert FITTING["user"] not in text
    assert CLIENT_SECRET not in text


@pytest.mark.parametrize(
    ("sent", "replied"),
    [
        ("Ada", "ada"),
        ("STRASSE", "stra\u00dfe"),
        ("\uff21\uff44\uff41\uff11", "Ada1"),  # fullwidth
        ("caf\u00e9", "cafe\u0301"),
        ("\ufb01t", "FIT"),  # a ligature
        ("  ada  lovelace\t", "ada lovelace"),
        ("ada\u00a0lovelace", "ada lovelace"),
        ("\u0345\u03b1", "\u03b9\u03b1"),
    ],
)
def test_a_normalised_user_is_the_same(sent, replied):
    data = FITTING | {"user": replied}

    assert read(data, call=create_for(sent)).user == replied
    assert read(FITTING | {"user": sent}, call=create_for(replied)).user == sent


def test_a_normalised_session_id_is_the_same():
    assert read({"id": "CKSESS_1 "}, call=CANCEL).id == "CKSESS_1 "


@pytest.mark.parametrize("user", [None, 5, True, ["user_124"], {"id": "user_124"}])
@pytest.mark.parametrize("call", [CREATE, CANCEL], ids=["create", "cancel"])
def test_an_id_that_is_no_string_is_not_compared(call, user):
    data = {"user": user, "id": user}

    assert read(data, call=call).to_dict() == data


def test_create_compares_no_session_id_and_cancel_no_user():
    assert read({"id": "cksess_9"}).id == "cksess_9"
    assert read({"user": "user_9"}, call=CANCEL).user == "user_9"


def test_extra_body_says_which_user_was_sent():
    call = create_for("ada", extra_body={"user": "grace"})

    assert read({"user": "Grace"}, call=call).user == "Grace"
    assert failure({"user": "ada"}, call=call).kind == "mismatched"


@pytest.mark.parametrize("user", [None, 5, {"id": "ada"}])
def test_a_user_in_extra_body_that_is_no_string_is_not_compared(user):
    call = create_for("ada", extra_body={"user": user})

    assert read({"user": "grace"}, call=call).user == "grace"


@pytest.mark.parametrize("call", [CREATE, CANCEL], ids=["create", "cancel"])
def test_replies_are_not_compared_without_verify(call):
    reply = Reply(status=200, headers={}, content=b'{"user": "x", "id": "y"}')

    assert _protocol.read(call, reply, (KEY,), verify=False).user == "x"


def test_a_call_does_not_show_whom_it_is_about():
    assert FITTING["user"] not in repr(CREATE)


# Replies that are of no use


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b" \r\n\t ", "empty"),
        (b"<html>502</html>", "not_json"),
        (b'{"id": "cut of', "not_json"),
        (b"{'id': 'x'}", "not_json"),
        (b"\xff\xfe\xfa", "not_json"),
        ('{"user": "é"}'.encode("latin-1"), "not_json"),
        (b"null", "not_an_object"),
        (b"[]", "not_an_object"),
        (b'"id"', "not_an_object"),
        (b"5", "not_an_object"),
        (b"true", "not_an_object"),
        (b"[" * 1_000_000, "too_deep"),
        (b'{"a":' * 1_000_000, "too_deep"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_2xx_without_a_json_object_is_an_error_that_says_why(content, kind):
    error = failure(content, 201, {"x-request-id": "req_1"})
    assert isinstance(error, APIResponseError)
    assert error.kind == kind
    assert error.status_code == 201
    assert error.request_id == "req_1"
    assert error.message.startswith("the API replied 201, but ")
    assert error.message.endswith("; the session may exist, and then expires on its own")


def test_of_a_cancellation_it_is_said_that_the_session_may_be_cancelled():
    assert failure(b"", call=CANCEL).message.endswith("may have been cancelled")


@pytest.mark.parametrize("flaw", ["truncated", "too_large"])
def test_a_body_that_is_not_whole_is_not_read(flaw):
    assert failure(FITTING, flaw=flaw).kind == flaw


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("br", "'br'"),
        ("b\udcffr\x1b", r"'bÿr\x1b'"),
        (f"x {KEY}", f"'x {MASK}'"),
        ("z" * 999, "z" * 100),
    ],
)
def test_undecodable_body_names_its_encoding(encoding, named):
    headers = {"Content-Encoding": encoding, "x-request-id": "req_1"}
    error = failure(b"", 201, headers, flaw="encoding")
    assert (error.kind, error.status_code, error.request_id) == ("encoding", 201, "req_1")
    assert f"could not be decoded from Content-Encoding {named}" in error.message.replace(
        f"'{named}'", named
    )


def test_undecodable_error_body_keeps_the_status_error():
    error = failure(b"", 404, {"Content-Encoding": "br"}, flaw="encoding")
    assert isinstance(error, NotFoundError)
    assert error.body == ""


@pytest.mark.parametrize("charset", ["latin-1", "no-such", "idna", "unicode_escape"])
def test_the_server_does_not_choose_how_its_body_is_decoded(charset):
    # Some of Python's codecs take quadratic time, which the server would choose too; or warn.
    content = '{"user": "é"}'.encode("latin-1")
    headers = {"Content-Type": f"application/json; charset={charset}"}
    error = failure(content, headers=headers)
    assert error.kind == "not_json"
    assert error.cause == "invalid continuation byte at byte 10"


def test_what_the_decoder_said_is_kept_without_the_document():
    error = failure(f'{{"client_secret": "{CLIENT_SECRET}", oops}}'.encode())
    assert error.cause.startswith("Expecting property name enclosed in double quotes: line 1")
    assert CLIENT_SECRET not in shown(error)


def test_no_frame_of_an_unusable_reply_shows_its_body():
    for content in (json.dumps([CLIENT_SECRET]).encode(), CLIENT_SECRET.encode() + b"\xff"):
        assert CLIENT_SECRET not in shown(failure(content))


# Errors of the API


def error_of(**error):
    return {"error": {"message": "No.", "type": "invalid_request_error", **error}}


def test_an_error_has_all_that_the_api_said():
    body = error_of(message="Too long: 'user'.", param="user", code="string_too_long")
    error = failure(body, 400, {"x-request-id": "req_1", "X-Other": "kept"})
    assert type(error) is BadRequestError
    assert error.status_code == 400
    assert error.code == "string_too_long"
    assert error.param == "user"
    assert error.type == "invalid_request_error"
    assert error.request_id == "req_1"
    assert error.body == body
    assert error.headers["x-other"] == "kept"
    assert error.retry_after is None
    assert error.message == "the API replied 400 to POST /chatkit/sessions: Too long: 'user'"


@pytest.mark.parametrize(
    ("content", "body", "reason"),
    [
        (b"", "", "Bad Gateway"),
        (b"<html>oops</html>", "<html>oops</html>", "Bad Gateway"),
        (b'{"error": {"message": "cut', '{"error": {"message": "cut', "Bad Gateway"),
        (b"null", None, "Bad Gateway"),
        (b"[1]", [1], "Bad Gateway"),
        (b'"busy"', "busy", "Bad Gateway"),
        (b"{}", {}, "Bad Gateway"),
        (b'{"detail": "busy"}', {"detail": "busy"}, "Bad Gateway"),
        (b'{"error": null}', {"error": None}, "Bad Gateway"),
        (b'{"error": [1]}', {"error": [1]}, "Bad Gateway"),
        (b'{"error": "busy."}', {"error": "busy."}, "busy"),
        (b'{"error": {"message": ""}}', {"error": {"message": ""}}, "Bad Gateway"),
        (b'{"error": {"message": " . "}}', {"error": {"message": " . "}}, "Bad Gateway"),
        (b'{"error": {"message": 5}}', {"error": {"message": 5}}, "Bad Gateway"),
        (b"\xff\xfe\xfa", "\xff\xfe\xfa", "Bad Gateway"),
    ],
)
def test_any_body_makes_an_error(content, body, reason):
    error = failure(content, 502)
    assert type(error) is InternalServerError
    assert error.body == body
    assert error.message == f"the API replied 502 to POST /chatkit/sessions: {reason}"
    assert (error.code, error.param, error.type) == (None, None, None)


@pytest.mark.parametrize("value", [5, True, ["x"], {"x": 1}, None], ids=repr)
def test_fields_of_a_wrong_type_are_none_and_stay_in_the_body(value):
    body = error_of(code=value, param=value, type=value)
    error = failure(body, 400)
    assert (error.code, error.param, error.type) == (None, None, None)
    assert error.body == body


def test_a_body_that_is_nested_too_deeply_is_kept_as_text():
    error = failure(b"[" * 10_000, 500)
    assert error.body == "[" * 10_000


def test_a_long_body_is_cut_and_its_fields_are_read_all_the_same():
    error = failure(error_of(code="too_long", message="No." + " x" * 20_000), 400)
    assert isinstance(error.body, str)
    assert len(error.body) == _protocol.MAX_ERROR_BODY
    assert error.code == "too_long"
    assert len(error.message) < 1_100


def test_a_body_of_just_the_size_that_is_kept_is_not_cut():
    empty = len(json.dumps(error_of(message="")).encode())
    body = error_of(message="m" * (_protocol.MAX_ERROR_BODY - empty))
    assert failure(json.dumps(body).encode(), 400).body == body


def test_what_the_api_said_is_read_in_its_encoding():
    content = json.dumps(error_of(message="d\xe9j\xe0"), ensure_ascii=False).encode("utf-16")
    assert failure(content, 400).message.endswith(": d\xe9j\xe0")


def test_what_the_api_said_ends_where_it_ended_but_for_a_full_stop():
    assert failure(error_of(message="No plan X . "), 400).message.endswith(": No plan X")


def test_what_the_api_said_becomes_one_line():
    error = failure(error_of(message="first\r\nsecond\t\x1b[31m third\ud800."), 400)
    assert error.message.endswith("/chatkit/sessions: first second \\x1b[31m third\\ud800")


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (401, None, "Check OPENAI_API_KEY or api_key: it is missing, wrong or revoked"),
        (403, None, "The key may not do this: check its permissions and its project"),
        (429, None, "Too many requests for the project's rate limit: send fewer at a time"),
        (
            429,
            "insufficient_quota",
            "The project's quota is used up: see its billing page; trying again will not help",
        ),
        (
            404,
            None,
            (
                "Check the workflow's id; the usual cause is a workflow that belongs to another "
                "project than the key"
            ),
        ),
    ],
)
def test_an_error_says_what_to_do(status, code, hint):
    message = failure(error_of(code=code), status).message
    assert message.removesuffix(f". {WITHDRAWAL}").endswith(f": No. {hint}")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 429, 500])
def test_withdrawal_is_mentioned_for_refused_creates(status):
    message = failure(error_of(), status).message
    assert message.endswith(f". {WITHDRAWAL}") is (status in {403, 404, 410})
    assert WITHDRAWAL not in failure(error_of(), status, call=CANCEL).message


@pytest.mark.parametrize("call", [CREATE, CANCEL])
def test_invalid_url_is_the_base_urls_fault(call):
    body = error_of(message="Invalid URL (POST /chatkit/sessions)")
    message = failure(body, 404, call=call).message
    assert message.endswith("(POST /chatkit/sessions). Check base_url: it should end with /v1")


def test_invalid_url_under_v1_may_be_a_withdrawal():
    message = failure(error_of(message="Invalid URL (POST /v1/chatkit/sessions)"), 404).message
    assert message.endswith(f". Check base_url: it should end with /v1. {WITHDRAWAL}")


def test_304_is_not_a_redirect():
    message = failure(b"", 304).message
    assert "Not Modified. Only a request with a condition is answered like this" in message
    assert "Redirect" not in message


def test_a_404_on_cancel_is_about_the_session():
    error = failure(error_of(), 404, call=CANCEL)
    assert type(error) is NotFoundError
    assert error.message == (
        "the API replied 404 to POST /chatkit/sessions/{session_id}/cancel: No. "
        "Check the session's id; it must come from the same project as the key"
    )


def test_a_status_without_a_name_gives_no_reason():
    assert failure(b"", 599).message.endswith("no reason given")


@pytest.mark.parametrize("status", [100, 301, 304, 399, 400, 499, 500, 600])
def test_whatever_is_not_2xx_is_an_error(status):
    error = failure(FITTING, status)
    assert isinstance(error, APIStatusError)
    assert error.status_code == status
    assert CLIENT_SECRET not in shown(error)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://other.example/v1/chatkit/sessions?a=b", "https://other.example"),
        ("http://other.example:8080/x", "http://other.example:8080"),
        ("//other.example/x", "https://other.example"),
        ("http://[2001:db8::1]:80/", "http://[2001:db8::1]:80"),
        ("https://user:hush-hush@other.example/", "https://other.example"),
        ("/v2/chatkit/sessions", "the same host"),
        ("", "the same host"),
        ("https://[", "an invalid address"),
        ("https://host:port/", "an invalid address"),
    ],
)
def test_a_redirect_names_where_it_leads_and_is_not_followed(location, target):
    error = failure(b"", 307, {"Location": location})
    assert error.message.endswith(
        f". Redirects are not followed, as the key would go along (to {target}): correct base_url"
    )
    assert "hush-hush" not in error.message


@pytest.mark.parametrize(("status", "redirects"), [(300, True), (399, True), (400, False)])
def test_any_3xx_is_a_redirect_wherever_it_leads(status, redirects):
    assert ("(to the same host)" in failure(b"", status).message) is redirects


def test_an_error_pickles_with_its_headers():
    error = failure(error_of(), 429, {"Retry-After": "5"})
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is RateLimitError
    assert vars(again) == vars(error)
    assert again.headers["retry-after"] == "5"


# No secret in any of it


WRITTEN = {
    "plain": KEY,
    "in a sentence": f"Incorrect API key provided: {KEY}.",
    "bearer": f"Bearer {KEY}",
    "url": quote(f"a/{KEY}&", safe=""),
    "percent": "".join(f"%{byte:02X}" for byte in KEY.encode()),
    "base64 0": base64.b64encode(f"{KEY}:x".encode()).decode(),
    "base64 1": base64.b64encode(f"u{KEY}".encode()).decode(),
    "base64 2": base64.b64encode(f"us{KEY}".encode()).decode(),
    "json": json.dumps({"key": KEY}),
    "escaped": "".join(f"\\u{ord(c):04x}" for c in KEY),
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_a_key_is_in_nothing_of_an_error_however_the_server_writes_it(text):
    body = error_of(message=text, param=text, code=text, type=text, extra=[{text: text}])
    headers = {"x-request-id": text, "X-Echo": text, "Location": text, text: "a header's name"}
    for error in (
        failure(body, 401, headers),
        failure(body, 307, headers),
        failure(text.encode(), 500, headers),
        failure(b"[" + text.encode(), 200, headers),
        failure(b'"\xff"', 200, headers),
    ):
        seen = shown(error) + repr(dict(getattr(error, "headers", {})))
        assert KEY not in seen
        assert KEY not in unquote(seen)
        assert text not in seen
        assert MASK in str(error)


def test_a_key_that_the_cut_would_halve_is_masked_first():
    filler = "x" * (_protocol.MAX_ERROR_BODY - 10)
    secret = "0123456789abcdef0123456789abcdef"
    error = failure(f"{filler}{secret}".encode(), 500, secrets=(secret,))
    assert secret[:8] not in error.body


def test_a_key_in_the_origin_of_a_redirect_is_masked():
    assert KEY not in failure(b"", 307, {"Location": f"https://{KEY}.example/"}).message


def test_client_secrets_and_cookies_of_an_error_are_masked():
    body = {"error": {"message": "No."}, "session": {"client_secret": "short", "id": "cksess_1"}}
    error = failure(body, 409, {"Set-Cookie": "session=hush"})
    assert error.body["session"] == {"client_secret": MASK, "id": "cksess_1"}
    assert error.headers["Set-Cookie"] == MASK


def test_other_tokens_of_an_error_are_masked_too():
    error = failure(f'<p>{CLIENT_SECRET} "client_secret": "short"</p>'.encode(), 500)
    assert error.body == f'<p>{MASK} "client_secret": "{MASK}"</p>'


def test_secrets_may_be_any_iterable():
    error = failure(error_of(message=KEY, param=KEY), 401, secrets=iter([KEY]))
    assert isinstance(error, AuthenticationError)
    assert KEY not in shown(error)


# Retry-After


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"Retry-After-Ms": "1500", "Retry-After": "9"}, 1.5),
        ({"retry-after-ms": "0", "Retry-After": "9"}, 9.0),
        ({"retry-after-ms": "junk", "Retry-After": "9"}, 9.0),
        ({"retry-after-ms": "-5", "Retry-After": "9"}, 9.0),
        ({"retry-after-ms": "0.001", "Retry-After": "9"}, 9.0),
        ({"retry-after-ms": "0.999"}, None),
        ({"retry-after-ms": "1"}, 0.001),
        ({"Retry-After": "0.0009"}, None),
        ({"Retry-After": "0.001"}, 0.001),
        ({"RETRY-AFTER": "9"}, 9.0),
        ({"Retry-After": " 9 "}, 9.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "0"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "-inf"}, None),
        ({"Retry-After": "1e999"}, None),
        ({"Retry-After": "5, 7"}, None),
    ],
    ids=repr,
)
def test_seconds_to_wait(headers, seconds):
    assert _protocol.retry_after(CIMultiDict(headers)) == seconds


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("until", "seconds"),
    [
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 09:28:30 +0200", 30.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2026 07:28:30", 30.0),
        ("Wed, 21 Oct 2026 07:28:01 GMT", 1.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("Wed, 21 Oct 2026 07:27:00 GMT", None),
        ("Wed, 32 Oct 2026 07:27:00 GMT", None),
        ("1 Jan 2000 00:00:00 +9999999999999999999999", None),
    ],
)
def test_a_date_counts_from_the_reply_s_own(until, seconds):
    assert _protocol.retry_after(CIMultiDict({"Retry-After": until, "Date": DATE})) == seconds


@pytest.mark.parametrize("date", [{}, {"Date": "junk"}], ids=["without", "with a bent"])
def test_a_date_counts_from_now_without_the_reply_s_own(monkeypatch, date):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            assert tz is UTC, "a naive time cannot be compared with the server's"
            return datetime(2026, 10, 21, 7, 28, tzinfo=UTC)

    monkeypatch.setattr(_protocol, "datetime", Clock)
    headers = {"Retry-After": "Wed, 21 Oct 2026 07:28:05 GMT", **date}
    assert _protocol.retry_after(CIMultiDict(headers)) == 5.0


@given(
    st.text()
    | st.from_regex(r"\w{3}, \d{1,20} \w{3} \d{1,20} \d+:\d+:\d+ [+-]?\w{1,30}", fullmatch=True)
)
def test_no_header_breaks_it(text):
    seconds = _protocol.retry_after({"retry-after": text, "retry-after-ms": text, "date": DATE})
    assert seconds is None or 0 < seconds < float("inf")


def test_an_error_carries_the_wait():
    assert failure(b"", 429, {"Retry-After": "7"}).retry_after == 7.0


def test_the_code_of_an_error_is_cut_as_its_message_is():
    error = failure(error_of(message="m" * 5000, code="c" * 5000), 400)

    assert (len(error.code), error.message.count("m" * 1000)) == (1000, 1)
