"""A new venv, restored or built beside its place: runs its check, then puts it in its place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from venvflow.builders.environment import child_environment
from venvflow.disk import processes
from venvflow.disk.descriptors import directory
from venvflow.disk.kernel import sync_file_system
from venvflow.disk.places import write_receipt
from venvflow.disk.scan import walk
from venvflow.disk.system_errors import explained
from venvflow.errors import EnvironmentFailure, shown
from venvflow.model import Receipt
from venvflow.pure.redaction import redactor, secrets_of
from venvflow.state.store import Store
from venvflow.steps.facts import find_replaceable, why_not_replaced
from venvflow.steps.job import Job
from venvflow.steps.key_inputs import still_holds
from venvflow.steps.lock_part import is_bare
from venvflow.steps.state_files import KeyRecord, stamp_of

CHECK_SECONDS = 300
"""How long a venv's ``check``, or the code of a smoke test, may take."""


def check_new(job: Job, venv: str) -> str:
    """Run the venv's ``check`` by its own interpreter; return what is wrong, or an empty string."""
    if not os.access(f"{venv}/bin/python", os.X_OK):
        return "its interpreter is gone"
    if not job.spec.check:
        return ""
    before = {item.path for item in walk(venv)}
    wrong = _run_check(job, venv)
    _remove_new(venv, before)
    return wrong


def check_in_place(job: Job) -> str:
    """Run the ``check`` of a venv that is in its place, and may be in use: nothing is removed after it."""
    return _run_check(job, job.place.path)


def _remove_new(venv: str, before: set[str]) -> None:
    """Delete what a check left in the staged venv: caches beside packages are not what the lock says."""
    for item in reversed(walk(venv)):
        if item.path not in before:
            (os.rmdir if item.kind == "dir" else os.unlink)(f"{venv}/{item.path}")


def _run_check(job: Job, venv: str) -> str:
    try:
        status, said = run_python(venv, job.spec.check, job.environ, job.root)
    except (OSError, TimeoutError) as error:
        return f"its check failed: {error}"
    last = said.splitlines()[-1] if said else "no output"
    return f"its check {processes.in_words(status)}: {shown(last)}" if status else ""


def run_python(
    venv: str, words: Iterable[str], environ: Mapping[str, str], directory: str, **more: str
) -> tuple[int, str]:
    """Run the venv's own Python with *words*; return its exit status, and what it says without credentials.

    It sees what builders see of *environ*, and *more*. Raises ``OSError``, and ``TimeoutError``.
    """
    child = {**child_environment(environ), "PYTHONDONTWRITEBYTECODE": "1", "VIRTUAL_ENV": venv, **more}
    argv = [f"{venv}/bin/python", *words]
    status, said = processes.ask(argv, environ=child, cwd=directory, timeout=CHECK_SECONDS)
    return status, redactor(secrets_of(child))(said.strip())


def unchanged(job: Job) -> str:
    """Return the sentence that says what is at the venv's place after a failure."""
    if os.path.lexists(job.place.path):
        return "The venv that was there before is unchanged."
    return "There was no venv before, and there is none now."


@contextmanager
def same_inputs(job: Job, record: KeyRecord) -> Iterator[None]:
    """Raise EnvironmentFailure unless the lock files are those of the key, all through the block.

    What is published under a key must be what that key says, and a checkout of another branch takes less time
    than a build.
    """
    looks = [stamp_of(path) for path in record.inputs]
    _refuse_other_inputs(job, record)
    yield
    _refuse_other_inputs(job, record, same=looks == [stamp_of(path) for path in record.inputs])


def _refuse_other_inputs(job: Job, record: KeyRecord, *, same: bool = True) -> None:
    if not (same and still_holds(job, record)):
        raise EnvironmentFailure(
            "its lock files, or something else that its key is made of, changed meanwhile",
            where=job.spec.name,
            state=f"{unchanged(job)} Nothing was published.",
            hint="Run doit again: it builds what they say now.",
        )


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
    Returns the path to which a venv that was not ours was moved, or an empty string: one with nothing in it
    is no loss. Raises Refused.
    """
    write_receipt(venv, receipt)
    if job.config.store.durability == "full":
        with directory(venv) as fd:
            sync_file_system(fd)
    before = find_replaceable(job, store, ours=ours)
    obstacle = why_not_replaced(job, before)
    if obstacle is not None:
        raise obstacle
    return job.place.swap_in(keep_old=before.there == "venv" and not is_bare(job.place.path))
