"""Where each setting comes from, and the usual mistakes."""

from __future__ import annotations

import pytest

from chatkit_async.cli._settings import settings, without_password

KEY = "sk-proj-0123456789abcdef0123456789"


@pytest.fixture
def found(environment):
    """The finding about one setting, after these have been set."""

    def found(check, **variables):
        for name, value in variables.items():
            environment.setenv(name, value)
        _, findings = settings()
        (finding,) = [finding for finding in findings if finding.check == check]
        return finding

    return found


def test_an_empty_environment_means_the_defaults(found):
    assert found("OPENAI_BASE_URL").said == "https://api.openai.com/v1 (default)"
    assert found("OPENAI_ORG_ID").said == "none (default)"
    assert found("OPENAI_PROJECT_ID").said == "none (default)"
    assert found("proxy").said == "none (default)"
    assert settings()[0].has_key is False


# The key


def test_a_key_is_shown_by_its_kind_and_end_alone(found):
    finding = found("OPENAI_API_KEY", OPENAI_API_KEY=KEY)
    assert (finding.state, finding.said) == ("ok", "sk-proj-**********6789 (environment)")
    assert settings()[0].has_key


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "not set"),
        ("", "blank, which counts as not set"),
        (" \n", "blank, which counts as not set"),
    ],
)
def test_no_key_is_told_with_where_to_get_one(found, value, said):
    finding = found("OPENAI_API_KEY", **({} if value is None else {"OPENAI_API_KEY": value}))
    assert (finding.state, finding.said) == ("failed", said)
    assert finding.concerns_key
    assert "platform.openai.com/api-keys" in finding.advice[0]


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (f"{KEY}\n", "spaces or a line break around it"),
        (f"  {KEY}", "spaces or a line break around it"),
        (f'"{KEY}"', "quotation mark"),
        (f"'{KEY}'", "quotation mark"),
        ("sk-admin-" + "0" * 30, "an admin key"),
        ("sk-ant-" + "0" * 30, "Anthropic"),
        ("ek_" + "0" * 30, "a session's client secret"),
        ("org-0123456789", "OPENAI_ORG_ID"),
        ("proj_0123456789", "OPENAI_PROJECT_ID"),
        ("wf_0123456789", "a workflow's id"),
    ],
)
def test_a_key_of_another_kind_is_warned_of_and_not_shown(found, value, advice):
    finding = found("OPENAI_API_KEY", OPENAI_API_KEY=value)
    assert finding.state == "warning"
    assert any(advice in line for line in finding.advice)
    assert value.strip() not in finding.said


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (f"Bearer {KEY}", "begins with 'Bearer'"),
        (f"{KEY[:10]}\n{KEY[10:]}", "Copy it again"),
        (f"{KEY}é", "Copy it again"),
    ],
)
def test_a_key_that_cannot_be_sent_fails_without_being_shown(found, value, advice):
    finding = found("OPENAI_API_KEY", OPENAI_API_KEY=value)
    assert finding.state == "failed"
    assert finding.concerns_key
    assert advice in finding.advice[0]
    assert KEY[-4:] not in f"{finding.said} {finding.advice}"
    assert settings()[0].has_key is False


# The base URL


def test_a_base_url_of_the_environment_is_told_as_such(found):
    finding = found("OPENAI_BASE_URL", OPENAI_BASE_URL="http://127.0.0.1:8000/v1/")
    assert (finding.state, finding.said) == ("ok", "http://127.0.0.1:8000/v1 (environment)")


def test_a_blank_base_url_counts_as_not_set(found):
    finding = found("OPENAI_BASE_URL", OPENAI_BASE_URL=" ")
    assert finding.state == "ok"
    assert finding.said == (
        "https://api.openai.com/v1 (default: OPENAI_BASE_URL is set, but blank)"
    )


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("https://api.openai.com", "does not end with /v1"),
        ("https://api.openai.com/v1/chatkit", "must end with /v1"),
        ("https://api.openai.com/v1/chatkit/sessions", "must end with /v1"),
    ],
)
def test_an_unusual_path_is_warned_of(found, value, advice):
    finding = found("OPENAI_BASE_URL", OPENAI_BASE_URL=value)
    assert finding.state == "warning"
    assert advice in finding.advice[0]
    assert settings()[0].base_url == value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("http://api.openai.com/v1", "plain http"),
        ("ftp://api.openai.com/v1", "must start with https://"),
        ("https://api.openai.com/v1?key=1", "has a query"),
        ("api.openai.com/v1", "no scheme"),
    ],
)
def test_a_base_url_that_cannot_be_fails_alone(found, value, said):
    finding = found("OPENAI_BASE_URL", OPENAI_BASE_URL=value)
    assert finding.state == "failed"
    assert said in finding.said
    target, findings = settings()
    assert target.base_url is None
    assert "proxy" not in {finding.check for finding in findings}


# Organization and project


@pytest.mark.parametrize(
    ("name", "good"), [("OPENAI_ORG_ID", "org-123"), ("OPENAI_PROJECT_ID", "proj_123")]
)
def test_an_id_is_shown_and_one_of_another_kind_warned_of(found, name, good):
    assert found(name, **{name: good}).said == f"{good} (environment)"
    assert found(name, **{name: " "}).said == f"none (default: {name} is set, but blank)"
    assert found(name, **{name: "other"}).state == "warning"
    broken = found(name, **{name: "a\x7fb"})
    assert (broken.state, broken.said) == ("failed", "has a control character, or is not ASCII")


# The proxy


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_is_shown_without_its_password_and_with_its_variable(found, name):
    finding = found("proxy", **{name: "http://me:pass@proxy.example:3128"})
    assert (finding.state, finding.said) == ("ok", f"http://proxy.example:3128 ({name})")
    assert settings()[0].proxy == "http://me:pass@proxy.example:3128"


@pytest.mark.parametrize(
    ("variables", "state", "said"),
    [
        (
            {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "api.openai.com"},
            "ok",
            "none: HTTPS_PROXY is set, but NO_PROXY names api.openai.com",
        ),
        (
            {"HTTP_PROXY": "http://proxy.example:3128"},
            "warning",
            "none: HTTP_PROXY is for http:// addresses",
        ),
    ],
)
def test_proxy_that_is_not_used_is_explained(found, variables, state, said):
    finding = found("proxy", **variables)
    assert (finding.state, finding.said) == (state, said)


def test_this_machine_is_reached_without_a_proxy(found):
    finding = found("proxy", HTTP_PROXY="http://p:1", OPENAI_BASE_URL="http://localhost:1/v1")
    assert finding.said == "none: this machine needs no proxy"


def test_a_proxy_that_cannot_be_fails_without_its_password(found):
    finding = found("proxy", HTTPS_PROXY="socks5://me:pass@proxy.example")
    assert finding.state == "failed"
    assert finding.said.startswith("HTTPS_PROXY must be the URL of an HTTP proxy")
    assert "pass" not in finding.said
    assert settings()[0].base_url is None


def test_a_proxys_url_loses_its_login_alone():
    assert without_password("http://me:p%40ss@host:1/x") == "http://host:1/x"
    assert without_password("http://host:1") == "http://host:1"


# Names


@pytest.mark.parametrize(
    ("name", "meant"),
    [("OPENAI_API_BASE", "OPENAI_BASE_URL"), ("OPENAI_ORGANIZATION", "OPENAI_ORG_ID")],
)
def test_a_variable_that_is_not_read_is_named_with_the_one_that_is(found, name, meant):
    finding = found(name, **{name: "x"})
    assert finding.state == "warning"
    assert meant in finding.said
