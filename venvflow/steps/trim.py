"""``trim``: drops snapshots by the policy and sweeps what nothing refers to. It holds the store alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from venvflow import locks
from venvflow.errors import EnvironmentFailure
from venvflow.index import Usage
from venvflow.manifest import Corrupt
from venvflow.model import Config, Snapshot, TrimPolicy
from venvflow.objects import Name, object_names
from venvflow.records import TRIM_NOTE, read_json, write_json
from venvflow.registry import Registration
from venvflow.retention import Candidate, Contents, Plan, plan
from venvflow.store import Store
from venvflow.sweeping import Swept, sweep


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a trim decided and did: *swept* is None for a dry run, *forgotten* are venvs that are gone."""

    plan: Plan
    swept: Swept | None
    forgotten: tuple[str, ...]
    snapshots: Mapping[str, Snapshot]


def trim(
    config: Config,
    environ: Mapping[str, str],
    *,
    now: float,
    say: Callable[[str], None] = lambda _: None,
    dry_run: bool = False,
) -> Trimmed:
    """Apply the config's policy to the store.

    Raises LockTimeout while somebody uses the store for too long, EnvironmentFailure when files cannot be
    deleted. A killed trim is finished by the next one: rows and snapshots go before objects.
    """
    with Store(config.store, timeout=locks.lock_timeout(environ), on_wait=say) as store, store.alone():
        registrations = store.registrations()
        gone = [each for each in registrations if _is_gone(each, config) and each.link != "symlink"]
        alive = [each for each in registrations if each not in gone]
        snapshots = {snapshot.id: snapshot for snapshot in store.snapshots()}
        decided = _decide(config, store, alive, snapshots.values(), now)
        forgotten = tuple(each.path for each in gone)
        if dry_run:
            return Trimmed(decided, None, forgotten, snapshots)
        for path in forgotten:
            store.unregister(path)
        store.drop(dropped.id for dropped in decided.drop)
        swept = sweep(store)
        _note(store, now, config.trim)
        return Trimmed(decided, swept, forgotten, snapshots)


def _is_gone(venv: Registration, config: Config) -> bool:
    """Return whether a venv is no more: with its project, or as this config does not name it."""
    ours = venv.project == os.path.realpath(config.root) and venv.name not in config.venvs
    return venv.gone or (ours and not os.path.lexists(venv.path))


def _note(store: Store, now: float, policy: TrimPolicy) -> None:
    """Remember that the policy was applied; on a full disk that has to wait."""
    with suppress(EnvironmentFailure):
        write_json(
            f"{store.path}/{TRIM_NOTE}", {"at": now, "generation": store.generation(), "policy": repr(policy)}
        )


def _decide(
    config: Config, store: Store, venvs: list[Registration], snapshots: Iterable[Snapshot], now: float
) -> Plan:
    snapshots = list(snapshots)
    pinned = {each.name for each in venvs if each.pin} | {
        spec.name for spec in config.venvs.values() if spec.pin
    }
    names = {each.name for each in venvs} | config.venvs.keys()
    usage = _usage(store)
    numbers = _Numbers(store)
    candidates = [
        Candidate(
            snapshot.id,
            snapshot.venv,
            *usage.get(snapshot.id, Usage(0, snapshot.created)),
            pinned=snapshot.venv in pinned,
            current_for=_current_for(config, venvs, snapshot),
            trees=tuple(numbers.tree(digest) for digest in snapshot.trees),
            orphaned=snapshot.venv not in names,
        )
        for snapshot in snapshots
    ]
    held = tuple(numbers.tree(digest) for each in venvs for digest in each.trees)
    contents = Contents(numbers.tree_objects, numbers.sizes, held)
    return plan(
        candidates,
        config.trim,
        contents=contents,
        now=now,
        store_size=store.size_on_disk(),
        free=store.free_bytes(),
    )


def _usage(store: Store) -> Mapping[str, Usage]:
    """Return the history of use; none where the index cannot be opened, as on a full disk."""
    try:
        return store.usage()
    except EnvironmentFailure:
        return {}


def _current_for(config: Config, venvs: list[Registration], snapshot: Snapshot) -> tuple[str, ...]:
    """Return the venvs whose key this snapshot has now: registered ones, and those of this project."""
    names = {
        each.name
        for each in venvs
        if each.key == snapshot.key.digest and snapshot.place in (None, each.place)
    }
    for spec in config.venvs.values():
        record = read_json(os.path.join(config.state_dir, spec.name, "key.json"))
        if record is not None and record.get("digest") == snapshot.key.digest:
            names.add(spec.name)
    return tuple(sorted(names))


class _Numbers:
    """Numbers for trees and objects, and what dropping an object would free."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._trees: dict[str, int] = {}
        self._objects: dict[Name, int] = {}
        self.tree_objects: dict[int, list[int]] = {}
        self.sizes: dict[int, int] = {}
        for name, st in store.objects.names():
            number = self._objects.setdefault(name, len(self._objects))
            if st.st_nlink == 1:  # what a venv is linked to frees nothing
                self.sizes[number] = st.st_blocks * 512

    def tree(self, digest: str) -> int:
        """Return the number of a tree, reading it when it is met for the first time."""
        if digest not in self._trees:
            number = self._trees[digest] = len(self._trees)
            self.tree_objects[number] = self._objects_of(digest)
        return self._trees[digest]

    def _objects_of(self, digest: str) -> list[int]:
        with suppress(Corrupt):
            names = set(object_names(self._store.tree(digest)))
            return [self._objects[name] for name in names if name in self._objects]
        return []
