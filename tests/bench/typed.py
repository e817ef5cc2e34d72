"""A session as attrs classes, decoded by hand: the least that gives typed objects."""

from __future__ import annotations

from typing import Any

from attrs import define


@define
class Tracing:
    enabled: bool


@define
class Workflow:
    id: str
    version: str | None
    state_variables: dict[str, str | bool | float] | None
    tracing: Tracing


@define
class RateLimits:
    max_requests_per_1_minute: int


@define
class AutomaticThreadTitling:
    enabled: bool


@define
class FileUpload:
    enabled: bool
    max_file_size: int | None
    max_files: int | None


@define
class History:
    enabled: bool
    recent_threads: int | None


@define
class Configuration:
    automatic_thread_titling: AutomaticThreadTitling
    file_upload: FileUpload
    history: History


@define
class Session:
    id: str
    object: str
    expires_at: int
    client_secret: str
    workflow: Workflow
    user: str
    rate_limits: RateLimits
    max_requests_per_1_minute: int
    status: str
    chatkit_configuration: Configuration


def session(data: dict[str, Any]) -> Session:
    """Decode a reply, taking it to be what it should be."""
    workflow, configuration = data["workflow"], data["chatkit_configuration"]
    upload, history = configuration["file_upload"], configuration["history"]
    return Session(
        data["id"],
        data["object"],
        data["expires_at"],
        data["client_secret"],
        Workflow(
            workflow["id"],
            workflow["version"],
            workflow["state_variables"],
            Tracing(workflow["tracing"]["enabled"]),
        ),
        data["user"],
        RateLimits(data["rate_limits"]["max_requests_per_1_minute"]),
        data["max_requests_per_1_minute"],
        data["status"],
        Configuration(
            AutomaticThreadTitling(configuration["automatic_thread_titling"]["enabled"]),
            FileUpload(upload["enabled"], upload["max_file_size"], upload["max_files"]),
            History(history["enabled"], history["recent_threads"]),
        ),
    )
