"""How far a long piece of work is: a bar on a terminal, a line every few seconds anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from venvflow.units import show_duration, show_size

LINE_SECONDS = 5.0
"""Between two lines where there is no terminal; what takes less says nothing."""

BAR_SECONDS = 0.1
"""Between two states of a bar."""

_BAR = 24


def described(done: int, total: int, seconds: float) -> str:
    """Return in words how far it is after *seconds*: share, bytes, rate, and the time that is left."""
    share = 100 * done // total if total else 100
    parts = [f"{share:3} %", f"{show_size(done)} of {show_size(total)}"]
    if seconds > 0 and done:
        rate = done / seconds
        parts.append(f"{show_size(int(rate))}/s")
        if done < total:
            parts.append(f"{show_duration((total - done) / rate)} left")
    return ", ".join(parts)


def bar(done: int, total: int) -> str:
    """Return a bar of constant width."""
    full = _BAR * done // total if total else _BAR
    return f"[{'#' * full}{'.' * (_BAR - full)}]"


class Lines:
    """Says a line every few seconds; to be called with bytes done and in all, by one thread at a time."""

    def __init__(
        self, say: Callable[[str], None], label: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._label = label
        self._now = now
        self._start = self._last = now()

    def __call__(self, done: int, total: int) -> None:
        """Take note that *done* of *total* bytes are done."""
        now = self._now()
        if now - self._last >= LINE_SECONDS:
            self._last = now
            self._say(f"{self._label}: {described(done, total, now - self._start).strip()}")


class Bar:
    """Draws a bar again and again in the same line of a terminal; :meth:`end` removes it."""

    def __init__(
        self, write: Callable[[str], object], label: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._label = label
        self._now = now
        self._start = now()
        self._last = float("-inf")
        self._width = 0

    def __call__(self, done: int, total: int) -> None:
        """Take note that *done* of *total* bytes are done."""
        now = self._now()
        if now - self._last >= BAR_SECONDS:
            self._last = now
            self._draw(f"{self._label} {bar(done, total)} {described(done, total, now - self._start)}")

    def end(self) -> None:
        """Leave the line empty, for what comes after."""
        if self._width:
            self._draw("")
            self._write("\r")

    def _draw(self, text: str) -> None:
        self._write(f"\r{text.ljust(self._width)}")
        self._width = len(text)


@contextmanager
def on(stream: TextIO, label: str) -> Iterator[Callable[[int, int], None]]:
    """Give what shows progress on *stream*, called *label*: a bar if it is a terminal, else lines.

    A stream that cannot be written to any more is no reason to stop the work.
    """

    def write(text: str) -> None:
        with suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()

    if not _is_terminal(stream):
        yield Lines(lambda text: write(f"{text}\n"), label)
        return
    shown = Bar(write, label)
    try:
        yield shown
    finally:
        shown.end()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False
