"""Writes parcels from objects, and cuts objects out of parcels: both in one pass, whatever their size.

What a parcel is, :mod:`venvflow.pure.parcels` says.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Protocol

from venvflow.disk.descriptors import READ, opened
from venvflow.disk.zstandard import zstd, zstd_compressor
from venvflow.model import Tree
from venvflow.pure.decoding import Corrupt
from venvflow.pure.manifest import decode_tree
from venvflow.pure.parcels import (
    LARGEST_HEAD,
    ParcelHead,
    Piece,
    check_sizes,
    encode_head,
    part_sizes,
    read_head,
    stored_size,
)

LEVEL = 3
_CHUNK = 1 << 18
_WINDOW = 23
"""Binary logarithm of the memory that a decompressor may take for one frame: 8 MiB."""

_LARGEST_TREE = 256 << 20


class DamagedPiece(Exception):
    """An object is gone, or is not what its name says; the text is its digest."""


# --------------------------------------------------------------------------- writing


def write_parcel(
    file: IO[bytes],
    encoded: bytes,
    pieces: Sequence[Piece],
    path: Callable[[Piece], str],
    counted: Callable[[int], object] = lambda _bytes: None,
) -> ParcelHead:
    """Write the parcel of a tree whose canonical form is *encoded* and whose objects are *pieces*.

    *path* says where an object lies; each is hashed as it is read, so that nothing wrong is ever published.
    *counted* is told of plain bytes that are done. Returns the head, which is written, too. Raises
    DamagedPiece and ``OSError``.
    """
    total = len(encoded) + sum(piece.size for piece in pieces)
    sizes = part_sizes(total)
    # The head comes first and says how large the parts became: room for the longest that it can be.
    room = len(
        encode_head(ParcelHead(len(encoded), tuple((size, size + (size >> 7) + 1024) for size in sizes)))
    )
    body = _Parts(file, sizes, room)
    body.write(encoded)
    for piece in pieces:
        for chunk in _checked(path(piece), piece):
            body.write(chunk)
            counted(len(chunk))
    head = ParcelHead(len(encoded), body.finished())
    text = encode_head(head)
    file.seek(0)
    file.write(_padded(text, room))
    return head


def _padded(text: bytes, room: int) -> bytes:
    """Return a head of exactly *room* bytes: JSON may end with blanks, and the frame says how long it is."""
    return text[:4] + (room - 8).to_bytes(4, "little") + text[8:].ljust(room - 8)


def _checked(path: str, piece: Piece) -> Iterator[bytes]:
    hasher = hashlib.sha256()
    left = piece.size
    try:
        with opened(path, READ) as fd:
            while chunk := os.read(fd, min(_CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    break
                hasher.update(chunk)
                yield chunk
    except FileNotFoundError as error:
        raise DamagedPiece(piece.digest) from error
    if left or hasher.hexdigest() != piece.digest:
        raise DamagedPiece(piece.digest)


class _Parts:
    """Divides what is written into parts and compresses each on its own, from byte *start* of a file.

    Without checksums of zstd: whatever comes out is hashed.
    """

    def __init__(self, file: IO[bytes], sizes: Sequence[int], start: int) -> None:
        self._file = file
        self._sizes = sizes
        self._stored: list[int] = []
        self._at = start
        self._left = 0
        self._compressor: Any = None
        file.seek(start)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if not self._left:
                self._left = self._sizes[len(self._stored)]
                self._compressor = zstd_compressor(LEVEL, self._left, checksum=False)
            here = view[: self._left]
            self._file.write(self._compressor.compress(here))
            self._left -= len(here)
            view = view[len(here) :]
            if not self._left:
                self._file.write(self._compressor.flush())
                end = self._file.tell()
                self._stored.append(end - self._at)
                self._at = end

    def finished(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self._sizes, self._stored, strict=True))


# --------------------------------------------------------------------------- reading


class Sink(Protocol):
    """Takes the objects of a parcel: for each its bytes, and then the word that they are right."""

    def begin(self, piece: Piece) -> bool:
        """Return whether anybody needs the bytes of *piece*: they are checked anyway."""

    def write(self, data: memoryview) -> None:
        """Take the next bytes of the object that was begun, if it is needed."""

    def end(self, piece: Piece) -> None:
        """Take note that all bytes of *piece*, which is needed, came, and hash to its name."""


class Cutter:
    """Cuts one parcel into its tree and objects, fed with its bytes in order, and believes none of them.

    *digest* is the tree that it has to be, *announced* its plain size by the record. Whatever is not exactly
    that raises Corrupt. No more is decompressed than the head says, and the head may not say more than the
    record.
    """

    def __init__(self, digest: str, announced: int, sink: Sink) -> None:
        self.tree: Tree | None = None
        self.encoded = b""
        self.head: ParcelHead | None = None
        self.start = 0
        self._digest, self._announced, self._sink = digest, announced, sink
        self._begun = bytearray()  # of the head, then of the tree
        self._parts: Iterator[tuple[int, int]] = iter(())
        self._stored_left = self._plain_left = 0
        self._decompressor: Any = None
        self._pieces: Iterator[Piece] = iter(())
        self._piece: Piece | None = None
        self._left = 0
        self._hasher = hashlib.sha256()
        self._is_needed = False

    def feed(self, data: memoryview | bytes) -> None:
        """Take the next bytes of the parcel."""
        view = memoryview(data)
        if self.head is None:
            self._begun += view
            if not self._read_head():
                return
            view = memoryview(bytes(self._begun[self.start :]))
            self._begun.clear()
        while view:
            if not self._stored_left:
                self._next_part()
            here = view[: self._stored_left]
            view = view[len(here) :]
            self._stored_left -= len(here)
            self._decompress(here)

    def stored(self) -> int:
        """Return how many bytes the whole parcel has, by its head."""
        if self.head is None:
            raise Corrupt("it ends within its head")
        return stored_size(self.head, self.start)

    def close(self) -> None:
        """Say that this was all; raises Corrupt if it was not."""
        if self.head is None or self.tree is None:
            raise Corrupt("it ends before its tree does")
        if self._stored_left or self._plain_left or self._piece is not None or next(self._parts, None):
            raise Corrupt("it ends too early")

    def _read_head(self) -> bool:
        """Read the head if all of it is there."""
        try:
            self.head, self.start = read_head(bytes(self._begun[: LARGEST_HEAD + 8]))
        except Corrupt:
            if len(self._begun) > LARGEST_HEAD or not _may_be_head(self._begun):
                raise
            return False
        if (
            sum(plain for plain, _ in self.head.parts) != self._announced
            or self.head.manifest > _LARGEST_TREE
        ):
            raise Corrupt("it is not as large as its record says")
        self._parts = iter(self.head.parts)
        return True

    def _next_part(self) -> None:
        if self._plain_left:
            raise Corrupt("a part is shorter than its head says")
        sizes = next(self._parts, None)
        if sizes is None:
            raise Corrupt("something follows its last part")
        self._plain_left, self._stored_left = sizes
        module = zstd()
        options = {module.DecompressionParameter.window_log_max: _WINDOW}
        self._decompressor = module.ZstdDecompressor(options=options)

    def _decompress(self, data: memoryview) -> None:
        decompressor = self._decompressor
        given = bytes(data)
        try:
            while True:
                # One byte more than is to come shows that there is more.
                plain = decompressor.decompress(given, max_length=min(_CHUNK, self._plain_left + 1))
                given = b""
                self._plain_left -= len(plain)
                if self._plain_left < 0:
                    raise Corrupt("a part is longer than its head says")
                self._take(plain)
                if decompressor.eof or decompressor.needs_input:
                    break
        except (zstd().ZstdError, EOFError) as error:
            raise Corrupt("a part is not what zstd wrote") from error
        if decompressor.eof and (decompressor.unused_data or self._stored_left):
            raise Corrupt("a part has more than one frame")
        if not self._stored_left and (self._plain_left or not decompressor.eof):
            raise Corrupt("a part is shorter than its head says")

    def _take(self, plain: bytes) -> None:
        """Take plain bytes: first those of the tree, then those of its objects."""
        view = memoryview(plain)
        if self.tree is None:
            view = self._take_tree(view)
        while view:
            if self._piece is None:
                raise Corrupt("something follows its last object")
            here = view[: self._left]
            view = view[len(here) :]
            self._hasher.update(here)
            if self._is_needed:
                self._sink.write(here)
            self._left -= len(here)
            if not self._left:
                self._end_piece()

    def _take_tree(self, view: memoryview) -> memoryview:
        assert self.head is not None  # noqa: S101 - nothing is decompressed before
        wanted = self.head.manifest - len(self._begun)
        self._begun += view[:wanted]
        if len(self._begun) == self.head.manifest:
            self.encoded = bytes(self._begun)
            self._begun.clear()
            self.tree = decode_tree(self._digest, self.encoded)
            self._pieces = iter(check_sizes(self.tree, self.head, self._announced))
            self._next_piece()
        return view[wanted:]

    def _next_piece(self) -> None:
        self._piece = next(self._pieces, None)
        if self._piece is not None:
            self._left = self._piece.size
            self._hasher = hashlib.sha256()
            self._is_needed = self._sink.begin(self._piece)

    def _end_piece(self) -> None:
        piece = self._piece
        assert piece is not None  # noqa: S101 - bytes were taken for it
        if self._hasher.hexdigest() != piece.digest:
            raise Corrupt(f"the object {piece.digest[:12]} is another one")
        if self._is_needed:
            self._sink.end(piece)
        self._next_piece()


def _may_be_head(data: bytearray) -> bool:
    """Return whether the beginning of a head is one as far as it goes."""
    return len(data) < 8 or (
        data[:4] == encode_head(ParcelHead(1, ((1, 1),)))[:4]
        and len(data) < 8 + int.from_bytes(data[4:8], "little") <= 8 + LARGEST_HEAD
    )
