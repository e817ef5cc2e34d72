"""An aiohttp backend that gives signed-in users their client secrets: `python aiohttp_app.py`."""

from collections.abc import AsyncGenerator

from aiohttp import web

from chatkit_async import AsyncChatKit
from chatkit_async.web import ClientSecretEndpoint

CLIENT_SECRETS = web.AppKey("client_secrets", ClientSecretEndpoint)


async def chatkit(app: web.Application) -> AsyncGenerator[None]:
    # One client for the life of the application: OPENAI_API_KEY is read here.
    async with AsyncChatKit(timeout=10) as client:
        app[CLIENT_SECRETS] = ClientSecretEndpoint(client, workflow="wf_123")
        yield


def signed_in_user(request: web.Request) -> str | None:
    """Your own login goes here: this takes a header from a proxy that it trusts."""
    return request.headers.get("X-Authenticated-User")


async def client_secret(request: web.Request) -> web.Response:
    try:
        current_secret = (await request.json()).get("current_secret")
    except (ValueError, AttributeError):
        raise web.HTTPBadRequest(text="the body should be a JSON object") from None
    endpoint = request.app[CLIENT_SECRETS]
    # What fails is an answer too: a 503 with Retry-After, a 502, a 504; the log has the reason.
    answer = await endpoint.handle(user=signed_in_user(request), current_secret=current_secret)
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


def application() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(chatkit)
    app.router.add_post("/chatkit/secret", client_secret)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=8000)
