"""Proves that an archive is good: it can be made again, names no local path, and runs elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from venvflow.disk import archive
from venvflow.disk.scratch import scratch
from venvflow.model import PackOptions, Part
from venvflow.steps.bundle import SHARED_PREFIXES
from venvflow.steps.job import Job
from venvflow.steps.new_venv import run_python
from venvflow.steps.pack_parts import pack_parts
from venvflow.steps.pack_source import Choice, PackSource, brings_python, name_of, pack_source, python_of


@dataclass(frozen=True, slots=True)
class Checked:
    """What :func:`check` found: the SHA-256 of the archive, of two new ones, and local paths left in it.

    Its interpreter is to be at *python*: to name that is no trace.
    """

    sha256: str
    again: tuple[str, ...]
    traces: tuple[archive.Trace, ...]
    python: str

    @property
    def reproducible(self) -> bool:
        """Return whether all are the same."""
        return set(self.again) == {self.sha256}


def check(
    job: Job, path: str, options: archive.Options, choice: Choice, progress: archive.Progress | None = None
) -> Checked:
    """Pack the venv twice more, in other directories and threads, and compare with the archive *path*.

    No kept frame is used for it. Raises what :func:`pack` does, and Refused for a damaged archive.
    """
    with pack_source(job, choice) as source:
        manifest = source.manifest()
        local = local_paths(source)
        again = []
        for threads in (1, 2):
            with scratch() as other_place:
                other = os.path.join(other_place.path, f"again.{options.format}")
                wanted = replace(options, threads=threads)
                written = source.write(manifest, other, wanted, frames=None, progress=progress)
                again.append(written.sha256)
        python = source.python_there(options.python)
    return Checked(archive.digest_of_file(path), tuple(again), tuple(archive.traces(path, local)), python)


def check_parts(job: Job, parts: Sequence[Part], progress: archive.Progress | None = None) -> Checked:
    """Do what :func:`check` does for the archives of a venv in layers, of which the last is compared.

    It names the others by their SHA-256, so it is the same only if all are.
    """
    options = job.spec.pack or PackOptions("")
    with pack_source(job) as source:
        manifest = source.manifest()
        local = local_paths(source)
        again = []
        for threads in (1, 2):
            with scratch() as other_place:
                elsewhere = replace(options, output=other_place.path)
                wanted = archive.Options(
                    options.format, options.level, threads, options.arcroot, python=options.python
                )
                packed = pack_parts(source, manifest, elsewhere, wanted, anew=True, progress=progress)
                again.append(packed.parts[-1].sha256)
        python = source.python_there(options.python)
    found = (trace for part in parts for trace in archive.traces(part.path, local))
    return Checked(archive.digest_of_file(parts[-1].path), tuple(again), tuple(found), python)


def local_paths(source: PackSource) -> list[str]:
    """Return the local paths that an archive should not name: of venv, project, store, home, interpreter."""
    job = source.job
    home = job.environ.get("HOME", "")
    prefix = os.path.dirname(source.python.home)
    paths = (job.spec.path, job.place.path, job.config.root, job.root, home, prefix, *source.traces())
    resolved = {path.rstrip("/") for one in paths if one for path in (one, os.path.realpath(one))}
    return sorted(path for path in resolved if path not in SHARED_PREFIXES and os.path.isabs(path))


@dataclass(frozen=True, slots=True)
class Smoke:
    """How the code of a smoke test ended: exit *status* (or the negative number of a signal) and *output*."""

    status: int
    output: str


def smoke(job: Job, paths: Sequence[str], code: str, progress: archive.Progress | None = None) -> Smoke:
    """Unpack the archives *paths* to a temporary place and run Python *code* by the venv there.

    Raises Refused for an archive that cannot be trusted, EnvironmentFailure for space and time.
    """
    python = python_of(job)
    with scratch(environ=job.environ) as temporary:
        directory = os.path.join(temporary.path, "a b")  # many programs cannot do with a space
        os.mkdir(directory)
        place, _ = archive.unpack(
            paths,
            os.path.join(os.path.realpath(directory), name_of(job)),
            None if brings_python(job) else python.executable,
            project=job.root,
            progress=progress,
        )
        path = os.pathsep.join([f"{place.root}/bin", job.environ.get("PATH", os.defpath)])
        try:
            return Smoke(*run_python(place.root, ["-c", code], job.environ, directory, PATH=path))
        except (OSError, TimeoutError) as error:
            return Smoke(1, str(error))
