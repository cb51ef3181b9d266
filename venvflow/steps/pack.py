"""``pack``: writes the archive of a venv from manifest and objects, when they changed."""

from __future__ import annotations

import os
import time

from venvflow.disk import archive
from venvflow.disk.scratch import refuse_inside
from venvflow.errors import Refused, shown
from venvflow.model import Manifest, Outcome, Saved
from venvflow.pure.plan import ArchiveFacts, why_pack
from venvflow.steps.job import Job
from venvflow.steps.pack_source import PackSource, pack_source
from venvflow.steps.state_files import archive_facts, archive_path, need_key, read_excluded, write_pack


def pack(job: Job, progress: archive.Progress | None = None, *, threads: int | None = None) -> Outcome:
    """Write the archive that the config asks for, from the manifest that squish left.

    Answers ``packed``, ``kept`` (it is there, whole) or ``none`` (the config wants no archive). Raises
    EnvironmentFailure when there is no venv for the key, an object is damaged or the disk is full;
    there is never half an archive under the final name.
    """
    options = job.spec.pack
    if options is None:
        return Outcome("none", "the config asks for no archive")
    with pack_source(job) as source:
        receipt, known = job.place.receipt(), archive_facts(job) or ArchiveFacts()
        key = source.record.key.digest
        is_shared = receipt is not None and receipt.is_shared_for(key)
        trees_now = receipt.trees if receipt is not None and is_shared else None
        if not why_pack(known, key, trees_now) and not job.force:
            return Outcome("kept", archive_path(job), warnings=source.left_out())
        name = os.path.join(options.output, f"{options.name}.{options.format}")
        wanted = archive.Options(options.format, options.level, threads or options.threads, options.arcroot)
        manifest, outcome = _pack(source, name, wanted, progress)
        trees = [tree.digest for tree in manifest.trees]
        write_pack(job, key, trees, options, outcome.reason)
    return outcome


def pack_to(
    job: Job, output: str, options: archive.Options, progress: archive.Progress | None = None
) -> Outcome:
    """Write an archive of the job's venv as *options* say, to *output*, whatever the config says.

    *output* is a path with fields in braces (:mod:`venvflow.pure.names`). Answers ``packed``.
    Raises what :func:`pack` does, and UsageError for a name that cannot be filled in.
    """
    with pack_source(job) as source:
        return _pack(source, output, options, progress)[1]


def saved(job: Job) -> list[Saved] | None:
    """Return what each exclude pattern saved, or None if that is not known: the venv was not built here."""
    return read_excluded(job, need_key(job).key.digest)


def _pack(
    source: PackSource, output: str, options: archive.Options, progress: archive.Progress | None
) -> tuple[Manifest, Outcome]:
    """Write the archive, names filled in; return the manifest that it is of."""
    try:
        manifest = source.manifest(check_objects=False)
        return manifest, _written(source, manifest, output, options, progress)
    except archive.DamagedObject:
        # Most frames are kept, so few objects are needed, and hardly ever is one gone. Looking at each one
        # beforehand would take longer than writing the archive.
        manifest = source.manifest()
        return manifest, _written(source, manifest, output, options, progress)


def _written(
    source: PackSource,
    manifest: Manifest,
    output: str,
    options: archive.Options,
    progress: archive.Progress | None,
) -> Outcome:
    start = time.monotonic()
    job = source.job
    path = os.path.abspath(source.filled_name(output, manifest))
    refuse_inside(path, {"the venv": job.place.path, "the store": source.store.path})
    _refuse_to_replace(path, job)
    frames = source.frames()
    written = source.write(manifest, path, options, frames=frames, progress=progress or job.meter)
    figures: dict[str, int | float | str] = {
        "bytes": written.size,
        "content_bytes": written.content_size,
        "entries": written.entries,
        "frames": written.frames,
        "frames_reused": written.frames_reused,
        "seconds": time.monotonic() - start,
        "sha256": written.sha256,
    }
    return Outcome("packed", path, figures, (*source.left_out(), *written.warnings))


def _refuse_to_replace(path: str, job: Job) -> None:
    """Raise Refused when there is a file at *path* that venvflow did not write.

    One that a killed run left without its checksum, or that somebody damaged, is written again.
    """
    ours = job.force or path == archive_path(job) or archive.recorded_digest(path) is not None
    if os.path.isfile(path) and not ours and not archive.is_ours(path):
        raise Refused(
            f"{shown(path)} is there already, and venvflow did not write it",
            state="It was left as it is.",
            hint="Move it away, or choose another name.",
        )
