"""Replaces a venv's files by links to their objects, one by one; at every moment each name is a whole file.

A file is replaced by rename, only by an object that was compared with it byte for byte, and only if it
did not change meanwhile. Attributes are never written through a link: a file that has other names is
replaced, not touched.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from venvflow.disk.attributes import copy_attributes, own_attributes
from venvflow.disk.background_close import BackgroundCloser
from venvflow.disk.descriptors import READ, SAFE, Directories, directory, opened, whole_paths
from venvflow.disk.files import TEMPORARY, is_temporary_name, replacing
from venvflow.disk.links import Linker, is_unsupported, share_blocks, write_private
from venvflow.disk.objects import Name, Objects, object_name, sealed
from venvflow.disk.scan import Found, Stamp, lstat
from venvflow.model import Entry, LinkMode
from venvflow.pure.sharing import stays_private, time_of

_CHUNK = 1 << 20

_REPLACEMENT = f"{TEMPORARY}0-0"
"""One name for all who hold the venv: what a killed one leaves is the next one's."""

_LADDERS: dict[str, tuple[LinkMode, ...]] = {
    "reflink": ("reflink",),
    "hardlink": ("hardlink",),
    "symlink": ("symlink",),
    "copy": ("reflink", "copy"),
    "": ("hardlink",),
}
"""How a file is given to a venv again that is shared in one mode."""


def is_temporary(path: str) -> bool:
    """Return whether a file of a venv is what a killed run of ours left: others use no such names."""
    return TEMPORARY in path and is_temporary_name(os.path.basename(path))


class LeftAlone(Exception):
    """A file is not the one that was surveyed any more, or cannot become what it should be."""


@dataclass(slots=True)
class Relinked:
    """Files by the *modes* that share them; *kept* are files that changed and were left alone.

    *attributed* have extended attributes of their own, and stay private.
    """

    modes: dict[LinkMode, int] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    attributed: list[str] = field(default_factory=list)

    def add(self, more: Relinked) -> None:
        """Add what came of further files, whose linker has gone on counting."""
        self.modes = more.modes
        self.kept += more.kept
        self.attributed += more.attributed


@dataclass(eq=False)
class Relinker:
    """Links one venv to objects.

    *origins* maps objects to files of this venv that they were copied from, *own* those that are themselves
    files of it, *adopted* are objects that keep a mtime of somebody else's, *linked* paths that were seen to
    be names of their objects just now. *written* is the mtime in nanoseconds that files get which are written
    for each venv, 0: as others. *private* says whether a path is to be a copy. *on_file* is called
    with the path of each file and what became of it: a link mode, ``private``, ``shared already`` or ``left
    alone``.
    """

    objects: Objects
    venv: str
    linker: Linker
    min_size: int
    origins: Mapping[Name, str]
    own: Mapping[Name, str] = field(default_factory=dict)
    adopted: Container[Name] = ()
    linked: Container[str] = ()
    written: int = 0
    private: Callable[[str], bool] = lambda _path: False
    on_file: Callable[[str, str], None] = lambda _path, _how: None

    def __post_init__(self) -> None:
        self.linker.spare = self.objects.spare
        self._private = Linker(("reflink", "copy"))
        self._closer = BackgroundCloser()
        self._done = Relinked()

    def relink(self, entries: Mapping[str, Entry], found: MutableMapping[str, Found]) -> Relinked:
        """Make every file of *entries* what it should be; *found* are those that were surveyed.

        *found* says afterwards how they look now, but for those that were left alone. Entries that were not
        found (bytecode) are put there, whatever has their name. What a killed run left is deleted. Raises
        ``OSError`` as the file system does.
        """
        by_directory: dict[str, list[Entry]] = {}
        for path, entry in entries.items():
            stays = path in self.linked and self.linker.mode == "hardlink" and not self._is_private(entry)
            if stays:
                self.linker.count("hardlink")
                self.on_file(path, "shared already")
            elif entry.kind in ("file", "template"):
                by_directory.setdefault(path.rpartition("/")[0], []).append(entry)
        with self._closer, directory(self.venv) as root, Directories(root, make=False) as places:
            _drop_litter(places, found.values())
            for name, group in by_directory.items():
                self._relink_directory(places, name, group, found)
        self._done.modes = {**self.linker.used}
        return self._done

    def _is_private(self, entry: Entry) -> bool:
        adopted = object_name(entry) in self.adopted
        return self.private(entry.path) or stays_private(entry, self.min_size, adopted=adopted)

    def _relink_directory(
        self, places: Directories, name: str, group: list[Entry], found: MutableMapping[str, Found]
    ) -> None:
        try:
            _make_cache(places, name)
            fd = places.open(name)
        except FileNotFoundError:
            self._done.kept += [entry.path for entry in group if entry.path in found]
            return
        start = len(name) + 1 if name else 0
        with whole_paths(fd):
            for entry in group:
                base = entry.path[start:]
                try:
                    how = self._relink_one(entry, found.get(entry.path), base, fd)
                    found[entry.path] = lstat(base, dir_fd=fd, known_as=entry.path)
                except LeftAlone:
                    how = "left alone"
                    self._done.kept.append(entry.path)
                self.on_file(entry.path, how)

    def _relink_one(self, entry: Entry, item: Found | None, name: str, fd: int) -> str:
        """Make one file what it should be, and return what became of it. Raises LeftAlone."""
        private = self._is_private(entry)
        linker = self._private if private else self.linker
        copies = private or linker.mode == "copy"
        if item is None:
            if not (entry.size and linker.link_new(self._object(entry), name, fd)):
                with replacing(name, fd) as temporary:
                    self._place(entry, temporary, fd, linker)
        elif not copies:
            return self._share(entry, item, name, fd)
        else:
            with self._opened(item, name, fd) as file:
                self._make_private(entry, item, file, (name, fd))
        return "private" if copies else linker.mode

    def _share(self, entry: Entry, item: Found, name: str, fd: int) -> str:
        """Replace a file by its object, if they are equal and the file is still the one that was surveyed.

        One that has attributes of its own stays private. Return what became of it. Raises LeftAlone.
        """
        own = self._is_own(entry, item)
        copied_from, path = self.origins.get(object_name(entry)), f"{self.venv}/{entry.path}"
        if self.linker.mode == "hardlink":
            if own or (copied_from is None and self._is_name_of(entry, item)):
                self.linker.count("hardlink")
                return "hardlink" if own else "shared already"
            if copied_from == path and item.links > 1 and not own_attributes(path):
                self._replace_by_copy(entry, item, name, fd)
                return self.linker.mode
        if own:
            item = _as_object(item, entry)
        with self._opened(item, name, fd) as file:
            if self.linker.mode == "reflink" and item.links == 1 and self._share_blocks(entry, item, file):
                return "reflink"
            if own_attributes(file):
                self._done.attributed.append(entry.path)
                self._make_private(entry, item, file, (name, fd))
                return "private"
            if copied_from != path and not _same_bytes(file, self._object(entry), entry.size):
                raise LeftAlone
            with replacing_found(item, name, fd) as temporary:
                self._place(entry, temporary, fd, self.linker)
        return self.linker.mode

    def _replace_by_copy(self, entry: Entry, item: Found, name: str, fd: int) -> None:
        """Replace a file that has other names by the object that was just copied from it.

        Most files of a first build are links to an installer's cache. They need no comparison, and nobody
        waits for the disk to free what others have: so they take half of the system calls that others take.
        Raises LeftAlone.
        """
        self._place(entry, _REPLACEMENT, fd, self.linker)
        done = False
        try:
            if _is_unchanged(item, name, fd):
                # The object is another file, so that the temporary name is gone afterwards.
                os.rename(_REPLACEMENT, name, src_dir_fd=fd, dst_dir_fd=fd)
                done = True
        finally:
            if not done:
                os.unlink(_REPLACEMENT, dir_fd=fd)
        if not done:
            raise LeftAlone

    def _is_own(self, entry: Entry, item: Found) -> bool:
        """Return whether the file itself became the object since it was surveyed."""
        return item.links == 1 and self.own.get(object_name(entry)) == f"{self.venv}/{item.path}"

    def _is_name_of(self, entry: Entry, item: Found) -> bool:
        """Return whether the file was the object when it was surveyed; then it had two names."""
        return item.links > 1 and self.objects.is_at(object_name(entry), item.stamp.inode, item.device)

    def _share_blocks(self, entry: Entry, item: Found, file: int) -> bool:
        """Let the kernel compare an open file with its object and share their blocks: it keeps its own inode.

        Return False where the file system cannot do that. Raises LeftAlone.
        """
        try:
            with opened(self._object(entry), READ) as source:
                equal = share_blocks(source, file, entry.size)
        except OSError as error:
            if not is_unsupported(error):
                raise
            return False
        if not (equal and _same_version(os.fstat(file), item)):
            raise LeftAlone
        _set_mtime(file, entry)
        self.linker.count("reflink")
        return True

    def _make_private(self, entry: Entry, item: Found, file: int, at: tuple[str, int]) -> None:
        """Give an open file the mtime of its content; one that has other names first gets its own inode.

        *at* are its name and the descriptor of its directory. Its attributes and its mode are kept, but for
        that of an object: what is private may be written. Raises LeftAlone.
        """
        if item.links == 1:
            _set_mtime(file, entry, self.written)
            return
        name, fd = at
        with replacing_found(item, name, fd) as temporary:
            path, mtime_ns = f"{self.venv}/{item.path}", time_of(entry, self.written)
            self._private.place(path, temporary, fd, executable=item.executable, mtime_ns=mtime_ns)
            with opened(temporary, os.O_RDWR | SAFE, dir_fd=fd) as copy:
                if not copy_attributes(file, copy):
                    raise LeftAlone
                sealed_to_all = self.objects.is_at(object_name(entry), item.stamp.inode, item.device)
                mode = item.mode & 0o777 | (0o200 if sealed_to_all else 0)
                os.fchmod(copy, mode)  # last: it is part of an access list
                os.utime(copy, ns=(mtime_ns, mtime_ns))

    @contextmanager
    def _opened(self, item: Found, name: str, fd: int) -> Iterator[int]:
        """Open a file if *name* is still the one that was surveyed. Raises LeftAlone."""
        try:
            file = os.open(name, READ, dir_fd=fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                raise LeftAlone from error
            raise
        try:
            if not _same_version(os.fstat(file), item):
                raise LeftAlone
            yield file
        finally:
            self._closer.close(file)

    def _place(self, entry: Entry, name: str, fd: int, linker: Linker) -> None:
        """Make *name* in the directory *fd* what *entry* says."""
        if entry.size == 0:
            write_private(name, fd, b"", executable=entry.executable)
        else:
            _place(self.objects, entry, (fd, name), linker, self.written)

    def _object(self, entry: Entry) -> str:
        return self.objects.path(object_name(entry))


def _as_object(item: Found, entry: Entry) -> Found:
    """Return how a file looks that became the object of *entry* since it was surveyed."""
    return item._replace(stamp=item.stamp._replace(mtime_ns=sealed(object_name(entry)).mtime_ns))


def _set_mtime(file: int, entry: Entry, written: int = 0) -> None:
    """Give an open file the time that its entry's file carries."""
    mtime_ns = time_of(entry, written)
    os.utime(file, ns=(mtime_ns, mtime_ns))


def _place(objects: Objects, entry: Entry, at: tuple[int, str], linker: Linker, written: int) -> None:
    """Make a file from the object of *entry*; *at* are a descriptor of its directory and its name."""
    fd, name = at
    path, mtime_ns = objects.path(object_name(entry)), time_of(entry, written)
    linker.place(path, name, fd, executable=entry.executable, mtime_ns=mtime_ns)


def _make_cache(places: Directories, path: str) -> None:
    """Make a directory for bytecode, if that is what is missing and its source is still there."""
    parent, name = places.parent(path) if path else (0, "")
    if name == "__pycache__":
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)


def _drop_litter(places: Directories, found: Iterable[Found]) -> None:
    for item in found:
        if is_temporary(item.path) and item.kind in ("file", "link"):
            with suppress(FileNotFoundError):
                parent, name = places.parent(item.path)
                os.unlink(name, dir_fd=parent)


@contextmanager
def replacing_in_venv(
    venv: str, path: str, *, quietly: bool = True, expected: Stamp | None = None
) -> Iterator[tuple[int, str]]:
    """Give directory and temporary name of what takes the place of the file *path* of a venv at the end.

    The directory is made if it is missing, and reached through no link; *quietly*: it keeps its mtime, as if
    it was not touched. If the file is not the one *expected* any more, it stays. Raises ``OSError``.
    """
    with directory(venv) as root, Directories(root) as places:
        fd, name = places.parent(path)
        before = os.fstat(fd).st_mtime_ns
        with suppress(FileNotFoundError):
            os.unlink(_REPLACEMENT, dir_fd=fd)
        try:
            yield fd, _REPLACEMENT
            if expected is None or lstat(name, dir_fd=fd).stamp[:3] == expected[:3]:
                os.rename(_REPLACEMENT, name, src_dir_fd=fd, dst_dir_fd=fd)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(_REPLACEMENT, dir_fd=fd)
            if quietly:
                os.utime(fd, ns=(before, before))


def give_again(
    objects: Objects, entry: Entry, venv: str, link: str, written: int, *, expected: Stamp | None = None
) -> None:
    """Give the venv at the path *venv*, which is shared in the mode *link*, a file from its object.

    *written* is what its receipt says. If the one there is not the one *expected* any more, it stays. Raises
    ``OSError``.
    """
    linker = Linker(_LADDERS["copy" if stays_private(entry, 1) else link])
    linker.spare = objects.spare
    with replacing_in_venv(venv, entry.path, expected=expected) as at:
        _place(objects, entry, at, linker, written)


@contextmanager
def replacing_found(item: Found, name: str, fd: int) -> Iterator[str]:
    """Do as :func:`venvflow.disk.files.replacing`, if *name* is still the file *item* at the end.

    Raises LeftAlone if it is not: what is newer is the user's, and wins.
    """
    with replacing(name, fd) as temporary:
        yield temporary
        if not _is_unchanged(item, name, fd):
            raise LeftAlone


def _is_unchanged(item: Found, name: str, fd: int) -> bool:
    try:
        return _same_version(os.stat(name, dir_fd=fd, follow_symlinks=False), item)
    except FileNotFoundError:
        return False


def _same_version(st: os.stat_result, item: Found) -> bool:
    # The ctime is left out: it moves when the file gets another name as an object.
    return (st.st_ino, st.st_size, st.st_mtime_ns) == item.stamp[:3]


def _same_bytes(one: int, other: str, size: int) -> bool:
    """Return whether an open file of *size* bytes has the same bytes as the file at the path *other*."""
    chunk = min(size + 1, _CHUNK)  # so that a small file takes one read, and a longer one shows
    with opened(other, READ) as two:
        while True:
            left, right = os.read(one, chunk), os.read(two, chunk)
            if left != right:
                return False
            if len(left) < chunk:
                return True
