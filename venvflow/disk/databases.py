"""SQLite's files: what may be one, and waiting for others who write to it, without being deaf to signals."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3

PARTS = ("", "-wal", "-shm", "-journal")
"""What SQLite puts behind a database's name for the files that belong to it."""

TRY_SECONDS = 0.5
"""How long SQLite itself may wait: no signal is met meanwhile."""


def can_be_database(path: str) -> bool:
    """Return whether SQLite may be let at *path*: it would wait for ever for the other end of a FIFO."""
    return all(_is_file_or_missing(path + part) for part in PARTS)


def _is_file_or_missing(path: str) -> bool:
    """Return that by one look: logs come and go while it is taken."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def patiently(
    connection: sqlite3.Connection,
    sql: str,
    parameters: Sequence[Any] | Mapping[str, Any] = (),
    *,
    seconds: float,
) -> sqlite3.Cursor:
    """Execute a statement when others let us, within *seconds*; a signal that comes meanwhile is met.

    The connection was made to wait for :data:`TRY_SECONDS`. Raises ``sqlite3.Error``.
    """
    import sqlite3  # noqa: PLC0415 - every doit command imports those who import this module

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
