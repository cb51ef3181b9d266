"""The canonical form of trees and snapshots: how they are named, written and read.

A tree is grouped by directory, which makes it small and gives ``restore`` the directories in order::

    {"entries": [["lib/python3.12/site-packages/six-1.17.0.dist-info",
                  [["METADATA", "file", "<sha256>", 0, 1658], …]], …],
     "format": 1, "name": "six", "version": "1.17.0"}

as JSON with sorted keys, no spaces and ASCII only. Entries are sorted by directory, then by name, both
as text. A row is ``[name, "file", digest, executable, size]``, the same with slots for a ``template``,
``[name, "link", target, slots]`` or ``[name, "dir"]``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from venvflow.model import FORMAT, INSTALLER_NOTE, Entry, Key, Manifest, Slot, Snapshot, Tree
from venvflow.pure import decoding
from venvflow.pure.relocate import is_fillable

Corrupt = decoding.Corrupt
"""Raised for bytes that are not a tree or a snapshot, or that may not be trusted; the text says why."""

SCAFFOLD = "(venv)"
"""Name of the tree of what the venv itself brings: pyvenv.cfg, activation scripts, links to Python."""

BUNDLED = "(python)"
"""Name of the tree of an interpreter that is packed with a venv."""


# --------------------------------------------------------------------------- trees


def make_tree(name: str, version: str, entries: Iterable[Entry]) -> Tree:
    """Return the tree of *entries*, sorted and named by the hash of its canonical form."""
    ordered = tuple(sorted(entries, key=lambda entry: _split(entry.path)))
    digest = hashlib.sha256(_canonical(name, version, ordered)).hexdigest()
    return Tree(digest, name, version, ordered)


def encode_tree(tree: Tree) -> bytes:
    """Return the canonical form of *tree*; its SHA-256 is the tree's digest."""
    return _canonical(tree.name, tree.version, tree.entries)


def decode_tree(digest: str, data: bytes) -> Tree:
    """Return the tree that *data* spells, after checking that it is the one called *digest*.

    Raises :class:`Corrupt` when the hash, the format or anything in it is wrong: a path can never be
    absolute, climb with ``..`` or contain a NUL, and slots are in their order and within their template.
    """
    document = _tree_document(digest, data)
    try:
        entries = tuple(_decode_rows(document["entries"]))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Corrupt(str(error)) from error
    return Tree(digest, document["name"], document["version"], entries)


def decode_objects(digest: str, data: bytes) -> list[tuple[str, bool, int]]:
    """Return digest, executable bit and size of each object in the tree that *data* spells.

    For counting: names are not checked, which makes it several times quicker than :func:`decode_tree`.
    Raises :class:`Corrupt` when *data* is not the tree called *digest*.
    """
    document = _tree_document(digest, data)
    try:
        found = [
            (row[2], row[1] == "file" and row[3] == 1, row[4])
            for _, rows in document["entries"]
            for row in rows
            if row[1] in _WITH_OBJECT
        ]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Corrupt(str(error)) from error
    decoding.check_digests([each for each, _, _ in found])
    decoding.check_integers((size for _, _, size in found), 0, LARGEST_FILE)
    return found


def _tree_document(digest: str, data: bytes) -> dict[str, Any]:
    if hashlib.sha256(data).hexdigest() != digest:
        raise Corrupt("its hash is not its name")
    document = _of_our_format(data)
    return decoding.fields(document, entries=decoding.anything, name=decoding.text, version=decoding.text)


def _of_our_format(data: bytes) -> dict[str, Any]:
    """Return the JSON object that *data* spells, but for the format that it says it has, and must have."""
    document = decoding.parse(data)
    if not isinstance(document, dict) or type(document.get("format")) is not int:
        raise Corrupt("it does not say which format it has")
    found = document.pop("format")
    if found != FORMAT:
        raise Corrupt(f"its format is {found}, this venvflow reads {FORMAT}")
    return document


LARGEST_FILE = 1 << 40
"""Bytes of the largest file that a tree may list: sums of many of them still fit where numbers are kept."""

_WITH_OBJECT = ("file", "template")


def _split(path: str) -> tuple[str, str]:
    directory, _, name = path.rpartition("/")
    return directory, name


def _canonical(name: str, version: str, entries: Sequence[Entry]) -> bytes:
    grouped = [
        [directory, [encode_entry(entry) for entry in group]]
        for directory, group in groupby(entries, key=lambda entry: _split(entry.path)[0])
    ]
    document = {"entries": grouped, "format": FORMAT, "name": name, "version": version}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def encode_entry(entry: Entry) -> list[Any]:
    """Return *entry* as a row of a tree: it begins with the name, and leaves the directory out."""
    name = _split(entry.path)[1]
    if entry.kind == "dir":
        return [name, "dir"]
    if entry.kind == "link":
        return [name, "link", entry.target, [list(slot) for slot in entry.slots]]
    row = [name, entry.kind, entry.digest, int(entry.executable), entry.size]
    return [*row, [list(slot) for slot in entry.slots]] if entry.kind == "template" else row


def _decode_rows(groups: list[Any]) -> Iterator[Entry]:
    previous = ("", "")
    for directory, rows in groups:
        if directory != "":
            decoding.path(directory)
        prefix = f"{directory}/" if directory else ""
        for each in rows:
            name = decoding.text(each[0])
            if "/" in name or name in {"", ".", ".."}:
                raise Corrupt(f"unsafe name {name!r} in {directory!r}")
            if (directory, name) <= previous:
                raise Corrupt(f"{prefix + name!r} is out of order or there twice")
            previous = (directory, name)
            yield decode_entry(prefix + name, each)


def decode_entry(path: str, row: list[Any]) -> Entry:
    """Return the entry at *path* from a row as :func:`encode_entry` makes it.

    Raises :class:`Corrupt`, or an error of looking into what is not such a list.
    """
    kind, rest = row[1], row[2:]
    if kind == "file":
        digest, executable, size = rest
        return Entry(path, "file", decoding.digest(digest), bool(_flag(executable)), _size(size))
    if kind == "template":
        digest, executable, size, slots = rest
        known = decoding.digest(digest), bool(_flag(executable)), _size(size)
        return Entry(path, "template", *known, "", decode_slots(slots, size))
    if kind == "link":
        target, slots = rest
        found = decode_slots(slots, len(decoding.text(target).encode("utf-8", "surrogateescape")))
        if any(slot.form != "raw" for slot in found) or not (target or found):
            raise Corrupt(f"{path!r} leads nowhere")
        return Entry(path, "link", target=target, slots=found)
    if kind == "dir" and not rest:
        return Entry(path, "dir")
    raise decoding.unlike(kind, "a kind of entry")


_flag = decoding.integer(0, 1)
_size = decoding.integer(0, LARGEST_FILE)


def decode_slots(rows: object, size: int) -> tuple[Slot, ...]:
    """Return the slots of a template of *size* bytes from rows as :func:`encode_tree` writes them.

    Raises :class:`Corrupt` for slots that nobody can fill in, or that do not follow each other within it.
    """
    slots = tuple(Slot(*each) for each in _slot_rows(rows))
    if not all(map(is_fillable, slots)):
        raise Corrupt("its slots cannot be filled in")
    decoding.check_paths([slot.argument for slot in slots if slot.form == "record"])
    offsets = [slot.offset for slot in slots]
    if offsets != sorted(offsets) or (offsets and offsets[-1] > size):
        raise Corrupt("its slots do not fit their template")
    return slots


_slot_rows = decoding.listed(decoding.row(_size, decoding.text, decoding.text, decoding.text))


# --------------------------------------------------------------------------- from entries to trees


class Distribution(NamedTuple):
    """An installed distribution: *paths* are what its RECORD lists, relative to the venv."""

    name: str
    version: str
    paths: frozenset[str]


def name_and_version(record: str) -> tuple[str, str]:
    """Return name and version of a distribution from the name of the directory that its RECORD is in."""
    directory = _split(_split(record)[0])[1].removesuffix(".dist-info")
    name, _, version = directory.partition("-")
    return name.lower().replace("_", "-").replace(".", "-"), version


def group(entries: Mapping[str, Entry], distributions: Iterable[Distribution]) -> tuple[Tree, ...]:
    """Return *entries*, by path, as trees: one per distribution, the rest by directory.

    A path that two RECORDs claim goes to the distribution whose name sorts first, so that the answer
    depends on the venv alone. Bytecode belongs to the tree of its source. What no RECORD names is
    grouped by the first name below ``site-packages``; everything else is scaffolding (:data:`SCAFFOLD`).
    """
    owner: dict[str, tuple[str, str]] = {}
    for distribution in sorted(distributions, key=lambda d: (d.name, d.version)):
        for path in distribution.paths:
            owner.setdefault(path, (distribution.name, distribution.version))
    parts: dict[tuple[str, str], list[Entry]] = {}
    for path, entry in entries.items():
        home = owner.get(source_of(path) or "") or owner.get(path) or _unowned(path)
        parts.setdefault(home, []).append(entry)
    return tuple(make_tree(name, version, parts[name, version]) for name, version in sorted(parts))


_REWRITTEN = re.compile(r"-pytest-[\w.]+\Z")
"""What pytest appends to the tag of bytecode in which it changed the assertions."""


def source_of(path: str) -> str | None:
    """Return the source that the bytecode at *path* was compiled from, by its name (PEP 3147), or None."""
    if not path.endswith(".pyc"):  # as most: this runs for every path
        return None
    directory, name = _split(path)
    parent, cache = _split(directory)
    if cache != "__pycache__":
        return None
    stem, _, tag = _REWRITTEN.sub("", name[: -len(".pyc")]).rpartition(".")
    if tag.startswith("opt-"):
        stem = stem.rpartition(".")[0]
    if not stem:
        return None
    return f"{parent}/{stem}.py" if parent else f"{stem}.py"


def _unowned(path: str) -> tuple[str, str]:
    _, found, below = path.partition("/site-packages/")
    if not found:
        return SCAFFOLD, ""
    first = (source_of(below) or below).split("/", 1)[0]
    return f"({first})", ""


def entries_of(manifest: Manifest) -> dict[str, Entry]:
    """Return all entries of *manifest* by path.

    Raises :class:`Corrupt` if two trees claim one path, or if one has a file or link where another has a
    directory: what lies below a link would be written somewhere else.
    """
    entries: dict[str, Entry] = {}
    for tree in manifest.trees:
        for entry in tree.entries:
            if entry.path in entries:
                raise Corrupt(f"{entry.path!r} is in two trees")
            entries[entry.path] = entry
    for path in directories_of(entries):
        if path in entries:
            raise Corrupt(f"{path!r} is an entry and a directory of others")
    return entries


def directories_of(paths: Iterable[str]) -> list[str]:
    """Return every directory that *paths* lie in, parents before children, without the root."""
    seen: set[str] = set()
    for path in paths:
        parent = _split(path)[0]
        while parent and parent not in seen:
            seen.add(parent)
            parent = _split(parent)[0]
    return sorted(seen)


def directories(entries: Mapping[str, Entry]) -> list[str]:
    """Return every directory that *entries* need or are, parents before children, without the root."""
    empty = {path for path, entry in entries.items() if entry.kind == "dir"}
    return sorted(empty.union(directories_of(entries)))


def first_difference(one: Manifest, other: Manifest) -> str:
    """Return the first path, in order, at which two manifests differ, or an empty string."""
    if [tree.digest for tree in one.trees] == [tree.digest for tree in other.trees]:
        return ""
    left, right = entries_of(one), entries_of(other)
    return min((path for path in left.keys() | right.keys() if left.get(path) != right.get(path)), default="")


# --------------------------------------------------------------------------- snapshots


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return *snapshot* as JSON for people and machines; the last line is the hash of the rest."""
    storable = decoding.storable
    document = {
        "format": FORMAT,
        "id": snapshot.id,
        "key": {"digest": snapshot.key.digest, "parts": snapshot.key.parts},
        "trees": list(snapshot.trees),
        "place": snapshot.place,
        "venv": snapshot.venv,
        "created": snapshot.created,
        "host": snapshot.host,
        "command": snapshot.command,
        "python": snapshot.python,
        "files": snapshot.files,
        "size": snapshot.size,
        "warnings": [*map(storable, snapshot.warnings)],
        "packages": {
            part: {storable(name): storable(asked) for name, asked in listed.items()}
            for part, listed in snapshot.packages.items()
        },
        "notes": snapshot.notes,
        "needs": list(snapshot.needs),
        "root": snapshot.root,
        "entries": snapshot.entries,
        "build_seconds": snapshot.build_seconds,
    }
    body = json.dumps(document, sort_keys=True, indent=1).encode("ascii")
    return body + b"\n" + hashlib.sha256(body).hexdigest().encode("ascii") + b"\n"


def decode_snapshot(data: bytes) -> Snapshot:
    """Return the snapshot that *data* spells; raises :class:`Corrupt` if a byte of it is not as written."""
    body, _, check = data.removesuffix(b"\n").rpartition(b"\n")
    if not data.endswith(b"\n") or hashlib.sha256(body).hexdigest().encode("ascii") != check:
        raise Corrupt("its checksum is wrong")
    found = decoding.fields(
        _of_our_format(body),
        id=decoding.digest,
        key=lambda value: Key(**decoding.fields(value, digest=decoding.digest, parts=decoding.texts)),
        trees=decoding.listed(decoding.digest),
        place=decoding.optional(decoding.text),
        created=decoding.moment,
        files=decoding.count,
        size=decoding.count,
        warnings=decoding.listed(decoding.text),
        packages=decoding.mapped(decoding.text, decoding.texts),
        notes=decoding.mapped(_note, decoding.digest),
        needs=decoding.listed(decoding.text),
        entries=decoding.texts,
        build_seconds=decoding.duration,
        **dict.fromkeys(("venv", "host", "command", "python", "root"), decoding.text),
    )
    return Snapshot(**found)


def _note(value: object) -> str:
    """Return the path of an installer's note: restore writes there."""
    if not (found := decoding.path(value)).endswith(INSTALLER_NOTE):
        raise decoding.unlike(value, "the path of an installer's note")
    return found
