"""What restore and build share: may a venv be replaced, is the present one good, is the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from venvflow.disk import processes
from venvflow.disk.blame import failure
from venvflow.disk.descriptors import directory
from venvflow.disk.links import sync_file_system
from venvflow.disk.places import Receipt, State, write_receipt
from venvflow.disk.scan import walk
from venvflow.errors import EnvironmentFailure, Refused, shown
from venvflow.pure.patterns import Matcher, compile_patterns
from venvflow.pure.redaction import redactor, secrets_of
from venvflow.state.reader import StoreReader
from venvflow.state.store import Store
from venvflow.steps.drift import WAY_OUT, Drift, drift_of
from venvflow.steps.job import Job

CHECK_SECONDS = 300
"""How long a venv's ``check`` may take."""


class Present(NamedTuple):
    """The venv that is in the place now: what kind of thing it is, its receipt, what was changed by hand.

    *looked*: its files were looked at one by one.
    """

    state: State
    receipt: Receipt | None
    drift: Drift
    looked: bool = False

    def is_for(self, key: str, path: str) -> bool:
        """Return whether it was made for this key, at this path."""
        return self.receipt is not None and self.receipt.key == key and self.receipt.path == path


def look_at(job: Job, store: Store) -> Present:
    """Settle what a killed run left at the venv's place, then look at it."""
    job.place.settle()
    return look(job, store)


def look(job: Job, store: StoreReader | None, *, ours: int | None = None) -> Present:
    """Look at the venv's place; a venv whose directories did not change is not looked at file by file.

    *store* is None where there is none yet. *ours* is the inode of the directory that we made at the place;
    without it, the store knows. Raises EnvironmentFailure for a venv that cannot be read: what is
    not known must not be called damage.
    """
    registration = store.registration(job.place.path) if store is not None else None
    state = job.place.state(ours or (registration.inode if registration else None))
    receipt = job.place.receipt() if state == "ours" else None
    if receipt is not None and is_hollow(job, store, receipt):
        return Present(state, receipt, Drift(missing=("what its symlinks lead to",)))
    if receipt is None or job.place.untouched(receipt):
        return Present(state, receipt, Drift())
    return Present(state, receipt, drift_of(job.place.path, receipt, store, matcher_of(job)), looked=True)


def is_whole(job: Job, present: Present) -> bool:
    """Return whether nothing of the venv is missing; one that was changed by hand counts as whole."""
    if present.drift.by_hand:
        return True
    return not present.drift.missing and os.access(f"{job.place.path}/bin/python", os.X_OK)


def is_hollow(job: Job, store: StoreReader | None, receipt: Receipt) -> bool:
    """Return whether the venv's symlinks lead into another store, or into one that has lost their files."""
    if receipt.link != "symlink":
        return False
    if store is None:
        return True
    links = (f"{job.place.path}/{item.path}" for item in walk(job.place.path) if item.kind == "link")
    return receipt.store != store.path or not all(os.path.exists(link) for link in links)


def refuse_to_lose(job: Job, store: StoreReader | None, present: Present) -> None:
    """Raise Refused when replacing what is there would lose something that venvflow did not make."""
    job.place.refuse_unless_replaceable(present.state)
    if present.state == "venv":
        job.place.refuse_to_keep_twice()
    if job.force or present.receipt is None:
        return
    drift = present.drift
    if not (present.looked or drift):
        drift = drift_of(job.place.path, present.receipt, store, matcher_of(job))
    if drift.by_hand:
        raise Refused(
            f"the venv was changed by hand ({drift})",
            where=f"{job.spec.name}: {shown(job.place.path)}",
            state="It was left as it is.",
            hint=WAY_OUT,
        )


def refuse_changed(job: Job, store: StoreReader | None, receipt: Receipt) -> None:
    """Raise unless the venv is what it was made of, so that it can be stored for others.

    Refused if somebody changed it since, EnvironmentFailure if files are missing.
    """
    drift = drift_of(job.place.path, receipt, store, matcher_of(job))
    named = f"{job.spec.name}: " if job.spec.name else ""
    if drift.by_hand:
        raise Refused(
            f"the venv was changed by hand since it was made ({drift})",
            where=f"{named}{shown(job.place.path)}",
            state="It was left as it is and was not stored: others would get your changes.",
            hint=WAY_OUT,
        )
    missing = [path for path in drift.missing if not path.endswith(".pyc")]  # bytecode is made anew
    if missing:
        doit = f'"{job.doit}"' if job.spec.name else '"doit" in its project'
        raise EnvironmentFailure(
            f"files of the venv are missing ({drift})",
            where=f"{named}{shown(job.place.path)}",
            state="Nothing was stored: others would get a venv that is not whole.",
            hint=f"Run {doit}: it is restored, or built anew.",
        )


def matcher_of(job: Job) -> Matcher | None:
    """Return the matcher of the venv's exclude patterns, or None if it has none."""
    if not job.spec.exclude:
        return None
    return compile_patterns(job.spec.exclude)


def check(job: Job, venv: str) -> str:
    """Run the venv's ``check`` by its own interpreter; return what is wrong, or an empty string."""
    python = f"{venv}/bin/python"
    if not os.access(python, os.X_OK):
        return "its interpreter is gone"
    if not job.spec.check:
        return ""
    before = {item.path for item in walk(venv)}
    wrong = _run_check(job, python, venv)
    _remove_new(venv, before)
    return wrong


def check_in_place(job: Job) -> str:
    """Run the ``check`` of a venv that is in its place, and may be in use: nothing is removed after it."""
    return _run_check(job, f"{job.place.path}/bin/python", job.place.path)


def _remove_new(venv: str, before: set[str]) -> None:
    """Delete what a check left in the staged venv: caches beside packages are not what the lock says."""
    for item in reversed(walk(venv)):
        if item.path not in before:
            (os.rmdir if item.kind == "dir" else os.unlink)(f"{venv}/{item.path}")


def _run_check(job: Job, python: str, venv: str) -> str:
    output: list[bytes] = []
    environ = {
        **processes.child_environment(job.environ),
        "PYTHONDONTWRITEBYTECODE": "1",
        "VIRTUAL_ENV": venv,
    }
    try:
        status = processes.run(
            [python, *job.spec.check],
            environ=environ,
            on_output=output.append,
            cwd=job.root,
            timeout=CHECK_SECONDS,
        )
    except (OSError, TimeoutError) as error:
        return f"its check failed: {error}"
    if status == 0:
        return ""
    lines = b"".join(output).decode("utf-8", "replace").strip().splitlines()
    said = redactor(secrets_of(environ))(lines[-1]) if lines else "no output"
    return f"its check {processes.in_words(status)}: {shown(said)}"


def unchanged(job: Job) -> str:
    """Return the sentence that says what is at the venv's place after a failure."""
    if os.path.lexists(job.place.path):
        return "The venv that was there before is unchanged."
    return "There was no venv before, and there is none now."


@contextmanager
def unmade(job: Job) -> Iterator[None]:
    """Explain an error of the file system that comes while a venv is made beside its place."""
    before = job.place.inode()
    try:
        yield
    except OSError as error:
        is_new = job.place.inode() != before
        state = "The new venv is in its place." if is_new else "What is at its place is unchanged."
        raise failure(
            error, "cannot make the venv", at=job.place.path, state=state, venv=job.spec.name
        ) from error


def finish(job: Job, store: Store, venv: str, receipt: Receipt, *, ours: int | None = None) -> str:
    """Write the receipt of the staged *venv*, make everything durable and swap it in.

    Looks at the place once more: making the venv took time, and what came there meanwhile is somebody's.
    *ours* is the inode of what we made there before, where the store has been told of the new one already.
    Returns where a venv that was not ours went, if there was one. Raises Refused.
    """
    write_receipt(venv, receipt)
    if job.config.store.durability == "full":
        with directory(venv) as fd:
            sync_file_system(fd)
    present = look(job, store, ours=ours)
    refuse_to_lose(job, store, present)
    return job.place.swap_in(keep_old=present.state == "venv")
