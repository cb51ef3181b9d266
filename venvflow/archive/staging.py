"""Nothing is visible before it is complete: files and directories made beside their place, renamed in."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from venvflow.errors import Refused, shown

_numbers = itertools.count()


def temporary_name() -> str:
    """Return a name that nobody else uses, on other machines neither, short whatever it stands for."""
    return f".vf-{os.getpid()}-{next(_numbers)}-{os.urandom(3).hex()}"


def sync_directory(path: str) -> None:
    """Have the names in a directory survive a power cut."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
def new_file(destination: str) -> Iterator[BinaryIO]:
    """Give a file to write that becomes *destination* at the end of the block, flushed to disk.

    Replaces a file that is there; if the block fails, nothing has happened. Raises ``OSError``.
    """
    temporary = os.path.join(os.path.dirname(destination), temporary_name())
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, destination)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(destination))


@contextmanager
def new_directory(destination: str) -> Iterator[str]:
    """Give the path of a directory to fill that becomes *destination* at the end of the block.

    Replaces an empty directory, and fails with ``OSError`` if one is there that is not. If the block fails,
    all that it made is removed.
    """
    temporary = os.path.join(os.path.dirname(destination), temporary_name())
    try:
        os.mkdir(temporary)
        yield temporary
        os.rename(temporary, destination)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
