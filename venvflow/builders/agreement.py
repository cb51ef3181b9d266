"""Answers whether a venv that is there is what its lock says; changes nothing, builds and fetches nothing.

The tool that would build it is asked, where it has a word for that; for the others, names, versions and
origins are compared (:mod:`venvflow.builders.pins`). What is not known for sure is a no: then it is built.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from venvflow.builders import pins
from venvflow.builders.build import Build
from venvflow.builders.checks import check_venv
from venvflow.builders.commands import filled, working_directory
from venvflow.builders.recipe import BUILD_FILES, kind_and_locks
from venvflow.disk import processes
from venvflow.disk.files import read_small
from venvflow.errors import VenvflowError
from venvflow.pure.lockfiles import read_toml, table_at
from venvflow.pure.names import normalised

_SECONDS = 60
"""How long a tool may take to answer."""

_OFFLINE = {"UV_OFFLINE": "1", "PIP_NO_INDEX": "1"}


class Agreement(NamedTuple):
    """A venv has all that its lock says; *beyond* are the names of distributions that it does not ask for."""

    beyond: frozenset[str]


def agreement(build: Build) -> Agreement | None:
    """Return how the venv at the staging path of *build*, which is its own place here, agrees with its lock.

    None if it does not, or if that is not known: it is of another Python, or sees the packages of the system;
    the tool is missing, fails, or does not answer in time; the venv is made by the user's own commands.
    """
    with _leaving_no_lock(build.staging), suppress(pins.Unknown, VenvflowError, OSError, TimeoutError):
        if _is_as_asked(build):
            check_venv(build)
            beyond = _ASK[build.recipe.name](build) if build.recipe.name in _ASK else None
            local = _local_projects(build)
            if beyond is not None and local is not None:
                return Agreement(frozenset(map(normalised, beyond)) - local)
    return None


def lacking(build: Build) -> list[str]:
    """Return the names of what the lock asks for, and what the venv at the staging path of *build* lacks.

    None is named where that is not known: a venv of the user's own commands, one that sees the packages of
    the system, a lock file that leaves something open, a tool that is missing or fails.
    """
    with _leaving_no_lock(build.staging), suppress(pins.Unknown, VenvflowError, OSError, TimeoutError):
        kind, _ = kind_and_locks(build.spec)
        if build.recipe.name not in _ASK or build.spec.system_site_packages:
            return []
        if kind in ("requirements", "pylock", "pipenv"):
            return pins.lacking(build, pins.installed(build.staging))
        if kind in _WOULD:
            said = _said(build, "--dry-run")
            adds, removes = (set(map(normalised, re.findall(line, said))) for line in _WOULD[kind])
            return sorted(adds - removes)
    return []


@contextmanager
def _leaving_no_lock(venv: str) -> Iterator[None]:
    """Take away the file by which uv locks a venv, if it was not there before."""
    lock, before = f"{venv}/.lock", os.lstat(venv).st_mtime_ns
    had_one = os.path.lexists(lock)
    try:
        yield
    finally:
        with suppress(OSError):
            if not had_one:
                os.unlink(lock)
                os.utime(venv, ns=(before, before))


def _is_as_asked(build: Build) -> bool:
    """Return whether the venv sees what is in it alone, and has the prompt that the config asks for."""
    settings = read_small(f"{build.staging}/pyvenv.cfg").decode("utf-8", "replace")
    seen = re.findall(r"(?mi)^\s*include-system-site-packages\s*=\s*(\S*)\s*$", settings)
    prompts, prompt = re.findall(r"(?m)^prompt *= *(.*?) *$", settings), build.spec.prompt
    is_alone = not build.spec.system_site_packages and all(value.lower() == "false" for value in seen)
    return is_alone and (not prompt or prompts in ([prompt], [repr(prompt)]))


def _local_projects(build: Build) -> frozenset[str] | None:
    """Return the names of the projects that the config wants editable; None if one is not installed so."""
    names = set()
    for path in build.spec.editable:
        directory = os.path.normpath(os.path.join(build.root, path))
        project = table_at(_pyproject(directory), "project")
        name = normalised(str(project.get("name", "")))
        if not name:
            name = _installed_since(build, directory)
        elif not _has_itself(build, name, str(project.get("version", "")), directory):
            name = ""
        if not name:
            return None
        names.add(name)
    return frozenset(names)


def _installed_since(build: Build, directory: str) -> str:
    """Return the name of what is installed, editable, from *directory* since its build files were written.

    Only running a ``setup.py`` would tell name and commands. But what was installed after it came to be what
    it is, was installed by it. Empty if there is nothing, or if it is from before.
    """
    paths = [f"{directory}/{name}" for name in BUILD_FILES]
    changed = max(os.stat(path).st_ctime_ns for path in paths if os.path.exists(path))
    found = pins.installed(build.staging).items()
    return next((name for name, it in found if _is_from(it, directory) and it.written > changed), "")


# --------------------------------------------------------------------------- what the tools say


def _said(build: Build, *options: str) -> str:
    """Return what the command that fills the venv says that it would do, empty if it fails."""
    argv = [*filled(build.recipe.commands[1], build), *options]
    status, said = processes.ask(
        argv, environ=build.variables | _OFFLINE, cwd=working_directory(build), timeout=_SECONDS
    )
    return "" if status else said


def _uv(build: Build) -> list[str] | None:
    said = _said(build, "--dry-run")
    removed = re.findall(r"(?m)^ - ([\w.-]+)", said)
    would = re.findall(r"(?m)^Would (?!use )(.*?)\s*$", said)
    known = ("make no changes", f"uninstall {len(removed)} package{'s' if len(removed) > 1 else ''}")
    is_only_that = would and all(each in known for each in would) and not re.search(r"(?m)^ [+~] ", said)
    return removed if is_only_that else None


def _poetry(build: Build) -> list[str] | None:
    said = _said(build, "--dry-run")
    removed = re.findall(r"(?m)^ +- Removing ([\w.-]+) \(", said)
    counts = re.search(r"(?m)^Package operations: 0 installs?, 0 updates?, (\d+) removals?", said)
    nothing = "No dependencies to install or update" in said
    if not nothing and (counts is None or int(counts[1]) != len(removed)):
        return None
    own = re.search(r"(?m)^Installing the current project: ([\w.-]+) \((\S+)\)", said)
    if own is not None and not _has_itself(build, own[1], own[2], working_directory(build)):
        return None
    return removed if _is_known(build) else None


def _pdm(build: Build) -> list[str] | None:
    said = _said(build, "--dry-run", "--clean")
    headings = re.findall(r"(?m)^Packages to (\w+):", said)
    removed = re.findall(r"(?m)^ +- ([\w.-]+) \S+\s*$", said)
    if headings != ["remove"] and (headings or "All packages are synced to date" not in said):
        return None
    directory = working_directory(build)
    document = _pyproject(directory)
    is_distribution = table_at(document, "tool", "pdm").get("distribution") is not False
    project = table_at(document, "project")
    name, version = project.get("name", ""), project.get("version", "")
    if is_distribution and not _has_itself(build, name, version, directory):
        return None
    return removed if _is_known(build) else None


def _pip(build: Build) -> list[str] | None:
    """Compare: pip would build each local project to tell what it would do."""
    return pins.beyond(build, pins.installed(build.staging))


_ASK: Mapping[str, Callable[[Build], list[str] | None]] = {
    "uv": _uv, "poetry": _poetry, "pdm": _pdm, "pip": _pip, "pipenv": _pip
}  # fmt: skip


_WOULD = {
    "uv": (r"(?m)^ \+ ([\w.-]+)", r"(?m)^ - ([\w.-]+)"),
    "poetry": (r"(?m)^ +- Installing ([\w.-]+) \([^)]*\)\s*$", r"(?m)^ +- Removing ([\w.-]+) \("),
}
"""Lines by which a tool says that it would add a package, and that it would remove one, by kind of lock."""


# --------------------------------------------------------------------------- what the tools do not say


def _pyproject(directory: str) -> dict[str, Any]:
    with suppress(FileNotFoundError):
        return read_toml(read_small(f"{directory}/pyproject.toml", follow=True))
    return {}


def _has_itself(build: Build, name: str, version: str, directory: str) -> bool:
    """Return whether a project is installed: editable, from *directory*, with the commands that it has."""
    found = pins.installed(build.staging).get(normalised(name))
    if found is None or (version and found.version != version):
        return False
    document = _pyproject(directory)
    project, poetry = table_at(document, "project"), table_at(document, "tool", "poetry")
    asked = {
        "console_scripts": {**table_at(poetry, "scripts"), **table_at(project, "scripts")},
        "gui_scripts": table_at(project, "gui-scripts"),
        **table_at(poetry, "plugins"),
        **table_at(project, "entry-points"),
    }
    commands = {each: given for each, given in asked.items() if given}
    return _is_from(found, directory) and found.commands == commands


def _is_from(found: pins.Installed, directory: str) -> bool:
    """Return whether a distribution is installed editable from *directory*."""
    place = unquote(urlsplit(found.url).path)
    return found.editable and os.path.realpath(place) == os.path.realpath(directory)


def _is_known(build: Build) -> bool:
    """Return whether nothing was copied from a directory, in which something else may lie by now."""
    return not any(each.is_copy for each in pins.installed(build.staging).values())
