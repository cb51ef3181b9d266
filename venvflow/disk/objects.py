"""Objects: the bytes of files, each under the name of its SHA-256 (and its executable bit), never changed.

An object appears under its name only when it is complete and on disk. :class:`Batch` collects many: new
bytes are staged in ``tmp/``, one ``syncfs`` makes them durable, then each gets its name by ``link``, which
cannot replace anything. Objects are 0444 or 0555, and their mtime follows from their content, so that an edit
through a hard link is refused to most and visible in all. The exception are *adopted* objects: hard links to
files that somebody else owns too (uv's cache). Those keep their mode and mtime: they are not ours alone.

A change of mode or owner of a venv's file changes the object, in all venvs that have it. Right
bytes that look wrong are given back how they should look (:meth:`Objects.relabel`); they are never linked as
they are, and never lost.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from typing import Literal, NamedTuple

from venvflow.disk.descriptors import (
    CREATE,
    PATH_ONLY,
    READ,
    changeable,
    directory,
    entries_in,
    names_in,
    open_directory,
    opened,
)
from venvflow.disk.files import is_temporary_name, temporary_name
from venvflow.disk.kernel import sync_file_system
from venvflow.disk.layout import Layout, is_fan
from venvflow.disk.links import clone, copy_bytes, has_writer, name_new, write_all
from venvflow.disk.scan import Changing, Found, Stamp, lstat, read, stamp_of
from venvflow.model import Durability, Entry, Tree
from venvflow.pure.sharing import mtime_ns_of

_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

_NO_CLONE = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS}
"""Says that a file system shares no blocks, whatever the file; another answer is about this one."""

_OBJECT = re.compile(r"([0-9a-f]{62})(x?)(?:\.([1-9][0-9]*))?")
_OUT_OF_REACH = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS}


Standing = Literal["sound", "doubtful", "absent"]


class Name(NamedTuple):
    """What an object is called: SHA-256 in hex, and whether it is executable."""

    digest: str
    executable: bool


class MtimeMode(NamedTuple):
    """The mtime of a file in nanoseconds and the twelve bits of its mode, as they are or should be."""

    mtime_ns: int
    mode: int


def sealed(name: Name) -> MtimeMode:
    """Return the mtime and mode of an object that is ours alone."""
    return MtimeMode(mtime_ns_of(name.digest), 0o555 if name.executable else 0o444)


def is_promised(mode: int, promised: int) -> bool:
    """Return whether a mode is the *promised* one; without write bits it keeps the promise, too."""
    return not (mode & ~promised or promised & ~mode & ~0o222)


def file_of(name: Name) -> str:
    """Return where an object lies below ``objects/``."""
    return f"{name.digest[:2]}/{name.digest[2:]}{'x' if name.executable else ''}"


def sealed_file(entry: Entry) -> tuple[str, int, int]:
    """Return where the object of a file lies below ``objects/``, and the mtime (ns) and whole mode it has.

    That is what :func:`file_of` and :func:`sealed` say of an object that is ours alone, in one call: it is
    made for every file of a venv.
    """
    digest = entry.digest
    if entry.executable:
        return f"{digest[:2]}/{digest[2:]}x", mtime_ns_of(digest), stat.S_IFREG | 0o555
    return f"{digest[:2]}/{digest[2:]}", mtime_ns_of(digest), stat.S_IFREG | 0o444


def object_name(entry: Entry) -> Name:
    """Return the object of a file or template; templates are data, never executable themselves."""
    return Name(entry.digest, entry.executable and entry.kind == "file")


def object_names(tree: Tree) -> Iterator[Name]:
    """Yield the object of every file and template of *tree*."""
    return (object_name(entry) for entry in tree.entries if entry.digest)


class Objects:
    """The directory ``objects/`` of a store, and ``tmp/`` beside it.

    File systems limit how many names a file may have. An object that has them all gets *spares*: further
    files of the same content, called like it with ``.1``, ``.2`` … behind, which venvs are linked to.
    """

    def __init__(self, store: str, durability: Durability = "full") -> None:
        self.layout = Layout(store)
        self.root = f"{store}/objects"
        self.tmp = os.path.join(store, "tmp")
        self.quarantined = f"{store}/quarantine"
        self.durability = durability

    @cached_property
    def owners(self) -> tuple[int, int]:
        """Return the user ids whose files may be objects: who made the store, and root."""
        return os.stat(self.root).st_uid, 0

    def path(self, name: Name) -> str:
        """Return where the object lies; made of hex digits only, whatever a manifest says."""
        return f"{self.root}/{file_of(name)}"

    def name_at(self, path: str) -> Name | None:
        """Return the name of the object that lies at *path*, or None if no object can lie there."""
        found = self._at(path)
        return found[0] if found is not None and not found[1] else None

    def _at(self, path: str) -> tuple[Name, int] | None:
        """Return the object that a path is for, and as which spare, 0 for itself; None for any other path."""
        parent, _, file = path.rpartition("/")
        root, _, fan = parent.rpartition("/")
        return _named(fan, file) if root == self.root and is_fan(fan) else None

    def is_at(self, name: Name, inode: int, device: int) -> bool:
        """Return whether that inode is the object or one of its spares; raises ``OSError`` if it is gone."""
        path = self.path(name)
        st = os.lstat(path)
        for number in itertools.count(1):
            if (st.st_ino, st.st_dev) == (inode, device):
                return True
            try:
                st = os.lstat(f"{path}.{number}")
            except FileNotFoundError:
                break
        return False

    def spare(self, path: str) -> str | None:
        """Return a spare of the object (or of the spare) at *path*, made if need be; None if it is damaged.

        Raises ``OSError`` when it cannot be written.
        """
        found = self._at(path)
        if found is None:
            return None
        name, number = found
        following = f"{self.path(name)}.{number + 1}"
        if os.path.lexists(following):
            if self._is_sound_spare(name, following):
                return following
            self._put_aside(name, os.path.basename(following))
        return following if self._make_spare(name, following) else None

    def _is_sound_spare(self, name: Name, path: str) -> bool:
        """Return whether a spare is what its name says; one whose mtime is ours still is what was made."""
        st = os.lstat(path)
        if self.is_as_made(st, name, st.st_size):
            return True
        with self._fan(name) as fan:
            return _set_mtime_mode(os.path.basename(path), fan, name, sealed(name))

    def _make_spare(self, name: Name, path: str) -> bool:
        """Make a spare; return False if the object is damaged."""
        with self._sealed_copy(name) as (staged, tmp), self._fan(name) as fan:
            if staged:
                with suppress(FileExistsError):  # another run has made it just now
                    os.link(
                        staged, os.path.basename(path), src_dir_fd=tmp, dst_dir_fd=fan, follow_symlinks=False
                    )
        return bool(staged)

    @contextmanager
    def _sealed_copy(self, name: Name) -> Iterator[tuple[str, int]]:
        """Give a copy of an object in the directory ``tmp/``; its name is empty if the bytes are wrong."""
        staged = temporary_name()
        with self.layout.opened("tmp", make=True) as tmp:
            try:
                _copy(self.path(name), staged, tmp)
                if read(staged, dir_fd=tmp).digest == name.digest:
                    _seal_at(staged, tmp, name)
                    yield staged, tmp
                else:
                    yield "", tmp
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(staged, dir_fd=tmp)

    def _fan(self, name: Name) -> AbstractContextManager[int]:
        """Open the directory of an object, made if need be."""
        return self.layout.opened(f"objects/{name.digest[:2]}", make=True)

    def spares(self) -> Iterator[tuple[Name, str, os.stat_result]]:
        """Yield every spare on disk: the object that it is one of, its path, its stat."""
        for name, number, entry in self._each():
            if number:
                yield name, f"{self.path(name)}.{number}", entry.stat(follow_symlinks=False)

    def sound(self, name: Name, size: int, adopted: MtimeMode | None = None) -> bool:
        """Return whether the object is there and its stat says that nobody touched it.

        *size* is in bytes; *adopted* are the mtime and mode with which an adopted object came. An edit that
        restores size and mtime is not seen here, but by :meth:`verified`.
        """
        return self.standing(name, size, adopted) == "sound"

    def standing(self, name: Name, size: int, adopted: MtimeMode | None = None) -> Standing:
        """Return whether the object is ``absent``, ``sound`` as :meth:`sound` says, or ``doubtful``."""
        return self.look(name, size, adopted)[0]

    def look(
        self, name: Name, size: int, adopted: MtimeMode | None = None
    ) -> tuple[Standing, os.stat_result | None]:
        """Return the standing of an object, and its stat if there is one."""
        try:
            st = os.lstat(self.path(name))
        except OSError:
            return "absent", None
        return "sound" if self.is_as_made(st, name, size, adopted) else "doubtful", st

    def is_as_made(self, st: os.stat_result, name: Name, size: int, adopted: MtimeMode | None = None) -> bool:
        """Return whether a file has type, owner, size, mtime and mode of the object *name*."""
        if not stat.S_ISREG(st.st_mode) or st.st_size != size or st.st_uid not in self.owners:
            return False
        if adopted is not None and _looks_like(st, adopted):
            return True
        return _looks_like(st, sealed(name))

    def sound_stat(self, name: Name, size: int, adopted: MtimeMode | None = None) -> os.stat_result | None:
        """Return the stat of the object if it is sound as :meth:`sound` says, None if not."""
        standing, st = self.look(name, size, adopted)
        return st if standing == "sound" else None

    def verified(self, name: Name) -> bool:
        """Return whether the object has the bytes that its name says, however it looks; reads all of it."""
        try:
            return read(self.path(name)).digest == name.digest
        except (OSError, Changing):
            return False

    def relabel(
        self, name: Name, adopted: MtimeMode | None = None, *, ours: bool = False
    ) -> MtimeMode | None:
        """Set mtime and mode of the object as they should be, if its bytes are right; return the new ones.

        *adopted* are those with which it came: if only the mtime moved, it gets that back. *ours*: it was
        not adopted, as the caller knows. Otherwise its mtime decides, or that it has one name; and an mtime
        and mode that an adopted file may have are believed. What belongs to others is never changed: a copy
        takes its place, and other names of it keep it as it is; only one that even its owner cannot
        read becomes readable for him. None for wrong bytes, and where the store cannot be written.
        """
        base = os.path.basename(self.path(name))
        with suppress(OSError, Changing), self.layout.opened(f"objects/{name.digest[:2]}") as fan:
            st = os.stat(base, dir_fd=fan, follow_symlinks=False)
            now = MtimeMode(st.st_mtime_ns, stat.S_IMODE(st.st_mode))
            if adopted is not None and is_promised(now.mode, adopted.mode):
                if _set_mtime_mode(base, fan, name, now._replace(mtime_ns=adopted.mtime_ns)):
                    return adopted
            elif adopted is None and not ours and self.may_be_adopted(st, name):
                return now if self.verified(name) else None
            known = (
                st.st_nlink == 1 or now.mtime_ns == sealed(name).mtime_ns or (ours and not now.mode & 0o222)
            )
            if (known and _set_mtime_mode(base, fan, name, sealed(name))) or self._copy_in_place(name, fan):
                return sealed(name)
        return None

    def may_be_adopted(self, st: os.stat_result, name: Name) -> bool:
        """Return whether a file may look like that because it was adopted, and not because it was changed."""
        mode = stat.S_IMODE(st.st_mode)
        usual = is_adoptable(mode) and bool(mode & 0o100) == name.executable
        return usual and st.st_mtime_ns != sealed(name).mtime_ns and st.st_uid in self.owners

    def _copy_in_place(self, name: Name, fan: int) -> bool:
        """Put a copy in the place of a file that has the right bytes; return whether it has."""
        with self._sealed_copy(name) as (staged, tmp):
            if staged:
                if self.durability == "full":
                    sync_file_system(tmp)
                os.rename(staged, os.path.basename(self.path(name)), src_dir_fd=tmp, dst_dir_fd=fan)
        return bool(staged)

    def read(self, name: Name) -> bytes | None:
        """Return the bytes of a small object that is ours alone; None: gone, or they do not hash to its name.

        One whose mode keeps even its owner from reading it gets its mode back.
        """
        with suppress(OSError, Changing):
            try:
                content = read(self.path(name), keep=sys.maxsize)
            except PermissionError:
                self.relabel(name, ours=True)
                content = read(self.path(name), keep=sys.maxsize)
            return content.data if content.digest == name.digest else None
        return None

    def quarantine(self, name: Name) -> None:
        """Take a damaged object out of service, keeping its bytes to be looked at.

        In a store that cannot be written it stays where it is, and is found damaged by everyone.
        """
        self._put_aside(name, os.path.basename(self.path(name)))

    def _put_aside(self, name: Name, base: str) -> None:
        try:
            path = f"objects/{name.digest[:2]}/{base}"
            inode = os.lstat(f"{self.layout.path}/{path}").st_ino
            self.layout.put_aside(path, f"{name.digest}.{inode}")
        except OSError as error:
            if error.errno not in _OUT_OF_REACH:
                raise

    def names(self) -> Iterator[tuple[Name, os.stat_result]]:
        """Yield every object on disk with its stat; what is not called like one is left out."""
        for name, number, entry in self._each():
            if not number:
                yield name, entry.stat(follow_symlinks=False)

    def times(self) -> dict[str, int]:
        """Return the mtimes (ns) of the directories: one that got or lost an object has another."""
        with directory(self.root) as fd:
            return {each.name: each.stat(follow_symlinks=False).st_mtime_ns for each in entries_in(fd)}

    def _each(self) -> Iterator[tuple[Name, int, os.DirEntry[str]]]:
        """Yield every object and every spare, with its number."""
        for fan, fd in self.layout.fans("objects"):
            for entry in entries_in(fd):
                found = _named(fan, entry.name)
                if found is not None:
                    yield *found, entry

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Collect new objects; :meth:`Batch.publish` is up to the caller, staged files go in any case."""
        with self.layout.opened("tmp", make=True) as tmp:
            name, fd = _make_staging(tmp)
            try:
                yield Batch(self, f"{self.tmp}/{name}", fd)
            finally:
                _empty(name, fd, tmp)
                os.close(fd)

    def drop_litter(self) -> None:
        """Remove the staging directories of killed runs: files of a venv may have a second name there.

        Those of runs that are alive are locked, and stay.
        """
        with (
            suppress(OSError),
            self.layout.opened("tmp") as tmp,
        ):  # who holds the store alone removes the rest
            for name in names_in(tmp):
                if is_temporary_name(name):
                    with suppress(OSError), directory(name, dir_fd=tmp) as fd:
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        _empty(name, fd, tmp)


def _looks_like(st: os.stat_result, expected: MtimeMode) -> bool:
    return st.st_mtime_ns == expected.mtime_ns and is_promised(stat.S_IMODE(st.st_mode), expected.mode)


def is_adoptable(mode: int) -> bool:
    """Return whether a file with this mode may be shared as it is: all may read it, and not all may write.

    One that is closed to some looks like an object that somebody closed, to each run that does not know yet
    that another one has adopted it.
    """
    return mode & 0o444 == 0o444 and not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX | stat.S_IWOTH)


def _named(fan: str, file: str) -> tuple[Name, int] | None:
    """Return the object that a file is, and as which spare, 0 for itself; None for any other name."""
    found = _OBJECT.fullmatch(file)
    return (Name(fan + found[1], bool(found[2])), int(found[3] or 0)) if found is not None else None


def _set_mtime_mode(base: str, fan: int, name: Name, expected: MtimeMode) -> bool:
    """Set mtime and mode of the file *base* in the directory *fan* if it is ours and has the right bytes.

    Return whether it is, and has. Raises ``OSError``.
    """
    with changeable(base, fan) as (fd, through):
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode) or st.st_uid != os.geteuid():
            return False
        if stat.S_IMODE(st.st_mode) != expected.mode:
            os.chmod(through, expected.mode)
        # Before it is read: an edit that comes meanwhile moves the time again.
        os.utime(through, ns=(expected.mtime_ns, expected.mtime_ns))
        right = read(base, dir_fd=fan).digest == name.digest
        if not right:
            os.utime(through)
        return right


def _copy(source: str, name: str, fd: int) -> None:
    """Copy a file; one that we own and that even we may not read becomes readable. Raises ``OSError``."""
    try:
        reading = os.open(source, READ)
    except PermissionError:
        with opened(source, PATH_ONLY) as closed:
            st = os.fstat(closed)
            if stat.S_ISREG(st.st_mode):
                os.chmod(f"/proc/self/fd/{closed}", stat.S_IMODE(st.st_mode) | stat.S_IRUSR)
        reading = os.open(source, READ)
    try:
        with opened(name, CREATE, dir_fd=fd) as writing:
            _transfer(reading, writing)
    finally:
        os.close(reading)


def _make_staging(tmp: int) -> tuple[str, int]:
    """Return the name of a new directory in *tmp*, and the descriptor that locks it while it is open."""
    while True:
        name = temporary_name()
        os.mkdir(name, 0o700, dir_fd=tmp)
        with suppress(FileNotFoundError):  # taken for litter before it was locked
            fd = open_directory(name, dir_fd=tmp)
            with suppress(OSError):  # a file system without locks: then nobody takes it for litter either
                fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                os.stat(name, dir_fd=tmp, follow_symlinks=False)
            except FileNotFoundError:
                os.close(fd)
            else:
                return name, fd


def _empty(name: str, fd: int, tmp: int) -> None:
    """Remove the staging directory *name*; what a kill leaves is removed by the next squish or trim."""
    with suppress(OSError):
        for file in names_in(fd):
            with suppress(OSError):
                os.unlink(file, dir_fd=fd)
        os.rmdir(name, dir_fd=tmp)


class Batch:
    """Objects on their way into the store: first staged, all at once made durable, then published.

    *added* maps the names that this batch publishes to their sizes in bytes, *adopted* those that are shared
    with others to the mtime and mode that they keep, *origins* to the file that an object was copied from,
    *own* to the file that is the object itself. *staging* is the path of a directory to write files into,
    *fd* its descriptor.
    """

    def __init__(self, objects: Objects, staging: str, fd: int) -> None:
        self._objects = objects
        self.staging = staging
        self._fd = fd
        self._staged: dict[Name, str] = {}  # by their names in the staging directory
        self._records: dict[str, str] = {}
        self._has_new_names = False
        self._clones = True
        self._count = 0
        self.added: dict[Name, int] = {}
        self.adopted: dict[Name, MtimeMode] = {}
        self.origins: dict[Name, str] = {}
        self.own: dict[Name, str] = {}
        self._looks: dict[Name, tuple[Found, bool]] = {}  # of our own files; and whether we built them

    def __contains__(self, name: Name) -> bool:
        return name in self.added

    def add_bytes(self, data: bytes, *, executable: bool = False) -> Name:
        """Stage *data* unless the store has it, and return its name."""
        name = Name(hashlib.sha256(data).hexdigest(), executable)
        if name not in self.added and not self._objects.sound(name, len(data)):
            with self._new_file() as (staged, fd):
                write_all(fd, data)
                seal(fd, name)
            self._stage(name, staged, len(data))
        return name

    def add_probe(self) -> str:
        """Return the path of a file that is there to be linked to, and becomes nothing."""
        with self._new_file() as (name, _):
            return f"{self.staging}/{name}"

    def add_copy(self, source: str, name: Name, stamp: Stamp) -> None:
        """Stage a copy (a reflink where possible) of the file *source*, which hashed to *name* with *stamp*.

        Raises :class:`venvflow.disk.scan.Changing` when the file is not the one that was hashed any more. One
        whose stamp moved is hashed again: another program that links to it moves its ctime, too.
        """
        staged, reading = self._new_name(), os.open(source, READ)
        try:
            writing = os.open(staged, CREATE, 0o600, dir_fd=self._fd)
            try:
                self._copy(reading, writing, stamp.size)
                now = stamp_of(os.stat(source, follow_symlinks=False))
                if now != stamp and read(staged, dir_fd=self._fd).digest != name.digest:
                    raise Changing(source)
                seal(writing, name)
            finally:
                os.close(writing)
        finally:
            os.close(reading)
        self._stage(name, staged, stamp.size)
        self.origins[name] = source

    def _copy(self, reading: int, writing: int, size: int) -> None:
        """Copy a file of *size* bytes, as a reflink where possible; where never, that is not tried again."""
        if self._clones:
            try:
                clone(reading, writing)
            except OSError as error:
                self._clones = error.errno not in _NO_CLONE
            else:
                return
        copy_bytes(reading, writing, size)

    def add_staged(self, path: str, name: Name, size: int) -> None:
        """Take over a file that was written into :attr:`staging` and hashed to *name*."""
        staged = os.path.basename(path)
        _seal_at(staged, self._fd, name)
        self._stage(name, staged, size)

    def add_sealed(self, staged: str, name: Name, size: int) -> None:
        """Take over the file *staged* in :attr:`staging`, hashed to *name* and went through :func:`seal`."""
        self._stage(name, staged, size)

    def add_own(self, source: str, name: Name, found: Found, *, built_here: bool = False) -> None:
        """Make the file *source* itself the object: it becomes read-only and gets the mtime of its content.

        Only for files that have no other name and that nobody can be writing to: the kernel answers that, and
        where it cannot tell, only what *built_here* our builder has just made will do. Any other becomes
        an object by copy, and stays as it is. Nothing of it changes before :meth:`publish`.
        """
        if self._add_link(source, name, found, most_links=2) is not None:
            self.own[name] = source
            self._looks[name] = found, built_here

    def adopt(self, source: str, name: Name, found: Found) -> None:
        """Make *source* an object by hard link although others share its inode: nothing of it is changed.

        One that others may change at will, or may not read, becomes an object by copy.
        """
        if not is_adoptable(found.mode) or os.lstat(source).st_uid not in self._objects.owners:
            self.add_copy(source, name, found.stamp)
        elif self._add_link(source, name, found) is not None:
            self.adopted[name] = MtimeMode(found.stamp.mtime_ns, stat.S_IMODE(found.mode))

    def _add_link(self, source: str, name: Name, found: Found, most_links: int | None = None) -> str | None:
        """Stage *source* by hard link and return the link; None where a copy had to be made instead."""
        link = self._new_name()
        try:
            os.link(source, link, dst_dir_fd=self._fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            self.add_copy(source, name, found.stamp)
            return None
        staged = lstat(link, dir_fd=self._fd)
        if staged.stamp[:3] != found.stamp[:3]:  # all but the ctime, which linking moves
            raise Changing(source)
        if most_links is not None and staged.links > most_links:  # somebody else has it, too
            os.unlink(link, dir_fd=self._fd)
            self.add_copy(source, name, found.stamp)
            return None
        self._stage(name, link, found.stamp.size)
        return link

    def add_record(self, path: str, data: bytes) -> None:
        """Stage a file that refers to objects; it gets *path* in the store when all objects have theirs."""
        with self._new_file() as (staged, fd):
            write_all(fd, data)
            os.fchmod(fd, 0o444)
        self._records[path] = staged

    def publish(self) -> None:
        """Make everything durable, then give each object its name, then each record.

        Raises ``OSError`` (space, permission), :class:`venvflow.disk.scan.Changing` as :meth:`add_copy` does.
        What was named until then is complete and stays; files of the venv get back what they were.
        """
        self.publish_objects()
        for final, staged in self._records.items():
            layout = self._objects.layout
            with layout.named_in_errors(final), layout.opened(os.path.dirname(final), make=True) as into:
                layout.rename_into(staged, self._fd, final, into)
        self._records.clear()
        if self._has_new_names:
            self._sync()
        self._has_new_names = False

    def publish_objects(self) -> None:
        """Do so with what was added until now, without the records. Raises as :meth:`publish` does."""
        if not (self._staged or self._records):
            return
        try:
            for name in [*self._looks]:
                self._take_over(name)
            self._sync()
            self._name_all()
        finally:
            for name in [*self._looks]:
                self._give_back(name)
        self._has_new_names = True
        self._staged.clear()

    def _name_all(self) -> None:
        fans: dict[str, list[Name]] = {}
        for name in self._staged:
            fans.setdefault(name.digest[:2], []).append(name)
        for fan, names in fans.items():
            below, layout = f"objects/{fan}", self._objects.layout
            with layout.named_in_errors(below), layout.opened(below, make=True) as into:
                for name in names:
                    self._name(name, into)

    def _name(self, name: Name, into: int) -> None:
        if self._is_named(name, into):
            self._looks.pop(name, None)
        else:
            self._give_back(name)
            self._yield_to_first(name)
        with suppress(FileNotFoundError):  # where there are no links, it was moved
            os.unlink(self._staged[name], dir_fd=self._fd)

    def _is_named(self, name: Name, into: int) -> bool:
        """Give a staged file the object's name; return False if a sound file has it, which stays."""
        staged, final = self._staged[name], os.path.basename(self._objects.path(name))
        try:
            name_new(staged, final, source_fd=self._fd, fd=into)
        except FileExistsError:
            if self._objects.relabel(name) is not None:
                return False
            self._objects.quarantine(name)
            name_new(staged, final, source_fd=self._fd, fd=into)
        return True

    def _take_over(self, name: Name) -> None:
        """Make a file of the venv look like an object, if it is still ours alone; else copy it after all."""
        staged, (found, built_here) = self._staged[name], self._looks[name]
        with opened(staged, READ, dir_fd=self._fd) as fd:
            if _is_ours_alone(fd, found) and has_writer(fd) in ({False, None} if built_here else {False}):
                seal(fd, name)
                return
        os.unlink(staged, dir_fd=self._fd)
        del self._looks[name]
        self.add_copy(self.own.pop(name), name, found.stamp)

    def _give_back(self, name: Name) -> None:
        """Give a file of the venv that became no object its mtime and mode back."""
        found, _ = self._looks.pop(name, (None, False))
        if found is not None:
            with suppress(OSError), opened(self._staged[name], READ, dir_fd=self._fd) as fd:
                os.fchmod(fd, found.mode)
                os.utime(fd, ns=(found.stamp.mtime_ns, found.stamp.mtime_ns))

    def _yield_to_first(self, name: Name) -> None:
        """Note what the object is that was there first: adopted if its mtime or mode is not ours."""
        found = self._objects.relabel(name)
        self.adopted.pop(name, None)
        self.own.pop(name, None)
        self.origins.pop(name, None)  # equal by hash; relink compares the bytes before it replaces a file
        if found is not None and found != sealed(name):
            self.adopted[name] = found

    def _sync(self) -> None:
        if self._objects.durability == "full":
            with self._objects.layout.opened("objects", make=True) as fd:
                sync_file_system(fd)

    def _new_name(self) -> str:
        self._count += 1
        return str(self._count)

    @contextmanager
    def _new_file(self) -> Iterator[tuple[str, int]]:
        name = self._new_name()
        with opened(name, CREATE, dir_fd=self._fd) as fd:
            yield name, fd

    def _stage(self, name: Name, staged: str, size: int) -> None:
        self._staged[name] = staged
        self.added[name] = size


def seal(fd: int, name: Name) -> None:
    """Give an open file, which has the bytes of an object, its mode and mtime. Raises ``OSError``."""
    expected = sealed(name)
    os.fchmod(fd, expected.mode)
    os.utime(fd, ns=(expected.mtime_ns, expected.mtime_ns))


def _seal_at(file: str, fd: int, name: Name) -> None:
    with opened(file, READ, dir_fd=fd) as opened_file:
        seal(opened_file, name)


def _is_ours_alone(fd: int, found: Found) -> bool:
    """Return whether an open file is the one that was read, our user's own, and has two names, both ours."""
    st = os.fstat(fd)
    return stamp_of(st)[:3] == found.stamp[:3] and st.st_uid == os.geteuid() and st.st_nlink == 2


def _transfer(reading: int, writing: int) -> None:
    try:
        clone(reading, writing)
    except OSError:
        copy_bytes(reading, writing)
