"""Takes a venv that is what its lock says, whoever made it so: it is shared and remembered, not built.

What lies in it beyond the lock stays in it, and is told as a change by hand is.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from venvflow import builders
from venvflow.builders.agreement import Agreement, agreement, lacking
from venvflow.builders.build import Build
from venvflow.builders.commands import filled
from venvflow.disk import locks, processes
from venvflow.disk.descriptors import READ, opened
from venvflow.disk.files import read_small
from venvflow.errors import VenvflowError
from venvflow.model import Outcome, Receipt, Remembered
from venvflow.pure.relocate import Places, Template
from venvflow.state.confidential import withhold
from venvflow.state.intake import bytecode_of
from venvflow.state.store import Store
from venvflow.state.survey import Survey, survey
from venvflow.steps.gathering import packages_of
from venvflow.steps.job import Job
from venvflow.steps.lock_part import LockPart, NotTheLocks, Wanted, lock_part
from venvflow.steps.new_venv import check_in_place, same_inputs
from venvflow.steps.noting import changed, packages_at
from venvflow.steps.share import share, survey_venv
from venvflow.steps.state_files import KeyRecord, stamp_of

_SECONDS = 60
"""How long the command may take that makes a new venv."""

_PATIENCE = 10.0
"""Seconds to wait for uv, which locks a venv while it works in it."""


def agrees(job: Job, record: KeyRecord) -> Agreement | None:
    """Return how the venv at the job's place agrees with its lock, None if it does not. Changes nothing."""
    build = _build(job, record, job.place.path)
    return agreement(build) if build is not None and job.spec.bytecode != "keep" else None


def lacks(job: Job, record: KeyRecord) -> list[str]:
    """Return the names of what its lock asks for, and what the venv at the job's place lacks, if known."""
    build = _build(job, record, job.place.path)
    return lacking(build) if build is not None else []


def _build(job: Job, record: KeyRecord, venv: str) -> Build | None:
    try:
        recipe = builders.choose(job.spec, job.environ)
    except VenvflowError:
        return None
    return Build(job.spec, recipe, job.root, venv, record.interpreter, job.environ, os.devnull)


def take(job: Job, store: Store, record: KeyRecord) -> Outcome | None:
    """Take the venv at the job's place if it is what its lock says: ``taken``; None if it is not.

    Venv and store are held by the caller. Raises EnvironmentFailure when the lock files change meanwhile, and
    as :func:`venvflow.steps.share.share` does; every file of the venv holds what it held then.
    """
    try:
        with same_inputs(job, record):
            part = _lock_part(job, store, record)
        with _without_uv(job.place.path):
            outcome = _share(job, store, record, part)
    except NotTheLocks:
        return None
    return outcome


def _lock_part(job: Job, store: Store, record: KeyRecord) -> LockPart:
    """Ask, read the venv, and return what of it is the lock's. Raises NotTheLocks."""
    venv = job.place.path
    before = _distributions(venv)
    agreed = agrees(job, record)
    if agreed is None:
        raise NotTheLocks("it is not what its lock says")
    pristine = _pristine(job, record)
    surveyed = survey_venv(job, record.interpreter, {})
    if _distributions(venv) != before:
        raise NotTheLocks("a tool is at work in it")
    listed = packages_of(job, record).values()
    wanted = Wanted(
        agreed.beyond,
        _seeds(job, record),
        frozenset(name for each in listed for name in each),
        pristine,
        job.matcher,
        frozenset(store.index.bytecode(bytecode_of(record.interpreter))),
    )
    part = lock_part(venv, surveyed, store, wanted)
    withheld = withhold(venv, surveyed, store.path, whole=True)
    if withheld.digests:
        raise NotTheLocks(f"{min(withheld.digests)} is not for others")
    wrong = check_in_place(job) if job.spec.check else ""
    if wrong:
        raise NotTheLocks(wrong)
    return part


def _seeds(job: Job, record: KeyRecord) -> frozenset[str]:
    """Return what the command brings that a build begins with: only pip's has anything in it."""
    if builders.choose(job.spec, job.environ).name != "pip":
        return frozenset()
    has_setuptools = tuple(map(int, record.interpreter.version.split(".")[:2])) < (3, 12)
    return frozenset({"pip", "setuptools"} if has_setuptools else {"pip"})


def _distributions(venv: str) -> dict[str, tuple[int, ...]]:
    """Return how the directories look in which installers note what they did."""
    pattern = f"{glob.escape(venv)}/lib/*/site-packages/*.dist-info"
    return {path: stamp_of(path) for path in glob.glob(pattern)}


def _pristine(job: Job, record: KeyRecord) -> Survey:
    """Return what a new venv has in it, made by the command that a build begins with, without its seeds."""
    with job.place.staged() as venv:
        build = _build(job, record, venv)
        assert build is not None  # noqa: S101 - the venv agrees by it
        command = build.recipe.commands[0]
        if "--without-pip" not in command and "-m" in command:
            command = (*command[:-1], "--without-pip", command[-1])
        status, _ = processes.ask(filled(command, build), environ=build.variables, timeout=_SECONDS)
        if status:
            raise NotTheLocks("no new venv can be made to compare it with")
        found = survey(venv, Places(venv, job.root, record.interpreter.executable), fresh=True)
        for path, entry in found.entries.items():
            if entry.kind == "file":
                found.templates[path] = Template(read_small(f"{venv}/{path}"), ())
        return found


@contextmanager
def _without_uv(venv: str) -> Iterator[None]:
    """Keep uv from working in the venv meanwhile, by its own lock; raises NotTheLocks if it is at work."""
    with ExitStack() as stack:
        with suppress(FileNotFoundError):
            if not locks.hold(stack.enter_context(opened(f"{venv}/.lock", READ)), _PATIENCE):
                raise NotTheLocks("uv is at work in it")
        yield


def _share(job: Job, store: Store, record: KeyRecord, part: LockPart) -> Outcome:
    """Share what is the lock's, and say what is not."""
    receipt = Receipt(record.key.digest, job.place.path, "built", "taken", record.interpreter.executable)
    before = packages_at(job, store)
    shared = share(job, store, receipt, interpreter=record.interpreter, part=part)
    after = {each.name: each.version for each in part.survey.distributions}
    warnings = shared.warnings
    if part.beyond:
        beyond = f"beyond the lock ({part.beyond}): left in this venv, and not stored. {job.ways_out}"
        warnings = (*warnings, beyond)
    return replace(
        shared,
        did="taken",
        reason=f"{part.made_by} made it what its lock says",
        warnings=warnings,
        remembered=Remembered(packages=changed(before, after)),
    )
