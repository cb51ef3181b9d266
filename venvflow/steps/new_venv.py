"""A new venv, restored or built beside its place: runs its check, then puts it in its place."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from venvflow.builders.environment import child_environment
from venvflow.disk import processes
from venvflow.disk.descriptors import directory
from venvflow.disk.kernel import sync_file_system
from venvflow.disk.places import write_receipt
from venvflow.disk.scan import walk
from venvflow.disk.system_errors import explained
from venvflow.errors import shown
from venvflow.model import Receipt
from venvflow.pure.redaction import redactor, secrets_of
from venvflow.state.store import Store
from venvflow.steps.facts import find_venv, why_not_replaced
from venvflow.steps.job import Job

CHECK_SECONDS = 300
"""How long a venv's ``check`` may take."""


def check_new(job: Job, venv: str) -> str:
    """Run the venv's ``check`` by its own interpreter; return what is wrong, or an empty string."""
    python = f"{venv}/bin/python"
    if not os.access(python, os.X_OK):
        return "its interpreter is gone"
    if not job.spec.check:
        return ""
    before = {item.path for item in walk(venv)}
    wrong = _run_check(job, python, venv)
    _remove_new(venv, before)
    return wrong


def check_in_place(job: Job) -> str:
    """Run the ``check`` of a venv that is in its place, and may be in use: nothing is removed after it."""
    return _run_check(job, f"{job.place.path}/bin/python", job.place.path)


def _remove_new(venv: str, before: set[str]) -> None:
    """Delete what a check left in the staged venv: caches beside packages are not what the lock says."""
    for item in reversed(walk(venv)):
        if item.path not in before:
            (os.rmdir if item.kind == "dir" else os.unlink)(f"{venv}/{item.path}")


def _run_check(job: Job, python: str, venv: str) -> str:
    environ = {
        **child_environment(job.environ),
        "PYTHONDONTWRITEBYTECODE": "1",
        "VIRTUAL_ENV": venv,
    }
    try:
        argv = [python, *job.spec.check]
        status, output = processes.ask(argv, environ=environ, cwd=job.root, timeout=CHECK_SECONDS)
    except (OSError, TimeoutError) as error:
        return f"its check failed: {error}"
    if status == 0:
        return ""
    lines = output.strip().splitlines()
    said = redactor(secrets_of(environ))(lines[-1]) if lines else "no output"
    return f"its check {processes.in_words(status)}: {shown(said)}"


def unchanged(job: Job) -> str:
    """Return the sentence that says what is at the venv's place after a failure."""
    if os.path.lexists(job.place.path):
        return "The venv that was there before is unchanged."
    return "There was no venv before, and there is none now."


def errors_explained(job: Job) -> AbstractContextManager[None]:
    """Explain an error of the file system that comes while the new venv is made."""
    before = job.place.inode()

    def state() -> str:
        is_new = job.place.inode() != before
        return "The new venv is in its place." if is_new else "What is at its place is unchanged."

    return explained("cannot make the venv", at=job.place.path, state=state, venv=job.spec.name)


def put_in_place(job: Job, store: Store, venv: str, receipt: Receipt, *, ours: int | None = None) -> str:
    """Write the receipt of the staged *venv*, make everything durable and swap it in.

    Looks at the place once more: somebody may have put something there while the venv was made. *ours* is
    the inode of the venv that we made there before, if the store has registered the new one already.
    Returns the path to which a venv that was not ours was moved, or an empty string. Raises Refused.
    """
    write_receipt(venv, receipt)
    if job.config.store.durability == "full":
        with directory(venv) as fd:
            sync_file_system(fd)
    before = find_venv(job, store, "bytes", ours=ours)
    obstacle = why_not_replaced(job, before)
    if obstacle is not None:
        raise obstacle
    return job.place.swap_in(keep_old=before.there == "venv")
