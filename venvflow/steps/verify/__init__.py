"""``verify``: checks objects against their names and venvs against their manifests, and fixes them.

By default only what changed by its stat is read again. An edit through a hard link is in every venv that has
the file, and nothing on disk says in which of them it was made: the venv that was named, or the one in which
its directory changed since, counts as the editor's, and keeps the edit as a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from venvflow.state.reader import StoreReader
from venvflow.state.registry import Registration
from venvflow.state.store import Store
from venvflow.steps.verify.checks import FileChecks, ObjectChecks
from venvflow.steps.verify.healing import Healing
from venvflow.steps.verify.inspection import Finding, Inspection, Verified

__all__ = ["Finding", "Verified", "heal", "verify"]


def verify(
    store: StoreReader,
    registrations: Iterable[Registration],
    *,
    full: bool = False,
    only: frozenset[str] = frozenset(),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verified:
    """Verify the store and the venvs of *registrations*.

    *only* are paths of venvs: objects that none of them has are left out. *full* reads everything again.
    *progress* is called with bytes read and in all. The store is held by the caller. Raises
    EnvironmentFailure for a venv that cannot be read.
    """
    inspection = Inspection(store, full, only, progress)
    _inspect(inspection, None, registrations)
    return inspection.result


def heal(
    store: Store,
    registrations: Iterable[Registration],
    *,
    full: bool = False,
    only: frozenset[str] = frozenset(),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verified:
    """Verify as :func:`verify` does, and fix what can be fixed.

    *only* count as the venvs where edits were made, too.
    """
    inspection = Inspection(store, full, only, progress)
    _inspect(inspection, Healing(inspection, store), registrations)
    for venv in inspection.venvs:
        venv.remember_private(sync=store.durable)
    return inspection.result


def _inspect(inspection: Inspection, healing: Healing | None, registrations: Iterable[Registration]) -> None:
    inspection.walk(registrations)
    ObjectChecks(inspection, healing).run()  # first: files that are objects are checked with them
    for venv in inspection.chosen:
        FileChecks(inspection, healing, venv).run()
