"""The line at the foot of a terminal, and the word every minute where there is none."""

from __future__ import annotations

import io
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow.live import PATIENCE, REMINDER, Live, cut, on
from venvflow.pure.progress import Meter

CLEAR = "\r\x1b[K"


class Clock:
    """A clock that is set by hand."""

    seconds = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        """Say so."""
        return True


class Stage:
    """A live line with its stream and clock; nothing is drawn but by :meth:`after`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, drawn: bool, columns: int = 80) -> None:
        monkeypatch.setattr(threading.Thread, "start", lambda _self: None)
        self.stream = io.StringIO()
        self.clock = Clock()
        self.live = Live(self.stream, drawn=drawn, columns=lambda: columns, now=self.clock)

    def after(self, seconds: float) -> str:
        """Return what is written when so many *seconds* have passed."""
        self.clock.seconds += seconds
        before = len(self.stream.getvalue())
        self.live.tick()
        return self.stream.getvalue()[before:]


def test_only_what_takes_longer_than_a_second_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what its meter says; the same line is not drawn twice; at the end it is gone."""
    stage, meter = Stage(monkeypatch, drawn=True), Meter()
    stage.live.begin("build-venv:api", "building api", meter)
    assert stage.after(PATIENCE - 0.1) == ""
    assert stage.after(0.1) == f"{CLEAR}building api, 1 s"
    assert stage.after(0.2) == ""
    meter.say("Installed\tsix")
    assert stage.after(60.8) == f"{CLEAR}building api, 1 min 2 s: Installed\\tsix"
    stage.live.end("build-venv:api")
    assert stage.stream.getvalue().endswith(CLEAR)
    assert stage.after(5) == ""


def test_several_share_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longest first, each with its part of the width, however narrow the terminal is."""
    stage = Stage(monkeypatch, drawn=True, columns=40)
    for number, name in enumerate(("one", "two")):
        meter = Meter()
        meter.say("x" * 80)
        stage.live.begin(name, f"building {name}", meter)
        stage.clock.seconds += number
    line = stage.after(10).removeprefix(CLEAR)
    assert line == "building one, 11.. | building two, 11.."
    assert len(line) < 40
    stage = Stage(monkeypatch, drawn=True, columns=1)
    stage.live.begin("one", "building one", Meter())
    assert stage.after(2) == f"{CLEAR}."


def test_whoever_writes_takes_the_line_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is drawn again afterwards."""
    stage, out = Stage(monkeypatch, drawn=True), io.StringIO()
    stage.live.begin("a", "building a", Meter())
    stage.after(2)
    stage.live.write(out, "restore:b  hit\n")
    assert out.getvalue() == "restore:b  hit\n"
    assert stage.stream.getvalue().endswith(CLEAR)
    assert stage.after(0.1) == f"{CLEAR}building a, 2 s"


def test_nothing_is_drawn_beside_work_that_writes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another task of the dodo.py may print whatever it likes."""
    stage = Stage(monkeypatch, drawn=True)
    stage.live.begin("a", "building a", Meter())
    stage.after(2)
    stage.live.hush("lint")
    assert stage.after(1) == CLEAR
    assert stage.after(1) == ""
    stage.live.end("lint")
    assert stage.after(1) == f"{CLEAR}building a, 5 s"
    stage.live.stop()
    assert stage.after(9) == ""


def test_without_a_terminal_there_is_a_word_every_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole lines that a log can hold; none for what takes less."""
    stage, meter = Stage(monkeypatch, drawn=False), Meter()
    stage.live.begin("a", "building api", meter)
    assert stage.after(REMINDER - 1) == ""
    meter.say("Downloading torch")
    assert stage.after(1) == "venvflow: still building api, 1 min: Downloading torch\n"
    assert stage.after(59) == ""
    assert stage.after(61) == "venvflow: still building api, 3 min: Downloading torch\n"
    stage.live.end("a")
    assert stage.after(600) == ""


def test_a_stream_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed, or of an encoding that lacks a letter."""
    stage, meter = Stage(monkeypatch, drawn=True), Meter()
    raw = io.BytesIO()
    stage.live = Live(io.TextIOWrapper(raw, "ascii"), drawn=True, columns=lambda: 80, now=stage.clock)
    meter.say("größe")
    stage.live.begin("a", "building a", meter)
    stage.after(2)
    assert raw.getvalue() == b"\r\x1b[Kbuilding a, 2 s: gr??e"
    stage.live = Live(stage.stream, drawn=True, columns=lambda: 80, now=stage.clock)
    stage.live.begin("a", "building a", meter)
    stage.stream.close()
    stage.clock.seconds += 2
    stage.live.tick()
    stage.live.end("a")


def test_it_draws_by_itself_and_its_thread_ends_with_the_work() -> None:
    """In the background, for as long as something runs, and again when more does."""
    drawn = threading.Event()

    class Watched(io.StringIO):
        def write(self, text: str) -> int:
            drawn.set()
            return super().write(text)

    clock = Clock()
    live = Live(Watched(), drawn=True, columns=lambda: 80, now=clock)
    for _ in range(2):
        drawn.clear()
        live.begin("a", "building a", Meter())
        thread = next(each for each in threading.enumerate() if each.name == "venvflow-live")
        clock.seconds += 5
        assert drawn.wait(10)
        live.end("a")
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("stream", "term", "expected"),
    [
        (Terminal(), "xterm", True),
        (Terminal(), "dumb", False),
        (Terminal(), "", False),
        (io.StringIO(), "xterm", False),
    ],
)
def test_only_a_terminal_that_can_is_drawn_on(
    stream: io.StringIO, term: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log, and a terminal that only knows lines, get words."""
    monkeypatch.setattr(threading.Thread, "start", lambda _self: None)
    live = on(stream, io.StringIO(), term)
    live.begin("a", "building a", Meter())
    monkeypatch.setattr(live, "_now", lambda: float("1e9"))
    live.tick()
    assert stream.getvalue().startswith(CLEAR) == expected


@given(st.text(), st.integers(1, 60))
def test_a_cut_text_fits(text: str, columns: int) -> None:
    """In columns of a terminal, where some letters take two; what fits is left as it is."""
    import unicodedata

    def width(line: str) -> int:
        return sum(
            0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
            for char in line
        )

    assert width(cut(text, columns)) <= columns
    if width(text) <= columns:
        assert cut(text, columns) == text


def test_nothing_is_drawn_where_answers_go_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``doit | tee log``: what tee writes would come in the middle of the line."""
    monkeypatch.setattr(threading.Thread, "start", lambda _self: None)
    reading, writing = os.pipe()
    terminal = Terminal()
    with os.fdopen(reading), os.fdopen(writing, "w") as answers:
        live = on(terminal, answers, "xterm")
        live.begin("a", "building a", Meter())
        monkeypatch.setattr(live, "_now", lambda: float("1e9"))
        live.tick()
    assert terminal.getvalue().startswith("venvflow: still building a, ")
