"""A client's settings, resolved: what was given is checked, and the environment fills in the rest."""

import ipaddress
import os
import ssl as tls
from collections.abc import Callable, Iterable, Mapping
from typing import cast
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment

import attrs
from yarl import URL

from chatkit_async._checks import NO_HEADER_VALUE, Checks, described, is_header_value
from chatkit_async._no_proxy import bypasses_proxy
from chatkit_async.errors import ConfigurationError, Problem
from chatkit_async.options import (
    ATTEMPT_TIMEOUT,
    BASE_URL,
    CONNECT_TIMEOUT,
    MAX_CONNECTIONS,
    MAX_RETRIES,
    TIMEOUT,
    ApiKeyProvider,
    Attempt,
    ClientOptions,
    RetryPolicy,
    traceback_safe,
)
from chatkit_async.secret import Secret, mask_text

__all__ = ["Settings", "is_loopback", "key_problem"]


def key_problem(key: object) -> str | None:
    """Return the problem of a key, without echoing the key."""
    if not isinstance(key, str):
        return f"must be a string, got {described(key)}"
    if not key.strip():
        return "must not be blank"
    if not all("!" <= character <= "~" for character in key.strip()):
        return (
            "has a character that no API key has (a space, a control character or one that is not "
            "ASCII): copy it again"
        )
    return None


@attrs.frozen(kw_only=True)
class Settings:
    """A client's settings, checked and complete."""

    api_key: Secret | ApiKeyProvider
    organization: str | None
    project: str | None
    base_url: str
    timeout: float | None
    attempt_timeout: float | None
    connect_timeout: float | None
    max_retries: int
    retry_policy: RetryPolicy
    verify_replies: bool
    default_headers: Mapping[str, Secret]
    proxy: Secret | None
    ssl: tls.SSLContext | None
    on_attempt: Callable[[Attempt], object] | None

    @classmethod
    def resolve(
        cls,
        given: ClientOptions,
        *,
        max_connections: int = MAX_CONNECTIONS,
        problems: Iterable[Problem] = (),
    ) -> "Settings":
        """Check the options of a client, and fill in the rest from the environment.

        Args:
            given: Options that can differ between clients that share connections.
            max_connections: An option that cannot differ. It is only checked.
            problems: Problems of other options, to raise together with those found here.

        Raises:
            ConfigurationError: With every problem.
        """
        found = Checks(problems)
        timeout = given.get("timeout", TIMEOUT)
        attempt_timeout = given.get("attempt_timeout", ATTEMPT_TIMEOUT)
        connect_timeout = given.get("connect_timeout", CONNECT_TIMEOUT)
        max_retries = given.get("max_retries", MAX_RETRIES)
        headers = given.get("default_headers")
        if headers is None:
            headers = dict[str, str]()
        ssl = given.get("ssl")
        found.seconds("timeout", timeout, optional=True)
        found.seconds("attempt_timeout", attempt_timeout, optional=True)
        found.seconds("connect_timeout", connect_timeout, optional=True)
        found.whole("max_retries", max_retries, least=0)
        found.headers("default_headers", headers)
        found.whole("max_connections", max_connections, least=1)
        found.instance("ssl", ssl, tls.SSLContext)
        found.instance("retry_policy", given.get("retry_policy"), RetryPolicy)
        on_attempt = given.get("on_attempt")
        if on_attempt is not None and not callable(on_attempt):
            found.append(("on_attempt", f"must be a callable, got {described(on_attempt)}"))
        verify_replies = given.get("verify_replies", True)
        found.instance("verify_replies", verify_replies, bool)
        allow_http = given.get("allow_http", False)
        found.instance("allow_http", allow_http, bool)
        base_url = _base_url(given.get("base_url"), found, allow_http=allow_http)
        api_key = _api_key(given.get("api_key"), found)
        organization = _text("organization", given.get("organization"), "OPENAI_ORG_ID", found)
        project = _text("project", given.get("project"), "OPENAI_PROJECT_ID", found)
        proxy = _proxy(given.get("proxy"), base_url, found)
        if found:
            raise ConfigurationError(found)
        return cls(
            api_key=api_key,
            organization=organization,
            project=project,
            base_url=base_url,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            connect_timeout=connect_timeout,
            max_retries=max_retries,
            retry_policy=given.get("retry_policy") or RetryPolicy(),
            verify_replies=verify_replies is not False,
            # Any of them may be a credential.
            default_headers={name: Secret(value) for name, value in headers.items()},
            proxy=proxy,
            ssl=ssl,
            on_attempt=on_attempt,
        )


def _text(name: str, value: object, variable: str, found: Checks) -> str | None:
    """Return a header's value from its argument or its variable. A blank one counts as unset."""
    if value is None:
        name, value = variable, os.environ.get(variable)
    text = None if value is None else found.string(name, value)
    if text and not is_header_value(text):
        found.append((name, NO_HEADER_VALUE))
    return Secret(text) if text else None  # it may be a key, by mistake


def _api_key(value: object, found: Checks) -> Secret | ApiKeyProvider:
    name = "api_key"
    if value is None:
        name, value = "OPENAI_API_KEY", traceback_safe(os.environ.get("OPENAI_API_KEY", ""))
        if not value:
            found.append((name, "is not set: set it, or pass api_key=..."))
            return Secret("")
    if callable(value):
        return cast("ApiKeyProvider", value)
    if not isinstance(value, str):
        found.append((name, f"must be a string or a callable, got {described(value)}"))
        return Secret("")
    found.note(name, key_problem(value))
    return Secret(value.strip())


def _base_url(value: object, found: Checks, *, allow_http: bool) -> str:
    name = "base_url"
    if value is None:
        name, value = "OPENAI_BASE_URL", os.environ.get("OPENAI_BASE_URL", "").strip() or BASE_URL
    if (url := found.string(name, value)) is None:
        return BASE_URL
    if (problem := _url_problem(url, allow_http=allow_http)) is not None:
        found.append((name, problem))
        return BASE_URL
    return url.rstrip("/")


def _url_problem(url: str, *, allow_http: bool) -> str | None:
    parts = _split(url)
    if parts is None or not url.isprintable() or " " in url:
        return "is not a URL"
    if parts.scheme not in {"http", "https"}:
        # Whatever ends in a colon is a scheme: a key can.
        found = f"starts with {mask_text(parts.scheme, ())!r}" if parts.scheme else "has no scheme"
        return f"must start with https://, {found}"
    if not parts.hostname:
        return "has no host"
    if _yarl(url) is None:
        return "has an invalid host name"
    if parts.username is not None or parts.password is not None:
        return "has a user or password: the key goes into api_key"
    if "?" in url:
        return "has a query: use extra_query, or default_headers"
    if "#" in url:
        return "has a fragment"
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
        return "is plain http, which shows the key to the network: use https, or allow_http=True"
    return None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError:
        return None
    return parts


def _yarl(url: str) -> URL | None:
    """Return a URL as aiohttp reads it, which is stricter about hosts."""
    try:
        return URL(url)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Return True if a host's name or address is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _proxy(value: object, base_url: str, found: Checks) -> Secret | None:
    """Return the proxy for the base URL, which may contain a password. It is looked up once."""
    name = "proxy"
    if value is None:
        server = urlsplit(base_url)
        scheme = server.scheme
        proxies = getproxies_environment()
        if is_loopback(server.hostname or "") or bypasses_proxy(base_url, proxies.get("no", "")):
            return None
        name = next((n for n in (scheme, "all") if proxies.get(n, "").strip()), "")
        name, value = f"{name}_proxy", proxies.get(name)
    if value is None or (text := found.string(name, value)) is None:
        return None
    url = Secret(text if "://" in text else f"http://{text}")
    parts = _split(url)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        found.append((name, "must be the URL of an HTTP proxy, such as http://host:3128"))
    elif ":" in unquote(parts.username or ""):
        found.append((name, "has a user with a colon, which HTTP cannot send"))
    return url
