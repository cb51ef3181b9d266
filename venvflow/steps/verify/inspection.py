"""One run of ``verify``: which venvs and objects it checks, what it knows of them, and what it found."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

from venvflow.disk.objects import MtimeMode, Name, Objects, object_name, object_names
from venvflow.disk.places import Place, write_receipt
from venvflow.disk.scan import Found, walk
from venvflow.model import Entry, Receipt
from venvflow.pure.manifest import Corrupt, entries_of
from venvflow.pure.relocate import Places
from venvflow.state.changes import drift_of
from venvflow.state.reader import StoreReader
from venvflow.state.registry import Registration
from venvflow.state.usage import InodeId

Kind = Literal[
    "object damaged",
    "object missing",
    "file edited",
    "file missing",
    "file added",
    "mtime moved",
    "mode changed",
    "venv moved",
]


@dataclass(slots=True)
class Finding:
    """One thing that is not as it should be.

    *path* is the file below the *venv*, or the object itself. *others* are paths of other venvs that have the
    same file. *healed* says what was done about it; empty: it is left. *note* says why, or where bytes went.
    """

    kind: Kind
    path: str
    venv: str = ""
    others: tuple[str, ...] = ()
    healed: str = ""
    note: str = ""


@dataclass(slots=True)
class Verified:
    """What a verification looked at and found.

    *read* are bytes that were hashed, *private* counts edits that are known as their venvs' own files.
    """

    findings: list[Finding] = field(default_factory=list)
    venvs: int = 0
    objects: int = 0
    files: int = 0
    read: int = 0
    private: int = 0

    @property
    def left(self) -> list[Finding]:
        """Return the findings of which nothing was fixed."""
        return [finding for finding in self.findings if not finding.healed]


# --------------------------------------------------------------------------- the venvs


@dataclass(eq=False)
class SharedVenv:
    """A registered venv at *path*: what it should hold, what a walk found; *private* as in its receipt."""

    path: str
    receipt: Receipt
    places: Places
    entries: dict[str, Entry]
    found: dict[str, Found]
    private: dict[str, str]

    def has(self, path: str, inode: InodeId) -> bool:
        """Return whether the file at *path* is that inode."""
        item = self.found.get(path)
        return item is not None and inode_of(item) == inode

    def is_linked(self, entry: Entry) -> bool:
        """Return whether a symlink replaces the file of *entry*."""
        item = self.found.get(entry.path)
        return item is not None and item.kind == "link" and entry.kind == "file"

    def remember_private(self, *, sync: bool) -> None:
        """Note in the receipt which edits are known now."""
        if self.private != self.receipt.private:
            write_receipt(self.path, replace(self.receipt, private=self.private), sync=sync)


class Use(NamedTuple):
    """A file of a venv that should have an object's bytes."""

    venv: SharedVenv
    entry: Entry

    @property
    def path(self) -> str:
        """The whole path of the file."""
        return f"{self.venv.path}/{self.entry.path}"


def _walked(store: StoreReader, registration: Registration) -> SharedVenv | list[Finding] | None:
    """Walk a registered venv; None if it is not shared any more.

    Findings, if any, of one whose manifest the store has not: it was erased with its snapshot, or is damaged.
    Then its receipt decides. Raises EnvironmentFailure for one that cannot be read.
    """
    place = Place(registration.path)
    receipt = place.receipt()
    if receipt is None or receipt.state != "shared":
        return None
    if not receipt.is_at(place.path):
        return [Finding("venv moved", "", place.path, note=f"it was shared at {receipt.path}")]
    try:
        entries = entries_of(store.manifest(receipt.trees))
    except Corrupt:
        return _by_receipt(place.path, receipt)
    places = Places(place.path, registration.project or place.parent, receipt.python)
    found = {item.path: item for item in walk(place.path)}
    return SharedVenv(place.path, receipt, places, entries, found, {**receipt.private})


def _by_receipt(venv: str, receipt: Receipt) -> list[Finding]:
    drift = drift_of(venv, receipt, None)
    kinds: dict[Kind, tuple[str, ...]] = {
        "file edited": drift.edited,
        "file missing": drift.missing,
        "file added": drift.added,
    }
    return [Finding(kind, path, venv) for kind, paths in kinds.items() for path in paths]


def inode_of(item: Found) -> InodeId:
    """Return which file it is, whatever it is called."""
    return item.device, item.stamp.inode


def editor_of(uses: list[Use], named: frozenset[str], *, cut_short: bool) -> Use | None:
    """Return in which of the venvs an edit through a hard link was made, if anything tells.

    All of them have the same inode, so nothing on disk says so. It is the one that was *named*, else the only
    one that has the file, else the only one whose directory changed since. *cut_short*: healing was, which
    may have left one venv alone and was at work in its directory: then these two tell nothing.
    """
    tells: list[Callable[[Use], bool]] = [lambda use: use.venv.path in named]
    if not cut_short:
        tells += [lambda _: len(_paths(uses)) == 1, _shows_work]
    for tell in tells:
        found = [use for use in uses if tell(use)]
        if len(_paths(found)) == 1:
            return found[0]
    return None


def _paths(uses: Iterable[Use]) -> set[str]:
    return {use.venv.path for use in uses}


def _shows_work(use: Use) -> bool:
    """Return whether the directory changed since, as when an editor leaves a backup there."""
    parent = os.path.dirname(use.entry.path)
    noted = dict(use.venv.receipt.directories).get(parent)
    now = use.venv.found.get(parent)
    return noted is not None and now is not None and now.stamp.mtime_ns != noted


# --------------------------------------------------------------------------- all of it


@dataclass
class Inspection:
    """What all parts of a verification share.

    *only* are the paths of the venvs that were named; *judged* are inodes that have a finding already,
    *sizes* the objects that are needed, *adopted* those that keep the mtime and mode of another owner.
    """

    store: StoreReader
    full: bool
    only: frozenset[str]
    progress: Callable[[int, int], None]
    venvs: list[SharedVenv] = field(default_factory=list)
    sizes: dict[Name, int] = field(default_factory=dict)
    judged: set[InodeId] = field(default_factory=set)
    result: Verified = field(default_factory=Verified)

    @property
    def objects(self) -> Objects:
        """The store's objects."""
        return self.store.objects

    @cached_property
    def adopted(self) -> dict[Name, MtimeMode]:
        """The adopted objects, with the looks that they came with."""
        return self.store.adopted()

    @property
    def chosen(self) -> list[SharedVenv]:
        """The venvs that were asked for: all, unless some were named."""
        return [venv for venv in self.venvs if not self.only or venv.path in self.only]

    def walk(self, registrations: Iterable[Registration]) -> None:
        """Walk all venvs, and learn which objects are needed. Raises EnvironmentFailure as walking does."""
        for registration in registrations:
            found = _walked(self.store, registration)
            if isinstance(found, SharedVenv):
                self.venvs.append(found)
            elif found is not None and (not self.only or registration.path in self.only):
                self.result.findings += found
                self.result.venvs += 1
        for venv in self.chosen:
            self.sizes |= {object_name(entry): entry.size for entry in venv.entries.values() if entry.digest}
        if not self.only:
            self._add_snapshots()
        self.result.venvs += len(self.chosen)

    def _add_snapshots(self) -> None:
        for snapshot in self.store.snapshots():
            with suppress(Corrupt):
                for tree in self.store.load(snapshot).trees:
                    sizes = (entry.size for entry in tree.entries if entry.digest)
                    self.sizes.update(zip(object_names(tree), sizes, strict=True))

    def find(self, finding: Finding) -> Finding:
        """Take a note of a finding, and return it."""
        self.result.findings.append(finding)
        return finding

    def has_read(self, size: int) -> None:
        """Count *size* bytes as read, and tell of it."""
        self.result.read += size
        self.progress(min(self.result.read, self._total), self._total)

    @cached_property
    def _total(self) -> int:
        return sum(self.sizes.values())

    def uses(self, name: Name) -> list[Use]:
        """Return the files whose bytes are that object's, in all venvs."""
        return self._uses.get(name, [])

    @cached_property
    def _uses(self) -> dict[Name, list[Use]]:
        """All files by object: of a million it takes seconds, so only where something is wrong."""
        uses: dict[Name, list[Use]] = defaultdict(list)
        for venv in self.venvs:
            for entry in venv.entries.values():
                if entry.digest:
                    uses[object_name(entry)].append(Use(venv, entry))
        return uses

    def sharers(self, venv: SharedVenv, item: Found) -> Iterator[str]:
        """Yield the files of other venvs that are the same inode; for when all objects were checked."""
        if item.links > 1:
            for other, path in self._names.get(inode_of(item), []):
                if other is not venv:
                    yield f"{other.path}/{path}"

    @cached_property
    def _names(self) -> dict[InodeId, list[tuple[SharedVenv, str]]]:
        names: dict[InodeId, list[tuple[SharedVenv, str]]] = defaultdict(list)
        for venv in self.venvs:
            for path, item in venv.found.items():
                if item.links > 1:
                    names[inode_of(item)].append((venv, path))
        return names
