"""``venvflow init``: writes the config of a project from what is found in it, or says what a config lacks."""

from __future__ import annotations

import argparse
import os

from venvflow.cli.arguments import Parser
from venvflow.cli.render import Output
from venvflow.cli.schema import schema_text
from venvflow.config import project_of
from venvflow.errors import EnvironmentFailure, UsageError, shown
from venvflow.init.discovery import Proposal
from venvflow.init.draft import Draft, draft
from venvflow.pure.units import counted

MORE = """\
Writes venvflow.yaml, its schema, and a dodo.py where there is none. Overwrites nothing.
Where there is a config, shows what it lacks; --add adds that to it, and changes nothing else.
What "ignore" in the config names is not looked at. --check writes nothing and ends with 1
if a config lacks venvs, or if there is none."""
EXAMPLE = "venvflow init --check"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("directory", metavar="DIR", nargs="?", help="the project (here, or that of --config)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--add", action="store_true", help="add what is new to a config that is there")
    how.add_argument("--check", action="store_true", help="show what would be written, and write nothing")


def run(args: argparse.Namespace, out: Output) -> int:
    """Write the config and what belongs to it; 0. With --check, 1 if a config lacks venvs, or is not there.

    JSON: ``root``, ``config`` (the one that is there already, or null), ``written`` (whether anything was),
    ``files`` (``path`` and ``text``), ``venvs`` that the config is to have, or lacks (``name``, ``path``,
    ``locks``, ``python``, ``options``, ``notes``), ``doubtful`` ones that only stand in comments (with a
    ``reason``), ``entries`` (the text for a config that is there), ``notes`` (on what was left out) and
    ``advice`` (what to do by hand). Raises Refused when a file is in the way, or nothing can be added.
    """
    file, root = _config_and_root(args)
    drafted = draft(root, schema_text(), os.environ, file)
    adds = args.add and bool(drafted.present and drafted.found.venvs)
    if not args.check:
        if adds:
            drafted.add(os.environ)
        drafted.write()
    if out.as_json:
        out.document(_as_document(drafted, written=not args.check and bool(drafted.files or adds)))
    else:
        _answer(out, drafted, check=args.check, adds=adds)
    _advise(out, drafted, check=args.check, adds=adds)
    return 1 if args.check and (drafted.found.venvs or not drafted.present) else 0


def _config_and_root(args: argparse.Namespace) -> tuple[str, str]:
    """Return the config that is asked for, empty for the usual one, and the root of the project."""
    if not args.config:
        return "", _directory(args.work_dir, args.directory or ".")
    file = os.path.join(
        _directory(args.work_dir, os.path.dirname(args.config)), os.path.basename(args.config)
    )
    root = project_of(file)
    if args.directory and _directory(args.work_dir, args.directory) != root:
        raise UsageError(
            f"{shown(args.config)} is the config of {shown(root)}, not of {shown(args.directory)}",
            hint="Leave out one of the two.",
        )
    return file, root


def _directory(work_dir: str, name: str) -> str:
    path: str = os.path.join(work_dir, name)
    try:
        root = os.path.realpath(path)
    except OSError as error:
        raise EnvironmentFailure(
            f"the working directory cannot be found: {error.strerror}",
            state="Nothing was changed.",
            hint="Change to a directory that exists.",
        ) from error
    if not os.path.isdir(root):
        raise UsageError(
            "the directory is not there, or is not a directory",
            where=shown(path),
            hint="Name the directory of the project.",
        )
    return root


def _answer(out: Output, draft: Draft, *, check: bool, adds: bool) -> None:
    for name, text in draft.files.items():
        path = shown(os.path.join(draft.found.root, name))
        if not check:
            out.answer(f"wrote {path}")
        elif not name.endswith(".json"):  # the schema is long and always the same
            out.answer(f"# {path}\n{text}")
    if adds:
        names = ", ".join(shown(venv.name) for venv in draft.found.venvs)
        out.answer(f"added to {shown(draft.present)}: {names}")
    elif draft.present and draft.found.venvs:
        out.answer(f"# add to {shown(draft.present)}, below venvs:\n{draft.entries}")


def _advise(out: Output, draft: Draft, *, check: bool, adds: bool) -> None:
    for note in (*draft.notes, *draft.config.warnings):
        out.warn(note)
    found, config = counted(len(draft.found.venvs), "venv"), shown(draft.present)
    if draft.present and not draft.found.venvs:
        out.say(f"{config} has all venvs that were found")
    elif draft.present and not adds:
        out.say(f'{config} was left as it is: it lacks {found}; "venvflow init --add" adds them')
    elif not draft.present and not draft.found.venvs:
        out.warn(
            "no lock file was found that can be trusted, so there is no venv in the config yet: make one "
            "first, as uv lock or uv pip compile do"
        )
    elif not check and not draft.present:
        name = list(draft.files)[-1]
        out.say(f'next: look through {shown(name)} ({found}), then run "doit"')
    if draft.found.doubtful:
        doubtful = counted(len(draft.found.doubtful), "further venv")
        seen = "with --json" if draft.present else "in its comments"
        out.say(f"{doubtful} that init does not trust: {seen}, with the reasons")


def _as_document(draft: Draft, *, written: bool) -> dict[str, object]:
    root = draft.found.root
    return {
        "root": root,
        "config": draft.present or None,
        "entries": draft.entries,
        "written": written,
        "files": [{"path": os.path.join(root, name), "text": text} for name, text in draft.files.items()],
        "venvs": [_as_record(venv) for venv in draft.found.venvs],
        "doubtful": [{**_as_record(venv), "reason": venv.reason} for venv in draft.found.doubtful],
        "notes": list(draft.found.notes),
        "advice": list(draft.notes),
    }


def _as_record(venv: Proposal) -> dict[str, object]:
    return {
        "name": venv.name,
        "path": venv.path,
        "locks": list(venv.locks),
        "python": venv.python or None,
        "options": list(venv.options),
        "notes": list(venv.notes),
    }
