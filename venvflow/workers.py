"""The processes in which steps run, where doit works on several venvs at once.

One step at a time runs in doit's own process; while it does, others run in workers, each a process of its own
(:mod:`venvflow.step_worker`). A venv of which a process keeps something in memory comes back to that process.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from venvflow import interrupts
from venvflow.disk import locks
from venvflow.errors import EnvironmentFailure, VenvflowError
from venvflow.flow import Flow
from venvflow.step_worker import FINISH, Done, Orders, finish_held, perform

_TICK = 0.1
"""Seconds after which a thread that waits for a worker looks whether it is to end."""

_MOST_KEPT = 4
"""Idle workers that keep what they know of a venv; of a large one that is megabytes."""

_OF_REMOTE = ("hash-lockfiles", "restore")
"""Steps that doit's own process does where there is a remote: its connections are one process's.

For venvs that come from there no other is worth starting.
"""

_pids: set[int] = set()
"""All workers that there are."""

_HOST = "import sys; sys.path[:] = {path!a}; from venvflow.step_worker import host; host({verbs!r})"


def hurry() -> None:
    """Tell the workers that are at work once more that they are to end."""
    for pid in list(_pids):
        with suppress(OSError):
            os.kill(pid, signal.SIGINT)


class _Here:
    """This process, as one of those that do steps."""

    has_ended = False

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self.lock = threading.Lock()
        self.venv = ""

    def do(self, verb: str, venv: str) -> Done:
        return perform(self._flow, verb, venv)

    def finish(self) -> None:
        finish_held()

    def close(self) -> None:
        """Do nothing: it goes on."""


class _Process:
    """A process that does steps: *venv* is what it keeps something of, *lock* is held while it works."""

    def __init__(self, flow: Flow, run: Connection, heard: Callable[[str, Any], None]) -> None:
        self._flow, self._run, self._heard = flow, run, heard
        self.lock = threading.Lock()
        self.venv = ""
        self.has_ended = False
        self._pid = 0  # it is not there yet

    def do(self, verb: str, venv: str) -> Done:
        if not self._is_there():
            return perform(self._flow, verb, venv)
        answer = self._ask((verb, venv, venv in self._flow.given_up), venv)
        assert isinstance(answer, Done)  # noqa: S101 - that is what a step answers
        return answer

    def finish(self) -> None:
        self._ask(FINISH, self.venv)

    def _is_there(self) -> bool:
        """Wait until the worker is there; return whether it is."""
        try:
            self._pid = self._pid or self._heard_next()
            _pids.add(self._pid)
        except (EOFError, OSError):
            self.close()
        except BaseException:
            self.close()
            raise
        return not self.has_ended

    def _heard_next(self) -> Any:
        while not self._run.poll(_TICK):
            pass
        return self._run.recv()

    def _ask(self, order: object, venv: str) -> Done | None:
        try:
            self._run.send(order)
            while True:
                kind, value = self._heard_next()
                if kind == "done":
                    return value  # type: ignore[no-any-return]
                if kind == "broke":
                    raise RuntimeError(f"in the process of {venv}:\n{value}")  # noqa: TRY301
                if kind == "meter":
                    self._flow.job(venv).meter.take(value)
                else:
                    self._heard(kind, value)
        except (EOFError, OSError):
            self.close()
            raise EnvironmentFailure(
                f"the process that worked on it (pid {self._pid}) was ended (out of memory?)",
                where=venv,
                state="The venv is the old one or the new one, whole.",
                hint="Run doit again to go on.",
            ) from None
        except BaseException:
            self._interrupt()
            raise

    def _interrupt(self) -> None:
        """Let the worker clean up, and wait until it has ended."""
        deadline = time.monotonic() + interrupts.PATIENCE
        with suppress(OSError):
            os.kill(self._pid, signal.SIGINT)
            while self._run.poll(max(0.0, deadline - time.monotonic())):
                if not os.read(self._run.fileno(), 1 << 16):
                    break
        self.close()

    def close(self) -> None:
        """End the worker, which has nothing to do."""
        self.has_ended, self.venv = True, ""
        _pids.discard(self._pid)
        self._run.close()


class Workers:
    """All processes that do the steps of a *flow*; *verbs* are all steps."""

    def __init__(self, flow: Flow, verbs: tuple[str, ...]) -> None:
        self._flow, self._verbs = flow, verbs
        self._mutex = threading.Lock()
        self._host: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._all: list[_Here | _Process] = [_Here(flow)]
        flow.waits = self._finish_idle

    def do(self, verb: str, venv: str) -> Done:
        """Do a step in the process that knows the venv, or else in one that has nothing to do."""
        if verb in _OF_REMOTE and self._flow.config.store.remote is not None:
            return perform(self._flow, verb, venv)
        worker, keeps = self._taken_for(venv), False
        try:
            answer = worker.do(verb, venv)
            keeps = answer.keeps
        finally:
            (self._flow.at_work.add if keeps else self._flow.at_work.discard)(venv)
            worker.venv = venv if keeps else ""
            worker.lock.release()
        return answer

    def close(self) -> None:
        """End all of them; one that is at work was interrupted, and cleans up before."""
        self._flow.waits = lambda: None
        deadline = time.monotonic() + interrupts.PATIENCE
        for worker in self._all[1:]:
            if not worker.has_ended:
                worker.lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
                worker.close()
        if self._control is not None:
            self._control.close()
        if self._host is not None:
            self._host.wait()
            locks.kin.discard(self._host.pid)

    def _taken_for(self, venv: str) -> _Here | _Process:
        """Return the process for a venv, which is ours until its lock is released."""
        while True:
            with self._mutex:
                self._forget_ended()
                bound = next((each for each in self._all if each.venv == venv), None)
                if bound is None:
                    free = (each for each in self._all if not each.venv and each.lock.acquire(blocking=False))
                    worker = next(free, None) or self._started()
                    worker.venv = venv
                    return worker
            bound.lock.acquire()
            if bound.venv == venv:
                return bound
            bound.lock.release()  # it knows nothing of the venv any more

    def _forget_ended(self) -> None:
        """Forget the workers that have ended, and end those that keep what nobody may ever ask for."""
        idle = [each for each in self._all[1:] if each.venv and each.lock.acquire(blocking=False)]
        for each in idle[:-_MOST_KEPT]:
            self._flow.at_work.discard(each.venv)
            each.close()
        for each in idle:
            each.lock.release()
        self._all = [each for each in self._all if not each.has_ended]

    def _started(self) -> _Here | _Process:
        """Return a new worker, which is ours; where there can be none, this process does several steps."""
        worker: _Here | _Process
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                socket.send_fds(self._connected(), [b"+"], [theirs.fileno()])
                worker = _Process(self._flow, Connection(ours.detach()), self._heard)
        except OSError:
            worker = _Here(self._flow)
        worker.lock.acquire()
        self._all.append(worker)
        return worker

    def _connected(self) -> socket.socket:
        """Return the socket that the host listens to, which is started if there is none."""
        if self._control is None:
            self._control, theirs = socket.socketpair()
            # Beside a dodo.py may lie what has the name of a module that only the host has still to import.
            of_python = os.path.dirname(os.__file__)
            path = sorted(sys.path, key=lambda each: each not in (of_python, f"{of_python}/lib-dynload"))
            code = _HOST.format(path=path, verbs=self._verbs)
            with theirs:
                self._host = subprocess.Popen(
                    [sys.executable, "-X", f"utf8={sys.flags.utf8_mode}", "-c", code],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            flow = self._flow
            orders = Orders(
                os.getpid(), flow.config, dict(flow.environ), flow.command, flow.named, flow.fresh
            )
            writing = Connection(os.dup(self._control.fileno()), readable=False)
            writing.send(orders)
            writing.close()
            locks.kin.add(self._host.pid)
        return self._control

    def _heard(self, kind: str, value: Any) -> None:
        if kind == "say":
            self._flow.say(value)
        else:
            self._finish_idle()

    def _finish_idle(self) -> None:
        """Let idle processes publish what they have built: the tasks that would do it may wait for a thread.

        A step waits for a build, and whoever made that may be one of them. It may be this process although it
        is bound to no venv: it did what a worker that could not be made was to do.
        """
        for worker in list(self._all):
            if (worker.venv or worker is self._all[0]) and worker.lock.acquire(blocking=False):
                try:
                    with suppress(VenvflowError):  # its own task will meet it
                        worker.finish()
                finally:
                    worker.lock.release()
