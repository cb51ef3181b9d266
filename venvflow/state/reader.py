"""Reads the store: objects, trees, snapshots, registered venvs and the index. Changes nothing.

Nothing is made, repaired, moved or deleted here, and what is damaged counts as missing. Writing is for
:class:`venvflow.state.store.Store`, which reads in the same way.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from venvflow.disk import locks
from venvflow.disk.descriptors import entries_in
from venvflow.disk.files import is_temporary_name, read_small
from venvflow.disk.layout import Layout, in_the_way, is_fan
from venvflow.disk.objects import MtimeMode, Name, Objects
from venvflow.disk.system_errors import explained, failure
from venvflow.disk.trust import STORE_PARTS, refuse_store, store_doubts
from venvflow.errors import EnvironmentFailure, Refused, StoreFormatError, shown
from venvflow.model import FORMAT, Manifest, Snapshot, StoreConfig, Tree
from venvflow.pure import decoding
from venvflow.pure.keys import is_honest, snapshot_id
from venvflow.pure.manifest import Corrupt, decode_objects, decode_snapshot, decode_tree
from venvflow.pure.retention import VenvName
from venvflow.state import holds, registry
from venvflow.state.holds import VenvHolds
from venvflow.state.index import IndexReader, SnapshotSummary
from venvflow.state.registry import Registration

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
holds/      which environments of which projects hold which snapshots
frames/     compressed packages, used again when an archive is made
index.db    SQLite, made from the above; may be deleted. Try: sqlite-utils index.db savings
tmp/ locks/ quarantine/   work in progress, lock files, files that were found damaged
"""

LARGEST_FORMAT = 100
"""Bytes of the largest file that may say which format a store has."""

DIRECTORIES = tuple(part for part in STORE_PARTS if part != "quarantine")
"""Directories that a store always has; the other one is made when something is put aside."""

_FANNED = ("objects", "trees", "frames")
_FILES = ("README", "trim.json", "settled.json")

_Decoded = TypeVar("_Decoded")


class StoreReader:
    """An open store, for a short time: no snapshot is read twice.

    *path* is absolute and resolved; *read_only*: we cannot write to it; *untrusted*: somebody else can change
    what is in it.
    """

    def __init__(
        self, config: StoreConfig, *, timeout: float = 300, on_wait: Callable[[str], None] | None = None
    ) -> None:
        self.config = config
        self.path = os.path.realpath(config.path)
        self.timeout = timeout
        self.on_wait = on_wait
        self.read_only = False
        self.untrusted = False
        self.objects = Objects(self.path, config.durability)
        self.layout = self.objects.layout
        self._index: IndexReader | None = None
        self._seen: dict[str, Snapshot | None] = {}
        usual = "Check store.path (or VENVFLOW_STORE), its permissions and its free space."
        with explained("cannot open the store", at=self.path, state="Nothing was changed.", usual=usual):
            self._open()

    def close(self) -> None:
        """Close the index, if it was opened."""
        if self._index is not None:
            self._index.close()
            self._index = None

    # ----------------------------------------------------------------------- opening

    def _open(self) -> None:
        self._judge([*refuse_links(self.layout)])
        self._check_format()
        self.read_only |= not (_is_writable(self.path) and _is_writable(f"{self.path}/objects"))

    def _judge(self, fans: list[str]) -> None:
        """See whether somebody else can change the store, in its *fans* too: then nothing is linked to it.

        Where its user says that the directories above are trusted, it is as good as in others: nobody else
        can edit what is in it. Raises Refused for root who does not say so, and for what everybody may write.
        """
        for doubt in store_doubts(self.path, (*STORE_PARTS, *fans), os.geteuid()):
            if doubt.inside and os.lstat(doubt.where).st_mode & stat.S_IWOTH:
                raise Refused(
                    "everybody may write to the store, so nobody can trust it",
                    where=shown(doubt.where),
                    state="Nothing in it was used.",
                    hint=f"chmod -R o-w {shown(shlex.quote(self.path))}",
                )
            if not self.config.trusted:
                if os.geteuid() == 0:
                    raise refuse_store(self.path, doubt)
                self.read_only |= doubt.inside
            self.untrusted |= doubt.inside or not self.config.trusted

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

    def use(self) -> locks.Lock:
        """Hold the store for use: nothing is trimmed meanwhile."""
        return locks.shared(
            f"{self.path}/locks/store", timeout=self.timeout, what="the store", on_wait=self.on_wait
        )

    # ----------------------------------------------------------------------- index

    @property
    def index(self) -> IndexReader:
        """Return the index as it is, opened when first needed."""
        if self._index is None:
            self._index = IndexReader(f"{self.path}/index.db")
        return self._index

    def adopted(self) -> dict[Name, MtimeMode]:
        """Return the adopted objects; none where the index cannot be used: they are verified then."""
        try:
            return self.index.adopted()
        except EnvironmentFailure:
            return {}

    # ----------------------------------------------------------------------- trees

    def tree(self, digest: str) -> Tree:
        """Return a tree; raises :class:`~venvflow.pure.manifest.Corrupt` if it is missing or damaged.

        Raises EnvironmentFailure for one that cannot be read: it may be whole, so nothing follows from that.
        """
        tree = self._decoded(digest, decode_tree)
        refuse_other_spelling(tree)
        return tree

    def tree_objects(self, digest: str) -> list[tuple[Name, int]]:
        """Return the objects that a tree lists, with their sizes in bytes; raises as :meth:`tree` does."""
        rows = self._decoded(digest, decode_objects)
        return [(Name(each, executable), size) for each, executable, size in rows]

    def _decoded(self, digest: str, decode: Callable[[str, bytes], _Decoded]) -> _Decoded:
        path = f"{self.path}/{tree_file(digest)}"
        try:
            data = read_small(path)
        except OSError as error:
            _refuse_to_guess(error, path)
            if error.errno == errno.EFBIG:
                self._reject_tree(digest)
            raise Corrupt(f"tree {digest[:12]} cannot be read: {error.strerror}") from error
        try:
            return decode(digest, data)
        except Corrupt as error:
            self._reject_tree(digest)
            raise Corrupt(f"tree {digest[:12]} is damaged: {error}") from error

    def _reject_tree(self, digest: str) -> None:
        """Take note that a tree is damaged: a reader leaves it where it is."""

    def has_tree(self, digest: str) -> bool:
        """Return whether there is a tree of this name; whether it is whole, reading it tells."""
        try:
            return stat.S_ISREG(os.lstat(f"{self.path}/{tree_file(digest)}").st_mode)
        except OSError:
            return False

    # ----------------------------------------------------------------------- snapshots

    def load(self, snapshot: Snapshot) -> Manifest:
        """Return what a snapshot holds; raises :class:`~venvflow.pure.manifest.Corrupt` if a tree is bad."""
        return self.manifest(snapshot.trees, bound=snapshot.place is not None)

    def manifest(self, trees: Iterable[str], *, bound: bool = False) -> Manifest:
        """Return the manifest of *trees*; raises as :meth:`tree` does.

        All are read first: one that is damaged must not hide the next one from whoever makes them anew.
        """
        found: list[Tree] = []
        wrong: list[Corrupt] = []
        for digest in trees:
            try:
                found.append(self.tree(digest))
            except Corrupt as error:
                wrong.append(error)
        if wrong:
            raise wrong[0]
        return Manifest(tuple(found), bound)

    def find(self, key: str, place: str) -> Snapshot | None:
        """Return the snapshot for a key digest: one for any place, or one that is bound to *place*."""
        for bound in (None, place):
            snapshot = self.snapshot(snapshot_id(key, bound))
            if snapshot is not None and snapshot.key.digest == key and snapshot.place == bound:
                return snapshot
        return None

    def snapshot(self, identifier: str) -> Snapshot | None:
        """Return the snapshot with this id, or None if there is none that can be read and believed."""
        if identifier not in self._seen:
            self._seen[identifier] = None
            with suppress(EnvironmentFailure):
                self._seen[identifier] = self._snapshot(identifier)
        return self._seen[identifier]

    def _snapshot(self, identifier: str) -> Snapshot | None:
        path = f"{self.path}/{snapshot_file(identifier)}"
        try:
            snapshot: Snapshot | None = decode_snapshot(read_small(path))
        except OSError as error:
            _refuse_to_guess(error, path)
            return None
        except Corrupt:
            snapshot = None
        if snapshot is None or not is_honest(snapshot, identifier):
            self._reject_snapshot(identifier)
            return None
        return snapshot

    def _reject_snapshot(self, identifier: str) -> None:
        """Take note that a snapshot is damaged: a reader leaves it where it is."""

    def snapshots(self) -> list[Snapshot]:
        """Return every snapshot in the store, oldest first.

        Raises EnvironmentFailure for one that is there and cannot be read: what it needs is not known.
        """
        found = [snapshot for name in self.snapshot_ids() if (snapshot := self._snapshot(name)) is not None]
        return sorted(found, key=lambda snapshot: (snapshot.created, snapshot.id))

    def summaries(self) -> list[SnapshotSummary]:
        """Return the summary of every snapshot, oldest first.

        From the index, if that knows exactly those that are there: then none of them is read, and one whose
        file was damaged is among them. From the snapshots otherwise.
        """
        known = self._known_summaries()
        if known.keys() == self.snapshot_ids():
            return sorted(known.values(), key=lambda each: (each.created, each.id))
        return self.summaries_of(self.snapshots())

    def summaries_of(self, snapshots: Iterable[Snapshot]) -> list[SnapshotSummary]:
        """Return the summaries of *snapshots*, with the history of use as far as the index knows it."""
        known = self._known_summaries()
        return [
            SnapshotSummary(
                each.id, each.key.digest, each.venv, each.place, each.python, each.host, each.command,
                each.created, each.files, each.size, known[each.id].used if each.id in known else None,
            )
            for each in snapshots
        ]  # fmt: skip

    def _known_summaries(self) -> dict[str, SnapshotSummary]:
        """Return the summaries in the index; none where it cannot be opened, as on a full disk."""
        try:
            return self.index.summaries()
        except EnvironmentFailure:
            return {}

    def snapshot_ids(self) -> set[str]:
        """Return the ids of the snapshots that have a file, whatever is in it."""
        try:
            names = os.listdir(f"{self.path}/snapshots")
        except FileNotFoundError:  # lost, in a store that nobody has written to since
            return set()
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    # ----------------------------------------------------------------------- registered venvs

    def registration(self, path: str) -> Registration | None:
        """Return what is known of the venv at *path*; None as well for a file that makes no sense."""
        return registry.registration_at(self.path, path)

    def registrations(self) -> list[Registration]:
        """Return all venvs that use this store, in order of their paths.

        Raises EnvironmentFailure when it cannot be known what one of them needs.
        """
        return sorted(registry.registrations_in(self.path), key=lambda each: each.path)

    # ----------------------------------------------------------------------- who holds what

    def holder(self, venv: VenvName) -> VenvHolds | None:
        """Return what a venv holds, None if that is nothing; None as well for a file that makes no sense."""
        return holds.holder_of(self.path, venv)

    def holders(self) -> list[VenvHolds]:
        """Return all venvs that hold snapshots, in order of their projects and names.

        Raises EnvironmentFailure when it cannot be known what one of them holds.
        """
        return sorted(holds.holders_in(self.path), key=lambda each: each.venv)


@contextmanager
def open_reader(
    config: StoreConfig, *, timeout: float = 300, on_wait: Callable[[str], None] | None = None
) -> Iterator[StoreReader | None]:
    """Give the store of *config* to be read, or None if there is none yet.

    Raises StoreFormatError, Refused or EnvironmentFailure for a store that must or can not be read, and for
    something else that is in its place.
    """
    if not _is_there(config.path):
        yield None
        return
    store = StoreReader(config, timeout=timeout, on_wait=on_wait)
    try:
        yield store
    finally:
        store.close()


def _is_there(path: str) -> bool:
    """Return whether there is a store; an empty directory, or one that a killed run left, is not one yet."""
    why = "the directory holds something else"
    try:
        names = set(os.listdir(path))
        if "format" in names or may_become_store(path):
            return "format" in names
    except FileNotFoundError:
        return False
    except OSError as error:
        why = (error.strerror or str(error)).lower()
    raise EnvironmentFailure(
        f"this is not a store: {why}",
        where=shown(path),
        state="Nothing was changed.",
        hint="Fix store.path in the config, or VENVFLOW_STORE.",
    )


# --------------------------------------------------------------------------- the store as it lies there


def tree_file(digest: str) -> str:
    """Return where a tree lies; raises Corrupt for what is not a digest: it may be anybody's word."""
    decoding.digest(digest)
    return f"trees/{digest[:2]}/{digest[2:]}"


def snapshot_file(identifier: str) -> str:
    """Return where a snapshot lies."""
    return f"snapshots/{identifier}.json"


def _is_writable(path: str) -> bool:
    """Return whether we may write to a directory, or make it where it was lost."""
    return os.access(path, os.W_OK) or not os.path.lexists(path)


def refuse_links(layout: Layout) -> Iterator[str]:
    """Raise Refused for a symlink in the place of a part of a store, EnvironmentFailure for anything else.

    Raises ``OSError`` where one may not look. Yields the directories into which files are fanned out.
    """
    for entry in entries_in(layout.fd):
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
    for entry in entries_in(fd):
        if is_fan(entry.name):
            if not entry.is_dir(follow_symlinks=False):
                raise in_the_way(f"{path}/{name}/{entry.name}")
            yield f"{name}/{entry.name}"


def may_become_store(path: str) -> bool:
    """Return whether a directory holds nothing yet, or what is left where making a store was killed.

    Names alone do not tell: whatever lies in ``tmp/`` of a store is deleted one day.
    """
    names = {name for name in os.listdir(path) if name[0] != "." and name != "lost+found"}
    if "README" in names:
        try:
            return read_small(f"{path}/README", largest=len(README)) == README.encode()
        except OSError:
            return False
    return all(name in DIRECTORIES and _holds_litter_only(f"{path}/{name}") for name in names)


def _holds_litter_only(path: str) -> bool:
    return os.path.isdir(path) and all(is_temporary_name(name) for name in os.listdir(path))


# --------------------------------------------------------------------------- what is read


_CLOSED = {
    errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
}  # fmt: skip
"""What says nothing of a file but that it cannot be read just now."""


def _refuse_to_guess(error: OSError, path: str) -> None:
    """Raise EnvironmentFailure where a file may be whole though it cannot be read: it is not called damaged.

    Else its snapshots would be put aside, or what only they need would be deleted.
    """
    if error.errno in _CLOSED:
        state = "Nothing was deleted or put aside for that."
        raise failure(error, "cannot read what the store has", at=path, state=state) from error


def refuse_other_spelling(tree: Tree) -> None:
    """Raise EnvironmentFailure for a name that is not ASCII where Python does not read file names as UTF-8.

    There it is another text, so the same venv would be another tree, or a tree another venv.
    """
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return
    for entry in tree.entries:
        if not entry.path.isascii():
            raise EnvironmentFailure(
                f"this Python reads file names as {encoding}, but trees of the store have names in UTF-8",
                where=f"{tree.name}: {shown(entry.path)}",
                state="The venv and the store are as they were.",
                hint="Set PYTHONUTF8=1, or choose a locale with UTF-8 (LC_ALL=C.UTF-8), and run again.",
            )
