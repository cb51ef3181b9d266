"""Parcels: a tree and the bytes of its objects as one object of a remote.

A parcel is a skippable frame of zstd with the *head*, then one zstd frame for each *part*::

    {"manifest": 5120, "parts": [[8388608, 2096000], [1024, 512]], "v": 1}

*manifest* is the length of the tree's canonical form, with which the parts, put together, begin; *parts* are
their lengths in bytes, plain and compressed. After the tree come its objects in the order in which it first
mentions them, each once; empty ones are left out. So ``zstd -d`` unpacks a parcel, and a part can be
decompressed without those before it.

The name of a parcel is the digest of its tree, which names its objects: nobody hashes the parcel itself, and
its bytes may differ between versions of libzstd.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from venvflow.model import Entry, Tree
from venvflow.pure import decoding
from venvflow.pure.decoding import Corrupt

PART = 8 << 20
"""Bytes of a part before it is compressed; the last one has fewer."""

RANGE = 8 << 20
"""Bytes that one request asks for: most parcels are not larger."""

_SHARE = 64 << 20
"""Plain bytes of parcels that are worth a process of their own."""

LARGEST_HEAD = 64 << 10
"""Bytes that a head may have."""

_VERSION = 1
_MAGIC = b"\x5f\x2a\x4d\x18"
_FRAME = 8
"""Bytes of the header of a skippable frame: a number that names it, and its length."""

_MOST_PARTS = 2048
_LARGEST_PART = 16 << 20


class ParcelHead(NamedTuple):
    """What a parcel says of itself: see the top of the module."""

    manifest: int
    parts: tuple[tuple[int, int], ...]


class Piece(NamedTuple):
    """One object of a parcel: the *digest* of its bytes, whether it is *executable*, its *size* in bytes."""

    digest: str
    executable: bool
    size: int


def parcel_path(digest: str) -> str:
    """Return where a tree's parcel lies in a remote."""
    return f"v1/trees/{digest[:2]}/{digest}"


def is_condemned(digest: str, written: float, since: Mapping[str, float]) -> bool:
    """Return whether the parcel of a tree, *written* then, may go: *since* says when it was condemned.

    Servers cut times to seconds: what has the same one may be the younger.
    """
    return digest in since and int(written) < int(since[digest])


def pieces_of(tree: Tree) -> list[Piece]:
    """Return the objects of *tree* as its parcel has them."""
    return list(dict.fromkeys(map(_piece, (entry for entry in tree.entries if entry.digest and entry.size))))


def _piece(entry: Entry) -> Piece:
    return Piece(entry.digest, entry.executable and entry.kind == "file", entry.size)


def encode_head(head: ParcelHead) -> bytes:
    """Return the beginning of a parcel."""
    document = {"manifest": head.manifest, "parts": head.parts, "v": _VERSION}
    text = json.dumps(document, separators=(",", ":"), sort_keys=True).encode("ascii")
    return _MAGIC + len(text).to_bytes(4, "little") + text


def read_head(data: bytes) -> tuple[ParcelHead, int]:
    """Return the head with which *data* begins, and at which byte the first part starts.

    Raises Corrupt, also for a head with more or larger parts than any parcel has.
    """
    if len(data) < _FRAME:
        raise Corrupt("it ends within its head")
    length = int.from_bytes(data[4:_FRAME], "little")
    if data[:4] != _MAGIC or length > LARGEST_HEAD:
        raise Corrupt("it does not begin like a parcel")
    end = _FRAME + length
    if len(data) < end:
        raise Corrupt("it ends within its head")
    size = decoding.integer(1, _LARGEST_PART)
    found = decoding.fields(
        decoding.parse(data[_FRAME:end]),
        v=decoding.integer(_VERSION, _VERSION),
        manifest=decoding.integer(1, decoding.LARGEST_COUNT),
        parts=decoding.listed(decoding.row(size, size)),
    )
    head = ParcelHead(found["manifest"], found["parts"])
    if not 0 < len(head.parts) <= _MOST_PARTS or head.manifest > plain_size(head):
        raise Corrupt("its parts are too many, or shorter than its tree")
    return head, end


def plain_size(head: ParcelHead) -> int:
    """Return how many bytes a parcel's parts are, put together."""
    return sum(plain for plain, _ in head.parts)


def stored_size(head: ParcelHead, start: int) -> int:
    """Return how many bytes a parcel has whose first part starts at *start*."""
    return start + sum(stored for _, stored in head.parts)


def check_sizes(tree: Tree, head: ParcelHead, announced: int) -> list[Piece]:
    """Return the objects that follow *tree* in its parcel; raises Corrupt unless all sizes agree.

    *announced* is what the record says that the parcel has in plain bytes.
    """
    found = pieces_of(tree)
    expected = head.manifest + sum(piece.size for piece in found)
    if not expected == plain_size(head) == announced:
        raise Corrupt("it is not as large as its tree and its record say")
    return found


def announced_size(tree: Tree, encoded: int) -> int:
    """Return the plain bytes of the parcel of *tree*, whose canonical form has *encoded* bytes."""
    return encoded + sum(piece.size for piece in pieces_of(tree))


def part_sizes(total: int) -> Sequence[int]:
    """Return the plain sizes of the parts of a parcel of *total* bytes."""
    whole, rest = divmod(total, PART)
    return [PART] * whole + ([rest] if rest else [])


def largest_first(sizes: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return trees and their sizes in the order in which to move them: the last ones shall be short."""
    return sorted(sizes, key=lambda each: (-each[1], each[0]))


def shared_out(trees: Sequence[tuple[str, int]], most: int) -> list[list[tuple[str, int]]]:
    """Return trees with their plain sizes in up to *most* shares of about the same size, each in order.

    What is small is one share: another process takes longer to start than it would save.
    """
    if sum(size for _, size in trees) < most * _SHARE:
        return [[*trees]]
    shares: list[list[tuple[str, int]]] = [[] for _ in range(most)]
    sizes = [0] * most
    for tree in trees:
        least = sizes.index(min(sizes))
        shares[least].append(tree)
        sizes[least] += tree[1]
    return [share for share in shares if share]
