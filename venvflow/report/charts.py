"""Figures for plotly.js, as plain values: what is drawn of a report, and in which colour by its name.

A colour is the name of a variable of the style sheet; the page's script fills it in, for a light scheme, a
dark one, or paper. What plotly would take for markup in a name is escaped (:func:`label`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from venvflow.errors import shown
from venvflow.pure.report import Area, Day, Keeper, ReportedSnapshot, ReportedVenv
from venvflow.pure.units import counted, show_duration, show_size

Figure = dict[str, Any]
"""``data`` and ``layout`` of plotly.js."""

MOST_BARS = 30
"""How many venvs a chart has lines for; the table has all."""

_LONGEST = 44

_HATCH = {"shape": "/", "size": 7, "solidity": 0.22, "fillmode": "overlay", "fgcolor": "own-ink"}
"""What is drawn over what is a venv's own: colour alone tells nobody anything."""


class _KeeperLook(NamedTuple):
    by: Keeper
    title: str
    symbol: str
    colour: str


_KEEPERS = (
    _KeeperLook("pinned", "pinned", "star", "ink"),
    _KeeperLook("current", "current", "circle", "shared-ink"),
    _KeeperLook("newest", "among the newest", "circle-open", "shared-ink"),
    _KeeperLook("held", "held by others", "diamond-open", "shared-ink"),
    _KeeperLook("limits", "within the limits", "square-open", "muted"),
    _KeeperLook("nothing", "nothing: the next trim takes it", "x-thin", "own-ink"),
)


def label(text: str) -> str:
    """Return *text* as plotly.js shows it: no markup, short enough for a chart."""
    line = shown(text)
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]}…{line[-_LONGEST // 2 + 1 :]}"
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def labels(names: Iterable[str]) -> dict[str, str]:
    """Return the label of each name; names that are the same when they are short get numbers."""
    found: dict[str, str] = {}
    taken: dict[str, int] = {}
    for name in names:
        if name not in found:
            short = label(name)
            taken[short] = taken.get(short, 0) + 1
            found[name] = short if taken[short] == 1 else f"{short} ({taken[short]})"
    return found


def treemap(areas: Sequence[Area], title: str) -> Figure:
    """Return the treemap of bytes: venv, distribution, directory."""
    numbers = {area.path: f"{number}" for number, area in enumerate(areas)}
    tops = [area for area in areas if len(area.path) == 1]
    size, own = sum(each.size for each in tops), sum(each.own for each in tops)
    every = [Area((title,), size, own), *areas]
    told = ["", *("own" if each.is_own else "shared" for each in areas)]
    return {
        "data": [
            {
                "type": "treemap",
                "ids": ["all", *numbers.values()],
                "labels": [label(each.path[-1]) for each in every],
                "parents": ["", *(numbers.get(each.path[:-1], "all") for each in areas)],
                "values": [each.size for each in every],
                "text": [_bytes_told(each, which) for each, which in zip(every, told, strict=True)],
                "customdata": [
                    f"{show_size(each.size)}: {show_size(each.own)} its own, "
                    f"{show_size(each.size - each.own)} shared"
                    for each in every
                ],
                "branchvalues": "total",
                "maxdepth": 3,
                "sort": True,
                "texttemplate": "%{label}<br>%{text}",
                "hovertemplate": "<b>%{label}</b><br>%{customdata}<extra></extra>",
                "textposition": "top left",
                "textfont": {"size": 12},
                "tiling": {"packing": "squarify", "pad": 2},
                "pathbar": {"thickness": 26, "textfont": {"color": "ink"}, "edgeshape": ">"},
                "marker": {
                    "colors": [_fill(each, which) for each, which in zip(every, told, strict=True)],
                    "pattern": {
                        "shape": [
                            "/" if which == "own" and len(each.path) > 1 else ""
                            for each, which in zip(every, told, strict=True)
                        ],
                        **{name: value for name, value in _HATCH.items() if name != "shape"},
                    },
                    "line": {"width": 1, "color": "page"},
                    "pad": {"t": 24, "l": 4, "r": 4, "b": 4},
                    "cornerradius": 3,
                },
                "root": {"color": "surface"},
            }
        ],
        "layout": _layout(
            margin={"l": 0, "r": 0, "t": 28, "b": 0}, uniformtext={"minsize": 10, "mode": "hide"}
        ),
    }


def _bytes_told(area: Area, which: str) -> str:
    return f"{show_size(area.size)}, own" if which == "own" and len(area.path) > 1 else show_size(area.size)


def _fill(area: Area, which: str) -> str:
    if len(area.path) == 1:
        return "surface"
    return "own" if which == "own" else "shared"


def shares(venvs: Iterable[ReportedVenv]) -> Figure:
    """Return a bar for each of the largest venvs: what it shares, and what is its own."""
    found = sorted((each for each in venvs if each.size), key=lambda each: (-(each.size or 0), each.name))
    found = found[:MOST_BARS][::-1]
    names = [*labels(each.name for each in found).values()]

    def bars(title: str, values: Sequence[int | None], colour: str, **pattern: Any) -> Figure:
        return {
            "type": "bar",
            "orientation": "h",
            "name": title,
            "y": names,
            "x": [value or 0 for value in values],
            "text": [show_size(value or 0) for value in values],
            "textposition": "none",
            "hovertemplate": f"<b>%{{y}}</b><br>%{{text}} {title}<extra></extra>",
            "marker": {"color": colour, "line": {"width": 1, "color": f"{colour}-ink"}, **pattern},
        }

    top = max((each.size or 0 for each in found), default=0)
    return {
        "data": [
            bars("shared", [each.shared for each in found], "shared"),
            bars("own", [each.own for each in found], "own", pattern=_HATCH),
        ],
        "layout": _layout(
            barmode="stack",
            bargap=0.35,
            height=90 + 24 * len(found),
            xaxis=_axis(**_size_ticks(top)),
            yaxis=_names_axis(),
        ),
    }


def _size_ticks(top: int) -> dict[str, Any]:
    """Return a few ticks of an axis of bytes, which plotly would count in thousands."""
    step = 1
    while step * 4 < top:
        step *= 2
    values = [*range(0, top + step, step)] if top else [0]
    told = [show_size(each) for each in values]
    return {"tickvals": values, "ticktext": told, "tickangle": 0, "range": [0, top * 1.02 or 1]}


def snapshots(found: Iterable[ReportedSnapshot]) -> Figure:
    """Return the snapshots by the time they were made, a line for each venv, a mark for what keeps each."""
    by_venv: dict[str, list[ReportedSnapshot]] = {}
    for each in found:
        by_venv.setdefault(each.venv, []).append(each)
    lanes = sorted(by_venv, key=lambda venv: max(each.created for each in by_venv[venv]), reverse=True)
    lanes = lanes[:MOST_BARS]
    called = labels(lanes)
    data = [_lines([each for venv in lanes for each in by_venv[venv]], called)] if lanes else []
    for look in _KEEPERS:
        here = [each for venv in lanes for each in by_venv[venv] if each.kept.by == look.by]
        if here:
            data.append(_marks(look, here, called))
    return {
        "data": data,
        "layout": _layout(
            height=110 + 26 * len(lanes),
            xaxis={**_axis(), "type": "date"},
            yaxis={**_names_axis(), "categoryorder": "array", "categoryarray": [*called.values()][::-1]},
        ),
    }


def _lines(found: Sequence[ReportedSnapshot], called: Mapping[str, str]) -> Figure:
    """Return a line for each snapshot, from when it was made to when it was last used."""
    ends = [(each.created, max(each.used or 0, each.created)) for each in found]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [each for first, last in ends for each in (_moment(first), _moment(last), None)],
        "y": [each for one in found for each in (called[one.venv], called[one.venv], None)],
        "line": {"width": 2, "color": "line-strong"},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _marks(look: _KeeperLook, found: Sequence[ReportedSnapshot], called: Mapping[str, str]) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": look.title,
        "x": [_moment(each.created) for each in found],
        "y": [called[each.venv] for each in found],
        "text": [f"{each.id[:12]}, {show_size(each.size)}<br>{label(each.kept.reasons)}" for each in found],
        "hovertemplate": f"<b>%{{y}}</b><br>%{{x}}<br>%{{text}}<extra>{look.title}</extra>",
        "marker": {
            "symbol": look.symbol,
            "size": 10,
            "color": look.colour,
            "line": {"width": 2, "color": look.colour},
        },
    }


def days(found: Sequence[Day]) -> Figure:
    """Return what happened by day: above how often, below how much time it took and spared."""
    dates = [each.day for each in found]

    def bars(title: str, values: Sequence[float], told: Sequence[str], colour: str, **more: Any) -> Figure:
        pattern = {"pattern": more.pop("pattern")} if "pattern" in more else {}
        return {
            "type": "bar",
            "name": title,
            "x": dates,
            "y": values,
            "text": told,
            "textposition": "none",
            "hovertemplate": f"<b>%{{x}}</b><br>%{{text}} {title}<extra></extra>",
            "marker": {"color": colour, "line": {"width": 1, "color": _EDGES[colour]}, **pattern},
            **more,
        }

    counts = [(each.hits, each.misses, each.builds) for each in found]
    hits, misses, builds = zip(*counts, strict=True) if counts else ((), (), ())
    spent, spared = [each.spent for each in found], [each.spared for each in found]
    below = {"xaxis": "x", "yaxis": "y2"}
    times = _duration_ticks(min([0, *(-each for each in spent)]), max([0, *spared]))
    return {
        "data": [
            bars("hits", hits, [f"{each:,}" for each in hits], "shared"),
            bars("misses", misses, [f"{each:,}" for each in misses], "surface", pattern=_MISSES),
            bars("builds", builds, [f"{each:,}" for each in builds], "own", pattern=_HATCH),
            bars("spared", spared, [*map(show_duration, spared)], "shared", showlegend=False, **below),
            bars(
                "spent",
                [-each for each in spent],
                [*map(show_duration, spent)],
                "own",
                pattern=_HATCH,
                showlegend=False,
                **below,
            ),
        ],
        "layout": _layout(
            height=430,
            barmode="relative",
            bargap=0.25,
            xaxis={**_axis(), "type": "date", "anchor": "y2", "showgrid": False},
            yaxis={**_axis(), "domain": [0.58, 1], "title": _title("number")},
            yaxis2={**_axis(), "domain": [0, 0.46], "title": _title("time"), **times},
        ),
    }


_EDGES = {"shared": "shared-ink", "own": "own-ink", "surface": "muted"}

_MISSES = {**_HATCH, "shape": ".", "fgcolor": "muted"}


def _duration_ticks(least: float, most: float) -> dict[str, Any]:
    """Return some ticks of an axis of seconds, below zero those that were spent."""
    steps = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 43_200, 86_400)
    length = max(most - least, 1)
    step = next((each for each in steps if length / each <= 6), 86_400 * max(1, int(length / 86_400 / 6)))
    numbers = range(int(least // step), int(-(-most // step)) + 1)
    values = [number * step for number in numbers]
    return {"tickvals": values, "ticktext": [show_duration(abs(each)) if each else "0" for each in values]}


def matrix_note(left_out: tuple[int, int]) -> str:
    """Return what a matrix does not show, empty if it shows all."""
    distributions, venvs = left_out
    parts = [counted(distributions, "distribution")] if distributions else []
    parts += [counted(venvs, "venv")] if venvs else []
    return f"{' and '.join(parts)} more in the table below." if parts else ""


# --------------------------------------------------------------------------- what all have


def _layout(**more: Any) -> dict[str, Any]:
    return {
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "ink"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 44, "b": 36},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "traceorder": "normal",
        },
        "hoverlabel": {"bgcolor": "page", "bordercolor": "line-strong", "font": {"color": "ink"}},
        "dragmode": False,
        **more,
    }


def _axis(**more: Any) -> dict[str, Any]:
    return {
        "gridcolor": "line",
        "zerolinecolor": "line-strong",
        "linecolor": "line-strong",
        "tickfont": {"color": "muted", "size": 12},
        "automargin": True,
        "fixedrange": True,
        **more,
    }


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"color": "muted", "size": 12}}


def _names_axis() -> dict[str, Any]:
    return {**_axis(), "type": "category", "showgrid": False, "tickfont": {"color": "ink", "size": 13}}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
