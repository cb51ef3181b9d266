"""The index: an SQLite database beside the objects, which saves reading all files of the store.

It is a cache of what lies on disk, but for the history of use: delete it, and it is made again from the
snapshots and trees. Schema, migrations and views are sqlite-utils' (:mod:`venvflow.state.schema`). Rows by
the ten thousand go through ``executemany``.

All writes happen in ``BEGIN IMMEDIATE`` transactions: a plain ``BEGIN`` that reads first cannot become a
writer while another process writes, and fails at once instead of waiting.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from venvflow.disk import locks
from venvflow.disk.databases import (
    TRY_SECONDS,
    Parameters,
    can_be_database,
    identity,
    is_damage,
    is_locked,
    is_writable,
    open_to_read,
    patiently,
    set_aside,
)
from venvflow.disk.mounts import mount_of
from venvflow.disk.objects import MtimeMode, Name
from venvflow.disk.scan import Stamp
from venvflow.disk.system_errors import failure, of_database
from venvflow.errors import EnvironmentFailure, LockTimeout, shown
from venvflow.model import Entry, Snapshot, Tree
from venvflow.pure import decoding
from venvflow.pure.manifest import decode_entry, encode_entry
from venvflow.pure.retention import Usage

VERSION = 5
"""Schema version, kept in ``PRAGMA user_version``."""

_WAIT_SECONDS = 30.0


class Stamped(NamedTuple):
    """A file of a venv as it was when it was last read."""

    stamp: Stamp
    entry: Entry


Compiled = Mapping[tuple[str, str], "tuple[Name, int] | None"]
"""Bytecode by digest and path of its source: object and size in bytes, None for what does not compile."""


class SnapshotSummary(NamedTuple):
    """What is known of a snapshot without reading it: its provenance, its size, when it was *used*.

    *key* is the digest of its key; the other fields are those of :class:`~venvflow.model.Snapshot`.
    """

    id: str
    key: str
    venv: str
    place: str | None
    python: str
    host: str
    command: str
    created: float
    files: int
    size: int
    used: Usage | None


class IndexReader:
    """The index as it is: nothing is made, migrated or moved aside. What it cannot say is unknown."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            return open_to_read(self.path)
        except sqlite3.Error:  # there is none, it is damaged, or we may not read it
            return sqlite3.connect(":memory:")

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        """Return all rows of a query, none if the index cannot answer it."""
        try:
            return self._db.execute(sql, parameters).fetchall()
        except sqlite3.Error:
            return []

    @property
    def fresh(self) -> bool:
        """Return whether it was never filled from disk, or a kill cut that short."""
        return not self.rows("SELECT 1 FROM counters WHERE name = 'filled'")

    def adopted(self) -> dict[Name, MtimeMode]:
        """Return the adopted objects with the mtime and mode that they came with."""
        rows = self.rows(
            "SELECT digest, executable, adopted_mtime, adopted_mode FROM objects"
            " WHERE adopted_mtime IS NOT NULL AND adopted_mode IS NOT NULL"
        )
        return {
            Name(digest, bool(executable)): MtimeMode(mtime, mode)
            for digest, executable, mtime, mode in rows
            if decoding.is_digest(digest) and type(mtime) is type(mode) is int
        }

    def bytecode(self, interpreter: str, sources: Iterable[str] | None = None) -> Compiled:
        """Return what *interpreter* compiled of these *sources*, by SHA-256, or of all, as far as known."""
        if sources is None:
            rows = self.rows(
                "SELECT source.digest, bytecode.path, object.digest, object.size FROM bytecode"
                " JOIN objects source ON source.id = bytecode.source"
                " LEFT JOIN objects object ON object.id = bytecode.object WHERE bytecode.interpreter = ?",
                (interpreter,),
            )
        else:  # in this order: few are asked for, and many are known; each once: hundreds are empty
            rows = self.rows(
                "SELECT source.digest, bytecode.path, object.digest, object.size FROM json_each(?) wanted"
                " CROSS JOIN objects source ON source.digest = wanted.value"
                " CROSS JOIN bytecode ON bytecode.source = source.id"
                " LEFT JOIN objects object ON object.id = bytecode.object WHERE bytecode.interpreter = ?",
                (json.dumps(sorted({*sources})), interpreter),
            )
        return {
            (source, path_in(path)): (Name(digest, executable=False), size) if digest is not None else None
            for source, path, digest, size in rows
            if type(source) is str
            and _is_name(path)
            and (digest is None or (decoding.is_digest(digest) and type(size) is int))
        }

    def usage(self) -> dict[str, Usage]:
        """Return when each snapshot was last used."""
        rows = self.rows("SELECT id, used_seq, used_at FROM snapshots")
        return {each[0]: Usage(*each[1:]) for each in sound(rows, _USAGE)}

    def summaries(self) -> dict[str, SnapshotSummary]:
        """Return the summary of every snapshot, by its id."""
        rows = self.rows(
            "SELECT id, key, venv, place, python, host, command, created, files, size, used_seq, used_at"
            " FROM snapshots"
        )
        summaries = (SnapshotSummary._make((*each[:-2], Usage(*each[-2:]))) for each in sound(rows, _SUMMARY))
        return {each.id: each for each in summaries}

    def snapshot_keys(self) -> list[tuple[str, dict[str, str], str, int]]:
        """Return of each snapshot its id, the parts of its key, its venv's name, and when it was used."""
        found = []
        rows = self.rows("SELECT id, parts, venv, used_seq FROM snapshots")
        for identifier, parts, venv, seq in sound(rows, _KEYED):
            with suppress(ValueError):  # what a row does not tell, the snapshot itself does
                found.append((identifier, decoding.texts(decoding.parse(parts.encode())), venv, seq))
        return found

    def stamps(self, venv: str) -> dict[str, Stamped]:
        """Return what is known of the files of the venv at path *venv*, by path below it."""
        rows = self.rows("SELECT stamps FROM stamps WHERE venv = ?", (path_cell(venv),))
        with suppress(ValueError, TypeError, IndexError, RecursionError):  # then the files are read again
            return {
                path: Stamped(Stamp(*stamp), decode_entry(path, entry))
                for (noted,) in rows
                for path, stamp, entry in json.loads(noted)
            }
        return {}


class Index(IndexReader):
    """The index to be worked with. Not for use by several threads at once; open one per task."""

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self._read_only = read_only
        super().__init__(path)
        self._identity = identity(path)

    def mark_filled(self) -> None:
        """Note, in the transaction that fills it, that the index holds all that lies on disk."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO counters(name, value) VALUES ('filled', 1)")

    def _open(self) -> sqlite3.Connection:
        if self._read_only or (os.path.isfile(self.path) and not is_writable(self.path)):
            return _open_to_read(self.path)
        self._identity = identity(self.path)
        if not can_be_database(self.path):
            self._move_aside()
        for _ in range(2):
            try:
                self._identity = identity(self.path)
                return patiently(lambda: _open_to_write(self.path), seconds=_WAIT_SECONDS)
            except sqlite3.Error as error:
                if is_locked(error):
                    raise _locked(self.path) from error
                if not (is_damage(error, self.path) or os.path.isdir(self.path)):
                    raise _unusable(self.path, error) from error
                self._move_aside()
        raise _unusable(self.path, None)

    def _move_aside(self) -> str:
        """Keep a damaged database under another name, which is returned: somebody may want its history."""
        with suppress(OSError):  # it is out of reach: the next query raises an error
            return set_aside(self.path, self._identity)
        return ""

    @contextmanager
    def writing(self, *, patience: float | None = None) -> Iterator[sqlite3.Connection]:
        """Hold a write transaction; nested blocks join the outer one.

        Raises LockTimeout while another program writes for longer than *patience* (seconds, 30 if not given),
        EnvironmentFailure when the database cannot be written. A damaged one is moved aside first: the next
        run makes it again.
        """
        if self._db.in_transaction:
            yield self._db
            return
        with self._explained(patience):
            self._patiently("BEGIN IMMEDIATE", patience=patience)
            try:
                yield self._db
                self._patiently("COMMIT", patience=patience)
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        """Return all rows of a query; raises as :meth:`writing` does."""
        with self._explained():
            return self._patiently(sql, parameters).fetchall()

    def _patiently(
        self, sql: str, parameters: Parameters = (), *, patience: float | None = None
    ) -> sqlite3.Cursor:
        return patiently(lambda: self._db.execute(sql, parameters), seconds=_waiting(patience))

    @contextmanager
    def _explained(self, patience: float | None = None) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if is_locked(error):
                raise _locked(self.path, patience) from error
            aside = self._move_aside() if is_damage(error, self.path) else ""
            raise _unusable(self.path, error, aside) from error

    # ----------------------------------------------------------------------- objects and trees

    def add_objects(self, sizes: Mapping[Name, int], adopted: Mapping[Name, MtimeMode]) -> None:
        """Remember objects: sizes in bytes, and mtime and mode of those that are adopted."""
        rows = [
            (name.digest, name.executable, size, *map(_fitting, adopted.get(name, (None, None))))
            for name, size in sizes.items()
        ]
        with self.writing() as db:
            db.executemany(
                "INSERT INTO objects(digest, executable, size, adopted_mtime, adopted_mode)"
                " VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT(digest, executable) DO UPDATE SET size = excluded.size,"
                " adopted_mtime = excluded.adopted_mtime, adopted_mode = excluded.adopted_mode",
                rows,
            )

    def is_own(self, name: Name) -> bool:
        """Return whether an object is known, and known not to be adopted."""
        sql = "SELECT 1 FROM objects WHERE digest = ? AND executable = ? AND adopted_mtime IS NULL"
        return bool(self.rows(sql, name))

    def retain(self, trees: Iterable[str], objects: Iterable[Name]) -> None:
        """Forget all trees and objects but these, and the bytecode of what is forgotten."""
        trees, objects = set(trees), set(objects)
        known = self.known_trees()
        names = [
            Name(digest, bool(executable))
            for digest, executable in self.rows("SELECT digest, executable FROM objects")
        ]
        with self.writing():
            self.forget_trees(digest for digest in known if digest not in trees)
            self.forget_objects(name for name in names if name not in objects)

    def forget_objects(self, names: Iterable[Name]) -> None:
        """Drop the rows of objects; their bytecode, and trees that list them, go with them."""
        names = list(names)
        which = "(SELECT id FROM objects WHERE digest = ? AND executable = ?)"
        with self.writing() as db:
            db.executemany(
                f"DELETE FROM trees WHERE id IN (SELECT tree FROM files WHERE object = {which})",  # noqa: S608
                names,
            )
            db.executemany("DELETE FROM objects WHERE digest = ? AND executable = ?", names)

    def add_trees(self, trees: Iterable[Tree]) -> None:
        """Remember trees with their files; those that are known already cost one look-up."""
        with self.writing() as db:
            for tree in trees:
                _add_tree(db, tree)

    def unknown_trees(self, trees: Iterable[Tree]) -> list[Tree]:
        """Return those of *trees* that there are no rows of; the objects of the others have rows, too."""
        known = self.known_trees()
        return [tree for tree in trees if tree.digest not in known]

    def known_trees(self) -> set[str]:
        """Return the digests of the trees that there are rows of."""
        return {digest for (digest,) in self.rows("SELECT digest FROM trees")}

    def forget_trees(self, digests: Iterable[str]) -> None:
        """Drop trees and the rows of their files."""
        with self.writing() as db:
            db.executemany("DELETE FROM trees WHERE digest = ?", [(digest,) for digest in digests])

    # ----------------------------------------------------------------------- bytecode

    def add_bytecode(self, interpreter: str, compiled: Compiled) -> None:
        """Remember what sources compiled to; sources and bytecode must be objects already."""
        made = {each: found[0].digest if found else None for each, found in compiled.items()}
        rows = [
            (interpreter, path_cell(path), made[source, path], source, made[source, path])
            for source, path in compiled
        ]
        with self.writing() as db:
            # Bytecode that is not an object must not become NULL: that says that a source does not compile.
            db.executemany(
                "INSERT OR REPLACE INTO bytecode(interpreter, path, source, object)"
                " SELECT ?, ?, source.id, object.id FROM objects source"
                " LEFT JOIN objects object ON object.digest = ? AND object.executable = 0"
                " WHERE source.digest = ?"
                " AND (? IS NULL OR object.id IS NOT NULL)",
                rows,
            )

    # ----------------------------------------------------------------------- snapshots

    def add_snapshot(self, snapshot: Snapshot, now: float) -> None:
        """Remember a snapshot with its trees, as used now."""
        with self.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO snapshots(id, key, parts, venv, place, python, host, command,"
                " created, used_at, used_seq, files, size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    snapshot.id, snapshot.key.digest, json.dumps(snapshot.key.parts), shown(snapshot.venv),
                    None if snapshot.place is None else path_cell(snapshot.place), snapshot.python,
                    snapshot.host, shown(snapshot.command), snapshot.created, now, _next_seq(db),
                    snapshot.files, snapshot.size,
                ),
            )  # fmt: skip
            db.execute("DELETE FROM snapshot_trees WHERE snapshot = ?", (snapshot.id,))
            db.executemany(
                "INSERT OR IGNORE INTO snapshot_trees(snapshot, tree)"
                " SELECT ?, id FROM trees WHERE digest = ?",
                [(snapshot.id, tree) for tree in snapshot.trees],
            )

    def touch_snapshot(self, snapshot: str, now: float) -> Usage:
        """Note that a snapshot, which may be yet to come, is used; return which use that is."""
        with self.writing() as db:
            used = Usage(_next_seq(db), now)
            self.recall({snapshot: used})
        return used

    def recall(self, uses: Mapping[str, Usage]) -> None:
        """Remember uses of snapshots, by their ids, as far as they are later than those that are known."""
        last = max((each.seq for each in uses.values()), default=0)
        with self.writing() as db:
            db.executemany(
                "UPDATE snapshots SET used_at = ?, used_seq = ? WHERE id = ? AND used_seq < ?",
                [(each.at, each.seq, identifier, each.seq) for identifier, each in uses.items()],
            )
            db.execute(
                "UPDATE counters SET value = max(value, ?) WHERE name = 'use'", (min(last, _MOST_USES),)
            )

    def pull_back(self, now: float) -> None:
        """Let no snapshot be used later than *now*: the clock was wrong then, and it would never grow old."""
        if self.rows("SELECT 1 FROM snapshots WHERE used_at > ? LIMIT 1", (now,)):
            with self.writing() as db:
                db.execute("UPDATE snapshots SET used_at = ? WHERE used_at > ?", (now, now))

    def forget_snapshots(self, ids: Iterable[str]) -> None:
        """Drop the rows of snapshots."""
        with self.writing() as db:
            db.executemany("DELETE FROM snapshots WHERE id = ?", [(each,) for each in ids])

    # ----------------------------------------------------------------------- stamps

    def set_stamps(self, venv: str, stamped: Mapping[str, Stamped]) -> None:
        """Replace what is known of the files of the venv at path *venv*."""
        # Numbers of some file systems do not fit into a column, and rows by the ten thousand take their time.
        noted = [(path, each.stamp, encode_entry(each.entry)) for path, each in stamped.items()]
        with self.writing() as db:
            db.execute("DELETE FROM stamps WHERE venv = ?", (path_cell(venv),))
            if noted:
                db.execute(
                    "INSERT INTO stamps(venv, stamps) VALUES (?, ?)", (path_cell(venv), json.dumps(noted))
                )

    # ----------------------------------------------------------------------- venvs

    def register(self, path: str, *, snapshot: str | None, now: float, trees: Iterable[str] = ()) -> None:
        """Remember a venv of this machine, for people's queries; what decides lies in ``venvs/``.

        *trees* are what is in it, if that is not in its snapshot.
        """
        with self.writing() as db:
            db.execute(
                "INSERT INTO venvs(path, snapshot, seen_at) VALUES (?, ?, ?) ON CONFLICT(path)"
                " DO UPDATE SET snapshot = excluded.snapshot, seen_at = excluded.seen_at",
                (path_cell(path), snapshot, now),
            )
            (number,) = db.execute("SELECT id FROM venvs WHERE path = ?", (path_cell(path),)).fetchone()
            db.execute("DELETE FROM venv_trees WHERE venv = ?", (number,))
            db.executemany(
                "INSERT OR IGNORE INTO venv_trees(venv, tree) SELECT ?, id FROM trees WHERE digest = ?",
                [(number, tree) for tree in trees],
            )

    def seen(self) -> dict[str, float]:
        """Return when each registered venv was registered last, by its path, in seconds since 1970."""
        rows = self.rows("SELECT path, seen_at FROM venvs WHERE seen_at IS NOT NULL")
        return {path_in(path): at for path, at in rows if _is_name(path)}

    def forget_venv(self, path: str) -> None:
        """Drop a venv and its stamps."""
        with self.writing() as db:
            db.execute("DELETE FROM venvs WHERE path = ?", (path_cell(path),))
            db.execute("DELETE FROM stamps WHERE venv = ?", (path_cell(path),))


def _add_tree(db: sqlite3.Connection, tree: Tree) -> None:
    files = [entry for entry in tree.entries if entry.kind in ("file", "template")]
    cursor = db.execute(
        "INSERT OR IGNORE INTO trees(digest, name, version, files, size) VALUES (?, ?, ?, ?, ?)",
        (tree.digest, shown(tree.name), shown(tree.version), len(files), sum(entry.size for entry in files)),
    )
    if cursor.rowcount == 0:
        return
    number = cursor.lastrowid
    db.executemany(
        "INSERT INTO files(tree, path, object)"
        " SELECT ?, ?, id FROM objects WHERE digest = ? AND executable = ?",
        [(number, path_cell(e.path), e.digest, e.executable and e.kind == "file") for e in files],
    )


def _next_seq(db: sqlite3.Connection) -> int:
    (seq,) = db.execute(
        "INSERT INTO counters(name, value) VALUES ('use', 1)"
        " ON CONFLICT(name) DO UPDATE SET value = max(0, min(coalesce(value, 0), ?)) + 1 RETURNING value",
        (_MOST_USES,),
    ).fetchone()
    return int(seq)


_MOST_USES = 1 << 62
"""More than anybody counts to: a damaged counter begins there, and goes on."""


def _fitting(number: int | None) -> int | None:
    """Return a number as a column can hold it: the nearest one, which the file then does not have."""
    return None if number is None else max(-decoding.LARGEST_COUNT, min(number, decoding.LARGEST_COUNT))


def path_cell(path: str) -> str | bytes:
    """Return *path* as SQLite can hold it: bytes when it is not UTF-8."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def path_in(value: object) -> str:
    """Return a path as it is known here; raises Corrupt for what was never one."""
    if not isinstance(value, (str, bytes)):
        raise decoding.unlike(value, "a path")
    return os.fsdecode(value)


def _is_name(value: object) -> bool:
    return isinstance(value, (str, bytes))


# --------------------------------------------------------------------------- what rows may say


def sound(rows: Iterable[Sequence[Any]], decoders: Sequence[decoding.Decoder[Any]]) -> Iterator[Any]:
    """Yield the rows whose values *decoders* take; of a row that others wrote, nothing is known."""
    decode = decoding.row(*decoders)
    for each in rows:
        with suppress(decoding.Corrupt):
            yield decode([*each])


_HISTORY = decoding.count, decoding.moment
_USAGE = decoding.digest, *_HISTORY
_KEYED = decoding.digest, decoding.text, decoding.text, decoding.count
_SUMMARY = (
    decoding.digest, decoding.digest, decoding.text, decoding.optional(path_in), *[decoding.text] * 3,
    decoding.moment, decoding.count, decoding.count, *_HISTORY,
)  # fmt: skip


# --------------------------------------------------------------------------- opening


def _open_to_write(path: str) -> sqlite3.Connection:
    _part_from_other_names(path)
    db = sqlite3.connect(path, timeout=TRY_SECONDS, isolation_level=None)
    try:
        # Other machines would not see a log in shared memory.
        if db.execute("PRAGMA journal_mode").fetchone() != ("wal",) and not mount_of(path).is_networked:
            db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        _migrate(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _part_from_other_names(path: str) -> None:
    """Give the database a file of its own if it has other names, as in a store copied by ``cp -al``.

    Programs that know one database by two names do not see each other's logs, and would destroy it. While
    somebody has it open, or where there is no room, it is left as it is: the next one to open it tries again.
    """
    try:
        if os.stat(path).st_nlink == 1:
            return
    except FileNotFoundError:
        return
    db = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        with suppress(sqlite3.OperationalError):
            db.execute("PRAGMA journal_mode = DELETE")  # what is in the log goes into the file
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("BEGIN EXCLUSIVE")  # an inode's lock: it holds for all its names, until we close it
            db.execute("COMMIT")
            with suppress(FileNotFoundError):
                os.unlink(f"{path}.own")
            db.execute("VACUUM INTO ?", (f"{path}.own",))
            os.rename(f"{path}.own", path)
    finally:
        db.close()


def _open_to_read(path: str) -> sqlite3.Connection:
    """Open a database that we may not write."""
    try:
        db = open_to_read(path)
        (version,) = db.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    if version != VERSION:
        db.close()
        raise _other_version(path, version)
    return db


def _migrate(db: sqlite3.Connection, path: str) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise _other_version(path, version)
    if version == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if db.execute("PRAGMA user_version").fetchone()[0] < VERSION:
            _apply_schema(db)
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _other_version(path: str, version: int) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"the index is of version {version}, this venvflow knows {VERSION}",
        where=shown(path),
        state="Nothing was touched.",
        hint="Upgrade venvflow, or use another store (VENVFLOW_STORE).",
    )


_WHOLE = "Every venv is the old one or the new one, whole."
"""What is true whenever the index fails: nothing of a venv depends on it."""


def _waiting(patience: float | None) -> float:
    return _WAIT_SECONDS if patience is None else patience


def _locked(path: str, patience: float | None = None) -> LockTimeout:
    found = locks.writer(path)
    return LockTimeout(
        f"the index is locked by {found} for more than {_waiting(patience):g} s",
        where=shown(path),
        state=_WHOLE,
        hint=f"Close what has it open for writing (a database browser?). {found.way_out}.",
    )


def _unusable(path: str, error: sqlite3.Error | None, aside: str = "") -> EnvironmentFailure:
    """Return the error for an index that cannot be used; a damaged one may be kept *aside*."""
    refused = of_database(error or ValueError("it is damaged and cannot be moved aside"), path)
    again = f"It is kept as {shown(aside)}. Run again: a new one is made from what the store has."
    usual = "Check owner, mode and file system of the store."
    return failure(
        refused, "cannot use the index", at=path, state=_WHOLE, usual=usual, hint=again if aside else ""
    )


def _apply_schema(db: sqlite3.Connection) -> None:
    from venvflow.state import schema  # noqa: PLC0415 - sqlite-utils costs 50 ms, for a change of schema only

    schema.apply(db)
