"""Changes directories by descriptors: removes one, or moves into one what another holds.

Nothing here follows a symlink, enters another file system, or works by a path from the root: a link that
somebody puts in the place of a directory, at any moment, leads nowhere.

:func:`clear` and :func:`fill` together let one directory take the place of another without renaming it. It
is needed where the kernel refuses that: for a mount point, and for a directory that lies in a lower layer of
an overlay, such as an image's (``EXDEV``), whose directories are replaced one file at a time. Both may be
interrupted at any call, and repeated.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from venvflow.disk.descriptors import (
    PASSING,
    complete,
    directory,
    entries_in,
    mode_at,
    names_in,
    open_directory,
    opened,
)
from venvflow.disk.files import temporary_name
from venvflow.disk.mounts import mounts_at
from venvflow.disk.scan import DEEPEST

# --------------------------------------------------------------------------- removing


def discard(name: str, parent: int) -> None:
    """Delete whatever *name* in the directory *parent* is, if anything."""
    mode = mode_at(name, parent)
    if mode is None:
        return
    if stat.S_ISDIR(mode):
        remove_tree(name, parent, os.fstat(parent).st_dev)
    else:
        os.unlink(name, dir_fd=parent)


def remove_opened(name: str, fd: int, parent: int, last: Sequence[str]) -> None:
    """Delete the directory *name*, open as *fd*, in the directory *parent*. Raises ``OSError``.

    *last* are files in it that go at the end, in this order: what a kill leaves must be known as what it is.
    """
    for each in (*sorted({*names_in(fd)}.difference(last)), *last):
        discard(each, fd)
    os.rmdir(name, dir_fd=parent)


def remove_tree(name: str, parent: int, device: int) -> None:
    """Delete the directory *name* in *parent*, never leaving the file system *device*.

    Raises ``OSError`` for a mount inside, before anything is deleted where the kernel lists mounts, or for
    a tree deeper than we can hold descriptors for.
    """
    with suppress(FileNotFoundError):  # no /proc: what is mounted shows by its device then
        mounts = mounts_at(os.path.join(os.readlink(f"/proc/self/fd/{parent}"), name))
        if mounts:
            raise _mounted(mounts[0])
    _remove(name, parent, device, 0)


def _remove(name: str, parent: int, device: int, depth: int) -> None:
    with _below(name, parent, device, depth) as fd:
        for child, is_directory in _children(fd):
            if is_directory:
                _remove(child, fd, device, depth + 1)
            else:
                os.unlink(child, dir_fd=fd)
    os.rmdir(name, dir_fd=parent)


def _children(fd: int) -> list[tuple[str, bool]]:
    """Return the names in a directory, and whether each is a directory itself."""
    return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries_in(fd))


@contextmanager
def _below(name: str, parent: int, device: int, depth: int) -> Iterator[int]:
    """Open a directory that is about to be changed, making it writable if it is not."""
    if depth > DEEPEST:
        raise OSError(errno.ENAMETOOLONG, f"directories are nested deeper than {DEEPEST}", name)
    fd = _writable_directory(name, parent)
    try:
        if os.fstat(fd).st_dev != device:
            raise _mounted(name)
        yield fd
    except OSError as error:
        complete(error, fd)
        raise
    finally:
        os.close(fd)


def _writable_directory(name: str, parent: int) -> int:
    try:
        fd = open_directory(name, dir_fd=parent)
    except PermissionError:
        _make_readable(name, parent)
        fd = open_directory(name, dir_fd=parent)
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(fd, mode | stat.S_IRWXU)
    return fd


def _make_readable(name: str, parent: int) -> None:
    """Let its owner into a directory: through a descriptor, for chmod follows links."""
    with opened(name, PASSING, dir_fd=parent) as fd:
        try:
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IRWXU)
        except FileNotFoundError:  # no /proc
            os.chmod(name, stat.S_IRWXU, dir_fd=parent)


def _mounted(where: str) -> OSError:
    return OSError(errno.EBUSY, "a file system is mounted inside", where)


# --------------------------------------------------------------------------- one in place of another


def clear(fd: int, model: int, aside: int, *, spare: frozenset[str] = frozenset(), depth: int = 0) -> None:
    """Take from the directory *fd* what stands in the way of :func:`fill`, or has no counterpart in *model*.

    Directories are moved into *aside* where the kernel moves them, else emptied. Files that *model* has too
    stay until they are replaced, as do the names to *spare*. Raises ``OSError``.
    """
    device = os.fstat(fd).st_dev
    for name, is_directory in _children(fd):
        if name in spare:
            continue
        wanted = mode_at(name, model)
        if not is_directory:
            if wanted is None or stat.S_ISDIR(wanted):
                os.unlink(name, dir_fd=fd)
        elif not move(name, fd, temporary_name(), aside):
            if stat.S_ISDIR(wanted or 0):
                with _below(name, fd, device, depth) as old, directory(name, dir_fd=model) as new:
                    clear(old, new, aside, depth=depth + 1)
            else:
                discard(name, fd)


def fill(fd: int, source: int, *, spare: frozenset[str] = frozenset(), depth: int = 0) -> None:
    """Move everything from the directory *source* into *fd*, which :func:`clear` has made ready.

    Files replace those of their names, each in one step. Directories that cannot be moved are filled in
    turn, and get the mode of those that they replace. Raises ``OSError``.
    """
    for name, is_directory in _children(source):
        if name in spare:
            continue
        if not is_directory:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=fd)
        elif not move(name, source, name, fd):
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=fd)
            with _below(name, fd, os.fstat(fd).st_dev, depth) as new, directory(name, dir_fd=source) as old:
                fill(new, old, depth=depth + 1)
                os.fchmod(new, stat.S_IMODE(os.fstat(old).st_mode))


def move(name: str, source: int, new_name: str, target: int) -> bool:
    """Move a directory; return whether the kernel does: not one of a lower layer, nor onto one with files."""
    try:
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True
