"""The base of a build: the nearest snapshot, which it starts from, so that only what changed is installed.

What changed may be in other snapshots: a package that is bumped in twenty venvs is installed once. The base
is chosen from what the store's snapshots say of their locks, laid into the empty venv that the builder fills,
and judged when that is done (:mod:`venvflow.pure.base`). The builder finds hard links to objects there:
installers make new files and rename them, and write into none. What one changes all the same is seen when
the venv is surveyed, and is an object no more: it is not as it was made.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from venvflow.builders import choose
from venvflow.builders.build import Begun
from venvflow.builders.commands import version_of
from venvflow.disk.descriptors import directory
from venvflow.disk.files import read_small, temporary_name
from venvflow.disk.links import Linker
from venvflow.disk.objects import object_name
from venvflow.errors import VenvflowError
from venvflow.model import Entry, Manifest, Snapshot, Tree
from venvflow.pure.base import (
    Division,
    Loan,
    Made,
    Near,
    divide,
    loan_of,
    may_be_base,
    ranked,
    same_entries,
    why_unsure,
)
from venvflow.pure.comparison import SEEDS, role_of
from venvflow.pure.entries import BESIDE, entries_of
from venvflow.pure.manifest import Corrupt, name_and_version
from venvflow.pure.names import normalised
from venvflow.pure.relocate import Places, is_record, listed_in, record_paths
from venvflow.pure.sharing import stays_private
from venvflow.state.carried import Carried, carry
from venvflow.state.materialise import Damaged, Materialised, Materialiser
from venvflow.state.reader import StoreReader
from venvflow.state.recorded import records_of, was_told
from venvflow.state.store import Store
from venvflow.state.survey import Survey
from venvflow.steps.job import Job
from venvflow.steps.key_inputs import files_of
from venvflow.steps.state_files import KeyRecord

_MOST_READ = 10
"""Snapshots of the venv that are read to find the nearest, and of others."""


class Unsure(Exception):
    """It is not known whether a build from a base gives what a fresh one gives, or it cannot be done."""


@dataclass(slots=True)
class Base:
    """A snapshot that a build starts from; *division* says what of it is kept.

    *entries* are what the locks of the venv to be built say of each package. *loans* are what other snapshots
    have of packages that it lacks. *laid* is what was put into the venv, *listed* the paths that the RECORDs
    of what was left out name.
    """

    snapshot: Snapshot
    division: Division
    entries: Mapping[str, str]
    loans: tuple[tuple[Snapshot, Loan], ...] = ()
    laid: Materialised = field(default_factory=Materialised)
    listed: frozenset[str] = frozenset()

    @property
    def trees(self) -> tuple[Tree, ...]:
        """Return all trees that a build finds in its venv."""
        return (*self.division.kept, *(tree for _, loan in self.loans for tree in loan.trees))

    @property
    def lent(self) -> frozenset[str]:
        """Return the paths that the distributions of other snapshots have, or name."""
        return frozenset().union(*(loan.paths for _, loan in self.loans))

    @property
    def missing(self) -> list[str]:
        """Return the packages that the locks name and the base does not bring, by normalised name."""
        left_out = {normalised(tree.name) for tree in self.division.left_out}
        same = same_entries(self.snapshot.entries, self.entries) - left_out
        lent = {normalised(tree.name) for _, loan in self.loans for tree in loan.trees}
        return sorted(self.entries.keys() - same - lent - {BESIDE})

    @property
    def names(self) -> str:
        """Return the ids of all snapshots that it takes something from, as they are told."""
        return " and ".join(each.id[:12] for each in (self.snapshot, *(each for each, _ in self.loans)))

    @property
    def whole(self) -> frozenset[str]:
        """Return the RECORDs of what is kept and was all there when the base was built."""
        if was_told(self.snapshot.warnings):
            return frozenset()
        return frozenset(records_of(entry.path for tree in self.trees for entry in tree.entries))


def entries_now(job: Job, record: KeyRecord) -> dict[str, str]:
    """Return what the lock files of a key say of each package; nothing where no build may start from it.

    The user's own commands may do anything with what they find. Bytecode that is kept as builders compile it
    names the place of the build.
    """
    files = files_of(job, record)
    locks = {name for name in record.key.parts if role_of(name) in ("lock", "include")}
    try:
        recipe = choose(job.spec, job.environ)
        if recipe.name == "commands" or job.spec.bytecode == "keep" or locks - files.keys():
            return {}
        version = version_of(recipe.name, record.interpreter, job.environ)
    except VenvflowError:  # the builder is gone: building says so
        return {}
    homes = {os.path.dirname(lock) for lock in job.spec.locks}
    beside = [
        each for name, each in files.items() if role_of(name) == "local" and os.path.dirname(each[0]) in homes
    ]
    return entries_of([files[name] for name in sorted(locks)], beside, [version]) if version else {}


def bases_for(job: Job, store: StoreReader, record: KeyRecord) -> list[Base]:
    """Return the bases for the venv of a key, the best first; none if it is to be built from nothing.

    From one that is not linked, but copied file by file, nothing is won. Changes nothing.
    """
    linked = {"hardlink", "reflink"} & {*job.spec.link}
    if job.fresh or not job.spec.restore or not linked or store.read_only or store.untrusted:
        return []
    entries = entries_now(job, record)
    if not entries:
        return []
    snapshots = {each.id: each for each in _candidates(store, record, job.spec.name)}
    candidates = [Near(each.id, each.key.parts, each.entries) for each in snapshots.values()]
    for candidate in ranked(candidates, entries):
        try:
            trees = store.load(snapshots[candidate.id]).trees
        except (Corrupt, VenvflowError):  # whoever restores it finds out why
            continue
        brought = SEEDS if record.key.parts["builder"] == "pip" else frozenset()  # by the empty venv itself
        division = divide(trees, same_entries(candidate.entries, entries) - brought)
        if division.kept:
            base = Base(snapshots.pop(candidate.id), division, entries)
            known = {tree.digest: tree for tree in trees}
            loans = _loans(job, store, base, snapshots.values(), known=known, but=brought)
            return [replace(base, loans=loans), base] if loans else [base]
    return []


def _loans(
    job: Job,
    store: StoreReader,
    base: Base,
    snapshots: Iterable[Snapshot],
    *,
    known: Mapping[str, Tree],
    but: frozenset[str],
) -> tuple[tuple[Snapshot, Loan], ...]:
    """Return what other *snapshots* can lend to *base* of packages that it lacks, all *but* these.

    *known* are trees that need not be read again, by digest. What was missing in a snapshot when it was built
    may be anybody's: such a one neither lends nor borrows.
    """
    found = base
    for other in () if was_told(base.snapshot.warnings) else snapshots:
        wanted = same_entries(other.entries, base.entries).intersection(found.missing) - but
        if not wanted or was_told(other.warnings):
            continue
        with suppress(Corrupt, VenvflowError, Unsure):
            trees = [known.get(digest) or store.tree(digest) for digest in other.trees]
            lender = divide(trees, wanted)
            there = base.division._replace(kept=found.trees)
            loan = loan_of(there, lender, wanted, partial(_listed, store, place=job.place.path))
            if loan.trees:
                found = replace(found, loans=(*found.loans, (other, loan)))
    return found.loans


def _candidates(store: StoreReader, record: KeyRecord, venv: str) -> Iterator[Snapshot]:
    """Yield the snapshots whose keys agree in all but the locks: those of a *venv*, then those used last."""
    agreeing = [
        (name != venv, -used, identifier)
        for identifier, parts, name, used in store.index.snapshot_keys()
        if may_be_base(parts, record.key.parts)
    ]
    own = sorted(each for each in agreeing if not each[0])
    others = sorted(each for each in agreeing if each[0])
    for *_, identifier in (*own[:_MOST_READ], *others[:_MOST_READ]):
        snapshot = store.snapshot(identifier)
        if snapshot is not None and snapshot.entries:
            yield snapshot


def lay(job: Job, store: Store, base: Base, places: Places, may_be_late: bool) -> Begun:
    """Put what is kept of *base* into the new venv, whose files name *places*.

    If all but the metadata of distributions *may_be_late*, it comes while the tool is at work. Both raise
    Unsure where it is not possible, or not worth it.
    """
    job.meter.count(f"starting from {base.names}")
    kept = Manifest(base.trees)
    with _unsure_if_damaged(store), store.use():
        base.listed = frozenset(
            path for tree in base.division.left_out for path in _listed(store, tree, job.place.path)
        )
        _refuse_to_copy(job, store, base, places.venv)
        finish = Materialiser(
            store.objects,
            places,
            Linker(job.spec.link),
            min_size=store.smallest_shared(job.spec.min_size),
            private=job.keeps_private,
            adopted=store.adopted(),
            relabel=store.relabel,
            verify_all=job.config.store.verify == "full",
            noting=True,
        ).begin(kept, places.venv, new=False, first=_is_metadata if may_be_late else lambda _: True)

    def finish_laying() -> None:
        with _unsure_if_damaged(store), store.use():
            base.laid = finish()

    return Begun(frozenset(entry.path for tree in kept.trees for entry in tree.entries), finish_laying)


def _is_metadata(entry: Entry) -> bool:
    return ".dist-info/" in entry.path


@contextmanager
def _unsure_if_damaged(store: Store) -> Iterator[None]:
    """Let a base that cannot be laid be none."""
    try:
        yield
    except Damaged as error:
        store.objects.quarantine(error.name)  # the build may bring it again, and the snapshot is whole then
        raise Unsure(str(error)) from error
    except (Corrupt, FileExistsError, NotADirectoryError) as error:
        raise Unsure(str(error)) from error


def _listed(store: StoreReader, tree: Tree, place: str) -> frozenset[str]:
    """Return the paths that the RECORDs of a distribution name. Raises Unsure if one is lost."""
    found: set[str] = set()
    for entry in tree.entries:
        if is_record(entry) and entry.digest:
            data = store.objects.read(object_name(entry))
            if data is None:
                raise Unsure(f"{entry.path} is missing or damaged in the store")
            found |= record_paths(entry.path, data, place)
    return frozenset(found)


def _refuse_to_copy(job: Job, store: Store, base: Base, venv: str) -> None:
    """Raise Unsure unless the venv's file system lets it share the store's files."""
    files = (entry for tree in base.trees for entry in tree.entries if entry.kind == "file")
    least = store.smallest_shared(job.spec.min_size)
    one = next((entry for entry in files if not stays_private(entry, least)), None)
    if one is None:
        raise Unsure("")
    name, path = temporary_name(), store.objects.path(object_name(one))
    with directory(venv) as fd:
        try:
            mode = Linker(job.spec.link).place(path, name, fd, executable=one.executable, mtime_ns=0)
        except FileNotFoundError:
            raise Damaged(object_name(one), one.path) from None
        os.unlink(name, dir_fd=fd)
    if mode == "copy":
        raise Unsure("")


def came_of(base: Base, surveyed: Survey, carried: Carried | None) -> dict[str, str | int | float]:
    """Return figures of a build from *base*: its id, how many packages the venv has and how many are new."""
    kept = {*records_of(entry.path for tree in base.trees for entry in tree.entries)}
    records = [*records_of(surveyed.entries), *(kept if carried is not None else ())]
    wanted = [each for each in records if name_and_version(each)[0] not in SEEDS - base.entries.keys()]
    installed = sum(1 for each in wanted if each not in kept)
    return {"base": base.snapshot.id, "installed": installed, "packages": len(wanted)}


def carried_from(base: Base, venv: str) -> Carried | None:
    """Carry over what was laid of *base* into the venv at the path *venv*, which its builder has filled.

    None if that is not as it was laid, or was not whole when the base was built: then all is to be surveyed.
    """
    return carry(venv, base.trees, base.laid, base.lent) if not was_told(base.snapshot.warnings) else None


def judge(base: Base, venv: str, surveyed: Survey, carried: Carried | None) -> bool:
    """Return whether what is *carried* may be; without it, raise Unsure unless the venv is a fresh build's.

    The venv lies at the path *venv*. What is carried may not be if another package has to do with it: then
    all of the venv is to be surveyed, and judged.
    """
    division = base.division
    if carried is None and base.loans:
        raise Unsure(f"what came from {base.names} is not as it was, or another package has it")
    if carried is not None:
        left_out = {entry.path for tree in division.left_out for entry in tree.entries}
        if not carried.is_apart(surveyed, left_out | base.listed):
            return False
        division = division._replace(kept=())
    made = Made(surveyed.entries, surveyed.found, surveyed.distributions)
    if why := why_unsure(division, base.listed, made, partial(_is_undisputed, venv, surveyed)):
        raise Unsure(why)
    return True


def _is_undisputed(venv: str, surveyed: Survey, path: str) -> bool:
    """Return whether all RECORDs that name a file say that it has the bytes that it has."""
    entry = surveyed.entries.get(path)
    if entry is None or entry.kind != "file":
        return False
    for each in surveyed.distributions:
        if path in each.paths:
            records = (record for record in each.paths if record.endswith(".dist-info/RECORD"))
            own = [record for record in records if name_and_version(record) == (each.name, each.version)]
            said = {
                row.digest
                for record in own
                for row in listed_in(record, read_small(f"{venv}/{record}"), venv, strict=False).get(path, ())
            }
            if said != {entry.digest}:
                return False
    return True
