"""Scratch directories: for what is needed only now, where the user has temporary files (``TMPDIR``).

Builders get one as their own ``TMPDIR``, so that what they leave goes away with it, also when they are
killed. It does not lie with the venv: below a project, what is built would see the project's ``.git``, Cargo
workspace, ``.python-version`` and whatever else is looked for in the directories above.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from venvflow.disk.blame import failure
from venvflow.disk.descriptors import directory, open_directory
from venvflow.disk.directories import remove_tree
from venvflow.disk.files import claim, remove_leftovers, temporary_name
from venvflow.disk.undisturbed import undisturbed


class Scratch(NamedTuple):
    """A scratch directory: its *path*, and a descriptor that keeps it while a process has it open."""

    path: str
    fd: int


@contextmanager
def scratch(
    parent: str = "",
    *,
    environ: Mapping[str, str] | None = None,
    hint: str = "Make room there, or name another directory as TMPDIR.",
) -> Iterator[Scratch]:
    """Give an empty directory in *parent*, or where temporary files of *environ* (or ours) belong.

    It is removed at the end of the block; after a kill, by whoever makes the next one there. Raises
    EnvironmentFailure, with *hint*, where none can be made.
    """
    parent = parent or place(environ)
    remove_leftovers(parent)
    name = ""
    try:
        with directory(parent) as above:
            name = _made(above)
            made = os.path.join(parent, name)
            fd = open_directory(name, dir_fd=above)
            claim(fd)
    except OSError as error:
        doing = "no temporary files can be made"
        raise failure(error, doing, at=parent, state="Nothing was changed.", hint=hint) from error
    try:
        yield Scratch(made, fd)
    finally:
        with undisturbed():
            _remove(parent, name)
            os.close(fd)


def place(environ: Mapping[str, str] | None = None) -> str:
    """Return the directory in which temporary files of *environ* (or ours) belong."""
    wanted = (environ or {}).get("TMPDIR", "")
    return wanted if os.path.isabs(wanted) and os.path.isdir(wanted) else tempfile.gettempdir()


def _made(parent: int) -> str:
    """Make a directory with a short name: builders make sockets in it, whose paths may have 107 bytes."""
    while True:
        name = temporary_name(digits=4)
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
            return name


def _remove(parent: str, name: str) -> None:
    with suppress(OSError), directory(parent) as above:  # what cannot be removed is no reason to fail
        remove_tree(name, above, os.fstat(above).st_dev)
