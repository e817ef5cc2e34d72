"""Checks of the settings: the source of each, and common mistakes. Nothing is sent."""

import os
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import attrs
import click

from chatkit_async._settings import Settings, is_loopback, key_problem
from chatkit_async.cli._finding import Finding
from chatkit_async.cli._options import BASE_URL_OPTION
from chatkit_async.cli._output import masked
from chatkit_async.errors import ConfigurationError
from chatkit_async.options import BASE_URL, ClientOptions
from chatkit_async.secret import Secret

_KINDS: Mapping[str, str] = {
    "sk-admin-": "an admin key, which manages an organization and cannot create sessions",
    "sk-ant-": "a key of Anthropic's API",
    "ek_": "a session's client secret, which belongs in a browser",
    "sess-": "a browser's login",
    "AIza": "a key of Google's API",
    "gsk_": "a key of Groq's API",
    "hf_": "a token of Hugging Face",
    "org-": "an organization's id: it goes into OPENAI_ORG_ID",
    "proj_": "a project's id: it goes into OPENAI_PROJECT_ID",
    "wf_": "a workflow's id",
}
_MISTAKEN = {
    "OPENAI_KEY": "OPENAI_API_KEY",
    "OPENAI_TOKEN": "OPENAI_API_KEY",
    "OPENAI_API_BASE": "OPENAI_BASE_URL",
    "OPENAI_ORGANIZATION": "OPENAI_ORG_ID",
    "OPENAI_PROJECT": "OPENAI_PROJECT_ID",
}
_GET_A_KEY = (
    "Create a key at https://platform.openai.com/api-keys and set OPENAI_API_KEY to it. "
    "`chatkit-async demo` works without one."
)

# Settings that are right, and not from the environment: beside these, one at a time is looked at.
_NEUTRAL: ClientOptions = {
    "api_key": "any",
    "organization": "",
    "project": "",
    "base_url": BASE_URL,
    "proxy": "http://any",
}


@attrs.frozen
class Target:
    """The destination of requests.

    Attributes:
        base_url: The base URL, or None if a setting is wrong.
        proxy: The proxy, which may contain a password, or None.
        has_key: True if there is a key that can be sent.
    """

    base_url: str | None
    proxy: Secret | None
    has_key: bool


def settings() -> tuple[Target, list[Finding]]:
    """Return the settings of the environment and the defaults, and what was found."""
    key = Secret(os.environ.get("OPENAI_API_KEY", ""))
    base, base_problem = _resolved({**_NEUTRAL, "base_url": None})
    _, organization_problem = _resolved({**_NEUTRAL, "organization": None})
    _, project_problem = _resolved({**_NEUTRAL, "project": None})
    base_url = base.base_url if base else None
    way, proxy_problem = _resolved({**_NEUTRAL, "base_url": base_url, "proxy": None})
    proxy = way.proxy if way else None
    findings = [
        _key(key),
        _base_url(base, base_problem),
        _id("OPENAI_ORG_ID", "org-", organization_problem),
        _id("OPENAI_PROJECT_ID", "proj_", project_problem),
    ]
    if base_url is not None:
        findings.append(_proxy(base_url, proxy, proxy_problem))
    target = Target(
        base_url=way.base_url if way else None,
        proxy=proxy,
        has_key=key_problem(key) is None,
    )
    return target, [*findings, *_mistaken()]


def _resolved(given: ClientOptions) -> tuple[Settings, str] | tuple[None, str]:
    """Return the settings of a client, or what is wrong with them."""
    try:
        return Settings.resolve(given), ""
    except ConfigurationError as error:
        return None, error.problems[0][1]


def _key(key: Secret) -> Finding:
    name = "OPENAI_API_KEY"
    if name not in os.environ:
        return Finding(name, "failed", "not set", (_GET_A_KEY,), concerns_key=True)
    if not key.strip():
        said = "blank, which counts as not set"
        return Finding(name, "failed", said, (_GET_A_KEY,), concerns_key=True)
    advice = tuple(_key_advice(key))
    if key_problem(key) is not None:
        said = (
            "contains a character that no key has: a space, a line break, or one that is not ASCII"
        )
        advice = advice or ("Copy it again, without the text around it.",)
        return Finding(name, "failed", said, advice, concerns_key=True)
    said = f"{masked(key.strip())} (environment)"
    return Finding(name, "warning" if advice else "ok", said, advice)


def _key_advice(key: Secret) -> Iterator[str]:
    text = key.strip()
    if text != key:
        yield "It has spaces or a line break around it. They are ignored, but remove them."
    if text[0] in "\"'":
        yield "It begins with a quotation mark, which is sent as part of the key."
    if text.lower().startswith("bearer "):
        yield "It begins with 'Bearer', which belongs in a header, not in the key."
    for prefix, kind in _KINDS.items():
        if text.startswith(prefix):
            yield f"It looks like {kind}."


def _base_url(base: Settings | None, problem: str) -> Finding:
    name = "OPENAI_BASE_URL"
    if base is None:
        return Finding(name, "failed", problem)
    said = f"{base.base_url} ({_source(name)})"
    path = urlsplit(base.base_url).path
    if "/chatkit" in path:
        advice = "It contains a part of the API's own path. It must end with /v1."
    elif not path.endswith("/v1"):
        advice = "It does not end with /v1, as OpenAI's does. Is something missing?"
    else:
        return Finding(name, "ok", said)
    return Finding(name, "warning", said, (advice,))


def _id(name: str, prefix: str, problem: str) -> Finding:
    value = os.environ.get(name, "").strip()
    if problem:
        return Finding(name, "failed", problem)
    said = f"{value or 'none'} ({_source(name)})"
    if not value or value.startswith(prefix):
        return Finding(name, "ok", said)
    return Finding(
        name, "warning", said, (f"Such an id begins with {prefix!r}. Is this another id?",)
    )


def _source(name: str) -> str:
    value = os.environ.get(name)
    context = click.get_current_context(silent=True)
    if name == "OPENAI_BASE_URL" and context is not None and BASE_URL_OPTION in context.meta:
        return "--base-url"
    if value is None:
        return "default"
    return "environment" if value.strip() else f"default: {name} is set, but blank"


def _proxy(base_url: str, proxy: Secret | None, problem: str) -> Finding:
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    variable = _variable(f"{parts.scheme}_proxy")
    if problem:
        return Finding("proxy", "failed", f"{variable} {problem}")
    if proxy is not None:
        return Finding("proxy", "ok", f"{without_password(proxy)} ({variable})")
    if is_loopback(host):
        return Finding("proxy", "ok", "none: this machine needs no proxy")
    if variable is not None:
        return Finding("proxy", "ok", f"none: {variable} is set, but NO_PROXY names {host}")
    if (other := _variable("http_proxy")) is not None:
        said = f"none: {other} is for http:// addresses"
        return Finding("proxy", "warning", said, ("Set HTTPS_PROXY if a proxy is the way out.",))
    return Finding("proxy", "ok", "none (default)")


def _variable(variable: str) -> str | None:
    """Return the variable that names a proxy, as the environment spells it."""
    names = (variable, variable.upper(), "all_proxy", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name)), None)


def without_password(proxy: Secret) -> str:
    """Return a proxy's URL without its login."""
    parts = urlsplit(proxy)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _mistaken() -> Iterator[Finding]:
    for name, meant in _MISTAKEN.items():
        if os.environ.get(name):
            said = f"is set, but not used. The variable is {meant}."
            yield Finding(name, "warning", said)
