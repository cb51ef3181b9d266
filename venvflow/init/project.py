"""Finds the files of a project that may be lock files, and reads what lies beside them.

What git tracks is found whatever its directory is called. Besides, directories are walked: what nobody has
committed yet counts as well, unless git ignores it, or it is hidden, built, or comes from elsewhere. Follows
no symlinks to directories, and only reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from venvflow.builders.recipe import tool
from venvflow.disk import processes
from venvflow.disk.files import read_beginning
from venvflow.errors import EnvironmentFailure, shown
from venvflow.pure.lockfiles import read_json, read_toml, value_at

ELSEWHERE = (
    "node_modules", "bower_components", "vendor", "vendored", "_vendor", "third_party",
    "build", "dist", "target", "site-packages", "__pycache__",
)  # fmt: skip
"""Directories of what is built or comes from elsewhere: only what git tracks in them is looked at."""

_LARGEST = 16 << 20
_GIT = ("core.fsmonitor=false", "core.quotepath=false")
_OTHERS = ("--literal-pathspecs", "ls-files", "-z", "--others", "--exclude-standard", "--")
_PATIENCE = 60.0  # seconds
_PATHS_PER_QUESTION = 500


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of the project at *root*: its *path* from there, empty for the root itself."""

    root: str
    path: str = ""

    def has(self, *names: str) -> bool:
        """Return whether there is a file *names* (joined), or a link to one."""
        return os.path.isfile(os.path.join(self.root, self.path, *names))

    def data(self, *names: str) -> bytes:
        """Return the beginning of the file *names*, empty if there is none that can be read."""
        try:
            return read_beginning(os.path.join(self.root, self.path, *names), _LARGEST)
        except OSError:
            return b""

    def text(self, *names: str) -> str:
        """Return the beginning of the file *names* as text."""
        return self.data(*names).decode("utf-8", "replace")

    def document(self, name: str) -> dict[str, Any]:
        """Return what the file *name*, TOML or a ``Pipfile.lock``, says; empty if it cannot be read."""
        read = read_json if name == "Pipfile.lock" else read_toml
        return read(self.data(name))

    def shown(self, *names: str) -> str:
        """Return what people know the file *names* as."""
        return shown(os.path.join(self.path, *names))

    @property
    def label(self) -> str:
        """What people call the directory."""
        return shown(self.path) or "the project's root"

    @property
    def venvs(self) -> tuple[str, ...]:
        """The names of the venvs in it, sorted."""
        try:
            with os.scandir(os.path.join(self.root, self.path)) as entries:
                return tuple(sorted(entry.name for entry in entries if _is_venv(entry)))
        except OSError:
            return ()


def text_at(document: Any, *keys: str) -> str:
    """Return the text at *keys* in nested tables, empty if there is none."""
    found = value_at(document, *keys)
    return found.strip() if isinstance(found, str) else ""


def files_of(
    root: str, environ: Mapping[str, str], wanted: Callable[[str], bool], notes: list[str]
) -> list[str]:
    """Return the files of the project at *root* that are *wanted* by their paths from there, sorted.

    What had to be left out is said in *notes*.
    """
    git = _Git(root, environ)
    tracked = git.tracked()
    files = set(filter(wanted, _walk(root, notes, in_git=tracked is not None)))
    if tracked is None and os.path.lexists(os.path.join(root, ".git")):
        notes.append(
            "git did not answer, so nobody looked into hidden directories and those of what is built."
        )
    if tracked is not None:
        tracked = set(filter(wanted, tracked))
        files = tracked | (files - tracked - git.ignored(files - tracked))
    found = sorted(path for path in files if os.path.isfile(os.path.join(root, path)))
    notes += [f"{shown(path)} was left out: its name is not UTF-8." for path in found if not _is_utf8(path)]
    return list(filter(_is_utf8, found))


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_of(root: str) -> str:
    """Return what people call the project at *root*: a worktree of git as the clone that it belongs to."""
    linked = re.match(r"gitdir: (.+)/\.git/worktrees/[^/\n]+\n?$", Directory(root).text(".git"))
    return os.path.basename(linked[1] if linked else root)


# --------------------------------------------------------------------------- what git knows


@dataclass(frozen=True, slots=True)
class _Git:
    """Asks git about the working tree in *root*; nothing that the project's own config names is run."""

    root: str
    environ: Mapping[str, str]

    def tracked(self) -> set[str] | None:
        """Return the files that git tracks, None where it has nothing to say."""
        found = self._ask("ls-files", "-z")
        # A directory that the repository around it ignores is a project of its own.
        is_ignored = not found and self._ask("check-ignore", "--quiet", ".") is not None
        return None if is_ignored else found

    def ignored(self, paths: Iterable[str]) -> set[str]:
        """Return which of *paths* git ignores."""
        rest, found = sorted(paths), set[str]()
        while rest:
            asked, rest = rest[:_PATHS_PER_QUESTION], rest[_PATHS_PER_QUESTION:]
            others = self._ask(*_OTHERS, *asked)
            found |= set(asked) - (set(asked) if others is None else others)
        return found

    def _ask(self, *words: str) -> set[str] | None:
        said = bytearray()
        passed = {name: self.environ[name] for name in ("HOME", "XDG_CONFIG_HOME") if name in self.environ}
        settings = [word for setting in _GIT for word in ("-c", setting)]
        try:
            status = processes.run(
                [tool("git", self.environ), *settings, *words],
                environ={"LC_ALL": "C", "PATH": os.defpath, **passed},
                on_output=said.extend,
                cwd=self.root,
                timeout=_PATIENCE,
            )
        except (EnvironmentFailure, OSError):
            return None
        return set(os.fsdecode(bytes(said)).split("\0")) - {""} if status == 0 else None


# --------------------------------------------------------------------------- what lies there


def _walk(root: str, notes: list[str], *, in_git: bool) -> Iterator[str]:
    """Yield the files in *root* and below; with *in_git*, repositories in it are projects of their own."""
    waiting = [""]
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(os.path.join(root, path)) as entries:
                found = list(entries)
        except OSError as error:
            notes.append(f"{shown(path) or 'The project'} was left out: {error.strerror}.")
            continue
        if path and in_git and any(entry.name == ".git" for entry in found):
            notes.append(f"{shown(path)} was left out: it is a repository of its own.")
            continue
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                yield os.path.join(path, entry.name)
            elif not (entry.name.startswith(".") or entry.name in ELSEWHERE or _is_venv(entry)):
                waiting.append(os.path.join(path, entry.name))


def _is_venv(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and os.path.lexists(os.path.join(entry.path, "pyvenv.cfg"))
