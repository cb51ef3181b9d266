"""The others: how each brings a finished venv to its place, starting from what it keeps of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence

from bench.project import PYTHON, Project
from bench.world import CommandFailed, Unavailable, World

_VIRTUALENV_CACHE = "virtualenv-cache==0.0.2"
_VENVSTACKS = "venvstacks==0.7.0"
_IENV = "ienv==0.0.1"

LINKERS: Mapping[str, Sequence[str]] = {
    "jdupes": ("--recurse", "--link-hard", "--quiet"),
    "hardlink": ("--quiet", "--ignore-time"),
    "rdfind": ("-makehardlinks", "true", "-makeresultsfile", "false"),
}
"""Programs that link equal files below a directory, each with the words by which it does that."""

Commands = Sequence[Sequence[str]]
"""Command lines that are run one after the other, and timed together."""


def link_copy(world: World, finished: str, place: str) -> Commands:
    """Return the command that links a finished venv into place with what every system has."""
    return [[world.tool("cp"), "-al", finished, place]]


def uv_sync(world: World, lock: str, place: str) -> Commands:
    """Return the commands by which uv makes the venv anew and compiles it; its cache has all it needs."""
    target = os.path.join(place, "bin", "python")
    return [
        [world.uv, "venv", "--quiet", "--offline", "--python", PYTHON, place],
        [
            world.uv, "pip", "sync", "--quiet", "--offline", "--link-mode", "hardlink", "--compile-bytecode",
            "--require-hashes", "--python", target, lock,
        ],
    ]  # fmt: skip


def virtualenv_cache(world: World, project: Project, finished: str, place: str) -> Commands:
    """Store the finished venv in virtualenv-cache, and return the command that restores it from there.

    It is installed into a venv of its own in the work directory, once. Raises Unavailable.
    """
    program = _installed(world, "virtualenv-cache", _VIRTUALENV_CACHE)
    settings = {
        "cache_path": world.path("virtualenv-cache"),
        "virtualenv_path": place,
        "requirements_lock_paths": [project.path("requirements.txt")],
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    project.write("virtualenv-cache.toml", "\n".join(["[virtualenv-cache]", *lines, ""]))
    os.rename(finished, place)
    try:
        world.run([program, "store", "-c", "virtualenv-cache.toml"], project.root)
    except CommandFailed as error:
        raise Unavailable(f"virtualenv-cache cannot store the venv: {_last_line(error)}") from error
    finally:
        os.rename(place, finished)
    return [[program, "restore", "-c", "virtualenv-cache.toml"]]


def linker(world: World, name: str) -> Callable[[str], Commands]:
    """Return what gives the command by which a linker shares all below a path; raises Unavailable."""
    program = world.tool(name)
    return lambda place: [[program, *LINKERS[name], place]]


def ienv(world: World) -> Callable[[str], Commands]:
    """Return what gives the commands by which ienv shares every venv below a path; raises Unavailable.

    It keeps the files in the home directory, so each run needs one of its own.
    """
    program = _installed(world, "ienv", _IENV)
    return lambda place: [[program, os.path.join(place, copy, ".venv")] for copy in sorted(os.listdir(place))]


_CREATE_ARCHIVE = """\
import sys
from venvstacks.pack_venv import create_archive
create_archive(sys.argv[1], sys.argv[2], show_progress=False)
"""


def venvstacks(world: World, venv: str, base: str) -> Commands:
    """Return the command that archives *venv* as xz by venvstacks, after one run; raises Unavailable."""
    program = _installed(world, "venvstacks", _VENVSTACKS)
    python = os.path.join(os.path.dirname(program), "python")
    command = [python, "-W", "ignore", "-c", _CREATE_ARCHIVE, venv, base]
    try:
        world.run(command)
    except CommandFailed as error:
        raise Unavailable(f"venvstacks cannot archive the venv: {_last_line(error)}") from error
    return [command]


def _installed(world: World, program: str, requirement: str) -> str:
    """Return the path of a peer's program, installed from the package index when it is not yet there."""
    home = os.path.join(world.work_dir, "peers", requirement)
    path = os.path.join(home, "bin", program)
    if not os.path.exists(path):
        try:
            world.run([world.uv, "venv", "--quiet", "--clear", "--python", PYTHON, home])
            target = os.path.join(home, "bin", "python")
            command = ["pip", "install", "--quiet", "--compile-bytecode", "--python", target, requirement]
            world.run([world.uv, *command], settings={"UV_OFFLINE": "false"})
        except CommandFailed as error:
            raise Unavailable(f"{requirement} cannot be installed: {_last_line(error)}") from error
    return path


def _last_line(error: CommandFailed) -> str:
    return str(error).strip().splitlines()[-1]
