"""Extended attributes that a file would lose, or give to others, if it were shared by link.

Capabilities, access control lists and what people and programs note on a file belong to its inode: all
names of an object would have them, or none. So a file that has some stays private. Labels that a policy puts
on every file (SELinux, IMA) or that a file system keeps for itself (overlay, NFS) do not count.

One system call per file, 3 us where it is open: to be asked only of a file that is about to be shared.
"""

from __future__ import annotations

import errno
import os

_OWN = ("user.", "trusted.", "security.capability", "system.posix_acl_access")
_OF_FILE_SYSTEMS = ("user.overlay.", "trusted.overlay.")
_NO_ANSWER = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENOSYS}


def own_attributes(file: int | str) -> tuple[str, ...]:
    """Return the names of the attributes that belong to this one file: a descriptor, or a path.

    A symlink is not followed. Empty where the system, or the file system, has none. Raises ``OSError`` for a
    file that is not there or cannot be read.
    """
    if not hasattr(os, "listxattr"):  # macOS: Python does not ask it
        return ()
    try:
        names = os.listxattr(file) if isinstance(file, int) else os.listxattr(file, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_ANSWER:
            return ()
        raise
    return tuple(name for name in names if name.startswith(_OWN) and not name.startswith(_OF_FILE_SYSTEMS))


def copy_attributes(source: int, target: int) -> bool:
    """Give the file *target* the own attributes of *source*, both open; return whether it has them all.

    It has not where we may not set one, as a capability without being root.
    """
    try:
        for name in own_attributes(source):
            os.setxattr(target, name, os.getxattr(source, name))
    except OSError as error:
        if error.errno in {*_NO_ANSWER, errno.ENODATA, errno.ENOSPC, errno.E2BIG}:
            return False
        raise
    return True
