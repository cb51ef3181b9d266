"""Proves that an archive is good: it can be made again, names no local path, and runs elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from venvflow.disk import archive
from venvflow.disk.scratch import scratch
from venvflow.state.store import Store
from venvflow.steps.job import Job
from venvflow.steps.new_venv import run_python
from venvflow.steps.pack_source import pack_source
from venvflow.steps.state_files import KeyRecord, need_key


@dataclass(frozen=True, slots=True)
class Checked:
    """What :func:`check` found: the SHA-256 of the archive, of two new ones, and local paths left in it."""

    sha256: str
    again: tuple[str, ...]
    traces: tuple[archive.Trace, ...]

    @property
    def reproducible(self) -> bool:
        """Return whether all are the same."""
        return set(self.again) == {self.sha256}


def check(job: Job, path: str, options: archive.Options, progress: archive.Progress | None = None) -> Checked:
    """Pack the venv twice more, in other directories and threads, and compare with the archive *path*.

    No kept frame is used for it. Raises what :func:`pack` does, and Refused for a damaged archive.
    """
    with pack_source(job) as source:
        manifest = source.manifest()
        local = local_paths(job, source.record, source.store)
        again = []
        for threads in (1, 2):
            with scratch() as other_place:
                other = os.path.join(other_place.path, f"again.{options.format}")
                wanted = replace(options, threads=threads)
                written = source.write(manifest, other, wanted, frames=None, progress=progress)
                again.append(written.sha256)
    return Checked(archive.digest_of_file(path), tuple(again), tuple(archive.traces(path, local)))


_ANYWHERE = frozenset({"/", "/usr", "/usr/local", "/opt", "/nix", "/opt/homebrew"})
"""Prefixes of interpreters that say nothing about the machine."""


def local_paths(job: Job, record: KeyRecord, store: Store) -> list[str]:
    """Return the local paths that an archive should not name: of venv, project, store, home, interpreter."""
    home = job.environ.get("HOME", "")
    snapshot = store.find(record.key.digest, job.position)
    built_in = snapshot.root if snapshot is not None else ""  # what is left of it is found here, too
    prefix = os.path.dirname(record.interpreter.home)
    paths = (
        job.spec.path,
        job.place.path,
        job.config.root,
        job.root,
        built_in,
        store.path,
        home,
        prefix,
    )
    resolved = {path.rstrip("/") for one in paths if one for path in (one, os.path.realpath(one))}
    return sorted(path for path in resolved if path not in _ANYWHERE and os.path.isabs(path))


@dataclass(frozen=True, slots=True)
class Smoke:
    """How the code of a smoke test ended: exit *status* (or the negative number of a signal) and *output*."""

    status: int
    output: str


def smoke(job: Job, path: str, code: str, progress: archive.Progress | None = None) -> Smoke:
    """Unpack the archive *path* to a temporary place and run Python *code* by the venv there.

    Raises Refused for an archive that cannot be trusted, EnvironmentFailure for space and time.
    """
    record = need_key(job)
    with scratch(environ=job.environ) as temporary:
        directory = os.path.join(temporary.path, "a b")  # many programs cannot do with a space
        os.mkdir(directory)
        place, _ = archive.unpack(
            path,
            os.path.join(os.path.realpath(directory), job.spec.name),
            record.interpreter.executable,
            project=job.root,
            progress=progress,
        )
        path = os.pathsep.join([f"{place.root}/bin", job.environ.get("PATH", os.defpath)])
        try:
            return Smoke(*run_python(place.root, ["-c", code], job.environ, directory, PATH=path))
        except (OSError, TimeoutError) as error:
            return Smoke(1, str(error))
