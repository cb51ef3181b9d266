"""Makes the directory of a whole venv from a manifest and objects, with every local path filled in."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from venvflow import postinstall
from venvflow.disk.descriptors import Directories, directory
from venvflow.disk.links import Linker, prevailing, write_private
from venvflow.disk.objects import MtimeMode, Name, Objects, object_name, sealed, sealed_file
from venvflow.disk.scan import read
from venvflow.model import Entry, LinkMode, Manifest
from venvflow.pure.manifest import Corrupt, directories_of, entries_of
from venvflow.pure.relocate import Places, digest_of, fill, fill_link, is_record
from venvflow.pure.sharing import is_written, stays_private, time_of
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


class Placed(NamedTuple):
    """A file that was made: its *entry*, and the inode, size in bytes, mtime and whole mode that it has."""

    entry: Entry
    inode: int
    size: int
    mtime_ns: int
    mode: int


@dataclass(slots=True)
class Materialised:
    """What was made: *files* regular files of *size* bytes in all, by link *modes*, in *directories*.

    *written* is the mtime in nanoseconds of those that are written for this venv alone.
    *stats* are hashed for the receipt's stats, *digests* (path and SHA-256, empty for a link) for its
    contents. *placed* are the hard links to sound objects, by path. *own* are the other files, *templates*
    the bytes of those that were filled in, and *targets* those of the links, if that is to be noted.
    """

    files: int = 0
    size: int = 0
    modes: dict[LinkMode, int] = field(default_factory=dict)
    stats: list[str] = field(default_factory=list, repr=False)
    digests: list[tuple[str, str]] = field(default_factory=list, repr=False)
    directories: list[str] = field(default_factory=list)
    written: int = 0
    placed: dict[str, Placed] = field(default_factory=dict, repr=False)
    own: dict[str, Placed] = field(default_factory=dict, repr=False)
    templates: dict[str, bytes] = field(default_factory=dict, repr=False)
    targets: dict[str, str] = field(default_factory=dict, repr=False)

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
    copy, hashed when it is made. *noting*: it is noted of everything how it was made, for who looks at it
    again. *progress* is called now and then with how many files of how many are there.
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
    noting: bool = False
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        self.linker.spare = self.objects.spare
        self._private = Linker(("reflink", "copy"))
        self._made = Materialised()
        self._late = False
        self._own: set[str] = set()  # files that are no links
        self._hurries = not (self.verify_all or self.untrusted)
        self._filled: dict[str, tuple[bytes, int]] = {}  # SHA-256 and size of what templates became

    def make(self, manifest: Manifest, destination: str) -> Materialised:
        """Make *manifest* at *destination*, a directory that does not exist yet.

        Raises :class:`Damaged` for an object that cannot be used, ``OSError`` for the file system's own
        reasons, and :class:`venvflow.pure.manifest.Corrupt` if two trees claim one path, or one wants a file
        or link where another needs a directory.
        """
        return self.begin(manifest, destination, new=True, first=lambda _: True)()

    def begin(
        self, manifest: Manifest, destination: str, *, new: bool, first: Callable[[Entry], bool]
    ) -> Callable[[], Materialised]:
        """Make what of *manifest* is to be there *first*, and all templates; return what makes the rest.

        *destination* does not exist yet, or, if not *new*, is a directory. Both do as :meth:`make` does,
        and raise what that raises; but where somebody else has made a file meanwhile, the rest leaves that as
        it is, and it is not among what was placed.
        """
        entries = entries_of(manifest)
        directories = directories_of(entries)
        empty = [entry.path for entry in entries.values() if entry.kind == "dir"]
        size = self._occupied(entries.values(), len(entries) + len(directories))
        if new:
            os.mkdir(destination, 0o755)
        others = [entry for entry in entries.values() if not is_record(entry)]
        soon = {entry.path for entry in others if entry.kind == "template" or first(entry)}
        with directory(destination) as root, Directories(root, new=True) as places:
            self._made.written = os.fstat(root).st_mtime_ns  # now, as this file system can tell it
            postinstall.need_room(root, size, len(entries) + len(directories))
            self._make_entries([entry for entry in others if entry.path in soon], places)
            for entry in filter(is_record, entries.values()):
                self._make_template(entry, places)

        def finish() -> Materialised:
            with directory(destination) as root, Directories(root, new=True) as places:
                self._late = True
                self._make_entries([entry for entry in others if entry.path not in soon], places)
            sizes = [entry.size for entry in entries.values() if entry.digest]
            self._made.files, self._made.size = len(sizes), sum(sizes)
            self._made.modes = {**self.linker.used}
            self._made.directories = [*directories, *empty]
            return self._made

        return finish

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
        own = [e for e in files if copies or self.private(e.path) or stays_private(e, self.min_size)]
        self._own = {entry.path for entry in own}
        return sum(sizes.values()) + sum(entry.size for entry in own)

    def _make_entries(self, entries: list[Entry], places: Directories) -> None:
        copies = self.linker.mode == "copy"
        for start in range(0, len(entries), _CHUNK):
            if self.linker.mode == "copy" and not copies:  # which shows when the other modes have failed
                copies = True
                postinstall.need_room(places.open(""), sum(entry.size for entry in entries[start:]), 0)
            chunk = entries[start : start + _CHUNK]
            with directory(self.objects.root) as objects:
                for entry in self._link_at_once(chunk, objects, places):
                    with suppress(*[FileExistsError] * self._late):
                        self._make_entry(entry, places)
            if self.progress is not None:
                self.progress(start + len(chunk), len(entries))

    def _link_at_once(self, entries: list[Entry], objects: int, places: Directories) -> Iterator[Entry]:
        """Make files links to their objects, in two system calls each; yield what there is more to do for.

        That is how most files are made, so it is done without detours. *objects* is a descriptor of the
        directory of objects. What was yielded has been made when the next one is asked for.
        """
        stat_at, link, placed, owners = os.stat, os.link, self._made.placed, self.objects.owners
        above, parent, linked = "", -1, 0  # most files are beside the one before
        hurries = self._hurries and self.linker.mode == "hardlink"
        for entry in entries:
            path, size = entry.path, entry.size
            if hurries and entry.kind == "file" and path not in self._own and not self._is_adopted(entry):
                file, mtime_ns, mode = sealed_file(entry)
                try:
                    st = stat_at(file, dir_fd=objects, follow_symlinks=False)
                    looks = st.st_mode, st.st_size, st.st_mtime_ns
                    if looks == (mode, size, mtime_ns) and st.st_uid in owners:
                        where, _, base = path.rpartition("/")
                        if parent < 0 or where != above:
                            above, parent = where, places.open(where)
                        link(file, base, src_dir_fd=objects, dst_dir_fd=parent, follow_symlinks=False)
                        linked += 1
                        placed[path] = Placed(entry, st.st_ino, size, mtime_ns, mode)
                        if not self.noting:
                            self._made.digests.append((path, entry.digest))
                            self._note_stats(entry, size, mtime_ns)
                        continue
                except OSError:  # what it is, the longer way finds out
                    pass
            yield entry
            parent, hurries = -1, self._hurries and self.linker.mode == "hardlink"
        if linked:
            self.linker.count("hardlink", linked)

    def _is_adopted(self, entry: Entry) -> bool:
        return bool(self.adopted) and object_name(entry) in self.adopted

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
            if self.noting:
                self._made.targets[entry.path] = target
            self._made.stats.append(entry.path)
            self._made.digests.append((entry.path, ""))
        else:
            places.open(entry.path)

    def _make_file(self, entry: Entry, parent: int, base: str) -> None:
        self._made.digests.append((entry.path, entry.digest))
        if entry.size == 0:
            write_private(base, parent, b"", executable=entry.executable)
            self._note_stats(entry, 0)
            self._note_own(entry, parent, base)
            return
        name = object_name(entry)
        ours = sealed(name)
        expected = self.adopted.get(name) or ours
        sound = self.objects.sound_stat(name, entry.size, expected)
        relabelled = (
            None if sound or self.untrusted else self.relabel(name, entry.size, self.adopted.get(name))
        )
        if (self.verify_all or not (sound or relabelled)) and not self.objects.verified(name):
            raise Damaged(name, entry.path)
        expected = relabelled or expected
        private = (
            not (sound or relabelled)
            or self.private(entry.path)
            or stays_private(entry, self.min_size, adopted=expected != ours)
        )
        linker = self._private if private or self.untrusted else self.linker
        own = self._made.written if is_written(entry) else ours.mtime_ns
        mode = linker.place(self.objects.path(name), base, parent, executable=entry.executable, mtime_ns=own)
        if self.untrusted and read(base, dir_fd=parent).digest != entry.digest:
            raise Damaged(name, entry.path)  # it was changed since it was looked at: what counts is the copy
        if mode == "hardlink" and sound:
            self._made.placed[entry.path] = _placed(entry, sound)
        elif mode != "symlink":
            self._note_own(entry, parent, base)
        if mode == "symlink":
            self._made.stats.append(entry.path)
        else:
            self._note_stats(entry, entry.size, expected.mtime_ns if mode == "hardlink" else own)

    def _note_stats(self, entry: Entry, size: int, mtime_ns: int = 0) -> None:
        if not is_ignored(entry.path):
            time = mtime_ns or time_of(entry, self._made.written)
            self._made.stats.append(file_stat(entry.path, size, time))

    def _note_own(self, entry: Entry, parent: int, base: str) -> None:
        if self.noting:
            st = os.stat(base, dir_fd=parent, follow_symlinks=False)
            self._made.own[entry.path] = _placed(entry, st)

    def _make_template(self, entry: Entry, places: Directories) -> tuple[bytes, int]:
        name = object_name(entry)
        template = self.objects.read(name)
        if template is None or len(template) != entry.size:
            raise Damaged(name, entry.path)
        with _filling(entry):
            data = fill(template, entry.slots, self.places, self._filled)
        parent, base = places.parent(entry.path)
        time = time_of(entry, self._made.written)
        write_private(base, parent, data, executable=entry.executable, mtime_ns=time)
        self._note_stats(entry, len(data))
        if self.noting:
            self._made.templates[entry.path] = template
            self._note_own(entry, parent, base)
        made = digest_of(data)
        self._made.digests.append((entry.path, made[0].hex()))
        return made


def _placed(entry: Entry, st: os.stat_result) -> Placed:
    return Placed(entry, st.st_ino, st.st_size, st.st_mtime_ns, st.st_mode)


@contextmanager
def _filling(entry: Entry) -> Iterator[None]:
    """Take slots that make no sense for a manifest that makes none."""
    try:
        yield
    except (KeyError, ValueError) as error:
        raise Corrupt(f"the slots of {entry.path!r} cannot be filled in ({error})") from error
