"""Every command called in a forked child, with streams, terminal and user as a test wants them.

A fork has everything imported: hundreds of calls take the time of a few processes.
"""

from __future__ import annotations

import fcntl
import importlib
import io
import os
import pkgutil
import pty
import re
import shutil
import signal
import struct
import sys
import tempfile
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from contents import fork
from json_schemas import check_answer

import venvflow.cli
from venvflow.cli import main

if TYPE_CHECKING:
    from cli_project import Project

for _command in pkgutil.iter_modules(venvflow.cli.__path__, "venvflow.cli."):
    importlib.import_module(_command.name)  # once here, not in each fork

CALLS = {
    "init": "init --check ../fresh",
    "status": "status",
    "build": "build api",
    "restore": "restore api",
    "store": "store api",
    "squish": "squish api --dry-run",
    "verify": "verify --full",
    "stats": "stats",
    "history": "history",
    "report": "report -o ../report.html --force",
    "pack": "pack api -o ../out/",
    "unpack": "unpack ../api.tar ../unpacked",
    "export": "export api ../exported",
    "list": "list",
    "erase": "erase",
    "trim": "trim --dry-run",
    "schema": "schema",
    "version": "version",
    "explain": "explain api",
    "diff": "diff api web",
    "doctor": "doctor",
    "completion": "completion bash",
    "hook": "hook remove",
    "keygen": "keygen main",
    "unsquish": "unsquish api",
}
"""A call of every command that has something to answer in the project ``ready``; the last one takes
the venv out of the store. ``run`` has not: it becomes another program. ``pull``
and ``push`` need a remote, and answer as ``restore`` and ``store`` do."""


class Said(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


def again(project: Project) -> None:
    """Take away what a call made, for the next one."""
    for name in ("out", "unpacked", "exported"):
        shutil.rmtree(project.root.parent / name, ignore_errors=True)


def forked(
    words: str,
    *,
    stdout: int | None = None,
    stdin: int | None = None,
    encoding: str = "utf-8",
    first: Callable[[], object] = lambda: None,
) -> Said:
    """Run *words* in a forked child, after *first*; without *stdout* its output is kept.

    A fork has everything imported: hundreds of calls take the time of a few.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = fork(os.fork)
        if pid == 0:
            code = 99
            try:
                os.dup2(out.fileno() if stdout is None else stdout, 1)
                os.dup2(err.fileno(), 2)
                if stdin is not None:
                    os.dup2(stdin, 0)
                sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding)  # noqa: SIM115
                sys.stderr = io.TextIOWrapper(open(2, "wb", 0, closefd=False), encoding, write_through=True)  # noqa: SIM115
                signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as a shell starts a command
                first()
                code = main(words.split())
                sys.stdout.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = [(file.seek(0), file.read().decode(encoding))[1] for file in (out, err)]
    assert "Traceback" not in texts[1], texts[1]
    check_answer(words.split(), texts[0])
    return Said(code, *texts)


def on_terminal(words: str, *, columns: int) -> str:
    """Run *words* in a forked child on a terminal of so many *columns*; return all that appeared there."""
    pid, fd = fork(pty.fork)
    if pid == 0:
        code = 99
        try:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            os.environ.pop("COLUMNS", None)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - the child ends below
            sys.stderr = open(2, "w", 1, closefd=False)  # noqa: SIM115
            code = main(words.split())
            sys.stdout.flush()
        finally:
            os._exit(code)
    shown = b""
    with suppress(OSError):  # the terminal is gone when the child is
        while chunk := os.read(fd, 1 << 16):
            shown += chunk
    os.close(fd)
    os.waitpid(pid, 0)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")
