"""The words of the command line. A command is a module here with ``add(commands)`` and ``run(args, out)``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from venvflow.errors import UsageError, shown

if TYPE_CHECKING:
    from collections.abc import Callable

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - as below
"""What ``add_subparsers`` gives; there is no public name for it."""

COMMANDS = (
    "init", "status", "restore", "store", "squish", "unsquish", "verify", "stats", "pack", "unpack", "export",
    "list", "erase", "trim", "schema", "version",
)  # fmt: skip
"""Every command, in the order of the help."""

# A module called "list" would hide the built-in one in this package.
_MODULES = {command: command for command in COMMANDS} | {"list": "listing"}

FORMATS = ("text", "json")

_ABOUT = """\
Answers questions about the virtual environments of a project, and acts on one thing at a time.
The work that venvflow.yaml asks for is done by "doit".
"""

_MORE = """\
environment:
  VENVFLOW_CONFIG, VENVFLOW_WORK_DIR, VENVFLOW_FORMAT   as the options
  VENVFLOW_STORE          use this store instead of the config's
  VENVFLOW_LOCK_TIMEOUT   seconds to wait for other runs (300)
  NO_COLOR, FORCE_COLOR   no colour at all, or colour without a terminal

exit codes:
  0 done, or hit     1 miss, or the answer is no     2 wrong words or config
  3 environment      4 a build failed                5 a lock was held for too long
  6 refused, because something could be lost         130 interrupted
"""


def parse(words: Sequence[str], environ: Mapping[str, str]) -> argparse.Namespace:
    """Return what *words* ask for, with *environ* for what they leave open.

    The namespace has ``run``, ``work_dir``, ``config``, ``format``, ``verbose``, ``quiet`` and ``words``
    besides what the command adds. Raises SystemExit after showing help or what is wrong with a word, and
    UsageError for what contradicts itself.
    """
    args = _parser().parse_args(words, argparse.Namespace(words=tuple(words)))
    args.verbose = getattr(args, "verbose", False)
    args.quiet = getattr(args, "quiet", False)
    if args.verbose and args.quiet:
        raise UsageError("--verbose and --quiet contradict each other", hint="Give one of them.")
    args.work_dir = _work_dir(getattr(args, "work_dir", None) or environ.get("VENVFLOW_WORK_DIR") or ".")
    args.config = getattr(args, "config", None) or environ.get("VENVFLOW_CONFIG") or None
    args.format = _format(args, environ)
    return args


def _work_dir(path: str) -> str:
    if path != "." and not os.path.isdir(path):
        raise UsageError(
            "the work directory is not there, or is no directory",
            where=shown(path),
            hint="Mend --work-dir (or VENVFLOW_WORK_DIR).",
        )
    return path


def _format(args: argparse.Namespace, environ: Mapping[str, str]) -> str:
    given: str | None = getattr(args, "format", None)
    if getattr(args, "json", False):
        if given == "text":
            raise UsageError("--json and --format text contradict each other", hint="Give one of them.")
        return "json"
    chosen = given or environ.get("VENVFLOW_FORMAT") or "text"
    if chosen not in FORMATS:
        raise UsageError(
            f"VENVFLOW_FORMAT is {shown(chosen)!r}, which is no format",
            hint=f"Set it to {' or '.join(FORMATS)}, or unset it.",
        )
    return chosen


# --------------------------------------------------------------------------- building the parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="venvflow",
        description=_ABOUT,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_common(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name in COMMANDS:
        import_module(f"venvflow.cli.{_MODULES[name]}").add(commands)
    return parser


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace, Any], int],
    *,
    summary: str,
    more: str = "",
    example: str,
) -> argparse.ArgumentParser:
    """Add the command *name*, which *run* does, and return its parser for further arguments."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.{chr(10) * 2 if more else ''}{more}",
        epilog=f"example:\n  {example}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    _add_common(parser)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that may stand before the command or after it; what stands after it wins."""

    def add(*flags: str, **how: Any) -> None:
        # Without a default, so that an option before the command is not undone after it.
        group.add_argument(*flags, default=argparse.SUPPRESS, **how)

    group = parser.add_argument_group("options for all commands")
    add("-c", "--config", metavar="FILE", help="the config, instead of the nearest venvflow.yaml")
    add("-C", "--work-dir", metavar="DIR", help="work as if started there")
    add("--format", choices=FORMATS, help="how to answer (text)")
    add("--json", action="store_true", help="the same as --format json")
    add("-v", "--verbose", action="store_true", help="say more; tracebacks with errors")
    add("-q", "--quiet", action="store_true", help="answers and errors only")
