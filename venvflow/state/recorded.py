"""Holds a venv against the RECORDs of its distributions: which files are gone, or not as installed.

Others write RECORDs: a row that cannot be read, or that names what lies outside of the venv, says nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from venvflow.disk.files import read_small
from venvflow.errors import shown, some
from venvflow.pure.manifest import name_and_version
from venvflow.pure.patterns import Matcher
from venvflow.pure.relocate import Listed, listed_in
from venvflow.state.contents import digest_in
from venvflow.state.file_stats import is_ignored
from venvflow.state.survey import Survey


class Broken(NamedTuple):
    """A distribution, by the path of its *record*, that is not what was installed, by paths in the venv."""

    record: str
    missing: tuple[str, ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        name = " ".join(filter(None, name_and_version(self.record)))
        said = (
            f"{words} {some([path.rpartition('site-packages/')[2] for path in paths], 1)}"
            for words, paths in (("lacks", self.missing), ("has other bytes in", self.changed))
            if paths
        )
        return shown(f"{name} {' and '.join(said)}")


def told(broken: Iterable[Broken]) -> str:
    """Return in one line how distributions are not what was installed, empty if there are none."""
    words = some([*map(str, broken)], 4, "; ")
    return f"{_UNLIKE}: {words}" if words else ""


def was_told(warnings: Iterable[str]) -> bool:
    """Return whether *warnings* say that distributions are not what was installed."""
    return any(_UNLIKE in warning for warning in warnings)


_UNLIKE = "not what the RECORDs say"


_RECORD = re.compile(r"lib/[^/]+/site-packages/[^/]+\.dist-info/RECORD")
_METADATA = re.compile(r"(lib/[^/]+/site-packages/[^/]+\.dist-info)/METADATA")


def records_of(paths: Iterable[str]) -> list[str]:
    """Return those of the *paths* in a venv that are RECORDs of its distributions.

    What a distribution carries in a directory of its own has RECORDs, too, which tell where it came from.
    """
    return [path for path in paths if path.endswith("/RECORD") and _RECORD.fullmatch(path)]


def listed(
    venv: str, record: str, digest: str, place: str = "", *, strict: bool = True
) -> dict[str, set[Listed]]:
    """Return what a RECORD of the venv at the path *venv* says of each file, by path in the venv.

    *digest* is the SHA-256 (in hex) that it had when the venv was surveyed. Other paths are as
    :func:`venvflow.pure.relocate.listed_in` has them; those of a venv that is not in its *place* name that.
    Raises ``OSError`` and ``ValueError`` for one that cannot be read, or is another one by now.
    """
    data = read_small(f"{venv}/{record}")
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(record)
    return listed_in(record, data, place or venv, strict=strict)


def all_listed(
    venv: str, survey: Survey, place: str = "", but: Container[str] = ()
) -> dict[str, dict[str, set[Listed]]]:
    """Return what all RECORDs of a venv that was surveyed *but* these say, by their paths.

    See :func:`listed`.
    """
    records = {}
    for path in (each for each in records_of(survey.entries) if each not in but):
        with suppress(OSError, ValueError):
            records[path] = listed(venv, path, survey.filled.get(path, ""), place, strict=False)
    return records


def broken_in(
    venv: str, survey: Survey, matcher: Matcher | None, place: str = "", whole: Container[str] = ()
) -> list[Broken]:
    """Return which distributions of the venv at the path *venv*, which was surveyed, are not whole.

    One without a RECORD is not: installers write that last. What *matcher* excludes may be gone. *place* is
    where its files say that it is, if that is elsewhere. *whole* are the paths of the RECORDs of those that
    are known to be.
    """
    records = all_listed(venv, survey, place, whole)

    def may_be_gone(path: str) -> bool:
        return matcher is not None and matcher.excludes_file(path)

    def holds(path: str, digest: str) -> bool:
        entry = survey.entries.get(path)
        if entry is None or (entry.kind == "template" and path not in survey.filled):
            return True  # left out, or as it was when it was read before
        target = os.readlink(f"{venv}/{path}") if entry.kind == "link" else ""
        return digest == (survey.filled.get(path) or entry.digest or digest_in(target))

    def is_there(path: str) -> bool:
        return path in survey.found or os.path.lexists(f"{venv}/{path}") or may_be_gone(path)

    infos = filter(None, map(_METADATA.fullmatch, survey.entries))
    unrecorded = [record for each in infos if not is_there(record := f"{each[1]}/RECORD")]
    return [*compared(records, is_there, holds), *(Broken(path, (path,), ()) for path in sorted(unrecorded))]


def compared(
    records: Mapping[str, Mapping[str, set[Listed]]],
    is_there: Callable[[str], bool],
    holds: Callable[[str, str], bool],
) -> list[Broken]:
    """Return which distributions are not whole: *records* are what their RECORDs say of each file.

    *is_there* says whether there is a file at a path, or need not be; *holds* whether it has a SHA-256 (in
    hex). A file of several distributions may be that of any. One without a hash may be gone: bytecode,
    what an installer notes.
    """
    wanted: dict[str, set[str]] = {}
    for rows in records.values():
        for path, said in rows.items():
            wanted.setdefault(path, set()).update(each.digest for each in said)
    broken = []
    for record, rows in sorted(records.items()):
        paths = [path for path, said in rows.items() if Listed() not in said and not is_ignored(path)]
        missing = {path for path in paths if not is_there(path)}
        changed = [
            path
            for path in paths
            if path not in missing
            and "" not in wanted[path]
            and not any(holds(path, each) for each in wanted[path])
        ]
        if missing or changed:
            broken.append(Broken(record, tuple(sorted(missing)), tuple(sorted(changed))))
    return broken
