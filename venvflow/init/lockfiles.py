"""Chooses the lock files of a directory that fill its venv, all of one kind, and says why."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from packaging.requirements import InvalidRequirement, Requirement

from venvflow.errors import shown
from venvflow.init.project import Directory
from venvflow.pure.lockfiles import kind_of, logical_lines
from venvflow.pure.names import normalised

_TOOL_LOCKS = {
    "uv.lock": "pyproject.toml",
    "poetry.lock": "pyproject.toml",
    "pdm.lock": "pyproject.toml",
    "Pipfile.lock": "Pipfile",
}
"""Lock files of tools, best first, each with the file beside it without which its tool cannot use it."""

Choice: TypeAlias = tuple[tuple[str, ...], list[str]]
"""The lock files that are taken, and sentences that say why; no lock files if nothing can be taken."""


def locks_in(directory: Directory) -> list[str]:
    """Return the names of the files of *directory* that may be lock files, sorted."""
    return [
        file
        for file in sorted(directory.files)
        if (file in _TOOL_LOCKS or _is_pylock(file) or (file.startswith("requirements") and _is_text(file)))
        and os.path.isfile(os.path.join(directory.root, directory.path, file))
    ]


def choose(directory: Directory, locks: list[str]) -> Choice:
    """Return which of *locks* the venv of *directory* is made from."""
    tools = {lock: beside for lock, beside in _TOOL_LOCKS.items() if lock in locks}
    notes = [
        f"{shown(lock)} was not taken: there is no {beside} beside it."
        for lock, beside in tools.items()
        if beside not in directory.files
    ]
    usable = [lock for lock, beside in tools.items() if beside in directory.files]
    usable += sorted(filter(_is_pylock, locks), key=lambda file: (file != "pylock.toml", file))
    requirements = list(filter(_is_text, locks))
    if not usable:
        taken, why = _choose_requirements(directory, requirements)
        return taken, [*notes, *why]
    best, *others = usable + requirements
    if others:
        reason = "a tool's own lock file comes before files exported from it"
        if _is_pylock(best):
            reason = "it is more exact than requirements files, and one pylock file describes one venv"
        notes.append(f"Taken: {shown(best)}, not {listing(others)}: {reason}.")
    return (best,), notes


def _is_pylock(file: str) -> bool:
    return kind_of(file) == "pylock"


def _is_text(file: str) -> bool:
    return file.endswith(".txt")


def listing(files: Iterable[str]) -> str:
    """Return *files* as a sentence names them."""
    return ", ".join(map(shown, files))


# --------------------------------------------------------------------------- requirements files


def _choose_requirements(directory: Directory, files: list[str]) -> Choice:
    """Return which of several requirements files fill a venv: pinned ones that agree."""
    pins = {file: _pins(directory.text(file)) for file in files}
    pinned = {file: versions for file, versions in pins.items() if versions is not None}
    loose = [file for file in files if file not in pinned]
    if not pinned:
        return _choose_loose(directory, loose)
    notes = [f"Not taken, since not every version in it is pinned: {listing(loose)}."] if loose else []
    clash = _contradiction(pinned)
    if clash:
        best = "requirements.txt" if "requirements.txt" in pinned else min(pinned)
        others = [file for file in pinned if file != best]
        return (best,), [f"Taken: {shown(best)}, not {listing(others)}: {clash}.", *notes]
    if len(pinned) > 1:
        agree = "Several files, one venv: they do not contradict each other. Take out what does not belong."
        notes.insert(0, agree)
    return tuple(pinned), notes


def _choose_loose(directory: Directory, loose: list[str]) -> Choice:
    if len(loose) == 1:
        why = f"Not every version in {shown(loose[0])} is pinned: what is installed depends on the day."
        return (loose[0],), [why]
    none = f"No venv for {directory.label}: no version is pinned for certain in any of {listing(loose)}."
    return (), [none] if loose else []


def _pins(text: str) -> dict[str, set[str]] | None:
    """Return the versions that a requirements file pins for each project, or None if one is not pinned."""
    pins: dict[str, set[str]] = {}
    includes = False
    for line in logical_lines(text):
        if line.startswith("-"):
            includes = includes or line.startswith(("-r", "--requirement"))
            continue
        try:
            requirement = Requirement(re.split(r"\s--", line, maxsplit=1)[0])
        except InvalidRequirement:
            return None
        version = requirement.url or _only_version(requirement)
        if not version:
            return None
        pins.setdefault(normalised(requirement.name), set()).add(version)
    return pins if pins or includes else None


def _only_version(requirement: Requirement) -> str:
    """Return the one version that *requirement* allows, empty if it allows several."""
    exact = [each.version for each in requirement.specifier if each.operator in ("==", "===")]
    return exact[0] if len(requirement.specifier) == len(exact) == 1 and "*" not in exact[0] else ""


def _contradiction(pins: Mapping[str, dict[str, set[str]]]) -> str:
    """Return which project two files pin to different versions, or an empty text."""
    seen: dict[str, tuple[str, set[str]]] = {}
    for file, versions in pins.items():
        for project, wanted in versions.items():
            first, known = seen.setdefault(project, (file, wanted))
            if known.isdisjoint(wanted):
                return f"{shown(first)} and {shown(file)} pin different versions of {project}"
    return ""
