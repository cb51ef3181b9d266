"""``hash-lockfiles``: computes the key from lock files, interpreter and config."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from venvflow import builders
from venvflow.disk import interpreters
from venvflow.errors import UsageError, VenvflowError, some
from venvflow.model import Outcome
from venvflow.pure.keys import make_key, part_names, parts_of
from venvflow.steps.job import Job
from venvflow.steps.key_inputs import fingerprint, still_holds
from venvflow.steps.state_files import InputFile, KeyRecord, read_key, write_key

_MOST_NAMED = 3
"""How many files that changed are named."""


@dataclass(frozen=True, slots=True)
class KeyNow:
    """The key of a venv: as it was *noted* by the last run, and as it is *now*.

    One of *now* and *problem* is None: a lock file cannot be read, or an interpreter or builder is not there.
    """

    noted: KeyRecord | None
    now: KeyRecord | None
    problem: VenvflowError | None = None

    def others_changed(self, venv: str) -> str:
        """Return in words which lock files changed in nothing that is for *venv*, empty if none did."""
        if self.noted is None or self.now is None or self.noted.key.digest != self.now.key.digest:
            return ""
        before = self.noted.inputs
        changed = [
            os.path.basename(path)
            for path, file in self.now.inputs.items()
            if path in before and before[path].digest != file.digest
        ]
        return f"{some(changed, _MOST_NAMED)} changed, not for {venv}" if changed else ""


def hash_lockfiles(job: Job) -> Outcome:
    """Compute the key of the job's venv and leave it in ``key.json``.

    Raises UsageError for a file that the config lists and that is missing, EnvironmentFailure for one that
    cannot be read and for an interpreter that cannot be found, Refused as working on the venv is.
    """
    start = time.monotonic()
    job.refuse_unsafe()
    before = read_key(job)
    _refuse_missing_files(job)
    if before is not None and still_holds(job, before):  # then the interpreter need not be asked again
        return Outcome("same", before.key.digest[:12], {"files": len(before.inputs)})
    record = compute_key(job)
    write_key(job, record)
    figures: dict[str, int | float | str] = {"files": len(record.inputs)}
    if before is None or before.key.digest != record.key.digest:
        outcome = Outcome("new", record.key.digest[:12], figures, record.warnings)
        from venvflow.steps.noting import note_later  # noqa: PLC0415 - many ask for a key, few for a new one

        note_later(job, "hash-lockfiles", outcome, time.monotonic() - start)
        return outcome
    # What there is to say of these files was said when they were new.
    if others := KeyNow(before, record).others_changed(job.spec.name):
        return Outcome("unaffected", others)
    return Outcome("same", record.key.digest[:12], figures)


def compute_key(job: Job) -> KeyRecord:
    """Return the key of the job's venv as things are now; writes nothing. Raises as the step does."""
    _refuse_missing_files(job)
    try:
        recipe = builders.choose(job.spec, job.environ)
        interpreter = interpreters.resolve(job.spec.python, root=job.root, environ=job.environ)
    except VenvflowError as error:
        error.where = error.where or job.spec.name
        raise
    from venvflow.steps.gathering import gather  # noqa: PLC0415 - a key that still holds reads nothing of this

    gathered = gather(job, recipe, interpreter)
    first = {}
    if any("{lock}" in word for words in recipe.commands for word in words) and len(job.spec.locks) > 1:
        first = {"first-lock": gathered.digests[job.spec.locks[0]]}
    key = make_key(
        parts_of(
            job.spec,
            interpreter,
            builder=recipe.name,
            commands=recipe.commands,
            inputs=gathered.inputs.values(),
            environ=job.environ,
        )
        | first
    )
    names = part_names(gathered.inputs)
    inputs = {path: InputFile(names[path], digest) for path, digest in gathered.digests.items()}
    seen = fingerprint(job, recipe, gathered.digests.values(), interpreters.identity(interpreter))
    return KeyRecord(key, interpreter, inputs, seen, tuple(gathered.warnings))


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
