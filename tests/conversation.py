"""A conversation with one item of each kind, as the published schema has them."""

from __future__ import annotations

CONVERSATION = [
    {
        "type": "chatkit.user_message",
        "content": [
            {"type": "quoted_text", "text": "Returns take 5 days"},
            {"type": "input_text", "text": "And abroad?"},
        ],
        "attachments": [
            {
                "type": "image",
                "id": "cfile_1",
                "name": "parcel.png",
                "mime_type": "image/png",
                "preview_url": "https://files.example/p.png",
            },
            {
                "type": "file",
                "id": "cfile_2",
                "name": "bill.pdf",
                "mime_type": "application/pdf",
                "preview_url": None,
            },
        ],
        "inference_options": {"tool_choice": {"id": "search"}, "model": None},
    },
    {
        "type": "chatkit.assistant_message",
        "content": [
            {
                "type": "output_text",
                "text": "Ten days.",
                "annotations": [
                    {"type": "url", "source": {"type": "url", "url": "https://shop.example"}},
                    {"type": "file", "source": {"type": "file", "filename": "returns.pdf"}},
                ],
            }
        ],
    },
    {"type": "chatkit.widget", "widget": '{"type":"Card"}'},
    {
        "type": "chatkit.client_tool_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "open_order",
        "arguments": '{"id": 7}',
        "output": None,
    },
    {"type": "chatkit.task", "task_type": "thought", "heading": "Looking", "summary": None},
    {
        "type": "chatkit.task_group",
        "tasks": [{"type": "custom", "heading": "Search", "summary": "3 hits"}],
    },
    "user: Thank you",
    "assistant: You are welcome",
]
