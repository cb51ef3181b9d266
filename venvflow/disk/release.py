"""Letting go of files that were replaced: their blocks are given back while the work goes on.

The last name and the last descriptor of a file going makes the file system free its blocks, and that may
wait for the disk, a file at a time. Who replaces thousands of files keeps each one open instead and hands
the descriptor over; a few threads close them, and the waits happen side by side.
"""

from __future__ import annotations

import os
import queue
import threading
from contextlib import suppress

_AT_ONCE = 64
"""Up to so many descriptors are only collected: for a few files, threads are not worth starting."""

_THREADS = 4
_MOST = 256
"""Descriptors that may wait to be closed; a process may often have no more than 1,024."""


class Releaser:
    """Closes descriptors in threads, as a context manager: at the end of the block all are closed."""

    def __init__(self) -> None:
        self._few: list[int] = []
        self._waiting: queue.Queue[int] = queue.Queue(_MOST)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Releaser:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._few:
            _close(fd)
        self._few.clear()
        for _thread in self._threads:
            self._waiting.put(-1)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def release(self, fd: int) -> None:
        """Close *fd* soon; it belongs to this object from now on."""
        if self._threads:
            self._waiting.put(fd)
            return
        self._few.append(fd)
        if len(self._few) >= _AT_ONCE:
            self._start()

    def _start(self) -> None:
        for number in range(_THREADS):
            thread = threading.Thread(target=self._serve, name=f"release-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        for fd in self._few:
            self._waiting.put(fd)
        self._few.clear()

    def _serve(self) -> None:
        while (fd := self._waiting.get()) >= 0:
            _close(fd)


def _close(fd: int) -> None:
    with suppress(OSError):  # nothing was written through it: there is nothing that could be lost
        os.close(fd)
