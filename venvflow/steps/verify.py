"""``verify``: objects against their names, venvs against their manifests; names each finding, and mends it.

By default only what changed by its stat is read again. An edit through a hard link is in every venv that has
the file, and nothing on disk says in which of them it was made: the venv that was named, or the one in which
its directory changed since, counts as the editor's, and keeps the edit as a file of its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from venvflow.disk.links import Linker, write_private
from venvflow.disk.objects import Name, object_name, object_names
from venvflow.disk.places import Place, Receipt, write_receipt
from venvflow.disk.scan import Changing, Content, Found, directory, look, read, walk
from venvflow.disk.sharing import stays_private
from venvflow.model import MTIME_NS, Entry, LinkMode, Manifest
from venvflow.pure.manifest import Corrupt, entries_of
from venvflow.pure.relocate import Places, digest_of, fill, find, find_in_record
from venvflow.state.registry import Registration
from venvflow.state.relink import TEMPORARY
from venvflow.state.store import Store
from venvflow.state.witness import is_ignored
from venvflow.steps import rescue
from venvflow.steps.drift import as_made

_LADDERS: dict[str, tuple[LinkMode, ...]] = {
    "reflink": ("reflink",),
    "hardlink": ("hardlink",),
    "symlink": ("symlink",),
    "copy": ("reflink", "copy"),
    "": ("hardlink",),
}
"""How a file is given to a venv again that is shared in one mode."""

Kind = Literal[
    "object damaged",
    "object missing",
    "file edited",
    "file missing",
    "file added",
    "mtime moved",
    "venv moved",
]


_LARGEST_TEMPLATE = 4 << 20

_HOPELESS = (
    "no good copy is left in venvs, store or caches: nothing will be made from it, and snapshots with it are "
    "misses. Install again what it belongs to (or delete the venv and run doit)"
)


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
        """Return the findings that were not mended."""
        return [finding for finding in self.findings if not finding.healed]


@dataclass(slots=True)
class _Venv:
    """A registered venv: what it should hold, and what a walk found; *private* as in its receipt."""

    path: str
    receipt: Receipt
    places: Places
    entries: dict[str, Entry]
    found: dict[str, Found]
    private: dict[str, str]

    def is_object(self, path: str, inode: tuple[int, int]) -> bool:
        """Return whether the file is that inode."""
        item = self.found.get(path)
        return item is not None and (item.device, item.stamp.inode) == inode


_Tell = Callable[["list[tuple[_Venv, Entry]]", "_Venv", Entry], bool]
"""Tells of one of the users of a damaged object whether it is the editor."""


def _silent(_done: int, _total: int) -> None:
    """Say nothing."""


def verify(
    store: Store,
    registrations: Iterable[Registration],
    *,
    full: bool = False,
    heal: bool = False,
    only: frozenset[str] = frozenset(),
    caches: Sequence[str] = (),
    progress: Callable[[int, int], None] = _silent,
) -> Verified:
    """Verify the store and the venvs of *registrations*, and mend what can be mended if asked to *heal*.

    *only* are paths of venvs: objects that none of them has are left out, and they count as where edits were
    made. *full* reads everything again. *caches* are directories of builders in which good copies may be (see
    :mod:`venvflow.steps.rescue`). *progress* is called with bytes read and in all. The store is held
    by the caller. Raises EnvironmentFailure for a venv that cannot be read.
    """
    run = _Verification(store, full=full, heal=heal, only=only, caches=caches, progress=progress)
    run.look(registrations)
    run.judge_objects()
    for venv in run.chosen:
        run.judge_venv(venv)
    run.remember_private()
    return run.result


class _Verification:
    """One verification: the venvs, the objects that they and the snapshots need, what was found."""

    def __init__(
        self,
        store: Store,
        *,
        full: bool,
        heal: bool,
        only: frozenset[str],
        caches: Sequence[str],
        progress: Callable[[int, int], None],
    ) -> None:
        self._store = store
        self._objects = store.objects
        self._full = full
        self._heal = heal
        self._only = only
        self._caches = caches
        self._progress = progress
        self._total = 0
        self._adopted = store.adopted()
        self._sizes: dict[Name, int] = {}
        self._bad: dict[Name, tuple[int, int]] = {}
        self._quarantine = _quarantined(store.objects.quarantined)
        self._judged: set[tuple[int, int]] = set()  # inodes of which a finding tells already
        self.venvs: list[_Venv] = []
        self.result = Verified()

    @property
    def chosen(self) -> list[_Venv]:
        """Return the venvs that were asked for: all, unless some were named."""
        return [venv for venv in self.venvs if not self._only or venv.path in self._only]

    # ----------------------------------------------------------------------- looking

    def look(self, registrations: Iterable[Registration]) -> None:
        """Walk all venvs, and learn which objects are needed."""
        for registration in registrations:
            venv = self._venv(registration)
            if venv is not None:
                self.venvs.append(venv)
        needed = self.chosen if self._only else self.venvs
        for venv in needed:
            for entry in venv.entries.values():
                if entry.digest:
                    self._sizes[object_name(entry)] = entry.size
        if not self._only:
            self._add_snapshots()
        self.result.venvs = len(self.chosen)
        self._total = sum(self._sizes.values())

    def _venv(self, registration: Registration) -> _Venv | None:
        place = Place(registration.path)
        receipt = place.receipt()
        if receipt is None or receipt.state != "shared":
            return None
        if receipt.path != place.path:
            self.result.findings.append(
                Finding("venv moved", "", place.path, note=f"it was shared at {receipt.path}")
            )
            return None
        try:
            entries = entries_of(Manifest(tuple(self._store.tree(digest) for digest in receipt.trees)))
        except Corrupt as error:
            note = f"its manifest is gone: {error}"
            self.result.findings.append(Finding("object missing", "", place.path, note=note))
            return None
        places = Places(place.path, registration.project or place.parent, receipt.python)
        found = {item.path: item for item in walk(place.path)}
        return _Venv(place.path, receipt, places, entries, found, {**receipt.private})

    def _add_snapshots(self) -> None:
        for snapshot in self._store.snapshots():
            with suppress(Corrupt):
                for tree in self._store.load(snapshot).trees:
                    sizes = (entry.size for entry in tree.entries if entry.digest)
                    self._sizes.update(zip(object_names(tree), sizes, strict=True))

    # ----------------------------------------------------------------------- objects

    def judge_objects(self) -> None:
        """Find objects that are not what their names say, and mend them."""
        for name, size in self._sizes.items():
            self.result.objects += 1
            path = self._objects.path(name)
            aside = self._aside(name)
            if aside is not None:
                self._judge_damage(name, aside, again=True)
            elif not os.path.lexists(path):
                self._judge_missing(name, size)
            elif self._full or not self._objects.sound(name, size, self._adopted.get(name)):
                self._judge_object(name, size, path)

    def _aside(self, name: Name) -> tuple[int, int] | None:
        """Return the damaged object that was put aside while venvs still have it: a mending was cut short."""
        for inode in self._quarantine.get(name.digest, ()):
            if any(venv.is_object(entry.path, inode) for venv, entry in self._users(name)):
                return inode
        return None

    def _judge_missing(self, name: Name, size: int) -> None:
        users = self._users(name)
        if size == 0 or (users and all(self._is_private(entry) for _, entry in users)):
            return  # nobody needs it while its venvs have their own copies
        finding = Finding("object missing", self._objects.path(name), others=_paths(users))
        self.result.findings.append(finding)
        if self._heal:
            self._mend(name, finding, None)

    def _is_private(self, entry: Entry) -> bool:
        return stays_private(entry, 1)

    def _judge_object(self, name: Name, size: int, path: str) -> None:
        self.result.read += size
        self._progress(self.result.read, self._total)
        item = look(path)
        if self._objects.verified(name):
            expected = self._adopted.get(name, MTIME_NS)
            if item.stamp.mtime_ns != expected:
                self._judged.add(_inode(item))
                self._judge_moved(path)
            return
        self._judge_damage(name, _inode(item))

    def _judge_damage(self, name: Name, inode: tuple[int, int], *, again: bool = False) -> None:
        """Tell of the damaged object *inode*, and who has it; make it anew, or *again* what was cut short."""
        self._bad[name] = inode
        self._judged.add(inode)
        users = [(venv, entry) for venv, entry in self._users(name) if venv.is_object(entry.path, inode)]
        links = [(venv, entry) for venv, entry in self._users(name) if _is_link(venv, entry)]
        # What was cut short may have left one alone, and was at work in its directory: that tells nothing.
        editor = self._editor(users or links, (self._is_named,) if again else self._tells)
        self.result.findings.append(self._of_damage(name, users or links, editor))
        if self._heal:
            self._mend(name, self.result.findings[-1], editor)

    def _judge_moved(self, path: str) -> None:
        finding = Finding("mtime moved", path)
        self.result.findings.append(finding)
        if self._heal:
            os.utime(path, ns=(MTIME_NS, MTIME_NS), follow_symlinks=False)
            finding.healed = "given back its time"

    def _of_damage(
        self, name: Name, users: list[tuple[_Venv, Entry]], editor: tuple[_Venv, Entry] | None
    ) -> Finding:
        if editor is None:
            return Finding("object damaged", self._objects.path(name), others=_paths(users))
        venv, entry = editor
        others = _paths(user for user in users if user != editor)
        return Finding("file edited", entry.path, venv.path, others)

    def _users(self, name: Name) -> list[tuple[_Venv, Entry]]:
        """Return the venvs, with their entries, whose manifests have this object."""
        return [
            (venv, entry)
            for venv in self.venvs
            for entry in venv.entries.values()
            if entry.digest == name.digest and object_name(entry) == name
        ]

    @property
    def _tells(self) -> tuple[_Tell, ...]:
        return self._is_named, self._is_alone, self._shows_work

    @staticmethod
    def _editor(users: list[tuple[_Venv, Entry]], tells: Iterable[_Tell]) -> tuple[_Venv, Entry] | None:
        """Return where an edit through a link was made, if anything tells: see the top of this module."""
        for tell in tells:
            found = [user for user in users if tell(users, *user)]
            if len({venv.path for venv, _ in found}) == 1:
                return found[0]
        return None

    def _is_named(self, _: list[tuple[_Venv, Entry]], venv: _Venv, _entry: Entry) -> bool:
        return venv.path in self._only

    def _is_alone(self, users: list[tuple[_Venv, Entry]], _: _Venv, _entry: Entry) -> bool:
        return len({venv.path for venv, _ in users}) == 1

    def _shows_work(self, _: list[tuple[_Venv, Entry]], venv: _Venv, entry: Entry) -> bool:
        """Return whether the directory changed since, as when an editor leaves a backup there."""
        parent = os.path.dirname(entry.path)
        noted = dict(venv.receipt.directories).get(parent)
        now = venv.found.get(parent)
        return noted is not None and now is not None and now.stamp.mtime_ns != noted

    # ----------------------------------------------------------------------- mending objects

    def _mend(self, name: Name, finding: Finding, editor: tuple[_Venv, Entry] | None) -> None:
        """Make the object anew from a good copy, and give it to all venvs but the editor's."""
        inode = self._bad.get(name)
        good = self._made_anew(name)
        if good is None:
            # It stays where it is: venvs may be symlinked to it, and nothing links to it unhashed.
            finding.note = _HOPELESS
            return
        edited = f"{self._objects.quarantined}/{name.digest}.{inode[1]}" if inode is not None else ""
        self._store.index.add_objects({name: look(self._objects.path(name)).stamp.size}, {})
        self._adopted.pop(name, None)
        for venv, entry in self._users(name):
            self._give(venv, entry, name, inode, edited, is_editor=(venv, entry) == editor)
        self._bad.pop(name, None)
        finding.healed = f"its bytes came from {_called(good, self._objects.tmp)}"
        if edited and editor is None:
            finding.note = f"the damaged bytes are in {edited}"
        elif edited:
            finding.note = "the edit was kept there as a private file"

    def _made_anew(self, name: Name) -> str | None:
        """Put a good copy in the place of the object; return which, None if there is none."""
        path = self._objects.path(name)
        if os.path.lexists(path) and self._objects.verified(name):
            return path  # an earlier run came as far as this
        with self._objects.batch() as batch:
            good = self._good_copy(name, batch.staging)
            if good is not None:
                if os.path.lexists(path):
                    self._objects.quarantine(name)
                batch.add_copy(good, name, look(good).stamp)
                batch.publish()
        return good

    def _good_copy(self, name: Name, scratch: str) -> str | None:
        """Return a file that has the bytes that *name* says; what is made for that goes into *scratch*."""
        for path in self._candidates(name, scratch):
            with suppress(OSError, Changing):
                if read(path).digest == name.digest:
                    return path
        return None

    def _candidates(self, name: Name, scratch: str) -> Iterator[str]:
        bad = self._bad.get(name)
        for venv in self.venvs:
            for path, entry in venv.entries.items():
                item = venv.found.get(path) if entry.digest == name.digest else None
                if item is not None and item.kind == "file" == entry.kind and _inode(item) != bad:
                    yield f"{venv.path}/{path}"
        yield from rescue.stored_copies(self._store, name)
        uses = [rescue.Use(venv.path, entry, venv.entries) for venv, entry in self._users(name)]
        yield from rescue.cached_copies(self._caches, uses)
        trees = dict.fromkeys(digest for venv in self.venvs for digest in venv.receipt.trees)
        yield from rescue.packed_copies(self._store, [*trees], uses, scratch)
        yield from rescue.compiled_copies(self._store, uses, scratch)

    def _give(
        self,
        venv: _Venv,
        entry: Entry,
        name: Name,
        bad: tuple[int, int] | None,
        edited: str,
        *,
        is_editor: bool,
    ) -> None:
        """Give a venv its bytes back where it had the damaged object, or keep the edit as its own file."""
        item = venv.found.get(entry.path)
        is_bad = item is not None and bad is not None and venv.is_object(entry.path, bad)
        if not is_bad and not (is_editor and _is_link(venv, entry)):
            return
        with _parent(venv, entry.path, quietly=not is_editor) as fd:
            if is_editor:
                with open(edited, "rb") as file:
                    _put_bytes(file.read(), fd, entry)
            else:
                self._put(name, fd, entry, venv.receipt.link)
        now = venv.found[entry.path] = look(f"{venv.path}/{entry.path}")._replace(path=entry.path)
        if is_editor:
            self._judged.add(_inode(now))
            venv.private[entry.path] = read(f"{venv.path}/{entry.path}").digest

    def _put(self, name: Name, fd: int, entry: Entry, link: str) -> None:
        ladder = _LADDERS["copy" if stays_private(entry, 1) else link]
        linker = Linker(ladder)
        linker.twin = self._objects.twin
        with _replacing(entry, fd) as temporary:
            linker.place(self._objects.path(name), temporary, fd, executable=entry.executable)

    # ----------------------------------------------------------------------- venvs

    def judge_venv(self, venv: _Venv) -> None:
        """Find what is missing, added or changed in one venv."""
        for path, entry in venv.entries.items():
            self.result.files += 1
            item = venv.found.get(path)
            if item is None:
                self._judge_gone(venv, entry)
            elif entry.digest:
                self._judge_file(venv, entry, item)
            elif item.kind != entry.kind:
                self.result.findings.append(Finding("file edited", path, venv.path))
        for path, item in venv.found.items():
            if item.kind != "dir" and path not in venv.entries and not is_ignored(path):
                self.result.findings.append(Finding("file added", path, venv.path))

    def remember_private(self) -> None:
        """Note in the receipts which edits are known now."""
        for venv in self.venvs:
            if venv.private != venv.receipt.private:
                receipt = replace(venv.receipt, private=venv.private)
                write_receipt(venv.path, receipt, sync=self._store.durable)

    def _judge_gone(self, venv: _Venv, entry: Entry) -> None:
        finding = Finding("file missing", entry.path, venv.path)
        self.result.findings.append(finding)
        if self._heal and entry.kind == "file" and self._objects.verified(object_name(entry)):
            with suppress(OSError), _parent(venv, entry.path) as fd:
                self._put(object_name(entry), fd, entry, venv.receipt.link)
                finding.healed = "put there again from the store"

    def _judge_file(self, venv: _Venv, entry: Entry, item: Found) -> None:
        name = object_name(entry)
        if item.kind == "link" and self._objects.name_at(os.readlink(f"{venv.path}/{entry.path}")) == name:
            return  # it is the object, and that was judged
        if _inode(item) in self._judged:
            return
        if item.kind != "file":
            self.result.findings.append(Finding("file edited", entry.path, venv.path))
        elif self._needs_reading(entry, item):
            self._judge_content(venv, entry, item)

    def _needs_reading(self, entry: Entry, item: Found) -> bool:
        if not as_made(item, entry, self._adopted):
            return True
        if not self._full:
            return False
        with suppress(OSError):
            return not self._objects.is_at(object_name(entry), item.stamp.inode, item.device)
        return True

    def _judge_content(self, venv: _Venv, entry: Entry, item: Found) -> None:
        path = f"{venv.path}/{entry.path}"
        self.result.read += item.stamp.size
        self._progress(min(self.result.read, self._total), self._total)
        content = None
        with suppress(OSError, Changing):
            content = read(path, keep=_LARGEST_TEMPLATE if entry.kind == "template" else 0)
        if content is None or not self._is_as_made(venv, entry, content):
            self._judge_edit(venv, entry, item, content.digest if content else "")
        elif not as_made(item, entry, self._adopted):
            finding = Finding("mtime moved", entry.path, venv.path)
            self.result.findings.append(finding)
            if self._heal and item.links == 1:
                os.utime(path, ns=(MTIME_NS, MTIME_NS), follow_symlinks=False)
                finding.healed = "given back its time"

    def _judge_edit(self, venv: _Venv, entry: Entry, item: Found, digest: str) -> None:
        """Name a file with other bytes, unless they are known to be the venv's own; know them if asked to."""
        if digest and venv.private.get(entry.path) == digest:
            self.result.private += 1
            return
        finding = Finding("file edited", entry.path, venv.path, tuple(self._sharers(venv, item)))
        self.result.findings.append(finding)
        if self._heal and digest and item.links == 1:
            venv.private[entry.path] = digest
            finding.healed = "known as a private file of this venv from now on"

    def _is_as_made(self, venv: _Venv, entry: Entry, content: Content) -> bool:
        """Return whether a file says what it should; a template may spell its local paths as it likes."""
        if entry.kind == "file":
            return content.digest == entry.digest
        with suppress(KeyError, ValueError, Corrupt):
            if self._filled(venv, entry)[0].hex() == content.digest:
                return True
        rewritten = {path for path, each in venv.entries.items() if each.kind == "template"}
        for found in (
            find(entry.path, content.data, venv.places),
            find_in_record(entry.path, content.data, rewritten, venv.places),
        ):
            if found is not None and found.slots == entry.slots:
                return hashlib.sha256(found.data).hexdigest() == entry.digest
        return False

    def _filled(self, venv: _Venv, entry: Entry) -> tuple[bytes, int]:
        """Return digest and size of a template, filled in; raises ``KeyError`` when it cannot be."""
        if entry.kind != "template":
            return bytes.fromhex(entry.digest), entry.size
        data = self._objects.read(object_name(entry))
        if data is None:
            raise KeyError(entry.path)
        described = (slot.argument for slot in entry.slots if slot.form == "record")
        digests = {path: self._filled(venv, venv.entries[path]) for path in described}
        return digest_of(fill(data, entry.slots, venv.places, digests))

    def _sharers(self, venv: _Venv, item: Found) -> Iterator[str]:
        """Yield the files of other venvs that are the same inode."""
        if item.links > 1:
            for other in self.venvs:
                for path, found in other.found.items():
                    if other is not venv and _inode(found) == _inode(item):
                        yield f"{other.path}/{path}"


def _quarantined(directory: str) -> dict[str, list[tuple[int, int]]]:
    """Return the damaged objects that were put aside, by digest: device and inode."""
    found: dict[str, list[tuple[int, int]]] = {}
    with suppress(FileNotFoundError):
        for name in os.listdir(directory):
            item = look(f"{directory}/{name}")
            found.setdefault(name.partition(".")[0], []).append(_inode(item))
    return found


def _called(path: str, tmp: str) -> str:
    """Return in words where good bytes came from; what was made in *tmp* is gone by then."""
    if not path.startswith(tmp + "/"):
        return path
    return "a packed tree of the store" if "/packed-" in path else "compiling it anew"


def _inode(item: Found) -> tuple[int, int]:
    return item.device, item.stamp.inode


def _is_link(venv: _Venv, entry: Entry) -> bool:
    item = venv.found.get(entry.path)
    return item is not None and item.kind == "link" and entry.kind == "file"


def _paths(users: Iterable[tuple[_Venv, Entry]]) -> tuple[str, ...]:
    return tuple(f"{venv.path}/{entry.path}" for venv, entry in users)


def _put_bytes(data: bytes, fd: int, entry: Entry) -> None:
    """Make a file private with the bytes that somebody wrote, and the time of now: it shows as edited."""
    with _replacing(entry, fd) as temporary:
        write_private(temporary, fd, data, executable=entry.executable)
        os.utime(temporary, dir_fd=fd)


_MENDED = f"{TEMPORARY}0-0"
"""One name for all runs, of which there is one at a time: what a killed one leaves is the next one's."""


@contextmanager
def _replacing(entry: Entry, fd: int) -> Iterator[str]:
    """Give a name in the directory *fd* for what takes the place of the entry's file at the end."""
    with suppress(FileNotFoundError):
        os.unlink(_MENDED, dir_fd=fd)
    try:
        yield _MENDED
        os.rename(_MENDED, os.path.basename(entry.path), src_dir_fd=fd, dst_dir_fd=fd)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(_MENDED, dir_fd=fd)


@contextmanager
def _parent(venv: _Venv, path: str, *, quietly: bool = True) -> Iterator[int]:
    """Open the directory of a file, made if it is missing; *quietly*: it keeps its mtime, as if untouched."""
    parent = os.path.dirname(f"{venv.path}/{path}")
    os.makedirs(parent, exist_ok=True)
    with directory(parent) as fd:
        before = os.fstat(fd).st_mtime_ns
        try:
            yield fd
        finally:
            if quietly:
                os.utime(fd, ns=(before, before))
