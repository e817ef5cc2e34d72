"""Rows: CSV, JSON lines and ids, in pieces of any size, each with its line and its problems."""

from __future__ import annotations

import csv
import io
import json

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkit_async import models
from chatkit_async.cli._rows import (
    CHUNK,
    COLUMNS,
    LONGEST_RECORD,
    CsvDecoder,
    IdDecoder,
    InputError,
    JsonDecoder,
    Rows,
    problems_of_cancel,
    problems_of_create,
    read,
    read_defaults,
    with_defaults,
)

LONE = "\ud800"


def rows_of(decoder, data, size=None):
    rows = Rows(decoder)
    data = data.encode() if isinstance(data, str) else data
    found = []
    for start in range(0, len(data), size or max(1, len(data))):
        found += rows.feed(data[start : start + (size or len(data))])
    found += rows.end()
    assert [row.index for row in found] == list(range(len(found))) == list(range(rows.index))
    assert rows.read == len(data)
    return found


def csv_rows(data, defaults=None):
    return rows_of(CsvDecoder(defaults or {}), data)


def json_rows(data, defaults=None):
    return rows_of(JsonDecoder(defaults or {}), data)


def values(rows):
    return [row.value for row in rows]


def problems(rows):
    return [(row.line, *problem) for row in rows for problem in row.problems]


# CSV


def test_headers_name_fields_and_dots_lead_into_objects():
    (row,) = csv_rows("user,workflow.id,workflow.state_variables.plan\nada,wf_1,pro\n")
    assert row.value == {
        "user": "ada",
        "workflow": {"id": "wf_1", "state_variables": {"plan": "pro"}},
    }
    assert (row.index, row.line, row.problems) == (0, 2, ())


@pytest.mark.parametrize(
    ("header", "cell", "value"),
    [
        ("workflow", "wf_1", {"workflow": {"id": "wf_1"}}),
        ("workflow.version", "3", {"workflow": {"version": "3"}}),
        ("workflow.tracing.enabled", "FALSE", {"workflow": {"tracing": {"enabled": False}}}),
        ("state_variables.plan", "007", {"workflow": {"state_variables": {"plan": "007"}}}),
        ("state_variables.a.b", "x", {"workflow": {"state_variables": {"a.b": "x"}}}),
        ("state_variables.seats:", "7", {"workflow": {"state_variables": {"seats": 7}}}),
        ("state_variables.rate:", "0.5", {"workflow": {"state_variables": {"rate": 0.5}}}),
        ("state_variables.trial:", "true", {"workflow": {"state_variables": {"trial": True}}}),
        ("expires_after", "300", {"expires_after": {"seconds": 300}}),
        ("expires_after.seconds", " 300 ", {"expires_after": {"seconds": 300}}),
        ("rate_limits", "-5", {"rate_limits": {"max_requests_per_1_minute": -5}}),
        (
            "chatkit_configuration.history.enabled",
            "true",
            {"chatkit_configuration": {"history": {"enabled": True}}},
        ),
    ],
)
def test_a_cell_has_the_type_of_its_field(header, cell, value):
    (row,) = csv_rows(f"{header}\n{cell}\n")
    assert (row.value, row.problems) == (value, ())


def test_an_empty_cell_is_a_field_that_is_not_given():
    (row,) = csv_rows("user,expires_after,state_variables.plan\nada,,\n")
    assert row.value == {"user": "ada"}


@pytest.mark.parametrize(
    ("header", "cell", "said"),
    [
        ("expires_after", "soon", "expires_after.seconds: should be a whole number, is 'soon'"),
        ("expires_after", "1.5", "should be a whole number, is '1.5'"),
        ("expires_after", "٣", "should be a whole number"),
        ("expires_after", "9" * 5000, f"should be a whole number, is '{'9' * 80}...'"),
        ("workflow.tracing.enabled", "yes", "should be true or false, is 'yes'"),
        ("state_variables.n:", "pro", "should be a number, true or false, is 'pro'"),
        ("state_variables.n:", "null", "should be a number, true or false, is 'null'"),
        ("state_variables.n:", "[" * 99_999, "should be a number, true or false, is '[[["),
        ("state_variables.n:", "sk-abcdefghijkl", "should be a number, true or false, is '****"),
    ],
)
def test_a_cell_that_cannot_be_read_is_a_problem_of_its_row(header, cell, said):
    ((line, path, sentence),) = problems(csv_rows(f"{header}\n{cell}\n"))
    assert line == 2
    assert said in f"{path}: {sentence}"


def test_every_problem_of_a_row_is_found():
    rows = csv_rows("user,expires_after,workflow.tracing.enabled\na,b,c\n")
    assert [path for _, path, _ in problems(rows)] == [
        "expires_after.seconds",
        "workflow.tracing.enabled",
    ]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("usr", "column 'usr' is no field of a session, did you mean 'user'?"),
        ("email", "column 'email' is no field of a session"),
        ("user,user", "column 'user' is there twice"),
        ("workflow,workflow.id", "column 'workflow.id' is there twice"),
        ("state_variables.", "column 'state_variables.' should name a variable"),
        ("state_variables.:", "should name a variable"),
        ("user,", "column '' is no field of a session"),
        (b"\xff", "line 1, the header of the CSV, is not UTF-8"),
        ('"user"x', "line 1, the header of the CSV, is not CSV: "),
    ],
)
def test_a_header_that_is_none_is_an_error_of_the_input(header, said):
    header = header if isinstance(header, bytes) else header.encode()
    with pytest.raises(InputError) as error:
        csv_rows(header + b"\nada\n")
    assert said in error.value.message


def test_every_wrong_column_is_named_at_once():
    with pytest.raises(InputError, match=r"usr(.|\n)*wrkflow"):
        csv_rows("usr,wrkflow\n")


@pytest.mark.parametrize("data", ["", "\n", "\n \n"])
def test_csv_without_a_header_is_an_error(data):
    with pytest.raises(InputError, match="the input is empty"):
        csv_rows(data)


def test_a_header_alone_has_no_rows():
    assert csv_rows("user\n") == []


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_the_header_says_what_separates_cells(mark):
    (row,) = csv_rows(f"user{mark}workflow\nada{mark}wf_1\n")
    assert row.value == {"user": "ada", "workflow": {"id": "wf_1"}}


def test_what_excel_writes_is_read():
    (row,) = csv_rows(b'\xef\xbb\xbf"user","workflow"\r\n"a, b","wf ""1"""\r\n\r\n')
    assert row.value == {"user": "a, b", "workflow": {"id": 'wf "1"'}}


def test_a_cell_in_quotation_marks_can_go_over_lines_and_lines_are_counted():
    rows = csv_rows('user\n"a\n\nb"\n\nc\n')
    assert [(row.line, row.value["user"]) for row in rows] == [(2, "a\n\nb"), (6, "c")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b"a,b,c", "has 3 cells, and the header 2"),
        (b"a", "has 1 cell, and the header 2"),
        (b"\xff,b", "is not UTF-8"),
        (b'"a"x,b', "is not CSV"),
        (b'a"b,c\nd"e,f', "has a quotation mark in a cell that is not in quotation marks"),
        (b"a" * 140_000 + b",b", "is not CSV: field larger than field limit"),
        (b"a\rb,c", "is not CSV"),
    ],
)
def test_a_row_that_is_no_csv_is_a_problem_of_its_own(row, said):
    broken, good = csv_rows(b"user,workflow\n" + row + b"\nada,wf_1\n")
    assert broken.problems[0][0] == "row"
    assert said in broken.problems[0][1]
    assert good.value == {"user": "ada", "workflow": {"id": "wf_1"}}


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_quotation_mark_that_is_never_closed_ends_the_input(end):
    with pytest.raises(InputError, match="line 3: a quotation mark is never closed"):
        csv_rows(b'user\nada\n"b\nc' + end)


def test_it_is_not_looked_for_to_the_end_of_a_large_file():
    rows = Rows(CsvDecoder({}))
    assert list(rows.feed(b'user\n"')) == []
    too_much = (b"x" * 9999 + b"\n") * (LONGEST_RECORD // 9999 + 2)
    with pytest.raises(InputError, match="line 2: a quotation mark is never closed"):
        list(rows.feed(too_much))


def test_a_line_separator_of_unicode_is_no_end_of_a_row():
    (row,) = csv_rows("user\na\u2028b\x0bc\n")
    assert row.value == {"user": "a\u2028b\x0bc"}


def test_the_columns_are_the_fields_of_a_session():
    def paths(cls, prefix=""):
        for name, field in models._base.fields_of(cls).items():
            parts = [c for c in _classes(field.type) if c is not models.SessionCreateParams]
            if name == "state_variables":
                continue
            if parts:
                yield from paths(parts[0], f"{prefix}{name}.")
            else:
                yield prefix + name

    assert set(paths(models.SessionCreateParams)) == set(COLUMNS)


def _classes(kind):
    from typing import get_args

    return [
        c for c in (kind, *get_args(kind)) if isinstance(c, type) and c.__name__[-5:] == "Param"
    ]


cell = st.text(
    st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1, max_size=6
)


@given(st.lists(st.tuples(cell, cell), max_size=5), st.integers(1, 40))
def test_what_is_written_as_csv_is_read_in_pieces_of_any_size(given_rows, size):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("user", "workflow"), *given_rows])
    rows = rows_of(CsvDecoder({}), text.getvalue().encode(), size)
    assert [(row.value["user"], row.value["workflow"]["id"]) for row in rows] == given_rows


@given(st.binary(max_size=60), st.integers(1, 7))
def test_no_csv_breaks_the_reader_and_pieces_make_no_difference(data, size):
    def outcome(size):
        try:
            return rows_of(CsvDecoder({}), b"user,workflow\n" + data, size)
        except InputError as error:
            return error.message

    assert outcome(size) == outcome(None)


# JSON lines


def test_each_line_is_an_object_or_a_users_id():
    rows = json_rows('{"user": "ada", "workflow": {"id": "wf_1"}}\n\n  \n"bob"\n')
    assert values(rows) == [{"user": "ada", "workflow": {"id": "wf_1"}}, {"user": "bob"}]
    assert [row.line for row in rows] == [1, 4]


def test_the_last_line_needs_no_end_and_windows_line_ends_are_ends():
    assert values(json_rows('"ada"\r\n"bob"')) == [{"user": "ada"}, {"user": "bob"}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "is not JSON: Expecting property name"),
        (b"{x", "at character 2"),
        (b'"\xff"', "is not UTF-8"),
        (b"[1]", "should be an object, or a user's id as a string, is of type list"),
        (b"3", "should be an object, or a user's id as a string, is 3"),
        (b'{"a":' * 100_000, "is JSON that is nested too deeply"),
        (b'{"a":' * 700 + b"1" + b"}" * 700, None),
        (b"9" * 5000, "is not JSON: Exceeds the limit"),
    ],
)
def test_a_line_that_cannot_be_read_is_a_problem_of_its_own(line, said):
    broken, good = json_rows(line + b'\n"ada"\n')
    if said is not None:
        assert broken.problems[0][0] == "row"
        assert said in broken.problems[0][1]
        assert broken.value == {}
    assert good.value == {"user": "ada"}


def test_csv_that_is_read_as_json_is_told_so_once():
    (first, second) = json_rows("user,workflow\nada,wf_1\n")
    assert first.problems[0][1].endswith(", at character 1. Of CSV say --format csv")
    assert second.problems[0][1].endswith(", at character 1")


@given(st.binary(max_size=60), st.integers(1, 7))
def test_no_line_breaks_the_reader_and_pieces_make_no_difference(data, size):
    assert rows_of(JsonDecoder({}), data, size) == rows_of(JsonDecoder({}), data)


# Fingerprints


def test_a_fingerprint_tells_rows_apart_and_not_how_they_are_written():
    a, b, c, d = json_rows(
        '{"user": "ada", "workflow": "wf_1"}\n'
        '{ "workflow":{"id":"wf_1"}, "user":"ada" }\n'
        '{"user": "bob", "workflow": "wf_1"}\n'
        "{broken\n"
    )
    (e,) = csv_rows("workflow,user\nwf_1,ada\n")
    assert a.fingerprint == b.fingerprint == e.fingerprint
    assert len({a.fingerprint, c.fingerprint, d.fingerprint}) == 3
    assert all(0 <= row.fingerprint < 2**64 for row in (a, c, d))


def test_lines_that_cannot_be_read_are_told_apart():
    a, b = json_rows("{a\n{b\n")
    assert a.fingerprint != b.fingerprint


# Defaults


def test_a_row_goes_over_the_defaults_object_by_object():
    defaults = {"workflow": {"id": "wf_1", "state_variables": {"plan": "free", "seats": 1}}}
    row = {"user": "ada", "workflow": {"state_variables": {"plan": "pro"}}}
    assert with_defaults(row, defaults) == {
        "user": "ada",
        "workflow": {"id": "wf_1", "state_variables": {"plan": "pro", "seats": 1}},
    }
    assert defaults["workflow"]["state_variables"] == {"plan": "free", "seats": 1}


@pytest.mark.parametrize(
    ("row", "merged"),
    [
        ({"workflow": "wf_2"}, {"workflow": {"id": "wf_2", "version": "3"}}),
        ({"workflow": None}, {"workflow": None}),
        (
            {"expires_after": 5},
            {"workflow": {"id": "wf_1", "version": "3"}, "expires_after": {"seconds": 5}},
        ),
    ],
)
def test_a_field_given_as_one_value_stands_for_its_object(row, merged):
    assert with_defaults(row, {"workflow": {"id": "wf_1", "version": "3"}}) == merged


def test_rows_of_either_kind_have_the_defaults():
    defaults = {"workflow": {"id": "wf_1"}}
    expected = [{"user": "ada", "workflow": {"id": "wf_1"}}]
    assert values(csv_rows("user\nada\n", defaults)) == expected
    assert values(json_rows('"ada"', defaults)) == expected


def test_defaults_come_from_json_and_from_toml(tmp_path):
    (tmp_path / "a.json").write_text('\ufeff{"workflow": "wf_1", "expires_after": 60}', "utf-8")
    (tmp_path / "a.toml").write_text('workflow = "wf_1"\nexpires_after = 60\n', "utf-8")
    expected = {"workflow": {"id": "wf_1"}, "expires_after": {"seconds": 60}}
    assert read_defaults(tmp_path / "a.json") == expected
    assert read_defaults(tmp_path / "a.toml") == expected


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"{", "are no JSON: Expecting"),
        ("a.json", b"[" * 100_000, "are no JSON"),
        ("a.json", b"\xff", "are no JSON"),
        ("a.json", b"[]", "should be an object, are of type list"),
        ("a.toml", b"a", "are no TOML"),
        ("a.toml", b"expires_at = 5", "expires_at: is unknown, did you mean 'expires_after'?"),
        ("a.json", b'{"expires_after": 0, "rate_limits": "x"}', "rate_limits.max"),
        ("a.toml", b"workflow = 2020-01-01", "workflow.id: should be a string"),
    ],
)
def test_defaults_that_are_wrong_are_wrong_usage(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(click.UsageError) as error:
        read_defaults(tmp_path / name)
    assert said in error.value.message
    assert name in error.value.message


def test_defaults_that_cannot_be_read_are_wrong_usage(tmp_path):
    with pytest.raises(click.UsageError, match="cannot read the defaults in"):
        read_defaults(tmp_path)


# What a call cannot be made of


def test_problems_of_values_are_those_of_create():
    assert problems_of_create({"user": "ada", "workflow": "wf_1"}) == ()
    assert [path for path, _ in problems_of_create({"user": " ", "expires_after": 0})] == [
        "user",
        "workflow",
        "expires_after",
    ]


def test_problems_of_ids_are_those_of_cancel():
    assert problems_of_cancel("cksess_1") == ()
    assert problems_of_cancel("..")[0][0] == "session_id"


# Ids


def test_ids_stand_alone_or_in_json():
    rows = rows_of(IdDecoder(), ' cksess_1 \n\n"cksess_2"\n{"id": "cksess_3", "user": "x"}\n')
    assert [(row.line, row.value) for row in rows] == [
        (1, "cksess_1"),
        (3, "cksess_2"),
        (4, "cksess_3"),
    ]
    assert problems(rows) == []


@pytest.mark.parametrize("line", ["a,b", "a;b", "a b", "a\tb", "sessions/a"])
def test_what_cannot_be_an_id_is_a_problem(line):
    rows = rows_of(IdDecoder(), f"cksess_1\n{line}\n")
    said = "is this the input of `bulk create`? Give the output file of that run instead"
    assert problems(rows) == [(2, "id", f"is no session id: {said}")]


@pytest.mark.parametrize(
    "header", ["user", "user,workflow", '"user";"state_variables.plan"', "\ufeffuser\tworkflow.id"]
)
def test_the_input_of_create_holds_no_ids(header):
    with pytest.raises(InputError, match="line 1 names columns: is this the input of `bulk cr"):
        rows_of(IdDecoder(), f"{header}\nada\n")


def test_of_a_journal_what_was_created_is_taken():
    records = [
        {"record": "header", "format": 1},
        {"record": "intent", "index": 0},
        {"record": "outcome", "index": 0, "kind": "created", "session": {"id": "cksess_1"}},
        {"record": "outcome", "index": 1, "kind": "rejected", "user": "ada"},
        {"record": "outcome", "index": 2, "kind": "cancelled", "session": {"id": "cksess_2"}},
        {"record": "outcome", "index": 3, "kind": "created", "session": {}},
        {"record": "outcome", "index": 4, "kind": "created"},
    ]
    rows = rows_of(IdDecoder(), "".join(f"{json.dumps(record)}\n" for record in records))
    assert [(row.line, row.value) for row in rows] == [(3, "cksess_1"), (6, ""), (7, "")]
    said = "is missing: there is nothing to cancel by"
    assert problems(rows) == [(6, "id", said), (7, "id", said)]


@pytest.mark.parametrize(
    "line", ['{"record": "outc', '"cksess', "{" * 100_000 + "}", "{[" * 99_999]
)
def test_a_line_that_is_neither_json_nor_an_id_is_a_problem(line):
    assert problems(rows_of(IdDecoder(), line)) == [
        (1, "row", "is neither JSON nor a session's id")
    ]


# Reading


def test_what_was_read_is_what_became_rows():
    rows = Rows(JsonDecoder({}))
    assert [rows.read for _ in rows.feed(b'"ada"\n\n"bob"\n"cid"')] == [6, 13]
    assert [rows.read for _ in rows.end()] == [18]


class Broken:
    def read1(self, size):
        raise OSError(5, "Input/output error")


def test_a_stream_is_read_piece_by_piece():
    stream = io.BytesIO(b"x" * (CHUNK + 1))
    pieces = [read(stream) for _ in range(3)]
    assert [len(piece) for piece in pieces] == [CHUNK, 1, 0]


def test_a_stream_that_cannot_be_read_is_an_error_of_the_input():
    with pytest.raises(InputError, match="cannot read the input: Input/output error"):
        read(Broken())
