"""``store``: publishes the snapshot, one small record, for the manifest that squish left."""

from __future__ import annotations

import socket

from venvflow.errors import shown
from venvflow.model import Manifest, Outcome, Snapshot
from venvflow.pure.keys import snapshot_id
from venvflow.pure.manifest import first_difference
from venvflow.pure.redaction import redact_words
from venvflow.state import needs, notes
from venvflow.state.store import Store
from venvflow.steps import claims
from venvflow.steps.job import Job
from venvflow.steps.key_inputs import packages_of
from venvflow.steps.squish import manifest_of
from venvflow.steps.state_files import KeyRecord, need_key


def store(job: Job) -> Outcome:
    """Publish the snapshot of the job's venv, unless there is one for its key.

    Answers ``stored`` or ``kept``. Raises EnvironmentFailure when there is no venv for the key.
    """
    record = need_key(job)
    with claims.publishing(job, record.key.digest) as opened:
        return store_locked(job, opened, record)


def store_locked(job: Job, opened: Store, record: KeyRecord) -> Outcome:
    """Store while the venv and the store are held."""
    manifest = manifest_of(job, opened, record)
    place = job.position if manifest.bound else None
    receipt = job.place.receipt()
    snapshot = _snapshot(job, record, manifest, place, receipt.warnings if receipt is not None else ())
    published = opened.publish(snapshot, job.now())
    claims.release(record.key.digest)
    link = receipt.link if receipt is not None else ""
    # What no snapshot has must be kept for the venv itself: its links, or the judgement of its changes.
    trees = snapshot.trees if link == "symlink" or published.trees != snapshot.trees else ()
    job.register(opened, record.key.digest, link=link, trees=trees, bound=manifest.bound)
    if published.trees == snapshot.trees:
        did = "stored" if published.created == snapshot.created else "kept"
        return Outcome(did, snapshot.id[:12], {"files": snapshot.files, "bytes": snapshot.size})
    if receipt is not None and receipt.made == "taken":  # installers note who they are
        return Outcome("kept", published.id[:12])
    difference = first_difference(opened.load(published), manifest)
    warning = f"the build is not reproducible: the snapshot that was there first differs at {difference}"
    return Outcome("kept", published.id[:12], warnings=(warning,))


def _snapshot(
    job: Job, record: KeyRecord, manifest: Manifest, place: str | None, warnings: tuple[str, ...]
) -> Snapshot:
    files = [entry for tree in manifest.trees for entry in tree.entries if entry.digest]
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
        warnings=warnings,
        packages=packages_of(job, record),
        notes=notes.remember(job.place.path, job.environ),
        needs=needs.remember(job.place.path, job.root, record.interpreter.cache_tag),
        root=job.root,
    )
