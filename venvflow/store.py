"""The store: objects, trees, snapshots and the index of one machine or user, as one thing.

What counts lies on disk as files, in this order: objects, then the trees that list them, then the
snapshot that lists the trees. So whatever can be seen is complete, and a kill in between leaves only
files that nobody refers to. Deleting goes the other way round. The index is a cache of this.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import NamedTuple

from venvflow import locks
from venvflow.errors import EnvironmentFailure, Refused, StoreFormatError, shown
from venvflow.index import Index, Usage
from venvflow.keys import make_key
from venvflow.links import sync_file_system
from venvflow.manifest import (
    Corrupt,
    decode_snapshot,
    decode_tree,
    encode_snapshot,
    encode_tree,
    snapshot_id,
    source_of,
)
from venvflow.model import FORMAT, Key, Manifest, Snapshot, StoreConfig, Tree
from venvflow.objects import Batch, Name, Objects

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


@dataclass(frozen=True, slots=True)
class Registration:
    """A venv of this machine that uses the store.

    *trees* are kept alive for it: those of a venv that is linked by symlinks, or that was squished and not
    stored yet. *inode* is that of the directory that venvflow made.
    """

    path: str
    project: str
    name: str
    key: str
    place: str
    link: str
    trees: tuple[str, ...]
    inode: int | None
    seen: float
    pin: bool = False

    @property
    def gone(self) -> bool:
        """Return whether the project was deleted; one whose parent is missing too may only be unmounted."""
        home = self.project or os.path.dirname(self.path)
        return not os.path.lexists(home) and os.path.isdir(os.path.dirname(home))


class Swept(NamedTuple):
    """What a sweep removed: counts, and the bytes that the file system got back."""

    objects: int
    trees: int
    bytes: int


class Store:
    """An open store. *path* is absolute and resolved."""

    def __init__(
        self, config: StoreConfig, *, timeout: float = 300, on_wait: Callable[[str], None] | None = None
    ) -> None:
        self.config = config
        self.path = os.path.realpath(config.path)
        self.timeout = timeout
        self.on_wait = on_wait
        self._index: Index | None = None
        self.read_only = False
        self._open()
        self.objects = Objects(self.path, config.durability)

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
                self._create()
            self._check_format()
        except OSError as error:
            raise EnvironmentFailure(
                f"cannot open the store: {error.strerror}",
                where=shown(error.filename or self.path),
                state="Nothing was changed.",
                hint="Check store.path (or VENVFLOW_STORE), its permissions and its free space.",
            ) from error
        self._check_owner()
        self.read_only = not os.access(f"{self.path}/objects", os.W_OK)

    def _create(self) -> None:
        os.makedirs(self.path, exist_ok=True)
        if any(name not in _LAYOUT and name[0] != "." for name in os.listdir(self.path)):
            raise Refused(
                "the directory is not empty and not a store",
                where=shown(self.path),
                state="It was left as it is.",
                hint="Choose an empty or a new directory as store.path.",
            )
        for name in _DIRECTORIES:
            os.makedirs(f"{self.path}/{name}", exist_ok=True)
        for name, text in (("README", README), ("format", f"{FORMAT}\n")):
            with suppress(FileExistsError):  # another process makes the same store
                _write_file(f"{self.path}/{name}", text.encode())

    def _check_format(self) -> None:
        with open(f"{self.path}/format", "rb") as file:
            text = file.read(100).strip()
        if text != str(FORMAT).encode():
            raise StoreFormatError(
                f"the store has format {text.decode('ascii', 'replace')!r}, this venvflow knows {FORMAT}",
                where=shown(self.path),
                state="Nothing in it was touched.",
                hint="Upgrade venvflow, or use another store (VENVFLOW_STORE).",
            )

    def _check_owner(self) -> None:
        st = os.stat(self.path)
        if st.st_mode & stat.S_IWOTH and not st.st_mode & stat.S_ISVTX:
            raise Refused(
                "everybody may write to the store, so nobody can trust it",
                where=shown(self.path),
                state="Nothing in it was used.",
                hint=f"chmod o-w {shown(self.path)}",
            )

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
        return locks.try_exclusive(f"{self.path}/locks/key-{key}", what=f"the build of {key[:12]}")

    # ----------------------------------------------------------------------- index

    @property
    def index(self) -> Index:
        """Return the index, opened (and made from what lies on disk, if it is new) when first needed."""
        if self._index is None:
            index = Index(f"{self.path}/index.db")
            self._index = index
            if index.fresh:
                self.rebuild_index()
        return self._index

    def rebuild_index(self) -> None:
        """Fill the index from objects, trees and snapshots; only the history of use cannot be made again."""
        index = self.index
        with index.writing():
            index.add_objects(*self._objects_on_disk())
            for snapshot in self.snapshots():
                with suppress(Corrupt):
                    manifest = self.load(snapshot)
                    self.learn(manifest.trees, snapshot.key)
                    index.add_snapshot(snapshot, snapshot.created)
            for record in self.registrations():
                index.register(
                    record.path, name=record.name, project=record.project, key=record.key, snapshot=None,
                    now=record.seen,
                )  # fmt: skip

    def _objects_on_disk(self) -> tuple[dict[Name, int], dict[Name, int]]:
        """Return sizes and adopted mtimes; what has another mtime than ours must prove its content first."""
        sizes: dict[Name, int] = {}
        adopted: dict[Name, int] = {}
        for name, st in self.objects.names():
            sizes[name] = st.st_size
            if not self.objects.sound(name, st.st_size):
                if not self.objects.verified(name):
                    self.objects.quarantine(name)
                    del sizes[name]
                    continue
                adopted[name] = st.st_mtime_ns
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

    def adopted(self) -> dict[Name, int]:
        """Return the adopted objects; none where the index cannot be used: they are verified then."""
        try:
            return self.index.adopted()
        except EnvironmentFailure:
            return {}

    # ----------------------------------------------------------------------- trees and snapshots

    def stage_trees(self, batch: Batch, trees: Iterable[Tree]) -> None:
        """Add to *batch* the trees that the store does not have."""
        for tree in trees:
            path = self._tree_path(tree.digest)
            if not os.path.exists(path):
                batch.add_record(path, encode_tree(tree))

    def tree(self, digest: str) -> Tree:
        """Return a tree; raises :class:`~venvflow.manifest.Corrupt` if it is missing or damaged."""
        try:
            with open(self._tree_path(digest), "rb") as file:
                data = file.read()
        except OSError as error:
            raise Corrupt(f"tree {digest[:12]} cannot be read: {error.strerror}") from error
        try:
            return decode_tree(digest, data)
        except Corrupt as error:
            # Out of the way, so that the next squish writes it anew instead of believing it is there.
            with suppress(OSError):
                os.unlink(self._tree_path(digest))
            raise Corrupt(f"tree {digest[:12]} is damaged: {error}") from error

    def load(self, snapshot: Snapshot) -> Manifest:
        """Return what a snapshot holds; raises :class:`~venvflow.manifest.Corrupt` if a tree is amiss."""
        return Manifest(tuple(self.tree(digest) for digest in snapshot.trees), snapshot.place is not None)

    def find(self, key: str, place: str) -> Snapshot | None:
        """Return the snapshot for a key digest: one for any place, or one that is bound to *place*."""
        for bound in (None, place):
            snapshot = self.snapshot(snapshot_id(key, bound))
            if snapshot is not None and snapshot.key.digest == key and snapshot.place == bound:
                return snapshot
        return None

    def snapshot(self, identifier: str) -> Snapshot | None:
        """Return the snapshot with this id, or None if there is none that can be believed."""
        try:
            with open(self._snapshot_path(identifier), "rb") as file:
                snapshot = decode_snapshot(file.read())
        except OSError:
            return None
        except Corrupt:
            self.quarantine_snapshot(identifier)
            return None
        honest = snapshot.id == identifier and make_key(snapshot.key.parts).digest == snapshot.key.digest
        return snapshot if honest else None

    def snapshots(self) -> list[Snapshot]:
        """Return every snapshot in the store, oldest first."""
        names = [
            name.removesuffix(".json")
            for name in os.listdir(f"{self.path}/snapshots")
            if name.endswith(".json")
        ]
        found = [snapshot for name in names if (snapshot := self.snapshot(name)) is not None]
        return sorted(found, key=lambda snapshot: (snapshot.created, snapshot.id))

    def usage(self) -> dict[str, Usage]:
        """Return when each snapshot was last used."""
        return self.index.usage()

    def publish(self, snapshot: Snapshot, now: float) -> Snapshot:
        """Publish *snapshot* unless there is one of that id, and return the one that is there now."""
        path = self._snapshot_path(snapshot.id)
        existing = self.snapshot(snapshot.id)
        if existing is None:
            with suppress(FileExistsError):
                _write_file(path, encode_snapshot(snapshot), sync=self.config.durability == "full")
            existing = self.snapshot(snapshot.id) or snapshot
        self.index.add_snapshot(existing, now)
        return existing

    def quarantine_snapshot(self, identifier: str) -> None:
        """Take a snapshot out of service: its key is a miss now; the file is kept for whoever asks why."""
        os.makedirs(f"{self.path}/quarantine", exist_ok=True)
        with suppress(FileNotFoundError):
            os.rename(self._snapshot_path(identifier), f"{self.path}/quarantine/{identifier}.json")
        with suppress(EnvironmentFailure):
            self.index.forget_snapshots([identifier])

    def drop(self, identifiers: Iterable[str]) -> None:
        """Delete snapshots; their trees and objects go with the next :meth:`sweep`."""
        identifiers = list(identifiers)
        for identifier in identifiers:
            with suppress(FileNotFoundError):
                os.unlink(self._snapshot_path(identifier))
        self._sync_directory("snapshots")
        with suppress(EnvironmentFailure):
            self.index.forget_snapshots(identifiers)

    def generation(self) -> int:
        """Return a number that changes whenever a snapshot comes or goes."""
        return os.stat(f"{self.path}/snapshots").st_mtime_ns

    def _tree_path(self, digest: str) -> str:
        return f"{self.path}/trees/{digest[:2]}/{digest[2:]}"

    def _snapshot_path(self, identifier: str) -> str:
        return f"{self.path}/snapshots/{identifier}.json"

    def _sync_directory(self, name: str) -> None:
        if self.config.durability == "full":
            fd = os.open(f"{self.path}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    # ----------------------------------------------------------------------- registered venvs

    def register(self, registration: Registration) -> None:
        """Remember a venv of this machine, in place of what was known of that path."""
        path = self._registration_path(registration.path)
        _write_file(path, json.dumps(asdict(registration)).encode("ascii"), replace=True)
        self.index.register(
            registration.path, name=registration.name, project=registration.project, key=registration.key,
            snapshot=snapshot_id(registration.key, None), now=registration.seen,
        )  # fmt: skip

    def registration(self, path: str) -> Registration | None:
        """Return what is known of the venv at *path*."""
        return _read_registration(self._registration_path(path))

    def registrations(self) -> list[Registration]:
        """Return all venvs that use this store, in order of their paths."""
        root = f"{self.path}/venvs"
        found = (_read_registration(f"{root}/{name}") for name in os.listdir(root) if name.endswith(".json"))
        return sorted((each for each in found if each is not None), key=lambda each: each.path)

    def unregister(self, path: str) -> None:
        """Forget a venv: what only it needs may be swept."""
        with suppress(FileNotFoundError):
            os.unlink(self._registration_path(path))
        self.index.forget_venv(path)

    def _registration_path(self, path: str) -> str:
        return f"{self.path}/venvs/{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"

    # ----------------------------------------------------------------------- sweeping

    def sweep(self) -> Swept:
        """Delete objects and trees that no snapshot and no registered venv needs; hold the store alone.

        What is live is read from the files on disk, never from the index. Bytes count only where the
        last name of a file goes: what a venv is still linked to frees nothing.
        """
        live_trees = {digest for snapshot in self.snapshots() for digest in snapshot.trees}
        live_trees |= {digest for record in self.registrations() for digest in record.trees}
        live = self._objects_of(live_trees)
        dead = [(name, st) for name, st in self.objects.names() if name not in live]
        for name, _ in dead:
            self.objects.remove(name)
        trees, tree_bytes = self._sweep_trees(live_trees)
        litter = self._sweep_tmp()
        with suppress(EnvironmentFailure):  # on a full disk the index has to wait for the next trim
            self.index.forget_trees(trees)
            self.index.forget_objects(name for name, _ in dead)
        freed = sum(st.st_blocks * 512 for _, st in dead if st.st_nlink == 1)
        freed += tree_bytes + litter + self._sweep_frames(live_trees)
        return Swept(len(dead), len(trees), freed)

    def _objects_of(self, trees: Iterable[str]) -> set[Name]:
        """Return every object that *trees* name; a damaged tree keeps nothing, its snapshot is a miss."""
        live: set[Name] = set()
        for digest in trees:
            with suppress(Corrupt):
                live.update(object_names(self.tree(digest)))
        return live

    def _sweep_trees(self, live: set[str]) -> tuple[list[str], int]:
        dead, freed = [], 0
        for fan in os.listdir(f"{self.path}/trees"):
            for name in os.listdir(f"{self.path}/trees/{fan}"):
                if fan + name not in live:
                    path = f"{self.path}/trees/{fan}/{name}"
                    freed += os.lstat(path).st_blocks * 512
                    os.unlink(path)
                    dead.append(fan + name)
        return dead, freed

    def _sweep_frames(self, live: set[str]) -> int:
        """Remove compressed trees whose tree is dead; a frame's name begins with its tree's digest."""
        freed = 0
        for directory, _, names in os.walk(f"{self.path}/frames"):
            for name in names:
                if name.partition(".")[0] not in live:
                    freed += os.lstat(f"{directory}/{name}").st_blocks * 512
                    os.unlink(f"{directory}/{name}")
        return freed

    def _sweep_tmp(self) -> int:
        """Remove what killed runs left in ``tmp/``: we hold the store alone, so nobody works there."""
        freed = 0
        for directory, _, names in os.walk(self.objects.tmp, topdown=False):
            for name in names:
                st = os.lstat(f"{directory}/{name}")
                freed += st.st_blocks * 512 if st.st_nlink == 1 else 0
                os.unlink(f"{directory}/{name}")
            if directory != self.objects.tmp:
                os.rmdir(directory)
        return freed

    def size_on_disk(self) -> int:
        """Return the bytes that the store's files occupy, each inode once."""
        total = 0
        for directory, _, names in os.walk(self.path):
            total += sum(os.lstat(f"{directory}/{name}").st_blocks for name in names) * 512
        return total

    def free_bytes(self) -> int:
        """Return the free bytes of the store's file system."""
        vfs = os.statvfs(self.path)
        return vfs.f_bavail * vfs.f_frsize


_DIRECTORIES = ("objects", "trees", "snapshots", "venvs", "frames", "tmp", "locks")
_LAYOUT = {*_DIRECTORIES, "README", "format", "trim.json", "quarantine", "lost+found"} | {
    f"index.db{suffix}" for suffix in ("", "-wal", "-shm")
}


def object_names(tree: Tree) -> Iterator[Name]:
    """Yield the object of every file of *tree*; templates are never executable themselves."""
    for entry in tree.entries:
        if entry.digest:
            yield Name(entry.digest, entry.executable and entry.kind == "file")


def bytecode_id(parts: dict[str, str]) -> str:
    """Return what two venvs must agree on to share bytecode, from the parts of their keys."""
    return f"{parts.get('python', '')} {parts.get('abi', '')}"


def _write_file(path: str, data: bytes, *, sync: bool = False, replace: bool = False) -> None:
    """Write a small file that appears whole or not at all; without *replace* an existing one stays."""
    temporary = f"{os.path.dirname(path)}/.{os.getpid()}-{os.urandom(4).hex()}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            if sync:
                sync_file_system(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _read_registration(path: str) -> Registration | None:
    try:
        with open(path, encoding="ascii") as file:
            document = json.load(file)
        document["trees"] = tuple(document["trees"])
        return Registration(**document)
    except (OSError, ValueError, KeyError, TypeError):
        return None
