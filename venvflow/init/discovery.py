"""Finds the venvs that a project could have: one for each directory with lock files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from venvflow.init.lockfiles import choose, listing, locks_in
from venvflow.init.project import Directory, value_at, walk
from venvflow.init.pythons import python_of
from venvflow.model import Config, VenvSpec


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
class Discovery:
    """What is in the project at *root*: venvs that can be made, and *notes* on what was left out and why."""

    root: str
    venvs: tuple[Proposal, ...] = ()
    notes: tuple[str, ...] = ()


def discover(root: str, config: Config | None = None) -> Discovery:
    """Return the venvs that the lock files below *root* call for, in the order of their directories.

    Directories with a lock file that *config* names have their venv; their other lock files are named in the
    notes, as are directories that cannot be read, and names that no config can hold.
    """
    root = os.path.abspath(root)
    specs = config.venvs.values() if config else ()
    listed = {path for spec in specs for path in (*spec.locks, *spec.key_files)}
    notes: list[str] = []
    proposals = []
    for directory in walk(root, notes):
        locks = locks_in(directory)
        unnamed = [lock for lock in locks if os.path.join(root, directory.path, lock) not in listed]
        taken, why = choose(directory, locks)
        if unnamed != locks:
            if unnamed:
                rest = f"no venv names {listing(unnamed)}"
                notes.append(f"In {directory.label}, a venv is made from other files: {rest}.")
        elif taken:
            proposals.append(_proposal(directory, taken, why))
        else:
            notes += why
    return Discovery(root, tuple(_with_names(root, proposals, specs)), tuple(notes))


def _proposal(directory: Directory, locks: tuple[str, ...], why: list[str]) -> Proposal:
    python, notes = python_of(directory, locks)
    notes = [*why, *_workspace(directory, locks), *notes]
    if directory.venvs and ".venv" not in directory.venvs:
        notes.append(f"There is a venv at {directory.shown(directory.venvs[0])}; it is left alone.")
    paths = tuple(os.path.join(directory.path, lock) for lock in locks)
    return Proposal("", directory.path, paths, python, tuple(notes))


def _workspace(directory: Directory, locks: tuple[str, ...]) -> Iterator[str]:
    """Yield what is to be known of a lock file that several projects share."""
    if "uv.lock" not in locks:
        return
    members = value_at(directory.document("pyproject.toml"), "tool", "uv", "workspace", "members")
    names = [each for each in members if isinstance(each, str)] if isinstance(members, list) else []
    if names:
        yield (
            f"A uv workspace: one lock file for its members ({listing(names)}). uv installs the root and "
            "what it needs; for all members, build by commands with uv sync --all-packages."
        )


# --------------------------------------------------------------------------- names


def _with_names(root: str, proposals: list[Proposal], specs: Collection[VenvSpec]) -> Iterator[Proposal]:
    """Yield the proposals with names: the directory's, with its parents' where two are the same."""
    short = [_name(os.path.basename(proposal.directory or root)) for proposal in proposals]
    taken = {spec.name.lower() for spec in specs}
    paths = {spec.path for spec in specs}
    count = Counter([*(name.lower() for name in short), *taken])
    for name, proposal in zip(short, proposals, strict=True):
        full = name if count[name.lower()] == 1 else _name(proposal.directory.replace("/", "-") or name)
        unique = _unique(full, taken)
        taken.add(unique.lower())
        is_free = os.path.join(root, proposal.path) not in paths
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
