"""Warming: uv's cache is filled before anything is timed, and nothing is downloaded later."""

from __future__ import annotations

import os
from collections.abc import Iterable

from bench.project import PYTHON
from bench.world import CommandFailed, Unavailable, World


def warm(world: World, locks: Iterable[str]) -> dict[str, str]:
    """Fill uv's cache with what the *locks* name; return what went wrong, by lock."""
    wrong = {}
    for name in dict.fromkeys(locks):
        try:
            _fill_cache(world, world.lock_file(name))
        except (CommandFailed, Unavailable) as error:
            wrong[name] = f"uv's cache could not be filled: {error}"
    world.environ["UV_OFFLINE"] = "1"
    return wrong


def _fill_cache(world: World, lock: str) -> None:
    """Let uv make the venv once; from the package index only where its cache does not do."""
    venv = world.path("warm")
    world.run([world.uv, "venv", "--quiet", "--offline", "--python", PYTHON, venv])
    target = os.path.join(venv, "bin", "python")
    sync = [world.uv, "pip", "sync", "--quiet", "--link-mode", "hardlink", "--python", target, lock]
    try:
        world.run([*sync, "--offline"])
    except CommandFailed:
        world.say(f"uv's cache lacks some of {os.path.basename(lock)}: asking the package index, this once")
        world.run(sync)
    world.put_aside(venv)
