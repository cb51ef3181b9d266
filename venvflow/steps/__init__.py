"""The verbs: one module and one function each, for one venv. Values in, values out, nothing printed.

==================  ===============================================================
``hash_lockfiles``  from lock files, interpreter and config to the key
``restore``         a hit brings the venv, a miss says why
``build_venv``      the builder makes it beside its place; swapped in by rename
``squish``          its files become the store's, its names links
``pack``            the archive
``store``           publishes the snapshot
``trim``            applies the policy to the store
==================  ===============================================================

Every step takes a :class:`~venvflow.steps.job.Job`, holds the locks that it needs, looks again inside them
whether there is anything to do, and answers with an :class:`~venvflow.model.Outcome`. All of them can be
run again at any time. Nothing is imported here: a run with nothing to do needs none of them.
"""
