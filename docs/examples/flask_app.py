"""A Flask backend that gives signed-in users their client secrets: `flask --app flask_app run`."""

import atexit

from flask import Flask, Response, abort, request

from chatkit_async import ChatKit
from chatkit_async.web import BlockingClientSecretEndpoint


def create_app() -> Flask:
    app = Flask(__name__)
    # One client for the life of the process, which all threads share: OPENAI_API_KEY is read here.
    client = app.extensions["chatkit"] = ChatKit(timeout=10)
    atexit.register(client.close)
    endpoint = BlockingClientSecretEndpoint(client, workflow="wf_123")

    @app.post("/chatkit/secret")
    def client_secret() -> Response:
        body = request.get_json()
        if not isinstance(body, dict):
            abort(400, "the body should be a JSON object")
        # What fails is an answer too: a 503 with Retry-After, a 502, a 504; the log has the reason.
        answer = endpoint.handle(user=signed_in_user(), current_secret=body.get("current_secret"))
        return Response(answer.body, answer.status, dict(answer.headers))

    return app


def signed_in_user() -> str | None:
    """Your own login goes here: this takes a header from a proxy that it trusts."""
    return request.headers.get("X-Authenticated-User")
