"""Rows: CSV, JSON lines and ids, in pieces of any size, each with its line and its problems."""

from __future__ import annotations

import csv
import io
import json
from itertools import product

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkit_async import models
from chatkit_async.cli import _rows
from chatkit_async.cli._rows import (
    CHUNK,
    COLUMNS,
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
        ("expires_after", "soon", "expires_after.seconds: must be a whole number, got 'soon'"),
        ("expires_after", "1.5", "must be a whole number, got '1.5'"),
        ("expires_after", "٣", "must be a whole number"),
        ("expires_after", "9" * 5000, f"must be a whole number, got '{'9' * 80}...'"),
        ("workflow.tracing.enabled", "yes", "must be true or false, got 'yes'"),
        ("state_variables.n:", "pro", "must be a number, true or false, got 'pro'"),
        ("state_variables.n:", "null", "must be a number, true or false, got 'null'"),
        ("state_variables.n:", "[" * 99_999, "must be a number, true or false, got '[[["),
        ("state_variables.n:", "sk-abcdefghijkl", "must be a number, true or false, got '****"),
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


FOUND = "\nColumns found: {}\nValid columns: user, workflow, workflow.version, "


@pytest.mark.parametrize(
    ("header", "said", "remedy"),
    [
        ("usr", "unknown column 'usr', did you mean 'user'?", ["--map", "usr=user"]),
        ("user,User ID", "unknown column 'User ID'", ["--ignore-column", "User ID"]),
        (
            "Usr,wrkflow",
            "unknown column 'Usr', did you mean 'user'?; unknown column 'wrkflow', did you",
            None,
        ),
        ("email,name", "unknown column 'email'; unknown column 'name'", []),
        ("user, USER ", "columns 'user' and 'USER' are both user", []),
        ("workflow,workflow.id", "columns 'workflow' and 'workflow.id' are both workflow.id", []),
        ("state_variables.", "unknown column 'state_variables.'", None),
        ("STATE_VARIABLES.:", "unknown column 'STATE_VARIABLES.:'", None),
        (",".join(f"c{number}" for number in range(99)), "unknown column 'c0'; unknown col", None),
        ("x" * 99_999, f"unknown column '{'x' * 80}...'", None),
    ],
)
def test_wrong_header_names_found_and_valid_columns(header, said, remedy):
    with pytest.raises(InputError) as error:
        csv_rows(header + "\nada\n")
    assert error.value.message.startswith(f"line 1: {said}")
    assert remedy in (None, list(error.value.remedy))
    if len(header) < 80:
        assert FOUND.format(", ".join(map(str.strip, header.split(",")))) in error.value.message
    assert len(error.value.message) < 4000
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"\xff", "is not UTF-8: save the file as CSV UTF-8"),
        ("user".encode("utf-16-le"), "is not UTF-8: save the file as CSV UTF-8"),
        (b'"user"x', "has a quotation mark within a cell"),
    ],
)
def test_unreadable_header_ends_the_input(header, said):
    with pytest.raises(InputError, match=f"^line 1, the header of the CSV, {said}"):
        csv_rows(header + b"\nada\n")


@pytest.mark.parametrize("data", ["", "\n", "\n \n"])
def test_csv_without_a_header_is_an_error(data):
    with pytest.raises(InputError, match="the input is empty"):
        csv_rows(data)


def test_a_header_alone_has_no_rows():
    assert csv_rows("user\n") == []


ADA = {"user": "ada", "workflow": {"id": "wf_1"}}
BOB = {"user": "b\nö", "workflow": {"id": 'wf "2"'}}


@pytest.mark.parametrize(
    ("before", "mark", "after"),
    [
        ("", ",", ""),
        ("", ";", ";;"),
        ("", "\t", "\t"),
        ("sep=;\n", ";", ";"),
        ('"SEP=|"\n', "|", ""),
        (";;;\n", ";", ";"),
    ],
)
def test_csv_of_excel_is_read(before, mark, after):
    text = (
        f"{before}User{mark}{mark} WorkFlow {after}\n"
        f"ada{mark}{mark}wf_1{after}\n{mark}{mark}{after}\n\n"
        f'"b\nö"{mark} {mark}"wf ""2"""\n {mark}{mark} {after}\n'
    )
    for end, encoding, size in product(
        ["\n", "\r\n", "\r"], ["utf-8", "utf-8-sig", "utf-16"], [1, 3, None]
    ):
        rows = rows_of(CsvDecoder({}), text.replace("\n", end).encode(encoding), size)
        assert values(rows) == [ADA, BOB]
        assert [row.line - before.count("\n") for row in rows] == [2, 5]


@pytest.mark.parametrize(
    ("header", "renamed", "ignore_unknown"),
    [
        ("User ID,Plan", {" user id ": "user", "PLAN": "state_variables.Plan"}, False),
        ("USER,Notes,State_Variables.Plan,notes", {"notes": None}, False),
        ('user,"Name, first",state_variables.Plan', {"name, first": None}, False),
        ("user,Notes,Phone,state_variables.Plan", {}, True),
        ('"Name, first";"a,b";user;workflow.state_variables.Plan', {}, True),
    ],
)
def test_columns_can_be_renamed_and_left_out(header, renamed, ignore_unknown):
    (names,) = csv.reader([header], delimiter=";" if ";" in header else ",")
    mark = ";" if ";" in header else ","
    cells = [
        "ada" if "user" in name.lower() else "pro" if "Plan" in name else "x" for name in names
    ]
    decoder = CsvDecoder({}, renamed=renamed, ignore_unknown=ignore_unknown)
    (row,) = rows_of(decoder, f"{header}\n{mark.join(cells)}\n")
    assert row.value == {"user": "ada", "workflow": {"state_variables": {"Plan": "pro"}}}


@pytest.mark.parametrize(
    ("renamed", "said"),
    [
        ({"Kunde": "user"}, "no column 'Kunde', which an option names"),
        ({"Notes": None}, "no column 'Notes', which an option names"),
        ({"id": "usr"}, "unknown column 'usr', did you mean 'user'?"),
        ({"id": "workflow"}, "columns 'id' and 'workflow' are both workflow.id"),
    ],
)
def test_wrong_renaming_ends_the_input(renamed, said):
    with pytest.raises(InputError) as error:
        rows_of(CsvDecoder({}, renamed=renamed, ignore_unknown=True), "id,workflow\n")
    assert said in error.value.message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PK\x03\x04.....", "the input is a workbook: save the file as CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0.", "the input is a workbook: save the file as CSV UTF-8"),
        (b"\xff\xfeu\0\0\xd8s\0", "begins as UTF-16, but is not valid UTF-16: save the"),
        (b"\xff\xfeu\0s", "begins as UTF-16, but is not valid UTF-16: save the"),
    ],
)
def test_input_that_is_no_text_is_refused(data, said):
    for size in (1, 64):
        with pytest.raises(InputError) as error:
            rows_of(CsvDecoder({}), data, size)
        assert said in error.value.message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b"a,b,c", "has 3 cells, but the header has 2"),
        (b"a", "has 1 cell, but the header has 2"),
        (b"a,b, ,c", "has 4 cells, but the header has 2"),
        (b"\xff,b", "is not UTF-8: save the file as CSV UTF-8"),
        (b"a\0,b", "is not UTF-8: save the file as CSV UTF-8"),
        (b'"a"x,b', "has a quotation mark within a cell: enclose the cell"),
        (b'a"b,c\nd"e,f', "has a quotation mark within a cell: enclose the cell"),
    ],
)
def test_a_row_that_is_no_csv_is_a_problem_of_its_own(row, said):
    broken, good = csv_rows(b"user,workflow\n" + row + b"\nada,wf_1\n")
    assert broken.problems[0][0] == "row"
    assert said in broken.problems[0][1]
    assert good.value == {"user": "ada", "workflow": {"id": "wf_1"}}


def test_value_below_no_name_is_a_problem():
    stray, good = csv_rows("user,,workflow\nada,x,wf_1\nada, ,wf_1\n")
    assert stray.problems == (("row", "has a value in a column without a name"),)
    assert good.value == ADA


def test_cells_can_be_as_long_as_the_api_takes():
    text = "t" * (10 * 1024 * 1024)
    for cell in (text, f'"{text}"'):
        (row,) = rows_of(CsvDecoder({}), f"user,state_variables.doc\nada,{cell}\n", CHUNK)
        assert row.problems == ()
        assert row.value["workflow"]["state_variables"]["doc"] == text


class Piece(bytes):
    """A piece of the input that counts the bytes it is appended to."""

    copied = 0

    def __radd__(self, before):
        Piece.copied += len(before)
        return bytes(before) + bytes(self)


def test_long_line_is_joined_once():
    text = f'{{"user": "{"a" * 100_000}"}}\n'.encode()
    rows = Rows(JsonDecoder({}))
    pieces = (Piece(text[start : start + 500]) for start in range(0, len(text), 500))
    (row,) = (row for piece in pieces for row in rows.feed(piece))
    assert row.value == {"user": "a" * 100_000}
    assert Piece.copied < 1000


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_quotation_mark_that_is_never_closed_ends_the_input(end):
    with pytest.raises(InputError, match="line 3: a quotation mark is never closed"):
        csv_rows(b'user\nada\n"b\nc' + end)


@pytest.mark.parametrize(
    ("decoder", "data", "said"),
    [
        (CsvDecoder, 'user\n"' + "xxxxxxxxx\n" * 40, "line 2: a quotation mark is never closed"),
        (CsvDecoder, "user\n" + "x" * 310, "line 2 is longer than 300 bytes"),
        (JsonDecoder, '{"user": "' + "x" * 310, "line 1 is longer than 300 bytes"),
    ],
)
def test_row_without_end_is_not_kept(monkeypatch, decoder, data, said):
    monkeypatch.setattr(_rows, "LONGEST_ROW", 300)
    with pytest.raises(InputError, match=said):
        rows_of(decoder({}), data, 20)


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
    written = [cells for cells in given_rows if "".join(cells).strip()]  # none that are empty
    rows = rows_of(CsvDecoder({}), text.getvalue().encode(), size)
    assert [(row.value["user"], row.value["workflow"]["id"]) for row in rows] == written


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
        (b"3", "must be an object, or a user's id as a string, got 3"),
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


def test_json_array_is_refused():
    with pytest.raises(InputError, match="line 1 begins a JSON array: write an object on each"):
        json_rows('[{"user": "ada"}')
    assert json_rows('"ada"\n[1]')[1].problems[0][1].endswith(", got list")


def test_csv_that_is_read_as_json_is_told_so_once():
    (first, second) = json_rows("user,workflow\nada,wf_1\n")
    assert first.problems[0][1].endswith(", at character 1. For CSV, use --format csv")
    assert second.problems[0][1].endswith(", at character 1")


@given(st.binary(max_size=60), st.integers(1, 7))
def test_no_line_breaks_the_reader_and_pieces_make_no_difference(data, size):
    def outcome(size):
        try:
            return rows_of(JsonDecoder({}), data, size)
        except InputError as error:
            return error.message

    assert outcome(size) == outcome(None)


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


def test_options_go_over_the_defaults_and_below_the_rows(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"workflow": {"id": "wf_1", "version": "3"}, "expires_after": 60}', "utf-8")
    fields = {"workflow": "wf_2", "expires_after": 300, "rate_limits": None}
    defaults = read_defaults(path, fields, {"plan": "free", "seats": 1})
    (row,) = csv_rows("user,expires_after,state_variables.plan\nada,5,pro\n", defaults)
    assert row.value == {
        "user": "ada",
        "workflow": {"id": "wf_2", "version": "3", "state_variables": {"plan": "pro", "seats": 1}},
        "expires_after": {"seconds": 5},
    }
    assert read_defaults(None, {}, None) == {}
    with pytest.raises(click.UsageError, match=r"options are wrong:\n  workflow.id: must not be"):
        read_defaults(None, {"workflow": ""}, None)


def test_defaults_come_from_json_and_from_toml(tmp_path):
    (tmp_path / "a.json").write_text('\ufeff{"workflow": "wf_1", "expires_after": 60}', "utf-8")
    (tmp_path / "a.toml").write_text('workflow = "wf_1"\nexpires_after = 60\n', "utf-8")
    expected = {"workflow": {"id": "wf_1"}, "expires_after": {"seconds": 60}}
    assert read_defaults(tmp_path / "a.json", {}, None) == expected
    assert read_defaults(tmp_path / "a.toml", {}, None) == expected


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"{", "are not JSON: Expecting"),
        ("a.json", b"[" * 100_000, "are not JSON"),
        ("a.json", b"\xff", "are not JSON"),
        ("a.json", b"[]", "must be an object, got list"),
        ("a.toml", b"a", "are not TOML"),
        ("a.toml", b"expires_at = 5", "expires_at: is unknown, did you mean 'expires_after'?"),
        ("a.json", b'{"expires_after": 0, "rate_limits": "x"}', "rate_limits.max"),
        ("a.toml", b"workflow = 2020-01-01", "workflow.id: must be a string"),
    ],
)
def test_defaults_that_are_wrong_are_wrong_usage(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(click.UsageError) as error:
        read_defaults(tmp_path / name, {}, None)
    assert said in error.value.message
    assert name in error.value.message


def test_defaults_that_cannot_be_read_are_wrong_usage(tmp_path):
    with pytest.raises(click.UsageError, match="cannot read the defaults in"):
        read_defaults(tmp_path, {}, None)


# What a call cannot be made of


def test_problems_of_values_are_those_of_create(monkeypatch):
    monkeypatch.setattr(_rows, "_good", set())
    monkeypatch.setattr(_rows, "_MAX_ALIKE", 40)
    alike = [{"user": user, "workflow": "wf_1"} for user in ["ada", "bob", " ", 5, LONE, "'"]]
    wrong = [bool(problems_of_create(values)) for values in alike * 2]
    assert wrong == [False, False, True, True, True, False] * 2
    assert problems_of_create({"user": "ada", "workflow": 1}) != ()
    for index in range(99):
        assert problems_of_create({"user": "ada", "workflow": f"wf_{index}{'x' * index}"}) == ()
    assert 1 < len(_rows._good) < 40
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
    assert problems(rows) == [(2, "id", f"is not a session id: {said}")]


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
    said = "is missing, so nothing can be cancelled"
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
