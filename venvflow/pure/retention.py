"""Decides which snapshots to keep, before anything is deleted.

Snapshots share bytes, so that the size of one says little about what dropping it frees. The plan counts:
a tree goes with the last snapshot that needs it, an object with the last tree. Order is by a counter of
uses; the clock only tells ages, so that a clock that jumps can make nothing old look new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from venvflow.model import TrimPolicy
from venvflow.pure.units import counted, show_duration, show_size

_PROTECTED = "the rest is pinned, current, or most recently used of its venv"


class VenvName(NamedTuple):
    """A venv that holds a snapshot: the path of its *project*, and its *name* there."""

    project: str
    name: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A snapshot that may be dropped.

    *venv* is the name of the one that it was made of, *holders* are all that were built as it or restored
    from it and are still there: project and name tell them apart for ``keep_per_venv``. *used_seq*
    grows with every use of any snapshot, *used_at* is in seconds since 1970. *current_for* names the venvs
    whose key this is now. *trees* are those of :class:`TreeContents`.
    """

    id: str
    venv: str
    used_seq: int
    used_at: float
    pinned: bool = False
    current_for: tuple[str, ...] = ()
    trees: tuple[Hashable, ...] = ()
    holders: tuple[VenvName, ...] = ()


@dataclass(frozen=True, slots=True)
class TreeContents:
    """What is in the trees, by any names: each tree's objects, each object's bytes on disk.

    *held* are trees that something else than a snapshot needs. Objects without a size count as nothing,
    which is right for those that another store or tool shares.
    """

    tree_objects: Mapping[Any, Iterable[Hashable]] = field(default_factory=dict)
    object_sizes: Mapping[Any, int] = field(default_factory=dict)
    held: tuple[Hashable, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot that stays, and why."""

    id: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A snapshot to drop, why, and the bytes that this frees after those before it are dropped."""

    id: str
    reason: str
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class TrimPlan:
    """What to do: *keep*, last used first, and *drop*, in the order in which to do it.

    *freed_bytes* are those of all objects that nothing kept needs, some of which nothing needed before.
    *problems* says which limits cannot be met, and why.
    """

    keep: tuple[Kept, ...]
    drop: tuple[Dropped, ...]
    freed_bytes: int
    problems: tuple[str, ...]


def plan_trim(
    snapshots: Sequence[Candidate],
    policy: TrimPolicy,
    *,
    contents: TreeContents,
    now: float,
    store_size: int,
    free: int | None,
) -> TrimPlan:
    """Return which *snapshots* to keep and to drop by *policy*.

    *now* is in seconds since 1970, *store_size* and *free* are bytes: on disk in the store, and free on its
    file system (``None``: not known). The order of *snapshots* does not matter.

    Pinned and current snapshots are never dropped, nor are the ``keep_per_venv`` most recently used of
    each holder. Those that nobody holds any more count by the name of their venv, and yield to ``max_age``:
    else they would stay for ever.
    ``keep``, ``max_size`` and ``min_free`` drop the least recently used of the others.
    """
    trimming = _Trimming(snapshots, policy, contents, now)
    trimming.drop_old()
    trimming.drop_many()
    trimming.drop_large(store_size, free)
    return trimming.plan()


class _Trimming:
    """The state of one decision: what is left, and what it needs."""

    def __init__(
        self, snapshots: Sequence[Candidate], policy: TrimPolicy, contents: TreeContents, now: float
    ) -> None:
        self._policy = policy
        self._now = now
        self._ledger = _Ledger(snapshots, contents)
        # Least recently used first. Equal counters do not happen, but must not make the plan random.
        self._left = {s.id: s for s in sorted(snapshots, key=lambda s: (s.used_seq, s.id))}
        self._firm = {s.id: _firm_reasons(s) for s in snapshots}
        self._recent_of = _recent(self._left.values(), policy.keep_per_venv)
        self._dropped: list[Dropped] = []
        self._problems: list[str] = []

    def drop_old(self) -> None:
        limit = self._policy.max_age
        if limit is None:
            return
        kept = {
            s.id for s in self._left.values() if self._firm[s.id] or (s.id in self._recent_of and s.holders)
        }
        for snapshot in [s for s in self._left.values() if s.id not in kept]:
            if self._now - snapshot.used_at > limit:
                self._drop(
                    snapshot, f"last used {self._age(snapshot)} ago, max_age is {show_duration(limit)}"
                )

    def drop_many(self) -> None:
        limit = self._policy.keep
        if limit is None:
            return
        for snapshot in self._droppable():
            count = len(self._left)
            if count <= limit:
                return
            reason = f"{counted(count, 'snapshot')}, keep is {limit}, last used {self._age(snapshot)} ago"
            self._drop(snapshot, reason)
        if len(self._left) > limit:
            self._problems.append(
                f"{counted(len(self._left), 'snapshot')} left, keep is {limit}: {_PROTECTED}"
            )

    def drop_large(self, store_size: int, free: int | None) -> None:
        if self._policy.min_free is not None and free is None:
            self._problems.append("min_free is not checked: it is not known how much space is free")
        for snapshot in self._droppable():
            excess = self._excess(store_size, free)
            if not excess:
                return
            self._drop(snapshot, f"{excess[0]}, last used {self._age(snapshot)} ago")
        self._problems += [f"{problem}: {_PROTECTED}" for problem in self._excess(store_size, free)]

    def plan(self) -> TrimPlan:
        keep = tuple(Kept(s.id, self._reasons(s)) for s in reversed(self._left.values()))
        return TrimPlan(keep, tuple(self._dropped), self._ledger.freed, tuple(self._problems))

    def _excess(self, store_size: int, free: int | None) -> list[str]:
        """Return which size limits are not met once what is dropped so far is gone."""
        found = []
        size, most, least = store_size - self._ledger.freed, self._policy.max_size, self._policy.min_free
        if most is not None and size > most:
            found.append(f"the store has {show_size(size)}, max_size is {show_size(most)}")
        if least is not None and free is not None and free + self._ledger.freed < least:
            found.append(f"{show_size(free + self._ledger.freed)} are free, min_free is {show_size(least)}")
        return found

    def _droppable(self) -> list[Candidate]:
        return [s for s in self._left.values() if not self._firm[s.id] and s.id not in self._recent_of]

    def _drop(self, snapshot: Candidate, reason: str) -> None:
        del self._left[snapshot.id]
        self._dropped.append(Dropped(snapshot.id, reason, self._ledger.drop(snapshot)))

    def _reasons(self, snapshot: Candidate) -> tuple[str, ...]:
        reasons = list(self._firm[snapshot.id])
        if snapshot.id in self._recent_of:
            number = self._policy.keep_per_venv
            which = "most" if number == 1 else f"{number} most"
            names = ", ".join(sorted(self._recent_of[snapshot.id]))
            reasons.append(f"among the {which} recently used of {names}")
        return tuple(reasons) or (f"within the limits, last used {self._age(snapshot)} ago",)

    def _age(self, snapshot: Candidate) -> str:
        # A clock that was set back: used just now.
        return show_duration(max(self._now - snapshot.used_at, 0))


class _Ledger:
    """Counts who needs what, and the bytes that nobody needs any more."""

    def __init__(self, snapshots: Sequence[Candidate], contents: TreeContents) -> None:
        self._objects_of = contents.tree_objects
        self._sizes = contents.object_sizes
        self._trees = Counter(chain(contents.held, chain.from_iterable(s.trees for s in snapshots)))
        # Once per tree, however many snapshots share it: this is what makes thousands of them cheap.
        objects = chain.from_iterable(self._objects_of.get(tree, ()) for tree in self._trees)
        self._objects = Counter(objects)
        self.freed = sum(size for name, size in self._sizes.items() if name not in self._objects)

    def drop(self, snapshot: Candidate) -> int:
        """Return how many bytes are freed by dropping *snapshot* now."""
        before = self.freed
        for tree in snapshot.trees:
            self._trees[tree] -= 1
            if not self._trees[tree]:
                self._drop_tree(tree)
        return self.freed - before

    def _drop_tree(self, tree: Hashable) -> None:
        for name in self._objects_of.get(tree, ()):
            self._objects[name] -= 1
            if not self._objects[name]:
                self.freed += self._sizes.get(name, 0)


def _firm_reasons(snapshot: Candidate) -> tuple[str, ...]:
    pinned = ("pinned",) if snapshot.pinned else ()
    current = (f"current for {', '.join(snapshot.current_for)}",) if snapshot.current_for else ()
    return pinned + current


def _recent(ordered: Iterable[Candidate], number: int) -> dict[str, set[str]]:
    """Return the *number* last of each holder in *ordered*, with the names of those whose they are."""
    by_holder: dict[VenvName, list[str]] = {}
    for snapshot in ordered:
        for holder in snapshot.holders or (VenvName("", snapshot.venv),):
            by_holder.setdefault(holder, []).append(snapshot.id)
    recent: dict[str, set[str]] = {}
    for holder, ids in by_holder.items():
        for each in ids[max(len(ids) - number, 0) :]:
            recent.setdefault(each, set()).add(holder.name)
    return recent
