"""Nothing is visible before it is complete: directories made beside their place, renamed in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from venvflow.disk.files import claim, remove_leftovers, sync_directory, temporary_name
from venvflow.disk.links import sync_file_system
from venvflow.disk.scan import directory
from venvflow.errors import Refused, shown


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
def new_directory(destination: str) -> Iterator[str]:
    """Give the path of a directory to fill that becomes *destination* at the end of the block.

    All that is in it is on disk before it gets its name: after a power cut it is whole, or not there.
    Replaces an empty directory, and fails with ``OSError`` if one is there that is not. If the block fails,
    all that it made is removed.
    """
    parent = os.path.dirname(destination)
    remove_leftovers(parent)
    temporary = os.path.join(parent, temporary_name())
    try:
        os.mkdir(temporary)
        with directory(temporary) as fd:
            claim(fd)
            yield temporary
            sync_file_system(fd)
        os.rename(temporary, destination)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(parent)
