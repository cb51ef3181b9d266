"""A small project whose flow runs inside the test process: real builds, real store, no doit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wheels import make_wheel, offline_environment, requirements

from venvflow.flow import Flow, load
from venvflow.model import Outcome
from venvflow.steps.build_venv import build_venv
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.job import Job
from venvflow.steps.pack import pack
from venvflow.steps.restore import restore
from venvflow.steps.squish import squish
from venvflow.steps.store import store

CHAIN = (hash_lockfiles, restore, build_venv, squish, pack, store)


class World:
    """A project at ``<root>/p`` with a store beside it; *clock* is its time, *said* what was said."""

    def __init__(self, root: Path, house: Path) -> None:
        self.root = root / "p"
        self.store = root / "store"
        self.house = house
        self.clock = 1_000_000.0
        self.said: list[str] = []
        self.root.mkdir(parents=True)

    def configure(self, venvs: Mapping[str, Any], **settings: Any) -> None:
        """Write the config; every venv has its place and its lock in a directory of its name."""
        entries = {
            name: {"path": f"{name}/.venv", "locks": [f"{name}/requirements.txt"], **venv}
            for name, venv in venvs.items()
        }
        store = {"path": str(self.store), "durability": "none", **settings.pop("store", {})}
        document = {"version": 1, "store": store, "venvs": entries, **settings}
        (self.root / "venvflow.yaml").write_text(json.dumps(document))

    def wheel(self, name: str, version: str = "1.0") -> Path:
        """Return a wheel with one module and one command."""
        made = self.house / f"{name}-{version}-py3-none-any.whl"
        scripts = {name: f"{name}:main"}
        return made if made.exists() else make_wheel(self.house, name, version, scripts=scripts)

    def lock(self, venv: str, *wheels: Path) -> Path:
        """Write the lock of a venv."""
        return requirements(self.root / venv, wheels)

    def flow(self, **environ: str) -> Flow:
        """Return the flow of the config as it is now."""
        world = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        world |= {**offline_environment(self.house), **environ}
        return Flow(
            load(str(self.root), world).config,
            world,
            now=lambda: self.clock,
            say=self.said.append,
            command=("test",),
        )

    def job(self, venv: str = "api", **environ: str) -> Job:
        """Return the job of a venv by the config as it is now."""
        return self.flow(**environ).job(venv)

    def run(self, venv: str = "api") -> dict[str, Outcome]:
        """Run all steps of a venv and return what each answered, by its name."""
        self.clock += 1
        job = self.job(venv)
        return {step.__name__: step(job) for step in CHAIN}

    def venv(self, name: str = "api") -> Path:
        """Return the place of a venv."""
        return self.root / name / ".venv"

    def module(self, name: str, venv: str = "api") -> Path:
        """Return a module in the site-packages of a venv."""
        return next(self.venv(venv).glob("lib/python3*/site-packages")) / f"{name}.py"
