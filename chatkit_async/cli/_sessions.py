"""`chatkit-async create` and `chatkit-async cancel`."""

import asyncio
from collections.abc import Sequence
from typing import TypeVar

import click

from chatkit_async.cli._failures import exit_code
from chatkit_async.cli._options import (
    base_url_option,
    debug_option,
    json_option,
    secret_option,
    state_variable_option,
    timeout_option,
)
from chatkit_async.cli._output import (
    Page,
    note,
    printable_lines,
    session_data,
    session_fields,
    without_secrets,
    write,
    write_json,
)
from chatkit_async.cli._running import run
from chatkit_async.client import AsyncChatKit
from chatkit_async.errors import ChatKitError
from chatkit_async.models import (
    AutomaticThreadTitlingParam,
    ChatSession,
    ChatSessionChatKitConfigurationParam,
    ChatSessionWorkflowParam,
    FileUploadParam,
    HistoryParam,
    SessionCreateParams,
    StateVariable,
    WorkflowTracingParam,
)
from chatkit_async.sessions import AsyncSessions

P = TypeVar("P")


@click.command(short_help="Create a session for a user.")
@click.option("--user", required=True, help="Your own id for the end user.")
@click.option("--workflow", required=True, metavar="ID", help="The workflow to run, wf_...")
@click.option("--workflow-version", metavar="VERSION", help="Default: the latest deployed one.")
@state_variable_option
@click.option("--tracing/--no-tracing", default=None, help="Trace the runs of the workflow.")
@click.option(
    "--expires-after", type=int, metavar="SECONDS", help="1 to 600. The API's default: 600."
)
@click.option(
    "--rate-limit", type=int, metavar="N", help="Requests per minute. The API's default: 10."
)
@click.option("--thread-titles/--no-thread-titles", default=None, help="Give threads titles.")
@click.option("--file-upload/--no-file-upload", default=None, help="Let users upload files.")
@click.option(
    "--max-file-size",
    type=int,
    metavar="MB",
    help="Maximum size of a file in megabytes, up to 512.",
)
@click.option("--max-files", type=int, metavar="N", help="Maximum number of files in a session.")
@click.option("--history/--no-history", default=None, help="Show earlier threads.")
@click.option("--recent-threads", type=int, metavar="N", help="Number of earlier threads to show.")
@timeout_option()
@json_option
@secret_option
@base_url_option
@debug_option
def create(
    *,
    user: str,
    workflow: str,
    workflow_version: str | None,
    state_variables: dict[str, StateVariable] | None,
    tracing: bool | None,
    expires_after: int | None,
    rate_limit: int | None,
    thread_titles: bool | None,
    file_upload: bool | None,
    max_file_size: int | None,
    max_files: int | None,
    history: bool | None,
    recent_threads: int | None,
    timeout: float,
    as_json: bool,
    show_secret: bool,
) -> None:
    """Create a session with the key in OPENAI_API_KEY, and print it.

    The client secret is masked unless --show-secret is given. For a script:

    \b
      chatkit-async create --user u_1 --workflow wf_1 --json --show-secret
    """  # noqa: D301 - click wants the character itself
    params = SessionCreateParams(
        user=user,
        workflow=ChatSessionWorkflowParam(
            id=workflow,
            version=workflow_version,
            state_variables=state_variables,
            tracing=_unless_empty(WorkflowTracingParam(enabled=tracing)),
        ),
        chatkit_configuration=_unless_empty(
            ChatSessionChatKitConfigurationParam(
                automatic_thread_titling=_unless_empty(
                    AutomaticThreadTitlingParam(enabled=thread_titles)
                ),
                file_upload=_unless_empty(
                    FileUploadParam(
                        enabled=file_upload, max_file_size=max_file_size, max_files=max_files
                    )
                ),
                history=_unless_empty(HistoryParam(enabled=history, recent_threads=recent_threads)),
            )
        ),
        expires_after=expires_after,
        rate_limits=rate_limit,
    )
    session = run(_create(params, timeout))
    try:
        if as_json:
            write_json(session_data(session, show_secret=show_secret))
        else:
            Page().fields(session_fields(session, show_secret=show_secret), indent=0)
    except (click.ClickException, click.exceptions.Exit):
        created = without_secrets(getattr(session, "id", "the session"))
        note(f"{created} was created, and expires on its own.")
        raise
    if not show_secret and hasattr(session, "client_secret"):
        note("The client secret is masked: --show-secret prints it.")


def _unless_empty(param: P) -> P | None:
    """Return the parameter, or None if none of its fields was given."""
    return None if param == type(param)() else param


async def _create(params: SessionCreateParams, timeout: float) -> ChatSession:
    async with AsyncChatKit(timeout=timeout) as client:
        return await client.sessions.create(
            user=params.user,
            workflow=params.workflow,
            chatkit_configuration=params.chatkit_configuration,
            expires_after=params.expires_after,
            rate_limits=params.rate_limits,
        )


@click.command(short_help="Cancel sessions by their ids.")
@click.argument("session_ids", nargs=-1, required=True, metavar="SESSION_ID...")
@timeout_option()
@json_option
@base_url_option
@debug_option
@click.pass_context
def cancel(
    context: click.Context, /, *, session_ids: tuple[str, ...], timeout: float, as_json: bool
) -> None:
    """Cancel sessions, so that their client secrets stop working.

    All ids are tried, even if one fails.

    \b
      chatkit-async cancel cksess_123
    """  # noqa: D301 - click wants the character itself
    codes: list[int] = []
    for given, result in zip(session_ids, run(_cancel(session_ids, timeout)), strict=True):
        session_id = without_secrets(given)  # someone cancels by client secret instead of id
        if isinstance(result, ChatKitError):
            note(f"Error: {session_id}: {result}")
            codes.append(exit_code(result))
        elif as_json:
            write_json(session_data(result, show_secret=False))
        else:
            status = without_secrets(getattr(result, "status", "without a status"))
            write(printable_lines(f"{session_id}  {status}\n"))
    context.exit(max(codes, default=0))


async def _cancel(session_ids: Sequence[str], timeout: float) -> list[ChatSession | ChatKitError]:
    async with AsyncChatKit(timeout=timeout) as client:
        return await asyncio.gather(*(_tried(client.sessions, one) for one in session_ids))


async def _tried(sessions: AsyncSessions, session_id: str) -> ChatSession | ChatKitError:
    try:
        return await sessions.cancel(session_id)
    except ChatKitError as error:
        return error
