"""Load an export of conversations into a ChatKit server of your own, built with `openai-chatkit`.

Ids and times are kept. Threads and items that the server already has are not changed, so a run can
be repeated. The types of the API differ from those of the server. For each item that does not fit,
`load` yields its id and a sentence.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from chatkit import types
from chatkit.store import NotFoundError, Store
from pydantic import TypeAdapter, ValidationError

ITEM = TypeAdapter(types.ThreadItem)
ATTACHMENT = TypeAdapter(types.Attachment)
THREAD = TypeAdapter(types.ThreadMetadata)


async def load(
    lines: Iterable[str], store: Store[Any], context_of: Callable[[str], Any]
) -> AsyncIterator[tuple[str, str]]:
    """Load an export; yield what does not fit.

    Args:
        lines: The lines of the export, `threads export -o FILE`.
        store: The store of your server.
        context_of: Returns what your store takes as context for a user.
    """
    for line in lines:
        record = json.loads(line)
        thread = record["thread"]
        context = context_of(thread["user"])
        try:
            await store.load_thread(thread["id"], context)
        except NotFoundError:
            await store.save_thread(THREAD.validate_python(thread_fields(thread)), context)
        for item in record["items"]:
            misfits: list[str] = []
            try:
                await store.load_item(thread["id"], item["id"], context)
            except NotFoundError:
                await add(item, store, context, misfits)
            for misfit in misfits:
                yield item["id"], misfit


async def add(item: Mapping[str, Any], store: Store[Any], context: Any, misfits: list[str]) -> None:
    """Add an item, with its attachments."""
    try:
        converted = ITEM.validate_python(item_fields(item, misfits))
    except (ValidationError, ValueError, KeyError) as error:
        misfits.append(f"left out, a {item['type']} that does not fit: {type(error).__name__}")
        return
    for attachment in getattr(converted, "attachments", ()):
        await store.save_attachment(attachment, context)
    await store.add_thread_item(item["thread_id"], converted, context)


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def thread_fields(thread: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the server's thread, which has no user: the context has it."""
    return {
        "id": thread["id"],
        "title": thread["title"],
        "created_at": moment(thread["created_at"]),
        "status": thread["status"],
    }


def item_fields(item: Mapping[str, Any], misfits: list[str]) -> dict[str, Any]:
    """Return the fields of the server's item.

    Raises:
        ValueError, KeyError: The server has no such type of item.
    """
    kind = item["type"].removeprefix("chatkit.")
    fields = {name: item[name] for name in ("id", "thread_id")}
    fields |= {"type": kind, "created_at": moment(item["created_at"])}
    match kind:
        case "user_message":
            texts = [part for part in item["content"] if part["type"] == "input_text"]
            quotes = [part["text"] for part in item["content"] if part["type"] == "quoted_text"]
            return fields | {
                "content": texts,
                "quoted_text": "\n".join(quotes) or None,
                "attachments": [
                    attachment_fields(one, item, misfits) for one in item["attachments"]
                ],
                "inference_options": item["inference_options"] or {},
            }
        case "assistant_message":
            return fields | {"content": [answer_fields(part) for part in item["content"]]}
        case "widget":
            return fields | {"widget": json.loads(item["widget"])}
        case "client_tool_call":
            return fields | {
                "status": "completed" if item["status"] == "completed" else "pending",
                "call_id": item["call_id"],
                "name": item["name"],
                "arguments": json.loads(item["arguments"]),
                "output": None if item["output"] is None else json.loads(item["output"]),
            }
        case "task":
            return fields | {"task": task_fields({**item, "type": item["task_type"]})}
        case "task_group":
            tasks = [task_fields(task) for task in item["tasks"]]
            reasons = all(task["type"] == "thought" for task in tasks)
            workflow = {"type": "reasoning" if reasons else "custom", "tasks": tasks}
            return fields | {"type": "workflow", "workflow": workflow}
        case _:
            raise ValueError(kind)


def attachment_fields(
    attachment: Mapping[str, Any], item: Mapping[str, Any], misfits: list[str]
) -> dict[str, Any]:
    """Return the fields of an attachment. The file itself is not in an export."""
    misfits.append(f"attachment {attachment['id']}: the file is not in the export")
    fields = {name: attachment[name] for name in ("id", "name", "mime_type", "type")}
    if attachment["type"] == "image" and attachment["preview_url"] is None:
        return fields | {"type": "file", "thread_id": item["thread_id"]}
    return fields | {"preview_url": attachment["preview_url"], "thread_id": item["thread_id"]}


def answer_fields(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a part of an answer. The server's sources have titles."""
    sources = [annotation["source"] for annotation in part["annotations"]]
    annotations = [
        {"source": {**source, "title": source.get("url") or source["filename"]}}
        for source in sources
    ]
    return {"text": part["text"], "annotations": annotations}


def task_fields(task: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": task["type"],
        "title": task["heading"],
        "content": task["summary"] or ("" if task["type"] == "thought" else None),
    }
