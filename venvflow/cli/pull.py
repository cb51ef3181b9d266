"""``venvflow pull``: brings snapshots from the remote into the store, without making venvs."""

from __future__ import annotations

import argparse
from typing import Any

from venvflow.cli.arguments import Parser, add_venvs
from venvflow.cli.operands import serve_each
from venvflow.cli.render import NO_OUTCOME, Output, show_outcome
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.job import Job
from venvflow.steps.pull import close_remotes, pull
from venvflow.steps.state_files import need_key

MORE = """\
For images and for machines that serve others: what is in the store, the next doit takes from there.
A doit that finds nothing in the store asks the remote by itself."""
EXAMPLE = "venvflow pull 'lib-*'"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    add_venvs(parser, "names of venvs or sets in the config, or patterns (all)")


def run(args: argparse.Namespace, out: Output) -> int:
    """Pull the snapshots; 1 when one is missed.

    JSON: ``venvs``, each as :func:`~venvflow.cli.render.show_outcome` has it.
    """

    def serve(job: Job) -> tuple[dict[str, Any], int]:
        hashed = hash_lockfiles(job)
        outcome = pull(job)
        record = show_outcome(out, job.spec.name, need_key(job).key.digest, outcome, hashed.warnings)
        return record, 1 if outcome.did == "miss" else 0

    try:
        return serve_each(args, out, serve, otherwise=NO_OUTCOME, every=True)
    finally:
        close_remotes()
