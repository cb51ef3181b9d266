"""Decides which snapshots to keep, before anything is deleted.

A snapshot stays while somebody holds it. The policy of a project ends that project's holds, and what nobody
holds any more goes; a limit of the store's size takes a snapshot whoever holds it.

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

from venvflow.errors import some
from venvflow.model import TrimPolicy
from venvflow.pure.units import counted, show_duration, show_size

FADE_SECONDS = 30 * 86_400
"""How long a venv that is gone holds what it used, without a ``max_age``."""


class Usage(NamedTuple):
    """A use: a counter that orders it among all uses, and its time in seconds since 1970."""

    seq: int
    at: float


class VenvName(NamedTuple):
    """A venv that holds a snapshot: the path of its *project*, and its *name* there."""

    project: str
    name: str

    def __str__(self) -> str:
        return f"{self.project}:{self.name}"


class Hold(NamedTuple):
    """That a *venv* was built as a snapshot or restored from it, and was last that at *used*.

    *pinned*: the venv's snapshots never go; *current*: the snapshot is for the venv's key now. *gone*: there
    is no such venv any more, so the hold ends with time.
    """

    venv: VenvName
    used: Usage
    pinned: bool = False
    current: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A snapshot that may be dropped: its last use by anybody, who holds it, and its trees.

    *trees* are those of :class:`TreeContents`.
    """

    id: str
    used: Usage
    holds: tuple[Hold, ...] = ()
    trees: tuple[Hashable, ...] = ()


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

    *given_up* are the venvs that give up a snapshot that is kept, by its id. *freed_bytes* are those of all
    objects that nothing kept needs, some of which nothing needed before. *problems* says which limits cannot
    be met, and why.
    """

    keep: tuple[Kept, ...]
    drop: tuple[Dropped, ...]
    given_up: Mapping[str, frozenset[VenvName]]
    freed_bytes: int
    problems: tuple[str, ...]


def plan_trim(
    snapshots: Sequence[Candidate],
    policy: TrimPolicy,
    *,
    project: str,
    contents: TreeContents,
    now: float,
    store_size: int,
    free: int | None,
) -> TrimPlan:
    """Return which *snapshots* to keep and to drop by the *policy* of *project*.

    *now* is in seconds since 1970, *store_size* and *free* are bytes: on disk in the store, and free on its
    file system (``None``: not known). The order of *snapshots* does not matter.

    ``max_age`` and ``keep`` end holds of the project, but for snapshots that are pinned or current there, and
    the ``keep_per_venv`` most recently used of each of its venvs. A venv that is gone, in whichever project,
    holds nothing longer than ``max_age``, or :data:`FADE_SECONDS`. What nobody holds then is dropped.
    ``max_size`` and ``min_free`` drop the least recently used of the rest that nobody has pinned or current.
    """
    trimming = _Trimming(snapshots, policy, project, contents, now)
    trimming.end_old()
    trimming.end_many()
    trimming.drop_unheld()
    trimming.drop_large(store_size, free)
    return trimming.plan()


class _Trimming:
    """The state of one decision: what is left, who holds it still, and what it needs."""

    def __init__(
        self,
        snapshots: Sequence[Candidate],
        policy: TrimPolicy,
        project: str,
        contents: TreeContents,
        now: float,
    ) -> None:
        self._policy = policy
        self._project = project
        self._now = now
        self._ledger = SpaceLedger(snapshots, contents)
        # Least recently used first. Equal counters do not happen, but must not make the plan random.
        self._left = {s.id: s for s in sorted(snapshots, key=lambda s: (s.used.seq, s.id))}
        self._holds = {s.id: list(s.holds) for s in snapshots}
        self._ended: dict[str, list[VenvName]] = {}
        self._why: dict[str, str] = {}
        self._recent = self._most_recent()
        self._dropped: list[Dropped] = []
        self._problems: list[str] = []

    # ----------------------------------------------------------------------- holds

    def end_old(self) -> None:
        """End the holds that are too old: those of this project, and those of venvs that are gone."""
        limit = self._policy.max_age
        fade = FADE_SECONDS if limit is None else limit
        for identifier, holds in self._holds.items():
            for hold in [each for each in holds if each.gone and self._is_older(each, fade)]:
                self._end(identifier, [hold], f"{self._names([hold.venv])} is gone, {self._last_used(hold)}")
            ours = self._ours(identifier)
            if limit is not None and ours and self._may_end(identifier):
                last = max(ours, key=lambda each: each.used)
                if self._is_older(last, limit):
                    self._end(identifier, ours, f"{self._last_used(last)}, max_age is {show_duration(limit)}")

    def end_many(self) -> None:
        """End the holds of this project on what it used least recently, until few snapshots are left."""
        limit = self._policy.keep
        if limit is None:
            return
        last = {each: max(h.used for h in ours) for each in self._holds if (ours := self._ours(each))}
        count = len(last)
        for identifier in sorted(last, key=lambda each: (last[each].seq, each)):
            if count <= limit:
                return
            if self._may_end(identifier):
                ours = self._ours(identifier)
                used = f"last used {self._age(last[identifier])} ago"
                self._end(identifier, ours, f"{counted(count, 'snapshot')}, keep is {limit}, {used}")
                count -= 1
        if count > limit:
            self._problems.append(
                f"{counted(count, 'snapshot')} of this project left, keep is {limit}: the rest is pinned, "
                "current, or most recently used of its venv"
            )

    def _most_recent(self) -> dict[str, set[str]]:
        """Return the ids of the last snapshots of each venv of this project, with the names of the venvs."""
        by_venv: dict[str, list[tuple[Usage, str]]] = {}
        for identifier in self._holds:
            for hold in self._ours(identifier):
                if not hold.gone:
                    by_venv.setdefault(hold.venv.name, []).append((hold.used, identifier))
        recent: dict[str, set[str]] = {}
        for name, used in by_venv.items():
            for _, identifier in sorted(used)[max(len(used) - self._policy.keep_per_venv, 0) :]:
                recent.setdefault(identifier, set()).add(name)
        return recent

    def _may_end(self, identifier: str) -> bool:
        firm = any(each.pinned or each.current for each in self._ours(identifier))
        return not firm and identifier not in self._recent

    def _end(self, identifier: str, holds: Iterable[Hold], why: str) -> None:
        for hold in holds:
            self._holds[identifier].remove(hold)
            self._ended.setdefault(identifier, []).append(hold.venv)
        self._why[identifier] = why

    def _ours(self, identifier: str) -> list[Hold]:
        return [each for each in self._holds[identifier] if each.venv.project == self._project]

    # ----------------------------------------------------------------------- snapshots

    def drop_unheld(self) -> None:
        """Drop what nobody holds any more."""
        for snapshot in list(self._left.values()):
            if not self._holds[snapshot.id]:
                self._drop(snapshot, self._why.get(snapshot.id, "nobody holds it"))

    def drop_large(self, store_size: int, free: int | None) -> None:
        """Drop the least recently used, whoever holds it, until the store is small enough."""
        if self._policy.min_free is not None and free is None:
            self._problems.append("min_free is not checked: it is not known how much space is free")
        for snapshot in list(self._left.values()):
            excess = self._excess(store_size, free)
            if not excess:
                return
            if not any(each.pinned or each.current for each in self._holds[snapshot.id]):
                self._drop(snapshot, f"{excess[0]}, last used {self._age(snapshot.used)} ago")
        excess = self._excess(store_size, free)
        self._problems += [f"{problem}: the rest is pinned or current" for problem in excess]

    def _excess(self, store_size: int, free: int | None) -> list[str]:
        """Return which size limits are not met once what is dropped so far is gone."""
        found = []
        size, most, least = store_size - self._ledger.freed, self._policy.max_size, self._policy.min_free
        if most is not None and size > most:
            found.append(f"the store has {show_size(size)}, max_size is {show_size(most)}")
        if least is not None and free is not None and free + self._ledger.freed < least:
            found.append(f"{show_size(free + self._ledger.freed)} are free, min_free is {show_size(least)}")
        return found

    def _drop(self, snapshot: Candidate, reason: str) -> None:
        del self._left[snapshot.id]
        self._dropped.append(Dropped(snapshot.id, reason, self._ledger.drop(snapshot)))

    # ----------------------------------------------------------------------- what is said

    def plan(self) -> TrimPlan:
        """Return what was decided."""
        keep = tuple(Kept(s.id, tuple(self._reasons(s))) for s in reversed(self._left.values()))
        given_up = {each: frozenset(self._ended[each]) for each in self._left if each in self._ended}
        return TrimPlan(keep, tuple(self._dropped), given_up, self._ledger.freed, tuple(self._problems))

    def _reasons(self, snapshot: Candidate) -> Iterable[str]:
        holds = self._holds[snapshot.id]
        ours = self._ours(snapshot.id)
        if snapshot.id in self._ended:
            yield f"given up by {self._names(self._ended[snapshot.id])} ({self._why[snapshot.id]})"
        if any(each.pinned for each in ours):
            yield "pinned"
        elif pinned := [each.venv for each in holds if each.pinned]:
            yield f"pinned by {self._names(pinned)}"
        if current := [each for each in holds if each.current]:
            yield f"current for {self._names(each.venv for each in current)}"
        if snapshot.id in self._recent:
            number = self._policy.keep_per_venv
            which = "most" if number == 1 else f"{number} most"
            yield f"among the {which} recently used of {', '.join(sorted(self._recent[snapshot.id]))}"
        if others := [each for each in holds if each not in ours and not (each.current or each.pinned)]:
            yield f"held by {self._names(each.venv for each in others)}"
        elif ours and self._may_end(snapshot.id):
            yield f"within the limits, last used {self._age(snapshot.used)} ago"

    def _names(self, venvs: Iterable[VenvName]) -> str:
        found = set(venvs)
        ours = sorted(each.name for each in found if each.project == self._project)
        return some([*ours, *sorted(str(each) for each in found if each.project != self._project)], 5)

    def _last_used(self, hold: Hold) -> str:
        return f"last used {self._age(hold.used)} ago"

    def _is_older(self, hold: Hold, seconds: int) -> bool:
        return self._now - hold.used.at > seconds

    def _age(self, used: Usage) -> str:
        # A clock that was set back: used just now.
        return show_duration(max(self._now - used.at, 0))


class SpaceLedger:
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
