"""Tells which files of a venv are what its lock says, and which lie beyond: those are never published.

A RECORD says which files a distribution brought, and what was in them. What the maker of the venv itself
brings (activation scripts, links to Python) is published as a pristine venv has it: people write into it.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from venvflow.disk.files import read_small
from venvflow.disk.objects import Name
from venvflow.disk.scan import walk
from venvflow.errors import legible
from venvflow.model import Entry
from venvflow.pure.comparison import SEEDS, seeds_among
from venvflow.pure.manifest import Distribution, name_and_version
from venvflow.pure.names import normalised
from venvflow.pure.patterns import Matcher
from venvflow.pure.relocate import Listed, listed_in
from venvflow.state.changes import Drift
from venvflow.state.file_stats import is_ignored
from venvflow.state.recorded import listed, records_of
from venvflow.state.store import Store
from venvflow.state.survey import Survey

_UNRECORDED = re.compile(r"lib/[^/]+/site-packages/([^/]+)\.(?:dist-info|egg-info|egg|egg-link)(?:/.*)?")
_NOTES = re.compile(r"\.dist-info/(?:RECORD|INSTALLER|REQUESTED|direct_url\.json)\Z")
"""What installers write into a ``.dist-info``, and some list without a hash."""

_MAKERS = re.compile(
    r"""(?x)
      bin/ (?: [Aa]ctivate | deactivate | python | pypy | pydoc ) [^/]*
    | pyvenv\.cfg | \.gitignore | CACHEDIR\.TAG | lib64 | (?: include | share ) (?: / .* )?
    | lib/[^/]+/site-packages/ (?: _virtualenv\.(?:pth|py) | [^/]+\.virtualenv )
    """
)
"""What makers of venvs bring, each its own."""


_ALIKE = 2_000_000_000
"""Nanoseconds within which a maker of venvs writes its scripts: what somebody wrote into one is newer."""


def is_bare(venv: str) -> bool:
    """Return whether the venv at a path holds nothing but what the makers of venvs put there.

    What seeds it is known by its RECORDs, the maker's own files by their names and times: people write
    variables into ``bin/activate``. In doubt it is not.
    """
    infos = glob.glob(f"{glob.escape(venv)}/lib/*/site-packages/*.dist-info")
    records = [f"{info}/RECORD" for info in infos]
    names = {normalised(name_and_version(record)[0]) for record in records}
    if names != seeds_among(names):
        return False
    seeds: set[str] = set()
    with suppress(OSError, ValueError):
        for record in (os.path.relpath(each, venv) for each in records):
            seeds.update(listed_in(record, read_small(f"{venv}/{record}"), venv))
    files = {item.path: item for item in walk(venv) if item.kind != "dir" and not is_ignored(item.path)}
    makers = {path: item.stamp.mtime_ns for path, item in files.items() if _MAKERS.fullmatch(path)}
    begun = min((makers[path] for path in makers if files[path].kind == "link"), default=0)
    # Python 3.13 copies a script that names nothing of the venv with the time that it has.
    scripts = [
        time
        for path, time in makers.items()
        if path.lower().startswith("bin/activate") and time >= begun - _ALIKE
    ]
    return (
        files.keys() <= seeds | makers.keys()
        and not any(path.startswith(("include/", "share/")) for path in makers)
        and bool(scripts)
        and max(*scripts, makers.get("pyvenv.cfg", 0)) - min(scripts) <= _ALIKE
    )


class NotTheLocks(Exception):
    """A venv cannot be published as what its lock says; the text says why."""


@dataclass(slots=True)
class LockPart:
    """What of the venv at path *venv* is its lock's: the *survey*, which has lost what is not.

    *own* are files that only this venv has and that are not worth a word, with the SHA-256 of their bytes:
    what seeds it, and what its maker brought. *added* are others, and *edited* are files of which the store
    has the right bytes, and so has the survey. *installers* are the names of those who installed the rest.
    """

    venv: str
    survey: Survey
    own: dict[str, str] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    installers: Counter[str] = field(default_factory=Counter)

    @property
    def beyond(self) -> Drift:
        """Return what lies beyond the lock, as a change by hand is told."""
        return Drift(added=tuple(sorted(self.added)), edited=tuple(sorted(self.edited)))

    @property
    def made_by(self) -> str:
        """Return the name of the tool that installed most of it."""
        found = next(iter(self.installers.most_common(1)), ("", 0))[0].lower()
        return legible(found) if re.fullmatch(r"[\w.-]{1,20}", found) else "another tool"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What decides whose a file is.

    *beyond* are distributions that the lock does not ask for, *seeds* those of the builder, *named* those of
    the lock files. *pristine* is a new venv with nothing in it. *matcher* excludes files; *compiled* are
    sources, by digest and path, whose bytecode is known.
    """

    beyond: frozenset[str]
    seeds: frozenset[str]
    named: frozenset[str]
    pristine: Survey
    matcher: Matcher | None
    compiled: frozenset[tuple[str, str]]

    def is_the_locks(self, name: str) -> bool:
        """Return whether a distribution is to be published."""
        if name in self.seeds:
            return True
        return name not in self.beyond and (name not in SEEDS or name in self.named)


def lock_part(venv: str, survey: Survey, store: Store, wanted: Wanted) -> LockPart:
    """Return what of the venv at path *venv*, which was surveyed, is its lock's; raises NotTheLocks."""
    part = LockPart(venv, survey)
    theirs, seeds = _recorded(part, wanted)
    _refuse_missing(survey, theirs, wanted.matcher)
    for path, entry in [*survey.entries.items()]:
        if path in theirs:
            _check(part, store, wanted, entry, theirs[path])
        elif path in wanted.pristine.entries:
            _take_pristine(part, store, wanted.pristine, entry)
        else:
            _leave_out(part, wanted, entry, is_seed=path in seeds)
    survey.distributions = [each for each in survey.distributions if _is_left(each, survey)]
    return part


def _is_left(distribution: Distribution, survey: Survey) -> bool:
    return any(path.endswith(".dist-info/RECORD") and path in survey.entries for path in distribution.paths)


def _recorded(part: LockPart, wanted: Wanted) -> tuple[dict[str, set[Listed]], set[str]]:
    """Return what the RECORDs of the lock's distributions say of each file, and the files of mere seeds."""
    theirs: dict[str, set[Listed]] = {}
    seeds: set[str] = set()
    for path in records_of(part.survey.entries):
        name = normalised(name_and_version(path)[0])
        try:
            rows = listed(part.venv, path, part.survey.filled.get(path, ""))
        except (OSError, ValueError) as error:
            raise NotTheLocks(f"{path} cannot be read, or lists what is not in the venv") from error
        if wanted.is_the_locks(name):
            for file, said in rows.items():
                theirs.setdefault(file, set()).update(said)
            part.installers.update(_installer(part.venv, path))
        elif name in SEEDS:
            seeds.update(rows)
    return theirs, seeds


def _installer(venv: str, record: str) -> list[str]:
    with suppress(OSError):
        return (
            read_small(f"{venv}/{os.path.dirname(record)}/INSTALLER").decode("utf-8", "replace").split()[:1]
        )
    return []


def _refuse_missing(survey: Survey, theirs: Iterable[str], matcher: Matcher | None) -> None:
    """Raise NotTheLocks if a file is not there; bytecode is made anew, and what is excluded may be gone."""
    for path in theirs:
        is_wanted = path not in survey.found and not is_ignored(path)
        if is_wanted and not (matcher is not None and matcher.excludes_file(path)):
            raise NotTheLocks(f"{path} is missing")


def _check(part: LockPart, store: Store, wanted: Wanted, entry: Entry, said: set[Listed]) -> None:
    """See that a file of a distribution has the bytes that were installed, or that the store has them."""
    survey, path = part.survey, entry.path
    digest = survey.filled.get(path) or entry.digest
    if entry.kind == "link":
        digest = _digest_behind(part, store, path)
    if digest in {each.digest for each in said} or (Listed() in said and _NOTES.search(path)):
        return
    for each in said:
        name = Name(each.digest, entry.executable)
        if each.digest and entry.kind != "link" and store.objects.verified(name):
            if path.endswith(".py") and (each.digest, path) not in wanted.compiled:
                continue  # it would be compiled from what lies here
            part.edited.append(path)
            survey.entries[path] = Entry(path, "file", each.digest, entry.executable, each.size)
            survey.templates.pop(path, None)
            return
    raise NotTheLocks(f"{path} was edited")


def _digest_behind(part: LockPart, store: Store, path: str) -> str:
    """Return the SHA-256 of the object that a link of a venv shared by symlinks leads to, or nothing."""
    name = store.objects.name_at(os.readlink(f"{part.venv}/{path}"))
    return name.digest if name is not None else ""


def _take_pristine(part: LockPart, store: Store, pristine: Survey, entry: Entry) -> None:
    """Publish what the maker of the venv brought as a pristine venv has it; the file here stays as it is."""
    survey, path, theirs = part.survey, entry.path, pristine.entries[entry.path]
    if entry.kind == "link" and theirs.digest and _digest_behind(part, store, path) == theirs.digest:
        return
    if (entry.kind == "link") != (theirs.kind == "link"):
        raise NotTheLocks(f"{path} is not what a new venv has there")
    if entry.kind == "link":
        _refuse_leading_away(entry)
    elif entry != theirs and theirs.digest:
        survey.filled.setdefault(path, entry.digest)
        survey.templates[path] = pristine.templates[path]
        survey.entries[path] = theirs._replace(kind="template")  # of which each venv may have its own bytes


def _refuse_leading_away(entry: Entry) -> None:
    """Raise NotTheLocks for a link that leads neither to the venv's Python nor beside itself."""
    is_python = [slot.kind for slot in entry.slots] == ["python"]
    if not is_python and (entry.slots or "/" in entry.target or entry.target == ".."):
        raise NotTheLocks(f"{entry.path} leads to {entry.target}")


def _leave_out(part: LockPart, wanted: Wanted, entry: Entry, *, is_seed: bool) -> None:
    """Leave out what neither a distribution of the lock nor a new venv has."""
    survey, path = part.survey, entry.path
    unrecorded = _UNRECORDED.fullmatch(path)
    if unrecorded is not None and not is_seed and not path.endswith(".virtualenv"):
        name = normalised(name_and_version(f"{unrecorded[1]}.dist-info/RECORD")[0])
        if wanted.is_the_locks(name) and f"{path.rpartition('/')[0]}/RECORD" not in survey.entries:
            raise NotTheLocks(f"nothing records which files {name} has")
    is_makers = _MAKERS.fullmatch(path) is not None
    if is_makers and entry.kind == "link":
        _refuse_leading_away(entry)  # one more name of Python: nobody's work
    elif (is_makers or is_seed) and entry.digest:
        part.own |= survey.withhold([path])
    else:
        if entry.kind != "dir" and not is_ignored(path):
            part.added.append(path)
        del survey.entries[path]
        survey.templates.pop(path, None)
