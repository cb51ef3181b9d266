"""Messages in four parts, exit codes, and what can be shown on one line."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow import errors
from venvflow.errors import (
    BuildFailed,
    CommandNotFound,
    CommandNotRun,
    ConfigError,
    EnvironmentFailure,
    LockTimeout,
    Refused,
    StoreFormatError,
    UsageError,
    VenvflowError,
    first_of,
    legible,
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
    CommandNotRun("it is not executable", where="./x", hint="chmod +x ./x"),
    CommandNotFound("there is no such command", where="pytes"),
    Refused("it is a symlink"),
]


def test_the_text_says_what_where_state_and_what_to_do() -> None:
    """Parts become sentences; empty ones leave no trace; a question mark stays one."""
    error = EnvironmentFailure(
        "no space left", where="api", state="The venv is unchanged", hint="Free space!"
    )
    assert str(error) == "api: no space left. The venv is unchanged. Free space!"
    assert str(Refused("it is a symlink")) == "it is a symlink."
    assert str(EXAMPLES[0]) == "apo: no such venv. Nothing was changed. Did you mean api?"


def test_all_problems_of_a_config_are_listed() -> None:
    """One line each, with a count that agrees in number."""
    assert str(EXAMPLES[1]) == (
        "2 problems in the config:\nvenvflow.yaml:3: unknown key\nvenvflow.yaml:9: too large\n"
        "Nothing was changed. Fix them, then run again."
    )
    assert str(ConfigError(["x"])) == (
        "1 problem in the config:\nx\nNothing was changed. Fix it, then run again."
    )


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


# --------------------------------------------------------------------------- every error of the product

PACKAGE = Path(errors.__file__).parent
KINDS = {type(error).__name__ for error in EXAMPLES} - {"ConfigError"}


@lru_cache
def raised() -> list[tuple[str, ast.Call]]:
    """Return every place of the product that makes one of our errors."""
    return [
        (f"{file.relative_to(PACKAGE)}:{node.lineno}", node)
        for file in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS
    ]


def test_every_error_says_in_which_state_things_are_and_what_to_do() -> None:
    """Wherever one is made; what and where may be one clause, a usage error's state is always the same."""
    silent = {}
    for place, call in raised():
        given = {keyword.arg for keyword in call.keywords}
        needed = {"hint"} if getattr(call.func, "id", "") == "UsageError" else {"hint", "state"}
        if None not in given and needed - given:
            silent[place] = needed - given
    assert silent == {}


def test_every_error_names_something() -> None:
    """A message of constant words alone, without where, could be about anything."""
    vague = [
        place
        for place, call in raised()
        if isinstance(call.args[0], ast.Constant)
        and not {"where", None} & {each.arg for each in call.keywords}
    ]
    assert [place for place in vague if not place.startswith("disk/system_errors.py:")] == []


def test_a_number_goes_with_its_noun() -> None:
    """By ``counted``, and a verb with its path by ``first_of``; what tells of damaged bytes may not care."""
    by_hand = re.compile(
        r"""\{[^{}]*\blen\([^{}]*\} (?!bytes|slots|parts)[a-z-]*s\b|'s' \*|\bsome\([^()]*, 1\)\)?\} [a-z]"""
    )
    told = {
        f"{file.relative_to(PACKAGE)}: {found[0]}"
        for file in PACKAGE.rglob("*.py")
        for found in by_hand.finditer(file.read_text(encoding="utf-8"))
    }
    assert told == set()
    assert first_of(["a"]) == "a"
    assert first_of(["a\n", "b", "c"]) == "a\\n, like 2 more,"


HOSTILE = [
    "\x1b]0;title\x07", "\x1b[2J", "\x9b31m", "a\nvenvflow: forged", "a\rb", "\x7f", "\x08", "\u202egnp.exe",
    "\u2066a\u2069", "a\u200bb", "\ufeffa", "\u2028b", "\u0085b", "\U000e0041", "\ue000", "\u3164", "\u2800",
    "a\u034f", "a\ufe0f", "\U000e0100", "a" + "\u0301" * 40, "\u0301a",
    "\ud800", "\udc1b", "\x0b", "\x0c", "\x00",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_no_name_can_do_anything_to_a_terminal(name: str) -> None:
    """Neither obeyed nor invisible nor in a heap: an escape stands for it, in one line."""
    assert len(legible(name).splitlines()) <= 1 + name.count("\n")
    for told in (shown(name), legible(name).replace("\n", "")):
        assert told.isprintable()
        assert told != name
        assert "\\" in told or "\n" in name
        assert not set(told) & set("\u3164\u2800\u034f\ufe0f")
        assert told.count("\u0301") <= 5
    assert shown(shown(name)) == shown(name)


@given(st.text(max_size=60))
def test_a_message_has_the_lines_that_were_meant(name: str) -> None:
    """Whatever stands in its parts."""
    told = str(EnvironmentFailure(f"x{name}", where=f"x{name}", state=f"x{name}", hint=f"x{name}"))
    assert told.isprintable()
    lines = str(ConfigError([f"x{name}", f"y{name}"])).split("\n")
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    assert len(str(BuildFailed("x", log=f"x{name}", tail="one")).split("\n")) == 3


@pytest.mark.parametrize("name", ["naïve", "e\u0301te\u0301", "漢字", "שלום", "ก็", "☃", "a b", "a\\nb"])
def test_names_in_all_languages_are_shown_as_they_are(name: str) -> None:
    """Accents of their own, right to left, wide: all that is ordinary text."""
    assert shown(name) == legible(name) == name
