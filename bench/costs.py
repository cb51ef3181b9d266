"""What a command costs: seconds, processor time, and memory, with all of its children."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from bench.world import CommandFailed, World

_LOOK = 0.02
"""Seconds between two looks at the processes of a command."""

_CHILD_SUBREAPER = 36
"""The number by which a process of Linux asks to become the parent of orphans among its descendants."""


class Cost(NamedTuple):
    """*seconds* by the clock, *processor* seconds, and the most *memory* in bytes, of all processes.

    Memory is the sum of what each process that was alive at the same time had used at most by then.
    """

    seconds: float
    processor: float
    memory: int


def cost_of(
    world: World,
    *commands: Sequence[str],
    cwd: str,
    settings: Mapping[str, str] | None = None,
    accept: tuple[int, ...] = (0,),
) -> Cost:
    """Run commands one after the other and return what they cost together; raises CommandFailed."""
    os.sync()
    each = [_cost(world, argv, cwd, world.environ | dict(settings or {}), accept) for argv in commands]
    return Cost(
        sum(cost.seconds for cost in each),
        sum(cost.processor for cost in each),
        max(cost.memory for cost in each),
    )


def _cost(
    world: World, argv: Sequence[str], cwd: str, environ: Mapping[str, str], accept: tuple[int, ...]
) -> Cost:
    said, peak = world.path("said"), _Peak()
    with _orphans_are_ours(), open(said, "wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            argv, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        with peak.watching(process.pid):
            _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        # A process that talks to a remote may end after who started it, which then did not count it.
        spent = [used, *filter(None, map(_waited_for, peak.seen - {process.pid}))]
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in accept:
        with open(said, encoding="utf-8", errors="replace") as text:
            words = text.read()[-2000:]
        raise CommandFailed(f"{' '.join(argv)} ended with {process.returncode}:\n{words}")
    return Cost(seconds, sum(each.ru_utime + each.ru_stime for each in spent), peak.most)


@contextmanager
def _orphans_are_ours() -> Iterator[None]:
    """Be the parent of who loses his own."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_CHILD_SUBREAPER, 0, 0, 0, 0)


def _waited_for(pid: int) -> resource.struct_rusage | None:
    """Wait for an orphan and return what it used; None if that was counted by its parent."""
    try:
        return os.wait4(pid, 0)[2]
    except ChildProcessError:
        return None


class _Peak:
    """Looks at the memory of a process and its children for as long as it is told to."""

    def __init__(self) -> None:
        self.most = 0
        self.seen: set[int] = set()
        self._over = threading.Event()

    def watching(self, pid: int) -> _Peak:
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        return self

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self, pid: int) -> None:
        while not self._over.wait(_LOOK):
            family = _family(pid)
            self.seen.update(family)
            self.most = max(self.most, sum(map(_peak_of, family)))


def _family(pid: int) -> list[int]:
    """Return a process and all of its descendants, as far as the system tells."""
    found = [pid]
    for each in found:
        try:
            with open(f"/proc/{each}/task/{each}/children", encoding="ascii") as file:
                found.extend(map(int, file.read().split()))
        except OSError:
            continue  # it is over, or this is not Linux
    return found


def _peak_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0
