"""The place of a venv: what is there now, its receipt, the staging beside it, the swap, and safe removal.

A venv is made in a staging directory beside its place, under the same base name, and swapped in by
rename, so that at every moment the old venv or the new one is there, whole. Staging directories are
called ``.vf-<id>`` and hold ``new/<name>``, ``old/<name>`` (a venv that may have to go back) and
``gone/<name>`` (one that need not); what a kill leaves in them is settled by the next run, under the
venv's lock (:meth:`Place.settle`).

Nothing here follows a symlink, and nothing is deleted that is not a venv or a staging directory of ours.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from venvflow.disk.files import read_small, write_whole
from venvflow.disk.links import exchange
from venvflow.disk.scan import DEEPEST, directory, open_directory
from venvflow.errors import EnvironmentFailure, LockTimeout, Refused, advice, shown

RECEIPT = ".venvflow.json"
"""Name of the receipt in a venv: which key it was made for. It is never stored, packed or restored."""

KEPT_SUFFIX = ".before-venvflow"
"""What is appended to the name of a venv that was there before and that venvflow did not make."""

_MARK = ".gitignore"
_MARK_TEXT = b"# A staging directory of venvflow: it goes away when the run is over.\n*\n"

_KEEPING = "keeping"
"""File in the staging directory that says: the venv that belongs here is just being moved beside."""

_VENV_NAMES = {"bin", "include", "lib", "lib64", "share", "etc", "man", "CACHEDIR.TAG", ".gitignore", ".lock"}
"""What the top of a venv that lost its pyvenv.cfg may still hold."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What venvflow knows of a venv that it made; written last, so a venv without one was not finished.

    A venv that somebody else made, and that was shared all the same, has an empty *key*.

    *path* is where it was made for, *state* how far it is: ``built`` (not shared yet) or ``shared``
    (its files are the store's, *trees* its manifest). *directories* are directories of the venv with
    their mtimes in nanoseconds: a file added or removed moves one of them. *witness* is a hash of how all
    files looked (:mod:`venvflow.state.witness`), *contents* tell what is in them
    (:mod:`venvflow.state.contents`; empty: not known), *store* is the one that its symlinks lead into.
    *warnings* are what the build said of what is in it. *modes* are those that its files had
    (:mod:`venvflow.disk.modes`), *private* files that somebody edited and that verify knows as the venv's
    own, with their SHA-256. *top* is the mtime of its own directory; :func:`write_receipt` fills it in.
    """

    key: str
    path: str
    state: Literal["built", "shared"]
    made: Literal["built", "restored", "shared"]
    python: str = ""
    trees: tuple[str, ...] = ()
    bound: bool = False
    link: str = ""
    witness: str = ""
    store: str = ""
    warnings: tuple[str, ...] = ()
    modes: Mapping[str, int] = field(default_factory=dict, repr=False)
    private: Mapping[str, str] = field(default_factory=dict, repr=False)
    contents: str = field(default="", repr=False)
    directories: Mapping[str, int] = field(default_factory=dict, repr=False)
    top: int = field(default=0, repr=False, compare=False)


State = Literal["absent", "venv", "ours", "empty", "symlink", "file", "mount", "stranger", "other-owner"]


class Place:
    """The absolute path of one venv; its parent is resolved once, the last name never."""

    def __init__(self, path: str) -> None:
        parent, self.name = os.path.split(os.path.normpath(path))
        self.parent = os.path.realpath(parent)
        self.path = os.path.join(self.parent, self.name)
        tag = hashlib.sha256(os.fsencode(self.name)).hexdigest()[:8]
        self.staging = os.path.join(self.parent, f".vf-{tag}")
        self.new = os.path.join(self.staging, "new", self.name)
        self._old = os.path.join(self.staging, "old", self.name)
        self._gone = os.path.join(self.staging, "gone", self.name)
        self.guard = -1  # a descriptor that locks the staging directory, while there is one
        self._kept = self.path + KEPT_SUFFIX

    # ----------------------------------------------------------------------- looking

    def state(self, made_inode: int | None = None) -> State:
        """Return what is at the place, without following a link there.

        *made_inode* is the inode of the directory that we made here last: with it, a venv that lost even
        its pyvenv.cfg is still known to be ours. Raises EnvironmentFailure when one may not even look.
        """
        try:
            st = os.lstat(self.path)
            return _obstacle(self.path, st) or self._kind(st.st_ino == made_inode)
        except (FileNotFoundError, NotADirectoryError):
            return "absent"
        except OSError as error:
            raise EnvironmentFailure(
                f"cannot look at the venv's place: {error.strerror}",
                where=shown(error.filename or self.path),
                state="Nothing was changed.",
                hint="Check permissions and owner of this directory and those above it.",
            ) from error

    def _kind(self, made_here: bool) -> State:
        """Return what the directory at the place is.

        Without a receipt that makes sense it may be somebody's: tools that clear a venv keep the
        directory, and file systems soon use an inode again.
        """
        names = set(os.listdir(self.path))
        receipt = self.receipt() if RECEIPT in names else None
        if receipt is not None:
            return "ours" if receipt.key else "venv"  # without a key it was only shared, not made by us
        if {RECEIPT, "pyvenv.cfg"} & names:
            return "venv"
        if not names:
            return "empty"
        return "ours" if made_here and names <= _VENV_NAMES else "stranger"

    def receipt(self) -> Receipt | None:
        """Return the receipt in the venv, or None if there is none that makes sense."""
        return read_receipt(self.path)

    def inode(self) -> int | None:
        """Return the inode of the venv's directory, if there is one."""
        with suppress(OSError):
            return os.lstat(self.path).st_ino
        return None

    def untouched(self, receipt: Receipt) -> bool:
        """Return whether no directory of the venv changed and its interpreter runs, by stat alone.

        It does not see a file that was edited in place: that takes a look at every file.
        """
        if receipt.path != self.path:
            return False
        try:
            with directory(self.path) as fd:
                os.stat("bin/python", dir_fd=fd)
                return os.fstat(fd).st_mtime_ns == receipt.top and _have_mtimes(fd, receipt.directories)
        except OSError:
            return False

    def refuse_unless_replaceable(self, state: State) -> None:
        """Raise Refused when what is at the place must not be replaced by a venv."""
        if state in _REFUSALS:
            what, hint = _REFUSALS[state]
            target = f" to {shown(os.readlink(self.path))}" if state == "symlink" else ""
            raise Refused(
                what.format(target=target), where=shown(self.path), state="It was left as it is.", hint=hint
            )

    def refuse_to_keep_twice(self) -> None:
        """Raise Refused when the name under which a venv that is not ours is kept is taken."""
        if os.path.lexists(self._kept):
            raise _kept_twice(self._kept)

    # ----------------------------------------------------------------------- making

    def settle(self) -> None:
        """Undo or complete what a killed or failed run left beside the place.

        Raises Refused when something that is not ours has the name of the staging directory.
        """
        if not os.path.lexists(self.staging):
            return
        self._refuse_foreign_staging()
        with _explained(self.staging, "What is at the venv's place is whole; this is left over beside it."):
            guard = self._guarded()
        try:
            self._clear()
        finally:
            os.close(guard)

    def _guarded(self) -> int:
        """Return a descriptor of the staging directory that nobody else makes a venv in.

        The lock of a project's venv does not do: two configs may name one place, and it lies in a directory
        that may be deleted at any time. Raises LockTimeout.
        """
        fd = open_directory(self.staging)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise LockTimeout(
                "another run is making a venv at this place",
                where=shown(self.path),
                state="Nothing was changed.",
                hint="Let it finish, then run again; if two configs name this path, change one of them.",
            ) from None
        return fd

    def _clear(self) -> None:
        with _explained(self.staging, "What is at the venv's place is whole; this is left over beside it."):
            if not os.path.lexists(self.path):
                self._put_back()
            self._remove_staging()

    def _put_back(self) -> None:
        """Give the place its venv again, if the swap was cut short after it had been moved away."""
        if os.path.lexists(self._old):
            os.rename(self._old, self.path)
        elif os.path.lexists(f"{self.staging}/{_KEEPING}") and os.path.lexists(self._kept):
            os.rename(self._kept, self.path)

    @contextmanager
    def staged(self) -> Iterator[str]:
        """Give the path at which a new venv is to be made; it does not exist yet. Removed at the end."""
        self.settle()
        with _explained(self.path):
            os.makedirs(self.parent, exist_ok=True)
            _need_descriptors(self.parent)
            os.mkdir(self.staging, 0o755)
            self.guard = self._guarded()
        try:
            with _explained(self.path):
                _write_new(f"{self.staging}/{_MARK}", _MARK_TEXT)
                for path in (self.new, self._old, self._gone):
                    os.mkdir(os.path.dirname(path), 0o755)
            yield self.new
        finally:
            try:
                self._clear()
            finally:
                os.close(self.guard)

    def swap_in(self, *, keep_old: bool) -> str:
        """Put the staged venv at the place, in one step where the kernel can; return where the old one went.

        *keep_old*: the old one is not ours, and is moved beside under another name instead of being
        deleted. Raises Refused when that name is taken.
        """
        with _explained(self.path), directory(self.parent) as parent, directory(self.staging) as staging:
            if keep_old:
                self._move_beside(parent)
            new = os.path.join("new", self.name)
            if not os.path.lexists(self.path):
                os.rename(new, self.name, src_dir_fd=staging, dst_dir_fd=parent)
            elif not exchange(new, self.name, first_fd=staging, second_fd=parent):
                os.rename(self.name, os.path.join("old", self.name), src_dir_fd=parent, dst_dir_fd=staging)
                os.rename(new, self.name, src_dir_fd=staging, dst_dir_fd=parent)
            os.fsync(parent)
        return self._kept if keep_old else ""

    def _move_beside(self, parent: int) -> None:
        if os.path.lexists(self._kept):
            raise _kept_twice(self._kept)
        _write_new(f"{self.staging}/{_KEEPING}", b"")
        os.rename(self.name, os.path.basename(self._kept), src_dir_fd=parent, dst_dir_fd=parent)

    def remove(self) -> None:
        """Delete the venv: moved aside in one step first, so a kill never leaves half a venv at the place."""
        with self.staged(), _explained(self.path):
            os.rename(self.path, self._gone)

    def _refuse_foreign_staging(self) -> None:
        if not _is_staging(self.staging):
            raise Refused(
                "it has the name of a staging directory, but venvflow did not make it",
                where=shown(self.staging),
                state="It was left as it is, and so was the venv.",
                hint="Move it away, then run again.",
            )

    def _remove_staging(self) -> None:
        """Delete the staging directory, its mark last: a kill must not leave what looks like a stranger's."""
        with directory(self.staging) as fd:
            if os.path.lexists(self._old):  # from now on it may be incomplete, and must not go back
                with suppress(FileExistsError):
                    os.mkdir("gone", 0o755, dir_fd=fd)
                _discard(os.path.join("gone", self.name), fd)
                os.rename(self._old, self._gone)
            for name in os.listdir(fd):
                if name != _MARK:
                    _discard(name, fd)
            with suppress(FileNotFoundError):
                os.unlink(_MARK, dir_fd=fd)
        os.rmdir(self.staging)


_SPARE = 40
"""Open files that must be allowed: what is staged could not be removed with fewer, one for each level."""


def _need_descriptors(path: str) -> None:
    """Raise ``OSError`` if this process may not open the files that staging beside *path* will need."""
    with ExitStack() as stack:
        fd = stack.enter_context(directory(path))
        for _ in range(_SPARE):
            stack.callback(os.close, os.dup(fd))


def _is_staging(path: str) -> bool:
    """Return whether a directory is a staging directory of ours, or the empty beginning of one."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        return False
    try:
        return _MARK_TEXT.startswith(read_small(f"{path}/{_MARK}", largest=len(_MARK_TEXT)))
    except OSError:
        return not os.listdir(path)


def _write_new(path: str, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)


def _discard(name: str, parent: int) -> None:
    """Delete whatever *name* in *parent* is, without following a link."""
    try:
        st = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(st.st_mode):
        remove_tree(name, parent, os.fstat(parent).st_dev)
    else:
        os.unlink(name, dir_fd=parent)


_REFUSALS: dict[State, tuple[str, str]] = {
    "symlink": (
        "the venv's path is a symlink{target}; venvflow does not replace or delete through links",
        "Name the real directory in the config, or remove the link.",
    ),
    "file": ("there is a file where the venv should be", "Move it away, or change the venv's path."),
    "mount": (
        "the venv's path is a mount point or has one inside, so it cannot be replaced",
        "Mount its parent directory instead, or choose a path inside the mount.",
    ),
    "stranger": (
        "the directory is neither empty nor a venv (it has no pyvenv.cfg)",
        "Move it away, or change the venv's path.",
    ),
    "other-owner": (
        "the venv belongs to another user",
        "Run as its owner, or change the venv's path.",
    ),
}


def _obstacle(path: str, st: os.stat_result) -> State | None:
    if stat.S_ISLNK(st.st_mode):
        return "symlink"
    if not stat.S_ISDIR(st.st_mode):
        return "file"
    if _is_mount(path, st):
        return "mount"
    return "other-owner" if os.geteuid() not in (0, st.st_uid) else None


def _kept_twice(path: str) -> Refused:
    return Refused(
        "a venv that venvflow did not make is in the way, and the name to keep it under is taken",
        where=shown(path),
        state="Both were left as they are.",
        hint="Delete or move one of them, then run again.",
    )


def _is_mount(path: str, st: os.stat_result) -> bool:
    """Return whether *path* is a mount point or has one inside."""
    return st.st_dev != os.lstat(os.path.dirname(path)).st_dev or bool(_mounts_at(path))


def _mounts_at(path: str) -> list[str]:
    """Return the mount points at and below *path*; bind mounts within one file system are seen only here."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            points = [os.fsdecode(_unescaped(line.split(b" ")[4])) for line in file]
    except (OSError, IndexError):
        return []
    return [point for point in points if point == path or point.startswith(path + "/")]


def _unescaped(field_: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field_)


@contextmanager
def _explained(path: str, state: str = "The venv that was there is still there.") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot change the venv's place: {error.strerror}",
            where=shown(error.filename or path),
            state=state,
            hint=advice(error, "Check permissions, owner and free space of its parent directory."),
        ) from error


# --------------------------------------------------------------------------- receipts and removal


def write_receipt(venv: str, receipt: Receipt, *, sync: bool = False) -> None:
    """Write the receipt of the venv at path *venv*, replacing an older one in one step.

    The directory gets back the mtime that it had, so that only what others do there shows. With *sync* it
    is on disk before it has its name: a venv without a receipt that makes sense is not known as ours. Raises
    EnvironmentFailure.
    """
    with _explained(venv, "The venv works; its receipt is as it was."):
        top = os.lstat(venv).st_mtime_ns
        document = {name: getattr(receipt, name) for name in Receipt.__slots__}
        data = json.dumps({**document, "top": top}).encode("ascii")
        try:
            write_whole(f"{venv}/{RECEIPT}", data, sync=sync)
        finally:
            os.utime(venv, ns=(top, top))


def read_receipt(venv: str) -> Receipt | None:
    """Return the receipt of the venv at path *venv*, or None if there is none that makes sense."""
    try:
        document = json.loads(read_small(f"{venv}/{RECEIPT}"))
        document["trees"] = tuple(str(digest) for digest in document["trees"])
        document["warnings"] = tuple(str(warning) for warning in document.get("warnings", ()))
        maps = (document.get(name, {}) for name in ("directories", "modes", "private"))
        return Receipt(**document) if all(isinstance(each, dict) for each in maps) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _have_mtimes(fd: int, directories: Mapping[str, int]) -> bool:
    """Return whether directories below *fd* have these mtimes; raises ``OSError`` for one that is gone."""
    stat_at = os.stat  # for every directory of every venv, on every run: a path from the root takes longer
    for name, mtime in directories.items():
        if stat_at(name, dir_fd=fd, follow_symlinks=False).st_mtime_ns != mtime:
            return False
    return True


def watched(venv: str, directories: Iterable[str]) -> dict[str, int]:
    """Return *directories* of a venv with their mtimes, but for bytecode caches, which Python fills."""
    return {
        name: os.lstat(f"{venv}/{name}").st_mtime_ns
        for name in directories
        if os.path.basename(name) != "__pycache__"
    }


def remove_tree(name: str, parent: int, device: int) -> None:
    """Delete the directory *name* in *parent*, by descriptors, never leaving the file system *device*.

    Raises ``OSError`` for a mount inside, before anything is deleted where the kernel lists mounts, or for
    a tree deeper than we can hold descriptors for.
    """
    with suppress(FileNotFoundError):  # no /proc: what is mounted shows by its device then
        mounts = _mounts_at(os.path.join(os.readlink(f"/proc/self/fd/{parent}"), name))
        if mounts:
            raise OSError(errno.EBUSY, "a file system is mounted inside", mounts[0])
    _remove(name, parent, device, 0)


def _remove(name: str, parent: int, device: int, depth: int) -> None:
    if depth > DEEPEST:
        raise OSError(errno.ENAMETOOLONG, f"directories are nested deeper than {DEEPEST}", name)
    fd = _writable_directory(name, parent)
    try:
        if os.fstat(fd).st_dev != device:
            raise OSError(errno.EBUSY, "a file system is mounted inside", name)
        with os.scandir(fd) as entries:
            children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_directory in children:
            if is_directory:
                _remove(child, fd, device, depth + 1)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def _writable_directory(name: str, parent: int) -> int:
    """Open a directory that is about to be emptied, making it writable if it is not."""
    try:
        fd = open_directory(name, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        fd = open_directory(name, dir_fd=parent)
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(fd, mode | stat.S_IRWXU)
    return fd
