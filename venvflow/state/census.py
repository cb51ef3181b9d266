"""A census: what lies in a store, each thing read once, for who decides what to drop and sweeps.

All of it is read from the files on disk, never from the index. It is as true as the store stands still:
hold it alone, or take the answers for what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from venvflow.disk.objects import Name
from venvflow.model import Snapshot
from venvflow.pure.manifest import Corrupt
from venvflow.state.reader import StoreReader
from venvflow.state.registry import Registration

Sized = Sequence[tuple[Name, int]]
"""Objects with their sizes in bytes."""


class OnDisk(NamedTuple):
    """What an object is to the file system: how many names it has, and the bytes that it occupies."""

    links: int
    occupied: int


class Census:
    """What is in *store*: read when it is asked for, and then kept."""

    def __init__(self, store: StoreReader) -> None:
        self._store = store
        self._trees: dict[str, Sized] = {}

    @cached_property
    def snapshots(self) -> dict[str, Snapshot]:
        """Every snapshot by its id, oldest first."""
        return {snapshot.id: snapshot for snapshot in self._store.snapshots()}

    @cached_property
    def registrations(self) -> list[Registration]:
        """All venvs that use the store; raises EnvironmentFailure when one of them cannot be known."""
        return self._store.registrations()

    @cached_property
    def objects(self) -> dict[Name, OnDisk]:
        """Every object on disk."""
        return {name: OnDisk(st.st_nlink, st.st_blocks * 512) for name, st in self._store.objects.names()}

    def objects_of(self, tree: str) -> Sized:
        """Return what a tree lists; nothing for one that is missing or damaged: its snapshots are misses."""
        if tree not in self._trees:
            try:
                self._trees[tree] = self._store.tree_objects(tree)
            except Corrupt:
                self._trees[tree] = ()
        return self._trees[tree]

    def forget(self, snapshots: Iterable[str], venvs: Container[str]) -> None:
        """Count no longer on these snapshots, by their ids, and venvs, by their paths: they are no more."""
        for identifier in snapshots:
            del self.snapshots[identifier]
        self.registrations[:] = [each for each in self.registrations if each.path not in venvs]

    def own_bytes(self) -> dict[str, int]:
        """Return for each snapshot, by id, the bytes of the objects that no other one has."""
        trees = {snapshot.id: snapshot.trees for snapshot in self.snapshots.values()}
        return own_bytes(trees, self.objects_of)


def own_bytes(trees: Mapping[str, Iterable[str]], objects_of: Callable[[str], Sized]) -> dict[str, int]:
    """Return for each snapshot the bytes of the objects that no other one has.

    *trees* are those of each snapshot. Each tree is looked into once, however many snapshots share it.
    """
    by_tree: dict[str, str] = {}  # empty: several snapshots have it
    for snapshot, digests in trees.items():
        for digest in digests:
            by_tree[digest] = snapshot if by_tree.get(digest, snapshot) == snapshot else ""
    owners: dict[Name, str] = {}
    sizes: dict[Name, int] = {}
    for digest, snapshot in by_tree.items():
        for name, size in objects_of(digest):
            owners[name] = snapshot if owners.get(name, snapshot) == snapshot else ""
            sizes[name] = size
    own = dict.fromkeys(trees, 0)
    for name, snapshot in owners.items():
        if snapshot:
            own[snapshot] += sizes[name]
    return own
