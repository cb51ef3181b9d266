"""Nothing is visible before it is complete: files and directories made beside their place, renamed in."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from venvflow.disk.files import sync_directory
from venvflow.disk.links import sync_file_system
from venvflow.disk.locks import is_alive
from venvflow.disk.scan import directory
from venvflow.errors import Refused, shown

_numbers = itertools.count()


def temporary_name() -> str:
    """Return a name that nobody else uses, on other machines neither, short whatever it stands for."""
    return f".vf-{os.getpid()}-{next(_numbers)}-{os.urandom(3).hex()}"


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
def new_file(destination: str, *, flush: bool = True) -> Iterator[BinaryIO]:
    """Give a file to write that becomes *destination* at the end of the block.

    Replaces a file that is there; if the block fails, nothing has happened. Unless *flush* is false, it is on
    disk before it gets its name; the name itself is up to :func:`sync_directory`. Raises ``OSError``.
    """
    parent = os.path.dirname(destination)
    _remove_leftovers(parent)
    temporary = os.path.join(parent, temporary_name())
    try:
        with open(temporary, "xb") as file:
            _claim(file.fileno())
            yield file
            file.flush()
            if flush:
                os.fsync(file.fileno())
        os.rename(temporary, destination)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextmanager
def new_directory(destination: str) -> Iterator[str]:
    """Give the path of a directory to fill that becomes *destination* at the end of the block.

    All that is in it is on disk before it gets its name: after a power cut it is whole, or not there.
    Replaces an empty directory, and fails with ``OSError`` if one is there that is not. If the block fails,
    all that it made is removed.
    """
    parent = os.path.dirname(destination)
    _remove_leftovers(parent)
    temporary = os.path.join(parent, temporary_name())
    try:
        os.mkdir(temporary)
        with directory(temporary) as fd:
            _claim(fd)
            yield temporary
            sync_file_system(fd)
        os.rename(temporary, destination)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(parent)


# --------------------------------------------------------------------------- what killed runs leave

_TEMPORARY = re.compile(r"\.vf-(\d+)-\d+-[0-9a-f]{6}")


def _claim(fd: int) -> None:
    """Hold a lock on what is being made while it is open: whoever finds it knows that it is alive."""
    with suppress(OSError):  # no locks here: then only its process keeps it from being taken for a leftover
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_leftovers(parent: str) -> None:
    """Remove from *parent* what killed runs left: their process is gone, and nobody holds it."""
    with suppress(OSError):  # what cannot be removed is in nobody's way
        for name in os.listdir(parent or "."):
            match = _TEMPORARY.fullmatch(name)
            if match and not is_alive(int(match[1])):
                _remove_unless_held(os.path.join(parent, name))


def _remove_unless_held(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    finally:
        os.close(fd)
