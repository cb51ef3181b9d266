"""What the kernel tells, and what only Linux can: swap names, sync a file system, times of birth."""

from __future__ import annotations

import errno
import os
import struct

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


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sync_file_system(fd: int) -> None:
    """Write everything on the file system of *fd* to disk, in one call: far cheaper than one per file.

    Where there is no ``syncfs`` (macOS, some sandboxes), all file systems are synced.
    """
    code = _call("syncfs", fd)
    if code is None or code in UNSUPPORTED:
        os.sync()
    elif code:
        raise OSError(code, os.strerror(code))


_BIRTH = 0x800
"""Linux's ``STATX_BTIME``: asks for a time of birth, and tells whether there is one."""

_AT_CWD = -100


def birth_time(path: str) -> int | None:
    """Return when what is at *path* was made, in nanoseconds since 1970, None where that is not known."""
    said = bytearray(256)  # struct statx: its mask at 0, seconds and nanoseconds of birth at 80
    code = _call("statx", _AT_CWD, os.fsencode(path), 0, _BIRTH, said)
    if code != 0 or not struct.unpack_from("=I", said)[0] & _BIRTH:
        return None
    seconds, nanoseconds = struct.unpack_from("=qI", said, 80)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _call(function: str, *arguments: int | bytes | bytearray) -> int | None:
    """Call a function of the C library, which may write into a bytearray.

    Return 0 or its errno, None where the library does not have it.
    """
    import ctypes  # noqa: PLC0415 - a run with nothing to do calls none

    library = ctypes.CDLL(None, use_errno=True)
    called = getattr(library, function, None)
    if called is None:
        return None
    given = (
        (ctypes.c_char * len(each)).from_buffer(each) if isinstance(each, bytearray) else each
        for each in arguments
    )
    return ctypes.get_errno() if called(*given) != 0 else 0
