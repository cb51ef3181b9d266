"""``trim``: drops snapshots by the policy and sweeps what nothing refers to. It holds the store alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from venvflow.disk import locks
from venvflow.errors import EnvironmentFailure
from venvflow.model import Config, TrimPolicy
from venvflow.pure.retention import Candidate, TreeContents, TrimPlan, VenvName, plan_trim
from venvflow.state.index import SnapshotSummary, Usage
from venvflow.state.registry import Registration
from venvflow.state.store import Store
from venvflow.state.sweeping import Swept, last_sweep, sweep
from venvflow.state.usage import StoreContents
from venvflow.steps.state_files import TRIM_NOTE, TrimNote, encode_trims, is_recent, read_key_of, read_trims


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a trim decided and did: *swept* is None for a dry run, *forgotten* are venvs that are gone."""

    plan: TrimPlan
    swept: Swept | None
    forgotten: tuple[str, ...]
    snapshots: Mapping[str, SnapshotSummary]


def trim(
    config: Config,
    environ: Mapping[str, str],
    *,
    now: float,
    say: Callable[[str], None] = lambda _: None,
    dry_run: bool = False,
    waits: bool = True,
) -> Trimmed:
    """Apply the config's policy to the store.

    Raises LockTimeout while somebody uses the store for too long, which is at once unless it *waits*,
    EnvironmentFailure when files cannot be deleted. A killed trim is finished by the next one: rows and
    snapshots go before objects.
    """
    timeout = locks.lock_timeout(environ) if waits else 0.0
    with (
        Store(config.store, timeout=timeout, on_wait=say) as store,
        store.use() if dry_run else store.alone(),
    ):
        contents = StoreContents(store)
        if not dry_run:
            store.catch_up(contents.registrations)
            with suppress(EnvironmentFailure):  # on a full disk that has to wait
                store.index.pull_back(now)
        gone = [each for each in contents.registrations if _is_gone(each, config) and each.link != "symlink"]
        trimmed = _unchanged(config, store, contents, now) if not gone else None
        if trimmed is None:
            trimmed = _trimmed(config, store, contents, gone, now=now, dry_run=dry_run)
        if not dry_run:
            _note(store, now, config.trim)
        return trimmed if not dry_run else replace(trimmed, swept=None)


def _unchanged(config: Config, store: Store, contents: StoreContents, now: float) -> Trimmed | None:
    """Return the answer for a store in which nothing came or went since the last trim, None for others.

    Then nothing has to be read but the index: it may be wrong, but only about what is to be dropped, and
    whatever is dropped is decided by :func:`_trimmed`.
    """
    last = last_sweep(store, contents.registrations)
    if last is None:
        return None
    summaries, venvs = store.summaries(), _Venvs(config, contents.registrations)
    decided = plan_trim(
        [venvs.candidate(each) for each in summaries],
        config.trim,
        contents=TreeContents(),
        now=now,
        store_size=last.size,
        free=store.free_bytes(),
    )
    return (
        None if decided.drop else Trimmed(decided, Swept(0, 0, 0), (), {each.id: each for each in summaries})
    )


def _trimmed(
    config: Config,
    store: Store,
    contents: StoreContents,
    gone: list[Registration],
    *,
    now: float,
    dry_run: bool,
) -> Trimmed:
    """Return what a look at all that is in the store gives, done unless *dry_run*; *gone* are forgotten."""
    alive = [each for each in contents.registrations if each not in gone]
    summaries, venvs = store.summaries_of(contents.snapshots.values()), _Venvs(config, alive)
    size = store.size_on_disk()
    held = [digest for each in alive for digest in each.trees]
    needed = {*held, *(tree for each in contents.snapshots.values() for tree in each.trees)}
    objects = {tree: [name for name, _ in contents.objects_of(tree)] for tree in needed}
    decided = plan_trim(
        [replace(venvs.candidate(each), trees=contents.snapshots[each.id].trees) for each in summaries],
        config.trim,
        contents=TreeContents(objects, contents.objects, tuple(held)),
        now=now,
        store_size=size,
        free=store.free_bytes(),
    )
    swept, forgotten = None, tuple(each.path for each in gone)
    if not dry_run:
        for path in forgotten:
            store.unregister(path)
        dropped = [each.id for each in decided.drop]
        store.drop(dropped)
        contents.forget(dropped, forgotten)
        swept = sweep(store, contents, size=size)
    return Trimmed(decided, swept, forgotten, {each.id: each for each in summaries})


def _is_gone(venv: Registration, config: Config) -> bool:
    """Return whether a venv is gone: with its project, or because this config does not name it."""
    ours = venv.project == os.path.realpath(config.root) and venv.name not in config.venvs
    return venv.gone or (ours and not os.path.lexists(venv.path))


def _note(store: Store, now: float, policy: TrimPolicy) -> None:
    """Remember that this policy was applied, beside others; on a full disk that has to wait."""
    notes = {each: noted for each, noted in read_trims(store.path).items() if is_recent(noted, now)}
    notes[repr(policy)] = TrimNote(now, store.generation())
    with suppress(OSError):
        store.layout.write(TRIM_NOTE, encode_trims(notes))


class _Venvs:
    """Which venvs hold, pin and need which snapshots: those that are registered, and those of this config.

    Venvs of one name in several projects have nothing in common. A venv of this config that is not
    registered, because that was lost, holds by its name what nobody else does.
    """

    def __init__(self, config: Config, registered: Iterable[Registration]) -> None:
        root = os.path.realpath(config.root)
        known: set[VenvName] = set()
        self._holders: dict[str, set[VenvName]] = {}
        self._pinned: set[VenvName] = set()  # of our own project, the config knows it best
        self._current: dict[str, list[tuple[str, str | None]]] = {}  # by key: names, and their places
        for each in registered:
            venv = VenvName(each.project, each.name)
            known.add(venv)
            for identifier in each.snapshots:
                self._holders.setdefault(identifier, set()).add(venv)
            if each.pin and each.project != root:
                self._pinned.add(venv)
            self._current.setdefault(each.key, []).append((each.name, each.place))
        self._lost = {name for name in config.venvs if VenvName(root, name) not in known}
        for name, spec in config.venvs.items():
            if spec.pin:
                self._pinned |= {VenvName(root, name), VenvName("", name)}
            record = read_key_of(config, name)
            if record is not None:
                self._current.setdefault(record.key.digest, []).append((name, None))

    def candidate(self, snapshot: SnapshotSummary) -> Candidate:
        """Return what the policy is to judge; what is in the snapshot is left out."""
        holders = self._holders_of(snapshot)
        return Candidate(
            snapshot.id,
            snapshot.venv,
            *(snapshot.used or Usage(0, snapshot.created)),
            pinned=not self._pinned.isdisjoint(holders or (VenvName("", snapshot.venv),)),
            current_for=self._current_for(snapshot.key, snapshot.place),
            holders=holders,
        )

    def _holders_of(self, snapshot: SnapshotSummary) -> tuple[VenvName, ...]:
        """Return the holders of a snapshot, none for that of a venv that is gone."""
        known = self._holders.get(snapshot.id)
        if known is not None:
            return tuple(sorted(known))
        return (VenvName("", snapshot.venv),) if snapshot.venv in self._lost else ()

    def _current_for(self, key: str, place: str | None) -> tuple[str, ...]:
        """Return the venvs that a snapshot with that key, bound to *place* or to none, is current for."""
        having = self._current.get(key, ())
        return tuple(sorted({name for name, at in having if at is None or place in (None, at)}))
