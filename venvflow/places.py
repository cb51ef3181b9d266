"""The place of a venv: what is there now, its receipt, the staging beside it, the swap, and safe removal.

A venv is made in a staging directory beside its place, under the same base name, and swapped in by
rename, so that at every moment the old venv or the new one is there, whole. Staging directories are
called ``.vf-<id>`` and hold ``new/<name>`` and ``old/<name>``; what a kill leaves in them is settled by
the next run, under the venv's lock (:meth:`Place.settle`).

Nothing here follows a symlink, and nothing is deleted that is not a venv or a staging directory of ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from venvflow.errors import EnvironmentFailure, Refused, shown
from venvflow.links import exchange
from venvflow.scan import DEEPEST, directory, open_directory

RECEIPT = ".venvflow.json"
"""Name of the receipt in a venv: which key it was made for. It is never stored, packed or restored."""

KEPT_SUFFIX = ".before-venvflow"
"""What is appended to the name of a venv that was there before and that venvflow did not make."""

_MARK = ".gitignore"
_MARK_TEXT = "# A staging directory of venvflow: it goes away when the run is over.\n*\n"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What venvflow knows of a venv that it made; written last, so a venv without one was not finished.

    *path* is where it was made for, *state* how far it is: ``built`` (not shared yet) or ``shared``
    (its files are the store's, *trees* its manifest). *directories* are directories of the venv with
    their mtimes in nanoseconds: a file added or removed moves one of them.
    """

    key: str
    path: str
    state: Literal["built", "shared"]
    made: Literal["built", "restored", "shared"]
    python: str = ""
    trees: tuple[str, ...] = ()
    bound: bool = False
    link: str = ""
    directories: tuple[tuple[str, int], ...] = field(default=(), repr=False)


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

    # ----------------------------------------------------------------------- looking

    def state(self, made_inode: int | None = None) -> State:
        """Return what is at the place, without following a link there.

        *made_inode* is the inode of the directory that we made here last: with it, a venv that lost even
        its pyvenv.cfg is still known to be ours.
        """
        try:
            st = os.lstat(self.path)
        except FileNotFoundError:
            return "absent"
        obstacle = _obstacle(self.path, st)
        if obstacle is not None:
            return obstacle
        if os.path.lexists(f"{self.path}/{RECEIPT}") or st.st_ino == made_inode:
            return "ours"
        if os.path.lexists(f"{self.path}/pyvenv.cfg"):
            return "venv"
        return "stranger" if os.listdir(self.path) else "empty"

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
            os.stat(f"{self.path}/bin/python")
            return all(
                os.lstat(f"{self.path}/{name}").st_mtime_ns == mtime for name, mtime in receipt.directories
            )
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

    # ----------------------------------------------------------------------- making

    def settle(self) -> None:
        """Undo or complete what a killed run left beside the place."""
        if not os.path.lexists(self.staging):
            return
        if not os.path.lexists(self.path) and os.path.lexists(self._old):
            os.rename(self._old, self.path)
        self._remove_staging()

    @contextmanager
    def staged(self) -> Iterator[str]:
        """Give the path at which a new venv is to be made; it does not exist yet. Removed at the end."""
        self.settle()
        with _explained(self.path):
            os.makedirs(self.parent, exist_ok=True)
            os.mkdir(self.staging, 0o755)
            with open(f"{self.staging}/{_MARK}", "w", encoding="ascii") as file:
                file.write(_MARK_TEXT)
            os.mkdir(os.path.dirname(self.new))
            os.mkdir(os.path.dirname(self._old))
        try:
            yield self.new
        finally:
            self._remove_staging()

    def swap_in(self, *, keep_old: bool) -> str:
        """Put the staged venv at the place, in one step where the kernel can; return where the old one went.

        *keep_old*: the old one is not ours, and is moved beside under another name instead of being
        deleted. Raises Refused when that name is taken.
        """
        with _explained(self.path), directory(self.parent) as parent, directory(self.staging) as staging:
            if keep_old:
                kept = self.name + KEPT_SUFFIX
                if os.path.lexists(os.path.join(self.parent, kept)):
                    raise _kept_twice(os.path.join(self.parent, kept))
                os.rename(self.name, kept, src_dir_fd=parent, dst_dir_fd=parent)
            new = os.path.join("new", self.name)
            if not os.path.lexists(self.path):
                os.rename(new, self.name, src_dir_fd=staging, dst_dir_fd=parent)
            elif not exchange(new, self.name, first_fd=staging, second_fd=parent):
                os.rename(self.name, os.path.join("old", self.name), src_dir_fd=parent, dst_dir_fd=staging)
                os.rename(new, self.name, src_dir_fd=staging, dst_dir_fd=parent)
            os.fsync(parent)
        return os.path.join(self.parent, kept) if keep_old else ""

    def remove(self) -> None:
        """Delete the venv: moved aside in one step first, so a kill never leaves half a venv at the place."""
        with self.staged(), _explained(self.path):
            os.rename(self.path, self._old)

    def _remove_staging(self) -> None:
        try:
            st = os.lstat(self.staging)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(st.st_mode) or not (
            os.path.lexists(f"{self.staging}/{_MARK}") or not os.listdir(self.staging)
        ):
            raise Refused(
                "it has the name of a staging directory, but venvflow did not make it",
                where=shown(self.staging),
                state="It was left as it is, and so was the venv.",
                hint="Move it away, then run again.",
            )
        with _explained(self.staging), directory(self.parent) as parent:
            remove_tree(os.path.basename(self.staging), parent, st.st_dev)


_REFUSALS: dict[State, tuple[str, str]] = {
    "symlink": (
        "the venv's path is a symlink{target}; venvflow does not replace or delete through links",
        "Name the real directory in the config, or remove the link.",
    ),
    "file": ("there is a file where the venv should be", "Move it away, or change the venv's path."),
    "mount": (
        "the venv's path is a mount point, which cannot be replaced by rename",
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
    """Return whether *path* is a mount point; bind mounts within one file system show in mountinfo only."""
    if st.st_dev != os.lstat(os.path.dirname(path)).st_dev:
        return True
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            points = {_unescaped(line.split(b" ")[4]) for line in file}
    except (OSError, IndexError):
        return False
    return os.fsencode(path) in points


def _unescaped(field_: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field_)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot change the venv's place: {error.strerror}",
            where=shown(error.filename or path),
            state="The venv that was there is still there.",
            hint="Check permissions, owner and free space of its parent directory.",
        ) from error


# --------------------------------------------------------------------------- receipts and removal


def write_receipt(venv: str, receipt: Receipt) -> None:
    """Write the receipt of the venv at path *venv*, replacing an older one in one step."""
    document = {name: getattr(receipt, name) for name in Receipt.__slots__}
    temporary = f"{venv}/{RECEIPT}.vf-{os.getpid()}"
    with open(temporary, "w", encoding="ascii") as file:
        json.dump(document, file)
    os.replace(temporary, f"{venv}/{RECEIPT}")


def read_receipt(venv: str) -> Receipt | None:
    """Return the receipt of the venv at path *venv*, or None if there is none that makes sense."""
    try:
        with open(f"{venv}/{RECEIPT}", encoding="ascii") as file:
            document = json.load(file)
        document["trees"] = tuple(document["trees"])
        document["directories"] = tuple((name, mtime) for name, mtime in document["directories"])
        return Receipt(**document)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def watched(venv: str, directories: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Return *directories* of a venv with their mtimes, but for bytecode caches, which Python fills."""
    return tuple(
        (name, os.lstat(f"{venv}/{name}").st_mtime_ns)
        for name in directories
        if os.path.basename(name) != "__pycache__"
    )


def remove_tree(name: str, parent: int, device: int, depth: int = 0) -> None:
    """Delete the directory *name* in *parent*, by descriptors, never leaving the file system *device*.

    Raises ``OSError`` for a mount inside, or for a tree deeper than we can hold descriptors for.
    """
    if depth > DEEPEST:
        raise OSError(0, f"directories are nested deeper than {DEEPEST}", name)
    fd = _writable_directory(name, parent)
    try:
        if os.fstat(fd).st_dev != device:
            raise OSError(0, "another file system is mounted inside", name)
        with os.scandir(fd) as entries:
            children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_directory in children:
            if is_directory:
                remove_tree(child, fd, device, depth + 1)
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
    mode = os.fstat(fd).st_mode
    if not mode & stat.S_IWUSR:
        os.fchmod(fd, stat.S_IMODE(mode) | stat.S_IRWXU)
    return fd
