"""Settings: what is refused, what the environment fills in, and that no credential is shown."""

from __future__ import annotations

import ssl
import traceback
from collections import UserDict
from functools import partial

import pytest

from chatkit_async import AsyncChatKit, _settings
from chatkit_async._checks import Withheld
from chatkit_async._settings import Settings
from chatkit_async.errors import ConfigurationError
from chatkit_async.options import (
    ClientOptions,
    RetryPolicy,
    request_problems,
    traceback_safe,
    traceback_safe_options,
)
from chatkit_async.secret import Secret

KEY = "sk-proj-0123456789abcdefghij"


VARIABLES = [
    "OPENAI_API_KEY",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
    "OPENAI_BASE_URL",
    *(f"{proxy}_proxy" for proxy in ("http", "https", "all", "no")),
    *(f"{proxy}_PROXY" for proxy in ("HTTP", "HTTPS", "ALL", "NO")),
]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def resolve(**given):
    return Settings.resolve({"api_key": Secret(KEY), **given})


def refused(**given):
    with pytest.raises(ConfigurationError) as caught:
        resolve(**given)
    assert KEY not in shown(caught.value)
    return dict(caught.value.problems)


def shown(error):
    """All that a traceback can show of an error, the locals of the package's frames included."""
    frames = error.__traceback__
    while frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return "".join(
        traceback.TracebackException(
            type(error), error, frames, capture_locals=True, compact=False
        ).format()
    )


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    settings = Settings.resolve({})
    assert settings.api_key == KEY
    assert type(settings.api_key) is Secret


def test_the_argument_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    assert resolve().api_key == KEY


def test_a_key_is_stripped():
    assert resolve(api_key=Secret(f"\t{KEY}\r\n")).api_key == KEY


def test_a_callable_is_left_for_later():
    def provider():
        return KEY

    assert resolve(api_key=provider).api_key is provider


def test_no_key_at_all():
    assert refused(api_key=None) == {"OPENAI_API_KEY": "is not set: set it, or pass api_key=..."}


def test_a_blank_variable_is_no_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert refused(api_key=None) == {"OPENAI_API_KEY": "is not set: set it, or pass api_key=..."}


@pytest.mark.parametrize("key", ["", "   ", "\n"])
def test_a_blank_key(monkeypatch, key):
    assert refused(api_key=Secret(key)) == {"api_key": "must not be blank"}


def test_a_variable_of_nothing_but_blanks(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "  ")
    assert list(refused(api_key=None)) == ["OPENAI_API_KEY"]


BENT_KEYS = {
    "newline": f"{KEY}\nX-Evil: 1",
    "carriage return": f"{KEY}\rrest",
    "tab": f"{KEY}\trest",
    "space": f"{KEY} rest",
    "delete": f"{KEY}\x7frest",
    "not ASCII": f"{KEY}é",
    "surrogate": f"{KEY}\ud800",
    "invisible": f"{KEY}\u200brest",
}


@pytest.mark.parametrize("key", BENT_KEYS.values(), ids=BENT_KEYS)
@pytest.mark.parametrize("source", ["argument", "environment"])
def test_a_key_with_what_no_key_has_is_refused_and_not_echoed(monkeypatch, key, source):
    if source == "environment":
        try:
            monkeypatch.setenv("OPENAI_API_KEY", key)
        except UnicodeEncodeError:
            monkeypatch.setattr(_settings.os, "environ", {"OPENAI_API_KEY": key})
    name = "api_key" if source == "argument" else "OPENAI_API_KEY"
    with pytest.raises(ConfigurationError, match="has a character that no API key has") as caught:
        Settings.resolve({"api_key": traceback_safe(key)} if source == "argument" else {})
    assert [where for where, _ in caught.value.problems] == [name]
    assert KEY not in shown(caught.value)


@pytest.mark.parametrize(("key", "wrong"), [(5, "int"), (b"sk-bytes", "bytes"), ([KEY], "list")])
def test_a_key_of_a_wrong_type_is_named_by_its_type(key, wrong):
    assert refused(api_key=traceback_safe(key)) == {
        "api_key": f"must be a string or a callable, got {wrong}"
    }


@pytest.mark.parametrize(
    ("key", "problem"),
    [(KEY, None), (f" {KEY} ", None), (None, "must be a string, got None")],
)
def test_a_key_from_a_callable_is_held_to_the_same(key, problem):
    assert _settings.key_problem(key) == problem


def test_settings_show_no_credential():
    settings = resolve(default_headers={"X-Token": "tok"}, proxy="http://user:pass@proxy:1")
    assert KEY not in repr(settings)
    assert "tok'" not in repr(settings)
    assert "pass" not in repr(settings)


def test_of_what_is_no_text_only_the_type_is_left():
    given = {"project": ["hush-1"], "default_headers": {"X": b"hush-2"}, "extra_headers": ["hush"]}
    assert traceback_safe_options(given) == {
        "project": Withheld(list),
        "default_headers": {"X": Withheld(bytes)},
        "extra_headers": Withheld(list),
    }
    assert refused(
        **traceback_safe_options({"default_headers": {"X": b"hush"}, "project": ["hush"]})
    ) == {
        "default_headers['X']": "must be a string, got bytes",
        "project": "must be a string, got list",
    }


@pytest.mark.parametrize(
    ("name", "variable"),
    [("organization", "OPENAI_ORG_ID"), ("project", "OPENAI_PROJECT_ID")],
)
class TestOrganizationAndProject:
    def test_it_comes_from_the_environment(self, monkeypatch, name, variable):
        monkeypatch.setenv(variable, " id_1 ")
        assert getattr(resolve(), name) == "id_1"

    def test_the_argument_wins(self, monkeypatch, name, variable):
        monkeypatch.setenv(variable, "id_1")
        assert getattr(resolve(**{name: "id_2"}), name) == "id_2"

    @pytest.mark.parametrize("blank", ["", "  "])
    def test_a_blank_variable_counts_as_unset(self, monkeypatch, name, variable, blank):
        monkeypatch.setenv(variable, blank)
        assert getattr(resolve(), name) is None

    def test_an_empty_argument_turns_the_variable_off(self, monkeypatch, name, variable):
        monkeypatch.setenv(variable, "id_1")
        assert getattr(resolve(**{name: ""}), name) is None

    @pytest.mark.parametrize("text", ["a\nb", "a\x00b", "é"])
    def test_it_has_to_fit_a_header(self, monkeypatch, name, variable, text):
        sentence = "has a control character, or is not ASCII"
        assert refused(**{name: text}) == {name: sentence}

    def test_a_variable_is_named_as_the_culprit(self, monkeypatch, name, variable):
        monkeypatch.setenv(variable, "a\tb\x7f")
        assert list(refused()) == [variable]

    def test_it_has_to_be_a_string(self, monkeypatch, name, variable):
        assert refused(**{name: 5}) == {name: "must be a string, got 5"}


def test_a_callable_key_is_called_and_never_shown():
    def key(text):
        return text

    with pytest.raises(ConfigurationError) as caught:
        AsyncChatKit(api_key=partial(key, KEY), timeout=-1)
    assert KEY not in shown(caught.value)
    given = traceback_safe_options({"api_key": partial(key, KEY)})
    assert repr(given) == "{'api_key': <a callable: **********>}"
    assert given["api_key"]() == KEY
    assert traceback_safe_options(given) == given  # one that is hidden already is left as it is


def test_an_option_that_is_misspelt_is_not_shown():
    client = AsyncChatKit(api_key=KEY)
    with pytest.raises(TypeError, match="'api_kee'; did you mean 'api_key'") as caught:
        client.with_options(api_kee=KEY)
    assert KEY not in shown(caught.value)


def test_the_base_url_is_the_api_s():
    assert resolve().base_url == "https://api.openai.com/v1"


def test_the_base_url_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", " https://eu.example/v1/ ")
    assert resolve().base_url == "https://eu.example/v1"


@pytest.mark.parametrize("blank", ["", "   "])
def test_a_blank_base_url_variable_counts_as_unset(monkeypatch, blank):
    monkeypatch.setenv("OPENAI_BASE_URL", blank)
    assert resolve().base_url == "https://api.openai.com/v1"


def test_the_base_url_variable_is_named_as_the_culprit(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "ftp://host")
    assert list(refused()) == ["OPENAI_BASE_URL"]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://host/v1/", "https://host/v1"),
        ("https://host//", "https://host"),
        (" https://host/v1 ", "https://host/v1"),
        ("HTTPS://Host:8443/V1", "HTTPS://Host:8443/V1"),
        ("https://bücher.example/v1", "https://bücher.example/v1"),
        ("https://[2001:db8::1]:443/v1", "https://[2001:db8::1]:443/v1"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://LOCALHOST:8000", "http://LOCALHOST:8000"),
        ("http://api.localhost", "http://api.localhost"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://127.1.2.3", "http://127.1.2.3"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_a_base_url_that_is_right(url, kept):
    assert resolve(base_url=url).base_url == kept


PLAIN_HTTP = "is plain http, which shows the key to the network: use https, or allow_http=True"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (5, "must be a string, got 5"),
        ("", "must start with https://, has no scheme"),
        ("  ", "must start with https://, has no scheme"),
        ("api.example/v1", "must start with https://, has no scheme"),
        ("localhost:8000/v1", "must start with https://, starts with 'localhost'"),
        ("ftp://host/v1", "must start with https://, starts with 'ftp'"),
        (Secret(f"{KEY}:project"), "must start with https://, starts with '**********'"),
        ("https://", "has no host"),
        ("https:///v1", "has no host"),
        ("https://:443/v1", "has no host"),
        ("https://user@host/v1", "has a user or password: the key goes into api_key"),
        ("https://user:pass@host/v1", "has a user or password: the key goes into api_key"),
        ("https://@host/v1", "has a user or password: the key goes into api_key"),
        ("http://localhost@host/v1", "has a user or password: the key goes into api_key"),
        ("https://host/v1?a=b", "has a query: use extra_query, or default_headers"),
        ("https://host/v1?", "has a query: use extra_query, or default_headers"),
        ("https://host/v1#a", "has a fragment"),
        ("https://host/v1#", "has a fragment"),
        ("https://host:port/v1", "is not a URL"),
        ("https://host:65536/v1", "is not a URL"),
        ("https://[::1/v1", "is not a URL"),
        ("https://ho st/v1", "is not a URL"),
        ("https://host/v1\nX-Evil: 1", "is not a URL"),
        ("https://host/\x00", "is not a URL"),
        ("https://host/\ud800", "is not a URL"),
        ("https://a..ü/v1", "has an invalid host name"),
        ("https://a\\b/v1", "has an invalid host name"),
        ("http://host/v1", PLAIN_HTTP),
        ("http://localhost.example/v1", PLAIN_HTTP),
        ("http://notlocalhost/v1", PLAIN_HTTP),
        ("http://192.168.0.1/v1", PLAIN_HTTP),
        ("http://0.0.0.0/v1", PLAIN_HTTP),
        ("http://[2001:db8::1]/v1", PLAIN_HTTP),
    ],
    ids=ascii,
)
def test_a_base_url_that_cannot_be_right(url, sentence):
    assert refused(base_url=url) == {"base_url": sentence}


def test_plain_http_can_be_allowed():
    assert resolve(base_url="http://gateway/v1", allow_http=True).base_url == "http://gateway/v1"


@pytest.mark.parametrize(("allow", "got"), [("no", "str"), (1, "1"), (0.0, "0.0")])
def test_plain_http_is_not_allowed_by_accident(allow, got):
    assert refused(allow_http=allow) == {"allow_http": f"must be a bool, got {got}"}


def test_there_is_no_proxy_by_default():
    assert resolve().proxy is None


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_the_proxy_comes_from_the_environment(monkeypatch, variable):
    monkeypatch.setenv(variable, "http://proxy:3128")
    assert resolve().proxy == "http://proxy:3128"


def test_the_proxy_is_the_one_for_the_base_url_s_scheme(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://secure:1")
    monkeypatch.setenv("http_proxy", "http://plain:1")
    assert resolve().proxy == "http://secure:1"
    assert resolve(base_url="http://host", allow_http=True).proxy == "http://plain:1"


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_proxy_variable_counts_as_unset(monkeypatch, blank):
    monkeypatch.setenv("https_proxy", blank)
    assert resolve().proxy is None
    monkeypatch.setenv("all_proxy", "http://all:1")
    assert resolve().proxy == "http://all:1"


@pytest.mark.parametrize("no_proxy", ["api.openai.com", ".openai.com", "openai.com", "*"])
def test_no_proxy_is_respected(monkeypatch, no_proxy):
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert resolve().proxy is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_this_machine_is_never_reached_by_a_proxy_of_the_environment(monkeypatch, host):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert resolve(base_url=f"http://{host}:8000").proxy is None


def test_the_proxy_argument_wins(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "*")
    proxy = resolve(proxy=" http://other:1 ").proxy
    assert proxy == "http://other:1"
    assert type(proxy) is Secret


def test_a_proxy_without_a_scheme_is_http():
    assert resolve(proxy="proxy:3128").proxy == "http://proxy:3128"


NO_PROXY_URL = "must be the URL of an HTTP proxy, such as http://host:3128"


@pytest.mark.parametrize(
    ("proxy", "sentence"),
    [
        (5, "must be a string, got 5"),
        ("", NO_PROXY_URL),
        ("socks5://proxy:1080", NO_PROXY_URL),
        ("http://", NO_PROXY_URL),
        ("http://proxy:port", NO_PROXY_URL),
        ("http://us%3Aer:pass@proxy", "has a user with a colon, which HTTP cannot send"),
    ],
)
def test_a_proxy_that_cannot_be_right(proxy, sentence):
    assert refused(proxy=proxy) == {"proxy": sentence}


@pytest.mark.parametrize("variable", ["https_proxy", "all_proxy"])
def test_a_proxy_variable_is_named_as_the_culprit_and_not_echoed(monkeypatch, variable):
    monkeypatch.setenv(variable, "socks5://user:hush-hush@proxy:1080")
    with pytest.raises(ConfigurationError) as caught:
        resolve()
    assert caught.value.problems == ((variable, NO_PROXY_URL),)
    assert "hush-hush" not in str(caught.value)


def test_the_defaults_are_the_documented_ones():
    settings = resolve()
    assert settings.timeout == 60.0
    assert settings.attempt_timeout == 20.0
    assert settings.connect_timeout == 5.0
    assert settings.max_retries == 2
    assert settings.retry_policy == RetryPolicy(initial_backoff=0.5, max_backoff=8.0)
    assert settings.default_headers == {}
    assert settings.ssl is None
    assert settings.on_attempt is None


def test_what_is_given_is_what_is_set():
    given = {
        "timeout": None,
        "attempt_timeout": 1,
        "connect_timeout": 0.5,
        "max_retries": 0,
        "retry_policy": RetryPolicy(max_backoff=1.0),
        "ssl": ssl.create_default_context(),
        "on_attempt": print,
    }
    settings = resolve(**given)
    assert {name: getattr(settings, name) for name in given} == given


SECONDS = ["timeout", "attempt_timeout", "connect_timeout"]


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (0, "must be more than 0 seconds and finite, got 0; None means no limit"),
        (-1.5, "must be more than 0 seconds and finite, got -1.5; None means no limit"),
        (float("nan"), "must be more than 0 seconds and finite, got nan; None means no limit"),
        (float("inf"), "must be more than 0 seconds and finite, got inf; None means no limit"),
        (True, "must be seconds or None, got True"),
        ("30", "must be seconds or None, got str"),
    ],
    ids=repr,
)
def test_seconds_that_cannot_be_right(name, value, sentence):
    assert refused(**{name: value}) == {name: sentence}


@pytest.mark.parametrize("name", SECONDS)
def test_seconds_that_no_float_can_hold(name):
    sentence = "must be more than 0 seconds and finite, got a very large number"
    assert refused(**{name: 10**400}) == {name: f"{sentence}; None means no limit"}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (-1, "must be at least 0, got -1"),
        (True, "must be a whole number, got True"),
        (2.0, "must be a whole number, got 2.0"),
        (None, "must be a whole number, got None"),
        ("2", "must be a whole number, got str"),
    ],
    ids=repr,
)
def test_retries_that_cannot_be_right(value, sentence):
    assert refused(max_retries=value) == {"max_retries": sentence}


def test_there_is_at_least_one_connection():
    with pytest.raises(ConfigurationError, match="max_connections: must be at least 1, got 0"):
        Settings.resolve({"api_key": Secret(KEY)}, max_connections=0)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ssl", False, "must be a SSLContext, got False"),
        ("retry_policy", {}, "must be a RetryPolicy, got dict"),
        ("on_attempt", "print", "must be a callable, got str"),
    ],
)
def test_objects_of_a_wrong_type(name, value, sentence):
    assert refused(**{name: value}) == {name: sentence}


HEADERS = [
    ([("A", "b")], "", "must be a mapping, got list"),
    ("", "", "must be a mapping, got str"),
    ({5: "a"}, "[5]", "is not a header's name"),
    ({"": "a"}, "['']", "is not a header's name"),
    ({"a b": "a"}, "['a b']", "is not a header's name"),
    ({"a:": "a"}, "['a:']", "is not a header's name"),
    ({"é": "a"}, "['\\xe9']", "is not a header's name"),
    ({"a\r\nb": "a"}, "['a\\r\\nb']", "is not a header's name"),
    ({"A\n": "a"}, "['A\\n']", "is not a header's name"),
    ({"Content-Length": "5"}, "['Content-Length']", "belongs to the connection: leave it out"),
    ({"TRANSFER-ENCODING": "x"}, "['TRANSFER-ENCODING']", "belongs to the connection: leave it ou"),
    ({"A": 5}, "['A']", "must be a string, got 5"),
    ({"A": None}, "['A']", "must be a string, got None"),
    ({"A": "hush\r\nX: 1"}, "['A']", "has a control character, or is not ASCII"),
    ({"A": "hush\x00"}, "['A']", "has a control character, or is not ASCII"),
    ({"A": "hush é"}, "['A']", "has a control character, or is not ASCII"),
    ({"A": "hush \ud800"}, "['A']", "has a control character, or is not ASCII"),
]


@pytest.mark.parametrize(("headers", "step", "sentence"), HEADERS, ids=ascii)
def test_headers_that_cannot_be_right(headers, step, sentence):
    for found in (
        refused(default_headers=headers),
        dict(request_problems({"extra_headers": headers})),
    ):
        assert list(found) in (["default_headers" + step], ["extra_headers" + step])
        assert all(text.startswith(sentence) for text in found.values())


@pytest.mark.parametrize(
    ("name", "left"),
    [
        (f"api-key: {KEY}", "api-key:**********"),
        (f"Bearer {KEY}", "Bearer **********"),
        ("a b", "a b"),
        ("a:", "a:"),
    ],
)
def test_a_header_in_the_place_of_its_name_is_not_shown(name, left):
    with pytest.raises(ConfigurationError) as caught:
        AsyncChatKit(api_key=KEY, default_headers={name: "x"})
    assert dict(caught.value.problems) == {f"default_headers['{left}']": "is not a header's name"}
    assert KEY not in shown(caught.value)


@pytest.mark.parametrize("value", ["", "a b", "a\tb", "~!@#", "x" * 8000])
def test_headers_that_are_right(value):
    headers = resolve(default_headers=UserDict({"X-A": value})).default_headers
    assert headers == {"X-A": value}
    assert [type(text) for text in headers.values()] == [Secret]


def test_no_default_headers_are_none():
    assert resolve(default_headers=None).default_headers == {}


def test_every_problem_is_found_at_once():
    found = refused(
        api_key=Secret("\n"),
        organization="é",
        project=5,
        base_url="ftp://host",
        timeout=0,
        attempt_timeout=0,
        connect_timeout=0,
        max_retries=-1,
        retry_policy=5,
        verify_replies=5,
        default_headers=5,
        proxy=5,
        ssl=5,
        allow_http=5,
        on_attempt=5,
    )
    assert set(found) == set(ClientOptions.__annotations__)


def test_no_proxy_can_name_a_port(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "api.test:8443")

    assert resolve(base_url="https://api.test:8443/v1").proxy is None
    assert resolve(base_url="https://api.test/v1").proxy == "http://proxy:3128"


def test_an_organization_is_hidden_as_it_may_be_a_key_by_mistake():
    assert KEY not in repr(resolve(organization=KEY).organization)
