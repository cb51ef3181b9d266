"""Holdings: what many venvs have in the store, each tree read once however many of them have it.

It answers two questions about a whole fleet: how should its files look, and which bytes are in one venv only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from venvflow.disk.objects import Look, Name, object_name
from venvflow.errors import EnvironmentFailure
from venvflow.model import Entry
from venvflow.pure.manifest import Corrupt, snapshot_id
from venvflow.pure.sharing import stays_private
from venvflow.state.looks import Looks, looks_of
from venvflow.state.reader import StoreReader
from venvflow.state.registry import Registration


class Holding(NamedTuple):
    """What a tree needs: entries that each venv has for itself, and those that venvs are linked to."""

    private: tuple[Entry, ...]
    linked: tuple[Entry, ...]


class Holdings:
    """What the venvs of a store have in it. Nothing is changed; what was read is kept, for one look."""

    def __init__(self, store: StoreReader) -> None:
        self._store = store
        self._entries: dict[str, tuple[Entry, ...] | None] = {}
        self._holdings: dict[tuple[str, int], Holding] = {}

    @cached_property
    def _adopted(self) -> dict[Name, Look]:
        return self._store.adopted()

    def of(self, digest: str, min_size: int) -> Holding:
        """Return what a tree needs; nothing if it is missing or damaged. Below *min_size* all is private."""
        key = digest, min_size
        if key not in self._holdings:
            private: list[Entry] = []
            linked: list[Entry] = []
            for entry in self._entries_of(digest) or ():
                adopted = object_name(entry) in self._adopted
                (private if stays_private(entry, min_size, adopted=adopted) else linked).append(entry)
            self._holdings[key] = Holding(tuple(private), tuple(linked))
        return self._holdings[key]

    def looks(self, digest: str) -> Looks | None:
        """Return how the files of a tree should look, None if it is missing or damaged."""
        entries = self._entries_of(digest)
        return None if entries is None else looks_of(entries, self._adopted)

    def _entries_of(self, digest: str) -> tuple[Entry, ...] | None:
        if digest not in self._entries:
            try:
                tree = self._store.tree(digest)
            except Corrupt:
                self._entries[digest] = None
            else:
                self._entries[digest] = tuple(entry for entry in tree.entries if entry.digest)
        return self._entries[digest]


# --------------------------------------------------------------------------- who has what


def trees_of(store: StoreReader, registration: Registration) -> tuple[str, ...]:
    """Return the trees of a registered venv: its own, or those of its snapshot; none if that is gone."""
    if registration.trees or not registration.key:
        return registration.trees
    snapshot = store.snapshot(snapshot_id(registration.key, registration.place or None))
    return snapshot.trees if snapshot is not None else ()


def trees_by_venv(store: StoreReader) -> dict[str, tuple[str, ...]]:
    """Return the trees of every registered venv that is there, by its path; none where nobody can tell."""
    found: dict[str, tuple[str, ...]] = {}
    with suppress(EnvironmentFailure):  # who sweeps says what is wrong there
        for registration in store.registrations():
            if os.path.lexists(registration.path):
                found[registration.path] = trees_of(store, registration)
    return found


def own_bytes(
    holdings: Holdings, trees: Mapping[str, Iterable[str]], min_sizes: Mapping[str, int]
) -> dict[str, int]:
    """Return for each venv in *min_sizes*, by path, the bytes of its files that no other venv has.

    *trees* are those of all venvs. Files below a venv's min_size (bytes) and those that are never shared are
    its own, whoever else has the same.
    """
    own = {
        venv: sum(entry.size for digest in trees[venv] for entry in holdings.of(digest, size).private)
        for venv, size in min_sizes.items()
    }
    for (_, size), venv in _owners(holdings, trees).items():
        if venv in own and size >= min_sizes[venv]:
            own[venv] += size
    return own


def _owners(holdings: Holdings, trees: Mapping[str, Iterable[str]]) -> dict[tuple[Name, int], str]:
    """Return for each object that may be linked, with its size, the venv that has it, empty for several."""
    by_tree: dict[str, str] = {}
    for venv, digests in trees.items():
        for digest in digests:
            by_tree[digest] = venv if digest not in by_tree else ""
    owners: dict[tuple[Name, int], str] = {}
    for digest, venv in by_tree.items():
        for entry in holdings.of(digest, 1).linked:
            key = object_name(entry), entry.size
            owners[key] = venv if owners.get(key, venv) == venv else ""
    return owners
