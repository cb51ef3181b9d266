"""Canonical bytecode: ``.pyc`` files that are the same bytes in every venv, each compiled once.

A ``.pyc`` records its source's mtime and path. The mtime of our sources follows from their bytes, and we
compile under the path relative to the venv; CPython's import puts in the real one when it loads the file.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, NamedTuple, cast

import venvflow
from venvflow.errors import EnvironmentFailure, shown
from venvflow.model import Interpreter
from venvflow.postinstall import LARGEST_SOURCE
from venvflow.pure.sharing import mtime_of

DONE, FAULTY = 0, 1
"""Answers of the worker: compiled, and does not compile; anything else is an errno plus one."""
_DEAD = -1
_LONGEST_NAME = 255
_TICK = 0.2
_CRASHES = [-number for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL)]

_WORKER = os.path.join(os.path.dirname(venvflow.__file__), "compile_worker.py")


class Source(NamedTuple):
    """A source to compile: its SHA-256, its path below the venv, and the file to read it from."""

    digest: str
    path: str
    file: str


def pyc_path(source: str, cache_tag: str) -> str:
    """Return where the bytecode of the source at *source* belongs (PEP 3147)."""
    directory, name = os.path.split(source)
    return os.path.join(directory, "__pycache__", f"{name.removesuffix('.py')}.{cache_tag}.pyc")


def is_source(path: str) -> bool:
    """Return whether Python imports the file at *path* below a venv; ``lib`` may be a link to ``usr/lib``."""
    return path.endswith(".py") and path.startswith(("lib/", "usr/lib/"))


def can_be_compiled(source: str, size: int, cache_tag: str) -> bool:
    """Return whether there can be bytecode of a source of *size* bytes.

    The name of its bytecode is longer than its own, and may be none that a file can have. To compile a source
    takes about a hundred times its size in memory, so those that nobody writes are left alone.
    """
    name = os.path.basename(pyc_path(source, cache_tag))
    return size <= LARGEST_SOURCE and len(os.fsencode(name)) <= _LONGEST_NAME


def compile_sources(
    interpreter: Interpreter,
    sources: Sequence[Source],
    directory: str,
    *,
    workers: int = 2,
    progress: Callable[[int, int], object] = lambda _done, _of: None,
) -> dict[Source, str | None]:
    """Compile *sources* into *directory*; return the file of each, None if it does not compile.

    The sources are shared out among *workers* processes. The bytes depend on the interpreter, the source
    and its path below the venv alone. A source that crashes its process (the compiler can overflow the
    stack) counts as one that does not compile, and the rest go on in a new process. *progress* is called
    now and then with how many of how many are done. Raises
    EnvironmentFailure when the interpreter cannot be run or is killed, and ``OSError`` when a source
    cannot be read or its bytecode cannot be written.
    """
    todo = deque(enumerate(sources))
    results: dict[Source, str | None] = {}
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            _serve(interpreter, directory, todo, results)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failures.append(error)
            todo.clear()

    threads = [threading.Thread(target=serve) for _ in range(min(workers, len(sources) // 20 + 1))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                progress(len(results), len(sources))
                thread.join(_TICK)  # who waits for ever is not interrupted, but in the main thread
    finally:
        todo.clear()  # after Ctrl-C the threads end with what they are at
    if failures:
        raise failures[0]
    progress(len(sources), len(sources))
    return {source: results[source] for source in sources}


def _serve(
    interpreter: Interpreter,
    directory: str,
    todo: deque[tuple[int, Source]],
    results: dict[Source, str | None],
) -> None:
    """Feed worker processes, one after the other, until there is nothing to do."""
    while todo:
        with _start(interpreter, directory) as process:
            if cast("IO[bytes]", process.stdout).readline() != b"ready\n":
                raise _cannot_run(interpreter, process)
            code = DONE
            while code != _DEAD and (each := _next(todo)) is not None:
                number, source = each
                code = _ask(
                    process, json.dumps([number, source.file, source.path, mtime_of(source.digest)]) + "\n"
                )
                if code == _DEAD and process.wait() not in _CRASHES:
                    raise _cannot_run(interpreter, process)
                if code not in (DONE, FAULTY, _DEAD):
                    raise OSError(code - 1, os.strerror(code - 1), source.file)
                results[source] = os.path.join(directory, f"{number}.pyc") if code == DONE else None


def _ask(process: subprocess.Popen[bytes], line: str) -> int:
    stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    try:
        stdin.write(line.encode("ascii"))
        answer = stdout.readline()
    except BrokenPipeError:
        return _DEAD
    return int(answer) if answer.endswith(b"\n") else _DEAD


def _next(todo: deque[tuple[int, Source]]) -> tuple[int, Source] | None:
    with suppress(IndexError):  # another thread has taken the last one
        return todo.popleft()
    return None


def _start(interpreter: Interpreter, directory: str) -> subprocess.Popen[bytes]:
    # Like -I, which cannot be used: it would ignore the hash seed, which decides the order of sets.
    flags = ["-s", "-S", "-B", "-X", "utf8", "-W", "ignore"]
    command = [interpreter.executable, *flags, _WORKER, directory]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ["PYTHONHASHSEED"] = "0"
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=environ,
            start_new_session=True,  # Ctrl-C is for us; it ends when we close its input
        )
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot run {shown(interpreter.executable)}: {error.strerror}",
            state="The venv is unchanged.",
            hint="Install that interpreter again, or change python: in the config.",
        ) from error


def _cannot_run(interpreter: Interpreter, process: subprocess.Popen[bytes]) -> EnvironmentFailure:
    process.kill()
    return EnvironmentFailure(
        f"{shown(interpreter.executable)} cannot compile: it ended with status {process.wait()}",
        state="The venv is unchanged.",
        hint="Install that interpreter again, or set bytecode: none in the config.",
    )
