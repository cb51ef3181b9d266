"""What is done while faults happen: each action takes the root of a world, and returns an exit code.

A world has a project ``p`` (its venv is ``api``), venvs ``one`` and ``two`` of no project, and a store.
Everything happens in this process, but for the builder and the compiler.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from wheels import offline_environment

from venvflow.cli import main
from venvflow.flow import Flow, load
from venvflow.steps.build_venv import build_venv
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.job import Job
from venvflow.steps.pack import pack
from venvflow.steps.push import push
from venvflow.steps.restore import restore
from venvflow.steps.squish import squish
from venvflow.steps.store import store
from venvflow.steps.trim import trim

_OF_THE_SHIM = ("LD_PRELOAD", "AWS_FAULTS", "PYTHONPATH")
"""Variables that the process that talks to a remote needs to be interrupted, too."""

_CHAIN = (hash_lockfiles, restore, build_venv, squish, pack, store)


def _flow(root: Path) -> Flow:
    given = {name: os.environ[name] for name in _OF_THE_SHIM if name in os.environ}
    house = root.parent / "house"
    world = {
        **given,
        **(offline_environment(house) if house.is_dir() else {}),
        "PATH": os.environ["PATH"],
        "HOME": str(root / "home"),
        "VENVFLOW_LOCK_TIMEOUT": os.environ["VENVFLOW_LOCK_TIMEOUT"],
    }
    return Flow(load(str(root / "p"), world).config, world, now=time.time, command=("fault",))


def flow(root: Path) -> int:
    """Do what doit does: all steps of the venv, then the trim."""
    run = _flow(root)
    for step in _CHAIN:
        step(run.job("api"))
    trim(run.config, run.environ, now=run.now())
    return 0


def _one_step(step: Callable[[Job], object]) -> Callable[[Path], int]:
    def act(root: Path) -> int:
        step(_flow(root).job("api"))
        return 0

    return act


hashed, brought, built, shared, put_by, stored = map(_one_step, _CHAIN)
"""The steps of the venv, one at a time."""


def restored(root: Path) -> int:
    """Restore the venv, and nothing else."""
    run = _flow(root)
    hash_lockfiles(run.job("api"))
    return 0 if restore(run.job("api")).did != "miss" else 1


def trimmed(root: Path) -> int:
    """Apply the policy."""
    run = _flow(root)
    trim(run.config, run.environ, now=run.now())
    return 0


def pushed(root: Path) -> int:
    """Send the snapshot to the remote."""
    return 1 if push(_flow(root).job("api")).did == "not pushed" else 0


def trimmed_remote(root: Path) -> int:
    """Apply the policy of the remote."""
    return _command(root, "trim", "--remote")


def _command(root: Path, *words: str) -> int:
    os.environ["VENVFLOW_STORE"] = str(root / "store")
    os.environ["HOME"] = str(root / "home")
    return main(["-C", str(root / "p"), *words])


def squished(root: Path) -> int:
    """Share two venvs that no project names."""
    return _command(root, "squish", str(root / "one"), str(root / "two"))


def unsquished(root: Path) -> int:
    """Give both venvs their own files again."""
    return _command(root, "unsquish", str(root / "one"), str(root / "two"))


def healed(root: Path) -> int:
    """Find and mend what was edited."""
    return _command(root, "verify", "--full", "--heal")


def erased(root: Path) -> int:
    """Drop all snapshots."""
    return _command(root, "erase", "--yes")


def packed(root: Path) -> int:
    """Write the archive of the venv."""
    return _command(root, "pack", "api", "-o", str(root / "out" / "api.tar.zst"))


def unpacked(root: Path) -> int:
    """Make a venv of the archive."""
    return _command(root, "unpack", str(root / "out" / "api.tar.zst"), str(root / "three"))


def exported(root: Path) -> int:
    """Make a directory of the venv."""
    return _command(root, "export", "api", str(root / "four"))
