"""Makes the directory of a whole venv from a manifest and objects, with every local path filled in."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from venvflow import postinstall
from venvflow.disk.descriptors import Directories, directory
from venvflow.disk.links import Linker, prevailing, write_private
from venvflow.disk.objects import MtimeMode, Name, Objects, object_name, sealed
from venvflow.disk.scan import read
from venvflow.model import Entry, LinkMode, Manifest
from venvflow.pure.manifest import Corrupt, directories_of, entries_of
from venvflow.pure.relocate import Places, digest_of, fill, fill_link, is_record
from venvflow.pure.sharing import stays_private
from venvflow.state.file_stats import file_stat, is_ignored

_CHUNK = 500
"""Entries that are made between two words about how far it is."""

_MOST_NAMES = 4_000_000
"""Files, links and directories that a venv may have."""


class Damaged(Exception):
    """An object that a manifest needs is missing or is not what its name says."""

    def __init__(self, name: Name, path: str) -> None:
        super().__init__(f"the object of {path} is missing or damaged")
        self.name = name
        self.path = path


@dataclass(slots=True)
class Materialised:
    """What was made: *files* regular files of *size* bytes in all, by link *modes*, in *directories*.

    *stats* are hashed for the receipt's stats, *digests* (path and SHA-256, empty for a link) for its
    contents.
    """

    files: int = 0
    size: int = 0
    modes: dict[LinkMode, int] = field(default_factory=dict)
    stats: list[str] = field(default_factory=list, repr=False)
    digests: list[tuple[str, str]] = field(default_factory=list, repr=False)
    directories: list[str] = field(default_factory=list)

    @property
    def link(self) -> str:
        """Return the link mode that the venv needs the store for, or that most of its files have."""
        return prevailing(self.modes) or "copy"


@dataclass(eq=False)
class Materialiser:
    """Makes one directory from objects.

    *private* says whether a path is to be a copy. *adopted* gives the mtime and mode that adopted objects
    must have. With *verify_all* every object is hashed before it is used; otherwise only one that looks
    changed. *relabel* (of name, size, and mtime and mode when it was adopted) sets them again, and returns
    them; a file on which it fails is copied. *untrusted*: others can change the objects, so each file is a
    copy, hashed when it is made. *progress* is called now and then with how many files of how many are there.
    """

    objects: Objects
    places: Places
    linker: Linker
    min_size: int = 1
    private: Callable[[str], bool] = lambda _path: False
    adopted: Mapping[Name, MtimeMode] = field(default_factory=dict)
    relabel: Callable[[Name, int, MtimeMode | None], MtimeMode | None] = lambda _name, _size, _adopted: None
    verify_all: bool = False
    untrusted: bool = False
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        self.linker.spare = self.objects.spare
        self._private = Linker(("reflink", "copy"))
        self._made = Materialised()
        self._filled: dict[str, tuple[bytes, int]] = {}  # SHA-256 and size of what templates became

    def make(self, manifest: Manifest, destination: str) -> Materialised:
        """Make *manifest* at *destination*, a directory that does not exist yet.

        Raises :class:`Damaged` for an object that cannot be used, ``OSError`` for the file system's own
        reasons, and :class:`venvflow.pure.manifest.Corrupt` if two trees claim one path, or one wants a file
        or link where another needs a directory.
        """
        entries = entries_of(manifest)
        directories = directories_of(entries)
        empty = [entry.path for entry in entries.values() if entry.kind == "dir"]
        size = self._occupied(entries.values(), len(entries) + len(directories))
        os.mkdir(destination, 0o755)
        with directory(destination) as root, Directories(root) as places:
            postinstall.need_room(root, size, len(entries) + len(directories))
            for name in directories:
                places.open(name)
            self._make_entries([entry for entry in entries.values() if not is_record(entry)], places)
            for entry in filter(is_record, entries.values()):
                self._make_template(entry, places)
        sizes = [entry.size for entry in entries.values() if entry.digest]
        self._made.files, self._made.size = len(sizes), sum(sizes)
        self._made.modes = {**self.linker.used}
        self._made.directories = [*directories, *empty]
        return self._made

    def _occupied(self, entries: Collection[Entry], names: int) -> int:
        """Return how many bytes will be the venv's own, before any is written; what is shared takes none.

        Raises Corrupt for more than any venv has: names, slots, or bytes that templates become.
        """
        templates = [(entry.path, entry.size, entry.slots) for entry in entries if entry.kind == "template"]
        dense = [path for path, size, slots in templates if len(slots) > size + postinstall.SPARE_SLOTS]
        if names > _MOST_NAMES or dense:
            raise Corrupt(f"it has {names} names, or too many slots in {dense[:1]!r}")
        try:
            sizes = postinstall.filled_sizes(templates, self.places)
        except (KeyError, ValueError) as error:
            raise Corrupt(f"its templates make no sense: {error}") from error
        copies = self.untrusted or self.linker.mode == "copy"
        files = (entry for entry in entries if entry.kind == "file")
        own = (e for e in files if copies or self.private(e.path) or stays_private(e, self.min_size))
        return sum(sizes.values()) + sum(entry.size for entry in own)

    def _make_entries(self, entries: list[Entry], places: Directories) -> None:
        copies = self.linker.mode == "copy"
        for start in range(0, len(entries), _CHUNK):
            if self.linker.mode == "copy" and not copies:  # which shows when the other modes have failed
                copies = True
                postinstall.need_room(places.open(""), sum(entry.size for entry in entries[start:]), 0)
            chunk = entries[start : start + _CHUNK]
            for entry in chunk:
                self._make_entry(entry, places)
            if self.progress is not None:
                self.progress(start + len(chunk), len(entries))

    def _make_entry(self, entry: Entry, places: Directories) -> None:
        if entry.kind == "file":
            self._make_file(entry, *places.parent(entry.path))
        elif entry.kind == "template":
            self._filled[entry.path] = self._make_template(entry, places)
        elif entry.kind == "link":
            parent, base = places.parent(entry.path)
            with _filling(entry):
                target = fill_link(entry, self.places)
            os.symlink(target, base, dir_fd=parent)
            self._made.stats.append(entry.path)
            self._made.digests.append((entry.path, ""))
        else:
            places.open(entry.path)

    def _make_file(self, entry: Entry, parent: int, base: str) -> None:
        self._made.digests.append((entry.path, entry.digest))
        if entry.size == 0:
            write_private(base, parent, b"", executable=entry.executable)
            self._note_stats(entry, 0)
            return
        name = object_name(entry)
        expected = self.adopted.get(name) or sealed(name)
        sound = self.objects.sound(name, entry.size, expected)
        relabelled = (
            None if sound or self.untrusted else self.relabel(name, entry.size, self.adopted.get(name))
        )
        if (self.verify_all or not (sound or relabelled)) and not self.objects.verified(name):
            raise Damaged(name, entry.path)
        expected = relabelled or expected
        private = (
            not (sound or relabelled)
            or self.private(entry.path)
            or stays_private(entry, self.min_size, adopted=expected != sealed(name))
        )
        linker = self._private if private or self.untrusted else self.linker
        own = sealed(name).mtime_ns
        mode = linker.place(self.objects.path(name), base, parent, executable=entry.executable, mtime_ns=own)
        if self.untrusted and read(base, dir_fd=parent).digest != entry.digest:
            raise Damaged(name, entry.path)  # it was changed since it was looked at: what counts is the copy
        if mode == "symlink":
            self._made.stats.append(entry.path)
        else:
            self._note_stats(entry, entry.size, expected.mtime_ns if mode == "hardlink" else own)

    def _note_stats(self, entry: Entry, size: int, mtime_ns: int = 0) -> None:
        if not is_ignored(entry.path):
            time = mtime_ns or sealed(object_name(entry)).mtime_ns
            self._made.stats.append(file_stat(entry.path, size, time))

    def _make_template(self, entry: Entry, places: Directories) -> tuple[bytes, int]:
        name = object_name(entry)
        template = self.objects.read(name)
        if template is None or len(template) != entry.size:
            raise Damaged(name, entry.path)
        with _filling(entry):
            data = fill(template, entry.slots, self.places, self._filled)
        parent, base = places.parent(entry.path)
        write_private(base, parent, data, executable=entry.executable, digest=entry.digest)
        self._note_stats(entry, len(data))
        made = digest_of(data)
        self._made.digests.append((entry.path, made[0].hex()))
        return made


@contextmanager
def _filling(entry: Entry) -> Iterator[None]:
    """Take slots that make no sense for a manifest that makes none."""
    try:
        yield
    except (KeyError, ValueError) as error:
        raise Corrupt(f"the slots of {entry.path!r} cannot be filled in ({error})") from error
