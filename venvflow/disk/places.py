"""The place of a venv: what is there, its receipt, the staging beside it, the swap, and safe removal.

A venv is made in a staging directory beside its place, under the same base name, and swapped in by
rename, so that at every moment the old venv or the new one is there, whole. Staging directories are
called ``.vf-<id>`` and hold ``new/<name>``, ``old/<name>`` (a venv that may have to go back) and
``gone/<name>`` (one that need not); what a kill leaves in them is settled by the next run, under the
venv's lock (:meth:`Place.settle`). A large venv that was replaced is deleted by a process that nobody waits
for, in a directory ``.vf-<id>.gone``, or ``.gone.2`` or ``.gone.3`` while there is that.

Where a venv's directory cannot be renamed (it is a mount point, or lies in a lower layer of an overlay), the
new venv takes its place file by file. That is noted before it begins, and the next run completes it.

Nothing here follows a symlink, and nothing is deleted that is not a venv or a staging directory of ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from itertools import count
from typing import NamedTuple, get_args

from venvflow.disk.attributes import FOR_MOST, MODE_BITS
from venvflow.disk.descriptors import CREATE, directory, exists, names_in, open_directory, reach
from venvflow.disk.directories import clear, discard, fill, move, remove_opened
from venvflow.disk.files import read_small, write_whole
from venvflow.disk.kernel import exchange, move_new, sync_file_system
from venvflow.disk.mounts import mounts_at
from venvflow.disk.system_errors import explained
from venvflow.errors import LockTimeout, Refused, shown
from venvflow.model import LinkMode, PlaceState, Receipt
from venvflow.pure import decoding

RECEIPT = ".venvflow.json"
"""Name of the receipt in a venv: which key it was made for. It is never stored, packed or restored."""

KEPT_SUFFIX = ".before-venvflow"
"""What is appended to the name of a venv that was there before and that venvflow did not make.

A number goes before it if that name is taken.
"""

_MARK = ".gitignore"
_MARK_TEXT = b"# A staging directory of venvflow: it goes away when the run is over.\n*\n"

_GONE_SUFFIXES = (".gone", ".gone.2", ".gone.3")
"""What is appended to the name of a staging directory in which there is nothing but what can go.

As many are deleted at once while nobody waits: more of them would soon fill a slow disk.
"""

_MANY = 500
"""Directories of the smallest venv that nobody waits for until it is deleted: others take no time."""

_NEW, _OLD, _GONE, _KEPT = "new", "old", "gone", "kept"
"""Directories in the staging directory, for one venv each: see above; ``kept`` has a copy of a stranger's."""

_KEEPING = "keeping"
"""File in the staging directory that says: the venv that belongs here is just being moved beside.

In it is the number of the name that it gets.
"""

_DROPPED = "dropped"
"""File in the staging directory that says: what is in ``old`` is being deleted, and must not go back."""

_REPLACING = "replacing"
"""File in the staging directory that says: the venv is being replaced file by file, from this directory."""

_FILLING = "filling"
"""File in the staging directory that says: nothing is in the way any more, files are moved in."""

_HALF = ".vf-half"
"""File in a venv that is being replaced file by file."""

_MOUNTS_OWN = ("lost+found",)
"""What a file system has at its top by itself."""

PATIENCE = 10.0
"""Seconds for which a run waits for another one that makes a venv at the same place."""

_VENV_NAMES = {"bin", "include", "lib", "lib64", "share", "etc", "man", "CACHEDIR.TAG", ".gitignore", ".lock"}
"""What the top of a venv that lost its pyvenv.cfg may still hold."""


class Place:
    """The absolute path of one venv; its parent is resolved once, the last name never.

    *patience* is for how many seconds a run waits for another one that makes a venv there.
    """

    def __init__(self, path: str, *, patience: float = PATIENCE) -> None:
        parent, self.name = os.path.split(os.path.normpath(path))
        self.parent = os.path.realpath(parent)
        self.path = os.path.join(self.parent, self.name)
        self._patience = patience
        self.guard = -1  # a descriptor that locks the staging directory, while there is one
        self._tag = f".vf-{hashlib.sha256(os.fsencode(self.name)).hexdigest()[:8]}"
        self._gone_names = [self._tag + suffix for suffix in _GONE_SUFFIXES]
        self._held: _Held | None = None
        self._kept = 0  # the number of the name that a venv got which was moved beside

    @cached_property
    def mounted(self) -> bool:
        """Return whether the place is a mount point: then staging lies in it, and its entries are swapped."""
        try:
            other_device = os.lstat(self.path).st_dev != os.lstat(self.parent).st_dev
        except OSError:
            return False
        return other_device or self.path in mounts_at(self.path)

    @property
    def staging(self) -> str:
        """Return the path of the staging directory, which need not be there."""
        return os.path.join(self.path if self.mounted else self.parent, self._tag)

    @property
    def new(self) -> str:
        """Return the path at which a new venv is made."""
        return os.path.join(self.staging, _NEW, self.name)

    # ----------------------------------------------------------------------- looking

    def state(self, made_inode: int | None = None) -> PlaceState:
        """Return what is at the place, without following a link there.

        *made_inode* is the inode of the directory that we made here last: with it, a venv that lost even
        its pyvenv.cfg is still known to be ours. Raises EnvironmentFailure when one may not even look.
        """
        with (
            explained("cannot look at the venv's place", at=self.path, state="Nothing was changed."),
            suppress(FileNotFoundError, NotADirectoryError),
        ):
            st = os.lstat(self.path)
            return _obstacle(self.path, st) or self._kind(made_here=st.st_ino == made_inode)
        return "absent"

    def _kind(self, *, made_here: bool) -> PlaceState:
        """Return what the directory at the place is.

        Without a receipt that makes sense it may be somebody's: tools that clear a venv keep the
        directory, and file systems soon use an inode again. What is somebody's cannot be moved beside from
        a mount point.
        """
        kind = self._of_names(set(os.listdir(self.path)) - {self._tag, *_MOUNTS_OWN}, made_here=made_here)
        return "mount" if self.mounted and kind in ("venv", "stranger") else kind

    def _of_names(self, names: set[str], *, made_here: bool) -> PlaceState:
        receipt = _legible_receipt(self.path) if RECEIPT in names else None
        if receipt is not None:
            return "ours" if receipt.key else "venv"  # without a key it was only shared, not made by us
        if {RECEIPT, "pyvenv.cfg"} & names:
            return "venv"
        if not names:
            return "empty"
        return "ours" if made_here and names <= _VENV_NAMES else "stranger"

    def kept(self) -> list[str]:
        """Return the paths of the venvs that were there before and are kept beside, the first one first."""
        like = re.compile(rf"{re.escape(self.name)}(?:\.([0-9]{{1,9}}))?{re.escape(KEPT_SUFFIX)}")
        with suppress(FileNotFoundError):
            found = filter(None, map(like.fullmatch, os.listdir(self.parent)))
            return [f"{self.parent}/{each[0]}" for each in sorted(found, key=lambda each: int(each[1] or 1))]
        return []

    def receipt(self) -> Receipt | None:
        """Return the receipt in the venv, or None if there is none that makes sense."""
        return read_receipt(self.path)

    def inode(self) -> int | None:
        """Return the inode of the venv's directory, if there is one."""
        with suppress(OSError):
            return os.lstat(self.path).st_ino
        return None

    def has_same_directories(self, receipt: Receipt) -> bool:
        """Return whether no directory of the venv changed, and what it needs is there, by stat alone.

        That is its interpreter, and what editable installs lead to. It does not see a file that was edited in
        place: that takes a look at every file.
        """
        if receipt.path != self.path:
            return False
        try:
            with directory(self.path) as fd:
                for path in ("bin/python", *receipt.needs):
                    os.stat(path, dir_fd=fd)
                return os.fstat(fd).st_mtime_ns == receipt.top and _have_mtimes(fd, receipt.directories)
        except OSError:
            return False

    def refuse_unless_replaceable(self, state: PlaceState) -> None:
        """Raise Refused when what is at the place must not be replaced by a venv."""
        if state in _REFUSALS:
            what, hint = _REFUSALS[state]
            target = f" to {shown(os.readlink(self.path))}" if state == "symlink" else ""
            raise Refused(
                what.format(target=target),
                where=shown(self.path),
                state="It was left as it is.",
                hint=hint.format(path=shown(shlex.quote(self.path))),
            )

    # ----------------------------------------------------------------------- making

    def is_unsettled(self) -> bool:
        """Return whether a killed run left something beside the place, or a run is at work there now.

        By a few ``stat`` for a place with nothing beside it. In a mount point the venv's own directory tells.
        """
        staging = os.path.join(self.parent, self._tag)
        if os.path.lexists(staging):
            with suppress(OSError), directory(self.parent) as parent:
                return _is_ours(self._tag, parent)
        return any(map(self._is_left, self._gone_names))

    def _is_left(self, gone: str) -> bool:
        """Return whether a replaced venv has this name, and the process that was to delete it is gone."""
        if os.path.lexists(f"{self.parent}/{gone}"):
            with suppress(OSError), directory(self.parent) as parent, directory(gone, dir_fd=parent) as fd:
                return _is_ours(gone, parent) and _is_free(fd)
        return False

    def settle(self) -> None:
        """Undo or complete what a killed or failed run left beside the place.

        Raises Refused when something that is not ours has the name of the staging directory.
        """
        for gone in self._gone_names:
            self._drop_gone(gone)
        if not os.path.lexists(self.staging):
            return
        with _explained(self.staging, self._as_it_is):
            try:
                with self._holding() as held:
                    if held.is_there(self._tag):  # else who held it has removed it
                        self._clear(held)
            except FileNotFoundError:
                if os.path.lexists(self.staging):
                    raise  # else it was removed while we looked at it
        _sweep_scratch()

    def _drop_gone(self, gone: str) -> None:
        """Delete what is left of a replaced venv, if the process that was to do that is gone."""
        path = os.path.join(self.parent, gone)
        if os.path.lexists(path):
            with (
                _explained(path, self._as_it_is),
                suppress(FileNotFoundError),  # it is gone by now
                directory(self.parent) as parent,
                directory(gone, dir_fd=parent) as fd,
            ):
                if _is_ours(gone, parent) and _is_free(fd):
                    remove_opened(gone, fd, parent, (_MARK,))

    @contextmanager
    def staged(self) -> Iterator[str]:
        """Give the path at which a new venv is to be made; it does not exist yet. Removed at the end."""
        self.settle()
        with ExitStack() as stack:
            with _explained(self.path, self._as_it_is):
                held = stack.enter_context(self._holding(make=True))
            self.guard, self._held = held.staging, held
            stack.callback(self._let_go, held)
            with _explained(self.path, self._as_it_is):
                _write_new(_MARK, held.staging, _MARK_TEXT)
                for slot in (_NEW, _OLD, _GONE):
                    os.mkdir(slot, 0o755, dir_fd=held.staging)
            yield self.new

    def _let_go(self, held: _Held) -> None:
        from venvflow.disk.uninterrupted import uninterrupted  # noqa: PLC0415 - a run with nothing to do ends nothing

        self.guard, self._held = -1, None
        with uninterrupted(), _explained(self.staging, self._as_it_is):
            self._undo_or_complete(held)
            if not self._remove_later(held):
                self._remove_staging(held)

    @contextmanager
    def _holding(self, *, make: bool = False) -> Iterator[_Held]:
        """Open the directories that a swap changes, and lock the staging directory, made if asked for.

        All that follows is done by their descriptors: what has their paths may be something else by then.
        Raises LockTimeout when another run goes on holding it; what a killed one started is about to end. The
        lock of a project's venv does not do: two configs may name one place, and it lies in a directory that
        may be deleted at any time.
        """
        from venvflow.disk import locks  # noqa: PLC0415 - a run with nothing to do makes nothing

        with ExitStack() as stack:

            def opened(fd: int) -> int:
                stack.callback(os.close, fd)
                return fd

            parent = opened(reach(self.parent, make=_make if make else None))
            home = opened(open_directory(self.name, dir_fd=parent)) if self.mounted else parent
            if make:
                _need_descriptors(home)
                os.mkdir(self._tag, 0o755, dir_fd=home)
            elif not _is_ours(self._tag, home):
                raise _foreign_staging(self.staging)
            staging = opened(open_directory(self._tag, dir_fd=home))
            if not locks.hold(staging, self._patience):
                holder = locks.holder(self.staging)
                raise LockTimeout(
                    f"another run is making a venv at this place: {holder}",
                    where=shown(self.path),
                    state="Nothing was changed.",
                    hint=f"{holder.way_out}; if two configs name this path, change one of them.",
                )
            yield _Held(parent, home, staging)

    def swap_in(self, *, keep_old: bool) -> str:
        """Put the staged venv at the place, in one step where the kernel can; return where the old one went.

        *keep_old*: the old one is not ours, and is moved beside under another name instead of being
        deleted. Where the kernel moves no directories, files are moved one by one: that is noted first, so
        that :meth:`settle` completes it after a kill.
        """
        held = self._held
        assert held is not None  # noqa: S101 - only within staged()
        with self._changing(held):
            movable = not keep_old or self._move_beside(held)
            if not movable:
                self._copy_beside(held)
            if not (movable and self._rename_in(held)):
                self._replace(held, _NEW)
        with _explained(self.path, lambda: "The new venv is in its place."):
            os.fsync(held.parent)
        return os.path.join(self.parent, self._name_beside(self._kept)) if keep_old else ""

    @contextmanager
    def _changing(self, held: _Held) -> Iterator[None]:
        """Undo or complete what an error cuts short, before it is said what state the place is in."""
        with _explained(self.path, self._as_it_is):
            try:
                yield
            except OSError:
                with suppress(OSError):
                    self._undo_or_complete(held)
                raise

    def _rename_in(self, held: _Held) -> bool:
        """Swap by rename; return whether that could be done."""
        if self.mounted:
            return False
        with directory(_NEW, dir_fd=held.staging) as new, directory(_OLD, dir_fd=held.staging) as old:
            if exists(self.name, held.parent):
                if exchange(self.name, self.name, first_fd=new, second_fd=held.parent):
                    return True
                if not move(self.name, held.parent, self.name, old):
                    return False
            return move(self.name, new, self.name, held.parent)

    def _move_beside(self, held: _Held) -> bool:
        """Move a venv that is not ours beside; return whether that could be done."""
        self._kept = self._free_number(held)
        _write_new(_KEEPING, held.staging, str(self._kept).encode("ascii"), sync=True)
        return move(self.name, held.parent, self._name_beside(self._kept), held.parent)

    def _name_beside(self, number: int) -> str:
        return f"{self.name}.{number}{KEPT_SUFFIX}" if number > 1 else self.name + KEPT_SUFFIX

    def _free_number(self, held: _Held) -> int:
        """Return the number of the first name beside the place that nothing has."""
        return next(each for each in count(1) if not exists(self._name_beside(each), held.parent))

    def _copy_beside(self, held: _Held) -> None:
        """Copy a venv that is not ours; the copy gets its name when the original is about to be replaced."""
        from shutil import copytree  # noqa: PLC0415 - needed for an image's venv only

        os.mkdir(_KEPT, 0o755, dir_fd=held.staging)
        copytree(self.path, os.path.join(self.staging, _KEPT, self.name), symlinks=True)

    def remove(self) -> None:
        """Delete the venv: moved aside in one step first, so a kill never leaves half a venv at the place."""
        with self.staged():
            held = self._held
            assert held is not None  # noqa: S101 - within staged()
            with self._changing(held), directory(_GONE, dir_fd=held.staging) as gone:
                if self.mounted or not move(self.name, held.parent, self.name, gone):
                    os.mkdir(self.name, dir_fd=gone)
                    self._replace(held, _GONE)

    # ----------------------------------------------------------------------- replacing file by file

    def _replace(self, held: _Held, slot: str) -> None:
        """Let the venv in *slot* take the place of what is there without moving that.

        While this is at work there is a mark in the venv: one that is without it was finished, or is another
        one by now, and must neither be changed nor be given what is left.
        """
        with directory(slot, dir_fd=held.staging) as fd, directory(self.name, dir_fd=fd) as source:
            sync_file_system(source)
        with suppress(FileExistsError):
            os.mkdir(self.name, 0o755, dir_fd=held.parent)
        with directory(self.name, dir_fd=held.parent) as venv:
            _write_new(_HALF, venv, b"")
            os.fsync(venv)
        _write_new(_REPLACING, held.staging, slot.encode(), sync=True)
        os.fsync(held.staging)
        self._complete(held, slot)

    def _complete(self, held: _Held, slot: str) -> None:
        """Go on with replacing, from wherever it was cut short; the receipt goes first and comes last."""
        if exists(self.name, held.parent):
            with directory(self.name, dir_fd=held.parent) as venv:
                if exists(_HALF, venv):
                    self._name_the_copy(held)
                    self._fill(held, slot, venv)
                    self._take_mark(held, venv)
        os.fsync(held.parent)
        os.unlink(_REPLACING, dir_fd=held.staging)

    def _fill(self, held: _Held, slot: str, venv: int) -> None:
        spare = frozenset((self._tag, _HALF, RECEIPT, *_MOUNTS_OWN))
        with (
            directory(slot, dir_fd=held.staging) as fd,
            directory(self.name, dir_fd=fd) as source,
            directory(_GONE, dir_fd=held.staging) as aside,
        ):
            if not exists(_FILLING, held.staging):
                discard(RECEIPT, venv)
                clear(venv, source, aside, spare=spare)
                _write_new(_FILLING, held.staging, b"")
            fill(venv, source, spare=spare)
            self._move_receipt(os.path.join(self.staging, slot, self.name), source, venv)

    def _take_mark(self, held: _Held, venv: int) -> None:
        """Take the mark from a venv, and what was made only for it: the directory is not a venv's then."""
        times = os.fstat(venv)
        os.fsync(venv)
        os.unlink(_HALF, dir_fd=venv)
        os.utime(venv, ns=(times.st_atime_ns, times.st_mtime_ns))
        if not self.mounted:
            with suppress(OSError):  # it is not empty
                os.rmdir(self.name, dir_fd=held.parent)

    def _move_receipt(self, path: str, source: int, venv: int) -> None:
        """Give the venv the receipt that came with it, which knows its directories as they are now."""
        receipt = read_receipt(path)
        if receipt is not None:
            names = [name for name in receipt.directories if exists(name, venv)]
            top = os.fstat(source).st_mtime_ns
            write_receipt(path, replace(receipt, directories=directory_mtimes(self.path, names)), sync=True)
            os.rename(RECEIPT, RECEIPT, src_dir_fd=source, dst_dir_fd=venv)
            os.utime(venv, ns=(top, top))

    def _name_the_copy(self, held: _Held) -> None:
        if exists(_KEPT, held.staging):
            with directory(_KEPT, dir_fd=held.staging) as fd:
                if exists(self.name, fd):
                    self._kept = self._free_number(held)
                    beside = self._name_beside(self._kept)
                    os.rename(self.name, beside, src_dir_fd=fd, dst_dir_fd=held.parent)

    # ----------------------------------------------------------------------- settling

    def _clear(self, held: _Held) -> None:
        self._undo_or_complete(held)
        self._remove_staging(held)

    def _undo_or_complete(self, held: _Held) -> None:
        slot = _replacing_from(held.staging)
        if slot:
            self._complete(held, slot)
            return
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            directory(self.name, dir_fd=held.parent) as venv,
        ):
            self._take_mark(held, venv)
        if not exists(self.name, held.parent):
            self._put_back(held)

    def _put_back(self, held: _Held) -> None:
        """Give the place its venv again, if the swap was cut short after it had been moved away."""
        if exists(_OLD, held.staging) and not exists(_DROPPED, held.staging):
            with directory(_OLD, dir_fd=held.staging) as old:
                found = exists(self.name, old)
                if found and not move(self.name, old, self.name, held.parent):
                    self._replace(held, _OLD)
            if found:
                return
        if exists(_KEEPING, held.staging):
            noted = read_small(_KEEPING, dir_fd=held.staging).decode("ascii", "replace")
            kept = self._name_beside(int(noted) if re.fullmatch(r"[0-9]{1,9}", noted) else 1)
            if exists(kept, held.parent):
                os.rename(kept, self.name, src_dir_fd=held.parent, dst_dir_fd=held.parent)

    def _remove_staging(self, held: _Held) -> None:
        """Delete the staging directory, its mark last: a kill must not leave what looks like a stranger's."""
        staging = held.staging
        if exists(_OLD, staging):  # from now on what is there may be incomplete, and must not go back
            with suppress(FileExistsError):
                _write_new(_DROPPED, staging, b"")
        remove_opened(self._tag, staging, held.home, (_DROPPED, _MARK))

    def _remove_later(self, held: _Held) -> bool:
        """Let a process of its own delete the venv that was replaced; return False if it is better done here.

        Under the name that the staging directory gets, nobody looks for a venv that may have to go back. CI
        systems end all processes with the job, and may keep what they leave.
        """
        if self.mounted or os.environ.get("CI") or not self._has_much_to_remove():
            return False
        for gone in self._gone_names:
            with suppress(FileExistsError):  # the one before is still being deleted
                if not move_new(self._tag, gone, source_fd=held.home, fd=held.home):
                    return False
                break
        else:
            return False
        from venvflow.disk.background_removal import remove_later  # noqa: PLC0415 - only after a swap

        if not remove_later(gone, held.staging, held.home, _MARK):
            remove_opened(gone, held.staging, held.home, (_MARK,))
        return True

    def _has_much_to_remove(self) -> bool:
        venvs = (os.path.join(self.staging, slot, self.name) for slot in (_NEW, _OLD))
        receipts = filter(None, map(read_receipt, venvs))
        return any(len(receipt.directories) >= _MANY for receipt in receipts)

    def _as_it_is(self) -> str:
        """Return the sentence that says what state the place is in, after a failure."""
        if os.path.lexists(f"{self.staging}/{_REPLACING}"):
            return "The venv is replaced file by file here, and that is not finished: run again to finish."
        old = os.path.join(self.staging, _OLD, self.name)
        if not os.path.lexists(self.path) and os.path.lexists(old):
            return f"The venv that was there is {shown(old)}: run again to put it back."
        return "What is at the venv's place is whole."


def _sweep_scratch() -> None:
    """Remove the temporary files of builders that were killed, as it is done before each build."""
    from venvflow.disk.files import remove_leftovers  # noqa: PLC0415 - after a kill only
    from venvflow.disk.scratch import place  # noqa: PLC0415 - as above

    remove_leftovers(place())


class _Held(NamedTuple):
    """Descriptors: of the directory that the place is in, of the one that staging is in, and of staging."""

    parent: int
    home: int
    staging: int

    def is_there(self, name: str) -> bool:
        """Return whether the staging directory still has its name."""
        try:
            found = os.stat(name, dir_fd=self.home, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self.staging))


def _replacing_from(staging: int) -> str:
    """Return from which directory the venv is being replaced, empty if that was not even written down."""
    if not exists(_REPLACING, staging):
        return ""
    noted = read_small(_REPLACING, dir_fd=staging).decode("ascii", "replace")
    return noted if noted in (_NEW, _OLD, _GONE) else ""


_SPARE = 40
"""Open files that must be allowed: what is staged could not be removed with fewer, one for each level."""


def _need_descriptors(fd: int) -> None:
    """Raise ``OSError`` if this process may not open the files that staging will need."""
    with ExitStack() as stack:
        for _ in range(_SPARE):
            stack.callback(os.close, os.dup(fd))


def _is_ours(name: str, parent: int) -> bool:
    """Return whether *name* is a staging directory of ours, or the empty beginning of one.

    Root settles those of whoever has the directory that they are in, nobody else those of others.
    """
    st = os.stat(name, dir_fd=parent, follow_symlinks=False)
    us = os.geteuid()
    owners = {us} if us else {us, os.fstat(parent).st_uid}
    if not stat.S_ISDIR(st.st_mode) or st.st_uid not in owners:
        return False
    with directory(name, dir_fd=parent) as fd:
        try:
            return _MARK_TEXT.startswith(read_small(_MARK, largest=len(_MARK_TEXT), dir_fd=fd))
        except OSError:
            return not names_in(fd)


def _is_free(fd: int) -> bool:
    """Return whether nobody else is at work in an open directory; the lock is held until it is closed."""
    from venvflow.disk import locks  # noqa: PLC0415 - a run with nothing to do locks nothing

    return locks.hold(fd, 0)


def _foreign_staging(path: str) -> Refused:
    return Refused(
        "it has the name of a staging directory, but venvflow did not make it, or another user's did",
        where=shown(path),
        state="It was left as it is, and so was the venv.",
        hint="Move it away, then run again.",
    )


def _make(name: str, fd: int) -> None:
    os.mkdir(name, dir_fd=fd)


def _write_new(name: str, dir_fd: int, data: bytes, *, sync: bool = False) -> None:
    with open(os.open(name, CREATE, 0o644, dir_fd=dir_fd), "wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


_REFUSALS: dict[PlaceState, tuple[str, str]] = {
    "symlink": (
        "the venv's path is a symlink{target}; venvflow does not replace or delete through links",
        "Name the real directory in the config, or remove the link.",
    ),
    "file": ("there is a file where the venv should be", "Move it away, or change the venv's path."),
    "mount": (
        "it is a mount point with something that venvflow did not make, or something is mounted inside",
        "Empty the mount, unmount what is inside, or change the venv's path.",
    ),
    "stranger": (
        "the directory is neither empty nor a venv (it has no pyvenv.cfg)",
        "Move it away, or change the venv's path.",
    ),
    "other-owner": (
        "the venv belongs to another user",
        "Run as its owner, or change the venv's path. If a run as root made it: sudo rm -r {path}",
    ),
}


def _obstacle(path: str, st: os.stat_result) -> PlaceState | None:
    if stat.S_ISLNK(st.st_mode):
        return "symlink"
    if not stat.S_ISDIR(st.st_mode):
        return "file"
    if any(point != path for point in mounts_at(path)):
        return "mount"
    return "other-owner" if os.geteuid() not in (0, st.st_uid) else None


def _explained(path: str, state: Callable[[], str]) -> AbstractContextManager[None]:
    """Explain an error of the file system; *state* says what is at the place, once that is known."""
    return explained("cannot change the venv's place", at=path, state=state)


# --------------------------------------------------------------------------- receipts and removal


def write_receipt(venv: str, receipt: Receipt, *, sync: bool = False) -> None:
    """Write the receipt of the venv at path *venv*, replacing an older one in one step.

    The directory gets back the mtime that it had, so that only what others do there shows. With *sync* it
    is on disk before it has its name: a venv without a receipt that makes sense is not known as ours. Raises
    EnvironmentFailure.
    """
    with _explained(venv, lambda: "The venv works; its receipt is as it was."):
        top = os.lstat(venv).st_mtime_ns
        document = {name: getattr(receipt, name) for name in Receipt.__slots__}
        document["warnings"] = [*map(decoding.storable, receipt.warnings)]
        data = json.dumps({**document, "top": top}).encode("ascii")
        try:
            write_whole(f"{venv}/{RECEIPT}", data, sync=sync)
        finally:
            os.utime(venv, ns=(top, top))


def read_receipt(venv: str) -> Receipt | None:
    """Return the receipt of the venv at path *venv*, or None if there is none that makes sense."""
    with suppress(PermissionError):
        return _legible_receipt(venv)
    return None


def _legible_receipt(venv: str) -> Receipt | None:
    """Return the receipt of the venv as :func:`read_receipt` does.

    Raises ``PermissionError`` for one that we may not read: then it is not known whose the venv is.
    """
    path = f"{venv}/{RECEIPT}"
    try:
        st = os.lstat(path)
        stamp = st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns
        known = _last_read.get(path)
        if known is None or known[0] != stamp:
            known = stamp, decode_receipt(read_small(path))
            _last_read.clear()
            _last_read[path] = known
    except PermissionError:
        raise
    except (OSError, decoding.Corrupt):
        return None
    return known[1]


_last_read: dict[str, tuple[tuple[int, ...], Receipt]] = {}
"""The receipt that was read last, by its path, with what tells that it is the same: steps ask again."""


def decode_receipt(data: bytes) -> Receipt:
    """Return the receipt that *data* spells; raises :class:`~venvflow.pure.decoding.Corrupt`.

    A venv may come from anybody, its receipt with it: what it says can name nothing outside the venv but by
    a hash, and no mode with which a file would run as somebody else.
    """
    return Receipt(
        **decoding.fields(
            decoding.parse(data),
            key=decoding.or_nothing(decoding.digest),
            path=decoding.absolute,
            state=decoding.one_of("built", "shared"),
            made=decoding.one_of("built", "restored", "taken", "shared"),
            python=decoding.or_nothing(decoding.absolute),
            trees=decoding.listed(decoding.digest),
            bound=decoding.flag,
            link=decoding.one_of("", *get_args(LinkMode)),
            stats=decoding.or_nothing(decoding.digest),
            store=decoding.or_nothing(decoding.absolute),
            warnings=decoding.listed(decoding.text),
            modes=_modes,
            times=_times,
            private=_private,
            written=decoding.mtime,
            needs=decoding.listed(decoding.absolute),
            settings=decoding.text,
            copies=_copies,
            contents=decoding.text,
            directories=_times,
            build_seconds=decoding.duration,
            top=decoding.mtime,
        )
    )


def _modes(value: object) -> dict[str, int]:
    """Return modes by path; two more names give the modes that most files have."""
    modes: dict[str, int] = decoding.mapped(decoding.text, decoding.integer(0, MODE_BITS))(value)
    decoding.check_paths([path for path in modes if path not in FOR_MOST])
    return modes


def _copies(value: object) -> tuple[str, ...]:
    copies = decoding.listed(decoding.text)(value)
    decoding.check_paths(copies)
    return copies


def _private(value: object) -> dict[str, str]:
    private: dict[str, str] = decoding.mapped(decoding.text, decoding.digest)(value)
    decoding.check_paths(private)
    return private


def _times(value: object) -> dict[str, int]:
    times: dict[str, int] = decoding.mapped(decoding.anything, decoding.anything)(value)
    decoding.check_paths(times)
    decoding.check_integers(times.values(), -decoding.LARGEST_TIME, decoding.LARGEST_TIME)
    return times


def _have_mtimes(fd: int, directories: Mapping[str, int]) -> bool:
    """Return whether directories below *fd* have these mtimes; raises ``OSError`` for one that is gone."""
    stat_at = os.stat  # for every directory of every venv, on every run: a path from the root takes longer
    for name, mtime in directories.items():
        if stat_at(name, dir_fd=fd, follow_symlinks=False).st_mtime_ns != mtime:
            return False
    return True


def directory_mtimes(venv: str, directories: Iterable[str]) -> dict[str, int]:
    """Return *directories* of a venv with their mtimes, but for bytecode caches, which Python fills."""
    stat_at = os.stat  # for every directory, as above
    with directory(venv) as fd:
        return {
            name: stat_at(name, dir_fd=fd, follow_symlinks=False).st_mtime_ns
            for name in directories
            if name.rpartition("/")[2] != "__pycache__"
        }
