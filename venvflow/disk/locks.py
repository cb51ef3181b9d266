"""Kernel locks on files that are never deleted.

Every lock is a ``flock`` on an open file of its own, so it works between processes and between threads
alike, and the kernel frees it the moment its last descriptor is closed, also by ``kill -9``. No lock ever
has to be removed by hand.

``flock`` belongs to the open file, not to the process: a child that is given :attr:`Lock.fd` keeps the lock
when its parent dies, which is how an orphaned builder keeps others away from the venv that it still
writes to. Where this stops being safe: file systems without ``flock`` (refused here by an error), and
machines that share a file system which keeps ``flock`` local to each of them (nothing can tell).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
import time
from typing import TYPE_CHECKING, NamedTuple, final

from venvflow.disk.descriptors import SAFE, directory
from venvflow.disk.system_errors import failure
from venvflow.errors import EnvironmentFailure, LockTimeout, Refused, UsageError, VenvflowError, shown
from venvflow.pure.redaction import redact_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TIMEOUT_VARIABLE = "VENVFLOW_LOCK_TIMEOUT"
DEFAULT_TIMEOUT = 300.0
NOTICE_AFTER = 2.0
"""Seconds of waiting after which ``on_wait`` is called, once, with the holder of the lock."""

kin: set[int] = set()
"""The process groups, and single processes, that belong to the same run as this process."""

_announced: dict[str, object] = {}
"""Which waiter said so, by lock file: several threads of a run that wait for one holder say it once."""

_SHORTEST_SLEEP = 0.001
_LONGEST_SLEEP = 0.1
_LONGEST_COMMAND = 200
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


@final
class Lock:
    """A lock that is held; made by :func:`exclusive`, :func:`shared` and :func:`try_exclusive`.

    A context manager that releases at its end. *path* is the lock file. Pass :attr:`fd` to a child process
    (``pass_fds``) that must not outlive the protection.
    """

    __slots__ = ("_exclusive", "_fd", "_owner", "path")

    def __init__(self, fd: int, path: str, *, exclusive: bool) -> None:
        self._fd = fd
        self._exclusive = exclusive
        self._owner = os.getpid()
        self.path = path

    @property
    def fd(self) -> int:
        """Return the descriptor that holds the lock; ``ValueError`` once it is released."""
        if self._fd < 0:
            raise ValueError(f"the lock on {shown(self.path)} is released")
        return self._fd

    def release(self) -> None:
        """Give the lock back, for the children that inherited it too; again is harmless.

        In a forked copy of the process this only closes the copy's descriptor: the lock is its parent's.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if self._owner == os.getpid():
                if self._exclusive:
                    _write_holder(fd, b"")
                fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def exclusive(path: str, *, timeout: float, what: str, on_wait: Callable[[str], None] | None = None) -> Lock:
    """Return an exclusive lock on the file *path*, waiting for up to *timeout* seconds.

    The file and its parents are made if need be. *what* says in messages what is locked (``the venv api``).
    After 2 s of waiting *on_wait* gets one sentence that names the holder. Raises LockTimeout in the end,
    EnvironmentFailure where locking is not possible, Refused if *path* is a symbolic link.
    """
    return _acquire(path, fcntl.LOCK_EX, timeout, what, on_wait)


def shared(path: str, *, timeout: float, what: str, on_wait: Callable[[str], None] | None = None) -> Lock:
    """Return a shared lock on the file *path*: as :func:`exclusive`, but others may share it.

    A file that exists but cannot be written (a read-only store) is enough.
    """
    return _acquire(path, fcntl.LOCK_SH, timeout, what, on_wait)


def try_exclusive(path: str, *, what: str) -> Lock | None:
    """Return an exclusive lock on the file *path*, or ``None`` at once if somebody else holds it."""
    return _attempt(path, fcntl.LOCK_EX, what)


def lock_timeout(environ: Mapping[str, str]) -> float:
    """Return how many seconds to wait for a lock: VENVFLOW_LOCK_TIMEOUT, or 300.

    Raises UsageError if that is not a number of seconds.
    """
    text = environ.get(TIMEOUT_VARIABLE, "")
    if not text.strip():
        return DEFAULT_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(
            f"{TIMEOUT_VARIABLE} is {text!r}, which is not a number of seconds",
            hint=f"Set it to 0 (do not wait) or more, or unset it for {DEFAULT_TIMEOUT:g}",
        )
    return seconds


# --------------------------------------------------------------------------- taking a lock


def _acquire(path: str, mode: int, timeout: float, what: str, on_wait: Callable[[str], None] | None) -> Lock:
    start = time.monotonic()
    sleep = _SHORTEST_SLEEP
    us = object()
    try:
        while (lock := _attempt(path, mode, what)) is None:
            waited = time.monotonic() - start
            if waited >= timeout:
                raise _timed_out(path, what, timeout)
            if on_wait is not None and waited >= NOTICE_AFTER:
                found = holder(path)
                if not found.ours and _announced.setdefault(path, us) is us:
                    on_wait(f"waiting for {what}, which is locked by {found}")
                on_wait = None
            time.sleep(min(sleep, max(timeout - waited, 0)))
            sleep = min(sleep * 2, _LONGEST_SLEEP)
        return lock
    finally:
        if _announced.get(path) is us:
            del _announced[path]


def _timed_out(path: str, what: str, timeout: float) -> LockTimeout:
    found = holder(path)
    return LockTimeout(
        f"{what} is locked by {found}",
        where=shown(path),
        state=f"Gave up after {timeout:g} s; nothing was changed",
        hint=f"{found.way_out}, or wait longer with {TIMEOUT_VARIABLE}=<seconds>; "
        "the lock ends with its holder, the lock file need not be deleted",
    )


def hold(fd: int, seconds: float) -> bool:
    """Lock the open file or directory *fd* until it is closed; return whether that was possible in *seconds*.

    Raises ``OSError`` where there are no locks.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LONGEST_SLEEP)
        else:
            return True


def _attempt(path: str, mode: int, what: str) -> Lock | None:
    """Try once. The file is opened anew each time: somebody may have deleted the one tried before."""
    while True:
        fd = _open(path, mode, what)
        lock = None
        try:
            if not _flock(fd, mode, path, what):
                return None
            if is_at(fd, path):
                lock = Lock(fd, path, exclusive=mode == fcntl.LOCK_EX)
                # Also for a shared lock: nobody holds an exclusive one now, so its note is out of date.
                _write_holder(fd, _own_name() if mode == fcntl.LOCK_EX else b"")
                return lock
        finally:
            if lock is None:
                os.close(fd)


def _flock(fd: int, mode: int, path: str, what: str) -> bool:
    try:
        fcntl.flock(fd, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _cannot_lock(error, path, what) from error
    return True


def is_at(fd: int, path: str) -> bool:
    """Return whether the open file is still the one at *path*, and not one that was deleted meanwhile."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(fd))


def _open(path: str, mode: int, what: str) -> int:
    try:
        fd = _open_or_make(path, mode)
    except OSError as error:
        raise _cannot_lock(error, path, what) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise EnvironmentFailure(
            f"{what} cannot be locked: the lock file is not a regular file",
            where=shown(path),
            state="Nothing was changed.",
            hint="Remove it",
        )
    return fd


def _open_or_make(path: str, mode: int) -> int:
    # Without O_CREAT first: in sticky directories the kernel denies it for another user's file.
    try:
        return _open_in_place(path, os.O_RDWR)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return _open_in_place(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if mode != fcntl.LOCK_SH or error.errno not in _NOT_WRITABLE:
            raise
    return _open_in_place(path, os.O_RDONLY)


def _open_in_place(path: str, flags: int) -> int:
    """Open a lock file, whose directory may not be a symlink either."""
    parent, name = os.path.split(path)
    with directory(parent or ".") as fd:
        return os.open(name, flags | SAFE, 0o644, dir_fd=fd)


def _cannot_lock(error: OSError, path: str, what: str) -> VenvflowError:
    for link, called in ((path, "the lock file"), (os.path.dirname(path), "the lock file's directory")):
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and os.path.islink(link):
            return Refused(
                f"{what} cannot be locked: {called} is a symbolic link",
                where=shown(link),
                state="Nothing was changed; venvflow does not write through links",
                hint="Remove the link",
            )
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return EnvironmentFailure(
            f"{what} cannot be locked: something else is in the place of the lock file",
            where=shown(path),
            state="Nothing was changed",
            hint="Move it away, then run again",
        )
    if error.errno in _NO_LOCKS:
        return EnvironmentFailure(
            f"{what} cannot be locked: this file system has no locks ({error.strerror})",
            where=shown(path),
            state="Nothing was changed",
            hint="Use a directory on a local file system",
        )
    return failure(error, f"{what} cannot be locked", at=path, state="Nothing was changed")


# --------------------------------------------------------------------------- who holds it


def _own_name() -> bytes:
    command = shown(" ".join(redact_words([os.path.basename(sys.argv[0] or "python"), *sys.argv[1:]])))
    return f"{os.getpid()} {command[:_LONGEST_COMMAND]}\n".encode()


def _write_holder(fd: int, note: bytes) -> None:
    # The note is for messages only: a full disk or a file opened for reading must not cost the lock.
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, note, 0)
    except OSError:
        pass


class Holder(NamedTuple):
    """Who holds a lock, as far as can be found out: in *words*, and *pids* of other processes.

    *ours*: nobody but this run, which shows what it is at.
    """

    words: str
    pids: tuple[int, ...] = ()
    ours: bool = False

    def __str__(self) -> str:
        return self.words

    @property
    def way_out(self) -> str:
        """Return what to do about it: the beginning of a hint."""
        numbers = " ".join(map(str, self.pids))
        end = f', or end it if it hangs ("kill {numbers}", "kill -9 {numbers}")' if numbers else ""
        return f"Let it finish and run again{end}"


def holder(path: str) -> Holder:
    """Return who holds the lock on *path*: who took it, or what that process left behind with it."""
    noted, command = _note(path)
    pids = _holding_pids(path) or [pid for pid in [noted] if pid]
    if not pids:
        return Holder("an unknown process")
    found = [_described(pid, command if pid == noted else "", path) for pid in pids]
    others = {pid for each in found for pid in each.pids}
    ours = all(each.ours for each in found)
    return Holder(", ".join(each.words for each in found), tuple(sorted(others)), ours)


def writer(path: str) -> Holder:
    """Return who is writing to the SQLite database at *path*."""
    pids = {pid for file in (f"{path}-shm", path) for pid in _holding_pids(file, "POSIX", "WRITE")}
    return Holder(", ".join(map(_named, sorted(pids))) or "another program", tuple(sorted(pids)))


def _note(path: str) -> tuple[int, str]:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | SAFE)) as file:
            first = file.read(4 * _LONGEST_COMMAND).decode("utf-8", "replace").partition("\n")[0]
    except OSError:
        return 0, ""
    pid, _, command = first.partition(" ")
    return (int(pid), shown(command)) if pid.isascii() and pid.isdigit() else (0, "")


def _holding_pids(path: str, *kind: str) -> list[int]:
    """Return who holds a lock on *path* by the kernel's own list, where there is one (Linux).

    *kind* are words that stand in its row; without them it is one of ours.
    """
    wanted = {*(kind or ("FLOCK",))}
    try:
        inode = os.stat(path, follow_symlinks=False).st_ino
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            rows = [line.split() for line in file]
    except OSError:
        return []
    # The device is not compared: btrfs shows another one there. This is for a message only.
    pids = {
        int(row[4])
        for row in rows
        if len(row) > 5 and wanted <= {*row[1:4]} and row[5].endswith(f":{inode}") and row[4].isdigit()
    }
    return sorted(pids)


def _described(pid: int, command: str, path: str) -> Holder:
    if pid == os.getpid() or _is_kin(pid):
        return Holder(f"another task of this run (pid {pid})", ours=True)
    if is_alive(pid) and _may_hold(pid, path):
        return Holder(_named(pid, command), (pid,))
    heirs = _heirs(path)
    if not heirs:
        return Holder(f"a process started by pid {pid}, which has ended")
    names = ", ".join(_named(heir) for heir in heirs)
    return Holder(f"{names}, started by pid {pid}, which has ended", tuple(heirs))


def _is_kin(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return pid in kin or os.getpgid(pid) in kin
    return False


def _named(pid: int, command: str = "") -> str:
    name = command or _command_of(pid)
    return f"pid {pid} ({name})" if name else f"pid {pid}"


def _may_hold(pid: int, path: str) -> bool:
    """Return whether the process *pid* holds a lock on *path*; numbers are given out again."""
    try:
        os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return True  # it cannot be looked into
    return _holds(str(pid), os.path.realpath(path))


def is_alive(pid: int) -> bool:
    """Return whether there is a process of this number, of any user."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # a number in a name or a note may be larger than any pid
        return False
    except OSError:
        pass
    return True


def _command_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = os.fsdecode(file.read(4 * _LONGEST_COMMAND).rstrip(b"\0")).split("\0")
    except OSError:
        return ""
    return shown(" ".join(redact_words(words)))[:_LONGEST_COMMAND]


def _heirs(path: str) -> list[int]:
    """Return the processes that inherited a descriptor holding a lock on *path* (Linux)."""
    if not os.path.isdir("/proc/self/fdinfo"):
        return []
    real = os.path.realpath(path)
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _holds(name, real)]


def _holds(pid: str, real: str) -> bool:
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            if os.readlink(f"/proc/{pid}/fd/{fd}") == real:
                with open(f"/proc/{pid}/fdinfo/{fd}", "rb") as file:
                    if b"FLOCK" in file.read():
                        return True
    except OSError:
        pass  # it ended meanwhile, or belongs to another user
    return False
