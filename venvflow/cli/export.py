"""``venvflow export``: copies a venv to another directory, without an archive."""

from __future__ import annotations

import argparse
import os

from venvflow.cli.arguments import Parser
from venvflow.cli.context import open_context
from venvflow.cli.operands import any_venvs
from venvflow.cli.pack import add_choice, add_venvs, called, choice_of, shown_progress
from venvflow.cli.render import Output
from venvflow.errors import UsageError, shown, some
from venvflow.model import Outcome
from venvflow.pure.units import show_duration, show_size
from venvflow.steps.export import export
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.job import Job

MORE = """\
PATH and VENV mean what they mean to pack; the copy is what unpacking the archive there would give.
Its files are its own (reflinks, where the file system can), unless --hardlink lets it share them
with the store. With --layers there is a numbered directory for each layer, to be copied into an
image one after the other. Exits with 1 if it is --strict and there are warnings."""
EXAMPLE = "venvflow export .venv /srv/api/.venv --force"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    add_venvs(parser, "?")
    parser.add_argument(
        "destination",
        metavar="DEST",
        help="what is not there yet, or an empty directory; fields are filled in, as by pack",
    )
    parser.add_argument("--hardlink", action="store_true", help="share files with the store")
    parser.add_argument("--python", metavar="PATH", default="", help="the interpreter to use instead")
    parser.add_argument("--force", action="store_true", help="replace an older export, in one step")
    parser.add_argument(
        "--dest-prefix", metavar="PATH", default="", help="where the venv is going to be, if not at DEST"
    )
    parser.add_argument(
        "--layers", action="store_true", help="divide it into DEST/01, 02 …: the layers of the config's pack:"
    )
    add_choice(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Export the venv; 0, 1 if it is strict and there are warnings, or an error.

    JSON: ``venv``, ``did`` (exported, or warned: nothing was written), ``path``, ``figures`` (``entries``,
    ``bytes``, ``link``, ``seconds``) and ``warnings``.
    """
    if args.dest_prefix and not os.path.isabs(args.dest_prefix):
        raise UsageError(
            f"{shown(args.dest_prefix)} is not an absolute path",
            where="--dest-prefix",
            state="Nothing was exported.",
            hint="Give the whole path that the venv is going to have.",
        )
    job = _job(args, out)
    venv = called(job)
    noted = hash_lockfiles(job).warnings if job.spec.name else ()
    with shown_progress(out, f"exporting {shown(venv)}", job) as progress:
        outcome = (
            Outcome("warned")
            if args.strict and noted
            else export(
                job,
                args.destination,
                below=args.work_dir,
                hardlink=args.hardlink,
                python=args.python,
                progress=progress,
                choice=choice_of(args),
                strict=args.strict,
                replace=args.force,
                dest_prefix=args.dest_prefix,
                in_layers=args.layers,
            )
        )
    warnings = [*noted, *outcome.warnings]
    for warning in warnings:
        out.warn(f"{shown(venv)}: {warning}")
    _answer(out, venv, outcome, warnings)
    return 1 if args.strict and warnings else 0


def _answer(out: Output, venv: str, outcome: Outcome, warnings: list[str]) -> None:
    figures = outcome.figures
    if out.as_json:
        out.document(
            {
                "venv": venv,
                "did": outcome.did,
                "path": outcome.reason,
                "figures": figures,
                "warnings": warnings,
            }
        )
    elif outcome.did == "warned":
        out.answer(f"{shown(venv)}: not exported: there are warnings")
    else:
        out.answer(
            f"{shown(venv)}: exported to {shown(outcome.reason)}, {figures['entries']:,} entries, "
            f"{show_size(int(figures['bytes']))} by {figures['link']} in "
            f"{show_duration(float(figures['seconds']))}"
        )


def _job(args: argparse.Namespace, out: Output) -> Job:
    """Return the job of the one venv that is meant."""
    context = open_context(args, out)
    words = [args.venvs] if args.venvs is not None else []
    jobs = any_venvs(context, words, out.say)
    if len(jobs) > 1:
        raise UsageError(
            f"{shown(words[0])!r} fits several venvs", hint=f"Name one: {some([*map(shown, jobs)], 8)}."
        )
    (job,) = (make() for make in jobs.values())
    if args.hardlink and not job.spec.name:
        raise UsageError(
            "the store has no files of a venv that is packed as it lies",
            where="--hardlink",
            state="Nothing was exported.",
            hint="Leave it out, or name a venv of the config.",
        )
    return job
