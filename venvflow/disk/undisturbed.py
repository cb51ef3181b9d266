"""Short pieces of work that a signal must not cut in two: it takes effect after them.

Whoever handles signals asks :func:`will_raise` before it interrupts a thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_threads: dict[int, bool] = {}
"""Threads that must not be interrupted now, and whether ``KeyboardInterrupt`` is to be raised behind that."""
os.register_at_fork(after_in_child=_threads.clear)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no signal cut the block in two. Raises ``KeyboardInterrupt`` behind it if one came."""
    me = threading.get_ident()
    _threads[me] = False
    try:
        yield
    finally:
        if _threads.pop(me):
            raise KeyboardInterrupt


def will_raise(thread: int) -> bool:
    """Say whether *thread* must not be interrupted now; it will raise ``KeyboardInterrupt`` itself then."""
    if thread not in _threads:
        return False
    _threads[thread] = True
    return True
