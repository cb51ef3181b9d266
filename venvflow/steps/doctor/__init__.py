"""``doctor``: checks what goes wrong in practice, and says how to fix it.

Nothing is changed and nothing is made, but for directories in which links, locks and the like are tried, and
which go away again (:mod:`venvflow.steps.doctor.probes`). Checks are independent: one that fails
keeps none from running.
"""

from __future__ import annotations

from collections.abc import Iterator

from venvflow.errors import shown
from venvflow.steps.doctor import machine, project, remote, storage
from venvflow.steps.doctor.check import Check, CheckContext, CheckResult, Verdict, fail

__all__ = ["CheckContext", "CheckResult", "Verdict", "examine"]


def examine(context: CheckContext) -> Iterator[CheckResult]:
    """Yield the findings one by one, as they are made; some take a moment."""
    for name, check in (machine.CHECKS | project.CHECKS | storage.CHECKS | remote.CHECKS).items():
        yield from _looked_at(name, check, context)


def _looked_at(name: str, check: Check, context: CheckContext) -> Iterator[CheckResult]:
    try:
        found = check(context)
        yield from (found,) if isinstance(found, CheckResult) else found
    except OSError as error:
        text = f"{shown(error.filename or '')}: {str(error.strerror or error).lower()}"
        yield fail(name, f"it cannot be checked: {text}", "Check owner and permissions there.")
