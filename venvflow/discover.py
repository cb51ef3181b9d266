"""What ``venvflow init`` finds in a project, and the config that it writes from it.

:func:`discover` walks the project once, following no symlinks, and decides for each directory with lock
files what its venv would be; :func:`render` writes that down, with the reasons as comments. Reads lock
files, ``pyvenv.cfg``, ``.python-version`` and ``pyproject.toml``; never writes.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from venvflow.config import is_version, quoted
from venvflow.errors import shown

DODO_TEMPLATE = '''\
"""Run "doit" to make the virtual environments of venvflow.yaml what their lock files say."""

from venvflow.tasks import *  # noqa: F403
'''
"""Text of a ``dodo.py`` that has all tasks."""

SCHEMA_NAME = "venvflow.schema.json"
"""Name of the schema beside the config, to which the config's first line points."""

_BUILD_DIRECTORIES = frozenset({"node_modules", "__pycache__", "build", "dist", "target", "site-packages"})

_TOOL_LOCKS = {
    "uv.lock": "pyproject.toml",
    "poetry.lock": "pyproject.toml",
    "pdm.lock": "pyproject.toml",
    "Pipfile.lock": "Pipfile",
}
"""Lock files of tools, best first, each with the file beside it without which its tool cannot use it."""

_LARGEST_READ = 1 << 20  # bytes of a file that are looked at


@dataclass(frozen=True, slots=True)
class Proposal:
    """One venv as ``init`` would have it.

    *directory* and *locks* are relative to the project root; *python* is a version or empty; *notes* say why.
    """

    name: str
    directory: str
    locks: tuple[str, ...]
    python: str = ""
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Return where the venv goes, relative to the project root."""
        return os.path.join(self.directory, ".venv")


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


def discover(root: str) -> Found:
    """Return the venvs that the lock files below *root* call for, in the order of their directories.

    Directories that cannot be read, or have names that no config can hold, are named in the notes.
    """
    root = os.path.abspath(root)
    notes: list[str] = []
    proposals = []
    for directory in _walk(root, notes):
        choice = _choose(root, directory)
        if choice.locks:
            proposals.append(_propose(root, directory, choice))
        else:
            notes += choice.notes
    return Found(root, tuple(_with_names(root, proposals)), tuple(notes))


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
        elif not name.startswith(".") and name not in _BUILD_DIRECTORIES:
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
    python, why = _python(root, directory)
    notes = [*choice.notes, why]
    if directory.venvs and ".venv" not in directory.venvs:
        notes.append(
            f"There is a venv at {shown(os.path.join(directory.path, directory.venvs[0]))}; it is left alone."
        )
    locks = tuple(os.path.join(directory.path, lock) for lock in choice.locks)
    return Proposal("", directory.path, locks, python, tuple(notes))


# --------------------------------------------------------------------------- which lock files


def _choose(root: str, directory: _Directory) -> _Choice:
    """Return the lock files that the venv of *directory* is made from: of one kind, the best there is."""
    read = _reader(os.path.join(root, directory.path))
    files = [file for file in sorted(directory.files) if _could_be_lock(file)]
    files = [file for file in files if os.path.isfile(os.path.join(root, directory.path, file))]
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
    choice = _choose_requirements(directory.path, {file: read(file) for file in requirements})
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


# --------------------------------------------------------------------------- which Python


def _python(root: str, directory: _Directory) -> tuple[str, str]:
    """Return the Python for the venv of *directory*, or an empty text, and a sentence that says why."""
    for source in (_from_version_file, _from_venv, _from_project):
        version, where = source(root, directory)
        if version:
            return version, f"python: from {shown(where)}."
    return "", "python: nothing here pins one; without the key, it is the Python that runs venvflow."


def _from_version_file(root: str, directory: _Directory) -> tuple[str, str]:
    """Look for ``.python-version`` in the directory and those above it, as version managers do."""
    path = directory.path
    while True:
        file = os.path.join(path, ".python-version")
        words = re.sub(r"#.*", "", _read(os.path.join(root, file))).split()
        if words:
            return (words[0], file) if is_version(words[0]) else ("", "")
        if not path:
            return "", ""
        path = os.path.dirname(path)


def _from_venv(root: str, directory: _Directory) -> tuple[str, str]:
    for name in sorted(directory.venvs, key=lambda name: (name != ".venv", name)):
        file = os.path.join(directory.path, name, "pyvenv.cfg")
        found = re.search(
            r"^version(?:_info)?\s*=\s*(3\.[0-9]+)\b", _read(os.path.join(root, file)), re.MULTILINE
        )
        if found:
            return found[1], file
    return "", ""


def _from_project(root: str, directory: _Directory) -> tuple[str, str]:
    file = os.path.join(directory.path, "pyproject.toml")
    # Enough of TOML for one key of one table, and the same on Pythons that have no reader for it.
    table = re.search(
        r"^\[project\][^\n]*\n(.*?)(?=^\s*\[|\Z)", _read(os.path.join(root, file)), re.MULTILINE | re.DOTALL
    )
    wanted = (
        re.search(r"""^\s*requires-python\s*=\s*(["'])(.*?)\1""", table[1], re.MULTILINE) if table else None
    )
    return (_pinned_minor(wanted[2]), f"requires-python in {file}") if wanted else ("", "")


def _pinned_minor(specifier: str) -> str:
    """Return the only minor version that *specifier* allows (``==3.12.*``, ``>=3.12,<3.13``), or nothing.

    If the Python that runs venvflow, which would be taken otherwise, is too old or too new for it, the
    nearest version that is not.
    """
    parts = [part.replace(" ", "") for part in specifier.split(",")]
    for part in parts:
        if found := re.fullmatch(r"(?:===?|~=)(3\.[0-9]+)(?:\.[0-9]+|\.\*)|==(3\.[0-9]+)", part):
            return found[1] or found[2]
    lower = [int(found[1]) for part in parts if (found := re.fullmatch(r">=3\.([0-9]+)(?:\.[0-9]+)*", part))]
    upper = [int(found[1]) for part in parts if (found := re.fullmatch(r"<3\.([0-9]+)(?:\.0)*", part))]
    if lower and upper and max(lower) + 1 == min(upper):
        return f"3.{max(lower)}"
    ours = sys.version_info[1]
    if lower and max(lower) > ours:
        return f"3.{max(lower)}"
    return f"3.{min(upper) - 1}" if upper and min(upper) <= ours else ""


def _reader(directory: str) -> Callable[[str], str]:
    return lambda file: _read(os.path.join(directory, file))


def _read(path: str) -> str:
    """Return the beginning of a regular file as text; nothing, if there is none that can be read."""
    if not os.path.isfile(path):  # opening a pipe would wait for its other end
        return ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LARGEST_READ)
    except OSError:
        return ""


# --------------------------------------------------------------------------- names


def _with_names(root: str, proposals: list[Proposal]) -> Iterator[Proposal]:
    """Yield the proposals with names: the directory's, with its parents' where two are the same."""
    short = [_name(os.path.basename(proposal.directory or root)) for proposal in proposals]
    count = Counter(name.lower() for name in short)
    taken: set[str] = set()
    for name, proposal in zip(short, proposals, strict=True):
        full = name if count[name.lower()] == 1 else _name(proposal.directory.replace("/", "-") or name)
        unique = _unique(full, taken)
        taken.add(unique.lower())
        yield Proposal(unique, proposal.directory, proposal.locks, proposal.python, proposal.notes)


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


_HEAD = f"""\
# yaml-language-server: $schema=./{SCHEMA_NAME}
# The virtual environments of this project. Run "doit" to make each what its lock files say.
# "venvflow init" wrote this; what it found and why it chose so is in the comments. Change what you like.
version: 1
"""

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
    notes = "".join(f"\n# {note}" for note in found.notes)
    parts = [_HEAD, _OPTIONS, f"{notes}\n" if notes else ""]
    if not found.venvs:
        return "".join((*parts, _NOTHING))
    return "".join((*parts, "\nvenvs:\n", "\n".join(map(_rendered, found.venvs))))


def _rendered(proposal: Proposal) -> str:
    lines = [f"  {quoted(proposal.name)}:", *(f"    # {note}" for note in proposal.notes)]
    lines += [f"    path: {_path(proposal.path)}", "    locks:"]
    lines += [f"      - {_path(lock)}" for lock in proposal.locks]
    if proposal.python:
        lines.append(f'    python: "{proposal.python}"')
    return "\n".join(lines) + "\n"


def _path(path: str) -> str:
    """Return *path* as the config reads it: a dollar is doubled, a leading tilde is no home."""
    literal = path.replace("$", "$$")
    return quoted(f"./{literal}" if literal.startswith("~") else literal)


def _listing(files: Iterable[str]) -> str:
    return ", ".join(shown(file) for file in files)
