"""Runs doit and venvflow in forks of a process that has their modules: what starting Python costs is saved.

Each is a process of its own, in its directory and with its variables, streams and umask, as if a shell had
started it; only what Python itself reads of the variables when it starts is the same for all.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import IO, Any

_NOT_YET = ("venvflow.tasks", "venvflow.__main__", "venvflow.compile_worker")
"""Modules that do something when they are imported."""

_AT_START = ("PYTHON", "LC_", "LANG")

_server: subprocess.Popen[bytes] | None = None


def can_run(words: list[str], env: Mapping[str, str]) -> bool:
    """Return whether this is doit or venvflow, with variables that Python does not read when it starts."""
    mine = os.path.dirname(words[0]) == os.path.dirname(sys.executable)
    known = os.path.basename(words[0]) in {"doit", "venvflow"}
    return mine and known and not any(name.startswith(_AT_START) for name in env)


def run(words: list[str], cwd: str, env: Mapping[str, str], timeout: float) -> tuple[int, bytes, bytes]:
    """Run it there, with nothing on standard input; return its exit code and what it wrote.

    :raises subprocess.TimeoutExpired: it took longer than *timeout* seconds; it was killed.
    """
    server = _started(env)
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        umask = os.umask(0)
        os.umask(umask)
        request = {
            "words": words,
            "cwd": cwd,
            "env": dict(env),
            "umask": umask,
            "out": out.name,
            "err": err.name,
        }
        server.stdin.write(json.dumps(request).encode("ascii") + b"\n")
        if not select.select([server.stdout], [], [], timeout)[0]:
            _end()
            raise subprocess.TimeoutExpired(words, timeout)
        return int(server.stdout.readline()), out.read(), err.read()


def _started(env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    global _server  # noqa: PLW0603 - one for all tests
    if _server is None:
        _server = subprocess.Popen(
            [sys.executable, __file__], env=env, bufsize=0, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(_end)
    return _server


def _end() -> None:
    global _server  # noqa: PLW0603
    if _server is not None:
        os.killpg(_server.pid, signal.SIGKILL)
        with _server:
            _server = None


# --------------------------------------------------------------------------- in the process that is forked


def _serve() -> dict[str, Any]:
    """Answer requests; in each child that was forked for one, return it."""
    import venvflow

    for module in pkgutil.walk_packages(venvflow.__path__, "venvflow."):
        if module.name not in _NOT_YET and not module.name.startswith("venvflow.pack_venv"):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
    requests: IO[bytes] = os.fdopen(0, "rb", buffering=0, closefd=False)
    while line := requests.readline():
        pid = os.fork()
        if pid == 0:
            request: dict[str, Any] = json.loads(line)
            return request
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(1, b"%d\n" % code)
    sys.exit()


def _become(request: dict[str, Any]) -> None:
    """Make this process what it would be if it had been started for this."""
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    files = (
        os.open(os.devnull, os.O_RDONLY),
        *(os.open(request[name], os.O_WRONLY | os.O_APPEND) for name in ("out", "err")),
    )
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.argv = request["words"]


def _main() -> None:
    _become(_serve())
    if os.path.basename(sys.argv[0]) == "doit":
        from doit.__main__ import main
    else:
        from venvflow.__main__ import main
    sys.exit(main())


if __name__ == "__main__":
    sys.path[0] = os.path.dirname(sys.executable)
    _main()
