"""``venvflow report``: one page that shows where the bytes are, what is stale, what was spared."""

from __future__ import annotations

import argparse
import errno
import os
import stat
import time

from venvflow.cli.arguments import Parser
from venvflow.cli.context import open_context
from venvflow.cli.render import Output
from venvflow.disk.files import write_whole
from venvflow.disk.system_errors import failure
from venvflow.errors import EnvironmentFailure, Refused, UsageError, shown
from venvflow.pure.units import counted, show_size
from venvflow.report.gathering import gather
from venvflow.report.page import render
from venvflow.state.reader import open_reader

MORE = """\
It is one HTML file that loads nothing and sends nothing: to be opened, attached, printed, or kept by
CI. It shows this project; with --all, and outside of projects, all venvs that use the store. Its
figures are those of status, stats, list, trim --dry-run and history; nothing is changed.
It needs the extra venvflow[report]."""
EXAMPLE = "venvflow report -o report.html"

_STDOUT = "-"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("--all", action="store_true", help="all venvs that use the store, not this project's")
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        default="report.html",
        help="where to write it (report.html); - is standard output",
    )
    parser.add_argument("--force", action="store_true", help="write it even if there is a file")


def run(args: argparse.Namespace, out: Output) -> int:
    """Write the report; always 0.

    JSON: ``report`` (its path), ``project`` (the root of the one that it is about, null: all), ``store`` (its
    path), ``bytes`` (of the page), and how many ``venvs``, ``snapshots`` and ``packages`` it shows, and
    ``days`` of history.
    """
    given = os.path.join(os.path.abspath(args.work_dir), args.output)
    path = os.path.join(os.path.realpath(os.path.dirname(given)), os.path.basename(given))
    if args.output != _STDOUT:
        _refuse_taken(path, force=args.force)
    elif out.as_json:
        raise UsageError(
            "the page and the answer as JSON cannot both go to standard output",
            where="--output -",
            state="Nothing was written.",
            hint="Name a file, or leave out --json.",
        )
    context = open_context(args, out)
    with open_reader(context.store) as store:
        report = gather(context, store, everything=args.all, now=time.time())
    page = render(report)
    if args.output == _STDOUT:
        out.page(page)
        return 0
    _write(path, page)
    if out.as_json:
        out.document(
            {
                "report": path,
                "project": report.root,
                "store": report.store,
                "bytes": len(page),
                "venvs": len(report.venvs),
                "snapshots": len(report.snapshots),
                "packages": len(report.packages),
                "days": sum(each.hits + each.misses + each.builds > 0 for each in report.days),
            }
        )
    else:
        size = show_size(len(page))
        out.answer(f"wrote {shown(path)}, {size}: {counted(len(report.venvs), 'venv')}")
    return 0


def _refuse_taken(path: str, *, force: bool) -> None:
    """Raise Refused for what lies at *path* already, unless it is a file that may be replaced."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # what is wrong with it, writing says
        return
    if stat.S_ISREG(mode) and force:
        return
    what = "it is there already" if stat.S_ISREG(mode) else "what is there is not a file"
    hint = "Add --force to replace it, or name" if stat.S_ISREG(mode) else "Name"
    raise Refused(
        what, where=shown(path), state="Nothing was written.", hint=f"{hint} another file with --output."
    )


def _write(path: str, page: str) -> None:
    """Write the page, whole or not at all; raises EnvironmentFailure."""
    try:
        write_whole(path, page.encode("ascii"))
    except OSError as error:
        state = "Nothing was written."
        if error.errno == errno.ENOENT:
            raise EnvironmentFailure(
                "its directory is not there",
                where=shown(path),
                state=state,
                hint="Make it, or name another with --output.",
            ) from error
        raise failure(error, "cannot write the report", at=path, state=state) from error
