"""Drafts the files that ``init`` writes, and says what is left to do by hand.

Where the project has a config, it stays as it is, and what it lacks is shown instead.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from venvflow import builders
from venvflow import config as configs
from venvflow.config import CONFIG_NAMES, find_config, quoted
from venvflow.disk import interpreters
from venvflow.disk.scratch import scratch
from venvflow.disk.system_errors import failure
from venvflow.errors import Refused, UsageError, VenvflowError, shown
from venvflow.init.discovery import Discovery, Proposal, discover
from venvflow.init.project import ELSEWHERE, Directory, text_at
from venvflow.model import Config
from venvflow.state.reader import open_reader

SCHEMA_NAME = "venvflow.schema.json"
"""Name of the schema beside the config, to which the config's first line points."""

DODO_TEMPLATE = '''\
"""Run "doit" to make the virtual environments of venvflow.yaml what their lock files say."""

from venvflow.tasks import *  # noqa: F403 - not found? Install venvflow where doit is: pip install venvflow
'''
"""Text of a ``dodo.py`` that has all tasks."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What ``init`` is about to write, the config that it makes, and sentences for the person.

    *files* are texts by names below the project root. In a project that has a config, *present* is its
    path, and *found* is what it lacks.
    """

    found: Discovery
    config: Config
    files: dict[str, str]
    notes: tuple[str, ...]
    present: str = ""

    @property
    def entries(self) -> str:
        """Return what the config that is there lacks, as it would say it."""
        return entries(self.found) if self.present else ""

    def write(self) -> None:
        """Write all files, or none of them; never over something that came meanwhile."""
        root = self.found.root
        written: list[str] = []
        try:
            for name, text in self.files.items():
                path = os.path.join(root, name)
                with open(path, "x", encoding="utf-8") as stream:
                    written.append(path)
                    stream.write(text)
        except BaseException as error:
            for path in written:
                with suppress(OSError):
                    os.unlink(path)
            if not isinstance(error, OSError):
                raise
            raise failure(error, "cannot write the config", at=root, state="Nothing was written.") from error


def draft(root: str, schema: str, environ: Mapping[str, str]) -> Draft:
    """Return what the project at *root* needs; *schema* is the text of the config's schema.

    :raises Refused: a file is in the way, or a venv would have a place where it could do harm.
    """
    names = (os.path.join(root, name) for name in CONFIG_NAMES)
    present = next((path for path in names if os.path.lexists(path)), "")
    if present:
        return _supplement(root, present, schema, environ)
    found = discover(root)
    text = render(found)
    config = _loaded(root, text, environ)
    files = {} if Directory(root).text(SCHEMA_NAME) == schema else {SCHEMA_NAME: schema}
    dodo, advice = _dodo(root)
    # The config comes last: what it points to is there when it appears.
    files |= dodo | {"venvflow.yaml": text}
    if there := [name for name in files if os.path.lexists(os.path.join(root, name))]:
        raise Refused(
            f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} there already",
            where=shown(root),
            state="Nothing was written.",
            hint="Move away what you do not need, then run init again.",
        )
    notes = (*_config_above(root), *advice, *_missing(config, environ), *_store_in_use(config))
    return Draft(found, config, files, notes)


def _supplement(root: str, present: str, schema: str, environ: Mapping[str, str]) -> Draft:
    """Return what the project with the config *present* lacks: files, and entries for lock files."""
    config = configs.load(present, root, environ)
    found = discover(root, config)
    name = os.path.relpath(os.path.join(os.path.dirname(present), SCHEMA_NAME), root)
    is_there = os.path.lexists(os.path.join(root, name))
    notes = []
    if is_there and Directory(root).text(name) != schema:
        notes.append(f"{name} is not that of this venvflow: delete it and run init again")
    dodo, advice = _dodo(root)
    files = dodo if is_there else {name: schema} | dodo
    return Draft(found, config, files, (*notes, *advice, *found.notes), present)


def _loaded(root: str, text: str, environ: Mapping[str, str]) -> Config:
    """Return the config that *text* is, as a run would load it; it is not in the project yet."""
    with scratch() as temporary:
        file = os.path.join(temporary.path, "venvflow.yaml")
        with open(file, "w", encoding="utf-8") as stream:
            stream.write(text)
        return configs.load(file, root, environ)


def _dodo(root: str) -> tuple[dict[str, str], list[str]]:
    """Return the ``dodo.py`` that is to be written, if one is, and what to do by hand if not."""
    project = Directory(root)
    if os.path.lexists(os.path.join(root, "dodo.py")):
        is_ours = "venvflow.tasks" in project.text("dodo.py")
        return {}, [] if is_ours else ['dodo.py is there: add "from venvflow.tasks import *" to it']
    loader = text_at(project.document("pyproject.toml"), "tool", "doit", "loader")
    if not loader:
        return {"dodo.py": DODO_TEMPLATE}, []
    other = f'doit uses the loader "{shown(loader)}" here: give it the tasks of venvflow.tasks'
    return {}, [] if loader == "venvflow" else [other]


# --------------------------------------------------------------------------- what a person should know


def _config_above(root: str) -> list[str]:
    """Return a note when *root* lies in a project that has a config already."""
    try:
        file, _ = find_config(os.path.dirname(root))
    except UsageError:
        return []
    return [f"a directory above has {shown(file)} already: here, the new one takes its place"]


def _missing(config: Config, environ: Mapping[str, str]) -> list[str]:
    """Return what this machine lacks for the venvs: better known now than from the first doit."""
    texts: dict[str, None] = {}
    for spec in config.venvs.values():
        try:
            builders.choose(spec, environ)
            interpreters.resolve(spec.python, root=config.root, environ=environ)
        except VenvflowError as error:
            texts[f"{shown(spec.name)}: {error.what}. {error.hint}".strip()] = None
    return list(texts)


def _store_in_use(config: Config) -> list[str]:
    """Return a note when other projects use the store: one policy trims the snapshots of all."""
    with open_reader(config.store) as store:
        if store is None:
            return []
        root = os.path.realpath(config.root)
        others = len({each.project for each in store.registrations() if each.project not in ("", root)})
        snapshots = len(store.snapshots())
    if not others:
        return []
    users = f"{others} other project{'s' * (others > 1)}, {snapshots} snapshot{'s' * (snapshots != 1)}"
    where = shown(config.store.path)
    return [f"the store {where} is in use already: {users}. Files are shared, and trim counts theirs too"]


# --------------------------------------------------------------------------- the config's text


_NOT_LOOKED_INTO = (
    "It did not look into hidden directories, venvs, and what is built or comes from elsewhere: "
    f"{', '.join(ELSEWHERE)}."
)

_HEAD = f"""\
# yaml-language-server: $schema=./{SCHEMA_NAME}
# The virtual environments of this project. Run "doit" to make each what its lock files say.
# "venvflow init" wrote this; what it found and why it chose so is in the comments. Change what you like.
version: 1
"""

_WIDTH = 110
"""Columns of the config that is written."""

_OPTIONS = """
# More that can be said, here with examples:
# trim: {keep: 25, max_age: 60d, max_size: 20GiB}   # when to drop old snapshots
# exclude: ["**/tests/", "!**/numpy/tests/"]        # what not to keep, as in .gitignore
# defaults: {python: "3.12"}                        # keys for all venvs
"""

_NOTHING = """
# No lock file was found, so there is no venv yet. Put one here, such as:
# venvs:
#   api:
#     path: services/api/.venv
#     locks: [services/api/requirements.txt]
#     python: "3.12"
venvs: {}
"""


def render(found: Discovery) -> str:
    """Return the text of a ``venvflow.yaml`` for what was *found*; it loads as it stands."""
    notes = [line for note in (_NOT_LOOKED_INTO, *found.notes) for line in _commented(note, "")]
    parts = [_HEAD, _OPTIONS, "\n", *(f"{line}\n" for line in notes)]
    if not found.venvs:
        return "".join((*parts, _NOTHING))
    return "".join((*parts, "\nvenvs:\n", entries(found)))


def entries(found: Discovery) -> str:
    """Return what goes below ``venvs:`` for what was *found*, with the reasons as comments."""
    return "\n".join(map(_rendered, found.venvs))


def _rendered(proposal: Proposal) -> str:
    lines = [f"  {quoted(proposal.name)}:"]
    lines += [line for note in proposal.notes for line in _commented(note, "    ")]
    lines += [f"    path: {_path(proposal.path)}", "    locks:"]
    lines += [f"      - {_path(lock)}" for lock in proposal.locks]
    if proposal.python:
        lines.append(f'    python: "{proposal.python}"')
    return "\n".join(lines) + "\n"


def _commented(text: str, indent: str) -> list[str]:
    """Return *text* as lines of comment; half of a long path is useless."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _path(path: str) -> str:
    """Return *path* as the config reads it: a dollar is doubled, a leading tilde is not a home."""
    literal = path.replace("$", "$$")
    return quoted(f"./{literal}" if literal.startswith("~") else literal)
