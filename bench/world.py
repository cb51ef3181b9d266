"""The world of one benchmark run: its directory, the environment of its children, and how they are run.

Nothing of the user's is used: store, uv's cache and all projects lie in the work directory. What a run made
is moved aside, not deleted, until the end: on ext4, making directories is slow for some seconds after
many were deleted. What costs minutes to make is kept for the next run, for as long as no line of the code
changes (:meth:`World.kept`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pstats
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from io import StringIO
from typing import IO, Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""Where the project lies: lock files and results are found from here."""

WORK_DIR = os.path.join(ROOT, "build", "bench")
"""The default work directory: on the project's file system, ignored by git, kept for its warm uv cache."""

_FOREIGN = (
    "CI", "VENVFLOW_", "VIRTUAL_ENV", "DOIT_", "UV_CACHE_DIR", "UV_LINK_MODE", "UV_COMPILE", "PYTHON", "AWS_",
)  # fmt: skip
"""Variables (by their beginning) that would change what is measured; children do not get them."""


class CommandFailed(Exception):
    """A command of the benchmark ended with an error; its last output is in the text."""


class Unavailable(Exception):
    """Something that a line of the table needs is not installed; the text is the reason to print."""


class World:
    """One run of the benchmark in *work_dir*; *quick* asks for small inputs, *profile* for profiles.

    *pairs* is how many times each pair is measured, when the usual number does not do. What takes long is
    measured *few_rounds* times: as often, but for quick runs. *main* is the lock file of the venv that rows
    about one venv measure.
    """

    def __init__(
        self, work_dir: str, *, quick: bool, profile: bool, pairs: int | None = None, main: str | None = None
    ) -> None:
        self.work_dir = os.path.realpath(work_dir)
        self.quick = quick
        self.main = main or ("small" if quick else "data")
        self.rounds = pairs or (3 if quick else 5)
        self.few_rounds = max(1, self.rounds // 3) if quick else self.rounds
        self.profiling = profile
        self.profiles: dict[str, str] = {}
        self.run_dir = os.path.join(self.work_dir, f"run-{os.getpid()}")
        self._inputs_dir = ""
        self.environ = child_environment(os.environ, os.path.join(self.work_dir, "uv-cache"))
        self._aside = 0

    @cached_property
    def uv(self) -> str:
        """Return the path of uv; raises Unavailable."""
        return self.tool("uv")

    def tool(self, name: str) -> str:
        """Return the path of a program; raises Unavailable."""
        found = shutil.which(name, path=self.environ["PATH"])
        if found is None:
            raise Unavailable(f"{name} is not installed")
        return found

    @contextmanager
    def opened(self) -> Iterator[World]:
        """Make the run's directory, and delete it, with all that was moved aside, when the run is over.

        Inputs that are kept belong to one run at a time; another one at the same time makes its own.
        """
        os.makedirs(self.run_dir)
        with open(os.path.join(self.work_dir, "inputs.lock"), "w", encoding="ascii") as lock:
            try:
                if _is_ours(lock):
                    self._open_inputs()
                else:
                    self.say("another run uses the kept inputs: this one makes its own")
                yield self
            finally:
                self.say("deleting what the run made")
                shutil.rmtree(self.run_dir)

    def _open_inputs(self) -> None:
        """Find the inputs that this code made; delete those of other code, and what killed runs left."""
        current = f"inputs-{fingerprint()[:16]}"
        for name in os.listdir(self.work_dir):
            if (name.startswith("inputs-") and name != current) or _is_left_over(name):
                self.say(f"deleting {name}")
                shutil.rmtree(os.path.join(self.work_dir, name))
        self._inputs_dir = os.path.join(self.work_dir, current)
        os.makedirs(self._inputs_dir, exist_ok=True)

    def kept(self, name: str) -> str:
        """Return where an input of that name lies that further runs use, too; it may not be there yet."""
        return os.path.join(self._inputs_dir or self.run_dir, name)

    def say(self, text: str) -> None:
        """Tell what is going on."""
        print(f"  {text}", file=sys.stderr, flush=True)

    def path(self, *names: str) -> str:
        """Return a path in the run's directory."""
        return os.path.join(self.run_dir, *names)

    def run(
        self,
        argv: Sequence[str],
        cwd: str | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (0,),
    ) -> str:
        """Run a command to its end and return what it said; raises CommandFailed."""
        done = subprocess.run(
            argv, cwd=cwd or self.run_dir, env=self.environ | dict(settings or {}), check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        if done.returncode not in accept:
            raise CommandFailed(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
        return done.stdout

    def timed(self, *commands: Sequence[str], cwd: str, settings: Mapping[str, str] | None = None) -> float:
        """Return the seconds that the commands take, one after the other, as whole processes.

        What earlier runs wrote is flushed first, so that nobody pays for another's writes.
        """
        os.sync()
        start = time.perf_counter()
        for argv in commands:
            self.run(argv, cwd, settings=settings)
        return time.perf_counter() - start

    def put_aside(self, path: str) -> None:
        """Move what is at *path*, if anything, to where it is deleted at the end of the run."""
        with suppress(FileNotFoundError):
            os.makedirs(self.path("aside"), exist_ok=True)
            self._aside += 1
            os.rename(path, self.path("aside", str(self._aside)))

    def venvflow(self, *words: str) -> list[str]:
        """Return the command that runs venvflow, by the interpreter that runs the benchmark."""
        return [sys.executable, "-m", "venvflow", *words]

    def lock_file(self, name: str) -> str:
        """Return the path of a lock file that ships with the project or with the benchmark."""
        for directory in ("config/locks", "bench/locks"):
            path = os.path.join(ROOT, directory, f"{name}.txt")
            if os.path.exists(path):
                return path
        raise Unavailable(f"there is no {name}.txt in config/locks or bench/locks")

    def profile(
        self, title: str, argv: Sequence[str], cwd: str, *, settings: Mapping[str, str] | None = None
    ) -> None:
        """Run ``python -m …`` once more under cProfile, if profiles are wanted, and keep the top of it."""
        if not self.profiling:
            return
        output = self.path("profile")
        python, option, *rest = argv
        assert option == "-m"
        self.run([python, "-m", "cProfile", "-o", output, "-m", *rest], cwd, settings=settings)
        text = StringIO()
        stats: Any = pstats.Stats(output, stream=text)
        stats.strip_dirs().sort_stats("tottime").print_stats(15)
        self.profiles[title] = text.getvalue().strip()


def fingerprint() -> str:
    """Return a hash of all that decides what an input is: our code, the benchmark's, locks, the interpreter.

    It stands for a measurement, too: one by other code is another one.
    """
    hashed = hashlib.sha256(sys.version.encode())
    for top in ("venvflow", "bench", "config/locks"):
        for directory, below, names in os.walk(os.path.join(ROOT, top)):
            below[:] = sorted(set(below) - {"__pycache__", "results"})
            for name in sorted(names):
                path = os.path.join(directory, name)
                with open(path, "rb") as file:
                    hashed.update(os.path.relpath(path, ROOT).encode() + b"\0" + file.read())
    return hashed.hexdigest()


def _is_ours(lock: IO[str]) -> bool:
    """Take the lock for as long as the file is open; return whether nobody else has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_left_over(name: str) -> bool:
    """Return whether a directory of that name is of a run whose process is no more."""
    number = name.removeprefix("run-")
    if not name.startswith("run-") or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # somebody else's process: it is alive
    return False


def child_environment(environ: Mapping[str, str], uv_cache: str) -> dict[str, str]:
    """Return the environment of children: without what would bend the measurement, this Python's tools first.

    PYTHONDONTWRITEBYTECODE is among what is left out: with it, nothing would ever be compiled.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith(_FOREIGN)}
    tools = os.path.dirname(os.path.abspath(sys.executable))
    return kept | {
        "PATH": os.pathsep.join((tools, environ.get("PATH", os.defpath))),
        "UV_CACHE_DIR": uv_cache,
        "UV_NO_PROGRESS": "1",
    }
