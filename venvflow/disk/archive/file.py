"""The file that an archive is, hashed while it is written or read, and the two files that stand beside it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from typing import IO, Any, BinaryIO

from venvflow.disk.archive.formats import CHUNK, MIB
from venvflow.disk.archive.pipeline import Lane
from venvflow.disk.files import open_regular, read_beginning, read_small, write_whole

_WAITING = 4
"""Portions, of about :data:`CHUNK` bytes, that may wait to be hashed."""

_FLUSHED = 64 * MIB
"""Bytes after which the disk begins to write them: at the end it must have them all, and would only then."""

_AT_HAND = 4
"""Chunks that are kept of a file that is read here and there: a zip at its directory and at its content."""

_flush = getattr(os, "fdatasync", os.fsync)  # macOS has none


# --------------------------------------------------------------------------- written


@contextmanager
def hashed_output(file: BinaryIO) -> Iterator[HashedOutput]:
    """Give *file* as something to write to, whose SHA-256 is known at the end of the block."""
    with Lane(_WAITING) as lane:
        output = HashedOutput(file, lane)
        yield output
        output.end()


class HashedOutput:
    """What is written to *file* is hashed in a *lane* and sent to the disk on the way.

    *size* counts the bytes; *sha256* is theirs when the block of :func:`hashed_output` has ended. Writing
    raises ``OSError`` as files do, for what was written before too.
    """

    def __init__(self, file: BinaryIO, lane: Lane) -> None:
        self._file = file
        self._lane = lane
        self._hasher = hashlib.sha256()
        self._parts: list[bytes] = []
        self._gathered = 0
        self._unsent = 0
        self.size = 0
        self.sha256 = ""

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        self._file.write(data)
        self.size += len(data)
        self._parts.append(data)
        self._gathered += len(data)
        if self._gathered >= CHUNK:
            self._hand_over()

    def copy(self, file: IO[bytes]) -> None:
        """Write all that is left in *file*."""
        for chunk in iter(lambda: file.read(CHUNK), b""):
            self.write(chunk)

    def end(self) -> None:
        """Wait until all is hashed."""
        self._hand_over()
        self._lane.wait()
        self.sha256 = self._hasher.hexdigest()

    def _hand_over(self) -> None:
        self._lane.put(partial(self._take, self._parts))
        self._parts, self._gathered = [], 0

    def _take(self, parts: list[bytes]) -> None:
        for part in parts:
            self._hasher.update(part)
            self._unsent += len(part)
        if self._unsent >= _FLUSHED:
            _flush(self._file.fileno())
            self._unsent = 0


# --------------------------------------------------------------------------- read


def digest_of_file(path: str) -> str:
    """Return the SHA-256 of a file; raises ``OSError``."""
    with open_regular(path, follow=True) as file:
        return digest_of(file)


def digest_of(file: IO[bytes]) -> str:
    """Return the SHA-256 of all that is left in *file*."""
    hasher = hashlib.sha256()
    for chunk in iter(lambda: file.read(CHUNK), b""):
        hasher.update(chunk)
    return hasher.hexdigest()


@contextmanager
def hashed(raw: BufferedReader) -> Iterator[Hashed]:
    """Give *raw* as something that is read once from its start to its end, and hashed on the way."""
    with Lane(_WAITING) as lane:
        yield Hashed(raw, lane)


class Hashed:
    """A file whose SHA-256 is that of the bytes that were given to its reader, even if it changes meanwhile.

    It is read from its start to its end. Code that has to seek in it calls :meth:`fix` first: then all of it
    is read at once, and what is read later must be what was read then.
    """

    def __init__(self, raw: BufferedReader, lane: Lane) -> None:
        self._raw = raw
        self._lane = lane
        self._hasher = hashlib.sha256()
        self._chunks: list[bytes] = []
        self._fixed = False
        self._position = 0
        self._at_hand: OrderedDict[int, bytes] = OrderedDict()

    def fix(self) -> None:
        """Read and hash all of it now, and remember what every chunk was."""
        while chunk := self.read(CHUNK):
            self._chunks.append(hashlib.sha256(chunk).digest())
        self._fixed = True

    def hexdigest(self) -> str:
        """Return the SHA-256 of the whole file."""
        while not self._fixed and self.read(CHUNK):
            pass
        self._lane.wait()
        return self._hasher.hexdigest()

    def read(self, size: int = -1, /) -> bytes:
        """Return the next *size* bytes; raises ``OSError`` if they are no longer what they were."""
        if not self._fixed:
            data = self._raw.read(size)
            self._lane.put(partial(self._hasher.update, data))
            return data
        end = len(self._chunks) * CHUNK
        stop = end if size < 0 else min(self._position + size, end)
        parts = []
        while self._position < stop:
            number, skip = divmod(self._position, CHUNK)
            part = self._chunk(number)[skip : skip + stop - self._position]
            if not part:
                break
            parts.append(part)
            self._position += len(part)
        return b"".join(parts)

    def peek(self, size: int, /) -> bytes:
        """Return some of the next bytes, about *size*, and give them to the next reader as well."""
        return self._raw.peek(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move, and return where that is."""
        self._position = self._raw.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        """Return where it is."""
        return self._position

    def _chunk(self, number: int) -> bytes:
        if number not in self._at_hand:
            self._raw.seek(number * CHUNK)
            chunk = self._raw.read(CHUNK)
            if hashlib.sha256(chunk).digest() != self._chunks[number]:
                raise OSError(errno.EAGAIN, "it changed while it was read")
            self._at_hand[number] = chunk
            if len(self._at_hand) > _AT_HAND:
                self._at_hand.popitem(last=False)
        return self._at_hand[number]


# --------------------------------------------------------------------------- beside it


def write_beside(path: str, document: dict[str, Any]) -> None:
    """Write what stands beside the archive *path*, which *document* describes, its ``sha256`` too.

    The checksum comes last: until then the archive is not current. Raises ``OSError``.
    """
    # A power cut may take the description from us. Then the archive is not current, and no harm is done.
    write_whole(path + ".json", (json.dumps(document, sort_keys=True, indent=1) + "\n").encode("ascii"))
    write_whole(path + ".sha256", _checksum_line(document["sha256"], os.path.basename(path)), sync=True)


def _checksum_line(digest: str, name: str) -> bytes:
    """Return a line that ``sha256sum -c`` understands, whatever the name."""
    raw = os.fsencode(name)
    escaped = raw.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != raw else b""
    return b"%b%b  %b\n" % (mark, digest.encode("ascii"), escaped)


def recorded_digest(archive: str) -> str | None:
    """Return the SHA-256 that the file beside *archive* says it has, or None if there is no such file.

    A file that says something else gives a text that is the SHA-256 of nothing; what is not a file is none.
    Raises ``OSError``.
    """
    try:
        return read_beginning(archive + ".sha256", 1024).lstrip(b"\\")[:64].decode("ascii", "replace")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return None
        raise


def is_current(path: str) -> bool:
    """Return whether the archive at *path* is whole: its bytes have the SHA-256 that stands beside it.

    Reads the whole archive; raises nothing for one that cannot be read.
    """
    try:
        expected = recorded_digest(path)
        described = json.loads(read_small(path + ".json", follow=True))["sha256"]
        return expected is not None and described == expected == digest_of_file(path)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
