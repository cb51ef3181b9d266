"""The source of archives and exports of a venv: its manifest, objects, description and names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from venvflow.disk import archive
from venvflow.disk.objects import Name
from venvflow.disk.scratch import scratch
from venvflow.errors import UsageError
from venvflow.model import Entry, Manifest, Tree
from venvflow.pure import relocate
from venvflow.pure.manifest import make_tree
from venvflow.pure.names import KNOWN, fill
from venvflow.pure.patterns import compile_patterns
from venvflow.pure.relocate import without_rows
from venvflow.state.store import Store
from venvflow.steps.facts import find_venv
from venvflow.steps.job import Job
from venvflow.steps.squish import manifest_of
from venvflow.steps.state_files import KeyRecord, need_key


@contextmanager
def pack_source(job: Job) -> Iterator[PackSource]:
    """Hold the venv and the store, and give what archives are made from."""
    record = need_key(job)
    with job.locked(), job.open_store() as store, store.use(), ExitStack() as later:
        yield PackSource(job, store, record, later)


@dataclass(frozen=True, slots=True)
class PackSource:
    """What an archive or an export of the job's venv is made from, while the venv and the store are held."""

    job: Job
    store: Store
    record: KeyRecord
    _later: ExitStack
    _pruned: dict[str, str] = field(default_factory=dict)

    def path(self, digest: str, executable: bool) -> str:
        """Return the path of one of the store's objects, or of a RECORD without rows of excluded files."""
        return self._pruned.get(digest) or self.store.objects.path(Name(digest, executable))

    def manifest(self, *, check_objects: bool = True) -> Manifest:
        """Return the venv's manifest; raises EnvironmentFailure when it is not squished or not there.

        Without *check_objects* some objects may be gone.
        """
        return manifest_of(self.job, self.store, self.record, check_objects=check_objects)

    def left_out(self) -> tuple[str, ...]:
        """Return a warning if the venv was changed since it was shared: its manifest is without that."""
        receipt = self.job.place.receipt()
        if receipt is None or not receipt.is_shared_for(self.record.key.digest):
            return ()
        drift = find_venv(self.job, self.store, "stat").drift
        return (f"changed since it was shared ({drift}): that is not in it",) if drift else ()

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
        return archive.FrameDirectory(f"{self.store.path}/frames")

    def write(
        self,
        manifest: Manifest,
        path: str,
        options: archive.Options,
        *,
        frames: archive.FrameDirectory | None,
        progress: archive.Progress | None,
    ) -> archive.Written:
        """Write an archive of *manifest* to *path*; fields in its arcroot are filled in."""
        options = replace(options, arcroot=self.filled_name(options.arcroot, manifest))
        return archive.write_archive(
            self.portable(manifest),
            self,
            path,
            options,
            description=self.description(manifest),
            frames=frames,
            progress=progress,
        )

    def filled_name(self, name: str, manifest: Manifest) -> str:
        """Return *name* with its fields (:mod:`venvflow.pure.names`) filled in; UsageError for others."""
        versions = {f"version:{tree.name}": tree.version for tree in manifest.trees if tree.version}
        own = {
            "venv": self.job.spec.name,
            "key": self.record.key.digest[:12],
            "python": self.record.interpreter.version,
        }
        try:
            return fill(name, versions | own)
        except KeyError as error:
            raise UsageError(
                f"the name {name!r} asks for {error.args[0]}, which is not known",
                where=self.job.spec.name,
                state="Nothing was written.",
                hint=f"Known are {KNOWN}.",
            ) from None

    def portable(self, manifest: Manifest) -> Manifest:
        """Return *manifest* with RECORDs that list only what is left.

        A venv that venvflow built has no others. One that was there before keeps its excluded files, and so
        its RECORDs keep their rows.
        """
        if not self.job.spec.exclude:
            return manifest
        matcher = compile_patterns(self.job.spec.exclude)
        there = {entry.path for tree in manifest.trees for entry in tree.entries}

        def is_left_out(path: str) -> bool:
            return path not in there and matcher.excludes_file(path)

        return Manifest(
            tuple(self._pruned_tree(tree, is_left_out) for tree in manifest.trees), manifest.bound
        )

    def _pruned_tree(self, tree: Tree, is_left_out: Callable[[str], bool]) -> Tree:
        entries = [
            self._pruned_entry(entry, is_left_out) if entry.path.endswith(".dist-info/RECORD") else entry
            for entry in tree.entries
        ]
        return tree if entries == [*tree.entries] else make_tree(tree.name, tree.version, entries)

    def _pruned_entry(self, entry: Entry, is_left_out: Callable[[str], bool]) -> Entry:
        data = archive.read_object(self, entry)
        pruned, slots = without_rows(entry.path, data, entry.slots, is_left_out)
        if pruned == data:
            return entry
        digest = relocate.digest_of(pruned)[0].hex()
        path = os.path.join(self._later.enter_context(scratch()).path, digest)
        with open(path, "wb") as file:
            file.write(pruned)
        self._pruned[digest] = path
        return entry._replace(digest=digest, size=len(pruned), slots=slots)
