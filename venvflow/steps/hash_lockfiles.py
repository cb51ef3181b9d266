"""``hash-lockfiles``: from lock files, interpreter and config to the key."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator

from venvflow import builders, interpreters
from venvflow.errors import EnvironmentFailure, shown
from venvflow.keys import Input, make_key, parts_of
from venvflow.lockfiles import kind_of, references
from venvflow.model import FORMAT, Outcome
from venvflow.scan import Changing, read
from venvflow.steps.job import Job, KeyRecord, read_key, write_key

_LARGEST_INPUT = 256 << 20
_BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
"""What decides the metadata of a local project that a lock refers to."""


def hash_lockfiles(job: Job) -> Outcome:
    """Compute the key of the job's venv and leave it in ``key.json``.

    Raises EnvironmentFailure for a file that cannot be read or an interpreter that cannot be found.
    """
    before = read_key(job)
    plan = builders.choose(job.spec, job.environ)
    interpreter = interpreters.resolve(job.spec.python, root=job.root, environ=job.environ)
    gathered = _Gathering(job)
    gathered.gather(plan.inputs)
    key = make_key(
        parts_of(
            job.spec,
            interpreter,
            builder=plan.name,
            commands=plan.commands,
            inputs=gathered.inputs,
            environ=job.environ,
        )
    )
    paths = tuple(gathered.paths)
    fingerprint = _fingerprint(job, plan, paths, interpreters.identity(interpreter))
    record = KeyRecord(key, interpreter, paths, fingerprint, tuple(gathered.warnings))
    write_key(job, record)
    unchanged = before is not None and before.key.digest == key.digest
    return Outcome("same" if unchanged else "new", key.digest[:12], {"files": len(paths)}, record.warnings)


def key_is_current(job: Job) -> bool:
    """Return whether ``key.json`` still holds: by reading the same files again, without running anything."""
    record = read_key(job)
    if record is None:
        return False
    plan = builders.choose(job.spec, job.environ)
    try:
        identity = interpreters.identity(record.interpreter)
        return identity != "" and record.fingerprint == _fingerprint(job, plan, record.inputs, identity)
    except EnvironmentFailure:
        return False  # a file is gone: running the task will say which


def _fingerprint(job: Job, plan: builders.Plan, paths: tuple[str, ...], interpreter: str) -> str:
    spec = job.spec
    seen = [
        FORMAT, spec.python, spec.locks, spec.key_files, spec.exclude, spec.bytecode, plan.name, plan.commands,
        plan.inputs, interpreter, [(name, job.environ.get(name)) for name in spec.key_env],
        [hashlib.sha256(_read(path, spec.name)).hexdigest() for path in paths],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(seen).encode("ascii")).hexdigest()


class _Gathering:
    """Collects the files whose bytes are in the key."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.inputs: list[Input] = []
        self.paths: dict[str, None] = {}
        self.warnings: list[str] = []

    def gather(self, companions: tuple[str, ...]) -> None:
        """Read the locks, what they refer to in the project, and the other files of the key."""
        for path in self._job.spec.locks:
            self._add_lock(path, "lock")
        for path in companions:
            if os.path.lexists(path):
                self._add("project", path)
        for path in self._job.spec.key_files:
            self._add("file", path)

    def _add(self, role: str, path: str) -> bytes:
        data = _read(path, self._job.spec.name)
        self.inputs.append(Input(role, os.path.basename(path), data))
        self.paths[path] = None
        return data

    def _add_lock(self, path: str, role: str) -> None:
        if path in self.paths:
            return
        data = self._add(role, path)
        found = references(path, data)
        base = os.path.dirname(path)
        self.warnings += [f"{shown(os.path.basename(path))}: {text}" for text in found.unpinned]
        for include in self._inside(base, found.includes, path):
            role = "include" if kind_of(include) == "requirements" else "file"
            self._add_lock(include, role)
        for project in self._inside(base, found.local, path):
            for name in _BUILD_FILES:
                build_file = os.path.join(project, name)
                if os.path.isfile(build_file) and build_file not in self.paths:
                    self._add("local", build_file)

    def _inside(self, base: str, targets: tuple[str, ...], lock: str) -> Iterator[str]:
        """Yield *targets* in the project; what lies outside cannot be in the key of every checkout."""
        for target in targets:
            path = os.path.normpath(os.path.join(base, target))
            if os.path.commonpath([self._job.config.root, path]) == self._job.config.root:
                yield path
            else:
                self.warnings.append(
                    f"{shown(os.path.basename(lock))} refers to {shown(target)} outside the project: "
                    "changes there do not change the key"
                )


def _read(path: str, venv: str) -> bytes:
    """Return the bytes of a regular file, read whole and unchanged meanwhile; never waits for a FIFO."""
    try:
        content = read(path, keep=_LARGEST_INPUT)
    except Changing as error:
        why = "it keeps changing while it is read"
        raise _unreadable(path, venv, why) from error
    except OSError as error:
        why = "it is a directory" if os.path.isdir(path) else str(error.strerror).lower()
        raise _unreadable(path, venv, why) from error
    if content.stamp.size > _LARGEST_INPUT:
        raise _unreadable(path, venv, f"it is larger than {_LARGEST_INPUT >> 20} MiB")
    return content.data


def _unreadable(path: str, venv: str, why: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"cannot read {shown(path)}: {why}",
        where=venv,
        state="The venv and its key are as they were.",
        hint="Mend that file, or change locks: in the config.",
    )
