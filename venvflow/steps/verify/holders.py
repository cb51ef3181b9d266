"""The venvs that hold the store's files: what each should have, what a walk found in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from venvflow.disk.places import Place, write_receipt
from venvflow.disk.scan import Found, walk
from venvflow.model import Entry, Manifest, Receipt
from venvflow.pure.manifest import Corrupt, entries_of
from venvflow.pure.relocate import Places
from venvflow.state.reader import StoreReader
from venvflow.state.registry import Registration
from venvflow.steps.drift import drift_of
from venvflow.steps.verify.findings import Finding, Kind

Inode = tuple[int, int]
"""Device and inode: two names that have the same one are one file."""


@dataclass(eq=False)
class Holder:
    """A registered venv at *path*: what it should hold, what a walk found; *private* as in its receipt."""

    path: str
    receipt: Receipt
    places: Places
    entries: dict[str, Entry]
    found: dict[str, Found]
    private: dict[str, str]

    def has(self, path: str, inode: Inode) -> bool:
        """Return whether the file at *path* is that inode."""
        item = self.found.get(path)
        return item is not None and inode_of(item) == inode

    def is_linked(self, entry: Entry) -> bool:
        """Return whether a symlink stands for the file of *entry*."""
        item = self.found.get(entry.path)
        return item is not None and item.kind == "link" and entry.kind == "file"

    def remember_private(self, *, sync: bool) -> None:
        """Note in the receipt which edits are known now."""
        if self.private != self.receipt.private:
            write_receipt(self.path, replace(self.receipt, private=self.private), sync=sync)


class Use(NamedTuple):
    """A file of a venv that should have an object's bytes."""

    holder: Holder
    entry: Entry

    @property
    def path(self) -> str:
        """The whole path of the file."""
        return f"{self.holder.path}/{self.entry.path}"


def holder_of(store: StoreReader, registration: Registration) -> Holder | list[Finding] | None:
    """Walk a registered venv; None if it is not shared any more.

    Findings, if any, of one whose manifest the store has not: it was erased with its snapshot, or is damaged.
    What its receipt knows has to tell then. Raises EnvironmentFailure for one that cannot be read.
    """
    place = Place(registration.path)
    receipt = place.receipt()
    if receipt is None or receipt.state != "shared":
        return None
    if receipt.path != place.path:
        return [Finding("venv moved", "", place.path, note=f"it was shared at {receipt.path}")]
    try:
        entries = entries_of(Manifest(tuple(store.tree(digest) for digest in receipt.trees)))
    except Corrupt:
        return _by_receipt(place.path, receipt)
    places = Places(place.path, registration.project or place.parent, receipt.python)
    found = {item.path: item for item in walk(place.path)}
    return Holder(place.path, receipt, places, entries, found, {**receipt.private})


def _by_receipt(venv: str, receipt: Receipt) -> list[Finding]:
    drift = drift_of(venv, receipt, None)
    kinds: dict[Kind, tuple[str, ...]] = {
        "file edited": drift.edited,
        "file missing": drift.missing,
        "file added": drift.added,
    }
    return [Finding(kind, path, venv) for kind, paths in kinds.items() for path in paths]


def inode_of(item: Found) -> Inode:
    """Return which file it is, whatever it is called."""
    return item.device, item.stamp.inode


def editor_of(uses: list[Use], named: frozenset[str], *, cut_short: bool) -> Use | None:
    """Return in which of the venvs an edit through a hard link was made, if anything tells.

    All of them have the same inode, so nothing on disk says so. It is the one that was *named*, else the only
    one that has the file, else the only one whose directory changed since. *cut_short*: a mending was, which
    may have left one venv alone and was at work in its directory: then these two tell nothing.
    """
    tells: list[Callable[[Use], bool]] = [lambda use: use.holder.path in named]
    if not cut_short:
        tells += [lambda _: len(_paths(uses)) == 1, _shows_work]
    for tell in tells:
        found = [use for use in uses if tell(use)]
        if len(_paths(found)) == 1:
            return found[0]
    return None


def _paths(uses: Iterable[Use]) -> set[str]:
    return {use.holder.path for use in uses}


def _shows_work(use: Use) -> bool:
    """Return whether the directory changed since, as when an editor leaves a backup there."""
    parent = os.path.dirname(use.entry.path)
    noted = dict(use.holder.receipt.directories).get(parent)
    now = use.holder.found.get(parent)
    return noted is not None and now is not None and now.stamp.mtime_ns != noted
