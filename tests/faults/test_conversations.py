"""No conversation comes out of the client, whatever goes wrong while it is read."""

from __future__ import annotations

import asyncio
import gzip
import json
from hashlib import sha256

import pytest
from conversation import CONVERSATION
from faults.hunter import Hunter, Log, rendered
from servers import Cut, http, replying, serve

from chatkit_async import (
    AsyncChatKit,
    ChatKit,
    ChatKitError,
    ChatKitThread,
    ChatKitThreadItem,
)
from chatkit_async.emulator import Emulator

pytestmark = pytest.mark.unmeasured

KEY = "sk-" + "0123456789abcdef" * 2
SAID = "private " + sha256(b"what nobody may see").hexdigest()[:40]

PRIVATE = {
    "arguments",
    "filename",
    "heading",
    "output",
    "preview_url",
    "summary",
    "text",
    "url",
    "widget",
}


def hide(value):
    """A copy of JSON in which everything that was said is the private text."""
    if isinstance(value, dict):
        names = PRIVATE | ({"name"} if "mime_type" in value else set())
        return {name: SAID if name in names else hide(each) for name, each in value.items()}
    return [hide(each) for each in value] if isinstance(value, list) else value


THREAD = {
    "id": "cthr_1",
    "object": "chatkit.thread",
    "created_at": 1_795_850_000,
    "title": SAID,
    "status": {"type": "locked", "reason": SAID},
    "user": SAID,
}
ITEMS = [
    {
        "id": f"cti_{number}",
        "object": "chatkit.thread_item",
        "created_at": 1_795_850_000,
        "thread_id": "cthr_1",
        **hide(own),
    }
    for number, own in enumerate(each for each in CONVERSATION if isinstance(each, dict))
]
ITEMS.append({**ITEMS[0], "id": "cti_9", "type": "chatkit.song", "verse": SAID})
THREAD_PAGE = {"object": "list", "data": [THREAD], "has_more": True, "last_id": "cthr_1"}
PAGE = {"object": "list", "data": ITEMS, "has_more": True, "last_id": "cti_9"}
CONTENT = json.dumps(PAGE).encode()

hunter = Hunter(SAID)


async def every(items):
    return [each async for each in items]


CALLS = {
    "list": lambda threads: every(threads.list()),
    "retrieve": lambda threads: threads.retrieve("cthr_1"),
    "delete": lambda threads: threads.delete("cthr_1"),
    "list_items": lambda threads: every(threads.list_items("cthr_1")),
    "raw": lambda threads: threads.with_raw_response.list_items("cthr_1"),
}
BLOCKING_CALLS = {
    "list_items": lambda threads: list(threads.list_items("cthr_1")),
    "delete": lambda threads: threads.delete("cthr_1"),
}


def sent(content, status="200 OK", **headers):
    return http(json.dumps(content).encode(), status, **headers)


def error(status, **own):
    said = {"message": "It failed.", "type": "server_error", "param": None, "code": None}
    headers = {"X_Echo": SAID, "Content_Disposition": SAID, "Set_Cookie": SAID}
    return sent({"error": {**said, "seen": SAID}, **own}, status, **headers)


REPLIES = {
    "an error": error("400 Bad Request", thread=THREAD),
    "not found": error("404 Not Found", items=ITEMS),
    "a broken server": error("500 Oops", page=PAGE),
    "an error as text": http(CONTENT, "502 Bad Gateway", Content_Type="text/plain"),
    "no error": sent(PAGE, "409 Conflict"),
    "a body cut short": Cut(http(CONTENT)[:-20]),
    "JSON without its end": http(CONTENT[:-20]),
    "no HTTP": Cut(CONTENT),
    "an invalid status": Cut(b"HTTP/1.1 2000 " + CONTENT),
    "a false gzip label": http(CONTENT, Content_Encoding="gzip"),
    "an unknown encoding": http(gzip.compress(CONTENT), Content_Encoding="br"),
    "a list": sent(ITEMS),
    "a string": sent(SAID),
    "not UTF-8": http(CONTENT + b"\xff"),
    "nested too deeply": http(b'{"a":' * 100_000 + CONTENT + b"}" * 100_000),
    "of another thread": sent({**PAGE, "data": [{**ITEMS[0], "thread_id": "cthr_2"}]}),
    "another thread": sent({**THREAD, "id": "cthr_2"}),
    "no page": sent({**PAGE, "data": {"items": ITEMS}}),
    "no objects": sent({**PAGE, "data": [SAID]}),
    "no has_more": sent({"object": "list", "data": ITEMS}),
    "no cursor": sent({**PAGE, "data": [{"text": SAID}], "last_id": ITEMS}),
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
async def test_failed_call_quotes_no_conversation(reply):
    attempts, errors = [], []
    with Log() as log:
        async with serve(replying(reply)) as server:
            settings = {"api_key": KEY, "base_url": server.base_url, "max_retries": 0}
            async with AsyncChatKit(**settings, on_attempt=attempts.append) as client:
                for call in CALLS.values():
                    errors += [await raised_by(call(client.threads))]
            with ChatKit(**settings) as blocking:
                for call in BLOCKING_CALLS.values():
                    errors += [await raised_by(asyncio.to_thread(call, blocking.threads))]

    assert len([each for each in errors if each is not None]) >= 2
    assert hunter.hunt(log.text, *attempts, *filter(None, errors)) == []


async def raised_by(call):
    """Return the error of a call. None: it succeeded, and shows nothing."""
    try:
        result = await call
    except ChatKitError as raised:
        return raised
    assert hunter.found(repr(result)) == []
    return None


@pytest.mark.parametrize("call", ["list", "list_items"])
async def test_error_on_a_later_page_quotes_no_earlier_item(call):
    first = sent({"list": THREAD_PAGE, "list_items": PAGE}[call])
    async with serve(replying(first, REPLIES["an error"])) as server:
        settings = {"api_key": KEY, "base_url": server.base_url, "max_retries": 0}
        async with AsyncChatKit(**settings) as client:
            raised = await raised_by(CALLS[call](client.threads))

    assert raised.cursor is not None
    assert hunter.hunt(raised) == []


def test_error_of_the_loop_shows_no_conversation():
    """Errors raised by the loop over a list, which hold the iterator's frames."""

    async def main():
        async with serve(replying(sent(PAGE), Cut(http(CONTENT)[:-20]))) as server:
            client = AsyncChatKit(api_key=KEY, base_url=server.base_url, max_retries=0)
            items = aiter(client.threads.list_items("cthr_1"))
            await anext(items)
            waiting = asyncio.create_task(every(items))
            await server.until(lambda: len(server.requests) == 2)
            waiting.cancel()
            try:
                await waiting
            except (asyncio.CancelledError, ChatKitError) as ended:
                return rendered(ended), repr(items), repr(vars(items))
            finally:
                await client.close()

    assert hunter.hunt(*asyncio.run(main())) == []


@pytest.mark.parametrize(
    ("cls", "data"),
    [(ChatKitThread, THREAD), *((ChatKitThreadItem, item) for item in ITEMS)],
    ids=lambda each: each.get("type", "thread") if isinstance(each, dict) else "",
)
def test_bent_field_is_named_without_its_value(cls, data):
    bent = {name: {"was": SAID} for name in data if name not in {"type", "object"}}
    errors = []
    for read in (cls.from_dict(data), cls.from_dict({**data, **bent}), cls.from_dict({})):
        assert hunter.found(f"{read!r} {read} {[read]}") == []
        for name in (*data, "text", "created_at_datetime", "validate"):
            try:
                getattr(read, name, None) if name != "validate" else read.validate()
                getattr(read, name)
            except (AttributeError, ChatKitError) as raised:
                errors.append(raised)

    assert len(errors) > 4
    assert hunter.hunt(*errors) == []


async def test_emulator_shows_no_conversation():
    log = []
    with Log() as debugging:
        async with Emulator(on_request=lambda record: log.append(str(record))) as emulator:
            thread = emulator.add_thread(
                user=THREAD["user"],
                title=THREAD["title"],
                items=[
                    f"user: {SAID}",
                    *(hide(each) for each in CONVERSATION if isinstance(each, dict)),
                ],
            )
            settings = {"api_key": emulator.api_key, "base_url": emulator.base_url}
            async with AsyncChatKit(**settings, max_retries=0) as client:
                await every(client.threads.list_items(thread.id))
                emulator.fail(cut=True)
                assert await raised_by(every(client.threads.list()))
                await client.threads.delete(thread.id)
            shown = [repr(each) for each in (emulator, emulator.threads, emulator.requests, thread)]

    assert len(log) == 3
    assert hunter.hunt(log, shown, debugging.text) == []
