"""The state of each venv as ``status`` shows it (up to date, not built, damaged, …); reads only."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

from venvflow import builders
from venvflow.disk import interpreters
from venvflow.disk.scan import walk
from venvflow.errors import EnvironmentFailure, VenvflowError, shown, some
from venvflow.model import Receipt
from venvflow.pure.comparison import Change, changes, role_of
from venvflow.pure.plan import VenvFacts
from venvflow.state.changes import Drift, summary
from venvflow.state.file_stats import StatChecker
from venvflow.state.reader import StoreReader
from venvflow.state.usage import StoreContents
from venvflow.steps.facts import FoundVenv, facts_of, find_venv
from venvflow.steps.hash_lockfiles import key_now
from venvflow.steps.job import Job
from venvflow.steps.lock_part import is_bare
from venvflow.steps.lockfile_check import contradictions
from venvflow.steps.state_files import read_key

State = Literal[
    "up to date",
    "not built",
    "lock changed",
    "python changed",
    "config changed",
    "lock missing",
    "lock unreadable",
    "python missing",
    "builder missing",
    "changed by hand",
    "damaged",
    "not ours",
    "in the way",
]
"""The states of a venv; see :func:`state_of`."""

_OBSTACLES = {
    "symlink": "there is a symlink at its path",
    "file": "there is a file at its path",
    "mount": "something is mounted there",
    "stranger": "the directory at its path is not a venv",
    "other-owner": "the directory at its path belongs to another user",
}


@dataclass(frozen=True, slots=True)
class VenvState:
    """A venv's state, why it is so and what to *do* about it where that helps, its receipt if it has one.

    *stored* says whether the store has a venv for the lock files as they are; None: not known.
    """

    state: State
    reason: str = ""
    do: str = ""
    receipt: Receipt | None = None
    stored: bool | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what the build said of what is in the venv, for as long as that venv is there."""
        return self.receipt.warnings if self.receipt is not None else ()


@dataclass(frozen=True, slots=True)
class VenvFigures:
    """The figures of one venv in ``status``.

    *python* is its full version, empty where there is no venv; *packages* counts distributions; *size* is in
    bytes, as the files appear, *own* what of that is in no other venv; *used* is when venvflow last made or
    stored it, in seconds since 1970.
    """

    python: str = ""
    packages: int | None = None
    size: int | None = None
    own: int | None = None
    used: float | None = None


class StoreView:
    """What states need of the store, each part read once for all venvs; *store* is None if there is none."""

    def __init__(self, store: StoreReader | None) -> None:
        self.store = store

    @cached_property
    def contents(self) -> StoreContents | None:
        """Return what is in the store."""
        return StoreContents(self.store) if self.store is not None else None

    @cached_property
    def checker(self) -> StatChecker:
        """Return what looks at files, at each object once for all venvs."""
        if self.store is None or self.contents is None:
            return StatChecker("", lambda _: None)
        return StatChecker(self.store.objects.root, self.contents.stats)


# --------------------------------------------------------------------------- states


def state_of(job: Job, view: StoreView) -> VenvState:
    """Return the state of the job's venv.

    ``up to date``: whole, and as its lock files say. ``not built``: there is none. ``lock changed``, ``python
    changed``, ``config changed``: it was made for something else. ``lock missing``, ``lock unreadable``,
    ``python missing``, ``builder missing``: it cannot be made, whether it is there or not. ``changed by
    hand``: something would be lost if it were replaced. ``damaged``: files are gone. ``not ours``: another
    tool made it. ``in the way``: what is there is not a venv.
    """
    try:
        venv = find_venv(job, view.store, "stat", checker=view.checker)
    except EnvironmentFailure as error:
        return VenvState("in the way", error.what, _advice(error))
    return _of_the_place(job, venv) or _of_its_files(job, view, venv)


def _of_the_place(job: Job, venv: FoundVenv) -> VenvState | None:
    """Return the state of what is not a venv of ours, or not in its place; None for others."""
    if venv.there in _OBSTACLES:
        return VenvState(
            "in the way", _OBSTACLES[venv.there], "move it away, or change the path in the config"
        )
    if venv.there == "venv":
        return _of_another_tool(job)
    receipt = venv.receipt
    if venv.there == "ours" and receipt is None:
        return VenvState("damaged", "its receipt is gone", "doit makes it anew")
    if receipt is not None and not receipt.is_at(job.place.path):
        moved = f"it was made for {shown(receipt.path)} and moved here"
        return VenvState("damaged", moved, "doit fixes it", receipt)
    return None


def _of_its_files(job: Job, view: StoreView, venv: FoundVenv) -> VenvState:
    """Return the state of a venv of ours, or of one that is not there, by its key and its files."""
    key, receipt = key_now(job), venv.receipt
    facts = facts_of(job, view.store, key, venv)
    stored = facts.snapshot is not None and facts.may_restore if facts.key else None
    problem = _no_key(job, facts) if not facts.key else None
    if receipt is None:
        return problem or _absent(facts, stored=bool(stored))
    if venv.drift.by_hand:
        return _by_hand(job, venv.drift, receipt, facts, stored=stored, problem=problem)
    if problem is not None:
        return replace(problem, receipt=receipt)
    if not facts.is_for_key:
        return _outdated(job, view, receipt, key.now.key.parts if key.now else {}, stored=bool(stored))
    return _of_its_key(venv.drift, receipt, facts, stored=bool(stored))


def _absent(facts: VenvFacts, *, stored: bool) -> VenvState:
    reason = "it is in the store" if stored else "it is not in the store"
    if facts.unsettled:
        reason = "a run is at work, or was killed: the next one cleans up"
    return VenvState("not built", reason, _bring(stored=stored), stored=stored)


def _bring(*, stored: bool) -> str:
    return "doit brings it" if stored else "doit builds it"


def _of_another_tool(job: Job) -> VenvState:
    name = shown(job.spec.name)
    reason = "made by another tool"
    if is_bare(job.place.path):
        return VenvState("not ours", f"{reason}, with nothing in it", "doit puts a new one in its place")
    with suppress(VenvflowError):
        unlike = contradictions(job)
        if unlike:
            reason += f", and not what its lock says: {some(unlike, 3, '; ')}"
    takes = "doit takes it if it is what its lock says; else it makes a new one and keeps this one beside it"
    return VenvState("not ours", reason, f'{takes}. "venvflow store {name}" shares it as it is')


def _of_its_key(drift: Drift, receipt: Receipt, facts: VenvFacts, *, stored: bool) -> VenvState:
    if facts.damage:
        return VenvState("damaged", facts.damage, "doit fixes it", receipt, stored)
    if drift.relabelled:
        reason = f"mode or owner changed: {summary(drift.relabelled)}"
        return VenvState("up to date", reason, "doit changes it back", receipt, stored)
    if receipt.state == "shared":
        reason = "its files are symlinks: it needs the store" if receipt.link == "symlink" else ""
        return VenvState("up to date", reason, receipt=receipt, stored=stored)
    return VenvState("up to date", "not shared yet", "doit shares it", receipt, stored)


def _by_hand(
    job: Job,
    drift: Drift,
    receipt: Receipt,
    facts: VenvFacts,
    *,
    stored: bool | None,
    problem: VenvState | None,
) -> VenvState:
    reason = facts.by_hand or str(drift)
    if problem is not None:
        reason += f"; besides, {problem.reason}"
    elif not facts.is_for_key:
        reason += "; besides, it was made for other lock files, settings or another Python"
    do = _drop(job, drift)
    if facts.may_be_taken:
        do = f"doit takes it if it is what its lock says. Else {do}"
    return VenvState("changed by hand", reason, do, receipt, stored)


def _drop(job: Job, drift: Drift) -> str:
    """Return what to do about a change by hand."""
    if drift.shared:
        return '"venvflow verify --heal" fixes it, in all venvs that share the file'
    return f"{job.ways_out[0].lower()}{job.ways_out[1:]}"


# --------------------------------------------------------------------------- what it should be


def _no_key(job: Job, facts: VenvFacts) -> VenvState:
    """Return the state of a venv that cannot have a key, and why."""
    missing = _missing_input(job)
    if missing:
        return VenvState("lock missing", missing, "put it back, or change the config")
    try:
        builders.choose(job.spec, job.environ)
    except VenvflowError as error:
        return VenvState("builder missing", error.what, _advice(error))
    try:
        interpreters.resolve(job.spec.python, root=job.root, environ=job.environ)
    except VenvflowError as error:
        return VenvState("python missing", error.what, _advice(error))
    problem = facts.key_problem or VenvflowError("its key cannot be computed")
    return VenvState("lock unreadable", problem.what, _advice(problem))


def _advice(error: VenvflowError) -> str:
    """Return what an error says to do, as a part of a sentence."""
    return error.hint[:1].lower() + error.hint[1:].rstrip(".")


def _missing_input(job: Job) -> str:
    """Return which file that the config lists is not there, in words, or an empty string."""
    for path in (*job.spec.locks, *job.spec.key_files):
        if not os.path.exists(path):
            return f"{shown(path)} is gone"
    return "; ".join(job.config.missing_files.get(job.spec.name, ()))


_FILE_ROLES = {"lock", "include", "project", "file", "local"}
_PYTHON_PARTS = {"python", "abi", "platform"}


def _outdated(
    job: Job, view: StoreView, receipt: Receipt, parts_now: Mapping[str, str], *, stored: bool
) -> VenvState:
    """Return the state of a venv that was made for another key: what changed since, as far as it is known."""
    do = _bring(stored=stored)
    before = _parts_of(job, view, receipt)
    if before is None:
        reason = "its lock files, settings or Python changed since it was made"
        return VenvState("lock changed", reason, do, receipt, stored)
    parts = changes(before, parts_now)
    roles = {role_of(part.name) for part in parts}
    state: State = "python changed" if roles & _PYTHON_PARTS else "config changed"
    if roles & _FILE_ROLES:
        state = "lock changed"
    return VenvState(state, _what_changed(parts), do, receipt, stored)


def _parts_of(job: Job, view: StoreView, receipt: Receipt) -> Mapping[str, str] | None:
    """Return the parts of the key that the venv was made for, if somebody remembers them."""
    record = read_key(job)
    if record is not None and record.key.digest == receipt.key:
        return record.key.parts
    snapshot = view.store.find(receipt.key, job.position) if view.store is not None else None
    return snapshot.key.parts if snapshot is not None else None


def _what_changed(parts: Iterable[Change[str]]) -> str:
    """Return in words which *parts* of the key changed since the venv was made."""
    files, words = [], []
    for part in parts:
        role, name = role_of(part.name), shown(part.name.partition(":")[2])
        if role in _FILE_ROLES:
            files.append(name)
        elif role == "env":
            words.append(f"the variable {name}")
        elif role in _PYTHON_PARTS:
            words.append(f"{role} ({part.old or 'none'}, now {part.new or 'none'})")
        else:
            words.append(f"{role} in the config" if role in ("exclude", "bytecode") else role)
    return f"changed since it was made: {', '.join([*dict.fromkeys(files), *words])}"


# --------------------------------------------------------------------------- facts


class StatusRow(NamedTuple):
    """One row of ``status``: a venv, its state and its figures."""

    job: Job
    judged: VenvState
    figures: VenvFigures


def as_in_remote(row: StatusRow) -> StatusRow:
    """Return the row of a venv that the remote has: nothing is built for it."""
    if row.judged.do != _bring(stored=False):
        return row
    return row._replace(judged=replace(row.judged, do=_bring(stored=True)))


def status_rows(
    jobs: Iterable[Job], store: StoreReader | None, view: StoreView | None = None
) -> list[StatusRow]:
    """Return state and facts of all venvs, in the order of *jobs*; a *view* is one of that store."""
    view = view or StoreView(store)
    judged = [(job, state_of(job, view)) for job in jobs]
    own = _own_bytes(judged, view)
    return [StatusRow(job, state, _figures_of(job, store, state.receipt, own)) for job, state in judged]


class Sharers(NamedTuple):
    """The venvs that share, by path: the trees of all, min_size and copies of those that are asked for.

    It is what :meth:`~venvflow.state.usage.StoreContents.own_files_of_venvs` takes.
    """

    trees: Mapping[str, Iterable[str]]
    min_sizes: Mapping[str, int]
    copies: Mapping[str, Collection[str]]


def sharers(receipts: Mapping[str, tuple[Receipt, int]], contents: StoreContents) -> Sharers:
    """Return those of the venvs with these *receipts* and min_sizes that share, among all of the store."""
    shared = {
        path: (receipt, min_size)
        for path, (receipt, min_size) in receipts.items()
        if receipt.state == "shared" and receipt.link != "copy"
    }
    trees = contents.trees_by_venv() | {path: receipt.trees for path, (receipt, _) in shared.items()}
    sizes = {path: size for path, (_, size) in shared.items()}
    return Sharers(trees, sizes, {path: frozenset(receipt.copies) for path, (receipt, _) in shared.items()})


def _own_bytes(judged: Iterable[tuple[Job, VenvState]], view: StoreView) -> dict[str, int]:
    """Return what the shared venvs have for themselves, by path, compared with all venvs of the store."""
    if view.store is None or view.contents is None:
        return {}
    receipts = {
        job.place.path: (receipt, job.spec.min_size)
        for job, state in judged
        if (receipt := state.receipt) is not None
    }
    return view.contents.own_bytes_of_venvs(*sharers(receipts, view.contents)) if receipts else {}


def _figures_of(
    job: Job, store: StoreReader | None, receipt: Receipt | None, own: Mapping[str, int]
) -> VenvFigures:
    venv = job.place.path
    if os.path.islink(venv) or not os.path.lexists(f"{venv}/pyvenv.cfg"):
        return VenvFigures()
    registration = store.registration(venv) if store is not None else None
    size = _size(job, store, receipt)
    used = registration.seen if registration is not None else None
    return VenvFigures(interpreters.python_of(venv), _packages(venv), size, own.get(venv, size), used)


def _packages(venv: str) -> int:
    """Return how many distributions the venv has, without reading any."""
    names = glob.iglob(f"{glob.escape(venv)}/lib/python*/site-packages/*")
    return sum(name.endswith((".dist-info", ".egg-info")) for name in names)


def _size(job: Job, store: StoreReader | None, receipt: Receipt | None) -> int | None:
    """Return the bytes of the venv's files: from its snapshot if that has them, else by a walk."""
    if store is not None and receipt is not None:
        snapshot = store.find(receipt.key, job.position)
        if snapshot is not None and snapshot.trees == receipt.trees:
            return snapshot.size
    with suppress(EnvironmentFailure):
        return sum(item.stamp.size for item in walk(job.place.path) if item.kind == "file")
    return None
