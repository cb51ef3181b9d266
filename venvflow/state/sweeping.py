"""Sweeping: deleting from a store what no snapshot and no registered venv needs.

What is live is read from the files on disk, never from the index. Whoever sweeps holds the store alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from venvflow.errors import EnvironmentFailure, shown
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
        files = ((fan + name, path) for fan, name, path in _fanned(f"{self._store.path}/trees"))
        return sum([self._delete(path) for digest, path in files if digest not in self._live_trees])

    def _sweep_objects(self) -> int:
        objects = self._store.objects
        dead = [objects.path(name) for name in self._census.objects if name not in self._live_objects]
        for name, path, st in objects.twins():
            if name not in self._live_objects or st.st_nlink == 1:  # nobody is linked to it any more
                dead.append(path)
            else:
                self.twins += 1
        return sum([self._delete(path) for path in dead])

    def _sweep_frames(self) -> None:
        """Remove compressed trees whose tree is dead; a frame's name begins with its tree's digest."""
        for directory, _, names in os.walk(f"{self._store.path}/frames"):
            for name in names:
                if name.partition(".")[0] not in self._live_trees:
                    self._delete(f"{directory}/{name}")

    def _sweep_tmp(self) -> None:
        """Remove what killed runs left in ``tmp/``: we hold the store alone, so nobody works there."""
        for directory, below, names in os.walk(self._store.objects.tmp, topdown=False):
            for name in names:
                self._delete(f"{directory}/{name}")
            for name in below:
                self._remove_directory(f"{directory}/{name}")

    def _sweep_quarantine(self) -> None:
        for path in overdue(self._store):
            self._delete(path)
        _count_from_now(f"{self._store.path}/quarantine")

    def _delete(self, path: str) -> bool:
        try:
            st = os.lstat(path)
            os.unlink(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            self.stuck.append(error)
            return False
        self.freed += st.st_blocks * 512 if st.st_nlink == 1 else 0
        return True

    def _remove_directory(self, path: str) -> None:
        try:
            if os.path.islink(path):
                os.unlink(path)
            else:
                os.rmdir(path)
        except OSError as error:
            self.stuck.append(error)


def overdue(store: Store) -> Iterator[str]:
    """Yield the files that were put aside too long ago: by their ctime, which putting them there moved."""
    too_old = time.time() - QUARANTINE_SECONDS
    for directory, _, names in os.walk(f"{store.path}/quarantine"):
        for name in names:
            path = f"{directory}/{name}"
            with suppress(FileNotFoundError):
                if os.lstat(path).st_ctime < too_old:
                    yield path


def _count_from_now(root: str) -> None:
    """Give what a clock that was ahead put aside the ctime of now: else it would stay until that time."""
    latest = time.time() + _SKEW_SECONDS
    for directory, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):
                st = os.lstat(f"{directory}/{name}")
                if st.st_ctime > latest:  # any change moves it; the times that we set are those it has
                    times = (st.st_atime_ns, st.st_mtime_ns)
                    os.utime(f"{directory}/{name}", ns=times, follow_symlinks=False)


def _fanned(root: str) -> Iterator[tuple[str, str, str]]:
    """Yield fan directory, name and path of every file in a directory that is fanned out once."""
    for fan in os.listdir(root):
        if os.path.isdir(f"{root}/{fan}") and not os.path.islink(f"{root}/{fan}"):
            for name in os.listdir(f"{root}/{fan}"):
                yield fan, name, f"{root}/{fan}/{name}"


def _stuck(errors: list[OSError], freed: int) -> EnvironmentFailure:
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return EnvironmentFailure(
        f"the store has files that cannot be deleted: {first.strerror}",
        where=shown(first.filename or "") + more,
        state=f"All else that nothing needs was deleted ({freed} bytes freed).",
        hint="Check owner and attributes of these files, then run trim again.",
    )
