"""How far a long piece of work is: a bar on a terminal, a line every few seconds anywhere else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from venvflow.errors import shown
from venvflow.pure.units import show_duration, show_size

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
    """Draws a bar again and again in the same line of a terminal; :meth:`end` removes it.

    *columns* returns the width of the terminal: what is longer would go on in the next line.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        label: str,
        now: Callable[[], float] = time.monotonic,
        columns: Callable[[], int] = lambda: 1000,
    ) -> None:
        self._columns = columns
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
        text = text[: max(self._columns() - 1, 1)]
        self._write(f"\r{text.ljust(self._width)}")
        self._width = len(text)


class Meter:
    """What a piece of work says of itself while it runs: its last words, or how many bytes are done.

    Written by the thread that works and read by the one that shows it; whole values only, so no lock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.reset()

    def reset(self) -> None:
        """Forget what was said: the next piece of work begins."""
        self._words = ""
        self._bytes: tuple[int, int, float] | None = None
        self._start = self._now()

    def say(self, words: str) -> None:
        """Take note of the last words, such as a line that a program wrote."""
        self._words = words
        self._bytes = None

    def __call__(self, done: int, total: int) -> None:
        """Take note that *done* of *total* bytes are done."""
        if self._bytes is None or done < self._bytes[0]:
            self._start = self._now()
        self._bytes = done, total, self._now() - self._start

    def __str__(self) -> str:
        return described(*self._bytes).strip() if self._bytes is not None else self._words


_meters: dict[str, Meter] = {}


def meter(name: str) -> Meter:
    """Return the one meter of this process for the work called *name*, whoever asks."""
    return _meters.setdefault(name, Meter())


@contextmanager
def on(stream: TextIO, label: str) -> Iterator[Callable[[int, int], None]]:
    """Give what shows progress on *stream*, called *label*: a bar if it is a terminal, else lines.

    A stream that cannot be written to any more is no reason to stop the work.
    """

    def write(text: str) -> None:
        with suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()

    label = shown(label)
    if not is_terminal(stream):
        yield Lines(lambda text: write(f"{text}\n"), label)
        return
    display = Bar(write, label, columns=lambda: _columns_of(stream))
    try:
        yield display
    finally:
        display.end()


def _columns_of(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # a terminal that does not tell
        return 80


def is_terminal(stream: TextIO) -> bool:
    """Return whether somebody may be looking at *stream*."""
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False
