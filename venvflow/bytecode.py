"""Canonical bytecode: ``.pyc`` files that are the same bytes in every venv, each compiled once.

A ``.pyc`` records its source's mtime and path. All our sources carry one constant mtime, and we compile
under the path relative to the venv; CPython's import replaces that by the real one when it loads the file.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from typing import IO, NamedTuple, cast

from venvflow.errors import EnvironmentFailure, shown
from venvflow.model import CONSTANT_MTIME, Interpreter

_WORKER = os.path.join(os.path.dirname(__file__), "compile_worker.py")


class Source(NamedTuple):
    """A source to compile: its SHA-256, its path below the venv, and the file to read it from."""

    digest: str
    path: str
    file: str


def pyc_path(source: str, cache_tag: str) -> str:
    """Return where the bytecode of the source at *source* belongs (PEP 3147)."""
    directory, name = os.path.split(source)
    return os.path.join(directory, "__pycache__", f"{name.removesuffix('.py')}.{cache_tag}.pyc")


def compile_sources(
    interpreter: Interpreter, sources: Sequence[Source], directory: str, *, workers: int = 2
) -> dict[Source, str | None]:
    """Compile *sources* into *directory*; return the file of each, None if it does not compile.

    The sources are shared out among *workers* processes. A source that kills its process (the compiler
    can overflow the stack) counts as one that does not compile, and the rest go on in a new process.
    Raises EnvironmentFailure when the interpreter cannot be run at all.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(sources)):
        todo.put(number)
    results: dict[Source, str | None] = {}
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            while not todo.empty() and not failures:
                _serve_one_process(interpreter, sources, directory, todo, results)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failures.append(error)

    threads = [threading.Thread(target=serve) for _ in range(max(1, min(workers, len(sources) // 20 + 1)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


def _serve_one_process(
    interpreter: Interpreter,
    sources: Sequence[Source],
    directory: str,
    todo: queue.SimpleQueue[int],
    results: dict[Source, str | None],
) -> None:
    """Feed one worker process until there is nothing to do, or until it dies."""
    with _start(interpreter, directory) as process:
        stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        answered = 0
        while (number := _next(todo)) is not None:
            source = sources[number]
            line = json.dumps([number, source.file, source.path]) + "\n"
            try:
                stdin.write(line.encode("ascii"))
                answer = stdout.readline()
            except BrokenPipeError:
                answer = b""
            if not answer and not answered:
                raise _cannot_run(interpreter, process)
            answered += 1
            compiled = bool(answer) and json.loads(answer)[1]
            results[source] = os.path.join(directory, f"{number}.pyc") if compiled else None
            if not answer:
                return
        stdin.close()


def _next(todo: queue.SimpleQueue[int]) -> int | None:
    try:
        return todo.get_nowait()
    except queue.Empty:
        return None


def _start(interpreter: Interpreter, directory: str) -> subprocess.Popen[bytes]:
    command = [
        interpreter.executable,
        "-I",
        "-S",
        "-B",
        "-W",
        "ignore",
        _WORKER,
        directory,
        str(CONSTANT_MTIME),
    ]
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
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
