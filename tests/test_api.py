"""The public API is the one that was agreed on: api.txt beside this file."""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path

import api
import pytest

import chatkit_async

PACKAGE = Path(chatkit_async.__file__).parent

SOURCE = """
import attrs

__all__ = ["Client", "Row", "make"]

__version__ = "1.0"
LIMIT = 10
_Kind = Literal["a", "b"]

class _Base(Exception):
    def shown(self): ...
    def _hidden(self): ...

class Client(_Base):
    def __init__(self, key: str, *, limit: int = LIMIT):
        self.key: str = key

    def _set_up(self):
        self.rows: list[Row] = []

    async def close(self, *how: str, **options: object) -> None: ...

    @property
    def kind(self) -> _Kind: ...

@attrs.frozen
class Row:
    id: int = 0
    user: str = attrs.field(default="me", repr=False)
    key: str = attrs.field(repr=False)

def make(a, b=1, /, c=2): ...
def _unseen(): ...
"""


@pytest.fixture
def described(tmp_path):
    """The text of a package with this source."""

    def describe(source=SOURCE):
        (tmp_path / "chatkit_async").mkdir(exist_ok=True)
        (tmp_path / "chatkit_async" / "__init__.py").write_text(source, encoding="utf-8")
        return api.public_api(tmp_path)

    return describe


@pytest.mark.unmeasured
def test_the_public_api_is_as_agreed():
    agreed = api.STORED.read_text(encoding="utf-8").splitlines()
    here = api.public_api(PACKAGE.parent).splitlines()

    change = "\n".join(unified_diff(agreed, here, "agreed", "here", lineterm="", n=1))
    assert not change, (
        f"the public API has changed:\n{change}\n"
        "If users shall see this, say so in CHANGELOG.md and run: nox -s api"
    )


def test_the_snapshot_shows_what_users_can_name_and_call(described):
    assert described().splitlines() == [
        "# chatkit_async",
        "",
        "class Client(Exception)",
        "    def shown(self)",
        "    def __init__(self, key: str, *, limit: int = 10)",
        "    key: str",
        "    async def close(self, *how: str, **options: object) -> None",
        "    kind: _Kind  # property",
        "    rows: list[Row]",
        "",
        "@attrs.frozen",
        "class Row",
        "    id: int = 0",
        "    user: str = field(default='me')",
        "    key: str",
        "",
        "def make(a, b = 1, /, c = 2)",
        "",
        "# named in annotations",
        "",
        "chatkit_async._Kind = Literal['a', 'b']",
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("LIMIT = 10", "LIMIT = 11"),
        ("limit: int", "limit: int | None"),
        ("key: str, *, limit", "limit"),
        ("id: int = 0", "id: int"),
        ('default="me", ', 'default="you", '),
        ("attrs.frozen", "attrs.define"),
        ("_Base(Exception)", "_Base(ValueError)"),
        ("def shown(self)", "def shown(self, again)"),
        ('"a", "b"', '"a"'),
        ("async def", "def"),
        ('"Row", ', ""),
        ("self.rows: list[Row]", "self.rows: tuple[Row]"),
    ],
)
def test_a_change_that_users_see_shows(described, before, after):
    agreed = described()

    assert SOURCE.count(before) == 1
    assert described(SOURCE.replace(before, after)) != agreed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def _hidden(self)", "def _hidden(self, again)"),
        ("def _unseen()", "def _unseen(again)"),
        ('"1.0"', '"1.1"'),
        ("field(repr=False)", "field(repr=len)"),
    ],
)
def test_a_change_that_users_do_not_see_does_not(described, before, after):
    agreed = described()

    assert SOURCE.count(before) == 1
    assert described(SOURCE.replace(before, after)) == agreed
