"""Gathers the facts of a venv, from which :mod:`venvflow.pure.plan` decides.

Changes nothing. The caller says how closely to look at the venv (:mod:`venvflow.state.changes`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from venvflow import builders
from venvflow.errors import EnvironmentFailure, Refused, VenvflowError, shown
from venvflow.model import PlaceState, Receipt, Snapshot
from venvflow.pure.comparison import part_changes
from venvflow.pure.plan import VenvFacts
from venvflow.pure.sharing import is_resettled
from venvflow.state import needs
from venvflow.state.changes import Depth, Drift, changes
from venvflow.state.file_stats import StatChecker, checker_by_own_names
from venvflow.state.reader import StoreReader
from venvflow.steps.hash_lockfiles import KeyNow
from venvflow.steps.job import Job
from venvflow.steps.state_files import KeyRecord, archive_facts, has_passed, is_published


@dataclass(frozen=True, slots=True)
class FoundVenv:
    """A venv as it was found: what is at its place, its receipt if it is ours, and what changed since."""

    there: PlaceState
    receipt: Receipt | None
    drift: Drift


def find_venv(
    job: Job,
    store: StoreReader | None,
    depth: Depth,
    *,
    checker: StatChecker | None = None,
    ours: int | None = None,
) -> FoundVenv:
    """Return what is at the job's place.

    *store* is None where there is none yet; *checker* sees each object once for many venvs. *ours* is the
    inode of the directory that we made at the place; without it, the store knows. Raises EnvironmentFailure
    for a venv that cannot be read: what is not known must not be called damage.
    """
    registration = store.registration(job.place.path) if store is not None else None
    there = job.place.state(ours or (registration.inode if registration else None))
    receipt = job.place.receipt() if there == "ours" else None
    if receipt is None:
        return FoundVenv(there, None, Drift())
    drift = changes(
        job.place, receipt, store, job.matcher, depth=depth, checker=checker, min_size=job.spec.min_size
    )
    return FoundVenv(there, receipt, drift)


def find_replaceable(job: Job, store: StoreReader, *, ours: int | None = None) -> FoundVenv:
    """Return what is at the job's place and is about to be replaced; see :func:`find_venv`.

    Each file is looked at by its stat, and its bytes are read if it looks changed: nobody's work may be lost.
    """
    with checker_by_own_names(job.config) as checker:
        return find_venv(job, store, "stat", checker=checker, ours=ours)


def why_not_replaced(job: Job, venv: FoundVenv) -> Refused | None:
    """Return why what was found must not be replaced: something would be lost that venvflow did not make."""
    try:
        job.place.refuse_unless_replaceable(venv.there)
    except Refused as error:
        return error
    if job.force or not venv.drift.by_hand:
        return None
    return _changed_by_hand(job, f"the venv was changed by hand ({venv.drift})", "It was left as it is.")


def why_not_published(job: Job, venv: FoundVenv) -> VenvflowError | None:
    """Return why a venv is not what its key says any more, and must not be shared and stored under it."""
    if venv.drift.by_hand:
        return _changed_by_hand(
            job,
            f"the venv was changed by hand since it was made ({venv.drift})",
            "It was left as it is and was not stored: others would get your changes.",
        )
    if all(path.endswith(".pyc") for path in venv.drift.missing):  # bytecode is made anew
        return None
    return EnvironmentFailure(
        f"files of the venv are missing ({venv.drift})",
        where=job.where,
        state="Nothing was stored: others would get a venv that is not whole.",
        hint=f'Run "{job.doit}": it is restored, or built anew.',
    )


def is_shared_anew(store: StoreReader | None, drift: Drift) -> bool:
    """Return whether a venv with this drift is shared by new settings; else it stays as it is."""
    return store is not None and not store.read_only and not drift.by_hand


def _changed_by_hand(job: Job, what: str, state: str) -> Refused:
    return Refused(what, where=job.where, state=state, hint=job.ways_out)


# --------------------------------------------------------------------------- for steps and for explain


def facts_of(
    job: Job, store: StoreReader | None, key: KeyNow, venv: FoundVenv, *, promised_by: str = ""
) -> VenvFacts:
    """Return the facts of a venv as it was found (:func:`find_venv`), for the *key* that it is wanted for.

    *store* is None where there is none yet; *promised_by* is the task of another venv that publishes a
    snapshot for the key before it is needed.
    """
    noted = key.noted.key.digest if key.noted is not None else ""
    if key.now is None:
        problem = key.problem or VenvflowError("its key cannot be computed")
        return VenvFacts(job.spec.name, job.place.path, noted, key_problem=problem)
    digest, receipt = key.now.key.digest, venv.receipt
    builder, no_builder = _builder(job)
    snapshot = store.find(digest, job.position) if store is not None else None
    has_key = receipt is not None and receipt.made != "shared"

    def has_trees(record: Snapshot | Receipt) -> bool:
        return store is not None and all(map(store.has_tree, record.trees))

    return VenvFacts(
        venv=job.spec.name,
        path=job.place.path,
        noted_key=noted,
        key=digest,
        key_holds=key.noted is key.now,
        changed_parts=_changed(key.noted, key.now),
        others_changed=key.others_changed(job.spec.name),
        there=venv.there,
        bare=venv.there == "venv" and _is_bare(job.place.path),
        receipt=receipt,
        by_hand=str(venv.drift) if venv.drift.by_hand else "",
        damage=_damage(job, venv),
        passed_check=has_passed(job, digest),
        unsettled=os.path.lexists(job.place.staging),
        why_not_replaced=why_not_replaced(job, venv),
        why_not_published=why_not_published(job, venv) if has_key else None,
        reinstalled=any(".dist-info/" in path for path in (*venv.drift.edited, *venv.drift.missing)),
        force=job.force,
        fresh=job.fresh,
        may_restore=job.spec.restore,
        builder=builder,
        no_builder=no_builder,
        snapshot=snapshot,
        snapshot_whole=snapshot is not None and has_trees(snapshot),
        lacking=needs.lacking(snapshot.needs, job.root) if snapshot is not None else "",
        published=receipt is not None and is_published(job, receipt),
        promised_by=promised_by,
        read_only=why_not_written(job, store),
        resettled=is_resettled(receipt, job.spec) and is_shared_anew(store, venv.drift),
        trees_lost=store is None or (receipt is not None and not has_trees(receipt)),
        archive=archive_facts(job),
    )


def unreadable_facts(job: Job, key: KeyNow, error: VenvflowError) -> VenvFacts:
    """Return the facts of a venv that cannot be looked at, because of *error*."""
    now, noted = (record.key.digest if record is not None else "" for record in (key.now, key.noted))
    return VenvFacts(
        job.spec.name,
        job.place.path,
        noted,
        now,
        key_holds=key.noted is key.now,
        key_problem=key.problem,
        unreadable=error,
        changed_parts=_changed(key.noted, key.now),
        others_changed=key.others_changed(job.spec.name),
    )


def _changed(noted: KeyRecord | None, now: KeyRecord | None) -> tuple[str, ...]:
    before, after = (record.key.parts if record is not None else {} for record in (noted, now))
    return tuple(each.name for each in part_changes(before, after))


def _damage(job: Job, venv: FoundVenv) -> str:
    if venv.receipt is None or venv.drift.missing:
        return str(venv.drift)
    return "" if os.access(f"{job.place.path}/bin/python", os.X_OK) else "its interpreter is gone"


def _is_bare(venv: str) -> bool:
    from venvflow.steps.lock_part import is_bare  # noqa: PLC0415 - most venvs are ours

    return is_bare(venv)


def _builder(job: Job) -> tuple[str, VenvflowError | None]:
    try:
        return builders.choose(job.spec, job.environ).name, None
    except VenvflowError as error:
        return "", error


def why_not_written(
    job: Job, store: StoreReader | None, state: str = "The venv works, its files are its own."
) -> EnvironmentFailure | None:
    """Return why the store cannot be given the files of a venv; *state* is what things are in then."""
    if store is None or not store.read_only:
        return None
    return EnvironmentFailure(
        "the store is read-only",
        where=f"{job.where}, {shown(store.path)}",
        state=state,
        hint="Make the store writable, or use another one (VENVFLOW_STORE).",
    )
