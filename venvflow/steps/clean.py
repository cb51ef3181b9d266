"""What ``doit clean`` may remove: only what venvflow made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from venvflow.errors import Refused
from venvflow.job import Job
from venvflow.records import archive_path
from venvflow.steps.replace import look_at, refuse_to_lose


def removable(job: Job, verb: str, left_behind: Iterable[str]) -> Iterator[str]:
    """Yield the paths that the step *verb* left, the venv itself for ``build-venv``.

    Raises Refused for a venv that was changed by hand. A venv that venvflow did not make is left alone.
    """
    if verb == "build-venv":
        yield from _venv(job)
    if verb == "pack" and job.spec.pack is not None:
        archive = archive_path(job, job.spec.pack)
        yield from (
            path for path in (archive, f"{archive}.sha256", f"{archive}.json") if os.path.lexists(path)
        )
    yield from (path for name in left_behind if os.path.lexists(path := job.file(name)))


def _venv(job: Job) -> Iterator[str]:
    if not os.path.lexists(job.place.path):
        return
    with job.locked(), job.open_store() as store, store.use():
        present = look_at(job, store)
        if present.receipt is None:
            return
        refuse_to_lose(job, store, present)
    if present.receipt.path != job.place.path:
        raise Refused("the venv was moved here", where=job.place.path, state="It was left as it is.")
    yield job.place.path
