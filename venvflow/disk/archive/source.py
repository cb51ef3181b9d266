"""The file that an archive is: opened without waiting for anybody, and hashed by the bytes that are used."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader

from venvflow.disk.archive.formats import CHUNK

_WAITING = 4
"""Chunks that may wait to be hashed."""

_AT_HAND = 4
"""Chunks that are kept of a file that is read here and there: a zip at its directory and at its content."""


def open_archive(path: str) -> BufferedReader:
    """Open the regular file at *path* for reading.

    Raises ``OSError`` for everything else: a FIFO would be waited for, and a device may have no end.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return open(fd, "rb")


@contextmanager
def hashed(raw: BufferedReader) -> Iterator[Hashed]:
    """Give *raw* as something that is read once from its start to its end, and hashed on the way."""
    with ThreadPoolExecutor(1) as thread:
        yield Hashed(raw, thread)


class Hashed:
    """A file whose SHA-256 is that of the bytes that were given to its reader, even if it changes meanwhile.

    It is read from its start to its end. Whoever must move in it calls :meth:`fix` first: then all of it is
    read at once, and what is read later must be what was read then.
    """

    def __init__(self, raw: BufferedReader, thread: ThreadPoolExecutor) -> None:
        self._raw = raw
        self._thread = thread
        self._hasher = hashlib.sha256()
        self._pending: deque[Future[None]] = deque()
        self._chunks: list[bytes] = []
        self._fixed = False
        self._position = 0
        self._at_hand: OrderedDict[int, bytes] = OrderedDict()

    def fix(self) -> None:
        """Read and hash all of it now, and remember what every chunk was."""
        while chunk := self._raw.read(CHUNK):
            self._add(chunk)
            self._chunks.append(hashlib.sha256(chunk).digest())
        self._fixed = True

    def hexdigest(self) -> str:
        """Return the SHA-256 of the whole file."""
        if not self._fixed:
            while self.read(CHUNK):
                pass
        while self._pending:
            self._pending.popleft().result()
        return self._hasher.hexdigest()

    def read(self, size: int = -1, /) -> bytes:
        """Return the next *size* bytes; raises ``OSError`` if they are no longer what they were."""
        if not self._fixed:
            data = self._raw.read(size)
            self._add(data)
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

    def _add(self, data: bytes) -> None:
        self._pending.append(self._thread.submit(self._hasher.update, data))
        if len(self._pending) > _WAITING:
            self._pending.popleft().result()
