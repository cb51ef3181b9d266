"""``pack``: the archive of a venv, from manifest and objects; remade only when they change."""

from __future__ import annotations

import time
from typing import Any

from venvflow import archive
from venvflow.job import Job
from venvflow.model import Manifest, Outcome, PackOptions
from venvflow.objects import Name, Objects
from venvflow.records import KeyRecord, archive_path, need_key, pack_is_current, write_pack
from venvflow.steps.manifests import manifest_of
from venvflow.store import Store


def pack(job: Job) -> Outcome:
    """Write the archive that the config asks for, from the manifest that squish left.

    Answers ``packed``, ``kept`` (it is there, whole) or ``none`` (no archive is asked for). Raises
    EnvironmentFailure when there is no venv for the key, an object is damaged or the disk is full;
    there is never half an archive under the final name.
    """
    options = job.spec.pack
    if options is None:
        return Outcome("none", "the config asks for no archive")
    record = need_key(job)
    with job.locked(), job.open_store() as store, store.use():
        if pack_is_current(job):
            return Outcome("kept", archive_path(job, options))
        return _pack(job, store, record, options)


def _pack(job: Job, store: Store, record: KeyRecord, options: PackOptions) -> Outcome:
    start = time.monotonic()
    manifest = manifest_of(job, store, record)
    path = archive_path(job, options)
    written = archive.write_archive(
        manifest,
        _Source(store.objects),
        path,
        archive.Options(options.format, options.level),
        description=_description(job, record, manifest),
        frames=None
        if store.read_only
        else archive.FrameDirectory(f"{store.path}/frames", durability=job.config.store.durability),
    )
    write_pack(job, [tree.digest for tree in manifest.trees], options)
    figures: dict[str, int | float | str] = {
        "bytes": written.size,
        "frames": written.frames,
        "frames_reused": written.frames_reused,
        "seconds": time.monotonic() - start,
        "sha256": written.sha256,
    }
    return Outcome("packed", path, figures, written.warnings)


def _description(job: Job, record: KeyRecord, manifest: Manifest) -> dict[str, Any]:
    """Return what the archive says of itself: nothing that depends on the place or the time."""
    return {
        "venv": job.spec.name,
        "key": {"digest": record.key.digest, "parts": record.key.parts},
        "python": archive.needs_of(record.interpreter),
        "distributions": {tree.name: tree.version for tree in manifest.trees if tree.version},
    }


class _Source:
    """The store's objects, as the archive wants to see them."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def path(self, digest: str, executable: bool) -> str:
        return self._objects.path(Name(digest, executable))
