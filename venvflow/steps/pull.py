"""``pull``: brings a snapshot from the remote into the store; ``restore`` does so when the store has none."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from venvflow.disk import locks
from venvflow.disk.places import Place
from venvflow.errors import EnvironmentFailure, LockTimeout, shown
from venvflow.model import Outcome, Remembered
from venvflow.pure.ci import Access, access_of
from venvflow.pure.records import RemoteRecord
from venvflow.pure.units import show_duration
from venvflow.state.reader import StoreReader
from venvflow.state.remote import Lookup, Remote, RemoteDown
from venvflow.state.remote_pull import Fetched, fetch, missing_trees
from venvflow.state.store import Store
from venvflow.steps.facts import why_not_written
from venvflow.steps.hash_lockfiles import key_now
from venvflow.steps.job import Job
from venvflow.steps.noting import noted
from venvflow.steps.state_files import (
    KeyRecord,
    forget_push,
    need_key,
    read_key_of,
    read_pull,
    write_pull,
    write_push,
)

_remotes: dict[tuple[str, str], Remote] = {}
"""The remotes of this process, by config and store: what is down for one venv is for all."""


def remote_of(job: Job) -> Remote | None:
    """Return the remote of the job's store, None if the config has none or this run may not even read it."""
    config = job.config.store.remote
    if config is None:
        return None
    name = job.config.file, job.config.store.path
    if name not in _remotes or _remotes[name].config != config:
        _remotes[name] = Remote(config, job.credentials or job.environ, job.config.store.path)
    remote = _remotes[name]
    return remote if remote.access.read else None


def close_remotes() -> None:
    """End the processes that talk to remotes."""
    for remote in _remotes.values():
        remote.close()
    _remotes.clear()


def in_remote(jobs: Iterable[Job]) -> dict[str, bool | None]:
    """Return by name whether the remote has a record for each venv's lock files as they are; None: not known.

    Only whether there is one: who signed it, a pull looks at. Raises EnvironmentFailure where there is no
    remote, or it cannot be used.
    """
    jobs = list(jobs)
    keys = {job.spec.name: now.key.digest for job in jobs if (now := key_now(job).now) is not None}
    if not jobs:
        return {}
    if (remote := remote_of(jobs[0])) is None:
        raise no_remote(jobs[0])
    asked = [(keys[job.spec.name], job.position) for job in jobs if job.spec.name in keys]
    try:
        there = remote.there(asked)
    except RemoteDown as error:
        raise EnvironmentFailure(
            f"the remote cannot be asked: {error}",
            where="store.remote",
            state="Nothing was changed.",
            hint='"venvflow doctor" says more; without --remote, nobody is asked.',
        ) from error
    return {job.spec.name: there.get(keys.get(job.spec.name, "")) for job in jobs}


def no_remote(job: Job, state: str = "Nothing was changed.") -> EnvironmentFailure:
    """Return the error for a job that needs a remote where there is none; *state* is what of it was done."""
    return EnvironmentFailure(
        "there is no remote",
        where=job.spec.name,
        state=state,
        hint="Set store.remote, and see VENVFLOW_REMOTE and VENVFLOW_REMOTE_MODE.",
    )


class RemoteView(NamedTuple):
    """What is known of the remote at *url*: what this run *may* do there, and what it answered for a key.

    *at* is when, in seconds since 1970, None if nobody asked it. If it was asked just now (*is_now*), there
    are the *record* that it has, if that is believed, and the trees that would come, with their plain sizes
    in bytes.
    """

    url: str
    may: Access
    answer: str = ""
    at: float | None = None
    is_now: bool = False
    record: RemoteRecord | None = None
    wanted: Sequence[tuple[str, int]] = ()


def asked_before(job: Job, key: str) -> RemoteView | None:
    """Return what the remote answered when the last run asked for *key*; None where there is no remote."""
    if (config := job.config.store.remote) is None:
        return None
    asked = RemoteView(config.url, access_of(config, job.credentials or job.environ))
    noted = read_pull(job, key)
    return asked if noted is None else asked._replace(answer=noted.answer, at=noted.at)


def ask(job: Job, store: StoreReader | None, key: str) -> RemoteView:
    """Ask the remote what it has for *key*, and bring nothing; raises EnvironmentFailure if there is none."""
    before, remote = asked_before(job, key), remote_of(job)
    if before is None or remote is None:
        raise no_remote(job)
    asked = RemoteView(before.url, before.may, at=job.now(), is_now=True)
    try:
        found = remote.find(key, job.position)
    except RemoteDown as error:
        return asked._replace(answer=f"it cannot be used: {error}")
    if found.record is None:
        return asked._replace(answer=found.reason)
    trees = zip(found.record.snapshot.trees, found.record.raw, strict=True)
    missing = missing_trees(store, found.record) if store is not None else [*trees]
    has = f"it has a snapshot, {_vouched(found.record)}"
    return asked._replace(answer=has, record=found.record, wanted=missing)


def _vouched(record: RemoteRecord) -> str:
    """Return who signed a record, and which job pushed it, as far as it says so."""
    signed = f"signed by {shown(record.issuer)}" if record.issuer else "unsigned"
    return ", pushed by ".join(filter(None, (signed, shown(record.origin))))


def pull(job: Job) -> Outcome:
    """Bring the snapshot for the job's key into the store, without making the venv.

    Answers ``kept`` (it is there), ``pulled`` or ``miss``. Raises EnvironmentFailure if there is no remote.
    """
    record = need_key(job)
    with job.locked(), job.open_store() as store, store.use():
        found = store.find(record.key.digest, job.position)
        if found is not None and all(map(store.has_tree, found.trees)):
            return Outcome("kept", found.id[:12])
        if (why := why_not_written(job, store, "Nothing was fetched.")) is not None:
            raise why
        outcome = pull_locked(job, store, record)
    if outcome is None:
        raise no_remote(job)
    return outcome


def pull_locked(job: Job, store: Store, record: KeyRecord) -> Outcome | None:
    """Pull while the venv and the store are held; None where there is nothing to pull from, or into.

    Answers ``pulled`` or ``miss``, whatever is wrong with the remote, unless the config says ``required``.
    """
    remote = remote_of(job)
    if remote is None or store.read_only:
        return None
    outcome = noted("pull", job, store, partial(_pulled_once, job, store, record, remote))
    refused = str(outcome.figures.get("refused", ""))
    write_pull(job, record.key.digest, outcome.reason.removeprefix("remote: "), refused)
    return outcome


def _pulled_once(job: Job, store: Store, record: KeyRecord, remote: Remote) -> Outcome:
    """Pull, unless another run of this machine does so now; then wait for that one."""
    start = time.monotonic()
    try:
        with locks.exclusive(
            f"{store.path}/locks/fetch-{record.key.digest}",
            timeout=remote.config.limit,
            what=f"the pull of {record.key.digest[:12]}",
            on_wait=job.say,
        ):
            there = store.find(record.key.digest, job.position)
            if there is not None and all(map(store.has_tree, there.trees)):
                return Outcome("pulled", f"{there.id[:12]}, which another run has fetched")
            return _pulled(job, store, record, remote, start)
    except LockTimeout as error:
        return Outcome("miss", f"remote: {error.what}")
    except RemoteDown as error:
        return _down(job, remote, error)


def _pulled(job: Job, store: Store, record: KeyRecord, remote: Remote, start: float) -> Outcome:
    job.meter.count(f"asking {shown(remote.config.url)}")
    found = remote.find(record.key.digest, job.position, partial(_looked_for_soon, job, store))
    if found.record is None:
        return _missed(job, remote, record, found, time.monotonic() - start)
    with remote.turn:  # what another thread of this run fetches until then is not missing
        missing = missing_trees(store, found.record)
        fetched = fetch(remote, store, found.record, missing, partial(job.meter))
    if fetched.reason:
        return _missed(job, remote, record, fetched, time.monotonic() - start)
    url, who = shown(remote.config.url), _vouched(found.record)
    snapshot = replace(found.record.snapshot, host=f"{url}, {who}")
    store.publish(snapshot, job.now())
    write_push(job, snapshot.id, found.written)  # it is there, so nobody needs to send it
    figures: dict[str, int | float | str] = {
        "bytes": fetched.stored,
        "trees": len(missing),
        "seconds": time.monotonic() - start,
    }
    in_short = who.partition(" http")[0]  # without the address of the run
    return Outcome(
        "pulled", f"{snapshot.id[:12]} from {url}, {in_short}", figures, remembered=Remembered(snapshot.id)
    )


def _looked_for_soon(job: Job, store: Store) -> Iterator[tuple[str, str]]:
    """Yield key digests and positions of the venvs of this run for which the store has no snapshot either."""
    for name in job.run:
        if (record := read_key_of(job.config, name)) is not None:
            asked = record.key.digest, job.position_of(Place(job.config.venvs[name].path))
            if store.find(*asked) is None:
                yield asked


def _missed(job: Job, remote: Remote, record: KeyRecord, why: Lookup | Fetched, seconds: float) -> Outcome:
    forget_push(job, record.key.digest)
    warnings = (f"{shown(remote.config.url)}: {why.doubt}",) if why.doubt else ()
    figures: dict[str, int | float | str] = {}
    if isinstance(why, Fetched) and why.refused:
        figures["refused"] = why.refused
    return Outcome("miss", f"remote: {why.reason} ({show_duration(seconds)})", figures, warnings=warnings)


def told_down(job: Job, remote: Remote, error: RemoteDown, *, state: str) -> str:
    """Return in words that the remote cannot be used.

    Raises EnvironmentFailure, with the *state* that things are in, where the config says that it must be.
    """
    text = f"the remote {shown(remote.config.url)} cannot be used: {error}"
    if remote.config.required:
        hint = "Try again later, or set VENVFLOW_REMOTE=off to do without it."
        raise EnvironmentFailure(text, where=job.spec.name, state=state, hint=hint) from error
    return text


def _down(job: Job, remote: Remote, error: RemoteDown) -> Outcome:
    """Return the miss that a remote is which cannot be used."""
    text = told_down(
        job, remote, error, state="What came of it whole is in the store; the venv is as it was."
    )
    warnings = () if error.told else (f'{text}. The run goes on without it; "venvflow doctor" says more',)
    reason = str(error) if error.earlier else "it cannot be used now"
    return Outcome("miss", f"remote: {reason}", warnings=warnings)
