"""Parses the command line, and knows all commands (:data:`COMMANDS`).

A command is a module of this package. It has ``run(args, out)`` and an ``EXAMPLE``; ``MORE``, if its help
says more; and ``add_arguments(parser)``, if it takes any.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, TypeAlias

from venvflow import __version__
from venvflow.cli.arguments import HelpRequested, Parser, TextAction
from venvflow.errors import UsageError, shown
from venvflow.pure.variables import named_config

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - as below
"""What ``add_subparsers`` gives; there is no public name for it."""

COMMANDS = {
    "init": "write a config from the lock files that are found",
    "status": "show every venv: up to date, or why not",
    "explain": "say why a venv is built or restored, or what differs between two keys",
    "diff": "say what differs between two venvs, snapshots or archives",
    "build": "make venvs what their lock files say, as doit does",
    "run": "make a venv what its lock files say, and run a command in it",
    "restore": "bring a venv from the store, if it is there",
    "store": "keep a venv in the store for its lock files",
    "squish": "share the files of any venvs, made by any tool",
    "unsquish": "give venvs private files again, so that they need no store",
    "verify": "find what was damaged or edited, in the store and in the venvs that share it",
    "stats": "show what venvs and store occupy, and what sharing saves",
    "history": "show what ran, how long it took, and which packages changed",
    "report": "write a page that shows where the bytes are, which versions, and what was spared",
    "pack": "write the portable archive of a venv",
    "unpack": "unpack an archive and make the venv work there",
    "export": "make a copy of a venv that works elsewhere",
    "list": "list the snapshots in the store",
    "erase": "drop the snapshots of one venv, or all",
    "trim": "drop snapshots by the policy of the config",
    "pull": "bring snapshots from the remote into the store",
    "push": "give the remote the snapshots of venvs",
    "keygen": "make a key to sign snapshots with",
    "hook": "let git restore venvs after each checkout",
    "doctor": "look for what goes wrong in practice, and say how to fix it",
    "completion": "print a script that completes words in a shell",
    "schema": "print the JSON Schema of venvflow.yaml, or of what a command answers",
    "version": "print the version",
}
"""Every command, in the order of the help, and what it does."""

# A module called "list" would hide the built-in one in this package.
_MODULES = {command: command for command in COMMANDS} | {"list": "listing"}

FORMATS = ("text", "json")

_ABOUT = """\
Answers questions about the virtual environments of a project, and acts on one thing at a time.
The work that venvflow.yaml asks for is done by "doit".
"""

_MORE = """\
environment:
  VENVFLOW_CONFIG, VENVFLOW_WORK_DIR, VENVFLOW_FORMAT   as the options (VENVFLOW_CONFIG_PATH is the first)
  VENVFLOW_STORE          use this store instead of the config's
  VENVFLOW_LOCK_TIMEOUT   seconds to wait for other runs (300)
  VENVFLOW_REMOTE         use this remote instead of the config's, or "off"
  VENVFLOW_REMOTE_MODE    off, read, auto or write: less than the config allows, never more
  VENVFLOW_SIGNING_KEY    what snapshots are signed with; VENVFLOW_SIGNING_KEY_FILE names a file with it
  VENVFLOW_TRUST          projects and stores (a:b, or *) to use although others can write them
  NO_COLOR, FORCE_COLOR   no colour at all, or colour without a terminal

exit codes:
  0    done, or hit
  1    miss, or the answer is no
  2    wrong words or config
  3    environment: space, permission, I/O, network, a program that is missing
  4    a build failed
  5    a lock was held for too long
  6    refused, because something could be lost
  126  run: the command could not be started; 127: it was not found
  130  interrupted (143 by SIGTERM)
"""


def parse(words: Sequence[str], environ: Mapping[str, str]) -> argparse.Namespace:
    """Return what *words* ask for, with *environ* for what they leave open.

    The namespace has ``run``, ``work_dir``, ``config``, ``format``, ``verbose``, ``quiet`` and ``words``
    besides what the command adds. Raises HelpRequested, and UsageError for words that make no sense.
    """
    args = _parsed_before_program(words)
    args.verbose = getattr(args, "verbose", False)
    args.quiet = getattr(args, "quiet", False)
    if args.verbose and args.quiet:
        raise _contradiction("--verbose", "--quiet")
    args.work_dir = _work_dir(getattr(args, "work_dir", environ.get("VENVFLOW_WORK_DIR") or "."))
    args.config = getattr(args, "config", named_config(environ))
    args.format = _format(args, environ)
    return args


def _parsed_before_program(words: Sequence[str]) -> argparse.Namespace:
    """Return what *words* ask for; what "run" has behind ``--`` is its ``program``, and not parsed."""
    end = words.index("--") if "--" in words and named_in(words) == "run" else len(words)
    args = _parsed(words[:end])
    if args.command != "run":
        return args if end == len(words) else _parsed(words)
    args.words = tuple(words)
    args.program = [] if args.program else list(words[end + 1 :])  # a second word before them is a mistake
    return args


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """Return what the parser of the one command in *words* makes of them, or else that of all commands.

    To make all parsers takes longer than most commands do. What one alone does not take, a mistake or a call
    for help, is for the one that knows all words.
    """
    named = named_in(words)
    if named is not None:
        try:
            return _parsed_by(make_parser([named]), words)
        except HelpRequested:
            if not {"-h", "--help"} & {*words[: words.index(named)]}:
                raise  # it is the help of this command
        except UsageError:
            pass
    else:
        with suppress(UsageError):
            return _parsed_by(make_parser((), COMMANDS), words)
    return _parsed_by(make_parser(), words)


def named_in(words: Sequence[str]) -> str | None:
    """Return the first of *words* that is a command."""
    return next((word for word in words if word in COMMANDS), None)


def _parsed_by(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    args, rest = parser.parse_known_args(words, argparse.Namespace(words=tuple(words)))
    if args.command is None:
        # Not by argparse, which would not say what is wrong with an option that stands there alone.
        if not rest:
            parser.error("a command is missing")
        parser.refuse(rest)
    if rest:
        args.parser.refuse(rest)
    return args


def _contradiction(one: str, other: str) -> UsageError:
    return UsageError(
        f"{one} and {other} contradict each other", state="Nothing was done.", hint="Give one of them."
    )


def _work_dir(path: str) -> str:
    if path != "." and not os.path.isdir(path):
        raise UsageError(
            "the work directory is not there, or is not a directory",
            where=shown(path),
            state="Nothing was done.",
            hint="Fix --work-dir (or VENVFLOW_WORK_DIR).",
        )
    return path


def _format(args: argparse.Namespace, environ: Mapping[str, str]) -> str:
    given: str | None = getattr(args, "format", None)
    if getattr(args, "json", False):
        if given == "text":
            raise _contradiction("--json", "--format text")
        return "json"
    chosen = given or _format_called(environ.get("VENVFLOW_FORMAT") or "text")
    if chosen not in FORMATS:
        raise UsageError(
            f"VENVFLOW_FORMAT is {shown(chosen)!r}, which is not a format",
            state="Nothing was done.",
            hint=f"Set it to {' or '.join(FORMATS)}, or unset it.",
        )
    return chosen


def _format_called(word: str) -> str:
    """Return the format that is meant: virtualenv-cache calls the one for people a table."""
    return "text" if word == "table" else word


# --------------------------------------------------------------------------- building the parser


def make_parser(names: Iterable[str] = COMMANDS, stubs: Iterable[str] = ()) -> Parser:
    """Return the parser of all words, or of some commands; its ``commands`` and ``arguments`` tell them.

    Of *stubs* it has names and summaries only, for which no module is imported.
    """
    parser = Parser(prog="venvflow", description=_ABOUT, epilog=_MORE)
    parser.add_argument(
        "--version", action=TextAction, const=f"venvflow {__version__}", default=argparse.SUPPRESS,
        help="the same as the command version",
    )  # fmt: skip
    _add_common(parser)
    # With its name given, argparse need not ask how wide the terminal is to find it out.
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", prog=parser.prog)
    for name in names:
        _add_command(commands, name)
    for name in stubs:
        commands.add_parser(name, help=COMMANDS[name])
    return parser


def _add_command(commands: Commands, name: str) -> None:
    """Add a command as its module describes it."""
    module = import_module(f"venvflow.cli.{_MODULES[name]}")
    summary, more = COMMANDS[name], getattr(module, "MORE", "").rstrip()
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.{chr(10) * 2 if more else ''}{more}",
        epilog=f"example:\n  {module.EXAMPLE}\n",
    )
    parser.set_defaults(run=module.run, parser=parser)
    _add_common(parser)
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)


def _add_common(parser: Parser) -> None:
    """Add the options that may stand before the command or after it; what stands after it wins."""

    def add(*flags: str, **how: Any) -> None:
        # Without a default, so that an option before the command is not undone after it.
        group.add_argument(*flags, default=argparse.SUPPRESS, **how)

    group = parser.add_argument_group("options for all commands")
    add("-c", "--config", "--config-path", metavar="FILE", help="the config, not the nearest venvflow.yaml")
    add("-C", "-w", "--work-dir", metavar="DIR", help="work as if started there")
    add("--format", choices=FORMATS, type=_format_called, help="how to answer (text; table is the same)")
    add("--json", action="store_true", help="the same as --format json")
    add("-v", "--verbose", action="store_true", help="say more; tracebacks with errors")
    add("-q", "--quiet", action="store_true", help="answers and errors only")
