"""Drafts the files that ``init`` writes, and says what is left to do by hand.

Where the project has a config, it stays as it is, and what it lacks is shown instead.
"""

from __future__ import annotations

import os
import stat
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from venvflow import builders
from venvflow import config as configs
from venvflow.config import CONFIG_NAMES, find_config, quoted
from venvflow.config.documents import read
from venvflow.disk import interpreters
from venvflow.disk.files import new_file
from venvflow.disk.scratch import scratch
from venvflow.disk.system_errors import failure
from venvflow.errors import Refused, UsageError, VenvflowError, shown, some
from venvflow.init.addition import with_entries
from venvflow.init.discovery import Discovery, Proposal, discover
from venvflow.init.project import ELSEWHERE, Directory, text_at
from venvflow.model import Config
from venvflow.pure.patterns import compile_patterns
from venvflow.pure.units import counted
from venvflow.state.reader import open_reader

SCHEMA_NAME = "venvflow.schema.json"
"""Name of the schema beside the config, to which the config's first line points."""

DODO_TEMPLATE = '''\
"""Run "doit" to make the virtual environments of {name} what their lock files say."""
{setting}
from venvflow.tasks import *  # noqa: F403 - not found? Install venvflow where doit is: pip install venvflow
'''
"""Text of a ``dodo.py`` that has all tasks."""

_NAMING = """
import os

os.environ.setdefault("VENVFLOW_CONFIG", {name!r})
"""


@dataclass(frozen=True, slots=True)
class Draft:
    """What ``init`` is about to write, the config that it makes, and sentences for the person.

    *files* are texts by names below the project root. In a project that has a config, *present* is its
    path, *found* is what it lacks, and *before* what it says.
    """

    found: Discovery
    config: Config
    files: dict[str, str]
    notes: tuple[str, ...]
    present: str = ""
    before: bytes = b""

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
                os.makedirs(os.path.dirname(path), exist_ok=True)
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

    def add(self, environ: Mapping[str, str]) -> None:
        """Add what the config lacks to its text, and change nothing else in it.

        :raises Refused: the config is read-only, was changed meanwhile, or only a person can add to it.
        """
        text = with_entries(self.before.decode(), rendered(self.found))
        if not text or not self._says_the_same_and_more(text, environ):
            raise Refused(
                "the venvs of the config are written in a way that only a person can add to",
                where=shown(self.present),
                state="Nothing was written.",
                hint='"venvflow init --check" shows the entries: add them by hand.',
            )
        path = os.path.realpath(self.present)
        mode = os.stat(path).st_mode
        if not mode & 0o222 or not os.access(path, os.W_OK):
            raise Refused(
                "the config is read-only",
                where=shown(self.present),
                state="Nothing was written.",
                hint=f"Make it writable (chmod u+w {shown(self.present)}), then run init --add again.",
            )
        try:
            with new_file(path) as stream:
                stream.write(text.encode())
                os.fchmod(stream.fileno(), stat.S_IMODE(mode))
                if read(path)[0] != self.before:
                    raise Refused(
                        "the config was changed by somebody else meanwhile",
                        where=shown(self.present),
                        state="It is as they left it.",
                        hint="Run init --add again.",
                    )
        except OSError as error:
            raise failure(error, "cannot write the config", at=path, state="It is as it was.") from error

    def _says_the_same_and_more(self, text: str, environ: Mapping[str, str]) -> bool:
        """Return whether the config *text* has the venvs that it had, and those that were found."""
        try:
            after = _loaded(self.found.root, text, environ)
        except VenvflowError:
            return False
        wanted = {os.path.join(self.found.root, each.path): each.name for each in self.found.venvs}
        old = self.config.venvs
        new = {spec.path: name for name, spec in after.venvs.items() if name not in old}
        return new == wanted and all(after.venvs.get(name) == spec for name, spec in old.items())


def draft(root: str, schema: str, environ: Mapping[str, str], file: str = "") -> Draft:
    """Return what the project at *root* needs; *schema* is the text of the config's schema.

    *file* is the config, if it is not to be one of the usual ones; its project is *root*.

    :raises Refused: a file is in the way, or a venv would have a place where it could do harm.
    """
    usual = [os.path.join(root, name) for name in CONFIG_NAMES]
    present = next((path for path in ([file] if file else usual) if os.path.lexists(path)), "")
    if present:
        return _supplement(root, present, schema, environ)
    name = os.path.relpath(file or usual[0], root)
    found = discover(root, environ)
    text = render(found)
    config = _loaded(root, text, environ)
    beside = os.path.join(os.path.dirname(name), SCHEMA_NAME)
    files = {} if Directory(root).text(beside) == schema else {beside: schema}
    dodo, advice = _dodo(root, name)
    # The config comes last: what it points to is there when it appears.
    files |= dodo | {name: text}
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
    found = discover(root, environ, config)
    beside = os.path.relpath(os.path.join(os.path.dirname(present), SCHEMA_NAME), root)
    is_there = os.path.lexists(os.path.join(root, beside))
    notes = list(_hidden(config))
    if is_there and Directory(root).text(beside) != schema:
        notes.append(f"{beside} is not that of this venvflow: delete it and run init again")
    dodo, advice = _dodo(root, os.path.relpath(present, root))
    files = dodo if is_there else {beside: schema} | dodo
    return Draft(found, config, files, (*notes, *advice), present, read(present)[0])


def _loaded(root: str, text: str, environ: Mapping[str, str]) -> Config:
    """Return the config that *text* is, as a run would load it; it is not in the project yet."""
    with scratch() as temporary:
        file = os.path.join(temporary.path, "venvflow.yaml")
        with open(file, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        return configs.load(file, root, environ)


def _dodo(root: str, config: str) -> tuple[dict[str, str], list[str]]:
    """Return the ``dodo.py`` that is to be written, if one is, and what to do by hand if not.

    *config* is the config below *root*: if doit would not find it by itself, the ``dodo.py`` names it.
    """
    project = Directory(root)
    name = "" if config in CONFIG_NAMES else config
    by_hand = (
        [f"set VENVFLOW_CONFIG={shown(name)} where doit runs: it looks for venvflow.yaml"] if name else []
    )
    if os.path.lexists(os.path.join(root, "dodo.py")):
        if "venvflow.tasks" in project.text("dodo.py"):
            return {}, [] if "VENVFLOW_CONFIG" in project.text("dodo.py") else by_hand
        return {}, ['dodo.py is there: add "from venvflow.tasks import *" to it', *by_hand]
    loader = text_at(project.document("pyproject.toml"), "tool", "doit", "loader")
    if not loader:
        setting = _NAMING.format(name=name) if name else ""
        return {"dodo.py": DODO_TEMPLATE.format(name=os.path.basename(config), setting=setting)}, []
    other = f'doit uses the loader "{shown(loader)}" here: give it the tasks of venvflow.tasks'
    return {}, [*([] if loader == "venvflow" else [other]), *by_hand]


# --------------------------------------------------------------------------- what a person should know


def _config_above(root: str) -> list[str]:
    """Return a note when *root* lies in a project that has a config already."""
    try:
        file, _ = find_config(os.path.dirname(root))
    except UsageError:
        return []
    return [f"a directory above has {shown(file)} already: here, the new one takes its place"]


def _hidden(config: Config) -> Iterator[str]:
    """Yield a note for each venv whose lock file the config ignores: it stays a venv all the same."""
    ignore = compile_patterns(config.ignore)
    for spec in config.venvs.values() if ignore else ():
        for lock in spec.locks:
            if ignore.excludes_file(os.path.relpath(lock, config.root)):
                yield f"ignore hides {shown(lock)}; {shown(spec.name)}, which is made from it, stays"
                break


def _missing(config: Config, environ: Mapping[str, str]) -> list[str]:
    """Return what this machine lacks for the venvs: better known now than from the first doit."""
    lacking: dict[str, list[str]] = {}
    for spec in config.venvs.values():
        try:
            builders.choose(spec, environ)
            interpreters.resolve(spec.python, root=config.root, environ=environ)
        except VenvflowError as error:
            lacking.setdefault(f"{error.what}. {error.hint}".strip(), []).append(shown(spec.name))
    return [f"{some(names, _MOST_PLACES)}: {text}" for text, names in lacking.items()]


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
    users = f"{counted(others, 'other project')}, {counted(snapshots, 'snapshot')}"
    where = shown(config.store.path)
    return [f"the store {where} is in use already: {users}. Files are shared, and trim counts theirs too"]


# --------------------------------------------------------------------------- the config's text


_NOT_LOOKED_INTO = (
    "init looked at all that git tracks; of the rest not into hidden directories, venvs, "
    f"{', '.join(ELSEWHERE)}."
)
_USUAL_PYTHON = 'Without "python", a venv has the Python that runs venvflow.'

_HEAD = """\
# yaml-language-server: $schema={schema}
# The virtual environments of this project. Run "doit" to make each what its lock files say.
# "venvflow init" wrote this; what it found and why it chose so is in the comments. Change what you like.
version: 1
"""

_WIDTH = 110
"""Columns of the config that is written."""

_MOST_ENTRIES = 30
"""Venvs that stand in comments for one reason; of more, it is said where they are."""

_MOST_PLACES = 8
_FEWEST_TO_SHARE = 3

_OPTIONS = """
# More that can be said, here with examples:
# trim: {keep: 25, max_age: 60d, max_size: 20GiB}   # when to drop old snapshots
# exclude: ["**/tests/", "!**/numpy/tests/"]        # what not to keep, as in .gitignore
# ignore: [examples/]                               # where init does not look, as in .gitignore
# defaults: {python: "3.12"}                        # keys for all venvs
"""

_NOTHING = """
# No lock file was found, so there is no venv yet. Put one here, such as:
# venvs:
#   api: services/api/requirements.txt
venvs: {}
"""


def render(found: Discovery, schema: str = f"./{SCHEMA_NAME}") -> str:
    """Return the text of a ``venvflow.yaml`` for what was *found*; it loads as it stands.

    *schema* is where editors find the schema of the config.
    """
    notes = [_NOT_LOOKED_INTO, *found.notes]
    if any(not each.python for each in found.venvs):
        notes.append(_USUAL_PYTHON)
    found, shared = _with_shared_python(found)
    settings = [*found.settings, *shared]
    said = tuple(f"# {line.partition(':')[0]}:" for line in settings)
    options = [line for line in _OPTIONS.splitlines(keepends=True) if not said or not line.startswith(said)]
    parts = [_HEAD.format(schema=schema), *(f"{line}\n" for line in settings), *options, "\n"]
    parts += [f"{line}\n" for note in notes for line in _commented(note, "")]
    if not (found.venvs or found.doubtful):
        return "".join((*parts, _NOTHING))
    return "".join((*parts, "\nvenvs:\n", entries(found), *_doubtful(found.doubtful)))


def _with_shared_python(found: Discovery) -> tuple[Discovery, list[str]]:
    """Return what was *found*, and the lines that say once which Python it is, if that is always the same."""
    pythons = {(each.python, each.source) for each in found.venvs}
    versions = {version for version, _ in pythons}
    if len(found.venvs) < _FEWEST_TO_SHARE or len(versions) > 1 or "" in versions:
        return found, []
    (version,) = versions
    source = f"  # {next(iter(pythons))[1]}" if len(pythons) == 1 else ""
    alike = [replace(each, python="" if each.python == version else each.python) for each in found.venvs]
    doubtful = [
        replace(each, python="" if each.python == version else each.python) for each in found.doubtful
    ]
    shared = [f'defaults: {{python: "{version}"}}{source}']
    return replace(found, venvs=tuple(alike), doubtful=tuple(doubtful)), shared


def entries(found: Discovery) -> str:
    """Return what goes below ``venvs:`` for what can be trusted, with the reasons as comments."""
    return "".join(f"  {line}\n" if line else "\n" for each in rendered(found) for line in each)


def rendered(found: Discovery) -> list[list[str]]:
    """Return the lines of each entry for what can be trusted, long ones with a blank line around."""
    every = [_rendered(proposal) for proposal in found.venvs]
    is_long = [len(lines) > 1 for lines in every]
    apart = [number > 0 and (is_long[number - 1] or is_long[number]) for number in range(len(every))]
    return [["", *lines] if gap else lines for gap, lines in zip(apart, every, strict=True)]


def _doubtful(proposals: Iterable[Proposal]) -> Iterator[str]:
    """Yield what a person has to choose from, as comments below ``venvs:``: each line is one to uncomment."""
    groups: dict[str, list[Proposal]] = {}
    for proposal in proposals:
        groups.setdefault(proposal.reason, []).append(proposal)
    for reason, members in groups.items():
        if len(members) <= _MOST_ENTRIES:
            lines = _commented(f"{reason}. Uncomment what you want:", "")
            lines += [f"  # {line}" for member in members for line in _rendered(member)]
        else:
            lines = _commented(f"{reason}: {counted(len(members), 'venv')}, {_places(members)}.", "")
        yield "".join(f"{line}\n" for line in ("", *lines))


def _places(proposals: Iterable[Proposal]) -> str:
    """Return where venvs would be, by the directories of the first two levels."""
    counts = Counter("/".join(each.directory.split("/")[:2]) for each in proposals)
    places = [f"{count} in {shown(place) or 'the root'}" for place, count in counts.most_common()]
    return some(places, _MOST_PLACES)


def _rendered(proposal: Proposal) -> list[str]:
    """Return the lines of one entry, in the shortest form that says all."""
    name, locks = quoted(proposal.name), [_path(lock) for lock in proposal.locks]
    is_usual = proposal.path == os.path.join(os.path.dirname(proposal.locks[0]), ".venv")
    if (
        is_usual
        and len(locks) == 1
        and not (proposal.python or proposal.notes or proposal.key_files or proposal.options)
    ):
        return [f"{name}: {locks[0]}"]
    lines = [f"{name}:", *(line for note in proposal.notes for line in _commented(note, "  "))]
    if not is_usual:
        lines.append(f"  path: {_path(proposal.path)}")
    lines += _list("locks", locks)
    if proposal.python:
        source = f"  # {proposal.source}" if proposal.source else ""
        lines.append(f'  python: "{proposal.python}"{source}')
    lines += [f"  {option}" for option in proposal.options]
    if proposal.key_files:
        lines += ["  key:", *(f"  {line}" for line in _list("files", list(map(_path, proposal.key_files))))]
    return lines


def _list(key: str, items: Sequence[str]) -> list[str]:
    """Return a list below *key* in one line if that is not too long."""
    line = f"  {key}: [{', '.join(items)}]"
    return [line] if len(line) <= _WIDTH else [f"  {key}:", *(f"    - {item}" for item in items)]


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
