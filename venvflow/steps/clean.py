"""What ``doit clean`` may remove: only what venvflow made."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from venvflow.errors import Refused
from venvflow.steps.facts import find_venv, why_not_replaced
from venvflow.steps.job import Job
from venvflow.steps.state_files import written_archives


def clean(job: Job, verb: str, left_behind: Iterable[str], *, dry_run: bool) -> list[str]:
    """Remove what the step *verb* left, the venv itself for ``build-venv``.

    Returns the paths of the venv and the archive; *left_behind* are names of small files, not worth a word.
    Raises Refused for a venv that was changed by hand. A venv that venvflow did not make is left alone, and
    so is an archive that is not the one that it wrote.
    """
    paths = [job.file(name) for name in left_behind]
    archives = written_archives(job) if verb == "pack" else []
    with job.locked():
        venv = _venv(job) if verb == "build-venv" else []
        if venv and not dry_run:
            job.place.remove()
    if not dry_run:
        for path in archives + paths:
            with suppress(FileNotFoundError):
                os.unlink(path)
    return venv + archives


def _venv(job: Job) -> list[str]:
    if not os.path.lexists(job.place.path):
        return []
    with job.open_store() as store, store.use():
        job.place.settle()
        venv = find_venv(job, store, "bytes")
    if venv.receipt is None:
        return []
    obstacle = why_not_replaced(job, venv)
    if obstacle is not None:
        raise obstacle
    if not venv.receipt.is_at(job.place.path):
        raise Refused(
            "the venv was moved here",
            where=job.place.path,
            state="It was left as it is.",
            hint="Run doit, which makes it anew for this place, or delete it yourself.",
        )
    return [job.place.path]
