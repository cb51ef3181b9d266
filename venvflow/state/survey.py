"""Surveys a venv in one reading: every path as an entry, every file hashed, every local path found.

What was read before and did not change since (by its stamp) is not read again.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from venvflow.disk.files import open_regular
from venvflow.disk.places import RECEIPT
from venvflow.disk.scan import Changing, Found, in_threads, read, walk
from venvflow.errors import EnvironmentFailure, shown
from venvflow.model import INSTALLER_NOTE, BytecodePolicy, Entry, Slot
from venvflow.pure.manifest import Distribution, name_and_version, source_of
from venvflow.pure.relocate import (
    LARGEST_TEXT,
    Places,
    Template,
    embeds,
    find,
    find_in_record,
    find_link,
    is_in_package,
    kept_names,
    listed_digests,
    may_be_written_here,
    mentions,
    names_as_no_text,
    record_paths,
)
from venvflow.state.index import Stamped

NAMING = (
    "names this venv or its project by its path, and came with a package, has more than 4 MiB or is no text: "
    "it names the same wherever the venv is restored or unpacked"
)
"""What is to be said of a file that is *naming*."""

EMBEDDING = "contains the path it was built at, which is gone"
"""What is to be said of a file that is *embedding*, in a venv that was built."""


def names_its_place(warnings: Iterable[str]) -> bool:
    """Return whether something in a venv, as the *warnings* of its build say, is another thing elsewhere."""
    return any(text.endswith((NAMING, EMBEDDING)) for text in warnings)


@dataclass(slots=True)
class Survey:
    """What a venv holds: *entries* and what the walk *found* by path, *templates* by path.

    *filled* are the SHA-256 (in hex) of templates and RECORDs that were read, as they lie in the venv.
    *embedding* are binary files that contain the venv's path and cannot be relocated, *naming* texts that a
    package brought or that are large, so that it is not known whether they mean the venv or project that they
    name, and files that are no text, that no package brought, and that name the project. *special* are
    devices, FIFOs and sockets, which are never stored, *excluded* counts files left out.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    found: dict[str, Found] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    distributions: list[Distribution] = field(default_factory=list)
    embedding: list[str] = field(default_factory=list)
    naming: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    excluded: int = 0

    @property
    def bound(self) -> bool:
        """Return whether any entry refers to the project itself."""
        return any(slot.kind == "project" for entry in self.entries.values() for slot in entry.slots)

    def withhold(self, paths: Iterable[str]) -> dict[str, str]:
        """Leave out files that stay in this venv alone; return them with the SHA-256 of their bytes."""
        digests = {}
        for path in paths:
            digests[path] = self.filled.get(path) or self.entries[path].digest
            del self.entries[path]
            self.templates.pop(path, None)
        return digests

    def stamped(self) -> dict[str, Stamped]:
        """Return the files with their stamps, for the next survey."""
        return {
            path: Stamped(self.found[path].stamp, entry)
            for path, entry in self.entries.items()
            if entry.kind in ("file", "template")
        }

    def digests(self) -> list[tuple[str, str]] | None:
        """Return path and SHA-256 (in hex, empty for a link) of each file; None if some were not read."""
        entries = [entry for entry in self.entries.values() if entry.kind != "dir"]
        if any(entry.kind == "template" and entry.path not in self.filled for entry in entries):
            return None
        return [
            (each.path, self.filled[each.path] if each.kind == "template" else each.digest)
            for each in entries
        ]


class _Reading(NamedTuple):
    entry: Entry
    found: Found
    digest: str
    template: Template | None
    if_written_here: Template | None  # where that makes a difference
    data: bytes  # of a RECORD only
    embeds: bool
    names: bool  # being too large to be taken apart
    names_project: bool  # being no text


def survey(
    venv: str,
    places: Places,
    *,
    also: Sequence[Places] = (),
    fresh: bool = False,
    bytecode: BytecodePolicy = "canonical",
    found: Iterable[Found] | None = None,
    known: Mapping[str, Stamped] | None = None,
    excludes_file: Callable[[str], bool] | None = None,
    excludes_directory: Callable[[str], bool] | None = None,
    progress: Callable[[str, int, int], object] = lambda _stage, _done, _of: None,
) -> Survey:
    """Survey the venv that lies at path *venv* and whose files name *places*.

    *fresh*: it was built at a path that nothing else contains (see :func:`venvflow.pure.relocate.find`).
    *also* are other paths by which a file may name the same: in each file, those count that it names most.
    *found*: what a walk has found there just now; without it, the venv is walked. *known*: what an earlier
    survey or squish stamped. *progress* is called with a word for the stage and how
    many files of how many are read, from any thread. Raises EnvironmentFailure for what cannot be read and
    for a file that keeps changing.
    """
    result = Survey()
    known = known or {}
    skip = excludes_directory or (lambda _: False)
    skip_file = excludes_file or (lambda _: False)
    walked = walk(venv, enter=lambda path: not skip(path)) if found is None else _without(found, skip)
    result.found = {item.path: item for item in walked}
    to_read: list[Found] = []
    for path, item in result.found.items():
        if item.kind == "dir" or path.startswith(RECEIPT) or path.endswith(INSTALLER_NOTE):
            continue
        if _is_derived(path, result.found, bytecode):
            continue
        if skip_file(path):
            result.excluded += 1
        elif item.kind == "special":
            result.special.append(path)
        elif item.kind == "link":
            result.entries[path] = _link_entry(venv, path, (places, *also))
        elif path in known and known[path].stamp == item.stamp and not _is_record(path):
            result.entries[path] = known[path].entry
        else:
            to_read.append(item)
    numbers = itertools.count(1)

    def read_one(item: Found) -> _Reading:
        reading = _read_one(venv, (places, *also), item, fresh=fresh)
        progress("reading", next(numbers), len(to_read))
        return reading

    unread: list[str] = []
    records, suspects = _read_all(venv, read_one, to_read, result, unread)
    listed = {path: record_paths(path, data, places.venv) for path, data in records.items()}
    suspects += _unlisted(venv, result, to_read, listed, places)
    result.naming += sorted({*unread} - set[str]().union(*listed.values())) if unread else []
    _add_suspects(result, suspects, records, places)
    _add_records(result, records, listed, places)
    _add_empty_directories(result, skip, bytecode)
    return result


def _without(found: Iterable[Found], skip: Callable[[str], bool]) -> Iterator[Found]:
    """Yield what a walk has found, as one does that does not enter the directories to *skip*."""
    skipped: set[str] = set()
    for item in found:  # what is in a directory comes behind it
        if skipped and item.path.rpartition("/")[0] in skipped:
            if item.kind == "dir":
                skipped.add(item.path)
            continue
        if item.kind == "dir" and skip(item.path):
            skipped.add(item.path)
        yield item


def _link_entry(venv: str, path: str, named: Sequence[Places]) -> Entry:
    try:
        text = os.readlink(f"{venv}/{path}")
    except OSError as error:
        raise _unreadable(venv, path, error.strerror or str(error)) from error
    target, slots = max((find_link(text, places, os.path.realpath) for places in named), key=_found)
    return Entry(path, "link", target=target, slots=slots)


def _found(template: Template | tuple[str, tuple[Slot, ...]] | None) -> int:
    """Return how many local paths were found in a file or a link."""
    return len(template[1]) if template is not None else -1


def _is_derived(path: str, found: Mapping[str, Found], bytecode: BytecodePolicy) -> bool:
    """Return whether a file is bytecode that is made anew (or not wanted) rather than taken as it is."""
    if bytecode == "keep":
        return False
    source = source_of(path)
    return source is not None and (bytecode == "none" or source in found)


def _is_record(path: str) -> bool:
    return path.endswith(".dist-info/RECORD")


def _read_all(
    venv: str, read_one: Callable[[Found], _Reading], items: list[Found], result: Survey, unread: list[str]
) -> tuple[dict[str, bytes], list[_Reading]]:
    """Read *items* into *result*; return the bytes of the RECORDs, and what may have been written here.

    The paths of files that are no text and name the project go to *unread*.
    """
    records: dict[str, bytes] = {}
    suspects: list[_Reading] = []
    try:
        for reading in in_threads(read_one, items):
            path = reading.entry.path
            result.entries[path] = reading.entry
            result.found[path] = reading.found
            if reading.template is not None or _is_record(path):
                result.filled[path] = reading.digest
            if reading.template is not None:
                result.templates[path] = reading.template
            if reading.if_written_here is not None:
                suspects.append(reading)
            if reading.embeds:
                result.embedding.append(path)
            if reading.names:
                result.naming.append(path)
            if reading.names_project:
                unread.append(path)
            if _is_record(path):
                records[path] = reading.data
    except OSError as error:
        raise _unreadable(venv, error.filename, error.strerror or str(error)) from error
    except Changing as error:
        raise _unreadable(venv, error.args[0], "it keeps changing while it is read") from error
    return records, suspects


def _read_one(venv: str, named: Sequence[Places], item: Found, *, fresh: bool) -> _Reading:
    content = read(f"{venv}/{item.path}", known=item.stamp, keep=LARGEST_TEXT)
    # Most files are as the walk found them: then there need not be two of each stamp in memory.
    now = item if item.stamp == content.stamp else item._replace(stamp=content.stamp)

    def taken_apart(*, written_here: bool = False) -> Template | None:
        ways = (find(item.path, content.data, each, fresh=fresh, written_here=written_here) for each in named)
        return max(ways, key=_found)

    template = taken_apart() if content.data else None
    written_here = None
    if may_be_written_here(item.path) and any(
        mentions(item.path, content.data, each, fresh=fresh) for each in named
    ):
        written_here = taken_apart(written_here=True)
    entry = Entry(item.path, "file", content.digest, item.executable, content.stamp.size)
    if template is not None:
        entry = _template_entry(item, template)
    embedding = template is None and fresh and embeds(content.data, named[0])
    is_ours = may_be_written_here(item.path) and not embedding and not item.path.endswith(".pyc")
    return _Reading(
        entry,
        now,
        content.digest,
        template,
        written_here if written_here != template else None,
        content.data if _is_record(item.path) else b"",
        embedding,
        content.stamp.size > LARGEST_TEXT and _is_named_in(f"{venv}/{item.path}", named),
        is_ours and any(names_as_no_text(content.data, each) for each in named),
    )


def _is_named_in(file: str, named: Sequence[Places]) -> bool:
    """Return whether a text at the path *file* that is not kept in memory names a venv or its project."""
    texts = {os.fsencode(text) for each in named for text in (each.venv, each.project) if text.count("/") > 1}
    tail, overlap = b"", max(map(len, texts), default=0)
    with open_regular(file) as opened:
        while data := opened.read(1 << 20):
            if b"\0" in data:
                return False
            if any(text in tail + data for text in texts):
                return True
            tail = data[-overlap:]
    return False


def _template_entry(item: Found, template: Template) -> Entry:
    digest = hashlib.sha256(template.data).hexdigest()
    return Entry(item.path, "template", digest, item.executable, len(template.data), "", template.slots)


_Listed = Mapping[str, frozenset[str]]
"""The paths that RECORDs list, by the paths of the RECORDs."""


def _unlisted(
    venv: str, result: Survey, items: Iterable[Found], listed: _Listed, places: Places
) -> Iterator[_Reading]:
    """Yield texts in packages that name local paths, and that no package brought: they were written here."""
    brought: set[str] = set().union(*listed.values())
    for item in items:
        path, entry = item.path, result.entries[item.path]
        may_be = may_be_written_here(path) and is_in_package(path) and source_of(path) is None
        if may_be and entry.kind == "file" and path not in brought:
            reading = read(f"{venv}/{path}", known=item.stamp, keep=LARGEST_TEXT)
            template = find(path, reading.data, places, written_here=True) if reading.data else None
            if template is not None and reading.digest == entry.digest:
                yield _Reading(
                    entry,
                    item,
                    reading.digest,
                    None,
                    template,
                    b"",
                    embeds=False,
                    names=False,
                    names_project=False,
                )


def _add_suspects(
    result: Survey, suspects: list[_Reading], records: Mapping[str, bytes], places: Places
) -> None:
    """Fill in what files name that were written here; name those that a package brought just as they are."""
    brought = listed_digests(records, places.venv) if suspects else {}
    for reading in suspects:
        path, template = reading.entry.path, reading.if_written_here
        as_brought = brought.get(path) in ("", reading.digest)
        if template is not None and not as_brought:
            result.templates[path], result.filled[path] = template, reading.digest
            result.entries[path] = _template_entry(reading.found, template)
        elif template is not None and kept_names(template, reading.template, places):
            result.naming.append(path)


def _add_records(result: Survey, records: Mapping[str, bytes], listed: _Listed, places: Places) -> None:
    """Turn RECORDs that describe templates into templates, and learn from all which files are whose."""
    rewritten = {path for path, entry in result.entries.items() if entry.kind == "template"}
    for path, data in sorted(records.items()):
        name, version = name_and_version(path)
        result.distributions.append(Distribution(name, version, listed[path] | {path}))
        template = find_in_record(path, data, rewritten, places)
        if template is not None:
            result.templates[path] = template
            result.entries[path] = _template_entry(result.found[path], template)


def _add_empty_directories(result: Survey, skip: Callable[[str], bool], bytecode: BytecodePolicy) -> None:
    parents = {path.rpartition("/")[0] for path in result.found}
    for path, item in result.found.items():
        # A kill may leave a cache for bytecode without any; what will be in it comes from elsewhere.
        if item.kind == "dir" and path not in parents:
            is_cache = bytecode != "keep" and os.path.basename(path) == "__pycache__"
            if not is_cache and not skip(path):
                result.entries[path] = Entry(path, "dir")


def _unreadable(venv: str, path: object, why: str) -> EnvironmentFailure:
    where = os.fsdecode(path) if isinstance(path, (str, bytes)) else venv
    return EnvironmentFailure(
        f"cannot read a file of the venv: {why}",
        where=shown(where if where.startswith(venv) else f"{venv}/{where}"),
        state="The venv is unchanged and nothing half-written is kept.",
        hint="Fix or delete that file, then run again.",
    )


def unusual_modes(result: Survey) -> list[str]:
    """Return files whose setuid, setgid or world-writable bits are not kept; empty ones are only locks."""
    bits = stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH
    files = (item for item in result.found.values() if item.kind == "file" and item.stamp.size)
    return [item.path for item in files if item.mode & bits]
