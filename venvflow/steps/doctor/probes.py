"""Probes a file system: tries links, locks and swaps in a directory of our own that goes away again.

Only trying tells: whether links, locks and a swap of names work depends on the file system, on its mount
options, on the user, and on what lies between (containers, network). The directory is a staging directory
like those in which venvs are made: marked as ours, hidden from git, and settled by the next probe in the
same place if a kill leaves it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from venvflow.disk.descriptors import directory
from venvflow.disk.kernel import exchange
from venvflow.disk.links import Linker
from venvflow.disk.places import Place
from venvflow.errors import LockTimeout, VenvflowError
from venvflow.model import LinkMode

_NAME = "a probe of venvflow"
"""Stands for a venv's name; a hash of it names the directory."""

_MODES: tuple[LinkMode, ...] = ("reflink", "hardlink", "symlink")


class Unusable(Exception):
    """A directory in which nothing can be tried; the text says why."""


class Abilities(NamedTuple):
    """What can be done in one directory.

    *locks*: a lock keeps others out. *wal*: SQLite's write-ahead log works. *skew*: seconds by which a new
    file is younger (or, negative, older) than our clock says.
    """

    locks: bool
    wal: bool
    skew: float


class Links(NamedTuple):
    """By which links a directory can have a file of another one, and whether names in it can be swapped."""

    modes: tuple[LinkMode, ...]
    exchange: bool


@contextmanager
def workshop(path: str) -> Iterator[str]:
    """Give a fresh directory in the directory *path*, gone at the end; raises :class:`Unusable`.

    What a killed probe left there goes first.
    """
    place = Place(os.path.join(path, _NAME), patience=0)
    with ExitStack() as stack:
        try:
            staged = stack.enter_context(place.staged())
        except LockTimeout as error:
            raise Unusable("somebody else is trying the same there just now") from error
        except VenvflowError as error:
            reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error.what
            raise Unusable(str(reason).lower()) from error
        yield os.path.dirname(staged)


def clear(path: str) -> None:
    """Delete what a killed probe left in the directory *path*, if we may, and if it is nobody's just now."""
    with suppress(VenvflowError, OSError):
        Place(os.path.join(path, _NAME), patience=0).settle()


def nearest(path: str) -> str:
    """Return *path*, or the lowest directory above it that is there."""
    path = os.path.realpath(path)
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return path


def links(source: str, target: str) -> Links:
    """Return how a file in the directory *source* can be given to the directory *target*.

    Both are fresh directories of :func:`workshop`. Raises ``OSError`` when they cannot be written.
    """
    file = os.path.join(source, "object")
    with open(file, "xb") as stream:
        stream.write(b"probe")
    with directory(target) as fd:
        modes = tuple(mode for mode in _MODES if _is_linked(file, mode, fd))
        os.mkdir("one", dir_fd=fd)
        os.mkdir("other", dir_fd=fd)
        swaps = exchange("one", "other", first_fd=fd, second_fd=fd)
    os.unlink(file)
    return Links(modes, swaps)


def _is_linked(file: str, mode: LinkMode, fd: int) -> bool:
    used = Linker([mode]).place(file, mode, fd, executable=False, mtime_ns=0)
    os.unlink(mode, dir_fd=fd)
    return used == mode


def abilities(path: str, now: float) -> Abilities:
    """Return what can be done in the fresh directory *path*. Raises ``OSError`` when it cannot be written.

    *now* is the time in seconds since 1970.
    """
    file = os.path.join(path, "lock")
    with open(file, "xb"):
        skew = os.stat(file).st_mtime - now
    return Abilities(_locks(file), _has_wal(os.path.join(path, "wal.db")), skew)


def _locks(path: str) -> bool:
    """Return whether an exclusive lock keeps a second one out."""
    with open(path, "rb") as one, open(path, "rb") as other:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EROFS):
                raise
            return False
        with suppress(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    return True


def _has_wal(path: str) -> bool:
    with suppress(sqlite3.Error):
        database = sqlite3.connect(path)
        try:
            database.execute("CREATE TABLE probe (x)")
            return bool(database.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal")
        finally:
            database.close()
    return False
