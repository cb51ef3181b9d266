"""Paths in a config: how they are read, what globs find, and where no venv may be."""

from __future__ import annotations

import fnmatch
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from venvflow.errors import clipped, shown
from venvflow.model import Config, VenvSpec
from venvflow.pure.patterns import star_problem

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What the name of an environment variable looks like."""

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[^}]*)\}|\{?\w*)")
_MAGIC = re.compile(r"[*?[]")
_NO_SOURCE = "node_modules"

_LONGEST_PATH = 4095  # bytes: what Linux accepts in one call; macOS takes less and will say so itself
_MISSING = "does not exist"


def ancestors(path: str) -> Iterator[str]:
    """Yield the directories above *path*, nearest first, ``/`` last."""
    while path != "/":
        path = os.path.dirname(path)
        yield path


# --------------------------------------------------------------------------- reading


class PathReader:
    """Reads paths: relative ones from *root*, ``~`` as the user's home, variables from *environ*.

    *root* and *home* are absolute and normalised. What is wrong with a path is a ``ValueError``. Files are
    only looked at (``stat``), never opened.
    """

    def __init__(self, root: str, environ: Mapping[str, str]) -> None:
        self.root = root
        self.home = _home(environ)
        self.environ = environ

    def expand(self, text: str, quote: Callable[[str], str] = str) -> str:
        """Return *text* with a leading ``~/`` and each ``${NAME}`` filled in, passed through *quote*.

        ``$$`` gives a dollar. An undefined or empty variable is an error, and so are ``$NAME``,
        ``${NAME:-default}`` and ``~user``, which a shell would fill in: better no path than a wrong one.
        """
        start = ""
        if text.startswith("~"):
            if text[1:2] not in {"", "/"}:
                raise ValueError(
                    f"only ~/ is filled in: a directory called {clipped(text)} is written ./{clipped(text)}"
                )
            start, text = quote(self.home), text[1:]
        return start + _VARIABLE.sub(lambda found: self._variable(found, quote), text)

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
        """Return the absolute, normalised path that *text* names; symlinks are not resolved."""
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
        same, and a glob may match nothing: these are faults of that venv, not of the config. What wildcards
        lead to lies in no venv, environment of conda, store or ``node_modules``.
        """
        path = self.absolute(text)
        if not _MAGIC.search(text) or file_problem(path) != _MISSING:
            return (path,)
        if problem := star_problem(text):
            raise ValueError(f"{clipped(text)} {problem}")
        import glob  # noqa: PLC0415 - only globs need it

        pattern = os.path.normpath(self.expand(text, glob.escape))
        start = os.path.join(self.root, _MAGIC.split(pattern)[0].rpartition("/")[0])
        found = {os.path.normpath(path) for path in _matching(self.root, pattern)}
        return tuple(sorted(path for path in found if not file_problem(path) and _is_source(path, start)))


def _home(environ: Mapping[str, str]) -> str:
    """Return the user's home directory, normalised; by the user database if ``HOME`` is not one."""
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            home = "/"  # what the system gives to users that it does not know
    return os.path.normpath(home)


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


# --------------------------------------------------------------------------- globs


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
    hidden = segment.startswith(".")
    for entry in _entries(directory):
        if fnmatch.fnmatchcase(entry.name, segment) and (hidden or not entry.name.startswith(".")):
            yield entry.path


def _directories(start: str) -> Iterator[str]:
    """Yield *start* and the directories below it, but for hidden ones, what is not source, and links.

    Links can loop.
    """
    waiting = [start]
    while waiting:
        directory = waiting.pop()
        entries = _entries(directory)
        if directory != start and _is_installed({entry.name for entry in entries}.__contains__):
            continue
        yield directory
        waiting += [
            entry.path
            for entry in entries
            if not entry.name.startswith(".")
            and entry.name != _NO_SOURCE
            and entry.is_dir(follow_symlinks=False)
        ]


def _is_source(path: str, start: str) -> bool:
    """Return whether *path* lies in the sources: on the way to it from *start* there is nothing installed."""

    def is_installed(directory: str) -> bool:
        return _is_installed(lambda name: os.path.lexists(f"{directory}/{name}"))

    names = path[len(start) :].strip("/").split("/")[:-1]
    below_start = [*accumulate(names, os.path.join, initial=start)][1:]
    return _NO_SOURCE not in names and not any(map(is_installed, below_start))


def _is_installed(has: Callable[[str], bool]) -> bool:
    """Return whether a directory that *has* these names is a venv, an environment of conda, or a store."""
    return has("pyvenv.cfg") or has("conda-meta") or (has("snapshots") and has("objects") and has("format"))


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ValueError(f"cannot look into {shown(directory)}: {error.strerror}") from error


# --------------------------------------------------------------------------- where no venv may be


def dangers_of(config: Config, home: str) -> dict[str, str]:
    """Return, by the name of a venv, why its path could make venvflow delete what is not its own."""
    resolver = _Resolver(config.root)
    kept = {
        "your home directory": resolver.whole(home),
        "the project": resolver.whole(config.root),
        "the store": resolver.whole(config.store.path),
        "the config": resolver.parent(config.file),
        "the tasks' own state": resolver.whole(config.state_dir),
    }
    places = {name: resolver.parent(spec.path) for name, spec in config.venvs.items()}
    found = {name: _trespass(config.venvs[name], place, kept) for name, place in places.items()}
    owners: dict[str, str] = {}
    for name, place in places.items():
        if (first := owners.setdefault(place, name)) != name:
            found[name] = found[name] or f"is also the path of {first!r}"
    for name, place in places.items():
        outer = next((owners[above] for above in ancestors(place) if above in owners), "")
        # A venv at "/" is trouble enough: that all others lie inside it need not be said of each.
        if outer and not found[name] and not found[outer]:
            found[name] = f"lies inside the venv {outer!r}"
    return {name: f"{shown(config.venvs[name].path)} {text}" for name, text in found.items() if text}


def _trespass(spec: VenvSpec, place: str, kept: Mapping[str, str]) -> str:
    """Return what is wrong with the *place* of a venv, which may contain none of *kept*, or an empty text."""
    for what, path in kept.items():
        if _contains(place, path):
            return f"is or contains {what}"
        if what in {"the store", "the tasks' own state"} and _contains(path, place):
            return f"lies inside {what}"
    for path in (*spec.locks, *spec.key_files, *((spec.pack.output,) if spec.pack else ())):
        if _contains(spec.path, path):
            return f"contains what it is made from or becomes: {shown(path)}"
    return ""


class _Resolver:
    """Finds where paths really are: symlinks resolved, each directory looked at once.

    On a disk that ignores case, everything is compared in lower case.
    """

    def __init__(self, root: str) -> None:
        self._known: dict[str, str] = {"/": "/"}
        self._fold = str.casefold if _folds_case(root) else str

    def whole(self, path: str) -> str:
        """Return the real path of the absolute, normalised *path*; what does not exist stays as it is."""
        return self._fold(self._real(path))

    def parent(self, path: str) -> str:
        """Return *path* with its parents resolved: where its own name really stands."""
        parent, name = os.path.split(path)
        return self._fold(os.path.join(self._real(parent), name))

    def _real(self, path: str) -> str:
        real, walked = "/", ""
        for part in path.split("/")[1:]:
            walked = f"{walked}/{part}"
            if walked not in self._known:
                path = os.path.join(real, part)
                self._known[walked] = os.path.realpath(path) if os.path.islink(path) else path
            real = self._known[walked]
        return real


def _folds_case(directory: str) -> bool:
    """Return whether *directory* is found under its name in the other case too."""
    other = directory.swapcase()
    try:
        return other != directory and os.path.samefile(directory, other)
    except OSError:
        return False


def _contains(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")
