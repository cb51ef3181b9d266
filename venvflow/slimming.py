"""Leaving files out of a venv: what each exclude pattern saves, and RECORDs that list only what is left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from venvflow.relocate import record_rows


class Saved(NamedTuple):
    """What one pattern left out: *files* regular files of *size* bytes in all."""

    pattern: str
    files: int
    size: int


def saved_by(sizes: Mapping[str, int], deciding: Callable[[str], str | None]) -> list[Saved]:
    """Return what each pattern saved, most bytes first, for files that were left out by path and size.

    *deciding* returns the pattern that excludes a path.
    """
    counts: dict[str, list[int]] = {}
    for path, size in sizes.items():
        both = counts.setdefault(deciding(path) or "", [0, 0])
        both[0] += 1
        both[1] += size
    found = [Saved(pattern, files, size) for pattern, (files, size) in counts.items()]
    return sorted(found, key=lambda each: (-each.size, each.pattern))


def saved_from(rows: Iterable[Any]) -> list[Saved]:
    """Return what was written down as rows of pattern, files and bytes."""
    return [Saved(str(pattern), int(files), int(size)) for pattern, files, size in rows]


def prune_record(record_path: str, data: bytes, gone: Iterable[str]) -> bytes:
    """Return a RECORD without the rows of files that are *gone*, by their paths in the venv.

    All other rows keep their bytes. A row that cannot be read as CSV stays.
    """
    missing = set(gone)
    base = os.path.dirname(os.path.dirname(record_path))
    kept = [
        data[start:end]
        for row, start, end in record_rows(data)
        if not row or os.path.normpath(os.path.join(base, row[0])) not in missing
    ]
    return b"".join(kept)
