"""The command line: create and cancel sessions, look around, find out what is wrong."""

import click

from chatkit_async import __version__
from chatkit_async.cli._demo import demo
from chatkit_async.cli._failures import reported

__all__ = ["commands"]


class _Commands(click.Group):
    """A group whose commands fail with a paragraph and an exit code."""

    def invoke(self, ctx: click.Context) -> object:
        with reported():
            return super().invoke(ctx)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="chatkit-async")
def commands() -> None:
    """ChatKit sessions of the OpenAI API from the command line.

    New here? `chatkit-async demo` shows what it does, without a key or a network.
    """


commands.add_command(demo)
