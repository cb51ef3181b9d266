"""``venvflow init``: writes the config of a project from what is found in it, or says what a config lacks."""

from __future__ import annotations

import argparse
import os

from venvflow.cli.arguments import Parser
from venvflow.cli.render import Output
from venvflow.cli.schema import schema_text
from venvflow.errors import EnvironmentFailure, UsageError, shown
from venvflow.init.draft import Draft, draft
from venvflow.pure.units import counted

MORE = """\
Writes venvflow.yaml, its schema, and a dodo.py where there is none. Overwrites nothing.
Where there is a venvflow.yaml, shows the entries for lock files that no venv in it names;
--check ends with 1 then."""
EXAMPLE = "venvflow init --check"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("directory", metavar="DIR", nargs="?", default=".", help="the project (here)")
    parser.add_argument("--check", action="store_true", help="show what would be written, and write nothing")


def run(args: argparse.Namespace, out: Output) -> int:
    """Write the config and what belongs to it; 0. With --check, 1 if a config lacks entries.

    JSON: ``root``, ``config`` (the one that is there already, or null), ``written`` (whether anything was),
    ``files`` (``path`` and ``text``), ``venvs`` that the config is to have, or lacks (``name``, ``path``,
    ``locks``, ``python``, ``notes``), ``entries`` (their text, to be added by hand), ``notes`` (on what was
    left out) and ``advice`` (what to do by hand). Raises Refused when a file is in the way.
    """
    drafted = draft(_root(args), schema_text(), os.environ)
    if not args.check:
        drafted.write()
    if out.as_json:
        out.document(_as_document(drafted, written=not args.check and bool(drafted.files)))
    else:
        _answer(out, drafted, check=args.check)
    _advise(out, drafted, check=args.check)
    return 1 if args.check and drafted.present and drafted.found.venvs else 0


def _root(args: argparse.Namespace) -> str:
    path: str = os.path.join(args.work_dir, args.directory)
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


def _answer(out: Output, draft: Draft, *, check: bool) -> None:
    for name, text in draft.files.items():
        path = shown(os.path.join(draft.found.root, name))
        if not check:
            out.answer(f"wrote {path}")
        elif not name.endswith(".json"):  # the schema is long and always the same
            out.answer(f"# {path}\n{text}")
    if draft.present and draft.found.venvs:
        out.answer(f"# add to {shown(draft.present)}, below venvs:\n{draft.entries}")


def _advise(out: Output, draft: Draft, *, check: bool) -> None:
    for note in (*draft.notes, *draft.config.warnings):
        out.warn(note)
    found = counted(len(draft.found.venvs), "venv")
    if draft.present and not draft.found.venvs:
        out.say(f"every lock file that was found has its venv in {shown(draft.present)}")
    elif draft.present:
        out.say(f"{shown(draft.present)} was left as it is: it lacks {found}")
    elif not draft.found.venvs:
        out.warn(
            "no lock file was found, so there is no venv in the config yet: make one first, as uv lock or "
            "uv pip compile do"
        )
    elif not check:
        out.say(f'next: look through venvflow.yaml ({found}), then run "doit"')


def _as_document(draft: Draft, *, written: bool) -> dict[str, object]:
    root = draft.found.root
    return {
        "root": root,
        "config": draft.present or None,
        "entries": draft.entries,
        "written": written,
        "files": [{"path": os.path.join(root, name), "text": text} for name, text in draft.files.items()],
        "venvs": [
            {
                "name": venv.name,
                "path": venv.path,
                "locks": list(venv.locks),
                "python": venv.python or None,
                "notes": list(venv.notes),
            }
            for venv in draft.found.venvs
        ],
        "notes": list(draft.found.notes),
        "advice": list(draft.notes),
    }
