"""``explain``: computes the key of a venv as it is now, and why the store has no snapshot. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from venvflow.model import Snapshot
from venvflow.pure.comparison import KeyComparison, Keyed, compare_keys, in_common, part_changes
from venvflow.pure.manifest import Corrupt
from venvflow.state.reader import StoreReader
from venvflow.steps.base import Base, bases_for
from venvflow.steps.gathering import packages_of
from venvflow.steps.hash_lockfiles import KeyNow, key_now
from venvflow.steps.job import Job
from venvflow.steps.key_inputs import files_of
from venvflow.steps.pull import RemoteView, ask, asked_before

NEAR = 0.5
"""The share of packages in common from which on a snapshot is near."""

_MOST_READ = 50
"""Snapshots that are read to find one that is near."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """A snapshot that is not the one that is looked for, and what differs between its key and the other."""

    snapshot: Snapshot
    used: float | None
    comparison: KeyComparison


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to say about a venv's key.

    *files* are the paths behind its parts, *packages* what its lock files list. *snapshot* is what the store
    has for it, *nearest* what it has instead, if that is near, and *base* what a build would start
    from, if not from nothing. *made_for* is the key that the venv in its
    place was made for, empty without one, and *since* what changed in the key since then, None where nothing
    did or its parts are not known any more. *warnings* are those about the lock files, and of the build of
    that venv. *remote* is what is known of what the remote has, None where there is none.
    """

    key: KeyNow
    files: Mapping[str, str]
    packages: Mapping[str, Mapping[str, str]]
    snapshot: Snapshot | None
    nearest: Nearest | None
    base: Base | None
    made_for: str
    since: KeyComparison | None
    warnings: tuple[str, ...] = ()
    remote: RemoteView | None = None


def explain(job: Job, store: StoreReader | None, *, ask_remote: bool = False) -> Explanation:
    """Explain the key of the job's venv: what *store* has for it, or comes nearest, and what changed.

    If the key cannot be computed now, the key of the last run is taken. *store* is None where there is
    none yet. The remote is asked only if *ask_remote*; else it is told what it answered the last time. Writes
    nothing. Raises EnvironmentFailure if there is no remote to ask.
    """
    key = key_now(job)
    receipt = job.place.receipt()
    made_for, built_with = (receipt.key, receipt.warnings) if receipt is not None else ("", ())
    record = key.now or key.noted
    if record is None:
        return Explanation(key, {}, {}, None, None, None, made_for, None, built_with)
    packages = packages_of(job, record)
    keyed = Keyed(record.key.parts, packages)
    snapshot = store.find(record.key.digest, job.position) if store is not None else None
    nearest, base = None, None
    if snapshot is None and store is not None:
        nearest = nearest_to(store, keyed, job.spec.name)
        base = next(iter(bases_for(job, store, record)), None) if key.now is not None else None
    since = _since(job, store, key, keyed, made_for)
    files = {name: path for name, (path, _) in files_of(job, record).items()}
    warnings = (*record.warnings, *built_with)
    remote = ask(job, store, record.key.digest) if ask_remote else asked_before(job, record.key.digest)
    return Explanation(key, files, packages, snapshot, nearest, base, made_for, since, warnings, remote)


def _since(
    job: Job, store: StoreReader | None, key: KeyNow, keyed: Keyed, made_for: str
) -> KeyComparison | None:
    """Return what changed in the key since the venv was made."""
    earlier = store.find(made_for, job.position) if store is not None and made_for else None
    if earlier is not None and store is not None:
        compared = compare_keys(keyed_of(store, earlier), keyed)
    elif key.noted is not None and key.noted.key.digest == made_for:
        compared = compare_keys(Keyed(key.noted.key.parts), keyed)
    else:
        return None
    return compared if compared.parts else None


# --------------------------------------------------------------------------- snapshots


def nearest_to(store: StoreReader, keyed: Keyed, venv: str) -> Nearest | None:
    """Return the snapshot whose key differs from *keyed* in the fewest parts, or None if none is near.

    One that has less than half of the packages is not, whatever its key says: what it lacks, and what it has
    besides, would be most of the answer. Of several, one of a venv of the same name is nearer: lock files of
    other venvs have the same base names. Then the one that was used last.
    """
    ranked = sorted(
        (len(part_changes(parts, keyed.parts)), name != venv, -seq, identifier)
        for identifier, parts, name, seq in _known(store)
    )
    for *_, identifier in ranked[:_MOST_READ]:
        snapshot = store.snapshot(identifier)
        earlier = keyed_of(store, snapshot) if snapshot is not None else None
        if snapshot is not None and earlier is not None and in_common(earlier, keyed) >= NEAR:
            usage = store.index.usage().get(identifier)
            return Nearest(snapshot, usage.at if usage is not None else None, compare_keys(earlier, keyed))
    return None


def _known(store: StoreReader) -> Iterator[tuple[str, Mapping[str, str], str, int]]:
    """Yield of each snapshot its id, the parts of its key, its venv's name, and when it was used.

    From the index, which is one file, as far as it has them.
    """
    rows = store.index.snapshot_keys()
    yield from rows
    for identifier in store.snapshot_ids() - {identifier for identifier, *_ in rows}:
        snapshot = store.snapshot(identifier)
        if snapshot is not None:
            yield identifier, snapshot.key.parts, snapshot.venv, 0


def keyed_of(store: StoreReader, snapshot: Snapshot) -> Keyed:
    """Return a snapshot's key with its packages: as its locks listed them, else as they were installed."""
    installed = None if snapshot.packages else installed_in(store, snapshot)
    return Keyed(snapshot.key.parts, snapshot.packages, installed)


def installed_in(store: StoreReader, snapshot: Snapshot) -> dict[str, str] | None:
    """Return the versions of a snapshot's distributions, None if the store has lost some of it."""
    with suppress(Corrupt):
        return {tree.name: tree.version for tree in map(store.tree, snapshot.trees) if tree.version}
    return None
