"""What Linux can do and other systems cannot, asked of the C library: swap two names, sync a file system."""

from __future__ import annotations

import errno
import os

UNSUPPORTED = {
    errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS,
}  # fmt: skip
"""What file systems answer when they cannot link like that at all."""


NO_REPLACE, _EXCHANGE = 1, 2
"""Linux's flags ``RENAME_NOREPLACE`` and ``RENAME_EXCHANGE``."""


def call(function: str, *arguments: int | bytes) -> int | None:
    """Call a function of the C library; return 0 or its errno, None where the library does not have it."""
    import ctypes  # noqa: PLC0415 - a run with nothing to do calls none

    library = ctypes.CDLL(None, use_errno=True)
    called = getattr(library, function, None)
    if called is None:
        return None
    return ctypes.get_errno() if called(*arguments) != 0 else 0


def exchange(first: str, second: str, *, first_fd: int, second_fd: int) -> bool:
    """Swap two names in one step (Linux ``RENAME_EXCHANGE``); return False where that cannot be done."""
    code = call("renameat2", first_fd, os.fsencode(first), second_fd, os.fsencode(second), _EXCHANGE)
    if code is None or code in UNSUPPORTED:
        return False
    if code:
        raise OSError(code, os.strerror(code), first)
    return True


def sync_file_system(fd: int) -> None:
    """Write everything on the file system of *fd* to disk, in one call: far cheaper than one per file.

    Where there is no ``syncfs`` (macOS, some sandboxes), all file systems are synced.
    """
    code = call("syncfs", fd)
    if code is None or code in UNSUPPORTED:
        os.sync()
    elif code:
        raise OSError(code, os.strerror(code))
