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
from venvflow.steps.records import KeyRecord, ManifestNote, read_manifest, write_manifest


def manifest_of(job: Job, store: Store, record: KeyRecord, *, look: bool = True) -> Manifest:
    """Return the manifest that squish left, after seeing that the store still has all of it.

    If it has not (snapshots were erased, the store was deleted), the venv is squished once more: it is
    whole, and so the store can be filled again from it. Raises EnvironmentFailure when there is no venv for
    the key, Refused when it was changed by hand. Venv and store are held by the caller.

    Without *look* only the trees are read, and whoever finds an object gone asks once more.
    """
    try:
        return _whole(job, store, record, look=look)
    except Corrupt:
        # It brings all that reads and shares venvs, for which there is hardly ever a need here.
        from venvflow.steps.squish import refuse_to_publish, squish_locked  # noqa: PLC0415

        receipt = job.place.receipt()
        if receipt is None or receipt.key != record.key.digest:
            raise _no_manifest(job) from None
        refuse_to_publish(job, store, receipt)
        write_receipt(job.place.path, replace(receipt, state="built", made="shared"))
        squish_locked(job, store, record)
        try:
            return _whole(job, store, record, look=True)
        except Corrupt as error:  # the disk loses what was just written
            raise _no_manifest(job, str(error)) from error


def _whole(job: Job, store: Store, record: KeyRecord, *, look: bool) -> Manifest:
    noted = read_manifest(job)
    if noted is None or noted.key != record.key.digest:
        noted = _by_receipt(job, record)
    manifest = Manifest(tuple(store.tree(digest) for digest in noted.trees), noted.bound)
    for tree in manifest.trees if look else ():
        for name in object_names(tree):
            if not os.path.lexists(store.objects.path(name)):
                raise Corrupt(f"object {name.digest[:12]} is gone from the store")
    return manifest


def _by_receipt(job: Job, record: KeyRecord) -> ManifestNote:
    """Return what the receipt says, and note it: a venv just restored has no other note of its manifest."""
    receipt = job.place.receipt()
    if receipt is None or receipt.key != record.key.digest or receipt.state != "shared":
        raise Corrupt("there is no manifest for this key")
    noted = ManifestNote(receipt.key, receipt.trees, receipt.bound)
    write_manifest(job, noted)
    return noted


def _no_manifest(job: Job, why: str = "there is no venv for this key") -> EnvironmentFailure:
    return EnvironmentFailure(
        f"its manifest cannot be had: {why}",
        where=job.spec.name,
        state="Nothing was written or published.",
        hint=f'Run "{job.doit}".',
    )
