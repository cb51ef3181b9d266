"""Nothing is visible before it is complete: directories made beside their place, renamed in."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from venvflow.disk.descriptors import DIRECTORY_THROUGH_LINK, directory, opened
from venvflow.disk.directories import remove_tree
from venvflow.disk.files import claim, remove_leftovers, temporary_name
from venvflow.disk.links import sync_file_system
from venvflow.errors import Refused, shown


class Staging(NamedTuple):
    """A directory to fill: its *path*, for messages and for programs, and a descriptor of it."""

    path: str
    fd: int


def need_free(destination: str, state: str) -> None:
    """Raise Refused, which says that *state*, unless *destination* is an empty directory or not there."""
    if not os.path.lexists(destination):
        return
    try:
        taken = os.path.islink(destination) or bool(os.listdir(destination))
    except OSError:
        taken = True
    if taken:
        raise Refused(
            f"{shown(destination)} is there already and not an empty directory",
            state=state,
            hint="Choose another destination, or move it away.",
        )


@contextmanager
def new_directory(destination: str) -> Iterator[Staging]:
    """Give a directory to fill that becomes *destination* at the end of the block.

    All that is in it is on disk before it gets its name: after a power cut it is whole, or not there.
    Replaces an empty directory, and fails with ``OSError`` if one is there that is not. If the block fails,
    all that it made is removed, the directories above that were missing too.

    The directory that it lies in is opened once: what is swapped on the way to it is not followed.
    """
    above, name = os.path.split(destination)
    made: list[str] = []
    try:
        _make_directories(above, made)
        with opened(above, DIRECTORY_THROUGH_LINK) as parent, _beside(above, parent) as staging:
            yield staging
            sync_file_system(staging.fd)
            _name(os.path.basename(staging.path), name, parent, staging.fd)
    except BaseException:
        for path in reversed(made):
            with suppress(OSError):
                os.rmdir(path)
        raise


@contextmanager
def _beside(above: str, parent: int) -> Iterator[Staging]:
    """Give a new directory in *above*, open as *parent*, which is removed if the block fails."""
    remove_leftovers(above)
    temporary = temporary_name()
    os.mkdir(temporary, dir_fd=parent)
    with directory(temporary, dir_fd=parent) as fd:
        try:
            claim(fd)
            yield Staging(os.path.join(above, temporary), fd)
        except BaseException:
            with suppress(OSError):
                _need_same(temporary, parent, fd)
                remove_tree(temporary, parent, os.fstat(fd).st_dev)
            raise


def _name(temporary: str, name: str, parent: int, fd: int) -> None:
    """Give the directory that is open as *fd* its name, for good; where the disk cannot, take it back."""
    _need_same(temporary, parent, fd)
    os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    try:
        os.fsync(parent)
    except OSError:
        os.rename(name, temporary, src_dir_fd=parent, dst_dir_fd=parent)
        raise


def _need_same(name: str, parent: int, fd: int) -> None:
    """Raise ``OSError`` if *name* is no longer the directory that is open as *fd*: somebody swapped it."""
    found, ours = os.stat(name, dir_fd=parent, follow_symlinks=False), os.fstat(fd)
    if (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino):
        raise OSError(errno.ESTALE, "somebody replaced it meanwhile", name)


def _make_directories(path: str, made: list[str]) -> None:
    """Make *path* and what is missing above it, and note in *made* what was made, from the top down."""
    if not path or os.path.isdir(path):
        return
    _make_directories(os.path.dirname(path), made)
    with suppress(FileExistsError):  # another run makes it at the same time: then it is not ours to remove
        os.mkdir(path)
        made.append(path)
