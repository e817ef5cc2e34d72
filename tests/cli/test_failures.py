"""What a failure becomes: a paragraph and an exit code."""

from __future__ import annotations

import warnings

import click
import pytest

from chatkit_async import (
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    ParameterError,
    PermissionDeniedError,
    RateLimitError,
)
from chatkit_async.cli._failures import exit_code, reported


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RateLimitError("slow down", status_code=429), 1),
        (ClientClosedError(), 1),
        (ParameterError([("user", "is blank")]), 2),
        (ConfigurationError([("OPENAI_BASE_URL", "is not a URL")]), 2),
        (ConfigurationError([("OPENAI_API_KEY", "is not set")]), 4),
        (ConfigurationError([("base_url", "is not a URL"), ("api_key", "is blank")]), 4),
        (AuthenticationError("no", status_code=401), 4),
        (PermissionDeniedError("no", status_code=403), 4),
    ],
)
def test_the_exit_code_tells_the_kind_of_failure(capsys, error, code):
    assert exit_code(error) == code
    with pytest.raises(click.exceptions.Exit) as end, reported():
        raise error
    assert end.value.exit_code == code
    assert capsys.readouterr().err.startswith(f"Error: {error}\n")


def test_a_wrong_setting_points_to_doctor(capsys):
    with pytest.raises(click.exceptions.Exit), reported():
        raise ConfigurationError([("OPENAI_BASE_URL", "is not a URL")])
    assert "`chatkit-async doctor`" in capsys.readouterr().err


def test_ctrl_c_is_130(capsys):
    with pytest.raises(click.exceptions.Exit) as end, reported():
        raise KeyboardInterrupt
    assert end.value.exit_code == 130
    assert capsys.readouterr().err == "\nInterrupted.\n"


def test_reader_of_the_help_that_goes_is_no_error(capsys):
    with pytest.raises(click.exceptions.Exit) as end, reported():
        raise BrokenPipeError
    assert end.value.exit_code == 1
    assert capsys.readouterr().err == ""


def test_a_defect_asks_to_be_reported_and_hides_what_looks_like_a_key(capsys):
    with pytest.raises(click.exceptions.Exit) as end, reported():
        raise RuntimeError("sk-0123456789abcdef went missing")
    assert end.value.exit_code == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Error: unexpected RuntimeError: ********** went missing.")
    assert "report" in shown
    assert "--debug" in shown


@pytest.mark.parametrize("error", [click.UsageError("no"), click.exceptions.Exit(3), click.Abort()])
def test_what_click_raises_is_clicks(error):
    with pytest.raises(type(error)) as raised, reported():
        raise error
    assert raised.value is error


def test_a_warning_is_a_line_without_its_source(capsys):
    with reported():
        warnings.warn("mind the gap", stacklevel=1)
    assert capsys.readouterr().err == "Warning: mind the gap\n"
