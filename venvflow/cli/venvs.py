"""The state of a venv, found without changing anything: by stat, and by reading small files."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from venvflow.cli.glance import Glance
from venvflow.errors import EnvironmentFailure, shown
from venvflow.inputs import key_is_current
from venvflow.job import Job
from venvflow.places import Place, Receipt
from venvflow.records import read_key
from venvflow.scan import walk
from venvflow.steps.drift import Drift, drift_of
from venvflow.steps.replace import matcher_of
from venvflow.witness import witness_of

State = Literal[
    "up to date",
    "not built",
    "lock changed",
    "lock missing",
    "changed by hand",
    "damaged",
    "not ours",
    "in the way",
    "not checked",
]
"""What can be said of a venv; see :func:`judge`."""

_OBSTACLES = {
    "symlink": "there is a symlink at its path",
    "file": "there is a file at its path",
    "mount": "its path is a mount point",
    "stranger": "the directory at its path is no venv",
    "other-owner": "the directory at its path belongs to another user",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A venv's state in words, why it is so where that helps, and its receipt if it has one."""

    state: State
    reason: str = ""
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to know of the venv itself.

    *python* is its full version, empty where there is no venv; *packages* counts distributions; *size* is in
    bytes, as the files appear; *used* is when venvflow last made or stored it, in seconds since 1970.
    """

    python: str
    packages: int | None
    size: int | None
    used: float | None


def judge(job: Job, store: Glance | None) -> Judged:
    """Return the state of the job's venv.

    ``up to date``, ``not built``, ``lock changed`` (or config, or interpreter, since it was made),
    ``lock missing``, ``changed by hand`` (something would be lost if it were replaced), ``damaged`` (files
    are gone), ``not ours`` (another tool made it), ``in the way`` (what is there is no venv), and ``not
    checked``: it is whole, but its key has yet to be computed.
    """
    place = job.place
    registration = store.registration(place.path) if store is not None else None
    try:
        state = place.state(registration.inode if registration is not None else None)
    except EnvironmentFailure as error:
        return Judged("in the way", error.what)
    if state in ("absent", "empty"):
        return _absent(place)
    if state in _OBSTACLES:
        return Judged("in the way", _OBSTACLES[state])
    if state == "venv":
        return Judged("not ours", f'made by another tool; "venvflow store {job.spec.name}" would share it')
    receipt = place.receipt()
    if receipt is None:
        return Judged("damaged", "its receipt is gone")
    return _of_ours(job, store, receipt)


def _absent(place: Place) -> Judged:
    if os.path.lexists(place.staging):
        return Judged("not built", "a run is at work, or was killed: the next one settles what it left")
    return Judged("not built")


def _of_ours(job: Job, store: Glance | None, receipt: Receipt) -> Judged:
    if receipt.path != job.place.path:
        return Judged("damaged", f"it was made for {shown(receipt.path)} and moved here", receipt)
    drift = _drift(job, store, receipt)
    if drift.by_hand:
        return Judged("changed by hand", str(drift), receipt)
    missing = [path for path in (*job.spec.locks, *job.spec.key_files) if not os.path.exists(path)]
    if missing:
        return Judged("lock missing", f"{shown(missing[0])} is gone", receipt)
    outdated = _outdated(job, receipt)
    if outdated is not None:
        return outdated
    if drift.missing or not os.path.exists(f"{job.place.path}/bin/python"):
        return Judged("damaged", str(drift) or "its interpreter is gone", receipt)
    return Judged("up to date", "" if receipt.state == "shared" else "not shared yet", receipt)


def _drift(job: Job, store: Glance | None, receipt: Receipt) -> Drift:
    """Return what was changed by hand: files are looked at one by one only where the venv looks changed."""
    if store is None or (job.place.untouched(receipt) and _looks_as_made(job, receipt)):
        return Drift()
    with suppress(EnvironmentFailure):
        return drift_of(job.place.path, receipt, store, matcher_of(job))
    return Drift(missing=(".",))


def _looks_as_made(job: Job, receipt: Receipt) -> bool:
    """Return whether all files have the sizes and times that they had, which an edit in place changes."""
    with suppress(EnvironmentFailure):
        return witness_of(walk(job.place.path)) == receipt.witness
    return False


def _outdated(job: Job, receipt: Receipt) -> Judged | None:
    """Return the state of a venv that was not made for the key as it is now, or None."""
    record = read_key(job)
    if record is None:
        return Judged(
            "not checked", f'its key is not known; run "doit hash-lockfiles:{job.spec.name}"', receipt
        )
    if not key_is_current(job) or record.key.digest != receipt.key:
        return Judged("lock changed", "its lock files, settings or Python changed since it was made", receipt)
    return None


# --------------------------------------------------------------------------- facts


def facts_of(job: Job, store: Glance | None, receipt: Receipt | None) -> Facts:
    """Return what there is to know of the job's venv, changed or not."""
    venv = job.place.path
    if os.path.islink(venv) or not os.path.lexists(f"{venv}/pyvenv.cfg"):
        return Facts("", None, None, None)
    registration = store.registration(venv) if store is not None else None
    return Facts(
        python_of(venv),
        _packages(venv),
        _size(job, store, receipt),
        registration.seen if registration is not None else None,
    )


def python_of(venv: str) -> str:
    """Return the version in the venv's ``pyvenv.cfg``; empty if it says none."""
    try:
        with open(f"{venv}/pyvenv.cfg", encoding="utf-8", errors="replace") as file:
            text = file.read(65_536)
    except OSError:
        return ""
    # Some tools write their own version as "version", and Python's as "version_info".
    for name in ("version_info", "version"):
        found = re.search(rf"^{name}\s*=\s*([0-9]+(?:\.[0-9]+)+[a-z0-9]*)", text, re.MULTILINE)
        if found:
            return found[1]
    return ""


def _packages(venv: str) -> int:
    """Return how many distributions the venv has, without reading any."""
    marks = (".dist-info", ".egg-info")
    count = 0
    for name in _names(f"{venv}/lib"):
        if name.startswith("python"):
            count += sum(each.endswith(marks) for each in _names(f"{venv}/lib/{name}/site-packages"))
    return count


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _size(job: Job, store: Glance | None, receipt: Receipt | None) -> int | None:
    """Return the bytes of the venv's files: from its snapshot if that has them, else by a walk."""
    if store is not None and receipt is not None:
        snapshot = store.find(receipt.key, job.position)
        if snapshot is not None and snapshot.trees == receipt.trees:
            return snapshot.size
    with suppress(EnvironmentFailure):
        return sum(item.stamp.size for item in walk(job.place.path) if item.kind == "file")
    return None
