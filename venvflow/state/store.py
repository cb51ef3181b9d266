"""The store that is written to: makes it, fills it, repairs it, and deletes what is in it.

What counts lies on disk as files, in this order: objects, then the trees that list them, then the
snapshot that lists the trees. So whatever can be seen is complete, and a kill in between leaves only
files that nobody refers to. Deleting goes the other way round. The index is a cache of this.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

from venvflow.disk import locks
from venvflow.disk.mounts import mount_of
from venvflow.disk.objects import Batch, MtimeMode, Name, sealed
from venvflow.disk.system_errors import explained
from venvflow.disk.trust import refuse_store, store_doubts
from venvflow.errors import EnvironmentFailure, Refused, shown
from venvflow.model import FORMAT, Key, Snapshot, Tree
from venvflow.pure.manifest import Corrupt, encode_snapshot, encode_tree, source_of
from venvflow.pure.retention import VenvName
from venvflow.state import holds, registry
from venvflow.state.holds import VenvHolds
from venvflow.state.index import Index
from venvflow.state.reader import (
    DIRECTORIES,
    README,
    StoreReader,
    may_become_store,
    refuse_other_spelling,
    snapshot_file,
    tree_file,
)
from venvflow.state.registry import Registration
from venvflow.state.usage import size_on_disk


class Store(StoreReader):
    """An open store, made if it is not there. What is found damaged is put aside, so that it is made anew."""

    _index: Index | None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def durable(self) -> bool:
        """Return whether what is written must survive a power cut."""
        return self.config.durability == "full"

    # ----------------------------------------------------------------------- opening

    def _open(self) -> None:
        if not os.path.lexists(f"{self.path}/format"):
            self._judge_place()
            self._create()
        super()._open()
        if not self.read_only:
            self._make_directories()  # some may be lost

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
        self._make_directories()
        for name, text in (("README", README), ("format", f"{FORMAT}\n")):
            with suppress(FileExistsError):
                self.layout.write(name, text.encode(), replace=False)
            self._refuse_without_modes(name)

    def _refuse_without_modes(self, name: str) -> None:
        """Refuse a file system on which the file *name*, made without executable bits, has them."""
        if os.lstat(f"{self.path}/{name}").st_mode & 0o111:
            raise EnvironmentFailure(
                "the file system has no executable bits (like FAT, exFAT), so all files would look damaged",
                where=shown(self.path),
                state="A README and empty directories were made there, and nothing else.",
                hint="Choose a directory on another file system as store.path (or VENVFLOW_STORE).",
            )

    def _close_to_others(self) -> None:
        """Keep others out of a new store, whatever the umask, until its owner lets them in."""
        st = os.fstat(self.layout.fd)
        if st.st_uid == os.geteuid():
            os.fchmod(self.layout.fd, stat.S_IMODE(st.st_mode) & ~0o077)

    def _make_directories(self) -> None:
        for name in DIRECTORIES:
            with self.layout.opened(name, make=True):
                pass

    def _judge_place(self) -> None:
        """Refuse root to make a store where others could change it; what there is of root's own is closed."""
        if os.geteuid() == 0 and not self.config.trusted:
            for doubt in store_doubts(self.path, (), 0):
                if not doubt.inside or os.lstat(self.path).st_uid:
                    raise refuse_store(self.path, doubt)

    def smallest_shared(self, size: int) -> int:
        """Return the size in bytes from which files are shared by links: *size*.

        In a store that somebody else can change no file is, so the answer is larger than any file.
        """
        return sys.maxsize if self.untrusted else size

    # ----------------------------------------------------------------------- locks

    def alone(self) -> locks.Lock:
        """Hold the store alone: nobody restores, squishes, packs or stores meanwhile."""
        return locks.exclusive(
            f"{self.path}/locks/store", timeout=self.timeout, what="the store", on_wait=self.on_wait
        )

    def claim(self, key: str) -> locks.Lock | None:
        """Return the claim on *key*, the right to build it, or None while another process holds it."""
        return locks.try_exclusive(self._claim_file(key), what=f"the build of {key[:12]}")

    def claimant(self, key: str) -> locks.Holder:
        """Return the process that holds the claim on *key*."""
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
            with suppress(EnvironmentFailure):  # a sweep says what is wrong there
                for record in self.registrations():
                    self._index_registration(record)
                for holder in self.holders():
                    index.recall(holder.held)
            index.mark_filled()

    def catch_up(self, registrations: Iterable[Registration]) -> None:
        """Let the index know exactly the snapshots that are there, and the venvs of *registrations*.

        It may be an older copy of itself, from a backup or without its log. Where it cannot be written, it
        stays as it is. The caller holds the store alone, so that nothing comes or goes meanwhile.
        """
        there, venvs = self.snapshot_ids(), {each.path: each.seen for each in registrations}
        with suppress(EnvironmentFailure):
            known, seen = self.index.usage().keys(), self.index.seen()
            if known == there and seen == venvs:
                return
            self.index.forget_snapshots(known - there)
            for path in seen.keys() - venvs.keys():
                self.index.forget_venv(path)
            self.rebuild_index()

    def _objects_on_disk(self) -> tuple[dict[Name, int], dict[Name, MtimeMode]]:
        """Return sizes and adopted looks; what looks other than ours must prove its content first."""
        sizes: dict[Name, int] = {}
        adopted: dict[Name, MtimeMode] = {}
        for name, st in self.objects.names():
            as_ours = self.objects.is_as_made(st, name, st.st_size)
            expected = sealed(name) if as_ours else self.objects.relabel(name)
            if expected is not None:
                sizes[name] = st.st_size
                if expected != sealed(name):
                    adopted[name] = expected
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

    def usable(self, name: Name, size: int, adopted: MtimeMode | None = None) -> bool:
        """Return whether venvs may be given an object of *size* bytes; a wrong mtime or mode is fixed.

        *adopted* are the mtime and mode with which it came, if it was adopted.
        """
        standing = self.objects.standing(name, size, adopted)
        if standing == "doubtful":
            return self.relabel(name, size, adopted) is not None
        return standing == "sound"

    def relabel(self, name: Name, size: int, adopted: MtimeMode | None = None) -> MtimeMode | None:
        """Set mtime and mode of an object as :meth:`Objects.relabel` does, and note them in the index."""
        ours = False
        with suppress(EnvironmentFailure):
            ours = adopted is None and self.index.is_own(name)
        expected = self.objects.relabel(name, adopted, ours=ours)
        if expected is not None and expected != adopted:
            with suppress(EnvironmentFailure):  # what it believes of an object is looked at before it is used
                self.index.add_objects({name: size}, {name: expected} if expected != sealed(name) else {})
        return expected

    # ----------------------------------------------------------------------- trees and snapshots

    def stage_trees(self, batch: Batch, trees: Iterable[Tree]) -> None:
        """Add to *batch* the trees that the store does not have.

        Raises EnvironmentFailure, as :meth:`tree` does, for names that this Python reads as no other does.
        """
        for tree in trees:
            refuse_other_spelling(tree)
            if not self.has_tree(tree.digest):
                batch.add_record(tree_file(tree.digest), encode_tree(tree))

    def _reject_tree(self, digest: str) -> None:
        """Put a damaged tree out of the way, or the next squish would believe that it is there."""
        with suppress(OSError):
            self.layout.unlink(tree_file(digest))

    def snapshot(self, identifier: str) -> Snapshot | None:
        """Return the snapshot as it is now: others publish and drop some meanwhile."""
        self._seen.pop(identifier, None)
        return super().snapshot(identifier)

    def _reject_snapshot(self, identifier: str) -> None:
        self.quarantine_snapshot(identifier)

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
        path, data = snapshot_file(snapshot.id), encode_snapshot(snapshot)
        try:
            self.layout.write(path, data, sync=self.durable, replace=False)
        except FileExistsError:
            if os.path.isfile(f"{self.path}/{path}"):
                raise
            self.layout.write(path, data, sync=self.durable)  # there is a directory, or nothing of ours

    def quarantine_snapshot(self, identifier: str) -> None:
        """Take a snapshot out of service: its key is a miss now; the file is kept to show why.

        In a store that cannot be written it stays, and is found damaged by everyone.
        """
        if self.read_only:
            return
        with self._explained(), suppress(FileNotFoundError):
            self.layout.put_aside(snapshot_file(identifier), f"{identifier}.json")
        with suppress(EnvironmentFailure):
            self.index.forget_snapshots([identifier])

    def drop(self, identifiers: Iterable[str]) -> None:
        """Delete snapshots; their trees and objects go with the next :meth:`sweep`."""
        identifiers = list(identifiers)
        with self._explained():
            for identifier in identifiers:
                with suppress(FileNotFoundError):
                    self.layout.unlink(snapshot_file(identifier))
            if self.durable:
                with self.layout.opened("snapshots") as fd:
                    os.fsync(fd)
        with suppress(EnvironmentFailure):
            self.index.forget_snapshots(identifiers)

    def generation(self) -> int:
        """Return a number that changes whenever a snapshot comes or goes."""
        return os.stat(f"{self.path}/snapshots").st_mtime_ns

    def _explained(self) -> AbstractContextManager[None]:
        state = "Nothing half-written is kept in the store."
        return explained("cannot write to the store", at=self.path, state=state)

    # ----------------------------------------------------------------------- registered venvs

    def register(self, registration: Registration, *, pin: bool | None = None) -> None:
        """Remember a venv of this machine, in place of what was known of that path; it holds its snapshot.

        *pin*: it holds all of its snapshots for ever; None: as before.
        """
        with self._explained():
            registry.add(self.layout, registration, sync=self.durable)
        self._index_registration(registration)
        if registration.snapshot is not None and registration.name:
            self._hold(registration, registration.snapshot, pin)

    def _hold(self, registration: Registration, snapshot: str, pin: bool | None) -> None:
        """Let a venv hold a *snapshot*, published or not, from now on; it was the one before until now."""
        venv, now = VenvName(registration.project, registration.name), registration.seen
        known = self.holder(venv) or VenvHolds(*venv, registration.path, "/", pin=False, held={})
        there = self.snapshot_ids()
        held = {each: used for each, used in known.held.items() if each in there}
        if known.current in held and known.current != snapshot:
            held[known.current] = self.index.touch_snapshot(known.current, now)
        held[snapshot] = self.index.touch_snapshot(snapshot, now)
        pin = known.pin if pin is None else pin
        mount = mount_of(registration.project).point
        self.hold(replace(known, path=registration.path, mount=mount, pin=pin, held=held))

    def hold(self, holder: VenvHolds) -> None:
        """Write down what a venv holds; with nothing to hold it is forgotten."""
        with self._explained():
            holds.write(self.layout, holder, sync=self.durable)

    def unregister(self, path: str) -> None:
        """Forget a venv: what only it needs may be swept."""
        with self._explained():
            registry.remove(self.layout, path)
        with suppress(EnvironmentFailure):
            self.index.forget_venv(path)

    def _index_registration(self, record: Registration) -> None:
        self.index.register(record.path, snapshot=record.snapshot, now=record.seen, trees=record.trees)

    # ----------------------------------------------------------------------- space

    def size_on_disk(self) -> int:
        """Return the bytes that the store's files occupy, each inode once."""
        return size_on_disk(self.path)

    def free_bytes(self) -> int:
        """Return the free bytes of the store's file system."""
        vfs = os.statvfs(self.path)
        return vfs.f_bavail * vfs.f_frsize


def bytecode_id(parts: dict[str, str]) -> str:
    """Return what two venvs must agree on to share bytecode, from the parts of their keys."""
    return f"{parts.get('python', '')} {parts.get('abi', '')}"
