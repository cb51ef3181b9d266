"""Projects to measure in: a directory with a config, a ``dodo.py``, lock files and a store of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

from bench.world import CommandFailed, World

PYTHON = os.path.realpath(sys.executable)
"""The interpreter of all venvs: the one that runs the benchmark, outside any venv."""

_LONGEST_DELETION = 60
"""Seconds that a large venv may take to be deleted in the background."""


class Project:
    """A project in the run's directory. *venvs* are the entries of its config, paths relative to it.

    A project at a place that is kept between runs (:meth:`~bench.world.World.kept`) may be there already.
    """

    def __init__(
        self,
        world: World,
        name: str,
        venvs: Mapping[str, Mapping[str, Any]],
        *,
        durability: str = "full",
        keep: int = 10_000,
    ) -> None:
        self.world = world
        self.root = world.path(name)
        self.store = os.path.join(self.root, ".store")
        self.settings = {"VENVFLOW_STORE": self.store}
        self._parents = {os.path.dirname(self.path(venv["path"])) for venv in venvs.values()}
        os.makedirs(self.root, exist_ok=True)
        config = {
            "version": 1,
            "store": {"path": self.store, "durability": durability},
            "trim": {"keep": keep, "keep_per_venv": keep},
            "defaults": {"python": PYTHON},
            "venvs": dict(venvs),
        }
        self.write("venvflow.yaml", json.dumps(config, indent=1))
        self.write("dodo.py", "from venvflow.tasks import *\n")

    def path(self, *names: str) -> str:
        """Return a path in the project."""
        return os.path.join(self.root, *names)

    def write(self, name: str, text: str) -> None:
        """Write a text file of the project."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)

    def venvflow(self, *words: str) -> str:
        """Run venvflow in the project and return what it said; raises CommandFailed."""
        return self.world.run(self.world.venvflow(*words), self.root, settings=self.settings)

    def timed_venvflow(self, *words: str) -> float:
        """Return the seconds that venvflow takes with *words*."""
        return self.world.timed(self.world.venvflow(*words), cwd=self.root, settings=self.settings)

    def use_lock(self, source: str, name: str = "requirements.txt") -> None:
        """Make the project's lock file *name* a copy of the file *source*."""
        shutil.copyfile(source, self.path(name))

    def doit(self, *arguments: str) -> list[str]:
        """Return the command that runs doit, as a user would."""
        return [sys.executable, "-m", "doit", *arguments]

    def run(self, *arguments: str) -> str:
        """Run doit with *arguments* in the project and return what it said; raises CommandFailed."""
        return self.world.run(self.doit(*arguments), self.root, settings=self.settings)

    def timed(self, *arguments: str) -> float:
        """Return the seconds that doit takes with *arguments*.

        What it leaves to be deleted in the background is not waited for by a user, but here, afterwards: it
        would slow down who comes next.
        """
        seconds = self.world.timed(self.doit(*arguments), cwd=self.root, settings=self.settings)
        self.rest()
        return seconds

    def rest(self) -> None:
        """Wait until no replaced venv is being deleted any more; raises CommandFailed if that never ends."""
        end = time.monotonic() + _LONGEST_DELETION
        while any(name.endswith(".gone") for parent in self._parents for name in os.listdir(parent)):
            if time.monotonic() > end:
                raise CommandFailed(f"what was replaced in {self.root} is not deleted")
            time.sleep(0.05)

    def profile(self, title: str, *arguments: str) -> None:
        """Profile doit with *arguments*, if profiles are wanted."""
        self.world.profile(title, self.doit(*arguments), self.root, settings=self.settings)

    def forget_all(self) -> None:
        """Bring the project to where nothing was ever done, its store empty: by moving all of it aside."""
        for name in (".venvflow", ".store", ".venv"):
            self.world.put_aside(self.path(name))


def built(world: World, name: str, *, bytecode: str = "canonical", packed: bool = True) -> Project:
    """Return the project of the lock file *name*, whose venv is built, shared, packed and stored.

    Without *packed*, its config asks for no archive, so that ``doit`` makes none. It is kept between runs.
    What a killed run left in it is put right by doit, as for any user; a project that doit cannot put right
    is made anew.
    """
    root = world.kept(f"built-{name}-{bytecode}")
    world.say(f"building {name}, unless an earlier run did")
    try:
        return _built(world, name, root, bytecode, packed=packed)
    except CommandFailed as error:
        world.say(f"what is kept of {name} cannot be used, so it is made anew: {str(error)[-300:]}")
        world.put_aside(root)
        return _built(world, name, root, bytecode, packed=packed)


def _built(world: World, name: str, root: str, bytecode: str, *, packed: bool) -> Project:
    entry: dict[str, Any] = {"path": ".venv", "locks": ["requirements.txt"], "bytecode": bytecode}
    if packed:
        entry["pack"] = {"format": "tar.zst", "level": 3, "output": "dist/"}
    project = Project(world, root, {name: entry})
    for left in _LEFT_BY_A_KILL:
        world.put_aside(project.path(left))
    project.use_lock(world.lock_file(name))
    project.run(f"*:{name}")
    return project


_LEFT_BY_A_KILL = ("finished", "place", "theirs.tar.zst")
"""What rows make in a project that is built, and move aside when they are done."""
