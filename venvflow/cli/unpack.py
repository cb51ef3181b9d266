"""``venvflow unpack``: makes a venv of an archive, and makes it work where it lies."""

from __future__ import annotations

import argparse
import os
import re

from venvflow.cli.arguments import Parser
from venvflow.cli.pack import shown_progress
from venvflow.cli.render import Output
from venvflow.disk.archive import unpack
from venvflow.errors import EnvironmentFailure, Refused, UsageError, shown
from venvflow.pure.decoding import Corrupt
from venvflow.pure.units import show_size
from venvflow.steps.pack_parts import listed_parts

MORE = """\
The archive is not trusted: a path that leads out, a device, a bomb is refused, and nothing
is left behind. It is compared with the .sha256 beside it, if there is one. All local paths
are filled in; code of the archive is not run. Needs no config. If everything in the archive lies
in one directory (its arcroot), the venv is that directory in DEST.
A venv that was packed in layers comes in several archives: name all, in any order, or the list of
them beside (.json). They are refused if one is missing, altered, or of another venv."""
EXAMPLE = "venvflow unpack api.tar.zst /srv/api/.venv --python /usr/bin/python3.12"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument(
        "archives",
        metavar="ARCHIVE",
        nargs="+",
        help="a file that pack wrote; of a venv in layers all, or their list",
    )
    parser.add_argument("destination", metavar="DEST", help="what is not there yet, or an empty directory")
    parser.add_argument("--python", metavar="PATH", help="the interpreter to use (the first that fits)")
    parser.add_argument("--project", metavar="DIR", help="where the project is that editable installs name")
    parser.add_argument("--compile", action="store_true", help="compile the packages to bytecode")
    parser.add_argument("--force", action="store_true", help="take --python even if it does not fit")
    parser.add_argument(
        "--sha256",
        metavar="HEX",
        help="what the archive (of several, the last part) must be, instead of what stands beside it",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Unpack; 0 or an error.

    JSON: ``path`` (the venv), ``python``, ``entries``, ``size`` (bytes), ``verified`` (the whole archive was
    compared with a SHA-256), ``written`` (files that were filled in), ``linked`` and ``notes``.
    """
    destination = os.path.join(args.work_dir, args.destination)
    archives = [each for path in args.archives for each in _archives_of(os.path.join(args.work_dir, path))]
    _refuse_senseless(args)

    with shown_progress(out, f"unpacking {shown(os.path.basename(archives[-1]))}") as progress:
        extracted, report = unpack(
            archives,
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


def _archives_of(path: str) -> list[str]:
    """Return the archives that *path* stands for: itself, or those that the list there names."""
    _need_file(path)
    found = [path]
    if path.endswith(".json"):
        try:
            found = [part.path for part in listed_parts(path)]
        except (OSError, Corrupt) as error:
            raise Refused(
                f"it is not a list of archives: {error}",
                where=shown(path),
                state="Nothing was unpacked.",
                hint="Name the list that pack wrote, or all archives.",
            ) from error
    for each in found:
        _need_file(each)
    return found


def _need_file(archive: str) -> None:
    if not os.path.isfile(archive):
        raise EnvironmentFailure(
            "it is not a file" if os.path.lexists(archive) else "there is no such archive",
            where=shown(archive),
            state="Nothing was unpacked.",
            hint="Name a file that pack wrote.",
        )


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
