"""Canonical bytecode: ``.pyc`` files that are the same bytes in every venv, each compiled once.

A ``.pyc`` records its source's mtime and path. The mtime of our sources follows from their bytes, and we
compile under the path relative to the venv; CPython's import puts in the real one when it loads the file.
"""

from __future__ import annotations

import io
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
from venvflow.disk.descriptors import open_directory
from venvflow.disk.kernel import cores
from venvflow.disk.scan import Changing
from venvflow.errors import EnvironmentFailure, shown
from venvflow.model import Interpreter
from venvflow.postinstall import LARGEST_SOURCE
from venvflow.pure.sharing import mtime_of

DONE, FAULTY, CHANGED = 0, 1, -1
"""Answers of the worker: compiled, does not compile, has other bytes; anything else is an errno plus one."""
_AHEAD = 16
"""Sources that a worker is told of before it has answered: it never waits for us, who may be busy."""
_MOST = 8
"""Processes that compile at once, however many cores there are: each takes tens of megabytes."""
_LONGEST_NAME = 255
_TICK = 0.2
_CRASHES = [-number for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL)]

_WORKER = os.path.join(os.path.dirname(venvflow.__file__), "compile_worker.py")


class Source(NamedTuple):
    """A source to compile: its SHA-256, its path below the venv, and the file to read it from.

    A *filled* file was made of the template that has this SHA-256, so that its own is another.
    """

    digest: str
    path: str
    file: str
    filled: bool = False


class Bytecode(NamedTuple):
    """Bytecode that was made: the path of its *file*, its SHA-256, and its size in bytes."""

    file: str
    digest: str
    size: int


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
    workers: int = 0,
    progress: Callable[[int, int], object] = lambda _done, _of: None,
) -> dict[Source, Bytecode | None]:
    """Compile *sources* into *directory*; return what was made of each, None if it does not compile.

    *progress* is called now and then with how many of how many are done. Raises as :meth:`Compiling.result`.
    """
    with Compiling(interpreter, sources, directory, workers=workers) as compiling:
        return compiling.result(progress)


class Compiling:
    """Compiles *sources* into *directory* while its caller does something else; for a ``with`` statement.

    They are shared out among *workers* processes (0: one for each core that this process may use, but no more
    than :data:`_MOST`), the first ones first. The bytes depend on the interpreter,
    the source and its path below the venv alone. A source that crashes its process (the compiler can overflow
    the stack) counts as one that does not compile, and the rest go on in a new process. When the block fails,
    the processes are killed, and nothing more is written when it has ended.

    The files of sources may be named below the directory *home*, which may get another name meanwhile.
    """

    def __init__(
        self,
        interpreter: Interpreter,
        sources: Sequence[Source],
        directory: str,
        *,
        workers: int = 0,
        home: str | None = None,
    ) -> None:
        self._interpreter = interpreter
        self._home_path = home
        self._home: int | None = None
        self._sources = sources
        self._directory = directory
        self._todo = deque(enumerate(sources))
        self._made: dict[Source, Bytecode | None] = {}
        self._failures: list[BaseException] = []
        self._running: list[subprocess.Popen[bytes]] = []
        self._stopped = False
        count = min(workers or min(cores(), _MOST), len(sources) // 20 + 1) if sources else 0
        self._threads = [threading.Thread(target=self._work) for _ in range(count)]

    def __enter__(self) -> Compiling:
        """Begin. Raises ``OSError`` if the directory of the sources cannot be opened."""
        if self._home_path is not None:
            self._home = open_directory(self._home_path)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the end, which comes at once if the block failed."""
        if kind is not None:
            self._stop()
        for thread in self._threads:
            thread.join()
        if self._home is not None:
            os.close(self._home)

    def result(
        self, progress: Callable[[int, int], object] = lambda _done, _of: None
    ) -> dict[Source, Bytecode | None]:
        """Wait until all is compiled; return what was made of each source, None if it does not compile.

        *progress* is called now and then with how many of how many are done. Raises EnvironmentFailure when
        the interpreter cannot be run or is killed, :class:`venvflow.disk.scan.Changing` when a source has
        other bytes, and ``OSError`` when one cannot be read or its bytecode cannot be written.
        """
        for thread in self._threads:
            while thread.is_alive():
                progress(len(self._made), len(self._sources))
                thread.join(_TICK)  # who waits for ever is not interrupted, but in the main thread
        if self._failures:
            raise self._failures[0]
        progress(len(self._sources), len(self._sources))
        return {source: self._made[source] for source in self._sources}

    def _stop(self) -> None:
        self._stopped = True
        self._todo.clear()
        for process in [*self._running]:
            process.kill()

    def _work(self) -> None:
        """Feed worker processes, one after the other, until there is nothing to do."""
        try:
            while self._todo:
                with _start(self._interpreter, self._directory, self._home) as process:
                    self._running.append(process)
                    try:
                        self._feed(process)
                    except BaseException:
                        process.kill()
                        raise
                    finally:
                        self._running.remove(process)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._failures.append(error)
            self._todo.clear()

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        """Let a worker compile what there is to do, until there is nothing, or a source crashes it."""
        answers = cast("IO[bytes]", process.stdout)
        if self._stopped or answers.readline() != b"ready\n":
            raise _cannot_run(self._interpreter, process)
        asked: deque[tuple[int, Source]] = deque()
        while self._ask(process, asked):
            answer = answers.readline()
            if not answer.endswith(b"\n"):
                if process.wait() not in _CRASHES:
                    raise _cannot_run(self._interpreter, process)
                self._made[asked.popleft()[1]] = None
                self._todo.extendleft(reversed(asked))
                return
            number, source = asked.popleft()
            self._made[source] = self._said(number, source, answer.split())

    def _ask(self, process: subprocess.Popen[bytes], asked: deque[tuple[int, Source]]) -> bool:
        """Tell a worker of what it is to do next; return whether there is something that it was *asked*."""
        lines = []
        while len(asked) < _AHEAD and (each := _next(self._todo)) is not None:
            asked.append(each)
            lines.append(_line(*each))
        with suppress(BrokenPipeError):  # it crashed, and what it has said before is still to be read
            cast("IO[bytes]", process.stdin).write("".join(lines).encode("ascii"))
        return bool(asked)

    def _said(self, number: int, source: Source, words: list[bytes]) -> Bytecode | None:
        code = int(words[0])
        if code == CHANGED:
            raise Changing(source.file)
        if code not in (DONE, FAULTY):
            raise OSError(code - 1, os.strerror(code - 1), source.file)
        if code == FAULTY:
            return None
        return Bytecode(
            os.path.join(self._directory, f"{number}.pyc"), words[1].decode("ascii"), int(words[2])
        )


def _line(number: int, source: Source) -> str:
    """Return how a worker is told of a source."""
    digest = "" if source.filled else source.digest
    return json.dumps([number, source.file, digest, source.path, mtime_of(source.digest)]) + "\n"


def _next(todo: deque[tuple[int, Source]]) -> tuple[int, Source] | None:
    with suppress(IndexError):  # another thread has taken the last one
        return todo.popleft()
    return None


def _start(interpreter: Interpreter, directory: str, home: int | None) -> subprocess.Popen[bytes]:
    # Like -I, which cannot be used: it would ignore the hash seed, which decides the order of sets.
    flags = ["-s", "-S", "-B", "-X", "utf8", "-W", "ignore"]
    inherited = [] if home is None else [home]
    command = [interpreter.executable, *flags, _WORKER, directory, *map(str, inherited)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ["PYTHONHASHSEED"] = "0"
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=environ,
            pass_fds=inherited,
            start_new_session=True,  # Ctrl-C is for us; it ends when we close its input
        )
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot run {shown(interpreter.executable)}: {error.strerror}",
            state="Every file of the venv holds what it held.",
            hint="Install that interpreter again, or change python: in the config.",
        ) from error
    process.stdout = io.BufferedReader(cast("io.FileIO", process.stdout))  # else each byte is read by itself
    return process


def _cannot_run(interpreter: Interpreter, process: subprocess.Popen[bytes]) -> EnvironmentFailure:
    process.kill()
    return EnvironmentFailure(
        f"{shown(interpreter.executable)} cannot compile: it ended with status {process.wait()}",
        state="Every file of the venv holds what it held.",
        hint="Install that interpreter again, or set bytecode: none in the config.",
    )
