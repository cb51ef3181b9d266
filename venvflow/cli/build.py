"""``venvflow build``: makes venvs what their lock files say, by the tasks of doit, in one command."""

from __future__ import annotations

import argparse
import io
import sys

from venvflow.cli.arguments import Parser, add_venvs
from venvflow.cli.context import open_flow
from venvflow.cli.operands import chosen
from venvflow.cli.render import Output

MORE = """\
All that "doit VENV" does: restored or built, shared, packed if the config says so, stored.
A venv that was changed by hand is reported and left as it is. With --force the changes are dropped: it is
restored, or built where the store does not have it, and replaced when the new one is whole.
With --fresh it is built from nothing, whatever is there and in the store, and compared with what the
store had for its lock files: if that differs, the new one takes its place, and the exit code is 1."""
EXAMPLE = """\
venvflow build api --force
  venvflow build api --fresh"""


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    add_venvs(parser, "names of venvs or sets in the config, or patterns (all)")
    parser.add_argument("--force", action="store_true", help="drop what was changed in them by hand")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="build from nothing, and say whether that gives what the store had",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Make the venvs; the answer is doit's, and so is the exit code, but for 1 where a fresh build differs.

    JSON: ``tasks`` (what each answered that did something, or warns), ``failed`` (``task``, ``error`` and
    ``exit_code`` of each), and how many were ``done``, ``up_to_date`` and ``not_run``.
    """
    from venvflow import tasks  # noqa: PLC0415 - brings doit, which few commands need
    from venvflow.reporter import FlowReporter  # noqa: PLC0415 - as above

    flow = open_flow(args, out)
    venvs = chosen(args, flow, out)
    if args.fresh:
        flow.fresh = frozenset(venvs)
    if args.force:
        flow.give_up(venvs)
    reporter = FlowReporter(io.StringIO() if out.quiet else sys.stderr if out.as_json else sys.stdout, {})
    reporter.answers = not (out.quiet or out.as_json)
    code = tasks.run(flow, venvs if args.venvs or args.shard else None, reporter, quiet=out.quiet)
    if out.as_json:
        failed = [
            {
                "task": each["task"].name,
                "error": each["exception"].message,
                "exit_code": getattr(each["exception"], "exit_code", code),
            }
            for each in reporter.failures
        ]
        out.document({"tasks": reporter.told, "failed": failed, **reporter.counts})
    differs = any("differs" in task.get("figures", {}) for task in reporter.told)
    return code or int(differs)
