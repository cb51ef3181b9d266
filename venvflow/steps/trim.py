"""``trim``: drops snapshots by the policy and sweeps what nothing refers to. It holds the store alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from venvflow.disk import locks
from venvflow.errors import EnvironmentFailure
from venvflow.model import Config, TrimPolicy
from venvflow.pure.retention import Candidate, Contents, Holder, Plan, plan
from venvflow.state.census import Census
from venvflow.state.index import Outline, Usage
from venvflow.state.registry import Registration
from venvflow.state.settled import Settled, settle, settled_since
from venvflow.state.store import Store
from venvflow.state.sweeping import Swept, sweep
from venvflow.steps.records import TRIM_NOTE, TrimNote, encode_trims, is_recent, read_key_of, read_trims


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a trim decided and did: *swept* is None for a dry run, *forgotten* are venvs that are gone."""

    plan: Plan
    swept: Swept | None
    forgotten: tuple[str, ...]
    snapshots: Mapping[str, Outline]


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
    timeout = locks.lock_timeout(environ)
    with (
        Store(config.store, timeout=timeout, on_wait=say) as store,
        store.use() if dry_run else store.alone(),
    ):
        census = Census(store)
        if not dry_run:
            store.catch_up(census.registrations)
            with suppress(EnvironmentFailure):  # on a full disk that has to wait
                store.index.pull_back(now)
        gone = [each for each in census.registrations if _is_gone(each, config) and each.link != "symlink"]
        trimmed = _unchanged(config, store, census, now) if not gone else None
        if trimmed is None:
            trimmed = _trimmed(config, store, census, gone, now=now, dry_run=dry_run)
        if not dry_run:
            _note(store, now, config.trim)
        return trimmed if not dry_run else replace(trimmed, swept=None)


def _unchanged(config: Config, store: Store, census: Census, now: float) -> Trimmed | None:
    """Return the answer for a store in which nothing came or went since the last trim, None for others.

    Then nothing has to be read but the index: it may be wrong, but only about what is to be dropped, and
    whatever is dropped is decided by :func:`_trimmed`.
    """
    settled = settled_since(store, census.registrations)
    if settled is None:
        return None
    outlines = {each.id: each for each in store.outlines()}
    candidates = _candidates(config, census.registrations, outlines.values())
    decided = plan(
        candidates,
        config.trim,
        contents=Contents(),
        now=now,
        store_size=settled.size,
        free=store.free_bytes(),
    )
    return None if decided.drop else Trimmed(decided, Swept(0, 0, 0), (), outlines)


def _trimmed(
    config: Config, store: Store, census: Census, gone: list[Registration], *, now: float, dry_run: bool
) -> Trimmed:
    """Return what a look at all that is in the store gives, done unless *dry_run*; *gone* are forgotten."""
    alive = [each for each in census.registrations if each not in gone]
    outlines = {each.id: each for each in store.outlined(census.snapshots.values())}
    size = store.size_on_disk()
    candidates = _candidates(config, alive, outlines.values())
    held = [digest for each in alive for digest in each.trees]
    decided = _decide(config, store, census, candidates, held=held, size=size, now=now)
    forgotten = tuple(each.path for each in gone)
    if dry_run:
        return Trimmed(decided, None, forgotten, outlines)
    for path in forgotten:
        store.unregister(path)
    dropped = [each.id for each in decided.drop]
    store.drop(dropped)
    census.forget(dropped, forgotten)
    swept = sweep(store, census)
    if swept.forgotten and not swept.twins:  # whether somebody is linked to those is seen nowhere else
        settle(store, alive, Settled(size - swept.bytes, census.own_bytes()))
    return Trimmed(decided, swept, forgotten, outlines)


def _is_gone(venv: Registration, config: Config) -> bool:
    """Return whether a venv is no more: with its project, or as this config does not name it."""
    ours = venv.project == os.path.realpath(config.root) and venv.name not in config.venvs
    return venv.gone or (ours and not os.path.lexists(venv.path))


def _note(store: Store, now: float, policy: TrimPolicy) -> None:
    """Remember that this policy was applied, beside others; on a full disk that has to wait."""
    notes = {each: noted for each, noted in read_trims(store.path).items() if is_recent(noted, now)}
    notes[repr(policy)] = TrimNote(now, store.generation())
    with suppress(OSError):
        store.layout.write(TRIM_NOTE, encode_trims(notes))


def _candidates(config: Config, venvs: list[Registration], snapshots: Iterable[Outline]) -> list[Candidate]:
    """Return what the policy is to judge; what is in the snapshots is left out."""
    holders, pinned = _Holders(config, venvs), _pinned(config, venvs)
    current = _Current(config, venvs)
    return [
        Candidate(
            each.id,
            each.venv,
            *(each.used or Usage(0, each.created)),
            pinned=not pinned.isdisjoint(holders.of(each) or (Holder("", each.venv),)),
            current_for=current.names(each.key, each.place),
            holders=holders.of(each),
        )
        for each in snapshots
    ]


class _Holders:
    """Who holds each snapshot: venvs of one name in several projects have nothing in common.

    A venv of this config that is not registered, because that was lost, holds by its name what nobody else
    does.
    """

    def __init__(self, config: Config, venvs: Iterable[Registration]) -> None:
        registered: set[Holder] = set()
        self._known: dict[str, set[Holder]] = {}
        for each in venvs:
            holder = Holder(each.project, each.name)
            registered.add(holder)
            for identifier in each.snapshots:
                self._known.setdefault(identifier, set()).add(holder)
        root = os.path.realpath(config.root)
        self._lost = {name for name in config.venvs if Holder(root, name) not in registered}

    def of(self, snapshot: Outline) -> tuple[Holder, ...]:
        """Return the holders of a snapshot, none for that of a venv that is gone."""
        known = self._known.get(snapshot.id)
        if known is not None:
            return tuple(sorted(known))
        return (Holder("", snapshot.venv),) if snapshot.venv in self._lost else ()


def _pinned(config: Config, venvs: Iterable[Registration]) -> set[Holder]:
    """Return the venvs whose snapshots stay; of our own project the config knows it best."""
    ours = os.path.realpath(config.root)
    others = {Holder(each.project, each.name) for each in venvs if each.pin and each.project != ours}
    names = [spec.name for spec in config.venvs.values() if spec.pin]
    return others | {Holder(project, name) for name in names for project in (ours, "")}


class _Current:
    """Which venvs have a key now: registered ones, in their places, and those of this project."""

    def __init__(self, config: Config, venvs: list[Registration]) -> None:
        self._names: dict[str, list[tuple[str, str | None]]] = {}
        for each in venvs:
            self._names.setdefault(each.key, []).append((each.name, each.place))
        for spec in config.venvs.values():
            record = read_key_of(config, spec.name)
            if record is not None:
                self._names.setdefault(record.key.digest, []).append((spec.name, None))

    def names(self, key: str, place: str | None) -> tuple[str, ...]:
        """Return the venvs that a snapshot with that key, bound to *place* or to none, is current for."""
        having = self._names.get(key, ())
        return tuple(sorted({name for name, at in having if at is None or place in (None, at)}))


def _decide(
    config: Config,
    store: Store,
    census: Census,
    candidates: list[Candidate],
    *,
    held: Iterable[str],
    size: int,
    now: float,
) -> Plan:
    """Return the plan for a store of *size* bytes; venvs need the trees that are *held*."""
    numbers = _Numbers(census)
    having = [
        replace(each, trees=tuple(numbers.tree(digest) for digest in census.snapshots[each.id].trees))
        for each in candidates
    ]
    contents = Contents(numbers.tree_objects, numbers.sizes, tuple(map(numbers.tree, held)))
    return plan(having, config.trim, contents=contents, now=now, store_size=size, free=store.free_bytes())


class _Numbers:
    """Numbers for trees and objects, and what dropping an object would free."""

    def __init__(self, census: Census) -> None:
        self._census = census
        self._trees: dict[str, int] = {}
        self._objects = {name: number for number, name in enumerate(census.objects)}
        self.tree_objects: dict[int, list[int]] = {}
        self.sizes = {
            number: on_disk.occupied
            for number, on_disk in enumerate(census.objects.values())
            if on_disk.links == 1  # what a venv is linked to frees nothing
        }

    def tree(self, digest: str) -> int:
        """Return the number of a tree, looking into it when it is met for the first time."""
        if digest not in self._trees:
            number = self._trees[digest] = len(self._trees)
            names = {name for name, _ in self._census.objects_of(digest)}
            self.tree_objects[number] = [self._objects[name] for name in names if name in self._objects]
        return self._trees[digest]
