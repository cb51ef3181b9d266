"""Temporary directories to work in, and new directories that get their name when they are complete.

Scratch directories lie where the user has temporary files (``TMPDIR``). Builders get one as their own
``TMPDIR``, so that what they leave goes away with it, also when they are killed. It does not lie with the
venv: below a project, what is built would see the project's ``.git``, Cargo workspace, ``.python-version``
and whatever else is looked for in the directories above.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from venvflow.disk.descriptors import (
    DIRECTORY_THROUGH_LINK,
    directory,
    open_directory,
    opened,
    whole_paths,
)
from venvflow.disk.directories import remove_tree
from venvflow.disk.files import claim, remove_leftovers, temporary_name
from venvflow.disk.kernel import sync_file_system
from venvflow.disk.system_errors import explained
from venvflow.disk.uninterrupted import uninterrupted
from venvflow.errors import Refused, shown


class Workplace(NamedTuple):
    """A directory to work in: its *path*, and a descriptor that keeps it while a process has it open."""

    path: str
    fd: int


@contextmanager
def scratch(
    parent: str = "",
    *,
    environ: Mapping[str, str] | None = None,
    hint: str = "Make room there, or name another directory as TMPDIR.",
) -> Iterator[Workplace]:
    """Give an empty directory in *parent*, or where temporary files of *environ* (or ours) belong.

    It is removed at the end of the block; after a kill, by whoever makes the next one there. Raises
    EnvironmentFailure, with *hint*, where none can be made.
    """
    parent = parent or place(environ)
    doing = "no temporary files can be made"
    with explained(doing, at=parent, state="Nothing was changed.", hint=hint), directory(parent) as above:
        # A short name: builders make sockets in it, whose paths may have 107 bytes.
        made = _made_in(parent, above, 0o700, digits=4)
    try:
        yield made
    finally:
        with uninterrupted():
            with suppress(OSError), directory(parent) as above:  # what cannot be removed is in nobody's way
                remove_tree(os.path.basename(made.path), above, os.fstat(above).st_dev)
            os.close(made.fd)


def place(environ: Mapping[str, str] | None = None) -> str:
    """Return the directory in which temporary files of *environ* (or ours) belong."""
    wanted = (environ or {}).get("TMPDIR", "")
    return wanted if os.path.isabs(wanted) and os.path.isdir(wanted) else tempfile.gettempdir()


def _made_in(parent: str, above: int, mode: int = 0o777, *, digits: int = 14) -> Workplace:
    """Make a directory in *parent*, open as *above*, with a name that tells others that it is in use."""
    remove_leftovers(parent)
    while True:
        name = temporary_name(digits=digits)
        with suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=above)
            break
    fd = open_directory(name, dir_fd=above)
    claim(fd)
    return Workplace(os.path.join(parent, name), fd)


# --------------------------------------------------------------------------- new directories


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


def refuse_inside(path: str, others: Mapping[str, str]) -> None:
    """Raise Refused when *path* is or lies in one of *others*, by what they are and where."""
    real = os.path.realpath(path)
    for what, other in others.items():
        if f"{real}/".startswith(f"{os.path.realpath(other)}/"):
            raise Refused(
                f"{shown(path)} lies inside of {what}",
                state="Nothing was written.",
                hint="Choose a place outside of it.",
            )


@contextmanager
def new_directory(destination: str) -> Iterator[Workplace]:
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
def _beside(above: str, parent: int) -> Iterator[Workplace]:
    """Give a new directory in *above*, open as *parent*, which is removed if the block fails."""
    made = _made_in(above, parent)
    try:
        with whole_paths(made.fd):
            yield made
    except BaseException:
        with suppress(OSError):
            name = os.path.basename(made.path)
            _need_same(name, parent, made.fd)
            remove_tree(name, parent, os.fstat(made.fd).st_dev)
        raise
    finally:
        os.close(made.fd)


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
    if not os.path.samestat(os.stat(name, dir_fd=parent, follow_symlinks=False), os.fstat(fd)):
        raise OSError(errno.ESTALE, "somebody replaced it meanwhile", name)


def _make_directories(path: str, made: list[str]) -> None:
    """Make *path* and what is missing above it, and note in *made* what was made, from the top down."""
    if not path or os.path.isdir(path):
        return
    _make_directories(os.path.dirname(path), made)
    with suppress(FileExistsError):  # another run makes it at the same time: then it is not ours to remove
        os.mkdir(path)
        made.append(path)
