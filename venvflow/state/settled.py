"""What the last trim found out, for as long as nothing changed since: a small file in the store.

A trim of a store in which nothing came or went has nothing to sweep, whatever the number of snapshots. That
is told by the mtimes of the store's directories, which every file that comes or goes moves, and by what the
registered venvs hold. A file system notes times in ticks of some milliseconds: what comes within the same
tick in which the trim ended is not seen, and waits for the next change. Nothing is ever deleted by this.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from venvflow.disk.descriptors import directory
from venvflow.disk.files import read_small
from venvflow.pure import decoding
from venvflow.state.reader import StoreReader
from venvflow.state.registry import Registration
from venvflow.state.store import Store
from venvflow.state.sweeping import overdue

_FILE = "settled.json"

_WATCHED = ("objects", "trees", "frames")


class Settled(NamedTuple):
    """A store after a trim: the bytes that it occupies, and by snapshot those that no other one needs."""

    size: int
    own: Mapping[str, int]


class SettledNote(NamedTuple):
    """What a trim leaves: hashes of how *snapshots* and directories looked, and what it found."""

    snapshots: str
    looks: str
    size: int
    own: Mapping[str, int]


def settle(store: Store, registrations: Iterable[Registration], settled: Settled) -> None:
    """Remember what a trim that has just ended found. Where that cannot be written, the next one looks again.

    The caller holds the store alone.
    """
    note = SettledNote(_snapshots(store), _looks(store, registrations), settled.size, settled.own)
    with suppress(OSError):
        store.layout.write(_FILE, json.dumps(note._asdict()).encode("ascii"))


def settled_since(store: Store, registrations: Iterable[Registration]) -> Settled | None:
    """Return what the last trim found, or None if there may be something to sweep by now."""
    note = _read(store)
    if note is None or note[:2] != (_snapshots(store), _looks(store, registrations)):
        return None
    return Settled(note.size, note.own) if not _is_due(store) else None


def own_bytes_since(store: StoreReader) -> Mapping[str, int] | None:
    """Return the bytes that only one snapshot needs, by its id; None if a snapshot came, went or changed."""
    note = _read(store)
    return note.own if note is not None and note.snapshots == _snapshots(store) else None


def _read(store: StoreReader) -> SettledNote | None:
    try:
        return decode_settled(read_small(f"{store.path}/{_FILE}"))
    except (OSError, decoding.Corrupt):
        return None


def decode_settled(data: bytes) -> SettledNote:
    """Return what the last trim noted; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    return SettledNote(
        **decoding.fields(
            decoding.parse(data),
            snapshots=decoding.digest,
            looks=decoding.digest,
            size=decoding.count,
            own=decoding.mapped(decoding.digest, decoding.count),
        )
    )


def _is_due(store: Store) -> bool:
    """Return whether something is due by now: what a kill left in ``tmp/``, what was put aside long ago."""
    with store.layout.opened("tmp", make=True) as tmp:
        return bool(os.listdir(tmp)) or any(True for _ in overdue(store))


def _snapshots(store: StoreReader) -> str:
    """Return a hash of how the files of all snapshots look: they are never changed, but may be damaged."""
    with directory(f"{store.path}/snapshots") as fd, os.scandir(fd) as entries:
        stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    looks = sorted((name, st.st_size, st.st_mtime_ns) for name, st in stats)
    return hashlib.sha256(repr(looks).encode()).hexdigest()


def _looks(store: Store, registrations: Iterable[Registration]) -> str:
    """Return a hash of the mtimes of all directories, and of what venvs hold."""
    hashed = hashlib.sha256(repr(sorted(_mtimes(store.path))).encode())
    held = sorted({tree for each in registrations for tree in each.trees})
    hashed.update(repr(held).encode())
    return hashed.hexdigest()


def _mtimes(root: str) -> Iterator[tuple[str, int]]:
    for top in _WATCHED:
        with suppress(FileNotFoundError), os.scandir(f"{root}/{top}") as entries:
            yield top, os.lstat(f"{root}/{top}").st_mtime_ns
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield f"{top}/{entry.name}", entry.stat(follow_symlinks=False).st_mtime_ns
