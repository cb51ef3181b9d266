"""Reads a venv's directory: :func:`walk` lists what is there, :func:`read` reads and hashes files.

The walker works on directory descriptors and never follows a link, so a directory that is swapped for a
symlink while we look cannot lead us out of the venv. Unlike ``os.walk`` it raises for a directory that
it cannot read: what we did not see, we must not call gone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

from venvflow.disk.descriptors import READ, directory
from venvflow.disk.system_errors import failure
from venvflow.errors import EnvironmentFailure, shown

DEEPEST = 200
"""Directories below directories that the walker enters: each one holds a file descriptor."""

_STATE = "Nothing was changed."
_HINT = "Fix its permissions, or delete the venv and run doit again."

BLOCK = 512
"""Bytes in the unit in which ``stat`` counts, whatever the file system's own blocks are."""

_CHUNK = 1 << 20


Kind = Literal["file", "link", "dir", "special"]
_KINDS: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}


class Stamp(NamedTuple):
    """What tells that a file is still the one that was read: a changed file changes one of these."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Found(NamedTuple):
    """One path of a walk, relative to its root; *links* counts the names of the inode."""

    path: str
    kind: Kind
    stamp: Stamp
    mode: int
    links: int
    device: int

    @property
    def executable(self) -> bool:
        """Return whether its owner may execute it: the one mode bit that is a file's content to us."""
        return bool(self.mode & 0o100)


# --------------------------------------------------------------------------- walking


def walk(root: str, *, enter: Callable[[str], bool] = lambda _: True) -> list[Found]:
    """Return everything below the directory *root*: what is in a directory by name, then what is below it.

    Directories for which *enter* is false are listed but not entered. Raises EnvironmentFailure for a
    directory that cannot be read or lies deeper than :data:`DEEPEST`.
    """
    found: list[Found] = []

    def walk_into(name: str, prefix: str, depth: int, dir_fd: int | None = None) -> None:
        where = os.path.join(root, prefix).rstrip("/")
        if depth > DEEPEST:
            what = f"cannot read {shown(where)}: directories are nested deeper than {DEEPEST}"
            raise EnvironmentFailure(what, state=_STATE, hint=_HINT)
        try:
            with directory(name, dir_fd=dir_fd) as fd:
                with os.scandir(fd) as entries:
                    names = sorted(entry.name for entry in entries)
                items = [lstat(each, dir_fd=fd, known_as=prefix + each) for each in names]
                found.extend(items)
                for each, item in zip(names, items, strict=True):
                    if item.kind == "dir" and enter(item.path):
                        walk_into(each, f"{item.path}/", depth + 1, fd)
        except OSError as error:
            doing = f"cannot read {shown(where)}"
            raise failure(error, doing, at=where, state=_STATE, usual=_HINT) from error

    walk_into(root, "", 0)
    return found


def lstat(path: str, *, dir_fd: int | None = None, known_as: str = "") -> Found:
    """Return what is at *path* itself, not what a symlink there points at; *known_as*: what to call it."""
    st = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    kind = _KINDS.get(stat.S_IFMT(st.st_mode), "special")
    mode = stat.S_IMODE(st.st_mode)
    return Found(known_as or os.fsdecode(path), kind, stamp_of(st), mode, st.st_nlink, st.st_dev)


def stamp_of(st: os.stat_result) -> Stamp:
    """Return the stamp of a file."""
    return Stamp(st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


# --------------------------------------------------------------------------- reading


class Content(NamedTuple):
    """What reading a file gave: its SHA-256 in hex, its stamp, and its bytes if they were asked for."""

    digest: str
    stamp: Stamp
    data: bytes


class Changing(Exception):
    """A file kept changing while it was read."""


def read(path: str, *, known: Stamp | None = None, dir_fd: int | None = None, keep: int = 0) -> Content:
    """Read the regular file at *path*: hash it, and keep its bytes if there are at most *keep*.

    The stamp is taken before and after; if it moved, the file is read again, three times in all. One
    that is *known* from a look at a regular file just now will do for the first time. Raises
    :class:`Changing` when it keeps moving, and ``OSError`` when it is not a readable regular file.
    """
    for _ in range(3):
        fd = os.open(path, READ, dir_fd=dir_fd)
        try:
            before = known or _stamp_of_file(fd, path)
            digest, data = _consume(fd, before.size, keep)
            after = stamp_of(os.fstat(fd))
        finally:
            os.close(fd)
        if after == before:
            return Content(digest, after, data)
        known = None
    raise Changing(path)


def _stamp_of_file(fd: int, path: str) -> Stamp:
    st = os.fstat(fd)
    if not stat.S_ISREG(st.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return stamp_of(st)


def _consume(fd: int, size: int, keep: int) -> tuple[str, bytes]:
    """Return the digest of everything in *fd*, and its bytes when they are few; small files take one read."""
    wanted = min(size + 1, _CHUNK)
    data = os.read(fd, wanted)
    if len(data) == size < wanted:  # less than was asked for: that is all of it
        return hashlib.sha256(data).hexdigest(), data if size <= keep else b""
    hasher = hashlib.sha256(data)
    kept = [data] if size <= keep else []
    while data:
        data = os.read(fd, _CHUNK)
        hasher.update(data)
        if kept:
            kept.append(data)
    return hasher.hexdigest(), b"".join(kept)


T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T], R], items: Sequence[T], *, chunk: int = 400) -> list[R]:
    """Return ``[work(item) for item in items]``, in order, computed in two threads.

    Worth it for hashing and compressing, which release the interpreter lock; short system calls alone
    only get slower. Small inputs are done at once.
    """
    if len(items) <= chunk:
        return [work(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - a run with nothing to do reads little

    parts = [items[start : start + chunk] for start in range(0, len(items), chunk)]
    with ThreadPoolExecutor(2) as pool:
        return [result for part in pool.map(lambda part: [work(x) for x in part], parts) for result in part]
