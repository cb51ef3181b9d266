"""Reads the entries of an archive, one after the other; believes nothing and writes nothing."""

from __future__ import annotations

import os
import stat
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from io import BufferedReader
from itertools import islice, repeat
from typing import Literal, NamedTuple

from venvflow.disk.archive import tar, zipfile
from venvflow.disk.archive.file import Hashed
from venvflow.disk.archive.formats import CHUNK, Malformed, Raw, decompressed, recognise
from venvflow.disk.archive.pipeline import in_order
from venvflow.disk.files import open_regular
from venvflow.errors import Refused, shown
from venvflow.postinstall import LONGEST_PATH, METADATA

MOST = 100_000_000  # entries: of archives that may be of our own making
_FIRST = 2  # entries, of which one is our metadata: an arcroot stands before it
_LONGEST_PADDING = 1 << 16
_AHEAD = 4  # chunks that are decompressed while earlier ones are written


class Item(NamedTuple):
    """One entry as it is read; *parts* must be used up before the next one; *mtime* in seconds since 1970."""

    name: str
    kind: Literal["file", "link", "dir"]
    size: int
    executable: bool
    target: str
    parts: Iterator[bytes | memoryview]
    mtime: int


def unsafe(
    archive: str, why: str, hint: str = "Do not trust it; get it again from where it was made."
) -> Refused:
    """Return the error that *archive* is, or holds, what *why* says."""
    return Refused(f"{shown(archive)} {why}", state="Nothing was unpacked.", hint=hint)


def items(archive: str, raw: BufferedReader | Hashed, most: int) -> Generator[Item, None, None]:
    """Yield the entries of the archive *raw*, of any format; a zip of more than *most* is refused.

    *archive* is only its name, for messages. Raises Refused, with the entry named, for what is neither file,
    symlink nor directory, and Malformed for what is damaged.
    """
    name = recognise(raw.peek(8))
    if name == "zip":
        if isinstance(raw, Hashed):
            raw.fix()
        yield from _zip_items(archive, raw, most)
        return
    chunks = decompressed(name, raw)
    ahead = in_order(lambda _: next(chunks, b""), repeat(None), threads=1, ahead=_AHEAD)
    with closing(ahead):
        yield from _tar_items(archive, _Stream(iter(partial(next, ahead), b"")))


def is_ours(path: str) -> bool:
    """Return whether the file at *path* is an archive that venvflow wrote, by the first of its entries."""
    try:
        with open_regular(path, follow=True) as raw, closing(items(path, raw, MOST)) as entries:
            return any(METADATA in item.name.split("/") for item in islice(entries, _FIRST))
    except (Malformed, Refused, OSError):
        return False


# --------------------------------------------------------------------------- tar


class _Stream:
    """A byte stream that is taken in pieces of known length; raises Malformed when it ends too early."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._view = memoryview(b"")

    def parts(self, size: int) -> Iterator[memoryview]:
        """Yield the next *size* bytes without copying them."""
        while size:
            if not self._view:
                self._view = memoryview(next(self._chunks, b""))
                if not self._view:
                    raise Malformed("it was cut off")
            part, self._view = self._view[:size], self._view[size:]
            size -= len(part)
            yield part

    def exactly(self, size: int) -> bytes:
        """Return the next *size* bytes."""
        if size <= len(self._view):
            part, self._view = self._view[:size], self._view[size:]
            return bytes(part)
        return b"".join(self.parts(size))

    def only_padding_left(self) -> bool:
        """Return whether nothing follows but the few zeros that fill up a tape's record.

        Reads to the end, so that a stream that was cut off behind its last entry is noticed too.
        """
        left = len(self._view)
        zeros = not any(self._view)
        for chunk in self._chunks:
            left += len(chunk)
            zeros = zeros and left <= _LONGEST_PADDING and not any(chunk)
            if not zeros:
                break
        return zeros and left <= _LONGEST_PADDING


_KINDS: dict[bytes, Literal["file", "link", "dir"]] = {
    tar.FILE: "file",
    tar.LINK: "link",
    tar.DIRECTORY: "dir",
}
_REFUSED_KINDS = {
    b"1": "is a hard link",
    b"3": "is a device",
    b"4": "is a device",
    b"6": "is a FIFO",
    b"g": "is a global header, which would change all others",
}


def _tar_items(archive: str, stream: _Stream) -> Iterator[Item]:
    records: dict[bytes, bytes] = {}
    while (block := stream.exactly(tar.BLOCK)) != tar.END[: tar.BLOCK]:
        header = tar.parse_header(block)
        if header.kind == tar.PAX:
            tar.check_pax_size(header.size)
            if records:
                raise Malformed("two PAX headers stand before one entry")
            records = tar.parse_pax(stream.exactly(header.size))
        else:
            if records:
                header, records = tar.with_pax(header, records), {}
            item = _tar_item(archive, header, stream)
            yield item
            _use_up(item.parts)
        stream.exactly(tar.padding(header.size))
    if stream.exactly(tar.BLOCK) != block or not stream.only_padding_left():
        raise Malformed("it does not end where it says")


def _tar_item(archive: str, header: tar.Header, stream: _Stream) -> Item:
    name = _text(header.name)
    kind = _KINDS.get(header.kind)
    if kind is None:
        reason = _REFUSED_KINDS.get(header.kind, f"is of unknown kind {header.kind!r}")
        raise unsafe(archive, f"holds {shown(name)}, which {reason}")
    if kind != "file" and header.size:
        raise unsafe(archive, f"holds {shown(name)}, which has content but is not a file")
    if kind == "dir":
        name = name.rstrip("/") if name != "/" else name
    parts = stream.parts(header.size)
    return Item(name, kind, header.size, bool(header.mode & 0o100), _text(header.target), parts, header.mtime)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _use_up(parts: Iterable[object]) -> None:
    deque(parts, maxlen=0)


# --------------------------------------------------------------------------- zip


def _zip_items(archive: str, raw: Raw, most: int) -> Iterator[Item]:
    left = raw.seek(0, os.SEEK_END)
    for record in zipfile.read_directory(raw, most):
        left -= record.packed
        if left < 0:  # however small it is, it would hold terabytes
            raise Malformed("its members share their bytes")
        name = _text(record.name)
        parts = _zip_parts(raw, record)
        kind: Literal["file", "link", "dir"] = "file"
        target = ""
        if stat.S_ISDIR(record.mode) or name.endswith("/"):
            kind, name = "dir", name.rstrip("/") if name != "/" else name
        elif stat.S_ISLNK(record.mode):
            kind, target = "link", _zip_target(archive, name, record, parts)
        elif stat.S_IFMT(record.mode) not in (0, stat.S_IFREG):
            raise unsafe(archive, f"holds {shown(name)}, which is a device or FIFO")
        if kind == "dir" and record.size:
            raise unsafe(archive, f"holds {shown(name)}, which has content but is not a file")
        yield Item(name, kind, record.size, bool(record.mode & 0o100), target, parts, record.mtime)


def _zip_target(archive: str, name: str, record: zipfile.Record, parts: Iterator[bytes]) -> str:
    if record.size > LONGEST_PATH:
        raise unsafe(archive, f"holds {shown(name)}, a link with a target of {record.size} bytes")
    return _text(b"".join(parts))


def _zip_parts(raw: Raw, record: zipfile.Record) -> Iterator[bytes]:
    """Yield the content of *record*: never more than it says, and at the end exactly that."""
    zipfile.seek_content(raw, record)
    crc = size = 0
    for part in _inflated(raw, record):
        size += len(part)
        if size > record.size:
            break
        crc = zlib.crc32(part, crc)
        yield part
    if size != record.size or crc != record.crc:
        raise Malformed(f"the content of {record.name!r} is not what was packed")


def _inflated(raw: Raw, record: zipfile.Record) -> Iterator[bytes]:
    left = record.packed
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    waiting = b""
    while left or waiting:
        if not waiting:
            waiting = raw.read(min(left, CHUNK))
            left -= len(waiting)
            if not waiting:
                raise Malformed("it was cut off")
        if record.method == zipfile.STORED:
            yield waiting
            waiting = b""
            continue
        try:
            piece = stream.decompress(waiting, CHUNK)
        except zlib.error as error:
            raise Malformed(f"{record.name!r}: {error}") from error
        waiting = stream.unconsumed_tail
        if piece:
            yield piece
        elif stream.eof or not waiting:
            break
