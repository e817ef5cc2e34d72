"""Calls under one tracing tool: `python instrumented.py TOOL`, with the API in the environment.

A tool replaces parts of aiohttp for the whole process, so each has a process of its own. Prints
JSON: for each kind of call, the caller's trace id and the span of each attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

from chatkit_async import AsyncChatKit, ChatKit, RetryPolicy

OPTIONS = {"retry_policy": RetryPolicy(initial_backoff=0.001, max_backoff=0.001)}
WORKFLOW = "wf_123"


async def create():
    async with AsyncChatKit(**OPTIONS) as client:
        await client.sessions.create(user="create", workflow=WORKFLOW)


async def create_many():
    async with AsyncChatKit(**OPTIONS) as client:
        await client.sessions.create_many(
            ["create_many"], defaults={"workflow": WORKFLOW}
        ).results()


def blocking_create():
    with ChatKit(**OPTIONS) as client:
        client.sessions.create(user="blocking_create", workflow=WORKFLOW)


def blocking_create_many():
    with ChatKit(**OPTIONS) as client:
        rows = ["blocking_create_many"]
        client.sessions.create_many(rows, defaults={"workflow": WORKFLOW}).results()


class OpenTelemetry:
    """opentelemetry-instrumentation-aiohttp-client."""

    def __init__(self):
        from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._tracer = provider.get_tracer("test")
        AioHttpClientInstrumentor().instrument(tracer_provider=provider, request_hook=self._hook)

    @staticmethod
    def _hook(span, params):
        span.set_attribute("beta", params.headers["OpenAI-Beta"])

    @contextlib.contextmanager
    def caller(self):
        with self._tracer.start_as_current_span("caller") as span:
            yield f"{span.get_span_context().trace_id:032x}"

    def spans(self):
        for span in self._exporter.get_finished_spans():
            if span.name != "caller":
                status = span.attributes.get("http.status_code")
                yield f"{span.context.span_id:016x}", status, span.attributes["beta"]
        self._exporter.clear()


class Sentry:
    """sentry-sdk's integration for aiohttp."""

    def __init__(self):
        import sentry_sdk
        from sentry_sdk.integrations.aiohttp import AioHttpIntegration
        from sentry_sdk.transport import Transport

        finished = self._finished = []

        class Kept(Transport):
            def capture_envelope(self, envelope):
                if event := envelope.get_transaction_event():
                    finished.extend(event["spans"])

        sentry_sdk.init(
            dsn="http://key@127.0.0.1:9/1",
            transport=Kept,
            traces_sample_rate=1.0,
            default_integrations=False,
            integrations=[AioHttpIntegration()],
            release="test",  # else it asks git
        )
        self._start = sentry_sdk.start_transaction

    @contextlib.contextmanager
    def caller(self):
        with self._start(name="caller") as transaction:
            yield transaction.trace_id

    def spans(self):
        for span in self._finished:
            yield span["span_id"], span["data"]["http.response.status_code"], None
        self._finished.clear()


class Datadog:
    """ddtrace's patch of aiohttp."""

    def __init__(self):
        os.environ |= {
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
            "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
            "DD_TRACE_HEADER_TAGS": "OpenAI-Beta:beta",
        }
        from ddtrace import patch
        from ddtrace.trace import TraceFilter, tracer

        finished = self._finished = []

        class Kept(TraceFilter):
            def process_trace(self, trace):
                finished.extend(trace)  # and nothing is sent

        tracer.configure(trace_processors=[Kept()])
        patch(aiohttp=True)
        self._trace = tracer.trace

    @contextlib.contextmanager
    def caller(self):
        with self._trace("caller") as span:
            yield f"{span.trace_id:032x}"

    def spans(self):
        for span in self._finished:
            if span.name == "aiohttp.request":
                status = span.get_tag("http.status_code")
                yield f"{span.span_id:016x}", int(status), span.get_tag("beta")
        self._finished.clear()


TOOLS = {"opentelemetry": OpenTelemetry, "sentry": Sentry, "datadog": Datadog}


def main(tool):
    tracing = TOOLS[tool]()
    seen = {}
    for call in (create, create_many, blocking_create, blocking_create_many):
        with tracing.caller() as trace:
            if asyncio.iscoroutinefunction(call):
                asyncio.run(call())
            else:
                call()
        seen[call.__name__] = {"trace": trace, "spans": list(tracing.spans())}
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
