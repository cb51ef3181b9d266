"""Does steps of venvs; run as a process beside doit where several venvs are worked on at once.

Python lets one thread of a process run at a time, so only processes use several cores. The *host* is one
without threads, with all that steps need imported; it forks a worker when one is asked for
(:mod:`venvflow.workers` is the run's side). A worker does one step at a time, and ends with the run.
What it knows of a venv that it has built stays in its memory, for the steps that follow.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from venvflow import interrupts
from venvflow.disk import locks
from venvflow.disk.system_errors import from_system
from venvflow.errors import VenvflowError
from venvflow.flow import Flow
from venvflow.model import Config, Outcome

FINISH = "finish"
"""Asks a worker to publish what it has built, because somebody waits for that."""

_GAP = 0.1
"""Seconds between two words about how far a step is, and about waiting."""


class Failure(NamedTuple):
    """Why a step failed: its *message*, the *exit_code* of its error, and in short *what* failed."""

    message: str
    exit_code: int
    what: str


class Done(NamedTuple):
    """What a step answered: *values*, or its *failure*.

    *keeps*: the process that did it knows more of the venv, and the next steps are best done there.
    """

    values: Mapping[str, Any]
    failure: Failure | None
    keeps: bool


class Orders(NamedTuple):
    """What a host is told first: the run's process *pid*, and what its flow is made of."""

    pid: int
    config: Config
    environ: Mapping[str, str]
    command: tuple[str, ...]
    named: frozenset[str]
    fresh: frozenset[str]


def step_of(verb: str) -> Callable[[Any], Outcome]:
    """Return the function of a step; imported when one runs, because a run with nothing to do needs none."""
    name = verb.replace("-", "_")
    function: Callable[[Any], Outcome] = getattr(importlib.import_module(f"venvflow.steps.{name}"), name)
    return function


def perform(flow: Flow, verb: str, venv: str, *, force: bool = False) -> Done:
    """Do one step for one venv in this process; *force*: what was changed by hand there is given up."""
    try:
        outcome = step_of(verb)(flow.job(venv, force=force))
    except VenvflowError as error:
        return _failed(flow, venv, error)
    except (OSError, MemoryError) as error:
        whole = f"The venv {venv} is the old one or the new one, whole."
        return _failed(flow, venv, from_system(error, whole))
    # The archives of a venv in layers are in the list beside them.
    values = {name: value for name, value in outcome.values().items() if name != "parts"}
    return Done({**values, "warnings": list(outcome.warnings)}, None, flow.keeps(venv))


def _failed(flow: Flow, venv: str, error: VenvflowError) -> Done:
    return Done({}, Failure(str(error), error.exit_code, error.what), flow.keeps(venv))


def finish_held() -> None:
    """Publish what this process has built and holds claims for."""
    from venvflow.steps import build_venv, claims  # noqa: PLC0415 - see step_of

    claims.finish_held(build_venv.finish_other)


# --------------------------------------------------------------------------- the host


def host(verbs: tuple[str, ...]) -> None:
    """Fork a worker for each socket that comes in on standard input; end after all of them when that ends."""
    control = socket.socket(fileno=0)
    orders = _reading(control.fileno()).recv()
    sys.argv = [*orders.command]  # who waits for a lock of a worker is told what was run
    for verb in verbs:
        step_of(verb)
    gc.freeze()  # what is here now is in all workers, and nobody need look at it again
    workers: set[int] = set()
    while given := _given(control):
        _reap(workers, os.WNOHANG)
        with suppress(OSError):  # there are too many: the run sees that it has nobody at the other end
            pid = os.fork()
            if not pid:
                control.close()
                _work(Connection(given[0]), orders)
            workers.add(pid)
        os.close(given[0])
    _reap(workers)  # process 1 may be late: what a process that is not gone has left, nobody removes


def _given(control: socket.socket) -> list[int]:
    """Return the descriptor that comes in on *control*, in a list; it is empty at the end."""
    given: list[int] = []
    with suppress(OSError):
        _, given, *_ = socket.recv_fds(control, 1, 1)
    for each in given:
        os.set_inheritable(each, False)  # else what a worker starts would hold it open
    return given


def _reap(workers: set[int], options: int = 0) -> None:
    """Take from *workers* those that have ended; without *options*, wait for all."""
    while workers:
        pid, _ = os.waitpid(-1, options)
        if not pid:
            return
        workers.discard(pid)


def _reading(fd: int) -> Connection:
    return Connection(os.dup(fd), writable=False)


def _work(run: Connection, orders: Orders) -> None:
    """Be a worker: do what the *run* orders until it has no more orders."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # between two steps there is nothing to clean up
        locks.kin.update((orders.pid, os.getpgrp()))
        threading.Thread(target=_end_with, args=[run], daemon=True).start()
        run.send(os.getpid())
        _Steps(run, orders).work()
        status = 0
    except (OSError, EOFError):  # the run is gone
        pass
    finally:
        os._exit(status)  # what the host registered for its own end is not ours


def _end_with(run: Connection) -> None:
    """End this process when the run is gone, whatever it is at; its children are ended for it then."""
    watch = select.poll()
    watch.register(run, 0)  # nothing but that the other end is closed
    watch.poll()
    os._exit(1)


class _Steps:
    def __init__(self, run: Connection, orders: Orders) -> None:
        self._run, self._sending = run, threading.Lock()
        self._flow = Flow(
            orders.config,
            orders.environ,
            say=lambda text: self._send("say", text),
            waits=lambda: self._tell("waits", None),
            command=orders.command,
            named=orders.named,
            fresh=orders.fresh,
        )
        self._last = {"meter": 0.0, "waits": 0.0}

    def work(self) -> None:
        while True:
            order = self._run.recv()
            with interrupts.raised():
                try:
                    self._send("done", self._do(order))
                except KeyboardInterrupt:
                    return
                except Exception:  # noqa: BLE001 - the run shows it as one of its own
                    self._send("broke", traceback.format_exc())

    def _do(self, order: Any) -> Done | None:
        if order == FINISH:
            finish_held()
            return None
        verb, venv, force = order
        meter = self._flow.job(venv, force=force).meter
        meter.reset()
        meter.watch = lambda: self._tell("meter", meter.said)
        return perform(self._flow, verb, venv, force=force)

    def _tell(self, kind: str, value: object) -> None:
        now = time.monotonic()
        if now - self._last[kind] >= _GAP:
            self._last[kind] = now
            self._send(kind, value)

    def _send(self, kind: str, value: object) -> None:
        """Tell the run something; a step has threads, which have words to say at any moment."""
        with self._sending:
            self._run.send((kind, value))
