"""What a file has besides its content: its mode, and its extended attributes.

Objects are read-only, and all venvs that have one see its mode. What a venv's own files had before they were
shared is noted in its receipt, so that unsquish can give it back: the two modes that most files have, if they
are not the usual ones, and the files with another one. Not kept are bits with which a file runs as somebody
else.

Capabilities, access control lists and what people and programs note on a file belong to its inode: all names
of an object would have them, or none. So a file that has some stays private. Labels that a policy puts on
every file (SELinux, IMA) or that a file system keeps for itself (overlay, NFS) do not count.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Mapping

from venvflow.disk.scan import Found
from venvflow.pure.sharing import is_moment, mtime_ns_of

MODE_BITS = 0o777
"""The bits of a mode that are noted and given back: none with which a file runs as somebody else."""

_FILES, _PROGRAMS = "", "/"
"""Stand for all files, and all that may be executed; no file is called like that."""

FOR_MOST = (_FILES, _PROGRAMS)
"""Names in a venv's modes that are not paths: the modes that most of its files have."""

_USUAL = {_FILES: 0o644, _PROGRAMS: 0o755}
_NO_DIGEST = "0" * 64


def may_be_sealed(item: Found) -> bool:
    """Return whether a file may look like its object, whatever is in it."""
    return not item.mode & 0o222 and item.stamp.size > 0 and is_moment(item.stamp.mtime_ns)


def is_sealed(item: Found, digest: str) -> bool:
    """Return whether a file with this SHA-256 looks like its object: read-only, with its content's time."""
    return may_be_sealed(item) and item.stamp.mtime_ns == mtime_ns_of(digest)


def modes_of(
    found: Iterable[Found], digests: Mapping[str, str], earlier: Mapping[str, int] | None
) -> dict[str, int]:
    """Return what there is to note of files that are about to be shared.

    *digests* are the SHA-256 of files by their paths. *earlier* is what was noted when they were shared
    before, None if they never were: it holds for those that look like objects, or are symlinks to them.
    """
    before = earlier or {}
    modes = {}
    for item in found:
        if item.kind == "file":
            shared = is_sealed(item, digests.get(item.path, _NO_DIGEST))
            mode = mode_of(before, item.path, executable=item.executable) if shared else item.mode
            modes[item.path] = mode & MODE_BITS
        elif item.path in before:
            modes[item.path] = before[item.path]
    noted = _most(modes) if earlier is None else {key: before[key] for key in _USUAL if key in before}
    odd = {
        path: mode for path, mode in modes.items() if mode != _of_kind(noted, executable=bool(mode & 0o100))
    }
    return noted | odd


def times_of(found: Iterable[Found], given: Mapping[str, int], earlier: Mapping[str, int]) -> dict[str, int]:
    """Return the mtimes, in nanoseconds, of files that are about to be shared, by their paths.

    *given* are those that they get from us. What was noted *earlier* holds for those that have them, or are
    symlinks by now.
    """
    times = {}
    for item in found:
        now = item.stamp.mtime_ns
        if item.kind == "file":
            times[item.path] = earlier.get(item.path, now) if now == given.get(item.path) else now
        elif item.path in earlier:
            times[item.path] = earlier[item.path]
    return times


def _most(modes: Mapping[str, int]) -> dict[str, int]:
    """Return the modes that most files have, where they are not the usual ones."""
    noted = {}
    for key, executable in ((_FILES, False), (_PROGRAMS, True)):
        common = Counter(mode for mode in modes.values() if bool(mode & 0o100) == executable).most_common(1)
        if common and common[0][0] != _USUAL[key]:
            noted[key] = common[0][0]
    return noted


def mode_of(noted: Mapping[str, int], path: str, *, executable: bool) -> int:
    """Return the mode that a file had, the usual one if nothing was *noted*."""
    return noted.get(path, _of_kind(noted, executable=executable)) & MODE_BITS


def _of_kind(noted: Mapping[str, int], *, executable: bool) -> int:
    key = _PROGRAMS if executable else _FILES
    return noted.get(key, _USUAL[key])


# --------------------------------------------------------------------------- extended attributes

_OWN = ("user.", "trusted.", "security.capability", "system.posix_acl_access")
_OF_FILE_SYSTEMS = ("user.overlay.", "trusted.overlay.")
_NO_ANSWER = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENOSYS}


def own_attributes(file: int | str) -> tuple[str, ...]:
    """Return the names of the attributes that belong to this one file: a descriptor, or a path.

    One system call, 3 us where the file is open: to be asked only of a file that is about to be shared.
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
