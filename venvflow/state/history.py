"""The history: what ran, in the index, one row for each step that changed something, missed or failed.

Steps write it themselves, and nothing depends on it: what cannot be written now is written with the next
step, or never. Of a venv there is its name, its project, and the names and versions of packages: nothing of
the environment, no URL and no message.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from venvflow.errors import shown
from venvflow.pure import decoding
from venvflow.state.index import Index, IndexReader, path_cell, path_in, sound

MOST_ROWS = 50_000
"""How many steps are remembered."""

LONGEST = 400 * 86_400.0
"""Seconds for which a step is remembered: a year, and a month to look back at it."""

PATIENCE = 1.0
"""Seconds to wait for a locked index: no step takes longer than that because of its history."""

Change = tuple[str, str | None, str | None]
"""A package with its version before and after, None where it is not there."""


class Event(NamedTuple):
    """A step that ran, for the venv called *venv* of the project at path *project* (empty: for all of them).

    *at* is when it ended, in seconds since 1970, *step* the name of its task, *outcome* one word. *seconds*
    is how long it took, *bytes* what it dealt with. *spared* are the seconds by which a hit was faster than
    the build that made its snapshot, negative if it was slower. *packages* are those that changed in the
    venv. None: that is not known, or there is nothing to say. *host* is the machine, *snapshot* an id.
    """

    at: float
    project: str
    venv: str
    step: str
    outcome: str
    seconds: float
    bytes: int | None = None
    spared: float | None = None
    packages: tuple[Change, ...] | None = None
    host: str = ""
    snapshot: str | None = None


class Totals(NamedTuple):
    """Of many steps: how many restores were a *hit* or a *miss*, how many venvs were built.

    *spent* are the seconds that builds took, also those that failed, *spared* those that hits spared.
    """

    hits: int
    misses: int
    builds: int
    spent: float
    spared: float


NOTHING = Totals(0, 0, 0, 0.0, 0.0)


# --------------------------------------------------------------------------- writing


def note(index: Index, events: Iterable[Event]) -> None:
    """Write down *events*, oldest first, and forget the oldest beyond :data:`MOST_ROWS`.

    Raises LockTimeout and EnvironmentFailure where that cannot be done now.
    """
    with index.writing(patience=PATIENCE) as db:
        db.executemany(
            "INSERT INTO history(at, project, venv, step, outcome, seconds, bytes, spared, packages, host,"
            " snapshot) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_row(each) for each in events],
        )
        db.execute("DELETE FROM history WHERE id <= (SELECT max(id) FROM history) - ?", (MOST_ROWS,))


def _row(event: Event) -> tuple[Any, ...]:
    """Return *event* as the columns have it."""
    packages = None
    if event.packages is not None:
        packages = json.dumps([[shown(name), *map(_version, rest)] for name, *rest in event.packages])
    return (
        event.at, path_cell(event.project), shown(event.venv), event.step, event.outcome, event.seconds,
        None if event.bytes is None else min(event.bytes, decoding.LARGEST_COUNT), event.spared, packages,
        shown(event.host), event.snapshot,
    )  # fmt: skip


def _version(text: str | None) -> str | None:
    return None if text is None else shown(text)


def forget_old(index: Index, now: float) -> None:
    """Forget what is older than :data:`LONGEST`; raises as :func:`note` does."""
    if index.rows("SELECT 1 FROM history WHERE at < ? LIMIT 1", (now - LONGEST,)):
        with index.writing() as db:
            db.execute("DELETE FROM history WHERE at < ?", (now - LONGEST,))


# --------------------------------------------------------------------------- reading


def events(
    index: IndexReader,
    *,
    project: str | None = None,
    venvs: Collection[str] | None = None,
    since: float = -math.inf,
    limit: int = MOST_ROWS,
    without: Mapping[str, str] = MappingProxyType({}),
) -> list[Event]:
    """Return what ran, newest first: for one *project*, or all, for some *venvs* or all, *since* a time.

    What is about a whole project is left out where *venvs* are named, and so are steps with the outcome that
    *without* has for them. A row that makes no sense is skipped.
    """
    rows = index.rows(
        "SELECT at, project, venv, step, outcome, seconds, bytes, spared, packages, host, snapshot"
        " FROM history WHERE (:project IS NULL OR project = :project) AND at >= :since"
        " AND (:venvs IS NULL OR venv IN (SELECT value FROM json_each(:venvs)))"
        " AND NOT EXISTS (SELECT 1 FROM json_each(:without) WHERE key = step AND value = outcome)"
        " ORDER BY id DESC LIMIT :limit",
        {
            **_of(project),
            "since": since,
            "venvs": None if venvs is None else json.dumps([*map(shown, venvs)]),
            "without": json.dumps(dict(without)),
            "limit": limit,
        },
    )
    return [Event(*each) for each in sound(rows, _EVENT)]


def venvs_in(index: IndexReader, project: str | None = None) -> set[str]:
    """Return the names of the venvs that something is remembered of, in one *project* or in all."""
    rows = index.rows(
        "SELECT DISTINCT venv FROM history WHERE venv <> '' AND (:project IS NULL OR project = :project)",
        _of(project),
    )
    return {name for (name,) in sound(rows, (decoding.text,))}


def totals(index: IndexReader, project: str | None = None) -> Totals:
    """Return the sums over all that is remembered, of one *project* or of all."""
    rows = index.rows(
        "SELECT coalesce(sum(hits), 0), coalesce(sum(misses), 0), coalesce(sum(builds), 0),"
        " coalesce(sum(spent), 0.0), coalesce(sum(spared), 0.0) FROM history_days"
        " WHERE :project IS NULL OR project = :project",
        _of(project),
    )
    return next(iter(Totals(*each) for each in sound(rows, _TOTALS)), NOTHING)


def days(index: IndexReader, project: str | None = None) -> dict[str, Totals]:
    """Return the sums of each day (ISO 8601, by the local clock) that has any, of one *project* or of all."""
    rows = index.rows(
        "SELECT day, sum(hits), sum(misses), sum(builds), total(spent), total(spared) FROM history_days"
        " WHERE :project IS NULL OR project = :project GROUP BY day",
        _of(project),
    )
    return {day: Totals(*each) for day, *each in sound(rows, (decoding.text, *_TOTALS))}


def _of(project: str | None) -> dict[str, str | bytes | None]:
    return {"project": None if project is None else path_cell(project)}


def packages_of(index: IndexReader, snapshot: str, trees: Iterable[str] = ()) -> Mapping[str, str] | None:
    """Return names and versions of the packages in *trees*, or else in a *snapshot*; None: not known."""
    trees = list(trees)
    if trees:
        rows = [
            row
            for digest in trees
            for row in index.rows("SELECT name, version FROM trees WHERE digest = ?", (digest,))
        ]
    else:
        rows = index.rows(
            "SELECT trees.name, trees.version FROM snapshot_trees"
            " JOIN trees ON trees.id = snapshot_trees.tree WHERE snapshot = ?",
            (snapshot,),
        )
    if not rows or len(rows) < len(trees):
        return None
    return {name: version for name, version in sound(rows, (decoding.text, decoding.text)) if version}


def _packages(value: object) -> tuple[Change, ...]:
    try:
        rows = decoding.parse(decoding.text(value).encode())
    except ValueError as error:
        raise decoding.unlike(value, "a list of packages") from error
    version = decoding.optional(decoding.text)
    return tuple(decoding.listed(decoding.row(decoding.text, version, version))(rows))


def _seconds(value: object) -> float:
    """Return a number of seconds, which may be negative; no other decoder looks for infinity."""
    if type(value) not in (int, float) or not abs(value) <= decoding.MOMENTS[1]:  # type: ignore[arg-type]
        raise decoding.unlike(value, "a number of seconds")
    return float(value)  # type: ignore[arg-type]


_EVENT = (
    decoding.moment, path_in, *[decoding.text] * 3, decoding.duration, decoding.optional(decoding.count),
    decoding.optional(_seconds), decoding.optional(_packages), decoding.text,
    decoding.optional(decoding.digest),
)  # fmt: skip
_TOTALS = *[decoding.count] * 3, decoding.duration, _seconds
