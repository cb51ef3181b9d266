"""The files whose bytes are in a key: reading them, and seeing without running anything that none changed."""

from __future__ import annotations

import hashlib
import json
import os

from venvflow import builders, interpreters
from venvflow.errors import EnvironmentFailure, shown
from venvflow.job import Job
from venvflow.model import FORMAT
from venvflow.records import read_key
from venvflow.scan import Changing, read

LARGEST = 256 << 20
"""Bytes of the largest file that may be in a key."""


def key_is_current(job: Job) -> bool:
    """Return whether ``key.json`` still holds: the same files are read again, nothing is run.

    Files are always read, whatever their mtime says: an edit that keeps it would otherwise go unseen.
    """
    record = read_key(job)
    if record is None:
        return False
    try:
        plan = builders.choose(job.spec, job.environ)
        identity = interpreters.identity(record.interpreter)
        return identity != "" and record.fingerprint == fingerprint(job, plan, record.inputs, identity)
    except EnvironmentFailure:
        return False  # a file or a builder is gone: running the step will say which


def fingerprint(job: Job, plan: builders.Plan, paths: tuple[str, ...], interpreter: str) -> str:
    """Return a hash of all that decides the key: *paths* by their bytes, *interpreter* by its identity."""
    spec = job.spec
    seen = [
        FORMAT, spec.python, spec.locks, spec.key_files, spec.exclude, spec.bytecode, plan.name,
        plan.commands, plan.inputs, interpreter, [(name, job.environ.get(name)) for name in spec.key_env],
        [hashlib.sha256(read_input(path, spec.name)).hexdigest() for path in paths],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(seen).encode("ascii")).hexdigest()


def read_input(path: str, venv: str) -> bytes:
    """Return the bytes of a regular file, whole and unchanged while it was read; never waits for a FIFO.

    Raises EnvironmentFailure that names *venv*, the file and the reason.
    """
    try:
        # A lock file may be a link to the one that several projects share: nothing is written through it.
        content = read(os.path.realpath(path), keep=LARGEST)
    except Changing as error:
        raise _unreadable(path, venv, "it keeps changing while it is read") from error
    except OSError as error:
        why = "it is a directory" if os.path.isdir(path) else str(error.strerror).lower()
        raise _unreadable(path, venv, why) from error
    if content.stamp.size > LARGEST:
        raise _unreadable(path, venv, f"it is larger than {LARGEST >> 20} MiB")
    return content.data


def _unreadable(path: str, venv: str, why: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"cannot read {shown(path)}: {why}",
        where=venv,
        state="The venv and its key are as they were.",
        hint="Mend that file, or change locks: in the config.",
    )
