"""Building a venv with the tool that its lock files ask for: uv, pip, poetry, pdm, pipenv, or commands.

:func:`choose` decides, without running anything, which tool and which commands; :func:`build` runs them
into a staging directory. The commands of a :class:`Plan` are templates, the same in every checkout, for
they are a part of the venv's key. Placeholders in their words:

``{venv}``
    the directory to build
``{python}``
    the base interpreter
``{project}``
    the project root
``{lock}``, ``{locks}``
    the first lock file; all of them (the word is repeated for each)
``{uv}``, ``{poetry}``, ``{pdm}``, ``{pipenv}``
    the path of the tool
``{pip}``
    the words that run pip for the new venv

What is installed is what the lock files name, and nothing more: neither builder of requirements files adds
dependencies that no lock file names. Missing ones are reported as warnings of :class:`Built`.
Relative paths in requirements files (``-e ./pkg``) are relative to the file's directory, for uv and pip.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from venvflow.disk.blame import failure, mount_of, room
from venvflow.disk.descriptors import SAFE
from venvflow.disk.files import read_small
from venvflow.errors import BuildFailed, EnvironmentFailure, UsageError, legible, shown
from venvflow.pure.redaction import redact_words, redactor, secrets_in, secrets_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from venvflow.disk.scratch import Workplace
    from venvflow.model import Interpreter, VenvSpec

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

TAIL = 50
"""How many of the builder's last lines an error shows."""

_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a venv will be built. *commands* are templates; *inputs* absolute paths of what else is read.

    *name* is the builder. *inputs* are files that decide what is installed besides the locks, so that
    they belong in the key. *audit* is a command that reports missing dependencies and decides nothing.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    inputs: tuple[str, ...] = ()
    audit: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """A venv to be built: *spec* by *plan* from *interpreter* at *staging*.

    *staging* is absolute and does not exist, but its parent does. *root* is the project root. *log_path* is
    overwritten. *inherit_fds* stay open in everything that the builder starts: an orphan goes on holding
    the lock whose descriptor it was given.
    """

    spec: VenvSpec
    plan: Plan
    root: str
    staging: str
    interpreter: Interpreter
    environ: Mapping[str, str]
    log_path: str
    inherit_fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Built:
    """A venv that was built and runs. *commands* were run (without credentials), *log* holds their output.

    *environment* are the names of the variables that the commands saw.
    """

    builder: str
    commands: tuple[str, ...]
    environment: tuple[str, ...]
    log: str
    warnings: tuple[str, ...] = ()


# --------------------------------------------------------------------------- deciding

_KINDS = {
    "uv": ("requirements", "pylock.toml", "uv.lock"),
    "pip": ("requirements", "pylock.toml"),
    "poetry": ("poetry.lock",),
    "pdm": ("pdm.lock",),
    "pipenv": ("Pipfile.lock",),
}
"""What each builder can install from."""

_COMPANIONS = {
    "uv.lock": ("pyproject.toml", "setup.py", "setup.cfg", "uv.toml"),
    "poetry.lock": ("pyproject.toml", "poetry.toml"),
    "pdm.lock": ("pyproject.toml", "setup.py", "setup.cfg", "pdm.toml"),
    "Pipfile.lock": ("Pipfile",),
}
"""What a lock's tool reads beside it. The first one must be there."""

_NOT_LOCKS = frozenset(name for names in _COMPANIONS.values() for name in names)
_UNKNOWN = (".yml", ".yaml", ".json", ".toml", ".xml", ".py", ".cfg")
"""Endings that no requirements file has."""

_HOW_TO_GET = {
    "uv": 'Install it ("pip install uv" beside venvflow, or the "venvflow[uv]" extra), or use "build: pip".',
    "poetry": 'Install it ("uv tool install poetry" or "pipx install poetry").',
    "pdm": 'Install it ("uv tool install pdm" or "pipx install pdm").',
    "pipenv": 'Install it ("uv tool install pipenv" or "pipx install pipenv").',
}

_BARE_VENV = ("{python}", "-I", "-B", "-m", "venv", "--without-pip", "{venv}")


def choose(spec: VenvSpec, environ: Mapping[str, str]) -> Plan:
    """Return how *spec* will be built. Runs nothing and reads no file, for it is asked on every run.

    :raises UsageError: no builder can install these lock files, or not the one that is asked for.
    :raises EnvironmentFailure: the builder is not installed.
    """
    if not isinstance(spec.build, str):
        return Plan("commands", spec.build)
    kind, locks = _kind_of(spec)
    name = _named(spec, kind, environ)
    if name != "pip":
        tool(name, environ)
    compiles = spec.bytecode == "keep"
    if name == "uv":
        return _uv_plan(kind, compiles=compiles, inputs=_inputs(spec.name, kind, locks[0]))
    if name == "pip":
        return _pip_plan(compiles=compiles)
    return Plan(
        name, (_BARE_VENV, _sync_command(name, compiles=compiles)), _inputs(spec.name, kind, locks[0])
    )


def tool(name: str, environ: Mapping[str, str]) -> str:
    """Return the path of the program *name*: beside the Python that runs venvflow, else on PATH.

    :raises EnvironmentFailure: it is not installed.
    """
    found = _which(name, environ.get("PATH", os.defpath))
    if found is None:
        raise EnvironmentFailure(
            f"{name} is not installed", state="Nothing was changed.", hint=_HOW_TO_GET.get(name, "")
        )
    return found


@functools.cache
def _which(name: str, path: str) -> str | None:
    # Not shutil.which: importing shutil alone costs a run with nothing to do several milliseconds.
    beside = os.path.dirname(os.path.abspath(sys.executable))
    for directory in (beside, *path.split(os.pathsep)):
        program = os.path.join(directory, name)
        if os.path.isabs(program) and os.path.isfile(program) and os.access(program, os.X_OK):
            return program
    return None


def _kind_of(spec: VenvSpec) -> tuple[str, tuple[str, ...]]:
    """Return which kind of lock files *spec* has, and those of that kind.

    A project file beside its lock (``pyproject.toml`` with ``uv.lock``) is welcome and counts for nothing.
    """
    kinds = {lock: _kind(os.path.basename(lock)) for lock in spec.locks}
    locks = tuple(lock for lock, kind in kinds.items() if kind)
    found = sorted({kind for kind in kinds.values() if kind})
    if not locks:
        raise UsageError(
            "there is no lock file to build from",
            where=spec.name,
            hint='List one as "locks:" (uv.lock, requirements.txt, …), or give commands as "build:".',
        )
    if len(found) > 1:
        raise UsageError(
            f"lock files of different kinds cannot fill one venv: {' and '.join(found)}",
            where=spec.name,
            hint='Make two venvs of them, or give a list of commands as "build:".',
        )
    _check_kind(spec, found[0], locks)
    return found[0], locks


def _kind(name: str) -> str:
    if name in _COMPANIONS:
        return name
    if name == "pylock.toml" or (name.startswith("pylock.") and name.endswith(".toml")):
        return "pylock.toml"
    if name in _NOT_LOCKS:
        return ""
    return "unknown" if name.lower().endswith(_UNKNOWN) else "requirements"


def _check_kind(spec: VenvSpec, kind: str, locks: tuple[str, ...]) -> None:
    if kind == "unknown":
        raise UsageError(
            f"no builder knows {shown(os.path.basename(locks[0]))}",
            where=spec.name,
            hint='Give a list of commands as "build:"; they find the file as {lock}.',
        )
    if kind != "requirements" and len(locks) > 1:
        raise UsageError(
            f"one venv can be built from one {kind}, not from {len(locks)}",
            where=spec.name,
            hint='Make a venv of each, or give a list of commands as "build:".',
        )


def _named(spec: VenvSpec, kind: str, environ: Mapping[str, str]) -> str:
    """Return the builder's name, or complain about it."""
    if spec.build == "auto":
        if kind in _KINDS["pip"]:
            return "uv" if _which("uv", environ.get("PATH", os.defpath)) else "pip"
        return next(name for name, kinds in _KINDS.items() if kind in kinds)
    name = str(spec.build)
    if name not in _KINDS:
        raise UsageError(
            f"there is no builder {shown(name)!r}",
            where=spec.name,
            hint=f"Use one of auto, {', '.join(_KINDS)}, or a list of commands.",
        )
    if kind not in _KINDS[name]:
        able = " or ".join(other for other, kinds in _KINDS.items() if kind in kinds)
        what = "a requirements file" if kind == "requirements" else kind
        raise UsageError(
            f"{name} cannot install from {what}",
            where=spec.name,
            hint=f'Use "build: {able}" or "build: auto".',
        )
    return name


def _inputs(where: str, kind: str, lock: str) -> tuple[str, ...]:
    """Return the files beside *lock* that its tool reads as well."""
    companions = _COMPANIONS.get(kind, ())
    directory = os.path.dirname(lock)
    present = tuple(path for name in companions if os.path.exists(path := os.path.join(directory, name)))
    if companions and os.path.join(directory, companions[0]) not in present:
        raise UsageError(
            f"{companions[0]} is missing beside {shown(lock)}",
            where=where,
            hint="The lock file alone does not say what to install: put them into one directory.",
        )
    return present


def _uv_plan(kind: str, *, compiles: bool, inputs: tuple[str, ...]) -> Plan:
    create = ("{uv}", "venv", "--no-project", "--python", "{python}", "{venv}")
    bytecode = "--compile-bytecode" if compiles else "--no-compile-bytecode"
    if kind == "uv.lock":
        # Without --python, a project that wants another version would make uv replace the venv.
        return Plan("uv", (create, ("{uv}", "sync", "--frozen", "--python", "{python}", bytecode)), inputs)
    # uv verifies every hash that is there; --require-hashes would add nothing to a file that has them all.
    sync = ("{uv}", "pip", "sync", "--strict", "--python", "{venv}/bin/python", bytecode, "{locks}")
    return Plan("uv", (create, sync))


def _pip_plan(*, compiles: bool) -> Plan:
    create = ("{python}", "-I", "-B", "-m", "venv", "{venv}")
    bytecode = "--compile" if compiles else "--no-compile"
    install = ("{pip}", "install", "--no-deps", bytecode, "--requirement={locks}")
    return Plan("pip", (create, install), audit=("{pip}", "check"))


def _sync_command(name: str, *, compiles: bool) -> tuple[str, ...]:
    if name == "poetry":
        command = ("{poetry}", "sync", "--no-interaction")
        return (*command, "--compile") if compiles else command
    return ("{pdm}", "sync") if name == "pdm" else ("{pipenv}", "sync")


def _settings(request: Request) -> dict[str, str]:
    """Return the variables that we set ourselves: quiet tools, no questions, this venv and no other."""
    settings = {
        "NO_COLOR": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_PROGRESS_BAR": "off",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_PROJECT_ENVIRONMENT": request.staging,
        "POETRY_NO_INTERACTION": "1",
        "PDM_CHECK_UPDATE": "0",
        "PDM_NON_INTERACTIVE": "1",
        "PDM_IGNORE_SAVED_PYTHON": "1",
        "PIPENV_IGNORE_VIRTUALENVS": "0",
        "PIPENV_NOSPIN": "1",
        "PIPENV_VERBOSITY": "-1",
        "PIPENV_YES": "1",
        "VIRTUAL_ENV": request.staging,
        "VENVFLOW_VENV": request.staging,
        "VENVFLOW_PYTHON": request.interpreter.executable,
        "VENVFLOW_PROJECT": request.root,
    }
    if request.plan.name == "commands":
        # As if the venv were activated. Not for the tools: they may be scripts that ask env for python3.
        path = request.environ.get("PATH", os.defpath)
        settings["PATH"] = os.pathsep.join((f"{request.staging}/bin", path))
    if request.spec.bytecode != "keep":
        # Bytecode is compiled later, the same for every place; what a builder makes would embed its own.
        settings |= {"PYTHONDONTWRITEBYTECODE": "1", "PIP_NO_COMPILE": "1"}
    return settings


# --------------------------------------------------------------------------- building


def build(request: Request, *, progress: Callable[[str], None] | None = None) -> Built:
    """Build the venv at ``request.staging`` and return what was done. *progress* gets each line of output.

    After an error, what was built so far is left for the caller to remove.

    :raises BuildFailed: a command failed, or left no venv that works.
    :raises EnvironmentFailure: a tool is missing, or the log cannot be written.
    :raises UsageError: two requirements files have relative paths that mean different directories.
    """
    directory = _working_directory(request)
    from venvflow.disk.scratch import scratch  # noqa: PLC0415  nothing of this is needed where nothing is built

    with _open_log(request.log_path) as descriptor, scratch(environ=request.environ) as temporary:
        job = _Job(request, descriptor, progress, temporary)
        for template in request.plan.commands:
            job.run(_filled(template, request), directory)
        _check_venv(request, job)
        if request.plan.audit:
            job.run(_filled(request.plan.audit, request), directory, may_fail=True)
    if request.spec.bytecode != "keep" and request.plan.name != "uv":  # which never compiles unasked
        _drop_bytecode(request.staging)
    return Built(
        request.plan.name,
        tuple(job.commands),
        tuple(sorted(job.environ)),
        request.log_path,
        tuple(_missing_dependencies(job.missing)),
    )


class _Job:
    """The commands of one build: their environment, their log and their last lines."""

    def __init__(
        self,
        request: Request,
        log: int,
        progress: Callable[[str], None] | None,
        temporary: Workplace | None = None,
    ) -> None:
        import collections  # noqa: PLC0415  nothing of this is needed where nothing is built

        from venvflow.disk import processes  # noqa: PLC0415

        environ = processes.child_environment(request.environ, request.spec.key_env)
        self.environ = environ | _settings(request)
        self._inherited = request.inherit_fds
        if temporary is not None:
            self.environ["TMPDIR"] = temporary.path
            self._inherited += (temporary.fd,)
        self.commands: list[str] = []
        self.missing: list[str] = []
        self._request = request
        self._log = log
        self._progress = progress
        self._redact = redactor(_secrets_of(request, self.environ))
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL)

    def run(self, argv: Sequence[str], directory: str, *, may_fail: bool = False) -> None:
        """Run one command to its end, its output going to the log."""
        import shlex  # noqa: PLC0415

        from venvflow.disk import processes  # noqa: PLC0415

        command = self._told(shlex.join(redact_words(argv)))
        self.commands.append(command)
        self._write(f"$ {command}")
        lines = processes.Lines(self._take)
        try:
            status = processes.run(
                argv,
                environ=self.environ,
                on_output=lines.feed,
                cwd=directory,
                inherit_fds=self._inherited,
            )
        except OSError as error:
            raise self._cannot_start(argv[0], error) from None
        finally:
            lines.close()
        if status and not may_fail:
            raise self.failure(f"{_short(argv)} {processes.in_words(status)}")

    def ask(self, argv: Sequence[str]) -> str:
        """Run a command that answers quickly, and return all that it says."""
        from venvflow.disk import processes  # noqa: PLC0415

        said = bytearray()
        with contextlib.suppress(OSError, TimeoutError):
            processes.run(argv, environ=self.environ, on_output=said.extend, timeout=_PATIENCE)
        return said.decode("utf-8", "replace")

    def failure(self, what: str, hint: str = "") -> BuildFailed:
        """Return the error that says *what* went wrong, with the last lines of output."""
        # The staging directory is gone by now: what is said of it is meant for the venv's own place.
        place = self._request.spec.path
        parent, name = os.path.split(self._request.staging)
        tail = "\n".join(self._tail).replace(self._request.staging, place)
        tail = re.sub(rf"\S*{re.escape('/'.join(parent.split('/')[-2:]))}/{re.escape(name)}", place, tail)
        return BuildFailed(
            self._told(what),
            where=self._request.spec.name,
            state="Nothing was put in place.",
            hint=hint or _hint(tail, place, self.environ.get("TMPDIR", place)),
            log=self._request.log_path,
            tail=tail,
        )

    def _told(self, text: str) -> str:
        """Return *text* as it may be logged and shown: without credentials and control characters."""
        return legible(self._redact(_COLOURS.sub("", text)))

    def _take(self, line: str) -> None:
        line = self._told(line.rstrip())
        self._write(line)
        self._tail.append(line[:2000])
        if re.search(_MISSING, line):
            self.missing.append(line)
        if self._progress and line:
            self._progress(line)

    def _write(self, line: str) -> None:
        data = (line + "\n").encode("utf-8", "surrogateescape")
        try:
            while data:
                data = data[os.write(self._log, data) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._request.log_path) from error

    def _cannot_start(self, program: str, error: OSError) -> EnvironmentFailure:
        return EnvironmentFailure(
            f"{shown(program)} cannot be run: {error.strerror or error}",
            where=self._request.spec.name,
            state="Nothing was put in place.",
            hint="Is it installed, on PATH and executable?",
        )


def _secrets_of(request: Request, environ: Mapping[str, str]) -> set[str]:
    """Return what the builder gets and must not repeat: in its variables, commands and lock files."""
    secrets = secrets_of(environ, request.spec.key_env)
    for words in request.plan.commands:
        secrets.update(*map(secrets_in, words))
    for lock in request.spec.locks:
        with contextlib.suppress(OSError):
            secrets |= secrets_in(read_small(lock, follow=True).decode("utf-8", "replace"))
    return secrets


@contextlib.contextmanager
def _open_log(path: str) -> Iterator[int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | SAFE
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise failure(error, "cannot write the build log", at=path, state="Nothing was built.") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _short(argv: Sequence[str]) -> str:
    """Return a command's name for a message: the program and the words up to the first option or path."""
    words = [os.path.basename(argv[0])]
    for word in argv[1:4]:
        if word.startswith("-") or "/" in word:
            break
        words.append(word)
    return shown(" ".join(words))


_HINTS = (
    (
        r"incompatible with the project|requires a different python|not satisfy python|requires-python",
        'Set "python:" for this venv in the config to a version that the project allows.',
    ),
    (
        r"failed to (?:initialize|create|open) (?:the )?cache|cache.*permission denied",
        "The builder's cache cannot be written: mend its permissions, or set UV_CACHE_DIR or PIP_CACHE_DIR.",
    ),
    (
        r"hash mismatch|do not match the hashes",
        "What the index offers is not what was locked: find out why before locking again.",
    ),
    (
        r"not a valid editable|Distribution not found at|Expected .* to be a|does not exist",
        "Relative paths in a requirements file are looked for in the directory of that file.",
    ),
    (
        r"No module named '?(?:venv|ensurepip)|ensurepip is not",
        "This Python lacks venv: install python3-venv.",
    ),
    (
        r"temporary failure in name resolution|failed to fetch|connection|timed out|network",
        "The package index may be out of reach: check the network and the index, then run doit again.",
    ),
)


_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


_LITTLE = 4 << 20
"""Bytes free from which on a build may have failed for want of space without saying so."""


def _hint(tail: str, *written: str) -> str:
    """Return what may help against what a builder said last; *written* are directories that it writes to."""
    full = next((line for line in reversed(tail.splitlines()) if _NO_SPACE.search(line)), None)
    if full is not None:
        # The last path in that line is what could not be written: its place, a cache, a temporary directory.
        named = re.findall(r"(?<![\w/])/[^\s'\"`:]+", full)
        mount = shown(mount_of(named[-1] if named else written[0]))
        return f"Free space on the file system mounted at {mount}, then run doit again."
    for pattern, hint in _HINTS:
        if re.search(pattern, tail, re.IGNORECASE):
            return hint
    for path in written:
        left = room(path)
        if left is not None and left < _LITTLE:
            mount = shown(mount_of(path))
            return f"The file system mounted at {mount} is nearly full: free space there, then run again."
    return "Correct the lock files or the build, then run doit again."


# --------------------------------------------------------------------------- filling in


_PLACEHOLDER = re.compile(r"\{(venv|python|project|lock|uv|poetry|pdm|pipenv)\}")


def _filled(template: Sequence[str], request: Request) -> list[str]:
    """Return *template* as the words of a command. Other braces stay as they are."""
    argv: list[str] = []
    for word in template:
        if word == "{pip}":
            argv += _pip(request)
        elif "{locks}" in word:
            argv += [_fill(word.replace("{locks}", "{lock}"), request, lock) for lock in _locks(request.spec)]
        else:
            argv.append(_fill(word, request, next(iter(_locks(request.spec)), "")))
    if tuple(template[:2]) == ("{poetry}", "sync") and _is_old_poetry(argv[0], request):
        argv[1:2] = ["install", "--sync"]
    return argv


def _fill(word: str, request: Request, lock: str) -> str:
    values = {
        "venv": request.staging,
        "python": request.interpreter.executable,
        "project": request.root,
        "lock": lock,
    }

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return values[name] if name in values else tool(name, request.environ)

    return _PLACEHOLDER.sub(value, word)


def _locks(spec: VenvSpec) -> tuple[str, ...]:
    """Return the lock files that the commands get: with a builder's name, without project files."""
    locks = spec.locks if not isinstance(spec.build, str) else _kind_of(spec)[1]
    return tuple(os.path.normpath(lock) for lock in locks)


def _pip(request: Request) -> list[str]:
    """Return the words that run pip for the new venv: the pip beside venvflow, or else the venv's own.

    The venv's own is as old as its Python. ``-I``, because else Python looks for pip in the working
    directory first.
    """
    python = f"{request.staging}/bin/python"
    version = _own_pip(request.interpreter)
    if _kind_of(request.spec)[0] == "pylock.toml" and version < (26, 1):
        raise EnvironmentFailure(
            f"pip cannot install from pylock.toml for Python {request.interpreter.version} here",
            where=request.spec.name,
            state="Nothing was put in place.",
            hint='It takes pip 26.1 beside venvflow and a Python that this pip supports. Or use "build: uv".',
        )
    if version:
        return [sys.executable, "-I", "-B", "-m", "pip", "--python", python]
    return [python, "-I", "-B", "-m", "pip"]


def _own_pip(target: Interpreter) -> tuple[int, ...]:
    """Return the version of the pip beside venvflow; nothing if it is missing or too new for *target*."""
    import importlib.metadata  # noqa: PLC0415
    import site  # noqa: PLC0415

    try:
        pip = importlib.metadata.distribution("pip")
    except importlib.metadata.PackageNotFoundError:
        return ()
    oldest = _numbers((pip.metadata["Requires-Python"] or "").partition(">=")[2])
    if _numbers(target.version)[:2] < oldest[:2]:
        return ()
    if str(pip.locate_file("")).startswith(site.getusersitepackages()):
        return ()  # an isolated Python does not see it
    return _numbers(pip.version)


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\s*\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in leading[0].split(".")) if leading else ()


def _is_old_poetry(program: str, request: Request) -> bool:
    """Say whether this poetry is older than 2, which brought ``poetry sync``."""
    said = _Job(request, -1, None).ask([program, "--version"])
    found = re.search(r"version (\d+)", said)
    return found is not None and int(found[1]) < 2


# Not compiled before they are needed: every run imports this module, few build something.
_LOCAL = rb"(?m)^[ \t]*(?:(?:-e|--editable)[ \t=]+(?!/|[A-Za-z][A-Za-z+]*:)|\.{1,2}/|file:(?!/))"


def _working_directory(request: Request) -> str:
    """Return where the commands run.

    uv and pip both resolve a relative path in a requirements file from the working directory. So that is
    the directory of the file that has such paths; only one directory can be.
    """
    if request.plan.name == "commands":
        return request.root
    locks = _locks(request.spec)
    local = [lock for lock in locks if _has_local_paths(lock)] if len(locks) > 1 else list(locks)
    directories = sorted({os.path.dirname(lock) for lock in local})
    if len(directories) > 1:
        raise UsageError(
            "requirements files in different directories have relative paths: "
            + " and ".join(shown(lock) for lock in local),
            where=request.spec.name,
            hint="Move these lines into one file: uv and pip resolve all of them from one directory.",
        )
    return directories[0] if directories else os.path.dirname(locks[0])


def _has_local_paths(lock: str) -> bool:
    try:
        return re.search(_LOCAL, read_small(lock, follow=True)) is not None
    except OSError as error:
        raise EnvironmentFailure(
            f"{shown(lock)} cannot be read: {error.strerror}",
            state="Nothing was built.",
            hint="Mend its permissions, then run again.",
        ) from None


# --------------------------------------------------------------------------- what was built

_MISSING = (
    r"requires .*(?:but it's not installed|which is not installed|but .* is installed)"
    r"|has requirement .* but you have"
)
_INTRODUCE = (
    "import os, sys; print(); print('venvflow-venv', sys.implementation.cache_tag,"
    " '%d.%d.%d' % sys.version_info[:3], os.fsencode(os.path.realpath(sys.prefix)).hex(), sep='|')"
)
"""What the venv's Python says of itself, in one line: the path in hex, for it may have line ends in it."""


def _check_venv(request: Request, job: _Job) -> None:
    """See that there is a venv, that it runs, and that it is of the Python that the key names.

    :raises BuildFailed: one of these is not so.
    """
    if not os.path.isfile(f"{request.staging}/pyvenv.cfg"):
        raise job.failure(
            "the builder reported success, but there is no venv (no pyvenv.cfg)",
            'Commands have to make the venv too: ["{uv}", "venv", "--python", "{python}", "{venv}"].',
        )
    python = f"{request.staging}/bin/python"
    said = job.ask([python, "-I", "-B", "-c", _INTRODUCE])
    answer = next(
        (line.split("|", 3) for line in said.splitlines() if line.startswith("venvflow-venv|")), None
    )
    if answer is None:
        first = next((line for line in said.splitlines() if line.strip()), "nothing")
        raise job.failure(f"the builder reported success, but the venv's python does not run: {shown(first)}")
    _, tag, version, prefix_in_hex = answer
    prefix = os.fsdecode(bytes.fromhex(prefix_in_hex))
    wanted = ".".join(str(number) for number in _numbers(request.interpreter.version))
    if (tag, version) != (request.interpreter.cache_tag, wanted):
        raise job.failure(
            f"the venv runs Python {version} ({tag}), not {wanted} ({request.interpreter.cache_tag})",
            'Let the commands use {python}, or correct "python:" in the config.',
        )
    if prefix != os.path.realpath(request.staging):
        raise job.failure(f"the venv's python belongs to {shown(prefix)}")


def _missing_dependencies(lines: Sequence[str]) -> Iterator[str]:
    """Turn a tool's words about missing dependencies into warnings."""
    for line in dict.fromkeys(lines):
        yield line.removeprefix("warning: ")
    if lines:
        yield (
            "The lock files do not name all that is needed, and nothing else was installed: make full ones, "
            'as in "uv pip compile requirements.in -o requirements.txt".'
        )


def _drop_bytecode(venv: str) -> None:
    """Remove what was compiled in spite of us (``ensurepip`` does), from the disk and from each RECORD."""
    for directory, names, files in os.walk(venv, onerror=_raise):
        if "__pycache__" in names:
            names.remove("__pycache__")
            _empty_cache(os.path.join(directory, "__pycache__"))
        if "RECORD" in files and directory.endswith(".dist-info"):
            _forget_bytecode(os.path.join(directory, "RECORD"))


def _raise(error: OSError) -> None:
    raise error


def _empty_cache(directory: str) -> None:
    if os.path.islink(directory):
        return
    for name in os.listdir(directory):
        if name.endswith(".pyc"):
            os.unlink(os.path.join(directory, name))
    with contextlib.suppress(OSError):  # something else lies there: it stays
        os.rmdir(directory)


def _forget_bytecode(record: str) -> None:
    lines = read_small(record).split(b"\n")
    kept = [line for line in lines if not re.search(rb'__pycache__/[^/]*\.pyc"?,', line)]
    if len(kept) == len(lines):
        return
    # By rename: the file may share its inode with a cache that is not ours.
    with open(f"{record}.vf", "xb") as file:
        file.write(b"\n".join(kept))
    os.replace(f"{record}.vf", record)
