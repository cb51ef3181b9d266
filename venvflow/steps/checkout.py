"""What a git checkout brings back: the venv that the store has for the lock files that are there now.

git runs this by itself, on whatever branch somebody looks at. So nothing is built, nothing is replaced but
what venvflow made and nobody changed, nothing outside of the checkout is touched, and nothing that came with
it is run: neither ``check:`` (the next doit runs it) nor an interpreter that lies in there.
"""

from __future__ import annotations

import os
from dataclasses import replace

from venvflow.errors import Refused
from venvflow.model import Outcome
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.job import Job
from venvflow.steps.state_files import need_key


def bring_back(job: Job, top: str) -> Outcome | None:
    """Restore the job's venv if the store has it; *top* is the checkout's top directory, resolved.

    Answers ``hit``, ``miss`` (once for each key: the next checkout says nothing), ``left`` (with the reason),
    or None where there is nothing to do or to say. Raises what hash-lockfiles and restore raise.
    """
    if not job.spec.restore or not _is_below(job.place.path, top) or _has_own_python(job, top):
        return None
    hashed, receipt = hash_lockfiles(job), job.place.receipt()
    if receipt is not None and receipt.is_for(need_key(job).key.digest, job.place.path):
        return None
    return _restored(job, is_new=hashed.did == "new")


def _restored(job: Job, *, is_new: bool) -> Outcome | None:
    """Restore the venv, which is not there for its key; *is_new*: the key was another one before."""
    # Each checkout gets to here, and most have nothing to do: what follows is imported late.
    from venvflow.state.reader import open_reader  # noqa: PLC0415 - see above
    from venvflow.steps.facts import find_venv  # noqa: PLC0415 - see above
    from venvflow.steps.restore import restore  # noqa: PLC0415 - see above

    digest = need_key(job).key.digest
    with open_reader(job.config.store) as store:
        if find_venv(job, store, "directories").there not in ("absent", "empty", "ours"):
            return None
        if store is None or store.find(digest, job.position) is None:
            return Outcome("miss", "not in the store") if is_new else None
    try:
        return restore(replace(job, spec=replace(job.spec, check=())), may_ask=False)
    except Refused as error:
        return Outcome("left", error.what)


def _has_own_python(job: Job, top: str) -> bool:
    """Return whether the interpreter is a file of the checkout."""
    python = job.spec.python
    return "/" in python and (_is_below(python, top) or _is_below(os.path.realpath(python), top))


def _is_below(path: str, top: str) -> bool:
    return path.startswith(f"{top}/")
