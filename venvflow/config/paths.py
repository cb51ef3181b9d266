"""Paths in a config: ``~`` and ``${VAR}`` filled in, globs expanded, what is listed looked for."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from venvflow.config.nodes import clipped
from venvflow.errors import shown
from venvflow.pure.patterns import star_problem

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What the name of an environment variable looks like."""

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[^}]*)\}|\{?\w*)")
_MAGIC = re.compile(r"[*?[]")

_LONGEST_PATH = 4095  # bytes: what Linux accepts in one call; macOS takes less and will say so itself
_MISSING = "does not exist"


def home_of(environ: Mapping[str, str]) -> str:
    """Return the user's home directory, normalised; the user database is asked where ``HOME`` is no help."""
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        import pwd  # noqa: PLC0415 - only without a usable HOME

        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            home = "/"  # what the system gives to users that it does not know
    return os.path.normpath(home)


def ancestors(path: str) -> Iterator[str]:
    """Yield the directories above *path*, nearest first, ``/`` last."""
    while path != "/":
        path = os.path.dirname(path)
        yield path


@dataclass(frozen=True, slots=True)
class Places:
    """How paths are read: relative ones from *root*, ``~`` as *home*, variables from *environ*.

    *root* and *home* are absolute and normalised. What is wrong with a path is a ``ValueError``. Files are
    only looked at (``stat``), never opened.
    """

    root: str
    home: str
    environ: Mapping[str, str]

    def expand(self, text: str, quote: Callable[[str], str] = str) -> str:
        """Return *text* with a leading ``~/`` and each ``${NAME}`` filled in, passed through *quote*.

        ``$$`` stands for a dollar. An undefined or empty variable is an error, and so are ``$NAME``,
        ``${NAME:-default}`` and ``~user``, which a shell would fill in: better no path than a wrong one.
        """
        if not text.startswith("~"):
            return self._variables(text, quote)
        if text[1:2] not in {"", "/"}:
            raise ValueError(
                f"only ~/ is filled in: a directory called {clipped(text)} is written ./{clipped(text)}"
            )
        return quote(self.home) + self._variables(text[1:], quote)

    def _variables(self, text: str, quote: Callable[[str], str]) -> str:
        return _VARIABLE.sub(lambda found: self._variable(found, quote), text) if "$" in text else text

    def _variable(self, found: re.Match[str], quote: Callable[[str], str]) -> str:
        if found["dollar"]:
            return "$"
        name = found["name"]
        if name is None or not VARIABLE_NAME.fullmatch(name):
            raise ValueError(
                f"cannot read {clipped(found[0])}: write ${{NAME}} for a variable, $$ for a dollar"
            )
        if not self.environ.get(name):
            state = "is empty" if name in self.environ else "is not defined"
            raise ValueError(f"the environment variable {clipped(name)} {state}")
        return quote(self.environ[name])

    def absolute(self, text: str) -> str:
        """Return the absolute, normalised path that *text* stands for; symlinks are left as they are."""
        return self.join(self.expand(text))

    def join(self, path: str) -> str:
        """Return *path*, in which nothing is filled in any more, absolute and normalised."""
        joined = os.path.normpath(os.path.join(self.root, path))
        if len(os.fsencode(joined)) > _LONGEST_PATH:
            raise ValueError(f"the path is longer than {_LONGEST_PATH} bytes")
        return joined[1:] if joined.startswith("//") else joined

    def files(self, text: str) -> tuple[str, ...]:
        """Return the absolute paths of the files that *text* names or, as a glob, matches: sorted.

        A name that exists is taken as it is, even if it has ``[`` in it. A missing file is returned all the
        same, and a glob may match nothing: :func:`file_problem` tells of what only that venv suffers from.
        """
        path = self.absolute(text)
        if _MAGIC.search(text) and file_problem(path) == _MISSING:
            return self._globbed(text)
        return (path,)

    def _globbed(self, text: str) -> tuple[str, ...]:
        import glob  # noqa: PLC0415 - only globs need it

        if problem := star_problem(text):
            raise ValueError(f"{clipped(text)} {problem}")
        pattern = os.path.normpath(self.expand(text, glob.escape))
        found = {os.path.normpath(path) for path in _matching(self.root, pattern)}
        return tuple(sorted(path for path in found if not file_problem(path)))


def file_problem(path: str) -> str:
    """Return what keeps *path* from being a regular file within reach, or an empty text."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except OSError as error:
        return f"cannot be reached: {error.strerror}"
    if stat.S_ISREG(mode):
        return ""
    return "is a directory, not a file" if stat.S_ISDIR(mode) else "is not a regular file"


def _matching(root: str, pattern: str) -> set[str]:
    """Return what matches, below *root* or from ``/``; a directory that cannot be read is an error."""
    segments = pattern.strip("/").split("/")
    if segments[-1] == "**":
        segments.append("*")
    level = {"/" if pattern.startswith("/") else root}
    for segment in segments:
        if segment == "**":
            level = {path for start in level for path in _directories(start)}
        elif _MAGIC.search(segment):
            level = {path for start in level for path in _named_like(start, segment)}
        else:
            level = {os.path.join(start, segment) for start in level}
    return level


def _named_like(directory: str, segment: str) -> Iterator[str]:
    import fnmatch  # noqa: PLC0415 - only globs need it

    hidden = segment.startswith(".")
    for entry in _entries(directory):
        if fnmatch.fnmatchcase(entry.name, segment) and (hidden or not entry.name.startswith(".")):
            yield entry.path


def _directories(start: str) -> Iterator[str]:
    """Yield *start* and the directories below it, but for hidden ones, venvs and links (which can loop)."""
    waiting = [start]
    while waiting:
        directory = waiting.pop()
        yield directory
        waiting += [entry.path for entry in _entries(directory) if _worth_a_look(entry)]


def _worth_a_look(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
        return False
    return not os.path.lexists(f"{entry.path}/pyvenv.cfg")


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ValueError(f"cannot look into {shown(directory)}: {error.strerror}") from error
