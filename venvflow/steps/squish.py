"""``squish``: shares a venv through the store, as doit's step and for the command."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

from venvflow.disk.objects import object_names
from venvflow.errors import EnvironmentFailure
from venvflow.model import Manifest, Outcome, Receipt, VenvSpec
from venvflow.pure.manifest import Corrupt
from venvflow.pure.sharing import is_resettled
from venvflow.state.carried import Built
from venvflow.state.changes import Seen, drift_of
from venvflow.state.store import Store
from venvflow.state.usage import Ledger
from venvflow.steps import claims
from venvflow.steps.any_venv import hold_venv, refuse_unless_sharable
from venvflow.steps.facts import is_shared_anew
from venvflow.steps.job import Job
from venvflow.steps.noting import noted
from venvflow.steps.share import OnFile, receipt_of_unknown, refuse_to_publish, share, still_built
from venvflow.steps.state_files import KeyRecord, need_key, read_answer, read_key

_SHARED = "its files are the store's already"


def squish(job: Job, *, any_venv: bool = False) -> Outcome:
    """Share the job's venv through the store, and leave its manifest in the receipt.

    A venv that was restored, or squished before, is shared already. *any_venv*: one that venvflow did not
    make will do; its receipt is written then. Raises EnvironmentFailure when there is no venv, or when
    venv or store cannot be read or written.
    """
    record = need_key(job)
    with claims.publishing(job, record.key.digest) as store:
        return squish_locked(job, store, record, any_venv=any_venv)


def squish_locked(
    job: Job,
    store: Store,
    record: KeyRecord,
    *,
    any_venv: bool = False,
    ledger: Ledger | None = None,
    on_file: OnFile | None = None,
) -> Outcome:
    """Squish while the venv and the store are held."""
    act = partial(_squish, job, store, record, any_venv=any_venv, ledger=ledger, on_file=on_file)
    return noted("squish", job, store, act)


def _squish(
    job: Job,
    store: Store,
    record: KeyRecord,
    *,
    any_venv: bool,
    ledger: Ledger | None,
    on_file: OnFile | None,
) -> Outcome:
    receipt = job.place.receipt()
    seen: Seen | None = None
    built: Built | None = None
    is_for_key = receipt is not None and receipt.key == record.key.digest
    if receipt is None or not is_for_key:
        receipt = _receipt_for(job, record, receipt, any_venv=any_venv)
    else:
        if receipt.state == "shared" and receipt.is_at(job.place.path):
            anew = is_resettled(receipt, job.spec)
            if not (anew and is_shared_anew(store, drift_of(job.place.path, receipt, store, job.matcher))):
                return Outcome("kept", _SHARED)
        built = still_built(job, store, receipt) if ledger is None and on_file is None else None
        if built is None:
            seen = refuse_to_publish(job, store, receipt)
    return share(
        job, store, receipt, interpreter=record.interpreter, ledger=ledger, on_file=on_file,
        by_records=not is_for_key, seen=seen, built=built,
    )  # fmt: skip


def _receipt_for(job: Job, record: KeyRecord, receipt: Receipt | None, *, any_venv: bool) -> Receipt:
    """Return a receipt for the key of a venv that has another *receipt*, or none; if *any_venv* will do."""
    key = record.key.digest
    if any_venv and receipt is not None:
        return replace(receipt, key=key, state="built", made="shared", warnings=())
    if any_venv and job.place.state() == "venv":
        return replace(receipt_of_unknown(job.place), key=key)
    raise EnvironmentFailure(
        "there is no venv for this key",
        where=job.where,
        state="Nothing was changed.",
        hint=f'Run "{job.doit}".',
    )


def squish_any(job: Job, store: Store, how: VenvSpec, *, ledger: Ledger, on_file: OnFile) -> Outcome:
    """Share the venv of a job that may be in no config, by the settings of *how*.

    One that doit makes, and is about to share, is shared as doit would: it becomes a snapshot. Raises
    UsageError when there is no venv, Refused when sharing it would not be safe, EnvironmentFailure when venv
    or store cannot be read or written; the venv is whole then.
    """
    refuse_unless_sharable(job.place, store.path)
    with hold_venv(job, store), store.use():
        receipt = job.place.receipt()
        if receipt is None or not receipt.is_at(job.place.path):  # it was copied or moved here
            receipt = receipt_of_unknown(job.place)
        asked = replace(job, spec=how)
        if receipt.key and receipt.state == "shared":
            drift = drift_of(job.place.path, receipt, store, asked.matcher)
            edits = (f"changed by hand ({drift}): that stays private",) if drift.by_hand else ()
            return Outcome("kept", _SHARED, warnings=edits)
        record = read_key(job) if job.spec.name else None
        if record is not None and record.key.digest == receipt.key:
            return squish_locked(job, store, record, ledger=ledger, on_file=on_file)
        if receipt.key:
            refuse_to_publish(asked, store, receipt)
        return share(asked, store, receipt, ledger=ledger, on_file=on_file, by_records=not receipt.key)


# --------------------------------------------------------------------------- the manifest that it left


def manifest_of(job: Job, store: Store, record: KeyRecord, *, check_objects: bool = True) -> Manifest:
    """Return the manifest of the venv, after a check that the store still has all of it.

    It is what the receipt of a shared venv says, or, of one that was here and is gone, its snapshot.

    If it has not (snapshots were erased, the store was deleted), the venv is squished once more: it is
    whole, and so the store can be filled again from it. Raises EnvironmentFailure when there is no venv for
    the key, Refused when it was changed by hand. Venv and store are held by the caller.

    Without *check_objects* only the trees are read, and the caller calls again if an object is gone.
    """
    try:
        return _whole(job, store, record, check_objects=check_objects)
    except Corrupt as lost:
        receipt = job.place.receipt()
        if receipt is None or receipt.key != record.key.digest:
            raise _no_manifest(job, lost) from None
        refuse_to_publish(job, store, receipt)
        share(job, store, replace(receipt, state="built", made="shared"), interpreter=record.interpreter)
        try:
            return _whole(job, store, record, check_objects=True)
        except Corrupt as error:  # the disk loses what was just written
            raise _no_manifest(job, error) from error


def _whole(job: Job, store: Store, record: KeyRecord, *, check_objects: bool) -> Manifest:
    digest, receipt = record.key.digest, job.place.receipt()
    if receipt is not None and receipt.is_shared_for(digest):
        known = job.manifests.get(receipt.trees)
        if known is not None and all(map(store.has_tree, receipt.trees)):
            manifest, times = known
            check_objects = check_objects and store.objects.times() != times
        else:
            manifest = store.manifest(receipt.trees, bound=receipt.bound)
    else:  # a venv that was here may be gone since
        answer = read_answer(job)
        was_here = answer is not None and answer.key == digest and answer.hit
        snapshot = store.find(digest, job.position) if was_here else None
        if snapshot is None:
            raise Corrupt("there is no venv for this key")
        manifest = store.load(snapshot)
    for tree in manifest.trees if check_objects else ():
        for name in object_names(tree):
            if not os.path.lexists(store.objects.path(name)):
                raise Corrupt(f"object {name.digest[:12]} is gone from the store")
    return manifest


def _no_manifest(job: Job, why: Corrupt) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"its manifest cannot be read: {why}",
        where=job.spec.name,
        state="Nothing was written or published.",
        hint=f'Run "{job.doit}".',
    )
