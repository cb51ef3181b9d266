"""The store: objects, trees, snapshots and the index of one machine or user, as one thing.

What counts lies on disk as files, in this order: objects, then the trees that list them, then the
snapshot that lists the trees. So whatever can be seen is complete, and a kill in between leaves only
files that nobody refers to. Deleting goes the other way round. The index is a cache of this.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TypeVar

from venvflow.config.trust import STORE_PARTS, Doubt, refuse_store, store_doubts
from venvflow.disk import locks
from venvflow.disk.blame import failure
from venvflow.disk.descriptors import directory
from venvflow.disk.files import is_temporary_name, read_small
from venvflow.disk.layout import Layout, in_the_way, is_fan
from venvflow.disk.objects import Batch, Look, Name, Objects, sealed
from venvflow.errors import EnvironmentFailure, Refused, StoreFormatError, shown
from venvflow.model import FORMAT, Key, Manifest, Snapshot, StoreConfig, Tree
from venvflow.pure import decoding
from venvflow.pure.keys import make_key
from venvflow.pure.manifest import (
    Corrupt,
    decode_objects,
    decode_snapshot,
    decode_tree,
    encode_snapshot,
    encode_tree,
    snapshot_id,
    source_of,
)
from venvflow.state.index import Index, Outline, Usage
from venvflow.state.registry import Registration, Registry

README = """\
This is a store of venvflow: files that Python virtual environments share, and what is needed to make
those environments again.

It is data, not a cache: environments may be linked to the files under objects/. To move it, move the
whole directory and set store.path (or VENVFLOW_STORE). To delete it, first make sure that no environment
uses symlinks into it ("venvflow status" says); environments with hard links, reflinks or copies stay whole.

objects/    files, named by SHA-256 (with an x behind it when executable); never change them
trees/      which files make up one installed package
snapshots/  which packages make up one environment, and the key it is found by
venvs/      the environments on this machine that use the store
frames/     compressed packages, used again when an archive is made
index.db    SQLite, made from the above; may be deleted. Try: sqlite-utils index.db savings
tmp/ locks/ quarantine/   work in progress, lock files, files that were found damaged
"""


LARGEST_FORMAT = 100
"""Bytes of the largest file that may say which format a store has."""

_Decoded = TypeVar("_Decoded")


class Store:
    """An open store. *path* is absolute and resolved; *doubted*: somebody else can change what is in it."""

    def __init__(
        self, config: StoreConfig, *, timeout: float = 300, on_wait: Callable[[str], None] | None = None
    ) -> None:
        self.config = config
        self.path = os.path.realpath(config.path)
        self.timeout = timeout
        self.on_wait = on_wait
        self._index: Index | None = None
        self.read_only = False
        self.doubted = False
        self.objects = Objects(self.path, config.durability)
        self.layout = self.objects.layout
        self._open()
        self.durable = config.durability == "full"
        self.registry = Registry(self.layout, sync=self.durable)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index, if it was opened."""
        if self._index is not None:
            self._index.close()
            self._index = None

    # ----------------------------------------------------------------------- opening

    def _open(self) -> None:
        try:
            if not os.path.lexists(f"{self.path}/format"):
                self._judge_place()
                self._create()
            self._judge([*refuse_links(self.layout)])
            self._check_format()
            self.read_only |= not os.access(self.path, os.W_OK) or not _is_writable(f"{self.path}/objects")
            self._complete()
        except OSError as error:
            usual = "Check store.path (or VENVFLOW_STORE), its permissions and its free space."
            raise failure(
                error, "cannot open the store", at=self.path, state="Nothing was changed.", usual=usual
            ) from error

    def _create(self) -> None:
        if not os.path.lexists(self.path):
            with suppress(FileExistsError):  # it is a file: what follows says that it is in the way
                os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(self.path, 0o700)
        # Another process may be making the same store, and be done and at work in it by now.
        if not may_become_store(self.path) and not os.path.lexists(f"{self.path}/format"):
            raise Refused(
                "the directory is not empty and not a store",
                where=shown(self.path),
                state="It was left as it is.",
                hint="Choose an empty or a new directory as store.path.",
            )
        self._close_to_others()
        for name in _DIRECTORIES:
            with self.layout.opened(name, make=True):
                pass
        for name, text in (("README", README), ("format", f"{FORMAT}\n")):
            with suppress(FileExistsError):
                self.layout.write(name, text.encode(), replace=False)
            self._refuse_without_modes(name)

    def _refuse_without_modes(self, name: str) -> None:
        """Refuse a file system on which the file *name*, made without executable bits, has them."""
        if os.lstat(f"{self.path}/{name}").st_mode & 0o111:
            raise EnvironmentFailure(
                "the file system keeps no executable bits (as FAT, exFAT), so all files would look damaged",
                where=shown(self.path),
                state="A README and empty directories were made there, and nothing else.",
                hint="Choose a directory on another file system as store.path (or VENVFLOW_STORE).",
            )

    def _close_to_others(self) -> None:
        """Keep others out of a new store, whatever the umask, until its owner lets them in."""
        st = os.fstat(self.layout.fd)
        if st.st_uid == os.geteuid():
            os.fchmod(self.layout.fd, stat.S_IMODE(st.st_mode) & ~0o077)

    def _complete(self) -> None:
        """Make directories anew that were lost."""
        if not self.read_only:
            for name in _DIRECTORIES:
                with self.layout.opened(name, make=True):
                    pass

    def _check_format(self) -> None:
        text = read_small(f"{self.path}/format", largest=LARGEST_FORMAT).strip()
        if not text.replace(b".", b"").isdigit() and may_become_store(self.path):
            raise EnvironmentFailure(
                f"the store's format is not a number, but {text.decode('ascii', 'replace')!r}",
                where=shown(f"{self.path}/format"),
                state="Nothing in it was touched.",
                hint="Delete this file, then run again: it is written anew.",
            )
        if text != str(FORMAT).encode():
            raise StoreFormatError(
                f"the store has format {text.decode('ascii', 'replace')!r}, this venvflow knows {FORMAT}",
                where=shown(self.path),
                state="Nothing in it was touched.",
                hint="Upgrade venvflow, or use another store (VENVFLOW_STORE).",
            )

    def _judge(self, fans: list[str]) -> None:
        """See whether somebody else can change the store, in its *fans* too: then nothing is linked to it.

        Where its user says that the directories above are trusted, it is as good as in others: nobody else
        can edit what is in it. Raises Refused for root who does not say so, and for what everybody may write.
        """
        for doubt in store_doubts(self.path, (*STORE_PARTS, *fans), os.geteuid()):
            if doubt.inside and os.lstat(doubt.where).st_mode & stat.S_IWOTH:
                self._refuse_world_writable(doubt)
            if not self.config.trusted:
                if os.geteuid() == 0:
                    raise refuse_store(self.path, doubt)
                self.read_only |= doubt.inside
            self.doubted |= doubt.inside or not self.config.trusted

    def _judge_place(self) -> None:
        """Refuse root to make a store where others could change it; what there is of root's own is closed."""
        if os.geteuid() == 0 and not self.config.trusted:
            for doubt in store_doubts(self.path, (), 0):
                if not doubt.inside or os.lstat(self.path).st_uid:
                    raise refuse_store(self.path, doubt)

    def _refuse_world_writable(self, doubt: Doubt) -> None:
        raise Refused(
            "everybody may write to the store, so nobody can trust it",
            where=shown(doubt.where),
            state="Nothing in it was used.",
            hint=f"chmod -R o-w {shown(shlex.quote(self.path))}",
        )

    def least_shared(self, size: int) -> int:
        """Return from which size on, in bytes, files are shared by links, if it is *size* otherwise.

        From none, in a store that somebody else can change.
        """
        return sys.maxsize if self.doubted else size

    # ----------------------------------------------------------------------- locks

    @contextmanager
    def use(self) -> Iterator[None]:
        """Hold the store for use: nothing is trimmed meanwhile."""
        with locks.shared(
            f"{self.path}/locks/store", timeout=self.timeout, what="the store", on_wait=self.on_wait
        ):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the store alone: nobody restores, squishes, packs or stores meanwhile."""
        with locks.exclusive(
            f"{self.path}/locks/store", timeout=self.timeout, what="the store", on_wait=self.on_wait
        ):
            yield

    def claim(self, key: str) -> locks.Lock | None:
        """Return the right to build what *key* stands for, or None while somebody else has it."""
        return locks.try_exclusive(self._claim_file(key), what=f"the build of {key[:12]}")

    def claimant(self, key: str) -> locks.Holder:
        """Return who has the right to build what *key* stands for."""
        return locks.holder(self._claim_file(key))

    def _claim_file(self, key: str) -> str:
        return f"{self.path}/locks/key-{key}"

    # ----------------------------------------------------------------------- index

    @property
    def index(self) -> Index:
        """Return the index, opened (and made from what lies on disk, if it is new) when first needed."""
        if self._index is None:
            index = Index(f"{self.path}/index.db", read_only=self.read_only)
            self._index = index
            if index.fresh:
                self.rebuild_index()
        return self._index

    def rebuild_index(self) -> None:
        """Fill the index from objects, trees and snapshots; only the history of use cannot be made again."""
        sizes, adopted = self._objects_on_disk()  # may read a lot, so before others are kept from writing
        index = self.index
        with index.writing():
            index.add_objects(sizes, adopted)
            known = index.usage()
            for snapshot in self.snapshots():
                if snapshot.id in known:  # its history is worth keeping
                    continue
                with suppress(Corrupt):
                    manifest = self.load(snapshot)
                    self.learn(manifest.trees, snapshot.key)
                    index.add_snapshot(snapshot, snapshot.created)
            with suppress(EnvironmentFailure):  # who sweeps will say what is wrong there
                for record in self.registrations():
                    self._index_registration(record)
            index.mark_filled()

    def catch_up(self, registrations: Iterable[Registration]) -> None:
        """Let the index know exactly the snapshots that are there, and the venvs of *registrations*.

        It may be an older copy of itself, from a backup or without its log. Where it cannot be written, it
        stays as it is. The caller holds the store alone, so that nothing comes or goes meanwhile.
        """
        there, venvs = self._snapshot_ids(), {each.path: each.seen for each in registrations}
        with suppress(EnvironmentFailure):
            known, seen = self.index.usage().keys(), self.index.seen()
            if known == there and seen == venvs:
                return
            self.index.forget_snapshots(known - there)
            for path in seen.keys() - venvs.keys():
                self.index.forget_venv(path)
            self.rebuild_index()

    def _objects_on_disk(self) -> tuple[dict[Name, int], dict[Name, Look]]:
        """Return sizes and adopted looks; what looks other than ours must prove its content first."""
        sizes: dict[Name, int] = {}
        adopted: dict[Name, Look] = {}
        for name, st in self.objects.names():
            as_ours = self.objects.is_as_made(st, name, st.st_size)
            look = sealed(name) if as_ours else self.objects.relabel(name)
            if look is not None:
                sizes[name] = st.st_size
                if look != sealed(name):
                    adopted[name] = look
            elif not self.objects.verified(name):  # else it is right, and cannot be made to look so
                self.objects.quarantine(name)
        return sizes, adopted

    def learn(self, trees: Iterable[Tree], key: Key) -> None:
        """Tell the index of trees whose objects it knows, and what they say about bytecode."""
        trees = list(trees)
        self.index.add_trees(trees)
        compiled: dict[tuple[str, str], tuple[Name, int] | None] = {}
        if key.parts.get("bytecode") == "canonical":
            for tree in trees:
                files = {entry.path: entry for entry in tree.entries if entry.kind == "file"}
                for path, entry in files.items():
                    source = files.get(source_of(path) or "")
                    if source is not None:
                        made = Name(entry.digest, executable=False), entry.size
                        compiled[source.digest, source.path] = made
        self.index.add_bytecode(bytecode_id(key.parts), compiled)

    def usable(self, name: Name, size: int, adopted: Look | None = None) -> bool:
        """Return whether venvs may be given an object of *size* bytes; one with a wrong look is fixed.

        *adopted* is how it looked when it came, if it was adopted.
        """
        standing = self.objects.standing(name, size, adopted)
        if standing == "doubtful":
            return self.relabel(name, size, adopted) is not None
        return standing == "sound"

    def relabel(self, name: Name, size: int, adopted: Look | None = None) -> Look | None:
        """Let an object look as it should, as :meth:`Objects.relabel` does, and tell the index of it."""
        ours = False
        with suppress(EnvironmentFailure):
            ours = adopted is None and self.index.is_own(name)
        look = self.objects.relabel(name, adopted, ours=ours)
        if look is not None and look != adopted:
            with suppress(EnvironmentFailure):  # what it believes of an object is looked at before it is used
                self.index.add_objects({name: size}, {name: look} if look != sealed(name) else {})
        return look

    def adopted(self) -> dict[Name, Look]:
        """Return the adopted objects; none where the index cannot be used: they are verified then."""
        try:
            return self.index.adopted()
        except EnvironmentFailure:
            return {}

    # ----------------------------------------------------------------------- trees and snapshots

    def stage_trees(self, batch: Batch, trees: Iterable[Tree]) -> None:
        """Add to *batch* the trees that the store does not have.

        Raises EnvironmentFailure, as :meth:`tree` does, for names that this Python reads as no other does.
        """
        for tree in trees:
            _refuse_other_spelling(tree)
            if not self.has_tree(tree.digest):
                batch.add_record(_tree_file(tree.digest), encode_tree(tree))

    def tree(self, digest: str) -> Tree:
        """Return a tree; raises :class:`~venvflow.pure.manifest.Corrupt` if it is missing or damaged.

        Raises EnvironmentFailure for one that cannot be read: it may be whole, so nothing follows from that.
        """
        tree = self._decoded(digest, decode_tree)
        _refuse_other_spelling(tree)
        return tree

    def tree_objects(self, digest: str) -> list[tuple[Name, int]]:
        """Return the objects that a tree lists, with their sizes in bytes; raises as :meth:`tree` does."""
        rows = self._decoded(digest, decode_objects)
        return [(Name(each, executable), size) for each, executable, size in rows]

    def _decoded(self, digest: str, decode: Callable[[str, bytes], _Decoded]) -> _Decoded:
        try:
            data = read_small(self._tree_path(digest))
        except OSError as error:
            _refuse_to_guess(error, self._tree_path(digest))
            if error.errno == errno.EFBIG:
                self._reject_tree(digest)
            raise Corrupt(f"tree {digest[:12]} cannot be read: {error.strerror}") from error
        try:
            return decode(digest, data)
        except Corrupt as error:
            self._reject_tree(digest)
            raise Corrupt(f"tree {digest[:12]} is damaged: {error}") from error

    def _reject_tree(self, digest: str) -> None:
        """Put a damaged tree out of the way, or the next squish would believe that it is there."""
        with suppress(OSError):
            self.layout.unlink(_tree_file(digest))

    def has_tree(self, digest: str) -> bool:
        """Return whether there is a tree of this name; whether it is whole, reading it tells."""
        try:
            return stat.S_ISREG(os.lstat(self._tree_path(digest)).st_mode)
        except OSError:
            return False

    def load(self, snapshot: Snapshot) -> Manifest:
        """Return what a snapshot holds; raises :class:`~venvflow.pure.manifest.Corrupt` if a tree is bad."""
        return Manifest(tuple(self.tree(digest) for digest in snapshot.trees), snapshot.place is not None)

    def find(self, key: str, place: str) -> Snapshot | None:
        """Return the snapshot for a key digest: one for any place, or one that is bound to *place*."""
        for bound in (None, place):
            snapshot = self.snapshot(snapshot_id(key, bound))
            if snapshot is not None and snapshot.key.digest == key and snapshot.place == bound:
                return snapshot
        return None

    def snapshot(self, identifier: str) -> Snapshot | None:
        """Return the snapshot with this id, or None if there is none that can be read and believed."""
        with suppress(EnvironmentFailure):
            return self._snapshot(identifier)
        return None

    def _snapshot(self, identifier: str) -> Snapshot | None:
        try:
            snapshot: Snapshot | None = decode_snapshot(read_small(self._snapshot_path(identifier)))
        except OSError as error:
            _refuse_to_guess(error, self._snapshot_path(identifier))
            return None
        except Corrupt:
            snapshot = None
        if snapshot is None or not _is_honest(snapshot, identifier):
            self.quarantine_snapshot(identifier)
            return None
        return snapshot

    def snapshots(self) -> list[Snapshot]:
        """Return every snapshot in the store, oldest first.

        Raises EnvironmentFailure for one that is there and cannot be read: what it needs is not known.
        """
        found = [snapshot for name in self._snapshot_ids() if (snapshot := self._snapshot(name)) is not None]
        return sorted(found, key=lambda snapshot: (snapshot.created, snapshot.id))

    def outlines(self) -> list[Outline]:
        """Return every snapshot in outline, oldest first.

        From the index, if that knows exactly those that are there: then none of them is read, and one whose
        file was damaged is among them. From the snapshots otherwise.
        """
        known = self._known_outlines()
        if known.keys() == self._snapshot_ids():
            return sorted(known.values(), key=lambda each: (each.created, each.id))
        return self.outlined(self.snapshots())

    def outlined(self, snapshots: Iterable[Snapshot]) -> list[Outline]:
        """Return in outline what was read, with the history of use, as far as the index knows it."""
        known = self._known_outlines()
        return [_outline(each, known.get(each.id)) for each in snapshots]

    def _known_outlines(self) -> dict[str, Outline]:
        """Return the outlines in the index; none where it cannot be opened, as on a full disk."""
        try:
            return self.index.outlines()
        except EnvironmentFailure:
            return {}

    def _snapshot_ids(self) -> set[str]:
        try:
            names = os.listdir(f"{self.path}/snapshots")
        except FileNotFoundError:  # lost, in a store that cannot be written
            return set()
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def usage(self) -> dict[str, Usage]:
        """Return when each snapshot was last used."""
        return self.index.usage()

    def publish(self, snapshot: Snapshot, now: float) -> Snapshot:
        """Publish *snapshot* unless there is one of that id, and return the one that is there now."""
        existing = self.snapshot(snapshot.id)
        if existing is None:
            with self._explained(), suppress(FileExistsError):
                self._write_snapshot(snapshot)
            existing = self.snapshot(snapshot.id) or snapshot
        self.index.add_snapshot(existing, now)
        return existing

    def _write_snapshot(self, snapshot: Snapshot) -> None:
        path, data = _snapshot_file(snapshot.id), encode_snapshot(snapshot)
        try:
            self.layout.write(path, data, sync=self.durable, replace=False)
        except FileExistsError:
            if os.path.isfile(self._snapshot_path(snapshot.id)):
                raise
            self.layout.write(path, data, sync=self.durable)  # there is a directory, or nothing of ours

    def quarantine_snapshot(self, identifier: str) -> None:
        """Take a snapshot out of service: its key is a miss now; the file is kept for whoever asks why.

        In a store that cannot be written it stays, and is found amiss by everyone.
        """
        if self.read_only:
            return
        with self._explained(), suppress(FileNotFoundError):
            self.layout.put_aside(_snapshot_file(identifier), f"{identifier}.json")
        with suppress(EnvironmentFailure):
            self.index.forget_snapshots([identifier])

    def drop(self, identifiers: Iterable[str]) -> None:
        """Delete snapshots; their trees and objects go with the next :meth:`sweep`."""
        identifiers = list(identifiers)
        with self._explained():
            for identifier in identifiers:
                with suppress(FileNotFoundError):
                    self.layout.unlink(_snapshot_file(identifier))
            if self.durable:
                with self.layout.opened("snapshots") as fd:
                    os.fsync(fd)
        with suppress(EnvironmentFailure):
            self.index.forget_snapshots(identifiers)

    def generation(self) -> int:
        """Return a number that changes whenever a snapshot comes or goes."""
        return os.stat(f"{self.path}/snapshots").st_mtime_ns

    def _tree_path(self, digest: str) -> str:
        return f"{self.path}/{_tree_file(digest)}"

    def _snapshot_path(self, identifier: str) -> str:
        return f"{self.path}/{_snapshot_file(identifier)}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            state = "Nothing half-written is kept in the store."
            raise failure(error, "cannot write to the store", at=self.path, state=state) from error

    # ----------------------------------------------------------------------- registered venvs

    def register(self, registration: Registration) -> None:
        """Remember a venv of this machine, in place of what was known of that path.

        Snapshots that it held are still held, and that of its key is now.
        """
        known, current = self.registration(registration.path), _current_snapshot(registration)
        if current is not None:
            whose = (registration.project, registration.name)
            before = known.snapshots if known is not None and (known.project, known.name) == whose else ()
            there = self._snapshot_ids() if before else set()
            held = [each for each in before if each != current and each in there]
            registration = replace(registration, snapshots=(*held, current))
        with self._explained():
            self.registry.add(registration)
        self._index_registration(registration)

    def registration(self, path: str) -> Registration | None:
        """Return what is known of the venv at *path*."""
        return self.registry.of(path)

    def registrations(self) -> list[Registration]:
        """Return all venvs that use this store, in order of their paths.

        Raises EnvironmentFailure when it cannot be known what one of them needs.
        """
        return self.registry.all()

    def unregister(self, path: str) -> None:
        """Forget a venv: what only it needs may be swept."""
        with self._explained():
            self.registry.remove(path)
        with suppress(EnvironmentFailure):
            self.index.forget_venv(path)

    def _index_registration(self, record: Registration) -> None:
        self.index.register(
            record.path, name=record.name, project=record.project, key=record.key,
            snapshot=_current_snapshot(record), now=record.seen,
            trees=record.trees,
        )  # fmt: skip

    # ----------------------------------------------------------------------- space

    def size_on_disk(self) -> int:
        """Return the bytes that the store's files occupy, each inode once."""
        blocks: dict[int, int] = {}
        todo = [self.path]
        while todo:
            path = todo.pop()
            with suppress(FileNotFoundError), directory(path) as fd, os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(f"{path}/{entry.name}")
                        continue
                    with suppress(FileNotFoundError):  # others may be at work
                        st = entry.stat(follow_symlinks=False)
                        blocks[st.st_ino] = st.st_blocks
        return sum(blocks.values()) * 512

    def free_bytes(self) -> int:
        """Return the free bytes of the store's file system."""
        vfs = os.statvfs(self.path)
        return vfs.f_bavail * vfs.f_frsize


_DIRECTORIES = tuple(part for part in STORE_PARTS if part != "quarantine")
"""Directories that a store always has; the other one is made when something is put aside."""

_FANNED = ("objects", "trees", "frames")
_FILES = ("README", "trim.json", "settled.json")


def _tree_file(digest: str) -> str:
    """Return where a tree lies; raises Corrupt for what is not a digest: it may be anybody's word."""
    decoding.digest(digest)
    return f"trees/{digest[:2]}/{digest[2:]}"


def _snapshot_file(identifier: str) -> str:
    return f"snapshots/{identifier}.json"


def _is_writable(path: str) -> bool:
    """Return whether we may write to a directory, or make it where it was lost."""
    return os.access(path, os.W_OK) or not os.path.lexists(path)


def refuse_links(layout: Layout) -> Iterator[str]:
    """Raise Refused for a symlink in the place of a part of a store, EnvironmentFailure for anything else.

    Raises ``OSError`` where one may not look. Yields the directories into which files are fanned out.
    """
    with os.scandir(layout.fd) as entries:
        for entry in entries:
            if entry.name in STORE_PARTS:
                with layout.opened(entry.name) as fd:
                    yield from _fans_in(layout.path, entry.name, fd) if entry.name in _FANNED else ()
            elif _is_obstacle(entry):
                raise in_the_way(f"{layout.path}/{entry.name}")


def _is_obstacle(entry: os.DirEntry[str]) -> bool:
    """Return whether something is in the place of a file of the store: what we make again is put aside."""
    if entry.name == "format":
        return not entry.is_file(follow_symlinks=False)
    return entry.is_symlink() and (entry.name in _FILES or entry.name.startswith("index.db"))


def _fans_in(path: str, name: str, fd: int) -> Iterator[str]:
    with os.scandir(fd) as entries:
        for entry in entries:
            if is_fan(entry.name):
                if not entry.is_dir(follow_symlinks=False):
                    raise in_the_way(f"{path}/{name}/{entry.name}")
                yield f"{name}/{entry.name}"


def may_become_store(path: str) -> bool:
    """Return whether a directory holds nothing yet, or what a killed :meth:`Store._create` leaves.

    Names alone do not tell: whatever lies in ``tmp/`` of a store is deleted one day.
    """
    names = {name for name in os.listdir(path) if name[0] != "." and name != "lost+found"}
    if "README" in names:
        try:
            return read_small(f"{path}/README", largest=len(README)) == README.encode()
        except OSError:
            return False
    return all(name in _DIRECTORIES and _holds_litter_only(f"{path}/{name}") for name in names)


def _holds_litter_only(path: str) -> bool:
    return os.path.isdir(path) and all(is_temporary_name(name) for name in os.listdir(path))


_CLOSED = {
    errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
}  # fmt: skip
"""What says nothing of a file but that it cannot be read just now."""


def _refuse_to_guess(error: OSError, path: str) -> None:
    """Raise EnvironmentFailure where a file may be whole though it cannot be read: it is not called damaged.

    Whoever took it for that would put its snapshots aside, or delete what only they need.
    """
    if error.errno in _CLOSED:
        state = "Nothing was deleted or put aside for that."
        raise failure(error, "cannot read what the store has", at=path, state=state) from error


def _current_snapshot(record: Registration) -> str | None:
    """Return the id of the snapshot that a registered venv is of now, whether it was published or not."""
    return snapshot_id(record.key, record.place or None) if record.key else None


def _refuse_other_spelling(tree: Tree) -> None:
    """Raise EnvironmentFailure for a name that is not ASCII where Python does not take file names for UTF-8.

    There it is another text, so the same venv would be another tree, or a tree another venv.
    """
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return
    for entry in tree.entries:
        if not entry.path.isascii():
            raise EnvironmentFailure(
                f"this Python takes file names for {encoding}, but trees of the store hold UTF-8",
                where=f"{tree.name}: {shown(entry.path)}",
                state="The venv and the store are as they were.",
                hint="Set PYTHONUTF8=1, or choose a locale with UTF-8 (LC_ALL=C.UTF-8), and run again.",
            )


def _is_honest(snapshot: Snapshot, identifier: str) -> bool:
    """Return whether a snapshot is the one that its name and its key say."""
    key = snapshot.key
    return (
        snapshot.id == identifier == snapshot_id(key.digest, snapshot.place)
        and make_key(key.parts).digest == key.digest
    )


def _outline(snapshot: Snapshot, known: Outline | None) -> Outline:
    """Return a snapshot in outline, with the history of use of the outline that is *known* of it."""
    return Outline(
        snapshot.id, snapshot.key.digest, snapshot.venv, snapshot.place, snapshot.python, snapshot.host,
        snapshot.command, snapshot.created, snapshot.files, snapshot.size,
        known.used if known is not None else None,
    )  # fmt: skip


def bytecode_id(parts: dict[str, str]) -> str:
    """Return what two venvs must agree on to share bytecode, from the parts of their keys."""
    return f"{parts.get('python', '')} {parts.get('abi', '')}"
