"""``store``: publishes the snapshot, one small record, for the manifest that squish left."""

from __future__ import annotations

import socket
from functools import partial

from venvflow.errors import shown
from venvflow.model import Manifest, Outcome, Receipt, Remembered, Snapshot
from venvflow.pure.keys import snapshot_id
from venvflow.pure.manifest import Corrupt, first_difference
from venvflow.pure.redaction import redact_words
from venvflow.state import needs, notes
from venvflow.state.store import Store
from venvflow.state.survey import names_its_place
from venvflow.steps import claims
from venvflow.steps.base import entries_now
from venvflow.steps.gathering import packages_of
from venvflow.steps.job import Job
from venvflow.steps.noting import noted
from venvflow.steps.squish import manifest_of
from venvflow.steps.state_files import KeyRecord, need_key


def store(job: Job) -> Outcome:
    """Publish the snapshot of the job's venv, unless there is one for its key.

    Answers ``stored`` or ``kept``; of a venv that was built from nothing because somebody wants to know what
    that gives, ``confirmed`` or ``stored``: then it takes the place of a snapshot that differs. Raises
    EnvironmentFailure when there is no venv for the key.
    """
    record = need_key(job)
    with claims.publishing(job, record.key.digest) as opened:
        return store_locked(job, opened, record)


def store_locked(job: Job, opened: Store, record: KeyRecord) -> Outcome:
    """Store while the venv and the store are held."""
    return noted("store", job, opened, partial(_store, job, opened, record))


def _store(job: Job, opened: Store, record: KeyRecord) -> Outcome:
    manifest = manifest_of(job, opened, record)
    place = job.position if manifest.bound else None
    receipt = job.place.receipt()
    snapshot = _snapshot(job, record, manifest, place, receipt)
    earlier = opened.find(record.key.digest, job.position) if job.fresh else None
    unlike = _difference(opened, earlier, manifest) if earlier is not None else ""
    if earlier is not None and unlike:
        opened.drop([earlier.id])
    published = opened.publish(snapshot, job.now())
    job.manifests.clear()
    claims.release(record.key.digest)
    link = receipt.link if receipt is not None else ""
    # What no snapshot has must be kept for the venv itself: its links, or the judgement of its changes.
    trees = snapshot.trees if link == "symlink" or published.trees != snapshot.trees else ()
    job.register(opened, record.key.digest, link=link, trees=trees, bound=manifest.bound)
    remembered = Remembered(snapshot.id)
    if unlike:
        warning = f"the snapshot that was there differs at {unlike}; what was built from nothing replaces it"
        return Outcome("stored", snapshot.id[:12], {"differs": unlike}, (warning,), remembered)
    if published.trees == snapshot.trees and earlier is not None:
        return Outcome("confirmed", snapshot.id[:12], {"files": snapshot.files}, remembered=remembered)
    if published.trees == snapshot.trees:
        did = "stored" if published.created == snapshot.created else "kept"
        return Outcome(
            did, snapshot.id[:12], {"files": snapshot.files, "bytes": snapshot.size}, remembered=remembered
        )
    if receipt is not None and receipt.made == "taken":  # installers note who they are
        return Outcome("kept", published.id[:12])
    difference = _difference(opened, published, manifest)
    warning = f"the build is not reproducible: the snapshot that was there first differs at {difference}"
    return Outcome("kept", published.id[:12], warnings=(warning,))


def _difference(opened: Store, snapshot: Snapshot, manifest: Manifest) -> str:
    """Return where a snapshot differs from *manifest*, empty if it does not."""
    try:
        return shown(first_difference(opened.load(snapshot), manifest))
    except Corrupt:
        return "what the store has lost of it"


def _snapshot(
    job: Job, record: KeyRecord, manifest: Manifest, place: str | None, receipt: Receipt | None
) -> Snapshot:
    files = [entry for tree in manifest.trees for entry in tree.entries if entry.digest]
    may_be_base = receipt is not None and receipt.made == "built" and not names_its_place(receipt.warnings)
    return Snapshot(
        id=snapshot_id(record.key.digest, place),
        key=record.key,
        trees=tuple(tree.digest for tree in manifest.trees),
        place=place,
        venv=job.spec.name,
        created=job.now(),
        host=socket.gethostname(),
        command=shown(" ".join(redact_words(job.command))),
        python=record.interpreter.version,
        files=len(files),
        size=sum(entry.size for entry in files),
        warnings=receipt.warnings if receipt is not None else (),
        packages=packages_of(job, record),
        notes=notes.remember(job.place.path, job.environ),
        needs=needs.portable(receipt.needs if receipt is not None else (), job.root),
        root=job.root,
        entries=entries_now(job, record) if may_be_base else {},
        build_seconds=receipt.build_seconds if receipt is not None else 0.0,
    )
