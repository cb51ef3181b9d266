"""A venv given by its path: whether it is a venv, whether it may be changed, and who works on it."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from venvflow.disk import locks
from venvflow.disk.places import Place
from venvflow.disk.system_errors import explained
from venvflow.errors import Refused, UsageError, shown
from venvflow.state.store import Store
from venvflow.steps.job import Job


def refuse_unless_venv(place: Place) -> None:
    """Raise UsageError unless there is a venv at *place*, Refused when it must not be touched."""
    state = place.state()
    if state == "symlink":
        place.refuse_unless_replaceable(state)
    refuse_unless_there(place.path)
    if os.lstat(place.path).st_uid != os.geteuid():
        raise _refused(place, "the venv belongs to another user", "Run as its owner.")


def refuse_unless_there(path: str) -> None:
    """Raise UsageError unless there is a venv to read at *path*, or behind a symlink there."""
    if os.path.isfile(f"{path}/pyvenv.cfg"):
        return
    what, hint = next((each for mark, *each in _STRANGERS if glob.glob(glob.escape(path) + mark)), _STRANGER)
    with explained("cannot look into it", at=path, state="Nothing was changed."):
        if not os.path.isdir(path):
            what = "it is a file, not a venv" if os.path.lexists(path) else "there is no such directory"
        elif not os.listdir(path):
            what = "the directory is empty"
    raise UsageError(what, where=shown(path), hint=hint)


_NAME_ONE = "Name a venv: its directory, with a pyvenv.cfg in it, or its name in the config."
_STRANGER = ["it is not a venv: it has no pyvenv.cfg", _NAME_ONE]
_STRANGERS = [
    (
        "/conda-meta/*",
        "it is a conda environment, not a venv: it has no pyvenv.cfg",
        "conda's own tools know what belongs to it; conda-pack makes archives of such.",
    ),
    (
        "/lib/python3*/encodings/__init__.py",
        "it is a Python installation, not a venv: it has no pyvenv.cfg",
        "Make a venv of it (python -m venv), and name that.",
    ),
]
"""What is known by something in it, and no venv: what to say, and what to do."""


def refuse_unless_sharable(place: Place, store: str) -> None:
    """Do as :func:`refuse_unless_venv`; nor may the venv be in the store at the resolved path *store*."""
    refuse_unless_venv(place)
    for outer, inner, what in (
        (store, place.path, "the venv is inside the store"),
        (place.path, store, "the store is inside the venv"),
    ):
        if f"{inner}/".startswith(f"{outer}/"):
            raise _refused(place, what, "Use a store that is apart from all venvs (VENVFLOW_STORE).")


def _refused(place: Place, what: str, hint: str) -> Refused:
    return Refused(what, where=shown(place.path), state="It was left as it is.", hint=hint)


# --------------------------------------------------------------------------- who is at work on it


@contextmanager
def hold_venv(job: Job, store: Store) -> Iterator[None]:
    """Lock the venv against all other runs, also those of the project that it belongs to."""
    path = job.place.path
    registration = store.registration(path)
    files = []
    if job.spec.name:
        files.append(job.file("lock"))
    elif registration is not None and os.path.isdir(f"{registration.project}/.venvflow/{registration.name}"):
        files.append(f"{registration.project}/.venvflow/{registration.name}/lock")
    tag = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    files.append(f"{store.path}/locks/venv-{tag}")
    timeout, what = locks.lock_timeout(job.environ), f"the venv {shown(path)}"
    with ExitStack() as stack:
        for file in files:
            stack.enter_context(locks.exclusive(file, timeout=timeout, what=what, on_wait=job.say))
        yield


def in_use(users: list[int]) -> str:
    """Return the warning about processes that use a venv whose files are replaced."""
    named = ", ".join(map(str, users[:8])) + (" ..." if len(users) > 8 else "")
    if len(users) > 1:
        return f"in use by processes {named}: they keep the files they have open"
    return f"in use by process {named}: it keeps the files it has open"
