"""``venvflow init``: writes the config of a project from what is found in it, or says what a config lacks."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from venvflow.cli.parser import Commands, add_command
from venvflow.cli.render import Output, counted
from venvflow.disk.blame import failure
from venvflow.disk.files import read_beginning
from venvflow.errors import EnvironmentFailure, Refused, UsageError, VenvflowError, shown

if TYPE_CHECKING:
    from venvflow.disk.discover import Found
    from venvflow.model import Config

_IMPORT = "from venvflow.tasks import *"


class _File(NamedTuple):
    name: str
    text: str


class _Draft(NamedTuple):
    """What ``init`` is about to write, the config that it makes, and sentences for the person.

    In a project that has a config, that is *present*, and *found* is what it lacks.
    """

    found: Found
    config: Config
    files: tuple[_File, ...]
    notes: tuple[str, ...]
    present: str = ""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "init",
        run,
        summary="write a config from the lock files that are found",
        more="Writes venvflow.yaml, its schema, and a dodo.py where there is none. Overwrites nothing.\n"
        "Where there is a venvflow.yaml, shows the entries for lock files that no venv in it names;\n"
        "--check ends with 1 then.",
        example="venvflow init --check",
    )
    parser.add_argument("directory", metavar="DIR", nargs="?", default=".", help="the project (here)")
    parser.add_argument("--check", action="store_true", help="show what would be written, and write nothing")


def run(args: argparse.Namespace, out: Output) -> int:
    """Write the config and what belongs to it; 0. With --check, 1 if a config lacks entries.

    JSON: ``root``, ``config`` (the one that is there already, or null), ``written`` (whether anything was),
    ``files`` (``path`` and ``text``), ``venvs`` that the config is to have, or lacks (``name``, ``path``,
    ``locks``, ``python``, ``notes``), ``entries`` (their text, to be added by hand), ``notes`` (on what was
    left out) and ``advice`` (what to do by hand). Raises Refused when a file is in the way.
    """
    root = _root(args)
    present = _present(root)
    draft = _supplement(root, present) if present else _draft(root)
    if not present:
        _refuse_to_overwrite(root, draft.files)
    if not args.check:
        _write(root, draft.files)
    if out.as_json:
        out.document(_as_document(draft, written=not args.check and bool(draft.files)))
    else:
        _answer(out, draft, check=args.check)
    _advise(out, draft, check=args.check)
    return 1 if args.check and present and draft.found.venvs else 0


def _answer(out: Output, draft: _Draft, *, check: bool) -> None:
    root = draft.found.root
    if check:
        for file in _to_show(draft):
            out.answer(f"# {shown(os.path.join(root, file.name))}\n{file.text}")
    else:
        for file in draft.files:
            out.answer(f"wrote {shown(os.path.join(root, file.name))}")
    if draft.present and draft.found.venvs:
        out.answer(f"# add to {shown(draft.present)}, below venvs:\n{_entries(draft)}")


def _entries(draft: _Draft) -> str:
    from venvflow.disk.discover import entries  # noqa: PLC0415 - imports the YAML library

    return entries(draft.found) if draft.present else ""


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
            "the directory is not there, or is no directory",
            where=shown(path),
            hint="Name the directory of the project.",
        )
    return root


# --------------------------------------------------------------------------- drafting


def _draft(root: str) -> _Draft:
    from venvflow.cli.schema import text as schema_text  # noqa: PLC0415 - imports the YAML library
    from venvflow.disk.discover import DODO_TEMPLATE, SCHEMA_NAME, discover, render  # noqa: PLC0415

    found = discover(root)
    text = render(found)
    config = _loaded(root, text)
    files = [_File(SCHEMA_NAME, schema_text())]
    if _read(os.path.join(root, SCHEMA_NAME)) == files[0].text:
        files.clear()  # it is there already
    notes = _parent_config(root)
    wants_dodo, advice = _doit(root)
    if wants_dodo:
        files.append(_File("dodo.py", DODO_TEMPLATE))
    # The config comes last: what it points to is there when it appears.
    files.append(_File("venvflow.yaml", text))
    return _Draft(found, config, tuple(files), (*notes, *advice, *_lacking(config), *_store_in_use(config)))


def _present(root: str) -> str:
    """Return the path of the config that the project has already, or an empty text."""
    from venvflow.config import CONFIG_NAMES  # noqa: PLC0415 - imports the YAML library

    return next((path for name in CONFIG_NAMES if os.path.lexists(path := os.path.join(root, name))), "")


def _supplement(root: str, present: str) -> _Draft:
    """Return what the project with the config *present* lacks: files, and entries for lock files."""
    from venvflow import config as configs  # noqa: PLC0415 - imports the YAML library
    from venvflow.cli.schema import text as schema_text  # noqa: PLC0415
    from venvflow.disk.discover import DODO_TEMPLATE, SCHEMA_NAME, Known, discover  # noqa: PLC0415

    config = configs.load(present, root, os.environ)
    specs = config.venvs.values()
    listed = {path for spec in specs for path in (*spec.locks, *spec.key_files)}
    found = discover(root, Known(config.venvs, {spec.path for spec in specs}, listed))
    schema = os.path.relpath(os.path.join(os.path.dirname(present), SCHEMA_NAME), root)
    files = [] if os.path.lexists(os.path.join(root, schema)) else [_File(schema, schema_text())]
    notes = []
    if not files and _read(os.path.join(root, schema)) != schema_text():
        notes.append(f"{schema} is not that of this venvflow: delete it and run init again")
    wants_dodo, advice = _doit(root)
    if wants_dodo:
        files.append(_File("dodo.py", DODO_TEMPLATE))
    return _Draft(found, config, tuple(files), (*notes, *advice, *found.notes), present)


def _loaded(root: str, text: str) -> Config:
    """Return the config that *text* is, as a run would load it; it is not in the project yet."""
    from venvflow import config as configs  # noqa: PLC0415 - imports the YAML library
    from venvflow.disk.scratch import scratch  # noqa: PLC0415 - only here

    with scratch() as temporary:
        file = os.path.join(temporary.path, "venvflow.yaml")
        with open(file, "w", encoding="utf-8") as stream:
            stream.write(text)
        return configs.load(file, root, os.environ)


def _parent_config(root: str) -> list[str]:
    """Return a note when *root* lies in a project that has a config already."""
    from venvflow.config import find_config  # noqa: PLC0415 - imports the YAML library

    try:
        file, _ = find_config(os.path.dirname(root))
    except UsageError:
        return []
    return [f"a directory above has {shown(file)} already: here, the new one takes its place"]


def _doit(root: str) -> tuple[bool, list[str]]:
    """Return whether a ``dodo.py`` is to be written, and what to do by hand if not."""
    dodo = os.path.join(root, "dodo.py")
    if os.path.lexists(dodo):
        has_tasks = "venvflow.tasks" in _read(dodo)
        return False, [] if has_tasks else [f'dodo.py is there: add "{_IMPORT}" to it']
    loader = _loader(_read(os.path.join(root, "pyproject.toml")))
    if loader in ("", "venvflow"):
        return not loader, []
    return False, [f'doit uses the loader "{shown(loader)}" here: give it the tasks of venvflow.tasks']


def _loader(pyproject: str) -> str:
    """Return the value of ``loader`` in ``[tool.doit]``, as far as it can be read."""
    table = re.search(r"^\[tool\.doit\][^\n]*\n(.*?)(?=^\s*\[|\Z)", pyproject, re.MULTILINE | re.DOTALL)
    found = re.search(r"""^\s*loader\s*=\s*(["'])(.*?)\1""", table[1], re.MULTILINE) if table else None
    return found[2] if found else ""


def _lacking(config: Config) -> list[str]:
    """Return what this machine lacks for the venvs: better known now than from the first doit."""
    from venvflow.disk import builders, interpreters  # noqa: PLC0415 - imports what runs programs

    texts: dict[str, None] = {}
    for spec in config.venvs.values():
        try:
            builders.choose(spec, os.environ)
            interpreters.resolve(spec.python, root=config.root, environ=os.environ)
        except VenvflowError as error:
            texts[f"{shown(spec.name)}: {error.what}. {error.hint}".strip()] = None
    return list(texts)


def _store_in_use(config: Config) -> list[str]:
    """Return a note when other projects use the store: one policy trims the snapshots of all."""
    from venvflow.state.reader import open_reader  # noqa: PLC0415

    with open_reader(config.store) as store:
        if store is None:
            return []
        root = os.path.realpath(config.root)
        others = {each.project for each in store.registrations() if each.project not in ("", root)}
        snapshots = len(store.snapshots())
    if not others:
        return []
    users = f"{counted(len(others), 'other project')}, {counted(snapshots, 'snapshot')}"
    where = shown(config.store.path)
    return [f"the store {where} is in use already: {users}. Files are shared, and trim counts theirs too"]


def _read(path: str) -> str:
    with suppress(OSError):
        return read_beginning(path, 1 << 20).decode("utf-8", "replace")
    return ""


# --------------------------------------------------------------------------- writing


def _refuse_to_overwrite(root: str, files: Iterable[_File]) -> None:
    names = [file.name for file in files]
    present = [name for name in names if os.path.lexists(os.path.join(root, name))]
    if present:
        are = "is" if len(present) == 1 else "are"
        raise Refused(
            f"{', '.join(present)} {are} there already",
            where=shown(root),
            state="Nothing was written.",
            hint="Move away what you do not need, then run init again.",
        )


def _write(root: str, files: Sequence[_File]) -> None:
    """Write all *files*, or none of them; never over something that came meanwhile."""
    written: list[str] = []
    try:
        for file in files:
            path = os.path.join(root, file.name)
            with open(path, "x", encoding="utf-8") as stream:
                written.append(path)
                stream.write(file.text)
    except BaseException as error:
        for path in written:
            with suppress(OSError):
                os.unlink(path)
        if not isinstance(error, OSError):
            raise
        raise failure(error, "cannot write the config", at=root, state="Nothing was written.") from error


def _to_show(draft: _Draft) -> Iterable[_File]:
    """Yield what a person wants to read first; the schema is long and always the same."""
    return [file for file in draft.files if not file.name.endswith(".json")]


def _advise(out: Output, draft: _Draft, *, check: bool) -> None:
    for note in draft.notes:
        out.warn(note)
    for warning in draft.config.warnings:
        out.warn(warning)
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


def _as_document(draft: _Draft, *, written: bool) -> dict[str, object]:
    root = draft.found.root
    return {
        "root": root,
        "config": draft.present or None,
        "entries": _entries(draft),
        "written": written,
        "files": [{"path": os.path.join(root, file.name), "text": file.text} for file in draft.files],
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
