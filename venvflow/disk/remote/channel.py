"""The parent's side of the child process that talks to a remote.

One request is a line of JSON on the child's input, and its answers are lines on its output: words on the way
(``moved`` and ``done`` bytes, trees that are there), then one with ``done`` or ``failed``. A child that says
nothing for too long is killed: that is how a server that never answers is noticed, whatever the library does.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

Kind = Literal["denied", "absent", "unreachable", "unusable", "damaged", "local", "silent", "late"]


_HEAPS = {"MALLOC_ARENA_MAX": "2"}
"""For the C library of Linux, which gives each thread a heap of its own that keeps what was freed.

A child has some twenty threads that read large pieces: it would take half as much again."""


class ChannelFailure(Exception):
    """The remote, or what talks to it, did not do what was asked; *kind* says which part of the world it is.

    ``denied``: the credentials do not allow it. ``unreachable``, ``silent``, ``late``: the network or the
    server. ``absent``: it is not there. ``unusable``: what is asked makes no sense, or the answer does not.
    ``damaged``: an object of our store is, the text is its digest. ``local``: this machine (space, rights).
    """

    def __init__(self, kind: Kind, text: str, number: int = 0, path: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.errno = number
        self.path = path


def encoded(data: bytes) -> str:
    """Return bytes as a request has them."""
    return base64.b64encode(data).decode("ascii")


def decoded(text: str) -> bytes:
    """Return the bytes that an answer has as *text*."""
    return base64.b64decode(text)


class Channel:
    """A child for one remote, started when it is first asked for something, and killed with its parent.

    *silence* is how many seconds may pass without a byte, *limit* how many one request may take.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, str],
        environ: Mapping[str, str],
        *,
        silence: float,
        limit: float,
    ) -> None:
        self.url = url
        self._options, self._environ = dict(options), dict(environ)
        self.silence, self._limit = silence, limit
        self._child: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._mutex = threading.RLock()
        self.moved = 0

    def ask(
        self,
        do: str,
        *,
        heard: Callable[[dict[str, Any]], object] = lambda _answer: None,
        within: float = float("inf"),
        **request: Any,
    ) -> Any:
        """Let the child *do* something; return what it answers. *heard* is told of the words on the way.

        *within* may be fewer seconds than the limit of all requests. Raises ChannelFailure.
        """
        with self._mutex:
            deadline = time.monotonic() + min(self._limit, max(within, 0.0))
            try:
                if self._child is None:
                    self._start()
                    self._ask({"do": "open", "url": self.url, "options": self._options}, deadline, heard)
                return self._ask({"do": do, **request}, deadline, heard)
            except BaseException as error:
                if not isinstance(error, ChannelFailure) or error.kind not in ("absent", "damaged"):
                    self.close()
                raise

    def close(self) -> None:
        """Kill the child; the next request starts another."""
        with self._mutex:
            child, self._child = self._child, None
            if child is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._rest = b""

    def _start(self) -> None:
        # Not by fork alone: what a library keeps of threads and sockets must not be in two processes.
        self._child = subprocess.Popen(
            [sys.executable, "-X", "utf8", "-m", "venvflow.disk.remote.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=_HEAPS | self._environ,
            bufsize=0,
        )

    def _ask(
        self, request: Mapping[str, Any], deadline: float, heard: Callable[[dict[str, Any]], object]
    ) -> Any:
        assert self._child is not None  # noqa: S101 - it was started above
        assert self._child.stdin is not None  # noqa: S101 - it has a pipe
        try:
            _write_all(self._child.stdin.fileno(), json.dumps(request).encode("ascii") + b"\n")
        except BrokenPipeError as error:
            raise ChannelFailure("unusable", self._ended()) from error
        for answer in self._answers(deadline):
            self.moved = answer.get("moved", self.moved)
            if "failed" in answer:
                raise ChannelFailure(
                    answer["failed"], answer["text"], answer.get("errno") or 0, answer.get("path", "")
                )
            if "done" in answer and isinstance(answer["done"], dict):
                return answer["done"]
            heard(answer)
        raise ChannelFailure("unusable", self._ended())

    def _answers(self, deadline: float) -> Iterator[dict[str, Any]]:
        """Yield what the child says until it ends; raises ChannelFailure when it is silent for too long."""
        assert self._child is not None  # noqa: S101 - see _ask
        assert self._child.stdout is not None  # noqa: S101 - see _ask
        output = self._child.stdout.fileno()
        while True:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                yield json.loads(line)
            now = time.monotonic()
            patience = min(self.silence, deadline - now)
            if not select.select([output], [], [], max(0.0, patience))[0]:
                if deadline - now <= self.silence:
                    raise ChannelFailure("late", "it took longer than it may")
                raise ChannelFailure("silent", f"no byte came for {self.silence:g} s")
            chunk = os.read(output, 1 << 16)
            if not chunk:
                return
            self._rest += chunk

    def _ended(self) -> str:
        assert self._child is not None  # noqa: S101 - see _ask
        try:
            status: int | str = self._child.wait(1)
        except subprocess.TimeoutExpired:
            status = "unknown"
        return f"the process that talks to it ended by itself, with status {status}"


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
