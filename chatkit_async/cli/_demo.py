"""`chatkit-async demo`: each step of the job once, explained as it happens."""

import asyncio
import json
import time
from contextlib import AsyncExitStack

import attrs
import click

from chatkit_async._settings import Settings
from chatkit_async.cli._options import debug_option, json_option, secret_option, timeout_option
from chatkit_async.cli._output import Page, session_data, session_fields, write_json
from chatkit_async.cli._running import run
from chatkit_async.client import AsyncChatKit
from chatkit_async.models import ChatSession
from chatkit_async.secret import MASK
from chatkit_async.sessions import AsyncSessions

USER = "demo-user"
EMULATED_WORKFLOW = "wf_demo"


@click.command(short_help="Show what this does, on an emulator or live.")
@click.option("--live", is_flag=True, help="Use the real API, with the key in OPENAI_API_KEY.")
@click.option("--workflow", metavar="ID", help="The workflow for --live, wf_...")
@click.option(
    "--sessions",
    "count",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    metavar="N",
    help="Number of sessions to create at once.",
)
@timeout_option()
@json_option
@secret_option
@debug_option
def demo(
    *,
    live: bool,
    workflow: str | None,
    count: int,
    timeout: float,
    as_json: bool,
    show_secret: bool,
) -> None:
    """Create a session, show what a browser is given, cancel it, then create many at once.

    It needs no key and no network: it starts an emulator of the API on this machine. With --live
    it uses the real API, and first says what it will create.

    \b
      chatkit-async demo --sessions 5
    """  # noqa: D301 - click wants the character itself
    if live and not workflow:
        raise click.UsageError("--live needs --workflow wf_...: the workflow to make sessions of.")
    if workflow and not live:
        raise click.UsageError("--workflow goes with --live: the emulator takes any workflow.")
    story = Story(Page(err=as_json), count=count, show_secret=show_secret)
    results = run(story.live(workflow, timeout) if workflow else story.emulated(timeout))
    if as_json:
        write_json(results)


@attrs.frozen
class Story:
    """The demo: it takes one step after the other, and explains each."""

    page: Page
    count: int
    show_secret: bool

    async def emulated(self, timeout: float) -> dict[str, object]:
        """Run the demo on an emulator."""
        from chatkit_async.emulator import Emulator  # noqa: PLC0415 - it brings a web server

        self.page.heading("1. A place to try it")
        self.page.prose(
            "This starts an emulator: the ChatKit sessions API, on this machine and for this demo "
            "only. It needs no key, and nothing leaves the machine.",
        )
        self.page.code(
            "from chatkit_async import AsyncChatKit\n"
            "from chatkit_async.emulator import Emulator\n"
            "\n"
            "async with Emulator() as api:\n"
            "    async with AsyncChatKit(\n"
            "        api_key=api.api_key,\n"
            "        base_url=api.base_url,\n"
            "    ) as client:\n"
            "        ..."
        )
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(Emulator())
            client = await stack.enter_async_context(
                AsyncChatKit(
                    api_key=api.api_key,
                    base_url=api.base_url,
                    timeout=timeout,
                    # Blank, so that they do not come from an environment that may be wrong.
                    organization="",
                    project="",
                )
            )
            self.page.fields([("serving at", api.base_url)])
            results = await self._steps(client.sessions, EMULATED_WORKFLOW)
        self._next_on_emulator()
        return {"base_url": api.base_url, **results}

    async def live(self, workflow: str, timeout: float) -> dict[str, object]:
        """Run the demo on the real API."""
        base_url = Settings.resolve({}).base_url
        async with AsyncChatKit(timeout=timeout) as client:
            self.page.heading("1. The real API")
            self.page.prose(
                f"This creates {1 + self.count} real sessions of the workflow {workflow}, for the "
                f"made-up users {USER} and {USER}-1 to {USER}-{self.count}, with the key in "
                "OPENAI_API_KEY, and cancels each of them. Nobody chats in them, so no model "
                "runs. What could not be cancelled expires on its own within ten minutes.",
            )
            self.page.code(
                "from chatkit_async import AsyncChatKit\n"
                "\n"
                "async with AsyncChatKit() as client:\n"
                "    ..."
            )
            self.page.fields([("going to", base_url)])
            results = await self._steps(client.sessions, workflow)
        return {"base_url": base_url, **results}

    async def _steps(self, sessions: AsyncSessions, workflow: str) -> dict[str, object]:
        created = await self._create(sessions, workflow)
        self._browser(created)
        cancelled = await self._cancel(sessions, created)
        seconds = await self._many(sessions, workflow)
        return {
            "created": session_data(created, show_secret=self.show_secret),
            "cancelled": session_data(cancelled, show_secret=self.show_secret),
            "many": {"created": self.count, "cancelled": self.count, "seconds": round(seconds, 3)},
        }

    async def _create(self, sessions: AsyncSessions, workflow: str) -> ChatSession:
        self.page.heading("2. Create a session")
        self.page.prose(
            "Your server does this when one of your users opens the chat. It says who the user is "
            "and which workflow is to answer.",
        )
        self.page.code(
            "session = await client.sessions.create(\n"
            f'    user="{USER}",\n'
            f'    workflow="{workflow}",\n'
            ")"
        )
        session = await sessions.create(user=USER, workflow=workflow)
        fields = session_fields(session, show_secret=self.show_secret)
        self.page.fields(f for f in fields if f[0] != "client_secret")
        return session

    def _browser(self, session: ChatSession) -> None:
        self.page.heading("3. What the browser gets")
        self.page.prose(
            "The session's client secret, and nothing else: it opens this one chat, for a few "
            "minutes. Your API key stays on your server."
            + ("" if self.show_secret else " Masked here; --show-secret shows it."),
        )
        self.page.code('return {"client_secret": session.client_secret}')
        secret = session.client_secret if self.show_secret else MASK
        self.page.line(json.dumps({"client_secret": secret}))

    async def _cancel(self, sessions: AsyncSessions, created: ChatSession) -> ChatSession:
        self.page.heading("4. Cancel it")
        self.page.prose(
            "From now on the secret opens nothing. A session that nobody cancels expires on its own.",
        )
        self.page.code("session = await client.sessions.cancel(session.id)")
        session = await sessions.cancel(created.id)
        fields = session_fields(session, show_secret=self.show_secret)
        self.page.fields(f for f in fields if f[0] in {"id", "status"})
        return session

    async def _many(self, sessions: AsyncSessions, workflow: str) -> float:
        self.page.heading(f"5. {self.count} at once")
        self.page.prose(
            "Calls do not wait for one another: this is what the async client is for.",
        )
        self.page.code(
            "sessions = await asyncio.gather(*(\n"
            "    client.sessions.create(\n"
            f'        user=f"{USER}-{{n}}",\n'
            f'        workflow="{workflow}",\n'
            "    )\n"
            f"    for n in range(1, {self.count + 1})\n"
            "))"
        )
        started = time.perf_counter()
        many = await asyncio.gather(
            *(
                sessions.create(user=f"{USER}-{n}", workflow=workflow)
                for n in range(1, self.count + 1)
            )
        )
        seconds = time.perf_counter() - started
        await asyncio.gather(*(sessions.cancel(session.id) for session in many))
        self.page.prose(
            f"{self.count} sessions created in {seconds:.2f} seconds, and cancelled again.",
        )
        return seconds

    def _next_on_emulator(self) -> None:
        self.page.heading("What next")
        self.page.prose(
            "The lines above are the program. They work the same on the real API: put your key "
            "into OPENAI_API_KEY and leave AsyncChatKit's arguments out.",
        )
        self.page.code(
            "chatkit-async doctor    # is all set up?\n"
            "chatkit-async demo --live --workflow wf_...\n"
            "chatkit-async --help"
        )
