"""``venvflow store``: puts one venv into the store, outside doit; also one that another tool made."""

from __future__ import annotations

import argparse
import os
from typing import Any

from venvflow.cli.arguments import Parser, add_venvs
from venvflow.cli.operands import serve_each
from venvflow.cli.render import NO_OUTCOME, Output, show_outcome
from venvflow.cli.venv_states import StoreView, state_of
from venvflow.disk.interpreters import python_of
from venvflow.errors import EnvironmentFailure, LockTimeout, Refused, some
from venvflow.flow import Flow, load
from venvflow.postinstall import minor
from venvflow.pure.units import counted
from venvflow.state.reader import open_reader
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.job import Job
from venvflow.steps.lockfile_check import contradictions
from venvflow.steps.share import interpreter_of
from venvflow.steps.squish import squish
from venvflow.steps.state_files import KeyRecord, need_key
from venvflow.steps.store import store
from venvflow.steps.take import lacks
from venvflow.steps.trim import trim

MORE = """\
The venv may be made by any tool: its files are shared with the store, and the next
restore with the same lock files, Python and settings brings it back. Then the trim policy is
applied, as doit does it, if snapshots came or went since."""
EXAMPLE = """\
venvflow restore api || (python -m venv .venv &&
    .venv/bin/pip install -r requirements.txt && venvflow store api)"""


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    add_venvs(parser)
    parser.add_argument(
        "--force", action="store_true", help="even if it is not what its lock files or its RECORDs say"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Squish and store the venvs, then trim; 0 or an error.

    JSON: ``venvs``, each as :func:`~venvflow.cli.render.show_outcome` has it.
    """

    def serve(job: Job) -> tuple[dict[str, Any], int]:
        return _store(job, out), 0

    code = serve_each(args, out, serve, force=args.force, otherwise=NO_OUTCOME)
    if not code:
        _trim(load(args.work_dir, os.environ, explicit=args.config), out)
    return code


def _trim(flow: Flow, out: Output) -> None:
    """Apply the policy of the config; while others use the store, that is left to a later run."""
    if flow.is_trimmed():
        return
    try:
        trimmed = trim(flow.config, flow.environ, now=flow.now(), say=out.say, waits=False)
    except LockTimeout:
        return
    if trimmed.plan.drop:
        out.say(f"trim dropped {len(trimmed.plan.drop)} of {counted(len(trimmed.snapshots), 'snapshot')}")
    for problem in trimmed.plan.problems:
        out.warn(problem)


def _store(job: Job, out: Output) -> dict[str, Any]:
    _need_venv(job)
    hashed = hash_lockfiles(job)
    record = need_key(job)
    _refuse_other_python(job, record)
    interpreter_of(job)  # without one, every restore would be a miss
    receipt = job.place.receipt()
    if not job.force and (receipt is None or not receipt.is_for(record.key.digest, job.place.path)):
        _refuse_unlike(job, record)
    edits = _edits(job, record)
    squished = squish(job, any_venv=True)
    outcome = store(job)
    warnings = [*hashed.warnings, *edits, *squished.warnings]
    return show_outcome(out, job.spec.name, record.key.digest, outcome, warnings)


def _need_venv(job: Job) -> None:
    """Raise unless there is a venv at its place, made by any tool."""
    state = job.place.state()
    if state in ("absent", "empty"):
        raise EnvironmentFailure(
            "there is no venv to store",
            where=job.where,
            state="Nothing was changed.",
            hint=f'Make it there first, or let "{job.doit}" build it.',
        )
    job.place.refuse_unless_replaceable(state)


def _refuse_unlike(job: Job, record: KeyRecord) -> None:
    """Raise Refused for a venv whose packages are not those of the locks: every checkout would get them."""
    missing = lacks(job, record)
    unlike = [*contradictions(job), *([f"it lacks {some(missing, 4)}"] if missing else [])]
    if unlike:
        raise Refused(
            f"the venv is not what its lock files say: {some(unlike, 5, '; ')}",
            where=job.where,
            state="Nothing was stored.",
            hint="Install what the locks say, let doit build it, or store it all the same with --force.",
        )


def _refuse_other_python(job: Job, record: KeyRecord) -> None:
    """Raise Refused when the venv runs on another Python than the key says: every restore would be wrong."""
    found, wanted = python_of(job.place.path), record.interpreter.version
    if found and not _same_release(found, wanted):
        raise Refused(
            f"the venv runs on Python {found}, but its key is for Python {wanted}",
            where=job.where,
            state="Nothing was stored.",
            hint=f'Make it with Python {wanted}, or set python: "{minor(found)}" for it in the config.',
        )


def _same_release(found: str, wanted: str) -> bool:
    """Compare versions as far as both go: ``3.11.4.final.0`` and ``3.11.4`` are the same release."""
    pair = zip(found.split(".")[:3], wanted.split(".")[:3], strict=False)
    return all(ours == theirs for ours, theirs in pair)


def _edits(job: Job, record: KeyRecord) -> list[str]:
    """Return a warning when a shared venv was changed by hand since: its snapshot is without that."""
    receipt = job.place.receipt()
    if receipt is None or not receipt.is_shared_for(record.key.digest):
        return []

    with open_reader(job.config.store) as store:
        judged = state_of(job, StoreView(store))
    if judged.state != "changed by hand":
        return []
    return [f"{judged.reason}; that is not in the snapshot: put it into the lock file"]
