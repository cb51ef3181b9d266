"""How far a long piece of work is: bars, lines, and nothing where nobody looks."""

from __future__ import annotations

import io

import pytest

from venvflow.pure.progress import BAR_SECONDS, LINE_SECONDS, Bar, Lines, Meter, bar, described, meter, on

MIB = 1 << 20


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.seconds


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (0, 10 * MIB, 0.0, "  0 %, 0 B of 10 MiB"),
        (5 * MIB, 10 * MIB, 2.5, " 50 %, 5.0 MiB of 10 MiB, 2.0 MiB/s, 2.5 s left"),
        (10 * MIB, 10 * MIB, 5.0, "100 %, 10 MiB of 10 MiB, 2.0 MiB/s"),
        (0, 0, 0.0, "100 %, 0 B of 0 B"),
    ],
)
def test_progress_in_words(done: int, total: int, seconds: float, text: str) -> None:
    """Share, bytes, rate, and the time that is left as long as there is some."""
    assert described(done, total, seconds) == text


def test_a_bar_has_a_constant_width() -> None:
    """Empty, half full and full; nothing to do is done."""
    bars = [bar(0, 9), bar(5, 10), bar(9, 9), bar(0, 0)]
    assert [each.count("#") for each in bars] == [0, 12, 24, 24]
    assert {len(each) for each in bars} == {26}


def test_a_line_comes_every_few_seconds_only() -> None:
    """What is done sooner says nothing at all."""
    clock, said = Clock(), list[str]()
    lines = Lines(said.append, "api: packing", clock)
    lines(MIB, 10 * MIB)
    clock.seconds += LINE_SECONDS - 0.1
    lines(2 * MIB, 10 * MIB)
    assert said == []
    clock.seconds += 0.1
    lines(5 * MIB, 10 * MIB)
    lines(6 * MIB, 10 * MIB)
    assert said == ["api: packing: 50 %, 5.0 MiB of 10 MiB, 1.0 MiB/s, 5.0 s left"]


def test_a_bar_is_drawn_over_itself_and_leaves_nothing() -> None:
    """A shorter text covers the longer one before it; at the end the line is empty."""
    clock, written = Clock(), list[str]()
    drawn = Bar(written.append, "api", clock)
    drawn(0, 10 * MIB)
    drawn(MIB, 10 * MIB)
    clock.seconds += 2 * BAR_SECONDS
    drawn(10 * MIB, 10 * MIB)
    drawn.end()
    first, last, blank, start = written
    assert first.startswith("\rapi [....")
    assert last.startswith("\rapi [####")
    assert len(last) >= len(first)
    assert blank == "\r" + " " * len(last.rstrip()[1:])
    assert start == "\r"


def test_the_stream_decides_between_bar_and_lines() -> None:
    """A file gets no bar; a terminal does, also when the work fails."""
    for stream, expected in ((io.StringIO(), ""), (Terminal(), "api [")):
        with pytest.raises(ValueError, match="work"):
            _fail_with(stream)
        assert expected in stream.getvalue()
        assert stream.getvalue() == "" or stream.getvalue().endswith("\r")


def _fail_with(stream: io.StringIO) -> None:
    with on(stream, "api") as show:
        show(1, 2)
        raise ValueError("work")


def test_a_stream_that_went_away_does_not_stop_the_work() -> None:
    """Closed before, or in the middle."""
    stream = Terminal()
    with on(stream, "api") as show:
        stream.close()
        show(1, 2)
    with on(stream, "api") as show:
        show(2, 2)


def test_a_meter_says_what_came_last() -> None:
    """Words, or bytes with the rate since the first ones; nothing at the beginning."""
    clock = Clock()
    each = Meter(clock)
    assert str(each) == ""
    each.say("Resolved 3 packages")
    assert str(each) == "Resolved 3 packages"
    clock.seconds += 100
    each(0, 10 * MIB)
    clock.seconds += 2
    each(4 * MIB, 10 * MIB)
    assert str(each) == "40 %, 4.0 MiB of 10 MiB, 2.0 MiB/s, 3.0 s left"
    each.say("done")
    assert str(each) == "done"
    each.reset()
    assert str(each) == ""


def test_whoever_asks_for_the_meter_of_a_name_gets_the_same() -> None:
    """The step that writes and the face that shows know each other by the venv's name only."""
    assert meter("one") is meter("one")
    assert meter("one") is not meter("two")
