"""The forms of `NO_PROXY`, as docs/howto/proxies-and-tls.md lists them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chatkit_async._no_proxy import bypasses_proxy

PAGE = Path(__file__).parent.parent / "docs" / "howto" / "proxies-and-tls.md"

HOST = "https://gw.corp.example/v1"

# Each form with the URLs that it names, and some that it does not.
FORMS = {
    "corp.example": (
        ["https://corp.example/v1", HOST, "https://a.gw.corp.example:8443/v1"],
        ["https://gwcorp.example/v1", "https://corp.example.org/v1", "https://example/v1"],
    ),
    ".corp.example": ([HOST, "https://a.gw.corp.example/v1"], ["https://corp.example/v1"]),
    "*.corp.example": ([HOST, "https://a.gw.corp.example/v1"], ["https://corp.example/v1"]),
    "*": ([HOST, "http://10.1.2.3/v1", "https://[fd00::5]/v1"], []),
    "gw.corp.example:8443": (
        ["https://gw.corp.example:8443/v1", "https://a.gw.corp.example:8443/v1"],
        [HOST, "https://gw.corp.example:844/v1"],
    ),
    "gw.corp.example:443": (
        [HOST, "https://gw.corp.example:443/v1", "http://gw.corp.example:443/v1"],
        ["http://gw.corp.example/v1", "https://gw.corp.example:8443/v1"],
    ),
    "10.1.2.3": (
        ["https://10.1.2.3/v1", "https://10.1.2.3:8443/v1"],
        ["https://10.1.2.30/v1", "https://110.1.2.3/v1"],
    ),
    "10.1.2.3:8443": (["https://10.1.2.3:8443/v1"], ["https://10.1.2.3/v1"]),
    "10.0.0.0/8": (["https://10.1.2.3/v1"], ["https://11.1.2.3/v1", "https://[fd00::5]/v1"]),
    "fd00::5": (
        ["https://[fd00::5]/v1", "https://[fd00:0::0:5]:8443/v1"],
        ["https://[fd00::6]/v1"],
    ),
    "[fd00::5]": (["https://[FD00::5]/v1", "https://[fd00::5]:8443/v1"], ["https://[fd00::6]/v1"]),
    "[fd00::5]:8443": (["https://[fd00::5]:8443/v1"], ["https://[fd00::5]/v1"]),
    "fd00::/8": (["https://[fd12::9]/v1"], ["https://[fe80::1]/v1", "https://10.1.2.3/v1"]),
    " localhost ,GW.Corp.Example. ": (
        [HOST, "https://GW.CORP.EXAMPLE/v1", "https://gw.corp.example./v1"],
        ["https://other.example/v1"],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_form_names_its_hosts(form):
    named, others = FORMS[form]
    assert [url for url in [*named, *others] if bypasses_proxy(url, form)] == named


@pytest.mark.parametrize(
    "form",
    [
        "",
        " , ",
        ".",
        "*.",
        "*corp.example",
        "gw.*",
        "http://gw.corp.example",
        "gw.corp.example:",
        "gw.corp.example:x",
        "[gw.corp.example",
        "3",
        "0.0.0.0/0",
        "10.0.0.0/99",
        "::/0",
        "[]",
        ":443",
    ],
)
def test_other_forms_name_nothing(form):
    assert not bypasses_proxy(HOST, form)


@pytest.mark.parametrize("name", ["3", ".3", "2.3", "*.2.3"])
def test_names_are_not_suffixes_of_addresses(name):
    assert not bypasses_proxy("https://10.1.2.3/v1", name)


@pytest.mark.parametrize("separator", [",", " ", ", ", " ,", ",,", "\t", "\n"])
def test_entries_are_separated(separator):
    entries = separator.join(["10.0.0.0/8", ".corp.example", "other.example"])
    assert bypasses_proxy(HOST, entries)
    assert not bypasses_proxy("https://corp.example/v1", entries)


def test_forms_are_documented():
    documented = re.findall(r"^\| `(.+?)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert documented == [*list(FORMS)[:-1], "localhost, GW.Corp.Example."]
