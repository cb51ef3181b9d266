"""``venvflow export``: copies a venv to another directory, without an archive."""

from __future__ import annotations

import argparse
import os

from venvflow.cli.arguments import Parser
from venvflow.cli.operands import open_job
from venvflow.cli.pack import shown_progress
from venvflow.cli.render import Output
from venvflow.errors import shown
from venvflow.pure.units import show_duration, show_size
from venvflow.steps.export import export
from venvflow.steps.hash_lockfiles import hash_lockfiles

MORE = """\
It is what unpacking the venv's archive there would give. Its files are its own (reflinks,
where the file system can), unless --hardlink lets it share them with the store."""
EXAMPLE = "venvflow export api /srv/api/.venv"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("venv", metavar="VENV", nargs="?", help="its name in the config (the only one)")
    parser.add_argument("destination", metavar="DEST", help="what is not there yet, or an empty directory")
    parser.add_argument("--hardlink", action="store_true", help="share files with the store")
    parser.add_argument("--python", metavar="PATH", default="", help="the interpreter to use instead")


def run(args: argparse.Namespace, out: Output) -> int:
    """Export the venv; 0 or an error.

    JSON: ``venv``, ``path``, ``figures`` (``entries``, ``bytes``, ``link``, ``seconds``) and ``warnings``.
    """
    job = open_job(args, out)
    venv = job.spec.name
    hashed = hash_lockfiles(job)
    with shown_progress(out, f"exporting {shown(venv)}") as progress:
        outcome = export(
            job,
            os.path.join(args.work_dir, args.destination),
            hardlink=args.hardlink,
            python=args.python,
            progress=progress,
        )
    warnings = [*hashed.warnings, *outcome.warnings]
    for warning in warnings:
        out.warn(f"{shown(venv)}: {warning}")
    figures = outcome.figures
    if out.as_json:
        out.document({"venv": venv, "path": outcome.reason, "figures": figures, "warnings": warnings})
    else:
        out.answer(
            f"{shown(venv)}: exported to {shown(outcome.reason)}, {figures['entries']:,} entries, "
            f"{show_size(int(figures['bytes']))} by {figures['link']} in "
            f"{show_duration(float(figures['seconds']))}"
        )
    return 0
