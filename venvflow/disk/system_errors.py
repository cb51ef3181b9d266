"""Explains errors of the operating system: which file or file system is meant, why, and what helps.

An errno says little: ``ENOSPC`` not which disk is full, or that it has no inodes left; ``EPERM`` not that
a file is immutable; ``ENOTDIR`` not what is in the way. All that can be asked when it happens, so every
error of the system that a user sees is explained by :func:`failure`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from venvflow.disk.descriptors import READ, opened
from venvflow.disk.mounts import mount_of
from venvflow.errors import EnvironmentFailure, shown

_GET_FLAGS = 0x80086601
"""``FS_IOC_GETFLAGS`` where ``long`` has 64 bits: what ``lsattr`` asks."""

_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20
_SPARE = 64
"""Inodes that a file system may have and be full all the same: what was begun has been deleted meanwhile."""

_ROOM = 1 << 20
_TRIM = '("venvflow trim" does, if the store is there)'

_USUAL = "Check owner and mode of it and of the directories above it (we are user {user}), then run again."

_HINTS = {
    errno.EMFILE: "Allow more open files (ulimit -n), then run again.",
    errno.ENFILE: "Let others close files, or allow more (sysctl fs.file-max), then run again.",
    errno.EAGAIN: "Allow more processes (ulimit -u), then run again.",
    errno.ENOMEM: "Free some memory and run again.",
    errno.EIO: "Look at the disk (dmesg): it fails. Then run again.",
    errno.ENAMETOOLONG: "Use a directory with a shorter path, then run again.",
    errno.ESTALE: "Mount that network file system again, then run again.",
    errno.ELOOP: "Put a directory or file in the place of the symlink, then run again.",
    errno.EBUSY: "Let the programs that use it end, or unmount what is mounted there, then run again.",
    errno.ETXTBSY: "Let the program end, then run again.",
    errno.EFBIG: "Allow larger files (ulimit -f), then run again.",
}


def failure(
    error: OSError, doing: str = "", *, at: str, state: str, venv: str = "", usual: str = "", hint: str = ""
) -> EnvironmentFailure:
    """Return our error for one of the system that came while *doing* something (``cannot …``).

    *at* is what was worked on, for errors that name no file. *state* says what state things are in, *venv*
    for which one it was done. *usual* is the hint for what has no cause of its own, *hint* the one for all.
    """
    path = path_of(error, at)
    reason, special = _reason_and_hint(error, path)
    return EnvironmentFailure(
        f"{doing}: {reason}" if doing else reason,
        where=f"{venv}: {shown(path)}" if venv else shown(path),
        state=state,
        hint=hint or special or usual or _USUAL.format(user=os.geteuid()),
    )


@contextmanager
def explained(
    doing: str, *, at: str, state: str | Callable[[], str], venv: str = "", usual: str = "", hint: str = ""
) -> Iterator[None]:
    """Raise :func:`failure` for an error of the system in the block; *state* may be asked when it comes."""
    try:
        yield
    except OSError as error:
        said = state if isinstance(state, str) else state()
        raise failure(error, doing, at=at, state=said, venv=venv, usual=usual, hint=hint) from error


def of_database(error: Exception, path: str) -> OSError:
    """Return what a database at *path* could not do as an error of the system, by how its disk is now.

    SQLite says "disk I/O error" and "unable to open database file" of a full disk, too.
    """
    if isinstance(error, OSError):
        return error
    code = 0
    if "disk is full" in str(error) or free_bytes(path) == 0:
        code = errno.ENOSPC
    elif (found := _file_system(path)) is not None and found.f_flag & os.ST_RDONLY:
        code = errno.EROFS
    return OSError(code, str(error), path)


def from_system(error: OSError | MemoryError, state: str) -> EnvironmentFailure:
    """Return an error of the system as one of ours; *state* says what state things are in."""
    if isinstance(error, MemoryError):
        return EnvironmentFailure(
            "there is not enough memory", state=state, hint="Free some, then run again."
        )
    if error.filename is None and not _has_directory():
        hint = "Change to a directory that exists."
        return EnvironmentFailure("the working directory is gone", state=state, hint=hint)
    if error.filename is None:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        usual = f"Free space {_TRIM}, then run again." if full else "Check permissions, then run again."
        return EnvironmentFailure(_said(error), state=state, hint=_HINTS.get(error.errno or 0, usual))
    return failure(error, at="", state=state)


def _has_directory() -> bool:
    """Return whether there is a working directory: functions that need one do not say so."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def path_of(error: OSError, otherwise: str) -> str:
    """Return the path that an error is about, *otherwise* one that is known if it names none.

    Of two, as rename and link have them, it is the second: there is where something was to be written. A name
    in a directory that is not known any more is put after *otherwise*.
    """
    names = [
        os.fsdecode(each) for each in (error.filename2, error.filename) if each and not isinstance(each, int)
    ]
    whole = next((name for name in names if os.path.isabs(name)), "")
    if whole or not names:
        return whole or otherwise
    return os.path.join(otherwise, names[0])


# --------------------------------------------------------------------------- what it is about


def _said(error: OSError) -> str:
    return f"{error.strerror or error}"


def _reason_and_hint(error: OSError, path: str) -> tuple[str, str]:
    """Return why the system refused, and what helps; no hint if the errno is all we know."""
    said = _said(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return _full_or_read_only(error.errno, said, path)
    if error.errno == errno.EPERM and (fixed := _fixed(path)):
        word, flag, which = fixed
        it = "it" if which == path else shown(which)
        return f"{said} ({it} is {word})", f"Let it be changed (chattr -{flag}), then run again."
    if error.errno in (errno.EACCES, errno.EPERM) and (theirs := _left_by_root(path)):
        return (
            said,
            f"It is another user's, perhaps since a run as root: sudo chown -R {os.geteuid()}: {theirs}",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR) and (between := _in_the_way(path)):
        return f"{said} ({shown(between)} is not a directory)", "Move that away, then run again."
    return said, _HINTS.get(error.errno or 0, "")


def _full_or_read_only(code: int, said: str, path: str) -> tuple[str, str]:
    place = f"the file system mounted at {shown(mount_of(path).point)}"
    if code == errno.EROFS:
        return f"{said} ({place})", "Make it writable, or use a directory that is, then run again."
    if code == errno.EDQUOT:
        return f"{said} ({place})", f"Your quota is used up: free space there {_TRIM}, then run again."
    if _lacks_inodes(path):
        return f"{said} ({place} has no inodes left)", f"Delete files there {_TRIM}, then run again."
    return f"{said} ({place} is full)", f"Free space there {_TRIM}, then run again."


def _present(path: str) -> str:
    """Return the longest part of an absolute path that exists."""
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def free_bytes(path: str) -> int | None:
    """Return how many bytes can be written to the file system of *path*, None if that is not known.

    It is 0 where no inode is left.
    """
    found = _file_system(path)
    if found is None:
        return None
    return found.f_bavail * found.f_frsize if found.f_favail or not found.f_files else 0


def _file_system(path: str) -> os.statvfs_result | None:
    """Return what is known of the file system that *path* lies in, or would; None if that is not known."""
    try:
        return os.statvfs(_present(os.path.abspath(path)))
    except OSError:
        return None


def _lacks_inodes(path: str) -> bool:
    found = _file_system(path)
    if found is None:
        return False
    return found.f_files > 0 and found.f_favail < _SPARE and found.f_bavail * found.f_frsize > _ROOM


def _fixed(path: str) -> tuple[str, str, str] | None:
    """Return how a file, or the directory that it is in, is kept from being changed, by which flag, which."""
    for each in (path, os.path.dirname(path)):
        flags = _flags(each)
        if flags & _IMMUTABLE:
            return "immutable", "i", each
        if flags & _APPEND_ONLY:
            return "append-only", "a", each
    return None


def _flags(path: str) -> int:
    with suppress(OSError), opened(path, READ) as fd:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # a device may take the number for something else
            return int(struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, struct.pack("l", 0)))[0])
    return 0


def _left_by_root(path: str) -> str:
    """Return what belongs to another user in a directory of ours, of what *path* leads through; or nothing.

    It is what a run as root leaves there. The text is a word for a shell.
    """
    import shlex  # noqa: PLC0415 - for this one case

    us, found, above = os.geteuid(), "", os.path.abspath(path)
    while us and above != "/":
        owner = _owner(above)
        if found and owner == us:
            return shown(shlex.quote(found))
        found = above if owner not in (None, us) else ""
        above = os.path.dirname(above)
    return ""


def _owner(path: str) -> int | None:
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def _in_the_way(path: str) -> str:
    """Return the first part of *path* above its last name that is there and no directory, if there is one."""
    above = os.path.dirname(os.path.abspath(path))
    present = _present(above)
    return "" if os.path.isdir(present) else present
