"""Renders answers: lines, tables that fit the terminal, JSON with sorted keys."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

from venvflow.errors import shown
from venvflow.pure.units import counted, show_duration, show_size
from venvflow.streams import drop, is_terminal, lost_answer, painted, printable, put, show_everything

if TYPE_CHECKING:
    from venvflow.model import Outcome
    from venvflow.pure.retention import Hold

PLAIN_WIDTH = 80
"""Columns of prose that does not go to a terminal."""

_GAP = "  "
_COLOURS = {"green": 32, "yellow": 33, "red": 31, "": 0}
Colour = Literal["green", "yellow", "red", ""]
_PLAIN: Colour = ""


class Output:
    """Standard output for answers, standard error for everything else.

    *as_json* makes commands answer by :meth:`document`. A reader that went away (``| head``) is not an error:
    what is left of the answer is dropped.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        as_json: bool = False,
        verbose: bool = False,
        quiet: bool = False,
    ) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self.quiet = quiet
        self._colour = _wants_colour(environ, sys.stdout)
        for stream in (sys.stdout, sys.stderr):
            show_everything(stream)

    def answer(self, text: str) -> None:
        """Write *text* and a newline to standard output."""
        self._write(printable(f"{text}\n", prose=False))

    def page(self, text: str) -> None:
        """Write a page of HTML as it is: ASCII, in which what others wrote is escaped for readers of HTML."""
        self._write(text)

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            drop(sys.stdout)
        except OSError as error:
            drop(sys.stdout)
            raise lost_answer(error) from error

    def document(self, value: Mapping[str, Any]) -> None:
        """Write *value* as JSON with sorted keys, of printable ASCII only."""
        import json  # noqa: PLC0415 - only where JSON was asked for

        text = json.dumps(value, indent=2, sort_keys=True)
        if "://" in text:
            text = json.dumps(_without_credentials(value), indent=2, sort_keys=True)
        self._write(text.replace("\x7f", "\\u007f") + "\n")

    def say(self, text: str) -> None:
        """Tell the person who waits, in one line, unless told to be quiet."""
        if not self.quiet:
            self._message(shown(text))

    def warn(self, text: str) -> None:
        """Tell of something that may not be as wanted, in one line, unless told to be quiet."""
        self.say(f"warning: {text}")

    def fail(self, text: str) -> None:
        """Say what failed; with ``-v`` after the traceback of the exception that is being handled."""
        if self.verbose:
            import traceback  # noqa: PLC0415 - only where it was asked for

            with suppress(OSError, ValueError):
                put(sys.stderr, traceback.format_exc())
        self._message(text)

    def paint(self, text: str, colour: Colour) -> str:
        """Return *text* in a colour, where colours are wanted."""
        return painted(text, _COLOURS[colour]) if self._colour and colour else text

    def writable(self, text: str, otherwise: str) -> str:
        """Return *text* if answers can have its characters, else what is there to be written *otherwise*."""
        try:
            text.encode(sys.stdout.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return otherwise
        return text

    @property
    def on_terminal(self) -> bool:
        """Whether answers go to a terminal."""
        return is_terminal(sys.stdout)

    def width(self) -> int:
        """Return how many columns prose may have; a table that does not go to a terminal may have more."""
        if not self.on_terminal:
            return PLAIN_WIDTH
        import shutil  # noqa: PLC0415 - only on a terminal

        return max(shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns, 1)

    def wrapped(self, text: str) -> str:
        """Return *text* in lines that fit the terminal; elsewhere, where a program may read it, in one."""
        if not self.on_terminal:
            return text
        import textwrap  # noqa: PLC0415 - only on a terminal

        return "\n".join(textwrap.wrap(shown(text), self.width(), break_on_hyphens=False))

    def _message(self, text: str) -> None:
        with suppress(OSError, ValueError):  # nobody listens
            put(sys.stderr, f"venvflow: {text}\n")


def _without_credentials(value: Any) -> Any:
    """Return a value of JSON with no credentials in the URLs of its texts."""
    from venvflow.pure.redaction import redact_urls  # noqa: PLC0415 - few answers have URLs

    if isinstance(value, str):
        return redact_urls(value)
    if isinstance(value, Mapping):
        return {redact_urls(name): _without_credentials(each) for name, each in value.items()}
    return [_without_credentials(each) for each in value] if isinstance(value, (list, tuple)) else value


def _wants_colour(environ: Mapping[str, str], stream: TextIO) -> bool:
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or (is_terminal(stream) and environ.get("TERM") != "dumb")


# --------------------------------------------------------------------------- tables


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    *least*: where a terminal is narrow, its cells are shortened to as few characters as that (0: never).
    *rank*: where that is not enough, columns with the highest rank are left out first (0: never).
    *wrap*: its cells go on in further lines; for the last column only.
    *yields*: it is left out where bars have no room else.
    """

    title: str
    right: bool = False
    least: int = 0
    rank: int = 0
    wrap: bool = False
    yields: bool = False


TRIMMED = (
    Column("", least=4),
    Column("id"),
    Column("venv", least=8),
    Column("frees", right=True),
    Column("why", least=20, wrap=True),
)
"""What is told of each snapshot that a trim keeps or drops, here or in a remote."""


class Bar(NamedTuple):
    """Bytes that only one has, and those that it shares with others."""

    own: int
    shared: int


_BAR_TITLE = "OWN/SHARED"
_LONGEST_BAR = 24
_BLOCKS = "\N{FULL BLOCK}\N{LIGHT SHADE}"
_PLAIN_BLOCKS = "#."
"""What own and shared bytes are drawn with; the latter where the output has no other characters."""


def table(
    out: Output,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    colours: Sequence[tuple[int, Colour]] = (),
    bars: Sequence[Bar] = (),
) -> str:
    """Return *rows* below their titles, in the width that a terminal has; each cell is shown on one line.

    In a pipe nothing is shortened or left out: a program may read it. *colours* gives for each row the number
    of a column, and its colour. *bars*, one for each row, are drawn on a terminal that has room for them.
    """
    if not out.on_terminal:
        columns = [each if each.wrap else replace(each, least=0, rank=0) for each in columns]
        bars = ()
    rows = [[shown(cell) for cell in row] for row in rows]
    # Each text once: in long tables most cells say what others say.
    texts = [{column.title, *(row[i] for row in rows)} for i, column in enumerate(columns)]
    natural = [max(map(columns_of, each)) for each in texts]
    fitting, room = _fitting_with_bars(columns, natural, out.width()) if bars else ({}, 0)
    fitting = fitting or _fitting(columns, natural, out.width(), at_any_cost=out.on_terminal)
    kept, widths = [*fitting], [*fitting.values()]
    chosen = [columns[i] for i in kept]
    drawn = _drawn(out, bars, room) if room else []
    title = [_BAR_TITLE] if drawn else []
    lines = [_line([column.title.upper() for column in chosen], chosen, widths, behind=title)]
    for number, row in enumerate(rows):
        index, colour = colours[number] if number < len(colours) else (-1, _PLAIN)
        coloured = kept.index(index) if index in kept else -1
        paint = partial(out.paint, colour=colour)
        behind = drawn[number : number + 1]
        lines.append(_line([row[i] for i in kept], chosen, widths, coloured, paint, behind=behind))
    return "\n".join(lines)


def _fitting_with_bars(
    columns: Sequence[Column], natural: Sequence[int], width: int
) -> tuple[dict[int, int], int]:
    """Return the columns that have bars behind them, none of them shortened, and the room for the bars.

    There is none where that would take more than the columns that yield.
    """
    for kept in (range(len(columns)), [i for i, each in enumerate(columns) if not each.yields]):
        room = width - sum(natural[i] + len(_GAP) for i in kept)
        if room >= len(_BAR_TITLE):
            return {i: natural[i] for i in kept}, room
    return {}, 0


def _drawn(out: Output, bars: Sequence[Bar], room: int) -> list[str]:
    """Return *bars*, the largest of them in *room* columns, or as long as is of use.

    What is there at all has a column.
    """
    most, length = max(map(sum, bars)), min(room, _LONGEST_BAR)
    solid, light = list(out.writable(_BLOCKS, _PLAIN_BLOCKS))
    drawn = []
    for bar in bars:
        whole = max(round(length * sum(bar) / most), 1) if sum(bar) else 0
        own = round(whole * bar.own / sum(bar)) if whole else 0
        drawn.append(solid * own + out.paint(light * (whole - own), "green" if whole > own else ""))
    return drawn


def _fitting(
    columns: Sequence[Column], natural: Sequence[int], width: int, *, at_any_cost: bool
) -> dict[int, int]:
    """Return the numbers of the columns that fit, with their widths; *natural* are those that they want.

    Columns with the highest rank are left out, then the widest that may shrink gives way; where they
    have to fit *at_any_cost*, then the widest of all.
    """
    least = [min(each, column.least or each) for each, column in zip(natural, columns, strict=True)]
    widths = list(natural)
    kept = list(range(len(columns)))

    def are_too_wide(widths: Sequence[int]) -> bool:
        return sum(widths[i] for i in kept) + len(_GAP) * (len(kept) - 1) > width

    while len(kept) > 1 and are_too_wide(least) and any(columns[i].rank for i in kept):
        kept.remove(max(kept, key=lambda i: columns[i].rank))
    while are_too_wide(widths) and (spare := [i for i in kept if widths[i] > least[i]]):
        widths[max(spare, key=widths.__getitem__)] -= 1
    while at_any_cost and are_too_wide(widths) and max(widths[i] for i in kept) > 1:
        widths[max(kept, key=widths.__getitem__)] -= 1
    return {i: widths[i] for i in kept}


def _line(
    cells: Sequence[str],
    columns: Sequence[Column],
    widths: Sequence[int],
    coloured: int = -1,
    paint: Callable[[str], str] = str,
    *,
    behind: Sequence[str] = (),
) -> str:
    """Return one row, whose last cell may take several lines; *paint* colours the cell number *coloured*.

    What is *behind* the cells is taken as it is.
    """
    last = columns[-1]
    rest: list[str] = []
    if last.wrap and columns_of(cells[-1]) > widths[-1]:
        import textwrap  # noqa: PLC0415 - few tables wrap

        # A path that is too long stays whole: half of it is useless.
        lines = textwrap.wrap(cells[-1], widths[-1], break_long_words=False, break_on_hyphens=False)
        first, *rest = lines or [""]
        cells = [*cells[:-1], first]
    parts = [_cell(*each) for each in zip(cells, columns, widths, strict=True)]
    if coloured >= 0:
        parts[coloured] = paint(parts[coloured])
    indent = " " * (sum(widths[:-1]) + len(_GAP) * (len(widths) - 1))
    return "\n".join([_GAP.join([*parts, *behind]).rstrip(), *(indent + more for more in rest)])


def _cell(text: str, column: Column, width: int) -> str:
    text = shortened(text, width)
    padding = " " * (width - columns_of(text))
    return padding + text if column.right else text + padding


def shortened(text: str, width: int) -> str:
    """Return *text* in *width* columns of a terminal, with two dots for its middle where it needs more.

    The beginning and the end of a name tell it from others that were made like it.
    """
    if columns_of(text) <= width:
        return text
    if width < 2:
        return "."[:width]
    room = width - 2
    tail = _beginning(text[::-1], room // 2)[::-1]
    while tail and not columns_of(tail[0]):  # an accent whose letter is cut off
        tail = tail[1:]
    return f"{_beginning(text, room - room // 2)}..{tail}"


def _beginning(text: str, width: int) -> str:
    for number, char in enumerate(text):
        width -= columns_of(char)
        if width < 0:
            return text[:number]
    return text


def columns_of(text: str) -> int:
    """Return how many columns a terminal needs for *text*: two for a wide character, none for an accent."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width  # noqa: PLC0415 - few names need it

    return sum(0 if combining(each) else 1 + (east_asian_width(each) in "WF") for each in text)


def from_home(path: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return *path* fit to be seen, with ``~`` for the home directory."""
    home = environ.get("HOME", "").rstrip("/")
    return f"~{shown(path[len(home) :])}" if home and f"{path}/".startswith(f"{home}/") else shown(path)


# --------------------------------------------------------------------------- times


def since(then: float | None, now: float) -> str:
    """Return how long ago *then* was, in one unit: ``now``, ``5 min``, ``3 h``, ``12 d``; ``-`` for never."""
    if then is None:
        return "-"
    seconds = max(now - then, 0)  # a clock that was set back: just now
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "now"


def show_spared(seconds: float) -> str:
    """Return by how much hits were faster than the builds that they spared, or slower, in words."""
    return f"{show_duration(abs(seconds))} {'spared' if seconds >= 0 else 'slower than builds'}"


def moment(then: float | None) -> str | None:
    """Return a time as JSON has it: ISO 8601 in UTC, to the second."""
    if then is None:
        return None
    from datetime import datetime, timezone  # noqa: PLC0415 - only where JSON was asked for

    return datetime.fromtimestamp(int(then), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def held_by(holds: Iterable[Hold]) -> list[dict[str, str | None]]:
    """Return who holds a snapshot as JSON has it."""
    return [{**each.venv._asdict(), "last_used": moment(each.used.at)} for each in holds]


# --------------------------------------------------------------------------- what a step did


NO_OUTCOME: Mapping[str, Any] = {"key": None, "figures": {}, "warnings": []}
"""What the record of a venv has for which a step failed, besides ``venv``, ``did`` and ``reason``."""


def show_outcome(
    out: Output, venv: str, key: str, outcome: Outcome, warnings: Iterable[str]
) -> dict[str, Any]:
    """Answer with what a step did; its warnings go to standard error. With JSON, only return the record.

    It has ``venv``, ``key`` (its digest), ``did`` (one word), ``reason``, ``figures`` (counts, ``bytes`` and
    ``seconds`` by name) and ``warnings``.
    """
    warnings = [*warnings, *outcome.warnings]
    if not out.as_json:
        out.answer(f"{shown(venv)}: {outcome_text(outcome)}")
    for warning in warnings:
        out.warn(f"{shown(venv)}: {warning}")
    return {"venv": venv, "key": key, **outcome.values(), "warnings": warnings}


def outcome_text(outcome: Outcome) -> str:
    """Return what a step did, with the figures that matter, in one line."""
    figures = outcome.figures
    parts = [f"{outcome.did}: {outcome.reason}" if outcome.reason else outcome.did]
    if "files" in figures:
        parts.append(counted(int(figures["files"]), "file"))
    if "bytes" in figures:
        parts.append(show_size(int(figures["bytes"])))
    if figures.get("new_bytes"):
        parts.append(f"{show_size(int(figures['new_bytes']))} new in the store")
    if figures.get("link"):
        parts.append(f"by {figures['link']}")
    took = figures.get("seconds")
    return ", ".join(parts) + (f" in {show_duration(float(took))}" if took is not None else "")
