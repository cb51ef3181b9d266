"""The rows at the foot of a terminal, and the lines now and then where there is none."""

from __future__ import annotations

import io
import os
import re
import threading
import time
import unicodedata
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from screens import Screen

from venvflow import progress_display
from venvflow.progress_display import (
    FRAME_SECONDS,
    LINE_SECONDS,
    PATIENCE,
    REMINDER,
    ProgressDisplay,
    Row,
    TerminalRows,
    display_on,
    fitted,
    progress,
    row,
)
from venvflow.steps.meter import Meter

MIB = 1 << 20


class Clock:
    """A clock that is set by hand."""

    seconds = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.screen = Screen()

    def isatty(self) -> bool:
        """Say so."""
        return True

    def write(self, text: str) -> int:
        """Show *text*, too."""
        self.screen.write(text)
        return super().write(text)


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a terminal that can do more than lines."""
    monkeypatch.setenv("TERM", "xterm")


class Stage:
    """Rows or lines with their stream and clock; nothing is shown but by :meth:`after`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, drawn: bool, columns: int = 80) -> None:
        monkeypatch.setattr(threading.Thread, "start", lambda _self: None)
        self.stream = Terminal()
        self.clock = Clock()
        self.display = ProgressDisplay(self.stream, drawn=drawn, columns=lambda: columns, now=self.clock)

    def after(self, seconds: float) -> list[str]:
        """Return what is to be seen when so many *seconds* have passed."""
        self.clock.seconds += seconds
        self.display.tick()
        return self.stream.screen.rows


def test_only_what_takes_longer_than_a_second_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what its meter says; the same rows are not drawn twice; at the end they are gone."""
    stage, meter = Stage(monkeypatch, drawn=True), Meter()
    stage.display.begin("build-venv:api", "building api", meter)
    assert stage.after(PATIENCE - 0.1) == []
    assert stage.after(0.1) == ["building api, 1 s"]
    before = stage.stream.getvalue()
    assert stage.after(0.2) == ["building api, 1 s"]
    assert stage.stream.getvalue() == before
    meter.count("Installed\tsix")
    assert stage.after(60.8) == ["building api, 1 min 2 s: Installed\\tsix"]
    meter(MIB, 4 * MIB)
    assert re.match(r"building api, 1 min 3 s \[#+\.+\] 25 %, 1.0 MiB of 4.0 MiB, ", stage.after(1)[0])
    stage.display.end("build-venv:api")
    assert stage.stream.screen.rows == []
    assert stage.after(5) == []


def test_each_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longest first, none wider than the terminal, however narrow that is: the middle is left out."""
    stage = Stage(monkeypatch, drawn=True, columns=30)
    for number, name in enumerate(("one", "two")):
        meter = Meter()
        meter.count("x" * 80)
        stage.display.begin(name, f"building {name}", meter)
        stage.clock.seconds += number
    assert stage.after(10) == ["building one, 11 s: xxxx..xxx", "building two, 11 s: xxxx..xxx"]
    stage.display.end("one")
    assert stage.after(10) == ["building two, 21 s: xxxx..xxx"]
    stage = Stage(monkeypatch, drawn=True, columns=1)
    stage.display.begin("one", "building one", Meter())
    assert stage.after(2) == ["."]


COUNTED = Row("sharing the files of services-billing-api", ", 6 s", 0.5, "linking, 1,200 of 2,400 files")


@pytest.mark.parametrize(
    ("columns", "row", "expected"),
    [
        (200, COUNTED, f"{COUNTED.label}, 6 s [############............] linking, 1,200 of 2,400 files"),
        (80, COUNTED, f"{COUNTED.label}, 6 s [###########............] linking"),
        (65, COUNTED, f"{COUNTED.label}, 6 s [####....] linking"),
        (50, COUNTED, "sharing the files..vices-billing-api, 6 s: linking"),
        (40, COUNTED, "sharing the ..-billing-api, 6 s: linking"),
        (40, COUNTED._replace(words="x" * 50), "sharing t..lling-api, 6 s: xxxxxx..xxxxx"),
        (34, Row("restoring api", ", 6 s", 0.5, "1 of 2 files"), "restoring api, 6 s: 1 of 2 files"),
        (9, Row("restoring api", ", 6 s", None, ""), "rest..6 s"),
    ],
)
def test_in_a_narrow_terminal_the_name_stays(columns: int, row: Row, expected: str) -> None:
    """First the words give way, then the bar, then the middle of the name."""
    assert fitted(row, columns) == expected


def test_whoever_writes_takes_the_rows_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """And they are drawn again afterwards; the cursor is there all the time, for a run may be killed."""
    stage, out = Stage(monkeypatch, drawn=True), io.StringIO()
    stage.display.begin("a", "building a", Meter())
    assert stage.after(2) != []
    stage.display.write(out, "restore:b  hit\n")
    assert out.getvalue() == "restore:b  hit\n"
    assert stage.stream.screen.rows == []
    assert stage.after(0.1) == ["building a, 2 s"]
    assert stage.stream.getvalue().rpartition("\x1b[?25")[2].startswith("h")


def test_nothing_is_drawn_beside_work_that_writes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another task of the dodo.py may print whatever it likes."""
    stage = Stage(monkeypatch, drawn=True)
    stage.display.begin("a", "building a", Meter())
    stage.after(2)
    stage.display.hush("lint")
    assert stage.after(1) == []
    assert stage.after(1) == []
    stage.display.end("lint")
    assert stage.after(1) == ["building a, 5 s"]
    stage.display.stop()
    assert stage.after(9) == []


def test_without_a_terminal_there_is_a_word_every_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole lines that a log can hold; none for what takes less."""
    stage, meter = Stage(monkeypatch, drawn=False), Meter()
    stage.display.begin("a", "building api", meter)
    assert stage.after(REMINDER - 1) == []
    meter.count("Downloading torch")
    said = ["venvflow: still building api, 1 min: Downloading torch"]
    assert stage.after(1) == said
    assert stage.after(59) == said
    said.append("venvflow: still building api, 3 min: Downloading torch")
    assert stage.after(61) == said
    stage.display.end("a")
    assert stage.after(600) == said
    assert stage.stream.getvalue() == "".join(f"{line}\n" for line in said)


def test_a_stream_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed, or of an encoding that lacks a letter."""
    for drawn in (True, False):
        stage, meter = Stage(monkeypatch, drawn=drawn), Meter()
        raw = io.BytesIO()
        stage.display = ProgressDisplay(io.TextIOWrapper(raw, "ascii"), drawn=drawn, now=stage.clock)
        meter.count("größe")
        stage.display.begin("a", "building a", meter)
        stage.after(62)
        assert b"building a, 1 min 2 s: gr??e" in raw.getvalue()
        stage.display = ProgressDisplay(stage.stream, drawn=drawn, now=stage.clock)
        stage.display.begin("a", "building a", meter)
        stage.stream.close()
        stage.clock.seconds += 62
        stage.display.tick()
        stage.display.end("a")


@pytest.mark.slow
def test_it_draws_by_itself_and_its_thread_ends_with_the_work() -> None:
    """In the background, for as long as something runs, and again when more does."""
    drawn = threading.Event()

    class Watched(io.StringIO):
        def write(self, text: str) -> int:
            drawn.set()
            return super().write(text)

    clock = Clock()
    display = ProgressDisplay(Watched(), drawn=True, columns=lambda: 80, now=clock)
    for _ in range(2):
        drawn.clear()
        display.begin("a", "building a", Meter())
        thread = next(each for each in threading.enumerate() if each.name == "venvflow-progress")
        clock.seconds += 5
        assert drawn.wait(10)
        display.end("a")
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("stream", "term", "expected"),
    [
        (Terminal, "xterm", True),
        (Terminal, "dumb", False),
        (Terminal, "", False),
        (io.StringIO, "xterm", False),
    ],
)
def test_only_a_terminal_that_can_is_drawn_on(
    stream: Callable[[], io.StringIO], term: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log, and a terminal that only knows lines, get words; that holds for both kinds of progress."""
    monkeypatch.setattr(threading.Thread, "start", lambda _self: None)
    out = stream()
    display = display_on(out, io.StringIO(), term)
    display.begin("a", "building a", Meter())
    monkeypatch.setattr(display, "_now", lambda: float("1e9"))
    display.tick()
    assert ("\x1b" in out.getvalue(), "still building" in out.getvalue()) == (expected, not expected)
    monkeypatch.setenv("TERM", term)
    out = stream()
    with progress(out, "api") as show:
        show(1, 2)
    assert ("api [" in out.getvalue()) == expected


@given(st.text(), st.integers(1, 60))
@example("0000000000000000\u093e", 17)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_fits_and_obeys_nothing(text: str, columns: int) -> None:
    """In columns of a terminal, where some letters take two; escapes, ends of lines and markup are text."""
    terminal = Terminal()
    TerminalRows(terminal, lambda: columns).draw([row(text, Meter())])
    assert len(terminal.screen.rows) <= 1
    wide = [unicodedata.east_asian_width(char) in "WF" for line in terminal.screen.rows for char in line]
    zero = [unicodedata.combining(char) > 0 for line in terminal.screen.rows for char in line]
    assert len(wide) + sum(wide) - sum(zero) <= max(columns - 1, 1)


@pytest.mark.parametrize("text", ["[red]x[/red]", ":smile:", "a\x1b[2Jb\nc", "/x/[bold]"])
def test_names_are_shown_as_they_are(text: str) -> None:
    """What rich would take for its markup is text; what a terminal would obey is escaped."""
    terminal = Terminal()
    meter = Meter()
    meter.count(text)
    TerminalRows(terminal).draw([row(text, meter)])
    assert terminal.screen.rows == [f"{text}: {text}".replace("\x1b", "\\x1b").replace("\n", "\\n")]


def test_nothing_is_drawn_where_answers_go_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``doit | tee log``: what tee writes would come in the middle of the line."""
    monkeypatch.setattr(threading.Thread, "start", lambda _self: None)
    reading, writing = os.pipe()
    terminal = Terminal()
    with os.fdopen(reading), os.fdopen(writing, "w") as answers:
        display = display_on(terminal, answers, "xterm")
        display.begin("a", "building a", Meter())
        monkeypatch.setattr(display, "_now", lambda: float("1e9"))
        display.tick()
    assert terminal.getvalue().startswith("venvflow: still building a, ")


def test_threads_that_begin_at_once_share_one_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that was begun on another one would never end."""

    def slowly(*_: object) -> object:
        time.sleep(0.1)
        return object()

    monkeypatch.setattr(progress_display, "display_on", slowly)
    monkeypatch.setattr(progress_display, "_shared", cache(progress_display._shared.__wrapped__))
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(progress_display.shared())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len({*map(id, found)}) == 1


# --------------------------------------------------------------------------- bytes of one command


def test_a_line_comes_every_few_seconds_only() -> None:
    """What is done sooner says nothing at all."""
    clock, stream = Clock(), io.StringIO()
    with progress(stream, "api: packing", clock) as show:
        show(MIB, 10 * MIB)
        clock.seconds += LINE_SECONDS - 0.1
        show(2 * MIB, 10 * MIB)
        assert stream.getvalue() == ""
        clock.seconds += 0.1
        show(5 * MIB, 10 * MIB)
        show(6 * MIB, 10 * MIB)
    assert stream.getvalue() == "api: packing: 50 %, 5.0 MiB of 10 MiB, 1.0 MiB/s, 5.0 s left\n"


def test_a_bar_is_drawn_over_itself_and_leaves_nothing() -> None:
    """Of constant width, with the words beside it, and not too often; gone when the work fails, too."""
    clock, terminal = Clock(), Terminal()

    def fail() -> None:
        with progress(terminal, "api", clock) as show:
            show(0, 10 * MIB)
            assert terminal.screen.rows == [f"api [{'.' * 24}] 0 %, 0 B of 10 MiB"]
            show(MIB, 10 * MIB)
            assert terminal.screen.rows == [f"api [{'.' * 24}] 0 %, 0 B of 10 MiB"]
            clock.seconds += 2 * FRAME_SECONDS
            show(10 * MIB, 10 * MIB)
            assert terminal.screen.rows == [f"api [{'#' * 24}] 100 %, 10 MiB of 10 MiB, 25 MiB/s"]
            raise ValueError("work")

    with pytest.raises(ValueError, match="work"):
        fail()
    assert terminal.screen.rows == []


def test_a_stream_that_went_away_does_not_stop_the_work() -> None:
    """Closed before, or in the middle."""
    stream = Terminal()
    with progress(stream, "api") as show:
        stream.close()
        show(1, 2)
    with progress(stream, "api") as show:
        show(2, 2)
