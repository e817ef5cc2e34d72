"""Sans-IO: the hosts that `NO_PROXY` names, in the forms that curl and Go understand."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


def bypasses_proxy(url: str, no_proxy: str) -> bool:
    """Return True if `NO_PROXY` names the host of a URL.

    Args:
        url: An `http` or `https` URL with a host.
        no_proxy: The value of `NO_PROXY`: entries separated by commas or white space.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    address = _address(host)
    for entry in re.split(r"[\s,]+", no_proxy.lower()):
        pattern, for_port = _without_port(entry)
        if for_port not in {None, port}:
            continue
        names_it = _names(pattern, host) if address is None else _covers(pattern, address)
        if names_it or pattern == "*":
            return True
    return False


def _without_port(entry: str) -> tuple[str, int | None]:
    """Split an entry into a host or network and the port. None: any port."""
    if (found := re.fullmatch(r"\[(.*)\](?::(\d+))?|([^:]*):(\d+)", entry)) is None:
        return entry, None
    bracketed, port_after_bracket, host, port = found.groups()
    digits = port_after_bracket or port
    return bracketed or host or "", int(digits) if digits else None


def _names(pattern: str, host: str) -> bool:
    """Return True if an entry names a host: `name` with its subdomains, `.name` those alone."""
    name = pattern.removeprefix("*").rstrip(".")
    if name.startswith("."):
        return host.endswith(name) and host != name
    return bool(name) and not pattern.startswith("*") and f".{host}".endswith(f".{name}")


def _covers(pattern: str, address: IPv4Address | IPv6Address) -> bool:
    """Return True if an entry is an address, or a network that has it."""
    try:
        return address in ip_network(pattern, strict=False)
    except ValueError:
        return False


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
