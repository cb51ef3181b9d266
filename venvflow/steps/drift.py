"""Drift: what was changed in a venv by hand since venvflow made it. By stat, without reading any file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from venvflow.disk.objects import Name
from venvflow.disk.places import Receipt
from venvflow.disk.scan import Found, walk
from venvflow.model import MTIME_NS, Entry, Manifest
from venvflow.pure.manifest import Corrupt, entries_of
from venvflow.pure.patterns import Matcher
from venvflow.state.index import Stamped
from venvflow.state.store import Store
from venvflow.state.witness import is_ignored, witness_of


@dataclass(frozen=True, slots=True)
class Drift:
    """Paths below the venv: *added* and *edited* are somebody's work, *missing* is only damage."""

    added: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def by_hand(self) -> bool:
        """Return whether something would be lost if the venv were replaced."""
        return bool(self.added or self.edited)

    def __bool__(self) -> bool:
        return bool(self.added or self.edited or self.missing)

    def __str__(self) -> str:
        parts = []
        for word, paths in (("added", self.added), ("edited", self.edited), ("missing", self.missing)):
            if paths:
                parts.append(f"{word}: {_summary(paths)}")
        return "; ".join(parts)


def _summary(paths: tuple[str, ...]) -> str:
    """Name the distributions among *paths* if there are any, else the first few files."""
    marks = (os.path.basename(os.path.dirname(path)) for path in paths if path.endswith("-info/METADATA"))
    packages = sorted({mark.removesuffix(".dist-info").replace("-", " ", 1) for mark in marks})
    names = packages or [path.rsplit("site-packages/", 1)[-1] for path in paths]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    count = "" if not packages else f" ({len(paths)} files)"
    return ", ".join(names[:4]) + more + count


def drift_of(venv: str, receipt: Receipt, store: Store | None, matcher: Matcher | None = None) -> Drift:
    """Compare the venv at path *venv* with what its receipt says it was made of; without *store*, as a whole.

    What *matcher* excludes is nobody's change: it was never taken note of. Raises EnvironmentFailure when
    the venv cannot be read.
    """
    found = {
        item.path: item
        for item in walk(venv)
        if matcher is None or item.kind == "dir" or not matcher.excludes_file(item.path)
    }
    if store is None:
        return _by_witness(found, receipt)
    if receipt.state == "built":
        stamps = store.index.stamps(venv)
        return _against_stamps(found, stamps) if stamps else _by_witness(found, receipt)
    try:
        manifest = Manifest(tuple(store.tree(digest) for digest in receipt.trees))
        entries = entries_of(manifest)
    except Corrupt:
        return _by_witness(found, receipt)
    return _against_manifest(found, entries, store.adopted(), linked=receipt.link == "symlink")


def _against_manifest(
    found: Mapping[str, Found], entries: Mapping[str, Entry], adopted: Mapping[Name, int], *, linked: bool
) -> Drift:
    edited = [
        path
        for path, entry in entries.items()
        if path in found and not is_ignored(path) and not as_made(found[path], entry, adopted, linked=linked)
    ]
    return _sorted(_added(found, entries), edited, [path for path in entries if path not in found])


def as_made(item: Found, entry: Entry, adopted: Mapping[Name, int], *, linked: bool = True) -> bool:
    """Return whether, by its stat, a file is what *entry* says; *adopted* are mtimes that objects keep.

    *linked*: the venv may be shared by symlinks, so that one may stand for a file.
    """
    if entry.kind in ("link", "dir"):
        return item.kind == entry.kind
    if item.kind == "link":
        return linked  # where it leads to is verify's business
    if item.kind != "file":
        return False
    expected = adopted.get(Name(entry.digest, entry.executable), MTIME_NS)
    same_size = entry.kind == "template" or item.stamp.size == entry.size
    return same_size and item.stamp.mtime_ns in (expected, MTIME_NS)


def _against_stamps(found: Mapping[str, Found], stamps: Mapping[str, Stamped]) -> Drift:
    edited = [path for path, each in stamps.items() if path in found and not _as_stamped(found[path], each)]
    files = {path: item for path, item in found.items() if item.kind == "file"}
    return _sorted(_added(files, stamps), edited, [path for path in stamps if path not in found])


def _as_stamped(item: Found, known: Stamped) -> bool:
    """Return whether a file is as it was when it was built, or as a squish that was killed has left it.

    ctime is no sign: it moves when the file gets another name, in the store or in the builder's cache.
    """
    same = item.stamp[:3] == known.stamp[:3]
    shared = item.stamp.mtime_ns == MTIME_NS and known.entry.size == item.stamp.size
    return same or shared or item.kind == "link"


def _by_witness(found: Mapping[str, Found], receipt: Receipt) -> Drift:
    """Judge by the receipt alone, when the store has lost what the venv was made of: changed, or not."""
    if witness_of(found.values()) == receipt.witness:
        return Drift()
    return Drift(edited=("files that cannot be named, because the store has lost what they were",))


def _added(found: Mapping[str, Found], known: Mapping[str, object]) -> list[str]:
    return [
        path
        for path, item in found.items()
        if item.kind != "dir" and path not in known and not is_ignored(path)
    ]


def _sorted(added: list[str], edited: list[str], missing: list[str]) -> Drift:
    return Drift(tuple(sorted(added)), tuple(sorted(edited)), tuple(sorted(missing)))
