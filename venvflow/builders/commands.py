"""The commands of a recipe with all placeholders filled in for one build, and the directory they run in."""

from __future__ import annotations

import glob
import importlib.metadata
import os
import re
import site
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from venvflow.builders.environment import child_environment
from venvflow.builders.recipe import kind_and_locks, tool
from venvflow.disk import processes
from venvflow.disk.files import read_small
from venvflow.errors import EnvironmentFailure, UsageError, shown
from venvflow.model import Interpreter, VenvSpec

if TYPE_CHECKING:
    from venvflow.builders.build import Build

_KNOWS_PYLOCK = Version("26.1")  # pip
_PLACEHOLDER = re.compile(r"\{(venv|python|project|lock|uv|poetry|pdm|pipenv)\}")


def filled(template: Sequence[str], build: Build) -> list[str]:
    """Return *template* as the words of a command. Other braces stay as they are."""
    argv: list[str] = []
    for word in template:
        if word == "{pip}":
            argv += _pip(build)
        elif "{locks}" in word:
            argv += [_fill(word.replace("{locks}", "{lock}"), build, lock) for lock in _locks(build.spec)]
        else:
            argv.append(_fill(word, build, next(iter(_locks(build.spec)), "")))
    if tuple(template[:2]) == ("{poetry}", "sync") and _is_old_poetry(argv[0], build):
        argv[1:2] = ["install", "--sync"]
    return argv


def _fill(word: str, build: Build, lock: str) -> str:
    values = {
        "venv": build.staging,
        "python": build.interpreter.executable,
        "project": build.root,
        "lock": lock,
    }
    return _PLACEHOLDER.sub(
        lambda found: values[found[1]] if found[1] in values else tool(found[1], build.environ), word
    )


def _locks(spec: VenvSpec) -> tuple[str, ...]:
    """Return the lock files that the commands get: with a builder's name, without project files."""
    locks = spec.locks if not isinstance(spec.build, str) else kind_and_locks(spec)[1]
    return tuple(os.path.normpath(lock) for lock in locks)


def _pip(build: Build) -> list[str]:
    """Return the words that run pip for the new venv: the pip beside venvflow, or else the venv's own.

    The venv's own is as old as its Python. ``-I``, because else Python looks for pip in the working
    directory first.
    """
    python = f"{build.staging}/bin/python"
    version = _own_pip(build.interpreter)
    if kind_and_locks(build.spec)[0] == "pylock" and (not version or version < _KNOWS_PYLOCK):
        raise EnvironmentFailure(
            f"pip cannot install from pylock.toml for Python {build.interpreter.version} here",
            where=build.spec.name,
            state="Nothing was put in place.",
            hint='Needs pip 26.1 beside venvflow and a Python that this pip supports. Or use "build: uv".',
        )
    if version:
        return [sys.executable, "-I", "-B", "-m", "pip", "--python", python]
    return [python, "-I", "-B", "-m", "pip"]


def _own_pip(target: Interpreter) -> Version | None:
    """Return the version of the pip beside venvflow; None if it is missing or too new for *target*."""
    try:
        pip = importlib.metadata.distribution("pip")
    except importlib.metadata.PackageNotFoundError:
        return None
    supported = SpecifierSet(pip.metadata["Requires-Python"] or "")
    # An isolated Python does not see what is installed for one user only.
    is_private = str(pip.locate_file("")).startswith(site.getusersitepackages())
    if is_private or not supported.contains(Version(target.version).base_version):
        return None
    return Version(pip.version)


def version_of(tool_name: str, interpreter: Interpreter, environ: Mapping[str, str]) -> str:
    """Return which version of a builder would build, empty if that is not known.

    Two versions may install the same package in other ways.
    """
    if tool_name == "pip":
        version = _own_pip(interpreter)
        return f"pip {version}" if version else f"the pip of {interpreter.version}"
    program = os.path.realpath(tool(tool_name, environ))
    site_packages = f"{glob.escape(os.path.dirname(os.path.dirname(program)))}/lib/python*/site-packages"
    found = glob.glob(f"{site_packages}/{tool_name}-*.dist-info")
    said = os.path.basename(found[0]).removesuffix(".dist-info") if len(found) == 1 else ""
    with suppress(OSError, TimeoutError):  # to ask poetry takes half a second
        said = (
            said or processes.ask([program, "--version"], environ=child_environment(environ), timeout=60)[1]
        )
    number = re.search(r"\d+(?:\.\w+)+", said)
    return f"{tool_name} {number[0]}" if number else ""


def _is_old_poetry(program: str, build: Build) -> bool:
    """Say whether this poetry is older than 2, which brought ``poetry sync``."""
    found = re.search(r"version (\d+)", build.ask([program, "--version"]))
    return found is not None and int(found[1]) < 2


_LOCAL = re.compile(rb"(?m)^[ \t]*(?:(?:-e|--editable)[ \t=]+(?!/|[A-Za-z][A-Za-z+]*:)|\.{1,2}/|file:(?!/))")


def working_directory(build: Build) -> str:
    """Return where the commands run.

    uv and pip both resolve a relative path in a requirements file from the working directory. So that is
    the directory of the file that has such paths; only one directory can be.
    """
    if build.recipe.name == "commands":
        return build.root
    locks = _locks(build.spec)
    local = [lock for lock in locks if _has_local_paths(lock)] if len(locks) > 1 else list(locks)
    directories = sorted({os.path.dirname(lock) for lock in local})
    if len(directories) > 1:
        raise UsageError(
            "requirements files in different directories have relative paths: "
            + " and ".join(shown(lock) for lock in local),
            where=build.spec.name,
            hint="Move these lines into one file: uv and pip resolve all of them from one directory.",
        )
    return directories[0] if directories else os.path.dirname(locks[0])


def _has_local_paths(lock: str) -> bool:
    try:
        return _LOCAL.search(read_small(lock, follow=True)) is not None
    except OSError as error:
        raise EnvironmentFailure(
            f"{shown(lock)} cannot be read: {error.strerror}",
            state="Nothing was built.",
            hint="Fix its permissions, then run again.",
        ) from None
