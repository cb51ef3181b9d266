"""Frames become an archive: each written to where it is kept and into the archive at once, in their order.

One thread does that, so that who reads and compresses does not wait for the disk. There the end of a frame
waits for its compressor, too, while the next frame is begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, NamedTuple, Protocol

from venvflow.disk.archive.frames import NewFrame

_WAITING = 8 << 20
"""Bytes that may wait to be written."""

_ENDING = 1
"""Frames whose compressor still works while the next one is begun: each has buffers of its own."""


class Target(Protocol):
    """The archive that is written."""

    def write(self, data: bytes) -> None:
        """Write the next bytes."""

    def copy(self, file: IO[bytes]) -> None:
        """Write all that is left in *file*."""


class _Kept(NamedTuple):
    """A frame that was there already."""

    file: IO[bytes]

    def discard(self) -> None:
        """Close it."""
        self.file.close()


class Joiner:
    """Writes frames to *target*, in a thread of its own; to be used in a ``with`` statement.

    Everything is done in the order in which it is asked for, and every method may raise what went wrong
    with something before. At the end of the block all is written; when it fails, frames that are not
    finished are discarded.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._thread = ThreadPoolExecutor(1)
        self._pending: deque[tuple[Future[None], int]] = deque()
        self._ending: deque[Future[None]] = deque()
        self._waiting = 0
        self._broken = False
        self._unfinished: list[NewFrame | _Kept] = []

    def __enter__(self) -> Joiner:
        """Return it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the thread; raises what went wrong in it."""
        try:
            if kind is None:
                self._settle(all_of_it=True)
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)
            for frame in self._unfinished:
                frame.discard()

    def begin(self, frame: NewFrame) -> None:
        """Take a new frame, to finish or to discard it; its bytes come next."""
        self._unfinished.append(frame)

    def add(self, frame: NewFrame, data: bytes) -> None:
        """Write the next bytes of a frame."""
        if data:
            self._submit(len(data), lambda: self._write(frame, data))

    def end(self, frame: NewFrame, compressor: Any) -> None:
        """Write what *compressor* still holds when it is done, and finish the frame."""
        self._ending.append(self._submit(0, lambda: self._finish(frame, compressor)))
        while len(self._ending) > _ENDING:
            self._ending.popleft().result()

    def copy(self, file: IO[bytes]) -> None:
        """Write a frame that was there already, and close its *file*."""
        kept = _Kept(file)
        self._unfinished.append(kept)
        self._submit(_WAITING // 8, lambda: self._copy(kept))  # so that few are open at a time

    def _submit(self, size: int, work: Callable[[], None]) -> Future[None]:
        future = self._thread.submit(self._unless_broken, work)
        self._pending.append((future, size))
        self._waiting += size
        self._settle()
        return future

    def _settle(self, *, all_of_it: bool = False) -> None:
        while self._pending and (all_of_it or self._waiting > _WAITING or self._pending[0][0].done()):
            future, size = self._pending.popleft()
            future.result()
            self._waiting -= size

    # ----------------------------------------------------------------------- in the thread

    def _unless_broken(self, work: Callable[[], None]) -> None:
        """Do *work*, if all before it was done: a frame must not be finished that lacks some bytes."""
        if self._broken:
            return
        try:
            work()
        except BaseException:
            self._broken = True
            raise

    def _write(self, frame: NewFrame, data: bytes) -> None:
        frame.write(data)
        self._target.write(data)

    def _finish(self, frame: NewFrame, compressor: Any) -> None:
        self._write(frame, compressor.flush())
        frame.finish()
        self._unfinished.remove(frame)

    def _copy(self, kept: _Kept) -> None:
        self._target.copy(kept.file)
        kept.file.close()
        self._unfinished.remove(kept)
