"""Child processes: what they see, what they write, and that none is left behind.

Every child leads a session of its own, has no terminal and no input, and is ended together with all that
it started: when it is done, when it takes too long, when anything goes wrong here, and when this process is
killed. A process that starts yet another session (a daemon) escapes this, as it would escape a shell.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from venvflow.disk.uninterrupted import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

GRACE = 5.0
"""Seconds between asking a process group to end and killing it."""

_TICK = 0.1
_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 17
_CUT = " [the rest of this line is left out]"

_groups: set[int] = set()
"""The process groups of all children that run."""
os.register_at_fork(after_in_child=_groups.clear)

# --------------------------------------------------------------------------- when this process is killed

_SHELL = "/bin/sh"
_SCRIPT = """\
trap '' HUP INT
groups=
while read -r line; do groups=$line; done
test -n "$groups" || exit 0
kill -s TERM -- $groups
sleep 2
kill -s KILL -- $groups
"""
"""The last line says which groups there are. The last whole one: ``read`` fails for one without an end."""


class _Watchdog:
    """A shell beside this process that ends its children when it is killed: ``kill -9``, or no memory.

    The shell reads from a pipe that only we write to which process groups there are; when the pipe ends, we
    are gone, and it ends them. A forked copy of this process has no shell until it needs one.

    Where this stops being safe: without ``/bin/sh``, if the shell is killed as well, and for a child that was
    started less than a millisecond before. Then the child goes on, and a message about its lock names it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe = -1

    def forget(self) -> None:
        """Leave the shell to the process that this one is a copy of."""
        self._lock = threading.Lock()
        if self._pipe >= 0:
            os.close(self._pipe)
        self._pipe = -1

    def update(self) -> None:
        """Let the shell know which groups there are now; the first call starts it."""
        with self._lock:
            line = " ".join(f"-{group}" for group in sorted(_groups))
            with contextlib.suppress(OSError, NotImplementedError):  # see above
                if self._pipe < 0:
                    self._pipe = _started_shell()
                os.write(self._pipe, f"{line}\n".encode("ascii"))


_watchdog = _Watchdog()
os.register_at_fork(after_in_child=_watchdog.forget)


def _started_shell() -> int:
    """Start the shell, and return the descriptor that it reads from the other end of."""
    reading, writing = os.pipe()
    try:
        os.posix_spawn(
            _SHELL,
            [_SHELL, "-c", _SCRIPT, "venvflow-watchdog"],
            {"PATH": os.defpath},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reading, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,  # Ctrl-C is for us
        )
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    return writing


# --------------------------------------------------------------------------- running


def kill_all() -> None:
    """Kill every child of this process with all that it started; what waits for it goes on."""
    for group in list(_groups):
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)


def run(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    on_output: Callable[[bytes], None],
    cwd: str | None = None,
    inherit_fds: Sequence[int] = (),
    timeout: float | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> int:
    """Run *argv* to its end and return its exit status, or the negative number of the signal.

    *environ* is its whole environment. Output and errors arrive, mixed, at *on_output* as chunks of
    bytes. *inherit_fds* stay open in the child and in all that it starts. *timeout* is in seconds.
    *meanwhile* is called when the child has been started, and done before its output is read; what it raises
    ends the child.

    :raises OSError: the program or *cwd* is not there, or cannot be used.
    :raises TimeoutError: it ran for longer than *timeout*; it has been ended.
    :raises KeyboardInterrupt: it was interrupted; it has been ended.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    child = None
    _watchdog.update()  # it takes longer to start than to learn of the child
    reading, writing = os.pipe()
    try:
        with uninterrupted():  # until it knows the child, nobody would end it
            try:
                child = subprocess.Popen(
                    argv,
                    cwd=cwd,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=writing,
                    stderr=writing,
                    pass_fds=inherit_fds,
                    start_new_session=True,
                )
                _groups.add(child.pid)
            finally:
                os.close(writing)
            _watchdog.update()
        meanwhile()
        _pump(child, reading, on_output, deadline)
        return child.wait()
    finally:
        os.close(reading)
        if child is not None:
            try:
                _end_group(child)
            finally:
                _groups.discard(child.pid)
                _watchdog.update()


def ask(
    argv: Sequence[str], *, environ: Mapping[str, str], cwd: str | None = None, timeout: float | None = None
) -> tuple[int, str]:
    """Run *argv* to its end as :func:`run` does, and return its exit status and all that it says."""
    said = bytearray()
    status = run(argv, environ=environ, on_output=said.extend, cwd=cwd, timeout=timeout)
    return status, said.decode("utf-8", "replace")


def in_words(status: int) -> str:
    """Return what :func:`run` answered as the end of a sentence: ``ended with exit status 2``."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}" + (" (out of memory?)" if status == -signal.SIGKILL else "")


class Lines:
    """Cuts chunks of bytes into lines of text and hands each to *take*.

    A carriage return ends a line too, so that progress bars become readable. What a line has beyond 128 KiB
    is dropped, with the word that lies there.
    """

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take a chunk; a line that it only begins waits for the next one."""
        *lines, rest = re.split(rb"\r?\n|\r(?!\Z)", self._rest + chunk)
        for line in lines:
            self._hand_over(line)
        # One byte more than a line may have says that there was more.
        self._rest = rest if rest.endswith(b"\r") else rest[: _LONGEST_LINE + 1]

    def close(self) -> None:
        """Hand over what is left as a last line."""
        if self._rest:
            self._hand_over(self._rest.rstrip(b"\r"))
        self._rest = b""

    def _hand_over(self, line: bytes) -> None:
        text = line[:_LONGEST_LINE].decode("utf-8", "replace")
        if len(line) > _LONGEST_LINE:
            # Also the word at the cut: half a credential would not be recognised.
            text = "".join(text.rsplit(None, 1)[:-1]) + _CUT
        self._take(text)


def _pump(
    child: subprocess.Popen[bytes],
    reading: int,
    on_output: Callable[[bytes], None],
    deadline: float | None,
) -> None:
    """Hand over output until the child has ended.

    The end of the output is not waited for: a daemon that it left behind may hold the pipe open for ever.
    """
    is_open = True
    while True:
        ended = child.poll() is not None  # asked before the last look, so that nothing said is lost
        while is_open and _readable(reading, 0 if ended else _TICK):
            chunk = os.read(reading, _CHUNK)
            is_open = bool(chunk)
            on_output(chunk)
            _check(deadline)
        if ended:
            return
        _check(deadline)
        if not is_open:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_TICK)


def _readable(descriptor: int, seconds: float) -> bool:
    # poll, not select: select fails for descriptors from 1024 on. It counts in milliseconds.
    watch = select.poll()
    watch.register(descriptor, select.POLLIN)
    return bool(watch.poll(seconds * 1000))


def _check(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise TimeoutError


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End all that is left of the child's process group, first politely, and wait for it."""
    try:
        if _signal_group(child, signal.SIGTERM):
            deadline = time.monotonic() + GRACE
            while time.monotonic() < deadline and _signal_group(child, 0) and _has_living(child.pid):
                time.sleep(0.02)
    finally:
        # A second Ctrl-C during the wait comes here at once.
        _signal_group(child, signal.SIGKILL)
        child.wait()


def _signal_group(child: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to the child's group and say whether there still was one."""
    child.poll()  # a dead leader that nobody asked about would keep its group alive
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):  # which macOS says where only the dead are left
        return False
    return True


def _has_living(group: int) -> bool:
    """Say whether a process of *group* is more than a zombie.

    An orphan that has ended stays in its group until process 1 asks about it, which in many containers
    is late or never. Where there is no ``/proc``, the answer is yes.
    """
    try:
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return True
    for number in numbers:
        with contextlib.suppress(OSError), open(f"/proc/{number}/stat", "rb") as file:
            # "pid (name) state parent group …", and a name may hold anything.
            state, _, of_group = file.read().rpartition(b")")[2].split()[:3]
            if int(of_group) == group and state not in {b"Z", b"X"}:
                return True
    return not numbers
