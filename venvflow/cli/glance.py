"""The store for who only asks: nothing is made, repaired, moved or locked, and a damaged thing is absent."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from venvflow.disk.databases import can_be_database
from venvflow.errors import EnvironmentFailure, shown
from venvflow.model import Snapshot, StoreConfig
from venvflow.state.index import Index
from venvflow.state.store import Store, may_become_store


class Glance(Store):
    """A store that is only looked at, once: a snapshot that was read is not read again."""

    def __init__(self, config: StoreConfig) -> None:
        super().__init__(config)
        self._seen: dict[str, Snapshot | None] = {}

    def _create(self) -> None:
        raise EnvironmentFailure(
            "there is no store",
            where=shown(self.path),
            state="Nothing was changed.",
            hint='Run "doit" to fill one, or name another (VENVFLOW_STORE).',
        )

    def quarantine_snapshot(self, identifier: str) -> None:
        """Leave it where it is: whoever works with the store next will put it aside."""

    @property
    def index(self) -> Index:
        """Return the index as it is; an empty one if there is none that can be read."""
        if self._index is None:
            self._index = _Untouched(f"{self.path}/index.db")
        return self._index

    def snapshot(self, identifier: str) -> Snapshot | None:
        """Return the snapshot with this id, or None if there is none that can be believed."""
        if identifier not in self._seen:
            self._seen[identifier] = super().snapshot(identifier)
        return self._seen[identifier]

    def _reject_tree(self, digest: str) -> None:
        """Leave a damaged tree where it is."""


class _Untouched(Index):
    """An index that is read as it is: not made, not migrated, not moved aside when it is damaged."""

    def _open(self) -> sqlite3.Connection:
        if not (os.path.isfile(self.path) and can_be_database(self.path)):
            return sqlite3.connect(":memory:")
        # SQLite leaves files beside a database that it opens for reading, but not beside one that it is told
        # nobody writes to. Nobody does when there is no log of either kind; one that begins to just now can
        # at worst make the history look empty.
        busy = any(os.path.lexists(f"{self.path}{log}") for log in ("-wal", "-journal"))
        alone = "" if busy else "&immutable=1"
        try:
            return sqlite3.connect(f"file:{quote(os.fsencode(self.path))}?mode=ro{alone}", uri=True)
        except sqlite3.Error:  # it may not be read, or was deleted just now
            return sqlite3.connect(":memory:")

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """Return all rows of a query, none if the index cannot answer it."""
        try:
            return self._db.execute(sql, parameters).fetchall()
        except sqlite3.Error:
            return []


@contextmanager
def open_glance(config: StoreConfig) -> Iterator[Glance | None]:
    """Give the store of *config* to look at, or None if there is none yet.

    Raises StoreFormatError, Refused or EnvironmentFailure for a store that must or can not be read, and for
    something else that is in its place.
    """
    if not _is_there(config.path):
        yield None
        return
    store = Glance(config)
    try:
        yield store
    finally:
        store.close()


def _is_there(path: str) -> bool:
    """Return whether there is a store; an empty directory, or one that a killed run left, is none yet."""
    try:
        names = set(os.listdir(path))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _no_store(path, (error.strerror or str(error)).lower()) from error
    if "format" not in names and not may_become_store(path):
        raise _no_store(path, "the directory holds something else")
    return "format" in names


def _no_store(path: str, why: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"this is no store: {why}",
        where=shown(path),
        state="Nothing was changed.",
        hint="Mend store.path in the config, or VENVFLOW_STORE.",
    )
