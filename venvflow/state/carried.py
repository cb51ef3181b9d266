"""Carries trees of a base over into the venv that was built from it: nobody reads or hashes them again.

What was laid for the builder is known, file by file: inode, size, mtime and mode. One stat of each tells what
the builder did to it, whatever that was: a file that it wrote into has another size or mtime, one that it
replaced another inode. If it did nothing, the trees are what they were when they were stored, and all that
is left to be looked at is what came besides.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from venvflow.disk.descriptors import directory, open_directory
from venvflow.disk.files import read_small
from venvflow.disk.scan import Found, lstat
from venvflow.model import Entry, Receipt, Tree
from venvflow.pure.manifest import source_of
from venvflow.pure.relocate import record_paths
from venvflow.pure.sharing import is_written, time_of
from venvflow.state.contents import contents_of
from venvflow.state.file_stats import file_stat, is_ignored
from venvflow.state.intake import Precompiled
from venvflow.state.materialise import Materialised, Placed
from venvflow.state.recorded import records_of
from venvflow.state.survey import Survey


@dataclass(slots=True)
class Carried:
    """The *trees* that were laid, as *made* says, and are untouched; *came* is what is there besides.

    *lent* are the paths of those trees that are of other snapshots, and what they name; *listed* are the
    paths that the RECORDs of the other trees name. *filled* are the SHA-256 (in hex) and size of what
    templates became, by path.
    """

    trees: tuple[Tree, ...]
    made: Materialised
    came: list[Found]
    listed: frozenset[str]
    lent: frozenset[str] = frozenset()
    filled: dict[str, tuple[str, int]] = field(default_factory=dict)
    _contents: bytes | None = None
    _stats: list[str] | None = None

    @property
    def entries(self) -> Iterator[Entry]:
        """Yield the entries of the trees."""
        return (entry for tree in self.trees for entry in tree.entries)

    @property
    def files(self) -> int:
        """Return how many files there are."""
        return len(self.made.placed) + len(self.made.own)

    @property
    def written(self) -> list[str]:
        """Return the paths of the files that are written for this venv alone."""
        return [path for path, each in self.made.own.items() if is_written(each.entry)]

    def has(self, path: str) -> bool:
        """Return whether a file or link was laid at *path*."""
        return path in self.made.placed or path in self.made.own or path in self.made.targets

    def stats(self, written: int) -> list[str]:
        """Return the stats of all files, *written* being the mtime of those that are written for the venv.

        The templates are filled in by now.
        """
        if self._stats is None:
            placed = ((path, each) for path, each in self.made.placed.items() if not is_ignored(path))
            self._stats = [*self.made.targets, *(file_stat(path, each[2], each[3]) for path, each in placed)]
        own = (
            file_stat(path, self._size(path, each), written if is_written(each.entry) else self._time(each))
            for path, each in self.made.own.items()
            if not is_ignored(path)
        )
        return [*self._stats, *own]

    def _size(self, path: str, each: Placed) -> int:
        return self.filled[path][1] if path in self.filled else each.size

    def _time(self, each: Placed) -> int:
        return time_of(each.entry, 0) if each.entry.kind == "template" else each.mtime_ns

    def contents(self) -> bytes:
        """Return the contents of all files, which are the same before and after the rest is shared."""
        if self._contents is None:
            self._contents = contents_of(
                (entry.path, self.filled[entry.path][0] if entry.path in self.filled else entry.digest)
                for entry in self.entries
            )
        return self._contents

    def is_apart(self, survey: Survey, others: Iterable[str]) -> bool:
        """Return whether none of the *others*, and nothing that came and was surveyed, shares a path with it.

        *others* are paths that what was left out of the base has, or says that it has: of what is lent, they
        may be an earlier version.
        """
        came = {*survey.entries}.union(*(each.paths for each in survey.distributions))
        theirs = came.union(others)
        names = {(tree.name, tree.version) for tree in self.trees}
        return (
            self.listed.isdisjoint(theirs | self.lent)
            and self.lent.isdisjoint(came)
            and not any(map(self.has, theirs - self.lent))
            and names.isdisjoint((each.name, each.version) for each in survey.distributions)
        )


@dataclass(slots=True)
class Built:
    """What this process knows of a venv that it has built and not shared yet.

    *receipt* is the one in it, *inode* that of its directory, *survey* what was read of it, and *carried* the
    rest, if there is any. *precompiled* is bytecode of what was read.
    """

    receipt: Receipt
    inode: int | None
    survey: Survey
    carried: Carried | None
    precompiled: Precompiled

    def is_as_read(self, venv: str) -> bool:
        """Return whether the files that were read have the stamps that they had. Raises ``OSError``."""
        files = (item for item in self.survey.found.values() if item.kind == "file")
        with directory(venv) as fd:
            return all(lstat(item.path, dir_fd=fd).stamp == item.stamp for item in files)


def carry(
    venv: str, trees: tuple[Tree, ...], made: Materialised, lent: frozenset[str] = frozenset()
) -> Carried | None:
    """Carry over *trees*, which were *made* in the venv at the path *venv* before its builder filled it.

    *lent* are the paths of those among them that are of other snapshots. None if something of them is not as
    it was made, or not known. Raises ``OSError``.
    """
    known = made.placed.keys() | made.own.keys() | made.targets.keys()
    entries = [entry for tree in trees for entry in tree.entries]
    if not all(entry.path in known for entry in entries if entry.kind != "dir"):
        return None
    look = _Look(made)
    try:
        with directory(venv) as fd:
            look.into(fd, "")
    except (_Touched, NotADirectoryError):
        return None
    if look.misses:
        return None
    found = look.found
    above = {item.path.rpartition("/")[0] for item in found}
    if any(entry.kind == "dir" and entry.path in above for entry in entries):
        return None
    listed = frozenset(_listed(venv, (entry.path for entry in entries if entry.path not in lent)))
    carried = Carried(trees, made, found, listed, lent)
    # What the tool compiled of their sources is not taken, whatever it is: all have the store's bytecode.
    carried.came = [item for item in found if not carried.has(source_of(item.path) or "")]
    return carried


class _Touched(Exception):
    """Something is not as it was made."""


class _Look:
    """A look at what was *made* in a venv; *found* is what is there besides, with the directories above."""

    def __init__(self, made: Materialised) -> None:
        self._files, self._targets = {**made.placed, **made.own}, made.targets
        self._directories = frozenset(made.directories)
        self._seen = 0
        self.found: list[Found] = []

    @property
    def misses(self) -> bool:
        """Return whether something that was made is gone."""
        return self._seen < len(self._files) + len(self._targets) + len(self._directories)

    def into(self, fd: int, prefix: str) -> None:
        """Look into an open directory; *prefix* is its path in the venv with a slash, nothing for the top.

        Raises _Touched if what was made there is not as it should be.
        """
        files, targets, stat_at, below = self._files, self._targets, os.stat, []  # for every file
        for name in sorted(os.listdir(fd)):
            path = prefix + name
            made = files.get(path)
            if made is not None:
                st = stat_at(name, dir_fd=fd, follow_symlinks=False)
                as_made = (st.st_ino, st.st_size, st.st_mtime_ns, st.st_mode) == made[1:]
            elif path in targets:
                as_made = os.readlink(name, dir_fd=fd) == targets[path]
            else:
                as_made = True
                was_made = path in self._directories
                if not was_made:
                    self.found.append(lstat(name, dir_fd=fd, known_as=path))
                if was_made or self.found[-1].kind == "dir":
                    below.append((name, was_made))
                if not was_made:
                    continue
            if not as_made:
                raise _Touched
            self._seen += 1
        for name, was_made in below:
            before = len(self.found)
            inner = open_directory(name, dir_fd=fd)
            try:
                self.into(inner, f"{prefix}{name}/")
            finally:
                os.close(inner)
            if was_made and len(self.found) > before:
                self.found.insert(before, lstat(name, dir_fd=fd, known_as=prefix + name))


def _listed(venv: str, paths: Iterable[str]) -> Iterator[str]:
    """Yield the paths that the RECORDs among *paths* list."""
    for record in records_of(paths):
        data = read_small(f"{venv}/{record}")
        base = record.rsplit("/", 2)[0]
        odd = []
        plain = b'"' not in data and b"\0" not in data
        for line in data.splitlines() if plain else ():
            name = line.partition(b",")[0]
            if name.startswith((b".", b"/")) or b"/." in name or b"//" in name:
                odd.append(line)
            elif name:
                yield f"{base}/{os.fsdecode(name)}"
        if odd or not plain:
            yield from record_paths(record, b"\n".join(odd) if plain else data, venv)
