"""Drift: what was changed in a venv by hand since venvflow made it.

Whether a file looks changed is told by ``stat``; whether it is, by its bytes alone. So what copies a venv,
moves it, puts it into an image or dies while it shares one changes nothing by hand. A file that is missing is
damage, and nobody's work.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from venvflow.disk.objects import Name, object_name
from venvflow.disk.places import Receipt
from venvflow.disk.scan import Changing, Found, look, read, walk
from venvflow.model import MTIME_NS, Entry, Manifest
from venvflow.pure.manifest import Corrupt, entries_of
from venvflow.pure.patterns import Matcher
from venvflow.pure.relocate import Places
from venvflow.state.contents import Contents, compare
from venvflow.state.index import Stamped
from venvflow.state.store import Store
from venvflow.state.witness import is_ignored, witness_of
from venvflow.steps.sameness import LARGEST_TEMPLATE, Sameness


class Touched(NamedTuple):
    """A file whose mtime moved and whose bytes did not, with its SHA-256 in hex and the mtime that it had.

    *path* is absolute: that of the object where the venv has a symlink.
    """

    path: str
    digest: str
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Drift:
    """Paths below the venv: *added* and *edited* are somebody's work, *missing* is only damage.

    *shared* are those of the edited that are the store's own files: all venvs that share them have the edit.
    *touched* are files that only look changed, and are no drift. *witness* is what a receipt may say from now
    on of a venv without drift, where its own did not tell.
    """

    added: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    touched: tuple[Touched, ...] = ()
    witness: str = field(default="", compare=False)

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
    """Compare the venv at path *venv* with what its receipt says it was made of.

    Where *store* is None, or has lost what that was, the receipt alone has to tell.

    What *matcher* excludes is nobody's change: it was never taken note of. Raises EnvironmentFailure when
    the venv cannot be read.
    """
    found = {
        item.path: item
        for item in walk(venv)
        if matcher is None or item.kind == "dir" or not matcher.excludes_file(item.path)
    }
    if receipt.state == "built" or store is None:
        known = store.index.stamps(venv) if store is not None else {}
        return _by_receipt(venv, found, receipt, known)
    try:
        manifest = Manifest(tuple(store.tree(digest) for digest in receipt.trees))
        entries = entries_of(manifest)
    except Corrupt:
        return _by_receipt(venv, found, receipt, {})
    if receipt.link == "symlink":
        found |= _led_to(found, entries, store)
    return _against_manifest(_Compared(venv, receipt, store, found, entries, store.adopted()))


def _led_to(found: Mapping[str, Found], entries: Mapping[str, Entry], store: Store) -> dict[str, Found]:
    """Return the objects that symlinks of a venv stand for, by the paths of the symlinks."""
    objects: dict[str, Found] = {}
    for path, entry in entries.items():
        if entry.kind == "file" and path in found and found[path].kind == "link":
            with suppress(OSError):  # one that leads nowhere is a missing file, and looked for before
                objects[path] = look(store.objects.path(object_name(entry)))
    return objects


@dataclass(frozen=True, slots=True)
class _Compared:
    """A venv and what it should be, for those of its files that look changed."""

    venv: str
    receipt: Receipt
    store: Store
    found: Mapping[str, Found]
    entries: Mapping[str, Entry]
    adopted: Mapping[Name, int]

    def sameness(self) -> Sameness:
        """Return what tells whether a file only looks changed."""
        made_for = self.receipt.path  # its files name that place, wherever it was moved or copied to
        registration = self.store.registration(made_for)
        project = registration.project if registration is not None else ""
        places = Places(made_for, project or os.path.dirname(made_for), self.receipt.python)
        return Sameness(self.entries, places, self.store.objects, Contents(self.receipt.contents))

    def is_objects(self, entry: Entry) -> bool:
        """Return whether the venv's file is the store's own."""
        item = self.found[entry.path]
        with suppress(OSError):
            return self.store.objects.is_at(object_name(entry), item.stamp.inode, item.device)
        return False


def _against_manifest(compared: _Compared) -> Drift:
    found, entries, linked = compared.found, compared.entries, compared.receipt.link == "symlink"
    drift = _sorted(
        _added(found, {**entries, **compared.receipt.private}),
        (),
        [path for path in entries if path not in found],
    )
    changed = [
        entry
        for path, entry in entries.items()
        if path in found
        and not is_ignored(path)
        and not as_made(found[path], entry, compared.adopted, linked=linked)
    ]
    return _told_apart(drift, changed, compared) if changed else drift


def _told_apart(drift: Drift, changed: Sequence[Entry], compared: _Compared) -> Drift:
    """Return *drift* with the files that look *changed*: edited, or only touched."""
    sameness = compared.sameness()
    looked = {entry: _touched(entry, compared, sameness) for entry in changed}
    edited = [entry for entry, same in looked.items() if same is None]
    return replace(
        drift,
        edited=_paths(edited),
        shared=_paths(entry for entry in edited if entry.kind == "file" and compared.is_objects(entry)),
        touched=tuple(same for same in looked.values() if same is not None),
    )


def _paths(entries: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(sorted(entry.path for entry in entries))


def _touched(entry: Entry, compared: _Compared, sameness: Sameness) -> Touched | None:
    """Return a file that has the bytes that it had, None if it is another one by now."""
    item = compared.found[entry.path]
    if item.kind != "file" or not entry.digest or (entry.kind == "file" and item.stamp.size != entry.size):
        return None
    path = os.path.join(compared.venv, item.path)
    with suppress(OSError, Changing):
        content = read(path, keep=LARGEST_TEMPLATE if entry.kind == "template" else 0)
        if sameness.holds(entry, content):
            return Touched(path, content.digest, compared.adopted.get(object_name(entry), MTIME_NS))
    return None


def give_times_back(touched: Iterable[Touched]) -> None:
    """Give files their mtimes again, so that they do not look changed for ever.

    The caller holds the venv. Bytecode is valid again by that, too. What is not ours to mend is compared
    again by the next run.
    """
    for each in touched:
        with suppress(OSError, Changing):
            if _may_have_its_time(os.lstat(each.path), each):
                _give_time_back(each)


def _may_have_its_time(st: os.stat_result, touched: Touched) -> bool:
    """Return whether nobody else minds: a file with other names and write bits may be a stranger's.

    One that was adopted gets the mtime that it came with.
    """
    return st.st_nlink == 1 or not st.st_mode & 0o222 or touched.mtime_ns != MTIME_NS


def _give_time_back(touched: Touched) -> None:
    """Set the mtime, and do not hide an edit that came meanwhile: one that comes later moves it again."""
    os.utime(touched.path, ns=(touched.mtime_ns, touched.mtime_ns), follow_symlinks=False)
    if read(touched.path).digest != touched.digest:
        os.utime(touched.path, follow_symlinks=False)


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


def _by_receipt(
    venv: str, found: Mapping[str, Found], receipt: Receipt, stamps: Mapping[str, Stamped]
) -> Drift:
    """Judge by what the receipt knows, for a venv that is not shared yet, or one whose trees are lost.

    *stamps* are those of its build: files that have them still need not be read.
    """
    witness = witness_of(found.values())
    if not stamps and witness == receipt.witness:
        return Drift()
    contents = Contents(receipt.contents)
    if not contents:
        return Drift(edited=("files that cannot be named, because nobody knows what they were",))
    unread = {
        path for path, each in stamps.items() if path in found and found[path].stamp[:3] == each.stamp[:3]
    }
    compared = compare(venv, found, contents, unread)
    missing = (f"{compared.missing} of its files",) if compared.missing else ()
    return Drift(compared.added, compared.edited, missing, witness=witness)


def _added(found: Mapping[str, Found], known: Mapping[str, object]) -> list[str]:
    return [
        path
        for path, item in found.items()
        if item.kind != "dir" and path not in known and not is_ignored(path)
    ]


def _sorted(added: Iterable[str], edited: Iterable[str], missing: Iterable[str]) -> Drift:
    return Drift(tuple(sorted(added)), tuple(sorted(edited)), tuple(sorted(missing)))
