"""Gathers what a report shows, by the functions that answer ``status``, ``stats``, ``list`` and ``trim``."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from venvflow.cli.context import Context
from venvflow.cli.listing import SnapshotRow, rows_of_project, snapshot_rows
from venvflow.cli.venv_states import Sharers, StatusRow, StoreView, sharers, status_rows
from venvflow.disk.interpreters import python_of
from venvflow.disk.places import read_receipt
from venvflow.errors import EnvironmentFailure
from venvflow.model import Config, Entry, Receipt, Tree, TrimPolicy
from venvflow.pure.report import (
    Day,
    KeptBy,
    Portion,
    ReportedSnapshot,
    ReportedVenv,
    directory_in,
    every_day,
    keepers,
)
from venvflow.state import history
from venvflow.state.index import IndexReader
from venvflow.state.reader import StoreReader
from venvflow.state.registry import Registration
from venvflow.state.usage import StoreContents
from venvflow.steps.stats import PackageCost, Sharing, packages, sharing
from venvflow.steps.trim import foreseen

DAYS = 30
"""How many days back the history is shown."""

NOTHING_SHARED = Sharing(0, 0)

_NO_POLICY = TrimPolicy(keep=None, keep_per_venv=0)


@dataclass(frozen=True, slots=True)
class Report:
    """All that a page shows: of the project at *root*, or of all that use the *store* (None).

    *now* is in seconds since 1970. *days* are the last ones, oldest first; empty where nothing was ever
    written down.
    """

    root: str | None
    store: str
    now: float
    venvs: tuple[ReportedVenv, ...] = ()
    sharing: Sharing = NOTHING_SHARED
    packages: tuple[PackageCost, ...] = ()
    snapshots: tuple[ReportedSnapshot, ...] = ()
    days: tuple[Day, ...] = ()


def gather(context: Context, store: StoreReader | None, *, everything: bool, now: float) -> Report:
    """Return what there is to show of the project, or of *everything*; *store* is None if there is none.

    Nothing is written. Raises EnvironmentFailure where it cannot be known which venvs use the store.
    """
    root = context.scope(everything=everything)
    view = StoreView(store)
    rows = status_rows(context.jobs, store, view)
    found = Report(root, os.path.realpath(context.store.path), now)
    if store is None or view.contents is None:
        return replace(found, venvs=tuple(_of_status(row, ()) for row in rows))
    contents = view.contents
    asked = [each for each in contents.registrations if root is None or each.is_of(root)]
    named = {row.job.place.path for row in rows}
    others = [each for each in asked if each.path not in named]
    receipts = {row.job.place.path: (row.judged.receipt, row.job.spec.min_size) for row in rows} | {
        each.path: (read_receipt(each.path), context.store.min_size) for each in others
    }
    portions = _portions(contents, {path: (r, size) for path, (r, size) in receipts.items() if r is not None})
    names = _names(others, root)
    trees = contents.trees_by_venv()
    return replace(
        found,
        venvs=(
            *(_of_status(row, portions.get(row.job.place.path, ())) for row in rows),
            *(_of_registration(each, names[each.path], portions.get(each.path, ())) for each in others),
        ),
        sharing=sharing(contents, [trees[each.path] for each in asked if each.path in trees]),
        packages=tuple(packages(contents, asked)),
        snapshots=tuple(_snapshots(store, context, contents, root, now)),
        days=tuple(_days(store.index, root, now)),
    )


# --------------------------------------------------------------------------- venvs


def _of_status(row: StatusRow, portions: tuple[Portion, ...]) -> ReportedVenv:
    judged, figures = row.judged, row.figures
    return ReportedVenv(
        row.job.spec.name,
        row.job.place.path,
        judged.state,
        judged.reason,
        judged.do,
        figures.python,
        figures.packages,
        figures.size,
        figures.own,
        figures.used,
        portions if figures.size is not None else (),
    )


def _of_registration(found: Registration, name: str, portions: tuple[Portion, ...]) -> ReportedVenv:
    """Return what is known of a venv that the config does not have: no lock file says its state."""
    if not os.path.lexists(f"{found.path}/pyvenv.cfg"):
        return ReportedVenv(name, found.path, "gone", "there is no venv at its path", used=found.seen)
    return ReportedVenv(
        name,
        found.path,
        "",
        python=python_of(found.path),
        packages=len({each.name for each in portions if each.version}),
        size=sum(each.size for each in portions),
        own=sum(each.own for each in portions),
        used=found.seen,
        portions=portions,
    )


def _names(found: Iterable[Registration], root: str | None) -> Mapping[str, str]:
    """Return what each venv is called, by its path: short where that tells it from the others."""
    short = {each.path: _short(each, root) for each in found}
    times = Counter(short.values())
    return {path: name if times[name] == 1 else path for path, name in short.items()}


def _short(found: Registration, root: str | None) -> str:
    if root is not None:
        return os.path.relpath(found.path, root)
    return f"{os.path.basename(found.project)}:{found.name}" if found.project else found.path


# --------------------------------------------------------------------------- what they are made of


def _portions(
    contents: StoreContents, receipts: Mapping[str, tuple[Receipt, int]]
) -> dict[str, tuple[Portion, ...]]:
    """Return what the venvs with these receipts are made of, by their paths."""
    own = _own(contents, sharers(receipts, contents))
    by_tree: dict[str, Mapping[str, int]] = {}
    found: dict[str, tuple[Portion, ...]] = {}
    for path, (receipt, _) in receipts.items():
        portions = []
        for tree in (contents.tree(digest) for digest in receipt.trees if receipt.state == "shared"):
            if tree is not None:
                if tree.digest not in by_tree:
                    by_tree[tree.digest] = _by_directory(contents.files_of(tree.digest) or ())
                sizes = by_tree[tree.digest]
                alone = sizes if path not in own else own[path].get(tree.digest, {})
                portions += [*_of_tree(tree, sizes, alone)]
        found[path] = tuple(portions)
    return found


def _of_tree(tree: Tree, sizes: Mapping[str, int], own: Mapping[str, int]) -> Iterator[Portion]:
    for directory, size in sizes.items():
        yield Portion(tree.name, tree.version, directory, size, own.get(directory, 0))


def _own(contents: StoreContents, shared: Sharers) -> dict[str, dict[str, Mapping[str, int]]]:
    """Return by venv, tree and directory the bytes that no other venv has."""
    found: dict[str, dict[str, Mapping[str, int]]] = defaultdict(dict)
    for venv, tree, files in contents.own_files_of_venvs(*shared):
        found[venv][tree] = _by_directory(files)
    return found


def _by_directory(files: Iterable[Entry]) -> Mapping[str, int]:
    sizes: dict[str, int] = defaultdict(int)
    for entry in files:
        sizes[directory_in(entry.path)] += entry.size
    return sizes


# --------------------------------------------------------------------------- snapshots and days


def _snapshots(
    store: StoreReader, context: Context, contents: StoreContents, root: str | None, now: float
) -> Iterator[ReportedSnapshot]:
    rows = snapshot_rows(store, context, contents)
    if root is not None:
        rows = rows_of_project(rows, context)
    kept: Mapping[str, KeptBy] = {}
    with suppress(EnvironmentFailure):  # a trim says what is wrong there
        config = context.flow.config if context.flow else Config("", "/", context.store, _NO_POLICY, {})
        kept = keepers(foreseen(config, store, now=now))
    for row in rows:
        yield _reported(row, kept.get(row.snapshot.id, KeptBy("held", "")), root)


def _reported(row: SnapshotRow, kept: KeptBy, root: str | None) -> ReportedSnapshot:
    holders = [each.venv.name if each.venv.project == root else str(each.venv) for each in row.holds]
    found = row.snapshot
    return ReportedSnapshot(
        found.id,
        found.venv,
        found.python,
        found.created,
        row.used,
        found.size,
        row.unique,
        tuple(holders),
        kept,
    )


def _days(index: IndexReader, root: str | None, now: float) -> list[Day]:
    """Return the last :data:`DAYS`; none where no step was ever written down."""
    found = history.days(index, root)
    if not found:
        return []
    today = datetime.fromtimestamp(now).astimezone().date()
    last = [(today - timedelta(days=back)).isoformat() for back in range(DAYS - 1, -1, -1)]
    return every_day({day: Day(day, *totals) for day, totals in found.items()}, last)
