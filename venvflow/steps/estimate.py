"""What sharing a venv would save, found out without writing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from venvflow.disk.bytecode import pyc_path
from venvflow.disk.objects import Name, object_name
from venvflow.disk.scan import Found, walk
from venvflow.model import Entry
from venvflow.pure.sharing import stays_private
from venvflow.state.accounts import census
from venvflow.state.reader import StoreReader
from venvflow.steps.squish import Subject, bytecode_of, look_through, without_excluded
from venvflow.steps.squish_path import Errand, known_of, refuse_unless_sharable, subject_of


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


def estimate(store: StoreReader | None, errand: Errand, foresight: Foresight, *, store_path: str) -> Estimate:
    """Return what :func:`~venvflow.steps.squish_path.squish_path` would save by hard links; writes nothing.

    *store* is None where there is none yet; *store_path* is where it is or would be, resolved. Bytecode that
    has yet to be compiled, and the store's own lists, are not counted. Raises as squishing does.
    """
    place = errand.place
    refuse_unless_sharable(place, store_path)
    subject = subject_of(errand)
    receipt = place.receipt()
    known = {}
    if store is not None and receipt is not None and receipt.path == place.path:
        known = known_of(store, receipt, without_excluded(walk(place.path), subject.matcher)).stamped
    looked = look_through(subject, known)
    replaced: dict[tuple[int, int], int] = {}
    for path in _surplus(store, subject, looked.entries, looked.found, foresight):
        item = looked.found[path]
        key = item.device, item.stamp.inode
        replaced[key] = replaced.get(key, 0) + 1
    inodes = census(place.path)
    gone = [inodes[key] for key, names in replaced.items() if key in inodes and names >= inodes[key].names]
    return Estimate(
        files=sum(replaced.values()),
        bytes=sum(inode.bytes for inode in gone),
        elsewhere=sum(inode.bytes for inode in gone if inode.links > inode.names),
        all_files=sum(1 for item in looked.found.values() if item.kind == "file"),
    )


def _surplus(
    store: StoreReader | None,
    subject: Subject,
    entries: Mapping[str, Entry],
    found: Mapping[str, Found],
    foresight: Foresight,
) -> Iterator[str]:
    """Yield the paths of files that the store has already, or would have by then."""
    for path, entry in entries.items():
        if entry.kind != "file" or stays_private(entry, subject.min_size) or path not in found:
            continue
        name, item = object_name(entry), found[path]
        stored = store is not None and store.objects.sound(name, entry.size)
        if (name in foresight.objects or stored) and not _is_object(store, name, item):
            yield path
        foresight.objects.add(name)
    if subject.bytecode == "canonical":
        yield from _surplus_bytecode(store, subject, entries, found, foresight)


def _is_object(store: StoreReader | None, name: Name, item: Found) -> bool:
    with suppress(OSError):
        return store is not None and store.objects.is_at(name, item.stamp.inode, item.device)
    return False


def _surplus_bytecode(
    store: StoreReader | None,
    subject: Subject,
    entries: Mapping[str, Entry],
    found: Mapping[str, Found],
    foresight: Foresight,
) -> Iterator[str]:
    """Yield the bytecode that would give way to what was compiled for another venv."""
    interpreter = bytecode_of(subject.interpreter)
    known = store.index.bytecode(interpreter) if store is not None else {}
    for path, entry in entries.items():
        if entry.kind != "file" or not path.endswith(".py") or not path.startswith("lib/"):
            continue
        compiled = pyc_path(path, subject.interpreter.cache_tag)
        made = known.get((entry.digest, path))
        item = found.get(compiled)
        foreseen = (interpreter, entry.digest, path) in foresight.bytecode
        if item is not None and item.kind == "file" and (foreseen or _replaces(store, made, item)):
            yield compiled
        foresight.bytecode.add((interpreter, entry.digest, path))


def _replaces(store: StoreReader | None, made: tuple[Name, int] | None, item: Found) -> bool:
    return made is not None and not _is_object(store, made[0], item)
