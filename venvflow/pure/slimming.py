"""Leaving files out of a venv: what each exclude pattern saves, and RECORDs that list only what is left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from venvflow.model import Slot
from venvflow.pure.relocate import record_rows


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


def prune_record(record_path: str, data: bytes, gone: Iterable[str]) -> bytes:
    """Return a RECORD without the rows of files that are *gone*, by their paths in the venv."""
    return without_rows(record_path, data, (), set(gone).__contains__)[0]


def without_rows(
    record_path: str, data: bytes, slots: Iterable[Slot], is_gone: Callable[[str], bool]
) -> tuple[bytes, tuple[Slot, ...]]:
    """Return a RECORD, and the *slots* in it, without the rows of files that are gone, by path in the venv.

    All other rows keep their bytes. A row that cannot be read as CSV stays.
    """
    base = os.path.dirname(os.path.dirname(record_path))
    kept: list[bytes] = []
    left: list[Slot] = []
    waiting = sorted(slots)
    dropped = 0
    for row, start, end in record_rows(data):
        goes = bool(row) and is_gone(os.path.normpath(os.path.join(base, row[0])))
        while waiting and waiting[0].offset < end:
            slot = waiting.pop(0)
            if not goes:
                left.append(slot._replace(offset=slot.offset - dropped))
        if goes:
            dropped += end - start
        else:
            kept.append(data[start:end])
    left += [slot._replace(offset=slot.offset - dropped) for slot in waiting]
    return b"".join(kept), tuple(left)
