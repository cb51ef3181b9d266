"""Dangerous places: where a venv must not be, because removing it would lose what is not its own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from venvflow.config.paths import ancestors
from venvflow.errors import shown
from venvflow.model import Config, VenvSpec


def dangers_of(config: Config, home: str) -> dict[str, str]:
    """Return, by the name of a venv, why its path could make venvflow delete what is not its own."""
    survey = _Survey(config.root)
    kept = _kept(config, home, survey)
    places = {name: survey.place(spec.path) for name, spec in config.venvs.items()}
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


def _kept(config: Config, home: str, survey: _Survey) -> dict[str, str]:
    """Return what no venv may contain, with its real path."""
    return {
        "your home directory": survey.directory(home),
        "the project": survey.directory(config.root),
        "the store": survey.directory(config.store.path),
        "the config": survey.place(config.file),
        "the tasks' own state": survey.directory(config.state_dir),
    }


def _trespass(spec: VenvSpec, place: str, kept: Mapping[str, str]) -> str:
    """Return what is wrong with the *place* of one venv, or an empty text."""
    for what, path in kept.items():
        if _contains(place, path):
            return f"is or contains {what}"
        if what in {"the store", "the tasks' own state"} and _contains(path, place):
            return f"lies inside {what}"
    lost = next(_own_files(spec), "")
    return f"contains what it is made from or becomes: {shown(lost)}" if lost else ""


def _own_files(spec: VenvSpec) -> Iterator[str]:
    """Yield what belongs to the venv of *spec* and yet would be lost with it."""
    files = (*spec.locks, *spec.key_files, *((spec.pack.output,) if spec.pack else ()))
    return (path for path in files if _contains(spec.path, path))


class _Survey:
    """Finds where paths really are: symlinks resolved, each directory looked at once.

    On a disk that does not tell cases apart, everything is compared in lower case.
    """

    def __init__(self, root: str) -> None:
        self._known: dict[str, str] = {"/": "/"}
        self._fold = str.casefold if _folds_case(root) else str

    def directory(self, path: str) -> str:
        """Return the real path of the absolute, normalised *path*; what does not exist stays as it is."""
        return self._fold(self._real(path))

    def place(self, path: str) -> str:
        """Return *path* with its parents resolved: where its own name really stands."""
        parent, name = os.path.split(path)
        return self._fold(os.path.join(self._real(parent), name))

    def _real(self, path: str) -> str:
        known = self._known
        if path in known:
            return known[path]
        real, walked = "/", ""
        for part in path.split("/")[1:]:
            walked = f"{walked}/{part}"
            if walked not in known:
                known[walked] = _step(real, part)
            real = known[walked]
        return real


def _step(real: str, part: str) -> str:
    path = os.path.join(real, part)
    try:
        is_link = stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return path  # not there, or out of reach: then nothing can be behind it either
    return os.path.realpath(path) if is_link else path


def _folds_case(directory: str) -> bool:
    """Return whether *directory* is found under its name in the other case too."""
    other = directory.swapcase()
    try:
        return other != directory and os.path.samefile(directory, other)
    except OSError:
        return False


def _contains(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")
