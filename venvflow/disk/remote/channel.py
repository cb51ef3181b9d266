"""The parent's side of the child process that talks to a remote.

One request is a line of JSON on the child's input, and its answers are lines on its output: words on the way
(``moved`` and ``done`` bytes, trees that are there), then one with ``done`` or ``failed``. A child that says
nothing for too long is killed: that is how a server that never answers is noticed, whatever the library does.

Parcels are cut by several children at once: threads of one process would wait for each other.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        self.silence, self.limit = silence, limit
        self._child: subprocess.Popen[bytes] | None = None
        self._rest = bytearray()  # of a line that has not come whole
        self.mutex = threading.RLock()

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
        return ask_each([(self, {"do": do, **request})], heard=heard, within=within)[0]

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request to the child, which is started if there is none; raises ChannelFailure."""
        if self._child is None:
            self._start()
            request = {**request, "open": {"url": self.url, "options": self._options}}
        assert self._child is not None  # noqa: S101 - it was started
        assert self._child.stdin is not None  # noqa: S101 - it has a pipe
        try:
            _write_all(self._child.stdin.fileno(), json.dumps(request).encode("ascii") + b"\n")
        except BrokenPipeError as error:
            raise ChannelFailure("unusable", self._ended()) from error

    def hear(self) -> Iterator[dict[str, Any]]:
        """Yield what the child has said by now: words on the way, and ``done`` with the answer to a request.

        Waits if it has said nothing. Raises ChannelFailure for one that ``failed``, and when the child ended.
        """
        chunk = os.read(self.fileno(), 1 << 16)
        if not chunk:
            raise ChannelFailure("unusable", self._ended())
        self._rest += chunk
        if b"\n" not in chunk:
            return
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if "failed" in answer:
                raise ChannelFailure(
                    answer["failed"], answer["text"], answer.get("errno") or 0, answer.get("path", "")
                )
            yield answer

    def fileno(self) -> int:
        """Return the descriptor on which the child speaks."""
        assert self._child is not None  # noqa: S101 - it was sent something
        assert self._child.stdout is not None  # noqa: S101 - it has a pipe
        return self._child.stdout.fileno()

    def close(self) -> None:
        """Kill the child; the next request starts another."""
        with self.mutex:
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
            self._rest = bytearray()

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

    def _ended(self) -> str:
        assert self._child is not None  # noqa: S101 - see _ask
        try:
            status: int | str = self._child.wait(1)
        except subprocess.TimeoutExpired:
            status = "unknown"
        return f"the process that talks to it ended by itself, with status {status}"


def ask_each(
    requests: Sequence[tuple[Channel, Mapping[str, Any]]],
    *,
    heard: Callable[[dict[str, Any]], object] = lambda _answer: None,
    within: float = float("inf"),
) -> list[Any]:
    """Let each child do what it is asked, all at the same time; return their answers, as :meth:`Channel.ask`.

    They are silent when all of them are. Raises ChannelFailure: what the first one failed with ends them all.
    """
    channels = [channel for channel, _ in requests]
    with contextlib.ExitStack() as held:
        for channel in channels:
            held.enter_context(channel.mutex)
        deadline = time.monotonic() + max(0.0, min(within, *(channel.limit for channel in channels)))
        answers: dict[Channel, Any] = {}
        try:
            for channel, request in requests:
                channel.send(request)
            while busy := [channel for channel in channels if channel not in answers]:
                for channel in _wait_for_word(busy, deadline):
                    for answer in channel.hear():
                        if isinstance(answer.get("done"), dict):
                            answers[channel] = answer["done"]
                        else:
                            heard(answer)
        except BaseException as error:
            # Who only found that something is not there can go on, if he was asked alone.
            harmless = isinstance(error, ChannelFailure) and error.kind in ("absent", "damaged")
            if not harmless or len(channels) > 1:
                for channel in channels:
                    channel.close()
            raise
        return [answers[channel] for channel in channels]


def _wait_for_word(channels: Sequence[Channel], deadline: float) -> list[Channel]:
    """Return those that have something to say; raises ChannelFailure when all are silent for too long."""
    left = deadline - time.monotonic()
    silence = max(channel.silence for channel in channels)
    ready = select.select(channels, [], [], max(0.0, min(silence, left)))[0]
    if ready:
        return ready
    if left <= silence:
        raise ChannelFailure("late", "it took longer than it may: see store.remote.limit")
    raise ChannelFailure("silent", f"no byte came for {silence:g} s: see store.remote.silence")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
