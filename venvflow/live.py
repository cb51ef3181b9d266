"""What is going on just now: one line at the foot of a terminal, or a word every minute anywhere else.

The line is drawn by a thread of its own, which runs only while something does, and stays silent about
what takes less than a second. Whoever writes to the same terminal writes through :meth:`Live.write`, so
that the line is out of the way.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import NamedTuple, TextIO

from venvflow.errors import shown
from venvflow.pure.progress import Meter, is_terminal
from venvflow.pure.units import show_duration
from venvflow.streams import fit, put

PATIENCE = 1.0
"""Seconds that something may take before it is worth a word on a terminal."""

REMINDER = 60.0
"""Seconds between two words about the same work where there is no terminal."""

_TICK = 0.2
_BETWEEN = " | "
_CLEAR = "\r\x1b[K"


class _Work(NamedTuple):
    label: str
    start: float
    meter: Meter


class Live:
    """Tells on *stream* what runs. *columns* returns the width of the terminal; *drawn*: it is one."""

    def __init__(
        self,
        stream: TextIO,
        *,
        drawn: bool,
        columns: Callable[[], int],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._drawn = drawn
        self._columns = columns
        self._now = now
        self._works: dict[str, _Work] = {}
        self._reminded: dict[str, int] = {}
        self._line = ""
        self._lock = threading.RLock()
        self._idle = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, name: str, label: str, meter: Meter) -> None:
        """Show from now on that the work *name* runs, as *label* with what *meter* says."""
        with self._lock:
            self._works[name] = _Work(label, self._now(), meter)
            self._reminded.pop(name, None)
            if self._thread is None:
                self._idle.clear()
                self._thread = threading.Thread(target=self._run, name="venvflow-live", daemon=True)
                self._thread.start()

    def hush(self, name: str) -> None:
        """Draw nothing until the work *name* ends: it writes to the terminal itself."""
        self.begin(name, "", Meter())

    def end(self, name: str) -> None:
        """Say no more of the work *name*; unknown names are welcome."""
        with self._lock:
            self._works.pop(name, None)
            if not self._works:
                self.clear()
                self._idle.set()
                self._thread = None

    def stop(self) -> None:
        """Say no more of anything: the run is over, or was interrupted."""
        with self._lock:
            for name in list(self._works):
                self.end(name)

    def write(self, stream: TextIO, text: str) -> None:
        """Write *text*, whole lines, to *stream*; the line at the foot makes room for it.

        A reader that went away (``| head``) is no reason to stop the work, nor is a disk that is full.
        """
        with self._lock:
            self.clear()
            try:
                put(stream, text)
            except OSError as error:
                forget(stream, error)

    def clear(self) -> None:
        """Take the line away until it is drawn again."""
        with self._lock:
            if self._line:
                self._line = ""
                self._put("", after=_CLEAR)

    def tick(self) -> None:
        """Show how things are now."""
        with self._lock:
            if not all(work.label for work in self._works.values()):
                self.clear()
            elif self._drawn:
                self._draw()
            else:
                self._remind()

    def _run(self) -> None:
        idle = self._idle
        while not idle.wait(_TICK if self._drawn else PATIENCE):
            with self._lock:
                if self._thread is not threading.current_thread():
                    return
                self.tick()

    def _draw(self) -> None:
        now = self._now()
        long = [work for work in self._works.values() if now - work.start >= PATIENCE]
        room = self._columns() - 1 - len(_BETWEEN) * (len(long) - 1)
        share = max(room // max(len(long), 1), 1)
        texts = [cut(shown(_told(work, now)), share) for work in sorted(long, key=lambda work: work.start)]
        line = cut(_BETWEEN.join(texts), max(self._columns() - 1, 1))
        if line != self._line:
            self._line = line
            self._put(line, after=_CLEAR)

    def _remind(self) -> None:
        now = self._now()
        for name, work in self._works.items():
            minutes = int((now - work.start) // REMINDER)
            if minutes > self._reminded.get(name, 0):
                self._reminded[name] = minutes
                self._put(f"venvflow: still {shown(_told(work, now))}\n")

    def _put(self, text: str, *, after: str = "") -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        with suppress(OSError, ValueError):  # nobody looks any more: no reason to stop the work
            self._stream.write(after + fit(text).encode(encoding, "replace").decode(encoding))
            self._stream.flush()


unwritten: list[OSError] = []
"""Why something could not be written, but for readers that went away."""


def forget(stream: TextIO, error: OSError) -> None:
    """Send what is still to be written nowhere, so that Python does not fail on it when it ends."""
    if not isinstance(error, BrokenPipeError):
        unwritten.append(error)
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _told(work: _Work, now: float) -> str:
    detail = str(work.meter)
    seconds = int(now - work.start)
    took = show_duration(seconds) if seconds >= 10 else f"{seconds} s"
    return f"{work.label}, {took}: {detail}" if detail else f"{work.label}, {took}"


def cut(text: str, columns: int) -> str:
    """Return *text*, or as much of it as fits into *columns* of a terminal with two dots behind it."""
    if text.isascii() and len(text) <= columns:
        return text
    widths = [_width(char) for char in text]
    if sum(widths) <= columns:
        return text
    room, kept = columns - 2, 0
    while kept < len(text) and widths[kept] <= room:
        room -= widths[kept]
        kept += 1
    return f"{text[:kept]}.."[:columns] if columns > 2 else "." * columns


def _width(char: str) -> int:
    """Return how many columns a terminal gives to *char*."""
    import unicodedata  # noqa: PLC0415 - most lines are ASCII

    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def on(stream: TextIO, answers: TextIO, term: str) -> Live:
    """Return what tells on *stream* what runs, drawing if it is a terminal that can (by its type *term*).

    Where *answers* go into a pipe, whoever reads it (``| tee``) may write to the same terminal, at moments
    that nobody here knows: nothing is drawn then.
    """

    def columns() -> int:
        with suppress(OSError, ValueError):
            return os.get_terminal_size(stream.fileno()).columns or 80
        return 80

    drawn = is_terminal(stream) and not _is_pipe(answers) and term not in ("", "dumb")
    return Live(stream, drawn=drawn, columns=columns)


def _is_pipe(stream: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


@cache
def shared() -> Live:
    """Return the one that all of this process speak through, on standard error."""
    return on(sys.stderr, sys.stdout, os.environ.get("TERM", ""))
