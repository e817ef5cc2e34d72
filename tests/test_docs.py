"""Every code block of the documentation is run.

A page is run from top to bottom, in one namespace and one environment with an emulator behind it:

- `python` runs as it stands, `await` at the top level included;
- `pycon` runs, and prints what the page says it prints;
- `console` runs each line that starts with `$ `; the lines below one are its output, where `...`
  stands for anything, and no lines for any output;
- `toml` and `json` are parsed; `text` is shown;
- `sh`, in the README alone, is what `.ci/run` runs.

Any other language, and a block without one, is an error. Two comments make exceptions, each with a
reason: `<!-- not run: reason -->` above a block, and, for what a page needs and a reader does not,
`<!-- not shown: reason`, a newline, Python code and `-->`.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt
from patience import PATIENCE

from chatkit_async.cli import commands

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted(p for p in ROOT.glob("docs/**/*.md") if "_build" not in p.parts)]

LANGUAGES = {"python", "pycon", "console", "toml", "json", "text", "sh"}
RUN = {"python", "pycon", "console"}
# Directives that hold no code. Admonitions are written `:::{note}`: a block in them stays a block.
DIRECTIVES = {"{toctree}", "{eval-rst}", "{include}"}
COMMANDS = {"cat", "chatkit-async", "echo", "export", "python"}

COMMAND = re.compile(
    r"((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", re.DOTALL
)  # a line, and those it goes on in
SHELL = re.compile(r"[|&;<>$`]")  # what a shell does more with a command than to start it
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>\S.*?) -->", re.DOTALL)
NOT_SHOWN = re.compile(r"<!-- not shown: (?P<reason>\S[^\n]*)\n(?P<code>.*)-->", re.DOTALL)


@dataclass
class Block:
    """A piece of code, and the line of the page before its first."""

    language: str
    code: str
    line: int


def blocks(text: str) -> list[Block]:
    """The code blocks of a page, but for those marked `not run`."""
    found = []
    excused = False
    for token in MarkdownIt().parse(text):
        if token.type == "html_block":
            if hidden := NOT_SHOWN.match(token.content):
                found.append(Block("python", hidden["code"], token.map[0] + 1))
            elif not (excused := bool(NOT_RUN.match(token.content))):
                assert not re.search("not (run|shown)", token.content), (
                    f"line {token.map[0] + 1}: a marker needs a reason: {token.content}"
                )
        elif token.type in {"fence", "code_block"}:
            language = token.info.strip()
            if not excused and language.partition(" ")[0] not in DIRECTIVES:
                found.append(Block(language, token.content, token.map[0] + 1))
            assert "code-block" not in token.content or not language.startswith("{"), (
                f"line {token.map[0] + 1}: a code block within a directive is not seen: use a fence"
            )
            excused = False
        elif token.type == "inline":
            excused = False
    return found


class Page:
    """Runs the blocks of one page."""

    def __init__(self, name, monkeypatch):
        self.name = name
        self.monkeypatch = monkeypatch
        self.module = ModuleType("__main__")
        # What a page defines can be found by its module's name: for pickle and for annotations.
        monkeypatch.setitem(sys.modules, "__main__", self.module)
        self.loop = asyncio.Runner()

    def run(self, block):
        assert block.language in LANGUAGES, (
            f"{self.name}:{block.line}: {block.language!r} is none of {sorted(LANGUAGES)}"
        )
        getattr(self, f"run_{block.language}")(block)

    def execute(self, source, line, mode="exec"):
        code = compile(
            "\n" * line + source,  # a traceback then shows the line of the page
            self.name,
            mode,
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        result = eval(code, vars(self.module))  # noqa: S307  # the page's code is what we run
        if code.co_flags & inspect.CO_COROUTINE:
            self.loop.run(result)

    def run_python(self, block):
        self.execute(block.code, block.line)

    def run_pycon(self, block):
        for example in doctest.DocTestParser().get_examples(block.code):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                try:
                    self.execute(example.source, block.line + example.lineno, "single")
                except Exception as error:
                    if example.exc_msg is None:
                        raise
                    assert_output(f"{type(error).__name__}: {error}\n", example.exc_msg)
                    continue
            assert_output(printed.getvalue(), example.want)

    def run_console(self, block):
        assert block.code.startswith("$ "), f"{self.name}:{block.line}: no command after a `$ `"
        for entry in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]:
            command, output = COMMAND.fullmatch(entry).groups()
            words = shlex.split(command)
            assert words[0] in COMMANDS, f"{self.name}:{block.line}: not to be run here: {command}"
            assert words[:3] != ["python", "-m", "pip"], "the tests install nothing"
            if words[0] == "export":
                name, value = words[1].split("=", 1)
                assert name != "OPENAI_BASE_URL", "the page's commands go to the emulator"
                self.monkeypatch.setenv(name, value)
                continue
            exit_code, printed = run_command(command, words)
            # A page that shows a failure shows what it prints.
            assert exit_code == 0 or output, f"{self.name}:{block.line}: {printed}"
            if output:
                assert_output(printed, output)

    def run_toml(self, block):
        tomllib.loads(block.code)

    def run_json(self, block):
        json.loads(block.code)

    def run_text(self, block):
        """Only shown."""

    def run_sh(self, block):
        assert self.name == str(README), f"{block.line}: `sh` is for what .ci/run runs: `console`?"


def run_command(command: str, words: list[str]) -> tuple[int, str]:
    """Run a command, ours without a process where it needs no shell: exit code and output."""
    if words[0] == "chatkit-async" and not SHELL.search(command):
        result = CliRunner().invoke(commands, words[1:])
        return result.exit_code, result.output
    done = subprocess.run(  # noqa: S602  # the page shows a shell
        command,
        shell=True,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout


def assert_output(got: str, want: str) -> None:
    """Hold what was printed against what the page shows."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(want, got, flags), f"want:\n{want}\ngot:\n{got}"


@pytest.fixture
def page(request, monkeypatch, tmp_path):
    """Make a `Page` of a name, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    pages = []

    def make(name="page.md"):
        pages.append(Page(name, monkeypatch))
        return pages[-1]

    yield make
    for made in pages:
        made.loop.close()


@pytest.fixture
def emulator(monkeypatch):
    """Stand an emulator behind the environment that a page's code and commands see."""
    from chatkit_async.emulator import Emulator

    for name in os.environ:
        if name.startswith("OPENAI_"):
            monkeypatch.delenv(name)
    scripts = sysconfig.get_path("scripts")
    monkeypatch.setenv("PATH", os.pathsep.join([scripts, os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONUTF8", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-documentation")
    # What else is installed here is not what a page has its reader install.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "chatkit_async.pytest_plugin,pytest_asyncio.plugin")
    with Emulator() as emulator:
        monkeypatch.setenv("OPENAI_BASE_URL", emulator.base_url)
        yield emulator


@pytest.mark.unmeasured
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_code_of_a_page_runs(path, page, request):
    to_run = blocks(path.read_text(encoding="utf-8"))
    if any(block.language in RUN for block in to_run):
        request.getfixturevalue("emulator")
    this = page(str(path))
    for block in to_run:
        this.run(block)


def test_the_readme_has_two_commands_and_ci_runs_both():
    commands = [b.code.strip() for b in blocks(README.read_text("utf-8")) if b.language == "sh"]

    assert len(commands) == 2
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for wanted, command in zip(re.findall(r"from_readme '(.+?)'", ci), commands, strict=True):
        assert command.startswith("python -m pip install ")
        assert command.endswith(wanted)


def test_no_install_line_names_the_package():
    # It is not on PyPI: who follows such a line gets nothing, or what somebody else puts there.
    sources = [*PAGES, *ROOT.glob("docs/examples/*.*"), *ROOT.glob("chatkit_async/**/*.py")]
    lines = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sources
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\bpip3? install\b[^&;`]*[ \"']chatkit[-_]async\b", line)
    ]

    assert lines == []


def test_nox_without_arguments_runs_what_ci_runs():
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    sessions = re.search(r"nox.options.sessions = (\[.+?\])", noxfile)[1]
    checks = re.search(r"for check in (.+?); do", ci)[1]

    assert sorted(json.loads(sessions)) == sorted(["tests", *checks.split()])


# The checks above are worth what these find.


def test_the_blocks_of_a_page_share_what_they_define(page):
    this = page()

    for block in blocks("```python\na = 6\n```\n\n- ```pycon\n  >>> a * 7\n  42\n  ```\n"):
        this.run(block)


def test_await_works_at_the_top_level_and_so_does_asyncio_run(page):
    this = page()

    this.run(Block("python", "import asyncio\nx = await asyncio.sleep(0, 'one')", 1))
    this.run(Block("python", "async def main(): return x\ny = asyncio.run(main())", 5))
    this.run(Block("pycon", ">>> await asyncio.sleep(0)\n>>> print(x, y)\none one\n", 9))


def test_a_traceback_shows_the_line_of_the_page(page):
    text = "# Title\n\n```python\nx = 1\nx / 0\n```\n"

    with pytest.raises(ZeroDivisionError) as info:
        page("docs/page.md").run(blocks(text)[0])

    assert traceback.extract_tb(info.tb)[-1][:2] == ("docs/page.md", 5)


@pytest.mark.parametrize("code", [">>> 1\n2\n", ">>> int('x')\nTraceback:\nKeyError: 1\n"])
def test_output_that_differs_from_the_page_is_an_error(page, code):
    with pytest.raises((AssertionError, ValueError)):
        page().run(Block("pycon", code, 1))


def test_an_exception_that_the_page_shows_is_none(page):
    code = ">>> int('x')\nTraceback (most recent call last):\n  ...\nValueError: invalid ...\n"

    page().run(Block("pycon", code, 1))


def test_a_command_runs_and_prints_what_the_page_says(page):
    this = page()

    this.run(
        Block("console", "$ echo one \\\n    two\none ...\n$ export NAME=x\n$ echo $NAME\nx\n", 1)
    )
    with pytest.raises(AssertionError, match="want"):
        this.run(Block("console", "$ echo one\ntwo\n", 1))


@pytest.mark.parametrize(
    "code",
    [
        "echo one\n",
        "$ pip install x\n",
        "$ python -m pip install x\n",
        "$ python -c 1/0\n",
        "$ export OPENAI_BASE_URL=https://api.openai.com/v1\n",
    ],
)
def test_a_command_that_must_not_run_or_fails_is_an_error(page, code):
    with pytest.raises(AssertionError):
        page().run(Block("console", code, 1))


@pytest.mark.parametrize(
    "text",
    [
        "```\nx\n```",
        "~~~ruby\nx\n~~~",
        "    indented\n",
        "> ```Python\n> x\n> ```",
        "```sh\nx\n```",
    ],
)
def test_a_block_in_no_known_language_is_an_error(page, text):
    (block,) = blocks(text)

    with pytest.raises(AssertionError):
        page().run(block)


@pytest.mark.parametrize(("language", "code"), [("toml", "x ="), ("json", "{'a': 1}")])
def test_data_that_does_not_parse_is_an_error(page, language, code):
    with pytest.raises(ValueError, match=r"Invalid value|line 1"):
        page().run(Block(language, code, 1))


def test_a_marked_block_is_not_run_and_the_one_after_it_is():
    text = "<!-- not run: needs a browser -->\n```js\nx\n```\n\n```python\ny\n```\n"

    assert blocks(text) == [Block("python", "y\n", 6)]


def test_a_marker_excuses_only_the_block_right_below_it():
    assert blocks("<!-- not run: x -->\n\ntext\n\n```js\nx\n```\n") == [Block("js", "x\n", 5)]


def test_a_marker_without_a_reason_is_an_error():
    with pytest.raises(AssertionError, match="reason"):
        blocks("<!-- not run -->\n```js\nx\n```\n")


def test_code_that_is_not_shown_is_run():
    assert blocks("<!-- not shown: a stand-in\nx = 1\n-->\n") == [Block("python", "x = 1\n", 1)]


def test_code_within_a_directive_is_an_error():
    with pytest.raises(AssertionError, match="fence"):
        blocks("```{eval-rst}\n.. code-block:: python\n\n   x\n```\n")
