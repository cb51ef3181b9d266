"""Sweeping: deleting from a store what no snapshot and no registered venv needs.

What is live is read from the files on disk, never from the index. Whoever sweeps holds the store alone.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from venvflow.disk.blame import failure
from venvflow.disk.directories import remove_tree
from venvflow.disk.objects import file_of
from venvflow.disk.scan import walk
from venvflow.errors import EnvironmentFailure
from venvflow.state.census import Census
from venvflow.state.store import Store

QUARANTINE_SECONDS = 14 * 86_400
"""How long what was found damaged is kept for whoever wants to look at it, or to mend something with it."""


_SKEW_SECONDS = 86_400
"""How far the clocks of machines that share a store may be apart."""


class Swept(NamedTuple):
    """What a sweep removed: counts, and the bytes that the file system got back. *twins* are left.

    *forgotten*: the index knows of it too; else the next sweep has to tell it.
    """

    objects: int
    trees: int
    bytes: int
    twins: int = 0
    forgotten: bool = True


def sweep(store: Store, census: Census | None = None) -> Swept:
    """Delete what nothing needs: trees first, then objects, so that no tree ever lists what is gone.

    *census* is what was read of the store since it is held, if it was.

    Bytes count only where the last name of a file goes: what a venv is still linked to frees nothing.
    Files that cannot be deleted do not keep the others: EnvironmentFailure names them at the end.
    """
    sweeping = _Sweeping(store, census or Census(store))
    sweeping.run()
    if sweeping.stuck:
        raise _stuck(sweeping.stuck, sweeping.freed)
    return Swept(
        sweeping.objects, sweeping.trees, sweeping.freed, sweeping.twins, forgotten=sweeping.forgotten
    )


class _Sweeping:
    """One sweep: what is live, what was deleted, what would not go."""

    def __init__(self, store: Store, census: Census) -> None:
        self._store = store
        self._census = census
        self._live_trees = {digest for snapshot in census.snapshots.values() for digest in snapshot.trees}
        self._live_trees |= {digest for record in census.registrations for digest in record.trees}
        self._live_objects = {name for tree in self._live_trees for name, _ in census.objects_of(tree)}
        self.objects = self.trees = self.freed = self.twins = 0
        self.stuck: list[OSError] = []
        self.forgotten = False

    def run(self) -> None:
        self.forgotten = self._forget()
        self.trees = self._sweep_trees()
        self.objects = self._sweep_objects()
        self._sweep_frames()
        self._sweep_tmp()
        self._sweep_quarantine()
        if not self.forgotten:  # the disk was full: by now there may be room
            self.forgotten = self._forget()

    def _forget(self) -> bool:
        """Drop the rows of what is dead, before it is; where that fails it has to wait for the next sweep."""
        try:
            self._store.index.retain(self._live_trees, self._live_objects)
        except EnvironmentFailure:
            return False
        return True

    def _sweep_trees(self) -> int:
        return self._sweep_fans("trees", lambda fan, name: fan + name not in self._live_trees)

    def _sweep_objects(self) -> int:
        dead: dict[str, set[str]] = {}
        for name in self._census.objects:
            if name not in self._live_objects:
                fan, _, file = file_of(name).partition("/")
                dead.setdefault(fan, set()).add(file)
        for name, path, st in self._store.objects.twins():
            if name not in self._live_objects or st.st_nlink == 1:  # nobody is linked to it any more
                dead.setdefault(name.digest[:2], set()).add(os.path.basename(path))
            else:
                self.twins += 1
        return self._sweep_fans("objects", lambda fan, name: name in dead.get(fan, ()))

    def _sweep_frames(self) -> None:
        """Remove compressed trees whose tree is dead; a frame's name begins with its tree's digest."""
        self._sweep_fans("frames", lambda _, name: name.partition(".")[0] not in self._live_trees)

    def _sweep_fans(self, part: str, is_dead: Callable[[str, str], bool]) -> int:
        """Delete what is dead in a part of the store that is fanned out; return how many files that were."""
        count = 0
        for fan, fd in self._store.layout.fans(part):
            for name in os.listdir(fd):
                if is_dead(fan, name):
                    count += self._delete(name, fd, f"{part}/{fan}")
        return count

    def _sweep_tmp(self) -> None:
        """Remove what killed runs left in ``tmp/``: we hold the store alone, so nobody works there."""
        with self._store.layout.opened("tmp", make=True) as tmp:
            for name in os.listdir(tmp):
                self._delete(name, tmp, "tmp")

    def _sweep_quarantine(self) -> None:
        with suppress(FileNotFoundError), self._store.layout.opened("quarantine") as fd:
            for name in overdue(self._store):
                self._delete(name, fd, "quarantine")
            _count_from_now(fd)

    def _delete(self, name: str, fd: int, where: str) -> bool:
        """Delete *name* in the directory *fd*, called *where*; a directory that is no litter is put aside."""
        try:
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(st.st_mode):
                os.unlink(name, dir_fd=fd)
            elif where in _OUR_LITTER:
                self.freed += _occupied(f"{self._store.path}/{where}/{name}")
                remove_tree(name, fd, os.fstat(fd).st_dev)
            else:
                self._store.layout.put_aside(f"{where}/{name}")
        except FileNotFoundError:
            return False
        except OSError as error:
            path = f"{self._store.path}/{where}/{name}"
            self.stuck.append(OSError(error.errno, error.strerror, path))
            return False
        self.freed += st.st_blocks * 512 if st.st_nlink == 1 else 0
        return True


_OUR_LITTER = ("tmp", "quarantine")
"""Parts of the store in which directories are ours, or were put aside."""


def _occupied(path: str) -> int:
    """Return the bytes that deleting a directory frees."""
    with suppress(EnvironmentFailure):
        return sum(item.occupied for item in walk(path) if item.links == 1)
    return 0


def overdue(store: Store) -> Iterator[str]:
    """Yield the names of what was put aside too long ago: by its ctime, which putting it there moved."""
    too_old = time.time() - QUARANTINE_SECONDS
    with suppress(FileNotFoundError), store.layout.opened("quarantine") as fd:
        for name in os.listdir(fd):
            with suppress(FileNotFoundError):
                if os.stat(name, dir_fd=fd, follow_symlinks=False).st_ctime < too_old:
                    yield name


def _count_from_now(fd: int) -> None:
    """Give what a clock that was ahead put aside the ctime of now: else it would stay until that time."""
    latest = time.time() + _SKEW_SECONDS
    for name in os.listdir(fd):
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
