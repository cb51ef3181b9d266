"""The progress meter of each venv: steps write to it how far they are, and the terminal display reads it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from venvflow.pure.units import counted, show_duration, show_size


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


class _Said(NamedTuple):
    """What was said last: *words*, and, unless *total* is 0, that *done* of so many *unit*s are done.

    Without a *unit* they are bytes, done in so many *seconds*.
    """

    words: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    seconds: float = 0.0


class Meter:
    """What a piece of work says of itself while it runs: what it is at, and how much of that is done.

    Written by threads that work and read by the one that shows it; whole values only, so no lock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.watch: Callable[[], object] = lambda: None
        """Is called when something was said, from any thread."""
        self.reset()

    def reset(self) -> None:
        """Forget what was said: the next piece of work begins."""
        self._said: _Said | None = None
        self._start = self._now()

    @property
    def said(self) -> _Said | None:
        """Return what was said last."""
        return self._said

    def take(self, said: _Said) -> None:
        """Say what the meter of another process said."""
        self._said = said
        self.watch()

    def count(self, words: str, done: int = 0, total: int = 0, *, unit: str = "file") -> None:
        """Take note of what it is at, and that *done* of *total* are done; 0 is a total that is not known."""
        self._said = _Said(words, done, total, unit)
        self.watch()

    def __call__(self, done: int, total: int) -> None:
        """Take note that *done* of *total* bytes are done."""
        if self._said is None or self._said.unit or done < self._said.done:
            self._start = self._now()
        self._said = _Said("", done, total, "", self._now() - self._start)
        self.watch()

    def __str__(self) -> str:
        """Return what was said last, empty if nothing was."""
        said = self._said
        if said is None:
            return ""
        if not said.unit:
            return described(said.done, said.total, said.seconds).strip()
        counts = f"{said.done:,} of {counted(said.total, said.unit)}" if said.total else ""
        return ", ".join(filter(None, (said.words, counts)))

    @property
    def share(self) -> float | None:
        """How much is done, from 0 to 1; None where that is not known."""
        said = self._said
        if said is None or (said.unit and not said.total):
            return None
        return said.done / said.total if said.total else 1.0


_meters: dict[str, Meter] = {}


def meter(name: str) -> Meter:
    """Return the one meter of this process for the venv called *name*."""
    return _meters.setdefault(name, Meter())
