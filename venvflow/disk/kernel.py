"""System calls that only Linux has, through the C library: swap two names, sync one file system."""

from __future__ import annotations

import errno
import os

UNSUPPORTED = {
    errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS,
}  # fmt: skip
"""What file systems answer when they cannot link like that at all."""

_NO_REPLACE, _EXCHANGE = 1, 2
"""Linux's flags ``RENAME_NOREPLACE`` and ``RENAME_EXCHANGE``."""


def move_new(source: str, name: str, *, source_fd: int, fd: int) -> bool:
    """Rename *source* to *name*, which must be free, in one step; return False where that cannot be done."""
    return _rename(source, name, _NO_REPLACE, source_fd, fd)


def exchange(first: str, second: str, *, first_fd: int, second_fd: int) -> bool:
    """Swap two names in one step; return False where that cannot be done."""
    return _rename(first, second, _EXCHANGE, first_fd, second_fd)


def _rename(old: str, new: str, flag: int, old_fd: int, new_fd: int) -> bool:
    code = _call("renameat2", old_fd, os.fsencode(old), new_fd, os.fsencode(new), flag)
    if code is None or code in UNSUPPORTED:
        return False
    if code:
        raise OSError(code, os.strerror(code), new)
    return True


def sync_file_system(fd: int) -> None:
    """Write everything on the file system of *fd* to disk, in one call: far cheaper than one per file.

    Where there is no ``syncfs`` (macOS, some sandboxes), all file systems are synced.
    """
    code = _call("syncfs", fd)
    if code is None or code in UNSUPPORTED:
        os.sync()
    elif code:
        raise OSError(code, os.strerror(code))


def _call(function: str, *arguments: int | bytes) -> int | None:
    """Call a function of the C library; return 0 or its errno, None where the library does not have it."""
    import ctypes  # noqa: PLC0415 - a run with nothing to do calls none

    library = ctypes.CDLL(None, use_errno=True)
    called = getattr(library, function, None)
    if called is None:
        return None
    return ctypes.get_errno() if called(*arguments) != 0 else 0
