"""Messages in four parts, exit codes, and what can be shown on one line."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow import errors
from venvflow.errors import (
    BuildFailed,
    ConfigError,
    EnvironmentFailure,
    LockTimeout,
    Refused,
    StoreFormatError,
    UsageError,
    VenvflowError,
    shown,
)

EXAMPLES = [
    UsageError("no such venv", where="apo", hint="Did you mean api?"),
    ConfigError(["venvflow.yaml:3: unknown key", "venvflow.yaml:9: too large"]),
    EnvironmentFailure(
        "no space left", where="api: /srv", state="The venv is unchanged.", hint="Free space."
    ),
    StoreFormatError("format 2", hint="Upgrade."),
    BuildFailed("it ended with status 1", where="api", log="/x/build.log", tail="one\ntwo"),
    LockTimeout("waited 300 s"),
    Refused("it is a symlink"),
]


def test_the_text_says_what_where_state_and_what_to_do() -> None:
    """Parts become sentences; empty ones leave no trace; a question mark stays one."""
    error = EnvironmentFailure(
        "no space left", where="api", state="The venv is unchanged", hint="Free space!"
    )
    assert str(error) == "api: no space left. The venv is unchanged. Free space!"
    assert str(Refused("it is a symlink")) == "it is a symlink."
    assert str(EXAMPLES[0]) == "apo: no such venv. Did you mean api?"


def test_all_problems_of_a_config_are_listed() -> None:
    """One line each, with a count that agrees in number."""
    assert (
        str(EXAMPLES[1])
        == "2 problems in the config:\nvenvflow.yaml:3: unknown key\nvenvflow.yaml:9: too large"
    )
    assert str(ConfigError(["x"])) == "1 problem in the config:\nx"


def test_a_failed_build_shows_its_last_lines_and_its_log() -> None:
    """The tail is set off, so that it cannot be taken for our own words."""
    expected = "api: it ended with status 1.\n  | one\n  | two\n  whole log: /x/build.log"
    assert str(EXAMPLES[4]) == expected
    assert str(BuildFailed("it failed")) == "it failed."


def test_every_error_has_the_exit_code_that_is_documented() -> None:
    """The module's own table and the classes agree, and none is missing there."""
    rows = [line.split() for line in (errors.__doc__ or "").splitlines()]
    documented = {row[0]: int(row[1]) for row in rows if len(row) > 2 and row[1].isdigit()}
    classes = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    codes = {name: value.exit_code for name, value in classes.items() if issubclass(value, VenvflowError)}
    del codes["VenvflowError"]
    assert codes == documented
    assert set(codes) == {type(error).__name__ for error in EXAMPLES}


@pytest.mark.parametrize("error", EXAMPLES)
def test_errors_travel_between_processes(error: VenvflowError) -> None:
    """Type, parts and further attributes survive, as doit's process mode needs."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert type(twin) is type(error)
        assert vars(twin) == vars(error)
        assert str(twin) == str(error)
        assert twin.args == error.args


@given(st.binary())
def test_any_bytes_are_shown_on_one_printable_line(raw: bytes) -> None:
    """No path can break a line, colour a terminal or end in an encoding error."""
    text = shown(raw)
    assert text.isprintable()
    text.encode("utf-8")


def test_what_is_printable_is_shown_as_it_is() -> None:
    """Only what cannot be shown is escaped."""
    assert shown("/srv/my env/é☃") == "/srv/my env/é☃"
    assert shown("a\n\x1b[31m\udcff") == "a\\n\\x1b[31m\\xff"
