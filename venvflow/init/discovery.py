"""Finds the venvs that a project could have, tells which of them can be trusted, and names them."""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from venvflow.errors import shown, some
from venvflow.init.lockfiles import arrange, may_be_lock, place_of
from venvflow.init.project import Directory, files_of, name_of
from venvflow.init.pythons import python_of, usual_python
from venvflow.init.requirements import Reader, is_requirements
from venvflow.init.tools import members_of, options_of
from venvflow.init.trees import EXAMPLES, TEMPLATES, TEST_DATA, VENDORED, purpose_of
from venvflow.init.virtualenv_cache import Translation, translated
from venvflow.model import Config, VenvSpec
from venvflow.pure.names import kind_of
from venvflow.pure.patterns import compile_patterns

_MEMBERS = "Of members of a workspace, whose one lock file takes their place"
_MOST_NAMED = 6
_OF_A_PROJECT = (
    "pyproject.toml",
    "setup.py",
    "setup.cfg",
    "package.json",
    "Cargo.toml",
    "go.mod",
    "Makefile",
)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One venv as ``init`` would have it.

    *directory* and *locks* are relative to the project root, *base* is the venv's name in that directory;
    *python* is a version or empty, *source* what says so; *notes* are what else is to be known. *words* tell
    it from the other venvs of its directory, *options* are further lines of its entry. *purpose* is what its
    directory is for, empty if that is the project itself, *doubt* why its files need not be locks: with
    either, a person has to want it.
    """

    name: str
    directory: str
    locks: tuple[str, ...]
    python: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()
    base: str = ".venv"
    words: tuple[str, ...] = ()
    key_files: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    purpose: str = ""
    doubt: str = ""

    @property
    def reason(self) -> str:
        """Return why it is in doubt, empty if it can be trusted."""
        return f"They lie among {self.purpose}" if self.purpose else self.doubt

    @property
    def path(self) -> str:
        """Return where the venv goes, relative to the project root."""
        return os.path.join(self.directory, self.base)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What is in the project at *root*.

    *venvs* can be trusted, *doubtful* ones are for a person to choose from, *notes* say what was passed over
    and why, *settings* are lines of the config besides its venvs.
    """

    root: str
    venvs: tuple[Proposal, ...] = ()
    doubtful: tuple[Proposal, ...] = ()
    notes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def discover(root: str, environ: Mapping[str, str], config: Config | None = None) -> Discovery:
    """Return the venvs that the lock files below *root* call for, in the order of their directories.

    What *config* has already, and what it ignores, is left out. Directories that cannot be read are named in
    the notes, and so are names that no config can hold.
    """
    root = os.path.abspath(root)
    notes: list[str] = []
    paths = files_of(root, environ, may_be_lock, notes)
    if config and config.ignore:
        ignore = compile_patterns(config.ignore)
        paths = [path for path in paths if not ignore.excludes_file(path)]
    reader, passed = Reader(root), defaultdict[str, list[str]](list)
    specs = config.venvs.values() if config else ()
    said = translated(Directory(root), environ)
    named_already = [path for spec in specs for path in (*spec.locks, *spec.key_files)]
    had = {*_with_included((os.path.relpath(path, root) for path in named_already), reader)}
    asked = [each for each in _as_said(root, said) if not had.issuperset(each.locks)]
    had |= {*_with_included((lock for each in asked for lock in each.locks), reader)}
    found = _without_idle_words(_promoted(root, list(_proposals(root, paths, reader, passed))))
    lacking = [each for each in found if not had.issuperset(each.locks[-1:] if each.reason else each.locks)]
    named = list(_with_names(root, [*asked, *lacking], specs))
    notes += [
        f"{why}: {some([shown(file) for file in files], _MOST_NAMED)}." for why, files in passed.items()
    ]
    return Discovery(
        root,
        tuple(each for each in named if not each.reason),
        tuple(each for each in named if each.reason),
        tuple(notes),
        said.settings if said else (),
    )


def _as_said(root: str, said: Translation | None) -> Iterator[Proposal]:
    """Yield the venv that the config of virtualenv-cache asks for, if there is one."""
    if said and said.locks:
        directory, base = os.path.split(said.path)
        python, source, why = python_of(Directory(root, os.path.dirname(said.locks[0])), said.locks)
        notes = (*said.notes, *why)
        yield Proposal("", directory, said.locks, python, source, notes, base, key_files=said.key_files)


def _with_included(files: Iterable[str], reader: Reader) -> list[str]:
    """Return *files*, relative to the project root, each once and before all that it includes."""
    waiting, found = [*files][::-1], dict[str, None]()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = None
            waiting += reversed(reader.read(path).includes if kind_of(path) == "requirements" else ())
    return list(found)


def _proposals(
    root: str, paths: Sequence[str], reader: Reader, passed: dict[str, list[str]]
) -> Iterator[Proposal]:
    """Yield a proposal without a name for each venv; the files *passed* over are added by reason."""
    directories = defaultdict[tuple[str, str], list[str]](list)
    for path in paths:
        owner, group = place_of(path)
        directories[owner, purpose_of(f"{owner}/{group}")].append(path)
    by_hand = _are_locks_by_hand(directories, reader)
    usual = usual_python(root)
    shared = {owner: members_of(Directory(root, owner)) for owner, _ in directories}
    for (owner, purpose), files in sorted(directories.items()):
        directory = Directory(root, owner)
        arranged = arrange(directory, files, reader, by_hand=by_hand)
        for reason, path in arranged.passed:
            passed[f"Of no use as venvs among {purpose}" if purpose else reason].append(path)
        for fill in arranged.fills:
            if os.path.basename(fill.locks[0]) == "uv.lock" and _is_member(owner, shared):
                passed[_MEMBERS].append(fill.locks[0])
                continue
            python, source, why = python_of(directory, _with_included(fill.locks, reader), fill.words, usual)
            notes = (*fill.notes, *why)
            options: tuple[str, ...] = ()
            if not (fill.words or fill.doubt or purpose):
                notes = (*notes, *_present(directory))
                options = tuple(options_of(directory, fill.locks))
            yield Proposal(
                "", owner, fill.locks, python, source, notes,
                words=fill.words, options=options,
                purpose=purpose, doubt=fill.doubt,
            )  # fmt: skip


def _present(directory: Directory) -> Iterator[str]:
    """Yield a note on a venv that is there already, under another name than ours would have."""
    venvs = directory.venvs
    if venvs and ".venv" not in venvs:
        yield f"There is a venv at {directory.shown(venvs[0])}; it is left alone."


def _are_locks_by_hand(directories: Mapping[tuple[str, str], Sequence[str]], reader: Reader) -> bool:
    """Return whether the versions that people pin may be all that the project locks with.

    They are not where a tool wrote one of its locks, or where people left out something in one of theirs.
    """
    return not any(
        not is_requirements(path) or reader.read(path).by_tool or reader.read(path).is_incomplete
        for (_, purpose), paths in directories.items()
        if purpose not in (TEST_DATA, VENDORED)
        for path in paths
    )


def _is_member(directory: str, shared: Mapping[str, Sequence[str]]) -> bool:
    """Return whether *directory* is a member of a workspace; *shared* has the patterns of members."""
    return any(
        fnmatch.fnmatch(os.path.relpath(directory, above), os.path.normpath(pattern))
        for above, patterns in shared.items()
        if above != directory and f"{directory}/".startswith(f"{above}/" if above else "")
        for pattern in patterns
    )


def _promoted(root: str, found: list[Proposal]) -> list[Proposal]:
    """Return *found*, its examples no longer in doubt if there is nothing else.

    Data of tests are all that there is only in a repository that is made of them.
    """
    if any(not each.purpose for each in found):
        return found
    wanted = {EXAMPLES, TEMPLATES}
    if not any(Directory(root).has(name) for name in _OF_A_PROJECT):
        wanted.add(TEST_DATA)
    return [
        replace(each, purpose="") if each.purpose in wanted and "{" not in each.directory else each
        for each in found
    ]


def _without_idle_words(found: list[Proposal]) -> list[Proposal]:
    """Return *found*, the only venv of a directory without the words that would tell it from others."""
    every = Counter(each.directory for each in found)
    trusted = Counter(each.directory for each in found if not each.reason)
    return [
        replace(each, words=()) if (every if each.reason else trusted)[each.directory] == 1 else each
        for each in found
    ]


# --------------------------------------------------------------------------- names


def _with_names(root: str, found: list[Proposal], specs: Collection[VenvSpec]) -> Iterator[Proposal]:
    """Yield the proposals with names and places that no other has.

    A venv is called after its directory, with the parents of that where two are the same, and after what its
    lock files are for, if the directory has several. What can be trusted chooses first.
    """
    taken = {spec.name.lower() for spec in specs}
    places = {spec.path for spec in specs}
    labels = _labels(root, found, taken)
    for each in sorted(found, key=lambda each: bool(each.reason)):
        words = "-".join(each.words)
        name = _unique(_name(f"{labels[each.directory]}-{words}"), taken)
        taken.add(name.lower())
        base = f"{each.base}-{words}" if words else each.base
        if os.path.join(root, each.directory, base) in places:
            base = f".venv-{name}"
        places.add(os.path.join(root, each.directory, base))
        yield replace(each, name=name, base=base)


def _labels(root: str, found: Iterable[Proposal], taken: Collection[str]) -> dict[str, str]:
    """Return what the venvs of each directory are called after: its name, or its path if that is taken."""
    labels: dict[str, str] = {}
    used = set(taken)
    for is_doubtful in (False, True):
        directories = {each.directory for each in found if bool(each.reason) == is_doubtful} - labels.keys()
        short = {path: _name(os.path.basename(path) or name_of(root)) for path in directories}
        count = Counter(name.lower() for name in short.values())
        for path in sorted(directories):
            is_free = count[short[path].lower()] == 1 and short[path].lower() not in used
            labels[path] = short[path] if is_free else _name(path.replace("/", "-") or short[path])
        used |= {labels[path].lower() for path in directories}
    return labels


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
