"""The file that an archive becomes: a thread of its own hashes what is written, and sends it to the disk."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, BinaryIO

from venvflow.disk.archive.formats import CHUNK, MIB

_WAITING = 4
"""Portions of :data:`CHUNK` bytes, or of one write, that may wait to be hashed."""

_PORTION = 64 * MIB
"""Bytes after which the disk begins to write them: at the end it must have them all, and would only then."""


_flush = getattr(os, "fdatasync", os.fsync)  # macOS has none


class Sink:
    """Writes to *file*, as a context manager: at the end of the block :attr:`sha256` is that of all.

    *size* counts the bytes. Writing raises ``OSError`` as files do, for what was written before too.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hasher = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()
        self._parts: list[bytes] = []
        self._gathered = 0
        self._unsent = 0
        self.size = 0
        self.sha256 = ""

    def __enter__(self) -> Sink:
        """Return it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the other thread; raises what went wrong in it."""
        try:
            if kind is None:
                self._hand_over()
                self._wait(0)
                self.sha256 = self._hasher.hexdigest()
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        self._file.write(data)
        self.size += len(data)
        self._parts.append(data)
        self._gathered += len(data)
        if self._gathered >= CHUNK:
            self._hand_over()
            self._wait(_WAITING)

    def copy(self, file: IO[bytes]) -> None:
        """Write all that is left in *file*."""
        for chunk in iter(lambda: file.read(CHUNK), b""):
            self.write(chunk)

    def _hand_over(self) -> None:
        self._pending.append(self._thread.submit(self._take, self._parts))
        self._parts, self._gathered = [], 0

    def _wait(self, left: int) -> None:
        while len(self._pending) > left:
            self._pending.popleft().result()

    def _take(self, parts: list[bytes]) -> None:
        for part in parts:
            self._hasher.update(part)
            self._unsent += len(part)
        if self._unsent >= _PORTION:
            _flush(self._file.fileno())
            self._unsent = 0
