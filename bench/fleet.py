"""The synthetic fleet: many venvs, each with its own lock file, key, receipt and snapshot.

``python -m bench.fleet DIRECTORY --venvs 1000`` makes one to look at, or to measure by hand: its
store holds as many snapshots. All of it is made by venvflow itself: every venv is built by a list of commands
from a lock file that differs from its neighbour's in one package, then squished and stored. So the venvs
share almost all of their files, and their receipts watch as many directories as those of a middling real
venv.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from typing import Any

from bench import synthetic
from bench.project import Project
from bench.synthetic import Shape
from bench.world import World

SMALL = Shape(directories=12, modules=13, module_size=600)
"""One package of a fleet's venv: with 24 of them a venv has some 310 directories, besides bytecode caches."""

PACKAGES = 24


def lock_text(packages: int, version: int) -> str:
    """Return a lock file of *packages* lines, whose first package has the given *version*."""
    names = [f"package_{number:03}" for number in range(packages)]
    return "".join(f"{name}=={version if name == names[0] else 0}\n" for name in names)


def entry(name: str, shape: Shape, *, bytecode: str = "canonical") -> dict[str, Any]:
    """Return the config's entry for a synthetic venv *name* with its own directory and lock file."""
    command = ["{python}", "-I", synthetic.__file__, "{venv}", "{lock}", "--shape", json.dumps(asdict(shape))]
    return {
        "path": f"{name}/.venv",
        "locks": [f"{name}/requirements.txt"],
        "build": [command],
        "bytecode": bytecode,
    }


def make_fleet(
    world: World, name: str, venvs: int, *, packages: int = PACKAGES, bytecode: str = "canonical"
) -> Project:
    """Make a project *name*, or at an absolute path, with *venvs* venvs that are stored and up to date."""
    names = [f"v{number:04}" for number in range(venvs)]
    entries = {venv: entry(venv, SMALL, bytecode=bytecode) for venv in names}
    fleet = Project(world, name, entries, durability="none")
    for version, venv in enumerate(names):
        fleet.write(f"{venv}/requirements.txt", lock_text(packages, version))
    fleet.run("-n", str(os.cpu_count() or 1))
    return fleet


def main() -> None:
    """Make the fleet that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description="Make a synthetic fleet.")
    parser.add_argument("directory", help="where to make it; must not exist")
    parser.add_argument("--venvs", type=int, default=100)
    parser.add_argument("--packages", type=int, default=PACKAGES)
    options = parser.parse_args()
    directory = os.path.abspath(options.directory)
    world = World(os.path.dirname(directory), quick=False, profile=False)
    fleet = make_fleet(world, directory, options.venvs, packages=options.packages)
    print(f"{options.venvs} venvs in {fleet.root}, their store in {fleet.store}")


if __name__ == "__main__":
    main()
