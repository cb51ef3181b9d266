"""``hash-lockfiles``: computes the key from lock files, interpreter and config."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from venvflow import builders
from venvflow.builders.recipe import BUILD_FILES
from venvflow.disk import interpreters
from venvflow.errors import UsageError, VenvflowError, shown, some
from venvflow.model import Outcome
from venvflow.pure.keys import Input, make_key, parts_of
from venvflow.pure.names import did_you_mean, normalised
from venvflow.steps.job import Job
from venvflow.steps.key_inputs import command_inputs, fingerprint, read_input, still_holds
from venvflow.steps.state_files import KeyRecord, read_key, write_key

if TYPE_CHECKING:
    from venvflow.builders.inputs import Inputs

_MOST_NAMED = 3
"""How many things that a warning counts are named."""


@dataclass(frozen=True, slots=True)
class KeyNow:
    """The key of a venv: as it was *noted* by the last run, and as it is *now*.

    One of *now* and *problem* is None: a lock file cannot be read, or an interpreter or builder is not there.
    """

    noted: KeyRecord | None
    now: KeyRecord | None
    problem: VenvflowError | None = None


def hash_lockfiles(job: Job) -> Outcome:
    """Compute the key of the job's venv and leave it in ``key.json``.

    Raises UsageError for a file that the config lists and that is missing, EnvironmentFailure for one that
    cannot be read and for an interpreter that cannot be found, Refused as working on the venv is.
    """
    job.refuse_unsafe()
    before = read_key(job)
    _refuse_missing_files(job)
    if before is not None and still_holds(job, before):  # then the interpreter need not be asked again
        return Outcome("same", before.key.digest[:12], {"files": len(before.inputs)})
    record = compute_key(job)
    write_key(job, record)
    unchanged = before is not None and before.key.digest == record.key.digest
    figures: dict[str, int | float | str] = {"files": len(record.inputs)}
    if unchanged:  # what there is to say of these files was said when they were new
        return Outcome("same", record.key.digest[:12], figures)
    return Outcome("new", record.key.digest[:12], figures, record.warnings)


def compute_key(job: Job) -> KeyRecord:
    """Return the key of the job's venv as things are now; writes nothing. Raises as the step does."""
    _refuse_missing_files(job)
    try:
        recipe = builders.choose(job.spec, job.environ)
        interpreter = interpreters.resolve(job.spec.python, root=job.root, environ=job.environ)
    except VenvflowError as error:
        error.where = error.where or job.spec.name
        raise
    gathered = _Gathering(job)
    gathered.gather(recipe)
    first = {}
    if any("{lock}" in word for words in recipe.commands for word in words) and len(job.spec.locks) > 1:
        first = {"first-lock": hashlib.sha256(read_input(job.spec.locks[0], job.spec.name)).hexdigest()}
    key = make_key(
        parts_of(
            job.spec,
            interpreter,
            builder=recipe.name,
            commands=recipe.commands,
            inputs=gathered.inputs,
            environ=job.environ,
        )
        | first
    )
    paths = tuple(gathered.paths)
    seen = fingerprint(job, recipe, paths, interpreters.identity(interpreter))
    return KeyRecord(key, interpreter, paths, seen, tuple(gathered.warnings))


def key_now(job: Job) -> KeyNow:
    """Return the key of the job's venv as things are now; runs an interpreter only if it has to."""
    noted = read_key(job)
    try:
        if noted is not None and still_holds(job, noted):
            return KeyNow(noted, noted)
        return KeyNow(noted, compute_key(job))
    except VenvflowError as error:
        return KeyNow(noted, None, error)


def _refuse_missing_files(job: Job) -> None:
    """Raise UsageError when a file is missing that the config lists for this venv."""
    missing_files = job.config.missing_files.get(job.spec.name, ())
    if missing_files:
        raise UsageError(
            "; ".join(missing_files),
            where=job.spec.name,
            state="The venv and its key are as they were.",
            hint="Put the file back, or change the config.",
        )


def _told(found: list[tuple[str, str]], what: str) -> str:
    """Return in one line the first of what was *found* in files; of several, their number and *what*."""
    files = {file for file, _ in found}
    head = f"{found[0][0]}: " if len(files) == 1 else ""
    texts = [text if head else f"{file}: {text}" for file, text in found]
    return f"{head}{len(texts)} {what}: {some(texts, _MOST_NAMED, '; ')}" if texts[1:] else head + texts[0]


class _Gathering:
    """Collects the files whose bytes are in the key."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.inputs: list[Input] = []
        self.paths: dict[str, None] = {}
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

    def gather(self, recipe: builders.Recipe) -> None:
        """Read the locks, what they refer to in the project, and the other files of the key, each once."""
        for path in self._job.spec.locks:
            self._add_lock(path, "lock")
        for project in self._job.spec.editable:
            self._add_project(os.path.normpath(os.path.join(self._job.config.root, project)))
        for path in recipe.inputs:
            if os.path.lexists(path) and path not in self.paths:
                self._add("local", path)
        for path in self._job.spec.key_files:
            if path not in self.paths:
                self._add("file", path)
        if (named := command_inputs(self._job, recipe)) is not None:
            self._add_named(named)

    def _add_named(self, named: Inputs) -> None:
        """Read what the commands of the config name, and note what of it cannot be seen."""
        for project in named.projects:
            self._add_project(project)
        for path in named.files:
            if path not in self.paths:
                self._add("file", path)
        if not self._job.spec.key_files:  # else somebody has thought of it
            self._unseen = [*named.runners, *(f"{each}/" for each in named.directories)]

    def _add(self, role: str, path: str) -> bytes:
        data = read_input(path, self._job.spec.name)
        self.inputs.append(Input(role, os.path.basename(path), data))
        self.paths[path] = None
        return data

    def _add_lock(self, path: str, role: str) -> None:
        if path in self.paths:
            return
        from venvflow.pure.lockfiles import kind_of, references  # noqa: PLC0415 - not for a key that still holds

        data = self._add(role, path)
        found = references(path, data)
        base = os.path.dirname(path)
        self._unpinned += [(shown(os.path.basename(path)), text) for text in found.unpinned]
        for include in self._inside(base, found.includes, path):
            role = "include" if kind_of(include) == "requirements" else "file"
            self._add_lock(include, role)
        for project in self._inside(base, found.local, path):
            self._add_project(project)
        if role == "lock":
            self._refuse_unknown_groups(path, data)

    def _add_project(self, directory: str) -> None:
        """Read what decides the metadata of a local project."""
        for name in BUILD_FILES:
            build_file = os.path.join(directory, name)
            if os.path.isfile(build_file) and build_file not in self.paths:
                self._add("local", build_file)

    def _refuse_unknown_groups(self, path: str, data: bytes) -> None:
        """Raise UsageError for a group that is not in a lock file whose tool would pass over it."""
        from venvflow.pure.lockfiles import groups_in  # noqa: PLC0415 - not for a key that still holds

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
                self._outside.append(
                    (shown(os.path.basename(lock)), f"{shown(target)} lies outside the project")
                )
