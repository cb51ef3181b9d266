"""The table: what was measured, the ratios, and whether they reach their targets. Nothing is run here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_HEAD = ("#", "job", "ours", "against", "theirs", "ratio min/median/max", "target", "")


class Spread(NamedTuple):
    """The smallest, the middle and the largest of some values."""

    least: float
    median: float
    most: float


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: *ours* against *theirs*, pair by pair, in *unit* (s, MB).

    *theirs* may also be a single value that does not change: a limit. *target* is the largest ratio that
    is good enough. *note* says what the pairs started from. A line with *skipped* was not measured, for
    the reason given there.
    """

    row: int
    job: str
    against: str
    target: float
    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    unit: str = "s"
    note: str = ""
    skipped: str = ""

    def ratios(self) -> tuple[float, ...]:
        """Return one ratio for each pair. Raises ValueError when the numbers of runs differ."""
        theirs = self.theirs * len(self.ours) if len(self.theirs) == 1 else self.theirs
        return tuple(our / their for our, their in zip(self.ours, theirs, strict=True))

    @property
    def met(self) -> bool | None:
        """Return whether the median ratio reaches the target; None for what was not measured."""
        return None if self.skipped else spread(self.ratios()).median <= self.target


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of *values*, of which there is at least one."""
    return Spread(min(values), statistics.median(values), max(values))


def verdict(line: Line) -> str:
    """Return ``met``, or by how much the median ratio misses its target, or that it was not measured."""
    if line.skipped:
        return "skipped"
    median = spread(line.ratios()).median
    return "met" if line.met else f"missed by {100 * (median / line.target - 1):.0f} %"


def render(lines: Sequence[Line]) -> str:
    """Return the table as text, with a note below for each line that has one."""
    cells = [_HEAD, *(_cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    rows.insert(1, "  ".join("-" * width for width in widths))
    notes = dict.fromkeys(f"row {line.row}: {_note(line)}" for line in lines if _note(line))
    return "\n".join(row.rstrip() for row in [*rows, "", *notes])


def document(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return the lines for JSON, with every single value that was measured."""
    return [_record(line) for line in lines]


def lines_of(records: Sequence[dict[str, Any]]) -> list[Line]:
    """Return the lines that :func:`document` wrote; raises KeyError or TypeError for what makes no sense."""
    return [Line(**{name: _frozen(record[name]) for name in Line.__slots__}) for record in records]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def render_markdown(lines: Sequence[Line]) -> str:
    """Return the table as Markdown: what a page of figures quotes, without absolute times."""
    head = ("row", "job", "against", "ratio min / median / max", "target", "")
    cells = [head, tuple("---" for _ in head), *(_markdown_cells(line) for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _markdown_cells(line: Line) -> tuple[str, ...]:
    number, job, _, against, _, ratio, target, said = (cell.replace("|", "\\|") for cell in _cells(line))
    return number, job, against, ratio, target.replace("<=", "≤"), said


def _note(line: Line) -> str:
    return f"{line.against} is skipped: {line.skipped}" if line.skipped else line.note


def _cells(line: Line) -> tuple[str, ...]:
    head = str(line.row), line.job
    target = f"<= {line.target:g}"
    if line.skipped:
        return (*head, "", line.against, "", "", target, verdict(line))
    ratio = " / ".join(f"{value:.3g}" for value in spread(line.ratios()))
    ours, theirs = (_value(spread(values).median, line.unit) for values in (line.ours, line.theirs))
    return (*head, ours, line.against, theirs, ratio, target, verdict(line))


def _value(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def _record(line: Line) -> dict[str, Any]:
    record: dict[str, Any] = {name: getattr(line, name) for name in Line.__slots__}
    if not line.skipped:
        record["ratio"] = spread(line.ratios())._asdict()
    return record | {"met": line.met, "verdict": verdict(line)}
