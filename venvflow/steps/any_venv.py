"""A venv given by its path: whether it is a venv, whether it may be changed, and who works on it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from venvflow.disk import locks
from venvflow.disk.places import Place
from venvflow.errors import Refused, UsageError, shown
from venvflow.state.store import Store
from venvflow.steps.job import Job


def refuse_unless_venv(place: Place) -> None:
    """Raise UsageError unless there is a venv at *place*, Refused when it must not be touched."""
    state = place.state()
    if state == "symlink":
        place.refuse_unless_replaceable(state)
    if state in _NO_VENV or not os.path.lexists(f"{place.path}/pyvenv.cfg"):
        raise UsageError(
            _NO_VENV.get(state, _NO_VENV["stranger"]),
            where=shown(place.path),
            hint="Name a venv: its directory, with a pyvenv.cfg in it, or its name in the config.",
        )
    if os.lstat(place.path).st_uid != os.geteuid():
        raise _refused(place, "the venv belongs to another user", "Run as its owner.")


_NO_VENV = {
    "absent": "there is no such directory",
    "empty": "the directory is empty",
    "file": "it is a file, not a venv",
    "stranger": "it is not a venv: it has no pyvenv.cfg",
}


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
