"""Divides a directory that was exported into numbered ones, which together are what it was.

Each may become a layer of a container image: what did not change has the same names, bytes, modes and times
as before, so an image builder finds the layer in its cache.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import accumulate

from venvflow.disk.descriptors import Directories, directory, names_in
from venvflow.disk.files import temporary_name
from venvflow.disk.scan import read
from venvflow.model import Tree
from venvflow.pure.sharing import EARLIEST, mtime_ns_of

_TIME = (EARLIEST * 1_000_000_000,) * 2
_DIRECTORY, _FILE = 0o755, 0o644  # what can be run has the mode of a directory


def names_of(layers: Collection[object]) -> list[str]:
    """Return what the directories of so many *layers* are called, in their order: from ``01`` on."""
    return [f"{number:02}" for number in range(1, len(layers) + 1)]


def divide(fd: int, layers: Sequence[Sequence[Tree]]) -> None:
    """Divide the directory that is open as *fd*: each of *layers* gets its trees, the last one all the rest.

    Times and modes become those that they always have, but for files that the store has, too. Raises
    ``OSError``.
    """
    names, there, within = names_of(layers), names_in(fd), temporary_name()
    os.mkdir(within, dir_fd=fd)
    with directory(within, dir_fd=fd) as apart:
        for name in names:
            os.mkdir(name, dir_fd=apart)
        with directory(names[-1], dir_fd=apart) as last:
            for name in there:
                os.rename(name, name, src_dir_fd=fd, dst_dir_fd=last)
            for name, trees in zip(names, layers[:-1], strict=False):
                with directory(name, dir_fd=apart) as layer:
                    _move(trees, last, layer)
        entries = (entry for trees in layers for tree in trees for entry in tree.entries)
        plain = {entry.path for entry in entries if entry.kind == "file"}
        for name in names:
            with directory(name, dir_fd=apart) as layer:
                _settle(layer, plain)
            os.chmod(name, _DIRECTORY, dir_fd=apart)
            os.utime(name, ns=_TIME, dir_fd=apart)
            os.rename(name, name, src_dir_fd=apart, dst_dir_fd=fd)
    os.rmdir(within, dir_fd=fd)


def _move(trees: Sequence[Tree], source: int, target: int) -> None:
    """Move what *trees* hold from one directory to another, and remove what that leaves empty."""
    emptied: set[str] = set()
    with Directories(source, make=False) as there, Directories(target) as here:
        for entry in (entry for tree in trees for entry in tree.entries):
            if entry.kind == "link" and entry.slots:
                continue  # it leads to a local path: it belongs to the last one, which says so
            if entry.kind == "dir":
                here.open(entry.path)
                emptied.add(entry.path)
                continue
            from_fd, name = there.parent(entry.path)
            to_fd, _ = here.parent(entry.path)
            os.rename(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
            above = entry.path.split("/")[:-1]
            emptied |= {*accumulate(above, lambda path, each: f"{path}/{each}")}
    with Directories(source, make=False) as there:
        for path in sorted(emptied, reverse=True):  # below before above
            parent, name = there.parent(path)
            with suppress(OSError):  # something is in it that stays
                os.rmdir(name, dir_fd=parent)


def _settle(layer: int, plain: Collection[str]) -> None:
    """Give what is in a layer the times and modes that it always has; *plain* files have their times."""
    for root, directories, files, fd in os.fwalk(".", dir_fd=layer, topdown=False):
        for name in (*files, *directories):
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            is_file = stat.S_ISREG(found.st_mode)
            if not is_file:
                os.utime(name, ns=_TIME, dir_fd=fd, follow_symlinks=False)
            elif os.path.normpath(f"{root}/{name}") not in plain:
                times = (mtime_ns_of(read(name, dir_fd=fd).digest),) * 2
                os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode) and (
                found.st_nlink == 1 or not is_file
            ):  # not one of the store
                os.chmod(name, _FILE if is_file and not found.st_mode & 0o100 else _DIRECTORY, dir_fd=fd)
