"""Sphinx: MyST pages, Furo, the reference from the docstrings."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as installed_version
from typing import Any, get_origin

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
    ("py:class", "Random"),  # random.Random, within a type alias
    # A base class or a type variable is shown where it is used, and has no page of its own.
    ("py:.*", r"(chatkit_async(\.\w+)*\.)?(_\w+|[A-Z](_co)?|(Item|Result|\w*Row)T(_co)?)"),
]


def _before_napoleon(
    _app: Any, what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Put colons out of sight: of a property's first line napoleon makes a type of what is before one.

    Ours are sentences, and their types are annotated.
    """
    if what in {"attribute", "property"} and lines:
        lines[0] = lines[0].replace(":", "\0")


def _after_napoleon(
    _app: Any, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Put the colons back, and shorten types to the names that people write."""
    for number, line in enumerate(lines):
        if line.startswith(":vartype "):
            lines[number] = re.sub(r"\b(collections\.abc|chatkit_async\.\w+)\.(?=[A-Z])", "", line)
    lines[:] = [line.replace("\0", ":") for line in lines]


def _public_bases(
    _app: Any, _name: str, _obj: object, _options: object, bases: list[type[object]]
) -> None:
    """Show the bases of a private base in its place."""
    while private := [base for base in bases if base.__name__.startswith("_")]:
        for base in private:
            at = bases.index(base)
            cls = get_origin(base) or base
            bases[at : at + 1] = getattr(cls, "__orig_bases__", cls.__bases__)


def setup(app: Any) -> None:
    """Connect what is above; napoleon's own priority is 500."""
    app.connect("autodoc-process-docstring", _before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", _after_napoleon, priority=600)
    app.connect("autodoc-process-bases", _public_bases)
    for field in app.registry.domains["py"].directives["class"].doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # Sphinx calls them variables
