"""Deletes a directory in a process that outlives this one, because nobody needs to wait for it.

A replaced venv has thousands of directories, and each ``rmdir`` may wait for the journal of the file system.
The process is told the directory by a descriptor, with which it also inherits the lock on it: while that is
held, everybody sees that somebody is at work. If the process is killed, the lock is free, and what is left is
deleted by the next run.

Where this stops being safe: a system that ends all processes with the one that it waits for (a container, a
CI job) leaves the rest of the directory there.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from venvflow.disk.directories import remove_opened

_CODE = f"""\
import os, sys
if os.fork():
    os._exit(0)
sys.path.insert(0, sys.argv[1])
from {__name__} import main
main()
"""
"""Whoever started it waits for it until it leaves its work to a copy, and that is before it imports much."""

_FIRST, _LAST = 3, 256
"""Descriptors of the process, but for standard streams: what it inherits by chance would keep pipes open."""


def remove_later(name: str, fd: int, parent: int, mark: str) -> bool:
    """Delete the directory *name*, open as *fd*, in the directory *parent*, its file *mark* last, some time.

    Return False where no process can be started for it.
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # Isolated, and without site: neither the user's variables nor what is installed slow it down.
    theirs = [number for number in range(_FIRST, _LAST) if number not in (fd, parent)][:2]
    argv = [sys.executable, "-I", "-S", "-c", _CODE, root, name, mark, *map(str, theirs)]
    try:
        child = os.posix_spawn(
            sys.executable,
            argv,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, fd, theirs[0]),
                (os.POSIX_SPAWN_DUP2, parent, theirs[1]),
                *((os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(_FIRST)),
            ],
        )
    except (OSError, ValueError, NotImplementedError):
        return False
    return os.waitpid(child, 0)[1] == 0


def main() -> None:
    """Delete what the descriptors and the words of the command say."""
    os.setsid()  # Ctrl-C, and the end of the terminal, are not for it
    os.chdir("/")
    name, mark, *numbers = sys.argv[2:]
    fd, parent = map(int, numbers)
    for number in {*range(_FIRST, _LAST)} - {fd, parent}:
        with suppress(OSError):
            os.close(number)
    try:
        remove_opened(name, fd, parent, [mark])
    except OSError:
        os._exit(1)  # the next run meets the same error, and says so
