"""What ends our children when this process is killed: by ``kill -9``, or for want of memory.

A process that is killed can do nothing, and what it started goes on: a builder would go on writing, and keep
the locks that it was given. So a shell of a few lines waits beside us. It reads, from a pipe that only we
write to, which process groups there are; when the pipe ends, we are gone, and it ends them.

Where this stops being safe: where there is no ``/bin/sh``, if the shell is killed as well, and for a child
that was started less than a millisecond before. Then the child goes on, and who has to wait for it names it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable

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


class _Warden:
    """The shell of this process; a forked copy of the process has none, until it needs one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pipe = -1

    def forget(self) -> None:
        """Leave the shell to the process that this one is a copy of."""
        self.lock = threading.Lock()
        if self.pipe >= 0:
            os.close(self.pipe)
        self.pipe = -1


_warden = _Warden()
os.register_at_fork(after_in_child=_warden.forget)


def guard(groups: Iterable[int]) -> None:
    """Let *groups* be ended when this process is gone, and no others. The first call starts the shell."""
    with _warden.lock:
        line = " ".join(f"-{group}" for group in sorted(groups))
        with contextlib.suppress(OSError, NotImplementedError):  # see the top of this module
            if _warden.pipe < 0:
                _warden.pipe = _started()
            os.write(_warden.pipe, f"{line}\n".encode("ascii"))


def _started() -> int:
    """Start the shell, and return the descriptor that it reads from the other end of."""
    reading, writing = os.pipe()
    try:
        os.posix_spawn(
            _SHELL,
            [_SHELL, "-c", _SCRIPT, "venvflow-warden"],
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
