"""Claims: the right to build the venv of a key, kept from the build until its snapshot is published.

So of several runs on one store only one builds, and the others take its snapshot. A process that has to
wait for somebody else's claim first finishes what it holds claims for itself; otherwise two processes
that hold one claim each, and want the other's, would wait for ever. So do other processes of the same run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from venvflow.disk import locks
from venvflow.errors import LockTimeout, VenvflowError
from venvflow.model import Snapshot
from venvflow.state.store import Store
from venvflow.steps.job import Job

PATIENCE = 3600.0
"""Seconds to wait for the build of another process, unless VENVFLOW_LOCK_TIMEOUT says otherwise."""

_held: dict[str, tuple[locks.Lock, Job]] = {}
_mutex = threading.Lock()


def keep(key: str, lock: locks.Lock, job: Job) -> None:
    """Hold *lock* for *key* beyond the step that took it."""
    with _mutex:
        _held[key] = (lock, job)


def release(key: str) -> None:
    """Give back the claim on *key*, if this process holds it."""
    with _mutex:
        lock, _ = _held.pop(key, (None, None))
    if lock is not None:
        lock.release()


@contextmanager
def publishing(job: Job, key: str) -> Iterator[Store]:
    """Hold the job's venv and its store, which is given, for a step that leads to the snapshot for *key*.

    If it fails, the claim is given back: somebody else may do better.
    """
    try:
        with job.locked(), job.open_store() as store, store.use():
            yield store
    except BaseException:
        release(key)
        raise


def _give_back_forgotten() -> None:
    """Give back earlier claims of a run that does one task after the other, venv by venv.

    When its next build begins, the earlier venv's store has run, or was not asked for. In a run with
    several threads it may still be to come.
    """
    if threading.current_thread() is threading.main_thread():
        with _mutex:
            keys = list(_held)
        for key in keys:
            release(key)


def finish_held(finish: Callable[[Job], None], but: Job | None = None) -> None:
    """Publish what this process holds claims for, by *finish*; one for the very venv of *but* is void."""
    with _mutex:
        held = [(key, other) for key, (_, other) in _held.items()]
    for key, other in held:
        if but is not None and other.place.path == but.place.path:
            release(key)
        else:
            try:
                finish(other)
            except VenvflowError:  # its own task will meet it again, and say so
                release(key)


def wait_for(
    job: Job, store: Store, key: str, finish: Callable[[Job], None], *, unfit: str = ""
) -> locks.Lock | Snapshot:
    """Return the claim on *key*, or the snapshot that somebody else publishes while we wait for it.

    *finish* squishes and stores a venv that this process has built; *unfit* is the id of a snapshot that is
    no use to us. Raises LockTimeout when the holder takes too long.
    """
    _give_back_forgotten()
    start = time.monotonic()
    patience = PATIENCE
    if job.environ.get("VENVFLOW_LOCK_TIMEOUT"):
        patience = locks.lock_timeout(job.environ)
    said = False
    while True:
        lock = store.claim(key)
        snapshot = store.find(key, job.position) if job.spec.restore and not job.fresh else None
        if snapshot is not None and snapshot.id != unfit:
            if lock is not None:
                lock.release()
            return snapshot
        if lock is not None:
            return lock
        finish_held(finish, job)
        job.waits()
        waited = time.monotonic() - start
        if waited > patience:
            holder = store.claimant(key)
            raise LockTimeout(
                f"another run builds the same venv and does not finish: {holder}",
                where=job.spec.name,
                state=f"Gave up after {patience:g} s; nothing was changed.",
                hint=f"{holder.way_out}, or wait longer with {locks.TIMEOUT_VARIABLE}=<seconds>.",
            )
        if waited > locks.NOTICE_AFTER and not said:
            said = True
            job.meter.count("waiting for another build of the same")
            if not (holder := store.claimant(key)).ours:
                job.say(f"{job.spec.name}: waiting for another run that builds the same venv: {holder}")
        time.sleep(0.05)
