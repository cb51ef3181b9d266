"""A directory with all that is below it, reached by descriptors from its root and never through a link.

A store is such a directory. A symlink that somebody puts into it could make us write or delete elsewhere. So
every directory on the way is opened without following links, every time: a link that appears later leads
nowhere either. Only the root itself is a path; the caller has resolved it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from venvflow.disk.descriptors import CREATE, DIRECTORY, names_in, open_directory, opened, reach
from venvflow.disk.files import temporary_name
from venvflow.disk.links import name_new, write_all
from venvflow.errors import EnvironmentFailure, Refused, VenvflowError, shown

_DIRECTORY_MODE, _FILE_MODE = 0o755, 0o644
"""What is below the root, whatever the umask: it is the root's mode that lets others in or keeps them out."""

_NO_DIRECTORY = {errno.ENOTDIR, errno.ELOOP}
_FAN = re.compile(r"[0-9a-f]{2}")
_IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST}


class Layout:
    """The directory at *path*, which is absolute and resolved. All other paths are relative to it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    @property
    def fd(self) -> int:
        """Return a descriptor of the root, open for as long as this object lives; raises ``OSError``."""
        if self._fd < 0:
            self._fd = open_directory(self.path)
            weakref.finalize(self, os.close, self._fd)
        return self._fd

    @contextmanager
    def opened(self, below: str, *, make: bool = False) -> Iterator[int]:
        """Open the directory *below* the root for the length of a ``with`` block, made if *make* says so.

        Raises Refused where there is a symlink, EnvironmentFailure where there is a file, and ``OSError``
        (``FileNotFoundError`` if it is not there).
        """
        try:
            fd = reach(below, self.fd, make=_make_part if make else None)
        except OSError as error:
            path = f"{self.path}/{error.filename}"
            if error.errno in _NO_DIRECTORY:
                raise in_the_way(path) from error
            raise OSError(error.errno, error.strerror, path) from error
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def named_in_errors(self, path: str) -> Iterator[None]:
        """Let errors of the block name *path*; by themselves they name only what is in an open directory."""
        try:
            yield
        except OSError as error:
            if os.path.isabs(os.fsdecode(error.filename or "")):
                raise
            raise OSError(error.errno, error.strerror, f"{self.path}/{path}") from error

    def write(self, path: str, data: bytes, *, sync: bool = False, replace: bool = True) -> None:
        """Write *data* to *path*, whole or not at all; what is in the way and no file is put aside.

        Until it is whole it lies in ``tmp/``. With *sync* it and its name are on disk. Raises
        ``FileExistsError`` when there is something of that name and *replace* is false, else as
        :meth:`opened` does.
        """
        parent, _, name = path.rpartition("/")
        with (
            self.named_in_errors(path),
            self.opened("tmp", make=True) as tmp,
            self.opened(parent, make=True) as into,
        ):
            temporary = temporary_name()
            try:
                _write_new(temporary, tmp, data, sync=sync)
                if not replace:
                    name_new(temporary, name, source_fd=tmp, fd=into)
                else:
                    self.rename_into(temporary, tmp, path, into)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=tmp)
            if sync:
                os.fsync(into)

    def rename_into(self, source: str, fd: int, path: str, into: int) -> None:
        """Give the file *source* in *fd* its name in *into*, the parent of *path*.

        A directory of that name is put aside.
        """
        name = path.rpartition("/")[2]
        try:
            os.rename(source, name, src_dir_fd=fd, dst_dir_fd=into)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            self.put_aside(path)
            os.rename(source, name, src_dir_fd=fd, dst_dir_fd=into)

    def put_aside(self, path: str, name: str = "") -> None:
        """Move whatever is at *path* into ``quarantine/``, called *name*, or as before with its inode.

        Raises ``OSError``, as :meth:`opened` does.
        """
        parent, _, base = path.rpartition("/")
        with self.opened(parent) as fd:
            inode = os.stat(base, dir_fd=fd, follow_symlinks=False).st_ino
            numbered = f"{name or base}.{inode}"
            with self.opened("quarantine", make=True) as aside:
                try:
                    os.rename(base, name or numbered, src_dir_fd=fd, dst_dir_fd=aside)
                except OSError as error:
                    if error.errno not in _IN_THE_WAY:
                        raise
                    os.rename(base, numbered, src_dir_fd=fd, dst_dir_fd=aside)

    def unlink(self, path: str) -> None:
        """Delete the file or link at *path*; raises as :meth:`opened` does."""
        parent, _, name = path.rpartition("/")
        with self.named_in_errors(path), self.opened(parent) as fd:
            os.unlink(name, dir_fd=fd)

    def fans(self, below: str) -> Iterator[tuple[str, int]]:
        """Yield the directories in which files are fanned out *below* the root, by name, each one open."""
        with self.opened(below) as fd:
            for fan in sorted(names_in(fd)):
                if is_fan(fan):
                    with self.opened(f"{below}/{fan}") as child:
                        yield fan, child


def is_fan(name: str) -> bool:
    """Return whether files are fanned out into directories called like that: two digits of a hash."""
    return _FAN.fullmatch(name) is not None


def _make_part(name: str, fd: int) -> None:
    os.mkdir(name, 0o700, dir_fd=fd)
    with opened(name, DIRECTORY, dir_fd=fd) as made:
        os.fchmod(made, _DIRECTORY_MODE)


def _write_new(name: str, fd: int, data: bytes, *, sync: bool) -> None:
    with opened(name, CREATE, dir_fd=fd) as file:
        write_all(file, data)
        os.fchmod(file, _FILE_MODE)
        if sync:
            os.fsync(file)


def in_the_way(path: str) -> VenvflowError:
    """Return the error to raise for what is at *path*, where a part of the store belongs."""
    with suppress(OSError):
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return Refused(
                "a part of the store is a symbolic link",
                where=shown(path),
                state="Nothing was read, written or deleted behind it.",
                hint="Parts of a store cannot lie elsewhere, because files are linked between them: move the "
                "whole store, then mount it there (mount --bind), or set store.path (or VENVFLOW_STORE).",
            )
    return EnvironmentFailure(
        "there is something else where a part of the store belongs",
        where=shown(path),
        state="It was left as it is.",
        hint="Move it away, then run again.",
    )
