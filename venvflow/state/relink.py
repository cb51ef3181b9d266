"""Giving a venv's names their objects, one by one, so that at every moment each name is a whole file.

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
from types import MappingProxyType

from venvflow.disk.attributes import copy_attributes, own_attributes
from venvflow.disk.descriptors import READ, SAFE, Directories, directory, opened, whole_paths
from venvflow.disk.files import TEMPORARY, is_temporary_name, temporary_name
from venvflow.disk.links import Linker, is_unsupported, share_blocks, write_private
from venvflow.disk.objects import Name, Objects, object_name
from venvflow.disk.release import Releaser
from venvflow.disk.scan import Found, Stamp, look
from venvflow.model import MTIME_TIMES, Entry, LinkMode
from venvflow.pure.sharing import stays_private

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
    """Return whether a file of a venv is what a killed run of ours left: nobody else calls one like that."""
    return TEMPORARY in path and is_temporary_name(os.path.basename(path))


@dataclass(slots=True)
class Relinked:
    """Files by the *modes* that share them; *kept* are files that changed and were left alone.

    *attributed* have extended attributes of their own, and stay private.
    """

    modes: dict[LinkMode, int] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    attributed: list[str] = field(default_factory=list)


class Relinker:
    """Links one venv to objects.

    *origins* maps objects to files of this venv that they were copied from, *own* those that are themselves
    files of it, *adopted* are objects that keep a mtime of somebody else's, *linked* paths that were seen
    to be names of their objects just now. *tell* is called with the path of each file and what became of it:
    a link mode, ``private``, ``shared already`` or ``left alone``.
    """

    def __init__(
        self,
        objects: Objects,
        venv: str,
        linker: Linker,
        *,
        min_size: int,
        origins: Mapping[Name, str],
        own: Mapping[Name, str] = MappingProxyType({}),
        adopted: Container[Name] = (),
        linked: Container[str] = (),
        tell: Callable[[str, str], None] = lambda _path, _how: None,
    ) -> None:
        self._tell = tell
        self._objects = objects
        self._venv = venv
        self._linker = linker
        self._linker.spare = objects.spare
        self._private = Linker(("reflink", "copy"))
        self._min_size = min_size
        self._origins = origins
        self._own = own
        self._released = Releaser()
        self._adopted = adopted
        self._linked = linked
        self._kept: list[str] = []
        self._attributed: list[str] = []

    def relink(self, entries: Mapping[str, Entry], found: MutableMapping[str, Found]) -> Relinked:
        """Make every file of *entries* what it should be; *found* are those that were surveyed.

        *found* says afterwards how they look now, but for those that were left alone. Entries that were not
        found (bytecode) are put there, whatever has their name. What a killed run left is deleted. Raises
        ``OSError`` as the file system does.
        """
        by_directory: dict[str, list[Entry]] = {}
        for path, entry in entries.items():
            stays = path in self._linked and self._linker.mode == "hardlink" and not self._is_private(entry)
            if stays:
                self._linker.count("hardlink")
                self._tell(path, "shared already")
            elif entry.kind in ("file", "template"):
                by_directory.setdefault(path.rpartition("/")[0], []).append(entry)
        with self._released, directory(self._venv) as root, Directories(root, make=False) as places:
            _drop_litter(places, found.values())
            for name, group in by_directory.items():
                self._relink_directory(places, name, group, found)
        return Relinked({**self._linker.used}, self._kept, self._attributed)

    def _is_private(self, entry: Entry) -> bool:
        return stays_private(entry, self._min_size, adopted=object_name(entry) in self._adopted)

    def _relink_directory(
        self, places: Directories, name: str, group: list[Entry], found: MutableMapping[str, Found]
    ) -> None:
        try:
            _make_cache(places, name)
            fd = places.open(name)
        except FileNotFoundError:
            self._kept += [entry.path for entry in group if entry.path in found]
            return
        start = len(name) + 1 if name else 0
        with whole_paths(fd):
            for entry in group:
                left = len(self._kept)
                base = entry.path[start:]
                how = self._relink_one(entry, found.get(entry.path), base, fd)
                if len(self._kept) == left:
                    found[entry.path] = look(base, dir_fd=fd, known_as=entry.path)
                    self._tell(entry.path, how)
                else:
                    self._tell(entry.path, "left alone")

    def _relink_one(self, entry: Entry, item: Found | None, name: str, fd: int) -> str:
        """Make one file what it should be; return what became of it, unless it was left alone."""
        private = self._is_private(entry)
        copies = private or self._linker.mode == "copy"
        if item is None:
            self._put(entry, name, fd, self._private if private else self._linker)
        elif not copies and self._is_shared(entry, item):
            self._linker.count("hardlink")
            return "hardlink" if item.links == 1 else "shared already"
        elif not copies:
            return self._replace(entry, item, name, fd)
        else:
            self._normalise(item, name, fd)
        return "private" if copies else self._linker.mode

    def _is_shared(self, entry: Entry, item: Found) -> bool:
        """Return whether the name is a link to the object already: renaming over it would do nothing."""
        name = object_name(entry)
        if item.links == 1:  # when it was surveyed: it became the object since, or it is none
            return self._own.get(name) == f"{self._venv}/{item.path}"
        return self._objects.is_at(name, item.stamp.inode, item.device)

    def _normalise(self, item: Found, name: str, fd: int) -> None:
        """Make a file that stays private what :meth:`_keep` says, if it is still the one surveyed."""
        file = _opened(item, name, fd)
        if file is None:
            self._kept.append(item.path)
            return
        try:
            self._keep(item, file, name, fd)
        finally:
            os.close(file)

    def _replace(self, entry: Entry, item: Found, name: str, fd: int) -> str:
        """Replace a file by its object, if they are equal and the file is still the one surveyed.

        One that has attributes of its own stays private. Return what became of it.
        """
        mode = self._linker.mode
        if mode == "reflink" and item.links == 1 and self._share_blocks(entry, item, name, fd):
            return mode
        file = _opened(item, name, fd)
        try:
            if file is not None and own_attributes(file):
                self._attributed.append(entry.path)
                self._keep(item, file, name, fd)
                return "private"
            if file is not None and self._is_equal(entry, file):
                self._rename_if_unchanged(self._temporary(entry, fd, self._linker), item, name, fd)
            else:
                self._kept.append(entry.path)
        finally:
            if file is not None:
                self._released.release(file)
        return self._linker.mode

    def _keep(self, item: Found, file: int, name: str, fd: int) -> None:
        """Give an open file the constant mtime; one that has other names gets an inode of its own first.

        Its attributes and its mode are kept.
        """
        if item.links == 1:
            os.utime(file, ns=MTIME_TIMES)
            return
        temporary = temporary_name()
        with _dropped_on_error(temporary, fd):
            path = f"{self._venv}/{item.path}"
            self._private.place(path, temporary, fd, executable=item.executable)
            with opened(temporary, os.O_RDWR | SAFE, dir_fd=fd) as copy:
                whole = copy_attributes(file, copy)
                os.fchmod(copy, item.mode & 0o777)  # last: it is part of an access list
                os.utime(copy, ns=MTIME_TIMES)
        if whole:
            self._rename_if_unchanged(temporary, item, name, fd)
        else:
            os.unlink(temporary, dir_fd=fd)
            self._kept.append(item.path)

    def _is_equal(self, entry: Entry, file: int) -> bool:
        copied_from = self._origins.get(object_name(entry))
        return copied_from == f"{self._venv}/{entry.path}" or _same_bytes(
            file, self._object(entry), entry.size
        )

    def _share_blocks(self, entry: Entry, item: Found, name: str, fd: int) -> bool:
        """Let the kernel compare a file with its object and share their blocks: it keeps its own inode.

        Return whether that settled it; False where the file system cannot do that.
        """
        file = _opened(item, name, fd)
        if file is None:
            self._kept.append(item.path)
            return True
        try:
            with opened(self._object(entry), READ) as source:
                equal = share_blocks(source, file, entry.size)
            if equal and _same_version(os.fstat(file), item):
                os.utime(file, ns=MTIME_TIMES)
                self._linker.count("reflink")
            else:
                self._kept.append(item.path)
        except OSError as error:
            if not is_unsupported(error):
                raise
            return False
        finally:
            os.close(file)
        return True

    def _rename_if_unchanged(self, temporary: str, item: Found, name: str, fd: int) -> None:
        if _is_unchanged(item, name, fd):
            with _dropped_on_error(temporary, fd):
                os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        else:
            os.unlink(temporary, dir_fd=fd)
            self._kept.append(item.path)

    def _put(self, entry: Entry, name: str, fd: int, linker: Linker) -> None:
        if entry.size and linker.link_new(self._object(entry), name, fd):
            return
        temporary = self._temporary(entry, fd, linker)
        with _dropped_on_error(temporary, fd):
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        with suppress(FileNotFoundError):  # renaming one name of a file over another does nothing at all
            os.unlink(temporary, dir_fd=fd)

    def _temporary(self, entry: Entry, fd: int, linker: Linker) -> str:
        """Return the temporary name in the directory *fd* of what a file becomes."""
        name = temporary_name()
        with _dropped_on_error(name, fd):
            if entry.size == 0:
                write_private(name, fd, b"", executable=entry.executable)
            else:
                linker.place(self._object(entry), name, fd, executable=entry.executable)
        return name

    def _object(self, entry: Entry) -> str:
        return self._objects.path(object_name(entry))


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
def replacing(
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
            if expected is None or look(name, dir_fd=fd).stamp[:3] == expected[:3]:
                os.rename(_REPLACEMENT, name, src_dir_fd=fd, dst_dir_fd=fd)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(_REPLACEMENT, dir_fd=fd)
            if quietly:
                os.utime(fd, ns=(before, before))


def give_again(
    objects: Objects, entry: Entry, venv: str, link: str, *, expected: Stamp | None = None
) -> None:
    """Give the venv at the path *venv*, which is shared in the mode *link*, a file from its object.

    If the one there is not the one *expected* any more, it stays. Raises ``OSError``.
    """
    linker = Linker(_LADDERS["copy" if stays_private(entry, 1) else link])
    linker.spare = objects.spare
    with replacing(venv, entry.path, expected=expected) as (fd, temporary):
        linker.place(objects.path(object_name(entry)), temporary, fd, executable=entry.executable)


@contextmanager
def _dropped_on_error(temporary: str, fd: int) -> Iterator[None]:
    """Delete what was made in the directory *fd* under a temporary name, if it does not get its own."""
    try:
        yield
    except OSError:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=fd)
        raise


def _is_unchanged(item: Found, name: str, fd: int) -> bool:
    """Return whether *name* is still the file that was surveyed; what is newer is the user's, and wins."""
    try:
        return _same_version(os.stat(name, dir_fd=fd, follow_symlinks=False), item)
    except FileNotFoundError:
        return False


def _opened(item: Found, name: str, fd: int) -> int | None:
    """Return a descriptor of the file that was surveyed, None if *name* is something else by now."""
    try:
        file = os.open(name, READ, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    if _same_version(os.fstat(file), item):
        return file
    os.close(file)
    return None


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
