"""The verbs: one step of the flow each, for one venv. Values in, values out, nothing printed.

Every step takes a :class:`~venvflow.steps.job.Job`, holds the locks that it needs, looks again inside
them whether there is anything to do, and answers with an :class:`~venvflow.model.Outcome`. All of them can
be run again at any time.
"""

from venvflow.steps.build_venv import build_venv
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.job import Job
from venvflow.steps.pack import pack
from venvflow.steps.restore import restore
from venvflow.steps.squish import squish
from venvflow.steps.store import store
from venvflow.steps.trim import trim

__all__ = ["Job", "build_venv", "hash_lockfiles", "pack", "restore", "squish", "store", "trim"]
