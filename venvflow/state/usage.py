"""What a store and its venvs hold, and how much disk that takes, counted as ``du`` does.

All of it is read from the files on disk, never from the index, and nothing is changed. The answers are exact
only while nobody changes the store.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from venvflow.disk.objects import MtimeMode, Name, object_name
from venvflow.disk.scan import BLOCK
from venvflow.errors import EnvironmentFailure
from venvflow.model import Entry, Snapshot, Tree
from venvflow.pure.manifest import Corrupt
from venvflow.pure.sharing import stays_private
from venvflow.state.file_stats import TreeStats, stats_of
from venvflow.state.reader import StoreReader
from venvflow.state.registry import Registration

# --------------------------------------------------------------------------- what is in the store

Sized = tuple[Name, int]
"""An object with its size in bytes."""


class StoreContents:
    """What is in *store*: read on first use, each tree once however many have it, and then kept."""

    def __init__(self, store: StoreReader) -> None:
        self._store = store
        self._objects_of: dict[str, list[Sized]] = {}
        self._trees: dict[str, Tree | None] = {}
        self._files_of: dict[str, tuple[Entry, ...] | None] = {}
        self._divided_trees: dict[str, tuple[list[Entry], list[tuple[Sized, Entry]]]] = {}

    @cached_property
    def snapshots(self) -> dict[str, Snapshot]:
        """Every snapshot by its id, oldest first."""
        return {snapshot.id: snapshot for snapshot in self._store.snapshots()}

    @cached_property
    def registrations(self) -> list[Registration]:
        """All venvs that use the store; raises EnvironmentFailure when one of them cannot be known."""
        return self._store.registrations()

    @cached_property
    def objects(self) -> dict[Name, int]:
        """Every object on disk, with the bytes that deleting it frees: none while a venv is linked to it."""
        found = self._store.objects.names()
        return {name: st.st_blocks * BLOCK if st.st_nlink == 1 else 0 for name, st in found}

    @cached_property
    def adopted(self) -> dict[Name, MtimeMode]:
        """The adopted objects, with the looks that they came with."""
        return self._store.adopted()

    def objects_of(self, tree: str) -> list[Sized]:
        """Return what a tree lists; nothing for one that is missing or damaged: its snapshots are misses."""
        if tree not in self._objects_of:
            self._objects_of[tree] = []
            with suppress(Corrupt):
                self._objects_of[tree] = self._store.tree_objects(tree)
        return self._objects_of[tree]

    def tree(self, digest: str) -> Tree | None:
        """Return a tree, None if it is missing or damaged."""
        if digest not in self._trees:
            self._trees[digest] = None
            with suppress(Corrupt):
                self._trees[digest] = self._store.tree(digest)
        return self._trees[digest]

    def files_of(self, tree: str) -> tuple[Entry, ...] | None:
        """Return the files and templates of a tree, None if it is missing or damaged."""
        if tree not in self._files_of:
            found = self.tree(tree)
            files = None if found is None else tuple(each for each in found.entries if each.digest)
            self._files_of[tree] = files
        return self._files_of[tree]

    def stats(self, tree: str) -> TreeStats | None:
        """Return how the files of a tree should look, None if it is missing or damaged."""
        entries = self.files_of(tree)
        return None if entries is None else stats_of(entries, self.adopted)

    def forget(self, snapshots: Iterable[str], venvs: Container[str]) -> None:
        """Count no longer on these snapshots, by their ids, and venvs, by their paths: they are gone."""
        for identifier in snapshots:
            del self.snapshots[identifier]
        self.registrations[:] = [each for each in self.registrations if each.path not in venvs]

    # ----------------------------------------------------------------------- what only one of many has

    def own_bytes(self) -> dict[str, int]:
        """Return for each snapshot, by id, the bytes of the objects that no other one has."""
        trees = {snapshot.id: snapshot.trees for snapshot in self.snapshots.values()}
        own = dict.fromkeys(trees, 0)
        for (_, size), snapshot in sole_owners(trees, self.objects_of).items():
            own[snapshot] += size
        return own

    def own_bytes_of_venvs(
        self,
        trees: Mapping[str, Iterable[str]],
        min_sizes: Mapping[str, int],
        copies: Mapping[str, Collection[str]],
    ) -> dict[str, int]:
        """Return for each venv in *min_sizes*, by path, the bytes of its :meth:`own_files_of_venvs`."""
        own = dict.fromkeys(min_sizes, 0)
        for venv, _, files in self.own_files_of_venvs(trees, min_sizes, copies):
            own[venv] += sum(entry.size for entry in files)
        return own

    def own_files_of_venvs(
        self,
        trees: Mapping[str, Iterable[str]],
        min_sizes: Mapping[str, int],
        copies: Mapping[str, Collection[str]],
    ) -> Iterator[tuple[str, str, list[Entry]]]:
        """Yield for the venvs in *min_sizes*, by path, and each of their trees the files that no other has.

        *trees* are those of all venvs. Files below a venv's min_size (bytes), its *copies* and those that are
        never shared are its own, even if another venv has the same. An object that is linked to several names
        of one venv is yielded for the first of them.
        """
        by_tree = _sole_tree_owners(trees)
        owners = sole_owners(trees, self._linked)
        for venv, min_size in min_sizes.items():
            copied = [(tree, *each) for tree in trees[venv] for each in self._copied(tree, copies[venv])]
            met = {name for _, name, _ in copied}
            for tree in trees[venv]:
                files = [*self._private(tree, min_size)]
                files += [entry for of, _, entry in copied if of == tree and entry.size >= min_size]
                for each, entry in self._divided(tree)[1] if by_tree[tree] == venv else ():
                    if owners.get(each) == venv and entry.size >= min_size and each not in met:
                        met.add(each)
                        files.append(entry)
                yield venv, tree, files

    def _copied(self, tree: str, paths: Collection[str]) -> Iterator[tuple[Sized, Entry]]:
        """Yield the files of a tree that venvs may be linked to, but for one that has *paths* as copies."""
        if paths:
            yield from ((each, entry) for each, entry in self._divided(tree)[1] if entry.path in paths)

    def _private(self, tree: str, min_size: int) -> list[Entry]:
        """Return the files that no venv shares, nor one that shares none below *min_size*."""
        private, linked = self._divided(tree)
        return private + [entry for _, entry in linked if entry.size < min_size]

    def _linked(self, tree: str) -> Iterable[Sized]:
        """Return the objects of a tree that venvs may be linked to."""
        return (each for each, _ in self._divided(tree)[1])

    def _divided(self, tree: str) -> tuple[list[Entry], list[tuple[Sized, Entry]]]:
        """Return the files that no venv shares, and the others with their objects."""
        if tree not in self._divided_trees:
            private: list[Entry] = []
            linked: list[tuple[Sized, Entry]] = []
            for entry in self.files_of(tree) or ():
                name = object_name(entry)
                if stays_private(entry, 1, adopted=name in self.adopted):
                    private.append(entry)
                else:
                    linked.append(((name, entry.size), entry))
            self._divided_trees[tree] = private, linked
        return self._divided_trees[tree]

    def trees_by_venv(self) -> dict[str, tuple[str, ...]]:
        """Return the trees of each registered venv that is there, by its path; none: not known."""
        found: dict[str, tuple[str, ...]] = {}
        with suppress(EnvironmentFailure):  # a sweep says what is wrong there
            for registration in self.registrations:
                if os.path.lexists(registration.path):
                    found[registration.path] = self._trees_of(registration)
        return found

    def _trees_of(self, registration: Registration) -> tuple[str, ...]:
        """Return the trees of a registered venv: its own, or those of its snapshot; none if that is gone."""
        if registration.trees or registration.snapshot is None:
            return registration.trees
        snapshot = self._store.snapshot(registration.snapshot)
        return snapshot.trees if snapshot is not None else ()


def sole_owners(
    trees: Mapping[str, Iterable[str]], objects_of: Callable[[str], Iterable[Sized]]
) -> dict[Sized, str]:
    """Return the objects that are in the *trees* of one owner only, with that owner.

    Each tree is looked into once, however many owners share it.
    """
    owners: dict[Sized, str] = {}
    for digest, owner in _sole_tree_owners(trees).items():
        for each in objects_of(digest):
            owners[each] = owner if owners.get(each, owner) == owner else ""
    return {each: owner for each, owner in owners.items() if owner}


def _sole_tree_owners(trees: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the only owner of each tree; nothing where several have it."""
    owners: dict[str, str] = {}
    for owner, digests in trees.items():
        for digest in digests:
            owners[digest] = owner if owners.get(digest, owner) == owner else ""
    return owners


# --------------------------------------------------------------------------- what is on disk

InodeId = tuple[int, int]
"""Device and number: what tells one inode from all others."""


class Inode(NamedTuple):
    """An inode that was met below a directory.

    *bytes* are those that it occupies, *size* those that it shows, *links* the names that it has in the
    world, *names* those that were met.
    """

    bytes: int
    size: int
    links: int
    names: int
    is_directory: bool


Inodes = dict[InodeId, Inode]


def inodes_below(root: str, *, without: str = "") -> Inodes:
    """Return every inode at and below the directory *root*, which need not exist. Nothing is followed.

    What vanishes meanwhile, or cannot be looked into, is left out: others may be at work. So is what lies at
    and below the directory *without*.
    """
    found: Inodes = {}
    with suppress(OSError):
        _count(found, os.lstat(root))
        waiting = [root]
        while waiting:
            waiting += _count_directory(found, waiting.pop(), without)
    return found


def _count_directory(found: Inodes, path: str, without: str) -> list[str]:
    """Count what is in one directory, but for *without*, and return the directories among it."""
    below: list[str] = []
    with suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.path != without:
                    _count(found, entry.stat(follow_symlinks=False))
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
    return below


def _count(found: Inodes, st: os.stat_result) -> None:
    key = st.st_dev, st.st_ino
    names = found[key].names + 1 if key in found else 1
    found[key] = Inode(st.st_blocks * BLOCK, st.st_size, st.st_nlink, names, stat.S_ISDIR(st.st_mode))


def merged(parts: Iterable[Mapping[InodeId, Inode]]) -> Inodes:
    """Return all inodes of *parts*: those that are in more than one of them count once."""
    total: Inodes = {}
    for part in parts:
        if total.keys().isdisjoint(part):
            total.update(part)
            continue
        for key, inode in part.items():
            known = total.get(key)
            total[key] = inode if known is None else known._replace(names=known.names + inode.names)
    return total


def occupied(inodes: Mapping[InodeId, Inode]) -> int:
    """Return the bytes that they occupy: what ``du`` says of the same trees."""
    return sum(inode.bytes for inode in inodes.values())


def size_on_disk(root: str) -> int:
    """Return the bytes that the files below *root* occupy, each inode once."""
    return sum(each.bytes for each in inodes_below(root).values() if not each.is_directory)


def apparent(inodes: Mapping[InodeId, Inode]) -> int:
    """Return the bytes that files show, each name counted: what copies would take, but for the blocks."""
    return sum(inode.size * inode.names for inode in inodes.values() if not inode.is_directory)


def freed(inodes: Mapping[InodeId, Inode]) -> int:
    """Return the bytes that the file system gets back when all these names go: no others are left then."""
    return sum(inode.bytes for inode in inodes.values() if inode.is_directory or inode.names >= inode.links)


class Ledger:
    """What venvs and their store occupy, before and after: :meth:`open` each before the first change."""

    def __init__(self, store: str) -> None:
        self._is_new = not os.path.lexists(store)  # it may be made before the first venv is changed
        self._store = store
        self._fans: dict[str, tuple[int, Inodes]] = {}
        self._before: Inodes = {}
        self._venvs: list[str] = []

    def open(self, venv: str) -> None:
        """Count a venv that is about to be changed; with the first one, the store too."""
        if not self._venvs:
            self._before = {} if self._is_new else self._in_store()
        self._venvs.append(venv)
        self._before = merged([self._before, inodes_below(venv)])

    def close(self) -> Balance:
        """Count all of them again, and return what changed."""
        after = merged([self._in_store(), *map(inodes_below, self._venvs)] if self._venvs else [])
        lost = {key: inode for key, inode in self._before.items() if key not in after}
        elsewhere = sum(inode.bytes for inode in lost.values() if inode.links > inode.names)
        return Balance(occupied(self._before), occupied(after), elsewhere)

    def _in_store(self) -> Inodes:
        """Return what the store is now; where no object came or went since, nothing is looked at again."""
        objects = f"{self._store}/objects"
        found = inodes_below(self._store, without=objects)
        with suppress(OSError):
            _count(found, os.lstat(objects))
            with os.scandir(objects) as fans:
                return merged([found, *(self._in_fan(fan.path) for fan in fans)])
        return found

    def _in_fan(self, path: str) -> Inodes:
        """Return what is in one directory of objects, which never change; its mtime tells of others."""
        try:
            mtime = os.lstat(path).st_mtime_ns
        except OSError:
            return {}
        if self._fans.get(path, (0,))[0] != mtime:
            self._fans[path] = mtime, inodes_below(path)
        return self._fans[path][1]


class Balance(NamedTuple):
    """Bytes on disk *before* and *after*; *elsewhere* is what left these trees, but others still hold."""

    before: int
    after: int
    elsewhere: int

    @property
    def saved(self) -> int:
        """Return by how much less ``du`` says; negative while the store gets its first copy."""
        return self.before - self.after
