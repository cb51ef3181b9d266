"""Decides which venvs the lock files of one directory call for, and why the others call for none."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from venvflow.errors import shown
from venvflow.init.project import Directory
from venvflow.init.requirements import (
    DEPLOY,
    DEV,
    MAIN,
    TESTS,
    Reader,
    Requirements,
    contradiction,
    is_requirements,
)
from venvflow.pure.lockfiles import packages, value_at
from venvflow.pure.names import kind_of

_TOOL_LOCKS = {
    "uv.lock": "pyproject.toml",
    "poetry.lock": "pyproject.toml",
    "pdm.lock": "pyproject.toml",
    "Pipfile.lock": "Pipfile",
}
"""Lock files of tools, best first, each with the file beside it without which its tool cannot use it."""

_NEARLY_ALL = 0.8
"""The part of a file's projects by which another one that has them is taken to be compiled from it."""

_LOCK_FIRST = "lock them first, as uv pip compile and pip-compile do"

LOOSE = f"Not every version in them is pinned, so what is installed would depend on the day: {_LOCK_FIRST}"
PARTIAL = f"They pin what was asked for and, as far as one can see, not what that needs: {_LOCK_FIRST}"
WITHOUT_MAIN = "They go with a main file that is not a lock"
HIDDEN = "They are hidden: it is some other program that reads them"

CONSTRAINTS = "Constraints, which install nothing by themselves"
EMPTY = "Files that pin nothing"
INSTALLERS = "What only installs the rest, such as pip and pip-tools"
PARTS = "Parts of other lock files"
GATHERED = "Others, gathered in one file"
HAD = "What another lock file has in it already"
SAME = "The same as another lock file"
OTHER_SYSTEM = "For other systems than Linux"
BESIDE = "Exported from the lock file of a tool beside them, or replaced by it"
UNUSABLE = "Without the pyproject.toml or the Pipfile that their tool needs beside them"


@dataclass(frozen=True, slots=True)
class Fill:
    """Lock files, as paths from the project root, that together fill one venv.

    *words* tell it from the other venvs of the directory; it has none if it is the main one. *doubt* is a
    reason not to make it, or empty. *notes* say what else is to be known.
    """

    locks: tuple[str, ...]
    words: tuple[str, ...] = ()
    doubt: str = ""
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Arrangement:
    """What the lock files of a directory call for: *fills*, and files that were *passed* over, with why."""

    fills: list[Fill] = field(default_factory=list)
    passed: list[tuple[str, str]] = field(default_factory=list)


def may_be_lock(path: str) -> bool:
    """Return whether the file at *path* may be a lock file, by its path."""
    name = path.rpartition("/")[2]
    return name in _TOOL_LOCKS or kind_of(name) == "pylock" or is_requirements(path)


def place_of(path: str) -> tuple[str, str]:
    """Return the directory whose venvs the lock file at *path* fills, and its group there."""
    file = Requirements(path)
    return (file.owner, file.group) if is_requirements(path) else (path.rpartition("/")[0], "")


def arrange(directory: Directory, paths: Sequence[str], reader: Reader, *, by_hand: bool) -> Arrangement:
    """Return what the lock files at *paths*, all of *directory*, call for.

    *by_hand*: files that people wrote count as locks, too, if they have nothing but exact versions.
    """
    found = Arrangement()
    requirements = [reader.read(path) for path in paths if is_requirements(path)]
    rest = {path.rpartition("/")[2]: path for path in paths if not is_requirements(path)}
    pins = _arrange_tool_locks(directory, rest, found)
    _arrange_requirements(requirements, pins, found, by_hand=by_hand)
    return found


# --------------------------------------------------------------------------- locks of tools


def _arrange_tool_locks(
    directory: Directory, names: Mapping[str, str], found: Arrangement
) -> Mapping[str, str] | None:
    """Add the venvs of a tool's own locks to *found*; return what they pin, None if there are none."""
    tools = [name for name in _TOOL_LOCKS if name in names and directory.has(_TOOL_LOCKS[name])]
    if _is_poetrys(directory):
        tools.sort(key=lambda name: name != "poetry.lock")
    pylocks = sorted((name for name in names if name not in _TOOL_LOCKS), key=lambda name: (len(name), name))
    found.passed += [(UNUSABLE, names[name]) for name in _TOOL_LOCKS if name in names and name not in tools]
    best, others = (tools[:1], tools[1:] + pylocks) if tools else (pylocks, [])
    found.passed += [(BESIDE, names[name]) for name in others]
    found.fills += [Fill((names[name],), tuple(name.split(".")[1:-1])) for name in best]
    if not best:
        return None
    return packages(best[0], directory.data(best[0]))


def _is_poetrys(directory: Directory) -> bool:
    """Return whether poetry and not uv is what a project is managed with, of which both have a lock."""
    tools = value_at(directory.document("pyproject.toml"), "tool")
    return isinstance(tools, dict) and "poetry" in tools and "uv" not in tools


# --------------------------------------------------------------------------- requirements files


def _arrange_requirements(
    files: Sequence[Requirements], beside: Mapping[str, str] | None, found: Arrangement, *, by_hand: bool
) -> None:
    """Add to *found* what requirements files call for; *beside* is what the lock of a tool there pins."""
    known = {file.path for file in files}
    reasons = {file.path: _uninstalled(file, known) for file in files}
    mains = {file.includes[0] for file in files if reasons[file.path] == SAME}
    parts = {path for file in files if not reasons[file.path] for path in (*file.includes, *file.made_of)}
    rest = []
    for file in files:
        is_alone = len(files) == 1 or file.path in mains
        reason = reasons[file.path] or _passed(
            file, beside, is_part=file.path in parts - mains, is_alone=is_alone
        )
        if reason:
            found.passed.append((reason, file.path))
        else:
            rest.append(file)
    groups = sorted({file.group for file in rest})
    for group in groups:
        members = [file for file in rest if file.group == group]
        prefix = members[0].group_words if len(groups) > 1 else ()
        filled = _filled(members, mains, parts, found, by_hand=by_hand)
        found.fills += [replace(fill, words=prefix + fill.words) for fill in filled]


def _uninstalled(file: Requirements, known: Collection[str]) -> str:
    """Return why nobody would install *file* by itself, whatever lies beside it, or an empty text."""
    parts = [path for path in (*file.includes, *file.made_of) if path in known]
    if not file.installs:
        return CONSTRAINTS
    if not file.own and len(file.includes) == len(parts) == 1:
        return SAME
    if len(parts) > 1 and (file.words == ("all",) or (file.role == MAIN and not file.own and len(parts) > 2)):
        return GATHERED
    if not file.pins and not file.loose:
        return EMPTY
    if file.is_for_another_system:
        return OTHER_SYSTEM
    return ""


def _passed(file: Requirements, beside: Mapping[str, str] | None, *, is_part: bool, is_alone: bool) -> str:
    """Return why *file* fills no venv beside others, or an empty text; *is_part*: one of them has it."""
    if file.is_for_installers and file.words and not (is_part or is_alone):
        return INSTALLERS
    if beside is not None and (
        file.exported or file.role in (MAIN, DEV, TESTS) or file.names <= beside.keys()
    ):
        return BESIDE
    return PARTS if is_part and not file.role else ""


def _filled(
    files: Sequence[Requirements],
    mains: Collection[str],
    parts: Collection[str],
    found: Arrangement,
    *,
    by_hand: bool,
) -> Iterator[Fill]:
    """Yield the venvs of the files of one directory of requirements, the main one first.

    Its main file is one that is used as such (*mains*), or is called so. What builds on it brings it along.
    """
    doubts = {file.path: _doubt(file, by_hand=by_hand) for file in files}
    ordered = sorted(files, key=lambda file: (file.path not in mains, _rank(file), bool(doubts[file.path])))
    main = ordered[0] if ordered and (ordered[0].path in mains or ordered[0].role == MAIN) else None
    filled: list[tuple[object, AbstractSet[str]]] = []
    for file in ordered:
        fill = _with_main(file, main, doubts)
        content = (fill.locks[:-1], file.pins, [word for word in file.words if word[:1].isdigit()])
        if file.role == MAIN and file is not main and file.path in parts:
            found.passed.append((PARTS, file.path))
        elif fill.doubt and any(file.names <= names for _, names in filled):
            found.passed.append((HAD, file.path))
        elif any(content == other for other, _ in filled):
            found.passed.append((SAME, file.path))
        else:
            filled += [] if fill.doubt else [(content, file.names)]
            yield fill


def _with_main(file: Requirements, main: Requirements | None, doubts: Mapping[str, str]) -> Fill:
    """Return the venv of *file*, over the *main* file where it builds on that and does not contradict it."""
    doubt = doubts[file.path]
    if file is main:
        return Fill((file.path,), doubt=doubt)
    words = file.words or (re.split(r"[^A-Za-z0-9]+", file.path)[-2],)
    if main is None or not _builds_on(file, main):
        return Fill((file.path,), words, doubt)
    if clash := contradiction(file, main):
        note = f"Without {shown(main.path)}, which pins another version of {clash}."
        return Fill((file.path,), words, doubt, (note,))
    return Fill((main.path, file.path), words, doubt or (WITHOUT_MAIN if doubts[main.path] else ""))


def _doubt(file: Requirements, *, by_hand: bool) -> str:
    """Return why *file* is not to be trusted to be a lock for this system, or an empty text."""
    if file.loose:
        return LOOSE
    if os.path.basename(file.path).startswith("."):
        return HIDDEN
    return "" if file.is_complete or by_hand else PARTIAL


_RANKS = ["main", "base", "common", "core", "default", "app", "project", "runtime", "pip"]


def _rank(file: Requirements) -> tuple[int, str]:
    """Return where *file* comes among others: main ones first."""
    if file.role != MAIN:
        return len(_RANKS), file.path
    return _RANKS.index(file.words[0]) if file.words else -1, file.path


def _builds_on(file: Requirements, main: Requirements) -> bool:
    """Return whether *file* is installed over *main*, and has not nearly all of it already."""
    if main.path in file.includes or len(main.names & file.names) >= _NEARLY_ALL * len(main.names):
        return False
    return main.path in file.constraints or file.role in (DEV, TESTS, DEPLOY)
