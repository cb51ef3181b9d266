"""``venvflow restore``: brings one venv from the store, outside doit."""

from __future__ import annotations

import argparse
from typing import Any

from venvflow.cli.arguments import Parser, add_venvs
from venvflow.cli.operands import serve_each
from venvflow.cli.render import NO_OUTCOME, Output, show_outcome
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.job import Job
from venvflow.steps.restore import restore
from venvflow.steps.state_files import need_key

MORE = """\
It is there when a venv was stored for the same lock files, Python and settings.
Exits with 0 when the venv is in its place, with 1 on a miss: then nothing was changed.
A venv that is there and was changed by hand is never replaced without --force."""
EXAMPLE = "venvflow restore api || make build-api"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    add_venvs(parser)
    parser.add_argument("--force", action="store_true", help="replace it even if it was changed by hand")


def run(args: argparse.Namespace, out: Output) -> int:
    """Restore the venvs; 1 when one is missed.

    JSON: ``venvs``, each as :func:`~venvflow.cli.render.show_outcome` has it.
    """

    def serve(job: Job) -> tuple[dict[str, Any], int]:
        hashed = hash_lockfiles(job)
        outcome = restore(job)
        record = show_outcome(out, job.spec.name, need_key(job).key.digest, outcome, hashed.warnings)
        return record, 1 if outcome.did == "miss" else 0

    return serve_each(args, out, serve, force=args.force, otherwise=NO_OUTCOME)
