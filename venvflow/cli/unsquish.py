"""``venvflow unsquish``: give venvs private files again."""

from __future__ import annotations

import argparse

from venvflow.cli.arguments import Parser
from venvflow.cli.render import Output
from venvflow.cli.squish import EachVenv
from venvflow.model import Outcome
from venvflow.steps.any_venv import refuse_unless_venv
from venvflow.steps.job import Job
from venvflow.steps.unshare import unshare

MORE = """\
Content, executable bits and links of the files stay. The store forgets the venv.
A venv of a config is shared again by the next doit. Run again, it finishes what was cut short."""
EXAMPLE = "venvflow unsquish ~/src/demo/.venv"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="a venv: its directory, or name, set or pattern in the config",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Make the venvs private; the exit code is that of the first one that could not be, or 0.

    JSON: ``store`` (its path) and ``venvs``, each with ``path``, ``did`` (unsquished, kept, failed),
    ``reason``, ``figures`` (``files``, ``bytes``, ``seconds``) and ``warnings``.
    """
    return _Unsquishing(args, out).run()


class _Unsquishing(EachVenv):
    def act(self, job: Job) -> Outcome:
        """Make the venv's files private."""
        refuse_unless_venv(job.place)  # before a store is made
        with job.open_store() as store:
            return unshare(job, store, on_file=self.on_file(job))

    def close(self) -> None:
        """Answer with the JSON document if ``--json`` was given."""
        if self.out.as_json:
            self.document()
