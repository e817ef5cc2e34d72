"""The command line: create and cancel sessions, read conversations, find out what is wrong.

Each command is a module. What it raises becomes a paragraph on stderr and an exit code here.
"""

import click

from chatkit_async import __version__
from chatkit_async.cli._bulk import bulk
from chatkit_async.cli._demo import demo
from chatkit_async.cli._doctor import doctor
from chatkit_async.cli._emulator import emulator
from chatkit_async.cli._failures import reported
from chatkit_async.cli._options import ARGUMENTS
from chatkit_async.cli._sessions import cancel, create
from chatkit_async.cli._threads import threads

__all__ = ["commands"]


class _Commands(click.Group):
    """A group whose commands fail with a paragraph and an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        with reported():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)  # as they were added: a newcomer's first


EPILOG = """\b
Settings come from the environment; the key is never an argument:
  OPENAI_API_KEY     the key
  OPENAI_ORG_ID      the organization, if the key has several
  OPENAI_PROJECT_ID  the project, likewise
  OPENAI_BASE_URL    where the API is, if not at OpenAI
  HTTPS_PROXY, NO_PROXY, NO_COLOR

\b
Data goes to stdout, all else to stderr. Exit codes:
    0  done
    1  failed
    2  wrong usage, or an input with problems
    3  some rows of a bulk run, or some threads, failed
    4  no key, or the API refused it
  129, 130, 143  ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM

\b
Completion by TAB, in bash (zsh and fish likewise):
  eval "$(_CHATKIT_ASYNC_COMPLETE=bash_source chatkit-async)"
"""


@click.group(
    cls=_Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="chatkit-async")
def commands() -> None:
    """ChatKit sessions and threads of the OpenAI API from the command line.

    New here? `chatkit-async demo` shows what it does, without a key or a network.
    """


for _command in (demo, create, cancel, bulk, threads, emulator, doctor):
    commands.add_command(_command)
