"""Finds the Python that a venv is made of, and asks it for its version and paths.

A venv's spec names its Python by version, by path, or not at all; :func:`resolve` turns that into an
:class:`~venvflow.model.Interpreter` that is never inside a venv itself. Interpreters are not guessed at
by their names: each is run once and asked. :func:`identity` is what a run that has nothing to do looks at.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from venvflow.disk.files import read_small
from venvflow.disk.system_errors import from_system
from venvflow.errors import EnvironmentFailure, UsageError, shown
from venvflow.model import Interpreter
from venvflow.pure.names import PYTHON_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PATIENCE = 10.0
"""Seconds that an interpreter has to answer."""

_LOADER = ("LD_LIBRARY_PATH", "NIX_LD", "NIX_LD_LIBRARY_PATH")
"""What a program may need to start at all."""

_ENVIRONMENT = (
    *("HOME", "LANG", *_LOADER, "PATH", "TMPDIR"),
    *("PYENV_ROOT", "PYENV_VERSION", "UV_PYTHON_INSTALL_DIR", "XDG_DATA_HOME"),
)
"""All that an interpreter sees when it is asked; a version manager's shim needs some of it."""

_MARK = "venvflow-interpreter:"

# Goes on where postinstall.FACTS, which archives ask by, ends. Runs on Python 3.8 and newer, without site:
# nothing that is installed can change the answer.
_PROBE = r"""
import json
from importlib.util import MAGIC_NUMBER
def musl():
    import glob, re, subprocess
    for loader in sorted(glob.glob("/lib/ld-musl-*.so.1")):
        said = subprocess.run([loader], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
        found = re.search(rb"Version (\d+\.\d+)", said)
        if found:
            return "musl " + found.group(1).decode()
    return "unknown libc"
def system():
    machine = os.uname().machine
    if sys.platform == "darwin":
        import platform
        return "macos {} {}".format(machine, platform.mac_ver()[0])
    if not sys.platform.startswith("linux"):
        return "{} {} {}".format(sys.platform, machine, os.uname().release)
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        libc = None
    return "linux {} {}".format(machine, libc or musl())
level = {"alpha": "a", "beta": "b", "candidate": "rc"}.get(sys.version_info.releaselevel)
facts["version"] += "%s%d" % (level, sys.version_info.serial) if level else ""
facts.update(
    platform=system(), cache_tag=sys.implementation.cache_tag or "", magic=MAGIC_NUMBER.hex()
)
print("\n" + MARK + json.dumps(facts))
"""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A version as the config asks for it: *numbers* is ``3``, ``3.12`` or ``3.12.4``."""

    implementation: str
    numbers: str
    freethreaded: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Return what such an interpreter may be called, the most telling name first."""
        stem = "pypy" if self.implementation == "pypy" else "python"
        minor = ".".join(self.numbers.split(".")[:2])
        threads = "t" if self.freethreaded else ""
        return tuple(dict.fromkeys((f"{stem}{minor}{threads}", f"{stem}3{threads}", stem)))

    def fits(self, found: Interpreter) -> bool:
        """Say whether *found* is such an interpreter."""
        if found.implementation != self.implementation:
            return False
        if ("freethreaded" in found.abi.split()) != self.freethreaded:
            return False
        return found.version == self.numbers or found.version.startswith(self.numbers + ".")


_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
"""What this process lacks to start another one: no fault of the interpreter."""


class _NoAnswer(Exception):
    """A candidate is not an interpreter; the text says why."""


def resolve(python: str, *, root: str, environ: Mapping[str, str]) -> Interpreter:
    """Return the base interpreter that *python* means.

    *python* is a version (``3.12``, ``3.12.4``, ``pypy3.10``, ``3.13t``), a path with a slash in it
    (relative to *root*), or empty for the Python that runs venvflow. A version is looked for on PATH, then
    among the interpreters of pyenv and uv, then in the usual directories. What lies in a venv stands
    for the interpreter that the venv is made of. The answer is remembered for as long as this process runs.

    :raises UsageError: *python* is neither a version nor a path.
    :raises EnvironmentFailure: there is no such interpreter, or it does not work.
    """
    if not python:  # it is not a shim, nor searched for: neither project nor user changes what it says
        return _resolve("", "", tuple((name, environ[name]) for name in _LOADER if name in environ))
    visible = tuple((name, environ[name]) for name in _ENVIRONMENT if name in environ)
    return _resolve(python, root, visible)


def identity(interpreter: Interpreter | str) -> str:
    """Return a fingerprint that changes when the interpreter at that path is replaced; empty: it is gone.

    It is made of the real path, the size in bytes and the time of the last change: nothing is run.
    """
    path = interpreter if isinstance(interpreter, str) else interpreter.executable
    try:
        real = os.path.realpath(path)
        status = os.stat(real)
    except (OSError, ValueError):
        return ""
    return f"{real}:{status.st_size}:{status.st_mtime_ns}"


@functools.cache
def _resolve(python: str, root: str, visible: tuple[tuple[str, str], ...]) -> Interpreter:
    environ = dict(visible)
    if not python:
        return _ask_path(getattr(sys, "_base_executable", "") or sys.executable, environ)
    if "/" in python:
        return _ask_path(os.path.normpath(os.path.join(root, python)), environ)
    return _search(python, environ)


def _ask_path(path: str, environ: Mapping[str, str]) -> Interpreter:
    try:
        return _ask(path, environ)
    except _NoAnswer as reason:
        raise EnvironmentFailure(
            f"the interpreter {shown(path)} cannot be used: {reason}",
            state="Nothing was changed.",
            hint='Correct "python:" in the config: a path to an interpreter, or a version like "3.12".',
        ) from None


def _search(python: str, environ: Mapping[str, str]) -> Interpreter:
    wanted = _wanted(python)
    tried: dict[str, str] = {}
    for path in _candidates(wanted, environ):
        if path in tried:
            continue
        try:
            found = _ask(path, environ)
        except _NoAnswer as reason:
            tried[path] = str(reason)
            continue
        if wanted.fits(found):
            return found
        tried[path] = f"is {found.implementation} {found.version}"
    raise EnvironmentFailure(
        f"there is no Python {python} on this machine",
        state="Tried: "
        + ("; ".join(f"{shown(path)} ({why})" for path, why in tried.items()) or "nothing found."),
        hint=f'Install it ("uv python install {python}", "pyenv install {python}"), or give another version '
        'or the path of an interpreter as "python:" in the config.',
    )


def _wanted(python: str) -> _Wanted:
    match = PYTHON_VERSION.fullmatch(python)
    if match is None:
        raise UsageError(
            f"{shown(python)!r} is neither a Python version nor the path of an interpreter",
            hint='Write a version ("3.12", "3.12.4", "pypy3.10") or a path with a slash in it.',
        )
    implementation = "pypy" if match["implementation"] == "pypy" else "cpython"
    return _Wanted(implementation, match["number"], bool(match["threads"]))


def _candidates(wanted: _Wanted, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the paths that may be such an interpreter, the likeliest first."""
    path = [entry for entry in environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(entry)]
    usual = ["/usr/local/bin", "/opt/homebrew/bin", "/usr/bin"]
    for name in wanted.names:
        yield from programs(path, name)
    for directory in _managed(environ):
        yield from programs([directory], wanted.names[0])
    opt = [f"/opt/{name}/bin" for name in _newest_first("/opt")]
    for name in wanted.names[:2]:
        yield from programs([*usual, *opt], name)
    yield getattr(sys, "_base_executable", "") or sys.executable


def programs(directories: Iterable[str], name: str) -> Iterator[str]:
    """Yield the paths of executable files called *name* in *directories*."""
    for directory in directories:
        path = os.path.join(directory, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            yield path


def _managed(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the bin directories of the interpreters that pyenv and uv keep."""
    home = environ.get("HOME", "")
    data = environ.get("XDG_DATA_HOME") or os.path.join(home, ".local/share")
    pyenv = os.path.join(environ.get("PYENV_ROOT") or os.path.join(home, ".pyenv"), "versions")
    uv = environ.get("UV_PYTHON_INSTALL_DIR") or os.path.join(data, "uv/python")
    for parent in filter(os.path.isabs, (pyenv, uv)):
        for name in _newest_first(parent):
            yield os.path.join(parent, name, "bin")


def _newest_first(directory: str) -> list[str]:
    """Return the names in *directory*, those with the highest numbers in them first."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return sorted(
        names, key=lambda name: ([int(part) for part in re.findall(r"\d+", name)], name), reverse=True
    )


def _ask(path: str, environ: Mapping[str, str], depth: int = 0) -> Interpreter:
    """Run the interpreter at *path* and return what it says of itself, or of the base of its venv.

    :raises _NoAnswer: it does not run, takes too long, or prints something else.
    """
    answer = _answer(path, environ)
    executable = str(answer["executable"])
    base = _base_of_copy(executable)
    if base and depth < 5:
        return _ask(base, environ, depth + 1)
    return Interpreter(**answer, home=os.path.dirname(executable))


def _answer(path: str, environ: Mapping[str, str]) -> dict[str, Any]:
    from venvflow.disk import processes  # noqa: PLC0415  a run with nothing to do asks nobody
    from venvflow.postinstall import FACTS  # noqa: PLC0415  as above

    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise _NoAnswer("it does not exist") from None
    except OSError as error:
        raise _NoAnswer(f"it cannot be reached: {error.strerror}") from None
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        raise _NoAnswer("it is a directory" if os.path.isdir(path) else "it is not an executable file")
    argv = [path, "-I", "-S", "-B", "-c", FACTS + _PROBE.replace("MARK", repr(_MARK))]
    try:
        status, said = processes.ask(argv, environ=environ, cwd="/", timeout=PATIENCE)
    except TimeoutError:
        raise _NoAnswer(f"it did not answer within {PATIENCE:g} seconds") from None
    except OSError as error:
        if error.errno in _OURS:
            raise from_system(error, "Nothing was changed.") from None
        raise _NoAnswer(error.strerror or str(error)) from None
    return _parse(said, processes.in_words(status))


def _parse(said: str, ending: str) -> dict[str, Any]:
    for line in said.splitlines():
        if line.startswith(_MARK):
            try:
                answer: dict[str, Any] = json.loads(line[len(_MARK) :])
            except ValueError:
                break
            return answer
    first = next((line.strip() for line in said.splitlines() if line.strip()), "nothing")
    raise _NoAnswer(f"it does not answer as Python 3 would (it {ending} and said: {shown(first[:200])})")


def venv_settings(venv: str) -> dict[str, str]:
    """Return what ``pyvenv.cfg`` in the directory *venv* says, if there is one that can be read."""
    try:
        text = os.fsdecode(read_small(os.path.join(venv, "pyvenv.cfg"), follow=True))
    except OSError:
        return {}
    pairs = [line.partition("=") for line in text.split("\n")]
    return {name.strip().lower(): value.strip() for name, equals, value in pairs if equals}


def python_of(venv: str) -> str:
    """Return the version in the venv's ``pyvenv.cfg``; empty if it says none."""
    settings = venv_settings(venv)
    # Some tools write their own version as "version", and Python's as "version_info".
    for name in ("version_info", "version"):
        if found := re.match(r"[0-9]+(?:\.[0-9]+)+[a-z0-9]*", settings.get(name, "")):
            return found[0]
    return ""


def _base_of_copy(executable: str) -> str:
    """Return the base interpreter if *executable* is a copy that lies in a venv, else nothing."""
    home = venv_settings(os.path.dirname(os.path.dirname(executable))).get("home", "")
    if not os.path.isabs(home):
        return ""
    found = list(programs([home], os.path.basename(executable))) + list(programs([home], "python3"))
    return found[0] if found else ""
