"""``store``: publishes the snapshot, one small record, for the manifest that squish left."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

from venvflow.errors import EnvironmentFailure
from venvflow.job import Job
from venvflow.manifest import Corrupt, first_difference, snapshot_id
from venvflow.model import Manifest, Outcome, Snapshot
from venvflow.objects import object_names
from venvflow.places import Receipt, write_receipt
from venvflow.records import KeyRecord, need_key, read_json
from venvflow.steps import claims
from venvflow.store import Store


def store(job: Job) -> Outcome:
    """Publish the snapshot of the job's venv, unless there is one for its key.

    Answers ``stored`` or ``kept``. Raises EnvironmentFailure when there is no manifest for the key, or
    when something that it needs is gone from the store.
    """
    record = need_key(job)
    with job.locked(), job.open_store() as opened, opened.use():
        return store_locked(job, opened, record)


def store_locked(job: Job, opened: Store, record: KeyRecord) -> Outcome:
    """Store while the venv and the store are held."""
    manifest = _manifest(job, opened, record)
    place = job.position if manifest.bound else None
    snapshot = _snapshot(job, record, manifest, place)
    published = opened.publish(snapshot, job.now())
    claims.release(record.key.digest)
    receipt = job.place.receipt()
    link = receipt.link if receipt is not None else ""
    trees = snapshot.trees if link == "symlink" else ()
    job.register(opened, record.key.digest, link=link, trees=trees, bound=manifest.bound)
    if published.trees == snapshot.trees:
        did = "stored" if published.created == snapshot.created else "kept"
        return Outcome(did, snapshot.id[:12], {"files": snapshot.files, "bytes": snapshot.size})
    difference = first_difference(opened.load(published), manifest)
    warning = f"the build is not reproducible: the snapshot that was there first differs at {difference}"
    return Outcome("kept", published.id[:12], warnings=(warning,))


def _manifest(job: Job, opened: Store, record: KeyRecord) -> Manifest:
    """Return the manifest that squish left, after looking that the store still has all of it."""
    document = read_json(job.file("manifest.json"))
    if document is None or document.get("key") != record.key.digest:
        raise _not_squished(job, "there is no manifest for this key")
    try:
        manifest = Manifest(tuple(opened.tree(digest) for digest in document["trees"]), document["bound"])
    except Corrupt as error:
        raise _not_squished(job, str(error)) from error
    for tree in manifest.trees:
        for name in object_names(tree):
            if not os.path.lexists(opened.objects.path(name)):
                raise _not_squished(job, f"object {name.digest[:12]} is gone from the store")
    return manifest


def _not_squished(job: Job, why: str) -> EnvironmentFailure:
    """Return the error, after seeing to it that the next run squishes again."""
    receipt = job.place.receipt()
    if receipt is not None and receipt.state == "shared":
        _mark_unshared(job, receipt)
    return EnvironmentFailure(
        f"cannot publish its snapshot: {why}",
        where=job.spec.name,
        state="The venv is unchanged, no snapshot was published.",
        hint=f'Run "doit *:{job.spec.name}".',
    )


def _mark_unshared(job: Job, receipt: Receipt) -> None:
    write_receipt(job.place.path, replace(receipt, state="built", made="shared"))


def _snapshot(job: Job, record: KeyRecord, manifest: Manifest, place: str | None) -> Snapshot:
    files = [entry for tree in manifest.trees for entry in tree.entries if entry.digest]
    return Snapshot(
        id=snapshot_id(record.key.digest, place),
        key=record.key,
        trees=tuple(tree.digest for tree in manifest.trees),
        place=place,
        venv=job.spec.name,
        created=job.now(),
        host=socket.gethostname(),
        command=job.command,
        python=record.interpreter.version,
        files=len(files),
        size=sum(entry.size for entry in files),
    )
