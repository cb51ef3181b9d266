"""Decides what a report shows of many venvs: what is put together, what is odd, stale, or keeps a snapshot.

Every figure comes in with the facts and goes out unchanged, or as a sum of them: what is too small to be seen
is put together, never left out. Names are those of others; nothing here makes markup of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

from venvflow.pure.retention import TrimPlan
from venvflow.pure.units import counted

STALE_SECONDS = 30 * 86_400
"""For how long nobody made or stored a venv that is called stale: a month, as one that is gone holds."""

MOST_VENVS = 40
MOST_DISTRIBUTIONS = 12
MOST_DIRECTORIES = 5
"""How many of each a picture shows one by one; the smaller ones are one part together."""

MOST_ROWS = 40
MOST_COLUMNS = 24
"""How many distributions and kinds of venvs a matrix shows."""


def directory_in(path: str) -> str:
    """Return the directory of a file in a venv, from ``site-packages`` on and no deeper than two names."""
    *parts, _ = path.split("/")
    if "site-packages" in parts:
        parts = parts[parts.index("site-packages") + 1 :]
    return "/".join(parts[:2]) or "."


class Portion(NamedTuple):
    """The files of a distribution in one *directory* of a venv: their bytes, and those no other venv has.

    *version* is empty for what belongs to no distribution; *name* is then where it lies.
    """

    name: str
    version: str
    directory: str
    size: int
    own: int


@dataclass(frozen=True, slots=True)
class ReportedVenv:
    """A venv with the figures that ``status`` has of it, and what it is made of.

    *name* is that in the config, or its path. *state* is a word of ``status`` (empty: not known), *reason*
    says why and *do* what to do about it. *size* and *own* are bytes as files appear, *used* is in seconds
    since 1970.
    """

    name: str
    path: str
    state: str
    reason: str = ""
    do: str = ""
    python: str = ""
    packages: int | None = None
    size: int | None = None
    own: int | None = None
    used: float | None = None
    portions: tuple[Portion, ...] = ()

    @property
    def shared(self) -> int | None:
        """Return the bytes that another venv has too."""
        return None if self.size is None or self.own is None else self.size - self.own


# --------------------------------------------------------------------------- stale venvs


def stale(venv: ReportedVenv, now: float) -> str:
    """Return why a venv is not what somebody should rely on, empty if it is up to date and in use."""
    if venv.state not in ("up to date", ""):
        return f"{venv.state}: {venv.reason}" if venv.reason else venv.state
    if venv.used is not None and now - venv.used >= STALE_SECONDS:
        return f"not made or stored for {counted(int((now - venv.used) // 86_400), 'day')}"
    return ""


# --------------------------------------------------------------------------- where the bytes are


class Area(NamedTuple):
    """A rectangle of the treemap: *path* are the labels from the venv down, *size* and *own* its bytes.

    *folded* is how many parts it stands for, where they are too small to be seen one by one; else 0.
    """

    path: tuple[str, ...]
    size: int
    own: int
    folded: int = 0

    @property
    def is_own(self) -> bool:
        """Return whether most of it is in no other venv."""
        return self.own * 2 > self.size


def treemap(venvs: Iterable[ReportedVenv]) -> list[Area]:
    """Return the rectangles of all venvs, their distributions and the directories of these, largest first.

    Each stands before its parts, which add up to it.
    """
    tops = [
        Area((venv.name,), max(venv.size or 0, sum(each.size for each in venv.portions)), venv.own or 0)
        for venv in venvs
    ]
    portions = {venv.name: venv.portions for venv in venvs}
    found: list[Area] = []
    for top in _folded([each for each in tops if each.size], MOST_VENVS, (), "venvs"):
        found.append(top)
        if not top.folded:
            found += _parts(top, portions[top.path[0]])
    return found


def _parts(top: Area, portions: Sequence[Portion]) -> Iterable[Area]:
    """Yield the distributions of a venv, and the directories of each."""
    below: dict[str, list[Portion]] = {}
    for portion in portions:
        below.setdefault(f"{portion.name} {portion.version}".rstrip(), []).append(portion)
    areas = [_sum((*top.path, label), found) for label, found in below.items()]
    rest = top.size - sum(each.size for each in areas)
    if rest > 0:
        own = min(max(top.own - sum(each.own for each in areas), 0), rest)
        areas.append(Area((*top.path, NOT_RECORDED), rest, own))
    for area in _folded(areas, MOST_DISTRIBUTIONS, top.path, "distributions"):
        yield area
        if not area.folded and area.path[-1] in below:
            directories = [
                Area((*area.path, each.directory), each.size, each.own) for each in below[area.path[-1]]
            ]
            yield from _folded(directories, MOST_DIRECTORIES, area.path, "directories")


NOT_RECORDED = "not in the store"
"""The part of a venv that is in no tree of the store: it was not shared yet, or came later."""


def _sum(path: tuple[str, ...], portions: Sequence[Portion]) -> Area:
    return Area(path, sum(each.size for each in portions), sum(each.own for each in portions))


def _folded(areas: Iterable[Area], most: int, path: tuple[str, ...], what: str) -> list[Area]:
    """Return the largest areas, and one for all others."""
    areas = sorted((each for each in areas if each.size), key=lambda each: (-each.size, each.path))
    if len(areas) <= most:
        return areas
    rest = areas[most - 1 :]
    label = f"{len(rest):,} smaller {what}"
    size, own = sum(each.size for each in rest), sum(each.own for each in rest)
    return [*areas[: most - 1], Area((*path, label), size, own, len(rest))]


# --------------------------------------------------------------------------- which versions are where


class VersionUse(NamedTuple):
    """A version of a distribution, and the *venvs* that have it; *odd*: more of them have another one."""

    name: str
    version: str
    venvs: tuple[str, ...]
    odd: bool


def versions(venvs: Iterable[ReportedVenv]) -> list[VersionUse]:
    """Return all versions of all distributions, by name, the one that most venvs have first."""
    uses: dict[str, dict[str, list[str]]] = {}
    for venv in venvs:
        for name, version in sorted({(each.name, each.version) for each in venv.portions if each.version}):
            uses.setdefault(name, {}).setdefault(version, []).append(venv.name)
    found = []
    for name, by_version in sorted(uses.items()):
        most = max(map(len, by_version.values()))
        for version, names in sorted(by_version.items(), key=lambda each: (-len(each[1]), each[0])):
            found.append(VersionUse(name, version, tuple(names), len(names) < most))
    return found


class Matrix(NamedTuple):
    """Distributions of which there are several versions, against venvs.

    A column stands for all *columns* of venvs that have the same versions of all of these. *rows* have the
    name, and for each column its versions as one text and whether they are odd; empty: it has none.
    *left_out* counts distributions and venvs that are not shown: the table of versions has them.
    """

    columns: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]
    left_out: tuple[int, int]


def matrix(uses: Iterable[VersionUse], venvs: Iterable[str]) -> Matrix:
    """Return the matrix of the distributions that differ, those with most odd venvs first."""
    by_name = {name: [*found] for name, found in groupby(uses, key=lambda each: each.name)}
    differing = {name: found for name, found in by_name.items() if len(found) > 1}

    def oddness(name: str) -> tuple[int, int, str]:
        odd = sum(len(each.venvs) for each in differing[name] if each.odd)
        return -odd, -len(differing[name]), name

    names = sorted(differing, key=oddness)[:MOST_ROWS]
    cells: dict[str, dict[str, list[VersionUse]]] = {}
    for name in names:
        for use in differing[name]:
            for venv in use.venvs:
                cells.setdefault(venv, {}).setdefault(name, []).append(use)
    alike: dict[tuple[tuple[str, bool], ...], list[str]] = {}
    for venv in venvs:
        has = cells.get(venv)
        if has:
            alike.setdefault(tuple(_cell(has.get(name, ())) for name in names), []).append(venv)
    ranked = sorted(
        alike, key=lambda column: (sum(odd for _, odd in column), -len(alike[column]), alike[column])
    )
    kept = [*ranked[:1], *ranked[1:][-(MOST_COLUMNS - 1) :]]
    rows = tuple((name, tuple(column[number] for column in kept)) for number, name in enumerate(names))
    left_out = len(differing) - len(names), sum(len(alike[each]) for each in ranked if each not in kept)
    return Matrix(tuple(tuple(alike[each]) for each in kept), rows, left_out)


def _cell(uses: Sequence[VersionUse]) -> tuple[str, bool]:
    return ", ".join(each.version for each in uses), any(each.odd for each in uses)


# --------------------------------------------------------------------------- what keeps a snapshot

Keeper = Literal["pinned", "current", "newest", "held", "limits", "nothing"]
"""What keeps a snapshot: that it is pinned, current, used last or held, that no limit ends it; or nothing."""

_KEEPERS: tuple[tuple[str, Keeper], ...] = (
    ("pinned", "pinned"),
    ("current for", "current"),
    ("among the", "newest"),
    ("held by", "held"),
    ("within the limits", "limits"),
)


class KeptBy(NamedTuple):
    """What keeps a snapshot, in one word, and the reasons of the policy; of ``nothing`` why it goes."""

    by: Keeper
    reasons: str


def keepers(plan: TrimPlan) -> dict[str, KeptBy]:
    """Return what keeps each snapshot, by its id: the strongest of its reasons."""
    found = {each.id: KeptBy("nothing", each.reason) for each in plan.drop}
    for kept in plan.keep:
        words = (word for start, word in _KEEPERS if any(each.startswith(start) for each in kept.reasons))
        found[kept.id] = KeptBy(next(words, "held"), "; ".join(kept.reasons))
    return found


# --------------------------------------------------------------------------- what happened by day


class Day(NamedTuple):
    """What happened on a *day* (ISO 8601): hits, misses and builds, and the seconds *spent* and *spared*."""

    day: str
    hits: int = 0
    misses: int = 0
    builds: int = 0
    spent: float = 0.0
    spared: float = 0.0


def every_day(found: Mapping[str, Day], days: Iterable[str]) -> list[Day]:
    """Return one record for each of *days*, with zeros where nothing happened."""
    return [found.get(day, Day(day)) for day in days]


# --------------------------------------------------------------------------- snapshots


class ReportedSnapshot(NamedTuple):
    """A snapshot as ``list`` has it, with what keeps it; times in seconds since 1970, sizes in bytes.

    *venv* is what it was made as, *holders* are who holds it; *unique* is what only it needs.
    """

    id: str
    venv: str
    python: str
    created: float
    used: float | None
    size: int
    unique: int
    holders: tuple[str, ...]
    kept: KeptBy
