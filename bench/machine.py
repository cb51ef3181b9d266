"""What machine this is: facts without which a number means nothing, and none that name it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import TypeAlias

from bench.world import Unavailable, World
from venvflow.disk.kernel import cores

Facts: TypeAlias = dict[str, str | int | float]


def facts(world: World) -> Facts:
    """Return cores, versions, file system and load."""
    return {
        "cores": cores(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "file system": _file_system(world.work_dir),
        "venvflow": version("venvflow"),
        "doit": version("doit"),
        "uv": _uv(world),
        "load before": load(),
    }


def load() -> float:
    """Return how many processes wanted to run in the last minute, on average."""
    return round(os.getloadavg()[0], 2)


def _file_system(path: str) -> str:
    """Return the type of the file system of *path*, as the kernel's list of mounts names it."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
            mounts = [line.split()[1:3] for line in file]
    except OSError:
        return "unknown"  # not Linux
    path = os.path.realpath(path)
    above = [(len(point), kind) for point, kind in mounts if os.path.commonpath([point, path]) == point]
    return max(above)[1] if above else "unknown"


def _uv(world: World) -> str:
    try:
        return world.run([world.uv, "--version"], world.work_dir).split()[1]
    except Unavailable:
        return "not installed"
