"""Shows on standard error what runs: a row for each piece of work on a terminal, plain lines elsewhere.

rich draws the rows; it is imported when there is a row to draw. Code that writes to the same terminal calls
:meth:`ProgressDisplay.write`, which takes the rows away first.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TextIO

from venvflow.cli.render import columns_of, shortened
from venvflow.errors import shown
from venvflow.pure.units import show_duration
from venvflow.steps.meter import Meter
from venvflow.streams import is_terminal, printable, put_or_drop

if TYPE_CHECKING:
    from rich.live import Live as Display

PATIENCE = 1.0
"""Seconds that a task may take before it gets a row on a terminal."""

REMINDER = 60.0
"""Seconds between two lines about the same task where there is no terminal."""

LINE_SECONDS = 5.0
"""Seconds between two lines about bytes where there is no terminal; what takes less says nothing."""

FRAME_SECONDS = 0.2
"""Seconds between two states of a row."""

_BAR = 24
_LEAST_BAR = 8
_LEAST_LABEL = 20
"""Columns that what is worked on keeps, however much there is to say of it."""


class Row(NamedTuple):
    """What a row shows: what is worked on, for how long, how much is done (None: not known), and words."""

    label: str
    time: str
    share: float | None
    words: str


def row(label: str, meter: Meter, time: str = "") -> Row:
    """Return what a terminal shows of *meter*."""
    return Row(shown(label), time, meter.share, shown(str(meter)))


def fitted(row: Row, width: int) -> str:
    """Return *row* in *width* columns.

    The last words give way to the bar, the bar to the first of them, and then what is left loses its middle:
    the name down to some columns, the words, and all.
    """
    parts = row.words.split(", ")
    fewer = [", ".join(parts[:number]) for number in range(len(parts), 0, -1)]
    for words in fewer if row.share is not None else ():
        head, end = f"{row.label}{row.time} ", f" {words}" if words else ""
        length = min(width - columns_of(head + end) - 2, _BAR)
        if length >= _LEAST_BAR:
            full = int(length * min(row.share or 0, 1))
            return f"{head}[{'#' * full}{'.' * (length - full)}]{end}"
    least = min(_LEAST_LABEL, columns_of(row.label))
    words = next((each for each in fewer if columns_of(f"{row.time}: {each}") <= width - least), fewer[-1])
    time = f"{row.time}: " if words else row.time
    head = shortened(row.label, max(width - columns_of(time + words), least)) + time
    return shortened(head + shortened(words, max(width - columns_of(head), 0)), width)


class TerminalRows:
    """Rows below all other output on the terminal *stream*; *columns* returns its width.

    A stream that cannot be written to any more does not stop the work.
    """

    def __init__(self, stream: TextIO, columns: Callable[[], int] | None = None) -> None:
        self._stream = stream
        self._columns = columns or self._width
        self._display: Display | None = None
        self._drawn: tuple[object, ...] = ()

    def draw(self, rows: list[Row]) -> None:
        """Show *rows* in place of those that are there, each fitted to the width of the terminal."""
        if not rows:
            self.clear()
            return
        width = max(self._columns() - 1, 1)
        lines = [fitted(self._writable(row), width) for row in rows]
        if (width, *lines) != self._drawn:
            self._drawn = (width, *lines)
            with suppress(OSError, ValueError):
                self._draw(lines, width)

    def _writable(self, row: Row) -> Row:
        return row._replace(
            label=_writable(self._stream, row.label), words=_writable(self._stream, row.words)
        )

    def clear(self) -> None:
        """Take the rows away."""
        display, self._display, self._drawn = self._display, None, ()
        if display is not None:
            with suppress(OSError, ValueError):
                display.stop()

    def _draw(self, lines: list[str], width: int) -> None:
        from rich.console import Console, Group  # noqa: PLC0415 - most runs draw nothing
        from rich.live import Live as Display  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        if self._display is None:
            console = Console(
                file=self._stream, color_system=None,
                force_terminal=True, force_interactive=True, force_jupyter=False,
            )  # fmt: skip
            self._display = Display(
                console=console, transient=True, auto_refresh=False,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._display.start()
            console.show_cursor(True)  # a run that is killed could not give it back
        console = self._display.console
        console.size = width, console.height
        texts = [Text(line, no_wrap=True, overflow="crop") for line in lines]
        self._display.update(Group(*texts), refresh=True)

    def _width(self) -> int:
        with suppress(OSError, ValueError):  # a terminal that does not tell
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        return 80


class _Work(NamedTuple):
    label: str
    start: float
    meter: Meter

    def since(self, now: float) -> str:
        """Return for how long it runs."""
        seconds = int(now - self.start)
        return f", {show_duration(seconds) if seconds >= 10 else f'{seconds} s'}"


class ProgressDisplay:
    """Shows on *stream* what runs, from a thread of its own: as rows if it is *drawn* on, else as lines."""

    def __init__(
        self,
        stream: TextIO,
        *,
        drawn: bool,
        columns: Callable[[], int] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._rows = TerminalRows(stream, columns) if drawn else None
        self._now = now
        self._works: dict[str, _Work] = {}
        self._reminded: dict[str, int] = {}
        self._lock = threading.RLock()
        self._idle = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, name: str, label: str, meter: Meter) -> None:
        """Show that the work *name* runs, as *label* with what *meter* says, until it ends."""
        with self._lock:
            self._works[name] = _Work(label, self._now(), meter)
            self._reminded.pop(name, None)
            if self._thread is None:
                self._idle.clear()
                self._thread = threading.Thread(target=self._run, name="venvflow-progress", daemon=True)
                self._thread.start()

    def hush(self, name: str) -> None:
        """Draw nothing until the work *name* ends: it writes to the terminal itself."""
        self.begin(name, "", Meter())

    def end(self, name: str) -> None:
        """Stop showing the work *name*; an unknown name is ignored."""
        with self._lock:
            self._works.pop(name, None)
            if not self._works:
                self._clear()
                self._idle.set()
                self._thread = None

    def stop(self) -> None:
        """Stop showing anything: the run is over, or was interrupted."""
        with self._lock:
            for name in list(self._works):
                self.end(name)

    def write(self, stream: TextIO, text: str) -> None:
        """Take the rows away and write *text*, whole lines, to *stream*."""
        with self._lock:
            self._clear()
            put_or_drop(stream, text)

    def tick(self) -> None:
        """Show how things are now."""
        with self._lock:
            now = self._now()
            if not all(work.label for work in self._works.values()):
                self._clear()
            elif self._rows is None:
                self._remind(now)
            else:
                works = sorted(self._works.values(), key=lambda work: work.start)
                late = [work for work in works if now - work.start >= PATIENCE]
                self._rows.draw([row(work.label, work.meter, work.since(now)) for work in late])

    def _run(self) -> None:
        idle = self._idle
        while not idle.wait(PATIENCE if self._rows is None else FRAME_SECONDS):
            with self._lock:
                if self._thread is not threading.current_thread():
                    return
                self.tick()

    def _remind(self, now: float) -> None:
        for name, work in self._works.items():
            minutes = int((now - work.start) // REMINDER)
            if minutes > self._reminded.get(name, 0):
                self._reminded[name] = minutes
                _say(self._stream, f"venvflow: still {_line(work.label + work.since(now), work.meter)}")

    def _clear(self) -> None:
        if self._rows is not None:
            self._rows.clear()


def _line(label: str, meter: Meter) -> str:
    return shown(f"{label}: {said}" if (said := str(meter)) else label)


def _say(stream: TextIO, line: str) -> None:
    with suppress(OSError, ValueError):  # the terminal is gone: the work goes on
        stream.write(_writable(stream, f"{line}\n"))
        stream.flush()


def _writable(stream: TextIO, text: str) -> str:
    """Return *text* in one line and in letters that *stream* has."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return printable(text).encode(encoding, "replace").decode(encoding)


@contextmanager
def progress(
    stream: TextIO, label: str, now: Callable[[], float] = time.monotonic, *, meter: Meter | None = None
) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows bytes done, and bytes in all, on *stream*: a bar on a terminal, else lines.

    *label* says what is done; whatever a *meter* is told meanwhile is shown, too.
    """
    rows = TerminalRows(stream) if _can_draw(stream, os.environ.get("TERM", "")) else None
    shown_meter, last = meter or Meter(now), now() if rows is None else float("-inf")
    drawing = threading.Lock()

    def show() -> None:
        nonlocal last
        if now() - last < (LINE_SECONDS if rows is None else FRAME_SECONDS):
            return
        if drawing.acquire(blocking=False):  # else another thread shows it
            try:
                last = now()
                if rows is None:
                    _say(stream, _line(label, shown_meter))
                else:
                    rows.draw([row(label, shown_meter)])
            finally:
                drawing.release()

    shown_meter.reset()
    shown_meter.watch = show
    try:
        yield shown_meter
    finally:
        shown_meter.watch = lambda: None
        if rows is not None:
            with drawing:
                rows.clear()


def display_on(stream: TextIO, answers: TextIO, term: str) -> ProgressDisplay:
    """Return a display on *stream*; it draws rows if that is a terminal whose type *term* can show them.

    It draws nothing if *answers* go into a pipe: the program that reads the pipe (``| tee``) may write to the
    same terminal at any moment.
    """
    return ProgressDisplay(stream, drawn=_can_draw(stream, term) and not _is_pipe(answers))


def _can_draw(stream: TextIO, term: str) -> bool:
    return is_terminal(stream) and term not in ("", "dumb")


def _is_pipe(stream: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


_making = threading.Lock()


def shared() -> ProgressDisplay:
    """Return the one display of this process, on standard error."""
    with _making:  # else two threads that begin at once would have one each, and one would never end a row
        return _shared()


@cache
def _shared() -> ProgressDisplay:
    return display_on(sys.stderr, sys.stdout, os.environ.get("TERM", ""))
