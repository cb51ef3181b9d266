"""Finds what changed in a venv since venvflow made it, at three depths. No other module answers that.

The depths are: mtimes of directories; size, mtime and mode of files (:mod:`venvflow.state.file_stats`); bytes
of the files that look changed. Only other bytes prove a change by hand: a tool that copies a venv, moves it
or puts it into an image, or is killed while it shares one, changes no bytes. A missing file is damage, not a
change by hand; so is a link that leads elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

from venvflow.disk.links import write_private
from venvflow.disk.objects import MtimeMode, Name, Objects, is_promised, object_name, sealed
from venvflow.disk.places import Place
from venvflow.disk.scan import Changing, Content, Found, lstat, read, stamp_of, walk
from venvflow.errors import some
from venvflow.model import Entry, Receipt
from venvflow.postinstall import LARGEST_FILLED
from venvflow.pure.manifest import Corrupt, entries_of, source_of
from venvflow.pure.patterns import Matcher
from venvflow.pure.relocate import (
    LARGEST_TEXT,
    Places,
    digest_of,
    fill,
    find,
    find_in_record,
    is_record,
    leads_there,
    without_rows,
)
from venvflow.pure.sharing import is_written, stays_private, time_of
from venvflow.pure.units import counted
from venvflow.state.contents import Contents, compare, without_copies
from venvflow.state.file_stats import StatChecker, digest_of_found, is_ignored
from venvflow.state.index import Stamped
from venvflow.state.materialise import Placed
from venvflow.state.needs import lacking
from venvflow.state.reader import StoreReader
from venvflow.state.relink import give_again, replacing_in_venv
from venvflow.state.store import Store


class Touched(NamedTuple):
    """A file at *path* that has its bytes and looks otherwise; the object where the venv has a symlink.

    *entry* is what it should be, *expected* its right mtime and mode, *item* what was found. *relabelled*:
    its mode or its owner was changed, or that of its object, and so for all venvs that share it.
    """

    path: str
    entry: Entry
    expected: MtimeMode
    item: Found
    relabelled: bool = False


@dataclass(frozen=True, slots=True)
class Drift:
    """Paths below the venv: *added* and *edited* are somebody's work, *missing* is only damage.

    Missing may also be a path outside of the venv that an editable install leads to.

    *shared* are those of the edited that are the store's own files: all venvs that share them have the edit.
    *touched* are files that only look changed, *lost* is bytecode that is gone and the store has: neither
    is drift, and both are given back. *stats* is what a receipt may say from now on of a venv without drift,
    where its own did not tell.
    """

    added: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    touched: tuple[Touched, ...] = ()
    lost: tuple[Entry, ...] = ()
    stats: str = field(default="", compare=False)

    @property
    def relabelled(self) -> tuple[str, ...]:
        """Return the paths, below the venv, of files whose mode or owner was changed for all venvs."""
        return tuple(each.entry.path for each in self.touched if each.relabelled)

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
                parts.append(f"{word}: {summary(paths)}")
        return "; ".join(parts)


def summary(paths: tuple[str, ...]) -> str:
    """Name the distributions among *paths* if there are any, else the first few files."""
    marks = (os.path.basename(os.path.dirname(path)) for path in paths if path.endswith("-info/METADATA"))
    packages = sorted({mark.removesuffix(".dist-info").replace("-", " ", 1) for mark in marks})
    names = packages or [path.rsplit("site-packages/", 1)[-1] for path in paths]
    return some(names, 4) + (f" ({counted(len(paths), 'file')})" if packages else "")


Depth = Literal["directories", "stat", "bytes"]
"""How closely a venv is looked at: whether its directories have their mtimes; whether each file has its size
and mtime; whether each file that looks changed has its bytes. What looks changed is looked at more closely.
"""


def changes(
    place: Place,
    receipt: Receipt,
    store: StoreReader | None,
    matcher: Matcher | None,
    *,
    depth: Depth = "bytes",
    checker: StatChecker | None = None,
    min_size: int = 1,
) -> Drift:
    """Return what changed in the venv at a place since its receipt was written.

    *store* is None where there is none. What *matcher* excludes is not a change. *checker* looks at files
    by their stat, at each object once for many venvs; *min_size* (bytes) is that below which files are the
    venv's own. Raises EnvironmentFailure when the venv cannot be read.
    """
    if _is_hollow(place.path, store, receipt):
        return Drift(missing=("what its symlinks lead to",))
    if depth != "bytes" and place.has_same_directories(receipt):
        if depth == "directories":
            return Drift()
        if checker is not None and checker.as_made(place.path, receipt, min_size):
            return Drift()
    drift = drift_of(place.path, receipt, store, matcher)
    lost = lacking(receipt.needs, place.parent)
    return replace(drift, missing=(lost, *drift.missing)) if lost else drift


def _is_hollow(venv: str, store: StoreReader | None, receipt: Receipt) -> bool:
    """Return whether a venv's symlinks lead into another store, or into one that has lost their files."""
    if receipt.link != "symlink":
        return False
    if store is None:
        return True
    links = (f"{venv}/{item.path}" for item in walk(venv) if item.kind == "link")
    return receipt.store != store.path or not all(os.path.exists(link) for link in links)


def drift_of(
    venv: str,
    receipt: Receipt,
    store: StoreReader | None,
    matcher: Matcher | None = None,
    *,
    seen: Seen | None = None,
) -> Drift:
    """Compare the venv at path *venv* with what its receipt says it was made of.

    Where *store* is None, or has lost what that was, the receipt alone decides. *seen* is what was seen of it
    just now (:func:`look_at`), if anything was.

    What *matcher* excludes is not a change: it was never recorded. Raises EnvironmentFailure when
    the venv cannot be read.
    """
    seen = seen or look_at(venv, receipt, store)
    found = {
        item.path: item
        for item in without_excluded(seen.found, matcher)
        # What is a device, FIFO or socket was never recorded either.
        if item.kind != "special"
    }
    if receipt.state == "built" or store is None:
        return _by_receipt(venv, found, receipt, seen.stamps)
    try:
        entries = entries_of(store.manifest(receipt.trees))
    except Corrupt:
        return _by_receipt(venv, found, receipt, {})
    links = {path for path, entry in entries.items() if entry.kind == "link"}
    found = without_copies(venv, found, links.__contains__, receipt.python)
    if receipt.link == "symlink":
        found |= _led_to(found, entries, store)
    copies = frozenset(receipt.copies)
    return _against_manifest(_Compared(venv, receipt, store, found, entries, store.adopted(), copies))


def _led_to(found: Mapping[str, Found], entries: Mapping[str, Entry], store: StoreReader) -> dict[str, Found]:
    """Return the objects that symlinks of a venv lead to, by the paths of the symlinks."""
    objects: dict[str, Found] = {}
    for path, entry in entries.items():
        if entry.kind == "file" and path in found and found[path].kind == "link":
            with suppress(OSError):  # one that leads nowhere is a missing file, and looked for before
                objects[path] = lstat(store.objects.path(object_name(entry)))
    return objects


@dataclass(frozen=True, slots=True)
class _Compared:
    """A venv and what it should be, for those of its files that look changed."""

    venv: str
    receipt: Receipt
    store: StoreReader
    found: Mapping[str, Found]
    entries: Mapping[str, Entry]
    adopted: Mapping[Name, MtimeMode]
    copies: frozenset[str]

    def expected(self, entry: Entry) -> MtimeMode:
        """Return the mtime and mode that a file should have."""
        name = object_name(entry)
        own = sealed(name)._replace(mtime_ns=time_of(entry, self.receipt.written))
        return self.adopted.get(name) or own

    def is_as_made(self, entry: Entry) -> bool:
        """Return whether, by its stat, a file that was found is what its entry says."""
        item, linked, written = self.found[entry.path], self.receipt.link == "symlink", self.receipt.written
        return as_made(item, entry, self.adopted, written, linked=linked) and can_run(item, entry)

    def object_state(self, entry: Entry) -> Literal["as made", "touched", "relabelled"]:
        """Return the state of a file that is an object of the store, by the object and by itself.

        ``relabelled``: its mode or its owner is not as it was.
        """
        if self.receipt.link not in ("hardlink", "symlink") or entry.kind != "file":
            return "as made"
        objects, name, adopted = self.store.objects, object_name(entry), self.adopted.get(object_name(entry))
        if entry.path in self.copies or stays_private(entry, 1, adopted=adopted is not None):
            return "as made"
        item, modes = self.found[entry.path], {self.expected(entry).mode, sealed(name).mode}
        others = item.kind == "file" and not any(is_promised(item.mode, mode) for mode in modes)
        if others and item.links > 1 and is_object(self.store, name, item):
            return "relabelled"
        try:
            st = os.lstat(objects.path(name))
        except OSError:
            return "as made"  # a venv of hard links is whole without its objects
        if objects.is_as_made(st, name, entry.size, adopted):
            return "as made"
        # Another file than this venv's may have been edited: what became of it, is verify's business.
        its_own = (st.st_ino, st.st_dev) == (item.stamp.inode, item.device)
        usual = any(is_promised(stat.S_IMODE(st.st_mode), mode) for mode in modes)
        return "relabelled" if its_own and not (usual and st.st_uid in objects.owners) else "touched"

    def is_there(self, entry: Entry, places: Places) -> bool:
        """Return whether there is what *entry* says, whatever is in it; a link must lead where it did."""
        item = self.found.get(entry.path)
        if item is None or not (item.kind == entry.kind == "link"):
            return item is not None
        return leads_there(entry, os.readlink(os.path.join(self.venv, entry.path)), places, os.path.realpath)

    def can_come_back(self, entry: Entry) -> bool:
        """Return whether a file that is gone may go, and the store has it: installers delete bytecode."""
        name = object_name(entry)
        return (
            entry.kind == "file"
            and is_ignored(entry.path)
            and self.store.objects.sound(name, entry.size, self.adopted.get(name))
        )

    def places(self) -> Places:
        """Return the places that the venv's files name: those that it was made for, wherever it is now."""
        made_for = self.receipt.path
        registration = self.store.registration(made_for)
        project = registration.project if registration is not None else ""
        return Places(made_for, project or os.path.dirname(made_for), self.receipt.python)


def _against_manifest(compared: _Compared) -> Drift:
    found, entries, places = compared.found, compared.entries, compared.places()
    gone = [entry for entry in entries.values() if not compared.is_there(entry, places)]
    may_go = [entry for entry in gone if compared.can_come_back(entry)]
    missing = {entry.path for entry in gone}.difference(entry.path for entry in may_go)
    lost = tuple(entry for entry in may_go if source_of(entry.path) not in missing)
    known = {**entries, **compared.receipt.private}
    added = (
        path
        for path, item in found.items()
        if item.kind != "dir" and path not in known and not is_ignored(path)
    )
    drift = Drift(tuple(sorted(added)), missing=tuple(sorted(missing)), lost=lost)
    changed = [
        entry
        for path, entry in entries.items()
        if path in found
        and (
            compared.object_state(entry) != "as made" or not (is_ignored(path) or compared.is_as_made(entry))
        )
    ]
    return _edited_or_touched(drift, changed, compared) if changed else drift


def _edited_or_touched(drift: Drift, changed: Sequence[Entry], compared: _Compared) -> Drift:
    """Return *drift* with the files that look *changed*: edited, or only touched."""
    store, contents = compared.store, Contents(compared.receipt.contents)
    known = Bytes(compared.entries, compared.places(), store.objects, contents)
    looked = {entry: _touched(entry, compared, known) for entry in changed}
    edited = [entry for entry, same in looked.items() if same is None and not is_ignored(entry.path)]
    files = (entry for entry in edited if entry.kind == "file")
    return replace(
        drift,
        edited=_paths(edited),
        shared=_paths(e for e in files if is_object(store, object_name(e), compared.found[e.path])),
        touched=tuple(same for same in looked.values() if same is not None),
    )


def _paths(entries: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(sorted(entry.path for entry in entries))


def _touched(entry: Entry, compared: _Compared, known: Bytes) -> Touched | None:
    """Return a file that has the bytes that it had, None if it is another one by now."""
    item = compared.found[entry.path]
    path = os.path.join(compared.venv, item.path)
    touched = Touched(
        path, entry, compared.expected(entry), item, compared.object_state(entry) == "relabelled"
    )
    if compared.is_as_made(entry):
        return touched  # nobody wrote to it: its mode may not even let us read it
    if item.kind != "file" or not entry.digest or not may_hold(entry, item.stamp.size):
        return None
    with suppress(OSError, Changing):
        content = read(path, keep=bytes_to_keep(entry))
        if known.holds(entry, content):
            return touched._replace(item=item._replace(stamp=content.stamp))
    return None


# --------------------------------------------------------------------------- has a file its bytes?


def may_hold(entry: Entry, size: int) -> bool:
    """Return whether a file of *size* bytes may be what *entry* says; if not, it need not be read.

    What is filled into a template has a limit, and a hole in a file has none.
    """
    return size <= LARGEST_FILLED if bytes_to_keep(entry) else size == entry.size


def bytes_to_keep(entry: Entry) -> int:
    """Return up to how many bytes of a file are needed to tell whether it is what *entry* says."""
    return LARGEST_TEXT if entry.kind == "template" or entry.path.endswith(".dist-info/RECORD") else 0


@dataclass(frozen=True)
class Bytes:
    """The bytes that a venv's files should have: *entries* by path, filled in for *places*; *contents*."""

    _entries: Mapping[str, Entry]
    _places: Places
    _objects: Objects
    _contents: Contents

    def holds(self, entry: Entry, content: Content) -> bool:
        """Return whether *content* is what *entry* says; a template may spell local paths as it likes.

        The bytes were kept as :func:`bytes_to_keep` says. A RECORD may name bytecode, which comes and goes:
        pip compiles what it installs.
        """
        if self._holds(entry, content):
            return True
        if not entry.path.endswith(".dist-info/RECORD"):
            return False
        data, _ = without_rows(entry.path, content.data, (), lambda path: path.endswith(".pyc"))
        return self._holds(entry, content._replace(digest=hashlib.sha256(data).hexdigest(), data=data))

    def _holds(self, entry: Entry, content: Content) -> bool:
        if entry.kind == "file":
            return content.digest == entry.digest
        if self._contents.holds(entry.path, content.digest):
            return True
        with suppress(KeyError, ValueError, Corrupt):
            if self._filled(entry)[0].hex() == content.digest:
                return True
        return any(
            found is not None
            and found.slots == entry.slots
            and hashlib.sha256(found.data).hexdigest() == entry.digest
            for found in (
                find(entry.path, content.data, self._places),
                find_in_record(entry.path, content.data, self._templates, self._places),
            )
        )

    @cached_property
    def _templates(self) -> set[str]:
        return {path for path, entry in self._entries.items() if entry.kind == "template"}

    def _filled(self, entry: Entry) -> tuple[bytes, int]:
        """Return digest and size of a template, filled in; raises ``KeyError`` when it cannot be.

        What a RECORD describes is never a RECORD itself: two that describe each other have no end.
        """
        if entry.kind != "template":
            return bytes.fromhex(entry.digest), entry.size
        data = self._objects.read(object_name(entry))
        if data is None:
            raise KeyError(entry.path)
        described = {slot.argument for slot in entry.slots if slot.form == "record"}
        if any(is_record(self._entries[path]) for path in described):
            raise KeyError(entry.path)
        digests = {path: self._filled(self._entries[path]) for path in described}
        return digest_of(fill(data, entry.slots, self._places, digests))


# --------------------------------------------------------------------------- what needs no reading


def without_excluded(found: Iterable[Found], matcher: Matcher | None) -> Iterator[Found]:
    """Yield what a walk has found, but for the files that *matcher* excludes."""
    for item in found:
        if matcher is None or item.kind == "dir" or not matcher.excludes_file(item.path):
            yield item


def is_object(store: StoreReader, name: Name, item: Found) -> bool:
    """Return whether a file that was found is the store's object of that *name*."""
    with suppress(OSError):
        return store.objects.is_at(name, item.stamp.inode, item.device)
    return False


class Seen(NamedTuple):
    """One look at a venv: what a walk has found, and the stamps of its build, if that is what it is from."""

    found: list[Found]
    stamps: Mapping[str, Stamped]


def look_at(venv: str, receipt: Receipt | None, store: StoreReader | None) -> Seen:
    """Look at the venv at path *venv*. Raises EnvironmentFailure when it cannot be read."""
    built = receipt is not None and receipt.state == "built"
    return Seen(walk(venv), store.index.stamps(venv) if built and store is not None else {})


class Known(NamedTuple):
    """Files that need no reading, by path.

    *sound* are those whose objects were seen to be sound in the store just now, *linked* those that are names
    of their objects.
    """

    stamped: Mapping[str, Stamped]
    sound: Container[str] = ()
    linked: Collection[str] = ()


def known_of(store: StoreReader, receipt: Receipt, seen: Seen) -> Known:
    """Return what is known of what was *seen* of a venv; nothing, if what was known of it is lost."""
    found = seen.found
    if receipt.state == "built":
        return Known(_still_stamped(store, seen))
    try:
        entries = entries_of(store.manifest(receipt.trees))
    except Corrupt:
        return Known({})
    stamped: dict[str, Stamped] = {}
    linked: set[str] = set()
    adopted = store.adopted()
    for item in found:
        entry = entries.get(item.path)
        if (
            entry is None or item.kind != "file" or not entry.digest
            or item.executable != entry.executable or not as_made(item, entry, adopted, receipt.written)
        ):  # fmt: skip
            continue
        name = object_name(entry)
        st = store.objects.sound_stat(name, entry.size, adopted.get(name))
        if st is not None:
            stamped[item.path] = Stamped(item.stamp, entry)
            if (st.st_ino, st.st_dev) == (item.stamp.inode, item.device):
                linked.add(item.path)
    return Known(stamped, stamped, linked)


def _still_stamped(store: StoreReader, seen: Seen) -> dict[str, Stamped]:
    """Return the files that have the stamps of their build still.

    The ctime of an object's file moves whenever another venv gets a link to it, or loses one.
    """
    adopted = store.adopted()
    still: dict[str, Stamped] = {}
    for item in seen.found:
        each = seen.stamps.get(item.path)
        if each is None:
            continue
        if each.stamp == item.stamp:
            still[item.path] = each
        elif each.entry.kind == "file" and item.links > 1 and each.stamp[:3] == item.stamp[:3]:
            name = object_name(each.entry)
            st = store.objects.sound_stat(name, each.entry.size, adopted.get(name))
            if st is not None and (st.st_ino, st.st_dev) == (item.stamp.inode, item.device):
                still[item.path] = Stamped(item.stamp, each.entry)
    return still


def known_placed(placed: Mapping[str, Placed], found: Iterable[Found]) -> dict[str, Stamped]:
    """Return what need not be read of a directory that a builder changed after files were *placed* in it.

    A file is what was placed if it has that inode still, and its size and mtime did not move. Its ctime has:
    others link to the same object.
    """
    known: dict[str, Stamped] = {}
    for item in found:
        each = placed.get(item.path)
        if (
            each is not None
            and (item.kind, item.executable) == ("file", each.entry.executable)
            and item.stamp[:3] == (each.inode, each.size, each.mtime_ns)
        ):
            known[item.path] = Stamped(item.stamp, each.entry)
    return known


# --------------------------------------------------------------------------- times and modes are given back


def give_stats_back(
    store: Store, venv: str, touched: Iterable[Touched], receipt: Receipt, min_size: int
) -> None:
    """Give files of a venv at a path their mtimes and modes again, so that they do not look changed for ever.

    A file that should be the store's own becomes that: in a copy of a venv it is not any more. *receipt* says
    how the venv is shared, *min_size* (bytes) is from which size on. The caller holds venv and store.
    Bytecode is valid again by that, too. What is not ours to change is compared again by the next run.
    """
    adopted, link = store.adopted(), receipt.link
    for each in touched:
        entry, path, written = each.entry, each.entry.path, receipt.written
        name = object_name(entry)
        private = path in receipt.copies or stays_private(entry, min_size, adopted=name in adopted)
        with suppress(OSError, Changing):
            shared = not private and link in ("hardlink", "symlink") and not store.read_only
            if entry.kind == "file" and each.item.stamp.size != entry.size:  # a RECORD
                give_again(store.objects, entry, venv, "copy", written, expected=each.item.stamp)
            elif not (shared and store.usable(name, entry.size, adopted.get(name))):
                _give_time_back(each, venv, written)
            elif not store.objects.is_at(name, each.item.stamp.inode, each.item.device):
                give_again(store.objects, entry, venv, link, written, expected=each.item.stamp)


def told_newer(store: StoreReader, venv: str, receipt: Receipt, touched: Iterable[Touched]) -> Receipt:
    """Return what a receipt says when somebody touched a file that was written for the venv alone.

    That is how a Makefile notes that a venv is what its lock files say, so the newest time stays, and all
    such files get it. One that is to come would keep make busy. The caller holds the venv.
    """
    own = [each for each in touched if is_written(each.entry) and each.item.kind == "file"]
    newest = max((each.item.stamp.mtime_ns for each in own), default=0)
    if not receipt.written < newest <= time.time_ns():
        return receipt
    with suppress(Corrupt, OSError):
        for entry in filter(is_written, entries_of(store.manifest(receipt.trees)).values()):
            path = f"{venv}/{entry.path}"
            st = os.lstat(path)
            if stat.S_ISREG(st.st_mode) and st.st_mtime_ns == receipt.written:
                os.utime(path, ns=(newest, newest), follow_symlinks=False)
    return replace(receipt, written=newest)


def give_bytecode_back(store: Store, venv: str, lost: Iterable[Entry], link: str) -> None:
    """Give the venv at a path its *lost* bytecode again, shared as *link* says. The caller holds both."""
    adopted = store.adopted()
    for entry in lost:
        name = object_name(entry)
        with suppress(OSError):
            if store.usable(name, entry.size, adopted.get(name)):
                give_again(store.objects, entry, venv, link, 0)


def _give_time_back(touched: Touched, venv: str, written: int) -> None:
    """Set the mtime, and let a program run again; *written* is what the receipt of the venv says.

    An edit that came meanwhile is not hidden: one that comes later moves the time again.

    A file with other names and write bits may be a stranger's, such as uv's cache, and is left alone: the
    venv gets a copy if it is not large.
    """
    st = os.lstat(touched.path)
    if stamp_of(st)[:3] != touched.item.stamp[:3]:
        return
    entry = touched.entry
    own_ns = time_of(entry, written)
    if st.st_nlink > 1 and st.st_mode & 0o222:
        content = read(touched.path, keep=LARGEST_TEXT)
        if len(content.data) == content.stamp.size and content.stamp[:3] == touched.item.stamp[:3]:
            with replacing_in_venv(venv, entry.path, expected=content.stamp) as (fd, temporary):
                write_private(temporary, fd, content.data, executable=entry.executable, mtime_ns=own_ns)
        return
    before = read(touched.path).digest
    if not can_run(touched.item, entry):
        let_run(touched.path)
    mtime_ns = own_ns if is_written(entry) else touched.expected.mtime_ns
    os.utime(touched.path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
    if read(touched.path).digest != before:
        os.utime(touched.path, follow_symlinks=False)


def as_made(
    item: Found,
    entry: Entry,
    adopted: Mapping[Name, MtimeMode],
    written: int,
    *,
    linked: bool = True,
) -> bool:
    """Return whether, by size and mtime, a file is what *entry* says; *adopted* are looks that objects keep.

    *written* is what the venv's receipt says. *linked*: the venv may be shared by symlinks, so that a symlink
    may replace a file.
    """
    if entry.kind in ("link", "dir"):
        return item.kind == entry.kind
    if item.kind == "link":
        return linked  # where it leads to is verify's business
    if item.kind != "file":
        return False
    name = object_name(entry)
    same_size = entry.kind == "template" or item.stamp.size == entry.size
    looks = adopted.get(name)
    times = time_of(entry, written), looks.mtime_ns if looks is not None else None
    return same_size and item.stamp.mtime_ns in times


def can_run(item: Found, entry: Entry) -> bool:
    """Return whether a file can be run if it could be when it was made."""
    return item.kind != "file" or not entry.executable or item.executable


def let_run(path: str) -> None:
    """Let all run a file who may read it, as when it was made; raises ``OSError``."""
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    os.chmod(path, mode | stat.S_IXUSR | (mode & 0o444) >> 2)


def _by_receipt(
    venv: str, found: Mapping[str, Found], receipt: Receipt, stamps: Mapping[str, Stamped]
) -> Drift:
    """Judge by what the receipt knows, for a venv that is not shared yet, or one whose trees are lost.

    *stamps* are those of its build: files that have them still need not be read.
    """
    stats = digest_of_found(found.values())
    if not stamps and stats == receipt.stats:
        return Drift()
    contents = Contents(receipt.contents)
    if not contents:
        return Drift(edited=("files that cannot be named, because there is no record of them",))
    found = without_copies(venv, found, lambda path: contents.holds(path, ""), receipt.python)
    unread = {
        path for path, each in stamps.items() if path in found and found[path].stamp[:3] == each.stamp[:3]
    }
    compared = compare(venv, found, contents, unread)
    missing: tuple[str, ...] = ()
    if compared.missing:  # stamps have names, contents only count
        missing = tuple(sorted(path for path in stamps if path not in found and not is_ignored(path)))
        missing = missing or (f"{compared.missing} of its files",)
    return Drift(compared.added, compared.edited, missing, stats=stats)
