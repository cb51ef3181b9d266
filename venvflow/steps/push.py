"""``push``: gives the remote the snapshots of the venvs, after everything else is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from venvflow.errors import EnvironmentFailure, shown
from venvflow.model import Outcome, Remembered
from venvflow.pure.decoding import Corrupt
from venvflow.pure.units import counted, show_size
from venvflow.state.remote import Remote, RemoteDown
from venvflow.state.remote_push import Push
from venvflow.steps.facts import why_not_written
from venvflow.steps.job import Job
from venvflow.steps.noting import noted
from venvflow.steps.pull import no_remote, remote_of, told_down
from venvflow.steps.state_files import need_key, read_pull, was_in_remote, write_pull, write_push

_T = TypeVar("_T")


def push(job: Job, *, dry_run: bool = False) -> Outcome:
    """Send the snapshot of the job's key to the remote, unless it is there.

    Answers ``pushed`` or ``kept``; ``not pushed`` with a warning when the remote cannot be used, unless the
    config says ``required``; with *dry_run*, ``would push`` and nothing is written.
    Raises EnvironmentFailure where there is nothing to push or nowhere to push to, and UsageError for a
    signing key that nobody would believe.
    """
    record = need_key(job)
    remote = _writable(job)
    signer = remote.signer()
    with job.locked(), job.open_store() as store, store.use():
        snapshot = store.find(record.key.digest, job.position)
        if snapshot is None:
            raise EnvironmentFailure(
                "the store has no snapshot for its key, so there is nothing to push",
                where=job.spec.name,
                state="Nothing was sent.",
                hint=f'Run "{job.doit}" first.',
            )
        if (why := why_not_written(job, store, "Nothing was sent.")) is not None:
            raise why  # what is sent is made there
        noted_before, pulled = was_in_remote(job), read_pull(job, record.key.digest)
        before = store.snapshot(noted_before) if noted_before else None
        with store.objects.batch() as batch:  # a private directory on the store's file system
            act = Push(remote, store, snapshot, signer, batch.staging, partial(job.meter), before)
            act.refused = pulled.refused if pulled is not None else ""
            if dry_run:
                return _foreseen(job, act)
            return noted("push", job, store, partial(_pushed, job, act))


def _pushed(job: Job, push: Push) -> Outcome:
    """Push, note that, and say what was done."""
    start = time.monotonic()
    name, url = push.snapshot.id[:12], shown(push.remote.config.url)
    try:
        pushed = _tried(job, push.run)
    except RemoteDown as error:
        text = told_down(job, push.remote, error, state="No record was sent, so nobody sees what was.")
        if was_in_remote(job) == push.snapshot.id and not push.is_needed:  # to say that it is used can wait
            return Outcome("kept", f"{name} was in {url}; now {text}")
        return Outcome("not pushed", f"{text}; the next run goes on")
    write_push(job, push.snapshot.id, pushed.written)
    if push.refused in push.snapshot.trees:
        write_pull(job, push.snapshot.key.digest, f"tree {push.refused[:12]} was refused, and was sent anew")
    if not pushed.record:
        return Outcome("kept", f"{name} is in {url}")
    figures: dict[str, int | float | str] = {
        "bytes": pushed.stored,
        "trees": pushed.trees,
        "seconds": time.monotonic() - start,
    }
    text = f"{name} to {url}, {counted(pushed.trees, 'new tree')}"
    return Outcome("pushed", text, figures, remembered=Remembered(push.snapshot.id))


def _foreseen(job: Job, push: Push) -> Outcome:
    """Say what a push would send; its bytes are those before they are compressed."""
    name, url = push.snapshot.id[:12], shown(push.remote.config.url)
    try:
        lacking = _tried(job, push.foresee)
    except RemoteDown as error:
        return Outcome("not pushed", told_down(job, push.remote, error, state="Nothing was sent."))
    if lacking is None:
        return Outcome("kept", f"{name} is in {url}")
    size = sum(lacking.values())
    trees = f"{len(lacking):,} of {counted(len(push.snapshot.trees), 'tree')}"
    text = f"{name} to {url}, {trees}, {show_size(size)} before they are compressed"
    return Outcome("would push", text, {"plain_bytes": size, "trees": len(lacking)})


def _tried(job: Job, act: Callable[[], _T]) -> _T:
    """Return what *act* does; raises EnvironmentFailure for a snapshot that is damaged here."""
    try:
        return act()
    except Corrupt as error:
        raise EnvironmentFailure(
            f"its snapshot cannot be pushed: {error}",
            where=job.spec.name,
            state="No record was sent, so nobody sees what was.",
            hint='Run "venvflow verify --heal", then doit.',
        ) from error


def _writable(job: Job) -> Remote:
    """Return the job's remote; raises EnvironmentFailure if this run may not write to it."""
    remote = remote_of(job)
    if remote is None:
        raise no_remote(job, "Nothing was sent.")
    if not remote.access.write:
        raise EnvironmentFailure(
            f"this run may not write to the remote: {remote.access.reason}",
            where=job.spec.name,
            state="Nothing was sent.",
            hint="See store.remote.mode in the reference of the config.",
        )
    return remote
