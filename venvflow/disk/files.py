"""Small files that appear whole or not at all: written under another name, then given their own."""

from __future__ import annotations

import os
from contextlib import suppress

from venvflow.disk.links import create, write_all


def write_whole(path: str, data: bytes, *, tmp: str, sync: bool = False, replace: bool = False) -> None:
    """Write *data* to *path* by way of the directory *tmp* of the same file system.

    With *sync* it is on disk before it has its name. Raises ``FileExistsError`` when there is a file of
    that name and *replace* is false, ``OSError`` for space and permission; *path* is as it was then.
    """
    temporary = f"{tmp}/{os.getpid()}-{os.urandom(4).hex()}"
    try:
        fd = create(temporary, None, executable=False)
        try:
            write_all(fd, data)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path, follow_symlinks=False)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def sync_directory(path: str) -> None:
    """Make the names in a directory durable; an empty *path* is the working directory."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
