"""The files whose bytes are in a key: reads them, and sees without running anything whether any changed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from venvflow import builders
from venvflow.disk import interpreters
from venvflow.disk.scan import Changing, read
from venvflow.errors import EnvironmentFailure, VenvflowError, shown
from venvflow.model import FORMAT
from venvflow.steps.job import Job
from venvflow.steps.state_files import KeyRecord

if TYPE_CHECKING:
    from venvflow.builders.inputs import Inputs

LARGEST = 256 << 20
"""Bytes of the largest file that may be in a key."""


def still_holds(job: Job, record: KeyRecord) -> bool:
    """Return whether the inputs of *record* are still what its key was made of; nothing is run.

    Each file is read in each run, whatever its mtime says: an edit that keeps it would otherwise go unseen.
    """
    try:
        recipe = builders.choose(job.spec, job.environ)
        identity = _identity(record.interpreter.executable)
        digests = [_digest_of(path, job.spec.name) for path in record.inputs]
        return identity != "" and record.fingerprint == fingerprint(job, recipe, digests, identity)
    except VenvflowError:
        return False  # a file or a builder is gone, or none fits: running the step will say which


@cache
def _identity(executable: str) -> str:
    """Return the interpreter's identity: asked for once in a run, however many venvs use it."""
    return interpreters.identity(executable)


@cache
def _machine() -> tuple[str, ...]:
    """Return what a C library or system upgrade changes: one checkout may be used from host and container."""
    system = os.uname()
    libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    return system.sysname, system.machine, libc or ""


def command_inputs(job: Job, recipe: builders.Recipe) -> Inputs | None:
    """Return what the commands that the config has for a venv name in the project, None without commands."""
    if recipe.name != "commands":
        return None
    from venvflow.builders.inputs import inputs_of  # noqa: PLC0415 - few venvs have commands

    return inputs_of(recipe.commands, job.config.root)


def fingerprint(job: Job, recipe: builders.Recipe, digests: Iterable[str], interpreter: str) -> str:
    """Return a hash of all that decides the key: files by their *digests*, *interpreter* by its identity."""
    spec, named = job.spec, command_inputs(job, recipe)
    seen = [
        FORMAT, spec.python, spec.locks, spec.key_files, spec.exclude, spec.bytecode, recipe.name,
        recipe.commands, recipe.inputs, interpreter, *_machine(), spec.python or sys.version,
        [(name, job.environ.get(name)) for name in spec.key_env],
        [*named.files, *named.projects, *named.directories] if named is not None else [],
        [*digests],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(seen).encode("ascii")).hexdigest()


def files_of(job: Job, record: KeyRecord) -> dict[str, tuple[str, bytes]]:
    """Return path and bytes of each file of the key, by the name of its part.

    A file that is not there any more, or not what the key was made of, is left out.
    """
    found = {}
    for path, (part, digest) in record.inputs.items():
        with suppress(EnvironmentFailure):
            data = read_input(path, job.spec.name)
            if _digest(data) == digest:
                found[part] = path, data
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_QUIET = 1.0
"""Seconds after which a file system's clock is sure to have ticked: what changes then gets another ctime."""

_digests: dict[tuple[int, ...], str] = {}
"""Digests of files that this run has read, by all that tells a file from what it was before."""


def _digest_of(path: str, venv: str) -> str:
    """Return the digest of a file, which is read once in a run: many venvs may have one lock file."""
    with suppress(OSError):
        found = os.stat(path)
        looks = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        if looks not in _digests:
            digest = _digest(read_input(path, venv))
            if time.time() - found.st_ctime < _QUIET:
                return digest
            _digests[looks] = digest
        return _digests[looks]
    return _digest(read_input(path, venv))  # which says what is wrong


def read_input(path: str, venv: str) -> bytes:
    """Return the bytes of a regular file, whole and unchanged while it was read; never waits for a FIFO.

    Raises EnvironmentFailure that names *venv*, the file and the reason.
    """
    try:
        # A lock file may be a link to one that several projects share: nothing is written to it.
        content = read(os.path.realpath(path) if os.path.islink(path) else path, keep=LARGEST)
    except Changing as error:
        raise _unreadable(path, venv, "it keeps changing while it is read") from error
    except ValueError as error:
        raise _unreadable(path, venv, str(error)) from error
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
        hint="Fix that file, or change locks: in the config.",
    )
