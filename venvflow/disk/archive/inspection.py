"""What is in an archive, without unpacking it: all of it as a manifest, and the local paths that it names.

Nothing is written, and nothing believed that unpacking would not believe. An archive of ours says which of
its files are templates, and so compares with a venv at any place. In one of another tool, files that name
local paths are what they are.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from venvflow.disk.archive.contents import DOCUMENT, TEMPLATES, is_ours
from venvflow.disk.archive.extraction import Limits
from venvflow.disk.archive.formats import Malformed
from venvflow.disk.archive.reading import MOST, Item, items, unsafe
from venvflow.disk.files import open_regular
from venvflow.errors import EnvironmentFailure, Refused, shown
from venvflow.model import Entry, Key, Manifest, Slot
from venvflow.postinstall import (
    LARGEST_BLOB,
    LARGEST_DOCUMENT,
    InvalidPack,
    Pack,
    PartRow,
    SlotRow,
    check_blob,
    decode,
    unsafe_name,
)
from venvflow.pure.manifest import Distribution, directories_of, group, name_and_version
from venvflow.pure.relocate import record_paths


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is in an archive: its *manifest*, and the *key* it says it was made for, None if it does not.

    *ours*: it was written by venvflow, and says which files are templates.
    """

    manifest: Manifest
    key: Key | None
    ours: bool


def inventory_of(archive: str) -> Inventory:
    """Return what is in the file *archive*, of any format; of the last of several parts, what is in all.

    The others are looked for beside it. Raises Refused for what is damaged or not an archive, and if a part
    is missing, EnvironmentFailure when it cannot be read.
    """
    found = _Inventory(archive)
    found.read(archive)
    for part in found.others():
        beside = os.path.join(os.path.dirname(archive), part.archive)
        if os.path.isfile(beside):
            found.read(beside)
        if not found.has(part):
            raise _unreadable(archive, f"is one of several parts, and {part} is not beside it")
    return found.finished()


@contextmanager
def _entries(archive: str, most: int) -> Iterator[Iterator[Item]]:
    """Give the entries of the file *archive*; every failure is one of ours."""
    try:
        with open_regular(archive, follow=True) as raw, closing(items(archive, raw, most)) as entries:
            yield entries
    except Refused as error:  # what tells of unpacking elsewhere
        error.state = "Nothing was changed."
        error.hint = "If it can be trusted, unpack it with the tool that made it, and compare the directory."
        raise
    except Malformed as error:
        raise _unreadable(archive, f"is damaged, or not an archive: {error}") from error
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot read the archive: {error.strerror or error}",
            where=shown(archive),
            state="Nothing was changed.",
            hint="Check its permissions.",
        ) from error


def _unreadable(archive: str, why: str) -> Refused:
    error = unsafe(archive, why)
    error.state = "Nothing was changed."
    return error


@dataclass(slots=True)
class _Inventory:
    """Collects the members of one archive, by the names that they have there."""

    archive: str
    members: dict[str, Entry] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)
    size: int = 0

    def read(self, archive: str) -> None:
        """Take note of all members of *archive*, which is this one or another part of the same venv."""
        limits = Limits()
        with _entries(archive, limits.entries + 1) as entries:
            for item in entries:
                self.add(item, limits)

    def others(self) -> tuple[PartRow, ...]:
        """Return the other parts of the venv, if this is the last of several."""
        pack, _ = self._pack(self._root())
        return pack.parts if pack is not None else ()

    def has(self, part: PartRow) -> bool:
        """Return whether a part was read."""
        return f"{self._root()}{part.mark}" in self.members

    def add(self, item: Item, limits: Limits) -> None:
        """Take note of one member; its content is hashed, and kept only where it tells something."""
        # tar writes "./" before every name when it packs a directory as ".".
        item = item._replace(name="" if item.name == "." else item.name.removeprefix("./"))
        why = unsafe_name(item.name) if item.name else ""
        self.size += item.size
        if item.name in self.members and item.kind != "dir":
            why = "is there twice"
        if why or len(self.members) >= limits.entries or self.size > limits.size:
            raise _unreadable(self.archive, f"holds {shown(item.name)}, which {why or 'is too much'}")
        if item.kind == "file":
            digest = self._read(item)
            self.members[item.name] = Entry(item.name, "file", digest, item.executable, item.size)
        elif item.kind == "link":
            self.members[item.name] = Entry(item.name, "link", target=item.target)
        elif item.name:
            self.members[item.name] = Entry(item.name, "dir")

    def _read(self, item: Item) -> str:
        hasher = hashlib.sha256()
        keeps = item.name.endswith(_TELLING)
        if keeps and item.size > LARGEST_BLOB:
            raise _unreadable(self.archive, f"holds {shown(item.name)}, which has {item.size} bytes")
        parts: list[bytes] = []
        for part in item.parts:
            hasher.update(part)
            if keeps:
                parts.append(bytes(part))
        if keeps:
            self.kept[item.name] = b"".join(parts)
        return hasher.hexdigest()

    def finished(self) -> Inventory:
        """Return what the members are together."""
        root = self._root()
        pack, blob = self._pack(root)
        entries = {
            name[len(root) :]: entry._replace(path=name[len(root) :])
            for name, entry in self.members.items()
            if name.startswith(root) and name != root.rstrip("/")
        }
        if pack is not None:
            entries = {path: entry for path, entry in entries.items() if not is_ours(path)}
        records = {path: self.kept[root + path] for path, each in entries.items() if _is_record(each)}
        if pack is not None:  # templates for what was filled in, and the links to local paths
            entries.update({entry.path: entry for entry in _made_of(pack, blob)})
        parents = set(directories_of(entries))
        entries = {path: each for path, each in entries.items() if each.kind != "dir" or path not in parents}
        distributions = [
            Distribution(*name_and_version(path), record_paths(path, data) | {path})
            for path, data in records.items()
        ]
        key = _key_of(pack) if pack is not None else None
        return Inventory(Manifest(group(entries, distributions)), key, pack is not None)

    def _root(self) -> str:
        """Return what the names of the venv's files begin with: a directory and a slash, or nothing."""
        for mark in (DOCUMENT, "pyvenv.cfg"):
            found = [name for name in self.members if name == mark or name.endswith(f"/{mark}")]
            if found:
                return min(found, key=lambda name: (name.count("/"), name))[: -len(mark)]
        return ""

    def _pack(self, root: str) -> tuple[Pack | None, bytes]:
        """Return what the archive says of itself, and its templates."""
        data, blob = self.kept.get(f"{root}{DOCUMENT}"), self.kept.get(f"{root}{TEMPLATES}", b"")
        if data is None:
            return None, b""
        try:
            pack = decode(data)
            check_blob(pack, blob)
        except InvalidPack as error:
            raise _unreadable(self.archive, f"says what makes no sense: {error}") from error
        return pack, blob


_RECORD = ".dist-info/RECORD"
_TELLING = (DOCUMENT, TEMPLATES, _RECORD)


def _is_record(entry: Entry) -> bool:
    return entry.kind == "file" and entry.path.endswith(_RECORD)


def _made_of(pack: Pack, blob: bytes) -> Iterator[Entry]:
    """Yield what is made only where the archive is unpacked."""
    for path, executable, start, length, slots in pack.templates:
        digest = hashlib.sha256(blob[start : start + length]).hexdigest()
        kind: Literal["template", "file"] = "template" if slots else "file"  # that only finds its place
        yield Entry(path, kind, digest, executable, length, "", tuple(map(_as_in_a_venv, slots)))
    for path, target, slots in pack.links:
        yield Entry(path, "link", target=target, slots=tuple(Slot(*slot) for slot in slots))


def _as_in_a_venv(slot: SlotRow) -> Slot:
    return Slot(*slot)._replace(form="shebang" if slot.form == "first-line" else slot.form)


def _key_of(pack: Pack) -> Key | None:
    key = pack.description.get("key")
    digest, parts = (key.get("digest"), key.get("parts")) if isinstance(key, dict) else (None, None)
    if not isinstance(digest, str) or not isinstance(parts, dict):
        return None
    return Key(digest, {str(name): str(value) for name, value in parts.items()})


# --------------------------------------------------------------------------- local paths


class Trace(NamedTuple):
    """A *member* names a local *path* so many *times*: in its name, its target, or its content."""

    member: str
    path: str
    times: int


def traces(archive: str, paths: Iterable[str]) -> list[Trace]:
    """Return where the *archive* names one of the local *paths*, in the order of its members.

    The longest of several paths counts, and only as a whole: ``/home/ann`` is not found in ``/home/anna``.
    What is to lead to the interpreter that the archive announces names it as it should, and so is no trace.
    Raises Refused for an archive that is damaged, EnvironmentFailure for one that cannot be read.
    """
    wanted = {os.fsencode(path) for path in paths}
    if not wanted:
        return []
    search, meant = _Search(wanted), _Meant()
    found = []
    with _entries(archive, MOST) as entries:
        for item in entries:
            looked_at = meant.seen(item)
            counts = (meant.search(item, wanted) or search).count(looked_at)
            found += [
                Trace(item.name, os.fsdecode(path), counts[path]) for path in search.order if path in counts
            ]
    return found


class _Meant:
    """Knows which members of an archive of ours are to name its interpreter, once its metadata passed."""

    def __init__(self) -> None:
        self._members: set[str] = set()
        self._texts: set[bytes] = set()

    def seen(self, item: Item) -> Item:
        """Return *item* to be read, after a look at it if it is what the archive says of itself."""
        if self._members or not f"/{item.name}".endswith(f"/{DOCUMENT}") or item.size > LARGEST_DOCUMENT:
            return item
        data = b"".join(item.parts)
        with suppress(InvalidPack):
            pack = decode(data)
            root = item.name[: -len(DOCUMENT)]
            rows = [row for row in pack.rows if any(slot.kind in ("python", "home") for slot in row.slots)]
            self._members = {item.name, *(f"{root}{row.path}" for row in rows)}
            self._texts = {os.fsencode(text) for text in (pack.python, os.path.dirname(pack.python)) if text}
        return item._replace(parts=iter([data]))

    def search(self, item: Item, wanted: set[bytes]) -> _Search | None:
        """Return what looks into *item*, if it is to name the interpreter."""
        return _Search(wanted, self._texts - wanted) if item.name in self._members else None


class _Search:
    """Counts how often each *wanted* path is named; *meant* texts are passed over."""

    def __init__(self, wanted: set[bytes], meant: Iterable[bytes] = ()) -> None:
        self.order = sorted(wanted, key=lambda path: (-len(path), path))
        texts = sorted({*wanted, *meant}, key=lambda path: (-len(path), path))
        self._wanted = wanted
        self._pattern = re.compile(b"(?:" + b"|".join(map(re.escape, texts)) + rb")(?![\w-])")
        self._longest = len(texts[0])

    def count(self, item: Item) -> dict[bytes, int]:
        """Return how often each path is named, without holding more of the content than a piece of it."""
        counts: dict[bytes, int] = {}
        self._add(counts, os.fsencode(f"{item.name}\n{item.target}"), final=True)
        rest = b""
        for part in item.parts:
            rest = self._add(counts, rest + part, final=False)
        self._add(counts, rest, final=True)
        return {path: times for path, times in counts.items() if path in self._wanted}

    def _add(self, counts: dict[bytes, int], data: bytes, *, final: bool) -> bytes:
        """Count what is found in *data*; return what of it may belong to something that goes on after it."""
        end = len(data) if final else max(len(data) - self._longest, 0)
        for hit in self._pattern.finditer(data):
            if hit.start() < end:
                counts[hit[0]] = counts.get(hit[0], 0) + 1
                end = max(end, hit.end())
        return data[end:]
