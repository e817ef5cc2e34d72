"""Transcripts, of every kind of item and of texts that want to do harm."""

from __future__ import annotations

import re

import pytest
from conversation import CONVERSATION
from markdown_it import MarkdownIt

from chatkit_async.cli._transcript import markdown_heading, markdown_of, text_of
from chatkit_async.models.threads import ChatKitThread, ChatKitThreadItem

HARMFUL = [
    "<script>alert(1)</script>",
    "![](https://tracker.example/p.png)",
    "[a](javascript:alert)",
    "[a]: https://evil.example",
    "`code` *bold* _it_ ~~gone~~ | a | b |",
    "# heading",
    "=====",
    "-----",
    "- list",
    "+ list",
    "1. list",
    "12) list",
    "    code",
    "\tcode",
    "~~~",
    "```",
    "> quote",
    "a | b",
    ":-- | --",
    "\\&lt; &amp; &#42; \\* C:\\*",
    "<https://evil.example>",
    "\x1b[2J\x07\u202e\x85",
    "two\r\nlines\rand three",
]


def item(text):
    return ChatKitThreadItem.from_dict(
        {
            "type": "chatkit.user_message",
            "created_at": 1_795_850_000,
            "content": [{"type": "input_text", "text": text}],
        }
    )


def test_text_shows_every_kind_of_item():
    kinds = [one for one in CONVERSATION if isinstance(one, dict)]
    shown = [list(text_of(ChatKitThreadItem.from_dict({"created_at": 0, **one}))) for one in kinds]
    assert [lines[1] for lines in shown] == [
        f"1970-01-01 00:00:00 UTC  {who}"
        for who in ("user", "assistant", "widget", "client tool call", "task", "task group")
    ]
    assert ["\n".join(line[4:] for line in lines[2:]) for lines in shown] == [
        """> Returns take 5 days
And abroad?
(attachment: parcel.png, image/png, cfile_1, https://files.example/p.png)
(attachment: bill.pdf, application/pdf, cfile_2)""",
        "Ten days.\n(source: https://shop.example)\n(source: returns.pdf)",
        '{"type":"Card"}',
        'open_order({"id": 7})\n-> (no output)',
        "Looking",
        "Search\n3 hits",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        *({"type": one["type"]} for one in CONVERSATION if isinstance(one, dict)),
        {"type": "new"},
    ],
)
def test_text_needs_no_field_of_an_item(fields):
    _, first, *said = text_of(ChatKitThreadItem.from_dict(fields))
    assert first.startswith("at an unknown time  ")
    assert said


def test_text_escapes_what_steers_a_terminal():
    for text in HARMFUL:
        assert all(line.isprintable() for line in text_of(item(text)))
    assert list(text_of(item(HARMFUL[-2])))[2:] == ["    \\x1b[2J\\x07\\u202e\\x85"]
    assert list(text_of(item(HARMFUL[-1])))[2:] == ["    two", "    lines", "    and three"]


@pytest.mark.parametrize("together", [False, True])
def test_markdown_shows_what_was_written(together):
    renderer = MarkdownIt("gfm-like", {"linkify": False})
    plain = {"text", "softbreak", "hardbreak", "text_special"}
    for text in ["\na\n".join([*HARMFUL, "a | b\n:-- | --", "a\n:--"])] if together else HARMFUL:
        thread = ChatKitThread.from_dict({"title": re.sub(r"\s+", " ", text)})
        lines = [*markdown_heading(thread), *markdown_of(item(text))]
        tokens = renderer.parse("\n".join(lines))
        assert [one.type for one in tokens if one.type.endswith("_open")] == [
            *("heading_open", "bullet_list_open", "list_item_open", "paragraph_open"),
            *("heading_open", "paragraph_open"),
        ]
        *_, said = [one for one in tokens if one.type == "inline"]
        assert {child.type for child in said.children} <= plain
        written = "".join(child.content or "\n" for child in said.children).split("\n")
        expected = [line[4:] for line in text_of(item(text))][2:]
        assert [line.replace("\xa0", " ").rstrip() for line in written] == expected
