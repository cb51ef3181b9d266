"""Closes the descriptors of replaced files in background threads, because closing one may wait for the disk.

When a file loses its last name and its last descriptor, the file system frees its blocks, one file at a
time. Code that replaces thousands of files keeps each old one open and hands its descriptor to a
:class:`BackgroundCloser`; a few threads close them side by side. They get descriptors in batches: waking a
thread for each file would cost more than closing it.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence

_BATCH = 32
"""Descriptors that are closed at once; fewer than that are not worth starting threads."""

_THREADS = 4
_MOST = 4
"""Batches that may wait to be closed; a process may often have no more than 1,024 files open."""


class BackgroundCloser:
    """Closes descriptors in threads, as a context manager: at the end of the block all are closed."""

    def __init__(self) -> None:
        self._batch: list[int] = []
        self._waiting: queue.Queue[list[int]] = queue.Queue(_MOST)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> BackgroundCloser:
        return self

    def __exit__(self, *_: object) -> None:
        _close(self._batch)
        self._batch = []
        for _thread in self._threads:
            self._waiting.put([])
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def close(self, fd: int) -> None:
        """Close *fd* soon; the caller must not use it any more."""
        self._batch.append(fd)
        if len(self._batch) >= _BATCH:
            if not self._threads:
                self._start()
            self._waiting.put(self._batch)
            self._batch = []

    def _start(self) -> None:
        for number in range(_THREADS):
            thread = threading.Thread(target=self._serve, name=f"close-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self) -> None:
        while batch := self._waiting.get():
            _close(batch)


def _close(fds: Sequence[int]) -> None:
    """Close descriptors, a row of them by one call; ignores errors, for nothing was written through them."""
    for first, last in _rows(sorted(fds)):
        os.closerange(first, last + 1)


def _rows(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last of each row of numbers that follow each other, of sorted ones."""
    start = 0
    for index, number in enumerate(numbers):
        if index + 1 == len(numbers) or numbers[index + 1] != number + 1:
            yield numbers[start], number
            start = index + 1
