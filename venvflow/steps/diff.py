"""``diff``: reads what venvs and snapshots hold as manifests that can be compared. Writes nothing."""

from __future__ import annotations

import os
from contextlib import suppress

from venvflow.disk.places import Place
from venvflow.errors import EnvironmentFailure, UsageError, shown
from venvflow.model import Manifest, Snapshot
from venvflow.pure.manifest import Corrupt, group
from venvflow.pure.relocate import Places
from venvflow.state.changes import known_of, look_at, without_excluded
from venvflow.state.file_stats import look_as_made
from venvflow.state.reader import StoreReader
from venvflow.state.survey import survey
from venvflow.steps.job import Job


def manifest_of_snapshot(store: StoreReader, snapshot: Snapshot) -> Manifest:
    """Return what a snapshot holds; raises EnvironmentFailure if the store has lost some of it."""
    try:
        return store.load(snapshot)
    except Corrupt as error:
        raise EnvironmentFailure(
            f"the snapshot is damaged: {error}",
            where=snapshot.id[:12],
            state="Nothing was changed.",
            hint='"venvflow verify" says what is damaged; doit makes the snapshot anew.',
        ) from error


def manifest_of_venv(path: str, store: StoreReader | None, job: Job | None = None) -> Manifest:
    """Return what the venv at the absolute *path* holds now; any tool may have made it.

    A shared venv of which no file looks changed is what its trees in *store* say; else what looks changed is
    read. *job* is that of the config, if that names the venv: what it excludes is left out. Raises UsageError
    when there is no venv, EnvironmentFailure when it cannot be read.
    """
    place = Place(os.path.realpath(path))
    if not os.path.lexists(f"{place.path}/pyvenv.cfg"):
        raise _no_venv(place, job)
    matcher = job.matcher if job is not None else None
    receipt = place.receipt()
    if receipt is not None and not receipt.is_at(place.path):
        receipt = None  # it was copied or moved here: what it says is not about this venv
    seen = look_at(place.path, receipt, store)
    if store is not None and receipt is not None and receipt.state == "shared":
        with suppress(Corrupt):
            if look_as_made(without_excluded(seen.found, matcher), receipt):
                return store.manifest(receipt.trees, bound=receipt.bound)
    known = known_of(store, receipt, seen).stamped if store is not None and receipt is not None else {}
    python = receipt.python if receipt is not None else ""
    places = Places(
        place.path,
        job.root if job is not None else place.parent,
        python or os.path.realpath(f"{place.path}/bin/python"),
    )
    surveyed = survey(
        place.path,
        places,
        found=seen.found,
        known=known,
        excludes_file=matcher.excludes_file if matcher else None,
        excludes_directory=matcher.excludes_dir if matcher else None,
    )
    return Manifest(group(surveyed.entries, surveyed.distributions), surveyed.bound)


def _no_venv(place: Place, job: Job | None) -> UsageError:
    what = "the venv is not there" if place.state() in ("absent", "empty") else "what is there is not a venv"
    where = job.where if job is not None else shown(place.path)
    hint = f'Run "{job.doit}", or compare its snapshot.' if job is not None else ""
    return UsageError(what, where=where, hint=hint)
