"""What ``venvflow init`` finds in a project, and the config that it writes from it.

:func:`discover` walks the project once, following no symlinks, and decides for each directory with lock
files what its venv would be; :func:`render` writes that down, with the reasons as comments. Which Python
it asks for is found out by :mod:`venvflow.disk.pins`. Only reads.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from venvflow.config import quoted
from venvflow.disk.pins import Wanted, beginning, python_of, table_of
from venvflow.errors import shown

DODO_TEMPLATE = '''\
"""Run "doit" to make the virtual environments of venvflow.yaml what their lock files say."""

from venvflow.tasks import *  # noqa: F403 - not found? Install venvflow where doit is: pip install venvflow
'''
"""Text of a ``dodo.py`` that has all tasks."""

SCHEMA_NAME = "venvflow.schema.json"
"""Name of the schema beside the config, to which the config's first line points."""

_OTHERS_DIRECTORIES = (
    "node_modules", "bower_components", "vendor", "vendored", "_vendor", "third_party",
    "build", "dist", "target", "site-packages", "__pycache__",
)  # fmt: skip
"""What is built or comes from elsewhere: its lock files are not the project's."""

_TOOL_LOCKS = {
    "uv.lock": "pyproject.toml",
    "poetry.lock": "pyproject.toml",
    "pdm.lock": "pyproject.toml",
    "Pipfile.lock": "Pipfile",
}
"""Lock files of tools, best first, each with the file beside it without which its tool cannot use it."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One venv as ``init`` would have it.

    *directory* and *locks* are relative to the project root, *base* is the venv's name in that directory;
    *python* is a version or empty; *notes* say why.
    """

    name: str
    directory: str
    locks: tuple[str, ...]
    python: str = ""
    notes: tuple[str, ...] = ()
    base: str = ".venv"

    @property
    def path(self) -> str:
        """Return where the venv goes, relative to the project root."""
        return os.path.join(self.directory, self.base)


@dataclass(frozen=True, slots=True)
class Known:
    """What a config has already: the *names* of its venvs, their *paths* and the *files* they list."""

    names: Collection[str] = ()
    paths: Collection[str] = ()
    files: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What is in the project at *root*: venvs that can be made, and *notes* on what was left out and why."""

    root: str
    venvs: tuple[Proposal, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory of the project: its path from the root (empty for the root), files and venvs in it."""

    path: str
    files: frozenset[str]
    venvs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which lock files of a directory are taken; none, if only *notes* can be given."""

    locks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


# --------------------------------------------------------------------------- finding


def discover(root: str, known: Known | None = None) -> Found:
    """Return the venvs that the lock files below *root* call for, in the order of their directories.

    Directories with a lock file that is *known* have their venv; their other lock files are named in the
    notes, as are directories that cannot be read, and names that no config can hold.
    """
    root, known = os.path.abspath(root), known or Known()
    notes: list[str] = []
    proposals = []
    for directory in _walk(root, notes):
        choice = _choose(root, directory)
        locks = _locks_in(root, directory)
        unnamed = [lock for lock in locks if os.path.join(root, directory.path, lock) not in known.files]
        if len(unnamed) < len(locks):
            notes += _unnamed(directory.path, unnamed)
        elif choice.locks:
            proposals.append(_propose(root, directory, choice))
        else:
            notes += choice.notes
    return Found(root, tuple(_with_names(root, proposals, known)), tuple(notes))


def _unnamed(path: str, locks: list[str]) -> Iterator[str]:
    if locks:
        place = shown(path) or "the project's root"
        yield f"In {place}, a venv is made from other files: no venv names {_listing(locks)}."


def _walk(root: str, notes: list[str]) -> Iterator[_Directory]:
    """Yield *root* and the directories below it that may hold a project, parents first, sorted."""
    waiting = [""]
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(os.path.join(root, path)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            notes.append(f"{shown(path) or 'The project'} was left out: {error.strerror}.")
            continue
        directory, below = _sorted_out(path, found, notes)
        yield directory
        waiting += reversed(below)


def _sorted_out(path: str, entries: list[os.DirEntry[str]], notes: list[str]) -> tuple[_Directory, list[str]]:
    """Return the directory at *path*, and the paths below it that are worth a look."""
    files, venvs, below = set(), [], []
    for entry in entries:
        name = entry.name
        if not entry.is_dir(follow_symlinks=False):
            files.add(name)
        elif os.path.lexists(os.path.join(entry.path, "pyvenv.cfg")):
            venvs.append(name)
        elif name == "requirements":
            files |= {f"{name}/{file}" for file in _listed(entry.path) if file.endswith(".txt")}
        elif not name.startswith(".") and name not in _OTHERS_DIRECTORIES:
            below.append(os.path.join(path, name))
    unwritable = [name for name in (*files, *below) if not _is_text(name)]
    notes += [f"{shown(name)} was left out: its name is not UTF-8." for name in sorted(unwritable)]
    writable = frozenset(filter(_is_text, files))
    return _Directory(path, writable, tuple(venvs)), list(filter(_is_text, below))


def _listed(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []  # then there is no lock file for us in it


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _propose(root: str, directory: _Directory, choice: _Choice) -> Proposal:
    python, why = python_of(Wanted(root, directory.path, directory.venvs, choice.locks))
    notes = [*choice.notes, *_workspace(root, directory, choice), *why]
    if directory.venvs and ".venv" not in directory.venvs:
        notes.append(
            f"There is a venv at {shown(os.path.join(directory.path, directory.venvs[0]))}; it is left alone."
        )
    locks = tuple(os.path.join(directory.path, lock) for lock in choice.locks)
    return Proposal("", directory.path, locks, python, tuple(notes))


def _workspace(root: str, directory: _Directory, choice: _Choice) -> Iterator[str]:
    """Yield what is to be known of a lock file that several projects share."""
    project = beginning(os.path.join(root, directory.path, "pyproject.toml"))
    if "uv.lock" not in choice.locks or not (table := table_of(project, "tool.uv.workspace")):
        return
    found = re.search(r"^[ \t]*members\s*=\s*\[(.*?)\]", table, re.MULTILINE | re.DOTALL)
    members = re.findall(r"""["']([^"'\n]+)["']""", found[1]) if found else []
    if members:
        yield (
            f"A uv workspace: one lock file for its members ({_listing(members)}). uv installs the root and "
            "what it needs; for all members, build by commands with uv sync --all-packages."
        )


# --------------------------------------------------------------------------- which lock files


def _locks_in(root: str, directory: _Directory) -> list[str]:
    """Return the names of the files of *directory* that may be lock files, sorted."""
    files = [file for file in sorted(directory.files) if _could_be_lock(file)]
    return [file for file in files if os.path.isfile(os.path.join(root, directory.path, file))]


def _choose(root: str, directory: _Directory) -> _Choice:
    """Return the lock files that the venv of *directory* is made from: of one kind, the best there is."""
    files = _locks_in(root, directory)
    usable = [
        lock for lock, companion in _TOOL_LOCKS.items() if lock in files and companion in directory.files
    ]
    pylocks = sorted(
        (file for file in files if _is_pylock(file)), key=lambda file: (file != "pylock.toml", file)
    )
    notes = [
        f"{shown(lock)} was not taken: there is no {companion} beside it."
        for lock, companion in _TOOL_LOCKS.items()
        if lock in files and companion not in directory.files
    ]
    requirements = [file for file in files if file.endswith(".txt")]
    if usable or pylocks:
        best = (usable + pylocks)[0]
        return _Choice((best,), (*notes, *_not_taken(best, usable[1:], pylocks, requirements)))
    texts = {file: beginning(os.path.join(root, directory.path, file)) for file in requirements}
    choice = _choose_requirements(directory.path, texts)
    return _Choice(choice.locks, (*notes, *choice.notes))


def _could_be_lock(file: str) -> bool:
    requirements = file.startswith("requirements") and file.endswith(".txt")
    return file in _TOOL_LOCKS or _is_pylock(file) or requirements


def _is_pylock(file: str) -> bool:
    return file == "pylock.toml" or (file.startswith("pylock.") and file.endswith(".toml"))


def _not_taken(best: str, tools: list[str], pylocks: list[str], requirements: list[str]) -> Iterator[str]:
    others = [file for file in (*tools, *pylocks, *requirements) if file != best]
    if not others:
        return
    reason = "a tool's own lock file comes before files exported from it"
    if _is_pylock(best):
        reason = "it is more exact than requirements files, and one pylock file describes one venv"
    yield f"Taken: {shown(best)}, not {_listing(others)}: {reason}."


def _choose_requirements(where: str, texts: Mapping[str, str]) -> _Choice:
    """Return which of several requirements files fill a venv: pinned ones that agree."""
    pins = {file: _pins(text) for file, text in texts.items()}
    pinned = {file: versions for file, versions in pins.items() if versions is not None}
    loose = [file for file in texts if file not in pinned]
    if not pinned:
        return _choose_loose(where, loose)
    notes = [f"Not taken, since not every version in it is pinned: {_listing(loose)}."] if loose else []
    clash = _contradiction(pinned)
    if clash:
        best = "requirements.txt" if "requirements.txt" in pinned else min(pinned)
        others = [file for file in pinned if file != best]
        return _Choice((best,), (f"Taken: {shown(best)}, not {_listing(others)}: {clash}.", *notes))
    if len(pinned) > 1:
        notes.insert(
            0, "Several files, one venv: they do not contradict each other. Take out what does not belong."
        )
    return _Choice(tuple(pinned), tuple(notes))


def _choose_loose(where: str, loose: list[str]) -> _Choice:
    if len(loose) == 1:
        note = f"Not every version in {shown(loose[0])} is pinned: what is installed depends on the day."
        return _Choice((loose[0],), (note,))
    if loose:
        place = shown(where) or "the project's root"
        return _Choice(
            (), (f"No venv for {place}: no version is pinned for certain in any of {_listing(loose)}.",)
        )
    return _Choice()


def _pins(text: str) -> dict[str, set[str]] | None:
    """Return the versions that a requirements file pins for each project, or None if one is not pinned."""
    pins: dict[str, set[str]] = {}
    includes = False
    for line in _requirement_lines(text):
        if line.startswith("-"):
            includes = includes or line.startswith(("-r", "--requirement"))
            continue
        if not (found := _PIN.match(line)):
            return None
        name = re.sub(r"[-_.]+", "-", found["name"]).lower()
        pins.setdefault(name, set()).add(found["version"] or found["url"])
    return pins if pins or includes else None


_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*"
    r"(?:===?\s*(?P<version>[^\s;,*]+)(?=\s|;|$)|@\s*(?P<url>\S+))"
)


def _requirement_lines(text: str) -> Iterator[str]:
    """Yield what a requirements file says, without comments and with continued lines joined."""
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        stripped = re.sub(r"(^|\s)#.*", "", line).strip()
        if stripped:
            yield stripped


def _contradiction(pins: Mapping[str, dict[str, set[str]]]) -> str:
    """Return which project two files pin to different versions, or an empty text."""
    seen: dict[str, tuple[str, set[str]]] = {}
    for file, versions in pins.items():
        for project, wanted in versions.items():
            first, known = seen.setdefault(project, (file, wanted))
            if known.isdisjoint(wanted):
                return f"{shown(first)} and {shown(file)} pin different versions of {project}"
    return ""


# --------------------------------------------------------------------------- names


def _with_names(root: str, proposals: list[Proposal], known: Known) -> Iterator[Proposal]:
    """Yield the proposals with names: the directory's, with its parents' where two are the same."""
    short = [_name(os.path.basename(proposal.directory or root)) for proposal in proposals]
    taken = {name.lower() for name in known.names}
    count = Counter([*(name.lower() for name in short), *taken])
    for name, proposal in zip(short, proposals, strict=True):
        full = name if count[name.lower()] == 1 else _name(proposal.directory.replace("/", "-") or name)
        unique = _unique(full, taken)
        taken.add(unique.lower())
        is_free = os.path.join(root, proposal.path) not in known.paths
        yield replace(proposal, name=unique, base=".venv" if is_free else f".venv-{unique}")


def _name(text: str) -> str:
    """Return *text* as a venv may be called."""
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-.")[:100]
    if name.lower().startswith("state.db"):
        name = f"venv-{name}"[:100]
    return name or "venv"


def _unique(name: str, taken: set[str]) -> str:
    number, unique = 1, name
    while unique.lower() in taken:
        number += 1
        unique = f"{name[:90]}-{number}"
    return unique


# --------------------------------------------------------------------------- writing


_NOT_LOOKED_INTO = (
    "It did not look into hidden directories, venvs, and what is built or comes from elsewhere: "
    f"{', '.join(_OTHERS_DIRECTORIES)}."
)

_HEAD = f"""\
# yaml-language-server: $schema=./{SCHEMA_NAME}
# The virtual environments of this project. Run "doit" to make each what its lock files say.
# "venvflow init" wrote this; what it found and why it chose so is in the comments. Change what you like.
version: 1
"""

_WIDTH = 110
"""Columns of the config that is written."""

_OPTIONS = """
# More that can be said, here with examples:
# trim: {keep: 25, max_age: 60d, max_size: 20GiB}   # when to drop old snapshots
# exclude: ["**/tests/", "!**/numpy/tests/"]        # what not to keep, as in .gitignore
# defaults: {python: "3.12"}                        # keys for all venvs
"""

_NOTHING = """
# No lock file was found, so there is no venv yet. Put one here, such as:
# venvs:
#   api:
#     path: services/api/.venv
#     locks: [services/api/requirements.txt]
#     python: "3.12"
venvs: {}
"""


def render(found: Found) -> str:
    """Return the text of a ``venvflow.yaml`` for what was *found*; it loads as it stands."""
    notes = [line for note in (_NOT_LOOKED_INTO, *found.notes) for line in _commented(note, "")]
    parts = [_HEAD, _OPTIONS, "\n", *(f"{line}\n" for line in notes)]
    if not found.venvs:
        return "".join((*parts, _NOTHING))
    return "".join((*parts, "\nvenvs:\n", entries(found)))


def entries(found: Found) -> str:
    """Return what goes below ``venvs:`` for what was *found*, with the reasons as comments."""
    return "\n".join(map(_rendered, found.venvs))


def _rendered(proposal: Proposal) -> str:
    lines = [f"  {quoted(proposal.name)}:"]
    lines += [line for note in proposal.notes for line in _commented(note, "    ")]
    lines += [f"    path: {_path(proposal.path)}", "    locks:"]
    lines += [f"      - {_path(lock)}" for lock in proposal.locks]
    if proposal.python:
        lines.append(f'    python: "{proposal.python}"')
    return "\n".join(lines) + "\n"


def _commented(text: str, indent: str) -> list[str]:
    """Return *text* as lines of comment; half of a long path is no use to anyone."""
    import textwrap  # noqa: PLC0415 - only init writes

    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _path(path: str) -> str:
    """Return *path* as the config reads it: a dollar is doubled, a leading tilde is no home."""
    literal = path.replace("$", "$$")
    return quoted(f"./{literal}" if literal.startswith("~") else literal)


def _listing(files: Iterable[str]) -> str:
    return ", ".join(shown(file) for file in files)
