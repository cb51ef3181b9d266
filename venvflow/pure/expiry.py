"""Decides what of a remote goes, and what may not go yet: records by the policy, parcels that none needs.

There are no locks in a remote, so that a trim and a push may meet. These rules keep every parcel that a
record needs, whatever the order of their requests, where a server answers with what was written last:

1. A push begins by reading the *marks*. A parcel that was written before it was *condemned* counts as not
   there, and is sent anew. What is not condemned by then cannot go for a *grace*, which is at least twice as
   long as a push may take. So what a record needs that is there then, and is not condemned, need not be
   looked for.
2. A trim condemns what no record needs. A grace later at the earliest it *dooms* it: it writes that down
   first, then looks again at the marks, records and parcels, and deletes only what is still condemned, still
   needed by none, and was not sent anew.
3. A push ends by reading the marks again, before its record, and then looks whether what was condemned at its
   beginning is there. If one of its trees is doomed or gone, it gives up: the parcel that it sent may be the
   one that is deleted, or was.

A mark is never written again under its name. Times are those that the server gives what is written; the clock
of no client counts. They may be cut to whole seconds, so that what has the same one may be the younger.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from venvflow.model import RemoteKeep
from venvflow.pure import decoding
from venvflow.pure.decoding import Corrupt
from venvflow.pure.parcels import is_condemned
from venvflow.pure.records import SeenRecord
from venvflow.pure.retention import Candidate, Dropped, Kept, SpaceLedger, TreeContents, Usage
from venvflow.pure.units import show_duration, show_size

MARKS = "v1/gc"
"""Where marks lie in a remote."""

MOST_IN_MARK = 5000
"""Trees in one mark."""

LARGEST_MARK = 1 << 20
"""Bytes that a mark may have."""

STALE = 3600.0
"""Seconds after which nobody works any more under a mark by which a trim has doomed, or seen, something."""

_FORMAT = 1

Kind = Literal["condemned", "doomed", "run"]


class Parcel(NamedTuple):
    """A parcel that is there: bytes, and when it was written."""

    size: int
    written: float


class Mark(NamedTuple):
    """What a trim has written down: *trees* are None if that cannot be read.

    ``condemned``: they are to go a grace later. ``doomed``: they are being deleted. ``run``: nothing; its
    time is the server's at the beginning of a trim.
    """

    name: str
    kind: Kind
    written: float
    trees: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Expiry:
    """What a trim of a remote has to do.

    *keep* are the records that stay, last written first; *drop* those that go, in their order. *condemn* are
    the parcels to condemn, *due* those that may be doomed, *waiting* those that were condemned and are not
    due yet. *freed* are bytes of all parcels that no record needs then. *problems* are limits that cannot be
    met, and what keeps parcels from going.
    """

    keep: tuple[Kept, ...]
    drop: tuple[Dropped, ...]
    condemn: tuple[str, ...]
    due: tuple[str, ...]
    waiting: tuple[str, ...]
    freed: int
    problems: tuple[str, ...] = ()


class WantedRecords(NamedTuple):
    """What a config wants of a remote: the *names* of its venvs, which are *pinned*, and what is *current*.

    The last are the names by the ids of the records.
    """

    names: Collection[str] = ()
    pinned: Collection[str] = ()
    current: Mapping[str, str] = {}


# --------------------------------------------------------------------------- marks


def encode_mark(trees: Iterable[str]) -> bytes:
    """Return a mark about *trees*."""
    text = json.dumps({"format": _FORMAT, "trees": sorted(trees)}, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def decode_mark(data: bytes) -> tuple[str, ...]:
    """Return the trees that a mark is about; raises Corrupt."""
    found = decoding.fields(
        decoding.parse(data),
        format=decoding.integer(_FORMAT, _FORMAT),
        trees=decoding.listed(decoding.digest),
    )
    trees: tuple[str, ...] = found["trees"]
    if len(trees) > MOST_IN_MARK:
        raise Corrupt("it is about too many trees")
    return trees


def kind_of(name: str) -> Kind | None:
    """Return of which kind the mark of this name is; None for what is no mark."""
    kind, _, rest = name.partition("-")
    if kind in ("condemned", "doomed", "run") and len(rest) == 32 and not set(rest) - set("0123456789abcdef"):
        return kind  # type: ignore[return-value]  # it was just compared
    return None


def condemned_since(marks: Iterable[Mark]) -> dict[str, float]:
    """Return when each tree was last condemned or doomed."""
    since: dict[str, float] = {}
    for mark in marks:
        for tree in mark.trees or ():
            since[tree] = max(mark.written, since.get(tree, mark.written))
    return since


def doomed(marks: Iterable[Mark]) -> set[str]:
    """Return the trees that are being deleted."""
    return {tree for mark in marks if mark.kind == "doomed" for tree in mark.trees or ()}


def due(
    marks: Iterable[Mark], parcels: Mapping[str, Parcel], needed: Collection[str], *, now: float, grace: float
) -> set[str]:
    """Return the trees whose parcels may be doomed.

    They were condemned a *grace* ago, are *needed* by no record, and were not sent since.
    """
    return {
        tree
        for mark in marks
        if mark.kind == "condemned" and int(now) - int(mark.written) >= grace
        for tree in mark.trees or ()
        if tree in parcels and tree not in needed and int(parcels[tree].written) < int(mark.written)
    }


def settled(
    marks: Iterable[Mark], parcels: Mapping[str, Parcel], needed: Collection[str], *, now: float, grace: float
) -> Iterator[str]:
    """Yield the names of marks under which nothing is left to do, or that a trim left which was killed.

    *parcels* are those that are left.
    """
    for mark in marks:
        age = now - mark.written
        left = (
            tree
            for tree in mark.trees or ()
            if tree in parcels and tree not in needed and int(parcels[tree].written) < int(mark.written)
        )
        if age >= (grace if mark.kind == "condemned" else STALE) and (
            mark.kind != "condemned" or not any(left)
        ):
            yield mark.name


# --------------------------------------------------------------------------- the plan


def needed_by(records: Iterable[SeenRecord]) -> set[str] | None:
    """Return the trees that records need, believed or not; None if that cannot be known of one of them."""
    needed: set[str] = set()
    for record in records:
        if record.trees is None:
            return None
        needed.update(record.trees)
    return needed


def plan_expiry(
    records: Sequence[SeenRecord],
    parcels: Mapping[str, Parcel],
    marks: Sequence[Mark],
    keep: RemoteKeep,
    *,
    now: float,
    wanted: WantedRecords,
) -> Expiry:
    """Return what goes of a remote by its policy *keep*; *now* is the server's time.

    Records that the config's venvs want, and the newest of each of them, stay; others go by ``max_age``, then
    by ``max_size``: of those first which are not believed, then those written longest ago.
    """
    expiring = _Expiring(records, parcels, keep, now, wanted)
    expiring.drop_old()
    expiring.drop_large()
    left = list(expiring.left.values())
    needed = needed_by(left)
    problems = expiring.problems
    if needed is None:
        unread = sum(record.trees is None for record in left)
        problems.append(
            f"{unread:,} of the records cannot be read, so that it is not known which parcels they need: "
            "no parcel goes while they are there. Trim with the venvflow that wrote them"
        )
        needed = set(parcels)
    ready = due(marks, parcels, needed, now=now, grace=keep.grace)
    since = condemned_since(mark for mark in marks if mark.kind == "condemned")
    loose = [tree for tree in sorted(parcels) if tree not in needed]
    known = {tree for tree in loose if is_condemned(tree, parcels[tree].written, since)}
    condemn = [
        tree for tree in loose if tree not in known and int(now) - int(parcels[tree].written) >= keep.grace
    ]
    return Expiry(
        tuple(expiring.kept()),
        tuple(expiring.dropped),
        tuple(condemn),
        tuple(sorted(ready)),
        tuple(sorted(known - ready)),
        sum(parcels[tree].size for tree in loose),
        tuple(problems),
    )


@dataclass
class _Expiring:
    """The state of one decision: which records are left, and what they need."""

    records: Sequence[SeenRecord]
    parcels: Mapping[str, Parcel]
    keep: RemoteKeep
    now: float
    wanted: WantedRecords
    dropped: list[Dropped] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Those first that may go first.
        order = sorted(self.records, key=lambda each: (not each.doubt, each.written, each.id))
        self.left = {record.id: record for record in order}
        sizes = {tree: parcel.size for tree, parcel in self.parcels.items()}
        self._candidates = {
            each.id: Candidate(each.id, Usage(0, each.written), trees=each.trees or ()) for each in order
        }
        self._ledger = SpaceLedger(
            list(self._candidates.values()), TreeContents({tree: (tree,) for tree in sizes}, sizes)
        )
        self._size = sum(sizes.values())
        newest: dict[str, SeenRecord] = {}
        for record in self.records:
            if record.venv in self.wanted.names and not record.doubt:
                newest[record.venv] = max(
                    record, newest.get(record.venv, record), key=lambda each: each.written
                )
        self._newest = {record.id for record in newest.values()}

    def drop_old(self) -> None:
        limit = self.keep.max_age
        if limit is None:
            return
        for record in list(self.left.values()):
            if self.now - record.written > limit and not self._firm(record):
                self._drop(record, f"{self._last(record)}, max_age is {show_duration(limit)}")

    def drop_large(self) -> None:
        limit = self.keep.max_size
        if limit is None:
            return
        for record in list(self.left.values()):
            if (size := self._size - self._ledger.freed) <= limit:
                return
            if record.trees is not None and not self._firm(record):
                large = f"the remote has {show_size(size)}, max_size is {show_size(limit)}"
                self._drop(record, f"{large}, {self._last(record)}")
        if (size := self._size - self._ledger.freed) > limit:
            self.problems.append(
                f"the remote has {show_size(size)}, max_size is {show_size(limit)}: the rest is pinned, "
                "current, newest of its venv, or cannot be read"
            )

    def kept(self) -> Iterator[Kept]:
        """Yield what is left, last written first, with reasons."""
        for record in sorted(self.left.values(), key=lambda each: (-each.written, each.id)):
            reasons = [*self._firm(record)]
            if not reasons:
                reasons = [f"within the limits, {self._last(record)}"]
            if record.doubt:
                reasons.append(f"not believed: {record.doubt}")
            yield Kept(record.id, tuple(reasons))

    def _drop(self, record: SeenRecord, reason: str) -> None:
        del self.left[record.id]
        freed = self._ledger.drop(self._candidates[record.id])
        doubt = f"; not believed: {record.doubt}" if record.doubt else ""
        self.dropped.append(Dropped(record.id, reason + doubt, freed))

    def _firm(self, record: SeenRecord) -> list[str]:
        """Return why a record stays, whatever its age."""
        if record.doubt:
            return []
        firm = ["pinned"] if record.venv in self.wanted.pinned else []
        if record.id in self.wanted.current:
            firm.append(f"current for {self.wanted.current[record.id]}")
        if record.id in self._newest:
            firm.append(f"the newest of {record.venv}")
        return firm

    def _last(self, record: SeenRecord) -> str:
        return f"last pushed {show_duration(max(self.now - record.written, 0))} ago"
