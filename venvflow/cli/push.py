"""``venvflow push``: gives the remote the snapshots of venvs."""

from __future__ import annotations

import argparse
from typing import Any

from venvflow.cli.arguments import Parser, add_venvs
from venvflow.cli.operands import serve_each
from venvflow.cli.render import NO_OUTCOME, Output, show_outcome
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.job import Job
from venvflow.steps.pull import close_remotes
from venvflow.steps.push import push
from venvflow.steps.state_files import need_key

MORE = """\
doit does so by itself, last of all, in runs that may write: see store.remote.mode. What is sent is signed
with the key in VENVFLOW_SIGNING_KEY, or in the file that VENVFLOW_SIGNING_KEY_FILE names."""
EXAMPLE = "VENVFLOW_SIGNING_KEY_FILE=~/main.key venvflow push api"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    add_venvs(parser, "names of venvs or sets in the config, or patterns (all)")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be sent")


def run(args: argparse.Namespace, out: Output) -> int:
    """Push the snapshots; 1 when one could not be sent.

    JSON: ``venvs``, each as :func:`~venvflow.cli.render.show_outcome` has it.
    """

    def serve(job: Job) -> tuple[dict[str, Any], int]:
        hashed = hash_lockfiles(job)
        outcome = push(job, dry_run=args.dry_run)
        record = show_outcome(out, job.spec.name, need_key(job).key.digest, outcome, hashed.warnings)
        return record, 1 if outcome.did == "not pushed" else 0

    try:
        return serve_each(args, out, serve, otherwise=NO_OUTCOME, every=True)
    finally:
        close_remotes()
