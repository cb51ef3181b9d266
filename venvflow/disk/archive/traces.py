"""Local paths that are still in an archive: what would tell, or depend on, where it was built."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import closing
from typing import NamedTuple

from venvflow.disk.archive import tar, zipfile
from venvflow.disk.archive.formats import Undecodable
from venvflow.disk.archive.reading import Item, items, unsafe
from venvflow.disk.archive.source import open_archive
from venvflow.errors import EnvironmentFailure, shown

_MOST = 100_000_000  # entries: what is looked for is in archives of our own making


class Trace(NamedTuple):
    """A local *path* is named *times* by the member *name*: in its name, its target, or its content."""

    name: str
    path: str
    times: int


def traces(archive: str, paths: Iterable[str]) -> list[Trace]:
    """Return where the *archive* names one of the local *paths*, in the order of its members.

    The longest of several paths counts, and only as a whole: ``/home/ann`` is not found in ``/home/anna``.
    Raises Refused for an archive that is damaged, EnvironmentFailure for one that cannot be read.
    """
    wanted = sorted({os.fsencode(path) for path in paths}, key=lambda path: (-len(path), path))
    if not wanted:
        return []
    search = _Search(wanted)
    found: list[Trace] = []
    try:
        with open_archive(archive) as raw, closing(items(archive, raw, _MOST)) as entries:
            for item in entries:
                counts = search.count(item)
                found += [
                    Trace(item.name, os.fsdecode(path), counts[path]) for path in wanted if path in counts
                ]
    except (tar.Malformed, zipfile.Malformed, Undecodable) as error:
        raise unsafe(archive, f"is damaged: {error}") from error
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot read {shown(archive)}: {error.strerror or error}",
            state="Nothing was changed.",
            hint="Mend that, then try again.",
        ) from error
    return found


class _Search:
    def __init__(self, wanted: list[bytes]) -> None:
        self._pattern = re.compile(b"(?:" + b"|".join(map(re.escape, wanted)) + rb")(?![\w-])")
        self._longest = len(wanted[0])

    def count(self, item: Item) -> dict[bytes, int]:
        """Return how often each path is named, without holding more of the content than a piece of it."""
        counts: dict[bytes, int] = {}
        self._add(counts, os.fsencode(f"{item.name}\n{item.target}"), final=True)
        rest = b""
        for part in item.parts:
            rest = self._add(counts, rest + part, final=False)
        self._add(counts, rest, final=True)
        return counts

    def _add(self, counts: dict[bytes, int], data: bytes, *, final: bool) -> bytes:
        """Count what is found in *data*; return what of it may belong to something that goes on after it."""
        end = len(data) if final else max(len(data) - self._longest, 0)
        for hit in self._pattern.finditer(data):
            if hit.start() < end:
                counts[hit[0]] = counts.get(hit[0], 0) + 1
                end = max(end, hit.end())
        return data[end:]
