"""The page: one HTML file with its styles, scripts, tables and charts, which asks nobody for anything.

All names in it are others', and go through Jinja's escaping or into JSON without a ``<``; the page's policy
(``Content-Security-Policy``) runs the scripts that are written here, by their hashes, and loads nothing.
The file is of ASCII alone, so that nothing depends on how it is served.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from hashlib import sha256
from importlib import resources
from typing import Any, Literal, NamedTuple

from venvflow.cli.render import since
from venvflow.errors import EnvironmentFailure, shown
from venvflow.pure.redaction import redact_urls
from venvflow.pure.report import (
    Area,
    Day,
    Matrix,
    ReportedVenv,
    VersionUse,
    matrix,
    stale,
    treemap,
    versions,
)
from venvflow.pure.units import counted, show_duration, show_size
from venvflow.report import charts
from venvflow.report.gathering import Report

Kind = Literal["text", "code", "number", "wide"]
"""What a column has: words, an id, a number with its unit, or words that may take several lines."""


class Cell(NamedTuple):
    """What a table shows, and by what it is sorted, if not by that."""

    text: str
    value: float | str | None = None


@dataclass(frozen=True, slots=True)
class DataTable:
    """A table of the page: its *columns* with their kinds, its rows; *empty* is said where it has none."""

    id: str
    caption: str
    columns: tuple[tuple[str, Kind], ...]
    rows: Sequence[tuple[Cell, ...]]
    empty: str


class Figure(NamedTuple):
    """A number at the top of the page, what it is, and what there is to say of it."""

    label: str
    value: str
    note: str


def render(report: Report) -> str:
    """Return the page.

    Raises EnvironmentFailure where the libraries that draw it are not installed.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415 - one command needs it
        from plotly.offline import get_plotlyjs  # noqa: PLC0415 - as above
    except ImportError as error:
        raise EnvironmentFailure(
            f"the report needs plotly and jinja2, and {error.name or 'one of them'} is not installed",
            state="Nothing was written.",
            hint="Install both with venvflow: pip install 'venvflow[report]'.",
        ) from error
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_file),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [as_ascii_script(get_plotlyjs()), _file("page.js")]
    page = environment.get_template("page.html").render(
        **_contents(report),
        style=_file("page.css"),
        scripts=scripts,
        policy=policy_for(scripts),
    )
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


@lru_cache
def _file(name: str) -> str:
    return resources.files("venvflow.report").joinpath(name).read_text("ascii")


def policy_for(scripts: Iterable[str]) -> str:
    """Return the policy of a page that runs these *scripts*, and neither loads nor sends anything."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(each.encode()).digest()).decode()}'" for each in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def as_ascii_script(text: str) -> str:
    """Return a script with escapes for what is not ASCII: such characters are in its strings and patterns."""
    return re.sub(r"[^\x00-\x7f]", _escapes, text)


def _escapes(char: re.Match[str]) -> str:
    units = char[0].encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def as_data(value: Mapping[str, Any]) -> str:
    """Return *value* as JSON that may stand in a page: nothing in it ends a script or begins a comment."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def plain(text: str) -> str:
    """Return what others wrote as one line that shows all that is in it, without credentials."""
    return redact_urls(shown(text))


# --------------------------------------------------------------------------- what is on it


def _contents(report: Report) -> dict[str, Any]:
    venvs, now = report.venvs, report.now
    areas, uses = treemap(venvs), versions(venvs)
    table = matrix(uses, [each.name for each in venvs])
    late = [(each, why) for each in venvs if (why := stale(each, now))]
    what = "project" if report.root is not None else "store"
    name = report.root or report.store
    figures = {
        "treemap": charts.treemap(areas, "all venvs"),
        "shares": charts.shares(venvs),
        "snapshots": charts.snapshots(report.snapshots),
        "days": charts.days(report.days),
    }
    filled = {name: figure for name, figure in figures.items() if _has_marks(figure)}
    return {
        "title": plain(name.rstrip("/").rpartition("/")[2] or name),
        "path": plain(name),
        "what": what,
        "store": plain(report.store),
        "made": datetime.fromtimestamp(int(now), timezone.utc),
        "figures": _headline(report, late),
        "drawn": filled,
        "data": as_data(filled),
        "tables": {
            each.id: each
            for each in (
                _bytes_table(areas),
                _venv_table(venvs, now),
                _package_table(report),
                _stale_table(late, now),
                _version_table(uses),
                _snapshot_table(report),
                _day_table(report.days),
            )
        },
        "matrix": _shown_matrix(table),
        "matrix_note": charts.matrix_note(table.left_out),
        "late": late,
        "differing": len(table.rows) + table.left_out[0],
        "odd": sum(each.odd for each in uses),
    }


def _has_marks(figure: charts.Figure) -> bool:
    return any(
        len(each.get("values", each.get("x", ()))) > (1 if "values" in each else 0) for each in figure["data"]
    )


def _headline(report: Report, late: Sequence[tuple[ReportedVenv, str]]) -> list[Figure]:
    sharing, days = report.sharing, report.days
    part = f"{sharing.saved / sharing.shown:.0%} less" if sharing.shown else "nothing is shared yet"
    spent, spared = sum(each.spent for each in days), sum(each.spared for each in days)
    hits, misses = sum(each.hits for each in days), sum(each.misses for each in days)
    rate = f"{hits:,} of {counted(hits + misses, 'restore')} hit" if hits + misses else "no restore yet"
    built = f"in {counted(len(days), 'day')}" if days else "no history yet"
    return [
        Figure("venvs", f"{len(report.venvs):,}", f"{len(late):,} stale" if late else "none is stale"),
        Figure("in the venvs", show_size(sharing.shown), "bytes as files appear"),
        Figure("stored for them", show_size(sharing.stored), "each file once"),
        Figure("saved by sharing", show_size(sharing.saved), part),
        Figure("spent on builds", show_duration(spent), built),
        Figure("spared by hits", show_duration(spared), rate),
    ]


def _shown_matrix(found: Matrix) -> dict[str, Any]:
    columns = [
        {"name": plain(names[0]), "more": len(names) - 1, "all": [*map(plain, names)]}
        for names in found.columns
    ]
    rows = [
        {"name": plain(name), "cells": [{"text": plain(text), "odd": odd} for text, odd in cells]}
        for name, cells in found.rows
    ]
    return {"columns": columns, "rows": rows}


# --------------------------------------------------------------------------- tables


def _size(value: int | None) -> Cell:
    return Cell("-", -1) if value is None else Cell(show_size(value), value)


def _count(value: int | None) -> Cell:
    return Cell("-", -1) if value is None else Cell(f"{value:,}", value)


def _ago(then: float | None, now: float) -> Cell:
    return Cell(since(then, now), -1 if then is None else int(then))


def _text(value: str) -> Cell:
    return Cell(plain(value) or "-")


def _time(seconds: float) -> Cell:
    return Cell(show_duration(seconds) if seconds else "0 s", round(seconds, 3))


def _bytes_table(areas: Sequence[Area]) -> DataTable:
    inner = {each.path[:-1] for each in areas}
    rows = []
    for area in areas:
        if area.path not in inner:
            venv, distribution, directory = (*area.path, "", "")[:3]
            sizes = map(_size, (area.size, area.own, area.size - area.own))
            rows.append((_text(venv), _text(distribution), _text(directory), *sizes))
    return DataTable(
        "bytes",
        "Bytes by venv, distribution and directory, as the map has them",
        (
            ("Venv", "text"),
            ("Distribution", "text"),
            ("Directory", "text"),
            ("Bytes", "number"),
            ("Own", "number"),
            ("Shared", "number"),
        ),
        rows,
        "No venv is there.",
    )


def _venv_table(venvs: Iterable[ReportedVenv], now: float) -> DataTable:
    rows = [
        (
            _text(each.name),
            _text(each.state),
            _text(each.python),
            _count(each.packages),
            *map(_size, (each.size, each.own, each.shared)),
            _ago(each.used, now),
        )
        for each in sorted(venvs, key=lambda each: (-(each.size or 0), each.name))
    ]
    return DataTable(
        "venvs",
        "All venvs, and what of each is its own",
        (
            ("Venv", "text"),
            ("State", "text"),
            ("Python", "text"),
            ("Packages", "number"),
            ("Bytes", "number"),
            ("Own", "number"),
            ("Shared", "number"),
            ("Last used", "number"),
        ),
        rows,
        "There are no venvs yet.",
    )


def _package_table(report: Report) -> DataTable:
    rows = [
        (
            _text(each.name),
            _count(len(each.versions)),
            _count(each.venvs),
            _size(each.bytes),
            _size(each.stored),
            _text(", ".join(each.versions)),
        )
        for each in report.packages
    ]
    return DataTable(
        "packages",
        "Packages, by what is stored for them",
        (
            ("Package", "text"),
            ("Versions", "number"),
            ("Venvs", "number"),
            ("In venvs", "number"),
            ("Stored", "number"),
            ("Which versions", "wide"),
        ),
        rows,
        "No venv shares a package yet.",
    )


def _stale_table(late: Iterable[tuple[ReportedVenv, str]], now: float) -> DataTable:
    rows = [(_text(each.name), _text(why), _text(each.do), _ago(each.used, now)) for each, why in late]
    return DataTable(
        "stale",
        "Stale venvs, and what to do about them",
        (("Venv", "text"), ("Why", "wide"), ("What to do", "wide"), ("Last used", "number")),
        rows,
        "No venv is stale: all are what their lock files say, and were made or stored in the last 30 days.",
    )


_NAMED = 12
"""How many venvs a line of the table of versions names."""


def _version_table(uses: Iterable[VersionUse]) -> DataTable:
    rows = []
    for each in uses:
        names = ", ".join(map(plain, each.venvs[:_NAMED]))
        more = f" and {len(each.venvs) - _NAMED:,} more" if len(each.venvs) > _NAMED else ""
        odd = Cell("\u25c6 odd", 1) if each.odd else Cell("-", 0)
        rows.append((_text(each.name), _text(each.version), _count(len(each.venvs)), odd, Cell(names + more)))
    return DataTable(
        "versions",
        "Every version of every distribution, and where it is",
        (
            ("Distribution", "text"),
            ("Version", "text"),
            ("Venvs", "number"),
            ("Odd", "text"),
            ("Which", "wide"),
        ),
        rows,
        "No distribution is known of any venv.",
    )


def _snapshot_table(report: Report) -> DataTable:
    rows = [
        (
            Cell(each.id[:12]),
            _text(each.venv),
            _text(each.python),
            _ago(each.created, report.now),
            _ago(each.used, report.now),
            _size(each.size),
            _size(each.unique),
            Cell(each.kept.by),
            _text(each.kept.reasons or ", ".join(each.holders)),
        )
        for each in sorted(report.snapshots, key=lambda each: -each.created)
    ]
    return DataTable(
        "snapshots",
        "Snapshots, and what keeps each",
        (
            ("Snapshot", "code"),
            ("Made as", "text"),
            ("Python", "text"),
            ("Created", "number"),
            ("Last used", "number"),
            ("Bytes", "number"),
            ("Only its own", "number"),
            ("Kept as", "text"),
            ("Why", "wide"),
        ),
        rows,
        "There are no snapshots yet.",
    )


def _day_table(days: Iterable[Day]) -> DataTable:
    rows = [
        (
            Cell(each.day),
            *map(_count, (each.hits, each.misses, each.builds)),
            _time(each.spent),
            _time(each.spared),
        )
        for each in days
        if each != Day(each.day)
    ]
    return DataTable(
        "days",
        "What happened by day; days without a restore or a build are left out",
        (
            ("Day", "text"),
            ("Hits", "number"),
            ("Misses", "number"),
            ("Builds", "number"),
            ("Time spent", "number"),
            ("Time spared", "number"),
        ),
        rows[::-1],
        "Nothing was written down yet: each run of doit adds to it.",
    )
