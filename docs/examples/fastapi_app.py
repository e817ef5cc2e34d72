"""A FastAPI backend that gives signed-in users their client secrets: `uvicorn fastapi_app:app`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Body, Depends, FastAPI, Request, Response

from chatkit_async import AsyncChatKit
from chatkit_async.web import ClientSecretEndpoint


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    # One client for the life of the application: OPENAI_API_KEY is read here.
    async with AsyncChatKit(timeout=10) as client:
        app.state.client_secrets = ClientSecretEndpoint(client, workflow="wf_123")
        yield


app = FastAPI(lifespan=lifespan)


def signed_in_user(request: Request) -> str | None:
    """Your own login goes here: this takes a header from a proxy that it trusts."""
    return request.headers.get("X-Authenticated-User")


@app.post("/chatkit/secret")
async def client_secret(
    request: Request,
    user: Annotated[str | None, Depends(signed_in_user)],
    current_secret: Annotated[str | None, Body(embed=True)] = None,
) -> Response:
    endpoint: ClientSecretEndpoint = request.app.state.client_secrets
    # What fails is an answer too: a 503 with Retry-After, a 502, a 504; the log has the reason.
    answer = await endpoint.handle(user=user, current_secret=current_secret)
    return Response(answer.body, answer.status, answer.headers)
