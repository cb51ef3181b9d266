"""Modes: what a venv's files had before they were shared, so that unsquish can give it back.

Objects are read-only, and all venvs that have one see its mode. What a venv's own files had is noted in its
receipt: the two modes that most files have, if they are not the usual ones, and the files with another one.
Bits that let a file run as somebody else are not kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from venvflow.disk.scan import Found
from venvflow.model import MTIME_NS

MODE_BITS = 0o777
"""The bits of a mode that are noted and given back: none with which a file runs as somebody else."""

_FILES, _PROGRAMS = "", "/"
"""Stand for all files, and all that may be executed; no file is called like that."""

FOR_MOST = (_FILES, _PROGRAMS)
"""Names in a venv's modes that are not paths: the modes that most of its files have."""

_USUAL = {_FILES: 0o644, _PROGRAMS: 0o755}


def is_sealed(item: Found) -> bool:
    """Return whether a file looks like an object: read-only, with the time that all objects have."""
    return item.stamp.mtime_ns == MTIME_NS and not item.mode & 0o222 and item.stamp.size > 0


def modes_of(found: Iterable[Found], earlier: Mapping[str, int] | None) -> dict[str, int]:
    """Return what there is to note of files that are about to be shared.

    *earlier* is what was noted when they were shared before, None if they never were: it holds for those
    that look like objects, or are symlinks to them by now.
    """
    before = earlier or {}
    modes = {}
    for item in found:
        if item.kind == "file":
            sealed = mode_of(before, item.path, executable=item.executable) if is_sealed(item) else item.mode
            modes[item.path] = sealed & MODE_BITS
        elif item.path in before:
            modes[item.path] = before[item.path]
    noted = _most(modes) if earlier is None else {key: before[key] for key in _USUAL if key in before}
    odd = {
        path: mode for path, mode in modes.items() if mode != _of_kind(noted, executable=bool(mode & 0o100))
    }
    return noted | odd


def _most(modes: Mapping[str, int]) -> dict[str, int]:
    """Return the modes that most files have, where they are not the usual ones."""
    noted = {}
    for key, executable in ((_FILES, False), (_PROGRAMS, True)):
        common = Counter(mode for mode in modes.values() if bool(mode & 0o100) == executable).most_common(1)
        if common and common[0][0] != _USUAL[key]:
            noted[key] = common[0][0]
    return noted


def mode_of(noted: Mapping[str, int], path: str, *, executable: bool) -> int:
    """Return the mode that a file had, the usual one if nothing was *noted*."""
    return noted.get(path, _of_kind(noted, executable=executable)) & MODE_BITS


def _of_kind(noted: Mapping[str, int], *, executable: bool) -> int:
    key = _PROGRAMS if executable else _FILES
    return noted.get(key, _USUAL[key])
