"""Deletes from a store what no snapshot and no registered venv needs, and tells whether there is any.

What is live is read from the files on disk, never from the index. The store is held alone meanwhile.

A store in which nothing came or went since the last sweep has nothing to sweep, whatever the number of its
snapshots. A sweep notes (``settled.json``) what tells of a change: the mtimes of the store's directories, and
what the registered venvs hold. A file system notes times in ticks of some milliseconds: a change in
the tick in which the sweep ended is not seen, and waits for the next one. Nothing is deleted by mistake.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from venvflow.disk.descriptors import directory, entries_in, names_in
from venvflow.disk.directories import remove_tree
from venvflow.disk.files import read_small
from venvflow.disk.objects import file_of
from venvflow.disk.scan import BLOCK
from venvflow.disk.system_errors import failure
from venvflow.errors import EnvironmentFailure
from venvflow.pure import decoding
from venvflow.state.index import SnapshotSummary
from venvflow.state.reader import StoreReader
from venvflow.state.registry import Registration
from venvflow.state.store import Store
from venvflow.state.usage import StoreContents, freed, inodes_below

QUARANTINE_SECONDS = 14 * 86_400
"""How long what was found damaged is kept, to be looked at, or to fix something with it."""


_DAY = 86_400
_SKEW_SECONDS = _DAY
"""How far the clocks of machines that share a store may be apart."""


class Swept(NamedTuple):
    """What a sweep removed: counts, and the bytes that the file system got back."""

    objects: int
    trees: int
    bytes: int


def sweep(store: Store, contents: StoreContents | None = None, *, size: int | None = None) -> Swept:
    """Delete what nothing needs: trees first, then objects, so that no tree ever lists what is gone.

    *contents* are what was read of the store since it is held, if it was. If *size* says how many bytes the
    store occupies, it is noted what it is like now, for :func:`last_sweep`.

    Bytes count only where the last name of a file goes: what a venv is still linked to frees nothing.
    Files that cannot be deleted do not keep the others: EnvironmentFailure names them at the end.
    """
    contents = contents or StoreContents(store)
    sweeping = _Sweeping(store, contents)
    is_forgotten = sweeping.run()
    if sweeping.stuck:
        raise _stuck(sweeping.stuck, sweeping.freed)
    # Whether somebody is linked to a spare is seen nowhere else, and the index has to know of all of it.
    if size is not None and is_forgotten and not sweeping.spares:
        note_sweep(store, contents.registrations, size - sweeping.freed, contents.own_bytes())
    return Swept(sweeping.objects, sweeping.trees, sweeping.freed)


class _Sweeping:
    """One sweep: what is live, what was deleted, what would not go."""

    def __init__(self, store: Store, contents: StoreContents) -> None:
        self._store = store
        self._contents = contents
        self._live_trees = {digest for snapshot in contents.snapshots.values() for digest in snapshot.trees}
        self._live_trees |= {digest for record in contents.registrations for digest in record.trees}
        self._live_objects = {name for tree in self._live_trees for name, _ in contents.objects_of(tree)}
        self.objects = self.trees = self.freed = self.spares = 0
        self.stuck: list[OSError] = []

    def run(self) -> bool:
        """Sweep all; return whether the index has forgotten what is dead, too."""
        is_forgotten = self._forget()
        self.trees = self._sweep_fans("trees", lambda fan, name: fan + name not in self._live_trees)
        self.objects = self._sweep_objects()
        # The name of a frame begins with the digest of its tree.
        self._sweep_fans("frames", lambda _, name: name.partition(".")[0] not in self._live_trees)
        self._sweep_tmp()
        self._sweep_quarantine()
        return is_forgotten or self._forget()  # the disk was full: by now there may be room

    def _forget(self) -> bool:
        """Drop the rows of what is dead, before it is; where that fails it has to wait for the next sweep."""
        try:
            self._store.index.retain(self._live_trees, self._live_objects)
        except EnvironmentFailure:
            return False
        return True

    def _sweep_objects(self) -> int:
        dead: dict[str, set[str]] = {}
        for name in self._contents.objects:
            if name not in self._live_objects:
                fan, _, file = file_of(name).partition("/")
                dead.setdefault(fan, set()).add(file)
        for name, path, st in self._store.objects.spares():
            if name not in self._live_objects or st.st_nlink == 1:  # nobody is linked to it any more
                dead.setdefault(name.digest[:2], set()).add(os.path.basename(path))
            else:
                self.spares += 1
        return self._sweep_fans("objects", lambda fan, name: name in dead.get(fan, ()))

    def _sweep_fans(self, part: str, is_dead: Callable[[str, str], bool]) -> int:
        """Delete what is dead in a part of the store that is fanned out; return how many files that were."""
        count = 0
        for fan, fd in self._store.layout.fans(part):
            for name in names_in(fd):
                if is_dead(fan, name):
                    count += self._delete(name, fd, f"{part}/{fan}")
        return count

    def _sweep_tmp(self) -> None:
        """Remove what killed runs left in ``tmp/``: we hold the store alone, so nobody works there."""
        with self._store.layout.opened("tmp", make=True) as tmp:
            for name in names_in(tmp):
                self._delete(name, tmp, "tmp")

    def _sweep_quarantine(self) -> None:
        with suppress(FileNotFoundError), self._store.layout.opened("quarantine") as fd:
            for name in _overdue(self._store):
                self._delete(name, fd, "quarantine")
            _count_from_now(fd)

    def _delete(self, name: str, fd: int, where: str) -> bool:
        """Delete *name* in the directory *fd*, called *where*; put a directory aside unless it is litter."""
        try:
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(st.st_mode):
                os.unlink(name, dir_fd=fd)
            elif where in _OUR_LITTER:
                self.freed += freed(inodes_below(f"{self._store.path}/{where}/{name}"))
                remove_tree(name, fd, os.fstat(fd).st_dev)
            else:
                self._store.layout.put_aside(f"{where}/{name}")
        except FileNotFoundError:
            return False
        except OSError as error:
            path = f"{self._store.path}/{where}/{name}"
            self.stuck.append(OSError(error.errno, error.strerror, path))
            return False
        self.freed += st.st_blocks * BLOCK if st.st_nlink == 1 else 0
        return True


_OUR_LITTER = ("tmp", "quarantine")
"""Parts of the store in which directories are ours, or were put aside."""


def _overdue(store: Store) -> Iterator[str]:
    """Yield the names of what was put aside too long ago: by its ctime, which putting it there moved."""
    too_old = time.time() - QUARANTINE_SECONDS
    with suppress(FileNotFoundError), store.layout.opened("quarantine") as fd:
        for name in names_in(fd):
            with suppress(FileNotFoundError):
                if os.stat(name, dir_fd=fd, follow_symlinks=False).st_ctime < too_old:
                    yield name


def _count_from_now(fd: int) -> None:
    """Give what a clock that was ahead put aside the ctime of now: else it would stay until that time."""
    latest = time.time() + _SKEW_SECONDS
    for name in names_in(fd):
        with suppress(OSError):
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if st.st_ctime > latest:  # any change moves it; the times that we set are those it has
                os.utime(name, ns=(st.st_atime_ns, st.st_mtime_ns), dir_fd=fd, follow_symlinks=False)


def _stuck(errors: list[OSError], freed: int) -> EnvironmentFailure:
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return failure(
        first,
        f"the store has files that cannot be deleted{more}",
        at="",
        state=f"All else that nothing needs was deleted ({freed} bytes freed).",
        usual="Check owner and attributes of these files, then run trim again.",
    )


# --------------------------------------------------------------------------- the last sweep

_FILE = "settled.json"
_BLOCK_OF_MOST = 4096
"""Bytes that a file may occupy beyond its size, on most file systems."""
_WATCHED = ("objects", "trees", "frames")


class LastSweep(NamedTuple):
    """A store after a sweep: hashes of how *snapshots* and directories looked, and what was found.

    *size*: the bytes that it occupies; *own*: by snapshot those that no other one needs.
    """

    snapshots: str
    directories: str
    size: int
    own: Mapping[str, int]


def note_sweep(
    store: Store, registrations: Iterable[Registration], size: int, own: Mapping[str, int]
) -> None:
    """Remember a sweep that has just ended. Where that cannot be written, the next one looks again.

    The caller holds the store alone.
    """
    note = LastSweep(_hash_snapshots(store), _hash_directories(store, registrations), size, own)
    with suppress(OSError):
        store.layout.write(_FILE, json.dumps(note._asdict()).encode("ascii"))


def last_sweep(store: Store, registrations: Iterable[Registration]) -> LastSweep | None:
    """Return what the last sweep found, or None if there may be something to sweep by now."""
    note = _read(store)
    if note is None or note[:2] != (_hash_snapshots(store), _hash_directories(store, registrations)):
        return None
    return note if not _is_due(store) else None


def most_bytes_since(store: Store, summaries: Iterable[SnapshotSummary]) -> int | None:
    """Return how many bytes the store occupies at most, if snapshots only came since a sweep of today.

    A store that was made today and never swept is as good: there was nothing in it. *summaries* are those of
    all that are there. None if one went, or something else is due: then there may be something to sweep. The
    caller holds the store alone.
    """
    note, since, there = _read(store), _FILE, {each.id: each for each in summaries}
    if note is None:
        note, since = LastSweep("", "", 0, {}), "format"
    if note.own.keys() - there.keys() or not _is_of_today(store, since) or _is_due(store):
        return None
    came = [each for each in there.values() if each.id not in note.own]
    return note.size + sum(each.size + each.files * _BLOCK_OF_MOST for each in came)


def _is_of_today(store: Store, file: str) -> bool:
    """Return whether a file of the store was written less than a day ago, and not in a time to come."""
    try:
        noted = os.stat(f"{store.path}/{file}").st_mtime
    except OSError:
        return False
    return 0 <= time.time() - noted < _DAY


def own_bytes_since(store: StoreReader) -> Mapping[str, int] | None:
    """Return the bytes that only one snapshot needs, by its id; None if a snapshot came, went or changed."""
    note = _read(store)
    return note.own if note is not None and note.snapshots == _hash_snapshots(store) else None


def _read(store: StoreReader) -> LastSweep | None:
    try:
        return decode_last_sweep(read_small(f"{store.path}/{_FILE}"))
    except (OSError, decoding.Corrupt):
        return None


def decode_last_sweep(data: bytes) -> LastSweep:
    """Return what the last sweep noted; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    return LastSweep(
        **decoding.fields(
            decoding.parse(data),
            snapshots=decoding.digest,
            directories=decoding.digest,
            size=decoding.count,
            own=decoding.mapped(decoding.digest, decoding.count),
        )
    )


def _is_due(store: Store) -> bool:
    """Return whether something is due by now: what a kill left in ``tmp/``, what was put aside long ago."""
    with store.layout.opened("tmp", make=True) as tmp:
        return bool(names_in(tmp)) or any(True for _ in _overdue(store))


def _hash_snapshots(store: StoreReader) -> str:
    """Return a hash of how the files of all snapshots look: they are never changed, but may be damaged."""
    with directory(f"{store.path}/snapshots") as fd:
        stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries_in(fd)]
    looks = sorted((name, st.st_size, st.st_mtime_ns) for name, st in stats)
    return hashlib.sha256(repr(looks).encode()).hexdigest()


def _hash_directories(store: Store, registrations: Iterable[Registration]) -> str:
    """Return a hash of the mtimes of all directories, and of what venvs hold."""
    hashed = hashlib.sha256(repr(sorted(_mtimes(store.path))).encode())
    held = sorted({tree for each in registrations for tree in each.trees})
    hashed.update(repr(held).encode())
    return hashed.hexdigest()


def _mtimes(root: str) -> Iterator[tuple[str, int]]:
    for top in _WATCHED:
        with suppress(FileNotFoundError), os.scandir(f"{root}/{top}") as entries:
            yield top, os.lstat(f"{root}/{top}").st_mtime_ns
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield f"{top}/{entry.name}", entry.stat(follow_symlinks=False).st_mtime_ns
