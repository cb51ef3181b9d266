"""``venvflow unpack``: makes a venv of an archive, and makes it work where it lies."""

from __future__ import annotations

import argparse
import os
import re

from venvflow.cli.arguments import Parser
from venvflow.cli.pack import shown_progress
from venvflow.cli.render import Output
from venvflow.disk.archive import unpack
from venvflow.errors import EnvironmentFailure, UsageError, shown
from venvflow.pure.units import show_size

MORE = """\
The archive is not trusted: a path that leads out, a device, a bomb is refused, and nothing
is left behind. It is compared with the .sha256 beside it, if there is one. All local paths
are filled in; code of the archive is not run. Needs no config. If everything in the archive lies
in one directory (its arcroot), the venv is that directory in DEST."""
EXAMPLE = "venvflow unpack api.tar.zst /srv/api/.venv --python /usr/bin/python3.12"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("archive", metavar="ARCHIVE", help="a file that pack wrote")
    parser.add_argument("destination", metavar="DEST", help="what is not there yet, or an empty directory")
    parser.add_argument("--python", metavar="PATH", help="the interpreter to use (the first that fits)")
    parser.add_argument("--project", metavar="DIR", help="where the project is that editable installs name")
    parser.add_argument("--compile", action="store_true", help="compile the packages to bytecode")
    parser.add_argument("--force", action="store_true", help="take --python even if it does not fit")
    parser.add_argument(
        "--sha256", metavar="HEX", help="what the archive must be, instead of what stands beside it"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Unpack; 0 or an error.

    JSON: ``path`` (the venv), ``python``, ``entries``, ``size`` (bytes), ``verified`` (the whole archive was
    compared with a SHA-256), ``written`` (files that were filled in), ``linked`` and ``notes``.
    """
    archive, destination = (os.path.join(args.work_dir, path) for path in (args.archive, args.destination))
    if not os.path.isfile(archive):
        raise EnvironmentFailure(
            "it is not a file" if os.path.lexists(archive) else "there is no such archive",
            where=shown(archive),
            state="Nothing was unpacked.",
            hint="Name a file that pack wrote.",
        )
    _refuse_senseless(args)

    with shown_progress(out, f"unpacking {shown(os.path.basename(archive))}") as progress:
        extracted, report = unpack(
            archive,
            destination,
            args.python,
            project=args.project and os.path.join(args.work_dir, args.project),
            force=args.force,
            compile_library=args.compile,
            expected=args.sha256 and args.sha256.lower(),
            progress=progress,
        )
    for note in report.notes:
        out.warn(note)
    if out.as_json:
        out.document(
            {
                "path": extracted.root,
                "python": report.python,
                "entries": extracted.entries,
                "size": extracted.size,
                "verified": extracted.verified,
                "written": report.written,
                "linked": report.linked,
                "notes": report.notes,
            }
        )
    else:
        checked = "verified" if extracted.verified else "not verified: no .sha256 beside it"
        out.answer(
            f"{shown(extracted.root)}: {extracted.entries:,} entries, {show_size(extracted.size)}, {checked}"
        )
        out.answer(f"  Python: {shown(report.python)}")
    return 0


def _refuse_senseless(args: argparse.Namespace) -> None:
    if args.sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", args.sha256):
        raise UsageError(
            f"--sha256 {shown(args.sha256)!r} is not a SHA-256", hint="It has 64 hexadecimal digits."
        )
    if args.force and args.python is None:
        raise UsageError(
            "it takes an interpreter that does not fit, but none is given",
            where="--force",
            hint="Give --python.",
        )
    if args.project is not None and not os.path.isdir(os.path.join(args.work_dir, args.project)):
        raise UsageError(
            f"--project {shown(args.project)} is not a directory", hint="Name the directory of the project."
        )
