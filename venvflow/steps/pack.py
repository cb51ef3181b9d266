"""``pack``: the archive of a venv, from manifest and objects; remade only when they change."""

from __future__ import annotations

import time
from typing import Any

from venvflow import archive
from venvflow.errors import EnvironmentFailure, shown
from venvflow.job import Job
from venvflow.manifest import Corrupt
from venvflow.model import Manifest, Outcome, PackOptions
from venvflow.objects import Name, Objects
from venvflow.records import KeyRecord, archive_path, need_key, pack_is_current, read_json, write_pack
from venvflow.store import Store


def pack(job: Job) -> Outcome:
    """Write the archive that the config asks for, from the manifest that squish left.

    Answers ``packed``, ``kept`` (it is there, whole) or ``none`` (no archive is asked for). Raises
    EnvironmentFailure when the manifest is not for the key, an object is damaged or the disk is full;
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
    document = read_json(job.file("manifest.json"))
    if document is None or document["key"] != record.key.digest:
        raise _not_squished(job, "there is no manifest for this key")
    try:
        trees = tuple(store.tree(digest) for digest in document["trees"])
    except Corrupt as error:
        raise _not_squished(job, str(error)) from error
    path = archive_path(job, options)
    written = archive.write_archive(
        Manifest(trees, document["bound"]),
        _Source(store.objects),
        path,
        archive.Options(options.format, options.level),
        description=_description(job, record, trees),
        frames=None
        if store.read_only
        else archive.FrameDirectory(f"{store.path}/frames", durability=job.config.store.durability),
    )
    write_pack(job, document, options)
    figures: dict[str, int | float | str] = {
        "bytes": written.size,
        "frames": written.frames,
        "frames_reused": written.frames_reused,
        "seconds": time.monotonic() - start,
        "sha256": written.sha256,
    }
    return Outcome("packed", path, figures, written.warnings)


def _description(job: Job, record: KeyRecord, trees: tuple[Any, ...]) -> dict[str, Any]:
    """Return what the archive says of itself: nothing that depends on the place or the time."""
    return {
        "venv": job.spec.name,
        "key": {"digest": record.key.digest, "parts": record.key.parts},
        "python": archive.needs_of(record.interpreter),
        "distributions": {tree.name: tree.version for tree in trees if tree.version},
    }


class _Source:
    """The store's objects, as the archive wants to see them."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def path(self, digest: str, executable: bool) -> str:
        return self._objects.path(Name(digest, executable))


def _not_squished(job: Job, why: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"cannot pack: {why}",
        where=f"{job.spec.name}: {shown(job.place.path)}",
        state="Nothing was written.",
        hint=f'Run "doit *:{job.spec.name}".',
    )
