"""Looks: how the files of shared venvs should look, and whether they do, by one ``stat`` of each.

An edit in place moves a file's mtime and leaves its directory alone; a change of mode or owner does not move
even that, and reaches all venvs that have the file. A venv that is linked to the store has
the store's own files, so one look at an object stands for all venvs that share it; its private files are
looked at one by one, and so are all files of a venv with inodes of its own (``copy``, ``reflink``).

What to look for stands in the venv's trees. To decode them takes longer than to look, so a project keeps a
list of what it needs of them (:func:`read_looks`), which may be deleted at any time.

Where this stops being safe: nobody sees who puts back size and mtime. Not looked at are a file that became
private because somebody changed it while it was shared, one with another inode than its object (names beyond
a file's limit, an object that was made anew), and bytecode, which Python may write again. ``verify`` looks at
every file.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from venvflow.disk.descriptors import directory
from venvflow.disk.files import read_small, write_whole
from venvflow.errors import EnvironmentFailure
from venvflow.model import MTIME_NS, Entry, Receipt
from venvflow.pure import decoding

if TYPE_CHECKING:
    from venvflow.disk.objects import Look, Name

_FORMAT = 3
_ANY_SIZE = -1


class Looks(NamedTuple):
    """How the files of one tree should look, in five lists of the same length.

    *paths* are below the venv, *objects* below ``objects/`` of the store, empty for files that no venv is
    linked to. *sizes* are in bytes, -1 where each venv has its own; *mtimes* are in nanoseconds, *modes*
    those of objects: what is a venv's own may have any with which a program can be run.
    """

    paths: list[str]
    objects: list[str]
    sizes: list[int]
    mtimes: list[int]
    modes: list[int]


def looks_of(entries: Iterable[Entry], adopted: Mapping[Name, Look]) -> Looks:
    """Return how the files of a tree's *entries* should look; *adopted* objects keep a look of their own."""
    from venvflow.disk.objects import file_of, object_name, sealed  # noqa: PLC0415 - not for who has it written down
    from venvflow.pure.sharing import stays_private  # noqa: PLC0415
    from venvflow.state.witness import is_ignored  # noqa: PLC0415

    looks = Looks([], [], [], [], [])
    for entry in entries:
        if entry.digest and not is_ignored(entry.path):
            name = object_name(entry)
            private = stays_private(entry, 1, adopted=name in adopted)
            looks.paths.append(entry.path)
            looks.objects.append("" if private else file_of(name))
            looks.sizes.append(_ANY_SIZE if entry.kind == "template" else entry.size)
            look = adopted.get(name) or sealed(name)
            looks.mtimes.append(look.mtime_ns)
            # A script is a template, whose object is only data.
            looks.modes.append(look.mode | stat.S_IXUSR if entry.executable else look.mode)
    return looks


# --------------------------------------------------------------------------- looking

_Row = tuple[str, int, int, int]
"""A name, and the size, the mtime and the whole mode that it should have.

Of a venv's own file only ``S_IXUSR`` for a program, 0 for one whose mode may be any.
"""


class _Work(NamedTuple):
    """What is looked at for a tree of these *looks*: *objects* once, and *own* files of each venv, or all."""

    objects: list[_Row]
    own: list[_Row]
    looks: Looks

    @property
    def all(self) -> list[_Row]:
        """Return all files; hardly ever asked for, so they are not kept."""
        looks = self.looks
        runs = [mode & stat.S_IXUSR for mode in looks.modes]
        return list(zip(looks.paths, looks.sizes, looks.mtimes, runs, strict=True))


class Watch:
    """One look at many venvs, at each object once; *looked* counts the files.

    *objects* is the directory of the store's objects. *looks* gives the looks of a tree by its digest, None
    where nobody knows them.
    """

    def __init__(self, objects: str, looks: Callable[[str], Looks | None]) -> None:
        self.looked = 0
        self._objects = objects
        self._looks = looks
        self._work: dict[tuple[str, int], _Work | None] = {}
        self._found: dict[tuple[str, int], Literal["as made", "changed", "gone"]] = {}

    def as_made(self, venv: str, receipt: Receipt, min_size: int) -> bool:
        """Return whether all files of the venv at path *venv* have the sizes and times that they had.

        *min_size* (bytes) is that below which its files are private. Files added or removed are not looked
        for: they show in its directories. Where nobody knows what it was made of, every file is looked at,
        and compared with the receipt's witness.
        """
        seen = self._as_trees_say(venv, receipt, min_size) if receipt.state == "shared" else None
        if seen is not None:
            return seen
        from venvflow.disk.scan import walk  # noqa: PLC0415 - a run with nothing to do knows
        from venvflow.state.witness import witness_of  # noqa: PLC0415

        with suppress(EnvironmentFailure):
            found = walk(venv)
            self.looked += len(found)
            return witness_of(found) == receipt.witness
        return False

    def _as_trees_say(self, venv: str, receipt: Receipt, min_size: int) -> bool | None:
        linked = receipt.link in ("hardlink", "symlink")
        work = [(digest, self._work_for(digest, min_size)) for digest in receipt.trees]
        try:
            with directory(venv) as fd:
                for digest, each in work:
                    if each is None:
                        return None
                    if not self._tree_as_made(fd, (digest, min_size), each, linked=linked):
                        return False
        except OSError:
            return False
        return True

    def _tree_as_made(self, fd: int, key: tuple[str, int], work: _Work, *, linked: bool) -> bool:
        found = self._objects_found(key, work) if linked else "gone"
        if found == "changed":
            return False
        # Without its objects, a venv of hard links is whole all the same: its own names have the files.
        return self._is_like(fd, work.own if found == "as made" else work.all)

    def _objects_found(self, key: tuple[str, int], work: _Work) -> Literal["as made", "changed", "gone"]:
        if key not in self._found:
            try:
                with directory(self._objects) as fd:
                    self._found[key] = "as made" if self._is_like(fd, work.objects) else "changed"
            except OSError:
                self._found[key] = "gone"
        return self._found[key]

    def _is_like(self, fd: int, rows: list[_Row]) -> bool:
        """Return whether all files look as they should; *fd* is the directory that their names are below.

        Those that should have a mode should belong to who made that directory, or to root. Raises ``OSError``
        for one that is gone.
        """
        self.looked += len(rows)
        stat_at = os.stat  # for every file, on every run
        owners = os.fstat(fd).st_uid, 0
        for name, size, mtime, mode in rows:
            st = stat_at(name, dir_fd=fd, follow_symlinks=False)
            now = st.st_mtime_ns
            if now not in (mtime, MTIME_NS) or size not in (st.st_size, _ANY_SIZE):
                return False
            if mode == stat.S_IXUSR:
                if not st.st_mode & mode:
                    return False
            elif mode and (st.st_mode != mode or st.st_uid not in owners) and not _is_fit(st, mode, owners):
                return False
        return True

    def _work_for(self, digest: str, min_size: int) -> _Work | None:
        key = digest, min_size
        if key not in self._work:
            looks = self._looks(digest)
            self._work[key] = None if looks is None else _divided(looks, min_size)
        return self._work[key]


def _is_fit(st: os.stat_result, mode: int, owners: tuple[int, int]) -> bool:
    from venvflow.disk.objects import is_promised  # noqa: PLC0415 - not for a run with nothing to do

    return st.st_uid in owners and is_promised(st.st_mode, mode)


def _divided(looks: Looks, min_size: int) -> _Work:
    work = _Work([], [], looks)
    for path, name, size, mtime, mode in zip(*looks, strict=True):
        if name and size >= min_size:
            work.objects.append((name, size, mtime, stat.S_IFREG | mode))
        else:
            work.own.append((path, size, mtime, mode & stat.S_IXUSR))
    return work


# --------------------------------------------------------------------------- kept by a project


def read_looks(path: str, store: str) -> dict[str, Looks]:
    """Return the looks by the digests of their trees that :func:`write_looks` has left at *path*.

    Nothing if there is no such file, if it is damaged, or if it is for another store than that at the path
    *store*.
    """
    try:
        noted = decode_looks(read_small(path))
    except (OSError, decoding.Corrupt):
        return {}
    return noted.trees if noted.store == store else {}


class NotedLooks(NamedTuple):
    """The looks that a project has written down, by the digests of their trees, and of which *store*."""

    store: str
    trees: dict[str, Looks]


def decode_looks(data: bytes) -> NotedLooks:
    """Return the looks that *data* spells; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    digest, _, body = data.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise decoding.Corrupt("its checksum is wrong")
    found = decoding.fields(
        decoding.parse(body),
        format=decoding.integer(_FORMAT, _FORMAT),
        store=decoding.absolute,
        trees=decoding.mapped(decoding.digest, _decode_lists),
    )
    return NotedLooks(found["store"], found["trees"])


def _decode_lists(value: object) -> Looks:
    looks = Looks(*decoding.row(*[_a_list] * len(Looks._fields))(value))
    if len({len(each) for each in looks}) != 1:
        raise decoding.Corrupt("its lists are not of the same length")
    decoding.check_paths(looks.paths)
    decoding.check_paths([each for each in looks.objects if each != ""])
    decoding.check_integers(looks.sizes, _ANY_SIZE, decoding.LARGEST_COUNT)
    decoding.check_integers(looks.mtimes, -decoding.LARGEST_TIME, decoding.LARGEST_TIME)
    decoding.check_integers(looks.modes, 0, 0o7777)
    return looks


def _a_list(value: object) -> list[Any]:
    """Return a list, whose many items are checked all at once."""
    if not isinstance(value, list):
        raise decoding.unlike(value, "a list")
    return value


def write_looks(path: str, store: str, looks: Mapping[str, Looks]) -> None:
    """Leave *looks*, by the digests of their trees, for the next run, if we may write there."""
    document = {"format": _FORMAT, "store": store, "trees": looks}
    data = json.dumps(document, separators=(",", ":")).encode("ascii")
    with suppress(OSError):
        write_whole(path, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
