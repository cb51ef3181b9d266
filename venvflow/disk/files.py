"""Small files: read with limits, and written so that they appear whole or not at all.

What is read may have been put there by anybody: :func:`read_small` neither waits nor takes more than it can
hold. What is written has another name until it is whole. Every such name is made here
(:func:`temporary_name`), so that one rule knows what a kill left of it:

- in ``tmp/`` of the store (:mod:`venvflow.disk.layout`), a run that holds the store alone deletes all of it;
- beside the file itself (archives, a venv's receipt, the project's state), the next run that writes there
  deletes those of processes that are gone, unless they are locked. In a venv, squish does so too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from typing import BinaryIO

from venvflow.disk.descriptors import DIRECTORY_THROUGH_LINK, READ, READ_THROUGH_LINK, directory, opened

LARGEST_SMALL = 64 << 20
"""Bytes of the largest file that is read as a whole: the notes of the largest venvs are a tenth of it."""

TEMPORARY = ".vf-"
"""How every name begins that venvflow gives to what is to go away again."""

_TEMPORARY = re.compile(r"\.vf-([0-9]{1,10})-[0-9]{1,15}")


def temporary_name(*, digits: int = 14) -> str:
    """Return a name that nobody else uses, on other machines neither, short for any file.

    With fewer *digits* it is shorter still, and may be taken.
    """
    return f".vf-{os.getpid()}-{int.from_bytes(os.urandom(8), 'big') % 10**digits}"


def is_temporary_name(name: str) -> bool:
    """Return whether a name is one that :func:`temporary_name` gives."""
    return _TEMPORARY.fullmatch(name) is not None


def read_small(
    path: str, *, largest: int = LARGEST_SMALL, follow: bool = False, dir_fd: int | None = None
) -> bytes:
    """Return all bytes of the regular file at *path*, of which there may be at most *largest*.

    Raises ``OSError`` whose text says why for everything else: a FIFO, a socket or a device (nobody waits
    for them), a directory, a larger file (no more of it is read), a path that no file can have. So it does
    for a symlink, unless told to *follow*: for files of the user's own that may be links, never for notes
    of ours. *dir_fd* is the directory that a relative *path* is below.
    """
    fd, size = _open_regular(path, follow, dir_fd)
    try:
        # It may grow while it is read, and files of /proc have no size.
        data = _read_up_to(fd, largest + 1, size) if size <= largest else None
    finally:
        os.close(fd)
    if data is None or len(data) > largest:
        raise OSError(errno.EFBIG, f"it is larger than {largest} bytes", path)
    return data


def read_beginning(path: str, count: int) -> bytes:
    """Return the first *count* bytes of a regular file, or of one that a symlink leads to.

    Raises ``OSError`` for what is not a file, as :func:`read_small` does.
    """
    fd, size = _open_regular(path, follow=True, dir_fd=None)
    try:
        return _read_up_to(fd, count, size)
    finally:
        os.close(fd)


def open_regular(path: str, *, follow: bool = False) -> BufferedReader:
    """Open a regular file of any size to be read; raises ``OSError`` as :func:`read_small` does."""
    return open(_open_regular(path, follow, dir_fd=None)[0], "rb")


_CHUNK = 1 << 16


def _open_regular(path: str, follow: bool, dir_fd: int | None) -> tuple[int, int]:
    """Return a descriptor of a regular file, and its size in bytes."""
    try:
        fd = os.open(path, READ_THROUGH_LINK if follow else READ, dir_fd=dir_fd)
    except ValueError as error:  # a NUL, or text that is not a file name
        raise OSError(errno.EINVAL, "no file can have this name", path) from error
    except OSError as error:
        raise _clearer(error, follow) from error
    st = os.fstat(fd)
    if not stat.S_ISREG(st.st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return fd, st.st_size


def _read_up_to(fd: int, count: int, size: int) -> bytes:
    """Return at most *count* bytes; *size* is how many there should be."""
    parts = []
    while count > 0 and (part := os.read(fd, min(count, max(size + 1, _CHUNK)))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _clearer(error: OSError, follow: bool) -> OSError:
    """Return the error in words that say what is wrong where the system's own do not."""
    if error.errno in (errno.ELOOP, errno.EMLINK):
        where = " that leads back to itself" if follow else ""
        return OSError(error.errno, f"it is a symbolic link{where}", error.filename)
    if error.errno == errno.ENXIO:
        return OSError(errno.EINVAL, "it is not a regular file", error.filename)
    return error


@contextmanager
def replacing(name: str, fd: int) -> Iterator[str]:
    """Give a temporary name in the directory *fd*; what is made there becomes *name* at the end of the block.

    If that fails, nothing has happened. Raises ``OSError``.
    """
    temporary = temporary_name()
    try:
        yield temporary
        os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
    finally:  # also after a rename: that of one name of a file over another does nothing at all
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=fd)


@contextmanager
def new_file(path: str, *, sync: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write that becomes *path* at the end of the block; if that fails, nothing has happened.

    Until then it lies beside *path*. With *sync* it is on disk before it gets its name; the name itself is up
    to :func:`sync_directory`. Raises ``OSError`` for space and permission.
    """
    remove_leftovers(os.path.dirname(path))
    temporary = os.path.join(os.path.dirname(path), temporary_name())
    try:
        with open(temporary, "xb") as file:
            claim(file.fileno())
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def write_whole(path: str, data: bytes, *, sync: bool = False) -> None:
    """Write *data* to *path* as :func:`new_file` does."""
    with new_file(path, sync=sync) as file:
        file.write(data)


def sync_directory(path: str) -> None:
    """Make the names in a directory durable; an empty *path* is the working directory."""
    with opened(path or ".", DIRECTORY_THROUGH_LINK) as fd:
        os.fsync(fd)


# --------------------------------------------------------------------------- what killed runs leave


def claim(fd: int) -> None:
    """Hold a lock on what is being made while it is open, so that others know that its writer is alive."""
    with suppress(OSError):  # no locks here: then only its process keeps it from being taken for a leftover
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_leftovers(parent: str) -> None:
    """Remove from *parent* what killed runs left: their process is gone, and nobody holds it.

    Where this stops being safe: between making a file and claiming it, for whoever looks from a machine or a
    container that cannot see the process. An empty *parent* is the working directory.
    """
    from venvflow.disk.locks import is_alive  # noqa: PLC0415 - a run with nothing to do writes nothing

    with suppress(OSError):
        for name in os.listdir(parent or "."):
            match = _TEMPORARY.fullmatch(name)
            if match and not is_alive(int(match[1])):
                _remove_unless_held(os.path.join(parent, name))


def _remove_unless_held(path: str) -> None:
    from venvflow.disk.directories import discard  # noqa: PLC0415 - after a kill only

    # What cannot be removed, or is held after all, is in nobody's way.
    with suppress(OSError), opened(path, READ) as fd:
        if os.fstat(fd).st_uid == os.geteuid():  # others have temporary files in /tmp, too
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            parent, name = os.path.split(path)
            with directory(parent or ".") as above:
                discard(name, above)
