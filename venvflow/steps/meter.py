"""The progress meter of each venv: steps write to it how far they are, and the terminal display reads it."""

from __future__ import annotations

import time
from collections.abc import Callable

from venvflow.pure.units import show_duration, show_size


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
        """Return what was said last, empty if nothing was."""
        return described(*self._bytes).strip() if self._bytes is not None else self._words

    @property
    def share(self) -> float | None:
        """How much of the bytes is done, from 0 to 1; None where no bytes are counted."""
        if self._bytes is None:
            return None
        done, total, _ = self._bytes
        return done / total if total else 1.0


_meters: dict[str, Meter] = {}


def meter(name: str) -> Meter:
    """Return the one meter of this process for the venv called *name*."""
    return _meters.setdefault(name, Meter())
