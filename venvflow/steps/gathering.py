"""Gathers what is in a key of files: what the lock files say for the venv, and the bytes of the others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from venvflow import builders
from venvflow.builders.environment import steers_tools
from venvflow.builders.pins import Unknown, marker_values
from venvflow.builders.recipe import BUILD_FILES
from venvflow.errors import UsageError, VenvflowError, shown, some
from venvflow.model import Interpreter
from venvflow.pure.keys import Input
from venvflow.pure.lockfiles import groups_in, listed, references
from venvflow.pure.names import did_you_mean, kind_of, normalised
from venvflow.pure.own_part import Chosen, Markers, names_in, requirements_part, tool_part, workspace_part
from venvflow.steps.job import Job
from venvflow.steps.key_inputs import command_inputs, files_of, read_input
from venvflow.steps.state_files import KeyRecord

if TYPE_CHECKING:
    from venvflow.builders.inputs import Inputs

_MOST_NAMED = 3
"""How many things that a warning counts are named."""


def packages_of(job: Job, record: KeyRecord) -> dict[str, dict[str, str]]:
    """Return what each lock file of the key lists for the venv, by the name of its part.

    A file that is not there any more, not what the key was made of, or cannot be read is left out.
    """
    files = files_of(job, record)
    with suppress(VenvflowError):
        own = gather(job, builders.choose(job.spec, job.environ), record.interpreter).inputs
        files = {name: (path, own[path].data) for name, (path, _) in files.items() if path in own}
    found = {name: listed(path, data) for name, (path, data) in files.items() if _may_list(name, path)}
    return {name: packages for name, packages in found.items() if packages is not None}


def _may_list(part: str, path: str) -> bool:
    """Return whether a file of the key may list packages: locks do, others if they are called so."""
    return not part.startswith("file") or path.endswith((".txt", ".in", ".lock", ".toml"))


def gather(job: Job, recipe: builders.Recipe, interpreter: Interpreter) -> Gathering:
    """Read what is in the key of the job's venv, if *recipe* makes it for *interpreter*.

    Raises EnvironmentFailure for a file that cannot be read, UsageError for a group that is not in its lock.
    """
    found = Gathering(job, recipe, interpreter)
    found.gather()
    return found


class _Read(NamedTuple):
    """A lock file, or one that it includes: its *role*, its *data*, and whether it only *constrains*."""

    role: str
    data: bytes
    constrains: bool = False


class Gathering:
    """The files of a key: the *digests* of their bytes, and the *inputs* that they are to it, by their paths.

    Each is read once, whatever it is there for.
    """

    def __init__(self, job: Job, recipe: builders.Recipe, interpreter: Interpreter) -> None:
        self._job = job
        self._recipe = recipe
        self._interpreter = interpreter
        self.digests: dict[str, str] = {}
        self.inputs: dict[str, Input] = {}
        self._locks: dict[str, _Read] = {}
        self._unpinned: list[tuple[str, str]] = []
        self._outside: list[tuple[str, str]] = []
        self._unseen: list[str] = []

    @property
    def warnings(self) -> Iterator[str]:
        """What a user should know of the lock files, in one line for each kind."""
        if self._unpinned:
            open_ones = sum(" may be any version" in text for _, text in self._unpinned)
            advice = ": lock them, as uv pip compile does" if open_ones > 1 else ""
            yield _told(self._unpinned, "requirements are not pinned") + advice
        if self._outside:
            told = _told(self._outside, "references lead out of the project")
            yield f"{told}: changes there do not change the key"
        if self._unseen:
            named = some(list(map(shown, self._unseen)), _MOST_NAMED)
            yield (
                f"build: names {named}: changes of the files that decide there do not change the key. "
                'List them: "key: {files: [PATTERN, ...]}"'
            )

    def gather(self) -> None:
        """Read the locks, what they refer to in the project, and the other files of the key."""
        spec = self._job.spec
        for path in spec.locks:
            self._read_lock(path, "lock")
        for path, part in self._parts().items():
            self._add_lock(path, part)
        for project in spec.editable:
            self._add_project(os.path.normpath(os.path.join(self._job.config.root, project)))
        for path in filter(os.path.lexists, self._recipe.inputs):
            self._add("local", path, self._is_workspace(path))
        for path in spec.key_files:
            self._add("file", path)
        if (named := command_inputs(self._job, self._recipe)) is not None:
            self._add_named(named)

    # ----------------------------------------------------------------------- lock files

    def _read_lock(self, path: str, role: str, *, constrains: bool = False) -> None:
        """Read a lock file and what it includes; what is both required and a constraint is required."""
        known = self._locks.get(path)
        if known is not None and known.constrains <= constrains:
            return
        data = known.data if known is not None else read_input(path, self._job.spec.name)
        role = known.role if known is not None else role
        self._locks[path] = _Read(role, data, constrains)
        if kind_of(path) != "requirements":  # no other kind includes anything
            return
        found = references(path, data)
        base = os.path.dirname(path)
        constraints = {os.path.normpath(os.path.join(base, each)) for each in found.constraints}
        for include in self._inside(base, found.includes, path):
            role = "include" if kind_of(include) == "requirements" else "file"
            self._read_lock(include, role, constrains=constrains or include in constraints)

    def _parts(self) -> dict[str, bytes]:
        """Return what each lock file says for the venv; of what is not understood, all that it says.

        So do those that commands may read, those that a tool may read in another way, because the config has
        variables for it, and those of which the config says that they count as they are.
        """
        locks, spec = self._locks.items(), self._job.spec
        if self._recipe.name == "commands" or steers_tools(self._job.environ, spec.key_env):
            return {path: lock.data for path, lock in locks}
        try:
            markers = Markers(marker_values(self._interpreter))
        except Unknown:
            markers = Markers({})
        parts = self._parts_of_lists(markers)
        for path, lock in locks:
            if path not in parts:
                chosen = Chosen(spec, markers, partial(self._manifest, os.path.dirname(path)))
                parts[path] = tool_part(kind_of(path), lock.data, chosen)
        parts |= dict.fromkeys(spec.key_files)
        return {path: lock.data if (part := parts[path]) is None else part for path, lock in locks}

    def _parts_of_lists(self, markers: Markers) -> dict[str, bytes | None]:
        """Return what requirements files say, and of constraints those on what they ask for."""
        lists = {path: lock for path, lock in self._locks.items() if kind_of(path) == "requirements"}
        parts = {path: requirements_part(lock.data, markers) for path, lock in lists.items()}
        asked = self._asked(parts)
        if asked is None:
            return parts
        constraints = {path: lock.data for path, lock in lists.items() if lock.constrains}
        return parts | {path: requirements_part(data, markers, asked) for path, data in constraints.items()}

    def _asked(self, parts: Mapping[str, bytes | None]) -> frozenset[str] | None:
        """Return the names that the requirements files ask for, None if that is not known.

        It is not if one of them is not read: it lies outside of the project, or has another kind of name.
        """
        if self._outside or any(lock.role == "file" for lock in self._locks.values()):
            return None
        asked = [
            names_in(part) if part is not None else None
            for path, part in parts.items()
            if not self._locks[path].constrains
        ]
        known = [names for names in asked if names is not None]
        return frozenset().union(*known) if len(known) == len(asked) else None

    def _manifest(self, base: str, directory: str) -> bytes:
        path = os.path.normpath(os.path.join(base, directory, "pyproject.toml"))
        return read_input(path, self._job.spec.name) if os.path.isfile(path) else b""

    def _add_lock(self, path: str, part: bytes) -> None:
        """Add a lock file that says *part*, and the local projects that it names there."""
        lock = self._locks[path]
        self._put(path, lock.role, lock.data, part)
        found = references(path, part)
        self._unpinned += [(shown(os.path.basename(path)), text) for text in found.unpinned]
        for project in self._inside(os.path.dirname(path), found.local, path):
            self._add_project(project)
        if lock.role == "lock":
            self._refuse_unknown_groups(path, lock.data)

    def _refuse_unknown_groups(self, path: str, data: bytes) -> None:
        """Raise UsageError for a group that is not in a lock file whose tool would pass over it."""
        spec = self._job.spec
        asked = (*spec.groups, *spec.extras)
        known = groups_in(path, data) if asked else None
        if known is None:
            return
        for group in asked:
            if normalised(group) not in map(normalised, known):
                raise UsageError(
                    f"{shown(os.path.basename(path))} has no group {shown(group)!r}",
                    where=spec.name,
                    state="The venv and its key are as they were.",
                    hint=did_you_mean(group, known),
                )

    def _inside(self, base: str, targets: tuple[str, ...], lock: str) -> Iterator[str]:
        """Yield *targets* in the project; what lies outside cannot be in the key of every checkout."""
        for target in targets:
            path = os.path.normpath(os.path.join(base, target))
            if os.path.commonpath([self._job.config.root, path]) == self._job.config.root:
                yield path
            else:
                told = shown(os.path.basename(lock)), f"{shown(target)} lies outside the project"
                self._outside += [told] * (told not in self._outside)

    # ----------------------------------------------------------------------- other files

    def _add_project(self, directory: str) -> None:
        """Read what decides the metadata of a local project."""
        for name in BUILD_FILES:
            build_file = os.path.join(directory, name)
            if os.path.isfile(build_file):
                self._add("local", build_file)

    def _add_named(self, named: Inputs) -> None:
        """Read what the commands of the config name, and note what of it cannot be seen."""
        for project in named.projects:
            self._add_project(project)
        for path in named.files:
            self._add("file", path)
        if not self._job.spec.key_files:  # else somebody has thought of it
            self._unseen = [*named.runners, *(f"{each}/" for each in named.directories)]

    def _is_workspace(self, path: str) -> bool:
        """Return whether a file is the project file of a workspace of which the venv gets members only."""
        lock = os.path.join(os.path.dirname(path), "uv.lock")
        is_beside = os.path.basename(path) == "pyproject.toml" and lock in self._locks
        is_whole = not is_beside or path in self._job.spec.key_files
        return not is_whole and self.inputs[lock].data != self._locks[lock].data

    def _add(self, role: str, path: str, is_workspace: bool = False) -> None:
        if path not in self.inputs:
            data = read_input(path, self._job.spec.name)
            self._put(path, role, data, (workspace_part(data) if is_workspace else None) or data)

    def _put(self, path: str, role: str, data: bytes, says: bytes) -> None:
        self.digests[path] = hashlib.sha256(data).hexdigest()
        self.inputs[path] = Input(role, os.path.basename(path), says)


def _told(found: list[tuple[str, str]], what: str) -> str:
    """Return in one line the first of what was *found* in files; of several, their number and *what*."""
    files = {file for file, _ in found}
    head = f"{found[0][0]}: " if len(files) == 1 else ""
    texts = [text if head else f"{file}: {text}" for file, text in found]
    return f"{head}{len(texts)} {what}: {some(texts, _MOST_NAMED, '; ')}" if texts[1:] else head + texts[0]
