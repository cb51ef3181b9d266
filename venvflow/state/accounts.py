"""Accounts: what trees occupy on disk, counted as ``du`` does: blocks, each inode once, with directories."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from venvflow.disk.scan import BLOCK, Found, look

InodeId = tuple[int, int]
"""Device and number: what tells one inode from all others."""


class Inode(NamedTuple):
    """An inode that a census met.

    *bytes* are those that it occupies, *size* those that it shows, *links* the names that it has in the
    world, *names* those that were met.
    """

    bytes: int
    size: int
    links: int
    names: int
    is_directory: bool


Census = dict[InodeId, Inode]


def census(root: str, *, without: str = "") -> Census:
    """Return every inode at and below the directory *root*, which need not exist. Nothing is followed.

    What vanishes meanwhile, or cannot be looked into, is left out: others may be at work. So is what lies at
    and below the directory *without*.
    """
    found: Census = {}
    with suppress(OSError):
        _count(found, os.lstat(root))
        waiting = [root]
        while waiting:
            waiting += _count_directory(found, waiting.pop(), without)
    return found


def _count_directory(found: Census, path: str, without: str) -> list[str]:
    """Count what is in one directory, but for *without*, and return the directories among it."""
    below: list[str] = []
    try:
        entries = os.scandir(path)
    except OSError:
        return below
    with entries:
        for entry in entries:
            if entry.path == without:
                continue
            try:
                st = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            _count(found, st)
            if stat.S_ISDIR(st.st_mode):
                below.append(entry.path)
    return below


def _count(found: Census, st: os.stat_result) -> None:
    key = (st.st_dev, st.st_ino)
    known = found.get(key)
    names = known.names + 1 if known is not None else 1
    found[key] = Inode(st.st_blocks * BLOCK, st.st_size, st.st_nlink, names, stat.S_ISDIR(st.st_mode))


def census_of(root: str, found: Iterable[Found]) -> Census:
    """Return the census of the directory *root* from a walk of all that is below it."""
    counted: Census = {}
    for item in (look(root), *found):
        key = item.device, item.stamp.inode
        known = counted.get(key)
        names = known.names + 1 if known is not None else 1
        counted[key] = Inode(item.occupied, item.stamp.size, item.links, names, item.kind == "dir")
    return counted


def merged(parts: Iterable[Mapping[InodeId, Inode]]) -> Census:
    """Return several censuses as one: inodes that are in more than one of them count once."""
    total: Census = {}
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
        self._store = _Stock(store)
        self._before: Census = {}
        self._after: dict[str, Census | None] = {}

    def open(self, venv: str, found: Iterable[Found] | None = None) -> None:
        """Count a venv that is about to be changed; with the first one, the store too.

        *found* is what a walk of all of it has found just now, if there was one.
        """
        if not self._after:
            self._before = {} if self._is_new else self._store.census()
        self._after[venv] = None
        counted = census(venv) if found is None else census_of(venv, found)
        self._before = merged([self._before, counted])

    def settle(self, venv: str, found: Iterable[Found]) -> None:
        """Count a venv that was changed, by how all below it looks now; if not, it is walked at the end."""
        self._after[venv] = census_of(venv, found)

    def close(self) -> Balance:
        """Count what was not counted since it was changed, and return what changed."""
        counted = (census(venv) if after is None else after for venv, after in self._after.items())
        after = merged([self._store.census(), *counted] if self._after else [])
        lost = {key: inode for key, inode in self._before.items() if key not in after}
        elsewhere = sum(inode.bytes for inode in lost.values() if inode.links > inode.names)
        return Balance(occupied(self._before), occupied(after), elsewhere)


class _Stock:
    """A store to be counted more than once: objects never change, so what their directories held is known."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._objects = f"{store}/objects"
        self._known: dict[str, tuple[int, Census]] = {}

    def census(self) -> Census:
        """Return the census of the store as it is now."""
        found = census(self._store, without=self._objects)
        with suppress(OSError):
            _count(found, os.lstat(self._objects))
            with os.scandir(self._objects) as fans:
                return merged([found, *(self._fan(fan.path) for fan in fans)])
        return found

    def _fan(self, path: str) -> Census:
        """Return the census of one directory of objects; its mtime tells whether any came or went."""
        try:
            mtime = os.lstat(path).st_mtime_ns
        except OSError:
            return {}
        known = self._known.get(path)
        if known is None or known[0] != mtime:
            known = self._known[path] = mtime, census(path)
        return known[1]


class Balance(NamedTuple):
    """Bytes on disk *before* and *after*; *elsewhere* is what left these trees, but others still hold."""

    before: int
    after: int
    elsewhere: int

    @property
    def saved(self) -> int:
        """Return by how much less ``du`` says; negative while the store gets its first copy."""
        return self.before - self.after
