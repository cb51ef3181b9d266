"""How far a piece of work is, in words."""

from __future__ import annotations

import pytest

from venvflow.steps.meter import Meter, described, meter

MIB = 1 << 20


class Clock:
    """A clock that is moved by hand."""

    seconds = 100.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.seconds


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


def test_a_meter_says_what_came_last() -> None:
    """Words with counts, or bytes with the rate since the first ones; nothing at the beginning."""
    clock = Clock()
    each = Meter(clock)
    assert (str(each), each.share) == ("", None)
    each.count("Resolved 3 packages")
    assert (str(each), each.share) == ("Resolved 3 packages", None)
    each.count("reading", 1000, 4000)
    assert (str(each), each.share) == ("reading, 1,000 of 4,000 files", 0.25)
    each.count("", 1, 1, unit="package")
    assert (str(each), each.share) == ("1 of 1 package", 1)
    clock.seconds += 100
    each(0, 10 * MIB)
    clock.seconds += 2
    each(4 * MIB, 10 * MIB)
    assert (str(each), each.share) == ("40 %, 4.0 MiB of 10 MiB, 2.0 MiB/s, 3.0 s left", 0.4)
    each(0, 0)
    assert each.share == 1
    each.count("done")
    assert str(each) == "done"
    each.reset()
    assert str(each) == ""


def test_whoever_asks_for_the_meter_of_a_name_gets_the_same() -> None:
    """The step that writes and the face that shows know each other by the venv's name only."""
    assert meter("one") is meter("one")
    assert meter("one") is not meter("two")
