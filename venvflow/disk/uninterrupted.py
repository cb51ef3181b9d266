"""Blocks of code that no signal interrupts: ``KeyboardInterrupt`` is raised at their end instead.

The signal handlers of :mod:`venvflow.interrupts` call :func:`postpone` before they interrupt a thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_threads: dict[int, bool] = {}
"""Threads that are in such a block, and whether ``KeyboardInterrupt`` is raised at its end."""
os.register_at_fork(after_in_child=_threads.clear)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let no signal interrupt the block. Raises ``KeyboardInterrupt`` at its end if one came."""
    me = threading.get_ident()
    _threads[me] = False
    try:
        yield
    finally:
        if _threads.pop(me):
            raise KeyboardInterrupt


def postpone(thread: int) -> bool:
    """Postpone the interrupt of *thread* to the end of its block; return False if it is in no such block."""
    if thread not in _threads:
        return False
    _threads[thread] = True
    return True
