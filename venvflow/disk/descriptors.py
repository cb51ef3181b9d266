"""Reaches files and directories by descriptors: the flags to open them with, and the ways to a directory.

No function here follows a symlink unless its name says so: a link that somebody puts in the place of a
directory, at any moment, leads nowhere. None waits for the other end of a FIFO either.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""To be joined with what a file is opened for: a FIFO or a terminal in its place changes nothing for us."""

READ = os.O_RDONLY | SAFE
READ_THROUGH_LINK = READ & ~os.O_NOFOLLOW
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
DIRECTORY_THROUGH_LINK = DIRECTORY & ~os.O_NOFOLLOW
PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY) | SAFE
"""Needs no permission to read what is opened: to look at it, or to change its mode."""

PASSING = PATH_ONLY | os.O_DIRECTORY
"""Opens a directory on the way to another one."""


@contextmanager
def opened(path: str, flags: int, mode: int = 0o600, *, dir_fd: int | None = None) -> Iterator[int]:
    """Open a file for the length of a ``with`` block; *mode* is for one that is made. Raises ``OSError``."""
    fd = os.open(path, flags, mode, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def changeable(name: str, fd: int) -> Iterator[tuple[int, int | str]]:
    """Open a file in the directory *fd* for the length of a ``with`` block, to change its mode or time.

    Give its descriptor and what ``os.chmod`` and ``os.utime`` take for it, which follow links. It may be
    a file whose mode does not let even us read it. Raises ``OSError``.
    """
    through: int | str
    try:
        through = file = os.open(name, READ, dir_fd=fd)
    except PermissionError:
        file = os.open(name, PATH_ONLY, dir_fd=fd)
        through = f"/proc/self/fd/{file}"
    try:
        yield file, through
    finally:
        os.close(file)


def mode_at(name: str, fd: int) -> int | None:
    """Return the type and mode of what has that *name* in the directory *fd*, or None if nothing has."""
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def exists(name: str, fd: int) -> bool:
    """Return whether the directory *fd* has that name, whatever the name means."""
    return mode_at(name, fd) is not None


# --------------------------------------------------------------------------- whole paths in errors


@contextmanager
def whole_paths(fd: int) -> Iterator[None]:
    """Let errors that leave a ``with`` block have whole paths, of what lies in the directory *fd*."""
    try:
        yield
    except OSError as error:
        complete(error, fd)
        raise


def complete(error: OSError, fd: int) -> None:
    """Put the path of the directory *fd* before the names in *error*, if that is where they are."""
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # no /proc
        return
    relative = [each for each in ("filename", "filename2") if _is_relative(getattr(error, each))]
    for which in relative:
        whole = os.path.join(path, os.fsdecode(getattr(error, which)))
        # Of two names, as rename has them, one may lie in another directory.
        if len(relative) == 1 or os.path.lexists(whole):
            setattr(error, which, whole)


def _is_relative(name: object) -> bool:
    return isinstance(name, str | bytes) and bool(name) and not os.path.isabs(name)


# --------------------------------------------------------------------------- directories


def open_directory(path: str | bytes, *, dir_fd: int | None = None) -> int:
    """Return a descriptor of a directory; raises ``OSError`` if *path* is a symlink or no directory."""
    return os.open(path, DIRECTORY, dir_fd=dir_fd)


@contextmanager
def directory(path: str, *, dir_fd: int | None = None) -> Iterator[int]:
    """Open a directory for the length of a ``with`` block; errors that leave it have whole paths."""
    with opened(path, DIRECTORY, dir_fd=dir_fd) as fd, whole_paths(fd):
        yield fd


def names_in(fd: int) -> list[str]:
    """Return the names that are in an open directory now.

    Some file systems (btrfs) show through a descriptor what was there when it was opened, or last rewound.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    return os.listdir(fd)


def entries_in(fd: int) -> list[os.DirEntry[str]]:
    """Return the entries that are in an open directory now, as :func:`names_in` does the names."""
    os.lseek(fd, 0, os.SEEK_SET)
    with os.scandir(fd) as entries:
        return list(entries)


def reach(path: str, fd: int | None = None, *, make: Callable[[str, int], object] | None = None) -> int:
    """Return a descriptor of the directory *path*, below the directory *fd* or from the root on.

    *path* has neither ``.`` nor ``..``. No directory on the way has to be readable. What is missing is made
    by *make*, called with its name and a descriptor of the directory that it belongs in. Raises ``OSError``
    with the path up to where it failed.
    """
    below = os.open("/", PASSING) if fd is None else os.dup(fd)
    reached = [] if fd is not None else [""]
    for name in [*filter(None, path.split("/")), "."]:
        reached += [name] if name != "." else []
        try:
            above, below = below, _entered(name, below, DIRECTORY if name == "." else PASSING, make)
        except OSError as error:
            os.close(below)
            raise OSError(error.errno, os.strerror(error.errno or 0), "/".join(reached)) from error
        os.close(above)
    return below


def _entered(name: str, fd: int, flags: int, make: Callable[[str, int], object] | None) -> int:
    try:
        return os.open(name, flags, dir_fd=fd)
    except FileNotFoundError:
        if make is None:
            raise
    with suppress(FileExistsError):  # whatever it is by now, opening it will tell
        make(name, fd)
    return os.open(name, flags, dir_fd=fd)


class Directories:
    """The directories below *root*, each kept open for a while: for work that goes through many of them.

    What is missing is made, and *made* is called with its path before that. Without *make*, what is missing
    is an error. *new*: most is missing, so it is made before it is looked for. Use it in a ``with``
    statement.
    """

    _MOST = 64

    def __init__(
        self,
        root: int,
        made: Callable[[str], None] = lambda _: None,
        *,
        make: bool = True,
        new: bool = False,
    ) -> None:
        self._root = os.dup(root)
        self._made = made
        self._make = make
        self._new = new
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Directories:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all descriptors."""
        self.close()

    def open(self, path: str) -> int:
        """Return a descriptor of the directory *path*, valid until the next call. Raises ``OSError``."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        parent, name = self.parent(path)

        def make(name: str, parent: int) -> None:
            self._made(path)
            os.mkdir(name, 0o755, dir_fd=parent)

        with whole_paths(parent):
            if self._new:
                with suppress(FileExistsError):
                    make(name, parent)
            fd = _entered(name, parent, DIRECTORY, make if self._make else None)
        self._open[path] = fd
        if len(self._open) > self._MOST:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def parent(self, path: str) -> tuple[int, str]:
        """Return what :meth:`open` does for the directory that *path* lies in, and its name there."""
        above, _, name = path.rpartition("/")
        return self.open(above), name

    def close(self) -> None:
        """Close all descriptors."""
        for fd in (self._root, *self._open.values()):
            os.close(fd)
        self._open.clear()
