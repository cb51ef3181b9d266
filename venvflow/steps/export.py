"""``export``: makes a copy of the venv that works elsewhere on this machine, without an archive."""

from __future__ import annotations

import os
import time
from functools import partial

from venvflow import postinstall
from venvflow.disk import archive
from venvflow.disk.export import PRIVATE
from venvflow.disk.export import export as write_export
from venvflow.disk.links import prevailing
from venvflow.disk.scratch import refuse_inside
from venvflow.errors import EnvironmentFailure, shown
from venvflow.model import LinkMode, Outcome
from venvflow.steps.job import Job
from venvflow.steps.pack_source import pack_source

LINKED: tuple[LinkMode, ...] = ("hardlink", "reflink", "copy")
"""How files are given to an export that may share them with the store."""


def export(
    job: Job,
    destination: str,
    *,
    hardlink: bool = False,
    python: str = "",
    progress: archive.Progress | None = None,
) -> Outcome:
    """Make the job's venv at *destination*, from its manifest, as unpacking its archive would.

    Its files are private copies, or reflinks, unless *hardlink* lets it share them with the store. *python*
    is the interpreter to use instead of the one that the venv was made for. Answers ``exported``.

    *destination* must not exist, or be an empty directory. All or nothing; raises Refused for a destination
    that is taken or lies in the venv or the store, and EnvironmentFailure.
    """
    place = os.path.abspath(destination)
    start = time.monotonic()
    with pack_source(job) as source:
        refuse_inside(place, {"the venv": job.place.path, "the store": source.store.path})
        manifest, left_out = source.manifest(), source.left_out()
        exported = write_export(
            source.portable(manifest),
            source,
            place,
            description=source.description(manifest),
            modes=LINKED if hardlink and not source.store.untrusted else PRIVATE,
            finish=partial(_complete, job, place, python or source.record.interpreter.executable),
            progress=progress,
        )
    figures: dict[str, int | float | str] = {
        "entries": exported.entries,
        "bytes": exported.size,
        "link": prevailing(exported.modes) or "copy",
        "seconds": time.monotonic() - start,
    }
    return Outcome("exported", place, figures, (*left_out, *exported.warnings))


def _complete(job: Job, place: str, python: str, staging: str) -> None:
    """Fill in all local paths for *place*, where *staging* is about to go."""
    try:
        postinstall.complete(staging, place=place, project=job.root, python=python)
    except postinstall.Problem as problem:
        raise EnvironmentFailure(
            str(problem),
            where=shown(place),
            state="Nothing was exported.",
            hint="Fix that, or build the venv anew, then export it again.",
        ) from problem
