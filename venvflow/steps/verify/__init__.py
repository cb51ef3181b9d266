"""``verify``: objects against their names, venvs against their manifests; names each finding, and mends it.

By default only what changed by its stat is read again. An edit through a hard link is in every venv that has
the file, and nothing on disk says in which of them it was made: the venv that was named, or the one in which
its directory changed since, counts as the editor's, and keeps the edit as a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from venvflow.state.registry import Registration
from venvflow.state.store import Store
from venvflow.steps.verify.files import FileJudge
from venvflow.steps.verify.findings import Finding, Kind, Verified
from venvflow.steps.verify.healing import Healing
from venvflow.steps.verify.inspection import Inspection
from venvflow.steps.verify.objects import ObjectJudge

__all__ = ["Finding", "Kind", "Verified", "verify"]


def _silent(_done: int, _total: int) -> None:
    """Say nothing."""


def verify(
    store: Store,
    registrations: Iterable[Registration],
    *,
    full: bool = False,
    heal: bool = False,
    only: frozenset[str] = frozenset(),
    caches: Sequence[str] = (),
    progress: Callable[[int, int], None] = _silent,
) -> Verified:
    """Verify the store and the venvs of *registrations*, and mend what can be mended if asked to *heal*.

    *only* are paths of venvs: objects that none of them has are left out, and they count as where edits were
    made. *full* reads everything again. *caches* are directories of builders in which good copies may be (see
    :mod:`venvflow.steps.verify.rescue`). *progress* is called with bytes read and in all. The store is held
    by the caller. Raises EnvironmentFailure for a venv that cannot be read.
    """
    inspection = Inspection(store, full, only, progress)
    healing = Healing(inspection, caches) if heal else None
    inspection.look(registrations)
    ObjectJudge(inspection, healing).judge_all()  # first: files that are objects are judged with them
    for holder in inspection.chosen:
        FileJudge(inspection, healing, holder).judge_all()
    for holder in inspection.holders:
        holder.remember_private(sync=store.durable)
    return inspection.result
