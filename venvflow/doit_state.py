"""The state of doit's tasks in an SQLite file: a finished task stays finished, however the run ends.

doit's own backends write at the end of a run, so a killed run, or two at once, lose what was done. Here
every task is committed when it succeeds. The state is a convenience and may be deleted or damaged at any
time: then tasks are checked again, nothing else is lost.

Every doit command imports this module, whichever backend it uses, so that nothing heavy is imported above.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from venvflow import interrupts
from venvflow.errors import shown
from venvflow.streams import put

if TYPE_CHECKING:
    from venvflow.disk.databases import TextTable

_LAST_KEY = "deps:"  # doit sets it last when a task succeeded: the moment to commit


_codes: list[int] = []
"""The exit codes of what failed without doit knowing of it."""


def end_with(code: int) -> None:
    """Let the command that runs go on, and end with *code* when it saves its state, the last thing it does.

    ``doit clean`` has no failures: whatever its tasks say, it would end with 0.
    """
    _codes.append(code)


class StateBackend:
    """doit's state of all tasks: read once, when it is first asked for, and written task by task.

    *name* is the path of the SQLite file, made with its directory when there is something to write; *codec*
    is what doit has to turn a task's values into text and back.
    Where it cannot be written, the run goes on, and :meth:`dump` says so at the end. Failures are raised
    as doit's own InvalidDodoFile, which doit shows as one message with exit code 3 and no traceback.
    May be used by several threads, although doit itself only writes in its main thread.
    """

    desc = "state in SQLite, committed task by task"

    def __init__(self, name: str, codec: Any, *, module_name: str | None = None) -> None:
        del module_name  # doit passes it to every backend; only dbm has a use for it
        self.name = name
        self.codec = codec
        self._path = os.path.abspath(name)  # actions may change the working directory
        self._opened: TextTable | None = None
        self._lock = threading.RLock()
        self._loaded = False
        self._texts: dict[str, str] = {}  # as read, not decoded yet
        self._rows: dict[str, dict[str, Any]] = {}
        self._pending: set[str] = set()  # set or removed, not committed
        self._touched: set[str] = set()  # set or removed since the start
        self._forget_all = False
        self._error: Exception | None = None

    @property
    def _table(self) -> TextTable:
        if self._opened is None:
            from venvflow.disk.databases import TextTable  # noqa: PLC0415 - only where the state is read

            self._opened = TextTable(self._path, self._tell_of_damage)
        return self._opened

    def _tell_of_damage(self, aside: str) -> None:
        put(
            sys.stderr,
            f"venvflow: the task state in {shown(self._path)} was damaged; it is kept as "
            f"{shown(os.path.basename(aside))}, and every task is checked again.\n",
        )

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
                if self._opened is not None:
                    self._opened.close()
            if interrupts.received():
                return  # that is how the run ends, whatever else there is to say
            if self._error is not None and (self._pending or self._forget_all):
                count = len(self._pending)
                raise self._failed(
                    self._error,
                    f"the state of {count} task{'' if count == 1 else 's'} could not be saved",
                    state="What the tasks did is done; the next run will check them again",
                    usual="Check owner and mode of this file and its directory",
                )
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
        import sqlite3  # noqa: PLC0415 - only where the state is read

        try:
            return self._table.read()
        except (OSError, sqlite3.Error) as error:
            raise self._failed(
                error,
                "the task state cannot be read",
                state="Nothing was run",
                usual="Check owner and mode of this file and its directory; it may be deleted, "
                "then every task is checked again",
            ) from error

    def _flush(self) -> None:
        if self._touched and self._table.is_lost():
            self._pending |= self._touched
        if not (self._pending or self._forget_all):
            return
        saved, problems = self._encoded()
        if self._write(saved):
            self._pending.clear()
            self._forget_all = False
        if problems:
            raise _for_doit("InvalidTask", "\n".join(problems))

    def _write(self, saved: dict[str, str]) -> bool:
        gone = [_column(task) for task in self._pending if task not in self._rows]
        self._error = self._table.write(saved, gone, forget_all=self._forget_all)
        if self._error is not None and self._table.sets_aside_for(self._error):
            # What this run saved before is in the damaged file.
            self._pending |= self._touched
            saved, _ = self._encoded()
            self._error = self._table.write(saved, [])
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

    def _failed(self, error: Exception, what: str, *, state: str, usual: str) -> Exception:
        from venvflow.disk.system_errors import failure, of_database  # noqa: PLC0415 - every doit command is spared it

        explained = failure(of_database(error, self.name), what, at=self.name, state=state, usual=usual)
        return _for_doit("InvalidDodoFile", str(explained))


def _column(task_id: str) -> str:
    """Return the name of a task as SQLite can hold it: names made of file names may not be UTF-8."""
    return task_id.encode("utf-8", "backslashreplace").decode("utf-8")


def _for_doit(kind: str, text: str) -> Exception:
    from doit import exceptions  # noqa: PLC0415 - doit imports us, not we doit

    raised: Exception = getattr(exceptions, kind)(text)
    return raised
