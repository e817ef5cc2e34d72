"""Secret is a str that does not show itself; masking takes secrets out of other people's text."""

from __future__ import annotations

import base64
import copy
import html
import json
import logging
import pickle
from enum import Enum
from urllib.parse import quote

import attrs
import orjson
import pydantic
import pytest
import rich.pretty
from hypothesis import given
from hypothesis import strategies as st

from chatkit_async.secret import MASK, Secret, mask_json, mask_text, printable

KEY = 'sk-proj-+/é"\\0123456789abcdef'
PLAIN = "ek_68f1c2d3e4b5a6978877665544332211"
SECRET = Secret(PLAIN)


# What shows it, and what does not


def test_its_repr_is_masked():
    assert repr(SECRET) == "Secret('**********')"


SHOWN = {
    "list": lambda secret: repr([secret]),
    "tuple": lambda secret: repr((secret,)),
    "dict": lambda secret: repr({"client_secret": secret}),
    "set": lambda secret: repr({secret}),
    "str of a list": lambda secret: str([secret]),
    "attrs": lambda secret: repr(attrs.make_class("Holder", ["held"])(secret)),
    "f-string !r": lambda secret: f"{secret!r}",
    "f-string !a": lambda secret: f"{secret!a}",
    "ascii": ascii,
    "percent r": lambda secret: "%r" % (secret,),  # noqa: UP031 - the old way, too
    "format !r": "{!r}".format,
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_nothing_that_shows_a_repr_shows_it(show):
    assert PLAIN not in show(SECRET)
    assert MASK in show(SECRET)


def test_a_log_of_its_container_does_not_show_it(caplog):
    with caplog.at_level(logging.INFO):
        logging.getLogger("app").info("session: %s, %r", {"secret": SECRET}, SECRET)
    assert PLAIN not in caplog.text


def test_a_subclass_is_masked_under_its_own_name():
    class Token(Secret):
        __slots__ = ()

    assert repr(Token(PLAIN)) == "Token('**********')"


# Elsewhere it is a str


USED = {
    "str": str,
    "f-string": lambda secret: f"{secret}",
    "percent s": lambda secret: "%s" % secret,  # noqa: UP031 - the old way, too
    "join": "".join,
    "concatenation": lambda secret: secret + "",
    "slice": lambda secret: secret[:],
    "bytes": lambda secret: secret.encode().decode(),
    "json": lambda secret: json.loads(json.dumps({"a": secret}))["a"],
    "orjson": lambda secret: orjson.loads(orjson.dumps({"a": secret}))["a"],
}


@pytest.mark.parametrize("use", USED.values(), ids=USED)
def test_wherever_it_is_used_it_is_the_text(use):
    assert use(SECRET) == PLAIN


@pytest.mark.parametrize("derive", ["str", "concatenation"])
def test_what_is_derived_from_it_is_a_plain_str(derive):
    assert type(USED[derive](SECRET)) is str


def test_a_slice_of_it_is_masked_too():
    class Token(Secret):
        __slots__ = ()

    assert SECRET[3:7] == PLAIN[3:7]
    assert repr(SECRET[:7]) == repr(SECRET)
    assert type(Token(PLAIN)[::2]) is Token


def test_a_character_of_it_is_a_plain_str():
    assert (SECRET[0], type(SECRET[0])) == ("e", str)


def test_what_cuts_long_values_before_it_shows_them_does_not_show_it():
    secret = Secret("sk-proj-" + 4 * PLAIN)  # as long as a real key
    shown = rich.pretty.pretty_repr({"held": [secret]}, max_string=80)
    assert MASK in shown
    assert "sk-proj-" not in shown


def test_it_equals_its_text_and_is_found_by_it():
    assert SECRET == PLAIN
    assert hash(SECRET) == hash(PLAIN)
    assert {PLAIN: 1}[SECRET] == 1


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_is_as_secret(duplicate):
    again = duplicate(SECRET)
    assert type(again) is Secret
    assert again == SECRET


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_comes_back_as_secret(protocol):
    again = pickle.loads(pickle.dumps(SECRET, protocol))  # noqa: S301 - our own
    assert type(again) is Secret
    assert again == SECRET


def test_it_is_the_text_of_a_str_whose_str_is_another():
    class Key(str, Enum):  # noqa: UP042 - its str() is not its value
        LIVE = PLAIN

    assert Secret(Key.LIVE) == PLAIN
    assert str(Secret(Key.LIVE)) == PLAIN


@pytest.mark.parametrize("value", [None, 5, PLAIN.encode()])
def test_it_is_made_of_nothing_but_a_str(value):
    with pytest.raises(TypeError):
        Secret(value)


def test_it_holds_nothing_but_its_text():
    with pytest.raises(AttributeError):
        SECRET.note = "mine"


def model(type_of_field):
    return pydantic.create_model("Reply", client_secret=type_of_field)


@pytest.mark.parametrize("type_of_field", [str, Secret])
def test_a_pydantic_model_takes_it_and_dumps_it(type_of_field):
    reply = model(type_of_field)(client_secret=SECRET)
    assert reply.model_dump() == {"client_secret": PLAIN}
    assert json.loads(reply.model_dump_json()) == {"client_secret": PLAIN}


def test_a_pydantic_field_of_its_type_keeps_it_masked():
    reply = model(Secret).model_validate_json(json.dumps({"client_secret": PLAIN}))
    assert type(reply.client_secret) is Secret
    assert PLAIN not in repr(reply)


def test_a_pydantic_field_of_its_type_refuses_what_is_no_str():
    with pytest.raises(pydantic.ValidationError):
        model(Secret)(client_secret=5)


def test_a_pydantic_field_of_its_type_is_a_string_in_the_json_schema():
    properties = model(Secret).model_json_schema()["properties"]
    assert properties["client_secret"]["type"] == "string"


def test_a_dict_that_a_web_framework_dumps_has_the_text():
    # What FastAPI does with a returned dict: any value goes through pydantic's serialiser.
    dumped = pydantic.TypeAdapter(dict[str, object]).dump_json({"client_secret": SECRET})
    assert json.loads(dumped) == {"client_secret": PLAIN}


# Masking text


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"key={KEY}, twice: {KEY}",
        quote(KEY, safe=""),
        quote(KEY, safe="/"),
        quote(KEY, safe="").lower(),
        json.dumps({"key": KEY}),
        json.dumps({"key": KEY}, ensure_ascii=False),
        json.dumps(json.dumps({"key": KEY}, ensure_ascii=False)),
        json.dumps({"key": KEY}).replace("/", "\\/"),
        "".join(f"\\u{ord(c):04X}" for c in KEY),
        "".join(f"%{byte:02x}" for byte in KEY.encode()),
    ],
)
def test_a_known_secret_is_masked_however_it_is_written(text):
    masked = mask_text(f"say: {text} :said", [KEY])
    assert MASK in masked
    assert "0123456789" not in masked
    assert "%30%31%32" not in masked


@pytest.mark.parametrize("before", ["", "u", "us", "user:", "user1:", "user12:"])
@pytest.mark.parametrize("after", ["", ":", ":x", ":xy"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_known_secret_is_masked_in_base64_at_any_alignment(before, after, encode):
    encoded = encode(f"{before}{KEY}{after}".encode()).decode()
    masked = mask_text(f"Basic {encoded}", [KEY])
    assert MASK in masked
    # What is left of the text around the secret is at most the characters they share.
    left = masked.removeprefix("Basic ").replace(MASK, "")
    assert len(left) <= len(base64.b64encode(f"{before}{after}".encode())) + 4


@given(st.text(min_size=8), st.text(), st.text())
def test_no_known_secret_is_left_in_a_text(secret, before, after):
    masked = mask_text(before + secret + after, [secret])
    assert secret not in masked.replace(MASK, "") or secret in before + after + MASK


@pytest.mark.parametrize("secret", ["1234567\\", "\\" * 8])
def test_a_secret_of_backslashes_is_masked_too(secret):
    assert mask_text(f"<{secret}>", [secret]) == f"<{MASK}>"
    assert mask_text("<fine>", [secret]) == "<fine>"


@pytest.mark.parametrize("said", ["key gw-0123456789abcdef", PLAIN, "Bearer abcdefgh"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-le"])
def test_text_of_wider_characters_that_was_read_as_utf_8_is_withheld(said, encoding):
    def read_as_utf_8(text):
        return text.encode(encoding).decode("utf-8", "replace")

    assert mask_text(read_as_utf_8(f"no: {said}"), ["gw-0123456789abcdef"]) == MASK
    assert mask_text(read_as_utf_8("no"), ["gw-0123456789abcdef"]) == read_as_utf_8("no")


def test_every_known_secret_is_masked():
    assert mask_text("first-secret second-secret", ["first-secret", "second-secret"]) == (
        f"{MASK} {MASK}"
    )


@pytest.mark.unmeasured
@pytest.mark.parametrize("length", range(1, 8))
@pytest.mark.parametrize(
    "around",
    [
        "%s",
        "no: %s",
        "bob:%s@proxy",
        '"%s"',
        "<b>%s</b>",
        "pw=%s;",
        "%s.",
        "\\n%s",
        "%%20%s%%20",
        "密%s误",
    ],
)
def test_a_short_secret_is_masked_alone(length, around):
    secret = "xQ7é&/z"[:length]
    for form in {secret, quote(secret, safe=""), html.escape(secret), json.dumps(secret)[1:-1]}:
        assert mask_text(around % form, [secret]) == around % MASK


@pytest.mark.parametrize(
    "secret", ["e", "at", "est", "rat", "sessi", "rejecte", ".", ":", "!", ", "]
)
def test_a_short_secret_leaves_words_readable(secret):
    prose = "latest: the session's rate was rejected! See /v1/chatkit, then retry."
    assert mask_text(prose, [secret]) == prose


@pytest.mark.parametrize("secret", [".", "!", "::", "-/-"])
def test_a_short_secret_of_punctuation_is_masked_alone(secret):
    assert mask_text(f'pw="{secret}", bob:{secret}', [secret]) == f'pw="{MASK}", bob:{MASK}'


def test_a_secret_read_as_latin_1_is_masked():
    for secret in "pässe", "pässwörter":
        told = f"no: {secret}".encode("latin-1").decode("utf-8", "surrogateescape")
        assert mask_text(told, [secret]) == f"no: {MASK}"


def test_a_secret_in_html_is_withheld():
    secret = "it's<0123456789>"
    assert mask_text(html.escape(secret), [secret]) == MASK
    assert mask_text("it&#39;s&lt;0123456789&gt;", [secret]) == MASK


def test_an_empty_secret_masks_nothing():
    assert mask_text("all of it", [""]) == "all of it"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abc.def-123", f"Authorization: Bearer {MASK}"),
        ("bearer   abc", f"bearer   {MASK}"),
        ('{"h": "Bearer abc"}', f'{{"h": "Bearer {MASK}"}}'),
        ("Incorrect API key provided: sk-proj-abcd1234.", f"Incorrect API key provided: {MASK}."),
        ("ek_68f1c2d3e4b5a697 sess-68f1c2d3e4", f"{MASK} {MASK}"),
        ("chatkit_token_12345678", MASK),
        ('{"client_secret": "abc", "id": "x"}', f'{{"client_secret": "{MASK}", "id": "x"}}'),
        ('{\\"client_secret\\":\\"abc\\"}', f'{{\\"client_secret\\":\\"{MASK}\\"}}'),
        ("{'client_secret': 'abc'}", f"{{'client_secret': '{MASK}'}}"),
        ('"client_secret":"ab\\"cd","id":1', f'"client_secret":"{MASK}","id":1'),
        ('"client_secret":"\\u0065k_abc"', f'"client_secret":"{MASK}"'),
        ('{\\"client_secret\\":\\"a\\\\\\"b\\"}', f'{{\\"client_secret\\":\\"{MASK}\\"}}'),
        ('"client_secret":"cut off he', f'"client_secret":"{MASK}'),
        ("client_secret=abc&user=u", f"client_secret={MASK}&user=u"),
    ],
)
def test_what_looks_like_a_credential_is_masked(text, masked):
    assert mask_text(text, ()) == masked


@pytest.mark.parametrize(
    "text",
    [
        "keys start with sk-...",
        "cksess_68f1c2d3e4 was cancelled",
        "a risk-assessment of task_management",
        "the client_secret is missing",
        '{"client_secret": null}',
    ],
)
def test_what_only_resembles_a_credential_is_left(text):
    assert mask_text(text, ()) == text


# Printable text


def test_printable_text_is_left():
    for text in ["", "req_1", "a, b", "Café", "日本"]:
        assert printable(text) is text


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "cp1251", "utf-16"])
def test_any_byte_becomes_printable(encoding):
    for byte in range(256):
        raw = f"a{bytes([byte]).decode('latin-1')}z".encode(encoding, "replace")
        text = printable(raw.decode("utf-8", "surrogateescape"))
        assert text.isprintable()
        text.encode()


@pytest.mark.parametrize(
    "character",
    "\x00\t\n\x1b\x7f\x85\x9b\xa0\xad\u200b\u200f\u2028\u202e\u2066\ufeff\ud800\U000e0001",
)
def test_an_unprintable_character_becomes_its_escape(character):
    assert printable(f"a{character}b") == f"a{ascii(character)[1:-1]}b"


def test_undecoded_bytes_are_read_as_latin_1():
    assert printable("Caf\udce9 \udc9b2J") == "Café \\x9b2J"


# Masking JSON


def test_json_is_masked_in_values_and_keys_at_every_depth():
    value = {"a": [{"b": f"key {KEY}"}], KEY: {"c": KEY}}
    assert mask_json(value, [KEY]) == {"a": [{"b": f"key {MASK}"}], MASK: {"c": MASK}}


@pytest.mark.parametrize("value", ["short", 5, ["x"], {"value": "x"}])
def test_a_client_secret_is_withheld_whatever_it_is(value):
    assert mask_json({"session": {"client_secret": value}}, ()) == {
        "session": {"client_secret": MASK}
    }


def test_an_absent_client_secret_is_no_secret():
    assert mask_json({"client_secret": None}, ()) == {"client_secret": None}


@pytest.mark.parametrize("value", [None, True, 5, 2.5, [], {}, [1, None], {"a": 1}])
def test_json_without_text_is_left(value):
    assert mask_json(value, [KEY]) == value


def test_json_that_is_nested_too_deeply_says_so():
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(RecursionError):
        mask_json(value, ())


def test_text_made_to_be_slow_to_look_through_is_not():
    text = "\\" * 400_000  # with quadratic work, this is minutes

    assert mask_text(text, ["sk-0123456789abcdef"]) == text
