"""SQLite's files: which may be one, opening one to read, moving a damaged one aside, waiting for others."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from venvflow.disk.files import read_beginning

PARTS = ("", "-wal", "-shm", "-journal")
"""What SQLite puts behind a database's name for the files that belong to it."""

TRY_SECONDS = 0.5
"""How long SQLite itself may wait: no signal is met meanwhile."""

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

    SQLite leaves files beside a database that it opens for reading, but not beside one of which it is told
    that nobody writes to it. Nobody does when there is no log of either kind. One who begins to just now can
    at worst make it look damaged. A log that cannot be read is left out.
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


def patiently(
    connection: sqlite3.Connection, sql: str, parameters: Parameters = (), *, seconds: float
) -> sqlite3.Cursor:
    """Execute a statement when others let us, within *seconds*; a signal that comes meanwhile is met.

    The connection was made to wait for :data:`TRY_SECONDS`. Raises ``sqlite3.Error``.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return connection.execute(sql, parameters)
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() > end:
                raise


def is_locked(error: sqlite3.Error) -> bool:
    """Return whether an error says only that others are at work."""
    return "locked" in str(error) or "busy" in str(error)
