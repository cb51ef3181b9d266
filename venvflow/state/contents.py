"""Short hashes of a venv's files, kept in its receipt: they tell what was edited without a store.

Stats (sizes and times) get lost when a venv is copied, put into an image or taken out of a backup, and trees
go with their snapshot. These hashes stay with the venv: for each file four bytes of the hash of its path, and
four of the hash of its content. They distinguish missing files (damage) from added and edited ones (a user's
work). Executable bits and link targets are left out: tools that copy change them, and no work is lost with
them.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from venvflow.disk.scan import Changing, Found, in_threads, read
from venvflow.state.file_stats import is_ignored

_PAIR = struct.Struct(">II")
_OBJECT = re.compile(r".*/objects/([0-9a-f]{2})/([0-9a-f]{62})x?(?:\.[0-9]+)?")


def encode_contents(digests: Iterable[tuple[str, str]], known: bytes = b"") -> str:
    """Return the contents of a venv as text, from path and SHA-256 (in hex, empty for a link) of each file.

    What may come and go without being a change is left out. *known* are the contents of further files, as
    :func:`contents_of` gives them.
    """
    data, size = contents_of(digests) + known, _PAIR.size
    pairs = sorted(data[at : at + size] for at in range(0, len(data), size))
    return base64.b64encode(b"".join(pairs)).decode("ascii")


def contents_of(digests: Iterable[tuple[str, str]]) -> bytes:
    """Return the contents of some files, in no order."""
    return b"".join(_PAIR.pack(*_pair(path, digest)) for path, digest in digests if not is_ignored(path))


def _pair(path: str, digest: str) -> tuple[int, int]:
    return zlib.crc32(path.encode("utf-8", "surrogateescape")), int(digest[:8] or "0", 16)


class Contents:
    """What :func:`encode_contents` has written down; nothing, if the text makes no sense."""

    def __init__(self, text: str) -> None:
        self._known: dict[int, list[int]] = defaultdict(list)
        self.files = 0
        with suppress(binascii.Error, ValueError, struct.error):
            data = base64.b64decode(text, validate=True)
            for path, digest in _PAIR.iter_unpack(data):
                self._known[path].append(digest)
                self.files += 1

    def __bool__(self) -> bool:
        return self.files > 0

    def holds(self, path: str, digest: str) -> bool:
        """Return whether the file at *path* had the SHA-256 *digest* (in hex; empty: it was a link)."""
        name, content = _pair(path, digest)
        return content in self._known.get(name, ())

    def has(self, path: str) -> bool:
        """Return whether there was a file or link at *path*."""
        return _pair(path, "")[0] in self._known


class Compared(NamedTuple):
    """Paths that were *added* or *edited*, and the number of those that are *missing*."""

    added: tuple[str, ...]
    edited: tuple[str, ...]
    missing: int


def compare(
    venv: str, found: Mapping[str, Found], contents: Contents, unread: Container[str] = ()
) -> Compared:
    """Compare all that a walk has *found* in the venv at path *venv* with its *contents*.

    Every file is read, but for paths in *unread*, which are known to be as they were.
    """
    items = [item for path, item in found.items() if item.kind != "dir" and not is_ignored(path)]
    to_read = [item for item in items if item.path not in unread]
    digests = in_threads(lambda item: digest_at(venv, item), to_read)
    other = [
        item.path
        for item, digest in zip(to_read, digests, strict=True)
        if digest is None or not contents.holds(item.path, digest)
    ]
    edited = tuple(sorted(path for path in other if contents.has(path)))
    added = tuple(sorted(path for path in other if not contents.has(path)))
    return Compared(added, edited, max(0, contents.files - len(items) + len(added)))


def without_copies(
    venv: str, found: Mapping[str, Found], was_link: Callable[[str], bool], python: str
) -> dict[str, Found]:
    """Return what was *found* but for copies of what links of the venv led to: nobody made those by hand.

    Tools that copy may follow links: then ``bin/python`` is the program, *python*, and ``lib64`` is ``lib``
    once more. What was changed in such a copy is left among what was found.
    """
    links = [path for path, item in found.items() if item.kind in ("file", "dir") and was_link(path)]
    if not links:
        return {**found}
    with suppress(OSError, Changing):
        program = read(os.path.realpath(python)).digest
        twins = {path: "lib/" + path.removeprefix("lib64/") for path in found if path.startswith("lib64/")}
        copies = {
            path for path in links if found[path].kind == "dir" or digest_at(venv, found[path]) == program
        }
        copies |= {path for path, twin in twins.items() if _are_equal(venv, found[path], found.get(twin))}
        return {path: item for path, item in found.items() if path not in copies}
    return {**found}


def _are_equal(venv: str, one: Found, other: Found | None) -> bool:
    if other is None or one.kind != other.kind:
        return False
    return one.kind == "dir" or digest_at(venv, one) == digest_at(venv, other)


def digest_at(venv: str, item: Found) -> str | None:
    """Return what contents say of a file, None where it cannot be read: a link into a store is its object."""
    with suppress(OSError, Changing):
        if item.kind == "file":
            return read(os.path.join(venv, item.path)).digest
        if item.kind == "link":
            return digest_in(os.readlink(os.path.join(venv, item.path)))
    return None


def digest_in(target: str) -> str:
    """Return the SHA-256 in a link's *target* that looks like an object of some store, else nothing."""
    found = _OBJECT.fullmatch(target)
    return found[1] + found[2] if found is not None else ""
