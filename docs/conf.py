"""Sphinx: MyST pages, Furo, the reference from the docstrings."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "chatkit-async"
author = "chatkit-async contributors"
copyright = "2026, chatkit-async contributors"  # noqa: A001  # Sphinx's name for it
version = release = installed_version("chatkit-async")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = f"chatkit-async {release}"

# colon_fence: a code block inside an admonition stays a code block, which the tests run.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "code"  # docstrings write `names` as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # as attributes they would be what a type named `object` links to

nitpick_ignore_regex = [
    # Other projects' names would need their inventories, and the build needs no network.
    ("py:.*", rf"({'|'.join(['aiohttp', 'attrs?', 'yarl', *sys.stdlib_module_names])})\..*"),
    # A base class or a type variable is shown where it is used, and has no page of its own.
    ("py:.*", r"chatkit_async(\.\w+)*\.(_\w+|[A-Z])"),
]


# Napoleon takes what a property's first line has before a colon for its type. Ours are sentences,
# and their types are annotated: the colons are out of sight while it looks.
def _hide_colons(
    _app: Sphinx, what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    if what in {"attribute", "property"} and lines:
        lines[0] = lines[0].replace(":", "\0")


def _show_colons(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    lines[:] = [line.replace("\0", ":") for line in lines]


def setup(app: Sphinx) -> None:
    """Run the two around napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", _hide_colons, priority=400)
    app.connect("autodoc-process-docstring", _show_colons, priority=600)
