"""doit's task state in an SQLite file: what finished stays finished, whatever ends the run.

doit's own backends write at the end of a run, so a killed run, or two at once, lose what was done. Here
every task is committed when it succeeds. The state is a convenience and may be deleted or damaged at any
time: then tasks are checked again, nothing else is lost.

Every doit command imports this module, whichever backend it uses, so that nothing heavy is imported above.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from venvflow import interrupts
from venvflow.errors import EnvironmentFailure, shown
from venvflow.streams import put

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

_LAST_KEY = "deps:"  # doit sets it last when a task succeeded: the moment to commit
_BUSY_SECONDS = 30.0
_CREATE = "CREATE TABLE IF NOT EXISTS task_state (task TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID"
_UPSERT = "INSERT INTO task_state VALUES (?, ?) ON CONFLICT (task) DO UPDATE SET data = excluded.data"
_URI_SAFE = frozenset(b"/-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Codec(Protocol):
    """What doit gives a backend to turn a task's values into text and back."""

    def encode(self, data: dict[str, Any]) -> str:
        """Return *data* as text."""

    def decode(self, data: str) -> dict[str, Any]:
        """Return what *data* was made of."""


_codes: list[int] = []
"""The exit codes of what failed without doit knowing of it."""


def end_with(code: int) -> None:
    """Let the command that runs go on, and end with *code* when it saves its state, the last thing it does.

    ``doit clean`` has no failures: whatever its tasks say, it would end with 0.
    """
    _codes.append(code)


class StateBackend:
    """doit's state of all tasks: read once, when it is first asked for, and written task by task.

    *name* is the path of the SQLite file, made with its directory when there is something to write.
    Where it cannot be written, the run goes on, and :meth:`dump` says so at the end. Failures are raised
    as doit's own InvalidDodoFile, which doit shows as one message with exit code 3 and no traceback.
    May be used by several threads, although doit itself only writes in its main thread.
    """

    desc = "state in SQLite, committed task by task"

    def __init__(self, name: str, codec: Codec, *, module_name: str | None = None) -> None:
        del module_name  # doit passes it to every backend; only dbm has a use for it
        self.name = name
        self.codec = codec
        self._file = _StateFile(os.path.abspath(name))  # actions may change the working directory
        self._lock = threading.RLock()
        self._loaded = False
        self._texts: dict[str, str] = {}  # as read, not decoded yet
        self._rows: dict[str, dict[str, Any]] = {}
        self._pending: set[str] = set()  # set or removed, not committed
        self._touched: set[str] = set()  # set or removed since the start
        self._forget_all = False
        self._error: Exception | None = None

    def get(self, task_id: str, dependency: str) -> Any:
        """Return the value saved for *dependency* of a task, ``None`` if there is none."""
        row = self._row(task_id)
        return None if row is None else row.get(dependency)

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Save a value that the codec can encode; commits when it is the last one of a task."""
        with self._lock:
            row = self._row(task_id)
            if isinstance(value, tuple):  # as it comes back; else it would be another one on every run
                value = list(value)
            if row is None:
                row = self._rows[task_id] = {}
            if dependency not in row or row[dependency] != value:  # groups are saved anew on every run
                row[dependency] = value
                self._mark(task_id)
            if dependency == _LAST_KEY:
                self._flush()

    def in_(self, task_id: str) -> bool:
        """Return whether anything is saved for a task."""
        return self._row(task_id) is not None

    def remove(self, task_id: str) -> None:
        """Forget a task, in the file too and at once: it failed, or its state must not be used again."""
        with self._lock:
            known = self._row(task_id) is not None
            self._rows.pop(task_id, None)
            self._texts.pop(_column(task_id), None)
            self._mark(task_id)
            if known:
                self._flush()

    def remove_all(self) -> None:
        """Forget all tasks at once."""
        with self._lock:
            self._loaded = True
            self._forget_all = True
            for known in (self._texts, self._rows, self._pending, self._touched):
                known.clear()
            self._flush()

    def dump(self) -> None:
        """Commit what is left and close the file; raises InvalidDodoFile if that is not possible."""
        with self._lock:
            try:
                self._flush()
            finally:
                self._file.close()
            if interrupts.received():
                return  # that is how the run ends, whatever else there is to say
            if self._error is not None and (self._pending or self._forget_all):
                raise self._not_saved(self._error)
        if _codes:
            raise SystemExit(_codes[0])

    def _mark(self, task_id: str) -> None:
        self._pending.add(task_id)
        self._touched.add(task_id)

    def _row(self, task_id: str) -> dict[str, Any] | None:
        with self._lock:
            if not self._loaded:
                self._texts = self._read()
                self._loaded = True
            row = self._rows.get(task_id)  # doit asks several times for each task
            if row is None and (text := self._texts.pop(_column(task_id), None)) is not None:
                row = self._decoded(text)
                if row is not None:
                    self._rows[task_id] = row
            return row

    def _decoded(self, text: str) -> dict[str, Any] | None:
        try:
            row: object = self.codec.decode(text)
        except (ValueError, RecursionError):
            return None  # damaged: as good as a task that never ran
        return row if isinstance(row, dict) else None

    def _read(self) -> dict[str, str]:
        try:
            return self._file.read()
        except EnvironmentFailure as error:
            raise _for_doit(error) from error

    def _flush(self) -> None:
        if self._file.is_lost():
            self._pending |= self._touched
        if not (self._pending or self._forget_all):
            return
        saved, problems = self._encoded()
        if self._written(saved):
            self._pending.clear()
            self._forget_all = False
        if problems:
            raise _unsavable(problems)

    def _written(self, saved: dict[str, str]) -> bool:
        gone = [_column(task) for task in self._pending if task not in self._rows]
        self._error = self._file.write(saved, gone, forget_all=self._forget_all)
        if self._error is not None and self._file.is_set_aside_for(self._error):
            # What this run saved before is in the damaged file.
            self._pending |= self._touched
            saved, _ = self._encoded()
            self._error = self._file.write(saved, [])
        return self._error is None

    def _encoded(self) -> tuple[dict[str, str], list[str]]:
        saved, problems = {}, []
        for task in sorted(self._pending & self._rows.keys()):
            try:
                saved[_column(task)] = self.codec.encode(self._rows[task])
            except (TypeError, ValueError, RecursionError) as error:
                # Only this task is lost. It must not be in the way when the others are saved.
                del self._rows[task]
                problems.append(f"task '{task}' returned values that cannot be saved as JSON: {error}")
        return saved, problems

    def _not_saved(self, error: Exception) -> Exception:
        from venvflow.disk.blame import failure, of_database  # noqa: PLC0415 - every doit command is spared it

        count = len(self._pending)
        return _for_doit(
            failure(
                of_database(error, self.name),
                f"the state of {count} task{'' if count == 1 else 's'} could not be saved",
                at=self.name,
                state="What the tasks did is done; the next run will check them again",
                usual="Check owner and mode of this file and its directory",
            )
        )


def _column(task_id: str) -> str:
    """Return the name of a task as SQLite can hold it: names made of file names may not be UTF-8."""
    return task_id.encode("utf-8", "backslashreplace").decode("utf-8")


def _for_doit(error: EnvironmentFailure) -> Exception:
    from doit.exceptions import InvalidDodoFile  # noqa: PLC0415 - doit imports us, not we doit

    raised: Exception = InvalidDodoFile(str(error))
    return raised


def _unsavable(problems: list[str]) -> Exception:
    from doit.exceptions import InvalidTask  # noqa: PLC0415 - doit imports us, not we doit

    raised: Exception = InvalidTask("\n".join(problems))
    return raised


class _StateFile:
    """The SQLite file: one table, a text per task. Opened for each reading, kept open between writes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)

    def read(self) -> dict[str, str]:
        """Return all rows; a file that is damaged is moved aside, and there are none."""
        import sqlite3  # noqa: PLC0415 - every doit command imports this module

        try:
            if not self._is_usable():
                return {}
            return self._select()
        except sqlite3.DatabaseError as error:
            if _is_damage(error):
                self._set_aside(_identity(self._path))
                return {}
            raise self._unreadable(error) from error
        except OSError as error:
            raise self._unreadable(error) from error

    def write(
        self, saved: Mapping[str, str], gone: Iterable[str], *, forget_all: bool = False
    ) -> Exception | None:
        """Write rows in one transaction; return the error if that failed and may be tried again."""
        import sqlite3  # noqa: PLC0415 - every doit command imports this module

        try:
            self._transact(saved, gone, forget_all)
        except (sqlite3.Error, OSError) as error:
            self.close()
            return error
        return None

    def is_set_aside_for(self, error: Exception) -> bool:
        """Move the file aside if *error* says that it is damaged; return whether that was so."""
        if not _is_damage(error):
            return False
        try:
            self._set_aside(_identity(self._path))
        except OSError:
            return False
        return True

    def is_lost(self) -> bool:
        """Return whether somebody deleted or replaced the file that was written to."""
        if self._connection is None:
            return False
        if _identity(self._path) == self._identity:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Close the file; it is opened again when there is more to write."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _is_usable(self) -> bool:
        """Return whether there is something to read; what is not a file is moved out of the way."""
        from venvflow.disk.databases import can_be_database  # noqa: PLC0415 - every doit command is spared it

        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return False
        if not (stat.S_ISREG(found.st_mode) and can_be_database(self._path)):
            self._set_aside((found.st_dev, found.st_ino))
            return False
        return found.st_size > 0

    def _select(self) -> dict[str, str]:
        import sqlite3  # noqa: PLC0415 - every doit command imports this module

        try:
            return _all_rows(_connected(self._path))
        except sqlite3.OperationalError as error:
            if _is_damage(error) or "locked" in str(error):
                raise
            # Where the directory is read-only, SQLite reads a file with a log only if told so.
            return _all_rows(_connected(f"file:{_quoted(self._path)}?mode=ro&immutable=1", uri=True))

    def _transact(self, saved: Mapping[str, str], gone: Iterable[str], forget_all: bool) -> None:
        from venvflow.disk.databases import patiently  # noqa: PLC0415 - every doit command is spared it

        connection = self._opened()
        patiently(connection, "BEGIN IMMEDIATE", seconds=_BUSY_SECONDS)
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
            self._connection = _connected(self._path, log=True)
            self._identity = _identity(self._path)
        return self._connection

    def _set_aside(self, identity: tuple[int, int]) -> None:
        """Rename the damaged file and its log, unless another run did so and made a new one."""
        from venvflow.disk.databases import PARTS  # noqa: PLC0415 - every doit command is spared it

        if _identity(self._path) != identity:
            return
        number = 1
        while os.path.lexists(aside := f"{self._path}.damaged-{number}"):
            number += 1
        os.rename(self._path, aside)
        for suffix in PARTS[1:]:
            if os.path.lexists(self._path + suffix):
                os.rename(self._path + suffix, aside + suffix)
        put(
            sys.stderr,
            f"venvflow: the task state in {shown(self._path)} was damaged; it is kept as "
            f"{shown(os.path.basename(aside))}, and every task is checked again.\n",
        )

    def _unreadable(self, error: Exception) -> EnvironmentFailure:
        from venvflow.disk.blame import failure, of_database  # noqa: PLC0415 - every doit command is spared it

        return failure(
            of_database(error, self._path),
            "the task state cannot be read",
            at=self._path,
            state="Nothing was run",
            usual="Check owner and mode of this file and its directory; it may be deleted, "
            "then every task is checked again",
        )


def _connected(address: str, *, uri: bool = False, log: bool = False) -> sqlite3.Connection:
    import sqlite3  # noqa: PLC0415 - every doit command imports this module

    from venvflow.disk.databases import TRY_SECONDS  # noqa: PLC0415 - every doit command is spared it

    connection = sqlite3.connect(
        address,
        timeout=TRY_SECONDS if log else _BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        uri=uri,
    )
    connection.text_factory = _lenient  # a damaged row is one task to check again, not an error
    try:
        if log:
            _use_log(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _lenient(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _use_log(connection: sqlite3.Connection) -> None:
    import sqlite3  # noqa: PLC0415 - every doit command imports this module

    # Two runs that make the file at the same moment: one of them switches, the other need not.
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _all_rows(connection: sqlite3.Connection) -> dict[str, str]:
    import sqlite3  # noqa: PLC0415 - every doit command imports this module

    try:
        return dict(connection.execute("SELECT task, CAST(data AS TEXT) FROM task_state"))
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return {}
        raise
    finally:
        connection.close()


def _is_damage(error: Exception) -> bool:
    """Return whether the file itself is at fault: not a database, malformed, a table of another shape."""
    import sqlite3  # noqa: PLC0415 - every doit command imports this module

    # Python raises the base class for both kinds of damage; locks, space and permissions are subclasses.
    return type(error) is sqlite3.DatabaseError or "no such column" in str(error)


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.lstat(path)
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _quoted(path: str) -> str:
    return "".join(chr(byte) if byte in _URI_SAFE else f"%{byte:02x}" for byte in os.fsencode(path))
