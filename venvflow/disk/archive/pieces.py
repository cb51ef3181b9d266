"""Parts of an archive that are not at their end when the next one is begun, and who puts them together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, NamedTuple, Protocol

_UNFINISHED = 1
"""Pieces that wait for their end while the next one is read: each has a compressor with its buffers."""


class Piece(Protocol):
    """A part of an archive; either method ends it, in any thread."""

    def finish(self) -> IO[bytes]:
        """Return the whole of it, open for reading at its start."""

    def discard(self) -> None:
        """Forget it."""


class Whole(NamedTuple):
    """A piece that was there already, as *file*."""

    file: IO[bytes]

    def finish(self) -> IO[bytes]:
        """Return it."""
        return self.file

    def discard(self) -> None:
        """Close it."""
        self.file.close()


class Copier:
    """Ends pieces in the order of their coming and gives them to *copy*, in a thread of its own.

    To be used in a ``with`` statement: at its end all are copied, or, when it fails, discarded.
    """

    def __init__(self, copy: Callable[[IO[bytes]], None]) -> None:
        self._copy = copy
        self._thread = ThreadPoolExecutor(1)
        self._pending: deque[tuple[Future[None], Piece]] = deque()

    def __enter__(self) -> Copier:
        """Return it."""
        return self

    def add(self, piece: Piece) -> None:
        """Take *piece*; waits, and raises what went wrong with earlier ones."""
        self._pending.append((self._thread.submit(self._end, piece), piece))
        self._wait(_UNFINISHED)

    def _wait(self, left: int) -> None:
        while len(self._pending) > left:
            self._pending.popleft()[0].result()

    def _end(self, piece: Piece) -> None:
        try:
            with piece.finish() as file:
                self._copy(file)
        except BaseException:
            piece.discard()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the thread; raises what went wrong in it."""
        try:
            if kind is None:
                self._wait(0)
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)
            for future, piece in self._pending:
                if future.cancelled():
                    piece.discard()
