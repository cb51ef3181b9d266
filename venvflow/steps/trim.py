"""``trim``: drops snapshots by the policy and sweeps what nothing refers to. It holds the store alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from venvflow.disk import locks
from venvflow.disk.system_errors import free_bytes
from venvflow.errors import EnvironmentFailure, VenvflowError
from venvflow.model import Config, Outcome
from venvflow.pure.retention import TreeContents, TrimPlan, VenvName, plan_trim
from venvflow.state.history import forget_old
from venvflow.state.holds import VenvHolds
from venvflow.state.index import SnapshotSummary
from venvflow.state.reader import StoreReader
from venvflow.state.registry import Registration
from venvflow.state.store import Store
from venvflow.state.sweeping import Swept, last_sweep, most_bytes_since, sweep
from venvflow.state.usage import StoreContents, size_on_disk
from venvflow.steps.holders import Holders
from venvflow.steps.noting import note_for_all
from venvflow.steps.state_files import (
    TRIM_NOTE,
    TrimNote,
    encode_trims,
    is_recent,
    name_of_trim,
    read_trims,
)


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a trim decided and did, with who held what before.

    *swept* is None for a dry run, *forgotten* are venvs that are gone.
    """

    plan: TrimPlan
    swept: Swept | None
    forgotten: tuple[str, ...]
    snapshots: Mapping[str, SnapshotSummary]
    holders: Holders


def trim(
    config: Config,
    environ: Mapping[str, str],
    *,
    now: float,
    say: Callable[[str], None] = lambda _: None,
    dry_run: bool = False,
    waits: bool = True,
    thorough: bool = True,
) -> Trimmed:
    """Apply the config's policy to the store.

    Not *thorough*: what no snapshot needed in the first place, as killed runs leave it, is looked for once a
    day, and when a snapshot went.

    Raises LockTimeout while somebody uses the store for too long, which is at once unless it *waits*,
    EnvironmentFailure when files cannot be deleted. A killed trim is finished by the next one: rows and
    snapshots go before objects.
    """
    timeout = locks.lock_timeout(environ) if waits else 0.0
    with (
        Store(config.store, timeout=timeout, on_wait=say) as store,
        store.use() if dry_run else store.alone(),
    ):
        start = time.monotonic()
        contents = StoreContents(store)
        if not dry_run:
            store.catch_up(contents.registrations)
            with suppress(EnvironmentFailure):  # on a full disk that has to wait
                store.index.pull_back(now)
        gone = [each for each in contents.registrations if _is_forgotten(each, config)]
        known = store.holders()
        holders = [each.until(now) for each in known]
        if not dry_run:
            _write(store, known, holders)
        trimmed = None
        if not gone:
            trimmed = _if_all_stays(config, store, contents, holders, now, thorough=thorough)
        if trimmed is None:
            trimmed = _trimmed(config, store, contents, holders, gone, now=now, dry_run=dry_run)
        if not dry_run:
            _note(store, now, config)
            _remember(store, trimmed, config, now, time.monotonic() - start)
        return trimmed if not dry_run else replace(trimmed, swept=None)


def foreseen(config: Config, store: StoreReader, *, now: float) -> TrimPlan:
    """Return what a trim would decide now. Nothing is locked, and the store is only read.

    Bytes are counted only where a limit of size asks for them: without one, dropping frees nothing here.
    """
    limited = config.trim.max_size is not None or config.trim.min_free is not None
    contents = StoreContents(store)
    holds = Holders([each.until(now) for each in store.holders()], config)
    if not limited:
        return _planned(config, store.summaries(), holds, now=now)
    alive = [each for each in contents.registrations if not _is_forgotten(each, config)]
    return _planned(
        config,
        store.summaries_of(contents.snapshots.values()),
        holds,
        contents,
        alive,
        now=now,
        size=size_on_disk(store.path),
        free=free_bytes(store.path),
    )


def _planned(
    config: Config,
    summaries: list[SnapshotSummary],
    holds: Holders,
    contents: StoreContents | None = None,
    alive: Iterable[Registration] = (),
    *,
    now: float,
    size: int = 0,
    free: int | None = None,
) -> TrimPlan:
    """Return what the policy decides: by what is in the store and which venvs are *alive*, or without."""
    candidates, trees = [holds.candidate(each) for each in summaries], TreeContents()
    if contents is not None:
        found, held = contents, tuple(digest for each in alive for digest in each.trees)
        needed = {*held, *(tree for each in found.snapshots.values() for tree in each.trees)}
        objects = {tree: [name for name, _ in found.objects_of(tree)] for tree in needed}
        trees = TreeContents(objects, found.objects, held)
        candidates = [replace(each, trees=found.snapshots[each.id].trees) for each in candidates]
    return plan_trim(
        candidates,
        config.trim,
        project=os.path.realpath(config.root),
        contents=trees,
        now=now,
        store_size=size,
        free=free,
    )


def _if_all_stays(
    config: Config,
    store: Store,
    contents: StoreContents,
    holders: list[VenvHolds],
    now: float,
    *,
    thorough: bool,
) -> Trimmed | None:
    """Return the answer for a store in which nothing went since the last trim, None for others.

    Nothing has to be read but the index: it may be wrong, but only about what is to be dropped, and whatever
    is dropped is decided by :func:`_trimmed`.
    """
    last, summaries = last_sweep(store, contents.registrations), store.summaries()
    if last is not None:
        size = last.size
    elif thorough or (most := most_bytes_since(store, summaries)) is None:
        return None
    else:
        size = most
    holds = Holders(holders, config)
    decided = _planned(config, summaries, holds, now=now, size=size, free=store.free_bytes())
    if decided.drop or decided.given_up:
        return None
    return Trimmed(decided, Swept(0, 0, 0), (), {each.id: each for each in summaries}, holds)


def _trimmed(
    config: Config,
    store: Store,
    contents: StoreContents,
    holders: list[VenvHolds],
    gone: list[Registration],
    *,
    now: float,
    dry_run: bool,
) -> Trimmed:
    """Return what a look at all that is in the store gives, done unless *dry_run*; *gone* are forgotten."""
    alive = [each for each in contents.registrations if each not in gone]
    summaries, holds = store.summaries_of(contents.snapshots.values()), Holders(holders, config)
    size = store.size_on_disk()
    decided = _planned(config, summaries, holds, contents, alive, now=now, size=size, free=store.free_bytes())
    swept, forgotten = None, tuple(each.path for each in gone)
    if not dry_run:
        for path in forgotten:
            store.unregister(path)
        dropped = {each.id for each in decided.drop}
        _write(store, holders, [_left_of(each, decided.given_up, dropped) for each in holders])
        store.drop(dropped)
        contents.forget(dropped, forgotten)
        swept = sweep(store, contents, size=size)
    return Trimmed(decided, swept, forgotten, {each.id: each for each in summaries}, holds)


def _left_of(holder: VenvHolds, given_up: Mapping[str, frozenset[VenvName]], dropped: set[str]) -> VenvHolds:
    """Return what a venv holds from now on: nothing of what is *dropped*, and what it did not give up."""
    return holder.without(dropped | {each for each, venvs in given_up.items() if holder.venv in venvs})


def _write(store: Store, before: Iterable[VenvHolds], after: Iterable[VenvHolds]) -> None:
    """Write down what venvs hold, where that changed; on a full disk it has to wait, and does no harm."""
    for old, new in zip(before, after, strict=True):
        if new != old:
            with suppress(EnvironmentFailure):
                store.hold(new)


def _is_forgotten(venv: Registration, config: Config) -> bool:
    """Return whether a venv is gone, with its project or because this config does not name it, for good.

    One that is linked by symlinks may come back, and needs the store then.
    """
    ours = venv.project == os.path.realpath(config.root) and venv.name not in config.venvs
    return (venv.gone or (ours and not os.path.lexists(venv.path))) and venv.link != "symlink"


def _remember(store: Store, trimmed: Trimmed, config: Config, now: float, seconds: float) -> None:
    """Let the history know what went, and forget what is too old in it; on a full disk that has to wait."""
    freed = trimmed.swept.bytes if trimmed.swept is not None else 0
    with suppress(VenvflowError):
        if trimmed.plan.drop or freed:
            outcome = Outcome("trimmed", "", {"bytes": freed})
            note_for_all(store, config, "trim", outcome, now=now, seconds=seconds)
        forget_old(store.index, now)


def _note(store: Store, now: float, config: Config) -> None:
    """Remember that the project's policy was applied, beside others; on a full disk that has to wait."""
    notes = {each: noted for each, noted in read_trims(store.path).items() if is_recent(noted, now)}
    notes[name_of_trim(config)] = TrimNote(now, store.generation())
    with suppress(OSError):
        store.layout.write(TRIM_NOTE, encode_trims(notes))
