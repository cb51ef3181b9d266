"""Finds the directories of a project that may hold lock files. Follows no symlinks, and only reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob
from typing import Any

from venvflow.disk.files import read_beginning
from venvflow.errors import shown
from venvflow.pure.lockfiles import read_json, read_toml

ELSEWHERE = (
    "node_modules", "bower_components", "vendor", "vendored", "_vendor", "third_party",
    "build", "dist", "target", "site-packages", "__pycache__",
)  # fmt: skip
"""Directories of what is built or comes from elsewhere: their lock files are not the project's."""

_LARGEST_TEXT = 1 << 20
_LARGEST_DOCUMENT = 16 << 20


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of the project at *root*: its *path* from there (empty for the root itself).

    *files* are the names of the files in it and in ``requirements/``, *venvs* those of the venvs.
    """

    root: str
    path: str = ""
    files: frozenset[str] = frozenset()
    venvs: tuple[str, ...] = ()

    def text(self, *names: str) -> str:
        """Return the beginning of the file *names* (joined), empty if there is none that can be read."""
        return self._beginning(names, _LARGEST_TEXT).decode("utf-8", "replace")

    def document(self, name: str) -> dict[str, Any]:
        """Return what the file *name*, TOML or a ``Pipfile.lock``, says; empty if it cannot be read."""
        read = read_json if name == "Pipfile.lock" else read_toml
        return read(self._beginning((name,), _LARGEST_DOCUMENT))

    def shown(self, *names: str) -> str:
        """Return what people know the file *names* as."""
        return shown(os.path.join(self.path, *names))

    @property
    def label(self) -> str:
        """What people call the directory."""
        return shown(self.path) or "the project's root"

    def _beginning(self, names: Iterable[str], count: int) -> bytes:
        try:
            return read_beginning(os.path.join(self.root, self.path, *names), count)
        except OSError:
            return b""


def value_at(document: Any, *keys: str) -> Any:
    """Return the value at *keys* in nested tables, None if there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def text_at(document: Any, *keys: str) -> str:
    """Return the text at *keys* in nested tables, empty if there is none."""
    found = value_at(document, *keys)
    return found.strip() if isinstance(found, str) else ""


def walk(root: str, notes: list[str]) -> Iterator[Directory]:
    """Yield *root* and the directories below it that may hold a project, parents first, sorted.

    What had to be left out is said in *notes*.
    """
    waiting = [""]
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(os.path.join(root, path)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            notes.append(f"{shown(path) or 'The project'} was left out: {error.strerror}.")
            continue
        directory, below = _sorted_out(root, path, found, notes)
        yield directory
        waiting += reversed(below)


def _sorted_out(
    root: str, path: str, entries: list[os.DirEntry[str]], notes: list[str]
) -> tuple[Directory, list[str]]:
    """Return the directory at *path*, and the paths below it that are worth a look."""
    files, venvs, below = set(), [], []
    for entry in entries:
        name = entry.name
        if not entry.is_dir(follow_symlinks=False):
            files.add(name)
        elif os.path.lexists(os.path.join(entry.path, "pyvenv.cfg")):
            venvs.append(name)
        elif name == "requirements":
            files |= {f"{name}/{file}" for file in glob("*.txt", root_dir=entry.path)}
        elif not name.startswith(".") and name not in ELSEWHERE:
            below.append(os.path.join(path, name))
    unwritable = {name for name in (*files, *below) if not _is_utf8(name)}
    notes += [f"{shown(name)} was left out: its name is not UTF-8." for name in sorted(unwritable)]
    directory = Directory(root, path, frozenset(files - unwritable), tuple(venvs))
    return directory, [name for name in below if name not in unwritable]


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
