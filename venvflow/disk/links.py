"""Gives a venv a file of the store: by reflink, hard link, copy or symlink.

The ladder of modes is tried from the first on; a mode that this pair of file systems does not know is not
tried again. Nothing here ever replaces a file: names are new, in directories that only we write to, or
temporary names that the caller renames.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from venvflow.disk import kernel
from venvflow.disk.descriptors import CREATE, READ, exists, opened
from venvflow.disk.kernel import UNSUPPORTED
from venvflow.disk.scan import BLOCK
from venvflow.model import LinkMode
from venvflow.pure.sharing import mtime_ns_of

_FICLONE = 0x40049409
"""Linux's ioctl that makes a file share the blocks of another (btrfs, xfs, bcachefs)."""

_FIDEDUPERANGE = 0xC0189436
"""Linux's ioctl that compares two ranges of bytes and, if they are equal, lets them share their blocks."""

_RANGE, _TARGET = struct.Struct("=QQHHI"), struct.Struct("=qQQiI")
_DIFFERS = 1
_AT_ONCE = 16 << 20
"""Bytes that are compared in one call: some file systems do no more."""


class Linker:
    """Puts objects into one venv; *modes* is the ladder, *used* counts files by the mode that worked.

    *spare*, if set, gives another file of the same content for one that has all the names that its file
    system allows, or None.
    """

    def __init__(self, modes: Sequence[LinkMode]) -> None:
        self._ladder: list[LinkMode] = [*modes] if "copy" in modes else [*modes, "copy"]
        self.used: dict[LinkMode, int] = {}
        self.spare: Callable[[str], str | None] = _no_spare
        self._spares: dict[str, str] = {}

    @property
    def mode(self) -> LinkMode:
        """Return the mode that is tried first for the next file."""
        return self._ladder[0]

    def place(self, source: str, name: str, dir_fd: int, *, executable: bool, mtime_ns: int) -> LinkMode:
        """Make *name* in *dir_fd* the file at *source*, and return how; a copy gets the time *mtime_ns*.

        Raises ``OSError`` when not even a copy can be made (``FileNotFoundError`` when *source* is gone,
        ``FileExistsError`` when *name* is taken).
        """
        for mode in (*self._ladder,):
            try:
                self._make(mode, source, name, dir_fd, executable=executable, mtime_ns=mtime_ns)
            except OSError as error:
                if mode == "copy" or error.errno not in {*UNSUPPORTED, errno.EMLINK}:
                    raise
                if error.errno != errno.EMLINK:  # too many links is about this object only
                    self._ladder.remove(mode)
            else:
                self.count(mode)
                return mode
        raise AssertionError("a ladder always ends with copy")

    def _make(
        self, mode: LinkMode, source: str, name: str, dir_fd: int, *, executable: bool, mtime_ns: int
    ) -> None:
        if mode == "hardlink":
            self._hardlink(source, name, dir_fd)
        elif mode == "symlink":
            os.stat(source)  # a dangling link would only be found out by a failing import
            os.symlink(source, name, dir_fd=dir_fd)
        else:
            private = _private(name, dir_fd, executable=executable, mtime_ns=mtime_ns)
            with opened(source, READ) as reading, private as writing:
                (clone if mode == "reflink" else copy_bytes)(reading, writing)

    def link_new(self, source: str, name: str, dir_fd: int) -> bool:
        """Make *name* a hard link to *source* in one step, if that is the mode and the name is free.

        Return whether it is one now; if not, :meth:`place` and a rename will do.
        """
        if self.mode != "hardlink":
            return False
        try:
            self._hardlink(source, name, dir_fd)
        except OSError as error:
            if error.errno not in {*UNSUPPORTED, errno.EMLINK, errno.EEXIST}:
                raise
            return False
        self.count("hardlink")
        return True

    def count(self, mode: LinkMode, number: int = 1) -> None:
        """Count one more file that is shared in this mode, or a *number* of them."""
        self.used[mode] = self.used.get(mode, 0) + number

    def _hardlink(self, source: str, name: str, dir_fd: int) -> None:
        """Link to *source*, or to a spare of it when it can have no more names."""
        chosen: str | None = self._spares.get(source, source)
        while chosen is not None:
            try:
                os.link(chosen, name, dst_dir_fd=dir_fd, follow_symlinks=False)
            except OSError as error:
                # A fresh spare that can have no second name: there are no links here at all.
                if error.errno != errno.EMLINK or (chosen != source and os.lstat(chosen).st_nlink == 1):
                    raise
                full, chosen = error, self.spare(chosen)
            else:
                if chosen != source:
                    self._spares[source] = chosen
                return
        raise full


def _no_spare(_: str) -> str | None:
    return None


def create(name: str, dir_fd: int | None, *, executable: bool) -> int:
    """Return a descriptor for a new private file *name*, 0644 or 0755 less the umask."""
    return os.open(name, CREATE, 0o755 if executable else 0o644, dir_fd=dir_fd)


@contextmanager
def _private(name: str, dir_fd: int, *, executable: bool, mtime_ns: int) -> Iterator[int]:
    """Give a new private file, which has the time *mtime_ns* at the end of the block or is gone."""
    fd = create(name, dir_fd, executable=executable)
    try:
        yield fd
        os.utime(fd, ns=(mtime_ns, mtime_ns))
    except OSError:
        os.unlink(name, dir_fd=dir_fd)
        raise
    finally:
        os.close(fd)


def write_private(name: str, dir_fd: int, data: bytes, *, executable: bool, mtime_ns: int = 0) -> None:
    """Write a new private file with the mtime *mtime_ns*, 0 for that of its content."""
    mtime_ns = mtime_ns or mtime_ns_of(hashlib.sha256(data).hexdigest())
    with _private(name, dir_fd, executable=executable, mtime_ns=mtime_ns) as fd:
        write_all(fd, data)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of *data*; ``os.write`` may stop early, at a signal or after 2 GiB."""
    done = os.write(fd, data) if data else 0
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])


def clone(reading: int, writing: int) -> None:
    """Share all blocks of one open file with another; raises ``OSError`` where that is not possible."""
    fcntl.ioctl(writing, _FICLONE, reading)


def share_blocks(source: int, target: int, size: int) -> bool:
    """Let two open files share their blocks if all their *size* bytes are equal; return whether they are.

    The kernel compares while it keeps writers out of both. Neither file gets another inode, mode or time.
    Raises ``OSError`` where the file system cannot do that.
    """
    done = 0
    while done < size:
        length = min(size - done, _AT_ONCE)
        request = bytearray(_RANGE.pack(done, length, 1, 0, 0) + _TARGET.pack(target, done, 0, 0, 0))
        fcntl.ioctl(source, _FIDEDUPERANGE, request)
        _, _, shared, status, _ = _TARGET.unpack_from(request, _RANGE.size)
        if status == _DIFFERS:
            return False
        if status < 0 or not shared:
            code = -status or errno.EINVAL
            raise OSError(code, os.strerror(code))
        done += shared
    return True


def is_unsupported(error: OSError) -> bool:
    """Return whether a file system says by *error* that it cannot link like that at all."""
    return error.errno in UNSUPPORTED


def copy_bytes(reading: int, writing: int, size: int = -1) -> None:
    """Copy all bytes of an open file to an empty one, in the kernel where it can; holes stay holes.

    One that had *size* bytes just now is small work then: nobody asks whether it has more by now.
    """
    if 0 <= size < _WORTH_HOLES:
        _copy_all(reading, writing, size)
        return
    found = os.fstat(reading)
    if found.st_size >= _WORTH_HOLES and found.st_blocks * BLOCK < found.st_size and hasattr(os, "SEEK_DATA"):
        _copy_data(reading, writing, found.st_size)
    else:
        _copy_all(reading, writing)


_WORTH_HOLES = 1 << 16
"""Bytes of the smallest file whose holes are looked for: others may lie in their inode, without a block."""


def _copy_data(reading: int, writing: int, size: int) -> None:
    """Copy what is between the holes of a file of *size* bytes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(reading, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # there is nothing but a hole
                raise
            break
        end = os.lseek(reading, start, os.SEEK_HOLE)
        os.lseek(reading, start, os.SEEK_SET)
        os.lseek(writing, start, os.SEEK_SET)
        while start < end and (data := os.read(reading, min(end - start, 1 << 20))):
            write_all(writing, data)
            start += len(data)
    os.ftruncate(writing, size)


def _copy_all(reading: int, writing: int, size: int = -1) -> None:
    """Copy *size* bytes, -1 for all that there are."""
    sender, left = getattr(os, "copy_file_range", None), size
    while sender is not None and left:
        try:
            count = sender(reading, writing, left if left > 0 else 1 << 30)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            sender = None
        else:
            if not count:
                break
            left -= count
    # Reads to the end whatever happened above: some file systems copy nothing and say so with a 0.
    while left and (data := os.read(reading, min(left, 1 << 20) if left > 0 else 1 << 20)):
        write_all(writing, data)
        left -= len(data)


def has_writer(fd: int) -> bool | None:
    """Return whether any process has the file, open for reading as *fd*, open or mapped for writing.

    The kernel grants a lease only if none has; a process that opens it for writing later waits until *fd* is
    closed. None where that cannot be found out: on file systems without leases, or not on Linux.
    """
    set_signal = getattr(fcntl, "F_SETSIG", None)
    if set_signal is None:
        return None
    try:
        fcntl.fcntl(fd, set_signal, signal.SIGURG)  # the usual one, SIGIO, would end this process
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False


def name_new(source: str, name: str, *, source_fd: int, fd: int) -> None:
    """Give the finished file *source* the name *name*, which must be free; *source* may be gone afterwards.

    Where the file system has no hard links it is moved, in one step where the kernel can; elsewhere a file
    that gets that name in the same instant is replaced. Raises ``FileExistsError``, ``OSError``.
    """
    try:
        os.link(source, name, src_dir_fd=source_fd, dst_dir_fd=fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        if not kernel.move_new(source, name, source_fd=source_fd, fd=fd):
            if exists(name, fd):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error
            os.rename(source, name, src_dir_fd=source_fd, dst_dir_fd=fd)


def prevailing(modes: Mapping[LinkMode, int]) -> str:
    """Return what a venv needs of the store: symlink if it has any, else the mode that is used most."""
    return "symlink" if "symlink" in modes else max(modes, key=lambda mode: modes[mode], default="")
