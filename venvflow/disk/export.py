"""Makes a portable directory from a manifest: what unpacking the archive would give, without an archive."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from venvflow.disk.archive import ObjectSource, Options, Progress
from venvflow.disk.archive.contents import ArchivePlan, Member, damaged, plan_archive
from venvflow.disk.archive.pipeline import ByteCounter
from venvflow.disk.descriptors import DIRECTORY_THROUGH_LINK, Directories, opened
from venvflow.disk.links import Linker, write_private
from venvflow.disk.scan import read
from venvflow.disk.scratch import need_free, new_directory
from venvflow.disk.system_errors import explained
from venvflow.model import Entry, LinkMode, Manifest
from venvflow.postinstall import can_link, need_room
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
    finish: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> Exported:
    """Make the directory *destination* of *manifest*, by the rules by which archives are written.

    Files come by the first of the link *modes* that works, and every one is compared with its digest where
    it has arrived. *links* and *external* are what :class:`~venvflow.disk.archive.Options` calls ``symlinks``
    and ``external``. Links to an interpreter are made if *python* is one, else left to ``postinstall.py``.
    *finish* is called with the directory before it gets its name.

    *destination* must not exist, or be an empty directory. All or nothing: raises DamagedObject, Refused and
    EnvironmentFailure.
    """
    destination = os.path.abspath(destination)
    need_free(destination, "Nothing was exported.")
    plan = plan_archive(manifest, source, Options("tar", symlinks=links, external=external), description)
    linker = Linker(modes)
    with (
        explained("cannot export it there", at=destination, state="Nothing half-written is kept."),
        new_directory(destination) as staging,
        Directories(staging.fd) as directories,
    ):
        need_room(staging.fd, 0, plan.entries)
        _write(plan, source, directories, linker, ByteCounter(plan.size, progress))
        if python:
            _link_interpreter(python, manifest, directories, links)
        finish(staging.path)
    return Exported(destination, plan.entries, plan.size, {**linker.used}, plan.warnings)


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


def _link_interpreter(
    python: str, manifest: Manifest, directories: Directories, links: Literal["keep", "copy"]
) -> None:
    for entry in (entry for tree in manifest.trees for entry in tree.entries):
        if entry.kind == "link" and any(slot.kind == "python" for slot in entry.slots):
            parent, name = directories.parent(entry.path)
            if links == "keep":
                os.symlink(python, name, dir_fd=parent)
            else:
                mtime_ns = os.stat(python).st_mtime_ns  # it is no file of ours
                Linker(PRIVATE).place(python, name, parent, executable=True, mtime_ns=mtime_ns)
