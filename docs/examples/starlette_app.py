"""A Starlette backend that gives signed-in users their client secrets: `uvicorn starlette_app:app`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chatkit_async import AsyncChatKit
from chatkit_async.web import ClientSecretEndpoint


class State(TypedDict):
    client_secrets: ClientSecretEndpoint


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncGenerator[State]:
    # One client for the life of the application: OPENAI_API_KEY is read here.
    async with AsyncChatKit(timeout=10) as client:
        yield {"client_secrets": ClientSecretEndpoint(client, workflow="wf_123")}


def signed_in_user(request: Request) -> str | None:
    """Your own login goes here: this takes a header from a proxy that it trusts."""
    return request.headers.get("X-Authenticated-User")


async def client_secret(request: Request) -> Response:
    try:
        current_secret = (await request.json()).get("current_secret")
    except (ValueError, AttributeError):
        raise HTTPException(400, "the body should be a JSON object") from None
    endpoint: ClientSecretEndpoint = request.state.client_secrets
    # What fails is an answer too: a 503 with Retry-After, a 502, a 504; the log has the reason.
    answer = await endpoint.handle(user=signed_in_user(request), current_secret=current_secret)
    return Response(answer.body, answer.status, answer.headers)


app = Starlette(
    routes=[Route("/chatkit/secret", client_secret, methods=["POST"])], lifespan=lifespan
)
