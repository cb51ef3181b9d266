"""Chooses the builder of a venv by its lock files, and the commands that it runs.

Every run asks that for every venv: nothing is run here, and no file is read.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from venvflow.builders.selection import options_for
from venvflow.disk.interpreters import programs
from venvflow.errors import EnvironmentFailure, UsageError, shown
from venvflow.model import VenvSpec
from venvflow.pure.names import kind_of


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a venv will be built. *commands* are templates; *inputs* absolute paths of what else is read.

    *name* is the builder. *inputs* are files that decide what is installed besides the locks, so that
    they belong in the key. *audit* is a command that reports missing dependencies and decides nothing.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    inputs: tuple[str, ...] = ()
    audit: tuple[str, ...] = ()


_KINDS = {
    "uv": ("requirements", "pylock", "uv"),
    "pip": ("requirements", "pylock"),
    "poetry": ("poetry",),
    "pdm": ("pdm",),
    "pipenv": ("pipenv",),
}
"""What each builder can install from."""

_COMPANIONS = {
    "uv": ("pyproject.toml", "setup.py", "setup.cfg", "uv.toml"),
    "poetry": ("pyproject.toml", "poetry.toml"),
    "pdm": ("pyproject.toml", "setup.py", "setup.cfg", "pdm.toml"),
    "pipenv": ("Pipfile",),
}
"""What a lock's tool reads beside it. The first one must be there."""

BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
"""What decides the metadata of a local project that a lock, or the config, refers to."""

_NOT_LOCKS = frozenset(name for names in _COMPANIONS.values() for name in names)

_NOUNS = {
    "requirements": "a requirements file",
    "pylock": "pylock.toml",
    "uv": "uv.lock",
    "poetry": "poetry.lock",
    "pdm": "pdm.lock",
    "pipenv": "Pipfile.lock",
}
_HOW_TO_GET = {
    "uv": 'Install it ("pip install uv" beside venvflow, or the "venvflow[uv]" extra), or use "build: pip".',
    "poetry": 'Install it ("uv tool install poetry" or "pipx install poetry").',
    "pdm": 'Install it ("uv tool install pdm" or "pipx install pdm").',
    "pipenv": 'Install it ("uv tool install pipenv" or "pipx install pipenv").',
}


def choose(spec: VenvSpec, environ: Mapping[str, str]) -> Recipe:
    """Return how *spec* will be built. Runs nothing and reads no file: every run calls it.

    :raises UsageError: no builder can install these lock files, or not the one that the config names.
    :raises EnvironmentFailure: the builder is not installed.
    """
    if not isinstance(spec.build, str):
        return Recipe("commands", spec.build)
    kind, locks = kind_and_locks(spec)
    name = _named(spec, kind, environ)
    if name != "pip":
        tool(name, environ)
    made_by = _commands(spec, name, kind, locks[0])
    audit = ("{pip}", "check") if name == "pip" else ()
    return Recipe(name, made_by, _inputs(spec, kind, locks[0]), audit)


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
    return next(programs((beside, *filter(os.path.isabs, path.split(os.pathsep))), name), None)


def kind_and_locks(spec: VenvSpec) -> tuple[str, tuple[str, ...]]:
    """Return which kind of lock files *spec* has, and those of that kind.

    A project file beside its lock (``pyproject.toml`` with ``uv.lock``) is ignored.
    """
    locks = tuple(lock for lock in spec.locks if os.path.basename(lock) not in _NOT_LOCKS)
    found = sorted(set(map(kind_of, locks)))
    if not locks:
        hint = 'List one as "locks:" (uv.lock, requirements.txt, …), or give commands as "build:".'
        raise _refused(spec, "there is no lock file to build from", hint)
    if len(found) > 1:
        what = f"lock files of different kinds cannot fill one venv: {' and '.join(map(_noun, found))}"
        raise _refused(spec, what, 'Make two venvs of them, or give a list of commands as "build:".')
    if found == ["other"]:
        what = f"no builder knows {shown(os.path.basename(locks[0]))}"
        raise _refused(spec, what, 'Give a list of commands as "build:"; they find the file as {lock}.')
    if found != ["requirements"] and len(locks) > 1:
        what = f"one venv can be built from one {_noun(found[0])}, not from {len(locks)}"
        raise _refused(spec, what, 'Make a venv for each, or give a list of commands as "build:".')
    return found[0], locks


def _refused(spec: VenvSpec, what: str, hint: str) -> UsageError:
    return UsageError(what, where=spec.name, hint=hint)


def _noun(kind: str) -> str:
    return _NOUNS.get(kind, kind)


def _named(spec: VenvSpec, kind: str, environ: Mapping[str, str]) -> str:
    """Return the builder's name, or complain about it."""
    able = [name for name, kinds in _KINDS.items() if kind in kinds]
    if spec.build == "auto":
        with_pip = "pip" in able and not _which("uv", environ.get("PATH", os.defpath))
        return "pip" if with_pip else able[0]
    name = str(spec.build)
    if name not in _KINDS:
        hint = f"Use one of auto, {', '.join(_KINDS)}, or a list of commands."
        raise _refused(spec, f"there is no builder {shown(name)!r}", hint)
    if name not in able:
        hint = f'Use "build: {" or ".join(able)}" or "build: auto".'
        raise _refused(spec, f"{name} cannot install from {_noun(kind)}", hint)
    return name


def _inputs(spec: VenvSpec, kind: str, lock: str) -> tuple[str, ...]:
    """Return the files beside *lock* that its tool reads as well."""
    beside = [os.path.join(os.path.dirname(lock), name) for name in _COMPANIONS.get(kind, ())]
    if beside and not os.path.exists(beside[0]):
        what = f"{os.path.basename(beside[0])} is missing beside {shown(lock)}"
        hint = "The lock file alone does not say what to install: put them into one directory."
        raise _refused(spec, what, hint)
    return tuple(filter(os.path.exists, beside))


def _commands(spec: VenvSpec, name: str, kind: str, lock: str) -> tuple[tuple[str, ...], ...]:
    """Return the command that makes an empty venv, the one that fills it, and one for local projects."""
    compiles = spec.bytecode == "keep"
    like = [f"--prompt={spec.prompt}"] * bool(spec.prompt)
    like += ["--system-site-packages"] * spec.system_site_packages
    local = [f"--editable={{project}}/{path}".removesuffix("/.") for path in spec.editable]
    if name == "uv":
        create = ("{uv}", "venv", "--no-project", "--python", "{python}", *like, "{venv}")
        bytecode = "--compile-bytecode" if compiles else "--no-compile-bytecode"
        if kind == "uv":
            # Without --python, a project that wants another version would make uv replace the venv.
            sync = ("{uv}", "sync", "--frozen", "--python", "{python}", bytecode)
            return create, (*sync, *options_for(name, spec))
        # uv verifies every hash that is there; --require-hashes would add nothing where all are.
        into = ("--strict", "--python", "{venv}/bin/python", bytecode)
        projects = [("{uv}", "pip", "install", "--no-deps", *into, *local)] * bool(local)
        return create, ("{uv}", "pip", "sync", *into, "{locks}"), *projects
    venv = ("{python}", "-I", "-B", "-m", "venv", *like)
    if name == "pip":
        install = ("{pip}", "install", "--no-deps", "--compile" if compiles else "--no-compile")
        return (*venv, "{venv}"), (*install, "--requirement={locks}"), *[(*install, *local)] * bool(local)
    options = ("--no-interaction", *["--compile"] * compiles) if name == "poetry" else ()
    if kind == "pdm" and os.path.basename(lock) != "pdm.lock":
        options = ("--lockfile={lock}",)
    return (*venv, "--without-pip", "{venv}"), (f"{{{name}}}", "sync", *options, *options_for(name, spec))
