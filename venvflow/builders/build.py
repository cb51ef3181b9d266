"""One build: runs a recipe's commands in a staging directory, and logs their output without credentials."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from venvflow.builders import checks, output
from venvflow.builders.commands import filled, working_directory
from venvflow.builders.environment import child_environment
from venvflow.builders.recipe import Recipe
from venvflow.disk import processes
from venvflow.disk.descriptors import SAFE
from venvflow.disk.files import read_small
from venvflow.disk.scratch import scratch
from venvflow.disk.system_errors import failure
from venvflow.errors import BuildFailed, EnvironmentFailure, legible, shown
from venvflow.model import Interpreter, VenvSpec
from venvflow.pure.lockfiles import locked_by
from venvflow.pure.redaction import redact_words, redactor, secrets_in, secrets_of

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Begun(NamedTuple):
    """What a build starts from: the *paths* of it in the venv, and what makes the rest of it be there."""

    paths: Container[str]
    finish: Callable[[], object]


@dataclass(eq=False)
class Build:
    """A venv to be built: *spec* by *recipe* from *interpreter* at *staging*.

    *staging* is absolute and does not exist, but its parent does. *root* is the project root. *log_path* is
    overwritten. *inherit_fds* stay open in everything that the builder starts: an orphan goes on holding
    the lock whose descriptor it was given. *progress* gets, at each line of output, what the builder is at,
    and how many packages are done of how many (0: that is not known).
    """

    spec: VenvSpec
    recipe: Recipe
    root: str
    staging: str
    interpreter: Interpreter
    environ: Mapping[str, str]
    log_path: str
    inherit_fds: tuple[int, ...] = ()
    progress: Callable[[str, int, int], None] = lambda _words, _done, _of: None

    def __post_init__(self) -> None:
        self.variables = child_environment(self.environ, self.spec.key_env) | _settings(self)
        self._redact = redactor(self._secrets())
        self._heard = output.Heard()

    def run(self, begin: Callable[[bool], Begun] | None = None) -> tuple[str, ...]:
        """Build the venv and return warnings; after an error, what was built so far is left.

        *begin* puts into the empty venv what the tool will find there, and is told whether all but metadata
        may come while the tool is at work.

        :raises BuildFailed: a command failed, or left no venv that works.
        :raises EnvironmentFailure: a tool is missing, or the log cannot be written.
        :raises UsageError: two requirements files have relative paths that mean different directories.
        """
        directory = working_directory(self)
        with self._open_log() as self._log, scratch(environ=self.environ) as temporary:
            self.variables["TMPDIR"] = temporary.path
            self.inherit_fds += (temporary.fd,)
            there: Container[str] = ()
            for number, template in enumerate(self.recipe.commands):
                argv = [*filled(template, self), *self._exactly(template, begin)]
                if number == 1 and begin is not None:
                    begun = begin(reads_metadata_only(self))
                    there = begun.paths
                    self._run(argv, directory, meanwhile=begun.finish)
                else:
                    self._run(argv, directory)
            checks.check_venv(self)
            checks.hide_from_git(self.staging)
            if self.recipe.audit:
                self._run(filled(self.recipe.audit, self), directory, may_fail=True)
        if self.spec.bytecode != "keep" and self.recipe.name != "uv":  # which never compiles unasked
            checks.drop_bytecode(self.staging, but=there)
        return tuple(output.warnings_of(self._heard.lacks, self._locked_by()))

    def _exactly(self, template: Sequence[str], begin: object) -> tuple[str, ...]:
        """Return the option by which a tool removes what its lock does not ask for, if it needs one.

        An empty venv has nothing of that kind.
        """
        return ("--clean",) if begin is not None and tuple(template[:2]) == ("{pdm}", "sync") else ()

    def ask(self, argv: Sequence[str]) -> str:
        """Run a command that answers quickly, and return all that it says."""
        with suppress(OSError, TimeoutError):
            return processes.ask(argv, environ=self.variables, timeout=60)[1]
        return ""

    def failure(self, what: str, hint: str = "") -> BuildFailed:
        """Return the error that says *what* went wrong: the lines that say why, and the last ones."""
        causes = [self._in_place(line) for line in self._heard.causes]
        tail = self._in_place(self._heard.tail)
        said = "\n".join([tail, *causes])
        return BuildFailed(
            self._redacted(what) + ":" * bool(causes),
            where=self.spec.name,
            state="Nothing was put in place.",
            hint=hint or output.hint(said, self.spec.path, self.variables.get("TMPDIR", self.spec.path)),
            lines=[f"  {line}" for line in causes],
            log=self.log_path,
            tail=tail,
        )

    def _in_place(self, text: str) -> str:
        """Return what was said of the staging directory, which is gone, as it is meant for the place."""
        place = self.spec.path
        parent, name = os.path.split(self.staging)
        end = f"{'/'.join(parent.split('/')[-2:])}/{name}"
        return re.sub(rf"\S*{re.escape(end)}", lambda _: place, text.replace(self.staging, place))

    def _run(
        self,
        argv: Sequence[str],
        directory: str,
        *,
        may_fail: bool = False,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Run one command to its end, its output going to the log."""
        self._write(f"$ {self._redacted(shlex.join(redact_words(argv)))}")
        failed: list[OSError] = []

        def aside() -> None:
            try:
                meanwhile()
            except OSError as error:
                failed.append(error)
                raise

        lines = processes.Lines(self._take)
        try:
            status = processes.run(
                argv,
                environ=self.variables,
                on_output=lines.feed,
                cwd=directory,
                inherit_fds=self.inherit_fds,
                meanwhile=aside,
            )
        except OSError as error:
            if failed:  # the program has nothing to do with it
                raise
            raise EnvironmentFailure(
                f"{shown(argv[0])} cannot be run: {error.strerror or error}",
                where=self.spec.name,
                state="Nothing was put in place.",
                hint="Is it installed, on PATH and executable?",
            ) from None
        finally:
            lines.close()
        if status and not may_fail:
            raise self.failure(f"{_short(argv)} {processes.in_words(status)}")
        self._heard.forgive()

    def _redacted(self, text: str) -> str:
        """Return *text* as it may be logged and shown: without credentials and control characters."""
        return legible(self._redact(_COLOURS.sub("", text)))

    def _take(self, line: str) -> None:
        line = self._redacted(line.rstrip())
        self._write(line)
        self._heard.take(line)
        if line:
            self.progress(str(self._heard.doing), self._heard.doing.done, self._heard.doing.total)

    def _write(self, line: str) -> None:
        data = (line + "\n").encode("utf-8", "surrogateescape")
        try:
            while data:
                data = data[os.write(self._log, data) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.log_path) from error

    @contextmanager
    def _open_log(self) -> Iterator[int]:
        try:
            os.makedirs(os.path.dirname(self.log_path), exist_ok=True)
            descriptor = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | SAFE, 0o600)
        except OSError as error:
            at = self.log_path
            raise failure(error, "cannot write the build log", at=at, state="Nothing was built.") from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _locked_by(self) -> str:
        """Return the tool that made the lock files, empty unless they say so."""
        for lock in self.spec.locks:
            with suppress(OSError):
                if tool := locked_by(read_small(lock, follow=True)):
                    return tool
        return ""

    def _secrets(self) -> set[str]:
        """Return what the builder gets and must not repeat: in its variables, commands and lock files."""
        secrets = secrets_of(self.variables, self.spec.key_env)
        for words in self.recipe.commands:
            secrets.update(*map(secrets_in, words))
        for lock in self.spec.locks:
            with suppress(OSError):
                secrets |= secrets_in(read_small(lock, follow=True).decode("utf-8", "replace"))
        return secrets


_CONFIGS = "pyproject.toml", "uv.toml"


def reads_metadata_only(build: Build) -> bool:
    """Return whether the tool reads nothing of what is installed but its metadata.

    So does uv, but for what it builds without isolation: that may import anything that is there.
    """
    if build.recipe.name != "uv" or any(name.startswith("UV_") for name in build.spec.key_env):
        return False
    homes = [build.environ.get("XDG_CONFIG_HOME") or f"{build.environ.get('HOME', '')}/.config"]
    files = [f"{home}/uv/uv.toml" for home in (*homes, "/etc", "/etc/xdg")]
    files += filter(None, [build.environ.get("UV_CONFIG_FILE")])
    above = working_directory(build)
    while above != os.path.dirname(above):
        files += [os.path.join(above, name) for name in _CONFIGS]
        above = os.path.dirname(above)
    return not any(map(_forbids_isolation, files))


def _forbids_isolation(file: str) -> bool:
    try:
        return b"no-build-isolation" in read_small(file, follow=True)
    except FileNotFoundError:
        return False
    except OSError:  # whatever it says
        return True


def _short(argv: Sequence[str]) -> str:
    """Return a command's name for a message: the program and the words up to the first option or path."""
    words = [os.path.basename(argv[0])]
    for word in argv[1:4]:
        if word.startswith("-") or "/" in word:
            break
        words.append(word)
    return shown(" ".join(words))


def _settings(build: Build) -> dict[str, str]:
    """Return the variables that we set ourselves: quiet tools, no questions, this venv and no other."""
    settings = {
        "NO_COLOR": "1",
        "COLUMNS": "400",  # else pdm and pipenv fold their lines, in the middle of words
        "GIT_TERMINAL_PROMPT": "0",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_PROGRESS_BAR": "off",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_PROJECT_ENVIRONMENT": build.staging,
        "POETRY_NO_INTERACTION": "1",
        "PDM_CHECK_UPDATE": "0",
        "PDM_NON_INTERACTIVE": "1",
        "PDM_IGNORE_SAVED_PYTHON": "1",
        "PIPENV_IGNORE_VIRTUALENVS": "0",
        "PIPENV_NOSPIN": "1",
        "PIPENV_VERBOSITY": "-1",
        "PIPENV_YES": "1",
        "VIRTUAL_ENV": build.staging,
        "VENVFLOW_VENV": build.staging,
        "VENVFLOW_PYTHON": build.interpreter.executable,
        "VENVFLOW_PROJECT": build.root,
    }
    if build.recipe.name == "commands":
        # As if the venv were activated. Not for the tools: they may be scripts that ask env for python3.
        path = build.environ.get("PATH", os.defpath)
        settings["PATH"] = os.pathsep.join((f"{build.staging}/bin", path))
    if build.spec.bytecode != "keep":
        # Bytecode is compiled later, the same for every place; what a builder makes would embed its own.
        settings |= {"PYTHONDONTWRITEBYTECODE": "1", "PIP_NO_COMPILE": "1"}
    return settings
