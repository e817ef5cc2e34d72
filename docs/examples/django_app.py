"""Django views that give signed-in users their client secrets, one async and one blocking.

A project in one file: `uvicorn django_app:application`. Of your own project's, only the clients
and the views are needed.
"""

import atexit
import json
from functools import cache

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.urls import path
from django.views.decorators.http import require_POST

from chatkit_async import AsyncChatKit, ChatKit
from chatkit_async.web import BlockingClientSecretEndpoint, ClientSecretEndpoint

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="not a secret")

# One client for the life of the process, made with the first request: OPENAI_API_KEY is read then,
# and to import this needs none. A test calls `cache_clear`, for a client that reads it again.
# A project has one of the two clients.


@cache
def client_secrets() -> ClientSecretEndpoint:
    # Connections belong to an event loop and end with it: the client needs no closing.
    return ClientSecretEndpoint(AsyncChatKit(timeout=10), workflow="wf_123")


@cache
def blocking_client() -> ChatKit:
    client = ChatKit(timeout=10)
    atexit.register(client.close)
    return client


@cache
def blocking_client_secrets() -> BlockingClientSecretEndpoint:
    return BlockingClientSecretEndpoint(blocking_client(), workflow="wf_123")


def signed_in_user(request: HttpRequest) -> str | None:
    """Your own login goes here: this takes a header from a proxy that it trusts."""
    return request.headers.get("X-Authenticated-User")


def current_secret(request: HttpRequest) -> object:
    return json.loads(request.body).get("current_secret")


# What fails is an answer too: a 503 with Retry-After, a 502, a 504; the log has the reason.


@require_POST
async def client_secret(request: HttpRequest) -> HttpResponse:
    try:
        current = current_secret(request)
    except (ValueError, AttributeError):
        return HttpResponseBadRequest("the body should be a JSON object")
    answer = await client_secrets().handle(user=signed_in_user(request), current_secret=current)
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


@require_POST
def blocking_client_secret(request: HttpRequest) -> HttpResponse:
    try:
        current = current_secret(request)
    except (ValueError, AttributeError):
        return HttpResponseBadRequest("the body should be a JSON object")
    endpoint = blocking_client_secrets()
    answer = endpoint.handle(user=signed_in_user(request), current_secret=current)
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


urlpatterns = [
    path("chatkit/secret", client_secret),
    path("chatkit/blocking-secret", blocking_client_secret),
]
application = get_asgi_application()
