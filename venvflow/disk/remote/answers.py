"""What the child process that talks to a remote says to its parent, from several threads."""

from __future__ import annotations

import json
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")

_TICK = 0.2
"""Seconds between two words about how many bytes came or went."""


class Answers:
    """What goes back to the parent, and how many bytes came or went so far.

    Nobody here waits until the parent reads: while it makes files durable, more of them come.
    """

    def __init__(self, file: IO[str]) -> None:
        self._waiting = queue.SimpleQueue[str]()
        self._mutex = threading.Lock()
        self.moved = 0
        self.done = 0
        threading.Thread(target=self._write, args=(file,), daemon=True).start()

    def _write(self, file: IO[str]) -> None:
        with suppress(BrokenPipeError):  # the parent is gone, and so is this process soon
            while True:
                file.write(self._waiting.get())
                file.flush()

    def say(self, **answer: Any) -> None:
        """Send one line."""
        self._waiting.put(json.dumps(answer) + "\n")

    def count(self, moved: int, done: int = 0) -> None:
        """Take note of bytes that came or went, and of plain bytes that are done."""
        with self._mutex:
            self.moved += moved
            self.done += done

    def tick(self, stop: threading.Event) -> None:
        """Tell of bytes as long as some move."""
        told = (0, 0)
        while not stop.wait(_TICK):
            if (self.moved, self.done) != told:
                told = self.moved, self.done
                self.say(moved=told[0], done=told[1])


def at_once(do: Callable[[_T], _R], each: Sequence[_T], most: int) -> list[_R]:
    """Return what *do* returns for each, in order, with so many threads at most.

    After the first that fails nothing more is begun; its error is raised when those that were have ended.
    Executors do the same, and take as long to load as a request on loopback does.
    """
    waiting, failures = deque(enumerate(each)), deque[BaseException]()
    found: dict[int, _R] = {}

    def work() -> None:
        while waiting and not failures:
            try:
                number, one = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                found[number] = do(one)
            except BaseException as error:  # noqa: BLE001 - raised below
                failures.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(most, len(each)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [found[number] for number in range(len(each))]
