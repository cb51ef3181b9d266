"""Makes a portable directory from a manifest: what unpacking the archive would give, without an archive."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from venvflow.disk.archive import Accept, ObjectSource, Options, Progress, accept_any
from venvflow.disk.archive.contents import ArchivePlan, Member, damaged, leads_to_python, plan_archive
from venvflow.disk.archive.pipeline import ByteCounter
from venvflow.disk.descriptors import DIRECTORY_THROUGH_LINK, Directories, directory, names_in, opened
from venvflow.disk.kernel import sync_file_system
from venvflow.disk.layers import divide, names_of
from venvflow.disk.links import Linker, write_private
from venvflow.disk.places import RECEIPT, Place
from venvflow.disk.scan import read
from venvflow.disk.scratch import Workplace, need_free, new_directory
from venvflow.disk.system_errors import explained
from venvflow.model import Entry, LinkMode, Manifest
from venvflow.postinstall import Problem, can_link, load, need_room
from venvflow.pure.parts import Layers, partition
from venvflow.pure.sharing import stays_private

PRIVATE: tuple[LinkMode, ...] = ("reflink", "copy")
"""How files are given to an export that shares none of them."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported to *path*: entries and bytes, and how many files by which link mode."""

    path: str
    entries: int
    size: int
    modes: Mapping[LinkMode, int]
    warnings: tuple[str, ...]


def export(
    manifest: Manifest,
    source: ObjectSource,
    destination: str,
    *,
    description: Mapping[str, Any],
    modes: Sequence[LinkMode] = PRIVATE,
    links: Literal["keep", "copy"] = "keep",
    external: Literal["refuse", "keep"] = "refuse",
    python: str = "",
    finish: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    accept: Accept = accept_any,
    replace: bool = False,
    layers: Layers = (),
) -> Exported:
    """Make the directory *destination* of *manifest*, by the rules by which archives are written.

    Files come by the first of the link *modes* that works, and every one is compared with its digest where
    it has arrived. *links* and *external* are what :class:`~venvflow.disk.archive.Options` calls ``symlinks``
    and ``external``. Links to an interpreter lead to *python*, if it is given, or are copies of it; else they
    are left to ``postinstall.py``. *finish* is called with the directory before it gets its name, and fills
    in what names its place; *accept* is called with all warnings before anything is written, and what it
    raises is raised. With *layers* it is divided into a numbered directory for each.

    *destination* must not exist, or be an empty directory; an older export will do that is to be *replaced*,
    as a venv is: in one step, by the rules of :class:`~venvflow.disk.places.Place`. All or nothing: raises
    DamagedObject, Refused and EnvironmentFailure.
    """
    destination = os.path.abspath(destination)
    place = Place(destination)
    place.settle()
    is_older = replace and _is_export(destination)
    if not is_older:
        need_free(destination, "Nothing was exported.")
    options = Options("tar", symlinks=links, external=external, python=python)
    plan = plan_archive(manifest, source, options, description)
    warnings = plan.told if finish is None else plan.warnings
    accept(warnings)
    linker = Linker(modes)
    with (
        explained("cannot export it there", at=destination, state="Nothing half-written is kept."),
        _replaced(place) if is_older else new_directory(destination) as staging,
        Directories(staging.fd) as directories,
    ):
        need_room(staging.fd, 0, plan.entries)
        _write(plan, source, directories, linker, ByteCounter(plan.size, progress))
        if python and links == "copy":
            _copy_interpreter(python, manifest, directories)
        if finish is not None:
            finish(staging.path)
        if layers:
            divide(staging.fd, partition(plan.trees, layers))
    return Exported(destination, plan.entries, plan.size, {**linker.used}, warnings)


def _is_export(path: str) -> bool:
    """Return whether there is an export, or an unpacked archive, that nobody has shared."""
    if os.path.islink(path) or os.path.lexists(os.path.join(path, RECEIPT)):
        return False
    with suppress(Problem, OSError), directory(path) as fd:
        with directory(_last_layer(fd), dir_fd=fd) as last:
            load(last)
        return True
    return False


def _last_layer(fd: int) -> str:
    """Return the last of the numbered directories that an export in layers is, or itself if it is none."""
    found = sorted(names_in(fd))
    return found[-1] if found and found == names_of(found) else "."


@contextmanager
def _replaced(place: Place) -> Iterator[Workplace]:
    """Give a directory to fill that takes the place of the one that is there."""
    with place.staged() as path:
        os.mkdir(path)
        with directory(path) as fd:
            yield Workplace(path, fd)
            sync_file_system(fd)
        place.swap_in(keep_old=False)


def holds_links(path: str) -> bool:
    """Return whether symlinks can be made in the directory *path*, or the nearest one above it that is there.

    Raises EnvironmentFailure if nothing can be made there.
    """
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "."
    errors_explained = explained("cannot write there", at=path, state="Nothing was exported.")
    with errors_explained, opened(path, DIRECTORY_THROUGH_LINK) as fd:
        return can_link(fd)


def _write(
    plan: ArchivePlan, source: ObjectSource, directories: Directories, linker: Linker, counter: ByteCounter
) -> None:
    """Write all members; links come last, so that none is written through."""
    links = []
    copies = False
    for member in plan.all_members():
        if linker.mode == "copy" and not copies:  # what it is only known to be when another mode failed
            need_room(directories.open(""), plan.size, 0)
            copies = True
        if member.kind == "dir":
            directories.open(member.name)
        elif member.kind == "link":
            links.append(member)
        elif member.data is not None:
            parent, name = directories.parent(member.name)
            write_private(name, parent, member.data, executable=member.executable)
        else:
            _place(member, source, *directories.parent(member.name), linker)
        counter.advance(member.size)
    for member in links:
        parent, name = directories.parent(member.name)
        os.symlink(member.target, name, dir_fd=parent)


def _place(member: Member, source: ObjectSource, parent: int, name: str, linker: Linker) -> None:
    entry = Entry(member.name, "file", member.digest, member.executable, member.size)
    if stays_private(entry, 1) and linker.mode not in PRIVATE:
        linker = Linker(PRIVATE)
    path = source.path(member.digest, member.executable)
    try:
        os.stat(path, follow_symlinks=False)
    except OSError as error:
        raise damaged(member.name, member.digest, f"cannot be read: {error.strerror}") from error
    mtime_ns = member.mtime * 1_000_000_000
    linker.place(path, name, parent, executable=member.executable, mtime_ns=mtime_ns)
    if read(name, dir_fd=parent).digest != member.digest:
        raise damaged(member.name, member.digest, "has other bytes than its name says")


def _copy_interpreter(python: str, manifest: Manifest, directories: Directories) -> None:
    for entry in (entry for tree in manifest.trees for entry in tree.entries):
        if leads_to_python(entry):
            parent, name = directories.parent(entry.path)
            mtime_ns = os.stat(python).st_mtime_ns  # it is no file of ours
            Linker(PRIVATE).place(python, name, parent, executable=True, mtime_ns=mtime_ns)
