"""SQLite files: which file may be one, opening one to read, moving a damaged one aside, waiting for locks.

And one kind of database: a table of texts (:class:`TextTable`).
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from venvflow.disk.files import read_beginning

PARTS = ("", "-wal", "-shm", "-journal")
"""What SQLite puts behind a database's name for the files that belong to it."""

TRY_SECONDS = 0.5
"""How long SQLite itself may wait: no signal is met meanwhile."""

_PAUSE = 0.01
_Result = TypeVar("_Result")

Parameters = Sequence[Any] | Mapping[str, Any]

_URI_SAFE = frozenset(b"/-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def can_be_database(path: str) -> bool:
    """Return whether SQLite may be let at *path*: it would wait for ever for the other end of a FIFO."""
    return all(_is_file_or_missing(path + part) for part in PARTS)


def _is_file_or_missing(path: str) -> bool:
    """Return that by one look: logs come and go while it is taken."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def open_to_read(path: str) -> sqlite3.Connection:
    """Open a database as it is, also where we may not write; raises ``sqlite3.Error``.

    SQLite leaves files beside a database that it opens for reading, but not beside one that it may take for
    immutable. It is that while there is no log of either kind; a writer that begins just now can at worst
    make it look damaged. A log that cannot be read is left out.
    """
    if not can_be_database(path):
        raise sqlite3.DatabaseError("it is not a regular file")
    quoted = "".join(chr(b) if b in _URI_SAFE else f"%{b:02x}" for b in os.fsencode(os.path.abspath(path)))
    address = f"file:{quoted}?mode=ro"
    if any(os.path.lexists(path + log) for log in ("-wal", "-journal")):
        try:
            return _opened(address)
        except sqlite3.OperationalError as error:
            if is_locked(error):
                raise
    return _opened(f"{address}&immutable=1")


def _opened(address: str) -> sqlite3.Connection:
    db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA schema_version")  # it is only opened now
    except BaseException:
        db.close()
        raise
    return db


# --------------------------------------------------------------------------- what is damaged


_DAMAGED = (
    "no such table", "no such column", "no such function", "no such module", "has no column",
    "Could not decode", "unsafe use of", "is a view",
)  # fmt: skip

_LOG_OF_OUR_OWN = 2
"""What the header says of a database in WAL mode; of others it says 1."""


def is_damage(error: Exception, path: str) -> bool:
    """Return whether the file is not a sound database of ours: neither locked, nor full, nor out of reach."""
    # We write what fits, and read what is text. Python raises the base class for a malformed file.
    if type(error) is sqlite3.DatabaseError or isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError)):
        return True
    text = str(error) if isinstance(error, sqlite3.Error) else ""
    # SQLite writes no file whose header says so, and no file whose log it cannot open: that may pass.
    forbidden = "readonly" in text and is_writable(path) and _says_read_only(path)
    return forbidden or any(words in text for words in _DAMAGED)


def is_writable(path: str) -> bool:
    """Return whether we may write to a file and make others beside it."""
    return os.access(path, os.W_OK) and os.access(os.path.dirname(path) or ".", os.W_OK)


def _says_read_only(path: str) -> bool:
    """Return whether the header forbids writing: nobody but damage makes that byte larger than 2."""
    with suppress(OSError):
        return max(read_beginning(path, 20)[18:19], default=0) > _LOG_OF_OUR_OWN
    return False


def identity(path: str) -> tuple[int, int]:
    """Return device and inode of what is at *path*; zeros if nothing is."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def set_aside(path: str, seen: tuple[int, int]) -> str:
    """Rename a damaged database and its logs, so that a new one can be made; return its new name.

    Only the one whose :func:`identity` was *seen*; empty if another program was faster. Raises ``OSError``.
    """
    if identity(path) != seen:
        return ""
    number = 1
    while os.path.lexists(aside := f"{path}.damaged-{number}"):
        number += 1
    os.rename(path, aside)
    for part in PARTS[1:]:
        with suppress(FileNotFoundError):
            os.rename(path + part, aside + part)
    return aside


# --------------------------------------------------------------------------- what is locked


def patiently(act: Callable[[], _Result], *, seconds: float) -> _Result:
    """Act on a database when others let us, within *seconds*; a signal that comes meanwhile is met.

    The connection was made to wait for :data:`TRY_SECONDS`. Raises ``sqlite3.Error``.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return act()
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() > end:
                raise
        time.sleep(_PAUSE)  # of two programs that make a database, one fails at once because it is locked


def is_locked(error: sqlite3.Error) -> bool:
    """Return whether an error says only that others are at work."""
    return "locked" in str(error) or "busy" in str(error)


# --------------------------------------------------------------------------- a table of texts

_CREATE = "CREATE TABLE IF NOT EXISTS task_state (task TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID"
_SELECT = "SELECT task, CAST(data AS TEXT) FROM task_state"
_UPSERT = "INSERT INTO task_state VALUES (?, ?) ON CONFLICT (task) DO UPDATE SET data = excluded.data"
_BUSY_SECONDS = 30.0


class TextTable:
    """A text for each task in the database at *path*: opened for each reading, kept open between writes.

    *on_damage* is called with the new path of a file that was damaged and moved aside. What is not UTF-8 is
    read all the same: a damaged row is one task to check again, not an error.
    """

    def __init__(self, path: str, on_damage: Callable[[str], None]) -> None:
        self._path = path
        self._on_damage = on_damage
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)

    def read(self) -> dict[str, str]:
        """Return all rows; there are none in a damaged file. Raises ``OSError`` or ``sqlite3.Error``."""
        if not self._is_usable():
            return {}
        seen = identity(self._path)
        try:
            return self._rows()
        except sqlite3.DatabaseError as error:
            if "no such table" in str(error):
                return {}
            if not is_damage(error, self._path):
                raise
            self._set_aside(seen)
            return {}

    def _rows(self) -> dict[str, str]:
        try:
            return _all_rows(_connected(self._path))
        except sqlite3.OperationalError as error:
            if is_damage(error, self._path) or is_locked(error):
                raise
            return _all_rows(open_to_read(self._path))  # where the directory is read-only

    def write(
        self, saved: Mapping[str, str], gone: Iterable[str], *, forget_all: bool = False
    ) -> Exception | None:
        """Write rows in one transaction; return the error if that failed and may be tried again."""
        try:
            self._transact(saved, gone, forget_all)
        except (sqlite3.Error, OSError) as error:
            self.close()
            return error
        return None

    def _transact(self, saved: Mapping[str, str], gone: Iterable[str], forget_all: bool) -> None:
        connection = self._opened()
        patiently(lambda: connection.execute("BEGIN IMMEDIATE"), seconds=_BUSY_SECONDS)
        try:
            connection.execute(_CREATE)
            if forget_all:
                connection.execute("DELETE FROM task_state")
            connection.executemany("DELETE FROM task_state WHERE task = ?", [(task,) for task in gone])
            connection.executemany(_UPSERT, saved.items())
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self._is_usable()
            self._connection = _connected(self._path)
            # Two runs that make the file at the same moment: one of them switches, the other need not.
            with suppress(sqlite3.OperationalError):
                self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._identity = identity(self._path)
        return self._connection

    def _is_usable(self) -> bool:
        """Return whether there is something to read; what is not a file is moved out of the way."""
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return False
        if not (stat.S_ISREG(found.st_mode) and can_be_database(self._path)):
            self._set_aside((found.st_dev, found.st_ino))
            return False
        return found.st_size > 0

    def sets_aside_for(self, error: Exception) -> bool:
        """Move the file aside if *error* says that it is damaged; return whether that was so."""
        if not is_damage(error, self._path):
            return False
        try:
            self._set_aside(identity(self._path))
        except OSError:
            return False
        return True

    def _set_aside(self, seen: tuple[int, int]) -> None:
        aside = set_aside(self._path, seen)
        if aside:
            self._on_damage(aside)

    def is_lost(self) -> bool:
        """Return whether somebody deleted or replaced the file that was written to."""
        if self._connection is None or identity(self._path) == self._identity:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Close the file; it is opened again when there is more to write."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _connected(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=TRY_SECONDS, isolation_level=None, check_same_thread=False)


def _all_rows(connection: sqlite3.Connection) -> dict[str, str]:
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    try:
        return dict(patiently(lambda: connection.execute(_SELECT), seconds=_BUSY_SECONDS))
    finally:
        connection.close()
