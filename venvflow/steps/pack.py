"""``pack``: the archive of a venv, from manifest and objects; remade only when they change."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from venvflow import archive
from venvflow.errors import Refused, UsageError, shown
from venvflow.job import Job
from venvflow.model import Manifest, Outcome
from venvflow.objects import Name
from venvflow.progress import Lines
from venvflow.records import (
    KeyRecord,
    archive_path,
    need_key,
    pack_is_current,
    read_excluded,
    write_pack,
)
from venvflow.slimming import Saved, saved_from
from venvflow.steps.manifests import manifest_of
from venvflow.store import Store


def pack(job: Job, progress: archive.Progress | None = None, *, threads: int = 2) -> Outcome:
    """Write the archive that the config asks for, from the manifest that squish left.

    Answers ``packed``, ``kept`` (it is there, whole) or ``none`` (no archive is asked for). Raises
    EnvironmentFailure when there is no venv for the key, an object is damaged or the disk is full;
    there is never half an archive under the final name.
    """
    options = job.spec.pack
    if options is None:
        return Outcome("none", "the config asks for no archive")
    path = archive_path(job, options)
    with material(job) as things:
        if pack_is_current(job) and not job.force:
            return Outcome("kept", path)
        manifest = things.manifest()
        wanted = archive.Options(options.format, options.level, threads)
        outcome = _pack(things, manifest, path, wanted, progress)
        write_pack(job, [tree.digest for tree in manifest.trees], options)
    return outcome


def pack_to(
    job: Job, output: str, options: archive.Options, progress: archive.Progress | None = None
) -> Outcome:
    """Write an archive of the job's venv as *options* say, to *output*, whatever the config says.

    *output* is a path in which :func:`filled_name` fills in what stands in braces. Answers ``packed``.
    Raises what :func:`pack` does, and UsageError for a name that cannot be filled in.
    """
    with material(job) as things:
        manifest = things.manifest()
        path = os.path.abspath(filled_name(output, job, things.record, manifest))
        refuse_inside(path, {"the venv": job.place.path, "the store": things.store.path})
        return _pack(things, manifest, path, options, progress)


def saved(job: Job) -> list[Saved] | None:
    """Return what each exclude pattern saved, or None if that is not known: the venv was not built here."""
    rows = read_excluded(job, need_key(job).key.digest)
    return None if rows is None else saved_from(rows)


def _pack(
    things: Material,
    manifest: Manifest,
    path: str,
    options: archive.Options,
    progress: archive.Progress | None,
) -> Outcome:
    start = time.monotonic()
    job = things.job
    lines = Lines(job.say, f"{job.spec.name}: packing")
    written = things.write(manifest, path, options, frames=things.frames(), progress=progress or lines)
    figures: dict[str, int | float | str] = {
        "bytes": written.size,
        "content_bytes": written.content_size,
        "entries": written.entries,
        "frames": written.frames,
        "frames_reused": written.frames_reused,
        "seconds": time.monotonic() - start,
        "sha256": written.sha256,
    }
    return Outcome("packed", path, figures, written.warnings)


# --------------------------------------------------------------------------- what archives are made of


@dataclass(frozen=True, slots=True)
class Material:
    """What an archive or an export of the job's venv is made of, while the venv and the store are held."""

    job: Job
    store: Store
    record: KeyRecord

    def path(self, digest: str, executable: bool) -> str:
        """Return the path of one of the store's objects."""
        return self.store.objects.path(Name(digest, executable))

    def manifest(self) -> Manifest:
        """Return the venv's manifest; raises EnvironmentFailure when it is not squished or not there."""
        return manifest_of(self.job, self.store, self.record)

    def description(self, manifest: Manifest) -> dict[str, Any]:
        """Return what it says of itself: nothing that depends on the place or the time."""
        return {
            "venv": self.job.spec.name,
            "key": {"digest": self.record.key.digest, "parts": self.record.key.parts},
            "python": archive.needs_of(self.record.interpreter),
            "distributions": {tree.name: tree.version for tree in manifest.trees if tree.version},
        }

    def frames(self) -> archive.FrameDirectory | None:
        """Return where the store keeps compressed trees, or None if it cannot be written."""
        if self.store.read_only:
            return None
        durability = self.job.config.store.durability
        return archive.FrameDirectory(f"{self.store.path}/frames", durability=durability)

    def write(
        self,
        manifest: Manifest,
        path: str,
        options: archive.Options,
        *,
        frames: archive.FrameDirectory | None,
        progress: archive.Progress | None,
    ) -> archive.Written:
        """Write an archive of *manifest* to *path*."""
        description = self.description(manifest)
        return archive.write_archive(
            manifest, self, path, options, description=description, frames=frames, progress=progress
        )


@contextmanager
def material(job: Job) -> Iterator[Material]:
    """Hold venv and store, and give what archives are made of."""
    record = need_key(job)
    with job.locked(), job.open_store() as store, store.use():
        yield Material(job, store, record)


def refuse_inside(path: str, others: Mapping[str, str]) -> None:
    """Raise Refused when *path* lies in one of *others*, by what they are and where."""
    real = os.path.realpath(path)
    for what, other in others.items():
        if f"{real}/".startswith(f"{os.path.realpath(other)}/"):
            raise Refused(
                f"{shown(path)} lies inside of {what}",
                state="Nothing was written.",
                hint="Choose a place outside of it.",
            )


# --------------------------------------------------------------------------- names

_FIELD = re.compile(r"\{([^{}]*)\}")


def filled_name(template: str, job: Job, record: KeyRecord, manifest: Manifest) -> str:
    """Return *template* with ``{venv}``, ``{key}``, ``{python}`` and ``{version:NAME}`` filled in.

    That is the venv's name, the first twelve digits of its key, Python's version, and the version of the
    distribution NAME in the venv. Raises UsageError for anything else in braces.
    """
    values = {"venv": job.spec.name, "key": record.key.digest[:12], "python": record.interpreter.version}
    for tree in manifest.trees:
        if tree.version:
            values[f"version:{tree.name}"] = tree.version

    def value(field: re.Match[str]) -> str:
        name = re.sub(r"[-_.]+", "-", field[1]).lower() if field[1].startswith("version:") else field[1]
        if name not in values:
            raise UsageError(
                f"the name {template!r} asks for {field[0]}, which is not known",
                where=job.spec.name,
                state="Nothing was written.",
                hint="Known are {venv}, {key}, {python}, and {version:NAME} of what is installed.",
            )
        return values[name].replace("/", "_")

    return _FIELD.sub(value, template)
