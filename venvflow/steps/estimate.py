"""Estimates what sharing a venv would save, and writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from venvflow.disk.bytecode import is_source, pyc_path
from venvflow.disk.objects import Name, object_name
from venvflow.model import Interpreter
from venvflow.pure.sharing import stays_private
from venvflow.state.changes import is_object, known_of, look_at
from venvflow.state.index import Stamped
from venvflow.state.intake import bytecode_of
from venvflow.state.reader import StoreReader
from venvflow.state.survey import Survey
from venvflow.state.usage import inodes_below
from venvflow.steps.any_venv import refuse_unless_sharable
from venvflow.steps.job import Job
from venvflow.steps.share import interpreter_of, survey_venv


@dataclass(slots=True)
class Foresight:
    """What a dry run takes for granted: *objects* and *bytecode* that venvs before this one would give."""

    objects: set[Name] = field(default_factory=set)
    bytecode: set[tuple[str, str, str]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What sharing a venv would do: *files* would give way to links, freeing *bytes* on disk.

    *elsewhere* of these bytes are held by others too. *all_files* is how many the venv has.
    """

    files: int
    bytes: int
    elsewhere: int
    all_files: int


def estimate(store: StoreReader | None, job: Job, foresight: Foresight, *, store_path: str) -> Estimate:
    """Return what :func:`~venvflow.steps.share.share` would save by hard links; nothing is written.

    *store* is None where there is none yet; *store_path* is where it is or would be, resolved. Bytecode that
    has yet to be compiled, and the store's own lists, are not counted. Raises as sharing does.
    """
    place = job.place
    refuse_unless_sharable(place, store_path)
    python = interpreter_of(job)
    receipt = place.receipt()
    seen = look_at(place.path, receipt, store)
    known: Mapping[str, Stamped] = {}
    if store is not None and receipt is not None and receipt.is_at(place.path):
        known = known_of(store, receipt, seen).stamped
    surveyed = survey_venv(job, python, known, seen.found)
    surplus = [*_surplus(store, job, surveyed, foresight)]
    if job.spec.bytecode == "canonical":
        surplus += _surplus_bytecode(store, python, surveyed, foresight)
    replaced = Counter((surveyed.found[path].device, surveyed.found[path].stamp.inode) for path in surplus)
    inodes = inodes_below(place.path)
    gone = [inodes[key] for key, names in replaced.items() if key in inodes and names >= inodes[key].names]
    return Estimate(
        files=len(surplus),
        bytes=sum(inode.bytes for inode in gone),
        elsewhere=sum(inode.bytes for inode in gone if inode.links > inode.names),
        all_files=sum(1 for item in surveyed.found.values() if item.kind == "file"),
    )


def _surplus(store: StoreReader | None, job: Job, surveyed: Survey, foresight: Foresight) -> Iterator[str]:
    """Yield the paths of files that the store has already, or would have by then."""
    for path, entry in surveyed.entries.items():
        private = job.keeps_private(path) or stays_private(entry, job.spec.min_size)
        if entry.kind != "file" or private or path not in surveyed.found:
            continue
        name = object_name(entry)
        stored = store is not None and store.objects.sound(name, entry.size)
        if (name in foresight.objects or stored) and not (
            store is not None and is_object(store, name, surveyed.found[path])
        ):
            yield path
        foresight.objects.add(name)


def _surplus_bytecode(
    store: StoreReader | None, python: Interpreter, surveyed: Survey, foresight: Foresight
) -> Iterator[str]:
    """Yield the bytecode that would give way to what was compiled for another venv."""
    interpreter = bytecode_of(python)
    known = store.index.bytecode(interpreter) if store is not None else {}
    for path, entry in surveyed.entries.items():
        if entry.kind != "file" or not is_source(path):
            continue
        source = interpreter, entry.digest, path
        item = surveyed.found.get(pyc_path(path, python.cache_tag))
        if item is not None and item.kind == "file":
            made = known.get((entry.digest, path))
            stored = store is not None and made is not None and not is_object(store, made[0], item)
            if stored or source in foresight.bytecode:
                yield item.path
        foresight.bytecode.add(source)
