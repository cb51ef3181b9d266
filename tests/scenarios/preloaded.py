"""Runs doit and venvflow in forks of a process that has their modules: what starting Python costs is saved.

Each is a process of its own, in its directory and with its variables, streams and umask, as if a shell had
started it; only what Python itself reads of the variables when it starts is the same for all. Scenarios ask
for a run themselves; in a shell, programs of the same names do (:func:`programs`).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import marshal
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from importlib import metadata
from typing import IO, TextIO

import standins
from pythons import BASE

_NOT_YET = ("venvflow.tasks", "venvflow.__main__", "venvflow.compile_worker")
"""Modules that do something when they are imported."""

_AT_START = ("PYTHON", "LC_", "LANG")

_TESTS = os.path.dirname(standins.__file__)

_LARGEST = 1 << 20
"""Bytes of a request: words and variables."""

_PROGRAM = """\
#!{base} -ISE
# Asks the process at the socket to do what {real} does; does it itself with variables that Python reads.
import _socket, marshal, os, sys
words, known, at_start = [{real!r}, *sys.argv[1:]], {known!r}, {at_start!r}
if {{name: value for name, value in os.environ.items() if name.startswith(at_start)}} != known:
    os.execv({real!r}, words)
umask = os.umask(0)
os.umask(umask)
request = marshal.dumps((words, os.getcwd(), dict(os.environ), umask, False))
streams = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
link.connect({address!r})
link.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
code = int(link.recv(20))
os._exit(code if code >= 0 else 128 - code)
"""

_server: _Server | None = None


class _Server:
    """The process that has the modules, and the socket at which it listens."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.home = tempfile.mkdtemp(prefix="vf-")
        self.address = f"{self.home}/socket"
        self.known = {name: value for name, value in env.items() if name.startswith(_AT_START)}
        # Nothing of the machine that happens to be the first: its processes are found by its paths.
        own = {**self.known, "PATH": env.get("PATH", os.defpath), "PYTHONPATH": _TESTS}
        self._process = subprocess.Popen(
            [sys.executable, __file__, self.address], env=own,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def end(self) -> None:
        """Kill it, with all that it does."""
        os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:
            shutil.rmtree(self.home)


def can_run(words: list[str], env: Mapping[str, str]) -> bool:
    """Return whether this is doit or venvflow, with variables that Python does not read when it starts."""
    mine = os.path.dirname(words[0]) == os.path.dirname(sys.executable)
    known = os.path.basename(words[0]) in {"doit", "venvflow"}
    return mine and known and not any(name.startswith(_AT_START) for name in env)


def run(words: list[str], cwd: str, env: Mapping[str, str], timeout: float) -> tuple[int, bytes, bytes]:
    """Run it there, with nothing on standard input; return its exit code and what it wrote.

    :raises subprocess.TimeoutExpired: it took longer than *timeout* seconds; it was killed.
    """
    umask = os.umask(0)
    os.umask(umask)
    request = marshal.dumps((words, cwd, dict(env), umask, standins.answering()))
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        open(os.devnull, "rb") as null,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link,
    ):
        link.connect(_started(env).address)
        link.settimeout(timeout)
        socket.send_fds(link, [request], [null.fileno(), out.fileno(), err.fileno()])
        try:
            code = int(link.recv(20))
        except TimeoutError:
            _end()
            raise subprocess.TimeoutExpired(words, timeout) from None
        return code, _written(out), _written(err)


def _written(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def programs(env: Mapping[str, str]) -> str:
    """Return a directory with programs that are called doit and venvflow, for the front of a PATH.

    They do what is asked of them with the variables *env*, as far as Python reads them when it starts.
    """
    server = _started(env)
    directory = f"{server.home}/bin"
    if not os.path.exists(directory):
        os.mkdir(directory)
        for name in ("doit", "venvflow"):
            real = os.path.join(os.path.dirname(sys.executable), name)
            text = _PROGRAM.format(
                base=BASE, real=real, known=server.known, at_start=_AT_START, address=server.address
            )
            with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(file.name, 0o700)
    return directory


def _started(env: Mapping[str, str]) -> _Server:
    global _server  # noqa: PLW0603 - one for all tests
    if _server is None:
        _server = _Server(env)
        atexit.register(_end)
    return _server


def _end() -> None:
    global _server  # noqa: PLW0603
    if _server is not None:
        _server.end()
        _server = None


# --------------------------------------------------------------------------- in the process that is forked


def _serve(address: str) -> list[str]:
    """Answer requests; in each child that was forked for one, become that, and return its words."""
    import doit.__main__  # noqa: F401 - it is loaded
    from doit import plugin

    import venvflow
    from venvflow.disk import interpreters

    for module in pkgutil.walk_packages(venvflow.__path__, "venvflow."):
        if module.name not in _NOT_YET and not module.name.startswith("venvflow.pack_venv"):
            importlib.import_module(module.name)
    standins.begin()
    interpreters._answer(BASE, os.environ)
    # What doit looks for three times in each run, in all that is installed here.
    vars(plugin)["entry_points"] = metadata.entry_points().select
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(100)
    os.write(1, b"ready\n")
    while select.select([0, listener.fileno()], [], [])[0] != [0]:  # else whoever started this is no more
        link, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            words = _answer(link)
            link.close()
            return words
        link.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    os._exit(0)


def _answer(link: socket.socket) -> list[str]:
    """Fork for one request, and answer with the exit code; in the child, become what is asked for."""
    request, files, *_ = socket.recv_fds(link, _LARGEST, 3)
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(BrokenPipeError):  # whoever asked was killed
            link.send(b"%d" % code)
        os._exit(0)
    words, cwd, env, umask, answering = marshal.loads(request)  # noqa: S302 - from our own parent
    os.chdir(cwd)
    os.umask(umask)
    if not answering:
        standins.end()
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, name, _anew(getattr(sys, name)))
    return list(words)


def _anew(stream: TextIO) -> TextIO:
    """Return a stream like one that Python made when it started, for what its descriptor is now."""
    number = stream.fileno()
    return open(  # type: ignore[return-value]  # text, by its mode
        number, stream.mode, buffering=1 if stream.line_buffering else -1,
        encoding=stream.encoding, errors=stream.errors, closefd=False,
    )  # fmt: skip


def _main() -> None:
    sys.argv = _serve(sys.argv[1])
    if os.path.basename(sys.argv[0]) == "doit":
        from doit.__main__ import main
    else:
        from venvflow.__main__ import main
    try:
        code: object = main()
    except SystemExit as end:
        code = end.code
    if isinstance(code, int | None):
        _leave(code or 0)
    sys.exit(code)  # type: ignore[arg-type]


def _leave(code: int) -> None:
    """End this process as Python does, but for taking all of its modules to pieces."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.path[:2] = [os.path.dirname(sys.executable)]
    _main()
