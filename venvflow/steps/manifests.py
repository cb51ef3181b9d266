"""The manifest of a venv, whole: what ``pack`` and ``store`` work from."""

from __future__ import annotations

import os
from dataclasses import replace

from venvflow.disk.objects import object_names
from venvflow.disk.places import write_receipt
from venvflow.errors import EnvironmentFailure
from venvflow.model import Manifest
from venvflow.pure.manifest import Corrupt
from venvflow.state.store import Store
from venvflow.steps.job import Job
from venvflow.steps.records import KeyRecord, read_answer


def manifest_of(job: Job, store: Store, record: KeyRecord, *, look: bool = True) -> Manifest:
    """Return the manifest of the venv, after seeing that the store still has all of it.

    It is what the receipt of a shared venv says, or, of one that was here and is gone, its snapshot.

    If it has not (snapshots were erased, the store was deleted), the venv is squished once more: it is
    whole, and so the store can be filled again from it. Raises EnvironmentFailure when there is no venv for
    the key, Refused when it was changed by hand. Venv and store are held by the caller.

    Without *look* only the trees are read, and whoever finds an object gone asks once more.
    """
    try:
        return _whole(job, store, record, look=look)
    except Corrupt as lost:
        # It brings all that reads and shares venvs, for which there is hardly ever a need here.
        from venvflow.steps.share import refuse_to_publish  # noqa: PLC0415
        from venvflow.steps.squish import squish_locked  # noqa: PLC0415

        receipt = job.place.receipt()
        if receipt is None or receipt.key != record.key.digest:
            raise _no_manifest(job, lost) from None
        refuse_to_publish(job, store, receipt)
        write_receipt(job.place.path, replace(receipt, state="built", made="shared"))
        squish_locked(job, store, record)
        try:
            return _whole(job, store, record, look=True)
        except Corrupt as error:  # the disk loses what was just written
            raise _no_manifest(job, error) from error


def _whole(job: Job, store: Store, record: KeyRecord, *, look: bool) -> Manifest:
    digest, receipt = record.key.digest, job.place.receipt()
    if receipt is not None and receipt.is_shared_for(digest):
        manifest = Manifest(tuple(map(store.tree, receipt.trees)), receipt.bound)
    else:  # a venv that was here may be gone since
        answer = read_answer(job)
        was_here = answer is not None and answer.key == digest and answer.hit
        snapshot = store.find(digest, job.position) if was_here else None
        if snapshot is None:
            raise Corrupt("there is no venv for this key")
        manifest = store.load(snapshot)
    for tree in manifest.trees if look else ():
        for name in object_names(tree):
            if not os.path.lexists(store.objects.path(name)):
                raise Corrupt(f"object {name.digest[:12]} is gone from the store")
    return manifest


def _no_manifest(job: Job, why: Corrupt) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"its manifest cannot be had: {why}",
        where=job.spec.name,
        state="Nothing was written or published.",
        hint=f'Run "{job.doit}".',
    )
