"""Checks whether a venv that another tool made is what its lock files say, before ``store`` publishes it."""

from __future__ import annotations

import glob
import os

from venvflow.pure.comparison import allows, seeds_among
from venvflow.pure.lockfiles import packages, references
from venvflow.pure.manifest import name_and_version
from venvflow.pure.names import normalised
from venvflow.steps.job import Job
from venvflow.steps.key_inputs import read_input


def contradictions(job: Job) -> list[str]:
    """Return how the installed distributions contradict the lock files, one short phrase each.

    A version other than the pinned one counts, and, if the locks pin all that is installed, a distribution
    that they do not name. One that is missing does not: locks are made for several platforms. Raises
    EnvironmentFailure when a lock cannot be read.
    """
    pinned: dict[str, str] = {}
    complete = not job.spec.editable
    for path in job.spec.locks:
        data = read_input(path, job.spec.name)
        pinned |= packages(path, data)
        found = references(path, data)
        complete = complete and not (found.includes or found.local or found.unpinned)
    complete = complete and bool(pinned)
    installed = _installed(job.place.path)
    seeds = seeds_among(installed.keys()) if complete else installed.keys()
    return [
        phrase
        for name, version in sorted(installed.items())
        if (phrase := _contradiction(name, version, pinned.get(name, ""), is_meant=name in seeds))
    ]


def _contradiction(name: str, version: str, pinned: str, *, is_meant: bool) -> str:
    if pinned and not allows(pinned, version):
        return f"{name} {version} instead of {pinned}"
    return "" if pinned or is_meant else f"{name} {version}, which no lock names"


def _installed(venv: str) -> dict[str, str]:
    """Return name and version of every distribution of the venv, by the names of their directories."""
    pattern = os.path.join(glob.escape(venv), "lib", "python*", "site-packages", "*.dist-info")
    found = (name_and_version(f"{directory}/RECORD") for directory in glob.glob(pattern))
    return {normalised(name): version for name, version in found}
