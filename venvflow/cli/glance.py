"""The store for who only asks: nothing is made, repaired, moved or locked, and a damaged thing is absent."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from venvflow.errors import EnvironmentFailure, shown
from venvflow.index import Index
from venvflow.manifest import Corrupt, decode_tree
from venvflow.model import StoreConfig, Tree
from venvflow.store import Store


class Glance(Store):
    """A store that is only looked at."""

    def _create(self) -> None:
        raise EnvironmentFailure("there is no store", where=shown(self.path))

    def quarantine_snapshot(self, identifier: str) -> None:
        """Leave it where it is: whoever works with the store next will put it aside."""

    @property
    def index(self) -> Index:
        """Return the index as it is; an empty one if there is none that can be read."""
        if self._index is None:
            self._index = _Untouched(f"{self.path}/index.db")
        return self._index

    def tree(self, digest: str) -> Tree:
        """Return a tree; raises :class:`~venvflow.manifest.Corrupt`, and leaves a damaged one where it is."""
        try:
            with open(self._tree_path(digest), "rb") as file:
                return decode_tree(digest, file.read())
        except OSError as error:
            raise Corrupt(f"tree {digest[:12]} cannot be read: {error.strerror}") from error


class _Untouched(Index):
    """An index that is read as it is: not made, not migrated, not moved aside when it is damaged."""

    def _open(self) -> sqlite3.Connection:
        if not os.path.isfile(self.path):
            return sqlite3.connect(":memory:")
        # SQLite leaves files beside a database that it opens for reading, but not beside one that it is told
        # nobody writes to. Nobody does when there is no write-ahead log; one that begins to just now can at
        # worst make the history look empty.
        alone = "&immutable=1" if not os.path.lexists(f"{self.path}-wal") else ""
        return sqlite3.connect(f"file:{quote(os.fsencode(self.path))}?mode=ro{alone}", uri=True)

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """Return all rows of a query, none if the index cannot answer it."""
        try:
            return self._db.execute(sql, parameters).fetchall()
        except sqlite3.Error:
            return []


@contextmanager
def open_glance(config: StoreConfig) -> Iterator[Glance | None]:
    """Give the store of *config* to look at, or None if there is none yet.

    Raises StoreFormatError, Refused or EnvironmentFailure for a store that must or can not be read.
    """
    if not os.path.lexists(os.path.join(config.path, "format")):
        yield None
        return
    store = Glance(config)
    try:
        yield store
    finally:
        store.close()
