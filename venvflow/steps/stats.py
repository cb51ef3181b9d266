"""``stats``: measures what venvs and their store occupy, and what sharing saves. Writes nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from venvflow.disk.objects import Name, object_name
from venvflow.disk.places import read_receipt
from venvflow.model import Tree
from venvflow.state.registry import Registration
from venvflow.state.usage import (
    InodeId,
    Inodes,
    StoreContents,
    apparent,
    freed,
    inodes_below,
    merged,
    occupied,
)


@dataclass(frozen=True, slots=True)
class VenvCost:
    """What one venv costs, in bytes.

    *apparent* is what its files show, *disk* what ``du`` says of it. Of that, *own* is in no other venv
    (though the store may have it), the rest is *shared*; *frees* is what deleting the venv gives back.
    """

    path: str
    apparent: int
    disk: int
    own: int
    shared: int
    frees: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What venvs cost, in bytes: *disk* is what ``du`` says of them together, or of them and the store.

    *alone* is the sum of what it says of each venv, *saved* by how much *disk* is less; negative when the
    store keeps more than the venvs share. Deleting all of them *frees* so much. *store* is what ``du`` says
    of the store.
    """

    venvs: tuple[VenvCost, ...]
    apparent: int
    alone: int
    store: int
    disk: int
    frees: int

    @property
    def saved(self) -> int:
        """Return the bytes that sharing saves."""
        return self.alone - self.disk


class Sharing(NamedTuple):
    """Bytes as files appear: what venvs *show* together, and what is *stored* for that, each file once."""

    shown: int
    stored: int

    @property
    def saved(self) -> int:
        """Return the bytes that sharing saves."""
        return self.shown - self.stored


@dataclass(frozen=True, slots=True)
class PackageCost:
    """A distribution in all venvs: its *bytes* there, and those that are *stored* for it, each file once."""

    name: str
    versions: tuple[str, ...]
    venvs: int
    bytes: int
    stored: int


def costs(store_path: str, paths: Iterable[str], only: Collection[str] | None = None) -> Costs:
    """Count the venvs at *paths* and the store; what is not there counts nothing.

    With *only*, count just those of the venvs, and not the store with them; the others still share with them.
    """
    venvs = {path: inodes_below(path) for path in paths if os.path.isdir(path) and not os.path.islink(path)}
    stored = inodes_below(store_path)
    holders = Counter(key for found in venvs.values() for key in found)
    asked = {path: found for path, found in venvs.items() if only is None or path in only}
    counted = tuple(_cost(path, found, holders) for path, found in asked.items())
    together = merged(asked.values())
    return Costs(
        counted,
        sum(venv.apparent for venv in counted),
        sum(venv.disk for venv in counted),
        occupied(stored),
        occupied(together if only is not None else merged([stored, together])),
        freed(together),
    )


def _cost(path: str, found: Inodes, holders: Mapping[InodeId, int]) -> VenvCost:
    disk = occupied(found)
    own = sum(inode.bytes for key, inode in found.items() if holders[key] == 1)
    return VenvCost(path, apparent(found), disk, own, disk - own, freed(found))


def packages(contents: StoreContents, registrations: Iterable[Registration]) -> list[PackageCost]:
    """Return what each distribution in the shared venvs costs, the one that is stored largest first."""
    uses: dict[str, list[tuple[str, Tree]]] = {}
    for registration in registrations:
        receipt = read_receipt(registration.path)
        for digest in receipt.trees if receipt is not None else ():
            tree = contents.tree(digest)
            if tree is not None and tree.version:
                uses.setdefault(tree.name, []).append((registration.path, tree))
    found = [_package(name, used) for name, used in uses.items()]
    return sorted(found, key=lambda package: (-package.stored, package.name))


def _package(name: str, used: list[tuple[str, Tree]]) -> PackageCost:
    objects: dict[Name, int] = {}
    for tree in {tree.digest: tree for _, tree in used}.values():
        objects.update({object_name(entry): entry.size for entry in tree.entries if entry.digest})
    return PackageCost(
        name,
        tuple(sorted({tree.version for _, tree in used})),
        len({path for path, _ in used}),
        sum(entry.size for _, tree in used for entry in tree.entries),
        sum(objects.values()),
    )


def sharing(contents: StoreContents, trees: Iterable[Iterable[str]]) -> Sharing:
    """Return what venvs with these *trees* share, as the view ``savings`` has it of all."""
    counted = Counter(digest for each in trees for digest in set(each))
    objects: dict[Name, int] = {}
    shown = 0
    for digest, times in counted.items():
        files = contents.files_of(digest) or ()
        shown += times * sum(entry.size for entry in files)
        objects.update({object_name(entry): entry.size for entry in files})
    return Sharing(shown, sum(objects.values()))
