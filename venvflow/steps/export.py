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
from venvflow.errors import EnvironmentFailure, UsageError, shown
from venvflow.model import LinkMode, Outcome
from venvflow.pure.parts import Layers, with_rest
from venvflow.steps.job import Job
from venvflow.steps.pack_source import ALL, Choice, Warned, pack_source, refuse_warnings

LINKED: tuple[LinkMode, ...] = ("hardlink", "reflink", "copy")
"""How files are given to an export that may share them with the store."""


def export(
    job: Job,
    destination: str,
    *,
    below: str = "",
    hardlink: bool = False,
    python: str = "",
    progress: archive.Progress | None = None,
    choice: Choice = ALL,
    strict: bool = False,
    replace: bool = False,
    dest_prefix: str = "",
    in_layers: bool = False,
) -> Outcome:
    """Make the job's venv at *destination*, from its manifest, as unpacking its archive would.

    Its files are private copies, or reflinks, unless *hardlink* lets it share them with the store. *python*
    is the interpreter to use instead of the one that the venv was made for. Answers ``exported``, or
    ``warned`` (*strict*: there are warnings, so nothing was written).

    With *dest_prefix* it will be at that place, maybe on another machine, where nothing is looked at.
    *in_layers*: *destination* gets a numbered directory for each layer of the config's ``pack:``; together
    they are the venv.

    *destination*, whose fields (:mod:`venvflow.pure.names`) are filled in, is relative to *below*. It must
    not exist, be an empty directory, or an older export that is to be *replaced*. All or nothing; raises
    Refused for a destination that is taken, has venv or store in it, or lies in one of them, and
    EnvironmentFailure.
    """
    layers = _layers(job) if in_layers else ()
    with pack_source(job, choice) as source:
        if "{" in destination:
            destination = source.filled_name(destination, source.manifest())
        place = os.path.abspath(os.path.join(below, destination))
        refuse_inside(place, source.apart())
        for what, path in source.apart().items():
            refuse_inside(path, {f"{shown(place)}, where {what} is": place})
        manifest, left_out = source.manifest(), source.left_out()
        interpreter = python or source.python.executable
        if not dest_prefix:
            interpreter = os.path.realpath(interpreter)
        with source.reading():
            try:
                exported = write_export(
                    source.portable(manifest),
                    source,
                    place,
                    description=source.description(manifest),
                    modes=LINKED if hardlink and source.may_be_linked else PRIVATE,
                    python=interpreter,
                    finish=partial(
                        _complete,
                        dest_prefix or place,
                        "" if dest_prefix else job.root,
                        interpreter,
                        anywhere=bool(dest_prefix),
                    ),
                    progress=progress,
                    accept=refuse_warnings(left_out) if strict else archive.accept_any,
                    replace=replace,
                    layers=layers,
                )
            except Warned as warned:
                return Outcome("warned", place, warnings=warned.warnings)
    figures: dict[str, int | float | str] = {
        "entries": exported.entries,
        "bytes": exported.size,
        "link": prevailing(exported.modes) or "copy",
        "seconds": time.monotonic() - source.begun,
    }
    return Outcome("exported", place, figures, (*left_out, *exported.warnings))


def _layers(job: Job) -> Layers:
    """Return the layers that the config asks for; raises UsageError if it asks for none."""
    if job.spec.pack is None or not job.spec.pack.layers:
        raise UsageError(
            "no layers are known",
            where=job.where,
            state="Nothing was exported.",
            hint='Give the venv some in the config, such as pack: {layers: [["torch", "nvidia-*"]]}.',
        )
    return with_rest(job.spec.pack.layers)


def _complete(place: str, project: str, python: str, staging: str, *, anywhere: bool) -> None:
    """Fill in all local paths for *place*, where *staging* is about to go; maybe *anywhere* else."""
    try:
        postinstall.complete(staging, place=place, project=project, python=python, force=anywhere)
    except postinstall.Problem as problem:
        raise EnvironmentFailure(
            str(problem),
            where=shown(place),
            state="Nothing was exported.",
            hint="Fix that, or build the venv anew, then export it again.",
        ) from problem
