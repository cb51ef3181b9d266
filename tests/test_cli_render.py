"""Tables that fit, times in words, colours only where they are wanted."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow.cli.render import Bar, Column, Output, columns_of, moment, shortened, since, table
from venvflow.pure.units import counted
from venvflow.streams import printable

COLUMNS = (Column("name", least=8), Column("state"), Column("size", right=True, rank=1), Column("x", rank=2))


class Narrow(Output):
    """Answers on a terminal that is so many columns *wide*."""

    on_terminal = True

    def __init__(self, environ: dict[str, str], wide: int) -> None:
        super().__init__(environ)
        self.width = lambda: wide  # type: ignore[method-assign]


def made(width: int, rows: Sequence[tuple[str, ...]], columns: tuple[Column, ...] = COLUMNS) -> list[str]:
    """Return the lines of a table on a terminal of *width* columns."""
    return table(Narrow({}, width), columns, rows).splitlines()


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    """Text goes left, numbers go right, and nothing is padded at the end."""
    assert made(80, [("api", "up to date", "5 B", ""), ("longer-name", "-", "1 KiB", "y")]) == [
        "NAME         STATE        SIZE  X",
        "api          up to date    5 B",
        "longer-name  -           1 KiB  y",
    ]


def test_long_names_are_shortened_before_columns_go() -> None:
    """Where space is short, names give way first, then the least important columns."""
    rows = [("a-very-long-name-indeed", "up to date", "5 B", "y")]
    assert made(33, rows) == ["NAME          STATE       SIZE  X", "a-ver..ndeed  up to date   5 B  y"]
    assert made(26, rows) == ["NAME      STATE       SIZE", "a-v..eed  up to date   5 B"]
    assert made(20, rows) == ["NAME      STATE", "a-v..eed  up to date"]


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("services-billing-api", 20, "services-billing-api"),
        ("services-billing-api", 13, "servic..g-api"),
        ("services-billing-api", 12, "servi..g-api"),
        ("/home/me/project", 6, "/h..ct"),
        ("abc", 2, ".."),
        ("abc", 1, "."),
        ("漢字漢字漢字", 7, "漢..字"),
        ("e\u0301" * 6, 5, "e\u0301e\u0301..e\u0301"),
        ("abcdefg\u0301", 3, "a.."),
        ("漢字", 3, ".."),
    ],
)
def test_the_middle_of_a_name_is_left_out(text: str, width: int, expected: str) -> None:
    """Counted in columns of a terminal; an accent whose letter is gone goes too."""
    assert shortened(text, width) == expected


def test_in_a_pipe_all_is_there() -> None:
    """Whatever the width: no cell is shortened, no column left out; only a reason goes on below."""
    rows = [("a-very-long-name-indeed" * 5, "up to date", "5 B", "y")]
    assert table(Output({}), COLUMNS, rows).splitlines()[1].split() == [
        "a-very-long-name-indeed" * 5,
        *["up", "to", "date", "5", "B", "y"],
    ]
    columns = (Column("id"), Column("why", least=10, wrap=True))
    assert len(table(Output({}), columns, [("abc" * 30, "one two three")]).splitlines()) == 3


def test_wide_characters_take_two_columns() -> None:
    """And accents that combine none: what counts is what a terminal shows."""
    assert (columns_of("abc"), columns_of("漢字"), columns_of("e\u0301")) == (3, 4, 1)
    assert made(80, [("漢字", "x", "5 B", "y"), ("abcde", "x", "5 B", "y")])[1:] == [
        "漢字   x       5 B  y",
        "abcde  x       5 B  y",
    ]
    assert made(33, [("漢字" * 10, "up to date", "5 B", "y")])[1] == "漢字..漢字    up to date   5 B  y"


@pytest.mark.parametrize("shown", [0, 1, 2])
def test_colours_are_put_around_one_cell(shown: int) -> None:
    """Also where columns were left out, and in a narrower one."""
    out = Narrow({"FORCE_COLOR": "1"}, 26)
    rows = [("a-very-long-name-indeed", "up to date", "5 B", "y")]
    line = printable(table(out, COLUMNS, rows, [(shown, "red")])).splitlines()[1]
    cells = ["a-v..eed", "up to date", " 5 B"]
    cells[shown] = f"\x1b[31m{cells[shown]}\x1b[0m"
    assert line == "  ".join(cells)
    assert "\x1b" not in printable(table(out, COLUMNS, rows, [(3, "red")]))


def test_the_last_column_can_go_on_below() -> None:
    """A long reason is wrapped under its own column."""
    columns = (Column("id"), Column("why", least=10, wrap=True))
    assert made(20, [("abc", "one two three four five")], columns) == [
        "ID   WHY",
        "abc  one two three",
        "     four five",
    ]


# --------------------------------------------------------------------------- bars

BARRED = (Column("name", least=8), Column("files", right=True, yields=True), Column("size", right=True))
SIZES = [("api", "12", "9 B"), ("web", "3", "1 B"), ("none", "-", "-")]
BARS = [Bar(30, 60), Bar(0, 9), Bar(0, 0)]


def barred(width: int, environ: dict[str, str] | None = None) -> list[str]:
    """Return the lines of a table with bars on a terminal of *width* columns."""
    return printable(table(Narrow(environ or {}, width), BARRED, SIZES, bars=BARS)).splitlines()


def test_bars_are_as_long_as_there_is_room_and_the_largest_fills_it() -> None:
    """Own bytes first, then shared ones; what is there has a column, and what is not has none."""
    assert barred(29, {"NO_COLOR": "1"}) == [
        "NAME  FILES  SIZE  OWN/SHARED",
        "api      12   9 B  ███░░░░░░░",
        "web       3   1 B  ░",
        "none      -     -",
    ]
    assert barred(80, {"NO_COLOR": "1"})[1].endswith(f"  {'█' * 8}{'░' * 16}")


def test_bars_take_the_room_of_a_column_that_yields_and_of_no_other() -> None:
    """A name that would be shortened, or a figure that would go, is worth more."""
    assert barred(28, {"NO_COLOR": "1"})[:2] == ["NAME  SIZE  OWN/SHARED", f"api    9 B  {'█' * 5}{'░' * 11}"]
    assert barred(21) == ["NAME  FILES  SIZE", "api      12   9 B", "web       3   1 B", "none      -     -"]


def test_in_a_pipe_there_are_no_bars() -> None:
    """What a program reads stays as it was, with and without colours."""
    plain = table(Output({}), BARRED, SIZES)
    assert table(Output({"FORCE_COLOR": "1"}), BARRED, SIZES, bars=BARS) == plain


def test_the_parts_of_a_bar_differ_in_more_than_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the output has no other characters than those of ASCII."""
    assert barred(29, {"FORCE_COLOR": "1"})[1].endswith("███\x1b[32m░░░░░░░\x1b[0m")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert barred(29, {"NO_COLOR": "1"})[1].endswith("  ###.......")


def test_prose_is_wrapped_for_a_terminal_only() -> None:
    """And not within a path or an option."""
    text = "3 venvs occupy 5 MiB (--all: the whole store)"
    assert Narrow({}, 20).wrapped(text).splitlines() == [
        "3 venvs occupy 5 MiB",
        "(--all: the whole",
        "store)",
    ]
    assert Output({}).wrapped(text * 10) == text * 10


_NAMES = st.text(st.sampled_from("ab-漢e\u0301\u202e\x1b"), max_size=300)


@given(
    st.integers(min_value=1, max_value=200),
    st.lists(
        st.tuples(
            st.tuples(_NAMES, st.text("s ", max_size=15), st.text("9", max_size=8), st.just("y")),
            st.builds(Bar, st.integers(0, 1 << 62), st.integers(0, 1 << 62)),
        ),
        min_size=1,
    ),
)
def test_no_line_is_wider_than_the_terminal(width: int, rows: list[tuple[tuple[str, ...], Bar]]) -> None:
    """Whatever the names and the bars, as long as each of four columns and what is between them has room."""
    out = Narrow({"NO_COLOR": "1"}, width)
    text = table(out, COLUMNS, [cells for cells, _ in rows], bars=[bar for _, bar in rows])
    assert max(map(columns_of, text.splitlines())) <= max(width, 4)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "now"),
        (59, "now"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (86_400, "1 d"),
        (9e7, "1041 d"),
    ],
)
def test_ages_have_one_unit(seconds: float, words: str) -> None:
    """How long ago something was is said in the largest unit that fits; the future is now."""
    assert since(1e9 - seconds, 1e9) == words


def test_never_is_a_dash_and_null() -> None:
    """What never happened has no age and no time."""
    assert (since(None, 0), moment(None), moment(0.9)) == ("-", None, "1970-01-01T00:00:00Z")


def test_one_is_singular() -> None:
    """Numbers and words agree."""
    assert [counted(number, "snapshot") for number in (0, 1, 2400)] == [
        "0 snapshots", "1 snapshot", "2,400 snapshots",
    ]  # fmt: skip


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "terminal", "coloured"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_colours_are_for_terminals_and_can_be_refused(
    environ: dict[str, str], terminal: bool, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colour is used on a terminal only, NO_COLOR forbids it, FORCE_COLOR asks for it."""
    monkeypatch.setattr(sys, "stdout", _Terminal() if terminal else io.StringIO())
    text = printable(table(Output(environ), (Column("state"),), [("damaged",)], [(0, "red")]))
    assert ("\x1b[31mdamaged\x1b[0m" in text) == coloured


def test_the_terminal_says_how_wide_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table uses the terminal's width, and 80 columns elsewhere."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", _Terminal())
    assert Output({}).width() == 40
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert Output({}).width() == 80
