"""The size, mtime and mode that each file of a venv should have, and whether it has them.

An edit in place moves a file's mtime and leaves its directory alone; a change of mode or owner does not move
even that, and reaches all venvs that have the file. A venv that is linked to the store has the store's own
files, so one stat of an object is enough for all venvs that share it; its private files are looked at one by
one, and so are all files of a venv with inodes of its own (``copy``, ``reflink``).

The right stats follow from the venv's trees. To decode them takes longer than to check the files, so a
project keeps a list of the stats, which may be deleted at any time. Where the trees are lost, the receipt has
one hash over the stats of all files (:func:`digest_of_stats`): it tells that something changed, not what.

Where this stops being safe: edits that keep size and mtime are not seen. Not looked at are a file that became
private because somebody changed it while it was shared, one with another inode than its object (names beyond
a file's limit, an object that was made anew), and bytecode, which Python may write again. ``verify`` looks at
every file.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from venvflow.disk.descriptors import directory
from venvflow.disk.files import TEMPORARY, read_small, write_whole
from venvflow.disk.places import RECEIPT
from venvflow.errors import EnvironmentFailure, VenvflowError
from venvflow.model import INSTALLER_NOTE, Config, Entry, Receipt
from venvflow.pure import decoding

if TYPE_CHECKING:
    from venvflow.disk.objects import MtimeMode, Name
    from venvflow.disk.scan import Found
    from venvflow.state.store import Store

_FORMAT = 6
_ANY_SIZE = -1
_WRITTEN = -1

BUDGET = 5_000
"""Files that a run looks at before it leaves the others to the next one; one tree is never cut short."""

_LARGEST_TURN = 1 << 20
"""Bytes of the largest note of whose turn it is."""

_DECODED = 3
"""How many stats it costs to learn from a tree how one file should look."""

_LEARNING = 10
"""How much more a run may spend on that than on looking: what is learnt is learnt for all runs."""


class TreeStats(NamedTuple):
    """How the files of one tree should look, in five lists of the same length.

    *paths* are below the venv, *objects* below ``objects/`` of the store, empty for files that no venv is
    linked to. *sizes* are in bytes, -1 where each venv has its own; *mtimes* are in nanoseconds, *modes*
    those of objects: what is a venv's own may have any with which a program can be run. *copies* are the
    mtimes of copies of adopted objects, which do not keep theirs, by their paths, and -1 for files that have
    the time at which their venv was made.
    """

    paths: list[str]
    objects: list[str]
    sizes: list[int]
    mtimes: list[int]
    modes: list[int]
    copies: dict[str, int]


def is_ignored(path: str) -> bool:
    """Return whether a file may come and go without being a change: receipts, caches, locks, our litter.

    Programs that compile what they import (numba) keep that where Python keeps its bytecode. What installers
    note is that of one checkout (:mod:`venvflow.state.notes`).
    """
    if path.endswith(".pyc") or "__pycache__/" in path:
        return True
    if path == ".lock" or path.startswith(RECEIPT):  # the lock is uv's
        return True
    if path.endswith(INSTALLER_NOTE):
        return True
    # At the top it is a staging directory: that of a venv at a mount point lies in the venv.
    return TEMPORARY in path and (path.startswith(TEMPORARY) or os.path.basename(path).startswith(TEMPORARY))


def stats_of(entries: Iterable[Entry], adopted: Mapping[Name, MtimeMode]) -> TreeStats:
    """Return how the files of a tree's *entries* should look; *adopted* objects keep a look of their own."""
    from venvflow.disk.objects import file_of, object_name, sealed  # noqa: PLC0415 - not where it is known
    from venvflow.pure.sharing import is_written, stays_private  # noqa: PLC0415

    stats = TreeStats([], [], [], [], [], {})
    for entry in entries:
        if entry.digest and not is_ignored(entry.path):
            name = object_name(entry)
            private = stays_private(entry, 1, adopted=name in adopted)
            stats.paths.append(entry.path)
            stats.objects.append("" if private else file_of(name))
            stats.sizes.append(_ANY_SIZE if entry.kind == "template" else entry.size)
            own = sealed(name)
            expected = adopted.get(name) or own
            stats.mtimes.append(expected.mtime_ns)
            if is_written(entry):
                stats.copies[entry.path] = _WRITTEN
            elif expected != own:
                stats.copies[entry.path] = own.mtime_ns
            # A script is a template, whose object is only data.
            stats.modes.append(expected.mode | stat.S_IXUSR if entry.executable else expected.mode)
    return stats


# --------------------------------------------------------------------------- looking

_Row = tuple[str, int, int, int, int]
"""A name, and the size, the mtime (or else that of a copy) and the whole mode that it should have.

In place of the mtime of a copy -1 for one that is written for each venv.

Of a venv's own file only ``S_IXUSR`` for a program, 0 for one whose mode may be any.
"""


class _Rows(NamedTuple):
    """What is looked at for a tree of these *stats*: *objects* once, and *own* files of each venv, or all."""

    objects: list[_Row]
    own: list[_Row]
    stats: TreeStats

    @property
    def all(self) -> list[_Row]:
        """Return all files; hardly ever asked for, so they are not kept."""
        stats = self.stats
        runs = [mode & stat.S_IXUSR for mode in stats.modes]
        copies = [stats.copies.get(*each) for each in zip(stats.paths, stats.mtimes, strict=True)]
        return list(zip(stats.paths, stats.sizes, stats.mtimes, copies, runs, strict=True))


_Division = tuple[str, int, tuple[str, ...]]
"""What divides a tree into objects and own files: its digest, and the ``min_size`` and copies of a venv."""


class StatChecker:
    """One look at many venvs, at each object once; *looked* counts the files.

    *objects* is the directory of the store's objects. *stats* gives the stats of a tree by its digest, None
    where they are not known. *by_own_names*: hard links are looked at in the venv, too, which is about to be
    replaced: a file may have another inode than its object by now.
    """

    def __init__(
        self, objects: str, stats: Callable[[str], TreeStats | None], *, by_own_names: bool = False
    ) -> None:
        self.looked = 0
        self._shared_by = ("symlink",) if by_own_names else ("hardlink", "symlink")
        self._objects = objects
        self._stats = stats
        self._rows: dict[_Division, _Rows | None] = {}
        self._found: dict[_Division, Literal["as made", "changed", "gone"]] = {}

    def as_made(self, venv: str, receipt: Receipt, min_size: int) -> bool:
        """Return whether all files of the venv at path *venv* have the sizes and times that they had.

        *min_size* (bytes) is that below which its files are private. Files added or removed are not looked
        for: they show in its directories. If it is not known what it was made of, every file is looked at,
        and the receipt's hash of them decides.
        """
        seen = self._as_trees_say(venv, receipt, min_size) if receipt.state == "shared" else None
        if seen is not None:
            return seen
        from venvflow.disk.scan import walk  # noqa: PLC0415 - a run with nothing to do knows

        with suppress(EnvironmentFailure):
            found = walk(venv)
            self.looked += len(found)
            return look_as_made(found, receipt)
        return False

    def tree_as_made(self, venv: str, receipt: Receipt, min_size: int, tree: int) -> bool | None:
        """Return whether the files of one *tree*, by its place in the receipt, look as they should.

        None: how they should look is not known. For the rest see :meth:`as_made`.
        """
        return self._as_trees_say(venv, receipt, min_size, receipt.trees[tree : tree + 1])

    def _as_trees_say(
        self, venv: str, receipt: Receipt, min_size: int, trees: Sequence[str] | None = None
    ) -> bool | None:
        linked = receipt.link in self._shared_by
        digests = receipt.trees if trees is None else trees
        keys = [(digest, min_size, receipt.copies) for digest in digests]
        work = [(key, self._rows_for(key)) for key in keys]
        try:
            with directory(venv) as fd:
                for key, each in work:
                    if each is None:
                        return None
                    if not self._tree_as_made(fd, key, each, receipt.written, linked=linked):
                        return False
        except OSError:
            return False
        return True

    def _tree_as_made(self, fd: int, key: _Division, work: _Rows, written: int, *, linked: bool) -> bool:
        found = self._objects_found(key, work) if linked else "gone"
        if found == "changed":
            return False
        # Without its objects, a venv of hard links is whole all the same: its own names have the files.
        return self._is_like(fd, _at(written, work.own if found == "as made" else work.all))

    def _objects_found(self, key: _Division, work: _Rows) -> Literal["as made", "changed", "gone"]:
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
        for name, size, mtime, of_copy, mode in rows:
            st = stat_at(name, dir_fd=fd, follow_symlinks=False)
            now = st.st_mtime_ns
            if now not in (mtime, of_copy) or size not in (st.st_size, _ANY_SIZE):
                return False
            if mode == stat.S_IXUSR:
                if not st.st_mode & mode:
                    return False
            elif mode and (st.st_mode != mode or st.st_uid not in owners) and not _is_fit(st, mode, owners):
                return False
        return True

    def _rows_for(self, key: _Division) -> _Rows | None:
        if key not in self._rows:
            digest, min_size, copies = key
            stats = self._stats(digest)
            self._rows[key] = None if stats is None else _divided(stats, min_size, frozenset(copies))
        return self._rows[key]


def _at(written: int, rows: list[_Row]) -> list[_Row]:
    """Return *rows* of a venv whose receipt says *written*."""
    if not written:
        return rows
    return [(row[0], row[1], written, written, row[4]) if row[3] == _WRITTEN else row for row in rows]


def _is_fit(st: os.stat_result, mode: int, owners: tuple[int, int]) -> bool:
    from venvflow.disk.objects import is_promised  # noqa: PLC0415 - not for a run with nothing to do

    return st.st_uid in owners and is_promised(st.st_mode, mode)


def _divided(stats: TreeStats, min_size: int, copies: frozenset[str]) -> _Rows:
    work = _Rows([], [], stats)
    for path, name, size, mtime, mode in zip(*stats[:-1], strict=True):
        of_copy = stats.copies.get(path, mtime)
        if name and size >= min_size and path not in copies:
            work.objects.append((name, size, mtime, of_copy, stat.S_IFREG | mode))
        else:
            work.own.append((path, size, mtime, of_copy, mode & stat.S_IXUSR))
    return work


# --------------------------------------------------------------------------- kept by a project


class NotedStats(Mapping[str, TreeStats]):
    """What a project has written down, by the digests of trees; *lines* are as they were written.

    To read all of it takes longer than to look at the files of a run, so a tree is decoded when it is asked
    for. One that makes no sense is not there.
    """

    def __init__(self, lines: Mapping[str, bytes]) -> None:
        self.lines = lines

    def __getitem__(self, digest: str) -> TreeStats:
        """Return the stats of a tree."""
        try:
            return decode_stats(self.lines[digest])
        except decoding.Corrupt as error:
            raise KeyError(digest) from error

    def __iter__(self) -> Iterator[str]:
        """Yield the digests of the trees."""
        return iter(self.lines)

    def __len__(self) -> int:
        """Return the number of trees."""
        return len(self.lines)


def read_stats(path: str, store: str) -> NotedStats:
    """Return the stats by the digests of their trees that :func:`write_stats` has left at *path*.

    Nothing if there is no such file, if it is damaged, or if it is for another store than that at the path
    *store*.
    """
    with suppress(OSError, decoding.Corrupt):
        digest, _, rest = read_small(path).partition(b"\n")
        if hashlib.sha256(rest).hexdigest().encode() == digest:
            head, *lines = rest.split(b"\n")
            noted = decode_head(head)
            if noted.store == store and len(lines) == len(noted.trees):
                return NotedStats(dict(zip(noted.trees, lines, strict=True)))
    return NotedStats({})


class Head(NamedTuple):
    """The first line of the stats that a project has written down: of which *store*, and of which *trees*."""

    store: str
    trees: tuple[str, ...]


def decode_head(data: bytes) -> Head:
    """Return the head that *data* spells; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    found = decoding.fields(
        decoding.parse(data),
        format=decoding.integer(_FORMAT, _FORMAT),
        store=decoding.absolute,
        trees=decoding.listed(decoding.digest),
    )
    return Head(found["store"], found["trees"])


def decode_stats(data: bytes) -> TreeStats:
    """Return the stats of one tree that *data* spells; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    times = decoding.mapped(decoding.text, decoding.mtime)
    stats = TreeStats(*decoding.row(*[_a_list] * (len(TreeStats._fields) - 1), times)(decoding.parse(data)))
    if len({len(each) for each in stats[:-1]}) != 1:
        raise decoding.Corrupt("its lists are not of the same length")
    decoding.check_paths(stats.paths)
    decoding.check_paths([each for each in stats.objects if each != ""])
    decoding.check_integers(stats.sizes, _ANY_SIZE, decoding.LARGEST_COUNT)
    decoding.check_integers(stats.mtimes, -decoding.LARGEST_TIME, decoding.LARGEST_TIME)
    decoding.check_integers(stats.modes, 0, 0o7777)
    return stats


def _a_list(value: object) -> list[Any]:
    """Return a list, whose many items are checked all at once."""
    if not isinstance(value, list):
        raise decoding.unlike(value, "a list")
    return value


def write_stats(path: str, store: str, stats: Mapping[str, TreeStats]) -> None:
    """Leave *stats*, by the digests of their trees, for the next run, if we may write there."""
    _write_lines(path, store, {digest: _encoded(each) for digest, each in stats.items()})


def _encoded(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _write_lines(path: str, store: str, lines: Mapping[str, bytes]) -> None:
    head = _encoded({"format": _FORMAT, "store": store, "trees": [*lines]})
    data = b"\n".join([head, *lines.values()])
    with suppress(OSError):
        write_whole(path, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


# --------------------------------------------------------------------------- which venvs look changed


def suspect_venvs(
    config: Config, receipts: Mapping[str, Receipt], *, budget: int = BUDGET, whole: bool = False
) -> frozenset[str]:
    """Return the names of the venvs of which some file does not look as it was made.

    *receipts* are those of shared venvs, by their names in *config*.

    A run goes from one tree to the next as far as its *budget* of files goes; the next run begins where this
    one ended, and with what this one found. With *whole* there is no budget, and whose turn it is stays as it
    was.
    """
    if not receipts:
        return frozenset()
    memory = _Memory(config)
    checker = StatChecker(memory.objects, memory.stats)
    sizes = {name: config.venvs[name].min_size for name in receipts}
    if whole:
        found = [name for name, each in receipts.items() if not checker.as_made(each.path, each, sizes[name])]
    else:
        turn = _Turn.read(config)
        found = _looked_at_in_turn(receipts, sizes, checker, turn, _Budget(checker, memory, budget))
        turn.write(config)
    memory.keep(() if whole else receipts.values())
    return frozenset(found)


def _looked_at_in_turn(
    receipts: Mapping[str, Receipt],
    sizes: Mapping[str, int],
    checker: StatChecker,
    turn: _Turn,
    budget: _Budget,
) -> list[str]:
    """Return the venvs that look changed, and let *turn* say what the next run begins with."""
    whole: dict[str, bool] = {}  # of venvs that cannot be looked at tree by tree

    def looks_changed(name: str, tree: int) -> bool:
        receipt, size = receipts[name], sizes[name]
        as_made = whole.get(name)
        if as_made is None:
            as_made = checker.tree_as_made(receipt.path, receipt, size, tree)
        if as_made is None:
            as_made = whole[name] = checker.as_made(receipt.path, receipt, size)
        return not as_made

    changed = {
        name: tree
        for name, tree in turn.changed.items()
        if name in receipts and tree < len(receipts[name].trees) and looks_changed(name, tree)
    }
    rest: _Position | None = None
    for name, tree in _in_turn(receipts, turn.first):
        if budget.is_spent():
            rest = name, tree
            break
        if name not in changed and looks_changed(name, tree):
            changed[name] = tree
    turn.first, turn.changed = rest, changed if rest is not None else {}
    return [*changed]


@contextmanager
def checker_by_own_names(config: Config) -> Iterator[StatChecker]:
    """Give what looks at each file of a venv of *config*, by its own name."""
    memory = _Memory(config)
    try:
        yield StatChecker(memory.objects, memory.stats, by_own_names=True)
    finally:
        memory.keep(())


def learn_stats(config: Config, receipts: Iterable[Receipt], *, budget: int = BUDGET) -> None:
    """Write down how files of shared venvs should look, for the next run, as far as a run's *budget* goes."""
    memory, receipts = _Memory(config), [*receipts]
    for digest in dict.fromkeys(digest for receipt in receipts for digest in receipt.trees):
        if memory.decoded * _DECODED < budget * _LEARNING:
            memory.learn(digest)
    memory.keep(receipts)


def forget_stats(config: Config) -> None:
    """Drop what is written down of trees: the next run learns it anew."""
    with suppress(OSError):
        os.unlink(_stats_file(config))


_Position = tuple[str, int]
"""A venv by its name, and which of its trees, from 0 on."""


def _in_turn(receipts: Mapping[str, Receipt], first: _Position | None) -> list[_Position]:
    """Return every tree of every venv, from the *first* on, then those before it."""
    trees = [(name, number) for name, each in receipts.items() for number in range(len(each.trees))]
    at = trees.index(first) if first in trees else 0
    return [*trees[at:], *trees[:at]]


class _Budget:
    """What a run may spend, in files looked at; it has looked at one tree at least when that is *spent*."""

    def __init__(self, checker: StatChecker, memory: _Memory, files: int) -> None:
        self._checker, self._memory, self._files = checker, memory, files
        self._begun = False

    def is_spent(self) -> bool:
        """Return whether the next run is to go on; not before the first tree, or nothing would ever be."""
        spent = self._checker.looked + self._memory.decoded * _DECODED / _LEARNING
        begun, self._begun = self._begun, True
        return begun and spent >= self._files


class _Turn:
    """What a run leaves to the next one: with which tree it begins, and which looked *changed* in this one.

    Those are looked at on each run, so that a change is told until it is undone.
    """

    def __init__(self, first: _Position | None, changed: dict[str, int]) -> None:
        self.first, self.changed = first, changed

    @classmethod
    def read(cls, config: Config) -> _Turn:
        """Return what the last run has left."""
        with suppress(OSError, decoding.Corrupt):
            found = decoding.fields(
                decoding.parse(read_small(_next_file(config), largest=_LARGEST_TURN)),
                first=decoding.row(decoding.text, decoding.count),
                changed=decoding.mapped(decoding.text, decoding.count),
            )
            return cls((found["first"][0], found["first"][1]), found["changed"])
        return cls(None, {})

    def write(self, config: Config) -> None:
        """Leave it to the next run; where one may not write, every run is the first one."""
        with suppress(OSError):
            if self.first is not None:
                write_whole(_next_file(config), _encoded({"first": self.first, "changed": self.changed}))
            else:
                os.unlink(_next_file(config))


def _next_file(config: Config) -> str:
    return f"{config.state_dir}/.next"


# --------------------------------------------------------------------------- what a project remembers


class _Memory:
    """How the files of trees should look: as the project has written it down, else as the store's trees say.

    *decoded* counts the files that had to be learnt from the store.
    """

    def __init__(self, config: Config) -> None:
        self.decoded = 0
        self._config = config
        self._store_path = os.path.realpath(config.store.path)
        self.objects = f"{self._store_path}/objects"
        self._known = read_stats(_stats_file(config), self._store_path)
        self._learnt: dict[str, TreeStats] = {}
        self._store: Store | None = None
        self._adopted: Mapping[Name, MtimeMode] | None = None

    def stats(self, digest: str) -> TreeStats | None:
        """Return the stats of a tree, None if it is lost."""
        stats = self._known.get(digest)
        return stats if stats is not None else self._learn(digest)

    def learn(self, digest: str) -> None:
        """Learn the stats of a tree that is not written down; what is need not be decoded for that."""
        if digest not in self._known.lines:
            self._learn(digest)

    def keep(self, receipts: Iterable[Receipt]) -> None:
        """Write down what was learnt, and drop what none of *receipts* has; nothing, if there are none."""
        if self._store is not None:
            self._store.close()
        if self._learnt:
            needed = {digest for receipt in receipts for digest in receipt.trees} or self._known.keys()
            kept = {digest: line for digest, line in self._known.lines.items() if digest in needed}
            learnt = {digest: _encoded(stats) for digest, stats in self._learnt.items()}
            _write_lines(_stats_file(self._config), self._store_path, kept | learnt)

    def _learn(self, digest: str) -> TreeStats | None:
        from venvflow.pure.manifest import Corrupt  # noqa: PLC0415 - only what is new is learnt

        with suppress(Corrupt, VenvflowError, OSError):
            store = self._opened()
            if store is not None:
                if self._adopted is None:
                    self._adopted = store.adopted()
                stats = self._learnt[digest] = stats_of(store.tree(digest).entries, self._adopted)
                self.decoded += len(stats.paths)
                return stats
        return None

    def _opened(self) -> Store | None:
        """Return the store; none is made where none is."""
        if self._store is None and os.path.lexists(f"{self._store_path}/format"):
            from venvflow.state.store import Store  # noqa: PLC0415 - only what is new is learnt

            self._store = Store(self._config.store)
        return self._store


def _stats_file(config: Config) -> str:
    return f"{config.state_dir}/.stats"


# --------------------------------------------------------------------------- without trees

_AT_ONCE = 2000


def digest_of_stats(stats: Iterable[str]) -> str:
    """Return one hash over the stats of all files, in whatever order they come."""
    ordered = sorted(stats)
    hasher = hashlib.sha256()
    for start in range(0, len(ordered), _AT_ONCE):  # those of a large venv are megabytes
        text = "\n".join(ordered[start : start + _AT_ONCE])
        hasher.update(("\n" * (start > 0) + text).encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


def look_as_made(found: Iterable[Found], receipt: Receipt) -> bool:
    """Return whether all that a walk has found in a venv looks as its receipt says."""
    return digest_of_found(found) == receipt.stats


def digest_of_found(found: Iterable[Found]) -> str:
    """Return the hash over the stats of a venv's files as a walk has found them."""
    return digest_of_stats(stats_of_found(found))


def stats_of_found(found: Iterable[Found]) -> Iterator[str]:
    """Yield the stats of a venv's files as a walk has found them."""
    for item in found:
        if item.kind != "dir" and not is_ignored(item.path):
            is_file = item.kind == "file"
            yield file_stat(item.path, item.stamp.size, item.stamp.mtime_ns) if is_file else item.path


def file_stat(path: str, size: int, mtime_ns: int) -> str:
    """Return the stat of a file as it is hashed: *size* in bytes, *mtime_ns* in nanoseconds.

    Of a symlink (or anything that is neither file nor directory), only the path is hashed.
    """
    return f"{path}\0{size}\0{mtime_ns}"
