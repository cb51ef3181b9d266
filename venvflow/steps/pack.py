"""``pack``: writes the archive of a venv from manifest and objects, when they changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from venvflow.disk import archive
from venvflow.disk.scratch import refuse_inside
from venvflow.errors import Refused, shown
from venvflow.model import Manifest, Outcome, PackOptions, Part, Saved
from venvflow.pure.decoding import Corrupt
from venvflow.pure.plan import ArchiveFacts, why_pack
from venvflow.steps.job import Job
from venvflow.steps.noting import noted
from venvflow.steps.pack_parts import listed_parts, pack_parts
from venvflow.steps.pack_source import (
    ALL,
    Choice,
    PackSource,
    StoredVenv,
    Warned,
    pack_source,
    refuse_warnings,
)
from venvflow.steps.state_files import archive_facts, archive_path, need_key, read_excluded, write_pack


@dataclass(frozen=True, slots=True)
class Packed(Outcome):
    """What ``pack`` did; *parts* are the archives of a venv in layers, whose list the *reason* names."""

    parts: tuple[Part, ...] = ()


def pack(
    job: Job, progress: archive.Progress | None = None, *, threads: int | None = None, strict: bool = False
) -> Packed:
    """Write the archive that the config asks for, from the manifest that squish left.

    Answers ``packed``, ``kept`` (it is there, whole), ``none`` (the config wants no archive) or ``warned``
    (*strict*: there are warnings, so nothing was written). Raises
    EnvironmentFailure when there is no venv for the key, an object is damaged or the disk is full;
    there is never half an archive under the final name.
    """
    options = job.spec.pack
    if options is None:
        return Packed("none", "the config asks for no archive")
    with pack_source(job) as source:
        act = partial(_pack_configured, source, options, progress, threads=threads, strict=strict)
        return _noted(source, act)


def _pack_configured(
    source: PackSource,
    options: PackOptions,
    progress: archive.Progress | None,
    *,
    threads: int | None,
    strict: bool,
) -> Packed:
    job = source.job
    receipt, known = job.place.receipt(), archive_facts(job) or ArchiveFacts()
    assert source.key is not None  # noqa: S101 - a venv of the config has one
    key = source.key.key.digest
    is_shared = receipt is not None and receipt.is_shared_for(key)
    trees_now = receipt.trees if receipt is not None and is_shared else None
    if not why_pack(known, key, trees_now) and not job.force:
        path = archive_path(job)
        with suppress(OSError, Corrupt):  # a list that cannot be read is written anew
            parts = listed_parts(path) if options.layers else ()
            return Packed("kept", path, warnings=source.left_out(), parts=parts)
    wanted = archive.Options(
        options.format,
        options.level,
        threads or options.threads,
        options.arcroot,
        python=options.python,
    )
    name = os.path.join(options.output, f"{options.name}.{options.format}")
    write: Callable[[Manifest], Packed] = partial(
        _written, source, output=name, options=wanted, progress=progress, strict=strict
    )
    if options.layers:
        write = partial(
            _written_parts, source, configured=options, options=wanted, progress=progress, strict=strict
        )
    manifest, outcome = _pack(source, write)
    if outcome.did != "warned":
        trees = [tree.digest for tree in manifest.trees]
        write_pack(job, key, trees, options, outcome.reason, parts=[part.path for part in outcome.parts])
    return outcome


def _noted(source: PackSource, act: Callable[[], Packed]) -> Packed:
    """Return what *act* answers; what is packed of a venv of the config is history."""
    return noted("pack", source.job, source.store, act) if isinstance(source, StoredVenv) else act()


def pack_to(
    job: Job,
    output: str,
    options: archive.Options,
    progress: archive.Progress | None = None,
    *,
    choice: Choice = ALL,
    strict: bool = False,
) -> Packed:
    """Write an archive of the job's venv as *options* say, to *output*, whatever the config says.

    *output* is a path with fields in braces (:mod:`venvflow.pure.names`). Answers ``packed``, or ``warned``
    (as :func:`pack` does). Raises what :func:`pack` and :func:`~venvflow.steps.pack_source.pack_source` do,
    and UsageError for a name that cannot be filled in.
    """
    with pack_source(job, choice) as source:
        write = partial(_written, source, output=output, options=options, progress=progress, strict=strict)
        return _noted(source, lambda: _pack(source, write)[1])


def saved(job: Job) -> list[Saved] | None:
    """Return what each exclude pattern saved, or None if that is not known: the venv was not built here."""
    return read_excluded(job, need_key(job).key.digest)


def _pack(source: PackSource, write: Callable[[Manifest], Packed]) -> tuple[Manifest, Packed]:
    """Let *write* write what there is to write of the venv; return the manifest that it is of."""
    try:
        manifest = source.manifest(check_objects=False)
        return manifest, write(manifest)
    except archive.DamagedObject:
        # Most frames are kept, so few objects are needed, and hardly ever is one gone. Looking at each one
        # beforehand would take longer than writing the archive.
        manifest = source.manifest()
        return manifest, write(manifest)


def _written_parts(
    source: PackSource,
    manifest: Manifest,
    *,
    configured: PackOptions,
    options: archive.Options,
    progress: archive.Progress | None,
    strict: bool,
) -> Packed:
    job = source.job
    refuse_inside(configured.output, source.apart())
    left_out = source.left_out()
    try:
        found = pack_parts(
            source,
            manifest,
            configured,
            options,
            may_replace=partial(_refuse_to_replace, job=job),
            progress=progress or job.meter,
            accept=refuse_warnings(left_out) if strict else archive.accept_any,
        )
    except Warned as warned:
        return Packed("warned", warnings=warned.warnings)
    figures: dict[str, int | float | str] = {
        "bytes": sum(part.size for part in found.parts),
        "content_bytes": sum(part.content_size for part in found.parts),
        "entries": sum(part.entries for part in found.parts),
        "frames": sum(part.frames for part in found.parts),
        "frames_reused": sum(part.frames_reused for part in found.parts),
        "parts": len(found.parts),
        "parts_kept": sum(part.kept for part in found.parts),
        "seconds": time.monotonic() - source.begun,
        "sha256": found.parts[-1].sha256,
    }
    did = "kept" if all(part.kept for part in found.parts) else "packed"
    return Packed(did, found.list, figures, (*left_out, *found.warnings), parts=found.parts)


def _written(
    source: PackSource,
    manifest: Manifest,
    *,
    output: str,
    options: archive.Options,
    progress: archive.Progress | None,
    strict: bool,
) -> Packed:
    job = source.job
    path = os.path.abspath(source.filled_name(output, manifest))
    refuse_inside(path, source.apart())
    _refuse_to_replace(path, job)
    frames, left_out = source.frames(), source.left_out()
    try:
        written = source.write(
            manifest, path, options, frames=frames, progress=progress or job.meter,
            accept=refuse_warnings(left_out) if strict else archive.accept_any,
        )  # fmt: skip
    except Warned as warned:
        return Packed("warned", path, warnings=warned.warnings)
    figures: dict[str, int | float | str] = {
        "bytes": written.size,
        "content_bytes": written.content_size,
        "entries": written.entries,
        "frames": written.frames if frames is not None else 0,
        "frames_reused": written.frames_reused,
        "seconds": time.monotonic() - source.begun,
        "sha256": written.sha256,
    }
    return Packed("packed", path, figures, (*left_out, *written.warnings))


def _refuse_to_replace(path: str, job: Job) -> None:
    """Raise Refused when there is a file at *path* that venvflow did not write.

    One that a killed run left without its checksum, or that somebody damaged, is written again.
    """
    configured = job.spec.name and path == archive_path(job)
    ours = job.force or configured or archive.recorded_digest(path) is not None
    if os.path.isfile(path) and not ours and not archive.is_ours(path):
        raise Refused(
            f"{shown(path)} is there already, and venvflow did not write it",
            state="It was left as it is.",
            hint="Move it away, choose another name, or use --force to replace it.",
        )
